//! The service as an operator runs it: a process of its own that is scraped, told to reload and to stop, while a call written by hand
//! is up. What it tells the service manager, what it writes about the call, and what a second signal does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

const CALLER: &str = "+447700900777";
const WAIT: Duration = Duration::from_secs(60);

/// A running service; ended, by its id, with the test.
struct Service {
    child: Child,
    answers: Receiver<Value>,
    sip: SocketAddr,
    metrics: SocketAddr,
}

impl Service {
    fn start(dir: &Path, config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_voicepay"))
            .arg("--json")
            .arg("--config")
            .arg(config)
            .arg("serve")
            .current_dir(dir)
            .env("NOTIFY_SOCKET", dir.join("notify"))
            .env_remove("VOICEPAY_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, answers) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _test_is_over = tell.send(serde_json::from_str(&line).unwrap_or(Value::Null));
            }
        });
        let first: Value = answers.recv_timeout(WAIT).expect("it listens");
        let address = |key: &str| first[key].as_str().unwrap_or_else(|| panic!("{first}")).parse().unwrap();
        let (sip, metrics) = (address("sip"), address("metrics"));
        Self { child, answers, sip, metrics }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn reload(&self) -> Value {
        self.signal("-HUP");
        self.answers.recv_timeout(WAIT).expect("it says what came of it")
    }

    fn get(&self, path: &str) -> String {
        let mut peer = TcpStream::connect(self.metrics).unwrap();
        peer.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        text
    }

    fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + WAIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let (_gone, _reaped) = (self.child.kill(), self.child.wait());
    }
}

/// A caller who writes every byte by hand.
struct Phone {
    socket: UdpSocket,
    service: SocketAddr,
    name: &'static str,
}

impl Phone {
    fn new(service: SocketAddr, name: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, service, name }
    }

    /// Sends a request; the first final response to it.
    fn ask(&self, method: &str, cseq: u32, to_tag: &str) -> String {
        self.send(method, cseq, to_tag);
        let wanted = format!("{cseq} {method}");
        loop {
            let text = self.receive();
            if text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1") && text.contains(&wanted) {
                return text;
            }
        }
    }

    fn send(&self, method: &str, cseq: u32, to_tag: &str) {
        let me = self.socket.local_addr().unwrap();
        let tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        let body = match method {
            "INVITE" => "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 39998 RTP/AVP 0\r\n",
            _ => "",
        };
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "{method} sip:pay@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK{name}{cseq}{method};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{CALLER}@{me}>;tag=f\r\nTo: <sip:pay@{to}>{tag}\r\nCall-ID: {name}@test\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:x@{me}>\r\n{content}Content-Length: {length}\r\n\r\n{body}",
            to = self.service,
            name = self.name,
            length = body.len(),
        );
        self.socket.send_to(text.as_bytes(), self.service).unwrap();
    }

    fn receive(&self) -> String {
        let mut buffer = [0u8; 8_192];
        let n = self.socket.recv(&mut buffer).expect("an answer in time");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    /// Calls and acknowledges; the tag of the other side.
    fn call(&self) -> String {
        let ok = self.ask("INVITE", 1, "");
        assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
        let to = ok.lines().find(|l| l.starts_with("To:")).unwrap();
        let tag = to.split_once(";tag=").unwrap().1.to_owned();
        self.send("ACK", 1, &tag);
        tag
    }
}

fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0u8; 2_048];
    let n = manager.recv(&mut buffer).expect("word to the service manager");
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

fn config(dir: &Path, more_sip: &str, more: &str) {
    let text = format!(
        "[service]\ndata_dir = \"{}\"\ndrain_s = 120\n[sip]\nlisten = \"127.0.0.1:0\"\n{more_sip}[media]\nport_min = 45000\nport_max = 45999\n\
         [ops]\nlisten = \"127.0.0.1:0\"\ncdr_dir = \"cdr\"\n[ops.recording]\nmode = \"prompts\"\n{more}",
        dir.join("data").display()
    );
    std::fs::write(dir.join("voicepay.toml"), text).unwrap();
}

