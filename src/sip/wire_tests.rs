//! Hand-written SIP from a plain socket against our listener: a client and a server on one stack would hide each
//! other's faults.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::wire::WireError;
use super::{Listener, SipConfig, SipError, listen};
use crate::media::config::MediaConfig;
use crate::media::leg::{CallerClaim, Leg, LegCommand, LegEnd, LegEvent};

pub(super) const WAIT: Duration = Duration::from_secs(3);
pub(super) const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 39998 RTP/AVP 0 101\r\n\
     a=rtpmap:101 telephone-event/8000\r\n";

pub(super) struct Service {
    pub(super) listener: Listener,
    pub(super) legs: mpsc::Receiver<Leg>,
    pub(super) stop: CancellationToken,
}

pub(super) async fn service(config: SipConfig) -> Service {
    let (sender, legs) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let t1_ms = if config.t1_ms == SipConfig::default().t1_ms { 50 } else { config.t1_ms };
    let config = SipConfig { listen: "127.0.0.1:0".parse().unwrap(), t1_ms, ..config };
    let media = MediaConfig { port_min: 43_000, port_max: 44_999, ..MediaConfig::default() };
    let listener = listen(config, media, sender, stop.clone()).await.unwrap();
    Service { listener, legs, stop }
}

impl Service {
    pub(super) async fn leg(&mut self) -> Leg {
        tokio::time::timeout(WAIT, self.legs.recv()).await.expect("a leg in time").unwrap()
    }
}

/// A caller who writes every byte by hand.
pub(super) struct Peer {
    pub(super) socket: UdpSocket,
    pub(super) service: SocketAddr,
    pub(super) call_id: String,
}

impl Peer {
    pub(super) async fn new(service: &Service, call_id: &str) -> Self {
        Self {
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            service: service.listener.local_addr,
            call_id: call_id.to_owned(),
        }
    }

    pub(super) fn request(&self, method: &str, cseq: u32, branch: &str, to_tag: Option<&str>, extra: &str, body: &str) -> String {
        let me = self.socket.local_addr().unwrap();
        let tag = to_tag.map(|t| format!(";tag={t}")).unwrap_or_default();
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        // CANCEL and the ACK of a refusal keep the INVITE's number; their method differs.
        format!(
            "{method} sip:+448081570000@{service} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: \"Ann\" <sip:+447700900123@{me}>;tag=ft\r\nTo: <sip:+448081570000@{service}>{tag}\r\n\
             Call-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:ann@{me}>\r\n{extra}{content}Content-Length: {}\r\n\r\n{body}",
            self.call_id,
            body.len(),
            service = self.service
        )
    }

    pub(super) async fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), self.service).await.unwrap();
    }

    pub(super) async fn receive(&self, within: Duration) -> Option<String> {
        let mut buf = vec![0u8; 65_536];
        let (len, _) = tokio::time::timeout(within, self.socket.recv_from(&mut buf)).await.ok()?.unwrap();
        Some(String::from_utf8_lossy(&buf[..len]).into_owned())
    }

    /// The next message that starts so; others are passed over.
    pub(super) async fn expect(&self, start: &str) -> String {
        let mut seen = Vec::new();
        let wanted = async {
            loop {
                let text = self.receive(WAIT).await.unwrap_or_default();
                if text.starts_with(start) {
                    return text;
                }
                seen.push(text.lines().next().unwrap_or("").to_owned());
            }
        };
        tokio::time::timeout(WAIT, wanted).await.unwrap_or_else(|_| panic!("no `{start}` came"))
    }

    pub(super) async fn final_response(&self) -> String {
        loop {
            let text = self.receive(WAIT).await.expect("a final response in time");
            if !text.starts_with("SIP/2.0 1") {
                return text;
            }
        }
    }

    /// INVITE, 200, ACK. Gives the To tag.
    pub(super) async fn call(&self) -> String {
        self.send(&self.request("INVITE", 1, "inv", None, "", OFFER)).await;
        let ok = self.expect("SIP/2.0 200").await;
        let tag = to_tag(&ok);
        self.send(&self.request("ACK", 1, "ack", Some(&tag), "", "")).await;
        tag
    }
}

