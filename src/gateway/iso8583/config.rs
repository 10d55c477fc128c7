//! `[gateway.iso8583]`: which bank hosts, how messages travel there, and how long anybody waits.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::frame::Framing;

/// More hosts than anybody has.
const HOSTS_LIMIT: usize = 16;
/// The longest header between length and message, in bytes.
const HEADER_LIMIT_BYTES: usize = 64;

/// `[gateway.iso8583]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Iso8583Config {
    /// The bank's hosts, `HOST:PORT`, the one to prefer first. All of them keep the same books.
    pub hosts: Vec<String>,
    /// Whether the hosts are spoken to over TLS.
    pub tls: bool,
    /// Addresses of hosts that the way to is ours alone (own line, VPN): only there and on this machine may TLS be off.
    pub private_hosts: Vec<IpAddr>,
    /// PEM file with the authorities that vouch for the hosts' certificates.
    pub tls_ca: PathBuf,
    /// The name in the hosts' certificates. Unset: the name in `hosts`.
    pub tls_name: Option<String>,
    /// PEM file with our certificate, where the hosts ask for one.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_private_key: Option<PathBuf>,
    /// The dialect: a file such as `config/iso8583-1987.toml`. Unset: that one, which is compiled in.
    pub spec: Option<PathBuf>,
    /// The length before each message: `binary2`, `binary4` (high byte first) or `ascii4`.
    pub length_prefix: LengthPrefix,
    /// Whether that length counts its own bytes.
    pub length_counts_itself: bool,
    /// What stands between length and message, in hexadecimal (`6000010000`); empty: nothing. In answers as many bytes are
    /// skipped.
    pub header: String,
    /// Our terminal there (field 41): 1 to 8 characters.
    pub terminal_id: String,
    /// The merchant there (field 42): 1 to 15 characters.
    pub merchant_id: String,
    /// The acquiring institution (field 32): 1 to 11 digits.
    pub acquirer_id: String,
    /// How far local time (fields 12 and 13) is before UTC, in minutes; negative behind it.
    pub local_offset_min: i16,
    /// Whether a connection begins with a sign-on (0800 with 001 in field 70).
    pub sign_on: bool,
    /// How long connecting, TLS and sign-on may take each, in milliseconds. A payment waits as long for a host to come back.
    pub connect_timeout_ms: u64,
    /// How long the host may take to accept what is written, in milliseconds.
    pub write_timeout_ms: u64,
    /// How long an answer may take, in milliseconds; then it counts as lost. Less than `processor.gateway_timeout_ms`.
    pub response_timeout_ms: u64,
    /// A line on which nothing was heard for so long is tried with an echo (0800 with 301 in field 70), in milliseconds.
    pub echo_interval_ms: u64,
    /// The first wait before connecting again, in milliseconds; it doubles with each failure.
    pub reconnect_min_ms: u64,
    /// The longest such wait, in milliseconds.
    pub reconnect_max_ms: u64,
    /// Requests that may wait for a host's line; one more is not sent.
    pub queue_limit: u32,
    /// Requests that may wait for answers on a line; more stay in the queue.
    pub in_flight_limit: u32,
    /// How long after it was sent a request may still reach the host, in milliseconds: before that, a host that knows of nothing
    /// to reverse is asked again.
    pub late_arrival_ms: u64,
}

impl Default for Iso8583Config {
    fn default() -> Self {
        Self {
            hosts: vec![],
            tls: true,
            private_hosts: vec![],
            tls_ca: "/etc/ssl/certs/ca-certificates.crt".into(),
            tls_name: None,
            tls_certificate: None,
            tls_private_key: None,
            spec: None,
            length_prefix: LengthPrefix::Binary2,
            length_counts_itself: false,
            header: String::new(),
            terminal_id: String::new(),
            merchant_id: String::new(),
            acquirer_id: String::new(),
            local_offset_min: 0,
            sign_on: true,
            connect_timeout_ms: 3_000,
            write_timeout_ms: 2_000,
            response_timeout_ms: 10_000,
            echo_interval_ms: 60_000,
            reconnect_min_ms: 500,
            reconnect_max_ms: 30_000,
            queue_limit: 256,
            in_flight_limit: 128,
            late_arrival_ms: 60_000,
        }
    }
}

/// How the length before a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthPrefix {
    /// Two bytes, high first.
    Binary2,
    /// Four bytes, high first.
    Binary4,
    /// Four ASCII digits.
    Ascii4,
}

/// A key that can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key `gateway.iso8583.{key}`: {what}")]
pub struct ConfigFault {
    /// Within `gateway.iso8583`.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub what: String,
}

