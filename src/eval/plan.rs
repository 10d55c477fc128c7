//! What is measured and under which conditions: the same for every evaluation, and printed with every result.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::EvalError;
use super::data::{Material, Recipe, Split};
use super::degrade::{Codec, Line, Noise, at_level};
use super::metrics::{Interval, bootstrap_95, bootstrap_95_of, ratio};
use super::random::Random;
use super::results::{Condition, Figure, Rate, finite};
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
    /// Of the line that voices are enrolled over; `None`: the same.
    pub enrol_codec: Option<Codec>,
    /// Recordings as they are at 16 kHz, on no line: no codec, noise or network.
    pub wide: bool,
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
    /// Everything over this line, one inference at once: what a run chooses otherwise is changed from here.
    pub fn new(split: Split, line: Line) -> Self {
        Self { split, list: None, line, enrol_codec: None, wide: false, noise_name: None, limit: None, seed: 0, threads: 1 }
    }

    /// What is between a speaker and us, as results name it.
    fn line_name(&self) -> &'static str {
        if self.wide { "none, 16 kHz" } else { self.line.codec.name() }
    }

    /// An utterance as 16-bit samples at 8 kHz, as they come out of the line.
    pub fn samples(&self, recipe: &Recipe) -> Result<Vec<i16>, EvalError> {
        Ok(self.line.through(&recipe.id, assemble(&self.split, recipe, super::degrade::RATE)?))
    }

    /// The same with `after_ms` of the line's own noise behind it, and how many samples there are up to the end of the last digit.
    pub fn samples_and_after(&self, recipe: &Recipe, after_ms: u32) -> Result<(Vec<i16>, usize), EvalError> {
        let mut sound = assemble(&self.split, recipe, super::degrade::RATE)?;
        let per_ms = super::degrade::RATE / 1000;
        let tail = match recipe.material {
            Material::Spliced { tail_ms, .. } => (tail_ms * per_ms) as usize,
            Material::Recording(_) => 0,
        };
        let said = sound.len().saturating_sub(tail);
        sound.resize(sound.len() + (after_ms * per_ms) as usize, 0.0);
        Ok((self.line.through(&recipe.id, sound), said))
    }

    /// Samples of the line as the speech rooms take them.
    pub fn heard_as(samples: &[i16]) -> Utterance {
        Utterance::from_recording(samples, SampleRate::HZ_8000)
    }

    /// An utterance as the speech rooms take it.
    pub fn utterance(&self, recipe: &Recipe) -> Result<Utterance, EvalError> {
        if self.wide {
            let samples = at_level(assemble(&self.split, recipe, SampleRate::HZ_16000.hz())?);
            return Ok(Utterance::from_recording(&samples, SampleRate::HZ_16000));
        }
        Ok(Self::heard_as(&self.samples(recipe)?))
    }

    /// The conditions, for results.
    pub fn condition(&self, list: &str, digits: Option<usize>) -> Condition {
        let noise = match self.line.noise {
            Noise::None => None,
            Noise::White | Noise::Pink | Noise::Files(_) => self.noise_name.clone(),
        };
        let snr_db = noise.is_some().then_some(self.line.snr_db.round() as i32);
        Condition { list: list.to_owned(), codec: self.line_name().to_owned(), noise, snr_db, digits }
    }

    /// The conditions in words, for progress.
    pub fn words(&self, list: &str) -> String {
        let c = self.condition(list, None);
        let network = self.line.network;
        let packets = network.map(|n| format!(", {}% of packets lost, up to {} ms late", n.loss_permille / 10, n.jitter_ms));
        format!("{list}, {} {}{}", c.codec, c.noise_words(), packets.unwrap_or_default())
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
            "codec": self.line_name(),
            "snr_db": if noise.is_null() { Value::Null } else { json!(self.line.snr_db) },
            "noise": noise,
            "network": self.line.network,
            "enrolment": format!("{}, no noise", self.enrol_codec.map_or("same codec", Codec::name)),
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

    /// So many of so many, counted a thing, with its interval.
    pub fn rate(&self, count: impl Fn(&T) -> (usize, usize)) -> Rate {
        let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        let sums: Vec<(usize, usize)> = self.groups.iter().map(|g| g.iter().map(|t| count(t)).fold((0, 0), add)).collect();
        let (hits, of) = sums.iter().copied().fold((0, 0), add);
        let interval_95 = bootstrap_95(sums.len(), self.seed, |picked| {
            let (hits, of) = picked.iter().filter_map(|g| sums.get(*g)).copied().fold((0, 0), add);
            ratio(hits, of)
        });
        Rate { interval_95, ..Rate::plain(hits, of) }
    }

    /// Several figures of all of it that are computed together, with their intervals.
    pub fn figures<const N: usize>(&self, statistics: impl Fn(&[&'a T]) -> [f64; N]) -> [Figure; N] {
        let all: Vec<&T> = self.groups.iter().flatten().copied().collect();
        let mut drawn: Vec<&T> = Vec::new();
        let intervals = bootstrap_95_of(self.groups.len(), self.seed, |picked| {
            drawn.clear();
            drawn.extend(picked.iter().filter_map(|g| self.groups.get(*g)).flatten().copied());
            statistics(&drawn)
        });
        let values = statistics(&all);
        std::array::from_fn(|i| Figure {
            value: values.get(i).copied().and_then(finite),
            interval_95: intervals.get(i).copied().flatten(),
        })
    }

    /// Any other figure of all of it, with its interval.
    pub fn figure(&self, statistic: impl Fn(&[&'a T]) -> f64) -> Figure {
        let all: Vec<&T> = self.groups.iter().flatten().copied().collect();
        Figure { value: finite(statistic(&all)), interval_95: self.interval(statistic) }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::data::{read_recipes, read_sound};
    use super::super::degrade::Codec;
    use super::*;

    #[test]
    fn our_rendering_is_the_datas_own_but_for_the_noise_in_the_gaps() {
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let shared = std::env::var_os("VOICEPAY_SHARED").map_or(beside, PathBuf::from);
        let golden = shared.join("golden/fsdd_george_2261875516718090.wav");
        if !golden.is_file() {
            println!("skipped: ../shared is absent");
            return;
        }
        let split = Split::open(&shared.join("speechdata"), "dev").unwrap();
        let recipes = read_recipes(&split.trials("card_utterances.csv")).unwrap();
        let recipe = recipes.iter().find(|r| r.id == "dev-fsdd_en-george-card00").unwrap();
        let line = Line::clean(Codec::Mulaw);
        let plan = Plan::new(split, line);
        let ours: Vec<f64> = plan.samples(recipe).unwrap().into_iter().map(|s| f64::from(s) / 32768.0).collect();
        let (theirs, rate) = read_sound(&golden).unwrap();
        assert_eq!((ours.len(), rate), (theirs.len(), 8000));
        // Only inside the clips: what fills the gaps is noise of our own drawing.
        let Material::Spliced { clips, gaps_ms, lead_ms, .. } = &recipe.material else { panic!("spliced") };
        let (mut at, mut square, mut cross, mut own) = (*lead_ms as usize * 8, 0.0, 0.0, 0.0);
        for (i, clip) in clips.iter().enumerate() {
            let length = read_sound(&plan.split.clip(clip).unwrap()).unwrap().0.len();
            for (o, t) in ours[at..at + length].iter().zip(&theirs[at..at + length]) {
                (own, square, cross) = (own + o * o, square + t * t, cross + o * t);
            }
            at += length + gaps_ms.get(i).map_or(0, |ms| *ms as usize * 8);
        }
        let (alike, level) = (cross / f64::sqrt(own * square), f64::sqrt(own / square));
        assert!(alike > 0.9999 && (level - 1.0).abs() < 0.001, "alike {alike}, level {level}");
    }

    #[test]
    fn a_draw_is_the_same_again_and_keeps_the_order() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("dev/trials")).unwrap();
        let split = Split::open(dir.path(), "dev").unwrap();
        let line = Line::clean(Codec::None);
        let plan = Plan { limit: Some(5), seed: 3, ..Plan::new(split, line) };
        let all: Vec<u32> = (0..50).collect();
        let drawn = plan.draw(&all);
        assert_eq!(drawn.len(), 5);
        assert!(drawn.is_sorted());
        assert_eq!(drawn, plan.draw(&all));
    }

    #[test]
    fn intervals_draw_speakers_not_utterances() {
        // One speaker is always right, the other never: every draw of two gives 0, a half or 1.
        let all = [("a", 1.0), ("a", 1.0), ("a", 1.0), ("b", 0.0)];
        let groups = BySpeaker::new(&all, 1, |(who, _)| (*who).to_owned());
        let mean = |d: &[&(&str, f64)]| d.iter().map(|x| x.1).sum::<f64>() / d.len() as f64;
        let i = groups.interval(mean).unwrap();
        assert_eq!((groups.speakers(), i.low, i.high), (2, 0.0, 1.0));
        let r = groups.rate(|(_, right)| (usize::from(*right > 0.5), 1));
        assert_eq!((r.hits, r.of, r.rate, r.interval_95), (3, 4, Some(0.75), Some(i)));
        let f = groups.figure(mean);
        assert_eq!((f.value, f.interval_95), (Some(0.75), Some(i)));
    }
}
