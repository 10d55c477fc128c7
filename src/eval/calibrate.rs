//! `voicepay calibrate voice`: trials → a calibration file with its report. Every score is by a mean that knows neither speaker, every figure
//! by a fit that knows neither, so that the report tells of callers nobody has heard.
//!
//! The noise is babble of the list's own enrolled voices, never a recording that figures are later reported on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::EvalError;
use super::checks;
use super::data::{Recipe, Table, read_recipes};
use super::degrade::{Line, Noise, RATE, active_rms};
use super::metrics::{P_TARGET, Scores, bayes_threshold, cllr};
use super::plan::Plan;
use super::random::Random;
use super::results::percent;
use super::splice::assemble;
use super::voiceprint::{Gallery, Judge, Scored, Who, all_pairs, enrol, hear_all, read_trials, score_all, takes};
use crate::decision::calibration::{Calibration, VoiceCalibration, shortness};
use crate::voiceprint::calibrate::{Impostor, Sample, fit, thresholds_for_all};
use crate::voiceprint::{Conditions, Embedder, VoiceConfig};

/// What it is calibrated on: so many digits of each utterance (all if none), at such a distance from babble (none: a clean line).
const CONDITIONS: [(Option<usize>, Option<f64>); 7] = [
    (None, None),
    (Some(8), None),
    (Some(4), None),
    (None, Some(15.0)),
    (Some(8), Some(15.0)),
    (Some(4), Some(15.0)),
    (Some(8), Some(10.0)),
];
/// Thresholds are those of this many digits and more; for fewer, something is taken off ([`thresholds_for_all`]).
const THRESHOLD_DIGITS_MIN: usize = 8;
/// Voices in a babble, babbles, and how long one is.
const BABBLE_VOICES: usize = 8;
const BABBLES: usize = 6;
const BABBLE_MS: u32 = 20_000;
/// Parts that speakers are dealt into: a trial is judged by a fit without the parts of its speakers.
pub(super) const PARTS: usize = 5;
/// Fewer speakers can't be parted.
pub(super) const SPEAKERS_MIN: usize = 10;

/// What to calibrate.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The trial lists; none may hold a trial of another.
    pub lists: Vec<String>,
    /// A list of voices that the mean in force was made of. Then that mean scores, and none of them may be tested.
    pub cohort: Option<String>,
    /// The new file's name.
    pub version: String,
    /// The day, for the file.
    pub today: String,
    /// The one in force; its numbers' part is kept.
    pub before: &'a Calibration,
}

/// The calibration, its report as JSON and as text.
pub fn voice(
    plan: &Plan,
    embedder: &Embedder,
    config: &VoiceConfig,
    judge: Judge<'_>,
    wanted: &Wanted<'_>,
) -> Result<(Calibration, Value, String), EvalError> {
    let tested = speakers_of(plan, &wanted.lists)?;
    if let Some(cohort) = &wanted.cohort {
        refuse_known(plan, cohort, &tested)?;
    } else if tested.len() < SPEAKERS_MIN {
        let what = format!("{} speakers are too few to leave some out: {SPEAKERS_MIN} are needed", tested.len());
        return Err(EvalError::Conditions(what));
    }
    let babble = babble(plan)?;
    let mut galleries: BTreeMap<String, Gallery> = BTreeMap::new();
    let mut parts: Vec<(usize, String, Vec<Scored>)> = Vec::new();
    for (digits, snr_db) in CONDITIONS {
        let mut scored = Vec::new();
        for list in &wanted.lists {
            let line = match snr_db {
                Some(snr_db) => Line { noise: babble.clone(), snr_db, ..plan.line.clone() },
                None => Line::clean(plan.line.codec),
            };
            let plan = Plan { line, list: Some(list.clone()), ..plan.clone() };
            let table = Table::read(&plan.split.find_list(list)?)?;
            if table.has("test_path") && digits.is_some() {
                continue; // natural recordings can't be cut at a digit
            }
            let (listed, utterances) = read_trials(&plan, &table, digits)?;
            let (trials, utterances) = all_pairs(&listed, &utterances);
            if !galleries.contains_key(list) {
                let who = trials.iter().map(|t| t.enrolled.clone()).collect();
                let takes = takes(&plan, table.has("test_path"), &who)?;
                checks::enrolment_apart(takes.values().flatten(), &utterances)?;
                galleries.insert(list.clone(), enrol(&plan, embedder, config, &takes)?);
            }
            let Some(gallery) = galleries.get(list) else { continue };
            let heard = hear_all(&plan, embedder, &words(digits, snr_db), &utterances)?;
            let (some, held_out) = score_all(&trials, gallery, &heard, judge)?;
            if !held_out && wanted.cohort.is_none() {
                return Err(EvalError::Conditions(format!("{list} enrols too few speakers for a mean of the others")));
            }
            scored.extend(some);
        }
        parts.push((digits.unwrap_or(usize::MAX), words(digits, snr_db), scored));
    }
    finish(embedder, parts, wanted)
}

