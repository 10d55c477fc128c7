//! PURE: HTTP digest as SIP uses it (RFC 3261 section 22, RFC 7616, RFC 8760), both sides: answering a trunk's challenge, and
//! challenging who calls us. Time and randomness are arguments.
//!
//! A nonce carries its own time and a keyed tag, so that nothing is kept of one until it was answered rightly; from then on its
//! counts (`nc`) are kept, and one that came before is a replay.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::headers::Headers;
use crate::clock::{Entropy, Timestamp};

/// How long a nonce may be used; after that a right answer gets `stale=true` and a new one.
pub const NONCE_LIFETIME_MS: u64 = 300_000;
/// Nonces whose counts are kept. Only a right answer costs a place; with more calls than these in a nonce's lifetime the oldest
/// go.
pub const NONCES_KEPT: usize = 4_096;
/// So many go at once, so that not every call pays for the search.
const NONCES_FORGOTTEN: usize = NONCES_KEPT / 4;
/// Counts behind the highest that may still come (a proxy may reorder).
const COUNT_WINDOW: u32 = 64;
/// A header longer than this is not looked at.
const HEADER_LIMIT_BYTES: usize = 2_048;
/// Randomness of a client's nonce.
const CNONCE_BYTES: usize = 8;
/// Hexadecimal digits of a nonce ahead of its tag: its time, and a salt.
const NONCE_HEAD_DIGITS: usize = 32;

/// Which hash. MD5 is what most PBXs still speak; it is weak, so it is asked for last and answered only if nothing better is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 3261.
    Md5,
    /// RFC 8760.
    Sha256,
    /// RFC 8760.
    Sha512Of256,
}

impl Algorithm {
    /// All, weakest first.
    pub const ALL: [Self; 3] = [Self::Md5, Self::Sha256, Self::Sha512Of256];

    /// As the header names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512Of256 => "SHA-512-256",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name().eq_ignore_ascii_case(name))
    }

    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => hex::encode(Md5::digest(text)),
            Self::Sha256 => hex::encode(Sha256::digest(text)),
            Self::Sha512Of256 => hex::encode(Sha512_256::digest(text)),
        }
    }
}

/// A name and its password. The password is wiped on drop and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who.
    pub username: String,
    password: Zeroizing<String>,
}

impl Credentials {
    /// From the configuration.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: Zeroizing::new(password.into()) }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, …)", self.username)
    }
}

/// What a server asks for (WWW-Authenticate, Proxy-Authenticate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Whose password is wanted.
    pub realm: String,
    /// To be given back.
    pub nonce: String,
    /// To be given back as it is.
    pub opaque: Option<String>,
    /// The hash.
    pub algorithm: Algorithm,
    /// Whether counts are wanted (`qop=auth`); without, the answer is RFC 2069's.
    pub counted: bool,
    /// The last answer was right, its nonce too old.
    pub stale: bool,
}

impl Challenge {
    /// From a header's value; `None` if it is no digest that we can answer (`auth-int` alone, an unknown algorithm).
    pub fn parse(value: &str) -> Option<Self> {
        let of = parameters(value)?;
        let get = |name: &str| of.get(name).cloned();
        let qop = get("qop");
        let counted = qop.as_deref().is_some_and(|q| q.split(',').any(|o| o.trim().eq_ignore_ascii_case("auth")));
        if qop.is_some() && !counted {
            return None;
        }
        Some(Self {
            realm: get("realm")?,
            nonce: get("nonce")?,
            opaque: get("opaque"),
            algorithm: get("algorithm").map_or(Some(Algorithm::Md5), |a| Algorithm::named(&a))?,
            counted,
            stale: get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
        })
    }

