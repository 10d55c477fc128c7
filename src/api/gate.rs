//! What every request goes through: whose key, how often, may it, is the body what it should be, was it asked before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Shared;
use super::ask::{Answer, Ask, Caller, Made};
use super::body;
use super::key::Key;
use super::problem::Problem;
use super::query;
use super::route::{Route, Verb, Weight};
use super::scope::Scope;
use crate::bucket::{Bucket, Rate};
use crate::ids::ApiKeyId;
use crate::listen::one_header;
use crate::store::{Asked, Earlier};
use crate::vault::ApiPurpose;

/// A body has come by then, in milliseconds.
const BODY_WAIT_MS: u64 = 10_000;
/// An answer takes no longer, in milliseconds; whoever asks again with the same key later begins anew.
const ANSWER_LIMIT_MS: u64 = 30_000;
/// How many characters an idempotency key may have.
pub(super) const KEY_LIMIT_CHARS: usize = 64;
/// The header that names it.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Says that an answer was given before.
const REPLAYED: &str = "idempotent-replayed";

/// Tokens of each key. As many entries as keys that were used, and those must exist.
#[derive(Debug)]
pub(super) struct Buckets {
    began: Instant,
    all: Mutex<HashMap<ApiKeyId, Bucket>>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { began: Instant::now(), all: Mutex::default() }
    }
}

impl Buckets {
    /// Takes a token; the error is after how many seconds there is one.
    fn take(&self, key: &ApiKeyId, per_s: u32, burst: u32, now: Instant) -> Result<Left, u64> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = Rate { per_s: f64::from(per_s), burst: f64::from(burst) };
        let bucket = all.entry(key.clone()).or_insert_with(|| Bucket::full(rate));
        if !bucket.take(now.duration_since(self.began), rate) {
            return Err(bucket.seconds_until(1.0, rate));
        }
        Ok(Left { requests: bucket.left(), full_s: bucket.seconds_until(rate.burst, rate) })
    }
}

/// What is left of a key's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Requests at once.
    requests: u64,
    /// In so many seconds there are all again.
    full_s: u64,
}

