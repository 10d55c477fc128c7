//! `voicepay vault`: versions of the master key. Data is never touched by them: only the keys that it is sealed under are wrapped anew.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::data::{Data, Progress, block_on, refused, store_error, unlock_error, vault_error};
use super::exit::{CliError, CliResult, Exit};
use crate::clock::Timestamp;
use crate::store::keyring::{Rewrap, Rotation, begin_rotation, rewrap_batch};
use crate::vault::{KeyVersion, Vault};

/// Arguments of `voicepay vault`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay vault status                 what is under which master key\n  voicepay vault prepare                makes the next master key, to be brought to the other nodes first\n  voicepay vault rotate                 puts it in force and wraps every key anew, while calls go on\n  voicepay vault rotate --batch 100 --pause-ms 50\n  voicepay vault retire 1               forgets a version that nothing uses\n\nA rotation that was cut short goes on when it is called again. See docs/VAULT.md."
)]
pub struct VaultArgs {
    #[command(subcommand)]
    command: VaultCommand,
}

#[derive(Debug, Subcommand)]
enum VaultCommand {
    /// Show the versions of the master key, and what each of them wraps.
    Status,
    /// Make the next master key without using it yet.
    Prepare,
    /// Put a new master key in force and wrap every key with it, or go on where that was cut short.
    Rotate {
        /// Begin a new version though the last rotation is unfinished.
        #[arg(long)]
        anew: bool,
        /// How many keys are wrapped in one transaction.
        #[arg(long, value_name = "KEYS", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        batch: u32,
        /// How long to leave the database to others after each transaction, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=60_000))]
        pause_ms: u64,
    },
    /// Forget a version; refused while anything uses it.
    Retire {
        /// Its number.
        // `version` by itself is the name of `--version`.
        #[arg(id = "key_version", value_name = "VERSION")]
        version: u16,
    },
}

/// Runs it.
pub fn run(args: VaultArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        let vault = data.vault().await?;
        match args.command {
            VaultCommand::Status => status(ctx, &data, &vault).await,
            VaultCommand::Prepare => prepare(ctx, &data, &vault),
            VaultCommand::Rotate { anew, batch, pause_ms } => {
                rotate(ctx, &data, &vault, anew, batch, Duration::from_millis(pause_ms)).await
            }
            VaultCommand::Retire { version } => retire(ctx, &data, &vault, version).await,
        }
    })
}

async fn status(ctx: &Context, data: &Data, vault: &Vault) -> CliResult {
    let (keys, usage) = (data.store.master_keys().await, data.store.key_usage().await);
    let (keys, usage) = (keys.map_err(store_error)?, usage.map_err(store_error)?);
    let older = data.store.older_value_count().await.map_err(store_error)?;
    let current = vault.current_version();
    let (mut lines, mut versions, mut unfinished) = (Vec::new(), Vec::new(), false);
    for (key, used) in keys.iter().zip(&usage) {
        let keeper = vault.keeper(key.version).map_err(vault_error)?;
        let since = if key.since == Timestamp(0) { "the beginning".to_owned() } else { key.since.to_string() };
        let force = if key.version == current { "in force" } else { "older" };
        unfinished |= key.version != current && used.cards + used.customers + used.secrets > 0;
        lines.push(format!(
            "version {}  {force}, since {since}, kept in: {}; wraps {} cards, {} voices, {} secrets",
            key.version,
            keeper.unwrap_or("nowhere here"),
            used.cards,
            used.customers,
            used.secrets
        ));
        versions.push(json!({
            "version": key.version, "in_force": key.version == current, "since": key.since, "kept_in": keeper,
            "cards": used.cards, "customers": used.customers, "secrets": used.secrets,
        }));
    }
    if older > 0 {
        lines.push(format!("{older} values are sealed as before data keys: `voicepay vault rotate` gives them some"));
    }
    if unfinished {
        lines.push("a rotation is unfinished: `voicepay vault rotate` goes on".into());
    }
    let json = json!({ "in_force": current, "versions": versions, "older_values": older, "unfinished": unfinished });
    ctx.answer(&json, &lines.join("\n"));
    Ok(())
}

