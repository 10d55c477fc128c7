//! Rules that stand in each other's way: one that a wider rule makes pointless. Rules only add up, so a rule within another one that
//! denies, or that asks for the same and more, says nothing; whoever wrote it meant something else.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Index;
use super::read::{Places, PolicyFault};
use super::rule::{Rule, When};
use super::{Address, Attested, Channel, Tier};
use crate::money::Currency;

/// No rule that another one makes pointless.
pub(super) fn rules(places: &Places<'_>, index: &Index, rules: &[(usize, Rule)]) -> Result<(), PolicyFault> {
    for (place, (at, rule)) in rules.iter().enumerate() {
        let others = index.wider(&rule.when).into_iter().filter(|other| *other != place);
        for other in others.filter_map(|other| rules.get(other)).map(|(_, other)| other) {
            if !rule.when.within(&other.when) {
                continue;
            }
            let what = match (rule.denies, other.denies) {
                (false, true) => format!("contradiction: `{}` denies whatever it asks something of", other.name),
                (true, true) => format!("overlap: `{}` denies all that it denies", other.name),
                (false, false) if rule.asks.within(other.asks) => {
                    format!("overlap: wherever it applies `{}` asks for the same", other.name)
                }
                (false, false) | (true, false) => continue,
            };
            return Err(places.fault(*at, format!("rule `{}`: {what}", rule.name)));
        }
    }
    Ok(())
}

impl When {
    /// Whether `wide` holds wherever this holds. Never says so wrongly; what it does not see through is no overlap.
    fn within(&self, wide: &Self) -> bool {
        let flag = |ours: Option<bool>, wide: Option<bool>| wide.is_none() || ours == wide;
        let below = |ours: Option<u32>, wide: Option<u32>| wide.is_none_or(|w| ours.is_some_and(|o| o <= w));
        chosen(&self.tier, &wide.tier, &Tier::ALL)
            && listed(&self.payee, &wide.payee)
            && listed(&self.category, &wide.category)
            && chosen(&self.channel, &wide.channel, &Channel::ALL)
            && chosen(&self.address, &wide.address, &Address::ALL)
            && chosen(&self.attestation, &wide.attestation, &Attested::ALL)
            && flag(self.device_known, wide.device_known)
            && flag(self.mandate, wide.mandate)
            && flag(self.guarded, wide.guarded)
            && flag(self.supervised, wide.supervised)
            && over(&self.amount_over, &wide.amount_over)
            && over(&self.day_over, &wide.day_over)
            && over(&self.payee_day_over, &wide.payee_day_over)
            && below(self.paid_before_below, wide.paid_before_below)
            && below(self.paid_before_payee_below, wide.paid_before_payee_below)
            && wide.failures_24h_over.is_none_or(|w| self.failures_24h_over.is_some_and(|o| o >= w))
    }
}

/// A list of which there are only so many; an empty one is all of them.
fn chosen<T: Ord>(ours: &BTreeSet<T>, wide: &BTreeSet<T>, all: &[T]) -> bool {
    let in_wide = |one: &T| wide.is_empty() || wide.contains(one);
    if ours.is_empty() { all.iter().all(in_wide) } else { ours.iter().all(in_wide) }
}

fn listed<T: Ord>(ours: &BTreeSet<T>, wide: &BTreeSet<T>) -> bool {
    wide.is_empty() || (!ours.is_empty() && ours.is_subset(wide))
}

fn over(ours: &BTreeMap<Currency, i64>, wide: &BTreeMap<Currency, i64>) -> bool {
    let each = |(currency, limit): (&Currency, &i64)| wide.get(currency).is_some_and(|w| w <= limit);
    wide.is_empty() || (!ours.is_empty() && ours.iter().all(each))
}
