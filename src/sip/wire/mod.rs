//! The wire below the SIP stack. UDP, TCP and TLS on IPv4 and IPv6 all meet here: each message is screened, counted and
//! written into the trace before rsipstack sees it, and again when it leaves.
//!
//! rsipstack's own channels have no bounds. What enters them is counted here instead: a message takes a place in
//! [`STACK_QUEUE_MESSAGES`] and gives it back when the stack's loop takes the message up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rsipstack::transaction::endpoint::TransportEventInspector;
use rsipstack::transport::{SipConnection, TransportEvent};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use self::limit::{Allowed, Limits, Meter, Openings};
use self::screen::{Answer, Framing, Passed, Screened, Verdict};
use self::secret::WireSecret;
use self::text::Text;
use super::signalling::Transport;
use crate::clock::Entropy;

pub mod grammar; // PURE: values
pub mod limit; // PURE: how much of each source
pub mod screen; // PURE: pass, answer or drop
pub mod secret; // PURE: tags that nobody can guess
pub mod text; // PURE: lines

mod answer; // PURE: stateless answers
mod udp; // datagrams

pub use udp::Gate;

/// Binds the sockets of a wire.
pub async fn bind(options: &WireOptions, entropy: &dyn Entropy) -> io::Result<(Gate, Arc<Wire>)> {
    let socket = UdpSocket::bind(options.listen).await?;
    let wire = Arc::new(Wire::new(options, entropy));
    Ok((Gate::new(socket, wire.clone())?, wire))
}

/// Messages that wait for rsipstack's loop. Beyond it new requests are 503 and the rest of UDP is dropped; connections are
/// not read meanwhile.
pub const STACK_QUEUE_MESSAGES: usize = 1_024;
/// What the Retry-After of our 503 says.
const RETRY_AFTER_S: &str = "2";
/// How long a request is remembered for comparing, in round trips T1: half the life of its transaction.
const MERGED_WINDOW_T1: u32 = 32;

/// How a wire is set up.
#[derive(Clone, Debug)]
pub struct WireOptions {
    /// Where UDP is heard, and TCP on the same port.
    pub listen: SocketAddr,
    /// New requests a second before callers hear 503.
    pub opening_limit_per_s: u32,
    /// RFC 3261's T1.
    pub t1: Duration,
}

impl WireOptions {
    /// UDP only, as a softphone does it.
    pub fn plain(listen: SocketAddr, t1: Duration) -> Self {
        Self { listen, opening_limit_per_s: 1_000, t1 }
    }
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
    Answer(Vec<u8>),
    /// Nothing.
    Drop,
}

impl Wire {
    fn new(options: &WireOptions, entropy: &dyn Entropy) -> Self {
        Self {
            secret: WireSecret::new(entropy),
            has_old_callers: AtomicBool::new(false),
            meter: Mutex::new(Meter::new(Limits::of(options.opening_limit_per_s))),
            openings: Mutex::new(Openings::new(options.t1.saturating_mul(MERGED_WINDOW_T1))),
            places: Semaphore::new(STACK_QUEUE_MESSAGES),
            started: tokio::time::Instant::now(),
            counts: WireCounts::default(),
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
                Err(Some(refusal)) if passed.opens.is_some() => self.answer(&text, peer, &refusal),
                Err(_) => self.dropped(),
            },
            Verdict::Answer(refusal) => self.answer(&text, peer, &refusal),
            Verdict::Drop(why) => {
                tracing::trace!(%peer, why, "a message was dropped");
                self.dropped()
            }
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

    fn answer(&self, text: &Text<'_>, peer: SocketAddr, refusal: &Answer) -> Admitted {
        let allowed = locked(&self.meter).answer(self.now(), peer.ip(), &self.secret);
        match answer::response(text, peer, &self.secret, refusal).filter(|_| allowed) {
            Some(bytes) => {
                self.counts.answered.fetch_add(1, Ordering::Relaxed);
                Admitted::Answer(bytes)
            }
            None => self.dropped(),
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

    fn dropped(&self) -> Admitted {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        Admitted::Drop
    }

    /// A message of ours as it leaves.
    fn outgoing(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.has_old_callers.load(Ordering::Relaxed).then(|| self.secret.without_old_tags(message)).flatten()
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
    async fn handle(&self, event: TransportEvent) -> Option<TransportEvent> {
        if let TransportEvent::Incoming(_, SipConnection::Udp(_) | SipConnection::Channel(_), _) = &event {
            self.0.places.add_permits(1);
        }
        Some(event)
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
mod torture_tests; // RFC 4475 through the real listener
