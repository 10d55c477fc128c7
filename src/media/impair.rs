//! A bad line without a network: sound through a codec, packets that are lost, late, doubled and out of order, and the same
//! receiver as in a call. The same seed gives the same line, so that what recognition loses by a line can be measured. Pure.

use std::time::Duration;

use rtp_rs::RtpPacketBuilder;

use super::config::MediaConfig;
use super::leg::Sound;
use super::negotiated::NegotiatedMedia;
use super::playout::FRAME_MS;
use super::receive::Receiver;
use super::stats::MediaStats;
use crate::clock::{Entropy, SeededEntropy};

/// What a line does to packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BadLine {
    /// Of a thousand packets, so many are lost, each on its own.
    pub loss_permille: u32,
    /// Packets lost at a time: 1 for random loss. The rate stays.
    pub burst_packets: u32,
    /// Each packet is 0 to so many milliseconds late, evenly: they overtake each other.
    pub jitter_ms: u32,
    /// Of a thousand packets, so many come twice.
    pub duplicate_permille: u32,
    /// Of everything random on it.
    pub seed: u64,
}

impl BadLine {
    /// One that does nothing.
    pub const CLEAN: Self = Self { loss_permille: 0, burst_packets: 1, jitter_ms: 0, duplicate_permille: 0, seed: 0 };
}

/// What is heard of `sound` at the far end of such a line, and what its packets went through. It begins with the jitter
/// buffer's delay and ends a second after the last packet, at the codec's rate.
pub fn carry(sound: &Sound, media: &NegotiatedMedia, config: &MediaConfig, line: BadLine) -> (Sound, MediaStats) {
    let rate = media.codec.rate();
    let frame = Duration::from_millis(FRAME_MS);
    let frame_samples = rate.samples_in(frame);
    let mut samples = sound.clone().at(rate).samples;
    samples.resize(samples.len().next_multiple_of(frame_samples), 0);

    let entropy = SeededEntropy::new(line.seed);
    let entropy: &dyn Entropy = &entropy;
    let mut arrivals: Vec<(Duration, Vec<u8>)> = Vec::new();
    let mut encoder = media.codec.encoder(media.opus);
    let mut losing = 0;
    let mut number = 0u16;
    for (n, piece) in (0u32..).zip(samples.chunks(frame_samples)) {
        let mut payload = Vec::new();
        let encoded = encoder.encode(piece, &mut payload);
        number = number.wrapping_add(1);
        if losing == 0 && entropy.below(1_000 * line.burst_packets.max(1)) < line.loss_permille {
            losing = line.burst_packets.max(1);
        }
        let lost = losing > 0;
        losing = losing.saturating_sub(1);
        let timestamp = n.wrapping_mul(media.codec.units_in(frame_samples));
        let packet = RtpPacketBuilder::new().payload_type(media.payload_type).ssrc(1).sequence(number.into());
        let Ok(datagram) = packet.marked(n == 0).timestamp(timestamp).payload(&payload).build() else { continue };
        let copies = if lost || !encoded { 0 } else { 1 + u32::from(entropy.below(1_000) < line.duplicate_permille) };
        for _ in 0..copies {
            let late = Duration::from_millis(entropy.below(line.jitter_ms.saturating_add(1)).into());
            arrivals.push((frame * n + late, datagram.clone()));
        }
    }
    arrivals.sort_by_key(|(at, _)| *at);

    let mut receiver = Receiver::new(config, media.clone());
    let mut heard = Vec::with_capacity(samples.len());
    let mut waiting = arrivals.into_iter().peekable();
    let (mut now, mut spare) = (Duration::ZERO, Duration::from_secs(1));
    while !spare.is_zero() {
        while let Some((at, datagram)) = waiting.next_if(|(at, _)| *at <= now) {
            receiver.take(at, &datagram);
        }
        heard.extend(receiver.frame(now).samples);
        if receiver.surplus() {
            heard.extend(receiver.frame(now).samples);
        }
        if waiting.peek().is_none() {
            spare = spare.saturating_sub(frame);
        }
        now += frame;
    }
    (Sound { rate, samples: heard }, receiver.stats())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::codec::Codec;
    use crate::media::frame::SampleRate;

    fn sound() -> Sound {
        let wave = (0..80_000).map(|n| (6_000.0 * (f64::from(n) * 0.11).sin() + 3_000.0 * (f64::from(n) * 0.031).sin()) as i16);
        Sound { rate: SampleRate::HZ_8000, samples: wave.collect() }
    }

    const BAD: BadLine = BadLine { loss_permille: 50, burst_packets: 1, jitter_ms: 60, duplicate_permille: 20, seed: 7 };

    #[test]
    fn the_same_seed_is_the_same_line_and_it_loses_what_it_says() {
        let media = NegotiatedMedia::new(Codec::Pcmu, 0);
        let config = MediaConfig::default();
        let (first, stats) = carry(&sound(), &media, &config, BAD);
        assert_eq!((&first, stats), (&carry(&sound(), &media, &config, BAD).0, carry(&sound(), &media, &config, BAD).1));
        assert!(carry(&sound(), &media, &config, BadLine { seed: 8, ..BAD }).0 != first);
        // 500 packets.
        assert!((15..=40).contains(&stats.packets_lost) && stats.packets_late <= 5, "{stats:?}");
        assert!(stats.packets_duplicate >= 3, "{stats:?}");
        let (_, bursty) = carry(&sound(), &media, &config, BadLine { burst_packets: 4, ..BAD });
        assert!((8..=60).contains(&bursty.packets_lost), "{bursty:?}");
    }

    #[test]
    fn a_clean_line_changes_nothing_but_the_beginning() {
        for (codec, payload_type) in [(Codec::Pcmu, 0), (Codec::G722, 9)] {
            let (heard, stats) =
                carry(&sound(), &NegotiatedMedia::new(codec, payload_type), &MediaConfig::default(), BadLine::CLEAN);
            assert_eq!((stats.packets_received, stats.packets_lost, stats.packets_late), (500, 0, 0));
            let loud = heard.samples.iter().filter(|s| s.abs() > 500).count();
            let before = sound().samples.iter().filter(|s| s.abs() > 500).count() * heard.samples.len() / (80_000 + 8_000 + 320);
            assert!(loud.abs_diff(before) < before / 10, "{loud} {before}");
        }
    }
}
