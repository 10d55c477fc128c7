//! Who calls, as far as the leg tells.

use crate::dialogue::Caller;
use crate::e164::E164;
use crate::media::leg::{Attestation, CallerClaim, LegInfo};

/// By what signalling says and by the signature on it.
pub(super) fn who_calls(info: &LegInfo, default_country: &str) -> Caller {
    let normal = |text: &str| E164::normalise(text, default_country).ok();
    let (text, asserted) = match &info.caller {
        CallerClaim::Asserted(text) => (text, true),
        CallerClaim::Unverified(text) => (text, false),
        CallerClaim::Withheld => return Caller::Withheld,
    };
    let Some(number) = normal(text) else { return Caller::Withheld };
    match info.attestation {
        // A signature that does not hold weighs more than a peer's word: the peer passed the header on.
        Attestation::Failed(_) => Caller::Disputed(number),
        Attestation::Full => Caller::Attested(number),
        // These signers do not vouch for the number.
        Attestation::Partial | Attestation::Gateway | Attestation::Absent if asserted => Caller::Attested(number),
        Attestation::Partial | Attestation::Gateway | Attestation::Absent => Caller::Unattested(number),
    }
}

/// Who calls, for a timeline: numbers in short, as in logs.
pub(super) fn from(caller: &Caller) -> String {
    match caller {
        Caller::Attested(number) => format!("from {number:?}, which is vouched for"),
        Caller::Disputed(number) => format!("from {number:?}, whose signature does not hold"),
        Caller::Unattested(number) => format!("from {number:?}, which nobody vouches for"),
        Caller::Withheld => "from a withheld number".to_owned(),
    }
}

/// What the signature on the caller's number came to, for a timeline.
pub(super) fn signed(attestation: Attestation) -> Option<String> {
    match attestation {
        Attestation::Absent => None,
        Attestation::Failed(fault) => Some(format!("the caller's number: {} ({})", attestation.verstat(), fault.code())),
        Attestation::Full | Attestation::Partial | Attestation::Gateway => {
            Some(format!("the caller's number: {}", attestation.verstat()))
        }
    }
}
