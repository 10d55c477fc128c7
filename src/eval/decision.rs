//! Voice and number together, judged as the service judges them: the same end-pointer, embedder, recogniser and thresholds, from
//! the samples that come off the line to the verdict.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::EvalError;
use super::data::{Recipe, Table, read_recipes, recording};
use super::metrics::{percentile, ratio};
use super::neighbours::{luhn_pairs, one_slip};
use super::number::{default_list, genuine, log_ratio};
use super::plan::{BySpeaker, Plan, percent};
use super::random::Random;
use super::voiceprint::{Gallery, Who, engine, enrol, has_list};
use super::work::{self, Progress, timed};
use crate::clock::SeededEntropy;
use crate::decision::{
    Calibration, CardEvidence, NumberEvidence, NumberVerdict, Policy, Tightening, VoiceAccepted, VoiceVerdict, judge_number,
    judge_voice,
};
use crate::ids::CardId;
use crate::media::frame::{Frame, SampleRate};
use crate::secret::Pan;
use crate::speech::endpoint::{Endpointer, ListenSpec, SpeechEvent};
use crate::speech::{Heard, NumberEngine, Utterance};
use crate::voiceprint::{Conditions, Embedder, VoiceConfig, score};

/// Samples in 20 ms at 8 kHz: a packet.
const FRAME_SAMPLES: usize = 160;

/// What judges.
#[derive(Debug)]
pub struct Judges<'a> {
    /// Makes embeddings.
    pub embedder: &'a Embedder,
    /// Hears numbers.
    pub numbers: &'a dyn NumberEngine,
    /// Thresholds of the voice, bounds of enrolment.
    pub voice: &'a VoiceConfig,
    /// Thresholds of voice and number.
    pub policy: &'a Policy,
    /// Raw scores to ratios.
    pub calibration: &'a Calibration,
    /// How it listens.
    pub listen: ListenSpec,
    /// The recogniser's file, for the conditions.
    pub number_model: &'a str,
    /// Luhn-valid near misses tried against each genuine utterance.
    pub near_misses: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Accepted,
    Inconclusive,
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Accepted,
    Inconclusive,
    Rejected,
    /// The voice was not accepted: the number isn't looked at.
    NotAsked,
}

/// One call's card number, judged.
#[derive(Clone, Debug)]
struct Judged {
    who: Who,
    voice: Voice,
    number: Number,
    cosine: f64,
    log_ratio: f64,
    voice_ms: f64,
    number_ms: f64,
    /// The end-pointer ended the turn before the number was over.
    cut_short: bool,
    near_trials: usize,
    near_accepts: usize,
}

impl Judged {
    fn accepted(&self) -> bool {
        self.voice == Voice::Accepted && self.number == Number::Accepted
    }
}

/// Runs it.
pub fn run(plan: &Plan, judges: &Judges<'_>) -> Result<(Value, String), EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| default_list(plan));
    let recipes = plan.draw(&genuine(plan, &name)?);
    let wanted: BTreeSet<Who> = recipes.iter().map(claimed).collect();
    let gallery = enrol(plan, judges.embedder, judges.voice, false, &wanted)?;
    let impostors = plan.draw(&impostors(plan, &wanted)?);
    let right = judge_all(plan, judges, &gallery, "genuine callers", &recipes, true)?;
    let wrong = judge_all(plan, judges, &gallery, "impostors", &impostors, false)?;
    let clones = clones(plan, judges)?;
    let mut json = summary(&right, &wrong, &clones);
    if let Some(map) = json.as_object_mut() {
        let sources: BTreeSet<&str> = right.iter().map(|j| j.who.0.as_str()).collect();
        let of = |all: &[Judged], s: &str| all.iter().filter(|j| j.who.0 == s).cloned().collect::<Vec<_>>();
        let by: Map<String, Value> =
            sources.iter().map(|s| ((*s).to_owned(), summary(&of(&right, s), &of(&wrong, s), &[]))).collect();
        map.insert("by_source".to_owned(), Value::Object(by));
        map.insert("enrolments_the_service_would_refuse".to_owned(), json!(gallery.would_be_refused));
        map.insert("intervals_95".to_owned(), intervals(plan, &right, &wrong, &clones));
        let models = [("voice", judges.embedder.version().to_string()), ("number", judges.number_model.to_owned())];
        let mut conditions = plan.conditions(&name, &models);
        if let Some(c) = conditions.as_object_mut() {
            c.insert("policy".to_owned(), json!(judges.policy));
            c.insert("clone_number_counted_as_passed".to_owned(), json!(true));
        }
        map.insert("conditions".to_owned(), conditions);
    }
    let text = text_of(&json, &name);
    Ok((json, text))
}

