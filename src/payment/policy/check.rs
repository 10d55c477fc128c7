//! Whether rules make sense together: every currency is spoken of, no rule is idle or contradicts another, and a large payment always needs
//! something.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::read::{Places, PolicyFault};
use super::rule::{Rule, When};
use super::{Attested, Bounds, Channel, Facts, Policy, Tier};
use crate::clock::Timestamp;
use crate::ids::PayeeId;
use crate::money::{Currency, Money};
use crate::payment::{AddressMark, Delivery};

/// Rules that a file may hold.
pub(super) const RULE_LIMIT: usize = 10_000;

/// Each currency has tiers or is refused, and not both.
pub(super) fn currencies(
    places: &Places<'_>,
    at: usize,
    tiers: &BTreeMap<Currency, Bounds>,
    refused: &BTreeSet<Currency>,
) -> Result<(), PolicyFault> {
    for currency in Currency::ALL {
        match (tiers.contains_key(&currency), refused.contains(&currency)) {
            (true, false) | (false, true) => {}
            (true, true) => {
                let what = format!("contradiction: {currency} has tiers and stands in `refused_currencies`");
                return Err(places.fault(at, what));
            }
            (false, false) => {
                let what = format!("hole: {currency} has no tiers; give it some, or name it in `refused_currencies`");
                return Err(places.fault(at, what));
            }
        }
    }
    Ok(())
}

/// Each name once, each rule able to apply, none against another under the very same conditions.
pub(super) fn rules(places: &Places<'_>, tiers: &BTreeMap<Currency, Bounds>, rules: &[(usize, Rule)]) -> Result<(), PolicyFault> {
    if let Some((at, _)) = rules.get(RULE_LIMIT) {
        return Err(places.fault(*at, format!("more than {RULE_LIMIT} rules")));
    }
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut seen: HashMap<String, &Rule> = HashMap::new();
    for (at, rule) in rules {
        let fault = |what: String| places.fault(*at, format!("rule `{}`: {what}", rule.name));
        if names.insert(rule.name.as_str(), *at).is_some() {
            return Err(fault("another rule has this name".to_owned()));
        }
        if rule.when.always() && rule.denies {
            return Err(fault("it denies every payment: write under `when` which".to_owned()));
        }
        if let Some(why) = idle(&rule.when, tiers) {
            return Err(fault(format!("it can never apply: {why}")));
        }
        // Sets and maps are ordered, so that the same conditions print alike.
        if let Some(other) = seen.insert(format!("{:?}", rule.when), rule) {
            let what = match other.denies == rule.denies {
                true => format!("`{}` has the very same `when`: make one rule of both", other.name),
                false => {
                    format!("contradiction: `{}` has the very same `when`, and one denies what the other asks for", other.name)
                }
            };
            return Err(fault(what));
        }
    }
    Ok(())
}

/// Why such a rule never applies, if so.
fn idle(when: &When, tiers: &BTreeMap<Currency, Bounds>) -> Option<String> {
    for (key, limits) in [("amount_over", &when.amount_over), ("payee_day_over", &when.payee_day_over)] {
        if limits.is_empty() {
            continue;
        }
        let could = limits.iter().any(|(currency, limit)| {
            let Some(bounds) = tiers.get(currency) else { return false };
            // An amount above the limit lies in this tier or a higher one.
            let least = bounds.tier_of(limit.saturating_add(1));
            when.tier.is_empty() || when.tier.iter().any(|t| *t >= least)
        });
        if !could {
            return Some(format!("what is above `{key}` is in none of its tiers, or its currency is refused"));
        }
    }
    if when.day_over.keys().any(|c| tiers.contains_key(c)) || when.day_over.is_empty() {
        None
    } else {
        Some("`day_over` names refused currencies only".to_owned())
    }
}

/// A large payment that needs nothing and is not denied is a hole: nobody meant it. Tried for every way to pay, on the mildest of terms:
/// paid often before, nothing failed, nobody looks after the payer, of no category.
pub(super) fn holes(places: &Places<'_>, at: usize, policy: &Policy) -> Result<(), PolicyFault> {
    let Ok(payee) = PayeeId::parse("pay_0") else { return Ok(()) };
    for (currency, bounds) in &policy.tiers {
        let Ok(amount) = Money::new(bounds.normal.saturating_add(1), *currency) else { continue };
        let mut plain = Facts::plain(Timestamp(0), amount, payee.clone());
        (plain.history.paid_before, plain.history.paid_before_payee) = (u32::MAX, u32::MAX);
        for facts in ways(&plain) {
            let terms = policy.terms(&facts);
            if terms.denied() || !terms.conditions.is_empty() || policy.tier(&facts) != Some(Tier::Large) {
                continue;
            }
            let what = format!(
                "hole: a large payment in {currency} {} needs nothing and is not denied; write a rule for it",
                way(&facts)
            );
            return Err(places.fault(at, what));
        }
    }
    Ok(())
}

fn ways(plain: &Facts) -> impl Iterator<Item = Facts> {
    Channel::ALL.into_iter().flat_map(move |channel| {
        let attested: &[Attested] = match channel {
            Channel::Telephone => &[Attested::Vouched, Attested::Unvouched, Attested::Disputed],
            Channel::App | Channel::Api => &[Attested::NotACall],
        };
        let deliveries = [(Delivery::None, false), (Delivery::To(AddressMark::of(&[0; 32])), true), (Delivery::Nowhere, false)];
        attested.iter().flat_map(move |attestation| {
            let deliveries = deliveries.clone();
            deliveries.into_iter().flat_map(move |(delivery, address_known)| {
                [None, Some(true), Some(false)].into_iter().flat_map(move |device_known| {
                    let (delivery, attestation) = (delivery.clone(), *attestation);
                    [false, true].map(move |by_mandate| Facts {
                        channel,
                        attestation,
                        delivery: delivery.clone(),
                        address_known,
                        device_known,
                        by_mandate,
                        ..plain.clone()
                    })
                })
            })
        })
    })
}

/// In the words of rules.
fn way(facts: &Facts) -> String {
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let channel = serde_json::to_value(facts.channel).map(word).unwrap_or_default();
    let attestation = serde_json::to_value(facts.attestation).map(word).unwrap_or_default();
    let address = serde_json::to_value(facts.address()).map(word).unwrap_or_default();
    let device = facts.device_known.map(|known| format!(", device_known = {known}")).unwrap_or_default();
    format!("(channel {channel}, attestation {attestation}, address {address}{device}, mandate = {})", facts.by_mandate)
}
