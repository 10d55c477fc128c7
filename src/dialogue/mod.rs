//! PURE. The IVR: a file a state; `handle(cfg, state, now, input, &mut effects) -> State`.
//!
//! ```text
//! Waiting ─Started→ Welcoming ─known→ payer: voice? limits? cards? request? ──(first that fails)──→ Closing
//!            │ unknown, shared, withheld                │ invited
//!            ▼                                          ▼
//!  KeyingCustomerNumber ⇄ LookingUp ─known→ payer   KeyingInvite ⇄ Redeeming → AskingConsent ⇄ HearingConsent
//!                                                       → Saying ⇄ Adding → Storing → Closing
//! payer → ReadingRequest → AskingCard ─utterance────────────────→ ScoringVoice ─accepted→ ReadingNumber ─accepted→ Confirming
//!                            │ ▲   └digit→ KeyingCard → AskingCounting ─┘ │ │   ▲              │ not            ⇅ HearingAnswer
//!                            │ │                              unsure, or  │ │   │ accepted     │                  │ yes, same voice
//!                            │ │                              by policy ▼ │ ScoringDigits ─┐ │                  │
//!                            │ │            Drawing → Holding → AskingDigits ─┘ │ unsure: Drawing                 │
//!                            │ └───────────── Holding (padded reply) ◄────┴─────┴────────────┘                   │
//!                            ▼ limits                                                                           ▼
//!                          Closing ◄──────────────────────── outcome, or none in time ───────────────────── Charging
//! an app's page ─→ payer (no greeting), with a bound card ─→ Confirming ⇄ HearingAnswer ─yes─┐
//! payer, by mandate ─────────────────→ Drawing → Holding → AskingDigits → ScoringDigits ─┐   │
//! ReadingNumber ─accepted, and a code is due→ SendingCode ◄──────────────────────────────┘ ◄─┘ (by Drawing)
//!                  SendingCode → AskingCode ⇄ KeyingCode, ScoringCode → CheckingCode ─good→ Confirming, or Charging where the yes was said
//! Charging ─paid, and a mandate may be offered→ Offering ⇄ HearingOffer ─yes→ Granting → Closing (paid, whatever comes)
//! Welcoming ─9, and known→ Drawing → … → ScoringDigits ─accepted→ AskingDelete ⇄ HearingDelete ─yes→ Deleting → Closing
//! a call that we place, to a person who picked up: Introducing → … → Closing (`approver/`)
//! anywhere before ─0→ Connecting ─to a person→ Ended, or nobody → Closing
//! Closing → Ended(verdict)
//! ```
//!
//! What holds (and is held by `tests/properties.rs` over random inputs in any order):
//! - `Charge` is emitted once at most, and only after an accepted voice, an accepted number and a yes in the same voice, in this
//!   order: `judging::Proven` is made from a `VoiceAccepted` alone, and `charging::begin` consumes it. Before an app's page the yes comes first,
//!   and the accepted voice, which says fresh digits, last.
//! - What the payment's terms ask for holds before it is charged: fresh digits, a one-time code; who is denied is asked for nothing. Without a
//!   number (by mandate) fresh digits and a code always hold; with a card that an app has bound, fresh digits do. What others have to agree to is handed over as such, and promised as no more.
//! - A voice is deleted, and a mandate given, once at most, and only by a yes in the voice that said fresh digits, or that paid.
//! - No number is compared before `decision::judge_voice` gave its proof, which travels in the effect and comes back with the
//!   evidence. After a rejected voice the comparator is not invoked.
//! - Each string of fresh digits is judged once: silence repeats it while it is valid, anything else is answered with another one. An
//!   answer that is late, in other words or in another voice accepts nothing; keys never answer it.
//! - Who wants more time gets it for every wait, and is judged like everybody.
//! - A reply that is no acceptance is the same in words and time whichever factor failed (`judging::hold`).
//! - `*` cancels and `0` asks for a person until something is handed over; from then on nothing the caller does stops it, and
//!   the call never says "nothing was charged" of a payment whose outcome it did not hear.
//! - Every wait has a deadline; every call ends in one `HangUp(verdict)`, the last effect.

mod config;
mod effect;
mod input;
pub mod prompt;

mod line; // what all states share
mod stage; // the states, and what is the same in all

mod advice; // what to say of audio that can't be judged
mod app; // what is said to an app's page
mod approver; // calls that we place: who has to agree is asked, who pays is told
mod card; // 4: the card number, spoken or keyed
mod challenge; // 5: fresh digits, where the voice alone does not settle it
mod charging; // 7: once
mod closing;
mod code; // 6: a one-time code, where the terms ask for one
mod confirm; // 7: read-back and yes
mod connecting; // to a person
mod consent; // enrolment: the yes
mod customer_number; // 2: another identification
mod enrol; // enrolment: the strings
mod invite; // enrolment: the code
mod judging; // 5, 6: voice, then number, then one shape of reply
mod mandate; // 6, 7: a mandate in place of the number; offered after a first payment
mod payer; // 3: voice, limits, cards, request
mod request; // what is to be paid
mod welcome; // 1, 2: greeting, look-up
mod withdrawal; // the voice is deleted, as its owner wishes

#[cfg(test)]
mod tests;

