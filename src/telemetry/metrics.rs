//! The service's metrics, all in one list. They are process-wide, as the process is what a scrape asks about; a room counts with
//! `metrics().calls_ended.inc(["paid"])`, and nobody hands a registry around.
//!
//! `docs/METRICS.md` is this list written out; a test compares.

use std::fmt::Write;
use std::sync::LazyLock;

pub use super::family::{Counter, Description, Family, Gauge, Histogram, Kind, LABEL_SETS_LIMIT, OTHER, REDACTED};

/// From a packet's time to a patient caller's, in seconds.
const SETUP_S: &[f64] = &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const CALL_S: &[f64] = &[5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0];
const JITTER_S: &[f64] = &[0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5];
const MOS: &[f64] = &[1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2, 4.4];
const MODEL_S: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 15.0];

/// Methods that are counted by name; whatever else somebody writes there is OTHER.
const SIP_METHODS: [&str; 14] = [
    "ACK",
    "BYE",
    "CANCEL",
    "INFO",
    "INVITE",
    "MESSAGE",
    "NOTIFY",
    "OPTIONS",
    "PRACK",
    "PUBLISH",
    "REFER",
    "REGISTER",
    "SUBSCRIBE",
    "UPDATE",
];

macro_rules! families {
    ($($field:ident: $kind:ident = $name:literal, [$($label:literal),*] $(by $buckets:ident)?, $help:literal;)*) => {
        /// Every family.
        #[derive(Debug)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            /// All at nothing.
            #[allow(clippy::new_without_default)] // a second set is made by tests only
            pub fn new() -> Self {
                #[allow(unused_mut, unused_assignments)]
                Self {
                    $($field: $kind::new(Description {
                        name: $name, help: $help, labels: &[$($label),*],
                        buckets: { let mut buckets: &'static [f64] = &[]; $(buckets = $buckets;)? buckets },
                    }),)*
                }
            }

            /// In the order of the list.
            pub fn families(&self) -> Vec<&dyn Family> {
                vec![$(&self.$field),*]
            }
        }
    };
}

