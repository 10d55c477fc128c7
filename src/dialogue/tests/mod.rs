//! A pretended edge: virtual time, deadlines, prompts of two seconds each, and a log of all effects.

mod acts;
mod app;
mod approver;
mod asks;
mod challenge;
mod enrolment;
mod keypad;
mod outcomes;
mod paying;
mod properties;
mod refusals;
mod withdrawal;

use std::time::Duration;

use super::*;
use crate::clock::Timestamp;
use crate::decision::{
    Answer, CardEvidence, DigitThresholds, NumberEvidence, Policy, Tightening, VoiceAccepted, VoiceScore, VoiceThresholds,
};
use crate::e164::E164;
use crate::ids::{CardId, CustomerId, PayeeId, RequestId};
use crate::money::{Currency, Money};

/// How long every prompt takes.
const PROMPT_MS: u64 = 2_000;

pub(super) fn cfg() -> DialogueConfig {
    DialogueConfig {
        policy: Policy {
            voice: VoiceThresholds { accept_llr: 0.6, reject_llr: 0.4, min_net_speech_ms: 2_000 },
            number: DigitThresholds { accept_llr: 2.0, reject_llr: -2.0 },
            ..Policy::nobody()
        },
        continuity_cosine: 0.2,
        score_wait_ms: 10_000,
        ..DialogueConfig::default()
    }
}

pub(super) fn caller() -> Caller {
    Caller::Attested(E164::normalise("+442079460958", "").unwrap())
}

pub(super) fn card(n: u8) -> CardOnFile {
    CardOnFile { id: CardId::parse(&format!("card_{n}")).unwrap(), last4: [1, 1, 1, n], length: 16, usable: Usable::Yes }
}

pub(super) fn known() -> Known {
    Known {
        customer: CustomerId::parse("cus_1").unwrap(),
        language: crate::language::Language::English,
        voice: VoiceOnFile::Enrolled,
        has_open_invite: false,
        cards: vec![card(1)],
        requests: vec![OpenRequest {
            id: RequestId::parse("req_1").unwrap(),
            amount: Money::new(1999, Currency::Usd).unwrap(),
            payee: SpokenPayee { id: PayeeId::parse("pay_1").unwrap(), name: "Alder Books".to_owned() },
            due: None,
            asks: Asks::default(),
        }],
        failures_24h: 0,
        slow: false,
    }
}

pub(super) fn utterance(net_speech_ms: u32) -> Input {
    Input::Utterance(UtteranceFacts { net_speech_ms, total_ms: net_speech_ms + 1_000, quality: UtteranceQuality::Good })
}

/// The pretended edge.
pub(super) struct Edge {
    pub(super) cfg: DialogueConfig,
    pub(super) state: State,
    pub(super) now: Timestamp,
    pub(super) log: Vec<(Timestamp, Effect)>,
    deadlines: Vec<(DeadlineKind, Timestamp)>,
    pub(super) playing: Option<(PlayId, Prompt)>,
    pub(super) listening: Option<ListenFor>,
    pub(super) proof: Option<VoiceAccepted>,
    pub(super) keyed: Option<Vec<u8>>,
}

impl Edge {
    pub(super) fn new(cfg: DialogueConfig) -> Self {
        Self {
            cfg,
            state: State::new(),
            now: Timestamp(1_000_000),
            log: Vec::new(),
            deadlines: Vec::new(),
            playing: None,
            listening: None,
            proof: None,
            keyed: None,
        }
    }

    /// A call of a known customer, at the point where the greeting is over.
    pub(super) fn called_by(known: Known) -> Self {
        Self::called_with(cfg(), known)
    }

    pub(super) fn called_with(cfg: DialogueConfig, known: Known) -> Self {
        let mut edge = Self::new(cfg);
        edge.give(Input::Started { caller: caller() });
        edge.give(Input::Identity(IdentityOutcome::Known(Box::new(known))));
        edge.prompt_done();
        edge
    }

    /// The same, at the point where the card number is asked for.
    pub(super) fn asked_for_card(known: Known) -> Self {
        let mut edge = Self::called_by(known);
        edge.prompt_done();
        assert!(matches!(edge.prompt(), Prompt::AskCard { attempt: 1, why: Again::First }), "{:?}", edge.playing);
        edge
    }

