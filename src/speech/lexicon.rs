//! The tokens of a digit head as words, what a string of them says, and every way in which a number can be said with them.
//!
//! Both directions agree: the graph of a number's ways holds exactly the token strings of which [`Lexicon::readings`] has the number
//! (but for a digit taken back more than once at one place, which nobody can tell from stammering). Where people say one thing for
//! two numbers ("forty-one hundred fifty-five": 4100 55, 41 55), it is a way of both, so that neither can be told from the other.

use zeroize::{Zeroize, Zeroizing};

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// CTC's blank.
    Blank,
    /// "seven": the digit.
    Digit(u8),
    /// "double", "triple": that many of the digit behind it.
    Times(u8),
    /// "ten" to "nineteen": a one and this.
    Teen(u8),
    /// "twenty" to "ninety": this and the digit behind it, or a zero.
    Tens(u8),
    /// "hundred": two zeros, or the two digits of the teens or tens behind it.
    Hundred,
    /// "no": the word before was wrong.
    No,
}

/// The vocabulary.
#[derive(Clone, Debug)]
pub struct Lexicon {
    words: Vec<Word>,
    digits: [u8; 10],
}

/// One token that leads from one place in a number to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arc {
    /// Place before.
    pub from: usize,
    /// Place behind.
    pub to: usize,
    /// Token.
    pub token: u8,
}

/// Ways of saying a number: from place 0 to any of `ends`; no two ways are the same tokens. Wiped on drop, hidden in `Debug`.
pub struct Ways {
    /// How many places there are.
    pub places: usize,
    /// In no order.
    pub arcs: Vec<Arc>,
    /// Where the number is said.
    pub ends: Vec<usize>,
}

impl Drop for Ways {
    fn drop(&mut self) {
        self.arcs.iter_mut().for_each(|arc| arc.token.zeroize());
    }
}

impl std::fmt::Debug for Ways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ways(…)")
    }
}

fn word_of(text: &str) -> Option<Word> {
    const TEENS: [&str; 10] =
        ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"];
    const TENS: [&str; 8] = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    let place = |list: &[&str]| list.iter().position(|w| *w == text).and_then(|i| u8::try_from(i).ok());
    match text {
        "blank" => Some(Word::Blank),
        "double" => Some(Word::Times(2)),
        "triple" => Some(Word::Times(3)),
        "hundred" => Some(Word::Hundred),
        "no" => Some(Word::No),
        _ => match text.as_bytes() {
            [d @ b'0'..=b'9'] => Some(Word::Digit(d - b'0')),
            _ => place(&TEENS).map(Word::Teen).or_else(|| place(&TENS).map(|t| Word::Tens(t + 2))),
        },
    }
}

impl Lexicon {
    /// From a head's vocabulary: the blank first, every digit once, and other words that are known here.
    pub fn new(vocabulary: &[String]) -> Result<Self, String> {
        let words: Vec<Word> = vocabulary
            .iter()
            .map(|text| word_of(text).ok_or_else(|| format!("nobody knows what its token \"{text}\" says")))
            .collect::<Result<_, _>>()?;
        if words.first() != Some(&Word::Blank) || words.len() > 100 {
            return Err("its first token is not the blank".to_owned());
        }
        for (i, word) in words.iter().enumerate() {
            if words.iter().skip(i + 1).any(|w| w == word) {
                return Err("two of its tokens say the same".to_owned());
            }
        }
        let mut digits = [0u8; 10];
        for (d, token) in (0u8..).zip(&mut digits) {
            let at = words.iter().position(|w| *w == Word::Digit(d)).and_then(|i| u8::try_from(i).ok());
            *token = at.ok_or_else(|| format!("it has no token for {d}"))?;
        }
        Ok(Self { words, digits })
    }

    /// How many tokens.
    pub fn tokens(&self) -> usize {
        self.words.len()
    }

    /// Whether each token string says one digit a token, so that strings of tokens and of digits are the same thing.
    pub fn is_plain(&self) -> bool {
        self.words.len() == 11
    }

    fn token(&self, word: Word) -> Option<u8> {
        self.words.iter().position(|w| *w == word).and_then(|i| u8::try_from(i).ok())
    }

    fn digit(&self, d: u8) -> u8 {
        self.digits.get(usize::from(d)).copied().unwrap_or(0)
    }

    fn word(&self, token: u8) -> Word {
        self.words.get(usize::from(token)).copied().unwrap_or(Word::Blank)
    }

    /// What a token string says: nothing if it breaks off ("double"), more than one number where words mean two things.
    pub fn readings(&self, tokens: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
        let mut all: Vec<Reading> = vec![Reading::default()];
        for token in tokens {
            let word = self.word(*token);
            all = all.into_iter().flat_map(|r| r.after(word)).collect();
        }
        let mut out: Vec<Zeroizing<Vec<u8>>> =
            all.into_iter().filter(|r| r.pending != Pending::Times).map(Reading::finish).collect();
        out.sort_by(|a, b| a.as_slice().cmp(b));
        out.dedup();
        out
    }

