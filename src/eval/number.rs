//! How well card numbers are heard: free reading, the authorised number's acceptance, and what passes that should not: numbers one
//! slip away, and others altogether.
//!
//! The ratio of a wrong number N is what the service would have computed had N been the authorised one:
//! log P(N) − log P(best other string), the best being looked for among the free reading, the number said and all numbers scored.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::EvalError;
use super::data::{Recipe, read_recipes};
use super::metrics::{Scores, edit_distance, percentile, ratio};
use super::neighbours::{Kind, luhn_pairs, one_slip, random_number};
use super::plan::{BySpeaker, Plan, percent};
use super::random::Random;
use super::voiceprint::{engine, spread};
use super::work::{self, Progress, timed};
use crate::clock::SeededEntropy;
use crate::decision::{NumberEvidence, Policy, Tightening, VoiceAccepted, VoiceScore, VoiceVerdict, judge_voice};
use crate::ids::CardId;
use crate::secret::Pan;
use crate::speech::{FreeReading, Heard, NumberEngine};

/// How many wrong numbers are tried against each utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rivals {
    /// One-slip neighbours drawn for each utterance; all if `None`.
    pub neighbours: Option<usize>,
    /// Luhn-valid pairs of changed digits drawn for each utterance.
    pub luhn_pairs: usize,
    /// Random other numbers drawn for each utterance.
    pub random: usize,
}

