//! The edge of the dialogue: one task a call. It owns the leg, listens, runs the models and the look-ups that the dialogue
//! asks for, and feeds back what they say; every decision is the dialogue's.

mod agreeing; // what rules ask of a payer: codes, others, mandates; a voice deleted
mod ahead;
mod app_call; // an app's page confirms a payment: what was bound, and what the page is told
mod approvals;
pub mod callbacks;
mod caller;
mod challenge;
mod desk;
mod driver;
mod ending;
mod errand;
mod following;
pub mod heard_before;
mod hearing;
pub mod inference;
pub mod page;
pub mod recording;
pub mod registry;
mod services;
pub mod timeline;
mod trace;
mod transfer;
mod voice;
mod work;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::decision::replay::StoredEvidence;
use crate::dialogue::CallVerdict;
use crate::ids::{AppSessionId, CallId, IntentId};
use crate::media::leg::Attestation;

pub use app_call::AppCall;
pub use approvals::Approvals;
pub use desk::Desk;
pub use driver::{run_app_call, run_call, run_errand};
pub use errand::PlacedFor;
pub use services::Services;
pub use transfer::Switchboard;

/// How a key press stands in a timeline: which key is nobody's business.
pub const KEY_PRESSED: &str = "presses a key";

/// What stays of a call. No card number, no audio, no embedding.
#[derive(Clone, Debug, Serialize)]
pub struct CallRecord {
    /// Its name.
    pub call: CallId,
    /// Where it came from.
    pub peer: String,
    /// What was spoken over.
    pub codec: String,
    /// What the signature on the caller's number came to: `verstat`, and why it does not hold where it does not.
    #[serde(serialize_with = "as_verstat")]
    pub attestation: Attestation,
    /// When it was answered.
    pub started_at: Timestamp,
    /// How long it was up, in milliseconds.
    pub duration_ms: u64,
    /// How it ended.
    #[serde(serialize_with = "as_debug")]
    pub verdict: CallVerdict,
    /// Whether the number was ever compared: never before the voice was accepted.
    pub number_compared: bool,
    /// What happened, in order.
    pub events: Vec<timeline::Event>,
    /// The payment that it handed over, and what it learnt of it in a word.
    pub payment: Option<(IntentId, &'static str)>,
    /// For a trace: not stored.
    #[serde(skip)]
    pub spans: Vec<crate::ops::trace::Span>,
    /// Why we placed the call; of a call that came in nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placed_for: Option<PlacedFor>,
    /// The app session that it belongs to, if a page called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_session: Option<AppSessionId>,
    /// What each verdict on a voice and a number was made on: scores, which can be judged again under another policy.
    pub evidence: Vec<StoredEvidence>,
}

fn as_debug<S: serde::Serializer>(verdict: &CallVerdict, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("{verdict:?}"))
}

fn as_verstat<S: serde::Serializer>(attestation: &Attestation, s: S) -> Result<S::Ok, S::Error> {
    match attestation.fault() {
        Some(fault) => s.collect_str(&format_args!("{} {}", attestation.verstat(), fault.code())),
        None => s.serialize_str(attestation.verstat()),
    }
}

/// Figures for a timeline's line.
pub(crate) fn figures<const N: usize>(pairs: [(&str, serde_json::Value); N]) -> serde_json::Map<String, serde_json::Value> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}
