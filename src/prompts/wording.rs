//! Which phrases of the catalogue a prompt is made of, and what it fills into them.

use super::catalogue::Slot;
use super::spoken;
use crate::dialogue::prompt::{Again, Prompt, SpokenDate, SpokenPayee};
use crate::dialogue::{AppPrompt, CallbackPrompt};
use crate::money::Money;

/// A value for one of a phrase's slots, borrowed from the prompt.
#[derive(Debug)]
pub enum Fill<'a> {
    /// Who is paid.
    Payee(&'a SpokenPayee),
    /// How much.
    Amount(Money),
    /// When it is due.
    Date(SpokenDate),
    /// Digits for the slot named.
    Digits(Slot, &'a [u8]),
}

/// Every phrase that [`phrases_of`] can name; [`Bank::load`](super::Bank::load) holds the catalogue to it.
pub const PHRASES: &[&str] = &[
    "greeting",
    "unknown_caller",
    "no_open_request",
    "no_usable_card",
    "not_enrolled",
    "one_moment",
    "charging",
    "noting",
    "waiting",
    "not_by_phone",
    "mandate_kept",
    "mandate_not_kept",
    "voice_deleted",
    "voice_not_deleted",
    "no_voice_to_delete",
    "declined",
    "outcome_unknown",
    "refused",
    "locked_out",
    "cancelled",
    "not_completed",
    "connecting",
    "person",
    "busy",
    "service_problem",
    "goodbye",
    "enrol_done",
    "enrol_failed",
    "read_request.with_due",
    "read_request.without_due",
    "read_back.all",
    "read_back.others",
    "paid.all",
    "again.silence.second",
    "again.silence.third",
    "again.not_understood.second",
    "again.not_understood.third",
    "again.no_match.second",
    "again.no_match.third",
    "again.too_short",
    "again.too_quiet",
    "again.too_loud",
    "again.too_noisy",
    "again.two_voices",
    "again.late",
    "ask_customer_number.first",
    "ask_customer_number.second",
    "ask_customer_number.third",
    "ask_card.first",
    "ask_card.second",
    "ask_card.third",
    "ask_counting.first",
    "ask_counting.second",
    "ask_counting.third",
    "say_digits.first",
    "say_digits.repeated",
    "say_digits.second",
    "say_digits.third",
    "ask_code.first",
    "ask_code.another",
    "ask_code.second",
    "ask_code.third",
    "offer_mandate.first",
    "offer_mandate.second",
    "offer_mandate.third",
    "ask_delete.first",
    "ask_delete.second",
    "ask_delete.third",
    "ask_yes.first",
    "ask_yes.second",
    "ask_yes.third",
    "ask_invite_code.first",
    "ask_invite_code.second",
    "ask_invite_code.third",
    "ask_consent.first",
    "ask_consent.second",
    "ask_consent.third",
    "enrol_say.first",
    "enrol_say.next",
    "enrol_say.second",
    "enrol_say.third",
    "callback.greeting",
    "callback.not_confirmed",
    "callback.not_completed",
    "callback.cancelled",
    "callback.connecting",
    "callback.person",
    "callback.trouble",
    "callback.question",
    "callback.agreed",
    "callback.denied",
    "callback.settled",
    "callback.not_agreed",
    "callback.ask_yes.first",
    "callback.ask_yes.second",
    "callback.ask_yes.third",
    "app.not_here",
    "app.not_open",
    "app.no_method",
    "app.not_enrolled",
    "app.not_completed",
    "app.busy",
    "app.trouble",
];

/// The wordings of a question: first, second, third and after.
type Ladder = [&'static str; 3];

fn ladder(steps: Ladder, attempt: u8) -> &'static str {
    let [first, second, third] = steps;
    match attempt {
        0 | 1 => first,
        2 => second,
        3.. => third,
    }
}

/// "Sorry, I did not hear anything." where there is cause, then the question.
fn asked(question: Ladder, attempt: u8, why: Again) -> Vec<&'static str> {
    let (second, third) = match why {
        Again::First => return vec![ladder(question, attempt)],
        Again::Silence => ("again.silence.second", "again.silence.third"),
        Again::NotUnderstood => ("again.not_understood.second", "again.not_understood.third"),
        Again::NoMatch => ("again.no_match.second", "again.no_match.third"),
        // Advice is as good the third time.
        Again::TooShort => ("again.too_short", "again.too_short"),
        Again::TooQuiet => ("again.too_quiet", "again.too_quiet"),
        Again::TooLoud => ("again.too_loud", "again.too_loud"),
        Again::TooNoisy => ("again.too_noisy", "again.too_noisy"),
        Again::TwoVoices => ("again.two_voices", "again.two_voices"),
        Again::Late => ("again.late", "again.late"),
    };
    // A reason without a second attempt would be a slip of the caller's; it is still worded as one.
    let attempt = attempt.max(2);
    vec![if attempt == 2 { second } else { third }, ladder(question, attempt)]
}

