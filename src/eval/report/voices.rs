//! The voices' part of the report: what `eval voiceprint` found under each condition.

use serde::{Deserialize, Serialize};

use super::super::plot::{Axis, Chart, Marks, Series};
use super::super::results::{Condition, Shape};
use super::super::voice_figures::{VoiceFigures, VoiceReport};
use super::table::{Table, cost, figure, per_cent_of, thousands};

/// Figures under a condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VoiceResult {
    /// The condition.
    pub condition: Condition,
    /// Its figures.
    pub found: VoiceReport,
}

fn row(name: &str, f: &VoiceFigures) -> Vec<String> {
    vec![
        name.to_owned(),
        thousands(f.speakers),
        format!("{} / {}", thousands(f.genuine_trials), thousands(f.impostor_trials)),
        figure(&f.eer),
        cost(f.min_dcf.value),
        cost(f.act_dcf.value),
        cost(f.act_dcf_refitted),
        cost(f.cllr.value),
        figure(&f.frr_at_far_0_01),
        figure(&f.frr_at_far_0_001),
        per_cent_of(f.raw_eer),
    ]
}

impl VoiceResult {
    /// "16 digits, mulaw, clean"; recordings that are no digits have no count.
    pub fn name(&self) -> String {
        let c = &self.condition;
        let what = match c.digits {
            Some(n) => format!("{n} digits"),
            None if c.list.starts_with("natural") => "natural recordings".to_owned(),
            None => "16 digits".to_owned(),
        };
        format!("{what}, {}, {}", c.codec, c.noise_words())
    }
}

const HEADINGS: [&str; 11] = [
    "",
    "speakers",
    "genuine / impostor trials",
    "EER",
    "minDCF",
    "actDCF",
    "actDCF refitted",
    "Cllr",
    "FRR at FAR 1 %",
    "FRR at FAR 0.1 %",
    "EER of the raw cosine",
];

/// The section.
pub fn section(results: &[VoiceResult]) -> String {
    let mut out = "## Voice: every utterance against every enrolled speaker of its source\n\n".to_owned();
    let Some(first) = results.first() else { return out + "Not measured.\n\n" };
    out += "Of the service's own ratios, calibrated as shipped; \"refitted\": a plain calibration of the raw cosine fitted anew without the speaker.\n\n";
    let mut table = Table::new(&HEADINGS);
    results.iter().for_each(|r| table.row(row(&r.name(), &r.found.figures)));
    out += &table.text();
    let mut table = Table::new(&[
        "at the service's thresholds",
        "genuine accepted",
        "genuine rejected",
        "impostors accepted",
        "impostors rejected",
    ]);
    for r in results {
        let t = &r.found.at_thresholds;
        let rates = [t.genuine_accepted, t.genuine_rejected, t.impostor_accepted, t.impostor_rejected];
        table.row(std::iter::once(r.name()).chain(rates.into_iter().map(per_cent_of)));
    }
    out += &table.text();
    out += "By source, language and gender (unknown where the data doesn't say):\n\n";
    let mut table = Table::new(&HEADINGS);
    for r in std::iter::once(first).chain(results.iter().skip(1).filter(|r| r.condition.digits.is_none())) {
        r.found.slices.iter().for_each(|s| table.row(row(&format!("{}: {} {}", r.name(), s.by, s.name), &s.figures)));
    }
    out + &table.text()
}

