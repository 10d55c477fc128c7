//! Whatever happens in whatever order: no panic, no charge without voice, number and yes in this order, at most one charge,
//! no comparing before the voice was accepted, nothing that the payment's terms ask for left out, no voice deleted and no mandate given
//! without a yes in the owner's voice, exactly one verdict. An app's page pays by a yes and then fresh digits with the card that is bound, and by
//! nothing else.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::acts::{Act, act, asks, ending};
use super::challenge::{challenging, content};
use super::*;
use crate::decision::{
    ChallengeWhen, NumberVerdict, PhraseEvidence, Tightening, VoiceVerdict, judge_challenge, judge_fresh_digits, judge_number,
    judge_voice,
};

/// How far this call's proof has come, told from inputs and effects alone.
#[derive(Clone, Debug, PartialEq)]
enum Proof {
    Nothing,
    VoiceAsked,
    /// The voice was heard and neither rejected nor taken, or policy wants more.
    Unsure,
    DigitsAsked,
    VoiceHolds,
    NumberAsked,
    NumberHolds(CardId),
    YesAsked(CardId),
    YesHolds(CardId),
    /// The same before an app's page, where it comes first.
    FirstYesAsked,
    FirstYesHolds,
    /// After a charge, and whether it is known to be paid.
    Charged {
        paid: bool,
    },
    OfferAsked,
    OfferHolds,
    /// Fresh digits in the voice that is to be deleted.
    OwnerHolds,
    DeleteAsked,
    DeleteHolds,
}

/// How far a one-time code has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Code {
    Nothing,
    Sent,
    /// Said; whether in words and voice.
    Said(bool),
    /// Handed over as right.
    Given,
    Holds,
}

struct Watch {
    edge: Edge,
    proof: Proof,
    seen: usize,
    charged: usize,
    /// Of the helpful caller's voice.
    cosine: f32,
    /// The voice that was scored last.
    first: Option<VoiceScore>,
    /// The answer to fresh digits that was taken, while nothing has failed since.
    passed: Option<ChallengeHeard>,
    asks: Asks,
    /// Nothing was said before the fresh digits.
    alone: bool,
    /// An app's question was answered with yes.
    agreed: bool,
    /// Fresh digits were part of what was proven.
    fresh: bool,
    code: Code,
    /// Of the voice that was accepted with the number.
    proven: Option<VoiceScore>,
    deleted: usize,
    granted: usize,
}

fn asking(asks: &Asks) -> Known {
    let mut known = known();
    known.requests[0].asks = asks.clone();
    known
}

/// Whether a call that charges nothing is under way: the caller pressed 9 while being greeted.
fn deleting(edge: &Edge) -> bool {
    matches!(&edge.state, State::Live(live) if live.line.deleting())
}

fn yes(cfg: &DialogueConfig, heard: &AnswerHeard) -> bool {
    heard.answer == Answer::Yes && heard.continuity_cosine.is_some_and(|c| c >= cfg.continuity_cosine)
}

fn holds(cfg: &DialogueConfig, first: &VoiceScore, voice: &VoiceHeard, content: &PhraseEvidence) -> bool {
    let verdict = judge_challenge(&cfg.policy, first, voice.score.clone(), content, &Tightening::default());
    matches!(verdict, VoiceVerdict::Accepted(_))
}

impl Watch {
    fn new(when: ChallengeWhen, invited: bool, cosine: f32, (asks, deleting): (Asks, bool)) -> Self {
        // A person to ask for in one kind of run: "0" then leads away, else to the last words.
        let person = if when == ChallengeWhen::Inconclusive { "sip:desk@192.0.2.1" } else { "" };
        let mut edge = Edge::new(DialogueConfig { person: person.to_owned(), ..challenging(when) });
        let voice = if invited { VoiceOnFile::None } else { VoiceOnFile::Enrolled };
        let known = Box::new(Known { has_open_invite: invited, voice, ..asking(&asks) });
        if asks.bound.is_some() {
            edge.give(Input::AppCall(known));
            return Self::at(edge, cosine, asks);
        }
        edge.give(Input::Started { caller: caller() });
        if deleting {
            edge.key("9");
        }
        edge.give(Input::Identity(IdentityOutcome::Known(known)));
        Self::at(edge, cosine, asks)
    }

