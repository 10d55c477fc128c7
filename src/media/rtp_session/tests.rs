//! Sessions over real UDP on loopback, in real time: two of ours with a bad line between them, and a peer by hand.

use std::sync::atomic::{AtomicU64, Ordering};

use rtp_rs::{RtpPacketBuilder, RtpReader};
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::*;
use crate::clock::SeededEntropy;
use crate::media::frame::SampleRate;
use crate::media::g711::Law;
use crate::media::leg::{Attestation, CallerClaim, Key, Leg, LegCommand, LegEvent, LegInfo, Sound, pair};

fn media() -> NegotiatedMedia {
    NegotiatedMedia::new(Codec::Pcmu, 0).with_telephone_event(101, 8_000)
}

// Machines that run tests stall: what is tested here is not how little delay would do.
fn config() -> MediaConfig {
    MediaConfig { jitter_delay_ms: 120, jitter_max_ms: 1_000, ..MediaConfig::default() }
}

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn port() -> RtpPort {
    let config = MediaConfig { port_min: 27_400, port_max: 27_999, ..MediaConfig::default() };
    bind_port(&config, &crate::clock::SystemEntropy).await.unwrap()
}

fn begin(config: &MediaConfig, socket: RtpPort, remote: SocketAddr, stop: CancellationToken) -> (RtpSession, Leg) {
    let info = LegInfo {
        protocol_id: "test".into(),
        caller: CallerClaim::Withheld,
        attestation: Attestation::Absent,
        called: "pay".into(),
        peer: remote.to_string(),
        trunk: "test".into(),
        transport: "none",
        secure: false,
        setup_ms: 0,
        rate: SampleRate::HZ_8000,
        codec: "PCMU",
    };
    let (leg, far) = pair(info);
    let seed = u64::from(remote.port());
    let session = start(
        config,
        SessionSetup { port: socket.into(), ssrc: None, remote, signalled: None, media: media(), far, stop },
        &SeededEntropy::new(seed),
    );
    (session, leg)
}

// A second of a tone that PCMU carries exactly, never silent.
fn tone(seconds: usize) -> Sound {
    let wave = (0..8_000 * seconds).map(|n| (9_000.0 * (n as f64 * 0.21).sin() + 4_000.0 * (n as f64 * 0.013).sin()) as i16);
    Sound { rate: SampleRate::HZ_8000, samples: Law::Mu.decode(&Law::Mu.encode(&wave.collect::<Vec<_>>())) }
}

/// How many 20 ms blocks of `sent` turn up in `heard`, in order and unchanged (but for the cross-fade at their start).
fn blocks_heard(sent: &Sound, heard: &[i16]) -> usize {
    let mut at = 0;
    let mut found = 0;
    for block in sent.samples.chunks(160) {
        if let Some(place) = heard[at..].windows(120).position(|w| w == &block[40..]) {
            at += place + 120;
            found += 1;
        }
    }
    found
}

// What a leg tells until its end, or for so long.
#[derive(Default)]
struct Told {
    heard: Vec<i16>,
    keys: Vec<Key>,
    ended: Vec<(u64, bool)>,
    end: Option<LegEnd>,
}

async fn listen(leg: &mut Leg, time: Duration) -> Told {
    let mut told = Told::default();
    let until = Instant::now() + time;
    while let Ok(Some(event)) = tokio::time::timeout_at(until, leg.events.recv()).await {
        assert!(told.end.is_none(), "something came after the end");
        match event {
            LegEvent::Frame(frame) => {
                assert_eq!(frame.samples.len(), 160);
                told.heard.extend(frame.samples);
            }
            LegEvent::Key(key) => told.keys.push(key),
            LegEvent::PlayEnded { id, completed } => told.ended.push((id, completed)),
            LegEvent::Held | LegEvent::Resumed | LegEvent::Answered | LegEvent::Transfer(_) => {}
            LegEvent::Ended(end) => told.end = Some(end),
        }
    }
    told
}

/// A line between two sessions: loses packets, slips in garbage.
struct BadLine {
    to_a: UdpSocket,
    to_b: UdpSocket,
    lost: AtomicU64,
}

