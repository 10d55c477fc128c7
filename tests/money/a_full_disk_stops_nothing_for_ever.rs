//! The disk is full in the middle of payments: whoever submits is told so, nothing is charged that is not written down, and
//! once there is room again everything comes to its end, each payment charged once.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use voicepay::payment::IntentStatus;
use voicepay::processor::{ProcessorConfig, SubmitError, check};
use voicepay::store::{DatabaseUrl, PgStore, StoreConfig};

use super::proof::cluster::{self, Cluster};
use super::support::{AMOUNT, DIR_ENV, House, charged, quick, sqlite, told_dir};

/// A file system of its own for the child, as small as this; it goes with the child's mount namespace.
const DISK: &str = "size=32m";
/// Payments before the disk is full, and those that are tried from then on.
const BEFORE: usize = 8;
const TRIES: usize = 40;

#[tokio::test]
#[ignore = "run as a child process, on a disk of its own, by the test below"]
async fn child_on_a_small_disk() {
    let Some(dir) = told_dir() else { return };
    // The bank writes to the same disk: while it is full it swallows what it is sent, and says that it knows of nothing. Sends must not run out.
    let cfg = ProcessorConfig { max_sends: 10_000, ..quick() };
    on_a_disk_that_fills_up(House::over(sqlite(&dir).await, &dir, 20, cfg).await, &dir, &dir).await;
}

/// The server's own disk, of which it keeps its log of writes elsewhere, as is wise: when that is full it does not run at all.
#[test]
#[ignore = "run as a child process, on a disk of its own, by the test below"]
fn child_of_a_server_on_a_small_disk() {
    let Some(dir) = told_dir() else { return };
    let Some(cluster) = Cluster::needed(Cluster::start()) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(on_a_servers_disk_that_fills_up(&cluster, &dir));
}

async fn on_a_servers_disk_that_fills_up(cluster: &Cluster, dir: &Path) {
    // Every user may go through to what is the server's below.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).unwrap();
    let space = dir.join("space");
    std::fs::create_dir(&space).unwrap();
    cluster::give(&space).unwrap();
    let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", space.display());
    cluster.run(&[&tablespace, "CREATE DATABASE small TEMPLATE template0 ENCODING 'UTF8' TABLESPACE small"]).await;
    let url = DatabaseUrl::parse(&cluster.url("small")).unwrap();
    let store = Arc::new(PgStore::open(&url, &StoreConfig::default()).await.unwrap());
    // The acquirer's journal is on another disk than the books.
    let journal = tempfile::tempdir().unwrap();
    // Some rows still find room while it is full, such as a lease: one that outlasts the pause after a failure is not taken again at once.
    let cfg = ProcessorConfig { poll_ms: 20, lease_margin_ms: 2_000, ..quick() };
    let house = House::over(store, journal.path(), 20, cfg).await;
    on_a_disk_that_fills_up(house, dir, journal.path()).await;
}

async fn on_a_disk_that_fills_up(house: House, disk: &Path, journal: &Path) {
    let orders = house.orders(BEFORE + TRIES).await;
    let filler = disk.join("filler");
    let (mut refused, mut taken) = (Vec::new(), Vec::new());
    for (nth, order) in orders.iter().enumerate() {
        if nth == BEFORE {
            fill(&filler);
        }
        match house.processor.submit(order.clone()).await {
            Ok(intent) => taken.push(intent),
            Err(error) => refused.push(error),
        }
        // On a full disk sending may fail too, before a byte has left or after.
        let _may_fail = house.processor.run_once().await;
    }
    println!("{} taken, {} refused, {} charged while it was full", taken.len(), refused.len(), charged(journal).len());
    assert!(taken.len() >= BEFORE, "it did not work before the disk was full");
    assert!(refused.len() >= TRIES / 2, "the disk was not full");
    assert!(charged(journal).len() <= taken.len(), "charged without being written down");
    for error in &refused {
        assert!(matches!(error, SubmitError::Store(_)), "{error:?}");
        assert!(error.to_string().contains("full") || error.to_string().contains("disk"), "{error}");
    }
    // Somebody makes room: the same process goes on.
    std::fs::remove_file(&filler).unwrap();
    house.finish_everything().await;
    for order in &orders {
        let intent = house.processor.submit(order.clone()).await.unwrap();
        if !taken.contains(&intent) {
            taken.push(intent);
        }
    }
    house.finish_everything().await;
    assert_eq!(taken.len(), orders.len(), "what was taken keeps its payment, what was refused gets its own");
    for intent in &taken {
        let payment = house.store.payment(intent).await.unwrap().unwrap();
        assert_eq!(payment.intent.status, IntentStatus::Paid);
    }
    assert_eq!(charged(journal).len(), orders.len(), "each once");
    let paid = i64::try_from(orders.len()).unwrap();
    assert_eq!(house.books().await, (paid * AMOUNT, 0));
    let report = check::books(&*house.store).await.unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
}

/// Takes all the room that there is.
fn fill(filler: &Path) {
    let mut file = std::fs::File::create(filler).unwrap();
    let block = vec![1_u8; 4096];
    while file.write_all(&block).is_ok() {}
}

#[test]
fn what_is_under_way_waits_for_room_and_is_charged_once() {
    on_a_disk_of_its_own("child_on_a_small_disk");
}

#[test]
fn on_a_server_what_is_under_way_waits_for_room_and_is_charged_once() {
    on_a_disk_of_its_own("child_of_a_server_on_a_small_disk");
}

fn on_a_disk_of_its_own(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let this = std::env::current_exe().unwrap();
    let name = format!("a_full_disk_stops_nothing_for_ever::{name}");
    let script = format!("mount -t tmpfs -o {DISK} tmpfs \"$1\" && exec \"$2\" --exact {name} --ignored --nocapture");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(dir.path()).arg(this);
    let Ok(output) = command.env(DIR_ENV, dir.path()).env_remove("VOICEPAY_MASTER_KEY").output() else {
        eprintln!("SKIPPED: there is no unshare(1) here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || said.contains("mount:") {
        eprintln!("SKIPPED: no file system may be mounted here: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}
