//! `voicepay webhooks`: where tenants are told, what they were told, and what did not arrive.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::calls::begun_since;
use super::data::{block_on, known_tenant, refused, store_error, vault_error};
use super::exit::{CliError, CliResult};
use super::guardian::open;
use crate::clock::{Clock, SystemClock};
use crate::ids::{EndpointId, OutboxId, Tenant};
use crate::notify::{EndpointChange, EndpointError};
use crate::store::{Delivery, DeliveryState, Endpoint, Replay, Store, StoreError};
use crate::telemetry::{self, LogFormat};

/// Arguments of `voicepay webhooks`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  voicepay webhooks add --url https://shop.example/hooks --topic 'payment.*'\n  voicepay webhooks test whk_0123…\n  voicepay webhooks dead whk_0123…\n  voicepay webhooks replay whk_0123…                  all that are dead\n  voicepay webhooks replay whk_0123… --message out_4567…\n  voicepay webhooks replay whk_0123… --since 24h      all that happened since, arrived or dead\n  voicepay webhooks rotate whk_0123…\n\nMessages are signed as Standard Webhooks says; the secret is shown once."
)]
pub struct WebhooksArgs {
    #[command(subcommand)]
    command: WebhooksCommand,
}

#[derive(Debug, Subcommand)]
enum WebhooksCommand {
    /// Add an endpoint. Prints its identifier and its secret, which is shown only now.
    Add {
        /// Where: https://…
        #[arg(long)]
        url: String,
        /// Of what: a topic, or the beginning of some with `*`. May be given several times.
        #[arg(long = "topic", value_name = "TOPIC", required = true)]
        topics: Vec<String>,
        /// Whose.
        #[arg(long, value_name = "NAME", default_value_t)]
        tenant: Tenant,
    },
    /// List the endpoints.
    List,
    /// Give one another secret; the old one signs beside it for notify.rotation_s.
    Rotate {
        /// Its identifier.
        id: String,
    },
    /// Send nothing for now; what happens meanwhile waits.
    Disable {
        /// Its identifier.
        id: String,
    },
    /// Send again.
    Enable {
        /// Its identifier.
        id: String,
    },
    /// Send a message of the topic `test` now, once.
    Test {
        /// Its identifier.
        id: String,
    },
    /// What it was told, and what it answered, in order.
    Deliveries {
        /// Its identifier.
        id: String,
        /// Go on after this position.
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// What did not arrive and is not tried any more.
    Dead {
        /// Its identifier.
        id: String,
    },
    /// Send again what is dead, or one message, or all that happened since some time.
    Replay {
        /// Its identifier.
        id: String,
        /// This message only, wherever it stands.
        #[arg(long, value_name = "ID", conflicts_with = "since")]
        message: Option<String>,
        /// What happened since then, arrived or dead: an age such as 24h, or a time such as 2026-11-01T00:00:00Z.
        #[arg(long, value_name = "TIME|DURATION")]
        since: Option<String>,
    },
    /// Erase one, with its secrets and the list of what it was told.
    Delete {
        /// Its identifier.
        id: String,
    },
}

/// Runs it.
pub fn run(args: WebhooksArgs, ctx: &Context) -> CliResult {
    telemetry::init(LogFormat::Text, "voicepay=warn");
    block_on(async {
        let office = open(ctx).await?;
        let (notifier, store) = (&office.notifier, &*office.store);
        match args.command {
            WebhooksCommand::Add { url, topics, tenant } => {
                known_tenant(store, &tenant).await?;
                let (endpoint, secret) = notifier.add_endpoint(&tenant, &url, topics, "cli").await.map_err(endpoint_error)?;
                let text = format!("{}\nsecret {}", endpoint.id, secret.0);
                ctx.answer(&json!({ "id": endpoint.id, "secret": secret.0 }), &text);
            }
            WebhooksCommand::List => {
                let all = store.endpoints(None).await.map_err(store_error)?;
                let line = |e: &Endpoint| {
                    let off = if e.disabled { "  disabled" } else { "" };
                    format!("{}  {}  {}  {}{off}", e.id, e.tenant, e.url, e.topics.join(","))
                };
                let text = all.iter().map(line).collect::<Vec<_>>().join("\n");
                let text = if text.is_empty() { "no endpoints yet: `voicepay webhooks add`".to_owned() } else { text };
                ctx.answer(&json!({ "endpoints": all.iter().map(as_json).collect::<Vec<_>>() }), &text);
            }
            WebhooksCommand::Rotate { id } => {
                let secret = notifier.rotate_endpoint(&parse(&id)?, "cli").await.map_err(endpoint_error)?;
                ctx.answer(&json!({ "secret": secret.0 }), &format!("secret {}", secret.0));
            }
            WebhooksCommand::Disable { id } => {
                notifier.change_endpoint(&parse(&id)?, turned(true), "cli").await.map_err(endpoint_error)?;
                ctx.answer(&json!({ "id": id, "disabled": true }), &format!("{id} is disabled"));
            }
            WebhooksCommand::Enable { id } => {
                notifier.change_endpoint(&parse(&id)?, turned(false), "cli").await.map_err(endpoint_error)?;
                ctx.answer(&json!({ "id": id, "disabled": false }), &format!("{id} is enabled"));
            }
            WebhooksCommand::Test { id } => match notifier.try_endpoint(&parse(&id)?).await.map_err(store_error)? {
                Ok(status) if (200..300).contains(&status) => {
                    ctx.answer(&json!({ "status": status }), &format!("it answered {status}"));
                }
                Ok(status) => return Err(refused(format!("it answered {status}; only 2xx is an arrival"))),
                Err(why) => return Err(refused(format!("it gave no answer: {why}"))),
            },
            WebhooksCommand::Deliveries { id, after, limit } => {
                let all = store.deliveries(&known(store, &id).await?, None, after, limit).await.map_err(store_error)?;
                tell(ctx, &all, "nothing was to be told yet");
            }
            WebhooksCommand::Dead { id } => {
                let all = store
                    .deliveries(&known(store, &id).await?, Some(DeliveryState::Dead), 0, 1_000)
                    .await
                    .map_err(store_error)?;
                tell(ctx, &all, "nothing is dead");
            }
            WebhooksCommand::Replay { id, message, since } => {
                let one = message.as_deref().map(OutboxId::parse).transpose().map_err(refused)?;
                let since = since.as_deref().map(|text| begun_since(text, SystemClock.now())).transpose()?;
                let which = match (&one, since) {
                    (Some(one), _) => Replay::One(one),
                    (None, Some(at)) => Replay::Since(at),
                    (None, None) => Replay::Dead,
                };
                let again = notifier.replay(&known(store, &id).await?, which, "cli").await.map_err(store_error)?;
                ctx.answer(&json!({ "replayed": again }), &format!("{again} will be sent again"));
            }
            WebhooksCommand::Delete { id } => {
                notifier.delete_endpoint(&parse(&id)?, "cli").await.map_err(store_error)?;
                ctx.answer(&json!({ "deleted": id }), &format!("{id} is deleted"));
            }
        }
        Ok(())
    })
}

fn turned(off: bool) -> EndpointChange {
    EndpointChange { disabled: Some(off), ..EndpointChange::default() }
}

fn parse(id: &str) -> Result<EndpointId, CliError> {
    EndpointId::parse(id).map_err(refused)
}

/// One that is there: of another it would be said that all of nothing was done.
async fn known(store: &dyn Store, id: &str) -> Result<EndpointId, CliError> {
    let id = parse(id)?;
    let found = store.endpoint(&id).await.map_err(store_error)?;
    found.map(|_| id).ok_or_else(|| store_error(StoreError::NotFound("endpoint")))
}

fn as_json(e: &Endpoint) -> Value {
    json!({ "id": e.id, "tenant": e.tenant, "url": e.url, "topics": e.topics, "disabled": e.disabled })
}

fn tell(ctx: &Context, all: &[Delivery], none: &str) {
    let line = |d: &Delivery| {
        let answer = d.answer.as_deref().unwrap_or("not tried yet");
        format!("{:>8}  {}  {:<9}  {} tries  {}  {}", d.position, d.news.id, d.state.as_str(), d.tries, d.news.topic, answer)
    };
    let text = all.iter().map(line).collect::<Vec<_>>().join("\n");
    let rows = all.iter().map(|d| {
        json!({ "position": d.position, "message": d.news.id, "topic": d.news.topic, "subject": d.subject, "state": d.state,
            "tries": d.tries, "answer": d.answer })
    });
    ctx.answer(&json!({ "deliveries": rows.collect::<Vec<_>>() }), if text.is_empty() { none } else { &text });
}

fn endpoint_error(error: EndpointError) -> CliError {
    match error {
        EndpointError::Store(e) => store_error(e),
        EndpointError::Vault(e) => vault_error(e),
        EndpointError::NoSuch => store_error(StoreError::NotFound("endpoint")),
        EndpointError::Url(_) | EndpointError::Topics(_) | EndpointError::TooMany => refused(error),
    }
}
