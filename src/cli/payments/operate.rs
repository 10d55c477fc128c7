//! What follows a payment: refund, capture, void, dispute, and a person's decision about a conflict.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::Context;
use crate::cli::data::{Data, refused, store_error};
use crate::cli::exit::{CliError, CliResult, Exit};
use crate::clock::{Clock, SystemClock};
use crate::gateway::{self, Acquirers};
use crate::ids::IntentId;
use crate::money::{Currency, Money};
use crate::payment::{Attempt, AttemptState, Dispute, Operation, Standing};
use crate::processor::{OperateError, OperationOrder, Processor};
use crate::store::StoreError;

/// Who acts, in the audit trail.
const ACTOR: &str = "cli";

/// Arguments of `refund`, `capture` and `void`.
#[derive(Debug, Args)]
pub(super) struct OperateArgs {
    /// The payment's identifier.
    intent: String,
    /// How much, like 19.99; without it all that is left.
    #[arg(long, requires = "currency")]
    amount: Option<String>,
    /// The amount's currency; it must be the payment's.
    #[arg(long, requires = "amount")]
    currency: Option<String>,
    /// Idempotency key, 1 to 100 letters, digits and -_.: — the same key again with the same content does nothing twice. Without it a fresh one
    /// is made and shown.
    #[arg(long)]
    key: Option<String>,
    /// Why, for the audit trail.
    #[arg(long, default_value = "")]
    why: String,
    /// Speak to the acquirer in this process. Without it the running service does, and this command waits for it.
    #[arg(long)]
    here: bool,
    /// How long to wait for the end, in seconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=600))]
    wait_s: u64,
}

