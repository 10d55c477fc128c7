//! WAV files in and out: 16-bit PCM, mono, 8, 16 or 48 kHz. Callers bring such files to `enrol from-wav`, to our softphone
//! and to `eval`, so each way in which one can be wrong has its own sentence.

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::frame::SampleRate;
use super::leg::Sound;

/// Longest file that is read, in milliseconds.
pub const WAV_MAX_MS: u64 = 120_000;
/// Shortest file that is read, in milliseconds.
pub const WAV_MIN_MS: u64 = 20;
/// Shortest audio that can hold speech to judge, in milliseconds.
pub const SPEECH_MIN_MS: u64 = 300;
/// Share of samples at full scale from which a recording counts as clipped, in thousandths.
pub const CLIPPED_PER_MILLE: u32 = 5;
/// Loudest 20 ms of a recording below this is silence, in dB of full scale.
pub const SILENCE_DBFS: f64 = -50.0;

/// What is wrong with a file or its sound.
#[derive(Debug, Error)]
pub enum WavError {
    /// Missing, unreadable.
    #[error("{path}: cannot be read or written")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Another format, or a broken header.
    #[error("{path}: not a WAV file ({detail}): record it as 16-bit PCM WAV")]
    NotWav { path: PathBuf, detail: String },
    /// The header promises more than the file holds.
    #[error("{path}: the file ends in the middle of its audio: copy or record it again")]
    CutOff { path: PathBuf },
    /// Not 16-bit integers.
    #[error("{path}: {bits} bits a sample ({format}); 16-bit integers are needed: convert with `sox IN -b 16 OUT.wav`")]
    Depth { path: PathBuf, bits: u16, format: &'static str },
    /// Stereo or more.
    #[error("{path}: {channels} channels; one is needed: convert with `sox IN -c 1 OUT.wav`")]
    Channels { path: PathBuf, channels: u16 },
    /// Another rate.
    #[error("{path}: {hz} Hz; 8000, 16000 or 48000 are needed: convert with `sox IN -r 16000 OUT.wav`")]
    Rate { path: PathBuf, hz: u32 },
    /// Nothing in it, or next to nothing.
    #[error("{path}: {ms} ms of audio; at least {WAV_MIN_MS} ms are needed")]
    Empty { path: PathBuf, ms: u64 },
    /// More than we take.
    #[error("{path}: {ms} ms of audio; at most {WAV_MAX_MS} ms are taken: cut it")]
    TooLong { path: PathBuf, ms: u64 },
    /// Too little to judge.
    #[error("the recording lasts {ms} ms; speech needs at least {SPEECH_MIN_MS} ms")]
    TooShort { ms: u64 },
    /// Overdriven.
    #[error(
        "the recording is clipped: {per_mille} of 1000 samples are at full scale (limit {CLIPPED_PER_MILLE}): record it more quietly"
    )]
    Clipped { per_mille: u32 },
    /// Nothing to hear.
    #[error("the recording is silent: its loudest moment is at {dbfs:.0} dB of full scale (at least {SILENCE_DBFS} needed)")]
    Silent { dbfs: f64 },
}

/// Reads a mono 16-bit PCM WAV of 8, 16 or 48 kHz, of 20 ms to 120 s.
pub fn read_wav(path: &Path) -> Result<Sound, WavError> {
    let length = std::fs::metadata(path).map_err(|source| WavError::File { path: path.into(), source })?.len();
    decode(path, length, hound::WavReader::open(path).map_err(|error| from_hound(path, error))?)
}

/// The same from memory; `name` stands for the path in errors.
pub fn read_wav_bytes(name: &Path, bytes: &[u8]) -> Result<Sound, WavError> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    decode(name, length, hound::WavReader::new(bytes).map_err(|error| from_hound(name, error))?)
}

