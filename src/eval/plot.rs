//! Charts for the report as SVG, written by hand: lines, dots, bars and error bars over linear or normal-deviate axes. Pure; the same
//! figures give the same bytes.

use std::fmt::Write;

/// Width and height of a chart, in SVG user units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 420.0;
/// Room for labels at the left, right, top and bottom.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 46.0;
/// Points nearer than this to the one before are left out: nobody sees them.
const STEP: f64 = 0.7;
/// Okabe and Ito's colours, which people with any colour vision tell apart.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By the normal deviate of a fraction, as DET curves are drawn (Martin et al. 1997).
    Deviate,
}

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// Where it begins and ends.
    pub range: (f64, f64),
    /// How values lie on it.
    pub scale: Scale,
    /// Marked values and their names.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Linear, with about six round ticks.
    pub fn linear(label: &str, low: f64, high: f64) -> Self {
        let (low, high) = if low.is_finite() && high.is_finite() && low < high { (low, high) } else { (0.0, 1.0) };
        let raw = (high - low) / 6.0;
        let tens = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * tens).find(|s| *s >= raw).unwrap_or(raw);
        let places = usize::try_from((-step.log10().floor()).max(0.0) as i64).unwrap_or(0);
        let first = (low / step).ceil();
        let count = ((high / step).floor() - first).max(0.0) as usize;
        // Adding zero turns −0 into 0.
        let ticks = (0..=count).map(|i| (first + i as f64) * step + 0.0).map(|v| (v, format!("{v:.places$}"))).collect();
        Self { label: label.to_owned(), range: (low, high), scale: Scale::Linear, ticks }
    }

    /// Error rates from 0.02 % to 60 %, by normal deviate.
    pub fn error_rate(label: &str) -> Self {
        let marks = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4];
        let ticks = marks.into_iter().map(|v| (v, format!("{}", v * 100.0))).collect();
        Self { label: label.to_owned(), range: (0.0002, 0.6), scale: Scale::Deviate, ticks }
    }

    /// Per cent from 0 to 100 of fractions.
    pub fn per_cent(label: &str) -> Self {
        let ticks = (0..=5).map(|i| f64::from(i) / 5.0).map(|v| (v, format!("{:.0}", v * 100.0))).collect();
        Self { label: label.to_owned(), range: (0.0, 1.0), scale: Scale::Linear, ticks }
    }

    /// Names at 0, 1, 2, …
    pub fn named(names: &[String]) -> Self {
        let ticks = names.iter().enumerate().map(|(i, n)| (i as f64, n.clone())).collect();
        Self { label: String::new(), range: (-0.6, names.len() as f64 - 0.4), scale: Scale::Linear, ticks }
    }

    /// Where a value lies, 0 to 1; values beyond the ends lie at the ends.
    fn place(&self, value: f64) -> f64 {
        let along = |v: f64| match self.scale {
            Scale::Linear => v,
            Scale::Deviate => deviate(v),
        };
        let (low, high) = (along(self.range.0), along(self.range.1));
        ((along(value.clamp(self.range.0, self.range.1)) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// What is drawn of a series.
#[derive(Clone, Debug)]
pub enum Marks {
    /// Points joined.
    Line(Vec<(f64, f64)>),
    /// Points joined by dashes: what should be, not what was measured.
    Dashes(Vec<(f64, f64)>),
    /// Each point for itself.
    Dots(Vec<(f64, f64)>),
    /// From zero up to y, each `width` wide.
    Bars {
        /// Centre and height.
        at: Vec<(f64, f64)>,
        /// In units of the x axis.
        width: f64,
    },
    /// A point with its interval: x, y, low, high.
    Intervals(Vec<(f64, f64, f64, f64)>),
    /// A threshold, from bottom to top.
    Threshold(f64),
}

/// Something drawn, with its name in the legend (none if empty).
#[derive(Clone, Debug)]
pub struct Series {
    /// Name.
    pub name: String,
    /// Marks.
    pub marks: Marks,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// What is drawn, in this order.
    pub series: Vec<Series>,
}

impl Series {
    /// Named marks.
    pub fn new(name: impl Into<String>, marks: Marks) -> Self {
        Self { name: name.into(), marks }
    }
}

impl Chart {
    /// The SVG document.
    pub fn svg(&self) -> String {
        let mut out = String::with_capacity(16_384);
        let title = escaped(&self.title);
        out += &format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
             font-family=\"sans-serif\" font-size=\"12\"><title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        out += &format!("<text x=\"{LEFT}\" y=\"20\" font-size=\"14\" fill=\"#111\">{title}</text>\n");
        self.axes(&mut out);
        for (i, series) in self.series.iter().enumerate() {
            self.draw(&mut out, &series.marks, colour(i));
        }
        self.legend(&mut out);
        out += "</svg>\n";
        out
    }

    fn point(&self, x: f64, y: f64) -> (f64, f64) {
        let (wide, high) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        (LEFT + self.x.place(x) * wide, TOP + (1.0 - self.y.place(y)) * high)
    }

    fn axes(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, name) in &self.x.ticks {
            let (x, _) = self.point(*value, self.y.range.0);
            let _ = writeln!(out, "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#333\">{}</text>",
                bottom + 16.0,
                escaped(name)
            );
        }
        for (value, name) in &self.y.ticks {
            let (_, y) = self.point(self.x.range.0, *value);
            let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#333\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                escaped(name)
            );
        }
        let _ = writeln!(out, "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#333\"/>");
        let middle = (LEFT + right) / 2.0;
        let _ = writeln!(
            out,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#111\">{}</text>",
            HEIGHT - 8.0,
            escaped(&self.x.label)
        );
        let middle = (TOP + bottom) / 2.0;
        let _ = writeln!(
            out,
            "<text transform=\"translate(16 {middle:.1}) rotate(-90)\" text-anchor=\"middle\" fill=\"#111\">{}</text>",
            escaped(&self.y.label)
        );
    }

    fn draw(&self, out: &mut String, marks: &Marks, colour: &str) {
        match marks {
            Marks::Line(points) => self.line(out, points, colour, ""),
            Marks::Dashes(points) => self.line(out, points, colour, " stroke-dasharray=\"5 4\""),
            Marks::Dots(points) => {
                for (x, y) in points.iter().filter(|p| p.0.is_finite() && p.1.is_finite()) {
                    let (x, y) = self.point(*x, *y);
                    let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
                }
            }
            Marks::Bars { at, width } => {
                for (x, y) in at.iter().filter(|p| p.1 > 0.0) {
                    let (left, top) = self.point(x - width / 2.0, *y);
                    let (right, bottom) = self.point(x + width / 2.0, 0.0);
                    let _ = writeln!(
                        out,
                        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\" fill-opacity=\"0.55\"/>",
                        right - left,
                        (bottom - top).max(0.0)
                    );
                }
            }
            Marks::Intervals(points) => {
                for (x, y, low, high) in points.iter().filter(|p| p.1.is_finite()) {
                    let (px, py) = self.point(*x, *y);
                    if low.is_finite() && high.is_finite() {
                        let ((_, from), (_, to)) = (self.point(*x, *low), self.point(*x, *high));
                        let _ = writeln!(
                            out,
                            "<path d=\"M{:.1} {from:.1}h8m-4 0V{to:.1}m-4 0h8\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
                            px - 4.0
                        );
                    }
                    let _ = writeln!(out, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
                }
            }
            Marks::Threshold(at) => {
                let (x, bottom) = self.point(*at, self.y.range.0);
                let _ = writeln!(
                    out,
                    "<path d=\"M{x:.1} {TOP}V{bottom:.1}\" stroke=\"{colour}\" stroke-width=\"1.5\" stroke-dasharray=\"3 3\"/>"
                );
            }
        }
    }

    fn line(&self, out: &mut String, points: &[(f64, f64)], colour: &str, more: &str) {
        let mut path = String::new();
        let mut last: Option<(f64, f64)> = None;
        let finite: Vec<(f64, f64)> = points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
        for (i, (x, y)) in finite.iter().enumerate() {
            let (x, y) = self.point(*x, *y);
            let near = last.is_some_and(|(lx, ly)| (x - lx).abs() < STEP && (y - ly).abs() < STEP);
            if !near || i + 1 == finite.len() {
                let _ = write!(path, "{}{x:.1} {y:.1}", if last.is_none() { "M" } else { "L" });
                last = Some((x, y));
            }
        }
        if !path.is_empty() {
            let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{more}/>");
        }
    }

    fn legend(&self, out: &mut String) {
        let named: Vec<(usize, &Series)> = self.series.iter().enumerate().filter(|(_, s)| !s.name.is_empty()).collect();
        let longest = named.iter().map(|(_, s)| s.name.chars().count()).max().unwrap_or(0);
        let wide = longest as f64 * 6.6 + 34.0;
        let left = WIDTH - RIGHT - wide - 6.0;
        if !named.is_empty() {
            let _ = writeln!(
                out,
                "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" fill=\"#fff\" fill-opacity=\"0.85\" stroke=\"#ccc\"/>",
                TOP + 4.0,
                named.len() as f64 * 16.0 + 8.0
            );
        }
        for (row, (i, series)) in named.iter().enumerate() {
            let y = TOP + 18.0 + row as f64 * 16.0;
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"#111\">{}</text>",
                left + 6.0,
                y - 6.0,
                colour(*i),
                left + 26.0,
                y,
                escaped(&series.name)
            );
        }
    }
}

