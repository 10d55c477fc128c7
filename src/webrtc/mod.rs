//! Calls from a browser's page: an SDP offer is answered (WHIP, RFC 9725), ICE and DTLS-SRTP are the `webrtc` crate's, and what comes out
//! is a [`Leg`](crate::media::leg::Leg) like any telephone's: the same jitter buffer, concealment, keys (RFC 4733), pacing and reports, by
//! a media session whose packets come through queues instead of sockets.
//!
//! ```text
//! offer → offer::check → connection (peer connection, answer) → line: Connecting ─up→ Up ⇄ Lost → Over
//!            400, 422        503 where no port is free                 │         hold  └ too long, closed
//!                                                                      └ not in time → no leg, nothing was said
//! ```
//!
//! **Going** is noticed by the DTLS alert of a page that closes, by [`Hand::leave`] (the page's DELETE), or by silence: after `lost_ms`
//! the call is on hold (nobody is asked anything, nothing is charged), and after `reconnect_wait_ms` more it is over. A page that has
//! changed its network restarts ICE ([`Hand::restart`]) and goes on where it was.

pub mod config; // the section `[webrtc]`
pub mod fragment; // PURE: trickled candidates
pub mod offer; // PURE: what an offer must have, what the answer settled

mod connection; // a peer connection and its answer
mod line; // between the connection and the media session
mod reports; // RTCP to and from our own session

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ::webrtc::peer_connection::{PeerConnection, RTCIceCandidateInit, RTCSessionDescription};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Entropy;
use crate::media::config::MediaConfig;
use crate::media::leg::{Attestation, CallerClaim, Leg, LegInfo};

pub use config::WebrtcConfig;
pub use line::LineState;

use connection::Connection;
use fragment::Fragment;
use offer::OfferFault;

/// Why an offer is not answered.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AnswerError {
    /// It can't be.
    #[error(transparent)]
    Offer(#[from] OfferFault),
    /// All places are taken, or no port is free.
    #[error("{0}")]
    Busy(String),
    /// The connection could not be built.
    #[error("the connection could not be made: {0}")]
    Failed(String),
}

/// Why candidates were not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FragmentError {
    /// It is no fragment.
    #[error("the fragment {0}")]
    Malformed(String),
    /// It is of another generation of ICE than the one in force.
    #[error("the fragment's ice-ufrag is not the one in force: restart ICE, or send the candidates of the current generation")]
    Stale,
    /// The call is over.
    #[error("the call is over")]
    Gone,
}

/// An offer that was answered.
#[derive(Debug)]
pub struct Answered {
    /// The SDP answer, all our candidates in it.
    pub answer: String,
    /// The call's leg, once audio can flow. An error: the page never came, and it is over.
    pub leg: oneshot::Receiver<Leg>,
    /// How the line is.
    pub state: watch::Receiver<LineState>,
    /// What the page can still do.
    pub hand: Arc<Hand>,
}

/// Answers offers.
#[derive(Clone)]
pub struct Endpoint {
    config: Arc<WebrtcConfig>,
    media: Arc<MediaConfig>,
    entropy: Arc<dyn Entropy>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({} places free)", self.places.available_permits())
    }
}

/// Who calls.
#[derive(Clone, Debug)]
pub struct Page {
    /// The app session's name, for traces.
    pub session: String,
    /// Of the page.
    pub origin: String,
}

impl Endpoint {
    /// Nothing is bound yet: each call has its own port. Calls end when `stop` is cancelled.
    pub fn new(config: WebrtcConfig, media: &MediaConfig, entropy: Arc<dyn Entropy>, stop: CancellationToken) -> Self {
        // What silence means differs from the telephone's: a browser sends packets all the time, and is waited for when it stops.
        let media = MediaConfig {
            media_timeout_ms: config.lost_ms.saturating_add(config.reconnect_wait_ms),
            hold_timeout_ms: config.reconnect_wait_ms,
            ..media.clone()
        };
        let places = Arc::new(Semaphore::new(config.max_calls));
        Self { config: Arc::new(config), media: Arc::new(media), entropy, places, stop }
    }

    /// Whether an offer could be answered. Builds nothing.
    pub fn check(&self, offer: &str) -> Result<(), OfferFault> {
        offer::check(offer)
    }

    /// STUN and TURN servers as a page's `RTCPeerConnection` takes them.
    pub fn ice_servers(&self) -> serde_json::Value {
        let servers = self.config.ice_servers.iter().map(|server| {
            let mut told = serde_json::Map::from_iter([("urls".to_owned(), serde_json::json!(server.urls))]);
            if !server.username.is_empty() {
                told.insert("username".to_owned(), server.username.clone().into());
                told.insert("credential".to_owned(), server.credential.clone().into());
            }
            serde_json::Value::Object(told)
        });
        servers.collect()
    }