fn decode<R: std::io::Read>(path: &Path, length: u64, mut reader: hound::WavReader<R>) -> Result<Sound, WavError> {
    let spec = reader.spec();
    if spec.sample_format != hound::SampleFormat::Int {
        return Err(WavError::Depth { path: path.into(), bits: spec.bits_per_sample, format: "floating point" });
    }
    if spec.bits_per_sample != 16 {
        return Err(WavError::Depth { path: path.into(), bits: spec.bits_per_sample, format: "integers" });
    }
    if spec.channels != 1 {
        return Err(WavError::Channels { path: path.into(), channels: spec.channels });
    }
    let rate = [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_48000]
        .into_iter()
        .find(|rate| rate.hz() == spec.sample_rate)
        .ok_or_else(|| WavError::Rate { path: path.into(), hz: spec.sample_rate })?;
    // By the header, before a sample is read: a lying header must not cost memory.
    let ms = u64::from(reader.duration()) * 1_000 / u64::from(rate.hz());
    if ms > WAV_MAX_MS {
        return Err(WavError::TooLong { path: path.into(), ms });
    }
    if ms < WAV_MIN_MS {
        return Err(WavError::Empty { path: path.into(), ms });
    }
    if u64::from(reader.duration()) * 2 > length {
        return Err(WavError::CutOff { path: path.into() });
    }
    let samples: Vec<i16> = reader.samples::<i16>().collect::<Result<_, _>>().map_err(|error| from_hound(path, error))?;
    Ok(Sound { rate, samples })
}

/// Whether a recording can hold speech at all: long enough, neither clipped nor silent.
pub fn check_speech(sound: &Sound) -> Result<(), WavError> {
    let total = sound.samples.len();
    let ms = u64::try_from(sound.rate.duration_of(total).as_millis()).unwrap_or(u64::MAX);
    if ms < SPEECH_MIN_MS {
        return Err(WavError::TooShort { ms });
    }
    let full = sound.samples.iter().filter(|s| s.unsigned_abs() >= 32_700).count();
    let per_mille = u32::try_from(full * 1_000 / total.max(1)).unwrap_or(1_000);
    if per_mille >= CLIPPED_PER_MILLE {
        return Err(WavError::Clipped { per_mille });
    }
    let window = sound.rate.samples_in(Duration::from_millis(20)).max(1);
    let dbfs = sound.samples.chunks(window).map(level_dbfs).fold(f64::NEG_INFINITY, f64::max);
    if dbfs < SILENCE_DBFS {
        return Err(WavError::Silent { dbfs });
    }
    Ok(())
}

/// Root mean square in dB of full scale; −∞ for digital silence.
#[allow(clippy::as_conversions, clippy::cast_precision_loss)] // counts of samples
pub fn level_dbfs(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|&s| (f64::from(s) / 32_768.0).powi(2)).sum();
    10.0 * (energy / samples.len().max(1) as f64).log10()
}

/// Writes 16-bit PCM, mono.
pub fn write_wav(path: &Path, sound: &Sound) -> Result<(), WavError> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: sound.rate.hz(),
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let write = || -> Result<(), hound::Error> {
        let mut writer = hound::WavWriter::create(path, spec)?;
        for sample in &sound.samples {
            writer.write_sample(*sample)?;
        }
        writer.finalize()
    };
    write().map_err(|error| from_hound(path, error))
}

