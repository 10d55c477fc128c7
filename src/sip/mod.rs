//! Signalling: INVITE to BYE over UDP, TCP and TLS. `listen` turns callers into legs, `dial` makes a leg by calling somebody;
//! both give the media session its addresses and codecs, and carry hang-ups both ways.
//!
//! The stack below (rsipstack) stands behind the traits of `signalling`; only `rsip*` and `wire` name it.

pub mod admission; // PURE: is there room for one more call?
pub mod config; // the section `[sip]`
pub mod dial; // calling somebody
pub mod dialog; // PURE: tags, numbers, routes of a call
pub mod digest; // PURE: passwords asked for and answered
pub mod headers; // header fields
pub mod identity; // PURE: who calls
pub mod info; // PURE: keys in INFO
pub mod offering; // PURE: whose offer is on the table
pub mod place; // calls that the service places
pub mod refer; // PURE: transfers
pub mod reliable; // PURE: provisional responses that must arrive
pub mod sdp; // PURE: offer and answer
pub mod server; // taking calls
pub mod session_timer; // PURE: is the other side still there?
pub mod signalling; // what we need of a SIP stack
pub mod stir; // is the caller's number signed, and does that hold?
pub mod trunk; // who sends us calls, and whom we send them to
pub mod wire; // sockets, screening and bounds below the stack

mod conduct; // a call between its answer and its end
mod rsip; // the stack
mod rsip_call; // the house's hand on a call
mod rsip_request; // what belongs to no call
mod rsip_task; // a call on it

pub use config::SipConfig;
pub use dial::{DialError, DialOptions, Unanswered, dial};
pub use place::{CallOut, Dialler, Placed};
pub use server::{Listener, Refused, listen};
pub use trunk::Trunks;
pub use wire::tls::TlsConfig;

/// Why no calls can be taken.
#[derive(Debug, thiserror::Error)]
pub enum SipError {
    /// A socket can't be had, or TLS can't be done.
    #[error(transparent)]
    Wire(#[from] wire::WireError),
    /// A trunk can't be used as it is configured.
    #[error(transparent)]
    Trunk(#[from] trunk::config::TrunkConfigError),
    /// Signed numbers can't be verified.
    #[error(transparent)]
    Stir(#[from] stir::StirError),
    /// The stack would not start.
    #[error("the SIP stack did not start: {0}")]
    Stack(String),
}

#[cfg(test)]
mod bounds_tests; // what a peer can make us hold, and that nothing is left
#[cfg(test)]
mod calling_tests; // calls that the service places
#[cfg(test)]
mod dialog_tests; // what carriers expect of a call that is up
#[cfg(test)]
mod loop_tests;
#[cfg(test)]
mod wire_tests; // hand-written SIP from a plain socket // our dialler against our listener
