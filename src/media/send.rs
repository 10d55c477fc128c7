//! The sending half of a session: prompts and keys in, one datagram each 20 ms out. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rtp_rs::RtpPacketBuilder;
use zeroize::Zeroize;

use super::codec::Encoder;
use super::dtmf::tone;
use super::frame::{Frame, SampleRate};
use super::leg::{Key, Sound};
use super::negotiated::NegotiatedMedia;
use super::playout::{Ended, FRAME_MS, Playout};
use super::reports::Sent;
use super::resample::Resampler;
use super::srtp::Outbound;
use super::telephone_event::KeySender;
use crate::clock::Entropy;

/// Keys that may wait to be sent: a card number, its `#` and the next answers.
pub const KEY_QUEUE_KEYS: usize = 64;
/// After so much encoded silence the codec has settled, in packets: from then on the last one is sent again.
pub const SILENCE_SETTLES_PACKETS: u32 = 25;
/// Packets a second.
const PACKETS_PER_S: u32 = 50;

/// Live frames that may wait: what two pacers' turns lie apart by. More would be delay.
pub const LIVE_LIMIT_FRAMES: usize = 2;
/// One that has waited behind another for so many packet times is no jitter but delay, and goes.
const LIVE_SETTLES_PACKETS: u32 = 25;

/// See the module.
pub struct Sender {
    media: NegotiatedMedia,
    srtp: Option<Outbound>,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    encoder: Encoder,
    // Prompts come at the rate of the first codec; `bridge` takes them to another one that was agreed later.
    rate: SampleRate,
    bridge: Option<Resampler>,
    bridged: Vec<i16>,
    silence: Silence,
    playout: Playout,
    live: VecDeque<Frame>,
    // Packet times in which one more live frame waited than was needed.
    live_late: u32,
    waiting: VecDeque<Key>,
    pressing: Option<KeySender>,
    // In a talkspurt: the next one begins with a marker (RFC 3551 section 4.1).
    talking: bool,
    // Keys as tones, for a peer that takes no events: what is left of the one that sounds.
    tones: bool,
    sounding: Vec<i16>,
    keys_sent: u64,
    keys_unsendable: u64,
    packets: u32,
    octets: u32,
}

impl std::fmt::Debug for Sender {
    /// Neither audio nor keys, which may be a card's: as tones they are audio.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sender({:?}, SSRC {:08x}, {} packets)", self.encoder, self.ssrc, self.packets)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.sounding.zeroize();
        self.bridged.zeroize();
    }
}

/// Silence encoded so far in this pause.
#[derive(Default)]
struct Silence {
    packets: u32,
    payload: Vec<u8>,
}

impl Sender {
    /// SSRC, first sequence number and first timestamp are random (RFC 3550 section 5.1).
    pub fn new(media: NegotiatedMedia, entropy: &dyn Entropy) -> Self {
        let rate = media.codec.rate();
        Self {
            encoder: media.codec.encoder(media.opus),
            rate,
            bridge: None,
            bridged: Vec::new(),
            silence: Silence::default(),
            srtp: media.srtp.as_ref().map(|keys| Outbound::new(&keys.ours)),
            media,
            ssrc: u32::from_be_bytes(entropy.bytes()),
            // In the lower half: a receiver of SRTP that misses the first packets must not miss a wrap (RFC 3711 section 3.3.1).
            sequence: u16::from_be_bytes(entropy.bytes()) & 0x7fff,
            timestamp: u32::from_be_bytes(entropy.bytes()),
            playout: Playout::new(rate),
            live: VecDeque::new(),
            live_late: 0,
            waiting: VecDeque::new(),
            pressing: None,
            talking: false,
            tones: false,
            sounding: Vec::new(),
            keys_sent: 0,
            keys_unsendable: 0,
            packets: 0,
            octets: 0,
        }
    }

    /// As signalling has told it.
    #[must_use]
    pub fn with_ssrc(mut self, ssrc: Option<u32>) -> Self {
        self.ssrc = ssrc.unwrap_or(self.ssrc);
        self
    }

    /// Keys go out as tones where the peer takes no telephone-event.
    #[must_use]
    pub fn with_tones(mut self, tones: bool) -> Self {
        self.tones = tones;
        self
    }

