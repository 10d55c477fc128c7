//! Attempts that move on, many in one statement: a dispatch, an answer, an end, each with all that goes with it. A member whose attempt is no longer
//! at the version before leaves no row.

use std::pin::Pin;

use sqlx::PgConnection;

use super::columns::{audit, column, outbox, transfers};
use super::fault::{Fault, duplicate_of};
use super::group::Answers;
use crate::payment::{Attempt, IntentStatus, Receipt};
use crate::store::rows::{Reader, to_json};
use crate::store::{Schedule, Settlement, StoreError};

/// An attempt as it is to be written, and what goes with it.
pub(super) type Step = (Attempt, Settlement);

/// The compare-and-set that everything of a member hangs on is `moved`; the rest is written `FROM` it. `must(…)` (0005) then fails the statement if a
/// payment or a request was not moved with its attempt.
pub(in crate::store) const ADVANCE: &str = "WITH asked AS (
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::bigint[], $8::text[],
                              $9::bigint[], $10::text[], $11::bigint[], $12::text[], $13::bool[], $14::text[], $15::text[], $16::text[],
                              $17::bigint[])
             WITH ORDINALITY AS t (attempt, intent, state, detail, version, reference, due, lease_owner, lease_until, decision, holds_until,
                                   fate, keeps, receipt, digits, body, receipt_at, n)),
     moved AS (
         UPDATE attempts a SET state = t.state, detail = t.detail, version = t.version, gateway_reference = t.reference, due_at = t.due,
                               lease_owner = t.lease_owner, lease_until = t.lease_until
         FROM asked t WHERE a.id = t.attempt AND a.version = t.version - 1 AND a.intent_id = t.intent
         RETURNING t.*),
     decided AS (
         UPDATE intents i SET status = coalesce(m.decision, i.status),
                              authorisation_expires_at = coalesce(m.holds_until, i.authorisation_expires_at)
         FROM moved m WHERE i.id = m.intent AND i.status = 'pending' AND (m.decision IS NOT NULL OR m.holds_until IS NOT NULL)
         RETURNING i.id),
     settled AS (
         UPDATE requests r SET status = m.fate, held_by = CASE WHEN m.keeps THEN r.held_by END
         FROM moved m JOIN intents i ON i.id = m.intent
         WHERE m.fate IS NOT NULL AND r.id = i.request_id AND r.status = 'open' AND r.held_by = m.intent
         RETURNING r.id),
     receipted AS (
         INSERT INTO receipts (id, reference, intent_id, body, at)
         SELECT receipt, digits, intent, body, receipt_at FROM moved WHERE receipt IS NOT NULL),
     booked AS (
         INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, cause, at)
         SELECT t.id, t.kind, t.of_id, t.debit, t.credit, t.amount, t.currency, t.intent, t.cause, t.at
         FROM moved m JOIN unnest($18::text[], $19::text[], $20::text[], $21::text[], $22::text[], $23::bigint[], $24::text[], $25::text[],
                                  $26::text[], $27::bigint[])
             WITH ORDINALITY AS t (id, kind, of_id, debit, credit, amount, currency, intent, cause, at, n) USING (n)
         WHERE t.id IS NOT NULL ORDER BY n),
     audited AS (
         INSERT INTO audit (id, at, actor, action, subject, detail)
         SELECT t.id, t.at, t.actor, t.action, t.subject, t.detail
         FROM moved m JOIN unnest($28::bigint[], $29::text[], $30::bigint[], $31::text[], $32::text[], $33::text[], $34::text[])
             WITH ORDINALITY AS t (n, id, at, actor, action, subject, detail, place) USING (n) ORDER BY place),
     told AS (
         INSERT INTO outbox (id, at, topic, payload)
         SELECT t.id, t.at, t.topic, t.payload
         FROM moved m JOIN unnest($35::bigint[], $36::text[], $37::bigint[], $38::text[], $39::text[])
             WITH ORDINALITY AS t (n, id, at, topic, payload, place) USING (n) ORDER BY place)
     SELECT n FROM moved
     WHERE must((SELECT count(*) FROM decided)
                = (SELECT count(*) FROM moved WHERE decision IS NOT NULL OR holds_until IS NOT NULL), 'payment')
       AND must((SELECT count(*) FROM settled) = (SELECT count(*) FROM moved WHERE fate IS NOT NULL), 'payment request')";

/// Writes them; `Conflict` for each whose attempt is no longer at the version before.
pub(super) fn advance_all<'c>(
    connection: &'c mut PgConnection,
    group: &'c [Step],
) -> Pin<Box<dyn Future<Output = Answers<()>> + Send + 'c>> {
    Box::pin(async move {
        let attempt = |of: fn(&Attempt) -> &str| column(group, |(a, _)| of(a));
        let states = group.iter().map(|(a, _)| to_json(&a.state)).collect::<Result<Vec<_>, _>>()?;
        let lease = |(_, s): &'c Step| s.schedule.as_ref().and_then(Schedule::lease);
        let receipts = column(group, |(_, s)| s.receipt.as_ref());
        let receipt = |of: fn(&Receipt) -> &str| column(&receipts, |r| r.map(of));
        let bodies = receipts.iter().map(|r| r.map(to_json).transpose()).collect::<Result<Vec<_>, _>>()?;
        let statement = sqlx::query(ADVANCE)
            .bind(attempt(|a| a.id.as_str()))
            .bind(attempt(|a| a.intent.as_str()))
            .bind(attempt(|a| a.state.name()))
            .bind(states)
            .bind(column(group, |(a, _)| a.version))
            .bind(column(group, |(a, _)| a.state.gateway_reference()))
            .bind(column(group, |(_, s)| s.schedule.as_ref().map(|schedule| schedule.due_at().0)))
            .bind(column(group, |step| lease(step).map(|l| l.owner.as_str())))
            .bind(column(group, |step| lease(step).map(|l| l.until.0)))
            .bind(column(group, |(a, _)| IntentStatus::after(a.operation, &a.state).map(IntentStatus::as_str)))
            .bind(column(group, |(_, s)| s.authorisation_expires_at.map(|at| at.0)))
            .bind(column(group, |(_, s)| s.request_fate().map(|(status, _)| status.as_str())))
            .bind(column(group, |(_, s)| s.request_fate().is_some_and(|(_, keeps)| keeps)))
            .bind(receipt(|r| r.id.as_str()))
            .bind(receipt(|r| r.reference.as_str()))
            .bind(bodies)
            .bind(column(&receipts, |r| r.map(|r| r.at.0)));
        let statement = transfers(statement, &column(group, |(_, s)| s.transfer.as_ref()));
        let numbered = || (1_i64..).zip(group.iter().map(|(_, s)| s));
        let statement = audit(statement, &numbered().flat_map(|(n, s)| s.audit.iter().map(move |a| (n, a))).collect::<Vec<_>>())?;
        let news = numbered().flat_map(|(n, s)| s.outbox.iter().map(move |o| (n, o))).collect::<Vec<_>>();
        let rows = outbox(statement, &news)?.fetch_all(connection).await.map_err(|e| match duplicate_of(&e) {
            Some("receipts_reference_key") => StoreError::Exists("a receipt with this reference").into(),
            Some(_) | None => Fault::from(e),
        })?;
        let moved = rows.iter().map(|row| Reader::new(row, "attempts").int("n")).collect::<Result<Vec<_>, _>>()?;
        let answer = |(n, _)| if moved.contains(&n) { Ok(()) } else { Err(StoreError::Conflict("attempt").into()) };
        Ok((1_i64..).zip(group).map(answer).collect())
    })
}
