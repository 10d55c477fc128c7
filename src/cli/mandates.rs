//! `voicepay mandates`: which payees may be paid again without the card number.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::approvals::agree_error;
use super::customer::parse_id;
use super::data::{block_on, name, refused, store_error};
use super::exit::CliResult;
use super::guardian::open;
use crate::ids::MandateId;
use crate::payment::Mandate;
use crate::store::papers;
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay mandates`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay mandates list --customer cus_0123…\n  voicepay mandates revoke mnd_0123… --by olga\n\nA mandate comes of a payment that succeeded and the payer's consent; nobody else can make one."
)]
pub struct MandatesArgs {
    #[command(subcommand)]
    command: MandatesCommand,
}

#[derive(Debug, Subcommand)]
enum MandatesCommand {
    /// Those that hold for a customer.
    List {
        /// Who pays.
        #[arg(long, value_name = "ID")]
        customer: String,
    },
    /// Take one back: the next payment goes the whole way. Doing so twice changes nothing.
    Revoke {
        /// Its identifier.
        id: String,
        /// Your name, for the audit trail.
        #[arg(long, default_value = "cli")]
        by: String,
    },
}

/// Runs it.
pub fn run(args: MandatesArgs, ctx: &Context) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    block_on(async {
        let office = open(ctx).await?;
        match args.command {
            MandatesCommand::List { customer } => {
                let all: Vec<Mandate> = papers::of(&*office.store, &parse_id(&customer)?).await.map_err(store_error)?;
                let line =
                    |m: &Mandate| format!("{}  to {}  from {}  up to {}  since {}", m.id, m.payee, m.card, m.cap, m.created_at);
                let text = all.iter().map(line).collect::<Vec<_>>().join("\n");
                let text = if text.is_empty() { "no mandates: each payment goes the whole way".to_owned() } else { text };
                ctx.answer(&json!({ "mandates": all }), &text);
            }
            MandatesCommand::Revoke { id, by } => {
                let id = MandateId::parse(&id).map_err(refused)?;
                let revoked = office.agreements.revoke_mandate(&id, &name(&by)?).await.map_err(agree_error)?;
                ctx.answer(&json!(revoked), &format!("{id} is revoked"));
            }
        }
        Ok(())
    })
}
