//! How well numbers are heard: free reading, the authorised number's acceptance, and what passes that should not: numbers one slip
//! away, those that could be real cards, and others altogether. Each utterance is heard once; thousands of strings are scored on it.
//!
//! The headline is of English speakers who never trained the recogniser. Those who did, and other languages, stand apart.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::EvalError;
use super::data::{Recipe, read_recipes};
use super::degrade::RATE;
use super::holdout::TrainedOn;
use super::metrics::{Scores, edit_distance};
use super::neighbours::Kind;
use super::people::People;
use super::plan::{BySpeaker, Plan};
use super::results::{Condition, Latency, Rate, Shape, Slice, finite, grouped, percent_of};
use super::rivals::{Near, Rivals, Wrong};
use super::voiceprint::engine;
use super::work::{self, Progress, timed};
use crate::clock::SeededEntropy;
use crate::decision::{NumberEvidence, Policy, Tightening, VoiceAccepted, VoiceScore, VoiceVerdict, judge_voice};
use crate::ids::CardId;
use crate::secret::Pan;
use crate::speech::NumberEngine;

/// What a report calls a near miss: one slip. Luhn-valid pairs are two digits away and counted for themselves.
const ONE_SLIP: [Kind; 4] = [Kind::Substitution, Kind::Swap, Kind::Deletion, Kind::Insertion];
/// Thresholds that the report goes through.
const SWEEP: [f64; 12] = [-4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0];
/// Longer than the recogniser's window, in seconds: nobody says a card number so, and the rest would be cut off.
const LONGEST_S: f64 = 30.0;
/// Charts show ratios this far from zero.
const SHOWN: f64 = 25.0;
/// Machine-made labels are this often wrong, a digit (the data's own estimate).
const LABEL_ERROR: f64 = 0.01;

/// The policy's thresholds as raw log ratios, which is what is compared here.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawThresholds {
    /// Accept from here on.
    pub accept_log_ratio: f64,
    /// Reject below.
    pub reject_log_ratio: f64,
}

/// What measures.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Hears numbers.
    pub numbers: &'a dyn NumberEngine,
    /// Thresholds.
    pub thresholds: RawThresholds,
    /// Whom the recogniser knows.
    pub trained_on: &'a TrainedOn,
    /// Languages and genders.
    pub people: &'a People,
    /// Wrong numbers a trial.
    pub rivals: Rivals,
}

/// Figures of a set of utterances.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NumberFigures {
    /// How many.
    pub utterances: usize,
    /// Of how many speakers.
    pub speakers: usize,
    /// Free reading right in every digit.
    pub free_exact: Rate,
    /// Substituted, deleted and inserted digits of all digits said.
    pub digit_errors: Rate,
    /// What `free_exact` can be at most, where labels are machine-made.
    pub exact_ceiling: f64,
    /// The number said, accepted at the thresholds.
    pub authorised: Rate,
    /// Asked for again.
    pub inconclusive: Rate,
    /// Numbers one slip away, accepted; a trial is a pair of utterance and neighbour.
    pub near_miss: Rate,
    /// Utterances with any such neighbour accepted.
    pub worst_neighbour: Rate,
    /// The same by kind of slip.
    pub near_miss_by_kind: Vec<(Kind, Rate)>,
    /// Neighbours of any kind that pass Luhn's check.
    pub near_miss_luhn: Rate,
    /// Random other numbers, accepted.
    pub random: Rate,
    /// Equal error rate of the number said against its substitutions.
    pub one_digit_eer: Option<f64>,
    /// The same against its swaps.
    pub transposed_eer: Option<f64>,
    /// Hearing, reading and scoring one utterance.
    pub latency: Latency,
}

