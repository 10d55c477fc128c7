//! The approval object: what several people have to agree to before a payment is charged, and what each said. One serves guardians
//! (system 6) and supervisors (system 8), in the call and beside it. It is bound to one request, amount, currency, payee and payer; it is
//! used once; it expires. The payer and the others may come in either order.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::intent::Occasion;
use super::policy::{Attested, Channel};
use super::receipt::Evidence;
use super::request::PaymentRequest;
use super::terms::Condition;
use crate::clock::Timestamp;
use crate::ids::{ApprovalId, CallId, CardId, CustomerId, IntentId, PayeeId, RequestId};
use crate::money::Money;

/// What an approval is for, as 64 hex digits: whoever agreed to one thing did not agree to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Binding(String);

impl Binding {
    /// SHA-256 over a domain and each part with its length before it.
    pub fn of(request: &PaymentRequest) -> Self {
        let minor = request.amount.minor.get().to_string();
        let parts = [
            "voicepay approval v1",
            request.id.as_str(),
            request.customer.as_str(),
            request.payee.as_str(),
            &minor,
            request.amount.currency.code(),
        ];
        let mut hash = Sha256::new();
        for part in parts {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            hash.update(length.to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hex::encode(hash.finalize()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What several have to agree to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Which one.
    pub id: ApprovalId,
    /// What is to be paid.
    pub request: RequestId,
    /// By whom.
    pub customer: CustomerId,
    /// To whom.
    pub payee: PayeeId,
    /// How much.
    pub amount: Money,
    /// All of that in one.
    pub binding: Binding,
    /// Who has to agree beside the payer.
    pub parties: Vec<Party>,
    /// The payer's own part, once it is there.
    pub payer: Option<PayersPart>,
    /// Where it stands.
    pub state: ApprovalState,
    /// After this it is worth nothing.
    pub expires_at: Timestamp,
    /// When it was opened.
    pub created_at: Timestamp,
    /// Which one that was denied this one appeals against.
    pub appeals: Option<ApprovalId>,
    /// Which one came after this one was denied: an appeal, or one for what the request asks now.
    pub succeeded_by: Option<ApprovalId>,
    /// Counts changes.
    pub version: u64,
}

/// Somebody who has to agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// As what.
    pub role: Role,
    /// Who.
    pub who: CustomerId,
    /// What they said, if they did.
    pub said: Option<Said>,
    /// How often they were called, and when they may be called next; `None`: not by telephone.
    pub calls: Option<Calls>,
}

/// As what somebody has to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks after the payer.
    Guardian,
    /// Looks after the payer, too.
    SecondGuardian,
    /// Was named by the payer, or by who opened the account.
    Supervisor,
}

impl Role {
    /// What asks for it.
    pub fn of(condition: Condition) -> Option<Self> {
        match condition {
            Condition::Guardian => Some(Self::Guardian),
            Condition::SecondGuardian => Some(Self::SecondGuardian),
            Condition::Supervisor => Some(Self::Supervisor),
            Condition::FreshDigits | Condition::Code => None,
        }
    }

    /// As rows and news write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guardian => "guardian",
            Self::SecondGuardian => "second_guardian",
            Self::Supervisor => "supervisor",
        }
    }
}

/// Calls to somebody who has to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calls {
    /// How often they were tried.
    pub tried: u32,
    /// When they may be called next.
    pub next_at: Timestamp,
}

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Yes or no.
    pub yes: bool,
    /// When.
    pub at: Timestamp,
    /// How.
    pub how: How,
}

/// By what somebody said yes or no.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
pub enum How {
    /// In a call, in their voice.
    Voice {
        /// Which call.
        call: CallId,
        /// Its scores.
        evidence: Box<Evidence>,
    },
    /// By a signed link that only they were sent.
    Link,
    /// Somebody with a key of the API says that they did.
    Api {
        /// Which key.
        key: String,
    },
    /// An operator, in their place: audited, with a reason, and for a yes with a second operator.
    Override {
        /// Who.
        by: String,
        /// Who else: nobody says yes for another alone.
        #[serde(default)]
        with: Option<String>,
        /// Why.
        why: String,
    },
}

