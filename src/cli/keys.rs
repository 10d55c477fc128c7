//! `voicepay keys`: which keys sign receipts, checkpoints and instructions, and their public halves.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::data::{Data, block_on, refused, store_error, unlock_error};
use super::exit::{CliError, CliResult, Exit};
use crate::ledger::checkpoint::Checkpoint;
use crate::ledger::keys::{KEYS_TEXT_LIMIT_BYTES, PublicKey};
use crate::store::signing::{self, SigningKeyRecord};
use crate::vault::SigningPurpose;

/// Arguments of `voicepay keys`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay keys show > voicepay-keys.pem        hand this file to whoever shall check receipts or the audit log\n  voicepay keys show --purpose receipts\n  voicepay keys rotate receipts                 the next receipts are signed with a new key; older ones stay good"
)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Show the public keys, newest last, as a PEM file with a line about each.
    Show {
        /// Only those of one purpose: checkpoints, receipts or instructions.
        #[arg(long, value_name = "PURPOSE", value_parser = purpose)]
        purpose: Option<SigningPurpose>,
    },
    /// Make a new key for a purpose; it signs from now on.
    Rotate {
        /// Checkpoints, receipts or instructions.
        #[arg(value_parser = purpose)]
        purpose: SigningPurpose,
    },
}

fn purpose(text: &str) -> Result<SigningPurpose, String> {
    SigningPurpose::parse(text).ok_or_else(|| {
        let all: Vec<_> = SigningPurpose::ALL.iter().map(|p| p.as_str()).collect();
        format!("keys sign {}", all.join(", "))
    })
}

/// Runs it.
pub fn run(args: KeysArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            KeysCommand::Show { purpose } => show(ctx, &data, purpose).await,
            KeysCommand::Rotate { purpose } => rotate(ctx, &data, purpose).await,
        }
    })
}

async fn show(ctx: &Context, data: &Data, purpose: Option<SigningPurpose>) -> CliResult {
    let keys = match purpose {
        Some(one) => data.store.signing_keys(one).await.map_err(store_error)?,
        None => registered(data).await?,
    };
    // A checkpoint is a signed note under the log's name: tools for those take the key in a form with that name in it.
    let origin = data.store.chain().await.map_err(store_error)?.map(|chain| Checkpoint::origin(chain.log()));
    let (mut text, mut list) = (String::new(), Vec::new());
    for key in &keys {
        let note = origin.as_ref().filter(|_| key.purpose == SigningPurpose::Checkpoints).map(|o| key.public.to_note_verifier(o));
        text.push_str(&format!("{}, version {}, since {}: {}\n", key.purpose, key.version, key.made_at, key.public.id()));
        text.push_str(&format!("base64 {}\n", key.public));
        if let Some(note) = &note {
            text.push_str(&format!("signed notes {note}\n"));
        }
        text.push_str(&key.public.to_pem());
        list.push(json!({
            "purpose": key.purpose, "version": key.version, "id": key.public.id(), "made_at": key.made_at,
            "base64": key.public.to_base64(), "pem": key.public.to_pem(), "note_verifier": note,
        }));
    }
    if keys.is_empty() {
        text.push_str("no keys yet: each is made when it first signs (`voicepay audit checkpoint` signs)");
    }
    ctx.answer(&json!({ "keys": list }), text.trim_end());
    Ok(())
}

async fn rotate(ctx: &Context, data: &Data, purpose: SigningPurpose) -> CliResult {
    let vault = data.vault().await?;
    let key = signing::rotate(&*data.store, &vault, purpose, data.now(), &*data.entropy).await.map_err(unlock_error)?;
    let public = PublicKey::new(*key.public());
    let text = format!(
        "{purpose} are signed with key {}, version {}, from now on; hand out `voicepay keys show` anew",
        public.id(),
        key.version()
    );
    ctx.answer(&json!({ "purpose": purpose, "version": key.version(), "id": public.id(), "base64": public.to_base64() }), &text);
    Ok(())
}

/// Every key of every purpose, oldest version first.
pub(super) async fn registered(data: &Data) -> Result<Vec<SigningKeyRecord>, CliError> {
    let mut keys = Vec::new();
    for purpose in SigningPurpose::ALL {
        keys.extend(data.store.signing_keys(purpose).await.map_err(store_error)?);
    }
    Ok(keys)
}

/// Public keys from the command line: each a file, or the key itself.
pub(super) fn given(texts: &[String]) -> Result<Vec<PublicKey>, CliError> {
    let mut keys = Vec::new();
    for text in texts {
        let path = Path::new(text);
        let of = |why: &dyn std::fmt::Display| refused(format!("--key {text}: {why}"));
        if path.exists() {
            let text = read_small(path, KEYS_TEXT_LIMIT_BYTES)?;
            keys.extend(PublicKey::parse_all(&text).map_err(|e| of(&e))?);
        } else {
            keys.extend(PublicKey::parse_all(text).map_err(|e| of(&format_args!("there is no such file, and {e}")))?);
        }
    }
    Ok(keys)
}

/// A text file that is no larger than it may be.
pub(super) fn read_small(path: &Path, limit_bytes: usize) -> Result<String, CliError> {
    use std::io::Read;
    let of = |why: String| CliError::new(Exit::Refused, format!("{} can't be read: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| of(e.to_string()))?;
    let mut text = String::new();
    let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_string(&mut text).map_err(|e| of(e.to_string()))?;
    if text.len() > limit_bytes {
        return Err(of(format!("it is larger than {limit_bytes} bytes")));
    }
    Ok(text)
}
