//! TCP and TLS against the real listener: hand-written SIP over connections, certificates of the test's own making, limits
//! and time-outs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rsipstack::EndpointBuilder;
use rsipstack::transport::TransportLayer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::stream::{self, Link};
use super::tls::{Tls, TlsConfig, server_name};
use super::{Uptake, Wire, WireError, WireOptions};
use crate::clock::SystemEntropy;
use crate::media::config::MediaConfig;
use crate::media::leg::{Leg, LegEnd, LegEvent};
use crate::sip::signalling::Transport;
use crate::sip::{DialOptions, Listener, SipConfig, SipError, dial, listen};

const WAIT: Duration = Duration::from_secs(5);
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 39994 RTP/AVP 0\r\n";

async fn service(config: SipConfig) -> (Listener, mpsc::Receiver<Leg>) {
    let (sender, legs) = mpsc::channel(8);
    let media = MediaConfig { port_min: 34_000, port_max: 34_999, ..MediaConfig::default() };
    (listen(SipConfig { t1_ms: 50, ..config }, media, sender, CancellationToken::new()).await.unwrap(), legs)
}

fn local(address: &str) -> SipConfig {
    SipConfig { listen: address.parse().unwrap(), ..SipConfig::default() }
}

fn request(transport: &str, method: &str, cseq: u32, call_id: &str, to_tag: &str, body: &str) -> String {
    format!(
        "{method} sip:+448081570000@service.example SIP/2.0\r\nVia: SIP/2.0/{transport} \
         peer.example;branch=z9hG4bK{call_id}{method}{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:+447700900123@peer.example>;tag=ft\r\nTo: <sip:+448081570000@service.example>{to_tag}\r\n\
         Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContact: <sip:ann@127.0.0.1:9;transport={transport}>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// One end of a connection, read message by message.
struct Peer<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next message; `None` when the connection is closed.
    async fn message(&mut self) -> Option<String> {
        loop {
            while self.read.starts_with(b"\r\n") {
                self.read.drain(..2);
            }
            let text = String::from_utf8_lossy(&self.read).into_owned();
            if let Some(head) = text.find("\r\n\r\n") {
                let length =
                    text.lines().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |l| l.trim().parse().unwrap());
                if self.read.len() >= head + 4 + length {
                    let message = self.read.drain(..head + 4 + length).collect::<Vec<_>>();
                    return Some(String::from_utf8(message).unwrap());
                }
            }
            let mut buffer = [0; 4096];
            let got = tokio::time::timeout(WAIT, self.stream.read(&mut buffer)).await.expect("something in time");
            match got {
                Ok(0) | Err(_) => return None,
                Ok(got) => self.read.extend_from_slice(&buffer[..got]),
            }
        }
    }

    async fn expect(&mut self, start: &str) -> String {
        loop {
            let message = self.message().await.unwrap_or_else(|| panic!("closed before `{start}`"));
            if message.starts_with(start) {
                return message;
            }
        }
    }
}

fn to_tag(text: &str) -> String {
    let to = text.lines().find(|l| l.starts_with("To: ")).unwrap();
    format!(";tag={}", to.split(";tag=").nth(1).unwrap())
}

async fn whole_call<S: AsyncRead + AsyncWrite + Unpin>(stream: S, transport: &str, legs: &mut mpsc::Receiver<Leg>) -> Leg {
    let mut peer = Peer::new(stream);
    peer.send(&request(transport, "INVITE", 1, "whole", "", OFFER)).await;
    let ok = peer.expect("SIP/2.0 200").await;
    assert!(ok.contains(&format!(";transport={}>", transport.to_lowercase())), "the Contact says how to come back: {ok}");
    let tag = to_tag(&ok);
    peer.send(&request(transport, "ACK", 1, "whole", &tag, "")).await;
    let mut leg = legs.recv().await.unwrap();
    assert_eq!(leg.info.transport, transport);
    peer.send(&request(transport, "BYE", 2, "whole", &tag, "")).await;
    let ended = async { while !matches!(leg.events.recv().await, Some(LegEvent::Ended(LegEnd::Caller))) {} };
    tokio::time::timeout(WAIT, ended).await.expect("the BYE ends the leg");
    loop {
        if peer.expect("SIP/2.0 200").await.contains("CSeq: 2 BYE") {
            return leg;
        }
    }
}

