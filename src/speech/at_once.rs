//! How many recognitions of one engine may run at once: one more is refused, nothing queues here.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::SpeechError;

/// Counts the recognitions that run.
#[derive(Debug)]
pub(super) struct AtOnce {
    running: AtomicUsize,
    limit: usize,
}

impl AtOnce {
    /// At most `limit`, and at least one.
    pub(super) fn new(limit: usize) -> Self {
        Self { running: AtomicUsize::new(0), limit: limit.max(1) }
    }

    /// Begins one, if there is room.
    pub(super) fn begin(&self) -> Result<Running<'_>, SpeechError> {
        let running = Running(&self.running);
        if self.running.fetch_add(1, Ordering::AcqRel) >= self.limit {
            return Err(SpeechError::Overloaded { limit: self.limit });
        }
        Ok(running)
    }

    /// How many may run.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }
}

/// One recognition: counts down when it ends, however it ends.
#[derive(Debug)]
pub(super) struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_may_run_is_refused_and_leaves_its_place() {
        let at_once = AtOnce::new(2);
        let (a, b) = (at_once.begin().unwrap(), at_once.begin().unwrap());
        for _ in 0..3 {
            assert!(matches!(at_once.begin(), Err(SpeechError::Overloaded { limit: 2 })));
        }
        drop(a);
        let c = at_once.begin().unwrap();
        drop((b, c));
        assert_eq!(at_once.running.load(Ordering::Acquire), 0);
        assert_eq!(AtOnce::new(0).limit(), 1);
    }
}