    /// The strongest of several that we can answer.
    pub fn strongest<'a>(values: impl Iterator<Item = &'a str>) -> Option<Self> {
        values.filter_map(Self::parse).max_by_key(|c| c.algorithm)
    }

    /// What a 401 or 407 asks for, and the header that the answer goes into; `None` for any other response, and if there is
    /// nothing in it that we can answer.
    pub fn of_response(status: u16, headers: &Headers) -> Option<(Self, &'static str)> {
        let (asks, answers) = match status {
            401 => ("WWW-Authenticate", "Authorization"),
            407 => ("Proxy-Authenticate", "Proxy-Authorization"),
            _ => return None,
        };
        Some((Self::strongest(headers.all(asks))?, answers))
    }

    /// The header's value.
    pub fn to_header(&self) -> String {
        let stale = if self.stale { ", stale=true" } else { "" };
        let qop = if self.counted { ", qop=\"auth\"" } else { "" };
        format!(
            "Digest realm=\"{}\", nonce=\"{}\", algorithm={}{qop}{stale}",
            quotable(&self.realm),
            quotable(&self.nonce),
            self.algorithm.name()
        )
    }

    /// The value of the header that answers it, for a request with this method and Request-URI (both exactly as sent).
    /// `count` starts at 1 for each nonce and goes up by one with each request that uses it.
    pub fn answer(&self, who: &Credentials, method: &str, uri: &str, count: u32, entropy: &dyn Entropy) -> String {
        self.answer_with(who, method, uri, count, &hex::encode(entropy.bytes::<CNONCE_BYTES>()))
    }

    fn answer_with(&self, who: &Credentials, method: &str, uri: &str, count: u32, cnonce: &str) -> String {
        let secret = ha1(self.algorithm, &who.username, &who.password, &self.realm);
        let count = format!("{count:08x}");
        let counted = self.counted.then_some((count.as_str(), cnonce));
        let response = response(self.algorithm, &secret, &self.nonce, counted, method, uri);
        let mut out = format!(
            "Digest username=\"{}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", response=\"{response}\", algorithm={}",
            quotable(&who.username),
            quotable(&self.realm),
            quotable(&self.nonce),
            quotable(uri),
            self.algorithm.name()
        );
        if self.counted {
            out += &format!(", qop=auth, nc={count}, cnonce=\"{}\"", quotable(cnonce));
        }
        if let Some(opaque) = &self.opaque {
            out += &format!(", opaque=\"{}\"", quotable(opaque));
        }
        out
    }
}

/// A caller's answer (Authorization, Proxy-Authorization).
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who it claims to be.
    pub username: String,
    realm: String,
    nonce: String,
    uri: String,
    response: String,
    algorithm: Algorithm,
    /// `nc`, its eight digits, and `cnonce`; `None` without `qop`.
    counted: Option<(u32, String, String)>,
}

impl fmt::Debug for Answer {
    /// The response is as good as a password for its nonce.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({:?} of {:?})", self.username, self.realm)
    }
}

impl Answer {
    /// Is it for this realm? A request may carry answers for other servers on its way.
    pub fn is_for(&self, realm: &str) -> bool {
        self.realm == realm
    }

    /// From a header's value; `None` if it is no digest answer.
    pub fn parse(value: &str) -> Option<Self> {
        let of = parameters(value)?;
        let get = |name: &str| of.get(name).cloned();
        let counted = match get("qop") {
            None => None,
            Some(qop) if qop.eq_ignore_ascii_case("auth") => {
                let nc = get("nc").filter(|n| n.len() == 8)?;
                Some((u32::from_str_radix(&nc, 16).ok()?, nc, get("cnonce")?))
            }
            Some(_) => return None,
        };
        Some(Self {
            username: get("username")?,
            realm: get("realm")?,
            nonce: get("nonce")?,
            uri: get("uri")?,
            response: get("response")?,
            algorithm: get("algorithm").map_or(Some(Algorithm::Md5), |a| Algorithm::named(&a))?,
            counted,
        })
    }
}

/// What a caller's answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is who it says.
    Right,
    /// The password was right, the nonce is too old: challenge again with `stale`.
    Stale,
    /// It has come before.
    Replayed,
    /// Wrong name, password, address or method; or a nonce that is none of ours.
    Wrong,
}

/// The server's side: makes nonces and judges answers.
pub struct Verifier {
    key: Zeroizing<[u8; 32]>,
    realm: String,
    /// What is asked for, strongest first.
    algorithms: Vec<Algorithm>,
    /// Nonces that were answered rightly.
    used: HashMap<String, Counts>,
    /// Of nonces made until then some were forgotten: one that isn't kept may have been used.
    forgotten_until: Option<Timestamp>,
}

