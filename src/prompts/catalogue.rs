//! The catalogue of texts: which phrase has which wording, and which recordings it is made of.
//!
//! `scripts/render-prompts.py` cuts phrases into recorded fragments by the same rule as [`cut`]; the two must not drift
//! (a test here holds every clip to its recording).

use std::collections::BTreeMap;

use crate::language::Language;

/// The catalogues, compiled in.
const ENGLISH: &str = include_str!("../../prompts/en.toml");
const MANDARIN: &str = include_str!("../../prompts/zh.toml");

/// What can stand in a phrase's braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `{payee}`
    Payee,
    /// `{amount}`
    Amount,
    /// `{date}`
    Date,
    /// `{last4}`: of the card, the only digits of it that are ever said.
    Last4,
    /// `{reference}`: of the payment.
    Reference,
    /// `{digits}`: to be said after us.
    Digits,
}

impl Slot {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "payee" => Self::Payee,
            "amount" => Self::Amount,
            "date" => Self::Date,
            "last4" => Self::Last4,
            "reference" => Self::Reference,
            "digits" => Self::Digits,
            _ => return None,
        })
    }
}

/// A stretch of a phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Recorded wording: `clip` names the recording; `text` is as written, with its spaces and stops.
    Wording { clip: Option<String>, text: String },
    /// Filled in at the time of the call.
    Filled(Slot),
}

/// All wording.
#[derive(Clone, Debug)]
pub struct Catalogue {
    phrases: BTreeMap<String, Vec<Part>>,
    clips: BTreeMap<String, String>,
}

/// What is wrong with a catalogue.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CatalogueError {
    /// Not TOML.
    #[error("the prompt catalogue is not TOML: {0}")]
    Toml(String),
    /// A value that should be a text.
    #[error("prompt catalogue: `{0}` is not a text")]
    NotText(String),
    /// An unknown or unclosed placeholder.
    #[error("prompt catalogue: `{id}` has a bad placeholder at `{at}`")]
    Placeholder { id: String, at: String },
    /// Two recordings of one name.
    #[error("prompt catalogue: `{0}` is there twice")]
    Twice(String),
}

impl Catalogue {
    /// The one of a language.
    pub fn of(language: Language) -> Result<Self, CatalogueError> {
        match language {
            Language::English => Self::english(),
            Language::Mandarin => Self::mandarin(),
        }
    }

    /// The English one.
    pub fn english() -> Result<Self, CatalogueError> {
        Self::parse(ENGLISH)
    }

    /// The Mandarin one.
    pub fn mandarin() -> Result<Self, CatalogueError> {
        Self::parse(MANDARIN)
    }

    /// Reads a catalogue.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| CatalogueError::Toml(e.to_string()))?;
        let (mut phrases, mut clips) = (BTreeMap::new(), BTreeMap::new());
        let mut add_clip = |id: &str, text: &str| match clips.insert(id.to_owned(), text.to_owned()) {
            None => Ok(()),
            Some(_) => Err(CatalogueError::Twice(id.to_owned())),
        };
        for (id, wording) in texts_under(&table, "phrases")? {
            let parts = cut(&id, &wording)?;
            for part in &parts {
                if let Part::Wording { clip: Some(clip), text } = part {
                    add_clip(clip, text)?;
                }
            }
            phrases.insert(id, parts);
        }
        for (id, wording) in texts_under(&table, "pieces")? {
            add_clip(&id, &wording)?;
        }
        Ok(Self { phrases, clips })
    }

    /// The parts of a phrase.
    pub fn phrase(&self, id: &str) -> Option<&[Part]> {
        self.phrases.get(id).map(Vec::as_slice)
    }

    /// The words of a recording.
    pub fn clip_text(&self, clip: &str) -> Option<&str> {
        self.clips.get(clip).map(String::as_str)
    }

    /// Every phrase.
    pub fn phrases(&self) -> impl Iterator<Item = &str> {
        self.phrases.keys().map(String::as_str)
    }

    /// Every recording that there has to be.
    pub fn clips(&self) -> impl Iterator<Item = &str> {
        self.clips.keys().map(String::as_str)
    }
}

/// All texts below a section, named by their path in it: `ask_card.first`.
fn texts_under(table: &toml::Table, section: &str) -> Result<Vec<(String, String)>, CatalogueError> {
    fn walk(value: &toml::Value, path: &str, out: &mut Vec<(String, String)>) -> Result<(), CatalogueError> {
        match value {
            toml::Value::String(text) => out.push((path.to_owned(), text.clone())),
            toml::Value::Table(table) => {
                for (key, inner) in table {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(inner, &path, out)?;
                }
            }
            toml::Value::Integer(_)
            | toml::Value::Float(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_) => return Err(CatalogueError::NotText(path.to_owned())),
        }
        Ok(())
    }
    let mut out = Vec::new();
    match table.get(section) {
        Some(value) => walk(value, "", &mut out)?,
        None => return Err(CatalogueError::NotText(section.to_owned())),
    }
    Ok(out)
}

