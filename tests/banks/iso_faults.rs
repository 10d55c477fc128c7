//! Every fault that the host has, for every operation that it strikes; a host that is away; a request that arrives after its
//! reversal.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use voicepay::gateway::Gateway;
use voicepay::gateway::iso8583::config::Iso8583Config;
use voicepay::payment::{BankWord, DeclineReason, Operation};

use crate::support::*;

/// What must come of a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Stands,
    /// Approved with this amount, which is not what was asked: the core makes a conflict of it.
    Other(i64),
    TakenBack,
    NeverThere,
}

/// Charges, authorisations and refunds: whatever is unclear is taken back.
const FAULTS: [(i64, End); 20] = [
    (7001, End::NeverThere),
    (7002, End::TakenBack),
    (7003, End::TakenBack),
    (7004, End::Other(7005)),
    (7005, End::TakenBack),
    (7006, End::TakenBack),
    (7007, End::TakenBack),
    (7008, End::Stands),
    (7009, End::TakenBack),
    (7010, End::TakenBack),
    (7011, End::TakenBack),
    (7012, End::Other(3506)),
    (7013, End::TakenBack),
    (7014, End::NeverThere),
    (7015, End::TakenBack),
    (7017, End::TakenBack),
    (7018, End::TakenBack),
    (7019, End::TakenBack),
    (7020, End::TakenBack),
    (7021, End::Stands),
];

async fn every_fault(host: &Host, config: &Iso8583Config, operation: Operation) {
    let gateway = open(config);
    for (minor, end) in FAULTS {
        let original = match operation {
            Operation::Refund => {
                let sale = charge(8000);
                let word = gateway.send(&sale).await;
                Some(original(&sale, &word))
            }
            _ => None,
        };
        let asked = request(operation, minor, original);
        let (word, questions) = settle(&gateway, &asked).await;
        let expected = match end {
            End::Stands => matches!(&word, BankWord::Approved { charged, .. } if charged.minor.get() == minor),
            End::Other(other) => matches!(&word, BankWord::Approved { charged, .. } if charged.minor.get() == other),
            End::TakenBack => word == BankWord::Reversed,
            End::NeverThere => word == BankWord::Declined(DeclineReason::NeverReceived),
        };
        assert!(expected, "{operation:?} {minor}: {word:?} where {end:?}; the host: {:?}", host.did(&asked));
        assert_eq!(host.stands(&asked), ours(&word), "{operation:?} {minor}: the books differ; the host: {:?}", host.did(&asked));
        assert_eq!(questions > 0, matches!(end, End::TakenBack | End::NeverThere), "{operation:?} {minor}");
    }
}

#[tokio::test]
async fn a_charge_in_doubt_is_taken_back() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &[]);
    every_fault(&host, &config(&[&host]), Operation::Charge).await;
}

#[tokio::test]
async fn so_are_an_authorisation_and_a_refund_and_in_the_other_dialect_too() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &BCD);
    let config = config_bcd(&[&host], dir.path());
    every_fault(&host, &config, Operation::Authorise).await;
    every_fault(&host, &config, Operation::Refund).await;
}

#[tokio::test]
async fn a_capture_that_was_lost_is_said_again_and_booked_once() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &[]);
    let gateway = open(&config(&[&host]));
    // Those whose outcome is another amount, and the one that only a reversal meets, are others' tests.
    for minor in [7001, 7002, 7003, 7005, 7006, 7007, 7008, 7009, 7010, 7013, 7014, 7015, 7017, 7018, 7019] {
        let authorisation = request(Operation::Authorise, 8000, None);
        let word = gateway.send(&authorisation).await;
        let capture = request(Operation::Capture, minor, Some(original(&authorisation, &word)));
        let (word, asked) = settle(&gateway, &capture).await;
        assert_eq!((ours(&word), host.stands(&capture)), (minor, minor), "{minor}: {word:?}");
        let did = host.did(&capture);
        assert_eq!(asked > 0, minor != 7008, "{minor}");
        assert!(did.iter().skip(1).all(|d| d.starts_with("0221 ")), "an advice is repeated as one: {did:?}");
    }
}

