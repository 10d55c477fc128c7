//! Rules of offer and answer, one by one.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::clock::{Entropy, SeededEntropy};
use crate::media::negotiated::{OpusBitrate, RtcpPath};
use crate::media::rtp_session::TelephoneEvent;
use crate::media::srtp::Suite;

pub(super) const LOCAL: LocalAudio =
    LocalAudio { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 40_000, session_id: 7, version: 1 };
const KEY: &str = "PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";

fn entropy() -> SeededEntropy {
    SeededEntropy::new(5)
}

pub(super) fn policy() -> AudioPolicy {
    AudioPolicy::new(&MediaConfig::default(), None, true)
}

fn narrow() -> AudioPolicy {
    AudioPolicy { codecs: vec![Codec::Pcmu], ..policy() }
}

fn offered_to(policy: &AudioPolicy, body: &str) -> Result<(String, RemoteAudio), SdpError> {
    let text = format!("v=0\r\no=a 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n{body}");
    parse(text.as_bytes()).and_then(|s| answer(&s, &LOCAL, policy, None, &entropy()))
}

fn offered(body: &str) -> Result<(String, RemoteAudio), SdpError> {
    offered_to(&policy(), body)
}

const C: &str = "c=IN IP4 192.0.2.1\r\n";

#[test]
fn a_plain_offer_is_answered_with_pcmu_and_telephone_events() {
    let (text, remote) = offered(
        "c=IN IP4 192.0.2.1\r\nm=audio 49170 RTP/AVP 8 0 96\r\na=rtpmap:96 telephone-event/8000\r\na=fmtp:96 0-16\r\na=ptime:30\r\n",
    )
    .unwrap();
    assert_eq!(remote.address.to_string(), "192.0.2.1");
    let event = Some(TelephoneEvent { payload_type: 96, clock_hz: 8_000 });
    assert_eq!((remote.port, remote.media.payload_type, remote.ptime_ms), (49_170, 0, Some(30)));
    assert_eq!((remote.media.codec, remote.media.telephone_event), (Codec::Pcmu, event));
    assert!(text.contains("m=audio 40000 RTP/AVP 0 96\r\n") && text.contains("a=rtpmap:96 telephone-event/8000\r\n"), "{text}");
    assert!(text.contains("c=IN IP4 127.0.0.1\r\n") && text.ends_with("a=sendrecv\r\n"), "{text}");
}

