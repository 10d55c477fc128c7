//! The digit decoder: what is the likeliest digit string, how likely is a given one, which other string comes closest to it?
//!
//! The model says, for a prefix, how likely each next digit and the end are. As every step only lowers a string's probability, a
//! search that always goes on from the most likely open prefix, and drops what is already less likely than the best whole string,
//! finds the best string of any length, not just the best of a beam. What was asked once is remembered in a trie for the call, so
//! strings that begin alike share the work.

use std::collections::BinaryHeap;

use zeroize::{Zeroize, Zeroizing};

/// Ten digits and the end of the number.
pub const CHOICES: usize = 11;
/// The choice that ends the number.
pub const END: usize = 10;
/// The longest string looked at: a card number has 19 digits at most, and a few more must be possible for the search to see that
/// too much was said.
pub const STRING_MAX_DIGITS: usize = 24;

/// A model of the next digit.
pub trait NextDigit {
    /// Why it failed.
    type Error;
    /// Natural logarithms of the probabilities of the ten digits and the end after `prefix` (digit values).
    fn next(&mut self, prefix: &[u8]) -> Result<[f32; CHOICES], Self::Error>;
}

/// A whole string that the search found. Wiped on drop.
pub struct Found {
    /// Digit values.
    pub digits: Zeroizing<Vec<u8>>,
    /// log P(digits, end).
    pub log_prob: f32,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Found(…, {:.2})", self.log_prob)
    }
}

/// One utterance being asked about.
pub struct Walk<M: NextDigit> {
    model: M,
    trie: Vec<Node>,
    /// Model steps taken so far.
    steps: usize,
    left_open: f32,
}

impl<M: NextDigit> std::fmt::Debug for Walk<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Walk({} steps)", self.steps)
    }
}

struct Node {
    log_probs: Option<[f32; CHOICES]>,
    children: [usize; 10], // 0: none, as the root is nobody's child
}

const LEAF: Node = Node { log_probs: None, children: [0; 10] };

impl<M: NextDigit> Drop for Walk<M> {
    fn drop(&mut self) {
        for node in &mut self.trie {
            node.children.zeroize(); // the children's places spell the strings that were asked about
        }
    }
}

/// An open prefix; ordered by its probability.
struct Open {
    log_prob: f32,
    prefix: Zeroizing<Vec<u8>>,
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Open {}
impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Open {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.log_prob.total_cmp(&other.log_prob)
    }
}

impl<M: NextDigit> Walk<M> {
    /// Starts with nothing asked.
    pub fn new(model: M) -> Self {
        Self { model, trie: vec![LEAF], steps: 0, left_open: f32::NEG_INFINITY }
    }

    /// What the last [`Walk::best_except`] did not get to see: no string that it missed is likelier than this. Minus infinity if it
    /// saw all that could matter.
    pub fn left_open(&self) -> f32 {
        self.left_open
    }

    /// Model steps taken so far: what the walk has cost.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The distribution after `prefix`.
    pub fn after(&mut self, prefix: &[u8]) -> Result<[f32; CHOICES], M::Error> {
        let mut at = 0;
        for digit in prefix {
            let fresh = self.trie.len();
            let Some(child) = self.trie.get_mut(at).and_then(|n| n.children.get_mut(usize::from(*digit))) else {
                return Ok([f32::NEG_INFINITY; CHOICES]); // no digit: nothing follows it
            };
            if *child == 0 {
                *child = fresh;
                at = fresh;
                self.trie.push(LEAF);
            } else {
                at = *child;
            }
        }
        if let Some(known) = self.trie.get(at).and_then(|n| n.log_probs) {
            return Ok(known);
        }
        self.steps += 1;
        let log_probs = self.model.next(prefix)?;
        if let Some(node) = self.trie.get_mut(at) {
            node.log_probs = Some(log_probs);
        }
        Ok(log_probs)
    }

    /// log P(digits, end): teacher-forced.
    pub fn log_prob(&mut self, digits: &[u8]) -> Result<f32, M::Error> {
        self.log_prob_from(digits, f32::NEG_INFINITY)
    }

    /// log P(digits, end) if that is at least `floor`, else minus infinity: stops as soon as the prefix is less likely than that.
    pub fn log_prob_from(&mut self, digits: &[u8], floor: f32) -> Result<f32, M::Error> {
        let mut sum = 0.0;
        for i in 0..=digits.len() {
            let Some((prefix, rest)) = digits.split_at_checked(i) else { break };
            sum += pick(&self.after(prefix)?, rest.first().map_or(END, |d| usize::from(*d)));
            if sum < floor {
                return Ok(f32::NEG_INFINITY);
            }
        }
        Ok(sum)
    }

