//! This side of `scripts/bench.sh`: does one piece of work at a time on request and tells how long it took, so that ours and a
//! peer's can be measured in turns in one run. Requests and answers are JSON, one a line.
//!
//! `{"do":"embed","file":F}`, `{"do":"number","file":F,"digits":D}`, `{"do":"verdict","file":F,"digits":D}`, `{"do":"memory"}`.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::EvalError;
use super::data::read_sound;
use super::number::{any_voice, log_ratio};
use super::voiceprint::engine;
use super::work::timed;
use crate::clock::SeededEntropy;
use crate::decision::{Calibration, Policy, Tightening, VoiceVerdict, judge_number, judge_voice};
use crate::ids::CardId;
use crate::media::frame::SampleRate;
use crate::secret::Pan;
use crate::speech::{NumberEngine, Utterance};
use crate::voiceprint::{Conditions, Embedder, Enrolment, Take, Template, VoiceConfig, score};

/// The engines under test, one thread each.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Makes embeddings.
    pub embedder: &'a Embedder,
    /// Hears numbers.
    pub numbers: &'a dyn NumberEngine,
    /// Bounds of enrolment.
    pub voice: &'a VoiceConfig,
    /// Thresholds of voice and number.
    pub policy: &'a Policy,
    /// Raw scores to ratios.
    pub calibration: &'a Calibration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, tag = "do", rename_all = "lowercase")]
enum Request {
    Embed { file: PathBuf },
    Number { file: PathBuf, digits: String },
    Verdict { file: PathBuf, digits: String },
    Memory,
}

