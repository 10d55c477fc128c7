//! A call's spans, made of what the dialogue asks for and is told: each prompt, each listening, each inference, each decision and the
//! charge. Only kinds and outcomes, in our own words.

use crate::decision::Answer;
use crate::dialogue::{
    AppPrompt, CallbackPrompt, CodeChecked, CodeSent, DecisionOutcome, Effect, ErrandEffect, ErrandNews, IdentityOutcome, Input,
    ListenFor, Matter, PaymentOutcome, Prompt,
};
use crate::ops::trace::{Attribute, Span, Spans};

/// Follows one call.
#[derive(Debug, Default)]
pub(super) struct CallTrace {
    spans: Spans,
}

impl CallTrace {
    /// The dialogue asks for this, `now_ms` after the answer.
    pub(super) fn effect(&mut self, now_ms: u64, effect: &Effect) {
        let mut begin = |name| self.spans.begin(now_ms, name, Vec::new());
        match effect {
            Effect::Play { prompt, .. } => {
                self.spans.begin(now_ms, "prompt", vec![("prompt.kind", Attribute::Word(prompt_name(prompt)))]);
            }
            Effect::StopPlaying => self.spans.end(now_ms, "prompt", vec![("prompt.cut_off", Attribute::Flag(true))], false),
            Effect::Listen { listen_for, barge_in } => self.spans.begin(
                now_ms,
                "listen",
                vec![("listen.for", Attribute::Word(listen_name(listen_for))), ("listen.barge_in", Attribute::Flag(*barge_in))],
            ),
            Effect::StopListening => self.spans.end(now_ms, "listen", Vec::new(), false),
            Effect::LookUp { .. } => begin("lookup"),
            Effect::ScoreVoice { .. } => begin("inference.voice"),
            Effect::ScoreChallenge { .. } => begin("inference.challenge"),
            Effect::ReadNumber { .. } => begin("inference.number"),
            Effect::CompareKeyed { .. } => begin("compare.keyed"),
            Effect::ReadAnswer { .. } => begin("inference.answer"),
            Effect::EnrolAdd { .. } => begin("inference.enrol"),
            Effect::EnrolFinish { .. } => begin("enrol.store"),
            Effect::ScoreCode { .. } => begin("inference.code"),
            Effect::SendCode { .. } => begin("code.send"),
            Effect::CheckCode { .. } => begin("code.check"),
            Effect::GrantMandate(_) => begin("mandate.grant"),
            Effect::DeleteVoice { .. } => begin("voice.delete"),
            Effect::Charge(_) => begin("charge"),
            Effect::Transfer => begin("transfer"),
            Effect::Errand(ErrandEffect::LookUp { .. }) => begin("errand.lookup"),
            Effect::Errand(ErrandEffect::Decide(_)) => begin("errand.decide"),
            Effect::KeepEvidence(_) => {
                begin("decision");
                self.spans.end(now_ms, "decision", Vec::new(), false);
            }
            Effect::DrawChallenge { .. }
            | Effect::RedeemInvite { .. }
            | Effect::RecordFailure { .. }
            | Effect::RecordSuccess { .. }
            | Effect::FollowVoice { .. }
            | Effect::SlowDown
            | Effect::SetDeadline { .. }
            | Effect::ClearDeadline(_)
            | Effect::Notify { .. }
            | Effect::HangUp(_) => {}
        }
    }

