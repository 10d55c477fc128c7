//! The shared-secret signature of Standard Webhooks (`v1`): HMAC-SHA256 over `id.timestamp.body`. Banks sign so what they send us, and we
//! what we send to tenants. https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::secret::SecretBytes;

/// Header with the message's identifier.
pub const ID_HEADER: &str = "webhook-id";
/// Header with the time of signing, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with the signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// What is signed.
pub fn content(id: &str, at: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", at.as_bytes(), b".", body].concat()
}

/// Its code under a shared secret; `None` for a secret that is none.
pub fn mac(secret: &SecretBytes, content: &[u8]) -> Option<Hmac<Sha256>> {
    Some(Hmac::<Sha256>::new_from_slice(secret.expose()).ok()?.chain_update(content))
}

/// One signature as it stands in [`SIGNATURE_HEADER`].
pub fn sign_shared(secret: &SecretBytes, id: &str, seconds: i64, body: &[u8]) -> Option<String> {
    let mac = mac(secret, &content(id, &seconds.to_string(), body))?;
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_signature_is_the_specifications() {
        let secret = SecretBytes::new(STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let signed = sign_shared(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
