//! PURE: keeping a registration (RFC 3261 section 10). What has happened goes in, what to do next comes out; whoever drives it
//! looks up places, sends, and sleeps.
//!
//! A registration is renewed well before it expires. A place that fails is followed by the next one at once; when all have
//! failed, tries grow rarer, at random moments, so that a thousand clients don't come back together (RFC 5626 section 4.5).

use std::time::Duration;

use super::resolve::Place;
use crate::clock::{Entropy, Timestamp};
use crate::sip::digest::{Challenge, Credentials};
use crate::sip::headers::Headers;
use crate::sip::identity::{address_of, split_addresses};

/// The first wait after every place has failed, doubled with each further round.
const RETRY_MS: u64 = 2_000;
/// The longest wait between rounds.
const RETRY_LIMIT_MS: u64 = 300_000;
/// The first wait after a refusal that only an operator can mend (wrong password, unknown user), doubled as above.
const REFUSED_RETRY_MS: u64 = 30_000;
/// Challenges answered for one REGISTER: a stale nonce may follow a fresh one, more is a loop.
const CHALLENGE_LIMIT: u8 = 3;
/// A registrar that grants less is asked again this often all the same.
const EXPIRES_FLOOR_S: u32 = 10;
/// What no Min-Expires and no grant is believed beyond.
const EXPIRES_LIMIT_S: u32 = 86_400;

/// What is registered, and as whom.
#[derive(Clone, Debug)]
pub struct Registering {
    /// The Request-URI: `sip:domain`.
    pub uri: String,
    /// What is asked for, in seconds.
    pub expires_s: u32,
    /// Our name and password there.
    pub credentials: Credentials,
}

/// A REGISTER to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Where to.
    pub place: Place,
    /// Its number.
    pub cseq: u32,
    /// What is asked for; 0 takes the registration back.
    pub expires_s: u32,
    /// Header and value of the answer to a challenge. The value is as good as a password for its nonce: never to be logged.
    pub authorization: Option<(&'static str, String)>,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// It is time.
    Woken,
    /// Places were found, in the order in which to try them.
    Places(Vec<Place>),
    /// None could be found.
    NoPlaces(String),
    /// A final response came.
    Answer {
        /// Its status.
        status: u16,
        /// Its header fields.
        headers: &'a Headers,
        /// The Contact that was sent, as in `sip:user@host:port`, to find it among others.
        contact: &'a str,
    },
    /// Nothing came in time, or nothing could be sent.
    Silence(String),
    /// Take the registration back; nothing follows but `Next::Done`.
    Stop,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look the registrar up.
    Resolve,
    /// Send this, and bring what comes of it.
    Send(Box<Register>),
    /// Come back then.
    Wait(Timestamp),
    /// It is over.
    Done,
}

/// A registration under way.
#[derive(Debug)]
pub struct Registrar {
    of: Registering,
    /// Places that are still to be tried in this round; the first is being tried.
    places: Vec<Place>,
    cseq: u32,
    /// What is asked for; a registrar's Min-Expires raises it.
    asking_s: u32,
    /// The last challenge, where its answer goes, and how often its nonce was used: it may save a round trip.
    challenge: Option<(Challenge, &'static str, u32)>,
    /// Challenges answered for this REGISTER.
    challenged: u8,
    /// Rounds that failed in a row.
    failures: u32,
    held_until: Option<Timestamp>,
    problem: Option<String>,
    stopping: bool,
}

impl Registrar {
    /// Nothing has been sent yet; `Woken` starts it.
    pub fn new(of: Registering) -> Self {
        Self {
            asking_s: of.expires_s,
            of,
            places: Vec::new(),
            cseq: 0,
            challenge: None,
            challenged: 0,
            failures: 0,
            held_until: None,
            problem: None,
            stopping: false,
        }
    }

    /// Until when the registration holds, if it does.
    pub fn held(&self, now: Timestamp) -> Option<Timestamp> {
        self.held_until.filter(|until| *until > now)
    }

