//! Whether a template may follow its voice: a small step after a call that left no doubt, never far from the voice that was enrolled.
//! A template that follows anything else is how an impostor moves in, so every condition must hold, and each has its name.

use serde::{Deserialize, Serialize};

/// `[refresh]`: how a template follows its voice. It does so only for customers who agreed to it (`voicepay enrol follow`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefreshConfig {
    /// The voice of the fresh digits must be so many nats above what accepts it.
    pub margin_nats: f32,
    /// Its share in the new template.
    pub weight: f32,
    /// The new template may be no further than this from the enrolled one (cosine): from there on the customer enrols anew.
    pub drift_min_cosine: f32,
    /// No two steps within this time, in hours.
    pub interval_h: u32,
    /// Templates that are kept, sealed, to go back to; the enrolled one is always among them.
    pub kept_templates: u32,
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self { margin_nats: 3.0, weight: 0.1, drift_min_cosine: 0.9, interval_h: 24, kept_templates: 5 }
    }
}

impl RefreshConfig {
    /// What parses but cannot work: the key, and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key: &'static str, what: &'static str| if ok { Ok(()) } else { Err((key, what)) };
        rule(self.margin_nats.is_finite() && self.margin_nats >= 0.0, "margin_nats", "must be 0 or more")?;
        rule(self.weight > 0.0 && self.weight <= 0.3, "weight", "must be above 0 and at most 0.3")?;
        rule((0.5..=1.0).contains(&self.drift_min_cosine), "drift_min_cosine", "must be 0.5 to 1")?;
        rule((2..=100).contains(&self.kept_templates), "kept_templates", "must be 2 to 100")
    }
}

/// What is known when a paid call ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RefreshFacts {
    /// The customer agreed.
    pub consent: bool,
    /// Fresh digits were said, and taken, in this call.
    pub challenged: bool,
    /// Their voice, in nats.
    pub voice_llr: f32,
    /// What accepts a voice, in nats.
    pub accept_llr: f32,
    /// Somebody vouches for the number, and nothing failed of late.
    pub unblemished: bool,
    /// Hours since the last step or the enrolment.
    pub hours_since: u64,
    /// The new template beside the enrolled one, as a cosine.
    pub drift_cosine: f32,
}

/// Whether to take the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshVerdict {
    /// Take it.
    Step,
    /// Not now.
    Stay(Because),
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// The customer did not agree.
    NoConsent,
    /// No fresh digits were said.
    NotChallenged,
    /// The voice was good, but not that good.
    NoMargin,
    /// Something about the call was in doubt.
    Blemished,
    /// The last step was just now.
    TooSoon,
    /// It would go too far from the enrolled voice: worth a person's look.
    Drifted,
}

/// Decides. What is not a number never steps.
pub fn may_refresh(cfg: &RefreshConfig, f: &RefreshFacts) -> RefreshVerdict {
    let checks = [
        (f.consent, Because::NoConsent),
        (f.challenged, Because::NotChallenged),
        (f.unblemished, Because::Blemished),
        (f.accept_llr.is_finite() && f.voice_llr.is_finite() && f.voice_llr >= f.accept_llr + cfg.margin_nats, Because::NoMargin),
        (f.hours_since >= u64::from(cfg.interval_h), Because::TooSoon),
        (f.drift_cosine >= cfg.drift_min_cosine, Because::Drifted),
    ];
    match checks.into_iter().find(|(holds, _)| !holds) {
        Some((_, because)) => RefreshVerdict::Stay(because),
        None => RefreshVerdict::Step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> RefreshFacts {
        RefreshFacts {
            consent: true,
            challenged: true,
            voice_llr: 9.0,
            accept_llr: 5.0,
            unblemished: true,
            hours_since: 24,
            drift_cosine: 0.95,
        }
    }

    #[test]
    fn a_template_follows_its_voice_only_when_everything_speaks_for_it() {
        let verdict = |facts| may_refresh(&RefreshConfig::default(), &facts);
        assert_eq!(verdict(good()), RefreshVerdict::Step);
        let table = [
            (RefreshFacts { consent: false, ..good() }, Because::NoConsent),
            (RefreshFacts { challenged: false, ..good() }, Because::NotChallenged),
            (RefreshFacts { unblemished: false, ..good() }, Because::Blemished),
            (RefreshFacts { voice_llr: 7.9, ..good() }, Because::NoMargin),
            (RefreshFacts { voice_llr: f32::NAN, ..good() }, Because::NoMargin),
            (RefreshFacts { accept_llr: f32::NEG_INFINITY, ..good() }, Because::NoMargin),
            (RefreshFacts { hours_since: 23, ..good() }, Because::TooSoon),
            (RefreshFacts { drift_cosine: 0.89, ..good() }, Because::Drifted),
            (RefreshFacts { drift_cosine: f32::NAN, ..good() }, Because::Drifted),
        ];
        for (facts, because) in table {
            assert_eq!(verdict(facts), RefreshVerdict::Stay(because));
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let bad = |c: RefreshConfig| c.check().unwrap_err().0;
        let d = RefreshConfig::default;
        assert!(d().check().is_ok());
        assert_eq!(bad(RefreshConfig { weight: 0.5, ..d() }), "weight");
        assert_eq!(bad(RefreshConfig { margin_nats: f32::NAN, ..d() }), "margin_nats");
        assert_eq!(bad(RefreshConfig { drift_min_cosine: 0.1, ..d() }), "drift_min_cosine");
        assert_eq!(bad(RefreshConfig { kept_templates: 1, ..d() }), "kept_templates");
    }
}
