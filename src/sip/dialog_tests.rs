//! What carriers expect of a call, from a plain socket: session timers, PRACK, UPDATE, hold, glare, INFO, transfers, routes.

use std::time::Duration;

use super::SipConfig;
use super::wire_tests::{OFFER, Peer, Service, end_of, header, service, to_tag};
use crate::media::leg::{Key, Leg, LegCommand, LegEnd, LegEvent, TransferNews};

const HOLD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 39998 RTP/AVP 0 101\r\n\
     a=rtpmap:101 telephone-event/8000\r\na=sendonly\r\n";

/// Answers a request of the service's.
async fn reply(peer: &Peer, request: &str, status: &str, extra: &str, body: &str) {
    let copied: String =
        ["Via", "From", "To", "Call-ID", "CSeq"].iter().map(|n| format!("{n}: {}\r\n", header(request, n).unwrap())).collect();
    let me = peer.socket.local_addr().unwrap();
    let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let length = body.len();
    peer.send(&format!(
        "SIP/2.0 {status}\r\n{copied}Contact: <sip:ann@{me}>\r\n{extra}{content}Content-Length: {length}\r\n\r\n{body}"
    ))
    .await;
}

/// The response to this CSeq, provisional ones and others passed over.
async fn answer_to(peer: &Peer, cseq: &str) -> String {
    loop {
        let text = peer.final_response().await;
        if text.starts_with("SIP/2.0") && header(&text, "CSeq") == Some(cseq) {
            return text;
        }
    }
}

