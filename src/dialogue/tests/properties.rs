//! Whatever happens in whatever order: no panic, no charge without voice, number and yes in this order, at most one charge,
//! no comparing before the voice was accepted, exactly one verdict.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::challenge::{challenging, content};
use super::*;
use crate::decision::{
    ChallengeWhen, NumberVerdict, PhraseEvidence, Tightening, VoiceVerdict, judge_challenge, judge_number, judge_voice,
};

/// One thing that a hostile or a well-behaved edge may do.
#[derive(Clone, Debug)]
enum Act {
    /// What the call waits for, in the way most likely to go on.
    Helpful,
    Wait(u64),
    Started,
    Identity(bool),
    Key(u8),
    SpeechStarted,
    Utterance(u32),
    NoSpeech,
    Voice(f32),
    Drawn(u8),
    /// Voice and words of an answer to fresh digits.
    Challenge(f32, f32),
    Number(f32),
    Keyed(bool),
    /// A proof out of thin air.
    ForgedNumber(f32),
    Answer(u8, Option<f32>),
    Invite(bool),
    EnrolAdded(u8),
    EnrolStored(bool),
    PromptDone(u32),
    Payment(u8),
    Transferred(bool),
    Deadline(usize),
    Trouble(u8),
    HungUp,
    ServiceTrouble,
}

fn act() -> impl Strategy<Value = Act> {
    let cosine = prop_oneof![Just(0.9f32), Just(0.5), Just(0.1), Just(f32::NAN)];
    let ratio = prop_oneof![Just(9.0f32), Just(0.0), Just(-9.0), Just(f32::NAN), Just(f32::INFINITY)];
    prop_oneof![
        60 => Just(Act::Helpful),
        3 => (0u64..8_000).prop_map(Act::Wait),
        1 => Just(Act::Started),
        1 => any::<bool>().prop_map(Act::Identity),
        2 => (1u8..16).prop_map(Act::Key),
        1 => Just(Act::SpeechStarted),
        2 => (0u32..9_000).prop_map(Act::Utterance),
        1 => Just(Act::NoSpeech),
        3 => cosine.clone().prop_map(Act::Voice),
        1 => (0u8..4).prop_map(Act::Drawn),
        2 => (cosine.clone(), ratio.clone()).prop_map(|(v, c)| Act::Challenge(v, c)),
        3 => ratio.clone().prop_map(Act::Number),
        1 => any::<bool>().prop_map(Act::Keyed),
        2 => ratio.prop_map(Act::ForgedNumber),
        3 => (0u8..4, proptest::option::of(cosine)).prop_map(|(a, c)| Act::Answer(a, c)),
        1 => any::<bool>().prop_map(Act::Invite),
        1 => (0u8..6).prop_map(Act::EnrolAdded),
        1 => any::<bool>().prop_map(Act::EnrolStored),
        1 => (0u32..12).prop_map(Act::PromptDone),
        1 => (0u8..5).prop_map(Act::Payment),
        1 => any::<bool>().prop_map(Act::Transferred),
        2 => (0usize..DeadlineKind::ALL.len()).prop_map(Act::Deadline),
        1 => (0u8..16).prop_map(Act::Trouble),
    ]
}

/// Rare endings, so that most runs get far.
fn ending() -> impl Strategy<Value = Act> {
    prop_oneof![Just(Act::HungUp), Just(Act::ServiceTrouble), Just(Act::Key(10)), Just(Act::Key(0))]
}

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
}

fn holds(cfg: &DialogueConfig, first: &VoiceScore, voice: &VoiceHeard, content: &PhraseEvidence) -> bool {
    let verdict = judge_challenge(&cfg.policy, first, voice.score.clone(), content, &Tightening::default());
    matches!(verdict, VoiceVerdict::Accepted(_))
}

impl Watch {
    fn new(when: ChallengeWhen, invited: bool, cosine: f32) -> Self {
        // A person to ask for in one kind of run: "0" then leads away, else to the last words.
        let person = if when == ChallengeWhen::Inconclusive { "sip:desk@192.0.2.1" } else { "" };
        let mut edge = Edge::new(DialogueConfig { person: person.to_owned(), ..challenging(when) });
        edge.give(Input::Started { caller: caller() });
        let voice = if invited { VoiceOnFile::None } else { VoiceOnFile::Enrolled };
        edge.give(Input::Identity(IdentityOutcome::Known(Box::new(Known { has_open_invite: invited, voice, ..known() }))));
        Self { edge, proof: Proof::Nothing, seen: 0, charged: 0, cosine, first: None, passed: None }
    }

