//! An app's page on the line: one request, one card that the app has bound; a yes and then fresh digits in the payer's voice pay, and nothing else.

use super::challenge::challenging;
use super::*;
use crate::decision::ChallengeWhen;

fn bound(asks: Asks) -> Known {
    let mut known = known();
    known.requests[0].asks = Asks { bound: Some(card(1).id), ..asks };
    known
}

impl Edge {
    fn in_app(known: Known) -> Self {
        let mut edge = Self::new(challenging(ChallengeWhen::Never));
        edge.give(Input::AppCall(Box::new(known)));
        edge
    }

    /// What is to be paid was read out, and the yes is listened for.
    fn app_question(asks: Asks) -> Self {
        let others = asks.others;
        let mut edge = Self::in_app(bound(asks));
        let Prompt::ReadBack { last4, others: told, .. } = edge.prompt() else { panic!("{:?}", edge.playing) };
        assert_eq!((*last4, *told), (card(1).last4, others));
        edge.prompt_done();
        edge
    }

    /// The yes was said, and fresh digits are asked for.
    fn app_digits(asks: Asks) -> Self {
        let mut edge = Self::app_question(asks);
        edge.answer(Answer::Yes, Some(0.5));
        assert_eq!(edge.state.name(), "drawing digits");
        edge.draw_ten();
        assert!(matches!(edge.prompt(), Prompt::SayDigits { repeated: false, attempt: 1, why: Again::First, .. }));
        edge
    }

    fn charge(&self) -> &Charge {
        let found = self.log.iter().find_map(|(_, e)| match e {
            Effect::Charge(charge) => Some(charge),
            _ => None,
        });
        found.expect("a charge")
    }
}

#[test]
fn a_yes_and_fresh_digits_pay_with_the_bound_card_and_no_number_is_asked_for() {
    let mut edge = Edge::app_digits(Asks::default());
    edge.say_digits(0.9, 5.0);
    let Charge { card: charged, approval, .. } = edge.charge();
    assert_eq!(charged, &card(1).id);
    assert_eq!((&approval.number, approval.fresh_digits, approval.code), (&NumberSummary::Bound, true, None));
    assert!((approval.continuity_cosine - 0.5).abs() < 1e-6, "of the yes, which went before");
    assert!(edge.playing.is_none(), "nothing is said that the outcome would wait for");
    edge.give(Input::Payment(PaymentOutcome::Paid { reference: vec![4] }));
    assert!(matches!(edge.prompt(), Prompt::Paid { .. }));
    assert_eq!((edge.verdict(), edge.charges(), edge.comparisons()), (CallVerdict::Paid, 1, 0));
    let prompts = edge.prompts();
    assert!(!prompts.iter().any(|p| matches!(p, Prompt::Greeting | Prompt::AskCard { .. } | Prompt::OfferMandate { .. })));
    assert_eq!(edge.count(|e| matches!(e, Effect::LookUp { .. } | Effect::ScoreVoice { .. })), 0);
}

#[test]
fn a_payment_that_takes_its_time_is_waited_for_aloud() {
    let mut edge = Edge::app_digits(Asks::default());
    let patience_ms = u64::from(edge.cfg.patience_ms);
    edge.say_digits(0.9, 5.0).wait(patience_ms + 10);
    assert_eq!(edge.prompt(), &Prompt::OneMoment);
    edge.give(Input::Payment(PaymentOutcome::Declined));
    assert_eq!(edge.prompt(), &Prompt::Declined);
    assert_eq!(edge.verdict(), CallVerdict::Declined);
}