/// Cuts a wording at its placeholders. A phrase without any is one recording called like the phrase; else the stretches
/// that hold a letter are `ID.0`, `ID.1` …; stretches of mere stops and spaces are not recorded.
fn cut(id: &str, wording: &str) -> Result<Vec<Part>, CatalogueError> {
    if !wording.contains('{') {
        return Ok(vec![Part::Wording { clip: Some(id.to_owned()), text: wording.to_owned() }]);
    }
    let bad = |at: &str| CatalogueError::Placeholder { id: id.to_owned(), at: at.chars().take(20).collect() };
    let mut parts = Vec::new();
    let mut recorded = 0_usize;
    let mut rest = wording;
    let mut add_wording = |parts: &mut Vec<Part>, text: &str| {
        if text.is_empty() {
            return;
        }
        let clip = text.contains(char::is_alphabetic).then(|| format!("{id}.{recorded}"));
        recorded += usize::from(clip.is_some());
        parts.push(Part::Wording { clip, text: text.to_owned() });
    };
    while let Some((before, after)) = rest.split_once('{') {
        add_wording(&mut parts, before);
        let (name, behind) = after.split_once('}').ok_or_else(|| bad(after))?;
        parts.push(Part::Filled(Slot::from_name(name).ok_or_else(|| bad(name))?));
        rest = behind;
    }
    add_wording(&mut parts, rest);
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_cut_at_its_placeholders() {
        let c = Catalogue::parse("[phrases.a]\nb = \"Pay {amount}, to {payee}. Now.\"\n[pieces]\nx = \"ex\"").unwrap();
        let clips: Vec<_> = c.clips().map(|id| (id, c.clip_text(id).unwrap())).collect();
        assert_eq!(clips, [("a.b.0", "Pay "), ("a.b.1", ", to "), ("a.b.2", ". Now."), ("x", "ex")]);
        assert_eq!(c.phrase("a.b").unwrap().len(), 5);
    }

    #[test]
    fn mere_stops_between_placeholders_are_not_recorded() {
        let c = Catalogue::parse("[phrases]\na = \"{amount}, {date}.\"\n[pieces]\n").unwrap();
        assert_eq!(c.clips().count(), 0);
        assert_eq!(c.phrase("a").unwrap().len(), 4);
    }

    #[test]
    fn a_bad_catalogue_names_the_culprit() {
        let parse = |t: &str| Catalogue::parse(t).unwrap_err();
        assert!(matches!(parse("[phrases]\na = \"{pan}\"\n[pieces]"), CatalogueError::Placeholder { id, .. } if id == "a"));
        assert!(matches!(parse("[phrases]\na = \"{amount\"\n[pieces]"), CatalogueError::Placeholder { .. }));
        assert_eq!(parse("[phrases]\na = 1\n[pieces]"), CatalogueError::NotText("a".into()));
        assert_eq!(parse("[phrases]\na = \"b\"\n[pieces]\na = \"c\""), CatalogueError::Twice("a".into()));
        assert!(matches!(parse("[phrases"), CatalogueError::Toml(_)));
    }

    #[test]
    fn no_wording_tells_which_factor_failed() {
        let advice = ["too_short", "too_quiet", "too_loud", "too_noisy", "two_voices", "late"].map(|id| format!("again.{id}"));
        let silent = ["refused", "locked_out", "again.no_match.second", "again.no_match.third"].map(str::to_owned);
        for language in Language::ALL {
            let c = Catalogue::of(language).unwrap();
            for id in silent.iter().chain(&advice) {
                let text = c.clip_text(id).unwrap().to_lowercase();
                for tell in
                    ["number did", "wrong", "your voice", "card", "did not match", "mismatch", "您的声音不", "卡号", "不符", "错"]
                {
                    assert!(!text.contains(tell), "{id} says `{tell}`");
                }
            }
        }
    }

    #[test]
    fn every_language_has_the_same_phrases_with_the_same_slots() {
        let (en, zh) = (Catalogue::english().unwrap(), Catalogue::mandarin().unwrap());
        assert!(en.phrases().eq(zh.phrases()));
        let slots = |c: &Catalogue, id: &str| {
            let mut slots: Vec<_> = c
                .phrase(id)
                .unwrap()
                .iter()
                .filter_map(|p| match p {
                    Part::Filled(slot) => Some(format!("{slot:?}")),
                    Part::Wording { .. } => None,
                })
                .collect();
            slots.sort_unstable(); // another language, another order
            slots
        };
        for id in en.phrases() {
            assert_eq!(slots(&en, id), slots(&zh, id), "{id}");
        }
    }
}
