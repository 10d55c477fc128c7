//! Every verdict without a socket: what holds, and what each kind of tampering comes to.

use rcgen::{
    CertificateRevocationListParams, CustomExtension, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::OffsetDateTime;

use super::authority::{self, Leaf, Made, NOW, X5U};
use super::chain::{CHAIN_LIMIT_BYTES, Roots, RootsError, validate};
use super::config::StirConfig;
use super::passport::Attest;
use super::sign::{Callee, Signer};
use super::statement::{CallFacts, find};
use super::tn_auth_list::Entry;
use crate::clock::Timestamp;
use crate::media::leg::Attestation;
use crate::media::leg::AttestationFault::{self, *};

const ORIG: &str = "12155550121";
const DEST: &str = "12155550131";
const CALL: CallFacts<'static> = CallFacts {
    calling: Some("+1 215 555 0121"),
    called: &["sip:+12155550131@us.example.com", "sip:pay@192.0.2.7:5060"],
    date: None,
    default_country: "",
};

fn config() -> StirConfig {
    StirConfig { allowed_hosts: vec!["certs.example.org".parse().unwrap()], ..StirConfig::default() }
}

/// Root, intermediate, leaf.
struct Pki {
    root: Made,
    middle: Made,
    leaf: Made,
}

impl Pki {
    fn new(kind: &Leaf) -> Self {
        let root = authority::root("Root");
        let middle = authority::intermediate(&root, "Issuing", Some(0), |_| ());
        let leaf = authority::leaf(&middle, kind);
        Self { root, middle, leaf }
    }

    fn chain(&self) -> String {
        format!("{}{}", self.leaf.pem, self.middle.pem)
    }

    fn roots(&self) -> Roots {
        Roots::from_pem(self.root.pem.as_bytes()).unwrap()
    }

    fn signer(&self) -> Signer {
        self.leaf.signer(X5U)
    }
}

fn identity(signer: &Signer) -> String {
    signer.identity(ORIG, Callee::Number(DEST), Attest::A, NOW, [1; 16]).unwrap()
}

fn settle(
    value: &str,
    call: &CallFacts<'_>,
    chain: &str,
    roots: &Roots,
    now: Timestamp,
) -> Result<Attestation, AttestationFault> {
    match find([value].into_iter(), call, &config(), now) {
        Ok(None) => Ok(Attestation::Absent),
        Ok(Some(statement)) => statement.settle(chain.as_bytes(), roots, now).map_err(|e| e.fault),
        Err(e) => Err(e.fault),
    }
}

#[test]
fn a_statement_that_holds_has_its_level() {
    let pki = Pki::new(&Leaf::default());
    for (attest, attestation) in
        [(Attest::A, Attestation::Full), (Attest::B, Attestation::Partial), (Attest::C, Attestation::Gateway)]
    {
        let value = pki.signer().identity(ORIG, Callee::Number(DEST), attest, NOW, [1; 16]).unwrap();
        assert_eq!(settle(&value, &CALL, &pki.chain(), &pki.roots(), NOW), Ok(attestation));
    }
    let by_uri = pki.signer().identity(ORIG, Callee::Uri("sip:pay@192.0.2.7:5060"), Attest::A, NOW, [1; 16]).unwrap();
    assert_eq!(settle(&by_uri, &CALL, &pki.chain(), &pki.roots(), NOW), Ok(Attestation::Full));
    // Some repositories send the root along, or a leaf of one that is signed by the root itself.
    let with_root = format!("{}{}", pki.chain(), pki.root.pem);
    assert_eq!(settle(&identity(&pki.signer()), &CALL, &with_root, &pki.roots(), NOW), Ok(Attestation::Full));
    let short = authority::leaf(&pki.root, &Leaf::default());
    assert_eq!(settle(&identity(&short.signer(X5U)), &CALL, &short.pem, &pki.roots(), NOW), Ok(Attestation::Full));
}

