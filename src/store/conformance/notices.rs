//! Where tenants are told, and what they were told.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::{EndpointId, OutboxId, Tenant};
use crate::store::{
    Backlog, Delivery, DeliveryOutcome as Outcome, DeliveryState as State, Endpoint, EndpointSecret, Handed, OutboxRecord,
    Replay, StoreError,
};

on_both!(
    an_endpoint_is_written_over_the_version_that_was_read,
    of_a_lane_only_the_first_is_due_and_its_end_lets_the_next_go,
    lanes_and_endpoints_do_not_wait_for_each_other,
    what_became_of_a_try_counts_while_its_lease_lasts,
    what_is_asked_for_again_goes_before_what_waits,
    what_waits_is_counted_and_what_arrived_is_forgotten,
    of_many_nodes_each_delivery_is_ones_and_no_lane_stands_still,
);

impl Bench {
    fn endpoint(&self, tenant: &str) -> Endpoint {
        Endpoint {
            id: EndpointId::fresh(&*self.entropy),
            tenant: Tenant::parse(tenant).unwrap(),
            url: "https://shop.example/hooks".into(),
            topics: vec!["payment.*".into()],
            secrets: vec![EndpointSecret { sealed: "00".into(), until: None }],
            disabled: false,
            version: 0,
            created_at: Timestamp(7),
        }
    }

    async fn write_endpoint(&self, endpoint: &Endpoint) -> Result<(), StoreError> {
        self.store.write_endpoint(endpoint, &self.audit()).await
    }

    async fn added_endpoint(&self, tenant: &str) -> Endpoint {
        let endpoint = self.endpoint(tenant);
        self.write_endpoint(&endpoint).await.unwrap();
        endpoint
    }
}

async fn an_endpoint_is_written_over_the_version_that_was_read(desk: Bench) {
    let (first, other) = (desk.added_endpoint("default").await, desk.added_endpoint("bank").await);
    assert_eq!(desk.store.endpoint(&first.id).await.unwrap(), Some(first.clone()));
    assert!(matches!(desk.write_endpoint(&first).await, Err(StoreError::Exists(_))));
    let secret = |sealed: &str, until| EndpointSecret { sealed: sealed.into(), until };
    let rotated = Endpoint { secrets: vec![secret("00", Some(Timestamp(90))), secret("11", None)], version: 1, ..first.clone() };
    desk.write_endpoint(&rotated).await.unwrap();
    let disabled = Endpoint { disabled: true, version: 2, ..rotated.clone() };
    desk.write_endpoint(&disabled).await.unwrap();
    assert_eq!(desk.store.endpoint(&first.id).await.unwrap(), Some(disabled.clone()));
    let enabled = Endpoint { disabled: false, url: "https://shop.example/new".into(), version: 3, ..disabled.clone() };
    desk.write_endpoint(&enabled).await.unwrap();
    // Whoever read an earlier version is too late; so is one that was never read, and nobody takes an endpoint to another tenant.
    let trail = desk.store.audit_trail(100).await.unwrap().len();
    let moved = Endpoint { tenant: Tenant::parse("bank").unwrap(), version: 4, ..enabled.clone() };
    let none = Endpoint { id: EndpointId::fresh(&*desk.entropy), version: 1, ..first.clone() };
    for late in [disabled, Endpoint { version: 9, ..enabled.clone() }, moved, none] {
        assert!(matches!(desk.write_endpoint(&late).await, Err(StoreError::Conflict(_))), "{late:?}");
    }
    assert_eq!(desk.store.audit_trail(100).await.unwrap().len(), trail, "nothing was written of what was refused");
    assert_eq!(desk.opened_again().await.endpoint(&first.id).await.unwrap(), Some(enabled.clone()));
    assert_eq!(desk.store.endpoint(&other.id).await.unwrap(), Some(other.clone()), "the other was left alone");
    assert_eq!(desk.store.endpoints(Some(&first.tenant)).await.unwrap(), [enabled]);
    assert_eq!(desk.store.endpoints(None).await.unwrap().len(), 2);
    // Of many who change the same version one is first.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, audit) = (desk.store.clone(), desk.audit());
        let mine = Endpoint { url: format!("https://shop.example/{n}"), version: 1, ..other.clone() };
        tasks.spawn(async move { store.write_endpoint(&mine, &audit).await });
    }
    let ended = tasks.join_all().await;
    assert_eq!(ended.iter().filter(|e| e.is_ok()).count(), 1, "{ended:?}");
    assert!(ended.iter().all(|e| matches!(e, Ok(()) | Err(StoreError::Conflict(_)))), "{ended:?}");
}

