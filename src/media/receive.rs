//! The receiving half of a session: a datagram in, keys and 20 ms frames out. Pure; any bytes are survived.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::time::Duration;

use rtp_rs::RtpReader;
use zeroize::Zeroizing;

use super::comfort_noise::ComfortNoise;
use super::config::{InbandDtmf, MediaConfig};
use super::decode::Stream;
use super::dtmf::ToneDetector;
use super::frame::{Frame, SampleRate};
use super::jitter::{JitterBuffer, PacketNumbers, Piece, Put};
use super::leg::Key;
use super::negotiated::NegotiatedMedia;
use super::playout::FRAME_MS;
use super::quality::Passage;
use super::reports::Reception;
use super::srtp::{Inbound, SrtpError, SrtpKeys};
use super::stats::{Arrival, MediaStats, SequenceTracker};
use super::telephone_event::KeyReceiver;

/// Longest audio in one packet, in milliseconds; RFC 3551 asks receivers to take 200.
pub const PACKET_MAX_MS: u32 = 240;
/// RFC 3389 comfort noise, taken whether agreed or not.
const COMFORT_NOISE_PAYLOAD_TYPE: u8 = 13;
/// Pulls of the jitter buffer that one frame may take: a few short packets, or a resampler that starts.
const PULLS_PER_FRAME: usize = 8;

/// A key that a telephone-event told is not told again by its tone, which is heard up to so much later, in milliseconds.
const SAME_KEY_MS: u64 = 1_000;

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// No packet of ours.
    Malformed,
    /// The peer's; perhaps the first we hear of a key press.
    Valid(Option<Key>),
}

/// See the module.
pub struct Receiver {
    media: NegotiatedMedia,
    // With the room in which packets are decrypted.
    srtp: Option<(Inbound, Zeroizing<Vec<u8>>)>,
    rate: SampleRate,
    delay: Duration,
    max: Duration,
    tracker: SequenceTracker,
    jitter: JitterBuffer,
    stream: Stream,
    keys: KeyReceiver,
    inband: InbandDtmf,
    tones: Option<ToneDetector>,
    tone_key: Option<Key>,
    event_key: Option<(Key, Duration)>,
    // The peer pauses, and said how loud its silence is.
    pause: Option<ComfortNoise>,
    // Whom we listen to; some senders press keys under an SSRC of their own.
    ssrc: Option<u32>,
    key_ssrc: Option<u32>,
    unproven: Option<(u32, u16)>,
    stats: MediaStats,
    // Of streams before the codec changed.
    concealed_before: Duration,
    undecodable_before: u64,
}

impl std::fmt::Debug for Receiver {
    /// Neither the last packet in the clear nor keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receiver({:?}, {:?}, SSRC {:08x?})", self.stream, self.jitter, self.ssrc)
    }
}

impl Receiver {
    /// For one session. Its frames stay at the rate of the first codec, whatever is agreed later.
    pub fn new(config: &MediaConfig, media: NegotiatedMedia) -> Self {
        let tones = config.inband_dtmf.listens(media.telephone_event.is_some()).then(|| ToneDetector::new(media.codec.rate()));
        let (codec, rate, delay, max) = (media.codec, media.codec.rate(), config.jitter_delay(), config.jitter_max());
        Self {
            srtp: media.srtp.as_ref().map(inbound),
            media,
            rate,
            delay,
            max,
            tracker: SequenceTracker::new(codec.rtp_clock_hz()),
            jitter: JitterBuffer::new(codec.rtp_clock_hz(), delay, max),
            stream: Stream::new(codec, rate),
            keys: KeyReceiver::new(),
            inband: config.inband_dtmf,
            tones,
            tone_key: None,
            event_key: None,
            pause: None,
            ssrc: None,
            key_ssrc: None,
            unproven: None,
            stats: MediaStats::default(),
            concealed_before: Duration::ZERO,
            undecodable_before: 0,
        }
    }

