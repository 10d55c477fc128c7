//! From a few utterances to a template: enough speech, and all by one voice.

use super::config::VoiceConfig;
use super::embedding::{Embedding, ModelVersion};
use super::score::{centre, dot};
use super::template::Template;

/// An enrolment under way.
#[derive(Clone, Debug)]
pub struct Enrolment {
    config: VoiceConfig,
    takes: Vec<Take>,
}

#[derive(Clone, Debug)]
struct Take {
    embedding: Embedding,
    net_speech_ms: u32,
}

/// Where an enrolment stands after an utterance was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Utterances so far.
    pub utterances: u32,
    /// Speech so far, in milliseconds without pauses.
    pub net_speech_ms: u32,
    /// Nothing more is needed: `finish` will look at agreement only.
    pub enough: bool,
}

impl Enrolment {
    /// Nothing said yet.
    pub fn new(config: VoiceConfig) -> Self {
        Self { config, takes: Vec::new() }
    }

    /// Adds an utterance's embedding with its speech without pauses.
    pub fn add(&mut self, embedding: Embedding, net_speech_ms: u32) -> Result<Added, EnrolmentError> {
        if let Some(first) = self.takes.first()
            && first.embedding.model() != embedding.model()
        {
            return Err(EnrolmentError::MixedModels);
        }
        self.takes.push(Take { embedding, net_speech_ms });
        Ok(self.standing())
    }

    /// How close this embedding is to the one of the utterances so far that it agrees with least, as a centred cosine;
    /// `None` before the first.
    pub fn least_agreement(&self, embedding: &Embedding) -> Option<f32> {
        self.takes.iter().map(|take| super::score::continuity(&take.embedding, embedding)).reduce(f32::min)
    }

    /// Takes the utterance of this index (from zero, in the order added) out again, to be replaced by a repeat.
    pub fn remove(&mut self, index: usize) {
        if index < self.takes.len() {
            self.takes.remove(index);
        }
    }

    /// Where it stands.
    pub fn standing(&self) -> Added {
        let net_speech_ms = self.takes.iter().fold(0u32, |sum, t| sum.saturating_add(t.net_speech_ms));
        let utterances = u32::try_from(self.takes.len()).unwrap_or(u32::MAX);
        let enough = utterances >= self.config.enrol_min_utterances && net_speech_ms >= self.config.enrol_min_net_speech_ms;
        Added { utterances, net_speech_ms, enough }
    }

    /// The template, or what is missing and which utterance to say again. The enrolment stays as it is, so that it can go on.
    pub fn finish(&self) -> Result<Template, EnrolmentError> {
        let standing = self.standing();
        let (Some(first), true) = (self.takes.first(), standing.enough) else {
            return Err(EnrolmentError::TooLittle {
                got_ms: standing.net_speech_ms,
                need_ms: self.config.enrol_min_net_speech_ms,
                got_utterances: standing.utterances,
                need_utterances: self.config.enrol_min_utterances,
            });
        };
        let model: ModelVersion = first.embedding.model().clone();
        let units = self.takes.iter().map(|t| centre(&t.embedding)).collect::<Option<Vec<_>>>();
        let units = units.ok_or(EnrolmentError::NoVoice)?;
        if let Some(repeat) = odd_one_out(&units, self.config.enrol_agree_min_cosine) {
            return Err(EnrolmentError::Disagree { repeat });
        }
        let mut mean = zeroize::Zeroizing::new(vec![0.0f32; super::embedding::EMBEDDING_SIZE]);
        for unit in &units {
            for (m, v) in mean.iter_mut().zip(unit.iter()) {
                *m += v;
            }
        }
        let length = dot(&mean, &mean).sqrt();
        if !(length.is_finite() && length > 1e-6) {
            return Err(EnrolmentError::NoVoice);
        }
        Ok(Template::new(mean.iter().map(|v| v / length).collect(), standing.net_speech_ms, model))
    }
}

/// Unless all pairs reach `min_cosine`: the index of the utterance that agrees least with the others.
fn odd_one_out(units: &[zeroize::Zeroizing<Vec<f32>>], min_cosine: f32) -> Option<usize> {
    let mut disagree = false;
    let mut worst: Option<(usize, f32)> = None;
    for (i, a) in units.iter().enumerate() {
        let mut sum = 0.0;
        for (j, b) in units.iter().enumerate() {
            if i != j {
                let cosine = dot(a, b);
                disagree |= cosine.is_nan() || cosine < min_cosine;
                sum += cosine;
            }
        }
        if worst.is_none_or(|(_, least)| sum < least) {
            worst = Some((i, sum));
        }
    }
    disagree.then(|| worst.map_or(0, |(i, _)| i))
}

/// Why there is no template yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// More speech is needed.
    #[error(
        "{got_utterances} utterances with {got_ms} ms of speech are too little for an enrolment: {need_utterances} with {need_ms} ms in all are needed"
    )]
    TooLittle {
        /// Speech so far.
        got_ms: u32,
        /// Speech needed.
        need_ms: u32,
        /// Utterances so far.
        got_utterances: u32,
        /// Utterances needed.
        need_utterances: u32,
    },
    /// The utterances are not clearly by one voice.
    #[error("utterance {} does not sound like the others: say it again", repeat + 1)]
    Disagree {
        /// Which to say again, from zero, in the order added.
        repeat: usize,
    },
    /// The utterances were embedded by different models.
    #[error("utterances embedded by different voice models can't make one template: start the enrolment again")]
    MixedModels,
    /// No voice in the sound.
    #[error("no voice could be made out: start the enrolment again")]
    NoVoice,
}
