//! `voicepay calibrate number`: card numbers heard clean and in babble → how the recogniser's log ratio becomes a calibrated one, and the
//! thresholds that hold false-accept rates over near misses (one digit other, swapped, dropped or doubled), the hardest strings there are.
//!
//! Every figure is by a fit that knows nothing of its speaker. The noise is babble of the list's own enrolled voices, never a
//! recording that figures are later reported on.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::EvalError;
use super::calibrate::{PARTS, SPEAKERS_MIN, babble, parts_of, words};
use super::degrade::Line;
use super::metrics::{Calibration as Fit, Scores, cllr, share};
use super::number::{Judge, Told, told};
use super::plan::Plan;
use super::results::percent;
use crate::decision::calibration::{Calibration, NumberCalibration};
use crate::voiceprint::calibrate::thresholds;

/// What it is calibrated on: a clean line, and such distances from babble (decibels).
const CONDITIONS: [Option<f64>; 3] = [None, Some(15.0), Some(10.0)];
/// False-accept rates that thresholds are looked for at. Neighbours are many (about 325 an utterance), so smaller ones can be told
/// than of voices; those of one utterance go together, so the report counts utterances too.
const RATES: [f64; 10] = [0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001, 0.000_05];
/// Ratios beyond this say nothing more and would pull the fit: strings that far behind are not even scored.
const RATIO_LIMIT: f64 = 15.0;
/// Rates that the report shows acceptance at.
const SHOWN: [f64; 3] = [0.001, 0.0005, 0.0002];

/// One utterance under one condition: whose it is, and its ratios.
type Heard = (usize, Told);

/// The same, calibrated by a fit without the speaker: the number said, and its neighbours.
type Rated = (f64, Vec<f64>);

/// What to calibrate.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The list of genuine utterances.
    pub list: String,
    /// The new file's name.
    pub version: String,
    /// The day, for the file.
    pub today: String,
    /// The one in force; the voice's part and other recognisers' are kept.
    pub before: &'a Calibration,
}

/// The calibration, its report as JSON and as text. `judge.thresholds` are not looked at.
pub fn number(plan: &Plan, judge: Judge<'_>, wanted: &Wanted<'_>) -> Result<(Calibration, Value, String), EvalError> {
    let babble = babble(plan)?;
    let mut conditions: Vec<(String, Vec<Told>)> = Vec::new();
    for snr_db in CONDITIONS {
        let line = match snr_db {
            Some(snr_db) => Line { noise: babble.clone(), snr_db, ..plan.line.clone() },
            None => Line::clean(plan.line.codec),
        };
        let noise_name = snr_db.map(|_| "babble of the enrolled".to_owned());
        let plan = Plan { line, noise_name, list: Some(wanted.list.clone()), ..plan.clone() };
        conditions.push((words(None, snr_db), told(&plan, judge)?));
    }
    finish(judge.numbers.name(), &conditions, wanted)
}

