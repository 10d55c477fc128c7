//! The section `[api]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use axum::http::Uri;
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
    /// Where people reach this listener, `https://pay.example`: what links to the pages begin with. Empty: none are made.
    pub public_url: String,
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
            public_url: String::new(),
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
        rule((1..=720).contains(&self.answer_hours), "answer_hours", "must be 1 to 720")?;
        rule(
            self.public_url.is_empty() || leads_here(&self.public_url),
            "public_url",
            "must begin with https:// (http:// for this machine alone) and name a host, without a name, password, query or fragment; or be empty",
        )
    }
}

impl ApiConfig {
    /// What stands before our paths where a proxy puts this listener below one of its own: the path of `public_url`.
    pub fn public_path(&self) -> &str {
        let url = self.public_url.trim_end_matches('/');
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        authority.find('/').and_then(|at| authority.get(at..)).unwrap_or("")
    }
}

/// No URL that links begin with is longer: a message by SMS is short.
const PUBLIC_URL_LIMIT_CHARS: usize = 200;

/// Whether links may begin with it: whoever has such a link answers in somebody's place, so that it goes over TLS or stays on this machine.
fn leads_here(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let Some(authority) = uri.authority() else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let scheme = uri.scheme_str() == Some("https") || uri.scheme_str() == Some("http") && here;
    scheme
        && !host.is_empty()
        && !authority.as_str().contains('@')
        && !url.contains(['?', '#'])
        && url.len() <= PUBLIC_URL_LIMIT_CHARS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_begin_with_a_url_that_nobody_on_the_way_can_read() {
        let checked = |url: &str| ApiConfig { public_url: url.into(), ..ApiConfig::default() }.check().map_err(|(key, _)| key);
        for good in [
            "",
            "https://pay.example",
            "https://pay.example:8443/",
            "https://pay.example/bills",
            "http://127.0.0.1:8443",
            "http://[::1]:1",
        ] {
            assert_eq!(checked(good), Ok(()), "{good}");
        }
        let path = |url: &str| ApiConfig { public_url: url.into(), ..ApiConfig::default() }.public_path().to_owned();
        assert_eq!(
            (path(""), path("https://pay.example/"), path("https://a.b/bills/x/")),
            (String::new(), String::new(), "/bills/x".into())
        );
        let long = format!("https://{}.example", "a".repeat(200));
        for wrong in [
            "pay.example",
            "http://pay.example",
            "http://192.0.2.1",
            "ftp://pay.example",
            "https://",
            "https://me:word@pay.example",
            "https://pay.example/?a=b",
            "https://pay.example/#top",
            "https://pay example",
            "/l",
            &long,
        ] {
            assert_eq!(checked(wrong), Err("public_url"), "{wrong}");
        }
    }
}
