//! Everything under every condition, one after the other, and the report on it: what `make eval` runs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::EvalError;
use super::decision::{self, DecisionResult, Judges};
use super::degrade::{Codec, Line, Noise};
use super::number::{self, NumberResult, RawThresholds};
use super::plan::Plan;
use super::report::Everything;
use super::report::peers::Peers;
use super::report::voices::VoiceResult;
use super::reuse;
use super::rivals::Rivals;
use super::voiceprint::{self, Pairs, has_list};
use super::work::timed;

/// What can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Voices told apart.
    Voice,
    /// Numbers heard.
    Number,
    /// Both together.
    Decision,
    /// Audio heard before.
    Reuse,
}

/// What is run, and with what.
#[derive(Debug)]
pub struct Everywhere<'a> {
    /// Split, seed, threads; its line and list are replaced by each condition's.
    pub plan: Plan,
    /// Models and thresholds.
    pub judges: Judges<'a>,
    /// Thresholds of numbers measured alone.
    pub thresholds: RawThresholds,
    /// What the peers' script wrote.
    pub peers: Option<PathBuf>,
    /// Left out.
    pub without: Vec<Part>,
}

/// Noise behind the speech, as the data's folders call it.
const BABBLE: &str = "noise/babble8";
/// Random other numbers against each utterance: with 250 utterances and more, over 10,000.
const RANDOM: usize = 48;
/// Numbers under conditions that no goal is set for: a sample, so that the whole stays under 40 minutes on two cores.
const ASIDE: usize = 120;
/// Callers of a decision, and as many impostors: hearing them at every pause costs the most of all.
const CALLS: usize = 240;
/// The same where it is noisy.
const NOISY_CALLS: usize = 120;

/// Voice trials drawn at least, where a sample is asked for.
const TRIALS_MIN: usize = 150;

/// A line and what goes over it.
struct Job {
    list: &'static str,
    codec: Codec,
    snr_db: Option<i32>,
    digits: Option<usize>,
    limit: Option<usize>,
}

const fn job(list: &'static str, codec: Codec, snr_db: Option<i32>) -> Job {
    Job { list, codec, snr_db, digits: None, limit: None }
}

const CONFIRMED: &str = "card_utterances_confirmed.csv";
const ALL_LABELS: &str = "card_utterances.csv";
const NATURAL_LINES: &str = "hyke_strings.csv";

const NUMBERS: [Job; 10] = [
    job(CONFIRMED, Codec::Mulaw, None),
    job(CONFIRMED, Codec::Mulaw, Some(15)),
    job(CONFIRMED, Codec::Mulaw, Some(10)),
    Job { limit: Some(ASIDE), ..job(CONFIRMED, Codec::Mulaw, Some(5)) },
    Job { limit: Some(ASIDE), ..job(CONFIRMED, Codec::Alaw, None) },
    Job { limit: Some(ASIDE), ..job(CONFIRMED, Codec::Alaw, Some(15)) },
    job(NATURAL_LINES, Codec::Mulaw, None),
    job(NATURAL_LINES, Codec::Mulaw, Some(15)),
    job(NATURAL_LINES, Codec::Mulaw, Some(10)),
    Job { limit: Some(ASIDE), ..job(ALL_LABELS, Codec::Mulaw, None) },
];

const TRIALS: &str = "sv_card_trials.csv";
const NATURAL_TRIALS: &str = "natural_trials.csv";

const fn voices(snr_db: Option<i32>, digits: Option<usize>) -> Job {
    Job { list: TRIALS, codec: Codec::Mulaw, snr_db, digits, limit: None }
}

const VOICES: [Job; 9] = [
    voices(None, None),
    voices(None, Some(8)),
    voices(None, Some(4)),
    voices(Some(15), None),
    voices(Some(15), Some(8)),
    voices(Some(15), Some(4)),
    voices(Some(10), None),
    job(TRIALS, Codec::Alaw, None),
    job(NATURAL_TRIALS, Codec::Mulaw, None),
];

const DECISIONS: [Job; 3] = [
    Job { limit: Some(CALLS), ..job(CONFIRMED, Codec::Mulaw, None) },
    Job { limit: Some(NOISY_CALLS), ..job(CONFIRMED, Codec::Mulaw, Some(15)) },
    Job { limit: Some(NOISY_CALLS), ..job(CONFIRMED, Codec::Mulaw, Some(10)) },
];

impl Everywhere<'_> {
    /// The plan of a job; `None` where the split lacks the list or the noise.
    fn plan_of(&self, job: &Job, babble: Option<&Noise>) -> Option<Plan> {
        if !has_list(&self.plan, job.list) {
            return None;
        }
        let line = match job.snr_db {
            None => Line { seed: self.plan.seed, ..Line::clean(job.codec) },
            Some(db) => {
                Line { codec: job.codec, noise: babble?.clone(), snr_db: f64::from(db), network: None, seed: self.plan.seed }
            }
        };
        let limit = match (self.plan.limit, job.limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Some(Plan { list: Some(job.list.to_owned()), line, noise_name: Some(BABBLE.to_owned()), limit, ..self.plan.clone() })
    }

    /// The plan of what chooses its own recordings: a clean line.
    fn whole(&self) -> Plan {
        let line = Line { seed: self.plan.seed, ..Line::clean(Codec::Mulaw) };
        Plan { list: None, line, noise_name: None, ..self.plan.clone() }
    }

    fn skips(&self, part: Part) -> bool {
        self.without.contains(&part)
    }
}

