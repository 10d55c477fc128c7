//! `voicepay models`: fetch, verify.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use crate::eval::data::{Split, read_recipes};
use crate::eval::degrade::{Codec, Line};
use crate::eval::splice::assemble;
use crate::media::frame::SampleRate;
use crate::media::resample::resample_whole;
use crate::models::{self, FetchOptions, Manifest, ModelError};
use crate::voiceprint::Embedder;
use crate::voiceprint::centring::MeanVoice;

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
        /// Take the wheels from this folder; download nothing.
        #[arg(long, value_name = "DIR")]
        from_dir: Option<PathBuf>,
    },
    /// Recompute the sha256 of every model in the cache.
    Verify,
    /// Make models/centring.json anew from development speech (for maintainers; every template must be enrolled again after).
    #[command(hide = true)]
    Centring {
        /// A folder laid out like the evaluation's data.
        #[arg(long, value_name = "ROOT")]
        data: PathBuf,
        /// Which split.
        #[arg(long, default_value = "dev")]
        split: String,
        /// The new version's name.
        #[arg(long, default_value = "centring-2")]
        name: String,
    },
}

/// Runs it.
pub fn run(args: ModelsArgs, ctx: &Context) -> CliResult {
    let manifest = Manifest::compiled_in().map_err(|e| CliError::new(Exit::Config, e))?;
    match args.command {
        ModelsCommand::Fetch { from_dir } => fetch(&manifest, FetchOptions { from_dir }, ctx),
        ModelsCommand::Verify => verify(&manifest, ctx),
        ModelsCommand::Centring { data, split, name } => centring(&data, &split, &name),
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

/// Prints the mean voice of the split's enrolment utterances as they sound over a µ-law line. An aggregate: nobody's voice is in it.
fn centring(data: &Path, split: &str, name: &str) -> CliResult {
    let failed = |e: &dyn std::fmt::Display| CliError::new(Exit::Eval, e);
    let weights = models::Model::CampPlus.checked_path().map_err(|e| CliError::new(exit_of(&e), e))?;
    let digest = models::Manifest::compiled_in()
        .ok()
        .and_then(|m| m.models.into_iter().find(|m| m.file == models::Model::CampPlus.file_name()))
        .and_then(|m| m.sha256.get(..12).map(str::to_owned))
        .unwrap_or_default();
    let embedder = Embedder::load(&weights).map_err(|e| CliError::new(Exit::ModelCorrupt, e))?;
    let split = Split::open(data, split).map_err(|e| failed(&e))?;
    let list = "enrolment.csv";
    let line = Line::clean(Codec::Mulaw);
    let mut mean = MeanVoice::default();
    let recipes = read_recipes(&split.trials(list)).map_err(|e| failed(&e))?;
    for (done, recipe) in recipes.iter().enumerate() {
        let sound = line.through(&recipe.id, assemble(&split, recipe, SampleRate::HZ_8000.hz()).map_err(|e| failed(&e))?);
        let narrow: Vec<f32> = sound.iter().map(|s| f32::from(*s) / 32_768.0).collect();
        let embedding =
            embedder.embed(&resample_whole(&narrow, SampleRate::HZ_8000, SampleRate::HZ_16000)).map_err(|e| failed(&e))?;
        mean.add(&format!("{}/{}", recipe.source, recipe.speaker), &embedding);
        if done % 25 == 24 {
            eprintln!("{} of {} utterances", done + 1, recipes.len());
        }
    }
    let made_from = format!("{} utterances of {list}, spliced digits, telephone band, \u{b5}-law, clean", recipes.len());
    let made = mean.finish(name, &digest, &made_from).ok_or_else(|| failed(&"no utterance could be used"))?;
    println!("{}", serde_json::to_string(&made).map_err(|e| failed(&e))?);
    Ok(())
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
