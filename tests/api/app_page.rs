//! A page's way through its session: looking, offering, candidates, events, the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use voicepay::app::ApiService;
use voicepay::call::page::Speaker;
use voicepay::clock::{SystemClock, SystemEntropy};
use voicepay::config::Config;

use super::app_support::{App, FREE, OFFER, ORIGIN};
use super::support::lab::Database;
use super::support::parse;

const FRAGMENT: [(&str, &str); 1] = [("Content-Type", "application/trickle-ice-sdpfrag")];

fn patch<'a>(tag: &'a str) -> [(&'a str, &'a str); 2] {
    [FRAGMENT[0], ("If-Match", tag)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_looks_offers_hears_what_happens_and_the_back_end_hears_what_it_came_to() {
    let app = App::open().await;
    let page = app.session().await;
    for _ in 0..2 {
        let seen = app.ask(&page, "GET", "/app/session", &[], "").await;
        assert_eq!(seen.headers["access-control-allow-origin"], ORIGIN);
        assert_eq!((seen.headers["vary"].as_str(), seen.headers["cache-control"].as_str()), ("Origin", "no-store"));
        let seen = seen.good(200);
        assert_eq!((&seen["id"], &seen["state"]), (&json!(page.id), &json!("new")), "looking uses nothing up");
        assert_eq!((&seen["payee"], &seen["amount_text"]), (&json!("Water Works"), &json!("$19.99")));
        assert_eq!(seen["amount"], json!({ "minor": 1999, "currency": "USD" }));
        assert_eq!((&seen["language"], &seen["ice_servers"][0]["urls"][0]), (&json!("en"), &json!("stun:127.0.0.1:3478")));
    }
    let opened = app.offer(&page, OFFER).await;
    assert_eq!((opened.status, opened.text.as_str()), (201, "v=0\r\ns=answer\r\n"), "{opened:?}");
    assert_eq!((opened.headers["content-type"].as_str(), opened.headers["etag"].as_str()), ("application/sdp", "\"ice0\""));
    assert_eq!(opened.headers["access-control-expose-headers"], "Location, ETag, Retry-After");
    let place = opened.headers["location"].clone();
    assert!(place.starts_with("/app/session/") && place.len() > 50, "{place}");
    let hand = app.hand(&page);
    assert_eq!(hand.origin, ORIGIN);
    let seen = app.seen(&page).await;
    assert_eq!((&seen["state"], &seen["call"], &seen["result"]), (&json!("open"), &json!(hand.call), &Value::Null));

    let mut stream = app.follow(&page, &place).await;
    hand.asks();
    stream.until("4 7 1 9").await;
    hand.paid();
    let events = stream.rest().await;
    let caption = json!({ "type": "caption", "who": "service", "text": "Please say four, seven, one, nine.", "lang": "en" });
    let result = json!({ "type": "result", "result": "paid", "text": "Paid. Thank you.", "reference": "123456" });
    let state = |word: &str| json!({ "type": "state", "state": word });
    let all = [
        state("connecting"),
        state("prompting"),
        caption,
        json!({ "type": "digits", "digits": "4 7 1 9" }),
        state("listening"),
        state("over"),
        result,
    ];
    assert_eq!(events, all);
    let over = app.over(&page).await;
    assert_eq!((&over["result"], &over["reference"], &over["call"]), (&json!("paid"), &json!("123456"), &json!(hand.call)));
    let trail = app.shop.service.office().store.audit_trail(50).await.unwrap();
    let of_session: Vec<_> = trail.iter().rev().filter(|r| r.subject == page.id).map(|r| r.action.as_str()).collect();
    assert_eq!(of_session, ["app_session.created", "app_session.opened", "app_session.over"]);
    // Neither the token nor the place is anywhere in the clear.
    let files = app.shop.all_files();
    let secret = page.token.split_once('.').unwrap().1;
    for what in [secret, place.rsplit('/').next().unwrap()] {
        assert!(!files.windows(what.len()).any(|w| w == what.as_bytes()));
    }
    assert!(files.windows(page.id.len()).any(|w| w == page.id.as_bytes()), "the search sees what is there");
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_used_up_by_the_first_offer_that_is_taken_and_by_no_bad_one() {
    let app = App::open().await;
    let page = app.session().await;
    let no_sdp = app.offer(&page, "hello").await.refused(400, "sdp");
    assert_eq!(no_sdp.headers["access-control-allow-origin"], ORIGIN, "the page can read it");
    app.offer(&page, &OFFER.replace("opus", "G723")).await.refused(422, "no-common-codec");
    let kind = |kind: &'static str| [("Content-Type", kind)];
    app.ask(&page, "POST", "/app/session", &kind("application/json"), OFFER).await.refused(415, "media-type");
    app.ask(&page, "POST", "/app/session", &[], OFFER).await.refused(415, "media-type");
    let html = [("Content-Type", "application/sdp"), ("Accept", "text/html")];
    app.ask(&page, "POST", "/app/session", &html, OFFER).await.refused(406, "not-acceptable");
    app.offer(&page, &format!("{OFFER}{}", "a".repeat(65_536))).await.refused(413, "too-large");
    app.offer(&page, "").await.refused(400, "invalid");
    app.calls.busy.store(1, Ordering::SeqCst);
    let busy = app.offer(&page, OFFER).await.refused(503, "busy");
    assert_eq!(busy.headers["retry-after"], "5");
    assert_eq!((app.seen(&page).await["state"].clone(), app.calls.opened.load(Ordering::SeqCst)), (json!("new"), 0));

    let long_enough = format!("{OFFER}{}", "a".repeat(65_536 - OFFER.len()));
    assert_eq!(app.offer(&page, &long_enough).await.status, 201, "as long as may be");
    app.offer(&page, OFFER).await.refused(409, "used");
    app.offer(&page, "hello").await.refused(409, "used");
    assert_eq!(app.ask(&page, "GET", "/app/session", &[], "").await.good(200)["state"], "open");
    app.hand(&page).paid();
    app.over(&page).await;
    app.offer(&page, OFFER).await.refused(409, "used");
    assert_eq!(app.calls.opened.load(Ordering::SeqCst), 1);
    // Nobody knows what began of a call that failed: its token is used.
    let unlucky = app.session_of("+442079460001").await;
    app.offer(&unlucky, &OFFER.replace("s=-", "s=trouble")).await.refused(500, "internal");
    assert_eq!(app.over(&unlucky).await["result"], "failed");
    app.shop.service.stop().await;
}

async fn one_of_many_offers_wins(more: &str) {
    let app = App::with(more).await;
    let page = app.session().await;
    let offers = (0..12).map(|_| app.offer(&page, OFFER));
    let mut statuses = Vec::new();
    for reply in futures(offers).await {
        statuses.push(reply);
    }
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (201, &[409; 11][..]));
    assert_eq!(app.calls.opened.load(Ordering::SeqCst), 1);
    app.hand(&page).paid();
    assert_eq!(app.over(&page).await["result"], "paid");
    app.shop.service.stop().await;
}

/// All at once; their statuses.
async fn futures<F: Future<Output = super::support::Reply>>(all: impl Iterator<Item = F>) -> Vec<u16> {
    let mut pinned: Vec<_> = all.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in &mut pinned {
            if done.is_none()
                && let std::task::Poll::Ready(reply) = future.as_mut().poll(cx)
            {
                *done = Some(reply.status);
            }
        }
        if pinned.iter().all(|(_, done)| done.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pinned.into_iter().filter_map(|(_, done)| done).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_offers_at_once_one_wins_on_sqlite() {
    one_of_many_offers_wins(FREE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_offers_at_once_one_wins_on_postgres() {
    let Some(database) = Database::fresh().await else { return };
    one_of_many_offers_wins(&format!("{FREE}[store]\nurl = \"{}\"\n", database.url)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn candidates_go_to_the_call_by_its_tag_and_a_restart_gives_another() {
    let app = App::open().await;
    let (page, place, hand) = app.call().await;
    let fragment = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=candidate:1 1 udp 1 127.0.0.1 5000 typ host\r\n";
    let sent = app.ask(&page, "PATCH", &place, &patch("\"ice0\""), fragment).await;
    assert_eq!((sent.status, sent.headers["access-control-allow-origin"].as_str()), (204, ORIGIN));
    assert_eq!(*hand.candidates.lock().unwrap(), [fragment]);
    app.ask(&page, "PATCH", &place, &patch("\"ice7\""), fragment).await.refused(412, "stale");
    app.ask(&page, "PATCH", &place, &FRAGMENT, fragment).await.refused(428, "precondition-required");
    app.ask(&page, "PATCH", &place, &patch("\"ice0\""), "hello").await.refused(400, "fragment");
    app.ask(&page, "PATCH", &place, &[("If-Match", "*")], fragment).await.refused(415, "media-type");
    app.ask(&page, "PATCH", &place, &patch("*"), &"a".repeat(65_537)).await.refused(413, "too-large");
    let again = app.ask(&page, "PATCH", &place, &patch("*"), fragment).await;
    assert_eq!((again.status, again.headers["etag"].as_str()), (200, "\"ice1\""));
    assert_eq!(again.headers["content-type"], "application/trickle-ice-sdpfrag");
    assert!(again.text.contains("a=ice-ufrag:new"));
    app.ask(&page, "PATCH", &place, &patch("\"ice0\""), fragment).await.refused(412, "stale");
    assert_eq!(app.ask(&page, "PATCH", &place, &patch("\"ice1\""), fragment).await.status, 204);
    // Another place, and another session's page at this one, find nothing.
    let elsewhere = format!("/app/session/{}", "A".repeat(43));
    for path in [elsewhere.as_str(), "/app/session/x"] {
        app.ask(&page, "PATCH", path, &patch("*"), fragment).await.refused(404, "not-found");
        app.ask(&page, "DELETE", path, &[], "").await.refused(404, "not-found");
        app.ask(&page, "GET", &format!("{path}/events"), &[], "").await.refused(404, "not-found");
    }
    let other = app.session_of("+442079460001").await;
    app.ask(&other, "PATCH", &place, &patch("*"), fragment).await.refused(404, "not-found");
    app.ask(&other, "DELETE", &place, &[], "").await.refused(404, "not-found");
    assert!(!hand.left.load(Ordering::SeqCst));
    hand.paid();
    app.ask(&page, "PATCH", &place, &patch("*"), fragment).await.refused(410, "gone");
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_broke_is_opened_again_and_begins_with_how_things_stand() {
    let app = App::open().await;
    let (page, place, hand) = app.call().await;
    drop(app.follow(&page, &place).await);
    hand.asks();
    let mut again = app.follow(&page, &place).await;
    again.until("digits").await;
    hand.tell(|t| t.reconnecting(true));
    again.until("reconnecting").await;
    hand.tell(|t| t.reconnecting(false));
    hand.paid();
    let told = again.rest().await;
    let states: Vec<_> = told.iter().filter_map(|e| e["state"].as_str()).collect();
    assert_eq!(states, ["listening", "reconnecting", "listening", "over"]);
    assert!(told.iter().any(|e| e["text"] == "Please say four, seven, one, nine."), "{told:?}");
    assert_eq!(told.last().unwrap()["result"], "paid");
    // After the call its result is still told, as often as asked.
    for _ in 0..2 {
        let late = app.follow(&page, &place).await.rest().await;
        assert_eq!((late.len(), &late[0]["state"], &late[1]["text"]), (2, &json!("over"), &json!("Paid. Thank you.")));
    }
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_does_not_hold_the_call_tells_its_result_once_it_is_over_and_nothing_before() {
    let app = App::open().await;
    let (page, place, hand) = app.call().await;
    // Another process on the same database, which holds no call.
    let config = Config::load(Some(&app.shop.dir.path().join("voicepay.toml"))).unwrap();
    let other = ApiService::start(&config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap();
    let ask = async |method: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {}", page.token);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {bearer}\r\nOrigin: {ORIGIN}\r\nIf-Match: *\r\n\
             Content-Type: application/trickle-ice-sdpfrag\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = TcpStream::connect(other.address()).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        parse(&all)
    };
    let events = format!("{place}/events");
    ask("GET", &events, "").await.refused(410, "gone");
    ask("DELETE", &place, "").await.refused(410, "gone");
    ask("PATCH", &place, "a=mid:0").await.refused(410, "gone");
    hand.paid();
    app.over(&page).await;
    let told = super::app_support::events(&ask("GET", &events, "").await.text);
    let result = json!({ "type": "result", "result": "paid", "text": "", "reference": "123456" });
    assert_eq!(told, [json!({ "type": "state", "state": "over" }), result]);
    assert_eq!(ask("DELETE", &place, "").await.good(200)["result"], "paid");
    ask("PATCH", &place, "a=mid:0").await.refused(410, "gone");
    other.stop().await;
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_is_let_go() {
    let app = App::open().await;
    let (page, place, hand) = app.call().await;
    let mut asleep = Vec::new();
    for _ in 0..4 {
        asleep.push(app.follow(&page, &place).await);
    }
    // What the kernel takes for them is megabytes; then their queues are full.
    let long = "a".repeat(1_900);
    let mut rounds = 0;
    loop {
        for _ in 0..500 {
            hand.tell(|t| t.caption(Speaker::Service, &long, "en"));
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        let head = tokio::time::timeout(Duration::from_secs(5), app.try_follow(&page, &place)).await.unwrap();
        if head.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        rounds += 1;
        assert!(rounds < 900, "they are never let go");
    }
    hand.paid();
    assert_eq!(app.over(&page).await["result"], "paid");
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_is_told_what_it_came_to_and_so_is_their_stream() {
    let app = App::open().await;
    let (page, place, hand) = app.call().await;
    let stream = app.follow(&page, &place).await;
    let left = app.ask(&page, "DELETE", &place, &[], "").await;
    assert_eq!(left.headers["access-control-allow-origin"], ORIGIN);
    assert_eq!(left.good(200), json!({ "id": page.id, "state": "over", "result": "cancelled" }));
    assert!(hand.left.load(Ordering::SeqCst));
    assert_eq!(stream.rest().await.last().unwrap()["result"], "cancelled");
    assert_eq!(app.over(&page).await["result"], "cancelled");
    assert_eq!(app.ask(&page, "DELETE", &place, &[], "").await.good(200)["result"], "cancelled", "again");
    // A call that was over before: it is too late to stop.
    let page = app.session_of("+442079460001").await;
    let place = app.offer(&page, OFFER).await.headers["location"].clone();
    app.hand(&page).paid();
    assert_eq!(app.ask(&page, "DELETE", &place, &[], "").await.good(200)["result"], "paid");
    // One that dies without a word failed.
    let page = app.session_of("+442079460002").await;
    let place = app.offer(&page, OFFER).await.headers["location"].clone();
    let stream = app.follow(&page, &place).await;
    app.hand(&page).dies();
    assert_eq!(stream.rest().await.last().unwrap()["result"], "failed");
    assert_eq!(app.over(&page).await["result"], "failed");
    app.shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_few_and_a_place_that_is_left_is_free_again() {
    let app = App::open().await;
    let (page, place, hand) = app.call().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(app.follow(&page, &place).await);
    }
    let path = format!("{place}/events");
    let busy = app.ask(&page, "GET", &path, &[], "").await.refused(503, "unavailable");
    assert_eq!(busy.headers["retry-after"], "2");
    open.pop();
    let mut tries = 0;
    while app.try_follow(&page, &place).await.starts_with("HTTP/1.1 503") {
        tries += 1;
        assert!(tries < 100, "no place becomes free");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    hand.paid();
    for stream in open {
        assert_eq!(stream.rest().await.last().unwrap()["result"], "paid");
    }
    app.shop.service.stop().await;
}
