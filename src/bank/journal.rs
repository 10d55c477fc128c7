//! Judging and writing: an input is judged by all that stands under its reference, and what follows is appended only if nothing
//! came in between. Of several nodes that write at once, one reads again and judges again.

use std::time::Duration;

use serde_json::json;

use crate::clock::{Clock, Entropy};
use crate::crash;
use crate::gateway::bank_feedback::NotTaken;
use crate::ids::{AuditId, RequestId};
use crate::payment::pairing::{Decision, Entry, Input, Waits};
use crate::store::{AuditRecord, Store, StoreError, bank};

pub use crate::store::bank::pairing;

/// How often an input is judged anew because somebody else was faster, or the database was busy.
const TRIES: u32 = 8;
/// Pause before it is judged again, in milliseconds; grows with each try.
const PAUSE_MS: u64 = 20;

/// Judges an input and commits what follows, with an audit row for each event; `by` is who caused it. The same input again
/// changes nothing.
pub async fn judge(
    (store, clock, entropy): (&dyn Store, &dyn Clock, &dyn Entropy),
    waits: Waits,
    reference: &RequestId,
    by: &str,
    mut input: Input,
) -> Result<Decision, NotTaken> {
    let mut tries = 0;
    loop {
        let now = clock.now();
        let before = pairing(store, reference).await.map_err(failed)?;
        let decision = before.decide(waits, now, input.clone())?;
        if decision.entries.is_empty() {
            return Ok(decision);
        }
        let row = |entry: &Entry| AuditRecord {
            id: AuditId::fresh(entropy),
            at: entry.at,
            actor: by.to_owned(),
            action: format!("deduction.{}", entry.event.name()),
            subject: reference.to_string(),
            detail: json!(entry.event),
        };
        let audit: Vec<_> = decision.entries.iter().map(row).collect();
        crash::point("bank_before_append");
        match store.append_deduction(&decision, &audit).await {
            Ok(()) => {
                crash::point("bank_after_append");
                for entry in &decision.entries {
                    tracing::info!(%reference, event = entry.event.name(), "recorded of a deduction");
                }
                return Ok(decision);
            }
            Err(error) if tries >= TRIES => return Err(failed(error)),
            Err(StoreError::Exists(bank::MESSAGE_ID)) => {
                input = match input {
                    Input::Message(message) => Input::MessageSeenElsewhere(message),
                    other => other,
                };
            }
            // `Unsure`: if it was written after all, the next try finds that nothing is left to do.
            Err(StoreError::Conflict(_) | StoreError::Busy | StoreError::Unreachable(_) | StoreError::Unsure(_)) => {}
            Err(other) => return Err(failed(other)),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(PAUSE_MS * u64::from(tries))).await;
    }
}

pub(super) fn failed(error: StoreError) -> NotTaken {
    NotTaken::Failed(error.to_string())
}
