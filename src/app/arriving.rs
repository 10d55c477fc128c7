//! Calls that come in: each gets a place and a task of its own.

use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;

use super::records::Records;
use crate::call::registry::LiveCall;
use crate::call::{CallRecord, Services, run_call};
use crate::ids::CallId;
use crate::media::leg::Leg;
use crate::telemetry::metrics::metrics;

/// One task a call, until no more come.
pub(super) async fn take_calls(
    current: watch::Receiver<Arc<Services>>,
    mut legs: mpsc::Receiver<Leg>,
    records: broadcast::Sender<CallRecord>,
    book: Arc<Records>,
) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            leg = legs.recv() => match leg {
                Some(mut leg) => {
                    let services = Arc::clone(&current.borrow());
                    let live = LiveCall { since: services.clock.now(), peer: leg.info.peer.clone(), customer: None };
                    let id = CallId::fresh_at(live.since, services.entropy.as_ref());
                    let Some(place) = services.registry.enter(id.clone(), live) else {
                        tracing::warn!(peer = %leg.info.peer, "no place for another call");
                        continue; // dropping the leg hangs up
                    };
                    metrics().calls_started.inc([&leg.info.trunk]);
                    let (records, book) = (records.clone(), Arc::clone(&book));
                    let (info, report) = leg.take_report();
                    calls.spawn(async move {
                        let _place = place;
                        let record = run_call(id, leg, services).await;
                        book.keep(&info, record, report, &records).await;
                    });
                }
                None => break,
            },
            Some(ended) = calls.join_next(), if !calls.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a call's task failed; other calls go on");
                }
            }
        }
    }
    while calls.join_next().await.is_some() {}
}
