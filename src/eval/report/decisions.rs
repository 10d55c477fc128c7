//! The part of the report on whole decisions: voice and number, turn-taking and delay.

use super::super::decision::DecisionResult;
use super::super::decision_figures::DecisionFigures;
use super::table::{Table, counts, latency, rate};

const HEADINGS: [&str; 10] = [
    "",
    "accepted at the first try",
    "with fresh digits where asked",
    "voice accepted / fresh digits / rejected",
    "number asked again / rejected",
    "impostors accepted",
    "impostors, fresh digits included",
    "impostors rejected at once",
    "near misses accepted",
    "cut short",
];

fn row(name: &str, f: &DecisionFigures) -> Vec<String> {
    let three = |a: &super::super::results::Rate| super::table::per_cent_of(a.rate);
    vec![
        name.to_owned(),
        rate(&f.accepted),
        rate(&f.accepted_with_challenge),
        format!("{} / {} / {}", three(&f.voice_accepted), three(&f.voice_step_up), three(&f.voice_rejected)),
        format!("{} / {}", three(&f.number_inconclusive), three(&f.number_rejected)),
        counts(&f.impostor),
        counts(&f.impostor_with_challenge),
        rate(&f.impostor_rejected),
        counts(&f.near_miss),
        counts(&f.cut_short),
    ]
}

fn name(r: &DecisionResult) -> String {
    format!("{}, {}", r.condition.codec, r.condition.noise_words())
}

/// The section.
pub fn section(results: &[DecisionResult]) -> String {
    let mut out = "## Decision: voice and number, as a call decides\n\n".to_owned();
    let Some(first) = results.first() else { return out + "Not measured.\n\n" };
    out += "Recordings come in packets through the service's own turn-taking; impostors say the right number; near misses are numbers that could be \
            real cards. Fresh digits are simulated by the beginning of another utterance of whoever speaks.\n\n";
    let mut table = Table::new(&HEADINGS);
    for r in results {
        table.row(row(&format!("{} ({} callers, {} speakers)", name(r), r.figures.accepted.of, r.figures.speakers), &r.figures));
    }
    for s in &first.slices {
        table.row(row(&format!("{}: {} {}", name(first), s.by, s.name), &s.figures));
    }
    if let Some(f) = &first.trained_on {
        table.row(row(&format!("{}: *trained on*", name(first)), f));
    }
    out += &table.text();
    let mut table = Table::new(&[
        "p50 / p95",
        "end point to verdict",
        "before it: end-point delay",
        "hearing",
        "embedding",
        "scoring and judging",
        "models done before the end point",
    ]);
    for r in results {
        table.row([
            name(r),
            latency(&r.verdict),
            latency(&r.end_point_delay),
            latency(&r.hearing),
            latency(&r.embedding),
            latency(&r.scoring),
            rate(&r.ahead),
        ]);
    }
    out += &table.text();
    let mut table = Table::new(&[
        "cloned voices, the number counted as passed",
        "clones accepted by voice",
        "clones asked for fresh digits",
        "the same speakers' real voices accepted",
        "rejected",
    ]);
    for r in results {
        if let Some(c) = &r.clones {
            table.row([
                format!("{} ({} speakers)", name(r), c.speakers),
                counts(&c.accepted),
                counts(&c.step_up),
                counts(&c.real_accepted),
                counts(&c.real_rejected),
            ]);
        }
    }
    out += &table.text();
    let v = &first.policy.voice;
    out + &format!(
        "Policy {}, calibration {}: voice accepted from {:.2} nats, rejected below {:.2}, with at least {:.1} s of speech; number from {:.2} nats. {} of the enrolments would have been asked to repeat.\n\n",
        first.policy.version,
        first.policy.calibration,
        v.accept_llr,
        v.reject_llr,
        f64::from(v.min_net_speech_ms) / 1000.0,
        first.policy.number.accept_llr,
        first.enrolments_refused
    )
}