#[test]
fn each_byte_of_the_statement_counts() {
    let pki = Pki::new(&Leaf::default());
    let value = identity(&pki.signer());
    let (chain, roots) = (pki.chain(), pki.roots());
    let token_end = value.find(';').unwrap();
    for at in (0..token_end).step_by(3) {
        let mut bytes = value.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'Q' } else { b'A' };
        let tampered = String::from_utf8(bytes).unwrap();
        assert_ne!(settle(&tampered, &CALL, &chain, &roots, NOW), Ok(Attestation::Full), "byte {at}");
    }
    // Claims of one call under the signature of another.
    let other = pki.signer().identity(ORIG, Callee::Number("1"), Attest::C, NOW, [2; 16]).unwrap();
    let signature = other[..other.find(';').unwrap()].rsplit_once('.').unwrap().1.to_owned();
    let (claims, _) = value[..token_end].rsplit_once('.').unwrap();
    let spliced = format!("{claims}.{signature}{}", &value[token_end..]);
    assert_eq!(settle(&spliced, &CALL, &chain, &roots, NOW), Err(Signature));
    // Somebody else's key.
    let stranger = Pki::new(&Leaf::default());
    assert_eq!(settle(&identity(&stranger.signer()), &CALL, &chain, &roots, NOW), Err(Signature));
    assert_eq!(settle(&value, &CALL, &chain, &stranger.roots(), NOW), Err(ChainUntrusted));
}

#[test]
fn a_statement_about_another_call_or_time_does_not_hold() {
    let pki = Pki::new(&Leaf::default());
    let value = identity(&pki.signer());
    let with =
        |call: CallFacts<'_>, later_s: i64| settle(&value, &call, &pki.chain(), &pki.roots(), Timestamp(NOW.0 + later_s * 1_000));
    assert_eq!(with(CALL, 60), Ok(Attestation::Full));
    assert_eq!(with(CALL, -60), Ok(Attestation::Full), "a clock may be behind");
    assert_eq!((with(CALL, 61), with(CALL, -61)), (Err(Stale), Err(Stale)));
    assert_eq!(with(CallFacts { calling: Some("+12155550122"), ..CALL }, 0), Err(OrigMismatch));
    assert_eq!(with(CallFacts { calling: Some("2155550121"), ..CALL }, 0), Err(OrigMismatch));
    assert_eq!(
        with(CallFacts { calling: Some("12155550121"), default_country: "44", ..CALL }, 0),
        Err(OrigMismatch),
        "+44 1215…"
    );
    assert_eq!(with(CallFacts { calling: Some("215 555 0121"), default_country: "1", ..CALL }, 0), Ok(Attestation::Full));
    assert_eq!(with(CallFacts { calling: None, ..CALL }, 0), Err(OrigMismatch));
    assert_eq!(with(CallFacts { called: &["sip:+12155550132@us", "sip:pay@192.0.2.7"], ..CALL }, 0), Err(DestMismatch));
    assert_eq!(with(CallFacts { called: &[], ..CALL }, 0), Err(DestMismatch));
    // 2023-11-14T22:13:20Z.
    let dated = |date| with(CallFacts { date: Some(date), ..CALL }, 0);
    assert_eq!(dated("Tue, 14 Nov 2023 22:13:50 GMT"), Ok(Attestation::Full));
    assert_eq!(dated("Tue, 14 Nov 2023 22:15:00 GMT"), Err(Stale));
    assert_eq!(dated("Tue, 14 Nov 2023 22:11:00 GMT"), Err(Stale));
    assert_eq!(dated("Fri, 01 Jan 2010 16:00:00 EST"), Err(Stale), "no GMT, yet a date");
    assert_eq!(dated("yesterday"), Ok(Attestation::Full), "the signed time counts");
    let mut own = config();
    own.own_numbers = vec![crate::e164::E164::normalise("+12155550131", "").unwrap()];
    let rewritten = CallFacts { called: &["sip:pay@192.0.2.7"], ..CALL };
    assert!(matches!(find([value.as_str()].into_iter(), &rewritten, &own, NOW), Ok(Some(_))), "a trunk rewrote To");
}