pub(super) fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .take_while(|l| !l.is_empty())
        .find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()))
}

pub(super) fn to_tag(text: &str) -> String {
    header(text, "To").unwrap().split(";tag=").nth(1).unwrap().to_owned()
}

pub(super) async fn end_of(leg: &mut Leg) -> Option<LegEnd> {
    let drained = async {
        while let Some(event) = leg.events.recv().await {
            if let LegEvent::Ended(end) = event {
                return Some(end);
            }
        }
        None
    };
    tokio::time::timeout(Duration::from_secs(6), drained).await.expect("the leg ends in time")
}

#[tokio::test]
async fn an_invite_that_is_repeated_is_one_call() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "one-call").await;
    let invite = peer.request("INVITE", 1, "inv", None, "", OFFER);
    peer.send(&invite).await;
    peer.send(&invite).await;
    let ok = peer.expect("SIP/2.0 200").await;
    assert_eq!(header(&ok, "Call-ID"), Some("one-call"));
    assert!(header(&ok, "Contact").unwrap().contains(&service.listener.local_addr.to_string()), "{ok}");
    assert!(ok.contains("m=audio ") && ok.contains("a=rtpmap:101 telephone-event/8000"), "{ok}");
    peer.send(&invite).await;
    peer.send(&peer.request("ACK", 1, "ack", Some(&to_tag(&ok)), "", "")).await;
    let leg = service.leg().await;
    assert_eq!(leg.info.caller, CallerClaim::Unverified("+447700900123".into()));
    assert_eq!((leg.info.called.as_str(), leg.info.peer.as_str(), leg.info.codec), ("+448081570000", "127.0.0.1", "PCMU"));
    assert_eq!(leg.info.protocol_id, "one-call");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(service.legs.try_recv().is_err(), "a second leg for one call");
}

#[tokio::test]
async fn the_answer_is_repeated_until_it_is_acknowledged() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "repeat").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "", OFFER)).await;
    let first = peer.expect("SIP/2.0 200").await;
    let again = peer.expect("SIP/2.0 200").await;
    assert_eq!(first, again);
    peer.send(&peer.request("ACK", 1, "ack", Some(&to_tag(&first)), "", "")).await;
    // What was on its way may still come; then there is silence.
    tokio::time::sleep(Duration::from_millis(100)).await;
    while peer.receive(Duration::from_millis(1)).await.is_some() {}
    assert_eq!(peer.receive(Duration::from_millis(1_500)).await, None);
    drop(service.leg().await);
    assert!(peer.expect("BYE ").await.contains("repeat"));
}

#[tokio::test]
async fn an_answer_that_is_never_acknowledged_ends_the_call() {
    let mut service = service(SipConfig { t1_ms: 10, ..SipConfig::default() }).await;
    let peer = Peer::new(&service, "no-ack").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "", OFFER)).await;
    let mut leg = service.leg().await;
    assert_eq!(end_of(&mut leg).await, Some(LegEnd::Abandoned));
    peer.expect("BYE ").await;
}

#[tokio::test]
async fn a_caller_who_cancels_while_it_rings_gets_487_and_there_is_no_leg() {
    let mut service = service(SipConfig { ring_ms: 1_000, ..SipConfig::default() }).await;
    let peer = Peer::new(&service, "cancel").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "", OFFER)).await;
    peer.expect("SIP/2.0 180").await;
    peer.send(&peer.request("CANCEL", 1, "inv", None, "", "")).await;
    let (a, b) = (peer.final_response().await, peer.final_response().await);
    let (ok, refused) = if header(&a, "CSeq") == Some("1 CANCEL") { (a, b) } else { (b, a) };
    assert!(ok.starts_with("SIP/2.0 200") && refused.starts_with("SIP/2.0 487"), "{ok}\n{refused}");
    peer.send(&peer.request("ACK", 1, "inv", Some(&to_tag(&refused)), "", "")).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(service.legs.try_recv().is_err());
    // The place is free again.
    let peer = Peer::new(&service, "after-cancel").await;
    peer.call().await;
    service.leg().await;
}

