//! How well voices are told apart: enrolment from three utterances, then trials, with the embedder, the centring and the template
//! that the service itself uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Value, json};

use super::EvalError;
use super::data::{Recipe, Row, Table, read_recipes, recording};
use super::degrade::Line;
use super::metrics::{Calibration, Scores, bayes_threshold, cllr, percentile, ratio};
use super::plan::{BySpeaker, Plan, percent};
use super::work::{self, Progress};
use crate::decision::{Calibration as Calibrated, Policy};
use crate::voiceprint::{Conditions, Embedder, Embedding, Enrolment, EnrolmentError, Template, VoiceConfig, score};

/// Which trials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Those of the list.
    Listed,
    /// Every test utterance of a genuine trial against every enrolled speaker of its source.
    All,
}

/// Speakers of different sources may share a name.
pub type Who = (String, String);

/// A voice and its amount of speech.
#[derive(Debug)]
pub struct Heard {
    /// The embedding.
    pub embedding: Embedding,
    /// Its speech and its noise.
    pub made: Conditions,
}

/// Enrolled voices.
#[derive(Debug, Default)]
pub struct Gallery {
    /// By source and speaker.
    pub templates: BTreeMap<Who, Template>,
    /// Enrolments that the service would have asked to repeat (too little speech, or utterances that disagree); they are
    /// measured all the same.
    pub would_be_refused: usize,
}

/// A trial with its score.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Whose template.
    pub enrolled: Who,
    /// Whose voice.
    pub tested: String,
    /// Whether both are one.
    pub target: bool,
    /// Centred cosine.
    pub cosine: f64,
    /// Its ratio by the calibration in force, in nats.
    pub llr: f64,
    /// Speech without pauses in the test utterance.
    pub net_speech_ms: u32,
}

/// By what scores become ratios and verdicts.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Thresholds.
    pub policy: &'a Policy,
    /// Ratios.
    pub calibration: &'a Calibrated,
}

struct Trial {
    enrolled: Who,
    tested: String,
    target: bool,
    utterance: usize,
}

/// Embeds utterances, several at once.
pub fn hear_all(plan: &Plan, embedder: &Embedder, what: &str, recipes: &[Recipe]) -> Result<Vec<Heard>, EvalError> {
    work::map(recipes, plan.threads, &Progress::new(what, recipes.len()), |recipe| hear(plan, embedder, recipe))
}

fn hear(plan: &Plan, embedder: &Embedder, recipe: &Recipe) -> Result<Heard, EvalError> {
    let utterance = plan.utterance(recipe)?;
    let embedding = embedder.embed(&utterance.samples_16k).map_err(|e| engine("the embedding", &recipe.id, e))?;
    let made = Conditions { net_speech_ms: utterance.net_speech_ms, snr_db: utterance.quality.snr_db };
    Ok(Heard { embedding, made })
}

/// Enrols `wanted` speakers from the split's lists: digit strings from `enrolment.csv`, recordings from `natural_enrolment.csv`.
pub fn enrol(
    plan: &Plan,
    embedder: &Embedder,
    config: &VoiceConfig,
    natural: bool,
    wanted: &BTreeSet<Who>,
) -> Result<Gallery, EvalError> {
    let file = plan.split.trials(if natural { "natural_enrolment.csv" } else { "enrolment.csv" });
    let mut takes: BTreeMap<Who, Vec<Recipe>> = BTreeMap::new();
    if natural {
        for row in Table::read(&file)?.rows() {
            let (source, speaker) = (row.filled("source")?, row.filled("speaker")?);
            let paths = row.filled("paths")?.split(';').map(|p| recording(p, speaker, speaker)).collect();
            takes.insert((source.to_owned(), speaker.to_owned()), paths);
        }
    } else {
        for recipe in read_recipes(&file)? {
            takes.entry((recipe.source.clone(), recipe.claimed.clone())).or_default().push(recipe);
        }
    }
    if let Some((source, speaker)) = wanted.iter().find(|w| !takes.contains_key(*w)) {
        return Err(EvalError::List { file, what: format!("has no enrolment of {speaker} of {source}, whom a trial names") });
    }
    let recipes: Vec<Recipe> = takes.iter().filter(|(w, _)| wanted.contains(*w)).flat_map(|(_, r)| r.clone()).collect();
    // Voices are enrolled over the same codec but without the noise of the call that is measured: an enrolment call is its own.
    let clean = Plan { line: Line::clean(plan.line.codec), ..plan.clone() };
    let mut heard = hear_all(&clean, embedder, "enrolments", &recipes)?.into_iter();
    let mut gallery = Gallery::default();
    for (who, recipes) in takes.iter().filter(|(w, _)| wanted.contains(*w)) {
        let voices: Vec<Heard> = heard.by_ref().take(recipes.len()).collect();
        let (template, refused) = template_of(&voices, config).map_err(|e| engine("the enrolment", &who.1, e))?;
        gallery.would_be_refused += usize::from(refused);
        gallery.templates.insert(who.clone(), template);
    }
    Ok(gallery)
}

