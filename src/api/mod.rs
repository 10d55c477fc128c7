//! The REST API: everything that a payee's own systems do with us, over HTTPS; and the pages of people who got a link, or whose app asks for their voice. One table of routes ([`route::table`]) is both the router and the
//! description; every request goes through one gate (key, scope, rate, size, idempotency); what it may see is its tenant's and nobody else's.

mod accounts;
mod agreeing;
pub mod app_calls;
mod app_page;
mod app_sessions;
mod ask;
mod asking;
mod body;
mod config;
mod cursor;
mod door;
mod gate;
mod guarding;
mod key;
mod live;
mod money;
mod openapi;
mod pages;
mod people;
mod problem;
mod query;
mod rights;
pub mod route;
mod scope;
pub mod shape;
mod shop;
mod trail;
mod types;
mod voices;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::RawPathParams;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::agreement::Agreements;
use crate::app_sessions::{AppConfig, AppSessions};
use crate::call::registry::Registry;
use crate::call::timeline::Watched;
use crate::clock::{Clock, Entropy};
use crate::ids::CustomerId;
use crate::notify::Notifier;
use crate::processor::Processor;
use crate::rights::RetentionConfig;
use crate::store::Store;
use crate::vault::Vault;

pub use config::ApiConfig;
pub use door::ApiError;
pub use key::Key;
pub use openapi::document;
pub use problem::Problem;
pub use scope::Scope;

use route::{Route, Verb};

/// What the API works with.
#[derive(Clone)]
pub struct Parts {
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Keys.
    pub vault: Vault,
    /// Captures, voids, refunds, disputes.
    pub processor: Processor,
    /// Rules, approvals, codes, mandates, guardians.
    pub agreements: Agreements,
    /// Who is told what.
    pub notifier: Notifier,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The system's generator.
    pub entropy: Arc<dyn Entropy>,
    /// Calls that are up here; `None`: this process takes none.
    pub live: Option<Live>,
    /// Who makes voice templates of recordings; `None`: nobody here.
    pub enroller: Option<Arc<dyn Enroller>>,
    /// How long things are kept, for exports to tell.
    pub retention: RetentionConfig,
    /// App sessions.
    pub app: AppConfig,
    /// Who answers pages' offers; `None`: this process takes no calls of pages.
    pub app_calls: Option<Arc<dyn app_calls::AppCalls>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// The calls that are up in this process.
#[derive(Clone, Debug)]
pub struct Live {
    /// Which.
    pub registry: Registry,
    /// What happens in them.
    pub watchers: tokio::sync::broadcast::Sender<Watched>,
}

/// Makes a voice template of recordings and stores it with the consent. The models are `app`'s.
#[async_trait]
pub trait Enroller: Send + Sync {
    /// From whole WAV files. Gives how many milliseconds of speech there were.
    async fn enrol(
        &self,
        customer: &CustomerId,
        consent_by: &str,
        actor: &str,
        wavs: Vec<Vec<u8>>,
    ) -> Result<Enrolled, NotEnrolled>;
}

/// What came of an enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Which model made the template.
    pub model: String,
    /// Net speech in it, in milliseconds.
    pub net_speech_ms: u32,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum NotEnrolled {
    /// The recordings are not good enough, or no recordings; which and why.
    #[error("{0}")]
    Recordings(String),
    /// Too much is being done at once.
    #[error("the models are busy; try again later")]
    Busy,
    /// The database, the vault or a model.
    #[error("{0}")]
    Failed(String),
}

/// What all requests share.
struct Shared {
    store: Arc<dyn Store>,
    vault: Vault,
    processor: Processor,
    agreements: Agreements,
    notifier: Notifier,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    live: Option<Live>,
    enroller: Option<Arc<dyn Enroller>>,
    retention: RetentionConfig,
    config: ApiConfig,
    buckets: gate::Buckets,
    guests: pages::Guests,
    streams: Arc<Semaphore>,
    app: app_page::Pages,
    stop: CancellationToken,
}

/// Serves until `stop`. Gives the address, with its real port.
pub async fn serve(
    config: &ApiConfig,
    listen: SocketAddr,
    parts: Parts,
    stop: CancellationToken,
) -> Result<SocketAddr, ApiError> {
    let Parts { store, vault, processor, agreements, notifier, clock, entropy, live, enroller, retention, app, app_calls } =
        parts;
    let parts = (Arc::clone(&store), vault.clone(), agreements.clone());
    let sessions = AppSessions::new(parts, (Arc::clone(&clock), Arc::clone(&entropy)), app);
    let shared = Arc::new(Shared {
        store,
        vault,
        processor,
        agreements,
        notifier,
        clock,
        entropy,
        live,
        enroller,
        retention,
        config: config.clone(),
        buckets: gate::Buckets::default(),
        guests: pages::Guests::default(),
        streams: Arc::new(Semaphore::new(config.max_streams)),
        app: app_page::Pages::new(config, sessions, app_calls),
        stop: stop.clone(),
    });
    tokio::spawn(sweep(Arc::clone(&shared)));
    tokio::spawn(sweep_sessions(Arc::clone(&shared)));
    door::serve(config, listen, router(shared), stop).await
}

/// How often answers that have expired are erased, in seconds.
const SWEEP_S: u64 = 600;

async fn sweep(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(SWEEP_S));
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = shared.store.sweep_answers(shared.clock.now()).await {
            tracing::warn!(%error, "answers of the API that have expired are not erased yet");
        }
    }
}