    /// The dialogue is told this.
    pub(super) fn input(&mut self, now_ms: u64, input: &Input) {
        let mut end = |name: &str, failed: bool| self.spans.end(now_ms, name, Vec::new(), failed);
        match input {
            Input::PromptDone(_) => end("prompt", false),
            Input::Utterance(facts) => {
                let net = Attribute::Count(facts.net_speech_ms.into());
                self.spans.end(now_ms, "listen", vec![("listen.net_speech_ms", net)], false);
            }
            Input::NoSpeech => end("listen", false),
            Input::Identity(outcome) => {
                let known = matches!(outcome, IdentityOutcome::Known(_));
                self.spans.end(now_ms, "lookup", vec![("lookup.known", Attribute::Flag(known))], false);
            }
            Input::VoiceScored(scored) => end("inference.voice", scored.is_err()),
            Input::ChallengeScored(scored) => end("inference.challenge", scored.is_err()),
            Input::NumberRead(read) => {
                end("inference.number", read.is_err());
                self.spans.end(now_ms, "compare.keyed", Vec::new(), read.is_err());
            }
            Input::Answer(answer) => {
                let word = answer.as_ref().map_or("none", |heard| match heard.answer {
                    Answer::Yes => "yes",
                    Answer::No => "no",
                    Answer::Cancel => "cancel",
                    Answer::Unclear => "unclear",
                });
                self.spans.end(now_ms, "inference.answer", vec![("answer", Attribute::Word(word))], answer.is_err());
            }
            Input::EnrolAdded(_) => end("inference.enrol", false),
            Input::EnrolStored(_) => end("enrol.store", false),
            Input::CodeScored(scored) => end("inference.code", scored.is_err()),
            Input::CodeSent(sent) => end("code.send", *sent == CodeSent::Trouble),
            Input::CodeChecked(checked) => end("code.check", *checked == CodeChecked::Trouble),
            Input::MandateGranted(done) => end("mandate.grant", !done),
            Input::VoiceDeleted(done) => end("voice.delete", !done),
            Input::Payment(outcome) => {
                let word = ("payment.outcome", Attribute::Word(payment_word(outcome)));
                let failed = matches!(outcome, PaymentOutcome::Unknown | PaymentOutcome::NotSubmitted);
                self.spans.end(now_ms, "charge", vec![word], failed);
            }
            Input::Transferred(done) => end("transfer", !done),
            Input::Errand(ErrandNews::Found { matter, .. }) => end("errand.lookup", matches!(matter, Matter::Trouble)),
            Input::Errand(ErrandNews::Decided(outcome)) => end("errand.decide", *outcome == DecisionOutcome::Trouble),
            Input::Started { .. }
            | Input::CalledOut(_)
            | Input::AppCall(_)
            | Input::Errand(ErrandNews::Machine)
            | Input::Key(_)
            | Input::SpeechStarted
            | Input::ChallengeDrawn(_)
            | Input::InviteRedeemed(_)
            | Input::Deadline(_)
            | Input::HungUp
            | Input::ServiceTrouble => {}
        }
    }

    /// The call is over.
    pub(super) fn finish(&mut self, now_ms: u64) -> Vec<Span> {
        self.spans.finish(now_ms)
    }
}

/// A payment's outcome in a word, for spans, records and metrics.
pub(super) fn payment_word(outcome: &PaymentOutcome) -> &'static str {
    match outcome {
        PaymentOutcome::Paid { .. } => "paid",
        PaymentOutcome::Waiting => "waiting",
        PaymentOutcome::Declined => "declined",
        PaymentOutcome::Unknown => "unknown",
        PaymentOutcome::Refused => "refused",
        PaymentOutcome::NotSubmitted => "not_submitted",
    }
}

fn listen_name(listen_for: &ListenFor) -> &'static str {
    match listen_for {
        ListenFor::CardNumber { .. } => "card_number",
        ListenFor::Counting => "counting",
        ListenFor::Challenge { .. } => "challenge",
        ListenFor::Code { .. } => "code",
        ListenFor::EnrolDigits { .. } => "enrol_digits",
        ListenFor::Answer => "answer",
    }
}

