//! Webhooks over the API: made, changed, told, asked for again; and what neither another tenant nor a wrong URL can do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use voicepay::api::Scope;

use super::support::Shop;

/// A shop whose endpoints may be on this machine.
async fn shop() -> Shop {
    Shop::with("requests_per_s = 10000\nburst = 10000\n[notify]\nprivate_networks = true\npoll_ms = 50\nretry_first_ms = 50\n")
        .await
}

/// Answers every message with this status; gives its URL and what was sent there: identifiers and bodies.
async fn receiver(status: &'static str) -> (String, Arc<Mutex<Vec<(String, Value)>>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", socket.local_addr().unwrap());
    let heard: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let kept = Arc::clone(&heard);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let (mut all, mut part) = (Vec::new(), [0_u8; 4096]);
            let (head, body) = loop {
                let n = stream.read(&mut part).await.unwrap();
                all.extend_from_slice(&part[..n]);
                let text = String::from_utf8_lossy(&all).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map(|l| l.parse::<usize>().unwrap());
                if n == 0 || length == Some(body.len()) {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let id = head.lines().find_map(|l| l.strip_prefix("webhook-id: ")).unwrap().to_owned();
            kept.lock().unwrap().push((id, serde_json::from_str(&body).unwrap()));
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
        }
    });
    (url, heard)
}

fn hook(url: &str) -> Value {
    json!({ "url": url, "topics": ["payment.*"] })
}

fn id(of: &Value) -> &str {
    of["id"].as_str().unwrap_or_else(|| panic!("{of}"))
}

