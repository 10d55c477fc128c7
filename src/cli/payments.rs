//! `voicepay payments`: what was charged, what became of it, and what is done about it.

mod operate;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::data::{Data, block_on, refused, store_error};
use super::exit::CliResult;
use crate::ids::IntentId;
use crate::payment::{AttemptState, Operation, Receipt};
use crate::store::Payment;

/// Arguments of `voicepay payments`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay payments list --limit 20\n  voicepay payments show int_0123…\n  voicepay payments show 4821930577      by the reference that the caller heard\n  voicepay payments refund int_0123… --amount 5.00 --currency USD --key order-17 --why \"damaged\"\n  voicepay payments capture int_0123…        what was authorised\n  voicepay payments dispute open int_0123… --reference dp_1 --reason fraudulent\n  voicepay payments conflicts               what waits for a person\n  voicepay payments resolve int_0123… --not-charged --why \"the bank says so, ticket 4711\""
)]
pub struct PaymentsArgs {
    #[command(subcommand)]
    command: PaymentsCommand,
}

#[derive(Debug, Subcommand)]
enum PaymentsCommand {
    /// List the latest payments, newest first.
    List {
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show one payment with its attempts, its rows in the books and its receipt.
    Show {
        /// Its identifier, or the ten digits of its receipt.
        id: String,
    },
    /// Give money back: all that was captured, or a part.
    Refund(operate::OperateArgs),
    /// Take what was authorised: all of it, or less, which releases the rest.
    Capture(operate::OperateArgs),
    /// Give back what was authorised and not captured.
    Void(operate::OperateArgs),
    /// Payments that a cardholder contests.
    Dispute {
        #[command(subcommand)]
        command: operate::DisputeCommand,
    },
    /// What waits for a person: payments of which the acquirer says something else than was asked, and authorisations that it does not give
    /// back.
    Conflicts,
    /// Write down what a person found out about a conflict.
    Resolve(operate::ResolveArgs),
}

/// Runs it.
pub fn run(args: PaymentsArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            PaymentsCommand::List { limit } => list(ctx, &data, limit).await,
            PaymentsCommand::Show { id } => show(ctx, &data, &id).await,
            PaymentsCommand::Refund(args) => operate::operate(ctx, &data, Operation::Refund, args).await,
            PaymentsCommand::Capture(args) => operate::operate(ctx, &data, Operation::Capture, args).await,
            PaymentsCommand::Void(args) => operate::operate(ctx, &data, Operation::Void, args).await,
            PaymentsCommand::Dispute { command } => operate::dispute(ctx, &data, command).await,
            PaymentsCommand::Conflicts => operate::conflicts(ctx, &data).await,
            PaymentsCommand::Resolve(args) => operate::resolve(ctx, &data, args).await,
        }
    })
}

async fn list(ctx: &Context, data: &Data, limit: u32) -> CliResult {
    let all = data.store.payments(limit).await.map_err(store_error)?;
    let lines: Vec<_> = all
        .iter()
        .map(|p| {
            let reference = p.receipt.as_ref().map_or("-", |r| r.reference.as_str());
            format!(
                "{}  {}  {} to {}  {}  {reference}",
                p.intent.created_at,
                p.intent.id,
                p.intent.amount,
                p.payee_name,
                stands(p)
            )
        })
        .collect();
    let text = if lines.is_empty() { "no payments yet".to_owned() } else { lines.join("\n") };
    ctx.answer(&json!({ "payments": all.iter().map(summary).collect::<Vec<_>>() }), &text);
    Ok(())
}

async fn show(ctx: &Context, data: &Data, id: &str) -> CliResult {
    let intent = if Receipt::is_reference(id) {
        data.store.receipt_by_reference(id).await.map_err(store_error)?.ok_or_else(operate::unknown)?.intent
    } else {
        IntentId::parse(id).map_err(refused)?
    };
    let p = data.store.payment(&intent).await.map_err(store_error)?.ok_or_else(operate::unknown)?;
    let mut lines = vec![
        format!("{}  {} to {} ({})", p.intent.id, p.intent.amount, p.payee_name, stands(&p)),
        format!("said yes    {} in {}", p.intent.created_at, p.intent.occasion),
        format!("card        {} ending {}", p.intent.card, p.intent.last4),
        format!("request     {}", p.intent.request),
    ];
    lines.extend(
        p.attempts.iter().map(|a| format!("attempt     {} {} {} {}", a.id, a.operation.as_str(), a.amount, a.state.name())),
    );
    lines.extend(p.disputes.iter().map(|d| format!("dispute     {} {} {}", d.reference, d.amount, d.state.name())));
    lines.extend(p.transfers.iter().map(|t| format!("books       {} {} -> {}  {}", t.kind.name(), t.credit, t.debit, t.amount)));
    if let Some(r) = &p.receipt {
        lines.push(format!("receipt     {} at {}, acquirer's reference {}", r.reference, r.at, r.gateway_reference));
    }
    let mut json = summary(&p);
    if let Value::Object(map) = &mut json {
        map.insert("attempts".into(), json!(p.attempts));
        map.insert("disputes".into(), json!(p.disputes));
        map.insert("transfers".into(), json!(p.transfers));
        map.insert("receipt".into(), json!(p.receipt));
    }
    ctx.answer(&json, &lines.join("\n"));
    Ok(())
}

fn summary(p: &Payment) -> Value {
    json!({
        "id": p.intent.id,
        "status": p.intent.status,
        "standing": p.standing(),
        "stands": stands(p),
        "amount_minor": p.intent.amount.minor,
        "currency": p.intent.amount.currency,
        "customer": p.intent.customer,
        "payee": p.intent.payee,
        "payee_name": p.payee_name,
        "request": p.intent.request,
        "card": p.intent.card,
        "last4": p.intent.last4,
        "call": p.intent.occasion,
        "reference": p.receipt.as_ref().map(|r| &r.reference),
        "created_at": p.intent.created_at.to_string(),
    })
}

/// Where it stands, in words; while its first attempt is under way, how far that is.
fn stands(p: &Payment) -> String {
    match (p.standing(), p.opening().map(|a| &a.state)) {
        (_, Some(AttemptState::Prepared)) => "not sent yet".into(),
        (_, Some(AttemptState::Dispatched { .. })) => "sent, no answer yet".into(),
        (_, Some(AttemptState::NeedsReconciliation { .. })) => "in doubt".into(),
        (_, Some(AttemptState::Declined { reason, .. })) => format!("declined: {reason}"),
        (_, Some(AttemptState::Reversed { .. })) => "taken back by the acquirer".into(),
        (standing, Some(AttemptState::Conflicted { .. } | AttemptState::Succeeded { .. }) | None) => standing.text().into(),
    }
}
