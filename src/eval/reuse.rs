//! Audio that was heard before: how much of it is missed after what lines and players do to it, and how many natural recordings are
//! wrongly taken for it. Spliced utterances share clips and prove nothing here: only whole recordings of the split's manifest are used.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EvalError;
use super::data::{Table, recording};
use super::degrade::{Codec, Noise, RATE, active_rms};
use super::plan::{BySpeaker, Plan};
use super::random::Random;
use super::results::Rate;
use super::splice::assemble;
use super::work::{self, Progress, timed};
use crate::media::frame::SampleRate;
use crate::speech::Utterance;
use crate::voiceprint::fingerprint::{FingerprintKey, Fingerprinter, Probe};

/// Recordings of at least so much sound are utterances; shorter ones stand for a "yes". In seconds.
const UTTERANCE_FROM_S: f64 = 2.0;
/// Recordings of a kind that are played back, unless `--limit` says otherwise.
const PLAYED_BACK: usize = 160;
/// Words are cut close: a line's own silence goes on either side of them, in samples.
const AROUND_WORDS: usize = 1_600;
/// What isn't a person's own speech.
const NO_SPEECH: [&str; 3] = ["noise", "rir", "yourtts_spoof"];

/// What is done to audio before it is played back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    OtherCodec,
    Quieter,
    Louder,
    Shifted,
    White { snr_db: i32 },
    Babble { snr_db: i32 },
    StartCut,
    EndCut,
    Together,
    Speed { permille: i32 },
}

/// Those that the goal names (none may be missed), then those that are reported.
const CHANGES: [(Change, bool); 15] = [
    (Change::OtherCodec, true),
    (Change::Quieter, true),
    (Change::Louder, true),
    (Change::Shifted, true),
    (Change::White { snr_db: 20 }, true),
    (Change::Babble { snr_db: 20 }, true),
    (Change::StartCut, true),
    (Change::EndCut, true),
    (Change::Together, true),
    (Change::Speed { permille: 1_010 }, false),
    (Change::Speed { permille: 990 }, false),
    (Change::Speed { permille: 1_020 }, false),
    (Change::Speed { permille: 980 }, false),
    (Change::Babble { snr_db: 15 }, false),
    (Change::Babble { snr_db: 10 }, false),
];

/// Figures of one change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Missed {
    /// What was done to the audio.
    pub change: String,
    /// Whether the goal (none missed) holds for it.
    pub in_goal: bool,
    /// Utterances missed.
    pub utterances: Rate,
    /// Single words missed: about as long as a "yes".
    pub words: Rate,
    /// How far above the limit the weakest utterance was; under 1 it was missed.
    pub weakest_utterance: f64,
}

/// Figures of natural recordings, each compared with every other of its speaker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Natural {
    /// Which collection.
    pub source: String,
    /// `utterances` or `words`.
    pub kind: String,
    /// Recordings taken for one of the speaker's others.
    pub flagged: Rate,
    /// Pairs compared.
    pub pairs: usize,
    /// The nearest that any pair came to the limit; 1 is the limit.
    pub nearest: f64,
}

/// What it costs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Making a fingerprint, milliseconds a second of sound, one thread.
    pub make_ms_per_s: f64,
    /// Comparing with one kept utterance, microseconds.
    pub compare_us: f64,
    /// What is kept, bytes a second of sound.
    pub bytes_per_s: f64,
}

/// Everything of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReuseResult {
    /// The conditions.
    pub conditions: Value,
    /// Played back.
    pub missed: Vec<Missed>,
    /// Said anew.
    pub natural: Vec<Natural>,
    /// Time and space.
    pub cost: Cost,
}

/// A recording as the service heard it.
struct Heard {
    source: String,
    speaker: String,
    word: bool,
    samples: Vec<i16>,
    probe: Probe,
    seconds: f64,
    make_ms: f64,
}

struct Listener {
    maker: Fingerprinter,
    key: FingerprintKey,
}

impl Listener {
    fn probe(&self, samples: &[i16]) -> Probe {
        Probe::new(&self.maker, &Utterance::from_recording(samples, SampleRate::HZ_8000).samples_16k, &self.key)
    }
}

