//! What is known of speakers besides their voices: language and gender, from `SPLIT/manifest.csv` as far as it tells.

use std::collections::BTreeMap;

use super::EvalError;
use super::data::{Split, Table};

/// Said where the data doesn't tell.
const UNKNOWN: &str = "unknown";

/// Language and gender by source and speaker.
#[derive(Clone, Debug, Default)]
pub struct People {
    known: BTreeMap<(String, String), Facts>,
}

#[derive(Clone, Debug, Default)]
struct Facts {
    language: String,
    gender: Option<&'static str>,
}

impl People {
    /// From the split's manifest (columns source, speaker, language, note); nobody is known where there is none.
    pub fn of(split: &Split) -> Result<Self, EvalError> {
        let file = split.root.join(&split.name).join("manifest.csv");
        if !file.is_file() {
            return Ok(Self::default());
        }
        let mut known = BTreeMap::<(String, String), Facts>::new();
        for row in Table::read(&file)?.rows() {
            let who = (row.get("source")?.to_owned(), row.get("speaker")?.to_owned());
            let gender = gender(row.get("note")?, &who.1);
            let facts = known.entry(who).or_default();
            facts.language = row.get("language")?.to_owned();
            facts.gender = facts.gender.or(gender);
        }
        Ok(Self { known })
    }

    /// A language code, or "unknown".
    pub fn language(&self, source: &str, speaker: &str) -> String {
        let facts = self.facts(source, speaker).map(|f| f.language.as_str()).filter(|l| !l.is_empty());
        facts.unwrap_or(UNKNOWN).to_owned()
    }

    /// "female", "male" or "unknown".
    pub fn gender(&self, source: &str, speaker: &str) -> String {
        self.facts(source, speaker).and_then(|f| f.gender).unwrap_or(UNKNOWN).to_owned()
    }

    fn facts(&self, source: &str, speaker: &str) -> Option<&Facts> {
        self.known.get(&(source.to_owned(), speaker.to_owned()))
    }
}

/// From a note `gender=F`, else from a speaker's name that begins with `F_` or `M_` (a telephone corpus's way).
fn gender(note: &str, speaker: &str) -> Option<&'static str> {
    let letter = note.split([' ', ';', ',']).find_map(|w| w.strip_prefix("gender="));
    match letter.or_else(|| speaker.split_once('_').map(|(first, _)| first)) {
        Some("F" | "f" | "female") => Some("female"),
        Some("M" | "m" | "male") => Some("male"),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_and_gender_come_from_the_manifest_or_are_unknown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("dev/trials")).unwrap();
        let text = "path,source,speaker,language,note\na,az,a01,az,gender=F\nb,line,M_12,en,\nc,iitb,s02,en,\n";
        std::fs::write(dir.path().join("dev/manifest.csv"), text).unwrap();
        let people = People::of(&Split::open(dir.path(), "dev").unwrap()).unwrap();
        assert_eq!((people.language("az", "a01"), people.gender("az", "a01")), ("az".to_owned(), "female".to_owned()));
        assert_eq!(people.gender("line", "M_12"), "male");
        assert_eq!((people.gender("iitb", "s02"), people.language("x", "y")), ("unknown".to_owned(), "unknown".to_owned()));
    }
}
