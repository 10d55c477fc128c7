//! A call is over: the line is closed, and what stays of the call is kept.

use super::CallRecord;
use super::driver::Call;
use super::timeline::Who;
use crate::dialogue::CallVerdict;
use crate::media::leg::LegCommand;
use crate::store;

impl Call {
    /// After the verdict: the line is closed, what was under way is dropped (a payment that was handed over goes on in the
    /// processor), and the record is kept.
    pub(super) async fn close(mut self) -> CallRecord {
        let verdict = self.verdict.unwrap_or(CallVerdict::ServiceTrouble);
        (self.ahead, self.findings, self.card, self.voice, self.fresh) = (None, None, None, None, None);
        self.code = None;
        self.recorder = None; // closes the tape
        self.jobs.shutdown().await;
        self.join_the_person().await;
        self.page_over(verdict);
        let _leg_may_be_gone = self.leg.commands.try_send(LegCommand::HangUp);
        self.timeline.add(Who::Check, format!("verdict: {verdict:?}"));
        let record = CallRecord {
            call: self.id.clone(),
            peer: self.peer.clone(),
            codec: self.leg.info.codec.to_owned(),
            attestation: self.leg.info.attestation,
            started_at: self.started_at,
            duration_ms: self.elapsed_ms(),
            verdict,
            number_compared: self.scored_number,
            events: self.timeline.take_events(),
            payment: self.payment.take(),
            spans: self.trace.finish(self.elapsed_ms()),
            placed_for: self.placed_for.clone(),
            app_session: self.app.as_ref().map(|app| app.session.clone()),
            evidence: std::mem::take(&mut self.evidence),
        };
        let row = self.row(Some(&record));
        if let Err(error) = self.services.off_clock(self.services.desk.record_end(&row)).await {
            tracing::error!(call = %record.call, %error, "the call's record could not be stored");
        }
        tracing::info!(call = %record.call, verdict = ?record.verdict, duration_ms = record.duration_ms, "call ended");
        record
    }

    /// The call as the store keeps it; `ended` once it is over.
    pub(super) fn row(&self, ended: Option<&CallRecord>) -> store::CallRecord {
        store::CallRecord {
            id: self.id.clone(),
            customer: self.customer.clone(),
            calling: self.calling.clone(),
            trunk: self.peer.clone(),
            started_at: self.started_at,
            ended_at: ended.map(|_| self.now()),
            verdict: ended.map(|r| format!("{:?}", r.verdict)),
            record: ended.map_or(serde_json::Value::Null, |r| serde_json::to_value(r).unwrap_or(serde_json::Value::Null)),
        }
    }
}
