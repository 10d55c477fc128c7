//! Traces to a collector: OTLP over HTTP with JSON bodies, from a thread of its own. Bounded everywhere; when the collector is
//! away, traces are dropped and counted, and no call notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use super::trace::{Trace, export_request};
use crate::clock::Entropy;
use crate::telemetry::metrics::metrics;

/// Traces that may wait for the collector.
const QUEUE_TRACES: usize = 256;
/// Traces sent in one request.
const BATCH_TRACES: usize = 32;
/// How long a trace may wait for others to go with, in milliseconds.
const BATCH_WAIT_MS: u64 = 1_000;
/// How long the collector may take, in milliseconds.
const SEND_LIMIT_MS: u64 = 5_000;
/// Waits before a batch is sent again after an answer that asks for it, or none, in milliseconds; then it is dropped.
const RETRY_WAITS_MS: [u64; 2] = [500, 2_000];

/// The way to the exporter; dropping it sends what waits, unless the collector is away, and ends the thread.
#[derive(Debug)]
pub struct Exporter {
    queue: Option<SyncSender<Trace>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Sends to `endpoint`, the base URL that `/v1/traces` is added to.
    pub fn start(endpoint: &str, entropy: Arc<dyn Entropy>) -> std::io::Result<Self> {
        let (queue, traces) = mpsc::sync_channel(QUEUE_TRACES);
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(SEND_LIMIT_MS)))
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        let stopping = Arc::new(AtomicBool::new(false));
        let told = false;
        let sender = Sender {
            url: format!("{}/v1/traces", endpoint.trim_end_matches('/')),
            agent,
            entropy,
            told,
            stopping: Arc::clone(&stopping),
        };
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(move || sender.run(&traces))?;
        Ok(Self { queue: Some(queue), stopping, thread: Some(thread) })
    }

    /// Hands a trace over. Never waits.
    pub fn send(&self, trace: Trace) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(trace) | TrySendError::Disconnected(trace)) = queue.try_send(trace) {
            dropped("queue_full", &[trace]);
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        drop(self.queue.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the exporter of traces failed");
        }
    }
}

fn spans_in(traces: &[Trace]) -> u64 {
    u64::try_from(traces.iter().map(Trace::span_count).sum::<usize>()).unwrap_or(u64::MAX)
}

fn dropped(reason: &str, traces: &[Trace]) {
    metrics().spans_dropped.add([reason], spans_in(traces));
}

struct Sender {
    url: String,
    agent: ureq::Agent,
    entropy: Arc<dyn Entropy>,
    /// The log has been told that the collector is away.
    told: bool,
    /// Nobody waits for retries any more.
    stopping: Arc<AtomicBool>,
}

/// What a try came to.
enum Sent {
    Taken,
    /// The collector says no; the same again would get the same answer.
    Refused(String),
    /// It may take it later (OTLP/HTTP: 429, 502, 503, 504, or no answer at all).
    Later(String),
}

impl Sender {
    fn run(mut self, traces: &Receiver<Trace>) {
        let mut batch = Vec::new();
        // When the first of the batch came: the others must not keep it waiting.
        let mut first: Option<Instant> = None;
        loop {
            match traces.recv_timeout(Duration::from_millis(BATCH_WAIT_MS)) {
                Ok(trace) => {
                    batch.push(trace);
                    let waited = first.get_or_insert_with(Instant::now).elapsed();
                    if batch.len() < BATCH_TRACES && waited < Duration::from_millis(BATCH_WAIT_MS) {
                        continue;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.deliver(&mut batch);
                    return;
                }
            }
            first = None;
            if !self.deliver(&mut batch) && self.stopping.load(Ordering::Acquire) {
                // The collector is away and the service stops: what waits is not tried one by one.
                return dropped("collector", &traces.iter().collect::<Vec<_>>());
            }
        }
    }

    /// Sends a batch, or drops it: false.
    fn deliver(&mut self, batch: &mut Vec<Trace>) -> bool {
        if batch.is_empty() {
            return true;
        }
        let entropy = Arc::clone(&self.entropy);
        let body = export_request(batch, move || {
            let mut id: [u8; 16] = entropy.bytes();
            id[0] |= 1; // all zeroes means "no span"
            id
        })
        .to_string();
        let mut waits = RETRY_WAITS_MS.iter();
        let why = loop {
            match self.post(&body) {
                Sent::Taken => {
                    metrics().spans_exported.add([], spans_in(batch));
                    batch.clear();
                    self.told = false;
                    return true;
                }
                Sent::Refused(why) => break why,
                Sent::Later(why) => match waits.next().filter(|_| !self.stopping.load(Ordering::Acquire)) {
                    Some(ms) => std::thread::sleep(Duration::from_millis(*ms)),
                    None => break why,
                },
            }
        };
        dropped("collector", batch);
        batch.clear();
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(url = %self.url, %why, "the collector takes no traces; they are dropped and counted until it does");
        }
        false
    }