async fn event(leg: &mut Leg, wanted: impl Fn(&LegEvent) -> bool) -> LegEvent {
    let found = async {
        loop {
            let event = leg.events.recv().await.expect("the leg goes on");
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(8), found).await.expect("the event in time")
}

async fn up(config: SipConfig, call_id: &str, extra: &str) -> (Service, Peer, Leg, String, String) {
    let mut service = service(config).await;
    let peer = Peer::new(&service, call_id).await;
    peer.send(&peer.request("INVITE", 1, "inv", None, extra, OFFER)).await;
    let ok = peer.expect("SIP/2.0 200").await;
    let tag = to_tag(&ok);
    peer.send(&peer.request("ACK", 1, "ack", Some(&tag), "", "")).await;
    let leg = service.leg().await;
    (service, peer, leg, tag, ok)
}

#[tokio::test]
async fn a_session_timer_is_agreed_and_one_too_short_is_422() {
    let (_service, peer, _leg, tag, ok) =
        up(SipConfig::default(), "timer", "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n").await;
    assert_eq!(header(&ok, "Session-Expires"), Some("600;refresher=uac"));
    assert_eq!(header(&ok, "Require"), Some("timer"));
    peer.send(&peer.request("UPDATE", 2, "up2", Some(&tag), "Supported: timer\r\nSession-Expires: 20\r\n", "")).await;
    let short = answer_to(&peer, "2 UPDATE").await;
    assert!(short.starts_with("SIP/2.0 422") && header(&short, "Min-SE") == Some("90"), "{short}");
    peer.send(&peer.request("UPDATE", 3, "up3", Some(&tag), "Supported: timer\r\nSession-Expires: 300;refresher=uas\r\n", ""))
        .await;
    let fine = answer_to(&peer, "3 UPDATE").await;
    assert!(fine.starts_with("SIP/2.0 200") && header(&fine, "Session-Expires") == Some("300;refresher=uas"), "{fine}");
    let other = Peer { call_id: "short".into(), ..peer };
    other.send(&other.request("INVITE", 1, "i1", None, "Supported: timer\r\nSession-Expires: 30\r\n", OFFER)).await;
    assert!(answer_to(&other, "1 INVITE").await.starts_with("SIP/2.0 422"));
}

#[tokio::test]
async fn what_is_required_and_not_known_is_420_within_a_call_too() {
    let (_service, peer, _leg, tag, _) = up(SipConfig::default(), "required", "").await;
    for (cseq, method) in [(2, "INVITE"), (3, "UPDATE")] {
        peer.send(&peer.request(method, cseq, &format!("r{cseq}"), Some(&tag), "Require: timer, made-up\r\n", OFFER)).await;
        let refused = answer_to(&peer, &format!("{cseq} {method}")).await;
        assert!(refused.starts_with("SIP/2.0 420") && header(&refused, "Unsupported") == Some("made-up"), "{refused}");
        if method == "INVITE" {
            peer.send(&peer.request("ACK", cseq, &format!("r{cseq}"), Some(&tag), "", "")).await;
        }
    }
}

#[tokio::test]
async fn a_180_that_must_arrive_is_repeated_until_its_prack() {
    let mut service = service(SipConfig { ring_ms: 1_200, ..SipConfig::default() }).await;
    let peer = Peer::new(&service, "100rel").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "Require: 100rel\r\n", OFFER)).await;
    let ringing = peer.expect("SIP/2.0 180").await;
    assert_eq!(peer.expect("SIP/2.0 180").await, ringing, "it is repeated");
    let (tag, rseq) = (to_tag(&ringing), header(&ringing, "RSeq").unwrap().to_owned());
    assert_eq!(header(&ringing, "Require"), Some("100rel"));
    peer.send(&peer.request("PRACK", 2, "p2", Some(&tag), "RAck: 7 1 INVITE\r\n", "")).await;
    assert!(answer_to(&peer, "2 PRACK").await.starts_with("SIP/2.0 481"));
    // Before the answer the first offer is still on the table (RFC 3311 section 5.2); without one UPDATE changes nothing.
    peer.send(&peer.request("UPDATE", 3, "u3", Some(&tag), "", HOLD)).await;
    let soon = answer_to(&peer, "3 UPDATE").await;
    assert!(soon.starts_with("SIP/2.0 500") && header(&soon, "Retry-After").is_some(), "{soon}");
    peer.send(&peer.request("UPDATE", 4, "u4", Some(&tag), "", "")).await;
    assert!(answer_to(&peer, "4 UPDATE").await.starts_with("SIP/2.0 200"));
    peer.send(&peer.request("PRACK", 5, "p5", Some(&tag), &format!("RAck: {rseq} 1 INVITE\r\n"), "")).await;
    assert!(answer_to(&peer, "5 PRACK").await.starts_with("SIP/2.0 200"));
    let ok = loop {
        let next = peer.receive(Duration::from_secs(3)).await.unwrap();
        assert!(!next.starts_with("SIP/2.0 180") || next == ringing);
        if next.starts_with("SIP/2.0 200") {
            break next;
        }
    };
    peer.send(&peer.request("ACK", 1, "ack", Some(&to_tag(&ok)), "", "")).await;
    service.leg().await;
}

#[tokio::test]
async fn a_180_that_is_never_acknowledged_ends_in_504() {
    let service = service(SipConfig { ring_ms: 60_000, t1_ms: 10, ..SipConfig::default() }).await;
    let peer = Peer::new(&service, "no-prack").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "Require: 100rel\r\n", OFFER)).await;
    assert!(answer_to(&peer, "1 INVITE").await.starts_with("SIP/2.0 504"));
}

