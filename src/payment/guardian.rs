//! Guardians (system 6): who looks after the payments of a minor or an elder, by which limits, and who may change them. The ward never
//! may. What tightens holds at once, whoever of two guardians says it; what loosens needs both.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use super::policy::{Bounds, Facts};
use super::request::{AddressMark, Delivery};
use super::terms::{Because, Condition, Terms};
use crate::clock::Timestamp;
use crate::ids::{Category, CustomerId, GuardianshipId, PayeeId};
use crate::money::Currency;

/// Payees, categories or addresses that one guardianship may list.
pub const LIST_LIMIT: usize = 1_000;

/// Who looks after whose payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guardianship {
    /// Which one.
    pub id: GuardianshipId,
    /// Whose payments.
    pub ward: CustomerId,
    /// Who looks after them.
    pub guardian: CustomerId,
    /// Who does so, too.
    pub second: Option<CustomerId>,
    /// By which limits.
    pub rules: WardRules,
    /// What one of two guardians proposed and the other has not agreed to.
    pub proposed: Option<Proposal>,
    /// Nothing may be paid for now.
    pub frozen: bool,
    /// From then on the ward is of age: it ends by itself. `None`: it has no such day.
    pub ends_at: Option<Timestamp>,
    /// When it was ended by a guardian, if so.
    pub ended_at: Option<Timestamp>,
    /// When it began.
    pub created_at: Timestamp,
    /// Counts changes: whoever writes, writes over the version that was read.
    pub version: u64,
}

/// Limits that a guardian set. Amounts are minor units by currency; an amount of exactly a limit is still within it. A currency that is not
/// named has no limit of this kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WardRules {
    /// No single payment above this.
    pub payment_limit: BTreeMap<Currency, i64>,
    /// No more than this in 24 hours.
    pub day_limit: BTreeMap<Currency, i64>,
    /// Above this a guardian has to agree to the payment.
    pub agree_over: BTreeMap<Currency, i64>,
    /// Above this both have to.
    pub both_agree_over: BTreeMap<Currency, i64>,
    /// Where tiers end for this ward, if stricter than the policy.
    pub tiers: BTreeMap<Currency, Bounds>,
    /// Nothing of this kind.
    pub blocked_categories: BTreeSet<Category>,
    /// Nothing from them.
    pub blocked_payees: BTreeSet<PayeeId>,
    /// Where goods may go without further questions. Once a guardian lists any, what the ward ordered before counts no longer.
    pub addresses: BTreeSet<AddressMark>,
}

/// Looser rules, or the end, that one guardian wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// Who.
    pub by: CustomerId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub change: Change,
}

/// What a guardian may want.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// Other limits.
    Rules {
        /// All of them: what is not named is no limit any more.
        rules: WardRules,
    },
    /// Nothing may be paid for now.
    Freeze,
    /// It may again.
    Thaw,
    /// Another day of coming of age, or none.
    EndsAt {
        /// The day.
        at: Option<Timestamp>,
    },
    /// A second guardian.
    AddSecond {
        /// Who.
        guardian: CustomerId,
    },
    /// It is over.
    End,
    /// Agreed to what the other guardian proposed.
    Agree,
    /// Not agreed: it stays as it is.
    Disagree,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edited {
    /// It holds.
    Done,
    /// The other guardian has to agree.
    Proposed,
}

/// Why a guardianship can't be so, or not be changed so. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardianError {
    /// The ward, or a stranger.
    #[error("only a guardian may change a guardianship")]
    NotAGuardian,
    /// It ended.
    #[error("the guardianship is over")]
    Over,
    /// Nobody looks after their own payments.
    #[error("nobody can be their own guardian, nor be one twice")]
    Oneself,
    /// There are two already.
    #[error("there is a second guardian already")]
    TwoAlready,
    /// There is nothing to agree to, or it is one's own proposal.
    #[error("there is no proposal of the other guardian")]
    NothingProposed,
    /// An amount below zero, bounds the wrong way round, or lists without end.
    #[error("{0}")]
    Senseless(String),
}