    fn at(edge: Edge, cosine: f32, asks: Asks) -> Self {
        let (proof, code) = (Proof::Nothing, Code::Nothing);
        let (first, passed, proven, alone, fresh, agreed) = (None, None, None, false, false, false);
        let (seen, charged, deleted, granted) = (0, 0, 0, 0);
        Self { edge, proof, seen, charged, cosine, first, passed, asks, alone, agreed, fresh, code, proven, deleted, granted }
    }

    /// Where the rules want one, and wherever no number was given but to an app.
    fn needs_code(&self) -> bool {
        self.asks.code || (self.alone && self.asks.bound.is_none())
    }

    fn give(&mut self, input: Input) {
        let cfg = &self.edge.cfg;
        self.proof = match (&input, self.proof.clone()) {
            (Input::VoiceScored(result), Proof::VoiceAsked) => match result {
                Ok(heard) => {
                    self.first = Some(heard.score.clone());
                    let due = cfg.policy.challenge_due(1_999, false) || self.asks.fresh_digits;
                    let challenge_due = due && self.passed.is_none();
                    match judge_voice(&cfg.policy, heard.score.clone(), &Tightening { challenge_due, ..Tightening::default() }) {
                        VoiceVerdict::Accepted(_) => Proof::VoiceHolds,
                        VoiceVerdict::StepUp(first) => match &self.passed {
                            Some(ChallengeHeard { voice, content }) if holds(cfg, &first, voice, content) => Proof::VoiceHolds,
                            Some(_) | None => Proof::Unsure,
                        },
                        VoiceVerdict::Inconclusive | VoiceVerdict::Rejected => Proof::Nothing,
                    }
                }
                Err(_) => Proof::Nothing,
            },
            (Input::ChallengeScored(Ok(heard)), Proof::DigitsAsked) if self.alone => {
                let none = Tightening::default();
                let verdict = judge_fresh_digits(&cfg.policy, heard.voice.score.clone(), &heard.content, &none);
                match (verdict, self.asks.mandate.as_ref().or(self.asks.bound.as_ref()), deleting(&self.edge)) {
                    (VoiceVerdict::Accepted(_), _, true) => Proof::OwnerHolds,
                    (VoiceVerdict::Accepted(accepted), Some(card), false) => {
                        (self.fresh, self.proven) = (true, Some(accepted.score().clone()));
                        Proof::NumberHolds(card.clone())
                    }
                    (_, _, _) => Proof::Unsure,
                }
            }
            (Input::ChallengeScored(result), Proof::DigitsAsked) => match (result, &self.first) {
                (Ok(heard), Some(first)) if holds(cfg, first, &heard.voice, &heard.content) => {
                    self.passed = Some(heard.clone());
                    Proof::VoiceHolds
                }
                (Ok(_) | Err(_), _) => Proof::Unsure,
            },
            (Input::NumberRead(result), Proof::NumberAsked) => match result {
                Ok(heard) => match judge_number(&cfg.policy, &heard.accepted, &heard.evidence, &Tightening::default()) {
                    NumberVerdict::Accepted(card) => {
                        self.fresh = self.passed.is_some();
                        self.proven = Some(heard.accepted.score().clone());
                        Proof::NumberHolds(card)
                    }
                    NumberVerdict::Inconclusive | NumberVerdict::Rejected => Proof::Nothing,
                },
                Err(_) => Proof::Nothing,
            },
            (Input::Answer(result), Proof::YesAsked(card)) => match result {
                Ok(AnswerHeard { answer: Answer::Yes, continuity_cosine: Some(c), .. }) if *c >= cfg.continuity_cosine => {
                    Proof::YesHolds(card)
                }
                Ok(_) | Err(_) => Proof::NumberHolds(card),
            },
            (Input::Answer(Ok(heard)), Proof::FirstYesAsked) if yes(cfg, heard) => {
                self.agreed = true;
                Proof::FirstYesHolds
            }
            (Input::Answer(_), Proof::FirstYesAsked) => Proof::Nothing,
            (Input::Answer(Ok(heard)), Proof::OfferAsked) if yes(cfg, heard) => Proof::OfferHolds,
            (Input::Answer(Ok(heard)), Proof::DeleteAsked) if yes(cfg, heard) => Proof::DeleteHolds,
            (Input::Answer(_), Proof::OfferAsked) => Proof::Charged { paid: true },
            (Input::Answer(_), Proof::DeleteAsked) => Proof::OwnerHolds,
            (Input::Payment(PaymentOutcome::Paid { .. }), Proof::Charged { .. }) => Proof::Charged { paid: true },
            (_, proof) => proof,
        };
        self.code = match (&input, self.code) {
            (Input::CodeScored(Ok(heard)), Code::Said(_)) => {
                Code::Said(self.proven.as_ref().is_some_and(|first| holds(cfg, first, &heard.voice, &heard.content)))
            }
            (Input::CodeChecked(CodeChecked::Good), Code::Given) => Code::Holds,
            (Input::CodeChecked(_), Code::Given) => Code::Sent,
            (_, code) => code,
        };
        self.edge.give(input);
        self.look();
    }

