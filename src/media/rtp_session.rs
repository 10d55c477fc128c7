//! A leg over UDP: one task owns the socket, receives and orders the peer's packets, paces ours at one each 20 ms.
//! The same session serves the service and our softphone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use super::codec::Codec;
pub use super::config::MediaConfig;
pub use super::negotiated::{NegotiatedMedia, TelephoneEvent};
pub use super::stats::MediaStats;
use crate::clock::Entropy;
use crate::telemetry::metrics::metrics;

use super::leg::{FarEnd, LegCommand, LegEnd, LegEvent, LegReport};
use super::outbox::{Outbox, Undelivered};
use super::peer::Peer;
use super::playout::FRAME_MS;
use super::receive::{Receiver, Taken};
use super::send::Sender;

/// Longest datagram that is read; a longer one is cut and then refused.
pub const DATAGRAM_MAX_BYTES: usize = 2_048;
/// Packets taken in one packet time before the pace comes first again.
pub const RECEIVE_PER_TICK_PACKETS: usize = 64;
/// Frames handed over at once after this task was kept waiting.
pub const CATCH_UP_FRAMES: u32 = 5;
/// Errors of the socket in a row that end the session.
pub const RECEIVE_ERRORS_MAX: u32 = 50;

/// What a session owns.
#[derive(Debug)]
pub struct SessionSetup {
    /// From [`bind_port`].
    pub socket: UdpSocket,
    /// The peer's address from its SDP. Packets from another IP are ignored; another port of the same IP is learned from
    /// the first valid packet (symmetric RTP, RFC 4961). Port 0 or an unspecified address: nothing is sent (hold).
    pub remote: SocketAddr,
    /// Where its signalling came from, if audio may come from there too.
    pub signalled: Option<IpAddr>,
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

