//! Exit codes, one a kind of trouble, so that scripts can tell them apart. They are part of the interface: never renumber.

use std::fmt;

/// How the command ended when it did not end well. 2 is clap's, for wrong usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something nobody foresaw.
    Unexpected = 1,
    /// The configuration is wrong; the message names key and line.
    Config = 10,
    /// A model is not there: `voicepay models fetch`.
    ModelMissing = 11,
    /// A model is there but is not what the manifest pins (sha256, size, format).
    ModelCorrupt = 12,
    /// The database can't be opened, written or migrated.
    Database = 13,
    /// A port or address can't be bound.
    Port = 14,
    /// A WAV file can't be used: rate, channels, length, clipping, silence.
    Audio = 15,
    /// The master key is missing, malformed or not the one that sealed the data.
    MasterKey = 16,
    /// A package could not be downloaded.
    Fetch = 17,
    /// What was asked for does not exist or is refused by a rule.
    Refused = 18,
    /// A call could not be placed or did not go as its script says.
    Call = 19,
    /// A demo scenario did not end as it must.
    Demo = 20,
    /// `doctor` found something amiss.
    Doctor = 21,
    /// An evaluation can't run: lists, data.
    Eval = 22,
    /// A trunk does not work as configured.
    Trunk = 23,
    /// The acquirer does not work as configured.
    Gateway = 24,
    /// The audit log, a proof or a receipt is not good: altered, cut, or signed by another key.
    Audit = 25,
}

/// An error on its way to the terminal: one sentence saying what was wrong, where, and what to do.
#[derive(Debug)]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// The sentence.
    pub message: String,
}

impl CliError {
    /// From anything that reads as a sentence.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// What every subcommand returns.
pub type CliResult = Result<(), CliError>;