#[tokio::test]
async fn a_cancel_for_nothing_is_481() {
    let service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "stray-cancel").await;
    peer.send(&peer.request("CANCEL", 1, "never", None, "", "")).await;
    assert!(peer.final_response().await.starts_with("SIP/2.0 481"));
}

#[tokio::test]
async fn a_bye_ends_the_leg_and_a_second_dialog_is_unknown() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "bye").await;
    let tag = peer.call().await;
    let mut leg = service.leg().await;
    peer.send(&peer.request("BYE", 2, "bye", Some("nobody"), "", "")).await;
    assert!(peer.expect("SIP/2.0 4").await.starts_with("SIP/2.0 481"));
    peer.send(&peer.request("BYE", 3, "bye3", Some(&tag), "", "")).await;
    let ok = peer.expect("SIP/2.0 200").await;
    assert_eq!(header(&ok, "CSeq"), Some("3 BYE"));
    assert_eq!(end_of(&mut leg).await, Some(LegEnd::Caller));
    // Repeated, it is answered again; new, it has no dialog any more.
    peer.send(&peer.request("BYE", 3, "bye3", Some(&tag), "", "")).await;
    peer.expect("SIP/2.0 200").await;
    peer.send(&peer.request("BYE", 4, "bye4", Some(&tag), "", "")).await;
    peer.expect("SIP/2.0 481").await;
}

#[tokio::test]
async fn hanging_up_sends_a_bye() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "our-bye").await;
    peer.call().await;
    let leg = service.leg().await;
    leg.commands.send(LegCommand::HangUp).await.unwrap();
    let bye = peer.expect("BYE sip:ann@").await;
    assert!(header(&bye, "To").unwrap().contains(";tag=ft"), "{bye}");
    let me = peer.socket.local_addr().unwrap();
    let copied: String =
        ["Via", "From", "To", "Call-ID", "CSeq"].iter().map(|n| format!("{n}: {}\r\n", header(&bye, n).unwrap())).collect();
    peer.send(&format!("SIP/2.0 200 OK\r\n{copied}Content-Length: 0\r\n\r\n")).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(peer.receive(Duration::from_millis(300)).await, None, "{me} got more after the BYE was answered");
}

#[tokio::test]
async fn what_cannot_be_agreed_is_refused_with_a_reason() {
    let service = service(SipConfig::default()).await;
    let cases = [
        ("", OFFER.replace("RTP/AVP 0 101", "RTP/AVP 18 101"), "488", "Warning", "305"),
        ("", "v=0\r\nm=audio\r\n".to_owned(), "400", "Warning", "399"),
        ("", "this is not SDP".to_owned(), "400", "Warning", "v=0"),
        ("Require: 100rel, made-up\r\n", OFFER.to_owned(), "420", "Unsupported", "made-up"),
        ("Accept: text/plain\r\n", OFFER.to_owned(), "406", "Warning", "application/sdp"),
        ("Content-Encoding: gzip\r\n", OFFER.to_owned(), "415", "Accept", "application/sdp"),
    ];
    for (i, (extra, body, status, name, value)) in cases.iter().enumerate() {
        let peer = Peer::new(&service, &format!("refused-{i}")).await;
        peer.send(&peer.request("INVITE", 1, "inv", None, extra, body)).await;
        let refused = peer.final_response().await;
        assert!(refused.starts_with(&format!("SIP/2.0 {status}")), "{refused}");
        assert!(header(&refused, name).unwrap_or("").contains(value), "{refused}");
        // The refusal is repeated until it is acknowledged (RFC 3261 section 17.2.1), and then not.
        assert_eq!(peer.final_response().await, refused);
        peer.send(&peer.request("ACK", 1, "inv", Some(&to_tag(&refused)), "", "")).await;
        while peer.receive(Duration::from_millis(60)).await.is_some() {}
        assert_eq!(peer.receive(Duration::from_millis(600)).await, None);
    }
}