/// Which phrases of the catalogue make up a prompt, in order.
pub fn phrases_of(prompt: &Prompt) -> Vec<&'static str> {
    match prompt {
        Prompt::Greeting => vec!["greeting"],
        Prompt::AskCustomerNumber { attempt } => {
            vec![ladder(["ask_customer_number.first", "ask_customer_number.second", "ask_customer_number.third"], *attempt)]
        }
        Prompt::UnknownCaller => vec!["unknown_caller"],
        Prompt::NoOpenRequest => vec!["no_open_request"],
        Prompt::NoUsableCard => vec!["no_usable_card"],
        Prompt::NotEnrolled => vec!["not_enrolled"],
        Prompt::ReadRequest { due, .. } => match due.and_then(spoken::date) {
            Some(_) => vec!["read_request.with_due"],
            None => vec!["read_request.without_due"],
        },
        Prompt::AskCard { attempt, why } => asked(["ask_card.first", "ask_card.second", "ask_card.third"], *attempt, *why),
        Prompt::AskCounting { attempt, why } => {
            asked(["ask_counting.first", "ask_counting.second", "ask_counting.third"], *attempt, *why)
        }
        Prompt::SayDigits { repeated: true, attempt, why, .. } => asked(["say_digits.repeated"; 3], *attempt, *why),
        Prompt::SayDigits { repeated: false, attempt, why, .. } => {
            asked(["say_digits.first", "say_digits.second", "say_digits.third"], *attempt, *why)
        }
        Prompt::OneMoment => vec!["one_moment"],
        Prompt::AskCode { sent, attempt, why } if *sent > 1 && *attempt <= 1 => asked(["ask_code.another"; 3], *attempt, *why),
        Prompt::AskCode { attempt, why, .. } => asked(["ask_code.first", "ask_code.second", "ask_code.third"], *attempt, *why),
        Prompt::ReadBack { others: false, .. } => vec!["read_back.all"],
        Prompt::ReadBack { others: true, .. } => vec!["read_back.others"],
        Prompt::AskYes { attempt, why } => asked(["ask_yes.first", "ask_yes.second", "ask_yes.third"], *attempt, *why),
        Prompt::Charging => vec!["charging"],
        Prompt::Noting => vec!["noting"],
        Prompt::Waiting => vec!["waiting"],
        Prompt::NotByPhone => vec!["not_by_phone"],
        Prompt::OfferMandate { attempt, why, .. } => {
            asked(["offer_mandate.first", "offer_mandate.second", "offer_mandate.third"], *attempt, *why)
        }
        Prompt::MandateKept => vec!["mandate_kept"],
        Prompt::MandateNotKept => vec!["mandate_not_kept"],
        Prompt::AskDelete { attempt, why } => {
            asked(["ask_delete.first", "ask_delete.second", "ask_delete.third"], *attempt, *why)
        }
        Prompt::VoiceDeleted => vec!["voice_deleted"],
        Prompt::VoiceNotDeleted => vec!["voice_not_deleted"],
        Prompt::NoVoiceToDelete => vec!["no_voice_to_delete"],
        Prompt::Paid { .. } => vec!["paid.all"],
        Prompt::Declined => vec!["declined"],
        Prompt::OutcomeUnknown => vec!["outcome_unknown"],
        Prompt::Refused => vec!["refused"],
        Prompt::LockedOut => vec!["locked_out"],
        Prompt::Cancelled => vec!["cancelled"],
        Prompt::NotCompleted => vec!["not_completed"],
        Prompt::Connecting => vec!["connecting"],
        Prompt::Person => vec!["person"],
        Prompt::Busy => vec!["busy"],
        Prompt::ServiceProblem => vec!["service_problem"],
        Prompt::AskInviteCode { attempt, why } => {
            asked(["ask_invite_code.first", "ask_invite_code.second", "ask_invite_code.third"], *attempt, *why)
        }
        Prompt::AskConsent { attempt, why } => {
            asked(["ask_consent.first", "ask_consent.second", "ask_consent.third"], *attempt, *why)
        }
        Prompt::EnrolSay { round, attempt, why, .. } => {
            let first = if *round > 1 { "enrol_say.next" } else { "enrol_say.first" };
            asked([first, "enrol_say.second", "enrol_say.third"], *attempt, *why)
        }
        Prompt::EnrolDone => vec!["enrol_done"],
        Prompt::EnrolFailed => vec!["enrol_failed"],
        Prompt::Goodbye => vec!["goodbye"],
        Prompt::Callback(words) => callback(words),
        Prompt::App(words) => vec![app(*words)],
    }
}

