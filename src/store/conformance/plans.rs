//! How the databases answer what the processor asks. The statements are taken out of the source, so that none is forgotten: whatever grows with the
//! payments is searched by an index and never scanned, so that a payment costs the same whatever has gone before.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

use super::{Bench, Place};
use crate::store::postgres::advance::ADVANCE;
use crate::store::postgres::submit::SUBMIT;
use crate::store::rows::clients::AUDIT_OF;

/// The files whose statements run while a payment is made, carried on or asked about.
macro_rules! sources {
    ($folder:literal, $($file:literal),*) => { [$(($file, include_str!(concat!("../", $folder, "/", $file)))),*] };
}
macro_rules! hot {
    ($folder:literal) => {
        sources!(
            $folder,
            "attempts.rs",
            "bank.rs",
            "books.rs",
            "callbacks.rs",
            "chain.rs",
            "disputes.rs",
            "intents.rs",
            "keys.rs",
            "notices.rs",
            "papers.rs",
            "payments.rs",
            "people.rs",
            "requests.rs",
            "trail.rs"
        )
    };
}

/// Tables that grow with the payments.
const GROWING: [&str; 16] = [
    "attempts",
    "audit",
    "audit_chain",
    "bank_events",
    "bank_references",
    "callbacks",
    "code_deliveries",
    "commands",
    "deliveries",
    "disputes",
    "intents",
    "outbox",
    "papers",
    "receipts",
    "requests",
    "transfers",
];

/// Partial indexes that hold only what has no end yet, or waits: reading all of one costs the same whatever has gone before.
const SMALL: [&str; 10] = [
    "attempts_due",
    "attempts_in_conflict",
    "authorisations_by_expiry",
    "callbacks_due",
    "deliveries_dead",
    "deliveries_heads",
    "deliveries_waiting",
    "open_bank_references",
    "outbox_waiting",
    "quarantined_bank_references",
];

/// Statements that read a table from one end, page by page or whole, because somebody asked for a list: how they begin, and why it may be.
const LISTS: [(&str, &str); 7] = [
    ("SELECT * FROM callbacks ORDER BY created_at DESC", "the latest, by their index on time, until the limit"),
    ("SELECT * FROM intents ORDER BY created_at DESC", "the latest payments, by their index on time, until the limit"),
    ("SELECT * FROM disputes ORDER BY rowid DESC", "the latest disputes, until the limit"),
    ("SELECT * FROM disputes ORDER BY seq DESC", "the same"),
    ("SELECT * FROM transfers ORDER BY seq", "the whole books, for who adds them up"),
    ("SELECT id, at, actor, action, subject, detail FROM audit ORDER BY seq DESC", "the latest rows, until the limit"),
    ("SELECT t.id AS subject", "a check of the whole books against the whole audit trail"),
];

