//! What the payment's terms ask for beside voice, number and yes: denied, fresh digits, a one-time code, others, a mandate.

use super::challenge::{challenging, content};
use super::*;
use crate::decision::ChallengeWhen;

const CODE: &str = "402917";

fn asking(asks: Asks) -> Known {
    let mut known = known();
    known.requests[0].asks = asks;
    known
}

fn cap() -> Money {
    Money::new(5_000, Currency::Usd).unwrap()
}

fn with_code() -> Asks {
    Asks { code: true, ..Asks::default() }
}

fn by_mandate() -> Asks {
    Asks { mandate: Some(card(1).id), ..Asks::default() }
}

impl Edge {
    fn begun(asks: Asks) -> Self {
        Self::called_with(challenging(ChallengeWhen::Never), asking(asks))
    }

    /// Voice and number hold, and a code was sent.
    fn asked_for_code(asks: Asks) -> Self {
        let mut edge = Self::begun(asks);
        edge.prompt_done().say_card(0.9, 5.0);
        assert_eq!(edge.state.name(), "sending code");
        edge.wait(50).give(Input::CodeSent(CodeSent::Sent));
        assert_eq!(edge.prompt(), &Prompt::AskCode { sent: 1, attempt: 1, why: Again::First });
        edge
    }

    /// By mandate: fresh digits are asked for.
    fn asked_for_digits(asks: Asks) -> Self {
        let mut edge = Self::begun(asks);
        edge.prompt_done();
        assert_eq!(edge.state.name(), "drawing digits", "no card is asked for");
        edge.draw_ten();
        edge
    }

    pub(super) fn draw_ten(&mut self) -> &mut Self {
        self.wait(20).give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: vec![5, 0, 2, 7, 1, 9, 4, 6, 3, 8] }))
    }

    pub(super) fn say_digits(&mut self, voice_llr: f32, content_llr: f32) -> &mut Self {
        self.prompt_done().say(4_000).wait(400);
        self.give(Input::ChallengeScored(Ok(ChallengeHeard { voice: voice(voice_llr), content: content(content_llr) })))
    }

    /// The code is said; the workers say this of it.
    fn say_code(&mut self, voice_llr: f32, content_llr: f32) -> &mut Self {
        self.prompt_done().say(2_400).wait(400);
        self.give(Input::CodeScored(Ok(ChallengeHeard { voice: voice(voice_llr), content: content(content_llr) })))
    }

    fn checked(&mut self, outcome: CodeChecked) -> &mut Self {
        assert_eq!(self.state.name(), "checking code");
        self.wait(20).give(Input::CodeChecked(outcome))
    }

    fn approval(&self) -> &Approval {
        let found = self.log.iter().find_map(|(_, e)| match e {
            Effect::Charge(charge) => Some(&charge.approval),
            _ => None,
        });
        found.expect("a charge")
    }
}

fn is_read_back(edge: &Edge) -> bool {
    matches!(edge.prompt(), Prompt::ReadBack { .. })
}

#[test]
fn what_rules_deny_is_refused_before_any_card_is_asked_for_and_nothing_is_listened_to() {
    let mut edge = Edge::begun(Asks { denied: true, ..Asks::default() });
    assert_eq!(edge.prompt(), &Prompt::NotByPhone);
    assert_eq!(edge.verdict(), CallVerdict::Refused);
    assert_eq!(edge.count(|e| matches!(e, Effect::Listen { .. } | Effect::RecordFailure { .. })), 0);
}

#[test]
fn fresh_digits_that_the_terms_want_are_asked_for_even_where_they_never_settle_a_doubt() {
    let mut edge = Edge::begun(Asks { fresh_digits: true, ..Asks::default() });
    edge.prompt_done().say(6_000).voice(0.9);
    edge.wait(20).give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: vec![5, 0, 2, 7, 1, 9, 4, 6] })).wait(3_000);
    edge.say_digits(0.9, 5.0).number(&[5.0]).prompt_done().answer(Answer::Yes, Some(0.5));
    assert!(edge.approval().fresh_digits);
    assert_eq!(edge.charges(), 1);
}

