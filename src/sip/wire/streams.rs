//! Connections: those that come in, within limits, and those that we open. All of them end with the stack.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rsipstack::transaction::endpoint::{EndpointInner, EndpointInnerRef};
use rsipstack::transport::SipAddr;
use rsipstack::transport::channel::ChannelConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::stream::{self, Link};
use super::tls::{self, Tls};
use super::{Wire, canonical, locked, stack_transport};
use crate::sip::signalling::Transport;

/// Connections that others may hold to us.
const CONNECTION_LIMIT: usize = 1_024;
/// Of which from one address; an office behind one NAT has that many phones at most.
const CONNECTION_LIMIT_PER_SOURCE: usize = 128;
/// A TLS handshake must be done within this.
const HANDSHAKE_MS: u64 = 5_000;
/// Connecting, handshake included, must be done within this.
const CONNECT_MS: u64 = 5_000;
/// Pause after a failed accept (no file descriptors left, mostly), so that it doesn't spin.
const ACCEPT_ERROR_PAUSE_MS: u64 = 100;

/// Bound sockets that wait for a stack.
#[derive(Debug, Default)]
pub struct Listeners {
    pub(super) tcp: Option<TcpListener>,
    pub(super) tls: Option<TcpListener>,
}

/// The connections of a wire.
pub(super) struct Streams {
    /// Weak: the endpoint holds the wire.
    endpoint: Weak<EndpointInner>,
    stop: CancellationToken,
    places: Arc<Semaphore>,
    per_source: Mutex<HashMap<IpAddr, usize>>,
    /// Those that we opened, by what was asked for.
    opened: Mutex<HashMap<Target, CancellationToken>>,
    /// The other end of each connection.
    up: Mutex<HashSet<(Transport, SocketAddr)>>,
}

/// Whom a connection was opened to. The name matters: a certificate was verified for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Target {
    transport: Transport,
    address: SocketAddr,
    name: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// Nobody answers, or not in time.
    #[error("no connection to {address} over {transport}: {source}")]
    Connect {
        /// Over what.
        transport: Transport,
        /// Where.
        address: SocketAddr,
        /// What the system or TLS says: a certificate that isn't theirs, too.
        source: io::Error,
    },
    /// TLS without a certificate authority to verify servers by.
    #[error("TLS to {0} can't be verified: set `sip.tls.server_ca`")]
    NoAuthority(SocketAddr),
    /// The stack has stopped.
    #[error("the SIP stack has stopped")]
    Stopped,
}

impl Streams {
    pub(super) fn new(endpoint: &EndpointInnerRef, stop: CancellationToken) -> Self {
        Self {
            endpoint: Arc::downgrade(endpoint),
            stop,
            places: Arc::new(Semaphore::new(CONNECTION_LIMIT)),
            per_source: Mutex::default(),
            opened: Mutex::default(),
            up: Mutex::default(),
        }
    }

    /// Enters our own address over this transport where rsipstack looks for the sent-by of a Via (RFC 3261 section 18.1.1). Once,
    /// and only when there is a connection: the stack would try to read from what it finds at its start.
    async fn advertise(endpoint: &EndpointInnerRef, transport: Transport, port: u16) {
        let layer = &endpoint.transport_layer;
        let kind = Some(stack_transport(transport));
        let known = layer.get_listen_addrs();
        if known.iter().any(|a| a.r#type == kind) {
            return;
        }
        let Some(first) = known.first().and_then(|a| a.get_socketaddr().ok()) else { return };
        let own = SipAddr { r#type: kind, addr: SocketAddr::new(first.ip(), port).into() };
        let ((_, inside), (outside, _)) = (mpsc::unbounded_channel(), mpsc::channel(1));
        if let Ok(name_only) = ChannelConnection::create_connection_bounded(inside, outside, own, None).await {
            layer.inner.add_listener(name_only.into());
        }
    }

    /// Connections at this moment.
    pub(super) fn count(&self) -> usize {
        locked(&self.up).len()
    }
}

/// Accepts until the stack stops. `tls`: after a handshake.
pub(super) async fn accept_all(listener: TcpListener, transport: Transport, wire: Arc<Wire>, streams: Arc<Streams>) {
    loop {
        let accepted = tokio::select! {
            () = streams.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => welcome(stream, canonical(peer), transport, &wire, &streams),
            Err(error) => {
                tracing::debug!(%error, "a SIP connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_ERROR_PAUSE_MS)).await;
            }
        }
    }
}

/// Gives a connection its task, if there is room for it; otherwise it is closed at once.
fn welcome(stream: TcpStream, peer: SocketAddr, transport: Transport, wire: &Arc<Wire>, streams: &Arc<Streams>) {
    let Ok(place) = streams.places.clone().try_acquire_owned() else {
        tracing::debug!(%peer, limit = CONNECTION_LIMIT, "too many SIP connections: one was closed");
        return;
    };
    let Some(share) = Share::take(streams, peer.ip()) else {
        tracing::debug!(%peer, limit = CONNECTION_LIMIT_PER_SOURCE, "too many SIP connections from one address: one was closed");
        return;
    };
    let (Ok(local), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else { return };
    let link = Link { transport, peer, local: canonical(local), accepted: true };
    let (wire, streams) = (wire.clone(), streams.clone());
    tokio::spawn(async move {
        let (_place, _share) = (place, share);
        match (transport, wire.tls.server()) {
            (Transport::Tls, Some(config)) => {
                let handshake = TlsAcceptor::from(config).accept(stream);
                match tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS), handshake).await {
                    Ok(Ok(stream)) => run(stream, link, wire, streams.clone(), None).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "a TLS handshake was not done in time"),
                }
            }
            (Transport::Tls, None) => {}
            (Transport::Tcp | Transport::Udp, _) => run(stream, link, wire, streams.clone(), None).await,
        }
    });
}