/// How often app sessions are ended whose time is over, in seconds. Until then they are expired all the same.
const SWEEP_SESSIONS_S: u64 = 30;

async fn sweep_sessions(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(SWEEP_SESSIONS_S));
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = shared.app.sessions.sweep().await {
            tracing::warn!(%error, "app sessions whose time is over are not ended yet");
        }
    }
}

fn router(shared: Arc<Shared>) -> Router {
    // The table is made once a process; what stands in it lives as long.
    let table: &'static [Route] = Box::leak(route::table().into_boxed_slice());
    let (links, visited) = pages::route(&shared);
    let mut router = Router::new()
        .route(links, visited)
        .route("/v1/openapi.json", get(|| async { gate::json(StatusCode::OK, &document()) }))
        .route("/v1/docs", get(|| async { page("text/html; charset=utf-8", include_str!("viewer.html")) }))
        .route("/v1/docs/viewer.js", get(|| async { page("text/javascript; charset=utf-8", include_str!("viewer.js")) }))
        .route("/v1/calls/{id}/events", {
            let shared = Arc::clone(&shared);
            get(move |params: RawPathParams, request: Request<Body>| live::follow(shared, ids_of(&params), request))
        });
    for (path, asked) in app_page::routes(&shared).into_iter().chain(shop::routes(&shared)) {
        router = router.route(path, asked);
    }
    for route in table {
        let shared = Arc::clone(&shared);
        let answer = move |params: RawPathParams, request: Request<Body>| gate::answer(shared, route, ids_of(&params), request);
        let method: MethodRouter = match route.verb {
            Verb::Get => get(answer),
            Verb::Post => axum::routing::post(answer),
            Verb::Delete => axum::routing::delete(answer),
        };
        router = router.route(&format!("/v1{}", route.path), method);
    }
    let nowhere = || async { Problem::new(StatusCode::NOT_FOUND, "not-found", "there is nothing at this path: see /v1/docs") };
    let not_so = || async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "not with this method: see /v1/docs") };
    router.fallback(nowhere).method_not_allowed_fallback(not_so)
}

fn ids_of(params: &RawPathParams) -> Vec<String> {
    params.iter().map(|(_, value)| value.to_owned()).collect()
}

/// A page of ours; it loads nothing from elsewhere, and may not.
fn page(kind: &'static str, text: &'static str) -> Response {
    let policy = "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";
    ([(header::CONTENT_TYPE, kind), (header::CONTENT_SECURITY_POLICY, policy)], text).into_response()
}
