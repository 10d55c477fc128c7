//! Enrolment from recordings, for the API: what `voicepay enrol from-wav` does, with the models that are loaded anyway.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::api::{Enrolled, Enroller, NotEnrolled};
use crate::call::heard_before::ReuseConfig;
use crate::clock::{Clock, Entropy};
use crate::ids::CustomerId;
use crate::media::wav;
use crate::speech::Utterance;
use crate::store::consents::WRITTEN_CONSENT;
use crate::store::{self, AuditRecord, EnrolmentRecord, FingerprintRecord, Store, TemplateRecord};
use crate::vault::Vault;
use crate::voiceprint::fingerprint::{FingerprintKey, Fingerprinter, Probe};
use crate::voiceprint::{Embedder, Enrolment, Take, Template, VoiceConfig};

/// Enrolments at a time: each takes a core for seconds, and calls need theirs.
const AT_ONCE: usize = 1;

/// The models and what is stored with a template.
pub struct FromRecordings {
    store: Arc<dyn Store>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    embedder: Arc<Embedder>,
    voice: VoiceConfig,
    reuse: ReuseConfig,
    places: Semaphore,
}

impl std::fmt::Debug for FromRecordings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FromRecordings")
    }
}

impl FromRecordings {
    /// Joins the parts.
    pub fn new(
        (store, vault): (Arc<dyn Store>, Vault),
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        embedder: Arc<Embedder>,
        (voice, reuse): (VoiceConfig, ReuseConfig),
    ) -> Self {
        Self { store, vault, clock, entropy, embedder, voice, reuse, places: Semaphore::new(AT_ONCE) }
    }
}

fn failed(error: impl std::fmt::Display) -> NotEnrolled {
    NotEnrolled::Failed(error.to_string())
}

#[async_trait]
impl Enroller for FromRecordings {
    async fn enrol(
        &self,
        customer: &CustomerId,
        consent_by: &str,
        actor: &str,
        wavs: Vec<Vec<u8>>,
    ) -> Result<Enrolled, NotEnrolled> {
        let _place = self.places.try_acquire().map_err(|_| NotEnrolled::Busy)?;
        let (embedder, voice, entropy) = (Arc::clone(&self.embedder), self.voice.clone(), Arc::clone(&self.entropy));
        let recordings = wavs.len();
        let made = tokio::task::spawn_blocking(move || template_of(&wavs, &embedder, voice, &*entropy)).await.map_err(failed)?;
        let (template, utterances) = made?;
        let (now, model) = (self.clock.now(), template.model().as_str().to_owned());
        let key = store::customer_key_to_seal(&*self.store, &self.vault, customer).await.map_err(failed)?;
        let record = EnrolmentRecord {
            template: TemplateRecord {
                customer: customer.clone(),
                sealed: key.seal_template(&model, &template.to_bytes()).map_err(failed)?,
                model: model.clone(),
                created_at: now,
            },
            invite: None,
            consent_text_version: WRITTEN_CONSENT.into(),
            consent_by: consent_by.to_owned(),
            consent_at: now,
            call: None,
        };
        let detail = json!({ "model": model, "recordings": recordings });
        let audit = AuditRecord::fresh(now, &*self.entropy, actor, "voice.enrolled", customer.as_str(), detail);
        self.store.complete_enrolment(&record, &audit).await.map_err(failed)?;
        // Whoever plays one of these recordings into a call is known by it.
        let (maker, mark) = (Fingerprinter::new(), FingerprintKey::new(&self.vault.fingerprint_key(customer)));
        for utterance in &utterances {
            let probe = Probe::new(&maker, &utterance.samples_16k, &mark);
            let sealed = key.seal_fingerprint(&probe.fingerprint().to_bytes()).map_err(failed)?;
            let kept =
                FingerprintRecord { customer: customer.clone(), sealed, heard_at: now, expires_at: self.reuse.expiry(now) };
            self.store.keep_fingerprint(&kept, self.reuse.keep_limit_utterances).await.map_err(failed)?;
        }
        Ok(Enrolled { model, net_speech_ms: template.net_speech_ms() })
    }
}

fn template_of(
    wavs: &[Vec<u8>],
    embedder: &Embedder,
    cfg: VoiceConfig,
    entropy: &dyn Entropy,
) -> Result<(Template, Vec<Utterance>), NotEnrolled> {
    let mut utterances = Vec::with_capacity(wavs.len());
    let mut enrolment = Enrolment::new(cfg);
    for (n, wav) in (1_u32..).zip(wavs) {
        let name = format!("recording {n}");
        let wrong = |e: &dyn std::fmt::Display| NotEnrolled::Recordings(format!("{name}: {e}"));
        let sound = wav::read_wav_bytes(Path::new(&name), wav).map_err(|e| NotEnrolled::Recordings(e.to_string()))?;
        wav::check_speech(&sound).map_err(|e| wrong(&e))?;
        let utterance = Utterance::from_recording(&sound.samples, sound.rate);
        let seed = u64::from_le_bytes(entropy.bytes());
        let take = Take::of(embedder, &utterance.samples_16k, utterance.net_speech_ms, seed).map_err(|e| wrong(&e))?;
        enrolment.add(take).map_err(|e| wrong(&e))?;
        utterances.push(utterance);
    }
    let unfit = |e: String| NotEnrolled::Recordings(format!("the recordings make no voice template: {e}"));
    Ok((enrolment.finish().map_err(|e| unfit(e.to_string()))?, utterances))
}