    /// Another agreement (re-INVITE): SSRC, sequence numbers and timestamps go on.
    pub fn renegotiate(&mut self, media: NegotiatedMedia) {
        if (media.codec, media.opus) != (self.media.codec, self.media.opus) {
            self.encoder = media.codec.encoder(media.opus);
            self.bridge = (media.codec.rate() != self.rate).then(|| Resampler::new(self.rate, media.codec.rate()));
            self.bridged.clear();
            self.silence = Silence::default();
        }
        match (&mut self.srtp, &media.srtp) {
            (Some(outbound), Some(keys)) => {
                if self.media.srtp.as_ref().is_none_or(|before| before.ours != keys.ours) {
                    outbound.rekey(&keys.ours);
                }
            }
            (srtp, keys) => *srtp = keys.as_ref().map(|keys| Outbound::new(&keys.ours)),
        }
        if media.telephone_event.is_none() {
            // A key that was down is up; what waited goes out as tones or not at all.
            self.pressing = None;
            if !self.tones {
                self.keys_unsendable += u64::try_from(self.waiting.len()).unwrap_or(0);
                self.waiting.clear();
            }
        }
        self.media = media;
    }

    /// An RTCP datagram as it goes on the wire, encrypted where that was agreed.
    pub fn seal_rtcp(&mut self, mut datagram: Vec<u8>) -> Option<Vec<u8>> {
        match &mut self.srtp {
            Some(outbound) => outbound.protect_rtcp(&mut datagram).ok().map(|()| datagram),
            None => Some(datagram),
        }
    }

    /// Queues a prompt.
    pub fn play(&mut self, id: u64, sound: Arc<Sound>) {
        self.playout.play(id, sound);
    }

    /// Live audio for the next packet; beyond [`LIVE_LIMIT_FRAMES`] the oldest is dropped.
    pub fn speak(&mut self, frame: Frame) {
        if self.live.len() == LIVE_LIMIT_FRAMES {
            self.live.pop_front();
        }
        self.live.push_back(frame);
    }

    fn next_live(&mut self) -> Option<Frame> {
        let next = self.live.pop_front();
        self.live_late = if self.live.is_empty() { 0 } else { self.live_late + 1 };
        if self.live_late >= LIVE_SETTLES_PACKETS {
            self.live_late = 0;
            self.live.pop_front();
        }
        next
    }

    /// Packet times in which nothing is sent (hold): what is played waits, the timestamp goes on.
    pub fn pass(&mut self, elapsed: u32) {
        self.live.clear();
        self.talking = false;
        let frame_units = self.media.codec.rtp_clock_hz() / PACKETS_PER_S;
        self.timestamp = self.timestamp.wrapping_add(frame_units.wrapping_mul(elapsed));
    }

    /// Drops all prompts; keys go on.
    pub fn stop_playing(&mut self) -> Vec<Ended> {
        self.playout.stop()
    }

    /// Queues a key; false if it cannot be sent: the peer takes no telephone-event, or too many wait.
    pub fn press(&mut self, key: Key) -> bool {
        let possible = (self.media.telephone_event.is_some() || self.tones) && self.waiting.len() < KEY_QUEUE_KEYS;
        if possible {
            self.waiting.push_back(key);
        } else {
            self.keys_unsendable += 1;
        }
        possible
    }

    /// Ours, in all packets.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// What was sent, for a sender report made right after [`Sender::packet`].
    pub fn sent(&self) -> Sent {
        Sent { packets: self.packets, octets: self.octets, rtp_timestamp: self.timestamp }
    }

    /// Keys sent and keys that could not be.
    pub fn keys(&self) -> (u64, u64) {
        (self.keys_sent, self.keys_unsendable)
    }

    /// The datagram of this packet time and the prompts that end with it. `elapsed` is 1, or more if packet times were missed:
    /// the timestamp follows time, the audio goes on where it was. `None` could only come of a packet that cannot be built.
    pub fn packet(&mut self, elapsed: u32) -> (Option<Vec<u8>>, Vec<Ended>) {
        let frame_units = self.media.codec.rtp_clock_hz() / PACKETS_PER_S;
        self.timestamp = self.timestamp.wrapping_add(frame_units.wrapping_mul(elapsed));
        let frame_ms = u32::try_from(FRAME_MS).unwrap_or(20);
        if let (None, Some(events)) = (&self.pressing, self.media.telephone_event) {
            let next = self.waiting.pop_front();
            // The timestamp is the audio's; durations are counted at the events' own clock.
            let event_units = events.clock_hz / PACKETS_PER_S;
            self.pressing = next.map(|key| KeySender::new(key, self.timestamp, event_units, frame_ms));
            self.keys_sent += u64::from(self.pressing.is_some());
        }
        // While a key is down its packets take the place of audio (RFC 4733 section 2.6): prompts wait.
        if let (Some(pressing), Some(events)) = (self.pressing.as_mut(), self.media.telephone_event) {
            let event = pressing.next_packet();
            if pressing.is_done() {
                self.pressing = None;
            }
            self.talking = false;
            let datagram = match event {
                Some(event) => self.datagram(events.payload_type, event.marker, event.timestamp, &event.payload),
                None => self.silence(),
            };
            return (datagram, Vec::new());
        }
        if self.media.telephone_event.is_none()
            && let Some(samples) = self.tone_frame()
        {
            let starts = !std::mem::replace(&mut self.talking, true);
            self.silence = Silence::default();
            let payload = self.encode(&samples);
            let datagram = payload.and_then(|payload| self.datagram(self.media.payload_type, starts, self.timestamp, &payload));
            return (datagram, Vec::new());
        }
        let rate = self.rate;
        let (frame, ended) = match self.next_live().filter(|f| f.rate == rate) {
            Some(live) => (Some(live), Vec::new()),
            None => self.playout.next_frame(),
        };
        let datagram = match frame {
            Some(frame) => {
                let starts = !std::mem::replace(&mut self.talking, true);
                self.silence = Silence::default();
                let payload = self.encode(&frame.samples);
                payload.and_then(|payload| self.datagram(self.media.payload_type, starts, self.timestamp, &payload))
            }
            None => {
                self.talking = false;
                self.silence()
            }
        };
        (datagram, ended)
    }

