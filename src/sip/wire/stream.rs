//! One connection, TCP or TLS: read, framed, screened and handed to the stack; what the stack says is written back on it
//! (RFC 3261 section 18.2.2). A peer that sends slowly or doesn't read costs a bounded buffer for a bounded time.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::SipMessage;
use rsipstack::transaction::endpoint::EndpointInnerRef;
use rsipstack::transport::channel::ChannelConnection;
use rsipstack::transport::{SipAddr, SipConnection, TransportEvent};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::framing::{Frame, Framer, Lost};
use super::screen::{Answer, Framing};
use super::text::HEAD_LIMIT_BYTES;
use super::{Admitted, Fault, Wire, stack_transport};
use crate::sip::signalling::Transport;

/// A connection that was opened to us must bring a message that can be passed on within this: keep-alives alone hold no place.
const FIRST_MESSAGE_MS: u64 = 10_000;
/// A message that has begun must be whole within this.
const MESSAGE_MS: u64 = 10_000;
/// A connection without a byte for this long is closed: a little longer than RFC 4028's usual session interval, so that a
/// call refreshed in time keeps its connection.
const IDLE_MS: u64 = 35 * 60 * 1_000;
/// One write must be taken within this.
const WRITE_MS: u64 = 10_000;
/// How long what is still to be written may take when a connection closes.
const CLOSE_MS: u64 = 2_000;
/// How long the stack may take to answer what came before a peer closed its side, or before nonsense.
const LAST_ANSWERS_MS: u64 = 500;
/// What may wait to be written; a peer that lets more pile up is cut off.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;
/// Messages of the stack on their way to the writer, which takes them at once.
const WRITE_QUEUE_MESSAGES: usize = 64;
/// Our own answers on their way to the writer.
const ANSWER_QUEUE_MESSAGES: usize = 16;
/// Malformed messages in a row after which a connection is closed.
const STRIKE_LIMIT_MESSAGES: u32 = 32;
const READ_BYTES: usize = 8 * 1024;
const PEER_CLOSED: &str = "the peer closed it";
const FRAMING_LOST: &str = "its framing was lost";
const PONG: &[u8] = b"\r\n";
/// A message is longer by no more than this for being rewritten.
const REWRITE_BYTES: usize = 1_024;

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) transport: Transport,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// They opened it.
    pub(super) accepted: bool,
}

/// Serves a connection until it ends or `closing` is cancelled; cancels `closing` then. `known` is called once the stack
/// knows the connection.
pub(super) async fn serve<S>(
    stream: S,
    link: Link,
    wire: Arc<Wire>,
    endpoint: EndpointInnerRef,
    closing: CancellationToken,
    known: impl FnOnce(),
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _closes = closing.clone().drop_guard();
    let address = SipAddr::new(stack_transport(link.transport), link.peer.into());
    // The stack's channel has no bound of its own; each message in it has a place.
    let (to_stack, inside) = mpsc::unbounded_channel();
    let (outside, from_stack) = mpsc::channel(WRITE_QUEUE_MESSAGES);
    let made = ChannelConnection::create_connection_bounded(inside, outside, address.clone(), Some(closing.clone())).await;
    let Ok(connection) = made else { return };
    endpoint.transport_layer.add_connection(connection.clone().into());
    known();
    drop(endpoint);
    let (reader, writer) = tokio::io::split(stream);
    let (answers, our_answers) = mpsc::channel(ANSWER_QUEUE_MESSAGES);
    let writing = tokio::spawn(write_all(writer, from_stack, our_answers, link, wire.clone(), closing.clone()));
    let mut reading =
        Reading { link, wire, connection: connection.into(), address, to_stack, answers, strikes: 0, spoken: !link.accepted };
    tokio::select! {
        () = closing.cancelled() => {}
        why = reading.run(reader) => {
            tracing::debug!(peer = %link.peer, transport = %link.transport, why, "a SIP connection ended");
            // What came before the end is still answered.
            if [PEER_CLOSED, FRAMING_LOST].contains(&why) {
                let _or_it_is_cut = tokio::time::timeout(Duration::from_millis(LAST_ANSWERS_MS), closing.cancelled()).await;
            }
        }
    }
    closing.cancel();
    drop(reading);
    let _ended = writing.await;
}

struct Reading {
    link: Link,
    wire: Arc<Wire>,
    connection: SipConnection,
    address: SipAddr,
    to_stack: mpsc::UnboundedSender<TransportEvent>,
    answers: mpsc::Sender<Vec<u8>>,
    strikes: u32,
    /// We opened it, or something came that could be passed on.
    spoken: bool,
}

