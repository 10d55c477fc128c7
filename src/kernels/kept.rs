//! Memory that a network needs anew for each utterance, kept from one to the next: the system hands out fresh pages slowly.

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize;

/// Kept at most: as many as calls that are likely to be worked on at once.
const KEPT: usize = 4;
/// A workspace of more numbers (32 MB, some 20 s of speech) is given back instead.
const KEPT_NUMBERS: usize = 8 << 20;

/// Buffers that one run of a network needs.
pub trait Workspace: Default {
    /// All of them, so that they can be wiped.
    fn buffers(&mut self) -> Vec<&mut Vec<f32>>;
}

/// Workspaces that wait for the next utterance, all zero: what passes through them is what a caller said.
#[derive(Debug)]
pub struct Kept<W: Workspace>(Mutex<Vec<Wiped<W>>>);

/// Wipes on drop, for those that are given back.
#[derive(Debug, Default)]
struct Wiped<W: Workspace>(W);

impl<W: Workspace> Drop for Wiped<W> {
    fn drop(&mut self) {
        self.0.buffers().into_iter().for_each(Zeroize::zeroize);
    }
}

impl<W: Workspace> Default for Kept<W> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<W: Workspace> Kept<W> {
    /// Runs `work` with buffers that are zero, however long they are. Any number of threads at once.
    pub fn with<R>(&self, work: impl FnOnce(&mut W) -> R) -> R {
        let mut workspace = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let result = work(&mut workspace.0);
        if workspace.0.buffers().iter().map(|b| b.capacity()).sum::<usize>() <= KEPT_NUMBERS {
            for buffer in workspace.0.buffers() {
                buffer.fill(0.0);
            }
            let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(workspace);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct One(Vec<f32>);

    impl Workspace for One {
        fn buffers(&mut self) -> Vec<&mut Vec<f32>> {
            vec![&mut self.0]
        }
    }

    #[test]
    fn what_one_run_leaves_the_next_does_not_see() {
        let kept = Kept::<One>::default();
        let (at, length) = kept.with(|w| {
            w.0.resize(1000, 7.0);
            (w.0.as_ptr(), w.0.len())
        });
        kept.with(|w| {
            assert_eq!((w.0.as_ptr(), w.0.len()), (at, length), "the same memory");
            assert!(w.0.iter().all(|v| *v == 0.0));
            kept.with(|other| assert_ne!(other.0.as_ptr(), w.0.as_ptr(), "one at a time"));
        });
        assert_eq!(kept.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let kept = Kept::<One>::default();
        kept.with(|w| w.0.resize(KEPT_NUMBERS + 1, 1.0));
        assert!(kept.0.lock().unwrap().is_empty());
    }
}
