//! A certification authority for tests: roots, intermediates and providers' certificates with whatever is wrong with them.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, SerialNumber,
};
use time::OffsetDateTime;

use super::sign::Signer;
use super::tn_auth_list::{self, Entry};
use crate::clock::Timestamp;

/// When everything here is valid.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// Where the leaf is said to be.
pub const X5U: &str = "https://certs.example.org/leaf.pem";

/// A certificate with its key.
pub struct Made {
    pub pem: String,
    pub params: CertificateParams,
    pub key: KeyPair,
}

/// What a leaf is made of.
#[derive(Clone)]
pub struct Leaf {
    pub entries: Option<Vec<Entry>>,
    pub usages: Vec<KeyUsagePurpose>,
    pub is_ca: IsCa,
    pub valid_s: (i64, i64),
    pub p384: bool,
    pub extensions: Vec<CustomExtension>,
    pub serial: u64,
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            entries: Some(vec![Entry::Provider("709J".to_owned())]),
            usages: vec![KeyUsagePurpose::DigitalSignature],
            is_ca: IsCa::ExplicitNoCa,
            valid_s: (-1_000, 1_000),
            p384: false,
            extensions: Vec::new(),
            serial: 77,
        }
    }
}

fn params(name: &str, valid_s: (i64, i64)) -> CertificateParams {
    let at = |s: i64| OffsetDateTime::from_unix_timestamp(NOW.0 / 1_000 + s).unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (at(valid_s.0), at(valid_s.1));
    params
}

fn authority_params(name: &str, path: Option<u8>, valid_s: (i64, i64)) -> CertificateParams {
    let mut params = params(name, valid_s);
    params.is_ca = IsCa::Ca(path.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A root on P-384, so that both curves are seen.
pub fn root(name: &str) -> Made {
    root_valid(name, (-1_000, 1_000))
}

/// The same, valid from and to so many seconds from [`NOW`].
pub fn root_valid(name: &str, valid_s: (i64, i64)) -> Made {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let params = authority_params(name, None, valid_s);
    Made { pem: params.self_signed(&key).unwrap().pem(), params, key }
}

/// An authority below another.
pub fn intermediate(above: &Made, name: &str, path: Option<u8>, change: impl FnOnce(&mut CertificateParams)) -> Made {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = authority_params(name, path, (-1_000, 1_000));
    change(&mut params);
    let pem = params.signed_by(&key, &Issuer::from_params(&above.params, &above.key)).unwrap().pem();
    Made { pem, params, key }
}

/// A provider's certificate.
pub fn leaf(above: &Made, leaf: &Leaf) -> Made {
    let key = KeyPair::generate_for(if leaf.p384 { &PKCS_ECDSA_P384_SHA384 } else { &PKCS_ECDSA_P256_SHA256 }).unwrap();
    let mut params = params("SHAKEN 709J", leaf.valid_s);
    params.is_ca = leaf.is_ca;
    params.key_usages = leaf.usages.clone();
    params.serial_number = Some(SerialNumber::from(leaf.serial));
    params.custom_extensions = leaf.extensions.clone();
    params.custom_extensions.extend(leaf.entries.as_deref().map(numbers));
    let pem = params.signed_by(&key, &Issuer::from_params(&above.params, &above.key)).unwrap().pem();
    Made { pem, params, key }
}

/// The extension TNAuthList.
pub fn numbers(entries: &[Entry]) -> CustomExtension {
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 26], tn_auth_list::encode(entries))
}

impl Made {
    /// Signs with its key.
    pub fn signer(&self, x5u: &str) -> Signer {
        Signer::from_pem(self.key.serialize_pem().as_bytes(), x5u).unwrap()
    }
}
