//! `voicepay enrol`.

use super::Context;
use super::exit::{CliError, CliResult, Exit};

/// (furnished by its room's owner)
#[derive(Debug, clap::Args)]
pub struct EnrolArgs {}

/// Runs it.
pub fn run(_args: EnrolArgs, _ctx: &Context) -> CliResult {
    Err(CliError::new(Exit::Unexpected, "this command is not built yet"))
}
