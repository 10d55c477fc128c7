//! Calling somebody from a socket of its own: our softphone's side of the signalling. The call itself is `place`'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::conduct::address_towards;
use super::headers::Headers;
use super::identity;
use super::place::{CallOut, Dialler, Placed};
use super::rsip::{Rsip, StackOptions};
use super::session_timer::{LEAST_SESSION_INTERVAL_S, Limits};
use super::signalling::{Signalling, StackError, Transport};
use super::wire::tls::TlsConfig;
use super::wire::{self, WireOptions};
use crate::clock::SystemEntropy;
use crate::media::config::MediaConfig;
use crate::media::leg::Leg;
use crate::media::rtp_session::Codec;

/// Where SIP is heard unless the URI says otherwise.
const DEFAULT_PORT: u16 = 5060;
/// The same over TLS (RFC 3261 section 19.1.2).
const DEFAULT_TLS_PORT: u16 = 5061;
/// RFC 3261's T1.
const T1_MS: u64 = 500;
/// How long the socket stays after a call, for what the other side repeats.
const LINGER_MS: u64 = 2_000;
/// How long our softphone's calls may go unconfirmed.
const SESSION_EXPIRES_S: u32 = 1_800;
/// What our softphone calls itself.
const USER_AGENT: &str = concat!("voicepay-phone/", env!("CARGO_PKG_VERSION"));

/// Whom to call, as whom, from where.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// `sip:user@host[:port][;transport=tcp|tls]`; `sips:` is over TLS.
    pub target: String,
    /// Whose certificates are believed over TLS, and our own.
    pub tls: TlsConfig,
    /// The user part of our From: a telephone number, or `anonymous`.
    pub from: String,
    /// Where our SIP socket is bound; port 0 takes any. Unset: the local address that leads to the target.
    pub local: Option<SocketAddr>,
    /// Header fields to add to the INVITE.
    pub headers: Headers,
    /// Adds `P-Asserted-Identity: <sip:…@…>` with this user part, as a trusted trunk would.
    pub asserted_identity: Option<String>,
    /// How long the other side may take to answer.
    pub timeout: Duration,
    /// Hand over the leg at the first audio before the answer.
    pub early_media: bool,
    /// RTP ports, jitter buffer.
    pub media: MediaConfig,
}

impl DialOptions {
    /// To `target`, as `from`, with everything else at its default.
    pub fn new(target: impl Into<String>, from: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            tls: TlsConfig::default(),
            from: from.into(),
            local: None,
            headers: Headers::new(),
            asserted_identity: None,
            timeout: Duration::from_secs(30),
            early_media: false,
            media: MediaConfig {
                bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                port_min: 42_000,
                port_max: 42_999,
                // What it says was recorded from telephones.
                codecs: vec![Codec::Pcmu, Codec::Pcma],
                ..MediaConfig::default()
            },
        }
    }
}

/// Why a call did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The target is no SIP URI that we can reach.
    #[error("`{given}` can't be dialled: {problem}; write sip:USER@HOST or sip:USER@HOST:PORT")]
    Target {
        /// As given.
        given: String,
        /// What is wrong.
        problem: String,
    },
    /// The other side said no.
    #[error("the call was refused: {status} {reason}")]
    Refused {
        /// The final status, 300 to 699.
        status: u16,
        /// Its phrase, with the Warning's text if there was one.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The answer's session description is of no use.
    #[error("the other side's answer can't be used: {0}")]
    Answer(#[from] super::sdp::SdpError),
    /// No socket.
    #[error("cannot bind a socket for the call: {0}")]
    Bind(String),
    /// The stack failed.
    #[error("the call failed: {0}")]
    Failed(String),
}

/// Why nobody answered, as whoever wanted the call thinks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// They speak with somebody else.
    Busy,
    /// They don't want this call.
    Declined,
    /// It rang, nobody came, or their telephone is off.
    NoAnswer,
    /// There is no such number.
    NoSuchNumber,
    /// The network or a setting is at fault; another way or a later time may do.
    Failed,
}

impl DialError {
    /// In those words.
    pub fn why(&self) -> Unanswered {
        match self {
            Self::Refused { status: 486 | 600, .. } => Unanswered::Busy,
            Self::Refused { status: 403 | 603 | 607 | 608, .. } => Unanswered::Declined,
            Self::Refused { status: 408 | 480 | 487, .. } | Self::NoAnswer(_) => Unanswered::NoAnswer,
            Self::Refused { status: 404 | 410 | 484 | 604, .. } => Unanswered::NoSuchNumber,
            Self::Refused { .. } | Self::Target { .. } | Self::Answer(_) | Self::Bind(_) | Self::Failed(_) => Unanswered::Failed,
        }
    }
}

/// Calls and waits for the answer. The leg ends the call when it hangs up or is dropped. Dropping this future gives the
/// call up (CANCEL).
pub async fn dial(options: DialOptions) -> Result<Leg, DialError> {
    place(options).await.map(|placed| placed.leg)
}