#[test]
fn the_first_thing_that_is_missing_ends_the_call_in_words_for_a_page_and_nothing_is_listened_to() {
    let without = |change: &dyn Fn(&mut Known)| {
        let mut known = bound(Asks::default());
        change(&mut known);
        known
    };
    let blocked = |usable| move |k: &mut Known| k.cards = vec![CardOnFile { usable, ..card(1) }, card(2)];
    let cases: [(Known, CallVerdict, Prompt); 9] = [
        (without(&|k| k.voice = VoiceOnFile::None), CallVerdict::NotEnrolled, Prompt::App(AppPrompt::NotEnrolled)),
        (without(&|k| k.voice = VoiceOnFile::OtherModel), CallVerdict::NotEnrolled, Prompt::App(AppPrompt::NotEnrolled)),
        (without(&|k| k.failures_24h = 1_000), CallVerdict::LockedOut, Prompt::LockedOut),
        (without(&|k| k.requests.clear()), CallVerdict::NothingToPay, Prompt::App(AppPrompt::NotOpen)),
        (without(&|k| k.cards.clear()), CallVerdict::NoCard, Prompt::App(AppPrompt::NoMethod)),
        (without(&blocked(Usable::Blocked)), CallVerdict::NoCard, Prompt::App(AppPrompt::NoMethod)),
        (without(&blocked(Usable::Expired)), CallVerdict::NoCard, Prompt::App(AppPrompt::NoMethod)),
        (without(&|k| k.cards = vec![card(2)]), CallVerdict::NoCard, Prompt::App(AppPrompt::NoMethod)),
        (bound(Asks { denied: true, ..Asks::default() }), CallVerdict::Refused, Prompt::App(AppPrompt::NotHere)),
    ];
    for (known, verdict, prompt) in cases {
        let mut edge = Edge::in_app(known);
        assert_eq!(edge.prompt(), &prompt);
        assert_eq!(edge.verdict(), verdict, "{prompt:?}");
        assert_eq!(edge.count(|e| matches!(e, Effect::Listen { .. } | Effect::RecordFailure { .. } | Effect::Charge(_))), 0);
    }
}

#[test]
fn another_voice_or_other_digits_get_other_digits_and_then_a_refusal_never_a_card_number() {
    for (voice_llr, content_llr) in [(0.1, 5.0), (0.9, -9.0)] {
        let mut edge = Edge::app_digits(Asks::default());
        let mut tries = 0;
        while edge.state.name() == "asking digits" {
            edge.say_digits(voice_llr, content_llr);
            tries += 1;
            if edge.state.name() == "drawing digits" {
                edge.draw_ten();
            }
            edge.wait(3_000);
        }
        assert!((2..=4).contains(&tries), "{tries}");
        assert_eq!(edge.prompt(), &Prompt::Refused);
        assert_eq!((edge.verdict(), edge.charges()), (CallVerdict::Refused, 0));
        let prompts = edge.prompts();
        assert!(!prompts.iter().any(|p| matches!(p, Prompt::AskCard { .. })));
        assert_eq!(prompts.iter().filter(|p| matches!(p, Prompt::ReadBack { .. })).count(), 1, "the question is not put again");
        let counted = |e: &Effect| match e {
            Effect::RecordFailure { caller, attested, factor, .. } => {
                assert_eq!(
                    (caller, *attested, *factor),
                    (&None, true, Factor::Challenge),
                    "against the customer, whom the app vouches for"
                );
                true
            }
            _ => false,
        };
        assert_eq!(edge.count(counted), tries);
    }
}

#[test]
fn a_refusal_has_the_same_words_and_times_whether_voice_or_digits_failed() {
    let heard = |voice_llr, content_llr| {
        let mut edge = Edge::app_digits(Asks::default());
        edge.say_digits(voice_llr, content_llr).draw_ten();
        edge.wait(10_000);
        edge.audible()
    };
    assert_eq!(heard(0.1, 5.0), heard(0.9, -9.0));
}

#[test]
fn a_voice_that_is_not_sure_by_itself_or_says_too_little_is_not_enough() {
    let mut edge = Edge::app_digits(Asks::default());
    edge.say_digits(0.55, 5.0);
    assert_eq!(edge.state.name(), "drawing digits");
    let mut edge = Edge::app_digits(Asks::default());
    edge.prompt_done().say(1_900);
    assert_eq!(edge.count(|e| matches!(e, Effect::ScoreChallenge { .. })), 0);
}

