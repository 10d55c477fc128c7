//! Calls that we owe: to whoever has to agree to a payment, and to its payer once it is settled. Several nodes place them; a lease keeps one
//! call from being placed twice.

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{AuditRecord, OutboxRecord, StoreError};
use crate::clock::{Entropy, Timestamp};
use crate::ids::{ApprovalId, CallId, CallbackId, CustomerId, WorkerId};
use crate::payment::{Approval, ApprovalState, Occasion, PayersPart};

/// A call that we owe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Callback {
    /// Which one.
    pub id: CallbackId,
    /// What it is about.
    pub approval: ApprovalId,
    /// Whom to call.
    pub customer: CustomerId,
    /// Why.
    pub purpose: CallbackPurpose,
    /// How far it has come.
    pub state: CallbackState,
    /// Calls that were placed, or begun to be.
    pub tries: u32,
    /// When the next one is due; while somebody is at it, when the lease ends.
    pub due_at: Timestamp,
    /// Nobody is called from then on.
    pub expires_at: Timestamp,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// What became of the last try, in a word.
    pub last_outcome: Option<String>,
    /// The last call in which a person picked up.
    pub last_call: Option<CallId>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// As a row stores it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// Back from a row.
            pub fn parse(text: &str) -> Option<Self> {
                [$(Self::$variant,)+].into_iter().find(|s| s.as_str() == text)
            }
        }
    };
}

words! {
    /// Why somebody is called.
    CallbackPurpose {
        /// A supervisor or guardian is asked.
        Decide = "decide",
        /// The payer is told.
        Tell = "tell",
    }
}

words! {
    /// How far it has come.
    CallbackState {
        /// A call is due, now or later, or somebody is at it.
        Waiting = "waiting",
        /// Nothing is left to call for.
        Over = "over",
        /// Nobody was reached who would have it.
        GivenUp = "given_up",
    }
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// In a word.
    pub outcome: String,
    /// The call, if a person picked up.
    pub call: Option<CallId>,
    /// What follows.
    pub next: NextTry,
}

/// What follows a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTry {
    /// Another one then.
    At(Timestamp),
    /// None: it is done.
    Over,
    /// None: there were enough of them, or they want none.
    GivenUp,
}

impl NextTry {
    /// The state it leads to, and when the next try is due; of what is over nothing is.
    pub(in crate::store) fn row(self) -> (CallbackState, Option<Timestamp>) {
        match self {
            Self::At(at) => (CallbackState::Waiting, Some(at)),
            Self::Over => (CallbackState::Over, None),
            Self::GivenUp => (CallbackState::GivenUp, None),
        }
    }
}

/// Of a lease that somebody else has, or that is over.
pub(in crate::store) const LEASE: StoreError = StoreError::Conflict("call that is owed");