pub use app::AppPrompt;
pub use approver::{CallbackPrompt, Decision, DecisionOutcome, Errand, ErrandEffect, ErrandNews, Matter, Purpose, Told};
pub use config::{ChallengeConfig, DialogueConfig};
pub use effect::{
    AnswerVoice, Approval, CallVerdict, Charge, CodeBy, CodeGiven, Consent, Effect, Factor, ListenFor, MandateGrant, Notice,
    NumberSummary, PlayId,
};
pub use input::{
    AnswerHeard, Asks, Caller, CardOnFile, ChallengeHeard, ChallengeOutcome, CodeChecked, CodeSent, DeadlineKind, EnrolOutcome,
    IdentityOutcome, Input, InviteOutcome, Keypress, Known, NumberHeard, OpenRequest, PaymentOutcome, ScoreTrouble, StoreOutcome,
    Usable, UtteranceFacts, UtteranceQuality, VoiceHeard, VoiceOnFile,
};
pub use prompt::{Again, Prompt, SpokenDate, SpokenPayee};

use crate::clock::Timestamp;

/// Where a call stands. Begin with [`State::new`]; what is inside a live call is the dialogue's own.
#[derive(Debug)]
pub enum State {
    /// Nothing has happened yet.
    Waiting,
    /// Somebody is on the line.
    Live(Live),
    /// Over.
    Ended(CallVerdict),
}

/// A live call.
#[derive(Debug)]
pub struct Live {
    line: line::Line,
    stage: Box<stage::Stage>,
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
            Self::Live(live) => live.stage.name(),
            Self::Ended(_) => "ended",
        }
    }

    /// Whether the caller is being connected to a person.
    pub fn connecting(&self) -> bool {
        matches!(self, Self::Live(live) if matches!(*live.stage, stage::Stage::Connecting(_)))
    }

    /// The verdict, once the call is over.
    pub fn verdict(&self) -> Option<CallVerdict> {
        match self {
            Self::Waiting | Self::Live(_) => None,
            Self::Ended(verdict) => Some(*verdict),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes the call one step further: consumes the state, appends to `out` what is to be done, in order, and returns the
/// next state. `now` never goes back within a call. Answers to effects that nobody waits for any more are ignored.
pub fn handle(cfg: &DialogueConfig, state: State, now: Timestamp, input: Input, out: &mut Vec<Effect>) -> State {
    let (mut line, stage) = match state {
        State::Ended(verdict) => return State::Ended(verdict),
        State::Live(Live { line, stage }) => (line, *stage),
        State::Waiting => {
            return match before_the_call(input) {
                Before::Begin(caller) => {
                    let mut line = line::Line::new(now, caller);
                    let stage = welcome::begin(&mut line::Desk { cfg, now, line: &mut line, out });
                    next(line, stage, out)
                }
                Before::BeginErrand(errand) => {
                    let mut line = line::Line::called_out(now, errand.number.clone());
                    let stage = approver::begin(&mut line::Desk { cfg, now, line: &mut line, out }, *errand);
                    next(line, stage, out)
                }
                Before::BeginApp(known) => {
                    let mut line = line::Line::of_an_app(now);
                    let stage = payer::from_app(&mut line::Desk { cfg, now, line: &mut line, out }, *known);
                    next(line, stage, out)
                }
                Before::End(verdict) => end(verdict, out),
                Before::Wait => State::Waiting,
            };
        }
    };
    let stage = stage.step(&mut line::Desk { cfg, now, line: &mut line, out }, input);
    next(line, stage, out)
}

fn next(line: line::Line, stage: stage::Stage, out: &mut Vec<Effect>) -> State {
    match stage {
        stage::Stage::Over(verdict) => end(verdict, out),
        live => State::Live(Live { line, stage: Box::new(live) }),
    }
}

/// The only place that ends a call.
fn end(verdict: CallVerdict, out: &mut Vec<Effect>) -> State {
    out.push(Effect::HangUp(verdict));
    State::Ended(verdict)
}

enum Before {
    Begin(Caller),
    BeginErrand(Box<Errand>),
    BeginApp(Box<Known>),
    End(CallVerdict),
    Wait,
}

fn before_the_call(input: Input) -> Before {
    match input {
        Input::Started { caller } => Before::Begin(caller),
        Input::CalledOut(errand) => Before::BeginErrand(errand),
        Input::AppCall(known) => Before::BeginApp(known),
        Input::HungUp => Before::End(CallVerdict::Abandoned),
        Input::ServiceTrouble => Before::End(CallVerdict::ServiceTrouble),
        Input::Identity(_)
        | Input::Key(_)
        | Input::SpeechStarted
        | Input::Utterance(_)
        | Input::NoSpeech
        | Input::VoiceScored(_)
        | Input::ChallengeDrawn(_)
        | Input::ChallengeScored(_)
        | Input::NumberRead(_)
        | Input::Answer(_)
        | Input::CodeSent(_)
        | Input::CodeScored(_)
        | Input::CodeChecked(_)
        | Input::MandateGranted(_)
        | Input::VoiceDeleted(_)
        | Input::InviteRedeemed(_)
        | Input::EnrolAdded(_)
        | Input::EnrolStored(_)
        | Input::PromptDone(_)
        | Input::Payment(_)
        | Input::Transferred(_)
        | Input::Errand(_)
        | Input::Deadline(_) => Before::Wait,
    }
}
