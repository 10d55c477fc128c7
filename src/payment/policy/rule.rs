//! One rule: when it applies, and what it asks for then. All that stands under `when` has to hold; what does not stand there does not matter.

use std::collections::{BTreeMap, BTreeSet};

use super::{Address, Attested, Channel, Facts, Tier};
use crate::ids::{Category, PayeeId};
use crate::money::Currency;
use crate::payment::conditions::{Conditions, RuleName};

/// A rule that was read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What people call it.
    pub name: RuleName,
    /// When it applies.
    pub when: When,
    /// What it asks for.
    pub asks: Conditions,
    /// Whether it refuses the payment.
    pub denies: bool,
}

impl Rule {
    /// Whether it has anything to say of this payment.
    pub fn applies(&self, facts: &Facts, tier: Tier) -> bool {
        self.when.holds(facts, tier)
    }
}

/// A rule's conditions, joined by "and"; each list is joined by "or". An empty one says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    pub(super) tier: BTreeSet<Tier>,
    pub(super) channel: BTreeSet<Channel>,
    pub(super) category: BTreeSet<Category>,
    pub(super) payee: BTreeSet<PayeeId>,
    pub(super) address: BTreeSet<Address>,
    pub(super) attestation: BTreeSet<Attested>,
    pub(super) device_known: Option<bool>,
    pub(super) mandate: Option<bool>,
    pub(super) guarded: Option<bool>,
    pub(super) supervised: Option<bool>,
    /// More than this at once, in minor units; never in a currency that is not named.
    pub(super) amount_over: BTreeMap<Currency, i64>,
    /// More than this in 24 hours to anybody, this payment among it.
    pub(super) day_over: BTreeMap<Currency, i64>,
    /// More than this in 24 hours to this payee, this payment among it.
    pub(super) payee_day_over: BTreeMap<Currency, i64>,
    /// Fewer payments than this were ever made.
    pub(super) paid_before_below: Option<u32>,
    /// Fewer payments than this were ever made to this payee.
    pub(super) paid_before_payee_below: Option<u32>,
    /// More factors than this failed in 24 hours.
    pub(super) failures_24h_over: Option<u32>,
}

impl When {
    /// Whether it always holds.
    pub fn always(&self) -> bool {
        *self == Self::default()
    }

    fn holds(&self, facts: &Facts, tier: Tier) -> bool {
        let over = |limits: &BTreeMap<Currency, i64>, minor: i64| {
            limits.is_empty() || limits.get(&facts.amount.currency).is_some_and(|limit| minor > *limit)
        };
        let below = |limit: Option<u32>, count: u32| limit.is_none_or(|l| count < l);
        // What costs least and fails most comes first: numbers, then small sets, then maps, then names, which the index has mostly looked at.
        below(self.paid_before_below, facts.history.paid_before)
            && below(self.paid_before_payee_below, facts.history.paid_before_payee)
            && self.failures_24h_over.is_none_or(|limit| facts.history.failures_24h > limit)
            && self.device_known.is_none_or(|known| facts.device_known == Some(known))
            && self.mandate.is_none_or(|by| facts.by_mandate == by)
            && self.guarded.is_none_or(|by| (facts.guardians > 0) == by)
            && self.supervised.is_none_or(|by| facts.supervised == by)
            && among(&self.tier, &tier)
            && among(&self.channel, &facts.channel)
            && among(&self.address, &facts.address())
            && among(&self.attestation, &facts.attestation)
            && over(&self.amount_over, facts.amount.minor.get())
            && over(&self.day_over, facts.in_all_24h())
            && over(&self.payee_day_over, facts.to_payee_24h())
            && among(&self.payee, &facts.payee)
            && (self.category.is_empty() || facts.category.as_ref().is_some_and(|c| self.category.contains(c)))
    }
}

fn among<T: Ord>(set: &BTreeSet<T>, one: &T) -> bool {
    set.is_empty() || set.contains(one)
}
