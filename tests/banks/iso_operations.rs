//! Every operation as it goes when nothing breaks, in two dialects.

use voicepay::gateway::Gateway;
use voicepay::gateway::iso8583::config::Iso8583Config;
use voicepay::payment::{BankWord, DeclineReason, Operation};

use crate::support::*;

async fn every_operation(host: &Host, config: &Iso8583Config) {
    let gateway = open(config);
    let approved = |word: &BankWord, minor: i64| {
        matches!(word, BankWord::Approved { charged, gateway_reference }
            if charged.minor.get() == minor && gateway_reference.contains('/'))
    };

    let authorisation = request(Operation::Authorise, 2000, None);
    let word = gateway.send(&authorisation).await;
    assert!(approved(&word, 2000), "{word:?}");
    let capture = request(Operation::Capture, 1500, Some(original(&authorisation, &word)));
    let captured = gateway.send(&capture).await;
    assert!(matches!(captured, BankWord::Approved { .. }), "{captured:?}");
    assert_eq!((host.did(&capture), host.stands(&capture)), (vec!["0220 booked".to_owned()], 1500));
    let line = &host.lines(&capture)[0];
    assert_eq!(line["retrieval"], host.lines(&authorisation)[0]["retrieval"], "one reference from beginning to end");

    let sale = charge(3000);
    let sold = gateway.send(&sale).await;
    assert!(approved(&sold, 3000), "{sold:?}");
    let refund = request(Operation::Refund, 1000, Some(original(&sale, &sold)));
    assert!(approved(&gateway.send(&refund).await, 1000));
    assert_eq!((host.stands(&refund), host.lines(&refund)[0]["kind"].as_str().unwrap()), (1000, "refund"));
    let too_much = request(Operation::Refund, 2500, Some(original(&sale, &sold)));
    assert_eq!(gateway.send(&too_much).await, BankWord::Declined(DeclineReason::LimitExceeded));

    for (operation, minor) in [(Operation::Authorise, 400), (Operation::Charge, 500)] {
        let standing = request(operation, minor, None);
        let word = gateway.send(&standing).await;
        assert_eq!(host.stands(&standing), minor);
        let void = request(Operation::Void, minor, Some(original(&standing, &word)));
        let voided = gateway.send(&void).await;
        assert!(matches!(voided, BankWord::Approved { charged, .. } if charged.minor.get() == minor), "{voided:?}");
        assert_eq!(host.stands(&standing), 0, "{operation:?}");
    }
    let of_nothing = request(Operation::Void, 500, Some(original(&charge(500), &sold)));
    assert_eq!(gateway.send(&of_nothing).await, BankWord::Declined(DeclineReason::Other));

    for (code, reason) in [
        (4, DeclineReason::LostOrStolen),
        (5, DeclineReason::DoNotHonour),
        (14, DeclineReason::UnknownCard),
        (51, DeclineReason::InsufficientFunds),
        (54, DeclineReason::ExpiredCard),
        (61, DeclineReason::LimitExceeded),
        (91, DeclineReason::IssuerUnavailable),
    ] {
        let declined = charge(9000 + code);
        assert_eq!(gateway.send(&declined).await, BankWord::Declined(reason), "response code {code}");
        assert_eq!(host.stands(&declined), 0);
    }
    let last4 = host.all_lines().iter().all(|l| l["last4"] == "4242");
    assert!(last4, "the card's number arrived");
}

#[tokio::test]
async fn every_operation_is_booked_once() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &[]);
    every_operation(&host, &config(&[&host])).await;
}

#[tokio::test]
async fn and_in_bcd_with_a_header_too() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &BCD);
    every_operation(&host, &config_bcd(&[&host], dir.path())).await;
}

#[tokio::test]
async fn the_same_request_is_the_same_bytes_and_books_once() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &[]);
    let gateway = open(&config(&[&host]));
    let sale = charge(700);
    let first = gateway.send(&sale).await;
    assert_eq!(gateway.send(&sale).await, first);
    assert_eq!(host.did(&sale), ["0200 booked", "0200 repeated"]);
    assert_eq!(host.stands(&sale), 700);
}
