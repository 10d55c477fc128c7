//! Yes, no, cancel from free English text. Money hangs on a yes, so it must be plain: every word of it is known and nothing speaks
//! against it. A no needs less, as it only asks again or ends; whatever is not plain is unclear.

use crate::decision::Answer;

/// Any of these says yes.
const YES: &[&str] = &[
    "yes",
    "yeah",
    "yep",
    "yup",
    "yah",
    "ya",
    "sure",
    "ok",
    "okay",
    "correct",
    "right",
    "confirm",
    "confirmed",
    "agree",
    "agreed",
    "absolutely",
    "definitely",
    "certainly",
    "affirmative",
    "approve",
    "approved",
];
/// Any of these says no.
const NO: &[&str] = &["no", "nope", "nah", "never", "negative", "don't", "dont", "won't", "refuse", "decline"];
/// Any of these ends the payment.
const CANCEL: &[&str] = &["cancel", "cancelled", "canceled", "stop", "abort", "quit"];
/// Of these a yes is never plain: they turn it round, put it off or make it depend.
const DOUBT: &[&str] = &[
    "not", "wait", "hold", "but", "if", "maybe", "perhaps", "actually", "sorry", "think", "guess", "unless", "later", "isn't",
    "isnt", "doesn't", "can't", "cannot", "what", "why", "who", "how", "when", "say", "said",
];
/// Words that change nothing.
const FILLER: &[&str] = &[
    "please", "uh", "um", "er", "ah", "oh", "hm", "hmm", "mm", "well", "so", "and", "i", "i'm", "am", "do", "it", "it's", "that",
    "that's", "thats", "is", "the", "this", "to", "pay", "charge", "go", "ahead", "now", "thanks", "thank", "you", "of",
    "course", "payment", "card", "my", "sir", "madam", "ma'am", "very", "much", "a", "that'll", "would", "like", "all", "good",
    "fine",
];
/// Two words that say yes together.
const YES_PAIRS: &[(&str, &str)] =
    &[("go", "ahead"), ("of", "course"), ("do", "it"), ("pay", "it"), ("i", "do"), ("please", "do")];
/// Two words that say no together.
const NO_PAIRS: &[(&str, &str)] = &[("do", "not"), ("not", "now"), ("would", "not")];
/// Two words that end the payment together.
const CANCEL_PAIRS: &[(&str, &str)] = &[("never", "mind"), ("forget", "it"), ("hang", "up")];
/// A longer answer is a story.
const WORDS_MAX: usize = 10;

/// What the text means.
pub fn answer_in(text: &str) -> Answer {
    let lower = text.to_lowercase().replace('’', "'").replace("uh-huh", "yes").replace("mm-hmm", "yes");
    let words: Vec<&str> = lower
        .split(|c: char| !(c.is_alphanumeric() || c == '\''))
        .map(|w| w.trim_matches('\''))
        .filter(|w| !w.is_empty())
        .collect();
    if words.len() > WORDS_MAX {
        return Answer::Unclear;
    }
    let any = |list: &[&str]| words.iter().any(|w| list.contains(w));
    let pair = |list: &[(&str, &str)]| words.windows(2).any(|w| matches!(w, [a, b] if list.contains(&(*a, *b))));
    let (yes, doubt) = (any(YES) || pair(YES_PAIRS), any(DOUBT));
    let cancel = any(CANCEL) || pair(CANCEL_PAIRS);
    // "never mind" is no "never"; "do not" is no doubt when nothing says yes
    let no = any(NO) && !pair(CANCEL_PAIRS) || pair(NO_PAIRS);
    let plain = words.iter().all(|w| YES.contains(w) || FILLER.contains(w));
    match (yes, no, cancel) {
        (true, false, false) if plain && !doubt => Answer::Yes,
        (false, true, false) => Answer::No,
        (false, false, true) if !doubt => Answer::Cancel,
        (false, true, true) if !any(&["don't", "dont", "not", "won't", "never"]) => Answer::Cancel,
        _ => Answer::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_people_mean() {
        for (text, meaning) in [
            (" Yes.", Answer::Yes),
            ("Yes!", Answer::Yes),
            (" Yeah, sure.", Answer::Yes),
            ("yep", Answer::Yes),
            ("Yes, please.", Answer::Yes),
            ("Yes, go ahead and pay.", Answer::Yes),
            ("Go ahead.", Answer::Yes),
            ("That's right.", Answer::Yes),
            ("I agree.", Answer::Yes),
            ("Yes, yes, yes.", Answer::Yes),
            ("Uh-huh.", Answer::Yes),
            ("OK.", Answer::Yes),
            (" No.", Answer::No),
            ("Nope.", Answer::No),
            ("No, thank you.", Answer::No),
            ("No, I don't want that", Answer::No),
            ("Please don’t.", Answer::No),
            ("Do not pay", Answer::No),
            ("Cancel.", Answer::Cancel),
            ("Please cancel the payment", Answer::Cancel),
            ("Stop!", Answer::Cancel),
            ("No, cancel it", Answer::Cancel),
            ("Never mind.", Answer::Cancel),
            ("Forget it", Answer::Cancel),
        ] {
            assert_eq!(answer_in(text), meaning, "{text}");
        }
    }

    #[test]
    fn what_is_not_plain_is_unclear() {
        for text in [
            "",
            " .",
            "you",
            "Thank you.",
            "not yes",
            "Yes, no wait",
            "Yes. No.",
            "No... yes",
            "Yes, but not now",
            "yes if it is ten dollars",
            "I said yes",
            "don't cancel",
            "Not cancel",
            "yes, cancel",
            "No problem, go ahead",
            "wait",
            "what?",
            "Yesterday",
            "I know",
            "Right after you stop",
            "I guess so, yes",
            "Yes I would like to speak to a human being about this charge please",
            "[BLANK_AUDIO]",
            "(music)",
            "Is it right?  Who is this",
            "yes sir ee bob banana",
        ] {
            assert_eq!(answer_in(text), Answer::Unclear, "{text}");
        }
    }
}