impl Bench {
    /// Something happened.
    async fn happens(&self, at: i64) -> OutboxId {
        let news = OutboxRecord {
            id: OutboxId::fresh(&*self.entropy),
            at: Timestamp(at),
            topic: "payment.succeeded".into(),
            payload: json!({ "n": at }),
        };
        self.store.announce(&news, &self.audit()).await.unwrap();
        news.id
    }

    /// It happened, and is handed out.
    async fn told(&self, at: i64, subject: &str, to: &[&Endpoint]) -> OutboxId {
        let outbox = self.happens(at).await;
        let to = to.iter().map(|e| e.id.clone()).collect();
        self.store.hand_out(&[Handed { outbox: outbox.clone(), subject: subject.into(), to }], Timestamp(at)).await.unwrap();
        outbox
    }

    /// What is given out to a node at that time, with room for so many.
    async fn claimed(&self, now: i64, endpoint: &Endpoint, room: u32) -> Vec<Delivery> {
        let rooms = [(endpoint.id.clone(), room)];
        self.store.claim_deliveries(Timestamp(now), Timestamp(now + LEASE), &rooms).await.unwrap()
    }

    async fn ended(&self, delivery: &Delivery, outcome: Outcome) -> bool {
        self.store.finish_delivery(delivery, &outcome, "200", Timestamp(50)).await.unwrap()
    }

    /// Where each delivery stands, in order.
    async fn states(&self, endpoint: &Endpoint) -> Vec<State> {
        self.store.deliveries(&endpoint.id, None, 0, 100).await.unwrap().iter().map(|d| d.state).collect()
    }
}

const LEASE: i64 = 1_000;

fn ids(deliveries: &[Delivery]) -> Vec<OutboxId> {
    let mut in_order: Vec<_> = deliveries.iter().collect();
    in_order.sort_by_key(|d| d.position);
    in_order.into_iter().map(|d| d.news.id.clone()).collect()
}

async fn of_a_lane_only_the_first_is_due_and_its_end_lets_the_next_go(desk: Bench) {
    let shop = desk.added_endpoint("default").await;
    let first = desk.told(1, "req_1", &[&shop]).await;
    // The second and third are handed out together, and a row that was handed out is not handed out again.
    let (second, third) = (desk.happens(2).await, desk.happens(3).await);
    let hand = |outbox: &OutboxId| Handed { outbox: outbox.clone(), subject: "req_1".into(), to: vec![shop.id.clone()] };
    desk.store.hand_out(&[hand(&second), hand(&third)], Timestamp(3)).await.unwrap();
    desk.store.hand_out(&[hand(&first), hand(&third)], Timestamp(4)).await.unwrap();
    assert_eq!(desk.store.outbox_waiting(10).await.unwrap(), []);
    assert_eq!(desk.states(&shop).await, [State::Waiting; 3]);
    let tried = desk.claimed(10, &shop, 9).await;
    assert_eq!((ids(&tried), tried[0].tries, tried[0].next_at), (vec![first.clone()], 1, Timestamp(10 + LEASE)));
    assert_eq!((tried[0].subject.as_str(), &tried[0].news.payload), ("req_1", &json!({ "n": 1 })));
    assert_eq!(desk.claimed(10, &shop, 9).await, [], "it is under way");
    assert!(desk.store.due_endpoints(Timestamp(10)).await.unwrap().is_empty());
    assert!(desk.ended(&tried[0], Outcome::Again(Timestamp(500))).await);
    assert_eq!(desk.claimed(499, &shop, 9).await, [], "the later ones wait, too");
    let tried = desk.claimed(500, &shop, 9).await;
    assert_eq!((ids(&tried), tried[0].tries), (vec![first], 2));
    assert!(desk.ended(&tried[0], Outcome::Delivered).await);
    let tried = desk.claimed(501, &shop, 9).await;
    assert_eq!((ids(&tried), tried[0].tries), (vec![second], 1));
    assert!(desk.ended(&tried[0], Outcome::Dead).await, "what is dead holds up nothing");
    let tried =
        desk.opened_again().await.claim_deliveries(Timestamp(502), Timestamp(900), &[(shop.id.clone(), 9)]).await.unwrap();
    assert_eq!(ids(&tried), [third]);
    assert!(desk.ended(&tried[0], Outcome::Delivered).await);
    assert_eq!(desk.states(&shop).await, [State::Delivered, State::Dead, State::Delivered]);
    let dead = desk.store.deliveries(&shop.id, Some(State::Dead), 0, 9).await.unwrap();
    assert_eq!((dead.len(), dead[0].answer.as_deref()), (1, Some("200")));
    assert_eq!(desk.store.deliveries(&shop.id, Some(State::Dead), dead[0].position, 9).await.unwrap(), []);
    assert_eq!(desk.store.deliveries(&shop.id, Some(State::Delivered), dead[0].position, 9).await.unwrap().len(), 1);
    assert_eq!(desk.store.deliveries(&shop.id, None, 0, 2).await.unwrap().len(), 2);
}