/// The same in calls that we place.
fn callback(words: &CallbackPrompt) -> Vec<&'static str> {
    vec![match words {
        CallbackPrompt::AskYes { attempt, why } => {
            let steps = ["callback.ask_yes.first", "callback.ask_yes.second", "callback.ask_yes.third"];
            return asked(steps, *attempt, *why);
        }
        CallbackPrompt::Greeting => "callback.greeting",
        CallbackPrompt::Question { .. } => "callback.question",
        CallbackPrompt::Agreed => "callback.agreed",
        CallbackPrompt::Denied => "callback.denied",
        CallbackPrompt::Settled => "callback.settled",
        CallbackPrompt::NotAgreed { .. } => "callback.not_agreed",
        CallbackPrompt::NotConfirmed => "callback.not_confirmed",
        CallbackPrompt::NotCompleted => "callback.not_completed",
        CallbackPrompt::Cancelled => "callback.cancelled",
        CallbackPrompt::Connecting => "callback.connecting",
        CallbackPrompt::Person => "callback.person",
        CallbackPrompt::Trouble => "callback.trouble",
    }]
}

/// The same to an app's page.
fn app(words: AppPrompt) -> &'static str {
    match words {
        AppPrompt::NotHere => "app.not_here",
        AppPrompt::NotOpen => "app.not_open",
        AppPrompt::NoMethod => "app.no_method",
        AppPrompt::NotEnrolled => "app.not_enrolled",
        AppPrompt::NotCompleted => "app.not_completed",
        AppPrompt::Busy => "app.busy",
        AppPrompt::Trouble => "app.trouble",
    }
}

