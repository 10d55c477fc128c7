//! A bank that gives feedback (docs/BANK.md): hears of deductions that it is about to make, holds them against what customers
//! confirmed to us, and instructs it. What is decided, [`payment::pairing`](crate::payment::pairing) says; here are the
//! sockets, the clock and the retries. The journal goes first, always: what is sent follows from what was committed, so that a
//! process that dies in between, or another node, sends the very same again and the bank does it once.

mod agenda;
mod client;
mod desk;
mod journal;
mod listener;
pub mod reconcile;
pub mod signature;
mod wire;

pub use desk::Desk;
pub use journal::{judge, pairing};
pub use listener::PATH;

/// Points at which a test may kill the process (`crate::crash`), in the order in which a deduction meets them.
pub const CRASH_POINTS: [&str; 4] =
    ["bank_before_append", "bank_after_append", "bank_before_instruction", "bank_after_instruction"];
