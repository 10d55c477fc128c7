//! `signalling` on rsipstack 0.7.14: its endpoint and its transactions; dialogs are ours (`rsip_task`). Every new transaction
//! comes by here: to its call, to whoever takes calls, or to an answer at once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rsipstack::EndpointBuilder;
use rsipstack::sip::Method;
use rsipstack::sip::prelude::HasHeaders;
use rsipstack::transaction::TransactionReceiver;
use rsipstack::transaction::endpoint::{EndpointInnerRef, EndpointOption};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::TransportLayer;
use rsipstack::transport::udp::UdpConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::dialog::tag_of;
use super::headers::Headers;
use super::refer::{Replaces, has_one_target};
use super::rsip_request;
use super::rsip_task::{
    DialogKey, Happening, Invited, REFUSED_LIMIT_TRANSACTIONS, answer, failed, headers_of, place, refuse_invite,
};
use super::session_timer::{self, Limits, TooSmall};
use super::signalling::{
    ACCEPTED_BODY, ALLOWED_METHODS, Call, Caller, Held, Invitation, Invite, OutOfDialog, Outgoing, Refusal, Reply, RequestError,
    SUPPORTED_EXTENSIONS, Signalling, StackError, Transport, UNDERSTOOD_EXTENSIONS,
};
use super::wire::{Sockets, Uptake, Wire, host_name, transport_of};
use crate::clock::{Entropy, SystemEntropy};

/// Callers who wait to be looked at. One more is answered 503 at once.
const INVITATION_QUEUE: usize = 64;
/// INVITEs without a final answer; what comes on top is dropped, and comes again.
const INVITE_LIMIT_TRANSACTIONS: usize = 1_024;
/// What the 503 to OPTIONS says while no more calls are taken, in seconds: a restart takes less.
const DRAINING_RETRY_AFTER_S: &str = "30";

/// How the stack behaves.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// User-Agent.
    pub user_agent: String,
    /// RFC 3261's T1.
    pub t1: Duration,
    /// The address that peers are told, if not the socket's own.
    pub public_address: Option<IpAddr>,
    /// What is asked of every call's session timer.
    pub session: Limits,
    /// Cancelled once no more calls are taken: who asks by OPTIONS is told to go elsewhere.
    pub draining: CancellationToken,
}

/// rsipstack on one UDP socket.
pub struct Rsip {
    shared: Arc<Shared>,
    invitations: mpsc::Receiver<Invitation>,
    _stops_the_endpoint: DropGuard,
}

/// What every call of the stack needs.
pub(super) struct Shared {
    pub(super) endpoint: EndpointInnerRef,
    pub(super) wire: Arc<Wire>,
    local: SocketAddr,
    pub(super) t1: Duration,
    pub(super) session: Limits,
    pub(super) dialogs: Dialogs,
    pub(super) entropy: Arc<dyn Entropy>,
    /// Places for refusals that wait for their ACKs: counted apart, so that forged INVITEs, which nobody acknowledges, don't keep
    /// real ones out.
    pub(super) refused: Arc<Semaphore>,
    /// Cancelled once no more calls are taken.
    draining: CancellationToken,
    /// Cancelled when the stack is dropped or told to stop.
    pub(super) stop: CancellationToken,
}

impl Shared {
    /// How long a transaction may wait for its counterpart (RFC 3261's 64·T1).
    pub(super) fn t1x64(&self) -> Duration {
        self.t1 * 64
    }

    /// A tag that nobody guesses (RFC 3261 section 19.3).
    pub(super) fn tag(&self) -> String {
        hex::encode(self.entropy.bytes::<8>())
    }

    /// Our Contact: where later requests of the call should come to, and over what.
    pub(super) fn contact(&self, address: IpAddr, transport: Transport) -> String {
        let at = SocketAddr::new(address, self.wire.port(transport));
        match transport {
            Transport::Udp => format!("<sip:voicepay@{at}>"),
            Transport::Tcp => format!("<sip:voicepay@{at};transport=tcp>"),
            Transport::Tls => format!("<sip:voicepay@{at};transport=tls>"),
        }
    }
}

/// Calls by what names their dialogs.
#[derive(Default)]
pub(super) struct Dialogs(Mutex<HashMap<DialogKey, mpsc::Sender<Happening>>>);

