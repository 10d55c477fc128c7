//! From a few utterances to a template: enough speech, and all by one voice.

use super::config::VoiceConfig;
use zeroize::Zeroizing;

use super::centring;
use super::embedding::{EMBEDDING_SIZE, EmbedError, Embedder, Embedding, ModelVersion};
use super::score::{centre, centre_by, dot, scale_to_one};
use super::template::{Recipe, Template};

/// An enrolment under way.
#[derive(Clone, Debug)]
pub struct Enrolment {
    config: VoiceConfig,
    takes: Vec<Take>,
}

/// One utterance of an enrolment.
#[derive(Clone, Debug)]
pub struct Take {
    embedding: Embedding,
    in_babble: Embedding,
    net_speech_ms: u32,
}

impl Take {
    /// From its embedding and that of the same utterance in babble ([`Embedder::embed_in_babble`]), with its speech without pauses.
    pub fn new(embedding: Embedding, in_babble: Embedding, net_speech_ms: u32) -> Self {
        Self { embedding, in_babble, net_speech_ms }
    }

    /// From its sound: mono, 16 kHz, −1 to 1. `seed` says which babble.
    pub fn of(embedder: &Embedder, samples_16k: &[f32], net_speech_ms: u32, seed: u64) -> Result<Self, EmbedError> {
        Ok(Self::new(embedder.embed(samples_16k)?, embedder.embed_in_babble(samples_16k, seed)?, net_speech_ms))
    }

    /// Its voice as it was said.
    pub fn embedding(&self) -> &Embedding {
        &self.embedding
    }
}

/// The direction of a voice: utterances as said and in babble count the same, each centred by `mean`. `None` if nothing is left.
pub(super) fn direction(takes: &[Take], mean: &[f32]) -> Option<Zeroizing<Vec<f32>>> {
    let mut sum = Zeroizing::new(vec![0.0f32; EMBEDDING_SIZE]);
    for embedding in takes.iter().flat_map(|t| [&t.embedding, &t.in_babble]) {
        sum.iter_mut().zip(centre_by(embedding, mean)?.iter()).for_each(|(s, v)| *s += v);
    }
    scale_to_one(&mut sum)?;
    Some(sum)
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

    /// Adds an utterance.
    pub fn add(&mut self, take: Take) -> Result<Added, EnrolmentError> {
        let model = self.takes.first().unwrap_or(&take).embedding.model();
        if take.embedding.model() != model || take.in_babble.model() != model {
            return Err(EnrolmentError::MixedModels);
        }
        self.takes.push(take);
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
        let mean = &centring::compiled_in().ok_or(EnrolmentError::NoVoice)?.mean;
        let direction = direction(&self.takes, mean).ok_or(EnrolmentError::NoVoice)?;
        Ok(Template::new(direction.to_vec(), standing.net_speech_ms, model, Recipe::WithBabble))
    }
}

/// Unless all pairs reach `min_cosine`: the index of the utterance that agrees least with the others.
fn odd_one_out(units: &[Zeroizing<Vec<f32>>], min_cosine: f32) -> Option<usize> {
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