#[tokio::test]
async fn a_held_caller_is_neither_heard_nor_spoken_to_until_resumed() {
    let (_service, peer, mut leg, tag, _) = up(SipConfig::default(), "held", "").await;
    peer.send(&peer.request("UPDATE", 2, "u2", Some(&tag), "", HOLD)).await;
    let ok = answer_to(&peer, "2 UPDATE").await;
    assert!(ok.starts_with("SIP/2.0 200") && ok.contains("a=recvonly"), "{ok}");
    event(&mut leg, |e| matches!(e, LegEvent::Held)).await;
    // Time on hold is no silence of the caller's: there are no frames.
    let quiet = tokio::time::timeout(Duration::from_millis(300), leg.events.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    peer.send(&peer.request("INVITE", 3, "i3", Some(&tag), "", OFFER)).await;
    assert!(answer_to(&peer, "3 INVITE").await.contains("a=sendrecv"));
    peer.send(&peer.request("ACK", 3, "a3", Some(&tag), "", "")).await;
    event(&mut leg, |e| matches!(e, LegEvent::Resumed)).await;
    event(&mut leg, |e| matches!(e, LegEvent::Frame(_))).await;
}

#[tokio::test]
async fn we_hold_and_resume_and_give_way_to_a_crossing_offer() {
    let (_service, peer, leg, tag, _) = up(SipConfig::default(), "our-hold", "").await;
    leg.commands.send(LegCommand::Hold).await.unwrap();
    let hold = peer.expect("INVITE sip:ann@").await;
    assert!(hold.contains("a=inactive") && header(&hold, "Session-Expires").is_some(), "{hold}");
    // Glare: theirs crosses ours.
    peer.send(&peer.request("INVITE", 2, "cross", Some(&tag), "", OFFER)).await;
    assert!(answer_to(&peer, "2 INVITE").await.starts_with("SIP/2.0 491"));
    peer.send(&peer.request("ACK", 2, "cross", Some(&tag), "", "")).await;
    reply(&peer, &hold, "491 Request Pending", "", "").await;
    peer.expect("ACK ").await;
    // We were called, so ours comes again within two seconds, with the next number.
    let again = peer.expect("INVITE sip:ann@").await;
    assert_eq!(header(&again, "CSeq"), Some("2 INVITE"));
    reply(&peer, &again, "200 OK", "", &HOLD.replace("sendonly", "inactive")).await;
    let ack = peer.expect("ACK sip:ann@").await;
    assert_eq!(header(&ack, "CSeq"), Some("2 ACK"));
    leg.commands.send(LegCommand::Resume).await.unwrap();
    let resume = peer.expect("INVITE sip:ann@").await;
    assert!(resume.contains("a=sendrecv"), "{resume}");
}

#[tokio::test]
async fn an_invite_without_an_offer_within_the_call_gets_one_and_its_answer_is_applied() {
    let (_service, peer, mut leg, tag, _) = up(SipConfig::default(), "offerless", "").await;
    peer.send(&peer.request("INVITE", 2, "i2", Some(&tag), "", "")).await;
    let ok = answer_to(&peer, "2 INVITE").await;
    assert!(ok.starts_with("SIP/2.0 200") && ok.contains("m=audio"), "{ok}");
    // Until the ACK our offer is on the table.
    peer.send(&peer.request("UPDATE", 3, "u3", Some(&tag), "", OFFER)).await;
    assert!(answer_to(&peer, "3 UPDATE").await.starts_with("SIP/2.0 491"));
    peer.send(&peer.request("ACK", 2, "a2", Some(&tag), "", HOLD)).await;
    event(&mut leg, |e| matches!(e, LegEvent::Held)).await;
}

#[tokio::test]
async fn a_new_contact_moves_our_bye_and_a_record_routing_proxy_keeps_its_place() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "routed").await;
    let (proxy, elsewhere) = (Peer::new(&service, "").await, Peer::new(&service, "").await);
    let proxy_at = proxy.socket.local_addr().unwrap();
    let route = format!("Record-Route: <sip:{proxy_at};lr>\r\n");
    peer.send(&peer.request("INVITE", 1, "inv", None, &route, OFFER)).await;
    let ok = peer.expect("SIP/2.0 200").await;
    assert_eq!(header(&ok, "Record-Route"), Some(format!("<sip:{proxy_at};lr>").as_str()));
    let tag = to_tag(&ok);
    peer.send(&peer.request("ACK", 1, "ack", Some(&tag), "", "")).await;
    let leg = service.leg().await;
    let moved = format!("<sip:ann@{}>", elsewhere.socket.local_addr().unwrap());
    let update = peer.request("UPDATE", 2, "u2", Some(&tag), "", "");
    let old = header(&update, "Contact").unwrap().to_owned();
    peer.send(&update.replace(&old, &moved)).await;
    assert!(answer_to(&peer, "2 UPDATE").await.starts_with("SIP/2.0 200"));
    drop(leg);
    let bye = proxy.expect("BYE ").await;
    assert!(bye.starts_with(&format!("BYE {}", moved.trim_matches(['<', '>']))), "{bye}");
    assert_eq!(header(&bye, "Route"), Some(format!("<sip:{proxy_at};lr>").as_str()));
}

