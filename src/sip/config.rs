//! The `[sip]` section of the configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::session_timer::{LEAST_SESSION_INTERVAL_S, Limits};
use super::stir::StirConfig;
use super::trunk::config::{TrunkConfig, UnknownPeers};
use super::wire::WireOptions;
use super::wire::tls::TlsConfig;

/// How calls reach us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SipConfig {
    /// Where SIP over UDP is heard, `ADDRESS:PORT`. The default takes calls from this machine only; `0.0.0.0:5060` is every
    /// interface, `[::]:5060` every interface of IPv4 and IPv6.
    pub listen: SocketAddr,
    /// Is TCP heard there too?
    pub tcp: bool,
    /// The address that peers are told (Contact, SDP) when it isn't the one that the system would choose, e.g. behind
    /// a one-to-one NAT. Unset: the local address that leads to the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_address: Option<IpAddr>,
    /// Peers whose P-Asserted-Identity is believed (RFC 3325), as addresses or networks such as `192.0.2.0/24`.
    /// Everybody else's caller number is what they wrote in From, and counts as unverified.
    pub trusted_peers: Vec<Network>,
    /// Networks whose way to us is ours alone: only there may SIP and RTP go in plain text, beside trunks with
    /// `private = true`. Card numbers are spoken on these lines: everywhere else TLS and SRTP are needed.
    pub private_networks: Vec<Network>,
    /// Callers who are on no trunk: `allow_private` takes those within `private_networks`, `refuse` none (403).
    pub unknown_peers: UnknownPeers,
    /// Calls at a time; the next caller gets 503 with Retry-After.
    pub max_calls: usize,
    /// New calls a second, over a second's burst of as many; what is beyond gets 503 with Retry-After.
    pub max_calls_per_s: u32,
    /// Calls at a time from one caller number; the next gets 486. 0: no limit. Withheld numbers are not counted.
    pub max_calls_per_caller: usize,
    /// Calls at a time to one called number; the next gets 486. 0: no limit.
    pub max_calls_per_called: usize,
    /// What the Retry-After of that 503 says, in seconds.
    pub busy_retry_after_s: u32,
    /// What we call ourselves in User-Agent and Server.
    pub user_agent: String,
    /// How long it rings before we answer, in milliseconds.
    pub ring_ms: u64,
    /// RFC 3261's T1, the round trip that retransmissions start from, in milliseconds. An answer that isn't
    /// acknowledged within 64 times this (32 s) ends its call.
    pub t1_ms: u64,
    /// New requests a second, calls or not, from everybody together; what is beyond gets 503 with Retry-After before anybody
    /// looks at it. One address may use three quarters. Requests of calls under way are not counted.
    pub overload_limit_per_s: u32,
    /// Where every SIP message is written down, card digits, keys and passwords masked, telephone numbers cut to two digits; put
    /// aside as `….1` at 64 MB. Unset: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_file: Option<PathBuf>,
    /// How long a call may go without a sign that the other side still knows it, in seconds (RFC 4028). Half-way it is
    /// confirmed by UPDATE or re-INVITE, by whichever side was agreed; a call that nobody confirms ends.
    pub session_expires_s: u32,
    /// The shortest such time that a peer may ask for, in seconds; less is answered 422. At least 90.
    pub min_session_expires_s: u32,
    /// What callers are asked a password for (the realm of the digest).
    pub realm: String,
    /// DNS servers for trunks' targets, `ADDRESS:PORT`; empty: the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// `[sip.stir]`: signed caller numbers.
    pub stir: StirConfig,
    /// `[sip.tls]`: SIP over TLS.
    pub tls: TlsConfig,
    /// `[[sip.trunk]]`: who calls us and whom we call, on what terms.
    #[serde(rename = "trunk", skip_serializing_if = "Vec::is_empty")]
    pub trunks: Vec<TrunkConfig>,
}

impl Default for SipConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5060),
            tcp: true,
            public_address: None,
            trusted_peers: Vec::new(),
            private_networks: loopback(),
            unknown_peers: UnknownPeers::AllowPrivate,
            max_calls: 32,
            max_calls_per_s: 100,
            max_calls_per_caller: 0,
            max_calls_per_called: 0,
            busy_retry_after_s: 30,
            user_agent: concat!("voicepay/", env!("CARGO_PKG_VERSION")).to_owned(),
            ring_ms: 0,
            t1_ms: 500,
            overload_limit_per_s: 1_000,
            trace_file: None,
            session_expires_s: 1_800,
            min_session_expires_s: LEAST_SESSION_INTERVAL_S,
            realm: "voicepay".to_owned(),
            dns_servers: Vec::new(),
            stir: StirConfig::default(),
            tls: TlsConfig::default(),
            trunks: Vec::new(),
        }
    }
}

fn loopback() -> Vec<Network> {
    vec![
        Network { base: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix_bits: 8 },
        Network { base: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix_bits: 128 },
    ]
}