/// One threshold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct SweepRow {
    /// Accept from this log ratio on.
    pub accept_log_ratio: f64,
    /// The number said.
    pub authorised: Option<f64>,
    /// One-slip neighbours.
    pub near_miss: Option<f64>,
    /// Utterances with any.
    pub worst_neighbour: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NumberResult {
    /// Under which conditions.
    pub condition: Condition,
    /// The recogniser.
    pub engine: String,
    /// Its thresholds.
    pub thresholds: RawThresholds,
    /// English speakers whom it never heard in training.
    pub figures: NumberFigures,
    /// Parts of the headline.
    pub slices: Vec<Slice<NumberFigures>>,
    /// Speakers who trained it, apart: their own recordings or others of them.
    pub trained_on: Option<NumberFigures>,
    /// Speakers of other languages by language, apart.
    pub other_languages: Vec<Slice<NumberFigures>>,
    /// Sources that are in no headline, each for itself.
    pub apart_by_source: Vec<Slice<NumberFigures>>,
    /// Recordings left out for being longer than the recogniser's window.
    pub too_long: usize,
    /// What other thresholds would have done.
    pub sweep: Vec<SweepRow>,
    /// Ratios of numbers said and of one-slip neighbours.
    pub shape: Shape,
    /// Hearing: the costly part.
    pub hearing: Latency,
    /// Reading freely and scoring the authorised number on what was heard.
    pub deciding: Latency,
}

/// What became of one utterance.
#[derive(Clone, Debug)]
struct Tried {
    source: String,
    speaker: String,
    digits: usize,
    /// Its label may be wrong.
    label_unsure: bool,
    edits: usize,
    own: f64,
    near: Vec<Near>,
    random: Vec<f64>,
    hear_ms: f64,
    decide_ms: f64,
}

/// The list that is taken when none is named: confirmed numbers where there are some.
pub fn default_list(plan: &Plan) -> String {
    let confirmed = "card_utterances_confirmed.csv";
    if plan.split.trials(confirmed).is_file() { confirmed } else { "card_utterances.csv" }.to_owned()
}

/// Genuine utterances of a list.
pub fn genuine(plan: &Plan, name: &str) -> Result<Vec<Recipe>, EvalError> {
    let file = plan.split.find_list(name)?;
    let mut recipes = read_recipes(&file)?;
    recipes.retain(|r| r.role == "genuine" && !r.digits.is_empty());
    if recipes.is_empty() {
        return Err(EvalError::List { file, what: "lists no genuine utterances".to_owned() });
    }
    Ok(recipes)
}

/// Proof of an accepted voice for measuring numbers alone: any voice passes these thresholds. Only here and in tests.
pub fn any_voice() -> Result<VoiceAccepted, EvalError> {
    let score = VoiceScore { llr: 0.0, ..VoiceScore::not_compared(0, "none: numbers measured alone") };
    match judge_voice(&Policy::any_voice(), score, &Tightening::default()) {
        VoiceVerdict::Accepted(accepted) => Ok(accepted),
        VoiceVerdict::StepUp(_) | VoiceVerdict::Inconclusive | VoiceVerdict::Rejected => {
            Err(EvalError::Conditions("no voice is accepted at all".to_owned()))
        }
    }
}

/// The log ratio of the only card that was asked about.
pub fn log_ratio(evidence: &NumberEvidence) -> f64 {
    match evidence {
        NumberEvidence::Spoken { cards, .. } => cards.first().map_or(f64::NAN, |c| f64::from(c.log_ratio)),
        NumberEvidence::Keyed { .. } => f64::NAN,
    }
}

/// Runs it for the command line.
pub fn run(plan: &Plan, judge: Judge<'_>) -> Result<(Value, String), EvalError> {
    let result = measure(plan, judge)?;
    let mut json = result.figures.json();
    if let Some(map) = json.as_object_mut() {
        map.insert("by_source".to_owned(), result.by_source());
        map.insert("trained_on".to_owned(), json!(result.trained_on.as_ref().map(NumberFigures::json)));
        let foreign = result.other_languages.iter().map(|s| (s.name.clone(), s.figures.json()));
        map.insert("other_languages".to_owned(), Value::Object(foreign.collect()));
        map.insert("by_threshold".to_owned(), json!(result.sweep));
        map.insert("too_long".to_owned(), json!(result.too_long));
        let mut conditions = plan.conditions(&result.condition.list, &[("number", result.engine.clone())]);
        if let Some(c) = conditions.as_object_mut() {
            c.insert("accept_log_ratio".to_owned(), json!(judge.thresholds.accept_log_ratio));
            c.insert("neighbours".to_owned(), judge.rivals.neighbours.map_or(json!("all"), |n| json!(n)));
            c.insert("left_out_of_the_headline".to_owned(), json!(judge.trained_on.names().collect::<Vec<_>>()));
        }
        map.insert("conditions".to_owned(), conditions);
    }
    Ok((json, text_of(&result)))
}

