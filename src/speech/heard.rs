//! What an engine made of an utterance, kept so that reading and scoring cost little: made once, at a pause or at the end.

use std::any::Any;

use super::SpeechError;

/// An utterance as its engine heard it (posteriors, or the state of a decoder). What is inside zeroises itself as far as it is ours
/// (whisper.cpp's own memory is not); `Debug` shows nothing of it.
pub struct Heard(Box<dyn Any + Send + Sync>);

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Heard(…)")
    }
}

impl Heard {
    /// For an engine's own use: wraps whatever it needs to read and to score.
    pub fn new(inside: impl Any + Send + Sync) -> Self {
        Self(Box::new(inside))
    }

    /// What an engine put in; an error if another engine did.
    pub fn inside<T: Any>(&self) -> Result<&T, SpeechError> {
        self.0.downcast_ref().ok_or(SpeechError::Unusable("another engine heard it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_engine_that_heard_it_can_read_it_and_debug_hides_it() {
        let heard = Heard::new(String::from("4111"));
        assert_eq!(heard.inside::<String>().unwrap(), "4111");
        assert!(matches!(heard.inside::<Vec<u8>>(), Err(SpeechError::Unusable(_))));
        assert_eq!(format!("{heard:?}"), "Heard(…)");
    }
}
