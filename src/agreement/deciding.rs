//! From a payer's yes to a charge: rules are asked, others may have to agree, and once everything holds the payment is handed over, once.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Agreements, Asked, Asking, Confirmed};
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CustomerId, IntentId};
use crate::payment::policy::Attested;
use crate::payment::{
    Approval, ApprovalError, ApprovalEvent, ApprovalState, Capture, Condition, How, Occasion, PayersPart, PaymentRequest, Role,
    Said,
};
use crate::processor::{ChargeOrder, OrderGuards, SubmitError};
use crate::store::{AsRead, Document, StoreError, SubmitRefusal, papers};

/// How often something is begun anew because somebody else came between.
pub(super) const LIMIT_RACES: u32 = 8;

/// What a payer's yes came to.
#[derive(Debug)]
pub enum Agreed {
    /// Handed over.
    Charged(IntentId),
    /// Others have to agree, and have not yet.
    Waiting {
        /// To what.
        approval: ApprovalId,
        /// Who.
        for_whom: Vec<Role>,
    },
    /// A rule refuses it. Nothing will be charged.
    Refused(Refusal),
}

/// Why a payment is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This rule denies it.
    Denied(String),
    /// This has to hold, and did not.
    NotMet(Condition),
    /// A role that a rule asks for is nobody's.
    Nobody(Condition),
    /// The processor's rules.
    Submit(SubmitRefusal),
}

/// What a word of somebody else came to.
#[derive(Debug)]
pub struct Decided {
    /// The approval as it stands now.
    pub approval: Approval,
    /// What was charged, if that was the last word.
    pub charged: Option<Agreed>,
}

/// Why nothing was decided. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError {
    /// There is no such request or approval.
    #[error("there is no such {0}")]
    NoSuch(&'static str),
    /// The approval's own rules.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SubmitError> for AgreeError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Store(e) => Self::Store(e),
            // Callers take refusals apart before they come here.
            SubmitError::Refused(r) => Self::Store(StoreError::Refused(r.to_string())),
        }
    }
}

/// A payer's yes, with all that a charge needs.
#[derive(Clone, Debug)]
pub struct Yes {
    /// What is to be charged, without guards.
    pub order: ChargeOrder,
    /// Which conditions of the payer's own were met.
    pub met: BTreeSet<Condition>,
    /// By what way.
    pub asking: Asking,
    /// Of a purchase's user: what they said with it.
    pub confirmed: Option<Confirmed>,
}

impl Agreements {
    /// The payer said yes. The same occasion and request come to the same end however often this is called.
    pub async fn agree(&self, order: ChargeOrder, met: BTreeSet<Condition>, asking: Asking) -> Result<Agreed, AgreeError> {
        let yes = Yes { order, met, asking, confirmed: None };
        for _ in 0..LIMIT_RACES {
            // Boxed, as below: one future in another would fill a thread's stack.
            match Box::pin(self.try_agree(&yes)).await {
                Err(AgreeError::Store(StoreError::Conflict(_) | StoreError::Exists(_))) => {}
                Ok(Agreed::Refused(Refusal::Submit(SubmitRefusal::ChangedMeanwhile | SubmitRefusal::ApprovalGone))) => {}
                done => return done,
            }
        }
        Err(StoreError::Busy.into())
    }

    pub(super) async fn try_agree(&self, yes: &Yes) -> Result<Agreed, AgreeError> {
        let inner = &*self.inner;
        let found = inner.store.request(&yes.order.request).await?.ok_or(AgreeError::NoSuch("payment request"))?;
        let request = found.request;
        // Before rules are asked: what came of this yes before must not be judged by what it changed, nor be asked of others again.
        if let Some(came_to) = self.came_of(&request, &yes.order).await? {
            return Ok(came_to);
        }
        let asked = self.ask(&request, yes.asking).await?;
        let mut order = yes.order.clone();
        let unnamed = stood_for(&asked, &mut order, yes.asking.by_mandate).err();
        let refusal = over_limit(&asked, &order).or(unnamed).or_else(|| refuses(&asked, &yes.met));
        if let Some(refusal) = refusal {
            self.tell_refused(&request, &asked, &refusal).await?;
            return Ok(Agreed::Refused(refusal));
        }
        let yes = &Yes { order, ..yes.clone() };
        let parties = asked.parties();
        if !asked.terms.needs_another() {
            return self.charge(yes.order.clone(), &asked, None).await;
        }
        match &yes.order.occasion {
            Occasion::Call(_) | Occasion::Purchase(_) => {}
            // By a code alone nobody waits for somebody else: the condition is not met.
            Occasion::Code(_) | Occasion::Approval(_) => return Ok(Agreed::Refused(Refusal::NotMet(Condition::Supervisor))),
        }
        let approval = self.with_payer(&request, yes, &parties).await?;
        if let ApprovalState::Denied { by } = approval.state {
            let refusal = Refusal::Denied(format!("{} said no", by.as_str()));
            self.tell_refused(&request, &asked, &refusal).await?;
            return Ok(Agreed::Refused(refusal));
        }
        if approval.state == ApprovalState::Agreed && yes.confirmed.is_some() {
            // The purchase has changed with the approval: both are read anew.
            return self.charge_agreed(&approval).await;
        }
        if approval.state == ApprovalState::Agreed && approval.agreed_by_each(&parties) {
            return self.charge(yes.order.clone(), &asked, Some(approval)).await;
        }
        let for_whom = approval.waits_for().map(|p| p.role).collect();
        Ok(Agreed::Waiting { approval: approval.id, for_whom })
    }

