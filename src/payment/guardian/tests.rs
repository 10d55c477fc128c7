//! System 6: who may change what, and what a ward may pay.

use super::*;
use crate::clock::SeededEntropy;
use crate::money::Money;

struct House {
    ward: CustomerId,
    mother: CustomerId,
    father: CustomerId,
    payee: PayeeId,
}

fn house() -> House {
    let e = SeededEntropy::new(1);
    let id = || CustomerId::fresh(&e);
    House { ward: id(), mother: id(), father: id(), payee: PayeeId::fresh(&e) }
}

fn usd(limit: i64) -> BTreeMap<Currency, i64> {
    [(Currency::Usd, limit)].into()
}

impl House {
    fn rules() -> WardRules {
        WardRules {
            payment_limit: usd(5_000),
            day_limit: usd(8_000),
            agree_over: usd(2_000),
            both_agree_over: usd(4_000),
            blocked_categories: ["gambling".parse().unwrap()].into(),
            ..WardRules::default()
        }
    }

    fn guardianship(&self, second: bool) -> Guardianship {
        let id = GuardianshipId::fresh(&SeededEntropy::new(2));
        let second = second.then(|| self.father.clone());
        let (ward, mother) = (self.ward.clone(), self.mother.clone());
        Guardianship::new(id, ward, mother, second, Self::rules(), Some(Timestamp(1_000)), Timestamp(0)).unwrap()
    }

    fn facts(&self, minor: i64) -> Facts {
        Facts::plain(Timestamp(1), Money::new(minor, Currency::Usd).unwrap(), self.payee.clone())
    }
}

#[test]
fn limits_change_one_minor_unit_above_them() {
    let house = house();
    let g = house.guardianship(true);
    let of = |minor| g.terms(&house.facts(minor), "1");
    assert_eq!(of(2_000), Terms::free("1"));
    assert_eq!(of(2_001).conditions, [Condition::Guardian].into());
    assert_eq!(of(4_000).conditions, [Condition::Guardian].into());
    assert_eq!(of(4_001).conditions, [Condition::Guardian, Condition::SecondGuardian].into());
    assert!(!of(5_000).denied());
    assert_eq!(of(5_001).denied_by.as_deref(), Some("guardian: payment limit"));
}

#[test]
fn sums_of_a_day_count() {
    let house = house();
    let g = house.guardianship(false);
    let mut facts = house.facts(1_000);
    (facts.history.spent_24h, facts.history.spent_24h_payee) = (7_000, 1_001);
    let terms = g.terms(&facts, "1");
    assert!(!terms.denied());
    assert_eq!(terms.conditions, [Condition::Guardian].into(), "split in two it is still one");
    facts.history.spent_24h = 7_001;
    assert_eq!(g.terms(&facts, "1").denied_by.as_deref(), Some("guardian: day limit"));
}

#[test]
fn blocked_payees_and_categories_are_denied_and_a_freeze_denies_all() {
    let house = house();
    let g = house.guardianship(false);
    let gambling = Facts { category: Some("gambling".parse().unwrap()), ..house.facts(1) };
    assert!(g.terms(&gambling, "1").denied());
    let rules = WardRules { blocked_payees: [house.payee.clone()].into(), ..House::rules() };
    let (blocked, _) = g.clone().edit(Timestamp(2), &house.mother, Change::Rules { rules }).unwrap();
    assert!(blocked.terms(&house.facts(1), "1").denied());
    let (frozen, _) = g.edit(Timestamp(2), &house.mother, Change::Freeze).unwrap();
    assert_eq!(frozen.terms(&house.facts(1), "1").denied_by.as_deref(), Some("guardian: frozen"));
}

#[test]
fn the_ward_and_strangers_change_nothing() {
    let house = house();
    let g = house.guardianship(true);
    for who in [&house.ward, &CustomerId::fresh(&SeededEntropy::new(9))] {
        for change in [Change::Freeze, Change::Thaw, Change::End, Change::Agree, Change::Rules { rules: WardRules::default() }] {
            assert_eq!(g.clone().edit(Timestamp(2), who, change).unwrap_err(), GuardianError::NotAGuardian);
        }
    }
}

#[test]
fn what_tightens_holds_at_once_and_what_loosens_needs_both() {
    let house = house();
    let g = house.guardianship(true);
    let tight = WardRules { payment_limit: usd(100), ..House::rules() };
    let (g, done) = g.edit(Timestamp(2), &house.father, Change::Rules { rules: tight.clone() }).unwrap();
    assert_eq!((done, &g.rules), (Edited::Done, &tight));
    let loose = WardRules::default();
    let (g, done) = g.edit(Timestamp(3), &house.mother, Change::Rules { rules: loose.clone() }).unwrap();
    assert_eq!((done, &g.rules), (Edited::Proposed, &tight));
    // Not by the one who proposed it.
    assert_eq!(g.clone().edit(Timestamp(4), &house.mother, Change::Agree).unwrap_err(), GuardianError::NothingProposed);
    let (kept, _) = g.clone().edit(Timestamp(4), &house.father, Change::Disagree).unwrap();
    assert_eq!((&kept.rules, &kept.proposed), (&tight, &None));
    let (g, done) = g.edit(Timestamp(4), &house.father, Change::Agree).unwrap();
    assert_eq!((done, g.rules, g.proposed), (Edited::Done, loose, None));
}

