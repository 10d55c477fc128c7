//! What can be done over the API, from the first customer to the receipt's proof.

use std::time::Duration;

use serde_json::{Value, json};
use voicepay::api::Scope;

use super::support::{CARD, Shop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_customer_to_a_refund_and_a_proof() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    assert_eq!((&request["status"], &request["payee_name"]), (&json!("open"), &json!("Water Works")));
    let customer = request["customer"].as_str().unwrap();
    let payable = shop.get(&format!("/v1/customers/{customer}/requests")).await.good(200);
    assert_eq!(payable["data"][0]["id"], request["id"]);

    let id = shop.pay(&request).await;
    let payment = shop.get(&format!("/v1/payments/{id}")).await.good(200);
    assert_eq!((&payment["standing"], &payment["refundable"]), (&json!("paid"), &json!(1999)));
    assert_eq!(payment["last4"], "1111");
    let paid = shop.get(&format!("/v1/requests/{}", request["id"].as_str().unwrap())).await.good(200);
    assert_eq!((&paid["status"], &paid["payment"]), (&json!("paid"), &json!(id)));

    let part = json!({ "amount": { "minor": 500, "currency": "USD" }, "why": "broken in part" });
    let refund = shop.post(&format!("/v1/payments/{id}/refunds"), part).await.good(202);
    assert_eq!((&refund["operation"], &refund["amount"]["minor"]), (&json!("refund"), &json!(500)));
    let too_much = json!({ "amount": { "minor": 1500, "currency": "USD" } });
    shop.post(&format!("/v1/payments/{id}/refunds"), too_much).await.refused(409, "conflict");
    for _ in 0..100 {
        let now = shop.get(&format!("/v1/payments/{id}")).await.good(200);
        if now["refunded"] == 500 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let payment = shop.get(&format!("/v1/payments/{id}")).await.good(200);
    assert_eq!((&payment["standing"], &payment["refunded"]), (&json!("partly_refunded"), &json!(500)));

    let dispute = json!({ "reference": "dp-1", "reason": "not received" });
    let opened = shop.post(&format!("/v1/payments/{id}/disputes"), dispute).await.good(201);
    assert_eq!((&opened["state"], &opened["payment"]), (&json!("opened"), &json!(id)));
    let won = shop.post("/v1/disputes/dp-1/decision", json!({ "outcome": "won" })).await.good(200);
    assert_eq!(won["state"], "won");
    assert_eq!(shop.get("/v1/disputes/dp-1").await.good(200)["state"], "won");

    let receipt = payment["receipt"].as_str().unwrap();
    let shown = shop.get(&format!("/v1/receipts/{receipt}")).await.good(200);
    assert_eq!((&shown["payment"], &shown["amount"]["minor"]), (&json!(id), &json!(1999)));
    assert!(shown["document"].to_string().contains("signature"));
    let mut proof = shop.get(&format!("/v1/receipts/{receipt}/proof")).await;
    for _ in 0..200 {
        if proof.status == 200 {
            break;
        }
        proof.refused(409, "conflict");
        tokio::time::sleep(Duration::from_millis(50)).await;
        proof = shop.get(&format!("/v1/receipts/{receipt}/proof")).await;
    }
    assert!(proof.good(200)["proof"]["path"].is_array());

    let trail = shop.get(&format!("/v1/audit?subject={id}")).await.good(200);
    let actions: Vec<_> = trail["data"].as_array().unwrap().iter().map(|r| r["action"].as_str().unwrap().to_owned()).collect();
    assert!(actions.contains(&"charge.submitted".to_owned()) && actions.contains(&"refund.submitted".to_owned()), "{actions:?}");
    let by = trail["data"].as_array().unwrap().iter().find(|r| r["action"] == "refund.submitted").unwrap();
    assert!(by["actor"].as_str().unwrap().starts_with("api:key_"), "{by}");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_cards_and_voices() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    let customer = request["customer"].as_str().unwrap();
    let cards = format!("/v1/customers/{customer}/cards");
    let card = shop.post(&cards, json!({ "number": CARD, "expires": "12/39" })).await.good(201);
    assert_eq!((&card["last4"], &card["expires"], &card["status"]), (&json!("1111"), &json!("12/39"), &json!("active")));
    shop.post(&cards, json!({ "number": CARD })).await.refused(409, "conflict");
    shop.post(&cards, json!({ "number": "5500005555555559", "expires": "01/20" })).await.refused(409, "conflict");
    let status = format!("/v1/cards/{}/status", card["id"].as_str().unwrap());
    assert_eq!(shop.post(&status, json!({ "status": "blocked" })).await.good(200)["status"], "blocked");
    assert_eq!(shop.get(&cards).await.good(200)["data"][0]["status"], "blocked");
    assert_eq!(shop.post(&status, json!({ "status": "revoked" })).await.good(200)["status"], "revoked");
    shop.post(&status, json!({ "status": "active" })).await.refused(409, "conflict");
    let all = shop.all_files();
    assert!(!all.windows(CARD.len()).any(|w| w == CARD.as_bytes()), "a card number lies in a file");

    let voice = shop.get(&format!("/v1/customers/{customer}/voice")).await.good(200);
    assert_eq!((&voice["enrolled"], &voice["invited_until"]), (&json!(false), &json!(null)));
    let invite = shop.post(&format!("/v1/customers/{customer}/invitations"), json!({ "valid_hours": 1 })).await.good(201);
    let code = invite["code"].as_str().unwrap();
    assert!(code.len() == 8 && code.bytes().all(|b| b.is_ascii_digit()));
    assert!(!shop.all_files().windows(8).any(|w| w == code.as_bytes()), "a code lies in a file");
    let voice = shop.get(&format!("/v1/customers/{customer}/voice")).await.good(200);
    assert_eq!(voice["invited_until"], invite["expires_at"]);
    invitations_are_listed_and_taken_back(&shop, customer, &invite).await;
    let enrolment = json!({ "consent_by": "J. Clerk, form 118", "recordings": ["UklGRg=="] });
    shop.post(&format!("/v1/customers/{customer}/enrolments"), enrolment).await.refused(409, "conflict");

    let cancelled = shop.post(&format!("/v1/requests/{}/cancel", request["id"].as_str().unwrap()), json!({})).await.good(200);
    assert_eq!(cancelled["status"], "cancelled");
    shop.delete(&format!("/v1/customers/{customer}")).await.good(200);
    shop.get(&format!("/v1/customers/{customer}")).await.refused(404, "not-found");
    shop.service.stop().await;
}

/// `first` is open and the customer's only one.
async fn invitations_are_listed_and_taken_back(shop: &Shop, customer: &str, first: &Value) {
    let list = format!("/v1/customers/{customer}/invitations");
    let listed = shop.get(&list).await.good(200);
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["next"]), (1, &Value::Null));
    let shown = &listed["data"][0];
    assert_eq!((&shown["id"], &shown["state"], &shown["wrong_tries"]), (&first["id"], &json!("open"), &json!(0)));
    assert_eq!((&shown["expires_at"], shown.get("code")), (&first["expires_at"], None), "a code is shown once");
    let second = shop.post(&list, json!({ "valid_hours": 2 })).await.good(201);
    let states = async || {
        let listed = shop.get(&list).await.good(200);
        assert!(!listed.to_string().contains(second["code"].as_str().unwrap()));
        listed["data"].as_array().unwrap().iter().map(|i| i["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["open", "ended"], "the second took the first one's place");

    let path = format!("{list}/{}", second["id"].as_str().unwrap());
    let other = shop.post("/v1/customers", json!({ "name": "Bob Jones" })).await.good(201);
    let foreign = format!("/v1/customers/{}/invitations/{}", other["id"].as_str().unwrap(), second["id"].as_str().unwrap());
    shop.delete(&foreign).await.refused(404, "not-found");
    shop.delete(&format!("{list}/inv_0")).await.refused(404, "not-found");
    shop.delete(&format!("{list}/cus_0")).await.refused(404, "not-found");
    let stranger = shop.key_for("elsewhere", &Scope::ALL, None).await;
    let bearer = |key: &str| format!("Bearer {key}");
    shop.send("DELETE", &path, &[("Authorization", &bearer(&stranger))], "").await.refused(404, "not-found");
    shop.get_with(&stranger, &list).await.refused(404, "not-found");
    let reader = shop.key_for("default", &[Scope::CustomersRead], None).await;
    shop.send("DELETE", &path, &[("Authorization", &bearer(&reader))], "").await.refused(403, "scope");
    shop.get_with(&reader, &list).await.good(200);
    assert_eq!(states().await, ["open", "ended"], "nothing of that changed anything");

    let ended = shop.delete(&path).await.good(200);
    assert_eq!((&ended["state"], &ended["used_at"]), (&json!("ended"), &Value::Null));
    assert!(ended["ended_at"].is_string(), "{ended}");
    assert_eq!(shop.delete(&path).await.good(200), ended, "the same again does no harm");
    assert_eq!(states().await, ["ended", "ended"]);
    let voice = shop.get(&format!("/v1/customers/{customer}/voice")).await.good(200);
    assert_eq!(voice["invited_until"], Value::Null);
    let rows = shop.service.office().store.audit_trail(1_000).await.unwrap();
    let told = rows.iter().filter(|r| r.action == "enrolment.uninvited").collect::<Vec<_>>();
    let [row] = &told[..] else { panic!("{told:?}") };
    assert_eq!((row.subject.as_str(), &row.detail["customer"]), (second["id"].as_str().unwrap(), &json!(customer)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_go_on_by_cursors_that_nobody_else_can_make() {
    let shop = Shop::open().await;
    let mut made = Vec::new();
    for n in 0..7 {
        made.push(shop.post("/v1/payees", json!({ "name": format!("Payee {n}") })).await.good(201)["id"].clone());
    }
    let (mut seen, mut path) = (Vec::new(), "/v1/payees?limit=3".to_owned());
    let cursor = loop {
        let page = shop.get(&path).await.good(200);
        seen.extend(page["data"].as_array().unwrap().iter().map(|p| p["id"].clone()));
        let Some(next) = page["next"].as_str() else { break path.split_once("after=").unwrap().1.to_owned() };
        path = format!("/v1/payees?limit=3&after={next}");
    };
    let sorted = |mut ids: Vec<serde_json::Value>| {
        ids.sort_by_key(ToString::to_string);
        ids
    };
    assert_eq!(sorted(seen), sorted(made));
    let mut other = cursor.clone().into_bytes();
    other[3] = if other[3] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(other).unwrap();
    shop.get(&format!("/v1/payees?after={tampered}")).await.refused(400, "invalid");
    shop.get(&format!("/v1/customers?after={cursor}")).await.refused(400, "invalid");
    let bank = shop.key_for("bank", &voicepay::api::Scope::ALL, None).await;
    shop.get_with(&bank, &format!("/v1/payees?after={cursor}")).await.refused(400, "invalid");
    for wrong in ["limit=0", "limit=101", "limit=x", "limit=1&limit=1", "colour=red", "after=", "after=%zz"] {
        shop.get(&format!("/v1/payees?{wrong}")).await.refused(400, "invalid");
    }
    shop.service.stop().await;
}