impl WardRules {
    /// Whether they make sense.
    pub fn check(&self) -> Result<(), GuardianError> {
        let amounts = [&self.payment_limit, &self.day_limit, &self.agree_over, &self.both_agree_over];
        if amounts.into_iter().flat_map(BTreeMap::values).any(|minor| *minor < 0) {
            return Err(GuardianError::Senseless("a limit can't be below zero".into()));
        }
        if let Some((currency, _)) = self.tiers.iter().find(|(_, b)| b.small < 0 || b.small > b.normal) {
            return Err(GuardianError::Senseless(format!("tiers.{currency}: `normal` must not end below `small`")));
        }
        let lists = [self.blocked_categories.len(), self.blocked_payees.len(), self.addresses.len()];
        if lists.into_iter().any(|n| n > LIST_LIMIT) {
            return Err(GuardianError::Senseless(format!("more than {LIST_LIMIT} entries in a list")));
        }
        Ok(())
    }

    /// Whether nothing that these forbid or ask is allowed or free under `next`.
    fn kept_by(&self, next: &Self) -> bool {
        let lower = |now: &BTreeMap<Currency, i64>, then: &BTreeMap<Currency, i64>| {
            now.iter().all(|(c, limit)| then.get(c).is_some_and(|n| n <= limit))
        };
        let tiers = self.tiers.iter().all(|(c, b)| next.tiers.get(c).is_some_and(|n| n.small <= b.small && n.normal <= b.normal));
        // No list means that every address of before is known; a list that grows lets more through.
        let addresses = match (self.addresses.is_empty(), next.addresses.is_empty()) {
            (true, _) => true,
            (false, true) => false,
            (false, false) => next.addresses.is_subset(&self.addresses),
        };
        lower(&self.payment_limit, &next.payment_limit)
            && lower(&self.day_limit, &next.day_limit)
            && lower(&self.agree_over, &next.agree_over)
            && lower(&self.both_agree_over, &next.both_agree_over)
            && tiers
            && addresses
            && self.blocked_categories.is_subset(&next.blocked_categories)
            && self.blocked_payees.is_subset(&next.blocked_payees)
    }
}

impl Guardianship {
    /// A new one: whoever opens an account for a ward makes it, not the ward.
    pub fn new(
        id: GuardianshipId,
        ward: CustomerId,
        guardian: CustomerId,
        second: Option<CustomerId>,
        rules: WardRules,
        ends_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, GuardianError> {
        rules.check()?;
        if ward == guardian || second.as_ref().is_some_and(|s| *s == ward || *s == guardian) {
            return Err(GuardianError::Oneself);
        }
        if ends_at.is_some_and(|at| at <= now) {
            return Err(GuardianError::Senseless("its last day is past".into()));
        }
        Ok(Self {
            id,
            ward,
            guardian,
            second,
            rules,
            proposed: None,
            frozen: false,
            ends_at,
            ended_at: None,
            created_at: now,
            version: 0,
        })
    }

    /// Whether it holds at `now`.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.ended_at.is_none() && self.ends_at.is_none_or(|at| now < at)
    }

    /// How many look after the ward.
    pub fn guardians(&self) -> u8 {
        if self.second.is_some() { 2 } else { 1 }
    }

    /// Whether this is one of them.
    pub fn is_guardian(&self, who: &CustomerId) -> bool {
        self.guardian == *who || self.second.as_ref() == Some(who)
    }

    /// A change that `actor` wants, at `now`.
    pub fn edit(mut self, now: Timestamp, actor: &CustomerId, change: Change) -> Result<(Self, Edited), GuardianError> {
        if !self.is_guardian(actor) {
            return Err(GuardianError::NotAGuardian);
        }
        if !self.holds(now) {
            return Err(GuardianError::Over);
        }
        if let Change::Rules { rules } = &change {
            rules.check()?;
        }
        let other = |p: &Proposal| p.by != *actor;
        match change {
            Change::Agree => {
                let agreed = self.proposed.take().filter(other).ok_or(GuardianError::NothingProposed)?;
                self.apply(now, agreed.change)?;
            }
            Change::Disagree => {
                self.proposed.take().ok_or(GuardianError::NothingProposed)?;
            }
            change if self.second.is_some() && self.loosens(&change) => {
                self.proposed = Some(Proposal { by: actor.clone(), at: now, change });
                self.version = self.version.saturating_add(1);
                return Ok((self, Edited::Proposed));
            }
            change => self.apply(now, change)?,
        }
        self.version = self.version.saturating_add(1);
        Ok((self, Edited::Done))
    }

