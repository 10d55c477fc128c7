//! Keys as RTP packets, RFC 4733: what many packets say once, and the packets that say it.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use super::leg::Key;

/// How long a key that we send sounds, in milliseconds: 160 is well over the 40 that every receiver must take (RFC 4733 section 2.5.1.2
/// leaves it to the sender; ITU-T Q.24).
pub const KEY_TONE_MS: u32 = 160;
/// Silence after a key that we send, in milliseconds.
pub const KEY_GAP_MS: u32 = 100;
/// Packets that carry the end, against loss (section 2.5.1.4).
pub const KEY_END_PACKETS: u32 = 3;
/// The default volume, −dBm0.
const VOLUME_MINUS_DBM0: u8 = 10;
/// Timestamps of keys already told: packets of an earlier key that come late are known by them.
const REMEMBERED_KEYS: usize = 8;
/// An event whose timestamp lies further back than this, in timestamp units (2 s at 8 kHz), is no straggler: the sender's clock restarted.
const STRAGGLER_UNITS: u32 = 16_000;

/// The payload of one packet (section 2.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EventPayload {
    /// 0 to 9, 10 `*`, 11 `#`; more that we ignore.
    pub code: u8,
    /// The E bit.
    pub end: bool,
    /// −dBm0, 6 bits.
    pub volume: u8,
    /// So far, in timestamp units.
    pub duration: u16,
}

impl std::fmt::Debug for EventPayload {
    /// The code may be a digit of a card: it does not print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventPayload(end: {}, duration: {})", self.end, self.duration)
    }
}

impl EventPayload {
    /// The first four bytes; `None` if there are fewer.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &[code, flags, high, low] = payload.first_chunk::<4>()?;
        Some(Self { code, end: flags & 0x80 != 0, volume: flags & 0x3f, duration: u16::from_be_bytes([high, low]) })
    }

    /// On the wire.
    pub fn bytes(self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.code, if self.end { 0x80 } else { 0 } | (self.volume & 0x3f), high, low]
    }
}

/// Tells each key press once, whichever of its packets come.
#[derive(Debug, Default)]
pub struct KeyReceiver {
    ssrc: Option<u32>,
    // Newest last.
    told: Vec<u32>,
    current: Option<(u32, EventPayload)>,
}

impl KeyReceiver {
    /// Knows of no key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a packet of the telephone-event payload type. All packets of one press carry the same timestamp (section 2.5.1.2), so a
    /// timestamp that is new is a press, even if its start was lost. Another SSRC is another sender: its timestamps begin anew.
    pub fn take(&mut self, ssrc: u32, timestamp: u32, marker: bool, payload: &[u8]) -> Option<Key> {
        let event = EventPayload::parse(payload)?;
        let key = Key::from_event(event.code)?;
        if self.ssrc != Some(ssrc) {
            *self = Self { ssrc: Some(ssrc), ..Self::default() };
        }
        if self.told.contains(&timestamp) {
            if let Some((_, seen)) = self.current.as_mut().filter(|(at, _)| *at == timestamp) {
                seen.end |= event.end;
                seen.duration = seen.duration.max(event.duration);
            }
            return None;
        }
        if let Some((at, seen)) = self.current {
            // A straggler of a press so old that its timestamp is forgotten, or that lost all its packets until now: too late for its place.
            if (1..STRAGGLER_UNITS).contains(&at.wrapping_sub(timestamp)) {
                return None;
            }
            // Held longer than a duration can say: a new segment, which starts where the old one ended (section 2.5.1.3).
            let is_segment = !marker && !seen.end && seen.code == event.code && timestamp.wrapping_sub(at) == u32::from(u16::MAX);
            if is_segment {
                self.remember(timestamp, event);
                return None;
            }
        }
        self.remember(timestamp, event);
        Some(key)
    }

    fn remember(&mut self, timestamp: u32, event: EventPayload) {
        if self.told.len() >= REMEMBERED_KEYS {
            self.told.remove(0);
        }
        self.told.push(timestamp);
        self.current = Some((timestamp, event));
    }
}

/// One packet of a key that we send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EventPacket {
    /// Set on the first packet of a press.
    pub marker: bool,
    /// The same for all packets of a press.
    pub timestamp: u32,
    /// Four bytes.
    pub payload: [u8; 4],
}

impl std::fmt::Debug for EventPacket {
    /// The payload holds the digit: it does not print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventPacket(marker: {}, timestamp: {})", self.marker, self.timestamp)
    }
}

/// A key on its way out: a packet each packet time, then silence.
#[derive(Debug)]
pub struct KeySender {
    key: Key,
    timestamp: u32,
    packet_units: u32,
    sent: u32,
    tone_packets: u32,
    all_packets: u32,
}

impl KeySender {
    /// Starts a press at `timestamp`; one packet time is `packet_units` timestamp units (160 for 20 ms at 8 kHz) and `packet_ms`.
    pub fn new(key: Key, timestamp: u32, packet_units: u32, packet_ms: u32) -> Self {
        let packet_ms = packet_ms.max(1);
        let tone_packets = (KEY_TONE_MS / packet_ms).max(1);
        let all_packets = tone_packets + (KEY_GAP_MS / packet_ms).max(KEY_END_PACKETS);
        Self { key, timestamp, packet_units, sent: 0, tone_packets, all_packets }
    }

