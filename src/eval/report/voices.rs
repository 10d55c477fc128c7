//! The voices' part of the report: what `eval voiceprint` found under each condition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::metrics::Interval;
use super::super::plot::{Axis, Chart, Marks, Series};
use super::super::results::{Condition, Shape};
use super::table::{Table, cost, interval, per_cent_of, thousands};

/// The figures of `eval voiceprint`, as far as the report shows them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VoiceFigures {
    /// Equal error rate.
    pub eer: Option<f64>,
    /// Least detection cost.
    pub min_dcf: Option<f64>,
    /// Detection cost at the calibrated threshold.
    pub act_dcf: Option<f64>,
    /// Cost of the ratios, in bits.
    pub cllr: Option<f64>,
    /// Genuine refused where 1 % of impostors pass.
    pub frr_at_far_0_01: Option<f64>,
    /// Genuine refused where 0.1 % of impostors pass.
    pub frr_at_far_0_001: Option<f64>,
    /// Trials of the same speaker.
    pub genuine_trials: usize,
    /// Trials of two speakers.
    pub impostor_trials: usize,
    /// Enrolled speakers.
    pub speakers: usize,
    /// 95 % intervals by the figure's name.
    pub intervals_95: BTreeMap<String, Option<Interval>>,
    /// What the service's thresholds would have done.
    pub at_thresholds: Option<AtThresholds>,
    /// Parts.
    pub by_source: BTreeMap<String, VoiceFigures>,
    /// Parts.
    pub by_language: BTreeMap<String, VoiceFigures>,
    /// Parts.
    pub by_gender: BTreeMap<String, VoiceFigures>,
    /// Ratios, for the charts.
    pub shape: Option<Shape>,
    /// Calibrated ratio, and the ratio that the trials themselves bear out.
    pub reliability: Vec<(f64, f64)>,
}

/// What the service's thresholds would have done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AtThresholds {
    /// Share of genuine trials accepted.
    pub genuine_accepted: Option<f64>,
    /// Share of genuine trials rejected at once.
    pub genuine_rejected: Option<f64>,
    /// Share of impostor trials accepted.
    pub impostor_accepted: Option<f64>,
    /// Share of impostor trials rejected at once.
    pub impostor_rejected: Option<f64>,
}

/// Figures under a condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VoiceResult {
    /// The condition.
    pub condition: Condition,
    /// Its figures.
    pub figures: VoiceFigures,
}

impl VoiceFigures {
    pub(super) fn with(&self, key: &str, value: Option<f64>) -> String {
        format!("{}{}", per_cent_of(value), interval(self.intervals_95.get(key).copied().flatten()))
    }

    fn row(&self, name: &str) -> Vec<String> {
        vec![
            name.to_owned(),
            thousands(self.speakers),
            format!("{} / {}", thousands(self.genuine_trials), thousands(self.impostor_trials)),
            self.with("eer", self.eer),
            cost(self.min_dcf),
            cost(self.act_dcf),
            cost(self.cllr),
            self.with("frr_at_far_0_01", self.frr_at_far_0_01),
            self.with("frr_at_far_0_001", self.frr_at_far_0_001),
        ]
    }
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

const HEADINGS: [&str; 9] =
    ["", "speakers", "genuine / impostor trials", "EER", "minDCF", "actDCF", "Cllr", "FRR at FAR 1 %", "FRR at FAR 0.1 %"];

/// The section.
pub fn section(results: &[VoiceResult]) -> String {
    let mut out = "## Voice: every utterance against every enrolled speaker of its source\n\n".to_owned();
    let mut table = Table::new(&HEADINGS);
    results.iter().for_each(|r| table.row(r.figures.row(&r.name())));
    out += &table.text();
    let mut table = Table::new(&[
        "at the service's thresholds",
        "genuine accepted",
        "genuine rejected",
        "impostors accepted",
        "impostors rejected",
    ]);
    for r in results {
        if let Some(t) = &r.figures.at_thresholds {
            let rates = [t.genuine_accepted, t.genuine_rejected, t.impostor_accepted, t.impostor_rejected];
            table.row(std::iter::once(r.name()).chain(rates.into_iter().map(per_cent_of)));
        }
    }
    out += &table.text();
    if let Some(first) = results.first() {
        out += &format!("{}, apart by source, language and gender (unknown where the data doesn't say):\n\n", first.name());
        let mut table = Table::new(&HEADINGS);
        for (by, parts) in
            [("source", &first.figures.by_source), ("language", &first.figures.by_language), ("gender", &first.figures.by_gender)]
        {
            parts.iter().for_each(|(name, part)| table.row(part.row(&format!("{by}: {name}"))));
        }
        out += &table.text();
    }
    out
}

/// DET curves of all conditions, histogram and reliability of the first.
pub fn charts(results: &[VoiceResult]) -> Vec<(&'static str, Chart)> {
    let mut out = Vec::new();
    let curves = results.iter().filter_map(|r| {
        let det = r.figures.shape.as_ref().map(|s| s.det.clone()).filter(|d| !d.is_empty())?;
        Some(Series::new(r.name(), Marks::Line(det)))
    });
    let curves: Vec<Series> = curves.take(7).collect();
    if !curves.is_empty() {
        let title = "Voice: detection error trade-off".to_owned();
        let (x, y) = (Axis::error_rate("impostors accepted, %"), Axis::error_rate("genuine callers refused, %"));
        out.push(("voice-det.svg", Chart { title, x, y, series: curves }));
    }
    if let Some((first, shape)) = results.iter().find_map(|r| r.figures.shape.as_ref().map(|s| (r, s))) {
        out.push(("voice-scores.svg", shape_chart(&format!("Voice: {}", first.name()), "log-likelihood ratio", shape, &[])));
        if !first.figures.reliability.is_empty() {
            let points = first.figures.reliability.clone();
            let series = vec![
                Series::new("ideal", Marks::Dashes(vec![(-15.0, -15.0), (15.0, 15.0)])),
                Series::new("measured (pool adjacent violators)", Marks::Line(points)),
            ];
            let (x, y) = (
                Axis::linear("log-likelihood ratio as calibrated", -15.0, 15.0),
                Axis::linear("as the trials bear out", -15.0, 15.0),
            );
            out.push(("voice-reliability.svg", Chart { title: format!("Calibration of voice: {}", first.name()), x, y, series }));
        }
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
    use super::*;

    #[test]
    fn the_section_shows_each_condition_and_the_parts_of_the_first() {
        let json = serde_json::json!({
            "eer": 0.0015, "min_dcf": 0.011, "genuine_trials": 558, "impostor_trials": 7860, "speakers": 63,
            "intervals_95": {"eer": {"low": 0.0, "high": 0.0038}, "min_dcf": null},
            "at_thresholds": {"genuine_accepted": 1.0, "something_else": 3},
            "by_source": {"hyke_en": {"eer": 0.002}}, "unknown_to_the_report": 7
        });
        let figures: VoiceFigures = serde_json::from_value(json).unwrap();
        let condition = Condition { codec: "mulaw".to_owned(), list: "sv_card_trials.csv".to_owned(), ..Condition::default() };
        let results = [VoiceResult { condition, figures }];
        let text = section(&results);
        assert!(text.contains("| 16 digits, mulaw, clean | 63 | 558 / 7,860 | 0.15 % (0–0.38) | 0.011 |"), "{text}");
        assert!(text.contains("| source: hyke_en |") && text.contains("| 100 % |"), "{text}");
        assert!(charts(&results).is_empty(), "without shapes there is nothing to draw");
    }
}