#[test]
fn media_lines_override_what_the_session_says() {
    let (_, remote) =
        offered("c=IN IP4 192.0.2.1\r\na=inactive\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 192.0.2.9\r\na=sendrecv\r\n").unwrap();
    assert_eq!((remote.address.to_string().as_str(), remote.direction), ("192.0.2.9", Direction::SendRecv));
    let (text, remote) = offered("c=IN IP4 192.0.2.1\r\na=sendonly\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
    assert_eq!(remote.direction, Direction::SendOnly);
    assert!(text.contains("a=recvonly"), "{text}");
    let (text, remote) = offered("c=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
    assert!(remote.address.is_unspecified() && text.contains("a=recvonly"), "{text}");
    let (text, _) = offered("c=IN IP4 0.0.0.0\r\na=inactive\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
    assert!(text.contains("a=inactive"), "{text}");
}

#[test]
fn streams_that_we_do_not_do_are_refused_in_their_place() {
    let (text, _) =
        offered("c=IN IP6 2001:db8::1\r\nm=video 5000 RTP/AVP 96\r\nm=audio 4000 RTP/AVP 0\r\nm=audio 4002 RTP/AVP 0\r\n")
            .unwrap();
    let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("m=")).collect();
    assert_eq!(lines, ["m=video 0 RTP/AVP 96", "m=audio 40000 RTP/AVP 0", "m=audio 0 RTP/AVP 0"]);
}

#[test]
fn a_payload_type_counts_by_its_mapping() {
    let (text, remote) = offered("c=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 98\r\na=rtpmap:98 PCMU/8000/1\r\n").unwrap();
    assert_eq!(remote.media.payload_type, 98);
    assert!(text.contains("m=audio 40000 RTP/AVP 98\r\na=rtpmap:98 PCMU/8000\r\n"), "{text}");
    // A mapping may take 0 away.
    let error = offered(&format!("{C}m=audio 4000 RTP/AVP 0\r\na=rtpmap:0 X/8000\r\n")).unwrap_err();
    assert!(error.to_string().starts_with("no codec in common: one of opus, G722, PCMU, PCMA"), "{error}");
    // G.722 at the clock that its audio has is none that anybody speaks.
    assert!(offered(&format!("{C}m=audio 4000 RTP/AVP 97\r\na=rtpmap:97 G722/16000\r\n")).is_err());
    let (_, remote) = offered(&format!("{C}m=audio 4000 RTP/AVP 97\r\na=rtpmap:97 opus/48000\r\n")).unwrap();
    assert_eq!(remote.media.codec, Codec::Opus, "without its 2");
}

#[test]
fn our_preference_decides_among_the_codecs_of_an_offer() {
    let all = format!("{C}m=audio 4000 RTP/AVP 0 8 9 96\r\na=rtpmap:96 opus/48000/2\r\n");
    for (codecs, first) in [
        (vec![Codec::Opus, Codec::G722], Codec::Opus),
        (vec![Codec::G722, Codec::Opus, Codec::Pcmu], Codec::G722),
        (vec![Codec::Pcma], Codec::Pcma),
    ] {
        let (text, remote) = offered_to(&AudioPolicy { codecs, ..policy() }, &all).unwrap();
        assert_eq!(remote.media.codec, first, "{text}");
    }
    // In the middle of a call what is spoken goes on.
    let session = parse(format!("v=0\r\n{all}").as_bytes()).unwrap();
    let before = NegotiatedMedia::new(Codec::Pcma, 8);
    let (_, remote) = answer(&session, &LOCAL, &policy(), Some(&before), &entropy()).unwrap();
    assert_eq!(remote.media.codec, Codec::Pcma);
}

#[test]
fn events_are_taken_at_the_audios_clock_or_at_the_one_that_there_is() {
    let events = |offer: &str| {
        let (text, remote) = offered(&format!("{C}{offer}")).unwrap();
        if let Some(event) = remote.media.telephone_event {
            let line = format!("a=rtpmap:{} telephone-event/{}\r\n", event.payload_type, event.clock_hz);
            assert!(text.contains(&line), "{text}");
        }
        remote.media.telephone_event.map(|e| (e.payload_type, e.clock_hz))
    };
    let opus = "a=rtpmap:96 opus/48000/2\r\n";
    let both = "a=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\n";
    assert_eq!(events(&format!("m=audio 4000 RTP/AVP 96 101 102\r\n{opus}{both}")), Some((102, 48_000)));
    assert_eq!(events(&format!("m=audio 4000 RTP/AVP 0 101 102\r\n{both}")), Some((101, 8_000)));
    assert_eq!(events(&format!("m=audio 4000 RTP/AVP 96 101\r\n{opus}{both}")), Some((101, 8_000)), "for want of a better one");
    assert_eq!(events(&format!("m=audio 4000 RTP/AVP 0 102\r\n{both}")), Some((102, 48_000)));
    assert_eq!(events("m=audio 4000 RTP/AVP 0 101\r\n"), None, "101 has no meaning of its own");
    assert_eq!(events("m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/0\r\n"), None);
}

#[test]
fn comfort_noise_is_agreed_where_the_clocks_are_the_same() {
    let (text, remote) = offered(&format!("{C}m=audio 4000 RTP/AVP 0 13\r\n")).unwrap();
    assert!(remote.media.comfort_noise == Some(13) && text.contains("m=audio 40000 RTP/AVP 0 13\r\na=rtpmap:0 PCMU"), "{text}");
    let (text, remote) = offered(&format!("{C}m=audio 4000 RTP/AVP 96 13\r\na=rtpmap:96 opus/48000/2\r\n")).unwrap();
    assert!(remote.media.comfort_noise.is_none() && text.contains("m=audio 40000 RTP/AVP 96\r\n"), "{text}");
}

#[test]
fn rtcp_goes_where_the_offer_says() {
    let path = |lines: &str| offered(&format!("{C}m=audio 4000 RTP/AVP 0\r\n{lines}")).unwrap();
    assert_eq!(path("").1.media.rtcp, RtcpPath::NextPort);
    let (text, remote) = path("a=rtcp-mux\r\n");
    assert!(remote.media.rtcp == RtcpPath::Muxed && text.contains("a=rtcp-mux\r\n"), "{text}");
    assert_eq!(path("a=rtcp:53020\r\n").1.media.rtcp, RtcpPath::At("192.0.2.1:53020".parse().unwrap()));
    assert_eq!(path("a=rtcp:53020 IN IP4 192.0.2.7\r\n").1.media.rtcp, RtcpPath::At("192.0.2.7:53020".parse().unwrap()));
    assert_eq!(path("a=rtcp:0\r\n").1.media.rtcp, RtcpPath::NextPort);
    assert!(!path("a=rtcp:53020\r\n").0.contains("a=rtcp"));
}

#[test]
fn what_cannot_be_agreed_says_why() {
    let why = |body: &str| offered_to(&narrow(), body).unwrap_err();
    assert!(why(C).to_string().contains("no audio stream"));
    assert_eq!(why(&format!("{C}m=audio 0 RTP/AVP 0\r\n")).warn_code(), 304);
    assert_eq!(why(&format!("{C}m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\na=fingerprint:sha-256 A\r\n")).warn_code(), 302);
    assert_eq!(why(&format!("{C}m=audio 4000 RTP/AVP 8 9 18\r\n")).warn_code(), 305);
    assert_eq!(why("c=IN IP4 host.example\r\nm=audio 4000 RTP/AVP 0\r\n").warn_code(), 301);
    assert_eq!(why("m=audio 4000 RTP/AVP 0\r\n").status(), 488);
}

#[test]
fn encryption_follows_the_policy() {
    use SrtpPolicy::{Off, Offered, Required};
    let good = format!("a=crypto:1 F8_128_HMAC_SHA1_80 inline:{KEY}\r\na=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20\r\n");
    let bad = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:4\r\n");
    for (srtp, profile, keys, expected) in [
        (Off, "AVP", "", Ok(false)),
        (Off, "AVP", &*good, Ok(false)),
        (Off, "SAVP", &good, Err("switched off")),
        (Offered, "AVP", "", Ok(false)),
        (Offered, "AVPF", "", Ok(false)),
        (Offered, "AVP", &good, Ok(true)),
        (Offered, "AVP", &bad, Ok(false)),
        (Offered, "SAVP", &good, Ok(true)),
        (Offered, "SAVPF", &good, Ok(true)),
        (Offered, "SAVP", &bad, Err("no usable a=crypto")),
        (Offered, "SAVP", "", Err("no usable a=crypto")),
        (Required, "AVP", "", Err("SRTP is needed here")),
        (Required, "AVP", &bad, Err("SRTP is needed here")),
        (Required, "AVP", &good, Ok(true)),
        (Required, "SAVP", &good, Ok(true)),
    ] {
        let what = format!("{srtp:?} {profile} {keys}");
        let outcome = offered_to(&AudioPolicy { srtp, ..policy() }, &format!("{C}m=audio 4000 RTP/{profile} 0\r\n{keys}"));
        match (outcome, expected) {
            (Ok((text, remote)), Ok(encrypted)) => {
                assert_eq!(remote.media.srtp.is_some(), encrypted, "{what}");
                assert!(text.contains(&format!("m=audio 40000 RTP/{profile} 0\r\n")), "{what}: {text}");
                assert_eq!(text.contains("a=crypto:4 AES_CM_128_HMAC_SHA1_80 inline:"), encrypted, "{what}: {text}");
                assert!(!text.contains(KEY), "our own key, not theirs");
            }
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{what}: {error}");
                assert_eq!((error.status(), error.warn_code()), (488, 302));
            }
            (outcome, _) => panic!("{what}: {outcome:?}"),
        }
    }
}

#[test]
fn an_encrypted_stream_is_preferred_and_a_short_tag_is_the_last_resort() {
    let short = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:{KEY}\r\n");
    let long = format!("a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n");
    let (text, remote) = offered(&format!("{C}m=audio 4000 RTP/AVP 0\r\nm=audio 4002 RTP/SAVP 0\r\n{short}{long}")).unwrap();
    assert!(text.contains("m=audio 0 RTP/AVP 0\r\nm=audio 40000 RTP/SAVP 0\r\n") && remote.port == 4_002, "{text}");
    assert_eq!(remote.media.srtp.unwrap().theirs.suite(), Suite::AesCm128HmacSha1_80);
    let (_, remote) = offered(&format!("{C}m=audio 4000 RTP/SAVP 0\r\n{short}")).unwrap();
    assert_eq!(remote.media.srtp.unwrap().theirs.suite(), Suite::AesCm128HmacSha1_32);
}

#[test]
fn our_key_stays_while_its_suite_does_and_theirs_may_change() {
    let text = |key: &str| format!("v=0\r\n{C}m=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n");
    let first = parse(text(KEY).as_bytes()).unwrap();
    let (_, before) = answer(&first, &LOCAL, &policy(), None, &entropy()).unwrap();
    let second = parse(text(&KEY.replace('P', "Q")).as_bytes()).unwrap();
    let (_, after) = answer(&second, &LOCAL, &policy(), Some(&before.media), &SeededEntropy::new(99)).unwrap();
    let (before, after) = (before.media.srtp.unwrap(), after.media.srtp.unwrap());
    assert!(before.ours == after.ours && before.theirs != after.theirs);
    // And a call that is encrypted stays so.
    let encrypted = NegotiatedMedia { srtp: Some(after), ..NegotiatedMedia::new(Codec::Pcmu, 0) };
    let clear = parse(format!("v=0\r\n{C}m=audio 4000 RTP/AVP 0\r\n").as_bytes()).unwrap();
    assert_eq!(answer(&clear, &LOCAL, &policy(), Some(&encrypted), &entropy()).unwrap_err().warn_code(), 302);
}

#[test]
fn our_own_offers_list_every_codec_and_are_agreed_with_whatever_the_answer_takes() {
    let ours = offer(&LOCAL, Direction::SendRecv, &AudioPolicy { secure_signalling: false, ..policy() }, None, &entropy());
    let text = ours.text();
    assert!(text.contains("m=audio 40000 RTP/AVP 111 9 0 8 13 101 110\r\n") && !text.contains("crypto"), "{text}");
    assert!(text.contains("a=rtpmap:111 opus/48000/2\r\na=fmtp:111 maxplaybackrate=16000;"), "{text}");
    // Answered by ourselves, with each codec in turn; the answer's numbers are for what we send, ours for what we hear.
    for codec in [Codec::Opus, Codec::G722, Codec::Pcmu, Codec::Pcma] {
        let session = parse(text.as_bytes()).unwrap();
        let them = AudioPolicy { codecs: vec![codec], ..policy() };
        let (reply, heard) = answer(&session, &LOCAL, &them, None, &entropy()).unwrap();
        let agreed = ours.agreed(&parse(reply.as_bytes()).unwrap()).unwrap();
        assert_eq!((agreed.media.codec, agreed.media.payload_type), (codec, heard.media.payload_type));
        let clock = agreed.media.telephone_event.unwrap().clock_hz;
        assert_eq!((clock, agreed.media.rtcp), (codec.rtp_clock_hz(), RtcpPath::Muxed));
    }
    let renumbered = format!("v=0\r\n{C}m=audio 4000 RTP/AVP 96\r\na=rtpmap:96 opus/48000/2\r\n");
    let agreed = ours.agreed(&parse(renumbered.as_bytes()).unwrap()).unwrap();
    assert_eq!((agreed.media.payload_type, agreed.media.payload_type_heard), (96, 111));
    let asks = renumbered.clone() + "a=fmtp:96 maxaveragebitrate=12000;useinbandfec=1\r\n";
    let agreed = ours.agreed(&parse(asks.as_bytes()).unwrap()).unwrap();
    assert_eq!(agreed.media.opus, OpusBitrate::of("maxaveragebitrate=12000"));
    // The answer's order says what will be sent.
    let several = format!("v=0\r\n{C}m=audio 4000 RTP/AVP 8 0 9\r\n");
    assert_eq!(ours.agreed(&parse(several.as_bytes()).unwrap()).unwrap().media.codec, Codec::Pcma);
    let refused = format!("v=0\r\n{C}m=audio 0 RTP/AVP 0\r\n");
    assert_eq!(ours.agreed(&parse(refused.as_bytes()).unwrap()).unwrap_err().warn_code(), 304);
}

#[test]
fn our_own_offers_carry_keys_over_tls_and_only_one_of_them_is_agreed() {
    let ours = offer(&LOCAL, Direction::SendRecv, &policy(), None, &entropy());
    assert!(ours.text().contains("m=audio 40000 RTP/SAVP ") && ours.text().matches("a=crypto:").count() == 4, "{ours:?}");
    assert!(!format!("{ours:?}").contains("inline"));
    let session = parse(ours.text().as_bytes()).unwrap();
    assert!(!format!("{session:?}").contains("inline"));
    let (reply, theirs) = answer(&session, &LOCAL, &policy(), None, &SeededEntropy::new(77)).unwrap();
    let agreed = ours.agreed(&parse(reply.as_bytes()).unwrap()).unwrap();
    let (a, b) = (agreed.media.srtp.clone().unwrap(), theirs.media.srtp.unwrap());
    assert!(a.ours == b.theirs && a.theirs == b.ours && a.ours.suite() == Suite::AeadAes256Gcm);
    // In the call the same again; and answers in the clear, or under another tag, are none.
    let again = offer(&LOCAL, Direction::SendOnly, &policy(), Some(&agreed.media), &SeededEntropy::new(3));
    assert!(again.text().matches("a=crypto:").count() == 1 && again.text().contains("a=sendonly"), "{}", again.text());
    let clear = reply.replace("RTP/SAVP", "RTP/AVP").lines().filter(|l| !l.contains("crypto")).collect::<Vec<_>>().join("\r\n");
    assert_eq!(ours.agreed(&parse(clear.as_bytes()).unwrap()).unwrap_err().warn_code(), 302);
    let other = reply.replace("a=crypto:1", "a=crypto:3");
    assert_eq!(ours.agreed(&parse(other.as_bytes()).unwrap()).unwrap_err().warn_code(), 302);
}

#[test]
fn what_breaks_the_grammar_is_malformed() {
    for bad in ["", "hello", "v=1\r\n", "\r\n\r\n", "v=0\r\nnonsense\r\n", "v=0\r\nmm=1\r\n"] {
        assert_eq!(parse(bad.as_bytes()).unwrap_err().status(), 400, "{bad:?}");
    }
    for bad in ["m=audio\r\n", "m=audio x RTP/AVP 0\r\n", "m=audio 70000 RTP/AVP 0\r\n", "m=audio 4000 RTP/AVP\r\n", "c=IN\r\n"] {
        assert_eq!(offered(bad).unwrap_err().status(), 400, "{bad:?}");
    }
    assert_eq!(offered("m=audio 4000 RTP/AVP 0\r\na=rtpmap:300 PCMU/8000\r\n").unwrap_err().status(), 400);
    assert_eq!(parse(&vec![b'a'; SDP_LIMIT_BYTES + 1]).unwrap_err().status(), 400);
    assert_eq!(offered(&"m=video 0 RTP/AVP 9\r\n".repeat(SDP_LIMIT_MEDIA + 1)).unwrap_err().status(), 400);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _judged = parse(&bytes).and_then(|s| answer(&s, &LOCAL, &policy(), None, &entropy()));
    }

    #[test]
    fn no_near_miss_makes_it_panic(
        lines in proptest::collection::vec(
            "[vmcaosbt]=(audio|rtpmap:|IN IP4|ptime:|RTP/AVP|RTP/SAVP|crypto:|inline:|rtcp:|opus/48000/2|[0-9]{1,6}|[a-z/:. |]|é){0,12}",
            0..20,
        ),
        seed in any::<u64>(),
    ) {
        let text = format!("v=0\r\n{}", lines.join("\r\n"));
        let entropy: &dyn Entropy = &SeededEntropy::new(seed);
        if let Ok(session) = parse(text.as_bytes()) {
            if let Ok((answered, remote)) = answer(&session, &LOCAL, &policy(), None, entropy) {
                prop_assert!(parse(answered.as_bytes()).is_ok());
                prop_assert!(remote.port != 0);
            }
            let _judged = offer(&LOCAL, Direction::SendRecv, &policy(), None, entropy).agreed(&session);
        }
    }
}