#[tokio::test]
async fn a_call_over_tcp_stays_on_its_connection() {
    let (listener, mut legs) = service(local("127.0.0.1:0")).await;
    let stream = TcpStream::connect(listener.local_addr).await.unwrap();
    whole_call(stream, "TCP", &mut legs).await;
}

#[tokio::test]
async fn our_bye_comes_over_the_connection_that_the_call_came_over() {
    let (listener, mut legs) = service(local("127.0.0.1:0")).await;
    let mut peer = Peer::new(TcpStream::connect(listener.local_addr).await.unwrap());
    peer.send(&request("TCP", "INVITE", 1, "ours", "", OFFER)).await;
    let tag = to_tag(&peer.expect("SIP/2.0 200").await);
    peer.send(&request("TCP", "ACK", 1, "ours", &tag, "")).await;
    drop(legs.recv().await.unwrap());
    let bye = peer.expect("BYE ").await;
    assert!(bye.contains(&format!("Via: SIP/2.0/TCP {}", listener.local_addr)), "{bye}");
}

#[tokio::test]
async fn ipv6_is_heard_over_udp_and_tcp() {
    let (listener, _legs) = service(local("[::1]:0")).await;
    let mut peer = Peer::new(TcpStream::connect(listener.local_addr).await.unwrap());
    peer.send(&request("TCP", "OPTIONS", 1, "six", "", "")).await;
    assert!(peer.message().await.unwrap().starts_with("SIP/2.0 200"));
    let socket = UdpSocket::bind("[::1]:0").await.unwrap();
    socket.send_to(request("UDP", "OPTIONS", 1, "six-u", "", "").as_bytes(), listener.local_addr).await.unwrap();
    let mut buffer = [0; 4096];
    let (len, _) = tokio::time::timeout(WAIT, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert!(buffer[..len].starts_with(b"SIP/2.0 200"), "{}", String::from_utf8_lossy(&buffer[..len]));
}

#[tokio::test]
async fn a_socket_of_both_families_knows_ipv4_peers_as_such() {
    let (listener, _legs) = service(local("[::]:0")).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], listener.local_addr.port()));
    socket.send_to(request("UDP", "OPTIONS", 1, "both", "", "").as_bytes(), at).await.unwrap();
    let mut buffer = [0; 4096];
    let (len, _) = tokio::time::timeout(WAIT, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&buffer[..len]);
    assert!(text.starts_with("SIP/2.0 200") && text.contains("received=127.0.0.1"), "{text}");
}

#[tokio::test]
async fn keep_alives_are_answered_and_two_messages_in_one_piece_are_two() {
    let (listener, _legs) = service(local("127.0.0.1:0")).await;
    let mut peer = Peer::new(TcpStream::connect(listener.local_addr).await.unwrap());
    peer.send("\r\n").await;
    peer.send("\r\n").await;
    let mut pong = [0; 2];
    tokio::time::timeout(WAIT, peer.stream.read_exact(&mut pong)).await.unwrap().unwrap();
    assert_eq!(&pong, b"\r\n");
    let two = [request("TCP", "OPTIONS", 1, "two-a", "", ""), request("TCP", "NOVEL", 1, "two-b", "", "")].concat();
    let (first, rest) = two.split_at(400);
    peer.send(first).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    peer.send(rest).await;
    let mut both = [peer.message().await.unwrap(), peer.message().await.unwrap()];
    both.sort();
    assert!(both[0].starts_with("SIP/2.0 200") && both[1].starts_with("SIP/2.0 405"), "{both:?}");
}

