//! What is fuzzed: one function a target, each with bytes from the network. The fuzzer (`fuzz_targets/`) and the test that replays the
//! corpora (`tests/fuzz_corpus.rs`) both run these. A panic is a finding, and so is a promise that is not kept.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsipstack::sip::SipMessage;
use voicepay::clock::{SeededEntropy, Timestamp};
use voicepay::media::codec::Codec;
use voicepay::media::config::{MediaConfig, SrtpPolicy};
use voicepay::media::negotiated::NegotiatedMedia;
use voicepay::media::receive::Receiver;
use voicepay::media::reports::Reports;
use voicepay::media::rtcp;
use voicepay::media::srtp::{Inbound, MasterKey, Outbound, Suite};
use voicepay::media::telephone_event::KeyReceiver;
use voicepay::sip::headers::Headers;
use voicepay::sip::stir::StirConfig;
use voicepay::sip::stir::chain::{self, Roots};
use voicepay::sip::stir::statement::{self, CallFacts};
use voicepay::sip::stir::{header, http, passport, url::HttpsUrl};
use voicepay::sip::wire::framing::{Frame, Framer};
use voicepay::sip::wire::screen::{self, Framing, Verdict};
use voicepay::sip::wire::secret::WireSecret;
use voicepay::sip::{dialog, digest, identity, info, refer, reliable, sdp, session_timer};

#[path = "iso8583.rs"]
pub mod iso8583;

/// A target.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const ALL: [(&str, Target); 10] = [
    ("certificate", certificate),
    ("identity", identity_header),
    ("iso8583", iso8583::bank_stream),
    ("rtcp", rtcp_packets),
    ("rtp", rtp_packets),
    ("sdp", session_descriptions),
    ("sip_message", sip_message),
    ("sip_stream", sip_stream),
    ("srtp", srtp_packets),
    ("telephone_event", telephone_events),
];

/// Datagrams out of one input: each behind its length in two bytes, the last as long as what is left.
fn datagrams(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let (datagram, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        data = rest;
        Some(datagram)
    })
}

fn secret() -> WireSecret {
    WireSecret::new(&SeededEntropy::new(1))
}

/// A datagram on the SIP port: screening, the answer that needs no state, the stack's own parser on what passed, and every reader of
/// header fields.
pub fn sip_message(data: &[u8]) {
    let secret = secret();
    for framing in [Framing::Datagram, Framing::Stream] {
        let screened = screen::screen(data, framing, &secret);
        match &screened.verdict {
            Verdict::Pass(passed) => {
                let Ok(message) = SipMessage::try_from(passed.bytes.as_slice()) else { continue };
                let (fields, body) = match &message {
                    SipMessage::Request(request) => (&request.headers, &request.body),
                    SipMessage::Response(response) => (&response.headers, &response.body),
                };
                let mut headers = Headers::new();
                for field in fields.iter() {
                    headers.push(field.name(), field.value());
                }
                read_fields(&headers, body);
            }
            Verdict::Answer(answer) => {
                let answered =
                    voicepay::sip::wire::answer::response(&screened.text, ([127, 0, 0, 1], 5060).into(), &secret, answer);
                if let Some(answered) = answered {
                    assert!(SipMessage::try_from(answered.as_slice()).is_ok(), "an answer of ours that cannot be read");
                }
            }
            Verdict::Drop(_) => {}
        }
    }
}

fn read_fields(headers: &Headers, body: &[u8]) {
    let _claims = (identity::caller_claim(headers, true), identity::caller_claim(headers, false));
    let _timers = (session_timer::SessionExpires::of(headers), session_timer::min_se(headers), session_timer::supports(headers));
    let _reliable = (reliable::RAck::of(headers), reliable::rseq_of(headers), reliable::names_100rel(headers, "Supported"));
    let _transfers = (refer::Replaces::of(headers), refer::notified(headers, body), refer::has_one_target(headers));
    let _keys = info::keys(headers, body);
    let _dialogs = (dialog::Dialog::called(headers, "tag"), dialog::Dialog::calling(headers, "sip:a@b"));
    for name in ["Authorization", "Proxy-Authorization", "WWW-Authenticate", "Proxy-Authenticate"] {
        for value in headers.all(name) {
            let _digest = (digest::Challenge::parse(value), digest::Answer::parse(value));
        }
    }
    for value in headers.all("Identity") {
        identity_value(value);
    }
    session_descriptions(body);
}

