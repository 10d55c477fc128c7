//! Each branch of asking for a purchase, and what may follow what.

use super::*;
use crate::clock::{Entropy, SeededEntropy};
use crate::ids::{CardId, MainAccountId};
use crate::payment::{Delivery, RequestStatus};

const NOW: Timestamp = Timestamp(1_000);
const END: Timestamp = Timestamp(2_000);

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::Usd).unwrap()
}

fn limits() -> Limits {
    Limits::new(usd(5_000), usd(8_000)).unwrap()
}

fn request(e: &dyn Entropy, amount: Money) -> PaymentRequest {
    PaymentRequest {
        id: RequestId::fresh(e),
        customer: CustomerId::fresh(e),
        payee: PayeeId::fresh(e),
        amount,
        due: None,
        delivery: Delivery::None,
        expires_at: None,
        status: RequestStatus::Open,
        held_by: None,
        created_at: NOW,
    }
}

fn main_of(e: &dyn Entropy, request: &PaymentRequest) -> MainAccount {
    MainAccount {
        id: MainAccountId::fresh(e),
        customer: request.customer.clone(),
        bank: BankName::parse("north").unwrap(),
        card: CardId::fresh(e),
        closed_at: None,
        created_at: NOW,
        version: 0,
    }
}

fn fresh(e: &dyn Entropy) -> Fresh {
    Fresh { purchase: PurchaseId::fresh(e), account: AccountId::fresh(e) }
}

fn wanted<'a>(request: &'a PaymentRequest, main: Option<&'a MainAccount>, account: Option<PurchaseAccount>) -> Wanted<'a> {
    Wanted { request, main, account, limits: Some(limits()), spent_24h: 0 }
}

fn linked(effects: &[PurchaseEffect]) -> Option<PurchaseAccount> {
    effects.iter().find_map(|e| match e {
        PurchaseEffect::LinkAccount(account) => Some((**account).clone()),
        PurchaseEffect::CloseAccount(_) | PurchaseEffect::SendPage => None,
    })
}

#[test]
fn without_a_main_account_nothing_is_asked_for() {
    let e = SeededEntropy::new(1);
    let request = request(&e, usd(100));
    let main = main_of(&e, &request);
    let none = begin(NOW, fresh(&e), wanted(&request, None, None), END);
    assert_eq!(none, Err(PurchaseError::NoMainAccount));
    let closed = main.clone().close(NOW);
    assert_eq!(begin(NOW, fresh(&e), wanted(&request, Some(&closed), None), END), Err(PurchaseError::NoMainAccount));
    let others = MainAccount { customer: CustomerId::fresh(&e), ..main };
    assert_eq!(begin(NOW, fresh(&e), wanted(&request, Some(&others), None), END), Err(PurchaseError::NoMainAccount));
}

#[test]
fn a_first_purchase_links_an_account_and_a_later_one_uses_it() {
    let e = SeededEntropy::new(2);
    let request = request(&e, usd(100));
    let main = main_of(&e, &request);
    let (purchase, effects) = begin(NOW, fresh(&e), wanted(&request, Some(&main), None), END).unwrap();
    let account = linked(&effects).unwrap();
    assert_eq!((effects.len(), effects.last()), (2, Some(&PurchaseEffect::SendPage)));
    assert_eq!((&purchase.account, &account.state), (&account.id, &AccountState::PendingConsent));
    assert_eq!((account.main.clone(), account.limits), (main.id.clone(), limits()));
    let (again, effects) = begin(NOW, fresh(&e), wanted(&request, Some(&main), Some(account.clone())), END).unwrap();
    assert_eq!((again.account, effects), (account.id.clone(), vec![PurchaseEffect::SendPage]));
    // One of a main account of before is closed, and another one linked.
    let moved = MainAccount { id: MainAccountId::fresh(&e), ..main };
    let (third, effects) = begin(NOW, fresh(&e), wanted(&request, Some(&moved), Some(account.clone())), END).unwrap();
    assert_eq!(effects.first(), Some(&PurchaseEffect::CloseAccount(Box::new(account.clone().close(NOW)))));
    assert_ne!(third.account, account.id);
    assert_eq!(linked(&effects).map(|a| a.main), Some(moved.id));
}

