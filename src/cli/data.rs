//! What the commands about customers and money share: the open database, the vault, and which exit code an error has.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Context;
use super::exit::{CliError, Exit};
use crate::clock::{Clock, Entropy, SystemClock, SystemEntropy, Timestamp};
use crate::ids::{AuditId, Tenant};
use crate::store::{self, AuditRecord, Store, StoreConfig, StoreError, UnlockError};
use crate::telemetry::{self, LogFormat};
use crate::vault::{Vault, VaultConfig, VaultError};

/// The data that a command works on.
pub(super) struct Data {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The wall clock.
    pub clock: SystemClock,
    /// The system's generator.
    pub entropy: Arc<dyn Entropy>,
    vault: VaultConfig,
}

impl Data {
    /// Opens what the configuration names.
    pub(super) async fn open(ctx: &Context) -> Result<Self, CliError> {
        // A command answers on standard output; what went wrong below, and that a key was made, is told on standard error.
        telemetry::init(LogFormat::Text, "voicepay=warn");
        let (store, vault) = configs(ctx)?;
        let store = store::open(&store).await.map_err(store_error)?;
        Ok(Self { store, clock: SystemClock, entropy: Arc::new(SystemEntropy), vault })
    }

    /// The vault that goes with the database.
    pub(super) async fn vault(&self) -> Result<Vault, CliError> {
        store::unlock(&*self.store, &self.vault, self.entropy.clone()).await.map_err(unlock_error)
    }

    /// Now.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// An audit row for what this command does.
    pub(super) fn audit(&self, action: &str, subject: &str, detail: Value) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(&*self.entropy),
            at: self.now(),
            actor: "cli".into(),
            action: action.into(),
            subject: subject.into(),
            detail,
        }
    }
}

fn configs(ctx: &Context) -> Result<(StoreConfig, VaultConfig), CliError> {
    let cfg = ctx.config()?;
    Ok((cfg.store, cfg.vault))
}

/// Runs a command's future.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new(Exit::Unexpected, format!("the runtime can't be started: {e}")))?
        .block_on(work)
}

/// The exit code of a database error: its own fault, or a rule that refuses.
pub(super) fn store_error(error: StoreError) -> CliError {
    let exit = match &error {
        StoreError::Open { .. }
        | StoreError::Migrate { .. }
        | StoreError::Busy
        | StoreError::Unreachable(_)
        | StoreError::Unsure(_)
        | StoreError::Damaged { .. }
        | StoreError::Failed(_) => Exit::Database,
        StoreError::Exists(_) | StoreError::NotFound(_) | StoreError::Refused(_) | StoreError::Conflict(_) => Exit::Refused,
    };
    CliError::new(exit, error)
}

/// The exit code of a vault error.
pub(super) fn vault_error(error: VaultError) -> CliError {
    CliError::new(Exit::MasterKey, error)
}

/// The exit code of what has to do with both.
pub(super) fn unlock_error(error: UnlockError) -> CliError {
    match error {
        UnlockError::Vault(e) => vault_error(e),
        UnlockError::Store(e) => store_error(e),
    }
}

/// Refused by a rule: what, and what to do.
pub(super) fn refused(sentence: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Refused, sentence)
}

/// Whether there is such a tenant: what is a misspelt one's nobody would ever see.
pub(super) async fn known_tenant(store: &dyn Store, tenant: &Tenant) -> Result<(), CliError> {
    if store.tenants().await.map_err(store_error)?.iter().any(|t| t.name == *tenant) {
        return Ok(());
    }
    Err(refused(format!("there is no tenant {tenant}: see `voicepay tenant list`")))
}

/// A name for people: not empty, no control characters, not endless.
pub(super) fn name(text: &str) -> Result<String, CliError> {
    const NAME_MAX_CHARS: usize = 100;
    let text = text.trim();
    if text.is_empty() || text.chars().count() > NAME_MAX_CHARS || text.chars().any(char::is_control) {
        return Err(refused(format!("a name has 1 to {NAME_MAX_CHARS} characters and no control characters")));
    }
    Ok(text.to_owned())
}

/// How often a long command tells how far it is, in milliseconds.
const PROGRESS_MS: u64 = 2_000;

/// Tells on standard error how far a long command is.
pub(super) struct Progress {
    next: Instant,
}

impl Progress {
    pub(super) fn start() -> Self {
        Self { next: Instant::now() + Duration::from_millis(PROGRESS_MS) }
    }

    /// Tells it, if it is time again.
    pub(super) fn tell(&mut self, so_far: impl FnOnce() -> String) {
        if Instant::now() >= self.next {
            eprintln!("{}", so_far());
            self.next = Instant::now() + Duration::from_millis(PROGRESS_MS);
        }
    }
}
