//! What a turn has brought so far, as it comes from the line. It lies in blocks: making room copies nothing, a call that says little
//! holds little, and a long turn never holds two copies of itself.

use std::collections::VecDeque;

use zeroize::Zeroizing;

/// A block holds so many samples: 8 KiB, half a second of a telephone line. A caller who says nothing holds one or two, for the pre-roll.
const BLOCK_SAMPLES: usize = 4_096;

/// Audio that grows at one end and may be dropped from the other. Wiped on drop.
#[derive(Default)]
pub(super) struct Samples(VecDeque<Zeroizing<Vec<i16>>>);

impl std::fmt::Debug for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Samples({})", self.len())
    }
}

impl Samples {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|block| block.len()).sum()
    }

    /// Adds what was heard.
    pub(super) fn push(&mut self, mut more: &[i16]) {
        while !more.is_empty() {
            let room = self.0.back().map_or(0, |last| BLOCK_SAMPLES.saturating_sub(last.len()));
            if room == 0 {
                self.0.push_back(Zeroizing::new(Vec::with_capacity(BLOCK_SAMPLES)));
                continue;
            }
            let (now, later) = more.split_at(room.min(more.len()));
            if let Some(last) = self.0.back_mut() {
                last.extend_from_slice(now);
            }
            more = later;
        }
    }

    /// The first `count` in one piece, or all if there are fewer.
    pub(super) fn first(&self, count: usize) -> Zeroizing<Vec<i16>> {
        let count = count.min(self.len());
        // Room for all at once: what a vector outgrows is not wiped.
        let mut piece = Zeroizing::new(Vec::with_capacity(count));
        for block in &self.0 {
            let wanted = block.len().min(count - piece.len());
            piece.extend_from_slice(block.get(..wanted).unwrap_or_default());
        }
        piece
    }

    /// Forgets the first `count`.
    pub(super) fn drop_first(&mut self, mut count: usize) {
        while let Some(first) = self.0.front_mut() {
            if count < first.len() {
                first.drain(..count);
                return;
            }
            count -= first.len();
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_kept_is_what_came_and_was_not_dropped(
            changes in proptest::collection::vec((any::<bool>(), 0..20_000usize), 1..30),
            count in 0..100_000usize,
        ) {
            let (mut kept, mut plain, mut next) = (Samples::default(), Vec::new(), 0i16);
            for (adds, size) in changes {
                if adds {
                    let more: Vec<i16> = (0..size).map(|n| next.wrapping_add(n as i16)).collect();
                    next = next.wrapping_add(size as i16);
                    kept.push(&more);
                    plain.extend(more);
                } else {
                    kept.drop_first(size);
                    plain.drain(..size.min(plain.len()));
                }
                prop_assert_eq!(kept.len(), plain.len());
                prop_assert!(kept.0.iter().all(|block| block.capacity() == BLOCK_SAMPLES));
                prop_assert!(kept.0.len() <= plain.len() / BLOCK_SAMPLES + 2, "no more blocks than are needed");
            }
            prop_assert_eq!(&kept.first(count)[..], &plain[..count.min(plain.len())]);
        }
    }
}
