//! A peer connection for one call: built, given the page's offer, answered. Audio alone, Opus before PCMU, keys as packets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::webrtc::media_stream::MediaStreamTrack;
use ::webrtc::media_stream::track_local::TrackLocal;
use ::webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use ::webrtc::media_stream::track_remote::TrackRemote;
use ::webrtc::peer_connection::transport::DtlsTransport;
use ::webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceGatheringState, RTCIceServer, RTCPeerConnectionState, RTCSessionDescription, SettingEngineBuilder,
};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use tokio::sync::{mpsc, watch};

use super::AnswerError;
use super::config::{Ice, WebrtcConfig};
use super::offer::{self, OfferFault};
use super::reports;
use crate::clock::Entropy;
use crate::media::codec::Codec;
use crate::media::negotiated::NegotiatedMedia;

/// News of a connection that may wait.
const NEWS_QUEUE: usize = 32;
/// Ports that are tried.
const PORT_LIMIT_TRIES: u32 = 32;
/// How long our own candidates are waited for, in milliseconds: a page is told all of them at once. Addresses of our own take none of it.
const GATHER_WAIT_MS: u64 = 1_500;
/// Between signs of life of ours, in milliseconds (RFC 7675 asks for each 5 s at least).
const KEEPALIVE_MS: u64 = 1_000;
/// Opus as RFC 7587 section 6.1 names it: FEC, so that a lost packet is in the next one. No DTX: silence is packets, and their absence means that the page is lost.
const OPUS_FMTP: &str = "minptime=10;useinbandfec=1;stereo=0;usedtx=0";

/// What a connection tells.
pub(super) enum News {
    State(RTCPeerConnectionState),
    Track(Arc<dyn TrackRemote>),
}

/// A connection whose answer is made.
pub(super) struct Connection {
    pub(super) peer: Arc<dyn PeerConnection>,
    /// What we say goes here.
    pub(super) track: Arc<TrackLocalStaticRTP>,
    /// Under it: the crate tells of a connection's end that we make, not of one that the page makes (`close_notify`).
    pub(super) transport: Arc<dyn DtlsTransport>,
    pub(super) ssrc: u32,
    pub(super) answer: String,
    pub(super) media: NegotiatedMedia,
    pub(super) news: mpsc::Receiver<News>,
}

struct Teller {
    news: mpsc::Sender<News>,
    gathered: watch::Sender<bool>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Teller {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        // The driver must not wait for us; a line that lags by so much ends by its own clocks.
        let _full = self.news.try_send(News::State(state));
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _full = self.news.try_send(News::Track(track));
    }
}

fn failed(error: impl std::fmt::Display) -> AnswerError {
    AnswerError::Failed(error.to_string())
}

/// What is answered: one codec and its keys, under the offer's own numbers.
fn codecs(media: &NegotiatedMedia) -> Vec<RTCRtpCodecParameters> {
    let parameters = |mime: &str, clock_rate, channels, fmtp: &str, payload_type| RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: mime.to_owned(),
            clock_rate,
            channels,
            sdp_fmtp_line: fmtp.to_owned(),
            rtcp_feedback: Vec::new(),
        },
        payload_type,
    };
    let codec = media.codec;
    let name = format!("audio/{}", codec.encoding_name());
    // Without a format: see `offer::without_format`.
    let speech = parameters(&name, codec.rtp_clock_hz(), u16::from(codec.rtpmap_channels()), "", media.payload_type);
    let keys = media.telephone_event.map(|e| parameters("audio/telephone-event", e.clock_hz, 1, "0-15", e.payload_type));
    std::iter::once(speech).chain(keys).collect()
}

impl Connection {
    /// Builds a connection and answers this offer, which was looked at.
    pub(super) async fn answer(config: &WebrtcConfig, entropy: &dyn Entropy, offer: &str) -> Result<Self, AnswerError> {
        // Read first: what can't be read needs no port.
        let media = offer::settled(offer).ok_or(OfferFault::NoCommonCodec)?;
        let described = RTCSessionDescription::offer(offer::without_format(offer, media.payload_type)).map_err(malformed)?;
        let (news_tx, news) = mpsc::channel(NEWS_QUEUE);
        let (gathered_tx, mut gathered) = watch::channel(false);
        let teller = Arc::new(Teller { news: news_tx, gathered: gathered_tx });
        let peer = bind(config, entropy, &media, &teller).await?;
        let made = Self::agree(&peer, entropy, &media, described, &mut gathered).await;
        let (track, transport, ssrc, answer) = match made {
            Ok(made) => made,
            Err(error) => {
                let _best_effort = peer.close().await;
                return Err(error);
            }
        };
        let mut answer = published(&answer, &config.public_addresses);
        // The crate knows of no formats: what we ask for is told here. The answer's only section is its last, too.
        if media.codec == Codec::Opus {
            answer += &format!("a=fmtp:{} {OPUS_FMTP}\r\n", media.payload_type);
        }
        Ok(Self { peer, track, transport, ssrc, answer, media, news })
    }

