//! The books: what ends what, bounds, and balance whatever the order.

use super::*;
use crate::clock::SeededEntropy;
use proptest::prelude::*;

fn pending(entropy: &SeededEntropy, minor: i64) -> Transfer {
    let payee = PayeeId::fresh(entropy);
    Transfer {
        id: TransferId::fresh(entropy),
        kind: TransferKind::Pending,
        debit: AccountName::acquirer("sandbox", Currency::Eur),
        credit: AccountName::payee(&payee, Currency::Eur),
        amount: Money::new(minor, Currency::Eur).unwrap(),
        intent: IntentId::fresh(entropy),
        cause: Cause::Attempt(AttemptId::fresh(entropy)),
        at: Timestamp(1),
    }
}

#[test]
fn a_pending_transfer_ends_once_and_only_as_it_was_reserved() {
    let e = SeededEntropy::new(1);
    let p = pending(&e, 500);
    let post = p.posted(TransferId::fresh(&e), Timestamp(2));
    let books = verify([&p, &post]).unwrap();
    assert_eq!(books.balances()[&p.debit].debits_posted, 500);
    assert_eq!(books.balances()[&p.credit], Balance { credits_posted: 500, ..Balance::default() });
    assert_eq!(books.open().count(), 0);
    let void = p.voided(TransferId::fresh(&e), Timestamp(3));
    assert_eq!(verify([&p, &post, &void]).unwrap_err(), LedgerError::EndedTwice(p.id.clone()));
    assert_eq!(verify([&post]).unwrap_err(), LedgerError::NoPending(post.id.clone()));
    assert_eq!(verify([&p, &p]).unwrap_err(), LedgerError::Twice(p.id.clone()));
    let other = Transfer { amount: Money::new(501, Currency::Eur).unwrap(), ..post.clone() };
    assert_eq!(verify([&p, &other]).unwrap_err(), LedgerError::Differs(post.id.clone()));
    let usd = Transfer { amount: Money::new(500, Currency::Usd).unwrap(), ..p.clone() };
    assert_eq!(verify([&usd]).unwrap_err(), LedgerError::Currency(p.id.clone()));
    let loops = Transfer { credit: p.debit.clone(), ..p.clone() };
    assert_eq!(verify([&loops]).unwrap_err(), LedgerError::SameAccount(p.id.clone()));
}

proptest! {
    #[test]
    fn any_order_of_posts_and_voids_keeps_the_books_balanced(ends in proptest::collection::vec((1i64..1_000_000, 0u8..4), 0..40)) {
        let e = SeededEntropy::new(2);
        let mut books = Books::default();
        let mut expected = 0;
        for (minor, how) in ends {
            let p = pending(&e, minor);
            books.apply(&p).unwrap();
            let post = p.posted(TransferId::fresh(&e), Timestamp(2));
            let void = p.voided(TransferId::fresh(&e), Timestamp(2));
            match how {
                0 => {}
                1 => { books.apply(&post).unwrap(); prop_assert!(books.apply(&void).is_err()); expected += minor; }
                2 => { books.apply(&void).unwrap(); prop_assert!(books.apply(&post).is_err()); }
                _ => { let before = books.clone(); prop_assert!(books.apply(&p).is_err()); prop_assert_eq!(&before, &books); }
            }
        }
        let acquirer = books.balances().get(&AccountName::acquirer("sandbox", Currency::Eur)).copied().unwrap_or_default();
        prop_assert_eq!(acquirer.debits_posted, expected);
        let open: i64 = books.open().map(|t| t.amount.minor.get()).sum();
        prop_assert_eq!(acquirer.debits_pending, open);
    }
}