#[test]
fn headers_of_other_kinds_are_passed_over_and_broken_ones_are_not() {
    let pki = Pki::new(&Leaf::default());
    let (signer, value) = (pki.signer(), identity(&pki.signer()));
    let token = &value[..value.find(';').unwrap()];
    let check = |value: &str| settle(value, &CALL, &pki.chain(), &pki.roots(), NOW);
    let header = |alg: &str, ppt: &str| format!("{{\"alg\":\"{alg}\",{ppt}\"typ\":\"passport\",\"x5u\":\"{X5U}\"}}");
    let plain = signer.token(&header("ES256", ""), "{}").unwrap();
    let div = signer.token(&header("ES256", "\"ppt\":\"div\","), "{}").unwrap();
    let with = |token: &str, rest: &str| format!("{token};info=<{X5U}>{rest}");
    assert_eq!(check(&with(&plain, ";alg=ES256")), Ok(Attestation::Absent), "no level in it");
    assert_eq!(check(&with(&div, ";ppt=div")), Ok(Attestation::Absent));
    assert_eq!(check(&with(&div, "")), Ok(Attestation::Absent));
    assert_eq!(check(&with("..c2ln", "")), Ok(Attestation::Absent), "compact, of no kind");
    assert_eq!(check(&with("..c2ln", ";ppt=shaken")), Err(Malformed), "compact, which shaken has not");
    assert_eq!(check(&with(token, "")), Ok(Attestation::Full), "ppt and alg need not be repeated");
    assert_eq!(check(&with(token, ";ppt=\"shaken\"")), Ok(Attestation::Full));
    assert_eq!(check(&with("rubbish", "")), Err(Malformed));
    assert_eq!(check(&with(&div, ";ppt=shaken")), Err(Malformed), "the halves differ");
    assert_eq!(check(&with(token, ";alg=RS256")), Err(Algorithm));
    for alg in ["none", "HS256", "ES384"] {
        let forged = signer.token(&header(alg, "\"ppt\":\"shaken\","), "{}").unwrap();
        assert_eq!(check(&with(&forged, ";ppt=shaken")), Err(Algorithm), "{alg}");
    }
    assert_eq!(check(token), Err(InfoRefused), "no info");
    assert_eq!(check(&format!("{token};info=<https://certs.example.org/other.pem>")), Err(Malformed), "not its x5u");
    for x5u in ["https://evil.example.net/leaf.pem", "https://certs.example.org:22/leaf.pem", "https://certs.example.org.evil/x"]
    {
        assert_eq!(check(&identity(&pki.leaf.signer(x5u))), Err(InfoRefused), "{x5u}");
    }
    // Beside one that holds, others are of no account.
    let both = [with("rubbish", ""), with(&div, ""), value.clone()];
    assert!(matches!(find(both.iter().map(String::as_str), &CALL, &config(), NOW), Ok(Some(_))));
    let nine: Vec<String> = std::iter::repeat_n(with(&div, ""), 8).chain([value]).collect();
    assert!(matches!(find(nine.iter().map(String::as_str), &CALL, &config(), NOW), Ok(None)), "a bounded number is looked at");
}

#[test]
fn a_certificate_signs_for_its_own_numbers() {
    let range =
        |first: &str, count| Leaf { entries: Some(vec![Entry::Numbers { first: first.to_owned(), count }]), ..Leaf::default() };
    let came = |kind: &Leaf| {
        let pki = Pki::new(kind);
        settle(&identity(&pki.signer()), &CALL, &pki.chain(), &pki.roots(), NOW)
    };
    assert_eq!(came(&range("12155550100", 50)), Ok(Attestation::Full));
    assert_eq!(came(&range("12155550121", 1)), Ok(Attestation::Full));
    assert_eq!(came(&range("12155550122", 50)), Err(NumberNotCovered));
    assert_eq!(came(&Leaf { entries: None, ..Leaf::default() }), Err(NumberNotCovered));
    let rubbish = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 26], vec![0x30, 0]);
    assert_eq!(came(&Leaf { entries: None, extensions: vec![rubbish], ..Leaf::default() }), Err(ChainMalformed));
}