    /// Every way of saying `digits`.
    pub fn ways(&self, digits: &[u8]) -> Ways {
        let places = digits.len() + 1;
        let arcs = (0..).zip(digits).map(|(from, d)| Arc { from, to: from + 1, token: self.digit(*d) }).collect();
        let mut ways = Ways { places, arcs, ends: vec![digits.len()] };
        if !self.is_plain() {
            ways.add_spoken(self, digits);
        }
        ways
    }
}

/// What may still change the digits read so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pending {
    #[default]
    Nothing,
    /// "double": a digit must follow.
    Times,
    /// "forty": a digit takes the zero's place.
    Tens,
    /// "four hundred": teens or tens take the zeros' place.
    Hundred,
}

#[derive(Clone, Default)]
struct Reading {
    digits: Zeroizing<Vec<u8>>,
    /// How long it was before each word.
    before: Vec<usize>,
    pending: Pending,
    times: u8,
}

impl Reading {
    fn finish(self) -> Zeroizing<Vec<u8>> {
        self.digits
    }

    fn push(&mut self, digits: &[u8], pending: Pending) {
        self.before.push(self.digits.len());
        self.digits.extend_from_slice(digits);
        self.pending = pending;
    }

    fn after(mut self, word: Word) -> Vec<Self> {
        let was = std::mem::take(&mut self.pending);
        let mut out = Vec::with_capacity(2);
        match (word, was) {
            (Word::Digit(d), Pending::Times) => {
                let many = [d; 3];
                self.push(many.get(..usize::from(self.times)).unwrap_or(&many), Pending::Nothing);
            }
            (_, Pending::Times) => return out, // "double twelve", "double no": not said
            (Word::Blank, _) => return out,
            (Word::Digit(d), Pending::Tens) if d != 0 => {
                if let Some(zero) = self.digits.last_mut() {
                    *zero = d;
                }
            }
            (Word::Digit(d), _) => self.push(&[d], Pending::Nothing),
            (Word::Times(n), _) => (self.pending, self.times) = (Pending::Times, n),
            (Word::Teen(_) | Word::Tens(_), was) => {
                let (two, pending) = match word {
                    Word::Tens(t) => ([t, 0], Pending::Tens),
                    Word::Teen(u) => ([1, u], Pending::Nothing),
                    _ => return out,
                };
                if was == Pending::Hundred {
                    let mut instead = self.clone();
                    let keep = instead.digits.len().saturating_sub(2);
                    instead.digits.truncate(keep);
                    instead.digits.extend_from_slice(&two);
                    instead.pending = pending;
                    out.push(instead);
                }
                self.push(&two, pending);
            }
            (Word::Hundred, _) => self.push(&[0, 0], Pending::Hundred),
            (Word::No, _) => {
                let keep = self.before.pop().unwrap_or(0);
                self.digits.truncate(keep);
            }
        }
        out.push(self);
        out
    }
}

impl Ways {
    fn place(&mut self) -> usize {
        self.places += 1;
        self.places - 1
    }

    /// Doubles, teens, tens, hundreds and single digits taken back, as far as there are tokens for them. From the end, so that what
    /// follows a place is known when it is needed.
    fn add_spoken(&mut self, lexicon: &Lexicon, digits: &[u8]) {
        let no = lexicon.token(Word::No);
        for from in (0..=digits.len()).rev() {
            if let Some(no) = no {
                // "nine, no": any digit, and back.
                for digit in lexicon.digits {
                    let wrong = self.place();
                    self.arcs.push(Arc { from, to: wrong, token: digit });
                    self.arcs.push(Arc { from: wrong, to: from, token: no });
                }
            }
            let Some(rest) = digits.get(from..) else { continue };
            for times in [2, 3] {
                let run = usize::from(times);
                if let (Some(token), Some(all)) = (lexicon.token(Word::Times(times)), rest.get(..run))
                    && let Some(d) = all.first().filter(|d| all.iter().all(|x| x == *d))
                {
                    let half = self.place();
                    self.arcs.push(Arc { from, to: half, token });
                    self.arcs.push(Arc { from: half, to: from + run, token: lexicon.digit(*d) });
                }
            }
            self.add_two(lexicon, from, from, rest);
            if let (Some(token), [a, b, ..]) = (lexicon.token(Word::Hundred), rest) {
                if (*a, *b) == (0, 0) {
                    self.arcs.push(Arc { from, to: from + 2, token });
                } else {
                    // "hundred fifty-five" for 55 alone.
                    let hundred = self.place();
                    if self.add_two(lexicon, hundred, from, rest) {
                        self.arcs.push(Arc { from, to: hundred, token });
                    }
                }
            }
        }
    }

