//! What the service says: the catalogue of texts (`prompts/en.toml`), the recorded pieces (`prompts/en/*.flac`), and how a
//! [`Prompt`](crate::dialogue::prompt::Prompt) becomes sound. `scripts/render-prompts.py` makes the recordings.

pub mod bank;
pub mod catalogue;
pub mod spoken;
pub mod wording;

pub use bank::{Bank, PromptError};