    /// The same, at the point where the yes is listened for.
    pub(super) fn asked_for_yes(known: Known) -> Self {
        let mut edge = Self::asked_for_card(known);
        edge.say_card(0.9, 5.0);
        assert!(matches!(edge.prompt(), Prompt::ReadBack { .. }), "{:?}", edge.playing);
        edge.prompt_done();
        edge
    }

    /// The same, at the point where the payment is handed over.
    pub(super) fn charging(known: Known) -> Self {
        let mut edge = Self::asked_for_yes(known);
        edge.answer(Answer::Yes, Some(0.5));
        assert_eq!(edge.state.name(), "charging");
        edge
    }

    pub(super) fn give(&mut self, input: Input) -> &mut Self {
        if matches!((&input, &self.playing), (Input::PromptDone(id), Some((playing, _))) if id == playing) {
            self.playing = None;
        }
        let mut out = Vec::new();
        let state = std::mem::take(&mut self.state);
        self.state = handle(&self.cfg, state, self.now, input, &mut out);
        for effect in out {
            self.carry_out(effect);
        }
        self
    }

    fn carry_out(&mut self, effect: Effect) {
        let kept = match effect {
            Effect::Play { id, prompt } => {
                assert!(self.playing.is_none(), "two prompts at once");
                self.playing = Some((id, prompt.clone()));
                Effect::Play { id, prompt }
            }
            Effect::StopPlaying => {
                assert!(self.playing.take().is_some(), "nothing to stop");
                Effect::StopPlaying
            }
            Effect::Listen { listen_for, barge_in } => {
                self.listening = Some(listen_for.clone());
                Effect::Listen { listen_for, barge_in }
            }
            Effect::StopListening => {
                self.listening = None;
                Effect::StopListening
            }
            Effect::SetDeadline { kind, at } => {
                self.deadlines.retain(|(k, _)| *k != kind);
                self.deadlines.push((kind, at));
                Effect::SetDeadline { kind, at }
            }
            Effect::ClearDeadline(kind) => {
                self.deadlines.retain(|(k, _)| *k != kind);
                Effect::ClearDeadline(kind)
            }
            Effect::ReadNumber { accepted, customer, cards } => {
                let copy = proof(accepted.score().clone());
                self.proof = Some(accepted);
                Effect::ReadNumber { accepted: copy, customer, cards }
            }
            Effect::CompareKeyed { accepted, customer, cards, digits } => {
                let copy = proof(accepted.score().clone());
                self.proof = Some(accepted);
                self.keyed = Some(digits.expose().to_vec());
                Effect::CompareKeyed { accepted: copy, customer, cards, digits }
            }
            Effect::Errand(ErrandEffect::LookUp { accepted, customer, purpose }) => {
                let copy = proof(accepted.score().clone());
                self.proof = Some(accepted);
                Effect::Errand(ErrandEffect::LookUp { accepted: copy, customer, purpose })
            }
            other => other,
        };
        self.log.push((self.now, kept));
    }

    /// Time passes; deadlines come when they are due.
    pub(super) fn wait(&mut self, ms: u64) -> &mut Self {
        let until = self.now.plus(Duration::from_millis(ms));
        while let Some((kind, at)) = self.deadlines.iter().copied().filter(|(_, at)| *at <= until).min_by_key(|(_, at)| *at) {
            self.now = self.now.max(at);
            self.deadlines.retain(|(k, _)| *k != kind);
            self.give(Input::Deadline(kind));
        }
        self.now = until;
        self
    }

    /// What plays is played to its end.
    pub(super) fn prompt_done(&mut self) -> &mut Self {
        self.wait(PROMPT_MS);
        let (id, _) = self.playing.take().expect("a prompt plays");
        self.give(Input::PromptDone(id))
    }

    pub(super) fn prompt(&self) -> &Prompt {
        &self.playing.as_ref().expect("a prompt plays").1
    }

    pub(super) fn say(&mut self, net_speech_ms: u32) -> &mut Self {
        assert!(self.listening.take().is_some(), "nobody listens in state {}", self.state.name());
        self.give(Input::SpeechStarted).wait(u64::from(net_speech_ms));
        self.give(utterance(net_speech_ms))
    }

