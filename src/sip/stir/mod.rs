//! STIR/SHAKEN: is the caller's number really theirs? An Identity header (RFC 8224) carries a signed statement about the call, a
//! PASSporT (RFC 8225, RFC 8588); its certificate (RFC 8226) is fetched from where the header says and must lead to a root of
//! ours.
//!
//! What a header meets: `header` (grammar) → `passport` (what is signed) → `statement` (is it about this call, and fresh?) →
//! `fetch` (the certificate, the only step with a socket) → `chain`, `tn_auth_list` (may it sign for this number?) → the
//! signature → `used` (no other call came with it). `verifier` goes through these for an INVITE and makes an [`Attestation`]. Certificates are checked against a list
//! of revoked ones only where `crl_file` names one; nothing is fetched for that.

use crate::media::leg::{Attestation, AttestationFault};

pub mod chain; // PURE: certificates up to a root
pub mod config; // the section `[sip.stir]`
pub mod header; // PURE: the grammar of Identity
pub mod http; // PURE: what a certificate's server answers
pub mod passport; // PURE: the signed statement
pub mod sign; // making an Identity header: our softphone, tests
pub mod statement; // PURE: is it about this call?
pub mod tn_auth_list; // PURE: which numbers a certificate may sign for
pub mod url; // PURE: where a certificate may be fetched

mod cache; // PURE: what was fetched
mod fetch; // the edge: HTTPS
mod used; // PURE: which statements calls have come with
mod verifier; // an INVITE to its verdict

pub use config::{StirConfig, StirMode};
pub use verifier::{StirError, Verifier};

/// Why an Identity header does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Invalid {
    /// What is to blame.
    pub fault: AttestationFault,
    /// One clause for logs and for the Warning of a refusal; holds nothing of the message.
    pub why: &'static str,
}

impl Invalid {
    pub(crate) const fn new(fault: AttestationFault, why: &'static str) -> Self {
        Self { fault, why }
    }
}

impl From<Invalid> for Attestation {
    fn from(invalid: Invalid) -> Self {
        Self::Failed(invalid.fault)
    }
}

#[cfg(test)]
mod authority; // a certification authority for tests
#[cfg(test)]
mod verdict_tests; // every verdict, and what tampering comes to
#[cfg(test)]
mod wire_tests; // over a real INVITE and a real HTTPS server
