//! What is looked after in the background beside payments: approvals that are due, calls that are owed and wait for nothing, and what is over
//! its time.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Office;
use super::call_details::CallDetailsClock;
use super::owed::Owed;
use crate::clock::{Clock, Entropy};
use crate::config::Config;
use crate::rights::retention::Sweeper;

impl Office {
    /// All of it, until `stop`.
    pub(super) fn sweep(
        &self,
        config: &Config,
        (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let approvals = self.agreements.clone();
        let (store, cfg) = (Arc::clone(&self.store), config.retention.clone());
        let clocks = Sweeper::new(store, Arc::clone(clock), Arc::clone(entropy), cfg);
        let owed = Owed {
            store: Arc::clone(&self.store),
            clock: Arc::clone(clock),
            entropy: Arc::clone(entropy),
            tell_payer: config.callbacks.tell_payer,
        };
        let files = CallDetailsClock {
            dir: config.ops.cdr_dir.clone(),
            cfg: config.retention.clone(),
            store: Arc::clone(&self.store),
            clock: Arc::clone(clock),
            entropy: Arc::clone(entropy),
        };
        async move {
            tokio::join!(approvals.run(stop.clone()), owed.run(stop.clone()), clocks.run(stop.clone()), files.run(stop));
        }
    }
}
