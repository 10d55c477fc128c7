//! `voicepay card`.

use super::Context;
use super::exit::{CliError, CliResult, Exit};

/// (furnished by its room's owner)
#[derive(Debug, clap::Args)]
pub struct CardArgs {}

/// Runs it.
pub fn run(_args: CardArgs, _ctx: &Context) -> CliResult {
    Err(CliError::new(Exit::Unexpected, "this command is not built yet"))
}
