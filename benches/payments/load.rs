//! Clients that pay: each submits an order, waits for its outcome, and goes on to the next, as calls do.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use voicepay::processor::{ChargeOrder, Outcome};

use crate::house::House;

/// How long a payment may take before the run counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients pay this long before it counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// Orders that are made ready for each second and client; more than any disk here can take.
const READY_A_SECOND: usize = 4_000;

/// What came of it.
pub struct Load {
    pub payments: usize,
    pub time: Duration,
    /// How long each took, shortest first.
    pub took: Vec<Duration>,
    pub commits: u64,
    /// Processor time while it counted: this process's and, for these payments, a server's.
    pub cpu: Duration,
}

impl Load {
    pub fn a_second(&self) -> f64 {
        f64::from(u32::try_from(self.payments).unwrap()) / self.time.as_secs_f64()
    }

    pub fn commits_each(&self) -> f64 {
        f64::from(u32::try_from(self.commits).unwrap()) / f64::from(u32::try_from(self.payments.max(1)).unwrap())
    }

    pub fn cpu_each_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1_000.0 / f64::from(u32::try_from(self.payments.max(1)).unwrap())
    }

    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let at = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took.get(at).map_or(0.0, |d| d.as_secs_f64() * 1_000.0)
    }

    pub fn in_words(&self) -> String {
        format!(
            "{:.0} payments/s, p50 {:.1} p95 {:.1} p99 {:.1} ms, {:.2} commits and {:.2} ms of processor each",
            self.a_second(),
            self.percentile_ms(50),
            self.percentile_ms(95),
            self.percentile_ms(99),
            self.commits_each(),
            self.cpu_each_ms()
        )
    }
}

/// `clients` pay for `time`, after a warm-up.
pub async fn pay(house: &House, clients: usize, time: Duration) -> Load {
    let seconds = usize::try_from((WARM_UP + time).as_secs()).unwrap() + 1;
    let orders = house.orders(seconds * READY_A_SECOND).await;
    let counts_from = Instant::now() + WARM_UP;
    let end = counts_from + time;
    let paying = Paying::begin(house, clients, orders, counts_from, Some(end));
    tokio::time::sleep_until(counts_from).await;
    let (commits, cpu) = (house.commits().await, house.cpu().await);
    tokio::time::sleep_until(end).await;
    let (commits, cpu) = (house.commits().await - commits, house.cpu().await.since(&cpu));
    let took = paying.end().await;
    Load { payments: took.len(), time, took, commits, cpu }
}

/// `clients` make `payments`, and what they wrote is sealed.
pub async fn pay_so_many(house: &House, clients: usize, payments: usize) -> Load {
    let orders = house.orders(payments).await;
    house.sealed().await;
    let (commits, cpu, began) = (house.commits().await, house.cpu().await, Instant::now());
    let took = Paying::begin(house, clients, orders, began, None).end().await;
    let time = began.elapsed();
    house.sealed().await;
    let (commits, cpu) = (house.commits().await - commits, house.cpu().await.since(&cpu));
    Load { payments: took.len(), time, took, commits, cpu }
}

/// Clients at work.
struct Paying {
    tasks: Vec<JoinHandle<()>>,
    took: Arc<Mutex<Vec<Duration>>>,
}

impl Paying {
    /// They pay until `end`, or until there are no more orders. What ends between `counts_from` and `end` counts.
    fn begin(house: &House, clients: usize, orders: Vec<ChargeOrder>, counts_from: Instant, end: Option<Instant>) -> Self {
        let (orders, took) = (Arc::new(Mutex::new(orders)), Arc::new(Mutex::new(Vec::new())));
        let over = move |at: Instant| end.is_some_and(|end| at >= end);
        let tasks = (0..clients).map(|_| {
            let (orders, took, processor) = (orders.clone(), took.clone(), house.processor().clone());
            tokio::spawn(async move {
                while !over(Instant::now()) {
                    let Some(order) = orders.lock().unwrap().pop() else {
                        assert!(end.is_none(), "orders enough");
                        return;
                    };
                    let began = Instant::now();
                    let intent = processor.submit(order).await.unwrap();
                    let outcome = processor.outcome(&intent, PATIENCE).await.unwrap();
                    let ended = Instant::now();
                    assert!(matches!(outcome, Outcome::Paid(_)), "{outcome:?}");
                    if ended >= counts_from && !over(ended) {
                        took.lock().unwrap().push(ended - began);
                    }
                }
            })
        });
        Self { tasks: tasks.collect(), took }
    }

    /// How long each took, shortest first.
    async fn end(self) -> Vec<Duration> {
        for task in self.tasks {
            task.await.unwrap();
        }
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort_unstable();
        took
    }
}