impl Left {
    /// Tells it as draft-ietf-httpapi-ratelimit-headers has it.
    fn tell(self, headers: &mut HeaderMap, per_s: u32, burst: u32) {
        let policy = format!("\"key\";q={burst};w={}", burst.div_ceil(per_s.max(1)));
        let left = format!("\"key\";r={};t={}", self.requests, self.full_s);
        for (name, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// What is shown as `Authorization: Bearer …` (RFC 6750 §2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    one_header(headers, "authorization")?.strip_prefix("Bearer ").map(str::trim)
}

/// Whose key it is, if it is good, not too often, and allows this.
pub(super) async fn admit(shared: &Shared, headers: &HeaderMap, scope: Scope) -> Result<Caller, Problem> {
    let unknown = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
    let shown = bearer(headers).ok_or_else(|| unknown("show a key: `Authorization: Bearer vpk_…`"))?;
    let wrong = "the key is unknown, expired or revoked";
    let digest = Key::parse(shown).ok_or_else(|| unknown(wrong))?.digest(&shared.vault);
    let key = shared.store.api_key(&digest).await?.filter(|k| k.good(shared.clock.now())).ok_or_else(|| unknown(wrong))?;
    let cfg = &shared.config;
    let left = shared
        .buckets
        .take(&key.id, cfg.requests_per_s, cfg.burst, Instant::now())
        .map_err(|seconds| Problem::too_often(seconds, "this key asks too often"))?;
    if !key.scopes.iter().any(|s| s == scope.as_str()) {
        let lacks = format!("this key lacks the scope {scope}");
        return Err(Problem::new(StatusCode::FORBIDDEN, "scope", lacks));
    }
    Ok(Caller { key: key.id, tenant: key.tenant, left })
}

/// Answers a request of the table.
pub(super) async fn answer(shared: Arc<Shared>, route: &'static Route, path: Vec<String>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let caller = match admit(&shared, &parts.headers, route.scope).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    let (left, per_s, burst) = (caller.left, shared.config.requests_per_s, shared.config.burst);
    let mut response = admitted(shared, route, path, caller, parts, body).await;
    left.tell(response.headers_mut(), per_s, burst);
    response
}

async fn admitted(
    shared: Arc<Shared>,
    route: &'static Route,
    path: Vec<String>,
    caller: Caller,
    parts: Parts,
    body: Body,
) -> Response {
    let read = read(&shared, route, path, caller, &parts, body).await;
    let ask = match read {
        Ok(ask) => ask,
        Err(problem) => return problem.into_response(),
    };
    // On a task of its own: who hangs up leaves nothing half done.
    let work = tokio::spawn(async move {
        let limit = Duration::from_millis(ANSWER_LIMIT_MS);
        let late = || Problem::unavailable("this took too long; ask again, with the same Idempotency-Key");
        match tokio::time::timeout(limit, run(route, ask, &parts)).await {
            Ok(response) => response,
            Err(_) => late().into_response(),
        }
    });
    work.await.unwrap_or_else(|e| Problem::internal(&e).into_response())
}

/// All of a request, checked.
async fn read(
    shared: &Arc<Shared>,
    route: &Route,
    path: Vec<String>,
    caller: Caller,
    parts: &Parts,
    body: Body,
) -> Result<Ask, Problem> {
    let query = query::read(parts.uri.query().unwrap_or(""), route.params)?;
    let limit = match route.weight {
        Weight::Light => shared.config.max_body_bytes,
        Weight::Upload => shared.config.max_upload_bytes,
    };
    let read = body::whole(&parts.headers, body, limit, BODY_WAIT_MS).await;
    let body = Zeroizing::new(Vec::from(read.map_err(|unread| unread.problem(limit))?));
    match route.input {
        Some(_) => body::must_be(&parts.headers, "application/json")?,
        None if !body.is_empty() => return Err(Problem::invalid("nothing is read from a body here")),
        None => {}
    }
    let now = shared.clock.now();
    let seed = shared.entropy.bytes::<32>();
    let (entropy, command) = (Made::of(seed), String::new());
    Ok(Ask { shared: Arc::clone(shared), caller, path, query, body, now, entropy, command })
}

/// Does it, or says again what was answered.
async fn run(route: &'static Route, mut ask: Ask, parts: &Parts) -> Response {
    if route.verb != Verb::Post {
        return respond((route.run)(&ask).await);
    }
    let asked = match idempotent(&mut ask, parts).await {
        Ok(Begun::Mine(asked)) => asked,
        Ok(Begun::Before(response)) => return response,
        Err(problem) => return problem.into_response(),
    };
    let done = (route.run)(&ask).await;
    let shared = &ask.shared;
    // Only what was done is said again: what was refused may be asked anew once things stand otherwise.
    let kept = match &done {
        Ok(answer) => match shared.vault.seal_answer(asked.api_key.as_str(), &asked.key, answer.body.to_string().as_bytes()) {
            Ok(sealed) => shared.store.keep_answer(&asked, answer.status.as_u16(), &sealed).await,
            Err(error) => return Problem::internal(&error).into_response(),
        },
        // Nobody knows whether it was done: the next who asks finds out, with the same identifiers.
        Err(problem) if problem.status.is_server_error() => Ok(()),
        Err(_) => shared.store.drop_answer(&asked).await,
    };
    if let Err(error) = kept {
        tracing::warn!(%error, "an answer of the API was not kept; whoever asks again is answered anew, and nothing is made twice");
    }
    respond(done)
}

enum Begun {
    Mine(Asked),
    Before(Response),
}

async fn idempotent(ask: &mut Ask, parts: &Parts) -> Result<Begun, Problem> {
    let fits = |k: &&str| (1..=KEY_LIMIT_CHARS).contains(&k.len()) && k.bytes().all(|b| b.is_ascii_graphic());
    let key = one_header(&parts.headers, IDEMPOTENCY_KEY).filter(fits).ok_or_else(|| {
        Problem::invalid(format!("Idempotency-Key must be there once, with 1 to {KEY_LIMIT_CHARS} printable characters"))
    })?;
    let shared = Arc::clone(&ask.shared);
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    let request = shared.vault.api_digest(ApiPurpose::Request, &[target.as_bytes(), &ask.body]);
    let lease = Duration::from_millis(ANSWER_LIMIT_MS.saturating_add(1_000));
    let asked = Asked {
        api_key: ask.caller.key.clone(),
        key: key.to_owned(),
        request,
        now: ask.now,
        leased_to: ask.now.plus(lease),
        expires_at: ask.now.plus(Duration::from_secs(u64::from(shared.config.answer_hours) * 3_600)),
    };
    let begun_at = match shared.store.begin_answer(&asked).await? {
        Earlier::Yours { begun_at } => begun_at,
        Earlier::InFlight => {
            let detail = "the same is being answered: ask again in a moment";
            return Err(Problem { retry_after_s: Some(1), ..Problem::new(StatusCode::CONFLICT, "in-flight", detail) });
        }
        Earlier::OtherRequest => {
            let detail = "this Idempotency-Key was used for another request";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail));
        }
        Earlier::Answered { status, body } => {
            let opened = shared.vault.open_answer(asked.api_key.as_str(), key, &body).map_err(|e| Problem::internal(&e))?;
            let body: Value = serde_json::from_slice(&opened).map_err(|e| Problem::internal(&e))?;
            let status = StatusCode::from_u16(status).map_err(|e| Problem::internal(&e))?;
            let mut response = respond(Ok(Answer { status, body }));
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            return Ok(Begun::Before(response));
        }
    };
    ask.now = begun_at;
    let parts = [asked.api_key.as_str().as_bytes(), key.as_bytes(), &request, &begun_at.0.to_be_bytes()];
    let seed = shared.vault.api_digest(ApiPurpose::Made, &parts);
    ask.command = format!("api:{}", hex::encode(seed.get(..16).unwrap_or(&seed)));
    ask.entropy = Made::of(seed);
    Ok(Begun::Mine(asked))
}

fn respond(done: Result<Answer, Problem>) -> Response {
    match done {
        Ok(answer) => json(answer.status, &answer.body),
        Err(problem) => problem.into_response(),
    }
}

/// A JSON answer. What is a tenant's is for no cache.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (buckets, key) = (Buckets::default(), ApiKeyId::fresh(&SeededEntropy::new(1)));
        let take = |n: usize| (0..n).filter(|_| buckets.take(&key, 10, 5, Instant::now()).is_ok()).count();
        assert_eq!(take(9), 5);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(take(9), 2);
        assert_eq!(buckets.take(&key, 10, 5, Instant::now()), Err(1));
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(take(9), 5);
        let other = ApiKeyId::fresh(&SeededEntropy::new(2));
        assert!(buckets.take(&other, 10, 5, Instant::now()).is_ok(), "each key has its own");
    }
}
