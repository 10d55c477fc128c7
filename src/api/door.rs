//! Connections: so many at a time, TLS where there is a certificate, and nobody keeps a place by sending slowly. HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_util::sync::CancellationToken;

use super::config::ApiConfig;

/// A handshake is done by then, in milliseconds.
const HANDSHAKE_MS: u64 = 10_000;
/// A request's head has come by then, counted from when the connection is idle, in milliseconds.
const HEAD_MS: u64 = 30_000;
/// A head may have so many bytes.
const HEAD_LIMIT_BYTES: usize = 32_768;
/// How long nothing is taken after a connection that failed, in milliseconds.
const FAILED_WAIT_MS: u64 = 100;

/// Who is at the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Why the API does not start.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {why}")]
pub struct ApiError {
    /// The key's full name.
    pub key: &'static str,
    /// What is wrong.
    pub why: String,
}

fn wrong(key: &'static str, why: impl std::fmt::Display) -> ApiError {
    ApiError { key, why: why.to_string() }
}

/// Serves until `stop`; requests that are under way then are answered.
pub(super) async fn serve(
    config: &ApiConfig,
    listen: SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> Result<SocketAddr, ApiError> {
    let tls = tls(config)?;
    let taken = |e: io::Error| wrong("api.listen", format_args!("cannot listen on {listen}: {e}"));
    let socket = TcpListener::bind(listen).await.map_err(taken)?;
    let address = socket.local_addr().map_err(taken)?;
    let places = Arc::new(Semaphore::new(config.max_connections));
    tokio::spawn(async move {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
                    tokio::spawn(async move {
                        let _place = place;
                        connection((stream, from), tls, router, stop).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection to the API");
                    tokio::time::sleep(Duration::from_millis(FAILED_WAIT_MS)).await;
                }
            }
        }
    });
    Ok(address)
}

async fn connection((stream, from): (TcpStream, SocketAddr), tls: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    // Answers are small and wanted at once.
    let _as_it_is = stream.set_nodelay(true);
    match tls {
        None => speak(stream, from, router, stop).await,
        Some(tls) => match tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS), tls.accept(stream)).await {
            Ok(Ok(stream)) => speak(stream, from, router, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the API failed"),
            Err(_) => tracing::debug!("a TLS handshake with the API took too long"),
        },
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    from: SocketAddr,
    router: Router,
    stop: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(from));
        router.call(request)
    });
    let speaking = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_MS))
        .max_buf_size(HEAD_LIMIT_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut speaking = std::pin::pin!(speaking);
    let ended = tokio::select! {
        ended = speaking.as_mut() => ended,
        () = stop.cancelled() => {
            speaking.as_mut().graceful_shutdown();
            speaking.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API broke off");
    }
}

fn tls(config: &ApiConfig) -> Result<Option<TlsAcceptor>, ApiError> {
    let (Some(certificate), Some(key)) = (&config.certificate, &config.private_key) else { return Ok(None) };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| wrong("api.certificate", format_args!("{}: {e}", certificate.display())))?;
    let private = PrivateKeyDer::from_pem_file(key);
    let private = private.map_err(|e| wrong("api.private_key", format_args!("{}: {e}", key.display())))?;
    let made = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let mut made = made.map_err(|e| wrong("api.certificate", e))?;
    made.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(made))))
}