#[test]
fn freezing_needs_one_and_thawing_both() {
    let house = house();
    let (g, done) = house.guardianship(true).edit(Timestamp(2), &house.father, Change::Freeze).unwrap();
    assert_eq!((done, g.frozen), (Edited::Done, true));
    let (g, done) = g.edit(Timestamp(3), &house.father, Change::Thaw).unwrap();
    assert_eq!((done, g.frozen), (Edited::Proposed, true));
    let (g, _) = g.edit(Timestamp(4), &house.mother, Change::Agree).unwrap();
    assert!(!g.frozen);
    let (g, done) = house.guardianship(false).edit(Timestamp(2), &house.mother, Change::Thaw).unwrap();
    assert_eq!((done, g.version), (Edited::Done, 1));
}

#[test]
fn coming_of_age_ends_it() {
    let house = house();
    let g = house.guardianship(false);
    let at = |now| g.terms(&Facts { now: Timestamp(now), ..house.facts(9_999) }, "1");
    assert!(at(999).denied());
    assert_eq!(at(1_000), Terms::free("1"));
    assert_eq!(g.clone().edit(Timestamp(1_000), &house.mother, Change::Freeze).unwrap_err(), GuardianError::Over);
    // Sooner is looser: with two guardians it is proposed; later is not.
    let two = house.guardianship(true);
    let sooner = Change::EndsAt { at: Some(Timestamp(500)) };
    assert_eq!(two.clone().edit(Timestamp(2), &house.mother, sooner).unwrap().1, Edited::Proposed);
    assert_eq!(two.edit(Timestamp(2), &house.mother, Change::EndsAt { at: None }).unwrap().1, Edited::Done);
}

#[test]
fn only_listed_addresses_are_known_once_any_are() {
    let house = house();
    let (home, away) = (AddressMark::of(&[1; 32]), AddressMark::of(&[2; 32]));
    let to = |mark: &AddressMark| Facts { delivery: Delivery::To(mark.clone()), address_known: true, ..house.facts(1) };
    let mut facts = to(&away);
    house.guardianship(false).colour(&mut facts);
    assert!(facts.address_known);
    let rules = WardRules { addresses: [home.clone()].into(), ..House::rules() };
    let (g, _) = house.guardianship(false).edit(Timestamp(2), &house.mother, Change::Rules { rules }).unwrap();
    let (mut known, mut new) = (to(&home), to(&away));
    g.colour(&mut known);
    g.colour(&mut new);
    assert!(known.address_known && !new.address_known && known.guardians == 1);
}

#[test]
fn nobody_is_their_own_guardian_or_one_twice() {
    let house = house();
    let new = |guardian: &CustomerId, second: Option<&CustomerId>| {
        let id = GuardianshipId::fresh(&SeededEntropy::new(2));
        let (ward, guardian) = (house.ward.clone(), guardian.clone());
        Guardianship::new(id, ward, guardian, second.cloned(), WardRules::default(), None, Timestamp(0)).map(|g| g.version)
    };
    assert_eq!(new(&house.mother, Some(&house.father)), Ok(0));
    for (guardian, second) in [(&house.ward, None), (&house.mother, Some(&house.ward)), (&house.mother, Some(&house.mother))] {
        assert_eq!(new(guardian, second), Err(GuardianError::Oneself));
    }
    let add = |who: &CustomerId| Change::AddSecond { guardian: who.clone() };
    let one = house.guardianship(false);
    assert_eq!(one.clone().edit(Timestamp(1), &house.mother, add(&house.ward)).unwrap_err(), GuardianError::Oneself);
    let (two, _) = one.edit(Timestamp(1), &house.mother, add(&house.father)).unwrap();
    assert_eq!(two.guardians(), 2);
    let third = CustomerId::fresh(&SeededEntropy::new(7));
    assert_eq!(two.edit(Timestamp(2), &house.mother, add(&third)).unwrap_err(), GuardianError::TwoAlready);
}

#[test]
fn senseless_rules_are_refused() {
    let house = house();
    for rules in [
        WardRules { day_limit: usd(-1), ..WardRules::default() },
        WardRules { tiers: [(Currency::Usd, Bounds { small: 2, normal: 1 })].into(), ..WardRules::default() },
        WardRules {
            blocked_categories: (0..=LIST_LIMIT).map(|n| format!("c{n}").parse().unwrap()).collect(),
            ..WardRules::default()
        },
    ] {
        let error = house.guardianship(false).edit(Timestamp(1), &house.mother, Change::Rules { rules }).unwrap_err();
        assert!(matches!(error, GuardianError::Senseless(_)), "{error}");
    }
}
