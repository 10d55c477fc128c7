//! What a type can't say: values that parse but can't work together.

use super::{Config, ConfigError};
use crate::gateway::{GatewayConfig, GatewayKind};
use crate::processor::ProcessorConfig;

pub(super) fn check(c: &Config) -> Result<(), ConfigError> {
    let rule = |ok: bool, key: &str, what: &str| {
        if ok { Ok(()) } else { Err(ConfigError::Rule { key: key.to_owned(), what: what.to_owned() }) }
    };
    rule(c.sip.max_calls >= 1, "sip.max_calls", "must be at least 1")?;
    rule(c.sip.max_calls_per_s >= 1, "sip.max_calls_per_s", "must be at least 1")?;
    crate::sip::trunk::config::check(&c.sip).map_err(|e| ConfigError::Rule { key: e.key, what: e.what })?;
    c.sip.stir.check().map_err(|(key, what)| ConfigError::RoomRule { section: "sip", key, what })?;
    let country = &c.identity.default_country;
    rule(
        country.len() <= 3 && country.bytes().all(|b| b.is_ascii_digit()) && !country.starts_with('0'),
        "identity.default_country",
        "must be a country code in digits such as 44, or empty",
    )?;
    c.dialogue.check().map_err(|(key, what)| ConfigError::RoomRule { section: "dialogue", key, what })?;
    c.challenge.check().map_err(|(key, what)| ConfigError::RoomRule { section: "challenge", key, what })?;
    c.speech.pickup.check().map_err(|(key, what)| ConfigError::RoomRule { section: "speech", key, what })?;
    c.media.validate().map_err(ConfigError::Media)?;
    c.webrtc.check().map_err(|(key, what)| ConfigError::RoomRule { section: "webrtc", key, what })?;
    rule(
        (1..=10).contains(&c.voice.enrol_min_utterances),
        "voice.enrol_min_utterances",
        "must be 1 to 10: nobody says more in one call",
    )?;
    c.decision.check().map_err(|(key, what)| ConfigError::RoomRule { section: "decision", key, what })?;
    rule((1..=3_650).contains(&c.reuse.keep_days), "reuse.keep_days", "must be 1 to 3650: nothing is kept for ever")?;
    rule(
        (1..=5_000).contains(&c.reuse.keep_limit_utterances),
        "reuse.keep_limit_utterances",
        "must be 1 to 5000: each utterance is compared with all of them",
    )?;
    c.gateway.check().map_err(|(key, what)| ConfigError::Rule { key, what })?;
    for bank in std::iter::once(&c.gateway).chain(c.gateway.banks.values()) {
        check_times(bank, &c.processor)?;
    }
    rule(
        (60..=2_592_000).contains(&c.agreement.approval_valid_s),
        "agreement.approval_valid_s",
        "must be 60 to 2592000: nobody is asked for ever",
    )?;
    rule((100..=600_000).contains(&c.agreement.sweep_ms), "agreement.sweep_ms", "must be 100 to 600000")?;
    c.notify.check().map_err(|(key, what)| ConfigError::RoomRule { section: "notify", key, what })?;
    rule(
        (1..=1_440).contains(&c.agreement.confirmation_valid_min),
        "agreement.confirmation_valid_min",
        "must be 1 to 1440: who confirms a purchase does so while they remember it",
    )?;
    c.agreement.check().map_err(|(key, what)| ConfigError::Rule { key, what })?;
    c.callbacks.check().map_err(|(key, what)| ConfigError::RoomRule { section: "callbacks", key, what })?;
    rule(
        c.callbacks.trunk.is_empty() || c.sip.trunks.iter().any(|t| t.name == c.callbacks.trunk && t.target.is_some()),
        "callbacks.trunk",
        "must name a trunk with a target, or be empty",
    )?;
    c.refresh.check().map_err(|(key, what)| ConfigError::RoomRule { section: "refresh", key, what })?;
    c.audit.check().map_err(|(key, what)| ConfigError::RoomRule { section: "audit", key, what })?;
    c.retention.check().map_err(|(key, what)| ConfigError::RoomRule { section: "retention", key, what })?;
    c.ops.check().map_err(|(key, what)| ConfigError::RoomRule { section: "ops", key, what })?;
    c.api.check().map_err(|(key, what)| ConfigError::RoomRule { section: "api", key, what })?;
    c.app.check().map_err(|(key, what)| ConfigError::RoomRule { section: "app", key, what })?;
    if let Err(why) = crate::telemetry::check_filter(&c.service.log) {
        return Err(ConfigError::Rule {
            key: "service.log".to_owned(),
            what: format!("is no filter of tracing directives: {why}"),
        });
    }
    rule(c.inference.deadline_ms >= 1_000, "inference.deadline_ms", "must be at least 1000: no recognition is quicker under load")
}

/// What an acquirer's own bounds ask of the processor's.
fn check_times(gateway: &GatewayConfig, processor: &ProcessorConfig) -> Result<(), ConfigError> {
    let rule = |ok: bool, key: &str, what: &str| {
        if ok { Ok(()) } else { Err(ConfigError::Rule { key: key.to_owned(), what: what.to_owned() }) }
    };
    // Connecting, and then waiting for an answer; whoever waits for less cuts a charge off that might have been answered.
    let bank = &gateway.iso8583;
    rule(
        gateway.kind != GatewayKind::Iso8583
            || bank.connect_timeout_ms.saturating_add(bank.response_timeout_ms) <= processor.gateway_timeout_ms,
        "processor.gateway_timeout_ms",
        "must be at least gateway.iso8583.connect_timeout_ms and response_timeout_ms together",
    )?;
    // Stripe keeps idempotency keys for a day from when it first sees them; an hour less is for clocks that differ.
    const STRIPE_RESEND_LIMIT_MS: u64 = 23 * 3_600_000;
    rule(
        gateway.kind != GatewayKind::Stripe || processor.resend_window_ms <= STRIPE_RESEND_LIMIT_MS,
        "processor.resend_window_ms",
        "must be at most 82800000 with Stripe: afterwards it may have forgotten the key, and would charge again",
    )?;
    rule(
        gateway.kind != GatewayKind::Stripe || gateway.stripe.timeout_ms.saturating_mul(2) <= processor.gateway_timeout_ms,
        "processor.gateway_timeout_ms",
        "must be at least twice gateway.stripe.timeout_ms: a charge is two requests",
    )
}
