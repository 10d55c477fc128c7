//! The door of a small HTTP endpoint: few connections at a time, and none for long. Whoever finds no place waits; who scrapes
//! or tells us something comes again.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at a time; the next waits.
pub const CONNECTION_LIMIT: usize = 32;
/// No connection lives longer, in milliseconds: one that never asks, or sends slowly, can't keep a place.
const CONNECTION_LIMIT_MS: u64 = 30_000;
/// How long nothing is taken after a connection that failed, in milliseconds.
const FAILED_WAIT_MS: u64 = 100;

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
