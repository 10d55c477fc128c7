//! Endpoints that answer well, badly, by TLS or from where nobody may reach.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use super::*;
use crate::clock::{SystemClock, SystemEntropy};
use crate::ids::Tenant;
use crate::store::{SqliteStore, StoreConfig};

/// A notifier on a database of its own.
struct House {
    notifier: Notifier,
    _dir: tempfile::TempDir,
}

impl House {
    async fn with(cfg: NotifyConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() }).await.unwrap();
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let vault = Vault::from_master(&[7; 32], Arc::clone(&entropy));
        Self { notifier: Notifier::new(Arc::new(store), vault, Arc::new(SystemClock), entropy, cfg), _dir: dir }
    }

    /// Whether a message arrives there: the status, or what went wrong.
    async fn tried(&self, url: &str) -> Result<u16, String> {
        let (endpoint, _secret) =
            self.notifier.add_endpoint(&Tenant::default(), url, vec!["*".into()], "test").await.map_err(|e| e.to_string())?;
        self.notifier.try_endpoint(&endpoint.id).await.unwrap()
    }
}

fn near() -> NotifyConfig {
    NotifyConfig { private_networks: true, timeout_ms: 3_000, ..NotifyConfig::default() }
}

/// Answers every connection with these bytes.
async fn answering(bind: &str, answer: Vec<u8>) -> u16 {
    let socket = TcpListener::bind(bind).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let _read = stream.read(&mut [0_u8; 4096]).await;
                let _gone = stream.write_all(&answer).await;
                let _gone = stream.shutdown().await;
            });
        }
    });
    port
}

const FINE: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn fresh() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "An authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// An endpoint by https, for this name.
    async fn endpoint(&self, name: &str) -> u16 {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _read = stream.read(&mut [0_u8; 4096]).await;
                    let _gone = stream.write_all(FINE).await;
                    let _gone = stream.shutdown().await;
                }
            }
        });
        port
    }
}

async fn believing(roots: &Path) -> House {
    House::with(NotifyConfig { roots_file: roots.to_owned(), ..near() }).await
}

#[tokio::test]
async fn only_endpoints_that_an_authority_of_the_roots_file_vouches_for_are_reached() {
    let (known, unknown) = (Authority::fresh(), Authority::fresh());
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &known.pem).unwrap();
    let house = believing(roots.path()).await;
    let url = |port: u16| format!("https://localhost:{port}/hooks");
    assert_eq!(house.tried(&url(known.endpoint("localhost").await)).await, Ok(204));
    for port in [unknown.endpoint("localhost").await, known.endpoint("elsewhere").await] {
        let why = house.tried(&url(port)).await.unwrap_err();
        assert!(why.contains("certificate"), "{why}");
    }
}

#[tokio::test]
async fn a_roots_file_that_is_missing_or_empty_is_named_with_its_key() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for roots in [Path::new("/nowhere/roots.pem"), empty.path()] {
        let house = believing(roots).await;
        let why = house.tried("https://localhost:1/hooks").await.unwrap_err();
        assert!(why.starts_with("notify.roots_file: ") && why.contains(&roots.display().to_string()), "{why}");
        // Plain HTTP to this machine needs none.
        let port = answering("127.0.0.1:0", FINE.to_vec()).await;
        assert_eq!(house.tried(&format!("http://127.0.0.1:{port}/")).await, Ok(204));
    }
}
