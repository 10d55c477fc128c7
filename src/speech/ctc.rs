//! CTC's arithmetic on the posteriors of one utterance: how likely is a given string, and which strings are the likeliest?
//!
//! Each frame is a probability over tokens. A string's probability is the sum over all ways of stretching it over the frames, blanks
//! between (Graves et al. 2006). As every frame adds up to one, so do all strings: what is computed here are true probabilities, and
//! a prefix has the sum of all strings that begin with it. So a search that always opens the likeliest prefix knows when no string
//! that it has not seen can be likelier than those it has: what it finds is proven, not just the best of a beam.
//!
//! All in f64 without scaling: a string 300 orders of magnitude down counts as impossible, which only ever refuses.

use std::collections::BinaryHeap;
use std::rc::Rc;

use zeroize::Zeroizing;

use super::lexicon::Ways;

/// Below this a probability is nothing; keeps the arithmetic out of the slow denormal numbers.
const NOTHING: f64 = 1e-290;
/// Whisper's window, in frames of 20 ms.
const FRAMES_MAX: usize = 1_500;

/// Probabilities of the tokens (the first is the blank), frame by frame. Wiped on drop, hidden in `Debug`.
pub struct Posteriors {
    frames: usize,
    /// Token by token, each `frames` long.
    by_token: Zeroizing<Vec<f64>>,
}

impl std::fmt::Debug for Posteriors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Posteriors({} frames)", self.frames)
    }
}

/// All ways to have said exactly some tokens within the first t frames, t from 0 on: the last frame a blank, or the last token.
struct Reach {
    blank: Zeroizing<Vec<f64>>,
    token: Zeroizing<Vec<f64>>,
}

/// A token string that was found.
pub struct Found {
    /// Tokens.
    pub tokens: Zeroizing<Vec<u8>>,
    /// Its probability.
    pub probability: f64,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Found(…, {:.1e})", self.probability)
    }
}

/// What a search saw.
#[derive(Debug)]
pub struct Listing {
    /// Whole strings, the likeliest first.
    pub found: Vec<Found>,
    /// No string that is not among them is likelier than this.
    pub unseen: f64,
    /// Prefixes that were opened: what it cost.
    pub steps: usize,
}

impl Posteriors {
    /// From natural logarithms, a frame after the other, `tokens` in each. `None` if that is no distribution: anything not finite
    /// or far from adding up to one.
    pub fn from_log(log_probs: &[f32], tokens: usize) -> Option<Self> {
        let frames = log_probs.len().checked_div(tokens)?;
        if tokens < 2 || !(1..=FRAMES_MAX).contains(&frames) || frames * tokens != log_probs.len() {
            return None;
        }
        let mut by_token = Zeroizing::new(vec![0.0; log_probs.len()]);
        for (t, row) in log_probs.chunks_exact(tokens).enumerate() {
            let sum: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
            if !(0.99..1.01).contains(&sum) {
                return None;
            }
            for (slot, l) in by_token.iter_mut().skip(t).step_by(frames).zip(row) {
                *slot = f64::from(*l).exp() / sum;
            }
        }
        Some(Self { frames, by_token })
    }

    /// How many frames.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// How many tokens, the blank among them.
    pub fn tokens(&self) -> usize {
        self.by_token.len() / self.frames.max(1)
    }

    fn of(&self, token: usize) -> &[f64] {
        let from = token.saturating_mul(self.frames);
        self.by_token.get(from..from + self.frames).unwrap_or_default()
    }

    fn start(&self) -> Reach {
        let mut blank = Zeroizing::new(Vec::with_capacity(self.frames + 1));
        let mut all = 1.0;
        blank.push(all);
        for p in self.of(0) {
            all = kept(all * p);
            blank.push(all);
        }
        Reach { token: Zeroizing::new(vec![0.0; self.frames + 1]), blank }
    }

    /// One token more. `again`: it is the one before, so a blank must lie between.
    fn extend(&self, before: &Reach, token: usize, again: bool) -> Reach {
        let mut next = Reach {
            blank: Zeroizing::new(Vec::with_capacity(self.frames + 1)),
            token: Zeroizing::new(Vec::with_capacity(self.frames + 1)),
        };
        let (mut blank, mut said) = (0.0, 0.0);
        next.blank.push(blank);
        next.token.push(said);
        let frames = self.of(token).iter().zip(self.of(0));
        for ((p, p_blank), (b, n)) in frames.zip(before.blank.iter().zip(before.token.iter())) {
            let enters = if again { *b } else { b + n };
            let now = kept(p * (said + enters));
            blank = kept(p_blank * (blank + said));
            said = now;
            next.blank.push(blank);
            next.token.push(said);
        }
        next
    }