fn claimed(recipe: &Recipe) -> Who {
    (recipe.source.clone(), recipe.claimed.clone())
}

/// Impostors who say the right number of one of the callers.
fn impostors(plan: &Plan, wanted: &BTreeSet<Who>) -> Result<Vec<Recipe>, EvalError> {
    if !has_list(plan, "card_utterances.csv") {
        return Ok(Vec::new());
    }
    let mut all = read_recipes(&plan.split.trials("card_utterances.csv"))?;
    all.retain(|r| r.role == "impostor" && r.speaker != r.claimed && wanted.contains(&claimed(r)));
    Ok(all)
}

fn judge_all(
    plan: &Plan,
    judges: &Judges<'_>,
    gallery: &Gallery,
    what: &str,
    recipes: &[Recipe],
    near_misses: bool,
) -> Result<Vec<Judged>, EvalError> {
    work::map(recipes, plan.threads, &Progress::new(what, recipes.len()), |recipe| {
        let (utterance, cut_short) = listen(&plan.samples(recipe)?, judges.listen);
        let (mut judged, accepted) = judge_the_voice(judges, gallery, claimed(recipe), &recipe.id, &utterance)?;
        judged.cut_short = cut_short;
        if let Some(voice) = accepted {
            let (heard, hear_ms) = timed(|| judges.numbers.hear(&utterance));
            let heard = heard.map_err(|e| engine("the hearing", &recipe.id, e))?;
            judge_the_number(judges, recipe, &heard, &voice, &mut judged)?;
            judged.number_ms += hear_ms;
            if near_misses {
                let cards = near_cards(recipe, judges.near_misses, plan.seed);
                let fail = |e| engine("the scoring", &recipe.id, e);
                let evidence = judges.numbers.score(&voice, &heard, &cards).map_err(fail)?;
                judged.near_trials = cards.len();
                judged.near_accepts = each_alone(&evidence).filter(|e| accepts(judges.policy, &voice, e)).count();
            }
        }
        Ok(judged)
    })
}

fn judge_the_voice(
    judges: &Judges<'_>,
    gallery: &Gallery,
    who: Who,
    id: &str,
    utterance: &Utterance,
) -> Result<(Judged, Option<VoiceAccepted>), EvalError> {
    let Some(template) = gallery.templates.get(&who) else {
        return Err(EvalError::Conditions(format!("{} of {} is not enrolled", who.1, who.0)));
    };
    let (scored, voice_ms) = timed(|| {
        let embedding = judges.embedder.embed(&utterance.samples_16k).map_err(|e| engine("the embedding", id, e))?;
        let made = Conditions { net_speech_ms: utterance.net_speech_ms, snr_db: utterance.quality.snr_db };
        let by = judges.calibration;
        score(template, &embedding, made, &by.voice, &by.version).map_err(|e| engine("the score", id, e))
    });
    let scored = scored?;
    let cosine = f64::from(scored.cosine);
    let (voice, accepted) = match judge_voice(judges.policy, scored, &Tightening::default()) {
        VoiceVerdict::Accepted(proof) => (Voice::Accepted, Some(proof)),
        VoiceVerdict::StepUp(_) | VoiceVerdict::Inconclusive => (Voice::Inconclusive, None),
        VoiceVerdict::Rejected => (Voice::Rejected, None),
    };
    let judged = Judged {
        who,
        voice,
        number: Number::NotAsked,
        cosine,
        log_ratio: f64::NAN,
        voice_ms,
        number_ms: f64::NAN,
        cut_short: false,
        near_trials: 0,
        near_accepts: 0,
    };
    Ok((judged, accepted))
}

