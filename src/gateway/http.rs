//! One HTTP/1.1 request to an acquirer and its answer: a connection each, TLS but to this machine itself, and every part of it
//! bounded. It repeats nothing: what to do about an answer that never came is for others to decide.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::http::request::Builder;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use super::target::Target;
use super::tls;

/// An answer longer than this is none.
pub(super) const ANSWER_LIMIT_BYTES: usize = 1_048_576;
/// Of an answer that only its status counts of, so much is read.
const UNREAD_LIMIT_BYTES: usize = 65_536;
/// The head of an answer may be this long.
const ANSWER_HEAD_LIMIT_BYTES: usize = 65_536;

/// Addresses of a host that are tried, where they are screened.
const ADDRESS_LIMIT: usize = 4;

/// Speaks HTTP/1.1 with one host.
pub(crate) struct Client {
    target: Target,
    authority: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    places: Semaphore,
    /// Which addresses may be connected to, where not all may.
    screen: Option<fn(IpAddr) -> bool>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target.host, self.target.port)
    }
}

/// Why no client can be made: which of its two settings is wrong, and how.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The URL.
    Url(String),
    /// The file of authorities.
    Roots(String),
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// No answer. Whether the request arrived, nobody knows, whatever the cause.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
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

impl Client {
    /// Reads the authorities, if it is spoken to over TLS; connects to nobody yet.
    pub(crate) fn open(target: Target, roots_file: &Path, timeout_ms: u64, max_at_once: usize) -> Result<Self, OpenError> {
        let read = || Ok(Arc::new(tls::believing(roots_file)?.with_no_client_auth()));
        Self::with(target, read, timeout_ms, max_at_once)
    }

    /// The same with authorities that many clients share; `roots` gives them, and is asked only if it is spoken to over TLS.
    pub(crate) fn with(
        target: Target,
        roots: impl FnOnce() -> Result<Arc<ClientConfig>, String>,
        timeout_ms: u64,
        max_at_once: usize,
    ) -> Result<Self, OpenError> {
        let wrong = |what: &str| OpenError::Url(format!("`{}` {what}", target.authority));
        let tls = if target.tls {
            let name = ServerName::try_from(target.host.clone());
            let name = name.map_err(|_| wrong("names no host that a certificate can name"))?;
            Some((TlsConnector::from(roots().map_err(OpenError::Roots)?), name))
        } else {
            None
        };
        Ok(Self {
            authority: HeaderValue::from_str(&target.authority).map_err(|_| wrong("is no URL"))?,
            target,
            tls,
            timeout: Duration::from_millis(timeout_ms.max(1)),
            places: Semaphore::new(max_at_once.clamp(1, Semaphore::MAX_PERMITS)),
            screen: None,
        })
    }

    /// Connects to addresses only that pass: whoever names the host does not choose what it resolves to.
    #[must_use]
    pub(crate) fn screened(mut self, screen: fn(IpAddr) -> bool) -> Self {
        self.screen = Some(screen);
        self
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let to = (self.target.host.as_str(), self.target.port);
        let Some(screen) = self.screen else { return TcpStream::connect(to).await };
        let mut last =
            io::Error::new(io::ErrorKind::PermissionDenied, "the host's addresses are of a network that is not public");
        for address in tokio::net::lookup_host(to).await?.filter(|a| screen(a.ip())).take(ADDRESS_LIMIT) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// One request, whole with method, path and headers but for those that all have, and its answer.
    pub(crate) async fn exchange(&self, request: Builder, body: Bytes) -> Result<Answer, NoAnswer> {
        self.ask(request, body, ANSWER_LIMIT_BYTES, &OnceLock::new()).await
    }

    /// The same where the status says all: a body is read so far as it is short and comes in time, and whatever becomes of it, the status stands.
    pub(crate) async fn status_of(&self, request: Builder, body: Bytes) -> Result<StatusCode, NoAnswer> {
        let seen = OnceLock::new();
        let answer = self.ask(request, body, UNREAD_LIMIT_BYTES, &seen).await;
        match seen.get() {
            Some(status) => Ok(*status),
            None => answer.map(|a| a.status),
        }
    }

    async fn ask(
        &self,
        request: Builder,
        body: Bytes,
        limit_bytes: usize,
        seen: &OnceLock<StatusCode>,
    ) -> Result<Answer, NoAnswer> {
        let request = request
            .header(HOST, self.authority.clone())
            .header(USER_AGENT, concat!("voicepay/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(NoAnswer::Request)?;
        // Waiting for a place is no part of the request's own time; the caller's patience bounds both.
        let _place = self.places.acquire().await.map_err(|_| NoAnswer::Stopping)?;
        let whole = async {
            let stream = self.connect().await.map_err(NoAnswer::Connect)?;
            stream.set_nodelay(true).map_err(NoAnswer::Connect)?;
            match &self.tls {
                None => speak(stream, request, limit_bytes, seen).await,
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream).await.map_err(NoAnswer::Connect)?;
                    speak(stream, request, limit_bytes, seen).await
                }
            }
        };
        tokio::time::timeout(self.timeout, whole).await.unwrap_or(Err(NoAnswer::TimedOut(self.timeout)))
    }
}

async fn speak<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    limit_bytes: usize,
    seen: &OnceLock<StatusCode>,
) -> Result<Answer, NoAnswer>
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
        let _once = seen.set(head.status);
        let body = Limited::new(body, limit_bytes).collect().await.map_err(|_| NoAnswer::Body)?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
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
