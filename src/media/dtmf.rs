//! Keys as tones (ITU-T Q.23): heard in the audio of peers that send no telephone-events, and made for peers that take none.
//! Pure.
//!
//! The detector follows the limits of ITU-T Q.24: a frequency within ±1.5 % is a key's, one beyond ±3.5 % is none; tones of 40
//! ms count, and so do pauses; the groups' levels may differ. It measures each tone's frequency by how its phase moves between
//! two looks, which is far sharper than what one look of 16 ms could tell apart, and asks that two tones be nearly all that
//! there is: speech is not (talk-off).
#![deny(clippy::indexing_slicing, clippy::as_conversions)]

use std::f64::consts::TAU;
use std::time::Duration;

use super::frame::SampleRate;
use super::leg::Key;
use super::resample::round;

/// The lower group, a row of the keypad each.
const ROWS_HZ: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
/// The upper group, a column each. The fourth column (A to D) is heard, so that it is not taken for a neighbour, and is no key
/// of ours.
const COLUMNS_HZ: [f64; 4] = [1_209.0, 1_336.0, 1_477.0, 1_633.0];
const KEYPAD: [[char; 4]; 4] = [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];
/// Between two looks, in milliseconds.
const HOP_MS: u64 = 8;
/// What a look sees, in milliseconds.
const LOOK_MS: u64 = 16;
/// Frequencies further off than this are no key's: between the 1.5 % that must be taken and the 3.5 % that must not.
const TOLERANCE: f64 = 0.025;
/// The two tones' share of all power.
const PURITY: f64 = 0.8;
/// Weakest tone, as an amplitude of 16-bit samples: about −36 dBm0.
const AMPLITUDE_MIN: f64 = 300.0;
/// The column may be stronger than the row by so much (Q.24, some administrations: 4 dB) …
const COLUMN_STRONGER_DB: f64 = 6.0;
/// … or weaker: lines attenuate high tones more.
const COLUMN_WEAKER_DB: f64 = 10.0;
/// Looks in a row that agree: with their overlap they span 32 ms of tone.
const LOOKS_TO_TELL: u32 = 3;
/// Looks in a row without the key that end a press: a pause of 40 ms shows in six, an interruption of 10 ms in four.
const LOOKS_TO_END: u32 = 5;

/// How long a tone that we make sounds, and the pause after it, in milliseconds.
pub const TONE_MS: u64 = 100;
/// See [`TONE_MS`].
pub const PAUSE_MS: u64 = 100;
/// Amplitude of each tone that we make: about −9 dBm0 together.
const TONE_AMPLITUDE: f64 = 5_500.0;

/// Hears keys in audio.
pub struct ToneDetector {
    rate: SampleRate,
    hop: usize,
    look: usize,
    held: Vec<i16>,
    // Each frequency's phasor in the last look.
    before: [(f64, f64); 8],
    // What the last looks agree on, and how many did.
    candidate: Option<char>,
    agreed: u32,
    pressed: Option<char>,
    missed: u32,
}

impl std::fmt::Debug for ToneDetector {
    /// Neither audio nor keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ToneDetector({} Hz)", self.rate.hz())
    }
}

impl Drop for ToneDetector {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.held);
    }
}

impl ToneDetector {
    /// For audio at `rate`.
    pub fn new(rate: SampleRate) -> Self {
        let in_ms = |ms| rate.samples_in(Duration::from_millis(ms));
        Self {
            rate,
            hop: in_ms(HOP_MS),
            look: in_ms(LOOK_MS),
            held: Vec::new(),
            before: [(0.0, 0.0); 8],
            candidate: None,
            agreed: 0,
            pressed: None,
            missed: 0,
        }
    }

    /// Takes audio; tells each press that has become sure. A frame holds less than a press and its pause, so it is one at most.
    pub fn take(&mut self, samples: &[i16]) -> Option<Key> {
        self.held.extend_from_slice(samples);
        let mut told = None;
        while let Some(look) = self.held.get(..self.look) {
            let heard = Self::look_at(look, self.rate, self.hop, &mut self.before);
            told = self.follow(heard).or(told);
            self.held.drain(..self.hop);
        }
        told
    }

    fn follow(&mut self, heard: Option<char>) -> Option<Key> {
        (self.candidate, self.agreed) = if heard == self.candidate { (heard, self.agreed + 1) } else { (heard, 1) };
        if self.pressed.is_some() && heard != self.pressed {
            self.missed += 1;
            if self.missed >= LOOKS_TO_END {
                self.pressed = None;
            }
        } else {
            self.missed = 0;
        }
        let is_new = self.candidate.is_some() && self.candidate != self.pressed && self.agreed >= LOOKS_TO_TELL;
        if !is_new {
            return None;
        }
        self.pressed = self.candidate;
        self.missed = 0;
        self.candidate.and_then(Key::from_char)
    }

