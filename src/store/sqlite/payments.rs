//! Intents, attempts, the books, receipts.

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::people::{find_card, read_customer};
use super::trail::{insert_audit, insert_outbox};
use super::{SqliteStore, exactly_one, fault, requests};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, CustomerId, IntentId, RequestId};
use crate::ledger::{AccountName, Transfer, TransferKind};
use crate::payment::{Attempt, AttemptState, Intent, IntentStatus, PaymentRequest, Receipt};
use crate::store::rows::{Reader, to_json};
use crate::store::{
    AuditRecord, CustomerStatus, Job, NewCharge, Payment, Payments, RequestWithPayee, Settlement, StoreError, SubmitRefusal,
    Submitted,
};

#[async_trait]
impl Payments for SqliteStore {
    async fn add_request(&self, request: &PaymentRequest, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        requests::insert(&mut tx, request).await?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn request(&self, id: &RequestId) -> Result<Option<RequestWithPayee>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        requests::find(&mut conn, id).await
    }

    async fn payable_requests(&self, customer: &CustomerId, now: Timestamp) -> Result<Vec<RequestWithPayee>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        requests::payable(&mut conn, customer, now).await
    }

    async fn cancel_request(&self, id: &RequestId, audit: &AuditRecord) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let before = requests::find(&mut tx, id).await?.ok_or(StoreError::NotFound("payment request"))?.request;
        let after = before.clone().cancel().map_err(|e| StoreError::Refused(e.to_string()))?;
        requests::replace(&mut tx, &before, &after).await?;
        insert_audit(&mut tx, audit).await?;
        tx.commit().await.map_err(fault)
    }

    async fn expire_requests(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let n = requests::expire(&mut tx, now).await?;
        tx.commit().await.map_err(fault)?;
        Ok(n)
    }

    async fn submit(&self, charge: &NewCharge) -> Result<Submitted, StoreError> {
        let mut tx = self.write().await?;
        // Idempotency first: a repeated submission must not be judged by what the first one changed.
        if let Some(earlier) = intent_of_call(&mut tx, &charge.intent).await? {
            let same = earlier.amount == charge.intent.amount
                && earlier.card == charge.intent.card
                && earlier.customer == charge.intent.customer;
            return Ok(if same {
                Submitted::Already(earlier.id)
            } else {
                Submitted::Refused(SubmitRefusal::SameKeyOtherContent)
            });
        }
        let (before, after) = match may_submit(&mut tx, &charge.intent).await? {
            Ok(held) => held,
            Err(refusal) => return Ok(Submitted::Refused(refusal)),
        };
        requests::replace(&mut tx, &before, &after).await?;
        insert_intent(&mut tx, charge).await?;
        insert_attempt(&mut tx, &charge.attempt, charge.intent.created_at).await?;
        insert_transfer(&mut tx, &charge.pending).await?;
        insert_audit(&mut tx, &charge.audit).await?;
        insert_outbox(&mut tx, &charge.outbox).await?;
        tx.commit().await.map_err(fault)?;
        Ok(Submitted::Fresh(charge.intent.id.clone()))
    }

    async fn prepared(&self, limit: u32) -> Result<Vec<Job>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        let rows = sqlx::query("SELECT * FROM attempts WHERE state = 'prepared' ORDER BY created_at, id LIMIT ?")
            .bind(limit)
            .fetch_all(&mut *conn)
            .await
            .map_err(fault)?;
        jobs(&mut conn, &rows).await
    }

    async fn in_doubt(&self, after: Option<&AttemptId>, limit: u32) -> Result<Vec<Job>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        let rows = sqlx::query(
            "SELECT * FROM attempts WHERE state IN ('dispatched', 'needs_reconciliation') AND id > ? ORDER BY id LIMIT ?",
        )
        .bind(after.map_or("", AttemptId::as_str))
        .bind(limit)
        .fetch_all(&mut *conn)
        .await
        .map_err(fault)?;
        jobs(&mut conn, &rows).await
    }

    async fn job(&self, attempt: &AttemptId) -> Result<Option<Job>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        let row = sqlx::query("SELECT * FROM attempts WHERE id = ?")
            .bind(attempt.as_str())
            .fetch_all(&mut *conn)
            .await
            .map_err(fault)?;
        Ok(jobs(&mut conn, &row).await?.pop())
    }

    async fn advance(&self, attempt: &Attempt, settlement: &Settlement) -> Result<(), StoreError> {
        let status = IntentStatus::of_attempt(&attempt.state);
        refuse_what_does_not_fit(attempt, status, settlement)?;
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE attempts SET state = ?1, detail = ?2, version = ?3 WHERE id = ?4 AND version = ?3 - 1 AND intent_id = ?5",
        )
        .bind(attempt.state.name())
        .bind(to_json(&attempt.state)?)
        .bind(attempt.version)
        .bind(attempt.id.as_str())
        .bind(attempt.intent.as_str())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        exactly_one(&done, StoreError::Conflict("attempt"))?;
        let done = sqlx::query("UPDATE intents SET status = ? WHERE id = ? AND status = 'pending'")
            .bind(status.as_str())
            .bind(attempt.intent.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        exactly_one(&done, StoreError::Conflict("payment"))?;
        if let Some(transfer) = &settlement.transfer {
            insert_transfer(&mut tx, transfer).await?;
        }
        if let Some(receipt) = &settlement.receipt {
            insert_receipt(&mut tx, receipt).await?;
        }
        if settlement.receipt.is_some() || settlement.release_request {
            let intent = find_intent(&mut tx, &attempt.intent).await?.ok_or(StoreError::NotFound("payment"))?;
            let before = requests::find(&mut tx, &intent.request).await?.ok_or(StoreError::NotFound("payment request"))?.request;
            let after =
                if settlement.receipt.is_some() { before.clone().settle(&intent.id) } else { before.clone().release(&intent.id) };
            requests::replace(&mut tx, &before, &after.map_err(|e| StoreError::Refused(e.to_string()))?).await?;
        }
        for audit in &settlement.audit {
            insert_audit(&mut tx, audit).await?;
        }
        for news in &settlement.outbox {
            insert_outbox(&mut tx, news).await?;
        }
        tx.commit().await.map_err(fault)
    }

    async fn payment(&self, intent: &IntentId) -> Result<Option<Payment>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(fault)?; // one snapshot for all that is read
        match find_intent(&mut tx, intent).await? {
            Some(intent) => whole(&mut tx, intent).await.map(Some),
            None => Ok(None),
        }
    }

    async fn payment_of_attempt(&self, attempt: &AttemptId) -> Result<Option<Payment>, StoreError> {
        let row = sqlx::query("SELECT intent_id FROM attempts WHERE id = ?")
            .bind(attempt.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        match row {
            Some(row) => self.payment(&Reader::new(&row, "attempts").parsed("intent_id")?).await,
            None => Ok(None),
        }
    }

    async fn payments(&self, limit: u32) -> Result<Vec<Payment>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let rows = sqlx::query("SELECT * FROM intents ORDER BY created_at DESC, id LIMIT ?")
            .bind(limit)
            .fetch_all(&mut *tx)
            .await
            .map_err(fault)?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            all.push(whole(&mut tx, read_intent(row)?).await?);
        }
        Ok(all)
    }

    async fn receipt_by_reference(&self, reference: &str) -> Result<Option<Receipt>, StoreError> {
        let row = sqlx::query("SELECT body FROM receipts WHERE reference = ?")
            .bind(reference)
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        row.map(|row| Reader::new(&row, "receipts").json("body")).transpose()
    }

    async fn transfers(&self) -> Result<Vec<Transfer>, StoreError> {
        let rows = sqlx::query("SELECT * FROM transfers ORDER BY seq").fetch_all(&self.pool).await.map_err(fault)?;
        rows.iter().map(read_transfer).collect()
    }
}

