//! Between a connection and the media session: packets both ways, and what the connection's states mean for the call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use ::webrtc::media_stream::track_local::{TrackLocal, TrackLocalEvent};
use ::webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use ::webrtc::peer_connection::RTCPeerConnectionState as Connected;
use rtc::peer_connection::transport::RTCDtlsTransportState;
use rtc::shared::marshal::{Marshal, Unmarshal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, News};
use crate::clock::Entropy;
use crate::media::config::MediaConfig;
use crate::media::leg::{self, Leg, LegEnd, LegInfo};
use crate::media::rtcp;
use crate::media::rtp_session::{self, Arrived, Flowing, MediaPort, PacketQueues, PacketTransport, SessionControl, SessionSetup};

/// How often it is looked whether the page has closed its end, which the crate says of a transport but tells nobody, and whether it still
/// sends, in milliseconds.
const LOOK_MS: u64 = 250;
/// Last packets are on their way and in the page's jitter buffer when a call is over, in milliseconds.
const LAST_WORDS_MS: u64 = 250;

/// How a page's line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineState {
    /// Not yet up.
    Connecting,
    /// Audio flows.
    Up,
    /// Nothing comes: it is waited for.
    Lost,
    /// Gone.
    Over,
}

/// One page's call below its leg.
pub(super) struct Line {
    pub(super) connection: Connection,
    pub(super) info: LegInfo,
    pub(super) begun: Instant,
    pub(super) connect_wait: Duration,
    /// A page that sends nothing for so long is lost.
    pub(super) lost: Duration,
    pub(super) media: Arc<MediaConfig>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) leg: oneshot::Sender<Leg>,
    pub(super) state: watch::Sender<LineState>,
    pub(super) left: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl Line {
    /// Until the call is over.
    pub(super) async fn live(mut self) {
        let Some(tracks) = self.connected().await else {
            self.state.send_replace(LineState::Over);
            let _best_effort = self.connection.peer.close().await;
            return;
        };
        let Self { connection, info, begun, connect_wait: _, lost, media, entropy, leg, state, left, stop } = self;
        let Connection { peer, track, transport, ssrc, answer: _, media: settled, mut news } = connection;
        let setup_ms = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
        let (near, far) = leg::pair(LegInfo { setup_ms, ..info });
        let (queues, PacketTransport { heard, mut said }) = PacketQueues::new();
        let setup = SessionSetup {
            port: MediaPort::Queues(queues),
            ssrc: Some(ssrc),
            remote: PacketQueues::peer(),
            signalled: None,
            media: settled,
            far,
            stop: stop.clone(),
        };
        let session = rtp_session::start(&media, setup, entropy.as_ref());
        let control = session.control();
        state.send_replace(LineState::Up);
        // Nobody takes it: the leg is dropped, and the session ends by that.
        let _untaken = leg.send(near);
        let mut readers = JoinSet::new();
        readers.spawn(hear_reports(Arc::clone(&track), heard.clone()));
        let ear = Ear { heard, last: Arc::new(Mutex::new(Instant::now())) };
        for remote in tracks {
            readers.spawn(hear(remote, ear.clone()));
        }
        let mut gone = false;
        let mut looks = tokio::time::interval(Duration::from_millis(LOOK_MS));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                packet = said.recv() => match packet {
                    Some(packet) => say(&track, &packet).await,
                    None => break,
                },
                told = news.recv() => match told {
                    Some(News::Track(remote)) => { readers.spawn(hear(remote, ear.clone())); }
                    Some(News::State(Connected::Closed)) => control.end(LegEnd::Caller),
                    // ICE gives up where no check comes; a page that is heard is there.
                    Some(News::State(Connected::Failed)) if ear.silent_for() >= lost => control.end(LegEnd::MediaTimeout),
                    Some(News::State(_)) => {}
                    None => control.end(LegEnd::Failed),
                },
                _ = looks.tick(), if !gone => {
                    if matches!(transport.state().await, Ok(RTCDtlsTransportState::Closed) | Err(_)) {
                        gone = true;
                        control.end(LegEnd::Caller);
                    }
                    follow(ear.silent_for(), lost, &control, &state);
                }
                () = left.cancelled(), if !gone => {
                    gone = true;
                    control.end(LegEnd::Caller);
                }
            }
        }
        let report = session.finished().await;
        tracing::debug!(why = ?report.why, "a browser call's media is over");
        tokio::time::sleep(Duration::from_millis(LAST_WORDS_MS)).await;
        readers.shutdown().await;
        state.send_replace(LineState::Over);
        let _best_effort = peer.close().await;
    }

    /// Waits until audio can flow; what tracks came with that. `None`: it never will.
    async fn connected(&mut self) -> Option<Vec<Arc<dyn TrackRemote>>> {
        let until = self.begun + self.connect_wait;
        let mut tracks = Vec::new();
        loop {
            let told = tokio::select! {
                told = self.connection.news.recv() => told,
                () = tokio::time::sleep_until(until) => return None,
                () = self.left.cancelled() => return None,
                () = self.stop.cancelled() => return None,
                // Whoever wanted the leg is gone.
                () = self.leg.closed() => return None,
            };
            match told {
                Some(News::State(Connected::Connected)) => return Some(tracks),
                Some(News::State(Connected::Failed | Connected::Closed)) | None => return None,
                Some(News::State(_)) => {}
                Some(News::Track(track)) => tracks.push(track),
            }
        }
    }
}

