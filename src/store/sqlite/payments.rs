//! What the processor does with payments, each in one transaction; the rows themselves are read and written by the files beside
//! this one.

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::batch::Batch;
use super::people::find_card;
use super::trail::{audit_into, insert_audit, insert_outbox, outbox_into};
use super::{SqliteStore, attempts, books, consents, disputes, fault, intents, papers, requests, writer};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, CustomerId, IntentId, RequestId};
use crate::ledger::Transfer;
use crate::payment::{Attempt, Dispute, IntentStatus, OperationRefusal, PaymentRequest, Receipt};
use crate::store::consents::beside_paper;
use crate::store::rows::{Reader, money};
use crate::store::{
    AuditRecord, Begun, Claim, Command, DisputeEntry, EXPIRY_VOID_LIMIT, Job, NewCharge, NewOperation, OutboxRecord, Paper,
    Payment, Payments, RequestWithPayee, Settlement, StoreError, SubmitRefusal, Submitted,
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

    async fn cancel_request(
        &self,
        id: &RequestId,
        ended: &[Paper],
        audit: &[AuditRecord],
        news: &[OutboxRecord],
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let before = requests::find(&mut tx, id).await?.ok_or(StoreError::NotFound("payment request"))?.request;
        let after = before.clone().cancel().map_err(|e| StoreError::Refused(e.to_string()))?;
        requests::replace(&mut tx, &before, &after).await?;
        for paper in ended {
            papers::put(&mut tx, paper).await?;
        }
        for row in audit {
            insert_audit(&mut tx, row).await?;
        }
        for row in news {
            insert_outbox(&mut tx, row).await?;
        }
        tx.commit().await.map_err(fault)
    }

    async fn expire_requests(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let n = requests::expire(&mut tx, now).await?;
        tx.commit().await.map_err(fault)?;
        Ok(n)
    }

    async fn submit(&self, charge: &NewCharge) -> Result<Submitted, StoreError> {
        // A request that can't be held has mostly been, by the same submission: who only asks again takes no turn at writing.
        if charge.judge(charge.request.clone(), Some(&charge.card)).is_err() {
            let mut conn = self.pool.acquire().await.map_err(fault)?;
            if let Some(earlier) = intents::of_occasion(&mut conn, &charge.intent).await? {
                return Ok(charge.repeats(earlier));
            }
        }
        let charge = charge.clone();
        self.queue(move |conn| Box::pin(async move { submit(conn, &charge).await })).await
    }

    async fn begin_operation(&self, operation: &NewOperation) -> Result<Begun, StoreError> {
        let operation = operation.clone();
        self.queue(move |conn| Box::pin(async move { begin(conn, &operation).await })).await
    }

    async fn command(&self, key: &str) -> Result<Option<(Command, AttemptId)>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        attempts::command(&mut conn, key).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Job>, StoreError> {
        // Most looks find nothing: those take no turn at writing.
        if !attempts::any_due(&self.pool, claim).await? {
            return Ok(Vec::new());
        }
        let claim = claim.clone();
        self.queue(move |conn| Box::pin(async move { attempts::claim(conn, &claim).await })).await
    }

    async fn job(&self, attempt: &AttemptId) -> Result<Option<Job>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(fault)?; // one snapshot for all that is read
        match attempts::find(&mut tx, attempt).await? {
            Some(attempt) => attempts::job(&mut tx, attempt).await.map(Some),
            None => Ok(None),
        }
    }

    async fn advance(&self, attempt: &Attempt, settlement: &Settlement) -> Result<(), StoreError> {
        settlement.fits(attempt)?;
        let (attempt, settlement) = (attempt.clone(), settlement.clone());
        self.queue(move |conn| Box::pin(async move { advance(conn, &attempt, &settlement).await })).await
    }

    async fn put_off(&self, attempt: &Attempt, until: Timestamp) -> Result<(), StoreError> {
        let attempt = attempt.clone();
        self.queue(move |conn| Box::pin(async move { attempts::put_off(conn, &attempt, until).await })).await
    }

    async fn unfinished(&self, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        // The `+` keeps SQLite from walking all attempts by their number: few have no end, and those have an index.
        let rows = sqlx::query("SELECT * FROM attempts WHERE due_at IS NOT NULL ORDER BY +number LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(money::attempt).collect()
    }

    async fn expired_authorisations(&self, now: Timestamp, limit: u32) -> Result<Vec<IntentId>, StoreError> {
        let rows = sqlx::query(
            "SELECT i.id FROM intents i WHERE i.status = 'pending' AND i.authorisation_expires_at <= ?
               AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.intent_id = i.id AND a.operation IN ('capture', 'void')
                               AND a.state NOT IN ('declined', 'reversed'))
               AND (SELECT count(*) FROM attempts a WHERE a.intent_id = i.id AND a.operation = 'void') < ?
             ORDER BY i.authorisation_expires_at LIMIT ?",
        )
        .bind(now.0)
        .bind(EXPIRY_VOID_LIMIT)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(|row| Reader::new(row, "intents").parsed("id")).collect()
    }

    async fn conflicts(&self, limit: u32) -> Result<Vec<Payment>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let rows = sqlx::query(
            "SELECT i.* FROM intents i WHERE i.id IN
               (SELECT * FROM (SELECT intent_id FROM attempts WHERE state = 'conflicted' ORDER BY created_at LIMIT ?1)
                UNION
                SELECT * FROM (SELECT s.id FROM intents s WHERE s.status = 'pending' AND s.authorisation_expires_at IS NOT NULL
                    AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.intent_id = s.id AND a.operation IN ('capture', 'void')
                                    AND a.state NOT IN ('declined', 'reversed'))
                    AND (SELECT count(*) FROM attempts a WHERE a.intent_id = s.id AND a.operation = 'void') >= ?2
                    ORDER BY s.authorisation_expires_at LIMIT ?1))
             ORDER BY i.created_at, i.id LIMIT ?1",
        )
        .bind(limit)
        .bind(EXPIRY_VOID_LIMIT)
        .fetch_all(&mut *tx)
        .await
        .map_err(fault)?;
        intents::whole_all(&mut tx, &rows).await
    }

    async fn open_dispute(&self, entry: &DisputeEntry) -> Result<bool, StoreError> {
        let entry = entry.clone();
        self.queue(move |conn| Box::pin(async move { disputes::open(conn, &entry).await })).await
    }

    async fn close_dispute(&self, entry: &DisputeEntry) -> Result<(), StoreError> {
        let entry = entry.clone();
        self.queue(move |conn| Box::pin(async move { disputes::close(conn, &entry).await })).await
    }

    async fn dispute(&self, reference: &str) -> Result<Option<Dispute>, StoreError> {
        let mut conn = self.pool.acquire().await.map_err(fault)?;
        disputes::find(&mut conn, reference).await
    }

    async fn disputes(&self, limit: u32) -> Result<Vec<Dispute>, StoreError> {
        let rows = sqlx::query("SELECT * FROM disputes ORDER BY rowid DESC LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(fault)?;
        rows.iter().map(money::dispute).collect()
    }

    async fn intent_status(&self, intent: &IntentId) -> Result<Option<IntentStatus>, StoreError> {
        let row = sqlx::query("SELECT status FROM intents WHERE id = ?")
            .bind(intent.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(fault)?;
        row.map(|row| Reader::new(&row, "intents").word("status", IntentStatus::parse)).transpose()
    }

    async fn payment(&self, intent: &IntentId) -> Result<Option<Payment>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(fault)?; // one snapshot for all that is read
        match intents::find(&mut tx, intent).await? {
            Some(intent) => intents::whole(&mut tx, intent).await.map(Some),
            None => Ok(None),
        }
    }

    async fn payment_by_gateway_reference(&self, reference: &str) -> Result<Option<Payment>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let row = sqlx::query(
            "SELECT * FROM intents WHERE id =
               (SELECT intent_id FROM attempts WHERE gateway_reference = ? ORDER BY number LIMIT 1)",
        )
        .bind(reference)
        .fetch_optional(&mut *tx)
        .await
        .map_err(fault)?;
        Ok(intents::whole_all(&mut tx, row.as_slice()).await?.pop())
    }

    async fn payments(&self, limit: u32) -> Result<Vec<Payment>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let rows = sqlx::query("SELECT * FROM intents ORDER BY created_at DESC, id LIMIT ?")
            .bind(limit)
            .fetch_all(&mut *tx)
            .await
            .map_err(fault)?;
        intents::whole_all(&mut tx, &rows).await
    }

    async fn payments_after(&self, after: Option<&IntentId>, limit: u32) -> Result<Vec<Payment>, StoreError> {
        let mut tx = self.pool.begin().await.map_err(fault)?;
        let rows = sqlx::query("SELECT * FROM intents WHERE id > ? ORDER BY id LIMIT ?")
            .bind(after.map_or("", IntentId::as_str))
            .bind(limit)
            .fetch_all(&mut *tx)
            .await
            .map_err(fault)?;
        intents::whole_all(&mut tx, &rows).await
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
        rows.iter().map(money::transfer).collect()
    }
}

