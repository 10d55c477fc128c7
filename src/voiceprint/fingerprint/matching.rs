//! Comparing an utterance with a kept fingerprint: symbols that agree, counted at each shift in time.

use std::fmt;

use zeroize::Zeroize;

use super::sketch::{Fingerprinter, Word};
use super::{Fingerprint, FingerprintKey, Mark};

/// One frame in so many is kept; the utterance that is compared has every second one, so that any shift in time is met.
const KEPT_EVERY_FRAMES: u16 = 4;
/// A cell of so many frames (48 ms) counts as one observation: an onset makes many symbols agree at once.
const CELL_FRAMES: u16 = 12;
/// A cell with fewer kept symbols is left out.
const CELL_MIN_MARKS: u16 = 3;
/// Shifts are counted in bins of two frames (8 ms), three together: 24 ms, which a speed 1 % off takes over 2 s to leave.
const BIN_FRAMES: usize = 2;
/// How many of the best shifts are looked at cell by cell.
const LOOK_AT_SHIFTS: usize = 8;
/// Unless this share of all marks agrees at the best shift, nothing is looked at closer: the same audio is far above.
const WORTH_A_LOOK: f32 = 0.012;

/// Cells in a row, and the mean share of their symbols from which they are the same audio. Set 20 % (short) to
/// 140 % (long) above the highest that pairs of natural recordings reach (`voicepay eval reuse`); over a long stretch chance does little.
const LIMITS: [(usize, f32); 6] = [(4, 0.40), (6, 0.35), (8, 0.29), (12, 0.135), (24, 0.145), (48, 0.09)];
/// The longest stretch counts in utterances of any length.
const LONGEST: usize = 48;
/// A stretch counts if it is at least this share of the shorter utterance: a beep, an echo of a prompt or one word of a talking machine
/// does not make a whole utterance a recording.
const LEAST_COVERED: f32 = 0.5;

/// An utterance, ready to be compared. Never printed; wiped on drop.
pub struct Probe {
    kept: Fingerprint,
    /// Frames by symbol: those of symbol `s` are `frames[starts[s]..starts[s + 1]]`.
    starts: Vec<u32>,
    frames: Vec<u16>,
    length: usize,
    /// How many of its own cells have enough marks.
    cells: usize,
}

/// The same audio, over which stretch and how surely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likeness {
    /// How much speech agrees at least, in milliseconds.
    pub over_ms: u32,
    /// How far above the limit for that stretch it is; 1 is the limit.
    pub strength: f32,
}

/// Bins are found by counting hits; each hit is a kept mark and the shift at which it agrees.
#[derive(Default)]
struct Hits {
    of: Vec<(u32, u32)>,
    counts: Vec<u16>,
}

impl Probe {
    /// Of an utterance (mono, 16 kHz, −1 to 1).
    pub fn new(maker: &Fingerprinter, samples_16k: &[f32], key: &FingerprintKey) -> Self {
        Self::of_words(&maker.words(samples_16k), key)
    }

    fn of_words(words: &[Word], key: &FingerprintKey) -> Self {
        let marks: Vec<Mark> = words.iter().map(|w| Mark { frame: w.frame, symbol: key.symbol(w.place, w.signs) }).collect();
        let kept: Vec<Mark> = marks.iter().filter(|m| m.frame % KEPT_EVERY_FRAMES == 0).copied().collect();
        let mut starts = vec![0u32; usize::from(u16::MAX) + 2];
        for mark in &marks {
            if let Some(n) = starts.get_mut(usize::from(mark.symbol) + 1) {
                *n += 1;
            }
        }
        let mut sum = 0;
        for n in &mut starts {
            sum += *n;
            *n = sum;
        }
        let mut next = starts.clone();
        let mut frames = vec![0u16; marks.len()];
        for mark in &marks {
            if let Some(at) = next.get_mut(usize::from(mark.symbol)) {
                if let Some(slot) = usize::try_from(*at).ok().and_then(|i| frames.get_mut(i)) {
                    *slot = mark.frame;
                }
                *at += 1;
            }
        }
        let length = marks.last().map_or(0, |m| usize::from(m.frame) + 1);
        let cells = telling(&cells(&kept));
        Self { kept: Fingerprint { marks: kept }, starts, frames, length, cells }
    }

