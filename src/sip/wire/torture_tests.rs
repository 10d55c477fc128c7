//! RFC 4475 through the real listener: what each of its 49 messages gets. The messages themselves are the RFC's and lie outside
//! the repository; where they are absent, the test says so, and our own of the same kinds run all the same.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::media::config::MediaConfig;
use crate::media::leg::Leg;
use crate::sip::{Listener, SipConfig, listen};

/// How long silence must last to be silence.
const SILENCE: Duration = Duration::from_millis(250);

/// Message, section of RFC 4475, what it gets over UDP (0: nothing).
pub(super) const TABLE: [(&str, &str, u16); 49] = [
    ("wsinv", "3.1.1.1", 481),
    ("intmeth", "3.1.1.2", 405),
    ("esc01", "3.1.1.3", 200),
    ("escnull", "3.1.1.4", 405),
    ("esc02", "3.1.1.5", 405),
    ("lwsdisp", "3.1.1.6", 200),
    ("longreq", "3.1.1.7", 200),
    ("dblreq", "3.1.1.8", 405),
    ("semiuri", "3.1.1.9", 200),
    ("transports", "3.1.1.10", 200),
    ("mpart01", "3.1.1.11", 405),
    ("unreason", "3.1.1.12", 0),
    ("noreason", "3.1.1.13", 0),
    ("badinv01", "3.1.2.1", 400),
    ("clerr", "3.1.2.2", 400),
    ("ncl", "3.1.2.3", 400),
    ("scalar02", "3.1.2.4", 400),
    ("scalarlg", "3.1.2.5", 0),
    ("quotbal", "3.1.2.6", 400),
    ("ltgtruri", "3.1.2.7", 400),
    ("lwsruri", "3.1.2.8", 400),
    ("lwsstart", "3.1.2.9", 400),
    ("trws", "3.1.2.10", 400),
    ("escruri", "3.1.2.11", 400),
    ("baddate", "3.1.2.12", 200),
    ("regbadct", "3.1.2.13", 400),
    ("badaspec", "3.1.2.14", 400),
    ("baddn", "3.1.2.15", 400),
    ("badvers", "3.1.2.16", 505),
    ("mismatch01", "3.1.2.17", 400),
    ("mismatch02", "3.1.2.18", 400),
    ("bigcode", "3.1.2.19", 0),
    ("badbranch", "3.2.1", 400),
    ("insuf", "3.3.1", 400),
    ("unkscm", "3.3.2", 416),
    ("novelsc", "3.3.3", 416),
    ("unksm2", "3.3.4", 405),
    ("bext01", "3.3.5", 420),
    ("invut", "3.3.6", 415),
    ("regaut01", "3.3.7", 405),
    ("multi01", "3.3.8", 400),
    ("mcl01", "3.3.9", 400),
    ("bcast", "3.3.10", 0),
    ("zeromf", "3.3.11", 200),
    ("cparam01", "3.3.12", 405),
    ("cparam02", "3.3.13", 405),
    ("regescrt", "3.3.14", 405),
    ("sdp01", "3.3.15", 406),
    ("inv2543", "3.4.1", 200),
];

fn torture() -> Option<std::path::PathBuf> {
    let shared = std::env::var("VOICEPAY_SHARED")
        .map_or_else(|_| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), Into::into);
    let folder = shared.join("torture");
    if !folder.is_dir() {
        println!("skipped: ../shared is absent");
        return None;
    }
    Some(folder)
}

async fn service() -> (Listener, mpsc::Receiver<Leg>) {
    let (sender, legs) = mpsc::channel(16);
    let config = SipConfig { listen: "127.0.0.1:0".parse().unwrap(), t1_ms: 50, ..SipConfig::default() };
    let media = MediaConfig { port_min: 33_000, port_max: 33_999, ..MediaConfig::default() };
    (listen(config, media, sender, CancellationToken::new()).await.unwrap(), legs)
}