    /// Why the last try failed; none once it holds.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Takes what has happened, and says what to do.
    pub fn advance(&mut self, now: Timestamp, input: Input<'_>, entropy: &dyn Entropy) -> Next {
        match input {
            Input::Stop => self.stop(now, entropy),
            Input::Woken if self.stopping => Next::Done,
            // Places may have moved since; a registration that holds stays where it is as long as it can.
            Input::Woken => match self.held(now).and(self.places.first()) {
                Some(_) => self.send_first(entropy),
                None => Next::Resolve,
            },
            Input::Places(places) => {
                self.places = places;
                if self.places.is_empty() {
                    self.round_failed(now, "no place to register", None, entropy)
                } else {
                    self.send_first(entropy)
                }
            }
            Input::NoPlaces(why) => self.round_failed(now, &why, None, entropy),
            Input::Silence(why) => self.place_failed(now, &why, None, entropy),
            Input::Answer { status, headers, contact } => self.answered(now, status, headers, contact, entropy),
        }
    }

    fn stop(&mut self, now: Timestamp, entropy: &dyn Entropy) -> Next {
        self.stopping = true;
        // Without a binding there is nothing to take back.
        if self.held(now).is_none() || self.places.is_empty() { Next::Done } else { self.send_first(entropy) }
    }

    fn send_first(&mut self, entropy: &dyn Entropy) -> Next {
        self.challenged = 0;
        self.send(entropy)
    }

    fn send(&mut self, entropy: &dyn Entropy) -> Next {
        let Some(place) = self.places.first().cloned() else { return Next::Resolve };
        self.cseq = self.cseq.saturating_add(1);
        let authorization = self.challenge.as_mut().map(|(challenge, header, count)| {
            *count = count.saturating_add(1);
            (*header, challenge.answer(&self.of.credentials, "REGISTER", &self.of.uri, *count, entropy))
        });
        let expires_s = if self.stopping { 0 } else { self.asking_s };
        Next::Send(Box::new(Register { place, cseq: self.cseq, expires_s, authorization }))
    }

    fn answered(&mut self, now: Timestamp, status: u16, headers: &Headers, contact: &str, entropy: &dyn Entropy) -> Next {
        match status {
            200..=299 => self.granted(now, headers, contact, entropy),
            401 | 407 => match Challenge::of_response(status, headers) {
                // An answer to this very nonce was wrong already, unless it is said to have been too late.
                Some((c, _)) if self.challenged >= CHALLENGE_LIMIT || (self.challenged > 0 && !c.stale) => {
                    self.challenge = None;
                    self.refused(now, "the registrar refused our name or password", entropy)
                }
                Some((challenge, header)) => {
                    self.challenged += 1;
                    self.challenge = Some((challenge, header, 0));
                    self.send(entropy)
                }
                None => self.refused(now, "the registrar asks for a password in a way that we don't know", entropy),
            },
            // Not when we take it back: 0 is always allowed (RFC 3261 section 10.3).
            423 => match headers.get("Min-Expires").and_then(|m| m.trim().parse::<u32>().ok()) {
                Some(least) if least > self.asking_s && least <= EXPIRES_LIMIT_S && !self.stopping => {
                    self.asking_s = least;
                    self.send_first(entropy)
                }
                Some(_) | None => {
                    self.refused(now, "the registrar finds our expiry too short and names none that works", entropy)
                }
            },
            408 | 500..=599 => self.place_failed(now, &format!("the registrar answered {status}"), retry_after(headers), entropy),
            _ => self.refused(now, &format!("the registrar answered {status}"), entropy),
        }
    }

    fn granted(&mut self, now: Timestamp, headers: &Headers, contact: &str, entropy: &dyn Entropy) -> Next {
        self.failures = 0;
        self.problem = None;
        if self.stopping {
            self.held_until = None;
            return Next::Done;
        }
        let granted_s = granted_s(headers, contact, self.asking_s);
        self.held_until = Some(now.plus(Duration::from_secs(granted_s.into())));
        // Long ones a while before their end, short ones half way: two tries should fit (RFC 5626 section 4.4.1 has 80 to 100 %).
        let renew_s = if granted_s >= 1_200 { granted_s - granted_s / 10 } else { (granted_s / 2).max(EXPIRES_FLOOR_S / 2) };
        let earlier_ms = u64::from(entropy.below(renew_s.saturating_mul(50).max(1)));
        Next::Wait(now.plus(Duration::from_millis(u64::from(renew_s) * 1_000 - earlier_ms)))
    }

