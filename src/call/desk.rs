//! The store, the vault and the processor as a call sees them: whom a number nominates, what may be compared, what is counted,
//! and the one hand-over of a charge. Rows become the dialogue's values here, and nowhere else.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::agreeing::{HandedOver, Held};
use super::app_call::AppCall;
use crate::agreement::{Agreements, Asking};
use crate::clock::{Entropy, Timestamp};
use crate::decision::NumberEvidence;
use crate::decision::Policy;
use crate::dialogue::{
    Approval, Asks, CardOnFile, Charge, Consent, Factor, IdentityOutcome, Known, Notice, NumberSummary, OpenRequest,
    PaymentOutcome, SpokenDate, SpokenPayee, Usable, VoiceOnFile,
};
use crate::e164::E164;
use crate::ids::{CallId, CardId, CustomerId, IntentId, OutboxId, PayeeId};
use crate::media::leg::Sound;
use crate::media::wav;
use crate::payment::policy::Attested;
use crate::payment::{Capture, Evidence};
use crate::processor::{ChargeOrder, Outcome, Processor};
use crate::secret::{Pan, SecretBytes};
use crate::store::{
    self, AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, EnrolmentRecord, FactorFailure, InviteCheck, LookUp,
    OutboxRecord, RequestWithPayee, Store, StoreError, TemplateRecord, UnlockError,
};
use crate::vault::{Vault, VaultError};
use crate::voiceprint::{Template, TemplateError};

/// The window over which failed factors are counted.
const FAILURE_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Wrong codes after which an invitation ends, over all calls.
const INVITE_LIMIT_WRONG_TRIES: u32 = 5;

/// What a call has of the back office.
#[derive(Clone)]
pub struct Desk {
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Sealed numbers and templates.
    pub vault: Vault,
    /// Charges.
    pub processor: Processor,
    /// Rules, codes, mandates, and what others have to agree to.
    pub agreements: Agreements,
    /// Randomness for identifiers.
    pub entropy: Arc<dyn Entropy>,
    /// The voice model that runs now: templates of another are of no use.
    pub voice_model: String,
    /// Thresholds as the receipt states them.
    pub policy: Policy,
    /// How long to wait for a payment's outcome: a little longer than the dialogue does.
    pub payment_wait: Duration,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Desk({:?})", self.processor)
    }
}

/// A factor that failed, for whom and from where.
pub(super) struct Failed<'a> {
    pub(super) customer: &'a CustomerId,
    pub(super) caller: Option<&'a E164>,
    pub(super) attested: bool,
    pub(super) factor: Factor,
    pub(super) trunk: &'a str,
}

/// Why the desk could not help.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A template that can't be read.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

impl From<UnlockError> for DeskError {
    fn from(error: UnlockError) -> Self {
        match error {
            UnlockError::Vault(e) => Self::Vault(e),
            UnlockError::Store(e) => Self::Store(e),
        }
    }
}

/// Payees' recorded names.
type Clips = Vec<(PayeeId, Arc<Sound>)>;
type Found = (IdentityOutcome, Clips);

impl From<Factor> for store::Factor {
    fn from(factor: Factor) -> Self {
        match factor {
            Factor::Voice => Self::Voice,
            Factor::Number => Self::Number,
            Factor::Challenge => Self::Challenge,
            Factor::Code => Self::Code,
        }
    }
}

impl Desk {
    /// Whom the caller's number, or the keyed customer number, nominates.
    pub(super) async fn identify(
        &self,
        (caller, attested, customer_number): (Option<&E164>, bool, Option<&str>),
        vouched: Attested,
        now: Timestamp,
    ) -> Result<Found, DeskError> {
        let nominated = match (customer_number, caller) {
            (Some(digits), _) => self.store.customer_by_customer_number(digits).await?,
            (None, Some(number)) => match self.store.customer_by_number(number).await? {
                LookUp::One(customer) => Some(customer),
                LookUp::Shared => return Ok((IdentityOutcome::Shared, Vec::new())),
                LookUp::Nobody => None,
            },
            (None, None) => None,
        };
        match nominated.filter(|c| c.status == CustomerStatus::Active) {
            Some(customer) => self.known(customer, caller, (attested, vouched), now).await,
            None => Ok((IdentityOutcome::Unknown, Vec::new())),
        }
    }

