//! Places the calls that we owe: claims what is due, sees that a person picks up, lets the dialogue talk, and writes down what became of it.
//! Several nodes do so side by side; a lease keeps one call from being placed twice.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::outbound::{NotAnswered, PersonLine, Reached, who_answered};
use super::records::Records;
use super::switchboard::OwnTelephone;
use crate::call::callbacks::{Callable, TellPayer};
use crate::call::registry::LiveCall;
use crate::call::{CallRecord, Services};
use crate::clock::{Entropy, Timestamp};
use crate::dialogue::{CallVerdict, Errand, Matter, Purpose};
use crate::ids::{CallId, OutboxId, WorkerId};
use crate::media::leg::LegInfo;
use crate::sip::Unanswered;
use crate::sip::headers::Headers;
use crate::sip::trunk::outbound::TrunkCall;
use crate::speech::pickup::Answerer;
use crate::store::{AuditRecord, Callback, CallbackPurpose, NextTry, OutboxRecord, Tried};
use crate::telemetry::metrics::metrics;

/// Where no place for a call was free, or the service is about to stop: the call is due again so much later, in milliseconds.
const NO_PLACE_WAIT_MS: u64 = 5_000;

/// What the worker has.
#[derive(Clone)]
pub(super) struct CallBacks {
    pub(super) services: watch::Receiver<Arc<Services>>,
    pub(super) telephone: Arc<OwnTelephone>,
    pub(super) book: Arc<Records>,
    pub(super) records: broadcast::Sender<CallRecord>,
    /// No new calls, and those that ring are given up; those that were answered go on.
    pub(super) draining: CancellationToken,
    pub(super) owner: WorkerId,
}

/// What a try came to.
enum Try {
    /// This, by this call if a person picked up.
    Came(Outcome, Option<CallId>),
    /// It was none: due again soon, and not counted.
    None,
}

/// What follows of it.
enum Outcome {
    /// Nothing is left to call for.
    Over(String),
    /// Another time, if there is one.
    Again(String),
    /// No more calls.
    Enough(String),
}