fn finish(
    engine: &str,
    conditions: &[(String, Vec<Told>)],
    wanted: &Wanted<'_>,
) -> Result<(Calibration, Value, String), EvalError> {
    let speakers: BTreeSet<&str> = conditions.iter().flat_map(|(_, told)| told.iter().map(|t| t.speaker.as_str())).collect();
    if speakers.len() < SPEAKERS_MIN {
        let what = format!(
            "{} speakers whom the recogniser has not heard are too few to leave some out: {SPEAKERS_MIN} are needed",
            speakers.len()
        );
        return Err(EvalError::Conditions(what));
    }
    let heard_speakers = speakers.len();
    let part_of = parts_of(speakers);
    let dealt: Vec<(&str, Vec<Heard>)> = conditions
        .iter()
        .map(|(name, all)| {
            let part = |t: &Told| part_of.get(t.speaker.as_str()).copied().unwrap_or(0);
            (name.as_str(), all.iter().map(|t| (part(t), t.clone())).collect())
        })
        .collect();
    let whole = fit(&dealt, None)?;
    let without: Vec<Fit> = (0..PARTS).map(|part| fit(&dealt, Some(part))).collect::<Result<_, _>>()?;
    let held: Vec<(&str, Vec<Rated>)> = dealt
        .iter()
        .map(|(name, heard)| {
            let ratios = |(part, t): &Heard| {
                let by = without.get(*part).unwrap_or(&whole);
                (by.llr(limited(t.own)), t.near.iter().map(|r| by.llr(limited(*r))).collect())
            };
            (*name, heard.iter().map(ratios).collect())
        })
        .collect();
    let near: Vec<Vec<f32>> =
        held.iter().map(|(_, all)| all.iter().flat_map(|(_, near)| near.iter().map(|l| single(*l))).collect()).collect();
    let utterances = conditions.iter().map(|(_, told)| told.len()).max().unwrap_or(0);
    let made_from = format!(
        "{}: {}, {utterances} utterances of {} speakers whom it has not heard, clean and in babble of the enrolled \
         voices at 15 and 10 dB; fits and thresholds without the speaker",
        wanted.today, wanted.list, heard_speakers,
    );
    let made = NumberCalibration {
        engine: engine.to_owned(),
        made_from,
        bias: places(whole.offset),
        slope: places(whole.scale),
        thresholds: thresholds(&near, &RATES),
    };
    if made.thresholds.is_empty() {
        return Err(EvalError::Conditions("there are too few near misses for any threshold".to_owned()));
    }
    let rows: Vec<Value> = held.iter().map(|(name, all)| row(name, all, &made)).collect();
    let text = text_of(&made, &wanted.version, &rows);
    let mut numbers = wanted.before.numbers.clone();
    match numbers.iter_mut().find(|n| n.engine == engine) {
        Some(slot) => *slot = made,
        None => numbers.insert(0, made),
    }
    let before = wanted.before;
    let calibration = Calibration {
        version: wanted.version.clone(),
        made_from: before.made_from.clone(),
        voice: before.voice.clone(),
        numbers,
    };
    Ok((calibration.clone(), json!({ "calibration": calibration, "conditions": rows }), text))
}

/// On everything, or on everybody but those of one part.
fn fit(dealt: &[(&str, Vec<Heard>)], without: Option<usize>) -> Result<Fit, EvalError> {
    let mut scores = Scores::default();
    for (_, t) in dealt.iter().flat_map(|(_, heard)| heard).filter(|(part, _)| Some(*part) != without) {
        scores.genuine.push(limited(t.own));
        scores.impostor.extend(t.near.iter().map(|r| limited(*r)));
    }
    let made = Fit::fit(&scores).filter(|f| f.scale.is_finite() && f.scale > 0.0 && f.offset.is_finite());
    made.ok_or_else(|| EvalError::Conditions("numbers said and near misses can't be told apart at all".to_owned()))
}

fn row(name: &str, all: &[Rated], made: &NumberCalibration) -> Value {
    let scores =
        Scores { genuine: all.iter().map(|a| a.0).collect(), impostor: all.iter().flat_map(|a| a.1.iter().copied()).collect() };
    let at = |far: &f64| {
        let t = made.threshold_at(*far).map_or(f64::INFINITY, f64::from);
        let worst = all.iter().filter(|(_, near)| near.iter().any(|l| *l >= t)).count();
        json!({
            "far": far,
            "accepted": share(&scores.genuine, |l| l >= t),
            "near_misses": share(&scores.impostor, |l| l >= t),
            "worst_neighbour": worst as f64 / all.len().max(1) as f64,
        })
    };
    json!({
        "condition": name,
        "utterances": scores.genuine.len(),
        "near_misses": scores.impostor.len(),
        "eer": scores.eer(),
        "cllr": cllr(&scores),
        "at": SHOWN.iter().map(at).collect::<Vec<_>>(),
    })
}