    async fn known(
        &self,
        customer: Customer,
        caller: Option<&E164>,
        (attested, vouched): (bool, Attested),
        now: Timestamp,
    ) -> Result<Found, DeskError> {
        let id = customer.id;
        let voice = self.voice_on_file(&id).await?;
        let tries = self.tries(&id, &customer.numbers, caller, attested, now).await?;
        let mut rows = self.store.payable_requests(&id, now).await?;
        rows.truncate(1); // the first is the one that is offered
        let mut clips = Vec::new();
        for row in &rows {
            if let Some(clip) = self.payee_clip(&row.request.payee).await? {
                clips.push((row.request.payee.clone(), Arc::new(clip)));
            }
        }
        let mut requests = Vec::with_capacity(rows.len());
        for row in rows {
            let asks = self.asks(&row.request, Asking::call(vouched)).await?;
            requests.push(open_request(row, asks));
        }
        let known = Known {
            language: customer.language,
            voice,
            has_open_invite: self.store.open_invite(&id, now).await?.is_some(),
            cards: self.store.cards_of(&id).await?.iter().map(|card| card_on_file(card, now)).collect(),
            requests,
            failures_24h: tries,
            slow: self.store.wants_more_time(&id).await?,
            customer: id,
        };
        Ok((IdentityOutcome::Known(Box::new(known)), clips))
    }

    /// The customer, the request and the card of an app session, as they stand now: what is no longer so is left out.
    pub(super) async fn bound(&self, app: &AppCall, now: Timestamp) -> Result<Option<(Known, Clips)>, DeskError> {
        let active = self.store.customer(&app.customer).await?.filter(|c| c.status == CustomerStatus::Active);
        let Some(customer) = active else { return Ok(None) };
        let payable = self.store.payable_requests(&app.customer, now).await?;
        let (mut requests, mut clips) = (Vec::new(), Vec::new());
        if let Some(row) = payable.into_iter().find(|row| row.request.id == app.request) {
            clips.extend(self.payee_clip(&row.request.payee).await?.map(|clip| (row.request.payee.clone(), Arc::new(clip))));
            let asks = self.asks(&row.request, Asking::app()).await?;
            requests.push(open_request(row, Asks { bound: Some(app.card.clone()), ..asks }));
        }
        let voice = self.voice_on_file(&app.customer).await?;
        let cards = self.store.cards_of(&app.customer).await?;
        let known = Known {
            language: app.language,
            voice,
            has_open_invite: false,
            cards: cards.iter().filter(|card| card.id == app.card).map(|card| card_on_file(card, now)).collect(),
            requests,
            failures_24h: self.tries(&app.customer, &customer.numbers, None, true, now).await?,
            slow: self.store.wants_more_time(&app.customer).await?,
            customer: customer.id,
        };
        Ok(Some((known, clips)))
    }

    async fn voice_on_file(&self, customer: &CustomerId) -> Result<VoiceOnFile, DeskError> {
        Ok(match self.store.template(customer).await? {
            None => VoiceOnFile::None,
            Some(row) if row.model == self.voice_model => VoiceOnFile::Enrolled,
            Some(_) => VoiceOnFile::OtherModel,
        })
    }

    pub(super) async fn payee_clip(&self, payee: &PayeeId) -> Result<Option<Sound>, DeskError> {
        let recorded = self.store.payee(payee).await?.and_then(|p| p.spoken_name_wav);
        // A recording that no longer reads is spelt instead: no reason to lose a call.
        Ok(recorded.and_then(|bytes| wav::read_wav_bytes(Path::new(payee.as_str()), &bytes).ok()))
    }

