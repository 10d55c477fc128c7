//! The Stripe wire: PaymentIntents for orders taken by telephone (MOTO), captures, cancellations and refunds, over the API that
//! https://docs.stripe.com/api describes. docs/STRIPE.md says what is sent, what each answer means, and what was not tested.
//!
//! Exactly once rests on three things. Every request that changes something carries the attempt's idempotency key, so that Stripe
//! does it once within the 24 hours for which it keeps keys. Our reference stands in the metadata of what is made, so that it can
//! be found later. And an answer is a success only if it says so; whatever else comes, or does not come, is asked about again.

mod config;
mod declines;
mod event;
mod form;
mod http;
mod signature;
pub mod webhook;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

pub use config::{KEY_ENV, StripeConfig, StripeError, WEBHOOK_SECRETS_ENV};
use form::Form;
use http::{Answer, Http};
use wire::{ABANDONED, CAPTURE_REFERENCE, Failure, Intent, Named, OUR_REFERENCE, Page, Refund, Refusal, Verdict};

use super::http::NoAnswer;
use super::{CardData, Gateway, GatewayKind, GatewayRequest};
use crate::clock::Clock;
use crate::payment::{BankWord, DeclineReason, Operation};

/// A request is sent again with its key this long after it was written down, in milliseconds. Stripe keeps keys for at least 24
/// hours from the first time it sees them; the hour between is for clocks that differ.
const REPLAY_WINDOW_MS: u64 = 23 * 3_600_000;
/// Stripe's search finds what is older than this, in milliseconds (it says "in under a minute"); before, not finding proves
/// nothing.
const SEARCH_LAG_MS: u64 = 120_000;
/// Refunds of one charge that are looked through: Stripe gives no more on a page.
const REFUNDS_PAGE: &str = "100";
/// Room that a payee's name has on the statement: 22 characters less a prefix of up to 10 and what parts them
/// (https://docs.stripe.com/get-started/account/statement-descriptors).
const STATEMENT_SUFFIX_CHARS: usize = 10;

/// An account at Stripe.
pub struct StripeGateway {
    http: Http,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for StripeGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripeGateway").field("http", &self.http).finish_non_exhaustive()
    }
}

/// Why there is nothing to read in an answer.
enum Trouble {
    /// No answer: nobody knows what happened.
    NoAnswer,
    /// An answer that is no success.
    Refused(Refusal),
}

type Heard<T> = Result<T, Trouble>;

impl StripeGateway {
    /// Reads key and authorities; connects to nobody yet. The environment is an argument: names and values as in `std::env::var`.
    pub fn open(cfg: &StripeConfig, env: impl Fn(&str) -> Option<String>, clock: Arc<dyn Clock>) -> Result<Self, StripeError> {
        Ok(Self { http: Http::open(cfg, &cfg.api_key(env)?)?, clock })
    }

    /// Whether Stripe answers and takes our key: asks for the account's balance and reads nothing of it. For a person who sets it
    /// up.
    pub async fn check(&self) -> Result<(), String> {
        let answer = self.http.get("/v1/balance", &Form::new()).await.map_err(|e| e.to_string())?;
        match answer.status.as_u16() {
            200..=299 => Ok(()),
            401 | 403 => {
                Err(format!("Stripe does not take the key ({}): check {KEY_ENV} or gateway.stripe.key_file", answer.status))
            }
            _ => Err(format!("Stripe answered {}", answer.status)),
        }
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, form: Form, key: &str) -> Heard<T> {
        read(path, self.http.post(path, form, key).await)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &Form) -> Heard<T> {
        read(path, self.http.get(path, query).await)
    }

    async fn intent(&self, id: &str) -> Heard<Intent> {
        // A path is made of it.
        if !is_id(id) {
            tracing::error!("a reference at Stripe is damaged; it can't be asked about");
            return Err(Trouble::NoAnswer);
        }
        self.get(&format!("/v1/payment_intents/{id}"), &Form::new()).await
    }