    /// The key whose two tones this look holds, if they are right in every way.
    fn look_at(look: &[i16], rate: SampleRate, hop: usize, before: &mut [(f64, f64); 8]) -> Option<char> {
        let length = count(look.len());
        let power = look.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / length;
        // Quiet, and the tones could not reach their least amplitude.
        if power < AMPLITUDE_MIN * AMPLITUDE_MIN / 2.0 {
            *before = [(0.0, 0.0); 8];
            return None;
        }
        let mut tones = [(0.0, 0.0); 8];
        let frequencies = ROWS_HZ.iter().chain(&COLUMNS_HZ);
        for ((tone, frequency), before) in tones.iter_mut().zip(frequencies).zip(before.iter_mut()) {
            let phasor = phasor(look, TAU * frequency / f64::from(rate.hz()));
            let off = deviation(*before, phasor, *frequency, rate, hop);
            // A tone beside the nominal frequency shows weaker than it is; how much so is known from how far it is off.
            let turns = off.clamp(-TOLERANCE, TOLERANCE) * frequency * length / f64::from(rate.hz());
            let seen = if turns == 0.0 { 1.0 } else { (TAU * turns / 2.0).sin() / (TAU * turns / 2.0) };
            *tone = (2.0 * phasor.0.hypot(phasor.1) / length / seen, off);
            *before = phasor;
        }
        let (rows, columns) = tones.split_at(4);
        let (row, (row_amplitude, row_off)) = strongest(rows)?;
        let (column, (column_amplitude, column_off)) = strongest(columns)?;
        let twist_db = 20.0 * (column_amplitude / row_amplitude.max(1e-9)).log10();
        let pure = (row_amplitude.powi(2) + column_amplitude.powi(2)) / 2.0 >= PURITY * power;
        let loud = row_amplitude.min(column_amplitude) >= AMPLITUDE_MIN;
        let tuned = row_off.abs() <= TOLERANCE && column_off.abs() <= TOLERANCE;
        let level = (-COLUMN_WEAKER_DB..=COLUMN_STRONGER_DB).contains(&twist_db);
        (pure && loud && tuned && level).then(|| KEYPAD.get(row)?.get(column).copied()).flatten()
    }
}

/// The samples against a tone of so many radians a sample.
fn phasor(samples: &[i16], step: f64) -> (f64, f64) {
    // Goertzel's recurrence: one multiplication a sample.
    let twice = 2.0 * step.cos();
    let (mut last, mut one_before) = (0.0, 0.0);
    for sample in samples {
        (last, one_before) = (f64::from(*sample) + twice * last - one_before, last);
    }
    // Turned so that the phase is that of the look's first sample: looks can then be compared.
    let (re, im) = (last - one_before * step.cos(), one_before * step.sin());
    let (sin, cos) = (-step * (count(samples.len()) - 1.0)).sin_cos();
    (re * cos - im * sin, re * sin + im * cos)
}

/// By which share of itself the tone's true frequency lies off its nominal one: the phase moves on by more or less than it
/// should between two looks. Unknown counts as far off.
fn deviation(before: (f64, f64), now: (f64, f64), frequency: f64, rate: SampleRate, hop: usize) -> f64 {
    if before == (0.0, 0.0) {
        return f64::INFINITY;
    }
    let seconds = count(hop) / f64::from(rate.hz());
    let moved = now.1.atan2(now.0) - before.1.atan2(before.0);
    let extra = moved - TAU * frequency * seconds;
    let wrapped = extra - TAU * (extra / TAU).round();
    wrapped / (TAU * seconds) / frequency
}

fn strongest(tones: &[(f64, f64)]) -> Option<(usize, (f64, f64))> {
    tones.iter().copied().enumerate().max_by(|a, b| a.1.0.total_cmp(&b.1.0))
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // counts of samples
fn count(n: usize) -> f64 {
    n as f64
}

/// A key as sound: [`TONE_MS`] of its two tones, then [`PAUSE_MS`] of silence.
pub fn tone(key: Key, rate: SampleRate) -> Vec<i16> {
    let place = |c: char| KEYPAD.iter().enumerate().find_map(|(row, keys)| Some((row, keys.iter().position(|k| *k == c)?)));
    let (row, column) = place(key.as_char()).unwrap_or_default();
    let (low, high) = (ROWS_HZ.get(row).copied().unwrap_or_default(), COLUMNS_HZ.get(column).copied().unwrap_or_default());
    two_tones(low, high, (TONE_AMPLITUDE, TONE_AMPLITUDE), rate, (TONE_MS, PAUSE_MS))
}

fn two_tones(low: f64, high: f64, amplitudes: (f64, f64), rate: SampleRate, ms: (u64, u64)) -> Vec<i16> {
    let in_ms = |ms| rate.samples_in(Duration::from_millis(ms));
    let step = TAU / f64::from(rate.hz());
    let wave = |n| round(amplitudes.0 * (step * low * count(n)).sin() + amplitudes.1 * (step * high * count(n)).sin());
    (0..in_ms(ms.0)).map(wave).chain(std::iter::repeat_n(0, in_ms(ms.1))).collect()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::as_conversions)]
mod tests {
    use super::*;
    use crate::media::g711::Law;
    use crate::media::wav::read_wav;
    use std::path::Path;

