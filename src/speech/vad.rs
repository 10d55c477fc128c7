//! Voice activity by energy, at any frame rate: frames are cut into 10 ms, each is held against a noise floor that follows the line.
//!
//! The floor is the quietest of the last three seconds (minimum statistics, after Martin, IEEE Trans. SAP 9(5), 2001, without the
//! spectrum): steady noise of any level becomes floor, while speech, which dips between syllables, does not. Two thresholds above it
//! (hysteresis) and a hangover keep a word in one piece. Nothing here looks at absolute level but `min_level_dbfs`.
//!
//! What the energy opens, a network may look at ([`VoiceActivity`]): energy takes music, traffic and barking for speech, and never finds the end
//! of it; a network that hears voices does not. It sees nothing while the line is quiet.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::media::frame::SampleRate;
use crate::media::resample::Resampler;

use super::silero::{Band, Memory, Silero, narrow};

/// Energies are taken over this long.
pub const STEP_MS: u32 = 10;
/// The floor is the minimum over this many blocks …
const FLOOR_BLOCKS: usize = 15;
/// … of this many steps each: 3 s in all, longer than connected speech goes without a dip.
const BLOCK_STEPS: u32 = 20;
/// Below this there is nothing but rounding: digital silence, comfort noise of μ-law.
const SILENCE_DBFS: f32 = -90.0;
/// Frames longer than this are cut off: no leg sends them.
const FRAME_MAX_STEPS: usize = 100;
/// The energy of a single step jumps in noise; the floor is taken from energies smoothed by this factor.
const SMOOTHING: f32 = 0.7;
/// What keeps within `STEADY_SPREAD_DB` for this many steps is the line, not a voice: no vowel of a digit is held for 0.8 s.
const STEADY_STEPS: usize = 80;
const STEADY_SPREAD_DB: f32 = 6.0;

/// The network's word opens at this and closes below that (Silero's own values).
const VOICE_OPENS: f32 = 0.5;
const VOICE_CLOSES: f32 = 0.35;
/// What the network is shown of the line from before the energy opened, in chunks: so that it does not start cold.
const WARM_UP_CHUNKS: usize = 4;
/// The caller is heard this much above others in the room, in dB: what is further below the caller's own level, and no more than
/// `ROOM_DB` above the floor, is the room.
const CALLER_DB: f32 = 18.0;
const ROOM_DB: f32 = 15.0;
/// The network hears a voice some 50 ms late. What the energy had opened already is speech after all, up to this many steps back.
pub(super) const LATE_STEPS: usize = 8;

/// `[speech.vad]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VadConfig {
    /// Speech begins this far above the noise floor, in dB.
    pub open_db: f32,
    /// Speech goes on as long as it is this far above the noise floor, in dB; less than `open_db`.
    pub close_db: f32,
    /// Nothing quieter than this is speech, in dB relative to full scale.
    pub min_level_dbfs: f32,
    /// Speech is held this long over a dip, in milliseconds.
    pub hangover_ms: u32,
    /// Whether a network (Silero) confirms that what is loud is a voice. Without it music, traffic or talk in the room keep a turn open.
    pub neural: bool,
}

/// What a call listens with.
#[derive(Clone, Debug, Default)]
pub struct VoiceActivity {
    /// Its section of the configuration.
    pub config: VadConfig,
    /// The network, where `config.neural` asks for it.
    pub network: Option<Arc<Silero>>,
}

impl From<VadConfig> for VoiceActivity {
    /// Energy alone.
    fn from(config: VadConfig) -> Self {
        Self { config, network: None }
    }
}

impl Default for VadConfig {
    fn default() -> Self {
        Self { open_db: 9.0, close_db: 6.0, min_level_dbfs: -55.0, hangover_ms: 120, neural: true }
    }
}

/// One step judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Speech, hangover included.
    pub speech: bool,
    /// Speech by this step itself.
    pub loud: bool,
    /// Loud enough, hangover included, whatever the network says.
    pub open: bool,
    /// Energy, dB relative to full scale.
    pub level_dbfs: f32,
    /// The noise floor as known now, same unit.
    pub floor_dbfs: f32,
}

/// Follows one line.
#[derive(Debug)]
pub struct Vad {
    config: VadConfig,
    step_samples: usize,
    partial: Vec<i16>,
    floor: Floor,
    energy: Gate,
    /// With the network's word.
    voice: Gate,
    network: Option<Network>,
    /// How loud this turn's caller is, in dB relative to full scale.
    caller_dbfs: Option<f32>,
}

/// Opens at two steps in a row, since a single one is a click or noise's own jump; held over a dip.
#[derive(Debug, Default)]
struct Gate {
    open: bool,
    quiet_ms: u32,
    /// Loud steps in a row.
    loud_run: u32,
}

impl Gate {
    fn follow(&mut self, loud: bool, hangover_ms: u32) -> bool {
        self.loud_run = if loud { self.loud_run.saturating_add(1) } else { 0 };
        if loud && (self.open || self.loud_run >= 2) {
            self.open = true;
            self.quiet_ms = 0;
        } else if self.open {
            self.quiet_ms = self.quiet_ms.saturating_add(STEP_MS);
            self.open = self.quiet_ms <= hangover_ms;
        }
        self.open
    }
}

