//! What stands between us and localstripe: it keeps idempotency keys as Stripe documents it, puts right what localstripe does
//! otherwise than Stripe, and breaks things on purpose. Who charged what is always read from localstripe itself, never from here.
//!
//! Put right: localstripe ignores `Idempotency-Key`, wants a security code with a card (we have none), knows no search, no
//! `statement_descriptor_suffix`, no `amount_received`, no reason of a cancellation, no metadata with a capture, no decline
//! codes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Something that goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It never arrives; the connection ends.
    DropBefore,
    /// It is done, and the connection ends without an answer.
    DropAfter,
    /// It is done, and the answer comes when nobody waits any more.
    Late,
    /// It is only begun when nobody waits any more; whoever asks meanwhile hears that it is at work.
    Slow,
    /// It never arrives; a proxy on the way answers 502.
    BadGateway,
    /// Stripe fails before it did anything, and keeps the 500 under the key.
    KeptErrorBefore,
    /// Stripe fails after it was done, and keeps the 500 under the key: the worst that its documents allow.
    KeptErrorAfter,
    /// Too many requests; nothing was done and nothing is kept.
    Limited,
    /// The answer is cut off in the middle.
    CutOff,
}

/// All of them.
pub const FAULTS: [Fault; 9] = [
    Fault::DropBefore,
    Fault::DropAfter,
    Fault::Late,
    Fault::Slow,
    Fault::BadGateway,
    Fault::KeptErrorBefore,
    Fault::KeptErrorAfter,
    Fault::Limited,
    Fault::CutOff,
];

/// What the issuer says to cards that localstripe declines; one for each, by chance.
const DECLINES: [&str; 4] = ["insufficient_funds", "lost_card", "do_not_honor", "brand_new_code"];

#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    body: String,
}

#[derive(Clone, Debug)]
enum Kept {
    AtWork,
    Answered { of: String, answer: Answer },
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    /// How many requests of a hundred meet a fault.
    fault_percent: u32,
    /// Faults for the next requests, whatever chance says.
    next: Vec<Option<Fault>>,
    keys: HashMap<String, Kept>,
    /// Payment intents of which a wrong amount is told: localstripe has charged the right one.
    wrong: HashMap<String, i64>,
    wrong_percent: u32,
    cancelled_because: HashMap<String, String>,
    seen: HashMap<Fault, u32>,
    replayed: u32,
    requests: Vec<String>,
}

/// The proxy.
#[derive(Clone, Debug)]
pub struct FaultProxy {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    backend: String,
    state: Arc<Mutex<State>>,
    /// Payment intents that localstripe is known to have, and their references, oldest first.
    listed: Arc<tokio::sync::Mutex<Vec<(String, String)>>>,
    /// Longer than whoever asks waits.
    late: Duration,
}

/// A request as it came.
struct Request {
    method: String,
    target: String,
    key: Option<String>,
    signature: Option<String>,
    body: String,
}