#[derive(Clone, Copy)]
struct Counts {
    made: Timestamp,
    highest: u32,
    /// Bit n: `highest - n` has come.
    seen: u64,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?}, {} nonces)", self.realm, self.used.len())
    }
}

impl Verifier {
    /// The nonces' key is fresh randomness: a restart makes all of them unknown, which costs callers one more round.
    /// An answer with another algorithm than these is wrong.
    pub fn new(realm: &str, algorithms: &[Algorithm], entropy: &dyn Entropy) -> Self {
        let mut algorithms = algorithms.to_vec();
        algorithms.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            key: Zeroizing::new(entropy.bytes()),
            realm: realm.to_owned(),
            algorithms,
            used: HashMap::new(),
            forgotten_until: None,
        }
    }

    /// One challenge for each algorithm, strongest first (RFC 8760 section 2.4), all with the same new nonce. Each is a
    /// header line of its own: RFC 3261 section 7.3.1 allows no commas here.
    pub fn challenges(&self, now: Timestamp, stale: bool, entropy: &dyn Entropy) -> Vec<Challenge> {
        let head = format!("{:016x}{}", now.0, hex::encode(entropy.bytes::<8>()));
        let nonce = format!("{head}{}", self.tag(&head));
        let of = |algorithm: &Algorithm| Challenge {
            realm: self.realm.clone(),
            nonce: nonce.clone(),
            opaque: None,
            algorithm: *algorithm,
            counted: true,
            stale,
        };
        self.algorithms.iter().map(of).collect()
    }

    /// Is the nonce one of ours? Then whoever answers was sent it.
    pub fn made(&self, answer: &Answer) -> bool {
        self.made_at(&answer.nonce).is_some()
    }

    /// Judges an answer to a request with this method and Request-URI, by the credentials on file for its `username`.
    /// The time taken tells nothing of where it was wrong.
    pub fn judge(&mut self, now: Timestamp, answer: &Answer, on_file: Option<&Credentials>, method: &str, uri: &str) -> Verdict {
        // An unknown name is judged against a password that nobody has, so that it takes as long.
        let known = on_file.is_some_and(|c| c.username == answer.username);
        let password = on_file.map_or("", |c| c.password.as_str());
        let made = self.made_at(&answer.nonce);
        let Some((count, nc, cnonce)) = &answer.counted else { return Verdict::Wrong };
        let secret = ha1(answer.algorithm, &answer.username, password, &self.realm);
        let wanted = response(answer.algorithm, &secret, &answer.nonce, Some((nc, cnonce)), method, &answer.uri);
        let right = wanted.as_bytes().ct_eq(answer.response.to_ascii_lowercase().as_bytes()).unwrap_u8() == 1;
        let asked_for = self.algorithms.contains(&answer.algorithm) & (answer.realm == self.realm);
        let right = right & known & asked_for & same_target(&answer.uri, uri);
        let Some(made) = made.filter(|_| right) else { return Verdict::Wrong };
        if too_old(now, made) {
            return Verdict::Stale;
        }
        self.count(now, made, &answer.nonce, *count)
    }

    fn count(&mut self, now: Timestamp, made: Timestamp, nonce: &str, count: u32) -> Verdict {
        if let Some(counts) = self.used.get_mut(nonce) {
            return counts.take(count);
        }
        if count == 0 {
            return Verdict::Replayed;
        }
        if self.forgotten_until.is_some_and(|until| made <= until) {
            // Perhaps used already: one more round, with a nonce that is newer.
            return Verdict::Stale;
        }
        if self.used.len() >= NONCES_KEPT {
            self.used.retain(|_, c| !too_old(now, c.made));
        }
        if self.used.len() >= NONCES_KEPT {
            self.forget_oldest();
        }
        self.used.insert(nonce.to_owned(), Counts { made, highest: count, seen: 1 });
        Verdict::Right
    }

    /// Makes room. Whoever is in a hurry gets in whatever others do; what is forgotten opens nothing any more.
    fn forget_oldest(&mut self) {
        let mut made: Vec<Timestamp> = self.used.values().map(|c| c.made).collect();
        made.sort_unstable();
        let Some(until) = made.get(NONCES_FORGOTTEN).or(made.last()).copied() else { return };
        self.used.retain(|_, c| c.made > until);
        self.forgotten_until = self.forgotten_until.max(Some(until));
    }

    /// When one of our nonces was made.
    fn made_at(&self, nonce: &str) -> Option<Timestamp> {
        let (head, tag) = nonce.split_at_checked(NONCE_HEAD_DIGITS)?;
        let right = self.tag(head).as_bytes().ct_eq(tag.as_bytes()).unwrap_u8() == 1;
        let made = i64::from_str_radix(head.get(..16)?, 16).ok()?;
        right.then_some(Timestamp(made))
    }

    fn tag(&self, head: &str) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(self.key.as_slice()) else { return String::new() };
        mac.update(head.as_bytes());
        mac.update(self.realm.as_bytes());
        hex::encode(mac.finalize().into_bytes().get(..16).unwrap_or_default())
    }
}