fn judge_the_number(
    judges: &Judges<'_>,
    recipe: &Recipe,
    heard: &Heard,
    voice: &VoiceAccepted,
    judged: &mut Judged,
) -> Result<(), EvalError> {
    let pan = Pan::from_digits(&recipe.digits).map_err(|e| engine("the number", &recipe.id, e))?;
    let cards = [(CardId::fresh(&SeededEntropy::new(0)), pan)];
    let (evidence, ms) = timed(|| judges.numbers.score(voice, heard, &cards));
    let evidence = evidence.map_err(|e| engine("the scoring", &recipe.id, e))?;
    judged.number_ms = ms;
    judged.log_ratio = log_ratio(&evidence);
    judged.number = match judge_number(judges.policy, voice, &evidence, &Tightening::default()) {
        NumberVerdict::Accepted(_) => Number::Accepted,
        NumberVerdict::Inconclusive => Number::Inconclusive,
        NumberVerdict::Rejected => Number::Rejected,
    };
    Ok(())
}

/// Numbers near the one said that could be real cards, as if each were the customer's.
fn near_cards(recipe: &Recipe, n: usize, seed: u64) -> Vec<(CardId, Pan)> {
    let mut random = Random::from_text(&format!("near{seed}{}", recipe.id));
    let slips: Vec<_> = one_slip(&recipe.digits).into_iter().filter(|n| n.luhn).collect();
    let pairs = luhn_pairs(&recipe.digits);
    // Half of them one slip away, as far as there are any; the others two digits away.
    let near = random.sample(slips.len(), n.div_ceil(2));
    let far = random.sample(pairs.len(), n.saturating_sub(near.len()));
    let picked = near.iter().filter_map(|i| slips.get(*i)).chain(far.iter().filter_map(|i| pairs.get(*i)));
    let entropy = SeededEntropy::new(seed);
    picked.filter_map(|n| Pan::from_digits(&n.digits).ok()).map(|pan| (CardId::fresh(&entropy), pan)).collect()
}

/// Evidence of several cards as if each had been asked about alone.
fn each_alone(evidence: &NumberEvidence) -> impl Iterator<Item = NumberEvidence> {
    let (cards, engine, calibration): (Vec<CardEvidence>, String, String) = match evidence {
        NumberEvidence::Spoken { cards, engine, calibration } => (cards.clone(), engine.clone(), calibration.clone()),
        NumberEvidence::Keyed { .. } => (Vec::new(), String::new(), String::new()),
    };
    cards.into_iter().map(move |c| NumberEvidence::Spoken {
        cards: vec![c],
        engine: engine.clone(),
        calibration: calibration.clone(),
    })
}

fn accepts(policy: &Policy, voice: &VoiceAccepted, evidence: &NumberEvidence) -> bool {
    matches!(judge_number(policy, voice, evidence, &Tightening::default()), NumberVerdict::Accepted(_))
}

/// Packet by packet through the end-pointer, then silence until it says that the caller is done. `true`: it said so before the
/// recording was over. What it can't find a turn in is taken whole.
fn listen(samples: &[i16], spec: ListenSpec) -> (Utterance, bool) {
    let rate = SampleRate::HZ_8000;
    let mut endpointer = Endpointer::new(spec, rate);
    let silent_frames = (spec.max_pause_ms as usize + 1000) / 20;
    let silence = vec![0i16; FRAME_SAMPLES];
    let frames = samples.chunks(FRAME_SAMPLES).map(|c| (c, true));
    for (chunk, within) in frames.chain(std::iter::repeat_n((silence.as_slice(), false), silent_frames)) {
        let events = endpointer.push(&Frame { rate, samples: chunk.to_vec() });
        if events.iter().any(|e| matches!(e, SpeechEvent::Ended(_)))
            && let Some(utterance) = endpointer.take_utterance()
        {
            return (utterance, within);
        }
    }
    let whole = endpointer.take_utterance().unwrap_or_else(|| Utterance::from_recording(samples, rate));
    (whole, false)
}

