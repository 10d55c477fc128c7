//! The section `[api]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[api]`: the REST API. Off until it has an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Where it is answered, `ADDRESS:PORT`. Unset: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Our certificate and those between it and its root, PEM. Unset: plain HTTP, which only loopback addresses may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    /// A proxy of ours ends TLS before us on a private network: plain HTTP beyond this machine is allowed.
    pub behind_proxy: bool,
    /// Connections at a time; the next waits.
    pub max_connections: usize,
    /// A body may have so many bytes.
    pub max_body_bytes: usize,
    /// One that brings recordings may have so many.
    pub max_upload_bytes: usize,
    /// So many requests a second one key may make in the long run.
    pub requests_per_s: u32,
    /// So many at once.
    pub burst: u32,
    /// Event streams of calls at a time.
    pub max_streams: usize,
    /// For so many hours an Idempotency-Key is answered the same again.
    pub answer_hours: u32,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: None,
            certificate: None,
            private_key: None,
            behind_proxy: false,
            max_connections: 256,
            max_body_bytes: 65_536,
            max_upload_bytes: 8_388_608,
            requests_per_s: 50,
            burst: 100,
            max_streams: 64,
            answer_hours: 24,
        }
    }
}

impl ApiConfig {
    /// What values can't say alone: the key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key, what| if ok { Ok(()) } else { Err((key, what)) };
        rule(
            self.certificate.is_some() == self.private_key.is_some(),
            "private_key",
            "goes with api.certificate: set both or none",
        )?;
        let plain_beyond = self.certificate.is_none() && !self.behind_proxy && self.listen.is_some_and(|a| !a.ip().is_loopback());
        rule(
            !plain_beyond,
            "certificate",
            "is needed beyond this machine: keys and card numbers go over it; or set api.behind_proxy",
        )?;
        rule((1..=10_000).contains(&self.max_connections), "max_connections", "must be 1 to 10000")?;
        rule((1_024..=1_048_576).contains(&self.max_body_bytes), "max_body_bytes", "must be 1024 to 1048576")?;
        rule(
            self.max_upload_bytes >= self.max_body_bytes && self.max_upload_bytes <= 67_108_864,
            "max_upload_bytes",
            "must be api.max_body_bytes to 67108864",
        )?;
        rule((1..=100_000).contains(&self.requests_per_s), "requests_per_s", "must be 1 to 100000")?;
        rule((1..=100_000).contains(&self.burst), "burst", "must be 1 to 100000")?;
        rule(self.max_streams < self.max_connections, "max_streams", "must be less than api.max_connections: streams stay")?;
        rule((1..=720).contains(&self.answer_hours), "answer_hours", "must be 1 to 720")
    }
}