impl FaultProxy {
    pub async fn start(backend: &str, seed: u64, late: Duration) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            fault_percent: 0,
            next: Vec::new(),
            keys: HashMap::new(),
            wrong: HashMap::new(),
            wrong_percent: 0,
            cancelled_because: HashMap::new(),
            seen: HashMap::new(),
            replayed: 0,
            requests: Vec::new(),
        };
        let url = format!("http://{}", socket.local_addr().unwrap());
        let proxy = Self { url, backend: backend.to_owned(), state: Arc::new(Mutex::new(state)), listed: Arc::default(), late };
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let proxy = serving.clone();
                tokio::spawn(async move { proxy.serve(stream).await });
            }
        });
        proxy
    }

    /// From now on so many requests of a hundred meet a fault, and so many payments of a hundred a wrong amount.
    pub fn trouble(&self, fault_percent: u32, wrong_percent: u32) {
        let mut state = self.state.lock().unwrap();
        (state.fault_percent, state.wrong_percent) = (fault_percent, wrong_percent);
    }

    /// These faults for the next requests, one each.
    pub fn next(&self, faults: &[Option<Fault>]) {
        self.state.lock().unwrap().next = faults.iter().rev().copied().collect();
    }

    /// Waits until nothing is at work any more: where hours pass at once, what was begun before them must have ended.
    pub async fn idle(&self) {
        while self.state.lock().unwrap().keys.values().any(|kept| matches!(kept, Kept::AtWork)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// As Stripe may do after a day.
    pub fn forget_keys(&self) {
        self.state.lock().unwrap().keys.clear();
    }

    /// Payment intents of which a wrong amount is told.
    pub fn wrong(&self) -> Vec<String> {
        self.state.lock().unwrap().wrong.keys().cloned().collect()
    }

    /// What went wrong how often, and how many requests were answered from a key.
    pub fn report(&self) -> (HashMap<Fault, u32>, u32, usize) {
        let state = self.state.lock().unwrap();
        (state.seen.clone(), state.replayed, state.requests.len())
    }

    /// `POST /v1/refunds` and so on, in order.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Asks localstripe itself.
    pub async fn ask(&self, target: &str) -> Value {
        let answer = self.forward("GET", target, "").await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Tells localstripe something, past all faults.
    pub async fn tell(&self, target: &str, body: &str) -> u16 {
        self.forward("POST", target, body).await.status
    }

    async fn serve(&self, mut stream: TcpStream) {
        let Some(request) = read_request(&mut stream).await else { return };
        let fault = self.fault(&request);
        if matches!(fault, Some(Fault::DropBefore)) {
            return;
        }
        if let Some(status) = fault.and_then(refused_unread) {
            write_answer(&mut stream, &error(status, "api_error", None), usize::MAX).await;
            return;
        }
        let answer = self.keyed(&request, fault).await;
        match fault {
            Some(Fault::DropAfter) => {}
            Some(Fault::Late) => {
                tokio::time::sleep(self.late).await;
                write_answer(&mut stream, &answer, usize::MAX).await;
            }
            Some(Fault::CutOff) => write_answer(&mut stream, &answer, answer.body.len() / 2).await,
            Some(
                Fault::DropBefore
                | Fault::Slow
                | Fault::BadGateway
                | Fault::KeptErrorBefore
                | Fault::KeptErrorAfter
                | Fault::Limited,
            )
            | None => write_answer(&mut stream, &answer, usize::MAX).await,
        }
    }

    fn fault(&self, request: &Request) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        state.requests.push(format!("{} {}", request.method, request.target));
        let fault = match state.next.pop() {
            Some(told) => told,
            None => {
                let percent = state.fault_percent;
                (state.rng.random_range(0..100) < percent).then(|| FAULTS[state.rng.random_range(0..FAULTS.len())])
            }
        };
        if let Some(fault) = fault {
            *state.seen.entry(fault).or_default() += 1;
        }
        fault
    }

    /// https://docs.stripe.com/api/idempotent_requests: the first answer is kept, whatever it was, once the request was begun;
    /// the same key with other parameters is an error, and so is one whose first request is still at work.
    async fn keyed(&self, request: &Request, fault: Option<Fault>) -> Answer {
        let Some(key) = request.key.clone() else { return self.stripe(request).await };
        let of = format!("{} {} {}", request.method, request.target, request.body);
        {
            let mut state = self.state.lock().unwrap();
            match state.keys.get(&key).cloned() {
                Some(Kept::AtWork) => return error(409, "idempotency_error", Some("idempotency_key_in_use")),
                Some(Kept::Answered { of: first, .. }) if first != of => return error(400, "idempotency_error", None),
                Some(Kept::Answered { answer, .. }) => {
                    state.replayed += 1;
                    return answer;
                }
                None => state.keys.insert(key.clone(), Kept::AtWork),
            };
        }
        if fault == Some(Fault::Slow) {
            tokio::time::sleep(self.late).await;
        }
        let answer = match fault {
            Some(Fault::KeptErrorBefore) => error(500, "api_error", None),
            Some(Fault::KeptErrorAfter) => {
                let _done = self.stripe(request).await;
                error(500, "api_error", None)
            }
            _ => self.stripe(request).await,
        };
        let mut state = self.state.lock().unwrap();
        if answer.status == 400 {
            state.keys.remove(&key); // refused before it was begun
        } else {
            state.keys.insert(key, Kept::Answered { of, answer: answer.clone() });
        }
        answer
    }

    /// localstripe, as Stripe would answer.
    async fn stripe(&self, r: &Request) -> Answer {
        let path = r.target.split('?').next().unwrap_or_default();
        let part: Vec<&str> = path.trim_start_matches("/v1/").split('/').collect();
        match (r.method.as_str(), part.as_slice()) {
            ("POST", ["payment_methods"]) => {
                assert!(!r.body.contains("cvc"), "a security code is never asked for by voice");
                self.forward("POST", path, &format!("{}&card%5Bcvc%5D=123", r.body)).await
            }
            ("POST", ["payment_intents"]) => {
                if !r.body.contains("payment_method_options[card][moto]=true") {
                    return error(400, "invalid_request_error", Some("moto_missing"));
                }
                let body = without(&r.body, &["statement_descriptor_suffix"]);
                let mut answer = self.forward("POST", path, &body).await;
                if answer.status == 402 {
                    answer.body = self.declined(&answer.body);
                    return answer;
                }
                self.perhaps_wrong(&answer);
                self.intent(answer)
            }
            ("POST", ["payment_intents", id, "capture"]) => {
                let answer = self.forward("POST", path, &without(&r.body, &["metadata[capture_reference]"])).await;
                if answer.status != 200 {
                    return error(400, "invalid_request_error", Some("payment_intent_unexpected_state"));
                }
                let metadata = only(&r.body, "metadata[capture_reference]");
                self.intent(self.forward("POST", &format!("/v1/payment_intents/{id}"), &metadata).await)
            }
            ("POST", ["payment_intents", id, "cancel"]) => {
                let answer = self.forward("POST", path, "").await;
                if answer.status != 200 {
                    return error(400, "invalid_request_error", Some("payment_intent_unexpected_state"));
                }
                if let Some((_, because)) = only(&r.body, "cancellation_reason").split_once('=') {
                    self.state.lock().unwrap().cancelled_because.insert((*id).to_owned(), because.to_owned());
                }
                self.intent(answer)
            }
            ("GET", ["payment_intents", "search"]) => self.search(&r.target).await,
            ("GET", ["payment_intents", _]) => self.intent(self.forward("GET", path, "").await),
            _ => self.forward(&r.method, &r.target, &r.body).await,
        }
    }

    fn declined(&self, body: &str) -> String {
        let mut all: Value = serde_json::from_str(body).unwrap();
        let code = DECLINES[self.state.lock().unwrap().rng.random_range(0..DECLINES.len())];
        all["error"]["type"] = json!("card_error");
        all["error"]["decline_code"] = json!(code);
        all.to_string()
    }

    fn perhaps_wrong(&self, answer: &Answer) {
        let Ok(intent) = serde_json::from_str::<Value>(&answer.body) else { return };
        let mut state = self.state.lock().unwrap();
        let percent = state.wrong_percent;
        let paid = matches!(intent["status"].as_str(), Some("succeeded" | "requires_capture"));
        if paid && state.rng.random_range(0..100) < percent {
            let off = [-1, 1, 1_000][state.rng.random_range(0..3)];
            state.wrong.insert(intent["id"].as_str().unwrap().to_owned(), off);
        }
    }

    /// A payment intent with what localstripe leaves out.
    fn intent(&self, mut answer: Answer) -> Answer {
        if answer.status != 200 {
            return answer;
        }
        let mut intent: Value = serde_json::from_str(&answer.body).unwrap();
        let state = self.state.lock().unwrap();
        let id = intent["id"].as_str().unwrap().to_owned();
        let off = state.wrong.get(&id).copied().unwrap_or(0);
        let amount = intent["amount"].as_i64().unwrap();
        let received = received(&intent);
        intent["amount_received"] = json!(if received > 0 { received + off } else { 0 });
        intent["amount_capturable"] = json!(if intent["status"] == "requires_capture" { amount + off } else { 0 });
        intent["cancellation_reason"] = json!(state.cancelled_because.get(&id));
        answer.body = intent.to_string();
        answer
    }

    /// localstripe has no search, and a list of everything takes it long: so only what is new is listed, and remembered.
    async fn search(&self, target: &str) -> Answer {
        let wanted = target.split("%3A%27").nth(1).and_then(|rest| rest.split("%27").next()).unwrap_or_default().to_owned();
        let mut listed = self.listed.lock().await;
        loop {
            let after = listed.last().map(|(id, _)| format!("&starting_after={id}")).unwrap_or_default();
            let page = self.ask(&format!("/v1/payment_intents?limit=50{after}")).await;
            for intent in page["data"].as_array().unwrap() {
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                listed.push((text(&intent["id"]), text(&intent["metadata"]["our_reference"])));
            }
            if page["has_more"] != true {
                break;
            }
        }
        let found: Vec<Value> = listed.iter().filter(|(_, of)| *of == wanted).map(|(id, _)| json!({ "id": id })).collect();
        Answer { status: 200, body: json!({ "object": "search_result", "data": found, "has_more": false }).to_string() }
    }

    async fn forward(&self, method: &str, target: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.backend).await.unwrap();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer sk_test_12345\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_ascii_lowercase().contains("chunked"), "{head}");
        Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), body: body.to_owned() }
    }
}

