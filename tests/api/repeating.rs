//! Idempotency: the same again is done once and answered the same; another thing under the same key is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use voicepay::clock::{Clock, SystemClock};

use super::support::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_again_is_answered_the_same_and_another_is_refused() {
    let shop = Shop::open().await;
    let body = json!({ "name": "Water Works" });
    let first = shop.post_with(&shop.key, "one", "/v1/payees", &body).await;
    assert!(!first.headers.contains_key("idempotent-replayed"));
    let again = shop.post_with(&shop.key, "one", "/v1/payees", &body).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    shop.post_with(&shop.key, "one", "/v1/payees", &json!({ "name": "Other" })).await.refused(422, "idempotency-key-reused");
    shop.post_with(&shop.key, "one", "/v1/customers", &body).await.refused(422, "idempotency-key-reused");
    // Another key of the API has its own.
    let other = shop.key_for("default", &voicepay::api::Scope::ALL, None).await;
    let theirs = shop.post_with(&other, "one", "/v1/payees", &body).await;
    assert_ne!(theirs.json()["id"], first.json()["id"]);
    // What was refused is not kept: it may be asked anew when things stand otherwise.
    shop.post_with(&shop.key, "two", "/v1/payees", &json!({ "name": "" })).await.refused(400, "invalid");
    shop.post_with(&shop.key, "two", "/v1/payees", &body).await.good(201);
    assert_eq!(shop.get("/v1/payees").await.good(200)["data"].as_array().unwrap().len(), 3);
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_does_it() {
    let shop = Arc::new(Shop::open().await);
    let request = shop.request().await;
    let payment = shop.pay(&request).await;
    let body = json!({ "amount": { "minor": 100, "currency": "USD" } });
    let path = format!("/v1/payments/{payment}/refunds");
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (shop, path, body) = (Arc::clone(&shop), path.clone(), body.clone());
            tokio::spawn(async move { shop.post_with(&shop.key, "refund-1", &path, &body).await })
        })
        .collect();
    let mut attempts = BTreeSet::new();
    for task in tasks {
        let reply = task.await.unwrap();
        if reply.status == 409 {
            let told = reply.refused(409, "in-flight");
            assert_eq!(told.headers["retry-after"], "1");
        } else {
            attempts.insert(reply.good(202)["id"].to_string());
        }
    }
    assert_eq!(attempts.len(), 1, "one refund, however often it was asked for");
    let payment = shop.get(&format!("/v1/payments/{payment}")).await.good(200);
    let refunds = payment["attempts"].as_array().unwrap().iter().filter(|a| a["operation"] == "refund").count();
    assert_eq!(refunds, 1);
}

/// The process died after it did the thing and before it kept the answer: whoever asks again gets the same thing, not a second one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_found_again_and_nothing_is_made_twice() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    let payment = shop.pay(&request).await;
    let customer = request["customer"].as_str().unwrap();
    let refund = json!({ "amount": { "minor": 100, "currency": "USD" } });
    let amount = json!({ "minor": 5, "currency": "USD" });
    let asked = [
        ("/v1/payees".to_owned(), json!({ "name": "Twice" })),
        ("/v1/customers".to_owned(), json!({ "name": "Bob" })),
        ("/v1/requests".to_owned(), json!({ "customer": customer, "payee": request["payee"], "amount": amount })),
        (format!("/v1/customers/{customer}/cards"), json!({ "number": "5500005555555559" })),
        (format!("/v1/customers/{customer}/invitations"), json!({})),
        (format!("/v1/payments/{payment}/refunds"), refund),
    ];
    for (n, (path, body)) in asked.iter().enumerate() {
        let key = format!("lost-{n}");
        let first = shop.post_with(&shop.key, &key, path, body).await;
        assert!(first.status < 300, "{first:?}");
        lose_answer(&shop, &key).await;
        let again = shop.post_with(&shop.key, &key, path, body).await;
        assert!(!again.headers.contains_key("idempotent-replayed"), "it was not kept");
        assert_eq!(again.status, first.status, "{again:?}");
        let same = ["id", "code", "last4", "customer_number"];
        for field in same {
            assert_eq!(again.json()[field], first.json()[field], "{path} {field}");
        }
    }
    assert_eq!(shop.get("/v1/payees").await.good(200)["data"].as_array().unwrap().len(), 2);
    assert_eq!(shop.get("/v1/customers").await.good(200)["data"].as_array().unwrap().len(), 2);
    let payment = shop.get(&format!("/v1/payments/{payment}")).await.good(200);
    assert_eq!(payment["attempts"].as_array().unwrap().iter().filter(|a| a["operation"] == "refund").count(), 1);
    shop.service.stop().await;
}

/// What a crash leaves: a key that was taken, whose lease ran out, and no answer.
async fn lose_answer(shop: &Shop, key: &str) {
    use sqlx::Connection;
    let url = format!("sqlite://{}", shop.dir.path().join("voicepay.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let past = SystemClock.now().0 - 1;
    let done = sqlx::query("UPDATE api_answers SET status = NULL, body = NULL, leased_to = ? WHERE key = ?").bind(past).bind(key);
    assert_eq!(done.execute(&mut connection).await.unwrap().rows_affected(), 1);
}
