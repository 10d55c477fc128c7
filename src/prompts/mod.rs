//! What the service says: the catalogue of texts (`prompts/en.toml`, `zh.toml`), the recorded pieces (`prompts/en/*.flac`, `zh/`), and how a
//! [`Prompt`](crate::dialogue::prompt::Prompt) becomes sound. `scripts/render-prompts.py` makes the recordings.

pub mod bank;
pub mod catalogue;
pub mod mandarin;
pub mod spoken;
pub mod wording;

pub use bank::{Bank, Book, Pace, PromptError};