impl NumberFigures {
    /// The keys that `eval number --json` promises: plain numbers, intervals beside them.
    pub fn json(&self) -> Value {
        json!({
            "authorised_accept_rate": self.authorised.rate,
            "near_miss_false_accept_rate": self.near_miss.rate,
            "worst_neighbour_accept_rate": self.worst_neighbour.rate,
            "one_digit_eer": self.one_digit_eer,
            "transposed_eer": self.transposed_eer,
            "random_accepts": self.random.hits,
            "random_trials": self.random.of,
            "free_exact_rate": self.free_exact.rate,
            "digit_error_rate": self.digit_errors.rate,
            "p50_ms": self.latency.p50_ms,
            "p95_ms": self.latency.p95_ms,
            "utterances": self.utterances,
            "speakers": self.speakers,
            "inconclusive_rate": self.inconclusive.rate,
            "near_miss_trials": self.near_miss.of,
            "near_miss_by_kind": self.near_miss_by_kind.iter().map(|(k, r)| (k.name().to_owned(), json!(r))).collect::<serde_json::Map<_, _>>(),
            "near_miss_luhn_valid": self.near_miss_luhn,
            "free_exact_ceiling": self.exact_ceiling,
            "intervals_95": {
                "authorised_accept_rate": self.authorised.interval_95,
                "near_miss_false_accept_rate": self.near_miss.interval_95,
                "worst_neighbour_accept_rate": self.worst_neighbour.interval_95,
                "free_exact_rate": self.free_exact.interval_95,
                "digit_error_rate": self.digit_errors.interval_95,
            },
        })
    }
}

impl NumberResult {
    /// Every source, those out of the headline included.
    fn by_source(&self) -> Value {
        let of = |s: &Slice<NumberFigures>| (s.name.clone(), s.figures.json());
        Value::Object(self.slices.iter().filter(|s| s.by == "source").chain(&self.apart_by_source).map(of).collect())
    }
}

/// Measures one list under one condition.
pub fn measure(plan: &Plan, judge: Judge<'_>) -> Result<NumberResult, EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| default_list(plan));
    let plan = &Plan { list: Some(name.clone()), ..plan.clone() };
    let tried = try_all(plan, judge, genuine(plan, &name)?)?;
    let too_long = tried.iter().filter(|t| t.is_none()).count();
    let tried: Vec<Tried> = tried.into_iter().flatten().collect();

    let english = |t: &&Tried| judge.english(&t.source, &t.speaker);
    let (known, new): (Vec<&Tried>, Vec<&Tried>) = tried.iter().partition(|t| judge.trained_on.heard(&t.source, &t.speaker));
    let (headline, foreign): (Vec<&Tried>, Vec<&Tried>) = new.into_iter().partition(english);
    // A list in another language altogether is its own headline.
    let (headline, foreign) = if headline.is_empty() { (foreign, headline) } else { (headline, foreign) };
    let apart: Vec<&Tried> = known.iter().chain(&foreign).copied().collect();
    let figures = |of: &[&Tried]| figures(of, judge.thresholds, plan.seed);
    let by = |by: &str, of: &[&Tried], name: &dyn Fn(&Tried) -> String| -> Vec<Slice<NumberFigures>> {
        let parts = grouped(of, |t| name(t));
        parts
            .into_iter()
            .map(|(name, part)| {
                let part: Vec<&Tried> = part.into_iter().copied().collect();
                Slice { by: by.to_owned(), name, figures: figures(&part) }
            })
            .collect()
    };
    let mut slices = by("source", &headline, &|t| t.source.clone());
    slices.extend(by("gender", &headline, &|t| judge.people.gender(&t.source, &t.speaker)));
    Ok(NumberResult {
        condition: plan.condition(&name, None),
        engine: judge.numbers.name().to_owned(),
        thresholds: judge.thresholds,
        figures: figures(&headline),
        slices,
        trained_on: (!known.is_empty()).then(|| figures(&known)),
        other_languages: by("language", &foreign, &|t| judge.people.language(&t.source, &t.speaker)),
        apart_by_source: by("source", &apart, &|t| t.source.clone()),
        too_long,
        sweep: SWEEP.iter().map(|at| sweep(&headline, *at)).collect(),
        shape: Shape::of(&ratios(&headline, &ONE_SLIP), -SHOWN, SHOWN),
        hearing: Latency::of(tried.iter().map(|t| t.hear_ms)),
        deciding: Latency::of(tried.iter().map(|t| t.decide_ms)),
    })
}