#[test]
fn a_code_that_is_said_in_the_payer_s_voice_pays() {
    let mut edge = Edge::asked_for_code(with_code());
    edge.prompt_done();
    assert_eq!(edge.listening, Some(ListenFor::Code { length: 6 }));
    edge.say(2_400).wait(400).give(Input::CodeScored(Ok(ChallengeHeard { voice: voice(0.8), content: content(5.0) })));
    assert!(edge.log.iter().any(|(_, e)| matches!(e, Effect::CheckCode { given: CodeGiven::Spoken, .. })));
    edge.checked(CodeChecked::Good);
    assert!(is_read_back(&edge));
    edge.prompt_done().answer(Answer::Yes, Some(0.5));
    assert_eq!((edge.charges(), edge.approval().code), (1, Some(CodeBy::Spoken)));
}

#[test]
fn a_code_may_be_keyed_while_it_is_asked_for_and_prints_nowhere() {
    let mut edge = Edge::asked_for_code(with_code());
    edge.key(CODE);
    let keyed = edge.log.iter().find_map(|(_, e)| match e {
        Effect::CheckCode { given: CodeGiven::Keyed(digits), .. } => Some(digits.expose().to_vec()),
        _ => None,
    });
    assert_eq!(keyed, Some(vec![4, 0, 2, 9, 1, 7]), "a nought in it asks for nobody");
    let shown = format!("{:?} {:?}", edge.state, edge.log);
    assert!(!shown.contains(CODE) && !shown.contains("4, 0, 2, 9"), "{shown}");
    edge.checked(CodeChecked::Good).prompt_done().answer(Answer::Yes, Some(0.5));
    assert_eq!((edge.charges(), edge.approval().code), (1, Some(CodeBy::Keyed)));
}

#[test]
fn a_wrong_code_another_voice_and_other_words_have_one_shape_and_count_as_one_factor() {
    let spoken = |voice_llr, content_llr| {
        let mut edge = Edge::asked_for_code(with_code());
        edge.say_code(voice_llr, content_llr);
        assert!(edge.log.iter().any(|(_, e)| matches!(e, Effect::CheckCode { given: CodeGiven::SpokenOtherwise, .. })));
        edge.checked(CodeChecked::Wrong { left: 4 }).wait(3_000);
        edge
    };
    let (words, other) = (spoken(0.9, -9.0), spoken(0.1, 9.0));
    assert_eq!(words.audible(), other.audible());
    for mut edge in [words, other, spoken(f32::NAN, 9.0), spoken(0.9, f32::NAN)] {
        assert_eq!(edge.prompt(), &Prompt::AskCode { sent: 1, attempt: 2, why: Again::NoMatch });
        for _ in 0..2 {
            edge.key("111111").checked(CodeChecked::Wrong { left: 3 }).wait(3_000);
        }
        assert_eq!(edge.prompts().last(), Some(&Prompt::Refused));
        assert_eq!(edge.count(|e| matches!(e, Effect::RecordFailure { factor: Factor::Code, .. })), 3);
        assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::Refused, 0));
    }
}

#[test]
fn words_or_a_voice_that_can_t_be_told_use_no_try_up_and_do_not_go_on_for_ever() {
    let mut edge = Edge::asked_for_code(with_code());
    for attempt in [2, 3] {
        edge.say_code(0.9, 0.0).wait(3_000);
        assert_eq!(edge.prompt(), &Prompt::AskCode { sent: 1, attempt, why: Again::NotUnderstood });
    }
    edge.say_code(0.9, 0.0).wait(3_000);
    assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::Refused, 0));
    assert_eq!(edge.count(|e| matches!(e, Effect::CheckCode { .. } | Effect::RecordFailure { .. })), 0);
}

#[test]
fn a_good_answer_to_a_try_that_was_wrong_accepts_nothing() {
    let mut edge = Edge::asked_for_code(with_code());
    edge.say_code(0.9, -9.0).checked(CodeChecked::Good).wait(3_000);
    assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::ServiceTrouble, 0));
}

#[test]
fn too_late_a_code_gets_another_one_up_to_the_limit() {
    let mut edge = Edge::asked_for_code(with_code());
    for sent in [2, 3] {
        edge.key(CODE).checked(CodeChecked::Expired).give(Input::CodeSent(CodeSent::Sent));
        assert_eq!(edge.prompt(), &Prompt::AskCode { sent, attempt: 1, why: Again::Late });
    }
    edge.key(CODE).checked(CodeChecked::Expired).wait(3_000);
    assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::Refused, 0));
    assert_eq!(edge.count(|e| matches!(e, Effect::SendCode { .. })), 3);
}

