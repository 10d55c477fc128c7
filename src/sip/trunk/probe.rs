//! Trying a trunk out: what `voicepay trunk test` does, step by step, from a socket of its own. Nothing changes at the other
//! end: REGISTER only asks which registrations there are (RFC 3261 section 10.2.3).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ask::{Asker, seen_as};
use super::certificate;
use super::config::{SrtpPolicy, TrunkConfig, TrunkConfigError};
use super::live::{Set, Trunks};
use super::resolve::{Place, ResolveError};
use crate::clock::{Entropy, SystemEntropy};
use crate::sip::SipError;
use crate::sip::config::SipConfig;
use crate::sip::digest::Challenge;
use crate::sip::headers::Headers;
use crate::sip::rsip::{Rsip, StackOptions};
use crate::sip::signalling::{Reply, RequestError, Signalling, Transport};
use crate::sip::wire::{self, WireOptions};

/// How long each step may take.
const STEP_WAIT_MS: u64 = 5_000;
/// Days before a certificate's end from which on it is told.
const EXPIRY_NOTE_DAYS: u64 = 21;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `configuration`, `resolve`, `connect`, `options`, `register`.
    pub step: &'static str,
    /// Where, if it was at one place.
    pub place: Option<String>,
    /// How it went.
    pub outcome: Outcome,
    /// How long it took, in milliseconds.
    pub took_ms: Option<u64>,
    /// In a sentence.
    pub said: String,
    /// The same for programs.
    pub facts: BTreeMap<&'static str, String>,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should.
    Well,
    /// Something to know.
    Note,
    /// Calls won't work.
    Amiss,
}

/// Why nothing could be tried.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No trunk of this name.
    #[error("there is no trunk `{name}`; configured: {configured}")]
    Unknown {
        /// As asked.
        name: String,
        /// Those there are.
        configured: String,
    },
    /// A password can't be read.
    #[error(transparent)]
    Config(#[from] TrunkConfigError),
    /// No socket to try it from.
    #[error(transparent)]
    Start(#[from] SipError),
}

impl Finding {
    fn new(step: &'static str, outcome: Outcome, said: impl Into<String>) -> Self {
        Self { step, place: None, outcome, took_ms: None, said: said.into(), facts: BTreeMap::new() }
    }

    fn at(mut self, place: &Place) -> Self {
        self.place = Some(place.address.to_string());
        self
    }

    fn took(mut self, took: Duration) -> Self {
        self.took_ms = u64::try_from(took.as_millis()).ok();
        self
    }

    fn fact(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.facts.insert(name, value.into());
        self
    }
}

/// Tries a trunk and tells each finding as it comes. True: nothing was amiss.
pub async fn probe(sip: &SipConfig, name: &str, tell: &mut (dyn FnMut(&Finding) + Send)) -> Result<bool, ProbeError> {
    let trunk = sip.trunks.iter().find(|t| t.name == name).ok_or_else(|| ProbeError::Unknown {
        name: name.to_owned(),
        configured: match sip.trunks.as_slice() {
            [] => "none (see [[sip.trunk]] in config/default.toml)".to_owned(),
            trunks => trunks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", "),
        },
    })?;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let set = Set::load(sip.clone())?;
    let trunks = Trunks::new(set, entropy.clone());
    let mut well = true;
    let mut tell = |finding: Finding| {
        well &= finding.outcome != Outcome::Amiss;
        tell(&finding);
    };
    tell(configuration(sip, trunk));
    let bench = Bench { sip, trunk, trunks: &trunks, entropy };
    let target = trunk.target.as_deref();
    let registrar = trunk.registrar();
    for host in target.iter().chain(registrar.iter().filter(|r| Some(**r) != target)) {
        let places = match bench.resolve(host, &mut tell).await {
            Some(places) => places,
            None => continue,
        };
        for place in &places {
            if bench.connect(place, &mut tell).await {
                bench.ask(place, Some(*host) == target, Some(*host) == registrar, &mut tell).await?;
            }
        }
    }
    if registrar.is_none() {
        tell(Finding::new("register", Outcome::Note, "not configured: the other side knows where we are"));
    }
    Ok(well)
}

fn configuration(sip: &SipConfig, trunk: &TrunkConfig) -> Finding {
    let srtp = match (trunk.srtp, trunk.private) {
        (Some(SrtpPolicy::Required), _) | (None, false) => "SRTP required",
        (Some(SrtpPolicy::Offered), _) | (None, true) => "SRTP where the other side has it",
        (Some(SrtpPolicy::Off), _) => "no SRTP",
    };
    let hosts: Vec<String> = trunk.hosts.iter().map(ToString::to_string).collect();
    let from = match (hosts.is_empty(), &trunk.register) {
        (false, _) => format!("calls come from {}", hosts.join(", ")),
        (true, Some(_)) => "calls come from its registrar".to_owned(),
        (true, None) => "it only takes calls".to_owned(),
    };
    let told = trunk.public_address.or(sip.public_address).map_or_else(String::new, |a| format!("; it is told {a}"));
    let said = format!("{} over {}, {srtp}; {from}{told}", trunk.name, trunk.transport);
    let nowhere = trunk.target.is_none() && trunk.register.is_none();
    let said = if nowhere { format!("{said}; no target, so there is nothing to try") } else { said };
    Finding::new("configuration", Outcome::Note, said).fact("transport", trunk.transport.token()).fact("srtp", srtp)
}