/// An utterance's ratios, for calibrating.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Source and speaker.
    pub speaker: String,
    /// Of the number said.
    pub own: f64,
    /// Of its one-slip neighbours.
    pub near: Vec<f64>,
}

/// The ratios of a list's English speakers whom the recogniser has not heard in training.
pub fn told(plan: &Plan, judge: Judge<'_>) -> Result<Vec<Told>, EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| default_list(plan));
    let plan = &Plan { list: Some(name.clone()), ..plan.clone() };
    let (unheard, _) = judge.trained_on.part(&name, genuine(plan, &name)?)?;
    let english = unheard.into_iter().filter(|r| judge.english(&r.source, &r.speaker)).collect();
    let tried = try_all(plan, judge, english)?.into_iter().flatten();
    let one = |t: Tried| Told {
        speaker: format!("{}/{}", t.source, t.speaker),
        own: t.own,
        near: t.near.iter().filter(|n| ONE_SLIP.contains(&n.kind)).map(|n| n.ratio).collect(),
    };
    Ok(tried.map(one).collect())
}

impl Judge<'_> {
    fn english(&self, source: &str, speaker: &str) -> bool {
        ["en", "unknown"].contains(&self.people.language(source, speaker).as_str())
    }
}

/// Each of those that the plan draws; `None` for what is longer than the window. Refused before anything is computed if everybody
/// trained the recogniser.
fn try_all(plan: &Plan, judge: Judge<'_>, all: Vec<Recipe>) -> Result<Vec<Option<Tried>>, EvalError> {
    let name = plan.list.as_deref().unwrap_or_default();
    judge.trained_on.part(name, all.clone())?;
    let recipes = plan.draw(&all);
    let progress = Progress::new(format!("numbers, {}", plan.words(name)), recipes.len());
    work::map(&recipes, plan.threads, &progress, |recipe| try_one(plan, judge, recipe))
}

fn try_one(plan: &Plan, judge: Judge<'_>, recipe: &Recipe) -> Result<Option<Tried>, EvalError> {
    let samples = plan.samples(recipe)?;
    if samples.len() as f64 / f64::from(RATE) > LONGEST_S {
        return Ok(None);
    }
    let utterance = Plan::heard_as(&samples);
    let fail = |e| engine("the reading", &recipe.id, e);
    let (heard, hear_ms) = timed(|| judge.numbers.hear(&utterance));
    let heard = heard.map_err(fail)?;
    let voice = any_voice()?;
    let cards: Vec<_> =
        Pan::from_digits(&recipe.digits).ok().map(|pan| (CardId::fresh(&SeededEntropy::new(0)), pan)).into_iter().collect();
    let (decided, decide_ms) = timed(|| {
        let free = judge.numbers.read_free(&heard, &[recipe.digits.len()])?;
        // What no card can be (other lengths, no check digit) is scored as digits that are no secret; the formula is the same.
        let own = if cards.is_empty() {
            f64::from(judge.numbers.score_phrase(&heard, &recipe.digits)?.log_ratio)
        } else {
            log_ratio(&judge.numbers.score(&voice, &heard, &cards)?)
        };
        Ok((free, own))
    });
    let (free, own) = decided.map_err(fail)?;
    let wrong = Wrong::draw(recipe, judge.rivals, plan.seed);
    let others = wrong.scored(judge.numbers, &heard, &recipe.digits, &free).map_err(|e| engine("the scoring", &recipe.id, e))?;
    Ok(Some(Tried {
        source: recipe.source.clone(),
        speaker: recipe.speaker.clone(),
        digits: recipe.digits.len(),
        label_unsure: machine_labelled(plan.list.as_deref().unwrap_or_default(), &recipe.source),
        edits: edit_distance(&recipe.digits, &free.digits),
        own,
        near: others.near,
        random: others.random,
        hear_ms,
        decide_ms,
    }))
}