/// A template, and whether the service's own bounds would have refused it.
fn template_of(voices: &[Heard], config: &VoiceConfig) -> Result<(Template, bool), EnrolmentError> {
    let with = |config: VoiceConfig| {
        let mut enrolment = Enrolment::new(config);
        for v in voices {
            enrolment.add(v.embedding.clone(), v.made.net_speech_ms)?;
        }
        enrolment.finish()
    };
    match with(config.clone()) {
        Ok(template) => Ok((template, false)),
        Err(_asked_to_repeat) => {
            let lenient = VoiceConfig {
                enrol_min_net_speech_ms: 0,
                enrol_min_utterances: 1,
                enrol_agree_min_cosine: -1.0,
                ..config.clone()
            };
            Ok((with(lenient)?, true))
        }
    }
}

/// Runs it.
pub fn run(
    plan: &Plan,
    embedder: &Embedder,
    config: &VoiceConfig,
    judge: Judge<'_>,
    digits: Option<usize>,
    pairs: Pairs,
) -> Result<(Value, String), EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| "sv_card_trials.csv".to_owned());
    let file = plan.split.find_list(&name)?;
    let table = Table::read(&file)?;
    let natural = table.has("test_path");
    let (listed, utterances) = read_trials(plan, &table, digits)?;
    let trials = if pairs == Pairs::All { all_pairs(&listed) } else { listed };
    let wanted = trials.iter().map(|t| t.enrolled.clone()).collect();
    let gallery = enrol(plan, embedder, config, natural, &wanted)?;
    let heard = hear_all(plan, embedder, "test utterances", &utterances)?;
    let mut scored = Vec::new();
    for trial in &trials {
        let (Some(template), Some(heard)) = (gallery.templates.get(&trial.enrolled), heard.get(trial.utterance)) else {
            continue;
        };
        let s = score(template, &heard.embedding, heard.made, &judge.calibration.voice, &judge.calibration.version)
            .map_err(|e| engine("the score", &trial.tested, e))?;
        scored.push(Scored {
            enrolled: trial.enrolled.clone(),
            tested: trial.tested.clone(),
            target: trial.target,
            cosine: f64::from(s.cosine),
            llr: f64::from(s.llr),
            net_speech_ms: s.net_speech_ms,
        });
    }
    let all = summary(&scored, plan.seed);
    let mut json = all.json.clone();
    let operating = operating_point(&scored, judge.policy);
    if let Some(map) = json.as_object_mut() {
        map.insert("at_thresholds".to_owned(), operating);
        map.insert("enrolments".to_owned(), json!(gallery.templates.len()));
        map.insert("enrolments_the_service_would_refuse".to_owned(), json!(gallery.would_be_refused));
        map.insert("digits".to_owned(), json!(digits));
        map.insert("pairs".to_owned(), json!(if pairs == Pairs::All { "all within source" } else { "listed" }));
        map.insert("by_source".to_owned(), by_source(&scored, plan.seed));
        map.insert("conditions".to_owned(), plan.conditions(&name, &[("voice", embedder.version().to_string())]));
    }
    let text = text_of(&all, &json, &name);
    Ok((json, text))
}

fn read_trials(plan: &Plan, table: &Table, digits: Option<usize>) -> Result<(Vec<Trial>, Vec<Recipe>), EvalError> {
    let natural = table.has("test_path");
    let known: HashMap<String, Recipe> = if natural {
        HashMap::new()
    } else {
        let list = plan.split.trials("card_utterances.csv");
        read_recipes(&list)?.into_iter().map(|r| (r.id.clone(), r)).collect()
    };
    let rows: Vec<Row<'_>> = table.rows().collect();
    let (mut trials, mut utterances, mut places) = (Vec::new(), Vec::<Recipe>::new(), HashMap::new());
    for row in plan.draw(&rows) {
        let (source, speaker) = (row.filled("source")?, row.filled("enrol_speaker")?);
        let (tested, target) = (row.filled("test_speaker")?, row.flag("target")?);
        if natural && row.get("kind")?.starts_with("spoof") {
            continue; // cloned voices are the decision's matter
        }
        if target != (tested == speaker) {
            return Err(row.complaint("target", "says otherwise than enrol_speaker and test_speaker"));
        }
        let recipe = if natural {
            recording(row.filled("test_path")?, tested, speaker)
        } else {
            let id = row.filled("utt_id")?;
            known.get(id).cloned().ok_or_else(|| row.complaint("utt_id", format!("card_utterances.csv has no \"{id}\"")))?
        };
        let utterance = *places.entry(recipe.id.clone()).or_insert_with(|| {
            utterances.push(digits.map_or_else(|| recipe.clone(), |n| recipe.truncated(n)));
            utterances.len() - 1
        });
        trials.push(Trial { enrolled: (source.to_owned(), speaker.to_owned()), tested: tested.to_owned(), target, utterance });
    }
    if trials.is_empty() {
        return Err(table.complaint("lists no trials"));
    }
    Ok((trials, utterances))
}

