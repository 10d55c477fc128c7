//! Submissions, many in one statement. Each was judged by what was read before; the statement writes only over what was judged (compare and set),
//! with all that goes with it: a member whose request, customer or card is no longer so leaves no row.

use std::collections::HashMap;
use std::pin::Pin;

use sqlx::PgConnection;

use super::columns::{audit, column, outbox, transfers};
use super::fault::{Fault, duplicate_of};
use super::group::Answers;
use super::trail::{insert_audit, insert_outbox};
use super::{PgStore, commit, consents, intents, papers, people};
use crate::ids::{AttemptId, IntentId};
use crate::payment::PaymentRequest;
use crate::store::consents::beside_paper;
use crate::store::rows::{Reader, money, to_json};
use crate::store::{NewCharge, StoreError, SubmitRefusal, Submitted};

/// A submission that no rule refuses, and the request that it was judged by.
#[derive(Debug)]
pub(super) struct Judged {
    charge: NewCharge,
    before: PaymentRequest,
}

/// Whoever deletes the customer or the card waits for `fit`, and then finds the pending intent; whoever came first leaves no row here. A request
/// that was held or withdrawn since it was judged leaves none either.
pub(in crate::store) const SUBMIT: &str = "WITH asked AS (
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::text[],
                              $10::text[], $11::text[], $12::text[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::text[],
                              $18::text[], $19::bigint[], $20::bigint[], $21::text[], $22::bigint[], $23::text[], $24::text[])
             WITH ORDINALITY AS t (intent, customer, request, payee, card, last4, call, amount, currency, capture, status, evidence, at,
                                   attempt, operation, gateway, state, detail, version, due, lease_owner, lease_until, was_status, was_held,
                                   n)),
     fit AS MATERIALIZED (
         SELECT a.* FROM asked a JOIN customers c ON c.id = a.customer JOIN cards k ON k.id = a.card
         WHERE c.status = 'active' AND k.status = 'active' FOR KEY SHARE OF c FOR SHARE OF k),
     held AS (
         UPDATE requests r SET held_by = f.intent FROM fit f
         WHERE r.id = f.request AND r.status = f.was_status AND r.held_by IS NOT DISTINCT FROM f.was_held
         RETURNING f.*),
     intended AS (
         INSERT INTO intents (id, customer_id, request_id, payee_id, card_id, last4, call_id, amount_minor, currency, capture, status,
                              evidence, created_at)
         SELECT intent, customer, request, payee, card, last4, call, amount, currency, capture, status, evidence, at FROM held),
     prepared AS (
         INSERT INTO attempts (id, intent_id, operation, gateway, amount_minor, currency, state, detail, version, due_at, lease_owner,
                               lease_until, created_at)
         SELECT attempt, intent, operation, gateway, amount, currency, state, detail, version, due, lease_owner, lease_until, at
         FROM held ORDER BY n
         RETURNING id, number),
     booked AS (
         INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, cause, at)
         SELECT t.id, t.kind, t.of_id, t.debit, t.credit, t.amount, t.currency, t.intent, t.cause, t.at
         FROM held h JOIN unnest($25::text[], $26::text[], $27::text[], $28::text[], $29::text[], $30::bigint[], $31::text[], $32::text[],
                                 $33::text[], $34::bigint[])
             WITH ORDINALITY AS t (id, kind, of_id, debit, credit, amount, currency, intent, cause, at, n) USING (n) ORDER BY n),
     audited AS (
         INSERT INTO audit (id, at, actor, action, subject, detail)
         SELECT t.id, t.at, t.actor, t.action, t.subject, t.detail
         FROM held h JOIN unnest($35::bigint[], $36::text[], $37::bigint[], $38::text[], $39::text[], $40::text[], $41::text[])
             AS t (n, id, at, actor, action, subject, detail) USING (n) ORDER BY n),
     told AS (
         INSERT INTO outbox (id, at, topic, payload)
         SELECT t.id, t.at, t.topic, t.payload
         FROM held h JOIN unnest($42::bigint[], $43::text[], $44::bigint[], $45::text[], $46::text[])
             AS t (n, id, at, topic, payload) USING (n) ORDER BY n)
     SELECT id, number FROM prepared";

