//! Taking an order over: everything that it needs later is written in one transaction, or nothing is.

use serde_json::json;

use super::crash::{self, Step};
use super::records::OURSELVES;
use super::{ChargeOrder, Processor, PurchaseGuard, SubmitError};
use crate::clock::Timestamp;
use crate::ids::{AttemptId, IntentId, TransferId};
use crate::ledger::{AccountName, Cause, Transfer, TransferKind};
use crate::payment::{ApprovalEvent, Attempt, AttemptState, Guardianship, Intent, IntentStatus, PurchaseEvent};
use crate::store::{AuditRecord, Document, Guards, Job, NewCharge, OutboxRecord, RequestWithPayee, SubmitRefusal, Submitted};

impl Processor {
    /// Takes an order over: after `Ok` it will be charged, or declined, whatever becomes of the call. Submitting the same occasion and request
    /// again gives the same intent; with another amount or card it is refused.
    pub async fn submit(&self, order: ChargeOrder) -> Result<IntentId, SubmitError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let (found, card) = tokio::try_join!(inner.store.request(&order.request), inner.store.card(&order.card))?;
        let RequestWithPayee { request, payee_name } = found.ok_or(SubmitRefusal::NoSuchRequest)?;
        let card = card.ok_or(SubmitRefusal::NoUsableCard)?;
        let gateway = match &order.guards.purchase {
            Some(purchase) => inner.acquirers.named(purchase.bank.as_str()).ok_or(SubmitRefusal::UnknownBank)?,
            None => inner.acquirers.main(),
        };
        // What was just read fills the rows; the store judges it, and writes only if it is still so.
        let entropy = &*inner.entropy;
        let intent = Intent {
            id: IntentId::fresh_at(now, entropy),
            customer: order.customer,
            request: order.request,
            payee: request.payee.clone(),
            card: order.card,
            last4: card.last4.clone(),
            occasion: order.occasion,
            amount: order.amount,
            capture: order.capture,
            authorisation_expires_at: None,
            status: IntentStatus::Pending,
            created_at: now,
        };
        let attempt = Attempt {
            id: AttemptId::fresh_at(now, entropy),
            number: 0,
            intent: intent.id.clone(),
            operation: order.capture.opening(),
            of_attempt: None,
            gateway: gateway.name().to_owned(),
            amount: intent.amount,
            prepared_at: now,
            state: AttemptState::Prepared,
            version: 0,
        };
        let (operation, currency) = (attempt.operation, intent.amount.currency);
        let pending = Transfer {
            id: TransferId::fresh_at(now, entropy),
            kind: TransferKind::Pending,
            debit: AccountName::acquirer(gateway.name(), currency),
            credit: AccountName::payee(&intent.payee, currency),
            amount: intent.amount,
            intent: intent.id.clone(),
            cause: Cause::Attempt(attempt.id.clone()),
            at: now,
        };
        let detail = json!({ "call": intent.occasion, "request": intent.request, "card": intent.card, "attempt": attempt.id,
            "amount_minor": intent.amount.minor, "currency": currency, "evidence": order.evidence });
        let audit = inner.audit_row(now, OURSELVES, &format!("{}.submitted", operation.as_str()), intent.id.as_str(), detail);
        let outbox = inner.news(now, "payment.submitted", &intent, intent.amount, json!({}));
        let (place, schedule) = inner.place_at_hand(now);
        let mut papers = match order.guards.approval {
            Some(approval) => {
                let used = approval.step(now, ApprovalEvent::Used(intent.id.clone()));
                vec![used.map_err(|_| SubmitRefusal::ApprovalGone)?.paper()?]
            }
            None => Vec::new(),
        };
        let mut told: Vec<_> = order.guards.guardianships.iter().map(|g| self.told_guardians(now, &intent, g)).collect();
        if let Some(PurchaseGuard { purchase, account, bank, look_at, told: of_purchase }) = order.guards.purchase {
            let (who, intent) = (intent.customer.clone(), intent.id.clone());
            let confirmed = purchase.step(now, PurchaseEvent::Confirmed { who, intent, bank, look_at });
            papers.push(confirmed.map_err(|_| SubmitRefusal::ApprovalGone)?.paper()?);
            papers.push(account.paper()?);
            told.extend(of_purchase);
        }
        let guards = Guards { spent: order.guards.spent, stand: order.guards.stand, papers, told };
        let charge =
            NewCharge { request, card, intent, attempt, schedule, pending, evidence: order.evidence, audit, outbox, guards };
        crash::at(operation, Step::BeforeBegin);
        let submitted = inner.store.submit(&charge).await?;
        match submitted {
            Submitted::Fresh { intent: id, number } => {
                crash::at(operation, Step::AfterBegin);
                tracing::info!(intent = %id, amount = %charge.intent.amount, "{} submitted", operation.as_str());
                let NewCharge { intent, attempt, pending, evidence, .. } = charge;
                let attempt = Attempt { number, ..attempt };
                inner.hand_over(place, Job { attempt, original: None, intent, evidence, pending, payee_name });
                Ok(id)
            }
            Submitted::Already(id) => Ok(id),
            Submitted::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Guardians hear of every payment of their ward.
    fn told_guardians(&self, now: Timestamp, intent: &Intent, g: &Guardianship) -> (OutboxRecord, AuditRecord) {
        let who = json!({ "guardianship": g.id, "ward": g.ward, "guardian": g.guardian, "second": g.second });
        let news = self.inner.news(now, "guardian.payment", intent, intent.amount, who);
        let audit = self.inner.audit_row(now, OURSELVES, "guardian.told", g.id.as_str(), news.payload.clone());
        (news, audit)
    }
}