/// A TCP or TLS stream, in pieces as they may come; whatever the pieces, the messages are the same.
pub fn sip_stream(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let in_pieces = frames(data.chunks(usize::from(*piece).max(1)));
    let at_once = frames(std::iter::once(data));
    assert_eq!(in_pieces.0, at_once.0, "the pieces change the messages");
    let secret = secret();
    for message in in_pieces.0 {
        let _verdict = screen::screen(&message, Framing::Stream, &secret).verdict;
    }
}

fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut framer, mut messages) = (Framer::default(), Vec::new());
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_frame() {
                Ok(Some(Frame::Message(message))) => messages.push(message),
                Ok(Some(Frame::Ping)) => {}
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

/// An offer or answer, under every policy on encryption; then as the next offer of the call that came of it.
pub fn session_descriptions(data: &[u8]) {
    let Ok(session) = sdp::parse(data) else { return };
    let local = sdp::LocalAudio { address: [127, 0, 0, 1].into(), port: 40_000, session_id: 1, version: 1 };
    let entropy = SeededEntropy::new(3);
    for srtp in [SrtpPolicy::Off, SrtpPolicy::Offered, SrtpPolicy::Required] {
        let policy = sdp::AudioPolicy::new(&MediaConfig::default(), Some(srtp), true);
        let offered = sdp::offer(&local, sdp::Direction::SendRecv, &policy, None, &entropy);
        let _agreed = offered.agreed(&session);
        let Ok((text, remote)) = sdp::answer(&session, &local, &policy, None, &entropy) else { continue };
        assert!(sdp::parse(text.as_bytes()).is_ok(), "an answer of ours that cannot be read");
        let again = sdp::offer(&local, sdp::Direction::SendOnly, &policy, Some(&remote.media), &entropy);
        assert!(sdp::parse(again.text().as_bytes()).is_ok(), "an offer of ours that cannot be read");
        let _same = sdp::answer(&session, &local, &policy, Some(&remote.media), &entropy);
    }
}

/// RTP of one call: the first byte chooses the codec, then datagrams and the pace at which frames are taken.
pub fn rtp_packets(data: &[u8]) {
    let Some((chosen, data)) = data.split_first() else { return };
    let (codec, payload_type) = match chosen % 4 {
        0 => (Codec::Pcmu, 0),
        1 => (Codec::Pcma, 8),
        2 => (Codec::G722, 9),
        _ => (Codec::Opus, 96),
    };
    let media = NegotiatedMedia::new(codec, payload_type).with_telephone_event(101, codec.rtp_clock_hz());
    let mut receiver = Receiver::new(&MediaConfig::default(), media);
    for (n, datagram) in (0u64..).zip(datagrams(data).take(200)) {
        let now = Duration::from_millis(11 * n);
        let _taken = receiver.take(now, datagram);
        if n % 2 == 0 {
            let frame = receiver.frame(now);
            assert!(frame.samples.len() <= 960, "a frame of 20 ms at most 48 kHz");
        }
    }
}

/// RTCP of one call.
pub fn rtcp_packets(data: &[u8]) {
    let mut reports = Reports::new(1, "a@b".to_owned(), 7, Duration::ZERO);
    for (n, datagram) in (1u64..).zip(datagrams(data).take(100)) {
        let _read = rtcp::read(datagram, |_| ());
        let _told = (rtcp::is_rtcp(datagram), reports.take(Duration::from_millis(500 * n), datagram));
    }
    let _known = (reports.peer_hears(), reports.round_trip());
}

/// Telephone events: each datagram is SSRC, sequence number, timestamp, marker, payload.
pub fn telephone_events(data: &[u8]) {
    let (mut keys, mut heard, mut given) = (KeyReceiver::new(), 0usize, 0usize);
    for datagram in datagrams(data) {
        let Some((numbers, payload)) = datagram.split_first_chunk::<11>() else { continue };
        let [a, b, c, d, high, low, e, f, g, h, marker] = *numbers;
        let (ssrc, sequence, timestamp) = ([a, b, c, d], [high, low], [e, f, g, h]);
        let (ssrc, sequence, timestamp) = (u32::from_be_bytes(ssrc), u16::from_be_bytes(sequence), u32::from_be_bytes(timestamp));
        let key = keys.take(ssrc, sequence, timestamp, marker & 1 == 1, payload);
        heard += usize::from(key.is_some());
        given += 1;
    }
    assert!(heard <= given, "more keys than packets");
}

/// SRTP and SRTCP under a key that the fuzzer does not know, and what was protected by us, which must come back.
pub fn srtp_packets(data: &[u8]) {
    let Some((chosen, data)) = data.split_first() else { return };
    let suite = Suite::ALL[usize::from(*chosen) % Suite::ALL.len()];
    let key = MasterKey::generate(suite, &SeededEntropy::new(2));
    let (mut inbound, mut outbound, mut back) = (Inbound::new(&key), Outbound::new(&key), Inbound::new(&key));
    for datagram in datagrams(data).take(50) {
        let _opened = (inbound.unprotect_rtp(&mut datagram.to_vec()), inbound.unprotect_rtcp(&mut datagram.to_vec()));
        let mut sealed = datagram.to_vec();
        if outbound.protect_rtp(&mut sealed).is_ok()
            && let Ok(length) = back.unprotect_rtp(&mut sealed)
        {
            assert_eq!(&sealed[..length], datagram, "what was protected does not come back");
        }
    }
}

/// The value of an Identity header, what its certificate's server may answer, and a URL.
pub fn identity_header(data: &[u8]) {
    let _answer = (http::read(data, true, 16_384), http::read(data, false, 16_384));
    if let Ok(text) = std::str::from_utf8(data) {
        identity_value(text);
        let _url = HttpsUrl::parse(text);
    }
    // The fuzzer does not know base64: a PASSporT's header and claims, a nought between, put into a token.
    if let Some(at) = data.iter().position(|b| *b == 0) {
        let (header, claims) = (&data[..at], &data[at + 1..]);
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let token = format!("{}.{}.{}", encode(header), encode(claims), encode(&[7; 64]));
        identity_value(&format!("{token};info=<https://certs.example.org/a.pem>;alg=ES256;ppt=shaken"));
    }
}

fn identity_value(value: &str) {
    let Ok(parsed) = header::parse(value) else { return };
    let _token = (passport::decode(parsed.token), passport::kind(parsed.token), passport::is_plain(parsed.token));
    let call = CallFacts {
        calling: Some("+12155550121"),
        called: &["sip:+12155550131@localhost"],
        date: Some("Tue, 14 Nov 2023 22:13:20 GMT"),
        default_country: "",
    };
    let config = StirConfig { allowed_hosts: vec!["*.example.org".parse().expect("a host")], ..StirConfig::default() };
    let _statement = statement::find([value].into_iter(), &call, &config, Timestamp(1_700_000_000_000));
}

/// What a certificate's server sends: a chain; and the files of an operator.
pub fn certificate(data: &[u8]) {
    let roots = Roots::from_pem(data);
    let _lists = Roots::default().with_revoked(data);
    let now = Timestamp(1_800_000_000_000);
    let _unknown = chain::validate(data, &Roots::default(), now);
    if let Ok(roots) = roots {
        let _own = chain::validate(data, &roots, now);
    }
}
