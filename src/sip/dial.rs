//! Calling somebody: our softphone's side of the signalling.

use std::net::SocketAddr;
use std::time::Duration;

use super::headers::Headers;
use crate::media::config::MediaConfig;
use crate::media::leg::Leg;

/// Whom to call, as whom, from where.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// `sip:user@host[:port]`.
    pub target: String,
    /// The user part of our From: a telephone number, or `anonymous`.
    pub from: String,
    /// Where our SIP socket is bound; port 0 takes any. Unset: the local address that leads to the target.
    pub local: Option<SocketAddr>,
    /// Header fields to add to the INVITE.
    pub headers: Headers,
    /// Adds `P-Asserted-Identity: <sip:…@…>` with this user part, as a trusted trunk would.
    pub asserted_identity: Option<String>,
    /// How long the other side may take to answer.
    pub timeout: Duration,
    /// RTP ports, jitter buffer.
    pub media: MediaConfig,
}

impl DialOptions {
    /// To `target`, as `from`, with everything else at its default.
    pub fn new(target: impl Into<String>, from: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            from: from.into(),
            local: None,
            headers: Headers::new(),
            asserted_identity: None,
            timeout: Duration::from_secs(30),
            media: MediaConfig { port_min: 42_000, port_max: 42_999, ..MediaConfig::default() },
        }
    }
}

/// Why a call did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The target is no SIP URI that we can reach.
    #[error("`{given}` can't be dialled: {problem}; write sip:USER@HOST or sip:USER@HOST:PORT")]
    Target {
        /// As given.
        given: String,
        /// What is wrong.
        problem: String,
    },
    /// The other side said no.
    #[error("the call was refused: {status} {reason}")]
    Refused {
        /// The final status, 300 to 699.
        status: u16,
        /// Its phrase, with the Warning's text if there was one.
        reason: String,
    },
    /// Nobody answered in time.
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The answer's session description is of no use.
    #[error("the other side's answer can't be used: {0}")]
    Answer(#[from] super::sdp::SdpError),
    /// No socket.
    #[error("cannot bind a socket for the call: {0}")]
    Bind(String),
    /// The stack failed.
    #[error("the call failed: {0}")]
    Failed(String),
}

/// Calls and waits for the answer. The leg ends the call when it hangs up or is dropped. Dropping this future gives the
/// call up (CANCEL).
pub async fn dial(options: DialOptions) -> Result<Leg, DialError> {
    Err(DialError::Failed(format!("dialling {} is not built yet", options.target)))
}
