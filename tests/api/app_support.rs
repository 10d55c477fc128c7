//! An app's back end, its page, and somebody who answers the page's offer without a sound: what a call would tell, a test tells.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use voicepay::api::app_calls::{AppCallHand, AppCalls, OfferRefused, OpenedCall};
use voicepay::call::page::{PageReader, PageState, PageTeller, Speaker, page};
use voicepay::clock::{Clock, SystemClock, SystemEntropy, Timestamp};
use voicepay::ids::CallId;
use voicepay::payment::{AppResult, AppSession};

use super::support::{CARD, Reply, Shop};

/// Where the app's page is from.
pub const ORIGIN: &str = "https://shop.example";
/// An offer that is taken.
pub const OFFER: &str =
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n";
/// Limits that no test meets.
pub const FREE: &str = "requests_per_s = 10000\nburst = 10000\n";
/// A stream is over by then, whatever happens.
const PATIENCE: Duration = Duration::from_secs(20);

/// The system's clock, and as much later as a test wants.
#[derive(Debug, Default)]
pub struct Later(AtomicI64);

impl Later {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Later {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

/// A call that was opened.
pub struct Hand {
    pub call: CallId,
    pub origin: String,
    pub candidates: Mutex<Vec<String>>,
    pub left: AtomicBool,
    restarts: AtomicUsize,
    teller: Mutex<Option<PageTeller>>,
    reader: PageReader,
}

impl Hand {
    /// Tells the page something, as the call does.
    pub fn tell(&self, what: impl FnOnce(&PageTeller)) {
        if let Some(teller) = &*self.teller.lock().unwrap() {
            what(teller);
        }
    }

    /// The call has gone a few steps.
    pub fn asks(&self) {
        self.tell(|t| {
            t.state(PageState::Prompting);
            t.caption(Speaker::Service, "Please say four, seven, one, nine.", "en");
            t.digits("4 7 1 9");
            t.state(PageState::Listening);
        });
    }

    /// It is paid.
    pub fn paid(&self) {
        self.tell(|t| t.result(AppResult::Paid, "Paid. Thank you.", Some("123456".to_owned())));
    }

    /// It dies without a word.
    pub fn dies(&self) {
        self.teller.lock().unwrap().take();
    }
}

#[async_trait]
impl AppCallHand for Hand {
    async fn candidates(&self, fragment: &str) -> Result<(), OfferRefused> {
        if !fragment.contains("a=") {
            return Err(OfferRefused::Fragment("this is no fragment".into()));
        }
        self.candidates.lock().unwrap().push(fragment.to_owned());
        Ok(())
    }

    async fn restart(&self, _: &str) -> Result<(String, String), OfferRefused> {
        self.restarts.fetch_add(1, Ordering::SeqCst);
        Ok(("a=ice-ufrag:new\r\na=ice-pwd:newnewnewnewnewnewnewnew\r\n".into(), self.etag()))
    }

    fn etag(&self) -> String {
        format!("ice{}", self.restarts.load(Ordering::SeqCst))
    }

    fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
        self.tell(|t| t.result(AppResult::Cancelled, "You stopped.", None));
    }

    fn page(&self) -> PageReader {
        self.reader.clone()
    }
}

/// Answers offers. What an offer's `s=` line says is what comes of it.
#[derive(Default)]
pub struct Calls {
    pub up: Mutex<HashMap<String, Arc<Hand>>>,
    pub opened: AtomicUsize,
    /// The next so many offers find all places taken.
    pub busy: AtomicUsize,
}

#[async_trait]
impl AppCalls for Calls {
    async fn open(&self, session: &AppSession, offer: &str, origin: &str) -> Result<OpenedCall, OfferRefused> {
        if self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(OfferRefused::Busy);
        }
        if offer.contains("trouble") {
            return Err(OfferRefused::Trouble("made up".into()));
        }
        self.opened.fetch_add(1, Ordering::SeqCst);
        let (teller, reader) = page();
        let call = CallId::fresh(&SystemEntropy);
        let hand = Arc::new(Hand {
            call: call.clone(),
            origin: origin.to_owned(),
            candidates: Mutex::default(),
            left: AtomicBool::default(),
            restarts: AtomicUsize::default(),
            teller: Mutex::new(Some(teller)),
            reader,
        });
        self.up.lock().unwrap().insert(session.id.to_string(), Arc::clone(&hand));
        Ok(OpenedCall { answer: "v=0\r\ns=answer\r\n".into(), etag: hand.etag(), call, hand })
    }

    fn check(&self, offer: &str) -> Result<(), OfferRefused> {
        match offer {
            o if !o.starts_with("v=0") => Err(OfferRefused::Sdp("this is no session description".into())),
            o if !o.contains("opus") => Err(OfferRefused::NoCommonCodec("neither Opus nor PCMU is offered".into())),
            _ => Ok(()),
        }
    }

    fn ice_servers(&self) -> Value {
        json!([{ "urls": ["stun:127.0.0.1:3478"] }])
    }
}

