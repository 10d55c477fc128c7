//! Weights: fetched, verified, converted.
pub mod ggml;
