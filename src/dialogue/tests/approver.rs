//! Calls that we place: nothing of money before the voice, one answer at most, a yes only in the voice that said the digits; whatever
//! happens in whatever order.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::challenge::{challenging, content};
use super::*;
use crate::decision::ChallengeWhen;
use crate::dialogue::{CallbackPrompt, DecisionOutcome, Errand, ErrandEffect, ErrandNews, Matter, Purpose, Told};
use crate::ids::ApprovalId;
use crate::language::Language;

const DIGITS: [u8; 8] = [5, 0, 2, 7, 1, 9, 4, 6];

fn approval() -> ApprovalId {
    ApprovalId::parse("apr_1").unwrap()
}

fn errand(purpose: Purpose) -> Errand {
    Errand {
        customer: CustomerId::parse("cus_2").unwrap(),
        number: E164::normalise("+447700900456", "").unwrap(),
        language: Language::English,
        failures_24h: 0,
        slow: false,
        purpose,
    }
}

fn amount() -> Money {
    Money::new(25_000, Currency::Usd).unwrap()
}

fn payee() -> SpokenPayee {
    SpokenPayee { id: PayeeId::parse("pay_1").unwrap(), name: "Alder Books".to_owned() }
}

fn question() -> Matter {
    Matter::Question { amount: amount(), payee: payee() }
}

/// Whether a prompt tells of a payment.
fn of_money(prompt: &Prompt) -> bool {
    match prompt {
        Prompt::Callback(words) => words.speaks_of_money(),
        Prompt::SayDigits { .. } | Prompt::OneMoment | Prompt::Goodbye => false,
        _ => true,
    }
}

impl Edge {
    /// A person picked up.
    fn picked_up(errand: Errand) -> Self {
        let mut edge = Self::new(challenging(ChallengeWhen::Inconclusive));
        edge.give(Input::CalledOut(Box::new(errand)));
        edge
    }

    /// The same, at the point where digits are listened for.
    fn asked_of_them() -> Self {
        let mut edge = Self::picked_up(errand(Purpose::Decide(approval())));
        assert_eq!(edge.prompt(), &Prompt::Callback(CallbackPrompt::Greeting));
        edge.prompt_done().they_are_asked();
        edge
    }

    fn they_are_asked(&mut self) -> &mut Self {
        self.give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: DIGITS.to_vec() }));
        self.wait(3_000); // a reply to an utterance is held
        assert!(matches!(self.prompt(), Prompt::SayDigits { .. }), "{:?}", self.playing);
        self.prompt_done()
    }

    fn they_say(&mut self, voice_llr: f32, content_llr: f32) -> &mut Self {
        self.say(3_500).wait(400);
        let heard = ChallengeHeard { voice: voice(voice_llr), content: content(content_llr) };
        self.give(Input::ChallengeScored(Ok(heard)))
    }

    fn found(&mut self, matter: Matter) -> &mut Self {
        let accepted = self.proof.take().expect("whoever reads has the proof");
        self.give(Input::Errand(ErrandNews::Found { matter, accepted }))
    }

    /// At the point where yes or no is listened for.
    fn put_the_question() -> Self {
        let mut edge = Self::asked_of_them();
        edge.they_say(0.9, 5.0).found(question());
        assert_eq!(edge.prompt(), &Prompt::Callback(CallbackPrompt::Question { amount: amount(), payee: payee() }));
        edge.prompt_done();
        edge
    }

    fn decided(&mut self, outcome: DecisionOutcome) -> &mut Self {
        assert_eq!(self.state.name(), "noting a decision");
        self.give(Input::Errand(ErrandNews::Decided(outcome)))
    }

    fn decisions(&self) -> Vec<Decision> {
        let decisions = self.log.iter().filter_map(|(_, e)| match e {
            Effect::Errand(ErrandEffect::Decide(decision)) => Some((**decision).clone()),
            _ => None,
        });
        decisions.collect()
    }

    fn spoke_of_money(&self) -> bool {
        self.prompts().iter().any(of_money)
    }
}