/// A shop whose app confirms by voice.
pub struct App {
    pub shop: Shop,
    pub calls: Arc<Calls>,
    pub clock: Arc<Later>,
}

impl App {
    pub async fn open() -> Self {
        Self::with(FREE).await
    }

    /// With these lines, first of `[api]`.
    pub async fn with(more: &str) -> Self {
        let (calls, clock) = (Arc::new(Calls::default()), Arc::new(Later::default()));
        let shop = Shop::answering(more, clock.clone(), Some(calls.clone())).await;
        Self { shop, calls, clock }
    }

    /// A request of a customer who has one card.
    pub async fn request(&self) -> Value {
        self.request_of("+442079460958").await
    }

    /// The same of a customer who has this telephone.
    pub async fn request_of(&self, number: &str) -> Value {
        let request = self.shop.request_of(number).await;
        let cards = format!("/v1/customers/{}/cards", request["customer"].as_str().unwrap());
        self.shop.post(&cards, json!({ "number": CARD })).await.good(201);
        request
    }

    pub fn wanted(request: &Value) -> Value {
        json!({ "customer": request["customer"], "request": request["id"], "origin": ORIGIN, "language": "en" })
    }

    /// A session, with its token.
    pub async fn session(&self) -> Page {
        self.session_of("+442079460958").await
    }

    /// The same of another customer.
    pub async fn session_of(&self, number: &str) -> Page {
        let request = self.request_of(number).await;
        self.page(self.shop.post("/v1/app-sessions", Self::wanted(&request)).await.good(201))
    }

    pub fn page(&self, made: Value) -> Page {
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Page { id: text("id"), token: text("token"), origin: ORIGIN.into() }
    }

    /// What the page asks.
    pub async fn ask(&self, page: &Page, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Reply {
        let bearer = format!("Bearer {}", page.token);
        let mut headers = vec![("Authorization", bearer.as_str()), ("Origin", page.origin.as_str())];
        headers.extend(more);
        self.shop.send(method, path, &headers, body).await
    }

    pub async fn offer(&self, page: &Page, offer: &str) -> Reply {
        self.ask(page, "POST", "/app/session", &[("Content-Type", "application/sdp")], offer).await
    }

    /// A page whose call is up: where it is, and what holds it.
    pub async fn call(&self) -> (Page, String, Arc<Hand>) {
        let page = self.session().await;
        let opened = self.offer(&page, OFFER).await;
        assert_eq!(opened.status, 201, "{opened:?}");
        let hand = self.hand(&page);
        (page, opened.headers["location"].clone(), hand)
    }

    pub fn hand(&self, page: &Page) -> Arc<Hand> {
        Arc::clone(&self.calls.up.lock().unwrap()[&page.id])
    }

    /// How the back end sees it.
    pub async fn seen(&self, page: &Page) -> Value {
        self.shop.get(&format!("/v1/app-sessions/{}", page.id)).await.good(200)
    }

    /// The same once it is over.
    pub async fn over(&self, page: &Page) -> Value {
        for _ in 0..200 {
            let seen = self.seen(page).await;
            if seen["state"] == "over" {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("it is never over: {}", self.seen(page).await);
    }

    /// What is answered first to who asks for a stream, and then goes.
    pub async fn try_follow(&self, page: &Page, place: &str) -> String {
        let (mut socket, mut some) = (self.ask_events(page, place).await, [0; 64]);
        let n = socket.read(&mut some).await.unwrap();
        String::from_utf8_lossy(&some[..n]).into_owned()
    }

    /// A stream of events that has begun.
    pub async fn follow(&self, page: &Page, place: &str) -> Events {
        let mut events = Events { socket: self.ask_events(page, place).await, read: String::new() };
        events.until("data: ").await;
        assert!(events.read.starts_with("HTTP/1.1 200") && events.read.contains("text/event-stream"), "{}", events.read);
        events
    }

    async fn ask_events(&self, page: &Page, place: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.shop.address()).await.unwrap();
        let head = format!(
            "GET {place}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            page.origin, page.token
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    }
}

/// A page with a token.
#[derive(Clone)]
pub struct Page {
    pub id: String,
    pub token: String,
    pub origin: String,
}

/// What a page hears.
pub struct Events {
    socket: TcpStream,
    pub read: String,
}

impl Events {
    pub async fn until(&mut self, text: &str) {
        let mut some = [0; 4_096];
        while !self.read.contains(text) {
            let n = tokio::time::timeout(PATIENCE, self.socket.read(&mut some)).await.expect(text).unwrap();
            assert!(n > 0, "it ended before {text}: {}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&some[..n]));
        }
    }

    /// All events of a stream that ends.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut all = Vec::new();
        tokio::time::timeout(PATIENCE, self.socket.read_to_end(&mut all)).await.expect("it ends").unwrap();
        events(&(self.read + &String::from_utf8_lossy(&all)))
    }
}

/// The events in a stream's text.
pub fn events(text: &str) -> Vec<Value> {
    text.lines().filter_map(|l| l.strip_prefix("data: ")).map(|l| serde_json::from_str(l).unwrap()).collect()
}
