//! Intents and receipts: their rows, and a payment as a whole.

use std::collections::HashMap;
use std::pin::Pin;

use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::columns::column;
use super::fault::Fault;
use super::group::Answers;
use super::{attempts, books, disputes};
use crate::ids::IntentId;
use crate::payment::{Evidence, Intent, IntentStatus};
use crate::store::Payment;
use crate::store::rows::{Reader, money};

/// What this call made of this request before.
pub(super) async fn of_occasion(connection: &mut PgConnection, intent: &Intent) -> Result<Option<Intent>, Fault> {
    let row = sqlx::query("SELECT * FROM intents WHERE call_id = $1 AND request_id = $2")
        .bind(intent.occasion.as_str())
        .bind(intent.request.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(row.as_ref().map(money::intent).transpose()?)
}

pub(super) async fn find(connection: &mut PgConnection, id: &IntentId) -> Result<Option<Intent>, Fault> {
    let row = sqlx::query("SELECT * FROM intents WHERE id = $1").bind(id.as_str()).fetch_optional(connection).await?;
    Ok(row.as_ref().map(money::intent).transpose()?)
}

/// What each means for its request.
pub(super) fn statuses<'c>(
    connection: &'c mut PgConnection,
    ids: &'c [IntentId],
) -> Pin<Box<dyn Future<Output = Answers<Option<IntentStatus>>> + Send + 'c>> {
    Box::pin(async move {
        let rows = sqlx::query("SELECT id, status FROM intents WHERE id = ANY($1)")
            .bind(column(ids, IntentId::as_str))
            .fetch_all(connection)
            .await?;
        let mut found: HashMap<IntentId, IntentStatus> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let r = Reader::new(row, "intents");
            found.insert(r.parsed("id")?, r.word("status", IntentStatus::parse)?);
        }
        Ok(column(ids, |id| Ok(found.get(id).copied())))
    })
}

/// The same as [`find`], and nobody else begins an operation of this payment, or a dispute, before the transaction ends.
pub(super) async fn hold(connection: &mut PgConnection, id: &IntentId) -> Result<Option<Intent>, Fault> {
    let row =
        sqlx::query("SELECT * FROM intents WHERE id = $1 FOR NO KEY UPDATE").bind(id.as_str()).fetch_optional(connection).await?;
    Ok(row.as_ref().map(money::intent).transpose()?)
}

/// What a worker needs to know of an intent.
pub(super) struct WithPayee {
    pub(super) intent: Intent,
    pub(super) evidence: Evidence,
    pub(super) payee_name: String,
}

pub(super) async fn with_payees(connection: &mut PgConnection, ids: Vec<&str>) -> Result<Vec<WithPayee>, Fault> {
    let rows =
        sqlx::query("SELECT i.*, p.name AS payee_name FROM intents i JOIN payees p ON p.id = i.payee_id WHERE i.id = ANY($1)")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    let all = rows.iter().map(|row| {
        let r = Reader::new(row, "intents");
        Ok(WithPayee { intent: money::intent(row)?, evidence: r.json("evidence")?, payee_name: r.text("payee_name")? })
    });
    all.collect()
}

/// Each intent with all that belongs to it.
pub(super) async fn whole_all(connection: &mut PgConnection, intents: &[PgRow]) -> Result<Vec<Payment>, Fault> {
    let mut all = Vec::with_capacity(intents.len());
    for row in intents {
        all.push(whole(connection, money::intent(row)?).await?);
    }
    Ok(all)
}

/// An intent with all that belongs to it. In one snapshot, so that the parts fit together.
pub(super) async fn whole(connection: &mut PgConnection, intent: Intent) -> Result<Payment, Fault> {
    let row = sqlx::query("SELECT name, (SELECT body FROM receipts WHERE intent_id = $2) AS body FROM payees WHERE id = $1")
        .bind(intent.payee.as_str())
        .bind(intent.id.as_str())
        .fetch_one(&mut *connection)
        .await?;
    let r = Reader::new(&row, "receipts");
    Ok(Payment {
        payee_name: r.text("name")?,
        receipt: r.maybe_text("body")?.map(|_| r.json("body")).transpose()?,
        attempts: attempts::of_intent(connection, &intent.id).await?,
        disputes: disputes::of_intent(connection, &intent.id).await?,
        transfers: books::of_intent(connection, &intent.id).await?,
        intent,
    })
}