    async fn agree(
        peer: &Arc<dyn PeerConnection>,
        entropy: &dyn Entropy,
        media: &NegotiatedMedia,
        offer: RTCSessionDescription,
        gathered: &mut watch::Receiver<bool>,
    ) -> Result<(Arc<TrackLocalStaticRTP>, Arc<dyn DtlsTransport>, u32, String), AnswerError> {
        peer.set_remote_description(offer).await.map_err(malformed)?;
        // Zero would stand for none.
        let ssrc = u32::from_be_bytes(entropy.bytes()).max(1);
        let encodings = codecs(media).into_iter().take(1).map(|speech| RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..RTCRtpCodingParameters::default() },
            active: true,
            codec: speech.rtp_codec,
            ..RTCRtpEncodingParameters::default()
        });
        let track = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
            "voicepay".to_owned(),
            "voice".to_owned(),
            "Voicepay".to_owned(),
            RtpCodecKind::Audio,
            encodings.collect(),
        )));
        let sender = peer.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await.map_err(failed)?;
        let answer = peer.create_answer(None).await.map_err(malformed)?;
        peer.set_local_description(answer).await.map_err(failed)?;
        let wait = Duration::from_millis(GATHER_WAIT_MS);
        let all = tokio::time::timeout(wait, gathered.wait_for(|done| *done)).await.is_ok();
        if !all {
            tracing::debug!("not all candidates came in time: the page is told those that did");
        }
        let local = peer.local_description().await.ok_or_else(|| failed("no answer was made"))?;
        let transport = sender.transport().await.map_err(failed)?.ok_or_else(|| failed("the answer has no transport"))?;
        Ok((track, transport, ssrc, local.sdp))
    }
}

fn malformed(error: impl std::fmt::Display) -> AnswerError {
    OfferFault::Malformed(format!("could not be applied: {error}")).into()
}

/// A connection on a free port.
async fn bind(
    config: &WebrtcConfig,
    entropy: &dyn Entropy,
    media: &NegotiatedMedia,
    teller: &Arc<Teller>,
) -> Result<Arc<dyn PeerConnection>, AnswerError> {
    let count = u32::from(config.port_max) + 1 - u32::from(config.port_min);
    let any = config.port_min == 0;
    let start = entropy.below(count);
    let mut last = String::new();
    for n in 0..if any { 1 } else { count.min(PORT_LIMIT_TRIES) } {
        let port = u32::from(config.port_min) + (start + n) % count;
        let port = if any { 0 } else { u16::try_from(port).unwrap_or(config.port_max) };
        let addresses: Vec<SocketAddr> = config.bind_addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        match build(config, addresses, media, teller).await {
            Ok(peer) => return Ok(peer),
            Err(error) => last = error.to_string(),
        }
    }
    tracing::warn!(error = last, "no browser call could be bound");
    Err(AnswerError::Busy("no UDP port is free for another browser call: widen webrtc.port_min..port_max".into()))
}

async fn build(
    config: &WebrtcConfig,
    addresses: Vec<SocketAddr>,
    media: &NegotiatedMedia,
    teller: &Arc<Teller>,
) -> Result<Arc<dyn PeerConnection>, ::webrtc::error::Error> {
    let mut engine = MediaEngine::default();
    for parameters in codecs(media) {
        engine.register_codec(parameters, RtpCodecKind::Audio)?;
    }
    // Later than by our own clocks (`line`): its checks come each 2.5 s at best.
    let lost = Duration::from_millis(config.lost_ms.into()) * 2;
    let failed = Duration::from_millis(config.reconnect_wait_ms.into());
    let settings = SettingEngineBuilder::new()
        .with_lite(config.ice == Ice::Lite)
        .with_ice_timeouts(Some(lost), Some(failed), Some(Duration::from_millis(KEEPALIVE_MS)))
        // Names that hide addresses are nobody's whom we could reach: the page reaches us.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_include_loopback_candidate(true)
        .build();
    let servers = match config.ice {
        Ice::Lite => Vec::new(),
        Ice::Full => config
            .ice_servers
            .iter()
            .map(|server| RTCIceServer {
                urls: server.urls.iter().filter(|url| url.starts_with("stun:")).cloned().collect(),
                ..RTCIceServer::default()
            })
            .filter(|server| !server.urls.is_empty())
            .collect(),
    };
    let peer = PeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().with_ice_servers(servers).build())
        .with_media_engine(engine)
        .with_setting_engine(settings)
        .with_interceptor_registry(reports::registry())
        .with_handler(Arc::clone(teller) as Arc<dyn PeerConnectionEventHandler>)
        .with_udp_addrs(addresses)
        .build()
        .await?;
    Ok(Arc::new(peer))
}

/// Our description as pages are told it: under a 1:1 NAT our candidates carry the addresses outside.
pub(super) fn published(sdp: &str, public: &[IpAddr]) -> String {
    if public.is_empty() {
        return sdp.to_owned();
    }
    let mut all = String::with_capacity(sdp.len());
    for line in sdp.lines().map(str::trim_end) {
        let Some(value) = line.strip_prefix("a=candidate:") else {
            all += line;
            all += "\r\n";
            continue;
        };
        let words: Vec<&str> = value.split_whitespace().collect();
        for ip in public {
            let address = ip.to_string();
            let moved = words.iter().enumerate().map(|(at, word)| if at == 4 { address.as_str() } else { *word });
            let same_family =
                words.get(4).and_then(|old| old.parse::<IpAddr>().ok()).is_some_and(|old| old.is_ipv4() == ip.is_ipv4());
            if same_family {
                all += "a=candidate:";
                all += &moved.collect::<Vec<_>>().join(" ");
                all += "\r\n";
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_told_by_their_outer_address() {
        let sdp = "v=0\r\na=candidate:1 1 udp 2130706431 10.0.0.5 41000 typ host\r\na=end-of-candidates\r\n";
        assert_eq!(published(sdp, &[]), sdp);
        let outer = ["198.51.100.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        assert_eq!(
            published(sdp, &outer),
            sdp.replace("10.0.0.5", "198.51.100.7"),
            "an address of the other family is nobody's here"
        );
    }
}