#[test]
fn a_supervisor_who_says_the_digits_hears_amount_and_payee_and_says_yes() {
    let mut edge = Edge::put_the_question();
    edge.answer(Answer::Yes, Some(0.5)).decided(DecisionOutcome::Noted);
    assert_eq!(edge.verdict(), CallVerdict::Agreed);
    let decisions = edge.decisions();
    let [decision] = &decisions[..] else { panic!("{decisions:?}") };
    assert_eq!((&decision.approval, decision.customer.as_str(), decision.yes), (&approval(), "cus_2", true));
    assert_eq!((decision.amount, &decision.payee, decision.continuity_cosine), (amount(), &payee(), Some(0.5)));
    let told: Vec<Prompt> = edge.prompts();
    let place = |which: &dyn Fn(&Prompt) -> bool| told.iter().position(which).unwrap();
    assert!(place(&|p| matches!(p, Prompt::SayDigits { .. })) < place(&of_money), "{told:?}");
    assert_eq!(edge.charges(), 0, "whether it is charged is not this call's");
}

#[test]
fn a_no_is_noted_and_a_cancel_is_not() {
    let mut no = Edge::put_the_question();
    no.answer(Answer::No, None).decided(DecisionOutcome::Noted);
    assert_eq!((no.verdict(), no.decisions()[0].yes), (CallVerdict::Disagreed, false));
    let mut star = Edge::put_the_question();
    star.key("*");
    let mut word = Edge::put_the_question();
    word.answer(Answer::Cancel, Some(0.5));
    for mut edge in [star, word] {
        assert_eq!(edge.prompt(), &Prompt::Callback(CallbackPrompt::Cancelled));
        assert_eq!((edge.verdict(), edge.decisions().len()), (CallVerdict::Cancelled, 0));
    }
}

#[test]
fn silence_another_voice_and_other_digits_hear_nothing_of_money() {
    let mut silent = Edge::picked_up(errand(Purpose::Decide(approval())));
    silent.prompt_done().give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: DIGITS.to_vec() }));
    silent.wait(400_000);
    for _ in 0..8 {
        if silent.playing.is_some() {
            silent.prompt_done().wait(60_000);
        }
    }
    assert_eq!(silent.state.verdict(), Some(CallVerdict::Abandoned));
    let [mut other_voice, mut other_digits] = [Edge::asked_of_them(), Edge::asked_of_them()];
    for n in 0..3 {
        for (edge, said) in [(&mut other_voice, (0.1, 5.0)), (&mut other_digits, (0.9, -5.0))] {
            if n > 0 {
                edge.they_are_asked();
            }
            edge.they_say(said.0, said.1);
        }
    }
    for edge in [&mut other_voice, &mut other_digits] {
        edge.wait(6_000);
        assert_eq!(edge.prompt(), &Prompt::Callback(CallbackPrompt::NotConfirmed));
        assert_eq!(edge.verdict(), CallVerdict::Refused);
        assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { attested: true, factor: Factor::Challenge, .. })), 3);
    }
    assert_eq!(other_voice.audible(), other_digits.audible(), "the same words at the same time");
    for edge in [silent, other_voice, other_digits] {
        assert!(!edge.spoke_of_money() && edge.decisions().is_empty(), "{:?}", edge.prompts());
        assert_eq!(edge.count(|e| matches!(e, Effect::Errand(ErrandEffect::LookUp { .. }))), 0, "nor is it read");
    }
}

#[test]
fn another_voice_that_says_yes_decides_nothing() {
    let mut edge = Edge::put_the_question();
    for n in 0..3 {
        if n > 0 {
            assert!(matches!(edge.prompt(), Prompt::Callback(CallbackPrompt::AskYes { why: Again::NoMatch, .. })));
            edge.prompt_done();
        }
        edge.answer(Answer::Yes, Some(if n == 1 { f32::NAN } else { 0.1 })).wait(6_000);
    }
    assert_eq!((edge.verdict(), edge.decisions().len()), (CallVerdict::Refused, 0));
    let mut recorded = Edge::put_the_question();
    let heard = AnswerHeard { answer: Answer::Yes, continuity_cosine: Some(0.9), heard_before: true };
    recorded.say(500).wait(400).give(Input::Answer(Ok(heard)));
    assert!(recorded.decisions().is_empty(), "nor does a recorded one");
    let mut short = Edge::put_the_question();
    short.answer(Answer::Yes, None);
    assert!(short.decisions().is_empty(), "nor one too short for a voice");
}

