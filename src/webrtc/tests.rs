//! A page of the same crate calls over loopback: audio and keys both ways, going, losing, coming back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::webrtc::media_stream::MediaStreamTrack;
use ::webrtc::media_stream::track_local::TrackLocal;
use ::webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use ::webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use ::webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionState,
    RTCSessionDescription, SettingEngineBuilder,
};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::peer_connection::transport::RTCDtlsTransportState;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::*;
use crate::clock::SeededEntropy;
use crate::media::codec::Codec;
use crate::media::frame::SampleRate;
use crate::media::leg::{Key, LegCommand, LegEnd, LegEvent, Sound};
use crate::media::negotiated::OpusBitrate;

const SSRC: u32 = 77;

struct Watching {
    gathered: watch::Sender<bool>,
    state: watch::Sender<RTCPeerConnectionState>,
    tracks: mpsc::Sender<Arc<dyn TrackRemote>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Watching {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let _full = self.tracks.try_send(track);
    }
}

/// A page with a microphone.
struct Browser {
    peer: Arc<dyn PeerConnection>,
    microphone: Arc<TrackLocalStaticRTP>,
    codec: Codec,
    state: watch::Receiver<RTCPeerConnectionState>,
    gathered: watch::Receiver<bool>,
    tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    sequence: u16,
    timestamp: u32,
}

fn coding(codec: Codec) -> RTCRtpCodecParameters {
    let (mime, channels, number) = match codec {
        Codec::Opus => ("audio/opus", 2, 111),
        _ => ("audio/PCMU", 1, 0),
    };
    let rtp_codec = RTCRtpCodec {
        mime_type: mime.into(),
        clock_rate: codec.rtp_clock_hz(),
        channels,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: Vec::new(),
    };
    RTCRtpCodecParameters { rtp_codec, payload_type: number }
}

fn events(clock_rate: u32, number: u8) -> RTCRtpCodecParameters {
    let rtp_codec = RTCRtpCodec {
        mime_type: "audio/telephone-event".into(),
        clock_rate,
        channels: 1,
        sdp_fmtp_line: "0-15".into(),
        rtcp_feedback: Vec::new(),
    };
    RTCRtpCodecParameters { rtp_codec, payload_type: number }
}

impl Browser {
    async fn new(codec: Codec) -> Self {
        let mut engine = MediaEngine::default();
        let event = events(codec.rtp_clock_hz(), 126);
        for parameters in [coding(codec), event] {
            engine.register_codec(parameters, RtpCodecKind::Audio).unwrap();
        }
        let (gathered_tx, gathered) = watch::channel(false);
        let (state_tx, state) = watch::channel(RTCPeerConnectionState::New);
        let (tracks_tx, tracks) = mpsc::channel(4);
        let handler = Arc::new(Watching { gathered: gathered_tx, state: state_tx, tracks: tracks_tx });
        let settings =
            SettingEngineBuilder::new().with_multicast_dns_mode(MulticastDnsMode::Disabled).with_include_loopback_candidate(true);
        let peer = PeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_setting_engine(settings.build())
            .with_handler(handler)
            .with_udp_addrs(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
            .build()
            .await
            .unwrap();
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(SSRC), ..Default::default() },
            active: true,
            codec: coding(codec).rtp_codec,
            ..Default::default()
        };
        let track = MediaStreamTrack::new("s".into(), "t".into(), "mic".into(), RtpCodecKind::Audio, vec![encoding]);
        let microphone = Arc::new(TrackLocalStaticRTP::new(track));
        peer.add_track(Arc::clone(&microphone) as Arc<dyn TrackLocal>).await.unwrap();
        // Else the crate's sender takes nothing but its track's own codec.
        for transceiver in peer.get_transceivers().await {
            transceiver.set_codec_preferences(vec![coding(codec), events(codec.rtp_clock_hz(), 126)]).await.unwrap();
        }
        Self { peer: Arc::new(peer), microphone, codec, state, gathered, tracks, sequence: 1, timestamp: 0 }
    }

    async fn offer(&mut self, ice_restart: bool) -> String {
        self.gathered.mark_unchanged();
        let offer = self.peer.create_offer(Some(RTCOfferOptions { ice_restart, ..Default::default() })).await.unwrap();
        self.peer.set_local_description(offer).await.unwrap();
        let _ = timeout(Duration::from_secs(3), self.gathered.wait_for(|done| *done)).await;
        self.peer.local_description().await.unwrap().sdp
    }

    async fn take(&mut self, answer: String) {
        self.peer.set_remote_description(RTCSessionDescription::answer(answer).unwrap()).await.unwrap();
    }

    async fn becomes(&mut self, state: RTCPeerConnectionState) {
        timeout(Duration::from_secs(10), self.state.wait_for(|now| *now == state)).await.expect("state").unwrap();
    }

    async fn send(&mut self, payload_type: u8, payload: Vec<u8>, marker: bool, advance: u32) {
        let header = rtc::rtp::Header {
            version: 2,
            payload_type,
            marker,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: SSRC,
            ..Default::default()
        };
        self.sequence += 1;
        self.timestamp += advance;
        self.microphone.write_rtp(rtc::rtp::Packet { header, payload: payload.into() }).await.unwrap();
    }

    /// A tone of 440 Hz, in real time.
    async fn sing(&mut self, ms: usize) {
        let rate = self.codec.rate();
        let mut encoder = self.codec.encoder(OpusBitrate::default());
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for block in tone(rate, ms).samples.chunks_exact(rate.samples_in(Duration::from_millis(20))) {
            ticks.tick().await;
            let mut payload = Vec::new();
            encoder.encode(block, &mut payload);
            self.send(coding(self.codec).payload_type, payload, false, self.codec.rtp_clock_hz() / 50).await;
        }
    }

    /// The digit as RFC 4733 sends it.
    async fn press(&mut self, digit: u8) {
        let step = self.codec.rtp_clock_hz() / 50;
        for n in 1..=8_u32 {
            let duration = u16::try_from(n.min(5) * step).unwrap().to_be_bytes();
            let end = if n >= 6 { 0x80 } else { 0 };
            self.send(126, vec![digit, end | 10, duration[0], duration[1]], n == 1, 0).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.timestamp += step * 8;
    }
}