/// Sends each webhook of localstripe on twice, out of order.
#[derive(Debug)]
pub struct WebhookRelay {
    /// Where localstripe posts them.
    pub url: String,
}

impl WebhookRelay {
    /// `to`: our listener.
    pub async fn start(to: SocketAddr, path: &'static str, seed: u64) -> Self {
        const LATEST_MS: u64 = 300;
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", socket.local_addr().unwrap());
        tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            while let Ok((mut stream, _)) = socket.accept().await {
                let waits = [rng.random_range(0..LATEST_MS), rng.random_range(0..LATEST_MS)];
                tokio::spawn(async move {
                    let Some(request) = read_request(&mut stream).await else { return };
                    write_answer(&mut stream, &Answer { status: 200, body: String::new() }, usize::MAX).await;
                    for wait_ms in waits {
                        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                        let signature = request.signature.as_deref().unwrap_or_default();
                        let head = format!(
                            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nStripe-Signature: {signature}\r\n\
                             Content-Length: {}\r\n\r\n",
                            request.body.len()
                        );
                        // Our listener may be gone already: Stripe could not reach it either.
                        let Ok(mut stream) = TcpStream::connect(to).await else { return };
                        let _gone = stream.write_all((head + &request.body).as_bytes()).await;
                        let _answer = stream.read_to_end(&mut Vec::new()).await;
                    }
                });
            }
        });
        Self { url }
    }
}

