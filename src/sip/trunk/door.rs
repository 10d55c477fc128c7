//! PURE: callers on a trunk with `inbound_auth` prove their password with each INVITE (RFC 3261 section 22, RFC 7616). Wrong
//! answers are counted by source: guessing is slow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::{Entropy, Timestamp};
use crate::sip::admission::{Reason, Refused};
use crate::sip::digest::{Algorithm, Answer, Credentials, Verdict, Verifier};
use crate::sip::headers::Headers;
use crate::sip::signalling::Refusal;

/// Asked for, the better first. MD5 is what many PBXs still have nothing above.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];
/// Wrong answers of a source within `LOCK_OUT_MS`: beyond them nothing from there is judged until that time is over.
const WRONG_LIMIT_TRIES: u32 = 10;
/// How long wrong answers count.
const LOCK_OUT_MS: u64 = 60_000;
/// Sources whose wrong answers are counted; the one that began first makes room.
const SOURCE_LIMIT: usize = 1_024;
/// Authorization headers that are looked at; a request through proxies may carry others'.
const ANSWER_LIMIT: usize = 4;

/// Judges the passwords of callers.
#[derive(Debug)]
pub struct Door {
    realm: String,
    verifier: Verifier,
    wrong: HashMap<IpAddr, Wrong>,
}

#[derive(Clone, Copy, Debug)]
struct Wrong {
    since: Timestamp,
    tries: u32,
}

/// The request that is judged.
#[derive(Clone, Copy, Debug)]
pub struct Knock<'a> {
    /// Where it came from.
    pub peer: IpAddr,
    /// Its method.
    pub method: &'a str,
    /// Its Request-URI.
    pub uri: &'a str,
    /// Its header fields.
    pub headers: &'a Headers,
}

impl Door {
    /// With the realm that callers are told.
    pub fn new(realm: &str, entropy: &dyn Entropy) -> Self {
        Self { realm: realm.to_owned(), verifier: Verifier::new(realm, &ALGORITHMS, entropy), wrong: HashMap::new() }
    }

    /// Lets in whoever answers for one of these accounts; gives that account's name.
    pub fn knock(
        &mut self,
        now: Timestamp,
        accounts: &[Credentials],
        of: Knock<'_>,
        entropy: &dyn Entropy,
    ) -> Result<String, Refused> {
        let source = source_of(of.peer);
        if let Some(wrong) = self.wrong.get(&source)
            && wrong.tries >= WRONG_LIMIT_TRIES
        {
            let left = Duration::from_millis(LOCK_OUT_MS).saturating_sub(now.since(wrong.since));
            if !left.is_zero() {
                let refusal = Refusal::new(403).with("Retry-After", (left.as_secs() + 1).to_string());
                return Err(Refused::new(Reason::LockedOut, refusal.warning(399, "too many wrong passwords from this address")));
            }
            self.wrong.remove(&source);
        }
        let answer = of.headers.all("Authorization").take(ANSWER_LIMIT).filter_map(Answer::parse).find(|a| a.is_for(&self.realm));
        let Some(answer) = answer else { return Err(self.challenge(now, Reason::Challenged, false, entropy)) };
        let on_file = accounts.iter().find(|c| c.username == answer.username);
        match self.verifier.judge(now, &answer, on_file, of.method, of.uri) {
            Verdict::Right => {
                self.wrong.remove(&source);
                Ok(answer.username)
            }
            Verdict::Stale => Err(self.challenge(now, Reason::Challenged, true, entropy)),
            Verdict::Replayed => Err(self.challenge(now, Reason::WrongPassword, true, entropy)),
            Verdict::Wrong => {
                // Only who was sent the nonce has it: a forged source address can't lock its owner out.
                if self.verifier.made(&answer) {
                    self.count(now, source);
                }
                Err(self.challenge(now, Reason::WrongPassword, false, entropy))
            }
        }
    }

    fn challenge(&self, now: Timestamp, reason: Reason, stale: bool, entropy: &dyn Entropy) -> Refused {
        let asked = self.verifier.challenges(now, stale, entropy);
        let refusal = asked.iter().fold(Refusal::new(401), |r, c| r.with("WWW-Authenticate", c.to_header()));
        Refused::new(reason, refusal)
    }

    fn count(&mut self, now: Timestamp, source: IpAddr) {
        if !self.wrong.contains_key(&source) && self.wrong.len() >= SOURCE_LIMIT {
            let first = self.wrong.iter().min_by_key(|(_, w)| w.since).map(|(ip, _)| *ip);
            first.map(|ip| self.wrong.remove(&ip));
        }
        let wrong = self.wrong.entry(source).or_insert(Wrong { since: now, tries: 0 });
        if now.since(wrong.since) > Duration::from_millis(LOCK_OUT_MS) {
            *wrong = Wrong { since: now, tries: 0 };
        }
        wrong.tries = wrong.tries.saturating_add(1);
    }
}

