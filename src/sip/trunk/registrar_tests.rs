//! A registration through good and bad days, with nothing but values.

use proptest::prelude::*;

use super::*;
use crate::clock::SeededEntropy;
use crate::sip::digest::{Algorithm, Answer, Verdict, Verifier};
use crate::sip::signalling::Transport;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const CONTACT: &str = "sip:u@198.51.100.7:5060";

fn place(n: u8) -> Place {
    Place { address: ([192, 0, 2, n], 5060).into(), transport: Transport::Udp, name: "sip.example".into() }
}

struct Desk {
    registrar: Registrar,
    entropy: SeededEntropy,
    now: Timestamp,
}

impl Desk {
    fn new() -> Self {
        let of = Registering { uri: "sip:example.org".into(), expires_s: 600, credentials: Credentials::new("u", "secret") };
        Self { registrar: Registrar::new(of), entropy: SeededEntropy::new(1), now: NOW }
    }

    fn take(&mut self, input: Input<'_>) -> Next {
        self.registrar.advance(self.now, input, &self.entropy)
    }

    fn sent(&mut self, input: Input<'_>) -> Register {
        match self.take(input) {
            Next::Send(register) => *register,
            other => panic!("{other:?}"),
        }
    }

    fn waits(&mut self, input: Input<'_>) -> Duration {
        match self.take(input) {
            Next::Wait(until) => until.since(self.now),
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, status: u16, headers: &Headers) -> Next {
        self.take(Input::Answer { status, headers, contact: CONTACT })
    }

    /// Up to a registration that holds for so long; gives the wait.
    fn registered(&mut self, expires: &str) -> Duration {
        assert_eq!(self.take(Input::Woken), Next::Resolve);
        self.sent(Input::Places(vec![place(1), place(2)]));
        let headers = Headers::new().with("Expires", expires);
        self.waits(Input::Answer { status: 200, headers: &headers, contact: CONTACT })
    }
}

fn asked(nonce: &str, stale: bool) -> Headers {
    let stale = if stale { ", stale=true" } else { "" };
    Headers::new().with("WWW-Authenticate", format!("Digest realm=\"example.org\", nonce=\"{nonce}\", qop=\"auth\"{stale}"))
}

#[test]
fn a_challenge_is_answered_and_the_nonce_used_again_for_the_next_one() {
    let mut d = Desk::new();
    let mut verifier = Verifier::new("example.org", &[Algorithm::Md5], &d.entropy);
    let challenge = verifier.challenges(NOW, false, &d.entropy).remove(0);
    let mut judge = |register: &Register| {
        let (header, value) = register.authorization.as_ref().expect("answered");
        assert_eq!(*header, "Authorization");
        verifier.judge(NOW, &Answer::parse(value).unwrap(), Some(&Credentials::new("u", "secret")), "REGISTER", "sip:example.org")
    };
    assert_eq!(d.take(Input::Woken), Next::Resolve);
    let first = d.sent(Input::Places(vec![place(1)]));
    assert_eq!((first.cseq, first.expires_s, first.authorization.is_none()), (1, 600, true));
    let headers = Headers::new().with("WWW-Authenticate", challenge.to_header());
    let second = d.sent(Input::Answer { status: 401, headers: &headers, contact: CONTACT });
    assert_eq!((second.cseq, judge(&second)), (2, Verdict::Right));
    let wait = d.waits(Input::Answer { status: 200, headers: &Headers::new().with("Expires", "600"), contact: CONTACT });
    d.now = d.now.plus(wait);
    let renewal = d.sent(Input::Woken);
    assert_eq!((renewal.cseq, judge(&renewal)), (3, Verdict::Right), "with the next count");
}

#[test]
fn a_wrong_password_is_not_tried_over_and_over() {
    let mut d = Desk::new();
    d.take(Input::Woken);
    d.sent(Input::Places(vec![place(1), place(2)]));
    assert!(matches!(d.answer(401, &asked("a", false)), Next::Send(_)));
    assert!(matches!(d.answer(401, &asked("b", true)), Next::Send(_)), "too late is not wrong");
    let Next::Wait(until) = d.answer(401, &asked("c", false)) else { panic!() };
    assert!(until.since(d.now) >= Duration::from_secs(15), "and the second place is not asked");
    assert!(d.registrar.problem().unwrap().contains("password") && d.registrar.held(d.now).is_none());
    assert_eq!(d.take(Input::Woken), Next::Resolve);
    let again = d.sent(Input::Places(vec![place(1)]));
    assert_eq!(again.authorization, None);
    for n in 0..CHALLENGE_LIMIT {
        assert!(matches!(d.answer(401, &asked(&n.to_string(), true)), Next::Send(_)));
    }
    assert!(matches!(d.answer(401, &asked("d", true)), Next::Wait(_)), "a registrar that finds everything stale is a loop");
}

#[test]
fn it_is_renewed_before_it_expires() {
    for (granted, least_s, most_s) in
        [("3600", 3_077, 3_240), ("600", 284, 300), ("60", 28, 30), ("1", 4, 5), ("999999999", 73_000, 77_760)]
    {
        let wait = Desk::new().registered(granted).as_secs_f64();
        assert!((f64::from(least_s)..=f64::from(most_s)).contains(&wait), "{granted}: {wait}");
    }
}

#[test]
fn the_grant_is_read_from_our_own_contact() {
    let of = |contacts: &[&str], expires: Option<&str>| {
        let mut headers = Headers::new();
        contacts.iter().for_each(|c| headers.push("Contact", *c));
        expires.into_iter().for_each(|e| headers.push("Expires", e));
        granted_s(&headers, CONTACT, 600)
    };
    assert_eq!(
        of(
            &["<sip:u@203.0.113.1:5060>;expires=30, \"U, we\" <sip:U@198.51.100.7:5060;transport=udp>;q=1;expires=120"],
            Some("99")
        ),
        120
    );
    assert_eq!(of(&["<sip:other@h>;expires=30", "<sip:u@198.51.100.7:5060>"], Some("99")), 99);
    assert_eq!(of(&["<sip:u@203.0.113.1:9999>;expires=70"], None), 70, "written anew by the registrar");
    assert_eq!(of(&["sip:u@198.51.100.7:5060;expires=\"80\""], None), 80);
    assert_eq!(of(&[], None), 600);
    assert_eq!(of(&["<sip:u@198.51.100.7:5060>;expires=x"], Some("0")), EXPIRES_FLOOR_S);
}

#[test]
fn too_brief_an_interval_is_raised_once_to_what_is_wanted() {
    let mut d = Desk::new();
    d.take(Input::Woken);
    d.sent(Input::Places(vec![place(1)]));
    let longer = d.sent(Input::Answer { status: 423, headers: &Headers::new().with("Min-Expires", "1800"), contact: CONTACT });
    assert_eq!(longer.expires_s, 1_800);
    assert!(matches!(d.answer(423, &Headers::new().with("Min-Expires", "1800")), Next::Wait(_)));
    assert!(matches!(d.answer(423, &Headers::new()), Next::Wait(_)));
}

#[test]
fn the_next_place_is_tried_at_once_and_rounds_grow_rarer() {
    let mut d = Desk::new();
    d.take(Input::Woken);
    assert_eq!(d.sent(Input::Places(vec![place(1), place(2), place(3)])).place, place(1));
    assert_eq!(d.sent(Input::Silence("no answer".into())).place, place(2));
    let Next::Send(third) = d.answer(503, &Headers::new()) else { panic!() };
    assert_eq!(third.place, place(3));
    let mut waits = Vec::new();
    for _ in 0..12 {
        waits.push(d.waits(Input::Silence("no answer".into())).as_millis());
        assert_eq!(d.take(Input::Woken), Next::Resolve);
        d.sent(Input::Places(vec![place(1)]));
    }
    for (i, wait) in waits.iter().enumerate() {
        let most = u128::from((RETRY_MS << i).min(RETRY_LIMIT_MS));
        assert!((most / 2..=most).contains(wait), "{i}: {wait}");
    }
    let told =
        d.waits(Input::Answer { status: 503, headers: &Headers::new().with("Retry-After", "299 (busy)"), contact: CONTACT });
    assert!(told >= Duration::from_secs(299), "{told:?}");
    assert!(d.waits(Input::NoPlaces("DNS".into())) >= Duration::from_millis(RETRY_LIMIT_MS / 2));
}

#[test]
fn a_registration_that_fails_to_be_renewed_holds_until_it_expires() {
    let mut d = Desk::new();
    let wait = d.registered("600");
    d.now = d.now.plus(wait);
    assert_eq!(d.sent(Input::Woken).place, place(1), "where it is held");
    assert_eq!(d.sent(Input::Silence("no answer".into())).place, place(2));
    d.waits(Input::Silence("no answer".into()));
    assert!(d.registrar.held(d.now).is_some() && d.registrar.problem() == Some("no answer"));
    assert!(d.registrar.held(NOW.plus(Duration::from_secs(600))).is_none());
}

#[test]
fn stopping_takes_it_back_and_waits_for_nobody_for_ever() {
    let mut d = Desk::new();
    assert_eq!(d.take(Input::Stop), Next::Done, "nothing to take back");
    let mut d = Desk::new();
    d.registered("600");
    assert_eq!(d.sent(Input::Stop).expires_s, 0);
    let Next::Send(again) = d.answer(401, &asked("n", false)) else { panic!() };
    assert_eq!((again.expires_s, again.authorization.is_some()), (0, true));
    assert_eq!(d.answer(200, &Headers::new()), Next::Done);
    assert!(d.registrar.held(d.now).is_none());
    for end in [Input::Silence("x".into()), Input::Answer { status: 403, headers: &Headers::new(), contact: CONTACT }] {
        let mut d = Desk::new();
        d.registered("600");
        d.sent(Input::Stop);
        assert_eq!(d.take(end), Next::Done);
    }
}

proptest! {
    #[test]
    fn whatever_comes_it_goes_on_at_a_bounded_pace(steps in prop::collection::vec((0u8..9, 0u32..4_000_000_000), 1..60), seed: u64) {
        let mut d = Desk::new();
        d.entropy = SeededEntropy::new(seed);
        let mut next = d.take(Input::Woken);
        for (kind, n) in steps {
            let n_text = n.to_string();
            let headers = asked(&n_text, n % 2 == 0).with("Retry-After", n_text.as_str()).with("Min-Expires", n_text.as_str()).with("Expires", n_text.as_str());
            let answer = |status| Input::Answer { status, headers: &headers, contact: CONTACT };
            let input = match (&next, kind) {
                (Next::Done, _) => break,
                (Next::Wait(until), _) => {
                    prop_assert!(*until >= d.now);
                    d.now = *until;
                    Input::Woken
                }
                (Next::Resolve, 0) => Input::NoPlaces("x".into()),
                (Next::Resolve, k) => Input::Places((0..k % 4).map(place).collect()),
                (Next::Send(_), 0) => Input::Silence("x".into()),
                (Next::Send(_), k) => answer([100u16, 200, 302, 401, 407, 423, 403, 503, 699][usize::from(k)]),
            };
            next = d.take(input);
        }
        let last = d.take(Input::Stop);
        prop_assert!(matches!(last, Next::Done | Next::Send(_)));
    }
}
