//! Fingerprints on synthetic speech: the same audio again, changed as lines change it, and the same words said anew.

use super::*;
use crate::media::frame::SampleRate;
use crate::media::g711::Law;
use crate::media::resample::resample_whole;
use crate::media::wav::read_wav;

fn key() -> FingerprintKey {
    FingerprintKey::new(&[7; 16])
}

/// A committed recording at 16 kHz.
fn said(name: &str) -> Vec<f32> {
    let sound = read_wav(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("audio-fixtures/{name}.wav"))).unwrap();
    let samples: Vec<f32> = sound.samples.iter().map(|s| f32::from(*s) / 32_768.0).collect();
    resample_whole(&samples, sound.rate, SampleRate::HZ_16000)
}

fn probe(samples: &[f32]) -> Probe {
    Probe::new(&Fingerprinter::new(), samples, &key())
}

fn noise(n: usize, level: f32) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (0..4).map(|_| uniform()).sum::<f32>() * 1.73 * level).collect()
}

#[test]
fn the_same_audio_is_known_again_however_the_line_changed_it() {
    for name in ["alice/card", "mallory/counting", "erin/enrol_1"] {
        let first = said(name);
        let kept = probe(&first).fingerprint().clone();
        let quiet: Vec<f32> = first.iter().map(|s| s * 0.2).collect();
        let shifted: Vec<f32> = noise(3_333, 1e-4).into_iter().chain(first.iter().copied()).collect();
        // Speech at −20 dBFS, so noise at −40.
        let noisy: Vec<f32> = first.iter().zip(noise(first.len(), 0.01)).map(|(s, n)| s + n).collect();
        let narrow: Vec<i16> = first.iter().step_by(2).map(|s| (s * 32_767.0) as i16).collect();
        let coded: Vec<f32> = Law::A.decode(&Law::A.encode(&narrow)).iter().map(|s| f32::from(*s) / 32_768.0).collect();
        let coded = resample_whole(&coded, SampleRate::HZ_8000, SampleRate::HZ_16000);
        let cut = first[first.len() / 4..].to_vec();
        let all =
            [("again", &first), ("quiet", &quiet), ("shifted", &shifted), ("noisy", &noisy), ("coded", &coded), ("cut", &cut)];
        for (how, samples) in all {
            let like = probe(samples).same_audio(&kept);
            assert!(like.is_some_and(|l| l.strength > 1.1), "{name} {how}: {like:?}");
        }
    }
}

#[test]
fn other_words_and_other_voices_are_new() {
    let kept: Vec<Fingerprint> = ["alice/enrol_1", "alice/enrol_2", "bob/card", "mallory/card"]
        .iter()
        .map(|name| probe(&said(name)).fingerprint().clone())
        .collect();
    let new = probe(&said("dave/card"));
    assert!(kept.iter().all(|k| new.same_audio(k).is_none()));
}

#[test]
fn another_key_knows_nothing_and_silence_is_nothing() {
    let samples = said("alice/card");
    let kept = Probe::new(&Fingerprinter::new(), &samples, &FingerprintKey::new(&[8; 16])).fingerprint().clone();
    assert!(probe(&samples).same_audio(&kept).is_none());
    assert!(probe(&vec![0.0; 48_000]).fingerprint().is_empty());
    assert!(probe(&[]).fingerprint().is_empty());
    assert!(probe(&samples).likeness(probe(&[]).fingerprint()).is_none());
}

#[test]
fn what_is_kept_survives_its_bytes_and_damage_is_noticed() {
    let made = probe(&said("alice/enrol_1"));
    let bytes = made.fingerprint().to_bytes();
    assert_eq!(Fingerprint::from_bytes(&bytes).as_ref(), Some(made.fingerprint()));
    assert!(bytes.len() < 12_000, "{} bytes", bytes.len());
    assert!(Fingerprint::from_bytes(&bytes[..bytes.len() - 1]).is_none());
    assert!(Fingerprint::from_bytes(&[]).is_none());
    let mut other = bytes.to_vec();
    other[0] = 9;
    assert!(Fingerprint::from_bytes(&other).is_none());
    assert_eq!(format!("{made:?} {:?}", key()), "Probe(…) FingerprintKey(…)");
}