/// A household or a server has a whole /64 of IPv6.
fn source_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::sip::digest::Challenge;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const URI: &str = "sip:pay@voicepay.example";

    struct Visit {
        door: Door,
        entropy: SeededEntropy,
        accounts: Vec<Credentials>,
    }

    impl Visit {
        fn new() -> Self {
            let entropy = SeededEntropy::new(1);
            let accounts = vec![Credentials::new("desk", "opens"), Credentials::new("shop", "sesame")];
            Self { door: Door::new("voicepay", &entropy), entropy, accounts }
        }

        fn knock(&mut self, now: Timestamp, peer: &str, headers: &Headers) -> Result<String, Refused> {
            let knock = Knock { peer: peer.parse().unwrap(), method: "INVITE", uri: URI, headers };
            self.door.knock(now, &self.accounts, knock, &self.entropy)
        }

        /// As a caller does: asked, then answered.
        fn call(&mut self, now: Timestamp, peer: &str, who: &Credentials) -> Result<String, Refused> {
            let asked = self.knock(now, peer, &Headers::new()).unwrap_err();
            if asked.reason == Reason::LockedOut {
                return Err(asked);
            }
            assert_eq!((asked.reason, asked.refusal.status), (Reason::Challenged, 401));
            let (challenge, header) = Challenge::of_response(401, &asked.refusal.headers).unwrap();
            let value = challenge.answer(who, "INVITE", URI, 1, &self.entropy);
            self.knock(now, peer, &Headers::new().with("Authorization", "Digest realm=\"elsewhere\"").with(header, value))
        }
    }

    #[test]
    fn sha_256_is_asked_for_before_md5_and_either_opens() {
        let mut v = Visit::new();
        let asked = v.knock(NOW, "192.0.2.1", &Headers::new()).unwrap_err().refusal.headers;
        let asked: Vec<_> = asked.all("WWW-Authenticate").filter_map(Challenge::parse).collect();
        assert_eq!(asked.iter().map(|c| c.algorithm.name()).collect::<Vec<_>>(), ["SHA-256", "MD5"]);
        for challenge in asked {
            let value =
                challenge.answer(&Credentials::new("shop", "sesame"), "INVITE", URI, 7 + challenge.algorithm as u32, &v.entropy);
            assert_eq!(v.knock(NOW, "192.0.2.1", &Headers::new().with("Authorization", value)).unwrap(), "shop");
        }
    }

    #[test]
    fn an_answer_opens_once_and_an_old_one_is_stale() {
        let mut v = Visit::new();
        let asked = v.knock(NOW, "192.0.2.1", &Headers::new()).unwrap_err().refusal.headers;
        let (challenge, header) = Challenge::of_response(401, &asked).unwrap();
        let value = |v: &Visit, nc| challenge.answer(&Credentials::new("desk", "opens"), "INVITE", URI, nc, &v.entropy);
        let first = Headers::new().with(header, value(&v, 1));
        v.knock(NOW, "192.0.2.1", &first).unwrap();
        let again = v.knock(NOW, "192.0.2.1", &first).unwrap_err();
        assert_eq!(again.reason, Reason::WrongPassword);
        let late = Headers::new().with(header, value(&v, 2));
        let stale = v.knock(NOW.plus(Duration::from_secs(301)), "192.0.2.1", &late).unwrap_err();
        assert!(Challenge::of_response(401, &stale.refusal.headers).unwrap().0.stale);
    }

    #[test]
    fn guessing_locks_its_source_out_for_a_while_and_nobody_else() {
        let mut v = Visit::new();
        let guess = Credentials::new("desk", "open");
        for _ in 0..WRONG_LIMIT_TRIES {
            assert_eq!(v.call(NOW, "2001:db8::1", &guess).unwrap_err().reason, Reason::WrongPassword);
        }
        let right = Credentials::new("desk", "opens");
        let locked = v.call(NOW, "2001:db8::2", &right).unwrap_err();
        assert_eq!((locked.reason, locked.refusal.status), (Reason::LockedOut, 403), "the same /64");
        assert_eq!(v.call(NOW, "2001:db8:0:1::1", &right).unwrap(), "desk");
        assert_eq!(v.call(NOW.plus(Duration::from_millis(LOCK_OUT_MS + 1)), "2001:db8::1", &right).unwrap(), "desk");
    }

    #[test]
    fn answers_to_nonces_that_were_never_sent_lock_nobody_out() {
        let mut v = Visit::new();
        let forged = Visit { entropy: SeededEntropy::new(2), ..Visit::new() };
        let foreign = Door::new("voicepay", &forged.entropy).verifier.challenges(NOW, false, &forged.entropy).remove(0);
        let value = foreign.answer(&Credentials::new("desk", "open"), "INVITE", URI, 1, &v.entropy);
        for _ in 0..WRONG_LIMIT_TRIES * 2 {
            let refused = v.knock(NOW, "192.0.2.1", &Headers::new().with("Authorization", value.clone())).unwrap_err();
            assert_eq!(refused.reason, Reason::WrongPassword);
        }
        v.call(NOW, "192.0.2.1", &Credentials::new("desk", "opens")).unwrap();
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let mut v = Visit::new();
        for i in 0..u32::try_from(SOURCE_LIMIT).unwrap() + 10 {
            v.door.count(NOW.plus(Duration::from_millis(i.into())), IpAddr::V4((i + 1).into()));
        }
        assert_eq!(v.door.wrong.len(), SOURCE_LIMIT);
        assert!(!v.door.wrong.contains_key(&IpAddr::V4(1.into())));
    }
}
