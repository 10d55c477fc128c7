//! Calls that the listening service places from its own socket: call-backs, and the other leg of a bridged transfer.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::conduct::{Agreement, Known, conduct_placed, own_address};
use super::dial::{DialError, escape};
use super::digest::Credentials;
use super::headers::Headers;
use super::identity::user_of_uri;
use super::sdp::{self, AudioPolicy, Direction, LocalAudio, Offered};
use super::signalling::{Call, CallEvent, Caller, Held, Outgoing, Over, StackError, Transport};
use crate::clock::{Entropy, SystemEntropy};
use crate::media::config::{MediaConfig, SrtpPolicy};
use crate::media::frame::SampleRate;
use crate::media::leg::{self, Attestation, CallName, CallerClaim, Leg, LegInfo};
use crate::media::rtp_session::{self, RtpPort, RtpSession, SessionSetup};

/// How long a call that was given up may take to end properly.
const GIVE_UP_MS: u64 = 5_000;

/// Whom to call, and on what terms.
#[derive(Clone)]
pub struct CallOut {
    /// The trunk's name, for records.
    pub trunk: String,
    /// `sip:USER@HOST`: Request-URI and To.
    pub target: String,
    /// Where the INVITE goes.
    pub destination: SocketAddr,
    /// What it goes over.
    pub transport: Transport,
    /// The user part of our From: the number that the called party sees.
    pub from: String,
    /// The host of our From; unset: our own address. Registrars want theirs here.
    pub from_host: Option<String>,
    /// Adds P-Asserted-Identity with this number (RFC 3325): for trunks that believe us.
    pub asserted_identity: Option<String>,
    /// `Privacy: id` and an anonymous From: the called party shall not see the number.
    pub withheld: bool,
    /// For a 401 or 407.
    pub credentials: Option<Credentials>,
    /// How long it may ring. Then it is cancelled.
    pub ring_timeout: Duration,
    /// Hand over the leg at the first audio before the answer; [`LegEvent::Answered`](crate::media::leg::LegEvent) follows.
    pub early_media: bool,
    /// Added to the INVITE.
    pub headers: Headers,
    /// The address that the other side is told (Contact, SDP). Unset: the one that leads there.
    pub public_address: Option<IpAddr>,
    /// `None`: whatever `media.srtp` says.
    pub srtp: Option<SrtpPolicy>,
}

impl CallOut {
    /// To `target` by this way, as `from`, with nothing beside what every call needs: under no trunk's name, password or policy.
    pub fn new(target: String, (destination, transport): (SocketAddr, Transport), from: String, ring_timeout: Duration) -> Self {
        Self {
            trunk: destination.ip().to_string(),
            target,
            destination,
            transport,
            from,
            from_host: None,
            asserted_identity: None,
            withheld: false,
            credentials: None,
            ring_timeout,
            early_media: false,
            headers: Headers::new(),
            public_address: None,
            srtp: None,
        }
    }
}

impl std::fmt::Debug for CallOut {
    /// No numbers.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallOut(over {:?} to {} by {})", self.trunk, self.destination, self.transport)
    }
}

/// A call that was placed.
#[derive(Debug)]
pub struct Placed {
    /// It ends the call when it hangs up or is dropped.
    pub leg: Leg,
    /// If not, what is heard is early media until [`LegEvent::Answered`](crate::media::leg::LegEvent), which may never come.
    pub answered: bool,
    known: Arc<Known>,
}

impl Placed {
    /// What names the call in an attended transfer. `None` before the answer.
    pub fn name(&self) -> Option<CallName> {
        self.known.name.get().cloned()
    }

    /// Why nobody answered, once early media have ended without an answer.
    pub fn unanswered(&self) -> Option<&DialError> {
        self.known.unanswered.get()
    }
}

/// Places calls for as long as the service listens; clones do the same.
#[derive(Clone)]
pub struct Dialler {
    caller: Arc<dyn Caller>,
    media: Arc<RwLock<MediaConfig>>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").field("from", &self.caller.local_addr()).finish_non_exhaustive()
    }
}

