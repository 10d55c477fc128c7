//! Who is turned away from an app session: without its token, from another origin, too late, too often; and what CORS lets a browser tell its page.

use std::time::Duration;

use serde_json::{Value, json};

use super::app_support::{App, FREE, OFFER, ORIGIN, Page};
use super::support::Shop;

const SDP: [(&str, &str); 1] = [("Content-Type", "application/sdp")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_token_nobody_gets_in_and_who_guesses_waits() {
    let app = App::open().await;
    let page = app.session().await;
    let (id, secret) = page.token.split_once('.').unwrap();
    let flipped = if secret.starts_with('A') { format!("B{}", &secret[1..]) } else { format!("A{}", &secret[1..]) };
    let other = app.session_of("+442079460001").await;
    // Wrong by one character, another session's secret, a key of the API, nothing like it.
    let crossed = format!("{id}.{}", other.token.split_once('.').unwrap().1);
    for token in [format!("{id}.{flipped}"), crossed, app.shop.key.clone(), id.to_owned(), "x".to_owned()] {
        let wrong = Page { token, ..page.clone() };
        let refused = app.ask(&wrong, "GET", "/app/session", &[], "").await.refused(401, "unauthorized");
        assert_eq!(refused.headers["www-authenticate"], "Bearer");
        assert!(!refused.headers.contains_key("access-control-allow-origin"));
    }
    app.shop.send("GET", "/app/session", &[("Origin", ORIGIN)], "").await.refused(401, "unauthorized");
    // A token opens nothing of the API.
    app.shop.get_with(&page.token, "/v1/payees").await.refused(401, "unauthorized");
    let mut slowed = None;
    for _ in 0..10 {
        let wrong = Page { token: "x".into(), ..page.clone() };
        let reply = app.ask(&wrong, "GET", "/app/session", &[], "").await;
        if reply.status == 429 {
            slowed = Some(reply);
            break;
        }
    }
    let slowed = slowed.expect("an eleventh guess waits").refused(429, "rate-limited");
    assert!(slowed.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    assert_eq!(app.offer(&page, OFFER).await.status, 201, "who has the token is not slowed by it");
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_on_pages_of_its_origin_alone() {
    let app = App::open().await;
    let page = app.session().await;
    for origin in ["https://evil.example", "http://shop.example", "https://shop.example:8443", "https://sub.shop.example", "null"]
    {
        let elsewhere = Page { origin: origin.into(), ..page.clone() };
        for (method, more) in [("GET", &[][..]), ("POST", &SDP[..])] {
            let body = if method == "POST" { OFFER } else { "" };
            let refused = app.ask(&elsewhere, method, "/app/session", more, body).await.refused(403, "origin");
            assert!(!refused.headers.contains_key("access-control-allow-origin"), "{origin} may not even read this");
            assert_eq!(refused.headers["vary"], "Origin");
        }
    }
    let bearer = format!("Bearer {}", page.token);
    let bare = async |method: &str, more: &[(&str, &str)], body: &str| {
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(more);
        app.shop.send(method, "/app/session", &headers, body).await
    };
    bare("GET", &[], "").await.refused(403, "origin");
    bare("GET", &[("Sec-Fetch-Site", "cross-site")], "").await.refused(403, "origin");
    bare("POST", &[("Sec-Fetch-Site", "same-origin"), SDP[0]], OFFER).await.refused(403, "origin");
    bare("GET", &[("Sec-Fetch-Site", "same-origin")], "").await.good(200);
    assert_eq!(app.seen(&page).await["state"], "new", "none of this used the token up");
    // Events, too, are asked for without an origin on a page of the service's own origin.
    let place = app.offer(&page, OFFER).await.headers["location"].clone();
    app.hand(&page).paid();
    app.over(&page).await;
    let headers = [("Authorization", bearer.as_str()), ("Sec-Fetch-Site", "same-origin")];
    let events = app.shop.send("GET", &format!("{place}/events"), &headers, "").await;
    assert_eq!((events.status, events.headers["content-type"].as_str()), (200, "text/event-stream"));
    assert_eq!(events.headers["access-control-allow-origin"], ORIGIN);
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflights_are_answered_without_a_token_and_say_nothing_of_sessions() {
    let app = App::open().await;
    let ask = async |path: &str, origin: &str, method: &str, more: &str| {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", more)];
        app.shop.send("OPTIONS", path, &headers, "").await
    };
    // No session is bound to this origin, and the answer is the same as if one were.
    for path in ["/app/session", "/app/session/x", "/app/session/x/events"] {
        let good = ask(path, "https://anybody.example", "POST", "authorization, content-type, if-match").await;
        assert_eq!((good.status, good.text.as_str()), (204, ""));
        assert_eq!(good.headers["access-control-allow-origin"], "https://anybody.example");
        assert_eq!(good.headers["access-control-allow-methods"], "GET, POST, PATCH, DELETE");
        assert_eq!(good.headers["access-control-allow-headers"], "authorization, content-type, if-match");
        assert_eq!((good.headers["access-control-max-age"].as_str(), good.headers["vary"].as_str()), ("600", "Origin"));
        assert!(!good.headers.contains_key("access-control-allow-credentials"));
    }
    for (origin, method, more) in [("null", "GET", ""), ("https://a.example", "PUT", ""), ("https://a.example", "GET", "x-a")] {
        let refused = ask("/app/session", origin, method, more).await.refused(403, "origin");
        assert!(!refused.headers.contains_key("access-control-allow-origin"));
    }
    // The API of the back ends is for no browser.
    assert_eq!(ask("/v1/app-sessions", "https://a.example", "POST", "authorization").await.status, 405);
    app.shop.send("PUT", "/app/session", &[], "").await.refused(405, "method");
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_nobody_used_in_time_opens_nothing_and_a_call_outlives_it() {
    let app = App::with(&format!("{FREE}[app]\nsession_ttl_s = 30\n")).await;
    let (page, used) = (app.session().await, app.session_of("+442079460001").await);
    let place = app.offer(&used, OFFER).await.headers["location"].clone();
    app.clock.advance(Duration::from_secs(31));
    for (method, body) in [("GET", ""), ("POST", OFFER)] {
        let gone = app.ask(&page, method, "/app/session", &SDP, body).await.refused(410, "expired");
        assert_eq!(gone.headers["access-control-allow-origin"], ORIGIN, "the page can say why");
    }
    assert_eq!(app.seen(&page).await["state"], "expired");
    assert_eq!(app.ask(&used, "GET", "/app/session", &[], "").await.good(200)["state"], "open");
    let stream = app.follow(&used, &place).await;
    app.hand(&used).paid();
    assert_eq!(stream.rest().await.last().unwrap()["result"], "paid");
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_asks_too_often_waits_and_no_other() {
    let app = App::open().await;
    let (page, other) = (app.session().await, app.session_of("+442079460001").await);
    let mut served = 0;
    let slowed = loop {
        let reply = app.ask(&page, "GET", "/app/session", &[], "").await;
        if reply.status != 200 {
            break reply.refused(429, "rate-limited");
        }
        served += 1;
        assert!(served < 1_000, "nobody is slowed");
    };
    assert!(served >= 100, "{served}");
    assert_eq!((slowed.headers["retry-after"].as_str(), slowed.headers["access-control-allow-origin"].as_str()), ("1", ORIGIN));
    app.ask(&other, "GET", "/app/session", &[], "").await.good(200);
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_takes_no_calls_says_so_and_burns_no_token() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    let cards = format!("/v1/customers/{}/cards", request["customer"].as_str().unwrap());
    shop.post(&cards, json!({ "number": super::support::CARD })).await.good(201);
    let made: Value = shop.post("/v1/app-sessions", App::wanted(&request)).await.good(201);
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    let headers = [("Authorization", bearer.as_str()), ("Origin", ORIGIN), SDP[0]];
    assert_eq!(shop.send("GET", "/app/session", &headers[..2], "").await.good(200)["ice_servers"], json!([]));
    shop.send("POST", "/app/session", &headers, OFFER).await.refused(503, "unavailable");
    let path = format!("/v1/app-sessions/{}", made["id"].as_str().unwrap());
    assert_eq!(shop.get(&path).await.good(200)["state"], "new");
    shop.service.stop().await;
}