impl CallBacks {
    /// Until the service drains; ends once the calls that it placed have ended.
    pub(super) async fn run(self) {
        let mut calls = JoinSet::new();
        while !self.draining.is_cancelled() {
            let services = Arc::clone(&self.services.borrow());
            let config = services.callbacks.clone();
            let room = config.at_once_calls.saturating_sub(calls.len());
            if room > 0 && !config.trunk.is_empty() {
                for callback in self.claim(&services, room).await {
                    let this = self.clone();
                    calls.spawn(async move { this.carry_out(callback).await });
                }
            }
            tokio::select! {
                () = self.draining.cancelled() => {}
                Some(ended) = calls.join_next(), if !calls.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the task of a call that we owe failed; it is due again when its lease ends");
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(config.poll_ms.into())) => {}
            }
        }
        while calls.join_next().await.is_some() {}
    }

    async fn claim(&self, services: &Services, room: usize) -> Vec<Callback> {
        let now = services.clock.now();
        let lease = services.callbacks.lease(services.speech.pickup.deadline_ms, &services.dialogue);
        let limit = u32::try_from(room).unwrap_or(u32::MAX);
        let claimed = services.desk.store.claim_callbacks(&self.owner, now, now.plus(lease), limit).await;
        claimed.unwrap_or_else(|error| {
            tracing::error!(%error, "calls that are due could not be claimed");
            Vec::new()
        })
    }

    /// One try, from its lease to what is written down of it.
    async fn carry_out(&self, callback: Callback) {
        let services = Arc::clone(&self.services.borrow());
        let tried = self.try_to_call(&services, &callback).await;
        let now = services.clock.now();
        let written = match tried {
            Try::None => {
                let due_at = now.plus(Duration::from_millis(NO_PLACE_WAIT_MS));
                services.desk.store.put_back_callback(&callback.id, &self.owner, due_at).await
            }
            Try::Came(outcome, call) => {
                let (outcome, next) = match outcome {
                    Outcome::Over(word) => (word, NextTry::Over),
                    Outcome::Enough(word) => (word, NextTry::GivenUp),
                    Outcome::Again(word) => {
                        let next = services.callbacks.next_try(callback.tries, now, callback.expires_at);
                        (word, next.map_or(NextTry::GivenUp, NextTry::At))
                    }
                };
                metrics().callbacks.inc([&outcome]);
                let tried = Tried { outcome, call, next };
                let (audit, news) = told(services.entropy.as_ref(), &callback, &tried, now);
                services.desk.store.callback_tried(&callback.id, &self.owner, &tried, &audit, news.as_ref()).await
            }
        };
        if let Err(error) = written {
            tracing::error!(callback = %callback.id, %error, "what became of a call that we owe could not be written down");
        }
    }

    async fn try_to_call(&self, services: &Arc<Services>, callback: &Callback) -> Try {
        let now = services.clock.now();
        let came = |outcome| Try::Came(outcome, None);
        // A node that died of it may have used up the last one.
        if now >= callback.expires_at || callback.tries > services.callbacks.limit_tries {
            return came(Outcome::Enough("expired".to_owned()));
        }
        let purpose = match callback.purpose {
            CallbackPurpose::Decide => Purpose::Decide(callback.approval.clone()),
            CallbackPurpose::Tell => Purpose::Tell(callback.approval.clone()),
        };
        if callback.purpose == CallbackPurpose::Tell && services.callbacks.tell_payer == TellPayer::Notify {
            return came(Outcome::Over("notified".to_owned()));
        }
        match services.approvals.matter(&callback.customer, &purpose, now).await {
            Matter::Settled => return came(Outcome::Over("settled".to_owned())),
            Matter::Trouble => return Try::None,
            // What it is about is for the person's ear, and is read again once we know that it is theirs.
            Matter::Question { .. } | Matter::Result { .. } => {}
        }
        let limit = services.dialogue.failures_24h_limit_tries;
        let errand = match services.desk.callable(&callback.customer, purpose, limit, now).await {
            Ok(Callable::Now(errand)) => errand,
            Ok(Callable::Later(why)) => return came(Outcome::Again(why.to_owned())),
            Ok(Callable::Never(why)) => return came(Outcome::Enough(why.to_owned())),
            Err(error) => {
                tracing::error!(callback = %callback.id, %error, "it could not be looked up whom to call");
                return Try::None;
            }
        };
        self.call(services, errand).await
    }

    /// Calls, and talks if a person picks up. The place of the call is taken before it rings, as those that come in take theirs.
    async fn call(&self, services: &Arc<Services>, errand: Errand) -> Try {
        let config = &services.callbacks;
        let live = LiveCall { since: services.clock.now(), peer: config.trunk.clone(), customer: None };
        let id = CallId::fresh_at(live.since, services.entropy.as_ref());
        let Some(_place) = services.registry.enter(id.clone(), live) else { return Try::None };
        let wanted = TrunkCall {
            trunk: config.trunk.clone(),
            number: errand.number.as_str().to_owned(),
            from: config.from.clone(),
            asserted_identity: None,
            withheld: false,
            ring_timeout: Duration::from_secs(config.ring_s.into()),
            // A network that explains itself in tones is understood before its time-out.
            early_media: true,
            headers: Headers::new(),
        };
        let begun = services.clock.now();
        let reached = tokio::select! {
            reached = self.reach(services, wanted.clone()) => reached,
            // Dropping the future cancels the call.
            () = self.draining.cancelled() => return Try::None,
        };
        match reached {
            (Reached::Person(line), _info) => self.talk(services, line, id, errand).await,
            (Reached::Other(line), info) => {
                let word = by(line.pickup.by);
                // A message to a machine would tell whoever plays it that we called; hanging up tells less.
                drop(line);
                self.book.not_a_person(&wanted, info.as_ref(), word, begun, services.clock.now());
                Try::Came(Outcome::Again(word.to_owned()), None)
            }
            (Reached::HungUp, info) => {
                self.book.not_a_person(&wanted, info.as_ref(), "hung_up", begun, services.clock.now());
                Try::Came(Outcome::Again("hung_up".to_owned()), None)
            }
            (Reached::Unanswered(why), _info) => {
                tracing::info!(why = ?why.why, said = %why.said, "a call that we owe was not answered");
                self.book.unanswered(&wanted, &why, begun, services.clock.now());
                Try::Came(unanswered(&why), None)
            }
        }
    }

    async fn reach(&self, services: &Services, wanted: TrunkCall) -> (Reached, Option<LegInfo>) {
        match self.telephone.trunks.call(&self.telephone.dialler, wanted).await {
            Ok(placed) => {
                let info = placed.leg.info.clone();
                let reached = who_answered(placed, services.speech.pickup, services.activity.clone()).await;
                (reached, Some(info))
            }
            Err(error) => (Reached::Unanswered(NotAnswered::from(&error)), None),
        }
    }

    async fn talk(&self, services: &Arc<Services>, mut line: PersonLine, id: CallId, errand: Errand) -> Try {
        let (info, report) = line.take_report();
        metrics().calls_started.inc([&info.trunk]);
        let record = line.talk(id.clone(), errand, Arc::clone(services)).await;
        let outcome = after(record.verdict);
        self.book.keep(&info, record, report, &self.records).await;
        Try::Came(outcome, Some(id))
    }
}

