//! Digits that the service asks to be said after it: the phone knows the recordings that digits are spoken with, as a person knows how digits
//! sound, finds them in what came over the line, and answers with its caller's own recordings. It is told nothing of what was meant.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustfft::FftPlanner;
use rustfft::num_complex::Complex32;

use super::hearing::SPEECH_DBFS;
use crate::language::Language;
use crate::media::frame::SampleRate;
use crate::media::leg::Sound;
use crate::media::resample::{resample_whole, round};
use crate::media::wav::{level_dbfs, read_wav};
use crate::prompts::Bank;

/// Where recordings and line are compared: every leg carries at least this.
const RATE: SampleRate = SampleRate::HZ_8000;
/// Digits are asked for at the end of a prompt; so much of it is listened to.
pub const LOOK_BACK: Duration = Duration::from_secs(15);
/// A recording was heard from this correlation on. Over µ-law a digit reaches 0.84 where the line's samples fall between its own, 0.99 where they
/// do not; another digit of the same voice stays below 0.72.
const HEARD: f32 = 0.75;
/// Two recordings at one place: the likelier one was heard, if they overlap by more than this share.
const OVERLAP: f32 = 0.3;
/// What is asked for ends the prompt: nothing else may be said behind it for longer than this.
const BEHIND: Duration = Duration::from_millis(400);
/// Digits further apart than this do not belong together.
const APART: Duration = Duration::from_millis(1_500);

/// Before and behind what the caller says.
const EDGE: Duration = Duration::from_millis(140);
/// Nobody says a word twice alike: pitch goes from somewhere to somewhere between these, length and pauses differ, so that the same recordings
/// are hardly ever the same audio.
const PITCHES: [f32; 2] = [0.89, 1.13];
const LENGTHS: [f32; 2] = [0.75, 1.35];
/// A room is never silent: noise of up to so much, 1 being full scale; some 26 dB below speech.
const ROOM_NOISE: f32 = 0.009;
/// A word is made longer or shorter in pieces of twice this, and each may begin this much earlier or later than is due.
const PIECE_HOP: Duration = Duration::from_millis(12);
const PIECE_REACH: Duration = Duration::from_millis(6);
/// Between digits, in milliseconds, and how much more between groups of four.
const GAPS_MS: [f32; 2] = [60.0, 300.0];
const GROUP_GAP_MS: f32 = 200.0;

/// Knows the recordings of digits, in one language or more.
#[derive(Debug)]
pub struct DigitEar {
    /// For each language, digit and sound at [`RATE`], of energy one.
    languages: Vec<Vec<(u8, Vec<f32>)>>,
}

/// A recording that was heard.
#[derive(Clone, Copy, Debug)]
struct Hit {
    digit: u8,
    start: usize,
    end: usize,
    likeness: f32,
}

impl DigitEar {
    /// For the service's own recordings, in every language; made once.
    pub fn of_the_service() -> Result<&'static Self, String> {
        static MADE: OnceLock<Result<DigitEar, String>> = OnceLock::new();
        let make = || {
            let bank = Bank::load().map_err(|e| e.to_string())?;
            Ok(Self::new(Language::ALL.map(|l| bank.book(l).digits())))
        };
        MADE.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// For these recordings, a list a language.
    pub fn new(languages: impl IntoIterator<Item = Vec<(u8, Sound)>>) -> Self {
        let unit = |(digit, sound): (u8, Sound)| {
            let mut samples = at_rate(&sound);
            let energy = samples.iter().map(|s| s * s).sum::<f32>().sqrt();
            samples.iter_mut().for_each(|s| *s /= energy);
            (digit, samples)
        };
        let audible = |(_, samples): &(u8, Vec<f32>)| samples.iter().all(|s| s.is_finite());
        Self { languages: languages.into_iter().map(|of| of.into_iter().map(unit).filter(audible).collect()).collect() }
    }

    /// The digits that the end of what was heard asks for; none if it ends otherwise.
    pub fn asked(&self, heard: &Sound) -> Vec<u8> {
        let kept = heard.rate.samples_in(LOOK_BACK).min(heard.samples.len());
        let tail = heard.samples.get(heard.samples.len() - kept..).unwrap_or_default();
        let line = at_rate(&Sound { rate: heard.rate, samples: tail.to_vec() });
        // Nobody asks in two languages at once.
        let asked = self.languages.iter().map(|recordings| digits_at_the_end(&line, &hits(recordings, &line)));
        asked.into_iter().find(|digits| !digits.is_empty()).unwrap_or_default()
    }
}