#[tokio::test]
async fn a_strict_router_finds_itself_in_the_request_line() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "strict").await;
    let proxy = Peer::new(&service, "").await;
    let proxy_at = proxy.socket.local_addr().unwrap();
    peer.send(&peer.request("INVITE", 1, "inv", None, &format!("Record-Route: <sip:{proxy_at}>\r\n"), OFFER)).await;
    let tag = to_tag(&peer.expect("SIP/2.0 200").await);
    peer.send(&peer.request("ACK", 1, "ack", Some(&tag), "", "")).await;
    drop(service.leg().await);
    let bye = proxy.expect("BYE ").await;
    let me = peer.socket.local_addr().unwrap();
    assert!(bye.starts_with(&format!("BYE sip:{proxy_at} ")), "{bye}");
    assert_eq!(header(&bye, "Route"), Some(format!("<sip:ann@{me}>").as_str()));
}

#[tokio::test]
async fn a_contact_behind_a_nat_is_reached_where_its_packets_come_from() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "nat").await;
    let me = peer.socket.local_addr().unwrap();
    let natted = |text: String| text.replace(&format!("Contact: <sip:ann@{me}>"), "Contact: <sip:ann@192.168.77.5:5060>");
    peer.send(&natted(peer.request("INVITE", 1, "inv", None, "", OFFER))).await;
    let tag = to_tag(&peer.expect("SIP/2.0 200").await);
    peer.send(&peer.request("ACK", 1, "ack", Some(&tag), "", "")).await;
    drop(service.leg().await);
    assert!(peer.expect("BYE ").await.starts_with("BYE sip:ann@192.168.77.5:5060 "));
}

#[tokio::test]
async fn keys_come_in_info_and_the_rest_of_info_says_why_not() {
    let (_service, peer, mut leg, tag, _) = up(SipConfig::default(), "info", "").await;
    let info = |cseq: u32, media_type: &str, body: &str| {
        let text = peer.request("INFO", cseq, &format!("n{cseq}"), Some(&tag), "", body);
        text.replace("Content-Type: application/sdp", &format!("Content-Type: {media_type}"))
    };
    let steps = [
        ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", "200"),
        ("application/dtmf", "#", "200"),
        ("text/plain", "5", "415"),
        ("application/dtmf-relay", "Nonsense", "400"),
        ("application/sdp", "", "200"),
    ];
    for ((media_type, body, status), cseq) in steps.iter().zip(2u32..) {
        peer.send(&info(cseq, media_type, body)).await;
        let answer = answer_to(&peer, &format!("{cseq} INFO")).await;
        assert!(answer.starts_with(&format!("SIP/2.0 {status}")), "{media_type}: {answer}");
    }
    for key in [Key::Digit(5), Key::Pound] {
        let LegEvent::Key(pressed) = event(&mut leg, |e| matches!(e, LegEvent::Key(_))).await else { panic!() };
        assert_eq!(pressed, key);
    }
}

