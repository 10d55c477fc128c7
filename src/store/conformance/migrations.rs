//! A database of every earlier version, filled by the SQL of that version, comes to the newest with all that it held.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

use super::{Bench, Place, on_both};
use crate::ids::{ConsentId, CustomerId, IntentId};
use crate::ledger;
use crate::money::{Currency, Money};
use crate::payment::{AccountState, AttemptState, Operation, Standing};
use crate::store::consents::{GivenHow, WithdrawnHow};
use crate::store::postgres::lab::Database;
use crate::store::{Consent, PaperKind, Payment, Purpose, postgres, sqlite};

/// Rows by table: each a map from column to text.
type Rows = BTreeMap<String, Vec<BTreeMap<String, Option<String>>>>;

/// The version that made rows of consents.
const CONSENTS_CAME: i64 = 17;
/// The last version in which accounts had theirs to themselves.
const ACCOUNTS_CAME: i64 = 19;

const SENT: &str = r#""at":1,"key":"k","hash":"h","sends":1,"last_sent":1"#;

/// What a database of version `n` may hold. `BLOB` stands for the database's own word.
fn filled(n: i64) -> Vec<String> {
    let mut all: Vec<String> = [
        "INSERT INTO meta (key, value) VALUES ('vault.key_check', CAST('check' AS BLOB))",
        "INSERT INTO customers (id, name, customer_number, status, created_at) VALUES ('cus_1', 'Ann', '123456', 'active', 1)",
        "INSERT INTO customer_numbers (number, customer_id) VALUES ('+442079460958', 'cus_1')",
        "INSERT INTO payees (id, name, created_at) VALUES ('pay_1', 'Water Works', 1)",
        "INSERT INTO cards (id, customer_id, last4, length, status, sealed, digest, created_at)
         VALUES ('card_1', 'cus_1', '1111', 16, 'active', CAST('sealed' AS BLOB), CAST('01234567890123456789012345678901' AS BLOB), 1)",
        "INSERT INTO calls (id, customer_id, trunk, started_at, record) VALUES ('call_1', 'cus_1', 'carrier', 1, '{}')",
        "INSERT INTO invites (id, customer_id, code_digest, expires_at) VALUES ('inv_1', 'cus_1', CAST('code' AS BLOB), 9)",
        "INSERT INTO templates (customer_id, model, sealed, created_at) VALUES ('cus_1', 'm', CAST('voice' AS BLOB), 1)",
        "INSERT INTO consents (customer_id, text_version, given_by, given_at) VALUES ('cus_1', '1', 'the caller', 1)",
        "INSERT INTO factor_failures (factor, trunk, attested, call_id, at) VALUES ('voice', 'carrier', '1', 'call_1', 1)",
        "INSERT INTO audit (id, at, actor, action, subject, detail) VALUES ('aud_0', 1, 'test', 'did', 'it', '{\"a\":1}')",
        "INSERT INTO outbox (id, at, topic, payload) VALUES ('out_1', 1, 'payment.succeeded', '{}')",
    ]
    .map(str::to_owned)
    .into();
    let money = r#"{"minor":2000,"currency":"USD"}"#;
    let states = [
        ("1", "pending", "prepared", r#"{"state":"prepared"}"#.to_owned()),
        ("2", "pending", "dispatched", format!(r#"{{"state":"dispatched",{SENT}}}"#)),
        ("3", "paid", "succeeded", r#"{"state":"succeeded","at":2,"gateway_reference":"g"}"#.to_owned()),
        ("4", "failed", "declined", r#"{"state":"declined","at":2,"reason":"do_not_honour"}"#.to_owned()),
    ];
    // Attempts from before there were other operations than charges.
    let in_doubt = [("5", format!(r#""mismatch","charged":{money}"#)), ("6", r#""no_answer""#.to_owned())].map(|(i, doubt)| {
        let detail = format!(r#"{{"state":"needs_reconciliation",{SENT},"doubt":{{"doubt":{doubt}}}}}"#);
        (i, "pending", "needs_reconciliation", detail)
    });
    for (i, status, state, detail) in states.into_iter().chain(in_doubt.into_iter().filter(|_| n < 5)) {
        all.push(format!(
            "INSERT INTO requests (id, customer_id, payee_id, amount_minor, currency, status, created_at)
             VALUES ('req_{i}', 'cus_1', 'pay_1', 1999, 'USD', 'open', 1)"
        ));
        all.push(format!(
            "INSERT INTO intents (id, customer_id, request_id, payee_id, card_id, last4, call_id, amount_minor, currency, status, evidence,
                                  created_at)
             VALUES ('int_{i}', 'cus_1', 'req_{i}', 'pay_1', 'card_1', '1111', 'call_1', 1999, 'USD', '{status}',
                     '{{\"policy_version\":\"1\"}}', 1)"
        ));
        let (columns, values) = match (n >= 5, ["succeeded", "declined"].contains(&state)) {
            (false, _) => ("", ""),
            (true, true) => (", operation, gateway, due_at", ", 'charge', 'sandbox', NULL"),
            (true, false) => (", operation, gateway, due_at", ", 'charge', 'sandbox', 7"),
        };
        all.push(format!(
            "INSERT INTO attempts (id, intent_id, amount_minor, currency, state, detail, version, created_at{columns})
             VALUES ('att_{i}', 'int_{i}', 1999, 'USD', '{state}', '{detail}', 0, 7{values})"
        ));
        let (column, cause) = if n >= 5 { (", cause", format!(", 'att_{i}'")) } else { ("", String::new()) };
        all.push(format!(
            "INSERT INTO transfers (id, kind, debit, credit, amount_minor, currency, intent_id, at{column})
             VALUES ('tr_{i}', 'pending', 'acquirer:sandbox:USD', 'payee:pay_1:USD', 1999, 'USD', 'int_{i}', 7{cause})"
        ));
    }
    let since = [
        (
            2,
            "INSERT INTO challenges (customer_id, digest, drawn_at)
             VALUES ('cus_1', CAST('01234567890123456789012345678901' AS BLOB), 1)",
        ),
        (3, "INSERT INTO fingerprints (customer_id, sealed, heard_at, expires_at) VALUES ('cus_1', CAST('print' AS BLOB), 1, 9)"),
        (
            4,
            "INSERT INTO earlier_templates (customer_id, seq, model, sealed, created_at)
             VALUES ('cus_1', 1, 'm', CAST('before' AS BLOB), 1)",
        ),
        (
            5,
            "INSERT INTO disputes (id, intent_id, reference, amount_minor, currency, reason, state, opened_at)
             VALUES ('dsp_1', 'int_3', 'd1', 5, 'USD', 'fraudulent', 'opened', 8)",
        ),
        (6, "INSERT INTO master_keys (version, proof, since) VALUES (1, CAST('proof' AS BLOB), 0)"),
        (6, "INSERT INTO card_keys (card_id, key_version, wrapped) VALUES ('card_1', 1, CAST('wrapped' AS BLOB))"),
        (8, "INSERT INTO bank_references (reference, length, open, quarantined) VALUES ('req_1', 1, '1', 0)"),
        (
            8,
            "INSERT INTO bank_events (reference, seq, at, kind, message_id, detail)
             VALUES ('req_1', 0, 1, 'received', 'm1', '{\"kind\":\"received\"}')",
        ),
        (
            10,
            "INSERT INTO papers (kind, id, owner, about, open, due_at, version, body, created_at)
             VALUES ('approval', 'apr_1', 'cus_1', 'req_1', '1', 9, 0, '{}', 1)",
        ),
        (
            10,
            "INSERT INTO code_deliveries (code_id, customer_id, sealed, expires_at, next_try_at)
             VALUES ('otc_1', 'cus_1', CAST('sealed' AS BLOB), 9, 0)",
        ),
        (
            10,
            "INSERT INTO papers (kind, id, owner, about, open, version, body, created_at)
             VALUES ('mandate', 'mnd_1', 'cus_1', 'pay_1 USD', '1', 0, '{\"consent\":\"call_1\"}', 3),
                    ('mandate', 'mnd_2', 'cus_1', 'pay_2 USD', '0', 1, '{\"consent\":\"otc_1\",\"revoked_at\":8}', 4)",
        ),
        (
            19,
            "INSERT INTO papers (kind, id, owner, about, open, due_at, version, body, created_at)
             VALUES ('main_account', 'mac_1', 'cus_1', 'main', '1', NULL, 0, '{}', 1)",
        ),
        (
            19,
            r#"INSERT INTO papers (kind, id, owner, about, open, version, body, created_at) VALUES
               ('account', 'acc_1', 'cus_1', 'pay_1', '1', 1, '{"state":{"state":"active","consent":
                   {"wording":"w-1","digest":"d","by":"cus_1","how":{"how":"link"},"at":6}}}', 5),
               ('account', 'acc_2', 'cus_1', 'pay_2', '0', 2, '{"state":{"state":"closed","at":8,"consent":
                   {"wording":"w-1","digest":"d","by":"cus_1","how":{"how":"api","key":"key_1"},"at":7}}}', 5),
               ('account', 'acc_3', 'cus_1', 'pay_3', '1', 0, '{"state":{"state":"pending_consent"}}', 5),
               ('account', 'acc_4', 'cus_1', 'pay_4', '0', 1, '{"state":{"state":"closed","at":9,"consent":null}}', 5)"#,
        ),
        (
            19,
            "INSERT INTO audit (id, at, actor, action, subject, detail) VALUES
             ('aud_91', 6, 'cus_1', 'account.consented', 'acc_1', '{}'), ('aud_92', 8, 'api:key_1', 'account.closed', 'acc_2', '{}')",
        ),
        (
            15,
            "INSERT INTO callbacks (id, approval_id, customer_id, purpose, state, tries, due_at, expires_at, created_at)
             VALUES ('cbk_1', 'apr_1', 'cus_1', 'decide', 'waiting', 1, 5, 9, 1)",
        ),
        (
            13,
            "INSERT INTO api_keys (id, tenant, name, digest, scopes, created_at)
             VALUES ('key_1', 'default', 'shop', CAST('01234567890123456789012345678901' AS BLOB), 'payees:read', 1)",
        ),
        (
            13,
            "INSERT INTO api_answers (api_key, key, request, begun_at, leased_to, expires_at, status, body)
             VALUES ('key_1', 'k', CAST('01234567890123456789012345678901' AS BLOB), 1, 2, 9, 201, CAST('{}' AS BLOB))",
        ),
    ];
    all.extend(since.into_iter().filter(|(from, _)| n >= *from).map(|(_, sql)| sql.to_owned()));
    all
}

/// `before` is a part of `after`. Rows and columns may have come; what was there is as it was, but for what migrations mean to change.
fn kept(before: &Rows, after: &Rows) {
    for (table, rows) in before {
        let now = &after[table];
        let text = |row: &BTreeMap<String, Option<String>>| format!("{row:?}");
        for row in rows.iter().filter(|row| !text(row).contains("doubt")) {
            let there = now.iter().any(|new| {
                // A rebuilt table may lack a column; none may have changed.
                row.iter().all(|(column, value)| new.get(column).is_none_or(|new| new == value))
                    && row.keys().filter(|column| new.contains_key(*column)).count() >= row.len().min(2)
            });
            assert!(there, "{table} lost {row:?}; it has {now:?}");
        }
        assert!(now.len() >= rows.len(), "{table}");
    }
}

/// Its one attempt is the charge that was written as number `n`.
fn as_charged(payment: &Payment, n: &str) {
    let attempt = &payment.attempts[0];
    assert_eq!((attempt.operation, attempt.number.to_string()), (Operation::Charge, n.to_owned()));
    assert_eq!(payment.transfers[0].cause.as_str(), attempt.id.as_str());
}

async fn judged(bench: Bench, from: i64) {
    for (n, standing) in [("1", Standing::Pending), ("2", Standing::Pending), ("3", Standing::Paid), ("4", Standing::Failed)] {
        let payment = bench.store.payment(&IntentId::parse(&format!("int_{n}")).unwrap()).await.unwrap().unwrap();
        let disputed = n == "3" && from >= 5;
        assert!(payment.standing() == standing || disputed, "{n} is {:?}", payment.standing());
        as_charged(&payment, n);
    }
    if from < 5 {
        // A mismatch waits for a person.
        for (n, standing) in [("5", Standing::Conflicted), ("6", Standing::Pending)] {
            let payment = bench.store.payment(&IntentId::parse(&format!("int_{n}")).unwrap()).await.unwrap().unwrap();
            assert_eq!(payment.standing(), standing, "{n}");
            as_charged(&payment, n);
            if let AttemptState::Conflicted { charged, gateway_reference, sends, .. } = &payment.attempts[0].state {
                assert_eq!((*charged, gateway_reference, *sends), (Money::new(2000, Currency::Usd).unwrap(), &None, 1));
            }
        }
    }
    assert_eq!(bench.store.unfinished(9).await.unwrap().len(), if from < 5 { 4 } else { 2 });
    ledger::verify(&bench.store.transfers().await.unwrap()).unwrap();
    assert_eq!(bench.store.audit_trail(99).await.unwrap().last().unwrap().id.as_str(), "aud_0");
    let (unsealed, told) = (bench.store.unsealed().await.unwrap(), bench.store.audit_trail(99).await.unwrap().len());
    assert_eq!(unsealed, u64::try_from(told).unwrap(), "what was written before there was a chain waits for its place in it");
    if from < CONSENTS_CAME {
        // What templates and mandates hold is a consent of its own now; one that was taken back ended.
        let all = bench.store.consents_of(&CustomerId::parse("cus_1").unwrap()).await.unwrap();
        let told = |c: &Consent| (c.purpose, c.about.clone(), c.given_at.0, c.withdrawn.as_ref().map(|w| w.at.0));
        let mandates =
            [(Purpose::Mandate, Some("mnd_1".to_owned()), 3, None), (Purpose::Mandate, Some("mnd_2".to_owned()), 4, Some(8))];
        let voice = [(Purpose::Voiceprint, None, 1, None)];
        let expected = voice.into_iter().chain(mandates.into_iter().filter(|_| from >= 10)).collect::<Vec<_>>();
        assert_eq!(all.iter().map(told).collect::<Vec<_>>(), expected);
    }
    if from == ACCOUNTS_CAME {
        // What accounts hold, too, each with the audit row that told of it, where one did.
        let consent = async |id: &str| bench.store.consent(&ConsentId::parse(id).unwrap()).await.unwrap();
        let (held, ended) = (consent("cns_91").await.unwrap(), consent("cns_2").await.unwrap());
        let said =
            |c: &Consent| (c.purpose, c.about.clone().unwrap(), c.text_version.clone(), c.given_at.0, c.how, c.given_by.clone());
        let first = (Purpose::Account, "acc_1".to_owned(), "w-1".to_owned(), 6, GivenHow::Link, "the customer".to_owned());
        let second = (Purpose::Account, "acc_2".to_owned(), "w-1".to_owned(), 7, GivenHow::Api, "api:key_1".to_owned());
        assert_eq!((said(&held), said(&ended)), (first, second));
        let end = ended.withdrawn.unwrap();
        assert_eq!((held.withdrawn, end.at.0, end.by.as_str(), end.how), (None, 8, "api:key_1", WithdrawnHow::Api));
        assert_eq!((consent("cns_3").await, consent("cns_4").await), (None, None), "nobody agreed to those");
        for id in ["acc_1", "acc_2", "acc_3", "acc_4"] {
            // What was read is what the program writes.
            let paper = bench.store.paper(PaperKind::Account, id).await.unwrap().unwrap();
            let body: serde_json::Value = serde_json::from_str(&paper.body).unwrap();
            let state: AccountState = serde_json::from_value(body["state"].clone()).unwrap();
            assert_eq!(matches!(state, AccountState::Closed { .. }), !paper.open);
        }
    }
    if from >= CONSENTS_CAME {
        assert!(bench.sql("UPDATE consents SET given_at = 0").await.is_err_and(|e| e.contains("append-only")));
    }
    let card = bench.store.card(&crate::ids::CardId::parse("card_1").unwrap()).await.unwrap().unwrap();
    assert_eq!(card.sealed.body, b"sealed");
    // The newest version's rules are in force over old rows too.
    assert!(bench.sql("DELETE FROM transfers").await.is_err_and(|e| e.contains("append-only")));
    assert!(bench.sql("UPDATE attempts SET version = 9 WHERE id = 'att_3'").await.is_err_and(|e| e.contains("does not change")));
}

on_both!(a_database_of_a_newer_version_is_left_alone);

async fn a_database_of_a_newer_version_is_left_alone(desk: Bench) {
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99, 'later', true, CAST('0' AS BLOB), 1)";
    desk.sql(&if desk.on_postgres() { later.replace("BLOB", "bytea") } else { later.to_owned() }).await.unwrap();
    desk.close().await;
    let error = desk.place.try_open().await.unwrap_err();
    assert!(error.to_string().contains("newer voicepay"), "{error}");
}

#[tokio::test]
async fn every_earlier_version_comes_to_the_newest_on_sqlite() {
    let versions: Vec<i64> = sqlite::migrations().iter().map(|m| m.version).collect();
    for n in versions {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", Place::file(&dir).display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let mut then = sqlite::migrations();
        then.migrations.to_mut().retain(|m| m.version <= n);
        then.run_direct(None, &mut connection, false).await.unwrap();
        for sql in filled(n) {
            sqlx::raw_sql(AssertSqlSafe(sql.clone()))
                .execute(&mut connection)
                .await
                .unwrap_or_else(|e| panic!("{n}: {sql}: {e}"));
        }
        let before = sqlite_rows(&mut connection).await;
        let place = Place::Sqlite(dir);
        let bench = Bench::at(place).await;
        kept(&before, &sqlite_rows(&mut connection).await);
        let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut connection).await.unwrap();
        assert!(broken.is_empty());
        let whole: String = sqlx::query("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap().get(0);
        assert_eq!(whole, "ok");
        judged(bench, n).await;
    }
}

#[tokio::test]
async fn every_earlier_version_comes_to_the_newest_on_postgres() {
    let versions: Vec<i64> = postgres::migrations().iter().map(|m| m.version).collect();
    assert_eq!(versions, sqlite::migrations().iter().map(|m| m.version).collect::<Vec<_>>(), "one database lacks a migration");
    for n in versions {
        let Some(database) = Database::fresh().await else { return };
        let mut connection = PgConnection::connect(&database.url).await.unwrap();
        let mut then = postgres::migrations();
        then.migrations.to_mut().retain(|m| m.version <= n);
        then.run_direct(None, &mut connection, false).await.unwrap();
        for sql in filled(n) {
            let sql = sql.replace("AS BLOB", "AS bytea");
            sqlx::raw_sql(AssertSqlSafe(sql.clone()))
                .execute(&mut connection)
                .await
                .unwrap_or_else(|e| panic!("{n}: {sql}: {e}"));
        }
        let before = postgres_rows(&mut connection).await;
        let bench = Bench::at(Place::Postgres(database)).await;
        kept(&before, &postgres_rows(&mut connection).await);
        judged(bench, n).await;
    }
}

async fn sqlite_rows(connection: &mut SqliteConnection) -> Rows {
    let columns = sqlx::query(
        "SELECT m.name AS tab, c.name AS col FROM sqlite_schema m JOIN pragma_table_info(m.name) c
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx%'",
    );
    let columns = columns.fetch_all(&mut *connection).await.unwrap();
    let mut all = Rows::new();
    for (table, columns) in by_table(columns.iter().map(|row| (row.get("tab"), row.get("col")))) {
        let list: Vec<String> = columns.iter().map(|c| format!("CAST(\"{c}\" AS TEXT) AS \"{c}\"")).collect();
        let sql = AssertSqlSafe(format!("SELECT {} FROM {table}", list.join(", ")));
        let rows = sqlx::query(sql).fetch_all(&mut *connection).await.unwrap();
        let read = rows.iter().map(|row| columns.iter().map(|c| (c.clone(), row.get(c.as_str()))).collect());
        all.insert(table, read.collect());
    }
    all
}

async fn postgres_rows(connection: &mut PgConnection) -> Rows {
    let columns = sqlx::query(
        "SELECT table_name::text AS tab, column_name::text AS col FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%'",
    );
    let columns = columns.fetch_all(&mut *connection).await.unwrap();
    let mut all = Rows::new();
    for (table, columns) in by_table(columns.iter().map(|row| (row.get("tab"), row.get("col")))) {
        let list: Vec<String> = columns.iter().map(|c| format!("\"{c}\"::text AS \"{c}\"")).collect();
        let sql = AssertSqlSafe(format!("SELECT {} FROM {table}", list.join(", ")));
        let rows = sqlx::query(sql).fetch_all(&mut *connection).await.unwrap();
        let read = rows.iter().map(|row| columns.iter().map(|c| (c.clone(), row.get(c.as_str()))).collect());
        all.insert(table, read.collect());
    }
    all
}

fn by_table(columns: impl Iterator<Item = (String, String)>) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for (table, column) in columns {
        all.entry(table).or_default().push(column);
    }
    all
}
