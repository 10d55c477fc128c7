//! What the processor does with payments; the rows themselves are read and written by the files beside this one.
//!
//! A payment's own path (submit, claim, advance) is made of single statements: what decides is read first, without a lock, and judged by the rules in
//! `payment/`; the statement then writes only over what was read (compare and set), with all that goes with it, and commits by itself. What is rare
//! (operations afterwards, disputes, requests) is a transaction that locks the payment's row first.

use async_trait::async_trait;
use sqlx::{PgConnection, Row};

use super::fault::{Fault, duplicate_of};
use super::together::{Together, together};
use super::trail::{insert_audit, insert_outbox};
use super::{PgStore, attempts, books, commit, disputes, intents, people, requests};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, CustomerId, IntentId, RequestId};
use crate::ledger::Transfer;
use crate::payment::{Attempt, Dispute, IntentStatus, OperationRefusal, PaymentRequest, Receipt};
use crate::store::rows::{Reader, money, to_json};
use crate::store::{
    AuditRecord, Begun, Claim, Command, DisputeEntry, EXPIRY_VOID_LIMIT, Job, NewCharge, NewOperation, Payment, Payments,
    RequestWithPayee, Schedule, Settlement, StoreError, SubmitRefusal, Submitted,
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
        self.read(async || requests::find(&mut *self.connection().await?, id).await).await
    }

    async fn payable_requests(&self, customer: &CustomerId, now: Timestamp) -> Result<Vec<RequestWithPayee>, StoreError> {
        self.read(async || requests::payable(&mut *self.connection().await?, customer, now).await).await
    }

    async fn cancel_request(&self, id: &RequestId, audit: &AuditRecord) -> Result<(), StoreError> {
        self.write(async || {
            let mut tx = self.begin().await?;
            let before = requests::find(&mut tx, id).await?.ok_or(StoreError::NotFound("payment request"))?.request;
            let after = before.clone().cancel().map_err(|e| StoreError::Refused(e.to_string()))?;
            requests::replace(&mut tx, &before, &after).await?;
            insert_audit(&mut tx, audit).await?;
            commit(tx).await
        })
        .await
    }

    async fn expire_requests(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.once(async || requests::expire(&mut *self.connection().await?, now).await).await
    }

    async fn submit(&self, charge: &NewCharge) -> Result<Submitted, StoreError> {
        self.once(async || submit(&mut *self.connection().await?, charge).await).await
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
        self.once(async || advance(&mut *self.connection().await?, attempt, settlement).await).await
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
        self.read(async || {
            let row = sqlx::query("SELECT status FROM intents WHERE id = $1")
                .bind(intent.as_str())
                .fetch_optional(&mut *self.connection().await?)
                .await?;
            Ok(row.map(|row| Reader::new(&row, "intents").word("status", IntentStatus::parse)).transpose()?)
        })
        .await
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

/// Whoever deletes the customer or the card waits for `alive` and `usable`, and then finds the pending intent; whoever came first leaves no row here.
/// A request that was held or withdrawn since it was read leaves none either.
const SUBMIT: &str = concat!(
    "WITH alive AS MATERIALIZED (SELECT id FROM customers WHERE id = $22 AND status = 'active' FOR KEY SHARE),
     usable AS MATERIALIZED (SELECT c.id FROM alive, cards c WHERE c.id = $25 AND c.status = 'active' FOR SHARE OF c),
     held AS (
         UPDATE requests r SET status = $43, held_by = $44 FROM usable
         WHERE r.id = $23 AND r.status = $45 AND r.held_by IS NOT DISTINCT FROM $46
         RETURNING r.id),
     intended AS (
         INSERT INTO intents (id, customer_id, request_id, payee_id, card_id, last4, call_id, amount_minor, currency, capture, status,
                              evidence, created_at)
         SELECT $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33 FROM held),
     prepared AS (
         INSERT INTO attempts (id, intent_id, operation, gateway, amount_minor, currency, state, detail, version, due_at,
                               lease_owner, lease_until, created_at)
         SELECT $34, $21, $35, $36, $28, $29, $37, $38, $39, $40, $41, $42, $33 FROM held
         RETURNING number), ",
    together!("held"),
    " SELECT number FROM prepared"
);

async fn submit(connection: &mut PgConnection, charge: &NewCharge) -> Result<Submitted, Fault> {
    let (i, a) = (&charge.intent, &charge.attempt);
    // Idempotency first: a repeated submission must not be judged by what the first one changed.
    if let Some(earlier) = intents::of_call(connection, i).await? {
        return Ok(charge.repeats(earlier));
    }
    let (before, after) = match may_submit(connection, charge).await? {
        Ok(held) => held,
        Err(refusal) => {
            // Two reads are two snapshots: the first submission may have been committed between them, and be what refuses the second.
            let earlier = intents::of_call(connection, i).await?;
            return Ok(earlier.map_or(Submitted::Refused(refusal), |earlier| charge.repeats(earlier)));
        }
    };
    let lease = charge.schedule.lease();
    let with = Together::new(std::slice::from_ref(&charge.audit), std::slice::from_ref(&charge.outbox), Some(&charge.pending))?;
    let row = with
        .bind(sqlx::query(SUBMIT))
        .bind(i.id.as_str())
        .bind(i.customer.as_str())
        .bind(i.request.as_str())
        .bind(i.payee.as_str())
        .bind(i.card.as_str())
        .bind(&i.last4)
        .bind(i.call.as_str())
        .bind(i.amount.minor.get())
        .bind(i.amount.currency.code())
        .bind(i.capture.as_str())
        .bind(i.status.as_str())
        .bind(to_json(&charge.evidence)?)
        .bind(i.created_at.0)
        .bind(a.id.as_str())
        .bind(a.operation.as_str())
        .bind(&a.gateway)
        .bind(a.state.name())
        .bind(to_json(&a.state)?)
        .bind(a.version)
        .bind(charge.schedule.due_at().0)
        .bind(lease.map(|l| l.owner.as_str()))
        .bind(lease.map(|l| l.until.0))
        .bind(after.status.as_str())
        .bind(after.held_by.as_ref().map(IntentId::as_str))
        .bind(before.status.as_str())
        .bind(before.held_by.as_ref().map(IntentId::as_str))
        .fetch_optional(connection)
        .await
        // The same submission a moment ago, by another task: what is judged next finds it.
        .map_err(|e| if duplicate_of(&e).is_some() { Fault::Contended } else { e.into() })?;
    match row {
        Some(row) => Ok(Submitted::Fresh { intent: i.id.clone(), number: Reader::new(&row, "attempts").small("number")? }),
        // What was judged is no longer so: judge again.
        None => Err(Fault::Contended),
    }
}

/// Reads what a new intent is judged by, and judges it; gives the request before and after it is held.
async fn may_submit(
    connection: &mut PgConnection,
    charge: &NewCharge,
) -> Result<Result<(PaymentRequest, PaymentRequest), SubmitRefusal>, Fault> {
    let intent = &charge.intent;
    let row = sqlx::query(
        "SELECT r.*, '' AS payee_name FROM customers c LEFT JOIN requests r ON r.id = $1 WHERE c.id = $2 AND c.status = 'active'",
    )
    .bind(intent.request.as_str())
    .bind(intent.customer.as_str())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(Err(SubmitRefusal::NoSuchCustomer)) };
    let Some(request) = money::joined_request(&row)? else { return Ok(Err(SubmitRefusal::NoSuchRequest)) };
    let card = people::find_card(connection, &intent.card).await?;
    Ok(charge.judge(request, card.as_ref()))
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

const ADVANCE: &str = concat!(
    "WITH moved AS (
         UPDATE attempts SET state = $21, detail = $22, version = $23, gateway_reference = $24, due_at = $25, lease_owner = $26,
                             lease_until = $27
         WHERE id = $28 AND version = $23 - 1 AND intent_id = $29
         RETURNING id),
     decided AS (
         UPDATE intents i SET status = coalesce($30, i.status),
                              authorisation_expires_at = coalesce($31, i.authorisation_expires_at)
         FROM moved WHERE i.id = $29 AND i.status = 'pending' AND ($30::text IS NOT NULL OR $31::bigint IS NOT NULL)
         RETURNING i.id),
     settled AS (
         UPDATE requests r SET status = $35, held_by = $36 FROM moved
         WHERE r.id = $32 AND r.status = $33 AND r.held_by IS NOT DISTINCT FROM $34
         RETURNING r.id),
     receipted AS (
         INSERT INTO receipts (id, reference, intent_id, body, at)
         SELECT $37, $38, $29, $39, $40 FROM moved WHERE $37::text IS NOT NULL), ",
    together!("moved"),
    " SELECT must((SELECT count(*) FROM moved) = 1, 'attempt')
         AND must($30::text IS NULL AND $31::bigint IS NULL OR (SELECT count(*) FROM decided) = 1, 'payment')
         AND must($32::text IS NULL OR (SELECT count(*) FROM settled) = 1, 'payment request') AS done"
);

