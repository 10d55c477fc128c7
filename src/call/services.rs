//! What every call shares: models, prompts, the desk, limits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::inference::Inference;
use super::registry::Registry;
use super::timeline::Watched;
use super::work::embed_trouble;
use crate::clock::{Clock, Entropy};
use crate::decision::{Calibration, Policy};
use crate::dialogue::{DialogueConfig, ScoreTrouble};
use crate::prompts::Bank;
use crate::speech::{AnswerEngine, NumberEngine, SpeechConfig, Utterance};
use crate::voiceprint::{Embedder, Embedding, VoiceConfig};

/// Between two looks at a payment on a paused clock.
const PAUSED_LOOK: Duration = Duration::from_millis(10);

/// Shared by all calls.
pub struct Services {
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The store, the vault and the processor, as a call sees them.
    pub desk: Desk,
    /// Who speaks.
    pub embedder: Arc<Embedder>,
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
    /// `[dialogue]`
    pub dialogue: DialogueConfig,
    /// `[speech]`
    pub speech: SpeechConfig,
    /// `[voice]`
    pub voice: VoiceConfig,
    /// `[decision]`, resolved by the calibration.
    pub policy: Policy,
    /// Raw scores to ratios.
    pub calibration: Arc<Calibration>,
    /// `identity.default_country`
    pub default_country: String,
    /// Tests run calls on tokio's paused clock, which leaps to the next timer whenever nothing seems to run; see `off_clock`.
    pub paused_clock: bool,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
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

    /// The embedding of an utterance and how long the network took, in milliseconds.
    pub(super) async fn embed(&self, utterance: Arc<Utterance>) -> Result<(Embedding, u64), ScoreTrouble> {
        let embedder = Arc::clone(&self.embedder);
        let begun = tokio::time::Instant::now();
        let embedding =
            self.inference.run(move || embedder.embed(&utterance.samples_16k)).await?.map_err(|e| embed_trouble(&e))?;
        Ok((embedding, u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)))
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