/// What must hold of a settlement whoever made it: an end comes with its row in the books and with the request's fate, and nothing else does.
fn refuse_what_does_not_fit(attempt: &Attempt, status: IntentStatus, s: &Settlement) -> Result<(), StoreError> {
    let fits = match (status, s.transfer.as_ref().map(|t| &t.kind)) {
        (IntentStatus::Pending, None) => s.receipt.is_none() && !s.release_request,
        (IntentStatus::Paid, Some(TransferKind::Post { .. })) => s.receipt.is_some() && !s.release_request,
        (IntentStatus::Failed, Some(TransferKind::Void { .. })) => s.receipt.is_none() && s.release_request,
        (IntentStatus::Pending | IntentStatus::Paid | IntentStatus::Failed, _) => false,
    };
    let ours = s.receipt.as_ref().is_none_or(|r| r.intent == attempt.intent && r.amount == attempt.amount)
        && s.transfer.as_ref().is_none_or(|t| t.intent == attempt.intent && t.amount == attempt.amount);
    if fits && ours {
        Ok(())
    } else {
        Err(StoreError::Refused(format!("an attempt that is {} does not go with these postings", attempt.state.name())))
    }
}

async fn intent_of_call(conn: &mut SqliteConnection, intent: &Intent) -> Result<Option<Intent>, StoreError> {
    let row = sqlx::query("SELECT * FROM intents WHERE call_id = ? AND request_id = ?")
        .bind(intent.call.as_str())
        .bind(intent.request.as_str())
        .fetch_optional(conn)
        .await
        .map_err(fault)?;
    row.as_ref().map(read_intent).transpose()
}

