//! Voice and number together, judged as a call judges them: a recording comes in packets through the same turn-taking, the models work at
//! its pauses on one thread, and at the end point embedder, recogniser, calibration and policy give the verdict.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::EvalError;
use super::checks;
use super::clones::{self, CloneFigures};
use super::data::{Recipe, read_recipes};
use super::decision_figures::{DecisionFigures, Judged, Number, Voice, figures, text_of};
use super::holdout::TrainedOn;
use super::neighbours::{luhn_pairs, one_slip};
use super::number::{default_list, genuine, log_ratio};
use super::people::People;
use super::plan::Plan;
use super::random::Random;
use super::results::{Condition, Latency, Rate, Slice, grouped};
use super::voiceprint::{Gallery, Who, engine, enrol, has_list, takes};
use super::work::{self, Progress, timed};
use crate::clock::SeededEntropy;
use crate::decision::{
    Calibration, CardEvidence, NumberEvidence, NumberVerdict, Policy, Tightening, VoiceAccepted, VoiceScore, VoiceVerdict,
    judge_challenge, judge_number, judge_voice,
};
use crate::ids::CardId;
use crate::media::frame::SampleRate;
use crate::secret::Pan;
use crate::speech::endpoint::ListenSpec;
use crate::speech::replay::{Lead, replay};
use crate::speech::turn::{Readiness, Turn};
use crate::speech::vad::VoiceActivity;
use crate::speech::{Heard, NumberEngine, SpeechError, Utterance};
use crate::voiceprint::{Conditions, Embedder, VoiceConfig, score};

/// Fresh digits that are asked for when the voice can't be told.
const CHALLENGE_DIGITS: usize = 8;

/// What judges.
#[derive(Clone, Copy, Debug)]
pub struct Judges<'a> {
    /// Makes embeddings.
    pub embedder: &'a Embedder,
    /// Hears numbers.
    pub numbers: &'a dyn NumberEngine,
    /// Bounds of enrolment.
    pub voice: &'a VoiceConfig,
    /// Thresholds of voice and number.
    pub policy: &'a Policy,
    /// Raw scores to ratios.
    pub calibration: &'a Calibration,
    /// How it listens.
    pub listen: ListenSpec,
    /// What counts as speech.
    pub activity: &'a VoiceActivity,
    /// Whom the recogniser knows.
    pub trained_on: &'a TrainedOn,
    /// Languages and genders.
    pub people: &'a People,
    /// Luhn-valid near misses tried against each genuine utterance.
    pub near_misses: usize,
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecisionResult {
    /// Under which conditions.
    pub condition: Condition,
    /// The recogniser.
    pub engine: String,
    /// The voice model.
    pub voice_model: String,
    /// Thresholds.
    pub policy: Policy,
    /// Callers who never trained the recogniser.
    pub figures: DecisionFigures,
    /// Parts of them.
    pub slices: Vec<Slice<DecisionFigures>>,
    /// Callers who did, apart.
    pub trained_on: Option<DecisionFigures>,
    /// Cloned voices.
    pub clones: Option<CloneFigures>,
    /// End point to verdict.
    pub verdict: Latency,
    /// From where the caller was last heard to the end point.
    pub end_point_delay: Latency,
    /// Hearing a whole utterance.
    pub hearing: Latency,
    /// Embedding it.
    pub embedding: Latency,
    /// Scoring and judging voice and number.
    pub scoring: Latency,
    /// The models were done before the end point.
    pub ahead: Rate,
    /// Enrolments that the service would have asked to repeat.
    pub enrolments_refused: usize,
}

/// Runs it for the command line.
pub fn run(plan: &Plan, judges: Judges<'_>) -> Result<(Value, String), EvalError> {
    let result = measure(plan, judges)?;
    let mut json = result.figures.json();
    if let Some(map) = json.as_object_mut() {
        map.insert("clone_accept_rate".to_owned(), json!(result.clones.as_ref().and_then(|c| c.accepted.rate)));
        map.insert("p50_ms".to_owned(), json!(result.verdict.p50_ms));
        map.insert("p95_ms".to_owned(), json!(result.verdict.p95_ms));
        map.insert("end_point_delay".to_owned(), json!(result.end_point_delay));
        map.insert("hearing".to_owned(), json!(result.hearing));
        map.insert("embedding".to_owned(), json!(result.embedding));
        map.insert("scoring".to_owned(), json!(result.scoring));
        map.insert("models_done_before_the_end_point".to_owned(), json!(result.ahead));
        map.insert("clones".to_owned(), json!(result.clones));
        let parts = result.slices.iter().filter(|s| s.by == "source").map(|s| (s.name.clone(), s.figures.json()));
        map.insert("by_source".to_owned(), Value::Object(parts.collect()));
        map.insert("trained_on".to_owned(), json!(result.trained_on.as_ref().map(DecisionFigures::json)));
        let models = [("voice", result.voice_model.clone()), ("number", result.engine.clone())];
        let mut conditions = plan.conditions(&result.condition.list, &models);
        if let Some(c) = conditions.as_object_mut() {
            c.insert("policy".to_owned(), json!(result.policy));
            c.insert("clone_number_counted_as_passed".to_owned(), json!(true));
            c.insert("left_out_of_the_headline".to_owned(), json!(judges.trained_on.names().collect::<Vec<_>>()));
        }
        map.insert("conditions".to_owned(), conditions);
    }
    Ok((json, text_of(&result)))
}

