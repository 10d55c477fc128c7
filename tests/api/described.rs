//! schemathesis, which we did not write, holds the API to its own description: a small slice here, the whole by `make test-api`. Nothing is answered
//! with a 5xx, otherwise than described, or let through without a key. No operation is left out; scripts/schemathesis.toml says which checks are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use voicepay::clock::{Clock, SystemClock, SystemEntropy};
use voicepay::ids::{CallId, CustomerId, IntentId};
use voicepay::money::{Currency, Money};
use voicepay::store::CallRecord;

use super::support::Shop;

/// Examples of each operation where nobody says how many: so that it takes well under a minute.
const EXAMPLES: &str = "4";

/// Where its commands are; `None`, and a plain word about it, where it can't be installed.
fn installed() -> Option<PathBuf> {
    let installed = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/schemathesis.sh")).output().unwrap();
    if installed.status.success() {
        return Some(PathBuf::from(String::from_utf8(installed.stdout).unwrap().trim()));
    }
    let why = String::from_utf8_lossy(&installed.stderr).into_owned();
    // In CI nothing may be skipped in silence.
    assert!(std::env::var_os("CI").is_none(), "schemathesis can't be installed:\n{why}");
    eprintln!("SKIPPED: schemathesis can't be installed here, so the API is not held to its description by it:\n{why}");
    None
}

/// Things that nothing but a call makes: paid, contested, agreed for later.
async fn made_by_calls(shop: &Shop) -> Value {
    let mut made = json!({ "cus": [], "int": [], "card": [], "req": [], "mnd": [], "call": [], "reference": [] });
    let mut add = |kind: &str, id: &Value| made[kind].as_array_mut().unwrap().push(id.clone());
    for n in 0..3 {
        let request = shop.request_of(&format!("+4420794609{n}0")).await;
        let id = json!(shop.pay(&request).await);
        let payment = shop.get(&format!("/v1/payments/{}", id.as_str().unwrap())).await.good(200);
        let intent = IntentId::parse(id.as_str().unwrap()).unwrap();
        let call = CallId::fresh(&SystemEntropy);
        let cap = Money::new(5_000, Currency::Usd).unwrap();
        let office = shop.service.office();
        let mandate = office.agreements.grant_mandate(&intent, cap, call.clone().into(), "1").await.unwrap().unwrap();
        let record = CallRecord {
            id: call.clone(),
            customer: Some(CustomerId::parse(request["customer"].as_str().unwrap()).unwrap()),
            calling: None,
            trunk: "trunk".into(),
            started_at: SystemClock.now(),
            ended_at: None,
            verdict: None,
            record: json!({}),
        };
        office.store.call_started(&record).await.unwrap();
        let dispute = json!({ "reference": format!("dp-{n}"), "reason": "not received" });
        shop.post(&format!("/v1/payments/{}/disputes", id.as_str().unwrap()), dispute).await.good(201);
        for (kind, id) in [("cus", &request["customer"]), ("req", &request["id"]), ("card", &payment["card"]), ("int", &id)] {
            add(kind, id);
        }
        for (kind, id) in [("mnd", mandate.id.as_str()), ("call", call.as_str()), ("reference", &format!("dp-{n}"))] {
            add(kind, &json!(id));
        }
        add("reference", &payment["receipt"]);
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_is_answered_as_described() {
    let Some(commands) = installed() else { return };
    let shop = Shop::with("requests_per_s = 100000\nburst = 100000\n").await;
    let made = made_by_calls(&shop).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let work = tempfile::tempdir().unwrap();
    let examples = std::env::var("VOICEPAY_API_EXAMPLES");
    let shown = examples.is_ok();
    let mut run = Command::new(commands.join("schemathesis"));
    run.arg("--config-file").arg(root.join("scripts/schemathesis.toml"));
    run.args(["run", "--seed", "1", "--continue-on-failure", "--no-color", "--warnings", "off", "--max-examples"]);
    run.arg(examples.unwrap_or_else(|_| EXAMPLES.to_owned()));
    run.arg("--header").arg(format!("Authorization: Bearer {}", shop.key));
    run.arg(format!("http://{}/v1/openapi.json", shop.address()));
    run.env("SCHEMATHESIS_HOOKS", root.join("scripts/schemathesis_hooks.py")).env("VOICEPAY_MADE", made.to_string());
    // What it keeps of a run is of no use to the next: the service is another.
    run.current_dir(work.path()).env("PYTHONDONTWRITEBYTECODE", "1").stderr(Stdio::inherit());
    let done = spawn_blocking(move || run.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{told}");
    if shown {
        println!("{told}");
    }
    shop.service.stop().await;
}
