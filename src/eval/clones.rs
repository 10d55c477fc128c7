//! Cloned voices of enrolled speakers, and the same speakers' real ones beside them: what voice alone lets through. The number counts as
//! passed: whoever has a clone has the number.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::EvalError;
use super::checks;
use super::data::{Table, recording};
use super::decision::{Judges, voice_score, voice_verdict};
use super::decision_figures::Voice;
use super::plan::{BySpeaker, Plan};
use super::results::Rate;
use super::voiceprint::{Who, engine, enrol, has_list, takes};
use super::work::{self, Progress};

/// Figures of clones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CloneFigures {
    /// Of how many speakers.
    pub speakers: usize,
    /// Clones accepted by voice.
    pub accepted: Rate,
    /// Clones that were asked for fresh digits.
    pub step_up: Rate,
    /// The same speakers' real recordings, accepted by voice.
    pub real_accepted: Rate,
    /// The same, turned away.
    pub real_rejected: Rate,
}

struct Tried {
    who: Who,
    spoof: bool,
    voice: Voice,
}

/// Measures them; `None` where the split has none.
pub(super) fn measure(plan: &Plan, judges: Judges<'_>) -> Result<Option<CloneFigures>, EvalError> {
    if !has_list(plan, "natural_trials.csv") || !has_list(plan, "natural_enrolment.csv") {
        return Ok(None);
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
        return Ok(None);
    }
    let trials = plan.draw(&trials);
    let wanted = trials.iter().map(|(_, who, _)| who.clone()).collect();
    let takes = takes(plan, true, &wanted)?;
    checks::enrolment_apart(takes.values().flatten(), trials.iter().map(|(_, _, recipe)| recipe))?;
    let gallery = enrol(plan, judges.embedder, judges.voice, &takes)?;
    let progress = Progress::new(format!("cloned voices, {}", plan.words("calls")), trials.len());
    let tried = work::map(&trials, plan.threads, &progress, |(spoof, who, recipe)| {
        let utterance = plan.utterance(recipe)?;
        let embedding = judges.embedder.embed(&utterance.samples_16k).map_err(|e| engine("the embedding", &recipe.id, e))?;
        let scored = voice_score(&judges, &gallery, who, &recipe.id, &embedding, &utterance)?;
        let (voice, _proof) = voice_verdict(judges.policy, scored);
        Ok::<_, EvalError>(Tried { who: who.clone(), spoof: *spoof, voice })
    })?;
    Ok(Some(figures(&tried, plan.seed)))
}

fn figures(tried: &[Tried], seed: u64) -> CloneFigures {
    let groups = BySpeaker::new(tried, seed, |t| t.who.1.clone());
    let of =
        |spoof: bool, voice: Voice| groups.rate(|t| if t.spoof == spoof { (usize::from(t.voice == voice), 1) } else { (0, 0) });
    CloneFigures {
        speakers: groups.speakers(),
        accepted: of(true, Voice::Accepted),
        step_up: of(true, Voice::StepUp),
        real_accepted: of(false, Voice::Accepted),
        real_rejected: of(false, Voice::Rejected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_and_real_voices_are_counted_apart() {
        let one = |spoof, voice| Tried { who: ("s".to_owned(), "a".to_owned()), spoof, voice };
        let all =
            [one(true, Voice::Accepted), one(true, Voice::StepUp), one(false, Voice::Accepted), one(false, Voice::Rejected)];
        let f = figures(&all, 0);
        assert_eq!((f.accepted.rate, f.step_up.rate), (Some(0.5), Some(0.5)));
        assert_eq!((f.real_accepted.of, f.real_rejected.hits), (2, 1));
    }
}
