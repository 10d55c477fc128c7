//! What to say of audio that cannot be judged: short advice that helps the next try. It speaks of the sound alone, so it tells
//! nothing of voice or number.

use super::input::{UtteranceFacts, UtteranceQuality};
use super::prompt::Again;

/// Whether an utterance can be judged, given how much speech that takes; else why it is asked for again. Asking again costs the caller
/// a breath, a wrong rejection a try.
pub(super) fn unfit(facts: UtteranceFacts, least_speech_ms: u32) -> Option<Again> {
    match facts.quality {
        UtteranceQuality::Good if facts.net_speech_ms >= least_speech_ms => None,
        UtteranceQuality::Good | UtteranceQuality::TooShort => Some(Again::TooShort),
        UtteranceQuality::TooQuiet => Some(Again::TooQuiet),
        UtteranceQuality::Clipped => Some(Again::TooLoud),
        UtteranceQuality::TooNoisy => Some(Again::TooNoisy),
        UtteranceQuality::TwoVoices => Some(Again::TwoVoices),
    }
}

/// The same for words alone, which need no length.
pub(super) fn unfit_for_words(facts: UtteranceFacts) -> Option<Again> {
    match unfit(facts, 0) {
        Some(Again::TooShort) => Some(Again::NotUnderstood),
        other => other,
    }
}