fn tone(rate: SampleRate, ms: usize) -> Sound {
    let count = rate.samples_in(Duration::from_millis(ms as u64));
    let sample = |n: usize| (12_000.0 * (n as f64 * 440.0 * std::f64::consts::TAU / f64::from(rate.hz())).sin()) as i16;
    Sound { rate, samples: (0..count).map(sample).collect() }
}

fn endpoint(config: WebrtcConfig) -> (Endpoint, CancellationToken) {
    let stop = CancellationToken::new();
    let config = WebrtcConfig { enabled: true, port_min: 0, port_max: 0, ..config };
    (Endpoint::new(config, &MediaConfig::default(), Arc::new(SeededEntropy::new(5)), stop.clone()), stop)
}

fn page() -> Page {
    Page { session: "aps_1".into(), origin: "https://shop.example".into() }
}

/// Both ends, connected.
async fn call(endpoint: &Endpoint, codec: Codec) -> (Browser, Answered, Leg) {
    let mut browser = Browser::new(codec).await;
    let offer = browser.offer(false).await;
    let mut answered = endpoint.answer(&offer, &page()).await.unwrap();
    browser.take(answered.answer.clone()).await;
    let (_, leg) = oneshot::channel();
    let leg = timeout(Duration::from_secs(10), std::mem::replace(&mut answered.leg, leg)).await.expect("connects").unwrap();
    browser.becomes(RTCPeerConnectionState::Connected).await;
    (browser, answered, leg)
}

#[derive(Default)]
struct Told {
    loud_frames: usize,
    keys: Vec<Key>,
    played: Vec<u64>,
    held: Option<Duration>,
    resumed: bool,
    end: Option<(LegEnd, Duration)>,
}

/// What the leg tells in this time, or until it is over.
async fn listen(leg: &mut Leg, time: Duration) -> Told {
    let (mut told, begun) = (Told::default(), Instant::now());
    while let Ok(Some(event)) = tokio::time::timeout_at(begun + time, leg.events.recv()).await {
        match event {
            LegEvent::Frame(frame) => {
                assert_eq!(frame.rate, leg.info.rate);
                told.loud_frames += usize::from(frame.samples.iter().any(|s| s.unsigned_abs() > 6_000));
            }
            LegEvent::Key(key) => told.keys.push(key),
            LegEvent::PlayEnded { id, completed } => told.played.extend(completed.then_some(id)),
            LegEvent::Held => told.held = Some(begun.elapsed()),
            LegEvent::Resumed => told.resumed = true,
            LegEvent::Ended(end) => told.end = Some((end, begun.elapsed())),
            LegEvent::Answered | LegEvent::Transfer(_) => {}
        }
    }
    told
}

