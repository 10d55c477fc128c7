//! Messages between our own types and rsipstack's, and the tasks that see transactions through. `Transaction::receive` must
//! not be dropped half-way, so each transaction has a task of its own that tells the call what happens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::headers::make_header;
use rsipstack::sip::prelude::{HasHeaders, HeadersExt};
use rsipstack::sip::{Header, Host, Method, Request, Response, SipMessage, StatusCode, Uri, Version};
use rsipstack::transaction::endpoint::EndpointInnerRef;
use rsipstack::transaction::key::{TransactionKey, TransactionRole};
use rsipstack::transaction::transaction::{Transaction, TransactionEvent, TransactionEventSender};
use rsipstack::transport::{SipAddr, SipConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::sip::headers::Headers;
use crate::sip::signalling::{Refusal, StackError, Transport};
use crate::sip::wire::{Wire, stack_transport, transport_of};

/// How long writing one answer may take: a peer that doesn't read its connection is not waited for.
const ANSWER_WRITE_MS: u64 = 5_000;
/// Refusals that may wait for their ACKs, or to be forgotten by the stack.
pub(in crate::sip) const REFUSED_LIMIT_TRANSACTIONS: usize = 8_192;
/// With no more room than this, 1,024 of them wait already.
const REFUSED_CROWD: usize = REFUSED_LIMIT_TRANSACTIONS - 1_024;
/// How long a refusal is looked after when too many wait for their ACKs: long enough to be sent, and once more.
const UNWATCHED_REFUSAL_MS: u64 = 1_000;

/// What a call's task hears of its transactions. Small: a channel has room for 32 of them from its first day on.
pub(in crate::sip) enum Happening {
    /// A request within the dialog.
    Request(Box<Transaction>),
    /// An INVITE of theirs, by its CSeq number: ACK, CANCEL, or its transaction is over.
    Theirs(u32, Told),
    /// A response to our INVITE, by its CSeq number.
    Invited(u32, Box<Heard>),
    /// The connection that our INVITE went out on.
    Connected(Box<SipConnection>),
    /// The final response to another request of ours, with what it was for.
    Answered(Box<super::Errand>, Box<Heard>),
}

/// See [`Happening::Theirs`].
pub(in crate::sip) enum Told {
    /// With its body.
    Ack(Vec<u8>),
    Cancel,
    /// No ACK came, or it is long past.
    Over,
}

/// A response.
pub(in crate::sip) struct Heard {
    pub(in crate::sip) status: u16,
    pub(in crate::sip) headers: Headers,
    pub(in crate::sip) body: Vec<u8>,
    /// Reason phrase, with the Warning's text if there is one.
    pub(in crate::sip) reason: String,
}

impl Heard {
    fn of(response: Response) -> Self {
        let headers = headers_of(response.headers());
        let phrase = response.status_code.text().to_owned();
        let warning = headers.get("Warning").and_then(|w| w.split('"').nth(1)).map(|w| format!("{phrase} ({w})"));
        Self { status: response.status_code.code(), reason: warning.unwrap_or(phrase), headers, body: response.body }
    }

    /// The request could not even be sent.
    fn unsent() -> Self {
        Self { status: 503, headers: Headers::new(), body: Vec::new(), reason: "it could not be sent".to_owned() }
    }

    /// As a refusal, for who asked.
    pub(in crate::sip) fn into_refusal(self) -> Refusal {
        Refusal { status: self.status, headers: self.headers }
    }
}

/// Ours.
pub(in crate::sip) fn headers_of(theirs: &rsipstack::sip::Headers) -> Headers {
    let mut headers = Headers::new();
    for h in theirs.iter() {
        headers.push(h.name(), h.value());
    }
    headers
}

/// Theirs.
pub(in crate::sip) fn to_stack(headers: &Headers) -> Vec<Header> {
    headers.iter().map(|(n, v)| make_header(n, v.to_owned())).collect()
}

/// A request that can be answered later, and more than once.
pub(super) struct Answering {
    request: Request,
    respond: TransactionEventSender,
    endpoint: EndpointInnerRef,
    pub(super) cseq: u32,
    /// Told that the call is taken. Gone without a word: it was refused.
    taken: Option<oneshot::Sender<()>>,
}

impl Answering {
    /// Of a transaction that [`drive`] is about to take. `tag` goes onto To unless it has one.
    pub(super) fn new(transaction: &Transaction, tag: &str) -> Option<Self> {
        let mut request = transaction.original.clone();
        let to = request.to_header().ok()?.clone();
        if to.tag().ok().flatten().is_none() {
            request.headers.unique_push(to.with_tag(tag.to_owned().into()).into());
        }
        let cseq = request.cseq_header().and_then(|c| c.seq()).ok()?;
        request.body = Vec::new();
        let (respond, endpoint) = (transaction.tu_sender.clone(), transaction.endpoint_inner.clone());
        Some(Self { request, respond, endpoint, cseq, taken: None })
    }

    /// Gives its place up once it is dropped: see [`drive`].
    pub(super) fn holding(&mut self, place: OwnedSemaphorePermit, refused: &Arc<Semaphore>) -> Standing {
        let (taken, decided) = oneshot::channel();
        self.taken = Some(taken);
        Standing { place, decided, refused: refused.clone() }
    }

    /// The last answer was a 200: its ACK must be waited for.
    pub(super) fn take(&mut self) {
        if let Some(taken) = self.taken.take() {
            let _nobody_counts = taken.send(());
        }
    }

    /// Sends a response; retransmission is the transaction's.
    pub(super) fn send(&self, status: u16, headers: &Headers, body: Option<Vec<u8>>) {
        let mut response = self.endpoint.make_response(&self.request, StatusCode::from(status), body);
        response.headers.extend(to_stack(headers));
        let _transaction_is_gone = self.respond.send(TransactionEvent::Respond(response));
    }

    /// 100.
    pub(super) fn trying(&self) {
        self.send(100, &Headers::new(), None);
    }

    /// Says no.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        self.send(refusal.status, &refusal.headers, None);
    }

    pub(super) fn headers(&self) -> Headers {
        headers_of(self.request.headers())
    }
}

