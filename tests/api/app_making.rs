//! An app's back end makes sessions: what it may ask for, and what it is told of them; and the demo's shop, which is one.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use voicepay::api::Scope;
use voicepay::app_sessions::{AppConfig, AppSessions};
use voicepay::clock::{Clock, SystemEntropy};

use super::app_support::{App, FREE, OFFER, ORIGIN};
use super::support::CARD;

const OTHER_CARD: &str = "5555555555554444";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_made_once_a_key_and_shows_its_token_to_nobody_else() {
    let app = App::with(&format!("{FREE}public_url = \"https://pay.example/voice\"\n")).await;
    let request = app.request().await;
    let wanted = App::wanted(&request);
    let made = app.shop.post_with(&app.shop.key, "once", "/v1/app-sessions", &wanted).await.good(201);
    assert_eq!(made["url"], "https://pay.example/voice/app/session");
    assert!(made["id"].as_str().unwrap().starts_with("aps_"), "{made}");
    let again = app.shop.post_with(&app.shop.key, "once", "/v1/app-sessions", &wanted).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.good(201), made, "the same token");
    let page = app.page(made);
    let seen = app.seen(&page).await;
    for (name, value) in [("customer", &request["customer"]), ("request", &request["id"]), ("origin", &json!(ORIGIN))] {
        assert_eq!(&seen[name], value, "{name}");
    }
    assert_eq!((&seen["state"], &seen["result"], &seen["call"]), (&json!("new"), &Value::Null, &Value::Null));
    let secret = page.token.split_once('.').unwrap().1;
    assert!(!seen.to_string().contains(secret));
    let export = app.shop.get(&format!("/v1/customers/{}/export", request["customer"].as_str().unwrap())).await;
    assert!(export.text.contains("\"kind\":\"app_session\"") && export.text.contains(ORIGIN), "{export:?}");
    assert!(!export.text.contains(secret) && !export.text.contains("\"token\""), "{}", export.text);
    // Behind a proxy's path the page finds its call below it.
    let opened = app.offer(&page, OFFER).await;
    assert!(opened.headers["location"].starts_with("/voice/app/session/"), "{opened:?}");
    // Another tenant's key sees nothing, and a key without the scope may not ask.
    let other = app.shop.key_for("other", &Scope::ALL, None).await;
    app.shop.get_with(&other, &format!("/v1/app-sessions/{}", page.id)).await.refused(404, "not-found");
    app.shop.post_with(&other, "a", "/v1/app-sessions", &wanted).await.refused(404, "not-found");
    let reads = app.shop.key_for("default", &[Scope::AppSessionsRead], None).await;
    app.shop.post_with(&reads, "a", "/v1/app-sessions", &wanted).await.refused(403, "scope");
    app.shop.get_with(&reads, &format!("/v1/app-sessions/{}", page.id)).await.good(200);
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_charged_gets_no_session_and_a_reason() {
    let app = App::with(&format!("{FREE}[app]\nmax_open = 3\n")).await;
    let with = |request: &Value, name: &str, value: Value| {
        let mut wanted = App::wanted(request);
        wanted[name] = value;
        wanted
    };
    let post = async |wanted: Value| app.shop.post("/v1/app-sessions", wanted).await;
    let request = app.shop.request().await;
    let cards = format!("/v1/customers/{}/cards", request["customer"].as_str().unwrap());
    let none = post(App::wanted(&request)).await.refused(422, "card");
    assert!(none.json()["detail"].as_str().unwrap().contains("`card`"), "{}", none.text);
    let card = app.shop.post(&cards, json!({ "number": CARD })).await.good(201)["id"].clone();
    for wrong in ["http://shop.example", "https://shop.example/", "https://*", "null", ""] {
        post(with(&request, "origin", json!(wrong))).await.refused(400, "invalid");
    }
    post(with(&request, "language", json!("fr"))).await.refused(400, "invalid");
    post(with(&request, "token", json!("x"))).await.refused(400, "invalid");
    // Two cards: one has to be named.
    let second = app.shop.post(&cards, json!({ "number": OTHER_CARD })).await.good(201)["id"].clone();
    post(App::wanted(&request)).await.refused(422, "card");
    let made = post(with(&request, "card", second.clone())).await.good(201);
    assert_eq!(app.seen(&app.page(made)).await["card"], second);
    // Another customer's card, and request.
    let others = app.request_of("+442079460001").await;
    post(with(&others, "card", card.clone())).await.refused(422, "card");
    post(with(&others, "request", request["id"].clone())).await.refused(422, "customer");
    post(with(&others, "request", json!("req_0"))).await.refused(404, "not-found");
    post(with(&others, "customer", json!("cus_0"))).await.refused(404, "not-found");
    // Rules deny what is too much for a day.
    let body =
        json!({ "customer": others["customer"], "payee": others["payee"], "amount": { "minor": 250_000, "currency": "USD" } });
    let dear = app.shop.post("/v1/requests", body).await.good(201);
    let denied = post(App::wanted(&dear)).await.refused(409, "denied");
    assert!(denied.json()["detail"].as_str().unwrap().contains("`day`"), "{}", denied.text);
    // Withdrawn, and paid.
    let cancel = format!("/v1/requests/{}/cancel", dear["id"].as_str().unwrap());
    app.shop.post(&cancel, json!({})).await.good(200);
    post(App::wanted(&dear)).await.refused(409, "conflict");
    let paid = app.shop.request_of("+442079460002").await;
    app.shop.pay(&paid).await;
    post(App::wanted(&paid)).await.refused(409, "conflict");
    // As many as may be open, until their time is over.
    for _ in 0..3 {
        post(App::wanted(&others)).await.good(201);
    }
    post(App::wanted(&others)).await.refused(409, "too-many");
    app.clock.advance(Duration::from_secs(121));
    let late = app.page(post(App::wanted(&others)).await.good(201));
    // Nobody used them: a sweep ends them, and leaves the one that is new.
    let office = app.shop.service.office();
    let parts = (Arc::clone(&office.store), office.vault.clone(), office.agreements.clone());
    let clock: Arc<dyn Clock> = app.clock.clone();
    let sessions = AppSessions::new(parts, (clock, Arc::new(SystemEntropy)), AppConfig::default());
    assert_eq!(sessions.sweep().await.unwrap(), 4);
    assert_eq!(sessions.sweep().await.unwrap(), 0);
    assert_eq!(app.seen(&late).await["state"], "new");
    // A call that no process holds any more is over at last.
    app.offer(&late, OFFER).await;
    app.clock.advance(Duration::from_secs(961));
    assert_eq!(sessions.sweep().await.unwrap(), 1);
    let lost = app.seen(&late).await;
    assert_eq!((&lost["state"], &lost["result"]), (&json!("over"), &json!("failed")));
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demos_shop_is_there_only_where_it_is_asked_for_and_sells_to_its_own_page() {
    let app = App::open().await;
    for path in ["/shop", "/shop/shop.js", "/shop/voicepay-confirm.js"] {
        app.shop.send("GET", path, &[], "").await.refused(404, "not-found");
    }
    app.shop.send("POST", "/shop/session", &[], "{}").await.refused(404, "not-found");
    app.shop.service.stop().await;

    // The customer has to be known before the service starts, as `make demo` has it.
    let customer = "cus_0123456789abcdef01234567";
    let app = App::with(&format!("{FREE}[app]\ndemo_shop = true\ndemo_customer = \"{customer}\"\n")).await;
    for (path, kind, has) in [
        ("/shop", "text/html; charset=utf-8", "/shop/shop.js"),
        ("/shop/shop.js", "text/javascript; charset=utf-8", "/shop/session"),
        ("/shop/shop.css", "text/css; charset=utf-8", "{"),
        ("/shop/voicepay-confirm.js", "text/javascript; charset=utf-8", "voicepay-confirm"),
    ] {
        let file = app.shop.send("GET", path, &[], "").await;
        assert_eq!((file.status, file.headers["content-type"].as_str()), (200, kind));
        assert!(file.text.contains(has) && file.headers["content-security-policy"].contains("script-src 'self'"), "{path}");
    }
    let order = json!({ "item": "water", "language": "zh" }).to_string();
    let address = app.shop.address();
    let ours = format!("http://{address}");
    let buy = async |headers: &[(&str, &str)], body: &str| app.shop.send("POST", "/shop/session", headers, body).await;
    let json_of =
        |site: &'static str| [("Origin", ours.as_str()), ("Content-Type", "application/json"), ("Sec-Fetch-Site", site)];
    buy(&json_of("same-origin"), &order).await.refused(503, "unavailable");
    add_customer(&app, customer).await;
    let sold = buy(&json_of("same-origin"), &order).await.good(201);
    assert_eq!((&sold["payee"], &sold["amount_text"]), (&json!("City Water"), &json!("19.99 美元")));
    let token = sold["token"].as_str().unwrap().to_owned();
    let id = token.split_once('.').unwrap().0.to_owned();
    let page = super::app_support::Page { id, token, origin: ours.clone() };
    assert_eq!(app.ask(&page, "GET", "/app/session", &[], "").await.good(200)["payee"], "City Water");
    let again = buy(&json_of("same-origin"), &order).await.good(201);
    assert_ne!(again["token"], sold["token"]);
    assert_eq!(app.shop.service.office().store.payees().await.unwrap().len(), 1, "the payee is there once");
    // Nobody else's page.
    for site in ["cross-site", "same-site", "none"] {
        buy(&json_of(site), &order).await.refused(403, "origin");
    }
    buy(&[("Content-Type", "application/json")], &order).await.refused(403, "origin");
    buy(&[("Origin", "https://evil.example"), ("Content-Type", "application/json")], &order).await.refused(403, "origin");
    buy(&[("Origin", ours.as_str()), ("Sec-Fetch-Site", "same-origin")], &order).await.refused(415, "media-type");
    buy(&json_of("same-origin"), r#"{"item":"gold","language":"en"}"#).await.refused(400, "invalid");
    buy(&json_of("same-origin"), &"a".repeat(2_000)).await.refused(413, "too-large");
    app.shop.service.stop().await;
}

/// A customer of this name in the books, with a card.
async fn add_customer(app: &App, id: &str) {
    use voicepay::store::{AuditRecord, Customer, CustomerStatus};
    let (store, now) = (&app.shop.service.office().store, app.clock.now());
    let customer = Customer {
        id: id.parse().unwrap(),
        tenant: voicepay::ids::Tenant::default(),
        name: "Ann Smith".into(),
        customer_number: "12345678".into(),
        numbers: Vec::new(),
        status: CustomerStatus::Active,
        language: voicepay::language::Language::English,
        created_at: now,
    };
    let audit = AuditRecord::fresh(now, &SystemEntropy, "test", "customer.added", id, json!({}));
    store.add_customer(&customer, &audit).await.unwrap();
    for number in [CARD, OTHER_CARD] {
        app.shop.post(&format!("/v1/customers/{id}/cards"), json!({ "number": number })).await.good(201);
    }
}
