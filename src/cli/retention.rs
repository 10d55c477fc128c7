//! `voicepay retention`: how long what is held of people is kept, and erasing what is over its time.

use clap::{Args, Subcommand};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::data::{Data, block_on, store_error};
use super::exit::{CliError, CliResult, Exit};
use crate::app::{CallDetailsError, call_details_over, erase_call_details};
use crate::config::Config;
use crate::rights::retention::{self, ClockOf, Counts};

/// Arguments of `voicepay retention`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay retention show\n  voicepay retention run --dry-run\n  voicepay retention run\n\n`serve` does so by itself, once every retention.every_hours, on one node of several. Money, books and the audit chain have no clock.\ndocs/PRIVACY.md."
)]
pub struct RetentionArgs {
    #[command(subcommand)]
    command: RetentionCommand,
}

#[derive(Debug, Subcommand)]
enum RetentionCommand {
    /// Every clock with its key, and how much is over its time.
    Show,
    /// Erase what is over its time, now.
    Run {
        /// Only tell how much that is.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs it.
pub fn run(args: RetentionArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let (data, config) = (Data::open(ctx).await?, ctx.config()?);
        let cfg = &config.retention;
        match args.command {
            RetentionCommand::Show => show(ctx, &config, &overdue(&data, &config).await?),
            RetentionCommand::Run { dry_run: true } => {
                let over = overdue(&data, &config).await?;
                ctx.answer(&json!({ "dry_run": true, "would_erase": over }), &lines(&over, "would be erased"));
            }
            RetentionCommand::Run { dry_run: false } => {
                let (stop, now) = (CancellationToken::new(), data.now());
                let mut erased = retention::run(&*data.store, cfg, &*data.entropy, now, &stop).await.map_err(store_error)?;
                if let Some(dir) = &config.ops.cdr_dir {
                    let files = erase_call_details(dir, cfg, (&*data.store, &*data.entropy), now).await.map_err(files_error)?;
                    erased.insert(cfg.call_details().what, files);
                }
                ctx.answer(&json!({ "erased": erased }), &lines(&erased, "erased"));
            }
        }
        Ok(())
    })
}

/// What a run would erase now, in the database and on this machine.
async fn overdue(data: &Data, config: &Config) -> Result<Counts, CliError> {
    let (cfg, now) = (&config.retention, data.now());
    let mut over = retention::overdue(&*data.store, cfg, now).await.map_err(store_error)?;
    if let Some(dir) = &config.ops.cdr_dir {
        over.insert(cfg.call_details().what, call_details_over(dir, cfg, now).await.map_err(files_error)?);
    }
    Ok(over)
}

fn files_error(error: CallDetailsError) -> CliError {
    match error {
        CallDetailsError::Store(e) => store_error(e),
        CallDetailsError::Directory { .. } => CliError::new(Exit::Refused, error),
    }
}

fn lines(counts: &Counts, what: &str) -> String {
    let each = counts.iter().map(|(kind, n)| format!("{n:>9}  {kind} {what}"));
    each.collect::<Vec<_>>().join("\n")
}

/// Clocks that other sections have; what they erase is erased where it is written.
fn elsewhere(config: &Config) -> Vec<ClockOf> {
    let day = |what, key, days| ClockOf { what, key, days };
    vec![
        day("fingerprints", "reuse.keep_days", config.reuse.keep_days),
        day("webhooks_delivered", "notify.keep_days", config.notify.keep_days),
        day("api_answers", "api.answer_hours", config.api.answer_hours.div_ceil(24)),
        day("recordings", "ops.recording.keep_days", config.ops.recording.keep_days),
    ]
}

fn show(ctx: &Context, config: &Config, over: &Counts) {
    let ours = config.retention.clocks();
    let elsewhere = elsewhere(config);
    let of = |clock: &ClockOf| over.get(clock.what).copied().unwrap_or_default();
    let mut text: Vec<_> =
        ours.iter().map(|c| format!("{:>5} days  {:<20} {:<36} over: {}", c.days, c.what, c.key, of(c))).collect();
    text.extend(elsewhere.iter().map(|c| format!("{:>5} days  {:<20} {}", c.days, c.what, c.key)));
    text.push(
        "  for good  money, books, receipts, disputes, the audit chain: they prove what was paid and who did what".to_owned(),
    );
    let json = json!({ "clocks": ours, "elsewhere": elsewhere, "over": over });
    ctx.answer(&json, &text.join("\n"));
}