/// Cloned voices of enrolled speakers, and the same speakers' real ones beside them. The number counts as passed.
fn clones(plan: &Plan, judges: &Judges<'_>) -> Result<Vec<(bool, Judged)>, EvalError> {
    if !has_list(plan, "natural_trials.csv") || !has_list(plan, "natural_enrolment.csv") {
        return Ok(Vec::new());
    }
    let table = Table::read(&plan.split.trials("natural_trials.csv"))?;
    let mut trials = Vec::new();
    let mut sources = BTreeSet::new();
    for row in table.rows() {
        let spoof = row.get("kind")?.starts_with("spoof");
        if spoof || row.get("kind")? == "genuine" {
            let who: Who = (row.filled("source")?.to_owned(), row.filled("enrol_speaker")?.to_owned());
            trials.push((spoof, who.clone(), recording(row.filled("test_path")?, row.filled("test_speaker")?, &who.1)));
            if spoof {
                sources.insert(who.0);
            }
        }
    }
    trials.retain(|(_, who, _)| sources.contains(&who.0));
    if trials.is_empty() {
        return Ok(Vec::new());
    }
    let trials = plan.draw(&trials);
    let wanted = trials.iter().map(|(_, who, _)| who.clone()).collect();
    let gallery = enrol(plan, judges.embedder, judges.voice, true, &wanted)?;
    work::map(&trials, plan.threads, &Progress::new("cloned voices", trials.len()), |(spoof, who, recipe)| {
        let utterance = plan.utterance(recipe)?;
        let (judged, _proof) = judge_the_voice(judges, &gallery, who.clone(), &recipe.id, &utterance)?;
        Ok((*spoof, judged))
    })
}

fn rate<'a>(judged: impl Iterator<Item = &'a Judged>, test: impl Fn(&Judged) -> bool) -> f64 {
    let (passed, all) = judged.fold((0, 0), |(p, n), j| (p + usize::from(test(j)), n + 1));
    ratio(passed, all)
}

fn near_rate<'a>(judged: impl Iterator<Item = &'a Judged>) -> f64 {
    let (accepts, trials) = judged.fold((0, 0), |(a, t), j| (a + j.near_accepts, t + j.near_trials));
    ratio(accepts, trials)
}

fn voice_passed(j: &Judged) -> bool {
    j.voice == Voice::Accepted
}

fn summary(right: &[Judged], wrong: &[Judged], clones: &[(bool, Judged)]) -> Value {
    let mut ms: Vec<f64> = right.iter().map(|j| j.voice_ms + j.number_ms).filter(|m| m.is_finite()).collect();
    let mut voice_ms: Vec<f64> = right.iter().map(|j| j.voice_ms).collect();
    let mut number_ms: Vec<f64> = right.iter().map(|j| j.number_ms).filter(|m| m.is_finite()).collect();
    let of = |spoof: bool| clones.iter().filter(move |(s, _)| *s == spoof).map(|(_, j)| j);
    json!({
        "accept_rate": rate(right.iter(), Judged::accepted),
        "impostor_accept_rate": rate(wrong.iter(), Judged::accepted),
        "clone_accept_rate": rate(of(true), voice_passed),
        "near_miss_accept_rate": near_rate(right.iter()),
        "p50_ms": percentile(&mut ms, 0.5),
        "p95_ms": percentile(&mut ms, 0.95),
        "voice_p50_ms": percentile(&mut voice_ms, 0.5),
        "number_p50_ms": percentile(&mut number_ms, 0.5),
        "genuine_trials": right.len(),
        "impostor_trials": wrong.len(),
        "clone_trials": of(true).count(),
        "near_miss_trials": right.iter().map(|j| j.near_trials).sum::<usize>(),
        "genuine_voice": verdicts(right),
        "impostor_voice": verdicts(wrong),
        "genuine_number": {
            "accepted": rate(right.iter(), |j| j.number == Number::Accepted),
            "inconclusive": rate(right.iter(), |j| j.number == Number::Inconclusive),
            "rejected": rate(right.iter(), |j| j.number == Number::Rejected),
        },
        "clone_speakers_real_voice_accept_rate": rate(of(false), voice_passed),
        "clone_cosine": super::voiceprint::spread(&of(true).map(|j| j.cosine).collect::<Vec<_>>()),
        "cut_short_rate": rate(right.iter(), |j| j.cut_short),
        "genuine_cosine": super::voiceprint::spread(&right.iter().map(|j| j.cosine).collect::<Vec<_>>()),
        "genuine_log_ratio": super::voiceprint::spread(&right.iter().map(|j| j.log_ratio).filter(|r| r.is_finite()).collect::<Vec<_>>()),
    })
}

