//! The jitter buffer: packets in any order into the sender's order. Pure: time is an argument.
//!
//! It holds payloads as they came: codecs with a memory (G.722, Opus) must meet them in order, and a decoder that knows of a loss
//! can make up for it. A payload is therefore never cut in two; who plays frames keeps what is left of the last one.
//!
//! The listener is a machine, so the buffer trades differently from a telephone's: after a stall on the network it keeps the
//! audio that comes in a burst (a dropped digit costs a whole attempt) and tells by [`JitterBuffer::surplus`] that more than
//! one frame may be taken at a time, so latency falls back at once without cutting anything out.
//!
//! The delay follows the network (`delay`): when a packet is missed and the delay is less than most packets would need, the
//! buffer waits instead of going on without it; what it waits too long it gives back in pauses of the sender and by the
//! surplus.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::delay::{LatenessMeter, units_in};

/// Beyond the delay (and two packets) the buffer counts as ahead from here, in milliseconds.
pub const SURPLUS_MS: u64 = 20;
/// Packets a second that are held at most: of 2.5 ms, the shortest that a codec has. Many tiny packets cost more than their
/// audio.
const HELD_PACKETS_PER_S: i64 = 400;

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
    /// A payload; its first `skip` timestamp units have been played already (overlapping packets, or part of its time was given
    /// up).
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
    least_units: i64,
    max_units: i64,
    lateness: LatenessMeter,
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
    // Of the packet played last.
    played: Option<u16>,
}

struct Held {
    sequence: u16,
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
    /// `clock_hz`: the RTP clock's. `delay`: how long a packet waits at least. `max`: most audio that is held; half of it is the
    /// longest that the delay may grow to.
    pub fn new(clock_hz: u32, delay: Duration, max: Duration) -> Self {
        Self {
            least_units: units_in(clock_hz, delay),
            max_units: units_in(clock_hz, max),
            lateness: LatenessMeter::new(clock_hz),
            clock_hz,
            ssrc: None,
            newest_sequence: 0,
            newest_timestamp: 0,
            packet_units: 0,
            packets: BTreeMap::new(),
            phase: Phase::Empty,
            position: 0,
            floor: 0,
            played: None,
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
            self.lateness.restart();
            self.reset(now, self.newest_timestamp);
        }
        let start = extend(self.newest_timestamp, timestamp);
        self.lateness.take(now, start);
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
        self.packets.insert(start, Held { sequence, payload, units: length });
        match self.bound() {
            0 => Put::Queued,
            dropped => Put::Overflowed(dropped),
        }
    }

    /// What is due at `now`, `units` or more: the last payload may reach beyond, and then the next call asks for less.
    pub fn pull(&mut self, now: Duration, units: u32) -> Vec<Piece> {
        if let Phase::Filling { since } = self.phase {
            let first = self.packets.first_key_value().map(|(start, _)| *start);
            if units_in(self.clock_hz, now.saturating_sub(since)) >= self.target_units() {
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
        let mut until = self.position + i64::from(units);
        let mut may_wait = true;
        while self.position < until {
            match self.packets.first_key_value().map(|(start, held)| (*start, start + held.units)) {
                Some((start, end)) if start <= self.position => {
                    let Some((_, held)) = self.packets.pop_first() else { break };
                    if end > self.position {
                        pieces.push(Piece::Heard { payload: held.payload, skip: unsigned(self.position - start) });
                        self.position = end;
                        self.floor = self.floor.max(end);
                        self.played = Some(held.sequence);
                    }
                }
                next => {
                    let waited = self.lateness.waited(now, self.position).unwrap_or(0);
                    let lacking = (self.target_units() - waited).min(until - self.position);
                    if std::mem::take(&mut may_wait) && lacking > 0 {
                        // Not lost yet: most packets come in the time that this one has not had.
                        pieces.push(Piece::Missing(unsigned(lacking)));
                        until -= lacking;
                        continue;
                    }
                    let excess = waited - self.target_units() - self.slack_units();
                    if let Some((start, _)) = next.filter(|_| excess > 0 && self.is_pause()) {
                        // The sender said nothing meanwhile: nobody misses a part of that.
                        let skipped = excess.min(start - self.position);
                        self.position += skipped;
                        until += skipped;
                        continue;
                    }
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
        self.phase == Phase::Playing && self.depth_units() > self.target_units() + self.slack_units()
    }

    /// How long a packet waits now, from its quickest possible arrival.
    pub fn target(&self) -> Duration {
        self.duration(self.target_units())
    }

    fn target_units(&self) -> i64 {
        self.lateness.lateness().clamp(self.least_units, self.least_units.max(self.max_units / 2))
    }

    /// Beyond the target: what packets of this length make the depth swing anyway.
    fn slack_units(&self) -> i64 {
        units_in(self.clock_hz, Duration::from_millis(SURPLUS_MS)) + 2 * self.packet_units
    }

    /// The next packet follows right on the last one played: what lies between was never sent.
    fn is_pause(&self) -> bool {
        let next = self.packets.first_key_value().map(|(_, held)| held.sequence);
        next.is_some_and(|next| self.played.is_some_and(|played| next == played.wrapping_add(1)))
    }

    fn duration(&self, units: i64) -> Duration {
        let micros = u128::from(unsigned(units)) * 1_000_000 / u128::from(self.clock_hz.max(1));
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// From the next unit to play to the newest that waits.
    #[cfg(test)]
    fn depth(&self) -> Duration {
        self.duration(self.depth_units())
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
        self.played = None;
        self.phase = Phase::Filling { since: now };
        self.position = at;
    }

    /// Drops the oldest while more than `max` waits, or more packets than that can sensibly have; tells how many.
    fn bound(&mut self) -> u64 {
        let mut held: i64 = self.packets.values().map(|p| p.units).sum();
        let packets_max = self.max_units.saturating_mul(HELD_PACKETS_PER_S) / i64::from(self.clock_hz.max(1));
        let packets_max = usize::try_from(packets_max).unwrap_or(0).max(1);
        let mut dropped = 0;
        while held > self.max_units || self.packets.len() > packets_max {
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

fn unsigned(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests;