/// A trial by a fit that has heard neither speaker.
#[derive(Clone, Copy)]
struct Rated {
    target: bool,
    llr: f32,
    net_speech_ms: u32,
}

/// Digits, the condition in words, and its trials.
type Held<'a> = (usize, &'a str, Vec<Rated>);

fn finish(
    embedder: &Embedder,
    parts: Vec<(usize, String, Vec<Scored>)>,
    wanted: &Wanted<'_>,
) -> Result<(Calibration, Value, String), EvalError> {
    let model = embedder.version().to_string();
    let all: Vec<&Scored> = parts.iter().flat_map(|(_, _, s)| s).collect();
    let one_kind =
        || EvalError::Conditions("the lists hold no genuine trials, or no others: nothing can be told apart".to_owned());
    let samples: Vec<Sample> = all.iter().map(|s| sample(s)).collect();
    let mut made = fit(&samples, P_TARGET, &model).ok_or_else(one_kind)?;
    let mut dealt = Dealt::new(&all);
    let mut held: Vec<Held<'_>> = Vec::new();
    for (digits, name, scored) in &parts {
        let one = |s: &Scored| {
            let by = dealt.without(s, &all, &model)?;
            Some(Rated { target: s.target, llr: llr(&by, s), net_speech_ms: s.net_speech_ms })
        };
        let rated: Option<Vec<Rated>> = scored.iter().map(one).collect();
        held.push((*digits, name, rated.ok_or_else(one_kind)?));
    }
    let impostors = |long: bool| -> Vec<Vec<Impostor>> {
        let of = held.iter().filter(|(digits, _, _)| (*digits >= THRESHOLD_DIGITS_MIN) == long);
        of.map(|(_, _, rated)| rated.iter().filter(|r| !r.target).map(|r| (r.llr, r.net_speech_ms)).collect()).collect()
    };
    (made.short, made.thresholds) = thresholds_for_all(&impostors(true), &impostors(false));
    if made.thresholds.is_empty() {
        return Err(EvalError::Conditions("there are too few impostor trials for any threshold".to_owned()));
    }
    let speakers: BTreeSet<&Who> = all.iter().map(|s| &s.enrolled).collect();
    let made_from = format!(
        "{}, by `voicepay calibrate voice`: {}, all pairs within a source, {} speakers, {} trials under {} conditions (16, 8 and 4 digits, \
         clean and in babble of the enrolled voices); thresholds and report by fits and means without the speakers of a trial",
        wanted.today,
        wanted.lists.join(", "),
        speakers.len(),
        all.len(),
        parts.len()
    );
    let rows: Vec<Value> = held.iter().map(|(_, name, rated)| row(name, rated, &made)).collect();
    let calibration =
        Calibration { version: wanted.version.clone(), made_from, voice: made, numbers: wanted.before.numbers.clone() };
    let text = text_of(&calibration, &rows);
    let json = json!({ "calibration": calibration, "conditions": rows });
    Ok((calibration, json, text))
}

