//! Markdown tables, and figures as people read them.

use super::super::metrics::Interval;
use super::super::results::{Figure, Latency, Rate};

/// A table under construction.
#[derive(Debug)]
pub struct Table {
    text: String,
    columns: usize,
}

impl Table {
    /// With these headings.
    pub fn new(headings: &[&str]) -> Self {
        let text = format!("| {} |\n|{}\n", headings.join(" | "), "---|".repeat(headings.len()));
        Self { text, columns: headings.len() }
    }

    /// One row more; missing cells are dashes, surplus ones are left out.
    pub fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut cells: Vec<String> = cells.into_iter().map(|c| c.as_ref().replace('|', "\\|")).collect();
        cells.resize(self.columns, "–".to_owned());
        self.text += &format!("| {} |\n", cells.join(" | "));
    }

    /// The text, with an empty line behind.
    pub fn text(self) -> String {
        self.text + "\n"
    }
}

/// Per cent with as many places as matter: 99.5, 0.06, 0.004.
pub fn per_cent(fraction: f64) -> String {
    if !fraction.is_finite() {
        return "–".to_owned();
    }
    let p = fraction * 100.0;
    let places = match p.abs() {
        0.0 => 0,
        p if p < 0.1 => 3,
        p if p < 10.0 => 2,
        p if p < 99.995 => 1,
        _ => 0,
    };
    format!("{p:.places$} %")
}

/// A fraction that may not be there.
pub fn per_cent_of(fraction: Option<f64>) -> String {
    per_cent(fraction.unwrap_or(f64::NAN))
}

/// "(0.1–0.5)" in per cent, or nothing.
pub fn interval(i: Option<Interval>) -> String {
    let short = |f: f64| per_cent(f).trim_end_matches(" %").to_owned();
    i.map_or(String::new(), |i| format!(" ({}–{})", short(i.low), short(i.high)))
}

/// A rate with its interval.
pub fn rate(r: &Rate) -> String {
    format!("{}{}", per_cent_of(r.rate), interval(r.interval_95))
}

/// A rate as counts, with its interval: "3 of 1200 (0.1–0.4 %)".
pub fn counts(r: &Rate) -> String {
    let of = thousands(r.of);
    match r.interval_95 {
        Some(i) if r.hits > 0 => format!("{} of {of}, {}{}", r.hits, per_cent_of(r.rate), interval(Some(i))),
        Some(_) | None if r.of == 0 => "–".to_owned(),
        Some(_) | None => format!("{} of {of}, {}", r.hits, per_cent_of(r.rate)),
    }
}

/// A figure that is a fraction.
pub fn figure(f: &Figure) -> String {
    format!("{}{}", per_cent_of(f.value), interval(f.interval_95))
}

/// A cost: three places.
pub fn cost(value: Option<f64>) -> String {
    value.filter(|v| v.is_finite()).map_or("–".to_owned(), |v| format!("{v:.3}"))
}

/// Milliseconds: median and 95th percentile.
pub fn latency(l: &Latency) -> String {
    let ms = |v: Option<f64>| v.map_or("–".to_owned(), |v| if v < 10.0 { format!("{v:.1}") } else { format!("{v:.0}") });
    format!("{} / {} ms", ms(l.p50_ms), ms(l.p95_ms))
}

/// 12,345.
pub fn thousands(n: usize) -> String {
    let plain = n.to_string();
    let mut out = String::new();
    for (i, c) in plain.chars().enumerate() {
        if i > 0 && (plain.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_whole_whatever_they_are_given() {
        let mut t = Table::new(&["a", "b"]);
        t.row(["1"]);
        t.row(["x|y", "2", "3"]);
        assert_eq!(t.text(), "| a | b |\n|---|---|\n| 1 | – |\n| x\\|y | 2 |\n\n");
    }

    #[test]
    fn figures_have_the_places_that_matter() {
        let shown: Vec<String> = [0.0, 0.000_36, 0.0153, 0.5, 0.995, 1.0, f64::NAN].map(per_cent).to_vec();
        assert_eq!(shown, ["0 %", "0.036 %", "1.53 %", "50.0 %", "99.5 %", "100 %", "–"]);
        let r = Rate { interval_95: Some(Interval { low: 0.98, high: 1.0 }), ..Rate::plain(99, 100) };
        assert_eq!(rate(&r), "99.0 % (98.0–100)");
        assert_eq!(counts(&Rate::plain(0, 12_345)), "0 of 12,345, 0 %");
        assert_eq!(counts(&Rate::plain(0, 0)), "–");
        assert_eq!((thousands(5), thousands(1_234_567)), ("5".to_owned(), "1,234,567".to_owned()));
        assert_eq!(latency(&Latency::of([5.0, 5.0])), "5.0 / 5.0 ms");
    }
}
