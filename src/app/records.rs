//! What a call leaves for operators when it is over: its detail record, its trace, and counts. Here the types of the rooms become
//! the plain ones of `ops`.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot};

use super::outbound::NotAnswered;
use super::{REPORT_WAIT_MS, StartError};
use crate::call::CallRecord;
use crate::call::recording::Recording;
use crate::clock::{Clock, Entropy, Timestamp};
use crate::config::Config;
use crate::dialogue::CallVerdict;
use crate::media::leg::{CallerClaim, LegEnd, LegInfo, LegReport};
use crate::ops::OpsConfig;
use crate::ops::cause::{Ending, q850_of_status};
use crate::ops::cdr::{self, CallDetail, CdrWriter, PaymentDetail};
use crate::ops::config::{Numbers, RecordingMode};
use crate::ops::otlp::Exporter;
use crate::ops::recording::Recordings;
use crate::ops::trace::Trace;
use crate::sip::Refused;
use crate::sip::trunk::outbound::TrunkCall;
use crate::telemetry::metrics::metrics;

/// A call that rang in vain, where no status came (RFC 3261 section 21.4.9).
const NO_ANSWER_STATUS: u16 = 408;

/// Why records can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// A directory that the configuration names.
    #[error("{key}: {} can't be used: {source}", .path.display())]
    Directory {
        /// Which key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A thread.
    #[error("no thread for {0}: {1}")]
    Thread(&'static str, io::Error),
}

/// Writer and exporter, as far as the configuration wants them.
#[derive(Debug)]
pub(super) struct Records {
    cdr: RwLock<Option<CdrWriter>>,
    exporter: RwLock<Option<Exporter>>,
    numbers: Mutex<Numbers>,
}

impl Records {
    pub(super) fn start(config: &OpsConfig, entropy: Arc<dyn Entropy>) -> Result<Self, RecordsError> {
        let cdr = match &config.cdr_dir {
            Some(path) => {
                let directory = |source| RecordsError::Directory { key: "ops.cdr_dir", path: path.clone(), source };
                Some(CdrWriter::start(path).map_err(directory)?)
            }
            None => None,
        };
        let exporter = match &config.otlp_endpoint {
            Some(endpoint) => Some(Exporter::start(endpoint, entropy).map_err(|e| RecordsError::Thread("traces", e))?),
            None => None,
        };
        Ok(Self { cdr: RwLock::new(cdr), exporter: RwLock::new(exporter), numbers: Mutex::new(config.cdr_numbers) })
    }

    /// No more records; waits for the disk, and once for the collector.
    pub(super) fn close(&self) {
        drop(self.cdr.write().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.exporter.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn cdr(&self) -> RwLockReadGuard<'_, Option<CdrWriter>> {
        self.cdr.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How numbers are written from now on.
    pub(super) fn set_numbers(&self, numbers: Numbers) {
        *self.numbers.lock().unwrap_or_else(PoisonError::into_inner) = numbers;
    }

    fn number(&self, text: &str) -> Option<String> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).write(text)
    }

    /// A call is over: what its line went through is waited for a little, and then it is written down and told to whoever listens.
    pub(super) async fn keep(
        &self,
        info: &LegInfo,
        record: CallRecord,
        report: oneshot::Receiver<LegReport>,
        listeners: &broadcast::Sender<CallRecord>,
    ) {
        let report = tokio::time::timeout(Duration::from_millis(REPORT_WAIT_MS), report).await;
        self.call_over(info, &record, report.ok().and_then(Result::ok));
        let _nobody_listens = listeners.send(record);
    }

    fn call_over(&self, info: &LegInfo, record: &CallRecord, report: Option<LegReport>) {
        let verdict = format!("{:?}", record.verdict);
        let all = metrics();
        all.calls_ended.inc([&verdict]);
        all.call_duration.observe_time([], Duration::from_millis(record.duration_ms));
        all.identity_verdicts.inc([info.attestation.verstat()]);
        let ending = ending(report, record.verdict);
        if let Some(cdr) = self.cdr().as_ref() {
            let ended = record.started_at.plus(Duration::from_millis(record.duration_ms));
            let (calling, calling_claim) = self.caller(&info.caller);
            cdr.write(CallDetail {
                schema: cdr::SCHEMA,
                call: Some(record.call.to_string()),
                sip_call_id: info.protocol_id.clone(),
                direction: if record.placed_for.is_some() { "outbound" } else { "inbound" },
                trunk: info.trunk.clone(),
                peer: info.peer.clone(),
                transport: info.transport,
                secure: info.secure,
                calling,
                calling_claim,
                attestation: Some(info.attestation.verstat()),
                called: self.number(&info.called),
                codec: Some(record.codec.clone()),
                invited_at: Some(record.started_at.minus(Duration::from_millis(info.setup_ms.into())).to_string()),
                answered_at: Some(record.started_at.to_string()),
                ended_at: ended.to_string(),
                setup_ms: Some(info.setup_ms),
                duration_ms: record.duration_ms,
                ended_by: ending.by(),
                end: ending.name(),
                sip_status: 200,
                q850: ending.q850(),
                verdict: Some(verdict.clone()),
                media: report.and_then(|r| serde_json::to_value(r.stats).ok()),
                payment: record.payment.as_ref().map(|(id, outcome)| PaymentDetail { id: id.to_string(), outcome }),
                ended,
            });
        }
        if let Some(exporter) = self.exporter.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let attributes = vec![
                ("voicepay.call", record.call.to_string()),
                ("voicepay.trunk", info.trunk.clone()),
                ("voicepay.verdict", verdict),
                ("voicepay.end", ending.name().to_owned()),
                ("voicepay.attestation", info.attestation.verstat().to_owned()),
                ("media.codec", record.codec.clone()),
                ("network.transport", info.transport.to_owned()),
            ];
            exporter.send(Trace {
                answered_at: record.started_at,
                setup_ms: info.setup_ms.into(),
                duration_ms: record.duration_ms,
                ok: !matches!(record.verdict, CallVerdict::ServiceTrouble | CallVerdict::Busy),
                attributes,
                spans: record.spans.clone(),
            });
        }
    }

    /// A call that we placed was not answered.
    pub(super) fn unanswered(&self, wanted: &TrunkCall, why: &NotAnswered, begun: Timestamp, now: Timestamp) {
        let status = why.status.unwrap_or(NO_ANSWER_STATUS);
        self.outbound(
            wanted,
            None,
            begun,
            now,
            CallDetail { end: why.word(), sip_status: status, q850: q850_of_status(status), ..blank(now) },
        );
    }

    /// A call that we placed was answered, and not by a person: nothing was said. `by`: in a word.
    pub(super) fn not_a_person(&self, wanted: &TrunkCall, info: Option<&LegInfo>, by: &str, begun: Timestamp, now: Timestamp) {
        let ending = Ending::Service;
        let detail =
            CallDetail { end: ending.name(), q850: ending.q850(), verdict: Some(by.to_owned()), sip_status: 200, ..blank(now) };
        self.outbound(wanted, info, begun, now, detail);
    }

    fn outbound(&self, wanted: &TrunkCall, info: Option<&LegInfo>, begun: Timestamp, now: Timestamp, known: CallDetail) {
        let guard = self.cdr();
        let Some(cdr) = guard.as_ref() else { return };
        cdr.write(CallDetail {
            sip_call_id: info.map(|i| i.protocol_id.clone()).unwrap_or_default(),
            trunk: wanted.trunk.clone(),
            peer: info.map_or_else(|| wanted.trunk.clone(), |i| i.peer.clone()),
            transport: info.map_or("", |i| i.transport),
            secure: info.is_some_and(|i| i.secure),
            calling: self.number(&wanted.from),
            called: self.number(&wanted.number),
            codec: info.map(|i| i.codec.to_owned()),
            invited_at: Some(begun.to_string()),
            ended_at: now.to_string(),
            ..known
        });
    }

    /// A caller was refused.
    fn refused(&self, refused: &Refused, now: Timestamp) {
        let guard = self.cdr();
        let Some(cdr) = guard.as_ref() else { return };
        let (calling, calling_claim) = self.caller(&refused.caller);
        let peer = refused.peer.ip().to_canonical().to_string();
        cdr.write(CallDetail {
            schema: cdr::SCHEMA,
            call: None,
            sip_call_id: refused.call_id.clone(),
            direction: "inbound",
            trunk: peer.clone(),
            peer,
            transport: refused.transport,
            secure: false,
            calling,
            calling_claim,
            attestation: None,
            called: self.number(&refused.called),
            codec: None,
            invited_at: None,
            answered_at: None,
            ended_at: now.to_string(),
            setup_ms: None,
            duration_ms: 0,
            ended_by: "service",
            end: "refused",
            sip_status: refused.status,
            q850: q850_of_status(refused.status),
            verdict: None,
            media: None,
            payment: None,
            ended: now,
        });
    }

    fn caller(&self, claim: &CallerClaim) -> (Option<String>, &'static str) {
        match claim {
            CallerClaim::Asserted(number) => (self.number(number), "asserted"),
            CallerClaim::Unverified(number) => (self.number(number), "unverified"),
            CallerClaim::Withheld => (None, "withheld"),
        }
    }
}