    fn loosens(&self, change: &Change) -> bool {
        match change {
            Change::Rules { rules } => !self.rules.kept_by(rules),
            Change::Thaw | Change::End => true,
            Change::EndsAt { at } => match (self.ends_at, at) {
                (None, Some(_)) => true,
                (Some(now), Some(then)) => *then < now,
                (_, None) => false,
            },
            Change::Freeze | Change::AddSecond { .. } | Change::Agree | Change::Disagree => false,
        }
    }

    fn apply(&mut self, now: Timestamp, change: Change) -> Result<(), GuardianError> {
        match change {
            Change::Rules { rules } => self.rules = rules,
            Change::Freeze => self.frozen = true,
            Change::Thaw => self.frozen = false,
            Change::EndsAt { at } if at.is_some_and(|at| at <= now) => {
                return Err(GuardianError::Senseless("its last day is past; to end it now, end it".into()));
            }
            Change::EndsAt { at } => self.ends_at = at,
            Change::AddSecond { guardian } if self.is_guardian(&guardian) || guardian == self.ward => {
                return Err(GuardianError::Oneself);
            }
            Change::AddSecond { .. } if self.second.is_some() => return Err(GuardianError::TwoAlready),
            Change::AddSecond { guardian } => self.second = Some(guardian),
            Change::End => self.ended_at = Some(now),
            Change::Agree | Change::Disagree => return Err(GuardianError::NothingProposed),
        }
        Ok(())
    }

    /// What it puts into the facts of a payment of its ward: bounds, who there is, and which addresses are known.
    pub fn colour(&self, facts: &mut Facts) {
        if !self.holds(facts.now) {
            return;
        }
        facts.guardians = facts.guardians.max(self.guardians());
        for (currency, bounds) in &self.rules.tiers {
            let tier = facts.tiers.entry(*currency).or_insert(*bounds);
            *tier = tier.stricter(*bounds);
        }
        if let (Delivery::To(mark), false) = (&facts.delivery, self.rules.addresses.is_empty()) {
            facts.address_known = self.rules.addresses.contains(mark);
        }
    }

    /// On which conditions a payment of its ward may be charged; the policy's come on top.
    pub fn terms(&self, facts: &Facts, policy_version: &str) -> Terms {
        let mut terms = Terms::free(policy_version);
        if !self.holds(facts.now) {
            return terms;
        }
        let over = |limits: &BTreeMap<Currency, i64>, minor: i64| limits.get(&facts.amount.currency).is_some_and(|l| minor > *l);
        let minor = facts.amount.minor.get();
        let blocked = facts.category.as_ref().is_some_and(|c| self.rules.blocked_categories.contains(c));
        for (rule, denies) in [
            ("guardian: frozen", self.frozen),
            ("guardian: payee", self.rules.blocked_payees.contains(&facts.payee)),
            ("guardian: category", blocked),
            ("guardian: payment limit", over(&self.rules.payment_limit, minor)),
            ("guardian: day limit", over(&self.rules.day_limit, facts.in_all_24h())),
        ] {
            if denies {
                terms.denied_by.get_or_insert_with(|| rule.to_owned());
                terms.because.push(Because { rule: rule.into(), asks: Conditions::default(), denies: true });
            }
        }
        // What goes to one payee in a day counts as one payment: splitting does not help.
        let sum = facts.to_payee_24h();
        let asks = [
            ("guardian: agrees", over(&self.rules.agree_over, sum), Condition::Guardian),
            ("guardian: both agree", over(&self.rules.both_agree_over, sum) && self.second.is_some(), Condition::SecondGuardian),
        ];
        for (rule, _, condition) in asks.into_iter().filter(|(_, asked, _)| *asked) {
            // Both means the first one, too.
            let asks = Conditions::from_iter([Condition::Guardian, condition]);
            terms.conditions.extend(asks.iter());
            terms.because.push(Because { rule: rule.into(), asks, denies: false });
        }
        terms
    }
}

#[cfg(test)]
mod tests;
