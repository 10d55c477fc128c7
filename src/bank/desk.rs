//! Where both sides of a deduction meet: customers' payments by the gateway, the bank's messages by the listener. Whatever comes
//! is committed first; then what is owed is sent, by a task that looks at each open reference when it is due.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::agenda::{Agenda, Looked};
use super::client::{AT_ONCE, Client};
use super::journal::{self, failed, judge};
use super::listener;
use super::wire::Told;
use crate::clock::{Clock, Entropy};
use crate::crash;
use crate::gateway::bank_feedback::{BankFeedbackConfig, BankFeedbackError, NotTaken, PendingDeductions};
use crate::gateway::{Delivery, Listening, News};
use crate::ids::{AttemptId, RequestId};
use crate::payment::BankWord;
use crate::payment::pairing::{Answer, Decision, Entry, Event, Heard, Input, Pairing};
use crate::store::signing::Signer;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::metrics;
use crate::vault::{SigningKey, SigningPurpose, Vault};

/// How often the database is asked which references are open, in milliseconds: other nodes and commands open some, too.
const LOOK_MS: u64 = 5_000;
/// How many references are listed at a time.
const PAGE: u32 = 1_000;
/// News that wait for the processor; when there are more, it finds out by asking.
const NEWS_QUEUE: usize = 256;
/// Who did it, in the audit trail: the bank's messages and answers, and time.
const BANK: &str = "bank";
/// The same for what a customer's payment causes.
const PROCESSOR: &str = "processor";

/// The desk. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cfg: BankFeedbackConfig,
    client: Client,
    signer: Signer,
    agenda: Mutex<Agenda>,
    /// Something is due.
    work: Notify,
    /// To the processor, once somebody listens.
    news: OnceLock<mpsc::Sender<Delivery>>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("client", &self.inner.client).finish_non_exhaustive()
    }
}

/// Why a message of the bank is not taken. It may send it again.
#[derive(Debug)]
pub(super) enum NotHeard {
    /// As many references are open as may be.
    Busy,
    /// A rule, or the database.
    NotTaken(NotTaken),
}

impl Desk {
    /// Reads what the configuration names; speaks to nobody yet. What is committed through it is sent, whether or not it
    /// [listens](Desk::listen).
    pub fn open(
        cfg: &BankFeedbackConfig,
        store: Arc<dyn Store>,
        vault: Vault,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, BankFeedbackError> {
        let (client, signer) = (Client::open(cfg)?, Signer::new(SigningPurpose::Instructions));
        let (cfg, agenda, work, news) = (cfg.clone(), Mutex::default(), Notify::new(), OnceLock::new());
        Ok(Self { inner: Arc::new(Inner { store, vault, clock, entropy, cfg, client, signer, agenda, work, news }) })
    }

    /// Hears the bank, and looks after whatever is open, until `stop`. The news say which attempts have moved on.
    pub async fn listen(&self, stop: CancellationToken) -> Result<Listening, BankFeedbackError> {
        let (sender, news) = mpsc::channel(NEWS_QUEUE);
        let _listens_already = self.inner.news.set(sender);
        // Made now if there is none yet: the bank must be given its public half before it is instructed.
        if let Err(error) = self.inner.key().await {
            tracing::error!(%error, "instructions can't be signed now");
        }
        let address = listener::listen(&self.inner.cfg, self.clone(), stop.clone()).await?;
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.run(stop).await });
        Ok(Listening { address, news })
    }

    /// The clock that signatures are held to.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    /// Takes a message of the bank; how it stands, once that is committed.
    pub(super) async fn hear(&self, told: Told) -> Result<Heard, NotHeard> {
        let inner = &self.inner;
        let full = |agenda: &Agenda| agenda.len() >= inner.cfg.open_limit && !agenda.holds(&told.reference);
        if full(&inner.agenda()) {
            return Err(NotHeard::Busy);
        }
        let input = Input::Message(told.message.clone());
        let decision = inner.judge(&told.reference, BANK, input).await.map_err(NotHeard::NotTaken)?;
        if !decision.entries.is_empty() {
            inner.look_at(&told.reference);
            inner.tell_of(&decision.entries);
        }
        let lost = || NotHeard::NotTaken(NotTaken::Failed("the message is not in the journal".into()));
        decision.after.heard(&told.message).cloned().ok_or_else(lost)
    }
}

#[async_trait]
impl PendingDeductions for Desk {
    async fn take(&self, reference: &RequestId, input: Input) -> Result<Pairing, NotTaken> {
        let inner = &self.inner;
        let decision = inner.judge(reference, PROCESSOR, input).await?;
        if decision.entries.is_empty() {
            return Ok(decision.after);
        }
        let mine = {
            let mut agenda = inner.agenda();
            agenda.add(reference, inner.clock.now());
            !decision.after.owed().is_empty() && agenda.begin(reference)
        };
        if !mine {
            inner.work.notify_one();
            return Ok(decision.after);
        }
        // The bank has announced it already, or it is a refund: with luck its word is here before the customer stops waiting. In
        // a task, so that a customer who does leaves the instruction alone.
        let (own, at) = (Arc::clone(inner), reference.clone());
        let _failed = tokio::spawn(async move { own.look(&at).await }).await;
        self.read(reference).await
    }