async fn both_ways(codec: Codec) {
    // This page sends nothing while it listens, which no browser does.
    let (endpoint, _stop) = endpoint(WebrtcConfig { lost_ms: 20_000, ..WebrtcConfig::default() });
    let (mut browser, answered, mut leg) = call(&endpoint, codec).await;
    assert_eq!((leg.info.codec, leg.info.rate), (codec.encoding_name(), codec.rate()));
    assert!(answered.answer.contains("a=ice-lite"), "{}", answered.answer);
    let prompt = Arc::new(tone(codec.rate(), 600));
    leg.commands.send(LegCommand::Play { id: 9, audio: prompt }).await.unwrap();
    let mut decoder = codec.decoder();
    let heard = async {
        let track = timeout(Duration::from_secs(5), browser.tracks.recv()).await.unwrap().unwrap();
        let (mut loud, mut reports) = (0, 0);
        let until = Instant::now() + Duration::from_millis(6_500);
        while let Ok(Some(event)) = tokio::time::timeout_at(until, track.poll()).await {
            match event {
                TrackRemoteEvent::OnRtpPacket(packet) => {
                    let mut samples = Vec::new();
                    decoder.decode(&packet.payload, &mut samples);
                    loud += usize::from(samples.iter().any(|s| s.unsigned_abs() > 6_000));
                }
                TrackRemoteEvent::OnRtcpPacket(_) => reports += 1,
                _ => {}
            }
        }
        let _nobody_marks_them_here: i32 = reports;
        loud
    };
    let told = listen(&mut leg, Duration::from_millis(6_500));
    let sung = async {
        // Borrowed apart from the tracks: a second handle on the same microphone.
        let mut mouth = Browser {
            peer: Arc::clone(&browser.peer),
            microphone: Arc::clone(&browser.microphone),
            codec,
            state: browser.state.clone(),
            gathered: browser.gathered.clone(),
            tracks: mpsc::channel(1).1,
            sequence: 1,
            timestamp: 0,
        };
        mouth.sing(500).await;
        mouth.press(7).await;
        mouth.press(3).await;
        mouth.sing(500).await;
    };
    let (loud, told, ()) = tokio::join!(heard, told, sung);
    assert!((27..=34).contains(&loud), "{loud} loud packets of a prompt of 600 ms");
    assert!((42..=60).contains(&told.loud_frames), "{} loud frames of a second", told.loud_frames);
    assert_eq!(told.keys, [Key::Digit(7), Key::Digit(3)]);
    assert_eq!(told.played, [9]);
    leg.commands.send(LegCommand::HangUp).await.unwrap();
    let begun = Instant::now();
    let report = timeout(Duration::from_secs(3), &mut leg.report).await.unwrap().unwrap();
    assert_eq!(report.end, None);
    assert!(report.stats.packets_received >= 60 && report.stats.packets_sent > 250, "{:?}", report.stats);
    assert!(report.stats.rtcp_sent >= 1, "{:?}", report.stats);
    let transport = browser.peer.get_senders().await[0].transport().await.unwrap().unwrap();
    while transport.state().await.unwrap() != RTCDtlsTransportState::Closed {
        assert!(begun.elapsed() < Duration::from_secs(2), "the page sees the end by DTLS");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*answered.state.borrow(), LineState::Over);
}

#[tokio::test]
async fn a_page_and_the_service_hear_each_other_in_opus() {
    both_ways(Codec::Opus).await;
}

#[tokio::test]
async fn a_page_and_the_service_hear_each_other_in_pcmu() {
    both_ways(Codec::Pcmu).await;
}