/// Calls that we owe.
#[async_trait]
pub trait Callbacks: Send + Sync {
    /// Owes a call. `false`, and nothing is written, where one is owed or was already: the same person is called about the same approval for
    /// the same purpose once.
    async fn add_callback(&self, callback: &Callback, audit: &AuditRecord) -> Result<bool, StoreError>;
    /// Those about an approval, oldest first.
    async fn callbacks_of(&self, approval: &ApprovalId) -> Result<Vec<Callback>, StoreError>;
    /// The latest, newest first.
    async fn callbacks(&self, limit: u32) -> Result<Vec<Callback>, StoreError>;
    /// Those that are due and that nobody is at, the longest due first, leased to `owner` until `until`, in ONE transaction: two nodes never
    /// get the same one while its lease lasts. Each counts as a try from here on, so that a node that dies of it does so a few times only.
    async fn claim_callbacks(
        &self,
        owner: &WorkerId,
        now: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Callback>, StoreError>;
    /// Writes down what became of a try. `Conflict` if the lease is no longer `owner`'s.
    async fn callback_tried(
        &self,
        id: &CallbackId,
        owner: &WorkerId,
        tried: &Tried,
        audit: &AuditRecord,
        news: Option<&OutboxRecord>,
    ) -> Result<(), StoreError>;
    /// Gives a lease back that came to no try: it is due again at `due_at` and does not count. `Conflict` as above.
    async fn put_back_callback(&self, id: &CallbackId, owner: &WorkerId, due_at: Timestamp) -> Result<(), StoreError>;
    /// Those that wait though there is nothing to wait for at `now`, the longest due first: their time ran out, or the approval that somebody was
    /// to decide is closed. None of them is anybody's.
    async fn callbacks_over(&self, now: Timestamp, limit: u32) -> Result<Vec<Callback>, StoreError>;
    /// Ends one of those. `false`, and nothing is written: somebody took it meanwhile.
    async fn end_callback(
        &self,
        id: &CallbackId,
        now: Timestamp,
        ended: &Tried,
        audit: &AuditRecord,
        news: Option<&OutboxRecord>,
    ) -> Result<bool, StoreError>;
}

/// For how long a payer is called about what became of a payment.
const TELL_WITHIN: Duration = Duration::from_secs(6 * 3600);

/// Calls that come to be owed as an approval is written: to each who has to agree when it is opened, and to a payer who was left waiting
/// once it is settled. Written with it, in its transaction; what is owed already stays as it is.
pub(in crate::store) fn owed(approval: &Approval) -> Vec<Callback> {
    if approval.version == 0 {
        let ask = |who: &CustomerId| {
            let (from, until) = (approval.created_at, approval.expires_at);
            Callback::new(approval, who, CallbackPurpose::Decide, from, until)
        };
        return approval.parties.iter().map(|party| ask(&party.who)).collect();
    }
    let last_word = approval.parties.iter().filter_map(|p| p.said.as_ref()).map(|said| said.at).max();
    // Who confirmed a purchase on a page hears by its news; only who waited on the telephone is called.
    let by_call = |payer: &&PayersPart| matches!(payer.occasion, Occasion::Call(_));
    let Some(payer) = approval.payer.as_ref().filter(by_call) else { return Vec::new() };
    let settled_at = match &approval.state {
        // Who comes last hears it in that call.
        ApprovalState::Used { .. } | ApprovalState::Denied { .. } => last_word.filter(|at| *at >= payer.at),
        ApprovalState::Expired => Some(approval.expires_at),
        ApprovalState::Withdrawn { .. } => Some(last_word.map_or(payer.at, |at| at.max(payer.at))),
        // Whoever took it back knows, and the payer is notified.
        ApprovalState::Open | ApprovalState::Agreed | ApprovalState::Cancelled => None,
    };
    let tell = |at: Timestamp| Callback::new(approval, &approval.customer, CallbackPurpose::Tell, at, at.plus(TELL_WITHIN));
    settled_at.map(tell).into_iter().collect()
}

/// A digest in the place of randomness: the same gives the same.
struct Hashed([u8; 32]);

impl Entropy for Hashed {
    fn fill(&self, out: &mut [u8]) {
        for (byte, of_hash) in out.iter_mut().zip(self.0.iter().cycle()) {
            *byte = *of_hash;
        }
    }
}

impl Callback {
    /// One that nobody has tried yet. Its name follows from what it is about.
    fn new(approval: &Approval, who: &CustomerId, purpose: CallbackPurpose, due_at: Timestamp, expires_at: Timestamp) -> Self {
        let mut hash = Sha256::new();
        for part in ["voicepay call back v1", approval.id.as_str(), who.as_str(), purpose.as_str()] {
            hash.update(part.as_bytes());
            hash.update([0]); // no part holds one
        }
        Self {
            id: CallbackId::fresh(&Hashed(hash.finalize().into())),
            approval: approval.id.clone(),
            customer: who.clone(),
            purpose,
            state: CallbackState::Waiting,
            tries: 0,
            due_at,
            expires_at,
            created_at: due_at,
            last_outcome: None,
            last_call: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CardId, IntentId, PayeeId, RequestId};
    use crate::money::{Currency, Money};
    use crate::payment::policy::{Attested, Channel};
    use crate::payment::{ApprovalEvent, Delivery, Evidence, How, PaymentRequest, RequestStatus, Role, Said};

    fn customer(name: &str) -> CustomerId {
        CustomerId::parse(name).unwrap()
    }

    fn asked_of(parties: &[(Role, &str)]) -> Approval {
        let request = PaymentRequest {
            id: RequestId::parse("req_1").unwrap(),
            customer: customer("cus_1"),
            payee: PayeeId::parse("pay_1").unwrap(),
            amount: Money::new(1_999, Currency::Usd).unwrap(),
            due: None,
            delivery: Delivery::None,
            expires_at: None,
            status: RequestStatus::Open,
            held_by: None,
            created_at: Timestamp(0),
        };
        let parties = parties.iter().map(|(role, who)| (*role, customer(who))).collect();
        Approval::open_for(ApprovalId::parse("apr_1").unwrap(), &request, parties, Timestamp(10), Timestamp(1_000)).unwrap()
    }

    fn payer() -> ApprovalEvent {
        ApprovalEvent::Payer(Box::new(PayersPart {
            at: Timestamp(20),
            card: CardId::parse("card_1").unwrap(),
            occasion: CallId::parse("call_1").unwrap().into(),
            evidence: serde_json::from_str::<Evidence>(r#"{"policy_version":"1"}"#).unwrap(),
            channel: Channel::Telephone,
            attestation: Attested::Vouched,
            met: std::collections::BTreeSet::new(),
        }))
    }

    fn says(who: &str, yes: bool, at: i64) -> ApprovalEvent {
        ApprovalEvent::Said { who: customer(who), said: Said { yes, at: Timestamp(at), how: How::Link } }
    }

    fn after(events: Vec<ApprovalEvent>) -> Approval {
        let opened = asked_of(&[(Role::Supervisor, "cus_2")]);
        events.into_iter().fold(opened, |approval, event| {
            let at = if matches!(event, ApprovalEvent::Expire) { 2_000 } else { 50 };
            approval.step(Timestamp(at), event).unwrap()
        })
    }

    #[test]
    fn each_who_has_to_agree_is_owed_a_call_as_soon_as_they_have_to() {
        let opened = asked_of(&[(Role::Guardian, "cus_2"), (Role::Supervisor, "cus_3")]);
        let calls = owed(&opened);
        let whom: Vec<_> = calls.iter().map(|c| (c.customer.as_str(), c.purpose, c.due_at, c.expires_at)).collect();
        let (now, end) = (Timestamp(10), Timestamp(1_000));
        assert_eq!(whom, [("cus_2", CallbackPurpose::Decide, now, end), ("cus_3", CallbackPurpose::Decide, now, end)]);
        assert_eq!(owed(&opened), calls, "the same name each time");
        assert!(calls[0].id != calls[1].id);
    }

    #[test]
    fn a_payer_who_was_left_waiting_is_owed_a_call_and_no_other() {
        let used = || ApprovalEvent::Used(IntentId::parse("int_1").unwrap());
        let told = |events| owed(&after(events)).into_iter().map(|c| (c.purpose, c.customer, c.due_at)).collect::<Vec<_>>();
        let tell = |at| vec![(CallbackPurpose::Tell, customer("cus_1"), Timestamp(at))];
        assert_eq!(told(vec![payer(), says("cus_2", true, 30), used()]), tell(30));
        assert_eq!(told(vec![payer(), says("cus_2", false, 30)]), tell(30));
        assert_eq!(told(vec![payer(), ApprovalEvent::Expire]), tell(1_000));
        assert_eq!(told(vec![payer(), ApprovalEvent::Withdraw { who: customer("cus_2") }]), tell(20));
        assert_eq!(told(vec![says("cus_2", true, 15), payer(), used()]), [], "heard in that call");
        assert_eq!(told(vec![says("cus_2", false, 15)]), [], "never asked to wait");
        assert_eq!(told(vec![payer(), ApprovalEvent::Cancel]), []);
        assert_eq!(told(vec![payer()]), [], "still waiting");
    }
}
