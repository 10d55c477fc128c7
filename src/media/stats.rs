//! What a call's packets went through: counters that signalling reads at the end (RFC 3550 appendices A.1, A.3, A.8).

use std::time::Duration;

use super::quality::Passage;
use super::reports::Reception;

/// Counters of one media session. No audio, no keys: fit for a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MediaStats {
    /// Valid packets from the peer, duplicates and late ones included.
    pub packets_received: u64,
    /// Sequence numbers that never came.
    pub packets_lost: u64,
    /// Came after their time had been played.
    pub packets_late: u64,
    /// Came again.
    pub packets_duplicate: u64,
    /// Dropped because the jitter buffer was full.
    pub packets_overflowed: u64,
    /// Not RTP, of a payload type that was not negotiated, or of a sender not yet believed.
    pub packets_malformed: u64,
    /// From another address than the negotiated one.
    pub packets_foreign: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets that the socket refused to send.
    pub packets_unsent: u64,
    /// Audio made up in place of lost packets, in milliseconds (60 ms a gap at most; the rest is silence).
    pub concealed_ms: u64,
    /// Largest interarrival jitter (RFC 3550 section 6.4.1), in milliseconds.
    pub max_jitter_ms: u64,
    /// Frames dropped because the call lagged.
    pub frames_dropped: u64,
    /// Keys heard.
    pub keys_received: u64,
    /// Keys sent.
    pub keys_sent: u64,
    /// Keys that could not be sent: the peer negotiated no telephone-event.
    pub keys_unsendable: u64,
    /// RTCP packets from the peer that were understood.
    pub rtcp_received: u64,
    /// RTCP packets sent.
    pub rtcp_sent: u64,
    /// What we heard, as a mean opinion score in hundredths (100 to 450): the mean over the call, by the E-model (see `quality`).
    pub mos_x100: Option<u32>,
    /// The same of the call's worst five seconds.
    pub mos_worst_x100: Option<u32>,
    /// Interarrival jitter of what we heard, in milliseconds: the mean over the call.
    pub jitter_ms: u64,
    /// Of the packets that the peer sent, so many thousandths were not played: lost, or too late.
    pub lost_permille: u32,
    /// To the peer and back, in milliseconds, by its last report that told.
    pub rtt_ms: Option<u32>,
    /// What the peer hears of us, by its reports: the score, …
    pub peer_mos_x100: Option<u32>,
    /// … its worst, …
    pub peer_mos_worst_x100: Option<u32>,
    /// … the jitter that it sees, in milliseconds, …
    pub peer_jitter_ms: Option<u32>,
    /// … and the thousandths of our packets that it lost.
    pub peer_lost_permille: Option<u32>,
}

/// Follows one peer's sequence numbers and timing over changes of SSRC.
#[derive(Debug)]
pub struct SequenceTracker {
    rate_hz: u32,
    stream: Option<Stream>,
    lost_before: u64,
    // Of streams before this one.
    before: Passage,
    max_jitter_samples: f64,
    jitter_sum_ms: f64,
    jitter_count: u32,
}

#[derive(Debug)]
struct Stream {
    ssrc: u32,
    first: i64,
    highest: i64,
    distinct: u64,
    // With duplicates, as receiver reports count.
    received: u32,
    // Runs of numbers that were jumped over, whether they came later or not.
    jumps: u64,
    // Bit n: `highest - n` has come.
    seen: u128,
    last_transit: Option<i64>,
    jitter_samples: f64,
}

/// A sequence number further away than this from the newest is a restart of the sender, not loss
/// (RFC 3550 appendix A.1, MAX_DROPOUT).
pub const SEQUENCE_JUMP_PACKETS: i64 = 3_000;

/// What a sequence number told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// New to us.
    Fresh,
    /// Has come before (or is too old to know).
    Duplicate,
    /// First of a stream: another SSRC, or a jump too far to be loss. Buffers must start anew.
    NewStream,
}

