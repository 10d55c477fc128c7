//! Our dialler against our listener, over real UDP: signalling, audio and keys both ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{DialError, DialOptions, SipConfig, dial, listen};
use crate::media::bridge::{Side, bridge};
use crate::media::config::MediaConfig;
use crate::media::frame::SampleRate;
use crate::media::leg::{CallerClaim, Key, Leg, LegCommand, LegEnd, LegEvent, Sound};
use crate::media::wav::level_dbfs;

const WAIT: Duration = Duration::from_secs(10);

async fn service(config: SipConfig) -> (SocketAddr, mpsc::Receiver<Leg>) {
    let (sender, legs) = mpsc::channel(4);
    let config = SipConfig { listen: "127.0.0.1:0".parse().unwrap(), ..config };
    let media = MediaConfig { port_min: 45_000, port_max: 46_999, ..MediaConfig::default() };
    let listener = listen(config, media, sender, CancellationToken::new()).await.unwrap();
    (listener.local_addr, legs)
}

fn options(service: SocketAddr) -> DialOptions {
    let media = MediaConfig { port_min: 47_000, port_max: 48_999, ..MediaConfig::default() };
    DialOptions { media, timeout: WAIT, ..DialOptions::new(format!("sip:+448081570000@{service}"), "+447700900123") }
}

async fn both(config: SipConfig) -> (Leg, Leg) {
    let (at, mut legs) = service(config).await;
    let phone = dial(options(at)).await.unwrap();
    let leg = tokio::time::timeout(WAIT, legs.recv()).await.unwrap().unwrap();
    (leg, phone)
}

fn tone(ms: u32) -> Arc<Sound> {
    let samples = (0..ms * 8).map(|i| if i / 8 % 2 == 0 { 8_000 } else { -8_000 }).collect();
    Arc::new(Sound { rate: SampleRate::HZ_8000, samples })
}

/// What a leg brings until it has heard so many loud frames and keys, or has ended.
async fn hear(leg: &mut Leg, loud_frames: usize, keys: usize) -> (usize, Vec<Key>, Option<LegEnd>) {
    let (mut loud, mut pressed) = (0, Vec::new());
    let heard = async {
        while let Some(event) = leg.events.recv().await {
            match event {
                LegEvent::Frame(f) => loud += usize::from(level_dbfs(&f.samples) > -30.0),
                LegEvent::Key(k) => pressed.push(k),
                LegEvent::PlayEnded { .. } | LegEvent::Held | LegEvent::Resumed | LegEvent::Answered | LegEvent::Transfer(_) => {}
                LegEvent::Ended(end) => return Some(end),
            }
            if loud >= loud_frames && pressed.len() >= keys {
                return None;
            }
        }
        None
    };
    let end = tokio::time::timeout(WAIT, heard).await.expect("heard in time");
    (loud, pressed, end)
}

#[tokio::test]
async fn audio_and_keys_go_both_ways_and_the_caller_hangs_up() {
    let (mut leg, mut phone) = both(SipConfig::default()).await;
    leg.commands.send(LegCommand::Play { id: 1, audio: tone(600) }).await.unwrap();
    phone.commands.send(LegCommand::Play { id: 1, audio: tone(600) }).await.unwrap();
    for c in "12#".chars() {
        phone.commands.send(LegCommand::SendKey(Key::from_char(c).unwrap())).await.unwrap();
    }
    let ((loud, keys, _), (back, _, _)) = tokio::join!(hear(&mut leg, 25, 3), hear(&mut phone, 25, 0));
    assert!(loud >= 25 && back >= 25, "{loud} and {back} loud frames");
    assert_eq!(keys, [Key::Digit(1), Key::Digit(2), Key::Pound]);
    phone.commands.send(LegCommand::HangUp).await.unwrap();
    let (_, _, end) = hear(&mut leg, usize::MAX, 0).await;
    assert_eq!(end, Some(LegEnd::Caller));
}

#[tokio::test]
async fn two_callers_who_are_bridged_hear_each_other_at_once_and_part_together() {
    let (at, mut legs) = service(SipConfig::default()).await;
    let mut ann = dial(options(at)).await.unwrap();
    let mut anns = tokio::time::timeout(WAIT, legs.recv()).await.unwrap().unwrap();
    let mut bob = dial(options(at)).await.unwrap();
    let mut bobs = tokio::time::timeout(WAIT, legs.recv()).await.unwrap().unwrap();
    let bridged = tokio::spawn(async move { bridge(&mut anns, &mut bobs).await });
    ann.commands.send(LegCommand::SendKey(Key::Digit(7))).await.unwrap();
    let (_, keys, _) = hear(&mut bob, 0, 1).await;
    assert_eq!(keys, [Key::Digit(7)]);
    let begun = tokio::time::Instant::now();
    ann.commands.send(LegCommand::Play { id: 1, audio: tone(800) }).await.unwrap();
    bob.commands.send(LegCommand::Play { id: 1, audio: tone(800) }).await.unwrap();
    hear(&mut bob, 1, 0).await;
    // The pause behind a key, two jitter buffers of 40 ms, packet times, and a machine under load.
    assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
    let ((to_bob, _, _), (to_ann, _, _)) = tokio::join!(hear(&mut bob, 25, 0), hear(&mut ann, 25, 0));
    assert!(to_bob >= 25 && to_ann >= 25, "{to_bob} and {to_ann} loud frames");
    drop(ann);
    let end = tokio::time::timeout(WAIT, bridged).await.unwrap().unwrap();
    assert_eq!((end.side, end.end), (Side::First, Some(LegEnd::Caller)));
    let (_, _, end) = hear(&mut bob, usize::MAX, 0).await;
    assert_eq!(end, Some(LegEnd::Caller));
}

