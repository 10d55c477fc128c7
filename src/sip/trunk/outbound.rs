//! Calls over a trunk: its places are tried in order until one takes the call (RFC 3263 section 4.3).

use std::time::Duration;

use super::live::{RouteError, Trunks};
use crate::clock::{Clock, SystemClock};
use crate::sip::dial::{DialError, escape};
use crate::sip::headers::Headers;
use crate::sip::place::{CallOut, Dialler, Placed};

/// Whom to call, and as whom.
#[derive(Clone, Debug)]
pub struct TrunkCall {
    /// The trunk's name.
    pub trunk: String,
    /// The called number; no URI.
    pub number: String,
    /// The number that the called party sees.
    pub from: String,
    /// Adds P-Asserted-Identity with this number (RFC 3325): for trunks that believe us.
    pub asserted_identity: Option<String>,
    /// The called party shall not see the number.
    pub withheld: bool,
    /// How long it may ring, at each place that rings.
    pub ring_timeout: Duration,
    /// Hand over the leg at the first audio before the answer.
    pub early_media: bool,
    /// Added to the INVITE.
    pub headers: Headers,
}

/// Why a call over a trunk did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TrunkCallError {
    /// It has nowhere to go.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The last place that was tried.
    #[error(transparent)]
    Dial(#[from] DialError),
}

impl Trunks {
    /// Calls a number over a trunk, and waits as `Dialler::call` does. A place that can't be reached or says 503 is followed by
    /// the next, and comes last for a while; any other answer is the network's word, and is final.
    pub async fn call(&self, dialler: &Dialler, wanted: TrunkCall) -> Result<Placed, TrunkCallError> {
        let now = || SystemClock.now();
        let route = self.route(&wanted.trunk, now()).await?;
        let mut last = None;
        for place in &route.places {
            let out = CallOut {
                trunk: wanted.trunk.clone(),
                target: format!("sip:{}@{}", escape(&wanted.number), route.host),
                destination: place.address,
                transport: place.transport,
                from: wanted.from.clone(),
                from_host: route.domain.clone(),
                asserted_identity: wanted.asserted_identity.clone(),
                withheld: wanted.withheld,
                credentials: route.credentials.clone(),
                ring_timeout: wanted.ring_timeout,
                early_media: wanted.early_media,
                headers: wanted.headers.clone(),
                public_address: route.public_address,
                srtp: route.srtp,
            };
            match dialler.call(out).await {
                Ok(placed) => {
                    self.answered(place);
                    return Ok(placed);
                }
                Err(error @ (DialError::Failed(_) | DialError::Refused { status: 503, .. })) => {
                    tracing::warn!(trunk = %wanted.trunk, %place, %error, "a call did not go there");
                    self.failed(now(), place, None);
                    last = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(|| RouteError::Down(wanted.trunk).into(), TrunkCallError::Dial))
    }
}