/// Judges a new intent against what the database holds; gives the request before and after it is held.
async fn may_submit(
    conn: &mut SqliteConnection,
    intent: &Intent,
) -> Result<Result<(PaymentRequest, PaymentRequest), SubmitRefusal>, StoreError> {
    let now = intent.created_at;
    let row = sqlx::query("SELECT * FROM customers WHERE id = ?")
        .bind(intent.customer.as_str())
        .fetch_optional(&mut *conn)
        .await
        .map_err(fault)?;
    let customer = match row {
        Some(row) => Some(read_customer(conn, &row).await?),
        None => None,
    };
    if customer.is_none_or(|c| c.status != CustomerStatus::Active) {
        return Ok(Err(SubmitRefusal::NoSuchCustomer));
    }
    let Some(found) = requests::find(conn, &intent.request).await? else { return Ok(Err(SubmitRefusal::NoSuchRequest)) };
    let request = found.request;
    if request.customer != intent.customer || request.payee != intent.payee {
        return Ok(Err(SubmitRefusal::NoSuchRequest));
    }
    if request.amount != intent.amount {
        return Ok(Err(SubmitRefusal::OtherAmount));
    }
    let card = find_card(conn, &intent.card).await?;
    if !card.is_some_and(|c| c.customer == intent.customer && c.last4 == intent.last4 && c.usable(now)) {
        return Ok(Err(SubmitRefusal::NoUsableCard));
    }
    Ok(match request.clone().hold(now, &intent.id) {
        Ok(held) => Ok((request, held)),
        Err(e) => Err(SubmitRefusal::Request(e)),
    })
}

async fn insert_intent(conn: &mut SqliteConnection, charge: &NewCharge) -> Result<(), StoreError> {
    let i = &charge.intent;
    sqlx::query(
        "INSERT INTO intents (id, customer_id, request_id, payee_id, card_id, last4, call_id, amount_minor, currency, status, evidence, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(i.id.as_str())
    .bind(i.customer.as_str())
    .bind(i.request.as_str())
    .bind(i.payee.as_str())
    .bind(i.card.as_str())
    .bind(&i.last4)
    .bind(i.call.as_str())
    .bind(i.amount.minor.get())
    .bind(i.amount.currency.code())
    .bind(i.status.as_str())
    .bind(to_json(&charge.evidence)?)
    .bind(i.created_at.0)
    .execute(conn)
    .await
    .map_err(fault)?;
    Ok(())
}

async fn insert_attempt(conn: &mut SqliteConnection, a: &Attempt, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO attempts (id, intent_id, amount_minor, currency, state, detail, version, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(a.id.as_str())
    .bind(a.intent.as_str())
    .bind(a.amount.minor.get())
    .bind(a.amount.currency.code())
    .bind(a.state.name())
    .bind(to_json(&a.state)?)
    .bind(a.version)
    .bind(at.0)
    .execute(conn)
    .await
    .map_err(fault)?;
    Ok(())
}

async fn insert_transfer(conn: &mut SqliteConnection, t: &Transfer) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(t.id.as_str())
    .bind(t.kind.name())
    .bind(t.kind.of().map(|of| of.as_str()))
    .bind(t.debit.as_str())
    .bind(t.credit.as_str())
    .bind(t.amount.minor.get())
    .bind(t.amount.currency.code())
    .bind(t.intent.as_str())
    .bind(t.at.0)
    .execute(conn)
    .await
    .map_err(fault)?;
    Ok(())
}

async fn insert_receipt(conn: &mut SqliteConnection, r: &Receipt) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO receipts (id, reference, intent_id, body, at) VALUES (?, ?, ?, ?, ?)")
        .bind(r.id.as_str())
        .bind(&r.reference)
        .bind(r.intent.as_str())
        .bind(to_json(r)?)
        .bind(r.at.0)
        .execute(conn)
        .await
        .map_err(|e| if super::is_duplicate(&e) { StoreError::Exists("a receipt with this reference") } else { fault(e) })?;
    Ok(())
}

