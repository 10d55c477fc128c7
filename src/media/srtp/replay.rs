//! Which packets have come before (RFC 3711 section 3.3.2).

/// How far back a packet may come late and still be taken, in packets: 2.5 s of audio.
pub const REPLAY_WINDOW_PACKETS: u64 = 128;

/// The newest index and, bit by bit, which of those before it have come.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayWindow {
    newest: Option<u64>,
    // Bit n: `newest - n` has come.
    seen: u128,
}

impl ReplayWindow {
    /// Nothing has come.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// Whether this index has neither come nor is too old to know.
    pub fn is_new(&self, index: u64) -> bool {
        let Some(newest) = self.newest else { return true };
        if index > newest {
            return true;
        }
        let back = newest - index;
        back < REPLAY_WINDOW_PACKETS && self.seen >> back & 1 == 0
    }

    /// It has come, and was authentic.
    pub fn mark(&mut self, index: u64) {
        let newest = self.newest.unwrap_or(index);
        if index >= newest {
            let ahead = u32::try_from(index - newest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = Some(index);
        } else if let Some(bit) = u32::try_from(newest - index).ok().and_then(|back| 1u128.checked_shl(back)) {
            self.seen |= bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_index_is_new_once_as_far_as_the_window_reaches(indices in prop::collection::vec(0u64..400, 1..300)) {
            let mut window = ReplayWindow::default();
            let mut come = std::collections::BTreeSet::new();
            for index in indices {
                let newest = come.last().copied().unwrap_or(index);
                let expected = !come.contains(&index) && index + REPLAY_WINDOW_PACKETS > newest;
                prop_assert_eq!(window.is_new(index), expected, "{} after {:?}", index, come);
                if expected {
                    window.mark(index);
                    come.insert(index);
                }
            }
        }
    }
}