#[test]
fn a_beep_ends_the_call_without_another_word_until_something_was_decided() {
    for mut edge in [Edge::picked_up(errand(Purpose::Decide(approval()))), Edge::asked_of_them()] {
        let said = edge.prompts().len();
        edge.give(Input::Errand(ErrandNews::Machine));
        assert_eq!((edge.state.verdict(), edge.prompts().len()), (Some(CallVerdict::Machine), said));
        assert!(!edge.spoke_of_money());
    }
    let mut decided = Edge::put_the_question();
    decided.answer(Answer::Yes, Some(0.5)).give(Input::Errand(ErrandNews::Machine)).decided(DecisionOutcome::Noted);
    assert_eq!(decided.verdict(), CallVerdict::Agreed);
    let mut caller = Edge::called_by(known());
    caller.give(Input::Errand(ErrandNews::Machine));
    assert_eq!(caller.state.verdict(), None, "a caller is no machine");
}

#[test]
fn what_was_settled_meanwhile_is_not_asked_and_what_is_settled_while_asking_is_not_noted() {
    let mut before = Edge::asked_of_them();
    before.they_say(0.9, 5.0).found(Matter::Settled);
    assert_eq!((before.verdict(), before.decisions().len()), (CallVerdict::Settled, 0));
    let mut while_asking = Edge::put_the_question();
    while_asking.answer(Answer::Yes, Some(0.5)).decided(DecisionOutcome::Settled);
    assert_eq!(while_asking.verdict(), CallVerdict::Settled);
    let mut not_written = Edge::put_the_question();
    not_written.answer(Answer::No, Some(0.5)).decided(DecisionOutcome::Trouble);
    assert_eq!(not_written.verdict(), CallVerdict::ServiceTrouble);
}

#[test]
fn a_payer_is_told_what_became_of_it_once_the_voice_is_theirs() {
    let result = |result| Matter::Result { amount: amount(), payee: payee(), result };
    let reference = vec![1, 2, 3];
    for (told, prompt) in [
        (Told::Paid { reference: reference.clone() }, Prompt::Paid { amount: amount(), payee: payee(), reference }),
        (Told::Declined, Prompt::Declined),
        (Told::NotAgreed, Prompt::Callback(CallbackPrompt::NotAgreed { amount: amount(), payee: payee() })),
    ] {
        let mut edge = Edge::picked_up(errand(Purpose::Tell(approval())));
        edge.prompt_done().they_are_asked();
        assert!(!edge.spoke_of_money());
        edge.they_say(0.9, 5.0).found(result(told));
        assert_eq!(edge.prompt(), &prompt);
        assert_eq!((edge.verdict(), edge.decisions().len()), (CallVerdict::Told, 0));
    }
}

#[test]
fn a_closed_line_is_told_nothing_and_asked_nothing() {
    let mut edge = Edge::picked_up(Errand { failures_24h: 5, ..errand(Purpose::Decide(approval())) });
    assert_eq!(edge.prompt(), &Prompt::Callback(CallbackPrompt::NotConfirmed));
    assert_eq!(edge.verdict(), CallVerdict::LockedOut);
    let mut last = Edge::picked_up(Errand { failures_24h: 4, ..errand(Purpose::Decide(approval())) });
    last.prompt_done().they_are_asked();
    last.they_say(0.1, 5.0).wait(6_000);
    assert_eq!(last.verdict(), CallVerdict::Refused);
    assert_eq!(last.count(|e| matches!(e, Effect::Notify { notice: Notice::TooManyFailures, .. })), 1);
}

/// How long somebody whom we called and who says nothing is waited for, and until when the call may last.
fn waited(edge: &mut Edge) -> (u64, Timestamp) {
    edge.prompt_done().they_are_asked();
    let asked = edge.now;
    while edge.playing.is_none() {
        edge.wait(500);
    }
    let mut limits = edge.log.iter().rev().filter_map(|(_, e)| match e {
        Effect::SetDeadline { kind: DeadlineKind::CallLimit, at } => Some(*at),
        _ => None,
    });
    let limit = limits.next().unwrap();
    (u64::try_from(edge.now.since(asked).as_millis()).unwrap(), limit)
}

#[test]
fn who_wants_more_time_has_it_when_we_call_too() {
    let purpose = || Purpose::Decide(approval());
    let mut usual = Edge::picked_up(errand(purpose()));
    let began = usual.now;
    let (silence_ms, limit) = waited(&mut usual);
    let mut known = Edge::picked_up(Errand { slow: true, ..errand(purpose()) });
    let mut pressed = Edge::picked_up(errand(purpose()));
    pressed.give(Input::Key(Keypress::Digit(8)));
    for edge in [&mut known, &mut pressed] {
        assert_eq!(edge.count(|e| matches!(e, Effect::SlowDown)), 1);
        let (slow_ms, slow_limit) = waited(edge);
        assert_eq!(slow_ms, silence_ms * 3);
        assert_eq!(slow_limit.since(began), limit.since(began) * 3, "from the call's beginning");
        assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { .. })), 0, "silence is no failure");
    }
}

