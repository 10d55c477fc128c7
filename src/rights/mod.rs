//! What people may ask about what is held of them, and how long it is: exports, and clocks that erase. Consents are written by the store, in the
//! transactions of what they allow.

mod config;
pub mod export;
pub mod retention;

pub use config::RetentionConfig;
