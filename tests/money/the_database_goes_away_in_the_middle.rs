//! PostgreSQL ends every connection, again and again, while payments are submitted and carried out. Whoever asks is told that
//! nothing was written, or that it is not known; asking again by the same key is always right. In the end each order is charged
//! once.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use voicepay::ids::IntentId;
use voicepay::processor::{ChargeOrder, Outcome, Processor, ProcessorConfig, SubmitError};
use voicepay::store::{DatabaseUrl, PgStore, StoreConfig, StoreError};

use super::support::{AMOUNT, House, charged, lab};

const ORDERS: usize = 40;
/// How often all connections are ended.
const CUTS: usize = 12;
/// How often an order is submitted before the test gives up.
const TRIES: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut_and_each_order_is_charged_once() {
    let Some(database) = lab::Database::fresh().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::parse(&database.url).unwrap();
    let store = Arc::new(PgStore::open(&url, &StoreConfig::default()).await.unwrap());
    // Leases end soon, so that what a cut left behind is taken up within the test.
    let cfg = ProcessorConfig {
        gateway_timeout_ms: 1_000,
        lease_margin_ms: 500,
        sweep_ms: 200,
        question_cap_ms: 500,
        poll_ms: 50,
        ..ProcessorConfig::default()
    };
    let house = House::over(store, dir.path(), 5, cfg).await;
    let orders = house.orders(ORDERS).await;
    let stop = CancellationToken::new();
    let worker = tokio::spawn({
        let (processor, stop) = (house.processor.clone(), stop.clone());
        async move { processor.run(stop).await }
    });
    let cutter = tokio::spawn(cut(database.url.clone()));
    let clients: Vec<_> =
        orders.chunks(ORDERS / 4).map(|some| tokio::spawn(pay(house.processor.clone(), some.to_vec()))).collect();
    let mut refused = 0;
    for client in clients {
        refused += client.await.unwrap();
    }
    let cut_off = cutter.await.unwrap();
    assert!(cut_off > CUTS, "only {cut_off} connections were cut");
    println!("{cut_off} connections cut, {refused} submissions refused");
    stop.cancel();
    worker.await.unwrap();
    // A connection that was cut last may still lie in the pool: whoever meets it is told, and it is gone.
    for _ in 0..TRIES {
        if house.processor.run_once().await.is_ok() {
            break;
        }
    }
    house.finish_everything().await;
    let payments = house.store.payments(1_000).await.unwrap();
    assert_eq!(payments.len(), ORDERS);
    assert!(payments.iter().all(|p| p.attempts.len() == 1 && p.receipt.is_some()));
    assert_eq!(charged(dir.path()).len(), ORDERS, "each once");
    assert_eq!(house.books().await, (i64::try_from(ORDERS).unwrap() * AMOUNT, 0));
}

/// Pays one order after the other; asks again whenever the database was away. Says how often that was.
async fn pay(processor: Processor, orders: Vec<ChargeOrder>) -> usize {
    let mut refused = 0;
    for order in orders {
        let mut known: Option<IntentId> = None;
        for _ in 0..TRIES {
            match processor.submit(order.clone()).await {
                Ok(intent) => {
                    assert!(known.as_ref().is_none_or(|k| *k == intent), "the same order gave two payments");
                    known = Some(intent.clone());
                    if let Ok(Outcome::Paid(_)) = processor.outcome(&intent, Duration::from_secs(1)).await {
                        break;
                    }
                }
                Err(SubmitError::Store(StoreError::Unreachable(_) | StoreError::Unsure(_) | StoreError::Busy)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(known.is_some(), "it was never taken");
    }
    refused
}

/// Ends every other connection to the database, again and again.
async fn cut(url: String) -> usize {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut cut_off = 0;
    for _ in 0..CUTS {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        cut_off += sqlx::query(all).fetch_all(&mut connection).await.unwrap().len();
    }
    cut_off
}