#[tokio::test]
async fn a_blind_transfer_is_reported_and_then_we_hang_up() {
    let (_service, peer, mut leg, _tag, _) = up(SipConfig::default(), "refer", "").await;
    leg.commands.send(LegCommand::Transfer { to: "sip:agent@192.0.2.7".into(), instead_of: None }).await.unwrap();
    let refer = peer.expect("REFER sip:ann@").await;
    assert_eq!(header(&refer, "Refer-To"), Some("<sip:agent@192.0.2.7>"));
    assert!(header(&refer, "Referred-By").unwrap().contains("+448081570000"), "{refer}");
    reply(&peer, &refer, "202 Accepted", "", "").await;
    let tag = header(&refer, "From").unwrap().split(";tag=").nth(1).unwrap().to_owned();
    for (cseq, state, frag, news) in [
        (2, "active;expires=60", "SIP/2.0 180 Ringing", TransferNews::Ringing),
        (3, "terminated;reason=noresource", "SIP/2.0 200 OK", TransferNews::Done),
    ] {
        let extra = format!("Event: refer\r\nSubscription-State: {state}\r\n");
        let notify = peer.request("NOTIFY", cseq, &format!("no{cseq}"), Some(&tag), &extra, frag);
        peer.send(&notify.replace("application/sdp", "message/sipfrag;version=2.0")).await;
        let told = event(&mut leg, |e| matches!(e, LegEvent::Transfer(_))).await;
        assert!(matches!(told, LegEvent::Transfer(n) if n == news), "{told:?}");
        assert!(answer_to_or_bye(&peer, cseq).await.starts_with("SIP/2.0 200"));
    }
    let bye = peer.expect("BYE ").await;
    reply(&peer, &bye, "200 OK", "", "").await;
    assert_eq!(end_of(&mut leg).await, Some(LegEnd::Caller));
}

/// Our answer to a NOTIFY, which a BYE may follow at once.
async fn answer_to_or_bye(peer: &Peer, cseq: u32) -> String {
    answer_to(peer, &format!("{cseq} NOTIFY")).await
}

#[tokio::test]
async fn a_transfer_that_is_refused_leaves_the_call_as_it_was() {
    let (_service, peer, mut leg, tag, _) = up(SipConfig::default(), "refer-refused", "").await;
    leg.commands.send(LegCommand::Transfer { to: "tel:+442079460000".into(), instead_of: None }).await.unwrap();
    let refer = peer.expect("REFER ").await;
    reply(&peer, &refer, "405 Method Not Allowed", "", "").await;
    let told = event(&mut leg, |e| matches!(e, LegEvent::Transfer(_))).await;
    assert!(matches!(told, LegEvent::Transfer(TransferNews::Refused { status: 405 })), "{told:?}");
    // A NOTIFY that nobody asked for.
    peer.send(&peer.request("NOTIFY", 2, "n2", Some(&tag), "Event: refer\r\nSubscription-State: active\r\n", "")).await;
    assert!(answer_to(&peer, "2 NOTIFY").await.starts_with("SIP/2.0 481"));
    leg.commands.send(LegCommand::HangUp).await.unwrap();
    peer.expect("BYE ").await;
}

#[tokio::test]
async fn whoever_wants_to_transfer_us_or_to_take_a_callers_place_is_refused() {
    let (service, peer, _leg, tag, _) = up(SipConfig::default(), "refer-us", "").await;
    peer.send(&peer.request("REFER", 2, "r2", Some(&tag), "Refer-To: <sip:a@b>\r\n", "")).await;
    assert!(answer_to(&peer, "2 REFER").await.starts_with("SIP/2.0 603"));
    peer.send(&peer.request("REFER", 3, "r3", Some(&tag), "", "")).await;
    assert!(answer_to(&peer, "3 REFER").await.starts_with("SIP/2.0 400"));
    for (i, (replaces, status)) in
        [(format!("refer-us;to-tag={tag};from-tag=ft"), "603"), ("nobody;to-tag=1;from-tag=2".to_owned(), "481")]
            .iter()
            .enumerate()
    {
        let other = Peer::new(&service, &format!("replaces-{i}")).await;
        other.send(&other.request("INVITE", 1, "inv", None, &format!("Replaces: {replaces}\r\n"), OFFER)).await;
        let refused = answer_to(&other, "1 INVITE").await;
        assert!(refused.starts_with(&format!("SIP/2.0 {status}")), "{refused}");
    }
}

