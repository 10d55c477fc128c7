//! `signalling` on rsipstack 0.7.14: its endpoint, its transactions, its dialogs. What it leaves out is done here: Allow on
//! 405, 420, 415, 481, 500 for stale CSeq numbers, and an end to everything that it would keep for ever.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rsipstack::EndpointBuilder;
use rsipstack::dialog::dialog::Dialog;
use rsipstack::dialog::dialog_layer::DialogLayer;
use rsipstack::dialog::invitation::InviteOption;
use rsipstack::dialog::invite_dialog::InviteDialog;
use rsipstack::sip::prelude::{HasHeaders, HeadersExt};
use rsipstack::sip::{Header, Method, Request, StatusCode, Uri};
use rsipstack::transaction::TransactionReceiver;
use rsipstack::transaction::endpoint::{EndpointInnerRef, EndpointOption};
use rsipstack::transaction::transaction::Transaction;
use rsipstack::transport::udp::UdpConnection;
use rsipstack::transport::{SipAddr, TransportLayer};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::headers::Headers;
use super::rsip_call::RsipCall;
use super::signalling::{
    ACCEPTED_BODY, ALLOWED_METHODS, Call, Invitation, Invite, InvitedCall, Outgoing, Refusal, Signalling, StackError, Transport,
};
use super::wire::{Gate, Uptake, Wire};

/// Callers who wait to be looked at. One more is answered 503 at once.
const INVITATION_QUEUE: usize = 64;
/// Transactions under way at once; what comes on top is dropped, and comes again if it matters.
const TRANSACTION_LIMIT: usize = 1_024;
/// What the 503 to OPTIONS says while no more calls are taken, in seconds: a restart takes less.
const DRAINING_RETRY_AFTER_S: &str = "30";
/// How long a request for a dialog that is just being confirmed waits before it is called unknown.
const CONFIRMING_WAIT_MS: u64 = 100;

/// How the stack behaves.
#[derive(Clone, Debug)]
pub struct StackOptions {
    /// User-Agent.
    pub user_agent: String,
    /// RFC 3261's T1.
    pub t1: Duration,
    /// The address that peers are told, if not the socket's own.
    pub public_address: Option<IpAddr>,
    /// Cancelled once no more calls are taken: who asks by OPTIONS is told to go elsewhere.
    pub draining: CancellationToken,
}

/// rsipstack on one UDP socket.
pub struct Rsip {
    local: SocketAddr,
    shared: Arc<Shared>,
    invitations: mpsc::Receiver<Invitation>,
    _stops_the_endpoint: DropGuard,
}

/// What every call of the stack needs.
pub(super) struct Shared {
    pub(super) layer: Arc<DialogLayer>,
    local: SocketAddr,
    /// 64 × T1: how long a transaction may wait for its counterpart.
    pub(super) t1x64: Duration,
    /// Cancelled once no more calls are taken.
    draining: CancellationToken,
    /// Cancelled when the stack is dropped or told to stop.
    pub(super) stop: CancellationToken,
}

impl Rsip {
    /// Starts the stack; it runs until it is dropped or `stop` is cancelled.
    pub async fn start(
        (gate, wire): (Gate, Arc<Wire>),
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
            .with_transport_inspector(Box::new(Uptake(wire)))
            .build();
        let incoming = endpoint.incoming_transactions().map_err(failed)?;
        let inner: EndpointInnerRef = endpoint.inner.clone();
        tokio::spawn(async move { endpoint.serve().await });
        let layer = Arc::new(DialogLayer::new(inner));
        let shared = Arc::new(Shared { layer, local, t1x64: options.t1 * 64, draining: options.draining, stop: stop.clone() });
        let (sender, invitations) = mpsc::channel(INVITATION_QUEUE);
        tokio::spawn(route_all(incoming, shared.clone(), sender));
        Ok(Self { local, shared, invitations, _stops_the_endpoint: stop.drop_guard() })
    }
}

#[async_trait]
impl Signalling for Rsip {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    async fn invitation(&mut self) -> Option<Invitation> {
        self.invitations.recv().await
    }

