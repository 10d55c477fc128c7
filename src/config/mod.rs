//! One TOML, a section a room; a room is given its own section, never the whole.
//!
//! Three layers, each overriding the one before: `config/default.toml` (compiled in; documents every key), the operator's file,
//! and the environment (`VOICEPAY__SIP__LISTEN=…` sets `sip.listen`). A wrong key or value names itself and its line.

mod load;
mod reload;
mod rules;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use load::{ConfigError, DEFAULT_TOML};
pub use reload::Changes;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The process as a whole.
    pub service: ServiceConfig,
    /// Who calls.
    pub identity: IdentityConfig,
    /// Signalling.
    pub sip: crate::sip::SipConfig,
    /// Audio on the wire.
    pub media: crate::media::config::MediaConfig,
    /// Calls from browsers.
    pub webrtc: crate::webrtc::WebrtcConfig,
    /// Limits and waits of a call.
    pub dialogue: crate::dialogue::DialogueConfig,
    /// Fresh digits: how they are asked for.
    pub challenge: crate::dialogue::ChallengeConfig,
    /// When the caller speaks.
    pub speech: crate::speech::SpeechConfig,
    /// Who speaks.
    pub voice: crate::voiceprint::VoiceConfig,
    /// What number was said.
    pub number: crate::speech::NumberConfig,
    /// How sure we want to be.
    pub decision: crate::decision::DecisionConfig,
    /// How a template follows its voice.
    pub refresh: crate::decision::refresh::RefreshConfig,
    /// The pool that models run on.
    pub inference: crate::call::inference::InferenceConfig,
    /// Audio that was heard before.
    pub reuse: crate::call::heard_before::ReuseConfig,
    /// Calls that we owe.
    pub callbacks: crate::call::callbacks::CallbacksConfig,
    /// The database.
    pub store: crate::store::StoreConfig,
    /// Sealed card numbers.
    pub vault: crate::vault::VaultConfig,
    /// The acquirer.
    pub gateway: crate::gateway::GatewayConfig,
    /// Sending and asking.
    pub processor: crate::processor::ProcessorConfig,
    /// Who else has to agree.
    pub agreement: crate::agreement::AgreementConfig,
    /// Who is told what.
    pub notify: crate::notify::NotifyConfig,
    /// How long what is held of people is kept.
    pub retention: crate::rights::RetentionConfig,
    /// Sealing the audit trail.
    pub audit: crate::processor::sealer::AuditConfig,
    /// What operators see.
    pub ops: crate::ops::OpsConfig,
    /// REST for payees' own systems.
    pub api: crate::api::ApiConfig,
    /// Payments that an app's page confirms by voice.
    pub app: crate::app_sessions::AppConfig,
}

/// The process as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// Where the database, the key file and the sandbox's journal live.
    pub data_dir: PathBuf,
    /// How long shutdown waits for calls to end by themselves, in seconds.
    pub drain_s: u64,
    /// Log filter, as `tracing` directives.
    pub log: String,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { data_dir: "voicepay-data".into(), drain_s: 30, log: "voicepay=info,warn".into() }
    }
}

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// Country code for national caller numbers, digits only (`44`); empty: such numbers identify nobody.
    pub default_country: String,
    /// What is spoken until the customer is known, and then in the customer's own language: `en` or `zh`.
    pub default_language: crate::language::Language,
}

impl Config {
    /// Defaults, then `path` (or `./voicepay.toml` where there is one), then the environment.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        load::load(path, std::env::vars())
    }

    /// Paths that are not absolute lie in the data directory. What one room needs of another's section is put in.
    #[must_use]
    fn in_data_dir(mut self) -> Self {
        let dir = self.service.data_dir.clone();
        // A signed number must be read just as the caller is looked up by it.
        self.sip.stir.default_country.clone_from(&self.identity.default_country);
        let stir = &mut self.sip.stir;
        for path in [&mut stir.https_roots_file].into_iter().chain(&mut stir.roots_file).chain(&mut stir.crl_file) {
            *path = dir.join(&path);
        }
        for trunk in &mut self.sip.trunks {
            let own = trunk.password_file.iter_mut();
            for path in own.chain(trunk.inbound_auth.iter_mut().map(|a| &mut a.password_file)) {
                *path = dir.join(&path);
            }
        }
        let tls = &mut self.sip.tls;
        for path in [&mut tls.certificate, &mut tls.private_key, &mut tls.client_ca, &mut tls.server_ca].into_iter().flatten() {
            *path = dir.join(&path);
        }
        if let Some(path) = &mut self.sip.trace_file {
            *path = dir.join(&path);
        }
        for path in [&mut self.store.path, &mut self.vault.master_key_file, &mut self.gateway.sandbox_journal] {
            *path = dir.join(&path); // joining an absolute path gives that path
        }
        for path in self.gateway.bank_feedback.paths_mut() {
            *path = dir.join(&path);
        }
        for bank in self.gateway.banks.values_mut() {
            bank.sandbox_journal = dir.join(&bank.sandbox_journal);
            for path in bank.iso8583.paths_mut().chain(bank.stripe.paths_mut()) {
                *path = dir.join(&path);
            }
        }
        for path in self.gateway.iso8583.paths_mut().chain(self.gateway.stripe.paths_mut()) {
            *path = dir.join(&path);
        }
        if !self.notify.roots_file.as_os_str().is_empty() {
            self.notify.roots_file = dir.join(&self.notify.roots_file);
        }
        if let Some(path) = &mut self.agreement.policy {
            *path = dir.join(&path);
        }
        let pin_file = &mut self.vault.pkcs11.pin_file;
        if !pin_file.as_os_str().is_empty() {
            *pin_file = dir.join(&pin_file);
        }
        for path in [&mut self.api.certificate, &mut self.api.private_key].into_iter().flatten() {
            *path = dir.join(&path);
        }
        let records = self.ops.cdr_dir.iter_mut().chain([&mut self.ops.recording.dir]);
        for path in records {
            *path = dir.join(&path);
        }
        self
    }

    /// The whole configuration in force, as TOML.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self).map_err(|e| ConfigError::Unprintable(e.to_string()))
    }
}
