//! Each codec over tones, noise and recorded speech: alone, and from `Sender` to `Receiver` in memory.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rtp_rs::RtpPacketBuilder;

use super::*;
use crate::clock::SeededEntropy;
use crate::media::config::MediaConfig;
use crate::media::leg::Sound;
use crate::media::negotiated::{NegotiatedMedia, OpusBitrate};
use crate::media::receive::{Receiver, Taken};
use crate::media::resample::{resample_whole, round};
use crate::media::send::Sender;
use crate::media::srtp::{MasterKey, SrtpKeys, Suite};

const ALL: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];

fn tone(hz: f64, rate: SampleRate, seconds: usize) -> Vec<i16> {
    let rate = f64::from(rate.hz());
    (0..rate as usize * seconds).map(|n| round(9_000.0 * (2.0 * std::f64::consts::PI * hz * n as f64 / rate).sin())).collect()
}

/// Three seconds of a card number being read, at this rate.
fn speech(rate: SampleRate) -> Vec<i16> {
    let bytes = include_bytes!("../../audio-fixtures/alice/card.wav");
    let sound = crate::media::wav::read_wav_bytes(std::path::Path::new("card.wav"), bytes).unwrap();
    let whole: Vec<f32> = sound.samples.iter().take(24_000).map(|s| f32::from(*s)).collect();
    resample_whole(&whole, sound.rate, rate).into_iter().map(|s| round(f64::from(s))).collect()
}

/// White noise through a one-pole filter, as loud as a noisy street.
fn noise(samples: usize) -> Vec<i16> {
    let entropy = SeededEntropy::new(4);
    let entropy: &dyn crate::clock::Entropy = &entropy;
    let mut last = 0.0;
    let mut next = || {
        last = 0.5 * last + f64::from(i16::from_be_bytes(entropy.bytes())) / 12.0;
        round(last)
    };
    (0..samples).map(|_| next()).collect()
}

/// Signal to noise in decibels of `heard` against `said`, at the delay (up to 80 ms) and level at which they agree best.
fn likeness_db(said: &[i16], heard: &[i16], rate: SampleRate) -> f64 {
    let longest = rate.samples_in(Duration::from_millis(80));
    let dot = |a: &[i16], b: &[i16]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let at = |lag: usize| {
        let heard = &heard[lag..];
        let length = said.len().min(heard.len());
        (&said[..length], &heard[..length])
    };
    // A few of the samples find the delay.
    let few = |s: &[i16]| s.iter().step_by(7).copied().collect::<Vec<i16>>();
    let delay = (0..longest)
        .max_by_key(|lag| {
            let (said, heard) = at(*lag);
            dot(&few(said), &few(heard)) as i64
        })
        .unwrap();
    let (said, heard) = at(delay);
    let (energy, cross) = (dot(said, said), dot(said, heard));
    let left = energy - cross * cross / dot(heard, heard).max(1.0);
    if cross <= 0.0 { 0.0 } else { 10.0 * (energy / left.max(1e-9)).log10() }
}

// What the reference implementation of Opus (1.3.1) gives for this recording is 8.4 dB, at any bit rate: its high-pass filter for
// voice turns the phase of what is below 200 Hz. Its packets decode here to the very same samples as there.
const OPUS_SPEECH_DB: f64 = 8.0;

/// Encoded in packets of so many milliseconds and decoded.
fn round_trip(codec: Codec, said: &[i16], packet_ms: u64) -> Vec<i16> {
    let (mut encoder, mut decoder) = (codec.encoder(OpusBitrate::default()), codec.decoder());
    let samples = codec.rate().samples_in(Duration::from_millis(packet_ms));
    let mut heard = Vec::new();
    for chunk in said.chunks_exact(samples) {
        let mut payload = Vec::new();
        assert!(encoder.encode(chunk, &mut payload), "{codec:?} {packet_ms} ms");
        assert_eq!(u64::from(codec.payload_units(&payload).unwrap()) * 1_000, packet_ms * u64::from(codec.rtp_clock_hz()));
        assert!(decoder.decode(&payload, &mut heard), "{codec:?} {packet_ms} ms");
    }
    assert_eq!(heard.len(), said.len() / samples * samples);
    heard
}

