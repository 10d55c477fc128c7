//! Whose packets are ours: the peer's, by the IP address that offer and answer settled. Pure.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A learned port that has been silent for so long may be replaced by another of the same IP (a NAT that rebound), in
/// milliseconds.
pub const PEER_RELEARN_MS: u64 = 2_000;

/// The peer's addresses.
#[derive(Debug)]
pub struct Peer {
    negotiated: SocketAddr,
    /// Where the signalling came from: phones behind a NAT or with several addresses send their audio from there.
    signalled: Option<IpAddr>,
    heard: Option<(SocketAddr, Duration)>,
}

impl Peer {
    /// From its SDP.
    pub fn new(negotiated: SocketAddr) -> Self {
        Self { negotiated: canonical(negotiated), signalled: None, heard: None }
    }

    /// Also hears this address, from which the call itself came.
    #[must_use]
    pub fn signalled_from(mut self, ip: Option<IpAddr>) -> Self {
        self.signalled = ip.map(|ip| ip.to_canonical());
        self
    }

    /// Another SDP (re-INVITE): what was learned is forgotten. False: it names the same address.
    pub fn renegotiate(&mut self, negotiated: SocketAddr) -> bool {
        let is_new = canonical(negotiated) != self.negotiated;
        if is_new {
            *self = Self::new(negotiated).signalled_from(self.signalled);
        }
        is_new
    }

    /// Whether this is the very address and port of its SDP: nobody who only shares its IP (a NAT's other telephones) can have
    /// taken its place.
    pub fn is_negotiated(&self, from: SocketAddr) -> bool {
        canonical(from) == self.negotiated
    }

    /// Whether this is an address of the peer, whatever the port.
    pub fn is_of(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip == self.negotiated.ip() || Some(ip) == self.signalled
    }

    /// It has been silent for so long that it may send from elsewhere next.
    pub fn may_have_moved(&self, now: Duration) -> bool {
        self.heard.is_none_or(|(_, at)| now.saturating_sub(at) >= Duration::from_millis(PEER_RELEARN_MS))
    }

    /// Whether a packet from there may be the peer's. An address of its own SDP always may; another port of the same IP if
    /// nothing has been heard yet (RFC 4961: symmetric RTP behind NAT), or that port it was, or silence has fallen.
    pub fn may_be(&self, from: SocketAddr, now: Duration) -> bool {
        let from = canonical(from);
        let is_known = from == self.negotiated || self.heard.is_some_and(|(heard, _)| heard == from);
        self.is_of(from.ip()) && (is_known || self.may_have_moved(now))
    }

    /// A valid packet came from there ([`Peer::may_be`] allowed it).
    pub fn heard_from(&mut self, from: SocketAddr, now: Duration) {
        self.heard = Some((canonical(from), now));
    }

    /// Where to send, if anywhere: port 0 and the unspecified address mean "not now" (RFC 3264 sections 5.1 and 8.4).
    pub fn destination(&self) -> Option<SocketAddr> {
        let to = self.heard.map_or(self.negotiated, |(heard, _)| heard);
        (to.port() != 0 && !to.ip().is_unspecified()).then_some(to)
    }
}

/// An IPv4 address in IPv6 clothes is that IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    const NOW: Duration = Duration::from_secs(10);

    #[test]
    fn audio_may_also_come_from_where_the_call_came_from() {
        let mut peer = Peer::new(at("192.168.1.5:4000")).signalled_from(Some("203.0.113.7".parse().unwrap()));
        assert!(peer.may_be(at("203.0.113.7:61000"), NOW));
        assert!(!peer.may_be(at("203.0.113.8:61000"), NOW));
        peer.heard_from(at("203.0.113.7:61000"), NOW);
        assert_eq!(peer.destination(), Some(at("203.0.113.7:61000")));
        peer.renegotiate(at("192.168.1.6:4000"));
        assert!(peer.may_be(at("203.0.113.7:61000"), NOW));
    }

    #[test]
    fn only_the_negotiated_ip_is_heard_and_its_first_port_is_kept() {
        let mut peer = Peer::new(at("192.0.2.1:4000"));
        assert!(!peer.may_be(at("192.0.2.2:4000"), NOW));
        assert!(peer.may_be(at("192.0.2.1:5000"), NOW));
        peer.heard_from(at("192.0.2.1:5000"), NOW);
        assert_eq!(peer.destination(), Some(at("192.0.2.1:5000")));
        assert!(!peer.may_be(at("192.0.2.1:6000"), NOW), "a second stranger's port");
        assert!(peer.may_be(at("192.0.2.1:6000"), NOW + Duration::from_secs(3)), "a NAT that rebound");
    }

    #[test]
    fn the_negotiated_port_wins_over_a_learned_one() {
        let mut peer = Peer::new(at("192.0.2.1:4000"));
        peer.heard_from(at("192.0.2.1:5000"), NOW);
        assert!(peer.may_be(at("[::ffff:192.0.2.1]:4000"), NOW));
        peer.heard_from(at("[::ffff:192.0.2.1]:4000"), NOW);
        assert_eq!(peer.destination(), Some(at("192.0.2.1:4000")));
        assert!(!peer.may_be(at("192.0.2.1:5000"), NOW));
    }

    #[test]
    fn nothing_is_sent_to_nowhere_and_a_new_sdp_is_followed() {
        let mut peer = Peer::new(at("0.0.0.0:4000"));
        assert_eq!(peer.destination(), None);
        assert!(!peer.may_be(at("192.0.2.1:4000"), NOW));
        peer.renegotiate(at("192.0.2.9:4004"));
        assert_eq!(peer.destination(), Some(at("192.0.2.9:4004")));
        assert_eq!(Peer::new(at("192.0.2.1:0")).destination(), None);
    }
}
