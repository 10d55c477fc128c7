//! What both databases are asked of tenants, keys and pages, and their rows. Both read `$1`.

use super::{Columns, Reader};
use crate::clock::Timestamp;
use crate::store::clients::SCAN_LIMIT_ROWS;
use crate::store::{ApiKeyRecord, AuditPage, AuditRecord, Earlier, IdPage, Listed, StoreError, TenantRecord};

pub(in crate::store) const TENANTS: &str = "SELECT name, title, created_at FROM tenants ORDER BY name";
pub(in crate::store) const ADD_TENANT: &str = "INSERT INTO tenants (name, title, created_at) VALUES ($1, $2, $3)";
pub(in crate::store) const TENANT: &str = "SELECT name FROM tenants WHERE name = $1";
pub(in crate::store) const ADD_KEY: &str =
    "INSERT INTO api_keys (id, tenant, name, digest, scopes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
pub(in crate::store) const KEY: &str = "SELECT * FROM api_keys WHERE digest = $1";
pub(in crate::store) const KEYS: &str = "SELECT * FROM api_keys ORDER BY created_at, id";
pub(in crate::store) const REVOKE_KEY: &str = "UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
pub(in crate::store) const NEW_ANSWER: &str =
    "INSERT INTO api_answers (api_key, key, request, begun_at, leased_to, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (api_key, key) DO NOTHING";
pub(in crate::store) const TAKE_ANSWER: &str = "UPDATE api_answers SET leased_to = $3 WHERE api_key = $1 AND key = $2";
pub(in crate::store) const KEEP_ANSWER: &str = "UPDATE api_answers SET status = $4, body = $5
     WHERE api_key = $1 AND key = $2 AND leased_to = $3 AND status IS NULL";
pub(in crate::store) const DROP_ANSWER: &str =
    "DELETE FROM api_answers WHERE api_key = $1 AND key = $2 AND leased_to = $3 AND status IS NULL";
pub(in crate::store) const FREE_ANSWER: &str = "DELETE FROM api_answers WHERE api_key = $1 AND key = $2 AND expires_at <= $3";
pub(in crate::store) const AUDIT_FROM: &str =
    "SELECT seq, id, at, actor, action, subject, detail FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2";
/// `$3`: one more than the page shows.
pub(in crate::store) const AUDIT_OF: &str =
    "SELECT seq, id, at, actor, action, subject, detail FROM audit WHERE subject = $1 AND seq > $2 ORDER BY seq LIMIT $3";
pub(in crate::store) const AUDIT_ENDS: &str = "SELECT min(seq) AS first, max(seq) AS last FROM audit";
pub(in crate::store) const AUDIT_AT: &str = "SELECT seq, at FROM audit WHERE seq >= $1 ORDER BY seq LIMIT 1";

/// Greater than every identifier, and than none.
const PAST_ALL: &str = "~";

/// The statement of a page: `$1` the tenant, `$2` where it begins, `$3` how many rows. Those of payments and calls give other tenants' rows, too,
/// as `mine` 0, so that no page reads more than its limit.
pub(in crate::store) fn page_sql(of: Listed) -> &'static str {
    match of {
        Listed::Customers => {
            "SELECT id, CAST(1 AS bigint) AS mine FROM customers
             WHERE tenant = $1 AND id > $2 AND status <> 'deleted' ORDER BY id LIMIT $3"
        }
        Listed::Payees => "SELECT id, CAST(1 AS bigint) AS mine FROM payees WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3",
        Listed::Requests => {
            "SELECT id, CAST(1 AS bigint) AS mine FROM requests WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
        }
        Listed::Payments => {
            "SELECT i.id, CAST(CASE WHEN c.tenant = $1 THEN 1 ELSE 0 END AS bigint) AS mine
             FROM (SELECT id, customer_id FROM intents WHERE id < $2 ORDER BY id DESC LIMIT $3) i
             JOIN customers c ON c.id = i.customer_id ORDER BY i.id DESC"
        }
        Listed::Calls => {
            "SELECT i.id, CAST(CASE WHEN c.tenant = $1 THEN 1 ELSE 0 END AS bigint) AS mine
             FROM (SELECT id, customer_id FROM calls WHERE id < $2 ORDER BY id DESC LIMIT $3) i
             LEFT JOIN customers c ON c.id = i.customer_id ORDER BY i.id DESC"
        }
    }
}

/// From where a page begins, and how many rows it reads: one more than it shows, or as many as it looks at.
pub(in crate::store) fn page_bounds(of: Listed, after: Option<&str>, limit: u16) -> (&str, i64) {
    match of {
        Listed::Customers | Listed::Payees => (after.unwrap_or(""), i64::from(limit) + 1),
        Listed::Requests => (after.unwrap_or(PAST_ALL), i64::from(limit) + 1),
        Listed::Payments | Listed::Calls => (after.unwrap_or(PAST_ALL), i64::from(SCAN_LIMIT_ROWS)),
    }
}