/// What a caller who is not decided on takes up.
pub(super) struct Standing {
    place: OwnedSemaphorePermit,
    decided: oneshot::Receiver<()>,
    refused: Arc<Semaphore>,
}

impl Standing {
    /// Returns when its transaction need not be waited for any longer. Whoever is refused no longer stands in the way of others:
    /// a forged source never acknowledges. While few wait for their ACKs a refusal is repeated until it comes; in a crowd it is
    /// sent, and gives back the place that it has among the refused when the stack has forgotten it.
    async fn over(self) -> Option<OwnedSemaphorePermit> {
        let Self { place, decided, refused } = self;
        if decided.await.is_ok() {
            drop(place);
            return std::future::pending().await; // the admission of calls bounds these
        }
        let crowded = refused.available_permits() <= REFUSED_CROWD;
        let Ok(waits) = refused.try_acquire_owned() else {
            // No room among the refused either: its place is what it keeps.
            let _place = place;
            return std::future::pending().await;
        };
        drop(place);
        if !crowded {
            let _waits = waits;
            return std::future::pending().await;
        }
        tokio::time::sleep(Duration::from_millis(UNWATCHED_REFUSAL_MS)).await;
        Some(waits)
    }
}

/// Sees an INVITE transaction of theirs through.
pub(super) fn drive(
    mut transaction: Transaction,
    cseq: u32,
    tell: mpsc::Sender<Happening>,
    stop: CancellationToken,
    standing: Option<Standing>,
) {
    let forgotten_after = transaction.endpoint_inner.option.t1x64;
    tokio::spawn(async move {
        let over = async {
            match standing {
                Some(standing) => standing.over().await,
                None => std::future::pending().await,
            }
        };
        let through = async {
            while let Some(message) = transaction.receive().await {
                let told = match message {
                    SipMessage::Request(r) if r.method == Method::Ack => Told::Ack(r.body),
                    SipMessage::Request(r) if r.method == Method::Cancel => Told::Cancel,
                    SipMessage::Request(_) | SipMessage::Response(_) => continue,
                };
                let _call_is_gone = tell.send(Happening::Theirs(cseq, told)).await;
            }
            let _call_is_gone = tell.send(Happening::Theirs(cseq, Told::Over)).await;
        };
        let waits = tokio::select! {
            () = stop.cancelled() => None,
            waits = over => waits,
            () = through => None,
        };
        drop(transaction);
        if let Some(_waits) = waits {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(forgotten_after) => {}
            }
        }
    });
}

