//! The jitter buffer: packets in any order into the sender's order. Pure: time is an argument.
//!
//! It holds payloads as they came: codecs with a memory (G.722, Opus) must meet them in order, and a decoder that knows of a loss
//! can make up for it. A payload is therefore never cut in two; who plays frames keeps what is left of the last one.
//!
//! The listener is a machine, so the buffer trades differently from a telephone's: after a stall on the network it keeps the
//! audio that comes in a burst (a dropped digit costs a whole attempt) and tells by [`JitterBuffer::surplus`] that more than
//! one frame may be taken at a time, so latency falls back at once without cutting anything out.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::time::Duration;

/// Beyond the configured delay (and two packets) the buffer counts as ahead from here, in milliseconds.
pub const SURPLUS_MS: u64 = 20;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It waits for its turn.
    Queued,
    /// It waits; so many older packets were dropped to keep the bound.
    Overflowed(u64),
    /// Another with its timestamp waits already.
    Duplicate,
    /// Its time has been played.
    Late,
}

/// What comes next, in order.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// A payload; its first `skip` timestamp units have been played already (overlapping packets, or part of its time was given up).
    Heard { payload: Vec<u8>, skip: u32 },
    /// No packet covers so many timestamp units.
    Missing(u32),
}

impl std::fmt::Debug for Piece {
    /// Never the payload.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Heard { payload, skip } => write!(f, "Heard({} bytes but for {skip} units)", payload.len()),
            Self::Missing(units) => write!(f, "Missing({units} units)"),
        }
    }
}

/// A packet's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketNumbers {
    /// Of the sender's stream.
    pub ssrc: u32,
    /// One a packet.
    pub sequence: u16,
    /// Of its first sample.
    pub timestamp: u32,
}

/// See the module. All positions are timestamps extended to 64 bits; lengths are in timestamp units of the RTP clock.
pub struct JitterBuffer {
    delay: Duration,
    max_units: i64,
    surplus_units: i64,
    clock_hz: u32,
    ssrc: Option<u32>,
    newest_sequence: u16,
    newest_timestamp: i64,
    packet_units: i64,
    packets: BTreeMap<i64, Held>,
    phase: Phase,
    // The next unit to play.
    position: i64,
    // All before it has been played or given up.
    floor: i64,
}

struct Held {
    payload: Vec<u8>,
    units: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    // Nothing has come.
    Empty,
    // Packets wait until the first is old enough.
    Filling { since: Duration },
    // The position moves on with time.
    Playing,
}

impl std::fmt::Debug for JitterBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JitterBuffer({} packets, {:?})", self.packets.len(), self.phase)
    }
}

impl JitterBuffer {
    /// `clock_hz`: the RTP clock's. `delay`: how long a first packet waits. `max`: most audio that is held.
    pub fn new(clock_hz: u32, delay: Duration, max: Duration) -> Self {
        Self {
            delay,
            max_units: units_in(clock_hz, max),
            surplus_units: units_in(clock_hz, delay + Duration::from_millis(SURPLUS_MS)),
            clock_hz,
            ssrc: None,
            newest_sequence: 0,
            newest_timestamp: 0,
            packet_units: 0,
            packets: BTreeMap::new(),
            phase: Phase::Empty,
            position: 0,
            floor: 0,
        }
    }

    /// The next packet begins a stream anew, as another SSRC would.
    pub fn forget(&mut self) {
        self.ssrc = None;
    }

    /// Takes a packet of `units` timestamp units that arrived at `now` (any monotone clock).
    pub fn put(&mut self, now: Duration, numbers: PacketNumbers, payload: Vec<u8>, units: u32) -> Put {
        let PacketNumbers { ssrc, sequence, timestamp } = numbers;
        let length = i64::from(units);
        if self.ssrc != Some(ssrc) {
            // Another sender: its numbers have nothing to do with the old ones.
            self.ssrc = Some(ssrc);
            self.newest_sequence = sequence;
            self.newest_timestamp = i64::from(timestamp);
            self.packet_units = length;
            self.reset(now, self.newest_timestamp);
        }
        let start = extend(self.newest_timestamp, timestamp);
        let is_newest = (1..1 << 15).contains(&sequence.wrapping_sub(self.newest_sequence));
        if is_newest {
            self.newest_sequence = sequence;
            self.newest_timestamp = start;
            self.packet_units = length;
        }
        if self.packets.contains_key(&start) {
            return Put::Duplicate;
        }
        if start < self.position {
            let is_unheard = start >= self.floor;
            if is_newest && start + length <= self.floor {
                // A newer sequence number with a timestamp played long ago: the sender set its clock back.
                self.reset(now, start);
            } else if is_unheard && self.packets.is_empty() {
                // The network, or the sender's clock, now lags by more than the buffer, and so will all that follow.
                self.anchor(now, start);
            } else if is_unheard && matches!(self.phase, Phase::Filling { .. }) {
                // It was overtaken by the first one.
                self.position = start;
            } else if start + length <= self.position {
                return Put::Late;
            }
        }
        self.packets.insert(start, Held { payload, units: length });
        match self.bound() {
            0 => Put::Queued,
            dropped => Put::Overflowed(dropped),
        }
    }

