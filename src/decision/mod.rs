//! PURE. Voice and number, each judged by its own thresholds; both must accept. Nothing here does I/O or reads a clock.
//!
//! Scores are calibrated log-likelihood ratios (natural logarithm, so that ln 1000 says "a thousand times likelier if it is the
//! customer"), thresholds carry the name of the false-accept rate that they hold. What else is known of a call (a caller number
//! nobody vouches for, failures of late, audio heard before) can only tighten. Evidence types live here, not with the models, so
//! that the dialogue can hold them without knowing a model, and so that stored evidence can be judged again under another policy.

pub mod calibration; // raw scores to log-likelihood ratios, false-accept rates to thresholds
mod evidence; // what models say of one utterance
mod judge; // evidence and policy to verdicts
mod policy; // thresholds, and how the configuration names them
pub mod refresh; // whether a template may follow its voice
pub mod replay; // stored evidence, judged again under another policy

pub use calibration::Calibration;
pub use evidence::{Answer, CardEvidence, NumberEvidence, PhraseEvidence, Tightening, VoiceScore};
pub use judge::{
    NumberVerdict, PhraseVerdict, VoiceAccepted, VoiceVerdict, judge_challenge, judge_fresh_digits, judge_number, judge_phrase,
    judge_voice,
};
pub use policy::{ChallengeWhen, DecisionConfig, DigitThresholds, Policy, PolicyError, TightenConfig, VoiceThresholds};