impl BadLine {
    async fn carry(&self, a: SocketAddr, b: SocketAddr, loss_percent: u32, garbage: u32) {
        let entropy = SeededEntropy::new(11);
        let entropy: &dyn Entropy = &entropy;
        let (mut from_a, mut from_b) = ([0u8; 2_048], [0u8; 2_048]);
        loop {
            let (packet, out, to) = tokio::select! {
                got = self.to_a.recv_from(&mut from_a) => (&from_a[..got.unwrap().0], &self.to_b, b),
                got = self.to_b.recv_from(&mut from_b) => (&from_b[..got.unwrap().0], &self.to_a, a),
            };
            for _ in 0..garbage {
                let noise: [u8; 300] = entropy.bytes();
                let length = usize::try_from(entropy.below(300)).unwrap();
                out.send_to(&noise[..length], to).await.unwrap();
            }
            if entropy.below(100) < loss_percent {
                self.lost.fetch_add(1, Ordering::Relaxed);
            } else {
                out.send_to(packet, to).await.unwrap();
            }
        }
    }
}

struct Call {
    a: (RtpSession, Leg),
    b: (RtpSession, Leg),
    line: Arc<BadLine>,
}

async fn call_over(loss_percent: u32, garbage: u32) -> Call {
    let line = Arc::new(BadLine { to_a: socket().await, to_b: socket().await, lost: AtomicU64::new(0) });
    let (a, b) = (port().await, port().await);
    let (at_a, at_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let (line_a, line_b) = (line.to_a.local_addr().unwrap(), line.to_b.local_addr().unwrap());
    let carrier = line.clone();
    tokio::spawn(async move { carrier.carry(at_a, at_b, loss_percent, garbage).await });
    let a = begin(&config(), a, line_a, CancellationToken::new());
    let b = begin(&config(), b, line_b, CancellationToken::new());
    Call { a, b, line }
}

#[tokio::test]
async fn two_sessions_hear_each_other_exactly_and_each_key_once() {
    let mut call = call_over(0, 0).await;
    let sound = Arc::new(tone(1));
    call.a.1.commands.send(LegCommand::Play { id: 1, audio: sound.clone() }).await.unwrap();
    for key in [Key::Digit(4), Key::Digit(4), Key::Pound] {
        call.b.1.commands.send(LegCommand::SendKey(key)).await.unwrap();
    }
    let time = Duration::from_millis(1_600);
    let (at_a, at_b) = tokio::join!(listen(&mut call.a.1, time), listen(&mut call.b.1, time));
    assert_eq!(blocks_heard(&sound, &at_b.heard), 50);
    assert_eq!(at_a.ended, [(1, true)]);
    assert_eq!(at_a.keys, [Key::Digit(4), Key::Digit(4), Key::Pound]);
    assert_eq!(at_b.keys, []);

    call.b.1.commands.send(LegCommand::Play { id: 2, audio: sound.clone() }).await.unwrap();
    call.a.1.commands.send(LegCommand::SendKey(Key::Star)).await.unwrap();
    let (at_a, at_b) = tokio::join!(listen(&mut call.a.1, time), listen(&mut call.b.1, time));
    assert_eq!(blocks_heard(&sound, &at_a.heard), 50);
    assert_eq!((at_b.keys, at_b.ended), (vec![Key::Star], vec![(2, true)]));

    // B hangs up; signalling tells A.
    call.b.1.commands.send(LegCommand::HangUp).await.unwrap();
    assert!(!call.b.1.events.recv().await.is_some_and(|e| matches!(e, LegEvent::Ended(_))));
    let report = call.b.0.finished().await;
    assert!(report.why == SessionEnd::HungUp && report.why.needs_bye());
    call.a.0.control().end(LegEnd::Caller);
    call.a.0.control().end(LegEnd::Failed);
    assert_eq!(listen(&mut call.a.1, time).await.end, Some(LegEnd::Caller));
    let report = call.a.0.finished().await;
    assert!(report.why == SessionEnd::Told(LegEnd::Caller) && !report.why.needs_bye());
    let MediaStats { packets_received, packets_lost, packets_malformed, keys_received, keys_sent, .. } = report.stats;
    assert!(packets_received > 100 && packets_lost == 0 && packets_malformed == 0, "{:?}", report.stats);
    assert_eq!((keys_received, keys_sent), (3, 1));
}

#[tokio::test]
async fn a_line_that_loses_a_tenth_costs_made_up_sound_but_no_key() {
    let mut call = call_over(10, 0).await;
    let sound = Arc::new(tone(2));
    let keys: Vec<Key> = "4929*0#".chars().filter_map(Key::from_char).collect();
    for key in &keys {
        call.b.1.commands.send(LegCommand::SendKey(*key)).await.unwrap();
    }
    call.a.1.commands.send(LegCommand::Play { id: 1, audio: sound.clone() }).await.unwrap();
    let time = Duration::from_millis(2_600);
    let (at_a, at_b) = tokio::join!(listen(&mut call.a.1, time), listen(&mut call.b.1, time));
    assert_eq!(at_a.keys, keys);
    let found = blocks_heard(&sound, &at_b.heard);
    assert!((75..100).contains(&found), "{found} of 100");
    call.a.0.control().end(LegEnd::Caller);
    call.b.0.control().end(LegEnd::Caller);
    let (a, b) = (call.a.0.finished().await.stats, call.b.0.finished().await.stats);
    let (counted, lost) = (a.packets_lost + b.packets_lost, call.line.lost.load(Ordering::Relaxed));
    // Those before the first packet and after the last are not known of.
    assert!(lost > 10 && counted <= lost && lost - counted <= 8, "counted {counted} of {lost}");
    assert!(b.concealed_ms >= 100, "{b:?}");
}

#[tokio::test]
async fn a_storm_of_random_bytes_on_the_callers_own_path_disturbs_nothing() {
    let mut call = call_over(0, 40).await;
    let sound = Arc::new(tone(1));
    call.a.1.commands.send(LegCommand::Play { id: 1, audio: sound.clone() }).await.unwrap();
    call.a.1.commands.send(LegCommand::SendKey(Key::Digit(9))).await.unwrap();
    let time = Duration::from_millis(1_800);
    let (_, at_b) = tokio::join!(listen(&mut call.a.1, time), listen(&mut call.b.1, time));
    assert_eq!(blocks_heard(&sound, &at_b.heard), 50);
    assert_eq!(at_b.keys, [Key::Digit(9)]);
    call.b.0.control().end(LegEnd::Caller);
    let stats = call.b.0.finished().await.stats;
    assert!(stats.packets_malformed > 2_000, "{stats:?}");
}

#[tokio::test]
async fn the_stream_is_paced_and_strangers_are_not_heard() {
    let (ours, peer, stranger) = (port().await, socket().await, socket().await);
    let to = ours.local_addr().unwrap();
    // The SDP names another port than the peer sends from: it is learned.
    let named = SocketAddr::new(to.ip(), 9);
    let (session, leg) = begin(&config(), ours, named, CancellationToken::new());
    let packet = |sequence: u16, ssrc: u32| {
        let builder = RtpPacketBuilder::new().payload_type(0).sequence(sequence.into()).ssrc(ssrc);
        builder.timestamp(160 * u32::from(sequence)).payload(&[0x80; 160]).build().unwrap()
    };
    peer.send_to(&packet(1, 1), to).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 0..10 {
        stranger.send_to(&packet(n, 2), to).await.unwrap();
    }
    leg.commands.send(LegCommand::Play { id: 1, audio: Arc::new(tone(3)) }).await.unwrap();
    let mut buffer = [0u8; 2_048];
    let mut got: Vec<(Duration, u16, u32)> = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_000) {
        let Ok(received) = tokio::time::timeout(Duration::from_millis(500), peer.recv_from(&mut buffer)).await else { break };
        let packet = RtpReader::new(&buffer[..received.unwrap().0]).unwrap();
        got.push((begun.elapsed(), packet.sequence_number().into(), packet.timestamp()));
    }
    assert!((35..=56).contains(&got.len()), "{} packets in a second", got.len());
    let (_, first_sequence, first_timestamp) = got[0];
    for (n, (_, sequence, timestamp)) in (0u16..).zip(&got) {
        assert_eq!(sequence.wrapping_sub(first_sequence), n);
        // Missed packet times are skipped, and the timestamp with them.
        let passed = timestamp.wrapping_sub(first_timestamp);
        assert!(passed % 160 == 0 && passed >= 160 * u32::from(n), "{passed} at {n}");
    }
    drop(leg);
    let report = session.finished().await;
    assert_eq!((report.why, report.stats.packets_foreign, report.stats.packets_received), (SessionEnd::HungUp, 10, 1));
}