/// Measures one list under one condition.
pub fn measure(plan: &Plan, judges: Judges<'_>) -> Result<DecisionResult, EvalError> {
    let name = plan.list.clone().unwrap_or_else(|| default_list(plan));
    let listed = genuine(plan, &name)?;
    judges.trained_on.part(&name, listed.clone())?;
    let recipes = plan.draw(&listed);
    let wanted: BTreeSet<Who> = recipes.iter().map(claimed).collect();
    let takes = takes(plan, false, &wanted)?;
    checks::enrolment_apart(takes.values().flatten(), &recipes)?;
    let gallery = enrol(plan, judges.embedder, judges.voice, &takes)?;
    let others = cards(plan)?;
    let impostors = others.iter().filter(|r| r.role == "impostor" && r.speaker != r.claimed && wanted.contains(&claimed(r)));
    let impostors = plan.draw(&impostors.cloned().collect::<Vec<_>>());
    let spare: Vec<Recipe> = others.into_iter().filter(|r| r.role == "genuine").collect();
    let session = Session { plan, judges, gallery: &gallery, spare: &spare };
    let right = session.judge_all("genuine callers", &recipes, true)?;
    let wrong = session.judge_all("impostors", &impostors, false)?;

    let known = |j: &&Judged| judges.trained_on.heard(&j.who.0, &j.who.1);
    let (right_known, right_new): (Vec<&Judged>, Vec<&Judged>) = right.iter().partition(known);
    let (wrong_known, wrong_new): (Vec<&Judged>, Vec<&Judged>) = wrong.iter().partition(known);
    let by = |by: &str, name: &dyn Fn(&Judged) -> String| -> Vec<Slice<DecisionFigures>> {
        let mut parts = grouped(&wrong_new, |j| name(j));
        grouped(&right_new, |j| name(j))
            .into_iter()
            .map(|(name, right)| {
                let wrong = parts.remove(&name).unwrap_or_default();
                let (right, wrong): (Vec<&Judged>, Vec<&Judged>) =
                    (right.into_iter().copied().collect(), wrong.into_iter().copied().collect());
                Slice { by: by.to_owned(), name, figures: figures(&right, &wrong, plan.seed) }
            })
            .collect()
    };
    let mut slices = by("source", &|j| j.who.0.clone());
    slices.extend(by("gender", &|j| judges.people.gender(&j.who.0, &j.who.1)));
    let ms = |of: fn(&Judged) -> f64| Latency::of(right.iter().map(of));
    Ok(DecisionResult {
        condition: plan.condition(&name, None),
        engine: judges.numbers.name().to_owned(),
        voice_model: judges.embedder.version().to_string(),
        policy: judges.policy.clone(),
        figures: figures(&right_new, &wrong_new, plan.seed),
        slices,
        trained_on: (!right_known.is_empty()).then(|| figures(&right_known, &wrong_known, plan.seed)),
        clones: clones::measure(plan, judges)?,
        verdict: ms(|j| j.verdict_ms),
        end_point_delay: ms(|j| j.end_point_delay_ms),
        hearing: ms(|j| j.hear_ms),
        embedding: ms(|j| j.embed_ms),
        scoring: ms(|j| j.score_ms),
        ahead: Rate::plain(right.iter().filter(|j| j.ahead).count(), right.len()),
        enrolments_refused: gallery.would_be_refused,
    })
}

fn claimed(recipe: &Recipe) -> Who {
    (recipe.source.clone(), recipe.claimed.clone())
}

/// Where impostors and further utterances of everybody come from.
fn cards(plan: &Plan) -> Result<Vec<Recipe>, EvalError> {
    if has_list(plan, "card_utterances.csv") { read_recipes(&plan.split.trials("card_utterances.csv")) } else { Ok(Vec::new()) }
}

struct Session<'a> {
    plan: &'a Plan,
    judges: Judges<'a>,
    gallery: &'a Gallery,
    spare: &'a [Recipe],
}

/// What the models made of a turn.
struct Taken {
    utterance: Arc<Utterance>,
    heard: Heard,
    hearing: Duration,
    lead: Lead,
    end_point_delay_ms: f64,
    cut_short: bool,
}

