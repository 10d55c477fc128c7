//! The jitter buffer against lines of every kind.

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

/// Sends `count` packets of 20 ms, `late(n)` ms after their time (`None`: lost), each sender's 20 ms lasting `1 + ppm` of ours,
/// and pulls as a session does. What was heard, and how many packets were late.
fn run(buffer: &mut JitterBuffer, count: u32, ppm: i64, late: impl Fn(u32) -> Option<u64>) -> (Vec<u8>, u32) {
    let mut arrivals: Vec<(u64, u32)> = (0..count)
        .filter_map(|n| late(n).map(|late| ((20_000 * i64::from(n) * (1_000_000 + ppm) / 1_000_000) as u64 + 1_000 * late, n)))
        .collect();
    arrivals.sort_unstable();
    let (mut out, mut too_late, mut next, mut owed) = (Vec::new(), 0, 0, 0i64);
    for tick in 0..u64::from(count) + 40 {
        let now = 20_000 * tick + 700;
        while arrivals.get(next).is_some_and(|(at, _)| *at <= now) {
            let (at, n) = arrivals[next];
            let numbers = PacketNumbers { ssrc: 9, sequence: n as u16, timestamp: n.wrapping_mul(FRAME as u32) };
            let put = buffer.put(Duration::from_micros(at), numbers, whole(n as usize..n as usize + 1), FRAME as u32);
            too_late += u32::from(put != Put::Queued);
            next += 1;
        }
        for _ in 0..1 + u32::from(buffer.surplus()) {
            owed += FRAME as i64;
            if owed > 0 {
                let (bytes, units) = heard(buffer.pull(Duration::from_micros(now), owed as u32));
                out.extend(bytes);
                owed -= units as i64;
            }
        }
    }
    (out, too_late)
}

fn scattered(n: u32, most: u64) -> u64 {
    u64::from(n.wrapping_mul(2_654_435_761) >> 7) % (most + 1)
}

#[test]
fn the_delay_grows_with_the_jitter_and_falls_back_when_it_is_over() {
    let mut buffer = buffer();
    // 10 s of calm, 60 s of 0 to 80 ms: after a few packets nothing is late, though the configured delay is 40 ms.
    let (out, too_late) = run(&mut buffer, 3_500, 0, |n| Some(if n < 500 { 0 } else { scattered(n, 80) }));
    assert!(too_late <= 6, "{too_late} late");
    assert_eq!(out.len(), (3_500 - too_late as usize) * FRAME);
    assert!((80..=100).contains(&buffer.target().as_millis()), "{:?}", buffer.target());
    let mut calm = JitterBuffer::new(8_000, ms(40), ms(500));
    run(&mut calm, 3_500, 0, |n| Some(if n < 1_000 { scattered(n, 80) } else { 0 }));
    assert_eq!(calm.target(), ms(40));
}

#[test]
fn an_hour_of_drifting_clocks_loses_nothing_and_does_not_fill_up() {
    for ppm in [-200, 200] {
        let mut buffer = buffer();
        let (out, too_late) = run(&mut buffer, 180_000, ppm, |n| Some(scattered(n, 10)));
        assert_eq!((out.len(), too_late), (180_000 * FRAME, 0), "{ppm} ppm");
        assert!(buffer.depth() <= ms(120), "{ppm} ppm: {:?}", buffer.depth());
    }
}

#[test]
fn five_percent_loss_and_60_ms_of_jitter_cost_what_was_lost_and_little_more() {
    let lost = |n: u32| scattered(n.wrapping_mul(7_919), 99) < 5;
    let mut buffer = buffer();
    let (out, too_late) = run(&mut buffer, 15_000, 0, |n| (!lost(n)).then(|| scattered(n, 60)));
    let came = (0..15_000).filter(|n| !lost(*n)).count();
    assert!(too_late <= came as u32 / 200, "{too_late} of {came} late");
    assert_eq!(out.len(), (came - too_late as usize) * FRAME);
}

#[test]
fn silence_between_talkspurts_is_shortened_when_the_jitter_is_over() {
    let mut buffer = buffer();
    // A second of speech, then two of nothing at all (silence suppression), again and again; the jitter ends after 20 s.
    let speaks = |n: u32| n % 150 < 50;
    let mut pulled = 0;
    let mut sequence = 0u16;
    for n in 0..4_500u32 {
        if speaks(n) {
            let late = if n < 1_000 { scattered(n, 90) } else { 0 };
            let numbers = PacketNumbers { ssrc: 9, sequence, timestamp: n * FRAME as u32 };
            sequence += 1;
            buffer.put(ms(20 * u64::from(n) + late), numbers, vec![1; FRAME], FRAME as u32);
        }
        pulled += heard(buffer.pull(ms(20 * u64::from(n) + 95), FRAME as u32)).0.len();
    }
    assert_eq!(pulled, 1_500 * FRAME, "every packet is heard");
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

#[test]
fn a_flood_of_packets_of_one_sample_is_bounded_by_their_number() {
    let mut buffer = buffer();
    let mut dropped = 0;
    for n in 0..3_000u32 {
        let numbers = PacketNumbers { ssrc: 9, sequence: n as u16, timestamp: n };
        if let Put::Overflowed(count) = buffer.put(ms(0), numbers, vec![0xff], 1) {
            dropped += count;
        }
    }
    assert_eq!((buffer.packets.len(), dropped), (200, 2_800), "500 ms of packets of 2.5 ms");
}