impl SequenceTracker {
    /// `rate_hz` is the RTP clock's.
    pub fn new(rate_hz: u32) -> Self {
        Self {
            rate_hz,
            stream: None,
            lost_before: 0,
            before: Passage::default(),
            max_jitter_samples: 0.0,
            jitter_sum_ms: 0.0,
            jitter_count: 0,
        }
    }

    /// The RTP clock became another (a codec agreed during the call): timing is measured anew, counts go on.
    pub fn set_clock(&mut self, rate_hz: u32) {
        self.max_jitter_samples *= f64::from(rate_hz) / f64::from(self.rate_hz);
        self.rate_hz = rate_hz;
        if let Some(stream) = &mut self.stream {
            stream.last_transit = None;
            stream.jitter_samples = 0.0;
        }
    }

    /// Takes a packet's numbers; `arrival` is any monotone clock. `timed` is false where the RTP timestamp is not the
    /// sampling instant of this packet (telephone-event updates), which would spoil the jitter.
    pub fn take(&mut self, arrival: Duration, ssrc: u32, sequence: u16, timestamp: u32, timed: bool) -> Arrival {
        let known = self.stream.as_ref().filter(|s| s.ssrc == ssrc).map(|s| extend(s.highest, sequence));
        let verdict = match (self.stream.as_mut(), known) {
            (Some(stream), Some(extended)) if (extended - stream.highest).abs() <= SEQUENCE_JUMP_PACKETS => stream.mark(extended),
            (_, _) => {
                self.lost_before = self.lost();
                self.before = self.passage(0);
                let first = i64::from(sequence);
                self.stream = Some(Stream {
                    ssrc,
                    first,
                    highest: first,
                    distinct: 1,
                    received: 0,
                    jumps: 0,
                    seen: 1,
                    last_transit: None,
                    jitter_samples: 0.0,
                });
                Arrival::NewStream
            }
        };
        if let Some(stream) = &mut self.stream {
            stream.received = stream.received.wrapping_add(1);
        }
        if let Some(stream) = self.stream.as_mut().filter(|_| timed && verdict != Arrival::Duplicate) {
            let arrived = arrival.as_micros() * u128::from(self.rate_hz) / 1_000_000;
            // Both wrap at 32 bits; their difference is small and signed (RFC 3550 appendix A.8).
            let transit = i64::try_from(arrived & 0xffff_ffff).unwrap_or(0) - i64::from(timestamp);
            if let Some(last) = stream.last_transit {
                let difference = wrap_32(transit - last);
                // A second and more is a talkspurt after a pause in which the sender's clock stood still.
                if difference.unsigned_abs() < u64::from(self.rate_hz) {
                    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // below 48,000: exact
                    let distance = difference.unsigned_abs() as f64;
                    stream.jitter_samples += (distance - stream.jitter_samples) / 16.0;
                    self.max_jitter_samples = self.max_jitter_samples.max(stream.jitter_samples);
                    self.jitter_sum_ms += stream.jitter_samples * 1_000.0 / f64::from(self.rate_hz);
                    self.jitter_count = self.jitter_count.saturating_add(1);
                }
            }
            stream.last_transit = Some(transit);
        }
        verdict
    }

    /// Sequence numbers that have not come (yet).
    pub fn lost(&self) -> u64 {
        let current = self.stream.as_ref().map_or(0, |s| s.expected().saturating_sub(s.distinct));
        self.lost_before + current
    }

    /// What the sender's packets went through so far; `late` of those that came were too late to be played.
    pub fn passage(&self, late: u64) -> Passage {
        let (expected, jumps) = self.stream.as_ref().map_or((0, 0), |s| (s.expected(), s.jumps));
        let missed = self.lost() + late;
        let bursts = (self.before.bursts + jumps).clamp(u64::from(missed > 0), missed);
        Passage { expected: self.before.expected + expected, missed, bursts }
    }

    /// For a receiver report.
    pub fn reception(&self) -> Option<Reception> {
        let stream = self.stream.as_ref()?;
        Some(Reception {
            ssrc: stream.ssrc,
            expected: u32::try_from(stream.expected()).unwrap_or(u32::MAX),
            received: stream.received,
            // The first sequence number is of cycle 0.
            highest_sequence: u32::try_from(stream.highest.rem_euclid(1 << 32)).unwrap_or(0),
            jitter: whole(stream.jitter_samples),
        })
    }