    async fn read(&self, reference: &RequestId) -> Result<Pairing, NotTaken> {
        journal::pairing(&*self.inner.store, reference).await.map_err(failed)
    }
}

impl Inner {
    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn judge(&self, reference: &RequestId, by: &str, input: Input) -> Result<Decision, NotTaken> {
        judge((&*self.store, &*self.clock, &*self.entropy), self.cfg.waits(), reference, by, input).await
    }

    fn look_at(&self, reference: &RequestId) {
        self.agenda().add(reference, self.clock.now());
        self.work.notify_one();
    }

    async fn key(&self) -> Result<Arc<SigningKey>, NotTaken> {
        let key = self.signer.key(&*self.store, &self.vault, self.clock.now(), &*self.entropy).await;
        key.map_err(|e| NotTaken::Failed(e.to_string()))
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut list = tokio::time::interval(Duration::from_millis(LOOK_MS));
        loop {
            let now = self.clock.now();
            let due = self.agenda().due().map_or(Duration::from_millis(LOOK_MS), |at| at.since(now));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = list.tick() => {
                    if let Err(error) = self.list().await {
                        tracing::error!(%error, "the database does not say which deductions are open; it is asked again");
                    }
                }
                () = self.work.notified() => {}
                () = tokio::time::sleep(due) => {}
            }
            loop {
                let place = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    place = Arc::clone(&places).acquire_owned() => place,
                };
                let Some(reference) = self.agenda().next(self.clock.now()) else { break };
                let inner = Arc::clone(&self);
                tokio::spawn(async move {
                    let _place = place;
                    inner.look(&reference).await;
                });
            }
        }
    }

    /// Takes up what others have opened, and at the start all of it.
    async fn list(&self) -> Result<(), StoreError> {
        self.agenda().begin_listing();
        let mut after = None;
        loop {
            let page = self.store.open_deductions(after.as_ref(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let now = self.clock.now();
            let mut agenda = self.agenda();
            for (reference, length) in &page {
                agenda.listed(reference, *length, now);
            }
        }
        let mut agenda = self.agenda();
        agenda.end_listing();
        metrics().bank_deductions_open.set_count([], agenda.len());
        Ok(())
    }

    /// Looks at a reference that was taken from the agenda: ends waits that are over, sends what is owed, and puts it back.
    async fn look(&self, reference: &RequestId) {
        let looked = match self.settle(reference).await {
            Ok(looked) => looked,
            Err(error) => {
                tracing::error!(%reference, %error, "a deduction can't be looked after now; it is tried again");
                Looked::Silence { length: 0, until: None }
            }
        };
        let longest = Duration::from_secs(self.cfg.retry_most_s);
        self.agenda().done(reference, looked, self.clock.now(), longest);
        self.work.notify_one();
    }

    async fn settle(&self, reference: &RequestId) -> Result<Looked, NotTaken> {
        let passed = self.judge(reference, BANK, Input::TimePassed).await?;
        self.tell_of(&passed.entries);
        let mut pairing = passed.after;
        let mut silent = false;
        for instruction in pairing.owed() {
            let key = self.key().await?;
            crash::point("bank_before_instruction");
            let answer = self.client.send(&instruction, &key, self.clock.now()).await;
            let outcome = match &answer {
                Some(Answer::Done { .. }) => "done",
                Some(Answer::Refused { .. }) => "refused",
                None => "unknown",
            };
            metrics().bank_instructions.inc([outcome]);
            let Some(answer) = answer else {
                silent = true;
                continue;
            };
            crash::point("bank_after_instruction");
            let attempt = instruction.id.attempt();
            let answered = self.judge(reference, BANK, Input::Answer { attempt, answer }).await?;
            self.tell_of(&answered.entries);
            pairing = answered.after;
        }
        let (length, until) = (pairing.length(), pairing.wakes_at(self.cfg.waits()));
        Ok(match (pairing.open(), silent) {
            (false, _) => Looked::Closed,
            (true, false) => Looked::Waits { length, until },
            (true, true) => Looked::Silence { length, until },
        })
    }

    /// Tells the processor which attempts have moved on; it asks us how they stand. What it is not told it finds out by its own
    /// questions.
    fn tell_of(&self, entries: &[Entry]) {
        let Some(news) = self.news.get() else { return };
        for attempt in entries.iter().filter_map(|entry| moved_on(&entry.event)) {
            let told = News::Operation { our_reference: attempt.to_string(), word: BankWord::Silence };
            let (taken, _nobody_waits) = oneshot::channel();
            if news.try_send(Delivery { news: told, taken }).is_err() {
                tracing::debug!(%attempt, "the processor is not told; it will ask");
            }
        }
    }
}

/// The attempt whose standing an event changes.
fn moved_on(event: &Event) -> Option<&AttemptId> {
    match event {
        Event::Answered { attempt, .. } | Event::Expired { attempt } => Some(attempt),
        // What contradicts an answer that was recorded changes nothing by itself: a person looks at it.
        Event::Contradicted { .. }
        | Event::Confirmed { .. }
        | Event::Received { .. }
        | Event::Reused { .. }
        | Event::Quarantined { .. }
        | Event::Released { .. }
        | Event::Rejected { .. }
        | Event::Matched { .. }
        | Event::RefundOrdered { .. } => None,
    }
}
