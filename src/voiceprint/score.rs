//! Centred cosine: both sides minus the mean voice, then the cosine. Centring is steadier across noise than the raw cosine.

use zeroize::Zeroizing;

use super::embedding::{Embedding, ModelVersion};
use super::template::Template;
use crate::decision::VoiceScore;

/// How close an utterance's voice is to a template.
pub fn score(template: &Template, utterance: &Embedding, net_speech_ms: u32) -> Result<VoiceScore, ScoreError> {
    if template.model() != utterance.model() {
        return Err(ScoreError::OtherModel { template: template.model().clone(), now: utterance.model().clone() });
    }
    let unit = centre(utterance).ok_or(ScoreError::NoVoice)?;
    Ok(VoiceScore { cosine: dot(template.centred(), &unit), net_speech_ms, model: utterance.model().to_string() })
}

/// Centred cosine of two utterances of one call, −1 to 1: was the "yes" said by the voice that said the number?
/// −1 (never a match) if they can't be compared.
pub fn continuity(a: &Embedding, b: &Embedding) -> f32 {
    if a.model() != b.model() {
        return -1.0;
    }
    match (centre(a), centre(b)) {
        (Some(a), Some(b)) => dot(&a, &b),
        (None, _) | (_, None) => -1.0,
    }
}

/// Minus the mean voice, scaled to length one. `None` if nothing is left.
pub(super) fn centre(embedding: &Embedding) -> Option<Zeroizing<Vec<f32>>> {
    let mut out = Zeroizing::new(embedding.values().to_vec());
    let length = dot(&out, &out).sqrt();
    if !(length.is_finite() && length > 1e-6) {
        return None;
    }
    for v in out.iter_mut() {
        *v /= length;
    }
    Some(out)
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Why there is no score.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScoreError {
    /// The template was made by another model: it must not be compared.
    #[error("the voice template was made by {template}, this service runs {now}: the voice must be enrolled again")]
    OtherModel {
        /// What made the template.
        template: ModelVersion,
        /// What runs now.
        now: ModelVersion,
    },
    /// No voice in the sound.
    #[error("no voice could be made out")]
    NoVoice,
}
