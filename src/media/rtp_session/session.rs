//! One running session: what happens in its turn each 20 ms, from datagrams to events and from commands to datagrams.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Flowing, MediaStats, NegotiatedMedia, Orders, RtcpPath, SessionEnd};
use crate::media::frame::Frame;
use crate::media::leg::{LegCommand, LegEvent, TransferNews, Wish};
use crate::media::outbox::Outbox;
use crate::media::pacer::{Paced, Turn};
use crate::media::peer::Peer;
use crate::media::playout::FRAME_MS;
use crate::media::port::{MediaPort, RtpPort};
use crate::media::quality::{Impairment, Passage, Quality, SAMPLE_MS, Sample, hundredths};
use crate::media::receive::{Receiver, Taken};
use crate::media::reports::Reports;
use crate::media::rtcp;
use crate::media::send::Sender;
use crate::media::udp::{self, BATCH_DATAGRAMS, Datagram};

/// Batches of datagrams taken in one turn, before the pace comes first again.
pub const BATCHES_PER_TURN: usize = 64;
/// Frames handed over at once after the machine was held up.
pub const CATCH_UP_FRAMES: u32 = 5;
/// Errors of the socket in a row that end the session.
pub const RECEIVE_ERRORS_MAX: u32 = 50;
/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 8;
/// The socket of RTCP alone is looked at each so many turns.
const RTCP_EACH_TURNS: u64 = 10;
/// After so many packets from one address the kernel is told to drop all others.
const CONNECT_AFTER_PACKETS: u32 = 10;

/// What a session leaves behind.
pub(super) struct Over {
    pub why: SessionEnd,
    pub stats: MediaStats,
    pub outbox: Outbox,
    pub unplayed: Vec<LegEvent>,
}

/// See the module.
pub(super) struct Session {
    pub port: MediaPort,
    pub ear: Ear,
    pub sender: Sender,
    pub media: NegotiatedMedia,
    pub commands: mpsc::Receiver<LegCommand>,
    pub told: watch::Receiver<Orders>,
    pub stop: CancellationToken,
    pub timeout: Duration,
    pub hold_timeout: Duration,
    pub flowing: Flowing,
    pub flowing_since: Duration,
    /// To signalling.
    pub wishes: mpsc::Sender<Wish>,
    /// From signalling.
    pub news: mpsc::Receiver<LegEvent>,
    pub quality: Quality,
    pub line: Line,
    pub over: Option<(oneshot::Sender<Over>, Outbox)>,
    /// Of this turn, to be delivered at the slot's end.
    pub frames: Vec<Frame>,
    /// The call did not take the last ones.
    pub undelivered: Option<SessionEnd>,
}

/// The listening half, apart from the sockets that it listens to.
pub(super) struct Ear {
    pub peer: Peer,
    pub receiver: Receiver,
    pub reports: Reports,
    /// Where the peer's RTCP last came from.
    pub rtcp_from: Option<SocketAddr>,
    pub heard_at: Duration,
    pub foreign: u64,
    pub rtcp_received: u64,
    /// Packets in a row from this address.
    pub steady: Option<(SocketAddr, u32)>,
}

/// What is known of the line and of the time on it.
pub(super) struct Line {
    pub epoch: Instant,
    /// When the first turn was: packet times are counted from it.
    pub first: Option<Instant>,
    pub turns: u64,
    pub packet_times: u128,
    pub connected: Option<SocketAddr>,
    pub receive_errors: u32,
    pub packets_sent: u64,
    pub packets_unsent: u64,
    pub rtcp_sent: u64,
    pub sampled_at: Duration,
    pub warned_of_keys: bool,
}

impl Line {
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
            first: None,
            turns: 0,
            packet_times: 0,
            connected: None,
            receive_errors: 0,
            packets_sent: 0,
            packets_unsent: 0,
            rtcp_sent: 0,
            sampled_at: Duration::ZERO,
            warned_of_keys: false,
        }
    }

    /// Packet times since the last turn, by the clock: a late turn stands for all the time that has passed. Turns come a little
    /// early or late, so time is rounded to the nearest.
    fn elapsed(&mut self, now: Instant) -> u32 {
        let first = *self.first.get_or_insert(now);
        let half = Duration::from_millis(FRAME_MS / 2);
        let passed = 1 + (now.saturating_duration_since(first) + half).as_millis() / u128::from(FRAME_MS);
        let elapsed = passed.saturating_sub(std::mem::replace(&mut self.packet_times, passed));
        u32::try_from(elapsed).unwrap_or(u32::MAX).max(1)
    }
}

