//! What a group writes, by column: arrays that a statement unnests.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

use crate::ledger::Transfer;
use crate::store::rows::to_json;
use crate::store::{AuditRecord, OutboxRecord, StoreError};

pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// One column of a group.
pub(super) fn column<'g, M, T>(group: &'g [M], of: impl Fn(&'g M) -> T) -> Vec<T> {
    group.iter().map(of).collect()
}

/// Ten columns of the books; where a member moves no money they are NULL.
pub(super) fn transfers<'q>(statement: Statement<'q>, rows: &[Option<&'q Transfer>]) -> Statement<'q> {
    let text = |of: fn(&Transfer) -> &str| column(rows, |t| t.map(of));
    statement
        .bind(text(|t| t.id.as_str()))
        .bind(text(|t| t.kind.name()))
        .bind(column(rows, |t| t.and_then(|t| t.kind.of()).map(|of| of.as_str())))
        .bind(text(|t| t.debit.as_str()))
        .bind(text(|t| t.credit.as_str()))
        .bind(column(rows, |t| t.map(|t| t.amount.minor.get())))
        .bind(text(|t| t.amount.currency.code()))
        .bind(text(|t| t.intent.as_str()))
        .bind(text(|t| t.cause.as_str()))
        .bind(column(rows, |t| t.map(|t| t.at.0)))
}

/// Seven columns of audit rows, the first of which says whose they are: which member's, from 1.
pub(super) fn audit<'q>(statement: Statement<'q>, rows: &[(i64, &'q AuditRecord)]) -> Result<Statement<'q>, StoreError> {
    let text = |of: fn(&AuditRecord) -> &str| column(rows, |&(_, a)| of(a));
    let details = rows.iter().map(|(_, a)| to_json(&a.detail)).collect::<Result<Vec<_>, _>>()?;
    Ok(statement
        .bind(column(rows, |(whose, _)| *whose))
        .bind(text(|a| a.id.as_str()))
        .bind(column(rows, |(_, a)| a.at.0))
        .bind(text(|a| &a.actor))
        .bind(text(|a| &a.action))
        .bind(text(|a| &a.subject))
        .bind(details))
}

/// Five columns of news, the first of which says whose they are.
pub(super) fn outbox<'q>(statement: Statement<'q>, rows: &[(i64, &'q OutboxRecord)]) -> Result<Statement<'q>, StoreError> {
    let payloads = rows.iter().map(|(_, o)| to_json(&o.payload)).collect::<Result<Vec<_>, _>>()?;
    Ok(statement
        .bind(column(rows, |(whose, _)| *whose))
        .bind(column(rows, |&(_, o)| o.id.as_str()))
        .bind(column(rows, |(_, o)| o.at.0))
        .bind(column(rows, |&(_, o)| o.topic.as_str()))
        .bind(payloads))
}