/// What a conversation leaves to be done.
fn after(verdict: CallVerdict) -> Outcome {
    let word = format!("{verdict:?}").to_lowercase();
    match verdict {
        CallVerdict::Agreed | CallVerdict::Disagreed | CallVerdict::Settled | CallVerdict::Told => Outcome::Over(word),
        // They don't want to be asked by telephone.
        CallVerdict::Cancelled | CallVerdict::Person => Outcome::Enough(word),
        // Somebody else picked up, nobody spoke, or something on our side failed. Whether an answer was noted that this call did not
        // hear of is looked up before the next.
        CallVerdict::Refused
        | CallVerdict::LockedOut
        | CallVerdict::Abandoned
        | CallVerdict::Machine
        | CallVerdict::Busy
        | CallVerdict::ServiceTrouble
        | CallVerdict::OutcomeUnknown => Outcome::Again(word),
        // Of calls that come in.
        CallVerdict::Paid
        | CallVerdict::Enrolled
        | CallVerdict::Waiting
        | CallVerdict::Withdrawn
        | CallVerdict::UnknownCaller
        | CallVerdict::NothingToPay
        | CallVerdict::NoCard
        | CallVerdict::NotEnrolled
        | CallVerdict::EnrolFailed
        | CallVerdict::Declined => Outcome::Enough(word),
    }
}

/// Who answered, in a word.
fn by(answerer: Answerer) -> &'static str {
    match answerer {
        Answerer::Person => "person",
        Answerer::Machine => "machine",
        Answerer::Network => "network",
        Answerer::Silent => "silent",
        Answerer::Unknown => "unknown",
    }
}

fn unanswered(why: &NotAnswered) -> Outcome {
    let word = why.word().to_owned();
    match why.why {
        Unanswered::NoSuchNumber => Outcome::Enough(word),
        Unanswered::Busy | Unanswered::Declined | Unanswered::NoAnswer | Unanswered::Failed => Outcome::Again(word),
    }
}

/// The audit row of a try; and where no further one comes and nobody was reached, news of it: they have to be reached by other means.
pub(super) fn told(
    entropy: &dyn Entropy,
    callback: &Callback,
    tried: &Tried,
    now: Timestamp,
) -> (AuditRecord, Option<OutboxRecord>) {
    let detail = json!({
        "approval": callback.approval,
        "customer": callback.customer,
        "purpose": callback.purpose,
        "try": callback.tries,
        "outcome": tried.outcome,
        "call": tried.call,
    });
    let audit = AuditRecord::fresh(now, entropy, "callbacks", "callback.tried", callback.id.as_str(), detail.clone());
    let news = match tried.next {
        NextTry::GivenUp => Some(OutboxRecord {
            id: OutboxId::fresh_at(now, entropy),
            at: now,
            topic: "callback.given_up".to_owned(),
            payload: detail,
        }),
        NextTry::At(_) | NextTry::Over => None,
    };
    (audit, news)
}