#[test]
fn what_is_known_of_who_wants_more_time_is_what_is_known_of_anybody() {
    let judged = |slow: bool| {
        let mut edge = Edge::picked_up(Errand { slow, ..errand(Purpose::Decide(approval())) });
        edge.prompt_done().they_are_asked();
        edge.they_say(0.9, 5.0);
        let kept = edge.log.iter().filter_map(|(_, e)| match e {
            Effect::KeepEvidence(kept) => Some((kept.known, kept.outcome.clone())),
            _ => None,
        });
        kept.collect::<Vec<_>>()
    };
    assert_eq!(judged(true), judged(false), "no score, threshold or count knows of it");
    assert_eq!(judged(true).len(), 1);
}

#[test]
fn trouble_on_our_side_says_nothing_of_money_to_whoever_picked_up() {
    for trouble in [ScoreTrouble::Overloaded, ScoreTrouble::TimedOut, ScoreTrouble::Failed] {
        let mut edge = Edge::asked_of_them();
        edge.say(3_500).give(Input::ChallengeScored(Err(trouble))).wait(6_000);
        edge.verdict();
        assert!(!edge.spoke_of_money(), "{:?}", edge.prompts());
    }
    let mut broken = Edge::asked_of_them();
    broken.give(Input::ServiceTrouble);
    assert_eq!((broken.verdict(), broken.spoke_of_money()), (CallVerdict::ServiceTrouble, false));
    let mut unread = Edge::asked_of_them();
    unread.they_say(0.9, 5.0).found(Matter::Trouble);
    assert_eq!((unread.verdict(), unread.spoke_of_money()), (CallVerdict::ServiceTrouble, false));
    let mut never_read = Edge::asked_of_them();
    never_read.they_say(0.9, 5.0).wait(60_000);
    assert!(!never_read.spoke_of_money());
    never_read.verdict();
}

#[test]
fn who_asks_for_a_person_gets_one_without_hearing_why_we_called() {
    for (uri, verdict) in [("", CallVerdict::Person), ("sip:desk@192.0.2.1", CallVerdict::Person)] {
        let mut edge = Edge::asked_of_them();
        edge.cfg.person = uri.to_owned();
        edge.key("0");
        if !uri.is_empty() {
            edge.prompt_done().give(Input::Transferred(true));
        }
        assert_eq!((edge.verdict(), edge.spoke_of_money()), (verdict, false));
    }
}

/// One thing that a hostile or a well-behaved edge may do.
#[derive(Clone, Debug)]
enum Act {
    Helpful,
    Wait(u64),
    Key(u8),
    Utterance(u32),
    NoSpeech,
    Challenge(f32, f32),
    Answer(u8, Option<f32>),
    /// What was looked up, by the proof that went out, or by one out of thin air.
    Found(u8, bool),
    Decided(u8),
    Machine,
    Started,
    CalledOut,
    Drawn(usize),
    PromptDone(u32),
    Deadline(usize),
    Unasked(u8),
    HungUp,
    ServiceTrouble,
}

fn act() -> impl Strategy<Value = Act> {
    let number = || prop_oneof![Just(0.9f32), Just(0.5), Just(0.1), Just(5.0), Just(-9.0), Just(f32::NAN), Just(f32::INFINITY)];
    prop_oneof![
        60 => Just(Act::Helpful),
        3 => (0u64..8_000).prop_map(Act::Wait),
        2 => (1u8..16).prop_map(Act::Key),
        2 => (0u32..9_000).prop_map(Act::Utterance),
        1 => Just(Act::NoSpeech),
        3 => (number(), number()).prop_map(|(v, c)| Act::Challenge(v, c)),
        3 => (0u8..4, proptest::option::of(number())).prop_map(|(a, c)| Act::Answer(a, c)),
        3 => (0u8..4, any::<bool>()).prop_map(|(m, forged)| Act::Found(m, forged)),
        2 => (0u8..3).prop_map(Act::Decided),
        1 => Just(Act::Started),
        1 => Just(Act::CalledOut),
        1 => (0usize..12).prop_map(Act::Drawn),
        1 => (0u32..12).prop_map(Act::PromptDone),
        2 => (0usize..DeadlineKind::ALL.len()).prop_map(Act::Deadline),
        1 => (0u8..6).prop_map(Act::Unasked),
    ]
}