impl Reading {
    /// Gives the reason for the end.
    async fn run(&mut self, mut reader: impl AsyncRead + Unpin) -> &'static str {
        let mut framer = Framer::default();
        let mut buffer = vec![0; READ_BYTES];
        let (mut begun, mut silent_since) = (None, tokio::time::Instant::now());
        let opened = silent_since;
        loop {
            let wait = |ms| Duration::from_millis(ms);
            let (until, late) = match begun {
                Some(begun) => (begun + wait(MESSAGE_MS), "a message was not whole in time"),
                None if !self.spoken => (opened + wait(FIRST_MESSAGE_MS), "no message came"),
                None => (silent_since + wait(IDLE_MS), "it was silent"),
            };
            let read = match tokio::time::timeout_at(until, reader.read(&mut buffer)).await {
                Err(_) => return late,
                Ok(Err(_)) => return "it broke",
                Ok(Ok(0)) => return PEER_CLOSED,
                Ok(Ok(read)) => read,
            };
            framer.push(buffer.get(..read).unwrap_or(&[]));
            loop {
                match framer.next_frame() {
                    Ok(None) => break,
                    Ok(Some(Frame::Ping)) => {
                        if self.answers.try_send(PONG.to_vec()).is_err() {
                            return "our answers are not read";
                        }
                    }
                    Ok(Some(Frame::Message(message))) => {
                        if let Err(why) = self.message(&message).await {
                            return why;
                        }
                        begun = None;
                    }
                    Err(lost) => return self.lost(&lost),
                }
            }
            silent_since = tokio::time::Instant::now();
            begun = if framer.is_between() { None } else { begun.or(Some(silent_since)) };
        }
    }

    async fn message(&mut self, message: &[u8]) -> Result<(), &'static str> {
        self.wire.came(message, &self.link);
        let limit = HEAD_LIMIT_BYTES + super::screen::BODY_LIMIT_BYTES + REWRITE_BYTES;
        let fault = match self.wire.admit(message, self.link.peer, Framing::Stream, limit) {
            Admitted::Pass(bytes) => {
                self.spoken = true;
                // Not read meanwhile: that is how a connection learns that we are busy.
                self.wire.place().await;
                if !self.hand_over(&bytes) {
                    self.wire.places.add_permits(1);
                }
                Fault::Ours
            }
            Admitted::Answer(answer, fault) => {
                if self.answers.try_send(answer).is_err() {
                    return Err("our answers are not read");
                }
                fault
            }
            Admitted::Drop(fault) => fault,
        };
        self.strikes = if fault == Fault::Theirs { self.strikes.saturating_add(1) } else { 0 };
        if self.strikes >= STRIKE_LIMIT_MESSAGES { Err("it speaks no SIP") } else { Ok(()) }
    }

    fn hand_over(&self, bytes: &[u8]) -> bool {
        let kind = stack_transport(self.link.transport);
        let Ok(message) = SipMessage::try_from(bytes) else { return false };
        let Ok(message) = SipConnection::update_msg_received(message, self.link.peer, kind) else { return false };
        self.to_stack.send(TransportEvent::Incoming(message, self.connection.clone(), self.address.clone())).is_ok()
    }

    /// The end of a connection whose framing is lost, with an answer if one can be made (RFC 4475 section 3.1.2.3).
    fn lost(&self, lost: &Lost) -> &'static str {
        let (head, refusal) = match lost {
            Lost::HeadTooLong(head) => (head, Answer::new(513, "Message Too Large")),
            Lost::BodyTooLong(head) => (head, Answer::new(413, "Request Entity Too Large")),
            Lost::NoLength(head) => (head, Answer::bad("a stream needs one Content-Length, a number")),
        };
        self.wire.came(head, &self.link);
        if let Some(answer) = self.wire.refuse(head, self.link.peer, &refusal) {
            let _full = self.answers.try_send(answer);
        }
        FRAMING_LOST
    }
}

type Write<W> = Pin<Box<dyn Future<Output = io::Result<W>> + Send>>;

fn write<W: AsyncWrite + Unpin + Send + 'static>(mut writer: W, bytes: Vec<u8>) -> Write<W> {
    Box::pin(async move {
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        tokio::time::timeout(Duration::from_millis(WRITE_MS), written).await.map_err(io::Error::from)??;
        Ok(writer)
    })
}

/// Takes what is to be sent at once, so that nobody in the stack waits for this peer, and writes it as the peer reads.
async fn write_all<W: AsyncWrite + Unpin + Send + 'static>(
    writer: W,
    mut from_stack: mpsc::Receiver<TransportEvent>,
    mut answers: mpsc::Receiver<Vec<u8>>,
    link: Link,
    wire: Arc<Wire>,
    closing: CancellationToken,
) {
    let _closes = closing.clone().drop_guard();
    let mut waiting: Vec<u8> = Vec::new();
    let mut idle = Some(writer);
    let mut busy: Option<Write<W>> = None;
    let add = |waiting: &mut Vec<u8>, event: TransportEvent| {
        if let TransportEvent::Incoming(message, _, _) = event {
            let bytes = message.to_bytes();
            let bytes = wire.outgoing(&bytes, &link).unwrap_or(bytes);
            waiting.extend_from_slice(&bytes);
        }
    };
    loop {
        if let Some(writer) = idle.take() {
            if waiting.is_empty() {
                idle = Some(writer);
            } else {
                busy = Some(write(writer, std::mem::take(&mut waiting)));
            }
        }
        let written = async {
            match busy.as_mut() {
                Some(write) => write.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = closing.cancelled() => break,
            result = written => {
                busy = None;
                match result {
                    Ok(writer) => idle = Some(writer),
                    Err(_) => return,
                }
            }
            event = from_stack.recv() => match event {
                Some(event) => add(&mut waiting, event),
                None => break,
            },
            Some(answer) = answers.recv() => {
                wire.left(&answer, &link);
                waiting.extend_from_slice(&answer);
            }
        }
        if waiting.len() > WRITE_BUFFER_BYTES {
            tracing::warn!(peer = %link.peer, "a SIP peer does not read what it is sent: its connection is cut");
            return;
        }
    }
    let last = async {
        while let Ok(event) = from_stack.try_recv() {
            add(&mut waiting, event);
        }
        while let Ok(answer) = answers.try_recv() {
            wire.left(&answer, &link);
            waiting.extend_from_slice(&answer);
        }
        let mut writer = match (idle, busy) {
            (Some(writer), _) => writer,
            (None, Some(write)) => write.await.ok()?,
            (None, None) => return None,
        };
        writer.write_all(&waiting).await.ok()?;
        writer.shutdown().await.ok()
    };
    let _best_effort = tokio::time::timeout(Duration::from_millis(CLOSE_MS), last).await;
}