#[test]
fn hash_asks_for_another_code_and_a_code_has_time_to_arrive() {
    let mut edge = Edge::asked_for_code(with_code());
    edge.key("#").give(Input::CodeSent(CodeSent::Sent));
    assert_eq!(edge.prompt(), &Prompt::AskCode { sent: 2, attempt: 1, why: Again::First });
    edge.prompt_done().wait(29_999);
    assert_eq!(edge.state.name(), "asking code");
    assert!(edge.playing.is_none());
    edge.wait(1);
    assert_eq!(edge.prompt(), &Prompt::AskCode { sent: 2, attempt: 2, why: Again::Silence });
}

#[test]
fn a_code_that_can_t_be_sent_or_checked_charges_nothing() {
    for (outcome, verdict) in [
        (CodeSent::NoWay, CallVerdict::Refused),
        (CodeSent::Enough, CallVerdict::Refused),
        (CodeSent::Trouble, CallVerdict::ServiceTrouble),
    ] {
        let mut edge = Edge::begun(with_code());
        edge.prompt_done().say_card(0.9, 5.0).give(Input::CodeSent(outcome));
        assert_eq!((edge.verdict(), edge.charges()), (verdict, 0));
    }
    let mut edge = Edge::asked_for_code(with_code());
    edge.key(CODE).checked(CodeChecked::Trouble).wait(3_000);
    assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::ServiceTrouble, 0));
}

#[test]
fn where_others_have_to_agree_the_caller_is_promised_no_more_than_that() {
    let mut edge = Edge::begun(Asks { others: true, ..Asks::default() });
    edge.prompt_done().say_card(0.9, 5.0);
    assert!(matches!(edge.prompt(), Prompt::ReadBack { others: true, .. }));
    edge.prompt_done().answer(Answer::Yes, Some(0.5));
    assert_eq!((edge.prompt(), edge.approval().others), (&Prompt::Noting, true));
    edge.give(Input::Payment(PaymentOutcome::Waiting)).prompt_done();
    assert_eq!(edge.prompt(), &Prompt::Waiting);
    assert_eq!(edge.verdict(), CallVerdict::Waiting);
}

#[test]
fn by_mandate_fresh_digits_and_a_code_pay_and_no_number_is_said_or_compared() {
    let mut edge = Edge::asked_for_digits(by_mandate());
    assert!(matches!(edge.prompt(), Prompt::SayDigits { repeated: true, attempt: 1, why: Again::First, .. }));
    edge.say_digits(0.9, 5.0).give(Input::CodeSent(CodeSent::Sent));
    edge.key(CODE).checked(CodeChecked::Good);
    assert!(is_read_back(&edge));
    edge.prompt_done().answer(Answer::Yes, Some(0.5));
    let approval = edge.approval();
    assert_eq!((&approval.number, approval.fresh_digits, approval.code), (&NumberSummary::Mandate, true, Some(CodeBy::Keyed)));
    assert_eq!((edge.charges(), edge.comparisons()), (1, 0));
    assert!(!edge.prompts().iter().any(|p| matches!(p, Prompt::AskCard { .. })));
}

#[test]
fn a_mandate_needs_a_voice_that_is_sure_by_itself_and_enough_of_it() {
    let mut edge = Edge::asked_for_digits(by_mandate());
    edge.say_digits(0.55, 5.0);
    assert_eq!(edge.state.name(), "drawing digits", "nothing went before that it could lean on");
    let mut edge = Edge::asked_for_digits(by_mandate());
    edge.prompt_done().say(1_900);
    assert_eq!(edge.count(|e| matches!(e, Effect::ScoreChallenge { .. })), 0);
}

#[test]
fn who_can_t_pay_by_mandate_or_keys_a_card_is_asked_for_everything() {
    let mut edge = Edge::asked_for_digits(by_mandate());
    edge.say_digits(0.1, 5.0).wait(3_000);
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 1, why: Again::First });
    edge.say_card(0.9, 5.0);
    assert!(is_read_back(&edge), "number and voice, as at a first payment");
    let mut edge = Edge::begun(by_mandate());
    edge.key("4111111111111111").say(4_000).voice(0.9).evidence(NumberEvidence::Keyed { card: Some(card(1).id) });
    assert!(is_read_back(&edge));
}

#[test]
fn a_mandate_on_a_card_that_is_no_longer_good_is_none() {
    let mut known = asking(by_mandate());
    known.cards = vec![CardOnFile { usable: Usable::Blocked, ..card(1) }, card(2)];
    let mut edge = Edge::called_with(challenging(ChallengeWhen::Never), known);
    edge.prompt_done();
    assert_eq!(edge.prompt(), &Prompt::AskCard { attempt: 1, why: Again::First });
}

