//! `models/REPORT.md` and its charts, from what a run measured. Nothing is measured here.

pub mod decisions;
mod goals;
pub mod numbers;
pub mod peers;
mod table;
pub mod voices;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EvalError;
use super::decision::DecisionResult;
use super::number::NumberResult;
use super::reuse::ReuseResult;
use peers::Peers;
use table::Table;
use voices::VoiceResult;

/// Everything that one run measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Everything {
    /// The day, UTC.
    pub date: String,
    /// Program, models, split, seed, in words by name.
    pub about: Vec<(String, String)>,
    /// Parts of the run and their seconds.
    pub took: Vec<(String, u64)>,
    /// Voice by condition.
    pub voices: Vec<VoiceResult>,
    /// Numbers by condition.
    pub numbers: Vec<NumberResult>,
    /// Decisions by condition.
    pub decisions: Vec<DecisionResult>,
    /// Reused audio.
    pub reuse: Option<ReuseResult>,
    /// Peers, if they ran.
    pub peers: Option<Peers>,
}

/// Where charts lie beside the report.
const PLOTS: &str = "plots";

impl Everything {
    /// Writes `REPORT.md` and `plots/*.svg` into `folder`; tells what it wrote.
    pub fn write(&self, folder: &Path) -> Result<Vec<String>, EvalError> {
        let unwritable =
            |file: &Path, e: std::io::Error| EvalError::Conditions(format!("{} can't be written: {e}", file.display()));
        let plots = folder.join(PLOTS);
        std::fs::create_dir_all(&plots).map_err(|e| unwritable(&plots, e))?;
        let mut written = Vec::new();
        let (numbers, voices) = (numbers::charts(&self.numbers), voices::charts(&self.voices));
        for (name, chart) in numbers.iter().chain(&voices) {
            let file = plots.join(name);
            std::fs::write(&file, chart.svg()).map_err(|e| unwritable(&file, e))?;
            written.push(format!("{PLOTS}/{name}"));
        }
        let pictures = |charts: &[(&str, super::plot::Chart)]| -> String {
            charts.iter().map(|(name, chart)| format!("![{}]({PLOTS}/{name})\n", chart.title)).collect::<String>() + "\n"
        };
        let file = folder.join("REPORT.md");
        let text = self.text(&pictures(&numbers), &pictures(&voices));
        std::fs::write(&file, text).map_err(|e| unwritable(&file, e))?;
        written.push("REPORT.md".to_owned());
        Ok(written)
    }

    fn text(&self, number_charts: &str, voice_charts: &str) -> String {
        let mut out = "# What the models measure\n\nWritten by `make eval`; don't edit.\n\n".to_owned();
        out += &format!("- {}, telephone band\n", self.date);
        for (name, what) in &self.about {
            out += &format!("- {name}: {what}\n");
        }
        let minutes = self.took.iter().map(|(_, s)| *s).sum::<u64>() as f64 / 60.0;
        let parts: Vec<String> = self.took.iter().map(|(name, s)| format!("{name} {s} s")).collect();
        out += &format!("- the run took {minutes:.1} minutes: {}\n\n", parts.join(", "));
        out += METHOD;
        out += &goals::section(self);
        out += &numbers::section(&self.numbers);
        out += number_charts;
        out += &voices::section(&self.voices);
        out += voice_charts;
        out += &decisions::section(&self.decisions);
        out += &reuse(self.reuse.as_ref().map(ReuseResult::brief).as_ref());
        out += &peers::section(self.peers.as_ref());
        out.trim_end().to_owned() + "\n"
    }
}

/// What every reader must know before the first figure.
const METHOD: &str = "Nothing here is of hidden speakers. Intervals (in brackets) are 95 % by drawing speakers, not utterances, anew a thousand times; \
    where nothing went wrong the interval is a point and says less than it seems: with 0 of n, up to 3/n is likely. Confirmed numbers are \
    spliced of clips that an unrelated recogniser confirms and so easy by selection; clips are shared between a speaker's numbers. Labels of the \
    telephone corpus (hyke) are machine-made and wrong in about 1 % of the digits, so that of its 16-digit strings about 85 % can be read \
    \"exactly\"; a \"near miss\" accepted there may be what was really said. A near miss's ratio is taken against the best of the free reading, the number \
    said and all its neighbours, which is at most what the service's own search finds: what passes here is at least what passes there. Templates \
    are enrolled over the same codec without noise; enrolment and test share session and channel in the spliced lists, which flatters voice.\n\n";

/// Whatever the evaluation of reused audio tells: its plain figures.
fn reuse(value: Option<&Value>) -> String {
    let mut out = "## Reused audio\n\n".to_owned();
    let Some(value) = value else { return out + "Not measured in this run.\n\n" };
    let mut table = Table::new(&["", ""]);
    let mut rows = Vec::new();
    flat("", value, &mut rows);
    rows.iter().for_each(|(name, what)| table.row([name, what]));
    out += &table.text();
    out
}

/// Leaves of a JSON value by their path, objects only; lists are too long for a report.
fn flat(path: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter().filter(|(key, _)| *key != "conditions") {
                let path = if path.is_empty() { key.replace('_', " ") } else { format!("{path}, {}", key.replace('_', " ")) };
                flat(&path, inner, out);
            }
        }
        Value::Number(_) | Value::Bool(_) | Value::String(_) => {
            out.push((path.to_owned(), value.to_string().trim_matches('"').to_owned()))
        }
        Value::Array(_) | Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_nothing_says_so_in_every_part() {
        let nothing = Everything {
            date: "2026-01-01".to_owned(),
            about: vec![("split".to_owned(), "dev".to_owned())],
            took: vec![("numbers".to_owned(), 90), ("voices".to_owned(), 30)],
            voices: Vec::new(),
            numbers: Vec::new(),
            decisions: Vec::new(),
            reuse: None,
            peers: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let written = nothing.write(dir.path()).unwrap();
        assert_eq!(written, ["REPORT.md"]);
        let text = std::fs::read_to_string(dir.path().join("REPORT.md")).unwrap();
        assert!(text.contains("the run took 2.0 minutes: numbers 90 s, voices 30 s"), "{text}");
        assert!(text.contains("| confirmed numbers read exactly, clean | ≥ 99.5 % | – | not measured |"), "{text}");
        assert!(!text.contains("**no**"), "{text}");
        let told = reuse(Some(&serde_json::json!({ "missed": { "shifted": 0 }, "trials": [1, 2] })));
        assert!(told.contains("| missed, shifted | 0 |") && !told.contains("trials"), "{told}");
    }
}