#[test]
fn a_chain_holds_link_by_link() {
    let came = |kind: &Leaf| {
        let pki = Pki::new(kind);
        validate(pki.chain().as_bytes(), &pki.roots(), NOW).map(|_| ()).map_err(|e| e.fault)
    };
    assert_eq!(came(&Leaf::default()), Ok(()));
    assert_eq!(came(&Leaf { valid_s: (-1_000, -1), ..Leaf::default() }), Err(ChainExpired));
    assert_eq!(came(&Leaf { valid_s: (1, 1_000), ..Leaf::default() }), Err(ChainExpired));
    assert_eq!(came(&Leaf { p384: true, ..Leaf::default() }), Err(ChainUntrusted), "ES256 needs P-256");
    assert_eq!(came(&Leaf { usages: vec![KeyUsagePurpose::KeyEncipherment], ..Leaf::default() }), Err(ChainUntrusted));
    let ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    assert_eq!(came(&Leaf { is_ca: ca, ..Leaf::default() }), Err(ChainUntrusted), "an authority signs no calls");
    let critical = |oid: &[u64], critical| {
        let mut extension = CustomExtension::from_oid_content(oid, vec![5, 0]);
        extension.set_criticality(critical);
        Leaf { extensions: vec![extension], ..Leaf::default() }
    };
    assert_eq!(came(&critical(&[1, 3, 6, 1, 4, 1, 99999, 1], true)), Err(ChainUntrusted));
    assert_eq!(came(&critical(&[1, 3, 6, 1, 4, 1, 99999, 1], false)), Ok(()));
    assert_eq!(came(&critical(&[1, 3, 6, 1, 5, 5, 7, 1, 27], false)), Err(ChainUntrusted), "JWTClaimConstraints");

    let pki = Pki::new(&Leaf::default());
    let check = |pem: &str| validate(pem.as_bytes(), &pki.roots(), NOW).map(|_| ()).map_err(|e| e.fault);
    let (root, middle, leaf) = (&pki.root.pem, &pki.middle.pem, &pki.leaf.pem);
    assert_eq!(check(leaf), Err(ChainUntrusted), "the intermediate is missing");
    assert_eq!(check(&format!("{middle}{leaf}")), Err(ChainUntrusted), "the wrong way round");
    assert_eq!(check(&format!("{leaf}{root}{middle}")), Err(ChainUntrusted));
    assert_eq!(check(&format!("{leaf}{leaf}")), Err(ChainUntrusted), "a leaf above a leaf");
    assert_eq!(check(root), Err(ChainUntrusted));
    assert_eq!(check(""), Err(ChainMalformed));
    assert_eq!(check("hello"), Err(ChainMalformed));
    assert_eq!(check(&format!("{leaf}{}", pki.leaf.key.serialize_pem())), Err(ChainMalformed), "a private key is no certificate");
    assert_eq!(check(&format!("{leaf}{middle}{middle}{middle}{middle}")), Err(ChainMalformed), "five");
    assert_eq!(check(&format!("{leaf}{middle}{}", "\n".repeat(CHAIN_LIMIT_BYTES))), Err(ChainMalformed));
    assert_eq!(check(&format!("{}{middle}", leaf.replacen('M', "N", 3))), Err(ChainMalformed));

    // A lookalike: the same names, other keys.
    let other = Pki::new(&Leaf::default());
    assert_eq!(check(&other.chain()), Err(ChainUntrusted));
    assert_eq!(check(&format!("{}{middle}", other.leaf.pem)), Err(ChainUntrusted));
    assert_eq!(
        check(&format!("{}{}", other.chain(), other.root.pem)),
        Err(ChainUntrusted),
        "a root that came along is none of ours"
    );
}

