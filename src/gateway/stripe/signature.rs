//! `Stripe-Signature`: `t=1700000000,v1=HEX[,v1=HEX…]`, HMAC-SHA256 over `t`, a dot and the body as it came
//! (https://docs.stripe.com/webhooks, "verify webhook signatures manually"). Takes the time; does no I/O.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::listen::{Skew, fresh, unix_seconds};
use crate::secret::SecretBytes;

/// A header names no more signatures than this: one for each secret while one is being exchanged.
const SIGNATURES_LIMIT: usize = 8;
/// A header is no longer than this.
const HEADER_LIMIT_BYTES: usize = 2_048;

/// Why a webhook is not believed. None of these tells a forger which secret was nearly right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Forged {
    #[error("the header Stripe-Signature is missing or is not t=…,v1=…")]
    Malformed,
    #[error("no signature in Stripe-Signature fits the body and one of our secrets")]
    NoneFits,
    #[error(transparent)]
    Skew(#[from] Skew),
}

/// Checks a body against its header. The signature goes before the time: only who holds a secret learns anything about our clock.
pub(super) fn check(
    header: Option<&str>,
    body: &[u8],
    secrets: &[SecretBytes],
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), Forged> {
    let header = header.filter(|h| h.len() <= HEADER_LIMIT_BYTES).ok_or(Forged::Malformed)?;
    let (mut at, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", digits)) if at.is_none() => at = Some(digits),
            Some(("t", _)) => return Err(Forged::Malformed),
            Some(("v1", hexed)) if signatures.len() < SIGNATURES_LIMIT => {
                signatures.extend(hex::decode(hexed).ok().filter(|bytes| bytes.len() == 32));
            }
            // Other schemes (v0 is for test events) prove nothing to us.
            Some(_) => {}
            None => return Err(Forged::Malformed),
        }
    }
    let at = at.ok_or(Forged::Malformed)?;
    let seconds = unix_seconds(at).ok_or(Forged::Malformed)?;
    if !secrets.iter().any(|secret| signatures.iter().any(|signature| fits(secret, at, body, signature))) {
        return Err(Forged::NoneFits);
    }
    Ok(fresh(seconds, now, tolerance)?)
}

fn fits(secret: &SecretBytes, at: &str, body: &[u8], signature: &[u8]) -> bool {
    // HMAC takes keys of any length; the comparison takes as long whatever differs.
    mac(secret, at, body).is_some_and(|mac| mac.verify_slice(signature).is_ok())
}

fn mac(secret: &SecretBytes, at: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).ok()?;
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

/// A header as Stripe would send it.
#[cfg(test)]
pub(super) fn sign(secret: &[u8], at: i64, body: &[u8]) -> String {
    let mac = mac(&SecretBytes::new(secret.to_vec()), &at.to_string(), body).unwrap();
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const SECONDS: i64 = 1_700_000_000;
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;

    fn secrets(all: &[&str]) -> Vec<SecretBytes> {
        all.iter().map(|s| SecretBytes::new(s.as_bytes().to_vec())).collect()
    }

    fn check_at(header: &str, body: &[u8], ours: &[&str], now: Timestamp) -> Result<(), Forged> {
        check(Some(header), body, &secrets(ours), now, Duration::from_secs(300))
    }

    #[test]
    fn it_agrees_with_a_signature_that_others_made() {
        // printf '%s' '1700000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test_0123456789
        let header = "t=1700000000,v1=96a6e4147d41eb58c1480c33f2e6c77496783ed0b5e00ff73e862fbca407ecc6,v0=00";
        assert_eq!(check_at(header, BODY, &["whsec_test_0123456789"], NOW), Ok(()));
        assert_eq!(header, sign(b"whsec_test_0123456789", SECONDS, BODY) + ",v0=00");
    }

    #[test]
    fn any_of_our_secrets_and_any_of_its_signatures_will_do() {
        let (old, new) = (sign(b"old", SECONDS, BODY), sign(b"new", SECONDS, BODY));
        assert_eq!(check_at(&old, BODY, &["new", "old"], NOW), Ok(()));
        let both = format!("{old},{}", new.split_once(',').unwrap().1);
        assert_eq!(check_at(&both, BODY, &["new"], NOW), Ok(()));
        assert_eq!(check_at(&old, BODY, &["new"], NOW), Err(Forged::NoneFits), "rolled out");
        assert_eq!(check_at(&old, BODY, &[], NOW), Err(Forged::NoneFits));
    }

    #[test]
    fn time_is_held_to_the_tolerance_on_both_sides() {
        let at = |seconds: i64| check_at(&sign(b"s", seconds, BODY), BODY, &["s"], NOW);
        assert_eq!((at(SECONDS - 300), at(SECONDS + 300)), (Ok(()), Ok(())));
        assert_eq!((at(SECONDS - 301), at(SECONDS + 301)), (Err(Forged::Skew(Skew::Stale)), Err(Forged::Skew(Skew::Future))));
        assert_eq!((at(0), at(i64::MAX)), (Err(Forged::Skew(Skew::Stale)), Err(Forged::Skew(Skew::Future))));
    }

    #[test]
    fn what_is_malformed_or_changed_is_refused() {
        let good = sign(b"s", SECONDS, BODY);
        let moved = good.replace("t=1700000000", "t=1700000001");
        assert_eq!(check_at(&moved, BODY, &["s"], NOW), Err(Forged::NoneFits));
        assert_eq!(check_at(&good, br#"{"id":"evt_2"}"#, &["s"], NOW), Err(Forged::NoneFits));
        let cut = &good[..good.len() - 2];
        assert_eq!(check_at(cut, BODY, &["s"], NOW), Err(Forged::NoneFits));
        let (_, v1) = good.split_once(',').unwrap();
        let doubled = format!("{good},t=1700000000");
        let long = format!("{good},{}", "x=y,".repeat(600));
        for bad in [
            "",
            "t=,v1=00",
            "t=-5,v1=00",
            "t=+5,v1=00",
            "t=1e9,v1=00",
            "garbage",
            v1,
            "t=99999999999999999999,v1=00",
            &doubled,
            &long,
        ] {
            assert_eq!(check_at(bad, BODY, &["s"], NOW), Err(Forged::Malformed), "{bad:.60}");
        }
        assert_eq!(check(None, BODY, &secrets(&["s"]), NOW, Duration::ZERO), Err(Forged::Malformed));
    }

    proptest! {
        #[test]
        fn no_other_header_passes(header in "[tv01=, a-f0-9]{0,120}", body in proptest::collection::vec(any::<u8>(), 0..50)) {
            prop_assert!(check_at(&header, &body, &["s"], NOW).is_err());
        }

        #[test]
        fn one_changed_bit_is_noticed(body in proptest::collection::vec(any::<u8>(), 1..200), at in 0usize..200, bit in 0u8..8) {
            let header = sign(b"s", SECONDS, &body);
            prop_assert_eq!(check_at(&header, &body, &["s"], NOW), Ok(()));
            let mut other = body.clone();
            let at = at % other.len();
            other[at] ^= 1 << bit;
            prop_assert_eq!(check_at(&header, &other, &["s"], NOW), Err(Forged::NoneFits));
        }
    }
}