impl Session<'_> {
    fn judge_all(&self, what: &str, recipes: &[Recipe], near_misses: bool) -> Result<Vec<Judged>, EvalError> {
        let words = format!("{what}, {}", self.plan.words("calls"));
        work::map(recipes, self.plan.threads, &Progress::new(words, recipes.len()), |recipe| self.judge(recipe, near_misses))
    }

    fn judge(&self, recipe: &Recipe, near_misses: bool) -> Result<Judged, EvalError> {
        let numbers = self.judges.numbers;
        let taken = self.listen(recipe)?;
        let who = claimed(recipe);
        let pan = Pan::from_digits(&recipe.digits).map_err(|e| engine("the number", &recipe.id, e))?;
        let card = [(CardId::fresh(&SeededEntropy::new(0)), pan)];
        let (embedding, embed_ms) = timed(|| self.judges.embedder.embed(&taken.utterance.samples_16k));
        let embedding = embedding.map_err(|e| engine("the embedding", &recipe.id, e))?;
        let (decided, score_ms) = timed(|| {
            let scored = voice_score(&self.judges, self.gallery, &who, &recipe.id, &embedding, &taken.utterance)?;
            let (voice, accepted) = voice_verdict(self.judges.policy, scored.clone());
            let number = match &accepted {
                Some(proof) => self.number(proof, &taken.heard, &card, &recipe.id)?,
                None => Number::NotAsked,
            };
            Ok::<_, EvalError>((scored, voice, accepted, number))
        });
        let (scored, voice, accepted, number) = decided?;
        let (mut near_trials, mut near_accepts) = (0, 0);
        if let Some(proof) = accepted.as_ref().filter(|_| near_misses) {
            let cards = near_cards(recipe, self.judges.near_misses, self.plan.seed);
            let evidence = numbers.score(proof, &taken.heard, &cards).map_err(|e| engine("the scoring", &recipe.id, e))?;
            near_trials = cards.len();
            near_accepts = each_alone(&evidence).filter(|e| self.judge_number(proof, e) == Number::Accepted).count();
        }
        let challenged = if voice == Voice::StepUp { self.challenge(recipe, &scored, &taken.heard, &card)? } else { None };
        let seconds = |ms: f64| Duration::from_secs_f64(ms.max(0.0) / 1000.0);
        let verdict = taken.lead.to_verdict(taken.hearing, seconds(embed_ms), seconds(score_ms));
        Ok(Judged {
            who,
            voice,
            number,
            challenged,
            cut_short: taken.cut_short,
            near_trials,
            near_accepts,
            verdict_ms: verdict.as_secs_f64() * 1000.0,
            end_point_delay_ms: taken.end_point_delay_ms,
            hear_ms: taken.hearing.as_secs_f64() * 1000.0,
            embed_ms,
            score_ms,
            ahead: matches!(taken.lead, Lead::Ahead(by) if by >= seconds(embed_ms)),
        })
    }

    /// Packet by packet through a turn, hearing at each pause; what no turn is found in is taken whole.
    fn listen(&self, recipe: &Recipe) -> Result<Taken, EvalError> {
        let rate = SampleRate::HZ_8000;
        let (samples, said) = self.plan.samples_and_after(recipe, self.judges.listen.max_pause_ms + 1000)?;
        let turn = Turn::begin(self.judges.listen, self.judges.activity.clone(), rate, None);
        let mut last: Option<(Arc<Utterance>, Result<Heard, SpeechError>, Duration)> = None;
        let replayed = replay(turn, rate, &samples, &[], |so_far| {
            let (heard, ms) = timed(|| self.judges.numbers.hear(so_far));
            let (readiness, more_ms) = timed(|| {
                let reading = heard.as_ref().ok().and_then(|h| self.judges.numbers.read_free(h, &[recipe.digits.len()]).ok());
                reading.map_or(Readiness::Unfinished, |r| Readiness::of_card(&r, &[recipe.digits.len()]))
            });
            let took = Duration::from_secs_f64((ms + more_ms) / 1000.0);
            last = Some((Arc::clone(so_far), heard, took));
            (readiness, took)
        });
        let fail = |e| engine("the hearing", &recipe.id, e);
        let spoken = replayed.spoken;
        let utterance = spoken.as_ref().map(|s| Arc::clone(&s.utterance));
        let utterance = utterance.unwrap_or_else(|| Arc::new(Utterance::from_recording(&samples, rate)));
        let (heard, hearing) = match last {
            Some((of, heard, took)) if Arc::ptr_eq(&of, &utterance) => (heard.map_err(fail)?, took),
            Some(_) | None => {
                let (heard, ms) = timed(|| self.judges.numbers.hear(&utterance));
                (heard.map_err(fail)?, Duration::from_secs_f64(ms / 1000.0))
            }
        };
        Ok(Taken {
            heard,
            hearing,
            lead: replayed.lead,
            end_point_delay_ms: spoken.as_ref().map_or(f64::NAN, |s| f64::from(s.end_point_delay_ms)),
            cut_short: usize::try_from(replayed.ended_at_ms).unwrap_or(usize::MAX).saturating_mul(8) < said,
            utterance,
        })
    }

    fn number(&self, proof: &VoiceAccepted, heard: &Heard, card: &[(CardId, Pan)], id: &str) -> Result<Number, EvalError> {
        let evidence = self.judges.numbers.score(proof, heard, card).map_err(|e| engine("the scoring", id, e))?;
        debug_assert!(!log_ratio(&evidence).is_nan());
        Ok(self.judge_number(proof, &evidence))
    }

    fn judge_number(&self, proof: &VoiceAccepted, evidence: &NumberEvidence) -> Number {
        match judge_number(self.judges.policy, proof, evidence, &Tightening::default()) {
            NumberVerdict::Accepted(_) => Number::Accepted,
            NumberVerdict::Inconclusive => Number::Inconclusive,
            NumberVerdict::Rejected => Number::Rejected,
        }
    }

    /// The speaker, whoever it is, says digits never said before: the beginning of another utterance. `None` where there is none.
    fn challenge(
        &self,
        recipe: &Recipe,
        first: &VoiceScore,
        heard: &Heard,
        card: &[(CardId, Pan)],
    ) -> Result<Option<(Voice, Number)>, EvalError> {
        let of_speaker: Vec<&Recipe> = self
            .spare
            .iter()
            .filter(|r| r.source == recipe.source && r.speaker == recipe.speaker && r.digits != recipe.digits)
            .collect();
        let at = Random::from_text(&format!("challenge{}{}", self.plan.seed, recipe.id)).below(of_speaker.len());
        let Some(fresh) = of_speaker.get(at).map(|r| r.truncated(CHALLENGE_DIGITS)) else { return Ok(None) };
        let utterance = self.plan.utterance(&fresh)?;
        let fail = |e| engine("the challenge", &recipe.id, e);
        let said = self.judges.numbers.hear(&utterance).map_err(fail)?;
        let content = self.judges.numbers.score_phrase(&said, &fresh.digits).map_err(fail)?;
        let embedding = self.judges.embedder.embed(&utterance.samples_16k).map_err(|e| engine("the embedding", &recipe.id, e))?;
        let scored = voice_score(&self.judges, self.gallery, &claimed(recipe), &recipe.id, &embedding, &utterance)?;
        Ok(Some(match judge_challenge(self.judges.policy, first, scored, &content, &Tightening::default()) {
            VoiceVerdict::Accepted(proof) => (Voice::Accepted, self.number(&proof, heard, card, &recipe.id)?),
            VoiceVerdict::StepUp(_) | VoiceVerdict::Inconclusive => (Voice::Inconclusive, Number::NotAsked),
            VoiceVerdict::Rejected => (Voice::Rejected, Number::NotAsked),
        }))
    }
}