/// DET curves of all conditions, histogram and reliability of the first.
pub fn charts(results: &[VoiceResult]) -> Vec<(&'static str, Chart)> {
    let mut out = Vec::new();
    let curves = results.iter().filter_map(|r| {
        let det = &r.found.shape.det;
        (!det.is_empty()).then(|| Series::new(r.name(), Marks::Line(det.clone())))
    });
    let curves: Vec<Series> = curves.take(7).collect();
    if !curves.is_empty() {
        let title = "Voice: detection error trade-off".to_owned();
        let (x, y) = (Axis::error_rate("impostors accepted, %"), Axis::error_rate("genuine callers refused, %"));
        out.push(("voice-det.svg", Chart { title, x, y, series: curves }));
    }
    if let Some(first) = results.first().filter(|r| !r.found.shape.det.is_empty()) {
        let t = &first.found.at_thresholds;
        let thresholds = [("accepted from here", f64::from(t.accept_llr)), ("rejected below", f64::from(t.reject_llr))];
        let title = format!("Voice: {}", first.name());
        out.push(("voice-scores.svg", shape_chart(&title, "log-likelihood ratio", &first.found.shape, &thresholds)));
        let mut series = vec![Series::new("ideal", Marks::Dashes(vec![(-15.0, -15.0), (15.0, 15.0)]))];
        for r in results.iter().filter(|r| !r.found.reliability.is_empty()).take(5) {
            series.push(Series::new(r.name(), Marks::Line(r.found.reliability.clone())));
        }
        let (x, y) = (
            Axis::linear("log-likelihood ratio as calibrated", -15.0, 15.0),
            Axis::linear("as the trials bear out", -15.0, 15.0),
        );
        out.push(("voice-reliability.svg", Chart { title: "Calibration of voice".to_owned(), x, y, series }));
    }
    out
}

/// Two histograms, with thresholds.
pub fn shape_chart(title: &str, label: &str, shape: &Shape, thresholds: &[(&str, f64)]) -> Chart {
    let ends = |bins: &[(f64, f64)]| (bins.first().map(|b| b.0), bins.last().map(|b| b.0));
    let (low, high) = ends(&shape.genuine);
    let top = shape.genuine.iter().chain(&shape.impostor).map(|b| b.1).fold(0.0, f64::max);
    let half = shape.bin / 2.0;
    let x = Axis::linear(label, low.unwrap_or(0.0) - half, high.unwrap_or(1.0) + half);
    let y = Axis::linear("share of trials", 0.0, (top * 1.1).clamp(0.05, 1.0));
    let mut series = vec![
        Series::new("right", Marks::Bars { at: shape.genuine.clone(), width: shape.bin }),
        Series::new("wrong", Marks::Bars { at: shape.impostor.clone(), width: shape.bin }),
    ];
    series.extend(thresholds.iter().map(|(name, at)| Series::new(*name, Marks::Threshold(*at))));
    Chart { title: title.to_owned(), x, y, series }
}

#[cfg(test)]
mod tests {
    use super::super::super::metrics::Interval;
    use super::super::super::results::{Figure, Slice};
    use super::super::super::voice_figures::AtThresholds;
    use super::*;

    #[test]
    fn the_section_shows_each_condition_and_its_parts() {
        let figure = |value| Figure { value: Some(value), interval_95: Some(Interval { low: 0.0, high: 0.0038 }) };
        let figures = VoiceFigures {
            eer: figure(0.0015),
            min_dcf: figure(0.011),
            act_dcf: figure(0.02),
            cllr: figure(0.018),
            frr_at_far_0_01: figure(0.0),
            frr_at_far_0_001: figure(0.0018),
            raw_eer: Some(0.0019),
            act_dcf_refitted: None,
            genuine_trials: 558,
            impostor_trials: 7860,
            speakers: 63,
        };
        let at_thresholds = AtThresholds {
            accept_llr: 4.0,
            reject_llr: -3.0,
            genuine_accepted: Some(1.0),
            genuine_rejected: Some(0.0),
            impostor_accepted: Some(0.0),
            impostor_rejected: None,
        };
        let slices = vec![Slice { by: "source".to_owned(), name: "hyke_en".to_owned(), figures: figures.clone() }];
        let found = VoiceReport { figures, slices, at_thresholds, shape: Shape::default(), reliability: Vec::new() };
        let condition = Condition { codec: "mulaw".to_owned(), list: "sv_card_trials.csv".to_owned(), ..Condition::default() };
        let results = [VoiceResult { condition, found }];
        let text = section(&results);
        assert!(text.contains("| 16 digits, mulaw, clean | 63 | 558 / 7,860 | 0.15 % (0–0.38) | 0.011 | 0.020 |"), "{text}");
        assert!(text.contains("| 16 digits, mulaw, clean: source hyke_en |") && text.contains("| 100 % |"), "{text}");
        assert!(charts(&results).is_empty(), "without shapes there is nothing to draw");
    }
}
