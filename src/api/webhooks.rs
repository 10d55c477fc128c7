//! Where a tenant is told of what happens: its endpoints, what they were told, what did not arrive.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::ask::{Answer, Ask, created, ok, page};
use super::people::Gone;
use super::problem::Problem;
use super::route::{AFTER, LIMIT, Param, Route, run};
use super::scope::Scope;
use super::shape::{Defs, Page, Shape, read_as_object, reference, shape};
use super::types::{Nothing, When, Word, words};
use crate::clock::Timestamp;
use crate::ids::{EndpointId, OutboxId};
use crate::notify::{Drawn, EndpointChange, EndpointError, check_topics};
use crate::store::{Delivery, DeliveryState, Endpoint, Replay, StoreError};

/// What an endpoint hears of.
pub struct Topics(Vec<String>);

impl<'de> Deserialize<'de> for Topics {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let topics = Vec::<String>::deserialize(d)?;
        check_topics(&topics).map_err(serde::de::Error::custom)?;
        Ok(Self(topics))
    }
}

impl Shape for Topics {
    fn schema(_: &mut Defs) -> Value {
        let topic = json!({ "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-z_.]*\\*?$" });
        json!({ "type": "array", "minItems": 1, "maxItems": 64, "items": topic })
    }
}

/// A URL, which may hold a secret of the receiver's.
pub struct HookUrl(String);

impl<'de> Deserialize<'de> for HookUrl {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(Self)
    }
}

impl Shape for HookUrl {
    fn schema(_: &mut Defs) -> Value {
        // Which hosts are ours or not public is beyond a pattern.
        json!({ "type": "string", "maxLength": 2_048, "pattern": "^https?://[!-~]+$" })
    }
}

/// A time as it is asked.
#[derive(Clone, Copy)]
pub struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let at =
            Timestamp::parse(&String::deserialize(d)?).ok_or_else(|| serde::de::Error::custom("a time is as RFC 3339 has it"))?;
        Ok(Self(at))
    }
}

impl Shape for Moment {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "format": "date-time" })
    }
}

shape! {
    /// A new endpoint.
    input NewWebhook {
        /// Where: https, by a certificate of a known authority, in a public network.
        url: HookUrl,
        /// Of what: topics, or beginnings of topics with `*`.
        topics: Topics,
    }
}

shape! {
    /// What is to be different. What is not named stays.
    input WebhookChange {
        /// Where it is told.
        url: Option<HookUrl>,
        /// Of what.
        topics: Option<Topics>,
        /// Whether nothing is sent for now; what happens meanwhile waits.
        disabled: Option<bool>,
    }
}

shape! {
    /// An endpoint.
    output WebhookView {
        /// Which one.
        id: EndpointId,
        /// Where it is told.
        url: String,
        /// Of what.
        topics: Vec<String>,
        /// Whether nothing is sent for now.
        disabled: bool,
        /// Secrets that messages are signed with now: more than one for a while after each rotation.
        secrets: u32,
        /// When it was made.
        created_at: When,
    }
}

shape! {
    /// An endpoint with its secret, which is shown only here.
    output WebhookMade {
        /// Which one.
        id: EndpointId,
        /// What its messages are signed with, as Standard Webhooks has it: `whsec_` and base64.
        secret: String,
    }
}

words! {
    /// What is sent again.
    Again {
        /// All that is dead.
        Dead = "dead",
    }
}

/// What is sent again: one of the three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct NewReplay {
    message: Option<OutboxId>,
    since: Option<Moment>,
    all: Option<Again>,
}

read_as_object!(NewReplay);

impl Shape for NewReplay {
    fn schema(defs: &mut Defs) -> Value {
        let about = |mut schema: Value, about: &str| {
            if let Value::Object(map) = &mut schema {
                map.insert("description".into(), about.into());
            }
            schema
        };
        let whole = json!({
            "type": "object",
            "description": "What is sent again: one of the three.",
            "properties": {
                "message": about(OutboxId::schema(defs), "One message, wherever it stands."),
                "since": about(Moment::schema(defs), "All that happened since then, arrived or dead."),
                "all": about(Again::schema(defs), "`dead`: all dead letters."),
            },
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
        });
        defs.insert("NewReplay".into(), whole);
        reference("NewReplay")
    }
}

shape! {
    /// What will be sent again.
    output Replayed {
        /// How many messages.
        replayed: u64,
    }
}