#[test]
fn a_service_is_scraped_reloaded_and_drained_while_a_call_is_up() {
    let dir = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(WAIT)).unwrap();
    config(dir.path(), "", "");
    let path = dir.path().join("voicepay.toml");
    let mut service = Service::start(dir.path(), &path);
    assert!(told(&manager).starts_with("READY=1\nSTATUS=takes calls at 127.0.0.1:"));
    assert!(service.get("/readyz").starts_with("HTTP/1.1 200"));

    let up = Phone::new(service.sip, "up");
    let tag = up.call();
    let until = Instant::now() + WAIT;
    while !service.get("/metrics").contains("\nvoicepay_calls_up 1\n") {
        assert!(Instant::now() < until, "{}", service.get("/metrics"));
    }

    std::thread::sleep(Duration::from_secs(1)); // so that there is something to count and to record

    // What can change does, what can't is named; what is wrong is refused whole; the call goes on.
    config(dir.path(), "max_calls = 7\nunknown_peers = \"refuse\"\n", "[identity]\ndefault_country = \"44\"\n");
    let answer = service.reload();
    assert_eq!(answer["event"], "reloaded", "{answer}");
    assert_eq!(answer["live"], serde_json::json!(["identity.default_country", "sip.unknown_peers"]));
    assert_eq!(answer["needs_restart"], serde_json::json!(["sip.max_calls"]));
    assert!(told(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(told(&manager).starts_with("READY=1\nSTATUS=in force for new calls: identity.default_country, sip.unknown_peers;"));
    let refused = Phone::new(service.sip, "stranger").ask("INVITE", 1, "");
    assert!(refused.starts_with("SIP/2.0 403"), "new calls go by it: {refused}");
    config(dir.path(), "unknown_peers = \"allow_private\"\nring_ms = -1\n", "");
    let answer = service.reload();
    assert!(answer["event"] == "reload_refused" && answer["error"].as_str().unwrap().contains("ring_ms"), "{answer}");
    let refused = Phone::new(service.sip, "stranger2").ask("INVITE", 1, "");
    assert!(refused.starts_with("SIP/2.0 403"), "the old one stays whole: {refused}");
    assert!(up.ask("OPTIONS", 2, &tag).starts_with("SIP/2.0 200"), "the call lived through it all");

    // Draining: dispatchers and probes are told, new callers refused, the call goes on.
    service.signal("-TERM");
    let until = Instant::now() + WAIT;
    while !service.get("/readyz").starts_with("HTTP/1.1 503") {
        assert!(Instant::now() < until, "it does not drain");
    }
    assert!(service.get("/healthz").starts_with("HTTP/1.1 200"));
    let ping = Phone::new(service.sip, "ping").ask("OPTIONS", 1, "");
    assert!(ping.starts_with("SIP/2.0 503") && ping.contains("Retry-After"), "{ping}");
    assert!(service.get("/metrics").contains("\nvoicepay_calls_up 1\n"), "drain_s is 120: it waits for the call");
    let asked = Instant::now();
    service.signal("-TERM");
    let status = service.ended();
    assert!(status.success() && asked.elapsed() < Duration::from_secs(20), "{status} after {:?}", asked.elapsed());

    // What it left: a record for each, with the number masked, and a recording for its owner.
    let cdr = dir.path().join("data/cdr");
    let text: String = std::fs::read_dir(&cdr).unwrap().map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap()).collect();
    assert!(!text.contains(CALLER), "{text}");
    let records: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let call = records.iter().find(|r| r["sip_call_id"] == "up@test").unwrap_or_else(|| panic!("{text}"));
    assert_eq!((&call["calling"], &call["sip_status"], &call["transport"]), (&"+44…77".into(), &200.into(), &"UDP".into()));
    assert!(call["media"]["packets_sent"].as_u64().unwrap() > 10, "{call}");
    let stranger = records.iter().find(|r| r["sip_call_id"] == "stranger@test").unwrap();
    assert_eq!((&stranger["sip_status"], &stranger["end"], &stranger["q850"]), (&403.into(), &"refused".into(), &21.into()));
    let recording = dir.path().join(format!("data/recordings/{}.wav", call["call"].as_str().unwrap()));
    assert!(std::fs::metadata(&recording).unwrap().len() > 10_000, "what was said to the caller");
    assert!(told(&manager).starts_with("RELOADING=1"));
    let refused = told(&manager);
    assert!(
        refused.starts_with("READY=1\nSTATUS=the last configuration was refused:") && refused.contains("ring_ms"),
        "{refused}"
    );
    assert!(told(&manager).starts_with("STOPPING=1\n"));
}
