//! Commands about what people may ask, about accounts and about webhooks, as an operator types them: what they answer, in words and as JSON, and
//! how they refuse.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use voicepay::clock::{Clock, SystemClock, SystemEntropy};
use voicepay::ids::CustomerId;
use voicepay::store::{self, AuditRecord, EnrolmentRecord, StoreConfig, TemplateRecord};

/// What clap says to wrong usage, and what we say to what a rule refuses.
const USAGE: i32 = 2;
const REFUSED: i32 = 18;

/// A directory with a configuration, and whoever types there.
struct Desk {
    root: tempfile::TempDir,
}

impl Desk {
    fn open() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = "[notify]\nprivate_networks = true\ntimeout_ms = 2000\n[ops]\ncdr_dir = \"cdr\"\n\
                      [gateway.banks.north]\nsandbox_journal = \"north.jsonl\"\nsandbox_latency_ms = 0\n";
        std::fs::write(root.path().join("voicepay.toml"), config).unwrap();
        Self { root }
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// Exit code, standard output, standard error.
    fn types(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voicepay"));
        command.args(args).current_dir(self.root.path()).env("VOICEPAY__SERVICE__DATA_DIR", self.data());
        command.env("VOICEPAY_CONFIG", self.root.path().join("voicepay.toml")).stdin(std::process::Stdio::null());
        for unset in ["VOICEPAY_MASTER_KEY", "VOICEPAY_LOG", "DATABASE_URL"] {
            command.env_remove(unset);
        }
        let done = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    }

    #[track_caller]
    fn says(&self, args: &[&str]) -> String {
        let (exit, out, err) = self.types(args);
        assert_eq!(exit, 0, "{args:?}: {err}");
        out.trim_end().to_owned()
    }

