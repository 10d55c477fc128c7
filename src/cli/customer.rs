//! `voicepay customer`: who may pay.

mod export;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::data::{Data, block_on, known_tenant, name, refused, store_error};
use super::exit::{CliError, CliResult};
use crate::clock::Entropy;
use crate::e164::E164;
use crate::ids::{CustomerId, Tenant};
use crate::language::Language;
use crate::store::{CardRecord, Customer, CustomerStatus, StoreError};

/// Arguments of `voicepay customer`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay customer add --name 'Ann Smith' --number +442079460958\n  voicepay customer list\n  voicepay customer show cus_0123…\n  voicepay customer more-time cus_0123…\n  voicepay customer more-time --off cus_0123…\n  voicepay customer export --customer cus_0123… --out ann.json\n  voicepay customer delete cus_0123…"
)]
pub struct CustomerArgs {
    #[command(subcommand)]
    command: CustomerCommand,
}

#[derive(Debug, Subcommand)]
enum CustomerCommand {
    /// Add a customer.
    Add {
        /// The customer's name, for people.
        #[arg(long)]
        name: String,
        /// A telephone number that the customer calls from, with + and country; may be given several times.
        #[arg(long = "number", value_name = "NUMBER")]
        numbers: Vec<String>,
        /// The customer number to key where the calling number does not tell, 6 to 10 digits (default: 8 random digits).
        #[arg(long, value_name = "DIGITS")]
        customer_number: Option<String>,
        /// The language to speak with the customer: en or zh.
        #[arg(long, default_value = "en", value_parser = language)]
        language: Language,
        /// Whose customer it is.
        #[arg(long, value_name = "NAME", default_value_t)]
        tenant: Tenant,
    },
    /// List the customers.
    List,
    /// Show one customer with cards, voice and open requests.
    Show {
        /// Its identifier.
        id: String,
    },
    /// Give a customer more time in calls (relay services, slow speakers), or as much as anybody. Nothing is judged by it.
    MoreTime {
        /// Its identifier.
        id: String,
        /// As much as anybody again.
        #[arg(long)]
        off: bool,
    },
    /// Everything that is held about a customer, as one JSON document; it is noted in the audit trail. Never a card number, never a voice.
    Export {
        /// About whom.
        #[arg(long, value_name = "ID")]
        customer: String,
        /// Into this new file, readable by you only (default: standard output).
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Erase a customer's cards, voice, name and numbers. What was paid stays in the books.
    Delete {
        /// Its identifier.
        id: String,
    },
}

/// Runs it.
pub fn run(args: CustomerArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            CustomerCommand::Add { name, numbers, customer_number, language, tenant } => {
                add(ctx, &data, &name, &numbers, customer_number, language, tenant).await
            }
            CustomerCommand::List => list(ctx, &data).await,
            CustomerCommand::Show { id } => show(ctx, &data, &parse_id(&id)?).await,
            CustomerCommand::MoreTime { id, off } => more_time(ctx, &data, &parse_id(&id)?, !off).await,
            CustomerCommand::Export { customer, out } => export::run(ctx, &data, &parse_id(&customer)?, out.as_deref()).await,
            CustomerCommand::Delete { id } => delete(ctx, &data, &parse_id(&id)?).await,
        }
    })
}

/// A language from the command line.
fn language(code: &str) -> Result<Language, String> {
    Language::from_code(code).ok_or_else(|| "en or zh".to_owned())
}

/// A customer's identifier from the command line.
pub(super) fn parse_id(text: &str) -> Result<CustomerId, CliError> {
    CustomerId::parse(text).map_err(refused)
}

async fn add(
    ctx: &Context,
    data: &Data,
    given: &str,
    numbers: &[String],
    customer_number: Option<String>,
    language: Language,
    tenant: Tenant,
) -> CliResult {
    known_tenant(&*data.store, &tenant).await?;
    let country = ctx.config()?.identity.default_country;
    let mut parsed = Vec::new();
    for number in numbers {
        let number = E164::normalise(number, &country).map_err(|e| refused(format!("--number {number}: {e}")))?;
        if !parsed.contains(&number) {
            parsed.push(number);
        }
    }
    let drawn = customer_number.is_none();
    let mut customer = Customer {
        tenant,
        id: CustomerId::fresh(&*data.entropy),
        name: name(given)?,
        customer_number: customer_number.map_or_else(|| Ok(draw(&*data.entropy)), checked)?,
        numbers: parsed,
        status: CustomerStatus::Active,
        language,
        created_at: data.now(),
    };
    // A drawn number may be taken; a given one is the operator's to choose again.
    const DRAWS: u32 = 20;
    for left in (0..DRAWS).rev() {
        let audit = data.audit("customer.added", customer.id.as_str(), json!({ "numbers": customer.numbers.len() }));
        match data.store.add_customer(&customer, &audit).await {
            Ok(()) => break,
            Err(StoreError::Exists(_)) if drawn && left > 0 => customer.customer_number = draw(&*data.entropy),
            Err(e) => return Err(store_error(e)),
        }
    }
    let text = format!("{}\ncustomer number {}", customer.id, customer.customer_number);
    ctx.answer(&as_json(&customer), &text);
    Ok(())
}

