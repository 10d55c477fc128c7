//! Several workers on one database: leases, their end, clocks that jump, and what waits in line.

use super::*;
use crate::store::Schedule;

/// What `gateway_timeout_ms` of these tests and the default margin make.
const LEASE: Duration = Duration::from_millis(200 + 10_000);

impl House {
    fn another(&self) -> Processor {
        Processor::new(
            self.store.clone(),
            self.processor.inner.acquirers.clone(),
            self.vault.clone(),
            self.clock.clone(),
            self.entropy.clone(),
            self.processor.inner.cfg.clone(),
        )
    }

    async fn submit(&self) -> IntentId {
        let known = self.store.cards_of(&self.customer).await.unwrap().pop();
        let card = match known {
            Some(card) => card.id,
            None => self.card("4111111111111111", None).await,
        };
        let request = self.request(1999).await;
        self.processor.submit(self.order(&request, &card, 1999)).await.unwrap()
    }
}

#[tokio::test]
async fn a_lease_keeps_others_away_until_it_runs_out() {
    let house = House::build().await;
    house.submit().await;
    let other = house.another();
    assert_eq!(house.processor.inner.claim(9).await.unwrap().len(), 1);
    house.clock.advance(LEASE - Duration::from_millis(1));
    assert!(other.inner.claim(9).await.unwrap().is_empty());
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(other.inner.claim(9).await.unwrap().len(), 1, "the worker that had it is gone");
    house.clock.advance(LEASE);
    other.run_once().await.unwrap();
    assert_eq!((house.bank_saw(), house.books().await), (vec![Did::Charged], (1999, 0)));
}

#[tokio::test]
async fn a_worker_that_was_held_up_past_its_lease_does_not_send_what_another_sent() {
    let house = House::build().await;
    house.submit().await;
    let slow = house.processor.inner.claim(9).await.unwrap().remove(0);
    house.clock.advance(LEASE);
    house.another().run_once().await.unwrap();
    house.processor.inner.send_first(slow).await.unwrap();
    assert_eq!((house.bank_saw(), house.books().await), (vec![Did::Charged], (1999, 0)));
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_nothing_waiting() {
    let house = House::build().await;
    let intent = house.submit().await;
    let job = house.processor.inner.claim(9).await.unwrap().remove(0);
    // Written by a clock that ran a year ahead.
    let ahead = START.plus(Duration::from_secs(365 * 24 * 3600));
    house.store.put_off(&job.attempt, ahead).await.unwrap();
    house.processor.run_once().await.unwrap();
    assert!(matches!(house.outcome(&intent).await, Outcome::Paid(_)));
    let cap = Duration::from_millis(house.processor.inner.cfg.question_cap_ms);
    assert!(house.processor.inner.horizon(START) > START.plus(cap), "no schedule of ours is taken for one");
}

#[tokio::test]
async fn claims_take_the_longest_due_first_and_no_more_than_asked() {
    let house = House::build().await;
    let mut intents = Vec::new();
    for _ in 0..5 {
        intents.push(house.submit().await);
        house.clock.advance(Duration::from_millis(1));
    }
    let first: Vec<_> = house.processor.inner.claim(2).await.unwrap().into_iter().map(|j| j.intent.id).collect();
    assert_eq!(first, intents[..2]);
    let rest: Vec<_> = house.another().inner.claim(9).await.unwrap().into_iter().map(|j| j.intent.id).collect();
    assert_eq!(rest, intents[2..]);
}

#[tokio::test]
async fn another_acquirers_attempts_are_left_to_whoever_speaks_to_it() {
    let house = House::build().await;
    house.submit().await;
    let mut claim = crate::store::Claim {
        lease: house.processor.inner.lease(START),
        gateway: "stripe".into(),
        now: START,
        horizon: house.processor.inner.horizon(START),
        limit: 9,
    };
    assert!(house.store.claim(&claim).await.unwrap().is_empty());
    claim.gateway = "sandbox".into();
    assert_eq!(house.store.claim(&claim).await.unwrap().len(), 1);
}

#[tokio::test]
async fn questions_wait_longer_the_longer_nothing_is_known() {
    let house = House::build().await;
    let intent = house.charge("4000000000000259").await;
    let attempt = house.store.payment(&intent).await.unwrap().unwrap().attempts.remove(0);
    let AttemptState::NeedsReconciliation { last_sent, .. } = attempt.state else { panic!("{attempt:?}") };
    let inner = &house.processor.inner;
    let cfg = &inner.cfg;
    for (silent_ms, wait_ms) in
        [(0, cfg.sweep_ms), (cfg.sweep_ms, cfg.sweep_ms), (100_000, 100_000), (10_000_000_000, cfg.question_cap_ms)]
    {
        let now = last_sent.plus(Duration::from_millis(silent_ms));
        let waits = inner.next_question(now, &attempt).since(now);
        let (least, most) = (Duration::from_millis(wait_ms * 3 / 4), Duration::from_millis(wait_ms * 5 / 4));
        assert!(waits >= least && waits <= most, "after {silent_ms} ms: {waits:?}");
    }
}

#[tokio::test]
async fn what_is_submitted_where_a_worker_runs_is_leased_to_it_at_once() {
    let house = House::build().await;
    let shutdown = CancellationToken::new();
    let (_, none) = house.processor.inner.place_at_hand(START);
    assert!(matches!(none, Schedule::Due(at) if at < START), "no worker yet: due at once, by any clock");
    let worker = tokio::spawn({
        let (processor, shutdown) = (house.processor.clone(), shutdown.clone());
        async move { processor.run(shutdown).await }
    });
    while house.processor.inner.at_hand.lock().unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let (place, leased) = house.processor.inner.place_at_hand(START);
    assert!(place.is_some() && leased.lease().is_some());
    drop(place);
    let (request, card) = (house.request(1999).await, house.card("4111111111111111", None).await);
    let intent = house.processor.submit(house.order(&request, &card, 1999)).await.unwrap();
    let outcome = house.processor.outcome(&intent, Duration::from_secs(20)).await.unwrap();
    assert!(matches!(outcome, Outcome::Paid(_)), "{outcome:?}");
    shutdown.cancel();
    worker.await.unwrap();
    assert!(house.processor.inner.waiting.lock().unwrap().is_empty(), "nobody is remembered who waits no more");
}