    /// Charges or authorises. With the same request it does so once within Stripe's time for keys, and gives the first answer
    /// again.
    async fn charge(&self, r: &GatewayRequest, card: &CardData) -> Heard<Intent> {
        let key = r.idempotency_key.0.as_str();
        let Some(expiry) = card.expiry else {
            tracing::error!(reference = %r.our_reference, "Stripe takes no card without its expiry date; nothing was sent");
            return Err(Trouble::Refused(Refusal::Request(DeclineReason::NotSent)));
        };
        let form = Form::new()
            .with(&["type"], "card")
            .with(&["card", "number"], &card.pan.ascii())
            .with(&["card", "exp_month"], &expiry.month().to_string())
            .with(&["card", "exp_year"], &expiry.year().to_string());
        let method: Named = self.post("/v1/payment_methods", form, &format!("{key}-method")).await?;
        let capture = if r.operation == Operation::Authorise { "manual" } else { "automatic" };
        let mut form = Form::new()
            .with(&["amount"], &r.amount.minor.get().to_string())
            .with(&["currency"], &r.amount.currency.code().to_ascii_lowercase())
            .with(&["payment_method"], &method.id)
            .with(&["payment_method_types", ""], "card")
            .with(&["payment_method_options", "card", "moto"], "true")
            .with(&["capture_method"], capture)
            .with(&["confirm"], "true")
            .with(&["metadata", OUR_REFERENCE], &r.our_reference);
        if let Some(suffix) = statement_suffix(&r.statement) {
            form = form.with(&["statement_descriptor_suffix"], &suffix);
        }
        self.post("/v1/payment_intents", form, key).await
    }

    /// What became of the charge that made this intent; one that can't go on is cancelled first, so that what we say of it stays
    /// true.
    async fn settle(&self, r: &GatewayRequest, intent: Intent) -> BankWord {
        if intent.our_reference() != Some(r.our_reference.as_str()) {
            tracing::error!(reference = %r.our_reference, "Stripe answered with another payment intent; it is not believed");
            return BankWord::Silence;
        }
        let reason = match intent.verdict_of_charge(r.operation) {
            Verdict::Word(word) => return word,
            Verdict::DeadEnd(reason) => reason,
        };
        let because = (reason == DeclineReason::NeedsAuthentication).then_some(ABANDONED);
        match self.cancel(r, &intent.id, because).await {
            Ok(intent) if intent.status == "canceled" => BankWord::Declined(reason),
            // Whether it was cancelled, the next question finds out; until then it could still be charged.
            Ok(_) | Err(_) => BankWord::Silence,
        }
    }

    /// Cancelling twice does no harm, and an answer that Stripe keeps under a key would be that of the first time for a day. So
    /// each try has its own.
    async fn cancel(&self, r: &GatewayRequest, id: &str, because: Option<&str>) -> Heard<Intent> {
        if !is_id(id) {
            return Err(Trouble::NoAnswer);
        }
        let key = format!("{}-cancel-{}", r.idempotency_key.0, self.clock.now().0);
        let form = because.map_or_else(Form::new, |because| Form::new().with(&["cancellation_reason"], because));
        self.post(&format!("/v1/payment_intents/{id}/cancel"), form, &key).await
    }

    async fn send_charge(&self, r: &GatewayRequest) -> BankWord {
        let Some(card) = &r.card else { return BankWord::Declined(DeclineReason::NotSent) };
        match self.charge(r, card).await {
            Ok(intent) => self.settle(r, intent).await,
            Err(Trouble::Refused(Refusal::Card(reason) | Refusal::Request(reason))) => BankWord::Declined(reason),
            Err(Trouble::Refused(Refusal::InUse)) => BankWord::StillWorking,
            Err(Trouble::Refused(Refusal::KeyMisused | Refusal::Nothing) | Trouble::NoAnswer) => BankWord::Silence,
        }
    }

    async fn send_capture(&self, r: &GatewayRequest, of: &str) -> Heard<BankWord> {
        let form = Form::new()
            .with(&["amount_to_capture"], &r.amount.minor.get().to_string())
            .with(&["metadata", CAPTURE_REFERENCE], &r.our_reference);
        let intent: Intent = self.post(&format!("/v1/payment_intents/{of}/capture"), form, &r.idempotency_key.0).await?;
        Ok(intent.word_of_capture(&r.our_reference))
    }

    async fn send_void(&self, r: &GatewayRequest, of: &str) -> Heard<BankWord> {
        let form = Form::new().with(&["cancellation_reason"], "requested_by_customer");
        let intent: Intent = self.post(&format!("/v1/payment_intents/{of}/cancel"), form, &r.idempotency_key.0).await?;
        Ok(intent.word_of_void())
    }

