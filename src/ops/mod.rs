//! What operators have of a running service: metrics and health over HTTP, call detail records, traces, recordings, and word to
//! the service manager. Knows no other room: what happened is told to it in its own plain types.

pub mod cause; // PURE: why a call ended, in the network's numbers
pub mod cdr; // call detail records
pub mod config; // the section `[ops]`
pub mod http; // metrics and health
pub mod notify; // systemd
pub mod otlp; // traces to a collector
pub mod process; // memory, descriptors, threads
pub mod recording; // two-channel recordings on disk
pub mod trace; // PURE: the spans of a call

pub use config::OpsConfig;