#[tokio::test]
async fn a_bad_offer_within_the_call_leaves_the_session_and_a_stale_update_is_500() {
    let (_service, peer, mut leg, tag, _) = up(SipConfig::default(), "bad-offer", "").await;
    peer.send(&peer.request("UPDATE", 5, "u5", Some(&tag), "", &OFFER.replace("RTP/AVP 0 101", "RTP/AVP 77"))).await;
    assert!(answer_to(&peer, "5 UPDATE").await.starts_with("SIP/2.0 488"));
    peer.send(&peer.request("UPDATE", 4, "u4", Some(&tag), "", "")).await;
    assert!(answer_to(&peer, "4 UPDATE").await.starts_with("SIP/2.0 500"));
    event(&mut leg, |e| matches!(e, LegEvent::Frame(_))).await;
    for (cseq, method) in [(6, "UPDATE"), (7, "INFO"), (8, "PRACK"), (9, "REFER")] {
        peer.send(&peer.request(method, cseq, &format!("x{cseq}"), Some("nobody"), "", "")).await;
        assert!(answer_to(&peer, &format!("{cseq} {method}")).await.starts_with("SIP/2.0 481"), "{method}");
    }
}

/// Time leaps for every timer of the runtime; sockets don't notice, so what was sent gets a moment to arrive.
async fn later(s: u64) {
    tokio::time::sleep(Duration::from_millis(150)).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(s)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn we_confirm_the_session_by_update_or_by_an_invite_that_changes_nothing() {
    let timer = "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n";
    let allow = format!("{timer}Allow: INVITE, ACK, BYE, UPDATE\r\n");
    let (_service, peer, _leg, _, _) = up(SipConfig::default(), "refresh-update", &allow).await;
    later(46).await;
    let update = peer.expect("UPDATE ").await;
    assert_eq!(header(&update, "Session-Expires"), Some("90;refresher=uac"));
    assert_eq!(header(&update, "Content-Length"), Some("0"));
    reply(&peer, &update, "200 OK", "Session-Expires: 90;refresher=uac\r\n", "").await;
    later(46).await;
    // Whoever lists UPDATE and then does not know it gets an INVITE.
    let update = peer.expect("UPDATE ").await;
    reply(&peer, &update, "405 Method Not Allowed", "", "").await;
    assert!(peer.expect("INVITE ").await.contains("m=audio"));

    let (_service, peer, _leg, _, ok) = up(SipConfig::default(), "refresh-invite", timer).await;
    later(46).await;
    let invite = peer.expect("INVITE ").await;
    let body = |text: &str| text.split("\r\n\r\n").nth(1).unwrap().to_owned();
    assert_eq!(body(&invite), body(&ok), "the same session");
    reply(&peer, &invite, "200 OK", "Session-Expires: 90;refresher=uac\r\n", OFFER).await;
    peer.expect("ACK ").await;
}

#[tokio::test]
async fn a_session_that_nobody_confirms_ends() {
    let timer = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n";
    let (_service, peer, mut leg, _, _) = up(SipConfig::default(), "expires", timer).await;
    later(61).await;
    let bye = peer.expect("BYE ").await;
    reply(&peer, &bye, "200 OK", "", "").await;
    assert_eq!(end_of(&mut leg).await, Some(LegEnd::Failed));
}

#[tokio::test]
async fn a_session_that_the_other_side_knows_no_more_ends() {
    let timer = "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\nAllow: UPDATE\r\n";
    let (_service, peer, mut leg, _, _) = up(SipConfig::default(), "lost", timer).await;
    later(46).await;
    let update = peer.expect("UPDATE ").await;
    reply(&peer, &update, "481 Call/Transaction Does Not Exist", "", "").await;
    let bye = peer.expect("BYE ").await;
    reply(&peer, &bye, "481 Call/Transaction Does Not Exist", "", "").await;
    assert_eq!(end_of(&mut leg).await, Some(LegEnd::Failed));
}

#[tokio::test]
async fn a_cancel_after_the_answer_is_200_and_changes_nothing() {
    let mut service = service(SipConfig::default()).await;
    let peer = Peer::new(&service, "late-cancel").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "", OFFER)).await;
    let ok = peer.expect("SIP/2.0 200").await;
    peer.send(&peer.request("CANCEL", 1, "inv", None, "", "")).await;
    assert!(answer_to(&peer, "1 CANCEL").await.starts_with("SIP/2.0 200"));
    peer.send(&peer.request("ACK", 1, "ack", Some(&to_tag(&ok)), "", "")).await;
    let mut leg = service.leg().await;
    event(&mut leg, |e| matches!(e, LegEvent::Frame(_))).await;
    // And after the ACK.
    peer.send(&peer.request("CANCEL", 1, "inv", None, "", "")).await;
    assert!(answer_to(&peer, "1 CANCEL").await.starts_with("SIP/2.0 200"));
    event(&mut leg, |e| matches!(e, LegEvent::Frame(_))).await;
}