fn row(name: &str, rated: &[Rated], made: &VoiceCalibration) -> Value {
    let mut scores = Scores::default();
    for r in rated {
        let llr = f64::from(r.llr) - made.short * shortness(r.net_speech_ms);
        if r.target { &mut scores.genuine } else { &mut scores.impostor }.push(llr);
    }
    let at = |far: f64| made.threshold_at(far).map(|t| scores.at(f64::from(t)));
    let actual = scores.at(bayes_threshold());
    json!({
        "condition": name,
        "genuine": scores.genuine.len(),
        "impostor": scores.impostor.len(),
        "eer": scores.eer(),
        "min_dcf": scores.min_dcf(),
        "act_dcf": actual.dcf(),
        "cllr": cllr(&scores),
        "frr_at_far_0_01": scores.at_far(0.01).frr,
        "at_threshold_0_01": at(0.01),
        "at_threshold_0_002": at(0.002),
    })
}

fn text_of(calibration: &Calibration, rows: &[Value]) -> String {
    let mut out = format!("{}, made from {}\n", calibration.version, calibration.made_from);
    out += &format!(
        "{:<24} {:>8} {:>8} {:>8} {:>7} {:>11} {:>22} {:>22}\n",
        "condition", "EER", "minDCF", "actDCF", "Cllr", "FRR@FAR 1%", "FAR/FRR at t(1 %)", "FAR/FRR at t(0.2 %)"
    );
    for row in rows {
        let f = |k: &str| row.pointer(k).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let both = |k: &str| format!("{}/{}", percent(f(&format!("/{k}/far"))), percent(f(&format!("/{k}/frr"))));
        out += &format!(
            "{:<24} {:>8} {:>8.3} {:>8.3} {:>7.3} {:>11} {:>22} {:>22}\n",
            row.get("condition").and_then(Value::as_str).unwrap_or_default(),
            percent(f("/eer")),
            f("/min_dcf"),
            f("/act_dcf"),
            f("/cllr"),
            percent(f("/frr_at_far_0_01")),
            both("at_threshold_0_01"),
            both("at_threshold_0_002"),
        );
    }
    out += &format!("{} nats taken off per factor e of speech below 5 s\n", calibration.voice.short);
    for t in &calibration.voice.thresholds {
        out += &format!("FAR {} at {:.2} nats\n", percent(t.far), t.llr);
    }
    out.trim_end().to_owned()
}

/// Which part each speaker is in: in the order of their names, source by source, so that each part has some of each.
pub(super) fn parts_of<Who: Ord>(speakers: BTreeSet<Who>) -> BTreeMap<Who, usize> {
    speakers.into_iter().enumerate().map(|(i, who)| (who, i % PARTS)).collect()
}

/// Speakers in parts, and the fits without one or two of them, made when they are asked for.
struct Dealt {
    part_of: BTreeMap<Who, usize>,
    fits: BTreeMap<(usize, usize), Option<VoiceCalibration>>,
}

impl Dealt {
    fn new(all: &[&Scored]) -> Self {
        let speakers: BTreeSet<Who> =
            all.iter().flat_map(|s| [s.enrolled.clone(), (s.enrolled.0.clone(), s.tested.clone())]).collect();
        Self { part_of: parts_of(speakers), fits: BTreeMap::new() }
    }

    fn parts(&self, s: &Scored) -> (usize, usize) {
        let part = |who: &Who| self.part_of.get(who).copied().unwrap_or(0);
        let (a, b) = (part(&s.enrolled), part(&(s.enrolled.0.clone(), s.tested.clone())));
        (a.min(b), a.max(b))
    }

    fn without(&mut self, trial: &Scored, all: &[&Scored], model: &str) -> Option<VoiceCalibration> {
        let pair = self.parts(trial);
        if !self.fits.contains_key(&pair) {
            let apart = |s: &&&Scored| {
                let (a, b) = self.parts(s);
                ![a, b].iter().any(|p| *p == pair.0 || *p == pair.1)
            };
            let others: Vec<Sample> = all.iter().filter(apart).map(|s| sample(s)).collect();
            self.fits.insert(pair, fit(&others, P_TARGET, model));
        }
        self.fits.get(&pair).cloned().flatten()
    }
}

