//! The edge: a certificate over HTTPS. One GET without redirects, to an address that was looked at before anything was connected,
//! so that a name can't be resolved into our own network the second time. tokio-rustls, which signalling over TLS has anyway: a
//! call that is given up leaves no blocked thread, and address, size and time are each checked where they arise.
//!
//! A URL is fetched once however many calls ask, by a task of its own: what comes late still serves the next call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::Invalid;
use super::cache::{Cache, Fetched};
use super::chain::CHAIN_LIMIT_BYTES;
use super::http::{self, CHUNK_OVERHEAD_LIMIT_BYTES, HEAD_LIMIT_BYTES};
use super::url::{HttpsUrl, is_public};
use crate::clock::Clock;
use crate::media::leg::AttestationFault::{InfoRefused, InfoUnreachable};

/// How long a fetch may take from its beginning to its end: waiting for a turn, name, connection, TLS, answer.
const FETCH_LIMIT_MS: u64 = 2_000;
/// URLs that are being fetched or wait for a turn; a call with one more fails.
const FLIGHT_LIMIT_URLS: usize = 64;
/// What we call ourselves.
const USER_AGENT: &str = concat!("voicepay/", env!("CARGO_PKG_VERSION"));

/// See the module.
pub struct Fetcher {
    tls: TlsConnector,
    allow_private: bool,
    turns: Semaphore,
    clock: Arc<dyn Clock>,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<HttpsUrl, watch::Receiver<Option<Fetched>>>>,
}

/// The TLS authorities can't be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("it holds no certificate in PEM that can be used")]
pub struct NoHttpsRoots;

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("allow_private", &self.allow_private).finish_non_exhaustive()
    }
}