    /// A customer's template, unsealed for one comparison.
    pub(super) async fn template(&self, customer: &CustomerId) -> Result<Option<Template>, DeskError> {
        let Some(row) = self.store.template(customer).await? else { return Ok(None) };
        let key = store::customer_key(&*self.store, &self.vault, customer).await?;
        let bytes = key.unseal_template(&row.model, &row.sealed)?;
        Ok(Some(Template::from_bytes(&bytes)?))
    }

    /// The numbers of these cards, unsealed for one scoring. Cards of another customer, or no longer good, are left out.
    pub(super) async fn card_numbers(&self, customer: &CustomerId, cards: &[CardId]) -> Result<Vec<(CardId, Pan)>, DeskError> {
        let mut numbers = Vec::with_capacity(cards.len());
        for card in self.store.cards_of(customer).await? {
            if cards.contains(&card.id) && card.status == CardStatus::Active {
                numbers.push((card.id.clone(), self.vault.unseal_card(&card.id, customer, &card.sealed)?));
            }
        }
        Ok(numbers)
    }

    /// Compares keyed digits with these cards by keyed digest: no number is unsealed.
    pub(super) async fn compare_keyed(
        &self,
        customer: &CustomerId,
        cards: &[CardId],
        digits: &SecretBytes,
    ) -> Result<NumberEvidence, DeskError> {
        let Ok(pan) = Pan::from_digits(digits.expose()) else { return Ok(NumberEvidence::Keyed { card: None }) };
        let digest = self.vault.digest_card(&pan);
        let rows = self.store.cards_of(customer).await?;
        let same = |card: &CardRecord| bool::from(subtle::ConstantTimeEq::ct_eq(card.digest.as_slice(), digest.as_slice()));
        let card = rows.iter().find(|c| cards.contains(&c.id) && c.status == CardStatus::Active && same(c)).map(|c| c.id.clone());
        Ok(NumberEvidence::Keyed { card })
    }

    /// Whether an invitation code is right; wrong ones are counted.
    pub(super) async fn check_invite(&self, customer: &CustomerId, code: &str, now: Timestamp) -> Result<bool, DeskError> {
        let digest = self.vault.digest_invite_code(code);
        let check = self.store.check_invite(&digest, Some(customer), now, INVITE_LIMIT_WRONG_TRIES).await?;
        Ok(matches!(check, InviteCheck::Good(_)))
    }