/// The run of digits behind which nothing else is said.
fn digits_at_the_end(line: &[f32], hits: &[Hit]) -> Vec<u8> {
    let (behind, apart) = (RATE.samples_in(BEHIND), RATE.samples_in(APART));
    let mut next = speech_end(line);
    let mut digits = Vec::new();
    for (n, hit) in hits.iter().rev().enumerate() {
        if next > hit.end + if n == 0 { behind } else { apart } {
            break;
        }
        next = hit.start;
        digits.push(hit.digit);
    }
    digits.reverse();
    digits
}

/// What was heard of these recordings, in order.
fn hits(recordings: &[(u8, Vec<f32>)], line: &[f32]) -> Vec<Hit> {
    let longest = recordings.iter().map(|(_, r)| r.len()).max().unwrap_or(0);
    let size = (line.len() + longest).max(1).next_power_of_two();
    let mut planner = FftPlanner::new();
    let (forward, back) = (planner.plan_fft_forward(size), planner.plan_fft_inverse(size));
    let spectrum = |of: &[f32]| {
        let mut out: Vec<Complex32> = of.iter().map(|s| Complex32::new(*s, 0.0)).collect();
        out.resize(size, Complex32::default());
        forward.process(&mut out);
        out
    };
    // Energy up to each sample: a window's is a difference.
    let mut energy = vec![0.0_f64];
    energy.extend(line.iter().scan(0.0_f64, |sum, s| {
        *sum += f64::from(*s) * f64::from(*s);
        Some(*sum)
    }));
    let heard = spectrum(line);
    let mut found = Vec::new();
    for (digit, recording) in recordings {
        let mut product = spectrum(recording);
        product.iter_mut().zip(&heard).for_each(|(r, h)| *r = h * r.conj());
        back.process(&mut product);
        let length = recording.len();
        let windows = energy.iter().zip(energy.iter().skip(length)).map(|(a, b)| b - a);
        for (start, (sum, window)) in product.iter().zip(windows).enumerate() {
            let likeness = sum.re / scale(size) / root(window);
            if likeness >= HEARD {
                found.push(Hit { digit: *digit, start, end: start + length, likeness });
            }
        }
    }
    found.sort_by(|a, b| b.likeness.total_cmp(&a.likeness));
    let mut kept: Vec<Hit> = Vec::new();
    for hit in found {
        if !kept.iter().any(|k| overlap(k, &hit) > OVERLAP) {
            kept.push(hit);
        }
    }
    kept.sort_by_key(|h| h.start);
    kept
}

/// The share of the shorter that both cover.
fn overlap(a: &Hit, b: &Hit) -> f32 {
    let both = a.end.min(b.end).saturating_sub(a.start.max(b.start));
    let shorter = (a.end - a.start).min(b.end - b.start).max(1);
    scale(both) / scale(shorter)
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // some seconds of samples
fn scale(n: usize) -> f32 {
    n as f32
}

#[allow(clippy::as_conversions, clippy::cast_possible_truncation)] // a level needs no double precision
fn root(energy: f64) -> f32 {
    // Silence is like nothing.
    energy.max(1e-3).sqrt() as f32
}

/// Behind the last frame of speech.
fn speech_end(line: &[f32]) -> usize {
    let frame = RATE.samples_in(Duration::from_millis(20));
    let loud = |f: &[f32]| level_dbfs(&f.iter().map(|s| to_i16(*s)).collect::<Vec<_>>()) >= SPEECH_DBFS;
    let frames = line.chunks(frame).count();
    let silent = line.chunks(frame).rev().take_while(|f| !loud(f)).count();
    frames.saturating_sub(silent) * frame
}

fn at_rate(sound: &Sound) -> Vec<f32> {
    let samples: Vec<f32> = sound.samples.iter().map(|s| f32::from(*s) / 32_768.0).collect();
    resample_whole(&samples, sound.rate, RATE)
}

fn to_i16(sample: f32) -> i16 {
    round(f64::from(sample) * 32_768.0)
}

/// A caller's own recordings of the ten digits.
#[derive(Clone, PartialEq, Eq)]
pub struct DigitVoice {
    digits: [Arc<Sound>; 10],
}

impl std::fmt::Debug for DigitVoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigitVoice")
    }
}

