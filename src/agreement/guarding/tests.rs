//! The cases of system 6, on both databases: tiers and their thresholds, split payments, addresses, and what guardians may do and wards not.

mod house;

use std::collections::BTreeMap;
use std::time::Duration;

use house::{HOUR, House, START, charged, denied, on_both};

use super::*;
use crate::agreement::Agreed;
use crate::payment::policy::Tier;
use crate::payment::{AddressMark, ApprovalState, Condition, Delivery, How};

on_both!(
    tiers_change_one_minor_unit_above_their_bounds,
    what_is_split_is_judged_as_one,
    what_was_declined_or_is_a_day_old_does_not_count,
    of_payments_at_once_no_two_pass_a_limit_that_one_fills,
    an_address_is_known_once_goods_that_were_paid_went_there,
    a_guardian_is_told_of_every_payment_and_refusal_once,
    a_payment_that_a_guardian_has_to_agree_to_waits_and_is_charged_once,
    a_guardian_says_no_and_nothing_is_charged,
    deny_wins_over_a_guardians_yes,
    neither_the_ward_nor_a_stranger_changes_anything,
    what_loosens_needs_both_guardians,
    coming_of_age_ends_it,
);

const NOTHING: [Condition; 0] = [];
const OWN: [Condition; 2] = [Condition::FreshDigits, Condition::Code];

fn usd(limit: i64) -> BTreeMap<Currency, i64> {
    BTreeMap::from([(Currency::Usd, limit)])
}

fn home() -> Delivery {
    Delivery::To(AddressMark::of(&[1; 32]))
}

fn link() -> How {
    How::Link
}

async fn tiers_change_one_minor_unit_above_their_bounds(house: House) {
    for (minor, tier) in
        [(2_000, Tier::Small), (2_001, Tier::Normal), (49_999, Tier::Normal), (50_000, Tier::Normal), (50_001, Tier::Large)]
    {
        let asked = house.ask(&house.request(&house.water, minor, Delivery::None).await).await;
        assert_eq!(house.agreements.policy().tier(&asked.facts), Some(tier), "{minor}");
    }
    assert_eq!(house.wanted(&house.water, 50_000, Delivery::None).await, NOTHING);
    assert_eq!(house.wanted(&house.water, 50_001, Delivery::None).await, OWN);
    house.guarded(false, WardRules::default(), None).await;
    let with_guardian = [Condition::FreshDigits, Condition::Code, Condition::Guardian];
    assert_eq!(house.wanted(&house.water, 50_001, Delivery::None).await, with_guardian);
}

async fn what_is_split_is_judged_as_one(house: House) {
    charged(house.pays(&house.water, 30_000, Delivery::None, &house.card).await);
    assert_eq!(house.wanted(&house.water, 20_000, Delivery::None).await, NOTHING);
    assert_eq!(house.wanted(&house.water, 20_001, Delivery::None).await, OWN);
    // Somebody else's bill is another payment; the sum of the day is for that.
    assert_eq!(house.wanted(&house.shop, 20_001, Delivery::None).await, NOTHING);
    house.guarded(false, WardRules { day_limit: usd(50_000), ..WardRules::default() }, None).await;
    assert!(!house.ask(&house.request(&house.shop, 20_000, Delivery::None).await).await.terms.denied());
    assert_eq!(denied(house.pays(&house.shop, 20_001, Delivery::None, &house.card).await), "guardian: day limit");
    assert_eq!(house.charges(), 1);
}

async fn what_was_declined_or_is_a_day_old_does_not_count(house: House) {
    charged(house.pays(&house.water, 30_000, Delivery::None, &house.bad_card).await);
    assert_eq!((house.charges(), house.wanted(&house.water, 50_000, Delivery::None).await), (0, vec![]));
    charged(house.pays(&house.water, 30_000, Delivery::None, &house.card).await);
    house.clock.advance(HOUR * 24);
    assert_eq!(house.wanted(&house.water, 20_001, Delivery::None).await, OWN);
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(house.wanted(&house.water, 20_001, Delivery::None).await, NOTHING);
}

async fn of_payments_at_once_no_two_pass_a_limit_that_one_fills(house: House) {
    house.guarded(false, WardRules { day_limit: usd(8_000), ..WardRules::default() }, None).await;
    let house = std::sync::Arc::new(house);
    let mut at_once = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let request = house.request(&house.water, 5_000, Delivery::None).await;
        let (house, order) = (house.clone(), house.order(&request, &house.card));
        at_once.spawn(async move { house.yes(&order).await });
    }
    let all = at_once.join_all().await;
    let passed = all.iter().filter(|a| matches!(a, Agreed::Charged(_))).count();
    house.settle().await;
    assert_eq!((passed, house.charges()), (1, 1), "{all:?}");
    let rules = all.into_iter().filter(|a| !matches!(a, Agreed::Charged(_))).map(denied);
    assert!(rules.into_iter().all(|rule| rule == "guardian: day limit"));
}