#[tokio::test]
async fn whatever_an_offer_says_of_its_opus_it_is_answered() {
    let (endpoint, _stop) = endpoint(WebrtcConfig::default());
    let map = "a=rtpmap:111 opus/48000/2";
    // The first is Firefox's.
    for format in ["maxplaybackrate=48000;stereo=1;useinbandfec=1", "useinbandfec=0;usedtx=1", "minptime=10;useinbandfec=1;cbr=1"]
    {
        let mut browser = Browser::new(Codec::Opus).await;
        let offer = browser.offer(false).await;
        assert!(offer.contains(map));
        let asks = offer.replace(map, &format!("{map}\r\na=fmtp:111 {format}"));
        let answered = endpoint.answer(&asks, &page()).await.unwrap_or_else(|error| panic!("{format}: {error:?}"));
        assert!(answered.answer.contains("a=fmtp:111 minptime=10;useinbandfec=1;"), "we ask for FEC: {}", answered.answer);
        browser.take(answered.answer).await;
        timeout(Duration::from_secs(10), answered.leg).await.expect("connects").unwrap();
    }
}

#[tokio::test]
async fn a_page_that_closes_is_noticed_within_two_seconds() {
    let (endpoint, _stop) = endpoint(WebrtcConfig::default());
    let (mut browser, _answered, mut leg) = call(&endpoint, Codec::Opus).await;
    browser.sing(200).await;
    browser.peer.close().await.unwrap();
    let told = listen(&mut leg, Duration::from_secs(8)).await;
    let (end, after) = told.end.expect("it ends");
    assert_eq!(end, LegEnd::Caller);
    assert!(after < Duration::from_secs(2), "{after:?}");
}

#[tokio::test]
async fn a_page_that_leaves_by_word_is_gone_at_once() {
    let (endpoint, _stop) = endpoint(WebrtcConfig::default());
    let (mut browser, answered, mut leg) = call(&endpoint, Codec::Opus).await;
    browser.sing(100).await;
    answered.hand.leave();
    let told = listen(&mut leg, Duration::from_secs(5)).await;
    assert!(matches!(told.end, Some((LegEnd::Caller, after)) if after < Duration::from_millis(500)), "{:?}", told.end);
}

#[tokio::test]
async fn a_page_that_is_lost_is_waited_for_and_then_given_up() {
    let (endpoint, _stop) = endpoint(WebrtcConfig { lost_ms: 1_500, reconnect_wait_ms: 2_000, ..WebrtcConfig::default() });
    let mut browser = Browser::new(Codec::Opus).await;
    let offer = browser.offer(false).await;
    let answered = endpoint.answer(&offer, &page()).await.unwrap();
    // A relay in between, which stops: what a network does that is gone.
    let relay = Relay::between(&answered.answer).await;
    browser.take(relay.answer.clone()).await;
    let mut leg = timeout(Duration::from_secs(10), answered.leg).await.expect("connects").unwrap();
    browser.sing(200).await;
    relay.flows.send_replace(false);
    let told = listen(&mut leg, Duration::from_secs(12)).await;
    let held = told.held.expect("it waits first");
    let (end, after) = told.end.expect("and gives up then");
    assert_eq!(end, LegEnd::MediaTimeout);
    assert!(held > Duration::from_secs(1) && after < Duration::from_secs(8), "held after {held:?}, over after {after:?}");
}

#[tokio::test]
async fn a_page_that_comes_back_goes_on() {
    let (endpoint, _stop) = endpoint(WebrtcConfig { lost_ms: 1_000, reconnect_wait_ms: 10_000, ..WebrtcConfig::default() });
    let mut browser = Browser::new(Codec::Opus).await;
    let offer = browser.offer(false).await;
    let answered = endpoint.answer(&offer, &page()).await.unwrap();
    let relay = Relay::between(&answered.answer).await;
    browser.take(relay.answer.clone()).await;
    let mut leg = timeout(Duration::from_secs(10), answered.leg).await.expect("connects").unwrap();
    let first = answered.hand.etag();
    relay.flows.send_replace(false);
    let told = listen(&mut leg, Duration::from_secs(4)).await;
    assert!(told.held.is_some() && told.end.is_none());
    // Another network: ICE anew, past the relay.
    let again = browser.offer(true).await;
    let (fragment, etag) = answered.hand.restart(&Fragment::of(&again)).await.unwrap();
    assert_ne!(etag, first);
    let credentials = Fragment::read(&fragment).unwrap();
    let (ufrag, pwd) = credentials.credentials.unwrap();
    let candidates =
        fragment.lines().filter(|line| line.starts_with("a=candidate:")).fold(String::new(), |all, l| all + l + "\r\n");
    browser.take(offer::restarted(&answered.answer, &ufrag, &pwd) + &candidates).await;
    let (told, ()) = tokio::join!(listen(&mut leg, Duration::from_secs(5)), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        browser.sing(1_000).await;
    });
    assert!(told.resumed && told.end.is_none(), "resumed: {}, end: {:?}", told.resumed, told.end);
    assert!(told.loud_frames > 30, "{}", told.loud_frames);
}

