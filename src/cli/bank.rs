//! `voicepay bank`: what a bank that announces deductions has told us, what a person decides about it, and the end of its day.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::data::{Data, block_on, name, refused, store_error};
use super::exit::{CliError, CliResult, Exit};
use crate::bank::reconcile::{Day, Finding, ReconcileError, reconcile};
use crate::bank::{judge, pairing};
use crate::gateway::bank_feedback::NotTaken;
use crate::ids::{AttemptId, RequestId};
use crate::payment::pairing::{Answer, Heard, Input, MessageState, Order, Pairing, PaymentState};

/// How many references are read at a time.
const PAGE: u32 = 500;

/// Arguments of `voicepay bank`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay bank show req_0123…                               both sides of a deduction, and what came of it\n  voicepay bank quarantine list                              messages that wait for a person\n  voicepay bank quarantine release req_0123… 2 --attempt att_0123… --by \"Ann Lee\"\n  voicepay bank quarantine reject req_0123… 2 --by \"Ann Lee\"\n  voicepay bank reconcile 2026-11-22.csv                     the bank's file of a day against our journal\n  voicepay bank reconcile 2026-11-22.csv --also 2026-11-21.csv --also 2026-11-23.csv --apply\n\nreconcile ends with exit code 0 if all agrees and 1 if something differs. It changes nothing; --apply writes the differences into\nthe audit trail, for a person. See docs/BANK.md."
)]
pub struct BankArgs {
    #[command(subcommand)]
    command: BankCommand,
}

#[derive(Debug, Subcommand)]
enum BankCommand {
    /// Show what stands under a payment request: payments, messages, instructions.
    Show {
        /// The payment request's identifier.
        reference: String,
    },
    /// Messages of the bank that fit nothing, or too much.
    Quarantine {
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Hold the bank's file of a day against our journal.
    Reconcile {
        /// The file: a line an instruction, the totals last.
        file: PathBuf,
        /// A file of a day before or after: what stands there is not missed here.
        #[arg(long, value_name = "FILE")]
        also: Vec<PathBuf>,
        /// Which day the file is about, in UTC, like 2026-11-22; without it the day of its first line.
        #[arg(long, value_parser = day)]
        date: Option<Day>,
        /// Write each difference into the audit trail.
        #[arg(long)]
        apply: bool,
    },
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// List them.
    List,
    /// Take a message for the payment that it belongs to: the bank is instructed. Amount, currency and account must be equal.
    Release {
        /// The payment request's identifier.
        reference: String,
        /// The message's number, as `list` and `show` tell it.
        number: u32,
        /// The payment's attempt, as `show` tells it.
        #[arg(long)]
        attempt: String,
        /// Who decides, for the audit trail.
        #[arg(long)]
        by: String,
    },
    /// Lay a message aside for good: nothing follows from it.
    Reject {
        /// The payment request's identifier.
        reference: String,
        /// The message's number, as `list` and `show` tell it.
        number: u32,
        /// Who decides, for the audit trail.
        #[arg(long)]
        by: String,
    },
}

fn day(text: &str) -> Result<Day, String> {
    Day::parse(text).ok_or_else(|| "a day is written like 2026-11-22".to_owned())
}

/// Runs it.
pub fn run(args: BankArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            BankCommand::Show { reference } => show(ctx, &data, &id(&reference)?).await,
            BankCommand::Quarantine { command: QuarantineCommand::List } => list(ctx, &data).await,
            BankCommand::Quarantine { command: QuarantineCommand::Release { reference, number, attempt, by } } => {
                let attempt = AttemptId::parse(&attempt).map_err(refused)?;
                let input = Input::Release { case: number, attempt, by: name(&by)? };
                decide(ctx, &data, &id(&reference)?, input, "released: the running service instructs the bank").await
            }
            BankCommand::Quarantine { command: QuarantineCommand::Reject { reference, number, by } } => {
                let input = Input::Reject { case: number, by: name(&by)? };
                decide(ctx, &data, &id(&reference)?, input, "rejected: nothing follows from it").await
            }
            BankCommand::Reconcile { file, also, date, apply } => compare(ctx, &data, &file, &also, date, apply).await,
        }
    })
}

fn id(text: &str) -> Result<RequestId, CliError> {
    RequestId::parse(text).map_err(refused)
}

async fn show(ctx: &Context, data: &Data, reference: &RequestId) -> CliResult {
    let pairing = pairing(&*data.store, reference).await.map_err(store_error)?;
    if pairing.length() == 0 {
        return Err(refused(format!(
            "nothing is known of {reference}: no customer confirmed it, and the bank has not spoken of it"
        )));
    }
    ctx.answer(&json!(pairing), &shown(&pairing).join("\n"));
    Ok(())
}