/// The calibrated score of a voice against whom it claims to be.
pub(super) fn voice_score(
    judges: &Judges<'_>,
    gallery: &Gallery,
    who: &Who,
    id: &str,
    embedding: &crate::voiceprint::Embedding,
    utterance: &Utterance,
) -> Result<VoiceScore, EvalError> {
    let Some(template) = gallery.templates.get(who) else {
        return Err(EvalError::Conditions(format!("{} of {} is not enrolled", who.1, who.0)));
    };
    let made = Conditions { net_speech_ms: utterance.net_speech_ms, snr_db: utterance.quality.snr_db };
    let by = judges.calibration;
    score(template, embedding, made, &by.voice, &by.version).map_err(|e| engine("the score", id, e))
}

/// The policy's verdict on it.
pub(super) fn voice_verdict(policy: &Policy, scored: VoiceScore) -> (Voice, Option<VoiceAccepted>) {
    match judge_voice(policy, scored, &Tightening::default()) {
        VoiceVerdict::Accepted(proof) => (Voice::Accepted, Some(proof)),
        VoiceVerdict::StepUp(_) => (Voice::StepUp, None),
        VoiceVerdict::Inconclusive => (Voice::Inconclusive, None),
        VoiceVerdict::Rejected => (Voice::Rejected, None),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_cards_are_real_card_numbers_and_not_the_one_said() {
        let recipe = Recipe::said("2261875516718090");
        let cards = near_cards(&recipe, 8, 0);
        assert_eq!(cards.len(), 8);
        assert!(cards.iter().all(|(_, pan)| pan.digits() != recipe.digits));
        let ids: BTreeSet<String> = cards.iter().map(|(id, _)| id.as_str().to_owned()).collect();
        assert_eq!(ids.len(), 8);
    }
}