#[test]
fn tones_come_through_each_codec_as_well_as_its_bits_allow() {
    for (codec, hz, least_db) in [
        (Codec::Pcmu, 1_000.0, 36.0),
        (Codec::Pcma, 1_000.0, 36.0),
        (Codec::G722, 1_000.0, 25.0),
        (Codec::G722, 6_000.0, 10.0),
        (Codec::Opus, 1_000.0, 19.0),
        (Codec::Opus, 6_000.0, 10.0),
    ] {
        let said = tone(hz, codec.rate(), 1);
        let heard = round_trip(codec, &said, 20);
        let settled = codec.rate().samples_in(Duration::from_millis(200));
        let db = likeness_db(&said[settled..], &heard[settled..], codec.rate());
        assert!(db >= least_db, "{codec:?} at {hz} Hz: {db:.1} dB");
    }
}

#[test]
fn speech_and_noise_come_through_each_codec_in_packets_of_any_length() {
    for (codec, speech_db, noise_db) in
        [(Codec::Pcmu, 33.0, 33.0), (Codec::Pcma, 33.0, 33.0), (Codec::G722, 18.0, 12.0), (Codec::Opus, OPUS_SPEECH_DB, 5.0)]
    {
        let (said, roar) = (speech(codec.rate()), noise(codec.rate().samples_in(Duration::from_secs(2))));
        for packet_ms in [10, 20, 40, 60] {
            let db = likeness_db(&said, &round_trip(codec, &said, packet_ms), codec.rate());
            assert!(db >= speech_db, "{codec:?} speech, {packet_ms} ms: {db:.1} dB");
            let db = likeness_db(&roar, &round_trip(codec, &roar, packet_ms), codec.rate());
            assert!(db >= noise_db, "{codec:?} noise, {packet_ms} ms: {db:.1} dB");
        }
    }
}

#[test]
fn silence_stays_silent() {
    for codec in ALL {
        let heard = round_trip(codec, &vec![0; codec.rate().samples_in(Duration::from_secs(1))], 20);
        assert!(heard.iter().all(|s| s.abs() <= 8), "{codec:?}: {:?}", heard.iter().map(|s| s.abs()).max());
    }
}

/// From a sender to a receiver, every packet arriving when it is sent but those for which `lost` says so.
fn session(codec: Codec, said: &[i16], lost: impl Fn(usize) -> bool) -> (Vec<i16>, crate::media::stats::MediaStats) {
    let payload_type = codec.static_payload_type().unwrap_or(96);
    let media = NegotiatedMedia::new(codec, payload_type);
    let mut sender = Sender::new(media.clone(), &SeededEntropy::new(8));
    let mut receiver = Receiver::new(&MediaConfig::default(), media);
    sender.play(1, Arc::new(Sound { rate: codec.rate(), samples: said.to_vec() }));
    let mut heard = Vec::new();
    let frame = codec.rate().samples_in(Duration::from_millis(20));
    for n in 0..said.len() / frame + 4 {
        let now = Duration::from_millis(20 * n as u64);
        let (datagram, _) = sender.packet(1);
        if !lost(n) {
            assert_eq!(receiver.take(now, &datagram.unwrap()), Taken::Valid(None));
        }
        heard.extend(receiver.frame(now + Duration::from_millis(1)).samples);
    }
    (heard, receiver.stats())
}

#[test]
fn speech_comes_through_a_whole_session_at_the_codecs_own_rate() {
    for (codec, least_db) in [(Codec::Pcmu, 33.0), (Codec::Pcma, 33.0), (Codec::G722, 18.0), (Codec::Opus, OPUS_SPEECH_DB)] {
        let said = speech(codec.rate());
        let (heard, stats) = session(codec, &said, |_| false);
        let db = likeness_db(&said, &heard, codec.rate());
        assert!(db >= least_db, "{codec:?}: {db:.1} dB");
        assert_eq!((stats.packets_lost, stats.packets_late, stats.packets_malformed), (0, 0, 0), "{codec:?}");
    }
}

