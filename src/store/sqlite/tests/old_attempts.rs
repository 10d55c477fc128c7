//! Attempts from before there were other operations than charges keep their meaning.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::super::migrations;
use super::*;
use crate::ids::IntentId;
use crate::money::Money;
use crate::payment::{AttemptState, Operation, Standing};
use crate::store::Payments;

const DISPATCHED: &str = r#""at":1,"key":"k","hash":"h","sends":1,"last_sent":1"#;

/// A database as version 4 left it, with one payment a state.
async fn version_4(path: &Path) -> SqlitePool {
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path).create_if_missing(true)).await.unwrap();
    let mut old = migrations();
    old.migrations.to_mut().retain(|m| m.version <= 4);
    old.run(&pool).await.unwrap();
    let fixed = [
        "INSERT INTO customers (id, name, customer_number, status, created_at) VALUES ('cus_1', 'Ann', '123456', 'active', 1)",
        "INSERT INTO payees VALUES ('pay_1', 'Water Works', NULL, 1)",
        "INSERT INTO cards VALUES ('card_1', 'cus_1', '1111', 16, NULL, NULL, 'active', x'00', x'01', 1)",
    ];
    for sql in fixed {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let money = r#"{"minor":2000,"currency":"USD"}"#;
    let states = [
        ("1", "pending", "prepared", r#"{"state":"prepared"}"#.to_owned()),
        ("2", "pending", "dispatched", format!(r#"{{"state":"dispatched",{DISPATCHED}}}"#)),
        (
            "3",
            "pending",
            "needs_reconciliation",
            format!(r#"{{"state":"needs_reconciliation",{DISPATCHED},"doubt":{{"doubt":"no_answer"}}}}"#),
        ),
        (
            "4",
            "pending",
            "needs_reconciliation",
            format!(r#"{{"state":"needs_reconciliation",{DISPATCHED},"doubt":{{"doubt":"mismatch","charged":{money}}}}}"#),
        ),
        ("5", "paid", "succeeded", r#"{"state":"succeeded","at":2,"gateway_reference":"g"}"#.to_owned()),
        ("6", "failed", "declined", r#"{"state":"declined","at":2,"reason":"do_not_honour"}"#.to_owned()),
    ];
    for (n, status, state, detail) in states {
        let sql =
            "INSERT INTO requests VALUES ('req_' || ?1, 'cus_1', 'pay_1', 1999, 'USD', NULL, NULL, 'open', 'int_' || ?1, 1)";
        sqlx::query(sql).bind(n).execute(&pool).await.unwrap();
        let sql = "INSERT INTO intents VALUES ('int_' || ?1, 'cus_1', 'req_' || ?1, 'pay_1', 'card_1', '1111', 'call_1', 1999, 'USD', ?2,
                   '{\"policy_version\":\"1\"}', 1)";
        sqlx::query(sql).bind(n).bind(status).execute(&pool).await.unwrap();
        let sql = "INSERT INTO attempts VALUES ('att_' || ?1, 'int_' || ?1, 1999, 'USD', ?2, ?3, 0, 7)";
        sqlx::query(sql).bind(n).bind(state).bind(detail).execute(&pool).await.unwrap();
        let sql = "INSERT INTO transfers VALUES (NULL, 'tr_' || ?1, 'pending', NULL, 'acquirer:sandbox:USD', 'payee:pay_1:USD', 1999, 'USD',
                   'int_' || ?1, 7)";
        sqlx::query(sql).bind(n).execute(&pool).await.unwrap();
    }
    pool
}

#[tokio::test]
async fn old_attempts_read_as_what_they_were_and_a_mismatch_waits_for_a_person() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.db");
    version_4(&path).await.close().await;
    let store = reopened(dir.path()).await;
    for (n, standing) in [
        ("1", Standing::Pending),
        ("2", Standing::Pending),
        ("3", Standing::Pending),
        ("4", Standing::Conflicted),
        ("5", Standing::Paid),
        ("6", Standing::Failed),
    ] {
        let payment = store.payment(&IntentId::parse(&format!("int_{n}")).unwrap()).await.unwrap().unwrap();
        assert_eq!(payment.standing(), standing, "{n}");
        let attempt = &payment.attempts[0];
        assert_eq!((attempt.operation, attempt.number.to_string()), (Operation::Charge, n.to_owned()));
        assert_eq!(payment.transfers[0].cause.as_str(), attempt.id.as_str());
        if let AttemptState::Conflicted { charged, gateway_reference, sends, .. } = &attempt.state {
            assert_eq!((*charged, gateway_reference, *sends), (Money::new(2000, crate::money::Currency::Usd).unwrap(), &None, 1));
        }
    }
    assert_eq!(store.unfinished(9).await.unwrap().len(), 4);
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&store.pool).await.unwrap();
    assert!(broken.is_empty());
    let whole: String = sqlx::query("PRAGMA integrity_check").fetch_one(&store.pool).await.unwrap().get(0);
    assert_eq!(whole, "ok");
}