    fn wait(&mut self, ms: u64) {
        self.edge.wait(ms);
        self.look();
    }

    /// Holds the new effects against the proof.
    fn look(&mut self) {
        for (_, effect) in &self.edge.log[self.seen..] {
            self.proof = match (effect, self.proof.clone()) {
                (
                    Effect::ScoreVoice { .. }
                    | Effect::ReadNumber { .. }
                    | Effect::CompareKeyed { .. }
                    | Effect::GrantMandate(_)
                    | Effect::Transfer
                    | Effect::Play {
                        prompt: Prompt::AskCard { .. } | Prompt::AskCounting { .. } | Prompt::OfferMandate { .. },
                        ..
                    },
                    proof,
                ) if self.asks.bound.is_some() => panic!("{effect:?} in an app's call with {proof:?}"),
                (Effect::ScoreVoice { .. }, _) => {
                    (self.alone, self.code) = (false, Code::Nothing);
                    Proof::VoiceAsked
                }
                (Effect::DrawChallenge { .. }, Proof::Unsure | Proof::VoiceHolds) => Proof::Unsure,
                (Effect::DrawChallenge { .. }, Proof::FirstYesHolds) => {
                    self.alone = true;
                    Proof::Unsure
                }
                (Effect::DrawChallenge { .. }, Proof::Nothing) => {
                    assert!(self.asks.bound.is_none(), "digits before the yes");
                    assert!(self.asks.mandate.is_some() || deleting(&self.edge), "digits out of nothing");
                    self.alone = true;
                    Proof::Unsure
                }
                (Effect::DrawChallenge { .. }, proof) => panic!("fresh digits drawn with {proof:?}"),
                (Effect::ScoreChallenge { .. }, Proof::Unsure) => Proof::DigitsAsked,
                (Effect::ScoreChallenge { .. }, proof) => panic!("fresh digits scored with {proof:?}"),
                (Effect::RecordFailure { .. }, proof) => {
                    self.passed = None;
                    proof
                }
                (Effect::ReadNumber { .. } | Effect::CompareKeyed { .. }, proof) => {
                    assert_eq!(proof, Proof::VoiceHolds, "compared before the voice was accepted");
                    Proof::NumberAsked
                }
                // A yes to the payment counts for nothing until the next.
                (
                    Effect::Play { prompt: Prompt::Cancelled | Prompt::NotCompleted | Prompt::Person, .. },
                    Proof::Charged { .. },
                ) => {
                    panic!("says that nothing was paid after a charge")
                }
                // Whoever is handed to a person is charged nothing by this call.
                (Effect::Transfer, _) => Proof::Nothing,
                (Effect::ReadAnswer { voice: AnswerVoice::AsBefore }, Proof::NumberHolds(card)) => {
                    assert!(!self.needs_code() || self.code == Code::Holds, "read back without its code: {:?}", self.code);
                    Proof::YesAsked(card)
                }
                (Effect::ReadAnswer { voice: AnswerVoice::AsBefore }, Proof::Charged { paid: true }) => Proof::OfferAsked,
                (Effect::ReadAnswer { voice: AnswerVoice::AsBefore }, Proof::OwnerHolds) => Proof::DeleteAsked,
                (Effect::ReadAnswer { voice: AnswerVoice::AsEnrolled(who) }, proof) => {
                    assert_eq!((proof, who), (Proof::Nothing, &known().customer), "asked for a first yes");
                    assert!(self.asks.bound.is_some() && !self.agreed);
                    Proof::FirstYesAsked
                }
                (Effect::SendCode { .. }, proof) => {
                    assert!(matches!(proof, Proof::NumberHolds(_)) && self.needs_code(), "a code sent with {proof:?}");
                    self.code = Code::Sent;
                    proof
                }
                (Effect::ScoreCode { .. }, proof) => {
                    // One that could not be judged is said again.
                    assert!(matches!(self.code, Code::Sent | Code::Said(false)), "no code to compare with: {:?}", self.code);
                    self.code = Code::Said(false);
                    proof
                }
                (Effect::CheckCode { given, .. }, proof) => {
                    self.code = match (given, self.code) {
                        (CodeGiven::Keyed(_), Code::Sent | Code::Said(_)) | (CodeGiven::Spoken, Code::Said(true)) => Code::Given,
                        (CodeGiven::SpokenOtherwise, Code::Said(false)) => Code::Sent,
                        (given, code) => panic!("{given:?} with {code:?}"),
                    };
                    proof
                }
                (Effect::GrantMandate(grant), proof) => {
                    assert_eq!(proof, Proof::OfferHolds);
                    assert!(Some(grant.cap) == self.asks.offer_mandate && !self.alone);
                    self.granted += 1;
                    Proof::Charged { paid: true }
                }
                (Effect::DeleteVoice { .. }, proof) => {
                    assert_eq!((proof, self.charged), (Proof::DeleteHolds, 0));
                    self.deleted += 1;
                    Proof::Nothing
                }
                (Effect::ReadAnswer { voice: AnswerVoice::AsBefore }, proof) => panic!("asked for a yes with {proof:?}"),
                (Effect::Charge(charge), proof) => {
                    let in_order = match self.agreed {
                        true => Proof::NumberHolds(charge.card.clone()),
                        false => Proof::YesHolds(charge.card.clone()),
                    };
                    assert_eq!(proof, in_order, "charged without proof");
                    assert_eq!(self.agreed, self.asks.bound.is_some(), "the yes is the last word but to a page");
                    self.charged += 1;
                    assert_eq!(self.charged, 1, "charged twice");
                    let Asks { denied, fresh_digits, others, .. } = self.asks;
                    assert!(!denied && (!fresh_digits || self.fresh), "charged without its terms");
                    assert!(!self.needs_code() || self.code == Code::Holds, "charged without its code");
                    let told = &charge.approval;
                    let bound = self.asks.bound.as_ref();
                    assert!(bound.is_none_or(|bound| *bound == charge.card && self.fresh), "another card, or no fresh digits");
                    assert_eq!(told.number == NumberSummary::Bound, bound.is_some());
                    assert_eq!(
                        (told.others, told.fresh_digits, told.code.is_some()),
                        (others, self.fresh, self.code == Code::Holds)
                    );
                    Proof::Charged { paid: false }
                }
                (_, proof) => proof,
            };
        }
        self.seen = self.edge.log.len();
        let hang_ups = self.edge.count(|e| matches!(e, Effect::HangUp(_)));
        assert_eq!(hang_ups, usize::from(self.edge.state.verdict().is_some()), "one verdict, and only at the end");
        assert!(self.granted <= 1 && self.deleted <= 1, "done twice");
    }

