//! What of the filterbank says whose voice it is on a telephone line.
//!
//! Above 4 kHz an 8 kHz line carries nothing but the resampler's leftovers, which CAM++, trained on wide speech, takes for voice; and
//! pauses are room and line. Measured on dev (DESIGN.md), where the constants were also chosen: leaving out what lies above 4 kHz takes the
//! equal error rate of 4 digits from 2.3 % to 1.7 %; letting frames count by their distance from the noise takes it in 15 dB babble from
//! 3.9 % to 3.4 %, and leaves it as it is on a clean line.

use ndarray::{Array2, s};

/// Filters whose centre lies below 4 kHz: Kaldi's mel scale puts 61 of 80 there.
const TELEPHONE_MELS: usize = 61;
/// The level that this share of frames keeps below is the line's noise: of a number with its pauses, more than a tenth is pause.
const NOISE_SHARE: f32 = 0.10;
/// Frames no further above the noise count least, in dB.
const NOISE_MARGIN_DB: f32 = 3.0;
/// From there, so many dB further up, frames count in full.
const FULL_AFTER_DB: f32 = 15.0;
/// What a pause counts, a frame of clear speech counting 1.1.
const LEAST: f32 = 0.1;

/// How much each frame counts, from its log mels (before their mean is taken away).
pub(super) fn speech_weights(mels: &Array2<f32>) -> Vec<f32> {
    let low = mels.slice(s![.., ..TELEPHONE_MELS.min(mels.ncols())]);
    let levels: Vec<f32> =
        low.outer_iter().map(|row| 10.0 * row.iter().map(|m| m.exp()).sum::<f32>().max(1e-12).log10()).collect();
    let noise = percentile(&levels, NOISE_SHARE);
    levels.iter().map(|level| LEAST + ((level - noise - NOISE_MARGIN_DB) / FULL_AFTER_DB).clamp(0.0, 1.0)).collect()
}

/// Nothing above 4 kHz: 0 is each filter's mean, which says nothing.
pub(super) fn keep_telephone(mels: &mut Array2<f32>) {
    let columns = mels.ncols();
    mels.slice_mut(s![.., TELEPHONE_MELS.min(columns)..]).fill(0.0);
}

/// Between two frames linear, as the study that chose the constants had it.
fn percentile(levels: &[f32], share: f32) -> f32 {
    let mut sorted = levels.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = share * length(sorted.len().saturating_sub(1));
    let below = at.floor();
    let pick = |i: f32| sorted.get(index(i)).or(sorted.last()).copied().unwrap_or(0.0);
    pick(below) + (at - below) * (pick(below + 1.0) - pick(below))
}

#[allow(clippy::cast_precision_loss)] // at most some 12,000 frames
fn length(n: usize) -> f32 {
    n as f32
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a small count, never negative
fn index(i: f32) -> usize {
    i as usize
}

#[cfg(test)]
mod tests {
    use super::super::fbank::MELS;
    use super::*;

    /// Frames of these levels, all mels alike.
    fn frames(levels_db: &[f32]) -> Array2<f32> {
        let ln = std::f32::consts::LN_10 / 10.0;
        Array2::from_shape_fn((levels_db.len(), MELS), |(frame, _)| levels_db[frame] * ln)
    }

    #[test]
    fn speech_counts_fully_pauses_little_and_the_line_s_level_not_at_all() {
        for level in [-60.0, 0.0, 20.0] {
            let mut of = vec![level; 30];
            of.extend([level + 10.5; 10]);
            of.extend([level + 30.0; 60]);
            let weights = speech_weights(&frames(&of));
            assert!((weights[0] - 0.1).abs() < 1e-4 && (weights[35] - 0.6).abs() < 1e-3 && (weights[99] - 1.1).abs() < 1e-4);
        }
    }

    #[test]
    fn an_utterance_without_pauses_counts_throughout() {
        let weights = speech_weights(&frames(&[-20.0; 50]));
        assert!(weights.iter().all(|w| *w > 0.0 && (w - weights[0]).abs() < 1e-6));
        assert!(speech_weights(&frames(&[])).is_empty());
    }

    #[test]
    fn the_upper_half_of_the_band_says_nothing() {
        let mut mels = Array2::from_elem((2, MELS), 1.5);
        keep_telephone(&mut mels);
        assert_eq!(mels.row(1).iter().filter(|m| **m == 1.5).count(), 61);
        assert_eq!((mels[(0, 60)], mels[(0, 61)]), (1.5, 0.0));
    }
}