    /// What all strings have together that go on with this token.
    fn mass(&self, before: &Reach, enters: &[f64], token: usize, again: bool) -> f64 {
        dot(self.of(token), if again { &before.blank } else { enters })
    }

    /// The probability of exactly this token string.
    pub fn probability(&self, tokens: &[u8]) -> f64 {
        let mut reach = self.start();
        let mut last = 0;
        for token in tokens {
            if *token == 0 {
                return 0.0;
            }
            reach = self.extend(&reach, usize::from(*token), *token == last);
            last = *token;
        }
        reach.whole()
    }

    /// The probability that any of the ways was said: exact, as no two ways are the same tokens.
    pub fn probability_of(&self, ways: &Ways) -> f64 {
        // Which arcs lead to each arc's start, those with its own token apart: a blank must lie between.
        let into: Vec<Vec<usize>> = ways
            .arcs
            .iter()
            .map(|a| {
                let leads = |b: &super::lexicon::Arc| b.to == a.from && b.token != a.token;
                ways.arcs.iter().enumerate().filter(|(_, b)| leads(b)).map(|(i, _)| i).collect()
            })
            .collect();
        let mut said = Zeroizing::new(vec![0.0f64; ways.arcs.len()]);
        let mut was = said.clone();
        let mut quiet = Zeroizing::new(vec![0.0f64; ways.places]);
        let mut reached = quiet.clone();
        if let Some(first) = quiet.first_mut() {
            *first = 1.0;
        }
        let tokens: Vec<&[f64]> = ways.arcs.iter().map(|a| self.of(usize::from(a.token))).collect();
        for (t, p_blank) in self.of(0).iter().enumerate() {
            std::mem::swap(&mut said, &mut was);
            for (((now, before), arc), (into, p)) in said.iter_mut().zip(was.iter()).zip(&ways.arcs).zip(into.iter().zip(&tokens))
            {
                let enters: f64 = into.iter().filter_map(|i| was.get(*i)).sum();
                let resting = quiet.get(arc.from).copied().unwrap_or(0.0);
                *now = kept(p.get(t).copied().unwrap_or(0.0) * (before + resting + enters));
            }
            reached.fill(0.0);
            for (arc, before) in ways.arcs.iter().zip(was.iter()) {
                if let Some(r) = reached.get_mut(arc.to) {
                    *r += before;
                }
            }
            for (q, r) in quiet.iter_mut().zip(reached.iter()) {
                *q = kept(p_blank * (*q + r));
            }
        }
        let ended = |place: usize| ways.ends.contains(&place);
        let resting: f64 = quiet.iter().enumerate().filter(|(i, _)| ended(*i)).map(|(_, q)| q).sum();
        resting + ways.arcs.iter().zip(said.iter()).filter(|(a, _)| ended(a.to)).map(|(_, s)| s).sum::<f64>()
    }

    /// Probabilities after `tokens`: of each token to come next, and, in the blank's place, of the string's end. They add up to one.
    pub fn after(&self, tokens: &[u8]) -> Zeroizing<Vec<f64>> {
        let mut reach = self.start();
        let mut last = 0;
        for token in tokens {
            reach = self.extend(&reach, usize::from(*token), *token == last);
            last = *token;
        }
        let enters = reach.enters();
        let mut next = Zeroizing::new(vec![reach.whole()]);
        next.extend((1..self.tokens()).map(|token| self.mass(&reach, &enters, token, token == usize::from(last))));
        let sum: f64 = next.iter().sum();
        if sum > 0.0 {
            next.iter_mut().for_each(|p| *p /= sum);
        }
        next
    }

