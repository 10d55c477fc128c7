//! `voicepay api-key`: who may call the API, and to do what.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::data::{Data, block_on, name, refused, store_error};
use super::exit::CliResult;
use crate::api::{Key, Scope};
use crate::clock::Timestamp;
use crate::ids::{ApiKeyId, Tenant};
use crate::store::ApiKeyRecord;

/// Arguments of `voicepay api-key`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay api-key create --name till --scope requests:write --scope requests:read\n  voicepay api-key create --name reports --tenant shop --scope payments:read --valid-days 30\n  voicepay api-key list\n  voicepay api-key revoke key_0123…\n\nA key is shown once. What it may do can't be changed: make another and revoke the first."
)]
pub struct ApiKeyArgs {
    #[command(subcommand)]
    command: ApiKeyCommand,
}

#[derive(Debug, Subcommand)]
enum ApiKeyCommand {
    /// Make a key. It is shown once.
    Create {
        /// For people: who has it.
        #[arg(long)]
        name: String,
        /// Whose data it opens.
        #[arg(long, default_value = "default")]
        tenant: String,
        // The scopes that there are: told by themselves, so that none is forgotten.
        #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "all_scopes", help = scopes_help())]
        scopes: Vec<String>,
        /// It may do everything.
        #[arg(long, conflicts_with = "scopes")]
        all_scopes: bool,
        /// After so many days it is worth nothing.
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        valid_days: u32,
        /// It does not end by itself: whoever finds it may use it until somebody revokes it.
        #[arg(long, conflicts_with = "valid_days")]
        never_expires: bool,
    },
    /// List the keys, never what they are.
    List,
    /// Take a key back, at once and for good.
    Revoke {
        /// Its identifier.
        id: String,
    },
}

fn scopes_help() -> String {
    let all: Vec<_> = Scope::ALL.iter().map(|s| s.as_str()).collect();
    format!("What it may do; may be given several times: {}", all.join(", "))
}

/// Runs it.
pub fn run(args: ApiKeyArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            ApiKeyCommand::Create { name, tenant, scopes, all_scopes, valid_days, never_expires } => {
                let scopes = if all_scopes { Ok(Scope::ALL.to_vec()) } else { scopes.iter().map(|s| s.parse()).collect() };
                let scopes = scopes.map_err(|e: String| refused(format!("--scope: {e}")))?;
                create(ctx, &data, &name, &tenant, &scopes, (!never_expires).then_some(valid_days)).await
            }
            ApiKeyCommand::List => list(ctx, &data).await,
            ApiKeyCommand::Revoke { id } => revoke(ctx, &data, &ApiKeyId::parse(&id).map_err(refused)?).await,
        }
    })
}

async fn create(ctx: &Context, data: &Data, given: &str, tenant: &str, scopes: &[Scope], valid_days: Option<u32>) -> CliResult {
    let now = data.now();
    let mut scopes: Vec<String> = scopes.iter().map(|s| s.as_str().to_owned()).collect();
    scopes.sort();
    scopes.dedup();
    let record = ApiKeyRecord {
        id: ApiKeyId::fresh(&*data.entropy),
        tenant: Tenant::parse(tenant).map_err(|e| refused(format!("--tenant: {e}")))?,
        name: name(given)?,
        scopes,
        created_at: now,
        expires_at: valid_days.map(|d| now.plus(Duration::from_secs(u64::from(d) * 24 * 3_600))),
        revoked_at: None,
    };
    let vault = data.vault().await?;
    let key = Key::fresh(&*data.entropy);
    let detail = json!({ "tenant": record.tenant, "scopes": record.scopes });
    let audit = data.audit("api_key.created", record.id.as_str(), detail);
    data.store.add_api_key(&record, &key.digest(&vault), &audit).await.map_err(store_error)?;
    let mut shown = as_json(&record);
    if let Value::Object(map) = &mut shown {
        map.insert("key".into(), key.reveal().into());
    }
    let until = record.expires_at.map_or_else(|| "does not end by itself".to_owned(), |at| format!("is good until {at}"));
    ctx.answer(&shown, &format!("{}\nthis is {}, which {until}; the key is not shown again", key.reveal(), record.id));
    Ok(())
}

async fn list(ctx: &Context, data: &Data) -> CliResult {
    let all = data.store.api_keys().await.map_err(store_error)?;
    let now = data.now();
    let line = |k: &ApiKeyRecord| format!("{}  {}  {}  {}  {}", k.id, standing(k, now), k.tenant, k.name, k.scopes.join(" "));
    let lines: Vec<_> = all.iter().map(line).collect();
    let text = if lines.is_empty() { "no keys yet: `voicepay api-key create`".to_owned() } else { lines.join("\n") };
    ctx.answer(&json!({ "keys": all.iter().map(as_json).collect::<Vec<_>>() }), &text);
    Ok(())
}

fn standing(key: &ApiKeyRecord, now: Timestamp) -> &'static str {
    match (key.revoked_at.is_some(), key.good(now)) {
        (true, _) => "revoked",
        (false, true) => "good",
        (false, false) => "expired",
    }
}

async fn revoke(ctx: &Context, data: &Data, id: &ApiKeyId) -> CliResult {
    let audit = data.audit("api_key.revoked", id.as_str(), json!({}));
    data.store.revoke_api_key(id, data.now(), &audit).await.map_err(store_error)?;
    ctx.answer(&json!({ "revoked": id }), &format!("{id} is worth nothing from now on"));
    Ok(())
}

fn as_json(k: &ApiKeyRecord) -> Value {
    json!({
        "id": k.id,
        "tenant": k.tenant,
        "name": k.name,
        "scopes": k.scopes,
        "created_at": k.created_at.to_string(),
        "expires_at": k.expires_at.map(|t| t.to_string()),
        "revoked_at": k.revoked_at.map(|t| t.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_scope_and_each_is_taken() {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: ApiKeyArgs,
        }
        let mut command = <Alone as clap::CommandFactory>::command();
        let help = command.find_subcommand_mut("create").unwrap().render_long_help().to_string();
        let words: Vec<&str> = help.split(|c: char| c.is_whitespace() || c == ',').collect();
        for scope in Scope::ALL {
            assert!(words.contains(&scope.as_str()), "{scope}: {help}");
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
    }
}
