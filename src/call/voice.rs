//! Whose voice an utterance is, as far as the template and what is known of the sound can tell.

use std::sync::Arc;

use super::ahead::Findings;
use super::figures;
use super::services::{Services, Voiced};
use crate::clock::Timestamp;
use crate::decision::VoiceScore;
use crate::dialogue::{ScoreTrouble, VoiceHeard};
use crate::e164::E164;
use crate::ids::CustomerId;
use crate::voiceprint::{self, Conditions, Embedding};

/// Whose voice it should be, and from where the call comes.
pub(super) struct Claim {
    pub(super) customer: CustomerId,
    pub(super) caller: Option<E164>,
    pub(super) attested: bool,
    pub(super) now: Timestamp,
}

/// What a yes should be in the same voice as.
pub(super) enum Other {
    /// An utterance of this call.
    Utterance(Embedding),
    /// Somebody's template.
    Template(Claim),
}

/// What came of comparing.
pub(super) struct Compared {
    pub(super) heard: VoiceHeard,
    /// `None`: it was not compared at all.
    pub(super) embedding: Option<Embedding>,
    /// For the timeline.
    pub(super) what: String,
    pub(super) figures: serde_json::Map<String, serde_json::Value>,
}

impl Services {
    /// Centred cosine of an answer's voice with that one, −1 to 1: no judgement of who speaks, but of whether somebody else does.
    pub(super) async fn likeness(self: &Arc<Self>, other: &Other, findings: &Findings) -> Result<f32, ScoreTrouble> {
        match other {
            Other::Utterance(before) => Ok(voiceprint::continuity(before, &self.voice_of(findings).await?.embedding)),
            Other::Template(claim) => Ok(self.compare_voice(claim, findings).await?.heard.score.cosine),
        }
    }

    /// Compares an utterance's voice with the customer's template.
    pub(super) async fn compare_voice(self: &Arc<Self>, claim: &Claim, findings: &Findings) -> Result<Compared, ScoreTrouble> {
        let Claim { customer, caller, attested, now } = claim;
        let utterance = &findings.utterance;
        // Calls that run side by side share the limit: once it is reached, no further try is worth anything in any of them.
        let limit = self.dialogue.failures_24h_limit_tries;
        match self.off_clock(self.desk.line_closed(customer, caller.as_ref(), *attested, limit, *now)).await {
            Ok(false) => {}
            Ok(true) => {
                let score = VoiceScore::not_compared(utterance.net_speech_ms, &self.desk.voice_model);
                return Ok(Compared {
                    heard: VoiceHeard { score, heard_before: false, spoof_llr: None },
                    embedding: None,
                    what: "too many failures of late: not compared".to_owned(),
                    figures: figures([]),
                });
            }
            Err(error) => {
                tracing::error!(%error, "failures could not be counted");
                return Err(ScoreTrouble::Failed);
            }
        }
        let template = match self.off_clock(self.desk.template(customer)).await {
            Ok(Some(template)) => template,
            Ok(None) => return Err(ScoreTrouble::Failed),
            Err(error) => {
                tracing::error!(%error, "a voice template could not be opened");
                return Err(ScoreTrouble::Failed);
            }
        };
        let made = Conditions { net_speech_ms: utterance.net_speech_ms, snr_db: utterance.quality.snr_db };
        let (voiced, reused) = tokio::join!(self.voice_of(findings), self.heard_before(findings, customer));
        let (Voiced { embedding, took_ms, ahead }, heard_before) = (voiced?, reused?.is_some());
        let by = &self.calibration;
        let score = voiceprint::score(&template, &embedding, made, &by.voice, &by.version).map_err(|error| {
            tracing::error!(%error, "a voice could not be scored");
            ScoreTrouble::Failed
        })?;
        let t = self.policy.voice;
        let what = format!(
            "voice: {:.1} nats (accepted from {:.1}, rejected below {:.1}), cosine {:.2}",
            score.llr, t.accept_llr, t.reject_llr, score.cosine
        );
        let figures = figures([
            ("voice_cosine", score.cosine.into()),
            ("voice_llr", score.llr.into()),
            ("embedding_ms", took_ms.into()),
            ("embedded_ahead", ahead.into()),
        ]);
        let heard = VoiceHeard { score, heard_before, spoof_llr: None };
        Ok(Compared { heard, embedding: Some(embedding), what, figures })
    }
}