#[test]
fn a_lost_packet_is_made_up_for_in_every_codec() {
    for codec in ALL {
        let said = speech(codec.rate());
        let (whole, _) = session(codec, &said, |_| false);
        let (holed, stats) = session(codec, &said, |n| n % 20 == 7);
        let lost = stats.packets_lost;
        assert!(lost >= 7 && stats.concealed_ms >= 20 * (lost - 2), "{codec:?}: {stats:?}");
        assert_eq!(holed.len(), whole.len());
        // Packet n is played two frames later.
        let frame = codec.rate().samples_in(Duration::from_millis(20));
        let power = |samples: &[i16]| samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
        let at_gaps = |samples: &[i16]| samples.chunks(frame).skip(9).step_by(20).map(power).sum::<f64>();
        let share = at_gaps(&holed) / at_gaps(&whole);
        assert!((0.4..1.6).contains(&share), "{codec:?}: {share:.2} of the power that was lost");
    }
}

#[test]
fn a_codec_changed_during_the_call_is_heard_at_the_rate_that_was_announced() {
    let said = tone(1_000.0, SampleRate::HZ_16000, 1);
    for (first, second) in
        [(Codec::Opus, Codec::Pcma), (Codec::Pcmu, Codec::Opus), (Codec::G722, Codec::Pcmu), (Codec::Pcma, Codec::Pcmu)]
    {
        let media = |codec: Codec| NegotiatedMedia::new(codec, codec.static_payload_type().unwrap_or(111));
        let mut sender = Sender::new(media(first), &SeededEntropy::new(8));
        let mut receiver = Receiver::new(&MediaConfig::default(), media(first));
        sender.play(1, Arc::new(Sound { rate: SampleRate::HZ_16000, samples: [&said[..], &said[..]].concat() }));
        let mut heard = Vec::new();
        let mut last: Option<(u32, u16, u32)> = None;
        for n in 0..100u64 {
            if n == 50 {
                sender.renegotiate(media(second));
                receiver.renegotiate(media(second));
            }
            let now = Duration::from_millis(20 * n);
            let datagram = sender.packet(1).0.unwrap();
            let packet = rtp_rs::RtpReader::new(&datagram).unwrap();
            let numbers = (packet.ssrc(), u16::from(packet.sequence_number()), packet.timestamp());
            let units = if n < 50 { first } else { second }.rtp_clock_hz() / 50;
            if let Some((ssrc, sequence, timestamp)) = last {
                assert_eq!(numbers, (ssrc, sequence.wrapping_add(1), timestamp.wrapping_add(units)), "{first:?} to {second:?}");
            }
            last = Some(numbers);
            receiver.take(now, &datagram);
            let frame = receiver.frame(now + Duration::from_millis(1));
            assert_eq!((frame.rate, frame.samples.len()), (first.rate(), first.rate().samples_in(Duration::from_millis(20))));
            heard.extend(frame.samples);
        }
        let at = |ms| first.rate().samples_in(Duration::from_millis(ms));
        let expected = tone(1_000.0, first.rate(), 1);
        let after = likeness_db(&expected[..at(600)], &heard[at(1_300)..at(1_980)], first.rate());
        assert!(after > 18.0, "{first:?} to {second:?}: {after:.1} dB");
    }
}

