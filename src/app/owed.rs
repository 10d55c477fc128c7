//! Calls that we owe and nobody will place: each ends with the approval that it is about, whether there is a trunk for it or not. And what is said
//! at the start where some may come to be owed and there is none.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::callbacks::told;
use crate::call::callbacks::{CallbacksConfig, TellPayer};
use crate::clock::{Clock, Entropy};
use crate::payment::{Approval, ApprovalState};
use crate::store::{Callback, CallbackPurpose, NextTry, PaperKind, Store, StoreError, Tried, papers};
use crate::telemetry::metrics::metrics;

/// How often it is looked whether one is over, in milliseconds.
const LOOK_MS: u64 = 30_000;
/// Those that are ended in one turn; what is left waits for the next.
const TURN_CALLS: u32 = 500;
/// Papers that are looked at for whether any call can be owed.
const LOOKED_AT_PAPERS: u32 = 1_000;

/// Ends calls that wait for nothing.
pub(super) struct Owed {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) tell_payer: TellPayer,
}

impl Owed {
    /// Until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {}
            }
            if let Err(error) = self.turn().await {
                tracing::error!(%error, "calls that nobody waits for any more could not be ended; they are at the next look");
            }
        }
    }

    /// One look; says how many it ended.
    pub(super) async fn turn(&self) -> Result<u32, StoreError> {
        let (now, mut ended) = (self.clock.now(), 0);
        for callback in self.store.callbacks_over(now, TURN_CALLS).await? {
            let how = self.how_it_ends(&callback).await?;
            let (audit, news) = told(&*self.entropy, &callback, &how, now);
            // That an approval ran out is news of its own, and there is nothing left to be decided by other means.
            let news = news.filter(|_| callback.purpose == CallbackPurpose::Tell);
            if self.store.end_callback(&callback.id, now, &how, &audit, news.as_ref()).await? {
                metrics().callbacks.inc([&how.outcome]);
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// As the worker would have ended it.
    async fn how_it_ends(&self, callback: &Callback) -> Result<Tried, StoreError> {
        let (outcome, next) = match callback.purpose {
            CallbackPurpose::Tell if self.tell_payer == TellPayer::Notify => ("notified", NextTry::Over),
            CallbackPurpose::Tell => ("expired", NextTry::GivenUp),
            CallbackPurpose::Decide if self.still_asked(callback).await? => ("expired", NextTry::GivenUp),
            CallbackPurpose::Decide => ("settled", NextTry::Over),
        };
        Ok(Tried { outcome: outcome.to_owned(), call: None, next })
    }

    /// Whether this person was still to say something when the approval ended.
    async fn still_asked(&self, callback: &Callback) -> Result<bool, StoreError> {
        let Some(approval) = papers::read::<Approval>(&*self.store, callback.approval.as_str()).await? else { return Ok(false) };
        let silent = approval.parties.iter().any(|p| p.who == callback.customer && p.said.is_none());
        Ok(silent && matches!(approval.state, ApprovalState::Open | ApprovalState::Expired))
    }
}

/// Whether calls may come to be owed that nobody can place: there is no trunk for them, and somebody has to agree to payments, or payers are to
/// be told by telephone.
pub(super) async fn without_a_trunk(store: &dyn Store, config: &CallbacksConfig) -> Result<bool, StoreError> {
    if !config.trunk.is_empty() {
        return Ok(false);
    }
    if config.tell_payer == TellPayer::Call {
        return Ok(true);
    }
    for kind in [PaperKind::Supervision, PaperKind::Guardianship] {
        if store.papers_after(kind, "", LOOKED_AT_PAPERS).await?.iter().any(|p| p.open) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says so, and by which key it is mended.
pub(super) async fn warn_without_a_trunk(store: &dyn Store, config: &CallbacksConfig) -> Result<(), StoreError> {
    if without_a_trunk(store, config).await? {
        tracing::warn!(
            key = "callbacks.trunk",
            "no trunk is set for calls that we owe: who has to agree to a payment is reached by link alone, and each such call is given up when its \
             approval ends"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock::{ManualClock, SeededEntropy, Timestamp};
    use crate::ids::{ApprovalId, CallbackId, CustomerId, PayeeId, RequestId, SupervisionId, Tenant};
    use crate::language::Language;
    use crate::money::{Currency, Money};
    use crate::payment::{ApprovalEvent, Delivery, How, PaymentRequest, RequestStatus, Role, Said, Supervision};
    use crate::store::{AuditRecord, CallbackState, Customer, CustomerStatus, SqliteStore, StoreConfig};

    struct House {
        _dir: tempfile::TempDir,
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        entropy: Arc<SeededEntropy>,
        payer: CustomerId,
        supervisor: CustomerId,
    }

    impl House {
        async fn open() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let cfg = StoreConfig { path: dir.path().join("v.db"), ..StoreConfig::default() };
            let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&cfg).await.unwrap());
            let (entropy, clock) = (Arc::new(SeededEntropy::new(5)), Arc::new(ManualClock::starting_at(Timestamp(1_000))));
            let (payer, supervisor) = (CustomerId::fresh(&*entropy), CustomerId::fresh(&*entropy));
            let house = Self { _dir: dir, store, clock, entropy, payer, supervisor };
            for (number, id) in [("111111", &house.payer), ("222222", &house.supervisor)] {
                let customer = Customer {
                    id: id.clone(),
                    tenant: Tenant::default(),
                    name: "Ann".into(),
                    customer_number: number.into(),
                    numbers: Vec::new(),
                    status: CustomerStatus::Active,
                    language: Language::English,
                    created_at: Timestamp(1),
                };
                house.store.add_customer(&customer, &house.audit()).await.unwrap();
            }
            house
        }

        fn audit(&self) -> AuditRecord {
            AuditRecord::fresh(self.clock.now(), &*self.entropy, "test", "did", "it", serde_json::json!({}))
        }

        /// An approval that the supervisor is to be called about, until 9,000.
        async fn asked(&self) -> Approval {
            let request = PaymentRequest {
                id: RequestId::fresh(&*self.entropy),
                customer: self.payer.clone(),
                payee: PayeeId::fresh(&*self.entropy),
                amount: Money::new(1_999, Currency::Usd).unwrap(),
                due: None,
                delivery: Delivery::None,
                expires_at: None,
                status: RequestStatus::Open,
                held_by: None,
                created_at: Timestamp(1),
            };
            let parties = vec![(Role::Supervisor, self.supervisor.clone())];
            let id = ApprovalId::fresh(&*self.entropy);
            let approval = Approval::open_for(id, &request, parties, self.clock.now(), Timestamp(9_000)).unwrap();
            self.put(&approval).await;
            approval
        }

        async fn put(&self, approval: &Approval) {
            papers::write(&*self.store, approval, &self.audit(), &[]).await.unwrap();
        }

        fn owed(&self, tell_payer: TellPayer) -> Owed {
            let (store, clock, entropy) = (Arc::clone(&self.store), self.clock.clone(), self.entropy.clone());
            Owed { store, clock, entropy, tell_payer }
        }

        async fn one(&self, approval: &Approval) -> (CallbackState, Option<String>) {
            let mut all = self.store.callbacks_of(&approval.id).await.unwrap();
            assert_eq!(all.len(), 1, "{all:?}");
            let call = all.remove(0);
            (call.state, call.last_outcome)
        }

        async fn given_up(&self) -> usize {
            self.store.outbox_waiting(99).await.unwrap().iter().filter(|o| o.topic == "callback.given_up").count()
        }
    }

    #[tokio::test]
    async fn a_call_that_nobody_can_place_is_given_up_when_its_approval_ends() {
        let house = House::open().await;
        let approval = house.asked().await;
        let owed = house.owed(TellPayer::Notify);
        house.clock.advance(Duration::from_millis(7_999));
        assert_eq!((owed.turn().await.unwrap(), house.one(&approval).await), (0, (CallbackState::Waiting, None)));
        house.clock.advance(Duration::from_millis(1));
        assert_eq!(owed.turn().await.unwrap(), 1);
        assert_eq!(house.one(&approval).await, (CallbackState::GivenUp, Some("expired".to_owned())));
        assert_eq!(
            (owed.turn().await.unwrap(), house.given_up().await),
            (0, 0),
            "once, and that the approval expired is told anyway"
        );
        let row = house.store.audit_trail(1).await.unwrap().remove(0);
        assert_eq!((row.action.as_str(), row.detail["outcome"].as_str()), ("callback.tried", Some("expired")));
    }

    #[tokio::test]
    async fn a_payer_who_was_to_be_called_and_is_not_is_told_by_other_means() {
        let house = House::open().await;
        for (tell_payer, ended, told) in
            [(TellPayer::Notify, (CallbackState::Over, "notified"), 0), (TellPayer::Call, (CallbackState::GivenUp, "expired"), 1)]
        {
            let approval = ApprovalId::fresh(&*house.entropy);
            let tell = Callback {
                id: CallbackId::fresh(&*house.entropy),
                approval: approval.clone(),
                customer: house.payer.clone(),
                purpose: CallbackPurpose::Tell,
                state: CallbackState::Waiting,
                tries: 0,
                due_at: house.clock.now(),
                expires_at: house.clock.now().plus(Duration::from_secs(60)),
                created_at: house.clock.now(),
                last_outcome: None,
                last_call: None,
            };
            assert!(house.store.add_callback(&tell, &house.audit()).await.unwrap());
            let owed = house.owed(tell_payer);
            assert_eq!(owed.turn().await.unwrap(), 0, "there is time");
            house.clock.advance(Duration::from_secs(60));
            assert_eq!((owed.turn().await.unwrap(), house.given_up().await), (1, told));
            let row = house.store.callbacks_of(&approval).await.unwrap().remove(0);
            assert_eq!((row.state, row.last_outcome.as_deref()), (ended.0, Some(ended.1)));
        }
    }

    #[tokio::test]
    async fn one_about_what_was_decided_ends_at_once_and_nobody_hears_of_it() {
        let house = House::open().await;
        let (approval, open) = (house.asked().await, house.asked().await);
        let said = Said { yes: true, at: house.clock.now(), how: How::Link };
        let agreed = approval.step(house.clock.now(), ApprovalEvent::Said { who: house.supervisor.clone(), said }).unwrap();
        house.put(&agreed).await;
        let owed = house.owed(TellPayer::Notify);
        assert_eq!(owed.turn().await.unwrap(), 0, "the payer's part is missing: it is open");
        let cancelled = agreed.step(house.clock.now(), ApprovalEvent::Cancel).unwrap();
        house.put(&cancelled).await;
        assert_eq!(owed.turn().await.unwrap(), 1);
        assert_eq!(house.one(&cancelled).await, (CallbackState::Over, Some("settled".to_owned())));
        assert_eq!((house.one(&open).await.0, house.given_up().await), (CallbackState::Waiting, 0));
    }

    #[tokio::test]
    async fn it_is_told_at_the_start_only_where_calls_can_be_owed_and_not_placed() {
        let house = House::open().await;
        let told = async |config: &CallbacksConfig| without_a_trunk(&*house.store, config).await.unwrap();
        let none = CallbacksConfig::default();
        assert!(!told(&none).await, "nobody has to agree to anything");
        assert!(told(&CallbacksConfig { tell_payer: TellPayer::Call, ..none.clone() }).await);
        let id = SupervisionId::fresh(&*house.entropy);
        let supervision =
            Supervision::new(id, house.payer.clone(), house.supervisor.clone(), BTreeMap::new(), Timestamp(1)).unwrap();
        papers::write(&*house.store, &supervision, &house.audit(), &[]).await.unwrap();
        assert!(told(&none).await);
        assert!(!told(&CallbacksConfig { trunk: "carrier".into(), ..none }).await);
    }
}