fn verdicts(all: &[Judged]) -> Value {
    json!({
        "accepted": rate(all.iter(), voice_passed),
        "inconclusive": rate(all.iter(), |j| j.voice == Voice::Inconclusive),
        "rejected": rate(all.iter(), |j| j.voice == Voice::Rejected),
    })
}

fn intervals(plan: &Plan, right: &[Judged], wrong: &[Judged], clones: &[(bool, Judged)]) -> Value {
    let key = |j: &Judged| format!("{}/{}", j.who.0, j.who.1);
    let (genuine, impostor) = (BySpeaker::new(right, plan.seed, key), BySpeaker::new(wrong, plan.seed, key));
    let spoofs: Vec<Judged> = clones.iter().filter(|(s, _)| *s).map(|(_, j)| j.clone()).collect();
    let cloned = BySpeaker::new(&spoofs, plan.seed, key);
    json!({
        "accept_rate": genuine.interval(|d| rate(d.iter().copied(), Judged::accepted)),
        "impostor_accept_rate": impostor.interval(|d| rate(d.iter().copied(), Judged::accepted)),
        "clone_accept_rate": cloned.interval(|d| rate(d.iter().copied(), voice_passed)),
        "near_miss_accept_rate": genuine.interval(|d| near_rate(d.iter().copied())),
    })
}

fn text_of(json: &Value, list: &str) -> String {
    let f = |k: &str| json.get(k).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let band = |k: &str| {
        let at = |end: &str| json.pointer(&format!("/intervals_95/{k}/{end}")).and_then(Value::as_f64).unwrap_or(f64::NAN);
        format!("{} to {}", percent(at("low")), percent(at("high")))
    };
    let mut out = format!("decision, {list}\n");
    for (name, key, of) in [
        ("right person, right number, first try", "accept_rate", "genuine_trials"),
        ("impostor says the right number", "impostor_accept_rate", "impostor_trials"),
        ("cloned voice, number counted as passed", "clone_accept_rate", "clone_trials"),
        ("right person, near miss that could be a card", "near_miss_accept_rate", "near_miss_trials"),
    ] {
        out += &format!("{name:<46} {:>10}  (95 %: {}; {} trials)\n", percent(f(key)), band(key), f(of));
    }
    out + &format!("end point to verdict: p50 {:.0} ms, p95 {:.0} ms, one thread", f("p50_ms"), f("p95_ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_cards_are_real_card_numbers_and_not_the_one_said() {
        let recipe = Recipe {
            id: "u".to_owned(),
            role: "genuine".to_owned(),
            source: "s".to_owned(),
            speaker: "a".to_owned(),
            claimed: "a".to_owned(),
            digits: "2261875516718090".bytes().map(|b| b - b'0').collect(),
            material: super::super::data::Material::Recording("x".to_owned()),
        };
        let cards = near_cards(&recipe, 8, 0);
        assert_eq!(cards.len(), 8);
        assert!(cards.iter().all(|(_, pan)| pan.digits() != recipe.digits));
        let ids: BTreeSet<String> = cards.iter().map(|(id, _)| id.as_str().to_owned()).collect();
        assert_eq!(ids.len(), 8);
    }

    #[test]
    fn rates_need_both_voice_and_number() {
        let judged = |voice, number| Judged {
            who: ("s".to_owned(), "a".to_owned()),
            voice,
            number,
            cosine: 0.7,
            log_ratio: 2.0,
            voice_ms: 10.0,
            number_ms: 20.0,
            cut_short: false,
            near_trials: 4,
            near_accepts: 1,
        };
        let right = [
            judged(Voice::Accepted, Number::Accepted),
            judged(Voice::Accepted, Number::Inconclusive),
            judged(Voice::Inconclusive, Number::NotAsked),
            judged(Voice::Rejected, Number::NotAsked),
        ];
        let clones = [(true, judged(Voice::Accepted, Number::NotAsked)), (false, judged(Voice::Rejected, Number::NotAsked))];
        let v = summary(&right, &[], &clones);
        assert_eq!(v["accept_rate"], 0.25);
        assert_eq!(v["clone_accept_rate"], 1.0);
        assert_eq!(v["near_miss_accept_rate"], 0.25);
        assert_eq!(v["impostor_accept_rate"], Value::Null);
        assert_eq!(v["p50_ms"], 30.0);
    }
}
