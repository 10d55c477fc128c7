//! The same orders and the same refunds, asked for again and again by many at once while the workers run: each is done once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;
use voicepay::gateway::sandbox::{Did, SandboxGateway};
use voicepay::ids::{AttemptId, IntentId};
use voicepay::payment::Operation;
use voicepay::processor::{ChargeOrder, OperationOrder, Outcome, Processor};
use voicepay::store::Store;

/// Different orders among which the retries are spread.
pub const ORDERS: usize = 1_000;
/// How long a payment may take in the middle of the storm.
const PATIENCE: Duration = Duration::from_secs(120);
/// Every so many requests somebody asks for the refund of a payment that has been made.
const REFUND_EVERY: u64 = 4;

/// What the storm works on.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub processor: Processor,
    pub journal: PathBuf,
}

/// What came of it.
pub struct Told {
    pub requests: u64,
    pub refund_requests: u64,
    pub orders: usize,
    /// The most that were under way at a time.
    pub in_flight: usize,
    pub charges: usize,
    pub refunds: usize,
    pub took: Duration,
}

/// An order with what the first answer to it was.
struct Asked {
    order: ChargeOrder,
    intent: OnceCell<IntentId>,
    paid: OnceCell<()>,
    refund: OnceCell<AttemptId>,
}

/// Asks `times` times, `in_flight` at a time; panics if an order is answered in two ways or the acquirer did anything twice.
pub async fn storm(parts: &Parts, orders: Vec<ChargeOrder>, times: u64, in_flight: usize) -> Told {
    let fresh = |order| Asked { order, intent: OnceCell::new(), paid: OnceCell::new(), refund: OnceCell::new() };
    let asked: Arc<Vec<Asked>> = Arc::new(orders.into_iter().map(fresh).collect());
    let (next, refunds_asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (flying, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let clients: Vec<_> = (0..in_flight)
        .map(|_| {
            let (processor, asked, next) = (parts.processor.clone(), asked.clone(), next.clone());
            let (flying, most, refunds_asked) = (flying.clone(), most.clone(), refunds_asked.clone());
            tokio::spawn(async move {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= times {
                        return;
                    }
                    // Spread so that those in flight ask for the same few orders at once, and for each again over the whole
                    // storm.
                    let place = (nth / 8 + nth % 8 * 3) % u64::try_from(asked.len()).unwrap();
                    let one = &asked[usize::try_from(place).unwrap()];
                    most.fetch_max(flying.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    if nth % REFUND_EVERY == 0 && one.paid.initialized() {
                        refunds_asked.fetch_add(1, Ordering::Relaxed);
                        refund(&processor, one).await;
                    } else {
                        let intent = processor.submit(one.order.clone()).await.expect("the same order is never refused");
                        let first = one.intent.get_or_init(|| async { intent.clone() }).await;
                        assert_eq!(*first, intent, "the same order gave another payment");
                        if nth % REFUND_EVERY == 0 {
                            let outcome = processor.outcome(&intent, PATIENCE).await.unwrap();
                            assert!(matches!(outcome, Outcome::Paid(_)), "{outcome:?}");
                            one.paid.get_or_init(|| async {}).await;
                        }
                    }
                    flying.fetch_sub(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let watched = tokio::spawn(progress(next.clone(), times));
    for client in clients {
        client.await.unwrap();
    }
    let took = began.elapsed();
    watched.abort();
    finish(parts, &asked).await;
    let (charges, refunds) = count(parts, &asked).await;
    Told {
        requests: times,
        refund_requests: refunds_asked.load(Ordering::Relaxed),
        orders: asked.len(),
        in_flight: most.load(Ordering::Relaxed),
        charges,
        refunds,
        took,
    }
}

async fn refund(processor: &Processor, one: &Asked) {
    let intent = one.intent.get().unwrap();
    let order = OperationOrder {
        key: format!("refund-of-{intent}"),
        intent: intent.clone(),
        operation: Operation::Refund,
        amount: None,
        by: "storm".into(),
        why: "the same refund again".into(),
    };
    let attempt = processor.operate(order).await.expect("the same refund is never refused");
    let first = one.refund.get_or_init(|| async { attempt.clone() }).await;
    assert_eq!(*first, attempt, "the same command gave another refund");
}

async fn progress(next: Arc<AtomicU64>, times: u64) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        eprintln!("... {} of {times} requests", next.load(Ordering::Relaxed).min(times));
    }
}

/// Every payment and refund that was begun comes to its end.
async fn finish(parts: &Parts, asked: &[Asked]) {
    for one in asked {
        if let Some(intent) = one.intent.get() {
            let outcome = parts.processor.outcome(intent, PATIENCE).await.unwrap();
            assert!(matches!(outcome, Outcome::Paid(_)), "{outcome:?}");
        }
        if let Some(attempt) = one.refund.get() {
            let ended = parts.processor.operation(attempt, PATIENCE).await.unwrap();
            assert!(ended.state.done(), "{ended:?}");
        }
    }
}

/// What the acquirer's own journal says: each reference at most once, and each as often as here.
async fn count(parts: &Parts, asked: &[Asked]) -> (usize, usize) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in SandboxGateway::read_journal(&parts.journal).unwrap() {
        if line.did.charged() || line.did == Did::Refunded {
            *seen.entry(line.our_reference).or_default() += 1;
        }
    }
    let (mut charges, mut refunds) = (0, 0);
    for one in asked {
        let Some(intent) = one.intent.get() else { continue };
        let payment = parts.store.payment(intent).await.unwrap().unwrap();
        let refunded = usize::from(one.refund.initialized());
        assert_eq!(payment.attempts.len(), 1 + refunded, "{intent}: as many attempts as there were different commands");
        for attempt in &payment.attempts {
            let times = seen.get(attempt.id.as_str()).copied().unwrap_or(0);
            assert_eq!(times, 1, "{} {}: done {times} times at the acquirer", attempt.operation.as_str(), attempt.id);
        }
        charges += 1;
        refunds += refunded;
    }
    (charges, refunds)
}