    /// What is due at `now`, `units` or more: the last payload may reach beyond, and then the next call asks for less.
    pub fn pull(&mut self, now: Duration, units: u32) -> Vec<Piece> {
        if let Phase::Filling { since } = self.phase {
            let first = self.packets.first_key_value().map(|(start, _)| *start);
            if now.saturating_sub(since) >= self.delay {
                self.phase = Phase::Playing;
                self.position = first.unwrap_or(self.position);
            }
        }
        if self.phase != Phase::Playing {
            return vec![Piece::Missing(units)];
        }
        if self.packets.first_key_value().is_some_and(|(start, _)| start - self.position > self.max_units) {
            // Nothing for longer than the buffer's whole depth: the sender's clock jumped.
            self.position = self.packets.first_key_value().map_or(self.position, |(start, _)| *start);
        }
        let mut pieces = Vec::new();
        let until = self.position + i64::from(units);
        while self.position < until {
            match self.packets.first_key_value().map(|(start, held)| (*start, start + held.units)) {
                Some((start, end)) if start <= self.position => {
                    let Some((_, held)) = self.packets.pop_first() else { break };
                    if end > self.position {
                        pieces.push(Piece::Heard { payload: held.payload, skip: unsigned(self.position - start) });
                        self.position = end;
                        self.floor = self.floor.max(end);
                    }
                }
                next => {
                    let end = next.map_or(until, |(start, _)| start.min(until));
                    pieces.push(Piece::Missing(unsigned(end - self.position)));
                    self.position = end;
                }
            }
        }
        pieces
    }

    /// The payload that comes right after what was pulled, if it is here: codecs find the gap before it described in it.
    pub fn next_payload(&self) -> Option<&[u8]> {
        self.packets.first_key_value().filter(|(start, _)| **start == self.position).map(|(_, held)| held.payload.as_slice())
    }

    /// So much waits that a second frame should be pulled now.
    pub fn surplus(&self) -> bool {
        self.phase == Phase::Playing && self.depth_units() > self.surplus_units + 2 * self.packet_units
    }

