//! `/metrics`, `/healthz` and `/readyz` over plain HTTP, for a private address. Few connections at a time and none for long: who
//! scrapes comes again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::listen::Doors;
use crate::telemetry::metrics::metrics;

/// How long the question whether we are ready may take, in milliseconds; then we are not.
const READY_LIMIT_MS: u64 = 2_000;
/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the endpoint asks the service.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Brings gauges up to date: a scrape is coming.
    fn sample(&self);
    /// Whether new calls are taken; if not, why.
    async fn ready(&self) -> Result<(), &'static str>;
}

/// Answers until `stop`. Gives the address, with its real port.
pub async fn serve(listen: SocketAddr, probe: Arc<dyn Probe>, stop: CancellationToken) -> io::Result<SocketAddr> {
    let (doors, address) = Doors::open(listen).await?;
    let app = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(probe);
    tokio::spawn(async move {
        let served = axum::serve(doors, app).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "metrics are no longer answered");
        }
    });
    Ok(address)
}

async fn scrape(State(probe): State<Arc<dyn Probe>>) -> Response {
    probe.sample();
    super::process::sample(metrics());
    metrics().ready.set([], if is_ready(&probe).await.is_ok() { 1.0 } else { 0.0 });
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], metrics().text()).into_response()
}

async fn ready(State(probe): State<Arc<dyn Probe>>) -> Response {
    match is_ready(&probe).await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn is_ready(probe: &Arc<dyn Probe>) -> Result<(), &'static str> {
    let limit = Duration::from_millis(READY_LIMIT_MS);
    tokio::time::timeout(limit, probe.ready()).await.unwrap_or(Err("the service does not answer in time"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::listen::CONNECTION_LIMIT;

    struct Half(AtomicBool);

    #[async_trait]
    impl Probe for Half {
        fn sample(&self) {
            metrics().calls_limit.set([], 32.0);
        }
        async fn ready(&self) -> Result<(), &'static str> {
            if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err("draining") }
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        peer.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn scrapes_and_probes_are_answered_and_a_full_house_recovers() {
        let probe = Arc::new(Half(AtomicBool::new(true)));
        let stop = CancellationToken::new();
        let address = serve("127.0.0.1:0".parse().unwrap(), Arc::clone(&probe) as Arc<dyn Probe>, stop.clone()).await.unwrap();
        let text = get(address, "/metrics").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains(TEXT_FORMAT), "{text}");
        for sample in ["voicepay_calls_limit 32", "voicepay_ready 1", "process_resident_memory_bytes "] {
            assert!(text.contains(&format!("\n{sample}")), "{sample} is missing in {text}");
        }
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        probe.0.store(false, Ordering::SeqCst);
        let text = get(address, "/readyz").await;
        assert!(text.starts_with("HTTP/1.1 503") && text.ends_with("not ready: draining\n"), "{text}");
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"), "draining is no reason to be killed");
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));

        let mut idle = Vec::new();
        for _ in 0..CONNECTION_LIMIT {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let waits = tokio::spawn(get(address, "/healthz"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waits.is_finished(), "one more than the limit waits");
        drop(idle);
        assert!(waits.await.unwrap().starts_with("HTTP/1.1 200"));
        stop.cancel();
    }
}