/// Keeps records of callers who are refused, until the listener is gone.
pub(super) async fn keep_refused(records: Arc<Records>, mut told: broadcast::Receiver<Refused>, clock: Arc<dyn Clock>) {
    if records.cdr().is_none() {
        return;
    }
    loop {
        match told.recv().await {
            Ok(refused) => records.refused(&refused, clock.now()),
            Err(RecvError::Lagged(missed)) => metrics().cdr_dropped.add(["queue_full"], missed),
            Err(RecvError::Closed) => return,
        }
    }
}

/// A call that we placed, of which nothing is known yet.
fn blank(now: Timestamp) -> CallDetail {
    CallDetail {
        schema: cdr::SCHEMA,
        call: None,
        sip_call_id: String::new(),
        direction: "outbound",
        trunk: String::new(),
        peer: String::new(),
        transport: "",
        secure: false,
        calling: None,
        calling_claim: "asserted", // it is ours
        attestation: None,
        called: None,
        codec: None,
        invited_at: None,
        answered_at: None,
        ended_at: now.to_string(),
        setup_ms: None,
        duration_ms: 0,
        ended_by: "service",
        end: "",
        sip_status: 0,
        q850: 0,
        verdict: None,
        media: None,
        payment: None,
        ended: now,
    }
}

/// How an answered call ended. Without a word of its line (a leg without packets) the verdict tells who went.
fn ending(report: Option<LegReport>, verdict: CallVerdict) -> Ending {
    match (report.map(|r| r.end), verdict) {
        (Some(None), _) => Ending::Service,
        (Some(Some(LegEnd::Caller)), _) | (None, CallVerdict::Abandoned) => Ending::Caller,
        (Some(Some(LegEnd::Abandoned)), _) => Ending::Abandoned,
        (Some(Some(LegEnd::MediaTimeout)), _) => Ending::MediaTimeout,
        (Some(Some(LegEnd::Failed)), _) => Ending::Failed,
        (None, _) => Ending::Service,
    }
}