impl Dialogs {
    fn lock(&self) -> MutexGuard<'_, HashMap<DialogKey, mpsc::Sender<Happening>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, key: DialogKey, call: mpsc::Sender<Happening>) {
        self.lock().insert(key, call);
    }

    pub(super) fn remove(&self, key: &DialogKey) {
        self.lock().remove(key);
    }

    fn get(&self, key: &DialogKey) -> Option<mpsc::Sender<Happening>> {
        self.lock().get(key).cloned()
    }
}

impl Rsip {
    /// Starts the stack; it runs until it is dropped or `stop` is cancelled.
    pub async fn start(
        Sockets { gate, wire, listeners }: Sockets,
        options: StackOptions,
        stop: CancellationToken,
    ) -> Result<Self, StackError> {
        let transport = TransportLayer::new(stop.clone());
        let socket: Arc<dyn rsipstack::platform::net::UdpSocket> = Arc::new(gate);
        let local = socket.local_addr().map_err(failed)?;
        let external = options.public_address.map(|ip| SocketAddr::new(ip, local.port()));
        let udp = UdpConnection::from_socket(socket, external, Some(stop.clone())).await.map_err(failed)?;
        transport.add_transport(udp.into());
        let timers = EndpointOption {
            t1: options.t1,
            t2: options.t1 * 8,
            t4: options.t1 * 10,
            t1x64: options.t1 * 64,
            ..EndpointOption::default()
        };
        let endpoint = EndpointBuilder::new()
            .with_user_agent(&options.user_agent)
            .with_transport_layer(transport)
            .with_cancel_token(stop.clone())
            .with_option(timers)
            .with_transport_inspector(Box::new(Uptake(wire.clone())))
            .build();
        let incoming = endpoint.incoming_transactions().map_err(failed)?;
        let inner: EndpointInnerRef = endpoint.inner.clone();
        tokio::spawn(async move { endpoint.serve().await });
        wire.serve(listeners, &inner, stop.clone());
        let shared = Arc::new(Shared {
            endpoint: inner,
            wire,
            local,
            t1: options.t1,
            session: options.session,
            dialogs: Dialogs::default(),
            entropy: Arc::new(SystemEntropy),
            refused: Arc::new(Semaphore::new(REFUSED_LIMIT_TRANSACTIONS)),
            draining: options.draining,
            stop: stop.clone(),
        });
        let (sender, invitations) = mpsc::channel(INVITATION_QUEUE);
        tokio::spawn(route_all(incoming, shared.clone(), sender));
        Ok(Self { shared, invitations, _stops_the_endpoint: stop.drop_guard() })
    }
}

#[async_trait]
impl Signalling for Rsip {
    fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    async fn invitation(&mut self) -> Option<Invitation> {
        self.invitations.recv().await
    }

    fn caller(&self) -> Arc<dyn Caller> {
        Arc::new(Placer(self.shared.clone()))
    }
}

/// Places calls from the stack's socket.
struct Placer(Arc<Shared>);

#[async_trait]
impl Caller for Placer {
    fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    fn local_port(&self, transport: Transport) -> u16 {
        self.0.wire.port(transport)
    }

    async fn invite(&self, outgoing: Outgoing) -> Result<Box<dyn Call>, StackError> {
        let name = host_name(&outgoing.target);
        let reached = self.0.wire.reach(outgoing.transport, outgoing.destination, name).await;
        reached.map_err(|e| StackError(e.to_string()))?;
        Ok(Box::new(place(self.0.clone(), outgoing)?))
    }

    async fn request(&self, request: OutOfDialog) -> Result<Reply, RequestError> {
        rsip_request::ask(&self.0, request).await
    }

    fn held(&self) -> Held {
        let stats = self.0.endpoint.get_stats();
        let transactions =
            stats.running_transactions.saturating_add(stats.finished_transactions).saturating_add(stats.waiting_ack);
        Held { dialogs: self.0.dialogs.lock().len(), transactions }
    }
}

