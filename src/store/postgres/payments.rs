//! What the processor does with payments; the rows themselves are read and written by the files beside this one.
//!
//! A payment's own path (submit, claim, advance) is made of single statements, each for as many payments as wait for it ([`super::group`]): what
//! decides is read first, without a lock, and judged by the rules in `payment/`; the statement then writes only over what was read (compare and set),
//! with all that goes with it, and commits by itself. What is rare (operations afterwards, disputes, requests) is a transaction that locks the
//! payment's row first.

use async_trait::async_trait;
use sqlx::PgConnection;

use super::fault::Fault;
use super::trail::{insert_audit, insert_outbox};
use super::{PgStore, attempts, books, commit, disputes, intents, papers, requests};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, CustomerId, IntentId, RequestId};
use crate::ledger::Transfer;
use crate::payment::{Attempt, Dispute, IntentStatus, OperationRefusal, PaymentRequest, Receipt};
use crate::store::rows::{Reader, money};
use crate::store::{
    AuditRecord, Begun, Claim, Command, DisputeEntry, EXPIRY_VOID_LIMIT, Job, NewCharge, NewOperation, OutboxRecord, Paper,
    Payment, Payments, RequestWithPayee, Settlement, StoreError, Submitted,
};

#[async_trait]
impl Payments for PgStore {
    async fn add_request(&self, request: &PaymentRequest, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            requests::insert(&mut tx, request).await?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn request(&self, id: &RequestId) -> Result<Option<RequestWithPayee>, StoreError> {
        self.read(async || self.groups.requests.ask(id.clone()).await).await
    }

    async fn payable_requests(&self, customer: &CustomerId, now: Timestamp) -> Result<Vec<RequestWithPayee>, StoreError> {
        self.read(async || requests::payable(&mut *self.connection().await?, customer, now).await).await
    }

    async fn cancel_request(
        &self,
        id: &RequestId,
        ended: &[Paper],
        audit: &[AuditRecord],
        news: &[OutboxRecord],
    ) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
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
            commit(tx).await
        })
        .await
    }

    async fn expire_requests(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.once(async || requests::expire(&mut *self.connection().await?, now).await).await
    }

    async fn submit(&self, charge: &NewCharge) -> Result<Submitted, StoreError> {
        if !charge.guards.none() {
            return self.write(async || self.submit_guarded(charge).await).await;
        }
        self.once(async || self.submit_one(charge).await).await
    }

    async fn begin_operation(&self, operation: &NewOperation) -> Result<Begun, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let begun = begin(&mut tx, operation).await?;
            commit(tx).await?;
            Ok(begun)
        })
        .await
    }

    async fn command(&self, key: &str) -> Result<Option<(Command, AttemptId)>, StoreError> {
        self.read(async || attempts::command(&mut *self.connection().await?, key).await).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Job>, StoreError> {
        let claimed = self.once(async || attempts::claim(&mut *self.connection().await?, claim).await).await?;
        // Committed; if what follows fails, the leases run out. Nobody else moves what is leased, so it is still so.
        self.read(async || attempts::jobs(&mut *self.connection().await?, claimed.clone()).await).await
    }

    async fn job(&self, attempt: &AttemptId) -> Result<Option<Job>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let found = attempts::find(&mut tx, attempt).await?.into_iter().collect();
            Ok(attempts::jobs(&mut tx, found).await?.pop())
        })
        .await
    }

    async fn advance(&self, attempt: &Attempt, settlement: &Settlement) -> Result<(), StoreError> {
        settlement.fits(attempt)?;
        self.once(async || self.groups.steps.ask((attempt.clone(), settlement.clone())).await).await
    }

    async fn put_off(&self, attempt: &Attempt, until: Timestamp) -> Result<(), StoreError> {
        self.once(async || attempts::put_off(&mut *self.connection().await?, attempt, until).await).await
    }

    async fn unfinished(&self, limit: u32) -> Result<Vec<Attempt>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT * FROM attempts WHERE due_at IS NOT NULL ORDER BY number LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *self.connection().await?)
                .await?;
            Ok(rows.iter().map(money::attempt).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn expired_authorisations(&self, now: Timestamp, limit: u32) -> Result<Vec<IntentId>, StoreError> {
        self.read(async || {
            let rows = sqlx::query(
                "SELECT i.id FROM intents i WHERE i.status = 'pending' AND i.authorisation_expires_at <= $1
                   AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.intent_id = i.id AND a.operation IN ('capture', 'void')
                                   AND a.state NOT IN ('declined', 'reversed'))
                   AND (SELECT count(*) FROM attempts a WHERE a.intent_id = i.id AND a.operation = 'void') < $2
                 ORDER BY i.authorisation_expires_at LIMIT $3",
            )
            .bind(now.0)
            .bind(i64::from(EXPIRY_VOID_LIMIT))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection().await?)
            .await?;
            Ok(rows.iter().map(|row| Reader::new(row, "intents").parsed("id")).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn conflicts(&self, limit: u32) -> Result<Vec<Payment>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let rows = sqlx::query(
                "SELECT i.* FROM intents i WHERE i.id IN
                   ((SELECT intent_id FROM attempts WHERE state = 'conflicted' ORDER BY created_at LIMIT $1)
                    UNION
                    (SELECT s.id FROM intents s WHERE s.status = 'pending' AND s.authorisation_expires_at IS NOT NULL
                        AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.intent_id = s.id AND a.operation IN ('capture', 'void')
                                        AND a.state NOT IN ('declined', 'reversed'))
                        AND (SELECT count(*) FROM attempts a WHERE a.intent_id = s.id AND a.operation = 'void') >= $2
                        ORDER BY s.authorisation_expires_at LIMIT $1))
                 ORDER BY i.created_at, i.id LIMIT $1",
            )
            .bind(i64::from(limit))
            .bind(i64::from(EXPIRY_VOID_LIMIT))
            .fetch_all(&mut *tx)
            .await?;
            intents::whole_all(&mut tx, &rows).await
        })
        .await
    }

    async fn open_dispute(&self, entry: &DisputeEntry) -> Result<bool, StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let opened = disputes::open(&mut tx, entry).await?;
            commit(tx).await?;
            Ok(opened)
        })
        .await
    }

    async fn close_dispute(&self, entry: &DisputeEntry) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            disputes::close(&mut tx, entry).await?;
            commit(tx).await
        })
        .await
    }

    async fn dispute(&self, reference: &str) -> Result<Option<Dispute>, StoreError> {
        self.read(async || disputes::find(&mut *self.connection().await?, reference).await).await
    }

    async fn disputes(&self, limit: u32) -> Result<Vec<Dispute>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT * FROM disputes ORDER BY seq DESC LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *self.connection().await?)
                .await?;
            Ok(rows.iter().map(money::dispute).collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn intent_status(&self, intent: &IntentId) -> Result<Option<IntentStatus>, StoreError> {
        self.read(async || self.groups.statuses.ask(intent.clone()).await).await
    }

    async fn payment(&self, intent: &IntentId) -> Result<Option<Payment>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            match intents::find(&mut tx, intent).await? {
                Some(intent) => intents::whole(&mut tx, intent).await.map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    async fn payment_by_gateway_reference(&self, reference: &str) -> Result<Option<Payment>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let row = sqlx::query(
                "SELECT * FROM intents WHERE id =
                   (SELECT intent_id FROM attempts WHERE gateway_reference = $1 ORDER BY number LIMIT 1)",
            )
            .bind(reference)
            .fetch_optional(&mut *tx)
            .await?;
            Ok(intents::whole_all(&mut tx, row.as_slice()).await?.pop())
        })
        .await
    }

    async fn payments(&self, limit: u32) -> Result<Vec<Payment>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let rows = sqlx::query("SELECT * FROM intents ORDER BY created_at DESC, id LIMIT $1")
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await?;
            intents::whole_all(&mut tx, &rows).await
        })
        .await
    }

    async fn payments_after(&self, after: Option<&IntentId>, limit: u32) -> Result<Vec<Payment>, StoreError> {
        self.read(async || {
            let mut tx = self.snapshot().await?;
            let rows = sqlx::query("SELECT * FROM intents WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(after.map_or("", IntentId::as_str))
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await?;
            intents::whole_all(&mut tx, &rows).await
        })
        .await
    }

    async fn receipt_by_reference(&self, reference: &str) -> Result<Option<Receipt>, StoreError> {
        self.read(async || {
            let row = sqlx::query("SELECT body FROM receipts WHERE reference = $1")
                .bind(reference)
                .fetch_optional(&mut *self.connection().await?)
                .await?;
            Ok(row.map(|row| Reader::new(&row, "receipts").json("body")).transpose()?)
        })
        .await
    }

    async fn transfers(&self) -> Result<Vec<Transfer>, StoreError> {
        self.read(async || {
            let rows = sqlx::query("SELECT * FROM transfers ORDER BY seq").fetch_all(&mut *self.connection().await?).await?;
            Ok(rows.iter().map(money::transfer).collect::<Result<_, _>>()?)
        })
        .await
    }
}