fn draw(entropy: &dyn Entropy) -> String {
    format!("{:08}", entropy.below(100_000_000))
}

fn checked(digits: String) -> Result<String, CliError> {
    if (6..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) {
        Ok(digits)
    } else {
        Err(refused("--customer-number has 6 to 10 digits"))
    }
}

async fn more_time(ctx: &Context, data: &Data, id: &CustomerId, wanted: bool) -> CliResult {
    let audit = data.audit("customer.more_time", id.as_str(), json!({ "more_time": wanted }));
    data.store.set_more_time(id, wanted, &audit).await.map_err(store_error)?;
    let text = if wanted { format!("{id} has more time in calls") } else { format!("{id} has as much time as anybody") };
    ctx.answer(&json!({ "customer": id, "more_time": wanted }), &text);
    Ok(())
}

async fn list(ctx: &Context, data: &Data) -> CliResult {
    let all = data.store.customers().await.map_err(store_error)?;
    let lines: Vec<_> = all.iter().map(|c| format!("{}  {}  {}", c.id, c.customer_number, c.name)).collect();
    let text = if lines.is_empty() { "no customers yet: `voicepay customer add`".to_owned() } else { lines.join("\n") };
    ctx.answer(&json!({ "customers": all.iter().map(as_json).collect::<Vec<_>>() }), &text);
    Ok(())
}

async fn show(ctx: &Context, data: &Data, id: &CustomerId) -> CliResult {
    let store = &data.store;
    let customer = store.customer(id).await.map_err(store_error)?.ok_or_else(|| store_error(StoreError::NotFound("customer")))?;
    let cards = store.cards_of(id).await.map_err(store_error)?;
    let voice = store.template(id).await.map_err(store_error)?;
    let requests = store.payable_requests(id, data.now()).await.map_err(store_error)?;
    let more_time = store.wants_more_time(id).await.map_err(store_error)?;
    let mut json = as_json(&customer);
    if let Value::Object(map) = &mut json {
        map.insert("more_time".into(), more_time.into());
        map.insert("cards".into(), cards.iter().map(card_json).collect());
        map.insert(
            "voice".into(),
            voice.as_ref().map_or(Value::Null, |t| json!({ "model": t.model, "enrolled_at": t.created_at.to_string() })),
        );
        map.insert("open_requests".into(), json!(requests));
    }
    let numbers: Vec<_> = customer.numbers.iter().map(|n| n.as_str()).collect();
    let mut lines = vec![
        format!("{}  {}  ({})", customer.id, customer.name, customer.status.as_str()),
        format!("customer number  {}", customer.customer_number),
        format!("calls from       {}", if numbers.is_empty() { "-".into() } else { numbers.join(", ") }),
        format!("language         {}", customer.language),
        format!("voice            {}", voice.map_or("not enrolled".to_owned(), |t| format!("enrolled {}", t.created_at))),
    ];
    if more_time {
        lines.push("in calls         has more time".to_owned());
    }
    for card in &cards {
        let expiry = card.expiry.map(|e| format!(", good until {e}")).unwrap_or_default();
        lines.push(format!("card             {} ending {}{expiry} ({})", card.id, card.last4, card.status.as_str()));
    }
    for r in &requests {
        lines.push(format!("asked to pay     {} {} to {}", r.request.id, r.request.amount, r.payee_name));
    }
    ctx.answer(&json, &lines.join("\n"));
    Ok(())
}

async fn delete(ctx: &Context, data: &Data, id: &CustomerId) -> CliResult {
    let audit = data.audit("customer.deleted", id.as_str(), json!({}));
    data.store.delete_customer(id, &audit).await.map_err(store_error)?;
    ctx.answer(
        &json!({ "deleted": id }),
        &format!("{id} deleted: cards, voice, name and numbers are erased; payments stay in the books"),
    );
    Ok(())
}

fn as_json(c: &Customer) -> Value {
    json!({
        "id": c.id,
        "name": c.name,
        "customer_number": c.customer_number,
        "numbers": c.numbers,
        "status": c.status,
        "language": c.language,
        "created_at": c.created_at.to_string(),
    })
}

/// A card as it may be shown: never its number.
pub(super) fn card_json(c: &CardRecord) -> Value {
    json!({ "id": c.id, "customer": c.customer, "last4": c.last4, "length": c.length, "expires": c.expiry, "status": c.status })
}