/// What a prompt has to fill in.
pub fn fills_of(prompt: &Prompt) -> Vec<Fill<'_>> {
    match prompt {
        Prompt::ReadRequest { amount, payee, due } => {
            let mut fills = vec![Fill::Amount(*amount), Fill::Payee(payee)];
            fills.extend(due.map(Fill::Date));
            fills
        }
        Prompt::OfferMandate { payee, cap, .. } => vec![Fill::Amount(*cap), Fill::Payee(payee)],
        Prompt::ReadBack { amount, payee, last4, others: _ } => {
            vec![Fill::Amount(*amount), Fill::Payee(payee), Fill::Digits(Slot::Last4, last4)]
        }
        Prompt::Paid { amount, payee, reference } => {
            vec![Fill::Amount(*amount), Fill::Payee(payee), Fill::Digits(Slot::Reference, reference)]
        }
        Prompt::Callback(CallbackPrompt::Question { amount, payee } | CallbackPrompt::NotAgreed { amount, payee }) => {
            vec![Fill::Amount(*amount), Fill::Payee(payee)]
        }
        Prompt::EnrolSay { digits, .. } | Prompt::SayDigits { digits, .. } => vec![Fill::Digits(Slot::Digits, digits)],
        Prompt::Greeting
        | Prompt::AskCustomerNumber { .. }
        | Prompt::UnknownCaller
        | Prompt::NoOpenRequest
        | Prompt::NoUsableCard
        | Prompt::NotEnrolled
        | Prompt::AskCard { .. }
        | Prompt::AskCounting { .. }
        | Prompt::OneMoment
        | Prompt::AskYes { .. }
        | Prompt::Charging
        | Prompt::AskCode { .. }
        | Prompt::Noting
        | Prompt::Waiting
        | Prompt::NotByPhone
        | Prompt::MandateKept
        | Prompt::MandateNotKept
        | Prompt::AskDelete { .. }
        | Prompt::VoiceDeleted
        | Prompt::VoiceNotDeleted
        | Prompt::NoVoiceToDelete
        | Prompt::Declined
        | Prompt::OutcomeUnknown
        | Prompt::Refused
        | Prompt::LockedOut
        | Prompt::Cancelled
        | Prompt::NotCompleted
        | Prompt::Connecting
        | Prompt::Person
        | Prompt::Busy
        | Prompt::ServiceProblem
        | Prompt::AskInviteCode { .. }
        | Prompt::AskConsent { .. }
        | Prompt::EnrolDone
        | Prompt::EnrolFailed
        | Prompt::Callback(
            CallbackPrompt::Greeting
            | CallbackPrompt::AskYes { .. }
            | CallbackPrompt::Agreed
            | CallbackPrompt::Denied
            | CallbackPrompt::Settled
            | CallbackPrompt::NotConfirmed
            | CallbackPrompt::NotCompleted
            | CallbackPrompt::Cancelled
            | CallbackPrompt::Connecting
            | CallbackPrompt::Person
            | CallbackPrompt::Trouble,
        )
        | Prompt::App(_)
        | Prompt::Goodbye => Vec::new(),
    }
}

/// The name, if it is one.
pub fn payee_name<'a>(fill: &Fill<'a>) -> Option<&'a str> {
    match fill {
        Fill::Payee(p) => Some(&p.name),
        Fill::Amount(_) | Fill::Date(_) | Fill::Digits(..) => None,
    }
}

#[cfg(test)]
pub mod every {
    //! Every prompt there is, for tests.
    use super::*;
    use crate::ids::PayeeId;
    use crate::money::Currency;

    const REASONS: [Again; 10] = [
        Again::First,
        Again::Silence,
        Again::NotUnderstood,
        Again::NoMatch,
        Again::TooShort,
        Again::TooQuiet,
        Again::TooLoud,
        Again::TooNoisy,
        Again::TwoVoices,
        Again::Late,
    ];