/// The first final response, or 0 if there is silence.
async fn answer(socket: &UdpSocket) -> (u16, String) {
    let mut buffer = vec![0; 65_535];
    while let Ok(received) = tokio::time::timeout(SILENCE, socket.recv_from(&mut buffer)).await {
        let text = String::from_utf8_lossy(&buffer[..received.unwrap().0]).into_owned();
        let status = text.strip_prefix("SIP/2.0 ").and_then(|t| t.get(..3)).map_or(0, |s| s.parse().unwrap());
        if status >= 200 {
            return (status, text);
        }
    }
    (0, String::new())
}

#[tokio::test]
async fn all_49_messages_of_rfc_4475_get_what_they_should() {
    let Some(folder) = torture() else { return };
    let (listener, mut legs) = service().await;
    let mut wrong = Vec::new();
    for (name, section, want) in TABLE {
        let message = std::fs::read(folder.join(format!("{name}.dat"))).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&message, listener.local_addr).await.unwrap();
        let (status, text) = answer(&socket).await;
        if status != want {
            wrong.push(format!("{name} ({section}): {status} instead of {want}\n{text}"));
        }
        // Each answer names the request that it is for, as far as that can be read.
        if status != 0 && !text.contains(&format!("Call-ID: {name}")) && !["mpart01", "insuf"].contains(&name) {
            wrong.push(format!("{name} ({section}): the answer has another Call-ID\n{text}"));
        }
        // What is acceptable becomes a call, which would take a place: its leg is dropped.
        while legs.try_recv().is_ok() {}
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_in_the_documents_is_the_one_that_is_tested() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rfc4475.md");
    let Ok(document) = std::fs::read_to_string(&path) else {
        println!("skipped: no docs beside the manifest");
        return;
    };
    for (name, section, status) in TABLE {
        let outcome = if status == 0 { "dropped".to_owned() } else { status.to_string() };
        let row = document.lines().find(|l| l.starts_with(&format!("| `{name}` | {section} |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in {}", path.display()));
        assert!(row.contains(&format!("| {outcome} |")), "{row}");
    }
}

fn request(method: &str, uri: &str, branch: &str, extra: &str, body: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;rport;branch={branch}\r\nFrom: <sip:c@d.example>;tag=1\r\n\
         To: <sip:a@b.example>\r\nCall-ID: {branch}@d.example\r\nCSeq: 1 {method}\r\nContact: <sip:c@d.example>\r\n{extra}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn messages_of_the_same_kinds_get_the_same() {
    let (listener, _legs) = service().await;
    let options = |branch: &str| request("OPTIONS", "sip:a@b.example", branch, "", "");
    let cases = [
        (options("z9hG4bKa1"), 200),
        (options("z9hG4bKa2").replace("Via: ", "v :\r\n   ").replace("UDP 192", "UDP\t\r\n 192"), 200),
        (options("z9hG4bKa3").replace("<sip:c@d.example>;tag", "\"C \\\"<,\" <sip:c@d.example> ; tag"), 200),
        (options("z9hG4bKa4").replace("OPTIONS", "%4FPTIONS"), 405),
        (options("z9hG4bKa5").replace("OPTIONS", "!odd*Method_+`.%~"), 405),
        (options("z9hG4bKa6").replace("192.0.2.1;", "192.0.2.1;;,;,,;"), 400),
        (options("z9hG4bKa7").replace("Content-Length: 0", "Content-Length: -9"), 400),
        (options("z9hG4bKa8").replace("CSeq: 1", "CSeq: 99999999999999999999"), 400),
        (options("z9hG4bKa9").replace("To: <sip", "To: \"open <sip"), 400),
        (options("z9hG4bKb1").replace(" SIP/2.0\r\n", " SIP/9.0\r\n"), 505),
        (options("z9hG4bKb2").replace("sip:a@b.example S", "made-up:thing S"), 416),
        (request("OPTIONS", "sip:a@b.example", "z9hG4bKb3", "Require: nothing-of-ours\r\n", ""), 420),
        (request("OPTIONS", "sip:a@b.example", "z9hG4bKb4", "Max-Forwards: 0\r\n", ""), 200),
        (request("OPTIONS", "sip:a@b.example", "z9hG4bKb5", "Max-Forwards: 256\r\n", ""), 400),
        (options("z9hG4bK"), 400),
        (request("INVITE", "sip:a@b.example", "z9hG4bKb6", "Accept: text/nothing\r\n", ""), 406),
        (request("OPTIONS", "sip:a@b.example", "z9hG4bKb7", &format!("X-Long: {}\r\n", "x".repeat(9_000)), ""), 513),
        (request("OPTIONS", "sip:a@b.example", "z9hG4bKb8", "", &"x".repeat(40_000)), 413),
        ("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKc1\r\n\r\n".to_owned(), 0),
        (options("z9hG4bKc2").replace("OPTIONS", "ACK").replace("Call-ID", "X-ID"), 0),
    ];
    for (message, want) in cases {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(message.as_bytes(), listener.local_addr).await.unwrap();
        let (status, text) = answer(&socket).await;
        assert_eq!(status, want, "{}\n{text}", message.get(..300).unwrap_or(&message));
        if status == 400 {
            assert!(text.contains("Warning: 399 voicepay \""), "{text}");
        }
    }
}

#[tokio::test]
async fn a_stateless_answer_is_the_same_for_a_retransmission() {
    let (listener, _legs) = service().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let message = request("NOVEL", "sip:a@b.example", "z9hG4bKd1", "", "");
    let mut answers = Vec::new();
    for _ in 0..2 {
        socket.send_to(message.as_bytes(), listener.local_addr).await.unwrap();
        answers.push(answer(&socket).await.1);
    }
    assert_eq!(answers[0], answers[1]);
    let port = socket.local_addr().unwrap().port();
    assert!(answers[0].contains(&format!("received=127.0.0.1;rport={port}")) && answers[0].contains(";tag="), "{}", answers[0]);
}

#[tokio::test]
async fn a_request_that_came_by_two_ways_is_482_the_second_time() {
    let (listener, _legs) = service().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let first = request("OPTIONS", "sip:a@b.example", "z9hG4bKe1", "", "");
    let other_way = first.replace("branch=z9hG4bKe1", "branch=z9hG4bKe2");
    for (message, want) in [(&first, 200), (&first, 200), (&other_way, 482), (&first, 200)] {
        socket.send_to(message.as_bytes(), listener.local_addr).await.unwrap();
        assert_eq!(answer(&socket).await.0, want);
    }
}

#[tokio::test]
async fn a_keep_alive_over_udp_is_answered() {
    let (listener, _legs) = service().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(b"\r\n\r\n", listener.local_addr).await.unwrap();
    let mut buffer = [0; 16];
    let (len, _) = tokio::time::timeout(Duration::from_secs(1), socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..len], b"\r\n");
}

#[tokio::test]
async fn a_caller_of_rfc_2543_never_sees_the_tag_that_he_got_inside() {
    let (listener, _legs) = service().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 39996 RTP/AVP 0\r\n";
    let old = |method: &str, to_tag: &str, body: &str| {
        format!(
            "{method} sip:a@b.example SIP/2.0\r\nVia: SIP/2.0/UDP h.example\r\nFrom: <sip:c@d.example>\r\nTo: <sip:a@b.example>{to_tag}\r\n\
             Call-ID: old@d.example\r\nCSeq: {} {method}\r\nContent-Type: application/sdp\r\n\r\n{body}",
            if method == "BYE" { 2 } else { 1 }
        )
    };
    socket.send_to(old("INVITE", "", offer).as_bytes(), listener.local_addr).await.unwrap();
    let (status, ok) = answer(&socket).await;
    assert_eq!(status, 200, "{ok}");
    assert!(ok.contains("From: <sip:c@d.example>\r\n"), "{ok}");
    let tag = ok.lines().find_map(|l| l.strip_prefix("To: ")).unwrap().split(";tag=").nth(1).unwrap().to_owned();
    socket.send_to(old("ACK", &format!(";tag={tag}"), "").as_bytes(), listener.local_addr).await.unwrap();
    socket.send_to(old("BYE", &format!(";tag={tag}"), "").as_bytes(), listener.local_addr).await.unwrap();
    loop {
        let (status, text) = answer(&socket).await;
        assert_eq!(status, 200, "{text}");
        if text.contains("CSeq: 2 BYE") {
            break;
        }
    }
}
