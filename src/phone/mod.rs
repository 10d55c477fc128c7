//! Our own softphone: a script (`script`) played on a leg (`run`), over SIP or in process, as a patient caller would.

pub mod digits; // hears digits that are asked for, and says them
pub mod hearing; // speech or silence
pub mod run; // plays a script on a leg
pub mod script; // what to do, from TOML

pub use digits::DigitVoice;
pub use run::{PhoneEnd, PhoneEvent, PhoneEventKind, PhoneReport, StepFailure, run_script};
pub use script::{Action, Script, ScriptError, Step};