fn shown(pairing: &Pairing) -> Vec<String> {
    let mut lines = Vec::new();
    for p in pairing.payments() {
        let state = match &p.state {
            PaymentState::Waiting => "waits for the bank's message".to_owned(),
            PaymentState::Matched { case, order } => format!("matched with message {case}, {}", outcome(order)),
            PaymentState::Expired { at } => format!("failed at {at}: the bank never announced it"),
        };
        lines.push(format!("payment   {}  {}  account {}  {state}", p.attempt, p.facts.amount, p.facts.account));
    }
    lines.extend(pairing.messages().iter().map(message));
    for r in pairing.refunds() {
        lines.push(format!("refund    {}  {} of {}  {}", r.attempt, r.amount, r.of, outcome(&r.order)));
    }
    lines
}

fn message(heard: &Heard) -> String {
    let state = match &heard.state {
        MessageState::Waiting => "waits for its payment".to_owned(),
        MessageState::Matched { attempt } => format!("matched with {attempt}"),
        MessageState::Quarantined { reason, .. } => format!("in quarantine: {reason}"),
        MessageState::Rejected { by, .. } => format!("rejected by {by}"),
    };
    let Heard { case, message, received_at, .. } = heard;
    format!("message {case}  {received_at}  {}  {}  account {}  {state}", message.id, message.facts.amount, message.facts.account)
}

fn outcome(order: &Order) -> String {
    let word = match &order.answer {
        None => "the bank has not answered".to_owned(),
        Some(Answer::Done { amount }) => format!("done by the bank: {amount}"),
        Some(Answer::Refused { reason }) if reason.is_empty() => "refused by the bank".to_owned(),
        Some(Answer::Refused { reason }) => format!("refused by the bank: {reason}"),
    };
    if order.contradiction.is_some() { format!("{word}, and later it said something else") } else { word }
}

async fn list(ctx: &Context, data: &Data) -> CliResult {
    let (mut after, mut lines, mut all) = (None, Vec::new(), Vec::new());
    loop {
        let page = data.store.quarantined_deductions(after.as_ref(), PAGE).await.map_err(store_error)?;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        for reference in &page {
            let pairing = pairing(&*data.store, reference).await.map_err(store_error)?;
            for heard in pairing.quarantine() {
                lines.push(format!("{reference}  {}", message(heard)));
                all.push(json!({ "reference": reference, "number": heard.case, "message": heard }));
            }
        }
    }
    let text = if lines.is_empty() { "no message is in quarantine".to_owned() } else { lines.join("\n") };
    ctx.answer(&json!({ "quarantine": all }), &text);
    Ok(())
}

async fn decide(ctx: &Context, data: &Data, reference: &RequestId, input: Input, done: &str) -> CliResult {
    let waits = ctx.config()?.gateway.bank_feedback.waits();
    let parts = (&*data.store, &data.clock as &dyn crate::clock::Clock, &*data.entropy);
    let decision = judge(parts, waits, reference, "cli", input).await.map_err(|error| match error {
        NotTaken::Refused(why) => refused(why),
        NotTaken::Failed(why) => CliError::new(Exit::Database, why),
    })?;
    ctx.answer(&json!(decision.after), done);
    Ok(())
}

async fn compare(ctx: &Context, data: &Data, file: &Path, also: &[PathBuf], date: Option<Day>, apply: bool) -> CliResult {
    let mut neighbours = Vec::new();
    for path in also {
        neighbours.push(open(path)?);
    }
    let mut findings = Vec::new();
    let tell = |finding: Finding| {
        ctx.answer(&json!(finding), &line(&finding));
        if apply {
            findings.push(finding);
        }
    };
    let summary = reconcile(&*data.store, open(file)?, neighbours, date, tell).await.map_err(|error| match error {
        ReconcileError::Store(error) => store_error(error),
        other => refused(format!("{}: {other}", file.display())),
    })?;
    for finding in &findings {
        let subject = finding.instruction.as_deref().unwrap_or("file");
        data.store.audit(&data.audit("bank.reconciled", subject, json!(finding))).await.map_err(store_error)?;
    }
    let sums: Vec<_> = summary.sums.iter().map(|(currency, minor)| format!("{minor} {currency}")).collect();
    let sums = if sums.is_empty() { String::new() } else { format!(" ({} in minor units)", sums.join(", ")) };
    let text = format!("{} instructions{sums}, {} differences", summary.instructions, summary.findings);
    ctx.answer(&json!({ "summary": summary }), &text);
    match summary.findings {
        0 => Ok(()),
        n => Err(CliError::new(Exit::Unexpected, format!("the bank's file and our journal differ in {n} points"))),
    }
}

fn open(path: &Path) -> Result<BufReader<File>, CliError> {
    File::open(path).map(BufReader::new).map_err(|e| refused(format!("{} can't be read: {e}", path.display())))
}

fn line(f: &Finding) -> String {
    let kind = json!(f.kind).as_str().unwrap_or_default().to_owned();
    let at = f.line.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let instruction = f.instruction.as_deref().unwrap_or("-");
    format!("line {at}  {kind}  {instruction}  bank: {}  we: {}", said(&f.bank), said(&f.ours))
}

fn said(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