    async fn send_refund(&self, r: &GatewayRequest, of: &str) -> Heard<BankWord> {
        let form = Form::new()
            .with(&["payment_intent"], of)
            .with(&["amount"], &r.amount.minor.get().to_string())
            .with(&["metadata", OUR_REFERENCE], &r.our_reference);
        let refund: Refund = self.post("/v1/refunds", form, &r.idempotency_key.0).await?;
        Ok(if refund.our_reference() == Some(r.our_reference.as_str()) { refund.word() } else { BankWord::Silence })
    }

    /// A capture, void or refund. A refusal of the request is held against what Stripe has: a repeated one may be refused because
    /// the first was done.
    async fn send_follow_up(&self, r: &GatewayRequest) -> BankWord {
        let Some(of) = original(r) else { return BankWord::Declined(DeclineReason::NotSent) };
        let heard = match r.operation {
            Operation::Capture => self.send_capture(r, of).await,
            Operation::Void => self.send_void(r, of).await,
            Operation::Refund | Operation::Charge | Operation::Authorise => self.send_refund(r, of).await,
        };
        match heard {
            // Not found in the answer to the request itself would mean that it was not done, which the next question tells
            // better.
            Ok(BankWord::NotFound) => BankWord::Silence,
            Ok(word) => word,
            Err(Trouble::Refused(Refusal::Card(reason) | Refusal::Request(reason))) => match self.look_up(r).await {
                BankWord::NotFound => BankWord::Declined(reason),
                found => found,
            },
            Err(Trouble::Refused(Refusal::InUse)) => BankWord::StillWorking,
            Err(Trouble::Refused(Refusal::KeyMisused | Refusal::Nothing) | Trouble::NoAnswer) => BankWord::Silence,
        }
    }

    /// Asks what became of a request, without sending it again.
    async fn look_up(&self, r: &GatewayRequest) -> BankWord {
        if r.operation.opens() {
            return self.look_up_charge(r).await;
        }
        let Some(of) = original(r) else { return BankWord::Silence };
        match r.operation {
            Operation::Capture => self.intent(of).await.map_or(BankWord::Silence, |i| i.word_of_capture(&r.our_reference)),
            Operation::Void => self.intent(of).await.map_or(BankWord::Silence, |i| i.word_of_void()),
            Operation::Refund | Operation::Charge | Operation::Authorise => self.look_up_refund(r, of).await,
        }
    }

    async fn look_up_charge(&self, r: &GatewayRequest) -> BankWord {
        // The language of https://docs.stripe.com/search; our references are letters, digits and underscores.
        if !is_id(&r.our_reference) {
            return BankWord::Silence;
        }
        let query =
            Form::new().with(&["query"], &format!("metadata['{OUR_REFERENCE}']:'{}'", r.our_reference)).with(&["limit"], "2");
        let Ok(page) = self.get::<Page<Named>>("/v1/payment_intents/search", &query).await else { return BankWord::Silence };
        match page.data.as_slice() {
            [] if self.age(r) < Duration::from_millis(SEARCH_LAG_MS) => BankWord::Silence,
            [] => BankWord::NotFound,
            // Search lags: what it finds is asked for itself.
            [one] => match self.intent(&one.id).await {
                Ok(intent) => self.settle(r, intent).await,
                Err(_) => BankWord::Silence,
            },
            [..] => {
                tracing::error!(reference = %r.our_reference, "several payment intents have our reference: a person must look");
                BankWord::Silence
            }
        }
    }

    async fn look_up_refund(&self, r: &GatewayRequest, of: &str) -> BankWord {
        let query = Form::new().with(&["payment_intent"], of).with(&["limit"], REFUNDS_PAGE);
        let Ok(page) = self.get::<Page<Refund>>("/v1/refunds", &query).await else { return BankWord::Silence };
        match page.data.iter().find(|refund| refund.our_reference() == Some(r.our_reference.as_str())) {
            Some(refund) => refund.word(),
            None if page.has_more => BankWord::Silence,
            None => BankWord::NotFound,
        }
    }

