//! The recorded pieces, and how a prompt becomes sound and text. Recordings are embedded in the binary and decoded once.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use claxon::FlacReader;
use include_dir::{Dir, include_dir};

use super::catalogue::{Catalogue, CatalogueError, Part, Slot};
use super::mandarin;
use super::spoken::{self, Piece};
use super::wording::{Fill, PHRASES, fills_of, payee_name, phrases_of};
use crate::dialogue::prompt::Prompt;
use crate::language::Language;
use crate::media::frame::SampleRate;
use crate::media::leg::Sound;

/// Rate of the masters and of everything rendered.
pub const MASTER_RATE: SampleRate = SampleRate::HZ_16000;
/// Between a wording and what is filled in.
const JOINT_GAP_MS: u64 = 70;
/// Between pieces of one number or date.
const PIECE_GAP_MS: u64 = 25;
/// Between digits or letters said one by one.
const DIGIT_GAP_MS: u64 = 110;
/// Between two sentences.
const SENTENCE_GAP_MS: u64 = 260;

/// Between digits that the caller is to say after us.
const DICTATED_GAP_MS: u64 = 170;

/// For whoever wants more time, such gaps last so many times as long.
const SLOW_GAP_TIMES: u64 = 3;

/// How fast amounts, names and digits are said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As to anybody.
    Usual,
    /// To whoever wants more time.
    Slow,
}

static ENGLISH: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/prompts/en");
static MANDARIN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/prompts/zh");

/// A recording at [`MASTER_RATE`].
type Clip = Arc<[i16]>;

/// All recordings and all wording, a book a language.
#[derive(Debug)]
pub struct Bank {
    english: Book,
    mandarin: Book,
}

/// A leg's rate and the phrases of a prompt.
type Fixed = (SampleRate, Vec<&'static str>);

/// What is said in one language.
pub struct Book {
    language: Language,
    catalogue: Catalogue,
    clips: BTreeMap<String, Clip>,
    /// Prompts that nothing is filled into: the same sound in every call that plays them. Bounded by the wordings.
    fixed: RwLock<BTreeMap<Fixed, Arc<Sound>>>,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Book({}: {} clips)", self.language, self.clips.len())
    }
}

/// Why the prompts can't be used: a fault of the build, never of a call.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The catalogue is malformed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A text has no recording.
    #[error("prompt `{0}` has no recording: run `make prompts` and build again")]
    NotRecorded(String),
    /// A recording is no 16 kHz mono 16-bit FLAC.
    #[error("recording `{clip}` can't be used: {why}")]
    Recording { clip: String, why: String },
    /// A phrase that the dialogue can ask for is not in the catalogue.
    #[error("the prompt catalogue has no phrase `{0}`")]
    NoPhrase(&'static str),
}

impl Bank {
    /// Reads the catalogues, decodes every recording and checks that nothing is missing. Takes about 0.2 s and 20 MB.
    pub fn load() -> Result<Self, PromptError> {
        let english = Book::load(Language::English, &ENGLISH)?;
        let mut mandarin = Book::load(Language::Mandarin, &MANDARIN)?;
        // Latin letters and recorded names are the same in both.
        for (id, clip) in &english.clips {
            if id.starts_with("letter.") || id.starts_with("payee.") {
                mandarin.clips.entry(id.clone()).or_insert_with(|| Arc::clone(clip));
            }
        }
        Ok(Self { english, mandarin })
    }

    /// What is said in a language.
    pub fn book(&self, language: Language) -> &Book {
        match language {
            Language::English => &self.english,
            Language::Mandarin => &self.mandarin,
        }
    }
}

impl Book {
    fn load(language: Language, recordings: &Dir<'static>) -> Result<Self, PromptError> {
        let catalogue = Catalogue::of(language)?;
        if let Some(missing) = PHRASES.iter().find(|id| catalogue.phrase(id).is_none()) {
            return Err(PromptError::NoPhrase(missing));
        }
        let mut clips = BTreeMap::new();
        for id in catalogue.clips() {
            let missing = || PromptError::NotRecorded(format!("{language}/{id}"));
            let file = recordings.get_file(format!("{id}.flac")).ok_or_else(missing)?;
            let samples = decode(file.contents()).map_err(|why| PromptError::Recording { clip: id.to_owned(), why })?;
            clips.insert(id.to_owned(), samples.into());
        }
        Ok(Self { language, catalogue, clips, fixed: RwLock::default() })
    }