#[tokio::test]
async fn methods_that_we_do_not_do_are_405_with_allow() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "methods").await;
    for (i, method) in ["SUBSCRIBE", "MESSAGE", "REGISTER", "NOVEL", "invite"].iter().enumerate() {
        peer.send(&peer.request(method, 1, &format!("m{i}"), None, "", "")).await;
        let refused = peer.final_response().await;
        assert!(
            refused.starts_with("SIP/2.0 405") && header(&refused, "Allow").unwrap().contains("INVITE"),
            "{method}: {refused}"
        );
        assert!(header(&refused, "To").unwrap().contains(";tag="), "{refused}");
        assert_eq!(header(&refused, "CSeq"), Some(format!("1 {method}").as_str()));
    }
    let tag = peer.call().await;
    let _leg = service.leg().await;
    peer.send(&peer.request("MESSAGE", 2, "message", Some(&tag), "", "")).await;
    assert!(header(&peer.expect("SIP/2.0 405").await, "Allow").is_some());
}

#[tokio::test]
async fn options_tell_what_we_do() {
    let service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "options").await;
    peer.send(&peer.request("OPTIONS", 1, "opt", None, "", "")).await;
    let ok = peer.final_response().await;
    assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
    assert_eq!(header(&ok, "Allow"), Some(super::signalling::ALLOWED_METHODS));
    assert_eq!(header(&ok, "Accept"), Some("application/sdp"));
}

#[tokio::test]
async fn one_caller_too_many_hears_busy_and_when_to_try_again() {
    let mut service = service(SipConfig { max_calls: 1, busy_retry_after_s: 7, ..SipConfig::default() }).await;
    let first = Peer::new(&service, "first").await;
    let tag = first.call().await;
    let mut leg = service.leg().await;
    let second = Peer::new(&service, "second").await;
    second.send(&second.request("INVITE", 1, "inv", None, "", OFFER)).await;
    let busy = second.final_response().await;
    assert!(busy.starts_with("SIP/2.0 503") && header(&busy, "Retry-After") == Some("7"), "{busy}");
    first.send(&first.request("BYE", 2, "bye", Some(&tag), "", "")).await;
    end_of(&mut leg).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let third = Peer::new(&service, "third").await;
    third.call().await;
    service.leg().await;
}

#[tokio::test]
async fn draining_tells_dispatchers_to_go_elsewhere_and_leaves_calls_alone() {
    let mut service = service(SipConfig::default()).await;
    let mut told = service.listener.refused();
    let up = Peer::new(&service, "up").await;
    let tag = up.call().await;
    let mut leg = service.leg().await;
    service.listener.close();
    let other = Peer::new(&service, "other").await;
    other.send(&other.request("OPTIONS", 1, "ping", None, "", "")).await;
    let pong = other.final_response().await;
    assert!(pong.starts_with("SIP/2.0 503") && header(&pong, "Retry-After").is_some(), "{pong}");
    other.send(&other.request("INVITE", 2, "late", None, "", OFFER)).await;
    assert!(other.final_response().await.starts_with("SIP/2.0 503"));
    let refused = told.recv().await.unwrap();
    assert_eq!((refused.call_id.as_str(), refused.status, refused.called.as_str()), ("other", 503, "+448081570000"));
    up.send(&up.request("BYE", 2, "bye", Some(&tag), "", "")).await;
    assert!(up.final_response().await.starts_with("SIP/2.0 200"));
    assert_eq!(end_of(&mut leg).await, Some(LegEnd::Caller));
    assert_eq!((&mut leg.report).await.unwrap().end, Some(LegEnd::Caller), "who keeps records hears it too");
}

