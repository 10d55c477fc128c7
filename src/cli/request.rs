//! `voicepay request`: asks a customer for money.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::approvals::agree_error;
use super::customer::parse_id;
use super::data::{Data, block_on, refused, store_error};
use super::exit::CliResult;
use super::guardian::open;
use crate::ids::{PayeeId, RequestId};
use crate::money::{Currency, Money};
use crate::payment::{AddressMark, Delivery, DueDate, PaymentRequest, RequestStatus};
use crate::store::StoreError;
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay request`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay request add --customer cus_0123… --payee pay_0123… --amount 19.99 --currency USD --due 2026-11-30\n  voicepay request show req_0123…\n  voicepay request cancel req_0123…"
)]
pub struct RequestArgs {
    #[command(subcommand)]
    command: RequestCommand,
}

#[derive(Debug, Subcommand)]
enum RequestCommand {
    /// Ask a customer for money.
    Add(AddArgs),
    /// Show one request.
    Show {
        /// Its identifier.
        id: String,
    },
    /// Withdraw a request that nobody has paid, and the approvals that it waits for.
    Cancel {
        /// Its identifier.
        id: String,
    },
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Who is asked.
    #[arg(long, value_name = "ID")]
    customer: String,
    /// Who gets the money.
    #[arg(long, value_name = "ID")]
    payee: String,
    /// How much, such as 19.99.
    #[arg(long)]
    amount: String,
    /// USD, EUR, GBP or JPY.
    #[arg(long)]
    currency: String,
    /// By when the payee would like it; it is read out.
    #[arg(long, value_name = "YYYY-MM-DD")]
    due: Option<String>,
    /// Where goods for it go; kept as a keyed digest only, so that it is known again.
    #[arg(long, value_name = "TEXT", conflicts_with = "goods")]
    address: Option<String>,
    /// Goods are delivered for it, and nobody knows yet where to.
    #[arg(long)]
    goods: bool,
    /// After so many days nobody can pay it any more.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    valid_days: u32,
}

/// Runs it.
pub fn run(args: RequestArgs, ctx: &Context) -> CliResult {
    block_on(async {
        match args.command {
            RequestCommand::Add(args) => add(ctx, &Data::open(ctx).await?, &args).await,
            RequestCommand::Show { id } => show(ctx, &Data::open(ctx).await?, &RequestId::parse(&id).map_err(refused)?).await,
            RequestCommand::Cancel { id } => cancel(ctx, &RequestId::parse(&id).map_err(refused)?).await,
        }
    })
}

async fn add(ctx: &Context, data: &Data, args: &AddArgs) -> CliResult {
    let currency: Currency = args.currency.parse().map_err(|e| refused(format!("--currency: {e}")))?;
    let amount = Money::parse_decimal(&args.amount, currency).map_err(|e| refused(format!("--amount: {e}")))?;
    let due = args.due.as_deref().map(str::parse::<DueDate>).transpose().map_err(|e| refused(format!("--due: {e}")))?;
    let delivery = match &args.address {
        Some(address) if address.trim().is_empty() => {
            return Err(refused("--address: it is empty; goods without an address are `--goods`"));
        }
        Some(address) => Delivery::To(AddressMark::of(&data.vault().await?.address_mark(address))),
        None if args.goods => Delivery::Nowhere,
        None => Delivery::None,
    };
    let now = data.now();
    let request = PaymentRequest {
        id: RequestId::fresh_at(now, &*data.entropy),
        customer: parse_id(&args.customer)?,
        payee: PayeeId::parse(&args.payee).map_err(refused)?,
        amount,
        due,
        delivery,
        expires_at: Some(now.plus(Duration::from_secs(u64::from(args.valid_days) * 24 * 3600))),
        status: RequestStatus::Open,
        held_by: None,
        created_at: now,
    };
    let detail =
        json!({ "customer": request.customer, "payee": request.payee, "amount_minor": amount.minor, "currency": currency });
    let audit = data.audit("request.added", request.id.as_str(), detail);
    data.store.add_request(&request, &audit).await.map_err(store_error)?;
    ctx.answer(&as_json(&request, None), request.id.as_str());
    Ok(())
}

async fn show(ctx: &Context, data: &Data, id: &RequestId) -> CliResult {
    let found = data.store.request(id).await.map_err(store_error)?;
    let found = found.ok_or_else(|| store_error(StoreError::NotFound("payment request")))?;
    let r = &found.request;
    let due = r.due.map(|d| format!(", due {d}")).unwrap_or_default();
    let held = r.held_by.as_ref().map(|i| format!(", by {i}")).unwrap_or_default();
    let text = format!("{}  {} to {}{due} ({}{held})", r.id, r.amount, found.payee_name, r.status.as_str());
    ctx.answer(&as_json(r, Some(&found.payee_name)), &text);
    Ok(())
}

async fn cancel(ctx: &Context, id: &RequestId) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    open(ctx).await?.agreements.cancel_request(id, "cli").await.map_err(agree_error)?;
    ctx.answer(&json!({ "id": id, "status": RequestStatus::Cancelled }), &format!("{id} is cancelled"));
    Ok(())
}

fn as_json(r: &PaymentRequest, payee_name: Option<&str>) -> Value {
    json!({
        "id": r.id,
        "customer": r.customer,
        "payee": r.payee,
        "payee_name": payee_name,
        "amount_minor": r.amount.minor,
        "currency": r.amount.currency,
        "due": r.due,
        "expires_at": r.expires_at.map(|t| t.to_string()),
        "status": r.status,
        "payment": r.held_by,
    })
}
