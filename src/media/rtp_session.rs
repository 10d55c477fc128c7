//! A leg over RTP: a session receives and orders the peer's packets, sends one of ours each 20 ms, and exchanges RTCP reports.
//! `pacer` gives it its turns; signalling steers it through [`SessionControl`]. The same session serves the service and our
//! softphone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use super::codec::Codec;
pub use super::config::{InbandDtmf, MediaConfig};
pub use super::negotiated::{NegotiatedMedia, RtcpPath, TelephoneEvent};
pub use super::port::{Arrived, MediaError, MediaPort, PACKET_QUEUE_PACKETS, PacketQueues, PacketTransport, RtpPort, bind_port};
pub use super::stats::MediaStats;
use crate::clock::Entropy;
use crate::telemetry::metrics::metrics;

use super::leg::{FarEnd, LegEnd, LegEvent, LegReport, Wish};
use super::outbox::{Outbox, Undelivered};
use super::pacer;
use super::peer::Peer;
use super::quality::{Impairment, Quality};
use super::receive::Receiver;
use super::reports::Reports;
use super::send::Sender;

/// Wishes and news that may wait between a call and its signalling.
pub const SIGNALLING_QUEUE_EVENTS: usize = 32;

mod session;

use session::{Ear, Line, Over, Session};

/// What a session owns.
#[derive(Debug)]
pub struct SessionSetup {
    /// From [`bind_port`], or the queues of another transport.
    pub port: MediaPort,
    /// The SSRC of what we send, where signalling has told it already; otherwise drawn.
    pub ssrc: Option<u32>,
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
        if let Some(mos) = s.mos_x100 {
            all.rtp_mos.observe([], f64::from(mos) / 100.0);
        }
    }
}

/// A running session.
#[derive(Debug)]
pub struct RtpSession {
    control: SessionControl,
    wishes: mpsc::Receiver<Wish>,
    task: JoinHandle<SessionReport>,
}

/// Signalling's hand on a session; clones steer the same one.
#[derive(Clone, Debug)]
pub struct SessionControl {
    orders: Arc<watch::Sender<Orders>>,
    news: mpsc::Sender<LegEvent>,
}

/// Which way audio goes by the last offer and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flowing {
    /// Both ways.
    Both,
    /// The other side has put us on hold: nothing is sent, and nobody is waited for but for the hold's time-out.
    HeldByThem,
    /// We have put the other side on hold: nothing is sent or handed over.
    HeldByUs,
}

#[derive(Clone, Debug)]
struct Orders {
    end: Option<LegEnd>,
    remote: SocketAddr,
    media: NegotiatedMedia,
    flowing: Flowing,
}

impl SessionControl {
    /// Hold and resume, by either side. The call hears of the other side's.
    pub fn flow(&self, flowing: Flowing) {
        self.orders.send_if_modified(|orders| std::mem::replace(&mut orders.flowing, flowing) != flowing);
    }

    /// What signalling has to tell the call, in its turn. False: the call doesn't listen.
    pub fn tell(&self, event: LegEvent) -> bool {
        self.news.try_send(event).is_ok()
    }

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

    /// What the call wishes of its signalling, and [`RtpSession::finished`].
    pub fn into_parts(self) -> (mpsc::Receiver<Wish>, impl Future<Output = SessionReport>) {
        (self.wishes, report(self.task))
    }

    /// Waits for the end. Dropping this future (or the session) does not end the task.
    pub async fn finished(self) -> SessionReport {
        report(self.task).await
    }
}

async fn report(task: JoinHandle<SessionReport>) -> SessionReport {
    task.await.unwrap_or(SessionReport { why: SessionEnd::Failed, stats: MediaStats::default() })
}

/// Starts a session. From the start the call hears a frame for every 20 ms that pass (silence before the first packet and in
/// pauses of the peer, made-up sound in gaps), so that counting frames is measuring time. `entropy` gives SSRC, first sequence
/// number, first timestamp and RTCP's name and timing.
pub fn start(config: &MediaConfig, setup: SessionSetup, entropy: &dyn Entropy) -> RtpSession {
    let SessionSetup { port, ssrc, remote, signalled, media, far, stop } = setup;
    let (orders, told) = watch::channel(Orders { end: None, remote, media: media.clone(), flowing: Flowing::Both });
    let (news_sender, news) = mpsc::channel(SIGNALLING_QUEUE_EVENTS);
    let (wishes_sender, wishes) = mpsc::channel(SIGNALLING_QUEUE_EVENTS);
    let control = SessionControl { orders: Arc::new(orders), news: news_sender };
    let codec = media.codec;
    let sender = Sender::new(media.clone(), entropy).with_ssrc(ssrc).with_tones(config.inband_dtmf != InbandDtmf::Off);
    // RFC 7022 section 4.2: a name for this call only.
    let cname = hex::encode(entropy.bytes::<12>());
    let reports = Reports::new(sender.ssrc(), cname, u64::from_le_bytes(entropy.bytes()), Duration::ZERO);
    let (over, ended) = oneshot::channel();
    let session = Session {
        port,
        ear: Ear {
            peer: Peer::new(remote).signalled_from(signalled),
            receiver: Receiver::new(config, media.clone()),
            reports,
            rtcp_from: None,
            heard_at: Duration::ZERO,
            foreign: 0,
            rtcp_received: 0,
            steady: None,
        },
        sender,
        quality: Quality::new(Impairment::of(codec)),
        media,
        commands: far.commands,
        told,
        stop,
        timeout: config.media_timeout(),
        hold_timeout: config.hold_timeout(),
        flowing: Flowing::Both,
        flowing_since: Duration::ZERO,
        wishes: wishes_sender,
        news,
        line: Line::new(),
        over: Some((over, Outbox::new(far.events))),
        frames: Vec::new(),
        undelivered: None,
    };
    pacer::pace(Box::new(session));
    // The task keeps the sending side, so that dropped controls do not look like orders.
    let keep = control.clone();
    let task = tokio::spawn(async move {
        let report = match ended.await {
            Ok(Over { why, stats, outbox, unplayed }) => {
                outbox.finish(unplayed, why.leg_end()).await;
                tracing::debug!(?why, ?stats, "media session ended");
                SessionReport { why, stats }
            }
            Err(_) => SessionReport { why: SessionEnd::Failed, stats: MediaStats::default() },
        };
        report.count(codec.encoding_name());
        let _nobody_keeps_records = far.report.send(LegReport { end: report.why.leg_end(), stats: report.stats });
        drop(keep);
        report
    });
    RtpSession { control, wishes, task }
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
mod load;
#[cfg(test)]
mod tests;
