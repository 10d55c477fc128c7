//! A template that follows its voice by a small step (`decision::refresh` says when), and how far it has come.

use super::embedding::Embedding;
use super::score::{centre, dot};
use super::template::Template;

impl Template {
    /// This template moved towards an utterance of the same voice by `weight`. `None`: another model's embedding, or no direction.
    pub fn stepped(&self, towards: &Embedding, net_speech_ms: u32, weight: f32) -> Option<Self> {
        if towards.model() != self.model() {
            return None;
        }
        let now = centre(towards)?;
        let mut moved: Vec<f32> = self.centred().iter().zip(now.iter()).map(|(a, b)| (1.0 - weight) * a + weight * b).collect();
        let length = dot(&moved, &moved).sqrt();
        if !(length.is_finite() && length > 1e-3) {
            return None;
        }
        moved.iter_mut().for_each(|v| *v /= length);
        Some(Self::new(moved, self.net_speech_ms().saturating_add(net_speech_ms), self.model().clone(), self.recipe()))
    }

    /// How alike two templates are, −1 to 1; NaN across models.
    pub fn likeness(&self, other: &Self) -> f32 {
        if self.model() == other.model() { dot(self.centred(), other.centred()) } else { f32::NAN }
    }
}

#[cfg(test)]
mod tests {
    use super::super::embedding::{EMBEDDING_SIZE, ModelVersion};
    use super::super::template::Recipe;
    use super::*;

    fn along(axis: usize, model: &str) -> Template {
        let mut centred = vec![0.0; EMBEDDING_SIZE];
        centred[axis] = 1.0;
        Template::new(centred, 9_000, ModelVersion::new(model), Recipe::WithBabble)
    }

    fn voice(model: &str) -> Embedding {
        let values = (0..EMBEDDING_SIZE).map(|i| ((i * 37 % 19) as f32) - 9.0).collect();
        Embedding::new(values, ModelVersion::new(model)).unwrap()
    }

    #[test]
    fn a_step_goes_towards_the_voice_and_keeps_the_length_of_one() {
        let (before, towards) = (along(0, "m"), voice("m"));
        let after = before.stepped(&towards, 3_000, 0.1).unwrap();
        let now = centre(&towards).unwrap();
        assert!(dot(after.centred(), &now) > dot(before.centred(), &now));
        assert!((dot(after.centred(), after.centred()) - 1.0).abs() < 1e-5);
        assert!(after.likeness(&before) > 0.98, "a small one");
        assert_eq!(after.net_speech_ms(), 12_000);
        assert!(Template::from_bytes(&after.to_bytes()).is_ok());
    }

    #[test]
    fn nothing_is_mixed_across_models() {
        assert!(along(0, "m").stepped(&voice("other"), 3_000, 0.1).is_none());
        assert!(along(0, "m").likeness(&along(0, "other")).is_nan());
    }
}