/// Answers a request other than INVITE, once.
pub(in crate::sip) fn answer(mut transaction: Transaction, status: u16, headers: &Headers, body: Option<Vec<u8>>) {
    let headers = to_stack(headers);
    tokio::spawn(async move {
        let answered = transaction.reply_with(StatusCode::from(status), headers, body);
        match tokio::time::timeout(Duration::from_millis(ANSWER_WRITE_MS), answered).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a request could not be answered"),
            Err(_slow) => tracing::debug!("a peer does not read its answers"),
        }
    });
}

/// What a message came over.
pub(in crate::sip) fn came_over(transaction: &Transaction) -> Transport {
    transport_of(transaction.connection.as_ref().and_then(SipConnection::get_remote_addr).and_then(|a| a.r#type))
}

/// Where requests of a call go.
#[derive(Clone)]
pub(super) struct Flow {
    /// The connection that the call came over or went out on, if it is one.
    pub(super) connection: Option<SipConnection>,
    /// Where its packets come from.
    pub(super) peer: SocketAddr,
    pub(super) transport: Transport,
    /// The name that `peer` has shown a certificate for, if it has one.
    pub(super) name: Option<String>,
}

impl Flow {
    /// The open connection, if requests may go over it: a Route or another target doesn't matter to the proxy that holds its
    /// other end (RFC 5923).
    fn open(&self) -> Option<SipConnection> {
        let connection = self.connection.as_ref().filter(|c| c.is_reliable())?;
        connection.cancel_token().is_none_or(|t| !t.is_cancelled()).then(|| connection.clone())
    }

    /// The address behind `next_hop`. A private address that the packets don't come from lies behind a NAT, which only lets in
    /// what comes from where it has sent to.
    fn destination(&self, next_hop: &str, routed: bool) -> Result<SipAddr, StackError> {
        let uri = uri(next_hop)?;
        let mut address = SipAddr::try_from(&uri).map_err(failed)?;
        if let Ok(SocketAddr::V4(told)) = address.get_socketaddr()
            && !routed
            && told.ip().is_private()
            && IpAddr::V4(*told.ip()) != self.peer.ip().to_canonical()
        {
            address.addr = self.peer.into();
        }
        // What began under TLS stays there whatever a Contact says: our offers hold keys.
        if self.transport.is_secure() || (address.r#type.is_none() && self.transport != Transport::Udp) {
            address.r#type = Some(stack_transport(self.transport));
        }
        Ok(address)
    }
}

/// Sees to a request's connection where the call's own is gone or it goes elsewhere: one of ours, with its limits, its screening
/// and our trust in certificates. The stack would open one of its own.
pub(super) struct Opener {
    wire: Arc<Wire>,
    peer: SocketAddr,
    name: Option<String>,
}

impl Opener {
    pub(super) fn new(wire: &Arc<Wire>, flow: &Flow) -> Self {
        Self { wire: wire.clone(), peer: flow.peer, name: flow.name.clone() }
    }

    async fn open_for(&self, transaction: &mut Transaction) -> Result<(), StackError> {
        let wanted = match (&transaction.connection, &transaction.destination) {
            (None, Some(wanted)) => wanted.clone(),
            (Some(_), _) | (None, None) => return Ok(()),
        };
        let transport = transport_of(wanted.r#type);
        if transport == Transport::Udp {
            return Ok(());
        }
        let port = wanted.addr.port.map_or(if transport.is_secure() { 5_061 } else { 5_060 }, |p| p.value());
        let (address, name) = match &wanted.addr.host {
            Host::IpAddr(ip) => (SocketAddr::new(*ip, port), None),
            Host::Domain(host) => {
                let host = host.to_string();
                let mut found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|e| StackError(e.to_string()))?;
                let first = found.next().ok_or_else(|| StackError("its host has no address".to_owned()))?;
                drop(found);
                (first, Some(host))
            }
        };
        let name = if address == self.peer { self.name.clone().or(name) } else { name };
        self.wire.reach(transport, address, name.as_deref()).await.map_err(|e| StackError(e.to_string()))?;
        transaction.destination = Some(SipAddr::new(stack_transport(transport), address.into()));
        Ok(())
    }
}

/// A request that is ready to go.
pub(super) struct Outbound {
    pub(super) method: Method,
    pub(super) uri: String,
    pub(super) next_hop: String,
    /// Known already, whatever `next_hop` says: where our first INVITE goes.
    pub(super) destination: Option<SocketAddr>,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
    /// The branch of the INVITE that a CANCEL is for; otherwise it gets its own.
    pub(super) via: Option<String>,
}

impl Outbound {
    /// Makes its transaction. Gives the Via, for a CANCEL.
    pub(super) fn transaction(self, endpoint: &EndpointInnerRef, flow: &Flow) -> Result<(Transaction, String), StackError> {
        let routed = self.headers.get("Route").is_some();
        let connection = flow.open();
        let destination = match (&connection, self.destination) {
            (Some(_), _) => None,
            (None, Some(known)) => Some(SipAddr::new(stack_transport(flow.transport), known.into())),
            (None, None) => Some(flow.destination(&self.next_hop, routed)?),
        };
        let via = match self.via {
            Some(via) => via,
            None => {
                let over = stack_transport(flow.transport);
                // Listeners only: a connection's address is the peer's.
                let listeners = endpoint.transport_layer.get_listen_addrs();
                let own = listeners.iter().find(|a| a.r#type == Some(over)).or(listeners.first()).cloned();
                let own = own.map(|a| SipAddr { r#type: Some(over), ..a });
                endpoint.get_via(own, None).map_err(failed)?.to_string()
            }
        };
        let mut headers = vec![make_header("Via", via.clone())];
        headers.extend(to_stack(&self.headers));
        headers.push(Header::UserAgent(endpoint.user_agent.clone().into()));
        let request =
            Request { method: self.method, uri: uri(&self.uri)?, version: Version::V2, headers: headers.into(), body: self.body };
        let key = TransactionKey::from_request(&request, TransactionRole::Client).map_err(failed)?;
        let mut transaction = Transaction::new_client(key, request, endpoint.clone(), connection);
        transaction.destination = destination;
        Ok((transaction, via))
    }
}

/// Sends our INVITE and tells of every response to it, for as long as more may come (forks, repeated 200s).
pub(super) fn drive_invite(
    mut transaction: Transaction,
    opener: Opener,
    cseq: u32,
    tell: mpsc::Sender<Happening>,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        let through = async {
            let sent = match opener.open_for(&mut transaction).await {
                Ok(()) => transaction.send().await.map_err(failed),
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "an INVITE could not be sent");
                let _call_is_gone = tell.send(Happening::Invited(cseq, Box::new(Heard::unsent()))).await;
                return;
            }
            if let Some(connection) = transaction.connection.clone().filter(SipConnection::is_reliable) {
                let _call_is_gone = tell.send(Happening::Connected(Box::new(connection))).await;
            }
            while let Some(message) = transaction.receive().await {
                if let SipMessage::Response(response) = message {
                    let _call_is_gone = tell.send(Happening::Invited(cseq, Box::new(Heard::of(response)))).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = through => {}
        }
    });
}

/// Sends another request and tells its final response.
pub(super) fn drive_errand(
    transaction: Result<Transaction, StackError>,
    opener: Opener,
    errand: super::Errand,
    tell: mpsc::Sender<Happening>,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        let answered = async {
            let Ok(mut transaction) = transaction else { return Heard::unsent() };
            if opener.open_for(&mut transaction).await.is_err() || transaction.send().await.is_err() {
                return Heard::unsent();
            }
            let mut last = None;
            while let Some(message) = transaction.receive().await {
                match message {
                    SipMessage::Response(r) if r.status_code.code() >= 200 => {
                        last = Some(Heard::of(r));
                        break;
                    }
                    SipMessage::Response(_) | SipMessage::Request(_) => {}
                }
            }
            last.unwrap_or_else(Heard::unsent)
        };
        tokio::select! {
            () = stop.cancelled() => {}
            heard = answered => {
                let _call_is_gone = tell.send(Happening::Answered(Box::new(errand), Box::new(heard))).await;
            }
        }
    });
}

pub(super) fn uri(text: &str) -> Result<Uri, StackError> {
    Uri::try_from(text).map_err(|e| StackError(e.to_string()))
}

pub(in crate::sip) fn failed(error: rsipstack::Error) -> StackError {
    StackError(error.to_string())
}
