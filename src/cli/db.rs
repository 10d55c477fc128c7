//! `voicepay db`: bring the database up to date, back it up, put a backup back, check it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::data::{Data, block_on, store_error};
use super::exit::{CliError, CliResult, Exit};
use crate::clock::SystemEntropy;
use crate::processor::check;
use crate::store::backup::{self, BackupError};
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay db`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay db migrate\n  voicepay db backup /backup/2026-11-22.db          and /backup/2026-11-22.db.keys: keep them apart\n  voicepay db backup pay.db --keys-file /vault/pay.keys\n  voicepay db restore pay.db --keys-file /vault/pay.keys\n  voicepay db restore pay.db --keys-file pay.db.keys --replace\n  DATABASE_URL=postgres://pay@db.example/voicepay voicepay db check\n\nThe database is the one of DATABASE_URL, `store.url` or `store.path`. A backup holds no master key. See docs/VAULT.md."
)]
pub struct DbArgs {
    #[command(subcommand)]
    command: DbCommand,
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    /// Make the database, or bring its tables up to date.
    Migrate,
    /// Write a backup while the service runs: the data, and the wrapped keys in a file of their own.
    Backup {
        /// Where the data goes; must not exist.
        file: PathBuf,
        /// Where the wrapped keys go [default: FILE.keys].
        #[arg(long, value_name = "FILE")]
        keys_file: Option<PathBuf>,
    },
    /// Put a backup in the place of an empty database, once it was read whole and its master key compared.
    Restore {
        /// The data.
        file: PathBuf,
        /// The wrapped keys; without them no card and no voice opens.
        #[arg(long, value_name = "FILE")]
        keys_file: Option<PathBuf>,
        /// Drop what the database holds.
        #[arg(long)]
        replace: bool,
    },
    /// Read the database: the books balance, and agree with the audit trail.
    Check,
}

/// Runs it.
pub fn run(args: DbArgs, ctx: &Context) -> CliResult {
    block_on(async {
        match args.command {
            DbCommand::Migrate => migrate(ctx).await,
            DbCommand::Backup { file, keys_file } => back_up(ctx, file, keys_file).await,
            DbCommand::Restore { file, keys_file, replace } => restore(ctx, file, keys_file, replace).await,
            DbCommand::Check => sound(ctx).await,
        }
    })
}

async fn migrate(ctx: &Context) -> CliResult {
    let data = Data::open(ctx).await?; // opening migrates
    data.store.close().await;
    ctx.answer(&json!({ "migrated": true }), "the database is up to date");
    Ok(())
}

async fn back_up(ctx: &Context, file: PathBuf, keys_file: Option<PathBuf>) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    let written = backup::backup(&ctx.config()?.store, &file, keys_file.as_deref()).await.map_err(backup_error)?;
    let ((data, data_bytes), (keys, keys_bytes)) = (written.data, written.keys);
    let text = format!(
        "{}  {data_bytes} bytes of data\n{}  {keys_bytes} bytes of wrapped keys: keep them apart from the data, and not as long",
        data.display(),
        keys.display()
    );
    ctx.answer(&json!({ "data": data, "data_bytes": data_bytes, "keys": keys, "keys_bytes": keys_bytes }), &text);
    Ok(())
}

async fn restore(ctx: &Context, file: PathBuf, keys_file: Option<PathBuf>, replace: bool) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    let cfg = ctx.config()?;
    let entropy = std::sync::Arc::new(SystemEntropy);
    let done = backup::restore(&cfg.store, &cfg.vault, &file, keys_file.as_deref(), replace, entropy).await;
    done.map_err(backup_error)?;
    let without = if keys_file.is_none() { "; without its keys no card and no voice opens" } else { "" };
    let text = format!("{} is in place{without}", file.display());
    ctx.answer(&json!({ "restored": file, "with_keys": keys_file.is_some() }), &text);
    Ok(())
}

async fn sound(ctx: &Context) -> CliResult {
    const SHOWN_LIMIT: u32 = 20;
    let damaged = |why: String| CliError::new(Exit::Database, why);
    let data = Data::open(ctx).await?;
    let books = check::books(&*data.store).await.map_err(store_error)?;
    if let Some(first) = books.findings.first() {
        return Err(damaged(format!("the books are damaged: {first}: see `voicepay books check`")));
    }
    let disagreements = data.store.disagreements(SHOWN_LIMIT).await.map_err(store_error)?;
    if let Some(first) = disagreements.first() {
        return Err(damaged(format!("{} {}: see `voicepay audit verify`", first.subject, first.what.text())));
    }
    let text = format!(
        "{} rows in the books, {} reserved and not yet ended; they balance and agree with the audit trail",
        books.transfers, books.open
    );
    ctx.answer(&json!({ "transfers": books.transfers, "open": books.open, "sound": true }), &text);
    Ok(())
}

fn backup_error(error: BackupError) -> CliError {
    let exit = match &error {
        BackupError::Key(_) => Exit::MasterKey,
        BackupError::Exists(_) | BackupError::HoldsData(_) | BackupError::NewerTables { .. } | BackupError::InUse(_) => {
            Exit::Refused
        }
        BackupError::Io { .. }
        | BackupError::NoTool(_)
        | BackupError::Tool { .. }
        | BackupError::Unsound { .. }
        | BackupError::Store(_) => Exit::Database,
    };
    CliError::new(exit, error)
}
