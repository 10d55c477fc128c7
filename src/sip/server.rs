//! Taking calls: who may come in, what they are answered, and the leg that the rest of the house gets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SipError;
use super::admission::Reason;
use super::conduct::{Agreement, conduct, own_address, refusal};
use super::config::SipConfig;
use super::identity::user_of_uri;
use super::place::Dialler;
use super::rsip::{Rsip, StackOptions};
use super::sdp::{self, AudioPolicy, Direction, LocalAudio, Session};
use super::signalling::{Call, CallEvent, Caller, Invitation, Invite, Refusal, Signalling, StackError};
use super::stir::{StirError, Verifier};
use super::trunk::live::Admitted;
use super::trunk::{Set, Trunks, keeper};
use super::wire::{self, Wire};
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use crate::media::config::MediaConfig;
use crate::media::leg::{self, Attestation, CallerClaim, Leg, LegInfo};
use crate::media::rtp_session::{self, RtpPort, RtpSession, SessionSetup};
use crate::telemetry::metrics::metrics;

/// How long calls may take to say goodbye when the service stops.
const SHUTDOWN_GRACE_MS: u64 = 2_000;
/// Refused callers that whoever keeps records may fall behind by before it misses some.
const REFUSED_QUEUE_CALLS: usize = 256;

/// A caller who was refused.
#[derive(Clone)]
pub struct Refused {
    /// Call-ID.
    pub call_id: String,
    /// Who called.
    pub caller: CallerClaim,
    /// What was dialled.
    pub called: String,
    /// Where it came from.
    pub peer: SocketAddr,
    /// What carried it, as in Via.
    pub transport: &'static str,
    /// What it was answered.
    pub status: u16,
}

impl std::fmt::Debug for Refused {
    /// No numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Refused({} from {} with {})", self.call_id, self.peer, self.status)
    }
}

/// What calls are taken by; a call goes on with what it started with.
#[derive(Clone, Debug)]
struct Settings {
    sip: SipConfig,
    media: MediaConfig,
    stir: Option<Arc<Verifier>>,
}

impl Settings {
    /// With the files that the section on signed numbers names, read now.
    fn new(sip: SipConfig, media: MediaConfig) -> Result<Self, StirError> {
        let stir = Verifier::new(&sip.stir, Arc::new(SystemClock))?.map(Arc::new);
        Ok(Self { sip, media, stir })
    }
}

/// What a running listener tells.
#[derive(Debug)]
pub struct Listener {
    /// Where it hears, with the real port when the configured one was 0.
    pub local_addr: SocketAddr,
    closing: CancellationToken,
    settings: watch::Sender<Settings>,
    refused: broadcast::Sender<Refused>,
    trunks: Trunks,
    wire: Arc<Wire>,
    dialler: Dialler,
    served: tokio::task::JoinHandle<()>,
}

impl Listener {
    /// From now on callers get 503; calls that are up go on.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Calls from now on are taken by these; those that are up, or ring, go on with what they started with. Where we listen
    /// stays. Passwords, certificates, authorities and revoked certificates are read anew; one that can't be read leaves
    /// everything as it was.
    pub fn reconfigure(&self, sip: SipConfig, media: MediaConfig) -> Result<(), SipError> {
        let settings = Settings::new(sip.clone(), media.clone())?;
        let trunks = Set::load(sip.clone())?;
        self.wire.tls().reload(&sip.tls).map_err(wire::WireError::from)?;
        self.trunks.replace(trunks);
        self.dialler.reconfigure(media);
        self.settings.send_replace(settings);
        Ok(())
    }

    /// The sockets below the stack: what came in, what was turned away, connections.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Trunks: their state, their calls, what was refused and why.
    pub fn trunks(&self) -> &Trunks {
        &self.trunks
    }

    /// To place calls from the same socket. They end when the service stops.
    pub fn dialler(&self) -> Dialler {
        self.dialler.clone()
    }

    /// Callers who are refused, as it happens.
    pub fn refused(&self) -> broadcast::Receiver<Refused> {
        self.refused.subscribe()
    }