#[tokio::test]
async fn a_bye_while_our_bye_is_under_way_is_200_too() {
    let (_service, peer, leg, tag, _) = up(SipConfig::default(), "byes-cross", "").await;
    drop(leg);
    let ours = peer.expect("BYE ").await;
    peer.send(&peer.request("BYE", 2, "bye", Some(&tag), "", "")).await;
    assert!(answer_to(&peer, "2 BYE").await.starts_with("SIP/2.0 200"));
    reply(&peer, &ours, "200 OK", "", "").await;
}

#[tokio::test]
async fn a_second_invite_before_the_first_is_answered_is_500_and_says_when() {
    let mut service = service(SipConfig { ring_ms: 700, ..SipConfig::default() }).await;
    let peer = Peer::new(&service, "second-invite").await;
    peer.send(&peer.request("INVITE", 1, "inv", None, "", OFFER)).await;
    let tag = to_tag(&peer.expect("SIP/2.0 180").await);
    peer.send(&peer.request("INVITE", 2, "second", Some(&tag), "", OFFER)).await;
    let soon = answer_to(&peer, "2 INVITE").await;
    assert!(soon.starts_with("SIP/2.0 500") && header(&soon, "Retry-After").is_some(), "{soon}");
    peer.send(&peer.request("ACK", 2, "second", Some(&tag), "", "")).await;
    let ok = answer_to(&peer, "1 INVITE").await;
    assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
    peer.send(&peer.request("ACK", 1, "ack", Some(&tag), "", "")).await;
    service.leg().await;
}

/// What the process would log, with everything switched on.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn keys_in_info_reach_no_log_even_at_trace() {
    use tracing_subscriber::prelude::*;
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
    // The very cap that the process has, over a filter that lets all through.
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(crate::telemetry::stack_cap()));
    // This test's runtime has one thread, so that it is this thread that signals.
    let _guard = tracing::subscriber::set_default(subscriber);
    let (_service, peer, mut leg, tag, _) = up(SipConfig::default(), "canary-call", "").await;
    let canary = "73501946";
    for (digit, cseq) in canary.chars().zip(2u32..) {
        let body = format!("Signal={digit}\r\nDuration=100{canary}\r\n");
        let text = peer.request("INFO", cseq, &format!("n{cseq}"), Some(&tag), "", &body);
        peer.send(&text.replace("application/sdp", "application/dtmf-relay")).await;
        assert!(answer_to(&peer, &format!("{cseq} INFO")).await.starts_with("SIP/2.0 200"));
    }
    // One that can't be read, and one outside any call.
    let odd = peer.request("INFO", 20, "odd", Some(&tag), "", &format!("Signal=x{canary}"));
    peer.send(&odd.replace("application/sdp", "application/dtmf-relay")).await;
    answer_to(&peer, "20 INFO").await;
    peer.send(&peer.request("INFO", 21, "stray", Some("nobody"), "", canary)).await;
    answer_to(&peer, "21 INFO").await;
    let pressed = event(&mut leg, |e| matches!(e, LegEvent::Key(_))).await;
    tracing::trace!(?pressed, "the call hears a key");
    let written = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(written.contains("the call hears a key"), "the log works");
    assert!(!written.contains(canary) && !written.contains("Signal="), "{written}");
}
