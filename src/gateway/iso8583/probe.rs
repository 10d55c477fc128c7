//! Trying the hosts out, for `voicepay gateway test`: connection, sign-on and echo, on a line of its own. It asks for no money.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use super::config::Iso8583Config;
use super::dial::Dialer;
use super::line::LineError;
use super::session::Session;
use super::{Iso8583Error, Shared};
use crate::clock::Clock;

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `HOST:PORT`.
    pub host: String,
    /// `connect`, `sign-on` or `echo`.
    pub step: &'static str,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// Tries each host; `tell` hears each finding as it is made. Returns whether every host is well.
pub async fn probe(
    cfg: &Iso8583Config,
    clock: Arc<dyn Clock>,
    tell: &mut (dyn FnMut(&Finding) + Send),
) -> Result<bool, Iso8583Error> {
    let shared = Shared::new(cfg, clock)?;
    let mut well = true;
    for dialer in Dialer::all(cfg)? {
        well &= probe_host(&shared, &dialer, tell).await;
    }
    Ok(well)
}

async fn probe_host(shared: &Shared, dialer: &Dialer, tell: &mut (dyn FnMut(&Finding) + Send)) -> bool {
    let mut found = |step, since: Instant, result: Result<(), LineError>| {
        let error = result.err().map(|e| e.to_string());
        let well = error.is_none();
        let took_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        tell(&Finding { host: dialer.host.clone(), step, took_ms, error });
        well
    };
    let began = Instant::now();
    let wire = match dialer.connect().await {
        Ok(wire) => wire,
        Err(error) => return found("connect", began, Err(error)),
    };
    found("connect", began, Ok(()));
    let mut session = Session::new(shared, wire);
    if shared.sign_on {
        let began = Instant::now();
        let signed = session.sign_on().await;
        if !found("sign-on", began, signed) {
            return false;
        }
    }
    let began = Instant::now();
    let echoed = session.echo().await;
    found("echo", began, echoed)
}