/// The payer's own part: everything that a charge needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayersPart {
    /// When.
    pub at: Timestamp,
    /// With which card.
    pub card: CardId,
    /// In which call, or by which purchase.
    #[serde(rename = "call")]
    pub occasion: Occasion,
    /// Why it is allowed, as far as the payer goes.
    pub evidence: Evidence,
    /// By what way, and who vouched for the number: rules are asked again before the charge.
    pub channel: Channel,
    /// See `channel`.
    pub attestation: Attested,
    /// Which conditions of the payer's own were met.
    pub met: BTreeSet<Condition>,
}

/// Where an approval stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ApprovalState {
    /// Somebody has not said anything yet.
    Open,
    /// Everybody agreed: it can be charged, once.
    Agreed,
    /// It was charged.
    Used {
        /// As what.
        intent: IntentId,
    },
    /// Somebody said no.
    Denied {
        /// Who.
        by: Role,
    },
    /// Its time ran out.
    Expired,
    /// The payer, the payee or an operator took it back.
    Cancelled,
    /// Somebody who had to agree is not there any more.
    Withdrawn {
        /// Who.
        by: Role,
    },
}

impl ApprovalState {
    /// For people and rows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Agreed => "agreed",
            Self::Used { .. } => "used",
            Self::Denied { .. } => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Withdrawn { .. } => "withdrawn",
        }
    }
}

/// What may happen to an approval.
#[derive(Clone, Debug, PartialEq)]
pub enum ApprovalEvent {
    /// The payer's own part. A later one takes the place of an earlier one.
    Payer(Box<PayersPart>),
    /// Somebody said yes or no.
    Said {
        /// Who.
        who: CustomerId,
        /// What.
        said: Said,
    },
    /// It was charged.
    Used(IntentId),
    /// Nobody has to agree any more, as it is taken back.
    Cancel,
    /// Somebody who had to agree is not there any more.
    Withdraw {
        /// Who.
        who: CustomerId,
    },
    /// Its time ran out.
    Expire,
}

/// Why an approval can't change so. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// It ended.
    #[error("the approval is {0} and can't change any more")]
    Over(&'static str),
    /// Its time ran out, though nobody wrote that down yet.
    #[error("the approval has expired")]
    Expired,
    /// Nobody asked them.
    #[error("this person was not asked")]
    NotAsked,
    /// They said something else before.
    #[error("this person has answered already")]
    Answered,
    /// Somebody's voice is missing.
    #[error("not everybody has agreed")]
    Incomplete,
    /// The payer is to agree with themselves.
    #[error("nobody can agree to their own payment in another's place")]
    Oneself,
    /// Nobody has to agree.
    #[error("nobody else has to agree to this payment")]
    Nobody,
    /// Its time is not up yet.
    #[error("the approval has not expired")]
    NotYet,
    /// Nobody said no.
    #[error("only an approval that was denied can be appealed against")]
    NotDenied,
    /// Once is all.
    #[error("this was appealed against before; the second no stands")]
    AppealedBefore,
    /// The request asks for something else now.
    #[error("the request is not what was denied, or can't be paid any more")]
    OtherThing,
    /// Nobody may later wonder why.
    #[error("an appeal or an override needs a reason")]
    NoReason,
    /// Two operators, not one.
    #[error("a yes in somebody's place needs two different operators")]
    Alone,
}

impl Approval {
    /// Opens one for a request: `parties` are who has to agree.
    pub fn open_for(
        id: ApprovalId,
        request: &PaymentRequest,
        parties: Vec<(Role, CustomerId)>,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Self, ApprovalError> {
        if parties.is_empty() {
            return Err(ApprovalError::Nobody);
        }
        if parties.iter().any(|(_, who)| *who == request.customer) {
            return Err(ApprovalError::Oneself);
        }
        let party = |(role, who)| Party { role, who, said: None, calls: Some(Calls { tried: 0, next_at: now }) };
        Ok(Self {
            id,
            request: request.id.clone(),
            customer: request.customer.clone(),
            payee: request.payee.clone(),
            amount: request.amount,
            binding: Binding::of(request),
            parties: parties.into_iter().map(party).collect(),
            payer: None,
            state: ApprovalState::Open,
            expires_at,
            created_at: now,
            appeals: None,
            succeeded_by: None,
            version: 0,
        })
    }

    /// Whether it can still lead to a charge.
    pub fn open(&self) -> bool {
        matches!(self.state, ApprovalState::Open | ApprovalState::Agreed)
    }

    /// When somebody has to look at it: at once where everybody agreed and it is not charged yet, else when it expires.
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.state {
            ApprovalState::Open => Some(self.expires_at),
            ApprovalState::Agreed => Some(self.created_at),
            ApprovalState::Used { .. }
            | ApprovalState::Denied { .. }
            | ApprovalState::Expired
            | ApprovalState::Cancelled
            | ApprovalState::Withdrawn { .. } => None,
        }
    }

