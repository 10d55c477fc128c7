//! Which rules could apply to a payment, without looking at every rule: most rules of a long file are about some payees or categories, or
//! about one tier. Whatever is left out here would not have applied.

use std::collections::HashMap;

use super::rule::{Rule, When};
use super::{Facts, Tier};
use crate::ids::{Category, PayeeId};

/// Rules by what they are about; numbers are places in the file, each list in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    payees: HashMap<PayeeId, Vec<usize>>,
    categories: HashMap<Category, Vec<usize>>,
    /// Of the others, those that may apply to a payment of this tier.
    tiers: HashMap<Tier, Vec<usize>>,
}

impl Index {
    /// Of these rules.
    pub(super) fn of<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Self {
        let mut index = Self::default();
        for (place, rule) in rules.into_iter().enumerate() {
            index.add(place, &rule.when);
        }
        index
    }

    fn add(&mut self, place: usize, when: &When) {
        if !when.payee.is_empty() {
            for payee in &when.payee {
                self.payees.entry(payee.clone()).or_default().push(place);
            }
        } else if !when.category.is_empty() {
            for category in &when.category {
                self.categories.entry(category.clone()).or_default().push(place);
            }
        } else {
            for tier in Tier::ALL.into_iter().filter(|t| when.tier.is_empty() || when.tier.contains(t)) {
                self.tiers.entry(tier).or_default().push(place);
            }
        }
    }

    /// Places of rules that could apply, of each list in the order of the file.
    pub(super) fn candidates(&self, facts: &Facts, tier: Tier) -> impl Iterator<Item = usize> {
        let category = facts.category.as_ref().and_then(|c| self.categories.get(c));
        let lists = [self.payees.get(&facts.payee), category, self.tiers.get(&tier)];
        lists.into_iter().flatten().flatten().copied()
    }

    /// Places of rules whose `when` could hold wherever this one holds, itself among them.
    pub(super) fn wider(&self, when: &When) -> Vec<usize> {
        // Such a rule names each payee, category or tier that this one names, or none at all: one of each will do to find it.
        let payee = when.payee.first().and_then(|p| self.payees.get(p));
        let category = when.category.first().and_then(|c| self.categories.get(c));
        let tier = when.tier.first().copied().unwrap_or(Tier::Small);
        let lists = [payee, category, self.tiers.get(&tier)];
        lists.into_iter().flatten().flatten().copied().collect()
    }
}