    fn give(&mut self, input: Input) {
        let cfg = &self.edge.cfg;
        self.proof = match (&input, self.proof.clone()) {
            (Input::VoiceScored(result), Proof::VoiceAsked) => match result {
                Ok(heard) => {
                    self.first = Some(heard.score.clone());
                    let challenge_due = cfg.policy.challenge_due(1_999, false) && self.passed.is_none();
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
            (Input::ChallengeScored(result), Proof::DigitsAsked) => match (result, &self.first) {
                (Ok(heard), Some(first)) if holds(cfg, first, &heard.voice, &heard.content) => {
                    self.passed = Some(heard.clone());
                    Proof::VoiceHolds
                }
                (Ok(_) | Err(_), _) => Proof::Unsure,
            },
            (Input::NumberRead(result), Proof::NumberAsked) => match result {
                Ok(heard) => match judge_number(&cfg.policy, &heard.accepted, &heard.evidence, &Tightening::default()) {
                    NumberVerdict::Accepted(card) => Proof::NumberHolds(card),
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
            (_, proof) => proof,
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
                (Effect::ScoreVoice { .. }, _) => Proof::VoiceAsked,
                (Effect::DrawChallenge { .. }, Proof::Unsure | Proof::VoiceHolds) => Proof::Unsure,
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
                // Whoever is handed to a person is charged nothing by this call.
                (Effect::Transfer, _) => Proof::Nothing,
                (Effect::ReadAnswer { check_voice: true }, Proof::NumberHolds(card)) => Proof::YesAsked(card),
                (Effect::ReadAnswer { check_voice: true }, proof) => panic!("asked for a yes with {proof:?}"),
                (Effect::Charge(charge), proof) => {
                    assert_eq!(proof, Proof::YesHolds(charge.card.clone()), "charged without proof");
                    self.charged += 1;
                    assert_eq!(self.charged, 1, "charged twice");
                    Proof::Nothing
                }
                (_, proof) => proof,
            };
        }
        self.seen = self.edge.log.len();
        let hang_ups = self.edge.count(|e| matches!(e, Effect::HangUp(_)));
        assert_eq!(hang_ups, usize::from(self.edge.state.verdict().is_some()), "one verdict, and only at the end");
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
            Act::Identity(known_one) => self.give(Input::Identity(if *known_one {
                IdentityOutcome::Known(Box::new(known()))
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
            "drawing digits" => self.act(&Act::Drawn(0)),
            "scoring digits" => self.act(&Act::Challenge(self.cosine, 9.0)),
            "reading number" if self.edge.keyed.take().is_some() => self.act(&Act::Keyed(true)),
            "reading number" => self.act(&Act::Number(9.0)),
            "hearing answer" | "hearing consent" => self.act(&Act::Answer(0, Some(0.5))),
            "keying card" | "keying customer number" | "keying invitation" => {
                self.act(&Act::Key(1));
                self.act(&Act::Key(11));
            }
            "looking up" => self.act(&Act::Identity(true)),
            "redeeming invitation" => self.act(&Act::Invite(true)),
            "enrolling: adding" => self.act(&Act::EnrolAdded(1)),
            "enrolling: storing" => self.act(&Act::EnrolStored(true)),
            "charging" => self.act(&Act::Payment(0)),
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
        self.wait(u64::from(self.edge.cfg.call_limit_ms) + 60_000);
        self.give(Input::SpeechStarted);
        assert!(self.edge.state.verdict().is_some(), "still {}", self.edge.state.name());
        let before = self.edge.log.len();
        self.act(&Act::HungUp);
        assert_eq!(self.edge.log.len(), before, "nothing comes after the verdict");
    }
}

#[test]
fn whatever_comes_in_whatever_order_a_charge_has_its_proof_and_a_call_its_verdict() {
    let (mut paid, mut enrolled, mut charged, mut refused, mut challenged) = (0, 0, 0, 0, 0);
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 3_000, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let voice = prop_oneof![3 => Just(0.9f32), 1 => Just(0.1), 1 => Just(0.5)];
    let when = prop_oneof![Just(ChallengeWhen::Never), Just(ChallengeWhen::Inconclusive), Just(ChallengeWhen::Always)];
    let acts = (when, any::<bool>(), voice, proptest::collection::vec(act(), 0..60), proptest::option::of(ending()));
    let counters = std::cell::RefCell::new((&mut paid, &mut enrolled, &mut charged, &mut refused, &mut challenged));
    runner
        .run(&acts, |(when, invited, cosine, acts, ending)| {
            let mut watch = Watch::new(when, invited, cosine);
            for act in acts.iter().chain(&ending) {
                watch.act(act);
            }
            watch.outlast();
            let mut counters = counters.borrow_mut();
            *counters.2 += watch.charged;
            *counters.4 += usize::from(watch.charged == 1 && watch.passed.is_some());
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
            let mut watch = Watch { edge, proof: Proof::Nothing, seen: 0, charged: 0, cosine: 0.9, first: None, passed: None };
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
