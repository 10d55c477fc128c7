//! What is measured and under which conditions: the same for every evaluation, and printed with every result.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::EvalError;
use super::data::{Recipe, Split};
use super::degrade::{Line, Noise};
use super::metrics::{Interval, bootstrap_95};
use super::random::Random;
use super::splice::assemble;
use crate::media::frame::SampleRate;
use crate::speech::Utterance;

/// The choices of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the data is.
    pub split: Split,
    /// `--list`, as it was given.
    pub list: Option<String>,
    /// The telephone line.
    pub line: Line,
    /// `--noise`, as it was given.
    pub noise_name: Option<String>,
    /// How many to draw from the list; all if `None`.
    pub limit: Option<usize>,
    /// Seeds the draw, the noise, random numbers and intervals.
    pub seed: u64,
    /// Inferences at once, one thread each.
    pub threads: usize,
}

impl Plan {
    /// An utterance as 16-bit samples at 8 kHz, as they come out of the line.
    pub fn samples(&self, recipe: &Recipe) -> Result<Vec<i16>, EvalError> {
        Ok(self.line.through(&recipe.id, assemble(&self.split, recipe, super::degrade::RATE)?))
    }

    /// An utterance as the speech rooms take it.
    pub fn utterance(&self, recipe: &Recipe) -> Result<Utterance, EvalError> {
        Ok(Utterance::from_recording(&self.samples(recipe)?, SampleRate::HZ_8000))
    }

    /// The seeded draw of `--limit` from a list, in the list's order.
    pub fn draw<T: Clone>(&self, all: &[T]) -> Vec<T> {
        match self.limit {
            None => all.to_vec(),
            Some(n) => {
                let picked = Random::new(self.seed).sample(all.len(), n);
                picked.into_iter().filter_map(|i| all.get(i)).cloned().collect()
            }
        }
    }

    /// What every result is printed with.
    pub fn conditions(&self, list: &str, models: &[(&str, String)]) -> Value {
        let noise = match self.line.noise {
            Noise::None => Value::Null,
            Noise::White | Noise::Pink | Noise::Files(_) => json!(self.noise_name),
        };
        json!({
            "data": self.split.root.file_name().map(|n| n.to_string_lossy().into_owned()),
            "split": self.split.name,
            "list": list,
            "limit": self.limit,
            "seed": self.seed,
            "codec": self.line.codec.name(),
            "snr_db": if noise.is_null() { Value::Null } else { json!(self.line.snr_db) },
            "noise": noise,
            "enrolment": "same codec, no noise",
            "threads": self.threads,
            "models": models.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<serde_json::Map<_, _>>(),
            "version": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// Groups things by whom they belong to, for drawing speakers anew. The order is the keys' own, so that seeds repeat.
#[derive(Debug)]
pub struct BySpeaker<'a, T> {
    groups: Vec<Vec<&'a T>>,
    seed: u64,
}

impl<'a, T> BySpeaker<'a, T> {
    /// By the speaker that `key` names.
    pub fn new(all: &'a [T], seed: u64, key: impl Fn(&T) -> String) -> Self {
        let mut groups: BTreeMap<String, Vec<&T>> = BTreeMap::new();
        for one in all {
            groups.entry(key(one)).or_default().push(one);
        }
        Self { groups: groups.into_values().collect(), seed }
    }

    /// How many speakers.
    pub fn speakers(&self) -> usize {
        self.groups.len()
    }

    /// The 95 % interval of a statistic of all of it.
    pub fn interval(&self, statistic: impl Fn(&[&'a T]) -> f64) -> Option<Interval> {
        let mut drawn: Vec<&T> = Vec::new();
        bootstrap_95(self.groups.len(), self.seed, |picked| {
            drawn.clear();
            drawn.extend(picked.iter().filter_map(|g| self.groups.get(*g)).flatten().copied());
            statistic(&drawn)
        })
    }
}

/// A fraction for people: per cent with two places, or a dash.
pub fn percent(fraction: f64) -> String {
    if fraction.is_finite() { format!("{:.2} %", fraction * 100.0) } else { "–".to_owned() }
}