impl SipConfig {
    /// RFC 3261's T1.
    pub fn t1(&self) -> Duration {
        Duration::from_millis(self.t1_ms.max(1))
    }

    /// What is asked of session timers; what lies below RFC 4028's least is raised to it.
    pub fn session(&self) -> Limits {
        let least_s = self.min_session_expires_s.max(LEAST_SESSION_INTERVAL_S);
        Limits { expires_s: self.session_expires_s.max(least_s), least_s }
    }

    /// What its sockets are bound by.
    pub fn wire(&self) -> WireOptions {
        WireOptions {
            listen: self.listen,
            tcp: self.tcp,
            tls: self.tls.clone(),
            overload_limit_per_s: self.overload_limit_per_s,
            t1: self.t1(),
            trace_file: self.trace_file.clone(),
        }
    }

    /// Is this peer's P-Asserted-Identity believed?
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_peers.iter().any(|n| n.contains(peer))
    }

    /// Is the way to this address ours alone?
    pub fn is_private(&self, peer: IpAddr) -> bool {
        self.private_networks.iter().any(|n| n.contains(peer))
    }
}

/// An address or a network: `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    base: IpAddr,
    prefix_bits: u8,
}

impl PartialEq for Network {
    /// The same addresses, however written: `10.0.0.5/8` is `10.0.0.0/8`.
    fn eq(&self, other: &Self) -> bool {
        self.prefix_bits == other.prefix_bits && self.contains(other.base)
    }
}

impl Network {
    /// One address.
    pub fn single(address: IpAddr) -> Self {
        let base = address.to_canonical();
        Self { base, prefix_bits: if base.is_ipv4() { 32 } else { 128 } }
    }

    /// How narrow it is: bits that are fixed. Only to be compared within one family.
    pub fn prefix_bits(&self) -> u8 {
        self.prefix_bits
    }

    /// Does all of `other` lie in it?
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix_bits <= other.prefix_bits && self.contains(other.base)
    }

    /// Does `address` lie in it? An IPv4 address written as IPv6 (`::ffff:192.0.2.7`) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(a)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(0);
                base.to_bits() & mask == a.to_bits() & mask
            }
            (IpAddr::V6(base), IpAddr::V6(a)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_bits)).unwrap_or(0);
                base.to_bits() & mask == a.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError { given: text.chars().take(60).collect() };
        let (address, prefix) = match text.trim().split_once('/') {
            Some((a, p)) => (a, Some(p)),
            None => (text.trim(), None),
        };
        let base = address.parse::<IpAddr>().map_err(|_| wrong())?.to_canonical();
        let most = if base.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => most,
            Some(p) => p.parse::<u8>().ok().filter(|b| *b <= most).ok_or_else(wrong)?,
        };
        Ok(Self { base, prefix_bits })
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;
    fn try_from(s: String) -> Result<Self, NetworkError> {
        s.parse()
    }
}

impl From<Network> for String {
    fn from(n: Network) -> String {
        n.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix_bits)
    }
}

/// A text that is no network.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("`{given}` is neither an IP address nor a network such as 192.0.2.0/24")]
pub struct NetworkError {
    given: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_own_addresses_only() {
        let n: Network = "192.0.2.0/24".parse().unwrap();
        assert!(n.contains("192.0.2.255".parse().unwrap()));
        assert!(n.contains("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!n.contains("192.0.3.0".parse().unwrap()));
        assert!(!n.contains("2001:db8::1".parse().unwrap()));
        let one: Network = "192.0.2.7".parse().unwrap();
        assert!(one.contains("192.0.2.7".parse().unwrap()) && !one.contains("192.0.2.6".parse().unwrap()));
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.9".parse().unwrap()));
        assert!(n.covers(&"192.0.2.64/26".parse().unwrap()) && !n.covers(&all) && all.covers(&n));
        assert_eq!("192.0.2.9/24".parse::<Network>().unwrap(), n);
        let six: Network = "2001:db8::/32".parse().unwrap();
        assert!(six.contains("2001:db8:ffff::1".parse().unwrap()) && !six.contains("2001:db9::1".parse().unwrap()));
        for bad in ["192.0.2.0/33", "192.0.2", "", "example.org", "192.0.2.0/-1", "192.0.2.0/24/1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_and_defaults_hold() {
        let cfg: SipConfig = toml::from_str("listen = \"0.0.0.0:5070\"\ntrusted_peers = [\"10.0.0.0/8\"]").unwrap();
        assert_eq!(cfg.listen.port(), 5070);
        assert!(cfg.trusts("10.1.2.3".parse().unwrap()) && !cfg.trusts("11.1.2.3".parse().unwrap()));
        assert_eq!(cfg.max_calls, SipConfig::default().max_calls);
        assert!(toml::from_str::<SipConfig>("lisen = \"0.0.0.0:5070\"").unwrap_err().to_string().contains("lisen"));
        assert!(toml::from_str::<SipConfig>("trusted_peers = [\"here\"]").unwrap_err().to_string().contains("here"));
    }
}
