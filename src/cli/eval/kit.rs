//! What evaluations judge with: models, thresholds and calibration as the configuration has them.

use super::super::Context;
use super::super::exit::{CliError, Exit};
use super::super::serve::start_error;
use crate::decision::{Calibration, DecisionConfig, Policy};
use crate::eval::EvalError;
use crate::eval::decision::Judges;
use crate::eval::holdout::TrainedOn;
use crate::eval::number::RawThresholds;
use crate::eval::people::People;
use crate::eval::plan::Plan;
use crate::models::Model;
use crate::speech::config::NumberEngineName;
use crate::speech::vad::{VadConfig, VoiceActivity};
use crate::speech::{NumberConfig, NumberEngine, SpeechConfig, SpeechError, load_number_engine};
use crate::voiceprint::{EmbedError, Embedder, VoiceConfig};

/// The sections of the configuration that judge.
#[derive(Debug)]
pub(in crate::cli) struct Sections {
    pub voice: VoiceConfig,
    pub number: NumberConfig,
    pub speech: SpeechConfig,
    pub calibration: Calibration,
    decision: DecisionConfig,
    policy_version: String,
}

/// Everything that whole decisions are judged with, loaded.
pub(in crate::cli) struct Judging {
    embedder: Embedder,
    numbers: Box<dyn NumberEngine>,
    policy: Policy,
    activity: VoiceActivity,
    trained_on: TrainedOn,
    people: People,
}

impl Judging {
    pub fn of(config: &Sections, plan: &Plan) -> Result<Self, CliError> {
        let (embedder, numbers) = (embedder()?, numbers(&config.number, plan.threads, &config.calibration)?);
        Ok(Self {
            policy: config.policy(&embedder, numbers.as_ref())?,
            activity: activity(&config.speech, config.speech.vad.neural)?,
            trained_on: trained_on(&config.number)?,
            people: People::of(&plan.split)?,
            embedder,
            numbers,
        })
    }

    pub fn judges<'a>(&'a self, config: &'a Sections, near_misses: usize) -> Judges<'a> {
        Judges {
            embedder: &self.embedder,
            numbers: self.numbers.as_ref(),
            voice: &config.voice,
            policy: &self.policy,
            calibration: &config.calibration,
            listen: config.speech.card,
            activity: &self.activity,
            trained_on: &self.trained_on,
            people: &self.people,
            near_misses,
        }
    }
}

/// What tells a voice from noise; `neural`: with the network.
pub(in crate::cli) fn activity(speech: &SpeechConfig, neural: bool) -> Result<VoiceActivity, CliError> {
    crate::app::voice_activity(VadConfig { neural, ..speech.vad }).map_err(start_error)
}

impl Sections {
    pub fn of(ctx: &Context) -> Result<Self, CliError> {
        let config = ctx.config()?;
        let calibration = crate::app::calibration(&config).map_err(|e| CliError::new(Exit::Config, e))?;
        Ok(Self {
            voice: config.voice,
            number: config.number,
            speech: config.speech,
            decision: config.decision,
            policy_version: config.dialogue.policy_version,
            calibration,
        })
    }

    pub fn policy(&self, embedder: &Embedder, numbers: &dyn NumberEngine) -> Result<Policy, CliError> {
        self.policy_for(embedder, numbers.name())
    }

    /// Where only voice is measured, any recogniser's thresholds do.
    pub fn voice_policy(&self, embedder: &Embedder) -> Result<Policy, CliError> {
        self.policy_for(embedder, self.calibration.numbers.first().map_or("", |n| n.engine.as_str()))
    }

    fn policy_for(&self, embedder: &Embedder, engine: &str) -> Result<Policy, CliError> {
        let net_ms = self.voice.min_net_speech_ms;
        let voice = embedder.version().as_str();
        Policy::resolve(&self.policy_version, &self.decision, &self.calibration, voice, engine, net_ms)
            .map_err(|e| CliError::new(Exit::Config, e))
    }

    /// Numbers alone are measured by their raw ratios. A recogniser that nobody has calibrated yet is measured from 0 on.
    pub fn raw_number_thresholds(&self, numbers: &dyn NumberEngine) -> RawThresholds {
        let Ok(calibration) = self.calibration.number_for(numbers.name()) else {
            eprintln!("eval: {} has no calibration: numbers are accepted from a log ratio of 0 on", numbers.name());
            return RawThresholds { accept_log_ratio: 0.0, reject_log_ratio: -6.0 };
        };
        let at = |far| calibration.log_ratio(calibration.threshold_at(far).unwrap_or(f32::INFINITY));
        RawThresholds {
            accept_log_ratio: at(self.decision.number_accept_far),
            reject_log_ratio: at(self.decision.number_unsure_far),
        }
    }
}

/// Whom a recogniser heard in training, of the people who may be in the data; Whisper's own training is not known by speaker.
pub(in crate::cli) fn trained_on(config: &NumberConfig) -> Result<TrainedOn, EvalError> {
    match config.engine {
        NumberEngineName::Whisper => Ok(TrainedOn::default()),
        NumberEngineName::Ctc if config.heads.is_empty() => TrainedOn::shipped(),
        NumberEngineName::Ctc => {
            let cards = config.heads.iter().map(|head| TrainedOn::read(&head.with_extension("json")));
            cards.sum()
        }
    }
}

/// The voice model.
pub(in crate::cli) fn embedder() -> Result<Embedder, CliError> {
    let path = Model::CampPlus.path().map_err(|e| CliError::new(Exit::ModelMissing, e))?;
    Embedder::load(&path).map_err(|e| {
        let exit = if matches!(e, EmbedError::Missing { .. }) {
            Exit::ModelMissing
        } else if matches!(e, EmbedError::Corrupt { .. }) {
            Exit::ModelCorrupt
        } else {
            Exit::Eval
        };
        CliError::new(exit, e)
    })
}

/// The recogniser.
pub(in crate::cli) fn numbers(
    config: &NumberConfig,
    threads: usize,
    by: &Calibration,
) -> Result<Box<dyn NumberEngine>, CliError> {
    // The service refuses more recognitions at once than configured; here the threads are the bound.
    let config = NumberConfig { max_at_once: threads.max(1), ..config.clone() };
    let mut engine = load_number_engine(&config, &crate::models::cache_dir()).map_err(|e| {
        let exit = match &e {
            SpeechError::ModelMissing(_) => Exit::ModelMissing,
            SpeechError::ModelCorrupt { .. } | SpeechError::Head { .. } => Exit::ModelCorrupt,
            SpeechError::Overloaded { .. }
            | SpeechError::Unusable(_)
            | SpeechError::Network(_)
            | SpeechError::Inference { .. } => Exit::Eval,
        };
        CliError::new(exit, e)
    })?;
    // A recogniser that the calibration doesn't know can be measured by raw ratios; making a policy for it is refused.
    let _only_raw = engine.calibrate(by);
    Ok(engine)
}