/// Every genuine utterance against every speaker of its source that is enrolled in the list.
fn all_pairs(listed: &[Trial]) -> Vec<Trial> {
    let enrolled: BTreeSet<&Who> = listed.iter().map(|t| &t.enrolled).collect();
    let mut out = Vec::new();
    for trial in listed.iter().filter(|t| t.target) {
        for who in enrolled.iter().filter(|w| w.0 == trial.enrolled.0) {
            out.push(Trial {
                enrolled: (*who).clone(),
                tested: trial.tested.clone(),
                target: **who == trial.enrolled,
                utterance: trial.utterance,
            });
        }
    }
    out
}

struct Summary {
    json: Value,
    scores: Scores,
}

/// A trial with its cosine and its calibrated ratio.
struct Rated<'a> {
    trial: &'a Scored,
    llr: f64,
}

fn summary(scored: &[Scored], seed: u64) -> Summary {
    let rated = rate(scored);
    let scores = cosines(rated.iter());
    let ratios = llrs(rated.iter());
    let groups = BySpeaker::new(&rated, seed, |r| format!("{}/{}", r.trial.enrolled.0, r.trial.enrolled.1));
    let cos = |f: fn(&Scores) -> f64| groups.interval(|drawn| f(&cosines(drawn.iter().copied())));
    let llr = |f: fn(&Scores) -> f64| groups.interval(|drawn| f(&llrs(drawn.iter().copied())));
    let (at_01, at_001) = (scores.at_far(0.01), scores.at_far(0.001));
    let json = json!({
        "eer": scores.eer(),
        "min_dcf": scores.min_dcf(),
        "act_dcf": act_dcf(&ratios),
        "cllr": cllr(&ratios),
        "frr_at_far_0_01": frr_at(&scores, 0.01),
        "frr_at_far_0_001": frr_at(&scores, 0.001),
        "trials": scored.len(),
        "genuine_trials": scores.genuine.len(),
        "impostor_trials": scores.impostor.len(),
        "speakers": groups.speakers(),
        "cosine_at_far_0_01": finite(at_01.threshold),
        "cosine_at_far_0_001": finite(at_001.threshold),
        "cosine_genuine": spread(&scores.genuine),
        "cosine_impostor": spread(&scores.impostor),
        "intervals_95": {
            "eer": cos(Scores::eer),
            "min_dcf": cos(Scores::min_dcf),
            "act_dcf": llr(act_dcf),
            "cllr": llr(cllr),
            "frr_at_far_0_01": cos(|s| frr_at(s, 0.01)),
            "frr_at_far_0_001": cos(|s| frr_at(s, 0.001)),
        },
    });
    Summary { json, scores }
}

/// Calibrated ratios, each speaker's by a calibration fitted on trials without that speaker on either side.
fn rate(scored: &[Scored]) -> Vec<Rated<'_>> {
    let speakers: BTreeSet<&Who> = scored.iter().map(|t| &t.enrolled).collect();
    let mut fitted: HashMap<&Who, Option<Calibration>> = HashMap::new();
    for who in speakers {
        let others = scored.iter().filter(|t| t.enrolled != *who && !(t.enrolled.0 == who.0 && t.tested == who.1));
        let mut scores = Scores::default();
        others.for_each(|t| if t.target { &mut scores.genuine } else { &mut scores.impostor }.push(t.cosine));
        fitted.insert(who, Calibration::fit(&scores));
    }
    let llr = |t: &Scored| fitted.get(&t.enrolled).copied().flatten().map_or(f64::NAN, |c| c.llr(t.cosine));
    scored.iter().map(|trial| Rated { trial, llr: llr(trial) }).collect()
}

fn cosines<'a>(rated: impl Iterator<Item = &'a Rated<'a>>) -> Scores {
    split(rated.map(|r| (r.trial.target, r.trial.cosine)))
}

fn llrs<'a>(rated: impl Iterator<Item = &'a Rated<'a>>) -> Scores {
    let scores = split(rated.map(|r| (r.trial.target, r.llr)));
    // One speaker alone can't be calibrated by others.
    if scores.genuine.iter().chain(&scores.impostor).any(|l| l.is_nan()) { Scores::default() } else { scores }
}

fn split(marked: impl Iterator<Item = (bool, f64)>) -> Scores {
    let mut scores = Scores::default();
    marked.for_each(|(target, s)| if target { &mut scores.genuine } else { &mut scores.impostor }.push(s));
    scores
}