#[tokio::test]
async fn the_service_hangs_up() {
    let (leg, mut phone) = both(SipConfig::default()).await;
    drop(leg);
    let (_, _, end) = hear(&mut phone, usize::MAX, 0).await;
    assert_eq!(end, Some(LegEnd::Caller));
}

#[tokio::test]
async fn a_trusted_peer_may_assert_a_number() {
    let trusted = SipConfig { trusted_peers: vec!["127.0.0.0/8".parse().unwrap()], ..SipConfig::default() };
    for (config, want) in [
        (trusted, CallerClaim::Asserted("+447700900999".into())),
        (SipConfig::default(), CallerClaim::Unverified("+447700900123".into())),
    ] {
        let (at, mut legs) = service(config).await;
        let phone = dial(DialOptions { asserted_identity: Some("+447700900999".into()), ..options(at) }).await.unwrap();
        assert_eq!(legs.recv().await.unwrap().info.caller, want);
        drop(phone);
    }
}

#[tokio::test]
async fn a_refusal_tells_status_and_reason() {
    let (at, _legs) = service(SipConfig { max_calls: 0, ..SipConfig::default() }).await;
    match dial(options(at)).await.unwrap_err() {
        DialError::Refused { status, reason } => assert_eq!((status, reason.as_str()), (503, "Service Unavailable")),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_host_that_never_answers_is_given_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let asked = DialOptions { timeout: Duration::from_millis(300), ..options(silent.local_addr().unwrap()) };
    assert!(matches!(dial(asked).await.unwrap_err(), DialError::NoAnswer(_)));
}

#[tokio::test]
async fn a_caller_who_stops_dialling_cancels() {
    let (at, mut legs) = service(SipConfig { ring_ms: 1_500, max_calls: 1, ..SipConfig::default() }).await;
    let dialling = tokio::time::timeout(Duration::from_millis(400), dial(options(at))).await;
    assert!(dialling.is_err(), "it should still be ringing");
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    assert!(legs.try_recv().is_err(), "a cancelled call became a leg");
    // Its place is free again.
    let phone = dial(options(at)).await.unwrap();
    drop((legs.recv().await.unwrap(), phone));
}

#[tokio::test]
async fn sipp_places_a_call_that_speaks_and_presses_keys() {
    if std::process::Command::new("sipp").arg("-v").output().is_err() {
        println!("skipped: sipp is not installed (Debian: sip-tester)");
        return;
    }
    // SIPp sends its keys from a raw socket.
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) != 0 {
        println!("skipped: SIPp's keys need root");
        return;
    }
    let (at, mut legs) = service(SipConfig::default()).await;
    let dir = tempfile::tempdir().unwrap();
    // A second of a loud square wave in µ-law, 0x00 and 0x80 being its extremes.
    let speech: Vec<u8> = (0..8_000u32).map(|i| if i / 8 % 2 == 0 { 0x10 } else { 0x90 }).collect();
    std::fs::write(dir.path().join("speech.ul"), speech).unwrap();
    let scenario = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sipp/speaks_and_presses_keys.xml");
    let sipp = std::process::Command::new("sipp")
        .current_dir(dir.path())
        .args(["-sf", scenario.to_str().unwrap(), "-s", "+448081570000", "-key", "caller", "+447700900123"])
        .args(["-i", "127.0.0.1", "-mi", "127.0.0.1", "-m", "1", "-nostdin", "-timeout", "20s", "-trace_err", &at.to_string()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut leg = tokio::time::timeout(WAIT, legs.recv()).await.expect("SIPp calls").unwrap();
    assert_eq!(leg.info.caller, CallerClaim::Unverified("+447700900123".into()));
    let (loud, keys, end) = hear(&mut leg, 40, 5).await;
    assert!(loud >= 40 && end.is_none(), "{loud} loud frames, {end:?}");
    assert_eq!(keys, "1234#".chars().filter_map(Key::from_char).collect::<Vec<_>>());
    let (_, _, end) = hear(&mut leg, usize::MAX, 0).await;
    assert_eq!(end, Some(LegEnd::Caller));
    let output = tokio::task::spawn_blocking(move || sipp.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