    async fn invite(&mut self, outgoing: Outgoing) -> Result<Box<dyn Call>, StackError> {
        let contact = contact_uri(outgoing.contact, self.local.port());
        let option = InviteOption {
            caller: uri(&outgoing.from)?,
            callee: uri(&outgoing.target)?,
            destination: Some(SipAddr::from(outgoing.destination)),
            content_type: Some(ACCEPTED_BODY.to_owned()),
            offer: Some(outgoing.offer.into_bytes()),
            call_id: Some(outgoing.call_id),
            contact,
            headers: Some(other_headers(&outgoing.headers).chain([Header::Allow(ALLOWED_METHODS.into())]).collect()),
            ..InviteOption::default()
        };
        let (states_sender, states) = self.shared.layer.new_dialog_state_channel();
        let (dialog, invite) = self.shared.layer.do_invite_async(option, states_sender).map_err(failed)?;
        Ok(Box::new(RsipCall::ours(dialog, states, self.shared.clone(), invite)))
    }
}

/// Hands every new transaction to where it belongs.
async fn route_all(mut incoming: TransactionReceiver, shared: Arc<Shared>, invitations: mpsc::Sender<Invitation>) {
    let places = Arc::new(Semaphore::new(TRANSACTION_LIMIT));
    loop {
        let transaction = tokio::select! {
            () = shared.stop.cancelled() => return,
            next = incoming.recv() => match next {
                Some(t) => t,
                None => return,
            },
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(limit = TRANSACTION_LIMIT, "too many SIP transactions at once: one was dropped");
            continue;
        };
        let (shared, invitations) = (shared.clone(), invitations.clone());
        tokio::spawn(async move {
            let _place = place;
            let limit = shared.t1x64 * 2;
            // A server transaction that nobody answers would stay in rsipstack's tables for ever.
            let _over_time = tokio::time::timeout(limit, route(transaction, shared, invitations)).await;
        });
    }
}

async fn route(mut transaction: Transaction, shared: Arc<Shared>, invitations: mpsc::Sender<Invitation>) {
    let in_dialog = matches!(transaction.original.to_header().map(|t| t.tag()), Ok(Ok(Some(_))));
    let method = transaction.original.method;
    let answered = match (method, in_dialog) {
        // A dispatcher in front asks whether calls may come here; within a dialog it is the dialog that is asked about.
        (Method::Options, false) if shared.draining.is_cancelled() => {
            refuse(&mut transaction, Refusal::new(503).with("Retry-After", DRAINING_RETRY_AFTER_S)).await
        }
        (Method::Options, false) => match required(&headers_of(&transaction.original)) {
            Ok(()) => options(&mut transaction).await,
            Err(refusal) => refuse(&mut transaction, refusal).await,
        },
        (Method::Invite, false) => match screen(&transaction.original) {
            Ok(()) => return invite(transaction, shared, invitations).await,
            Err(refusal) => refuse(&mut transaction, refusal).await,
        },
        (_, true) => match find_dialog(&transaction, &shared).await {
            Some(dialog) => return within_dialog(transaction, dialog, &shared).await,
            None => transaction.reply(StatusCode::CallTransactionDoesNotExist).await,
        },
        (Method::Bye, false) => transaction.reply(StatusCode::CallTransactionDoesNotExist).await,
        (Method::Ack | Method::Cancel, false) => Ok(()), // the endpoint keeps these to itself
        (_, false) => refuse(&mut transaction, Refusal::new(405).with("Allow", ALLOWED_METHODS)).await,
    };
    finish(&mut transaction, answered).await;
}

/// Sees a final answer through: retransmissions of it, and the ACK to a refused INVITE.
async fn finish(transaction: &mut Transaction, answered: rsipstack::Result<()>) {
    match answered {
        Ok(()) => while transaction.receive().await.is_some() {},
        Err(error) => tracing::debug!(%error, "a request could not be answered"),
    }
}

async fn options(transaction: &mut Transaction) -> rsipstack::Result<()> {
    let headers = vec![
        Header::Allow(ALLOWED_METHODS.into()),
        Header::Accept(ACCEPTED_BODY.into()),
        Header::AcceptEncoding("identity".into()),
        Header::AcceptLanguage("en".into()),
    ];
    transaction.reply_with(StatusCode::OK, headers, None).await
}

async fn refuse(transaction: &mut Transaction, refusal: Refusal) -> rsipstack::Result<()> {
    let headers = other_headers(&refusal.headers).collect();
    transaction.reply_with(StatusCode::from(refusal.status), headers, None).await
}