async fn lanes_and_endpoints_do_not_wait_for_each_other(desk: Bench) {
    let (shop, bank) = (desk.added_endpoint("default").await, desk.added_endpoint("bank").await);
    let a = desk.told(1, "req_a", &[&shop, &bank]).await;
    let b = desk.told(2, "req_b", &[&shop, &bank]).await;
    let c = desk.told(3, "req_c", &[&shop]).await;
    let nobodys = desk.happens(4).await;
    desk.store.hand_out(&[Handed { outbox: nobodys, subject: "x".into(), to: vec![] }], Timestamp(4)).await.unwrap();
    assert_eq!(desk.store.outbox_waiting(10).await.unwrap(), [], "what nobody wants to hear waits for nobody");
    assert_eq!(desk.store.due_endpoints(Timestamp(2)).await.unwrap().len(), 2);
    assert_eq!(desk.claimed(10, &shop, 0).await, []);
    assert_eq!(ids(&desk.claimed(10, &shop, 2).await), [a.clone(), b.clone()], "no more than there is room for");
    let off = Endpoint { disabled: true, version: 1, ..bank.clone() };
    desk.write_endpoint(&off).await.unwrap();
    assert_eq!(desk.store.due_endpoints(Timestamp(10)).await.unwrap(), std::slice::from_ref(&shop.id));
    desk.write_endpoint(&Endpoint { disabled: false, version: 2, ..off }).await.unwrap();
    let rooms = [(shop.id.clone(), 5), (bank.id.clone(), 1)];
    let both = desk.store.claim_deliveries(Timestamp(10), Timestamp(99), &rooms).await.unwrap();
    let of = |e: &Endpoint| ids(&both.iter().filter(|d| d.endpoint == e.id).cloned().collect::<Vec<_>>());
    assert_eq!((of(&shop), of(&bank)), (vec![c], vec![a]));
    desk.store.delete_endpoint(&bank.id, &desk.audit()).await.unwrap();
    assert_eq!(desk.store.endpoint(&bank.id).await.unwrap(), None);
    assert_eq!(desk.store.deliveries(&bank.id, None, 0, 9).await.unwrap(), []);
    assert!(!desk.ended(both.iter().find(|d| d.endpoint == bank.id).unwrap(), Outcome::Delivered).await);
    assert!(matches!(desk.store.delete_endpoint(&bank.id, &desk.audit()).await, Err(StoreError::NotFound(_))));
    let late = desk.happens(5).await;
    let handed = Handed { outbox: late, subject: "y".into(), to: vec![bank.id.clone(), shop.id.clone()] };
    desk.store.hand_out(&[handed], Timestamp(5)).await.unwrap();
    assert_eq!(desk.states(&shop).await.len(), 4, "whoever is there is told");
}

async fn what_became_of_a_try_counts_while_its_lease_lasts(desk: Bench) {
    let shop = desk.added_endpoint("default").await;
    desk.told(1, "req_1", &[&shop]).await;
    desk.told(2, "req_1", &[&shop]).await;
    let lost = desk.claimed(10, &shop, 1).await.remove(0);
    let taken_up = desk.claimed(10 + LEASE, &shop, 1).await.remove(0);
    assert_eq!((&taken_up.news, taken_up.tries), (&lost.news, 2));
    for outcome in [Outcome::Delivered, Outcome::Dead, Outcome::Again(Timestamp(3))] {
        assert!(!desk.ended(&lost, outcome).await, "another node tries it");
    }
    assert_eq!(desk.states(&shop).await, [State::Waiting; 2]);
    assert!(desk.ended(&taken_up, Outcome::Delivered).await);
    assert!(!desk.ended(&taken_up, Outcome::Dead).await, "it has ended");
    assert_eq!(desk.states(&shop).await, [State::Delivered, State::Waiting]);
}