    /// From the next unit to play to the newest that waits.
    pub fn depth(&self) -> Duration {
        let micros = u128::from(unsigned(self.depth_units())) * 1_000_000 / u128::from(self.clock_hz.max(1));
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn depth_units(&self) -> i64 {
        self.packets.last_key_value().map_or(0, |(start, held)| (start + held.units - self.position).max(0))
    }

    /// Begins a stream: nothing of it has been heard.
    fn reset(&mut self, now: Duration, at: i64) {
        self.packets.clear();
        self.floor = i64::MIN;
        self.anchor(now, at);
    }

    /// Waits the delay anew, to go on from `at`.
    fn anchor(&mut self, now: Duration, at: i64) {
        self.phase = Phase::Filling { since: now };
        self.position = at;
    }

    /// Drops the oldest while more than `max` waits; tells how many.
    fn bound(&mut self) -> u64 {
        let mut held: i64 = self.packets.values().map(|p| p.units).sum();
        let mut dropped = 0;
        while held > self.max_units {
            let Some((_, oldest)) = self.packets.pop_first() else { break };
            held -= oldest.units;
            dropped += 1;
        }
        if let Some((start, _)) = self.packets.first_key_value().filter(|_| dropped > 0) {
            self.position = self.position.max(*start);
            self.floor = self.floor.max(*start);
        }
        dropped
    }
}

/// The number nearest to `near` whose low 32 bits are `timestamp`.
fn extend(near: i64, timestamp: u32) -> i64 {
    let difference = (i64::from(timestamp) - near).rem_euclid(1 << 32);
    near + if difference >= 1 << 31 { difference - (1 << 32) } else { difference }
}

fn units_in(clock_hz: u32, d: Duration) -> i64 {
    i64::try_from(d.as_micros() * u128::from(clock_hz) / 1_000_000).unwrap_or(i64::MAX)
}

fn unsigned(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: usize = 160;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn buffer() -> JitterBuffer {
        JitterBuffer::new(8_000, ms(40), ms(500))
    }

    // Packet n of a stream, a byte a unit: each carries its own place, so order can be read off.
    fn put(buffer: &mut JitterBuffer, now: u64, n: u32, base: (u16, u32)) -> Put {
        let numbers =
            PacketNumbers { ssrc: 9, sequence: base.0.wrapping_add(n as u16), timestamp: base.1.wrapping_add(n * FRAME as u32) };
        buffer.put(ms(now), numbers, whole(n as usize..n as usize + 1), FRAME as u32)
    }

    // What was heard, and how many units were pulled in all.
    fn heard(pieces: Vec<Piece>) -> (Vec<u8>, usize) {
        let (mut out, mut units) = (Vec::new(), 0);
        for piece in pieces {
            match piece {
                Piece::Heard { payload, skip } => {
                    out.extend(&payload[skip as usize..]);
                    units += payload.len() - skip as usize;
                }
                Piece::Missing(count) => units += count as usize,
            }
        }
        (out, units)
    }

    fn pull(buffer: &mut JitterBuffer, now: u64) -> Vec<u8> {
        let (out, units) = heard(buffer.pull(ms(now), FRAME as u32));
        assert!(units >= FRAME, "a pull always covers its time");
        out
    }

    fn whole(packets: std::ops::Range<usize>) -> Vec<u8> {
        (packets.start * FRAME..packets.end * FRAME).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn packets_are_played_in_order_after_the_delay_across_both_wraps() {
        let mut buffer = buffer();
        let base = (u16::MAX - 1, u32::MAX - 200);
        let mut out = Vec::new();
        for (tick, n) in [0u32, 2, 1, 3, 5, 4, 6, 7].into_iter().enumerate() {
            let now = 20 * tick as u64;
            assert_eq!(put(&mut buffer, now, n, base), Put::Queued);
            out.extend(pull(&mut buffer, now + 1));
            assert_eq!(out.is_empty(), now < 40, "silence until the first packet is 40 ms old");
        }
        for now in [160, 180, 200] {
            out.extend(pull(&mut buffer, now + 1));
        }
        assert_eq!(out, whole(0..8));
    }

    #[test]
    fn duplicates_and_late_packets_are_told_and_not_played() {
        let mut buffer = buffer();
        put(&mut buffer, 0, 0, (5, 5));
        assert_eq!(put(&mut buffer, 1, 0, (5, 5)), Put::Duplicate);
        put(&mut buffer, 20, 1, (5, 5));
        put(&mut buffer, 41, 3, (5, 5));
        assert_eq!(pull(&mut buffer, 41), whole(0..1));
        assert_eq!(pull(&mut buffer, 61), whole(1..2));
        assert_eq!(pull(&mut buffer, 81), Vec::<u8>::new());
        assert_eq!(put(&mut buffer, 82, 2, (5, 5)), Put::Late);
        assert_eq!(put(&mut buffer, 82, 0, (5, 5)), Put::Late);
        assert_eq!(pull(&mut buffer, 101), whole(3..4));
        assert_eq!(put(&mut buffer, 102, 3, (5, 5)), Put::Late, "the newest again");
    }

    #[test]
    fn after_a_stall_the_burst_is_kept_and_the_surplus_told() {
        let mut buffer = buffer();
        let mut out = Vec::new();
        for n in 0..5 {
            put(&mut buffer, 20 * n, n as u32, (0, 0));
            out.extend(pull(&mut buffer, 20 * n + 1));
        }
        for now in (101..400).step_by(20) {
            out.extend(pull(&mut buffer, now));
        }
        // 300 ms of packets at once.
        for n in 5..20 {
            assert_eq!(put(&mut buffer, 400, n, (0, 0)), Put::Queued);
        }
        let mut twice = 0;
        for tick in 0..15 {
            out.extend(pull(&mut buffer, 440 + 20 * tick));
            if buffer.surplus() {
                twice += 1;
                out.extend(pull(&mut buffer, 440 + 20 * tick));
            }
        }
        assert_eq!(out, whole(0..20), "nothing is lost");
        assert!(twice >= 5 && buffer.depth() == Duration::ZERO, "{twice} {:?}", buffer.depth());
    }

    #[test]
    fn a_sender_whose_clock_lags_is_followed() {
        let mut buffer = buffer();
        let mut out = Vec::new();
        // 21 ms between packets of 20 ms: the buffer runs dry again and again.
        let mut next = 0u32;
        for now in 0..4_200u64 {
            if now == 21 * u64::from(next) {
                assert_eq!(put(&mut buffer, now, next, (0, 0)), Put::Queued);
                next += 1;
            }
            if now % 20 == 3 {
                out.extend(pull(&mut buffer, now));
            }
        }
        assert_eq!(out, whole(0..out.len() / FRAME), "delayed, never cut");
        assert!(out.len() / FRAME > 190, "{}", out.len() / FRAME);
    }

    #[test]
    fn another_ssrc_and_a_clock_set_back_begin_anew() {
        let mut buffer = buffer();
        for n in 0..10 {
            put(&mut buffer, 20 * n, n as u32, (100, 900_000));
            pull(&mut buffer, 20 * n + 1);
        }
        // Same SSRC, next sequence number, timestamps from zero.
        assert_eq!(put(&mut buffer, 200, 0, (110, 0)), Put::Queued);
        assert_eq!(pull(&mut buffer, 245), whole(0..1));
        let numbers = PacketNumbers { ssrc: 10, sequence: 3, timestamp: 77 };
        assert_eq!(buffer.put(ms(250), numbers, vec![5; FRAME], FRAME as u32), Put::Queued);
        assert_eq!(pull(&mut buffer, 270), Vec::<u8>::new());
        assert_eq!(pull(&mut buffer, 290), vec![5; FRAME]);
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_followed_without_waiting_out_the_jump() {
        let mut buffer = buffer();
        for n in 0..5 {
            put(&mut buffer, 20 * n, n as u32, (0, 0));
            pull(&mut buffer, 20 * n + 1);
        }
        put(&mut buffer, 100, 0, (5, 900_000));
        let out: Vec<u8> = (0..4).flat_map(|tick| pull(&mut buffer, 101 + 20 * tick)).collect();
        assert_eq!(out[out.len() - FRAME..], whole(0..1));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut buffer = buffer();
        let mut dropped = 0;
        for n in 0..100 {
            if let Put::Overflowed(count) = put(&mut buffer, 0, n, (0, 0)) {
                dropped += count;
            }
        }
        assert_eq!((dropped, buffer.packets.len()), (75, 25));
        assert_eq!(pull(&mut buffer, 40), whole(75..76));
    }

    proptest! {
        #[test]
        fn what_is_heard_is_in_order_and_once_and_what_comes_in_time_is_heard(
            delays in prop::collection::vec((0u64..38, 0usize..3), 1..80),
            sequence in any::<u16>(), timestamp in any::<u32>(), pieces in 1u64..5,
        ) {
            let step = 20 / pieces;
            // A pull that reaches over a packet's end asks for the next one up to a step before its time.
            let latest = if 20 % step == 0 { 38 } else { 40 - step };
            let mut buffer = buffer();
            // (arrival, packet): each comes never, once or twice, up to 38 ms late.
            let mut arrivals: Vec<(u64, u32)> = Vec::new();
            for (n, (delay, copies)) in delays.iter().enumerate() {
                for copy in 0..*copies {
                    arrivals.push((20 * n as u64 + (delay + 7 * copy as u64) % latest, n as u32));
                }
            }
            arrivals.sort_unstable();
            let mut out = Vec::new();
            let (mut next, mut owed) = (0, 0i64);
            for now in 0..(20 * delays.len() as u64 + 200) {
                while arrivals.get(next).is_some_and(|(at, _)| *at == now) {
                    put(&mut buffer, now, arrivals[next].1, (sequence, timestamp));
                    next += 1;
                }
                if now % step == 0 {
                    owed += 8 * step as i64;
                    if owed > 0 {
                        let (bytes, units) = heard(buffer.pull(ms(now), owed as u32));
                        out.extend(bytes);
                        owed -= units as i64;
                    }
                }
            }
            let mut expected: Vec<u32> = arrivals.iter().map(|(_, n)| *n).collect();
            expected.sort_unstable();
            expected.dedup();
            let all: Vec<u8> = expected.iter().flat_map(|n| whole(*n as usize..*n as usize + 1)).collect();
            prop_assert_eq!(out, all);
        }

        #[test]
        fn any_numbers_are_survived_and_memory_is_bounded(
            packets in prop::collection::vec((any::<u16>(), any::<u32>(), 0u32..3, 1usize..400, 0u64..50), 0..300),
        ) {
            let mut buffer = buffer();
            let mut now = 0;
            for (sequence, timestamp, ssrc, length, wait) in packets {
                now += wait;
                buffer.put(ms(now), PacketNumbers { ssrc, sequence, timestamp }, vec![1; length], length as u32);
                pull(&mut buffer, now);
                prop_assert!(buffer.packets.values().map(|held| held.units).sum::<i64>() <= 4_000);
            }
        }
    }
}
