//! What the API refuses, each in RFC 9457's form and with nothing written.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use voicepay::api::Scope;
use voicepay::clock::{Clock, SystemClock};

use super::support::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_open_nothing_and_scopes_that_lack() {
    let shop = Shop::open().await;
    shop.send("GET", "/v1/payees", &[], "").await.refused(401, "unauthorized");
    let none = shop.get_with("vpk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "/v1/payees").await.refused(401, "unauthorized");
    assert_eq!(none.headers["www-authenticate"], "Bearer");
    shop.get_with("", "/v1/payees").await.refused(401, "unauthorized");
    let twice = format!("Bearer {}", shop.key);
    shop.send("GET", "/v1/payees", &[("Authorization", &twice), ("Authorization", "Bearer x")], "")
        .await
        .refused(401, "unauthorized");
    let expired = shop.key_for("default", &Scope::ALL, Some(SystemClock.now())).await;
    shop.get_with(&expired, "/v1/payees").await.refused(401, "unauthorized");
    let soon = shop.key_for("default", &Scope::ALL, Some(SystemClock.now().plus(Duration::from_secs(600)))).await;
    shop.get_with(&soon, "/v1/payees").await.good(200);
    let office = shop.service.office();
    let records = office.store.api_keys().await.unwrap();
    let row = office.store.audit_trail(1).await.unwrap().remove(0);
    let audit = voicepay::store::AuditRecord { id: voicepay::ids::AuditId::fresh(&voicepay::clock::SystemEntropy), ..row };
    office.store.revoke_api_key(&records.last().unwrap().id, SystemClock.now(), &audit).await.unwrap();
    shop.get_with(&soon, "/v1/payees").await.refused(401, "unauthorized");

    let reader = shop.key_for("default", &[Scope::PayeesRead], None).await;
    shop.get_with(&reader, "/v1/payees").await.good(200);
    let refused = shop.post_with(&reader, "k", "/v1/payees", &json!({ "name": "X" })).await.refused(403, "scope");
    assert!(refused.text.contains("payees:write"));
    for path in
        ["/v1/customers", "/v1/requests", "/v1/payments", "/v1/calls", "/v1/audit?subject=cus_1", "/v1/calls/call_1/events"]
    {
        shop.get_with(&reader, path).await.refused(403, "scope");
    }
    assert!(shop.get("/v1/payees").await.good(200)["data"].as_array().unwrap().is_empty(), "nothing was written");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_another_tenants_is_not_there() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    let payment = shop.pay(&request).await;
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let (customer, payee, id) = (text(&request["customer"]), text(&request["payee"]), text(&request["id"]));
    let card = text(&shop.get(&format!("/v1/customers/{customer}/cards")).await.good(200)["data"][0]["id"]);
    let receipt = text(&shop.get(&format!("/v1/payments/{payment}")).await.good(200)["receipt"]);
    shop.post(&format!("/v1/payments/{payment}/disputes"), json!({ "reference": "dp-9", "reason": "no" })).await.good(201);
    let other = shop.key_for("bank", &Scope::ALL, None).await;
    for path in [
        format!("/v1/customers/{customer}"),
        format!("/v1/customers/{customer}/cards"),
        format!("/v1/customers/{customer}/requests"),
        format!("/v1/customers/{customer}/voice"),
        format!("/v1/payees/{payee}"),
        format!("/v1/requests/{id}"),
        format!("/v1/payments/{payment}"),
        format!("/v1/receipts/{receipt}"),
        format!("/v1/receipts/{receipt}/proof"),
        "/v1/disputes/dp-9".to_owned(),
        format!("/v1/audit?subject={payment}"),
        format!("/v1/audit?subject={customer}"),
        format!("/v1/audit?subject={card}"),
        format!("/v1/audit?subject={payee}"),
        format!("/v1/audit?subject={id}"),
        "/v1/customers/cus_0".to_owned(),
        "/v1/customers/int_0".to_owned(),
        "/v1/customers/%2e%2e".to_owned(),
    ] {
        let theirs = shop.get_with(&other, &path).await.refused(404, "not-found");
        assert!(!theirs.text.contains(&customer), "{}", theirs.text);
    }
    for list in ["customers", "payees", "requests", "payments", "calls"] {
        assert_eq!(shop.get_with(&other, &format!("/v1/{list}")).await.good(200), json!({ "data": [], "next": null }));
    }
    let full = json!({ "minor": 1, "currency": "USD" });
    for (path, body) in [
        (format!("/v1/payments/{payment}/refunds"), json!({})),
        (format!("/v1/payments/{payment}/captures"), json!({})),
        (format!("/v1/payments/{payment}/voids"), json!({})),
        (format!("/v1/payments/{payment}/disputes"), json!({ "reference": "x", "reason": "y" })),
        ("/v1/disputes/dp-9/decision".to_owned(), json!({ "outcome": "lost" })),
        (format!("/v1/requests/{id}/cancel"), json!({})),
        (format!("/v1/customers/{customer}/cards"), json!({ "number": super::support::CARD })),
        (format!("/v1/customers/{customer}/invitations"), json!({})),
        (format!("/v1/cards/{card}/status"), json!({ "status": "revoked" })),
        ("/v1/requests".to_owned(), json!({ "customer": customer, "payee": payee, "amount": full })),
    ] {
        shop.post_with(&other, &shop.fresh(), &path, &body).await.refused(404, "not-found");
    }
    let theirs = shop.post_with(&other, &shop.fresh(), "/v1/payees", &json!({ "name": "Theirs" })).await.good(201);
    let mixed = json!({ "customer": customer, "payee": theirs["id"], "amount": full });
    shop.post("/v1/requests", mixed).await.refused(404, "not-found");
    assert_eq!(shop.get(&format!("/v1/payments/{payment}")).await.good(200)["refunded"], 0);
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_cannot_be_and_methods_that_are_not() {
    let shop = Shop::open().await;
    let bearer = format!("Bearer {}", shop.key);
    let json_post = |key: &'static str| {
        [("Authorization", bearer.clone()), ("Content-Type", "application/json".to_owned()), ("Idempotency-Key", key.to_owned())]
    };
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"name\":7}",
        "{\"name\":\"\"}",
        "{\"name\":\" a\"}",
        "{\"name\":\"a\\u0007\"}",
        "{}",
        "{\"name\":\"A\",\"colour\":\"red\"}",
        "{\"name\":\"A\",\"name\":\"B\"}",
        "{\"name\":\"A\"} x",
        "\u{feff}{\"name\":\"A\"}",
    ] {
        let headers = json_post("b");
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        shop.send("POST", "/v1/payees", &headers, body).await.refused(400, "invalid");
    }
    for (path, body) in [
        ("/v1/customers", json!({ "name": "A", "numbers": ["020 7946 0958"] })),
        ("/v1/customers", json!({ "name": "A", "customer_number": "12345" })),
        ("/v1/customers", json!({ "name": "A", "language": "fr" })),
        ("/v1/requests", json!({ "customer": "cus_1", "payee": "pay_1", "amount": { "minor": 0, "currency": "USD" } })),
        ("/v1/requests", json!({ "customer": "cus_1", "payee": "pay_1", "amount": { "minor": 1.5, "currency": "USD" } })),
        ("/v1/requests", json!({ "customer": "cus_1", "payee": "pay_1", "amount": { "minor": 1, "currency": "CHF" } })),
        ("/v1/requests", json!({ "customer": "pay_1", "payee": "pay_1", "amount": { "minor": 1, "currency": "USD" } })),
        ("/v1/customers/cus_1/enrolments", json!({ "consent_by": "A", "recordings": ["UklGR"] })),
        ("/v1/customers/cus_1/enrolments", json!({ "consent_by": "A", "recordings": ["UklGRh=="] })),
        ("/v1/customers/cus_1/enrolments", json!({ "consent_by": "A", "recordings": [""] })),
        ("/v1/customers/cus_1/enrolments", json!({ "consent_by": "A", "recordings": [] })),
    ] {
        shop.post(path, body).await.refused(400, "invalid");
    }
    let plain = [("Authorization", bearer.as_str()), ("Content-Type", "text/plain"), ("Idempotency-Key", "t")];
    shop.send("POST", "/v1/payees", &plain, "{\"name\":\"A\"}").await.refused(415, "media-type");
    shop.send("POST", "/v1/payees", &[("Authorization", &bearer), ("Idempotency-Key", "t")], "{}")
        .await
        .refused(415, "media-type");
    let no_key = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    shop.send("POST", "/v1/payees", &no_key, "{\"name\":\"A\"}").await.refused(400, "invalid");
    shop.post_with(&shop.key, &"k".repeat(65), "/v1/payees", &json!({ "name": "A" })).await.refused(400, "invalid");
    shop.get("/v1/nowhere").await.refused(404, "not-found");
    shop.get("/").await.refused(404, "not-found");
    shop.send("PUT", "/v1/payees", &[("Authorization", &bearer)], "").await.refused(405, "method");
    let allowed = shop.delete("/v1/payees").await.refused(405, "method");
    assert!(allowed.headers["allow"].contains("POST"), "{allowed:?}");
    shop.send("GET", "/v1/payees", &[("Authorization", &bearer), ("Content-Type", "text/plain")], "body")
        .await
        .refused(400, "invalid");

    let long = json!({ "name": "A".repeat(70_000) });
    shop.post("/v1/payees", long.clone()).await.refused(413, "too-large");
    // Without a length it is counted as it comes.
    let chunk = long.to_string();
    let head = format!(
        "POST /v1/payees HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\nIdempotency-Key: c\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let body = format!("{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len());
    shop.raw(&head, body.as_bytes()).await.refused(413, "too-large");
    assert!(shop.get("/v1/payees").await.good(200)["data"].as_array().unwrap().is_empty(), "nothing was written");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_often_waits_and_others_do_not() {
    let shop = Shop::with("requests_per_s = 1\nburst = 5\n").await;
    let first = shop.get("/v1/payees").await;
    assert_eq!(
        (first.headers["ratelimit-policy"].as_str(), first.headers["ratelimit"].as_str()),
        ("\"key\";q=5;w=5", "\"key\";r=4;t=2")
    );
    first.good(200);
    let mut refused = 0;
    for _ in 0..8 {
        let reply = shop.get("/v1/payees").await;
        if reply.status != 200 {
            let seconds: u64 = reply.refused(429, "rate-limited").headers["retry-after"].parse().unwrap();
            assert!((1..=2).contains(&seconds));
            refused += 1;
        }
    }
    assert!((2..=4).contains(&refused), "{refused} of 9 were refused");
    let other = shop.key_for("default", &Scope::ALL, None).await;
    shop.get_with(&other, "/v1/payees").await.good(200);
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_few_and_the_description_is_open_to_all() {
    let shop = Shop::with("max_connections = 3\nmax_streams = 1\n").await;
    // Two that say nothing keep two places; the third serves everybody else, one after the other.
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(shop.address()).await.unwrap();
        stream.write_all(b"GET /v1/payees HTT").await.unwrap();
        idle.push(stream);
    }
    for _ in 0..5 {
        shop.get("/v1/payees").await.good(200);
    }
    drop(idle);
    let document = shop.send("GET", "/v1/openapi.json", &[], "").await.good(200);
    assert_eq!(document["openapi"], "3.1.0");
    let page = shop.send("GET", "/v1/docs", &[], "").await;
    assert!(
        page.status == 200
            && page.text.contains("viewer.js")
            && !page.text.contains("http://")
            && !page.text.contains("https://")
    );
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'"));
    assert_eq!(shop.send("GET", "/v1/docs/viewer.js", &[], "").await.status, 200);
    // A service that stops lets go of connections that keep alive.
    let mut kept = tokio::net::TcpStream::connect(shop.address()).await.unwrap();
    kept.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
    let mut some = [0; 15];
    kept.read_exact(&mut some).await.unwrap();
    shop.service.stop().await;
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), kept.read_to_end(&mut rest)).await.unwrap().unwrap();
}