    /// The likeliest token strings, until `enough` says that they will do or `steps_max` prefixes were opened. `enough` is asked with
    /// what was found so far (in no order) and the most that any string not among them can have.
    pub fn likeliest(&self, steps_max: usize, mut enough: impl FnMut(&[Found], f64) -> bool) -> Listing {
        let mut found: Vec<Found> = Vec::new();
        let mut steps = 0;
        let mut open = BinaryHeap::from([Open { mass: 1.0, tokens: Zeroizing::new(Vec::new()), before: None }]);
        let mut best = 0.0f64;
        while let Some(likeliest) = open.peek() {
            if steps >= steps_max || enough(&found, likeliest.mass) {
                break;
            }
            let Some(mut here) = open.pop() else { break };
            // From here straight down along the likeliest tokens, as long as that can lead to a better string than any so far.
            loop {
                steps += 1;
                let reach = Rc::new(self.open(&here));
                let whole = reach.whole();
                best = best.max(whole);
                let enters = reach.enters();
                let last = here.tokens.last().copied().unwrap_or(0);
                let mut down: Option<Open> = None;
                for token in 1..u8::try_from(self.tokens()).unwrap_or(u8::MAX) {
                    let mass = self.mass(&reach, &enters, usize::from(token), token == last);
                    if mass <= NOTHING {
                        continue;
                    }
                    let mut tokens = Zeroizing::new(Vec::with_capacity(here.tokens.len() + 1));
                    tokens.extend_from_slice(&here.tokens);
                    tokens.push(token);
                    let child = Open { mass, tokens, before: Some(Rc::clone(&reach)) };
                    match &mut down {
                        Some(d) if d.mass >= mass => open.push(child),
                        _ => open.extend(down.replace(child)),
                    }
                }
                found.push(Found { tokens: std::mem::take(&mut here.tokens), probability: whole });
                match down {
                    Some(next) if next.mass > best && steps < steps_max => here = next,
                    rest => {
                        open.extend(rest);
                        break;
                    }
                }
            }
        }
        found.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        // What lies below `NOTHING` is not in the heap and not seen either.
        Listing { found, unseen: open.peek().map_or(NOTHING, |o| o.mass), steps }
    }

    fn open(&self, here: &Open) -> Reach {
        match (&here.before, here.tokens.split_last()) {
            (Some(before), Some((token, earlier))) => self.extend(before, usize::from(*token), earlier.last() == Some(token)),
            _ => self.start(),
        }
    }
}

impl Reach {
    fn whole(&self) -> f64 {
        self.blank.last().copied().unwrap_or(0.0) + self.token.last().copied().unwrap_or(0.0)
    }

    /// From where another token can begin, t frames in.
    fn enters(&self) -> Zeroizing<Vec<f64>> {
        Zeroizing::new(self.blank.iter().zip(self.token.iter()).map(|(b, n)| b + n).collect())
    }
}

/// A prefix not opened yet; ordered by what all strings have together that begin so.
struct Open {
    mass: f64,
    tokens: Zeroizing<Vec<u8>>,
    before: Option<Rc<Reach>>,
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
        self.mass.total_cmp(&other.mass)
    }
}

#[inline(always)]
fn kept(p: f64) -> f64 {
    if p > NOTHING { p } else { 0.0 }
}

