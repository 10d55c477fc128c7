//! The goals that were set, each beside what was measured, and whether it is reached.

use super::super::metrics::ratio;
use super::super::number::NumberResult;
use super::super::results::{Condition, Figure, Rate};
use super::Everything;
use super::numbers::list_words;
use super::table::{Table, counts, figure, per_cent, per_cent_of, rate};
use super::voices::VoiceResult;

/// One line.
struct Line {
    measure: String,
    goal: &'static str,
    measured: String,
    reached: Option<bool>,
}

/// The table.
pub fn section(all: &Everything) -> String {
    let mut lines = Vec::new();
    numbers(all, &mut lines);
    voices(all, &mut lines);
    decisions(all, &mut lines);
    reuse(all, &mut lines);
    speed(all, &mut lines);
    let mut table = Table::new(&["measure", "goal", "measured (95 % interval)", "reached"]);
    for l in lines {
        let reached = match l.reached {
            Some(true) => "yes",
            Some(false) => "**no**",
            None if l.goal == "reported" => "–",
            None => "not measured",
        };
        table.row([l.measure.as_str(), l.goal, l.measured.as_str(), reached]);
    }
    "## Goals\n\n".to_owned() + &table.text()
}

fn is(c: &Condition, list: &str, snr_db: Option<i32>) -> bool {
    list_words(&c.list) == list
        && c.codec == "mulaw"
        && c.snr_db == snr_db
        && c.noise.as_deref().is_none_or(|n| n.contains("babble"))
}

fn push(lines: &mut Vec<Line>, measure: impl Into<String>, goal: &'static str, found: Option<(String, bool)>) {
    let (measured, reached) = found.map_or(("–".to_owned(), None), |(text, reached)| (text, Some(reached)));
    lines.push(Line { measure: measure.into(), goal, measured, reached });
}

fn at_least(r: &Rate, bound: f64) -> Option<(String, bool)> {
    r.rate.map(|v| (rate(r), v >= bound))
}

fn at_most(r: &Rate, bound: f64) -> Option<(String, bool)> {
    r.rate.map(|v| (rate(r), v <= bound))
}

fn at_most_figure(f: &Figure, bound: f64) -> Option<(String, bool)> {
    f.value.map(|v| (figure(f), v <= bound))
}

fn numbers(all: &Everything, lines: &mut Vec<Line>) {
    let find =
        |list: &str, snr: Option<i32>| -> Option<&NumberResult> { all.numbers.iter().find(|r| is(&r.condition, list, snr)) };
    let (clean, at_15, at_10) =
        (find("confirmed numbers", None), find("confirmed numbers", Some(15)), find("confirmed numbers", Some(10)));
    push(lines, "confirmed numbers read exactly, clean", "≥ 99.5 %", clean.and_then(|r| at_least(&r.figures.free_exact, 0.995)));
    push(lines, "their digit errors", "≤ 0.03 %", clean.and_then(|r| at_most(&r.figures.digit_errors, 0.0003)));
    for (words, r, accept, goal) in
        [("clean", clean, 0.99, "≥ 99 %"), ("babble 15 dB", at_15, 0.95, "≥ 95 %"), ("babble 10 dB", at_10, 0.8, "≥ 80 %")]
    {
        push(
            lines,
            format!("authorised number accepted at the first try, {words}"),
            goal,
            r.and_then(|r| at_least(&r.figures.authorised, accept)),
        );
        let worst_kind = r.map(|r| {
            let kinds = r.figures.near_miss_by_kind.iter();
            let worst = kinds.filter_map(|(k, rate)| rate.rate.map(|v| (k.name(), v))).max_by(|a, b| a.1.total_cmp(&b.1));
            let all = counts(&r.figures.near_miss);
            let (name, rate) = worst.unwrap_or(("–", f64::NAN));
            (format!("{all}; worst kind {name}: {}", per_cent(rate)), rate <= 0.001)
        });
        push(lines, format!("near misses accepted, each kind, {words}"), "≤ 0.1 %", worst_kind);
        let random = r.map(|r| {
            (
                format!("{} of {}", r.figures.random.hits, r.figures.random.of),
                r.figures.random.hits == 0 && r.figures.random.of >= 10_000,
            )
        });
        push(lines, format!("random other number accepted, {words}"), "0 of 10,000", random);
    }
    push(lines, "read exactly, babble 15 dB", "≥ 90 %", at_15.and_then(|r| at_least(&r.figures.free_exact, 0.9)));
    push(lines, "read exactly, babble 10 dB", "≥ 70 %", at_10.and_then(|r| at_least(&r.figures.free_exact, 0.7)));
    let lines_of = find("natural lines", None).and_then(|r| {
        let d = &r.figures.digit_errors;
        d.rate.map(|v| (format!("{}, of which the labels' own errors are about 1 %", rate(d)), v <= 0.02))
    });
    push(lines, "digit errors of natural lines", "≤ 1 % above the labels' own (~1 %)", lines_of);
    if let Some(r) = find("numbers, all labels", None) {
        let f = &r.figures;
        let text = format!(
            "{} exact of at most {} by labels, {} accepted",
            rate(&f.free_exact),
            per_cent(f.exact_ceiling),
            rate(&f.authorised)
        );
        lines.push(Line { measure: "card numbers with all labels".to_owned(), goal: "reported", measured: text, reached: None });
    }
}