    /// The next 20 ms of a key that is sent as a tone, if one is: prompts wait meanwhile.
    fn tone_frame(&mut self) -> Option<Vec<i16>> {
        if self.sounding.is_empty() {
            self.sounding = tone(self.waiting.pop_front()?, self.rate);
            self.keys_sent += 1;
        }
        let wanted = self.rate.samples_in(Duration::from_millis(FRAME_MS)).min(self.sounding.len());
        Some(self.sounding.drain(..wanted).collect())
    }

    /// Packets of silence keep NATs open and tell the peer that we live.
    fn silence(&mut self) -> Option<Vec<u8>> {
        if self.silence.packets < SILENCE_SETTLES_PACKETS {
            self.silence.packets += 1;
            let zeros = vec![0; self.rate.samples_in(Duration::from_millis(FRAME_MS))];
            self.silence.payload = self.encode(&zeros)?;
        }
        let payload = std::mem::take(&mut self.silence.payload);
        let datagram = self.datagram(self.media.payload_type, false, self.timestamp, &payload);
        self.silence.payload = payload;
        datagram
    }

    /// The payload of 20 ms at the leg's rate.
    fn encode(&mut self, samples: &[i16]) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        let encoded = match &mut self.bridge {
            None => self.encoder.encode(samples, &mut payload),
            Some(bridge) => {
                bridge.push(samples, &mut self.bridged);
                let wanted = self.media.codec.rate().samples_in(Duration::from_millis(FRAME_MS));
                // The filter holds some back at its start: silence takes their place, once.
                let short = wanted.saturating_sub(self.bridged.len());
                self.bridged.splice(..0, std::iter::repeat_n(0, short));
                let frame: Vec<i16> = self.bridged.drain(..wanted).collect();
                self.encoder.encode(&frame, &mut payload)
            }
        };
        encoded.then_some(payload)
    }

    fn datagram(&mut self, payload_type: u8, marker: bool, timestamp: u32, payload: &[u8]) -> Option<Vec<u8>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload.len()).unwrap_or(0));
        let mut datagram = RtpPacketBuilder::new()
            .payload_type(payload_type)
            .marked(marker)
            .sequence(self.sequence.into())
            .timestamp(timestamp)
            .ssrc(self.ssrc)
            .payload(payload)
            .build()
            .ok()?;
        match &mut self.srtp {
            Some(outbound) => outbound.protect_rtp(&mut datagram).ok().map(|()| datagram),
            None => Some(datagram),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::media::codec::Codec;
    use rtp_rs::RtpReader;

    fn sender(events: bool) -> Sender {
        let media = NegotiatedMedia::new(Codec::Pcmu, 0);
        let media = if events { media.with_telephone_event(101, 8_000) } else { media };
        Sender::new(media, &SeededEntropy::new(3))
    }

    fn sound(frames: usize) -> Arc<Sound> {
        Arc::new(Sound { rate: SampleRate::HZ_8000, samples: vec![1_000; 160 * frames] })
    }

    // (payload type, marker, sequence, timestamp), the numbers counted from the first packet's.
    fn headers(sender: &mut Sender, packets: usize) -> Vec<(u8, bool, u16, u32)> {
        let (sequence, timestamp) = (sender.sequence, sender.timestamp);
        (0..packets)
            .map(|_| {
                let datagram = sender.packet(1).0.unwrap();
                let packet = RtpReader::new(&datagram).unwrap();
                let number = u16::from(packet.sequence_number()).wrapping_sub(sequence);
                (packet.payload_type(), packet.mark(), number, packet.timestamp().wrapping_sub(timestamp) / 160)
            })
            .collect()
    }

    #[test]
    fn silence_flows_with_steady_numbers_and_a_talkspurt_is_marked() {
        let mut sender = sender(false);
        assert_eq!(headers(&mut sender, 2), [(0, false, 1, 1), (0, false, 2, 2)]);
        sender.play(1, sound(2));
        assert_eq!(headers(&mut sender, 3), [(0, true, 1, 1), (0, false, 2, 2), (0, false, 3, 3)]);
        sender.play(2, sound(1));
        assert_eq!(headers(&mut sender, 1), [(0, true, 1, 1)]);
    }

    #[test]
    fn missed_packet_times_move_the_timestamp_and_cut_no_audio() {
        let mut sender = sender(false);
        sender.play(1, sound(2));
        let before = sender.timestamp;
        assert_eq!(sender.packet(4).1, []);
        assert_eq!(sender.timestamp.wrapping_sub(before), 640);
        assert_eq!(sender.packet(1).1, [Ended { id: 1, completed: true }]);
    }

    #[test]
    fn keys_go_out_one_after_another_while_audio_waits() {
        let mut sender = sender(true);
        sender.play(1, sound(1));
        assert!(sender.press(Key::Digit(4)) && sender.press(Key::Pound));
        let sent = headers(&mut sender, 27);
        let events: Vec<_> = sent.iter().filter(|p| p.0 == 101).collect();
        assert_eq!(events.len(), 20);
        let starts: Vec<u16> = events.iter().filter(|p| p.1).map(|p| p.2).collect();
        assert_eq!(starts, [1, 14], "160 ms of key and 100 ms of gap");
        assert!(events[..10].iter().all(|p| p.3 == 1) && events[10..].iter().all(|p| p.3 == 14));
        assert!(sent.iter().zip(1u16..).all(|(p, n)| p.2 == n));
        assert_eq!(sent[26], (0, true, 27, 27), "then the audio");
        assert_eq!(sender.keys(), (2, 0));
    }

    #[test]
    fn live_audio_goes_before_prompts_and_does_not_pile_up() {
        let live = |level| Frame { rate: SampleRate::HZ_8000, samples: vec![level; 160] };
        let mut sender = sender(false);
        sender.play(1, sound(1));
        for level in [1, 2, 3] {
            sender.speak(live(level));
        }
        assert_eq!(sender.live.len(), LIVE_LIMIT_FRAMES, "the oldest went");
        // In step, but one frame behind: that frame is dropped before long.
        for _ in 0..2 * LIVE_SETTLES_PACKETS {
            assert_eq!(sender.packet(1).1, [], "the prompt waits");
            sender.speak(live(4));
        }
        assert_eq!(sender.live.len(), 1);
        sender.packet(1);
        assert_eq!(sender.packet(1).1, [Ended { id: 1, completed: true }]);
    }

    #[test]
    fn a_key_for_a_peer_that_takes_none_is_refused() {
        let mut sender = sender(false);
        assert!(!sender.press(Key::Star));
        assert_eq!(sender.keys(), (0, 1));
    }

    #[test]
    fn keys_that_wait_when_the_peer_takes_events_no_longer_are_counted_and_nothing_of_them_shows() {
        let mut sender = sender(true);
        assert!(sender.press(Key::Digit(4)) && sender.press(Key::Digit(2)));
        headers(&mut sender, 3);
        sender.renegotiate(NegotiatedMedia::new(Codec::Pcmu, 0));
        assert!(headers(&mut sender, 20).iter().all(|p| p.0 == 0 && !p.1), "silence, not tones");
        assert_eq!(sender.keys(), (1, 1));
        let mut sounding = super::tests::sender(false).with_tones(true);
        assert!(sounding.press(Key::Digit(4)));
        headers(&mut sounding, 1);
        let shown = format!("{sounding:?}");
        assert!(!sounding.sounding.is_empty() && shown.len() < 80, "{shown}");
    }

    #[test]
    fn a_peer_that_takes_no_events_hears_tones_and_then_the_prompt() {
        let mut sender = sender(false).with_tones(true);
        sender.play(1, sound(2));
        assert!(sender.press(Key::Digit(4)) && sender.press(Key::Pound));
        let sent = headers(&mut sender, 22);
        assert!(sent.iter().all(|p| p.0 == 0) && sent.iter().filter(|p| p.1).count() == 1);
        assert_eq!(sender.keys(), (2, 0));
    }
}
