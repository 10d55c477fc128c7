//! RTCP as a member of a call sees it: when our reports are due (RFC 3550 sections 6.2 and 6.3), what they say, and what the
//! peer's reports tell us: how it hears us, and the round trip. Pure.
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::time::Duration;

use super::rtcp::{self, Element, NtpTime, ReportBlock, RtcpError, SenderInfo};

/// Least time between reports, in milliseconds, before it is randomised (section 6.2); half of it before the first.
pub const INTERVAL_MIN_MS: u64 = 5_000;
/// Bytes a second that RTCP may use: 5 % (section 6.2) of a G.711 call's 80 kbit/s.
pub const BANDWIDTH_BYTES_PER_S: f64 = 500.0;
/// IPv4 and UDP headers, which count as bandwidth (section 6.2).
const LOWER_HEADERS_BYTES: f64 = 28.0;
/// Counters the bias of reconsideration: e − 3/2 (section 6.3.1).
const COMPENSATION: f64 = std::f64::consts::E - 1.5;
/// Our last sender reports that a round trip may be measured by.
const REPORTS_REMEMBERED: usize = 4;
/// A round trip beyond this, in milliseconds, is a peer that counts wrongly.
const ROUND_TRIP_MAX_MS: u64 = 10_000;
/// Other members whose reports count towards the interval: a mixer's, at most.
const MEMBERS_MAX: usize = 8;
/// A member that says nothing for so many intervals has left (section 6.3.5).
const MEMBER_INTERVALS: u32 = 5;

/// What we have sent so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sent {
    /// RTP packets.
    pub packets: u32,
    /// Their payload's bytes.
    pub octets: u32,
    /// Our RTP clock now.
    pub rtp_timestamp: u32,
}

/// What we have received so far of the sender that we listen to (RFC 3550 appendix A.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reception {
    /// The sender.
    pub ssrc: u32,
    /// Packets that it sent, by its sequence numbers.
    pub expected: u32,
    /// Packets that came, duplicates and late ones included.
    pub received: u32,
    /// Highest sequence number, extended by its cycles.
    pub highest_sequence: u32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
}

/// How the peer hears us, by its last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PeerHears {
    /// 256ths of our packets that were lost in its last interval.
    pub fraction_lost: u8,
    /// Lost since the beginning.
    pub cumulative_lost: i32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
}

/// What a datagram of RTCP told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// It spoke of how our packets arrive: [`Reports::peer_hears`] is new.
    pub hears_us: bool,
    /// The sender that we listen to left.
    pub goodbye: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Reports {
    ssrc: u32,
    cname: String,
    random: u64,
    // Section 6.3: when the last and the next are, and how large they are on average.
    last_at: Duration,
    due_at: Duration,
    average_bytes: f64,
    nothing_sent_yet: bool,
    sent_before: u32,
    they_send: bool,
    members: Vec<(u32, Duration)>,
    // Of the last report of the sender that we listen to: its middle time and its arrival.
    their_report: Option<(u32, u32, Duration)>,
    // (middle of the time that we wrote, when on our monotone clock): the newest last.
    our_reports: Vec<(u32, Duration)>,
    reported: Option<Reception>,
    peer_hears: Option<PeerHears>,
    round_trip: Option<Duration>,
}

impl Reports {
    /// `random` seeds the intervals; `cname` names us (RFC 7022: random, of one call only).
    pub fn new(ssrc: u32, cname: String, random: u64, now: Duration) -> Self {
        let mut reports = Self {
            ssrc,
            cname,
            random,
            last_at: now,
            due_at: now,
            average_bytes: 100.0 + LOWER_HEADERS_BYTES,
            nothing_sent_yet: true,
            sent_before: 0,
            they_send: false,
            members: Vec::new(),
            their_report: None,
            our_reports: Vec::new(),
            reported: None,
            peer_hears: None,
            round_trip: None,
        };
        reports.due_at = now + reports.interval(true);
        reports
    }