fn figures(tried: &[&Tried], thresholds: RawThresholds, seed: u64) -> NumberFigures {
    let (accept, reject) = (thresholds.accept_log_ratio, thresholds.reject_log_ratio);
    let groups = BySpeaker::new(tried, seed, |t| format!("{}/{}", t.source, t.speaker));
    let one = |test: &dyn Fn(&Tried) -> bool| groups.rate(|t| (usize::from(test(t)), 1));
    let near = |test: &dyn Fn(&Near) -> bool| {
        groups.rate(|t| {
            let of = || t.near.iter().filter(|n| test(n));
            (of().filter(|n| n.ratio >= accept).count(), of().count())
        })
    };
    let ceilings =
        tried.iter().map(|t| if t.label_unsure { (1.0 - LABEL_ERROR).powi(i32::try_from(t.digits).unwrap_or(0)) } else { 1.0 });
    NumberFigures {
        utterances: tried.len(),
        speakers: groups.speakers(),
        free_exact: one(&|t| t.edits == 0),
        digit_errors: groups.rate(|t| (t.edits, t.digits)),
        exact_ceiling: ceilings.sum::<f64>() / tried.len().max(1) as f64,
        authorised: one(&|t| t.own >= accept),
        inconclusive: one(&|t| t.own < accept && t.own >= reject),
        near_miss: near(&|n| ONE_SLIP.contains(&n.kind)),
        worst_neighbour: one(&|t| t.near.iter().any(|n| ONE_SLIP.contains(&n.kind) && n.ratio >= accept)),
        near_miss_by_kind: Kind::ALL.into_iter().map(|kind| (kind, near(&|n| n.kind == kind))).collect(),
        near_miss_luhn: near(&|n| n.luhn),
        random: groups.rate(|t| (t.random.iter().filter(|r| **r >= accept).count(), t.random.len())),
        one_digit_eer: finite(ratios(tried, &[Kind::Substitution]).eer()),
        transposed_eer: finite(ratios(tried, &[Kind::Swap]).eer()),
        latency: Latency::of(tried.iter().map(|t| t.hear_ms + t.decide_ms)),
    }
}

/// Whose labels a machine made and no other has confirmed. The data says so of one telephone corpus.
fn machine_labelled(list: &str, source: &str) -> bool {
    source.starts_with("hyke") && !list.contains("confirmed")
}

fn sweep(tried: &[&Tried], at: f64) -> SweepRow {
    let of = |hits: usize, of: usize| Rate::plain(hits, of).rate;
    let near = || tried.iter().flat_map(|t| &t.near).filter(|n| ONE_SLIP.contains(&n.kind));
    let worst = tried.iter().filter(|t| t.near.iter().any(|n| ONE_SLIP.contains(&n.kind) && n.ratio >= at));
    SweepRow {
        accept_log_ratio: at,
        authorised: of(tried.iter().filter(|t| t.own >= at).count(), tried.len()),
        near_miss: of(near().filter(|n| n.ratio >= at).count(), near().count()),
        worst_neighbour: of(worst.count(), tried.len()),
    }
}

fn ratios(tried: &[&Tried], kinds: &[Kind]) -> Scores {
    let near = tried.iter().flat_map(|t| &t.near).filter(|n| kinds.contains(&n.kind));
    Scores { genuine: tried.iter().map(|t| t.own).collect(), impostor: near.map(|n| n.ratio).collect() }
}

