//! What every call shares: models, prompts, the desk, limits.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::ahead::{Findings, Question};
use super::approvals::Approvals;
use super::callbacks::CallbacksConfig;
use super::desk::Desk;
use super::heard_before::ReuseConfig;
use super::hearing;
use super::inference::Inference;
use super::recording::Recording;
use super::registry::Registry;
use super::timeline::Watched;
use super::transfer::Switchboard;
use super::work::{embed_trouble, speech_trouble};
use crate::clock::{Clock, Entropy};
use crate::decision::refresh::RefreshConfig;
use crate::decision::{Answer, Calibration, Policy};
use crate::dialogue::{DialogueConfig, ListenFor, ScoreTrouble};
use crate::language::Language;
use crate::prompts::Bank;
use crate::speech::turn::Readiness;
use crate::speech::vad::VoiceActivity;
use crate::speech::{AnswerEngine, Heard, NumberEngine, SpeechConfig, Utterance};
use crate::voiceprint::fingerprint::Fingerprinter;
use crate::voiceprint::{Embedder, Embedding, VoiceConfig};

/// Between two looks at a payment on a paused clock.
const PAUSED_LOOK: Duration = Duration::from_millis(10);

/// Shared by all calls.
#[derive(Clone)]
pub struct Services {
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The store, the vault and the processor, as a call sees them.
    pub desk: Desk,
    /// Approvals, for calls that we place.
    pub approvals: Approvals,
    /// Who speaks.
    pub embedder: Arc<Embedder>,
    /// Whether it was heard before.
    pub fingerprinter: Arc<Fingerprinter>,
    /// What number was said.
    pub numbers: Arc<dyn NumberEngine>,
    /// Yes or no.
    pub answers: Arc<dyn AnswerEngine>,
    /// What the service says.
    pub prompts: Arc<Bank>,
    /// Where models run.
    pub inference: Inference,
    /// Live calls.
    pub registry: Registry,
    /// Whoever watches.
    pub watchers: tokio::sync::broadcast::Sender<Watched>,
    /// Where calls are recorded, if they are.
    pub recording: Option<Recording>,
    /// `[dialogue]`
    pub dialogue: DialogueConfig,
    /// Who is heard to speak at all.
    pub activity: VoiceActivity,
    /// `[speech]`
    pub speech: SpeechConfig,
    /// `[voice]`
    pub voice: VoiceConfig,
    /// `[decision]`, resolved by the calibration.
    pub policy: Policy,
    /// Raw scores to ratios.
    pub calibration: Arc<Calibration>,
    /// `[reuse]`
    pub reuse: ReuseConfig,
    /// `[callbacks]`
    pub callbacks: CallbacksConfig,
    /// `[refresh]`
    pub refresh: RefreshConfig,
    /// Who places calls for us; known once we listen ourselves. Without, nobody is called.
    pub switchboard: OnceLock<Arc<dyn Switchboard>>,
    /// `identity.default_country`
    pub default_country: String,
    /// `identity.default_language`
    pub default_language: Language,
    /// Tests run calls on tokio's paused clock, which leaps to the next timer whenever nothing seems to run; see `off_clock`.
    pub paused_clock: bool,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}

/// A voice, and how it came about.
#[derive(Debug)]
pub(super) struct Voiced {
    pub(super) embedding: Embedding,
    pub(super) took_ms: u64,
    /// At the pause already.
    pub(super) ahead: bool,
}

impl Services {
    /// The dialogue's section with what other sections say filled in.
    pub(super) fn dialogue_config(&self) -> DialogueConfig {
        DialogueConfig {
            policy: self.policy.clone(),
            continuity_cosine: self.voice.continuity_min_cosine,
            enrol_rounds: self.voice.enrol_min_utterances,
            enrol_net_speech_ms: self.voice.enrol_min_net_speech_ms,
            ..self.dialogue.clone()
        }
    }

    /// The voice of an utterance: as worked out at the pause, or now.
    pub(super) async fn voice_of(&self, findings: &Findings) -> Result<Voiced, ScoreTrouble> {
        let found = findings.voice(&self.inference, None, self.embed()).await?;
        let embedding = found.value.clone()?;
        Ok(Voiced { embedding, took_ms: found.took_ms, ahead: found.ahead })
    }

    /// The same voice in babble, for a template that shall hold in company.
    pub(super) async fn voice_in_babble(&self, findings: &Findings) -> Result<Embedding, ScoreTrouble> {
        let (embedder, utterance) = (Arc::clone(&self.embedder), Arc::clone(&findings.utterance));
        let seed = u64::from_le_bytes(self.entropy.bytes());
        let work = move || embedder.embed_in_babble(&utterance.samples_16k, seed).map_err(|e| embed_trouble(&e));
        self.inference.run(work).await?
    }