#[test]
fn limits_and_currency_are_looked_at_before_a_page_is_sent() {
    let e = SeededEntropy::new(3);
    let small = request(&e, usd(100));
    let main = main_of(&e, &small);
    let ask = |request: &PaymentRequest, spent_24h| {
        begin(NOW, fresh(&e), Wanted { spent_24h, ..wanted(request, Some(&main), None) }, END).map(drop)
    };
    let of = |amount| PaymentRequest { amount, ..small.clone() };
    assert_eq!(ask(&of(usd(5_000)), 0), Ok(()));
    assert_eq!(ask(&of(usd(5_001)), 0), Err(AccountError::OverPurchase(usd(5_000)).into()));
    assert_eq!(ask(&of(usd(5_000)), 3_001), Err(AccountError::OverDay(usd(8_000)).into()));
    let eur = of(Money::new(100, Currency::Eur).unwrap());
    assert_eq!(ask(&eur, 0), Err(PurchaseError::NoLimits(Currency::Eur)));
    let (_, effects) = begin(NOW, fresh(&e), wanted(&small, Some(&main), None), END).unwrap();
    let other = begin(NOW, fresh(&e), wanted(&eur, Some(&main), linked(&effects)), END);
    assert_eq!(other, Err(AccountError::OtherCurrency(Currency::Usd).into()));
}

#[test]
fn only_its_customer_confirms_it_in_time_and_once() {
    let e = SeededEntropy::new(4);
    let request = request(&e, usd(100));
    let main = main_of(&e, &request);
    let (purchase, _) = begin(NOW, fresh(&e), wanted(&request, Some(&main), None), END).unwrap();
    let (ann, bob, intent) = (request.customer.clone(), CustomerId::fresh(&e), IntentId::fresh(&e));
    let confirmed = |who: &CustomerId| PurchaseEvent::Confirmed {
        who: who.clone(),
        intent: intent.clone(),
        bank: main.bank.clone(),
        look_at: END,
    };
    assert_eq!(purchase.may_confirm(NOW, &ann, &request), Ok(()));
    assert_eq!(purchase.may_confirm(NOW, &bob, &request), Err(PurchaseError::NotYours));
    assert_eq!(purchase.may_confirm(END, &ann, &request), Err(PurchaseError::Late));
    let dearer = PaymentRequest { amount: usd(101), ..request.clone() };
    assert_eq!(purchase.may_confirm(NOW, &ann, &dearer), Err(PurchaseError::OtherThing));
    assert_eq!(purchase.clone().step(NOW, confirmed(&bob)), Err(PurchaseError::NotYours));
    assert_eq!(purchase.clone().step(END, confirmed(&ann)), Err(PurchaseError::Late));
    assert_eq!(purchase.clone().step(NOW, PurchaseEvent::Expire), Err(PurchaseError::NotYet));
    assert_eq!(purchase.clone().step(END, PurchaseEvent::Expire).unwrap().state, PurchaseState::Expired);
    assert_eq!(purchase.clone().step(NOW, PurchaseEvent::Refused { who: bob }), Err(PurchaseError::NotYours));
    let charging = purchase.step(NOW, confirmed(&ann)).unwrap();
    assert_eq!((charging.state.name(), charging.due_at(), charging.open()), ("charging", Some(END), true));
    assert_eq!(charging.clone().step(NOW, confirmed(&ann)), Err(PurchaseError::Over("charging")));
    assert_eq!(charging.clone().step(NOW, PurchaseEvent::Cancel), Err(PurchaseError::Over("charging")), "the bank has it");
    assert_eq!(charging.may_confirm(NOW, &ann, &request), Err(PurchaseError::Over("charging")));
}

#[test]
fn its_result_is_the_banks_answer_and_stays() {
    let e = SeededEntropy::new(5);
    let request = request(&e, usd(100));
    let main = main_of(&e, &request);
    let (purchase, _) = begin(NOW, fresh(&e), wanted(&request, Some(&main), None), END).unwrap();
    let (who, intent, receipt) = (request.customer.clone(), IntentId::fresh(&e), ReceiptId::fresh(&e));
    let event = PurchaseEvent::Confirmed { who, intent: intent.clone(), bank: main.bank, look_at: NOW };
    let charging = purchase.clone().step(NOW, event).unwrap();
    let doubtful = charging.clone().step(END, PurchaseEvent::Looked { in_doubt: true, look_at: END }).unwrap();
    assert_eq!(doubtful.state.name(), "in_doubt");
    let still = doubtful.clone().step(END, PurchaseEvent::Looked { in_doubt: false, look_at: END }).unwrap();
    assert_eq!(still.state.name(), "in_doubt", "until the bank has answered");
    let ends = [
        (BanksAnswer::Paid(receipt.clone()), PurchaseState::Paid { intent: intent.clone(), receipt }),
        (
            BanksAnswer::Declined(DeclineReason::DoNotHonour),
            PurchaseState::Declined { intent: intent.clone(), reason: DeclineReason::DoNotHonour },
        ),
        (BanksAnswer::Reversed, PurchaseState::Reversed { intent: intent.clone() }),
    ];
    for (answer, state) in ends {
        for before in [charging.clone(), doubtful.clone()] {
            let ended = before.step(END, PurchaseEvent::Ended(answer.clone())).unwrap();
            assert_eq!((&ended.state, ended.open(), ended.due_at()), (&state, false, None));
            assert_eq!(ended.state.intent(), Some(&intent));
            assert!(ended.step(END, PurchaseEvent::Ended(BanksAnswer::Reversed)).is_err());
        }
    }
    assert_eq!(purchase.step(NOW, PurchaseEvent::Ended(BanksAnswer::Reversed)), Err(PurchaseError::Over("awaiting")));
}

