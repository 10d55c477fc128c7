//! `voicepay policy`: the rules on who has to say yes to a payment, and how: checked, shown, and asked about one payment.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::Context;
use super::data::{block_on, refused, store_error};
use super::exit::{CliError, CliResult, Exit};
use crate::agreement::{Asking, PolicyFileError, read_policy};
use crate::app::Office;
use crate::clock::{Clock, SystemClock, SystemEntropy};
use crate::ids::{Category, PayeeId, RequestId};
use crate::money::{Currency, Money};
use crate::payment::policy::{Attested, Channel, DEFAULT, Facts, History, Policy};
use crate::payment::{AddressMark, Condition, Delivery, Terms};
use crate::store::StoreError;
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay policy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay policy check policy.toml\n  voicepay policy show > policy.toml                the one that comes with the program\n  voicepay policy explain --payment req_0123…        with what the database knows\n  voicepay policy explain --amount 600 --currency USD --channel app --guardians 1"
)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Read a file and say what is wrong with it, if anything.
    Check {
        /// The file; without one: what the configuration names.
        file: Option<PathBuf>,
    },
    /// Print the rules that come with the program, or the configured file.
    Show,
    /// Which rule asks for what in one payment.
    Explain(Box<ExplainArgs>),
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// A payment request: what the database knows of it is asked about.
    #[arg(long, value_name = "ID", conflicts_with_all = ["amount", "currency"], required_unless_present = "amount")]
    payment: Option<String>,
    /// Instead: an amount, such as 19.99.
    #[arg(long, requires = "currency")]
    amount: Option<String>,
    /// USD, EUR, GBP or JPY.
    #[arg(long)]
    currency: Option<Currency>,
    /// By what way it is paid.
    #[arg(long, value_enum, default_value_t = Way::Telephone)]
    channel: Way,
    /// What the payee sells.
    #[arg(long, value_name = "WORD")]
    category: Option<Category>,
    /// Who gets it.
    #[arg(long, value_name = "ID")]
    payee: Option<String>,
    /// Where goods go.
    #[arg(long, value_enum, default_value_t = Goods::None)]
    goods: Goods,
    /// Who vouches for the number that calls.
    #[arg(long, value_enum, default_value_t = Vouches::Somebody)]
    attestation: Vouches,
    /// What the payee got in the last 24 hours, such as 12.50.
    #[arg(long, value_name = "AMOUNT")]
    spent_payee: Option<String>,
    /// What everybody got in the last 24 hours.
    #[arg(long, value_name = "AMOUNT")]
    spent: Option<String>,
    /// How many guardians the payer has.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    guardians: u8,
    /// The payer has a supervisor.
    #[arg(long)]
    supervised: bool,
    /// A mandate stands for the card number.
    #[arg(long)]
    mandate: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    Telephone,
    App,
    Api,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Goods {
    None,
    Known,
    New,
    Missing,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Vouches {
    Somebody,
    Nobody,
    Disputed,
}

impl From<Way> for Channel {
    fn from(way: Way) -> Self {
        match way {
            Way::Telephone => Self::Telephone,
            Way::App => Self::App,
            Way::Api => Self::Api,
        }
    }
}

/// Runs it.
pub fn run(args: PolicyArgs, ctx: &Context) -> CliResult {
    match args.command {
        PolicyCommand::Check { file } => {
            let policy = read(ctx, file)?;
            let text = format!("policy {}: {} rules, no fault found", policy.version(), policy.rules().len());
            ctx.answer(&json!({ "version": policy.version(), "rules": policy.rules().len() }), &text);
            Ok(())
        }
        PolicyCommand::Show => {
            let text = match ctx.config()?.agreement.policy {
                Some(path) => std::fs::read_to_string(&path).map_err(|e| fault(&format!("{}: {e}", path.display())))?,
                None => DEFAULT.to_owned(),
            };
            ctx.answer(&json!({ "policy": text }), text.trim_end());
            Ok(())
        }
        PolicyCommand::Explain(args) => explain(ctx, &args),
    }
}

fn fault(what: &dyn std::fmt::Display) -> CliError {
    CliError::new(Exit::Config, what)
}

fn read(ctx: &Context, file: Option<PathBuf>) -> Result<Policy, CliError> {
    let path = match file {
        Some(path) => Some(path),
        None => ctx.config()?.agreement.policy,
    };
    read_policy(path.as_deref()).map_err(|e: PolicyFileError| fault(&e))
}

fn explain(ctx: &Context, args: &ExplainArgs) -> CliResult {
    let (facts, terms) = match &args.payment {
        Some(id) => {
            let id = RequestId::parse(id).map_err(refused)?;
            telemetry::init(LogFormat::Text, "voicepay=warn");
            block_on(known(ctx, &id, args.channel.into()))?
        }
        None => {
            let facts = given(args)?;
            let terms = read(ctx, None)?.terms(&facts);
            (facts, terms)
        }
    };
    let tier = read(ctx, None)?.tier(&facts);
    ctx.answer(&json!({ "tier": tier, "terms": terms, "facts": facts }), &in_words(&facts, tier.map(|t| t.as_str()), &terms));
    Ok(())
}

/// What the database knows of a request.
async fn known(ctx: &Context, id: &RequestId, channel: Channel) -> Result<(Facts, Terms), CliError> {
    let cfg = ctx.config()?;
    let entropy = std::sync::Arc::new(SystemEntropy);
    let office = Office::open(&cfg, std::sync::Arc::new(SystemClock), entropy).await.map_err(super::serve::start_error)?;
    let found = office.store.request(id).await.map_err(store_error)?;
    let request = found.ok_or_else(|| store_error(StoreError::NotFound("payment request")))?.request;
    let attestation = if channel == Channel::Telephone { Attested::Vouched } else { Attested::NotACall };
    let asking = Asking::again(channel, attestation);
    let asked = office.agreements.ask(&request, asking).await.map_err(store_error)?;
    Ok((asked.facts, asked.terms))
}

fn given(args: &ExplainArgs) -> Result<Facts, CliError> {
    let (Some(amount), Some(currency)) = (&args.amount, args.currency) else {
        return Err(refused("--amount needs --currency"));
    };
    let money = |key: &str, text: &str| Money::parse_decimal(text, currency).map_err(|e| refused(format!("--{key}: {e}")));
    let sum = |key: &str, text: &Option<String>| text.as_deref().map_or(Ok(0), |t| money(key, t).map(|m| m.minor.get()));
    let payee = args.payee.as_deref().unwrap_or("pay_0");
    let payee = PayeeId::parse(payee).map_err(refused)?;
    let (spent_24h_payee, all) = (sum("spent-payee", &args.spent_payee)?, sum("spent", &args.spent)?);
    let mark = || Delivery::To(AddressMark::of(&[0; 32]));
    Ok(Facts {
        channel: args.channel.into(),
        category: args.category.clone(),
        delivery: match args.goods {
            Goods::None => Delivery::None,
            Goods::Known | Goods::New => mark(),
            Goods::Missing => Delivery::Nowhere,
        },
        address_known: matches!(args.goods, Goods::Known),
        attestation: match args.attestation {
            Vouches::Somebody => Attested::Vouched,
            Vouches::Nobody => Attested::Unvouched,
            Vouches::Disputed => Attested::Disputed,
        },
        by_mandate: args.mandate,
        history: History { spent_24h: all.max(spent_24h_payee), spent_24h_payee, ..History::default() },
        guardians: args.guardians,
        supervised: args.supervised,
        ..Facts::plain(SystemClock.now(), money("amount", amount)?, payee)
    })
}

fn in_words(facts: &Facts, tier: Option<&str>, terms: &Terms) -> String {
    let list = |of: &mut dyn Iterator<Item = Condition>| of.map(Condition::as_str).collect::<Vec<_>>().join(", ");
    let mut lines = vec![format!("{}, tier {}, policy {}", facts.amount, tier.unwrap_or("none"), terms.policy_version)];
    lines.extend(terms.because.iter().map(|b| match b.denies {
        true => format!("  {:<24} denies", b.rule),
        false if b.asks.is_empty() => format!("  {:<24} applies, and asks for nothing that the payer has", b.rule),
        false => format!("  {:<24} asks for {}", b.rule, list(&mut b.asks.iter())),
    }));
    lines.push(match &terms.denied_by {
        Some(rule) => format!("refused, by {rule}"),
        None if terms.conditions.is_empty() => "nothing beyond what every payment needs".to_owned(),
        None => format!("needs {}", list(&mut terms.conditions.iter().copied())),
    });
    lines.join("\n")
}