    /// Whether it is for this request as it stands now.
    pub fn fits(&self, request: &PaymentRequest) -> bool {
        self.binding == Binding::of(request)
    }

    /// Whether the payer's own part is the confirmation of a purchase.
    pub fn by_purchase(&self) -> bool {
        self.payer.as_ref().is_some_and(|part| matches!(part.occasion, Occasion::Purchase(_)))
    }

    /// Who has said nothing yet.
    pub fn waits_for(&self) -> impl Iterator<Item = &Party> {
        self.parties.iter().filter(|p| p.said.is_none())
    }

    /// Whether everybody who was asked has agreed, the payer aside, and each of these was asked as that: somebody whom rules ask for now and
    /// nobody asked is missing, whoever else agreed in the same role.
    pub fn agreed_by_each(&self, parties: &[(Role, CustomerId)]) -> bool {
        let yes = |p: &Party| p.said.as_ref().is_some_and(|s| s.yes);
        let was_asked = |(role, who): &(Role, CustomerId)| self.parties.iter().any(|p| p.role == *role && p.who == *who);
        self.parties.iter().all(yes) && parties.iter().all(was_asked)
    }

    /// One step. Saying the same twice changes nothing and is no error.
    pub fn step(mut self, now: Timestamp, event: ApprovalEvent) -> Result<Self, ApprovalError> {
        if !self.open() {
            return match (&self.state, &event) {
                (ApprovalState::Used { intent }, ApprovalEvent::Used(again)) if intent == again => Ok(self),
                _ => Err(ApprovalError::Over(self.state.name())),
            };
        }
        let past = now >= self.expires_at;
        match event {
            ApprovalEvent::Expire if past => self.state = ApprovalState::Expired,
            ApprovalEvent::Expire => return Err(ApprovalError::NotYet),
            ApprovalEvent::Cancel => self.state = ApprovalState::Cancelled,
            ApprovalEvent::Withdraw { who } => {
                // What they said before stands no longer: it was not used.
                let party = self.parties.iter().find(|p| p.who == who).ok_or(ApprovalError::NotAsked)?;
                self.state = ApprovalState::Withdrawn { by: party.role };
            }
            _ if past => return Err(ApprovalError::Expired),
            ApprovalEvent::Payer(part) => self.payer = Some(*part),
            ApprovalEvent::Said { who, said } => {
                said.how.allowed(said.yes)?;
                let yes = said.yes;
                let mut theirs = self.parties.iter_mut().filter(|p| p.who == who).peekable();
                let role = theirs.peek().ok_or(ApprovalError::NotAsked)?.role;
                // Somebody who is asked as two things answers once for both.
                for party in theirs {
                    match &party.said {
                        Some(before) if before.yes == yes => return Ok(self),
                        Some(_) => return Err(ApprovalError::Answered),
                        None => party.said = Some(said.clone()),
                    }
                }
                if !yes {
                    self.state = ApprovalState::Denied { by: role };
                }
            }
            ApprovalEvent::Used(_) if self.state != ApprovalState::Agreed => return Err(ApprovalError::Incomplete),
            ApprovalEvent::Used(intent) => self.state = ApprovalState::Used { intent },
        }
        if self.open() {
            let all = self.payer.is_some() && self.agreed_by_each(&[]);
            self.state = if all { ApprovalState::Agreed } else { ApprovalState::Open };
        }
        self.version = self.version.saturating_add(1);
        Ok(self)
    }
}

mod appeal;
#[cfg(test)]
mod tests;
