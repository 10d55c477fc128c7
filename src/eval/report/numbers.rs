//! The numbers' part of the report.

use super::super::metrics::Interval;
use super::super::number::{NumberFigures, NumberResult};
use super::super::plot::{Axis, Chart, Marks, Series};
use super::table::{Table, counts, latency, per_cent, per_cent_of, rate, thousands};
use super::voices::shape_chart;

const HEADINGS: [&str; 10] = [
    "",
    "utterances (speakers)",
    "read exactly",
    "digit errors",
    "authorised accepted",
    "near misses accepted",
    "utterances with any",
    "Luhn-valid neighbours",
    "random others",
    "ceiling of exact",
];

fn row(name: &str, f: &NumberFigures) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{} ({})", thousands(f.utterances), f.speakers),
        rate(&f.free_exact),
        rate(&f.digit_errors),
        rate(&f.authorised),
        counts(&f.near_miss),
        counts(&f.worst_neighbour),
        counts(&f.near_miss_luhn),
        format!("{} of {}", f.random.hits, thousands(f.random.of)),
        if f.exact_ceiling < 1.0 { per_cent(f.exact_ceiling) } else { "–".to_owned() },
    ]
}

/// "confirmed", "all labels", "natural lines": lists by what they are.
pub fn list_words(list: &str) -> &str {
    match list.rsplit('/').next().unwrap_or(list) {
        "card_utterances_confirmed.csv" => "confirmed numbers",
        "card_utterances.csv" => "numbers, all labels",
        "hyke_strings.csv" => "natural lines",
        other => other,
    }
}

fn name(r: &NumberResult) -> String {
    format!("{}, {}, {}", list_words(&r.condition.list), r.condition.codec, r.condition.noise_words())
}

/// The section.
pub fn section(results: &[NumberResult]) -> String {
    let mut out = "## Numbers\n\n".to_owned();
    let Some(first) = results.first() else { return out + "Not measured.\n\n" };
    out += &format!(
        "Engine `{}`; accepted from a log ratio of {:.2} on, rejected below {:.2}. English speakers whom the recogniser never heard in training.\n\n",
        first.engine, first.thresholds.accept_log_ratio, first.thresholds.reject_log_ratio
    );
    let mut table = Table::new(&HEADINGS);
    results.iter().for_each(|r| table.row(row(&name(r), &r.figures)));
    out += &table.text();

    out += "Near misses by kind, accepted of pairs tried (utterance, neighbour):\n\n";
    let kinds: Vec<&str> = first.figures.near_miss_by_kind.iter().map(|(k, _)| k.name()).collect();
    let mut table = Table::new(&std::iter::once("").chain(kinds).collect::<Vec<_>>());
    for r in results {
        table.row(std::iter::once(name(r)).chain(r.figures.near_miss_by_kind.iter().map(|(_, k)| counts(k))));
    }
    out += &table.text();

    out += "By source, gender and language; speakers who trained the recogniser, and other languages than English, apart and in no headline:\n\n";
    let mut table = Table::new(&HEADINGS);
    for r in results {
        for s in &r.slices {
            table.row(row(&format!("{}: {} {}", name(r), s.by, s.name), &s.figures));
        }
        for s in &r.other_languages {
            table.row(row(&format!("{}: *{} {}*", name(r), s.by, s.name), &s.figures));
        }
        if let Some(f) = &r.trained_on {
            table.row(row(&format!("{}: *trained on*", name(r)), f));
        }
    }
    out += &table.text();

    out += &format!("{} at other thresholds:\n\n", name(first));
    let mut table = Table::new(&["accept from log ratio", "authorised", "near misses", "utterances with any"]);
    for s in &first.sweep {
        table.row([
            format!("{:.1}", s.accept_log_ratio),
            per_cent_of(s.authorised),
            per_cent_of(s.near_miss),
            per_cent_of(s.worst_neighbour),
        ]);
    }
    out += &table.text();
    let left_out: usize = results.iter().map(|r| r.too_long).sum();
    if left_out > 0 {
        out += &format!("{left_out} recordings longer than the recogniser's window of 30 s are left out.\n\n");
    }
    out + &format!(
        "One inference a thread: hearing {} (p50 / p95), then reading freely and scoring the authorised number {}.\n\n",
        latency(&first.hearing),
        latency(&first.deciding)
    )
}

/// Acceptance by condition, histogram of the first, DET by condition.
pub fn charts(results: &[NumberResult]) -> Vec<(&'static str, Chart)> {
    let confirmed: Vec<&NumberResult> = results.iter().filter(|r| list_words(&r.condition.list) == "confirmed numbers").collect();
    let mut out = Vec::new();
    let Some(first) = confirmed.first() else { return out };
    let names: Vec<String> = confirmed.iter().map(|r| format!("{} {}", r.condition.codec, r.condition.noise_words())).collect();
    let of = |which: fn(&NumberFigures) -> (Option<f64>, Option<Interval>), shift: f64| {
        let point = |(i, r): (usize, &&NumberResult)| {
            let (value, interval) = which(&r.figures);
            let interval = interval.unwrap_or(Interval { low: f64::NAN, high: f64::NAN });
            (i as f64 + shift, value.unwrap_or(f64::NAN), interval.low, interval.high)
        };
        Marks::Intervals(confirmed.iter().enumerate().map(point).collect())
    };
    let series = vec![
        Series::new("authorised number accepted", of(|f| (f.authorised.rate, f.authorised.interval_95), -0.12)),
        Series::new("read exactly", of(|f| (f.free_exact.rate, f.free_exact.interval_95), 0.0)),
        Series::new(
            "utterances with a near miss accepted",
            of(|f| (f.worst_neighbour.rate, f.worst_neighbour.interval_95), 0.12),
        ),
    ];
    let title = "Confirmed numbers at the first try, 95 % intervals by speakers".to_owned();
    out.push((
        "number-conditions.svg",
        Chart { title, x: Axis::named(&names), y: Axis::per_cent("share of utterances, %"), series },
    ));
    let thresholds = [("accepted from here", first.thresholds.accept_log_ratio)];
    let title = format!("Numbers said and their one-slip neighbours: {}", name(first));
    out.push(("number-ratios.svg", shape_chart(&title, "log ratio to the best other string", &first.shape, &thresholds)));
    let curves: Vec<Series> = confirmed
        .iter()
        .zip(&names)
        .filter(|(r, _)| !r.shape.det.is_empty())
        .map(|(r, n)| Series::new(n.clone(), Marks::Line(r.shape.det.clone())))
        .collect();
    let title = "Confirmed numbers against their one-slip neighbours".to_owned();
    let (x, y) = (Axis::error_rate("near misses accepted, %"), Axis::error_rate("authorised numbers refused, %"));
    out.push(("number-det.svg", Chart { title, x, y, series: curves }));
    out
}
