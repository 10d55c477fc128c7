//! What this process has sent and taken back lately, so that "there is nothing to reverse" is believed only when it can't become
//! wrong.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// References that are remembered; beyond, the oldest is forgotten, and begins anew where it is asked about again.
const REMEMBERED_LIMIT: usize = 65_536;

/// The memory of one gateway. What it doesn't know was sent by an earlier process, or by another one that holds its lease no
/// more: at the latest when this one is first asked to take it back.
#[derive(Debug)]
pub(super) struct Sent {
    /// How long after it was sent a request may arrive.
    quiet: Duration,
    known: HashMap<String, Known>,
    order: VecDeque<String>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// It was not sent after that.
    until: Instant,
    reversed: bool,
}

impl Sent {
    /// Empty, at the start of a process.
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, known: HashMap::new(), order: VecDeque::new() }
    }

    /// It was perhaps sent until now.
    pub(super) fn sent(&mut self, reference: &str, now: Instant) {
        self.entry(reference, now).until = now;
    }

    /// A reversal of it was perhaps sent.
    pub(super) fn reversed(&mut self, reference: &str, now: Instant) {
        self.entry(reference, now).reversed = true;
    }

    /// Whether this process has perhaps sent a reversal of it.
    pub(super) fn was_reversed(&self, reference: &str) -> bool {
        self.known.get(reference).is_some_and(|k| k.reversed)
    }

    /// Whether the host may still receive what was sent.
    pub(super) fn may_still_arrive(&mut self, reference: &str, now: Instant) -> bool {
        let until = self.entry(reference, now).until;
        now.saturating_duration_since(until) < self.quiet
    }

    fn entry(&mut self, reference: &str, now: Instant) -> &mut Known {
        if !self.known.contains_key(reference) {
            if self.order.len() >= REMEMBERED_LIMIT
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(reference.to_owned());
        }
        self.known.entry(reference.to_owned()).or_insert(Known { until: now, reversed: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_may_arrive_for_a_while() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut sent = Sent::new(Duration::from_secs(60));
        assert!(sent.may_still_arrive("of another process", at(1_000)), "it counts from the first question");
        assert!(sent.may_still_arrive("of another process", at(1_059)));
        assert!(!sent.may_still_arrive("of another process", at(1_060)));
        sent.sent("a", at(30));
        assert!(!sent.was_reversed("a"));
        sent.reversed("a", at(80));
        assert!(sent.was_reversed("a") && sent.may_still_arrive("a", at(89)) && !sent.may_still_arrive("a", at(90)));
        sent.sent("a", at(100));
        assert!(sent.may_still_arrive("a", at(159)));
    }

    #[test]
    fn memory_is_bounded_and_forgetting_only_makes_us_wait() {
        let start = Instant::now();
        let mut sent = Sent::new(Duration::from_secs(60));
        sent.sent("old", start);
        let later = start + Duration::from_secs(100);
        for n in 0..REMEMBERED_LIMIT {
            sent.sent(&n.to_string(), later);
        }
        assert_eq!((sent.known.len(), sent.order.len()), (REMEMBERED_LIMIT, REMEMBERED_LIMIT));
        assert!(sent.may_still_arrive("old", later));
    }
}