struct Bench<'a> {
    sip: &'a SipConfig,
    trunk: &'a TrunkConfig,
    trunks: &'a Trunks,
    entropy: Arc<dyn Entropy>,
}

const WAIT: Duration = Duration::from_millis(STEP_WAIT_MS);

impl Bench<'_> {
    async fn resolve(&self, host: &str, tell: &mut impl FnMut(Finding)) -> Option<Vec<Place>> {
        let begun = Instant::now();
        match self.trunks.places(self.trunk, host).await {
            Ok(places) => {
                let all: Vec<String> = places.iter().map(|p| p.address.to_string()).collect();
                tell(Finding::new("resolve", Outcome::Well, format!("{host} is {}", all.join(", "))).took(begun.elapsed()));
                let plain: Vec<_> = places
                    .iter()
                    .filter(|p| !p.transport.is_secure() && !self.trunk.is_private(self.sip, p.address.ip()))
                    .collect();
                if !plain.is_empty() {
                    let said = "these addresses are not private: calls there need transport = \"tls\"";
                    tell(Finding::new("resolve", Outcome::Amiss, said));
                }
                Some(places)
            }
            Err(why) => {
                let mend = if matches!(why, ResolveError::Nothing(_)) { "; is the name right?" } else { "" };
                tell(Finding::new("resolve", Outcome::Amiss, format!("{why}{mend}")).took(begun.elapsed()));
                None
            }
        }
    }

    /// Connects where there is something to connect; false: it makes no sense to ask there.
    async fn connect(&self, place: &Place, tell: &mut impl FnMut(Finding)) -> bool {
        let begun = Instant::now();
        match self.trunk.transport {
            Transport::Udp => true,
            Transport::Tcp => match tokio::time::timeout(WAIT, TcpStream::connect(place.address)).await {
                Ok(Ok(_)) => {
                    tell(Finding::new("connect", Outcome::Well, "TCP is up").at(place).took(begun.elapsed()));
                    true
                }
                Ok(Err(error)) => {
                    tell(
                        Finding::new("connect", Outcome::Amiss, format!("no connection: {error}"))
                            .at(place)
                            .took(begun.elapsed()),
                    );
                    false
                }
                Err(_) => {
                    tell(Finding::new("connect", Outcome::Amiss, "no connection in time: a firewall?").at(place));
                    false
                }
            },
            Transport::Tls => {
                let seen = certificate::look(self.sip.tls.server_ca.as_deref(), place.address, &place.name, WAIT).await;
                let (outcome, mut said) = match seen.outcome {
                    Ok(version) => (Outcome::Well, format!("{version} is up")),
                    Err(why) => (Outcome::Amiss, format!("TLS failed for `{}`: {why}", place.name)),
                };
                let mut finding = Finding::new("connect", outcome, "").at(place).took(begun.elapsed());
                if let Some(shown) = &seen.shown {
                    said = format!("{said}; {shown}");
                    let until = shown.valid_until.to_string();
                    finding = finding.fact("subject", &shown.subject).fact("issuer", &shown.issuer);
                    finding = finding.fact("names", shown.names.join(" ")).fact("valid_until", until);
                }
                finding.said = said;
                tell(finding);
                let soon =
                    crate::clock::Clock::now(&crate::clock::SystemClock).plus(Duration::from_secs(EXPIRY_NOTE_DAYS * 86_400));
                if outcome == Outcome::Well && seen.shown.is_some_and(|s| s.valid_until < soon) {
                    let said = format!("its certificate ends within {EXPIRY_NOTE_DAYS} days");
                    tell(Finding::new("connect", Outcome::Note, said).at(place));
                }
                outcome == Outcome::Well
            }
        }
    }

    async fn ask(&self, place: &Place, options: bool, register: bool, tell: &mut impl FnMut(Finding)) -> Result<(), ProbeError> {
        let stack = self.stack(place).await?;
        let asker = Asker::new(stack.caller(), self.sip, self.trunk, self.entropy.clone());
        if options {
            tell(options_finding(&asker.options(place, WAIT).await).at(place));
        }
        if register {
            tell(self.registered(&asker, place).await.at(place));
        }
        Ok(())
    }

    /// A stack on a port of its own: a running service keeps its port.
    async fn stack(&self, place: &Place) -> Result<Rsip, ProbeError> {
        let any = match (self.sip.listen.ip(), place.address.is_ipv6()) {
            (own, v6) if own.is_ipv6() == v6 && !own.is_loopback() => own,
            (_, true) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            (_, false) => IpAddr::from([0, 0, 0, 0]),
        };
        let tls = wire::tls::TlsConfig { listen: None, ..self.sip.tls.clone() };
        let options = WireOptions { listen: SocketAddr::new(any, 0), tcp: false, tls, ..self.sip.wire() };
        let sockets = wire::bind(&options, self.entropy.as_ref()).await.map_err(SipError::from)?;
        let options = StackOptions {
            user_agent: self.sip.user_agent.clone(),
            t1: self.sip.t1(),
            public_address: self.sip.public_address,
            session: self.sip.session(),
            draining: CancellationToken::new(),
        };
        let started = Rsip::start(sockets, options, CancellationToken::new()).await;
        Ok(started.map_err(|e| SipError::Stack(e.0))?)
    }

    /// Asks for the registrations there are, with our password if it is wanted.
    async fn registered(&self, asker: &Asker, place: &Place) -> Finding {
        let begun = Instant::now();
        let first = match asker.bindings(place, 1, None, WAIT).await {
            Ok(reply) => reply,
            Err(error) => return silent("register", &error),
        };
        let Some((challenge, header)) = Challenge::of_response(first.status, &first.headers) else {
            return register_finding(&first, false).took(begun.elapsed());
        };
        let set = self.trunks.set();
        let (Some(ours), Some((_, domain))) = (set.secrets.ours(&self.trunk.name), self.trunk.address_of_record()) else {
            return Finding::new("register", Outcome::Amiss, "a password is wanted and none is configured");
        };
        let value = challenge.answer(ours, "REGISTER", &format!("sip:{domain}"), 1, self.entropy.as_ref());
        match asker.bindings(place, 2, Some((header, value)), WAIT).await {
            Ok(reply) => register_finding(&reply, true)
                .took(begun.elapsed())
                .fact("realm", &challenge.realm)
                .fact("algorithm", challenge.algorithm.name()),
            Err(error) => silent("register", &error),
        }
    }
}

