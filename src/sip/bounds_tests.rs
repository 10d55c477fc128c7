//! What a peer can make us hold, and that nothing is left of calls that are over: dialogs, transactions, tasks, ports, places.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::digest::Credentials;
use super::headers::Headers;
use super::place::CallOut;
use super::signalling::{CallEvent, Invite, Outgoing, Transport};
use super::wire_tests::{OFFER, Peer, Service, WAIT, header, service, to_tag};
use super::{SipConfig, listen};
use crate::media::config::MediaConfig;
use crate::media::leg::Key;
use crate::media::rtp_session::Codec;

/// Calls one after another.
const CALLS: usize = 300;
/// Ports for so many calls at a time: all are used many times over.
const PORT_PAIRS: u16 = 8;

/// An answer without a body; `status` may bring header fields along.
fn reply(request: &str, status: &str) -> String {
    let copied: String =
        ["Via", "From", "Call-ID", "CSeq"].iter().map(|n| format!("{n}: {}\r\n", header(request, n).unwrap())).collect();
    let to = header(request, "To").unwrap();
    let tag = if to.contains(";tag=") { "" } else { ";tag=b" };
    format!("SIP/2.0 {status}\r\n{copied}To: {to}{tag}\r\nContent-Length: 0\r\n\r\n")
}

/// Waits until a figure is what it should be.
async fn settles(what: &str, want: usize, figure: impl Fn() -> usize) {
    for _ in 0..200 {
        if figure() == want {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: {} instead of {want}", figure());
}

#[tokio::test]
async fn of_three_hundred_calls_nothing_is_left() {
    let (sender, mut legs) = mpsc::channel(4);
    let media = MediaConfig { port_min: 45_000, port_max: 45_000 + PORT_PAIRS * 2 - 1, ..MediaConfig::default() };
    // Transactions are kept for 64 times this.
    let config = SipConfig { listen: "127.0.0.1:0".parse().unwrap(), t1_ms: 10, ..SipConfig::default() };
    let listener = listen(config, media, sender, CancellationToken::new()).await.unwrap();
    let service = Service { listener, legs: mpsc::channel(1).1, stop: CancellationToken::new() };
    let listener = &service.listener;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut before = 0;
    for i in 0..CALLS {
        if i == 3 {
            // From here on everything that a service starts once is there.
            settles("transactions", 0, || listener.dialler().held().transactions).await;
            before = tasks();
        }
        let peer = Peer::new(&service, &format!("one-of-many-{i}")).await;
        match i % 3 {
            // They hang up, we hang up, they give up before the ACK of a refusal.
            0 => {
                let tag = peer.call().await;
                let _leg = legs.recv().await.unwrap();
                peer.send(&peer.request("BYE", 2, "bye", Some(&tag), "", "")).await;
                peer.expect("SIP/2.0 200").await;
            }
            1 => {
                peer.call().await;
                drop(legs.recv().await.unwrap());
                let bye = peer.expect("BYE ").await;
                peer.send(&reply(&bye, "200 OK")).await;
            }
            _ => {
                peer.send(&peer.request("INVITE", 1, "inv", None, "Require: nonsense\r\n", OFFER)).await;
                peer.expect("SIP/2.0 420").await;
            }
        }
    }
    settles("dialogs", 0, || listener.dialler().held().dialogs).await;
    settles("transactions", 0, || listener.dialler().held().transactions).await;
    settles("messages", 0, || listener.wire().figures().waiting).await;
    settles("calls", 0, || listener.trunks().calls().values().sum()).await;
    settles("tasks", before, tasks).await;
}

#[tokio::test]
async fn refusals_that_nobody_acknowledges_keep_no_caller_out() {
    let mut service = service(SipConfig { t1_ms: 500, overload_limit_per_s: 10_000, ..SipConfig::default() }).await;
    let forger = Peer::new(&service, "").await;
    for i in 0..2_500 {
        let one = forger.request("INVITE", 1, &format!("f{i}"), None, "Require: nonsense\r\n", OFFER);
        forger.send(&one.replace("Call-ID: ", &format!("Call-ID: f{i}"))).await;
        if i % 10 == 0 {
            while forger.receive(Duration::from_millis(2)).await.is_some() {}
        }
    }
    let real = Peer::new(&service, "real").await;
    real.call().await;
    drop(service.leg().await);
}

#[tokio::test]
async fn a_bye_finds_its_way_when_the_calls_connection_is_gone() {
    let mut service = service(SipConfig::default()).await;
    let contact = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer::new(&service, "gone").await;
    let over_tcp = |text: String| {
        let at = contact.local_addr().unwrap();
        let me = peer.socket.local_addr().unwrap();
        text.replace("SIP/2.0/UDP", "SIP/2.0/TCP").replace(&format!("<sip:ann@{me}>"), &format!("<sip:ann@{at};transport=tcp>"))
    };
    let mut stream = TcpStream::connect(peer.service).await.unwrap();
    stream.write_all(over_tcp(peer.request("INVITE", 1, "inv", None, "", OFFER)).as_bytes()).await.unwrap();
    let mut heard = String::new();
    while !(heard.contains("SIP/2.0 200") && heard.ends_with("\r\n")) {
        let mut buffer = [0; 4_096];
        let count = tokio::time::timeout(WAIT, stream.read(&mut buffer)).await.unwrap().unwrap();
        heard.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let tag = to_tag(heard.split_once("SIP/2.0 200").unwrap().1);
    stream.write_all(over_tcp(peer.request("ACK", 1, "ack", Some(&tag), "", "")).as_bytes()).await.unwrap();
    let leg = service.leg().await;
    drop(stream);
    settles("connections", 0, || service.listener.wire().connections()).await;
    drop(leg);
    let (mut back, _) = tokio::time::timeout(WAIT, contact.accept()).await.expect("a new connection").unwrap();
    let mut buffer = [0; 4_096];
    let count = tokio::time::timeout(WAIT, back.read(&mut buffer)).await.unwrap().unwrap();
    let bye = String::from_utf8_lossy(&buffer[..count]).into_owned();
    assert!(bye.starts_with("BYE sip:ann@"), "{bye}");
    assert_eq!(service.listener.wire().connections(), 1, "it is one of ours, screened and counted");
    back.write_all(reply(&bye, "200 OK").as_bytes()).await.unwrap();
    settles("dialogs", 0, || service.listener.dialler().held().dialogs).await;
}

fn out(peer: &Peer) -> CallOut {
    let at = peer.socket.local_addr().unwrap();
    CallOut {
        trunk: "test".into(),
        credentials: Some(Credentials::new("us", "secret")),
        ..CallOut::new(format!("sip:+447700900123@{at}"), (at, Transport::Udp), "+448081570000".into(), WAIT)
    }
}

#[tokio::test]
async fn a_nonce_that_is_always_too_old_is_given_up() {
    let service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "stale").await;
    let (dialler, to) = (service.listener.dialler(), out(&peer));
    let call = tokio::spawn(async move { dialler.call(to).await });
    let invite = peer.expect("INVITE ").await;
    let contact = format!("200 OK\r\nContact: <sip:b@{}>\r\nContent-Type: application/sdp", peer.socket.local_addr().unwrap());
    let body = format!("Content-Length: {}\r\n\r\n{OFFER}", OFFER.len());
    let answer = reply(&invite, &contact).replace("Content-Length: 0\r\n\r\n", &body);
    peer.send(&answer).await;
    drop(call.await.unwrap().unwrap());
    let mut numbers = std::collections::HashSet::new();
    while let Some(text) = peer.receive(Duration::from_millis(700)).await {
        if text.starts_with("BYE ") && numbers.insert(header(&text, "CSeq").unwrap().to_owned()) {
            assert!(numbers.len() < 10, "without end");
            let challenge = "401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\", stale=true";
            peer.send(&reply(&text, challenge)).await;
        }
    }
    assert_eq!(numbers.len(), 4);
    assert_eq!(service.listener.dialler().held().dialogs, 0);
}

#[tokio::test]
async fn calls_that_we_place_have_what_was_reconfigured() {
    let service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "media").await;
    let dialler = service.listener.dialler();
    let media = MediaConfig { port_min: 46_000, port_max: 46_099, codecs: vec![Codec::Pcma], ..MediaConfig::default() };
    let sip = SipConfig { listen: service.listener.local_addr, t1_ms: 50, ..SipConfig::default() };
    service.listener.reconfigure(sip, media).unwrap();
    let to = out(&peer);
    let call = tokio::spawn(async move { dialler.call(to).await });
    let invite = peer.expect("INVITE ").await;
    assert!(invite.contains("m=audio 460") && invite.contains("RTP/AVP 8 "), "{invite}");
    let moved = "302 Moved Temporarily\r\nContact: <sip:+447700900999@elsewhere.example:5070>;q=1";
    peer.send(&reply(&invite, moved)).await;
    let refused = call.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("302") && refused.contains("elsewhere.example") && !refused.contains("900999"), "{refused}");
}

