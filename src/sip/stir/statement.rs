//! Is a signed statement about this call, and is it fresh? Everything that can be said without the certificate (RFC 8224 section
//! 6.2). Pure: the clock is an argument.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::chain::{self, Roots};
use super::header::{self, HEADER_LIMIT_FIELDS, Identity};
use super::passport::{self, Attest, Claims, Passport};
use super::url::HttpsUrl;
use super::{Invalid, config::StirConfig};
use crate::clock::Timestamp;
use crate::e164::E164;
use crate::media::leg::Attestation;
use crate::media::leg::AttestationFault::{Algorithm, DestMismatch, InfoRefused, Malformed, OrigMismatch, Stale};

/// What the call itself says, to be compared with what was signed.
#[derive(Clone, Copy, Debug)]
pub struct CallFacts<'a> {
    /// The user part that nominates the caller: of P-Asserted-Identity from a trusted peer, else of From.
    pub calling: Option<&'a str>,
    /// What was called: the URIs of To and of the request itself.
    pub called: &'a [&'a str],
    /// The Date header's value.
    pub date: Option<&'a str>,
    /// Country code of national numbers, digits only; the one that the caller is looked up with.
    pub default_country: &'a str,
}

/// A statement that is about this call; its signature has not been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What is said.
    pub passport: Passport,
    /// Where the certificate is: of an allowed host.
    pub certificate: HttpsUrl,
}

/// Finds the statement among the values of Identity. `None`: there is none of the kind that we know (RFC 8224 section 6.2: others
/// are passed over). With several, one that is about this call counts; if none is, the first one's fault does.
pub fn find<'a>(
    values: impl Iterator<Item = &'a str>,
    call: &CallFacts<'_>,
    config: &StirConfig,
    now: Timestamp,
) -> Result<Option<Statement>, Invalid> {
    let mut first_fault = None;
    for value in values.take(HEADER_LIMIT_FIELDS) {
        match examine(value, call, config, now) {
            Ok(Some(statement)) => return Ok(Some(statement)),
            Ok(None) => {}
            Err(fault) => drop(first_fault.get_or_insert(fault)),
        }
    }
    first_fault.map_or(Ok(None), Err)
}

fn examine(value: &str, call: &CallFacts<'_>, config: &StirConfig, now: Timestamp) -> Result<Option<Statement>, Invalid> {
    let identity = header::parse(value)?;
    if !is_ours(&identity) {
        return Ok(None);
    }
    // A full form says all of this twice; a header whose two halves differ was put together from two.
    if identity.alg.is_some_and(|alg| alg != "ES256") {
        return Err(Invalid::new(Algorithm, "the Identity header's alg is not ES256"));
    }
    let Some(info) = identity.info else {
        return Err(Invalid::new(InfoRefused, "the Identity header has no info"));
    };
    let passport = passport::decode(identity.token)?;
    if passport.x5u != info {
        return Err(Invalid::new(Malformed, "the PASSporT's x5u is not the header's info"));
    }
    let Some(certificate) = HttpsUrl::parse(info) else {
        return Err(Invalid::new(InfoRefused, "the Identity header's info is no plain https URL"));
    };
    if !config.allowed_hosts.iter().any(|host| host.allows(&certificate)) {
        return Err(Invalid::new(InfoRefused, "the Identity header's info names a host that is not in sip.stir.allowed_hosts"));
    }
    is_fresh(&passport.claims, call.date, config.freshness(), now)?;
    is_about(&passport.claims, call, config)?;
    Ok(Some(Statement { passport, certificate }))
}

/// Whether it claims to be of the kind `shaken`. The parameter may be missing in the full form (RFC 8224 section 4.1), so that
/// the token has to be asked; what can't be told is taken for ours, and refused later.
fn is_ours(identity: &Identity<'_>) -> bool {
    match identity.ppt {
        Some(ppt) => ppt.eq_ignore_ascii_case("shaken"),
        None if identity.is_compact() => false,
        None => match passport::kind(identity.token) {
            Some(kind) => kind == "shaken",
            None => !passport::is_plain(identity.token),
        },
    }
}

fn is_fresh(claims: &Claims, date: Option<&str>, window: Duration, now: Timestamp) -> Result<(), Invalid> {
    let signed = Timestamp(claims.iat_s.saturating_mul(1_000));
    let apart = |a: Timestamp, b: Timestamp| a.since(b).max(b.since(a));
    if apart(now, signed) > window {
        return Err(Invalid::new(Stale, "the PASSporT was not signed just now"));
    }
    // A Date that can't be read says nothing; the time that counts is the signed one (RFC 8224 section 6.2, step 4).
    let date = date.and_then(|d| OffsetDateTime::parse(d.trim(), &Rfc2822).ok());
    match date.map(|d| Timestamp(d.unix_timestamp().saturating_mul(1_000))) {
        Some(date) if apart(date, now) > window || apart(date, signed) > window => {
            Err(Invalid::new(Stale, "the Date header is not of the PASSporT's time"))
        }
        Some(_) | None => Ok(()),
    }
}

