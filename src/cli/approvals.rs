//! `voicepay approvals`: what several people have to agree to, and what each said.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::customer::parse_id;
use super::data::{block_on, name, refused, store_error};
use super::exit::{CliError, CliResult};
use super::guardian::open;
use crate::agreement::{AgreeError, Agreed, Decided, Refusal};
use crate::clock::{Clock, SystemClock};
use crate::ids::ApprovalId;
use crate::payment::{Approval, How, Said};
use crate::store::{Document, PaperKind, Store, StoreError, papers};
use crate::telemetry::{self, LogFormat};

/// Approvals that are read at a time.
const PAGE: u32 = 500;

/// Arguments of `voicepay approvals`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay approvals list                     what is open\n  voicepay approvals list --customer cus_0123…\n  voicepay approvals show apr_0123…\n  voicepay approvals link apr_0123… --who cus_4567…      a link by which only they can answer\n  voicepay approvals decide --token QWxs… --yes\n  voicepay approvals override apr_0123… --who cus_4567… --no --by olga --why \"reported stolen, ticket 4711\"\n  voicepay approvals appeal apr_0123… --by olga --why \"he mistook the payee\"\n  voicepay approvals cancel apr_0123… --by olga\n\nThe last yes charges the payment: the running service sends it. A yes in somebody's place needs a second operator (--with); a no\nstands until it is appealed against, which can be done once."
)]
pub struct ApprovalsArgs {
    #[command(subcommand)]
    command: ApprovalsCommand,
}

#[derive(Debug, Subcommand)]
enum ApprovalsCommand {
    /// Those that are open, or all.
    List {
        /// Only of this payer.
        #[arg(long, value_name = "ID")]
        customer: Option<String>,
        /// Also those that ended. Not with --customer.
        #[arg(long, conflicts_with = "customer")]
        all: bool,
    },
    /// One, with everything that was said.
    Show {
        /// Its identifier.
        id: String,
    },
    /// Make a link (its token alone, where api.public_url is not set). Whoever has it can answer in this person's place until the approval expires.
    Link {
        /// The approval's identifier.
        id: String,
        /// Who was asked.
        #[arg(long, value_name = "ID")]
        who: String,
    },
    /// Answer by a link.
    Decide {
        /// The link, or its token.
        #[arg(long)]
        token: String,
        #[command(flatten)]
        answer: Answer,
    },
    /// Answer in somebody's place. It is audited with your name and reason.
    Override {
        /// The approval's identifier.
        id: String,
        /// In whose place.
        #[arg(long, value_name = "ID")]
        who: String,
        #[command(flatten)]
        answer: Answer,
        /// Your name, for the audit trail.
        #[arg(long)]
        by: String,
        /// A second operator, for a yes.
        #[arg(long, value_name = "NAME")]
        with: Option<String>,
        /// Why, for the audit trail; never a card number, name or telephone number.
        #[arg(long)]
        why: String,
    },
    /// Ask everybody once more about what was denied. The payer has to say yes again, too.
    Appeal {
        /// The identifier of what was denied.
        id: String,
        /// Your name, for the audit trail.
        #[arg(long, default_value = "cli")]
        by: String,
        /// Why, for the audit trail; never a card number, name or telephone number.
        #[arg(long)]
        why: String,
    },
    /// Take one back: nothing is charged.
    Cancel {
        /// Its identifier.
        id: String,
        /// Your name, for the audit trail.
        #[arg(long, default_value = "cli")]
        by: String,
    },
}

/// Yes or no, one of them.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
struct Answer {
    /// It may be charged.
    #[arg(long)]
    yes: bool,
    /// It may not.
    #[arg(long)]
    no: bool,
}

/// Runs it.
pub fn run(args: ApprovalsArgs, ctx: &Context) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    block_on(async {
        let office = open(ctx).await?;
        let (store, agreements) = (&*office.store, &office.agreements);
        match args.command {
            ApprovalsCommand::List { customer, all } => {
                let found = match customer {
                    Some(id) => papers::of(store, &parse_id(&id)?).await.map_err(store_error)?,
                    None => every(store, all).await.map_err(store_error)?,
                };
                let text = found.iter().map(line).collect::<Vec<_>>().join("\n");
                let text = if text.is_empty() { "no approvals".to_owned() } else { text };
                ctx.answer(&json!({ "approvals": found }), &text);
            }
            ApprovalsCommand::Show { id } => {
                let approval = read(store, &id).await?;
                ctx.answer(&json!(approval), &whole(&approval));
            }
            ApprovalsCommand::Link { id, who } => {
                let (approval, who) = (read(store, &id).await?, parse_id(&who)?);
                if !approval.open() || SystemClock.now() >= approval.expires_at {
                    return Err(refused(format!("{id} is {}: no link answers it any more", approval.state.name())));
                }
                if !approval.parties.iter().any(|p| p.who == who) {
                    return Err(refused(format!("{who} was not asked; `voicepay approvals show {id}` says who was")));
                }
                let token = agreements.link(&approval.id, &who, approval.expires_at);
                let url = agreements.url(&token);
                let told = json!({ "approval": id, "who": who, "token": token, "url": url,
                    "expires_at": approval.expires_at.to_string() });
                ctx.answer(&told, url.as_ref().unwrap_or(&token));
            }
            ApprovalsCommand::Decide { token, answer } => {
                let (id, who) = agreements.open_link(token_of(&token)).map_err(refused)?;
                told(ctx, &agreements.decide(&id, &who, answer.yes, How::Link).await.map_err(agree_error)?);
            }
            ApprovalsCommand::Override { id, who, answer, by, with, why } => {
                let with = with.as_deref().map(name).transpose()?;
                let how = How::Override { by: name(&by)?, with, why: name(&why)? };
                let decided = agreements.decide(&parse(&id)?, &parse_id(&who)?, answer.yes, how).await;
                told(ctx, &decided.map_err(agree_error)?);
            }
            ApprovalsCommand::Appeal { id, by, why } => {
                let open = agreements.appeal(&parse(&id)?, &name(&by)?, &name(&why)?).await.map_err(agree_error)?;
                ctx.answer(&json!(open), open.id.as_str());
            }
            ApprovalsCommand::Cancel { id, by } => {
                let approval = agreements.cancel(&parse(&id)?, &name(&by)?).await.map_err(agree_error)?;
                ctx.answer(&json!(approval), &format!("{id} is {}", approval.state.name()));
            }
        }
        Ok(())
    })
}