fn ending() -> impl Strategy<Value = Act> {
    prop_oneof![Just(Act::HungUp), Just(Act::ServiceTrouble), Just(Act::Key(10)), Just(Act::Key(0)), Just(Act::Machine)]
}

fn matter(n: u8) -> Matter {
    match n {
        0 => question(),
        1 => Matter::Result { amount: amount(), payee: payee(), result: Told::NotAgreed },
        2 => Matter::Settled,
        _ => Matter::Trouble,
    }
}

struct Watch {
    edge: Edge,
    purpose: Purpose,
    /// Of the helpful person's voice.
    cosine: f32,
    /// The digits that were said last were accepted, by what the judge says of them.
    voice_holds: bool,
    yes_holds: bool,
    seen: usize,
    decided: usize,
}

impl Watch {
    fn give(&mut self, input: Input) {
        let scoring = self.edge.state.name() == "scoring digits of whom we called";
        let hearing = self.edge.state.name() == "hearing who agrees";
        match &input {
            Input::ChallengeScored(Ok(heard)) if scoring => {
                let known = Tightening { recent_failures: 0, ..Tightening::default() };
                let score = heard.voice.score.clone();
                let verdict = crate::decision::judge_fresh_digits(&self.edge.cfg.policy, score, &heard.content, &known);
                self.voice_holds = matches!(verdict, crate::decision::VoiceVerdict::Accepted(_));
            }
            Input::Answer(Ok(heard)) if hearing => {
                let same = heard.continuity_cosine.is_some_and(|c| c >= self.edge.cfg.continuity_cosine);
                self.yes_holds = heard.answer == Answer::Yes && same;
            }
            _ => {}
        }
        self.edge.give(input);
        self.look();
    }

    fn look(&mut self) {
        for (_, effect) in &self.edge.log[self.seen..] {
            match effect {
                Effect::Play { prompt, .. } if of_money(prompt) => assert!(self.voice_holds, "{prompt:?} to nobody known"),
                Effect::Errand(ErrandEffect::LookUp { .. }) => assert!(self.voice_holds, "read without proof"),
                Effect::Errand(ErrandEffect::Decide(decision)) => {
                    self.decided += 1;
                    assert!(matches!(self.purpose, Purpose::Decide(_)), "who is told something decides nothing");
                    assert_eq!(self.decided, 1, "decided twice");
                    assert!(self.voice_holds && (!decision.yes || self.yes_holds), "decided without proof");
                    assert_eq!((decision.amount, &decision.payee), (amount(), &payee()), "what was read out");
                }
                Effect::Charge(_)
                | Effect::ReadNumber { .. }
                | Effect::CompareKeyed { .. }
                | Effect::ScoreVoice { .. }
                | Effect::EnrolAdd { .. }
                | Effect::EnrolFinish { .. } => panic!("{effect:?} has no place in a call that we placed"),
                _ => {}
            }
        }
        self.seen = self.edge.log.len();
    }