#[test]
fn authorities_stay_within_what_they_are() {
    let root = authority::root("Root");
    let roots = Roots::from_pem(root.pem.as_bytes()).unwrap();
    let check = |made: &[&Made]| {
        let pem: String = made.iter().map(|m| m.pem.as_str()).collect();
        validate(pem.as_bytes(), &roots, NOW).map(|_| ()).map_err(|e| e.fault)
    };
    let upper = authority::intermediate(&root, "Upper", Some(0), |_| ());
    let lower = authority::intermediate(&upper, "Lower", None, |_| ());
    let leaf = authority::leaf(&lower, &Leaf::default());
    assert_eq!(check(&[&leaf, &lower, &upper]), Err(ChainUntrusted), "pathLen 0 has no authority below");
    let upper = authority::intermediate(&root, "Upper", Some(1), |_| ());
    let lower = authority::intermediate(&upper, "Lower", Some(0), |_| ());
    let leaf = authority::leaf(&lower, &Leaf::default());
    assert_eq!(check(&[&leaf, &lower, &upper]), Ok(()));
    for change in [
        (|p| p.is_ca = IsCa::ExplicitNoCa) as fn(&mut rcgen::CertificateParams),
        |p| p.is_ca = IsCa::NoCa,
        |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        |p| p.custom_extensions = vec![authority::numbers(&[Entry::Provider("other".to_owned())])],
    ] {
        let middle = authority::intermediate(&root, "Middle", None, change);
        assert_eq!(check(&[&authority::leaf(&middle, &Leaf::default()), &middle]), Err(ChainUntrusted));
    }
    let narrow = authority::intermediate(&root, "Narrow", None, |p| {
        p.custom_extensions = vec![authority::numbers(&[Entry::Provider("709J".to_owned())])];
    });
    assert_eq!(check(&[&authority::leaf(&narrow, &Leaf::default()), &narrow]), Ok(()));
    let old = authority::intermediate(&root, "Old", None, |p| {
        p.not_after = OffsetDateTime::from_unix_timestamp(NOW.0 / 1_000 - 1).unwrap()
    });
    assert_eq!(check(&[&authority::leaf(&old, &Leaf::default()), &old]), Err(ChainExpired));
    let old_root = authority::root_valid("Root", (-1_000, -1));
    let leaf = authority::leaf(&old_root, &Leaf::default());
    let old_roots = Roots::from_pem(old_root.pem.as_bytes()).unwrap();
    assert_eq!(validate(leaf.pem.as_bytes(), &old_roots, NOW).unwrap_err().fault, ChainExpired);
    // Of two roots of one name, the one that signed counts.
    let both = Roots::from_pem(format!("{}{}", old_root.pem, root.pem).as_bytes()).unwrap();
    let leaf = authority::leaf(&root, &Leaf::default());
    assert!(validate(leaf.pem.as_bytes(), &both, NOW).is_ok());
}

#[test]
fn revoked_certificates_are_known_by_issuer_and_serial_number() {
    let pki = Pki::new(&Leaf::default());
    let list = |issuer: &Made, serial: u64| {
        let at = |s: i64| OffsetDateTime::from_unix_timestamp(NOW.0 / 1_000 + s).unwrap();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: at(-500),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at(-400),
            next_update: at(400),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&issuer.params, &issuer.key)).unwrap().pem().unwrap()
    };
    let check = |lists: String| {
        let roots = pki.roots().with_revoked(lists.as_bytes()).unwrap();
        validate(pki.chain().as_bytes(), &roots, NOW).map(|_| ()).map_err(|e| e.fault)
    };
    assert_eq!(check(list(&pki.middle, 77)), Err(ChainRevoked));
    assert_eq!(check(list(&pki.middle, 78)), Ok(()));
    assert_eq!(check(list(&pki.root, 77)), Ok(()), "another issuer's number");
    assert_eq!(check(list(&pki.root, 1) + &list(&pki.middle, 77)), Err(ChainRevoked));
    let broken = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    assert_eq!(pki.roots().with_revoked(broken.as_bytes()).unwrap_err(), RootsError::List(1));
}

#[test]
fn files_of_roots_are_checked_as_they_are_read() {
    let pki = Pki::new(&Leaf::default());
    assert_eq!(Roots::from_pem(b"").unwrap_err(), RootsError::None);
    assert_eq!(Roots::from_pem(pki.leaf.pem.as_bytes()).unwrap_err(), RootsError::NoAuthority(1));
    let second = format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", pki.root.pem);
    assert_eq!(Roots::from_pem(second.as_bytes()).unwrap_err(), RootsError::Malformed(2));
}
