//! Spreads work over threads, one inference a thread, and tells on standard error how long it will take.
#![allow(clippy::disallowed_methods)] // measures wall time; nothing here is in a call's path

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A line of progress is written this often.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Progress of one stage, on standard error.
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: usize,
    done: AtomicUsize,
    began: Instant,
    told: Mutex<Option<Instant>>,
}

impl Progress {
    /// Begins a stage of `total` steps.
    pub fn new(what: impl Into<String>, total: usize) -> Self {
        Self { what: what.into(), total, done: AtomicUsize::new(0), began: Instant::now(), told: Mutex::new(None) }
    }

    /// One step more is done.
    pub fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = now.duration_since(told.unwrap_or(self.began)) >= TELL_EVERY || (done == self.total && told.is_some());
        if due {
            *told = Some(now);
            let spent = now.duration_since(self.began).as_secs_f64();
            let left = spent / done as f64 * self.total.saturating_sub(done) as f64;
            let mut err = std::io::stderr().lock();
            // On a terminal the line is written over; in a log each stands for itself.
            let (start, end) = if err.is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
            let end = if done == self.total { "\n" } else { end };
            let text = format!("{start}{}: {done} of {}, {spent:.0} s, about {left:.0} s to go{end}", self.what, self.total);
            let _gone = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        }
    }
}

/// Does `work` for every item on `threads` threads; results come in the items' order. The first error stops all.
pub fn map<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    progress: &Progress,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let failed: Mutex<Option<E>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while failed.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(item), Some(slot)) = (items.get(at), slots.get(at)) else { break };
                    match work(item) {
                        Ok(r) => *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(r),
                        Err(e) => {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                        }
                    }
                    progress.step();
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(slots.into_iter().filter_map(|s| s.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()),
    }
}

/// Runs `work` and tells how many milliseconds of wall time it took.
pub fn timed<R>(work: impl FnOnce() -> R) -> (R, f64) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed().as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_and_an_error_stops_all() {
        let items: Vec<usize> = (0..100).collect();
        let out: Result<Vec<usize>, ()> = map(&items, 4, &Progress::new("test", 100), |i| Ok(i * 2));
        assert_eq!(out.unwrap(), items.iter().map(|i| i * 2).collect::<Vec<_>>());
        let out: Result<Vec<usize>, String> =
            map(&items, 4, &Progress::new("test", 100), |i| if *i == 7 { Err("seven".to_owned()) } else { Ok(*i) });
        assert_eq!(out.unwrap_err(), "seven");
    }
}