/// Counts of values in `bins` equal bins as shares of all of them: centre and share. Values beyond the ends count at the ends.
pub fn histogram(values: &[f64], low: f64, high: f64, bins: usize) -> Vec<(f64, f64)> {
    let width = (high - low) / bins.max(1) as f64;
    let mut counts = vec![0usize; bins.max(1)];
    for v in values.iter().filter(|v| !v.is_nan()) {
        let at = (((v - low) / width).floor().max(0.0) as usize).min(counts.len() - 1);
        if let Some(c) = counts.get_mut(at) {
            *c += 1;
        }
    }
    let all = values.len().max(1) as f64;
    counts.into_iter().enumerate().map(|(i, c)| (low + (i as f64 + 0.5) * width, c as f64 / all)).collect()
}

/// The standard normal distribution's inverse (Acklam 2003, relative error under 1.2e-9).
pub fn deviate(p: f64) -> f64 {
    const A: [f64; 6] = [
        -39.696_830_286_653_76,
        220.946_098_424_520_5,
        -275.928_510_446_968_7,
        138.357_751_867_269,
        -30.664_798_066_147_16,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] =
        [-54.476_098_798_224_06, 161.585_836_858_040_9, -155.698_979_859_886_6, 66.801_311_887_719_72, -13.280_681_552_885_72];
    const C: [f64; 6] = [
        -0.007_784_894_002_430_293,
        -0.322_396_458_041_136_5,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] = [0.007_784_695_709_041_462, 0.322_467_129_070_039_8, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let poly = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, k| sum * x + k);
    let p = p.clamp(1e-12, 1.0 - 1e-12);
    let tail = |q: f64| poly(&C, q) / (poly(&D, q) * q + 1.0);
    if p < 0.02425 {
        tail((-2.0 * p.ln()).sqrt())
    } else if p > 1.0 - 0.02425 {
        -tail((-2.0 * (1.0 - p).ln()).sqrt())
    } else {
        let q = p - 0.5;
        let r = q * q;
        poly(&A, r) * q / (poly(&B, r) * r + 1.0)
    }
}