    /// This place is of no use now; perhaps the next one is.
    fn place_failed(&mut self, now: Timestamp, why: &str, retry_after: Option<Duration>, entropy: &dyn Entropy) -> Next {
        if self.stopping {
            return Next::Done;
        }
        if !self.places.is_empty() {
            self.places.remove(0);
        }
        if self.places.is_empty() {
            return self.round_failed(now, why, retry_after, entropy);
        }
        self.problem = Some(why.to_owned());
        // Another server has its own nonces.
        self.challenge = None;
        self.send_first(entropy)
    }

    fn round_failed(&mut self, now: Timestamp, why: &str, retry_after: Option<Duration>, entropy: &dyn Entropy) -> Next {
        self.wait(now, why, RETRY_MS, retry_after, entropy)
    }

    /// Only an operator can mend it: elsewhere it would be the same.
    fn refused(&mut self, now: Timestamp, why: &str, entropy: &dyn Entropy) -> Next {
        self.held_until = None;
        self.wait(now, why, REFUSED_RETRY_MS, None, entropy)
    }

    fn wait(&mut self, now: Timestamp, why: &str, base_ms: u64, retry_after: Option<Duration>, entropy: &dyn Entropy) -> Next {
        if self.stopping {
            return Next::Done;
        }
        self.problem = Some(why.to_owned());
        self.places.clear();
        let most = base_ms.saturating_mul(1 << self.failures.min(16)).min(RETRY_LIMIT_MS);
        self.failures = self.failures.saturating_add(1);
        // Anywhere from half of it to all of it.
        let half = most / 2;
        let drawn = half + u64::from(entropy.below(u32::try_from(half).unwrap_or(u32::MAX).saturating_add(1)));
        let told = retry_after.map_or(0, |r| u64::try_from(r.as_millis()).unwrap_or(u64::MAX).min(RETRY_LIMIT_MS));
        Next::Wait(now.plus(Duration::from_millis(drawn.max(told))))
    }
}

/// Retry-After in seconds; what follows it (a comment, a duration) says nothing to us.
pub fn retry_after(headers: &Headers) -> Option<Duration> {
    let value = headers.get("Retry-After")?;
    let digits: String = value.trim().chars().take_while(char::is_ascii_digit).take(9).collect();
    digits.parse().ok().map(Duration::from_secs)
}

/// How long our binding holds by a 200 (RFC 3261 section 10.2.4): our Contact's `expires`, else the Expires header, else what
/// was asked for. Where the registrar wrote our Contact anew, as those do that see a NAT, the shortest of all counts.
fn granted_s(headers: &Headers, contact: &str, asked_s: u32) -> u32 {
    let bare = |uri: &str| uri.split(';').next().unwrap_or(uri).to_ascii_lowercase();
    let bindings: Vec<(bool, Option<u32>)> = headers
        .all("Contact")
        .flat_map(split_addresses)
        .map(|c| (address_of(c).is_some_and(|u| bare(u) == bare(contact)), expires_of(c)))
        .collect();
    let ours = bindings.iter().find(|(ours, _)| *ours).and_then(|(_, expires)| *expires);
    let general = headers.get("Expires").and_then(|e| e.trim().parse().ok());
    let shortest = || bindings.iter().filter_map(|(_, e)| *e).min();
    ours.or(general).or_else(shortest).unwrap_or(asked_s).clamp(EXPIRES_FLOOR_S, EXPIRES_LIMIT_S)
}

/// The header parameter `expires` of one Contact.
fn expires_of(contact: &str) -> Option<u32> {
    let after = contact.rsplit_once('>').map_or(contact, |(_, after)| after);
    after.split(';').skip(1).find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim().eq_ignore_ascii_case("expires").then(|| value.trim().trim_matches('"').parse().ok())?
    })
}

#[cfg(test)]
#[path = "registrar_tests.rs"]
mod tests;