#[tokio::test]
async fn a_connection_whose_framing_is_lost_is_answered_and_closed() {
    let (listener, _legs) = service(local("127.0.0.1:0")).await;
    let good = request("TCP", "OPTIONS", 1, "lost", "", "");
    for (message, status) in [
        (good.replace("Content-Length: 0\r\n", ""), "SIP/2.0 400"),
        (good.replace("Content-Length: 0", "Content-Length: -999"), "SIP/2.0 400"),
        (good.replace("Content-Length: 0", "Content-Length: 5\r\nl: 13"), "SIP/2.0 400"),
        (good.replace("Content-Length: 0", "Content-Length: 1000000"), "SIP/2.0 413"),
        (good.replace("Max-Forwards", &format!("X: {}\r\nMax-Forwards", "x".repeat(20_000))), "SIP/2.0 513"),
    ] {
        let mut peer = Peer::new(TcpStream::connect(listener.local_addr).await.unwrap());
        peer.send(&message).await;
        let answer = peer.message().await.unwrap_or_default();
        assert!(answer.starts_with(status), "{status}: {answer}");
        assert_eq!(peer.message().await, None, "it is closed");
    }
}

#[tokio::test]
async fn who_speaks_no_sip_is_cut_off() {
    let (listener, _legs) = service(local("127.0.0.1:0")).await;
    let mut peer = Peer::new(TcpStream::connect(listener.local_addr).await.unwrap());
    let nonsense = "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".repeat(40);
    peer.send(&nonsense).await;
    assert_eq!(peer.message().await, None);
}

#[tokio::test]
async fn the_torture_of_streams() {
    let shared =
        std::env::var("VOICEPAY_SHARED").map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), Into::into);
    let folder = shared.join("torture");
    if !folder.is_dir() {
        println!("skipped: ../shared is absent");
        return;
    }
    let (listener, mut legs) = service(local("127.0.0.1:0")).await;
    // What is framed by a Content-Length gets over TCP what it gets over UDP.
    for (name, section, want) in super::torture_tests::TABLE {
        // clerr waits for a body that never comes; these have no Content-Length or no end of their head.
        if ["clerr", "dblreq", "inv2543", "baddn", "ncl", "mcl01", "multi01"].contains(&name) || want == 0 {
            continue;
        }
        let mut peer = Peer::new(TcpStream::connect(listener.local_addr).await.unwrap());
        peer.stream.write_all(&std::fs::read(folder.join(format!("{name}.dat"))).unwrap()).await.unwrap();
        let mut text = peer.message().await.unwrap_or_else(|| panic!("{name} ({section}): closed"));
        while text.starts_with("SIP/2.0 1") {
            text = peer.message().await.unwrap();
        }
        assert!(text.starts_with(&format!("SIP/2.0 {want}")), "{name} ({section}): {text}");
        while legs.try_recv().is_ok() {}
    }
    // Two requests in one piece: the second is another message here, lacks its Contact, and has more body than it says.
    let mut peer = Peer::new(TcpStream::connect(listener.local_addr).await.unwrap());
    peer.stream.write_all(&std::fs::read(folder.join("dblreq.dat")).unwrap()).await.unwrap();
    assert!(peer.expect("SIP/2.0 405").await.contains("REGISTER"));
    assert!(peer.expect("SIP/2.0 4").await.contains("CSeq: 8 INVITE"));
}

/// A certificate authority and what it vouches for, in files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn issue(&self, file: &str, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.folder.path().join(format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.folder.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn config(&self, listens: bool) -> TlsConfig {
        let at = |name: &str| Some(self.folder.path().join(name));
        TlsConfig {
            listen: listens.then(free_port),
            certificate: at("us.pem"),
            private_key: at("us.key"),
            client_ca: None,
            server_ca: at("ca.pem"),
        }
    }
}

/// A port that nobody has at this moment: `sip.tls.listen` with port 0 would not tell which it got.
fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn tls(at: SocketAddr, config: &TlsConfig, name: &str) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let client = Tls::load(config).unwrap().client().unwrap();
    let stream = TcpStream::connect(at).await?;
    TlsConnector::from(client).connect(server_name(Some(name), at.ip())?, stream).await
}