async fn an_address_is_known_once_goods_that_were_paid_went_there(house: House) {
    assert_eq!(house.wanted(&house.shop, 100, home()).await, [Condition::FreshDigits]);
    assert_eq!(house.wanted(&house.shop, 100, Delivery::Nowhere).await, [Condition::FreshDigits]);
    // Small, and to a new address: normal.
    let asked = house.ask(&house.request(&house.shop, 100, home()).await).await;
    assert_eq!(house.agreements.policy().tier(&asked.facts), Some(Tier::Normal));
    charged(house.pays(&house.shop, 100, home(), &house.card).await);
    assert_eq!(house.wanted(&house.shop, 100, home()).await, NOTHING);
    assert_eq!(house.wanted(&house.shop, 100, Delivery::Nowhere).await, [Condition::FreshDigits]);
    // Once a guardian lists addresses, what the ward ordered before counts no longer.
    let other = AddressMark::of(&[2; 32]);
    house.guarded(false, WardRules { addresses: [other.clone()].into(), ..WardRules::default() }, None).await;
    assert_eq!(house.wanted(&house.shop, 100, home()).await, [Condition::FreshDigits]);
    assert_eq!(house.wanted(&house.shop, 100, Delivery::To(other)).await, NOTHING);
}

/// What waits for delivery is in the database: nobody who delivers has to be there when it happens.
async fn a_guardian_is_told_of_every_payment_and_refusal_once(house: House) {
    let g = house.guarded(true, WardRules { payment_limit: usd(5_000), ..WardRules::default() }, None).await;
    let request = house.request(&house.water, 5_000, Delivery::None).await;
    let order = house.order(&request, &house.card);
    let intent = charged(house.yes(&order).await);
    assert_eq!(charged(house.yes(&order).await), intent, "the same yes again");
    let told = house.news("guardian.payment").await;
    assert_eq!(told.len(), 1, "{told:?}");
    let says = |key: &str| told[0].payload[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (says("intent"), says("guardian"), says("second")),
        (intent.to_string(), g.guardian.to_string(), house.father.to_string())
    );
    assert_eq!(told[0].payload["amount_minor"], 5_000);
    let rule = denied(house.pays(&house.water, 5_001, Delivery::None, &house.card).await);
    assert_eq!(rule, "guardian: payment limit");
    assert_eq!((house.news("guardian.refused").await.len(), house.news("guardian.payment").await.len()), (1, 1));
    assert_eq!(house.charges(), 1);
}

async fn a_payment_that_a_guardian_has_to_agree_to_waits_and_is_charged_once(house: House) {
    house.guarded(true, WardRules { agree_over: usd(1_000), both_agree_over: usd(3_000), ..WardRules::default() }, None).await;
    charged(house.pays(&house.water, 1_000, Delivery::None, &house.card).await);
    let Agreed::Waiting { approval, for_whom } = house.pays(&house.shop, 3_001, Delivery::None, &house.card).await else {
        panic!("both guardians have to agree");
    };
    assert_eq!((for_whom.len(), house.charges()), (2, 1));
    let say = async |who: &CustomerId| house.agreements.decide(&approval, who, true, link()).await;
    // The ward is none of them.
    assert!(house.agreements.decide(&approval, &house.ward, true, link()).await.is_err());
    assert!(say(&house.father).await.unwrap().charged.is_none());
    let last = say(&house.mother).await.unwrap();
    charged(last.charged.unwrap());
    house.settle().await;
    // The same yes again is told of the same payment, and charges nothing.
    charged(say(&house.mother).await.unwrap().charged.unwrap());
    house.settle().await;
    assert_eq!((house.charges(), house.news("guardian.payment").await.len()), (2, 2));
}

async fn a_guardian_says_no_and_nothing_is_charged(house: House) {
    house.guarded(false, WardRules { agree_over: usd(1_000), ..WardRules::default() }, None).await;
    let Agreed::Waiting { approval, .. } = house.pays(&house.water, 1_001, Delivery::None, &house.card).await else {
        panic!("a guardian has to agree");
    };
    let no = house.agreements.decide(&approval, &house.mother, false, link()).await.unwrap();
    assert!(matches!(no.approval.state, ApprovalState::Denied { .. }), "{no:?}");
    assert!(house.agreements.decide(&approval, &house.mother, true, link()).await.is_err());
    house.settle().await;
    assert_eq!(house.charges(), 0);
}