#[tokio::test]
async fn new_settings_hold_for_new_calls_only() {
    let mut service = service(SipConfig::default()).await;
    let first = Peer::new(&service, "first").await;
    first.call().await;
    let first_leg = service.leg().await;
    let trusting = SipConfig { trusted_peers: vec!["127.0.0.1".parse().unwrap()], t1_ms: 50, ..SipConfig::default() };
    let media = MediaConfig { port_min: 43_000, port_max: 44_999, ..MediaConfig::default() };
    service.listener.reconfigure(trusting, media).unwrap();
    let second = Peer::new(&service, "second").await;
    let asserted = "P-Asserted-Identity: <sip:+447700900555@127.0.0.1>\r\n";
    second.send(&second.request("INVITE", 1, "inv", None, asserted, OFFER)).await;
    second.expect("SIP/2.0 200").await;
    assert_eq!(service.leg().await.info.caller, CallerClaim::Asserted("+447700900555".into()));
    assert!(matches!(first_leg.info.caller, CallerClaim::Unverified(_)));
    assert!(!first_leg.events.is_closed(), "the call that was up goes on");
}

#[tokio::test]
async fn when_nobody_fetches_legs_callers_hear_busy() {
    let service = service(SipConfig::default()).await;
    for i in 0..4 {
        Peer::new(&service, &format!("waits-{i}")).await.call().await;
    }
    let peer = Peer::new(&service, "too-many").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "", OFFER)).await;
    assert!(peer.final_response().await.starts_with("SIP/2.0 503"));
}

#[tokio::test]
async fn an_invite_without_an_offer_gets_ours() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "late-offer").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "", "")).await;
    let ok = peer.expect("SIP/2.0 200").await;
    assert!(ok.contains("a=rtpmap:0 PCMU/8000"), "{ok}");
    assert!(service.legs.try_recv().is_err(), "no leg before the answer");
    peer.send(&peer.request("ACK", 1, "ack", Some(&to_tag(&ok)), "", OFFER)).await;
    drop(service.leg().await);
    peer.expect("BYE ").await;
}

#[tokio::test]
async fn hold_resume_a_move_and_another_codec_are_answered_and_an_unknown_codec_is_not() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "hold").await;
    let tag = peer.call().await;
    let _leg = service.leg().await;
    let moved = OFFER.replace("c=IN IP4 127.0.0.1", "c=IN IP4 192.0.2.9");
    let steps = [
        (2, format!("{OFFER}a=sendonly\r\n"), "SIP/2.0 200", "a=recvonly"),
        (3, OFFER.to_owned(), "SIP/2.0 200", "a=sendrecv"),
        (4, moved, "SIP/2.0 200", "a=sendrecv"),
        (5, OFFER.replace("AVP 0", "AVP 8"), "SIP/2.0 200", "a=rtpmap:8 PCMA/8000"),
        (6, OFFER.replace("AVP 0", "AVP 18"), "SIP/2.0 488", "Warning"),
    ];
    for (cseq, body, status, holds) in steps {
        peer.send(&peer.request("INVITE", cseq, &format!("re{cseq}"), Some(&tag), "", &body)).await;
        let answer = loop {
            let text = peer.final_response().await;
            if header(&text, "CSeq") == Some(format!("{cseq} INVITE").as_str()) {
                break text;
            }
        };
        assert!(answer.starts_with(status) && answer.contains(holds), "{answer}");
        let branch = if status.ends_with("200") { format!("ack{cseq}") } else { format!("re{cseq}") };
        peer.send(&peer.request("ACK", cseq, &branch, Some(&tag), "", "")).await;
    }
    peer.send(&peer.request("BYE", 7, "bye", Some(&tag), "", "")).await;
    loop {
        if header(&peer.expect("SIP/2.0 200").await, "CSeq") == Some("7 BYE") {
            break;
        }
    }
}

#[tokio::test]
// A number that lies behind the last one is no longer in order (RFC 3261 section 12.2.2).
async fn a_stale_sequence_number_is_500() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "stale").await;
    peer.send(&peer.request("INVITE", 20, "inv", None, "", OFFER)).await;
    let tag = to_tag(&peer.expect("SIP/2.0 200").await);
    peer.send(&peer.request("ACK", 20, "ack", Some(&tag), "", "")).await;
    let _leg = service.leg().await;
    peer.send(&peer.request("BYE", 19, "old", Some(&tag), "", "")).await;
    peer.expect("SIP/2.0 500").await;
    peer.send(&peer.request("BYE", 21, "new", Some(&tag), "", "")).await;
    peer.expect("SIP/2.0 200").await;
}