/// The page that these rows make; `read` is how many could have come.
pub(in crate::store) fn page<R: Columns>(rows: &[R], limit: u16, read: i64) -> Result<IdPage, StoreError> {
    let more = i64::try_from(rows.len()).is_ok_and(|n| n >= read);
    let mut page = IdPage::default();
    let mut last = None;
    for row in rows {
        let r = Reader::new(row, "page");
        if page.ids.len() >= usize::from(limit) {
            page.next = last;
            return Ok(page);
        }
        let id = r.text("id")?;
        if r.int("mine")? == 1 {
            page.ids.push(id.clone());
        }
        last = Some(id);
    }
    page.next = last.filter(|_| more);
    Ok(page)
}

pub(in crate::store) fn tenant<R: Columns>(row: &R) -> Result<TenantRecord, StoreError> {
    let r = Reader::new(row, "tenants");
    Ok(TenantRecord { name: r.parsed("name")?, title: r.text("title")?, created_at: r.at("created_at")? })
}

pub(in crate::store) fn api_key<R: Columns>(row: &R) -> Result<ApiKeyRecord, StoreError> {
    let r = Reader::new(row, "api_keys");
    Ok(ApiKeyRecord {
        id: r.parsed("id")?,
        tenant: r.parsed("tenant")?,
        name: r.text("name")?,
        scopes: r.text("scopes")?.split_ascii_whitespace().map(str::to_owned).collect(),
        created_at: r.at("created_at")?,
        expires_at: r.maybe_at("expires_at")?,
        revoked_at: r.maybe_at("revoked_at")?,
    })
}

/// What a row says of an idempotency key that somebody asks with now.
pub(in crate::store) fn earlier<R: Columns>(row: &R, asked: &crate::store::Asked) -> Result<Earlier, StoreError> {
    let r = Reader::new(row, "api_answers");
    if r.bytes("request")? != asked.request {
        return Ok(Earlier::OtherRequest);
    }
    match (r.maybe_int("status")?, r.maybe_bytes("body")?) {
        (Some(_), Some(body)) => Ok(Earlier::Answered { status: r.small("status")?, body }),
        (None, None) if r.at("leased_to")? > asked.now => Ok(Earlier::InFlight),
        (None, None) => Ok(Earlier::Yours { begun_at: r.at("begun_at")? }),
        (Some(_), None) | (None, Some(_)) => Err(r.damaged("an answer without a body, or a body without an answer")),
    }
}

/// A stretch of the audit trail in which the first row of a time is looked for. Rows stand in the order in which they were committed; their times
/// were taken a moment earlier, so that those of several processes may be out of order by seconds: [`AUDIT_SLACK`] is for that.
pub(in crate::store) struct AuditSpan {
    low: i64,
    high: i64,
}

/// How far times in the trail may be out of order: no transaction takes that long.
const AUDIT_SLACK: std::time::Duration = std::time::Duration::from_secs(300);

impl AuditSpan {
    pub(in crate::store) fn of<R: Columns>(ends: &R) -> Result<Option<Self>, StoreError> {
        let r = Reader::new(ends, "audit");
        let ends = r.maybe_int("first")?.zip(r.maybe_int("last")?);
        Ok(ends.map(|(low, high)| Self { low, high }))
    }

    /// Where to look next; `None` once there is one place left.
    pub(in crate::store) fn middle(&self) -> Option<i64> {
        (self.low < self.high).then(|| self.low.saturating_add(self.high.saturating_sub(self.low) / 2))
    }

    /// What the first row at or after `middle` told.
    pub(in crate::store) fn halve(&mut self, middle: i64, at: Timestamp, wanted: Timestamp) {
        if at < wanted.minus(AUDIT_SLACK) {
            self.low = middle.saturating_add(1);
        } else {
            self.high = middle;
        }
    }

    /// After which row to read.
    pub(in crate::store) fn after(&self) -> i64 {
        self.low.saturating_sub(1)
    }
}

/// The page that these rows of the trail make; where there is one more, another follows.
pub(in crate::store) fn audit_page<R: Columns>(
    found: &[R],
    limit: u16,
    read: impl Fn(&R) -> Result<AuditRecord, StoreError>,
) -> Result<AuditPage, StoreError> {
    let shown = found.iter().take(usize::from(limit));
    let rows = shown.map(|row| Ok((Reader::new(row, "audit").small("seq")?, read(row)?)));
    let rows: Vec<(u64, AuditRecord)> = rows.collect::<Result<_, StoreError>>()?;
    let next = rows.last().map(|(seq, _)| *seq).filter(|_| found.len() > usize::from(limit));
    Ok(AuditPage { rows, next })
}
