//! From a trunk's target to the places that are tried, in order (RFC 3263, RFC 2782). The ordering is pure; `Finder` asks DNS.
//!
//! NAPTR is not asked for: a trunk's transport is configured, so that there is nothing for it to choose (RFC 3263 section 4.1).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::sync::OnceCell;

use super::target::{Host, Target};
use crate::clock::{Entropy, Timestamp};
use crate::sip::signalling::Transport;

/// Places of a target that are looked at.
const PLACE_LIMIT: usize = 16;
/// How long a DNS server may take, each of the tries.
const DNS_WAIT_MS: u64 = 2_000;
/// Tries of a question.
const DNS_TRIES: usize = 2;
/// A whole look-up: SRV, then addresses of what it names.
const LOOKUP_LIMIT_MS: u64 = 10_000;
/// How long a place that failed is left alone while another one may do (RFC 3263 section 4.3 leaves it open).
const AVOIDED_MS: u64 = 30_000;
/// Places that are remembered as failed.
const AVOIDED_LIMIT: usize = 256;

/// Somewhere to send a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Where.
    pub address: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// The name that a certificate must be for: the target's own, not what SRV led to (RFC 5922 section 4); the address where
    /// the target is one.
    pub name: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.address, self.transport)
    }
}

/// Why a target has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// DNS knows no such name, or no address of it.
    #[error("DNS has no SIP server and no address for `{0}`")]
    Nothing(String),
    /// SRV says that there is none (RFC 2782: a single `.`).
    #[error("DNS says that `{0}` takes no SIP over this transport")]
    NotOffered(String),
    /// DNS could not be asked.
    #[error("DNS did not answer for `{name}`: {why}")]
    Unasked {
        /// The name.
        name: String,
        /// The resolver's words.
        why: String,
    },
    /// No DNS client.
    #[error("the DNS client could not be set up: {0}; set `sip.dns_servers`")]
    Setup(String),
}

/// What must be asked for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Nothing.
    Known(SocketAddr),
    /// Addresses of a name, for this port.
    Addresses(String, u16),
    /// SRV of this name; if there is none, addresses of the target with the usual port.
    Srv(String),
}

/// RFC 3263 section 4.2.
pub fn question(target: &Target, transport: Transport) -> Question {
    let port = target.port.unwrap_or(usual_port(transport));
    match (&target.host, target.port) {
        (Host::Address(address), _) => Question::Known(SocketAddr::new(*address, port)),
        (Host::Name(name), Some(port)) => Question::Addresses(name.clone(), port),
        (Host::Name(name), None) => Question::Srv(match transport {
            Transport::Udp => format!("_sip._udp.{name}"),
            Transport::Tcp => format!("_sip._tcp.{name}"),
            Transport::Tls => format!("_sips._tcp.{name}"),
        }),
    }
}

/// 5060, and 5061 over TLS.
pub fn usual_port(transport: Transport) -> u16 {
    if transport.is_secure() { 5061 } else { 5060 }
}

/// A server as SRV names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The lowest is tried first.
    pub priority: u16,
    /// Share of the first tries among those of one priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its host.
    pub host: String,
}

/// The order in which services are tried: by priority, drawn by weight within one (RFC 2782).
pub fn order(mut services: Vec<Service>, entropy: &dyn Entropy) -> Vec<Service> {
    // Those without weight stand first, so that they have a small chance at all.
    services.sort_by_key(|s| (s.priority, s.weight));
    let mut out = Vec::with_capacity(services.len());
    while let Some(first) = services.first() {
        let same = services.iter().take_while(|s| s.priority == first.priority).count();
        let total: u32 = services.iter().take(same).map(|s| u32::from(s.weight)).sum();
        let drawn = entropy.below(total.saturating_add(1));
        let mut running = 0;
        let chosen = services.iter().take(same).position(|s| {
            running += u32::from(s.weight);
            running >= drawn
        });
        out.push(services.remove(chosen.unwrap_or(0)));
    }
    out
}

/// Places that failed a short while ago.
#[derive(Debug, Default)]
pub struct Avoided(HashMap<(SocketAddr, Transport), Timestamp>);

impl Avoided {
    /// This one timed out, couldn't be reached or said 503; `for_ms` where it said how long (Retry-After).
    pub fn failed(&mut self, now: Timestamp, place: &Place, retry_after: Option<Duration>) {
        self.0.retain(|_, until| *until > now);
        let most = Duration::from_millis(AVOIDED_MS) * 10;
        let until = now.plus(retry_after.map_or(Duration::from_millis(AVOIDED_MS), |r| r.min(most)));
        if self.0.len() < AVOIDED_LIMIT {
            self.0.insert((place.address, place.transport), until);
        }
    }

    /// It answered.
    pub fn answered(&mut self, place: &Place) {
        self.0.remove(&(place.address, place.transport));
    }