#[allow(clippy::cast_possible_truncation)] // was an f32
fn sample(s: &Scored) -> Sample {
    let made = Conditions { net_speech_ms: s.net_speech_ms, snr_db: s.snr_db };
    Sample { target: s.target, cosine: s.cosine as f32, made }
}

fn llr(by: &VoiceCalibration, s: &Scored) -> f32 {
    let one = sample(s);
    by.llr(one.cosine, one.made.net_speech_ms, one.made.snr_db)
}

pub(super) fn words(digits: Option<usize>, snr_db: Option<f64>) -> String {
    let digits = digits.map_or_else(|| "whole".to_owned(), |n| format!("{n} digits"));
    snr_db.map_or_else(|| format!("{digits}, clean"), |db| format!("{digits}, babble {db:.0} dB"))
}

/// Who is tested, once the lists are sound: not empty, none twice, no trial in two of them.
fn speakers_of(plan: &Plan, lists: &[String]) -> Result<BTreeSet<Who>, EvalError> {
    let mut seen: BTreeMap<(String, String, String), &str> = BTreeMap::new();
    let mut speakers = BTreeSet::new();
    for list in lists {
        let table = Table::read(&plan.split.find_list(list)?)?;
        if table.rows().next().is_none() {
            return Err(table.complaint("lists no trials"));
        }
        let natural = table.has("test_path");
        for row in table.rows() {
            let source = row.filled("source")?.to_owned();
            let said = row.filled(if natural { "test_path" } else { "utt_id" })?.to_owned();
            let enrolled = row.filled("enrol_speaker")?.to_owned();
            speakers.insert((source.clone(), enrolled.clone()));
            speakers.insert((source.clone(), row.filled("test_speaker")?.to_owned()));
            if let Some(first) = seen.insert((source, enrolled, said.clone()), list) {
                let what = if first == list {
                    format!("the trial of {said} stands in it twice")
                } else {
                    format!("the trial of {said} also stands in {first}: lists must not overlap")
                };
                return Err(table.complaint(what));
            }
        }
    }
    Ok(speakers)
}

/// A mean that has heard a speaker flatters that speaker's trials.
fn refuse_known(plan: &Plan, cohort: &str, tested: &BTreeSet<Who>) -> Result<(), EvalError> {
    let table = Table::read(&plan.split.find_list(cohort)?)?;
    if table.rows().next().is_none() {
        return Err(
            table.complaint("lists nobody: it should name the voices that the mean was made of (columns source, speaker)")
        );
    }
    for row in table.rows() {
        let who: Who = (row.filled("source")?.to_owned(), row.filled("speaker")?.to_owned());
        if tested.contains(&who) {
            let what = format!("{} of {} is also tested: the mean must not have heard whom it is tried on", who.1, who.0);
            return Err(row.complaint("speaker", what));
        }
    }
    Ok(())
}

/// Eight of the enrolled voices at once, each as loud, a few times over.
pub(super) fn babble(plan: &Plan) -> Result<Noise, EvalError> {
    let recipes: Vec<Recipe> = read_recipes(&plan.split.trials("enrolment.csv"))?;
    let samples = (BABBLE_MS * RATE / 1000) as usize;
    let mut out = Vec::new();
    for n in 0..BABBLES {
        let mut random = Random::from_text(&format!("babble {n} {}", plan.seed));
        let mut sum = vec![0.0f64; samples];
        for i in random.sample(recipes.len(), BABBLE_VOICES) {
            let Some(recipe) = recipes.get(i) else { continue };
            let voice = assemble(&plan.split, recipe, RATE)?;
            let (gain, from) = (1.0 / active_rms(&voice).max(1e-6), random.below(voice.len()));
            sum.iter_mut().zip(voice.iter().cycle().skip(from)).for_each(|(s, v)| *s += gain * v);
        }
        out.push((PathBuf::from(format!("babble of {BABBLE_VOICES} enrolled voices, {n}")), sum));
    }
    Ok(Noise::Files(Arc::new(out)))
}

#[cfg(test)]
mod tests {
    use super::super::data::Split;
    use super::super::degrade::Codec;
    use super::*;

