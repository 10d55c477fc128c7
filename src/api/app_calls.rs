//! Who answers a page's offer. The API speaks HTTP with the page; WebRTC, and the call behind it, are `app`'s.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::call::page::PageReader;
use crate::ids::CallId;
use crate::payment::AppSession;

/// Answers offers.
#[async_trait]
pub trait AppCalls: Send + Sync {
    /// Answers the SDP offer and begins the call. Called once the session's token was used up.
    async fn open(&self, session: &AppSession, offer: &str, origin: &str) -> Result<OpenedCall, OfferRefused>;

    /// Checks an offer before the token is used up: cheap, and without effect, so that a bad offer burns no token.
    fn check(&self, offer: &str) -> Result<(), OfferRefused>;

    /// STUN and TURN servers for the page, as `RTCConfiguration.iceServers` has them.
    fn ice_servers(&self) -> Value;
}

/// A call that began.
pub struct OpenedCall {
    /// The SDP answer.
    pub answer: String,
    /// The tag of its ICE session (RFC 9725 §4.3.1).
    pub etag: String,
    /// Its name.
    pub call: CallId,
    /// What holds it.
    pub hand: Arc<dyn AppCallHand>,
}

impl std::fmt::Debug for OpenedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedCall").field("call", &self.call).finish_non_exhaustive()
    }
}

/// Holds a call that is up.
#[async_trait]
pub trait AppCallHand: Send + Sync {
    /// Candidates of the page (RFC 8840).
    async fn candidates(&self, fragment: &str) -> Result<(), OfferRefused>;

    /// A restart of ICE: our new fragment, and the new tag.
    async fn restart(&self, fragment: &str) -> Result<(String, String), OfferRefused>;

    /// The tag that candidates go by now.
    fn etag(&self) -> String;

    /// The user left.
    fn leave(&self);

    /// What the page sees.
    fn page(&self) -> PageReader;
}

/// Why something was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferRefused {
    /// The offer is no session description, or none that a call can be made of.
    #[error("{0}")]
    Sdp(String),
    /// Nothing in it that we speak.
    #[error("{0}")]
    NoCommonCodec(String),
    /// The fragment can't be read.
    #[error("{0}")]
    Fragment(String),
    /// It is of an ICE session that was restarted meanwhile.
    #[error("this is of another ICE session")]
    Stale,
    /// As many calls as can be are up.
    #[error("too many calls are up")]
    Busy,
    /// The service stops.
    #[error("the service is about to stop")]
    Closing,
    /// The call is over.
    #[error("the call is over")]
    Gone,
    /// Ours.
    #[error("{0}")]
    Trouble(String),
}