    /// As the call is told it; `None`: the call itself hung up.
    fn leg_end(self) -> Option<LegEnd> {
        match self {
            Self::HungUp => None,
            Self::Told(end) => Some(end),
            Self::MediaTimeout => Some(LegEnd::MediaTimeout),
            Self::Failed | Self::Stopped => Some(LegEnd::Failed),
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

impl SessionReport {
    /// Adds it to the process's metrics.
    fn count(&self, codec: &str) {
        let (all, s) = (metrics(), &self.stats);
        all.media_sessions.inc([codec]);
        for (fate, packets) in [
            ("received", s.packets_received),
            ("lost", s.packets_lost),
            ("late", s.packets_late),
            ("duplicate", s.packets_duplicate),
            ("overflowed", s.packets_overflowed),
            ("malformed", s.packets_malformed),
            ("foreign", s.packets_foreign),
            ("sent", s.packets_sent),
            ("unsent", s.packets_unsent),
        ] {
            all.rtp_packets.add([fate], packets);
        }
        all.rtp_concealed.add([], Duration::from_millis(s.concealed_ms).as_secs_f64());
        all.rtp_jitter.observe_time([], Duration::from_millis(s.max_jitter_ms));
    }
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
    orders: Arc<watch::Sender<Orders>>,
}

#[derive(Clone, Debug)]
struct Orders {
    end: Option<LegEnd>,
    remote: SocketAddr,
    media: NegotiatedMedia,
}

impl SessionControl {
    /// The peer hung up, gave up or failed: the call hears `Ended(end)` as its last event. The first end counts.
    pub fn end(&self, end: LegEnd) {
        self.orders.send_if_modified(|orders| {
            let first = orders.end.is_none();
            orders.end.get_or_insert(end);
            first
        });
    }

    /// Another offer and answer (re-INVITE): address, codec, payload types. SSRC, sequence numbers and timestamps go on.
    pub fn renegotiate(&self, remote: SocketAddr, media: NegotiatedMedia) {
        self.orders.send_if_modified(|orders| {
            let changed = orders.remote != remote || orders.media != media;
            (orders.remote, orders.media) = (remote, media);
            changed
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

/// Starts the session's task. From the start the call hears a frame for every 20 ms that pass (silence before the first
/// packet and in pauses of the peer, made-up sound in gaps), so that counting frames is measuring time. `entropy` gives SSRC, first sequence number and first timestamp.
pub fn start(config: &MediaConfig, setup: SessionSetup, entropy: &dyn Entropy) -> RtpSession {
    let SessionSetup { socket, remote, signalled, media, far, stop } = setup;
    let (orders, told) = watch::channel(Orders { end: None, remote, media: media.clone() });
    let control = SessionControl { orders: Arc::new(orders) };
    let codec = media.codec;
    let session = Session {
        socket,
        peer: Peer::new(remote).signalled_from(signalled),
        receiver: Receiver::new(config, media.clone()),
        sender: Sender::new(media.clone(), entropy),
        media,
        outbox: Outbox::new(far.events),
        timeout: config.media_timeout(),
        epoch: Instant::now(),
        heard_at: Duration::ZERO,
        packets_foreign: 0,
        packets_sent: 0,
        packets_unsent: 0,
        receive_errors: 0,
        warned_of_keys: false,
    };
    // The task keeps the sending side, so that dropped controls do not look like orders.
    let keep = control.clone();
    let task = tokio::spawn(async move {
        let report = session.run(far.commands, told, stop).await;
        report.count(codec.encoding_name());
        let _nobody_keeps_records = far.report.send(LegReport { end: report.why.leg_end(), stats: report.stats });
        drop(keep);
        report
    });
    RtpSession { control, task }
}

struct Session {
    socket: UdpSocket,
    peer: Peer,
    receiver: Receiver,
    sender: Sender,
    media: NegotiatedMedia,
    outbox: Outbox,
    timeout: Duration,
    epoch: Instant,
    heard_at: Duration,
    packets_foreign: u64,
    packets_sent: u64,
    packets_unsent: u64,
    receive_errors: u32,
    warned_of_keys: bool,
}

impl Session {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<LegCommand>,
        mut told: watch::Receiver<Orders>,
        stop: CancellationToken,
    ) -> SessionReport {
        let frame = Duration::from_millis(FRAME_MS);
        let mut ticks = tokio::time::interval_at(self.epoch + frame, frame);
        // A missed packet time is missed: a burst would only fill the peer's jitter buffer.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut packet_times = 0u128;
        let mut buffer = [0u8; DATAGRAM_MAX_BYTES];
        let why = loop {
            // In order of urgency: a flood of packets must hold up neither the end nor the pace.
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => Err(SessionEnd::Stopped),
                changed = told.changed() => self.ordered(changed.is_ok().then(|| told.borrow_and_update().clone())),
                _ = ticks.tick() => {
                    // By the clock, not by the tick: a late tick stands for all the time that has passed.
                    let passed = self.epoch.elapsed().as_millis() / u128::from(FRAME_MS);
                    let elapsed = passed.saturating_sub(std::mem::replace(&mut packet_times, passed));
                    if elapsed > 1 {
                        // This task was kept waiting: let the runtime look at the socket before the gap counts as loss.
                        tokio::task::yield_now().await;
                    }
                    self.tick(u32::try_from(elapsed).unwrap_or(u32::MAX).max(1), &mut buffer)
                }
                command = commands.recv() => self.command(command),
                received = self.socket.recv_from(&mut buffer) => {
                    self.received(received, &buffer)
                }
            };
            if let Err(why) = done {
                break why;
            }
        };
        self.finish(why).await
    }

    fn ordered(&mut self, orders: Option<Orders>) -> Result<(), SessionEnd> {
        let Some(Orders { end, remote, media }) = orders else { return Err(SessionEnd::Failed) };
        self.peer.renegotiate(remote);
        if media != self.media {
            self.receiver.renegotiate(media.clone());
            self.sender.renegotiate(media.clone());
            self.media = media;
        }
        end.map_or(Ok(()), |end| Err(SessionEnd::Told(end)))
    }

    fn command(&mut self, command: Option<LegCommand>) -> Result<(), SessionEnd> {
        match command {
            Some(LegCommand::Play { id, audio }) => self.sender.play(id, audio),
            Some(LegCommand::StopPlaying) => {
                for ended in self.sender.stop_playing() {
                    self.outbox.must_arrive(ended.into())?;
                }
            }
            Some(LegCommand::SendKey(key)) => {
                if !self.sender.press(key) && !std::mem::replace(&mut self.warned_of_keys, true) {
                    tracing::warn!("a key could not be sent: the peer takes no telephone-event, or too many wait");
                }
            }
            Some(LegCommand::HangUp) | None => return Err(SessionEnd::HungUp),
        }
        Ok(())
    }

    /// One packet time (more if some were missed): what the peer said goes to the call, what we say to the peer.
    fn tick(&mut self, elapsed: u32, buffer: &mut [u8]) -> Result<(), SessionEnd> {
        for _ in 0..RECEIVE_PER_TICK_PACKETS {
            match self.socket.try_recv_from(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                received => self.received(received, buffer)?,
            }
        }
        let now = self.epoch.elapsed();
        if now.saturating_sub(self.heard_at) > self.timeout {
            return Err(SessionEnd::MediaTimeout);
        }
        for _ in 0..elapsed.min(CATCH_UP_FRAMES) {
            self.outbox.frame(self.receiver.frame(now))?;
        }
        if self.receiver.surplus() {
            self.outbox.frame(self.receiver.frame(now))?;
        }
        let (datagram, ended) = self.sender.packet(elapsed);
        if let (Some(datagram), Some(to)) = (datagram, self.peer.destination()) {
            match self.socket.try_send_to(&datagram, to) {
                Ok(_) => self.packets_sent += 1,
                // As good as lost on the way: the next one is due in 20 ms.
                Err(_) => self.packets_unsent += 1,
            }
        }
        for ended in ended {
            self.outbox.must_arrive(ended.into())?;
        }
        Ok(())
    }

    fn received(&mut self, received: std::io::Result<(usize, SocketAddr)>, buffer: &[u8]) -> Result<(), SessionEnd> {
        let (length, from) = match received {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error for something we sent shows up here, and passes.
                self.receive_errors += 1;
                if self.receive_errors > RECEIVE_ERRORS_MAX {
                    tracing::warn!(%error, "the RTP socket cannot be read");
                    return Err(SessionEnd::Failed);
                }
                return Ok(());
            }
        };
        self.receive_errors = 0;
        let now = self.epoch.elapsed();
        if !self.peer.may_be(from, now) {
            self.packets_foreign += 1;
            return Ok(());
        }
        match self.receiver.take(now, buffer.get(..length).unwrap_or_default()) {
            Taken::Malformed => Ok(()),
            Taken::Valid(key) => {
                self.peer.heard_from(from, now);
                self.heard_at = now;
                match key {
                    Some(key) => Ok(self.outbox.must_arrive(LegEvent::Key(key))?),
                    None => Ok(()),
                }
            }
        }
    }

    async fn finish(mut self, why: SessionEnd) -> SessionReport {
        let (keys_sent, keys_unsendable) = self.sender.keys();
        let stats = MediaStats {
            packets_foreign: self.packets_foreign,
            packets_sent: self.packets_sent,
            packets_unsent: self.packets_unsent,
            frames_dropped: self.outbox.frames_dropped(),
            keys_sent,
            keys_unsendable,
            ..self.receiver.stats()
        };
        let end = why.leg_end();
        let unplayed = self.sender.stop_playing();
        self.outbox.finish(unplayed.into_iter().map(LegEvent::from), end).await;
        tracing::debug!(?why, ?stats, "media session ended");
        SessionReport { why, stats }
    }
}

impl From<Undelivered> for SessionEnd {
    fn from(undelivered: Undelivered) -> Self {
        match undelivered {
            Undelivered::Gone => Self::HungUp,
            Undelivered::Stuck => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests;