    /// All variants with all their attempts and reasons.
    pub fn prompt() -> Vec<Prompt> {
        let amount = Money::new(1999, Currency::Usd).unwrap();
        let payee = SpokenPayee { id: PayeeId::parse("pay_1").unwrap(), name: "Riverside Electric".into() };
        let due = SpokenDate { month: 6, day: 5 };
        let mut all = vec![
            Prompt::Greeting,
            Prompt::UnknownCaller,
            Prompt::NoOpenRequest,
            Prompt::NoUsableCard,
            Prompt::NotEnrolled,
            Prompt::ReadRequest { amount, payee: payee.clone(), due: None },
            Prompt::ReadRequest { amount, payee: payee.clone(), due: Some(due) },
            Prompt::ReadRequest { amount, payee: payee.clone(), due: Some(SpokenDate { month: 13, day: 5 }) },
            Prompt::OneMoment,
            Prompt::ReadBack { amount, payee: payee.clone(), last4: [5, 8, 1, 6], others: false },
            Prompt::ReadBack { amount, payee: payee.clone(), last4: [5, 8, 1, 6], others: true },
            Prompt::Charging,
            Prompt::Noting,
            Prompt::Waiting,
            Prompt::NotByPhone,
            Prompt::MandateKept,
            Prompt::MandateNotKept,
            Prompt::VoiceDeleted,
            Prompt::VoiceNotDeleted,
            Prompt::NoVoiceToDelete,
            Prompt::Paid { amount, payee: payee.clone(), reference: vec![1, 2, 3, 4, 5, 6] },
            Prompt::Declined,
            Prompt::OutcomeUnknown,
            Prompt::Refused,
            Prompt::LockedOut,
            Prompt::Cancelled,
            Prompt::NotCompleted,
            Prompt::Connecting,
            Prompt::Person,
            Prompt::Busy,
            Prompt::ServiceProblem,
            Prompt::EnrolDone,
            Prompt::EnrolFailed,
            Prompt::Goodbye,
        ];
        all.extend(
            [
                CallbackPrompt::Greeting,
                CallbackPrompt::Question { amount, payee: payee.clone() },
                CallbackPrompt::Agreed,
                CallbackPrompt::Denied,
                CallbackPrompt::Settled,
                CallbackPrompt::NotAgreed { amount, payee: payee.clone() },
                CallbackPrompt::NotConfirmed,
                CallbackPrompt::NotCompleted,
                CallbackPrompt::Cancelled,
                CallbackPrompt::Connecting,
                CallbackPrompt::Person,
                CallbackPrompt::Trouble,
            ]
            .map(Prompt::Callback),
        );
        all.extend(AppPrompt::ALL.map(Prompt::App));
        for attempt in [0, 1, 2, 3, 4, 255] {
            all.push(Prompt::AskCustomerNumber { attempt });
            for why in REASONS {
                all.push(Prompt::AskCard { attempt, why });
                all.push(Prompt::AskCounting { attempt, why });
                all.push(Prompt::AskYes { attempt, why });
                all.push(Prompt::AskDelete { attempt, why });
                all.push(Prompt::OfferMandate { payee: payee.clone(), cap: amount, attempt, why });
                for sent in [1, 2, 3] {
                    all.push(Prompt::AskCode { sent, attempt, why });
                }
                all.push(Prompt::Callback(CallbackPrompt::AskYes { attempt, why }));
                all.push(Prompt::AskInviteCode { attempt, why });
                all.push(Prompt::AskConsent { attempt, why });
                for repeated in [false, true] {
                    all.push(Prompt::SayDigits { digits: vec![5, 0, 2, 7, 1, 9, 4, 6], repeated, attempt, why });
                }
                for round in [1, 2, 3] {
                    all.push(Prompt::EnrolSay { round, rounds: 3, digits: vec![3, 7, 1], attempt, why });
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_of_phrases_is_what_prompts_ask_for() {
        let asked: BTreeSet<_> = every::prompt().iter().flat_map(phrases_of).collect();
        assert_eq!(asked, PHRASES.iter().copied().collect());
    }

    #[test]
    fn each_attempt_and_each_reason_is_worded_differently() {
        let card = |attempt, why| phrases_of(&Prompt::AskCard { attempt, why });
        let mut seen = BTreeSet::new();
        for why in [Again::Silence, Again::NotUnderstood, Again::NoMatch] {
            assert!(seen.insert(card(2, why)) && seen.insert(card(3, why)), "{why:?}");
            assert_eq!(card(3, why), card(9, why));
            assert_eq!(card(1, why), card(2, why), "a reason implies a second attempt");
        }
        assert!(seen.insert(card(1, Again::First)));
    }
}