    /// Two digits as one of the teens or tens, said from `place`, which stands for place `at` of the number. Whether there is a word.
    fn add_two(&mut self, lexicon: &Lexicon, place: usize, at: usize, rest: &[u8]) -> bool {
        let [first, unit, ..] = rest else { return false };
        if *first == 1 {
            let Some(token) = lexicon.token(Word::Teen(*unit)) else { return false };
            self.arcs.push(Arc { from: place, to: at + 2, token });
            return true;
        }
        let Some(token) = lexicon.token(Word::Tens(*first)) else { return false };
        let tens = self.place();
        self.arcs.push(Arc { from: place, to: tens, token });
        if *unit != 0 {
            self.arcs.push(Arc { from: tens, to: at + 2, token: lexicon.digit(*unit) });
            return true;
        }
        // "forty" is 40 unless a digit follows that makes it forty-something.
        let then: Vec<Arc> = self.arcs.iter().filter(|a| a.from == at + 2).copied().collect();
        let spoils = |token: u8| matches!(lexicon.word(token), Word::Digit(1..=9));
        self.arcs.extend(then.into_iter().filter(|a| !spoils(a.token)).map(|a| Arc { from: tens, ..a }));
        if self.ends.contains(&(at + 2)) {
            self.ends.push(tens);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn lexicon(words: &str) -> Lexicon {
        Lexicon::new(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    pub(crate) const PLAIN: &str = "blank 0 1 2 3 4 5 6 7 8 9";
    pub(crate) const SPOKEN: &str = "blank 0 1 2 3 4 5 6 7 8 9 double triple hundred ten eleven twelve thirteen fourteen fifteen sixteen \
                                     seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety";

    fn said(l: &Lexicon, words: &str) -> Vec<String> {
        let token = |w: &str| l.words.iter().position(|x| Some(*x) == word_of(w)).unwrap();
        let tokens: Vec<u8> = words.split(' ').filter(|w| !w.is_empty()).map(|w| u8::try_from(token(w)).unwrap()).collect();
        l.readings(&tokens).iter().map(|r| r.iter().map(|d| char::from(b'0' + d)).collect()).collect()
    }

    #[test]
    fn words_say_what_people_mean_by_them() {
        let l = lexicon(&format!("{SPOKEN} no"));
        for (words, meaning) in [
            ("4 double 5", &["455"][..]),
            ("triple 0 7", &["0007"]),
            ("double", &[]),
            ("double twelve", &[]),
            ("forty 2 forty 2", &["4242"]),
            ("forty 0 2", &["4002"]),
            ("forty", &["40"]),
            ("forty fifteen 9", &["40159"]),
            ("4 hundred", &["400"]),
            ("forty 1 hundred fifty 5", &["410055", "4155"]),
            ("4 1 no 7", &["47"]),
            ("4 double 1 no 7", &["47"]),
            ("no 7", &["7"]),
            ("4 1 no", &["4"]),
            ("", &[""]),
        ] {
            assert_eq!(said(&l, words), meaning, "{words}");
        }
        assert!(Lexicon::new(&["blank".into(), "0".into()]).unwrap_err().contains("no token for 1"));
        assert!(Lexicon::new(&["0".into()]).is_err());
        assert!(Lexicon::new(&"blank 0 1 2 3 4 5 6 7 8 9 umpteen".split(' ').map(str::to_owned).collect::<Vec<_>>()).is_err());
    }

    /// Token strings along all paths without a place visited twice but for corrections.
    fn strings(ways: &Ways, longest: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut open = vec![(0usize, Vec::new())];
        while let Some((place, tokens)) = open.pop() {
            if ways.ends.contains(&place) {
                out.push(tokens.clone());
            }
            if tokens.len() < longest {
                for arc in ways.arcs.iter().filter(|a| a.from == place) {
                    let mut longer = tokens.clone();
                    longer.push(arc.token);
                    open.push((arc.to, longer));
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn every_way_of_a_number_says_it_and_no_way_is_there_twice(
            digits in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(4)], 0..6),
        ) {
            for words in [PLAIN.to_owned(), SPOKEN.to_owned(), format!("{SPOKEN} no")] {
                let l = lexicon(&words);
                let corrections = words.ends_with("no");
                let all = strings(&l.ways(&digits), digits.len() + if corrections { 2 } else { 0 });
                prop_assert!(all.iter().any(|s| s.len() == digits.len()));
                let unique: BTreeSet<&Vec<u8>> = all.iter().collect();
                prop_assert_eq!(unique.len(), all.len());
                for tokens in &all {
                    prop_assert!(l.readings(tokens).iter().any(|r| **r == digits), "{:?} {:?}", digits, tokens);
                }
            }
        }

        #[test]
        fn every_reading_is_among_the_ways_of_its_number(tokens in proptest::collection::vec(1u8..32, 0..5)) {
            let l = lexicon(SPOKEN);
            for digits in l.readings(&tokens) {
                prop_assert!(strings(&l.ways(&digits), tokens.len()).contains(&tokens), "{:?} {:?}", *digits, tokens);
            }
        }
    }
}
