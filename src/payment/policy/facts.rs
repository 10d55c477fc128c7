//! What rules are asked about: a payment that somebody is about to make, and what is known of it. The edge gathers it; rules see
//! nothing else, so that what they said can be worked out again from what was known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Bounds;
use crate::clock::Timestamp;
use crate::ids::{Category, PayeeId};
use crate::money::{Currency, Money};
use crate::payment::Delivery;

/// What is known of a payment before it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// When it is asked.
    pub now: Timestamp,
    /// By what way the payer pays.
    pub channel: Channel,
    /// How much.
    pub amount: Money,
    /// For whom.
    pub payee: PayeeId,
    /// What the payee sells, if anybody said.
    pub category: Option<Category>,
    /// What is delivered, and where.
    pub delivery: Delivery,
    /// Whether the address is known: the payer had goods sent there before, or whoever looks after the payer listed it.
    pub address_known: bool,
    /// Who vouches for the caller's number.
    pub attestation: Attested,
    /// Whether the payer has paid from this device before; `None`: there is no device that could be known.
    pub device_known: Option<bool>,
    /// Whether a mandate stands for the card number.
    pub by_mandate: bool,
    /// What went before.
    pub history: History,
    /// How many guardians the payer has, 0 to 2.
    pub guardians: u8,
    /// Whether the payer has a supervisor who has to agree to such a payment.
    pub supervised: bool,
    /// Bounds that a guardian set; the stricter of these and the policy's count.
    pub tiers: BTreeMap<Currency, Bounds>,
}

/// By what way somebody pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A call.
    Telephone,
    /// An app's page, by voice.
    App,
    /// Without a voice: a mandate and a code.
    Api,
}

impl Channel {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Telephone, Self::App, Self::Api];
}

/// Where goods go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// There are none.
    NoGoods,
    /// To an address that is known.
    Known,
    /// To one that is not.
    New,
    /// Nobody said.
    Missing,
}

impl Address {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::NoGoods, Self::Known, Self::New, Self::Missing];
}

/// Who vouches for the number that calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attested {
    /// A trusted peer, or a signature with full attestation.
    Vouched,
    /// Nobody.
    Unvouched,
    /// It is signed, and the signature does not hold.
    Disputed,
    /// Nobody calls.
    NotACall,
}

impl Attested {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Vouched, Self::Unvouched, Self::Disputed, Self::NotACall];
}

/// What the payer paid before, and what went wrong of late. Sums are minor units of the payment's currency: what is being paid or was paid, without
/// what was declined or taken back whole. This payment is not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// In the last 24 hours, to anybody.
    pub spent_24h: i64,
    /// In the last 24 hours, to this payee.
    pub spent_24h_payee: i64,
    /// Payments that were made, ever.
    pub paid_before: u32,
    /// Payments that were made to this payee, ever.
    pub paid_before_payee: u32,
    /// Factors that failed in the last 24 hours.
    pub failures_24h: u32,
}

impl Facts {
    /// A payment by telephone of which nothing else is known: nobody ever paid, nothing is delivered.
    pub fn plain(now: Timestamp, amount: Money, payee: PayeeId) -> Self {
        Self {
            now,
            channel: Channel::Telephone,
            amount,
            payee,
            category: None,
            delivery: Delivery::None,
            address_known: false,
            attestation: Attested::Vouched,
            device_known: None,
            by_mandate: false,
            history: History::default(),
            guardians: 0,
            supervised: false,
            tiers: BTreeMap::new(),
        }
    }

    /// Where goods go.
    pub fn address(&self) -> Address {
        match (&self.delivery, self.address_known) {
            (Delivery::None, _) => Address::NoGoods,
            (Delivery::Nowhere, _) => Address::Missing,
            (Delivery::To(_), true) => Address::Known,
            (Delivery::To(_), false) => Address::New,
        }
    }

    /// With this payment, what goes to the payee in 24 hours: splitting a payment does not make it smaller.
    pub fn to_payee_24h(&self) -> i64 {
        self.history.spent_24h_payee.max(0).saturating_add(self.amount.minor.get())
    }

    /// With this payment, what goes to anybody in 24 hours.
    pub fn in_all_24h(&self) -> i64 {
        self.history.spent_24h.max(0).saturating_add(self.amount.minor.get())
    }
}