    fn helpful(&mut self) {
        if let Some((id, _)) = self.edge.playing.clone() {
            self.edge.wait(2_000);
            self.look();
            return self.give(Input::PromptDone(id));
        }
        match self.edge.state.name() {
            "drawing digits of whom we called" | "drawing digits for whom we called" => {
                self.give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: DIGITS.to_vec() }));
            }
            "asking digits of whom we called" | "asking to agree" => self.give(utterance(3_500)),
            "scoring digits of whom we called" => self.act(&Act::Challenge(self.cosine, 5.0)),
            "fetching what it is about" => self.act(&Act::Found(u8::from(matches!(self.purpose, Purpose::Tell(_))), false)),
            "hearing who agrees" => self.act(&Act::Answer(0, Some(0.5))),
            "noting a decision" => self.act(&Act::Decided(0)),
            _ => {
                self.edge.wait(3_000);
                self.look();
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Helpful => self.helpful(),
            Act::Wait(ms) => {
                self.edge.wait(*ms);
                self.look();
            }
            Act::Key(n) => self.give(Input::Key(match n {
                10 => Keypress::Star,
                11 => Keypress::Pound,
                digit => Keypress::Digit(*digit),
            })),
            Act::Utterance(ms) => self.give(utterance(*ms)),
            Act::NoSpeech => self.give(Input::NoSpeech),
            Act::Challenge(v, c) => {
                self.give(Input::ChallengeScored(Ok(ChallengeHeard { voice: voice(*v), content: content(*c) })));
            }
            Act::Answer(n, continuity_cosine) => {
                let answer = [Answer::Yes, Answer::No, Answer::Cancel, Answer::Unclear][usize::from(*n)];
                let heard = AnswerHeard { answer, continuity_cosine: *continuity_cosine, heard_before: false };
                self.give(Input::Answer(Ok(heard)));
            }
            Act::Found(n, forged) => {
                let accepted = if *forged { Some(proof(score(0.9))) } else { self.edge.proof.take() };
                if let Some(accepted) = accepted {
                    self.give(Input::Errand(ErrandNews::Found { matter: matter(*n), accepted }));
                }
            }
            Act::Decided(n) => {
                let outcome = [DecisionOutcome::Noted, DecisionOutcome::Settled, DecisionOutcome::Trouble][usize::from(*n)];
                self.give(Input::Errand(ErrandNews::Decided(outcome)));
            }
            Act::Machine => self.give(Input::Errand(ErrandNews::Machine)),
            Act::Started => self.give(Input::Started { caller: caller() }),
            Act::CalledOut => self.give(Input::CalledOut(Box::new(errand(Purpose::Decide(approval()))))),
            Act::Drawn(length) => {
                self.give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: vec![7; *length] }));
            }
            Act::PromptDone(n) => self.give(Input::PromptDone(PlayId(*n))),
            Act::Deadline(n) => self.give(Input::Deadline(DeadlineKind::ALL[*n])),
            Act::Unasked(n) => self.give(match n {
                0 => Input::VoiceScored(Ok(voice(0.9))),
                1 => Input::Identity(IdentityOutcome::Known(Box::new(known()))),
                2 => Input::Payment(PaymentOutcome::Unknown),
                3 => Input::EnrolStored(StoreOutcome::Stored),
                4 => Input::Transferred(true),
                _ => Input::SpeechStarted,
            }),
            Act::HungUp => self.give(Input::HungUp),
            Act::ServiceTrouble => self.give(Input::ServiceTrouble),
        }
    }
}

#[test]
fn whatever_happens_nothing_of_money_is_said_or_decided_before_the_voice() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(600);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let [agreed, told, refused] = [const { std::cell::Cell::new(0u32) }; 3];
    let count = |of: &std::cell::Cell<u32>| of.set(of.get() + 1);
    let whose = prop_oneof![3 => Just(0.9f32), 1 => Just(0.1f32)];
    let acts = (proptest::collection::vec(act(), 1..120), ending(), any::<bool>(), whose);
    runner
        .run(&acts, |(acts, last, tell, cosine)| {
            let purpose = if tell { Purpose::Tell(approval()) } else { Purpose::Decide(approval()) };
            let edge = Edge::picked_up(errand(purpose.clone()));
            let mut watch = Watch { edge, purpose, cosine, voice_holds: false, yes_holds: false, seen: 0, decided: 0 };
            watch.look();
            for act in acts {
                watch.act(&act);
            }
            watch.act(&last);
            watch.edge.wait(900_000);
            watch.look();
            let verdict = watch.edge.state.verdict().expect("every call ends");
            let hang_ups = watch.edge.count(|e| matches!(e, Effect::HangUp(_)));
            prop_assert_eq!(hang_ups, 1);
            match verdict {
                CallVerdict::Agreed | CallVerdict::Disagreed => count(&agreed),
                CallVerdict::Told => count(&told),
                CallVerdict::Refused => count(&refused),
                CallVerdict::Abandoned
                | CallVerdict::Cancelled
                | CallVerdict::OutcomeUnknown
                | CallVerdict::Busy
                | CallVerdict::ServiceTrouble
                | CallVerdict::Person
                | CallVerdict::Settled
                | CallVerdict::Machine => {}
                other => panic!("{other:?} has no place in a call that we placed"),
            }
            Ok(())
        })
        .unwrap();
    let [agreed, told, refused] = [agreed, told, refused].map(|of| of.get());
    assert!(agreed > cases / 20 && told > 0 && refused > 0, "the runs get far: {agreed} {told} {refused} of {cases}");
}
