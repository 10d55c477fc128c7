//! `voicepay consents`: what customers agreed to, and taking it back.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::customer::parse_id;
use super::data::{Data, block_on, refused, store_error};
use super::exit::CliResult;
use crate::ids::{ConsentId, CustomerId};
use crate::store::Purpose;
use crate::store::consents::Consent;

/// Arguments of `voicepay consents`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay consents list --customer cus_0123…\n  voicepay consents withdraw cns_0123…\n\nA consent is written with what it allows and ends with it; no row of them ever changes. docs/PRIVACY.md."
)]
pub struct ConsentsArgs {
    #[command(subcommand)]
    command: ConsentsCommand,
}

#[derive(Debug, Subcommand)]
enum ConsentsCommand {
    /// What a customer agreed to, and how each consent ended.
    List {
        /// Whose.
        #[arg(long, value_name = "ID")]
        customer: String,
    },
    /// Take a consent back, and with it what it allowed: the voiceprint is erased, or the template follows no longer. Mandates: `voicepay
    /// mandates revoke`; accounts: `voicepay account revoke`.
    Withdraw {
        /// Its identifier.
        id: String,
    },
}

/// Runs it.
pub fn run(args: ConsentsArgs, ctx: &Context) -> CliResult {
    block_on(async {
        let data = Data::open(ctx).await?;
        match args.command {
            ConsentsCommand::List { customer } => list(ctx, &data, &parse_id(&customer)?).await,
            ConsentsCommand::Withdraw { id } => withdraw(ctx, &data, &ConsentId::parse(&id).map_err(refused)?).await,
        }
    })
}

fn line(c: &Consent) -> String {
    let about = c.about.as_ref().map(|a| format!(" {a}")).unwrap_or_default();
    let call = c.call.as_ref().map(|call| format!(" in {call}")).unwrap_or_default();
    let end = match &c.withdrawn {
        None => "holds".to_owned(),
        Some(w) => format!("ended {} ({}, {})", w.at, w.how.as_str(), w.by),
    };
    let how = c.how.as_str();
    format!(
        "{}  {}{about}  given {} by {} ({how}{call})  wording {} ({})  {end}",
        c.id,
        c.purpose.as_str(),
        c.given_at,
        c.given_by,
        c.text_version,
        c.language
    )
}

async fn list(ctx: &Context, data: &Data, customer: &CustomerId) -> CliResult {
    if data.store.customer(customer).await.map_err(store_error)?.is_none() {
        return Err(refused(format!("there is no customer {customer}: see `voicepay customer list`")));
    }
    let all = data.store.consents_of(customer).await.map_err(store_error)?;
    let text = all.iter().map(line).collect::<Vec<_>>().join("\n");
    let text = if text.is_empty() { "this customer has agreed to nothing".to_owned() } else { text };
    ctx.answer(&json!({ "consents": all }), &text);
    Ok(())
}

async fn withdraw(ctx: &Context, data: &Data, id: &ConsentId) -> CliResult {
    let found = data.store.consent(id).await.map_err(store_error)?;
    let found = found.ok_or_else(|| refused(format!("there is no consent {id}")))?;
    if found.withdrawn.is_some() {
        return Err(refused(format!("{id} has ended already")));
    }
    let customer = &found.customer;
    let detail = json!({ "consent": id });
    match found.purpose {
        Purpose::Voiceprint => {
            let audit = data.audit("voice.withdrawn", customer.as_str(), detail);
            data.store.delete_template(customer, &audit).await.map_err(store_error)?;
        }
        Purpose::Following => {
            let audit = data.audit("voice.stays", customer.as_str(), detail);
            data.store.set_following(customer, None, &audit).await.map_err(store_error)?;
        }
        Purpose::Mandate | Purpose::Account => {
            let (what, about) =
                (if found.purpose == Purpose::Mandate { "mandates" } else { "account" }, found.about.unwrap_or_default());
            return Err(refused(format!("{id} ends with what it allowed: `voicepay {what} revoke {about}`")));
        }
        Purpose::Recording => return Err(refused(format!("{id} is taken back where it was given"))),
    }
    let gone = if found.purpose == Purpose::Voiceprint { "the voice is erased" } else { "the template stays as it is" };
    ctx.answer(&json!({ "consent": id, "withdrawn": true }), &format!("{id} is taken back: {gone}"));
    Ok(())
}