    /// The likeliest string that is not in `except`, looked for with at most `steps` more model steps. When they run out, the best
    /// whole string so far; `None` only if no string was finished at all. [`Walk::left_open`] then says what may have been missed.
    pub fn best_except(&mut self, except: &[&[u8]], steps: usize) -> Result<Option<Found>, M::Error> {
        let last_step = self.steps.saturating_add(steps);
        self.left_open = f32::NEG_INFINITY;
        let mut best: Option<Found> = None;
        let mut open = BinaryHeap::from([Open { log_prob: 0.0, prefix: Zeroizing::new(Vec::new()) }]);
        while let Some(Open { mut log_prob, mut prefix }) = open.pop() {
            // From here straight down along the likeliest digits: the model's own cache then holds the prefix already.
            loop {
                let bound = best.as_ref().map_or(f32::NEG_INFINITY, |b| b.log_prob);
                // Without a whole string it goes on until one is done, but no longer than a string can be.
                let spent = self.steps >= last_step && (best.is_some() || self.steps >= last_step + STRING_MAX_DIGITS);
                if log_prob <= bound || spent || prefix.len() > STRING_MAX_DIGITS {
                    if spent && log_prob > bound {
                        self.left_open = self.left_open.max(log_prob);
                    }
                    break;
                }
                let next = self.after(&prefix)?;
                let whole = log_prob + pick(&next, END);
                if whole > bound && !except.iter().any(|e| *e == prefix.as_slice()) {
                    best = Some(Found { digits: prefix.clone(), log_prob: whole });
                }
                let bound = best.as_ref().map_or(f32::NEG_INFINITY, |b| b.log_prob);
                let likeliest = likeliest_digit(&next);
                for digit in 0..10u8 {
                    let child = log_prob + pick(&next, usize::from(digit));
                    if digit != likeliest && child > bound {
                        let mut longer = Zeroizing::new(Vec::with_capacity(prefix.len() + 1));
                        longer.extend_from_slice(&prefix);
                        longer.push(digit);
                        open.push(Open { log_prob: child, prefix: longer });
                    }
                }
                log_prob += pick(&next, usize::from(likeliest));
                prefix.push(likeliest);
            }
            let bound = best.as_ref().map_or(f32::NEG_INFINITY, |b| b.log_prob);
            if self.steps >= last_step || open.peek().is_none_or(|o| o.log_prob <= bound) {
                break;
            }
        }
        let bound = best.as_ref().map_or(f32::NEG_INFINITY, |b| b.log_prob);
        if let Some(likeliest) = open.peek().filter(|o| o.log_prob > bound) {
            self.left_open = self.left_open.max(likeliest.log_prob);
        }
        if self.left_open <= bound {
            self.left_open = f32::NEG_INFINITY;
        }
        Ok(best)
    }
}

fn pick(log_probs: &[f32; CHOICES], choice: usize) -> f32 {
    log_probs.get(choice).copied().unwrap_or(f32::NEG_INFINITY)
}

fn likeliest_digit(log_probs: &[f32; CHOICES]) -> u8 {
    (0..10u8).max_by(|a, b| pick(log_probs, usize::from(*a)).total_cmp(&pick(log_probs, usize::from(*b)))).unwrap_or(0)
}

