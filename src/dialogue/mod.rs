//! PURE. The IVR: a file a state; `handle(cfg, state, now, input, &mut effects) -> State`.

mod config;
mod effect;
mod input;
pub mod prompt;

pub use config::DialogueConfig;
pub use effect::{Approval, CallVerdict, Charge, Consent, Effect, Factor, ListenFor, Notice, NumberSummary, PlayId};
pub use input::{
    AnswerHeard, Caller, CardOnFile, DeadlineKind, EnrolOutcome, FailuresOf24h, IdentityOutcome, Input, InviteOutcome, Keypress,
    Known, NumberHeard, OpenRequest, PaymentOutcome, ScoreTrouble, StoreOutcome, Usable, UtteranceFacts, UtteranceQuality,
    VoiceOnFile,
};
pub use prompt::{Again, Prompt, SpokenDate, SpokenPayee};

use crate::clock::Timestamp;

/// Where a call stands. Begin with [`State::new`]; what is inside is the dialogue's own.
#[derive(Debug)]
pub enum State {
    /// Nothing has happened yet.
    Waiting,
    /// Over.
    Ended(CallVerdict),
}

impl State {
    /// Before the first input.
    pub fn new() -> Self {
        Self::Waiting
    }

    /// For logs and timelines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ended(_) => "ended",
        }
    }

    /// The verdict, once the call is over.
    pub fn verdict(&self) -> Option<CallVerdict> {
        match self {
            Self::Waiting => None,
            Self::Ended(verdict) => Some(*verdict),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes the call one step further: consumes the state, appends to `out` what is to be done, in order, and returns the next state.
/// `now` never goes back within a call.
pub fn handle(cfg: &DialogueConfig, state: State, now: Timestamp, input: Input, out: &mut Vec<Effect>) -> State {
    let (_, _, _, _) = (cfg, now, input, out);
    state
}