/// What an endpoint was told, once there are so many that stand so.
async fn deliveries(shop: &Shop, hook: &str, query: &str, count: usize) -> Vec<Value> {
    for _ in 0..200 {
        let page = shop.get(&format!("/v1/webhooks/{hook}/deliveries?{query}")).await.good(200);
        let found = page["data"].as_array().unwrap().clone();
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{hook}: there are not {count} deliveries of {query}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_made_changed_and_taken_away_and_its_secret_is_shown_once() {
    let shop = shop().await;
    let new = hook("https://shop.example/hooks");
    let made = shop.post_with(&shop.key, "one", "/v1/webhooks", &new).await.good(201);
    let again = shop.post_with(&shop.key, "one", "/v1/webhooks", &new).await;
    assert_eq!((again.headers["idempotent-replayed"].as_str(), again.json()), ("true", made.clone()));
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() > 40, "{secret}");
    assert!(!shop.all_files().windows(20).any(|w| w == &secret.as_bytes()[6..26]), "a secret lies in a file");
    let path = format!("/v1/webhooks/{}", id(&made));
    let seen = shop.get(&path).await.good(200);
    assert_eq!((&seen["url"], &seen["topics"], &seen["disabled"]), (&new["url"], &new["topics"], &json!(false)));
    assert!(seen["secrets"] == 1 && !seen.to_string().contains("whsec_"), "{seen}");
    assert_eq!(shop.get("/v1/webhooks").await.good(200)["data"], json!([seen]));

    let rotated = shop.post_with(&shop.key, "two", &format!("{path}/secret"), &json!({})).await.good(200);
    assert_ne!(rotated["secret"], made["secret"]);
    assert_eq!(shop.get(&path).await.good(200)["secrets"], 2, "the old one signs for a while");
    let changed = shop.post(&path, json!({ "topics": ["*"], "disabled": true })).await.good(200);
    assert_eq!((&changed["topics"], &changed["disabled"], &changed["url"]), (&json!(["*"]), &json!(true), &new["url"]));
    assert_eq!(shop.post(&path, json!({})).await.good(200), changed, "what is not named stays");
    assert_eq!(shop.delete(&path).await.good(200), json!({ "deleted": id(&made) }));
    shop.get(&path).await.refused(404, "not-found");
    shop.delete(&path).await.refused(404, "not-found");
    assert_eq!(shop.get("/v1/webhooks").await.good(200)["data"], json!([]));
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_webhook_or_another_tenants_is_refused_and_changes_nothing() {
    let open = Shop::open().await;
    for (url, word) in [
        ("http://127.0.0.1:9/", "not public"),
        ("http://localhost:9/", "not public"),
        ("https://localhost./", "not public"),
        ("https://10.0.0.1/", "not public"),
        ("https://169.254.169.254/latest", "not public"),
        ("https://[::1]/", "not public"),
        ("https://[fd00::1]/", "not public"),
        ("https://[::ffff:10.0.0.1]/", "not public"),
        ("http://shop.example/", "https"),
        ("ftp://shop.example/", "https://"),
        ("https://me:word@shop.example/", "name or password"),
        ("shop.example", "https://"),
        ("", "url"),
    ] {
        let refused = open.post("/v1/webhooks", hook(url)).await.refused(400, "invalid");
        assert!(refused.text.contains(word) && !refused.text.contains("me:word"), "{url}: {}", refused.text);
    }
    for body in [
        json!({ "url": "https://shop.example", "topics": [] }),
        json!({ "url": "https://shop.example", "topics": ["Payment"] }),
        json!({ "url": "https://shop.example", "topics": ["pay*ment"] }),
        json!({ "url": "https://shop.example" }),
        json!({ "url": "https://shop.example", "topics": ["*"], "secret": "whsec_x" }),
        json!({ "url": format!("https://shop.example/{}", "a".repeat(2_100)), "topics": ["*"] }),
    ] {
        open.post("/v1/webhooks", body).await.refused(400, "invalid");
    }
    assert_eq!(open.get("/v1/webhooks").await.good(200)["data"], json!([]));
    let made = open.post("/v1/webhooks", hook("https://[2606:2800:21f:cb07::1]:8443/hooks")).await.good(201);
    let path = format!("/v1/webhooks/{}", id(&made));
    open.post(&path, json!({ "url": "https://192.168.1.1/" })).await.refused(400, "invalid");
    for body in [
        json!({}),
        json!({ "all": "dead", "since": "2026-01-01T00:00:00Z" }),
        json!({ "all": "alive" }),
        json!({ "since": "now" }),
    ] {
        open.post(&format!("{path}/replays"), body).await.refused(400, "invalid");
    }
    open.post(&format!("{path}/replays"), json!({ "message": "out_0" })).await.refused(404, "not-found");
    open.get(&format!("{path}/deliveries?state=lost")).await.refused(400, "invalid");

    let stranger = open.key_for("other", &Scope::ALL, None).await;
    for path in [path.clone(), format!("{path}/deliveries"), "/v1/webhooks/whk_0".to_owned(), "/v1/webhooks/cus_0".to_owned()] {
        open.get_with(&stranger, &path).await.refused(404, "not-found");
    }
    for (path, body) in [
        (path.clone(), json!({ "disabled": true })),
        (format!("{path}/secret"), json!({})),
        (format!("{path}/trials"), json!({})),
        (format!("{path}/replays"), json!({ "all": "dead" })),
    ] {
        open.post_with(&stranger, &open.fresh(), &path, &body).await.refused(404, "not-found");
    }
    let bearer = format!("Bearer {stranger}");
    open.send("DELETE", &path, &[("Authorization", &bearer)], "").await.refused(404, "not-found");
    assert_eq!(open.get_with(&stranger, "/v1/webhooks").await.good(200)["data"], json!([]));
    assert_eq!(open.get(&path).await.good(200)["disabled"], false);

    let reader = open.key_for("default", &[Scope::WebhooksRead], None).await;
    open.get_with(&reader, &path).await.good(200);
    let refused = open.post_with(&reader, "r", "/v1/webhooks", &hook("https://shop.example/")).await.refused(403, "scope");
    assert!(refused.text.contains("webhooks:write"));
    let writer = open.key_for("default", &[Scope::WebhooksWrite], None).await;
    open.get_with(&writer, &path).await.refused(403, "scope");
    for n in 1..32 {
        open.post("/v1/webhooks", hook(&format!("https://shop.example/{n}"))).await.good(201);
    }
    open.post("/v1/webhooks", hook("https://shop.example/33")).await.refused(409, "conflict");
    open.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_told_of_and_what_did_not_arrive_is_asked_for_again() {
    let shop = shop().await;
    let (url, heard) = receiver("200 OK").await;
    let (gone, _) = receiver("410 Gone").await;
    let good = shop.post("/v1/webhooks", hook(&url)).await.good(201);
    let bad = shop.post("/v1/webhooks", hook(&gone)).await.good(201);
    let (good, bad) = (id(&good), id(&bad));
    let tried = shop.post(&format!("/v1/webhooks/{good}/trials"), json!({})).await.good(200);
    assert_eq!((&tried["arrived"], &tried["status"]), (&json!(true), &json!(200)));
    assert_eq!(heard.lock().unwrap().remove(0).1["type"], "test");
    assert_eq!(shop.post(&format!("/v1/webhooks/{bad}/trials"), json!({})).await.good(200)["arrived"], false);

    let request = shop.request().await;
    let payment = shop.pay(&request).await;
    let told = deliveries(&shop, good, "state=delivered", 2).await;
    let topics: Vec<_> = told.iter().map(|d| d["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["payment.submitted", "payment.succeeded"]);
    assert!(told.iter().all(|d| d["subject"] == request["id"] && d["answer"] == "200" && d["tries"] == 1), "{told:?}");
    {
        let heard = heard.lock().unwrap();
        let ids: Vec<_> = heard.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, told.iter().map(|d| d["message"].as_str().unwrap()).collect::<Vec<_>>());
        assert_eq!((&heard[1].1["type"], &heard[1].1["data"]["intent"]), (&json!("payment.succeeded"), &json!(payment)));
    }
    // Page by page; a cursor is of one endpoint.
    let first = shop.get(&format!("/v1/webhooks/{good}/deliveries?limit=1")).await.good(200);
    let next = first["next"].as_str().unwrap();
    let second = shop.get(&format!("/v1/webhooks/{good}/deliveries?limit=1&after={next}")).await.good(200);
    assert_eq!((&first["data"][0]["topic"], &second["data"][0]["topic"]), (&json!(topics[0]), &json!(topics[1])));
    shop.get(&format!("/v1/webhooks/{bad}/deliveries?after={next}")).await.refused(400, "invalid");

    let dead = deliveries(&shop, bad, "state=dead", 2).await;
    assert!(dead.iter().all(|d| d["answer"] == "410" && d["next_at"].is_null()), "{dead:?}");
    shop.post(&format!("/v1/webhooks/{bad}"), json!({ "url": url })).await.good(200);
    let replays = format!("/v1/webhooks/{bad}/replays");
    assert_eq!(shop.post(&replays, json!({ "all": "dead" })).await.good(202), json!({ "replayed": 2 }));
    deliveries(&shop, bad, "state=delivered", 2).await;
    let since = dead[1]["at"].clone();
    assert_eq!(shop.post(&replays, json!({ "since": since })).await.good(202), json!({ "replayed": 1 }));
    let one = json!({ "message": dead[0]["message"] });
    assert_eq!(shop.post(&replays, one).await.good(202), json!({ "replayed": 1 }));
    for _ in 0..200 {
        if heard.lock().unwrap().len() == 6 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let counted = |message: &Value| heard.lock().unwrap().iter().filter(|(id, _)| message == id).count();
    assert_eq!((counted(&dead[0]["message"]), counted(&dead[1]["message"])), (3, 3));
    shop.service.stop().await;
}
