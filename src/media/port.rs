//! Where a call's packets come from and go to: sockets of its own, an even port for RTP and the odd one above it for RTCP (RFC 3550
//! section 11); or another transport that opens and seals them (a browser's: ICE and DTLS), by two queues.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::config::MediaConfig;
use super::udp::{self, Datagram};
use crate::clock::Entropy;

/// Packets that wait between another transport and a session, each way: 1.3 s of audio. Those beyond are lost, as on a line.
pub const PACKET_QUEUE_PACKETS: usize = 64;
/// Who speaks through queues: no address, so one that means nothing (RFC 5737).
const THROUGH_QUEUES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// Where a session's packets come from and go to.
#[derive(Debug)]
pub enum MediaPort {
    /// Its own sockets.
    Sockets(RtpPort),
    /// Another transport, which knows the peer and keeps others out.
    Queues(PacketQueues),
}

impl From<RtpPort> for MediaPort {
    fn from(port: RtpPort) -> Self {
        Self::Sockets(port)
    }
}

/// A session's end of the queues.
#[derive(Debug)]
pub struct PacketQueues {
    pub(super) heard: mpsc::Receiver<Arrived>,
    pub(super) said: mpsc::Sender<Vec<u8>>,
}

/// The transport's end.
#[derive(Debug)]
pub struct PacketTransport {
    /// RTP and RTCP that came, in the clear.
    pub heard: mpsc::Sender<Arrived>,
    /// RTP and RTCP to be sent, in the clear. `None`: the session is over.
    pub said: mpsc::Receiver<Vec<u8>>,
}

/// A packet that came.
pub struct Arrived {
    /// When.
    pub at: Instant,
    /// RTP or RTCP.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Arrived {
    /// Not the audio.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arrived({} bytes)", self.bytes.len())
    }
}

impl PacketQueues {
    /// Both ends.
    pub fn new() -> (Self, PacketTransport) {
        let (heard_tx, heard_rx) = mpsc::channel(PACKET_QUEUE_PACKETS);
        let (said_tx, said_rx) = mpsc::channel(PACKET_QUEUE_PACKETS);
        (Self { heard: heard_rx, said: said_tx }, PacketTransport { heard: heard_tx, said: said_rx })
    }

    /// What a session is told its peer's address is.
    pub fn peer() -> SocketAddr {
        THROUGH_QUEUES
    }

    /// Hands everything that has come to `each`, at most a queue full.
    pub(super) fn receive(&mut self, now: Instant, mut each: impl FnMut(Datagram<'_>)) {
        for _ in 0..PACKET_QUEUE_PACKETS {
            let Ok(Arrived { at, bytes }) = self.heard.try_recv() else { return };
            each(Datagram { bytes: &bytes, from: THROUGH_QUEUES, age: now.saturating_duration_since(at) });
        }
    }

    /// What finds no room is lost.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.said.try_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// A call's sockets. Both ports are free again when this is dropped.
#[derive(Debug)]
pub struct RtpPort {
    pub(super) rtp: UdpSocket,
    /// `None`: RTCP shares RTP's port.
    pub(super) rtcp: Option<UdpSocket>,
}

impl RtpPort {
    /// Where RTP is received.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.rtp.local_addr()
    }

    fn bind(address: IpAddr, port: u16) -> io::Result<Self> {
        let bound = |port| {
            let socket = UdpSocket::bind((address, port))?;
            udp::prepare(&socket)?;
            Ok::<_, io::Error>(socket)
        };
        Ok(Self { rtp: bound(port)?, rtcp: port.checked_add(1).map(bound).transpose()? })
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
        source: io::Error,
    },
}

/// Binds a free even port of the configured range and the odd one above it, starting anywhere in it, so that a port is not
/// reused at once by the next call while the last one's peer still sends.
pub async fn bind_port(config: &MediaConfig, entropy: &dyn Entropy) -> Result<RtpPort, MediaError> {
    let (address, min, max) = (config.bind_address, config.port_min, config.port_max);
    let first_even = u32::from(min).next_multiple_of(2).max(2);
    let pairs = (u32::from(max) + 2).saturating_sub(first_even) / 2;
    let start = entropy.below(pairs);
    for n in 0..pairs {
        let Ok(port) = u16::try_from(first_even + 2 * ((start + n) % pairs)) else { continue };
        match RtpPort::bind(address, port) {
            Ok(port) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(MediaError::Bind { address, source }),
        }
    }
    Err(MediaError::NoFreePort { address, min, max })
}