/// It is paid, and a mandate is being offered.
fn offered() -> Edge {
    let mut edge = Edge::begun(Asks { offer_mandate: Some(cap()), ..Asks::default() });
    edge.prompt_done().say_card(0.9, 5.0).prompt_done().answer(Answer::Yes, Some(0.5)).prompt_done();
    edge.give(Input::Payment(PaymentOutcome::Paid { reference: vec![4] }));
    assert!(matches!(edge.prompt(), Prompt::Paid { .. }));
    edge.prompt_done();
    assert!(matches!(edge.prompt(), Prompt::OfferMandate { attempt: 1, .. }));
    edge
}

#[test]
fn a_yes_in_the_payer_s_voice_leaves_a_mandate_and_charges_nothing_more() {
    let mut edge = offered();
    edge.prompt_done().answer(Answer::Yes, Some(0.5));
    let grant = edge.log.iter().find_map(|(_, e)| match e {
        Effect::GrantMandate(grant) => Some((grant.card.clone(), grant.cap, grant.request.clone())),
        _ => None,
    });
    assert_eq!(grant, Some((card(1).id, cap(), known().requests[0].id.clone())));
    edge.give(Input::MandateGranted(true));
    assert_eq!(edge.prompt(), &Prompt::MandateKept);
    assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::Paid, 1));
}

#[test]
fn anything_but_that_yes_leaves_none_and_the_payment_stays_paid() {
    let ends: [&dyn Fn(&mut Edge); 9] = [
        &|e| _ = e.prompt_done().answer(Answer::No, Some(0.5)),
        &|e| _ = e.prompt_done().answer(Answer::Yes, Some(0.1)),
        &|e| _ = e.prompt_done().answer(Answer::Yes, None),
        &|e| _ = e.prompt_done().wait(6_000),
        &|e| _ = e.key("*"),
        &|e| _ = e.give(Input::ServiceTrouble),
        &|e| _ = e.prompt_done().say(500).wait(10_000),
        &|e| _ = e.give(Input::HungUp),
        &|e| _ = e.prompt_done().answer(Answer::Yes, Some(0.5)).give(Input::MandateGranted(false)),
    ];
    for (n, end) in ends.iter().enumerate() {
        let mut edge = offered();
        end(&mut edge);
        assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::Paid, 1), "{n}");
        let kept = edge.prompts().contains(&Prompt::MandateKept);
        assert_eq!((kept, edge.count(|e| matches!(e, Effect::GrantMandate(_)))), (false, usize::from(n == 8)), "{n}");
        assert!(!edge.prompts().iter().any(|p| matches!(p, Prompt::Cancelled | Prompt::ServiceProblem)), "{n}");
    }
}

#[test]
fn of_a_mandate_that_was_not_heard_of_nothing_is_said() {
    let mut edge = offered();
    edge.prompt_done().answer(Answer::Yes, Some(0.5)).wait(5_000);
    assert_eq!(edge.prompts().last(), Some(&Prompt::Goodbye));
    assert!(!edge.prompts().iter().any(|p| matches!(p, Prompt::MandateKept | Prompt::MandateNotKept)));
    assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::Paid, 1));
}

#[test]
fn keys_that_elsewhere_cancel_or_call_for_a_person_do_not_unsay_a_payment() {
    let mut edge = offered();
    edge.key("0");
    assert!(matches!(edge.prompt(), Prompt::OfferMandate { .. }));
    edge.prompt_done().say(500).key("*");
    assert_eq!(edge.verdict(), CallVerdict::Paid);
}

#[test]
fn a_code_is_kept_as_evidence_that_is_judged_the_same_again() {
    for (voice_llr, content_llr) in [(0.8, 5.0), (0.8, -9.0), (0.1, 5.0), (0.8, 0.0)] {
        let mut edge = Edge::asked_for_code(with_code());
        edge.say_code(voice_llr, content_llr);
        let kept = edge.log.iter().rev().find_map(|(_, e)| match e {
            Effect::KeepEvidence(kept) => Some(kept),
            _ => None,
        });
        let kept = kept.unwrap();
        assert_eq!(crate::decision::replay::decide_again(&edge.cfg.policy, kept), kept.outcome, "{voice_llr} {content_llr}");
    }
}