/// Measures it.
pub fn run(plan: &Plan) -> Result<ReuseResult, EvalError> {
    let recipes = manifest(plan)?;
    // Any key will do: likeness does not depend on it.
    let listener = Listener { maker: Fingerprinter::new(), key: FingerprintKey::new(&[7; 16]) };
    let progress = Progress::new("fingerprints", recipes.len());
    let heard = work::map(&recipes, plan.threads, &progress, |(recipe, word)| {
        let mut x = assemble(&plan.split, recipe, RATE)?;
        if *word {
            let mut random = Random::from_text(&recipe.id);
            let level = active_rms(&x) * 1e-3;
            let mut around = |n: usize| (0..n).map(|_| random.normal() * level).collect::<Vec<_>>();
            let (before, after) = (around(AROUND_WORDS), around(AROUND_WORDS));
            x = [before, x, after].concat();
        }
        let samples = plan.line.through(&recipe.id, x);
        let (probe, make_ms) = timed(|| listener.probe(&samples));
        let seconds = samples.len() as f64 / f64::from(RATE);
        let (source, speaker) = (recipe.source.clone(), recipe.speaker.clone());
        Ok::<_, EvalError>(Heard { source, speaker, word: *word, samples, probe, seconds, make_ms })
    })?;
    let (natural, compare_us) = natural(&heard, plan);
    let seconds: f64 = heard.iter().map(|h| h.seconds).sum();
    let cost = Cost {
        make_ms_per_s: heard.iter().map(|h| h.make_ms).sum::<f64>() / seconds.max(1e-9),
        compare_us,
        bytes_per_s: heard.iter().map(|h| h.probe.fingerprint().to_bytes().len() as f64).sum::<f64>() / seconds.max(1e-9),
    };
    let missed = missed(&heard, plan, &listener)?;
    Ok(ReuseResult { conditions: plan.conditions("manifest.csv", &[]), missed, natural, cost })
}

/// Recordings of people, each once, and whether it is a word.
fn manifest(plan: &Plan) -> Result<Vec<(super::data::Recipe, bool)>, EvalError> {
    let table = Table::read(&plan.split.root.join(&plan.split.name).join("manifest.csv"))?;
    let mut lengths: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    for row in table.rows() {
        let (path, source) = (row.filled("path")?, row.filled("source")?);
        if NO_SPEECH.iter().any(|n| source.starts_with(n)) || !seen.insert(path.to_owned()) {
            continue;
        }
        let text = row.filled("duration_s")?;
        let seconds: f64 =
            text.parse().map_err(|_| row.complaint("duration_s", format!("\"{text}\" is no number of seconds")))?;
        let sum = lengths.entry(source.to_owned()).or_default();
        *sum = (sum.0 + seconds, sum.1 + 1);
        let speaker = row.filled("speaker")?;
        rows.push((source.to_owned(), recording(path, speaker, speaker)));
    }
    let word = |source: &str| lengths.get(source).is_none_or(|(sum, n)| *sum < UTTERANCE_FROM_S * *n as f64);
    if rows.is_empty() {
        return Err(table.complaint("lists no recordings of people"));
    }
    Ok(rows
        .into_iter()
        .map(|(source, recipe)| (super::data::Recipe { source: source.clone(), ..recipe }, word(&source)))
        .collect())
}