fn text_of(r: &NumberResult) -> String {
    let mut out =
        format!("numbers, {}, {} {}: engine {}\n", r.condition.list, r.condition.codec, r.condition.noise_words(), r.engine);
    out += &format!(
        "{:<16} {:>5} {:>10} {:>10} {:>10} {:>11} {:>9} {:>9} {:>8} {:>14}\n",
        "", "utts", "exact", "ceiling", "digit err", "authorised", "near", "luhn", "worst", "random"
    );
    let row = |name: &str, f: &NumberFigures| {
        format!(
            "{name:<16} {:>5} {:>10} {:>10} {:>10} {:>11} {:>9} {:>9} {:>8} {:>14}\n",
            f.utterances,
            percent_of(f.free_exact.rate),
            percent_of(finite(f.exact_ceiling)),
            percent_of(f.digit_errors.rate),
            percent_of(f.authorised.rate),
            percent_of(f.near_miss.rate),
            percent_of(f.near_miss_luhn.rate),
            percent_of(f.worst_neighbour.rate),
            format!("{} of {}", f.random.hits, f.random.of),
        )
    };
    out += &row("unheard speakers", &r.figures);
    r.slices.iter().for_each(|s| out += &row(&format!("  {}", s.name), &s.figures));
    r.other_languages.iter().for_each(|s| out += &row(&format!("({})", s.name), &s.figures));
    if let Some(f) = &r.trained_on {
        out += &row("(trained on)", f);
    }
    for (kind, rate) in &r.figures.near_miss_by_kind {
        out += &format!("{:<14} {:>9}  {} of {}\n", kind.name(), percent_of(rate.rate), rate.hits, rate.of);
    }
    out += &format!("{:>12} {:>11} {:>10} {:>9}\n", "accept from", "authorised", "near miss", "worst");
    for s in &r.sweep {
        out += &format!(
            "{:>12.1} {:>11} {:>10} {:>9}\n",
            s.accept_log_ratio,
            percent_of(s.authorised),
            percent_of(s.near_miss),
            percent_of(s.worst_neighbour)
        );
    }
    let ms = |v: Option<f64>| v.unwrap_or(f64::NAN);
    out + &format!(
        "accept from {:.2}; hearing p50 {:.0} p95 {:.0} ms, reading and scoring p50 {:.1} p95 {:.1} ms",
        r.thresholds.accept_log_ratio,
        ms(r.hearing.p50_ms),
        ms(r.hearing.p95_ms),
        ms(r.deciding.p50_ms),
        ms(r.deciding.p95_ms)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(source: &str, speaker: &str, own: f64, near: &[f64], edits: usize) -> Tried {
        Tried {
            source: source.to_owned(),
            speaker: speaker.to_owned(),
            digits: 16,
            label_unsure: machine_labelled("card_utterances.csv", source),
            edits,
            own,
            near: near.iter().map(|r| Near { kind: Kind::Substitution, luhn: false, ratio: *r }).collect(),
            random: vec![-50.0],
            hear_ms: 100.0,
            decide_ms: 50.0,
        }
    }

    #[test]
    fn rates_count_pairs_and_utterances_apart() {
        let all = [tried("s", "a", 5.0, &[-5.0, -6.0], 0), tried("hyke_en", "b", -2.0, &[2.0, -7.0], 1)];
        let all: Vec<&Tried> = all.iter().collect();
        let f = figures(&all, RawThresholds { accept_log_ratio: 1.0, reject_log_ratio: -3.0 }, 0);
        assert_eq!((f.authorised.rate, f.inconclusive.rate), (Some(0.5), Some(0.5)));
        assert_eq!((f.near_miss.hits, f.near_miss.of, f.worst_neighbour.hits), (1, 4, 1));
        assert_eq!((f.digit_errors.hits, f.digit_errors.of), (1, 32));
        assert_eq!((f.random.hits, f.random.of, f.speakers), (0, 2, 2));
        let swaps = f.near_miss_by_kind.iter().find(|(k, _)| *k == Kind::Swap).unwrap();
        assert_eq!(swaps.1.rate, None);
        assert!(!machine_labelled("card_utterances_confirmed.csv", "hyke_en"));
        // One string of true labels, one of which every digit may be wrong.
        assert!((f.exact_ceiling - (1.0 + 0.99f64.powi(16)) / 2.0).abs() < 1e-9);
        assert_eq!(sweep(&all, 3.0).near_miss, Some(0.0));
        let json = f.json();
        for key in [
            "authorised_accept_rate",
            "near_miss_false_accept_rate",
            "worst_neighbour_accept_rate",
            "one_digit_eer",
            "random_accepts",
        ] {
            assert!(json[key].is_number(), "{key}");
        }
        for key in ["random_trials", "free_exact_rate", "digit_error_rate", "p50_ms", "p95_ms", "utterances"] {
            assert!(json[key].is_number(), "{key}");
        }
        assert!(json["transposed_eer"].is_null(), "there were none");
    }

    #[test]
    fn luhn_valid_pairs_do_not_dilute_the_near_misses() {
        let mut one = tried("s", "a", 5.0, &[2.0], 0);
        one.near.extend([Near { kind: Kind::LuhnPair, luhn: true, ratio: -9.0 }; 99]);
        let f = figures(&[&one], RawThresholds { accept_log_ratio: 1.0, reject_log_ratio: -3.0 }, 0);
        assert_eq!((f.near_miss.hits, f.near_miss.of), (1, 1));
        assert_eq!((f.near_miss_luhn.hits, f.near_miss_luhn.of), (0, 99));
    }
}
