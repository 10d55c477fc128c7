//! Voicepay: an IVR voice-payment service. The rooms below stand in the order in which a call meets them;
//! `ARCHITECTURE.md` walks one call through them and `tests/tidy.rs` holds which room may import which.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]

pub mod bucket; // how much somebody may ask, in the long run and at once
pub mod clock; // the one place that reads the time and the system's randomness
pub mod config; // one TOML, a section a room
pub mod crash; // where a test may kill the process
pub mod e164; // telephone numbers, normalised at the door
pub mod ids; // identifiers that cannot be mixed up
pub mod kernels; // matrix products and what stands between them, by the processor's widest vectors
pub mod language; // what the service speaks
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod listen; // the door of a small HTTP endpoint: few connections at a time, none for long
pub mod money; // minor units with their currency
pub mod secret; // card numbers and other bytes that never print
pub mod signed; // the signature of Standard Webhooks, both ways
pub mod telemetry; // logs: one subscriber, one format

// In a call's path no index and no `as` on what came from outside: both can go wrong without a word.
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod media; // RTP, codecs, jitter buffer, play-out: the `Leg` that every kind of call hands over
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod sip; // signalling: rsipstack behind our trait, SDP
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod speech; // voice activity, end-pointing, whisper
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod voiceprint;
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod webrtc; // browsers: ICE and DTLS-SRTP by the crate of that name, the same media sessions behind it // filterbank, embedding, scoring, enrolment

#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod decision; // PURE: voice + number -> accept | inconclusive | reject
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod dialogue; // PURE: the IVR
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod ledger; // PURE: double entry
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod payment; // PURE: request, intent, attempt

#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod gateway; // acquirers: the sandbox
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod prompts; // what the service says: catalogue, recorded pieces
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod store; // sqlx: SQLite
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod vault; // card numbers sealed at rest

#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod agreement; // who else has to agree, and by what: rules, approvals, codes, mandates
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod api; // REST for payees' own systems
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod app_sessions; // payments that an app's page confirms by voice
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod bank; // a bank that announces deductions: its messages, our journal, its instructions
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod call; // edge of dialogue: one task a call
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod notify; // tenants and customers are told: webhooks, a command for messages
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod ops; // what operators see: metrics, records, traces, recordings
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod processor; // edge of payment and ledger: submit, worker, sweep
#[cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]
pub mod rights; // what people may ask of what is held about them, and how long it is: exports, clocks

pub mod app; // builds and joins everything
pub mod cli; // a file a subcommand
pub mod eval; // measuring on files, no phone
pub mod models; // weights: fetch, verify, convert
pub mod phone; // our own softphone, for demo and tests
