//! Who else has to agree, over the API: supervisors, guardians, codes; and what neither the payer, the ward nor another tenant can do.

use serde_json::{Value, json};
use voicepay::api::Scope;

use super::support::Shop;

fn id(of: &Value) -> &str {
    of["id"].as_str().unwrap_or_else(|| panic!("{of}"))
}

async fn person(shop: &Shop, key: &str) -> Value {
    shop.post_with(key, &shop.fresh(), "/v1/customers", &json!({ "name": "Sue Green" })).await.good(201)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_is_asked_and_nobody_else_can_answer() {
    let shop = Shop::open().await;
    let stranger = shop.key_for("other", &Scope::ALL, None).await;
    let (request, supervisor, theirs) = (shop.request().await, person(&shop, &shop.key).await, person(&shop, &stranger).await);
    let (payer, terms) = (&request["customer"], format!("/v1/requests/{}/terms", id(&request)));
    assert_eq!(shop.get(&terms).await.good(200)["conditions"], json!([]));
    let supervise = |who: &Value| json!({ "account": payer, "supervisor": who });
    shop.post("/v1/supervisions", supervise(payer)).await.refused(409, "conflict");
    shop.post("/v1/supervisions", supervise(&theirs["id"])).await.refused(404, "not-found");
    let supervision = shop.post("/v1/supervisions", supervise(&supervisor["id"])).await.good(201);
    assert_eq!(shop.get(&terms).await.good(200)["conditions"], json!(["supervisor"]));

    let approvals = format!("/v1/requests/{}/approvals", id(&request));
    let approval = shop.post(&approvals, json!({})).await.good(201);
    assert_eq!((&approval["state"], &approval["parties"][0]["agreed"]), (&json!("open"), &Value::Null));
    assert_eq!(id(&shop.post(&approvals, json!({})).await.good(201)), id(&approval), "one open approval for a request");
    let path = format!("/v1/approvals/{}", id(&approval));
    shop.get_with(&stranger, &path).await.refused(404, "not-found");
    let decisions = format!("{path}/decisions");
    let said = |who: &Value, agree: bool| json!({ "customer": who, "agree": agree });
    let supervisors_yes = said(&supervisor["id"], true);
    shop.post_with(&stranger, "k", &decisions, &supervisors_yes).await.refused(404, "not-found");
    shop.post(&decisions, said(payer, true)).await.refused(409, "conflict");
    let agreed = shop.post(&decisions, supervisors_yes).await.good(200);
    assert_eq!((&agreed["state"], &agreed["parties"][0]["agreed"]), (&json!("open"), &json!(true)), "the payer has not called");
    shop.post(&decisions, said(&supervisor["id"], false)).await.refused(409, "conflict");

    let withdrawn = shop.delete(&format!("/v1/supervisions/{}", id(&supervision))).await.good(200);
    assert!(withdrawn["withdrawn_at"].is_string(), "{withdrawn}");
    assert_eq!(shop.get(&path).await.good(200)["state"], "withdrawn");
    assert_eq!(shop.get(&terms).await.good(200)["conditions"], json!([]));
    shop.post(&approvals, json!({})).await.refused(409, "conflict");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_told_and_asked_about_what_might_be_paid_and_nothing_is_changed() {
    let shop = Shop::open().await;
    let stranger = shop.key_for("other", &Scope::ALL, None).await;
    let (request, guardian, theirs) = (shop.request().await, person(&shop, &shop.key).await, person(&shop, &stranger).await);
    let policy = shop.get("/v1/policy").await.good(200);
    assert_eq!(policy["sha256"].as_str().unwrap().len(), 64);
    let suppose = |customer: &Value, minor: i64| json!({ "customer": customer, "payee": request["payee"], "amount": { "minor": minor, "currency": "USD" } });
    let small = shop.post("/v1/policy/explain", suppose(&request["customer"], 500)).await.good(200);
    assert_eq!((&small["policy"], &small["denied_by"]), (&policy["version"], &Value::Null), "{small}");
    let limit = json!({ "payment_limit": [{ "minor": 400, "currency": "USD" }] });
    let wardship = json!({ "ward": request["customer"], "guardian": guardian["id"], "rules": limit });
    shop.post("/v1/guardianships", wardship).await.good(201);
    let denied = shop.post("/v1/policy/explain", suppose(&request["customer"], 500)).await.good(200);
    assert!(
        denied["denied_by"].is_string() && denied["because"].as_array().unwrap().iter().any(|b| b["denies"] == true),
        "{denied}"
    );
    shop.post("/v1/policy/explain", suppose(&theirs["id"], 500)).await.refused(404, "not-found");
    shop.post("/v1/policy/explain", suppose(&request["customer"], 0)).await.refused(400, "invalid");
    assert_eq!(shop.get("/v1/requests").await.good(200)["data"].as_array().unwrap().len(), 1);
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_about_a_request_that_was_taken_back() {
    let shop = Shop::open().await;
    let (request, supervisor) = (shop.request().await, person(&shop, &shop.key).await);
    let supervision = json!({ "account": request["customer"], "supervisor": supervisor["id"] });
    shop.post("/v1/supervisions", supervision).await.good(201);
    let approval = shop.post(&format!("/v1/requests/{}/approvals", id(&request)), json!({})).await.good(201);
    let cancel = format!("/v1/requests/{}/cancel", id(&request));
    assert_eq!(shop.post(&cancel, json!({})).await.good(200)["status"], "cancelled");
    let path = format!("/v1/approvals/{}", id(&approval));
    assert_eq!(shop.get(&path).await.good(200)["state"], "cancelled");
    let yes = json!({ "customer": supervisor["id"], "agree": true });
    shop.post(&format!("{path}/decisions"), yes).await.refused(409, "conflict");
    assert_eq!(shop.post(&cancel, json!({})).await.good(200)["status"], "cancelled", "the same again does no harm");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ward_changes_nothing_and_a_guardian_does() {
    let shop = Shop::open().await;
    let stranger = shop.key_for("other", &Scope::ALL, None).await;
    let (request, guardian, theirs) = (shop.request().await, person(&shop, &shop.key).await, person(&shop, &stranger).await);
    let (ward, terms) = (&request["customer"], format!("/v1/requests/{}/terms", id(&request)));
    let limit = |minor: i64| json!({ "payment_limit": [{ "minor": minor, "currency": "USD" }] });
    let new = |who: &Value| json!({ "ward": ward, "guardian": who, "rules": limit(1_000) });
    shop.post("/v1/guardianships", new(ward)).await.refused(409, "conflict");
    shop.post("/v1/guardianships", new(&theirs["id"])).await.refused(404, "not-found");
    shop.post("/v1/guardianships", json!({ "ward": ward, "guardian": guardian["id"], "more": 1 })).await.refused(400, "invalid");
    let made = shop.post("/v1/guardianships", new(&guardian["id"])).await.good(201);
    assert_eq!(made["rules"]["payment_limit"], json!([{ "minor": 1_000, "currency": "USD" }]));
    assert!(shop.get(&terms).await.good(200)["denied_by"].is_string(), "19.99 is more than a ward of this guardian may pay");

    let path = format!("/v1/guardianships/{}", id(&made));
    shop.get_with(&stranger, &path).await.refused(404, "not-found");
    let rules = format!("{path}/rules");
    shop.post(&rules, json!({ "by": ward, "rules": limit(5_000) })).await.refused(409, "conflict");
    shop.post(&format!("{path}/changes"), json!({ "by": ward, "change": "end" })).await.refused(409, "conflict");
    let looser = shop.post(&rules, json!({ "by": guardian["id"], "rules": limit(5_000) })).await.good(200);
    assert_eq!(looser["done"], true, "there is no second guardian to ask: {looser}");
    assert_eq!(shop.get(&terms).await.good(200)["denied_by"], Value::Null);
    let frozen = shop.post(&format!("{path}/changes"), json!({ "by": guardian["id"], "change": "freeze" })).await.good(200);
    assert_eq!(frozen["guardianship"]["frozen"], true);
    assert!(shop.get(&terms).await.good(200)["denied_by"].is_string());
    let customer = ward.as_str().unwrap();
    assert_eq!(shop.get(&format!("/v1/customers/{customer}/guardianships")).await.good(200)["data"][0]["id"], made["id"]);
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_sent_and_not_shown_and_pays_nothing_without_a_mandate() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    let codes = format!("/v1/requests/{}/codes", id(&request));
    let sent = shop.post(&codes, json!({})).await.good(202);
    let fields: Vec<_> = sent.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["id", "request"]);
    for _ in 0..20 {
        let again = shop.post(&codes, json!({})).await;
        if again.status == 429 {
            assert!(again.headers.contains_key("retry-after"));
            let payments = format!("/v1/requests/{}/payments", id(&request));
            shop.post(&payments, json!({ "code": "12345" })).await.refused(400, "invalid");
            shop.post(&payments, json!({ "code": "123456" })).await.refused(409, "conflict");
            let customer = request["customer"].as_str().unwrap();
            assert_eq!(shop.get(&format!("/v1/customers/{customer}/mandates")).await.good(200)["data"], json!([]));
            assert_eq!(shop.get(&format!("/v1/requests/{}", id(&request))).await.good(200)["status"], "open");
            shop.service.stop().await;
            return;
        }
        again.good(202);
    }
    panic!("codes without end");
}