async fn submit(conn: &mut SqliteConnection, charge: &NewCharge) -> Result<Submitted, StoreError> {
    if !charge.guards.none() {
        return submit_guarded(conn, charge).await;
    }
    // What the caller has read is good enough to begin with. If it no longer holds, or refuses, the database is asked.
    if let Ok(before) = charge.judge(charge.request.clone(), Some(&charge.card)) {
        match insert(conn, charge, &before).await {
            Err(StoreError::Conflict(_) | StoreError::Refused(_)) => writer::take_back(conn).await?,
            other => return other,
        }
    }
    // Idempotency first: a repeated submission must not be judged by what the first one changed.
    if let Some(earlier) = intents::of_occasion(conn, &charge.intent).await? {
        return Ok(charge.repeats(earlier));
    }
    match may_submit(conn, charge).await? {
        Ok(before) => insert(conn, charge, &before).await,
        Err(refusal) => Ok(Submitted::Refused(refusal)),
    }
}

/// The same where rules were asked: what they were asked with is looked at again, under the one lock that there is.
async fn submit_guarded(conn: &mut SqliteConnection, charge: &NewCharge) -> Result<Submitted, StoreError> {
    if let Some(earlier) = intents::of_occasion(conn, &charge.intent).await? {
        return Ok(charge.repeats(earlier));
    }
    let before = match may_submit(conn, charge).await? {
        Ok(before) => before,
        Err(refusal) => return Ok(Submitted::Refused(refusal)),
    };
    if let Some((of, _)) = &charge.guards.spent
        && charge.guards.outspent(&papers::spent(conn, of).await?)
    {
        return Ok(Submitted::Refused(SubmitRefusal::ChangedMeanwhile));
    }
    for standing in &charge.guards.stand {
        if !papers::stands(conn, standing).await? {
            return Ok(Submitted::Refused(SubmitRefusal::ChangedMeanwhile));
        }
    }
    for paper in &charge.guards.papers {
        match papers::put(conn, paper).await {
            Err(StoreError::Conflict(_) | StoreError::Refused(_)) => {
                writer::take_back(conn).await?;
                return Ok(Submitted::Refused(SubmitRefusal::ApprovalGone));
            }
            other => other?,
        }
        let audit = beside_paper(paper, charge.guards.told.iter().map(|(_, audit)| audit));
        consents::with_paper(conn, paper, audit).await?;
    }
    insert(conn, charge, &before).await
}

