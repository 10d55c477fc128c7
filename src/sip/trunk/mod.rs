//! Trunks: who may send us calls and on what terms, where our own calls go, and whether those places are there.

pub mod config; // PURE: `[[sip.trunk]]`
pub mod door; // PURE: passwords of callers
pub mod target; // PURE: hosts and ports
pub mod terms; // PURE: whose call it is, and on what terms