/// What RFC 3261 section 8.2 wants looked at before anything else.
fn screen(request: &Request) -> Result<(), Refusal> {
    let headers = headers_of(request);
    required(&headers)?;
    let media_type = headers.get("Content-Type").map(|t| t.split(';').next().unwrap_or(t).trim().to_ascii_lowercase());
    let encoded = headers.tokens("Content-Encoding").any(|e| !e.eq_ignore_ascii_case("identity"));
    if !request.body.is_empty() && (media_type.as_deref() != Some(ACCEPTED_BODY) || encoded) {
        return Err(Refusal::new(415).with("Accept", ACCEPTED_BODY).with("Accept-Encoding", "identity"));
    }
    if !accepts_descriptions(&headers) {
        return Err(Refusal::new(406).warning(399, "the answer would be application/sdp"));
    }
    // rsipstack's dialog can't be made without one, and RFC 3261 section 8.1.1.8 wants it.
    if !matches!(request.typed_contact_headers().map(|c| c.is_empty()), Ok(false)) {
        return Err(Refusal::new(400).warning(399, "an INVITE needs a Contact"));
    }
    Ok(())
}

/// Section 8.2.2.3: we support no extension that anybody could require.
fn required(headers: &Headers) -> Result<(), Refusal> {
    let required: Vec<&str> = headers.tokens("Require").collect();
    if required.is_empty() { Ok(()) } else { Err(Refusal::new(420).with("Unsupported", required.join(", "))) }
}

/// Section 20.1: would the caller take a session description at all? Without the field, yes.
fn accepts_descriptions(headers: &Headers) -> bool {
    let mut ranges = headers.tokens("Accept").map(|a| a.split(';').next().unwrap_or(a).trim().to_ascii_lowercase());
    headers.get("Accept").is_none() || ranges.any(|r| [ACCEPTED_BODY, "application/*", "*/*"].contains(&r.as_str()))
}

async fn invite(mut transaction: Transaction, shared: Arc<Shared>, invitations: mpsc::Sender<Invitation>) {
    // At once, so that the caller stops repeating itself whatever the rest of the house is doing.
    if transaction.send_trying().await.is_err() {
        return;
    }
    let request = &transaction.original;
    let peer = transaction.connection.as_ref().and_then(|c| c.get_remote_addr()).and_then(|a| a.get_socketaddr().ok());
    let (Some(peer), Ok(call_id)) = (peer, request.call_id_header().map(|c| c.value().to_owned())) else { return };
    let invite = Invite {
        call_id,
        uri: request.uri.to_string(),
        peer,
        transport: Transport::Udp,
        local: shared.local,
        headers: headers_of(request),
        offer: (!request.body.is_empty()).then(|| request.body.clone()),
    };
    let (decision, decided) = oneshot::channel();
    let call = Box::new(RsipInvited { decision, shared: shared.clone() });
    if let Err(full) = invitations.try_send(Invitation { invite, call }) {
        drop(full);
        let answered = refuse(&mut transaction, Refusal::new(503).with("Retry-After", "10")).await;
        return finish(&mut transaction, answered).await;
    }
    decide(transaction, decided).await;
}

enum Decision {
    Refuse(Refusal),
    /// rsipstack's dialog then owns the transaction; its task runs beside the call.
    Ring(IpAddr, oneshot::Sender<Result<RsipCall, StackError>>, Arc<Shared>),
}

async fn decide(mut transaction: Transaction, decided: oneshot::Receiver<Decision>) {
    let answered = match decided.await {
        Ok(Decision::Refuse(refusal)) => refuse(&mut transaction, refusal).await,
        Ok(Decision::Ring(contact, reply, shared)) => {
            match ring(transaction, contact, shared) {
                Ok(call) => drop(reply.send(Ok(call))),
                Err(error) => drop(reply.send(Err(error))),
            }
            return;
        }
        Err(_nobody_decided) => refuse(&mut transaction, Refusal::new(500)).await,
    };
    finish(&mut transaction, answered).await;
}