impl Iso8583Config {
    /// What a type can't say. Card numbers go over these lines: without TLS only to this machine, or to an address that is listed
    /// as private.
    pub fn check(&self) -> Result<(), ConfigFault> {
        let rule = |ok: bool, key: &'static str, what: &str| if ok { Ok(()) } else { Err(fault(key, what)) };
        rule((1..=HOSTS_LIMIT).contains(&self.hosts.len()), "hosts", "must name 1 to 16 hosts, as in [\"bank.example:5000\"]")?;
        for host in &self.hosts {
            let (name, _) = split_host(host).ok_or_else(|| fault("hosts", format!("`{host}` is not HOST:PORT")))?;
            if self.tls {
                continue;
            }
            let Ok(address) = host.parse::<SocketAddr>() else {
                let what = format!("is false, and `{name}` is a name: it may lead anywhere. Use TLS, or the host's address");
                return Err(fault("tls", what));
            };
            if !self.is_private(address.ip()) {
                let what = format!(
                    "is false, and card numbers would go to {address} in plain text: use TLS, or list {} in \
                     gateway.iso8583.private_hosts if the way there is yours alone",
                    address.ip()
                );
                return Err(fault("tls", what));
            }
        }
        rule(
            self.tls_certificate.is_some() == self.tls_private_key.is_some(),
            if self.tls_certificate.is_some() { "tls_private_key" } else { "tls_certificate" },
            "is unset, but its other half is set",
        )?;
        let text = |t: &str, most: usize| (1..=most).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic());
        rule(text(&self.terminal_id, 8), "terminal_id", "must be 1 to 8 ASCII characters, as the bank has given it")?;
        rule(text(&self.merchant_id, 15), "merchant_id", "must be 1 to 15 ASCII characters, as the bank has given it")?;
        let digits = (1..=11).contains(&self.acquirer_id.len()) && self.acquirer_id.bytes().all(|b| b.is_ascii_digit());
        rule(digits, "acquirer_id", "must be 1 to 11 digits, as the bank has given it")?;
        self.framing()?;
        rule((-840..=840).contains(&self.local_offset_min), "local_offset_min", "must be -840 to 840")?;
        for (key, value) in [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("write_timeout_ms", self.write_timeout_ms),
            ("response_timeout_ms", self.response_timeout_ms),
            ("echo_interval_ms", self.echo_interval_ms),
            ("reconnect_min_ms", self.reconnect_min_ms),
        ] {
            rule((10..=3_600_000).contains(&value), key, "must be 10 to 3600000")?;
        }
        rule(
            (self.reconnect_min_ms..=3_600_000).contains(&self.reconnect_max_ms),
            "reconnect_max_ms",
            "must be reconnect_min_ms to 3600000",
        )?;
        rule((1..=65_536).contains(&self.queue_limit), "queue_limit", "must be 1 to 65536")?;
        rule((1..=65_536).contains(&self.in_flight_limit), "in_flight_limit", "must be 1 to 65536")?;
        rule(self.late_arrival_ms <= 86_400_000, "late_arrival_ms", "must be at most 86400000, a day")
    }

    /// Whether plain text may go there.
    pub fn is_private(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.private_hosts.contains(&address)
    }

    /// How messages are set apart.
    pub fn framing(&self) -> Result<Framing, ConfigFault> {
        let header = hex::decode(&self.header).ok().filter(|h| h.len() <= HEADER_LIMIT_BYTES);
        let header = header.ok_or_else(|| fault("header", "must be at most 64 bytes in hexadecimal, as in 6000010000"))?;
        Ok(Framing { prefix: self.length_prefix, counts_itself: self.length_counts_itself, header })
    }

    /// The paths that may be relative to the data directory.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let set = self.tls_certificate.iter_mut().chain(&mut self.tls_private_key).chain(&mut self.spec);
        set.chain(std::iter::once(&mut self.tls_ca))
    }
}

/// Name and port of `HOST:PORT`; an IPv6 address stands in brackets.
pub(super) fn split_host(host: &str) -> Option<(&str, u16)> {
    let (name, port) = host.rsplit_once(':')?;
    let name = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let port = port.parse().ok().filter(|p| *p > 0)?;
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some((name, port))
}

pub(super) fn fault(key: &'static str, what: impl Into<String>) -> ConfigFault {
    ConfigFault { key, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Iso8583Config {
        Iso8583Config {
            hosts: vec!["bank.example:5000".into()],
            terminal_id: "VOICE001".into(),
            merchant_id: "M1".into(),
            acquirer_id: "123456".into(),
            ..Iso8583Config::default()
        }
    }

    #[test]
    fn plain_text_is_for_this_machine_and_for_private_hosts() {
        assert_eq!(well().check(), Ok(()));
        let plain = |host: &str| Iso8583Config { tls: false, hosts: vec![host.into()], ..well() };
        for ours in ["127.0.0.1:5000", "[::1]:5000"] {
            assert_eq!(plain(ours).check(), Ok(()));
        }
        for open in ["192.0.2.7:5000", "bank.example:5000", "localhost:5000"] {
            let told = plain(open).check().unwrap_err();
            assert_eq!(told.key, "tls", "{open}");
        }
        assert!(plain("192.0.2.7:5000").check().unwrap_err().to_string().contains("gateway.iso8583.private_hosts"));
        let listed = Iso8583Config { private_hosts: vec!["192.0.2.7".parse().unwrap()], ..plain("192.0.2.7:5000") };
        assert_eq!(listed.check(), Ok(()));
        let second = Iso8583Config { hosts: vec!["127.0.0.1:1".into(), "192.0.2.8:1".into()], ..listed };
        assert_eq!(second.check().unwrap_err().key, "tls", "each host is looked at");
    }

    #[test]
    fn what_can_not_work_names_its_key() {
        let of = |change: fn(&mut Iso8583Config)| {
            let mut c = well();
            change(&mut c);
            c.check().unwrap_err().key
        };
        assert_eq!(of(|c| c.hosts.clear()), "hosts");
        assert_eq!(of(|c| c.hosts = vec!["bank".into()]), "hosts");
        assert_eq!(of(|c| c.terminal_id = "123456789".into()), "terminal_id");
        assert_eq!(of(|c| c.merchant_id.clear()), "merchant_id");
        assert_eq!(of(|c| c.acquirer_id = "12a".into()), "acquirer_id");
        assert_eq!(of(|c| c.header = "6".into()), "header");
        assert_eq!(of(|c| c.response_timeout_ms = 0), "response_timeout_ms");
        assert_eq!(of(|c| c.reconnect_max_ms = 1), "reconnect_max_ms");
        assert_eq!(of(|c| c.tls_certificate = Some("c.pem".into())), "tls_private_key");
    }
}