    /// What the number engine made of an utterance: at the pause, or now; how long that took, in milliseconds, and which it was.
    pub(super) async fn heard_in(&self, findings: &Findings) -> Result<(Arc<Heard>, u64, bool), ScoreTrouble> {
        let found = findings.heard(&self.inference, None, self.hear()).await?;
        Ok((found.value.clone()?, found.took_ms, found.ahead))
    }

    /// What an utterance says to a question of yes or no: as read at the pause, or now.
    pub(super) async fn answer_in(&self, findings: &Findings) -> Result<Answer, ScoreTrouble> {
        findings.answer(&self.inference, None, self.answer()).await?.value
    }

    /// Answers one question at a pause, on an idle thread. How much of what is expected was read; `None`: no thread was idle.
    pub(super) async fn look_ahead(
        &self,
        question: Question,
        lane: OwnedSemaphorePermit,
        findings: &Findings,
        listen_for: &ListenFor,
    ) -> Option<Readiness> {
        let pool = &self.inference;
        // What fails here fails again, and is told, when it is asked for in earnest.
        match question {
            Question::Voice => findings.voice(pool, Some(lane), self.embed()).await.ok().map(|_| Readiness::Unfinished),
            Question::Answer => {
                let found = findings.answer(pool, Some(lane), self.answer()).await.ok()?;
                Some(found.value.map_or(Readiness::Unfinished, Readiness::of_answer))
            }
            Question::Digits => {
                let found = findings.heard(pool, Some(lane), self.hear()).await.ok()?;
                let Ok(heard) = found.value.clone() else { return Some(Readiness::Unfinished) };
                let (numbers, listen_for) = (Arc::clone(&self.numbers), listen_for.clone());
                let read = move || {
                    let reading = numbers.read_free(&heard, &hearing::lengths(&listen_for));
                    reading.map_or(Readiness::Unfinished, |reading| hearing::readiness(&listen_for, &reading))
                };
                pool.run_if_idle(read).await.ok()
            }
        }
    }

    fn embed(&self) -> impl FnOnce(&Utterance) -> Result<Embedding, ScoreTrouble> + Send + use<> {
        let embedder = Arc::clone(&self.embedder);
        move |utterance| embedder.embed(&utterance.samples_16k).map_err(|e| embed_trouble(&e))
    }

    fn hear(&self) -> impl FnOnce(&Utterance) -> Result<Heard, ScoreTrouble> + Send + use<> {
        let numbers = Arc::clone(&self.numbers);
        move |utterance| numbers.hear(utterance).map_err(|e| speech_trouble(&e))
    }

    fn answer(&self) -> impl FnOnce(&Utterance) -> Result<Answer, ScoreTrouble> + Send + use<> {
        let answers = Arc::clone(&self.answers);
        move |utterance| answers.read_answer(utterance).map_err(|e| speech_trouble(&e))
    }

    /// Waits for a payment's outcome.
    pub(super) async fn outcome(&self, intent: &crate::ids::IntentId) -> crate::dialogue::PaymentOutcome {
        if !self.paused_clock {
            return self.desk.outcome(intent, self.desk.payment_wait).await;
        }
        // The worker lives in real time: let a little of it pass with each look, and as much on the paused clock.
        let deadline = tokio::time::Instant::now() + self.desk.payment_wait;
        loop {
            let outcome = self.off_clock(self.desk.outcome(intent, Duration::ZERO)).await;
            if outcome != crate::dialogue::PaymentOutcome::Unknown || tokio::time::Instant::now() >= deadline {
                return outcome;
            }
            let _slept = tokio::task::spawn_blocking(|| std::thread::sleep(PAUSED_LOOK)).await;
            tokio::time::sleep(PAUSED_LOOK).await;
        }
    }

    /// Awaits work that other threads do (the database). Under a paused clock tokio would meanwhile leap ahead to the next
    /// timer, as it sees nothing to run; a blocking task in flight keeps it from that. No-op outside tests.
    pub(super) async fn off_clock<T>(&self, work: impl Future<Output = T>) -> T {
        if !self.paused_clock {
            return work.await;
        }
        let (finished, wait) = std::sync::mpsc::channel::<()>();
        let _holds_the_clock = tokio::task::spawn_blocking(move || wait.recv().is_ok());
        let answer = work.await;
        drop(finished);
        answer
    }
}
