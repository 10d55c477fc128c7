//! Ten thousand malformed packets a second at the SIP port and as many at a call's RTP port, while the call is up: it hears every
//! frame, and SIP goes on. And the trace of all that, in which no card number is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::media::config::MediaConfig;
use crate::media::leg::{Leg, LegEvent};
use crate::sip::{Listener, SipConfig, listen};

const WAIT: Duration = Duration::from_secs(5);
/// Packets a second at each port.
const FLOOD_PER_S: u64 = 10_000;
const PACKET_MS: u64 = 20;
/// The call is up: its audio flows both ways.
const UP_AFTER_PACKETS: u16 = 25;

async fn service(config: SipConfig) -> (Listener, mpsc::Receiver<Leg>) {
    let (sender, legs) = mpsc::channel(8);
    let media = MediaConfig { port_min: 36_000, port_max: 36_999, ..MediaConfig::default() };
    (listen(config, media, sender, CancellationToken::new()).await.unwrap(), legs)
}

fn local() -> SipConfig {
    SipConfig { listen: "127.0.0.1:0".parse().unwrap(), ..SipConfig::default() }
}

fn request(method: &str, cseq: u32, call_id: &str, tag: &str, extra: &str, body: &str) -> String {
    format!(
        "{method} sip:+448081570000@service.example SIP/2.0\r\nVia: SIP/2.0/UDP \
         peer.example;rport;branch=z9hG4bK{call_id}{method}{cseq}\r\n\
         From: <sip:+447700900123@peer.example>;tag=ft\r\nTo: <sip:+448081570000@service.example>{tag}\r\nCall-ID: {call_id}\r\n\
         CSeq: {cseq} {method}\r\nContact: <sip:ann@127.0.0.1:9>\r\n{extra}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn answer(socket: &UdpSocket, start: &str) -> String {
    let mut buffer = vec![0; 65_535];
    loop {
        let (len, _) = tokio::time::timeout(WAIT, socket.recv_from(&mut buffer)).await.expect("an answer in time").unwrap();
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        if text.starts_with(start) {
            return text;
        }
    }
}

/// A call whose audio we send by hand: SIP socket, RTP socket, where its audio goes, the leg.
async fn call(listener: &Listener, legs: &mut mpsc::Receiver<Leg>, codec: &str) -> (UdpSocket, UdpSocket, SocketAddr, Leg) {
    let (sip, rtp) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let port = rtp.local_addr().unwrap().port();
    let offer =
        format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP {codec}\r\n");
    let kind = "Content-Type: application/sdp\r\n";
    sip.send_to(request("INVITE", 1, "flood", "", kind, &offer).as_bytes(), listener.local_addr).await.unwrap();
    let ok = answer(&sip, "SIP/2.0 200").await;
    let tag = format!(";tag={}", ok.lines().find(|l| l.starts_with("To: ")).unwrap().split(";tag=").nth(1).unwrap());
    sip.send_to(request("ACK", 1, "flood", &tag, "", "").as_bytes(), listener.local_addr).await.unwrap();
    let theirs: u16 = ok.split("m=audio ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let leg = tokio::time::timeout(WAIT, legs.recv()).await.unwrap().unwrap();
    (sip, rtp, SocketAddr::from(([127, 0, 0, 1], theirs)), leg)
}

/// Sends malformed packets from another address until told to stop. Gives how many left.
async fn flood(to: SocketAddr, packets: Vec<Vec<u8>>, stop: CancellationToken) -> u64 {
    let socket = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    let began = Instant::now();
    let (mut sent, mut clock) = (0, tokio::time::interval(Duration::from_millis(1)));
    while !stop.is_cancelled() {
        clock.tick().await;
        let due = u64::try_from(began.elapsed().as_micros()).unwrap() * FLOOD_PER_S / 1_000_000;
        for packet in packets.iter().cycle().take(usize::try_from(due.saturating_sub(sent)).unwrap()) {
            let _full = socket.try_send_to(packet, to);
            sent += 1;
        }
    }
    sent
}

fn malformed_sip() -> Vec<Vec<u8>> {
    let good = request("INVITE", 1, "bad", "", "", "");
    [
        good.replace("CSeq: 1", "CSeq: -1"),
        good.replace("z9hG4bK", "z9hG4bK;;,").replace("From: ", "From: \"open "),
        good.replace(" SIP/2.0\r\nVia", " SIP/9.9\r\nVia"),
        good.replace("Content-Length: 0", "Content-Length: 99999"),
        good.replace("INVITE", "ACK").replace("To: ", "Too: "),
        "SIP/2.0 200 OK\r\n\r\n".to_owned(),
        "\u{0}\u{1}\u{2} nothing of the sort".repeat(20),
        good[..good.len() / 2].to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect()
}

fn malformed_rtp() -> Vec<Vec<u8>> {
    let foreign = [vec![0x80, 0, 0, 7, 0, 0, 1, 0, 9, 9, 9, 9], vec![0x55; 160]].concat();
    vec![vec![], vec![0x80], vec![0xFF; 12], vec![0x9F, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 0xFF, 0xFF], foreign, vec![0; 1_400]]
}

/// What was heard of `frames` frames, with a flood or in calm, and how many of the pings were answered.
async fn heard_of(frames: u16, flooded: bool) -> (usize, usize, usize, u64) {
    let (listener, mut legs) = service(local()).await;
    let (sip, rtp, audio, mut leg) = call(&listener, &mut legs, "0").await;
    let stop = CancellationToken::new();
    let mut floods = Vec::new();
    let heard = Arc::new(AtomicUsize::new(0));
    let counted = heard.clone();
    let hearing = tokio::spawn(async move {
        // Each packet holds one loud value, another than the last one's: what is concealed for a lost one is not counted.
        let mut last = None;
        while let Some(event) = leg.events.recv().await {
            if let LegEvent::Frame(frame) = event
                && let Some(&first) = frame.samples.first()
                && first.unsigned_abs() > 8_000
                && frame.samples.iter().all(|s| *s == first)
                && last.replace(first) != Some(first)
            {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let (at, wire) = (listener.local_addr, listener.wire().clone());
    let pings = tokio::spawn(async move {
        let mut answered = 0;
        let count = usize::from(frames) / 10;
        for i in 0..count {
            let ping = request("OPTIONS", 1, &format!("ping{i}"), "", "", "");
            sip.send_to(ping.as_bytes(), at).await.unwrap();
            let mut buffer = [0; 4_096];
            let mut next = tokio::time::interval(Duration::from_millis(PACKET_MS * 10));
            next.tick().await;
            tokio::select! {
                Ok((len, _)) = sip.recv_from(&mut buffer) => answered += usize::from(buffer[..len].starts_with(b"SIP/2.0 200")),
                _late = next.tick() => continue,
            }
            next.tick().await;
        }
        (answered, count)
    });
    let mut clock = tokio::time::interval(Duration::from_millis(PACKET_MS));
    for i in 0..frames {
        clock.tick().await;
        if i == UP_AFTER_PACKETS && flooded {
            floods.push(tokio::spawn(flood(listener.local_addr, malformed_sip(), stop.clone())));
            floods.push(tokio::spawn(flood(audio, malformed_rtp(), stop.clone())));
        }
        let mut packet = vec![0x80, 0];
        packet.extend_from_slice(&i.to_be_bytes());
        packet.extend_from_slice(&(u32::from(i) * 160).to_be_bytes());
        packet.extend_from_slice(&[1, 2, 3, 4]);
        // 0x00 to 0x0F: the sixteen loudest values of µ-law on one side.
        packet.extend(std::iter::repeat_n(u8::try_from(i % 16).unwrap(), 160));
        rtp.send_to(&packet, audio).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(400)).await;
    stop.cancel();
    let mut sent = 0;
    for flood in floods {
        sent += flood.await.unwrap();
    }
    let (answered, asked) = pings.await.unwrap();
    println!("at the SIP port: {:?}", wire.figures());
    hearing.abort();
    (heard.load(Ordering::Relaxed), answered, asked, sent)
}

async fn holds(frames: u16) {
    // In calm first: a busy machine, and the beginning of a call, lose some by themselves.
    let (calm, ..) = heard_of(frames, false).await;
    let (heard, answered, asked, sent) = heard_of(frames, true).await;
    let seconds = u64::from(frames - UP_AFTER_PACKETS) * PACKET_MS / 1_000;
    println!(
        "{sent} malformed packets in {seconds} s: {heard} of {frames} frames heard ({calm} in calm), \
         {answered} of {asked} pings answered"
    );
    assert!(sent >= seconds * FLOOD_PER_S * 2 * 8 / 10, "the flood was no flood: {sent} packets");
    assert!(heard + usize::from(frames) / 20 >= calm, "{heard} of {frames} frames, {calm} in calm");
    assert!(answered * 100 >= asked * 80, "{answered} of {asked} pings");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_traffic_leaves_a_call_unharmed() {
    holds(150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute"]
async fn a_minute_of_malformed_traffic_leaves_a_call_unharmed() {
    holds(3_000).await;
}

#[tokio::test]
async fn more_new_requests_than_the_limit_are_503_and_calls_go_on() {
    let (listener, mut legs) = service(SipConfig { overload_limit_per_s: 40, ..local() }).await;
    let (sip, _rtp, _audio, _leg) = call(&listener, &mut legs, "0").await;
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for i in 0..60 {
        other.send_to(request("OPTIONS", 1, &format!("over{i}"), "", "", "").as_bytes(), listener.local_addr).await.unwrap();
    }
    let busy = answer(&other, "SIP/2.0 503").await;
    assert!(busy.contains("Retry-After: 2\r\n"), "{busy}");
    // Within the dialog nothing is refused.
    sip.send_to(request("BYE", 2, "flood", ";tag=unknown", "", "").as_bytes(), listener.local_addr).await.unwrap();
    answer(&sip, "SIP/2.0 481").await;
    assert!(listener.wire().figures().busy >= 20, "{:?}", listener.wire().figures());
}

#[tokio::test]
async fn no_card_number_key_or_password_is_in_the_trace() {
    const CARD: &str = "4929421234600821";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sip.trace");
    let (listener, mut legs) = service(SipConfig { trace_file: Some(path.clone()), ..local() }).await;
    let extra = format!(
        "Subject: pay with 4929 4212 3460 0821\r\nX-Note: {CARD}\r\nP-Asserted-Identity: \"{CARD}\" <sip:{CARD}@x.example>\r\n\
         Authorization: Digest username=\"u\", response=\"canary-password\"\r\nContent-Type: application/sdp\r\n"
    );
    let offer = format!(
        "v=0\r\no=- {CARD} 1 IN IP4 127.0.0.1\r\ns={CARD}\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 39992 RTP/AVP 0\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:canary-key\r\na=note:{CARD}\r\n"
    );
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(request("INVITE", 1, "canary-u", "", &extra, &offer).as_bytes(), listener.local_addr).await.unwrap();
    let ok = answer(&udp, "SIP/2.0 200").await;
    let tag = format!(";tag={}", ok.lines().find(|l| l.starts_with("To: ")).unwrap().split(";tag=").nth(1).unwrap());
    udp.send_to(request("ACK", 1, "canary-u", &tag, "", "").as_bytes(), listener.local_addr).await.unwrap();
    let leg = legs.recv().await;
    for (cseq, key) in (2..).zip(CARD.chars()) {
        let info =
            request("INFO", cseq, "canary-u", &tag, "Content-Type: application/dtmf-relay\r\n", &format!("Signal={key}\r\n"));
        udp.send_to(info.as_bytes(), listener.local_addr).await.unwrap();
        answer(&udp, "SIP/2.0 200").await;
    }
    let mut tcp = TcpStream::connect(listener.local_addr).await.unwrap();
    tcp.write_all(request("OPTIONS", 1, "canary-t", "", &extra, &offer).as_bytes()).await.unwrap();
    assert!(tcp.read(&mut [0; 4_096]).await.unwrap() > 0);
    drop((leg, tcp));
    tokio::time::sleep(Duration::from_millis(600)).await; // longer than what was written may wait for the disk
    let text = std::fs::read_to_string(&path).unwrap();
    for secret in ["49294212", "4929 4212", "canary-password", "canary-key", "Signal="] {
        assert!(!text.contains(secret), "{secret} is in the trace:\n{text}");
    }
    for there in
        ["UDP 127.0.0.1", "TCP 127.0.0.1", " in  <- ", " out -> ", "INFO sip:+**********00@", "SIP/2.0 200 OK", "canary-t"]
    {
        assert!(text.contains(there), "{there} is not in the trace:\n{text}");
    }
}