    /// A prompt to play on a leg of this rate: [`render`](Self::render), shared by all calls where nothing is filled in. It is
    /// brought down to the leg's rate here, once, and not in each call's turn each 20 ms; a leg above [`MASTER_RATE`] gets that.
    /// What is filled in is said at this pace.
    pub fn sound(&self, prompt: &Prompt, payee_clip: Option<&Sound>, leg: SampleRate, pace: Pace) -> Arc<Sound> {
        let rate = leg.min(MASTER_RATE);
        let make = || Arc::new(self.render_at(prompt, payee_clip, pace).at(rate));
        if !fills_of(prompt).is_empty() {
            return make();
        }
        let key = (rate, phrases_of(prompt));
        let kept = self.fixed.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        kept.unwrap_or_else(|| {
            let sound = make();
            Arc::clone(self.fixed.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(sound))
        })
    }

    /// A prompt as sound at [`MASTER_RATE`]. `payee_clip`: a recording of the payee's name, at any rate; without one the
    /// catalogue's is used, else the name is spelt.
    pub fn render(&self, prompt: &Prompt, payee_clip: Option<&Sound>) -> Sound {
        self.render_at(prompt, payee_clip, Pace::Usual)
    }

    fn render_at(&self, prompt: &Prompt, payee_clip: Option<&Sound>, pace: Pace) -> Sound {
        let mut track = Track::default();
        let fills = fills_of(prompt);
        for (n, phrase) in phrases_of(prompt).into_iter().enumerate() {
            if n > 0 {
                track.gap(SENTENCE_GAP_MS);
            }
            for part in self.catalogue.phrase(phrase).unwrap_or_default() {
                match part {
                    Part::Wording { clip: Some(clip), text } => {
                        track.gap(if text.starts_with(['.', '。']) { SENTENCE_GAP_MS } else { JOINT_GAP_MS });
                        track.add(self.samples(clip));
                    }
                    Part::Wording { clip: None, text } => {
                        track.gap(if text.starts_with(['.', '。']) { SENTENCE_GAP_MS } else { JOINT_GAP_MS });
                    }
                    Part::Filled(slot) => {
                        // "after me. {digits}", "Paid. {amount}": the wording before may end a sentence.
                        track.gap(JOINT_GAP_MS);
                        self.fill(&mut track, *slot, &fills, payee_clip, pace);
                    }
                }
            }
        }
        Sound { rate: MASTER_RATE, samples: track.samples }
    }