#[test]
fn an_encrypted_session_hears_only_its_peer_and_goes_on_under_a_new_key() {
    let entropy = SeededEntropy::new(21);
    let said = tone(1_000.0, SampleRate::HZ_8000, 2);
    for suite in Suite::ALL {
        let key = || MasterKey::generate(suite, &entropy);
        let pair = |a: MasterKey, b: MasterKey| {
            let media = |ours: &MasterKey, theirs: &MasterKey| NegotiatedMedia {
                srtp: Some(SrtpKeys { ours: ours.clone(), theirs: theirs.clone() }),
                ..NegotiatedMedia::new(Codec::Pcma, 8)
            };
            (media(&a, &b), media(&b, &a))
        };
        let ((a, b), (a2, b2)) = (pair(key(), key()), pair(key(), key()));
        let mut sender = Sender::new(a.clone(), &SeededEntropy::new(8));
        let mut receiver = Receiver::new(&MediaConfig::default(), b.clone());
        sender.play(1, Arc::new(Sound { rate: SampleRate::HZ_8000, samples: said.clone() }));
        let mut heard = Vec::new();
        for n in 0..100u64 {
            if n == 50 {
                sender.renegotiate(a2.clone());
                receiver.renegotiate(b2.clone());
            }
            let now = Duration::from_millis(20 * n);
            let datagram = sender.packet(1).0.unwrap();
            let mut forged = datagram.clone();
            forged[40] ^= 1;
            assert_eq!(receiver.take(now, &forged), Taken::Malformed);
            assert_eq!(receiver.take(now, &datagram), Taken::Valid(None), "{suite:?} {n}");
            assert_eq!(receiver.take(now, &datagram), Taken::Malformed, "again");
            assert_eq!(Receiver::new(&MediaConfig::default(), a.clone()).take(now, &datagram), Taken::Malformed);
            heard.extend(receiver.frame(now + Duration::from_millis(1)).samples);
            let report = [&[0x80, 200, 0, 6][..], &[7; 24]].concat();
            let sealed = sender.seal_rtcp(report.clone()).unwrap();
            assert_ne!(sealed, report);
            assert_eq!(receiver.open_rtcp(&sealed), Some(&report[..]));
            assert_eq!(receiver.open_rtcp(&report), None);
        }
        assert!(likeness_db(&said[..14_000], &heard, SampleRate::HZ_8000) > 30.0, "{suite:?}");
        let stats = receiver.stats();
        assert_eq!((stats.packets_malformed, stats.packets_duplicate, stats.packets_lost), (100, 100, 0));
    }
}

#[test]
fn packets_of_any_length_from_the_peer_become_frames_of_20_ms() {
    for codec in ALL {
        for packet_ms in [10u64, 40, 60] {
            let said = speech(codec.rate());
            let mut receiver = Receiver::new(&MediaConfig::default(), NegotiatedMedia::new(codec, 100));
            let mut encoder = codec.encoder(OpusBitrate::default());
            let packet_samples = codec.rate().samples_in(Duration::from_millis(packet_ms));
            let mut packets = (0u16..).zip(said.chunks_exact(packet_samples)).peekable();
            let mut heard = Vec::new();
            for ms in 0..said.len() as u64 * 1_000 / u64::from(codec.rate().hz()) {
                let now = Duration::from_millis(ms);
                if let Some((n, chunk)) = packets.next_if(|(n, _)| ms == packet_ms * (u64::from(*n) + 1)) {
                    let mut payload = Vec::new();
                    encoder.encode(chunk, &mut payload);
                    let timestamp = u32::from(n) * codec.units_in(packet_samples);
                    let builder = RtpPacketBuilder::new().payload_type(100).ssrc(1).sequence(n.into());
                    receiver.take(now, &builder.timestamp(timestamp).payload(&payload).build().unwrap());
                }
                if ms % 20 == 1 {
                    heard.extend(receiver.frame(now).samples);
                }
            }
            // 60 ms in the sender and 40 in the buffer.
            let late = codec.rate().samples_in(Duration::from_millis(packet_ms + 40)).min(heard.len());
            let db = likeness_db(&said, &heard[late - codec.rate().samples_in(Duration::from_millis(20))..], codec.rate());
            let least = match codec {
                Codec::Pcmu | Codec::Pcma => 33.0,
                Codec::G722 => 18.0,
                Codec::Opus => OPUS_SPEECH_DB,
            };
            assert!(db >= least, "{codec:?} {packet_ms} ms: {db:.1} dB");
            assert_eq!(receiver.stats().packets_late, 0, "{codec:?} {packet_ms} ms");
        }
    }
}