    pub(super) fn voice(&mut self, cosine: f32) -> &mut Self {
        self.wait(300).give(Input::VoiceScored(Ok(voice(cosine))))
    }

    pub(super) fn number(&mut self, log_ratios: &[f32]) -> &mut Self {
        let cards = (1..)
            .zip(log_ratios)
            .map(|(n, log_ratio)| CardEvidence { card: card(n).id, log_ratio: *log_ratio, llr: *log_ratio })
            .collect();
        self.wait(900).evidence(NumberEvidence::Spoken { cards, engine: "test".to_owned(), calibration: "test".to_owned() })
    }

    pub(super) fn evidence(&mut self, evidence: NumberEvidence) -> &mut Self {
        let accepted = self.proof.take().expect("the comparator has a proof");
        self.give(Input::NumberRead(Ok(NumberHeard { evidence, accepted })))
    }

    /// One utterance with a card number in it. The number is only read where the dialogue asks for it.
    pub(super) fn say_card(&mut self, cosine: f32, log_ratio: f32) -> &mut Self {
        self.wait(500).say(6_000).voice(cosine);
        if self.proof.is_some() {
            self.number(&[log_ratio]);
        }
        self
    }

    pub(super) fn answer(&mut self, answer: Answer, continuity_cosine: Option<f32>) -> &mut Self {
        self.say(500).wait(400).give(Input::Answer(Ok(AnswerHeard { answer, continuity_cosine, heard_before: false })))
    }

    pub(super) fn key(&mut self, keys: &str) -> &mut Self {
        for c in keys.chars() {
            self.give(Input::Key(match c {
                '*' => Keypress::Star,
                '#' => Keypress::Pound,
                digit => Keypress::Digit(u8::try_from(digit.to_digit(10).unwrap()).unwrap()),
            }));
        }
        self
    }

    /// The last words are said and the line is closed.
    pub(super) fn verdict(&mut self) -> CallVerdict {
        for _ in 0..3 {
            if self.playing.is_some() {
                self.prompt_done();
            }
        }
        let hang_ups = self.log.iter().filter(|(_, e)| matches!(e, Effect::HangUp(_))).count();
        assert_eq!(hang_ups, 1, "one verdict, in state {}", self.state.name());
        self.state.verdict().expect("the call is over")
    }

    pub(super) fn count(&self, which: impl Fn(&Effect) -> bool) -> usize {
        self.log.iter().filter(|(_, e)| which(e)).count()
    }

    pub(super) fn charges(&self) -> usize {
        self.count(|e| matches!(e, Effect::Charge(_)))
    }

    pub(super) fn comparisons(&self) -> usize {
        self.count(|e| matches!(e, Effect::ReadNumber { .. } | Effect::CompareKeyed { .. }))
    }

    pub(super) fn prompts(&self) -> Vec<Prompt> {
        self.log
            .iter()
            .filter_map(|(_, e)| match e {
                Effect::Play { prompt, .. } => Some(prompt.clone()),
                _ => None,
            })
            .collect()
    }

    /// Everything a caller can hear, with its time.
    pub(super) fn audible(&self) -> Vec<(Timestamp, String)> {
        self.log
            .iter()
            .filter(|(_, e)| {
                matches!(
                    e,
                    Effect::Play { .. } | Effect::StopPlaying | Effect::Listen { .. } | Effect::StopListening | Effect::HangUp(_)
                )
            })
            .map(|(at, e)| (*at, format!("{e:?}")))
            .collect()
    }
}

/// In these tests a cosine is its own ratio.
pub(super) fn score(cosine: f32) -> VoiceScore {
    VoiceScore {
        cosine,
        llr: cosine,
        net_speech_ms: 6_000,
        snr_db: 25.0,
        model: "test".to_owned(),
        calibration: "test".to_owned(),
    }
}

pub(super) fn voice(cosine: f32) -> VoiceHeard {
    VoiceHeard { score: score(cosine), heard_before: false, spoof_llr: None }
}

/// A proof, made the only way there is.
pub(super) fn proof(score: VoiceScore) -> VoiceAccepted {
    match crate::decision::judge_voice(&Policy::any_voice(), score, &Tightening::default()) {
        crate::decision::VoiceVerdict::Accepted(accepted) => accepted,
        other => panic!("{other:?}"),
    }
}