async fn find_intent(conn: &mut SqliteConnection, id: &IntentId) -> Result<Option<Intent>, StoreError> {
    let row = sqlx::query("SELECT * FROM intents WHERE id = ?").bind(id.as_str()).fetch_optional(conn).await.map_err(fault)?;
    row.as_ref().map(read_intent).transpose()
}

async fn jobs(conn: &mut SqliteConnection, attempts: &[SqliteRow]) -> Result<Vec<Job>, StoreError> {
    let mut jobs = Vec::with_capacity(attempts.len());
    for row in attempts {
        let attempt = read_attempt(row)?;
        let row =
            sqlx::query("SELECT i.*, p.name AS payee_name FROM intents i JOIN payees p ON p.id = i.payee_id WHERE i.id = ?")
                .bind(attempt.intent.as_str())
                .fetch_one(&mut *conn)
                .await
                .map_err(fault)?;
        let r = Reader::new(&row, "intents");
        let pending = sqlx::query("SELECT * FROM transfers WHERE intent_id = ? AND kind = 'pending' ORDER BY seq DESC LIMIT 1")
            .bind(attempt.intent.as_str())
            .fetch_one(&mut *conn)
            .await
            .map_err(fault)?;
        jobs.push(Job {
            intent: read_intent(&row)?,
            evidence: r.json("evidence")?,
            payee_name: r.text("payee_name")?,
            pending: read_transfer(&pending)?,
            attempt,
        });
    }
    Ok(jobs)
}

async fn whole(conn: &mut SqliteConnection, intent: Intent) -> Result<Payment, StoreError> {
    let id = intent.id.as_str();
    let attempts = sqlx::query("SELECT * FROM attempts WHERE intent_id = ? ORDER BY created_at, id")
        .bind(id)
        .fetch_all(&mut *conn)
        .await
        .map_err(fault)?;
    let transfers = sqlx::query("SELECT * FROM transfers WHERE intent_id = ? ORDER BY seq")
        .bind(id)
        .fetch_all(&mut *conn)
        .await
        .map_err(fault)?;
    let receipt =
        sqlx::query("SELECT body FROM receipts WHERE intent_id = ?").bind(id).fetch_optional(&mut *conn).await.map_err(fault)?;
    let payee =
        sqlx::query("SELECT name FROM payees WHERE id = ?").bind(intent.payee.as_str()).fetch_one(conn).await.map_err(fault)?;
    Ok(Payment {
        payee_name: Reader::new(&payee, "payees").text("name")?,
        attempts: attempts.iter().map(read_attempt).collect::<Result<_, _>>()?,
        transfers: transfers.iter().map(read_transfer).collect::<Result<_, _>>()?,
        receipt: receipt.map(|row| Reader::new(&row, "receipts").json("body")).transpose()?,
        intent,
    })
}

fn read_intent(row: &SqliteRow) -> Result<Intent, StoreError> {
    let r = Reader::new(row, "intents");
    Ok(Intent {
        id: r.parsed("id")?,
        customer: r.parsed("customer_id")?,
        request: r.parsed("request_id")?,
        payee: r.parsed("payee_id")?,
        card: r.parsed("card_id")?,
        last4: r.text("last4")?,
        call: r.parsed("call_id")?,
        amount: r.money()?,
        status: r.word("status", IntentStatus::parse)?,
        created_at: r.at("created_at")?,
    })
}

fn read_attempt(row: &SqliteRow) -> Result<Attempt, StoreError> {
    let r = Reader::new(row, "attempts");
    let state: AttemptState = r.json("detail")?;
    if state.name() != r.text("state")? {
        return Err(r.damaged("state and detail disagree"));
    }
    Ok(Attempt { id: r.parsed("id")?, intent: r.parsed("intent_id")?, amount: r.money()?, state, version: r.int("version")? })
}

fn read_transfer(row: &SqliteRow) -> Result<Transfer, StoreError> {
    let r = Reader::new(row, "transfers");
    let of = || r.parsed("of_id");
    let kind = match r.text("kind")?.as_str() {
        "pending" => TransferKind::Pending,
        "post" => TransferKind::Post { of: of()? },
        "void" => TransferKind::Void { of: of()? },
        other => return Err(r.damaged(format_args!("kind is `{other}`"))),
    };
    Ok(Transfer {
        id: r.parsed("id")?,
        kind,
        debit: AccountName::from_row(r.text("debit")?),
        credit: AccountName::from_row(r.text("credit")?),
        amount: r.money()?,
        intent: r.parsed("intent_id")?,
        at: r.at("at")?,
    })
}
