//! The factor policy: rules as data that say on which conditions a payment may be charged. [`Policy::from_toml`] reads a file whole or
//! refuses it whole; [`Policy::terms`] asks it. Deny wins, and of two rules that apply both count, so that the stricter wins.
//!
//! A payment's tier goes by what the payee gets in 24 hours with it, so that splitting does not help; goods that go to an address that
//! is not known are never small.

mod check;
mod facts;
mod index;
mod overlap;
mod read;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use facts::{Address, Attested, Channel, Facts, History};
pub use read::PolicyFault;
pub use rule::Rule;

use self::index::Index;
use super::conditions::Conditions;
use super::terms::{Because, Condition, Terms};
use crate::money::Currency;

/// The rules that come with the program.
pub const DEFAULT: &str = include_str!("../../../config/policy.toml");

/// The name under which a currency that nothing may be paid in is refused.
pub const CURRENCY_RULE: &str = "currency";

/// Rules that were read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    version: String,
    sha256: String,
    tiers: BTreeMap<Currency, Bounds>,
    rules: Vec<Rule>,
    index: Index,
}

/// How large a payment is, for the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Up to the first bound, and where nothing is delivered or to a known address.
    Small,
    /// Up to the second.
    Normal,
    /// Above.
    Large,
}

impl Tier {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Small, Self::Normal, Self::Large];

    /// As rules write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Normal => "normal",
            Self::Large => "large",
        }
    }
}

/// Where tiers end, in minor units; an amount of exactly a bound is still below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Small up to this.
    pub small: i64,
    /// Normal up to this.
    pub normal: i64,
}

impl Bounds {
    /// The stricter of both.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self { small: self.small.min(other.small), normal: self.normal.min(other.normal) }
    }

    fn tier_of(self, minor: i64) -> Tier {
        match () {
            () if minor <= self.small => Tier::Small,
            () if minor <= self.normal => Tier::Normal,
            () => Tier::Large,
        }
    }
}

impl Policy {
    /// The rules that come with the program.
    pub fn compiled_in() -> Result<Self, PolicyFault> {
        Self::from_toml(DEFAULT)
    }

    /// What its author calls it; goes on receipts.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// SHA-256 of the text that was read, in hex: of two files with one version it is known which is in force.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Where the tiers of a currency end; `None`: nothing may be paid in it.
    pub fn bounds(&self, currency: Currency) -> Option<Bounds> {
        self.tiers.get(&currency).copied()
    }

    /// How large a payment is; `None` where its currency has no tiers.
    pub fn tier(&self, facts: &Facts) -> Option<Tier> {
        let currency = facts.amount.currency;
        let ours = self.bounds(currency)?;
        let bounds = facts.tiers.get(&currency).map_or(ours, |theirs| ours.stricter(*theirs));
        let tier = bounds.tier_of(facts.to_payee_24h());
        Some(match facts.address() {
            Address::NoGoods | Address::Known => tier,
            Address::New | Address::Missing => tier.max(Tier::Normal),
        })
    }

    /// On which conditions this may be charged.
    pub fn terms(&self, facts: &Facts) -> Terms {
        let mut terms = Terms::free(&self.version);
        let Some(tier) = self.tier(facts) else {
            terms.denied_by = Some(CURRENCY_RULE.to_owned());
            terms.because.push(Because { rule: CURRENCY_RULE.into(), asks: Conditions::default(), denies: true });
            return terms;
        };
        let possible: Conditions = Condition::ALL.into_iter().filter(|c| can_be_met(*c, facts)).collect();
        let looked_at = self.index.candidates(facts, tier).filter_map(|place| Some((place, self.rules.get(place)?)));
        let mut apply: Vec<(usize, &Rule)> = looked_at.filter(|(_, rule)| rule.applies(facts, tier)).collect();
        // Most of what is looked at does not apply: only what does is put into the order of the file.
        apply.sort_unstable_by_key(|(place, _)| *place);
        terms.because.reserve_exact(apply.len());
        let mut asked = Conditions::default();
        for (_, rule) in apply {
            let asks = rule.asks & possible;
            if rule.denies && terms.denied_by.is_none() {
                terms.denied_by = Some(rule.name.to_string());
            }
            asked = asked | asks;
            terms.because.push(Because { rule: rule.name.clone(), asks, denies: rule.denies });
        }
        terms.conditions.extend(asked.iter());
        terms
    }
}

/// Who has no guardian is not asked for one: a rule that wants it so denies `guarded = false`.
fn can_be_met(condition: Condition, facts: &Facts) -> bool {
    match condition {
        Condition::Guardian => facts.guardians >= 1,
        Condition::SecondGuardian => facts.guardians >= 2,
        Condition::Supervisor => facts.supervised,
        Condition::FreshDigits | Condition::Code => true,
    }
}