    /// Another agreement (re-INVITE). Where only numbers changed, the stream goes on without a gap.
    pub fn renegotiate(&mut self, media: NegotiatedMedia) {
        let codec = media.codec;
        if codec != self.media.codec {
            self.concealed_before += self.stream.concealed();
            self.undecodable_before += self.stream.undecodable();
            self.tracker.set_clock(codec.rtp_clock_hz());
            self.jitter = JitterBuffer::new(codec.rtp_clock_hz(), self.delay, self.max);
            self.stream = Stream::new(codec, self.rate);
        }
        match (&mut self.srtp, &media.srtp) {
            (Some((inbound, _)), Some(keys)) => {
                if self.media.srtp.as_ref().is_none_or(|before| before.theirs != keys.theirs) {
                    inbound.rekey(&keys.theirs);
                }
            }
            (srtp, keys) => *srtp = keys.as_ref().map(inbound),
        }
        let listens = self.inband.listens(media.telephone_event.is_some());
        self.tones = listens.then(|| self.tones.take().unwrap_or_else(|| ToneDetector::new(self.rate)));
        self.media = media;
    }

    /// What an RTCP datagram says, decrypted where that was agreed; `None`: it is not the peer's.
    pub fn open_rtcp<'a>(&'a mut self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let Some((inbound, room)) = &mut self.srtp else { return Some(datagram) };
        room.clear();
        room.extend_from_slice(datagram);
        let length = inbound.unprotect_rtcp(room).ok()?;
        room.get(..length)
    }

    /// Takes a datagram that arrived at `now`.
    pub fn take(&mut self, now: Duration, datagram: &[u8]) -> Taken {
        let Some((mut inbound, mut room)) = self.srtp.take() else { return self.take_clear(now, datagram) };
        room.clear();
        room.extend_from_slice(datagram);
        let opened = inbound.unprotect_rtp(&mut room);
        let taken = match opened.map(|length| room.get(..length)) {
            Ok(Some(clear)) => self.take_clear(now, clear),
            // Once more on the way, or once more by somebody else.
            Err(SrtpError::Replayed) => {
                self.stats.packets_duplicate += 1;
                Taken::Malformed
            }
            Ok(None) | Err(_) => self.malformed(),
        };
        self.srtp = Some((inbound, room));
        taken
    }

    fn take_clear(&mut self, now: Duration, datagram: &[u8]) -> Taken {
        let Ok(packet) = RtpReader::new(datagram) else { return self.malformed() };
        let (payload_type, payload) = (packet.payload_type(), packet.payload());
        let is_audio = payload_type == self.media.payload_type || payload_type == self.media.payload_type_heard;
        let is_event = self.media.telephone_event.is_some_and(|events| events.payload_type == payload_type);
        let is_noise = payload_type == COMFORT_NOISE_PAYLOAD_TYPE || self.media.comfort_noise == Some(payload_type);
        let longest = self.media.codec.rtp_clock_hz() / 1_000 * PACKET_MAX_MS;
        let units = if is_audio { self.media.codec.payload_units(payload).filter(|units| *units <= longest) } else { None };
        let fits = match (is_audio, is_event) {
            (true, _) => units.is_some(),
            (false, true) => payload.len() >= 4,
            (false, false) => is_noise,
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
        if is_noise && !is_audio && !is_event {
            self.pause = ComfortNoise::parse(payload);
        }
        if let Some(units) = units {
            self.pause = None;
            match self.jitter.put(now, PacketNumbers { ssrc, sequence, timestamp }, payload.to_vec(), units) {
                Put::Queued => {}
                Put::Overflowed(dropped) => self.stats.packets_overflowed += dropped,
                Put::Duplicate => self.stats.packets_duplicate += 1,
                Put::Late => self.stats.packets_late += 1,
            }
            return Taken::Valid(None);
        }
        let key = if is_event { self.keys.take(ssrc, sequence, timestamp, packet.mark(), payload) } else { None };
        if let Some(key) = key {
            self.stats.keys_received += 1;
            self.event_key = Some((key, now));
        }
        Taken::Valid(key)
    }

    /// The next 20 ms at `now`: call it every 20 ms, and once more while [`Receiver::surplus`].
    pub fn frame(&mut self, now: Duration) -> Frame {
        let wanted = self.rate.samples_in(Duration::from_millis(FRAME_MS));
        for _ in 0..PULLS_PER_FRAME {
            let units = self.stream.wanted_units(wanted);
            if units == 0 {
                break;
            }
            let pieces = self.jitter.pull(now, units);
            let mut pieces = pieces.into_iter().peekable();
            while let Some(piece) = pieces.next() {
                match (piece, pieces.peek()) {
                    (Piece::Heard { payload, skip }, _) => self.stream.heard(&payload, skip),
                    (Piece::Missing(units), None) if self.pause.is_some() => {
                        if let Some(noise) = &mut self.pause {
                            self.stream.pause(units, noise);
                        }
                    }
                    (Piece::Missing(units), Some(Piece::Heard { payload, .. })) => self.stream.missing(units, Some(payload)),
                    (Piece::Missing(units), _) => self.stream.missing(units, self.jitter.next_payload()),
                }
            }
        }
        let samples = self.stream.take(wanted);
        let key = self.tones.as_mut().and_then(|tones| tones.take(&samples));
        let known = |key| {
            self.event_key.is_some_and(|(told, at)| told == key && now.saturating_sub(at) < Duration::from_millis(SAME_KEY_MS))
        };
        if let Some(key) = key.filter(|key| !known(*key)) {
            self.stats.keys_received += 1;
            self.tone_key = Some(key);
        }
        Frame { rate: self.rate, samples }
    }

    /// A key of which the last frame was the proof, as a tone.
    pub fn tone_key(&mut self) -> Option<Key> {
        self.tone_key.take()
    }

    /// More audio waits than the delay asks for.
    pub fn surplus(&self) -> bool {
        self.jitter.surplus()
    }

    /// What the audio's sender sent and what came of it, for a receiver report.
    pub fn reception(&self) -> Option<Reception> {
        self.tracker.reception()
    }

    /// The same as quality sees it.
    pub fn passage(&self) -> Passage {
        self.tracker.passage(self.stats.packets_late)
    }

    /// How long a packet waits before it is played.
    pub fn delay(&self) -> Duration {
        self.jitter.target()
    }

    /// The receiving half of the counters.
    pub fn stats(&self) -> MediaStats {
        let concealed = self.concealed_before + self.stream.concealed();
        MediaStats {
            packets_lost: self.tracker.lost(),
            lost_permille: self.tracker.passage(self.stats.packets_late).permille(),
            jitter_ms: self.tracker.mean_jitter_ms(),
            max_jitter_ms: self.tracker.max_jitter_ms(),
            packets_malformed: self.stats.packets_malformed + self.undecodable_before + self.stream.undecodable(),
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

fn inbound(keys: &SrtpKeys) -> (Inbound, Zeroizing<Vec<u8>>) {
    (Inbound::new(&keys.theirs), Zeroizing::default())
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use crate::media::codec::Codec;
    use crate::media::dtmf::tone;
    use crate::media::g711::Law;
    use proptest::prelude::*;
    use rtp_rs::RtpPacketBuilder;

    fn receiver() -> Receiver {
        let media = NegotiatedMedia::new(Codec::Pcmu, 0).with_telephone_event(101, 8_000);
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
    fn a_pause_without_a_word_sounds_like_the_line_before_and_not_like_a_dead_one() {
        let mut receiver = receiver();
        let noise: Vec<i16> = (0..160).map(|n| if n % 2 == 0 { 40 } else { -40 }).collect();
        let word: Vec<i16> = (0..160).map(|n| (8_000.0 * (f64::from(n) * 0.4).sin()) as i16).collect();
        let mut levels = Vec::new();
        for n in 0..90u16 {
            let now = Duration::from_millis(20 * u64::from(n));
            // 0.4 s of the room, 0.4 s of speech, then nothing is sent, then speech again.
            if !(40..80).contains(&n) {
                receiver.take(now, &packet(0, n, &Law::Mu.encode(if n < 20 { &noise } else { &word })));
            }
            let frame = receiver.frame(now + Duration::from_millis(1));
            levels.push((frame.samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 160.0).sqrt());
        }
        assert!(levels[48..80].iter().all(|rms| (20.0..80.0).contains(rms)), "{levels:?}");
        assert!(levels[84..].iter().all(|rms| *rms > 4_000.0), "{levels:?}");
    }

    #[test]
    fn a_lost_packet_among_heard_ones_is_made_up_and_counted() {
        let mut receiver = receiver();
        let tone: Vec<i16> = (0..1_600).map(|n| (8_000.0 * (f64::from(n) * 0.1).sin()) as i16).collect();
        let mut frames = Vec::new();
        for n in 0..13u16 {
            let now = Duration::from_millis(20 * u64::from(n));
            if n != 6 && n < 10 {
                let payload = Law::Mu.encode(&tone[160 * usize::from(n)..][..160]);
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

    #[test]
    fn keys_as_tones_are_heard_where_no_events_are_agreed_and_told_once_where_both_come() {
        let keys = |config: InbandDtmf, events: bool, with_events: bool| {
            let media = NegotiatedMedia::new(Codec::Pcmu, 0);
            let media = if events { media.with_telephone_event(101, 8_000) } else { media };
            let mut receiver = Receiver::new(&MediaConfig { inband_dtmf: config, ..MediaConfig::default() }, media);
            let sound: Vec<i16> = "4#4".chars().flat_map(|c| tone(Key::from_char(c).unwrap(), SampleRate::HZ_8000)).collect();
            let mut told = String::new();
            let mut tell = |key: Option<Key>| told.extend(key.map(Key::as_char));
            for (n, piece) in (0u16..).zip(sound.chunks(160)) {
                let now = Duration::from_millis(20 * u64::from(n));
                if with_events && n % 10 == 0 {
                    let code = Key::from_char(['4', '#', '4'][usize::from(n / 10)]).unwrap().event();
                    if let Taken::Valid(key) = receiver.take(now, &packet(101, 2 * n, &[code, 10, 0, 160])) {
                        tell(key);
                    }
                }
                let timestamp = 160 * u32::from(n);
                let datagram = RtpPacketBuilder::new().payload_type(0).ssrc(1).sequence((2 * n + 1).into()).timestamp(timestamp);
                receiver.take(now, &datagram.payload(&Law::Mu.encode(piece)).build().unwrap());
                receiver.frame(now);
                tell(receiver.tone_key());
            }
            told
        };
        assert_eq!(keys(InbandDtmf::Auto, false, false), "4#4");
        assert_eq!(keys(InbandDtmf::Off, false, false), "");
        assert_eq!(keys(InbandDtmf::Auto, true, false), "", "it could send events");
        assert_eq!(keys(InbandDtmf::On, true, true), "4#4");
    }

    #[test]
    fn a_pause_that_was_told_of_is_noise_of_that_level_and_speech_ends_it() {
        let mut receiver = receiver();
        let mut level = Vec::new();
        for n in 0..60u16 {
            let now = Duration::from_millis(20 * u64::from(n));
            match n {
                0..10 | 50.. => drop(receiver.take(now, &packet(0, n, &Law::Mu.encode(&[4_000; 160])))),
                10 => drop(receiver.take(now, &packet(13, n, &[60]))),
                _ => {}
            }
            let frame = receiver.frame(now + Duration::from_millis(1));
            level.push((frame.samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / 160.0).sqrt());
        }
        // 60 dB below 32,768.
        assert!(level[14..48].iter().all(|l| (25.0..42.0).contains(l)), "{level:?}");
        assert!(level[53..].iter().all(|l| *l > 3_000.0), "{level:?}");
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