fn silent(step: &'static str, error: &RequestError) -> Finding {
    let mend = match error {
        RequestError::Silence(_) => "; is the address right, and does a firewall let SIP through?",
        RequestError::Unreachable(_) | RequestError::Unwritable => "",
    };
    Finding::new(step, Outcome::Amiss, format!("{error}{mend}"))
}

fn options_finding(answer: &Result<Reply, RequestError>) -> Finding {
    let reply = match answer {
        Ok(reply) => reply,
        Err(error) => return silent("options", error),
    };
    let outcome = match reply.status {
        200..=299 => Outcome::Well,
        408 | 500..=599 => Outcome::Amiss,
        _ => Outcome::Note, // it is there, and doesn't like OPTIONS
    };
    let server = reply.headers.get("Server").or(reply.headers.get("User-Agent")).map(plain);
    let said = format!(
        "answered {}{}{}",
        reply.status,
        server.as_ref().map_or(String::new(), |s| format!(" by {s}")),
        seen_text(&reply.headers)
    );
    let mut finding = Finding::new("options", outcome, said).took(reply.took).fact("status", reply.status.to_string());
    for (fact, value) in [("server", server), ("allow", reply.headers.get("Allow").map(plain))] {
        if let Some(value) = value {
            finding = finding.fact(fact, value);
        }
    }
    finding
}

fn register_finding(reply: &Reply, asked: bool) -> Finding {
    let status = reply.status;
    let finding = match status {
        200..=299 => {
            let bindings: Vec<String> = reply.headers.all("Contact").map(plain).collect();
            let held = if bindings.is_empty() {
                "nobody is registered now".to_owned()
            } else {
                format!("registered now: {}", bindings.join(", "))
            };
            let password = if asked { "the password is right" } else { "no password was wanted" };
            Finding::new("register", Outcome::Well, format!("{password}; {held}{}", seen_text(&reply.headers)))
        }
        401 | 407 => Finding::new("register", Outcome::Amiss, "our name or password is wrong there"),
        _ => {
            Finding::new("register", Outcome::Amiss, format!("answered {status}: is the name known there, and may it register?"))
        }
    };
    finding.fact("status", status.to_string())
}

/// How the other side sees us, which differs from our own address behind a NAT.
fn seen_text(headers: &Headers) -> String {
    match seen_as(headers) {
        Some(seen) => match (seen.address, seen.port) {
            (Some(address), Some(port)) => format!("; it sees us at {}", SocketAddr::new(address, port)),
            (Some(address), None) => format!("; it sees us at {address}"),
            (None, _) => String::new(),
        },
        None => String::new(),
    }
}

/// A stranger's text for the terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}