    /// What to send at this packet time: an event packet, or `None` for silence. Updates while the key is down, then the end three times,
    /// a packet time apart so that one burst of loss does not take them all.
    pub fn next_packet(&mut self) -> Option<EventPacket> {
        let n = self.sent;
        self.sent += 1;
        let down = (n + 1).min(self.tone_packets);
        if n + 1 >= self.tone_packets + KEY_END_PACKETS {
            return None;
        }
        let duration = u16::try_from(down * self.packet_units).unwrap_or(u16::MAX);
        let end = n + 1 >= self.tone_packets;
        let payload = EventPayload { code: self.key.event(), end, volume: VOLUME_MINUS_DBM0, duration };
        Some(EventPacket { marker: n == 0, timestamp: self.timestamp, payload: payload.bytes() })
    }

    /// The press and its gap are over.
    pub fn is_done(&self) -> bool {
        self.sent >= self.all_packets
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SSRC: u32 = 7;

    fn press(key: Key, timestamp: u32) -> Vec<EventPacket> {
        let mut sender = KeySender::new(key, timestamp, 160, 20);
        let mut packets = Vec::new();
        while !sender.is_done() {
            packets.extend(sender.next_packet());
        }
        packets
    }

    fn hear(receiver: &mut KeyReceiver, packets: &[EventPacket]) -> Vec<Key> {
        packets.iter().filter_map(|p| receiver.take(SSRC, p.timestamp, p.marker, &p.payload)).collect()
    }

    #[test]
    fn a_press_is_a_marked_start_updates_and_three_equal_ends() {
        let packets = press(Key::Digit(7), 1_000);
        let events: Vec<EventPayload> = packets.iter().map(|p| EventPayload::parse(&p.payload).unwrap()).collect();
        assert_eq!(packets.iter().filter(|p| p.marker).count(), 1);
        assert!(packets[0].marker && packets.iter().all(|p| p.timestamp == 1_000));
        assert_eq!(
            events.iter().map(|e| e.duration).collect::<Vec<_>>(),
            [160, 320, 480, 640, 800, 960, 1_120, 1_280, 1_280, 1_280]
        );
        assert_eq!(events.iter().filter(|e| e.end).count(), 3);
        assert!(events[7..].iter().all(|e| e.end && e.code == 7));
    }

    #[test]
    fn a_held_key_beyond_the_longest_duration_is_one_press() {
        let mut receiver = KeyReceiver::new();
        let update = |duration| EventPayload { code: 5, end: false, volume: 10, duration }.bytes();
        assert_eq!(receiver.take(SSRC, 100, true, &update(160)), Some(Key::Digit(5)));
        assert_eq!(receiver.take(SSRC, 100, false, &update(u16::MAX)), None);
        assert_eq!(receiver.take(SSRC, 100 + 65_535, false, &update(160)), None);
        assert_eq!(receiver.take(SSRC, 100 + 65_535 + 9_000, true, &update(160)), Some(Key::Digit(5)));
    }

    #[test]
    fn a_straggler_of_an_earlier_press_is_no_press() {
        let mut receiver = KeyReceiver::new();
        let (first, second) = (press(Key::Digit(1), u32::MAX - 200), press(Key::Digit(2), 2_000));
        assert_eq!(hear(&mut receiver, &second), [Key::Digit(2)]);
        assert_eq!(hear(&mut receiver, &first), []);
    }

    #[test]
    fn another_sender_may_press_at_the_same_timestamp() {
        let mut receiver = KeyReceiver::new();
        let payload = press(Key::Star, 5)[0].payload;
        assert_eq!(receiver.take(1, 5, true, &payload), Some(Key::Star));
        assert_eq!(receiver.take(2, 5, true, &payload), Some(Key::Star));
        assert_eq!(receiver.take(2, 5, false, &payload), None);
    }

    #[test]
    fn short_payloads_and_events_that_are_no_keys_are_ignored() {
        let mut receiver = KeyReceiver::new();
        assert_eq!(receiver.take(SSRC, 1, true, &[5, 0, 0]), None);
        assert_eq!(receiver.take(SSRC, 1, true, &[]), None);
        assert_eq!(receiver.take(SSRC, 2, true, &[16, 0, 0, 160]), None, "flash");
        assert_eq!(receiver.take(SSRC, 1, true, &[5, 0, 0, 160, 99]), Some(Key::Digit(5)));
    }

    proptest! {
        #[test]
        fn each_press_of_which_any_packet_comes_is_told_once_and_in_order(
            codes in prop::collection::vec(0u8..12, 1..12),
            kept in prop::collection::vec(prop::collection::vec(0usize..3, 10), 12),
            start in any::<u32>(),
        ) {
            let mut receiver = KeyReceiver::new();
            let (mut told, mut expected) = (Vec::new(), Vec::new());
            for (n, code) in codes.iter().enumerate() {
                let key = Key::from_event(*code).unwrap();
                // Each packet comes never, once or twice.
                let packets: Vec<EventPacket> = press(key, start.wrapping_add(2_080 * n as u32)).iter().zip(&kept[n])
                    .flat_map(|(packet, times)| std::iter::repeat_n(*packet, *times)).collect();
                if !packets.is_empty() {
                    expected.push(key);
                }
                told.extend(hear(&mut receiver, &packets));
            }
            prop_assert_eq!(told, expected);
        }

        #[test]
        fn any_bytes_are_survived(packets in prop::collection::vec((any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..9)), 0..200)) {
            let mut receiver = KeyReceiver::new();
            for (timestamp, marker, payload) in packets {
                receiver.take(SSRC, timestamp, marker, &payload);
            }
            prop_assert!(receiver.told.len() <= REMEMBERED_KEYS);
        }
    }
}
