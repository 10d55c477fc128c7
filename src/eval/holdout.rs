//! Whom a model has heard in training. Such speakers are never in a headline: their figures stand apart, and a measurement of
//! nobody else is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::EvalError;
use super::data::Recipe;

/// The cards of the digit heads that this program was built with.
const SHIPPED: [&str; 2] = [include_str!("../../models/digits/base.json"), include_str!("../../models/digits/tiny.en.json")];

/// Collections, and speakers of collections, whose recordings trained a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainedOn {
    /// `source`, or `source/speaker`, as the data names them.
    never: BTreeSet<String>,
}

/// The part of a model's card that is of interest here.
#[derive(Deserialize)]
struct Card {
    never_score_on: Vec<String>,
}

impl TrainedOn {
    /// From a model's card: JSON with `never_score_on: ["source", "source/speaker", …]`. A card that doesn't say is refused: silence is
    /// no proof that nobody was heard.
    pub fn read(card: &Path) -> Result<Self, EvalError> {
        let complain = |what: String| EvalError::List { file: PathBuf::from(card), what };
        let text = std::fs::read_to_string(card).map_err(|e| complain(format!("can't be read: {e}")))?;
        Self::parse(&text).map_err(|e| complain(format!("doesn't say whom the model heard in training: {e}")))
    }

    /// Of the digit heads that this program was built with.
    pub fn shipped() -> Result<Self, EvalError> {
        let all: Result<Self, _> = SHIPPED.iter().map(|card| Self::parse(card)).sum();
        all.map_err(|e| EvalError::Conditions(format!("a shipped digit head's card doesn't say whom it heard: {e}")))
    }

    /// From the text of such a card.
    pub fn parse(card: &str) -> Result<Self, serde_json::Error> {
        let card: Card = serde_json::from_str(card)?;
        Ok(Self { never: card.never_score_on.into_iter().collect() })
    }

    /// Whether this speaker was heard.
    pub fn heard(&self, source: &str, speaker: &str) -> bool {
        self.never.contains(source) || self.never.contains(&format!("{source}/{speaker}"))
    }

    /// Splits a list into those never heard and those heard. A list of nobody new is refused.
    pub fn part(&self, list: &str, recipes: Vec<Recipe>) -> Result<(Vec<Recipe>, Vec<Recipe>), EvalError> {
        let (heard, new): (Vec<Recipe>, Vec<Recipe>) = recipes.into_iter().partition(|r| self.heard(&r.source, &r.speaker));
        if new.is_empty() {
            let what = format!("every speaker of {list} has trained the recogniser: figures of them alone would say nothing");
            return Err(EvalError::Conditions(what));
        }
        Ok((new, heard))
    }

    /// The collections or speakers, for reports.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.never.iter().map(String::as_str)
    }
}

impl std::iter::Sum for TrainedOn {
    /// Whom any of several models has heard.
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        Self { never: all.flat_map(|t| t.never).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::recording;
    use super::*;

    const CARD: &str = r#"{"sha256":"00","never_score_on":["fsdd_en","iitb_en/s09"]}"#;

    #[test]
    fn collections_and_single_speakers_of_the_training_are_known_again() {
        let t = TrainedOn::parse(CARD).unwrap();
        assert!(t.heard("fsdd_en", "george") && t.heard("iitb_en", "s09"));
        assert!(!t.heard("hyke_en", "george") && !t.heard("iitb_en", "s02"));
        assert_eq!(t.names().collect::<Vec<_>>(), ["fsdd_en", "iitb_en/s09"]);
    }

    #[test]
    fn a_list_is_parted_and_a_list_of_nobody_new_refused() {
        let t = TrainedOn::parse(CARD).unwrap();
        let of = |source: &str, who: &str| recording(&format!("dev/{source}/{who}/1.flac"), who, who);
        let (new, heard) = t.part("l", vec![of("fsdd_en", "george"), of("iitb_en", "s02")]).unwrap();
        assert_eq!((new.len(), heard.len()), (1, 1));
        let text = t.part("some.csv", vec![of("fsdd_en", "george")]).unwrap_err().to_string();
        assert!(text.contains("every speaker of some.csv has trained the recogniser"), "{text}");
    }

    #[test]
    fn a_card_that_does_not_say_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"sha256\":\"00\"}").unwrap();
        let text = TrainedOn::read(file.path()).unwrap_err().to_string();
        assert!(text.contains("doesn't say whom the model heard in training"), "{text}");
        assert!(TrainedOn::read(Path::new("nowhere.json")).unwrap_err().to_string().contains("can't be read"));
    }

    #[test]
    fn the_shipped_head_is_never_scored_on_the_spoken_digit_dataset() {
        assert!(TrainedOn::shipped().unwrap().heard("fsdd_en", "theo"));
    }
}