/// A link's token is its last part; without `api.public_url` it is all there is.
pub(super) fn token_of(link: &str) -> &str {
    link.rsplit('/').next().unwrap_or(link)
}

fn parse(id: &str) -> Result<ApprovalId, CliError> {
    ApprovalId::parse(id).map_err(refused)
}

async fn read(store: &dyn Store, id: &str) -> Result<Approval, CliError> {
    let found = papers::read(store, parse(id)?.as_str()).await.map_err(store_error)?;
    found.ok_or_else(|| store_error(StoreError::NotFound("approval")))
}

/// Page by page, by identifier, which begins with its time.
async fn every(store: &dyn Store, ended_too: bool) -> Result<Vec<Approval>, StoreError> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = store.papers_after(PaperKind::Approval, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after.clone_from(&last.id);
        for paper in page.iter().filter(|p| ended_too || p.open) {
            all.push(Approval::of_paper(paper)?);
        }
    }
}

fn line(a: &Approval) -> String {
    let waits = a.waits_for().map(|p| p.role.as_str()).collect::<Vec<_>>().join(", ");
    let payer = if a.payer.is_some() { "" } else { "the payer, " };
    let waits = if a.open() && !(waits.is_empty() && payer.is_empty()) {
        format!(", waits for {}", format!("{payer}{waits}").trim_end_matches(", "))
    } else {
        String::new()
    };
    format!("{}  {}  {} to {}  {}{waits}", a.id, a.customer, a.amount, a.payee, a.state.name())
}

fn whole(a: &Approval) -> String {
    let mut lines = vec![line(a), format!("  request {}, until {}", a.request, a.expires_at)];
    lines.push(
        a.payer.as_ref().map_or("  the payer: nothing yet".to_owned(), |p| format!("  the payer: yes, {}, {}", p.at, p.occasion)),
    );
    for party in &a.parties {
        let said = party.said.as_ref().map_or("nothing yet".to_owned(), said);
        lines.push(format!("  {} {}: {said}", party.role.as_str(), party.who));
    }
    lines.join("\n")
}

fn said(said: &Said) -> String {
    let how = match &said.how {
        How::Voice { call, .. } => format!("in {call}"),
        How::Link => "by link".to_owned(),
        How::Api { key } => format!("by the API, {key}"),
        How::Override { by, with, why } => {
            let with = with.as_ref().map(|w| format!(" with {w}")).unwrap_or_default();
            format!("by {by}{with} in their place: {why}")
        }
    };
    format!("{}, {}, {how}", if said.yes { "yes" } else { "no" }, said.at)
}

fn told(ctx: &Context, decided: &Decided) {
    let id = &decided.approval.id;
    let (charged, refused_by, text) = match &decided.charged {
        Some(Agreed::Charged(intent)) => (Some(intent), None, format!("{id}: everybody agreed, {intent} is on its way")),
        Some(Agreed::Refused(why)) => {
            let why = in_words(why);
            let text = format!("{id}: everybody agreed, but it is not charged: {why}");
            (None, Some(why), text)
        }
        Some(Agreed::Waiting { .. }) | None => (None, None, line(&decided.approval)),
    };
    ctx.answer(&json!({ "approval": decided.approval, "charged": charged, "refused": refused_by }), &text);
}

fn in_words(why: &Refusal) -> String {
    match why {
        Refusal::Denied(rule) => format!("the rule `{rule}` denies it"),
        Refusal::NotMet(condition) => format!("rules ask for {} now", condition.as_str()),
        Refusal::Nobody(condition) => format!("rules ask for {} now, and there is nobody", condition.as_str()),
        Refusal::Submit(why) => why.to_string(),
    }
}

/// Rules refuse; the database has its own code.
pub(super) fn agree_error(error: AgreeError) -> CliError {
    match error {
        AgreeError::Store(e) => store_error(e),
        AgreeError::NoSuch(_) | AgreeError::Approval(_) => refused(error),
    }
}
