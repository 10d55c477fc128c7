//! Keys as RTP packets, RFC 4733: what many packets say once, and the packets that say it.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use super::leg::Key;

/// How long a key that we send sounds, in milliseconds: 160 is well over the 40 that every receiver must take (RFC 4733 section
/// 2.5.1.2 leaves it to the sender; ITU-T Q.24).
pub const KEY_TONE_MS: u32 = 160;
/// Silence after a key that we send, in milliseconds.
pub const KEY_GAP_MS: u32 = 100;
/// Packets that carry the end, against loss (section 2.5.1.4).
pub const KEY_END_PACKETS: u32 = 3;
/// The default volume, −dBm0.
const VOLUME_MINUS_DBM0: u8 = 10;
/// Timestamps of keys already told: packets of an earlier key that come late are known by them.
const REMEMBERED_KEYS: usize = 8;
/// An event whose timestamp lies further back than this, in timestamp units (2 s at 48 kHz), is no straggler: the sender's
/// clock restarted.
const STRAGGLER_UNITS: u32 = 96_000;
/// Two presses of a key begin at least so far apart, in timestamp units at 8 kHz: 40 ms of tone and 40 ms of pause (ITU-T Q.24).
const PRESS_MIN_UNITS: u32 = 640;
/// From this duration on a press may go on in a new segment: 0xFFFF but for two packet times, which may have been lost.
const SEGMENT_DURATION_UNITS: u16 = u16::MAX - 2 * 960;

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

/// Tells each key press once, whichever of its packets come and in whichever dialect: see the table in the tests.
#[derive(Debug, Default)]
pub struct KeyReceiver {
    ssrc: Option<u32>,
    newest: u16,
    // Timestamps of the last presses, newest last.
    told: Vec<u32>,
    press: Option<Press>,
}

/// The press that we are in, or were in last.
struct Press {
    timestamp: u32,
    code: u8,
    ended: bool,
    duration: u16,
}

impl std::fmt::Debug for Press {
    /// The code may be a digit of a card: it does not print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Press(ended: {}, duration: {})", self.ended, self.duration)
    }
}

