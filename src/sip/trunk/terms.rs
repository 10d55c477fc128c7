//! PURE: whose call it is, by where it came from and over what, and on what terms it is taken.

use std::collections::HashMap;
use std::net::IpAddr;

use super::config::{SrtpPolicy, TrunkConfig, UnknownPeers};
use crate::sip::admission::{Reason, Refused};
use crate::sip::config::{Network, SipConfig};
use crate::sip::signalling::{Refusal, Transport};

/// Addresses that trunks' calls may also come from, by trunk: those of the registrars that we are registered with.
pub type Learned = HashMap<String, Vec<IpAddr>>;

/// On what terms a call is taken.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Its trunk; `None` for a caller from a private network who is on none.
    pub trunk: Option<&'a TrunkConfig>,
    /// SIP and RTP may go in plain text.
    pub private: bool,
    /// P-Asserted-Identity is believed.
    pub trusted: bool,
    /// `None`: whatever `media.srtp` says.
    pub srtp: Option<SrtpPolicy>,
    /// The address that the other side is told.
    pub public_address: Option<IpAddr>,
}

impl Terms<'_> {
    /// The trunk's name; empty where there is none.
    pub fn name(&self) -> &str {
        self.trunk.map_or("", |t| &t.name)
    }
}

/// Finds the terms for a call from this address over this transport, or the refusal that says what to do. The narrowest
/// network decides, of two alike the trunk that is meant for this transport; an address that a trunk learned is one of its own.
pub fn terms<'a>(sip: &'a SipConfig, learned: &Learned, peer: IpAddr, transport: Transport) -> Result<Terms<'a>, Refused> {
    let peer = peer.to_canonical();
    let own = |t: &TrunkConfig| t.hosts.iter().filter(|n| n.contains(peer)).map(Network::prefix_bits).max();
    let told = |t: &TrunkConfig| learned.get(&t.name).filter(|l| l.contains(&peer)).map(|_| Network::single(peer).prefix_bits());
    let matching = || sip.trunks.iter().filter_map(|t| Some((own(t).max(told(t))?, t)));
    let found = matching().filter(|(_, t)| t.takes(transport)).max_by_key(|(bits, t)| (*bits, t.is_meant_for(transport)));
    if let Some((_, trunk)) = found {
        let private = trunk.is_private(sip, peer);
        if !private && !transport.is_secure() {
            return Err(plaintext());
        }
        return Ok(Terms {
            trunk: Some(trunk),
            private,
            trusted: trunk.trusted || sip.trusts(peer),
            srtp: if private { trunk.srtp } else { Some(SrtpPolicy::Required) },
            public_address: trunk.public_address.or(sip.public_address),
        });
    }
    if matching().next().is_some() {
        return Err(plaintext()); // known, but over TLS only
    }
    let private = sip.is_private(peer);
    match sip.unknown_peers {
        UnknownPeers::AllowPrivate if private => {
            let trusted = sip.trusts(peer);
            Ok(Terms { trunk: None, private, trusted, srtp: None, public_address: sip.public_address })
        }
        // Whoever would be refused over TLS too need not be told about TLS.
        UnknownPeers::AllowPrivate | UnknownPeers::Refuse => {
            let text =
                format!("no trunk here has calls from {peer}: its operator can add the address to the hosts of a sip.trunk");
            Err(Refused::new(Reason::UnknownPeer, Refusal::new(403).warning(399, &text)))
        }
    }
}

fn plaintext() -> Refused {
    Refused::new(Reason::Plaintext, Refusal::new(403).warning(399, "SIP over TLS is needed here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SipConfig {
        let config: SipConfig = toml::from_str(
            r#"
            public_address = "198.51.100.1"
            trusted_peers = ["10.9.0.0/16"]
            [[trunk]]
            name = "wide"
            hosts = ["192.0.2.0/24", "2001:db8::/32"]
            trusted = true
            public_address = "198.51.100.2"
            [[trunk]]
            name = "narrow"
            hosts = ["192.0.2.8/29"]
            [[trunk]]
            name = "cable"
            hosts = ["192.0.2.8/29", "10.0.0.0/8"]
            transport = "udp"
            private = true
            srtp = "off"
            [[trunk]]
            name = "registering"
            target = "sip.example.org"
            username = "u"
            register = {}
            "#,
        )
        .unwrap();
        super::super::config::check(&config).unwrap();
        config
    }

    type Taken = (String, bool, bool, Option<SrtpPolicy>);

    fn of(sip: &SipConfig, peer: &str, transport: Transport) -> Result<Taken, (Reason, u16, String)> {
        let learned = Learned::from([("registering".to_owned(), vec!["203.0.113.5".parse().unwrap()])]);
        terms(sip, &learned, peer.parse().unwrap(), transport)
            .map(|t| (t.name().to_owned(), t.private, t.trusted, t.srtp))
            .map_err(|r| (r.reason, r.refusal.status, r.refusal.headers.get("Warning").unwrap().to_owned()))
    }

    #[test]
    fn the_narrowest_network_that_takes_the_transport_decides() {
        let sip = config();
        let required = Some(SrtpPolicy::Required);
        assert_eq!(of(&sip, "192.0.2.1", Transport::Tls), Ok(("wide".into(), false, true, required)));
        assert_eq!(of(&sip, "192.0.2.9", Transport::Tls), Ok(("narrow".into(), false, false, required)));
        assert_eq!(of(&sip, "192.0.2.9", Transport::Udp), Ok(("cable".into(), true, false, Some(SrtpPolicy::Off))));
        assert_eq!(of(&sip, "::ffff:192.0.2.1", Transport::Tls).unwrap().0, "wide");
        assert_eq!(of(&sip, "2001:db8::7", Transport::Tls).unwrap().0, "wide");
        assert_eq!(of(&sip, "10.9.1.1", Transport::Tcp), Ok(("cable".into(), true, true, Some(SrtpPolicy::Off))));
        assert_eq!(of(&sip, "203.0.113.5", Transport::Tls).unwrap().0, "registering");
        let learned = Learned::new();
        let public = |peer: &str| {
            terms(&sip, &learned, peer.parse().unwrap(), Transport::Tls).unwrap().public_address.unwrap().to_string()
        };
        assert_eq!((public("192.0.2.1"), public("192.0.2.9")), ("198.51.100.2".into(), "198.51.100.1".into()));
    }

    #[test]
    fn plain_text_and_strangers_are_refused_with_what_to_do() {
        let sip = config();
        for transport in [Transport::Udp, Transport::Tcp] {
            let (reason, status, warning) = of(&sip, "192.0.2.1", transport).unwrap_err();
            assert_eq!((reason, status), (Reason::Plaintext, 403));
            assert!(warning.contains("SIP over TLS is needed here"));
        }
        for transport in [Transport::Udp, Transport::Tls] {
            let (reason, status, warning) = of(&sip, "203.0.113.9", transport).unwrap_err();
            assert_eq!((reason, status), (Reason::UnknownPeer, 403));
            assert!(warning.contains("203.0.113.9") && warning.contains("sip.trunk"), "{warning}");
        }
        assert_eq!(of(&sip, "10.1.1.1", Transport::Tls).unwrap().0, "cable", "better than asked for is welcome");
        assert_eq!(of(&sip, "127.0.0.1", Transport::Udp), Ok((String::new(), true, false, None)));
        let strict = SipConfig { unknown_peers: UnknownPeers::Refuse, ..sip };
        assert_eq!(of(&strict, "127.0.0.1", Transport::Udp).unwrap_err().0, Reason::UnknownPeer);
    }
}
