//! How well voices are told apart: enrolment from three utterances, then trials, with the embedder, the centring and the template
//! that the service itself uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Value, json};

use super::EvalError;
use super::checks;
use super::data::{Recipe, Row, Table, read_recipes, recording};
use super::degrade::Line;
use super::people::People;
use super::plan::Plan;
use super::random::Random;
use super::results::{Figure, percent, percent_of};
use super::voice_figures::{self, VoiceFigures, VoiceReport};
use super::work::{self, Progress};
use crate::decision::{Calibration as Calibrated, Policy};
use crate::voiceprint::calibrate::HeldOut;
use crate::voiceprint::{Conditions, Embedder, Embedding, Enrolment, EnrolmentError, Take, Template, VoiceConfig, score};

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
    /// The same voices, for scoring by a mean that knows neither speaker of a trial.
    pub held_out: HeldOut,
}

/// Whom [`HeldOut`] knows by this name.
pub fn key(who: &Who) -> String {
    format!("{}/{}", who.0, who.1)
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
    /// Centred cosine, by a mean without these two speakers where enough others are enrolled.
    pub cosine: f64,
    /// Its ratio by the calibration in force, in nats.
    pub llr: f64,
    /// Speech without pauses in the test utterance.
    pub net_speech_ms: u32,
    /// Estimated distance of speech from noise, in dB.
    pub snr_db: f32,
}

/// By what scores become ratios and verdicts.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Thresholds.
    pub policy: &'a Policy,
    /// Ratios.
    pub calibration: &'a Calibrated,
}

