//! Clients that pay: each submits an order, waits for its outcome, and goes on to the next, as calls do.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use voicepay::processor::Outcome;

use crate::house::House;

/// How long a payment may take before the run counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients pay this long before it counts.
const WARM_UP: Duration = Duration::from_secs(2);
/// Orders that are made ready for each second and client; more than any disk here can take.
const READY_A_SECOND: usize = 2_500;

/// What came of it.
pub struct Load {
    pub payments: usize,
    pub time: Duration,
    /// How long each took, shortest first.
    pub took: Vec<Duration>,
    pub commits: u64,
    /// Processor time of this process, all threads, while it counted.
    pub cpu: Duration,
}

impl Load {
    pub fn a_second(&self) -> f64 {
        f64::from(u32::try_from(self.payments).unwrap()) / self.time.as_secs_f64()
    }

    pub fn commits_each(&self) -> f64 {
        f64::from(u32::try_from(self.commits).unwrap()) / f64::from(u32::try_from(self.payments.max(1)).unwrap())
    }

    pub fn cpu_each_us(&self) -> u128 {
        self.cpu.as_micros() / u128::try_from(self.payments.max(1)).unwrap()
    }

    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let at = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        self.took.get(at).map_or(0.0, |d| d.as_secs_f64() * 1_000.0)
    }

    pub fn in_words(&self) -> String {
        format!(
            "{:.0} payments/s, p50 {:.1} p95 {:.1} p99 {:.1} ms, {:.2} commits and {} us of processor each",
            self.a_second(),
            self.percentile_ms(50),
            self.percentile_ms(95),
            self.percentile_ms(99),
            self.commits_each(),
            self.cpu_each_us()
        )
    }
}

/// `clients` pay for `time`, after a warm-up.
pub async fn pay(house: &House, clients: usize, time: Duration) -> Load {
    let seconds = usize::try_from((WARM_UP + time).as_secs()).unwrap() + 1;
    let orders = Arc::new(Mutex::new(house.orders(seconds * READY_A_SECOND).await));
    let (took, end) = (Arc::new(Mutex::new(Vec::new())), Instant::now() + WARM_UP + time);
    let counts_from = Instant::now() + WARM_UP;
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (orders, took, processor) = (orders.clone(), took.clone(), house.processor().clone());
            tokio::spawn(async move {
                while Instant::now() < end {
                    let order = orders.lock().unwrap().pop().expect("orders enough");
                    let began = Instant::now();
                    let intent = processor.submit(order).await.unwrap();
                    let outcome = processor.outcome(&intent, PATIENCE).await.unwrap();
                    let ended = Instant::now();
                    assert!(matches!(outcome, Outcome::Paid(_)), "{outcome:?}");
                    if ended >= counts_from && ended < end {
                        took.lock().unwrap().push(ended - began);
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep_until(counts_from).await;
    let (commits, cpu) = (house.commits().await, cpu_time());
    tokio::time::sleep_until(end).await;
    let (commits, cpu) = (house.commits().await - commits, cpu_time() - cpu);
    for task in tasks {
        task.await.unwrap();
    }
    let mut took = std::mem::take(&mut *took.lock().unwrap());
    took.sort_unstable();
    Load { payments: took.len(), time, took, commits, cpu }
}

/// Processor time of this process so far (proc(5): fields 14 and 15 of `stat`, in hundredths of a second).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(fields.filter_map(|f| f.parse::<u64>().ok()).sum::<u64>() * 10)
}
