//! `voicepay books`: proves the books.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::data::{Data, block_on, store_error};
use super::exit::{CliError, CliResult, Exit};
use crate::processor::check;

/// Arguments of `voicepay books`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay books check             every balance derived again, every payment held against its rows\n  voicepay --json books check      the same, for scripts: `wrong` is 0 when all is well\n\nIt only reads, page by page, and may run beside a service. Exit code 13: the books are wrong."
)]
pub struct BooksArgs {
    #[command(subcommand)]
    command: BooksCommand,
}

#[derive(Debug, Subcommand)]
enum BooksCommand {
    /// Derive every balance from every row again, and hold each payment's rows against its attempts and disputes.
    Check,
}

/// Runs it.
pub fn run(args: BooksArgs, ctx: &Context) -> CliResult {
    match args.command {
        BooksCommand::Check => block_on(check(ctx)),
    }
}

async fn check(ctx: &Context) -> CliResult {
    let data = Data::open(ctx).await?;
    let report = check::books(&*data.store).await.map_err(store_error)?;
    let mut lines = vec![format!(
        "{} rows, {} payments, {} reserved and not yet ended; {}",
        report.transfers,
        report.payments,
        report.open,
        if report.wrong == 0 { "the books are right".to_owned() } else { format!("{} things are wrong", report.wrong) }
    )];
    lines.extend(report.balances.iter().map(|(name, b)| {
        format!(
            "{name}  debits {} and {} pending  credits {} and {} pending",
            b.debits_posted, b.debits_pending, b.credits_posted, b.credits_pending
        )
    }));
    lines.extend(report.findings.iter().cloned());
    ctx.answer(&json!(report), &lines.join("\n"));
    if report.wrong == 0 {
        Ok(())
    } else {
        Err(CliError::new(Exit::Database, format!("the books are wrong in {} places: see above", report.wrong)))
    }
}
