//! A database that is as big as after years. One payment is made the real way; its rows are then copied by SQL, thousands a
//! transaction, under new identifiers, times and payers. Triggers, foreign keys and indexes work as ever, and the audit trail
//! is sealed by the sealer.

use std::time::Duration;

use tokio::time::Instant;
use voicepay::processor::Outcome;

use crate::house::{Database, House, Kind, Raw};

/// Payments a transaction.
const BATCH: u64 = 10_000;
/// Rows that a payment leaves: request, intent, attempt, two in the books, receipt, six audit rows with their place in the
/// chain, two of news.
const ROWS_EACH: u64 = 20;
/// Tables that a payment writes to.
const TABLES: [&str; 8] = ["requests", "intents", "attempts", "transfers", "receipts", "audit", "outbox", "audit_chain"];

/// How far it got.
pub struct Filled {
    /// Rows of all tables that a payment writes to.
    pub rows: u64,
    pub payments: u64,
    pub took: Duration,
}

/// Copies payments until there are about `rows` rows. Never removes any.
pub async fn up_to(house: &House, database: &Database, rows: u64) -> Filled {
    let began = Instant::now();
    let mut raw = Raw::open(database).await;
    let (now, _) = count(&mut raw).await;
    if now < rows {
        let sample = house.orders(1).await.remove(0);
        let request = sample.request.clone();
        let intent = house.processor().submit(sample).await.unwrap();
        let paid = house.processor().outcome(&intent, Duration::from_secs(9)).await.unwrap();
        assert!(matches!(paid, Outcome::Paid(_)));
        let mut missing = (rows - now) / ROWS_EACH;
        if database.kind == Kind::Sqlite {
            // What is lost when the machine dies now, is filled again; the payments that are measured go by the store's own
            // connections.
            raw.run("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; PRAGMA busy_timeout = 60000").await;
        }
        raw.run(people(database.kind)).await;
        raw.run(&news(database.kind, intent.as_str())).await;
        while missing > 0 {
            let n = missing.min(BATCH);
            raw.run(&copies(database.kind, n, intent.as_str(), request.as_str())).await;
            missing -= n;
        }
    }
    house.sealed().await;
    let tidy = match database.kind {
        Kind::Sqlite => ["PRAGMA wal_checkpoint(TRUNCATE)", "ANALYZE"],
        Kind::Postgres => ["VACUUM ANALYZE", "CHECKPOINT"],
    };
    for sql in tidy {
        raw.run(sql).await; // each by itself: neither can share a transaction
    }
    let (rows, payments) = count(&mut raw).await;
    Filled { rows, payments, took: began.elapsed() }
}

async fn count(raw: &mut Raw) -> (u64, u64) {
    let all = TABLES.map(|t| format!("(SELECT count(*) FROM {t})")).join(" + ");
    let rows = raw.number(&format!("SELECT {all}")).await;
    let payments = raw.number("SELECT count(*) FROM intents").await;
    (u64::try_from(rows).unwrap(), u64::try_from(payments).unwrap())
}

/// Who pays: everybody in turn.
fn people(kind: Kind) -> &'static str {
    match kind {
        Kind::Sqlite => {
            "CREATE TEMP TABLE IF NOT EXISTS people (n INTEGER PRIMARY KEY, customer TEXT, card TEXT);
             INSERT OR REPLACE INTO people SELECT row_number() OVER () - 1, customer_id, id FROM cards"
        }
        Kind::Postgres => {
            "CREATE TEMP TABLE IF NOT EXISTS people (n BIGINT PRIMARY KEY, customer TEXT, card TEXT);
             INSERT INTO people SELECT row_number() OVER () - 1, customer_id, id FROM cards ON CONFLICT DO NOTHING"
        }
    }
}

/// What was told of the sample, apart: each copy tells the same.
fn news(kind: Kind, intent: &str) -> String {
    let of_sample = match kind {
        Kind::Sqlite => "json_extract(payload, '$.intent')",
        Kind::Postgres => "payload::json ->> 'intent'",
    };
    format!(
        "CREATE TEMP TABLE news AS SELECT topic, payload FROM outbox
         WHERE {of_sample} = '{intent}' AND seq > (SELECT max(seq) - 1000 FROM outbox)"
    )
}

