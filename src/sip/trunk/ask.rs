//! REGISTER and OPTIONS as a trunk gets them: whose From, which Contact, which Via.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::config::TrunkConfig;
use super::registrar::Register;
use super::resolve::Place;
use super::status::SeenAs;
use super::target::{Host, Target};
use crate::clock::Entropy;
use crate::sip::conduct;
use crate::sip::config::SipConfig;
use crate::sip::headers::Headers;
use crate::sip::signalling::{Caller, OutOfDialog, Reply, RequestError, Transport};

/// Sends a trunk's requests. One Call-ID and one tag for all its REGISTERs (RFC 3261 section 10.2).
#[derive(Clone)]
pub struct Asker {
    caller: Arc<dyn Caller>,
    entropy: Arc<dyn Entropy>,
    public_address: Option<IpAddr>,
    /// `user` and `domain`.
    record: Option<(String, String)>,
    /// What OPTIONS is sent to, where it isn't a place's own address.
    target: Option<String>,
    call_id: String,
    tag: String,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Asker {
    /// For this trunk.
    pub fn new(caller: Arc<dyn Caller>, sip: &SipConfig, trunk: &TrunkConfig, entropy: Arc<dyn Entropy>) -> Self {
        let name = |text: &str| Target::parse(text).ok().filter(|t| matches!(t.host, Host::Name(_))).map(|t| t.host_text());
        Self {
            public_address: trunk.public_address.or(sip.public_address),
            record: trunk.address_of_record().map(|(user, domain)| (user.to_owned(), domain)),
            target: trunk.target.as_deref().and_then(name),
            call_id: hex::encode(entropy.bytes::<12>()),
            tag: hex::encode(entropy.bytes::<6>()),
            caller,
            entropy,
        }
    }

    /// Sends a REGISTER. Also gives the Contact's URI without parameters, to be found again in the answer.
    pub async fn register(&self, register: &Register, wait: Duration) -> (Result<Reply, RequestError>, String) {
        let place = &register.place;
        let Some((user, _)) = &self.record else { return (Err(RequestError::Unwritable), String::new()) };
        let own = match self.own_address(place).await {
            Ok(own) => own,
            Err(error) => return (Err(error), String::new()),
        };
        let uri = format!("sip:{user}@{own}");
        let mut headers = Headers::new().with("Expires", register.expires_s.to_string());
        if let Some((name, value)) = &register.authorization {
            headers.push(*name, value.clone());
        }
        let contact = format!("{uri}{}", transport_parameter(place.transport));
        (self.send_register((place, own), register.cseq, Some(contact), headers, wait).await, uri)
    }

    /// Asks a registrar which registrations there are (RFC 3261 section 10.2.3): a REGISTER without Contact changes nothing.
    pub async fn bindings(
        &self,
        place: &Place,
        cseq: u32,
        authorization: Option<(&str, String)>,
        wait: Duration,
    ) -> Result<Reply, RequestError> {
        let own = self.own_address(place).await?;
        let mut headers = Headers::new();
        if let Some((name, value)) = authorization {
            headers.push(name, value);
        }
        self.send_register((place, own), cseq, None, headers, wait).await
    }

    async fn send_register(
        &self,
        (place, own): (&Place, SocketAddr),
        cseq: u32,
        contact: Option<String>,
        headers: Headers,
        wait: Duration,
    ) -> Result<Reply, RequestError> {
        let (user, domain) = self.record.as_ref().ok_or(RequestError::Unwritable)?;
        let record = format!("sip:{user}@{domain}");
        let request = OutOfDialog {
            method: "REGISTER",
            uri: format!("sip:{domain}"),
            from: record.clone(),
            from_tag: self.tag.clone(),
            to: record,
            call_id: self.call_id.clone(),
            cseq,
            sent_by: own,
            contact,
            headers,
            destination: place.address,
            transport: place.transport,
            server_name: place.name.clone(),
            wait,
        };
        self.caller.request(request).await
    }

    /// Asks a place whether it is there.
    pub async fn options(&self, place: &Place, wait: Duration) -> Result<Reply, RequestError> {
        let own = self.own_address(place).await?;
        let host = self.target.clone().unwrap_or_else(|| place.address.to_string());
        let from = match &self.record {
            Some((user, domain)) => format!("sip:{user}@{domain}"),
            None => format!("sip:voicepay@{own}"),
        };
        let request = OutOfDialog {
            method: "OPTIONS",
            uri: format!("sip:{host}"),
            from,
            from_tag: hex::encode(self.entropy.bytes::<6>()),
            to: format!("sip:{host}"),
            call_id: hex::encode(self.entropy.bytes::<12>()),
            cseq: 1,
            sent_by: own,
            contact: Some(format!("sip:voicepay@{own}{}", transport_parameter(place.transport))),
            headers: Headers::new().with("Accept", "application/sdp"),
            destination: place.address,
            transport: place.transport,
            server_name: place.name.clone(),
            wait,
        };
        self.caller.request(request).await
    }

    /// Where this place is to send to.
    async fn own_address(&self, place: &Place) -> Result<SocketAddr, RequestError> {
        let address = conduct::own_address(self.public_address, self.caller.local_addr().ip(), place.address)
            .await
            .map_err(|e| RequestError::Unreachable(format!("no way to {}: {e}", place.address)))?;
        Ok(SocketAddr::new(address, self.caller.local_port(place.transport)))
    }
}

fn transport_parameter(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "",
        Transport::Tcp => ";transport=tcp",
        Transport::Tls => ";transport=tls",
    }
}

/// Where the other side saw our request come from: `received` and `rport` of the topmost Via (RFC 3581 section 4).
pub fn seen_as(headers: &Headers) -> Option<SeenAs> {
    let top = headers.get("Via")?.split(',').next()?;
    let parameter = |wanted: &str| {
        top.split(';').skip(1).find_map(|p| {
            let (name, value) = p.split_once('=')?;
            name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches(['[', ']']).to_owned())
        })
    };
    let (address, port) = (parameter("received")?.parse().ok(), parameter("rport").and_then(|p| p.parse().ok()));
    Some(SeenAs { address, port }).filter(|s| s.address.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_we_were_seen_is_read_from_the_topmost_via() {
        let of = |via: &str| seen_as(&Headers::new().with("Via", via)).map(|s| (s.address.unwrap().to_string(), s.port));
        assert_eq!(
            of("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK1;rport=40123;received=203.0.113.9, SIP/2.0/UDP x;received=1.1.1.1"),
            Some(("203.0.113.9".into(), Some(40_123)))
        );
        assert_eq!(of("SIP/2.0/UDP [::1]:5060;received=[2001:db8::9];branch=z9hG4bK1"), Some(("2001:db8::9".into(), None)));
        assert_eq!(of("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1"), None);
        assert_eq!(of("SIP/2.0/UDP 10.0.0.1;received=nonsense"), None);
    }
}