/// Runs it and writes the report into `out`.
pub fn run(run: &Everywhere<'_>, out: &Path, date: &str) -> Result<(Value, String), EvalError> {
    // Read first: a slip in the file's name should not cost half an hour.
    let peers = run.peers.as_deref().map(read_peers).transpose()?;
    let babble = Noise::find(BABBLE, &run.plan.split.root, &run.plan.split.name).ok();
    if babble.is_none() {
        eprintln!("eval: the split has no {BABBLE}: noise is left out");
    }
    let mut took = Vec::new();
    let mut stage = |name: &str, ms: f64| took.push((name.to_owned(), (ms / 1000.0).round() as u64));
    let (numbers, ms) = timed(|| measure_numbers(run, babble.as_ref()));
    let numbers = numbers?;
    stage("numbers", ms);
    let (voices, ms) = timed(|| measure_voices(run, babble.as_ref()));
    let voices = voices?;
    stage("voices", ms);
    let (decisions, ms) = timed(|| measure_decisions(run, babble.as_ref()));
    let decisions = decisions?;
    stage("decisions", ms);
    let (reuse, ms) = timed(|| (!run.skips(Part::Reuse)).then(|| reuse::run(&run.whole())).transpose());
    stage("reused audio", ms);
    let everything =
        Everything { date: date.to_owned(), about: about(run), took, voices, numbers, decisions, reuse: reuse?, peers };
    let written = everything.write(out)?;
    let json = serde_json::to_value(&everything).map_err(|e| EvalError::Conditions(format!("the results are no JSON: {e}")))?;
    Ok((json, format!("written to {}: {}", out.display(), written.join(", "))))
}

fn about(run: &Everywhere<'_>) -> Vec<(String, String)> {
    let j = &run.judges;
    let collections: Vec<&str> = j.trained_on.names().collect();
    let heard = if collections.is_empty() { "nobody known by name".to_owned() } else { collections.join(", ") };
    let limit = run.plan.limit.map_or("whole lists".to_owned(), |n| format!("samples of {n} of each list"));
    let pairs = [
        ("program", format!("voicepay {}", env!("CARGO_PKG_VERSION"))),
        ("data", format!("split {}, {limit}, seed {}", run.plan.split.name, run.plan.seed)),
        ("voice model", j.embedder.version().to_string()),
        ("recogniser", j.numbers.name().to_owned()),
        ("recordings of these trained the recogniser", heard),
        ("calibration", format!("{} ({})", j.calibration.version, j.calibration.made_from)),
        ("inferences at once", run.plan.threads.to_string()),
    ];
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn read_peers(file: &Path) -> Result<Peers, EvalError> {
    let complain = |what: String| EvalError::List { file: file.to_path_buf(), what };
    let text = std::fs::read_to_string(file).map_err(|e| complain(format!("can't be read: {e}")))?;
    serde_json::from_str(&text).map_err(|e| complain(format!("is not what benches/peers.py writes: {e}")))
}

fn measure_numbers(run: &Everywhere<'_>, babble: Option<&Noise>) -> Result<Vec<NumberResult>, EvalError> {
    let j = &run.judges;
    let judge = number::Judge {
        numbers: j.numbers,
        thresholds: run.thresholds,
        trained_on: j.trained_on,
        people: j.people,
        rivals: Rivals { neighbours: None, luhn_pairs: None, random: RANDOM },
    };
    let jobs = NUMBERS.iter().filter(|_| !run.skips(Part::Number)).filter_map(|job| run.plan_of(job, babble));
    jobs.map(|plan| number::measure(&plan, judge)).collect()
}

fn measure_voices(run: &Everywhere<'_>, babble: Option<&Noise>) -> Result<Vec<VoiceResult>, EvalError> {
    let j = &run.judges;
    let mut out = Vec::new();
    for job in VOICES.iter().filter(|_| !run.skips(Part::Voice)) {
        let Some(mut plan) = run.plan_of(job, babble) else { continue };
        // A small draw of trials may hold none of one kind.
        plan.limit = plan.limit.map(|n| n.max(TRIALS_MIN));
        let judge = voiceprint::Judge { policy: j.policy, calibration: j.calibration };
        let (_name, _gallery, found) = voiceprint::measure(&plan, j.embedder, j.voice, judge, job.digits, Pairs::All)?;
        out.push(VoiceResult { condition: plan.condition(job.list, job.digits), found });
    }
    Ok(out)
}

fn measure_decisions(run: &Everywhere<'_>, babble: Option<&Noise>) -> Result<Vec<DecisionResult>, EvalError> {
    let jobs = DECISIONS.iter().filter(|_| !run.skips(Part::Decision)).filter_map(|job| run.plan_of(job, babble));
    jobs.map(|plan| decision::measure(&plan, run.judges)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_peers_result_is_refused_before_anything_runs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"date\": 1}").unwrap();
        let text = read_peers(file.path()).unwrap_err().to_string();
        assert!(text.contains("is not what benches/peers.py writes"), "{text}");
        assert!(read_peers(Path::new("nowhere")).unwrap_err().to_string().contains("can't be read"));
    }

    #[test]
    fn every_condition_of_the_goals_is_measured() {
        let noisy = |jobs: &[Job], db| jobs.iter().any(|j| j.snr_db == Some(db) && j.codec == Codec::Mulaw);
        for db in [15, 10] {
            assert!(noisy(&NUMBERS, db) && noisy(&VOICES, db) && noisy(&DECISIONS, db));
        }
        assert!(NUMBERS.iter().any(|j| j.codec == Codec::Alaw) && VOICES.iter().any(|j| j.codec == Codec::Alaw));
        for (digits, db) in [(8, None), (4, None), (8, Some(15)), (4, Some(15))] {
            assert!(VOICES.iter().any(|j| j.digits == Some(digits) && j.snr_db == db));
        }
    }
}
