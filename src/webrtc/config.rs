//! The section `[webrtc]` of the configuration.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// Browser calls; every key has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebrtcConfig {
    /// Whether pages may call at all.
    pub enabled: bool,
    /// Local addresses on which audio is received. "0.0.0.0" stands for every address that this machine has, but loopback.
    pub bind_addresses: Vec<IpAddr>,
    /// Addresses that pages are told, where they differ (1:1 NAT of a cloud).
    pub public_addresses: Vec<IpAddr>,
    /// First UDP port; a call takes one of each bind address. 0: any that is free.
    pub port_min: u16,
    /// Last UDP port.
    pub port_max: u16,
    /// How addresses are found out together (RFC 8445): "lite" where pages can reach us, "full" where we are behind a NAT ourselves.
    pub ice: Ice,
    /// STUN and TURN servers that pages are told of; with "full" we ask the STUN servers, too.
    pub ice_servers: Vec<IceServer>,
    /// How long a page may take until audio flows, in milliseconds.
    pub connect_wait_ms: u32,
    /// A page that is silent for this long is taken for lost: its call waits, in milliseconds.
    pub lost_ms: u32,
    /// How long a call waits for a page that was lost, in milliseconds.
    pub reconnect_wait_ms: u32,
    /// Browser calls at once, those being set up included.
    pub max_calls: usize,
}

/// Interactive connectivity establishment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ice {
    /// We answer checks and make none.
    #[default]
    Lite,
    /// We make checks as well.
    Full,
}

/// A STUN or TURN server.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// `stun:HOST[:PORT]`, `turn:HOST[:PORT]?transport=udp`, `turns:…`.
    pub urls: Vec<String>,
    /// Of a TURN server.
    #[serde(default)]
    pub username: String,
    /// Of a TURN server. Pages are told it: it should be good for relaying and nothing else.
    #[serde(default)]
    pub credential: String,
}

impl std::fmt::Debug for IceServer {
    /// Without the credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IceServer({:?})", self.urls)
    }
}

impl Default for WebrtcConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            bind_addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            public_addresses: Vec::new(),
            port_min: 41_000,
            port_max: 41_999,
            ice: Ice::Lite,
            ice_servers: Vec::new(),
            connect_wait_ms: 15_000,
            lost_ms: 3_000,
            reconnect_wait_ms: 7_000,
            max_calls: 200,
        }
    }
}

impl WebrtcConfig {
    /// What a type can't say; the error names the key.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key, what| if ok { Ok(()) } else { Err((key, what)) };
        rule(!self.bind_addresses.is_empty(), "bind_addresses", "must name an address")?;
        rule(self.bind_addresses.len() <= 8, "bind_addresses", "must name 8 addresses at most")?;
        rule(self.public_addresses.len() <= 8, "public_addresses", "must name 8 addresses at most")?;
        let range = self.port_min <= self.port_max && (self.port_min == 0) == (self.port_max == 0);
        rule(range, "port_max", "must not lie below webrtc.port_min; both 0: any port")?;
        rule((1_000..=60_000).contains(&self.connect_wait_ms), "connect_wait_ms", "must be 1000 to 60000")?;
        rule((1_000..=30_000).contains(&self.lost_ms), "lost_ms", "must be 1000 to 30000")?;
        rule((1_000..=60_000).contains(&self.reconnect_wait_ms), "reconnect_wait_ms", "must be 1000 to 60000")?;
        rule((1..=10_000).contains(&self.max_calls), "max_calls", "must be 1 to 10000")?;
        let known = |url: &String| ["stun:", "stuns:", "turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme));
        let servers = self.ice_servers.iter().all(|s| !s.urls.is_empty() && s.urls.iter().all(known));
        rule(servers, "ice_servers", "must have urls that begin with stun:, stuns:, turn: or turns:")?;
        rule(self.ice_servers.len() <= 8, "ice_servers", "must name 8 servers at most")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named_by_its_key() {
        let good = WebrtcConfig::default();
        assert_eq!(good.check(), Ok(()));
        let server = |url: &str| vec![IceServer { urls: vec![url.into()], ..IceServer::default() }];
        let bad = [
            (WebrtcConfig { bind_addresses: Vec::new(), ..good.clone() }, "bind_addresses"),
            (WebrtcConfig { port_max: 40_000, ..good.clone() }, "port_max"),
            (WebrtcConfig { port_min: 0, ..good.clone() }, "port_max"),
            (WebrtcConfig { connect_wait_ms: 10, ..good.clone() }, "connect_wait_ms"),
            (WebrtcConfig { lost_ms: 10, ..good.clone() }, "lost_ms"),
            (WebrtcConfig { reconnect_wait_ms: 0, ..good.clone() }, "reconnect_wait_ms"),
            (WebrtcConfig { max_calls: 0, ..good.clone() }, "max_calls"),
            (WebrtcConfig { ice_servers: server("http://example.com"), ..good.clone() }, "ice_servers"),
        ];
        for (config, key) in bad {
            assert_eq!(config.check().unwrap_err().0, key);
        }
        assert_eq!(WebrtcConfig { ice_servers: server("turn:example.com:3478?transport=udp"), ..good }.check(), Ok(()));
    }
}