    /// Takes a datagram of RTCP that arrived at `now`.
    pub fn take(&mut self, now: Duration, datagram: &[u8]) -> Result<Told, RtcpError> {
        let mut told = Told { hears_us: false, goodbye: false };
        rtcp::read(datagram, |element| match element {
            Element::Sender { ssrc, info } => {
                self.member(ssrc, now);
                self.they_send = true;
                self.their_report = Some((ssrc, info.ntp.middle(), now));
            }
            Element::Receiver { ssrc } => self.member(ssrc, now),
            Element::Block { block, .. } if block.ssrc == self.ssrc => {
                told.hears_us = true;
                self.heard_of_us(now, &block);
            }
            Element::Block { .. } => {}
            Element::Goodbye { ssrc } => {
                self.members.retain(|(member, _)| *member != ssrc);
                told.goodbye |= self.reported.is_some_and(|r| r.ssrc == ssrc);
            }
        })?;
        self.weigh(datagram.len());
        Ok(told)
    }

    /// The report that is due, if it is (section 6.3.6: the timer is reconsidered, so that a crowd does not speak at once).
    /// `wall` is the time since 1970.
    pub fn due(&mut self, now: Duration, wall: Duration, sent: Sent, heard: Option<Reception>) -> Option<Vec<u8>> {
        if now < self.due_at {
            return None;
        }
        let we_send = sent.packets != self.sent_before;
        let least = self.last_at + self.interval(we_send);
        if least > now {
            self.due_at = least;
            return None;
        }
        let interval = self.interval(we_send);
        self.members.retain(|(_, at)| now.saturating_sub(*at) < interval * MEMBER_INTERVALS);
        self.nothing_sent_yet = false;
        self.last_at = now;
        self.due_at = now + interval;
        let report = self.write(now, wall, sent, heard, we_send, false);
        self.weigh(report.len());
        self.sent_before = sent.packets;
        Some(report)
    }

    /// Our last report, with the goodbye. Calls have few members, so it may go at once (section 6.3.7); a member that never sent
    /// anything leaves without a word.
    pub fn goodbye(&mut self, now: Duration, wall: Duration, sent: Sent, heard: Option<Reception>) -> Option<Vec<u8>> {
        (sent.packets > 0 || !self.nothing_sent_yet)
            .then(|| self.write(now, wall, sent, heard, sent.packets != self.sent_before, true))
    }

    /// How the peer hears us, once it has said so.
    pub fn peer_hears(&self) -> Option<PeerHears> {
        self.peer_hears
    }

