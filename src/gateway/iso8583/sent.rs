//! What this process has sent and taken back lately, so that "there is nothing to reverse" is believed only when it can't become wrong. PURE.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// References that are remembered; beyond, the oldest is forgotten and counts as sent when it was.
const REMEMBERED_LIMIT: usize = 65_536;

/// The memory of one gateway. A reference that it doesn't know was sent by an earlier process at the latest when this one began.
#[derive(Debug)]
pub(super) struct Sent {
    /// What is not known was sent then at the latest.
    unknown_until: Instant,
    /// How long after it was sent a request may arrive.
    quiet: Duration,
    known: HashMap<String, Known>,
    order: VecDeque<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    sent: Option<Instant>,
    reversed: bool,
}

impl Sent {
    /// Empty, at the start of a process.
    pub(super) fn new(now: Instant, quiet: Duration) -> Self {
        Self { unknown_until: now, quiet, known: HashMap::new(), order: VecDeque::new() }
    }

    /// It is being sent.
    pub(super) fn sent(&mut self, reference: &str, now: Instant) {
        self.entry(reference).sent = Some(now);
    }

    /// A reversal of it was perhaps sent.
    pub(super) fn reversed(&mut self, reference: &str) {
        self.entry(reference).reversed = true;
    }

    /// Whether this process has perhaps sent a reversal of it.
    pub(super) fn was_reversed(&self, reference: &str) -> bool {
        self.known.get(reference).is_some_and(|k| k.reversed)
    }

    /// Whether the host may still receive what was sent.
    pub(super) fn may_still_arrive(&self, reference: &str, now: Instant) -> bool {
        let sent = self.known.get(reference).and_then(|k| k.sent).unwrap_or(self.unknown_until);
        now.saturating_duration_since(sent) < self.quiet
    }

    fn entry(&mut self, reference: &str) -> &mut Known {
        if !self.known.contains_key(reference) {
            if self.order.len() >= REMEMBERED_LIMIT
                && let Some(oldest) = self.order.pop_front()
                && let Some(sent) = self.known.remove(&oldest).and_then(|k| k.sent)
            {
                self.unknown_until = self.unknown_until.max(sent);
            }
            self.order.push_back(reference.to_owned());
        }
        self.known.entry(reference.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_may_arrive_for_a_while() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut sent = Sent::new(start, Duration::from_secs(60));
        assert!(sent.may_still_arrive("of an earlier process", at(59)));
        assert!(!sent.may_still_arrive("of an earlier process", at(60)));
        sent.sent("a", at(30));
        assert!(sent.may_still_arrive("a", at(89)) && !sent.may_still_arrive("a", at(90)));
        assert!(!sent.was_reversed("a"));
        sent.reversed("a");
        assert!(sent.was_reversed("a") && sent.may_still_arrive("a", at(89)));
    }

    #[test]
    fn what_is_forgotten_counts_as_sent_when_it_was() {
        let start = Instant::now();
        let mut sent = Sent::new(start, Duration::from_secs(60));
        sent.sent("old", start + Duration::from_secs(100));
        for n in 0..REMEMBERED_LIMIT {
            sent.sent(&n.to_string(), start + Duration::from_secs(200));
        }
        assert_eq!(sent.known.len(), REMEMBERED_LIMIT);
        assert!(sent.may_still_arrive("old", start + Duration::from_secs(159)));
        assert!(!sent.may_still_arrive("old", start + Duration::from_secs(160)));
    }
}