    /// Those that didn't fail lately first; the others after them, since a last resort is better than none.
    pub fn order(&self, now: Timestamp, places: Vec<Place>) -> Vec<Place> {
        let (bad, mut good): (Vec<_>, Vec<_>) =
            places.into_iter().partition(|p| self.0.get(&(p.address, p.transport)).is_some_and(|until| *until > now));
        good.extend(bad);
        good
    }
}

/// Asks DNS. The client is made with the first question: a machine that needs no DNS need not have any.
pub struct Finder {
    servers: Vec<SocketAddr>,
    resolver: OnceCell<TokioResolver>,
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Finder({:?})", self.servers)
    }
}

impl Finder {
    /// Of these servers; none: of the system's, with its hosts file.
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.to_vec(), resolver: OnceCell::new() }
    }

    async fn resolver(&self) -> Result<&TokioResolver, ResolveError> {
        let setup = |e: NetError| ResolveError::Setup(e.to_string());
        let make = || async {
            let mut builder = if self.servers.is_empty() {
                TokioResolver::builder_tokio().map_err(setup)?
            } else {
                let server = |at: &SocketAddr| {
                    let on_port = |mut c: ConnectionConfig| {
                        c.port = at.port();
                        c
                    };
                    NameServerConfig::new(at.ip(), true, vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())])
                };
                let config = ResolverConfig::from_name_servers(self.servers.iter().map(server).collect());
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            };
            let options = builder.options_mut();
            options.timeout = Duration::from_millis(DNS_WAIT_MS);
            options.attempts = DNS_TRIES;
            builder.build().map_err(setup)
        };
        self.resolver.get_or_try_init(make).await
    }

    /// The places of a target, in the order in which they are to be tried; at least one.
    pub async fn places(&self, target: &Target, transport: Transport, entropy: &dyn Entropy) -> Result<Vec<Place>, ResolveError> {
        let whole = self.ask(target, transport, entropy);
        let limit = Duration::from_millis(LOOKUP_LIMIT_MS);
        let late = || ResolveError::Unasked { name: target.to_string(), why: format!("nothing within {} s", limit.as_secs()) };
        tokio::time::timeout(limit, whole).await.unwrap_or_else(|_| Err(late()))
    }

    async fn ask(&self, target: &Target, transport: Transport, entropy: &dyn Entropy) -> Result<Vec<Place>, ResolveError> {
        let at = |address| Place { address, transport, name: target.host_text().trim_matches(['[', ']']).to_owned() };
        let addresses = match question(target, transport) {
            Question::Known(address) => vec![address],
            Question::Addresses(name, port) => self.addresses(&name, port).await?,
            Question::Srv(question) => {
                let services = order(self.services(&question).await?, entropy);
                let host = target.host_text();
                match services.as_slice() {
                    [] => self.addresses(&host, usual_port(transport)).await?,
                    [only] if only.host.is_empty() => return Err(ResolveError::NotOffered(host)),
                    services => {
                        let (mut found, mut trouble) = (Vec::new(), None);
                        for service in services.iter().take(PLACE_LIMIT) {
                            match self.addresses(&service.host, service.port).await {
                                Ok(addresses) => found.extend(addresses),
                                Err(error) => trouble = Some(error),
                            }
                        }
                        match (found.is_empty(), trouble) {
                            (true, Some(error)) => return Err(error),
                            (true, None) | (false, _) => found,
                        }
                    }
                }
            }
        };
        let places: Vec<Place> = addresses.into_iter().take(PLACE_LIMIT).map(at).collect();
        if places.is_empty() { Err(ResolveError::Nothing(target.to_string())) } else { Ok(places) }
    }

    /// None where there are none.
    async fn services(&self, name: &str) -> Result<Vec<Service>, ResolveError> {
        let found = match self.resolver().await?.lookup(absolute(name), RecordType::SRV).await {
            Ok(found) => found,
            Err(error) if is_nothing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(unasked(name, &error)),
        };
        let service = |data: &RData| match data {
            RData::SRV(srv) => Some(Service {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                host: srv.target.to_utf8().trim_end_matches('.').to_owned(),
            }),
            _ => None, // CNAMEs on the way
        };
        Ok(found.answers().iter().filter_map(|r| service(&r.data)).collect())
    }

    async fn addresses(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        match self.resolver().await?.lookup_ip(absolute(name)).await {
            Ok(found) => Ok(found.iter().map(|ip: IpAddr| SocketAddr::new(ip, port)).collect()),
            Err(error) if is_nothing(&error) => Err(ResolveError::Nothing(name.to_owned())),
            Err(error) => Err(unasked(name, &error)),
        }
    }
}

/// With its final dot, so that no search domain of the machine is tried.
fn absolute(name: &str) -> String {
    format!("{name}.")
}

fn is_nothing(error: &NetError) -> bool {
    error.is_nx_domain() || error.is_no_records_found()
}

fn unasked(name: &str, error: &NetError) -> ResolveError {
    ResolveError::Unasked { name: name.to_owned(), why: error.to_string() }
}

#[cfg(test)]
#[path = "test_dns.rs"]
pub(super) mod testing;
#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
