//! The receiving half of a session: a datagram in, keys and 20 ms frames out. Pure; any bytes are survived.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::time::Duration;

use rtp_rs::RtpReader;

use super::conceal::Concealer;
use super::frame::{Frame, SampleRate};
use super::jitter::{JitterBuffer, PacketNumbers, Piece, Put};
use super::leg::Key;
use super::playout::FRAME_MS;
use super::rtp_session::{MediaConfig, NegotiatedMedia};
use super::stats::{Arrival, MediaStats, SequenceTracker};
use super::telephone_event::KeyReceiver;

/// Longest audio in one packet, in milliseconds; RFC 3551 asks receivers to take 200.
pub const PACKET_MAX_MS: u64 = 240;
/// RFC 3389 comfort noise: shows that the peer lives; we put silence in its place anyway.
const COMFORT_NOISE_PAYLOAD_TYPE: u8 = 13;

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// No packet of ours.
    Malformed,
    /// The peer's; perhaps the first we hear of a key press.
    Valid(Option<Key>),
}

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    media: NegotiatedMedia,
    rate: SampleRate,
    frame_samples: usize,
    tracker: SequenceTracker,
    jitter: JitterBuffer,
    concealer: Concealer,
    keys: KeyReceiver,
    // Whom we listen to; some senders press keys under an SSRC of their own.
    ssrc: Option<u32>,
    key_ssrc: Option<u32>,
    unproven: Option<(u32, u16)>,
    stats: MediaStats,
    concealed_samples: usize,
}

impl Receiver {
    /// For one session.
    pub fn new(config: &MediaConfig, media: NegotiatedMedia) -> Self {
        let rate = media.codec.rate();
        Self {
            media,
            rate,
            frame_samples: rate.samples_in(Duration::from_millis(FRAME_MS)),
            tracker: SequenceTracker::new(rate.hz()),
            jitter: JitterBuffer::new(rate, config.jitter_delay(), config.jitter_max()),
            concealer: Concealer::new(rate),
            keys: KeyReceiver::new(),
            ssrc: None,
            key_ssrc: None,
            unproven: None,
            stats: MediaStats::default(),
            concealed_samples: 0,
        }
    }

    /// Takes a datagram that arrived at `now`.
    pub fn take(&mut self, now: Duration, datagram: &[u8]) -> Taken {
        let Ok(packet) = RtpReader::new(datagram) else { return self.malformed() };
        let (payload_type, payload) = (packet.payload_type(), packet.payload());
        let is_audio = payload_type == self.media.payload_type;
        let is_event = self.media.telephone_event_pt == Some(payload_type);
        let longest = self.rate.samples_in(Duration::from_millis(PACKET_MAX_MS));
        let fits = match (is_audio, is_event) {
            (true, _) => (1..=longest).contains(&payload.len()),
            (false, true) => payload.len() >= 4,
            (false, false) => payload_type == COMFORT_NOISE_PAYLOAD_TYPE,
        };
        if !fits {
            return self.malformed();
        }
        let (ssrc, sequence, timestamp) = (packet.ssrc(), u16::from(packet.sequence_number()), packet.timestamp());
        if !self.is_proven(ssrc, sequence, is_event) {
            return self.malformed();
        }
        self.stats.packets_received += 1;
        let arrival =
            if self.ssrc == Some(ssrc) { self.tracker.take(now, ssrc, sequence, timestamp, is_audio) } else { Arrival::Fresh };
        match arrival {
            Arrival::Fresh => {}
            // The sender began its numbers anew under the same SSRC: what is waiting belongs to the old ones.
            Arrival::NewStream if is_audio => self.jitter.forget(),
            Arrival::NewStream => {}
            Arrival::Duplicate => {
                self.stats.packets_duplicate += 1;
                return Taken::Valid(None);
            }
        }
        if is_audio {
            let samples = self.media.codec.decode(payload);
            match self.jitter.put(now, PacketNumbers { ssrc, sequence, timestamp }, samples) {
                Put::Queued => {}
                Put::Overflowed(dropped) => self.stats.packets_overflowed += dropped,
                Put::Duplicate => self.stats.packets_duplicate += 1,
                Put::Late => self.stats.packets_late += 1,
            }
            return Taken::Valid(None);
        }
        let key = if is_event { self.keys.take(ssrc, timestamp, packet.mark(), payload) } else { None };
        if key.is_some() {
            self.stats.keys_received += 1;
        }
        Taken::Valid(key)
    }

    /// The next 20 ms at `now`: call it every 20 ms, and once more while [`Receiver::surplus`].
    pub fn frame(&mut self, now: Duration) -> Frame {
        let mut samples = Vec::with_capacity(self.frame_samples);
        for piece in self.jitter.pull(now, self.frame_samples) {
            match piece {
                Piece::Heard(heard) => samples.extend(self.concealer.heard(heard)),
                Piece::Missing(count) => {
                    let (made, audible) = self.concealer.missing(count);
                    self.concealed_samples += audible;
                    samples.extend(made);
                }
            }
        }
        Frame { rate: self.rate, samples }
    }

    /// More audio waits than the delay asks for.
    pub fn surplus(&self) -> bool {
        self.jitter.surplus()
    }

    /// The receiving half of the counters.
    pub fn stats(&self) -> MediaStats {
        let concealed = self.rate.duration_of(self.concealed_samples);
        MediaStats {
            packets_lost: self.tracker.lost(),
            max_jitter_ms: self.tracker.max_jitter_ms(),
            concealed_ms: u64::try_from(concealed.as_millis()).unwrap_or(u64::MAX),
            ..self.stats
        }
    }