/// One transaction that copies the sample `n` times. An identifier is made as the program makes it: its time, then randomness.
///
/// Receipts' references are scattered like the program's and can't meet: they begin with 0, which those never do, and the rest is the receipt's
/// number times a number without a factor in common with 10⁹.
fn copies(kind: Kind, n: u64, intent: &str, request: &str) -> String {
    let scattered = "((SELECT count(*) FROM receipts) + k.k) * 777777777 % 1000000000";
    let batch = match kind {
        Kind::Sqlite => format!(
            "DROP TABLE IF EXISTS batch;
             CREATE TEMP TABLE batch AS
               WITH RECURSIVE k(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM k WHERE k + 1 < {n})
               SELECT k.k, s.created_at - {n} + k.k AS at,
                      printf('%012x', s.created_at - {n} + k.k) || substr(lower(hex(randomblob(10))), 2) AS r,
                      printf('%010d', {scattered}) AS reference, k.k % (SELECT count(*) FROM people) AS person
               FROM k, (SELECT created_at FROM intents WHERE id = '{intent}') s;"
        ),
        Kind::Postgres => format!(
            "DROP TABLE IF EXISTS batch;
             CREATE TEMP TABLE batch AS
               SELECT k.k, s.created_at - {n} + k.k AS at,
                      lpad(to_hex(s.created_at - {n} + k.k), 12, '0') || substr(md5(random()::text || k.k), 1, 19) AS r,
                      lpad(({scattered})::text, 10, '0') AS reference,
                      k.k % (SELECT count(*) FROM people) AS person
               FROM generate_series(0, {n} - 1) k(k), (SELECT created_at FROM intents WHERE id = '{intent}') s;"
        ),
    };
    let transfer = |kind: &str, prefix: &str, of: &str| {
        format!(
            "INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, cause, at)
             SELECT 'tr_' || b.r || '{prefix}', '{kind}', {of}, t.debit, t.credit, t.amount_minor, t.currency, 'int_' || b.r,
                    'att_' || b.r, b.at
             FROM batch b, transfers t WHERE t.intent_id = '{intent}' AND t.kind = '{kind}';"
        )
    };
    // Audit rows of the books come by their triggers and take the transfer's or receipt's part, so the last digit tells who is
    // who.
    format!(
        "{begin};
         {batch}
         INSERT INTO requests (id, customer_id, payee_id, amount_minor, currency, due, expires_at, status, held_by, created_at)
         SELECT 'req_' || b.r, p.customer, t.payee_id, t.amount_minor, t.currency, t.due, t.expires_at, t.status, 'int_' || b.r, b.at
         FROM batch b JOIN people p ON p.n = b.person, requests t WHERE t.id = '{request}';
         INSERT INTO intents (id, customer_id, request_id, payee_id, card_id, last4, call_id, amount_minor, currency, capture, status,
                              evidence, created_at)
         SELECT 'int_' || b.r, p.customer, 'req_' || b.r, t.payee_id, p.card, t.last4, 'call_' || b.r, t.amount_minor, t.currency,
                t.capture, t.status, t.evidence, b.at
         FROM batch b JOIN people p ON p.n = b.person, intents t WHERE t.id = '{intent}';
         INSERT INTO attempts (id, intent_id, operation, gateway, amount_minor, currency, state, detail, gateway_reference, version, created_at)
         SELECT 'att_' || b.r, 'int_' || b.r, t.operation, t.gateway, t.amount_minor, t.currency, t.state, t.detail, 'sbx_' || b.r, t.version,
                b.at
         FROM batch b, attempts t WHERE t.intent_id = '{intent}';
         {pending}
         {post}
         INSERT INTO receipts (id, reference, intent_id, body, at)
         SELECT 'rcp_' || b.r || '2', b.reference, 'int_' || b.r, t.body, b.at
         FROM batch b, receipts t WHERE t.intent_id = '{intent}';
         INSERT INTO audit (id, at, actor, action, subject, detail)
         SELECT 'aud_' || b.r || CASE t.action WHEN 'charge.submitted' THEN '3' WHEN 'charge.dispatched' THEN '4' ELSE '5' END,
                b.at, t.actor, t.action, 'int_' || b.r, t.detail
         FROM batch b, audit t WHERE t.subject = '{intent}' AND t.actor <> 'books';
         INSERT INTO outbox (id, at, topic, payload, delivered_at)
         SELECT 'out_' || b.r || CASE t.topic WHEN 'payment.submitted' THEN '1' ELSE '2' END, b.at, t.topic, t.payload, b.at
         FROM batch b, news t;
         COMMIT;",
        begin = match kind {
            Kind::Sqlite => "BEGIN IMMEDIATE", // the sealer writes beside it
            Kind::Postgres => "BEGIN",
        },
        pending = transfer("pending", "0", "NULL"),
        post = transfer("post", "1", "'tr_' || b.r || '0'"),
    )
}
