//! `[callbacks]`: calls that we owe, and whether somebody can be called at all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::desk::{Desk, DeskError};
use crate::clock::Timestamp;
use crate::dialogue::{DialogueConfig, Errand, Purpose};
use crate::ids::CustomerId;
use crate::store::CustomerStatus;

/// From the end of everything that has a limit to the end of the lease, in milliseconds.
const LEASE_MARGIN_MS: u64 = 60_000;

/// Calls that we place to those who have to agree, and to payers who wait for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallbacksConfig {
    /// The trunk that calls go out over; empty: nobody is called, and who has to agree is reached by link alone.
    pub trunk: String,
    /// The number that they see.
    pub from: String,
    /// How long it may ring, in seconds.
    pub ring_s: u32,
    /// Calls to one person about one payment.
    pub limit_tries: u32,
    /// From the end of one of them to the next, in seconds.
    pub between_tries_s: u32,
    /// Calls at once on this node. Those that came in are counted apart; `sip.max_calls` bounds both together.
    pub at_once_calls: usize,
    /// How often it is looked what is due, in milliseconds.
    pub poll_ms: u32,
    /// How a payer who waited for others hears what became of the payment, beside the notification that is always made.
    pub tell_payer: TellPayer,
}

/// How a payer hears what became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TellPayer {
    /// By notification alone.
    #[default]
    Notify,
    /// By a call, too.
    Call,
}

impl Default for CallbacksConfig {
    fn default() -> Self {
        Self {
            trunk: String::new(),
            from: "anonymous".to_owned(),
            ring_s: 30,
            limit_tries: 3,
            between_tries_s: 300,
            at_once_calls: 4,
            poll_ms: 2_000,
            tell_payer: TellPayer::Notify,
        }
    }
}

impl CallbacksConfig {
    /// What parses but cannot work: the key, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key: &'static str, what: &'static str| if ok { Ok(()) } else { Err((key, what)) };
        rule(!self.from.is_empty(), "from", "must be a number of yours, or anonymous")?;
        rule((5..=180).contains(&self.ring_s), "ring_s", "must be 5 to 180")?;
        rule((1..=10).contains(&self.limit_tries), "limit_tries", "must be 1 to 10: nobody is called without end")?;
        rule((30..=86_400).contains(&self.between_tries_s), "between_tries_s", "must be 30 to 86400")?;
        rule((1..=1_000).contains(&self.at_once_calls), "at_once_calls", "must be 1 to 1000")?;
        rule((100..=600_000).contains(&self.poll_ms), "poll_ms", "must be 100 to 600000")
    }

    /// How long one try can take at most, whatever happens in it, with a slow caller's time: nobody else may begin before.
    pub fn lease(&self, pickup_deadline_ms: u32, dialogue: &DialogueConfig) -> Duration {
        let call_limit_ms = dialogue.call_limit_ms.saturating_mul(dialogue.slow_times.max(1));
        let talk = [call_limit_ms, dialogue.score_wait_ms, dialogue.payment_wait_ms, dialogue.closing_limit_ms];
        let ms = talk.into_iter().chain([pickup_deadline_ms]).fold(LEASE_MARGIN_MS, |sum, ms| sum.saturating_add(ms.into()));
        Duration::from_millis(ms).saturating_add(Duration::from_secs(self.ring_s.into()))
    }

    /// When the next try would be, after so many; `None`: there were enough, or it would come too late.
    pub fn next_try(&self, tries: u32, now: Timestamp, expires_at: Timestamp) -> Option<Timestamp> {
        let at = now.plus(Duration::from_secs(self.between_tries_s.into()));
        (tries < self.limit_tries && at < expires_at).then_some(at)
    }
}

/// Whether somebody can be called now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callable {
    /// Call them.
    Now(Errand),
    /// Not now: why, in a word.
    Later(&'static str),
    /// Not at all: why, in a word.
    Never(&'static str),
}

impl Desk {
    /// Whether this customer can be called, and as whom the voice is judged then.
    pub async fn callable(
        &self,
        customer: &CustomerId,
        purpose: Purpose,
        limit_failures: u32,
        now: Timestamp,
    ) -> Result<Callable, DeskError> {
        let Some(person) = self.store.customer(customer).await?.filter(|c| c.status == CustomerStatus::Active) else {
            return Ok(Callable::Never("no_such_customer"));
        };
        let Some(number) = person.numbers.first().cloned() else { return Ok(Callable::Never("no_number")) };
        let comparable = self.store.template(customer).await?.is_some_and(|row| row.model == self.voice_model);
        if !comparable {
            return Ok(Callable::Never("not_enrolled"));
        }
        // We call the number ourselves, so that only failures that count against the customer do.
        let failures_24h = self.tries(customer, &person.numbers, Some(&number), true, now).await?;
        if failures_24h >= limit_failures {
            return Ok(Callable::Later("locked_out"));
        }
        let slow = self.store.wants_more_time(customer).await?;
        Ok(Callable::Now(Errand { customer: person.id, number, language: person.language, failures_24h, slow, purpose }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_bounded_in_number_and_by_the_approvals_end() {
        let cfg = CallbacksConfig::default();
        let next = |tries, now, end| cfg.next_try(tries, Timestamp(now), Timestamp(end));
        assert_eq!(next(1, 0, 900_000), Some(Timestamp(300_000)));
        assert_eq!(next(2, 0, 300_001), Some(Timestamp(300_000)));
        assert_eq!(next(1, 0, 300_000), None, "it would come too late");
        assert_eq!(next(3, 0, 900_000), None, "three are enough");
    }

    #[test]
    fn a_lease_outlasts_the_longest_call() {
        let (cfg, dialogue) = (CallbacksConfig::default(), DialogueConfig::default());
        assert!(
            cfg.lease(9_000, &dialogue) > Duration::from_secs(30 + 9 + 3 * 300 + 20 + 20 + 30),
            "that of who wants more time"
        );
    }

    #[test]
    fn what_cannot_work_is_named() {
        let wrong = |change: fn(&mut CallbacksConfig)| {
            let mut cfg = CallbacksConfig::default();
            change(&mut cfg);
            cfg.check().unwrap_err().0
        };
        assert!(CallbacksConfig::default().check().is_ok());
        assert_eq!(wrong(|c| c.limit_tries = 0), "limit_tries");
        assert_eq!(wrong(|c| c.from.clear()), "from");
        assert_eq!(wrong(|c| c.at_once_calls = 0), "at_once_calls");
        assert_eq!(wrong(|c| c.between_tries_s = 1), "between_tries_s");
    }
}
