//! The wire below the SIP stack. UDP, TCP and TLS on IPv4 and IPv6 all meet here: each message is screened, counted and
//! written into the trace before rsipstack sees it, and again when it leaves.
//!
//! rsipstack's own channels have no bounds. What enters them is counted here instead: a message takes a place in
//! [`STACK_QUEUE_MESSAGES`] and gives it back when the stack's loop takes the message up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rsipstack::transaction::endpoint::{EndpointInnerRef, TransportEventInspector};
use rsipstack::transport::{SipConnection, TransportEvent};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::limit::{Allowed, Limits, Meter, Openings};
use self::screen::{Answer, Framing, Passed, Screened, Verdict};
use self::secret::WireSecret;
use self::stream::Link;
use self::streams::{Listeners, Streams};
use self::text::Text;
use self::tls::{Tls, TlsConfig, TlsError};
use self::trace::{Entry, Trace};
use super::signalling::Transport;
use crate::clock::{Clock, Entropy, SystemClock};
use crate::telemetry::metrics::metrics;

pub mod framing; // PURE: messages out of a stream
pub mod grammar; // PURE: values
pub mod limit; // PURE: how much of each source
pub mod mask; // PURE: what may be written down
pub mod screen; // PURE: pass, answer or drop
pub mod secret; // PURE: tags that nobody can guess
pub mod text; // PURE: lines
pub mod tls; // certificates
pub mod trace; // messages written down

pub mod answer; // PURE: stateless answers
mod stream; // a connection
mod streams; // all connections
mod udp; // datagrams

pub use streams::ReachError;
pub use udp::Gate;

/// Messages that wait for rsipstack's loop. Beyond it new requests are 503 and the rest of UDP is dropped; connections are
/// not read meanwhile.
pub const STACK_QUEUE_MESSAGES: usize = 1_024;
/// What the Retry-After of our 503 says.
const RETRY_AFTER_S: &str = "2";
/// How long a request is remembered for comparing, in round trips T1: half the life of its transaction.
const MERGED_WINDOW_T1: u32 = 32;

/// With port 0, how often another port is tried for which both UDP and TCP are free.
const PORT_TRIES: usize = 16;

/// How a wire is set up.
#[derive(Clone, Debug)]
pub struct WireOptions {
    /// Where UDP is heard, and TCP on the same port.
    pub listen: SocketAddr,
    /// Is TCP heard?
    pub tcp: bool,
    /// TLS, both ways.
    pub tls: TlsConfig,
    /// New requests a second before callers hear 503.
    pub overload_limit_per_s: u32,
    /// RFC 3261's T1.
    pub t1: Duration,
    /// Where messages are written down, masked.
    pub trace_file: Option<PathBuf>,
}

impl WireOptions {
    /// UDP only, as a softphone hears it; it may call over TCP all the same.
    pub fn udp(listen: SocketAddr, t1: Duration) -> Self {
        Self { listen, tcp: false, tls: TlsConfig::default(), overload_limit_per_s: 1_000, t1, trace_file: None }
    }
}