/// What a page's silence means for its call. A browser sends packets all the time, a muted one too, so that it is told by them alone whether
/// it is there: ICE's own "disconnected" comes late or, on a busy machine, of a page that is well heard. Who is lost is on hold, so that no
/// deadline of theirs passes and nothing is said to nobody.
fn follow(silent: Duration, lost: Duration, control: &SessionControl, state: &watch::Sender<LineState>) {
    let now = if silent >= lost { LineState::Lost } else { LineState::Up };
    let changed = state.send_if_modified(|state| std::mem::replace(state, now) != now);
    match (changed, now) {
        (true, LineState::Lost) => control.flow(Flowing::HeldByThem),
        (true, LineState::Up) => control.flow(Flowing::Both),
        (_, LineState::Connecting | LineState::Over) | (false, _) => {}
    }
}

/// Where a page's packets go, and when the last one came.
#[derive(Clone)]
struct Ear {
    heard: mpsc::Sender<Arrived>,
    last: Arc<Mutex<Instant>>,
}

impl Ear {
    /// What finds no room is lost, as on a line.
    fn take(&self, bytes: Vec<u8>) {
        let at = Instant::now();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = at;
        let _full = self.heard.try_send(Arrived { at, bytes });
    }

    fn silent_for(&self) -> Duration {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// One of our packets to the page.
async fn say(track: &TrackLocalStaticRTP, packet: &[u8]) {
    let mut rest = packet;
    let sent = if rtcp::is_rtcp(packet) {
        match rtc::rtcp::packet::unmarshal(&mut rest) {
            Ok(reports) => track.write_rtcp(reports).await,
            Err(error) => Err(error),
        }
    } else {
        match rtc::rtp::Packet::unmarshal(&mut rest) {
            Ok(packet) => track.write_rtp(packet).await,
            Err(error) => Err(error),
        }
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a packet to a page was not sent");
    }
}

/// The page's audio, until its track ends.
async fn hear(track: Arc<dyn TrackRemote>, ear: Ear) {
    while let Some(event) = track.poll().await {
        let bytes = match event {
            TrackRemoteEvent::OnRtpPacket(packet) => packet.marshal().ok().map(|bytes| bytes.to_vec()),
            TrackRemoteEvent::OnRtcpPacket(reports) => Some(compound(&reports)),
            _ => None,
        };
        if let Some(bytes) = bytes {
            ear.take(bytes);
        }
    }
}

/// What the page says of our audio.
async fn hear_reports(track: Arc<TrackLocalStaticRTP>, heard: mpsc::Sender<Arrived>) {
    while let Some(TrackLocalEvent::OnRtcpPacket(reports)) = track.poll().await {
        let _full = heard.try_send(Arrived { at: Instant::now(), bytes: compound(&reports) });
    }
}

fn compound(reports: &[Box<dyn rtc::rtcp::Packet>]) -> Vec<u8> {
    reports.iter().filter_map(|report| report.marshal().ok()).fold(Vec::new(), |mut all, bytes| {
        all.extend_from_slice(&bytes);
        all
    })
}
