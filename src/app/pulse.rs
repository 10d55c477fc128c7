//! What `/metrics` and `/readyz` ask of the running service.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::call::Services;
use crate::ops::http::Probe;
use crate::sip::Trunks;
use crate::sip::wire::Wire;
use crate::store::Store;
use crate::telemetry::metrics::metrics;

/// The service's pulse.
pub(super) struct Pulse {
    pub(super) services: watch::Receiver<Arc<Services>>,
    pub(super) store: Arc<dyn Store>,
    pub(super) trunks: Trunks,
    pub(super) wire: Arc<Wire>,
    pub(super) draining: CancellationToken,
}

#[async_trait]
impl Probe for Pulse {
    fn sample(&self) {
        let (all, services) = (metrics(), Arc::clone(&self.services.borrow()));
        all.build_info.set([env!("CARGO_PKG_VERSION")], 1.0);
        all.calls_up.set_count([], services.registry.live());
        all.calls_limit.set_count([], services.registry.limit());
        all.inferences_in_flight.set_count([], services.inference.in_flight());
        all.inferences_limit.set_count([], services.inference.capacity());
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        // Told anew each time: a trunk that a reload removed must not stand for ever.
        all.trunk_up.clear();
        all.trunk_registered.clear();
        all.trunk_calls.clear();
        for (trunk, calls) in self.trunks.calls() {
            all.trunk_calls.set_count([&trunk], calls);
        }
        for trunk in self.trunks.status() {
            if !trunk.places.is_empty() {
                all.trunk_up.set([&trunk.name], flag(trunk.places.iter().any(|p| p.up)));
            }
            if let Some(registration) = &trunk.registration {
                all.trunk_registered.set([&trunk.name], flag(registration.registered));
            }
        }
        let wire = self.wire.figures();
        #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // exact up to 2^53
        let fates = [
            ("passed", wire.passed as f64),
            ("answered", wire.answered as f64),
            ("dropped", wire.dropped as f64),
            ("busy", wire.busy as f64),
            ("merged", wire.merged as f64),
        ];
        for (fate, messages) in fates {
            all.sip_messages.set([fate], messages);
        }
        for (reason, count) in self.trunks.refusals().all() {
            #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // exact up to 2^53
            all.refusals.set([reason.name()], count as f64);
        }
    }

    async fn ready(&self) -> Result<(), &'static str> {
        if self.draining.is_cancelled() {
            return Err("draining");
        }
        // A small read that goes the way of all others.
        self.store.audit_trail(1).await.map(drop).map_err(|_| "the database does not answer")
    }
}
