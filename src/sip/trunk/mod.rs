//! Trunks: who may send us calls and on what terms, where our own calls go, and whether those places are there.

pub mod ask; // REGISTER and OPTIONS as a trunk gets them
pub mod certificate; // what a server shows under TLS
pub mod config; // PURE: `[[sip.trunk]]`
pub mod door; // PURE: passwords of callers
pub mod keeper; // registrations and pings, a task each
pub mod live; // the trunks of a running service
pub mod outbound; // calls over a trunk
pub mod probe; // trying a trunk out
pub mod registrar; // PURE: keeping a registration
pub mod resolve; // from a target to places, by DNS
pub mod secrets; // passwords from files
pub mod status; // PURE: what is known of a trunk
pub mod target; // PURE: hosts and ports
pub mod terms; // PURE: whose call it is, and on what terms

pub use live::{Set, Trunks};
pub use status::TrunkStatus;

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod test_tls;
#[cfg(test)]
mod wire_tests;
