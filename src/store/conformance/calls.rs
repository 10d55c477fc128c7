//! Calls, and failures counted across them.

use serde_json::json;

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::e164::E164;
use crate::ids::CallId;
use crate::store::{CallRecord, Factor, FactorFailure, FailureCounts, StoreError};

on_both!(
    failures_are_counted_over_a_restart_and_unattested_ones_apart,
    of_many_failures_at_once_the_last_to_be_counted_sees_all,
    calls_are_kept_with_their_end,
);

async fn failures_are_counted_over_a_restart_and_unattested_ones_apart(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let calling = E164::normalise("+442079460958", "").unwrap();
    let failure = |attested: bool, at: i64| FactorFailure {
        factor: Factor::Voice,
        customer: Some(ann.clone()),
        calling: Some(calling.clone()),
        trunk: "carrier".into(),
        attested,
        call: CallId::fresh(&*desk.entropy),
        at: Timestamp(at),
    };
    desk.store.record_failure(&failure(true, 5), Timestamp(0)).await.unwrap();
    desk.store.record_failure(&failure(true, 50), Timestamp(0)).await.unwrap();
    let counts = desk.store.record_failure(&failure(false, 60), Timestamp(10)).await.unwrap();
    assert_eq!(counts, FailureCounts { customer_attested: 1, customer_any: 2, calling: 1, strangers: 0, trunk: 2 });
    let store = desk.opened_again().await;
    assert_eq!(store.failure_counts(Some(&ann), Some(&calling), "carrier", Timestamp(10)).await.unwrap(), counts);
    // From a withheld number and from somebody else's: strangers to Ann, whatever number they show next.
    for calling in [None, Some(E164::normalise("+15005550123", "").unwrap())] {
        store.record_failure(&FactorFailure { calling, ..failure(false, 70) }, Timestamp(0)).await.unwrap();
    }
    assert_eq!(store.failure_counts(Some(&ann), None, "", Timestamp(10)).await.unwrap().strangers, 2);
    let nobody = store.failure_counts(None, None, "other", Timestamp(0)).await.unwrap();
    assert_eq!(nobody, FailureCounts::default());
}

async fn of_many_failures_at_once_the_last_to_be_counted_sees_all(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let failure = FactorFailure {
            factor: Factor::Invite,
            customer: Some(ann.clone()),
            calling: None,
            trunk: "carrier".into(),
            attested: true,
            call: CallId::fresh(&*desk.entropy),
            at: Timestamp(5),
        };
        let store = desk.store.clone();
        tasks.spawn(async move { store.record_failure(&failure, Timestamp(0)).await.unwrap().customer_attested });
    }
    let counts = tasks.join_all().await;
    assert_eq!(counts.iter().max(), Some(&50));
    // Whoever sees the n-th failure knows of n: a guess at the limit can't pass because another was made beside it.
    let mut sorted = counts.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().zip(1..).all(|(seen, at_least)| *seen >= at_least), "{sorted:?}");
}

async fn calls_are_kept_with_their_end(desk: Bench) {
    let mut call = CallRecord {
        id: CallId::fresh(&*desk.entropy),
        customer: None,
        calling: Some(E164::normalise("+442079460958", "").unwrap()),
        trunk: "carrier".into(),
        started_at: Timestamp(5),
        ended_at: None,
        verdict: None,
        record: json!([]),
    };
    desk.store.call_started(&call).await.unwrap();
    (call.ended_at, call.verdict) = (Some(Timestamp(9)), Some("paid".into()));
    desk.store.call_ended(&call).await.unwrap();
    assert_eq!(desk.store.call(&call.id).await.unwrap().unwrap(), call);
    assert_eq!(desk.store.calls(5).await.unwrap(), [call.clone()]);
    call.id = CallId::fresh(&*desk.entropy);
    assert!(matches!(desk.store.call_ended(&call).await, Err(StoreError::NotFound(_))));
}
