//! A slice of `make bench-payments ARGS="--retries 1000000"`: the same orders and refunds asked for again and again, a thousand
//! at a time, while the worker runs.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use voicepay::clock::SystemClock;
use voicepay::gateway::{self, GatewayConfig};
use voicepay::ids::{CallId, RequestId};
use voicepay::payment::PaymentRequest;
use voicepay::processor::{ChargeOrder, Processor, ProcessorConfig};

use super::support::{House, charged};

#[allow(dead_code)] // the bench says more of it
#[path = "../../benches/payments/retries.rs"]
mod retries;

const REQUESTS: u64 = 20_000;
const IN_FLIGHT: usize = 1_000;
const ORDERS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_requests_of_a_hundred_orders_are_a_hundred_charges() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path()).await;
    let first = house.furnish("4111111111111111").await;
    let like = house.store.request(&first.request).await.unwrap().unwrap().request;
    let mut orders = vec![first.clone()];
    while orders.len() < ORDERS {
        let request = PaymentRequest { id: RequestId::fresh(&*house.entropy), ..like.clone() };
        house.store.add_request(&request, &house.audit_row()).await.unwrap();
        orders.push(ChargeOrder { request: request.id, call: CallId::fresh(&*house.entropy), ..first.clone() });
    }
    let (clock, journal) = (Arc::new(SystemClock), dir.path().join("bank.jsonl"));
    let cfg = GatewayConfig { sandbox_journal: journal.clone(), sandbox_latency_ms: 5, ..GatewayConfig::default() };
    let bank = gateway::open(&cfg, house.vault.sandbox_journal_key(), clock.clone()).unwrap();
    let cfg = ProcessorConfig { poll_ms: 100, ..ProcessorConfig::default() };
    let processor = Processor::new(house.store.clone(), bank, house.vault.clone(), clock, house.entropy.clone(), cfg);
    let stop = CancellationToken::new();
    let worker = tokio::spawn({
        let (processor, stop) = (processor.clone(), stop.clone());
        async move { processor.run(stop).await }
    });
    let parts = retries::Parts { store: house.store.clone(), processor, journal };
    let storm = retries::storm(&parts, orders, REQUESTS, IN_FLIGHT);
    let told = tokio::time::timeout(Duration::from_secs(120), storm).await.expect("it ends");
    assert!(told.in_flight >= IN_FLIGHT * 9 / 10, "{} in flight at most", told.in_flight);
    assert_eq!((told.requests, told.orders, told.charges), (REQUESTS, ORDERS, ORDERS));
    assert!(told.refunds > ORDERS / 2 && told.refund_requests > 10 * ORDERS as u64, "{} refunds", told.refunds);
    assert_eq!(charged(dir.path()).len(), ORDERS, "charges in the acquirer's journal");
    house.books().await; // which fails unless they balance
    stop.cancel();
    worker.await.unwrap();
}