impl DigitVoice {
    /// `digit_0.wav` to `digit_9.wav` in a folder.
    pub fn load(folder: &Path) -> Result<Self, String> {
        Self::new(|name| read_wav(&folder.join(name)).map_err(|e| e.to_string()))
    }

    /// From whatever finds a sound by its name.
    pub fn new(mut sound: impl FnMut(&str) -> Result<Sound, String>) -> Result<Self, String> {
        let all: Vec<_> = (0..10).map(|d| sound(&format!("digit_{d}.wav")).map(Arc::new)).collect::<Result<_, _>>()?;
        if all.iter().any(|s| all.first().is_some_and(|first| first.rate != s.rate)) {
            return Err("the recordings of the ten digits are not of one sample rate".to_owned());
        }
        let digits = all.try_into().map_err(|_| "there are not ten of them".to_owned())?;
        Ok(Self { digits })
    }

    /// These digits, one after another, in groups of four.
    pub fn say(&self, asked: &[u8]) -> Sound {
        let rate = self.digits.first().map_or(RATE, |s| s.rate);
        let silence = |gap: Duration| std::iter::repeat_n(0_i16, rate.samples_in(gap));
        let mut samples: Vec<i16> = silence(EDGE).collect();
        // Of the string, so that the same one is said alike and another one is not.
        let mut mood = asked.iter().fold(17_u32, |m, d| m.wrapping_mul(31).wrapping_add(u32::from(*d)));
        let mut between = |[low, high]: [f32; 2]| {
            mood = mood.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            low + (high - low) * scale(usize::try_from(mood >> 16).unwrap_or(0)) / 65_536.0
        };
        for (n, digit) in asked.iter().enumerate() {
            let group = if n % 4 == 0 { GROUP_GAP_MS } else { 0.0 };
            let gap = between(GAPS_MS) + group;
            if n > 0 {
                samples.extend(silence(Duration::from_secs_f32(gap / 1_000.0)));
            }
            let Some(recording) = self.digits.get(usize::from(*digit)) else { continue };
            let voiced = bent(&recording.samples, between(PITCHES), between(PITCHES));
            samples.extend(stretched(&voiced, rate, between(LENGTHS)));
        }
        samples.extend(silence(EDGE));
        for sample in &mut samples {
            *sample = round(f64::from(f32::from(*sample) + 32_768.0 * between([-ROOM_NOISE, ROOM_NOISE])));
        }
        Sound { rate, samples }
    }
}

/// A recording, so many times as long at the same pitch: overlapping pieces of it, each taken where it goes on best from the one before.
fn stretched(samples: &[i16], rate: SampleRate, times: f32) -> Vec<i16> {
    let (hop, reach) = (rate.samples_in(PIECE_HOP), rate.samples_in(PIECE_REACH));
    let signal: Vec<f32> = samples.iter().map(|s| f32::from(*s)).collect();
    let at = |i: usize| signal.get(i).copied().unwrap_or(0.0);
    let hops = places(scale(signal.len()) * times / scale(hop)) + 1;
    let mut out = vec![0.0_f32; (hops + 1) * hop];
    let mut from = 0_usize;
    for n in 0..hops {
        let due = places(scale(n * hop) / times);
        if n > 0 {
            // What would follow the piece before, and where something like it is found near the place that is due.
            let follows = from + hop;
            let alike = |start: usize| (0..hop).map(|i| at(start + i) * at(follows + i)).sum::<f32>();
            let near = (due.saturating_sub(reach)..=due + reach).map(|start| (start, alike(start)));
            from = near.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(due, |(start, _)| start);
        }
        for i in 0..2 * hop {
            let window = 0.5 - 0.5 * (std::f32::consts::PI * (scale(i) + 0.5) / scale(hop)).cos();
            if let Some(sum) = out.get_mut(n * hop + i) {
                *sum += window * at(from + i);
            }
        }
    }
    out.into_iter().map(|s| round(f64::from(s))).collect()
}

#[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, a second at most
fn places(at: f32) -> usize {
    at as usize
}