    /// With `--json`: one object on one line.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let out = self.says(&[args, &["--json"]].concat());
        assert_eq!(out.lines().count(), 1, "{args:?}: {out}");
        serde_json::from_str(&out).unwrap()
    }

    /// Refused in one sentence with these words, and the same as JSON.
    #[track_caller]
    fn refused(&self, args: &[&str], words: &str) {
        let (exit, out, err) = self.types(args);
        assert!(exit == REFUSED && err.contains(words), "{args:?}: {exit} {err}");
        assert!(out.is_empty() && err.starts_with("voicepay: ") && err.trim_end().lines().count() == 1, "{args:?}: {out} {err}");
        let (exit, _, err) = self.types(&[args, &["--json"]].concat());
        let told: Value = serde_json::from_str(&err).unwrap_or_else(|e| panic!("{args:?}: {e}: {err}"));
        assert!(
            exit == REFUSED && told["exit"] == REFUSED && told["error"].as_str().unwrap().contains(words),
            "{args:?}: {told}"
        );
    }

    #[track_caller]
    fn misused(&self, args: &[&str], words: &str) {
        let (exit, _, err) = self.types(args);
        assert!(exit == USAGE && err.contains(words), "{args:?}: {exit} {err}");
    }

    fn customer(&self, name: &str) -> String {
        text(&self.json(&["customer", "add", "--name", name]), "id")
    }

    fn actions(&self) -> Vec<String> {
        let rows = runtime().block_on(async {
            let cfg = StoreConfig { path: self.data().join("voicepay.db"), ..StoreConfig::default() };
            store::open(&cfg).await.unwrap().audit_trail(1_000).await.unwrap()
        });
        rows.into_iter().map(|r| r.action).collect()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn each_command_explains_itself_with_examples() {
    let desk = Desk::open();
    let with = [
        ("webhooks", vec!["add", "list", "rotate", "disable", "enable", "test", "deliveries", "dead", "replay", "delete"]),
        ("consents", vec!["list", "withdraw"]),
        ("retention", vec!["show", "run"]),
        ("customer", vec!["add", "list", "show", "more-time", "export", "delete"]),
        ("account", vec!["open", "list", "close", "revoke", "purchase", "page", "confirm", "show", "cancel"]),
        ("enrol", vec!["invite", "invitations", "uninvite", "withdraw", "follow", "revert", "from-wav"]),
        ("api-key", vec!["create", "list", "revoke"]),
    ];
    for (command, below) in with {
        let help = desk.says(&[command, "--help"]);
        assert!(help.contains("Examples:\n  voicepay "), "{help}");
        for each in below {
            assert!(help.contains(&format!("\n  {each} ")) || help.contains(&format!("\n  {each}\n")), "{each}: {help}");
        }
        desk.misused(&[command], "Usage: voicepay");
        desk.misused(&[command, "nonsense"], "unrecognized subcommand");
    }
    let help = desk.says(&["api-key", "create", "--help"]);
    for scope in voicepay::api::Scope::ALL {
        assert!(help.contains(scope.as_str()), "{scope}: {help}");
    }
    assert!(!desk.data().join("voicepay.db").exists(), "asking for help makes no database");
}

#[test]
fn endpoints_of_webhooks_from_the_first_to_none() {
    let desk = Desk::open();
    assert_eq!(desk.says(&["webhooks", "list"]), "no endpoints yet: `voicepay webhooks add`");
    desk.misused(&["webhooks", "add", "--url", "https://shop.example/hooks"], "--topic");
    desk.refused(&["webhooks", "add", "--url", "ftp://shop.example", "--topic", "*"], "url: ");
    desk.refused(&["webhooks", "add", "--url", "https://shop.example/hooks", "--topic", "Payment"], "`Payment` is none");
    desk.refused(
        &["webhooks", "add", "--url", "https://shop.example/h", "--topic", "*", "--tenant", "nobody"],
        "there is no tenant nobody",
    );
    desk.refused(&["customer", "add", "--name", "Ann", "--tenant", "nobody"], "there is no tenant nobody");
    desk.refused(&["payee", "add", "--name", "Shop", "--tenant", "nobody"], "there is no tenant nobody");
    assert_eq!(desk.json(&["webhooks", "list"]), json!({ "endpoints": [] }));

    // Nobody listens there.
    let url = "http://127.0.0.1:1/hooks";
    let added = desk.json(&["webhooks", "add", "--url", url, "--topic", "payment.*", "--topic", "request.paid"]);
    let (id, secret) = (text(&added, "id"), text(&added, "secret"));
    assert!(id.starts_with("whk_") && secret.starts_with("whsec_"));
    assert_eq!(desk.says(&["webhooks", "list"]), format!("{id}  default  {url}  payment.*,request.paid"));
    let (exit, _, err) = desk.types(&["webhooks", "test", &id]);
    assert!(exit == REFUSED && err.contains("it gave no answer: "), "{exit} {err}");
    assert_eq!(desk.says(&["webhooks", "disable", &id]), format!("{id} is disabled"));
    assert!(desk.says(&["webhooks", "list"]).ends_with("  disabled"));
    assert_eq!(desk.json(&["webhooks", "enable", &id]), json!({ "id": id, "disabled": false }));
    let rotated = text(&desk.json(&["webhooks", "rotate", &id]), "secret");
    assert!(rotated.starts_with("whsec_") && rotated != secret);
    let listed = desk.says(&["webhooks", "list", "--json"]);
    assert!(!listed.contains("whsec_"), "a secret is shown once: {listed}");

    assert_eq!(desk.says(&["webhooks", "deliveries", &id]), "nothing was to be told yet");
    assert_eq!(desk.json(&["webhooks", "dead", &id]), json!({ "deliveries": [] }));
    assert_eq!(desk.says(&["webhooks", "dead", &id]), "nothing is dead");
    assert_eq!(desk.says(&["webhooks", "replay", &id]), "0 will be sent again");
    assert_eq!(desk.json(&["webhooks", "replay", &id, "--since", "24h"]), json!({ "replayed": 0 }));
    desk.refused(&["webhooks", "replay", &id, "--since", "yesterday"], "--since yesterday: give an age");
    desk.refused(&["webhooks", "replay", &id, "--message", "x"], "out_");
    desk.misused(&["webhooks", "replay", &id, "--since", "1h", "--message", "out_1"], "cannot be used with");
    desk.misused(&["webhooks", "deliveries", &id, "--limit", "0"], "--limit");

    for command in ["rotate", "disable", "enable", "test", "deliveries", "dead", "replay", "delete"] {
        desk.refused(&["webhooks", command, "whk_nobody"], "there is no such endpoint");
        desk.refused(&["webhooks", command, "cus_1"], "whk_");
    }
    assert_eq!(desk.json(&["webhooks", "delete", &id]), json!({ "deleted": id }));
    desk.refused(&["webhooks", "delete", &id], "there is no such endpoint");
    let actions = desk.actions();
    for action in ["endpoint.added", "endpoint.deleted"] {
        assert!(actions.iter().any(|a| a == action), "{action}: {actions:?}");
    }
}

/// A voice as a call would leave it.
fn enrolled(desk: &Desk, customer: &str) {
    runtime().block_on(async {
        let cfg = StoreConfig { path: desk.data().join("voicepay.db"), ..StoreConfig::default() };
        let (store, now) = (store::open(&cfg).await.unwrap(), SystemClock.now());
        let customer = CustomerId::parse(customer).unwrap();
        let sealed = b"SEALEDSEALEDSEALED".to_vec();
        let record = EnrolmentRecord {
            template: TemplateRecord { customer: customer.clone(), model: "m-1".into(), sealed, created_at: now },
            invite: None,
            consent_text_version: "written-1".into(),
            consent_by: "J. Clerk, form 118".into(),
            consent_at: now,
            call: None,
        };
        let audit =
            AuditRecord::fresh(now, &SystemEntropy, "test", "voice.enrolled", customer.as_str(), json!({ "model": "m-1" }));
        store.complete_enrolment(&record, &audit).await.unwrap();
        store.close().await;
    });
}

#[test]
fn consents_are_listed_and_taken_back() {
    let desk = Desk::open();
    let ann = desk.customer("Ann Smith");
    assert_eq!(desk.says(&["consents", "list", "--customer", &ann]), "this customer has agreed to nothing");
    desk.refused(&["consents", "list", "--customer", "cus_nobody"], "there is no customer cus_nobody");
    desk.refused(&["consents", "list", "--customer", "nobody"], "cus_");
    desk.misused(&["consents", "list"], "--customer");
    enrolled(&desk, &ann);
    desk.says(&["enrol", "follow", "--customer", &ann, "--consent-by", "J. Clerk, form 119"]);
    let all = desk.json(&["consents", "list", "--customer", &ann]);
    let [voice, following] = list(&all, "consents") else { panic!("{all}") };
    assert_eq!(
        (&voice["purpose"], &voice["given_by"], &voice["withdrawn"]),
        (&json!("voiceprint"), &json!("J. Clerk, form 118"), &Value::Null)
    );
    assert_eq!((&following["purpose"], &following["how"]), (&json!("following"), &json!("voucher")));
    let lines = desk.says(&["consents", "list", "--customer", &ann]);
    assert_eq!(lines.lines().filter(|l| l.ends_with("holds")).count(), 2, "{lines}");

    let (voice, following) = (text(voice, "id"), text(following, "id"));
    let said = desk.says(&["consents", "withdraw", &following]);
    assert_eq!(said, format!("{following} is taken back: the template stays as it is"));
    desk.refused(&["consents", "withdraw", &following], "has ended already");
    assert_eq!(desk.json(&["consents", "withdraw", &voice]), json!({ "consent": voice, "withdrawn": true }));
    desk.refused(&["consents", "withdraw", &voice], "has ended already");
    desk.refused(&["consents", "withdraw", "cns_nobody"], "there is no consent cns_nobody");
    desk.refused(&["consents", "withdraw", &ann], "cns_");
    let lines = desk.says(&["consents", "list", "--customer", &ann]);
    assert_eq!(lines.lines().filter(|l| l.ends_with("(operator, cli)")).count(), 2, "{lines}");
    assert!(desk.says(&["customer", "show", &ann]).contains("not enrolled"));
}

#[test]
fn invitations_are_listed_and_taken_back_and_no_code_is_told() {
    let desk = Desk::open();
    let ann = desk.customer("Ann Smith");
    assert_eq!(desk.says(&["enrol", "invitations", "--customer", &ann]), "no invitations: `voicepay enrol invite`");
    let first = desk.json(&["enrol", "invite", "--customer", &ann]);
    let second = desk.json(&["enrol", "invite", "--customer", &ann, "--valid-hours", "100"]);
    let all = desk.json(&["enrol", "invitations", "--customer", &ann]);
    let states: Vec<_> = list(&all, "invitations").iter().map(|i| (text(i, "invite"), text(i, "state"))).collect();
    let id = |of: &Value| text(of, "invite");
    assert_eq!(states, [(id(&second), "open".to_owned()), (id(&first), "ended".to_owned())]);
    assert!(!all.to_string().contains(&text(&second, "code")) && all["invitations"][0].get("code").is_none());
    let lines = desk.says(&["enrol", "invitations", "--customer", &ann]);
    assert!(lines.starts_with(&format!("{}  open until 20", id(&second))), "{lines}");
    let ended = desk.json(&["enrol", "uninvite", &id(&second)]);
    assert_eq!((&ended["state"], &ended["customer"]), (&json!("ended"), &json!(ann)));
    assert_eq!(desk.json(&["enrol", "uninvite", &id(&second)]), ended, "the same again does no harm");
    assert_eq!(desk.actions().iter().filter(|a| *a == "enrolment.uninvited").count(), 1);
    desk.refused(&["enrol", "uninvite", "inv_nobody"], "there is no invitation inv_nobody");
    desk.refused(&["enrol", "uninvite", &ann], "inv_");
    desk.refused(&["enrol", "invitations", "--customer", "cus_nobody"], "there is no customer cus_nobody");
}

#[test]
fn clocks_are_shown_tried_and_run_and_old_files_go() {
    let desk = Desk::open();
    let shown = desk.json(&["retention", "show"]);
    let keys: Vec<_> = list(&shown, "clocks").iter().map(|c| text(c, "key")).collect();
    for key in ["call_evidence_days", "call_records_days", "failed_factors_days", "invitations_days", "code_deliveries_days"] {
        assert!(keys.contains(&format!("retention.{key}")), "{key}: {keys:?}");
    }
    for key in ["call_details_days", "unused_voiceprint_months", "closed_customers_days"] {
        assert!(keys.contains(&format!("retention.{key}")), "{key}: {keys:?}");
    }
    assert!(list(&shown, "elsewhere").iter().any(|c| c["key"] == "api.answer_hours"), "{shown}");
    assert!(shown["over"].as_object().unwrap().values().all(|n| *n == json!(0)), "{shown}");
    let cdrs = desk.data().join("cdr");
    std::fs::create_dir(&cdrs).unwrap();
    let today = &SystemClock.now().to_string()[..10];
    for name in ["cdr-2020-01-01.jsonl", "cdr-2020-01-02.jsonl", &format!("cdr-{today}.jsonl"), "notes.txt"] {
        std::fs::write(cdrs.join(name), "{}\n").unwrap();
    }
    let text = desk.says(&["retention", "show"]);
    let line = text.lines().find(|l| l.contains("call_detail_files")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.trim_start().starts_with("400 days") && line.ends_with("over: 2"), "{line}");
    assert!(text.contains("for good  money"), "{text}");
    let tried = desk.json(&["retention", "run", "--dry-run"]);
    assert_eq!((&tried["dry_run"], &tried["would_erase"]["call_detail_files"]), (&json!(true), &json!(2)));
    assert_eq!(std::fs::read_dir(&cdrs).unwrap().count(), 4, "nothing was erased");
    assert!(!desk.actions().iter().any(|a| a.starts_with("retention.")), "nor told");
    let run = desk.json(&["retention", "run"]);
    assert_eq!((&run["erased"]["call_detail_files"], &run["erased"]["call_records"]), (&json!(2), &json!(0)));
    assert_eq!(std::fs::read_dir(&cdrs).unwrap().count(), 2);
    let text = desk.says(&["retention", "run"]);
    assert!(text.lines().any(|l| l == "        0  call_detail_files erased"), "{text}");
    let actions = desk.actions();
    let told = |action: &str| actions.iter().filter(|a| *a == action).count();
    assert_eq!((told("retention.erased"), told("retention.run")), (1, 2), "{actions:?}");
    std::fs::remove_dir_all(&cdrs).unwrap();
    std::fs::write(&cdrs, "").unwrap();
    desk.refused(&["retention", "show"], "ops.cdr_dir: ");
}

#[test]
fn an_export_is_one_document_for_its_owners_eyes_and_never_over_another() {
    let desk = Desk::open();
    let ann = desk.customer("Ann Smith");
    let out = desk.root.path().join("ann.json");
    let file = out.to_str().unwrap();
    let said = desk.json(&["customer", "export", "--customer", &ann, "--out", file]);
    assert_eq!((&said["customer"], &said["file"]), (&json!(ann), &json!(file)));
    let document: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!((&document["format"], &document["person"]["name"]), (&json!("voicepay-export/1"), &json!("Ann Smith")));
    let items: usize = ["requests", "payments", "calls", "papers", "audit"].iter().map(|l| list(&document, l).len()).sum();
    assert_eq!(said["items"], items);
    assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let exports = || desk.actions().iter().filter(|a| *a == "customer.exported").count();
    assert_eq!(exports(), 1);
    let before = std::fs::read(&out).unwrap();
    desk.refused(&["customer", "export", "--customer", &ann, "--out", file], "ann.json");
    assert_eq!((std::fs::read(&out).unwrap(), exports()), (before, 1), "what is there stays, and nobody got anything");
    let printed: Value = serde_json::from_str(&desk.says(&["customer", "export", "--customer", &ann])).unwrap();
    assert_eq!(printed["person"]["id"], json!(ann));
    assert_eq!(exports(), 2);
    desk.refused(&["customer", "export", "--customer", "cus_nobody"], "there is no customer cus_nobody");
    desk.refused(&["customer", "export", "--customer", "ann"], "cus_");
    desk.misused(&["customer", "export"], "--customer");
}

#[test]
fn accounts_from_opening_to_a_confirmed_purchase_and_to_their_end() {
    let desk = Desk::open();
    let ann = desk.customer("Ann Smith");
    let card = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voicepay"));
        command.args(["card", "add", "--customer", &ann, "--json"]).env("VOICEPAY__SERVICE__DATA_DIR", desk.data());
        command.env_remove("VOICEPAY_MASTER_KEY").current_dir(desk.root.path());
        let number = desk.root.path().join("number");
        std::fs::write(&number, "4242424242424242\n").unwrap();
        let done = command.stdin(std::fs::File::open(number).unwrap()).output().unwrap();
        text(&serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}")), "id")
    };
    let shop = text(&desk.json(&["payee", "add", "--name", "Shop"]), "id");
    let asks = |amount: &str| {
        let args = ["request", "add", "--customer", &ann, "--payee", &shop, "--amount", amount, "--currency", "USD"];
        text(&desk.json(&args), "id")
    };
    let request = asks("19.99");
    let purchase = ["account", "purchase", "--customer", &ann, "--request", &request];
    assert_eq!(desk.says(&["account", "list", "--customer", &ann]), "no accounts: nothing can be bought");
    desk.refused(&purchase, "the customer has no main account");
    let open =
        |bank: &str, card: &str| desk.types(&["account", "open", "--customer", &ann, "--bank", bank, "--card", card, "--json"]);
    desk.refused(&["account", "open", "--customer", &ann, "--bank", "east", "--card", &card], "there is no bank `east`");
    desk.refused(&["account", "open", "--customer", &ann, "--bank", "North!", "--card", &card], "bank");
    desk.refused(&["account", "open", "--customer", &ann, "--bank", "north", "--card", "card_nobody"], "the card can't be used");
    desk.refused(
        &["account", "open", "--customer", "cus_nobody", "--bank", "north", "--card", &card],
        "there is no such customer",
    );
    let (first, again) = (open("north", &card), open("north", &card));
    assert!(first.0 == 0 && first == again, "the same again gives the same: {first:?} {again:?}");
    let main = text(&serde_json::from_str(&first.1).unwrap(), "id");

    let asked = desk.json(&purchase);
    let (id, page) = (text(&asked["purchase"], "id"), text(&asked, "page"));
    assert_eq!(desk.says(&purchase), page, "one purchase of a request; its token alone, for scripts");
    let shown = desk.json(&["account", "page", "--token", &page]);
    assert_eq!((&shown["payee_name"], &shown["wants_code"]), (&json!("Shop"), &json!(false)));
    let wording = text(&shown["wording"], "version");
    assert!(desk.says(&["account", "page", "--token", &page]).contains(&format!("to be agreed to ({wording}): I allow")));
    desk.refused(&["account", "page", "--token", "AAAA"], "link");
    desk.misused(&["account", "confirm", "--token", &page], "--yes");
    desk.misused(&["account", "confirm", "--token", &page, "--yes", "--no"], "cannot be used with");
    desk.refused(&["account", "confirm", "--token", &page, "--yes"], "has to agree to the purchase-permission account");
    desk.refused(&["account", "confirm", "--token", &page, "--yes", "--consent", "purchase-2020"], "another wording");
    desk.refused(
        &["account", "confirm", "--token", &page, "--yes", "--consent", &wording, "--code", "12345"],
        "a code has 6 digits",
    );
    assert!(list(&desk.json(&["consents", "list", "--customer", &ann]), "consents").is_empty(), "nobody agreed yet");
    let confirmed = desk.json(&["account", "confirm", "--token", &page, "--yes", "--consent", &wording]);
    assert_eq!(confirmed["state"]["state"], "charging", "{confirmed}");
    assert!(desk.says(&["account", "show", &id]).contains("  charging  "), "no service runs that would send it");
    desk.refused(&["account", "cancel", &id], "the purchase is charging");

    let all = desk.json(&["account", "list", "--customer", &ann]);
    let account = text(&all["purchase"][0], "id");
    assert_eq!((&all["main"]["id"], &all["purchase"][0]["state"]["state"]), (&json!(main), &json!("active")));
    let lines = desk.says(&["account", "list", "--customer", &ann]);
    assert!(
        lines.starts_with(&format!("{main}  main account of {ann} at north  by {card}")) && lines.ends_with("active  used 1"),
        "{lines}"
    );
    let consents = desk.json(&["consents", "list", "--customer", &ann]);
    let [consent] = list(&consents, "consents") else { panic!("{consents}") };
    assert_eq!((&consent["purpose"], &consent["about"], &consent["how"]), (&json!("account"), &json!(account), &json!("link")));
    desk.refused(&["consents", "withdraw", &text(consent, "id")], &format!("`voicepay account revoke {account}`"));

    let other = text(&desk.json(&["account", "purchase", "--customer", &ann, "--request", &asks("5.00")])["purchase"], "id");
    assert!(desk.says(&["account", "cancel", &other, "--by", "olga"]).contains("  cancelled  "));
    assert_eq!(desk.says(&["account", "revoke", &account, "--by", "olga"]), format!("{account} is closed"));
    assert_eq!(
        desk.says(&["account", "revoke", &account, "--by", "olga"]),
        format!("{account} is closed"),
        "twice changes nothing"
    );
    let consents = desk.says(&["consents", "list", "--customer", &ann]);
    assert!(consents.ends_with("(operator, olga)"), "{consents}");
    assert_eq!(desk.says(&["account", "close", &main]), format!("{main} is closed"));
    assert_eq!(desk.json(&["account", "list", "--customer", &ann]), json!({ "main": null, "purchase": [] }));
    for (command, no_such) in
        [("close", "mac_nobody"), ("revoke", "acc_nobody"), ("show", "pur_nobody"), ("cancel", "pur_nobody")]
    {
        desk.refused(&["account", command, no_such], "there is no such ");
        desk.refused(&["account", command, &ann], "_");
    }
}