    /// What is kept of it.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.kept
    }

    /// Whether a kept utterance is the same audio, or holds a stretch of it; with how much above the limit.
    pub fn same_audio(&self, kept: &Fingerprint) -> Option<Likeness> {
        self.likeness(kept).filter(|l| l.strength >= 1.0)
    }

    /// The best likeness, the same audio or not; `None` if there is too little to compare. For measuring.
    pub fn likeness(&self, kept: &Fingerprint) -> Option<Likeness> {
        let last = kept.marks.last()?.frame;
        let cells = cells(&kept.marks);
        let shorter = telling(&cells).min(self.cells);
        if shorter < LIMITS.first()?.0 {
            return None;
        }
        // Counts of cells: small.
        let least = f32::from(u16::try_from(shorter).unwrap_or(u16::MAX)) * LEAST_COVERED;
        let hits = self.hits(&kept.marks, usize::from(last));
        let worth = f32::from(u16::try_from(kept.marks.len()).unwrap_or(u16::MAX)) * WORTH_A_LOOK;
        let mut best: Option<Likeness> = None;
        for bin in busiest(&hits.counts, worth) {
            let shares = shares(&kept.marks, &cells, &hits, bin);
            let long_enough = |span: usize| u16::try_from(span).is_ok_and(|s| f32::from(s) >= least) || span == LONGEST;
            for (span, limit) in LIMITS.into_iter().filter(|(span, _)| long_enough(*span)) {
                let strength = best_mean(&shares, span) / limit;
                if strength.is_finite() && best.is_none_or(|b| strength > b.strength) {
                    let cells = u32::try_from(span).unwrap_or(u32::MAX);
                    best = Some(Likeness { over_ms: cells * u32::from(CELL_FRAMES) * 4, strength });
                }
            }
        }
        best
    }

    fn hits(&self, marks: &[Mark], last: usize) -> Hits {
        let mut hits = Hits { of: Vec::new(), counts: vec![0; (self.length + last) / BIN_FRAMES + 2] };
        let edge = |s: usize| self.starts.get(s).and_then(|n| usize::try_from(*n).ok()).unwrap_or(0);
        for (index, mark) in marks.iter().enumerate() {
            let symbol = usize::from(mark.symbol);
            for frame in self.frames.get(edge(symbol)..edge(symbol + 1)).unwrap_or_default() {
                let bin = (usize::from(*frame) + last - usize::from(mark.frame)) / BIN_FRAMES;
                if let (Some(count), Ok(index), Ok(shift)) = (hits.counts.get_mut(bin), u32::try_from(index), u32::try_from(bin))
                {
                    *count = count.saturating_add(1);
                    hits.of.push((index, shift));
                }
            }
        }
        hits
    }
}

/// How many cells have enough marks.
fn telling(cells: &[u16]) -> usize {
    cells.iter().filter(|n| **n >= CELL_MIN_MARKS).count()
}

/// How many marks each cell has.
fn cells(marks: &[Mark]) -> Vec<u16> {
    let count = marks.last().map_or(0, |m| usize::from(m.frame / CELL_FRAMES) + 1);
    let mut cells = vec![0u16; count];
    for mark in marks {
        if let Some(n) = cells.get_mut(usize::from(mark.frame / CELL_FRAMES)) {
            *n += 1;
        }
    }
    cells
}

/// The shifts with most hits in three bins together, best first, neighbours of a better one left out.
fn busiest(counts: &[u16], worth: f32) -> Vec<usize> {
    let at = |i: usize| counts.get(i).copied().map_or(0, u32::from);
    let three = |i: usize| at(i.wrapping_sub(1)) + at(i) + at(i + 1);
    let enough = |n: u32| n > 0 && f32::from(u16::try_from(n).unwrap_or(u16::MAX)) >= worth;
    let mut order: Vec<(u32, usize)> = (0..counts.len()).map(|i| (three(i), i)).filter(|(n, _)| enough(*n)).collect();
    let wanted = (LOOK_AT_SHIFTS * 4).min(order.len());
    if wanted == 0 {
        return Vec::new();
    }
    order.select_nth_unstable_by(wanted - 1, |a, b| b.cmp(a));
    order.truncate(wanted);
    order.sort_unstable_by(|a, b| b.cmp(a));
    let mut chosen: Vec<usize> = Vec::with_capacity(LOOK_AT_SHIFTS);
    for (_, bin) in order {
        if chosen.len() < LOOK_AT_SHIFTS && chosen.iter().all(|c| c.abs_diff(bin) > 1) {
            chosen.push(bin);
        }
    }
    chosen
}

/// Per cell that has enough marks: the share that agrees at this shift.
fn shares(marks: &[Mark], cells: &[u16], hits: &Hits, bin: usize) -> Vec<f32> {
    let mut agree = vec![0u16; cells.len()];
    let mut counted = u32::MAX;
    for (index, shift) in &hits.of {
        // Hits of one mark stand together: it counts once.
        if *index == counted || usize::try_from(*shift).is_ok_and(|s| s.abs_diff(bin) > 1) {
            continue;
        }
        counted = *index;
        let mark = usize::try_from(*index).ok().and_then(|i| marks.get(i));
        if let Some(n) = mark.and_then(|m| agree.get_mut(usize::from(m.frame / CELL_FRAMES))) {
            *n += 1;
        }
    }
    let both = agree.iter().zip(cells);
    both.filter(|(_, of)| **of >= CELL_MIN_MARKS).map(|(n, of)| f32::from(*n) / f32::from(*of)).collect()
}

/// The highest mean of so many in a row; nothing below zero if there are too few.
fn best_mean(shares: &[f32], span: usize) -> f32 {
    let Ok(n) = u16::try_from(span) else { return -1.0 };
    shares.windows(span).map(|w| w.iter().sum::<f32>()).reduce(f32::max).map_or(-1.0, |sum| sum / f32::from(n))
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.starts.zeroize();
        self.frames.zeroize();
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Probe(…)")
    }
}