impl Fetcher {
    /// That trusts the servers of these TLS authorities (PEM).
    pub fn new(roots_pem: &[u8], allow_private: bool, turns: usize, clock: Arc<dyn Clock>) -> Result<Self, NoHttpsRoots> {
        let mut roots = RootCertStore::empty();
        let certificates = rustls::pki_types::CertificateDer::pem_slice_iter(roots_pem).filter_map(Result::ok);
        if roots.add_parsable_certificates(certificates).0 == 0 {
            return Err(NoHttpsRoots);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| NoHttpsRoots)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            allow_private,
            turns: Semaphore::new(turns),
            clock,
            cache: Mutex::new(Cache::default()),
            flights: Mutex::new(HashMap::new()),
        })
    }

    /// What is there, from the cache or fetched now. Safe to drop: the fetch goes on and its result is kept.
    pub async fn fetch(self: &Arc<Self>, url: &HttpsUrl) -> Fetched {
        if let Some(known) = lock(&self.cache).get(url, self.clock.now()) {
            return known;
        }
        let Some(mut flight) = self.board(url) else {
            return Err(Invalid::new(InfoUnreachable, "too many certificates are being fetched"));
        };
        let landed = flight.wait_for(Option::is_some).await.ok().and_then(|fetched| fetched.clone());
        landed.unwrap_or(Err(Invalid::new(InfoUnreachable, "the certificate's fetching broke off")))
    }

    /// The fetch that is under way for this URL, or a new one.
    fn board(self: &Arc<Self>, url: &HttpsUrl) -> Option<watch::Receiver<Option<Fetched>>> {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(url) {
            return Some(flight.clone());
        }
        if flights.len() >= FLIGHT_LIMIT_URLS {
            return None;
        }
        let (landed, flight) = watch::channel(None);
        flights.insert(url.clone(), flight.clone());
        let (this, url) = (self.clone(), url.clone());
        tokio::spawn(async move {
            let (fetched, max_age) = this.in_time(&url).await;
            lock(&this.cache).put(url.clone(), fetched.clone(), max_age, this.clock.now());
            lock(&this.flights).remove(&url);
            let _nobody_waits = landed.send(Some(fetched));
        });
        Some(flight)
    }

    async fn in_time(&self, url: &HttpsUrl) -> (Fetched, Option<Duration>) {
        let fetch = async {
            let _turn = self.turns.acquire().await;
            self.get(url).await
        };
        let fetched = match tokio::time::timeout(Duration::from_millis(FETCH_LIMIT_MS), fetch).await {
            Ok(fetched) => fetched,
            Err(_) => Err(Invalid::new(InfoUnreachable, "the certificate's server took too long")),
        };
        match fetched {
            Ok(answer) => (Ok(Arc::from(answer.body)), answer.max_age),
            Err(invalid) => {
                let (host, port, why) = (&url.host, url.port, invalid.why);
                tracing::info!(%host, port, why, "a caller's certificate could not be fetched");
                (Err(invalid), None)
            }
        }
    }

    async fn get(&self, url: &HttpsUrl) -> Result<http::Answer, Invalid> {
        let unreachable = |why| move |_| Invalid::new(InfoUnreachable, why);
        let socket = TcpStream::connect(self.address_of(url).await?)
            .await
            .map_err(unreachable("the certificate's server does not take connections"))?;
        let name = ServerName::try_from(url.host.clone())
            .map_err(|_| Invalid::new(InfoRefused, "the certificate's host is no name that TLS knows"))?;
        let mut stream =
            self.tls.connect(name, socket).await.map_err(unreachable(
                "the certificate's server has no TLS certificate that sip.stir.https_roots_file leads to",
            ))?;
        let host = if url.port == 443 { url.host.clone() } else { format!("{}:{}", url.host, url.port) };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\n\
             Accept: application/pem-certificate-chain, */*;q=0.1\r\n\
             Accept-Encoding: identity\r\nConnection: close\r\n\r\n",
            url.path
        );
        let broken = "the certificate's server broke the connection off";
        stream.write_all(request.as_bytes()).await.map_err(unreachable(broken))?;
        stream.flush().await.map_err(unreachable(broken))?;
        let mut received = Vec::new();
        let mut buffer = [0u8; 4_096];
        loop {
            // TLS tells an end from a cut: an end without its notice is an error here.
            let count = stream.read(&mut buffer).await.map_err(unreachable(broken))?;
            received.extend_from_slice(buffer.get(..count).unwrap_or(&[]));
            match http::read(&received, count == 0, CHAIN_LIMIT_BYTES) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) if received.len() > HEAD_LIMIT_BYTES + CHAIN_LIMIT_BYTES + CHUNK_OVERHEAD_LIMIT_BYTES => {
                    return Err(Invalid::new(InfoUnreachable, "the certificate's server sends too much"));
                }
                Ok(None) => {}
                Err(http::HttpError::Status(300..=399)) => {
                    return Err(Invalid::new(InfoUnreachable, "the certificate's server sends us elsewhere"));
                }
                Err(http::HttpError::Status(_)) => {
                    return Err(Invalid::new(InfoUnreachable, "the certificate's server has none there"));
                }
                Err(http::HttpError::TooLong) => {
                    return Err(Invalid::new(InfoUnreachable, "the certificate's server sends too much"));
                }
                Err(http::HttpError::Malformed | http::HttpError::CutOff) => {
                    return Err(Invalid::new(InfoUnreachable, "the certificate's server does not answer in HTTP/1.1"));
                }
            }
        }
    }

    async fn address_of(&self, url: &HttpsUrl) -> Result<SocketAddr, Invalid> {
        let found = tokio::net::lookup_host((url.host.as_str(), url.port))
            .await
            .map_err(|_| Invalid::new(InfoUnreachable, "the certificate's host can't be found"))?;
        let mut found = found.peekable();
        if found.peek().is_none() {
            return Err(Invalid::new(InfoUnreachable, "the certificate's host has no address"));
        }
        found
            .find(|address| self.allow_private || is_public(address.ip()))
            .ok_or(Invalid::new(InfoRefused, "the certificate's host has no public address"))
    }
}

/// A panic under the lock leaves a map that is still one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