/// Writes a submission whose request was judged as `before`.
async fn insert(conn: &mut SqliteConnection, charge: &NewCharge, before: &PaymentRequest) -> Result<Submitted, StoreError> {
    let mut batch = Batch::default();
    requests::hold(&mut batch, before, &charge.intent);
    intents::insert(&mut batch, charge)?;
    books::insert(&mut batch, &charge.pending);
    audit_into(&mut batch, &charge.audit)?;
    outbox_into(&mut batch, &charge.outbox)?;
    for (news, audit) in &charge.guards.told {
        audit_into(&mut batch, audit)?;
        outbox_into(&mut batch, news)?;
    }
    attempts::insert(&mut batch, &charge.attempt, &charge.schedule)?;
    let done = batch.run(conn, StoreError::Conflict("payment request")).await?;
    Ok(Submitted::Fresh { intent: charge.intent.id.clone(), number: attempts::number(&done)? })
}

async fn begin(conn: &mut SqliteConnection, new: &NewOperation) -> Result<Begun, StoreError> {
    let (command, attempt) = (&new.command, &new.attempt);
    if let Some((earlier, attempt)) = attempts::command(conn, &command.key).await? {
        return Ok(new.repeats(&earlier, attempt));
    }
    let Some(intent) = intents::find(conn, &command.intent).await? else {
        return Ok(Begun::Refused(OperationRefusal::NoSuchPayment));
    };
    let (others, contested) = (attempts::of_intent(conn, &intent.id).await?, disputes::of_intent(conn, &intent.id).await?);
    if let Some(refusal) = new.judge(&intent, &others, &contested)? {
        return Ok(Begun::Refused(refusal));
    }
    let mut batch = Batch::default();
    if let Some(pending) = &new.pending {
        books::insert(&mut batch, pending);
    }
    audit_into(&mut batch, &new.audit)?;
    outbox_into(&mut batch, &new.outbox)?;
    attempts::insert(&mut batch, attempt, &new.schedule)?;
    batch.run(conn, StoreError::Conflict("payment")).await?;
    attempts::insert_command(conn, command, attempt).await?;
    Ok(Begun::Fresh(attempt.id.clone()))
}

