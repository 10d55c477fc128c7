//! The sockets of one call: an even port for RTP and the odd one above it for RTCP (RFC 3550 section 11).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use thiserror::Error;

use super::config::MediaConfig;
use super::udp;
use crate::clock::Entropy;

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