fn natural(heard: &[Heard], plan: &Plan) -> (Vec<Natural>, f64) {
    let mut groups: BTreeMap<(&str, &str), Vec<&Heard>> = BTreeMap::new();
    for h in heard {
        groups.entry((&h.source, &h.speaker)).or_default().push(h);
    }
    // Whether it counts as words; whether each recording of a speaker was flagged; pairs; the nearest pair.
    type Source = (bool, Vec<(String, bool)>, usize, f64);
    let mut sources: BTreeMap<&str, Source> = BTreeMap::new();
    let progress = Progress::new("natural recordings", groups.len());
    let (mut spent_ms, mut pairs_all) = (0.0, 0usize);
    for ((source, speaker), group) in &groups {
        let entry = sources.entry(source).or_insert_with(|| (group.iter().any(|h| h.word), Vec::new(), 0, 0.0));
        for (i, new) in group.iter().enumerate() {
            let mut flagged = false;
            for (j, kept) in group.iter().enumerate() {
                if i != j {
                    let (like, ms) = timed(|| new.probe.likeness(kept.probe.fingerprint()));
                    let strength = like.map_or(0.0, |l| f64::from(l.strength));
                    flagged |= strength >= 1.0;
                    entry.3 = entry.3.max(strength);
                    entry.2 += 1;
                    spent_ms += ms;
                    pairs_all += 1;
                }
            }
            entry.1.push(((*speaker).to_owned(), flagged));
        }
        progress.step();
    }
    let natural = sources
        .into_iter()
        .map(|(source, (word, all, pairs, nearest))| Natural {
            source: source.to_owned(),
            kind: if word { "words" } else { "utterances" }.to_owned(),
            flagged: BySpeaker::new(&all, plan.seed, |t| t.0.clone()).rate(|t| (usize::from(t.1), 1)),
            pairs,
            nearest,
        })
        .collect();
    (natural, spent_ms * 1000.0 / pairs_all.max(1) as f64)
}

fn missed(heard: &[Heard], plan: &Plan, listener: &Listener) -> Result<Vec<Missed>, EvalError> {
    let babble = match Noise::find("noise/babble8", &plan.split.root, &plan.split.name) {
        Ok(Noise::Files(files)) => Some(files.iter().map(|(_, sound)| sound.clone()).collect::<Vec<_>>()),
        Ok(Noise::None | Noise::White | Noise::Pink) | Err(_) => None,
    };
    let babble = Arc::new(babble.unwrap_or_default());
    let draw = Plan { limit: Some(plan.limit.unwrap_or(PLAYED_BACK)), ..plan.clone() };
    let kind = |word: bool| draw.draw(&heard.iter().filter(|h| h.word == word).collect::<Vec<_>>());
    let played: Vec<&Heard> = [kind(false), kind(true)].concat();
    let changes: Vec<_> = CHANGES.iter().filter(|(c, _)| !babble.is_empty() || !c.needs_babble()).collect();
    let progress = Progress::new("played back", played.len());
    let strengths = work::map(&played, plan.threads, &progress, |h| {
        let first: Vec<f64> = h.samples.iter().map(|s| f64::from(*s) / 32_768.0).collect();
        let of = |change: &Change| {
            let mut random = Random::from_text(&format!("{}{change:?}{}{}", plan.seed, h.speaker, h.samples.len()));
            let again = listener.probe(&change.apply(&first, &babble, &mut random));
            again.likeness(h.probe.fingerprint()).map_or(0.0, |l| f64::from(l.strength))
        };
        Ok::<_, EvalError>(changes.iter().map(|(change, _)| of(change)).collect::<Vec<f64>>())
    })?;
    let tried: Vec<(&Heard, Vec<f64>)> = played.into_iter().zip(strengths).collect();
    let by_speaker = BySpeaker::new(&tried, plan.seed, |(h, _)| h.speaker.clone());
    let at = |all: &[f64], i: usize| all.get(i).copied().unwrap_or(0.0);
    let figures = |(i, (change, in_goal)): (usize, &&(Change, bool))| {
        let rate = |word: bool| by_speaker.rate(|(h, s)| if h.word == word { (usize::from(at(s, i) < 1.0), 1) } else { (0, 0) });
        let utterances = tried.iter().filter(|(h, _)| !h.word);
        Missed {
            change: change.name(),
            in_goal: *in_goal,
            utterances: rate(false),
            words: rate(true),
            weakest_utterance: utterances.map(|(_, s)| at(s, i)).fold(f64::INFINITY, f64::min),
        }
    };
    Ok(changes.iter().enumerate().map(figures).collect())
}

impl Change {
    fn name(self) -> String {
        match self {
            Self::OtherCodec => "A-law".to_owned(),
            Self::Quieter => "12 dB quieter".to_owned(),
            Self::Louder => "6 dB louder, clipping".to_owned(),
            Self::Shifted => "shifted by 0.1 to 40 ms".to_owned(),
            Self::White { snr_db } => format!("white noise {snr_db} dB"),
            Self::Babble { snr_db } => format!("babble {snr_db} dB"),
            Self::StartCut => "first 15 % cut off".to_owned(),
            Self::EndCut => "last 15 % cut off".to_owned(),
            Self::Together => "A-law, 6 dB quieter, shifted, white noise 20 dB".to_owned(),
            Self::Speed { permille } => format!("speed {:+.0} %", f64::from(permille - 1_000) / 10.0),
        }
    }