async fn advance(conn: &mut SqliteConnection, attempt: &Attempt, settlement: &Settlement) -> Result<(), StoreError> {
    let refused = match write_step(conn, attempt, settlement).await {
        Err(refused @ (StoreError::Conflict(_) | StoreError::Refused(_))) => refused,
        other => return other,
    };
    // What goes with a step that somebody else has taken may be refused before the step is.
    writer::take_back(conn).await?;
    if attempts::is_before(conn, attempt).await? { Err(refused) } else { Err(StoreError::Conflict("attempt")) }
}

async fn write_step(conn: &mut SqliteConnection, attempt: &Attempt, settlement: &Settlement) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    attempts::replace(&mut batch, attempt, settlement.schedule.as_ref())?;
    if let Some(status) = IntentStatus::after(attempt.operation, &attempt.state) {
        batch
            .add("UPDATE intents SET status = ? WHERE id = ? AND status = 'pending'")
            .bind(status.as_str())
            .bind(attempt.intent.as_str());
    }
    if let Some(until) = settlement.authorisation_expires_at {
        batch
            .add("UPDATE intents SET authorisation_expires_at = ? WHERE id = ? AND status = 'pending'")
            .bind(until.0)
            .bind(attempt.intent.as_str());
    }
    if let Some(transfer) = &settlement.transfer {
        books::insert(&mut batch, transfer);
    }
    if let Some(receipt) = &settlement.receipt {
        intents::insert_receipt(&mut batch, receipt)?;
    }
    if let Some(fate) = settlement.request_fate() {
        requests::decide(&mut batch, &attempt.intent, fate);
    }
    for audit in &settlement.audit {
        audit_into(&mut batch, audit)?;
    }
    for news in &settlement.outbox {
        outbox_into(&mut batch, news)?;
    }
    batch.run(conn, StoreError::Conflict("payment")).await.map(drop)
}

/// Reads what a new intent is judged by, and judges it; gives the request before it is held.
async fn may_submit(
    conn: &mut SqliteConnection,
    charge: &NewCharge,
) -> Result<Result<PaymentRequest, SubmitRefusal>, StoreError> {
    let intent = &charge.intent;
    let row = sqlx::query(
        "SELECT r.*, '' AS payee_name FROM customers c LEFT JOIN requests r ON r.id = ? WHERE c.id = ? AND c.status = 'active'",
    )
    .bind(intent.request.as_str())
    .bind(intent.customer.as_str())
    .fetch_optional(&mut *conn)
    .await
    .map_err(fault)?;
    let Some(row) = row else { return Ok(Err(SubmitRefusal::NoSuchCustomer)) };
    let Some(request) = money::joined_request(&row)? else { return Ok(Err(SubmitRefusal::NoSuchRequest)) };
    let card = find_card(conn, &intent.card).await?;
    Ok(charge.judge(request, card.as_ref()))
}
