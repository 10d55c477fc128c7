//! A certificate chain up to one of our roots (RFC 5280 section 6, as far as RFC 8226 needs it). Pure, given bytes, roots and the
//! time.
//!
//! Not looked at: policies (their OIDs are recorded nowhere in our configuration), name constraints and whatever else is marked
//! critical and unknown: a certificate with such an extension is refused, as RFC 5280 section 4.2 asks.

use std::fmt;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Version};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use super::Invalid;
use super::passport::PUBLIC_KEY_BYTES;
use super::tn_auth_list::{self, TnAuthList};
use crate::clock::Timestamp;
use crate::media::leg::AttestationFault::{ChainExpired, ChainMalformed, ChainRevoked, ChainUntrusted, NumberNotCovered};

/// Most that a server of certificates may send.
pub const CHAIN_LIMIT_BYTES: usize = 16 * 1_024;
/// Leaf, two intermediates, and a root that some send along.
pub const CHAIN_LIMIT_CERTIFICATES: usize = 4;
/// Roots that may be configured: the list of North America has some twenty.
pub const ROOTS_LIMIT_CERTIFICATES: usize = 256;
/// Revoked certificates that are remembered.
pub const REVOKED_LIMIT_CERTIFICATES: usize = 100_000;

/// Signature algorithms that are taken: ECDSA and RSA with SHA-256, SHA-384 or SHA-512. No SHA-1.
const SIGNATURE_OIDS: [&str; 6] = [
    "1.2.840.10045.4.3.2",
    "1.2.840.10045.4.3.3",
    "1.2.840.113549.1.1.11",
    "1.2.840.113549.1.1.12",
    "1.2.840.113549.1.1.13",
    "1.2.840.113549.1.1.10",
];
/// id-ecPublicKey and prime256v1.
const EC_KEY_OID: &str = "1.2.840.10045.2.1";
const P256_OID: &str = "1.2.840.10045.3.1.7";
/// JWTClaimConstraints (RFC 8226 section 8) and its later form (RFC 9118): what a delegate may say. We hold nobody to them, so
/// whoever has them is not taken, marked critical or not.
const CLAIM_CONSTRAINT_OIDS: [&str; 2] = ["1.3.6.1.5.5.7.1.27", "1.3.6.1.5.5.7.1.33"];

/// Certification authorities that we trust, and what they or we have withdrawn.
#[derive(Clone, Default)]
pub struct Roots {
    der: Vec<Vec<u8>>,
    // Issuer's name and serial number, both as DER.
    revoked: std::collections::HashSet<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({}, {} revoked)", self.der.len(), self.revoked.len())
    }
}

/// Why a file of roots or of revoked certificates can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// Nothing in it.
    #[error("it holds no certificate in PEM")]
    None,
    /// One that can't be read, by its place in the file.
    #[error("its certificate number {0} can't be read")]
    Malformed(usize),
    /// One that is no authority.
    #[error("its certificate number {0} is no authority's (basicConstraints says no CA)")]
    NoAuthority(usize),
    /// Too many.
    #[error("it holds more than {0} certificates")]
    TooMany(usize),
    /// A list that can't be read.
    #[error("its list number {0} is no certificate revocation list")]
    List(usize),
}

impl Roots {
    /// From PEM with at least one certificate; other blocks are passed over.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut der = Vec::new();
        for (n, block) in Pem::iter_from_buffer(pem).enumerate() {
            let block = block.map_err(|_| RootsError::Malformed(n.saturating_add(1)))?;
            if block.label != "CERTIFICATE" {
                continue;
            }
            let n = der.len().saturating_add(1);
            let cert = parse(&block.contents).map_err(|_| RootsError::Malformed(n))?;
            if !cert.is_ca() {
                return Err(RootsError::NoAuthority(n));
            }
            if n > ROOTS_LIMIT_CERTIFICATES {
                return Err(RootsError::TooMany(ROOTS_LIMIT_CERTIFICATES));
            }
            der.push(block.contents);
        }
        if der.is_empty() { Err(RootsError::None) } else { Ok(Self { der, revoked: Default::default() }) }
    }

    /// With the certificates that these lists (RFC 5280 section 5, in PEM) have revoked. The lists are the operator's, like the
    /// roots: their signatures and dates are not looked at. An entry may name another issuer, as the policy administrators' lists
    /// do.
    pub fn with_revoked(mut self, pem: &[u8]) -> Result<Self, RootsError> {
        for (n, block) in Pem::iter_from_buffer(pem).enumerate() {
            let wrong = RootsError::List(n.saturating_add(1));
            let block = block.map_err(|_| wrong)?;
            if block.label != "X509 CRL" {
                continue;
            }
            let (_, list) = CertificateRevocationList::from_der(&block.contents).map_err(|_| wrong)?;
            // An indirect list's entries keep the issuer of the one before (section 5.3.3).
            let mut issuer = list.issuer().as_raw().to_vec();
            for entry in list.iter_revoked_certificates() {
                if let Some(named) = entry.extensions().iter().find(|e| e.oid.to_id_string() == "2.5.29.29") {
                    issuer = directory_name(named.value).ok_or(wrong)?.to_vec();
                }
                if self.revoked.len() >= REVOKED_LIMIT_CERTIFICATES {
                    return Err(RootsError::TooMany(REVOKED_LIMIT_CERTIFICATES));
                }
                self.revoked.insert((issuer.clone(), minimal(entry.raw_serial()).to_vec()));
            }
        }
        Ok(self)
    }

    fn is_revoked(&self, cert: &X509Certificate<'_>) -> bool {
        !self.revoked.is_empty() && self.revoked.contains(&(cert.issuer().as_raw().to_vec(), minimal(cert.raw_serial()).to_vec()))
    }
}