    fn post(&self, body: &str) -> Sent {
        match self.agent.post(&self.url).header("Content-Type", "application/json").send(body) {
            Ok(answer) if answer.status().is_success() => Sent::Taken,
            Ok(answer) => match answer.status().as_u16() {
                status @ (429 | 502 | 503 | 504) => Sent::Later(format!("status {status}")),
                status => Sent::Refused(format!("status {status}")),
            },
            Err(error) => Sent::Later(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::clock::SystemEntropy;
    use crate::ops::trace::tests::{a_trace, check};

    /// A collector that answers each request with the next status and keeps what it took.
    fn collector(statuses: &'static [u16]) -> (String, std::thread::JoinHandle<Vec<(String, serde_json::Value)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            for status in statuses {
                let (mut peer, _) = listener.accept().unwrap();
                let mut text = Vec::new();
                let mut chunk = [0u8; 4_096];
                let body = loop {
                    let n = peer.read(&mut chunk).unwrap();
                    text.extend_from_slice(&chunk[..n]);
                    let all = String::from_utf8_lossy(&text).into_owned();
                    if let Some((head, body)) = all.split_once("\r\n\r\n") {
                        let header = |name: &str| {
                            head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix(name).map(|v| v.trim().to_owned()))
                        };
                        let length: usize = header("content-length:").unwrap().parse().unwrap();
                        if body.len() >= length {
                            assert_eq!(header("content-type:").as_deref(), Some("application/json"));
                            break (head.lines().next().unwrap_or_default().to_owned(), body.to_owned());
                        }
                    }
                };
                let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
                peer.write_all(answer.as_bytes()).unwrap();
                seen.push((body.0, serde_json::from_str(&body.1).unwrap()));
            }
            seen
        });
        (url, thread)
    }

    #[test]
    fn a_collector_gets_what_the_schema_asks_for_also_after_saying_later() {
        let (url, collected) = collector(&[503, 200]);
        let exporter = Exporter::start(&url, Arc::new(SystemEntropy)).unwrap();
        exporter.send(a_trace());
        exporter.send(a_trace());
        let seen = collected.join().unwrap();
        drop(exporter);
        assert_eq!(seen[1].0, "POST /v1/traces HTTP/1.1");
        assert_eq!(check(&seen[1].1), 10, "both calls in one request");
        assert_eq!(seen[0].1, seen[1].1, "the same again");
    }

    #[test]
    fn a_trace_does_not_wait_for_a_full_batch_while_others_trickle_in() {
        let (url, collected) = collector(&[200]);
        let exporter = Exporter::start(&url, Arc::new(SystemEntropy)).unwrap();
        let begun = Instant::now();
        while !collected.is_finished() && begun.elapsed() < Duration::from_secs(5) {
            exporter.send(a_trace());
            std::thread::sleep(Duration::from_millis(250));
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "32 traces would have taken 8 s");
        collected.join().unwrap();
    }

    #[test]
    fn without_a_collector_nobody_waits() {
        let begun = Instant::now();
        let exporter = Exporter::start("http://127.0.0.1:9", Arc::new(SystemEntropy)).unwrap();
        for _ in 0..10_000 {
            exporter.send(a_trace());
        }
        assert!(begun.elapsed() < Duration::from_secs(1));
        drop(exporter);
        assert!(begun.elapsed() < Duration::from_secs(5), "a stop does not wait for retries");
        assert!(metrics().spans_dropped.value(["queue_full"]) > 5 * 9_000);
    }
}
