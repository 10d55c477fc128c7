//! `voicepay tenant`: whose customers and payees are nothing to others.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::data::{Data, block_on, name, refused, store_error};
use super::exit::CliResult;
use crate::ids::Tenant;
use crate::store::TenantRecord;

/// Arguments of `voicepay tenant`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay tenant add shop --title 'The Corner Shop'\n  voicepay tenant list\n\nThe tenant `default` is there from the beginning."
)]
pub struct TenantArgs {
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Add a tenant.
    Add {
        /// Its name in every row: 1 to 32 of a to z, 0 to 9 and -, a letter first.
        name: String,
        /// For people (default: the name).
        #[arg(long)]
        title: Option<String>,
    },
    /// List the tenants.
    List,
}

/// Runs it.
pub fn run(args: TenantArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            TenantCommand::Add { name, title } => add(ctx, &data, &name, title.as_deref()).await,
            TenantCommand::List => list(ctx, &data).await,
        }
    })
}

async fn add(ctx: &Context, data: &Data, given: &str, title: Option<&str>) -> CliResult {
    let tenant = Tenant::parse(given).map_err(refused)?;
    let record = TenantRecord { title: name(title.unwrap_or(given))?, name: tenant, created_at: data.now() };
    let audit = data.audit("tenant.added", record.name.as_str(), json!({}));
    data.store.add_tenant(&record, &audit).await.map_err(store_error)?;
    ctx.answer(&json!({ "name": record.name, "title": record.title }), record.name.as_str());
    Ok(())
}

async fn list(ctx: &Context, data: &Data) -> CliResult {
    let all = data.store.tenants().await.map_err(store_error)?;
    let lines: Vec<_> = all.iter().map(|t| format!("{}  {}", t.name, t.title)).collect();
    let shown = all.iter().map(|t| json!({ "name": t.name, "title": t.title, "created_at": t.created_at.to_string() }));
    ctx.answer(&json!({ "tenants": shown.collect::<Vec<_>>() }), &lines.join("\n"));
    Ok(())
}