#[test]
fn neither_keys_nor_numbers_are_printed() {
    const SECRETS: [&str; 4] = ["inline:", "900123", "[105, 110", "Digit"];
    let description = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA".to_owned();
    let at = "127.0.0.1:5060".parse().unwrap();
    let outgoing = Outgoing {
        call_id: "c".into(),
        target: "sip:+447700900123@h".into(),
        destination: at,
        transport: Transport::Tls,
        from: "sip:+447700900123@h".into(),
        contact: at.ip(),
        headers: Headers::new(),
        offer: description.clone(),
        credentials: None,
    };
    let invite = Invite {
        call_id: "c".into(),
        uri: "sip:+447700900123@h".into(),
        peer: at,
        transport: Transport::Tls,
        headers: Headers::new(),
        offer: Some(description.clone().into_bytes()),
    };
    let body = description.into_bytes();
    let printed = [
        format!("{outgoing:?}"),
        format!("{invite:?}"),
        format!("{:?}", CallEvent::Answered(body.clone())),
        format!("{:?}", CallEvent::Progress { status: 183, description: Some(body.clone()) }),
        format!("{:?}", CallEvent::Reoffered(Ok(body))),
        format!("{:?}", CallEvent::Keys(vec![Key::Digit(4)])),
    ];
    for text in &printed {
        assert!(!SECRETS.iter().any(|s| text.contains(s)), "{text}");
    }
}