impl Dialler {
    /// Over a stack that runs.
    pub fn new(caller: Arc<dyn Caller>, media: MediaConfig, stop: CancellationToken) -> Self {
        Self { caller, media: Arc::new(RwLock::new(media)), stop }
    }

    /// Calls from now on, of all clones, have this; those that are up or ring go on with what they started with.
    pub fn reconfigure(&self, media: MediaConfig) {
        *self.media.write().unwrap_or_else(PoisonError::into_inner) = media;
    }

    /// What the stack below holds at this moment, of these calls and of those that came in.
    pub fn held(&self) -> Held {
        self.caller.held()
    }

    /// Calls, and waits for the answer or, if wanted, for early media. Dropping this future cancels the call.
    pub async fn call(&self, out: CallOut) -> Result<Placed, DialError> {
        let placing = self.place(out).await?;
        let (reply, replied) = oneshot::channel();
        tokio::spawn(placing.run(reply));
        replied.await.unwrap_or_else(|_| Err(DialError::Failed("the call's task is gone".to_owned())))
    }

    /// Sends the INVITE; [`Placing::run`] does the rest.
    pub(super) async fn place(&self, out: CallOut) -> Result<Placing, DialError> {
        let media = self.media.read().unwrap_or_else(PoisonError::into_inner).clone();
        let entropy: &dyn Entropy = &SystemEntropy;
        let bind = |e: std::io::Error| DialError::Bind(e.to_string());
        let socket = rtp_session::bind_port(&media, entropy).await.map_err(|e| DialError::Bind(e.to_string()))?;
        let known = media.advertised_address.or(out.public_address);
        let audio = LocalAudio {
            address: own_address(known, media.bind_address, out.destination).await.map_err(bind)?,
            port: socket.local_addr().map_err(bind)?.port(),
            session_id: u32::from_le_bytes(entropy.bytes()),
            version: 1,
        };
        let policy = AudioPolicy::new(&media, out.srtp, out.transport.is_secure());
        let offered = sdp::offer(&audio, Direction::SendRecv, &policy, None, entropy);
        let heard_at = self.caller.local_addr().ip();
        let contact = own_address(out.public_address, heard_at, out.destination).await.map_err(bind)?;
        let host = out.from_host.clone().unwrap_or_else(|| match contact {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        });
        let mut headers = out.headers.clone();
        if let Some(identity) = &out.asserted_identity {
            headers.push("P-Asserted-Identity", format!("<sip:{}@{host}>", escape(identity)));
        }
        if out.withheld {
            headers.push("Privacy", "id");
        }
        let call_id = format!("{}@{host}", hex::encode(entropy.bytes::<12>()));
        let outgoing = Outgoing {
            call_id: call_id.clone(),
            target: out.target.clone(),
            destination: out.destination,
            transport: out.transport,
            // RFC 3323 section 4.1.1.3.
            from: if out.withheld {
                "sip:anonymous@anonymous.invalid".to_owned()
            } else {
                format!("sip:{}@{host}", escape(&out.from))
            },
            contact,
            headers,
            offer: offered.text().to_owned(),
            credentials: out.credentials,
        };
        let peer = out.destination.ip().to_canonical().to_string();
        let info = LegInfo {
            protocol_id: call_id,
            caller: CallerClaim::Unverified(out.from),
            attestation: Attestation::Absent,
            called: user_of_uri(&out.target).unwrap_or_default(),
            peer,
            trunk: out.trunk,
            transport: out.transport.token(),
            secure: false,
            setup_ms: 0,
            // Until it is known.
            rate: SampleRate::HZ_8000,
            codec: "PCMU",
        };
        let call = self.caller.invite(outgoing).await.map_err(|e: StackError| DialError::Failed(e.0))?;
        Ok(Placing {
            call,
            socket,
            audio,
            policy,
            offered,
            info,
            media,
            stop: self.stop.clone(),
            ring_timeout: out.ring_timeout,
            early_media: out.early_media,
            known: Arc::default(),
        })
    }
}

