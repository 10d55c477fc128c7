//! `voicepay guardian`: who looks after whose payments, and by which limits.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::customer::parse_id;
use super::data::{block_on, refused, store_error};
use super::exit::{CliError, CliResult};
use crate::agreement::{Agreements, GuardingError};
use crate::app::Office;
use crate::clock::{SystemClock, SystemEntropy, Timestamp};
use crate::ids::GuardianshipId;
use crate::payment::Guardianship;
use crate::payment::guardian::{Change, Edited, WardRules};
use crate::store::{StoreError, papers};
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay guardian`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay guardian add --ward cus_0123… --guardian cus_4567… --rules '{\"payment_limit\":{\"USD\":5000}}'\n  voicepay guardian show gua_0123…\n  voicepay guardian freeze gua_0123… --by cus_4567…\n  voicepay guardian rules gua_0123… --by cus_4567… --rules '{\"blocked_categories\":[\"gambling\"]}'\n  voicepay guardian agree gua_0123… --by cus_89ab…\n\nAmounts in rules are minor units by currency. What loosens needs both guardians, where there are two; the ward can change nothing."
)]
pub struct GuardianArgs {
    #[command(subcommand)]
    command: GuardianCommand,
}

#[derive(Debug, Subcommand)]
enum GuardianCommand {
    /// Make somebody a guardian.
    Add {
        /// Whose payments.
        #[arg(long, value_name = "ID")]
        ward: String,
        /// Who looks after them.
        #[arg(long, value_name = "ID")]
        guardian: String,
        /// Who does so, too.
        #[arg(long, value_name = "ID")]
        second: Option<String>,
        /// Limits, as JSON.
        #[arg(long, value_name = "JSON", default_value = "{}")]
        rules: String,
        /// The day on which the ward comes of age, such as 2030-04-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        ends_at: Option<String>,
    },
    /// Those that hold for a ward.
    List {
        /// Whose payments.
        #[arg(long, value_name = "ID")]
        ward: String,
    },
    /// One, whole.
    Show {
        /// Its identifier.
        id: String,
    },
    /// Set other limits: all of them.
    Rules {
        /// Its identifier.
        id: String,
        /// The guardian who wants it.
        #[arg(long, value_name = "ID")]
        by: String,
        /// Limits, as JSON.
        #[arg(long, value_name = "JSON")]
        rules: String,
    },
    /// Nothing may be paid for now.
    Freeze(Step),
    /// It may again.
    Thaw(Step),
    /// Agree to what the other guardian proposed.
    Agree(Step),
    /// Do not agree to it.
    Disagree(Step),
    /// End it.
    End(Step),
}

#[derive(Debug, Args)]
struct Step {
    /// Its identifier.
    id: String,
    /// The guardian who wants it.
    #[arg(long, value_name = "ID")]
    by: String,
}

/// Runs it.
pub fn run(args: GuardianArgs, ctx: &Context) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    block_on(async {
        let office = open(ctx).await?;
        let agreements = &office.agreements;
        match args.command {
            GuardianCommand::Add { ward, guardian, second, rules, ends_at } => {
                let (ward, guardian) = (parse_id(&ward)?, parse_id(&guardian)?);
                let second = second.as_deref().map(parse_id).transpose()?;
                let ends_at = ends_at.as_deref().map(time).transpose()?;
                let made = agreements.add_guardianship(&ward, &guardian, second.as_ref(), limits(&rules)?, ends_at, "cli").await;
                let made = made.map_err(guarding_error)?;
                ctx.answer(&json!(made), made.id.as_str());
                Ok(())
            }
            GuardianCommand::List { ward } => {
                let all: Vec<Guardianship> = papers::of(&*office.store, &parse_id(&ward)?).await.map_err(store_error)?;
                let text = all.iter().map(|g| format!("{}  {}{}", g.id, g.guardian, if g.frozen { "  frozen" } else { "" }));
                let text = text.collect::<Vec<_>>().join("\n");
                let text = if text.is_empty() { "nobody looks after this customer's payments".to_owned() } else { text };
                ctx.answer(&json!({ "guardianships": all }), &text);
                Ok(())
            }
            GuardianCommand::Show { id } => {
                let found: Option<Guardianship> =
                    papers::read(&*office.store, parse(&id)?.as_str()).await.map_err(store_error)?;
                let g = found.ok_or_else(|| store_error(StoreError::NotFound("guardianship")))?;
                let text = serde_json::to_string_pretty(&g).unwrap_or_default();
                ctx.answer(&json!(g), &text);
                Ok(())
            }
            GuardianCommand::Rules { id, by, rules } => {
                edit(ctx, agreements, &Step { id, by }, Change::Rules { rules: limits(&rules)? }).await
            }
            GuardianCommand::Freeze(step) => edit(ctx, agreements, &step, Change::Freeze).await,
            GuardianCommand::Thaw(step) => edit(ctx, agreements, &step, Change::Thaw).await,
            GuardianCommand::Agree(step) => edit(ctx, agreements, &step, Change::Agree).await,
            GuardianCommand::Disagree(step) => edit(ctx, agreements, &step, Change::Disagree).await,
            GuardianCommand::End(step) => edit(ctx, agreements, &step, Change::End).await,
        }
    })
}

pub(super) async fn open(ctx: &Context) -> Result<Office, CliError> {
    let cfg = ctx.config()?;
    Office::open(&cfg, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.map_err(super::serve::start_error)
}

fn parse(id: &str) -> Result<GuardianshipId, CliError> {
    GuardianshipId::parse(id).map_err(refused)
}

fn time(text: &str) -> Result<Timestamp, CliError> {
    Timestamp::parse(text).ok_or_else(|| refused("--ends-at: write a time like 2030-04-01T00:00:00Z"))
}

fn limits(text: &str) -> Result<WardRules, CliError> {
    serde_json::from_str(text).map_err(|e| refused(format!("--rules: {e}")))
}

async fn edit(ctx: &Context, agreements: &Agreements, step: &Step, change: Change) -> CliResult {
    let done = agreements.edit_guardianship(&parse(&step.id)?, &parse_id(&step.by)?, change).await;
    let (g, edited) = done.map_err(guarding_error)?;
    let text = match edited {
        Edited::Done => "done",
        Edited::Proposed => "proposed: the other guardian has to agree (`voicepay guardian agree`)",
    };
    ctx.answer(&json!({ "edited": edited, "guardianship": g }), text);
    Ok(())
}

/// Rules refuse; the database has its own code.
pub(super) fn guarding_error(error: GuardingError) -> CliError {
    match error {
        GuardingError::Store(e) => store_error(e),
        GuardingError::NoSuch(_) | GuardingError::Stranger(_) | GuardingError::Guardian(_) | GuardingError::Supervision(_) => {
            refused(error)
        }
    }
}