    /// What is clear before any rule: the request is this yes's already, or nobody can pay it so.
    async fn came_of(&self, request: &PaymentRequest, order: &ChargeOrder) -> Result<Option<Agreed>, AgreeError> {
        let inner = &*self.inner;
        if request.customer != order.customer {
            return Ok(Some(Agreed::Refused(Refusal::Submit(SubmitRefusal::NoSuchRequest))));
        }
        if let Some(holder) = &request.held_by
            && let Some(payment) = inner.store.payment(holder).await?
            && payment.intent.occasion == order.occasion
        {
            let same = payment.intent.amount == order.amount && payment.intent.card == order.card;
            return Ok(Some(if same {
                Agreed::Charged(holder.clone())
            } else {
                Agreed::Refused(Refusal::Submit(SubmitRefusal::SameKeyOtherContent))
            }));
        }
        if request.amount != order.amount {
            return Ok(Some(Agreed::Refused(Refusal::Submit(SubmitRefusal::OtherAmount))));
        }
        Ok(request.unpayable(inner.clock.now()).map(|why| Agreed::Refused(Refusal::Submit(why.into()))))
    }

    /// Puts the payer's part into the request's approval, opening one where there is none that fits. One that was denied is given as it is.
    async fn with_payer(
        &self,
        request: &PaymentRequest,
        yes: &Yes,
        parties: &[(Role, CustomerId)],
    ) -> Result<Approval, AgreeError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let part = PayersPart {
            at: now,
            card: yes.order.card.clone(),
            occasion: yes.order.occasion.clone(),
            evidence: yes.order.evidence.clone(),
            channel: yes.asking.channel,
            attestation: yes.asking.attestation,
            met: yes.met.clone(),
        };
        let approval = self.open_approval(request, parties, now).await?;
        if approval.stands_denied() {
            return Ok(approval);
        }
        let before = approval.payer.clone();
        let approval = approval.step(now, ApprovalEvent::Payer(Box::new(part)))?;
        let mut change = self.approval_change((now, "agreement", "payer_agreed"), &approval).await?;
        let confirmed = yes.order.guards.purchase.as_ref().zip(yes.confirmed.as_ref());
        self.payers_part_into(&mut change, now, (before.as_ref(), &approval), confirmed).await?;
        change.write(inner).await?;
        Ok(approval)
    }

    /// The open approval of a request, or a new one. One that asks others than rules ask now is taken back first. A no stands, whatever time
    /// has passed and whoever is asked now: it is given as it is.
    pub(super) async fn open_approval(
        &self,
        request: &PaymentRequest,
        parties: &[(Role, CustomerId)],
        now: Timestamp,
    ) -> Result<Approval, AgreeError> {
        let inner = &*self.inner;
        let id = ApprovalId::fresh_at(now, &*inner.entropy);
        let open: Vec<Approval> = papers::about(&*inner.store, request.id.as_str()).await?;
        if let Some(earlier) = open.into_iter().next() {
            if earlier.stands_denied() && earlier.fits(request) {
                return Ok(earlier);
            }
            let all = parties.iter().all(|(role, who)| earlier.parties.iter().any(|p| p.role == *role && p.who == *who));
            if all && earlier.fits(request) && now < earlier.expires_at {
                return Ok(earlier);
            }
            let (over, word) = match now < earlier.expires_at {
                _ if earlier.stands_denied() => (earlier.succeeded(id.clone()), "superseded"),
                true => (earlier.step(now, ApprovalEvent::Cancel)?, "cancelled"),
                false => (earlier.step(now, ApprovalEvent::Expire)?, "expired"),
            };
            self.approval_change((now, "agreement", word), &over).await?.write(inner).await?;
        }
        let approval = Approval::open_for(id, request, parties.to_vec(), now, self.approval_expires(now))?;
        let (audit, news) = inner.about(now, "agreement", "requested", &approval);
        let links = self.links_to_parties(&approval, now).await?;
        inner.store.write_papers(&[approval.paper()?], &links, &[audit], &[news]).await?;
        Ok(approval)
    }

    pub(super) fn approval_expires(&self, now: Timestamp) -> Timestamp {
        now.plus(std::time::Duration::from_secs(self.inner.cfg.approval_valid_s.into()))
    }

    /// Asks those who have to agree before the payer has said anything; `None`: nobody has to. One that was denied is given as it is.
    pub async fn request_approval(&self, request: &PaymentRequest) -> Result<Option<Approval>, AgreeError> {
        let asked = self.ask(request, Asking::call(Attested::Vouched)).await?;
        let parties = asked.parties();
        if parties.is_empty() || asked.terms.denied() {
            return Ok(None);
        }
        Ok(Some(self.open_approval(request, &parties, self.inner.clock.now()).await?))
    }

    /// Somebody who was asked says yes or no. The last yes charges, if the payer's is there.
    pub async fn decide(&self, id: &ApprovalId, who: &CustomerId, yes: bool, how: How) -> Result<Decided, AgreeError> {
        for _ in 0..LIMIT_RACES {
            match Box::pin(self.try_decide(id, who, yes, how.clone())).await {
                Err(AgreeError::Store(StoreError::Conflict(_))) => {}
                done => return done,
            }
        }
        Err(StoreError::Busy.into())
    }

    async fn try_decide(&self, id: &ApprovalId, who: &CustomerId, yes: bool, how: How) -> Result<Decided, AgreeError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let before: Approval = papers::read(&*inner.store, id.as_str()).await?.ok_or(AgreeError::NoSuch("approval"))?;
        let said_so = before.parties.iter().any(|p| p.who == *who && p.said.as_ref().is_some_and(|s| s.yes == yes));
        if let (ApprovalState::Used { intent }, true) = (&before.state, said_so) {
            // The sweep was faster than whoever said so, or a link was followed twice.
            let intent = intent.clone();
            return Ok(Decided { approval: before, charged: Some(Agreed::Charged(intent)) });
        }
        let by = spoken_by(&how, who);
        let after =
            before.clone().step(now, ApprovalEvent::Said { who: who.clone(), said: Said { yes, at: now, how: how.clone() } })?;
        if after != before {
            let mut change = self.approval_change((now, &by, if yes { "agreed" } else { "denied" }), &after).await?;
            // By what, and why: for the trail only.
            if let Some(detail) = change.audit.first_mut().and_then(|row| row.detail.as_object_mut()) {
                detail.insert("said".to_owned(), on_record(&how, who));
            }
            change.write(inner).await?;
        }
        let charged = match after.state {
            ApprovalState::Agreed => Some(self.charge_agreed(&after).await?),
            ApprovalState::Open
            | ApprovalState::Used { .. }
            | ApprovalState::Denied { .. }
            | ApprovalState::Expired
            | ApprovalState::Cancelled
            | ApprovalState::Withdrawn { .. } => None,
        };
        Ok(Decided { approval: after, charged })
    }

    /// Charges what everybody agreed to: rules are asked once more, since time has passed. What they refuse now ends the approval.
    pub(super) async fn charge_agreed(&self, approval: &Approval) -> Result<Agreed, AgreeError> {
        let mut approval = approval.clone();
        for _ in 0..LIMIT_RACES {
            let gone = match Box::pin(self.try_charge_agreed(&approval)).await {
                // The payer paid something else at the same moment, or something was taken back: rules have to be asked with it.
                Ok(Agreed::Refused(Refusal::Submit(SubmitRefusal::ChangedMeanwhile))) => continue,
                // Perhaps it was but the account of a purchase that was used for another one.
                Ok(gone @ Agreed::Refused(Refusal::Submit(SubmitRefusal::ApprovalGone))) => gone,
                done => return done,
            };
            match papers::read::<Approval>(&*self.inner.store, approval.id.as_str()).await? {
                Some(Approval { state: ApprovalState::Used { intent }, .. }) => return Ok(Agreed::Charged(intent)),
                Some(still) if still.state == ApprovalState::Agreed && still.by_purchase() => approval = still,
                _ => return Ok(gone),
            }
        }
        // The sweep tries again.
        Err(StoreError::Busy.into())
    }

    async fn try_charge_agreed(&self, approval: &Approval) -> Result<Agreed, AgreeError> {
        let inner = &*self.inner;
        let part = approval.payer.as_ref().ok_or(ApprovalError::Incomplete)?;
        let found = inner.store.request(&approval.request).await?.ok_or(AgreeError::NoSuch("payment request"))?;
        let mut order = ChargeOrder {
            customer: approval.customer.clone(),
            request: approval.request.clone(),
            amount: approval.amount,
            card: part.card.clone(),
            occasion: part.occasion.clone(),
            capture: Capture::Automatic,
            evidence: part.evidence.clone(),
            guards: OrderGuards::default(),
        };
        // Somebody else was faster: what they charged must not be judged by what it changed.
        if let Some(done @ Agreed::Charged(_)) = self.came_of(&found.request, &order).await? {
            return Ok(done);
        }
        let by_mandate = part.evidence.mandate.is_some();
        let asking = Asking { by_mandate, ..Asking::again(part.channel, part.attestation) };
        let asked = self.ask(&found.request, asking).await?;
        let mut refusal = None;
        if let Occasion::Purchase(id) = &part.occasion {
            match self.guard_of_waiting(inner.clock.now(), id, (approval, part)).await? {
                Ok(guard) => order.guards.purchase = Some(guard),
                // A process that speaks to this bank charges it.
                Err(away @ Refusal::Submit(SubmitRefusal::UnknownBank)) => return Ok(Agreed::Refused(away)),
                Err(why) => refusal = Some(why),
            }
        }
        let refusal = refusal.or_else(|| over_limit(&asked, &order));
        let refusal = refusal.or_else(|| stood_for(&asked, &mut order, by_mandate).err()).or_else(|| refuses(&asked, &part.met));
        let refusal = match refusal {
            None if !approval.fits(&found.request) || !approval.agreed_by_each(&asked.parties()) => {
                Some(Refusal::Submit(SubmitRefusal::ApprovalGone))
            }
            refusal => refusal,
        };
        let came_to = match refusal {
            Some(refusal) => Agreed::Refused(refusal),
            None => match self.charge(order, &asked, Some(approval.clone())).await? {
                // Rules are asked about sums that grew meanwhile; an approval that somebody else used is theirs to end.
                again @ Agreed::Refused(Refusal::Submit(SubmitRefusal::ChangedMeanwhile | SubmitRefusal::ApprovalGone)) => {
                    return Ok(again);
                }
                came_to => came_to,
            },
        };
        if let Agreed::Refused(refusal) = &came_to {
            self.end_refused(approval, &found.request, &asked, refusal).await?;
        }
        Ok(came_to)
    }

    /// Nothing will come of it: the approval ends, and everybody is told.
    async fn end_refused(
        &self,
        approval: &Approval,
        request: &PaymentRequest,
        asked: &Asked,
        refusal: &Refusal,
    ) -> Result<(), AgreeError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let Ok(over) = approval.clone().step(now, ApprovalEvent::Cancel) else { return Ok(()) };
        self.approval_change((now, "agreement", "cancelled"), &over).await?.write(inner).await?;
        self.tell_refused(request, asked, refusal).await
    }

    async fn charge(&self, order: ChargeOrder, asked: &Asked, approval: Option<Approval>) -> Result<Agreed, AgreeError> {
        let guardianships = asked.guardianships.clone();
        let mut stand: Vec<AsRead> = guardianships.iter().map(AsRead::of).collect();
        stand.extend(order.evidence.mandate.as_ref().and(asked.mandate.as_ref()).map(AsRead::of));
        let purchase = order.guards.purchase.clone();
        let guards = OrderGuards { spent: Some(asked.spent.clone()), stand, approval, guardianships, purchase };
        let mut order = ChargeOrder { guards, ..order };
        order.evidence.rules = Some(asked.terms.policy_version.clone());
        // An error at the commit may come after it: submitting again finds what was written, and submits only what was not.
        let submitted = match self.inner.processor.submit(order.clone()).await {
            Err(SubmitError::Store(_)) => self.inner.processor.submit(order).await,
            done => done,
        };
        match submitted {
            Ok(intent) => Ok(Agreed::Charged(intent)),
            Err(SubmitError::Refused(refusal)) => Ok(Agreed::Refused(Refusal::Submit(refusal))),
            Err(error) => Err(error.into()),
        }
    }

    /// The payer, and whoever looks after them, hear of a refusal; all of it is written, or nothing.
    async fn tell_refused(&self, request: &PaymentRequest, asked: &Asked, refusal: &Refusal) -> Result<(), AgreeError> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let rule = match refusal {
            Refusal::Denied(rule) => rule.clone(),
            Refusal::NotMet(c) | Refusal::Nobody(c) => c.as_str().to_owned(),
            Refusal::Submit(why) => why.to_string(),
        };
        let (audit, news) = inner.refused(now, request, &rule, &asked.terms.policy_version);
        let (mut audits, mut all) = (vec![audit], vec![news]);
        for g in &asked.guardianships {
            let told = json!({ "guardianship": g.id, "ward": g.ward, "guardian": g.guardian, "second": g.second, "request": request.id });
            audits.push(inner.audit(now, "agreement", "guardian.told", g.id.as_str(), told.clone()));
            all.push(inner.news(now, "guardian.refused", told));
        }
        Ok(inner.store.write_papers(&[], &[], &audits, &all).await?)
    }

    /// Takes an approval back: the payer, the payee's side or an operator.
    pub async fn cancel(&self, id: &ApprovalId, by: &str) -> Result<Approval, AgreeError> {
        self.end(id, by, "cancelled", |_| ApprovalEvent::Cancel).await
    }

    /// One event that anybody may cause, and its row.
    pub(super) async fn end(
        &self,
        id: &ApprovalId,
        by: &str,
        word: &str,
        event: impl Fn(&Approval) -> ApprovalEvent,
    ) -> Result<Approval, AgreeError> {
        let inner = &*self.inner;
        for _ in 0..LIMIT_RACES {
            let now = inner.clock.now();
            let before: Approval = papers::read(&*inner.store, id.as_str()).await?.ok_or(AgreeError::NoSuch("approval"))?;
            let event = event(&before);
            let after = before.step(now, event)?;
            match self.approval_change((now, by, word), &after).await?.write(inner).await {
                Err(StoreError::Conflict(_)) => {}
                done => return Ok(done.map(|()| after)?),
            }
        }
        Err(StoreError::Busy.into())
    }
}

