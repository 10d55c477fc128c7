//! The door of a small HTTP endpoint: few connections at a time, and none for long. Whoever finds no place waits; who scrapes
//! or tells us something comes again. And what all have in common who tell us something: a body that is bounded, a time stamp
//! that is fresh, an answer that says what was wrong.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::clock::Timestamp;

/// Connections at a time; the next waits.
pub const CONNECTION_LIMIT: usize = 32;
/// No connection lives longer, in milliseconds: one that never asks, or sends slowly, can't keep a place.
const CONNECTION_LIMIT_MS: u64 = 30_000;
/// How long nothing is taken after a connection that failed, in milliseconds.
const FAILED_WAIT_MS: u64 = 100;
/// A body has come by then, in milliseconds.
const BODY_WAIT_MS: u64 = 5_000;

/// Takes connections while there are places. For `axum::serve`.
#[derive(Debug)]
pub struct Doors {
    socket: TcpListener,
    places: Arc<Semaphore>,
}

impl Doors {
    /// Opens them. Gives the address, too, with its real port.
    pub async fn open(listen: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let socket = TcpListener::bind(listen).await?;
        let address = socket.local_addr()?;
        Ok((Self { socket, places: Arc::new(Semaphore::new(CONNECTION_LIMIT)) }, address))
    }
}

impl axum::serve::Listener for Doors {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.ok();
            match self.socket.accept().await {
                Ok((stream, from)) => {
                    let until = Instant::now() + Duration::from_millis(CONNECTION_LIMIT_MS);
                    return (Connection { stream, over: Box::pin(tokio::time::sleep_until(until)), _place: place }, from);
                }
                Err(error) => {
                    // No descriptors left, or a peer that went at once: neither passes quicker by asking again at once.
                    tracing::debug!(%error, "no connection over HTTP");
                    tokio::time::sleep(Duration::from_millis(FAILED_WAIT_MS)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A connection that ends in time and then gives its place back.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    over: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The whole body of what somebody tells us; the error is the answer to give.
pub async fn body(body: Body, limit_bytes: usize) -> Result<Bytes, Box<Response>> {
    match tokio::time::timeout(Duration::from_millis(BODY_WAIT_MS), to_bytes(body, limit_bytes)).await {
        Ok(Ok(body)) => Ok(body),
        // Too long, or broken off: axum does not tell which, and neither can be read.
        Ok(Err(_)) => {
            let what = format!("the body is cut off or longer than {limit_bytes} bytes");
            Err(Box::new(problem(StatusCode::PAYLOAD_TOO_LARGE, &what)))
        }
        Err(_) => Err(Box::new(problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))),
    }
}

/// A header, if there is one and no second that says something else.
pub fn one_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    }
}

/// Why the time of a signature is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skew {
    /// Too old.
    #[error("the signature is older than it may be: it may have been recorded and sent again")]
    Stale,
    /// Ahead of us.
    #[error("the signature lies in the future: is this machine's clock right?")]
    Future,
}

/// Seconds since 1970 as a signature names them: plain digits.
pub fn unix_seconds(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Holds the time of a signature, in seconds since 1970, to `tolerance` on both sides.
pub fn fresh(seconds: i64, now: Timestamp, tolerance: Duration) -> Result<(), Skew> {
    let signed = Timestamp(seconds.saturating_mul(1000));
    if now.since(signed) > tolerance {
        return Err(Skew::Stale);
    }
    if signed.since(now) > tolerance { Err(Skew::Future) } else { Ok(()) }
}

/// What was wrong, for whoever asked (RFC 9457).
pub fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("error");
    let body = serde_json::json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
