//! The check of the books holds one page of payments in memory, however many there are, and finds what reading all of them at once would find. A
//! binary of its own: it counts what is allocated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use voicepay::ledger::{Balance, Books};
use voicepay::processor::check::{self, Report};
use voicepay::store::Store;

#[path = "money/people.rs"]
#[allow(dead_code)] // other tests need more of it
mod people;
#[path = "money/support.rs"]
#[allow(dead_code)]
mod support;

use support::{AMOUNT, House};

/// The system's allocator, and how much of it is in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)] // an allocator can't be written otherwise; both calls are handed on as they came
// SAFETY: `System` keeps the contract; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Checks the books; how much memory that took at most, in bytes, beyond what was in use before.
async fn checked(store: &dyn Store) -> (Report, usize) {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let report = check::books(store).await.unwrap();
    (report, PEAK.load(Ordering::Relaxed) - before)
}

/// Copies the one payment there is, `count` times, under new identifiers that begin with `batch`.
async fn copy(raw: &mut SqliteConnection, batch: u32, count: u32) {
    let id = |prefix: &str| format!("'{prefix}_' || k.r");
    let (intent, request, attempt) = (id("int"), id("req"), id("att"));
    let transfer = |kind: &str, nth: u8, of: &str| {
        format!(
            "INSERT INTO transfers (id, kind, of_id, debit, credit, amount_minor, currency, intent_id, cause, at)
             SELECT 'tr_' || k.r || '{nth}', kind, {of}, debit, credit, amount_minor, currency, {intent}, {attempt}, at
             FROM k, (SELECT * FROM transfers WHERE kind = '{kind}' ORDER BY seq LIMIT 1);"
        )
    };
    let sql = format!(
        "CREATE TEMP TABLE k AS
           WITH RECURSIVE k(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM k WHERE k + 1 < {count})
           SELECT printf('%011x%020x', {batch}, k) AS r, printf('%05d%05d', {batch}, k) AS reference FROM k;
         BEGIN;
         INSERT INTO requests (id, customer_id, payee_id, amount_minor, currency, due, expires_at, status, held_by, created_at)
         SELECT {request}, customer_id, payee_id, amount_minor, currency, due, expires_at, status, {intent}, created_at
         FROM k, (SELECT * FROM requests ORDER BY rowid LIMIT 1);
         INSERT INTO intents (id, customer_id, request_id, payee_id, card_id, last4, call_id, amount_minor, currency, capture, status,
                              evidence, created_at)
         SELECT {intent}, customer_id, {request}, payee_id, card_id, last4, call_id, amount_minor, currency, capture, status, evidence,
                created_at
         FROM k, (SELECT * FROM intents ORDER BY rowid LIMIT 1);
         INSERT INTO attempts (id, intent_id, operation, gateway, amount_minor, currency, state, detail, version, created_at)
         SELECT {attempt}, {intent}, operation, gateway, amount_minor, currency, state, detail, version, created_at
         FROM k, (SELECT * FROM attempts ORDER BY number LIMIT 1);
         {pending}
         {post}
         INSERT INTO receipts SELECT 'rcp_' || k.r || '2', k.reference, {intent}, body, at
         FROM k, (SELECT * FROM receipts ORDER BY rowid LIMIT 1);
         COMMIT;
         DROP TABLE k;",
        pending = transfer("pending", 0, "NULL"),
        post = transfer("post", 1, "'tr_' || k.r || '0'"),
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *raw).await.unwrap();
}

#[tokio::test]
async fn the_books_are_checked_in_the_memory_of_a_page_and_all_that_is_wrong_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path()).await;
    let order = house.furnish("4111111111111111").await;
    house.processor.submit(order).await.unwrap();
    house.finish_everything().await;
    let mut raw = SqliteConnection::connect(&format!("sqlite://{}", dir.path().join("voicepay.db").display())).await.unwrap();

    copy(&mut raw, 1, 1_000).await;
    let (few, memory_of_few) = checked(&*house.store).await;
    copy(&mut raw, 2, 5_000).await;
    let (many, memory_of_many) = checked(&*house.store).await;
    for (report, payments) in [(&few, 1_001), (&many, 6_001)] {
        assert_eq!((report.payments, report.transfers, report.open), (payments, payments * 2, 0));
        assert_eq!(report.findings, Vec::<String>::new());
        let acquirer = report.balances.iter().find(|(name, _)| name.is_acquirer()).unwrap().1;
        let paid = i64::try_from(payments).unwrap() * AMOUNT;
        assert_eq!(*acquirer, Balance { debits_posted: paid, ..Balance::default() });
    }
    println!("{memory_of_few} bytes for 1,001 payments, {memory_of_many} for 6,001");
    assert!(memory_of_many < memory_of_few + memory_of_few / 4, "{memory_of_few} bytes for 1,001, {memory_of_many} for 6,001");

    // Somebody who can alter tables: a post of more than was reserved, one that is gone, one of another account.
    let tampered = "DROP TRIGGER transfers_never_change; DROP TRIGGER transfers_never_go;
        UPDATE transfers SET amount_minor = 5000 WHERE seq = (SELECT seq FROM transfers WHERE kind = 'post' ORDER BY seq LIMIT 1 OFFSET 100);
        DELETE FROM transfers WHERE seq = (SELECT seq FROM transfers WHERE kind = 'post' ORDER BY seq LIMIT 1 OFFSET 200);
        UPDATE transfers SET credit = 'payee:else:USD' WHERE seq = (SELECT seq FROM transfers WHERE kind = 'post' ORDER BY seq LIMIT 1 OFFSET 300)";
    sqlx::raw_sql(tampered).execute(&mut raw).await.unwrap();
    let (wrong, _) = checked(&*house.store).await;
    // The same by holding every row in hand, in the order in which they were written.
    let mut books = Books::default();
    let mut expected = Vec::new();
    for transfer in house.store.transfers().await.unwrap() {
        if let Err(error) = books.apply(&transfer) {
            expected.push(error.to_string());
        }
    }
    assert_eq!(expected.len(), 2, "{expected:?}");
    assert!(expected.iter().all(|e| wrong.findings.contains(e)), "{expected:?} in {:?}", wrong.findings);
    let payments = wrong.findings.iter().filter(|f| f.starts_with("payment ")).count();
    assert!(payments >= 2 && wrong.findings.len() == expected.len() + payments, "{:?}", wrong.findings);
    assert_eq!((wrong.open, &wrong.balances), (books.open().count(), books.balances()));
}