    /// Stores template and consent and uses the invitation up, in one transaction; `false` if it was spent meanwhile.
    pub(super) async fn store_enrolment(
        &self,
        call: &CallId,
        customer: &CustomerId,
        template: &Template,
        code: &str,
        consent: &Consent,
        now: Timestamp,
    ) -> Result<bool, DeskError> {
        let digest = self.vault.digest_invite_code(code);
        let invite = match self.store.check_invite(&digest, Some(customer), now, INVITE_LIMIT_WRONG_TRIES).await? {
            InviteCheck::Good(invite) => invite,
            InviteCheck::Refused => return Ok(false),
        };
        let model = template.model().as_str().to_owned();
        let key = store::customer_key_to_seal(&*self.store, &self.vault, customer).await?;
        let sealed = key.seal_template(&model, &template.to_bytes())?;
        let enrolment = EnrolmentRecord {
            template: TemplateRecord { customer: customer.clone(), model, sealed, created_at: now },
            invite: Some(invite.id),
            consent_text_version: consent.policy_version.clone(),
            consent_by: "the caller".to_owned(),
            consent_at: consent.at,
            call: Some(call.clone()),
        };
        match self.store.complete_enrolment(&enrolment, &self.audit(now, "voice.enrolled", customer.as_str(), call)).await {
            Ok(()) => Ok(true),
            Err(StoreError::Refused(_) | StoreError::Conflict(_) | StoreError::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Failed factors of the last 24 h that count against a call. Those under attested numbers count against the customer.
    /// Those that nobody vouches for count against the number they came from; and those from numbers that are not the customer's,
    /// or withheld, together against every such number, else a fresh number a call would give endless tries. The customer's own
    /// numbers stay open through that: nobody can lock a customer out.
    pub(super) async fn tries(
        &self,
        customer: &CustomerId,
        numbers: &[E164],
        caller: Option<&E164>,
        attested: bool,
        now: Timestamp,
    ) -> Result<u32, DeskError> {
        let counts = self.store.failure_counts(Some(customer), caller, "", now.minus(FAILURE_WINDOW)).await?;
        let stranger = caller.is_none_or(|n| !numbers.contains(n));
        let unattested = match (attested, stranger) {
            (true, _) => 0,
            (false, true) => counts.strangers.max(counts.calling),
            (false, false) => counts.calling,
        };
        Ok(counts.customer_attested.saturating_add(unattested))
    }

    /// Whether the limit has been reached, by whichever call.
    pub(super) async fn line_closed(
        &self,
        customer: &CustomerId,
        caller: Option<&E164>,
        attested: bool,
        limit: u32,
        now: Timestamp,
    ) -> Result<bool, DeskError> {
        let numbers = self.store.customer(customer).await?.map(|c| c.numbers).unwrap_or_default();
        Ok(self.tries(customer, &numbers, caller, attested, now).await? >= limit)
    }

    /// Counts a failed factor, durably, with an audit row and news of it. The customer is told when `limit` failures from anywhere
    /// are reached.
    pub(super) async fn record_failure(
        &self,
        call: &CallId,
        failed: Failed<'_>,
        limit: u32,
        now: Timestamp,
    ) -> Result<(), DeskError> {
        let failure = FactorFailure {
            factor: failed.factor.into(),
            customer: Some(failed.customer.clone()),
            calling: failed.caller.cloned(),
            trunk: failed.trunk.to_owned(),
            attested: failed.attested,
            call: call.clone(),
            at: now,
        };
        let counts = self.store.record_failure(&failure, now.minus(FAILURE_WINDOW)).await?;
        let mut audit = self.audit(now, "factor.failed", failed.customer.as_str(), call);
        audit.detail = serde_json::json!({ "call": call, "factor": failure.factor.as_str(), "attested": failed.attested });
        self.store.announce(&self.news(now, "factor.failed", failed.customer, call), &audit).await?;
        if counts.customer_any == limit {
            self.notify(call, failed.customer, Notice::TooManyFailures, now).await?;
        }
        Ok(())
    }

    pub(super) fn news(&self, at: Timestamp, topic: &str, customer: &CustomerId, call: &CallId) -> OutboxRecord {
        OutboxRecord {
            id: OutboxId::fresh_at(at, self.entropy.as_ref()),
            at,
            topic: topic.to_owned(),
            payload: serde_json::json!({ "customer": customer, "call": call }),
        }
    }

    /// Notes that both factors and the yes held.
    pub(super) async fn record_success(&self, call: &CallId, customer: &CustomerId, now: Timestamp) -> Result<(), DeskError> {
        Ok(self.store.audit(&self.audit(now, "factors.held", customer.as_str(), call)).await?)
    }

    /// Tells the customer by other means, through the outbox.
    pub(super) async fn notify(
        &self,
        call: &CallId,
        customer: &CustomerId,
        notice: Notice,
        now: Timestamp,
    ) -> Result<(), DeskError> {
        let topic = match notice {
            Notice::TooManyFailures => "customer.too_many_failures",
            Notice::VoiceEnrolled => "customer.voice_enrolled",
            Notice::OutcomePending => "customer.outcome_pending",
        };
        let news = self.news(now, topic, customer, call);
        Ok(self.store.announce(&news, &self.audit(now, topic, customer.as_str(), call)).await?)
    }

    /// Hands a charge over: one transaction. From here on the payment goes on whatever becomes of the call.
    pub(super) async fn submit(&self, call: &CallId, charge: Charge, asking: Asking) -> Result<HandedOver, PaymentOutcome> {
        let held = Held::of(&charge);
        let order = ChargeOrder {
            customer: charge.customer,
            request: charge.request,
            amount: charge.amount,
            card: charge.card,
            occasion: call.clone().into(),
            capture: Capture::Automatic,
            evidence: self.evidence(charge.approval),
            guards: crate::processor::OrderGuards::default(),
        };
        self.agree(call, held, asking, order).await
    }

    fn evidence(&self, approval: Approval) -> Evidence {
        let (by, spoken) = match approval.number {
            NumberSummary::Spoken { log_ratio, llr, engine } => ("spoken", Some((log_ratio, llr, engine))),
            NumberSummary::Keyed => ("keyed", None),
            NumberSummary::Mandate => ("mandate", None),
            NumberSummary::Bound => ("app", None),
        };
        Evidence {
            voice_cosine: Some(approval.voice_cosine),
            voice_accept_cosine: None,
            voice_llr: Some(approval.voice_llr),
            voice_accept_llr: Some(self.policy.voice.accept_llr),
            voice_net_speech_ms: Some(approval.voice_net_speech_ms),
            voice_model: Some(approval.voice_model),
            number_by: Some(by.to_owned()),
            number_log_ratio: spoken.as_ref().map(|s| s.0),
            number_accept_log_ratio: None,
            number_llr: spoken.as_ref().map(|s| s.1),
            number_accept_llr: spoken.as_ref().map(|_spoken| self.policy.number.accept_llr),
            number_engine: spoken.map(|s| s.2),
            calibration: Some(self.policy.calibration.clone()),
            yes_continuity: Some(approval.continuity_cosine),
            policy_version: approval.policy_version,
            rules: None,
            mandate: None,
        }
    }

    /// Waits for a payment's outcome.
    pub(super) async fn outcome(&self, intent: &IntentId, wait: Duration) -> PaymentOutcome {
        match self.processor.outcome(intent, wait).await {
            Ok(Outcome::Paid(receipt)) => PaymentOutcome::Paid { reference: receipt.reference_digits() },
            Ok(Outcome::Declined(_)) => PaymentOutcome::Declined,
            // Taken back by the acquirer: nothing stays charged, but what the caller should do next is for a person to say.
            // A call charges at once, so that an authorisation alone is nothing to tell the caller of.
            Ok(Outcome::Reversed | Outcome::Authorised | Outcome::Unknown) => PaymentOutcome::Unknown,
            Err(error) => {
                tracing::error!(%intent, %error, "a payment's outcome could not be read");
                PaymentOutcome::Unknown
            }
        }
    }

    /// A call began.
    pub(super) async fn record_start(&self, row: &store::CallRecord) -> Result<(), DeskError> {
        Ok(self.store.call_started(row).await?)
    }

    /// A call ended.
    pub(super) async fn record_end(&self, row: &store::CallRecord) -> Result<(), DeskError> {
        Ok(self.store.call_ended(row).await?)
    }

    pub(super) fn audit(&self, at: Timestamp, action: &str, subject: &str, call: &CallId) -> AuditRecord {
        AuditRecord::fresh(at, self.entropy.as_ref(), "call", action, subject, serde_json::json!({ "call": call }))
    }
}

fn card_on_file(card: &CardRecord, now: Timestamp) -> CardOnFile {
    let mut last4 = [0u8; 4];
    for (slot, digit) in last4.iter_mut().zip(card.last4.bytes()) {
        *slot = digit.saturating_sub(b'0').min(9);
    }
    let usable = match card.status {
        CardStatus::Active if card.usable(now) => Usable::Yes,
        CardStatus::Active => Usable::Expired,
        CardStatus::Blocked | CardStatus::Revoked => Usable::Blocked,
    };
    CardOnFile { id: card.id.clone(), last4, length: usize::from(card.length), usable }
}

fn open_request(row: RequestWithPayee, asks: Asks) -> OpenRequest {
    OpenRequest {
        id: row.request.id,
        amount: row.request.amount,
        payee: SpokenPayee { id: row.request.payee, name: row.payee_name },
        due: row.request.due.map(|d| SpokenDate { month: d.month(), day: d.day() }),
        asks,
    }
}