/// Subcommands of `dispute`.
#[derive(Debug, Subcommand)]
pub(super) enum DisputeCommand {
    /// The acquirer says that a payment is contested: its amount is held back from the payee.
    Open {
        /// The payment's identifier.
        intent: String,
        /// What the acquirer calls the dispute.
        #[arg(long)]
        reference: String,
        /// How much is contested, like 19.99; without it all that was captured.
        #[arg(long, requires = "currency")]
        amount: Option<String>,
        /// The amount's currency.
        #[arg(long, requires = "amount")]
        currency: Option<String>,
        /// The acquirer's reason.
        #[arg(long)]
        reason: String,
    },
    /// It was decided.
    Close {
        /// What the acquirer calls the dispute.
        reference: String,
        /// The payee keeps the money.
        #[arg(long, conflicts_with = "lost", required_unless_present = "lost")]
        won: bool,
        /// The cardholder gets it back.
        #[arg(long)]
        lost: bool,
    },
    /// List disputes, newest first.
    List {
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
}

/// Arguments of `resolve`.
#[derive(Debug, Args)]
pub(super) struct ResolveArgs {
    /// The payment's identifier.
    intent: String,
    /// The acquirer did it, at the amount that was asked; a difference it puts right.
    #[arg(long, conflicts_with = "not_charged", required_unless_present = "not_charged")]
    charged: bool,
    /// No money moved, or it was given back.
    #[arg(long)]
    not_charged: bool,
    /// How this was found out, for the audit trail.
    #[arg(long)]
    why: String,
}

pub(super) async fn operate(ctx: &Context, data: &Data, operation: Operation, args: OperateArgs) -> CliResult {
    let intent = IntentId::parse(&args.intent).map_err(refused)?;
    let amount = money(args.amount.as_deref(), args.currency.as_deref())?;
    let key = args.key.unwrap_or_else(|| format!("cli:{}", hex::encode((*data.entropy).bytes::<8>())));
    let processor = processor(ctx, data, args.here).await?;
    let order = OperationOrder { key: key.clone(), intent, operation, amount, by: ACTOR.into(), why: args.why };
    let id = processor.operate(order).await.map_err(operate_error)?;
    if args.here {
        processor.run_once().await.map_err(store_error)?;
    }
    let attempt = processor.operation(&id, Duration::from_secs(args.wait_s)).await.map_err(store_error)?;
    let (well, said) = ended(&attempt);
    let json = json!({ "attempt": attempt.id, "intent": attempt.intent, "operation": operation.as_str(), "key": key,
        "amount_minor": attempt.amount.minor, "currency": attempt.amount.currency, "state": attempt.state.name() });
    ctx.answer(&json, &format!("{} of {}: {said} (attempt {}, key {key})", operation.as_str(), attempt.amount, attempt.id));
    if well { Ok(()) } else { Err(refused(format!("the {} was not done: {said}", operation.as_str()))) }
}

/// Whether it is no failure, and how it stands in words.
fn ended(attempt: &Attempt) -> (bool, String) {
    match &attempt.state {
        AttemptState::Prepared => (true, "written down; a running service will send it, or `--here` does".into()),
        AttemptState::Dispatched { .. } => (true, "sent, no answer yet".into()),
        AttemptState::NeedsReconciliation { .. } => (true, "in doubt; the running service goes on asking".into()),
        AttemptState::Conflicted { .. } => (true, "in conflict with the acquirer: see `voicepay payments conflicts`".into()),
        AttemptState::Succeeded { gateway_reference, .. } => (true, format!("done, acquirer's reference {gateway_reference}")),
        AttemptState::Declined { reason, .. } => (false, format!("declined: {reason}")),
        AttemptState::Reversed { .. } => (false, "taken back by the acquirer".into()),
    }
}

pub(super) async fn conflicts(ctx: &Context, data: &Data) -> CliResult {
    const LIMIT: u32 = 1000;
    let all = data.store.conflicts(LIMIT).await.map_err(store_error)?;
    let mut rows = Vec::new();
    let mut lines = Vec::new();
    for p in &all {
        for a in &p.attempts {
            let AttemptState::Conflicted { charged, gateway_reference, at, .. } = &a.state else { continue };
            let reference = gateway_reference.as_deref().unwrap_or("-");
            let what = a.operation.as_str();
            lines.push(format!("{at}  {}  {what} of {}, the acquirer says {charged}  {reference}", p.intent.id, a.amount));
            rows.push(json!({ "intent": p.intent.id, "attempt": a.id, "operation": what, "amount": a.amount, "charged": charged,
                "gateway_reference": gateway_reference, "sent_at": at.to_string() }));
        }
        if p.standing() == Standing::Authorised {
            let voids = p.attempts.iter().filter(|a| a.operation == Operation::Void).count();
            let (at, amount) = (p.intent.created_at, p.intent.amount);
            lines.push(format!(
                "{at}  {}  authorisation of {amount}, {voids} voids failed: ask the acquirer, then `voicepay payments void`",
                p.intent.id
            ));
            rows.push(
                json!({ "intent": p.intent.id, "operation": Operation::Void.as_str(), "amount": amount, "failed_voids": voids }),
            );
        }
    }
    let text = if lines.is_empty() { "no conflicts".to_owned() } else { lines.join("\n") };
    ctx.answer(&json!({ "conflicts": rows }), &text);
    Ok(())
}

pub(super) async fn resolve(ctx: &Context, data: &Data, args: ResolveArgs) -> CliResult {
    let intent = IntentId::parse(&args.intent).map_err(refused)?;
    let processor = processor(ctx, data, false).await?;
    let attempt = processor.resolve(&intent, args.charged, ACTOR, &args.why).await.map_err(operate_error)?;
    let json = json!({ "intent": intent, "attempt": attempt.id, "state": attempt.state.name() });
    ctx.answer(&json, &format!("{intent}: {} is {} now", attempt.operation.as_str(), attempt.state.name()));
    Ok(())
}

pub(super) async fn dispute(ctx: &Context, data: &Data, command: DisputeCommand) -> CliResult {
    let all = match command {
        DisputeCommand::Open { intent, reference, amount, currency, reason } => {
            let intent = IntentId::parse(&intent).map_err(refused)?;
            let amount = money(amount.as_deref(), currency.as_deref())?;
            let processor = processor(ctx, data, false).await?;
            let opened = processor.open_dispute(&intent, &reference, amount, &reason, ACTOR).await;
            vec![opened.map_err(operate_error)?]
        }
        DisputeCommand::Close { reference, won, lost: _ } => {
            let processor = processor(ctx, data, false).await?;
            vec![processor.close_dispute(&reference, won, ACTOR).await.map_err(operate_error)?]
        }
        DisputeCommand::List { limit } => data.store.disputes(limit).await.map_err(store_error)?,
    };
    let line =
        |d: &Dispute| format!("{}  {}  {}  {}  {}  {}", d.opened_at, d.intent, d.reference, d.amount, d.state.name(), d.reason);
    let lines: Vec<_> = all.iter().map(line).collect();
    let text = if lines.is_empty() { "no disputes".to_owned() } else { lines.join("\n") };
    ctx.answer(&json!({ "disputes": all }), &text);
    Ok(())
}

fn money(amount: Option<&str>, currency: Option<&str>) -> Result<Option<Money>, CliError> {
    let (Some(amount), Some(currency)) = (amount, currency) else { return Ok(None) };
    let currency: Currency = currency.parse().map_err(|e| refused(format!("--currency: {e}")))?;
    Money::parse_decimal(amount, currency).map(Some).map_err(|e| refused(format!("--amount: {e}")))
}

/// A processor without a worker. Only with `here` does it speak to the acquirer.
async fn processor(ctx: &Context, data: &Data, here: bool) -> Result<Processor, CliError> {
    let cfg = ctx.config()?;
    let vault = data.vault().await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let acquirers = if here {
        let wrong = |e| CliError::new(Exit::Gateway, e);
        let main = gateway::open(&cfg.gateway, vault.sandbox_journal_key(), clock.clone()).map_err(wrong)?;
        Acquirers::new(main, gateway::open_banks(&cfg.gateway, || vault.sandbox_journal_key(), &clock).map_err(wrong)?)
    } else {
        gateway::absent_acquirers(&cfg.gateway)
    };
    Ok(Processor::new(data.store.clone(), acquirers, vault, clock, data.entropy.clone(), cfg.processor))
}

fn operate_error(error: OperateError) -> CliError {
    match error {
        OperateError::Store(error) => store_error(error),
        OperateError::Refused(why) => refused(why),
        OperateError::Transition(why) => refused(why),
        OperateError::Dispute(why) => refused(why),
    }
}

/// What a command says of a payment that does not exist.
pub(super) fn unknown() -> CliError {
    store_error(StoreError::NotFound("payment"))
}
