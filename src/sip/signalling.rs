//! What this room needs of a SIP stack, and nothing of how one does it. `rsip` is the one we have; tests may bring theirs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::digest::Credentials;
use super::headers::Headers;
use super::refer::{ReferTo, Referral, Replaces};
use crate::media::leg::Key;

/// Methods that we take; what Allow says (RFC 3261 section 20.5).
pub const ALLOWED_METHODS: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, PRACK, INFO, REFER, NOTIFY";
/// Extensions that we offer; what Supported says.
pub const SUPPORTED_EXTENSIONS: &str = "100rel, timer, norefersub";
/// Extensions that a peer may require: those, and `replaces`, which we understand well enough to refuse.
pub const UNDERSTOOD_EXTENSIONS: [&str; 4] = ["100rel", "timer", "norefersub", "replaces"];
/// Bodies that we read; what Accept says.
pub const ACCEPTED_BODY: &str = "application/sdp";

/// What carries a SIP message (RFC 3261 section 18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams; the stack repeats what isn't answered.
    #[default]
    Udp,
    /// A connection in the clear.
    Tcp,
    /// A connection under TLS.
    Tls,
}

impl Transport {
    /// Is it sealed against whoever listens on the way? One hop only: what lies beyond the peer isn't known.
    pub fn is_secure(self) -> bool {
        self == Self::Tls
    }

    /// As in Via: `UDP`, `TCP`, `TLS`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.token())
    }
}

/// Somebody calls; nothing but 100 has been said yet.
pub struct Invitation {
    /// What the INVITE says.
    pub invite: Invite,
    /// To take the call or to refuse it.
    pub call: Box<dyn InvitedCall>,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("invite", &self.invite).finish_non_exhaustive()
    }
}

/// An INVITE, as far as anybody needs it.
#[derive(Clone)]
pub struct Invite {
    /// Call-ID.
    pub call_id: String,
    /// The Request-URI.
    pub uri: String,
    /// Where it came from: the socket's word, not the message's.
    pub peer: SocketAddr,
    /// What it came over.
    pub transport: Transport,
    /// Its header fields.
    pub headers: Headers,
    /// The session description, `None` if there was no body.
    pub offer: Option<Vec<u8>>,
}

impl std::fmt::Debug for Invite {
    /// No numbers, and not the offer: it may hold keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Invite({} from {} over {})", self.call_id, self.peer, self.transport)
    }
}

/// A call that rings at neither end yet.
#[async_trait]
pub trait InvitedCall: Send {
    /// Refuses, and sees to it that the refusal arrives.
    async fn refuse(self: Box<Self>, refusal: Refusal);
    /// 180; from now on the caller may give up. `contact` is the address that later requests should come to.
    async fn ring(self: Box<Self>, contact: IpAddr) -> Result<Box<dyn Call>, StackError>;
}

/// A call under way, ours or theirs. Dropping it hangs up.
#[async_trait]
pub trait Call: Send {
    /// Answers with our description (200). Only for calls that came in.
    async fn accept(&mut self, description: String) -> Result<(), StackError>;
    /// What happens next. Safe to drop and call again. After `Over` it never returns.
    async fn next(&mut self) -> CallEvent;
    /// Ends it in whatever way fits: refusal, CANCEL or BYE. Returns when the other side has heard it, or never will.
    async fn hang_up(&mut self);
    /// Makes a new offer (re-INVITE): hold, resume, another address. Waits its turn, gives way to crossing offers (491) and
    /// tries again; the outcome is [`CallEvent::Reoffered`]. One at a time: a later one takes the place of one that waits.
    fn reoffer(&mut self, description: String);
    /// Asks the other side to call somebody else (REFER); news come as [`CallEvent::Refer`].
    fn refer(&mut self, to: ReferTo);
    /// What names this call to a third party: for the Replaces of an attended transfer. `None` before the answer.
    fn named(&self) -> Option<Replaces>;
}

/// A final answer that says no.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// 400 to 699.
    pub status: u16,
    /// Beyond what every response has.
    pub headers: Headers,
}

impl Refusal {
    /// Of this status.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Headers::new() }
    }

    /// With a header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// With a Warning (RFC 3261 section 20.43); `text` is one sentence of ours without quotes.
    #[must_use]
    pub fn warning(self, code: u16, text: &str) -> Self {
        self.with("Warning", format!("{code} voicepay \"{}\"", text.replace(['"', '\\'], "'")))
    }
}

/// What a call tells.
pub enum CallEvent {
    /// Ours: a provisional answer (180, 183…), with the description of early media if there is any.
    Progress { status: u16, description: Option<Vec<u8>> },
    /// Ours: answered with this body; the acknowledgement is on its way.
    Answered(Vec<u8>),
    /// Theirs: our answer has been acknowledged, with this body.
    Acknowledged(Vec<u8>),
    /// The other side wants to change the session (re-INVITE); no body means "make me an offer".
    Reoffer { offer: Option<Vec<u8>>, reply: oneshot::Sender<Result<String, Refusal>> },
    /// Their answer to the offer that such a "make me an offer" got, or to one that only refreshed the session.
    Settled(Vec<u8>),
    /// What became of [`Call::reoffer`]: their answer, or their refusal; the session stays as it was then.
    Reoffered(Result<Vec<u8>, Refusal>),
    /// Keys in an INFO.
    Keys(Vec<Key>),
    /// How a transfer that we asked for goes.
    Refer(Referral),
    /// It is over; nothing comes after.
    Over(Over),
}

