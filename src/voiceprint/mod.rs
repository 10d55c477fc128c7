//! Who speaks: filterbank → CAM++ embedding → centred cosine against an enrolled template.
//!
//! One call: `Embedder::embed` on an utterance, `score` against the customer's `Template`, the result goes to `decision`.
//! A voice identifies nobody by itself; the thresholds in [`VoiceConfig`] say what was measured and on what.

mod babble;
mod band;
pub mod calibrate;
mod campplus;
pub mod centring;
mod config;
mod conv;
mod dense;
mod embedding;
mod enrolment;
pub mod fbank;
pub mod fingerprint;
mod follow;
mod score;
mod template;

pub use config::VoiceConfig;
pub use embedding::{EMBEDDING_SIZE, EmbedError, Embedder, Embedding, ModelVersion};
pub use enrolment::{Added, Enrolment, EnrolmentError, Take};
pub use score::{Conditions, ScoreError, continuity, score};
pub use template::{Recipe, Template, TemplateError};