/// Who claims to be whom, in which utterance.
pub(super) struct Trial {
    pub enrolled: Who,
    pub tested: String,
    pub target: bool,
    /// Index among the utterances.
    pub utterance: usize,
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

/// By whom and with what `wanted` speakers enrol: digit strings of `enrolment.csv`, recordings of `natural_enrolment.csv`.
pub fn takes(plan: &Plan, natural: bool, wanted: &BTreeSet<Who>) -> Result<BTreeMap<Who, Vec<Recipe>>, EvalError> {
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
    takes.retain(|who, _| wanted.contains(who));
    Ok(takes)
}

/// Enrols speakers.
pub fn enrol(
    plan: &Plan,
    embedder: &Embedder,
    config: &VoiceConfig,
    takes: &BTreeMap<Who, Vec<Recipe>>,
) -> Result<Gallery, EvalError> {
    let recipes: Vec<Recipe> = takes.values().flatten().cloned().collect();
    // Voices are enrolled over the same codec (or the one that is asked for) but without the noise of the call that is measured: an enrolment
    // call is its own.
    let clean = Plan { line: Line::clean(plan.enrol_codec.unwrap_or(plan.line.codec)), ..plan.clone() };
    let heard = work::map(&recipes, plan.threads, &Progress::new("enrolments", recipes.len()), |r| take_of(&clean, embedder, r));
    let mut heard = heard?.into_iter();
    let mut gallery = Gallery::default();
    for (who, recipes) in takes {
        let voices: Vec<Take> = heard.by_ref().take(recipes.len()).collect();
        let (template, refused) = template_of(&voices, config).map_err(|e| engine("the enrolment", &who.1, e))?;
        gallery.would_be_refused += usize::from(refused);
        gallery.templates.insert(who.clone(), template);
        gallery.held_out.enrol(&key(who), voices);
    }
    Ok(gallery)
}

/// An utterance as the service takes it at enrolment, in the same babble whenever it is asked for.
fn take_of(plan: &Plan, embedder: &Embedder, recipe: &Recipe) -> Result<Take, EvalError> {
    let utterance = plan.utterance(recipe)?;
    let seed = Random::from_text(&recipe.id).next_u64();
    Take::of(embedder, &utterance.samples_16k, utterance.net_speech_ms, seed).map_err(|e| engine("the embedding", &recipe.id, e))
}

/// A template, and whether the service's own bounds would have refused it.
fn template_of(voices: &[Take], config: &VoiceConfig) -> Result<(Template, bool), EnrolmentError> {
    let with = |config: VoiceConfig| {
        let mut enrolment = Enrolment::new(config);
        for v in voices {
            enrolment.add(v.clone())?;
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

/// Runs it for the command line.
pub fn run(
    plan: &Plan,
    embedder: &Embedder,
    config: &VoiceConfig,
    judge: Judge<'_>,
    digits: Option<usize>,
    pairs: Pairs,
) -> Result<(Value, String), EvalError> {
    let (name, gallery, report) = measure(plan, embedder, config, judge, digits, pairs)?;
    let mut json = report.figures.json();
    if let Some(map) = json.as_object_mut() {
        map.insert("at_thresholds".to_owned(), json!(report.at_thresholds));
        map.insert("enrolments".to_owned(), json!(gallery.templates.len()));
        map.insert("enrolments_the_service_would_refuse".to_owned(), json!(gallery.would_be_refused));
        map.insert("digits".to_owned(), json!(digits));
        map.insert("pairs".to_owned(), json!(if pairs == Pairs::All { "all within source" } else { "listed" }));
        for by in ["source", "language", "gender"] {
            let parts = report.slices.iter().filter(|s| s.by == by).map(|s| (s.name.clone(), s.figures.json()));
            map.insert(format!("by_{by}"), Value::Object(parts.collect()));
        }
        map.insert("conditions".to_owned(), plan.conditions(&name, &[("voice", embedder.version().to_string())]));
    }
    let text = text_of(&report, &name);
    Ok((json, text))
}

/// Measures one list under one condition.
pub fn measure(
    plan: &Plan,
    embedder: &Embedder,
    config: &VoiceConfig,
    judge: Judge<'_>,
    digits: Option<usize>,
    pairs: Pairs,
) -> Result<(String, Gallery, VoiceReport), EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| "sv_card_trials.csv".to_owned());
    let table = Table::read(&plan.split.find_list(&name)?)?;
    let natural = table.has("test_path");
    let (listed, utterances) = read_trials(plan, &table, digits)?;
    let (trials, utterances) = if pairs == Pairs::All { all_pairs(&listed, &utterances) } else { (listed, utterances) };
    let genuine = trials.iter().filter(|t| t.target).count();
    checks::both_kinds(&name, genuine, trials.len() - genuine)?;
    let wanted = trials.iter().map(|t| t.enrolled.clone()).collect();
    let takes = takes(plan, natural, &wanted)?;
    checks::enrolment_apart(takes.values().flatten(), &utterances)?;
    let gallery = enrol(plan, embedder, config, &takes)?;
    let heard = hear_all(plan, embedder, &plan.words("test utterances"), &utterances)?;
    let (scored, _by_others_mean) = score_all(&trials, &gallery, &heard, judge)?;
    let report = voice_figures::report(&scored, &People::of(&plan.split)?, judge.policy, plan.seed);
    Ok((name, gallery, report))
}

/// Scores by the mean of the other speakers, as a caller whom nobody knew would be scored; by the service's own mean, which knows
/// those that made it, where too few are enrolled for that. Says which.
pub(super) fn score_all(
    trials: &[Trial],
    gallery: &Gallery,
    heard: &[Heard],
    judge: Judge<'_>,
) -> Result<(Vec<Scored>, bool), EvalError> {
    let voice = &judge.calibration.voice;
    let (mut scored, mut held_out) = (Vec::new(), true);
    for trial in trials {
        let (Some(template), Some(heard)) = (gallery.templates.get(&trial.enrolled), heard.get(trial.utterance)) else {
            continue;
        };
        let s = score(template, &heard.embedding, heard.made, voice, &judge.calibration.version)
            .map_err(|e| engine("the score", &trial.tested, e))?;
        let tested = (trial.enrolled.0.clone(), trial.tested.clone());
        let without = gallery.held_out.cosine(&key(&trial.enrolled), &key(&tested), &heard.embedding);
        held_out &= without.is_some();
        let cosine = without.unwrap_or(s.cosine);
        scored.push(Scored {
            enrolled: trial.enrolled.clone(),
            tested: trial.tested.clone(),
            target: trial.target,
            cosine: f64::from(cosine),
            llr: f64::from(voice.llr(cosine, s.net_speech_ms, s.snr_db)),
            net_speech_ms: s.net_speech_ms,
            snr_db: s.snr_db,
        });
    }
    Ok((scored, held_out))
}

pub(super) fn read_trials(plan: &Plan, table: &Table, digits: Option<usize>) -> Result<(Vec<Trial>, Vec<Recipe>), EvalError> {
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

/// Every genuine utterance against every speaker of its source that is enrolled in the list, and those utterances: the list's impostors
/// need not be heard.
pub(super) fn all_pairs(listed: &[Trial], utterances: &[Recipe]) -> (Vec<Trial>, Vec<Recipe>) {
    let enrolled: BTreeSet<&Who> = listed.iter().map(|t| &t.enrolled).collect();
    let (mut out, mut heard, mut places) = (Vec::new(), Vec::new(), BTreeMap::new());
    for trial in listed.iter().filter(|t| t.target) {
        let utterance = *places.entry(trial.utterance).or_insert_with(|| {
            heard.extend(utterances.get(trial.utterance).cloned());
            heard.len().saturating_sub(1)
        });
        for who in enrolled.iter().filter(|w| w.0 == trial.enrolled.0) {
            out.push(Trial {
                enrolled: (*who).clone(),
                tested: trial.tested.clone(),
                target: **who == trial.enrolled,
                utterance,
            });
        }
    }
    (out, heard)
}

fn text_of(report: &VoiceReport, list: &str) -> String {
    let all = &report.figures;
    let mut out = format!("voiceprint, {list}: {} genuine and {} impostor trials\n", all.genuine_trials, all.impostor_trials);
    let row = |name: &str, f: &VoiceFigures| {
        let plain = |f: &Figure| f.value.unwrap_or(f64::NAN);
        format!(
            "{name:<14} {:>9} {:>8.3} {:>8.3} {:>7.3} {:>11} {:>13} {:>9} {:>7}\n",
            percent_of(f.eer.value),
            plain(&f.min_dcf),
            plain(&f.act_dcf),
            plain(&f.cllr),
            percent_of(f.frr_at_far_0_01.value),
            percent_of(f.frr_at_far_0_001.value),
            percent_of(f.raw_eer),
            f.genuine_trials + f.impostor_trials,
        )
    };
    out += &format!(
        "{:<14} {:>9} {:>8} {:>8} {:>7} {:>11} {:>13} {:>9} {:>7}\n",
        "source", "EER", "minDCF", "actDCF", "Cllr", "FRR@FAR 1%", "FRR@FAR 0.1%", "raw EER", "trials"
    );
    out += &row("all", all);
    report.slices.iter().filter(|s| s.by == "source").for_each(|s| out += &row(&s.name, &s.figures));
    if let Some(i) = all.eer.interval_95 {
        out += &format!("95 % interval of the EER by speakers: {} to {}\n", percent(i.low), percent(i.high));
    }
    let t = &report.at_thresholds;
    out + &format!(
        "accept from {:.2} nats, reject below {:.2}: genuine accepted {}, impostors accepted {}",
        t.accept_llr,
        t.reject_llr,
        percent_of(t.genuine_accepted),
        percent_of(t.impostor_accepted)
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pairs_try_each_genuine_utterance_on_everybody_and_hear_no_impostor() {
        let said: Vec<Recipe> = [("s/a1", "anna", "bert"), ("s/a2", "anna", "anna"), ("s/b1", "bert", "bert")]
            .map(|(p, s, c)| recording(p, s, c))
            .into();
        let who = |name: &str| ("s".to_owned(), name.to_owned());
        let trial = |enrolled: &str, tested: &str, utterance| Trial {
            enrolled: who(enrolled),
            tested: tested.to_owned(),
            target: enrolled == tested,
            utterance,
        };
        let listed = [trial("bert", "anna", 0), trial("anna", "anna", 1), trial("bert", "bert", 2)];
        let (trials, heard) = all_pairs(&listed, &said);
        let ids: Vec<&str> = heard.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids, [said[1].id.as_str(), said[2].id.as_str()]);
        let made: Vec<_> = trials.iter().map(|t| (t.enrolled.1.as_str(), t.utterance, t.target)).collect();
        assert_eq!(made, [("anna", 0, true), ("bert", 0, false), ("anna", 1, false), ("bert", 1, true)]);
    }
}