    const KEYS: &str = "1234567890*#";

    fn hear(samples: &[i16], rate: SampleRate) -> String {
        let mut detector = ToneDetector::new(rate);
        samples.chunks(rate.samples_in(Duration::from_millis(20))).filter_map(|f| detector.take(f)).map(Key::as_char).collect()
    }

    #[test]
    fn every_key_that_we_make_is_heard_once_at_every_rate_and_through_both_laws() {
        for rate in [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_48000] {
            let sound: Vec<i16> = KEYS.chars().flat_map(|c| tone(Key::from_char(c).unwrap(), rate)).collect();
            assert_eq!(hear(&sound, rate), KEYS);
            for law in [Law::Mu, Law::A] {
                assert_eq!(hear(&law.decode(&law.encode(&sound)), rate), KEYS);
            }
        }
    }

    // Each key with these changes: how many of them are heard, of those that Q.24 asks about.
    fn heard_of_all(change: impl Fn(f64, f64) -> Vec<i16>) -> usize {
        let pairs = ROWS_HZ.iter().flat_map(|low| COLUMNS_HZ[..3].iter().map(|high| (*low, *high)));
        pairs.filter(|(low, high)| hear(&change(*low, *high), SampleRate::HZ_8000).len() == 1).count()
    }

    #[test]
    fn the_limits_of_q_24_are_kept() {
        const EVEN: (f64, f64) = (4_000.0, 4_000.0);
        let rate = SampleRate::HZ_8000;
        for off in [0.985, 1.015] {
            assert_eq!(heard_of_all(|l, h| two_tones(l * off, h * off, EVEN, rate, (60, 60))), 12, "{off} is a key");
        }
        for off in [0.965, 1.035] {
            assert_eq!(heard_of_all(|l, h| two_tones(l * off, h, EVEN, rate, (100, 60))), 0, "rows off by {off}");
            assert_eq!(heard_of_all(|l, h| two_tones(l, h * off, EVEN, rate, (100, 60))), 0, "columns off by {off}");
        }
        assert_eq!(heard_of_all(|l, h| two_tones(l, h, EVEN, rate, (45, 60))), 12, "45 ms are enough");
        assert_eq!(heard_of_all(|l, h| two_tones(l, h, EVEN, rate, (20, 60))), 0, "20 ms are too short");
        let twist = |db: f64| 4_000.0 * 10f64.powf(db / 20.0);
        for (db, heard) in [(4.0, 12), (-8.0, 12), (12.0, 0), (-16.0, 0)] {
            assert_eq!(heard_of_all(|l, h| two_tones(l, h, (4_000.0, twist(db)), rate, (60, 60))), heard, "twist of {db} dB");
        }
        assert_eq!(heard_of_all(|l, h| two_tones(l, h, (500.0, 500.0), rate, (60, 60))), 12, "−32 dBm0");
        assert_eq!(heard_of_all(|l, h| two_tones(l, h, (100.0, 100.0), rate, (60, 60))), 0, "−46 dBm0");
        // A key twice with a pause of 40 ms; one with a hole of 10 ms.
        let twice = [two_tones(770.0, 1_336.0, EVEN, rate, (50, 40)), two_tones(770.0, 1_336.0, EVEN, rate, (50, 40))].concat();
        assert_eq!(hear(&twice, rate), "55");
        let holed = [two_tones(770.0, 1_336.0, EVEN, rate, (50, 10)), two_tones(770.0, 1_336.0, EVEN, rate, (50, 40))].concat();
        assert_eq!(hear(&holed, rate), "5");
    }

    #[test]
    fn one_tone_dial_tones_and_noise_are_no_keys() {
        let rate = SampleRate::HZ_8000;
        for (low, high) in
            [(697.0, 0.0), (0.0, 1_336.0), (350.0, 440.0), (440.0, 480.0), (480.0, 620.0), (425.0, 425.0), (697.0, 941.0)]
        {
            assert_eq!(hear(&two_tones(low, high, (5_000.0, 5_000.0), rate, (2_000, 0)), rate), "", "{low} {high}");
        }
        let noise: Vec<i16> = (0..80_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 18) as i16).collect();
        assert_eq!(hear(&noise, rate), "");
    }

    fn recordings(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                recordings(&path, found);
            } else if path.extension().is_some_and(|e| e == "wav") {
                found.push(path);
            }
        }
    }

    #[test]
    fn nobody_presses_a_key_by_speaking() {
        // The repository's callers; another folder of speech can be named.
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/audio-fixtures");
        let folder = std::env::var("SPEECH").unwrap_or_else(|_| own.to_owned());
        let mut found = Vec::new();
        recordings(Path::new(&folder), &mut found);
        assert!(!found.is_empty(), "no recordings in {folder}");
        let mut seconds = 0.0;
        for path in &found {
            let sound = read_wav(path).unwrap();
            seconds += sound.rate.duration_of(sound.samples.len()).as_secs_f64();
            assert_eq!(hear(&sound.samples, sound.rate), "", "{}", path.display());
        }
        println!("{} recordings, {seconds:.0} s", found.len());
    }
}
