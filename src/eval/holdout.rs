//! Whom a model has heard in training. Such speakers are never in a headline: their figures stand apart, and a measurement of
//! nobody else is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::EvalError;
use super::data::Recipe;

/// Speakers of recordings that trained a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainedOn {
    /// Collection and speaker, as the model's card names them.
    who: BTreeSet<(String, String)>,
}

/// The part of a model's card that is of interest here.
#[derive(Deserialize)]
struct Card {
    trained_on: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    name: String,
    #[serde(default)]
    speakers: Vec<String>,
}

impl TrainedOn {
    /// From a model's card: JSON with `trained_on: [{ name, speakers: […] }]`. A card that doesn't say is refused: silence is no
    /// proof that nobody was heard.
    pub fn read(card: &Path) -> Result<Self, EvalError> {
        let complain = |what: String| EvalError::List { file: PathBuf::from(card), what };
        let text = std::fs::read_to_string(card).map_err(|e| complain(format!("can't be read: {e}")))?;
        Self::parse(&text).map_err(|e| complain(format!("doesn't say whom the model heard in training: {e}")))
    }

    /// Of the digit head that this program was built with.
    pub fn shipped() -> Result<Self, EvalError> {
        let card = crate::speech::HEAD_CARD;
        Self::parse(card).map_err(|e| EvalError::Conditions(format!("the shipped digit head's card can't be read: {e}")))
    }

    /// From the text of such a card.
    pub fn parse(card: &str) -> Result<Self, serde_json::Error> {
        let card: Card = serde_json::from_str(card)?;
        let pairs = card.trained_on.into_iter().flat_map(|s| {
            let name = stem(&s.name).to_owned();
            s.speakers.into_iter().map(move |who| (name.clone(), who))
        });
        Ok(Self { who: pairs.collect() })
    }

    /// Whether this speaker was heard. Collections are compared by their stem: `fsdd`, `FSDD` and `fsdd_en` are one.
    pub fn heard(&self, source: &str, speaker: &str) -> bool {
        let source = stem(source).to_lowercase();
        self.who.iter().any(|(name, who)| name.to_lowercase() == source && who.eq_ignore_ascii_case(speaker))
    }

    /// Splits a list into those never heard and those heard. A list of nobody new is refused.
    pub fn part(&self, list: &str, recipes: Vec<Recipe>) -> Result<(Vec<Recipe>, Vec<Recipe>), EvalError> {
        let (heard, new): (Vec<Recipe>, Vec<Recipe>) = recipes.into_iter().partition(|r| self.heard(&r.source, &r.speaker));
        if new.is_empty() {
            let what = format!("every speaker of {list} has trained the model: figures of them alone would say nothing");
            return Err(EvalError::Conditions(what));
        }
        Ok((new, heard))
    }

    /// The collections, for reports.
    pub fn collections(&self) -> BTreeSet<&str> {
        self.who.iter().map(|(name, _)| name.as_str()).collect()
    }
}

fn stem(source: &str) -> &str {
    source.split(['_', '-', ' ']).next().unwrap_or(source)
}

#[cfg(test)]
mod tests {
    use super::super::data::recording;
    use super::*;

    const CARD: &str = r#"{"sha256":"00","trained_on":[{"name":"FSDD","speakers":["george","Theo"]},{"name":"kokoro"}]}"#;

    #[test]
    fn speakers_of_the_training_are_known_again_under_the_datas_names() {
        let t = TrainedOn::parse(CARD).unwrap();
        assert!(t.heard("fsdd_en", "george") && t.heard("fsdd", "theo"));
        assert!(!t.heard("fsdd_en", "lucas") && !t.heard("iitb_en", "george"));
        assert_eq!(t.collections().into_iter().collect::<Vec<_>>(), ["FSDD"]);
    }

    #[test]
    fn a_list_is_parted_and_a_list_of_nobody_new_refused() {
        let t = TrainedOn::parse(CARD).unwrap();
        let of = |source: &str, who: &str| recording(&format!("dev/{source}/{who}/1.flac"), who, who);
        let (new, heard) = t.part("l", vec![of("fsdd_en", "george"), of("iitb_en", "s02")]).unwrap();
        assert_eq!((new.len(), heard.len()), (1, 1));
        let text = t.part("some.csv", vec![of("fsdd_en", "george")]).unwrap_err().to_string();
        assert!(text.contains("every speaker of some.csv has trained the model"), "{text}");
    }

    #[test]
    fn a_card_that_does_not_say_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"sha256\":\"00\"}").unwrap();
        let text = TrainedOn::read(file.path()).unwrap_err().to_string();
        assert!(text.contains("doesn't say whom the model heard in training"), "{text}");
        assert!(TrainedOn::read(Path::new("nowhere.json")).unwrap_err().to_string().contains("can't be read"));
    }
}