/// Hands every new transaction to where it belongs.
async fn route_all(mut incoming: TransactionReceiver, shared: Arc<Shared>, invitations: mpsc::Sender<Invitation>) {
    let places = Arc::new(Semaphore::new(INVITE_LIMIT_TRANSACTIONS));
    loop {
        let mut transaction = tokio::select! {
            () = shared.stop.cancelled() => return,
            next = incoming.recv() => match next {
                Some(t) => t,
                None => return,
            },
        };
        // Answers go to where the request came from (RFC 3581 section 4, whether or not it was asked for); rsipstack would read
        // the address out of the Via that it wrote itself, and can't where that is IPv6.
        transaction.destination = transaction.connection.as_ref().and_then(|c| c.get_remote_addr()).cloned();
        route(transaction, &shared, &invitations, &places);
    }
}

fn route(transaction: Transaction, shared: &Arc<Shared>, invitations: &mpsc::Sender<Invitation>, places: &Arc<Semaphore>) {
    let headers = headers_of(transaction.original.headers());
    let method = transaction.original.method;
    let our_tag = headers.get("To").and_then(tag_of);
    if let Some(tag) = our_tag {
        let key = (headers.get("Call-ID").unwrap_or_default().to_owned(), tag.to_owned());
        return match shared.dialogs.get(&key) {
            Some(call) => within(transaction, &call, shared, places),
            None => say_no(transaction, &Refusal::new(481), shared, places),
        };
    }
    match method {
        // A dispatcher in front asks whether calls may come here; within a dialog it is the dialog that is asked about.
        Method::Options if shared.draining.is_cancelled() => {
            say_no(transaction, &Refusal::new(503).with("Retry-After", DRAINING_RETRY_AFTER_S), shared, places);
        }
        Method::Options => match required(&headers) {
            Ok(()) => answer(transaction, 200, &abilities(), None),
            Err(refusal) => say_no(transaction, &refusal, shared, places),
        },
        Method::Invite => match first_invite(&transaction, &headers, shared) {
            Ok(()) => invited(transaction, headers, shared, invitations, places),
            Err(refusal) => say_no(transaction, &refusal, shared, places),
        },
        // RFC 3515 section 2.4.4: outside a dialog as within.
        Method::Refer => say_no(transaction, &Refusal::new(if has_one_target(&headers) { 603 } else { 400 }), shared, places),
        Method::Bye | Method::Update | Method::PRack | Method::Info | Method::Notify => {
            say_no(transaction, &Refusal::new(481), shared, places);
        }
        Method::Ack | Method::Cancel => {} // the endpoint keeps these to itself
        Method::Message | Method::Publish | Method::Register | Method::Subscribe => {
            say_no(transaction, &Refusal::new(405).with("Allow", ALLOWED_METHODS), shared, places);
        }
    }
}

/// To the call; one that doesn't keep up is not waited for.
fn within(transaction: Transaction, call: &mpsc::Sender<Happening>, shared: &Arc<Shared>, places: &Arc<Semaphore>) {
    match call.try_reserve() {
        Ok(place) => place.send(Happening::Request(Box::new(transaction))),
        Err(mpsc::error::TrySendError::Full(())) => {
            say_no(transaction, &Refusal::new(503).with("Retry-After", "1"), shared, places);
        }
        Err(mpsc::error::TrySendError::Closed(())) => say_no(transaction, &Refusal::new(481), shared, places),
    }
}

fn say_no(transaction: Transaction, refusal: &Refusal, shared: &Arc<Shared>, places: &Arc<Semaphore>) {
    if transaction.original.method != Method::Invite {
        return answer(transaction, refusal.status, &refusal.headers, None);
    }
    if let Some(place) = a_place(places) {
        refuse_invite(transaction, refusal, shared, place);
    }
}

fn a_place(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    let place = places.clone().try_acquire_owned().ok();
    if place.is_none() {
        tracing::warn!(limit = INVITE_LIMIT_TRANSACTIONS, "too many INVITEs at once: one was dropped");
    }
    place
}

/// What OPTIONS is answered.
fn abilities() -> Headers {
    Headers::new()
        .with("Allow", ALLOWED_METHODS)
        .with("Accept", ACCEPTED_BODY)
        .with("Accept-Encoding", "identity")
        .with("Accept-Language", "en")
        .with("Supported", SUPPORTED_EXTENSIONS)
}