#[tokio::test]
async fn a_call_over_tls_and_a_certificate_that_changes_under_it() {
    let authority = Authority::new();
    authority.issue("us", &["pay.example"]);
    let config = SipConfig { tls: authority.config(true), ..local("127.0.0.1:0") };
    let (listener, mut legs) = service(config.clone()).await;
    let at = config.tls.listen.unwrap();
    let nobody = TlsConfig { certificate: None, private_key: None, ..authority.config(false) };
    whole_call(tls(at, &nobody, "pay.example").await.unwrap(), "TLS", &mut legs).await;
    assert!(tls(at, &nobody, "other.example").await.is_err(), "the name is checked");
    // A new certificate for new connections, while an old one goes on.
    let mut old = Peer::new(tls(at, &nobody, "pay.example").await.unwrap());
    authority.issue("us", &["new.example"]);
    listener.reconfigure(config.clone(), MediaConfig::default()).unwrap();
    assert!(tls(at, &nobody, "pay.example").await.is_err());
    tls(at, &nobody, "new.example").await.unwrap();
    old.send(&request("TLS", "OPTIONS", 1, "old", "", "")).await;
    old.expect("SIP/2.0 200").await;
    // A file that is gone leaves everything as it was.
    std::fs::remove_file(authority.folder.path().join("us.key")).unwrap();
    let error = listener.reconfigure(config, MediaConfig::default()).unwrap_err().to_string();
    assert!(error.contains("sip.tls.private_key"), "{error}");
    tls(at, &nobody, "new.example").await.unwrap();
}

#[tokio::test]
async fn a_call_under_tls_stays_there_whatever_its_contact_says() {
    let authority = Authority::new();
    authority.issue("us", &["pay.example"]);
    let config = SipConfig { tls: authority.config(true), ..local("127.0.0.1:0") };
    let (listener, mut legs) = service(config.clone()).await;
    let plain = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = format!("<sip:ann@{};transport=udp>", plain.local_addr().unwrap());
    let ours = |text: String| text.replace("<sip:ann@127.0.0.1:9;transport=TLS>", &elsewhere);
    let nobody = TlsConfig { certificate: None, private_key: None, ..authority.config(false) };
    let mut peer = Peer::new(tls(config.tls.listen.unwrap(), &nobody, "pay.example").await.unwrap());
    peer.send(&ours(request("TLS", "INVITE", 1, "tls", "", OFFER))).await;
    let tag = to_tag(&peer.expect("SIP/2.0 200").await);
    peer.send(&ours(request("TLS", "ACK", 1, "tls", &tag, ""))).await;
    let leg = legs.recv().await.unwrap();
    // What belongs to it and comes in the clear is refused.
    let bye = request("UDP", "BYE", 2, "tls", &tag, "").replace("peer.example;", "peer.example;rport;");
    plain.send_to(bye.as_bytes(), listener.local_addr).await.unwrap();
    let mut buffer = [0; 4_096];
    let (count, _) = tokio::time::timeout(WAIT, plain.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&buffer[..count]).starts_with("SIP/2.0 403"));
    // And our BYE doesn't go there in the clear when the connection is gone.
    drop(peer);
    while listener.wire().connections() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(leg);
    let nothing = tokio::time::timeout(Duration::from_millis(700), plain.recv_from(&mut buffer)).await;
    assert!(nothing.is_err(), "{}", String::from_utf8_lossy(&buffer));
}