/// Why there is no wire.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Somebody else has the port, or the address isn't ours.
    #[error("cannot listen for SIP on {transport} {address}: {source}; is another phone service running, or is `{key}` wrong?")]
    Bind {
        /// Over what.
        transport: Transport,
        /// From the configuration.
        address: SocketAddr,
        /// Which key of it.
        key: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// TLS can't be done as it is configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The trace can't be written.
    #[error("sip.trace_file: {path} can't be written: {source}")]
    Trace {
        /// As configured.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Bound sockets, for a stack that is to be started on them.
#[derive(Debug)]
pub struct Sockets {
    /// The UDP socket as rsipstack reads it.
    pub gate: Gate,
    /// What all sockets share.
    pub wire: Arc<Wire>,
    /// Connections wait here.
    pub listeners: Listeners,
}

/// Binds the sockets of a wire.
pub async fn bind(options: &WireOptions, entropy: &dyn Entropy) -> Result<Sockets, WireError> {
    let tls = Tls::load(&options.tls)?;
    let opened = options
        .trace_file
        .as_ref()
        .map(|path| Trace::open(path, trace::FILE_LIMIT_BYTES).map_err(|source| WireError::Trace { path: path.clone(), source }));
    let trace = opened.transpose()?;
    let failed = |transport, address, key| move |source| WireError::Bind { transport, address, key, source };
    let (udp, tcp) = bind_pair(options).await?;
    let tls_listener = match options.tls.listen {
        None => None,
        Some(at) => Some(TcpListener::bind(at).await.map_err(failed(Transport::Tls, at, "sip.tls.listen"))?),
    };
    let heard_at = failed(Transport::Udp, options.listen, "sip.listen");
    let ports = Ports {
        udp: udp.local_addr().map_err(heard_at)?.port(),
        tls: tls_listener.as_ref().and_then(|l| l.local_addr().ok()).map(|a| a.port()),
    };
    let wire = Arc::new(Wire::new(options, Means { tls, ports, trace }, entropy));
    let gate = Gate::new(udp, wire.clone()).map_err(failed(Transport::Udp, options.listen, "sip.listen"))?;
    Ok(Sockets { gate, wire, listeners: Listeners { tcp, tls: tls_listener } })
}

/// UDP and TCP on one port (RFC 3261 section 18.2.1); with port 0, on one for which both are free.
async fn bind_pair(options: &WireOptions) -> Result<(UdpSocket, Option<TcpListener>), WireError> {
    let address = options.listen;
    let failed = |transport| move |source| WireError::Bind { transport, address, key: "sip.listen", source };
    for last in (0..PORT_TRIES).map(|i| i + 1 == PORT_TRIES || address.port() != 0) {
        let udp = UdpSocket::bind(address).await.map_err(failed(Transport::Udp))?;
        if !options.tcp {
            return Ok((udp, None));
        }
        match TcpListener::bind(udp.local_addr().map_err(failed(Transport::Udp))?).await {
            Ok(tcp) => return Ok((udp, Some(tcp))),
            Err(error) if last => return Err(failed(Transport::Tcp)(error)),
            Err(_) => {}
        }
    }
    Err(failed(Transport::Tcp)(io::ErrorKind::AddrInUse.into()))
}

/// The ports that we are reached at.
#[derive(Clone, Copy, Debug)]
struct Ports {
    /// TCP's too.
    udp: u16,
    tls: Option<u16>,
}

/// What happened to the messages that came in, since the start.
#[derive(Debug, Default)]
pub struct WireCounts {
    passed: AtomicU64,
    answered: AtomicU64,
    dropped: AtomicU64,
    busy: AtomicU64,
    merged: AtomicU64,
}

/// A reading of [`WireCounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireFigures {
    /// Handed to the stack.
    pub passed: u64,
    /// Refused without it.
    pub answered: u64,
    /// Neither.
    pub dropped: u64,
    /// Of those answered or dropped: for want of room.
    pub busy: u64,
    /// Of those answered: the same request by another way.
    pub merged: u64,
    /// Of those passed: the stack has not taken them up yet.
    pub waiting: usize,
}

/// What a wire has besides its limits.
struct Means {
    tls: Tls,
    ports: Ports,
    trace: Option<Trace>,
}

/// What all sockets of a wire share.
pub struct Wire {
    secret: WireSecret,
    /// An RFC 2543 caller has been seen: what leaves must be searched for the tag it got inside.
    has_old_callers: AtomicBool,
    meter: Mutex<Meter>,
    openings: Mutex<Openings>,
    /// Places in the stack's queue.
    places: Semaphore,
    started: tokio::time::Instant,
    counts: WireCounts,
    ports: Ports,
    tls: Tls,
    trace: Option<Trace>,
    /// There once a stack runs.
    streams: OnceLock<Arc<Streams>>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// What becomes of a message that came in.
enum Admitted {
    /// For the stack, once it has a place.
    Pass(Vec<u8>),
    /// To send back.
    Answer(Vec<u8>, Fault),
    /// Nothing.
    Drop(Fault),
}

/// Whose fault it is that a message was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It was malformed.
    Theirs,
    /// It came at a bad time, or twice.
    Ours,
}

impl Wire {
    fn new(options: &WireOptions, means: Means, entropy: &dyn Entropy) -> Self {
        Self {
            secret: WireSecret::new(entropy),
            has_old_callers: AtomicBool::new(false),
            meter: Mutex::new(Meter::new(Limits::of(options.overload_limit_per_s))),
            openings: Mutex::new(Openings::new(options.t1.saturating_mul(MERGED_WINDOW_T1))),
            places: Semaphore::new(STACK_QUEUE_MESSAGES),
            started: tokio::time::Instant::now(),
            counts: WireCounts::default(),
            ports: means.ports,
            tls: means.tls,
            trace: means.trace,
            streams: OnceLock::new(),
        }
    }

    /// Takes connections in for this stack, and lets it open some, until `stop`.
    pub fn serve(self: &Arc<Self>, listeners: Listeners, endpoint: &EndpointInnerRef, stop: CancellationToken) {
        let streams = self.streams.get_or_init(|| Arc::new(Streams::new(endpoint, stop))).clone();
        for (listener, transport) in [(listeners.tcp, Transport::Tcp), (listeners.tls, Transport::Tls)] {
            if let Some(listener) = listener {
                tokio::spawn(streams::accept_all(listener, transport, self.clone(), streams.clone()));
            }
        }
    }

    /// The port at which we are reached over this: what a Contact should name. A wire that hears no TLS names its UDP port: the
    /// peer then comes back on the connection that we opened, or not at all.
    pub fn port(&self, transport: Transport) -> u16 {
        match transport {
            Transport::Udp | Transport::Tcp => self.ports.udp,
            Transport::Tls => self.ports.tls.unwrap_or(self.ports.udp),
        }
    }

    /// What has come in so far.
    pub fn figures(&self) -> WireFigures {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let c = &self.counts;
        WireFigures {
            passed: of(&c.passed),
            answered: of(&c.answered),
            dropped: of(&c.dropped),
            busy: of(&c.busy),
            merged: of(&c.merged),
            waiting: STACK_QUEUE_MESSAGES.saturating_sub(self.places.available_permits()),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Looks at a message. More than `limit_bytes`, as the stack would read it, is 513.
    fn admit(&self, message: &[u8], peer: SocketAddr, framing: Framing, limit_bytes: usize) -> Admitted {
        let Screened { text, verdict } = screen::screen(message, framing, &self.secret);
        match verdict {
            Verdict::Pass(passed) => match self.may_pass(&passed, peer, limit_bytes) {
                Ok(()) => Admitted::Pass(passed.bytes),
                Err(Some(refusal)) if passed.opens.is_some() => self.answer(&text, peer, &refusal, Fault::Ours),
                Err(_) => self.dropped(Fault::Ours),
            },
            Verdict::Answer(refusal) => self.answer(&text, peer, &refusal, Fault::Theirs),
            Verdict::Drop(why) => {
                tracing::trace!(%peer, why, "a message was dropped");
                self.dropped(Fault::Theirs)
            }
        }
    }

    /// An answer to a message of which only the head is known.
    fn refuse(&self, head: &[u8], peer: SocketAddr, refusal: &Answer) -> Option<Vec<u8>> {
        let text = text::split(head);
        if text.start.starts_with(b"SIP/") || text.start.starts_with(b"ACK ") {
            return None;
        }
        match self.answer(&text, peer, refusal, Fault::Theirs) {
            Admitted::Answer(bytes, _) => Some(bytes),
            Admitted::Pass(_) | Admitted::Drop(_) => None,
        }
    }

    /// Is there room for a message that is well-formed? What is under way is never refused, only dropped: it comes again.
    fn may_pass(&self, passed: &Passed, peer: SocketAddr, limit_bytes: usize) -> Result<(), Option<Answer>> {
        let busy = || {
            self.counts.busy.fetch_add(1, Ordering::Relaxed);
            Some(Answer::new(503, "Service Unavailable").with("Retry-After", RETRY_AFTER_S))
        };
        if passed.bytes.len() > limit_bytes {
            return Err(Some(Answer::new(513, "Message Too Large")));
        }
        if !is_readable(&passed.bytes) {
            return Err(Some(Answer::bad("it can't be read")));
        }
        match locked(&self.meter).message(self.now(), peer.ip(), passed.opens.is_some(), &self.secret) {
            Allowed::Yes => {}
            Allowed::No | Allowed::Busy => return Err(busy()),
        }
        if let Some(opening) = &passed.opens {
            if locked(&self.openings).is_merged(self.now(), opening) {
                self.counts.merged.fetch_add(1, Ordering::Relaxed);
                return Err(Some(Answer::new(482, "Loop Detected")));
            }
            if self.places.available_permits() == 0 {
                return Err(busy());
            }
        }
        if passed.has_old_tag {
            self.has_old_callers.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn answer(&self, text: &Text<'_>, peer: SocketAddr, refusal: &Answer, fault: Fault) -> Admitted {
        let allowed = match fault {
            Fault::Theirs => locked(&self.meter).answer(self.now(), peer.ip(), &self.secret),
            Fault::Ours => locked(&self.meter).refusal(self.now(), peer.ip(), &self.secret),
        };
        match answer::response(text, peer, &self.secret, refusal).filter(|_| allowed) {
            Some(bytes) => {
                self.counts.answered.fetch_add(1, Ordering::Relaxed);
                Admitted::Answer(bytes, fault)
            }
            None => self.dropped(fault),
        }
    }

    /// A place for a message that was admitted, at once or not at all. The stack's loop gives it back.
    fn place_now(&self) -> bool {
        let Ok(place) = self.places.try_acquire() else {
            self.counts.busy.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        place.forget();
        self.counts.passed.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// A place for a message that was admitted, as soon as there is one.
    async fn place(&self) {
        if let Ok(place) = self.places.acquire().await {
            place.forget();
        }
        self.counts.passed.fetch_add(1, Ordering::Relaxed);
    }

    fn dropped(&self, fault: Fault) -> Admitted {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        Admitted::Drop(fault)
    }

    /// A message of the stack's as it leaves; `None`: as it is.
    fn outgoing(&self, message: &[u8], link: &Link) -> Option<Vec<u8>> {
        let cleaned = self.has_old_callers.load(Ordering::Relaxed).then(|| self.secret.without_old_tags(message)).flatten();
        self.left(cleaned.as_deref().unwrap_or(message), link);
        cleaned
    }

    /// A message came in, whatever becomes of it.
    fn came(&self, message: &[u8], link: &Link) {
        metrics().sip_came(message);
        self.note(message, link, true);
    }

    /// A message went out.
    fn left(&self, message: &[u8], link: &Link) {
        metrics().sip_left(message);
        self.note(message, link, false);
    }

    fn note(&self, message: &[u8], link: &Link, incoming: bool) {
        if let Some(trace) = &self.trace {
            let Link { transport, peer, local, .. } = *link;
            trace.note(Entry { at: SystemClock.now(), incoming, transport, local, peer }, message);
        }
    }
}

/// Would the stack take it? What it refuses it drops without a word, and its place would never be given back.
fn is_readable(message: &[u8]) -> bool {
    use rsipstack::sip::SipMessage;
    use rsipstack::sip::prelude::{HeadersExt, ToTypedHeader};
    match SipMessage::try_from(message) {
        Ok(SipMessage::Request(request)) => {
            request.top_via_header().and_then(|v| v.typed()).is_ok()
                && request.from_header().is_ok_and(|f| matches!(f.tag(), Ok(Some(_))))
                && request.to_header().is_ok_and(|t| t.tag().is_ok())
        }
        Ok(SipMessage::Response(response)) => response.top_via_header().and_then(|v| v.typed()).is_ok(),
        Err(_) => false,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An address as its family: `::ffff:192.0.2.1` of a socket that hears both is an IPv4 peer.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The same address as this socket must be told it.
fn for_socket(address: SocketAddr, socket_is_ipv6: bool) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) if socket_is_ipv6 => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// Gives a message's place back when the stack's loop takes it up.
#[derive(Debug)]
pub struct Uptake(pub Arc<Wire>);

#[async_trait]
impl TransportEventInspector for Uptake {
    async fn handle(&self, mut event: TransportEvent) -> Option<TransportEvent> {
        if let TransportEvent::Incoming(message, SipConnection::Udp(_) | SipConnection::Channel(_), _) = &mut event {
            self.0.places.add_permits(1);
            if let rsipstack::sip::SipMessage::Request(request) = message {
                unbracket(request);
            }
            return Some(event);
        }
        match event {
            // Connections that the stack opened by itself, for a request of a call whose own connection is gone.
            TransportEvent::Incoming(message, connection @ SipConnection::Tcp(_), from) => {
                let peer = from.get_socketaddr().ok()?;
                let Admitted::Pass(bytes) = self.0.admit(&message.to_bytes(), peer, Framing::Stream, screen::BODY_LIMIT_BYTES)
                else {
                    return None;
                };
                let message = rsipstack::sip::SipMessage::try_from(bytes.as_slice()).ok()?;
                Some(TransportEvent::Incoming(message, connection, from))
            }
            other => Some(other),
        }
    }
}

/// rsipstack writes an IPv6 peer's `received` in brackets, which RFC 3261 doesn't and which it can't read itself: without this an
/// answer over UDP would go nowhere.
fn unbracket(request: &mut rsipstack::sip::Request) {
    use rsipstack::sip::Param;
    use rsipstack::sip::param::Received;
    use rsipstack::sip::prelude::{HeadersExt, ToTypedHeader};
    if !request.via_header().is_ok_and(|via| via.value().contains('[')) {
        return;
    }
    let Ok(via) = request.via_header_mut() else { return };
    let _unreadable = via.update_first_value(|via| {
        let mut typed = via.typed()?;
        let mut bare = None;
        for param in &mut typed.params {
            if let Param::Received(received) = param
                && let Some(address) = received.value().strip_prefix('[').and_then(|r| r.strip_suffix(']'))
            {
                bare = Some(Param::Received(Received::new(address)));
            }
        }
        let Some(bare) = bare else { return Ok(via) };
        typed.params.retain(|p| !matches!(p, Param::Received(_)));
        typed.params.push(bare);
        Ok(typed.into())
    });
}

/// The host of a SIP URI, where it is a name: what a certificate must be for.
pub fn host_name(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once(':')?;
    let host = rest.rsplit_once('@').map_or(rest, |(_, h)| h);
    let host = host.split([';', '?']).next().unwrap_or(host);
    let (host, _) = grammar::host_port(host)?;
    (!host.starts_with('[') && host.parse::<IpAddr>().is_err()).then_some(host)
}

/// rsipstack's name for a transport.
pub fn stack_transport(transport: Transport) -> rsipstack::sip::Transport {
    match transport {
        Transport::Udp => rsipstack::sip::Transport::Udp,
        Transport::Tcp => rsipstack::sip::Transport::Tcp,
        Transport::Tls => rsipstack::sip::Transport::Tls,
    }
}

/// Our name for rsipstack's transport.
pub fn transport_of(kind: Option<rsipstack::sip::Transport>) -> Transport {
    use rsipstack::sip::Transport as T;
    match kind {
        Some(T::Tcp) => Transport::Tcp,
        Some(T::Tls) => Transport::Tls,
        None | Some(T::Udp | T::TlsSctp | T::Sctp | T::Ws | T::Wss) => Transport::Udp,
    }
}

#[cfg(test)]
mod flood_tests; // floods, overload, and the trace of them
#[cfg(test)]
mod stream_tests; // TCP and TLS against the real listener
#[cfg(test)]
mod torture_tests; // RFC 4475 through the real listener