async fn begin(connection: &mut PgConnection, new: &NewOperation) -> Result<Begun, Fault> {
    let (command, attempt) = (&new.command, &new.attempt);
    // The payment first: what is judged below stays so until this commits, and of two commands by the same key the second finds the first.
    let intent = intents::hold(connection, &command.intent).await?;
    if let Some((earlier, attempt)) = attempts::command(connection, &command.key).await? {
        return Ok(new.repeats(&earlier, attempt));
    }
    let Some(intent) = intent else { return Ok(Begun::Refused(OperationRefusal::NoSuchPayment)) };
    let (others, contested) =
        (attempts::of_intent(connection, &intent.id).await?, disputes::of_intent(connection, &intent.id).await?);
    if let Some(refusal) = new.judge(&intent, &others, &contested)? {
        return Ok(Begun::Refused(refusal));
    }
    attempts::insert(connection, attempt, &new.schedule).await?;
    // The same key for two payments at once: the index decides, and then the other one is found.
    attempts::insert_command(connection, command, attempt).await?;
    if let Some(pending) = &new.pending {
        books::insert(connection, pending).await?;
    }
    insert_audit(connection, &new.audit).await?;
    insert_outbox(connection, &new.outbox).await?;
    Ok(Begun::Fresh(attempt.id.clone()))
}