/// A serial number without leading noughts.
fn minimal(serial: &[u8]) -> &[u8] {
    let noughts = serial.iter().take_while(|b| **b == 0).count();
    serial.get(noughts..).unwrap_or(serial)
}

/// The name inside `GeneralNames { [4] Name }`, as DER.
fn directory_name(der: &[u8]) -> Option<&[u8]> {
    fn inner(der: &[u8], tag: u8) -> Option<&[u8]> {
        let (length, content) = match der {
            [t, 0x82, high, low, rest @ ..] if *t == tag => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            [t, 0x81, length, rest @ ..] if *t == tag => (usize::from(*length), rest),
            [t, length, rest @ ..] if *t == tag && *length < 0x80 => (usize::from(*length), rest),
            _ => return None,
        };
        (content.len() == length).then_some(content)
    }
    inner(inner(der, 0x30)?, 0xa4)
}

/// A certificate that may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its key on P-256.
    pub public_key: [u8; PUBLIC_KEY_BYTES],
    /// The numbers that it may sign for.
    pub numbers: TnAuthList,
}

/// The chain's first certificate, if the others lead from it to a root: each is signed by the next, the last by a root (or is
/// one).
pub fn validate(bytes: &[u8], roots: &Roots, now: Timestamp) -> Result<Credential, Invalid> {
    let blocks = blocks(bytes)?;
    let mut chain = Vec::new();
    for der in &blocks {
        chain.push(parse(der)?);
    }
    let anchors: Vec<X509Certificate<'_>> = roots.der.iter().filter_map(|der| parse(der).ok()).collect();
    let now = ASN1Time::from_timestamp(now.0.div_euclid(1_000)).map_err(|_| untrusted("the clock is out of range"))?;
    let (leaf, above) = chain.split_first().ok_or(malformed("nothing was fetched"))?;
    let credential = leaf_of(leaf)?;
    let mut below = leaf;
    let mut authorities_below = 0u32;
    for cert in above {
        links(below, cert, authorities_below, now, roots, &credential)?;
        below = cert;
        authorities_below = authorities_below.saturating_add(1);
    }
    in_time(below, now, roots)?;
    // The last one may be the root itself. Then its link has been looked at.
    if authorities_below > 0 && blocks.last().is_some_and(|last| roots.der.contains(last)) {
        return Ok(credential);
    }
    let mut best = untrusted("the certificate chain leads to no root in sip.stir.roots_file");
    for anchor in anchors.iter().filter(|a| a.subject().as_raw() == below.issuer().as_raw()) {
        match links(below, anchor, authorities_below, now, roots, &credential) {
            Ok(()) => match in_time(anchor, now, roots) {
                Ok(()) => return Ok(credential),
                Err(fault) => best = fault,
            },
            Err(fault) => best = fault,
        }
    }
    Err(best)
}

const fn untrusted(why: &'static str) -> Invalid {
    Invalid::new(ChainUntrusted, why)
}

const fn malformed(why: &'static str) -> Invalid {
    Invalid::new(ChainMalformed, why)
}

