//! Calls to people, for callers whose telephone system transfers nobody: over the trunk that the caller came by where it leads somewhere,
//! else straight to the address that the URI names.

use std::time::Duration;

use async_trait::async_trait;

use crate::call::Switchboard;
use crate::media::leg::{Leg, LegInfo};
use crate::sip::dial::way;
use crate::sip::headers::Headers;
use crate::sip::identity::user_of_uri;
use crate::sip::trunk::Trunks;
use crate::sip::trunk::outbound::{TrunkCall, TrunkCallError};
use crate::sip::{CallOut, Dialler};

/// The service's own telephone.
#[derive(Debug)]
pub(super) struct OwnTelephone {
    pub(super) dialler: Dialler,
    pub(super) trunks: Trunks,
}

#[async_trait]
impl Switchboard for OwnTelephone {
    async fn call(&self, to: &str, info: &LegInfo, ring: Duration) -> Result<Leg, String> {
        let number = user_of_uri(to).ok_or_else(|| format!("`{to}` has no user part"))?;
        let wanted = TrunkCall {
            trunk: info.trunk.clone(),
            number,
            from: info.called.clone(),
            asserted_identity: None,
            withheld: false,
            ring_timeout: ring,
            early_media: false,
            headers: Headers::new(),
        };
        match self.trunks.call(&self.dialler, wanted).await {
            Ok(placed) => Ok(placed.leg),
            Err(TrunkCallError::Route(_)) => self.straight(to, info, ring).await,
            Err(error) => Err(error.to_string()),
        }
    }
}

impl OwnTelephone {
    async fn straight(&self, to: &str, info: &LegInfo, ring: Duration) -> Result<Leg, String> {
        let way = way(to).await.map_err(|e| format!("dialogue.person: {e}"))?;
        let out = CallOut { trunk: info.trunk.clone(), ..CallOut::new(to.to_owned(), way, info.called.clone(), ring) };
        self.dialler.call(out).await.map(|placed| placed.leg).map_err(|e| e.to_string())
    }
}
