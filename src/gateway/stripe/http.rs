//! One request to the API and its answer: a connection each, TLS but to this machine itself, and every part of it bounded. It
//! repeats nothing: what to do about an answer that never came is for others to decide.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::config::{self, StripeConfig, StripeError};
use super::form::Form;
use crate::gateway::target::Target;
use crate::gateway::tls;
use crate::secret::SecretBytes;

/// The version of the API that the answers are read by (https://docs.stripe.com/api/versioning).
const API_VERSION: &str = "2024-06-20";

/// An answer longer than this is none.
const ANSWER_LIMIT_BYTES: usize = 1_048_576;
/// The head of an answer may be this long.
const ANSWER_HEAD_LIMIT_BYTES: usize = 65_536;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const STRIPE_VERSION: HeaderName = HeaderName::from_static("stripe-version");

/// Speaks HTTP/1.1 with one host.
pub(super) struct Http {
    host: String,
    port: u16,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    bearer: HeaderValue,
    timeout: Duration,
    places: Semaphore,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({}:{})", self.host, self.port)
    }
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Stripe's name for the request: what its support asks for.
    pub(super) request_id: String,
    pub(super) body: Vec<u8>,
}

/// No answer. Whether the request arrived, nobody knows, whatever the cause.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[source] hyper::Error),
    #[error("the answer is cut off or longer than {ANSWER_LIMIT_BYTES} bytes")]
    Body,
    #[error("the request can't be written: {0}")]
    Request(#[source] hyper::http::Error),
    #[error("the service is stopping")]
    Stopping,
}

impl Http {
    /// Reads the authorities; connects to nobody yet.
    pub(super) fn open(cfg: &StripeConfig, key: &SecretBytes) -> Result<Self, StripeError> {
        let wrong = |what: &str| StripeError::new("url", format!("`{}` {what}", cfg.url));
        let Target { host, port, authority, tls, path: _ } = config::target(&cfg.url)?;
        let tls = if tls {
            let name = ServerName::try_from(host.clone()).map_err(|_| wrong("names no host that a certificate can name"))?;
            let config = tls::believing(&cfg.roots_file).map_err(|what| StripeError::new("roots_file", what))?;
            Some((TlsConnector::from(Arc::new(config.with_no_client_auth())), name))
        } else {
            None
        };
        let mut bearer = Zeroizing::new(b"Bearer ".to_vec());
        bearer.extend_from_slice(key.expose());
        let mut bearer =
            HeaderValue::from_bytes(&bearer).map_err(|_| StripeError::new("key_file", "this key can't be sent in a header"))?;
        bearer.set_sensitive(true);
        Ok(Self {
            authority: HeaderValue::from_str(&authority).map_err(|_| wrong("is no URL"))?,
            host,
            port,
            tls,
            bearer,
            timeout: Duration::from_millis(cfg.timeout_ms.max(1)),
            places: Semaphore::new(cfg.max_at_once.clamp(1, Semaphore::MAX_PERMITS)),
        })
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

    async fn exchange(&self, request: hyper::http::request::Builder, body: Bytes) -> Result<Answer, NoAnswer> {
        let request = request
            .header(HOST, self.authority.clone())
            .header(AUTHORIZATION, self.bearer.clone())
            .header(STRIPE_VERSION, API_VERSION)
            .header(USER_AGENT, concat!("voicepay/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(NoAnswer::Request)?;
        // Waiting for a place is no part of the request's own time; the caller's patience bounds both.
        let _place = self.places.acquire().await.map_err(|_| NoAnswer::Stopping)?;
        let whole = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(NoAnswer::Connect)?;
            stream.set_nodelay(true).map_err(NoAnswer::Connect)?;
            match &self.tls {
                None => speak(stream, request).await,
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream).await.map_err(NoAnswer::Connect)?;
                    speak(stream, request).await
                }
            }
        };
        tokio::time::timeout(self.timeout, whole).await.unwrap_or(Err(NoAnswer::TimedOut(self.timeout)))
    }
}

async fn speak<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // `writev`: the body goes to the socket, or into TLS, from where it lies, without a copy of the card number in hyper's own
    // buffer.
    let (mut sender, connection) = http1::Builder::new()
        .writev(true)
        .max_header_size(ANSWER_HEAD_LIMIT_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(NoAnswer::Broken)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(NoAnswer::Broken)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT_BYTES).collect().await.map_err(|_| NoAnswer::Body)?.to_bytes();
        let request_id = head.headers.get("request-id").and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok(Answer { status: head.status, request_id: super::declines::plain_id(request_id), body: body.to_vec() })
    };
    // Driven here and not by a task of its own: when the caller stops waiting, the connection goes with it.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            done = &mut exchange => return done,
            _closed = &mut connection, if open => open = false,
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