impl Paced for Session {
    fn turn(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some((over, mut outbox)) = self.over.take() else { return false };
        match self.live(turn, &mut outbox) {
            Ok(()) => {
                self.over = Some((over, outbox));
                true
            }
            Err(why) => {
                // What was told before the end comes before the end.
                while let Ok(event) = self.news.try_recv() {
                    let _call_is_gone = outbox.must_arrive(event);
                }
                self.say_goodbye(turn);
                let stats = self.stats(&outbox);
                let unplayed = self.sender.stop_playing().into_iter().map(LegEvent::from).collect();
                let _nobody_waits = over.send(Over { why, stats, outbox, unplayed });
                false
            }
        }
    }

    fn deliver(&mut self) {
        let Some((_, outbox)) = &mut self.over else { return };
        for frame in self.frames.drain(..) {
            if let Err(undelivered) = outbox.frame(frame) {
                self.undelivered = Some(undelivered.into());
            }
        }
    }
}

impl Session {
    /// One packet time: orders first, then what the peer said goes to the call, then what we say to the peer.
    fn live(&mut self, turn: &mut Turn<'_>, outbox: &mut Outbox) -> Result<(), SessionEnd> {
        if let Some(why) = self.undelivered.take() {
            return Err(why);
        }
        if self.stop.is_cancelled() {
            return Err(SessionEnd::Stopped);
        }
        match self.told.has_changed() {
            Ok(true) => self.ordered(turn.now, outbox)?,
            Ok(false) => {}
            Err(_) => return Err(SessionEnd::Failed),
        }
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) => self.command(command, outbox)?,
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(SessionEnd::HungUp),
            }
        }
        while let Ok(event) = self.news.try_recv() {
            outbox.must_arrive(event)?;
        }
        let now = turn.now.saturating_duration_since(self.line.epoch);
        let elapsed = self.line.elapsed(turn.now);
        self.line.turns += 1;
        self.receive(turn, now, outbox)?;
        match self.flowing {
            Flowing::Both if now.saturating_sub(self.ear.heard_at.max(self.flowing_since)) > self.timeout => {
                return Err(SessionEnd::MediaTimeout);
            }
            // From its beginning: music on hold is nobody who is waited for.
            Flowing::HeldByThem | Flowing::HeldByUs if now.saturating_sub(self.flowing_since) > self.hold_timeout => {
                return Err(SessionEnd::MediaTimeout);
            }
            Flowing::Both => {}
            Flowing::HeldByThem | Flowing::HeldByUs => {
                // What comes is music or nothing. It is heard out, so that the first frame after the hold is new.
                for _ in 0..elapsed.min(CATCH_UP_FRAMES) {
                    let _unheard = self.ear.receiver.frame(now);
                    let _unheard = self.ear.receiver.tone_key();
                }
                self.sender.pass(elapsed);
                self.report(turn, now);
                return Ok(());
            }
        }
        for _ in 0..elapsed.min(CATCH_UP_FRAMES) {
            self.hear(now, outbox)?;
        }
        if self.ear.receiver.surplus() {
            self.hear(now, outbox)?;
        }
        let (datagram, ended) = self.sender.packet(elapsed);
        if let (Some(datagram), Some(to)) = (datagram, self.ear.peer.destination()) {
            let sent = self.send_rtp(&datagram, to);
            // What was not sent is as good as lost on the way: the next one is due in 20 ms.
            match sent {
                Ok(_) => self.line.packets_sent += 1,
                Err(_) => self.line.packets_unsent += 1,
            }
        }
        for ended in ended {
            outbox.must_arrive(ended.into())?;
        }
        self.report(turn, now);
        Ok(())
    }

    /// The next frame, and the key that it may prove.
    fn hear(&mut self, now: Duration, outbox: &mut Outbox) -> Result<(), SessionEnd> {
        self.frames.push(self.ear.receiver.frame(now));
        match self.ear.receiver.tone_key() {
            Some(key) => Ok(outbox.must_arrive(LegEvent::Key(key))?),
            None => Ok(()),
        }
    }

    fn ordered(&mut self, at: Instant, outbox: &mut Outbox) -> Result<(), SessionEnd> {
        let Orders { end, remote, media, flowing } = self.told.borrow_and_update().clone();
        if self.ear.peer.renegotiate(remote) {
            self.disconnect();
            self.ear.rtcp_from = None;
        }
        if media != self.media {
            self.ear.receiver.renegotiate(media.clone());
            self.sender.renegotiate(media.clone());
            self.quality.change(Impairment::of(media.codec));
            self.media = media;
        }
        if flowing != self.flowing {
            match (self.flowing == Flowing::HeldByThem, flowing == Flowing::HeldByThem) {
                (false, true) => outbox.must_arrive(LegEvent::Held)?,
                (true, false) => outbox.must_arrive(LegEvent::Resumed)?,
                (true, true) | (false, false) => {}
            }
            self.flowing = flowing;
            // Waiting begins anew, for whatever is waited for now.
            self.flowing_since = at.saturating_duration_since(self.line.epoch);
        }
        end.map_or(Ok(()), |end| Err(SessionEnd::Told(end)))
    }

    /// Hands a wish on to signalling.
    fn wish(&self, wish: Wish, outbox: &mut Outbox) -> Result<(), SessionEnd> {
        let Err(unheard) = self.wishes.try_send(wish) else { return Ok(()) };
        match unheard.into_inner() {
            Wish::Transfer { .. } => Ok(outbox.must_arrive(LegEvent::Transfer(TransferNews::Refused { status: 503 }))?),
            Wish::Hold | Wish::Resume => Ok(()),
        }
    }

    fn command(&mut self, command: LegCommand, outbox: &mut Outbox) -> Result<(), SessionEnd> {
        match command {
            LegCommand::Play { id, audio } => self.sender.play(id, audio),
            LegCommand::StopPlaying => {
                for ended in self.sender.stop_playing() {
                    outbox.must_arrive(ended.into())?;
                }
            }
            LegCommand::SendKey(key) => {
                if !self.sender.press(key) && !std::mem::replace(&mut self.line.warned_of_keys, true) {
                    tracing::warn!("a key could not be sent: the peer takes no telephone-event, or too many wait");
                }
            }
            LegCommand::Speak(frame) => self.sender.speak(frame),
            LegCommand::Hold => self.wish(Wish::Hold, outbox)?,
            LegCommand::Resume => self.wish(Wish::Resume, outbox)?,
            LegCommand::Transfer { to, instead_of } => self.wish(Wish::Transfer { to, instead_of }, outbox)?,
            LegCommand::HangUp => return Err(SessionEnd::HungUp),
        }
        Ok(())
    }

    /// Takes what has come since the last turn.
    fn receive(&mut self, turn: &mut Turn<'_>, now: Duration, outbox: &mut Outbox) -> Result<(), SessionEnd> {
        let mut result = Ok(());
        let (ear, line) = (&mut self.ear, &mut self.line);
        let port = match &mut self.port {
            MediaPort::Sockets(port) => port,
            MediaPort::Queues(queues) => {
                queues.receive(turn.now, |datagram| ear.take(now, &datagram, outbox, &mut result));
                return result;
            }
        };
        for _ in 0..BATCHES_PER_TURN {
            let got = turn.inbox.receive(&port.rtp, turn.wall, |datagram| ear.take(now, &datagram, outbox, &mut result));
            result?;
            match got {
                Ok(got) => {
                    line.receive_errors = 0;
                    if got < BATCH_DATAGRAMS {
                        break;
                    }
                }
                // An ICMP error for something we sent shows up here, and passes: the peer may not listen yet, or no longer.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    line.receive_errors += 1;
                    if line.receive_errors > RECEIVE_ERRORS_MAX {
                        tracing::warn!(%error, "the RTP socket cannot be read");
                        return Err(SessionEnd::Failed);
                    }
                }
            }
        }
        if let Some(rtcp) = port.rtcp.as_ref().filter(|_| line.turns.is_multiple_of(RTCP_EACH_TURNS)) {
            // An error of this socket costs a report, not a call.
            let _unread = turn.inbox.receive(rtcp, turn.wall, |datagram| ear.rtcp(now.saturating_sub(datagram.age), &datagram));
        }
        self.keep_strangers_out(now);
        Ok(())
    }

    /// The sockets, where they are ours.
    fn sockets(&self) -> Option<&RtpPort> {
        match &self.port {
            MediaPort::Sockets(port) => Some(port),
            MediaPort::Queues(_) => None,
        }
    }

    /// Once the peer sends from where its SDP said, the kernel drops whatever comes from elsewhere before it costs anything. A
    /// learned address is not sure enough for that. When the peer falls silent, all may come again: it may have moved.
    fn keep_strangers_out(&mut self, now: Duration) {
        match (self.line.connected, self.ear.steady) {
            (None, Some((from, count))) if count >= CONNECT_AFTER_PACKETS && self.ear.peer.is_negotiated(from) => {
                if self.sockets().is_some_and(|port| udp::connect(&port.rtp, from).unwrap_or(false)) {
                    self.line.connected = Some(from);
                }
            }
            (Some(_), _) if self.ear.peer.may_have_moved(now) => self.disconnect(),
            (Some(_) | None, _) => {}
        }
    }

    fn disconnect(&mut self) {
        self.ear.steady = None;
        if self.line.connected.take().is_some()
            && let Some(port) = self.sockets()
            && let Err(error) = udp::disconnect(&port.rtp)
        {
            tracing::warn!(%error, "the RTP socket can't be opened to other addresses");
        }
    }

    /// Our report if it is due, and a sample of the line.
    fn report(&mut self, turn: &Turn<'_>, now: Duration) {
        let (sent, heard) = (self.sender.sent(), self.ear.receiver.reception());
        if let Some(report) = self.ear.reports.due(now, turn.wall, sent, heard) {
            self.send_report(report);
        }
        if now.saturating_sub(self.line.sampled_at) >= Duration::from_millis(SAMPLE_MS) {
            self.line.sampled_at = now;
            self.sample();
        }
    }

    fn sample(&mut self) {
        let peer = self.ear.reports.peer_hears();
        self.quality.sample(Sample {
            heard: self.ear.receiver.passage(),
            peer_loss: peer.map(|p| f64::from(p.fraction_lost) / 256.0),
            round_trip: self.ear.reports.round_trip(),
            buffered: self.ear.receiver.delay(),
            peer_jitter: peer.map_or(Duration::ZERO, |p| self.units(p.jitter)),
        });
    }

    /// Units of the RTP clock as time.
    fn units(&self, units: u32) -> Duration {
        Duration::from_micros(u64::from(units) * 1_000_000 / u64::from(self.media.codec.rtp_clock_hz()))
    }

    fn send_rtp(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        match (&self.port, self.line.connected) {
            (MediaPort::Queues(queues), _) => queues.send(bytes),
            (MediaPort::Sockets(port), Some(_)) => port.rtp.send(bytes),
            (MediaPort::Sockets(port), None) => port.rtp.send_to(bytes, to),
        }
    }

    fn send_report(&mut self, report: Vec<u8>) {
        let Some(rtp) = self.ear.peer.destination() else { return };
        let Some(report) = self.sender.seal_rtcp(report) else { return };
        let own_socket = self.sockets().and_then(|port| port.rtcp.as_ref()).filter(|_| self.media.rtcp != RtcpPath::Muxed);
        let sent = match own_socket {
            // Muxed (RFC 5761): on RTP's own socket.
            None => self.send_rtp(&report, rtp),
            Some(socket) => {
                let told = match self.media.rtcp {
                    RtcpPath::At(elsewhere) => Some(elsewhere),
                    RtcpPath::NextPort | RtcpPath::Muxed => rtp.port().checked_add(1).map(|port| SocketAddr::new(rtp.ip(), port)),
                };
                let Some(to) = self.ear.rtcp_from.or(told) else { return };
                socket.send_to(&report, to)
            }
        };
        self.line.rtcp_sent += u64::from(sent.is_ok());
    }

    fn say_goodbye(&mut self, turn: &Turn<'_>) {
        let now = turn.now.saturating_duration_since(self.line.epoch);
        let (sent, heard) = (self.sender.sent(), self.ear.receiver.reception());
        if let Some(report) = self.ear.reports.goodbye(now, turn.wall, sent, heard) {
            self.send_report(report);
        }
        if self.quality.heard.mean().is_none() {
            self.sample();
        }
    }

    fn stats(&self, outbox: &Outbox) -> MediaStats {
        let (keys_sent, keys_unsendable) = self.sender.keys();
        let heard = self.ear.receiver.stats();
        let peer = self.ear.reports.peer_hears();
        let in_ms = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
        let lost = peer.map(|p| u64::try_from(p.cumulative_lost).unwrap_or(0));
        let permille = |lost| Passage { expected: self.line.packets_sent, missed: lost, bursts: 0 }.permille();
        MediaStats {
            packets_foreign: self.ear.foreign,
            packets_sent: self.line.packets_sent,
            packets_unsent: self.line.packets_unsent,
            frames_dropped: outbox.frames_dropped(),
            keys_sent,
            keys_unsendable,
            rtcp_received: self.ear.rtcp_received,
            rtcp_sent: self.line.rtcp_sent,
            mos_x100: self.quality.heard.mean().map(hundredths),
            mos_worst_x100: self.quality.heard.least().map(hundredths),
            rtt_ms: self.ear.reports.round_trip().map(in_ms),
            peer_mos_x100: self.quality.peer.mean().map(hundredths),
            peer_mos_worst_x100: self.quality.peer.least().map(hundredths),
            peer_jitter_ms: peer.map(|p| in_ms(self.units(p.jitter))),
            peer_lost_permille: lost.map(permille),
            ..heard
        }
    }
}