#[tokio::test]
async fn who_never_connects_gets_no_leg() {
    let (endpoint, _stop) = endpoint(WebrtcConfig { connect_wait_ms: 1_000, max_calls: 1, ..WebrtcConfig::default() });
    let mut browser = Browser::new(Codec::Opus).await;
    let offer = browser.offer(false).await;
    let mut answered = endpoint.answer(&offer, &page()).await.unwrap();
    assert!(matches!(endpoint.answer(&offer, &page()).await, Err(AnswerError::Busy(_))), "one place");
    assert!(timeout(Duration::from_secs(5), answered.leg).await.unwrap().is_err());
    answered.state.wait_for(|state| *state == LineState::Over).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(endpoint.answer(&offer, &page()).await.is_ok(), "the place is free again");
}

#[tokio::test]
async fn an_offer_that_cannot_be_answered_is_said_so_and_takes_no_place() {
    let (endpoint, _stop) = endpoint(WebrtcConfig { max_calls: 1, ..WebrtcConfig::default() });
    for bad in ["", "v=0\r\n", &offer::tests::CHROMIUM.replace("a=fingerprint:sha-256 00", "a=fingerprint:sha-256 zz")] {
        let refused = endpoint.answer(bad, &page()).await;
        assert!(matches!(refused, Err(AnswerError::Offer(_) | AnswerError::Failed(_))), "{bad:?}: {refused:?}");
    }
    assert!(endpoint.answer(offer::tests::CHROMIUM, &page()).await.is_ok());
}

#[tokio::test]
async fn candidates_of_another_generation_are_refused() {
    let (endpoint, _stop) = endpoint(WebrtcConfig::default());
    let (mut browser, answered, _leg) = call(&endpoint, Codec::Opus).await;
    browser.sing(40).await;
    let stale = "a=ice-ufrag:OTHER\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=end-of-candidates\r\n";
    assert_eq!(answered.hand.candidates(stale).await, Err(FragmentError::Stale));
    assert!(matches!(answered.hand.candidates("x").await, Err(FragmentError::Malformed(_))));
    assert_eq!(answered.hand.candidates("a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n").await, Ok(()));
    assert!(matches!(answered.hand.restart("a=end-of-candidates\r\n").await, Err(FragmentError::Malformed(_))));
}

/// Carries datagrams between a page and the service while it flows.
struct Relay {
    /// The service's answer with the relay's address.
    answer: String,
    flows: watch::Sender<bool>,
}

impl Relay {
    async fn between(answer: &str) -> Self {
        let line = answer.lines().find(|line| line.starts_with("a=candidate:")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let service: SocketAddr = format!("{}:{}", words[4], words[5]).parse().unwrap();
        let outer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let inner = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        inner.connect(service).await.unwrap();
        let port = outer.local_addr().unwrap().port();
        let relayed = line.replace(&format!(" {} typ", words[5]), &format!(" {port} typ"));
        let answer = answer.replace(line, &relayed);
        let (flows, open) = watch::channel(true);
        tokio::spawn(async move {
            let (mut there, mut back, mut page) = ([0; 2_000], [0; 2_000], None);
            loop {
                tokio::select! {
                    Ok((n, from)) = outer.recv_from(&mut there) => {
                        page = Some(from);
                        let flows = *open.borrow();
                        if flows { let _ = inner.send(&there[..n]).await; }
                    }
                    Ok(n) = inner.recv(&mut back) => {
                        let flows = *open.borrow();
                        if let (true, Some(page)) = (flows, page) { let _ = outer.send_to(&back[..n], page).await; }
                    }
                    else => return,
                }
            }
        });
        Self { answer, flows }
    }
}
