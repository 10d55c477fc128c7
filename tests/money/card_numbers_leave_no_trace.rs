//! A canary card number is stored, charged and refused with every log line switched on; then every file, log and output is
//! searched for it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use voicepay::clock::{Clock, SystemClock};
use voicepay::ledger::document::SignedDocument;
use voicepay::payment::Operation;
use voicepay::processor::sealer::{AuditConfig, Sealer};
use voicepay::processor::{OperationOrder, ProcessorConfig, document, log};
use voicepay::rights::{RetentionConfig, export};
use voicepay::secret::Pan;
use voicepay::store::{DatabaseUrl, PgStore, StoreConfig, backup};
use voicepay::telemetry::metrics::metrics;
use voicepay::telemetry::{self, LogFormat};

use super::canary::{assert_no_canary, assert_no_canary_below, canary, found};
use super::support::{House, child, lab, told_dir};

#[tokio::test]
#[ignore = "run as a child process by the test below"]
async fn child_stores_and_charges_the_canary() {
    let Some(dir) = told_dir() else { return };
    telemetry::init(LogFormat::Json, "trace");
    let number: String = canary().iter().map(|d| char::from(b'0' + d)).collect();
    let house = House::open(&dir).await;
    let order = house.furnish(&number).await;
    println!("{order:?} {:?} {house:?}", Pan::parse(&number));
    println!("{:?}", house.store.cards_of(&order.customer).await.unwrap());
    let intent = house.processor.submit(order.clone()).await.unwrap();
    house.finish_everything().await;
    println!("{:?}", house.store.payment(&intent).await.unwrap());
    // Errors, too: a sealed number in a row that it was not sealed for, a number with a wrong digit, a second card of that
    // number.
    let card = house.store.card(&order.card).await.unwrap().unwrap();
    let other = voicepay::ids::CardId::fresh(&*house.entropy);
    println!("{}", house.vault.unseal_card(&other, &order.customer, &card.sealed).unwrap_err());
    println!("{:?}", Pan::parse(&format!("{}0", &number[..15])));
    let twin = voicepay::store::CardRecord { id: other, ..card };
    println!("{}", house.store.add_card(&twin, &house.audit_row()).await.unwrap_err());
}

#[tokio::test]
async fn a_charged_card_number_is_in_no_file_log_or_output() {
    let dir = tempfile::tempdir().unwrap();
    let name = "card_numbers_leave_no_trace::child_stores_and_charges_the_canary";
    let ended = child(name, dir.path(), &[("VOICEPAY_LOG", "trace")], None);
    assert!(ended.output.contains("attempt recorded"), "the logs were captured:\n{}", ended.output);
    assert_no_canary(ended.output.as_bytes(), "logs or output");
    let journal = std::fs::read_to_string(dir.path().join("bank.jsonl")).unwrap();
    assert!(journal.contains("\"did\":\"charged\""), "it was charged: {journal}");
    assert_no_canary_below(dir.path());
}

