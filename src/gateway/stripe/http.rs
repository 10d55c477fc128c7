//! Requests to the API: what each of them says of us beside its own content.

use std::fmt;

use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request, StatusCode};
use zeroize::Zeroizing;

use super::config::{StripeConfig, StripeError, target};
use super::form::Form;
use crate::gateway::http::{Client, NoAnswer, OpenError};
use crate::secret::SecretBytes;

/// The version of the API that the answers are read by (https://docs.stripe.com/api/versioning).
const API_VERSION: &str = "2024-06-20";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

/// Speaks with the API under our key.
pub(super) struct Http {
    client: Client,
    bearer: HeaderValue,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({:?})", self.client)
    }
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Stripe's name for the request: what its support asks for.
    pub(super) request_id: String,
    pub(super) body: Bytes,
}

impl Http {
    /// Reads the authorities; connects to nobody yet.
    pub(super) fn open(cfg: &StripeConfig, key: &SecretBytes) -> Result<Self, StripeError> {
        let client =
            Client::open(target(&cfg.url)?, &cfg.roots_file, cfg.timeout_ms, cfg.max_at_once).map_err(|error| match error {
                OpenError::Url(what) => StripeError::new("url", what),
                OpenError::Roots(what) => StripeError::new("roots_file", what),
            })?;
        let mut bearer = Zeroizing::new(b"Bearer ".to_vec());
        bearer.extend_from_slice(key.expose());
        let mut bearer =
            HeaderValue::from_bytes(&bearer).map_err(|_| StripeError::new("key_file", "this key can't be sent in a header"))?;
        bearer.set_sensitive(true);
        Ok(Self { client, bearer })
    }

    /// Changes something at Stripe. With the same key and form it does so once, however often it is called, as long as Stripe
    /// keeps the key.
    pub(super) async fn post(&self, path: &str, form: Form, idempotency_key: &str) -> Result<Answer, NoAnswer> {
        // What is on the wire is wiped with its last owner; copies within TLS and the kernel are out of our hands.
        let body = Bytes::from_owner(form.into_bytes());
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(IDEMPOTENCY_KEY, idempotency_key);
        self.exchange(request, body).await
    }

    /// Asks; changes nothing.
    pub(super) async fn get(&self, path: &str, query: &Form) -> Result<Answer, NoAnswer> {
        let query = query.query();
        let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.exchange(Request::builder().method(Method::GET).uri(uri), Bytes::new()).await
    }

    async fn exchange(&self, request: Builder, body: Bytes) -> Result<Answer, NoAnswer> {
        let request = request.header(AUTHORIZATION, self.bearer.clone()).header(STRIPE_VERSION, API_VERSION);
        let answer = self.client.exchange(request, body).await?;
        let request_id = answer.headers.get("request-id").and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Answer { status: answer.status, request_id: super::declines::plain_id(request_id), body: answer.body })
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