impl KeyReceiver {
    /// Knows of no key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a packet of the telephone-event payload type. All packets of one press should carry the same timestamp (section
    /// 2.5.1.2), so a timestamp that is new is a press, even if its start was lost; what follows are the exceptions. Another
    /// SSRC is another sender: its numbers begin anew.
    pub fn take(&mut self, ssrc: u32, sequence: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Option<Key> {
        let event = EventPayload::parse(payload)?;
        let key = Key::from_event(event.code)?;
        if self.ssrc != Some(ssrc) {
            *self = Self { ssrc: Some(ssrc), newest: sequence.wrapping_sub(1), ..Self::default() };
        }
        let is_newer = (1..1 << 15).contains(&sequence.wrapping_sub(self.newest));
        if is_newer {
            self.newest = sequence;
        }
        if self.continues(&event, timestamp, marker, is_newer) {
            return None;
        }
        if self.told.len() >= REMEMBERED_KEYS {
            self.told.remove(0);
        }
        self.told.push(timestamp);
        self.press = Some(Press { timestamp, code: event.code, ended: event.end, duration: event.duration });
        Some(key)
    }

    /// Whether a packet belongs to a press that has been told; the press then knows of it.
    fn continues(&mut self, event: &EventPayload, timestamp: u32, marker: bool, is_newer: bool) -> bool {
        let Some(press) = &mut self.press else { return false };
        let ahead = timestamp.wrapping_sub(press.timestamp);
        let same_key = press.code == event.code;
        if ahead == 0 {
            // Senders whose clock stands still give each press the same timestamp: then it is another if the key is, or if a
            // marked start with a shorter duration follows an end.
            let is_next = is_newer && (!same_key || (marker && press.ended && event.duration < press.duration));
            if !is_next && same_key {
                press.ended |= event.end;
                press.duration = press.duration.max(event.duration);
            }
            return !is_next;
        }
        if self.told.contains(&timestamp) {
            return true;
        }
        // A straggler of a press so old that its timestamp is forgotten, or that lost all its packets until now: too late for
        // its place.
        let is_straggler = ahead > u32::MAX - STRAGGLER_UNITS && !is_newer;
        // Held longer than a duration can say: a new segment, which starts where the old one ended (section 2.5.1.3). Where the
        // event's clock is not the timestamp's, the step is another; the full duration tells.
        let is_segment = same_key && !marker && !press.ended && press.duration >= SEGMENT_DURATION_UNITS;
        // The timestamp moves on with each packet of one press. A second press of a key begins at least a tone and a pause later.
        let is_moving = same_key
            && match (press.ended, event.end) {
                (false, _) => ahead < PRESS_MIN_UNITS,
                (true, true) => ahead < PRESS_MIN_UNITS && event.duration >= press.duration,
                (true, false) => false,
            };
        if is_segment || is_moving {
            (press.timestamp, press.ended, press.duration) = (timestamp, event.end, event.duration);
        }
        is_straggler || is_segment || is_moving
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

    /// What to send at this packet time: an event packet, or `None` for silence. Updates while the key is down, then the end
    /// three times, a packet time apart so that one burst of loss does not take them all.
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

    fn hear(receiver: &mut KeyReceiver, sequence: &mut u16, packets: &[EventPacket]) -> Vec<Key> {
        let take = |p: &EventPacket| {
            *sequence = sequence.wrapping_add(1);
            receiver.take(SSRC, *sequence, p.timestamp, p.marker, &p.payload)
        };
        packets.iter().filter_map(take).collect()
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
    fn what_receives_keys_shows_none() {
        let mut receiver = KeyReceiver::new();
        let payload = EventPayload { code: 7, end: false, volume: 10, duration: 160 }.bytes();
        receiver.take(SSRC, 1, 160, true, &payload);
        let shown = format!("{receiver:?}");
        assert!(shown.contains("Press(") && !shown.contains("code"), "{shown}");
    }

    // One packet: sequence number, timestamp, marker, key, end, duration.
    type Packet = (u16, u32, bool, char, bool, u16);

    fn keys(packets: &[Packet]) -> String {
        let mut receiver = KeyReceiver::new();
        let mut told = String::new();
        for &(sequence, timestamp, marker, key, end, duration) in packets {
            let code = Key::from_char(key).unwrap().event();
            let payload = EventPayload { code, end, volume: 10, duration }.bytes();
            if let Some(told_key) = receiver.take(SSRC, sequence, timestamp, marker, &payload) {
                assert_eq!(told_key, Key::from_char(key).unwrap());
                told.push(key);
            }
        }
        told
    }

    /// What is on the wire in the dialects that we know of, and what was pressed.
    const DIALECTS: &[(&str, &[Packet], &str)] = &[
        (
            "RFC 4733: start, updates, three ends",
            &[
                (1, 800, true, '5', false, 160),
                (2, 800, false, '5', false, 320),
                (3, 800, false, '5', true, 480),
                (4, 800, false, '5', true, 480),
                (5, 800, false, '5', true, 480),
                (9, 3_000, true, '5', false, 160),
                (10, 3_000, false, '5', true, 320),
            ],
            "55",
        ),
        (
            "Asterisk: the start twice",
            &[
                (1, 800, true, '1', false, 160),
                (2, 800, false, '1', false, 160),
                (3, 800, false, '1', false, 320),
                (4, 800, false, '1', true, 480),
            ],
            "1",
        ),
        ("the start was lost", &[(3, 800, false, '7', false, 480), (4, 800, false, '7', true, 640)], "7"),
        ("only one end came", &[(9, 800, false, '7', true, 640)], "7"),
        (
            "all ends were lost, then another key, then the same",
            &[
                (1, 800, true, '2', false, 160),
                (2, 800, false, '2', false, 320),
                (20, 3_200, true, '3', false, 160),
                (40, 6_400, true, '3', false, 160),
            ],
            "233",
        ),
        (
            "the end bit is never set, no pause between keys",
            &[(1, 800, true, '2', false, 800), (2, 1_600, true, '3', false, 800), (3, 2_400, true, '2', false, 800)],
            "232",
        ),
        (
            "durations are all 0",
            &[
                (1, 800, true, '4', false, 0),
                (2, 800, false, '4', true, 0),
                (3, 800, false, '4', true, 0),
                (9, 2_400, true, '4', false, 0),
                (10, 2_400, false, '4', true, 0),
            ],
            "44",
        ),
        (
            "one packet a key, only an end without a duration",
            &[(1, 800, true, '4', true, 0), (2, 2_400, true, '4', true, 0)],
            "44",
        ),
        (
            "no marker at all",
            &[
                (1, 800, false, '6', false, 160),
                (2, 800, false, '6', true, 320),
                (5, 2_400, false, '6', false, 160),
                (6, 2_400, false, '6', true, 320),
            ],
            "66",
        ),
        (
            "a marker on every packet",
            &[
                (1, 800, true, '6', false, 160),
                (2, 800, true, '6', false, 320),
                (3, 800, true, '6', true, 480),
                (4, 800, true, '6', true, 480),
                (9, 2_400, true, '6', false, 160),
            ],
            "66",
        ),
        (
            "Sonus: the timestamp moves with each packet",
            &[
                (1, 800, true, '8', false, 160),
                (2, 960, false, '8', false, 320),
                (3, 1_120, false, '8', false, 480),
                (4, 1_280, false, '8', true, 640),
                (5, 1_440, false, '8', true, 640),
                (6, 1_600, false, '8', true, 640),
                (20, 4_000, true, '8', false, 160),
                (21, 4_160, false, '8', true, 320),
            ],
            "88",
        ),
        (
            "the timestamp moves and each packet has its own duration",
            &[
                (1, 800, true, '8', false, 160),
                (2, 960, false, '8', false, 160),
                (3, 1_120, false, '8', true, 160),
                (4, 1_120, false, '8', true, 160),
            ],
            "8",
        ),
        (
            "the timestamp stands still: other keys, and the same",
            &[
                (1, 0, true, '1', false, 160),
                (2, 0, false, '1', true, 320),
                (3, 0, false, '1', true, 320),
                (4, 0, true, '2', false, 160),
                (5, 0, false, '2', true, 320),
                (6, 0, true, '2', false, 160),
                (7, 0, false, '2', true, 320),
            ],
            "122",
        ),
        (
            "held for 9 s: a new segment after 0xFFFF",
            &[
                (1, 100, true, '5', false, 160),
                (2, 100, false, '5', false, 0xffff),
                (3, 65_635, false, '5', false, 160),
                (4, 65_635, false, '5', true, 9_000),
                (5, 80_000, true, '5', false, 160),
            ],
            "55",
        ),
        (
            "held long, the timestamp at 48 kHz and durations at 8",
            &[
                (1, 100, true, '5', false, 160),
                (2, 100, false, '5', false, 0xffff),
                (3, 393_310, false, '5', false, 160),
                (4, 393_310, false, '5', true, 320),
            ],
            "5",
        ),
        (
            "durations at 48 kHz under timestamps at 8",
            &[
                (1, 800, true, '9', false, 960),
                (2, 800, false, '9', false, 1_920),
                (3, 800, false, '9', true, 2_880),
                (9, 2_080, true, '9', false, 960),
            ],
            "99",
        ),
        (
            "everything twice",
            &[
                (1, 800, true, '0', false, 160),
                (1, 800, true, '0', false, 160),
                (2, 800, false, '0', true, 320),
                (2, 800, false, '0', true, 320),
            ],
            "0",
        ),
        (
            "packets of a press overtake each other and the next one",
            &[
                (3, 800, false, '1', true, 480),
                (1, 800, true, '1', false, 160),
                (9, 2_400, true, '2', false, 160),
                (2, 800, false, '1', false, 320),
            ],
            "12",
        ),
        (
            "a press of which all packets come too late for their place",
            &[(9, 2_400, true, '2', false, 160), (1, 800, true, '1', false, 160), (2, 800, false, '1', true, 320)],
            "2",
        ),
        (
            "the sender's clock starts anew",
            &[(1, 900_000, true, '2', false, 160), (2, 900_000, false, '2', true, 320), (3, 160, true, '3', false, 160)],
            "23",
        ),
        (
            "numbers wrap within a press",
            &[
                (65_535, u32::MAX - 100, true, '3', false, 160),
                (0, u32::MAX - 100, false, '3', true, 320),
                (7, 2_000, true, '3', false, 160),
            ],
            "33",
        ),
        ("star, pound, and a flash that is no key", &[(1, 0, true, '*', true, 320), (2, 2_000, true, '#', true, 320)], "*#"),
    ];

    #[test]
    fn each_press_is_told_once_in_every_dialect() {
        for (name, packets, pressed) in DIALECTS {
            assert_eq!(keys(packets), *pressed, "{name}");
        }
    }

    #[test]
    fn another_sender_may_press_at_the_same_timestamp() {
        let mut receiver = KeyReceiver::new();
        let payload = press(Key::Star, 5)[0].payload;
        assert_eq!(receiver.take(1, 1, 5, true, &payload), Some(Key::Star));
        assert_eq!(receiver.take(2, 900, 5, true, &payload), Some(Key::Star));
        assert_eq!(receiver.take(2, 901, 5, false, &payload), None);
    }

    #[test]
    fn short_payloads_and_events_that_are_no_keys_are_ignored() {
        let mut receiver = KeyReceiver::new();
        assert_eq!(receiver.take(SSRC, 1, 1, true, &[5, 0, 0]), None);
        assert_eq!(receiver.take(SSRC, 2, 1, true, &[]), None);
        assert_eq!(receiver.take(SSRC, 3, 2, true, &[16, 0, 0, 160]), None, "flash");
        assert_eq!(receiver.take(SSRC, 4, 1, true, &[5, 0, 0, 160, 99]), Some(Key::Digit(5)));
    }

    proptest! {
        #[test]
        fn each_press_of_which_any_packet_comes_is_told_once_and_in_order(
            codes in prop::collection::vec(0u8..12, 1..12),
            kept in prop::collection::vec(prop::collection::vec(0usize..3, 10), 12),
            start in any::<u32>(),
        ) {
            let mut receiver = KeyReceiver::new();
            let mut sequence = 65_500;
            let (mut told, mut expected) = (Vec::new(), Vec::new());
            for (n, code) in codes.iter().enumerate() {
                let key = Key::from_event(*code).unwrap();
                // Each packet comes never, once or twice.
                let packets: Vec<EventPacket> = press(key, start.wrapping_add(2_080 * n as u32)).iter().zip(&kept[n])
                    .flat_map(|(packet, times)| std::iter::repeat_n(*packet, *times)).collect();
                if !packets.is_empty() {
                    expected.push(key);
                }
                told.extend(hear(&mut receiver, &mut sequence, &packets));
            }
            prop_assert_eq!(told, expected);
        }

        #[test]
        fn any_bytes_are_survived(packets in prop::collection::vec((any::<u16>(), any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..9)), 0..200)) {
            let mut receiver = KeyReceiver::new();
            for (sequence, timestamp, marker, payload) in packets {
                receiver.take(SSRC, sequence, timestamp, marker, &payload);
            }
            prop_assert!(receiver.told.len() <= REMEMBERED_KEYS);
        }
    }
}