/// A call on its way; a task of its own, so that it can still be given up when nobody waits any more.
pub(super) struct Placing {
    call: Box<dyn Call>,
    socket: RtpPort,
    audio: LocalAudio,
    policy: AudioPolicy,
    offered: Offered,
    info: LegInfo,
    media: MediaConfig,
    stop: CancellationToken,
    ring_timeout: Duration,
    early_media: bool,
    known: Arc<Known>,
}

impl Placing {
    pub(super) async fn run(mut self, mut reply: oneshot::Sender<Result<Placed, DialError>>) {
        let answer_by = Instant::now() + self.ring_timeout;
        let heard = tokio::select! {
            () = reply.closed() => Err(None),
            () = self.stop.cancelled() => Err(Some(DialError::Failed("the service stops".to_owned()))),
            () = tokio::time::sleep_until(answer_by) => Err(Some(DialError::NoAnswer(self.ring_timeout))),
            heard = first_description(&mut self.call, self.early_media) => heard.map_err(Some),
        };
        let agreed = heard.and_then(|(answered, body)| {
            let remote = sdp::parse(&body).and_then(|a| self.offered.agreed(&a)).map_err(|e| Some(e.into()))?;
            Ok((answered, remote))
        });
        let (answered, remote) = match agreed {
            Ok(agreed) => agreed,
            Err(error) => {
                if let Some(error) = error {
                    let _gone = reply.send(Err(error));
                }
                return give_up(&mut self.call).await;
            }
        };
        let agreement = Agreement { local: self.audio, remote, policy: self.policy };
        let codec = agreement.remote.media.codec;
        let (rate, secure) = (codec.rate(), agreement.is_secure());
        let (leg, far) = leg::pair(LegInfo { rate, secure, codec: codec.encoding_name(), ..self.info });
        let setup = SessionSetup {
            port: self.socket.into(),
            ssrc: None,
            remote: agreement.destination(),
            signalled: None,
            media: agreement.media(),
            far,
            stop: self.stop,
        };
        let session: RtpSession = rtp_session::start(&self.media, setup, &SystemEntropy);
        // If nobody waits any more, the leg is dropped, and that hangs up.
        let _gone = reply.send(Ok(Placed { leg, answered, known: self.known.clone() }));
        let answer_by = (!answered).then_some((answer_by, self.ring_timeout));
        conduct_placed(&mut self.call, session, agreement, answer_by, &self.known).await;
    }
}

/// CANCEL or BYE, and a little time for them to do their work.
async fn give_up(call: &mut Box<dyn Call>) {
    let goodbye = async {
        call.hang_up().await;
        while !matches!(call.next().await, CallEvent::Over(_)) {}
    };
    let _best_effort = tokio::time::timeout(Duration::from_millis(GIVE_UP_MS), goodbye).await;
}

/// The answer's description, or if wanted that of early media; and whether it was the answer.
async fn first_description(call: &mut Box<dyn Call>, early_media: bool) -> Result<(bool, Vec<u8>), DialError> {
    loop {
        match call.next().await {
            CallEvent::Progress { description: Some(body), .. } if early_media => return Ok((false, body)),
            CallEvent::Answered(body) => return Ok((true, body)),
            CallEvent::Progress { .. }
            | CallEvent::Acknowledged(_)
            | CallEvent::Reoffer { .. }
            | CallEvent::Settled(_)
            | CallEvent::Reoffered(_)
            | CallEvent::Keys(_)
            | CallEvent::Refer(_) => {}
            CallEvent::Over(over) => return Err(unanswered(over)),
        }
    }
}

/// What the end of a call that was never answered means.
pub(super) fn unanswered(over: Over) -> DialError {
    match over {
        Over::Refused { status, reason } => DialError::Refused { status, reason },
        Over::Failed(why) => DialError::Failed(why),
        Over::Bye | Over::Cancelled | Over::NotAcknowledged | Over::Ours | Over::Expired => {
            DialError::Failed("it ended before it was answered".to_owned())
        }
    }
}