    /// Interarrival jitter over all packets so far: the mean, in milliseconds.
    pub fn mean_jitter_ms(&self) -> u64 {
        whole(self.jitter_sum_ms / f64::from(self.jitter_count.max(1))).into()
    }

    /// Largest interarrival jitter so far, in milliseconds.
    pub fn max_jitter_ms(&self) -> u64 {
        whole(self.max_jitter_samples * 1_000.0 / f64::from(self.rate_hz)).into()
    }
}

/// Rounded; it saturates.
fn whole(value: f64) -> u32 {
    #[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = value.round() as u32;
    whole
}

impl Stream {
    /// Packets that the sender sent, by its numbers.
    fn expected(&self) -> u64 {
        u64::try_from(self.highest - self.first + 1).unwrap_or(0)
    }

    fn mark(&mut self, extended: i64) -> Arrival {
        let ahead = extended - self.highest;
        if ahead > 0 {
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.highest = extended;
            self.distinct += 1;
            self.jumps += u64::from(ahead > 1);
            return Arrival::Fresh;
        }
        let Some(bit) = u32::try_from(-ahead).ok().and_then(|back| 1u128.checked_shl(back)) else {
            return Arrival::Duplicate;
        };
        if self.seen & bit != 0 {
            return Arrival::Duplicate;
        }
        self.seen |= bit;
        self.distinct += 1;
        // One that overtook the very first packet.
        self.first = self.first.min(extended);
        Arrival::Fresh
    }
}

/// The number nearest to `near` whose low 16 bits are `sequence`.
fn extend(near: i64, sequence: u16) -> i64 {
    let difference = (i64::from(sequence) - near).rem_euclid(1 << 16);
    near + if difference >= 1 << 15 { difference - (1 << 16) } else { difference }
}

/// Into -2^31..2^31.
fn wrap_32(difference: i64) -> i64 {
    let low = difference.rem_euclid(1 << 32);
    if low >= 1 << 31 { low - (1 << 32) } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn loss_duplicates_and_reordering_are_told_apart_across_the_wrap() {
        let mut tracker = SequenceTracker::new(8_000);
        let sent = [65_533u16, 65_534, 65_535, 1, 0, 0, 4];
        let verdicts: Vec<Arrival> = (0u64..).zip(sent).map(|(i, s)| tracker.take(ms(20 * i), 7, s, 0, false)).collect();
        use Arrival::{Duplicate, Fresh, NewStream};
        assert_eq!(verdicts, [NewStream, Fresh, Fresh, Fresh, Fresh, Duplicate, Fresh]);
        assert_eq!(tracker.lost(), 2, "2 and 3 never came");
    }

    #[test]
    fn a_new_ssrc_and_a_far_jump_start_a_stream_and_keep_the_count() {
        let mut tracker = SequenceTracker::new(8_000);
        tracker.take(ms(0), 7, 10, 0, true);
        tracker.take(ms(20), 7, 12, 320, true);
        assert_eq!(tracker.take(ms(40), 8, 500, 9, true), Arrival::NewStream);
        assert_eq!(tracker.take(ms(60), 8, 30_000, 9, true), Arrival::NewStream);
        assert_eq!(tracker.lost(), 1);
    }

    #[test]
    fn steady_packets_have_no_jitter_and_a_late_one_has_the_rfcs_share() {
        let mut tracker = SequenceTracker::new(8_000);
        for n in 0u16..10 {
            tracker.take(ms(20 * u64::from(n)), 1, n, u32::MAX - 500 + 160 * u32::from(n).min(3), n < 4);
        }
        assert_eq!(tracker.max_jitter_ms(), 0);
        let mut tracker = SequenceTracker::new(8_000);
        tracker.take(ms(0), 1, 0, 0, true);
        tracker.take(ms(20 + 160), 1, 1, 160, true);
        assert_eq!(tracker.max_jitter_ms(), 10, "160 ms late: one sixteenth");
    }
}
