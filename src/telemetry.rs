//! Logs: one subscriber for the whole process, on standard error, so that standard output stays for answers.

use std::io::IsTerminal;

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; colours only on a terminal.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Installs the subscriber. `default_filter` (a `tracing` directive such as `voicepay=info`) applies unless
/// `VOICEPAY_LOG` is set. A second call changes nothing, so that tests may call it freely.
pub fn init(format: LogFormat, default_filter: &str) {
    let filter = EnvFilter::try_from_env("VOICEPAY_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter));
    // The SIP stack writes whole messages at `info`: who calls whom, and whatever a peer puts into a body. Whatever the filter says,
    // that is never let through.
    let cap = filter_fn(|m| !m.target().starts_with("rsipstack") || *m.level() <= tracing::Level::WARN);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second initialisation (tests in one process) is not an error worth stopping for.
    let _already_set = match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_filter(cap);
            tracing_subscriber::registry().with(filter).with(lines).try_init()
        }
        LogFormat::Json => tracing_subscriber::registry().with(filter).with(lines.json().with_filter(cap)).try_init(),
    };
}
