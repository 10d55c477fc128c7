//! Wrong numbers tried against an utterance, and the ratio that each would have had in the service.
//!
//! The ratio of a wrong number N is what the service would have computed had N been the authorised one:
//! log P(N) − log P(best other string), the best being looked for among the free reading, the number said and all numbers scored.
//! The service's own search may find a better rival still, so that what passes here is at least what passes there.

use std::collections::HashMap;

use super::data::Recipe;
use super::neighbours::{Kind, luhn_pairs, one_slip, random_number};
use super::random::Random;
use crate::speech::{FreeReading, Heard, NumberEngine, SpeechError};

/// Strings less likely than the best by more than this (natural logarithm) are given up, their ratio being minus infinity: far below
/// any threshold.
const WITHIN: f32 = 20.0;

/// How many wrong numbers are tried against each utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rivals {
    /// One-slip neighbours drawn for each utterance; all if `None`.
    pub neighbours: Option<usize>,
    /// Luhn-valid pairs of changed digits drawn for each utterance; all if `None`.
    pub luhn_pairs: Option<usize>,
    /// Random other numbers drawn for each utterance.
    pub random: usize,
}

/// Wrong numbers of one utterance.
#[derive(Debug)]
pub struct Wrong {
    strings: Vec<Vec<u8>>,
    /// Kind and whether Luhn holds, for those before the random ones.
    kinds: Vec<(Kind, bool)>,
}

/// A near miss with its ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Near {
    /// How it differs.
    pub kind: Kind,
    /// Whether Luhn holds.
    pub luhn: bool,
    /// Natural logarithm.
    pub ratio: f64,
}

/// Ratios of the number said and of wrong ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratios {
    /// Of the number said.
    pub own: f64,
    /// Of its neighbours.
    pub near: Vec<Near>,
    /// Of random others.
    pub random: Vec<f64>,
}

impl Wrong {
    /// Seeded by the utterance.
    pub fn draw(recipe: &Recipe, rivals: Rivals, seed: u64) -> Self {
        let mut random = Random::from_text(&format!("wrong{seed}{}", recipe.id));
        let mut near = one_slip(&recipe.digits);
        if let Some(n) = rivals.neighbours {
            near = pick(near, n, &mut random);
        }
        let pairs = luhn_pairs(&recipe.digits);
        near.extend(match rivals.luhn_pairs {
            Some(n) => pick(pairs, n, &mut random),
            None => pairs,
        });
        let kinds = near.iter().map(|n| (n.kind, n.luhn)).collect();
        let mut strings: Vec<Vec<u8>> = near.into_iter().map(|n| n.digits).collect();
        let others = (0..rivals.random).map(|_| random_number(recipe.digits.len(), &mut random));
        strings.extend(others.filter(|n| *n != recipe.digits));
        Self { strings, kinds }
    }

    /// Scores all of them, and the number said.
    pub fn scored(
        &self,
        numbers: &dyn NumberEngine,
        heard: &Heard,
        said: &[u8],
        free: &FreeReading,
    ) -> Result<Ratios, SpeechError> {
        // The free reading is scored as any other string, so that all are on one scale.
        let mut strings = self.strings.clone();
        strings.push(said.to_vec());
        strings.push(free.digits.to_vec());
        let log_probs = numbers.score_strings(heard, &strings, WITHIN)?;
        let known = strings.iter().map(Vec::as_slice).zip(log_probs.iter().map(|p| f64::from(*p))).collect();
        Ok(self.ratios(&known, said))
    }

    fn ratios(&self, known: &HashMap<&[u8], f64>, said: &[u8]) -> Ratios {
        // The best two suffice: whoever is not the best has the best for a rival.
        let mut best: [(&[u8], f64); 2] = [(&[], f64::NEG_INFINITY); 2];
        for (string, log_prob) in known {
            if *log_prob > best[0].1 {
                best = [(string, *log_prob), best[0]];
            } else if *log_prob > best[1].1 {
                best[1] = (string, *log_prob);
            }
        }
        let against = |string: &[u8]| {
            let rival = if best[0].0 == string { best[1].1 } else { best[0].1 };
            let own = known.get(string).copied().unwrap_or(f64::NEG_INFINITY);
            if own == f64::NEG_INFINITY { own } else { own - rival }
        };
        let near =
            self.strings.iter().zip(&self.kinds).map(|(s, (kind, luhn))| Near { kind: *kind, luhn: *luhn, ratio: against(s) });
        let near = near.collect();
        let random = self.strings.iter().skip(self.kinds.len()).map(|s| against(s)).collect();
        Ratios { own: against(said), near, random }
    }
}

fn pick<T: Clone>(all: Vec<T>, n: usize, random: &mut Random) -> Vec<T> {
    random.sample(all.len(), n).into_iter().filter_map(|i| all.get(i).cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_numbers_ratio_is_against_the_best_other_string() {
        let wrong = Wrong { strings: vec![vec![1, 2, 4], vec![9, 9, 9]], kinds: vec![(Kind::Substitution, false)] };
        let (free, said, far) = (vec![1, 2, 4], vec![1, 2, 3], vec![9, 9, 9]);
        let known = HashMap::from([(said.as_slice(), -3.0), (free.as_slice(), -1.0), (far.as_slice(), -40.0)]);
        let others = wrong.ratios(&known, &said);
        assert_eq!(others.own, -2.0); // the misreading is more likely
        assert_eq!(others.near, [Near { kind: Kind::Substitution, luhn: false, ratio: 2.0 }]); // and would be accepted
        assert_eq!(others.random, [-39.0]);
    }

    #[test]
    fn what_was_given_up_is_no_number_apart_from_minus_infinity() {
        let wrong = Wrong { strings: vec![vec![1]], kinds: vec![(Kind::Substitution, false)] };
        let (said, near) = (vec![2], vec![1]);
        let known = HashMap::from([(said.as_slice(), f64::NEG_INFINITY), (near.as_slice(), f64::NEG_INFINITY)]);
        let ratios = wrong.ratios(&known, &said);
        assert_eq!((ratios.own, ratios.near[0].ratio), (f64::NEG_INFINITY, f64::NEG_INFINITY));
    }

    #[test]
    fn wrong_numbers_are_drawn_alike_and_never_the_one_said() {
        let recipe = Recipe::said("2261875516718090");
        let few = Rivals { neighbours: Some(40), luhn_pairs: Some(10), random: 30 };
        let a = Wrong::draw(&recipe, few, 0);
        assert_eq!((a.kinds.len(), a.strings.len()), (50, 80));
        assert_eq!(a.strings, Wrong::draw(&recipe, few, 0).strings);
        assert!(!a.strings.contains(&recipe.digits));
        let all = Wrong::draw(&recipe, Rivals { neighbours: None, luhn_pairs: None, random: 0 }, 0);
        assert_eq!(all.strings.len(), 144 + 13 + 14 + 154 + 1080);
    }
}