fn is_about(claims: &Claims, call: &CallFacts<'_>, config: &StirConfig) -> Result<(), Invalid> {
    let calling = call.calling.and_then(|user| canonical(user, call.default_country));
    if calling.as_deref() != Some(claims.orig_tn.as_str()) {
        return Err(Invalid::new(OrigMismatch, "another calling number was signed"));
    }
    let ours = |tn: &String| {
        let own = config.own_numbers.iter().any(|own| own.as_str().strip_prefix('+') == Some(tn));
        let called = |uri: &&str| user(uri).and_then(|u| canonical(u, call.default_country)).as_ref() == Some(tn);
        own || call.called.iter().any(called)
    };
    let same_uri = |uri: &String| call.called.iter().any(|called| plain(called) == plain(uri));
    if claims.dest.tn.iter().any(ours) || claims.dest.uri.iter().any(same_uri) {
        return Ok(());
    }
    Err(Invalid::new(DestMismatch, "another called number was signed"))
}

/// A telephone number as PASSporTs have it (RFC 8224 section 8.3): digits, with the country. Read just as the caller is looked
/// up, so that the number that was signed is the one that a customer is found by.
fn canonical(user: &str, default_country: &str) -> Option<String> {
    let user = user.split(';').next().unwrap_or(user);
    if let Ok(number) = E164::normalise(user, default_country) {
        return number.as_str().strip_prefix('+').map(str::to_owned);
    }
    // Without a country of our own a number without `+` may still have one; nobody is looked up by it.
    let digits: String = user.chars().filter(|c| !" -.()".contains(*c)).collect();
    let sound = default_country.is_empty() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    sound.then_some(digits)
}

/// The user part of a sip, sips or tel URI.
fn user(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        "sip" | "sips" => rest.split_once('@').map(|(user, _)| user),
        "tel" => Some(rest),
        _ => None,
    }
}

/// A URI without its parameters, its host in lower case: enough of RFC 3261 section 19.1.4 to compare by.
fn plain(uri: &str) -> String {
    let bare = uri.trim().split([';', '?']).next().unwrap_or(uri);
    match bare.rsplit_once('@') {
        Some((user, host)) => format!("{user}@{}", host.to_ascii_lowercase()),
        None => bare.to_ascii_lowercase(),
    }
}

impl Statement {
    /// With the certificate chain that was fetched: whose statement is it, and does the signature hold?
    pub fn settle(&self, chain: &[u8], roots: &Roots, now: Timestamp) -> Result<Attestation, Invalid> {
        let credential = chain::validate(chain, roots, now)?;
        credential.numbers.covers(&self.passport.claims.orig_tn)?;
        self.passport.check(&credential.public_key)?;
        Ok(match self.passport.claims.attest {
            Attest::A => Attestation::Full,
            Attest::B => Attestation::Partial,
            Attest::C => Attestation::Gateway,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_callers_are_looked_up() {
        for (user, country, number) in [
            ("+1 (215) 555-0121", "", Some("12155550121")),
            ("+12155550121;phone-context=x", "", Some("12155550121")),
            ("0044 20 7946 0958", "", Some("442079460958")),
            ("020 7946 0958", "44", Some("442079460958")),
            ("12155550121", "", Some("12155550121")),
            ("911", "", Some("911")),
            ("alice", "", None),
            ("", "", None),
            ("+", "", None),
        ] {
            assert_eq!(canonical(user, country).as_deref(), number, "{user}");
        }
        // A number without `+` is a national one where we have a country: +44 1215 …, not the American number.
        assert_eq!(canonical("12155550121", "44").as_deref(), Some("4412155550121"));
    }

    #[test]
    fn uris_are_compared_without_their_parameters() {
        assert_eq!(plain("sip:pay@Example.ORG;transport=tcp"), plain("sip:pay@example.org"));
        assert_ne!(plain("sip:Pay@example.org"), plain("sip:pay@example.org"));
        assert_eq!(user("sips:+1215@h"), Some("+1215"));
        assert_eq!((user("tel:+1215"), user("mailto:a@b"), user("x")), (Some("+1215"), None, None));
    }
}
