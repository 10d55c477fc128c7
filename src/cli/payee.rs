//! `voicepay payee`: who gets paid.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::data::{Data, block_on, known_tenant, name, store_error};
use super::exit::{CliError, CliResult, Exit};
use crate::ids::{Category, PayeeId, Tenant};
use crate::media::wav;
use crate::store::Payee;

/// Arguments of `voicepay payee`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay payee add --name 'City Water Works' --recording water-works.wav\n  voicepay payee list\n\nWithout a recording the name is spelt to callers."
)]
pub struct PayeeArgs {
    #[command(subcommand)]
    command: PayeeCommand,
}

#[derive(Debug, Subcommand)]
enum PayeeCommand {
    /// Add a payee.
    Add {
        /// The name, as it stands on statements.
        #[arg(long)]
        name: String,
        /// The name spoken: a mono 16-bit WAV of 8, 16 or 48 kHz, at most ten seconds.
        #[arg(long, value_name = "FILE")]
        recording: Option<PathBuf>,
        /// What it sells, for rules: `groceries`, `gambling`.
        #[arg(long, value_name = "WORD")]
        category: Option<Category>,
        /// Whose payee it is.
        #[arg(long, value_name = "NAME", default_value_t)]
        tenant: Tenant,
    },
    /// List the payees.
    List,
}

/// Runs it.
pub fn run(args: PayeeArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            PayeeCommand::Add { name, recording, category, tenant } => {
                add(ctx, &data, &name, recording.as_deref(), category, tenant).await
            }
            PayeeCommand::List => list(ctx, &data).await,
        }
    })
}

async fn add(
    ctx: &Context,
    data: &Data,
    given: &str,
    recording: Option<&Path>,
    category: Option<Category>,
    tenant: Tenant,
) -> CliResult {
    known_tenant(&*data.store, &tenant).await?;
    let payee = Payee {
        tenant,
        category,
        id: PayeeId::fresh(&*data.entropy),
        name: name(given)?,
        spoken_name_wav: recording.map(read_recording).transpose()?,
        created_at: data.now(),
    };
    let audit = data.audit("payee.added", payee.id.as_str(), json!({ "recording": payee.spoken_name_wav.is_some() }));
    data.store.add_payee(&payee, &audit).await.map_err(store_error)?;
    ctx.answer(&json!({ "id": payee.id, "name": payee.name, "recording": payee.spoken_name_wav.is_some() }), payee.id.as_str());
    Ok(())
}

fn read_recording(path: &Path) -> Result<Vec<u8>, CliError> {
    const RECORDING_MAX_S: u64 = 10;
    let audio = |e: &dyn std::fmt::Display| CliError::new(Exit::Audio, format!("{}: {e}", path.display()));
    let sound = wav::read_wav(path).map_err(|e| CliError::new(Exit::Audio, e))?;
    wav::check_speech(&sound).map_err(|e| audio(&e))?;
    let length = sound.rate.duration_of(sound.samples.len());
    if length.as_secs() >= RECORDING_MAX_S {
        return Err(audio(&format_args!("lasts {} s; a payee's name takes at most {RECORDING_MAX_S} s", length.as_secs())));
    }
    std::fs::read(path).map_err(|e| audio(&e))
}

async fn list(ctx: &Context, data: &Data) -> CliResult {
    let all = data.store.payees().await.map_err(store_error)?;
    let lines: Vec<_> = all.iter().map(|p| format!("{}  {}", p.id, p.name)).collect();
    let text = if lines.is_empty() { "no payees yet: `voicepay payee add`".to_owned() } else { lines.join("\n") };
    ctx.answer(&json!({ "payees": all.iter().map(|p| json!({ "id": p.id, "name": p.name })).collect::<Vec<_>>() }), &text);
    Ok(())
}