/// What RFC 3261 section 8.2 wants looked at before anything else, in a request of any method that may change a session.
pub(super) fn screen(method: Method, headers: &Headers, body: &[u8], limits: Limits) -> Result<(), Refusal> {
    required(headers)?;
    if !matches!(method, Method::Invite | Method::Update | Method::PRack) {
        return Ok(());
    }
    let media_type = headers.get("Content-Type").map(|t| t.split(';').next().unwrap_or(t).trim().to_ascii_lowercase());
    let encoded = headers.tokens("Content-Encoding").any(|e| !e.eq_ignore_ascii_case("identity"));
    if !body.is_empty() && (media_type.as_deref() != Some(ACCEPTED_BODY) || encoded) {
        return Err(Refusal::new(415).with("Accept", ACCEPTED_BODY).with("Accept-Encoding", "identity"));
    }
    if method == Method::PRack {
        return Ok(());
    }
    if !accepts_descriptions(headers) {
        return Err(Refusal::new(406).warning(399, "the answer would be application/sdp"));
    }
    // RFC 4028 section 9.
    if let Err(TooSmall(least_s)) = session_timer::answer(limits, headers) {
        return Err(Refusal::new(422).with("Min-SE", least_s.to_string()));
    }
    Ok(())
}

/// Section 8.2.2.3.
fn required(headers: &Headers) -> Result<(), Refusal> {
    let known = |r: &str| UNDERSTOOD_EXTENSIONS.iter().any(|u| u.eq_ignore_ascii_case(r));
    let unknown: Vec<&str> = headers.tokens("Require").filter(|r| !known(r)).collect();
    if unknown.is_empty() { Ok(()) } else { Err(Refusal::new(420).with("Unsupported", unknown.join(", "))) }
}

/// Section 20.1: would the other side take a session description at all? Without the field, yes.
fn accepts_descriptions(headers: &Headers) -> bool {
    let mut ranges = headers.tokens("Accept").map(|a| a.split(';').next().unwrap_or(a).trim().to_ascii_lowercase());
    headers.get("Accept").is_none() || ranges.any(|r| [ACCEPTED_BODY, "application/*", "*/*"].contains(&r.as_str()))
}

/// What only the first INVITE of a call is looked at for.
fn first_invite(transaction: &Transaction, headers: &Headers, shared: &Shared) -> Result<(), Refusal> {
    screen(Method::Invite, headers, &transaction.original.body, shared.session)?;
    let uri = transaction.original.uri.to_string();
    let scheme = uri.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if !["sip", "sips", "tel"].contains(&scheme.as_str()) {
        return Err(Refusal::new(416));
    }
    // RFC 3891 section 3: 481 for a dialog that isn't ours; one that is goes on, since nobody takes a caller's place here.
    match Replaces::of(headers) {
        Some(Ok(replaces)) => {
            let ours = shared.dialogs.get(&(replaces.call_id, replaces.to_tag)).is_some();
            Err(Refusal::new(if ours { 603 } else { 481 }))
        }
        Some(Err(())) => Err(Refusal::new(400).warning(399, "the Replaces header can't be read")),
        None => Ok(()),
    }
}

fn invited(
    mut transaction: Transaction,
    headers: Headers,
    shared: &Arc<Shared>,
    invitations: &mpsc::Sender<Invitation>,
    places: &Arc<Semaphore>,
) {
    let Some(place) = a_place(places) else { return };
    let Ok(door) = invitations.clone().try_reserve_owned() else {
        return refuse_invite(transaction, &Refusal::new(503).with("Retry-After", "10"), shared, place);
    };
    let from = transaction.connection.as_ref().and_then(|c| c.get_remote_addr());
    let transport = transport_of(from.and_then(|a| a.r#type));
    let peer = from.and_then(|a| a.get_socketaddr().ok());
    let (Some(peer), Some(call_id)) = (peer, headers.get("Call-ID").map(str::to_owned)) else { return };
    let body = std::mem::take(&mut transaction.original.body);
    let invite = Invite {
        call_id,
        uri: transaction.original.uri.to_string(),
        peer,
        transport,
        headers,
        offer: (!body.is_empty()).then_some(body),
    };
    if let Some(invited) = Invited::new(transaction, &invite, shared.clone(), place) {
        door.send(Invitation { invite, call: Box::new(invited) });
    }
}
