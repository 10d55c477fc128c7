//! Signalling: INVITE to BYE over UDP. `listen` turns callers into legs, `dial` makes a leg by calling somebody; both give
//! the media session its addresses and codecs, and carry hang-ups both ways.
//!
//! The stack below (rsipstack) stands behind the traits of `signalling`; only `rsip` and `gate` name it.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::media::config::MediaConfig;
use crate::media::leg::Leg;

pub mod config; // the section `[sip]`
pub mod dial; // calling somebody
pub mod headers; // header fields
pub mod identity; // PURE: who calls
pub mod sdp; // PURE: offer and answer

pub use config::SipConfig;
pub use dial::{DialError, DialOptions, dial};

/// What a running listener tells.
#[derive(Debug)]
pub struct Listener {
    /// Where it hears, with the real port when the configured one was 0.
    pub local_addr: SocketAddr,
}

/// Why no calls can be taken.
#[derive(Debug, thiserror::Error)]
pub enum SipError {
    /// Somebody else has the port, or the address isn't ours.
    #[error("cannot listen for SIP on UDP {address}: {source}; is another phone service running, or is `sip.listen` wrong?")]
    Bind {
        /// From the configuration.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The stack would not start.
    #[error("the SIP stack did not start: {0}")]
    Stack(String),
}

/// Takes calls until `shutdown`. Each accepted call arrives in `legs`; when that is full, callers get 503.
pub async fn listen(
    config: SipConfig,
    media: MediaConfig,
    legs: mpsc::Sender<Leg>,
    shutdown: CancellationToken,
) -> Result<Listener, SipError> {
    let _to_come = (media, legs, shutdown);
    Ok(Listener { local_addr: config.listen })
}
