//! PURE: what is known of a trunk: whether its places answer, and whether we are registered.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::resolve::Place;
use crate::clock::Timestamp;
use crate::sip::signalling::Transport;

/// Pings in a row without an answer after which a place is down.
const DOWN_AFTER_PINGS: u8 = 2;
/// Pings in a row with an answer after which it is up again.
const UP_AFTER_PINGS: u8 = 2;

/// One trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrunkStatus {
    /// Its name.
    pub name: String,
    /// Where it is called, in the order in which the places are tried.
    pub places: Vec<PlaceStatus>,
    /// Why its places could not be looked up, if the last try failed.
    pub unresolved: Option<String>,
    /// Unset where we don't register.
    pub registration: Option<Registration>,
}

/// A place that answers, or doesn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlaceStatus {
    /// Its address.
    pub address: SocketAddr,
    /// What it is reached over.
    pub transport: Transport,
    /// Calls may be sent there. Taken as up until it is known better.
    pub up: bool,
    /// Since when; unset before the first answer or the first silence that counts.
    pub since: Option<Timestamp>,
    /// How long the last answer took.
    pub answered_ms: Option<u32>,
    /// Its status.
    pub last_status: Option<u16>,
    /// Pings in a row that say otherwise than `up`.
    #[serde(skip)]
    against: u8,
}

/// Where a registration stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Registration {
    /// It holds.
    pub registered: bool,
    /// Until when.
    pub expires: Option<Timestamp>,
    /// With whom.
    pub registrar: Option<SocketAddr>,
    /// Why not: the last failure.
    pub problem: Option<String>,
    /// Where the registrar sees us (RFC 3581), which differs from our own address behind a NAT.
    pub seen_as: Option<SeenAs>,
}

/// `received` and `rport` of our Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SeenAs {
    /// `received`.
    pub address: Option<IpAddr>,
    /// `rport`.
    pub port: Option<u16>,
}

impl TrunkStatus {
    /// Nothing is known yet.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), places: Vec::new(), unresolved: None, registration: None }
    }

    /// Its places were looked up again: what is known of those that stay is kept.
    pub fn found(&mut self, places: &[Place]) {
        let known = std::mem::take(&mut self.places);
        let of = |p: &Place| {
            let before = known.iter().find(|k| k.address == p.address && k.transport == p.transport);
            before.cloned().unwrap_or_else(|| PlaceStatus::new(p.address, p.transport))
        };
        self.places = places.iter().map(of).collect();
        self.unresolved = None;
    }

    /// A place answered a ping with this status after so long, or didn't. Gives whether it is up, if that has changed.
    pub fn pinged(&mut self, now: Timestamp, place: &Place, answer: Option<(u16, Duration)>) -> Option<bool> {
        let status = self.places.iter_mut().find(|s| s.address == place.address && s.transport == place.transport)?;
        status.pinged(now, answer)
    }
}

impl PlaceStatus {
    fn new(address: SocketAddr, transport: Transport) -> Self {
        Self { address, transport, up: true, since: None, answered_ms: None, last_status: None, against: 0 }
    }

    fn pinged(&mut self, now: Timestamp, answer: Option<(u16, Duration)>) -> Option<bool> {
        self.last_status = answer.map(|(status, _)| status);
        self.answered_ms = answer.map(|(_, took)| u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
        // Whatever is answered shows that somebody is there; 503 (and 502, 500's cousins at a proxy) says not to call.
        let alive = answer.is_some_and(|(status, _)| !matches!(status, 408 | 502 | 503 | 504));
        self.since = self.since.or(Some(now));
        if alive == self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < if self.up { DOWN_AFTER_PINGS } else { UP_AFTER_PINGS } {
            return None;
        }
        self.up = alive;
        self.against = 0;
        self.since = Some(now);
        Some(alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Option<(u16, Duration)> = Some((200, Duration::from_millis(3)));

    fn place(port: u16) -> Place {
        Place { address: SocketAddr::from(([192, 0, 2, 1], port)), transport: Transport::Udp, name: "h".into() }
    }

    #[test]
    fn one_lost_ping_changes_nothing_and_two_do_both_ways() {
        let mut status = TrunkStatus::new("t");
        status.found(&[place(1), place(2)]);
        let mut at = 0;
        let mut ping = |status: &mut TrunkStatus, answer| {
            at += 1;
            (status.pinged(Timestamp(at), &place(1), answer), status.places[0].up)
        };
        assert_eq!(ping(&mut status, OK), (None, true));
        assert_eq!(ping(&mut status, None), (None, true));
        assert_eq!(ping(&mut status, OK), (None, true));
        assert_eq!(ping(&mut status, None), (None, true));
        assert_eq!(ping(&mut status, Some((503, Duration::ZERO))), (Some(false), false));
        assert_eq!(status.places[0].since, Some(Timestamp(5)));
        assert_eq!(ping(&mut status, OK), (None, false));
        assert_eq!(ping(&mut status, None), (None, false));
        assert_eq!(ping(&mut status, Some((405, Duration::ZERO))), (None, false));
        assert_eq!(ping(&mut status, Some((404, Duration::ZERO))), (Some(true), true), "a refusal is an answer");
        assert!(status.places[1].up && status.places[1].since.is_none());
    }

    #[test]
    fn looking_up_again_keeps_what_is_known() {
        let mut status = TrunkStatus::new("t");
        status.found(&[place(1), place(2)]);
        for _ in 0..2 {
            status.pinged(Timestamp(1), &place(1), None);
        }
        status.found(&[place(3), place(1)]);
        assert_eq!(status.places.iter().map(|p| (p.address.port(), p.up)).collect::<Vec<_>>(), [(3, true), (1, false)]);
        assert_eq!(status.pinged(Timestamp(2), &place(9), None), None);
        let shown = serde_json::to_string(&status).unwrap();
        assert!(shown.contains("\"transport\":\"udp\""), "{shown}");
    }
}
