//! The section `[retention]`.

use serde::{Deserialize, Serialize};

/// `[retention]`: how long what is held of people is kept. Fingerprints (`reuse.keep_days`), answers of the API (`api.answer_hours`), what
/// webhooks delivered (`notify.keep_days`) and recordings (`ops.recording.keep_days`) have their clocks in their own sections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// How often all clocks are looked at, by one node of several, in hours.
    pub every_hours: u32,
    /// So many rows are erased in one transaction.
    pub batch_rows: u32,
    /// What a call's verdict was made on (scores) and its timeline are kept for so many days.
    pub call_evidence_days: u32,
    /// That there was a call, by whom and how it ended, for so many days; calls that we owed, too.
    pub call_records_days: u32,
    /// Failed factors for so many days. They are counted over 24 hours.
    pub failed_factors_days: u32,
    /// Invitations to enrol for so many days after their end.
    pub invitations_days: u32,
    /// That a one-time code was on its way to somebody, for so many days after its end; the code itself is wiped when it is delivered or runs out.
    pub code_deliveries_days: u32,
    /// App sessions (docs/APP.md) for so many days after they were made.
    pub app_sessions_days: u32,
    /// Files of call detail records (`ops.cdr_dir`) for so many days after the day in their name.
    pub call_details_days: u32,
    /// A voiceprint that held in no call for so many months (of 30 days) is deleted.
    pub unused_voiceprint_months: u32,
    /// The consents of a deleted customer, for so many days after the deletion: until nobody can ask any more whether they were given.
    pub closed_customers_days: u32,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            every_hours: 24,
            batch_rows: 500,
            call_evidence_days: 180,
            call_records_days: 400,
            failed_factors_days: 90,
            invitations_days: 90,
            code_deliveries_days: 30,
            app_sessions_days: 90,
            call_details_days: 400,
            unused_voiceprint_months: 36,
            closed_customers_days: 1_095,
        }
    }
}

impl RetentionConfig {
    /// What values can't say alone: the key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key, what| if ok { Ok(()) } else { Err((key, what)) };
        rule((1..=168).contains(&self.every_hours), "every_hours", "must be 1 to 168")?;
        rule((1..=10_000).contains(&self.batch_rows), "batch_rows", "must be 1 to 10000")?;
        let days = 1..=3_650;
        rule(days.contains(&self.call_evidence_days), "call_evidence_days", "must be 1 to 3650: nothing is kept for ever")?;
        rule(days.contains(&self.call_records_days), "call_records_days", "must be 1 to 3650: nothing is kept for ever")?;
        rule(
            self.call_evidence_days <= self.call_records_days,
            "call_evidence_days",
            "must be at most retention.call_records_days: evidence goes with its call",
        )?;
        rule(
            (2..=3_650).contains(&self.failed_factors_days),
            "failed_factors_days",
            "must be 2 to 3650: failures count for a day",
        )?;
        rule(days.contains(&self.invitations_days), "invitations_days", "must be 1 to 3650")?;
        rule(days.contains(&self.code_deliveries_days), "code_deliveries_days", "must be 1 to 3650")?;
        rule(days.contains(&self.app_sessions_days), "app_sessions_days", "must be 1 to 3650")?;
        rule(days.contains(&self.call_details_days), "call_details_days", "must be 1 to 3650: nothing is kept for ever")?;
        rule((1..=120).contains(&self.unused_voiceprint_months), "unused_voiceprint_months", "must be 1 to 120")?;
        rule((1..=7_300).contains(&self.closed_customers_days), "closed_customers_days", "must be 1 to 7300")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        assert_eq!(RetentionConfig::default().check(), Ok(()));
        let wrong = |change: fn(&mut RetentionConfig)| {
            let mut cfg = RetentionConfig::default();
            change(&mut cfg);
            cfg.check().unwrap_err().0
        };
        assert_eq!(wrong(|c| c.every_hours = 0), "every_hours");
        assert_eq!(wrong(|c| c.batch_rows = 0), "batch_rows");
        assert_eq!(wrong(|c| c.call_evidence_days = 0), "call_evidence_days");
        assert_eq!(wrong(|c| c.call_evidence_days = c.call_records_days + 1), "call_evidence_days");
        assert_eq!(wrong(|c| c.call_records_days = 3_651), "call_records_days");
        assert_eq!(wrong(|c| c.failed_factors_days = 1), "failed_factors_days");
        assert_eq!(wrong(|c| c.invitations_days = 0), "invitations_days");
        assert_eq!(wrong(|c| c.code_deliveries_days = 0), "code_deliveries_days");
        assert_eq!(wrong(|c| c.app_sessions_days = 0), "app_sessions_days");
        assert_eq!(wrong(|c| c.call_details_days = 3_651), "call_details_days");
        assert_eq!(wrong(|c| c.unused_voiceprint_months = 121), "unused_voiceprint_months");
        assert_eq!(wrong(|c| c.closed_customers_days = 0), "closed_customers_days");
    }
}