    /// Waits, after `shutdown` was cancelled, until every BYE was answered or given up.
    pub async fn ended(self) {
        if let Err(error) = self.served.await {
            tracing::error!(%error, "the signalling task failed");
        }
    }
}

/// Takes calls until `shutdown`, which also ends the calls that are up. Each accepted call arrives in `legs`; while that
/// is full, callers get 503.
pub async fn listen(
    config: SipConfig,
    media: MediaConfig,
    legs: mpsc::Sender<Leg>,
    shutdown: CancellationToken,
) -> Result<Listener, SipError> {
    let settings = Settings::new(config.clone(), media.clone())?;
    let trunks = Trunks::new(Set::load(config.clone())?, Arc::new(SystemEntropy));
    let sockets = wire::bind(&config.wire(), &SystemEntropy).await?;
    let wire = sockets.wire.clone();
    let closing = CancellationToken::new();
    let options = StackOptions {
        user_agent: config.user_agent.clone(),
        t1: config.t1(),
        public_address: config.public_address,
        session: config.session(),
        draining: closing.clone(),
    };
    // The stack outlives `shutdown` by the goodbyes.
    let stack = Rsip::start(sockets, options, CancellationToken::new()).await.map_err(|e| SipError::Stack(e.0))?;
    let local_addr = stack.local_addr();
    let dialler = Dialler::new(stack.caller(), media.clone(), shutdown.clone());
    let stir = settings.stir.clone();
    let (settings, changes) = watch::channel(settings);
    let refused = broadcast::channel(REFUSED_QUEUE_CALLS).0;
    let server = Arc::new(Server {
        trunks: trunks.clone(),
        config,
        media,
        stir,
        legs,
        shutdown,
        closing: closing.clone(),
        local_addr,
        entropy: Arc::new(SystemEntropy),
        refused: refused.clone(),
    });
    let served = tokio::spawn(serve(stack, server, changes));
    Ok(Listener { local_addr, closing, settings, refused, trunks, wire, dialler, served })
}

#[derive(Clone)]
struct Server {
    config: SipConfig,
    media: MediaConfig,
    stir: Option<Arc<Verifier>>,
    legs: mpsc::Sender<Leg>,
    shutdown: CancellationToken,
    closing: CancellationToken,
    local_addr: SocketAddr,
    trunks: Trunks,
    entropy: Arc<dyn Entropy>,
    refused: broadcast::Sender<Refused>,
}

async fn serve(mut stack: impl Signalling, mut server: Arc<Server>, mut changes: watch::Receiver<Settings>) {
    let mut calls = JoinSet::new();
    calls.spawn(keep_trunks(server.clone(), stack.caller()));
    loop {
        tokio::select! {
            () = server.shutdown.cancelled() => break,
            Some(_ended) = calls.join_next() => {}
            Ok(()) = changes.changed() => {
                let Settings { sip, media, stir } = changes.borrow_and_update().clone();
                server = Arc::new(Server { config: sip, media, stir, ..Server::clone(&server) });
            }
            invitation = stack.invitation() => match invitation {
                Some(invitation) => drop(calls.spawn(take(server.clone(), invitation))),
                None => break,
            }
        }
    }
    let goodbyes = async { while calls.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_millis(SHUTDOWN_GRACE_MS), goodbyes).await.is_err() {
        tracing::warn!("some calls were cut off without an answered BYE");
    }
}

/// Until no more calls are taken: then other nodes are to have them.
async fn keep_trunks(server: Arc<Server>, caller: Arc<dyn Caller>) {
    let stop = server.closing.child_token();
    let kept = keeper::run(server.trunks.clone(), caller, server.entropy.clone(), stop.clone());
    let told_to_stop = async {
        server.shutdown.cancelled().await;
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = kept => {}
        () = told_to_stop => {}
    }
}