    fn act(&mut self, act: &Act) {
        let spoken = |log_ratio: f32| NumberEvidence::Spoken {
            cards: vec![CardEvidence { card: card(1).id, log_ratio, llr: log_ratio }],
            engine: "test".to_owned(),
            calibration: "test".to_owned(),
        };
        match act {
            Act::Helpful => self.help(),
            Act::Wait(ms) => self.wait(*ms),
            Act::Started => self.give(Input::Started { caller: Caller::Withheld }),
            Act::AppCall => {
                let mut known = known();
                known.requests[0].asks = Asks { bound: Some(card(1).id), ..Asks::default() };
                self.give(Input::AppCall(Box::new(known)));
            }
            Act::Identity(known_one) => self.give(Input::Identity(if *known_one {
                IdentityOutcome::Known(Box::new(asking(&self.asks)))
            } else {
                IdentityOutcome::Shared
            })),
            Act::Key(k) => self.give(Input::Key(match k {
                10 => Keypress::Star,
                11 => Keypress::Pound,
                digit => Keypress::Digit(*digit),
            })),
            Act::SpeechStarted => self.give(Input::SpeechStarted),
            Act::Utterance(ms) => {
                self.edge.listening = None;
                self.give(utterance(*ms));
            }
            Act::NoSpeech => self.give(Input::NoSpeech),
            Act::Voice(cosine) => self.give(Input::VoiceScored(Ok(voice(*cosine)))),
            Act::Drawn(n) => self.give(Input::ChallengeDrawn(match n {
                0 | 1 => ChallengeOutcome::Drawn { digits: vec![5, 0, 2, 7, 1, 9, 4, 6] },
                2 => ChallengeOutcome::Drawn { digits: vec![1; 3] },
                _ => ChallengeOutcome::Trouble,
            })),
            Act::Challenge(cosine, llr) => {
                let heard = ChallengeHeard { voice: voice(*cosine), content: content(*llr) };
                self.give(Input::ChallengeScored(Ok(heard)));
            }
            Act::Number(ratio) => {
                if let Some(accepted) = self.edge.proof.take() {
                    self.give(Input::NumberRead(Ok(NumberHeard { evidence: spoken(*ratio), accepted })));
                }
            }
            Act::Keyed(right) => {
                if let Some(accepted) = self.edge.proof.take() {
                    let evidence = NumberEvidence::Keyed { card: right.then(|| card(1).id) };
                    self.give(Input::NumberRead(Ok(NumberHeard { evidence, accepted })));
                }
            }
            Act::ForgedNumber(ratio) => {
                let heard = NumberHeard { evidence: spoken(*ratio), accepted: proof(score(1.0)) };
                self.give(Input::NumberRead(Ok(heard)));
            }
            Act::Answer(a, continuity_cosine) => {
                let answer = [Answer::Yes, Answer::No, Answer::Cancel, Answer::Unclear][usize::from(*a)];
                self.give(Input::Answer(Ok(AnswerHeard { answer, continuity_cosine: *continuity_cosine, heard_before: false })));
            }
            Act::CodeSent(n) => self
                .give(Input::CodeSent([CodeSent::Sent, CodeSent::NoWay, CodeSent::Enough, CodeSent::Trouble][usize::from(*n)])),
            Act::CodeScored(cosine, llr) => {
                let heard = ChallengeHeard { voice: voice(*cosine), content: content(*llr) };
                self.give(Input::CodeScored(Ok(heard)));
            }
            Act::CodeChecked(n) => self.give(Input::CodeChecked(
                [CodeChecked::Good, CodeChecked::Wrong { left: 2 }, CodeChecked::Wrong { left: 0 }, CodeChecked::Expired]
                    [usize::from(*n)],
            )),
            Act::Granted(done) => self.give(Input::MandateGranted(*done)),
            Act::Deleted(done) => self.give(Input::VoiceDeleted(*done)),
            Act::Invite(right) => self.give(Input::InviteRedeemed(if *right {
                InviteOutcome::Accepted { challenges: vec![vec![1; 10]; 6] }
            } else {
                InviteOutcome::Rejected
            })),
            Act::EnrolAdded(n) => self.give(Input::EnrolAdded(
                [
                    EnrolOutcome::Added { net_speech_total_ms: 4_000 },
                    EnrolOutcome::Added { net_speech_total_ms: 9_000 },
                    EnrolOutcome::TooShort,
                    EnrolOutcome::Disagrees,
                    EnrolOutcome::OtherWords,
                    EnrolOutcome::HeardBefore,
                ][usize::from(*n)],
            )),
            Act::EnrolStored(ok) => {
                self.give(Input::EnrolStored(if *ok { StoreOutcome::Stored } else { StoreOutcome::Refused }));
            }
            Act::PromptDone(id) => self.give(Input::PromptDone(PlayId(*id))),
            Act::Payment(n) => self.give(Input::Payment(
                [
                    PaymentOutcome::Paid { reference: vec![1, 2] },
                    PaymentOutcome::Declined,
                    PaymentOutcome::Unknown,
                    PaymentOutcome::Refused,
                    PaymentOutcome::NotSubmitted,
                    PaymentOutcome::Waiting,
                ][usize::from(*n)]
                .clone(),
            )),
            Act::Transferred(done) => self.give(Input::Transferred(*done)),
            Act::Deadline(n) => self.give(Input::Deadline(DeadlineKind::ALL[*n])),
            Act::Trouble(n) => {
                let trouble = [ScoreTrouble::Overloaded, ScoreTrouble::TimedOut, ScoreTrouble::Failed, ScoreTrouble::Unusable]
                    [usize::from(*n % 4)];
                match n / 4 {
                    0 => self.give(Input::VoiceScored(Err(trouble))),
                    1 => self.give(Input::NumberRead(Err(trouble))),
                    2 => self.give(Input::ChallengeScored(Err(trouble))),
                    3 => self.give(Input::CodeScored(Err(trouble))),
                    _ => self.give(Input::Answer(Err(trouble))),
                }
            }
            Act::HungUp => self.give(Input::HungUp),
            Act::ServiceTrouble => self.give(Input::ServiceTrouble),
        }
    }