impl PgStore {
    /// Where rules were asked: what they were asked with is looked at again. Charges of one customer that were so asked take turns.
    pub(super) async fn submit_guarded(&self, charge: &NewCharge) -> Result<Submitted, Fault> {
        let mut tx = self.begin().await?;
        sqlx::query("SELECT 1 FROM customers WHERE id = $1 FOR NO KEY UPDATE")
            .bind(charge.intent.customer.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(earlier) = intents::of_occasion(&mut tx, &charge.intent).await? {
            return Ok(charge.repeats(earlier));
        }
        let before = match may_submit(&mut tx, charge).await? {
            Ok(before) => before,
            Err(refusal) => return Ok(Submitted::Refused(refusal)),
        };
        if let Some((of, _)) = &charge.guards.spent
            && charge.guards.outspent(&papers::spent(&mut tx, of).await?)
        {
            return Ok(Submitted::Refused(SubmitRefusal::ChangedMeanwhile));
        }
        for standing in &charge.guards.stand {
            if !papers::stands(&mut tx, standing).await? {
                return Ok(Submitted::Refused(SubmitRefusal::ChangedMeanwhile));
            }
        }
        for paper in &charge.guards.papers {
            match papers::put(&mut tx, paper).await {
                Err(Fault::Store(StoreError::Conflict(_) | StoreError::Refused(_))) => {
                    return Ok(Submitted::Refused(SubmitRefusal::ApprovalGone));
                }
                other => other?,
            }
            let audit = beside_paper(paper, charge.guards.told.iter().map(|(_, audit)| audit));
            consents::with_paper(&mut tx, paper, audit).await?;
        }
        let one = [Judged { charge: charge.clone(), before }];
        let number = submit_all(&mut tx, &one).await?.pop().transpose()?.flatten();
        // What was judged is no longer so: judge again.
        let number = number.ok_or(Fault::Contended)?;
        for (news, audit) in &charge.guards.told {
            insert_audit(&mut tx, audit).await?;
            insert_outbox(&mut tx, news).await?;
        }
        commit(tx).await?;
        Ok(Submitted::Fresh { intent: charge.intent.id.clone(), number })
    }

    pub(super) async fn submit_one(&self, charge: &NewCharge) -> Result<Submitted, Fault> {
        // What the caller has read is good enough to begin with. If it no longer holds, or refuses, the database is asked.
        let number = match charge.judge(charge.request.clone(), Some(&charge.card)) {
            Ok(before) => self.ask_to_submit(charge, before).await?,
            Err(_) => None,
        };
        if let Some(number) = number {
            return Ok(Submitted::Fresh { intent: charge.intent.id.clone(), number });
        }
        let mut connection = self.connection().await?;
        // Idempotency first: a repeated submission must not be judged by what the first one changed.
        if let Some(earlier) = intents::of_occasion(&mut connection, &charge.intent).await? {
            return Ok(charge.repeats(earlier));
        }
        let before = match may_submit(&mut connection, charge).await? {
            Ok(before) => before,
            Err(refusal) => {
                // Two reads are two snapshots: the first submission may have been committed between them, and be what refuses the second.
                let earlier = intents::of_occasion(&mut connection, &charge.intent).await?;
                return Ok(earlier.map_or(Submitted::Refused(refusal), |earlier| charge.repeats(earlier)));
            }
        };
        drop(connection);
        match self.ask_to_submit(charge, before).await? {
            Some(number) => Ok(Submitted::Fresh { intent: charge.intent.id.clone(), number }),
            // What was judged is no longer so: judge again.
            None => Err(Fault::Contended),
        }
    }

    /// The attempt's number; `None` if what it was judged by is no longer so.
    async fn ask_to_submit(&self, charge: &NewCharge, before: PaymentRequest) -> Result<Option<u64>, Fault> {
        match self.groups.submissions.ask(Judged { charge: charge.clone(), before }).await {
            // The same submission a moment ago, by another task: what is judged next finds it.
            Err(Fault::Contended) => Ok(None),
            other => other,
        }
    }
}

/// Reads what a new intent is judged by, and judges it; gives the request before it is held.
async fn may_submit(connection: &mut PgConnection, charge: &NewCharge) -> Result<Result<PaymentRequest, SubmitRefusal>, Fault> {
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

/// Writes them; gives each its attempt's number, and none to one that is no longer as it was judged.
pub(super) fn submit_all<'c>(
    connection: &'c mut PgConnection,
    group: &'c [Judged],
) -> Pin<Box<dyn Future<Output = Answers<Option<u64>>> + Send + 'c>> {
    Box::pin(async move {
        let charges = column(group, |member| &member.charge);
        let intent = |of: fn(&NewCharge) -> &str| column(&charges, |charge| of(charge));
        let evidence = charges.iter().map(|c| to_json(&c.evidence)).collect::<Result<Vec<_>, _>>()?;
        let states = charges.iter().map(|c| to_json(&c.attempt.state)).collect::<Result<Vec<_>, _>>()?;
        let statement = sqlx::query(SUBMIT)
            .bind(intent(|c| c.intent.id.as_str()))
            .bind(intent(|c| c.intent.customer.as_str()))
            .bind(intent(|c| c.intent.request.as_str()))
            .bind(intent(|c| c.intent.payee.as_str()))
            .bind(intent(|c| c.intent.card.as_str()))
            .bind(intent(|c| &c.intent.last4))
            .bind(intent(|c| c.intent.occasion.as_str()))
            .bind(column(&charges, |c| c.intent.amount.minor.get()))
            .bind(intent(|c| c.intent.amount.currency.code()))
            .bind(intent(|c| c.intent.capture.as_str()))
            .bind(intent(|c| c.intent.status.as_str()))
            .bind(evidence)
            .bind(column(&charges, |c| c.intent.created_at.0))
            .bind(intent(|c| c.attempt.id.as_str()))
            .bind(intent(|c| c.attempt.operation.as_str()))
            .bind(intent(|c| &c.attempt.gateway))
            .bind(intent(|c| c.attempt.state.name()))
            .bind(states)
            .bind(column(&charges, |c| c.attempt.version))
            .bind(column(&charges, |c| c.schedule.due_at().0))
            .bind(column(&charges, |c| c.schedule.lease().map(|l| l.owner.as_str())))
            .bind(column(&charges, |c| c.schedule.lease().map(|l| l.until.0)))
            .bind(column(group, |m| m.before.status.as_str()))
            .bind(column(group, |m| m.before.held_by.as_ref().map(IntentId::as_str)));
        let statement = transfers(statement, &column(&charges, |c| Some(&c.pending)));
        let statement = audit(statement, &(1_i64..).zip(charges.iter().map(|c| &c.audit)).collect::<Vec<_>>())?;
        let statement = outbox(statement, &(1_i64..).zip(charges.iter().map(|c| &c.outbox)).collect::<Vec<_>>())?;
        let rows = statement
            .fetch_all(connection)
            .await
            .map_err(|e| if duplicate_of(&e).is_some() { Fault::Contended } else { e.into() })?;
        let mut numbers: HashMap<AttemptId, u64> = HashMap::with_capacity(rows.len());
        for row in &rows {
            let r = Reader::new(row, "attempts");
            numbers.insert(r.parsed("id")?, r.small("number")?);
        }
        // The very same submission twice in one group was written once: one is told so, the other looks.
        Ok(charges.iter().map(|c| Ok(numbers.remove(&c.attempt.id))).collect())
    })
}