    fn needs_babble(self) -> bool {
        matches!(self, Self::Babble { .. })
    }

    /// The audio after it, through the line again.
    fn apply(self, x: &[f64], babble: &[Vec<f64>], random: &mut Random) -> Vec<i16> {
        let coded = |x: &[f64], codec: Codec| x.iter().map(|s| codec.round_trip(sixteen_bits(*s))).collect::<Vec<i16>>();
        let louder = |by: f64| x.iter().map(|s| (s * by).clamp(-1.0, 1.0)).collect::<Vec<f64>>();
        let cut = x.len() * 15 / 100;
        let mulaw = |x: &[f64]| coded(x, Codec::Mulaw);
        match self {
            Self::OtherCodec => coded(x, Codec::Alaw),
            Self::Quieter => mulaw(&louder(0.25)),
            Self::Louder => mulaw(&louder(2.0)),
            Self::Shifted => mulaw(&shifted(x, random)),
            Self::White { snr_db } => mulaw(&noisy(x, &white(x.len(), random), snr_db)),
            Self::Babble { snr_db } => {
                let sound = babble.get(random.below(babble.len().max(1))).map_or(&[][..], Vec::as_slice);
                let from = random.below(sound.len().max(1));
                let noise: Vec<f64> = sound.iter().cycle().skip(from).take(x.len()).copied().collect();
                mulaw(&noisy(x, &noise, snr_db))
            }
            Self::StartCut => mulaw(x.get(cut..).unwrap_or_default()),
            Self::EndCut => mulaw(x.get(..x.len() - cut).unwrap_or_default()),
            Self::Together => {
                let y = shifted(&louder(0.5), random);
                let y: Vec<f64> = coded(&y, Codec::Alaw).iter().map(|s| f64::from(*s) / 32_768.0).collect();
                mulaw(&noisy(&y, &white(y.len(), random), 20))
            }
            Self::Speed { permille } => mulaw(&faster(x, f64::from(permille) / 1_000.0)),
        }
    }
}

/// So many of so many, with the interval.
fn percent(r: &Rate) -> String {
    match (r.rate, r.interval_95) {
        (Some(rate), Some(i)) => {
            format!("{}/{} {:.2} % [{:.2}, {:.2}]", r.hits, r.of, rate * 100.0, i.low * 100.0, i.high * 100.0)
        }
        (Some(_) | None, Some(_) | None) => format!("{}/{}", r.hits, r.of),
    }
}

