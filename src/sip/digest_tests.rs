//! Digest against the examples of its RFCs, replays, and whatever text may come.

use super::*;
use crate::clock::SeededEntropy;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn verifier(seed: u64) -> Verifier {
    Verifier::new("voicepay", &Algorithm::ALL, &SeededEntropy::new(seed))
}

#[test]
fn the_examples_of_rfc_2617_and_7616_come_out() {
    let who = Credentials::new("Mufasa", "Circle Of Life");
    let challenge = Challenge::parse(
        "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
         opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
    )
    .unwrap();
    let answer = challenge.answer_with(&who, "GET", "/dir/index.html", 1, "0a4f113b");
    assert!(answer.contains("response=\"6629fae49393a05397450978507c4ef1\""), "{answer}");
    assert!(answer.contains("opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""));
    let who = Credentials::new("Mufasa", "Circle of Life");
    let nonce = "nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\"";
    let both = ["MD5", "SHA-256"]
        .map(|a| format!("Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={a}, {nonce}"));
    let challenge = Challenge::strongest(both.iter().map(String::as_str)).unwrap();
    let answer = challenge.answer_with(&who, "GET", "/dir/index.html", 1, "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ");
    assert!(answer.contains("753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"), "{answer}");
}

#[test]
fn a_response_says_what_it_asks_for_and_where_the_answer_goes() {
    let headers = Headers::new()
        .with("Proxy-Authenticate", "Digest realm=\"a\", nonce=\"b\", algorithm=AKAv1-MD5")
        .with("Proxy-Authenticate", "Digest realm=\"a\", nonce=\"b\"");
    let (challenge, header) = Challenge::of_response(407, &headers).unwrap();
    assert_eq!((challenge.algorithm, header), (Algorithm::Md5, "Proxy-Authorization"));
    assert_eq!(Challenge::of_response(401, &headers), None);
    assert_eq!(Challenge::of_response(200, &headers), None);
}

fn round(verifier: &mut Verifier, now: Timestamp, challenge: &Challenge, password: &str, count: u32) -> Verdict {
    let uri = "sip:pay@127.0.0.1";
    let mine = Credentials::new("alice", password);
    let answer = Answer::parse(&challenge.answer(&mine, "INVITE", uri, count, &SeededEntropy::new(1))).unwrap();
    verifier.judge(now, &answer, Some(&Credentials::new("alice", "secret")), "INVITE", uri)
}

#[test]
fn a_right_answer_counts_once_and_an_old_nonce_is_stale() {
    let asked = verifier(7).challenges(NOW, false, &SeededEntropy::new(2));
    assert_eq!(asked.iter().map(|c| c.algorithm.name()).collect::<Vec<_>>(), ["SHA-512-256", "SHA-256", "MD5"]);
    for sent in asked {
        let mut v = verifier(7);
        let c = Challenge::parse(&sent.to_header()).unwrap();
        assert_eq!(c, sent);
        assert_eq!(round(&mut v, NOW, &c, "wrong", 1), Verdict::Wrong);
        assert_eq!(round(&mut v, NOW, &c, "secret", 1), Verdict::Right);
        assert_eq!(round(&mut v, NOW, &c, "secret", 1), Verdict::Replayed);
        assert_eq!(round(&mut v, NOW, &c, "secret", 3), Verdict::Right);
        assert_eq!(round(&mut v, NOW, &c, "secret", 2), Verdict::Right, "reordered on the way");
        assert_eq!(round(&mut v, NOW, &c, "secret", 2), Verdict::Replayed);
        assert_eq!(round(&mut v, NOW, &c, "secret", 200), Verdict::Right);
        assert_eq!(round(&mut v, NOW, &c, "secret", 100), Verdict::Replayed, "too far behind to know");
        let later = NOW.plus(Duration::from_millis(NONCE_LIFETIME_MS + 1));
        assert_eq!(round(&mut v, later, &c, "secret", 201), Verdict::Stale);
    }
}

#[test]
fn nonces_of_others_other_requests_and_unknown_names_are_wrong() {
    let mut v = verifier(7);
    let entropy = SeededEntropy::new(3);
    let foreign = verifier(8).challenges(NOW, false, &entropy).remove(0);
    assert_eq!(round(&mut v, NOW, &foreign, "secret", 1), Verdict::Wrong);
    let c = v.challenges(NOW, false, &entropy).remove(0);
    let mine = Credentials::new("alice", "secret");
    let answer = Answer::parse(&c.answer(&mine, "INVITE", "sip:pay@a.example;transport=udp", 1, &entropy)).unwrap();
    assert_eq!(v.judge(NOW, &answer, Some(&mine), "BYE", "sip:pay@a.example"), Verdict::Wrong, "for another method");
    assert_eq!(v.judge(NOW, &answer, Some(&mine), "INVITE", "sip:pay@b.example"), Verdict::Wrong, "for another address");
    assert_eq!(v.judge(NOW, &answer, None, "INVITE", "sip:pay@a.example"), Verdict::Wrong, "nobody of that name");
    assert_eq!(v.judge(NOW, &answer, Some(&mine), "INVITE", "sip:pay@A.example"), Verdict::Right);
    let nobody = Answer::parse(&c.answer(&Credentials::new("bob", ""), "INVITE", "sip:x", 1, &entropy)).unwrap();
    assert_eq!(v.judge(NOW, &nobody, None, "INVITE", "sip:x"), Verdict::Wrong, "an empty password opens nothing");
}

#[test]
fn a_weaker_algorithm_than_was_asked_for_is_wrong() {
    let entropy = SeededEntropy::new(4);
    let mut v = Verifier::new("voicepay", &[Algorithm::Sha256], &entropy);
    let mut c = v.challenges(NOW, false, &entropy).remove(0);
    c.algorithm = Algorithm::Md5;
    assert_eq!(round(&mut v, NOW, &c, "secret", 1), Verdict::Wrong);
}

#[test]
fn more_calls_than_nonces_are_kept_get_in_all_the_same_and_nothing_opens_twice() {
    let entropy = SeededEntropy::new(4);
    let mut v = verifier(4);
    let made: Vec<(Timestamp, Challenge)> = (0..NONCES_KEPT as u64 * 2)
        .map(|i| NOW.plus(Duration::from_millis(i)))
        .map(|at| (at, v.challenges(at, false, &entropy).remove(0)))
        .collect();
    for (i, (at, c)) in made.iter().enumerate() {
        assert_eq!(round(&mut v, *at, c, "secret", 1), Verdict::Right, "{i}");
        assert!(v.used.len() <= NONCES_KEPT);
    }
    let end = NOW.plus(Duration::from_millis(NONCES_KEPT as u64 * 2));
    for (i, (_, c)) in made.iter().enumerate() {
        let again = round(&mut v, end, c, "secret", 1);
        assert!(matches!(again, Verdict::Stale | Verdict::Replayed), "{i}: {again:?}");
    }
    // All within one millisecond: whoever is too many comes again with a later one.
    let many: Vec<Challenge> = (0..NONCES_KEPT * 2).map(|_| v.challenges(end, false, &entropy).remove(0)).collect();
    assert!(many.iter().all(|c| round(&mut v, end, c, "secret", 1) != Verdict::Wrong));
    let later = end.plus(Duration::from_millis(1));
    let c = v.challenges(later, false, &entropy).remove(0);
    assert_eq!(round(&mut v, later, &c, "secret", 1), Verdict::Right);
}

#[test]
fn broken_headers_are_none() {
    let twice = "Digest realm=\"a\", realm=\"b\", nonce=\"c\"";
    for bad in ["", "Digest", "Basic abc", "Digest realm", "Digest realm=\"a", twice, "Digest realm=\"a\\"] {
        assert_eq!(Challenge::parse(bad), None, "{bad}");
    }
    assert_eq!(Challenge::parse("Digest realm=\"a\", nonce=\"b\", algorithm=MD5-sess"), None);
    assert_eq!(Challenge::parse("Digest realm=\"a\", nonce=\"b\", qop=\"auth-int\""), None);
    let odd = Challenge::parse("digest  nonce=b ,realm=\"a, \\\"x\\\"\",stale=TRUE").unwrap();
    assert_eq!((odd.realm.as_str(), odd.nonce.as_str(), odd.stale, odd.counted), ("a, \"x\"", "b", true, false));
    let short_nc = "Digest username=\"a\", realm=\"r\", nonce=\"n\", uri=\"u\", response=\"r\", qop=auth, nc=1, cnonce=\"c\"";
    assert!(Answer::parse(short_nc).is_none());
    assert!(Answer::parse(&format!("Digest realm=\"{}\"", "x".repeat(HEADER_LIMIT_BYTES))).is_none());
}

#[test]
fn no_password_and_no_response_prints() {
    let who = Credentials::new("alice", "hunter2");
    assert!(!format!("{who:?}").contains("hunter2"));
    let c = verifier(7).challenges(NOW, false, &SeededEntropy::new(6)).remove(0);
    let sent = c.answer(&who, "INVITE", "sip:a", 1, &SeededEntropy::new(6));
    let answer = Answer::parse(&sent).unwrap();
    assert!(!format!("{answer:?}").contains(&answer.response));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(Digest )?[ -~\u{0}-\u{ff}]{0,200}") {
        let _ = Challenge::parse(&text);
        if let Some(answer) = Answer::parse(&text) {
            verifier(7).judge(NOW, &answer, None, "INVITE", &text);
        }
    }

    #[test]
    fn what_we_ask_is_what_they_read(realm in "[a-zA-Z0-9. @,=-]{1,30}", stale: bool) {
        let v = Verifier::new(&realm, &Algorithm::ALL, &SeededEntropy::new(9));
        for c in v.challenges(NOW, stale, &SeededEntropy::new(9)) {
            prop_assert_eq!(Challenge::parse(&c.to_header()), Some(c));
        }
    }
}