shape! {
    /// What a trial came to.
    output Trial {
        /// Whether it arrived.
        arrived: bool,
        /// The endpoint's status, if it answered.
        status: Option<u32>,
        /// Why not, if it did not answer.
        why: Option<String>,
    }
}

shape! {
    /// One message to one endpoint.
    output DeliveryView {
        /// The message: its `webhook-id`.
        message: OutboxId,
        /// What happened.
        topic: String,
        /// What keeps its order: a later message about the same waits for an earlier one.
        subject: String,
        /// `waiting`, `delivered` or `dead`.
        state: Word,
        /// How often it was tried.
        tries: u32,
        /// What the last try came to: a status, or what went wrong.
        answer: Option<String>,
        /// When it happened.
        at: When,
        /// When it is tried next, if it waits and nothing about the same waits before it.
        next_at: Option<When>,
    }
}

const STATE: Param = Param {
    name: "state",
    about: "Those alone that stand so.",
    required: false,
    schema: || json!({ "type": "string", "enum": ["waiting", "delivered", "dead"] }),
};

pub(super) fn routes() -> Vec<Route> {
    use Scope::{WebhooksRead, WebhooksWrite};
    vec![
        Route::get::<Page<WebhookView>>("/webhooks", "listWebhooks", WebhooksRead, run!(list), "Endpoints; there are few."),
        Route::post::<NewWebhook, WebhookMade>(
            "/webhooks",
            "addWebhook",
            WebhooksWrite,
            run!(add),
            "Adds an endpoint. Its secret is shown only in this answer.",
        ),
        Route::get::<WebhookView>("/webhooks/{id}", "getWebhook", WebhooksRead, run!(one), "One endpoint."),
        Route::post::<WebhookChange, WebhookView>(
            "/webhooks/{id}",
            "changeWebhook",
            WebhooksWrite,
            run!(change),
            "Changes where, of what, or whether an endpoint is told.",
        )
        .giving(200),
        Route::delete::<Gone>(
            "/webhooks/{id}",
            "deleteWebhook",
            WebhooksWrite,
            run!(delete),
            "Erases an endpoint; what was to be told there is not told any more.",
        ),
        Route::post::<Nothing, WebhookMade>(
            "/webhooks/{id}/secret",
            "rotateWebhook",
            WebhooksWrite,
            run!(rotate),
            "Gives an endpoint another secret; the one before signs beside it for a while.",
        )
        .giving(200),
        Route::post::<Nothing, Trial>(
            "/webhooks/{id}/trials",
            "tryWebhook",
            WebhooksWrite,
            run!(try_out),
            "Sends a message of the topic `test` now, once.",
        )
        .giving(200),
        Route::get::<Page<DeliveryView>>(
            "/webhooks/{id}/deliveries",
            "listDeliveries",
            WebhooksRead,
            run!(deliveries),
            "What an endpoint was told, in order; `state=dead` for what was given up.",
        )
        .with(&[LIMIT, AFTER, STATE]),
        Route::post::<NewReplay, Replayed>(
            "/webhooks/{id}/replays",
            "replayWebhook",
            WebhooksWrite,
            run!(replay),
            "Has messages sent again, under the same identifiers and in order.",
        )
        .giving(202),
    ]
}

impl From<EndpointError> for Problem {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::NoSuch => Self::not_found("webhook"),
            e @ (EndpointError::Url(_) | EndpointError::Topics(_)) => Self::invalid(e.to_string()),
            e @ EndpointError::TooMany => Self::conflict(e.to_string()),
            EndpointError::Vault(e) => Self::internal(&e),
            EndpointError::Store(e) => e.into(),
        }
    }
}

fn view(e: Endpoint, now: Timestamp) -> WebhookView {
    let signing = e.secrets.iter().filter(|s| s.until.is_none_or(|until| now < until)).count();
    WebhookView {
        id: e.id,
        url: e.url,
        topics: e.topics,
        disabled: e.disabled,
        secrets: u32::try_from(signing).unwrap_or(u32::MAX),
        created_at: e.created_at.into(),
    }
}

/// The endpoint of the path, if it is the caller's.
async fn of_path(ask: &Ask) -> Result<Endpoint, Problem> {
    let found = ask.shared.store.endpoint(&ask.id(0, "webhook")?).await?;
    found.filter(|e| e.tenant == ask.caller.tenant).ok_or_else(|| Problem::not_found("webhook"))
}

