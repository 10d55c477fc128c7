//! When a worker looks at an attempt, and for how long it has it to itself.
//!
//! All times in rows are wall-clock times of whoever wrote them. A clock that is set back must not keep an attempt from being looked at: what is due
//! further ahead than any schedule reaches is due now. One that is set forward ends leases early; then two workers may ask about the same
//! attempt, and the version decides who writes.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::mpsc::OwnedPermit;

use super::Inner;
use crate::clock::Timestamp;
use crate::payment::{Attempt, AttemptState};
use crate::store::{DUE_AT_ONCE, Job, Lease, Schedule};

/// Jitter of a question's wait, in percent of it: from the first to the first plus the second.
const JITTER_PERCENT: (u64, u32) = (75, 51);

impl Inner {
    /// A worker has an attempt to itself for as long as the acquirer may take to answer, and the margin.
    pub(super) fn lease(&self, now: Timestamp) -> Lease {
        Lease { owner: self.worker.clone(), until: now.plus(self.lease_time()) }
    }

    /// How long an attempt is held for one word with the acquirer.
    pub(super) fn lease_time(&self) -> Duration {
        Duration::from_millis(self.cfg.gateway_timeout_ms.saturating_add(self.cfg.lease_margin_ms.max(1)))
    }

    /// Whether a lease taken when this job was, lasts long enough for one more word with the acquirer.
    pub(super) fn time_left(&self, taken: Timestamp, now: Timestamp) -> bool {
        // A clock that went back tells nothing about how old the lease is; the version still protects the attempt.
        now.since(taken) < Duration::from_millis(self.cfg.lease_margin_ms.max(1))
    }

    /// Further ahead no schedule reaches.
    pub(super) fn horizon(&self, now: Timestamp) -> Timestamp {
        let cap = Duration::from_millis(self.cfg.question_cap_ms.max(self.cfg.sweep_ms));
        now.plus(self.lease_time().max(cap.saturating_mul(2)))
    }

    /// When to ask next: after as long as it has been in doubt, give or take, so that a short disturbance is over soon and a long one makes
    /// no storm. What waits for a person is asked about as seldom as anything.
    pub(super) fn next_question(&self, now: Timestamp, attempt: &Attempt) -> Timestamp {
        let (base, cap) = (self.cfg.sweep_ms.max(1), self.cfg.question_cap_ms.max(self.cfg.sweep_ms).max(1));
        let doubt_ms = |since: Timestamp| u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        let wait = match &attempt.state {
            AttemptState::Conflicted { .. } => cap,
            AttemptState::Dispatched { last_sent, .. } | AttemptState::NeedsReconciliation { last_sent, .. } => {
                doubt_ms(*last_sent).clamp(base, cap)
            }
            AttemptState::Prepared
            | AttemptState::Succeeded { .. }
            | AttemptState::Declined { .. }
            | AttemptState::Reversed { .. } => base,
        };
        let (least, spread) = JITTER_PERCENT;
        let percent = least.saturating_add(u64::from(self.entropy.below(spread)));
        now.plus(Duration::from_millis(wait.saturating_mul(percent) / 100))
    }

    /// A place with the worker of this process, if one runs and is not behind: then the attempt is leased to it from its first row on.
    pub(super) fn place_at_hand(&self, now: Timestamp) -> (Option<OwnedPermit<Job>>, Schedule) {
        let worker = self.at_hand.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match worker.and_then(|tx| tx.try_reserve_owned().ok()) {
            Some(place) => (Some(place), Schedule::Leased(self.lease(now))),
            None => (None, Schedule::Due(DUE_AT_ONCE)),
        }
    }

    /// Gives what was just written to the worker at hand, or lets workers know that there is something to claim.
    pub(super) fn hand_over(&self, place: Option<OwnedPermit<Job>>, job: Job) {
        match place {
            Some(place) => drop(place.send(job)),
            None => self.work.notify_one(),
        }
    }
}