impl std::fmt::Debug for CallEvent {
    /// No keys that were pressed, and no descriptions, which may hold keys of another kind.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Progress { status, .. } => write!(f, "Progress({status})"),
            Self::Answered(_) => f.write_str("Answered"),
            Self::Acknowledged(_) => f.write_str("Acknowledged"),
            Self::Reoffer { .. } => f.write_str("Reoffer"),
            Self::Settled(_) => f.write_str("Settled"),
            Self::Reoffered(Ok(_)) => f.write_str("Reoffered"),
            Self::Reoffered(Err(refusal)) => write!(f, "Reoffered({})", refusal.status),
            Self::Keys(keys) => write!(f, "Keys({} of them)", keys.len()),
            Self::Refer(referral) => write!(f, "Refer({referral:?})"),
            Self::Over(over) => write!(f, "Over({over:?})"),
        }
    }
}

/// Why a call is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// The other side hung up.
    Bye,
    /// The caller gave up while it rang.
    Cancelled,
    /// Our answer was never acknowledged; the stack has sent its BYE.
    NotAcknowledged,
    /// Ours was refused; reason phrase or Warning text.
    Refused { status: u16, reason: String },
    /// We ended it.
    Ours,
    /// Nobody confirmed the session in time (RFC 4028), or the other side knows it no more.
    Expired,
    /// The stack could not go on.
    Failed(String),
}

/// The stack could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StackError(pub String);

/// A call to make.
#[derive(Clone)]
pub struct Outgoing {
    /// Call-ID.
    pub call_id: String,
    /// `sip:user@host[:port]`.
    pub target: String,
    /// Its address.
    pub destination: SocketAddr,
    /// What to send it over. Nothing else is tried: a call that is to be secure never falls back to the clear.
    pub transport: Transport,
    /// Our From URI.
    pub from: String,
    /// The address that later requests should come to.
    pub contact: IpAddr,
    /// Added to the INVITE.
    pub headers: Headers,
    /// Our offer.
    pub offer: String,
    /// For a 401 or 407, answered once for each nonce.
    pub credentials: Option<Credentials>,
}

impl std::fmt::Debug for Outgoing {
    /// No numbers, and not the offer: it may hold keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outgoing({} to {} over {})", self.call_id, self.destination, self.transport)
    }
}

/// A SIP stack on one socket.
#[async_trait]
pub trait Signalling: Send {
    /// Where it hears.
    fn local_addr(&self) -> SocketAddr;
    /// The next caller; `None` once the stack has stopped.
    async fn invitation(&mut self) -> Option<Invitation>;
    /// To place calls from the same socket, from anywhere, for as long as the stack runs.
    fn caller(&self) -> Arc<dyn Caller>;
}

/// Places calls, and sends what belongs to none.
#[async_trait]
pub trait Caller: Send + Sync {
    /// Where answers are heard.
    fn local_addr(&self) -> SocketAddr;
    /// The port on which requests over this transport are heard.
    fn local_port(&self, transport: Transport) -> u16;
    /// Calls somebody.
    async fn invite(&self, outgoing: Outgoing) -> Result<Box<dyn Call>, StackError>;
    /// Sends a request outside any dialog and waits for its final response.
    async fn request(&self, request: OutOfDialog) -> Result<Reply, RequestError>;
    /// What the stack holds at this moment.
    fn held(&self) -> Held;
}

/// What a stack holds: all of it goes back to nothing once calls are over and what could be repeated no longer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Calls whose requests are listened for.
    pub dialogs: usize,
    /// Transactions that run, or wait for an ACK or a repetition.
    pub transactions: usize,
}

/// A request outside any dialog: REGISTER, OPTIONS. URIs are bare (`sip:user@host`), without brackets.
#[derive(Clone)]
pub struct OutOfDialog {
    /// `REGISTER` or `OPTIONS`.
    pub method: &'static str,
    /// The Request-URI.
    pub uri: String,
    /// From.
    pub from: String,
    /// From's tag.
    pub from_tag: String,
    /// To.
    pub to: String,
    /// Call-ID; the same for all REGISTERs of a registration (RFC 3261 section 10.2).
    pub call_id: String,
    /// CSeq.
    pub cseq: u32,
    /// What Via names: an address of ours as the other side may see it.
    pub sent_by: SocketAddr,
    /// Contact; `None` in a REGISTER that only asks.
    pub contact: Option<String>,
    /// Added to it.
    pub headers: Headers,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// The name that a certificate must be for.
    pub server_name: String,
    /// How long the final response may take.
    pub wait: Duration,
}

impl std::fmt::Debug for OutOfDialog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OutOfDialog({} to {} over {})", self.method, self.destination, self.transport)
    }
}

/// A final response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// 200 to 699.
    pub status: u16,
    /// Its header fields.
    pub headers: Headers,
    /// From sending to this.
    pub took: Duration,
}

/// Why there is no final response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Nothing came.
    #[error("no answer within {} ms", .0.as_millis())]
    Silence(Duration),
    /// It could not be sent.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// A value of it can't be written as SIP.
    #[error("a value of the request can't be written as SIP")]
    Unwritable,
}