impl Vad {
    /// Knows nothing of the line yet.
    pub fn new(voices: impl Into<VoiceActivity>, rate: SampleRate) -> Self {
        let VoiceActivity { config, network } = voices.into();
        let step_samples = usize::try_from(rate.hz() / 1_000 * STEP_MS).unwrap_or(80);
        Self {
            config,
            step_samples,
            partial: Vec::new(),
            floor: Floor::new(),
            energy: Gate::default(),
            voice: Gate::default(),
            network: network.filter(|_| config.neural).map(|n| Network::new(n, rate)),
            caller_dbfs: None,
        }
    }

    /// Another turn on the same line: what it knows of the noise stays.
    pub fn next_turn(&mut self) {
        self.caller_dbfs = None;
    }

    /// Judges every 10 ms that are complete; what is left over waits for the next samples.
    pub fn push(&mut self, samples: &[i16]) -> Vec<Step> {
        let cap = self.step_samples.saturating_mul(FRAME_MAX_STEPS);
        self.partial.extend(samples.iter().take(cap));
        let whole = self.partial.len() / self.step_samples * self.step_samples;
        let ready: Zeroizing<Vec<i16>> = Zeroizing::new(self.partial.drain(..whole).collect());
        ready.chunks_exact(self.step_samples).map(|chunk| self.judge(chunk)).collect()
    }

    fn judge(&mut self, samples: &[i16]) -> Step {
        let level = level_dbfs(samples);
        let floor = self.floor.follow(level);
        let opens = (floor + self.config.open_db).max(self.config.min_level_dbfs);
        let closes = (floor + self.config.close_db).max(self.config.min_level_dbfs - 3.0);
        let loud = level >= if self.energy.open { closes } else { opens };
        let open = self.energy.follow(loud, self.config.hangover_ms);
        let loud = loud && open;
        let Some(network) = &mut self.network else {
            return Step { speech: open, loud, open, level_dbfs: level, floor_dbfs: floor };
        };
        let is_voice = network.hear(samples, open);
        let room = self.caller_dbfs.is_some_and(|caller| level < (caller - CALLER_DB).min(floor + ROOM_DB));
        let loud = loud && is_voice && !room;
        if loud {
            // Rises with the loudest, forgets half a decibel a second.
            let caller = self.caller_dbfs.unwrap_or(level);
            self.caller_dbfs = Some(if level > caller { caller + 0.2 * (level - caller) } else { caller - 0.005 });
        }
        let speech = self.voice.follow(loud, self.config.hangover_ms);
        Step { speech, loud: loud && speech, open, level_dbfs: level, floor_dbfs: floor }
    }
}

/// The network on one line.
struct Network {
    silero: Arc<Silero>,
    memory: Memory,
    /// From the line's rate to the band's, where they differ.
    resampler: Option<Resampler>,
    /// What the network has not heard, oldest first; no more than [`WARM_UP_CHUNKS`] and a part of one while nothing is open.
    held: Zeroizing<Vec<i16>>,
    was_open: bool,
    is_voice: bool,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    fn new(silero: Arc<Silero>, rate: SampleRate) -> Self {
        let (band, resampler) = match rate {
            SampleRate::HZ_8000 => (Band::Narrow, None),
            SampleRate::HZ_16000 => (Band::Wide, None),
            other => (Band::Wide, Some(Resampler::new(other, SampleRate::HZ_16000))),
        };
        Self { silero, memory: Memory::new(band), resampler, held: Zeroizing::new(Vec::new()), was_open: false, is_voice: false }
    }

    /// Takes a step; whether there is a voice as of the last whole chunk. Looks only while `open`.
    fn hear(&mut self, samples: &[i16], open: bool) -> bool {
        match &mut self.resampler {
            Some(resampler) => resampler.push(samples, &mut self.held),
            None => self.held.extend_from_slice(samples),
        }
        let chunk = self.memory.band().chunk();
        if open {
            if !self.was_open {
                self.memory = Memory::new(self.memory.band());
            }
            let mut heard = 0;
            for whole in self.held.chunks_exact(chunk) {
                let whole: Zeroizing<Vec<f32>> = Zeroizing::new(whole.iter().map(|s| f32::from(*s) / 32_768.0).collect());
                // A network that fails says nothing against the energy.
                let p = self.silero.hear(&mut self.memory, &whole).unwrap_or(1.0);
                self.is_voice = p >= if self.is_voice { VOICE_CLOSES } else { VOICE_OPENS };
                heard += chunk;
            }
            self.held.drain(..heard);
        } else {
            self.is_voice = false;
            while self.held.len() >= (WARM_UP_CHUNKS + 1) * chunk {
                self.held.drain(..chunk);
            }
        }
        self.was_open = open;
        self.is_voice
    }
}