/// Logits of the eleven choices to natural-log probabilities.
pub fn log_softmax(mut logits: [f32; CHOICES]) -> [f32; CHOICES] {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|l| (l - top).exp()).sum();
    let shift = top + sum.ln();
    for l in &mut logits {
        *l -= shift;
    }
    logits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Says six nines: whoever looks only a few steps ahead sees nothing but unlikely ends.
    struct Deep;

    impl NextDigit for Deep {
        type Error = std::convert::Infallible;
        fn next(&mut self, prefix: &[u8]) -> Result<[f32; CHOICES], Self::Error> {
            let mut logits = [-20.0; CHOICES];
            logits[9] = 5.0;
            logits[END] = if prefix.len() == 6 { 30.0 } else { -8.0 };
            Ok(log_softmax(logits))
        }
    }

    #[test]
    fn a_search_that_ran_out_of_steps_says_how_good_what_it_missed_may_be() {
        let mut walk = Walk::new(Deep);
        let found = walk.best_except(&[], 3).unwrap().unwrap();
        let missed = walk.left_open();
        assert!(missed > found.log_prob, "{missed} is above {}", found.log_prob);
        let mut patient = Walk::new(Deep);
        let best = patient.best_except(&[], 100_000).unwrap().unwrap();
        assert!(best.log_prob <= missed, "nothing missed is likelier than was said");
        assert_eq!(patient.left_open(), f32::NEG_INFINITY);
    }

    /// A made-up model over strings of up to four digits from {0, 1, 2}: distributions from a hash of the prefix.
    struct Toy {
        seed: u64,
        asked: usize,
    }

    impl NextDigit for Toy {
        type Error = std::convert::Infallible;
        fn next(&mut self, prefix: &[u8]) -> Result<[f32; CHOICES], Self::Error> {
            self.asked += 1;
            let mut h = self.seed;
            for d in prefix {
                h = (h ^ (u64::from(*d) + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                h ^= h >> 29;
            }
            let mut logits = [f32::NEG_INFINITY; CHOICES];
            for (i, choice) in [0, 1, 2, END].into_iter().enumerate() {
                let noise = (h >> (i * 11)) % 2_000;
                logits[choice] = noise as f32 / 250.0 + if choice == END { prefix.len() as f32 - 2.0 } else { 0.0 };
            }
            if prefix.len() >= 4 {
                logits[..END].fill(f32::NEG_INFINITY);
            }
            Ok(log_softmax(logits))
        }
    }

    fn all_strings() -> Vec<Vec<u8>> {
        let mut all = vec![vec![]];
        let mut from = 0;
        while from < all.len() {
            if all[from].len() < 4 {
                for d in 0..3 {
                    let mut longer = all[from].clone();
                    longer.push(d);
                    all.push(longer);
                }
            }
            from += 1;
        }
        all
    }

    proptest! {
        #[test]
        fn the_search_finds_the_best_string_of_any_length(seed in any::<u64>()) {
            let mut walk = Walk::new(Toy { seed, asked: 0 });
            let mut all: Vec<(f32, Vec<u8>)> =
                all_strings().into_iter().map(|s| (walk.log_prob(&s).unwrap(), s)).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            let total: f32 = all.iter().map(|a| a.0.exp()).sum();
            prop_assert!((total - 1.0).abs() < 1e-3, "probabilities add up: {total}");
            let mut fresh = Walk::new(Toy { seed, asked: 0 });
            let best = fresh.best_except(&[], 10_000).unwrap().unwrap();
            prop_assert!((best.log_prob - all[0].0).abs() < 1e-4);
            let rival = fresh.best_except(&[&all[0].1], 10_000).unwrap().unwrap();
            prop_assert!((rival.log_prob - all[1].0).abs() < 1e-4);
            prop_assert_eq!(fresh.steps(), fresh.model.asked, "nothing is asked twice");
            prop_assert!(fresh.steps() <= 121);
        }

        #[test]
        fn few_steps_still_give_a_whole_string(seed in any::<u64>(), steps in 0usize..6) {
            let mut walk = Walk::new(Toy { seed, asked: 0 });
            prop_assert!(walk.best_except(&[], steps).unwrap().is_some());
        }
    }

    #[test]
    fn a_string_below_the_floor_is_given_up_early() {
        let mut walk = Walk::new(Toy { seed: 5, asked: 0 });
        assert_eq!(walk.log_prob_from(&[9, 9, 9, 9], -50.0).unwrap(), f32::NEG_INFINITY);
        assert_eq!(walk.steps(), 1);
        assert_eq!(walk.log_prob(&[7]).unwrap(), f32::NEG_INFINITY);
    }

    #[test]
    fn a_decoder_that_never_ends_is_stopped() {
        struct Endless;
        impl NextDigit for Endless {
            type Error = std::convert::Infallible;
            fn next(&mut self, _: &[u8]) -> Result<[f32; CHOICES], Self::Error> {
                let mut logits = [0.0; CHOICES];
                logits[7] = 20.0;
                logits[END] = f32::NEG_INFINITY;
                Ok(log_softmax(logits))
            }
        }
        let mut walk = Walk::new(Endless);
        assert!(walk.best_except(&[], 500).unwrap().is_none());
        assert!(walk.steps() <= 600);
    }

    #[test]
    fn debug_shows_no_digits() {
        let found = Found { digits: Zeroizing::new(vec![4, 1, 1, 1]), log_prob: -1.0 };
        assert_eq!(format!("{found:?}"), "Found(…, -1.00)");
    }
}