fn sixteen_bits(s: f64) -> i16 {
    (s * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16
}

fn white(n: usize, random: &mut Random) -> Vec<f64> {
    (0..n).map(|_| random.normal()).collect()
}

/// Some samples of near silence before it: another place between two frames.
fn shifted(x: &[f64], random: &mut Random) -> Vec<f64> {
    let by = 1 + random.below(320);
    let lead: Vec<f64> = (0..by).map(|_| random.normal() * 1e-4).collect();
    [&lead, x].concat()
}

fn noisy(x: &[f64], noise: &[f64], snr_db: i32) -> Vec<f64> {
    let power = noise.iter().map(|n| n * n).sum::<f64>() / noise.len().max(1) as f64;
    let gain = active_rms(x) * 10f64.powf(-f64::from(snr_db) / 20.0) / (power + 1e-12).sqrt();
    x.iter().zip(noise).map(|(s, n)| s + n * gain).collect()
}

/// Played faster, and so higher, by sinc interpolation over 16 samples.
fn faster(x: &[f64], by: f64) -> Vec<f64> {
    const HALF: isize = 8;
    let count = (x.len() as f64 / by) as usize;
    let at = |i: isize| usize::try_from(i).ok().and_then(|i| x.get(i)).copied().unwrap_or(0.0);
    let tap = |t: f64| {
        let pi_t = std::f64::consts::PI * t;
        if t.abs() < 1e-9 { 1.0 } else { pi_t.sin() / pi_t * (0.5 + 0.5 * (pi_t / (HALF as f64 + 1.0)).cos()) }
    };
    (0..count)
        .map(|i| {
            let place = i as f64 * by;
            let middle = place.floor() as isize;
            (middle - HALF + 1..=middle + HALF).map(|k| at(k) * tap(place - k as f64)).sum()
        })
        .collect()
}

impl ReuseResult {
    /// As JSON and as text.
    pub fn told(&self) -> (Value, String) {
        (serde_json::to_value(self).unwrap_or_default(), self.text())
    }

    /// For the report: a line a figure.
    pub fn brief(&self) -> Value {
        let goal = |m: &Missed| if m.in_goal { " (goal: 0)" } else { "" };
        let missed = self.missed.iter().map(|m| {
            let what = format!("utterances {}, single words {}{}", percent(&m.utterances), percent(&m.words), goal(m));
            (format!("after {}", m.change), Value::String(what))
        });
        let natural = self.natural.iter().map(|n| {
            let what =
                format!("{} of the {}, {} pairs, nearest {:.2} of the limit", percent(&n.flagged), n.kind, n.pairs, n.nearest);
            (n.source.clone(), Value::String(what))
        });
        serde_json::json!({
            "missed": missed.collect::<serde_json::Map<_, _>>(),
            "natural recordings flagged": natural.collect::<serde_json::Map<_, _>>(),
            "cost": self.cost,
        })
    }

    fn text(&self) -> String {
        let mut out = format!("{:<50} {:<30} {:<30} weakest\n", "played back after", "utterances missed", "words missed");
        for m in &self.missed {
            let goal = if m.in_goal { "*" } else { " " };
            out += &format!(
                "{goal} {:<48} {:<30} {:<30} {:.2}\n",
                m.change,
                percent(&m.utterances),
                percent(&m.words),
                m.weakest_utterance
            );
        }
        out += &format!("(* goal: none missed)\n\n{:<20} {:<12} {:<32} {:>8} nearest\n", "said anew", "kind", "flagged", "pairs");
        for n in &self.natural {
            out += &format!("{:<20} {:<12} {:<32} {:>8} {:.2}\n", n.source, n.kind, percent(&n.flagged), n.pairs, n.nearest);
        }
        let c = self.cost;
        out + &format!(
            "\nmaking {:.2} ms a second of sound, comparing {:.0} µs a kept utterance, keeping {:.0} bytes a second\n",
            c.make_ms_per_s, c.compare_us, c.bytes_per_s
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(n: usize) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * i as f64 * 2e-6).sin() * 0.3).collect()
    }

    #[test]
    fn speed_changes_length_and_pitch_together() {
        let x: Vec<f64> = (0..8_000).map(|i| (i as f64 * 0.5).sin() * 0.5).collect();
        let y = faster(&x, 1.02);
        assert_eq!(y.len(), 7_843);
        // At 2 % faster, sample i is what stood at 1.02 i.
        assert!((100..7_000).all(|i| (y[i] - (i as f64 * 0.51).sin() * 0.5).abs() < 0.02));
    }

    #[test]
    fn noise_lies_as_far_below_as_asked() {
        let x = sweep(16_000);
        let mut random = Random::new(1);
        let y = noisy(&x, &white(x.len(), &mut random), 20);
        let apart: f64 = y.iter().zip(&x).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / x.len() as f64;
        let db = 20.0 * (active_rms(&x) / apart.sqrt()).log10();
        assert!((db - 20.0).abs() < 0.2, "{db}");
    }

    #[test]
    fn every_change_leaves_audio_and_has_its_own_name() {
        let x = sweep(8_000);
        let names: HashSet<String> = CHANGES.iter().map(|(c, _)| c.name()).collect();
        assert_eq!(names.len(), CHANGES.len());
        for (change, _) in CHANGES {
            let y = change.apply(&x, &[sweep(999)], &mut Random::new(2));
            assert!(y.len() > 6_700 && y.iter().any(|s| s.abs() > 500), "{change:?}");
        }
    }
}
