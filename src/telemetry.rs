//! Logs: one subscriber for the whole process, on standard error, so that standard output stays for answers.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
    // The SIP stack writes whole messages at `info`: who calls whom, and whatever a peer puts into a body. Never let that through.
    let filter = match "rsipstack=warn".parse() {
        Ok(cap) => filter.add_directive(cap),
        Err(_) => filter,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second initialisation (tests in one process) is not an error worth stopping for.
    let _already_set = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
