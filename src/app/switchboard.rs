//! Calls to people, for callers whose telephone system transfers nobody: over the trunk that the caller came by where it leads somewhere,
//! else straight to the address that the URI names.

use std::time::Duration;

use async_trait::async_trait;

use crate::call::Switchboard;
use crate::media::leg::{Leg, LegInfo};
use crate::sip::headers::Headers;
use crate::sip::identity::user_of_uri;
use crate::sip::signalling::Transport;
use crate::sip::trunk::Trunks;
use crate::sip::trunk::outbound::{TrunkCall, TrunkCallError};
use crate::sip::{CallOut, Dialler};

/// Where SIP is heard unless the URI says otherwise.
const SIP_PORT: u16 = 5060;

/// The service's own telephone.
#[derive(Debug)]
pub(super) struct OwnTelephone {
    pub(super) dialler: Dialler,
    pub(super) trunks: Trunks,
    /// How long a person's telephone may ring.
    pub(super) ring: Duration,
}

#[async_trait]
impl Switchboard for OwnTelephone {
    async fn call(&self, to: &str, info: &LegInfo) -> Result<Leg, String> {
        let number = user_of_uri(to).ok_or_else(|| format!("`{to}` has no user part"))?;
        let wanted = TrunkCall {
            trunk: info.trunk.clone(),
            number,
            from: info.called.clone(),
            asserted_identity: None,
            withheld: false,
            ring_timeout: self.ring,
            early_media: false,
            headers: Headers::new(),
        };
        match self.trunks.call(&self.dialler, wanted).await {
            Ok(placed) => Ok(placed.leg),
            Err(TrunkCallError::Route(_)) => self.straight(to, info).await,
            Err(error) => Err(error.to_string()),
        }
    }
}

impl OwnTelephone {
    async fn straight(&self, to: &str, info: &LegInfo) -> Result<Leg, String> {
        let host = to.split(';').next().and_then(|uri| uri.split_once('@')).map_or("", |(_, host)| host);
        let named = host.rsplit_once(':').is_some_and(|(h, port)| !h.ends_with(':') && port.parse::<u16>().is_ok());
        let place = if named { host.to_owned() } else { format!("{host}:{SIP_PORT}") };
        let mut found = tokio::net::lookup_host(&place).await.map_err(|e| format!("`{place}` of dialogue.person: {e}"))?;
        let destination = found.next().ok_or_else(|| format!("`{place}` of dialogue.person has no address"))?;
        let out = CallOut {
            trunk: info.trunk.clone(),
            target: to.to_owned(),
            destination,
            transport: Transport::Udp,
            from: info.called.clone(),
            from_host: None,
            asserted_identity: None,
            withheld: false,
            credentials: None,
            ring_timeout: self.ring,
            early_media: false,
            headers: Headers::new(),
            public_address: None,
            srtp: None,
        };
        self.dialler.call(out).await.map(|placed| placed.leg).map_err(|e| e.to_string())
    }
}