/// What leaves the house on purpose, on the database that `cfg` names: backups, the audit's export, the receipt, news for the outside, metrics.
async fn everything_that_is_handed_out(house: House, cfg: StoreConfig, dir: &Path) {
    let number: String = canary().iter().map(|d| char::from(b'0' + d)).collect();
    let order = house.furnish(&number).await;
    let customer = order.customer.clone();
    let intent = house.processor.submit(order).await.unwrap();
    house.finish_everything().await;
    let refund = OperationOrder {
        key: "canary".into(),
        intent: intent.clone(),
        operation: Operation::Refund,
        amount: None,
        by: "test".into(),
        why: "wanted back".into(),
    };
    let refund = house.processor.operate(refund).await.unwrap();
    house.finish_everything().await;
    assert!(house.processor.operation(&refund, Duration::ZERO).await.unwrap().state.done());
    house.processor.open_dispute(&intent, "dp_1", None, "not recognised", "acquirer").await.unwrap();
    let clock = Arc::new(SystemClock);
    let sealer = Sealer::new(house.store.clone(), house.vault.clone(), clock, house.entropy.clone(), AuditConfig::default());
    sealer.seal_all().await.unwrap();
    sealer.checkpoint().await.unwrap();

    let out = dir.join("out");
    std::fs::create_dir(&out).unwrap();
    let written = backup::backup(&cfg, &out.join("backup"), None).await.unwrap();
    if cfg.url.is_some() {
        // A dump's rows are compressed: what they read is looked through as well.
        for part in [&written.data.0, &written.keys.0] {
            let text = Command::new("pg_restore").arg("--file=-").arg(part).output().unwrap();
            assert!(text.status.success() && text.stdout.len() > 100, "{}", String::from_utf8_lossy(&text.stderr));
            std::fs::write(part.with_extension("sql"), text.stdout).unwrap();
        }
    }
    let mut export = String::new();
    let read = log::lines(&*house.store, |line| {
        export += &line.to_text();
        Ok::<_, std::convert::Infallible>(())
    });
    read.await.unwrap();
    let payment = house.store.payment(&intent).await.unwrap().unwrap();
    let receipt = payment.receipt.clone().unwrap();
    let proof = log::prove_receipt(&*house.store, &receipt.id).await.unwrap();
    assert!(proof.is_some(), "the receipt is proven to be in the log");
    let news: Vec<_> = house.store.outbox_waiting(99).await.unwrap().into_iter().map(|n| json!([n.topic, n.payload])).collect();
    assert!(news.len() >= 3, "submitted, paid, refunded: {news:?}");
    let person = house.store.customer(&customer).await.unwrap().unwrap();
    let cfg = RetentionConfig::default();
    let held = export::page(&*house.store, &cfg, &person, None, 1_000, SystemClock.now()).await.unwrap();
    assert!(held.next.is_none() && held.items.iter().any(|(_, item)| item["id"] == intent.as_str()), "the payment is in it");
    let items: Vec<_> = held.items.iter().map(|(part, item)| json!([part.as_str(), item])).collect();
    let handed_out = [
        ("person", json!([held.person, items]).to_string()),
        ("export", export),
        ("receipt", SignedDocument { proof, ..document(&receipt) }.to_text()),
        ("news", json!(news).to_string()),
        ("shown", json!(payment).to_string()),
        ("metrics", metrics().text()),
    ];
    for (name, text) in handed_out {
        assert!(text.len() > 100, "{name} is empty: {text}");
        std::fs::write(out.join(name), text).unwrap();
    }
    // The search sees what it is given: the last four digits may be there, and are.
    let receipt = std::fs::read(out.join("receipt")).unwrap();
    assert!(memchr::memmem::find(&receipt, &number.as_bytes()[12..]).is_some());
    house.store.close().await;
    assert_no_canary_below(dir);
    // And what may not be handed out would have been found: the number itself, in a file beside the others.
    std::fs::write(out.join("planted"), format!("INSERT INTO notes VALUES ('{number}');")).unwrap();
    assert!(!found(&canary(), &std::fs::read(out.join("planted")).unwrap()).is_empty());
}

#[tokio::test]
async fn nothing_that_is_handed_out_holds_the_number() {
    let dir = tempfile::tempdir().unwrap();
    let cfg = StoreConfig { path: dir.path().join("voicepay.db"), ..StoreConfig::default() };
    everything_that_is_handed_out(House::open(dir.path()).await, cfg, dir.path()).await;
}

#[tokio::test]
async fn nothing_that_is_handed_out_of_postgresql_holds_the_number() {
    let Some(database) = lab::Database::fresh().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let cfg = StoreConfig { url: Some(DatabaseUrl::parse(&database.url).unwrap()), ..StoreConfig::default() };
    let store = Arc::new(PgStore::open(cfg.url.as_ref().unwrap(), &cfg).await.unwrap());
    let house = House::over(store, dir.path(), 5, ProcessorConfig::default()).await;
    everything_that_is_handed_out(house, cfg, dir.path()).await;
}