/// What was captured of an intent, by localstripe's own charge: a part that was not captured is a refund of nobody's there.
pub fn received(intent: &Value) -> i64 {
    let charge = &intent["latest_charge"];
    if intent["status"] == "canceled" || charge["status"] != "succeeded" || charge["captured"] != true {
        return 0;
    }
    let released: i64 =
        refunds(intent).iter().filter(|r| r["metadata"]["our_reference"].is_null()).map(|r| r["amount"].as_i64().unwrap()).sum();
    charge["amount"].as_i64().unwrap() - released
}

/// The refunds of an intent, as localstripe lists them with its charge.
pub fn refunds(intent: &Value) -> Vec<Value> {
    intent["latest_charge"]["refunds"]["data"].as_array().cloned().unwrap_or_default()
}

fn refused_unread(fault: Fault) -> Option<u16> {
    match fault {
        Fault::BadGateway => Some(502),
        Fault::Limited => Some(429),
        Fault::DropBefore
        | Fault::DropAfter
        | Fault::Late
        | Fault::Slow
        | Fault::KeptErrorBefore
        | Fault::KeptErrorAfter
        | Fault::CutOff => None,
    }
}

fn error(status: u16, kind: &str, code: Option<&str>) -> Answer {
    Answer { status, body: json!({ "error": { "type": kind, "code": code } }).to_string() }
}

fn without(form: &str, names: &[&str]) -> String {
    form.split('&').filter(|f| !names.iter().any(|n| f.split('=').next() == Some(*n))).collect::<Vec<_>>().join("&")
}

fn only(form: &str, name: &str) -> String {
    form.split('&').filter(|f| f.split('=').next() == Some(name)).collect::<Vec<_>>().join("&")
}

async fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0u8; 8192];
        let n = stream.read(&mut part).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            head.lines()
                .find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()))
        };
        if body.len() < header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0) {
            continue;
        }
        let mut line = head.lines().next()?.split(' ');
        let (method, target) = (line.next()?.to_owned(), line.next()?.to_owned());
        let (key, signature) = (header("idempotency-key"), header("stripe-signature"));
        return Some(Request { method, target, key, signature, body: body.to_owned() });
    }
}

async fn write_answer(stream: &mut TcpStream, answer: &Answer, limit_bytes: usize) {
    let head = format!(
        "HTTP/1.1 {} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        answer.status,
        answer.body.len()
    );
    let body = &answer.body.as_bytes()[..answer.body.len().min(limit_bytes)];
    let _gone = stream.write_all(head.as_bytes()).await;
    let _gone = stream.write_all(body).await;
}