#[tokio::test]
async fn a_void_that_was_not_acknowledged_is_said_again() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &[]);
    let gateway = open(&config(&[&host]));
    // These amounts have answers of their own the first time; in doubt they would be taken back by a reversal, so they are booked
    // by a repeat of the same bytes, which is answered.
    for (minor, expected) in
        [(7011, vec!["0400 ignored", "0401 ignored", "0401 undone"]), (7020, vec!["0400 undone", "0401 undone_again"])]
    {
        let sale = charge(minor);
        assert_eq!(gateway.send(&sale).await, BankWord::Silence);
        let word = gateway.send(&sale).await;
        let void = request(Operation::Void, minor, Some(original(&sale, &word)));
        let (voided, _) = settle(&gateway, &void).await;
        assert!(matches!(voided, BankWord::Approved { .. }), "{voided:?}");
        assert_eq!((host.did(&void), host.stands(&sale)), (expected.iter().map(|e| (*e).to_owned()).collect(), 0));
    }
}

#[tokio::test]
async fn a_reversal_is_repeated_until_it_is_acknowledged() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &[]);
    let gateway = open(&config(&[&host]));
    let sale = charge(7011);
    assert_eq!(settle(&gateway, &sale).await, (BankWord::Reversed, 3));
    assert_eq!(host.did(&sale), ["0200 booked", "0400 ignored", "0401 ignored", "0401 undone"]);
}

#[tokio::test]
async fn it_is_repeated_while_the_host_is_away_and_over_our_own_restart() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(python, dir.path(), &[]);
    let config = config(&[&host]);
    let gateway = open(&config);
    let sale = charge(7002);
    assert_eq!(gateway.send(&sale).await, BankWord::Silence);
    host.stop();
    for _ in 0..3 {
        assert_eq!(gateway.resolve(&sale).await, BankWord::Silence, "nobody acknowledges, so nothing is known");
    }
    assert_eq!(host.stands(&sale), 7002);
    // Our process dies as well: what it knew is gone, and the request is read from the database again.
    drop(gateway);
    let gateway = open(&config);
    assert_eq!(gateway.resolve(&sale).await, BankWord::Silence);
    host.start_again(python);
    assert_eq!(resolve(&gateway, &sale).await.0, BankWord::Reversed);
    assert_eq!(host.stands(&sale), 0);
    assert_eq!(gateway.resolve(&sale).await, BankWord::Reversed, "once more does no harm");
    assert_eq!(host.did(&sale).last().unwrap(), "0401 undone_again");
}

#[tokio::test]
async fn nothing_to_reverse_counts_only_when_nothing_can_arrive_any_more() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    // The host keeps the charge back until its first reversal is long answered.
    let host = Host::start(python, dir.path(), &["--late-ms", "900"]);
    let gateway = open(&Iso8583Config { late_arrival_ms: 1_500, ..config(&[&host]) });
    let sale = charge(7016);
    assert_eq!(settle(&gateway, &sale).await.0, BankWord::Reversed);
    let did = host.did(&sale);
    assert_eq!(did.first().unwrap(), "0400 no_original", "{did:?}");
    assert_eq!((did.last().unwrap().as_str(), host.stands(&sale)), ("0401 undone", 0));

    let began = Instant::now();
    let lost = charge(7001);
    assert_eq!(settle(&gateway, &lost).await.0, BankWord::Declined(DeclineReason::NeverReceived));
    assert!(began.elapsed() >= Duration::from_millis(1_500 + RESPONSE_MS), "it was believed after {:?}", began.elapsed());

    // A process that did not send it itself counts from when it first asks, however long it has been there.
    let of_another_process = charge(7001);
    let gateway = open(&Iso8583Config { late_arrival_ms: 300, ..config(&[&host]) });
    sleep(Duration::from_millis(1_000)).await;
    assert_eq!(gateway.resolve(&of_another_process).await, BankWord::Silence);
    let began = Instant::now();
    assert_eq!(resolve(&gateway, &of_another_process).await.0, BankWord::Declined(DeclineReason::NeverReceived));
    assert!(began.elapsed() >= Duration::from_millis(300), "it was believed after {:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_that_comes_too_late_changes_nothing() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &["--late-ms", "450"]);
    let gateway = open(&config(&[&host]));
    let late = charge(7003);
    assert_eq!(gateway.send(&late).await, BankWord::Silence);
    // The late answer arrives while others are asked; it must find nobody.
    let others: Vec<_> = (0..8).map(|n| charge(100 + n)).collect();
    for other in &others {
        assert_eq!(ours(&gateway.send(other).await), other.amount.minor.get());
        sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(resolve(&gateway, &late).await.0, BankWord::Reversed);
    assert_eq!(host.stands(&late), 0);
}