fn ring(mut transaction: Transaction, contact: IpAddr, shared: Arc<Shared>) -> Result<RsipCall, StackError> {
    let (states_sender, states) = shared.layer.new_dialog_state_channel();
    let contact = contact_uri(contact, shared.local.port());
    let mut dialog =
        shared.layer.get_or_create_server_invite(&transaction, states_sender, None, Some(contact)).map_err(failed)?;
    let call_dialog = dialog.clone();
    let driver = tokio::spawn(async move {
        if let Err(error) = dialog.handle(&mut transaction).await {
            tracing::debug!(%error, "an INVITE transaction ended badly");
        }
        // Retransmitted INVITEs and ACKs are rsipstack's to absorb; a refused one still waits for its ACK here.
        while transaction.receive().await.is_some() {}
    });
    call_dialog.ringing(None, None).map_err(failed)?;
    Ok(RsipCall::theirs(call_dialog, states, shared, driver))
}

struct RsipInvited {
    decision: oneshot::Sender<Decision>,
    shared: Arc<Shared>,
}

#[async_trait]
impl InvitedCall for RsipInvited {
    async fn refuse(self: Box<Self>, refusal: Refusal) {
        let _gone = self.decision.send(Decision::Refuse(refusal));
    }

    async fn ring(self: Box<Self>, contact: IpAddr) -> Result<Box<dyn Call>, StackError> {
        let (reply, call) = oneshot::channel();
        let gone = || StackError("the caller's transaction is gone".to_owned());
        self.decision.send(Decision::Ring(contact, reply, self.shared)).map_err(|_| gone())?;
        Ok(Box::new(call.await.map_err(|_| gone())??))
    }
}

async fn find_dialog(transaction: &Transaction, shared: &Shared) -> Option<InviteDialog> {
    for attempt in 0..2 {
        if attempt > 0 {
            // do_invite_async enters a dialog under its full name only after the 2xx: a BYE on its heels may come first.
            let call_id = transaction.original.call_id_header().ok()?.value().to_owned();
            shared.layer.get_client_dialog_by_call_id(&call_id).first()?;
            tokio::time::sleep(Duration::from_millis(CONFIRMING_WAIT_MS)).await;
        }
        if let Some(Dialog::Invite(dialog)) = shared.layer.match_dialog(transaction) {
            return Some(dialog);
        }
    }
    None
}

async fn within_dialog(mut transaction: Transaction, mut dialog: InviteDialog, shared: &Shared) {
    let stale = transaction.original.cseq_header().and_then(|c| c.seq()).is_ok_and(|seq| seq < dialog.snapshot().remote_cseq);
    let answered = match transaction.original.method {
        // RFC 3261 section 12.2.2; rsipstack would say nothing at all.
        _ if stale => refuse(&mut transaction, Refusal::new(500).warning(399, "CSeq is lower than the last one")).await,
        Method::Options => options(&mut transaction).await,
        Method::Invite => match screen(&transaction.original) {
            Ok(()) => return drive(transaction, dialog).await,
            Err(refusal) => refuse(&mut transaction, refusal).await,
        },
        Method::Bye => {
            let id = dialog.id();
            let handled = dialog.handle(&mut transaction).await;
            shared.layer.remove_dialog(&id);
            handled
        }
        Method::Ack | Method::Cancel => return,
        // The gate lets no other method through.
        _ => refuse(&mut transaction, Refusal::new(405).with("Allow", ALLOWED_METHODS)).await,
    };
    finish(&mut transaction, answered).await;
}

async fn drive(mut transaction: Transaction, mut dialog: InviteDialog) {
    let handled = dialog.handle(&mut transaction).await;
    finish(&mut transaction, handled).await;
}

fn headers_of(request: &Request) -> Headers {
    let mut headers = Headers::new();
    for h in request.headers().iter() {
        headers.push(h.name(), h.value());
    }
    headers
}

pub(super) fn other_headers(headers: &Headers) -> impl Iterator<Item = Header> {
    headers.iter().map(|(n, v)| Header::Other(n.to_owned(), v.to_owned()))
}

fn contact_uri(address: IpAddr, port: u16) -> Uri {
    let mut uri: Uri = SipAddr::from(SocketAddr::new(address, port)).into();
    uri.auth = Some(rsipstack::sip::Auth { user: "voicepay".to_owned(), password: None });
    // A transport parameter is only needed where it isn't UDP.
    uri.params.retain(|p| !matches!(p, rsipstack::sip::Param::Transport(_)));
    uri
}

fn uri(text: &str) -> Result<Uri, StackError> {
    Uri::try_from(text).map_err(|e| StackError(e.to_string()))
}

pub(super) fn failed(error: rsipstack::Error) -> StackError {
    StackError(error.to_string())
}