#[tokio::test]
async fn silence_on_the_line_and_a_stopping_service_end_the_call() {
    let config = MediaConfig { media_timeout_ms: 300, ..config() };
    let (a, b) = (port().await, port().await);
    let nowhere = SocketAddr::new(a.local_addr().unwrap().ip(), 9);
    let (session, mut leg) = begin(&config, a, nowhere, CancellationToken::new());
    leg.commands.send(LegCommand::Play { id: 3, audio: Arc::new(tone(9)) }).await.unwrap();
    let told = listen(&mut leg, Duration::from_secs(3)).await;
    assert_eq!((told.end, told.ended), (Some(LegEnd::MediaTimeout), vec![(3, false)]));
    assert_eq!(session.finished().await.why, SessionEnd::MediaTimeout);

    let stop = CancellationToken::new();
    let (session, mut leg) = begin(&config, b, nowhere, stop.clone());
    stop.cancel();
    assert_eq!(listen(&mut leg, Duration::from_secs(3)).await.end, Some(LegEnd::Failed));
    assert_eq!(session.finished().await.why, SessionEnd::Stopped);
}

#[tokio::test]
async fn ports_are_even_and_when_none_is_free_it_is_said() {
    let config = MediaConfig { port_min: 27_311, port_max: 27_315, ..MediaConfig::default() };
    let entropy = SeededEntropy::new(5);
    let (a, b) = (bind_port(&config, &entropy).await.unwrap(), bind_port(&config, &entropy).await.unwrap());
    let mut ports = [a.local_addr().unwrap().port(), b.local_addr().unwrap().port()];
    ports.sort_unstable();
    assert_eq!(ports, [27_312, 27_314]);
    let error = bind_port(&config, &entropy).await.unwrap_err().to_string();
    assert!(error.contains("no free RTP port") && error.contains("27311"), "{error}");
    let elsewhere = MediaConfig { bind_address: "192.0.2.1".parse().unwrap(), ..config };
    assert!(matches!(bind_port(&elsewhere, &entropy).await, Err(MediaError::Bind { .. })));
}