/// Mean power of the samples without their mean, in dB relative to a full-scale square wave.
pub fn level_dbfs(samples: &[i16]) -> f32 {
    let count = u32::try_from(samples.len()).map_or(1.0, |n| f64::from(n.max(1)));
    // In whole numbers: exact, and the compiler takes several samples at once. A run of 2¹⁷ samples at full scale would still fit.
    let sum: i64 = samples.iter().map(|s| i64::from(*s)).sum();
    let squares: i64 = samples.iter().map(|s| i64::from(i32::from(*s) * i32::from(*s))).sum();
    let (mean, square) = (whole(sum) / count, whole(squares) / count);
    narrow(10.0 * ((square - mean * mean) / f64::from(i16::MIN).powi(2)).max(1e-9).log10())
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // far below 2⁵³
fn whole(x: i64) -> f64 {
    x as f64
}

/// The quietest of the last three seconds; and what is as steady as no speech is, is floor sooner.
#[derive(Debug)]
struct Floor {
    smooth: Option<f32>,
    blocks: [f32; FLOOR_BLOCKS],
    at: usize,
    steps: u32,
    recent: std::collections::VecDeque<f32>,
}

impl Floor {
    fn new() -> Self {
        Self { smooth: None, blocks: [f32::INFINITY; FLOOR_BLOCKS], at: 0, steps: 0, recent: std::collections::VecDeque::new() }
    }

    fn follow(&mut self, level: f32) -> f32 {
        let level = level.max(SILENCE_DBFS);
        let smooth = self.smooth.map_or(level, |s| SMOOTHING * s + (1.0 - SMOOTHING) * level);
        self.smooth = Some(smooth);
        if let Some(block) = self.blocks.get_mut(self.at) {
            *block = block.min(smooth);
        }
        let quietest = self.blocks.iter().copied().fold(f32::INFINITY, f32::min);
        self.steps += 1;
        if self.steps >= BLOCK_STEPS {
            self.steps = 0;
            self.at = (self.at + 1) % FLOOR_BLOCKS;
            if let Some(block) = self.blocks.get_mut(self.at) {
                *block = f32::INFINITY;
            }
        }
        self.recent.push_back(smooth);
        if self.recent.len() <= STEADY_STEPS {
            return quietest;
        }
        self.recent.pop_front();
        let low = self.recent.iter().copied().fold(f32::INFINITY, f32::min);
        let high = self.recent.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if high - low <= STEADY_SPREAD_DB { quietest.max(low) } else { quietest }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tone::testing::noise;
    use super::*;

    fn spoken(vad: &mut Vad, samples: &[i16]) -> usize {
        samples.chunks(160).flat_map(|c| vad.push(c)).filter(|s| s.speech).count() * 10
    }

    #[test]
    fn steady_noise_of_any_level_is_no_speech() {
        for dbfs in [-70.0, -50.0, -35.0, -25.0] {
            let mut vad = Vad::new(VadConfig::default(), SampleRate::HZ_8000);
            assert_eq!(spoken(&mut vad, &noise(6_000, dbfs, 7)), 0, "{dbfs}");
        }
    }

    #[test]
    fn bursts_above_the_noise_are_speech_at_every_level() {
        for (level, floor) in [(-10.0, -60.0), (-25.0, -50.0), (-25.0, -40.0), (-40.0, -65.0)] {
            let mut vad = Vad::new(VadConfig::default(), SampleRate::HZ_8000);
            spoken(&mut vad, &noise(1_000, floor, 3));
            let mut heard = 0;
            for i in 0..6 {
                heard += spoken(&mut vad, &noise(300, level, 10 + i));
                heard += spoken(&mut vad, &noise(400, floor, 20 + i));
            }
            // 300 ms each and the hangover
            assert!((6 * 300..=6 * 450).contains(&heard), "{level} over {floor}: {heard}");
        }
    }

    #[test]
    fn noise_that_sets_in_becomes_floor_within_a_second() {
        let mut vad = Vad::new(VadConfig::default(), SampleRate::HZ_8000);
        assert_eq!(spoken(&mut vad, &vec![0; 16_000]), 0);
        spoken(&mut vad, &noise(1_200, -35.0, 5));
        assert_eq!(spoken(&mut vad, &noise(3_000, -35.0, 6)), 0);
    }

    #[test]
    fn a_click_is_no_speech() {
        let mut vad = Vad::new(VadConfig::default(), SampleRate::HZ_8000);
        spoken(&mut vad, &noise(1_000, -60.0, 3));
        let mut click = vec![0i16; 80];
        click[40] = 20_000;
        assert_eq!(spoken(&mut vad, &click), 0);
    }

    #[test]
    fn odd_frames_give_the_same_steps() {
        let samples = [noise(500, -60.0, 1), noise(500, -20.0, 2), noise(500, -60.0, 3)].concat();
        let steps = |size: usize| {
            let mut vad = Vad::new(VadConfig::default(), SampleRate::HZ_8000);
            samples.chunks(size).flat_map(|c| vad.push(c)).collect::<Vec<_>>()
        };
        assert_eq!(steps(80), steps(160));
        assert_eq!(steps(80), steps(333));
    }
}