families! {
    calls_up: Gauge = "voicepay_calls_up", [], "Calls that are up now.";
    calls_limit: Gauge = "voicepay_calls_limit", [], "Calls that may be up at a time (sip.max_calls).";
    calls_started: Counter = "voicepay_calls_started_total", ["trunk"], "Calls answered, by the trunk they came over.";
    calls_ended: Counter = "voicepay_calls_ended_total", ["verdict"], "Calls over, by the dialogue's verdict.";
    callbacks: Counter = "voicepay_callbacks_total", ["outcome"], "Tries to place a call that we owe, by what came of them.";
    calls_refused: Counter = "voicepay_calls_refused_total", ["status"], "Calls refused before they were answered, by SIP status.";
    refusals: Gauge = "voicepay_call_refusals_total", ["reason"], "Calls refused, by our own reason: draining, calls, unknown_peer, no_srtp and others.";
    call_setup: Histogram = "voicepay_call_setup_seconds", [] by SETUP_S, "From the INVITE to our 200, in seconds.";
    call_duration: Histogram = "voicepay_call_duration_seconds", [] by CALL_S, "From answer to end of a call, in seconds.";
    app_sessions: Counter = "voicepay_app_sessions_total", ["step"], "Steps of app sessions: created, opened (a page used the token), returned (no call began), over, expired.";
    app_results: Counter = "voicepay_app_results_total", ["result"], "App sessions over, by their result: paid, refused, declined, waiting, cancelled, failed.";
    app_setup: Histogram = "voicepay_app_call_setup_seconds", [] by SETUP_S, "From a page's offer until its audio flows, in seconds.";

    sip_requests: Counter = "voicepay_sip_requests_total", ["method"], "SIP requests received, by method; unknown methods are OTHER.";
    sip_responses: Counter = "voicepay_sip_responses_total", ["class"], "SIP responses sent, by class (1xx to 6xx).";
    sip_messages: Gauge = "voicepay_sip_messages_total", ["fate"], "SIP messages that came in, by what became of them: passed to the stack, answered without it, dropped; of the last two busy (no room) and merged (the same request by another way).";
    trunk_up: Gauge = "voicepay_trunk_up", ["trunk"], "1 while a trunk answers our OPTIONS, 0 while it doesn't.";
    trunk_calls: Gauge = "voicepay_trunk_calls", ["trunk"], "Calls that are up now, by trunk.";
    trunk_registered: Gauge = "voicepay_trunk_registered", ["trunk"], "1 while a registering trunk is registered, 0 while it isn't.";
    identity_verdicts: Counter = "voicepay_identity_verdicts_total", ["attestation"], "Calls by what their Identity header attests (STIR/SHAKEN).";

    media_sessions: Counter = "voicepay_media_sessions_total", ["codec"], "RTP sessions over, by codec.";
    rtp_packets: Counter = "voicepay_rtp_packets_total", ["fate"], "RTP packets by what became of them: received, lost, late, duplicate, overflowed, malformed, foreign, sent, unsent. Counted when a call ends.";
    rtp_concealed: Gauge = "voicepay_rtp_concealed_seconds_total", [], "Audio made up in place of lost packets, in seconds.";
    rtp_jitter: Histogram = "voicepay_rtp_jitter_seconds", [] by JITTER_S, "Largest interarrival jitter of a call, in seconds.";
    rtp_mos: Histogram = "voicepay_rtp_mos", [] by MOS, "Estimated mean opinion score of a call's incoming audio, 1 to 4.5.";

    inferences_in_flight: Gauge = "voicepay_inferences_in_flight", [], "Inferences running and waiting now.";
    inferences_limit: Gauge = "voicepay_inferences_limit", [], "Inferences that may run and wait; one more is refused.";
    inference_wait: Histogram = "voicepay_inference_wait_seconds", [] by MODEL_S, "How long an inference waited for a thread, in seconds.";
    inference_run: Histogram = "voicepay_inference_run_seconds", [] by MODEL_S, "How long an inference ran, in seconds.";
    inference_refused: Counter = "voicepay_inference_refused_total", ["reason"], "Inferences without an answer: queue_full, too_late, failed.";
    factor_failures: Counter = "voicepay_factor_failures_total", ["factor"], "Factors that failed in calls: voice, number, challenge, code.";
    payments: Counter = "voicepay_payments_total", ["outcome"], "Payments handed over in calls, by what the call learnt: paid, declined, unknown, refused, not_submitted.";
    bank_messages: Counter = "voicepay_bank_messages_total", ["state"], "Messages of a bank that announces deductions, by what became of them: waiting, matched, quarantined, rejected, forged, malformed, refused.";
    bank_instructions: Counter = "voicepay_bank_instructions_total", ["outcome"], "Instructions sent to that bank, by its word: done, refused, unknown (sent again).";
    bank_deductions_open: Gauge = "voicepay_bank_deductions_open", [], "Deductions that wait for a side or for the bank's word, as this node knows them.";

    audit_lost: Gauge = "voicepay_audit_rows_lost", [], "Audit rows that were written and are gone, never sealed (the first hundred): voicepay audit verify names them.";

    cdr_written: Counter = "voicepay_cdr_written_total", [], "Call detail records written.";
    cdr_dropped: Counter = "voicepay_cdr_dropped_total", ["reason"], "Call detail records lost: queue_full, write_failed.";
    spans_exported: Counter = "voicepay_spans_exported_total", [], "Spans that the collector took.";
    spans_dropped: Counter = "voicepay_spans_dropped_total", ["reason"], "Spans lost: queue_full, collector.";
    recordings: Counter = "voicepay_recordings_total", ["outcome"], "Recordings of calls: kept, cut (limit reached), failed, expired.";

    webhooks: Counter = "voicepay_webhooks_total", ["outcome"], "Webhooks tried: delivered, failed, dead.";
    outbox_waiting: Gauge = "voicepay_outbox_waiting", [], "Events that are not handed out to endpoints yet.";
    webhooks_waiting: Gauge = "voicepay_webhooks_waiting", [], "Webhooks that have neither arrived nor been given up, those of disabled endpoints among them.";
    webhooks_oldest: Gauge = "voicepay_webhooks_oldest_waiting_seconds", [], "How long ago the oldest event happened that waits to be handed out or to arrive, in seconds; 0 if none waits. Disabled endpoints do not count.";
    webhooks_dead: Gauge = "voicepay_webhooks_dead", [], "Dead letters: webhooks that were given up and not asked for again.";
    retention_erased: Counter = "voicepay_retention_erased_total", ["what"], "Rows, and files of call detail records, erased because they were over their time, by kind; of calls' evidence, calls that lost it.";
    config_reloads: Counter = "voicepay_config_reloads_total", ["outcome"], "Configurations read again: applied, refused.";
    config_reloaded_at: Gauge = "voicepay_config_last_reload_success_timestamp_seconds", [], "When the configuration in force was read, in seconds since 1970.";
    config_restart_keys: Gauge = "voicepay_config_restart_keys", [], "Keys that differ from the file last read and take effect only at a restart.";
    ready: Gauge = "voicepay_ready", [], "1 while new calls are taken, 0 while starting, draining or without a database.";
    build_info: Gauge = "voicepay_build_info", ["version"], "Always 1; the label says which version runs.";

    process_memory: Gauge = "process_resident_memory_bytes", [], "Resident memory, in bytes.";
    process_cpu: Gauge = "process_cpu_seconds_total", [], "Processor time used, in seconds.";
    process_fds: Gauge = "process_open_fds", [], "File descriptors open.";
    process_max_fds: Gauge = "process_max_fds", [], "File descriptors that may be open.";
    process_threads: Gauge = "process_threads", [], "Threads of the process.";
    process_started: Gauge = "process_start_time_seconds", [], "When the process started, in seconds since 1970.";
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// The process's metrics.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

impl Metrics {
    /// In Prometheus' text format, version 0.0.4.
    pub fn text(&self) -> String {
        super::family::render(&self.families())
    }

    /// The list, for `docs/METRICS.md`.
    pub fn table(&self) -> String {
        let mut out = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
        for family in self.families() {
            let d = family.description();
            let labels = if d.labels.is_empty() { "–".to_owned() } else { format!("`{}`", d.labels.join("`, `")) };
            let _infallible = writeln!(out, "| `{}` | {} | {labels} | {} |", d.name, family.kind().name(), d.help);
        }
        out
    }

    /// A SIP message came in, whatever becomes of it.
    pub fn sip_came(&self, message: &[u8]) {
        if message.starts_with(b"SIP/") {
            return;
        }
        let method = message.split(|b| *b == b' ').next().unwrap_or_default();
        let known = SIP_METHODS.iter().find(|known| known.as_bytes() == method);
        self.sip_requests.inc([known.copied().unwrap_or("OTHER")]);
    }

    /// A SIP message left us.
    pub fn sip_left(&self, message: &[u8]) {
        let status = message.strip_prefix(b"SIP/2.0 ").and_then(|rest| rest.get(..3)).and_then(|d| std::str::from_utf8(d).ok());
        if let Some(status) = status.and_then(|d| d.parse().ok()) {
            self.sip_response(status);
        }
    }

    /// A SIP response left us.
    pub fn sip_response(&self, status: u16) {
        let class = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            500..=599 => "5xx",
            600..=699 => "6xx",
            _ => OTHER,
        };
        self.sip_responses.inc([class]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let metrics = Metrics::new();
        let mut seen = std::collections::BTreeSet::new();
        for family in metrics.families() {
            let d = family.description();
            assert!(seen.insert(d.name), "{} twice", d.name);
            assert!(d.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{}", d.name);
            assert!(d.help.ends_with('.') && !d.help.contains('\n'), "{}: {}", d.name, d.help);
            assert_eq!(d.name.ends_with("_total"), family.kind() == Kind::Counter, "{}", d.name);
            assert_eq!(family.kind() == Kind::Histogram, !d.buckets.is_empty(), "{}", d.name);
            assert!(d.buckets.is_sorted(), "{}", d.name);
        }
    }

    #[test]
    fn the_document_lists_what_there_is() {
        let document = include_str!("../../docs/METRICS.md");
        let table = Metrics::new().table();
        assert!(document.contains(&table), "docs/METRICS.md should hold:\n{table}");
    }

    #[test]
    fn responses_are_counted_by_class() {
        let metrics = Metrics::new();
        for status in [100, 200, 202, 503, 7] {
            metrics.sip_response(status);
        }
        metrics.sip_left(b"SIP/2.0 200 OK\r\n");
        for odd in [&b"SIP/2.0 2"[..], b"SIP/2.0 \xff\xff\xff", b"INVITE sip:x SIP/2.0", b""] {
            metrics.sip_left(odd);
        }
        metrics.sip_came(b"INVITE sip:+447700900123@x SIP/2.0\r\n");
        metrics.sip_came(b"SIP/2.0 200 OK");
        metrics.sip_came(b"4242424242424242 sip:x SIP/2.0");
        assert_eq!((metrics.sip_requests.value(["INVITE"]), metrics.sip_requests.value(["OTHER"])), (1, 1));
        assert_eq!(metrics.sip_responses.value(["2xx"]), 3);
        assert_eq!(metrics.sip_responses.value([OTHER]), 1);
        assert!(metrics.text().contains("voicepay_sip_responses_total{class=\"5xx\"} 1"));
    }
}