fn from_hound(path: &Path, error: hound::Error) -> WavError {
    let path = path.to_path_buf();
    match error {
        hound::Error::IoError(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => WavError::CutOff { path },
        // What hound says of a data chunk that ends early is an `Other` I/O error.
        hound::Error::IoError(source) if source.kind() == std::io::ErrorKind::Other => WavError::CutOff { path },
        hound::Error::IoError(source) => WavError::File { path, source },
        hound::Error::FormatError(detail) => WavError::NotWav { path, detail: detail.into() },
        hound::Error::TooWide
        | hound::Error::UnfinishedSample
        | hound::Error::Unsupported
        | hound::Error::InvalidSampleFormat => WavError::NotWav { path, detail: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: SampleRate, ms: u64, level: f64) -> Sound {
        let count = rate.samples_in(Duration::from_millis(ms));
        Sound { rate, samples: (0..count).map(|n| (level * (n as f64 * 0.1).sin()).clamp(-32_768.0, 32_767.0) as i16).collect() }
    }

    fn write(dir: &Path, name: &str, spec: hound::WavSpec, samples: usize) -> PathBuf {
        let path = dir.join(name);
        let mut writer = hound::WavWriter::create(&path, spec).unwrap();
        for _ in 0..samples {
            match (spec.sample_format, spec.bits_per_sample) {
                (hound::SampleFormat::Float, _) => writer.write_sample(0.1f32).unwrap(),
                (hound::SampleFormat::Int, _) => writer.write_sample(1i8).unwrap(),
            }
        }
        writer.finalize().unwrap();
        path
    }

    fn spec(channels: u16, sample_rate: u32, bits_per_sample: u16) -> hound::WavSpec {
        hound::WavSpec { channels, sample_rate, bits_per_sample, sample_format: hound::SampleFormat::Int }
    }

    #[test]
    fn what_is_written_is_read_at_every_rate() {
        let dir = tempfile::tempdir().unwrap();
        for rate in [SampleRate::HZ_8000, SampleRate::HZ_16000, SampleRate::HZ_48000] {
            let path = dir.path().join("tone.wav");
            let sound = tone(rate, 700, 8_000.0);
            write_wav(&path, &sound).unwrap();
            assert_eq!(read_wav(&path).unwrap(), sound);
        }
    }

    #[test]
    fn each_wrong_file_is_refused_by_name_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let refused = |path: &Path, reason: &str| {
            let error = read_wav(path).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(path.to_str().unwrap()), "{reason}: {error}");
        };
        refused(&dir.join("absent.wav"), "cannot be read");
        refused(&write(dir, "stereo.wav", spec(2, 8_000, 16), 16_000), "2 channels");
        refused(&write(dir, "cd.wav", spec(1, 44_100, 16), 44_100), "44100 Hz");
        refused(&write(dir, "deep.wav", spec(1, 16_000, 24), 16_000), "24 bits");
        refused(&write(dir, "thin.wav", spec(1, 16_000, 8), 16_000), "8 bits");
        let float = hound::WavSpec { sample_format: hound::SampleFormat::Float, ..spec(1, 16_000, 32) };
        refused(&write(dir, "float.wav", float, 16_000), "floating point");
        refused(&write(dir, "empty.wav", spec(1, 16_000, 16), 0), "0 ms");
        refused(&write(dir, "blip.wav", spec(1, 16_000, 16), 100), "6 ms");
        refused(&write(dir, "saga.wav", spec(1, 8_000, 16), 8_000 * 121), "121000 ms");

        let good = std::fs::read(write(dir, "good.wav", spec(1, 16_000, 16), 16_000)).unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        refused(&file("cut.wav", &good[..good.len() / 2]), "ends in the middle");
        refused(&file("cut-in-header.wav", &good[..30]), "");
        refused(&file("not.wav", b"ID3\x04 this is an mp3, really, whatever its name says"), "not a WAV file");
        refused(&file("nothing.wav", b""), "");
        // Whatever is broken, it is told and nothing panics.
        for place in 0..44 {
            let mut broken = good.clone();
            broken[place] ^= 0xff;
            let _ = read_wav(&file("broken.wav", &broken));
        }
    }

    #[test]
    fn speech_must_be_long_enough_and_neither_clipped_nor_silent() {
        let rate = SampleRate::HZ_16000;
        check_speech(&tone(rate, 1_000, 9_000.0)).unwrap();
        assert!(matches!(check_speech(&tone(rate, 200, 9_000.0)), Err(WavError::TooShort { ms: 200 })));
        assert!(matches!(check_speech(&tone(rate, 1_000, 60_000.0)), Err(WavError::Clipped { per_mille: 500.. })));
        assert!(matches!(check_speech(&tone(rate, 1_000, 30.0)), Err(WavError::Silent { dbfs: -70.0..-50.0 })));
        assert!(matches!(check_speech(&Sound { rate, samples: vec![0; 16_000] }), Err(WavError::Silent { .. })));
        // A short word in much silence is speech; one overload is not clipping.
        let mut word = Sound { rate, samples: vec![0; 64_000] };
        word.samples[30_000..34_000].copy_from_slice(&tone(rate, 250, 9_000.0).samples);
        word.samples[31_000] = i16::MAX;
        check_speech(&word).unwrap();
    }
}
