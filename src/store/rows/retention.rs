//! What both databases are asked of clocks and of one person. Both read `$1`; where several nodes erase at once, PostgreSQL is told to leave
//! alone what another has in hand, which SQLite's one writer needs not.

use crate::store::retention::Overdue;

/// Under what name the database remembers when clocks were last looked at.
pub(in crate::store) const LAST_RUN: &str = "retention.last_run";
/// `$2` now, `$3` the time after which there must have been none, both as eight bytes, the highest first.
pub(in crate::store) const CLAIM: &str = "INSERT INTO meta (key, value) VALUES ($1, $2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE meta.value <= $3";

pub(in crate::store) const UNUSED_VOICES: &str =
    "SELECT customer_id FROM templates WHERE used_at < $1 AND created_at < $1 ORDER BY used_at, customer_id LIMIT $2";

pub(in crate::store) fn count(what: Overdue) -> &'static str {
    macro_rules! count {
        ($from:literal) => {
            concat!("SELECT count(*) AS n FROM (SELECT 1 FROM ", $from, " LIMIT $2) o")
        };
    }
    match what {
        Overdue::CallEvidence => count!("calls WHERE started_at < $1 AND record <> '{}'"),
        Overdue::CallRecords => count!("calls WHERE started_at < $1"),
        Overdue::CallsOwed => count!("callbacks WHERE created_at < $1 AND state <> 'waiting'"),
        Overdue::FailedFactors => count!("factor_failures WHERE at < $1"),
        Overdue::Invitations => count!("invites WHERE expires_at < $1"),
        Overdue::CodeDeliveries => count!("code_deliveries WHERE expires_at < $1"),
        Overdue::AppSessions => count!("papers WHERE kind = 'app_session' AND NOT open AND created_at < $1"),
        Overdue::ClosedCustomers => count!("consents c JOIN customers p ON p.id = c.customer_id WHERE p.deleted_at < $1"),
    }
}

macro_rules! erasing {
    ($name:ident, $lock:literal) => {
        /// Statements with `$1` the time and `$2` how many; the last one's rows are counted.
        pub(in crate::store) fn $name(what: Overdue) -> &'static [&'static str] {
            match what {
                Overdue::CallEvidence => &[concat!(
                    "UPDATE calls SET record = '{}' WHERE id IN
                         (SELECT id FROM calls WHERE started_at < $1 AND record <> '{}' ORDER BY started_at LIMIT $2",
                    $lock,
                    ")"
                )],
                Overdue::CallRecords => &[concat!(
                    "DELETE FROM calls WHERE id IN (SELECT id FROM calls WHERE started_at < $1 ORDER BY started_at LIMIT $2",
                    $lock,
                    ")"
                )],
                Overdue::CallsOwed => &[concat!(
                    "DELETE FROM callbacks WHERE id IN
                         (SELECT id FROM callbacks WHERE created_at < $1 AND state <> 'waiting' ORDER BY created_at LIMIT $2",
                    $lock,
                    ")"
                )],
                Overdue::FailedFactors => &[concat!(
                    "DELETE FROM factor_failures WHERE seq IN (SELECT seq FROM factor_failures WHERE at < $1 ORDER BY at LIMIT $2",
                    $lock,
                    ")"
                )],
                Overdue::Invitations => &[concat!(
                    "DELETE FROM invites WHERE id IN (SELECT id FROM invites WHERE expires_at < $1 ORDER BY expires_at LIMIT $2",
                    $lock,
                    ")"
                )],
                Overdue::CodeDeliveries => &[concat!(
                    "DELETE FROM code_deliveries WHERE code_id IN
                         (SELECT code_id FROM code_deliveries WHERE expires_at < $1 ORDER BY expires_at LIMIT $2",
                    $lock,
                    ")"
                )],
                // Identifiers begin with their time, so that the oldest come first by the key.
                Overdue::AppSessions => &[concat!(
                    "DELETE FROM papers WHERE kind = 'app_session' AND id IN
                         (SELECT id FROM papers WHERE kind = 'app_session' AND NOT open AND created_at < $1 ORDER BY id LIMIT $2",
                    $lock,
                    ")"
                )],
                // Both statements must mean the same rows, so that nothing is left out here.
                Overdue::ClosedCustomers => &[
                    "DELETE FROM consent_withdrawals WHERE consent_id IN
                         (SELECT c.id FROM consents c JOIN customers p ON p.id = c.customer_id
                          WHERE p.deleted_at < $1 ORDER BY c.seq LIMIT $2)",
                    "DELETE FROM consents WHERE seq IN
                         (SELECT c.seq FROM consents c JOIN customers p ON p.id = c.customer_id
                          WHERE p.deleted_at < $1 ORDER BY c.seq LIMIT $2)",
                ],
            }
        }
    };
}
erasing!(erase_on_sqlite, "");
erasing!(erase_on_postgres, " FOR UPDATE SKIP LOCKED");

pub(in crate::store) const CALLS_OF: &str = "SELECT * FROM calls WHERE customer_id = $1 AND id > $2 ORDER BY id LIMIT $3";
pub(in crate::store) const INTENTS_OF: &str = "SELECT id FROM intents WHERE customer_id = $1 AND id > $2 ORDER BY id LIMIT $3";
pub(in crate::store) const REQUESTS_OF: &str = "SELECT id FROM requests WHERE customer_id = $1 AND id > $2 ORDER BY id LIMIT $3";
pub(in crate::store) const PAPERS_WITH: &str =
    "SELECT kind, id, owner, about, CAST(CAST(open AS int) AS bigint) AS open, due_at, version, body, created_at FROM papers
     WHERE (owner = $1 OR about = $1) AND (kind, id) > ($2, $3) ORDER BY kind, id LIMIT $4";
pub(in crate::store) const SUBJECTS_OF: &str = "SELECT id FROM (
        SELECT id FROM cards WHERE customer_id = $1 UNION ALL SELECT id FROM requests WHERE customer_id = $1
        UNION ALL SELECT id FROM intents WHERE customer_id = $1 UNION ALL SELECT id FROM invites WHERE customer_id = $1
        UNION ALL SELECT id FROM callbacks WHERE customer_id = $1 UNION ALL SELECT id FROM papers WHERE owner = $1 OR about = $1
        UNION ALL SELECT r.id FROM receipts r JOIN intents i ON i.id = r.intent_id WHERE i.customer_id = $1) s LIMIT $2";