fn colour(i: usize) -> &'static str {
    COLOURS.get(i % COLOURS.len()).copied().unwrap_or("#000000")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_deviate_is_the_tables() {
        for (p, z) in [(0.5, 0.0), (0.975, 1.959_963_985), (0.001, -3.090_232_306), (0.2, -0.841_621_234)] {
            assert!((deviate(p) - z).abs() < 1e-6, "{p}: {}", deviate(p));
        }
    }

    #[test]
    fn axes_have_round_ticks_within_their_range() {
        let axis = Axis::linear("x", -0.23, 1.07);
        let names: Vec<&str> = axis.ticks.iter().map(|t| t.1.as_str()).collect();
        assert_eq!(names, ["0.0", "0.5", "1.0"]);
        let names: Vec<String> = Axis::linear("x", -20.0, 40.0).ticks.into_iter().map(|t| t.1).collect();
        assert_eq!(names, ["-20", "-10", "0", "10", "20", "30", "40"]);
        assert_eq!(Axis::linear("x", f64::NAN, 1.0).range, (0.0, 1.0));
    }

    #[test]
    fn a_chart_holds_what_it_was_given_and_nothing_that_breaks_xml() {
        let chart = Chart {
            title: "a < b & c".to_owned(),
            x: Axis::error_rate("FAR, %"),
            y: Axis::error_rate("FRR, %"),
            series: vec![
                Series::new("clean \"16\"", Marks::Line(vec![(0.0, 1.0), (0.01, 0.02), (f64::NAN, 0.1), (1.0, 0.0)])),
                Series::new("", Marks::Threshold(0.01)),
                Series::new("i", Marks::Intervals(vec![(0.1, 0.1, 0.05, f64::INFINITY), (0.2, 0.2, 0.1, 0.3)])),
                Series::new("b", Marks::Bars { at: vec![(0.1, 0.2), (0.3, 0.0)], width: 0.1 }),
            ],
        };
        let svg = chart.svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b &amp; c") && svg.contains("clean &quot;16&quot;"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<title>").count(), 1);
        assert_eq!(svg, chart.svg());
        // FAR 0 and FRR 0 can't be shown on such axes: they lie on the edges, not outside.
        assert!(svg.contains(&format!("M{LEFT:.1} ")));
    }

    #[test]
    fn thousands_of_points_become_a_short_path() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i) / 1e5, f64::from(i) / 1e5)).collect();
        let chart = Chart {
            title: String::new(),
            x: Axis::per_cent("x"),
            y: Axis::per_cent("y"),
            series: vec![Series::new("s", Marks::Line(points))],
        };
        assert!(chart.svg().len() < 20_000);
    }

    #[test]
    fn histograms_are_shares_and_lose_nothing() {
        let h = histogram(&[-5.0, 0.1, 0.2, 0.9, 7.0], 0.0, 1.0, 2);
        assert_eq!(h, [(0.25, 0.6), (0.75, 0.4)]);
    }
}