/// The texts that stand as literals after `sqlx::query(` and its kin, and in what goes to the database in one piece.
fn statements(source: &'static str) -> Vec<&'static str> {
    let literal = |(at, _): (usize, &str)| {
        let rest = &source[at..];
        let text = rest[rest.find('(')? + 1..].trim_start().strip_prefix('"')?;
        text.split('"').next()
    };
    source.match_indices("sqlx::query").chain(source.match_indices(".add(")).filter_map(literal).collect()
}

fn listed(sql: &str) -> bool {
    LISTS.iter().any(|(beginning, _)| sql.starts_with(beginning))
}

/// What was found of all statements of a database.
#[derive(Default)]
struct Found {
    explained: usize,
    searched: usize,
    wrong: Vec<String>,
}

impl Found {
    /// `scanned`: the steps of this statement's plan that go through a growing table.
    fn add(&mut self, file: &str, sql: &str, searches: usize, scanned: Vec<String>) {
        self.explained += 1;
        self.searched += searches;
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        self.wrong.extend(scanned.into_iter().map(|step| format!("{file}: {step}: {sql}")));
    }

    fn judged(self) {
        let Self { explained, searched, wrong } = self;
        assert!(explained > 80 && searched > 60, "{explained} statements, {searched} searches: the source is read wrongly");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[tokio::test]
async fn on_sqlite_nothing_that_grows_with_the_payments_is_scanned() {
    let bench = Bench::sqlite().await;
    let place = bench.config().path;
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", place.display())).await.unwrap();
    let mut found = Found::default();
    for (file, source) in hot!("sqlite") {
        for sql in statements(source).into_iter().filter(|sql| !sql.starts_with("PRAGMA")) {
            let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut connection).await;
            let rows = rows.unwrap_or_else(|e| panic!("{file}: {e}: {sql}"));
            let steps: Vec<String> = rows.iter().map(|row| row.get::<String, _>("detail")).collect();
            let searches = steps.iter().filter(|s| s.starts_with("SEARCH")).count();
            // The plan of a plain INSERT shows the search for rows that refer to the new one. SQLite runs it only while a foreign key
            // is violated (OP_FkIfZero), which no statement here leaves behind.
            let may = (sql.starts_with("INSERT") && sql.contains("VALUES")) || listed(sql);
            found.add(file, sql, searches, steps.into_iter().filter(|s| !may && scans(s)).collect());
        }
    }
    found.judged();
    let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {AUDIT_OF}"))).fetch_all(&mut connection).await.unwrap();
    let steps: Vec<String> = plan.iter().map(|row| row.get::<String, _>("detail")).collect();
    assert!(matches!(&steps[..], [one] if one.contains("SEARCH") && one.contains("audit_by_subject")), "{steps:?}");
}

/// Whether a step of SQLite's goes through a growing table from end to end. (`SCAN attempts`, or `SCAN a` under an alias: our aliases are the
/// first letter of the table.)
fn scans(step: &str) -> bool {
    let Some(rest) = step.strip_prefix("SCAN ") else { return false };
    let table = rest.split(' ').next().unwrap_or(rest);
    let small = SMALL.iter().any(|index| rest.contains(index));
    !small && GROWING.iter().any(|t| *t == table || (table.len() == 1 && t.starts_with(table)))
}

/// Enough payments that the planner has to choose, most of them over: without its rules, as only their number and spread matter here.
const YEARS: &str = "SET session_replication_role = replica;
    INSERT INTO requests (id, customer_id, payee_id, amount_minor, currency, status, held_by, created_at)
        SELECT 'req_' || n, 'cus_' || n % 500, 'pay_1', 1999, 'USD', 'paid', 'int_' || n, n FROM generate_series(1, 10000) n;
    INSERT INTO intents (id, customer_id, request_id, payee_id, card_id, last4, call_id, amount_minor, currency, capture, status, evidence,
                         authorisation_expires_at, created_at)
        SELECT 'int_' || n, 'cus_' || n % 500, 'req_' || n, 'pay_1', 'card_' || n % 500, '1111', 'call_' || n, 1999, 'USD', 'manual',
               CASE WHEN n % 1000 = 0 THEN 'pending' ELSE 'paid' END, '{}', n, n FROM generate_series(1, 10000) n;
    INSERT INTO attempts (id, intent_id, operation, of_attempt, gateway, amount_minor, currency, state, detail, gateway_reference, version,
                          due_at, created_at)
        SELECT 'att_' || n || o.operation, 'int_' || n, o.operation, o.of_attempt, 'sandbox', 1999, 'USD',
               CASE WHEN n % 1000 = 0 THEN 'conflicted' ELSE 'succeeded' END, '{}', 'g_' || n, 1, CASE WHEN n % 1000 = 0 THEN n END, n
        FROM generate_series(1, 10000) n, (VALUES ('authorise', NULL), ('capture', 'att_1')) o (operation, of_attempt);
    INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, cause, at)
        SELECT 'tr_' || n || k.kind, k.kind, 'tr_' || n || k.of_kind, 'acquirer:sandbox:USD', 'payee:pay_1:USD', 1999, 'USD', 'int_' || n,
               'att_' || n, n FROM generate_series(1, 10000) n, (VALUES ('pending', NULL), ('post', 'pending')) k (kind, of_kind);
    INSERT INTO receipts (id, reference, intent_id, body, at)
        SELECT 'rcp_' || n, lpad(n::text, 10, '0'), 'int_' || n, '{}', n FROM generate_series(1, 10000) n;
    INSERT INTO audit (id, at, actor, action, subject, detail)
        SELECT 'aud_' || n, n, 'test', 'did', 'int_' || n, '{}' FROM generate_series(1, 30000) n;
    INSERT INTO audit_chain (position, seq, hash) SELECT seq - 1, seq, sha256(id::text::bytea) FROM audit;
    INSERT INTO outbox (id, at, topic, payload, delivered_at)
        SELECT 'out_' || n, n, 't', '{}', CASE WHEN n % 1000 > 0 THEN n END FROM generate_series(1, 10000) n;
    INSERT INTO endpoints (id, tenant, url, topics, secrets, version, created_at)
        SELECT 'whk_' || n, 'default', 'https://shop.example', '[]', '[]', 0, 1 FROM generate_series(1, 20) n;
    INSERT INTO deliveries (endpoint_id, outbox_id, position, subject, state, next_at, ended_at)
        SELECT 'whk_' || n % 20, 'out_' || n, n, 'req_' || n, CASE WHEN n % 1000 = 0 THEN 'waiting' WHEN n % 1000 = 1 THEN 'dead'
               ELSE 'delivered' END, n, CASE WHEN n % 1000 > 0 THEN n END FROM generate_series(1, 10000) n;
    INSERT INTO commands (key, intent_id, operation, attempt_id, created_at)
        SELECT 'k' || n, 'int_' || n, 'capture', 'att_' || n || 'capture', n FROM generate_series(1, 10000) n;
    INSERT INTO disputes (id, intent_id, reference, amount_minor, currency, reason, state, opened_at)
        SELECT 'dsp_' || n, 'int_' || n, 'dp_' || n, 1, 'USD', 'r', 'opened', n FROM generate_series(1, 10000) n;
    INSERT INTO papers (kind, id, owner, about, open, due_at, version, body, created_at)
        SELECT k.kind, k.kind || n, 'cus_' || n % 500, 'req_' || n, n % 1000 = 0, CASE WHEN n % 1000 = 0 THEN n END, 1, '{}', n
        FROM generate_series(1, 10000) n, (VALUES ('approval'), ('code'), ('mandate')) k (kind);
    INSERT INTO code_deliveries (code_id, customer_id, sealed, expires_at, next_try_at)
        SELECT 'otc_' || n, 'cus_' || n % 500, '', n, CASE WHEN n % 1000 = 0 THEN n END FROM generate_series(1, 10000) n;
    INSERT INTO bank_references (reference, length, open, quarantined)
        SELECT 'req_' || n, 3, n % 1000 = 0, CASE WHEN n % 1000 = 1 THEN 1 ELSE 0 END FROM generate_series(1, 10000) n;
    INSERT INTO bank_events (reference, seq, at, kind, message_id, detail)
        SELECT 'req_' || n, e.seq, n, e.kind, CASE WHEN e.kind = 'received' THEN 'msg_' || n END, '{}'
        FROM generate_series(1, 10000) n, (VALUES (0, 'confirmed'), (1, 'received'), (2, 'answered')) e (seq, kind);
    INSERT INTO callbacks (id, approval_id, customer_id, purpose, state, tries, due_at, expires_at, created_at)
        SELECT 'cbk_' || n, 'apr_' || n, 'cus_' || n % 500, 'decide', CASE WHEN n % 1000 = 0 THEN 'waiting' ELSE 'over' END, 1,
               CASE WHEN n % 1000 = 0 THEN n END, n, n FROM generate_series(1, 10000) n;
    SET session_replication_role = origin; ANALYZE";

/// The planner must not know the parameters, as it does not of a statement that was prepared once.
#[tokio::test]
async fn on_postgresql_nothing_that_grows_with_the_payments_is_scanned() {
    let Some(bench) = Bench::postgres().await else { return };
    let Place::Postgres(database) = &bench.place else { panic!("it is on PostgreSQL") };
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql(YEARS).execute(&mut connection).await.unwrap();
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut connection).await.unwrap();
    let mut found = Found::default();
    let all = hot!("postgres").into_iter().flat_map(|(file, source)| statements(source).into_iter().map(move |sql| (file, sql)));
    for (file, sql) in all.chain([("submit.rs", SUBMIT), ("advance.rs", ADVANCE)]) {
        if ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].iter().all(|verb| !sql.trim_start().starts_with(verb)) {
            continue; // LOCK, SET
        }
        let plan = explained(&mut connection, sql).await.unwrap_or_else(|e| panic!("{file}: {e}: {sql}"));
        let (mut searches, mut scanned) = (0, Vec::new());
        walk(&plan[0]["Plan"], "", &mut searches, &mut scanned);
        if listed(sql) {
            scanned.clear();
        }
        found.add(file, sql, searches, scanned);
    }
    found.judged();
    let plan = explained(&mut connection, AUDIT_OF).await.unwrap().to_string();
    assert!(plan.contains("\"Index Name\":\"audit_by_subject\"") && !plan.contains("Sort"), "{plan}");
    // It would be seen.
    sqlx::raw_sql("DROP INDEX attempts_by_intent").execute(&mut connection).await.unwrap();
    let plan = explained(&mut connection, "SELECT * FROM attempts WHERE intent_id = $1").await.unwrap();
    let mut scanned = Vec::new();
    walk(&plan[0]["Plan"], "", &mut 0, &mut scanned);
    assert_eq!(scanned.len(), 1, "{plan}");
}

