//! Verdicts counted: what `eval decision` hands over, and tells people.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::decision::DecisionResult;
use super::plan::BySpeaker;
use super::results::{Latency, Rate, percent_of};
use super::voiceprint::Who;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    Accepted,
    StepUp,
    Inconclusive,
    Rejected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Accepted,
    Inconclusive,
    Rejected,
    /// The voice was not accepted: the number isn't looked at.
    NotAsked,
}

/// One call's card number, judged.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) who: Who,
    pub(super) voice: Voice,
    pub(super) number: Number,
    /// After fresh digits, where they were asked for.
    pub(super) challenged: Option<(Voice, Number)>,
    /// The turn was ended before the number was over.
    pub(super) cut_short: bool,
    pub(super) near_trials: usize,
    pub(super) near_accepts: usize,
    /// End point to verdict, of which the rest is part or forerunner; milliseconds.
    pub(super) verdict_ms: f64,
    pub(super) end_point_delay_ms: f64,
    pub(super) hear_ms: f64,
    pub(super) embed_ms: f64,
    pub(super) score_ms: f64,
    pub(super) ahead: bool,
}

/// Figures of callers and of those who claimed to be them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecisionFigures {
    /// Of how many speakers.
    pub speakers: usize,
    /// Right person, right number: accepted at the first try.
    pub accepted: Rate,
    /// The same, fresh digits included where they were asked for.
    pub accepted_with_challenge: Rate,
    /// By voice alone.
    pub voice_accepted: Rate,
    /// Fresh digits were asked for.
    pub voice_step_up: Rate,
    /// Too little speech to tell.
    pub voice_inconclusive: Rate,
    /// Turned away by voice.
    pub voice_rejected: Rate,
    /// Of those accepted by voice: the number can't be told and is asked for again.
    pub number_inconclusive: Rate,
    /// Of those accepted by voice: the number was taken for another.
    pub number_rejected: Rate,
    /// The turn was ended before the number was over.
    pub cut_short: Rate,
    /// Right person, but the authorised card is another near the one said.
    pub near_miss: Rate,
    /// Impostor who says the right number, accepted.
    pub impostor: Rate,
    /// The same, fresh digits in the impostor's own voice included.
    pub impostor_with_challenge: Rate,
    /// Impostor who is turned away at once.
    pub impostor_rejected: Rate,
}

impl DecisionFigures {
    /// The keys that `eval decision --json` promises: plain numbers, counts and intervals beside them.
    pub fn json(&self) -> Value {
        json!({
            "accept_rate": self.accepted.rate,
            "impostor_accept_rate": self.impostor.rate,
            "near_miss_accept_rate": self.near_miss.rate,
            "detail": self,
        })
    }
}

/// Figures of genuine callers and of impostors.
pub(super) fn figures(right: &[&Judged], wrong: &[&Judged], seed: u64) -> DecisionFigures {
    let speaker = |j: &&Judged| format!("{}/{}", j.who.0, j.who.1);
    let (genuine, impostor) = (BySpeaker::new(right, seed, speaker), BySpeaker::new(wrong, seed, speaker));
    let first = |j: &Judged| j.voice == Voice::Accepted && j.number == Number::Accepted;
    let with = move |j: &Judged| first(j) || j.challenged == Some((Voice::Accepted, Number::Accepted));
    let of = |test: &dyn Fn(&Judged) -> bool| genuine.rate(|j| (usize::from(test(j)), 1));
    let past_voice = |test: &dyn Fn(&Judged) -> bool| {
        genuine.rate(|j| if j.voice == Voice::Accepted { (usize::from(test(j)), 1) } else { (0, 0) })
    };
    let against = |test: &dyn Fn(&Judged) -> bool| impostor.rate(|j| (usize::from(test(j)), 1));
    DecisionFigures {
        speakers: genuine.speakers(),
        accepted: of(&first),
        accepted_with_challenge: of(&with),
        voice_accepted: of(&|j| j.voice == Voice::Accepted),
        voice_step_up: of(&|j| j.voice == Voice::StepUp),
        voice_inconclusive: of(&|j| j.voice == Voice::Inconclusive),
        voice_rejected: of(&|j| j.voice == Voice::Rejected),
        number_inconclusive: past_voice(&|j| j.number == Number::Inconclusive),
        number_rejected: past_voice(&|j| j.number == Number::Rejected),
        cut_short: of(&|j| j.cut_short),
        near_miss: genuine.rate(|j| (j.near_accepts, j.near_trials)),
        impostor: against(&first),
        impostor_with_challenge: against(&with),
        impostor_rejected: against(&|j| j.voice == Voice::Rejected),
    }
}