impl Ear {
    /// Takes a datagram, and tells the call of a key, as long as it takes what it is told.
    fn take(&mut self, now: Duration, datagram: &Datagram<'_>, outbox: &mut Outbox, told: &mut Result<(), SessionEnd>) {
        if let (Ok(()), Some(event)) = (*told, self.rtp(now, datagram)) {
            *told = outbox.must_arrive(event).map_err(SessionEnd::from);
        }
    }

    /// Takes a datagram of the RTP socket; perhaps it is the first we hear of a key.
    fn rtp(&mut self, now: Duration, datagram: &Datagram<'_>) -> Option<LegEvent> {
        let Datagram { bytes, from, age } = *datagram;
        let arrived = now.saturating_sub(age);
        if !self.peer.may_be(from, arrived) {
            self.foreign += 1;
            return None;
        }
        if rtcp::is_rtcp(bytes) {
            self.rtcp(arrived, datagram);
            return None;
        }
        let Taken::Valid(key) = self.receiver.take(arrived, bytes) else { return None };
        self.peer.heard_from(from, arrived);
        self.heard_at = self.heard_at.max(arrived);
        self.steady = match self.steady {
            Some((steady, count)) if steady == from => Some((from, count.saturating_add(1))),
            Some(_) | None => Some((from, 1)),
        };
        key.map(LegEvent::Key)
    }

    /// Takes a datagram that may be RTCP. Understood reports count as a sign of life: a telephone that suppresses silence, or
    /// is on hold, sends nothing else.
    fn rtcp(&mut self, arrived: Duration, datagram: &Datagram<'_>) {
        if !self.peer.is_of(datagram.from.ip()) {
            self.foreign += 1;
            return;
        }
        let Some(clear) = self.receiver.open_rtcp(datagram.bytes) else { return };
        if self.reports.take(arrived, clear).is_ok() {
            self.rtcp_received += 1;
            self.rtcp_from = Some(datagram.from);
            self.heard_at = self.heard_at.max(arrived);
        }
    }
}
