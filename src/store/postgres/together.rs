//! What goes with every change of a payment: audit rows, outbox rows, a row of the books. A payment is a handful of commits, and between two of them
//! a row is locked for as long as the round trips take; so each change is ONE statement with all that goes with it, which commits by itself.
//!
//! A statement of ours names its first step (the compare-and-set that everything hangs on) as a common table expression; the rest inserts `FROM` it, so
//! that nothing is written where it found no row. `must(…)` (0005) then fails the statement if a count is not what it has to be.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use crate::ledger::Transfer;
use crate::store::rows::to_json;
use crate::store::{AuditRecord, OutboxRecord, StoreError};

/// Common table expressions that insert what goes with the step of this name. They take the parameters $1 to $20.
macro_rules! together {
    ($step:literal) => {
        concat!(
            "audited AS (
                 INSERT INTO audit (id, at, actor, action, subject, detail)
                 SELECT t.id, t.at, t.actor, t.action, t.subject, t.detail FROM ",
            $step,
            ", unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
                     WITH ORDINALITY AS t (id, at, actor, action, subject, detail, place) ORDER BY t.place),
             told AS (
                 INSERT INTO outbox (id, at, topic, payload)
                 SELECT t.id, t.at, t.topic, t.payload FROM ",
            $step,
            ", unnest($7::text[], $8::bigint[], $9::text[], $10::text[])
                     WITH ORDINALITY AS t (id, at, topic, payload, place) ORDER BY t.place),
             booked AS (
                 INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, cause, at)
                 SELECT $11, $12, $13, $14, $15, $16, $17, $18, $19, $20 FROM ",
            $step,
            " WHERE $11::text IS NOT NULL)"
        )
    };
}
pub(super) use together;

/// The rows, by column.
pub(super) struct Together<'r> {
    audit: &'r [AuditRecord],
    outbox: &'r [OutboxRecord],
    transfer: Option<&'r Transfer>,
    details: Vec<String>,
    payloads: Vec<String>,
}

impl<'r> Together<'r> {
    pub(super) fn new(
        audit: &'r [AuditRecord],
        outbox: &'r [OutboxRecord],
        transfer: Option<&'r Transfer>,
    ) -> Result<Self, StoreError> {
        let details = audit.iter().map(|a| to_json(&a.detail)).collect::<Result<_, _>>()?;
        let payloads = outbox.iter().map(|o| to_json(&o.payload)).collect::<Result<_, _>>()?;
        Ok(Self { audit, outbox, transfer, details, payloads })
    }

    /// Binds $1 to $20; the statement's own parameters come after them.
    pub(super) fn bind<'q>(&'q self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        let audit = |column: fn(&AuditRecord) -> &str| self.audit.iter().map(column).collect::<Vec<_>>();
        let outbox = |column: fn(&OutboxRecord) -> &str| self.outbox.iter().map(column).collect::<Vec<_>>();
        let t = self.transfer;
        query
            .bind(audit(|a| a.id.as_str()))
            .bind(self.audit.iter().map(|a| a.at.0).collect::<Vec<_>>())
            .bind(audit(|a| &a.actor))
            .bind(audit(|a| &a.action))
            .bind(audit(|a| &a.subject))
            .bind(&self.details)
            .bind(outbox(|o| o.id.as_str()))
            .bind(self.outbox.iter().map(|o| o.at.0).collect::<Vec<_>>())
            .bind(outbox(|o| &o.topic))
            .bind(&self.payloads)
            .bind(t.map(|t| t.id.as_str()))
            .bind(t.map(|t| t.kind.name()))
            .bind(t.and_then(|t| t.kind.of()).map(|of| of.as_str()))
            .bind(t.map(|t| t.debit.as_str()))
            .bind(t.map(|t| t.credit.as_str()))
            .bind(t.map(|t| t.amount.minor.get()))
            .bind(t.map(|t| t.amount.currency.code()))
            .bind(t.map(|t| t.intent.as_str()))
            .bind(t.map(|t| t.cause.as_str()))
            .bind(t.map(|t| t.at.0))
    }
}