#[tokio::test]
async fn who_must_show_a_certificate_and_has_none_gets_nowhere() {
    let authority = Authority::new();
    authority.issue("us", &["pay.example"]);
    let asks = TlsConfig { client_ca: Some(authority.folder.path().join("ca.pem")), ..authority.config(true) };
    let at = asks.listen.unwrap();
    let (_listener, mut legs) = service(SipConfig { tls: asks, ..local("127.0.0.1:0") }).await;
    let nobody = TlsConfig { certificate: None, private_key: None, ..authority.config(false) };
    // TLS 1.3 tells a client only after its handshake.
    if let Ok(stream) = tls(at, &nobody, "pay.example").await {
        let mut peer = Peer::new(stream);
        let _closed = peer.stream.write_all(request("TLS", "OPTIONS", 1, "no", "", "").as_bytes()).await;
        assert_eq!(peer.message().await, None);
    }
    whole_call(tls(at, &authority.config(false), "pay.example").await.unwrap(), "TLS", &mut legs).await;
}

#[tokio::test]
async fn mistakes_in_the_tls_section_name_their_key() {
    let authority = Authority::new();
    authority.issue("us", &["pay.example"]);
    let good = authority.config(true);
    let elsewhere = |name: &str| Some(authority.folder.path().join(name));
    for (config, key) in [
        (TlsConfig { certificate: None, ..good.clone() }, "sip.tls.certificate"),
        (TlsConfig { private_key: None, ..good.clone() }, "sip.tls.private_key"),
        (TlsConfig { certificate: None, private_key: None, ..good.clone() }, "sip.tls.certificate"),
        (TlsConfig { certificate: elsewhere("us.key"), ..good.clone() }, "sip.tls.certificate"),
        (TlsConfig { private_key: elsewhere("ca.pem"), ..good.clone() }, "sip.tls.private_key"),
        (TlsConfig { client_ca: elsewhere("none.pem"), ..good.clone() }, "sip.tls.client_ca"),
        (TlsConfig { server_ca: elsewhere("us.key"), ..good.clone() }, "sip.tls.server_ca"),
    ] {
        let error = Tls::load(&config).unwrap_err().to_string();
        assert!(error.starts_with(key), "{key}: {error}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = SipConfig { tls: TlsConfig { listen: taken.local_addr().ok(), ..good }, ..local("127.0.0.1:0") };
    let (sender, _legs) = mpsc::channel(1);
    let error = listen(config, MediaConfig::default(), sender, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SipError::Wire(WireError::Bind { .. })) && error.to_string().contains("sip.tls.listen"), "{error}");
}

#[tokio::test]
async fn we_call_over_tcp_and_tls_and_never_fall_back() {
    let authority = Authority::new();
    authority.issue("us", &["localhost"]);
    let config = SipConfig { tls: authority.config(true), ..local("127.0.0.1:0") };
    let at = config.tls.listen.unwrap();
    let (listener, mut legs) = service(config).await;
    let media = MediaConfig { port_min: 35_000, port_max: 35_999, ..MediaConfig::default() };
    let options =
        |target: String, tls: TlsConfig| DialOptions { media: media.clone(), tls, ..DialOptions::new(target, "+447700900123") };
    for (target, transport) in [
        (format!("sip:+448081570000@127.0.0.1:{};transport=tcp", listener.local_addr.port()), "TCP"),
        (format!("sip:+448081570000@localhost:{};transport=tls", at.port()), "TLS"),
    ] {
        let mut phone = dial(options(target, authority.config(false))).await.unwrap();
        let leg = legs.recv().await.unwrap();
        assert_eq!(leg.info.transport, transport);
        drop(leg);
        let ended = async { while !matches!(phone.events.recv().await, Some(LegEvent::Ended(_))) {} };
        tokio::time::timeout(WAIT, ended).await.expect("our BYE arrives");
    }
    // For another name, by another authority, or without one there is no call.
    let stranger = Authority::new();
    for (host, tls) in [
        ("127.0.0.1", authority.config(false)),
        ("localhost", TlsConfig { server_ca: stranger.config(false).server_ca, ..TlsConfig::default() }),
        ("localhost", TlsConfig::default()),
    ] {
        let error = dial(options(format!("sips:x@{host}:{}", at.port()), tls)).await.unwrap_err().to_string();
        assert!(error.contains("TLS"), "{error}");
    }
}

/// A connection in memory, on a clock that leaps: what a peer may take its time over, and what not.
struct Slow {
    peer: tokio::io::DuplexStream,
    _endpoint: rsipstack::transaction::Endpoint,
}

async fn slow(accepted: bool) -> Slow {
    let options = WireOptions::udp("127.0.0.1:0".parse().unwrap(), Duration::from_millis(500));
    let sockets = super::bind(&options, &SystemEntropy).await.unwrap();
    let wire: Arc<Wire> = sockets.wire;
    let stop = CancellationToken::new();
    let endpoint = EndpointBuilder::new()
        .with_transport_layer(TransportLayer::new(stop.clone()))
        .with_transport_inspector(Box::new(Uptake(wire.clone())))
        .build();
    let (peer, stream) = tokio::io::duplex(16 * 1024);
    let link = Link { transport: Transport::Tcp, peer: "192.0.2.1:5060".parse().unwrap(), local: options.listen, accepted };
    tokio::spawn(stream::serve(stream, link, wire, endpoint.inner.clone(), stop, || {}));
    Slow { peer, _endpoint: endpoint }
}

async fn closes_after(mut slow: Slow, every: Duration, piece: &[u8]) -> Duration {
    let began = tokio::time::Instant::now();
    let mut buffer = [0; 256];
    loop {
        if slow.peer.write_all(piece).await.is_err() {
            return began.elapsed();
        }
        let next = tokio::time::Instant::now() + every;
        while let Ok(read) = tokio::time::timeout_at(next, slow.peer.read(&mut buffer)).await {
            if matches!(read, Ok(0) | Err(_)) {
                return began.elapsed();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dawdles_is_cut_off() {
    let second = Duration::from_secs(1);
    let silent = closes_after(slow(true).await, Duration::from_secs(60), b"").await;
    assert!((10..12).contains(&silent.as_secs()), "a connection that says nothing: {silent:?}");
    let loris = closes_after(slow(true).await, second, b"X").await;
    assert!((9..13).contains(&loris.as_secs()), "a byte a second: {loris:?}");
    let idle = closes_after(slow(false).await, Duration::from_secs(3 * 3600), b"").await;
    assert_eq!(idle.as_secs(), 35 * 60, "idle");
    let pinging = closes_after(slow(true).await, second, b"\r\n\r\n").await;
    assert!((9..12).contains(&pinging.as_secs()), "nothing but keep-alives: {pinging:?}");
    // Keep-alives keep one that has been used.
    let mut kept = slow(true).await;
    kept.peer.write_all(request("TCP", "OPTIONS", 1, "kept", "", "").as_bytes()).await.unwrap();
    for _ in 0..200 {
        kept.peer.write_all(b"\r\n\r\n").await.unwrap();
        let mut pong = [0; 2];
        kept.peer.read_exact(&mut pong).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_cut_off() {
    let mut slow = slow(true).await;
    let ping = b"\r\n\r\n".repeat(1_024);
    let written = async { while slow.peer.write_all(&ping).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(600), written).await.expect("it is cut off in time");
}

#[tokio::test]
async fn one_address_may_hold_so_many_connections_and_no_more() {
    let (listener, _legs) = service(local("127.0.0.1:0")).await;
    let mut held = Vec::new();
    for _ in 0..140 {
        held.push(TcpStream::connect(listener.local_addr).await.unwrap());
    }
    let mut buffer = [0; 1];
    let mut closed = 0;
    for stream in &mut held {
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut buffer)).await {
            closed += 1;
        }
    }
    assert_eq!(closed, 12);
    // Another address still gets in, and a place that is given back is there again.
    drop(held);
    tokio::time::sleep(Duration::from_millis(800)).await;
    let mut peer = Peer::new(TcpStream::connect(listener.local_addr).await.unwrap());
    peer.send(&request("TCP", "OPTIONS", 1, "later", "", "")).await;
    peer.expect("SIP/2.0 200").await;
    assert_eq!(listener.wire().connections(), 1);
}