fn text_of(made: &NumberCalibration, version: &str, rows: &[Value]) -> String {
    let mut out = format!("{version}, {}: ratio = {} + {} · log ratio\n", made.engine, made.bias, made.slope);
    out += &format!("{:<18} {:>6} {:>8} {:>7}", "condition", "utts", "EER", "Cllr");
    for far in SHOWN {
        out += &format!("  {:>28}", format!("accepted/near/worst at {}", percent(far)));
    }
    out.push('\n');
    for row in rows {
        let f = |k: &str| row.pointer(k).and_then(Value::as_f64).unwrap_or(f64::NAN);
        out += &format!(
            "{:<18} {:>6} {:>8} {:>7.3}",
            row.get("condition").and_then(Value::as_str).unwrap_or_default(),
            f("/utterances"),
            percent(f("/eer")),
            f("/cllr")
        );
        for i in 0..SHOWN.len() {
            let at = |k: &str| percent(f(&format!("/at/{i}/{k}")));
            out += &format!("  {:>28}", format!("{}/{}/{}", at("accepted"), at("near_misses"), at("worst_neighbour")));
        }
        out.push('\n');
    }
    for t in &made.thresholds {
        out += &format!("FAR {} at {:.2} nats (log ratio {:.2})\n", percent(t.far), t.llr, (t.llr - made.bias) / made.slope);
    }
    out.trim_end().to_owned()
}

fn limited(ratio: f64) -> f64 {
    if ratio.is_nan() { -RATIO_LIMIT } else { ratio.clamp(-RATIO_LIMIT, RATIO_LIMIT) }
}

#[allow(clippy::cast_possible_truncation)] // a few tens at most
fn single(x: f64) -> f32 {
    x as f32
}

/// Four places: finer than anything that was measured, and a file that can be read.
fn places(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers said lie around +4, neighbours around −8; now and then a neighbour comes near.
    fn heard(speakers: usize, worse: f64) -> Vec<Told> {
        (0..speakers * 6)
            .map(|i| {
                let wobble = (i * 37 % 100) as f64 / 50.0 - 1.0;
                let near = (0..200).map(|n| -8.0 + worse + (n * 53 % 97) as f64 / 97.0 * 8.0 + wobble).collect();
                Told { speaker: format!("s/p{}", i % speakers), own: 4.0 - worse + 2.0 * wobble, near }
            })
            .collect()
    }

    fn wanted(before: &Calibration) -> Wanted<'_> {
        Wanted { list: "l.csv".to_owned(), version: "mine-1".to_owned(), today: "2026-11-22".to_owned(), before }
    }

    #[test]
    fn thresholds_hold_their_rates_in_the_worst_condition_and_the_rest_is_kept() {
        let before = Calibration::compiled_in().unwrap();
        let conditions = [("clean".to_owned(), heard(12, 0.0)), ("babble".to_owned(), heard(12, 2.0))];
        let (made, json, text) = finish("mine", &conditions, &wanted(before)).unwrap();
        assert_eq!((made.version.as_str(), &made.voice), ("mine-1", &before.voice));
        assert_eq!(made.numbers.len(), before.numbers.len() + 1);
        let mine = made.number_for("mine").unwrap();
        assert!(mine.slope > 0.0 && mine.llr(6.0) > mine.llr(-6.0));
        let t = mine.threshold_at(0.01).unwrap();
        let all = &conditions[1].1;
        let above = all.iter().flat_map(|t| &t.near).filter(|r| mine.llr(**r as f32) >= t).count();
        assert!(above as f64 / (200 * all.len()) as f64 <= 0.015, "{above}: {text}");
        assert!(json.pointer("/conditions/1/at/0/accepted").is_some());
        // Made anew for the same recogniser it takes the old one's place.
        let again = finish("mine", &conditions, &Wanted { before: &made, ..wanted(before) }).unwrap().0;
        assert_eq!(again.numbers.len(), made.numbers.len());
        Calibration::from_json(&serde_json::to_string(&again).unwrap()).unwrap();
    }

    #[test]
    fn few_speakers_or_nothing_to_tell_apart_are_refused() {
        let before = Calibration::compiled_in().unwrap();
        let few = [("clean".to_owned(), heard(4, 0.0))];
        assert!(finish("mine", &few, &wanted(before)).unwrap_err().to_string().contains("4 speakers"));
        let mut none = heard(12, 0.0);
        none.iter_mut().for_each(|t| t.near.clear());
        let text = finish("mine", &[("clean".to_owned(), none)], &wanted(before)).unwrap_err().to_string();
        assert!(text.contains("told apart"), "{text}");
    }
}