#[tokio::test]
async fn two_sessions_report_to_each_other_while_strangers_flood_one_of_them() {
    let (a, b, stranger) = (port().await, port().await, socket().await);
    let (at_a, at_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let (a, mut leg_a) = begin(&config(), a, at_b, CancellationToken::new());
    let (b, mut leg_b) = begin(&config(), b, at_a, CancellationToken::new());
    let sound = Arc::new(tone(9));
    leg_a.commands.send(LegCommand::Play { id: 1, audio: sound.clone() }).await.unwrap();
    leg_b.commands.send(LegCommand::Play { id: 2, audio: sound.clone() }).await.unwrap();
    // Ten thousand a second, from another port of the peer's own address.
    let flood = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for _ in 0..750 {
            for _ in 0..100 {
                let _refused = stranger.send_to(&[0x80; 172], at_a).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let time = Duration::from_millis(8_500);
    let (told_a, told_b) = tokio::join!(listen(&mut leg_a, time), listen(&mut leg_b, time));
    flood.abort();
    let heard = [blocks_heard(&sound, &told_a.heard), blocks_heard(&sound, &told_b.heard)];
    a.control().end(LegEnd::Caller);
    b.control().end(LegEnd::Caller);
    for stats in [a.finished().await.stats, b.finished().await.stats] {
        assert!(stats.rtcp_received >= 1 && stats.rtcp_sent >= 2, "{stats:?}");
        assert!(stats.mos_x100 > Some(430) && stats.lost_permille == 0, "{stats:?}");
        assert!(stats.peer_lost_permille == Some(0) && stats.rtt_ms < Some(500), "{stats:?}");
    }
    assert!(heard[0] > 300 && heard[1] > 300, "{heard:?} of 425");
}
