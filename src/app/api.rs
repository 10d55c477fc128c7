//! The REST API: beside calls in one process, or alone in one that takes none.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::enrol::FromRecordings;
use super::{Office, StartError, Voices};
use crate::api::app_calls::AppCalls;
use crate::api::{self, ApiError, Enroller, Live, Parts};
use crate::call::Services;
use crate::clock::{Clock, Entropy};
use crate::config::Config;
use crate::processor::sealer::Sealer;

/// What the API works with.
fn parts(config: &Config, office: &Office, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Parts {
    Parts {
        store: Arc::clone(&office.store),
        vault: office.vault.clone(),
        processor: office.processor.clone(),
        agreements: office.agreements.clone(),
        notifier: office.notifier.clone(),
        clock,
        entropy,
        live: None,
        enroller: None,
        retention: config.retention.clone(),
        app: config.app.clone(),
        app_calls: None,
    }
}

/// Starts it where the configuration names an address. It stops with the payment worker, after the calls.
pub(super) async fn beside_calls(
    config: &Config,
    office: &Office,
    voices: &Voices,
    services: &Arc<Services>,
    app_calls: Option<Arc<dyn AppCalls>>,
    stop: &CancellationToken,
) -> Result<Option<SocketAddr>, StartError> {
    let Some(listen) = config.api.listen else { return Ok(None) };
    let (clock, entropy) = (Arc::clone(&services.clock), Arc::clone(&services.entropy));
    let enroller = FromRecordings::new(
        (Arc::clone(&office.store), office.vault.clone()),
        (Arc::clone(&clock), Arc::clone(&entropy)),
        Arc::clone(&voices.embedder),
        (config.voice.clone(), config.reuse),
    );
    let parts = Parts {
        live: Some(Live { registry: services.registry.clone(), watchers: services.watchers.clone() }),
        enroller: Some(Arc::new(enroller) as Arc<dyn Enroller>),
        app_calls,
        ..parts(config, office, clock, entropy)
    };
    Ok(Some(api::serve(&config.api, listen, parts, stop.clone()).await?))
}

/// The API with the payment worker, the webhooks and the sealer of the audit trail, and no telephone: no models are loaded.
#[derive(Debug)]
pub struct ApiService {
    office: Office,
    address: SocketAddr,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
    sweeper: tokio::task::JoinHandle<()>,
    teller: tokio::task::JoinHandle<()>,
}

impl ApiService {
    /// Opens everything and answers.
    pub async fn start(config: &Config, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, StartError> {
        Self::start_with(config, clock, entropy, None).await
    }

    /// The same with somebody who answers pages' offers.
    pub async fn start_with(
        config: &Config,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        app_calls: Option<Arc<dyn AppCalls>>,
    ) -> Result<Self, StartError> {
        let unset = || ApiError { key: "api.listen", why: "is not set: where is the API to be answered?".into() };
        let listen = config.api.listen.ok_or_else(unset)?;
        let office = Office::open(config, Arc::clone(&clock), Arc::clone(&entropy)).await?;
        let stop = CancellationToken::new();
        let worker = tokio::spawn({
            let (processor, stop) = (office.processor.clone(), stop.clone());
            let (store, vault) = (Arc::clone(&office.store), office.vault.clone());
            let sealer = Sealer::new(store, vault, Arc::clone(&clock), Arc::clone(&entropy), config.audit.clone());
            async move { sealer.beside(processor.run(stop)).await }
        });
        let sweeper = tokio::spawn(office.sweep(config, (&clock, &entropy), stop.clone()));
        let teller = tokio::spawn(office.notifier.clone().run(stop.clone()));
        let parts = Parts { app_calls, ..parts(config, &office, clock, entropy) };
        let address = api::serve(&config.api, listen, parts, stop.clone()).await?;
        Ok(Self { office, address, stop, worker, sweeper, teller })
    }

    /// Where it is answered.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The store, the vault and the processor.
    pub fn office(&self) -> &Office {
        &self.office
    }

    /// No more requests; what is being sent is finished.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "the payment worker did not end well; what is in doubt is swept at the next start");
        }
        if let Err(error) = self.sweeper.await {
            tracing::error!(%error, "the sweep of approvals did not end well; what is due is swept at the next start");
        }
        if let Err(error) = self.teller.await {
            tracing::error!(%error, "who tells tenants did not end well; what was under way is told again");
        }
    }
}