/// Names the mandate that stands for the number, where one has to. One that was taken back while the payer spoke stands for nothing.
fn stood_for(asked: &Asked, order: &mut ChargeOrder, by_mandate: bool) -> Result<(), Refusal> {
    order.evidence.mandate = match &asked.mandate {
        Some(mandate) if by_mandate && mandate.card == order.card => Some(mandate.id.to_string()),
        _ if by_mandate => return Err(Refusal::Submit(SubmitRefusal::NoUsableCard)),
        _ => None,
    };
    Ok(())
}

/// Why rules refuse what the payer's own part comes to, if they do.
fn refuses(asked: &Asked, met: &BTreeSet<Condition>) -> Option<Refusal> {
    if let Some(rule) = &asked.terms.denied_by {
        return Some(Refusal::Denied(rule.clone()));
    }
    if let Some(missing) = asked.own_conditions().find(|c| !met.contains(c)) {
        return Some(Refusal::NotMet(missing));
    }
    let parties = asked.parties();
    let nobody = |c: &Condition| Role::of(*c).is_some_and(|role| !parties.iter().any(|(r, _)| *r == role));
    asked.terms.conditions.iter().copied().find(nobody).map(Refusal::Nobody)
}

/// What the account of a purchase does not allow, judged by the sums that guard the charge.
fn over_limit(asked: &Asked, order: &ChargeOrder) -> Option<Refusal> {
    let limits = order.guards.purchase.as_ref()?.account.limits;
    limits.allow(order.amount, asked.spent.1.to_payee).err().map(|why| Refusal::Denied(why.to_string()))
}

/// Who acts: an operator in somebody's place is not them.
fn spoken_by(how: &How, who: &CustomerId) -> String {
    match how {
        How::Voice { .. } | How::Link => who.to_string(),
        How::Api { key } => key.clone(),
        How::Override { by, .. } => format!("operator {by}"),
    }
}

/// What the audit trail keeps of a yes or no, scores aside.
fn on_record(how: &How, who: &CustomerId) -> serde_json::Value {
    match how {
        How::Voice { call, .. } => json!({ "for": who, "how": "voice", "call": call }),
        How::Link => json!({ "for": who, "how": "link" }),
        How::Api { key } => json!({ "for": who, "how": "api", "key": key }),
        How::Override { by, with, why } => json!({ "for": who, "how": "override", "by": by, "with": with, "why": why }),
    }
}