/// A recording at a pitch (and pace) that changes from one to another.
fn bent(samples: &[i16], from: f32, to: f32) -> Vec<i16> {
    let mut out = Vec::with_capacity(samples.len());
    let mut at = 0.0_f32;
    loop {
        let i = places(at);
        let sample = |i: usize| samples.get(i).copied().map(f32::from);
        let Some(b) = sample(i) else { return out };
        let (a, c, d) = (sample(i.wrapping_sub(1)).unwrap_or(b), sample(i + 1).unwrap_or(0.0), sample(i + 2).unwrap_or(0.0));
        let x = at.fract();
        // Catmull and Rom's curve through four samples.
        let curve = b + 0.5 * x * (c - a + x * (2.0 * a - 5.0 * b + 4.0 * c - d + x * (3.0 * (b - c) + d - a)));
        out.push(round(f64::from(curve)));
        at += from + (to - from) * at / scale(samples.len().max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::{Again, Prompt};
    use crate::media::g711::Law;

    /// Over a telephone line: 8 kHz, µ-law, then silence.
    fn over_the_line(sound: &Sound) -> Sound {
        let samples: Vec<i16> = at_rate(sound).into_iter().map(to_i16).collect();
        let mut samples = Law::Mu.decode(&Law::Mu.encode(&samples));
        samples.extend(std::iter::repeat_n(0, 8_000));
        Sound { rate: RATE, samples }
    }

    fn digits(text: &str) -> Vec<u8> {
        text.bytes().map(|b| b - b'0').collect()
    }

    #[test]
    fn it_hears_the_digits_that_a_prompt_asks_for_in_either_language() {
        let (ear, bank) = (DigitEar::of_the_service().unwrap(), Bank::load().unwrap());
        for (n, text) in ["50271946", "83610527", "3950271846", "98765432", "10101", "77"].into_iter().enumerate() {
            for language in Language::ALL {
                let digits = digits(text);
                let prompt = match n % 2 {
                    0 => Prompt::SayDigits { digits: digits.clone(), repeated: false, attempt: 1, why: Again::First },
                    _ => Prompt::EnrolSay { round: 1, rounds: 3, digits: digits.clone(), attempt: 1, why: Again::NotUnderstood },
                };
                let heard = over_the_line(&bank.book(language).render(&prompt, None));
                assert_eq!(ear.asked(&heard), digits, "{language}");
            }
        }
    }

    #[test]
    fn prompts_that_ask_for_none_are_answered_with_none() {
        let (ear, bank) = (DigitEar::of_the_service().unwrap(), Bank::load().unwrap());
        let money = crate::money::Money::new(1_999, crate::money::Currency::Usd).unwrap();
        let payee = crate::dialogue::SpokenPayee { id: crate::ids::PayeeId::parse("pay_1").unwrap(), name: "City Water".into() };
        let others = [
            Prompt::AskCard { attempt: 1, why: Again::First },
            Prompt::ReadRequest { amount: money, payee: payee.clone(), due: None },
            Prompt::ReadBack { amount: money, payee, last4: [2, 7, 4, 9], others: false },
            Prompt::OneMoment,
        ];
        for prompt in others {
            for language in Language::ALL {
                let heard = over_the_line(&bank.book(language).render(&prompt, None));
                assert_eq!(ear.asked(&heard), Vec::<u8>::new(), "{prompt:?} {language}");
            }
        }
        assert_eq!(ear.asked(&Sound { rate: SampleRate::HZ_48000, samples: Vec::new() }), Vec::<u8>::new());
    }

    #[test]
    fn a_voice_says_what_it_is_asked_and_no_word_twice_alike() {
        let tone = |name: &str| {
            let period = usize::from(name.as_bytes()[6] - b'0') + 8;
            Ok(Sound { rate: RATE, samples: (0..4_000).map(|i| if i % period < period / 2 { 6_000 } else { -6_000 }).collect() })
        };
        let voice = DigitVoice::new(tone).unwrap();
        let (two, one) = (voice.say(&[4, 4]), voice.say(&[4]));
        let seconds = |s: &Sound| s.rate.duration_of(s.samples.len()).as_secs_f32();
        assert!(
            (0.6..1.05).contains(&seconds(&one)) && (1.0..2.0).contains(&seconds(&two)),
            "{} {}",
            seconds(&one),
            seconds(&two)
        );
        let first = RATE.samples_in(EDGE)..RATE.samples_in(EDGE) + 2_000;
        assert_ne!(two.samples[first.clone()], one.samples[first], "another mood");
        assert_eq!(voice.say(&[4]), one);
        assert!(DigitVoice::new(|_| Err("no such file".to_owned())).is_err());
    }
}
