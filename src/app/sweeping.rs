//! What is looked after in the background beside payments: approvals that are due, and what is over its time.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Office;
use crate::clock::{Clock, Entropy};
use crate::config::Config;
use crate::rights::retention::Sweeper;

impl Office {
    /// Both, until `stop`.
    pub(super) fn sweep(
        &self,
        config: &Config,
        (clock, entropy): (&Arc<dyn Clock>, &Arc<dyn Entropy>),
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let approvals = self.agreements.clone();
        let (store, cfg) = (Arc::clone(&self.store), config.retention.clone());
        let clocks = Sweeper::new(store, Arc::clone(clock), Arc::clone(entropy), cfg);
        async move {
            tokio::join!(approvals.run(stop.clone()), clocks.run(stop));
        }
    }
}