/// Sum of products, in eight sums that run side by side. The longer one's rest is left out.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0f64; 8];
    let n = a.len().min(b.len());
    let (a, b) = (a.get(..n).unwrap_or_default(), b.get(..n).unwrap_or_default());
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (x, y) in a.iter().zip(b) {
        for ((s, x), y) in sums.iter_mut().zip(x).zip(y) {
            *s += x * y;
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::lexicon::Lexicon;
    use super::*;

    /// Log posteriors from any numbers; `sharp` makes them as decided as a trained head's.
    fn posteriors(raw: &[f32], tokens: usize, sharp: f32) -> Posteriors {
        let mut log = Vec::new();
        for row in raw.chunks_exact(tokens) {
            let sum: f32 = row.iter().map(|v| (v * sharp).exp()).sum();
            log.extend(row.iter().map(|v| v * sharp - sum.ln()));
        }
        Posteriors::from_log(&log, tokens).unwrap()
    }

    /// Every path, one after the other.
    fn by_hand(p: &Posteriors) -> BTreeMap<Vec<u8>, f64> {
        let mut paths: Vec<(Vec<u8>, f64)> = vec![(vec![], 1.0)];
        for t in 0..p.frames() {
            paths = paths
                .iter()
                .flat_map(|(path, mass)| {
                    (0..p.tokens()).map(move |k| {
                        let mut longer = path.clone();
                        longer.push(u8::try_from(k).unwrap());
                        (longer, mass * p.of(k)[t])
                    })
                })
                .collect();
        }
        let mut all = BTreeMap::new();
        for (mut path, mass) in paths {
            path.dedup();
            path.retain(|k| *k != 0);
            *all.entry(path).or_insert(0.0) += mass;
        }
        all
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 + 1e-9 * a.abs().max(b.abs())
    }

    proptest! {
        #[test]
        fn probabilities_are_those_of_all_paths(raw in proptest::collection::vec(-1.0f32..1.0, 24), sharp in 0.0f32..12.0) {
            let p = posteriors(&raw, 4, sharp);
            let all = by_hand(&p);
            prop_assert!(near(all.values().sum(), 1.0));
            for (string, mass) in &all {
                prop_assert!(near(p.probability(string), *mass));
                let next = p.after(string);
                prop_assert!(near(next.iter().sum(), 1.0));
            }
            prop_assert_eq!(p.probability(&[1; 7]), 0.0);
            prop_assert_eq!(p.probability(&[0]), 0.0);
        }

        #[test]
        fn the_search_finds_the_likeliest_strings_and_knows_what_it_has_not_seen(
            raw in proptest::collection::vec(-1.0f32..1.0, 24), sharp in 0.0f32..12.0, want in 1usize..5,
        ) {
            let p = posteriors(&raw, 4, sharp);
            let all = by_hand(&p);
            let mut ranked: Vec<(&Vec<u8>, f64)> = all.iter().map(|(s, m)| (s, *m)).collect();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
            let listing = p.likeliest(10_000, |found, unseen| found.iter().filter(|f| f.probability >= unseen).count() >= want);
            for (found, (_, mass)) in listing.found.iter().zip(&ranked).take(want) {
                prop_assert!(near(found.probability, *mass), "{} {}", found.probability, mass);
            }
            for few in 0..6 {
                let listing = p.likeliest(few, |_, _| false);
                prop_assert!(listing.steps <= few);
                for (string, mass) in &all {
                    let seen = listing.found.iter().any(|f| *f.tokens == *string);
                    prop_assert!(seen || *mass <= listing.unseen * (1.0 + 1e-9));
                }
            }
        }

        #[test]
        fn the_ways_of_a_number_add_up(raw in proptest::collection::vec(-1.0f32..1.0, 12 * 5), sharp in 0.0f32..6.0) {
            let words = "blank 0 1 2 3 4 5 6 7 8 9 double".split(' ').map(str::to_owned).collect::<Vec<_>>();
            let lexicon = Lexicon::new(&words).unwrap();
            let p = posteriors(&raw, 12, sharp);
            let (two, three, double) = (3, 4, 11);
            for (digits, strings) in [
                (vec![2, 2], vec![vec![two, two], vec![double, two]]),
                (vec![3, 2, 2], vec![vec![three, two, two], vec![three, double, two]]),
                (vec![2, 2, 2], vec![vec![two; 3], vec![double, two, two], vec![two, double, two]]),
                (vec![], vec![vec![]]),
            ] {
                let want: f64 = strings.iter().map(|s: &Vec<u8>| p.probability(s)).sum();
                prop_assert!(near(p.probability_of(&lexicon.ways(&digits)), want));
            }
        }
    }

    #[test]
    fn long_strings_are_as_likely_by_either_way() {
        let (frames, tokens) = (450, 11);
        let mut s = 7u32;
        let raw: Vec<f32> = (0..frames * tokens)
            .map(|_| {
                s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (s >> 8) as f32 / (1u32 << 24) as f32
            })
            .collect();
        let p = posteriors(&raw, tokens, 9.0);
        let lexicon = Lexicon::new(&"blank 0 1 2 3 4 5 6 7 8 9".split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap();
        // The path of each frame's likeliest token.
        let mut path: Vec<u8> = (0..frames)
            .map(|t| (0..11u8).max_by(|a, b| p.of(usize::from(*a))[t].total_cmp(&p.of(usize::from(*b))[t])).unwrap())
            .collect();
        path.dedup();
        let tokens: Vec<u8> = path.into_iter().filter(|k| *k != 0).collect();
        let digits: Vec<u8> = tokens.iter().map(|k| k - 1).collect();
        let (a, b) = (p.probability(&tokens), p.probability_of(&lexicon.ways(&digits)));
        assert!(a > 0.0 && (a.ln() - b.ln()).abs() < 1e-9, "{a:e} {b:e}");
    }

    #[test]
    fn what_is_no_distribution_is_refused_and_debug_hides_it() {
        use std::f32::consts::LN_2;
        assert!(Posteriors::from_log(&[0.0, f32::NEG_INFINITY, -LN_2, -LN_2], 2).is_some());
        for bad in [&[f32::NAN, 0.0][..], &[0.0, 0.0], &[f32::INFINITY, 0.0], &[], &[0.0], &[-0.7, -0.7, -0.7]] {
            assert!(Posteriors::from_log(bad, 2).is_none(), "{bad:?}");
        }
        let p = posteriors(&[0.5; 22], 11, 1.0);
        assert_eq!(format!("{p:?}"), "Posteriors(2 frames)");
        let found = Found { tokens: Zeroizing::new(vec![4, 1]), probability: 0.5 };
        assert_eq!(format!("{found:?}"), "Found(…, 5.0e-1)");
    }
}