fn voices(all: &Everything, lines: &mut Vec<Line>) {
    let find = |digits: usize, snr: Option<i32>| -> Option<&VoiceResult> {
        all.voices.iter().find(|r| {
            !r.condition.list.starts_with("natural")
                && r.condition.digits.unwrap_or(16) == digits
                && r.condition.codec == "mulaw"
                && r.condition.snr_db == snr
        })
    };
    let eers: [(usize, Option<i32>, f64, &'static str); 6] = [
        (16, None, 0.003, "≤ 0.3 %"),
        (8, None, 0.004, "≤ 0.4 %"),
        (4, None, 0.012, "≤ 1.2 %"),
        (16, Some(15), 0.005, "≤ 0.5 %"),
        (8, Some(15), 0.015, "≤ 1.5 %"),
        (4, Some(15), 0.03, "≤ 3 %"),
    ];
    for (digits, snr, bound, goal) in eers {
        let words = snr.map_or("clean".to_owned(), |db| format!("babble {db} dB"));
        let found = find(digits, snr).and_then(|r| at_most_figure(&r.found.figures.eer, bound));
        push(lines, format!("voice EER, {digits} digits, {words}"), goal, found);
    }
    let first = find(16, None);
    push(
        lines,
        "FRR at FAR 1 %, 16 digits",
        "≤ 0.5 %",
        first.and_then(|r| at_most_figure(&r.found.figures.frr_at_far_0_01, 0.005)),
    );
    let gap = first.and_then(|r| r.found.figures.act_dcf.value.zip(r.found.figures.min_dcf.value));
    push(
        lines,
        "actDCF above minDCF, 16 digits",
        "≤ 0.02",
        gap.map(|(a, m)| (format!("{a:.3} − {m:.3} = {:.3}", a - m), a - m <= 0.02)),
    );
}

fn decisions(all: &Everything, lines: &mut Vec<Line>) {
    let first = all.decisions.first();
    let clones = first.and_then(|r| r.clones.as_ref());
    let found = clones.and_then(|c| {
        let refused = ratio(c.real_accepted.of - c.real_accepted.hits, c.real_accepted.of);
        let text =
            format!("{}; of the same speakers' real voices {} not accepted at once", counts(&c.accepted), per_cent(refused));
        c.accepted.rate.map(|v| (text, v <= 0.02 && refused <= 0.03))
    });
    push(lines, "cloned voices accepted, the number counted as passed", "≤ 2 of 100 at ≤ 3 % genuine refused", found);
    let delay = first.and_then(|r| r.verdict.p50_ms.zip(r.verdict.p95_ms));
    push(
        lines,
        "end point → verdict, p50 / p95, one thread",
        "≤ 250 / 500 ms",
        delay.map(|(a, b)| (format!("{a:.0} / {b:.0} ms"), a <= 250.0 && b <= 500.0)),
    );
    for r in &all.decisions {
        let measured = format!(
            "{} of callers at the first try; impostors {}",
            rate(&r.figures.accepted),
            per_cent_of(r.figures.impostor.rate)
        );
        lines.push(Line {
            measure: format!("whole decision, {} {}", r.condition.codec, r.condition.noise_words()),
            goal: "reported",
            measured,
            reached: None,
        });
    }
}

fn reuse(all: &Everything, lines: &mut Vec<Line>) {
    let found = all.reuse.as_ref();
    let missed = found.map(|r| {
        let (hits, of) =
            r.missed.iter().filter(|m| m.in_goal).fold((0, 0), |(h, n), m| (h + m.utterances.hits, n + m.utterances.of));
        (format!("{hits} of {of}"), hits == 0 && of > 0)
    });
    push(lines, "reused audio missed (re-encoded, level changed, shifted, 20 dB noise)", "0", missed);
    let flagged = found.map(|r| {
        let (hits, of) = r.natural.iter().fold((0, 0), |(h, n), x| (h + x.flagged.hits, n + x.flagged.of));
        (format!("{hits} of {of}, {}", per_cent(ratio(hits, of))), ratio(hits, of) <= 0.01)
    });
    push(lines, "natural recordings flagged as reused", "≤ 1 %", flagged);
}

fn speed(all: &Everything, lines: &mut Vec<Line>) {
    let peers = all.peers.as_ref();
    let embedding = peers.and_then(|p| {
        let of = |name: &str| p.voices.speed.iter().find(|s| s.name.contains(name)).map(|s| s.p50_ms_per_s);
        of("voicepay")
            .zip(of("onnxruntime"))
            .map(|(ours, theirs)| (format!("{ours:.1} against {theirs:.1} ms a second of speech"), ours < theirs))
    });
    push(lines, "embedding beside onnxruntime", "faster", embedding);
    let reading = peers.and_then(|p| p.recognition.first()).and_then(|r| {
        let of = |name: &str| r.readers.iter().find(|x| x.name.contains(name)).map(|x| x.p50_ms);
        of("voicepay").zip(of("tiny.en")).map(|(ours, theirs)| (format!("{ours:.0} against {theirs:.0} ms"), ours < theirs))
    });
    push(lines, "recognition beside faster-whisper tiny.en", "faster", reading);
}
