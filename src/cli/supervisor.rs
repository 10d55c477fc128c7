//! `voicepay supervisor`: who has to agree to whose payments.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::customer::parse_id;
use super::data::{block_on, refused, store_error};
use super::exit::{CliError, CliResult};
use super::guardian::{guarding_error, open};
use crate::ids::SupervisionId;
use crate::money::{Currency, Money};
use crate::payment::Supervision;
use crate::store::papers;
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay supervisor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay supervisor add --account cus_0123… --supervisor cus_4567… --over 100.00USD --over 80.00EUR\n  voicepay supervisor list --account cus_0123…\n  voicepay supervisor withdraw sup_0123…\n\nIn a currency that no --over names the supervisor has to agree to every payment."
)]
pub struct SupervisorArgs {
    #[command(subcommand)]
    command: SupervisorCommand,
}

#[derive(Debug, Subcommand)]
enum SupervisorCommand {
    /// Name a supervisor.
    Add {
        /// Whose payments.
        #[arg(long, value_name = "ID")]
        account: String,
        /// Who has to agree.
        #[arg(long, value_name = "ID")]
        supervisor: String,
        /// Only above this amount, such as 100.00USD; once a currency.
        #[arg(long, value_name = "AMOUNT")]
        over: Vec<String>,
    },
    /// Those that hold for an account.
    List {
        /// Whose payments.
        #[arg(long, value_name = "ID")]
        account: String,
    },
    /// End one. What the supervisor was asked and nobody charged yet is refused with it.
    Withdraw {
        /// Its identifier.
        id: String,
    },
}

/// Runs it.
pub fn run(args: SupervisorArgs, ctx: &Context) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    block_on(async {
        let office = open(ctx).await?;
        match args.command {
            SupervisorCommand::Add { account, supervisor, over } => {
                let over = over.iter().map(|text| amount(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
                let made = office.agreements.add_supervision(&parse_id(&account)?, &parse_id(&supervisor)?, over, "cli").await;
                let made = made.map_err(guarding_error)?;
                ctx.answer(&json!(made), made.id.as_str());
            }
            SupervisorCommand::List { account } => {
                let all: Vec<Supervision> = papers::of(&*office.store, &parse_id(&account)?).await.map_err(store_error)?;
                let line = |s: &Supervision| format!("{}  {}  over {}", s.id, s.supervisor, papers::amounts(&s.agree_over));
                let text = all.iter().map(line).collect::<Vec<_>>().join("\n");
                let text = if text.is_empty() { "nobody has to agree to this account's payments".to_owned() } else { text };
                ctx.answer(&json!({ "supervisions": all }), &text);
            }
            SupervisorCommand::Withdraw { id } => {
                let id = SupervisionId::parse(&id).map_err(refused)?;
                let gone = office.agreements.withdraw_supervision(&id, "cli").await.map_err(guarding_error)?;
                ctx.answer(&json!(gone), &format!("{id} is withdrawn"));
            }
        }
        Ok(())
    })
}

fn amount(text: &str) -> Result<(Currency, i64), CliError> {
    let cut = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, currency) = text.split_at(cut);
    let currency: Currency = currency.parse().map_err(|e| refused(format!("--over {text}: {e}")))?;
    let money = Money::parse_decimal(number.trim(), currency).map_err(|e| refused(format!("--over {text}: {e}")))?;
    Ok((currency, money.minor.get()))
}