    async fn resolve_charge(&self, r: &GatewayRequest) -> BankWord {
        let in_time = self.age(r) < Duration::from_millis(REPLAY_WINDOW_MS);
        if let (true, Some(card)) = (in_time, &r.card) {
            // The same bytes with the same key: the first answer again, or the first time if it never arrived.
            match self.charge(r, card).await {
                Ok(first) => {
                    return match first.verdict_of_charge(r.operation) {
                        Verdict::Word(BankWord::Approved { .. } | BankWord::Declined(_)) => self.settle(r, first).await,
                        // That was then: what is it now?
                        Verdict::Word(_) | Verdict::DeadEnd(_) => match self.intent(&first.id).await {
                            Ok(now) => self.settle(r, now).await,
                            Err(_) => BankWord::Silence,
                        },
                    };
                }
                Err(Trouble::Refused(Refusal::Card(reason))) => return BankWord::Declined(reason),
                Err(Trouble::Refused(Refusal::InUse)) => return BankWord::StillWorking,
                Err(Trouble::NoAnswer) => return BankWord::Silence,
                // Says nothing about the first time: a kept 500, a key that was used for something else, a limit.
                Err(Trouble::Refused(Refusal::Request(_) | Refusal::KeyMisused | Refusal::Nothing)) => {}
            }
        }
        self.look_up_charge(r).await
    }

    fn age(&self, r: &GatewayRequest) -> Duration {
        self.clock.now().since(r.prepared_at)
    }
}

#[async_trait]
impl Gateway for StripeGateway {
    fn name(&self) -> &'static str {
        GatewayKind::Stripe.name()
    }

    async fn send(&self, request: &GatewayRequest) -> BankWord {
        // Old enough that Stripe may have forgotten its key: sending it again would do it again. So it is looked for first.
        if self.age(request) >= Duration::from_millis(REPLAY_WINDOW_MS) {
            let found = self.look_up(request).await;
            if found != BankWord::NotFound {
                return found;
            }
        }
        match request.operation {
            Operation::Charge | Operation::Authorise => self.send_charge(request).await,
            Operation::Capture | Operation::Void | Operation::Refund => self.send_follow_up(request).await,
        }
    }

    async fn resolve(&self, request: &GatewayRequest) -> BankWord {
        match request.operation {
            Operation::Charge | Operation::Authorise => self.resolve_charge(request).await,
            Operation::Capture | Operation::Void | Operation::Refund => self.look_up(request).await,
        }
    }
}

/// What the original is called at Stripe: a payment intent, for charges, authorisations and captures alike.
fn original(r: &GatewayRequest) -> Option<&str> {
    let reference = r.original.as_ref().map(|o| o.gateway_reference.as_str()).filter(|id| id.starts_with("pi_") && is_id(id));
    if reference.is_none() {
        tracing::error!(reference = %r.our_reference, "what this refers to has no payment intent at Stripe; nothing was sent");
    }
    reference
}

fn is_id(text: &str) -> bool {
    const LONGEST_ID_BYTES: usize = 255;
    (1..=LONGEST_ID_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A payee's name as a statement can show it: Latin letters, without what Stripe does not take, at least one letter in it.
fn statement_suffix(name: &str) -> Option<String> {
    let fits = |c: &char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '\\' | '\'' | '"' | '*');
    let words: Vec<String> =
        name.split_whitespace().map(|w| w.chars().filter(fits).collect()).filter(|w: &String| !w.is_empty()).collect();
    let cut: String = words.join(" ").chars().take(STATEMENT_SUFFIX_CHARS).collect();
    let cut = cut.trim_end().to_owned();
    cut.chars().any(|c| c.is_ascii_alphabetic()).then_some(cut)
}

fn read<T: DeserializeOwned>(path: &str, heard: Result<Answer, NoAnswer>) -> Heard<T> {
    let answer = match heard {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(path, %error, "Stripe gave no answer");
            return Err(Trouble::NoAnswer);
        }
    };
    let (status, request) = (answer.status, answer.request_id);
    if status.is_success() {
        return serde_json::from_slice(&answer.body).map_err(|error| {
            // Where, and not what: serde_json shows the value that it stumbles over.
            let (line, column) = (error.line(), error.column());
            tracing::error!(path, %status, request, line, column, "Stripe's answer can't be read");
            Trouble::NoAnswer
        });
    }
    let failure = Failure::read(&answer.body).unwrap_or_default();
    let refusal = failure.refusal(status);
    match &refusal {
        Refusal::Card(reason) => tracing::info!(path, request, %reason, "Stripe declined"),
        Refusal::InUse => tracing::info!(path, request, "Stripe is still at work on the first send"),
        Refusal::Request(_) => tracing::error!(path, %status, request, error = failure.plain(), "Stripe refused the request"),
        Refusal::KeyMisused => {
            tracing::error!(path, request, "an idempotency key was used for two different requests: this must not happen")
        }
        Refusal::Nothing => tracing::warn!(path, %status, request, error = failure.plain(), "Stripe's answer says nothing"),
    }
    Err(Trouble::Refused(refusal))
}

#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;
