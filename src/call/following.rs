//! After a paid call with fresh digits: the customer's template may follow the voice by a small step. Nobody waits for it, and what it
//! replaces is kept, sealed.

use std::sync::Arc;

use super::desk::{Desk, DeskError};
use super::driver::Call;
use super::figures;
use super::timeline::Who;
use super::work::{Done, Kept};
use crate::clock::Timestamp;
use crate::decision::VoiceScore;
use crate::decision::refresh::{Because, RefreshConfig, RefreshFacts, RefreshVerdict, may_refresh};
use crate::ids::{CallId, CustomerId};
use crate::store::{self, TemplateRecord};
use crate::voiceprint::{Embedding, Template};

/// What came of it.
struct Followed {
    verdict: RefreshVerdict,
    drift_cosine: f32,
}

impl Call {
    pub(super) fn follow_voice(&mut self, customer: CustomerId, voice: &VoiceScore, unblemished: bool) {
        let Some((embedding, net_speech_ms)) = self.fresh.take() else { return };
        let (services, call, now) = (Arc::clone(&self.services), self.id.clone(), self.now());
        let facts = RefreshFacts {
            consent: false,
            challenged: true,
            voice_llr: voice.llr,
            accept_llr: services.policy.voice.accept_llr,
            unblemished,
            hours_since: 0,
            drift_cosine: f32::NAN,
        };
        self.jobs.spawn(async move {
            let cfg = services.refresh;
            let heard = (embedding, net_speech_ms);
            let done = services.off_clock(services.desk.follow(&call, &customer, &cfg, heard, facts, now)).await;
            let mut lines = Vec::new();
            match done {
                // Who did not agree needs no line of it.
                Ok(None) => {}
                Ok(Some(Followed { verdict, drift_cosine })) => {
                    let what = match verdict {
                        RefreshVerdict::Step => "the template follows the voice by a step; the one before is kept".to_owned(),
                        RefreshVerdict::Stay(because) => format!("the template stays as it is: {because:?}"),
                    };
                    lines.push((Who::Check, what, figures([("template_drift_cosine", drift_cosine.into())])));
                }
                Err(error) => tracing::error!(%error, "a template could not follow its voice"),
            }
            Done { lines, kept: Kept::Nothing, input: None }
        });
    }
}

impl Desk {
    /// Takes the step if the rule allows it; `None` if the customer did not agree to any.
    async fn follow(
        &self,
        call: &CallId,
        customer: &CustomerId,
        cfg: &RefreshConfig,
        (embedding, net_speech_ms): (Embedding, u32),
        facts: RefreshFacts,
        now: Timestamp,
    ) -> Result<Option<Followed>, DeskError> {
        let Some(state) = self.store.following(customer).await?.filter(|state| state.consent_at.is_some()) else {
            return Ok(None);
        };
        let key = store::customer_key_to_seal(&*self.store, &self.vault, customer).await?;
        let open = |row: &TemplateRecord| -> Result<Template, DeskError> {
            Ok(Template::from_bytes(&key.unseal_template(&row.model, &row.sealed)?)?)
        };
        let (current, enrolled) = (open(&state.current)?, open(&state.enrolled)?);
        let next = current.stepped(&embedding, net_speech_ms, cfg.weight);
        let drift_cosine = next.as_ref().map_or(f32::NAN, |next| next.likeness(&enrolled));
        let hours_since = now.since(state.current.created_at).as_secs() / 3_600;
        let verdict = may_refresh(cfg, &RefreshFacts { consent: true, hours_since, drift_cosine, ..facts });
        if let (RefreshVerdict::Step, Some(next)) = (verdict, &next) {
            let model = next.model().as_str().to_owned();
            let sealed = key.seal_template(&model, &next.to_bytes())?;
            let row = TemplateRecord { customer: customer.clone(), model, sealed, created_at: now };
            let mut audit = self.audit(now, "voice.followed", customer.as_str(), call);
            audit.detail = serde_json::json!({ "call": call, "drift_cosine": drift_cosine });
            self.store.step_template(&row, state.current.created_at, cfg.kept_templates, &audit).await?;
        }
        if verdict == RefreshVerdict::Stay(Because::Drifted) {
            // Somebody should look: the voice has changed, or somebody else's is moving in.
            let news = self.news(now, "voice.drifted", customer, call);
            self.store.announce(&news, &self.audit(now, "voice.drifted", customer.as_str(), call)).await?;
        }
        Ok(Some(Followed { verdict, drift_cosine }))
    }
}