async fn take(server: Arc<Server>, Invitation { invite, call }: Invitation) {
    let (call_id, begun) = (invite.call_id.clone(), Instant::now());
    // Whoever can't be taken anyway costs no certificate.
    let prepared = match server.prepare(&invite).await {
        Ok(prepared) => server.attested(prepared, &invite).await,
        Err(refusal) => Err(refusal),
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(refusal) => {
            tracing::info!(%call_id, peer = %invite.peer, status = refusal.status, "a call was refused");
            if refusal.status != 401 {
                server.tell_refused(&invite, refusal.status); // a caller who is asked for a password comes again
            }
            return call.refuse(refusal).await;
        }
    };
    match call.ring(prepared.contact).await {
        Ok(mut call) => {
            if let Err(error) = server.answer(&mut call, prepared, &invite, begun).await {
                tracing::warn!(%call_id, %error, "a call could not be answered");
            }
        }
        Err(error) => tracing::warn!(%call_id, %error, "a call could not be taken"),
    }
}

/// All that a call needs, before the caller is told anything but "trying".
struct Prepared {
    admitted: Admitted,
    door: OwnedPermit<Leg>,
    socket: RtpPort,
    local: LocalAudio,
    policy: AudioPolicy,
    contact: IpAddr,
    offer: Option<Session>,
    attestation: Attestation,
}

impl Server {
    /// With what the signature on the caller's number came to; refuses where the policy wants one that holds.
    async fn attested(&self, prepared: Prepared, invite: &Invite) -> Result<Prepared, Refusal> {
        let Some(verifier) = &self.stir else { return Ok(prepared) };
        let verdict = verifier.verdict(invite, prepared.admitted.trusted).await;
        match verifier.refusal(&verdict) {
            Some(refusal) => Err(self.trunks.refuse(Reason::Unsigned, refusal)),
            None => Ok(Prepared { attestation: verdict.attestation, ..prepared }),
        }
    }

    async fn prepare(&self, invite: &Invite) -> Result<Prepared, Refusal> {
        let busy = || Refusal::new(503).with("Retry-After", self.config.busy_retry_after_s.to_string());
        let no = |reason, refusal| self.trunks.refuse(reason, refusal);
        if self.closing.is_cancelled() {
            return Err(no(Reason::Draining, busy()));
        }
        let admitted = self.trunks.admit(invite, SystemClock.now()).map_err(|r| r.refusal)?;
        let door = self.legs.clone().try_reserve_owned().map_err(|_| no(Reason::Resources, busy()))?;
        let unusable = |e: sdp::SdpError| no(if e.is_transport() { Reason::NoSrtp } else { Reason::Offer }, refusal(&e));
        let offer = invite.offer.as_deref().map(sdp::parse).transpose().map_err(unusable)?;
        let policy = AudioPolicy::new(&self.media, admitted.srtp, invite.transport.is_secure());
        // What can't be answered is refused before it costs a port.
        offer.as_ref().map(|o| sdp::answerable(o, &policy)).transpose().map_err(unusable)?;
        let socket = rtp_session::bind_port(&self.media, self.entropy.as_ref()).await.map_err(|error| {
            tracing::warn!(%error, "a call was turned away");
            no(Reason::Resources, busy())
        })?;
        let failed = |error: std::io::Error| {
            tracing::warn!(%error, "no local address for a call");
            Refusal::new(500)
        };
        let port = socket.local_addr().map_err(failed)?.port();
        let local = LocalAudio {
            address: own_address(self.media.advertised_address.or(admitted.public_address), self.media.bind_address, invite.peer)
                .await
                .map_err(failed)?,
            port,
            session_id: u32::from_le_bytes(self.entropy.bytes()),
            version: 1,
        };
        let contact = own_address(admitted.public_address, self.local_addr.ip(), invite.peer).await.map_err(failed)?;
        Ok(Prepared { admitted, door, socket, local, policy, contact, offer, attestation: Attestation::Absent })
    }