fn drawn(ask: &Ask) -> Drawn<'_> {
    Drawn { at: ask.now, entropy: &ask.entropy }
}

async fn list(ask: &Ask) -> Result<Answer, Problem> {
    let all = ask.shared.store.endpoints(Some(&ask.caller.tenant)).await?;
    page(all.into_iter().map(|e| view(e, ask.shared.clock.now())).collect(), None)
}

async fn add(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewWebhook = ask.input()?;
    let (url, topics) = (new.url.0, new.topics.0);
    let made = ask.shared.notifier.add_endpoint_as(drawn(ask), &ask.caller.tenant, &url, topics, &ask.actor()).await;
    let (endpoint, secret) = made?;
    created(&WebhookMade { id: endpoint.id, secret: secret.0 })
}

async fn one(ask: &Ask) -> Result<Answer, Problem> {
    ok(&view(of_path(ask).await?, ask.shared.clock.now()))
}

async fn change(ask: &Ask) -> Result<Answer, Problem> {
    let new: WebhookChange = ask.input()?;
    let found = of_path(ask).await?;
    let change = EndpointChange { url: new.url.map(|u| u.0), topics: new.topics.map(|t| t.0), disabled: new.disabled };
    let changed = ask.shared.notifier.change_endpoint(&found.id, change, &ask.actor()).await?;
    ok(&view(changed, ask.shared.clock.now()))
}

async fn delete(ask: &Ask) -> Result<Answer, Problem> {
    let found = of_path(ask).await?;
    match ask.shared.notifier.delete_endpoint(&found.id, &ask.actor()).await {
        Ok(()) | Err(StoreError::NotFound(_)) => ok(&Gone { deleted: found.id.to_string() }),
        Err(error) => Err(error.into()),
    }
}

async fn rotate(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let found = of_path(ask).await?;
    let secret = ask.shared.notifier.rotate_endpoint_as(drawn(ask), &found.id, &ask.actor()).await?;
    ok(&WebhookMade { id: found.id, secret: secret.0 })
}

async fn try_out(ask: &Ask) -> Result<Answer, Problem> {
    let _nothing: Nothing = ask.input()?;
    let found = of_path(ask).await?;
    ok(&match ask.shared.notifier.try_endpoint(&found.id).await? {
        Ok(status) => Trial { arrived: (200..300).contains(&status), status: Some(status.into()), why: None },
        Err(why) => Trial { arrived: false, status: None, why: Some(why) },
    })
}

fn told(d: Delivery) -> DeliveryView {
    let waits = d.state == DeliveryState::Waiting;
    DeliveryView {
        message: d.news.id,
        topic: d.news.topic,
        subject: d.subject,
        state: Word(d.state.as_str()),
        tries: d.tries,
        answer: d.answer,
        at: d.news.at.into(),
        next_at: waits.then(|| d.next_at.into()),
    }
}

async fn deliveries(ask: &Ask) -> Result<Answer, Problem> {
    let endpoint = of_path(ask).await?.id;
    let state = match ask.param("state").map(DeliveryState::parse) {
        None => None,
        Some(Some(state)) => Some(state),
        Some(None) => return Err(Problem::invalid("`state` must be waiting, delivered or dead")),
    };
    // A cursor is good for this endpoint alone.
    let name = format!("deliveries of {endpoint}");
    let after = ask.after(&name)?.map_or(Ok(0), |at| at.parse::<i64>().map_err(|e| Problem::internal(&e)))?;
    let limit = ask.limit()?;
    let found = ask.shared.store.deliveries(&endpoint, state, after, limit.into()).await?;
    let full = found.len() >= usize::from(limit);
    let next = found.last().filter(|_| full).map(|d| ask.cursor(&name, &d.position.to_string()));
    page(found.into_iter().map(told).collect(), next)
}

async fn replay(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewReplay = ask.input()?;
    let which = match (&new.message, new.since, new.all) {
        (Some(message), None, None) => Replay::One(message),
        (None, Some(Moment(at)), None) => Replay::Since(at),
        (None, None, Some(Again::Dead)) => Replay::Dead,
        _ => return Err(Problem::invalid("name one: `message`, `since`, or `all`")),
    };
    let found = of_path(ask).await?;
    let replayed = ask.shared.notifier.replay(&found.id, which, &ask.actor()).await?;
    if replayed == 0 && new.message.is_some() {
        return Err(Problem::not_found("message of this webhook"));
    }
    super::ask::accepted(&Replayed { replayed })
}