/// The certificates' DER: of PEM blocks, or of one in DER (RFC 8225 asks for PEM; some repositories send the other).
fn blocks(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Invalid> {
    if bytes.len() > CHAIN_LIMIT_BYTES {
        return Err(malformed("the certificate chain is too long"));
    }
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.to_vec()]);
    }
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(bytes) {
        let block = block.map_err(|_| malformed("what was fetched is no PEM"))?;
        if block.label != "CERTIFICATE" {
            return Err(malformed("what was fetched holds more than certificates"));
        }
        if found.len() >= CHAIN_LIMIT_CERTIFICATES {
            return Err(malformed("the certificate chain has too many certificates"));
        }
        found.push(block.contents);
    }
    if found.is_empty() { Err(malformed("what was fetched holds no certificate")) } else { Ok(found) }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Invalid> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) if cert.version() == X509Version::V3 => Ok(cert),
        Ok(_) | Err(_) => Err(malformed("a certificate of the chain can't be read")),
    }
}

fn leaf_of(leaf: &X509Certificate<'_>) -> Result<Credential, Invalid> {
    if leaf.is_ca() {
        return Err(untrusted("an authority's own certificate signed the call"));
    }
    if leaf.key_usage().map_err(|_| malformed("a keyUsage can't be read"))?.is_some_and(|u| !u.value.digital_signature()) {
        return Err(untrusted("the certificate is not for signatures"));
    }
    if leaf.extensions().iter().any(|e| CLAIM_CONSTRAINT_OIDS.contains(&e.oid.to_id_string().as_str())) {
        return Err(untrusted("the certificate limits what may be claimed, which this release can't check"));
    }
    let key = leaf.public_key();
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|o| o.to_id_string());
    if key.algorithm.algorithm.to_id_string() != EC_KEY_OID || curve.as_deref() != Some(P256_OID) {
        return Err(untrusted("the certificate's key is not on P-256"));
    }
    let public_key =
        key.subject_public_key.data.as_ref().try_into().map_err(|_| malformed("the certificate's key is no point"))?;
    let numbers = numbers_of(leaf)?
        .ok_or(Invalid::new(NumberNotCovered, "the certificate has no TNAuthList: it is no telephone provider's"))?;
    Ok(Credential { public_key, numbers })
}

fn numbers_of(cert: &X509Certificate<'_>) -> Result<Option<TnAuthList>, Invalid> {
    let mut found = cert.extensions().iter().filter(|e| e.oid.to_id_string() == tn_auth_list::OID);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => TnAuthList::parse(one.value).map(Some),
        (Some(_), Some(_)) => Err(malformed("the certificate has two TNAuthLists")),
    }
}

/// Did `issuer` sign `cert`, and may it?
fn links(
    cert: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
    authorities_below: u32,
    now: ASN1Time,
    roots: &Roots,
    credential: &Credential,
) -> Result<(), Invalid> {
    in_time(cert, now, roots)?;
    if cert.issuer().as_raw() != issuer.subject().as_raw() {
        return Err(untrusted("the certificate chain is not in order"));
    }
    let unreadable = |_| malformed("an authority's extension can't be read");
    let constraints =
        issuer.basic_constraints().map_err(unreadable)?.ok_or(untrusted("a certificate above the first is no authority's"))?;
    if !constraints.value.ca {
        return Err(untrusted("a certificate above the first is no authority's"));
    }
    if constraints.value.path_len_constraint.is_some_and(|most| authorities_below > most) {
        return Err(untrusted("an authority stands lower in the chain than it may"));
    }
    if issuer.key_usage().map_err(unreadable)?.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(untrusted("an authority's key is not for certificates"));
    }
    if numbers_of(issuer)?.is_some_and(|list| !list.encompasses(&credential.numbers)) {
        return Err(untrusted("an authority has given out more numbers than it has"));
    }
    if !SIGNATURE_OIDS.contains(&cert.signature_algorithm.algorithm.to_id_string().as_str()) {
        return Err(untrusted("a certificate is signed with an algorithm that is not taken"));
    }
    cert.verify_signature(Some(issuer.public_key())).map_err(|_| untrusted("a certificate's signature does not hold"))
}

/// What is asked of every certificate of the chain.
fn in_time(cert: &X509Certificate<'_>, now: ASN1Time, roots: &Roots) -> Result<(), Invalid> {
    if !cert.validity().is_valid_at(now) {
        return Err(Invalid::new(ChainExpired, "a certificate of the chain is not valid now"));
    }
    if roots.is_revoked(cert) {
        return Err(Invalid::new(ChainRevoked, "a certificate of the chain was revoked"));
    }
    let understood = |parsed: &ParsedExtension<'_>| {
        matches!(
            parsed,
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
                | ParsedExtension::CertificatePolicies(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::CRLDistributionPoints(_)
        )
    };
    let unknown = cert
        .extensions()
        .iter()
        .any(|e| e.critical && !understood(e.parsed_extension()) && e.oid.to_id_string() != tn_auth_list::OID);
    if unknown {
        return Err(untrusted("a certificate has a critical extension that is not understood"));
    }
    Ok(())
}