/// A connection's share of its address's limit.
struct Share {
    streams: Arc<Streams>,
    ip: IpAddr,
}

impl Share {
    fn take(streams: &Arc<Streams>, ip: IpAddr) -> Option<Self> {
        // A subscriber has an IPv6 network of 64 bits, not an address.
        let ip = match ip.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut counts = locked(&streams.per_source);
        let count = counts.entry(ip).or_insert(0);
        if *count >= CONNECTION_LIMIT_PER_SOURCE {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Self { streams: streams.clone(), ip })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = locked(&self.streams.per_source);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}

/// Serves a connection to its end. `target`: one that we opened.
async fn run<S>(stream: S, link: Link, wire: Arc<Wire>, streams: Arc<Streams>, target: Option<(Target, Known)>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let Some(endpoint) = streams.endpoint.upgrade() else { return };
    Streams::advertise(&endpoint, link.transport, wire.port(link.transport)).await;
    let closing = streams.stop.child_token();
    locked(&streams.up).insert((link.transport, link.peer));
    let known = || {
        if let Some((target, known)) = &target {
            locked(&streams.opened).insert(target.clone(), closing.clone());
            known.notify_one();
        }
    };
    stream::serve(stream, link, wire, endpoint, closing.clone(), known).await;
    locked(&streams.up).remove(&(link.transport, link.peer));
    if let Some((target, _)) = &target {
        let mut opened = locked(&streams.opened);
        // A newer one to the same place stays.
        if opened.get(target).is_some_and(CancellationToken::is_cancelled) {
            opened.remove(target);
        }
    }
}

type Known = Arc<tokio::sync::Notify>;

impl Wire {
    /// Sees to it that the stack has a connection to `address` over TCP or TLS: the one that is there, or a new one. Over TLS the
    /// certificate must be for `name`, or for the address where there is no name. Nothing to do for UDP.
    pub async fn reach(
        self: &Arc<Self>,
        transport: Transport,
        address: SocketAddr,
        name: Option<&str>,
    ) -> Result<(), ReachError> {
        if transport == Transport::Udp {
            return Ok(());
        }
        let streams = self.streams.get().ok_or(ReachError::Stopped)?;
        let target = Target { transport, address: canonical(address), name: name.map(str::to_owned) };
        if locked(&streams.opened).get(&target).is_some_and(|t| !t.is_cancelled()) {
            return Ok(());
        }
        let failed = |source: io::Error| ReachError::Connect { transport, address, source };
        let connect = async {
            let stream = TcpStream::connect(target.address).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            let local = canonical(stream.local_addr().map_err(failed)?);
            let link = Link { transport, peer: target.address, local, accepted: false };
            let known = Known::default();
            let (wire, streams, owned) = (self.clone(), streams.clone(), (target.clone(), known.clone()));
            if transport == Transport::Tls {
                let config = self.tls.client().ok_or(ReachError::NoAuthority(address))?;
                let name = tls::server_name(name, target.address.ip()).map_err(failed)?;
                let stream = TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
                tokio::spawn(async move { run(stream, link, wire, streams, Some(owned)).await });
            } else {
                tokio::spawn(async move { run(stream, link, wire, streams, Some(owned)).await });
            }
            known.notified().await;
            Ok(())
        };
        let in_time = tokio::time::timeout(Duration::from_millis(CONNECT_MS), connect).await;
        in_time.unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
    }

    /// Connections at this moment, both ways.
    pub fn connections(&self) -> usize {
        self.streams.get().map_or(0, |s| s.count())
    }

    /// What TLS is done with; can be exchanged while connections are up.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }
}
