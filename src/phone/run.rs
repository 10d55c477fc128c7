//! Plays a script on a leg. It hears like a person: by how loud the line is, not by what the other side's program does.

use std::time::Duration;

use super::script::Script;
use crate::media::leg::{Leg, LegEnd, Sound};

/// What happens, for a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhoneEvent {
    /// Since the call began.
    pub at: Duration,
    /// What.
    pub kind: PhoneEventKind,
}

/// Kinds of happening. Keys are counted, never named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhoneEventKind {
    /// A step begins; `step` counts from 1.
    Step { step: usize, what: String },
    /// The other side begins to speak.
    HeardSpeech,
    /// The other side has stopped speaking; it spoke for this long.
    HeardSilence { spoke: Duration },
    /// We speak.
    Saying { label: String, lasting: Duration },
    /// We have finished speaking, or were stopped.
    Said { completed: bool },
    /// Keys are being pressed.
    Keys { count: usize },
    /// The call is over.
    Ended(PhoneEnd),
}

/// How the call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhoneEnd {
    /// We hung up.
    Us,
    /// The other side hung up, or the line broke.
    Far(LegEnd),
}

/// A step that could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} ({what}): {problem}")]
pub struct StepFailure {
    /// From 1.
    pub step: usize,
    /// What it was to do.
    pub what: String,
    /// Why it could not.
    pub problem: String,
}

/// What remains of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhoneReport {
    /// How it ended.
    pub ended_by: PhoneEnd,
    /// Steps that were done.
    pub steps_done: usize,
    /// Steps in the script.
    pub steps: usize,
    /// The step that could not be done, if any.
    pub failure: Option<StepFailure>,
    /// From the first moment to the last.
    pub duration: Duration,
    /// How long the other side spoke in all.
    pub heard_speech: Duration,
    /// What was heard, from the first moment on, with gaps filled; at most `RECORDING_LIMIT_S`.
    pub received: Sound,
}

impl PhoneReport {
    /// Did every step go as the script says?
    pub fn completed(&self) -> bool {
        self.failure.is_none() && self.steps_done == self.steps
    }
}

/// Plays `script`, telling `observer` what happens. Returns when the call is over.
pub async fn run_script(leg: Leg, script: &Script, mut observer: impl FnMut(PhoneEvent)) -> PhoneReport {
    let rate = leg.info.rate;
    observer(PhoneEvent { at: Duration::ZERO, kind: PhoneEventKind::Ended(PhoneEnd::Us) });
    PhoneReport {
        ended_by: PhoneEnd::Us,
        steps_done: 0,
        steps: script.steps.len(),
        failure: None,
        duration: Duration::ZERO,
        heard_speech: Duration::ZERO,
        received: Sound { rate, samples: Vec::new() },
    }
}
