//! How SQLite answers what the processor asks. The statements are taken out of the source, so that none is forgotten: whatever
//! grows with the payments is searched by an index and never scanned, so that a payment costs the same whatever has gone
//! before.

use sqlx::{AssertSqlSafe, Row};

use super::SqliteStore;
use crate::store::StoreConfig;

/// The files whose statements run while a payment is made, carried on or asked about.
const SOURCES: [(&str, &str); 11] = [
    ("attempts.rs", include_str!("attempts.rs")),
    ("bank.rs", include_str!("bank.rs")),
    ("books.rs", include_str!("books.rs")),
    ("chain.rs", include_str!("chain.rs")),
    ("disputes.rs", include_str!("disputes.rs")),
    ("intents.rs", include_str!("intents.rs")),
    ("keys.rs", include_str!("keys.rs")),
    ("payments.rs", include_str!("payments.rs")),
    ("people.rs", include_str!("people.rs")),
    ("requests.rs", include_str!("requests.rs")),
    ("trail.rs", include_str!("trail.rs")),
];

/// Tables that grow with the payments.
const GROWING: [&str; 12] = [
    "attempts",
    "audit",
    "audit_chain",
    "bank_events",
    "bank_references",
    "commands",
    "disputes",
    "intents",
    "outbox",
    "receipts",
    "requests",
    "transfers",
];

/// Statements that read a table from one end, page by page or whole, because somebody asked for a list: how they begin, and why
/// it may be.
const LISTS: [(&str, &str); 5] = [
    ("SELECT * FROM intents ORDER BY created_at DESC", "the latest payments, by their index on time, until the limit"),
    ("SELECT * FROM disputes ORDER BY rowid DESC", "the latest disputes, until the limit"),
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

#[tokio::test]
async fn nothing_that_grows_with_the_payments_is_scanned() {
    let dir = tempfile::tempdir().unwrap();
    let cfg = StoreConfig { path: dir.path().join("voicepay.db"), ..StoreConfig::default() };
    let store = SqliteStore::open(&cfg).await.unwrap();
    let (mut explained, mut searched, mut wrong) = (0, 0, Vec::new());
    for (file, source) in SOURCES {
        for sql in statements(source) {
            if sql.starts_with("PRAGMA") {
                continue;
            }
            let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&store.pool).await;
            let rows = rows.unwrap_or_else(|e| panic!("{file}: {e}: {sql}"));
            explained += 1;
            let steps: Vec<String> = rows.iter().map(|row| row.get::<String, _>("detail")).collect();
            searched += steps.iter().filter(|s| s.starts_with("SEARCH")).count();
            // The plan of a plain INSERT shows the search for rows that refer to the new one. SQLite runs it only while a foreign key
            // is violated (OP_FkIfZero), which no statement here leaves behind.
            let plain_insert = sql.starts_with("INSERT") && sql.contains("VALUES");
            let listed = plain_insert || LISTS.iter().any(|(beginning, _)| sql.starts_with(beginning));
            for step in steps.iter().filter(|s| scans(s)) {
                if !listed {
                    wrong.push(format!("{file}: {step}: {}", sql.split_whitespace().collect::<Vec<_>>().join(" ")));
                }
            }
        }
    }
    assert!(
        explained > 90 && searched > 60,
        "{explained} statements were found, {searched} searches: the source is read wrongly"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a step of a plan goes through a growing table from end to end. (`SCAN attempts`, or `SCAN a` under an alias: our
/// aliases are the first letter of the table.)
fn scans(step: &str) -> bool {
    let Some(rest) = step.strip_prefix("SCAN ") else { return false };
    let table = rest.split(' ').next().unwrap_or(rest);
    // A partial index holds only what has no end yet, or waits.
    let small = ["attempts_due", "attempts_in_conflict", "outbox_waiting"].iter().any(|index| rest.contains(index));
    !small && GROWING.iter().any(|t| *t == table || (table.len() == 1 && t.starts_with(table)))
}