    /// What [`render`](Self::render) says, in words, for timelines. Of a card it holds the last four digits at most.
    pub fn text(&self, prompt: &Prompt) -> String {
        let fills = fills_of(prompt);
        let said: Vec<String> = phrases_of(prompt)
            .into_iter()
            .map(|phrase| {
                let parts = self.catalogue.phrase(phrase).unwrap_or_default();
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Wording { text: wording, .. } => text.push_str(wording),
                        // What was asked for is for the caller's ear only.
                        Part::Filled(Slot::Digits) if matches!(prompt, Prompt::SayDigits { .. }) => text.push('…'),
                        Part::Filled(slot) => text.push_str(&self.words(*slot, &fills)),
                    }
                }
                text
            })
            .collect();
        said.join(self.space())
    }

    /// The recordings that digits are said with, one by one.
    pub fn digits(&self) -> Vec<(u8, Sound)> {
        let recorded = |(id, clip): (&String, &Clip)| {
            let name = id.strip_prefix("digit.").or_else(|| id.strip_prefix("digit_last."))?;
            Some((name.parse().ok()?, Sound { rate: MASTER_RATE, samples: clip.to_vec() }))
        };
        self.clips.iter().filter_map(recorded).collect()
    }

    /// Between words, as written.
    fn space(&self) -> &'static str {
        match self.language {
            Language::English => " ",
            Language::Mandarin => "",
        }
    }

    fn samples(&self, clip: &str) -> &[i16] {
        self.clips.get(clip).map_or(&[], |clip| clip.as_ref())
    }

    fn pieces(&self, slot: Slot, fills: &[Fill<'_>]) -> Vec<Piece> {
        for fill in fills {
            match (slot, fill) {
                (Slot::Payee, Fill::Payee(p)) => return spoken::payee(&p.name, |id| self.clips.contains_key(id)),
                (Slot::Amount, Fill::Amount(money)) => {
                    return match self.language {
                        Language::English => spoken::amount(*money),
                        Language::Mandarin => mandarin::amount(*money),
                    };
                }
                (Slot::Date, Fill::Date(day)) => {
                    // Whether there is such a day does not depend on the language.
                    let Some(english) = spoken::date(*day) else { return Vec::new() };
                    return match self.language {
                        Language::English => english,
                        Language::Mandarin => mandarin::date(*day),
                    };
                }
                (Slot::Digits, Fill::Digits(Slot::Digits, digits)) => return spoken::dictated(digits),
                (Slot::Last4 | Slot::Reference, Fill::Digits(of, digits)) if *of == slot => {
                    return spoken::digits(digits);
                }
                (
                    Slot::Payee | Slot::Amount | Slot::Date | Slot::Last4 | Slot::Reference | Slot::Digits,
                    Fill::Payee(_) | Fill::Amount(_) | Fill::Date(_) | Fill::Digits(..),
                ) => {}
            }
        }
        Vec::new()
    }

    fn fill(&self, track: &mut Track, slot: Slot, fills: &[Fill<'_>], payee_clip: Option<&Sound>, pace: Pace) {
        if let (Slot::Payee, Some(clip)) = (slot, payee_clip) {
            track.add(&at_master_rate(clip));
            return;
        }
        for (n, piece) in self.pieces(slot, fills).iter().enumerate() {
            match piece {
                Piece::Pause(ms) => track.gap(*ms),
                Piece::Clip(clip) => {
                    if n > 0 {
                        let one_by_one = clip.starts_with("digit") || clip.starts_with("letter");
                        let gap_ms = match (one_by_one, slot) {
                            (true, Slot::Digits) => DICTATED_GAP_MS,
                            (true, Slot::Payee | Slot::Amount | Slot::Date | Slot::Last4 | Slot::Reference) => DIGIT_GAP_MS,
                            (false, _) => PIECE_GAP_MS,
                        };
                        track.gap(match pace {
                            Pace::Usual => gap_ms,
                            Pace::Slow => gap_ms.saturating_mul(SLOW_GAP_TIMES),
                        });
                    }
                    track.add(self.samples(clip));
                }
            }
        }
    }

    fn words(&self, slot: Slot, fills: &[Fill<'_>]) -> String {
        if let (Slot::Payee, Some(name)) = (slot, fills.iter().find_map(payee_name)) {
            return name.to_owned();
        }
        let digit_by_digit = matches!(slot, Slot::Last4 | Slot::Reference | Slot::Digits);
        let words: Vec<String> = self
            .pieces(slot, fills)
            .iter()
            .filter_map(|piece| match piece {
                Piece::Pause(_) => None,
                // `digit.4` reads better as 4 than as "four,".
                Piece::Clip(id) if digit_by_digit => id.rsplit('.').next().map(str::to_owned),
                Piece::Clip(id) => self.catalogue.clip_text(id).map(str::to_owned),
            })
            .collect();
        words.join(if digit_by_digit { " " } else { self.space() })
    }
}

/// Samples being put together; a gap is laid only once something stands before it, and only the longest of neighbours.
#[derive(Default)]
struct Track {
    samples: Vec<i16>,
    pending_gap_ms: u64,
}

impl Track {
    fn gap(&mut self, ms: u64) {
        self.pending_gap_ms = self.pending_gap_ms.max(ms);
    }

    fn add(&mut self, samples: &[i16]) {
        let gap = std::mem::take(&mut self.pending_gap_ms);
        if samples.is_empty() {
            self.pending_gap_ms = gap;
            return;
        }
        if !self.samples.is_empty() {
            let silence = MASTER_RATE.samples_in(Duration::from_millis(gap));
            self.samples.resize(self.samples.len() + silence, 0);
        }
        self.samples.extend_from_slice(samples);
    }
}

/// A recorded name at the masters' rate, by linear interpolation: enough for speech on its way to a telephone.
fn at_master_rate(sound: &Sound) -> Vec<i16> {
    if sound.rate == MASTER_RATE {
        return sound.samples.clone();
    }
    let (from, to) = (u64::from(sound.rate.hz()), u64::from(MASTER_RATE.hz()));
    let at = |i: u64| usize::try_from(i).ok().and_then(|i| sound.samples.get(i)).copied().map_or(0, i64::from);
    let wanted = u64::try_from(sound.samples.len()).unwrap_or(0) * to / from;
    (0..wanted)
        .map(|i| {
            let (whole, part) = (i * from / to, i64::try_from(i * from % to).unwrap_or(0));
            let scale = i64::from(MASTER_RATE.hz());
            let mixed = (at(whole) * (scale - part) + at(whole + 1) * part) / scale;
            i16::try_from(mixed).unwrap_or(0)
        })
        .collect()
}

fn decode(flac: &[u8]) -> Result<Vec<i16>, String> {
    let mut reader = FlacReader::new(Cursor::new(flac)).map_err(|e| e.to_string())?;
    let info = reader.streaminfo();
    if (info.sample_rate, info.channels, info.bits_per_sample) != (MASTER_RATE.hz(), 1, 16) {
        return Err(format!(
            "it has {} Hz, {} channels and {} bits, wanted are {} Hz, 1 and 16",
            info.sample_rate,
            info.channels,
            info.bits_per_sample,
            MASTER_RATE.hz()
        ));
    }
    reader.samples().map(|s| s.map_err(|e| e.to_string()).and_then(|s| i16::try_from(s).map_err(|e| e.to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::prompt::{Again, SpokenDate, SpokenPayee};
    use crate::ids::PayeeId;
    use crate::money::{Currency, Money};
    use crate::prompts::wording::every;

    #[test]
    fn what_is_the_same_in_every_call_is_kept_once() {
        let bank = Bank::load().unwrap();
        let book = bank.book(Language::English);
        let asked = |attempt| book.sound(&Prompt::AskCard { attempt, why: Again::Silence }, None, MASTER_RATE, Pace::Usual);
        assert!(Arc::ptr_eq(&asked(2), &asked(2)));
        assert_ne!(asked(2), asked(3));
        assert_eq!(*asked(2), book.render(&Prompt::AskCard { attempt: 2, why: Again::Silence }, None));
        let done = || book.sound(&paid(), None, MASTER_RATE, Pace::Usual);
        assert!(!Arc::ptr_eq(&done(), &done()), "somebody's payment stays nobody's");
    }

    #[test]
    fn a_narrowband_leg_gets_prompts_at_its_own_rate_and_shares_them() {
        let bank = Bank::load().unwrap();
        let book = bank.book(Language::English);
        let ask = Prompt::AskCard { attempt: 1, why: Again::First };
        let at = |rate| book.sound(&ask, None, rate, Pace::Usual);
        let (narrow, wide) = (at(SampleRate::HZ_8000), at(SampleRate::HZ_16000));
        assert_eq!((narrow.rate, narrow.samples.len()), (SampleRate::HZ_8000, wide.samples.len().div_ceil(2)));
        assert!(Arc::ptr_eq(&narrow, &at(SampleRate::HZ_8000)) && Arc::ptr_eq(&wide, &at(SampleRate::HZ_48000)));
        assert_eq!(
            book.sound(&paid(), None, SampleRate::HZ_8000, Pace::Usual).rate,
            SampleRate::HZ_8000,
            "what is filled in, too"
        );
    }

    fn paid() -> Prompt {
        let payee = SpokenPayee { id: PayeeId::parse("pay_1").unwrap(), name: "Riverside Electric".into() };
        Prompt::Paid { amount: Money::new(1999, Currency::Usd).unwrap(), payee, reference: vec![4, 7, 1, 0, 5, 2] }
    }

    #[test]
    fn every_text_has_a_recording_of_good_level_without_clipping() {
        let bank = Bank::load().unwrap();
        for (id, samples) in Language::ALL.iter().flat_map(|l| &bank.book(*l).clips) {
            let peak = samples.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0);
            let rms = (samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt();
            let seconds = MASTER_RATE.duration_of(samples.len()).as_secs_f64();
            assert!(peak < 32_000, "{id} peaks at {peak}");
            assert!((800.0..8_000.0).contains(&rms), "{id} has an RMS of {rms}");
            assert!((0.1..30.0).contains(&seconds), "{id} lasts {seconds} s");
        }
    }

    #[test]
    fn no_recording_is_left_over() {
        let bank = Bank::load().unwrap();
        for (language, recordings) in [(Language::English, &ENGLISH), (Language::Mandarin, &MANDARIN)] {
            for file in recordings.files() {
                let name = file.path().to_str().unwrap();
                if let Some(id) = name.strip_suffix(".flac") {
                    assert!(bank.book(language).catalogue.clip_text(id).is_some(), "{name} belongs to no text");
                }
            }
        }
    }

    #[test]
    fn the_recordings_were_made_from_the_texts_as_they_stand() {
        let root = env!("CARGO_MANIFEST_DIR");
        let out = std::process::Command::new("python3")
            .args(["scripts/render-prompts.py", "--check"])
            .current_dir(root)
            .output()
            .unwrap();
        assert!(out.status.success(), "run `make prompts`: {}", String::from_utf8_lossy(&out.stdout));
    }

    #[test]
    fn every_prompt_can_be_heard_and_read() {
        let bank = Bank::load().unwrap();
        for (prompt, language) in every::prompt().into_iter().flat_map(|p| Language::ALL.map(|l| (p.clone(), l))) {
            let book = bank.book(language);
            let sound = book.render(&prompt, None);
            assert_eq!(sound.rate, MASTER_RATE);
            assert!(sound.samples.len() > 4_000, "{prompt:?}");
            let text = book.text(&prompt);
            assert!(!text.contains(['{', '}']) && !text.contains("  ") && !text.contains("  "), "{text}");
        }
    }

    #[test]
    fn fresh_digits_are_spoken_slowly_in_fours_and_are_in_no_text() {
        let bank = Bank::load().unwrap();
        let prompt = |digits: &[u8]| Prompt::SayDigits { digits: digits.to_vec(), repeated: true, attempt: 1, why: Again::First };
        for language in Language::ALL {
            let book = bank.book(language);
            let text = book.text(&prompt(&[5, 0, 2, 7, 1, 9, 4, 6]));
            assert!(text.ends_with('…') && !text.contains(|c: char| c.is_ascii_digit()), "{text}");
            let long = |digits: &[u8]| MASTER_RATE.duration_of(book.render(&prompt(digits), None).samples.len());
            let took = long(&[5, 0, 2, 7, 1, 9, 4, 6]).saturating_sub(long(&[]));
            assert!((3.5..9.0).contains(&took.as_secs_f64()), "{language}: {took:?} for eight digits");
        }
    }

    #[test]
    fn whoever_wants_more_time_hears_digits_with_longer_gaps_and_the_same_words() {
        let bank = Bank::load().unwrap();
        let say = Prompt::SayDigits { digits: vec![5, 0, 2, 7, 1, 9, 4, 6], repeated: true, attempt: 1, why: Again::First };
        for language in Language::ALL {
            let book = bank.book(language);
            let long = |pace| book.sound(&say, None, MASTER_RATE, pace).samples.len();
            let more = MASTER_RATE.duration_of(long(Pace::Slow) - long(Pace::Usual)).as_millis();
            assert!((1_500..3_500).contains(&more), "{more} ms more for eight digits");
        }
    }

    #[test]
    fn mandarin_texts_read_as_they_are_said() {
        let bank = Bank::load().unwrap();
        let book = bank.book(Language::Mandarin);
        assert_eq!(book.text(&paid()), "付款成功。十九美元九十九美分，付给Riverside Electric。您的参考号是4 7 1 0 5 2。谢谢。");
        let payee = SpokenPayee { id: PayeeId::parse("pay_1").unwrap(), name: "City Water".into() };
        let amount = Money::new(500, Currency::Jpy).unwrap();
        let read = Prompt::ReadRequest { amount, payee, due: Some(SpokenDate { month: 6, day: 5 }) };
        assert_eq!(book.text(&read), "City Water，请您支付五百日元，付款期限是六月五号。");
    }

    #[test]
    fn texts_read_as_they_are_said() {
        let bank = Bank::load().unwrap();
        let bank = bank.book(Language::English);
        assert_eq!(
            bank.text(&paid()),
            "Paid. nineteen dollars and ninety-nine cents, to Riverside Electric. Your reference is 4 7 1 0 5 2. Thank you."
        );
        let say = Prompt::EnrolSay { round: 2, rounds: 3, digits: vec![3, 7, 1], attempt: 1, why: Again::First };
        assert_eq!(bank.text(&say), "Thank you. And now these. 3 7 1");
        let again = Prompt::AskYes { attempt: 2, why: Again::Silence };
        assert_eq!(bank.text(&again), "Sorry, I did not hear anything. Please say yes, or no.");
        let payee = SpokenPayee { id: PayeeId::parse("pay_1").unwrap(), name: "Café 7".into() };
        let amount = Money::new(500, Currency::Jpy).unwrap();
        let read = Prompt::ReadRequest { amount, payee, due: Some(SpokenDate { month: 6, day: 5 }) };
        assert_eq!(bank.text(&read), "Café 7 asks you to pay five hundred yen, due June fifth.");
    }

    #[test]
    fn a_recording_of_the_payee_replaces_the_spelling() {
        let bank = Bank::load().unwrap();
        let bank = bank.book(Language::English);
        let clip = Sound { rate: SampleRate::HZ_8000, samples: vec![1234; 8_000] };
        let sound = bank.render(&paid(), Some(&clip));
        let played = sound.samples.iter().filter(|s| **s == 1234).count();
        assert!((15_990..=16_050).contains(&played), "one second at 16 kHz, not {played} samples");
    }

    #[test]
    fn what_is_no_master_is_refused() {
        assert!(decode(b"RIFF").is_err());
        let whole = ENGLISH.get_file("goodbye.flac").unwrap().contents();
        assert!(decode(whole).is_ok());
        assert!(decode(&whole[..whole.len() / 2]).is_err());
    }
}