impl Bench<'_> {
    /// Answers requests until the input ends.
    pub fn serve(&self, input: impl BufRead, mut output: impl Write) -> Result<(), EvalError> {
        for line in input.lines() {
            let line = line.map_err(|e| EvalError::Conditions(format!("the bench's requests can't be read: {e}")))?;
            let request = serde_json::from_str(&line);
            let request = request.map_err(|e| EvalError::Conditions(format!("this is no request of the bench: {e}")))?;
            let answer = self.answer(&request)?;
            // The driver has gone: nothing is left to do.
            if writeln!(output, "{answer}").and_then(|()| output.flush()).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn answer(&self, request: &Request) -> Result<Value, EvalError> {
        match request {
            Request::Embed { file } => self.embed(file),
            Request::Number { file, digits } => self.number(file, digits),
            Request::Verdict { file, digits } => self.verdict(file, digits),
            Request::Memory => memory(),
        }
    }

    fn embed(&self, file: &Path) -> Result<Value, EvalError> {
        let utterance = hear(file)?;
        let (embedding, ms) = timed(|| self.embedder.embed_as_published(&utterance.samples_16k));
        embedding.map_err(|e| engine("the embedding", &file.display().to_string(), e))?;
        Ok(json!({ "ms": ms, "seconds": seconds(&utterance) }))
    }

    fn number(&self, file: &Path, digits: &str) -> Result<Value, EvalError> {
        let utterance = hear(file)?;
        let (cards, said) = card(file, digits)?;
        let fail = |e| engine("the recognition", &file.display().to_string(), e);
        let voice = any_voice()?;
        let (heard, hear_ms) = timed(|| self.numbers.hear(&utterance));
        let heard = heard.map_err(fail)?;
        let (free, read_ms) = timed(|| self.numbers.read_free(&heard, &[said.len()]));
        let (free, free_ms) = (free.map_err(fail)?, hear_ms + read_ms);
        let (evidence, score_ms) = timed(|| self.numbers.score(&voice, &heard, &cards));
        let evidence = evidence.map_err(fail)?;
        Ok(json!({
            "ms": free_ms + score_ms,
            "free_ms": free_ms,
            "score_ms": score_ms,
            "seconds": seconds(&utterance),
            "exact": *free.digits == said,
            "read": free.digits.iter().map(|d| char::from(b'0' + d.min(&9))).collect::<String>(),
            "log_ratio": log_ratio(&evidence),
        }))
    }

    /// What the caller waits for once the end point is found: embedding, voice judged, number scored and judged.
    fn verdict(&self, file: &Path, digits: &str) -> Result<Value, EvalError> {
        let utterance = hear(file)?;
        let name = file.display().to_string();
        let (cards, _) = card(file, digits)?;
        let template = self.own_template(&utterance, &name)?;
        let (outcome, ms) = timed(|| {
            let embedding = self.embedder.embed(&utterance.samples_16k).map_err(|e| engine("the embedding", &name, e))?;
            let made = Conditions { net_speech_ms: utterance.net_speech_ms, snr_db: utterance.quality.snr_db };
            let by = self.calibration;
            let scored = score(&template, &embedding, made, &by.voice, &by.version).map_err(|e| engine("the score", &name, e))?;
            match judge_voice(self.policy, scored, &Tightening::default()) {
                VoiceVerdict::Accepted(voice) => {
                    let heard = self.numbers.hear(&utterance);
                    let evidence = heard.and_then(|heard| self.numbers.score(&voice, &heard, &cards));
                    let evidence = evidence.map_err(|e| engine("the scoring", &name, e))?;
                    Ok(Some(judge_number(self.policy, &voice, &evidence, &Tightening::default())))
                }
                VoiceVerdict::StepUp(_) | VoiceVerdict::Inconclusive | VoiceVerdict::Rejected => Ok(None),
            }
        });
        let verdict: Option<_> = outcome?;
        Ok(json!({ "ms": ms, "seconds": seconds(&utterance), "judged": verdict.is_some() }))
    }

    /// The caller's own voice, so that the number gets looked at.
    fn own_template(&self, utterance: &Utterance, name: &str) -> Result<Template, EvalError> {
        let lenient = VoiceConfig { enrol_min_net_speech_ms: 0, enrol_min_utterances: 1, ..self.voice.clone() };
        let mut enrolment = Enrolment::new(lenient);
        let take = Take::of(self.embedder, &utterance.samples_16k, utterance.net_speech_ms, 0);
        enrolment.add(take.map_err(|e| engine("the embedding", name, e))?).map_err(|e| engine("the enrolment", name, e))?;
        enrolment.finish().map_err(|e| engine("the enrolment", name, e))
    }
}

fn hear(file: &Path) -> Result<Utterance, EvalError> {
    let (samples, hz) = read_sound(file)?;
    let Some(rate) = SampleRate::new(hz) else {
        return Err(EvalError::Sound { file: file.to_path_buf(), what: format!("its rate is {hz} Hz") });
    };
    let narrow: Vec<i16> = samples.iter().map(|s| (s * 32768.0).round().clamp(-32768.0, 32767.0) as i16).collect();
    Ok(Utterance::from_recording(&narrow, rate))
}

/// The card that was said, as the only authorised one, and its digits.
type Said = (Vec<(CardId, Pan)>, Vec<u8>);

fn card(file: &Path, digits: &str) -> Result<Said, EvalError> {
    let pan = Pan::parse(digits).map_err(|e| engine("the number", &file.display().to_string(), e))?;
    let said = pan.digits().to_vec();
    Ok((vec![(CardId::fresh(&SeededEntropy::new(0)), pan)], said))
}

fn seconds(utterance: &Utterance) -> f64 {
    utterance.samples_16k.len() as f64 / 16_000.0
}

/// Resident memory of this process now and at its peak, in MB (10⁶ bytes), from `/proc/self/status`.
fn memory() -> Result<Value, EvalError> {
    let text = std::fs::read_to_string("/proc/self/status")
        .map_err(|e| EvalError::Conditions(format!("/proc/self/status can't be read, so memory can't be told: {e}")))?;
    let of = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key))?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kib * 1024.0 / 1e6)
    };
    Ok(json!({ "resident_mb": of("VmRSS"), "peak_mb": of("VmHWM") }))
}