async fn advance(connection: &mut PgConnection, attempt: &Attempt, s: &Settlement) -> Result<(), Fault> {
    let intent = &attempt.intent;
    let request = if s.moves_request() {
        let before = requests::of_intent(connection, intent).await?.ok_or(StoreError::NotFound("payment request"))?;
        match s.request_after(before.clone(), intent) {
            Ok(after) => Some((before, after)),
            // If the attempt was moved on meanwhile the request went with it: the version says so before the request does.
            Err(refused) => return Err(stale(connection, attempt).await?.unwrap_or(refused).into()),
        }
    } else {
        None
    };
    let (before, after) = (request.as_ref().map(|(before, _)| before), request.as_ref().map(|(_, after)| after));
    let lease = s.schedule.as_ref().and_then(Schedule::lease);
    let with = Together::new(&s.audit, &s.outbox, s.transfer.as_ref())?;
    let row = with
        .bind(sqlx::query(ADVANCE))
        .bind(attempt.state.name())
        .bind(to_json(&attempt.state)?)
        .bind(attempt.version)
        .bind(attempt.state.gateway_reference())
        .bind(s.schedule.as_ref().map(|schedule| schedule.due_at().0))
        .bind(lease.map(|l| l.owner.as_str()))
        .bind(lease.map(|l| l.until.0))
        .bind(attempt.id.as_str())
        .bind(intent.as_str())
        .bind(IntentStatus::after(attempt.operation, &attempt.state).map(IntentStatus::as_str))
        .bind(s.authorisation_expires_at.map(|at| at.0))
        .bind(before.map(|r| r.id.as_str()))
        .bind(before.map(|r| r.status.as_str()))
        .bind(before.and_then(|r| r.held_by.as_ref()).map(IntentId::as_str))
        .bind(after.map(|r| r.status.as_str()))
        .bind(after.and_then(|r| r.held_by.as_ref()).map(IntentId::as_str))
        .bind(s.receipt.as_ref().map(|r| r.id.as_str()))
        .bind(s.receipt.as_ref().map(|r| r.reference.as_str()))
        .bind(s.receipt.as_ref().map(to_json).transpose()?)
        .bind(s.receipt.as_ref().map(|r| r.at.0))
        .fetch_one(connection)
        .await
        .map_err(|e| match duplicate_of(&e) {
            Some("receipts_reference_key") => StoreError::Exists("a receipt with this reference").into(),
            Some(_) | None => Fault::from(e),
        })?;
    let _done: bool = row.try_get("done")?;
    Ok(())
}

/// `Conflict`, if the attempt is not at the version that is to be written over.
async fn stale(connection: &mut PgConnection, attempt: &Attempt) -> Result<Option<StoreError>, Fault> {
    let there = attempts::find(connection, &attempt.id).await?;
    let as_read = there.is_some_and(|there| there.version.checked_add(1) == Some(attempt.version));
    Ok(if as_read { None } else { Some(StoreError::Conflict("attempt")) })
}
