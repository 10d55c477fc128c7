//! A slice of `make bench-payments ARGS="--retries 1000000"`: the same orders and refunds asked for again and again, a thousand
//! at a time, while the worker runs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use voicepay::processor::ProcessorConfig;

use super::support::{House, charged, sqlite};

#[allow(dead_code)] // the bench says more of it
#[path = "../../benches/payments/retries.rs"]
mod retries;

const REQUESTS: u64 = 20_000;
const IN_FLIGHT: usize = 1_000;
const ORDERS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_requests_of_a_hundred_orders_are_a_hundred_charges() {
    let dir = tempfile::tempdir().unwrap();
    let cfg = ProcessorConfig { poll_ms: 100, ..ProcessorConfig::default() };
    let house = House::over(sqlite(dir.path()).await, dir.path(), 5, cfg).await;
    let orders = house.orders(ORDERS).await;
    let stop = CancellationToken::new();
    let worker = tokio::spawn({
        let (processor, stop) = (house.processor.clone(), stop.clone());
        async move { processor.run(stop).await }
    });
    let (store, processor, journal) = (house.store.clone(), house.processor.clone(), dir.path().join("bank.jsonl"));
    let parts = retries::Parts { store, processor, journal };
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