async fn deny_wins_over_a_guardians_yes(house: House) {
    let g = house.guarded(true, WardRules { agree_over: usd(1_000), ..WardRules::default() }, None).await;
    let Agreed::Waiting { approval, .. } = house.pays(&house.water, 1_001, Delivery::None, &house.card).await else {
        panic!("a guardian has to agree");
    };
    house.agreements.edit_guardianship(&g.id, &house.father, Change::Freeze).await.unwrap();
    let decided = house.agreements.decide(&approval, &house.mother, true, link()).await.unwrap();
    assert_eq!(denied(decided.charged.unwrap()), "guardian: frozen");
    house.settle().await;
    assert_eq!(denied(house.pays(&house.shop, 1, Delivery::None, &house.card).await), "guardian: frozen");
    assert_eq!(house.charges(), 0);
    // One may freeze; to thaw takes both.
    let edit = async |who: &CustomerId, change| house.agreements.edit_guardianship(&g.id, who, change).await.unwrap().1;
    assert_eq!(edit(&house.father, Change::Thaw).await, Edited::Proposed);
    assert_eq!(denied(house.pays(&house.shop, 1, Delivery::None, &house.card).await), "guardian: frozen");
    assert_eq!(edit(&house.mother, Change::Agree).await, Edited::Done);
    charged(house.pays(&house.shop, 1, Delivery::None, &house.card).await);
}

async fn neither_the_ward_nor_a_stranger_changes_anything(house: House) {
    let rules = WardRules { blocked_categories: ["toys".parse().unwrap()].into(), ..WardRules::default() };
    let g = house.guarded(false, rules, None).await;
    for who in [&house.ward, &house.father, &house.stranger] {
        for change in [Change::End, Change::Rules { rules: WardRules::default() }, Change::AddSecond { guardian: who.clone() }] {
            let tried = house.agreements.edit_guardianship(&g.id, who, change).await;
            assert!(
                matches!(tried, Err(GuardingError::Guardian(GuardianError::NotAGuardian) | GuardingError::Stranger(_))),
                "{tried:?}"
            );
        }
    }
    assert_eq!(denied(house.pays(&house.shop, 100, Delivery::None, &house.card).await), "guardian: category");
    let none = WardRules::default;
    let add = |ward: &CustomerId, guardian: &CustomerId| {
        let (ward, guardian) = (ward.clone(), guardian.clone());
        let agreements = house.agreements.clone();
        async move { agreements.add_guardianship(&ward, &guardian, None, none(), None, "test").await }
    };
    assert!(matches!(add(&house.mother, &house.mother).await, Err(GuardingError::Guardian(GuardianError::Oneself))));
    assert!(matches!(add(&house.father, &house.stranger).await, Err(GuardingError::Stranger(_))));
    // The same guardian once.
    assert!(matches!(add(&house.ward, &house.mother).await, Err(GuardingError::Store(StoreError::Exists(_)))));
    let kept: Vec<Guardianship> = papers::of(&*house.store, &house.ward).await.unwrap();
    assert_eq!(kept, [g]);
}

async fn what_loosens_needs_both_guardians(house: House) {
    let g = house.guarded(true, WardRules { payment_limit: usd(1_000), ..WardRules::default() }, None).await;
    let edit = async |who: &CustomerId, change| house.agreements.edit_guardianship(&g.id, who, change).await.unwrap().1;
    let limit = |minor| Change::Rules { rules: WardRules { payment_limit: usd(minor), ..WardRules::default() } };
    assert_eq!(edit(&house.mother, limit(2_000)).await, Edited::Proposed);
    assert_eq!(denied(house.pays(&house.water, 1_001, Delivery::None, &house.card).await), "guardian: payment limit");
    assert_eq!(edit(&house.father, Change::Agree).await, Edited::Done);
    charged(house.pays(&house.water, 1_001, Delivery::None, &house.card).await);
    assert_eq!(edit(&house.father, limit(500)).await, Edited::Done);
    assert_eq!(denied(house.pays(&house.water, 501, Delivery::None, &house.card).await), "guardian: payment limit");
    assert_eq!(house.news("guardianship.changed").await.len(), 3);
}

async fn coming_of_age_ends_it(house: House) {
    let day = START.plus(HOUR);
    let g = house.guarded(false, WardRules { payment_limit: usd(100), ..WardRules::default() }, Some(day)).await;
    house.clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(denied(house.pays(&house.water, 101, Delivery::None, &house.card).await), "guardian: payment limit");
    house.clock.advance(Duration::from_millis(1));
    charged(house.pays(&house.water, 101, Delivery::None, &house.card).await);
    assert!(house.news("guardian.payment").await.is_empty(), "nobody is told any more");
    let late = house.agreements.edit_guardianship(&g.id, &house.mother, Change::Freeze).await;
    assert!(matches!(late, Err(GuardingError::Guardian(GuardianError::Over))));
}
