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
        Self { model, trie: vec![LEAF], steps: 0 }
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
        let mut sum = 0.0;
        for i in 0..=digits.len() {
            let Some((prefix, rest)) = digits.split_at_checked(i) else { break };
            sum += pick(&self.after(prefix)?, rest.first().map_or(END, |d| usize::from(*d)));
        }
        Ok(sum)
    }

    /// The likeliest string that is not in `except`, looked for with at most `steps` more model steps. When they run out, the best
    /// whole string so far; `None` only if no string was finished at all.
    pub fn best_except(&mut self, except: &[&[u8]], steps: usize) -> Result<Option<Found>, M::Error> {
        let last_step = self.steps.saturating_add(steps);
        let mut best: Option<Found> = None;
        let mut open = BinaryHeap::from([Open { log_prob: 0.0, prefix: Zeroizing::new(Vec::new()) }]);
        while let Some(Open { mut log_prob, mut prefix }) = open.pop() {
            // From here straight down along the likeliest digits: the model's own cache then holds the prefix already.
            loop {
                let bound = best.as_ref().map_or(f32::NEG_INFINITY, |b| b.log_prob);
                if log_prob <= bound || (best.is_some() && self.steps >= last_step) || prefix.len() > STRING_MAX_DIGITS {
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
