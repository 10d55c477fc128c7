//! What makes a measurement or a calibration worthless, refused with the reason before anything is computed. Shared by `eval` and
//! `calibrate`.

use std::collections::BTreeSet;

use super::EvalError;
use super::data::{Material, Recipe};

/// Names shown of an overlap; the rest is counted.
const SHOWN: usize = 3;

/// A speaker of a collection; a name alone may stand in two.
pub type Who = (String, String);

/// Refuses a list without trials of both kinds: no error rate can be told from it.
pub fn both_kinds(list: &str, genuine: usize, impostor: usize) -> Result<(), EvalError> {
    let missing = match (genuine, impostor) {
        (0, 0) => "trials",
        (0, _) => "genuine trials",
        (_, 0) => "impostor trials",
        (_, _) => return Ok(()),
    };
    Err(EvalError::Conditions(format!("{list} holds no {missing}: no error rate can be told from it")))
}

/// Refuses two sets that share anything: trials of a calibration and of its test, speakers of a cohort and of a test, sounds of an
/// enrolment and of a trial. `what` is what they share, `one` and `other` are what the sets are, all in words.
pub fn apart<T: Ord + std::fmt::Debug>(
    what: &str,
    one: (&str, &BTreeSet<T>),
    other: (&str, &BTreeSet<T>),
    name: impl Fn(&T) -> String,
) -> Result<(), EvalError> {
    let both: Vec<String> = one.1.intersection(other.1).map(name).collect();
    if both.is_empty() {
        return Ok(());
    }
    let shown = both.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = if both.len() > SHOWN { format!(" and {} more", both.len() - SHOWN) } else { String::new() };
    let text = format!("{} and {} share {what}: {shown}{more}; what is measured so would flatter", one.0, other.0);
    Err(EvalError::Conditions(text))
}

/// Refuses recordings that a speaker is enrolled with and tested by.
pub fn enrolment_apart<'a>(
    enrolment: impl IntoIterator<Item = &'a Recipe>,
    test: impl IntoIterator<Item = &'a Recipe>,
) -> Result<(), EvalError> {
    apart("recordings", ("the enrolment", &sounds(enrolment)), ("the test", &sounds(test)), Clone::clone)
}

/// Refuses a cohort with a speaker who is also tested.
pub fn cohort_apart(cohort: &BTreeSet<Who>, test: &BTreeSet<Who>) -> Result<(), EvalError> {
    apart("speakers", ("the cohort", cohort), ("the test", test), |(source, who)| format!("{who} of {source}"))
}

/// Every sound file that utterances are made of.
pub fn sounds<'a>(recipes: impl IntoIterator<Item = &'a Recipe>) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for recipe in recipes {
        match &recipe.material {
            Material::Spliced { clips, .. } => out.extend(clips.iter().cloned()),
            Material::Recording(path) => {
                out.insert(path.clone());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::data::recording;
    use super::*;

    fn who(names: &[&str]) -> BTreeSet<Who> {
        names.iter().map(|n| ("s".to_owned(), (*n).to_owned())).collect()
    }

    #[test]
    fn lists_without_both_kinds_of_trials_are_refused_with_the_reason() {
        assert!(both_kinds("l", 1, 1).is_ok());
        for (g, i, text) in [(0, 0, "no trials"), (0, 5, "no genuine trials"), (5, 0, "no impostor trials")] {
            assert!(both_kinds("some.csv", g, i).unwrap_err().to_string().contains(text));
        }
    }

    #[test]
    fn a_speaker_in_cohort_and_test_is_named() {
        assert!(cohort_apart(&who(&["a", "b"]), &who(&["c"])).is_ok());
        let text = cohort_apart(&who(&["a", "b", "c", "d", "e"]), &who(&["b", "c", "d", "e"])).unwrap_err().to_string();
        assert!(text.contains("the cohort and the test share speakers: b of s, c of s, d of s and 1 more"), "{text}");
    }

    #[test]
    fn sounds_of_enrolment_and_test_are_held_apart() {
        let (a, b) = (recording("dev/s/a/1.flac", "a", "a"), recording("dev/s/a/2.flac", "a", "a"));
        assert!(enrolment_apart([&a], [&b]).is_ok());
        let text = enrolment_apart([&a, &b], [&b]).unwrap_err().to_string();
        assert!(text.contains("the enrolment and the test share recordings: dev/s/a/2.flac"), "{text}");
    }
}
