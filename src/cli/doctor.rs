//! `voicepay doctor`.

use super::Context;
use super::exit::{CliError, CliResult, Exit};

/// (furnished by its room's owner)
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {}

/// Runs it.
pub fn run(_args: DoctorArgs, _ctx: &Context) -> CliResult {
    Err(CliError::new(Exit::Unexpected, "this command is not built yet"))
}
