//! Centred cosine: both sides minus the mean voice, then the cosine. Centring is steadier across noise than the raw cosine.

use zeroize::Zeroizing;

use super::embedding::{Embedding, ModelVersion};
use super::template::Template;
use crate::decision::VoiceScore;
use crate::decision::calibration::VoiceCalibration;

/// How an utterance was made, as far as it bears on what a score says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Speech without pauses, in milliseconds.
    pub net_speech_ms: u32,
    /// Estimated distance of speech from noise, in dB.
    pub snr_db: f32,
}

/// How close an utterance's voice is to a template, and what that says by this calibration (`version`: its name).
pub fn score(
    template: &Template,
    utterance: &Embedding,
    made: Conditions,
    calibration: &VoiceCalibration,
    version: &str,
) -> Result<VoiceScore, ScoreError> {
    if template.model() != utterance.model() {
        return Err(ScoreError::OtherModel { template: template.model().clone(), now: utterance.model().clone() });
    }
    let unit = centre(utterance).ok_or(ScoreError::NoVoice)?;
    let cosine = dot(template.centred(), &unit);
    let Conditions { net_speech_ms, snr_db } = made;
    Ok(VoiceScore {
        cosine,
        llr: calibration.llr(cosine, net_speech_ms, snr_db),
        net_speech_ms,
        snr_db,
        model: utterance.model().to_string(),
        calibration: version.to_owned(),
    })
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

/// To length one, minus the mean voice, to length one again. `None` if nothing is left (or there is no mean).
pub(super) fn centre(embedding: &Embedding) -> Option<Zeroizing<Vec<f32>>> {
    centre_by(embedding, &super::centring::compiled_in()?.mean)
}

/// The same with another mean voice.
pub(super) fn centre_by(embedding: &Embedding, mean: &[f32]) -> Option<Zeroizing<Vec<f32>>> {
    let mut out = Zeroizing::new(embedding.values().to_vec());
    scale_to_one(&mut out)?;
    for (v, mean) in out.iter_mut().zip(mean) {
        *v -= mean;
    }
    scale_to_one(&mut out)?;
    Some(out)
}

pub(super) fn scale_to_one(x: &mut [f32]) -> Option<()> {
    let length = dot(x, x).sqrt();
    if !(length.is_finite() && length > 1e-6) {
        return None;
    }
    x.iter_mut().for_each(|v| *v /= length);
    Some(())
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

#[cfg(test)]
mod tests {
    use super::super::config::VoiceConfig;
    use super::super::embedding::EMBEDDING_SIZE;
    use super::super::enrolment::{Enrolment, EnrolmentError, Take};
    use super::super::template::{Recipe, TemplateError};
    use super::*;

    /// A voice: a direction of its own, a little blurred by `take`.
    fn said(voice: usize, take: usize, model: &str) -> Embedding {
        let mut v = vec![0.01f32; EMBEDDING_SIZE];
        v[voice] += 3.0;
        v[100 + take] += 0.3;
        Embedding::new(v, ModelVersion::new(model)).unwrap()
    }

    fn taken(voice: usize, take: usize, model: &str, net_speech_ms: u32) -> Take {
        Take::new(said(voice, take, model), said(voice, take + 40, model), net_speech_ms)
    }

    fn enrolled(voice: usize) -> Template {
        let mut enrolment = Enrolment::new(VoiceConfig::default());
        for take in 0..3 {
            enrolment.add(taken(voice, take, "m", 4_000)).unwrap();
        }
        enrolment.finish().unwrap()
    }

    fn score(template: &Template, utterance: &Embedding, net_speech_ms: u32) -> Result<VoiceScore, ScoreError> {
        let c = crate::decision::Calibration::compiled_in().unwrap();
        super::score(template, utterance, Conditions { net_speech_ms, snr_db: 25.0 }, &c.voice, &c.version)
    }

    #[test]
    fn the_compiled_in_calibration_is_for_the_shipped_weights_and_mean() {
        let c = crate::decision::Calibration::compiled_in().unwrap();
        let centring = super::super::centring::compiled_in().unwrap();
        assert!(c.voice.model.contains(&centring.weights) && c.voice.model.ends_with(&centring.version), "{}", c.voice.model);
    }

    #[test]
    fn a_voice_is_close_to_its_own_template_and_far_from_another() {
        let template = enrolled(3);
        let own = score(&template, &said(3, 7, "m"), 5_000).unwrap();
        assert!(own.cosine > 0.9 && own.cosine <= 1.0 + 1e-5, "{}", own.cosine);
        assert_eq!((own.net_speech_ms, own.model.as_str()), (5_000, "m"));
        assert!(score(&template, &said(4, 7, "m"), 5_000).unwrap().cosine < 0.4);
        assert!(continuity(&said(3, 1, "m"), &said(3, 2, "m")) > 0.9);
        assert!(continuity(&said(3, 1, "m"), &said(9, 2, "m")) < 0.4);
    }

    #[test]
    fn a_template_of_another_model_is_refused_and_both_are_named() {
        let error = score(&enrolled(3), &said(3, 7, "n"), 5_000).unwrap_err();
        assert_eq!(error.to_string(), "the voice template was made by m, this service runs n: the voice must be enrolled again");
        assert!((continuity(&said(3, 1, "m"), &said(3, 1, "n")) + 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_template_survives_its_bytes_and_damage_is_noticed() {
        let template = enrolled(3);
        let bytes = template.to_bytes();
        let again = Template::from_bytes(&bytes).unwrap();
        assert_eq!((again.centred(), again.model(), again.net_speech_ms()), (template.centred(), template.model(), 12_000));
        // As it was stored before enrolments knew babble: it is read, and told apart.
        let mut older = bytes.to_vec();
        older[0] = 1;
        let older = Template::from_bytes(&older).unwrap();
        assert_eq!((older.centred(), older.recipe(), again.recipe()), (template.centred(), Recipe::AsSaid, Recipe::WithBabble));
        assert!(score(&older, &said(3, 7, "m"), 5_000).unwrap().cosine > 0.9);
        for cut in 0..bytes.len() {
            assert!(Template::from_bytes(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        let mut other = bytes.to_vec();
        other[0] = 9;
        assert_eq!(Template::from_bytes(&other).unwrap_err(), TemplateError::Format { got: 9 });
        let mut scaled = bytes.to_vec();
        let last = scaled.len() - 1;
        scaled[last] = 0x7f;
        assert!(Template::from_bytes(&scaled).is_err());
    }

    #[test]
    fn an_enrolment_asks_for_more_speech_then_for_the_utterance_that_does_not_fit() {
        let mut enrolment = Enrolment::new(VoiceConfig::default());
        assert!(!enrolment.add(taken(3, 0, "m", 2_000)).unwrap().enough);
        enrolment.add(taken(3, 1, "m", 2_000)).unwrap();
        enrolment.add(taken(5, 2, "m", 3_999)).unwrap();
        let missing = EnrolmentError::TooLittle { got_ms: 7_999, need_ms: 8_000, got_utterances: 3, need_utterances: 3 };
        assert_eq!(enrolment.finish().unwrap_err(), missing);
        assert!(enrolment.add(taken(3, 3, "m", 3_000)).unwrap().enough);
        let odd = enrolment.finish().unwrap_err();
        assert_eq!(odd, EnrolmentError::Disagree { repeat: 2 });
        assert!(odd.to_string().starts_with("utterance 3 "), "people count from one: {odd}");
        enrolment.remove(2);
        enrolment.add(taken(3, 2, "m", 4_000)).unwrap();
        assert!(enrolment.finish().is_ok());
        assert_eq!(enrolment.add(taken(3, 2, "n", 4_000)).unwrap_err(), EnrolmentError::MixedModels);
    }

    #[test]
    fn a_template_holds_the_voice_as_said_and_in_babble_alike() {
        let mut enrolment = Enrolment::new(VoiceConfig::default());
        for take in 0..3 {
            enrolment.add(Take::new(said(3, take, "m"), said(5, take, "m"), 4_000)).unwrap();
        }
        let template = enrolment.finish().unwrap();
        let [clean, noisy] = [3, 5].map(|v| score(&template, &said(v, 7, "m"), 5_000).unwrap().cosine);
        assert!(clean > 0.6 && (clean - noisy).abs() < 0.05, "{clean} {noisy}");
        assert_eq!(enrolment.add(Take::new(said(3, 0, "m"), said(3, 0, "n"), 1)).unwrap_err(), EnrolmentError::MixedModels);
    }

    #[test]
    fn voices_never_print() {
        let mut enrolment = Enrolment::new(VoiceConfig::default());
        enrolment.add(taken(3, 0, "m", 2_000)).unwrap();
        let printed = format!("{:?} {:?} {:?}", said(3, 0, "m"), enrolled(3), enrolment);
        assert!(!printed.contains("3.0") && !printed.contains("0.3") && !printed.contains("0.01"), "{printed}");
    }
}