/// The same; if wanted, it waits no longer than for early media.
pub async fn place(mut options: DialOptions) -> Result<Placed, DialError> {
    let (destination, transport) = way(&options.target).await?;
    if destination.is_ipv6() && options.media.bind_address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        options.media.bind_address = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    }
    let local = match options.local {
        Some(local) => local,
        None => SocketAddr::new(address_towards(destination).await.map_err(|e| DialError::Bind(e.to_string()))?, 0),
    };
    let wire = WireOptions { tls: options.tls, ..WireOptions::udp(local, Duration::from_millis(T1_MS)) };
    let wire = wire::bind(&wire, &SystemEntropy).await.map_err(|e| DialError::Bind(e.to_string()))?;
    let stack_options = StackOptions {
        user_agent: USER_AGENT.to_owned(),
        t1: Duration::from_millis(T1_MS),
        public_address: None,
        session: Limits { expires_s: SESSION_EXPIRES_S, least_s: LEAST_SESSION_INTERVAL_S },
        draining: CancellationToken::new(),
    };
    let failed = |e: StackError| DialError::Failed(e.0);
    let stack = Rsip::start(wire, stack_options, CancellationToken::new()).await.map_err(failed)?;
    let out = CallOut {
        asserted_identity: options.asserted_identity,
        headers: options.headers,
        early_media: options.early_media,
        ..CallOut::new(options.target.trim().to_owned(), (destination, transport), options.from, options.timeout)
    };
    let placing = Dialler::new(stack.caller(), options.media, CancellationToken::new()).place(out).await?;
    let (reply, replied) = oneshot::channel();
    tokio::spawn(async move {
        placing.run(reply).await;
        // The other side may repeat its BYE: somebody should still be here.
        tokio::time::sleep(Duration::from_millis(LINGER_MS)).await;
        drop(stack);
    });
    replied.await.unwrap_or_else(|_| Err(DialError::Failed("the call's task is gone".to_owned())))
}

/// Where a SIP URI leads, and over what.
pub async fn way(uri: &str) -> Result<(SocketAddr, Transport), DialError> {
    let target = Target::parse(uri)?;
    Ok((target.resolve().await?, target.transport))
}

/// A SIP URI taken apart.
struct Target {
    given: String,
    host: String,
    port: u16,
    transport: Transport,
}

impl Target {
    fn parse(given: &str) -> Result<Self, DialError> {
        let wrong = |problem: &str| DialError::Target { given: given.chars().take(100).collect(), problem: problem.to_owned() };
        let text = given.trim();
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || "<>\"".contains(c)) {
            return Err(wrong("it holds blanks, brackets or quotes"));
        }
        let (rest, secure) = match text.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sip") => (rest, false),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("sips") => (rest, true),
            Some(_) | None => return Err(wrong("it does not begin with sip: or sips:")),
        };
        let asked = rest.to_ascii_lowercase();
        let asked = asked.split([';', '?']).find_map(|p| p.strip_prefix("transport="));
        let transport = match (asked, secure) {
            (Some("tls"), _) | (None | Some("tcp"), true) => Transport::Tls,
            (None | Some("udp"), false) => Transport::Udp,
            (Some("tcp"), false) => Transport::Tcp,
            (Some(_), _) => return Err(wrong("its transport is none of udp, tcp and tls")),
        };
        let rest = rest.split([';', '?']).next().unwrap_or(rest);
        let host_port = rest.rsplit_once('@').map_or(rest, |(_, host_port)| host_port);
        let (host, port) = match host_port.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or_else(|| wrong("the bracket of an IPv6 address is not closed"))?;
                (host, after.strip_prefix(':'))
            }
            None => match host_port.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host_port, None),
            },
        };
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        let port = match port {
            None if transport == Transport::Tls => DEFAULT_TLS_PORT,
            None => DEFAULT_PORT,
            Some(p) => p.parse().ok().filter(|p| *p != 0).ok_or_else(|| wrong("its port is not a number from 1 to 65535"))?,
        };
        Ok(Self { given: given.to_owned(), host: host.to_owned(), port, transport })
    }

    async fn resolve(&self) -> Result<SocketAddr, DialError> {
        let wrong = |problem: String| DialError::Target { given: self.given.clone(), problem };
        let mut found = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|e| wrong(format!("its host can't be found ({e})")))?;
        found.next().ok_or_else(|| wrong("its host has no address".to_owned()))
    }
}

/// A user part as RFC 3261 section 25.1 lets it be written.
pub(super) fn escape(user: &str) -> String {
    identity::escape(user, b"&=+$,/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        let t = Target::parse("sip:pay@192.0.2.1:5070;transport=udp").unwrap();
        assert_eq!((t.host.as_str(), t.port), ("192.0.2.1", 5070));
        let t = Target::parse("SIP:[2001:db8::1]").unwrap();
        assert_eq!((t.host.as_str(), t.port), ("2001:db8::1", 5060));
        for (given, want) in [
            ("sip:a@h;transport=TCP", (Transport::Tcp, 5060)),
            ("sip:a@h;x=y;transport=tls", (Transport::Tls, 5061)),
            ("sips:a@h", (Transport::Tls, 5061)),
            ("sips:a@h:7", (Transport::Tls, 7)),
        ] {
            let t = Target::parse(given).unwrap();
            assert_eq!((t.transport, t.port), want, "{given}");
        }
        for bad in [
            "",
            "pay@host",
            "sip:pay@host;transport=sctp",
            "sips:pay@host;transport=udp",
            "tel:+44",
            "sip:",
            "sip:a@",
            "sip:a@h:0",
            "sip:a@h:x",
            "sip:a b@h",
            "sip:<a@h>",
            "sip:a@[::1",
        ] {
            let error = Target::parse(bad).err().unwrap().to_string();
            assert!(error.contains("sip:USER@HOST"), "{bad}: {error}");
        }
    }

    #[test]
    fn user_parts_cannot_break_out() {
        assert_eq!(escape("+442079460958"), "+442079460958");
        assert_eq!(escape("a@b>\r\nX: y"), "a%40b%3E%0D%0AX%3A%20y");
    }
}
