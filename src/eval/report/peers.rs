//! Other people's software on the same sounds in the same run: what `benches/peers.py` measured in turns with ours.

use serde::{Deserialize, Serialize};

use super::super::metrics::ratio;
use super::super::results::finite;
use super::table::{Table, per_cent_of};

/// One run of `benches/peers.py`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peers {
    /// The day.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// Of the peers' packages.
    pub versions: std::collections::BTreeMap<String, String>,
    /// Readers of numbers by condition.
    pub recognition: Vec<Recognition>,
    /// Embedders.
    pub voices: Voices,
}

/// Where it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The processor.
    pub cpu: String,
    /// Cores.
    pub cores: usize,
    /// Load average when it began.
    pub load_before: String,
    /// Load average when it ended.
    pub load_after: String,
}

/// One condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recognition {
    /// In words.
    pub condition: String,
    /// How many speakers, none of whom trained our recogniser.
    pub speakers: usize,
    /// Ours among them.
    pub readers: Vec<Reader>,
}

/// What reads numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// How many it read.
    pub utterances: usize,
    /// All digits right.
    pub exact: usize,
    /// Wrong digits, by edit distance.
    pub edits: usize,
    /// Digits said.
    pub digits: usize,
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
}

/// Embedders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Voices {
    /// Ours among them.
    pub speed: Vec<Speed>,
    /// Error rates of the peers.
    pub peers: Vec<Embedder>,
}

/// How long an embedding takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Speed {
    /// Whose.
    pub name: String,
    /// Median, in milliseconds a second of speech.
    pub p50_ms_per_s: f64,
    /// 95th percentile.
    pub p95_ms_per_s: f64,
    /// How many were timed.
    pub utterances: usize,
}

/// What tells voices apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Embedder {
    /// Its name.
    pub name: String,
    /// By condition.
    pub figures: Vec<EmbedderFigures>,
}

/// Under one condition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EmbedderFigures {
    /// In words.
    pub condition: String,
    /// Minus the mean of everybody else's enrolment.
    pub centred: bool,
    /// Equal error rate, all within-source pairs.
    pub eer: f64,
    /// Trials of one speaker.
    pub genuine: usize,
    /// Trials of two.
    pub impostor: usize,
}

/// Our name among the readers.
const OURS: &str = "voicepay";

/// The section.
pub fn section(peers: Option<&Peers>) -> String {
    let mut out = "## Peers, on the same sounds in turns in one run, one thread each\n\n".to_owned();
    let Some(p) = peers else { return out + "Not measured in this run.\n\n" };
    let versions: Vec<String> = p.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    out += &format!(
        "{}, {}, {} cores, load average {} before and {} after; {}. faster-whisper: int8, beam 5.\n\n",
        p.date,
        p.machine.cpu,
        p.machine.cores,
        p.machine.load_before,
        p.machine.load_after,
        versions.join(", ")
    );
    let mut table = Table::new(&["reading card numbers", "", "exact", "digit errors", "p50 ms", "p95 ms", "ours / theirs, p50"]);
    for r in &p.recognition {
        let ours = r.readers.iter().find(|x| x.name == OURS).map_or(f64::NAN, |x| x.p50_ms);
        for x in &r.readers {
            table.row([
                format!("{}, {} speakers", r.condition, r.speakers),
                x.name.clone(),
                format!("{} of {}", x.exact, x.utterances),
                per_cent_of(finite(ratio(x.edits, x.digits))),
                format!("{:.0}", x.p50_ms),
                format!("{:.0}", x.p95_ms),
                if x.name == OURS { "–".to_owned() } else { format!("{:.2}", ours / x.p50_ms) },
            ]);
        }
    }
    out += &table.text();
    let ours = p.voices.speed.iter().find(|s| s.name == OURS).map_or(f64::NAN, |s| s.p50_ms_per_s);
    let mut table = Table::new(&["embedding a voice", "ms a second of speech, p50", "p95", "ours / theirs, p50"]);
    for s in &p.voices.speed {
        let against = if s.name == OURS { "–".to_owned() } else { format!("{:.2}", ours / s.p50_ms_per_s) };
        table.row([s.name.clone(), format!("{:.1}", s.p50_ms_per_s), format!("{:.1}", s.p95_ms_per_s), against]);
    }
    out += &table.text();
    let mut table = Table::new(&["telling voices apart", "", "mean taken off", "EER", "genuine / impostor trials"]);
    for e in &p.voices.peers {
        for f in &e.figures {
            let mean = if f.centred { "of everybody else" } else { "none" };
            let trials = format!("{} / {}", f.genuine, f.impostor);
            table.row([f.condition.clone(), e.name.clone(), mean.to_owned(), per_cent_of(finite(f.eer)), trials]);
        }
    }
    out + &table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_set_against_each_peer() {
        let reader = |name: &str, p50_ms| Reader {
            name: name.to_owned(),
            utterances: 100,
            exact: 76,
            edits: 26,
            digits: 1600,
            p50_ms,
            p95_ms: 900.0,
        };
        let peers = Peers {
            date: "2026-01-01".to_owned(),
            machine: Machine { cpu: "c".to_owned(), cores: 2, load_before: "0.1".to_owned(), load_after: "1.0".to_owned() },
            versions: [("faster-whisper".to_owned(), "1.2.1".to_owned())].into(),
            recognition: vec![Recognition {
                condition: "clean".to_owned(),
                speakers: 23,
                readers: vec![reader(OURS, 100.0), reader("faster-whisper tiny.en", 400.0)],
            }],
            voices: Voices { speed: vec![], peers: vec![] },
        };
        let text = section(Some(&peers));
        assert!(
            text.contains("| clean, 23 speakers | faster-whisper tiny.en | 76 of 100 | 1.62 % | 400 | 900 | 0.25 |"),
            "{text}"
        );
        assert!(section(None).contains("Not measured"));
    }
}