/// What keeps recordings of calls, if anything does.
pub(super) fn recording(config: &Config, clock: Arc<dyn Clock>) -> Result<Option<Recording>, StartError> {
    let section = &config.ops.recording;
    if section.mode == RecordingMode::Off {
        return Ok(None);
    }
    let directory = |source| RecordsError::Directory { key: "ops.recording.dir", path: section.dir.clone(), source };
    let recordings = Arc::new(Recordings::start(section, clock).map_err(directory)?);
    Ok(Some(Recording { recordings, mode: section.mode }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CallId, IntentId};
    use crate::media::frame::SampleRate;
    use crate::media::leg::Attestation;
    use crate::media::stats::MediaStats;

    fn info() -> LegInfo {
        LegInfo {
            protocol_id: "abc@192.0.2.1".into(),
            caller: CallerClaim::Asserted("+447700900123".into()),
            attestation: Attestation::Absent,
            called: "+448081570000".into(),
            peer: "192.0.2.1".into(),
            trunk: "carrier".into(),
            transport: "UDP",
            secure: false,
            setup_ms: 30,
            rate: SampleRate::HZ_8000,
            codec: "PCMA",
        }
    }

    fn record() -> CallRecord {
        CallRecord {
            call: CallId::parse("call_0123456789ab").unwrap(),
            peer: "192.0.2.1".into(),
            attestation: Attestation::Absent,
            codec: "PCMA".into(),
            started_at: Timestamp(1_790_000_000_000),
            duration_ms: 40_000,
            verdict: CallVerdict::Paid,
            number_compared: true,
            events: Vec::new(),
            payment: Some((IntentId::parse("int_0123456789ab").unwrap(), "paid")),
            spans: Vec::new(),
            placed_for: None,
            app_session: None,
            evidence: Vec::new(),
        }
    }

    #[test]
    fn a_record_says_who_called_only_as_far_as_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let config = OpsConfig { cdr_dir: Some(dir.path().to_owned()), ..OpsConfig::default() };
        let records = Records::start(&config, Arc::new(crate::clock::SystemEntropy)).unwrap();
        let stats = MediaStats { packets_received: 2_000, ..MediaStats::default() };
        records.call_over(&info(), &record(), Some(LegReport { end: Some(LegEnd::Caller), stats }));
        records.set_numbers(Numbers::None);
        records.call_over(&info(), &record(), None);
        let refused = Refused {
            call_id: "late@192.0.2.9".into(),
            caller: CallerClaim::Withheld,
            called: "pay".into(),
            peer: "192.0.2.9:5060".parse().unwrap(),
            transport: "UDP",
            status: 503,
        };
        records.refused(&refused, Timestamp(1_790_000_050_000));
        drop(records);
        let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(file).unwrap();
        assert!(!text.contains("7700900123") && !text.contains("8081570000"), "{text}");
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((lines[0]["calling"].as_str(), lines[1]["calling"].as_str()), (Some("+44…23"), None));
        assert_eq!((&lines[0]["ended_by"], &lines[1]["ended_by"]), (&"caller".into(), &"service".into()));
        assert_eq!(lines[0]["media"]["packets_received"], 2_000);
        assert_eq!(lines[0]["payment"]["outcome"], "paid");
        assert_eq!((&lines[2]["sip_status"], &lines[2]["q850"]), (&503.into(), &41.into()));
    }
}
