//! Joins digit clips to an utterance: short fades, and between the clips silence with a little of the clips' own floor noise, so
//! that no gap is digitally dead. Follows the data's own renderer step by step; only the random numbers differ.

use std::path::Path;

use super::EvalError;
use super::data::{Material, Recipe, Split, read_sound};
use super::random::Random;
use crate::media::frame::SampleRate;
use crate::media::resample::resample_whole;

/// Fade at either end of a clip, in milliseconds.
const FADE_MS: u32 = 4;
/// Stretch over which a clip's floor is looked for, in milliseconds.
const WINDOW_MS: u32 = 20;
/// The floor is this percentile of the windows' powers.
const FLOOR_PERCENTILE: f64 = 0.08;
/// The floor is never taken louder than this (−40 dBFS).
const FLOOR_MAX: f64 = 0.01;
/// Gaps are filled with noise this much of the floor.
const GAP_OF_FLOOR: f64 = 0.5;

/// The sound of a recipe at `rate`, before level, noise and codec.
pub fn assemble(split: &Split, recipe: &Recipe, rate: u32) -> Result<Vec<f64>, EvalError> {
    match &recipe.material {
        Material::Recording(path) => load(&split.clip(path)?, rate),
        Material::Spliced { clips, gaps_ms, lead_ms, tail_ms } => {
            let clips = clips.iter().map(|c| load(&split.clip(c)?, rate)).collect::<Result<Vec<_>, _>>()?;
            Ok(splice(clips, gaps_ms, *lead_ms, *tail_ms, rate, &mut Random::from_text(&recipe.id)))
        }
    }
}

/// A sound file at `rate`.
pub fn load(file: &Path, rate: u32) -> Result<Vec<f64>, EvalError> {
    let (samples, own) = read_sound(file)?;
    if own == rate {
        return Ok(samples);
    }
    let (Some(from), Some(to)) = (SampleRate::new(own), SampleRate::new(rate)) else {
        let what = format!("its rate is {own} Hz: whole kilohertz from 8 to 48 can be used");
        return Err(EvalError::Sound { file: file.to_path_buf(), what });
    };
    let narrow: Vec<f32> = samples.iter().map(|s| *s as f32).collect();
    Ok(resample_whole(&narrow, from, to).into_iter().map(f64::from).collect())
}

/// Joins clips.
pub fn splice(mut clips: Vec<Vec<f64>>, gaps_ms: &[u32], lead_ms: u32, tail_ms: u32, rate: u32, random: &mut Random) -> Vec<f64> {
    let fade = samples_of(FADE_MS, rate);
    let mut floors: Vec<f64> = clips.iter().map(|c| floor_of(c, rate)).collect();
    floors.sort_by(f64::total_cmp);
    let floor = median(&floors).min(FLOOR_MAX);
    for clip in clips.iter_mut().filter(|c| c.len() > 2 * fade) {
        // From 0 to 1 inclusive, as numpy's linspace.
        let gain = |i: usize| if fade > 1 { i as f64 / (fade - 1) as f64 } else { 0.0 };
        clip.iter_mut().take(fade).enumerate().for_each(|(i, s)| *s *= gain(i));
        clip.iter_mut().rev().take(fade).enumerate().for_each(|(i, s)| *s *= gain(i));
    }
    let mut silence = |ms: u32, out: &mut Vec<f64>| {
        out.extend((0..samples_of(ms, rate)).map(|_| random.normal() * floor * GAP_OF_FLOOR));
    };
    let mut out = Vec::new();
    silence(lead_ms, &mut out);
    for (i, clip) in clips.iter().enumerate() {
        out.extend_from_slice(clip);
        if let Some(gap) = gaps_ms.get(i) {
            silence(*gap, &mut out);
        }
    }
    silence(tail_ms, &mut out);
    out
}

fn samples_of(ms: u32, rate: u32) -> usize {
    (u64::from(ms) * u64::from(rate) / 1000) as usize
}

fn floor_of(clip: &[f64], rate: u32) -> f64 {
    let window = samples_of(WINDOW_MS, rate).max(1);
    // A clip under one window is one window of its own length.
    let window = window.min(clip.len().max(1));
    let mut powers: Vec<f64> = clip.chunks_exact(window).map(|w| w.iter().map(|s| s * s).sum::<f64>() / window as f64).collect();
    let power = super::metrics::percentile(&mut powers, FLOOR_PERCENTILE);
    (if power.is_finite() { power } else { 0.0 } + 1e-12).sqrt()
}

fn median(sorted: &[f64]) -> f64 {
    super::metrics::percentile(&mut sorted.to_vec(), 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_add_up_and_gaps_are_quiet_but_not_dead() {
        let tone: Vec<f64> = (0..1600).map(|i| (f64::from(i) * 0.3).sin() * 0.5).collect();
        let out = splice(vec![tone.clone(), tone], &[250], 100, 50, 8000, &mut Random::new(1));
        assert_eq!(out.len(), 800 + 1600 + 2000 + 1600 + 400);
        let gap = &out[800 + 1600..800 + 1600 + 2000];
        let rms = (gap.iter().map(|s| s * s).sum::<f64>() / 2000.0).sqrt();
        // The clips are loud throughout, so that the floor is held at its ceiling: half of 0.01.
        assert!((rms - 0.005).abs() < 0.0005, "{rms}");
        assert_eq!(out[800], 0.0); // the fade begins at nothing
        assert_eq!(out[800 + 1599], 0.0); // and ends so
    }

    #[test]
    fn the_same_utterance_sounds_the_same_again() {
        let clip = vec![0.1; 800];
        let a = splice(vec![clip.clone()], &[], 10, 10, 8000, &mut Random::from_text("u"));
        assert_eq!(a, splice(vec![clip.clone()], &[], 10, 10, 8000, &mut Random::from_text("u")));
        assert_ne!(a, splice(vec![clip], &[], 10, 10, 8000, &mut Random::from_text("v")));
    }

    #[test]
    fn a_clip_shorter_than_a_window_is_taken_whole() {
        assert!((floor_of(&[0.5; 40], 8000) - 0.5).abs() < 1e-6);
        let out = splice(vec![vec![0.5; 40]], &[], 0, 0, 8000, &mut Random::new(1));
        assert_eq!(out, vec![0.5; 40]); // too short to fade
    }
}
