//! Yes, no, cancel from free English or Mandarin text. Money hangs on a yes, so it must be plain: every word of it is known and nothing speaks
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

/// What a Mandarin word does in an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Yes,
    No,
    Cancel,
    Doubt,
    Nothing,
}

/// Mandarin words, in simplified and traditional characters. The longest that fits is taken, so 不是 is no 是.
const MANDARIN: &[(Does, &[&str])] = &[
    (
        Does::Yes,
        &[
            "是",
            "是的",
            "好",
            "好的",
            "好吧",
            "确认",
            "確認",
            "确定",
            "確定",
            "对",
            "對",
            "对的",
            "對的",
            "可以",
            "行",
            "没问题",
            "沒問題",
            "同意",
            "没错",
            "沒錯",
            "当然",
            "當然",
        ],
    ),
    (
        Does::No,
        &[
            "不",
            "不是",
            "不要",
            "不行",
            "不对",
            "不對",
            "不可以",
            "不用",
            "不好",
            "不同意",
            "不确认",
            "不確認",
            "不付",
            "没有",
            "沒有",
            "否",
            "别",
            "別",
            "拒绝",
            "拒絕",
            "不想",
            "不是的",
            "错了",
            "錯了",
        ],
    ),
    (Does::Cancel, &["取消", "停止", "停", "算了", "不付了", "不要了", "放弃", "放棄", "挂断", "掛斷"]),
    (
        Does::Doubt,
        &[
            "吗",
            "嗎",
            "等",
            "等等",
            "等一下",
            "什么",
            "什麼",
            "但是",
            "可是",
            "如果",
            "也许",
            "也許",
            "可能",
            "为什么",
            "為什麼",
            "谁",
            "誰",
            "怎么",
            "怎麼",
            "以后",
            "以後",
            "还是",
            "還是",
            "是不是",
            "好不好",
            "对不对",
            "對不對",
            "行不行",
            "可不可以",
        ],
    ),
    (
        Does::Nothing,
        &[
            "的", "了", "啊", "呀", "吧", "嗯", "哦", "呢", "请", "請", "我", "谢谢", "謝謝", "付", "付款", "支付", "付吧",
            "这个", "這個", "那", "就", "你好", "您", "你",
        ],
    ),
];

/// What a Mandarin text means: as strict as the English way.
fn answer_in_mandarin(text: &str) -> Answer {
    let text: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    let mut rest = text.as_str();
    let mut said: Vec<Does> = Vec::new();
    while let Some(first) = rest.chars().next() {
        let fits = |(does, words): &(Does, &[&'static str])| {
            words.iter().filter(|w| rest.starts_with(**w)).map(|w| (w.len(), *does)).max_by_key(|(n, _)| *n)
        };
        let (taken, does) = MANDARIN.iter().filter_map(fits).max_by_key(|(n, _)| *n).unwrap_or((first.len_utf8(), Does::Doubt));
        said.push(does);
        rest = rest.get(taken..).unwrap_or_default();
    }
    if said.len() > WORDS_MAX {
        return Answer::Unclear;
    }
    let any = |does| said.contains(&does);
    match (any(Does::Yes), any(Does::No), any(Does::Cancel)) {
        (true, false, false) if !any(Does::Doubt) => Answer::Yes,
        (false, true, false) => Answer::No,
        (false, false, true) if !any(Does::Doubt) => Answer::Cancel,
        _ => Answer::Unclear,
    }
}

/// What the text means, in either language: no Mandarin answer holds an English word.
pub fn answer_in(text: &str) -> Answer {
    if text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)) {
        return answer_in_mandarin(text);
    }
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
    fn mandarin_answers_mean_what_people_mean() {
        for (text, meaning) in [
            ("是。", Answer::Yes),
            ("是的", Answer::Yes),
            ("好的,谢谢", Answer::Yes),
            ("确认", Answer::Yes),
            ("確認付款", Answer::Yes),
            ("对 对 对", Answer::Yes),
            ("没问题", Answer::Yes),
            ("不", Answer::No),
            ("不是", Answer::No),
            ("不要。", Answer::No),
            ("不确认", Answer::No),
            ("不對", Answer::No),
            ("取消", Answer::Cancel),
            ("请取消付款", Answer::Cancel),
            ("算了", Answer::Cancel),
            ("不付了", Answer::Cancel),
            ("不取消", Answer::Unclear),
            ("是不是", Answer::Unclear),
            ("是吗", Answer::Unclear),
            ("好的等一下", Answer::Unclear),
            ("是的,不对", Answer::Unclear),
            ("好像是", Answer::Unclear),
            ("行人", Answer::Unclear),
            ("什么", Answer::Unclear),
            ("yes 是", Answer::Unclear),
            ("字幕由某某提供", Answer::Unclear),
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