#[test]
fn an_opus_packets_length_is_read_off_its_first_bytes() {
    // RFC 6716 table 2, and section 3.2's codes.
    for (packet, ms) in [
        (&[0x00u8, 1][..], Some(10.0)),
        (&[0x48, 1], Some(20.0)),
        (&[0x18, 1], Some(60.0)),
        (&[0x19, 1, 2], Some(120.0)),
        (&[0x60, 1], Some(10.0)),
        (&[0x78, 1], Some(20.0)),
        (&[0x80, 1], Some(2.5)),
        (&[0xf8, 1], Some(20.0)),
        (&[0xfa, 1, 1, 1], Some(40.0)),
        (&[0xfb, 3, 1, 1], Some(60.0)),
        (&[0xfb, 7], None),
        (&[0xfb, 0], None),
        (&[0xfb], None),
        (&[0x78], Some(20.0)),
        (&[], None),
    ] {
        assert_eq!(packet_units(packet).map(|u| f64::from(u) / 48.0), ms, "{packet:02x?}");
    }
}

proptest! {
    #[test]
    fn no_payload_makes_a_decoder_panic_or_give_other_than_its_length(
        payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0u8..4), 1..12),
    ) {
        for codec in ALL {
            let mut decoder = codec.decoder();
            for (payload, what) in &payloads {
                let mut samples = Vec::new();
                let decoded = match what {
                    0 => decoder.conceal(320, Some(payload), &mut samples),
                    1 => decoder.conceal(codec.samples_in(960), None, &mut samples),
                    _ => decoder.decode(payload, &mut samples),
                };
                if !decoded {
                    prop_assert!(samples.is_empty());
                } else if *what > 1 {
                    prop_assert_eq!(samples.len(), codec.samples_in(codec.payload_units(payload).unwrap_or(0)));
                }
            }
        }
    }
}

#[test]
fn where_there_are_few_bits_opus_carries_the_telephones_band_and_all_of_the_speech() {
    let said = speech(SampleRate::HZ_16000);
    let loud = |samples: &[i16]| samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>();
    for (format, narrow) in
        [("maxaveragebitrate=6000", true), ("maxaveragebitrate=8999", true), ("maxaveragebitrate=9000", false)]
    {
        let (mut encoder, mut decoder) = (Codec::Opus.encoder(OpusBitrate::of(format)), Codec::Opus.decoder());
        let mut heard = Vec::new();
        for chunk in said.chunks_exact(320) {
            let mut payload = Vec::new();
            assert!(encoder.encode(chunk, &mut payload));
            // RFC 6716 table 2: configurations 0 to 3 are SILK's narrow band.
            assert_eq!(payload[0] >> 3 < 4, narrow, "{format}");
            assert!(decoder.decode(&payload, &mut heard));
        }
        assert_eq!(heard.len(), said.len() / 320 * 320);
        let share = loud(&heard) / loud(&said);
        assert!((0.5..1.5).contains(&share), "{format}: {share}");
    }
}

#[test]
fn opus_is_sent_at_most_at_the_rate_that_the_other_end_asks_for() {
    let said = speech(SampleRate::HZ_16000);
    let bps = |format: &str| {
        let mut encoder = Codec::Opus.encoder(OpusBitrate::of(format));
        let mut payload = Vec::new();
        assert!(said.chunks_exact(320).all(|chunk| encoder.encode(chunk, &mut payload)));
        payload.len() * 8 * 16_000 / said.len()
    };
    let (least, most) = (bps("maxaveragebitrate=6000; useinbandfec=1"), bps("useinbandfec=1"));
    assert!(least < 8_500 && most > 20_000, "{least} and {most} bit/s");
    assert_eq!(OpusBitrate::of("maxaveragebitrate=1"), OpusBitrate::of("maxaveragebitrate=6000"));
    assert_eq!(OpusBitrate::of("maxaveragebitrate=510000"), OpusBitrate::default());
    for odd in ["", ";;;", "maxaveragebitrate", "maxaveragebitrate=-1", "maxaveragebitrate=99999999999", "maxplaybackrate=8000"] {
        assert_eq!(OpusBitrate::of(odd), OpusBitrate::default(), "{odd:?}");
    }
}