fn act_dcf(ratios: &Scores) -> f64 {
    if ratios.complete() { ratios.at(bayes_threshold()).dcf() } else { f64::NAN }
}

fn frr_at(scores: &Scores, far: f64) -> f64 {
    if scores.complete() { scores.at_far(far).frr } else { f64::NAN }
}

fn finite(v: f64) -> Option<f64> {
    v.is_finite().then_some(v)
}

/// Percentiles of a set of scores.
pub fn spread(values: &[f64]) -> Value {
    let mut sorted = values.to_vec();
    let mut at = |q: f64| finite(percentile(&mut sorted, q));
    json!({ "min": at(0.0), "p01": at(0.01), "p05": at(0.05), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "p999": at(0.999), "max": at(1.0) })
}

/// What the configured thresholds would have done.
fn operating_point(scored: &[Scored], policy: &Policy) -> Value {
    let t = policy.voice;
    let accepted = |s: &&Scored| s.llr >= f64::from(t.accept_llr) && s.net_speech_ms >= t.min_net_speech_ms;
    let rejected = |s: &&Scored| s.llr < f64::from(t.reject_llr);
    let of = |target: bool| scored.iter().filter(move |s| s.target == target);
    json!({
        "accept_llr": t.accept_llr,
        "reject_llr": t.reject_llr,
        "min_net_speech_ms": t.min_net_speech_ms,
        "genuine_accepted": finite(ratio(of(true).filter(accepted).count(), of(true).count())),
        "genuine_rejected": finite(ratio(of(true).filter(rejected).count(), of(true).count())),
        "impostor_accepted": finite(ratio(of(false).filter(accepted).count(), of(false).count())),
        "impostor_rejected": finite(ratio(of(false).filter(rejected).count(), of(false).count())),
    })
}

fn by_source(scored: &[Scored], seed: u64) -> Value {
    let sources: BTreeSet<&str> = scored.iter().map(|s| s.enrolled.0.as_str()).collect();
    let one = |source: &str| {
        let own: Vec<Scored> = scored.iter().filter(|s| s.enrolled.0 == source).cloned().collect();
        (source.to_owned(), summary(&own, seed).json)
    };
    Value::Object(sources.into_iter().map(one).collect())
}

fn text_of(all: &Summary, json: &Value, list: &str) -> String {
    let mut out =
        format!("voiceprint, {list}: {} genuine and {} impostor trials\n", all.scores.genuine.len(), all.scores.impostor.len());
    let row = |name: &str, v: &Value| {
        let f = |k: &str| v.get(k).and_then(Value::as_f64).unwrap_or(f64::NAN);
        format!(
            "{name:<14} {:>9} {:>8.3} {:>8.3} {:>7.3} {:>11} {:>13} {:>9.3} {:>7}\n",
            percent(f("eer")),
            f("min_dcf"),
            f("act_dcf"),
            f("cllr"),
            percent(f("frr_at_far_0_01")),
            percent(f("frr_at_far_0_001")),
            f("cosine_at_far_0_001"),
            f("trials"),
        )
    };
    out += &format!(
        "{:<14} {:>9} {:>8} {:>8} {:>7} {:>11} {:>13} {:>9} {:>7}\n",
        "source", "EER", "minDCF", "actDCF", "Cllr", "FRR@FAR 1%", "FRR@FAR 0.1%", "cosine@0.1%", "trials"
    );
    out += &row("all", json);
    if let Some(sources) = json.get("by_source").and_then(Value::as_object) {
        sources.iter().for_each(|(name, v)| out += &row(name, v));
    }
    if let Some(e) = json.pointer("/intervals_95/eer").filter(|e| !e.is_null()) {
        let f = |k: &str| percent(e.get(k).and_then(Value::as_f64).unwrap_or(f64::NAN));
        out += &format!("95 % interval of the EER by speakers: {} to {}\n", f("low"), f("high"));
    }
    if let Some(t) = json.get("at_thresholds") {
        let f = |k: &str| t.get(k).and_then(Value::as_f64).unwrap_or(f64::NAN);
        out += &format!(
            "at accept {:.2} / reject {:.2}: genuine accepted {}, impostors accepted {}",
            f("accept_llr"),
            f("reject_llr"),
            percent(f("genuine_accepted")),
            percent(f("impostor_accepted"))
        );
    }
    out
}

/// An engine's refusal, with what it was about.
pub fn engine(what: &'static str, utterance: &str, why: impl std::error::Error) -> EvalError {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    EvalError::Engine { what, utterance: utterance.to_owned(), why: text }
}

/// Whether a list of recordings (natural speech) is at hand.
pub fn has_list(plan: &Plan, name: &str) -> bool {
    Path::new(&plan.split.trials(name)).is_file()
}
