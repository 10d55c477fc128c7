//! Screening by itself: what is passed on reads like this, and no bytes make it panic. RFC 4475 through the real listener is
//! in `torture_tests.rs`.

use proptest::prelude::*;

use super::*;
use crate::clock::SeededEntropy;

fn secret() -> WireSecret {
    WireSecret::new(&SeededEntropy::new(7))
}

fn verdict(message: &str) -> Verdict {
    screen(message.as_bytes(), Framing::Datagram, &secret()).verdict
}

fn passed(message: &str) -> String {
    match verdict(message) {
        Verdict::Pass(p) => String::from_utf8(p.bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn status(message: &str) -> u16 {
    match verdict(message) {
        Verdict::Answer(a) => a.status,
        other => panic!("{other:?}"),
    }
}

const OPTIONS: &str = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>\r\n\
                       Call-ID: i\r\nCSeq: 1 OPTIONS\r\n\r\n";

#[test]
fn the_stack_gets_one_form_whatever_came() {
    let odd = "OPTIONS sip:a@b SIP/2.0\r\ncseq: 0009\r\n  OPTIONS\r\nMaX-fOrWaRdS: 0068\r\nTO :\r\n sip:a@b ;  tag  = 19\r\n\
               from: \"J \\\\\\\"\"   <sip:c@d>\r\n  ;\r\n  tag = 98\r\nDate: Fri, 01 Jan 2010 16:00:00 EST\r\n\
               v:  SIP  / 2.0\r\n /UDP\r\n    192.0.2.2 ; branch = z9hG4bKx , SIP/2.0/TCP k\r\ni: c@1\r\nX-Odd:  y \r\n\r\nbody";
    let want = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKx\r\nVia: SIP/2.0/TCP k\r\nFrom: <sip:c@d>;tag=98\r\n\
                To: <sip:a@b>;tag=19\r\nCall-ID: c@1\r\nCSeq: 9 OPTIONS\r\nMax-Forwards: 68\r\nX-Odd: y\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(passed(odd), want);
    assert_eq!(passed(want), want, "it is its own form");
}

#[test]
fn requests_are_judged_in_the_order_of_rfc_3261() {
    let with = |from: &str, to: &str| OPTIONS.replacen(from, to, 1);
    passed(OPTIONS);
    assert_eq!(status(&with(" SIP/2.0\r\nVia", " SIP/7.0\r\nVia")), 505);
    assert_eq!(status(&with("OPTIONS sip:a@b SIP", "OPTIONS  sip:a@b SIP")), 400);
    assert_eq!(status(&with("sip:a@b SIP/2.0", "sip:a@b SIP/2.0 ")), 400);
    assert_eq!(status(&with("sip:a@b SIP/2.0", "<sip:a@b> SIP/2.0")), 400);
    assert_eq!(status(&with("sip:a@b SIP/2.0", "sip:a@b?Route=%3Cx%3E SIP/2.0")), 400);
    assert_eq!(status(&with("sip:a@b SIP/2.0", "nobodyKnows:it SIP/2.0")), 416);
    assert_eq!(status(&OPTIONS.replace("OPTIONS", "NOVEL")), 405);
    assert_eq!(status(&with("Call-ID: i", "Call-ID: i\r\ni: j")), 400);
    assert_eq!(status(&with("Call-ID: i\r\n", "")), 400);
    assert_eq!(status(&with("branch=z9hG4bK1", "branch=z9hG4bK")), 400);
    assert_eq!(status(&with("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nab")), 400);
    assert_eq!(status(&with("\r\n\r\n", &format!("\r\n\r\n{}", "x".repeat(BODY_LIMIT_BYTES + 1)))), 413);
    assert!(passed(&with("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nabcd")).ends_with("Content-Length: 2\r\n\r\nab"));
    assert_eq!(
        verdict(&OPTIONS.replace("OPTIONS", "ACK").replace("CSeq: 1", "CSeq: one")),
        Verdict::Drop("an ACK that can't be used")
    );
    assert_eq!(verdict("GET / HTTP/1.1\r\n\r\n"), Verdict::Drop("not SIP"));
}

#[test]
fn a_stream_needs_a_length() {
    let screened = screen(OPTIONS.as_bytes(), Framing::Stream, &secret());
    assert!(matches!(screened.verdict, Verdict::Answer(Answer { status: 400, .. })));
}

#[test]
fn a_caller_of_rfc_2543_gets_what_the_stack_needs() {
    let old =
        "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:c@d>\r\nTo: sip:a@b\r\nCall-ID: i\r\nCSeq: 5 INVITE\r\n\r\n";
    let text = passed(old);
    assert!(text.contains("Contact: <sip:c@d>\r\n") && text.contains(";tag=rfc2543-"), "{text}");
    let outside = secret().without_old_tags(text.as_bytes()).unwrap();
    assert!(!String::from_utf8(outside).unwrap().contains("tag="));
    // With RFC 3261's branch the tag is due.
    assert_eq!(status(&old.replace("UDP h", "UDP h;branch=z9hG4bK1")), 400);
}

#[test]
fn responses_are_passed_or_dropped_never_answered() {
    let ok = "SIP/2.0 200 \u{043e}\u{043a}\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:c@d>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n\
              Call-ID: i\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    assert!(passed(ok).starts_with("SIP/2.0 200 \u{043e}\u{043a}\r\n"));
    assert!(passed(&ok.replace("200 \u{043e}\u{043a}", "100 ")).starts_with("SIP/2.0 100 \r\n"));
    for (from, to) in [
        ("SIP/2.0 200", "SIP/2.0 4294967301"),
        ("SIP/2.0 200", "SIP/2.0 099"),
        ("CSeq: 1 ", "CSeq: 9292394834772304023312 "),
        ("From", "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK2\r\nFrom"),
        ("Content-Length: 0", "Content-Length: 9"),
    ] {
        assert!(matches!(verdict(&ok.replacen(from, to, 1)), Verdict::Drop(_)), "{to}");
    }
}

#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
fn what_screening_costs() {
    let invite = OPTIONS.replace("OPTIONS", "INVITE").replace(
        "\r\n\r\n",
        "\r\nContact: <sip:c@d>\r\nMax-Forwards: 70\r\nUser-Agent: x\r\nAllow: INVITE, ACK\r\nSupported: timer\r\n\
         Content-Type: application/sdp\r\n\r\nv=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 8 101\r\n",
    );
    let garbage = vec![0x55; 1_400];
    for (name, message) in [("INVITE", invite.as_bytes()), ("garbage", garbage.as_slice())] {
        let (began, rounds) = (tokio::time::Instant::now(), 20_000);
        for _ in 0..rounds {
            std::hint::black_box(screen(message, Framing::Datagram, &secret()));
        }
        println!("{name}: {} bytes in {:.1} us", message.len(), began.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        screen(&bytes, Framing::Datagram, &secret());
    }

    #[test]
    fn what_passes_is_its_own_form(cut in 0usize..300, put in "[ -~\r\n\t]{0,12}", at in 0usize..300) {
        let mut bytes = OPTIONS.as_bytes().to_vec();
        bytes.truncate(cut.max(20));
        let at = at.min(bytes.len());
        bytes.splice(at..at, put.into_bytes());
        for message in [bytes, [&OPTIONS.as_bytes()[..at.min(OPTIONS.len())], OPTIONS.as_bytes()].concat()] {
            if let Verdict::Pass(once) = screen(&message, Framing::Datagram, &secret()).verdict {
                let Verdict::Pass(twice) = screen(&once.bytes, Framing::Stream, &secret()).verdict else {
                    panic!("{}", String::from_utf8_lossy(&once.bytes))
                };
                prop_assert_eq!(once.bytes, twice.bytes);
            }
        }
    }
}