async fn what_is_asked_for_again_goes_before_what_waits(desk: Bench) {
    let (shop, other) = (desk.added_endpoint("default").await, desk.added_endpoint("default").await);
    let mut told = Vec::new();
    for at in 1..=4 {
        told.push(desk.told(at, "req_1", &[&shop, &other]).await);
    }
    for outcome in [Outcome::Delivered, Outcome::Dead, Outcome::Delivered] {
        let tried = desk.claimed(10, &shop, 9).await.remove(0);
        desk.ended(&tried, outcome).await;
    }
    let replay = async |which| desk.store.replay(&shop.id, which, Timestamp(20), &desk.audit()).await.unwrap();
    assert_eq!(replay(Replay::Dead).await, 1);
    assert_eq!(replay(Replay::Dead).await, 0);
    assert_eq!(desk.states(&shop).await, [State::Delivered, State::Waiting, State::Delivered, State::Waiting]);
    let tried = desk.claimed(20, &shop, 9).await;
    assert_eq!((ids(&tried), tried[0].tries), (vec![told[1].clone()], 1), "it is earlier than the fourth");
    // One that is under way is asked for: whoever tried it is not asked any more.
    assert_eq!(replay(Replay::One(&told[1])).await, 1);
    assert!(!desk.ended(&tried[0], Outcome::Dead).await);
    let tried = desk.claimed(20, &shop, 9).await;
    assert_eq!(ids(&tried), [told[1].clone()]);
    assert!(desk.ended(&tried[0], Outcome::Delivered).await);
    // All that happened since: the first is older, the fourth waits anyway.
    assert_eq!(replay(Replay::Since(Timestamp(2))).await, 2);
    assert_eq!(desk.states(&shop).await, [State::Delivered, State::Waiting, State::Waiting, State::Waiting]);
    for next in &told[1..] {
        let tried = desk.claimed(30, &shop, 9).await;
        assert_eq!(ids(&tried), std::slice::from_ref(next));
        assert!(desk.ended(&tried[0], Outcome::Delivered).await);
    }
    assert_eq!(replay(Replay::One(&OutboxId::fresh(&*desk.entropy))).await, 0);
    assert_eq!(desk.states(&other).await, [State::Waiting; 4], "others are not touched");
}

async fn what_waits_is_counted_and_what_arrived_is_forgotten(desk: Bench) {
    assert_eq!(desk.store.backlog().await.unwrap(), Backlog::default());
    let shop = desk.added_endpoint("default").await;
    desk.happens(7).await;
    let counted =
        |outbox, waiting, oldest_at: Option<i64>, dead| Backlog { outbox, waiting, oldest_at: oldest_at.map(Timestamp), dead };
    assert_eq!(desk.store.backlog().await.unwrap(), counted(1, 0, Some(7), 0));
    for (at, subject) in [(5, "a"), (6, "b"), (8, "c")] {
        desk.told(at, subject, &[&shop]).await;
    }
    assert_eq!(desk.store.backlog().await.unwrap(), counted(1, 3, Some(5), 0));
    desk.write_endpoint(&Endpoint { disabled: true, version: 1, ..shop.clone() }).await.unwrap();
    assert_eq!(desk.store.backlog().await.unwrap(), counted(1, 3, Some(7), 0), "whoever is switched off keeps nobody waiting");
    let tried = desk.claimed(10, &shop, 9).await;
    let of = |subject: &str| tried.iter().find(|d| d.subject == subject).unwrap();
    for (subject, outcome) in [("a", Outcome::Dead), ("b", Outcome::Delivered), ("c", Outcome::Delivered)] {
        desk.ended(of(subject), outcome).await;
    }
    assert_eq!(desk.store.backlog().await.unwrap(), counted(1, 0, Some(7), 1));
    assert_eq!(desk.store.forget_deliveries(Timestamp(50), 9).await.unwrap(), 0, "they ended just then");
    // A dead letter stays, and is in nobody's way.
    assert_eq!(desk.store.forget_deliveries(Timestamp(51), 1).await.unwrap(), 1);
    assert_eq!(desk.store.forget_deliveries(Timestamp(51), 9).await.unwrap(), 1);
    assert_eq!(desk.states(&shop).await, [State::Dead]);
}

async fn of_many_nodes_each_delivery_is_ones_and_no_lane_stands_still(desk: Bench) {
    const LANES: usize = 4;
    const EVENTS: usize = 60;
    let shop = desk.added_endpoint("default").await;
    let mut nodes = JoinSet::new();
    for _ in 0..4 {
        let (store, endpoint) = (desk.store.clone(), shop.id.clone());
        nodes.spawn(async move {
            let mut mine = Vec::new();
            let mut idle = 0;
            while idle < 200 {
                let rooms = [(endpoint.clone(), 2)];
                let claimed = store.claim_deliveries(Timestamp(100), Timestamp(9_000_000), &rooms).await.unwrap();
                idle = if claimed.is_empty() { idle + 1 } else { 0 };
                for d in claimed {
                    assert!(store.finish_delivery(&d, &Outcome::Delivered, "200", Timestamp(100)).await.unwrap());
                    mine.push(d);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            mine
        });
    }
    // As the one before ends, the next comes.
    for n in 0..EVENTS {
        desk.told(1 + n as i64, &format!("req_{}", n % LANES), &[&shop]).await;
    }
    let all: Vec<Delivery> = nodes.join_all().await.into_iter().flatten().collect();
    assert_eq!(desk.states(&shop).await, [State::Delivered; EVENTS]);
    let mut tries = HashMap::new();
    for d in &all {
        *tries.entry(d.news.id.clone()).or_insert(0) += 1;
    }
    assert_eq!((all.len(), tries.len()), (EVENTS, EVENTS));
}