    /// Goes on as a good caller and a good edge would.
    fn help(&mut self) {
        if let Some((id, _)) = self.edge.playing.take() {
            self.edge.now = self.edge.now.plus(Duration::from_millis(700));
            self.give(Input::PromptDone(id));
            return;
        }
        match self.edge.state.name() {
            "scoring voice" => self.act(&Act::Voice(self.cosine)),
            "drawing digits" if self.alone => {
                self.give(Input::ChallengeDrawn(ChallengeOutcome::Drawn { digits: vec![5, 0, 2, 7, 1, 9, 4, 6, 3, 8] }));
            }
            "drawing digits" => self.act(&Act::Drawn(0)),
            "sending code" => self.act(&Act::CodeSent(0)),
            "keying code" => (0..6).for_each(|_| self.act(&Act::Key(1))),
            "scoring code" => self.act(&Act::CodeScored(self.cosine, 9.0)),
            "checking code" => self.act(&Act::CodeChecked(0)),
            "granting mandate" => self.act(&Act::Granted(true)),
            "deleting voice" => self.act(&Act::Deleted(true)),
            "scoring digits" => self.act(&Act::Challenge(self.cosine, 9.0)),
            "reading number" if self.edge.keyed.take().is_some() => self.act(&Act::Keyed(true)),
            "reading number" => self.act(&Act::Number(9.0)),
            "hearing answer" | "hearing consent" | "hearing offer" | "hearing to delete" => self.act(&Act::Answer(0, Some(0.5))),
            "keying card" | "keying customer number" | "keying invitation" => {
                self.act(&Act::Key(1));
                self.act(&Act::Key(11));
            }
            "looking up" => self.act(&Act::Identity(true)),
            "redeeming invitation" => self.act(&Act::Invite(true)),
            "enrolling: adding" => self.act(&Act::EnrolAdded(1)),
            "enrolling: storing" => self.act(&Act::EnrolStored(true)),
            "charging" => self.act(&Act::Payment(if self.asks.others { 5 } else { 0 })),
            "connecting" => self.act(&Act::Transferred(true)),
            _listening_or_holding => {
                if self.edge.listening.is_some() {
                    self.act(&Act::Utterance(6_000));
                } else {
                    self.wait(3_000);
                }
            }
        }
    }