#[test]
fn one_that_waits_for_others_ends_as_they_say_and_is_charged_once_in_their_time() {
    let e = SeededEntropy::new(6);
    let request = request(&e, usd(100));
    let main = main_of(&e, &request);
    let (purchase, _) = begin(NOW, fresh(&e), wanted(&request, Some(&main), None), END).unwrap();
    let (ann, bob, approval) = (request.customer.clone(), CustomerId::fresh(&e), ApprovalId::fresh(&e));
    let until = Timestamp(END.0 + 1_000);
    let last = Timestamp(until.0 - 1);
    let waits = |who: &CustomerId| PurchaseEvent::Waits {
        who: who.clone(),
        approval: approval.clone(),
        how: ConfirmedBy::Link,
        consent: None,
        until,
    };
    let intent = IntentId::fresh(&e);
    let confirmed = |who: &CustomerId| PurchaseEvent::Confirmed {
        who: who.clone(),
        intent: intent.clone(),
        bank: main.bank.clone(),
        look_at: END,
    };
    assert_eq!(purchase.clone().step(NOW, waits(&bob)), Err(PurchaseError::NotYours));
    assert_eq!(purchase.clone().step(END, waits(&ann)), Err(PurchaseError::Late));
    let waiting = purchase.clone().step(NOW, waits(&ann)).unwrap();
    assert_eq!((waiting.state.name(), waiting.due_at(), waiting.open()), ("waiting", Some(until), true));
    assert_eq!((waiting.state.waits_on(), waiting.state.intent()), (Some(&approval), None));
    assert_eq!(waiting.clone().step(NOW, waits(&ann)), Err(PurchaseError::Over("waiting")));
    // The others may take longer than the user; the user may still say no.
    assert_eq!(waiting.may_confirm(last, &ann, &request), Ok(()));
    assert_eq!(waiting.may_confirm(until, &ann, &request), Err(PurchaseError::Late));
    let no = |who: &CustomerId| PurchaseEvent::Refused { who: who.clone() };
    assert_eq!(waiting.clone().step(last, no(&ann)).unwrap().state, PurchaseState::Refused);
    assert_eq!(waiting.clone().step(last, no(&bob)), Err(PurchaseError::NotYours));
    assert_eq!(waiting.clone().step(last, confirmed(&bob)), Err(PurchaseError::NotYours));
    assert_eq!(waiting.clone().step(until, confirmed(&ann)), Err(PurchaseError::Late));
    assert_eq!(waiting.clone().step(last, PurchaseEvent::Expire), Err(PurchaseError::NotYet));
    let charging = waiting.clone().step(last, confirmed(&ann)).unwrap();
    assert_eq!(charging.state.intent(), Some(&intent));
    let by = Role::Supervisor;
    for (event, state) in [
        (PurchaseEvent::Denied { by }, PurchaseState::Denied { by }),
        (PurchaseEvent::Withdrawn { by }, PurchaseState::Withdrawn { by }),
        (PurchaseEvent::Cancel, PurchaseState::Cancelled),
        (PurchaseEvent::Expire, PurchaseState::Expired),
    ] {
        let ended = waiting.clone().step(until, event.clone()).unwrap();
        assert_eq!((&ended.state, ended.open(), ended.due_at()), (&state, false, None));
        assert_eq!(ended.clone().step(last, confirmed(&ann)), Err(PurchaseError::Over(state.name())));
        assert_eq!(charging.clone().step(last, event), Err(PurchaseError::Over("charging")), "the bank has it");
    }
    for event in [PurchaseEvent::Denied { by }, PurchaseEvent::Withdrawn { by }] {
        assert_eq!(purchase.clone().step(NOW, event), Err(PurchaseError::Over("awaiting")), "nobody else was asked");
    }
    // Kept as it is, beside those of before.
    let text = serde_json::to_string(&waiting).unwrap();
    assert_eq!(serde_json::from_str::<Purchase>(&text).unwrap(), waiting);
}