/// Thresholds that the report goes through.
const SWEEP: [f64; 11] = [-4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
/// Near misses accepted at most, for the recommended threshold.
const NEAR_MISS_GOAL: f64 = 0.001;

/// Strings less likely than the best by more than this (natural logarithm) are given up, their ratio being minus infinity: far below
/// any threshold, and it saves nine tenths of the work.
const WITHIN: f32 = 5.0;

/// What became of one utterance.
#[derive(Clone, Debug)]
struct Tried {
    source: String,
    speaker: String,
    digits: usize,
    edits: usize,
    accepted: bool,
    own: f64,
    near: Vec<(Kind, bool, f64)>,
    random: Vec<f64>,
    free_ms: f64,
    score_ms: f64,
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

/// The policy's threshold as a raw log ratio, which is what is compared here.
#[derive(Clone, Copy, Debug)]
pub struct RawThresholds {
    /// Accept from here on.
    pub accept_log_ratio: f64,
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

/// Runs it.
pub fn run(
    plan: &Plan,
    engine: &dyn NumberEngine,
    model: &str,
    thresholds: RawThresholds,
    rivals: Rivals,
) -> Result<(Value, String), EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| default_list(plan));
    let recipes = plan.draw(&genuine(plan, &name)?);
    let progress = Progress::new("numbers", recipes.len());
    let tried = work::map(&recipes, plan.threads, &progress, |r| try_one(plan, engine, thresholds, rivals, r))?;
    let mut json = summary(&tried.iter().collect::<Vec<_>>(), thresholds);
    let sources: BTreeSet<&str> = tried.iter().map(|t| t.source.as_str()).collect();
    let by_source: Map<String, Value> = sources
        .iter()
        .map(|s| ((*s).to_owned(), summary(&tried.iter().filter(|t| t.source == *s).collect::<Vec<_>>(), thresholds)))
        .collect();
    if let Some(map) = json.as_object_mut() {
        map.insert("by_source".to_owned(), Value::Object(by_source));
        map.insert("by_threshold".to_owned(), sweep(&tried));
        map.insert("near_miss_by_kind".to_owned(), by_kind(&tried, thresholds));
        map.insert("log_ratio_at_near_miss_0_001".to_owned(), json!(at_near_miss(&tried)));
        map.insert("intervals_95".to_owned(), intervals(plan, &tried, thresholds));
        let mut conditions = plan.conditions(&name, &[("number", model.to_owned())]);
        if let Some(c) = conditions.as_object_mut() {
            c.insert("accept_log_ratio".to_owned(), json!(thresholds.accept_log_ratio));
            c.insert("neighbours".to_owned(), rivals.neighbours.map_or(json!("all"), |n| json!(n)));
        }
        map.insert("conditions".to_owned(), conditions);
    }
    let text = text_of(&json, &name);
    Ok((json, text))
}

fn try_one(
    plan: &Plan,
    numbers: &dyn NumberEngine,
    thresholds: RawThresholds,
    rivals: Rivals,
    recipe: &Recipe,
) -> Result<Tried, EvalError> {
    let utterance = plan.utterance(recipe)?;
    let voice = any_voice()?;
    let fail = |e| engine("the reading", &recipe.id, e);
    let (heard, hear_ms) = timed(|| numbers.hear(&utterance));
    let heard = heard.map_err(fail)?;
    let (free, read_ms) = timed(|| numbers.read_free(&heard, &[recipe.digits.len()]));
    let (free, free_ms) = (free.map_err(fail)?, hear_ms + read_ms);
    let wrong = draw_wrong(recipe, rivals, plan.seed);
    let others = wrong.scored(numbers, &heard, &recipe.digits, &free).map_err(|e| engine("the scoring", &recipe.id, e))?;
    // Numbers that no card can have (other lengths, no check digit) are scored as strings; the formula is the same.
    let (own, score_ms, accepted) = match Pan::from_digits(&recipe.digits) {
        Ok(pan) => {
            let cards = [(CardId::fresh(&SeededEntropy::new(0)), pan)];
            let (evidence, ms) = timed(|| numbers.score(&voice, &heard, &cards));
            let evidence = evidence.map_err(|e| engine("the scoring", &recipe.id, e))?;
            let accepted = log_ratio(&evidence) >= thresholds.accept_log_ratio;
            (log_ratio(&evidence), ms, accepted)
        }
        Err(_no_card) => (others.own, f64::NAN, others.own >= thresholds.accept_log_ratio),
    };
    Ok(Tried {
        source: recipe.source.clone(),
        speaker: recipe.speaker.clone(),
        digits: recipe.digits.len(),
        edits: edit_distance(&recipe.digits, &free.digits),
        accepted,
        own,
        near: others.near,
        random: others.random,
        free_ms,
        score_ms,
    })
}

struct Wrong {
    strings: Vec<Vec<u8>>,
    /// Kind and whether Luhn holds, for those before the random ones.
    kinds: Vec<(Kind, bool)>,
}

struct Others {
    own: f64,
    near: Vec<(Kind, bool, f64)>,
    random: Vec<f64>,
}

fn draw_wrong(recipe: &Recipe, rivals: Rivals, seed: u64) -> Wrong {
    let mut random = Random::from_text(&format!("wrong{seed}{}", recipe.id));
    let mut near = one_slip(&recipe.digits);
    if let Some(n) = rivals.neighbours {
        let picked = random.sample(near.len(), n);
        near = picked.into_iter().filter_map(|i| near.get(i).cloned()).collect();
    }
    let pairs = luhn_pairs(&recipe.digits);
    near.extend(random.sample(pairs.len(), rivals.luhn_pairs).into_iter().filter_map(|i| pairs.get(i).cloned()));
    let kinds = near.iter().map(|n| (n.kind, n.luhn)).collect();
    let mut strings: Vec<Vec<u8>> = near.into_iter().map(|n| n.digits).collect();
    let others = (0..rivals.random).map(|_| random_number(recipe.digits.len(), &mut random));
    strings.extend(others.filter(|n| *n != recipe.digits));
    Wrong { strings, kinds }
}

impl Wrong {
    /// Ratios of all of them, and of the number said.
    fn scored(
        &self,
        numbers: &dyn NumberEngine,
        heard: &Heard,
        said: &[u8],
        free: &FreeReading,
    ) -> Result<Others, crate::speech::SpeechError> {
        let mut strings = self.strings.clone();
        strings.push(said.to_vec());
        let log_probs = numbers.score_strings(heard, &strings, WITHIN)?;
        let mut known: BTreeMap<&[u8], f64> =
            strings.iter().map(Vec::as_slice).zip(log_probs.iter().map(|p| f64::from(*p))).collect();
        known.insert(&free.digits, f64::from(free.log_prob));
        Ok(self.ratios(&known, said))
    }

    fn ratios(&self, known: &BTreeMap<&[u8], f64>, said: &[u8]) -> Others {
        // The best two suffice: whoever is not the best has the best for a rival.
        let mut ranked: Vec<(&[u8], f64)> = known.iter().map(|(s, p)| (*s, *p)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        let against = |string: &[u8]| {
            let rival = ranked.iter().find(|(s, _)| *s != string).map_or(f64::NEG_INFINITY, |(_, p)| *p);
            known.get(string).copied().unwrap_or(f64::NEG_INFINITY) - rival
        };
        let near = self.strings.iter().zip(&self.kinds).map(|(s, (kind, luhn))| (*kind, *luhn, against(s))).collect();
        let random = self.strings.iter().skip(self.kinds.len()).map(|s| against(s)).collect();
        Others { own: against(said), near, random }
    }
}

fn near<'a>(tried: &'a [&'a Tried], kinds: &'a [Kind]) -> impl Iterator<Item = f64> + 'a {
    tried.iter().flat_map(|t| &t.near).filter(move |n| kinds.contains(&n.0)).map(|n| n.2)
}

const ONE_SLIP: [Kind; 4] = [Kind::Substitution, Kind::Swap, Kind::Deletion, Kind::Insertion];

fn accept_rate(tried: &[&Tried]) -> f64 {
    ratio(tried.iter().filter(|t| t.accepted).count(), tried.len())
}

fn near_rate(tried: &[&Tried], accept: f64) -> f64 {
    let (passed, all) = near(tried, &ONE_SLIP).fold((0, 0), |(p, n), r| (p + usize::from(r >= accept), n + 1));
    ratio(passed, all)
}

fn worst_rate(tried: &[&Tried], accept: f64) -> f64 {
    ratio(tried.iter().filter(|t| t.near.iter().any(|n| n.2 >= accept)).count(), tried.len())
}

fn eer_against(tried: &[&Tried], kind: Kind) -> f64 {
    Scores { genuine: tried.iter().map(|t| t.own).collect(), impostor: near(tried, &[kind]).collect() }.eer()
}

fn free_exact(tried: &[&Tried]) -> f64 {
    ratio(tried.iter().filter(|t| t.edits == 0).count(), tried.len())
}

fn digit_errors(tried: &[&Tried]) -> f64 {
    ratio(tried.iter().map(|t| t.edits).sum(), tried.iter().map(|t| t.digits).sum())
}

fn summary(tried: &[&Tried], thresholds: RawThresholds) -> Value {
    let accept = thresholds.accept_log_ratio;
    let mut ms: Vec<f64> = tried.iter().map(|t| t.free_ms + if t.score_ms.is_finite() { t.score_ms } else { 0.0 }).collect();
    let mut free_ms: Vec<f64> = tried.iter().map(|t| t.free_ms).collect();
    let mut score_ms: Vec<f64> = tried.iter().map(|t| t.score_ms).filter(|m| m.is_finite()).collect();
    let random: Vec<f64> = tried.iter().flat_map(|t| t.random.iter().copied()).collect();
    let own: Vec<f64> = tried.iter().map(|t| t.own).collect();
    json!({
        "authorised_accept_rate": accept_rate(tried),
        "near_miss_false_accept_rate": near_rate(tried, accept),
        "worst_neighbour_accept_rate": worst_rate(tried, accept),
        "one_digit_eer": eer_against(tried, Kind::Substitution),
        "transposed_eer": eer_against(tried, Kind::Swap),
        "random_accepts": random.iter().filter(|r| **r >= accept).count(),
        "random_trials": random.len(),
        "free_exact_rate": free_exact(tried),
        "digit_error_rate": digit_errors(tried),
        "p50_ms": percentile(&mut ms, 0.5),
        "p95_ms": percentile(&mut ms, 0.95),
        "free_p50_ms": percentile(&mut free_ms, 0.5),
        "score_p50_ms": percentile(&mut score_ms, 0.5),
        "utterances": tried.len(),
        "near_miss_trials": near(tried, &ONE_SLIP).count(),
        "log_ratio_own": spread(&own),
        "log_ratio_best_neighbour": spread(&tried.iter().map(|t| best_neighbour(t)).collect::<Vec<_>>()),
    })
}

fn best_neighbour(tried: &Tried) -> f64 {
    tried.near.iter().map(|n| n.2).fold(f64::NEG_INFINITY, f64::max)
}

fn by_kind(tried: &[Tried], thresholds: RawThresholds) -> Value {
    let accept = thresholds.accept_log_ratio;
    let mut out = Map::new();
    for kind in Kind::ALL {
        let of = || tried.iter().flat_map(|t| &t.near).filter(|n| n.0 == kind);
        let accepted = of().filter(|n| n.2 >= accept).count();
        let luhn = of().filter(|n| n.1).count();
        let luhn_accepted = of().filter(|n| n.1 && n.2 >= accept).count();
        out.insert(
            kind.name().to_owned(),
            json!({ "trials": of().count(), "accepts": accepted, "rate": ratio(accepted, of().count()), "luhn_valid_trials": luhn, "luhn_valid_accepts": luhn_accepted }),
        );
    }
    Value::Object(out)
}

fn sweep(tried: &[Tried]) -> Value {
    let all: Vec<&Tried> = tried.iter().collect();
    let rows = SWEEP.iter().map(|at| {
        json!({
            "accept_log_ratio": at,
            "authorised": ratio(all.iter().filter(|t| t.own >= *at).count(), all.len()),
            "near_miss": near_rate(&all, *at),
            "worst_neighbour": worst_rate(&all, *at),
            "random_accepts": all.iter().flat_map(|t| &t.random).filter(|r| **r >= *at).count(),
        })
    });
    Value::Array(rows.collect())
}

/// The lowest threshold at which near misses pass in at most [`NEAR_MISS_GOAL`] of the trials.
fn at_near_miss(tried: &[Tried]) -> Option<f64> {
    let mut ratios: Vec<f64> = tried.iter().flat_map(|t| &t.near).filter(|n| ONE_SLIP.contains(&n.0)).map(|n| n.2).collect();
    ratios.sort_by(|a, b| b.total_cmp(a));
    let allowed = (ratios.len() as f64 * NEAR_MISS_GOAL).floor() as usize;
    ratios.get(allowed).copied().filter(|r| r.is_finite())
}

fn intervals(plan: &Plan, tried: &[Tried], thresholds: RawThresholds) -> Value {
    let accept = thresholds.accept_log_ratio;
    let groups = BySpeaker::new(tried, plan.seed, |t| format!("{}/{}", t.source, t.speaker));
    json!({
        "authorised_accept_rate": groups.interval(accept_rate),
        "near_miss_false_accept_rate": groups.interval(|t| near_rate(t, accept)),
        "worst_neighbour_accept_rate": groups.interval(|t| worst_rate(t, accept)),
        "free_exact_rate": groups.interval(free_exact),
        "digit_error_rate": groups.interval(digit_errors),
    })
}

fn text_of(json: &Value, list: &str) -> String {
    let head = |v: &Value, k: &str| v.get(k).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let mut out = format!("number, {list}: {} utterances\n", head(json, "utterances"));
    out += &format!(
        "{:<12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>12} {:>9} {:>9}\n",
        "source", "authorised", "near miss", "worst", "1-dig EER", "free exact", "digit err", "random", "p50 ms", "p95 ms"
    );
    let row = |name: &str, v: &Value| {
        format!(
            "{name:<12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>12} {:>9.0} {:>9.0}\n",
            percent(head(v, "authorised_accept_rate")),
            percent(head(v, "near_miss_false_accept_rate")),
            percent(head(v, "worst_neighbour_accept_rate")),
            percent(head(v, "one_digit_eer")),
            percent(head(v, "free_exact_rate")),
            percent(head(v, "digit_error_rate")),
            format!("{} of {}", head(v, "random_accepts"), head(v, "random_trials")),
            head(v, "p50_ms"),
            head(v, "p95_ms"),
        )
    };
    out += &row("all", json);
    if let Some(sources) = json.get("by_source").and_then(Value::as_object) {
        sources.iter().for_each(|(name, v)| out += &row(name, v));
    }
    out += &format!("\n{:>17} {:>11} {:>10} {:>16}\n", "accept log ratio", "authorised", "near miss", "worst neighbour");
    for r in json.get("by_threshold").and_then(Value::as_array).into_iter().flatten() {
        out += &format!(
            "{:>17.1} {:>11} {:>10} {:>16}\n",
            head(r, "accept_log_ratio"),
            percent(head(r, "authorised")),
            percent(head(r, "near_miss")),
            percent(head(r, "worst_neighbour"))
        );
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(speaker: &str, own: f64, near: &[f64], edits: usize) -> Tried {
        Tried {
            source: "s".to_owned(),
            speaker: speaker.to_owned(),
            digits: 16,
            edits,
            accepted: own >= 1.0,
            own,
            near: near.iter().map(|r| (Kind::Substitution, false, *r)).collect(),
            random: vec![-50.0],
            free_ms: 100.0,
            score_ms: 50.0,
        }
    }

    #[test]
    fn a_wrong_numbers_ratio_is_against_the_best_other_string() {
        let wrong = Wrong { strings: vec![vec![1, 2, 4], vec![9, 9, 9]], kinds: vec![(Kind::Substitution, false)] };
        let free = vec![1, 2, 4];
        let said = vec![1, 2, 3];
        let far = vec![9, 9, 9];
        let known = BTreeMap::from([(said.as_slice(), -3.0), (free.as_slice(), -1.0), (far.as_slice(), -40.0)]);
        let others = wrong.ratios(&known, &said);
        assert_eq!(others.own, -2.0); // the misreading is more likely
        assert_eq!(others.near, [(Kind::Substitution, false, 2.0)]); // and would be accepted
        assert_eq!(others.random, [-39.0]);
    }

    #[test]
    fn rates_count_pairs_and_utterances_apart() {
        let all = [tried("a", 5.0, &[-5.0, -6.0], 0), tried("b", -2.0, &[2.0, -7.0], 1)];
        let t = RawThresholds { accept_log_ratio: 1.0 };
        let v = summary(&all.iter().collect::<Vec<_>>(), t);
        assert_eq!(v["authorised_accept_rate"], 0.5);
        assert_eq!(v["near_miss_false_accept_rate"], 0.25);
        assert_eq!(v["worst_neighbour_accept_rate"], 0.5);
        assert_eq!(v["free_exact_rate"], 0.5);
        assert_eq!(v["digit_error_rate"], 1.0 / 32.0);
        assert_eq!(v["p50_ms"], 150.0);
        assert_eq!((v["random_accepts"].clone(), v["random_trials"].clone()), (json!(0), json!(2)));
        assert_eq!(at_near_miss(&all), Some(2.0));
    }

    #[test]
    fn wrong_numbers_are_drawn_alike_and_never_the_one_said() {
        let recipe = Recipe {
            id: "u".to_owned(),
            role: "genuine".to_owned(),
            source: "s".to_owned(),
            speaker: "a".to_owned(),
            claimed: "a".to_owned(),
            digits: "2261875516718090".bytes().map(|b| b - b'0').collect(),
            material: super::super::data::Material::Recording("x".to_owned()),
        };
        let few = Rivals { neighbours: Some(40), luhn_pairs: 10, random: 30 };
        let a = draw_wrong(&recipe, few, 0);
        assert_eq!((a.kinds.len(), a.strings.len()), (50, 80));
        assert_eq!(a.strings, draw_wrong(&recipe, few, 0).strings);
        assert!(!a.strings.contains(&recipe.digits));
        let all = draw_wrong(&recipe, Rivals { neighbours: None, luhn_pairs: 0, random: 0 }, 0);
        assert_eq!(all.strings.len(), 144 + 13 + 14 + 154);
    }
}
