//! What the process tells of itself: logs, by one subscriber on standard error, so that standard output stays for answers; and
//! counts, in `metrics`.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

// The paths are written out, as this file is also compiled as a leaf of smaller crates.
#[path = "telemetry/family.rs"]
mod family;
#[path = "telemetry/metrics.rs"]
pub mod metrics; // every metric there is

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; colours only on a terminal.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// The filter in force, for [`set_filter`].
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Installs the subscriber. `default_filter` (a `tracing` directive such as `voicepay=info`) applies unless
/// `VOICEPAY_LOG` is set. A second call changes nothing, so that tests may call it freely.
pub fn init(format: LogFormat, default_filter: &str) {
    let filter = EnvFilter::try_from_env("VOICEPAY_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter));
    let (filter, handle) = reload::Layer::new(filter);
    let cap = stack_cap();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second initialisation (tests in one process) is not an error worth stopping for.
    let set = match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_filter(cap);
            tracing_subscriber::registry().with(filter).with(lines).try_init()
        }
        LogFormat::Json => tracing_subscriber::registry().with(filter).with(lines.json().with_filter(cap)).try_init(),
    };
    if set.is_ok() {
        let _only_the_first = FILTER.set(handle);
    }
}

/// The SIP stack writes whole messages at `info`: who calls whom, and whatever a peer puts into a body, keyed digits among it. Whatever
/// the filter says, that is never let through: every layer that writes anything carries this.
pub fn stack_cap() -> FilterFn {
    filter_fn(|m| !m.target().starts_with("rsipstack") || *m.level() <= tracing::Level::WARN)
}

/// Whether a filter can be used; says what is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|e| e.to_string())
}

/// Changes the filter of a running process, unless `VOICEPAY_LOG` rules.
pub fn set_filter(filter: &str) -> Result<(), String> {
    let new = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
    if EnvFilter::try_from_env("VOICEPAY_LOG").is_ok() {
        return Ok(());
    }
    match FILTER.get() {
        Some(handle) => handle.reload(new).map_err(|e| e.to_string()),
        None => Ok(()), // nobody logs
    }
}