#[test]
fn no_yes_but_a_plain_one_in_the_payers_voice_leads_to_the_digits() {
    let ends: [(&dyn Fn(&mut Edge), CallVerdict); 7] = [
        (&|e| _ = e.answer(Answer::No, Some(0.5)), CallVerdict::Cancelled),
        (&|e| _ = e.answer(Answer::Cancel, None), CallVerdict::Cancelled),
        (&|e| _ = e.key("*"), CallVerdict::Cancelled),
        (&|e| _ = e.give(Input::HungUp), CallVerdict::Abandoned),
        (&|e| _ = e.wait(400_000), CallVerdict::Abandoned),
        (
            &|e| {
                while e.state.name() == "confirming" {
                    e.answer(Answer::Unclear, Some(0.9));
                    if e.state.verdict().is_none() {
                        e.prompt_done();
                    }
                }
            },
            CallVerdict::Abandoned,
        ),
        (
            &|e| {
                while e.state.name() == "confirming" {
                    e.answer(Answer::Yes, Some(0.1)).wait(3_000);
                    if e.state.verdict().is_none() {
                        e.prompt_done();
                    }
                }
            },
            CallVerdict::Refused,
        ),
    ];
    for (n, (end, verdict)) in ends.iter().enumerate() {
        let mut edge = Edge::app_question(Asks::default());
        end(&mut edge);
        assert_eq!((edge.verdict(), edge.charges()), (*verdict, 0), "{n}");
        assert_eq!(edge.count(|e| matches!(e, Effect::DrawChallenge { .. })), 0, "{n}");
    }
}

#[test]
fn what_rules_ask_beyond_is_asked_too() {
    let mut edge = Edge::app_digits(Asks { code: true, others: true, ..Asks::default() });
    edge.say_digits(0.9, 5.0).give(Input::CodeSent(CodeSent::Sent));
    assert_eq!(edge.charges(), 0, "the code is still to come");
    edge.key("402917").give(Input::CodeChecked(CodeChecked::Good));
    assert_eq!((edge.charge().approval.code, edge.charge().approval.others), (Some(CodeBy::Keyed), true));
    edge.give(Input::Payment(PaymentOutcome::Waiting));
    assert_eq!(edge.prompt(), &Prompt::Waiting);
    assert_eq!(edge.verdict(), CallVerdict::Waiting);
}

#[test]
fn keys_neither_name_another_card_nor_reach_a_person_and_a_page_s_words_speak_of_no_telephone() {
    let mut edge = Edge::in_app(bound(Asks::default()));
    edge.key("4111111111111111");
    assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }));
    edge.cfg.person = "sip:desk@192.0.2.1".to_owned();
    edge.key("0");
    assert_eq!(edge.prompt(), &Prompt::App(AppPrompt::NotHere));
    assert_eq!((edge.verdict(), edge.count(|e| matches!(e, Effect::Transfer))), (CallVerdict::Person, 0));
    let mut edge = Edge::in_app(bound(Asks::default()));
    edge.give(Input::ServiceTrouble);
    assert_eq!(edge.prompt(), &Prompt::App(AppPrompt::Trouble));
}

#[test]
fn what_was_said_is_kept_as_evidence_that_is_judged_the_same_again() {
    for (voice_llr, content_llr) in [(0.9, 5.0), (0.9, -9.0), (0.1, 5.0), (0.9, 0.0)] {
        let mut edge = Edge::app_digits(Asks::default());
        edge.say_digits(voice_llr, content_llr);
        let kept = edge.log.iter().rev().find_map(|(_, e)| match e {
            Effect::KeepEvidence(kept) => Some(kept),
            _ => None,
        });
        let kept = kept.unwrap();
        assert!(kept.digits_alone);
        assert_eq!(crate::decision::replay::decide_again(&edge.cfg.policy, kept), kept.outcome, "{voice_llr} {content_llr}");
    }
}