fn prompt_name(prompt: &Prompt) -> &'static str {
    match prompt {
        Prompt::Greeting => "greeting",
        Prompt::AskCustomerNumber { .. } => "ask_customer_number",
        Prompt::UnknownCaller => "unknown_caller",
        Prompt::NoOpenRequest => "no_open_request",
        Prompt::NoUsableCard => "no_usable_card",
        Prompt::NotEnrolled => "not_enrolled",
        Prompt::ReadRequest { .. } => "read_request",
        Prompt::AskCard { .. } => "ask_card",
        Prompt::AskCounting { .. } => "ask_counting",
        Prompt::SayDigits { .. } => "say_digits",
        Prompt::OneMoment => "one_moment",
        Prompt::ReadBack { .. } => "read_back",
        Prompt::AskYes { .. } => "ask_yes",
        Prompt::AskCode { .. } => "ask_code",
        Prompt::Noting => "noting",
        Prompt::Waiting => "waiting",
        Prompt::NotByPhone => "not_by_phone",
        Prompt::OfferMandate { .. } => "offer_mandate",
        Prompt::MandateKept => "mandate_kept",
        Prompt::MandateNotKept => "mandate_not_kept",
        Prompt::AskDelete { .. } => "ask_delete",
        Prompt::VoiceDeleted => "voice_deleted",
        Prompt::VoiceNotDeleted => "voice_not_deleted",
        Prompt::NoVoiceToDelete => "no_voice_to_delete",
        Prompt::Charging => "charging",
        Prompt::Paid { .. } => "paid",
        Prompt::Declined => "declined",
        Prompt::OutcomeUnknown => "outcome_unknown",
        Prompt::Refused => "refused",
        Prompt::LockedOut => "locked_out",
        Prompt::Cancelled => "cancelled",
        Prompt::NotCompleted => "not_completed",
        Prompt::Connecting => "connecting",
        Prompt::Person => "person",
        Prompt::Busy => "busy",
        Prompt::ServiceProblem => "service_problem",
        Prompt::AskInviteCode { .. } => "ask_invite_code",
        Prompt::AskConsent { .. } => "ask_consent",
        Prompt::EnrolSay { .. } => "enrol_say",
        Prompt::EnrolDone => "enrol_done",
        Prompt::EnrolFailed => "enrol_failed",
        Prompt::Goodbye => "goodbye",
        Prompt::Callback(words) => callback_name(words),
        Prompt::App(words) => app_name(*words),
    }
}

fn app_name(words: AppPrompt) -> &'static str {
    match words {
        AppPrompt::NotHere => "app_not_here",
        AppPrompt::NotOpen => "app_not_open",
        AppPrompt::NoMethod => "app_no_method",
        AppPrompt::NotEnrolled => "app_not_enrolled",
        AppPrompt::NotCompleted => "app_not_completed",
        AppPrompt::Busy => "app_busy",
        AppPrompt::Trouble => "app_trouble",
    }
}

fn callback_name(words: &CallbackPrompt) -> &'static str {
    match words {
        CallbackPrompt::Greeting => "callback_greeting",
        CallbackPrompt::Question { .. } => "callback_question",
        CallbackPrompt::AskYes { .. } => "callback_ask_yes",
        CallbackPrompt::Agreed => "callback_agreed",
        CallbackPrompt::Denied => "callback_denied",
        CallbackPrompt::Settled => "callback_settled",
        CallbackPrompt::NotAgreed { .. } => "callback_not_agreed",
        CallbackPrompt::NotConfirmed => "callback_not_confirmed",
        CallbackPrompt::NotCompleted => "callback_not_completed",
        CallbackPrompt::Cancelled => "callback_cancelled",
        CallbackPrompt::Connecting => "callback_connecting",
        CallbackPrompt::Person => "callback_person",
        CallbackPrompt::Trouble => "callback_trouble",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::PlayId;
    use crate::ids::CustomerId;

    #[test]
    fn a_prompt_a_listening_and_an_inference_are_spans_without_their_content() {
        let mut trace = CallTrace::default();
        let customer = CustomerId::parse("cus_0123456789abcdef").unwrap();
        let digits = vec![4, 2, 4, 2, 4, 2, 4, 2];
        let say = Prompt::SayDigits { digits: digits.clone(), repeated: false, attempt: 1, why: crate::dialogue::Again::First };
        trace.effect(0, &Effect::Play { id: PlayId(1), prompt: say });
        trace.input(900, &Input::PromptDone(PlayId(1)));
        trace.effect(900, &Effect::Listen { listen_for: ListenFor::Challenge { digits }, barge_in: false });
        trace.effect(2_000, &Effect::StopListening);
        trace.effect(2_000, &Effect::ScoreVoice { customer });
        trace.input(2_200, &Input::VoiceScored(Err(crate::dialogue::ScoreTrouble::Failed)));
        let spans = trace.finish(3_000);
        let seen: Vec<_> = spans.iter().map(|s| (s.name, s.start_ms, s.end_ms, s.failed)).collect();
        assert_eq!(seen, [("prompt", 0, 900, false), ("listen", 900, 2_000, false), ("inference.voice", 2_000, 2_200, true)]);
        assert!(!format!("{spans:?}").contains("4, 2"), "{spans:?}");
    }
}