fn prepare(ctx: &Context, data: &Data, vault: &Vault) -> CliResult {
    let next = vault.current_version().next().ok_or_else(|| refused("there are no more versions of the master key"))?;
    vault.make_version(next, data.now()).map_err(vault_error)?;
    let keeper = vault.keeper(next).map_err(vault_error)?.unwrap_or("nowhere here");
    let text = format!(
        "version {next} of the master key is made ({keeper}) and not yet in force: bring it to every node, back it up, then run \
         `voicepay vault rotate`"
    );
    ctx.answer(&json!({ "prepared": next, "kept_in": keeper }), &text);
    Ok(())
}

async fn rotate(ctx: &Context, data: &Data, vault: &Vault, anew: bool, batch: u32, pause: Duration) -> CliResult {
    let audit = |version: KeyVersion| data.audit("vault.rotated", "vault", json!({ "version": version }));
    let rotation = begin_rotation(&*data.store, vault, anew, data.now(), audit).await.map_err(unlock_error)?;
    let (version, resumed) = match rotation {
        Rotation::Begun(version) => (version, false),
        Rotation::Resumed(version) => (version, true),
    };
    let mut so_far = Rewrap::default();
    let mut progress = Progress::start();
    loop {
        let more = rewrap_batch(&*data.store, vault, batch, &mut so_far).await.map_err(|error| {
            let error = unlock_error(error);
            let so_far = format!("{} keys are wrapped anew; run `voicepay vault rotate` again to go on", so_far.rewrapped);
            CliError::new(error.exit, format!("{error} ({so_far})"))
        })?;
        if !more {
            break;
        }
        progress.tell(|| format!("{} keys wrapped anew, {} values given data keys…", so_far.rewrapped, so_far.resealed));
        tokio::time::sleep(pause).await;
    }
    let Rewrap { rewrapped, resealed, broken, .. } = &so_far;
    let detail = json!({ "version": version, "rewrapped": rewrapped, "resealed": resealed, "broken": broken.len() });
    data.store.audit(&data.audit("vault.rewrapped", "vault", detail)).await.map_err(store_error)?;
    if !broken.is_empty() {
        // What does not open now did not open before either; it must be seen, and nothing else held up by it.
        let names = broken.join(", ");
        return Err(CliError::new(
            Exit::Database,
            format!("{rewrapped} keys are wrapped anew, but these do not open and were left as they are: {names}"),
        ));
    }
    let begun = if resumed { "goes on" } else { "is in force" };
    let again = if *resealed > 0 { format!("; {resealed} values have data keys now") } else { String::new() };
    let text = format!("version {version} of the master key {begun}: {rewrapped} keys are wrapped anew{again}");
    let json: Value = json!({ "version": version, "resumed": resumed, "rewrapped": rewrapped, "resealed": resealed });
    ctx.answer(&json, &text);
    Ok(())
}

async fn retire(ctx: &Context, data: &Data, vault: &Vault, version: u16) -> CliResult {
    let version = KeyVersion::new(version).ok_or_else(|| refused("versions of the master key count from 1"))?;
    let keeper = vault.keeper(version).map_err(vault_error)?;
    let audit = data.audit("vault.retired", "vault", json!({ "version": version }));
    data.store.retire_master_key(version, &audit).await.map_err(store_error)?;
    let place = keeper.map_or_else(String::new, |place| format!(" It is still kept in: {place}."));
    let text = format!(
        "version {version} of the master key is retired: nothing in this database needs it.{place} Keep it as long as you keep \
         backups of keys that were made under it, then destroy it"
    );
    ctx.answer(&json!({ "retired": version, "kept_in": keeper }), &text);
    Ok(())
}
