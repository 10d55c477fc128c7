//! Accounts and purchases over the API: from a main account to the bank's answer, and what another tenant, another user or a key without the scope
//! can't do.

use serde_json::{Value, json};
use voicepay::api::Scope;

use super::support::{CARD, Shop};

const BANK: &str =
    "requests_per_s = 10000\nburst = 10000\n[gateway.banks.north]\nsandbox_journal = \"north.jsonl\"\nsandbox_latency_ms = 5\n";
const WORDING: &str = "purchase-2026-11-23";

fn id(of: &Value) -> &str {
    of["id"].as_str().unwrap_or_else(|| panic!("{of}"))
}

async fn main_account(shop: &Shop, request: &Value) -> Value {
    let card =
        shop.post(&format!("/v1/customers/{}/cards", request["customer"].as_str().unwrap()), json!({ "number": CARD })).await;
    let body = json!({ "customer": request["customer"], "bank": "north", "card": card.good(201)["id"] });
    shop.post("/v1/main-accounts", body).await.good(201)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_goes_from_the_first_request_to_the_banks_answer() {
    let shop = Shop::with(BANK).await;
    let request = shop.request().await;
    let new = json!({ "customer": request["customer"], "request": request["id"] });
    let none = shop.post("/v1/purchases", new.clone()).await.refused(409, "conflict");
    assert!(none.text.contains("no main account"), "{none:?}");
    let main = main_account(&shop, &request).await;
    let asked = shop.post("/v1/purchases", new.clone()).await.good(201);
    assert_eq!((&asked["purchase"]["state"], &asked["account"]["state"]), (&json!("awaiting"), &json!("pending_consent")));
    assert_eq!(
        (&asked["wording"], &asked["payee_name"], &asked["wants_code"]),
        (&json!(WORDING), &json!("Water Works"), &json!(false))
    );
    assert_eq!((&asked["account"]["main_account"], &asked["purchase"]["amount"]["minor"]), (&main["id"], &json!(1999)));
    let again = shop.post("/v1/purchases", new).await.good(201);
    assert_eq!((id(&again["purchase"]), &again["page"]), (id(&asked["purchase"]), &asked["page"]), "one purchase of a request");
    let path = format!("/v1/purchases/{}", id(&asked["purchase"]));
    assert_eq!(shop.get(&format!("{path}/page")).await.good(200)["page"], asked["page"]);

    let confirmations = format!("{path}/confirmations");
    let without = shop.post(&confirmations, json!({ "page": asked["page"], "agree": true })).await.refused(409, "conflict");
    assert!(without.text.contains("agree to the purchase-permission account"), "{without:?}");
    let yes = json!({ "page": asked["page"], "agree": true, "consent": WORDING });
    let paid = shop.post(&confirmations, yes.clone()).await.good(200);
    assert_eq!(paid["state"], "paid", "{paid}");
    assert!(paid["receipt"].is_string() && paid["payment"].is_string());
    assert_eq!(shop.post(&confirmations, yes).await.good(200), paid, "said twice it is one payment");
    let payment = shop.get(&format!("/v1/payments/{}", paid["payment"].as_str().unwrap())).await.good(200);
    assert_eq!(payment["amount"]["minor"], 1999);
    let accounts = shop.get(&format!("/v1/customers/{}/accounts", request["customer"].as_str().unwrap())).await.good(200);
    assert_eq!((&accounts["main"]["bank"], accounts["purchase"].as_array().unwrap().len()), (&json!("north"), 1));
    let account = &accounts["purchase"][0];
    assert_eq!((&account["state"], &account["consent"]["how"], &account["used"]), (&json!("active"), &json!("link"), &json!(1)));
    assert_eq!(account["consent"]["by"], request["customer"]);
    let journal = std::fs::read_to_string(shop.dir.path().join("north.jsonl")).unwrap();
    assert_eq!(journal.lines().filter(|l| l.contains("charged")).count(), 1, "{journal}");
    // Taken back: nothing is paid from it any more.
    let consents = format!("/v1/customers/{}/consents", request["customer"].as_str().unwrap());
    let given = shop.get(&consents).await.good(200)["data"][0].clone();
    assert_eq!((&given["purpose"], &given["about"], &given["how"]), (&json!("account"), &account["id"], &json!("link")));
    assert_eq!((&given["given_by"], &given["text_version"]), (&json!("the customer"), &json!(WORDING)));
    assert_eq!((&given["given_at"], &given["withdrawn"]), (&account["consent"]["at"], &json!(null)));
    let account = format!("/v1/accounts/{}", id(account));
    let withdraw = format!("{consents}/{}/withdraw", id(&given));
    let ended = shop.post(&withdraw, json!({})).await.good(200);
    assert_eq!(ended["withdrawn"]["how"], "api", "{ended}");
    assert_eq!(shop.post(&withdraw, json!({})).await.good(200), ended, "again changes nothing");
    assert_eq!(shop.delete(&account).await.good(200)["state"], "closed");
    assert_eq!(shop.get(&account).await.good(200)["state"], "closed");
    let main = format!("/v1/main-accounts/{}", id(&main));
    assert!(shop.delete(&main).await.good(200)["closed_at"].is_string());
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_its_tenant_and_user_has_to_do_with_a_purchase() {
    let shop = Shop::with(BANK).await;
    let stranger = shop.key_for("other", &Scope::ALL, None).await;
    let asks_only = shop.key_for("default", &[Scope::PaymentsWrite, Scope::PaymentsRead], None).await;
    let request = shop.request().await;
    let theirs = shop.post_with(&stranger, "c", "/v1/customers", &json!({ "name": "Eve Gray" })).await.good(201);
    let ours = shop.post("/v1/customers", json!({ "name": "Bob Brown" })).await.good(201);
    let main = main_account(&shop, &request).await;
    let card = &main["card"];
    // Main accounts: another tenant's customer, an unknown bank, another's card, fields that are none.
    let open = |customer: &Value, bank: &str| json!({ "customer": customer, "bank": bank, "card": card });
    shop.post("/v1/main-accounts", open(&theirs["id"], "north")).await.refused(404, "not-found");
    let unknown = shop.post("/v1/main-accounts", open(&ours["id"], "east")).await.refused(409, "conflict");
    assert!(unknown.text.contains("east"), "{unknown:?}");
    shop.post("/v1/main-accounts", open(&ours["id"], "north")).await.refused(409, "conflict");
    shop.post("/v1/main-accounts", open(&ours["id"], "No Bank")).await.refused(400, "invalid");
    shop.post("/v1/main-accounts", json!({ "customer": ours["id"] })).await.refused(400, "invalid");
    // Purchases.
    let new = |customer: &Value| json!({ "customer": customer, "request": request["id"] });
    shop.post("/v1/purchases", new(&json!("cus_nobody"))).await.refused(404, "not-found");
    shop.post("/v1/purchases", new(&ours["id"])).await.refused(404, "not-found");
    shop.post_with(&stranger, "p", "/v1/purchases", &new(&theirs["id"])).await.refused(404, "not-found");
    shop.post_with(&stranger, "q", "/v1/purchases", &new(&request["customer"])).await.refused(404, "not-found");
    let nothing =
        json!({ "customer": request["customer"], "payee": request["payee"], "amount": { "minor": 0, "currency": "USD" } });
    shop.post("/v1/requests", nothing).await.refused(400, "invalid");
    let asked = shop.post_with(&asks_only, "a", "/v1/purchases", &new(&request["customer"])).await.good(201);
    let path = format!("/v1/purchases/{}", id(&asked["purchase"]));
    // Confirmations.
    let confirmations = format!("{path}/confirmations");
    let said = |who: &Value| json!({ "customer": who, "agree": true, "consent": WORDING });
    shop.post_with(&asks_only, "b", &confirmations, &said(&request["customer"])).await.refused(403, "scope");
    shop.post_with(&stranger, "r", &confirmations, &said(&request["customer"])).await.refused(404, "not-found");
    for other in [&ours["id"], &theirs["id"]] {
        let refused = shop.post(&confirmations, said(other)).await.refused(409, "conflict");
        assert!(refused.text.contains("not this customer's"), "{refused:?}");
    }
    let forged = json!({ "page": "AAAA", "agree": true, "consent": WORDING });
    shop.post(&confirmations, forged).await.refused(409, "conflict");
    shop.post(&confirmations, json!({ "agree": true })).await.refused(400, "invalid");
    let both = json!({ "page": asked["page"], "customer": request["customer"], "agree": true });
    shop.post(&confirmations, both).await.refused(400, "invalid");
    for (method, path) in
        [("GET", path.clone()), ("GET", format!("{path}/page")), ("GET", format!("/v1/accounts/{}", id(&asked["account"])))]
    {
        let bearer = format!("Bearer {stranger}");
        shop.send(method, &path, &[("Authorization", &bearer)], "").await.refused(404, "not-found");
    }
    assert_eq!(shop.get(&path).await.good(200)["state"], "awaiting", "nothing was changed");
    // Its own user says no.
    let no = json!({ "customer": request["customer"], "agree": false });
    assert_eq!(shop.post(&confirmations, no).await.good(200)["state"], "refused");
    shop.post(&confirmations, said(&request["customer"])).await.refused(409, "conflict");
    let second = shop.post("/v1/purchases", new(&request["customer"])).await.good(201);
    let cancel = format!("/v1/purchases/{}/cancel", id(&second["purchase"]));
    assert_eq!(shop.post(&cancel, json!({})).await.good(200)["state"], "cancelled");
    assert_eq!(shop.post(&cancel, json!({})).await.good(200)["state"], "cancelled");
    assert!(std::fs::read_to_string(shop.dir.path().join("north.jsonl")).unwrap_or_default().is_empty(), "no bank heard of it");
    shop.service.stop().await;
}
