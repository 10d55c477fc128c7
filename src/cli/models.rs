//! `voicepay models`: fetch, verify.

use std::path::PathBuf;

use serde_json::json;

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use crate::models::{self, FetchOptions, Manifest, ModelError};

/// Fetch and verify the speech models.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  voicepay models fetch                    download, check and convert what is missing\n  voicepay models fetch --from-dir wheels  the same from wheels that lie in a folder, without a network\n  voicepay models verify --json            recompute every sha256\n\nModels lie in $VOICEPAY_MODELS, else ~/.cache/voicepay/models."
)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ModelsCommand {
    /// Download what is missing, check its sha256, convert it.
    Fetch {
        /// Optional models too (Whisper base).
        #[arg(long)]
        all: bool,
        /// Take the wheels from this folder; download nothing.
        #[arg(long, value_name = "DIR")]
        from_dir: Option<PathBuf>,
    },
    /// Recompute the sha256 of every model in the cache.
    Verify,
}

/// Runs it.
pub fn run(args: ModelsArgs, ctx: &Context) -> CliResult {
    let manifest = Manifest::compiled_in().map_err(|e| CliError::new(Exit::Config, e))?;
    match args.command {
        ModelsCommand::Fetch { all, from_dir } => fetch(&manifest, FetchOptions { all, from_dir }, ctx),
        ModelsCommand::Verify => verify(&manifest, ctx),
    }
}

fn fetch(manifest: &Manifest, options: FetchOptions, ctx: &Context) -> CliResult {
    let dir = models::cache_dir();
    let done = models::fetch(&dir, manifest, &options, &|line| eprintln!("{line}")).map_err(|e| CliError::new(exit_of(&e), e))?;
    let rows: Vec<_> =
        done.iter().map(|m| json!({"model": m.name, "path": m.path, "bytes": m.size_bytes, "was_there": m.was_there})).collect();
    let text: Vec<String> = done.iter().map(|m| format!("{}: {}", m.name, m.path.display())).collect();
    ctx.answer(&json!({ "models": rows }), &text.join("\n"));
    Ok(())
}

fn verify(manifest: &Manifest, ctx: &Context) -> CliResult {
    let mut rows = Vec::new();
    let mut text = Vec::new();
    let mut first_error = None;
    for (name, found) in models::verify(&models::cache_dir(), manifest) {
        match found {
            Ok(v) => {
                rows.push(json!({"model": name, "ok": true, "path": v.path, "bytes": v.size_bytes, "sha256": v.sha256}));
                text.push(format!("{name}: well ({})", v.sha256));
            }
            Err(e) => {
                rows.push(json!({"model": name, "ok": false, "error": e.to_string()}));
                text.push(format!("{name}: {e}"));
                // The last line is the error itself; here only the first of several.
                first_error.get_or_insert_with(|| CliError::new(exit_of(&e), e));
            }
        }
    }
    ctx.answer(&json!({ "models": rows }), &text.join("\n"));
    first_error.map_or(Ok(()), Err)
}

/// The exit code of a trouble with models.
pub fn exit_of(error: &ModelError) -> Exit {
    match error {
        ModelError::Missing { .. } => Exit::ModelMissing,
        ModelError::Corrupt { .. } | ModelError::WrongMember { .. } | ModelError::Convert { .. } => Exit::ModelCorrupt,
        ModelError::NoPip { .. } | ModelError::Download { .. } | ModelError::NoWheel { .. } | ModelError::Busy { .. } => {
            Exit::Fetch
        }
        ModelError::Manifest(_) => Exit::Config,
        ModelError::Io { .. } => Exit::Unexpected,
    }
}