    /// A sender is believed at its second packet in sequence (RFC 3550 section 6.2.1 and appendix A.1), but for the first of
    /// all: noise that looks like RTP by chance must not take the place of the caller.
    fn is_proven(&mut self, ssrc: u32, sequence: u16, is_event: bool) -> bool {
        let known = self.ssrc == Some(ssrc) || (is_event && self.key_ssrc == Some(ssrc));
        if known {
            return true;
        }
        let follows = self.unproven == Some((ssrc, sequence.wrapping_sub(1)));
        if self.ssrc.is_some() && !follows {
            self.unproven = Some((ssrc, sequence));
            return false;
        }
        if is_event && self.ssrc.is_some() {
            self.key_ssrc = Some(ssrc);
        } else {
            self.ssrc = Some(ssrc);
        }
        true
    }

    fn malformed(&mut self) -> Taken {
        self.stats.packets_malformed += 1;
        Taken::Malformed
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use crate::media::g711::Codec;
    use proptest::prelude::*;
    use rtp_rs::RtpPacketBuilder;

    fn receiver() -> Receiver {
        let media = NegotiatedMedia { codec: Codec::Pcmu, payload_type: 0, telephone_event_pt: Some(101) };
        Receiver::new(&MediaConfig::default(), media)
    }

    fn packet(payload_type: u8, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let timestamp = 160 * u32::from(sequence);
        let builder = RtpPacketBuilder::new().payload_type(payload_type).ssrc(1).sequence(sequence.into());
        builder.timestamp(timestamp).payload(payload).build().unwrap()
    }

    #[test]
    fn packets_of_other_kinds_and_sizes_are_counted_and_ignored() {
        let mut receiver = receiver();
        let long = vec![0xff; 2_000];
        let strangers: [(u8, &[u8]); 5] = [(8, &[1; 160]), (72, &[1; 30]), (0, &[]), (0, &long), (101, &[1, 2])];
        for (n, (payload_type, payload)) in (0u16..).zip(strangers) {
            assert_eq!(receiver.take(Duration::ZERO, &packet(payload_type, n, payload)), Taken::Malformed, "{n}");
        }
        assert_eq!((receiver.stats().packets_malformed, receiver.stats().packets_received), (5, 0));
        assert_eq!(receiver.take(Duration::ZERO, &packet(13, 9, &[40])), Taken::Valid(None), "comfort noise");
    }

    #[test]
    fn a_lost_packet_among_heard_ones_is_made_up_and_counted() {
        let mut receiver = receiver();
        let tone: Vec<i16> = (0..1_600).map(|n| (8_000.0 * (f64::from(n) * 0.1).sin()) as i16).collect();
        let mut frames = Vec::new();
        for n in 0..13u16 {
            let now = Duration::from_millis(20 * u64::from(n));
            if n != 6 && n < 10 {
                let payload = Codec::Pcmu.encode(&tone[160 * usize::from(n)..][..160]);
                receiver.take(now, &packet(0, n, &payload));
                receiver.take(now, &packet(0, n, &payload));
            }
            frames.push(receiver.frame(now + Duration::from_millis(1)));
        }
        let stats = receiver.stats();
        // The lost one, and one after the end.
        assert_eq!((stats.packets_lost, stats.packets_duplicate, stats.concealed_ms), (1, 9, 40), "{stats:?}");
        assert!(frames.iter().all(|f| f.samples.len() == 160));
        let loud = |f: &Frame| f.samples.iter().map(|s| i64::from(*s).pow(2)).sum::<i64>() > 160 * 1_000 * 1_000;
        let heard: Vec<bool> = frames.iter().map(loud).collect();
        assert_eq!(heard, [false, false, true, true, true, true, true, true, true, true, true, true, true]);
    }

    #[test]
    fn a_new_sender_is_believed_at_its_second_packet_and_keys_may_have_their_own() {
        let mut receiver = receiver();
        let from = |ssrc: u32, payload_type: u8, sequence: u16, payload: &[u8]| {
            let builder = RtpPacketBuilder::new().payload_type(payload_type).ssrc(ssrc).sequence(sequence.into());
            builder.timestamp(4_000).payload(payload).build().unwrap()
        };
        let mut take = |datagram: Vec<u8>| receiver.take(Duration::ZERO, &datagram);
        let (audio, key) = ([0xff; 160], [5, 10, 0, 160]);
        assert_eq!(take(from(1, 0, 10, &audio)), Taken::Valid(None));
        assert_eq!(take(from(2, 0, 900, &audio)), Taken::Malformed, "noise");
        assert_eq!(take(from(1, 0, 11, &audio)), Taken::Valid(None));
        assert_eq!(take(from(3, 101, 70, &key)), Taken::Malformed);
        assert_eq!(take(from(1, 0, 12, &audio)), Taken::Valid(None));
        assert_eq!(take(from(3, 101, 71, &key)), Taken::Valid(Some(Key::Digit(5))));
        assert_eq!(take(from(3, 101, 72, &key)), Taken::Valid(None));
        assert_eq!(take(from(4, 0, 1, &audio)), Taken::Malformed);
        assert_eq!(take(from(4, 0, 2, &audio)), Taken::Valid(None), "a transferred call");
        assert_eq!(receiver.stats().packets_lost, 0);
    }

    proptest! {
        #[test]
        fn any_datagrams_are_survived(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..60)) {
            let mut receiver = receiver();
            for (n, datagram) in (0u64..).zip(datagrams) {
                let now = Duration::from_millis(7 * n);
                receiver.take(now, &datagram);
                // The same with a header that passes.
                let mut framed = vec![0x80, if n % 2 == 0 { 0 } else { 101 }];
                framed.extend(&datagram);
                receiver.take(now, &framed);
                prop_assert_eq!(receiver.frame(now).samples.len(), 160);
            }
        }
    }
}