    /// Answers an offer. The leg comes when the page is connected.
    pub async fn answer(&self, offer: &str, page: &Page) -> Result<Answered, AnswerError> {
        let begun = tokio::time::Instant::now();
        offer::check(offer)?;
        let busy = || AnswerError::Busy("all places for browser calls are taken".into());
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy())?;
        let offer = offer::reachable(offer);
        let connection = Connection::answer(&self.config, self.entropy.as_ref(), &offer).await?;
        let (leg_tx, leg) = oneshot::channel();
        let (state_tx, state) = watch::channel(LineState::Connecting);
        let left = CancellationToken::new();
        let answer = connection.answer.clone();
        let generation = Generation { offer, number: 1 };
        let etag = std::sync::Mutex::new(generation.etag(&answer));
        let hand = Arc::new(Hand {
            connection: Arc::clone(&connection.peer),
            generation: Mutex::new(generation),
            etag,
            public: Arc::clone(&self.config),
            left: left.clone(),
        });
        let info = LegInfo {
            protocol_id: page.session.clone(),
            caller: CallerClaim::Withheld,
            attestation: Attestation::Absent,
            called: "app".into(),
            peer: page.origin.clone(),
            trunk: "webrtc".into(),
            transport: "DTLS",
            secure: true,
            setup_ms: 0, // when it is connected
            rate: connection.media.codec.rate(),
            codec: connection.media.codec.encoding_name(),
        };
        let line = line::Line {
            connection,
            info,
            begun,
            connect_wait: Duration::from_millis(self.config.connect_wait_ms.into()),
            lost: Duration::from_millis(self.config.lost_ms.into()),
            media: Arc::clone(&self.media),
            entropy: Arc::clone(&self.entropy),
            leg: leg_tx,
            state: state_tx,
            left,
            stop: self.stop.clone(),
        };
        tokio::spawn(kept(place, line.live()));
        Ok(Answered { answer, leg, state, hand })
    }
}

/// A call's place is free again when it is over, however it ended.
async fn kept(place: OwnedSemaphorePermit, line: impl Future<Output = ()>) {
    line.await;
    drop(place);
}

/// One generation of ICE.
struct Generation {
    offer: String,
    number: u32,
}

impl Generation {
    fn etag(&self, answer: &str) -> String {
        format!("\"{}-{}\"", self.number, ufrag_of(answer))
    }
}

fn ufrag_of(sdp: &str) -> String {
    offer::first(sdp, "a=ice-ufrag:").unwrap_or_default().to_owned()
}

/// What a page can do with its call beside speaking.
pub struct Hand {
    connection: Arc<dyn PeerConnection>,
    generation: Mutex<Generation>,
    etag: std::sync::Mutex<String>,
    public: Arc<WebrtcConfig>,
    left: CancellationToken,
}

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hand")
    }
}

impl Hand {
    /// Names the generation of ICE (RFC 9725 section 4.3.1).
    pub fn etag(&self) -> String {
        self.etag.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// More of the page's candidates.
    pub async fn candidates(&self, text: &str) -> Result<(), FragmentError> {
        let fragment = Fragment::read(text).map_err(FragmentError::Malformed)?;
        let generation = self.generation.lock().await;
        if let Some((ufrag, _)) = &fragment.credentials
            && *ufrag != ufrag_of(&generation.offer)
        {
            return Err(FragmentError::Stale);
        }
        self.add(fragment.candidates).await
    }

    async fn add(&self, candidates: Vec<String>) -> Result<(), FragmentError> {
        for candidate in candidates {
            let init = RTCIceCandidateInit { candidate, sdp_mline_index: Some(0), ..RTCIceCandidateInit::default() };
            self.connection.add_ice_candidate(init).await.map_err(|_| FragmentError::Gone)?;
        }
        Ok(())
    }

    /// The page begins ICE anew (another network): our fragment, and the new generation's name.
    pub async fn restart(&self, text: &str) -> Result<(String, String), FragmentError> {
        let fragment = Fragment::read(text).map_err(FragmentError::Malformed)?;
        let Some((ufrag, pwd)) = &fragment.credentials else {
            return Err(FragmentError::Malformed("has no a=ice-ufrag and a=ice-pwd: a restart needs new ones".into()));
        };
        let mut generation = self.generation.lock().await;
        let offer = offer::restarted(&generation.offer, ufrag, pwd);
        let malformed = |e: ::webrtc::error::Error| FragmentError::Malformed(format!("could not be applied: {e}"));
        let described = RTCSessionDescription::offer(offer.clone()).map_err(malformed)?;
        self.connection.set_remote_description(described).await.map_err(malformed)?;
        let answer = self.connection.create_answer(None).await.map_err(malformed)?;
        self.connection.set_local_description(answer.clone()).await.map_err(malformed)?;
        let local = self.connection.local_description().await.unwrap_or(answer);
        self.add(fragment.candidates).await?;
        let answer = connection::published(&local.sdp, &self.public.public_addresses);
        *generation = Generation { offer, number: generation.number.saturating_add(1) };
        let etag = generation.etag(&answer);
        self.etag.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&etag);
        Ok((Fragment::of(&answer), etag))
    }

    /// The page's person has left: the call is over as if they had hung up.
    pub fn leave(&self) {
        self.left.cancel();
    }
}

#[cfg(test)]
mod tests;
