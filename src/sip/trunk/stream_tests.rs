//! Trunks over TCP and TLS, and one that is found by SRV: registrars written by hand on real connections.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::resolve::testing::{Known, dns};
use super::test_tls::server_side;
use super::*;
use crate::media::config::MediaConfig;
use crate::sip::{Listener, SipConfig, listen};

const WAIT: Duration = Duration::from_secs(8);

/// A service with one registering trunk.
async fn service(head: &str, trunk: &str) -> (Listener, CancellationToken, tempfile::TempDir) {
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("secret");
    std::fs::write(&file, "sesame\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nt1_ms = 50\n{head}\n[[trunk]]\nname = \"carrier\"\nusername = \"u\"\npassword_file = \"{}\"\n\
         options_ping_s = 0\nregister = {{}}\n{trunk}",
        file.display()
    );
    let config: SipConfig = toml::from_str(&text).unwrap();
    config::check(&config).unwrap();
    let stop = CancellationToken::new();
    let (legs, _nobody) = mpsc::channel(1);
    let listener = listen(config, MediaConfig::default(), legs, stop.clone()).await.unwrap();
    (listener, stop, secrets)
}

/// Takes requests from a connection and says 200 to each; gives each request.
fn say_yes(mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, heard: mpsc::Sender<String>) {
    tokio::spawn(async move {
        let mut text = String::new();
        let mut buf = [0u8; 4_096];
        while let Ok(len @ 1..) = stream.read(&mut buf).await {
            text += &String::from_utf8_lossy(&buf[..len]);
            while let Some(end) = text.find("\r\n\r\n") {
                let request: String = text.drain(..end + 4).collect();
                let request = request.trim_start().to_owned();
                if request.is_empty() {
                    continue; // a keep-alive
                }
                let copied: Vec<&str> = request
                    .lines()
                    .filter(|l| ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|n| l.starts_with(n)))
                    .collect();
                let reply = format!("SIP/2.0 200 OK\r\n{}\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n", copied.join("\r\n"));
                stream.write_all(reply.as_bytes()).await.unwrap();
                heard.send(request).await.unwrap();
            }
        }
    });
}

async fn next(heard: &mut mpsc::Receiver<String>) -> String {
    tokio::time::timeout(WAIT, heard.recv()).await.expect("a request in time").unwrap()
}

async fn registered(listener: &Listener) -> SocketAddr {
    let limit = tokio::time::Instant::now() + WAIT;
    loop {
        let registration = listener.trunks().status_of("carrier").and_then(|s| s.registration);
        if let Some(at) = registration.as_ref().filter(|r| r.registered).and_then(|r| r.registrar) {
            return at;
        }
        assert!(tokio::time::Instant::now() < limit, "{registration:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_registration_over_tls_needs_the_right_certificate_and_goes_with_its_name() {
    let (config, authority) = server_side("sip.carrier.example");
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let (sender, mut heard) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            if let Ok(stream) = TlsAcceptor::from(config.clone()).accept(stream).await {
                say_yes(stream, sender.clone());
            }
        }
    });
    let server = dns(vec![
        ("sip.carrier.example", Known::A([127, 0, 0, 1])),
        ("_sips._tcp.carrier.example", Known::Srv(1, 1, at.port(), "sip.carrier.example")),
        ("wrong.example", Known::A([127, 0, 0, 1])),
    ])
    .await;
    let head = format!("dns_servers = [\"{server}\"]\ntls.server_ca = \"{}\"", authority.path().display());
    let (listener, stop, _kept) = service(&head, &format!("target = \"sip.carrier.example:{}\"", at.port())).await;
    let register = next(&mut heard).await;
    assert!(register.starts_with("REGISTER sip:sip.carrier.example SIP/2.0\r\nVia: SIP/2.0/TLS "), "{register}");
    assert!(register.contains(";transport=tls>"), "{register}");
    assert_eq!(registered(&listener).await, at);
    stop.cancel();
    assert!(next(&mut heard).await.contains("Expires: 0\r\n"), "on the same connection");
    // A certificate for another name: not registered, and told why.
    for target in [format!("wrong.example:{}", at.port()), "carrier.example".to_owned()] {
        let (listener, _stop, _kept) = service(&head, &format!("target = \"{target}\"")).await;
        let limit = tokio::time::Instant::now() + WAIT;
        let problem = loop {
            let registration = listener.trunks().status_of("carrier").and_then(|s| s.registration);
            if let Some(problem) = registration.and_then(|r| r.problem) {
                break problem;
            }
            assert!(tokio::time::Instant::now() < limit);
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(problem.contains("certificate"), "{target}: {problem}");
    }
}

#[tokio::test]
async fn the_next_place_that_srv_names_is_registered_with_when_the_first_is_gone() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let (sender, mut heard) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let stream: TcpStream = stream;
            say_yes(stream, sender.clone());
        }
    });
    let server = dns(vec![
        ("_sip._tcp.carrier.example", Known::Srv(10, 1, gone.port(), "a.carrier.example")),
        ("_sip._tcp.carrier.example", Known::Srv(20, 1, at.port(), "a.carrier.example")),
        ("a.carrier.example", Known::A([127, 0, 0, 1])),
    ])
    .await;
    let head = format!("dns_servers = [\"{server}\"]");
    let (listener, _stop, _kept) = service(&head, "target = \"carrier.example\"\ntransport = \"tcp\"\nprivate = true").await;
    let register = next(&mut heard).await;
    assert!(register.contains("Via: SIP/2.0/TCP ") && register.contains(";transport=tcp>"), "{register}");
    assert_eq!(registered(&listener).await, at);
}

#[tokio::test]
async fn a_certificate_is_told_by_the_test_of_a_trunk() {
    let (config, authority) = server_side("sip.carrier.example");
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let (sender, _heard) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            if let Ok(stream) = TlsAcceptor::from(config.clone()).accept(stream).await {
                say_yes(stream, sender.clone());
            }
        }
    });
    let of = |ca: &str, target: &str| -> SipConfig {
        toml::from_str(&format!("{ca}\n[[trunk]]\nname = \"carrier\"\ntarget = \"{target}\"")).unwrap()
    };
    let ca = format!("tls.server_ca = \"{}\"", authority.path().display());
    let mut found = Vec::new();
    let sip = of(&ca, &at.to_string());
    assert!(probe::probe(&sip, "carrier", &mut |f| found.push(f.clone())).await.unwrap(), "{found:?}");
    let connect = found.iter().find(|f| f.step == "connect").unwrap();
    assert!(
        connect.said.contains("TLS 1.3 is up; certificate of the PBX") && connect.facts["issuer"] == "Test CA",
        "{connect:?}"
    );
    assert!(found.iter().any(|f| f.step == "options" && f.outcome == probe::Outcome::Well), "{found:?}");
    let mut found = Vec::new();
    assert!(!probe::probe(&of("", &at.to_string()), "carrier", &mut |f| found.push(f.clone())).await.unwrap());
    assert!(found.iter().any(|f| f.said.contains("sip.tls.server_ca")) && found.iter().all(|f| f.step != "options"), "{found:?}");
}
