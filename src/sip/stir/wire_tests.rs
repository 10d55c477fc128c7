//! A real INVITE against our listener, a real HTTPS server for the certificate: each verdict as the house hears it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

use super::authority::{self, Leaf, Made};
use super::chain::{Roots, validate};
use super::config::{StirConfig, StirMode};
use super::fetch::Fetcher;
use super::passport::Attest;
use super::sign::{Callee, Signer};
use super::url::HttpsUrl;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::media::config::MediaConfig;
use crate::media::leg::Attestation::{Absent, Failed, Full};
use crate::media::leg::AttestationFault::*;
use crate::media::leg::{Attestation, Leg};
use crate::sip::{DialError, DialOptions, SipConfig, SipError, dial, listen};

const WAIT: Duration = Duration::from_secs(8);
const ORIG: &str = "447700900123";
const DEST: &str = "448081570000";

/// What a server of certificates does with a request.
#[derive(Clone)]
enum Manner {
    Sends(Vec<u8>),
    /// Takes the request and says nothing.
    Silent,
}

/// An HTTPS server on this machine.
struct Repository {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tls_pem: String,
}

impl Repository {
    async fn new(manner: Manner) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let (acceptor, asked) = (TlsAcceptor::from(Arc::new(config)), Arc::new(AtomicUsize::new(0)));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let counted = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (acceptor, manner, counted) = (acceptor.clone(), manner.clone(), counted.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = [0u8; 2_000];
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    assert!(request[..length].starts_with(b"GET /leaf.pem HTTP/1.1\r\nHost: localhost:"));
                    counted.fetch_add(1, Ordering::SeqCst);
                    match manner {
                        Manner::Sends(bytes) => {
                            let _gone = (stream.write_all(&bytes).await, stream.shutdown().await);
                        }
                        Manner::Silent => tokio::time::sleep(Duration::from_secs(60)).await,
                    }
                });
            }
        });
        Self { address, asked, tls_pem: certificate.pem() }
    }

    async fn of(pem: &str) -> Self {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: max-age=600\r\n\r\n{pem}", pem.len());
        Self::new(Manner::Sends(answer.into_bytes())).await
    }

    fn x5u(&self) -> String {
        format!("https://localhost:{}/leaf.pem", self.address.port())
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An authority, a provider below it, and a folder with what the service reads.
struct World {
    root: Made,
    leaf: Made,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        // Valid from 2023 into the fifties: these tests run on the machine's clock.
        let valid_s = (-1_000, 1_000_000_000);
        let root = authority::root_valid("Root", valid_s);
        let leaf = authority::leaf(&root, &Leaf { valid_s, ..Leaf::default() });
        Self { root, leaf, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn config(&self, mode: StirMode, repository: &Repository) -> StirConfig {
        StirConfig {
            mode,
            roots_file: Some(self.file("roots.pem", &self.root.pem)),
            https_roots_file: self.file("https.pem", &repository.tls_pem),
            allowed_hosts: vec![format!("localhost:{}", repository.address.port()).parse().unwrap()],
            allow_private_hosts: true,
            ..StirConfig::default()
        }
    }

    fn signer(&self, repository: &Repository) -> Signer {
        self.leaf.signer(&repository.x5u())
    }
}

fn identity(signer: &Signer, orig: &str, at: Timestamp) -> String {
    signer.identity(orig, Callee::Number(DEST), Attest::A, at, [9; 16]).unwrap()
}

fn now() -> Timestamp {
    SystemClock.now()
}

struct Service {
    address: SocketAddr,
    legs: mpsc::Receiver<Leg>,
    stop: CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn service(stir: StirConfig) -> Service {
    let (sender, legs) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let sip = SipConfig { listen: "127.0.0.1:0".parse().unwrap(), stir, ..SipConfig::default() };
    let media = MediaConfig { port_min: 39_000, port_max: 39_399, ..MediaConfig::default() };
    let listener = listen(sip, media, sender, stop.clone()).await.unwrap();
    Service { address: listener.local_addr, legs, stop }
}

impl Service {
    async fn called(&self, header: Option<&str>) -> Result<Leg, DialError> {
        let media = MediaConfig { port_min: 39_400, port_max: 39_999, ..MediaConfig::default() };
        let mut options =
            DialOptions { media, timeout: WAIT, ..DialOptions::new(format!("sip:+{DEST}@{}", self.address), format!("+{ORIG}")) };
        if let Some(value) = header {
            options.headers.push("Identity", value);
        }
        dial(options).await
    }

    async fn verdict(&mut self, header: Option<&str>) -> Attestation {
        let _phone = self.called(header).await.unwrap();
        self.legs.recv().await.unwrap().info.attestation
    }

    /// Status and phrase of the refusal.
    async fn refused(&self, header: Option<&str>) -> (u16, String) {
        match self.called(header).await {
            Err(DialError::Refused { status, reason }) => (status, reason),
            other => panic!("{:?}", other.err()),
        }
    }
}

#[tokio::test]
async fn a_signed_call_is_heard_of_with_its_level_and_its_certificate_is_fetched_once() {
    let world = World::new();
    let repository = Repository::of(&world.leaf.pem).await;
    let mut service = service(world.config(StirMode::Verify, &repository)).await;
    let signer = world.signer(&repository);
    let signed = identity(&signer, ORIG, now());
    assert_eq!(service.verdict(Some(&signed)).await, Full);
    assert_eq!(service.verdict(Some(&signed)).await, Failed(Stale), "a copy, sent with another call");
    let next = signer.identity(ORIG, Callee::Number(DEST), Attest::A, now(), [8; 16]).unwrap();
    assert_eq!(service.verdict(Some(&next)).await, Full);
    assert_eq!(repository.asked(), 1, "it was kept");
    assert_eq!(service.verdict(None).await, Absent);
    let other = identity(&world.signer(&repository), "447700900124", now());
    assert_eq!(service.verdict(Some(&other)).await, Failed(OrigMismatch));
    let stranger = identity(&World::new().signer(&repository), ORIG, now());
    assert_eq!(service.verdict(Some(&stranger)).await, Failed(Signature));
    assert_eq!(service.verdict(Some(&"x".repeat(6_000))).await, Failed(Malformed), "the call itself goes on");
}

#[tokio::test]
async fn a_policy_that_requires_signatures_refuses_with_the_codes_of_rfc_8224() {
    let world = World::new();
    let repository = Repository::of(&world.leaf.pem).await;
    let mut service = service(world.config(StirMode::Require, &repository)).await;
    let signer = world.signer(&repository);
    assert_eq!(service.verdict(Some(&identity(&signer, ORIG, now()))).await, Full);
    let elsewhere = world.leaf.signer("https://certs.example.org/leaf.pem");
    for (header, status, says) in [
        (None, 428, "signed number"),
        (Some(identity(&signer, ORIG, Timestamp(now().0 - 120_000))), 403, "just now"),
        (Some(identity(&elsewhere, ORIG, now())), 436, "allowed_hosts"),
        (Some(identity(&signer, "447700900124", now())), 438, "calling number"),
        (Some(identity(&World::new().signer(&repository), ORIG, now())), 438, "signature"),
        (Some(format!("rubbish;info=<{}>", repository.x5u())), 438, "PASSporT"),
    ] {
        let (refused, reason) = service.refused(header.as_deref()).await;
        assert!(refused == status && reason.contains(says), "{refused} {reason}, not {status} {says}");
    }
    // A certificate of an authority that we don't know.
    let other = World::new();
    let foreign = Repository::of(&other.leaf.pem).await;
    let mut config = world.config(StirMode::Require, &foreign);
    config.allowed_hosts.push("localhost:1".parse().unwrap());
    let (status, reason) =
        super::wire_tests::service(config).await.refused(Some(&identity(&other.signer(&foreign), ORIG, now()))).await;
    assert!(status == 437 && reason.contains("certificate"), "{status} {reason}");
}

#[tokio::test]
async fn servers_that_misbehave_cost_a_verdict_never_the_call() {
    let world = World::new();
    let head = "HTTP/1.1 200 OK\r\n";
    for (manner, fault) in [
        (Manner::Sends(b"HTTP/1.1 302 Found\r\nLocation: https://localhost/leaf.pem\r\n\r\n".to_vec()), InfoUnreachable),
        (Manner::Sends(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()), InfoUnreachable),
        (Manner::Sends([head.as_bytes(), b"\r\n", &[b'x'; 1_000_000]].concat()), InfoUnreachable),
        (Manner::Sends(format!("{head}Content-Length: 1000000\r\n\r\nx").into_bytes()), InfoUnreachable),
        (Manner::Sends(vec![b'x'; 1_000_000]), InfoUnreachable),
        (Manner::Sends(format!("{head}Content-Length: 900\r\n\r\n{}", &world.leaf.pem[..300]).into_bytes()), InfoUnreachable),
        (Manner::Sends(format!("{head}Content-Length: 5\r\n\r\nhello").into_bytes()), ChainMalformed),
        (Manner::Silent, InfoUnreachable),
    ] {
        let repository = Repository::new(manner).await;
        let config = StirConfig { verdict_limit_ms: 700, ..world.config(StirMode::Verify, &repository) };
        let mut service = service(config).await;
        let begun = Instant::now();
        assert_eq!(service.verdict(Some(&identity(&world.signer(&repository), ORIG, now()))).await, Failed(fault));
        assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
        assert_eq!(repository.asked(), 1);
    }
    // Nobody there, and somebody whose TLS certificate is another's.
    let repository = Repository::of(&world.leaf.pem).await;
    let config = world.config(StirMode::Verify, &repository);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let x5u = format!("https://localhost:{}/leaf.pem", nobody.port());
    let mut absent = config.clone();
    absent.allowed_hosts = vec![format!("localhost:{}", nobody.port()).parse().unwrap()];
    let signed = identity(&world.leaf.signer(&x5u), ORIG, now());
    assert_eq!(service(absent).await.verdict(Some(&signed)).await, Failed(InfoUnreachable));
    let impostor = Repository::of(&world.leaf.pem).await;
    let mut other_tls = world.config(StirMode::Verify, &impostor);
    other_tls.https_roots_file = world.file("other.pem", &repository.tls_pem);
    let signed = identity(&world.signer(&impostor), ORIG, now());
    assert_eq!(service(other_tls).await.verdict(Some(&signed)).await, Failed(InfoUnreachable));
    assert_eq!(impostor.asked(), 0);
}

#[tokio::test]
async fn what_callers_name_does_not_lead_into_our_own_network() {
    let world = World::new();
    let repository = Repository::of(&world.leaf.pem).await;
    let config = StirConfig { allow_private_hosts: false, ..world.config(StirMode::Verify, &repository) };
    let mut service = service(config).await;
    assert_eq!(service.verdict(Some(&identity(&world.signer(&repository), ORIG, now()))).await, Failed(InfoRefused));
    assert_eq!(repository.asked(), 0);
}

#[tokio::test]
async fn calls_that_come_at_once_share_a_fetch_and_a_caller_may_give_up_meanwhile() {
    let world = World::new();
    let repository = Repository::of(&world.leaf.pem).await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let fetcher = Arc::new(Fetcher::new(repository.tls_pem.as_bytes(), true, 2, clock).unwrap());
    let url = HttpsUrl::parse(&repository.x5u()).unwrap();
    let all = (0..20).map(|_| {
        let (fetcher, url) = (fetcher.clone(), url.clone());
        tokio::spawn(async move { fetcher.fetch(&url).await.map(|chain| chain.to_vec()) })
    });
    for fetched in all.collect::<Vec<_>>() {
        assert_eq!(fetched.await.unwrap().unwrap(), world.leaf.pem.as_bytes());
    }
    assert_eq!(repository.asked(), 1);

    let silent = Repository::new(Manner::Silent).await;
    let mut service = service(world.config(StirMode::Verify, &silent)).await;
    let signed = identity(&world.signer(&silent), ORIG, now());
    let gave_up = tokio::time::timeout(Duration::from_millis(400), service.called(Some(&signed))).await;
    assert!(gave_up.is_err(), "the verdict takes two seconds");
    let leg = tokio::time::timeout(Duration::from_secs(3), service.legs.recv()).await;
    assert!(leg.is_err(), "nobody is there any more: {leg:?}");
}

#[tokio::test]
async fn files_that_are_missing_or_of_no_use_are_named_at_the_start() {
    let world = World::new();
    let repository = Repository::of(&world.leaf.pem).await;
    let good = world.config(StirMode::Verify, &repository);
    let start = async |stir: StirConfig| {
        let sip = SipConfig { listen: "127.0.0.1:0".parse().unwrap(), stir, ..SipConfig::default() };
        match listen(sip, MediaConfig::default(), mpsc::channel(1).0, CancellationToken::new()).await {
            Err(error @ SipError::Stir(_)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let said = start(StirConfig { roots_file: Some("nowhere.pem".into()), ..good.clone() }).await;
    assert!(said.contains("sip.stir.roots_file: nowhere.pem can't be read"), "{said}");
    let leaf = world.file("leaf.pem", &world.leaf.pem);
    let said = start(StirConfig { roots_file: Some(leaf), ..good.clone() }).await;
    assert!(said.contains("no authority's"), "{said}");
    let empty = world.file("empty.pem", "");
    let said = start(StirConfig { https_roots_file: empty, ..good.clone() }).await;
    assert!(said.contains("sip.stir.https_roots_file"), "{said}");
    let broken = world.file("crl.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    let said = start(StirConfig { crl_file: Some(broken), ..good }).await;
    assert!(said.contains("sip.stir.crl_file") && said.contains("revocation list"), "{said}");
}

/// openssl's own little HTTPS server; ended with the test.
struct OpensslServer(std::process::Child);

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _gone = (self.0.kill(), self.0.wait());
    }
}

#[tokio::test]
async fn the_laboratory_authority_makes_what_the_service_takes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/stir-authority.sh");
    let quiet = std::process::Stdio::null;
    if std::process::Command::new("openssl").arg("version").stdout(quiet()).status().is_err() {
        return eprintln!("skipped: openssl is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, arguments: &[&str]| {
        let dir = folder.path().join(name);
        let run = std::process::Command::new("bash").arg(script).arg(&dir).args(arguments).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        dir
    };
    let dir = made("range", &["447700900000", "1000"]);
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let server = std::process::Command::new("openssl")
        .args(["s_server", "-WWW", "-key", "tls.key", "-cert", "tls.pem", "-accept", &format!("127.0.0.1:{port}")])
        .current_dir(&dir)
        .stdin(quiet())
        .stdout(quiet())
        .stderr(quiet())
        .spawn();
    let _server = OpensslServer(server.unwrap());
    for _ in 0..50 {
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let config = StirConfig {
        mode: StirMode::Verify,
        roots_file: Some(dir.join("root.pem")),
        https_roots_file: dir.join("root.pem"),
        allowed_hosts: vec![format!("localhost:{port}").parse().unwrap()],
        allow_private_hosts: true,
        ..StirConfig::default()
    };
    let signer =
        Signer::from_pem(&std::fs::read(dir.join("leaf.key")).unwrap(), &format!("https://localhost:{port}/leaf.pem")).unwrap();
    let mut service = service(config).await;
    let signed = signer.identity_for(&format!("+{ORIG}"), &format!("sip:+{DEST}@localhost"), Attest::B, now(), [3; 16]).unwrap();
    assert_eq!(service.verdict(Some(&signed)).await, Attestation::Partial);
    // A provider's own certificate, by its code.
    let by_code = std::fs::read(made("code", &["709J"]).join("leaf.pem")).unwrap();
    let roots = Roots::from_pem(&std::fs::read(folder.path().join("code/root.pem")).unwrap()).unwrap();
    assert_eq!(validate(&by_code, &roots, now()).unwrap().numbers.provider(), Some("709J"));
}
