//! SIP over UDP: the socket that rsipstack reads, with everything screened on the way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;

use super::screen::Framing;
use super::stream::Link;
use super::{Admitted, Wire, canonical, for_socket};
use crate::sip::signalling::Transport;

/// Pause after a receive error, so that a broken socket doesn't spin.
const RECEIVE_ERROR_PAUSE_MS: u64 = 20;
/// The most that a datagram can hold.
const DATAGRAM_LIMIT_BYTES: usize = 65_535;
/// A keep-alive and its answer (RFC 5626 section 4.4.1 has them on connections; phones send them over UDP too).
const PING: &[u8] = b"\r\n\r\n";
const PONG: &[u8] = b"\r\n";

/// A UDP socket below the stack.
#[derive(Debug)]
pub struct Gate {
    socket: UdpSocket,
    wire: Arc<Wire>,
    local: SocketAddr,
    /// The stack's own buffer holds 8 kB; what is longer must be seen to be refused.
    buffer: Mutex<Vec<u8>>,
}

impl Gate {
    pub(super) fn new(socket: UdpSocket, wire: Arc<Wire>) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self { socket, wire, local, buffer: Mutex::new(vec![0; DATAGRAM_LIMIT_BYTES]) })
    }

    fn link(&self, peer: SocketAddr) -> Link {
        Link { transport: Transport::Udp, peer, local: self.local, accepted: true }
    }

    async fn send(&self, message: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.send_to(message, for_socket(to, self.local.is_ipv6())).await
    }
}

#[async_trait]
impl rsipstack::platform::net::UdpSocket for Gate {
    async fn recv_from(&self, out: &mut [u8]) -> rsipstack::Result<(usize, SocketAddr)> {
        let mut buffer = self.buffer.lock().await;
        loop {
            let (len, from) = match self.socket.recv_from(&mut buffer).await {
                Ok((len, from)) => (len, canonical(from)),
                Err(error) => {
                    // rsipstack would try again at once, for ever.
                    tracing::debug!(%error, "receiving SIP failed");
                    tokio::time::sleep(Duration::from_millis(RECEIVE_ERROR_PAUSE_MS)).await;
                    continue;
                }
            };
            let datagram = buffer.get(..len).unwrap_or(&[]);
            if datagram.iter().all(u8::is_ascii_whitespace) {
                if datagram == PING {
                    let _best_effort = self.send(PONG, from).await;
                }
                continue;
            }
            let link = self.link(from);
            self.wire.came(datagram, &link);
            match self.wire.admit(datagram, from, Framing::Datagram, out.len()) {
                Admitted::Pass(message) => {
                    if let Some(part) = out.get_mut(..message.len()).filter(|_| self.wire.place_now()) {
                        part.copy_from_slice(&message);
                        return Ok((message.len(), from));
                    }
                }
                Admitted::Answer(answer, _) => {
                    self.wire.left(&answer, &link);
                    let _best_effort = self.send(&answer, from).await;
                }
                Admitted::Drop(_) => {}
            }
        }
    }

    async fn send_to(&self, message: &[u8], to: SocketAddr) -> rsipstack::Result<usize> {
        let cleaned = self.wire.outgoing(message, &self.link(canonical(to)));
        self.send(cleaned.as_deref().unwrap_or(message), to).await?;
        Ok(message.len())
    }

    fn local_addr(&self) -> rsipstack::Result<SocketAddr> {
        Ok(self.local)
    }
}
