//! `voicepay account`: main accounts, permissions to ask for money from them, and purchases.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::approvals::token_of;
use super::customer::parse_id;
use super::data::{block_on, name, refused, store_error};
use super::exit::{CliError, CliResult};
use super::guardian::open;
use crate::agreement::{AccountFault, Confirmation, PurchaseFault};
use crate::ids::{AccountId, BankName, CardId, MainAccountId, PurchaseId, RequestId};
use crate::payment::code;
use crate::payment::{ConfirmedBy, MainAccount, Purchase, PurchaseAccount};
use crate::secret::SecretBytes;
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay account`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay account open --customer cus_0123… --bank north --card card_0123…\n  voicepay account list --customer cus_0123…\n  voicepay account purchase --customer cus_0123… --request req_0123…      prints the link of the confirmation page\n  voicepay account page --token cHVy…                                     what the page shows\n  voicepay account confirm --token cHVy… --yes --consent purchase-2026-11-23\n  voicepay account show pur_0123…                                         how it stands, with the bank's answer\n  voicepay account revoke acc_0123… --by olga                             takes the customer's consent back\n  voicepay account close mac_0123… --by olga\n\nBanks are named in the configuration, under [gateway.banks]. The running service sends what is confirmed. docs/ACCOUNTS.md."
)]
pub struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Open a customer's main account. The same again gives the same account.
    Open {
        /// Whose.
        #[arg(long, value_name = "ID")]
        customer: String,
        /// Which bank.
        #[arg(long, value_name = "NAME")]
        bank: String,
        /// The card by which the bank knows it.
        #[arg(long, value_name = "ID")]
        card: String,
        /// Your name, for the audit trail.
        #[arg(long, default_value = "cli")]
        by: String,
    },
    /// A customer's open accounts.
    List {
        /// Whose.
        #[arg(long, value_name = "ID")]
        customer: String,
    },
    /// Close a main account, and every permission to ask for money from it.
    Close {
        /// Its identifier.
        id: String,
        /// Your name, for the audit trail.
        #[arg(long, default_value = "cli")]
        by: String,
    },
    /// Take a customer's consent back: the purchase-permission account is closed. Doing so twice changes nothing.
    Revoke {
        /// The account's identifier.
        id: String,
        /// Your name, for the audit trail.
        #[arg(long, default_value = "cli")]
        by: String,
    },
    /// Ask a user for money: finds the account, or links it at once, and makes the confirmation page's link (its token alone, where api.public_url is not set).
    Purchase {
        /// The user.
        #[arg(long, value_name = "ID")]
        customer: String,
        /// A payment request of theirs.
        #[arg(long, value_name = "ID")]
        request: String,
    },
    /// What a confirmation page shows.
    Page {
        /// Its link, or the link's token.
        #[arg(long)]
        token: String,
    },
    /// Answer by a page's link. A yes is charged at the account's bank, once; where others have to agree, when they did.
    Confirm {
        /// The link, or its token.
        #[arg(long)]
        token: String,
        /// Yes: pay it.
        #[arg(long, conflicts_with = "no", required_unless_present = "no")]
        yes: bool,
        /// No: don't.
        #[arg(long)]
        no: bool,
        /// The version of the wording that was agreed to, where the page asks for one.
        #[arg(long, value_name = "VERSION")]
        consent: Option<String>,
        /// A one-time code, where the page asks for one.
        #[arg(long, value_name = "DIGITS")]
        code: Option<String>,
    },
    /// How a purchase stands, with the bank's answer once there is one.
    Show {
        /// Its identifier.
        id: String,
    },
    /// Take a purchase back that nobody confirmed yet.
    Cancel {
        /// Its identifier.
        id: String,
        /// Your name, for the audit trail.
        #[arg(long, default_value = "cli")]
        by: String,
    },
}

/// Runs it.
pub fn run(args: AccountArgs, ctx: &Context) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    block_on(async {
        let office = open(ctx).await?;
        let agreements = &office.agreements;
        match args.command {
            AccountCommand::Open { customer, bank, card, by } => {
                let bank = BankName::parse(&bank).map_err(refused)?;
                let card = CardId::parse(&card).map_err(refused)?;
                let opened = agreements.open_main_account(&parse_id(&customer)?, &bank, &card, &name(&by)?).await;
                let opened = opened.map_err(account_error)?;
                ctx.answer(&json!(opened), &main_line(&opened));
            }
            AccountCommand::List { customer } => {
                let customer = parse_id(&customer)?;
                let main = agreements.main_account(&customer).await.map_err(store_error)?;
                let linked = agreements.purchase_accounts(&customer).await.map_err(store_error)?;
                let lines: Vec<_> = main.iter().map(main_line).chain(linked.iter().map(line)).collect();
                let text = if lines.is_empty() { "no accounts: nothing can be bought".to_owned() } else { lines.join("\n") };
                ctx.answer(&json!({ "main": main, "purchase": linked }), &text);
            }
            AccountCommand::Close { id, by } => {
                let id = MainAccountId::parse(&id).map_err(refused)?;
                let closed = agreements.close_main_account(&id, &name(&by)?).await.map_err(account_error)?;
                ctx.answer(&json!(closed), &format!("{id} is closed"));
            }
            AccountCommand::Revoke { id, by } => {
                let id = AccountId::parse(&id).map_err(refused)?;
                let closed = agreements.close_account(&id, &name(&by)?).await.map_err(account_error)?;
                ctx.answer(&json!(closed), &format!("{id} is closed"));
            }
            AccountCommand::Purchase { customer, request } => {
                let request = RequestId::parse(&request).map_err(refused)?;
                let asked = agreements.ask_purchase(&parse_id(&customer)?, &request).await.map_err(purchase_error)?;
                let url = asked.page.as_ref().and_then(|token| agreements.url(token));
                let text = url.clone().or(asked.page.clone()).unwrap_or_else(|| purchase_line(&asked.purchase));
                let told = json!({ "purchase": asked.purchase, "account": asked.account, "page": asked.page, "url": url });
                ctx.answer(&told, &text);
            }
            AccountCommand::Page { token } => {
                let (id, _) = agreements.open_page_link(token_of(&token)).map_err(refused)?;
                let page = agreements.confirmation_page(&id).await.map_err(purchase_error)?;
                let wording = page.wording.map(|w| json!({ "version": w.version, "text": w.text }));
                let mut text = format!("{}\n{}", purchase_line(&page.purchase), line(&page.account));
                if let Some(w) = page.wording {
                    text.push_str(&format!("\nto be agreed to ({}): {}", w.version, w.text));
                }
                let told = json!({ "purchase": page.purchase, "account": page.account, "payee_name": page.payee_name, "wording": wording,
                    "wants_code": page.wants_code });
                ctx.answer(&told, &text);
            }
            AccountCommand::Confirm { token, yes, no: _, consent, code } => {
                let (id, who) = agreements.open_page_link(token_of(&token)).map_err(refused)?;
                let code = code.as_deref().map(digits).transpose()?;
                let said = Confirmation { yes, how: ConfirmedBy::Link, consent, code };
                let purchase = agreements.confirm(&id, &who, &said).await.map_err(purchase_error)?;
                ctx.answer(&json!(purchase), &purchase_line(&purchase));
            }
            AccountCommand::Show { id } => {
                let purchase = agreements.purchase(&parse(&id)?, Duration::ZERO).await.map_err(purchase_error)?;
                ctx.answer(&json!(purchase), &purchase_line(&purchase));
            }
            AccountCommand::Cancel { id, by } => {
                let purchase = agreements.cancel_purchase(&parse(&id)?, &name(&by)?).await.map_err(purchase_error)?;
                ctx.answer(&json!(purchase), &purchase_line(&purchase));
            }
        }
        Ok(())
    })
}

fn parse(id: &str) -> Result<PurchaseId, CliError> {
    PurchaseId::parse(id).map_err(refused)
}

fn digits(text: &str) -> Result<SecretBytes, CliError> {
    code::written(text).ok_or_else(|| refused("a code has 6 digits"))
}

fn main_line(m: &MainAccount) -> String {
    format!("{}  main account of {} at {}  by {}  since {}", m.id, m.customer, m.bank, m.card, m.created_at)
}

fn line(a: &PurchaseAccount) -> String {
    let (purchase, day) = (a.limits.purchase(), a.limits.day());
    format!("{}  {} may ask for up to {purchase}, {day} in 24 hours  {}  used {}", a.id, a.payee, a.state.name(), a.used)
}

fn purchase_line(p: &Purchase) -> String {
    format!("{}  {} to {}  {}  to be confirmed by {}", p.id, p.amount, p.payee, p.state.name(), p.expires_at)
}

/// Rules refuse; the database has its own code.
fn account_error(fault: AccountFault) -> CliError {
    match fault {
        AccountFault::Store(e) => store_error(e),
        AccountFault::NoSuch(_) | AccountFault::UnknownBank(_) | AccountFault::NoUsableCard | AccountFault::HasAnother => {
            refused(fault)
        }
    }
}

fn purchase_error(fault: PurchaseFault) -> CliError {
    match fault {
        PurchaseFault::Store(e) => store_error(e),
        PurchaseFault::NoSuch(_)
        | PurchaseFault::Purchase(_)
        | PurchaseFault::UnknownBank(_)
        | PurchaseFault::Refused(_)
        | PurchaseFault::Code(_)
        | PurchaseFault::CodeFailed(_) => refused(fault),
    }
}