    fn plan(dir: &std::path::Path, lists: &[(&str, &str)]) -> Plan {
        std::fs::create_dir_all(dir.join("dev/trials")).unwrap();
        for (name, text) in lists {
            std::fs::write(dir.join("dev/trials").join(name), text).unwrap();
        }
        let split = Split::open(dir, "dev").unwrap();
        Plan::new(split, Line::clean(Codec::Mulaw))
    }

    const HEAD: &str = "trial_id,source,enrol_speaker,utt_id,test_speaker,target,same_gender\n";

    #[test]
    fn empty_and_overlapping_lists_are_refused_and_the_trial_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (format!("{HEAD}T0,s,anna,u1,anna,1,\nT1,s,anna,u2,bert,0,\n"), format!("{HEAD}X,s,anna,u2,bert,0,\n"));
        let plan = plan(dir.path(), &[("a.csv", &one), ("b.csv", &two), ("empty.csv", HEAD)]);
        let refused = |lists: &[&str]| {
            let lists: Vec<String> = lists.iter().map(|l| (*l).to_owned()).collect();
            speakers_of(&plan, &lists).unwrap_err().to_string()
        };
        assert!(refused(&["empty.csv"]).contains("lists no trials"));
        assert!(refused(&["a.csv", "b.csv"]).contains("the trial of u2 also stands in a.csv"));
        assert!(refused(&["a.csv", "a.csv"]).contains("twice"));
        assert!(refused(&["nowhere.csv"]).contains("there is no list nowhere.csv"));
        assert_eq!(speakers_of(&plan, &["a.csv".to_owned()]).unwrap().len(), 2);
    }

    #[test]
    fn whom_the_mean_has_heard_may_not_be_tested() {
        let dir = tempfile::tempdir().unwrap();
        let plan =
            plan(dir.path(), &[("c.csv", "source,speaker,paths\nlibri,ls1,x\ns,anna,y\n"), ("none.csv", "source,speaker\n")]);
        let tested = BTreeSet::from([("s".to_owned(), "anna".to_owned())]);
        let text = refuse_known(&plan, "c.csv", &tested).unwrap_err().to_string();
        assert!(text.contains("line 3") && text.contains("anna of s is also tested"), "{text}");
        assert!(refuse_known(&plan, "c.csv", &BTreeSet::new()).is_ok());
        assert!(refuse_known(&plan, "none.csv", &tested).unwrap_err().to_string().contains("lists nobody"));
    }

    fn scored(i: usize, target: bool) -> Scored {
        let who = ("s".to_owned(), format!("p{}", i % 11));
        let tested = if target { who.1.clone() } else { format!("p{}", (i + 1 + i / 11 % 10) % 11) };
        let wobble = (i * 37 % 100) as f64 / 250.0;
        let cosine = if target { 0.6 + wobble } else { 0.1 + wobble };
        Scored { enrolled: who, tested, target, cosine, llr: 0.0, net_speech_ms: 8_000, snr_db: 30.0 }
    }

    #[test]
    fn nobody_is_judged_by_a_fit_that_has_heard_them() {
        let all: Vec<Scored> = (0..600).map(|i| scored(i, i % 4 == 0)).collect();
        let all: Vec<&Scored> = all.iter().collect();
        let mut dealt = Dealt::new(&all);
        let trial = all.iter().find(|s| !s.target && dealt.parts(s).0 != dealt.parts(s).1).unwrap();
        let pair = dealt.parts(trial);
        assert!(dealt.without(trial, &all, "m").is_some());
        assert_eq!(dealt.fits.keys().copied().collect::<Vec<_>>(), [pair]);
        // The fit of the rest alone is the same one.
        let rest: Vec<Sample> = all
            .iter()
            .filter(|s| {
                let p = dealt.parts(s);
                ![p.0, p.1].iter().any(|x| *x == pair.0 || *x == pair.1)
            })
            .map(|s| sample(s))
            .collect();
        assert_eq!(dealt.without(trial, &all, "m"), fit(&rest, P_TARGET, "m"));
    }
}
