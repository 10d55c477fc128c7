//! Trunks over real sockets: callers and a registrar written by hand, against our listener.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::{Clock, SystemClock, SystemEntropy};
use crate::media::config::MediaConfig;
use crate::media::leg::Leg;
use crate::sip::admission::Reason;
use crate::sip::digest::{Algorithm, Answer, Challenge, Credentials, Verdict, Verifier};
use crate::sip::{Listener, SipConfig, listen};

const WAIT: Duration = Duration::from_secs(5);

struct Service {
    listener: Listener,
    legs: mpsc::Receiver<Leg>,
    stop: CancellationToken,
    _secrets: tempfile::TempDir,
}

/// Listens on `host`; `{SECRET}` in the text is a file that holds `sesame`.
async fn service(host: &str, text: &str) -> Service {
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("secret");
    std::fs::write(&file, "sesame\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = text.replace("{SECRET}", &file.display().to_string());
    let config: SipConfig = toml::from_str(&format!("listen = \"{host}:0\"\nt1_ms = 50\n{text}")).unwrap();
    config::check(&config).unwrap();
    let (sender, legs) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let media = MediaConfig {
        port_min: 49_000,
        port_max: 49_990,
        bind_address: host.trim_matches(['[', ']']).parse().unwrap(),
        ..MediaConfig::default()
    };
    let listener = listen(config, media, sender, stop.clone()).await.unwrap();
    Service { listener, legs, stop, _secrets: secrets }
}

struct Peer(UdpSocket);

impl Peer {
    async fn at(address: &str) -> Self {
        Self(UdpSocket::bind(address).await.unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    async fn receive(&self) -> (String, SocketAddr) {
        let mut buf = vec![0u8; 65_536];
        let (len, from) = tokio::time::timeout(WAIT, self.0.recv_from(&mut buf)).await.expect("something in time").unwrap();
        (String::from_utf8(buf[..len].to_vec()).unwrap(), from)
    }

    /// The next request with this method; others are passed over.
    async fn request(&self, method: &str) -> (String, SocketAddr) {
        loop {
            let (text, from) = self.receive().await;
            if text.starts_with(method) {
                return (text, from);
            }
        }
    }

    async fn final_response(&self) -> String {
        loop {
            let (text, _) = self.receive().await;
            if text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1") {
                return text;
            }
        }
    }

    async fn respond(&self, to: &(String, SocketAddr), status: &str, extra: &str) {
        let (request, from) = to;
        let copied: Vec<String> = request
            .lines()
            .filter(|l| ["via:", "from:", "to:", "call-id:", "cseq:"].iter().any(|n| l.to_ascii_lowercase().starts_with(n)))
            .map(|l| match l.to_ascii_lowercase().starts_with("via:") {
                true => format!("{};received={}", l.replace(";rport", &format!(";rport={}", from.port())), from.ip()),
                false => l.to_owned(),
            })
            .collect();
        let text = format!("SIP/2.0 {status}\r\n{}\r\n{extra}Content-Length: 0\r\n\r\n", copied.join("\r\n"));
        self.0.send_to(text.as_bytes(), from).await.unwrap();
    }

    fn invite(&self, service: SocketAddr, call: &str, cseq: u32, extra: &str) -> String {
        let me = self.address();
        let ip = me.ip();
        let family = if ip.is_ipv6() { "IP6" } else { "IP4" };
        let body = format!(
            "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio 39998 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        );
        format!(
            "INVITE sip:pay@{service} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{call}{cseq};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:+447700900123@{me}>;tag=ft\r\nTo: <sip:pay@{service}>\r\nCall-ID: {call}\r\nCSeq: {cseq} INVITE\r\n\
             Contact: <sip:ann@{me}>\r\n{extra}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    async fn call(&self, service: SocketAddr, call: &str, cseq: u32, extra: &str) -> String {
        self.0.send_to(self.invite(service, call, cseq, extra).as_bytes(), service).await.unwrap();
        let answer = self.final_response().await;
        let to = field(&answer, "To").unwrap();
        let me = self.address();
        let branch = if answer.starts_with("SIP/2.0 2") { "ack".to_owned() } else { format!("{call}{cseq}") };
        let ack = format!(
            "ACK sip:pay@{service} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{branch};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:+447700900123@{me}>;tag=ft\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {cseq} ACK\r\nContent-Length: 0\r\n\r\n"
        );
        self.0.send_to(ack.as_bytes(), service).await.unwrap();
        answer
    }
}

fn field<'a>(text: &'a str, name: &'a str) -> Option<&'a str> {
    fields(text, name).next()
}

fn fields<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = text.lines().take_while(|l| !l.is_empty()).filter_map(|l| l.split_once(':'));
    pairs.filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
}

fn count(service: &Service, reason: Reason) -> u64 {
    service.listener.trunks().refusals().all().find(|(r, _)| *r == reason).unwrap().1
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = tokio::time::Instant::now() + WAIT;
    while !holds() {
        assert!(tokio::time::Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_caller_on_no_trunk_and_one_without_tls_are_told_what_to_do() {
    let strict = service(
        "127.0.0.1",
        "unknown_peers = \"refuse\"\n[[trunk]]\nname = \"carrier\"\nhosts = [\"127.0.0.2\"]\n[[trunk]]\nname = \"pbx\"\nhosts = [\"127.0.0.3\"]\ntransport = \"udp\"",
    );
    let mut service = strict.await;
    let at = service.listener.local_addr;
    let stranger = Peer::at("127.0.0.1:0").await.call(at, "a", 1, "").await;
    assert!(stranger.starts_with("SIP/2.0 403") && field(&stranger, "Warning").unwrap().contains("127.0.0.1"), "{stranger}");
    let plain = Peer::at("127.0.0.2:0").await.call(at, "b", 1, "").await;
    assert!(
        plain.starts_with("SIP/2.0 403") && field(&plain, "Warning").unwrap().contains("SIP over TLS is needed here"),
        "{plain}"
    );
    let known = Peer::at("127.0.0.3:0").await.call(at, "c", 1, "").await;
    assert!(known.starts_with("SIP/2.0 200"), "{known}");
    assert_eq!(service.legs.recv().await.unwrap().info.trunk, "pbx");
    assert_eq!((count(&service, Reason::UnknownPeer), count(&service, Reason::Plaintext)), (1, 1));
    assert_eq!(service.listener.trunks().calls().get("pbx"), Some(&1));
}

#[tokio::test]
async fn a_public_line_needs_srtp_even_where_its_plain_text_is_private() {
    // A trunk on loopback counts as private, so that the policy itself is asked for.
    let service =
        service("127.0.0.1", "[[trunk]]\nname = \"t\"\nhosts = [\"127.0.0.1\"]\ntransport = \"udp\"\nsrtp = \"required\"").await;
    let refused = Peer::at("127.0.0.1:0").await.call(service.listener.local_addr, "a", 1, "").await;
    assert!(refused.starts_with("SIP/2.0 488") && field(&refused, "Warning").unwrap().contains("SRTP"), "{refused}");
    assert_eq!(count(&service, Reason::NoSrtp), 1);
}

#[tokio::test]
async fn callers_show_their_password_with_each_call() {
    let mut service = service(
        "127.0.0.1",
        "[[trunk]]\nname = \"pbx\"\nhosts = [\"127.0.0.1\"]\ntransport = \"udp\"\ninbound_auth = [{ username = \"desk\", password_file = \"{SECRET}\" }]",
    )
    .await;
    let at = service.listener.local_addr;
    let peer = Peer::at("127.0.0.1:0").await;
    let asked = peer.call(at, "a", 1, "").await;
    assert!(asked.starts_with("SIP/2.0 401"), "{asked}");
    let challenges: Vec<Challenge> = fields(&asked, "WWW-Authenticate").filter_map(Challenge::parse).collect();
    assert_eq!(challenges.iter().map(|c| c.algorithm).collect::<Vec<_>>(), [Algorithm::Sha256, Algorithm::Md5]);
    let answer = |who: &Credentials, count| {
        let value = challenges[1].answer(who, "INVITE", &format!("sip:pay@{at}"), count, &SystemEntropy);
        format!("Authorization: {value}\r\n")
    };
    let wrong = peer.call(at, "a", 2, &answer(&Credentials::new("desk", "open"), 1)).await;
    assert!(wrong.starts_with("SIP/2.0 401"), "{wrong}");
    let right = answer(&Credentials::new("desk", "sesame"), 2);
    let taken = peer.call(at, "a", 3, &right).await;
    assert!(taken.starts_with("SIP/2.0 200"), "{taken}");
    assert_eq!(service.legs.recv().await.unwrap().info.trunk, "pbx");
    let replayed = peer.call(at, "b", 1, &right).await;
    assert!(replayed.starts_with("SIP/2.0 401"), "the same answer again: {replayed}");
    assert_eq!((count(&service, Reason::Challenged), count(&service, Reason::WrongPassword)), (1, 2));
}

#[tokio::test]
async fn limits_by_trunk_and_number_are_told_apart() {
    let service = service(
        "127.0.0.1",
        "max_calls_per_caller = 1\n[[trunk]]\nname = \"one\"\nhosts = [\"127.0.0.2\"]\ntransport = \"udp\"\nmax_calls = 1",
    )
    .await;
    let at = service.listener.local_addr;
    let (one, other) = (Peer::at("127.0.0.2:0").await, Peer::at("127.0.0.1:0").await);
    assert!(one.call(at, "a", 1, "").await.starts_with("SIP/2.0 200"));
    let full = one.call(at, "b", 1, "").await;
    assert!(full.starts_with("SIP/2.0 503") && field(&full, "Retry-After").is_some(), "{full}");
    let same_number = other.call(at, "c", 1, "").await;
    assert!(same_number.starts_with("SIP/2.0 486"), "{same_number}");
    assert_eq!((count(&service, Reason::TrunkCalls), count(&service, Reason::Caller)), (1, 1));
}

/// A registrar on its socket, and what of our REGISTER it has to say.
async fn registering(host: &str) -> (Service, Peer) {
    let registrar = Peer::at(&format!("{host}:0")).await;
    let text = format!(
        "unknown_peers = \"refuse\"\n[[trunk]]\nname = \"carrier\"\ntransport = \"udp\"\nprivate = true\ntarget = \"{}\"\n\
         username = \"441610000000\"\npassword_file = \"{{SECRET}}\"\noptions_ping_s = 0\nregister = {{ expires_s = 600 }}",
        registrar.address()
    );
    (service(host, &text).await, registrar)
}

async fn it_registers(host: &str) {
    let (mut service, registrar) = registering(host).await;
    let at = service.listener.local_addr;
    let entropy = SystemEntropy;
    let mut verifier = Verifier::new("carrier.example", &[Algorithm::Sha256], &entropy);
    let first = registrar.request("REGISTER").await;
    assert!(first.0.starts_with(&format!("REGISTER sip:{} SIP/2.0\r\n", at.ip_text())), "{}", first.0);
    assert_eq!((field(&first.0, "Expires"), field(&first.0, "Authorization")), (Some("600"), None));
    assert!(field(&first.0, "Contact").unwrap().starts_with(&format!("<sip:441610000000@{at}")), "{}", first.0);
    let challenge = verifier.challenges(SystemClock.now(), false, &entropy).remove(0);
    registrar.respond(&first, "401 Unauthorized", &format!("WWW-Authenticate: {}\r\n", challenge.to_header())).await;
    let second = loop {
        let again = registrar.request("REGISTER").await;
        if field(&again.0, "CSeq") != field(&first.0, "CSeq") {
            break again;
        }
    };
    assert_eq!(field(&second.0, "Call-ID"), field(&first.0, "Call-ID"));
    let answer = Answer::parse(field(&second.0, "Authorization").unwrap()).unwrap();
    let uri = second.0.split(' ').nth(1).unwrap();
    let who = Credentials::new("441610000000", "sesame");
    assert_eq!(verifier.judge(SystemClock.now(), &answer, Some(&who), "REGISTER", uri), Verdict::Right);
    let contact = field(&second.0, "Contact").unwrap();
    registrar.respond(&second, "200 OK", &format!("Contact: {contact};expires=11\r\n")).await;
    let trunks = service.listener.trunks().clone();
    until("registered", || trunks.status_of("carrier").and_then(|s| s.registration).is_some_and(|r| r.registered)).await;
    let registration = trunks.status_of("carrier").unwrap().registration.unwrap();
    assert_eq!(registration.registrar, Some(registrar.address()));
    assert_eq!(registration.seen_as.unwrap().address, Some(at.ip()));
    // Calls from the registrar's address are the trunk's, though no host is configured.
    let caller = Peer::at(&format!("{host}:0")).await;
    let taken = caller.call(at, "from-registrar", 1, "").await;
    assert!(taken.starts_with("SIP/2.0 200"), "{taken}");
    assert_eq!(service.legs.recv().await.unwrap().info.trunk, "carrier");
    // At shutdown it is taken back, with the same nonce.
    service.stop.cancel();
    let last = registrar.request("REGISTER").await;
    assert_eq!(field(&last.0, "Expires"), Some("0"), "{}", last.0);
    let answer = Answer::parse(field(&last.0, "Authorization").unwrap()).unwrap();
    assert_eq!(verifier.judge(SystemClock.now(), &answer, Some(&who), "REGISTER", uri), Verdict::Right);
    registrar.respond(&last, "200 OK", "").await;
    tokio::time::timeout(WAIT, service.listener.ended()).await.unwrap();
}

trait IpText {
    fn ip_text(&self) -> String;
}

impl IpText for SocketAddr {
    fn ip_text(&self) -> String {
        if self.is_ipv6() { format!("[{}]", self.ip()) } else { self.ip().to_string() }
    }
}

#[tokio::test]
async fn a_registration_is_made_held_and_taken_back() {
    it_registers("127.0.0.1").await;
}

#[tokio::test]
async fn a_registration_over_ipv6() {
    it_registers("[::1]").await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_repeated() {
    let (service, registrar) = registering("127.0.0.1").await;
    for nonce in ["a", "b"] {
        let asked = registrar.request("REGISTER").await;
        let challenge = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", qop=\"auth\"\r\n");
        registrar.respond(&asked, "401 Unauthorized", &challenge).await;
    }
    let trunks = service.listener.trunks().clone();
    let problem = || trunks.status_of("carrier").and_then(|s| s.registration).and_then(|r| r.problem);
    until("the problem is known", || problem().is_some_and(|p| p.contains("password"))).await;
    let again = tokio::time::timeout(Duration::from_millis(500), registrar.request("REGISTER")).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test]
async fn a_target_that_is_silent_is_down_and_not_called_until_it_answers() {
    let registrar = Peer::at("127.0.0.1:0").await;
    let text = format!(
        "[[trunk]]\nname = \"pbx\"\nhosts = [\"127.0.0.1\"]\ntransport = \"udp\"\ntarget = \"{}\"\noptions_ping_s = 5",
        registrar.address()
    );
    let service = service("127.0.0.1", &text).await;
    let trunks = service.listener.trunks().clone();
    let ping = registrar.request("OPTIONS").await;
    assert!(field(&ping.0, "Contact").unwrap().contains(&service.listener.local_addr.to_string()), "{}", ping.0);
    registrar.respond(&ping, "200 OK", "").await;
    let place = || trunks.status_of("pbx").and_then(|s| s.places.first().cloned());
    until("it answered", || place().is_some_and(|p| p.up && p.last_status == Some(200))).await;
    assert_eq!(trunks.route("pbx", SystemClock.now()).await.unwrap().places[0].address, registrar.address());
    // Silence, as the keeper would note it.
    let silent = trunks.route("pbx", SystemClock.now()).await.unwrap().places.remove(0);
    for _ in 0..2 {
        trunks.note("pbx", |s| {
            s.pinged(SystemClock.now(), &silent, None);
        });
    }
    assert_eq!(trunks.route("pbx", SystemClock.now()).await.unwrap_err(), live::RouteError::Down("pbx".into()));
    assert!(matches!(trunks.route("none", SystemClock.now()).await, Err(live::RouteError::Unknown(_))));
}

#[tokio::test]
async fn a_reload_keeps_what_stays_and_takes_back_what_goes() {
    let (service, registrar) = registering("127.0.0.1").await;
    let first = registrar.request("REGISTER").await;
    registrar.respond(&first, "200 OK", "Expires: 600\r\n").await;
    let trunks = service.listener.trunks().clone();
    until("registered", || trunks.status_of("carrier").and_then(|s| s.registration).is_some_and(|r| r.registered)).await;
    let same = trunks.set().sip.clone();
    service.listener.reconfigure(SipConfig { max_calls: 1, ..same.clone() }, MediaConfig::default()).unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(300), registrar.request("REGISTER")).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let mut unreadable = same.clone();
    unreadable.trunks[0].password_file = Some("/nowhere".into());
    let error = service.listener.reconfigure(unreadable, MediaConfig::default()).unwrap_err().to_string();
    assert!(error.contains("sip.trunk[0].password_file"), "{error}");
    service.listener.reconfigure(SipConfig { trunks: Vec::new(), ..same }, MediaConfig::default()).unwrap();
    let last = registrar.request("REGISTER").await;
    assert_eq!(field(&last.0, "Expires"), Some("0"), "{}", last.0);
    registrar.respond(&last, "200 OK", "").await;
}

#[tokio::test]
async fn a_trunk_is_tried_out_step_by_step() {
    let pbx = Peer::at("127.0.0.1:0").await;
    let text = format!(
        "[[trunk]]\nname = \"carrier\"\ntransport = \"udp\"\nprivate = true\ntarget = \"{}\"\nusername = \"u\"\npassword_file = \"{{SECRET}}\"\nregister = {{}}",
        pbx.address()
    );
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("secret");
    std::fs::write(&file, "sesame").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let sip: SipConfig = toml::from_str(&text.replace("{SECRET}", &file.display().to_string())).unwrap();
    let other_end = async {
        let options = pbx.request("OPTIONS").await;
        pbx.respond(&options, "200 OK", "Server: a PBX\r\n").await;
        let asking = pbx.request("REGISTER").await;
        assert_eq!(field(&asking.0, "Contact"), None, "a test changes nothing");
        pbx.respond(&asking, "401 Unauthorized", "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", qop=\"auth\"\r\n").await;
        let asking = loop {
            let again = pbx.request("REGISTER").await;
            if field(&again.0, "Authorization").is_some() {
                break again;
            }
        };
        assert_eq!(field(&asking.0, "Contact"), None);
        pbx.respond(&asking, "200 OK", "Contact: <sip:u@192.0.2.9:5060>;expires=77\r\n").await;
    };
    let mut found = Vec::new();
    let mut tell = |f: &probe::Finding| found.push(f.clone());
    let (well, ()) = tokio::join!(probe::probe(&sip, "carrier", &mut tell), other_end);
    assert!(well.unwrap(), "{found:?}");
    assert_eq!(found.iter().map(|f| f.step).collect::<Vec<_>>(), ["configuration", "resolve", "options", "register"]);
    assert!(found[2].said.contains("200 by a PBX; it sees us at 127.0.0.1:"), "{}", found[2].said);
    assert!(
        found[3].said.contains("the password is right; registered now: <sip:u@192.0.2.9:5060>;expires=77"),
        "{}",
        found[3].said
    );
    let unknown = probe::probe(&sip, "carier", &mut |_| {}).await.unwrap_err().to_string();
    assert!(unknown.contains("configured: carrier"), "{unknown}");
}

#[tokio::test]
async fn a_call_goes_to_the_next_place_when_the_first_has_no_room_and_to_nobody_else_when_it_is_refused() {
    use super::resolve::testing::{Known, dns};
    let (first, second) = (Peer::at("127.0.0.1:0").await, Peer::at("127.0.0.1:0").await);
    let server = dns(vec![
        ("_sip._udp.pbx.example", Known::Srv(1, 1, first.address().port(), "a.pbx.example")),
        ("_sip._udp.pbx.example", Known::Srv(2, 1, second.address().port(), "a.pbx.example")),
        ("a.pbx.example", Known::A([127, 0, 0, 1])),
    ])
    .await;
    let text = format!(
        "dns_servers = [\"{server}\"]\n[[trunk]]\nname = \"pbx\"\nhosts = [\"127.0.0.1\"]\ntransport = \"udp\"\ntarget = \"pbx.example\"\n\
         domain = \"us.example\"\npublic_address = \"198.51.100.7\"\noptions_ping_s = 0"
    );
    let service = service("127.0.0.1", &text).await;
    let (trunks, dialler) = (service.listener.trunks().clone(), service.listener.dialler());
    let wanted = || outbound::TrunkCall {
        trunk: "pbx".into(),
        number: "+447700900123".into(),
        from: "+448081570000".into(),
        asserted_identity: None,
        withheld: false,
        ring_timeout: WAIT,
        early_media: false,
        headers: crate::sip::headers::Headers::new(),
    };
    let both = async {
        let invite = first.request("INVITE").await;
        first.respond(&invite, "503 Service Unavailable", "").await;
        let invite = second.request("INVITE").await;
        second.respond(&invite, "486 Busy Here", "").await;
        invite.0
    };
    let (called, invite) = tokio::join!(trunks.call(&dialler, wanted()), both);
    let error = called.unwrap_err().to_string();
    assert!(error.contains("486"), "{error}");
    assert!(invite.starts_with("INVITE sip:+447700900123@pbx.example SIP/2.0"), "{invite}");
    assert!(field(&invite, "From").unwrap().contains("<sip:+448081570000@us.example>"), "{invite}");
    assert!(
        field(&invite, "Contact").unwrap().contains("@198.51.100.7:") && invite.contains("c=IN IP4 198.51.100.7"),
        "{invite}"
    );
    // For a while the one that had no room comes second.
    let again = async {
        let invite = second.request("INVITE").await;
        second.respond(&invite, "603 Decline", "").await;
    };
    let (called, ()) = tokio::join!(trunks.call(&dialler, wanted()), again);
    assert!(called.unwrap_err().to_string().contains("603"));
}