/// For people.
pub(super) fn text_of(r: &DecisionResult) -> String {
    let f = &r.figures;
    let mut out = format!("decision, {}, {} {}\n", r.condition.list, r.condition.codec, r.condition.noise_words());
    let line = |name: &str, rate: &Rate| {
        let interval = rate
            .interval_95
            .map_or(String::new(), |i| format!("; 95 %: {} to {}", percent_of(Some(i.low)), percent_of(Some(i.high))));
        format!("{name:<50} {:>10}  ({} of {}{interval})\n", percent_of(rate.rate), rate.hits, rate.of)
    };
    for (name, rate) in [
        ("right person, right number, first try", &f.accepted),
        ("the same, fresh digits included", &f.accepted_with_challenge),
        ("  voice accepted", &f.voice_accepted),
        ("  fresh digits asked for", &f.voice_step_up),
        ("  voice rejected", &f.voice_rejected),
        ("  number asked for again", &f.number_inconclusive),
        ("  number rejected", &f.number_rejected),
        ("right person, near miss that could be a card", &f.near_miss),
        ("impostor says the right number", &f.impostor),
        ("the same, fresh digits included", &f.impostor_with_challenge),
        ("turn ended before the number was over", &f.cut_short),
    ] {
        out += &line(name, rate);
    }
    if let Some(c) = &r.clones {
        out += &line("cloned voice, number counted as passed", &c.accepted);
        out += &line("  fresh digits asked for", &c.step_up);
        out += &line("the same speakers' real voices", &c.real_accepted);
    }
    let ms = |l: &Latency| format!("p50 {:.0} ms, p95 {:.0} ms", l.p50_ms.unwrap_or(f64::NAN), l.p95_ms.unwrap_or(f64::NAN));
    out + &format!(
        "end point to verdict: {}, one thread; before it, waiting for the end: {}",
        ms(&r.verdict),
        ms(&r.end_point_delay)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_both_voice_and_number() {
        let judged = |who: &str, voice, number, challenged| Judged {
            who: ("s".to_owned(), who.to_owned()),
            voice,
            number,
            challenged,
            cut_short: false,
            near_trials: 4,
            near_accepts: 1,
            verdict_ms: 30.0,
            end_point_delay_ms: 500.0,
            hear_ms: 10.0,
            embed_ms: 10.0,
            score_ms: 10.0,
            ahead: true,
        };
        let right = [
            judged("a", Voice::Accepted, Number::Accepted, None),
            judged("a", Voice::Accepted, Number::Inconclusive, None),
            judged("b", Voice::StepUp, Number::NotAsked, Some((Voice::Accepted, Number::Accepted))),
            judged("b", Voice::Rejected, Number::NotAsked, None),
        ];
        let wrong = [judged("a", Voice::StepUp, Number::NotAsked, Some((Voice::Accepted, Number::Rejected)))];
        let f = figures(&right.iter().collect::<Vec<_>>(), &wrong.iter().collect::<Vec<_>>(), 0);
        assert_eq!((f.accepted.rate, f.accepted_with_challenge.rate), (Some(0.25), Some(0.5)));
        assert_eq!((f.number_inconclusive.hits, f.number_inconclusive.of), (1, 2));
        assert_eq!((f.near_miss.rate, f.impostor.rate, f.impostor_with_challenge.rate), (Some(0.25), Some(0.0), Some(0.0)));
        assert_eq!((f.speakers, f.voice_step_up.hits), (2, 1));
        let json = f.json();
        assert_eq!(
            (&json["accept_rate"], &json["impostor_accept_rate"], &json["near_miss_accept_rate"]),
            (&json!(0.25), &json!(0.0), &json!(0.25))
        );
    }
}