#[tokio::test]
async fn garbage_is_ignored_and_broken_requests_are_400() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "garbage").await;
    for junk in [
        &b"\x00\x01\x02\xff"[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"INVITE",
        b"SIP/2.0 200\r\n\r\n",
        b"\r\n",
        b"\x80\x00",
        b"ACK x SIP/2.0\r\n\r\n",
    ] {
        peer.socket.send_to(junk, peer.service).await.unwrap();
    }
    peer.socket.send_to(&vec![b'A'; 60_000], peer.service).await.unwrap();
    assert_eq!(peer.receive(Duration::from_millis(200)).await, None);
    let broken = [
        ("CSeq: 1 INVITE", "CSeq: one INVITE"),
        ("CSeq: 1 INVITE", "CSeq: 1 OPTIONS"),
        ("tag=ft", "x=y"),
        ("Content-Length: ", "Content-Length: 9"),
        ("Contact: <sip:ann@", "X-Contact: <sip:ann@"),
    ];
    for (i, (right, wrong)) in broken.iter().enumerate() {
        let text = peer.request("INVITE", 1, &format!("b{i}"), None, "", OFFER).replacen(right, wrong, 1);
        peer.send(&text).await;
        let refused = peer.final_response().await;
        assert!(refused.starts_with("SIP/2.0 400"), "{wrong}: {refused}");
        peer.send(&peer.request("ACK", 1, &format!("b{i}"), Some(&to_tag(&refused)), "", "")).await;
        while peer.receive(Duration::from_millis(120)).await.is_some() {}
    }
    peer.send(&peer.request("OPTIONS", 1, "v", None, "", "").replace(" SIP/2.0\r\nVia", " SIP/7.0\r\nVia")).await;
    assert!(peer.final_response().await.starts_with("SIP/2.0 505"));
    // A body without a length is all that follows (RFC 3261 section 20.14).
    let peer = Peer::new(&service, "no-length").await;
    let invite =
        peer.request("INVITE", 1, "inv", None, "", OFFER).replacen(&format!("Content-Length: {}\r\n", OFFER.len()), "", 1);
    peer.send(&invite).await;
    peer.expect("SIP/2.0 200").await;
    service.leg().await;
}

#[tokio::test]
async fn torture_does_not_stop_the_listener() {
    let shared = std::env::var("VOICEPAY_SHARED")
        .map_or_else(|_| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), Into::into);
    let Ok(folder) = std::fs::read_dir(shared.join("torture")) else {
        println!("skipped: ../shared is absent");
        return;
    };
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "after-torture").await;
    let mut sent = 0;
    for entry in folder {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        // Longer ones than UDP carries can't be sent; that is their own torture.
        sent += usize::from(peer.socket.send_to(&bytes, peer.service).await.is_ok());
    }
    assert!(sent > 30, "only {sent} messages were sent");
    while peer.receive(Duration::from_millis(300)).await.is_some() {}
    // Some of them are proper INVITEs; their legs are dropped, which frees their places.
    while service.legs.try_recv().is_ok() {}
    peer.call().await;
    service.leg().await;
}

#[tokio::test]
async fn stopping_says_goodbye_and_frees_the_port() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "stop").await;
    peer.call().await;
    let _leg = service.leg().await;
    service.stop.cancel();
    peer.expect("BYE ").await;
}

#[tokio::test]
async fn a_taken_port_is_its_own_error() {
    let service = service(SipConfig::default()).await;
    let (sender, _legs) = mpsc::channel(1);
    let config = SipConfig { listen: service.listener.local_addr, ..SipConfig::default() };
    let error = listen(config, MediaConfig::default(), sender, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SipError::Wire(WireError::Bind { .. })) && error.to_string().contains("sip.listen"), "{error}");
}