    /// From us to the peer and back, without its time at the peer.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    fn write(
        &mut self,
        now: Duration,
        wall: Duration,
        sent: Sent,
        heard: Option<Reception>,
        we_send: bool,
        leaves: bool,
    ) -> Vec<u8> {
        let block = heard.map(|heard| self.block(now, heard));
        let ntp = NtpTime::from_unix(wall);
        let Sent { packets, octets, rtp_timestamp } = sent;
        let info = we_send.then_some(SenderInfo { ntp, rtp_timestamp, packets, octets });
        if we_send {
            if self.our_reports.len() >= REPORTS_REMEMBERED {
                self.our_reports.remove(0);
            }
            self.our_reports.push((ntp.middle(), now));
        }
        rtcp::write(self.ssrc, info.as_ref(), block.as_slice(), &self.cname, leaves)
    }

    /// Appendix A.3.
    fn block(&mut self, now: Duration, heard: Reception) -> ReportBlock {
        let before = self.reported.replace(heard).filter(|r| r.ssrc == heard.ssrc).unwrap_or_default();
        let expected = i64::from(heard.expected) - i64::from(before.expected);
        let lost = expected - (i64::from(heard.received) - i64::from(before.received));
        let fraction = if expected > 0 && lost > 0 { (lost * 256 / expected).min(255) } else { 0 };
        let (last_report, delay) = match self.their_report {
            Some((ssrc, middle, at)) if ssrc == heard.ssrc => (middle, rtcp::short_time(now.saturating_sub(at))),
            Some(_) | None => (0, 0),
        };
        ReportBlock {
            ssrc: heard.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(255),
            cumulative_lost: i32::try_from(i64::from(heard.expected) - i64::from(heard.received)).unwrap_or(i32::MAX),
            highest_sequence: heard.highest_sequence,
            jitter: heard.jitter,
            last_report,
            delay,
        }
    }

    fn heard_of_us(&mut self, now: Duration, block: &ReportBlock) {
        let ReportBlock { fraction_lost, cumulative_lost, jitter, .. } = *block;
        self.peer_hears = Some(PeerHears { fraction_lost, cumulative_lost, jitter });
        // By our own monotone clock, so a wall clock that is set in between spoils nothing; and only by a report that we did
        // send.
        let ours = self.our_reports.iter().find(|(middle, _)| block.last_report != 0 && *middle == block.last_report);
        let away = ours.and_then(|(_, at)| now.checked_sub(*at));
        if let Some(away) = away {
            let trip = away.saturating_sub(rtcp::from_short_time(block.delay));
            if trip <= Duration::from_millis(ROUND_TRIP_MAX_MS) {
                self.round_trip = Some(trip);
            }
        }
    }

    fn member(&mut self, ssrc: u32, now: Duration) {
        if let Some((_, at)) = self.members.iter_mut().find(|(member, _)| *member == ssrc) {
            *at = now;
        } else if self.members.len() < MEMBERS_MAX {
            self.members.push((ssrc, now));
        }
    }

    fn weigh(&mut self, bytes: usize) {
        let size = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) + LOWER_HEADERS_BYTES;
        self.average_bytes = size / 16.0 + self.average_bytes * 15.0 / 16.0;
    }

    /// Section 6.3.1, with a fresh random factor.
    fn interval(&mut self, we_send: bool) -> Duration {
        let members = f64::from(u32::try_from(self.members.len() + 1).unwrap_or(1));
        let senders = f64::from(u8::from(we_send) + u8::from(self.they_send));
        let (share, n) = if senders <= members * 0.25 {
            if we_send { (0.25, senders) } else { (0.75, members - senders) }
        } else {
            (1.0, members)
        };
        let least_ms = if self.nothing_sent_yet { INTERVAL_MIN_MS / 2 } else { INTERVAL_MIN_MS };
        let least = Duration::from_millis(least_ms).as_secs_f64();
        let fair = n * self.average_bytes / (share * BANDWIDTH_BYTES_PER_S);
        Duration::from_secs_f64(least.max(fair).min(60.0) * (0.5 + self.chance()) / COMPENSATION)
    }

    /// In 0..1: splitmix64, which is enough to keep reports from falling into step.
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0)) / 4_294_967_296.0
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WALL: Duration = Duration::from_secs(1_800_000_000);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn sent(n: u64) -> Sent {
        let packets = (n / 20) as u32;
        Sent { packets, octets: 160 * packets, rtp_timestamp: (n * 8) as u32 }
    }

    fn heard(ssrc: u32, expected: u32, received: u32) -> Reception {
        Reception { ssrc, expected, received, highest_sequence: 1_000 + expected, jitter: 40 }
    }

    fn blocks(bytes: &[u8]) -> Vec<ReportBlock> {
        let mut told = Vec::new();
        rtcp::read(bytes, |e| {
            if let Element::Block { block, .. } = e {
                told.push(block);
            }
        })
        .unwrap();
        told
    }

    #[test]
    fn two_members_learn_the_round_trip_and_how_they_are_heard() {
        let (mut a, mut b) = (Reports::new(1, "a".into(), 7, ms(0)), Reports::new(2, "b".into(), 8, ms(500)));
        // 30 ms each way; B's clock is another one. A tenth of A's packets is lost.
        type Wire = Vec<(u64, Vec<u8>)>;
        let (mut to_a, mut to_b) = (Wire::new(), Wire::new());
        for now in 0..30_000 {
            for (_, bytes) in to_a.extract_if(.., |(at, _)| *at == now) {
                a.take(ms(now), &bytes).unwrap();
            }
            for (_, bytes) in to_b.extract_if(.., |(at, _)| *at == now) {
                b.take(ms(now + 500), &bytes).unwrap();
            }
            let packets = (now / 20) as u32;
            if let Some(report) = a.due(ms(now), WALL + ms(now), sent(now), Some(heard(2, packets, packets))) {
                to_b.push((now + 30, report));
            }
            let lossy = heard(1, packets, packets - packets / 10);
            if let Some(report) = b.due(ms(now + 500), WALL + ms(now + 77_777), sent(now), Some(lossy)) {
                to_a.push((now + 30, report));
            }
        }
        let trip = a.round_trip().unwrap().as_micros();
        assert!((59_900..=60_100).contains(&trip), "{trip} µs");
        assert!(b.round_trip().unwrap() >= ms(59));
        let hears = a.peer_hears().unwrap();
        assert!((23..=28).contains(&hears.fraction_lost) && hears.jitter == 40, "{hears:?}");
        assert!(hears.cumulative_lost > 100);
        assert_eq!(b.peer_hears().unwrap().fraction_lost, 0);
    }

    #[test]
    fn reports_come_after_half_the_interval_first_and_never_in_step() {
        let mut waits = Vec::new();
        for seed in 0..50 {
            let mut reports = Reports::new(1, "a".into(), seed * 77, ms(0));
            let at: Vec<u64> =
                (0..40_000).filter(|now| reports.due(ms(*now), WALL + ms(*now), sent(*now), None).is_some()).collect();
            assert!((1_000..=3_100).contains(&at[0]), "the first at {} ms", at[0]);
            waits.extend(at.windows(2).map(|w| w[1] - w[0]));
        }
        // 5 s × 0.5..1.5 ÷ 1.21828; reconsideration takes the shortest away.
        assert!(waits.iter().all(|w| (2_050..=6_160).contains(w)), "{waits:?}");
        let mean = waits.iter().sum::<u64>() / waits.len() as u64;
        assert!((4_400..=5_400).contains(&mean), "{mean} ms: compensated for reconsideration");
    }

    #[test]
    fn losses_are_told_by_interval_and_a_new_sender_begins_anew() {
        let mut reports = Reports::new(1, "a".into(), 3, ms(0));
        let mut tell = |now, reception| blocks(&reports.goodbye(ms(now), WALL, sent(now), Some(reception)).unwrap())[0];
        let first = tell(5_000, heard(9, 100, 75));
        assert_eq!((first.fraction_lost, first.cumulative_lost, first.last_report), (64, 25, 0));
        let second = tell(10_000, heard(9, 200, 175));
        assert_eq!((second.fraction_lost, second.cumulative_lost), (0, 25));
        let more = tell(15_000, heard(9, 300, 305));
        assert_eq!((more.fraction_lost, more.cumulative_lost), (0, -5), "duplicates");
        let other = tell(20_000, heard(10, 10, 5));
        assert_eq!((other.fraction_lost, other.cumulative_lost), (128, 5));
    }

    #[test]
    fn a_goodbye_and_a_report_that_we_never_sent_are_known_as_such() {
        let mut ours = Reports::new(1, "a".into(), 3, ms(0));
        let _written = ours.goodbye(ms(10), WALL, sent(100), Some(heard(9, 1, 1)));
        let block = ReportBlock { ssrc: 1, last_report: 5, delay: 0, ..ReportBlock::default() };
        let told = ours.take(ms(20), &rtcp::write(9, None, &[block], "b", true)).unwrap();
        assert_eq!(told, Told { hears_us: true, goodbye: true });
        assert_eq!(ours.round_trip(), None);
        assert_eq!(ours.take(ms(20), &rtcp::write(8, None, &[], "c", true)).unwrap(), Told { hears_us: false, goodbye: false });
        assert!(Reports::new(1, "a".into(), 3, ms(0)).goodbye(ms(9), WALL, Sent::default(), None).is_none());
    }

    #[test]
    fn who_sends_nothing_reports_as_a_receiver() {
        let mut ours = Reports::new(1, "a".into(), 3, ms(0));
        let report = (0..9_000).find_map(|now| ours.due(ms(now), WALL, Sent::default(), Some(heard(9, 5, 5)))).unwrap();
        assert_eq!(report[1], 201);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_grow(datagrams in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..120), 198u8..206, 0u8..29), 0..60)) {
            let mut ours = Reports::new(1, "a".into(), 3, ms(0));
            for (n, (bytes, kind, words)) in (0u64..).zip(datagrams) {
                let mut framed = vec![0x80 | (kind & 3), kind, 0, words];
                framed.extend(bytes);
                let _told = ours.take(ms(100 * n), &framed);
                ours.due(ms(100 * n), WALL, sent(100 * n), None);
                prop_assert!(ours.members.len() <= MEMBERS_MAX && ours.our_reports.len() <= REPORTS_REMEMBERED);
            }
        }
    }
}