    async fn answer(
        &self,
        call: &mut Box<dyn Call>,
        prepared: Prepared,
        invite: &Invite,
        begun: Instant,
    ) -> Result<(), StackError> {
        let Prepared { admitted, door, socket, local, policy, contact: _, offer, attestation } = prepared;
        if !self.let_it_ring(call).await {
            return Ok(());
        }
        let unanswerable = |e: sdp::SdpError| StackError(e.to_string());
        let agreement = match offer {
            Some(offer) => {
                let (text, remote) = sdp::answer(&offer, &local, &policy, None, self.entropy.as_ref()).map_err(unanswerable)?;
                call.accept(text).await?;
                Agreement { local, remote, policy }
            }
            // No offer: ours goes into the 200, their answer comes in the ACK (RFC 3261 section 13.2.1).
            None => {
                let offered = sdp::offer(&local, Direction::SendRecv, &policy, None, self.entropy.as_ref());
                call.accept(offered.text().to_owned()).await?;
                let answer = loop {
                    match call.next().await {
                        CallEvent::Acknowledged(body) => break body,
                        CallEvent::Over(_) => return Ok(()),
                        CallEvent::Progress { .. }
                        | CallEvent::Answered(_)
                        | CallEvent::Reoffer { .. }
                        | CallEvent::Settled(_)
                        | CallEvent::Reoffered(_)
                        | CallEvent::Keys(_)
                        | CallEvent::Refer(_) => {}
                    }
                };
                match sdp::parse(&answer).and_then(|a| offered.agreed(&a)) {
                    Ok(remote) => Agreement { local, remote, policy },
                    Err(error) => {
                        call.hang_up().await;
                        return Err(unanswerable(error));
                    }
                }
            }
        };
        let session = self.start((&agreement, attestation), socket, door, invite, &admitted, begun.elapsed());
        conduct(call, session, agreement).await;
        Ok(())
    }

    /// False: the caller gave up meanwhile, or we stop.
    async fn let_it_ring(&self, call: &mut Box<dyn Call>) -> bool {
        let answer_at = tokio::time::Instant::now() + Duration::from_millis(self.config.ring_ms);
        loop {
            tokio::select! {
                biased;
                event = call.next() => match event {
                    CallEvent::Over(_) => return false,
                    CallEvent::Progress { .. }
                    | CallEvent::Answered(_)
                    | CallEvent::Acknowledged(_)
                    | CallEvent::Reoffer { .. }
                    | CallEvent::Settled(_)
                    | CallEvent::Reoffered(_)
                    | CallEvent::Keys(_)
                    | CallEvent::Refer(_) => {}
                },
                () = self.shutdown.cancelled() => {
                    call.hang_up().await;
                    return false;
                }
                () = tokio::time::sleep_until(answer_at) => return true,
            }
        }
    }

    fn tell_refused(&self, invite: &Invite, status: u16) {
        metrics().calls_refused.inc([&status.to_string()]);
        let _nobody_keeps_records = self.refused.send(Refused {
            call_id: invite.call_id.clone(),
            caller: self.trunks.caller(invite),
            called: user_of_uri(&invite.uri).unwrap_or_default(),
            peer: invite.peer,
            transport: invite.transport.token(),
            status,
        });
    }

    fn start(
        &self,
        (agreement, attestation): (&Agreement, Attestation),
        socket: RtpPort,
        door: OwnedPermit<Leg>,
        invite: &Invite,
        admitted: &Admitted,
        setup: Duration,
    ) -> RtpSession {
        let codec = agreement.remote.media.codec;
        let peer = invite.peer.ip().to_canonical().to_string();
        metrics().call_setup.observe_time([], setup);
        let info = LegInfo {
            protocol_id: invite.call_id.clone(),
            caller: admitted.caller.clone(),
            attestation,
            called: user_of_uri(&invite.uri).unwrap_or_default(),
            trunk: if admitted.trunk.is_empty() { peer.clone() } else { admitted.trunk.clone() },
            peer,
            transport: invite.transport.token(),
            secure: agreement.is_secure(),
            setup_ms: u32::try_from(setup.as_millis()).unwrap_or(u32::MAX),
            rate: codec.rate(),
            codec: codec.encoding_name(),
        };
        let (leg, far) = leg::pair(info);
        let setup = SessionSetup {
            port: socket.into(),
            ssrc: None,
            remote: agreement.destination(),
            signalled: Some(invite.peer.ip()),
            media: agreement.media(),
            far,
            stop: self.shutdown.clone(),
        };
        let session = rtp_session::start(&self.media, setup, self.entropy.as_ref());
        door.send(leg);
        session
    }
}