fn too_old(now: Timestamp, made: Timestamp) -> bool {
    now.since(made) > Duration::from_millis(NONCE_LIFETIME_MS)
}

impl Counts {
    fn take(&mut self, count: u32) -> Verdict {
        if count > self.highest {
            self.seen = self.seen.checked_shl(count - self.highest).unwrap_or(0) | 1;
            self.highest = count;
            return Verdict::Right;
        }
        let behind = self.highest - count;
        let bit = 1u64.checked_shl(behind).unwrap_or(0);
        if behind >= COUNT_WINDOW || count == 0 || self.seen & bit != 0 {
            return Verdict::Replayed;
        }
        self.seen |= bit;
        Verdict::Right
    }
}

/// RFC 7616 section 3.4.2.
fn ha1(algorithm: Algorithm, username: &str, password: &str, realm: &str) -> String {
    algorithm.hash(&Zeroizing::new(format!("{username}:{realm}:{password}")))
}

/// Sections 3.4.1 and 3.4.3.
fn response(algorithm: Algorithm, ha1: &str, nonce: &str, counted: Option<(&str, &str)>, method: &str, uri: &str) -> String {
    let ha2 = algorithm.hash(&format!("{method}:{uri}"));
    match counted {
        Some((nc, cnonce)) => algorithm.hash(&format!("{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}")),
        None => algorithm.hash(&format!("{ha1}:{nonce}:{ha2}")),
    }
}

/// The answer must be for the request at hand (RFC 7616 section 3.4.6); phones differ in parameters and in the host's case.
fn same_target(signed: &str, asked: &str) -> bool {
    let bare = |uri: &str| uri.split([';', '?']).next().unwrap_or(uri).to_ascii_lowercase();
    bare(signed) == bare(asked)
}

/// `Digest a=b, c="d, \"e\""` → its parameters, names in lower case. `None` for another scheme, a broken one or one twice.
fn parameters(value: &str) -> Option<HashMap<String, String>> {
    if value.len() > HEADER_LIMIT_BYTES {
        return None;
    }
    let (scheme, mut rest) = value.trim().split_once(|c: char| c.is_ascii_whitespace())?;
    if !scheme.eq_ignore_ascii_case("digest") {
        return None;
    }
    let mut out = HashMap::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',');
        if rest.is_empty() {
            return Some(out);
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let after = after.trim_start();
        let (text, left) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(',').unwrap_or(after.len());
                let (text, left) = after.split_at_checked(end)?;
                (text.trim().to_owned(), left)
            }
        };
        if name.is_empty() || out.insert(name, text).is_some() {
            return None;
        }
        rest = left;
    }
}

/// Up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, quoted.get(at + 1..)?)),
            '\\' => text.push(chars.next()?.1),
            c => text.push(c),
        }
    }
    None
}

/// Within quotes, what would end them is left out; nothing that we send holds any.
fn quotable(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '"' | '\\' | '\r' | '\n')).collect()
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