    /// Everything past the limit and the longest waits after it: no call outlives that.
    fn outlast(&mut self) {
        // With the time of a slow caller.
        self.wait(u64::from(self.edge.cfg.call_limit_ms * self.edge.cfg.slow_times) + 120_000);
        self.give(Input::SpeechStarted);
        assert!(self.edge.state.verdict().is_some(), "still {}", self.edge.state.name());
        let before = self.edge.log.len();
        self.act(&Act::HungUp);
        assert_eq!(self.edge.log.len(), before, "nothing comes after the verdict");
    }
}

#[test]
fn whatever_comes_in_whatever_order_a_charge_has_its_proof_and_a_call_its_verdict() {
    let (mut paid, mut enrolled, mut charged, mut refused, mut challenged, mut more) = (0, 0, 0, 0, 0, [0; 9]);
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 6_000, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let voice = prop_oneof![3 => Just(0.9f32), 1 => Just(0.1), 1 => Just(0.5)];
    let when = prop_oneof![Just(ChallengeWhen::Never), Just(ChallengeWhen::Inconclusive), Just(ChallengeWhen::Always)];
    let acts = ((when, any::<bool>(), voice, asks()), proptest::collection::vec(act(), 0..80), proptest::option::of(ending()));
    let counters = std::cell::RefCell::new((&mut paid, &mut enrolled, &mut charged, &mut refused, &mut challenged, &mut more));
    runner
        .run(&acts, |((when, invited, cosine, asks), acts, ending)| {
            let mut watch = Watch::new(when, invited, cosine, asks);
            for act in acts.iter().chain(&ending) {
                watch.act(act);
            }
            watch.outlast();
            let mut counters = counters.borrow_mut();
            *counters.2 += watch.charged;
            *counters.4 += usize::from(watch.charged == 1 && watch.passed.is_some());
            let (asks, charged) = (&watch.asks, watch.charged == 1);
            let reached = [
                charged && asks.fresh_digits,
                charged && asks.code && asks.mandate.is_none(),
                charged && asks.mandate.is_some() && watch.alone,
                charged && asks.mandate.is_some() && !watch.alone,
                watch.granted == 1,
                watch.deleted == 1,
                watch.edge.state.verdict() == Some(CallVerdict::Waiting),
                charged && asks.bound.is_some() && !asks.code,
                charged && asks.bound.is_some() && asks.code,
            ];
            for (count, reached) in counters.5.iter_mut().zip(reached) {
                *count += usize::from(reached);
            }
            match watch.edge.state.verdict() {
                Some(CallVerdict::Paid) => *counters.0 += 1,
                Some(CallVerdict::Enrolled) => *counters.1 += 1,
                Some(CallVerdict::Refused) => *counters.3 += 1,
                Some(_) | None => {}
            }
            Ok(())
        })
        .unwrap();
    // A property that nothing reaches holds nothing.
    let reached = [charged > 300, paid > 200, enrolled > 100, refused > 20, challenged > 80];
    assert_eq!(reached, [true; 5], "{charged} {paid} {enrolled} {refused} {challenged}");
    assert!(
        more.iter().all(|n| *n > 5),
        "digits, code, mandate, mandate given up, granted, deleted, waiting, app, app and code: {more:?}"
    );
}

#[test]
fn a_caller_whom_nobody_knows_is_never_listened_to() {
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 1_000, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    runner
        .run(&proptest::collection::vec(act(), 0..60), |acts| {
            let mut edge = Edge::new(cfg());
            edge.give(Input::Started { caller: Caller::Withheld });
            let mut watch = Watch::at(edge, 0.9, Asks::default());
            for act in &acts {
                match (act, watch.edge.state.name()) {
                    (Act::Identity(true), _) | (Act::Helpful, "looking up") => watch.act(&Act::Identity(false)),
                    (act, _) => watch.act(act),
                }
            }
            watch.outlast();
            assert_eq!(watch.edge.count(|e| matches!(e, Effect::Listen { .. } | Effect::ScoreVoice { .. })), 0);
            assert_eq!(watch.charged, 0);
            Ok(())
        })
        .unwrap();
}