/// The plan of a statement. Its parameters have the types that it gives them; where it says two (text, and a text of ours), the first, as sqlx does.
async fn explained(connection: &mut PgConnection, sql: &str) -> Result<Value, String> {
    let count = (1..=99).rev().find(|n| sql.contains(&format!("${n}"))).unwrap_or(0);
    let mut types = vec!["unknown"; count];
    let in_brackets = |list: &[&str]| if list.is_empty() { String::new() } else { format!("({})", list.join(", ")) };
    loop {
        let (types_are, values) = (in_brackets(&types), in_brackets(&vec!["NULL"; count]));
        let sql = format!("PREPARE one{types_are} AS {sql}; EXPLAIN (FORMAT JSON) EXECUTE one{values}; DEALLOCATE one");
        let error = match sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut *connection).await {
            Ok(rows) => return Ok(serde_json::from_str(rows[0].try_get_unchecked::<&str, _>(0).unwrap()).unwrap()),
            Err(error) => error.to_string(),
        };
        let inconsistent =
            error.split_once("deduced for parameter $").and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
        match inconsistent.and_then(|n| types.get_mut(n.checked_sub(1)?)).filter(|t| **t == "unknown") {
            Some(unknown) => *unknown = "text",
            None => return Err(error),
        }
    }
}

/// Counts what searches an index, and names what reads a growing table without. `above`: the table of the node above; a bitmap's stands there.
fn walk(node: &Value, above: &str, searches: &mut usize, scanned: &mut Vec<String>) {
    let text = |key: &str| node[key].as_str().unwrap_or_default();
    let (kind, index) = (text("Node Type"), text("Index Name"));
    let table = if text("Relation Name").is_empty() { above } else { text("Relation Name") };
    let searched = node.get("Index Cond").is_some();
    *searches += usize::from(searched);
    let whole = ["Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"].contains(&kind) && !searched;
    if whole && GROWING.contains(&table) && !SMALL.contains(&index) {
        scanned.push(format!("{kind} of all of {table} {index}"));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, table, searches, scanned);
    }
}
