//! The pages behind signed links, over real HTTP: what people see, say and are refused; that looking changes nothing, that an answer counts once,
//! and that nothing from outside becomes markup.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use voicepay::agreement::{Agreed, Asking};
use voicepay::clock::{Clock, SystemClock, SystemEntropy, Timestamp};
use voicepay::ids::{ApprovalId, CallId, CardId, CustomerId, RequestId};
use voicepay::money::{Currency, Money};
use voicepay::payment::policy::{Attested, Policy};
use voicepay::payment::{Approval, Capture, Evidence};
use voicepay::processor::{ChargeOrder, OrderGuards};
use voicepay::store::papers;

use super::support::{CARD, Reply, Shop};

const BANK: &str = "public_url = \"https://pay.example/x/\"\nrequests_per_s = 10000\nburst = 10000\n\
                    [gateway.banks.north]\nsandbox_journal = \"north.jsonl\"\nsandbox_latency_ms = 5\n";
const CONSENT: &str = "consent=purchase-2026-11-23";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

fn id(of: &Value) -> &str {
    of["id"].as_str().unwrap_or_else(|| panic!("{of}"))
}

impl Reply {
    /// A page of ours with this status, that says this.
    #[track_caller]
    fn page(self, status: u16, says: &str) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.text.contains(says), "{says}: {self:?}");
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(self.headers[name], value, "{self:?}");
        }
        let policy = &self.headers["content-security-policy"];
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(policy.contains("form-action 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!self.headers.contains_key("location"), "{self:?}");
        self
    }

    /// Whether something can be answered on it.
    fn asks(&self) -> bool {
        self.text.contains("<form")
    }
}

impl Shop {
    async fn opens(&self, token: &str) -> Reply {
        self.send("GET", &format!("/l/{token}"), &[], "").await
    }

    async fn says(&self, token: &str, form: &str) -> Reply {
        self.send("POST", &format!("/l/{token}"), &[FORM], form).await
    }

    async fn person(&self, name: &str) -> Value {
        self.post("/v1/customers", json!({ "name": name })).await.good(201)
    }

    /// A request of Ann's, to whose payments Sue has to agree.
    async fn supervised(&self) -> (Value, Value) {
        let (request, sue) = (self.request().await, self.person("Sue Green").await);
        let body = json!({ "account": request["customer"], "supervisor": sue["id"] });
        let supervision = self.post("/v1/supervisions", body).await.good(201);
        (request, json!({ "id": sue["id"], "supervision": supervision["id"] }))
    }

    /// Ann says yes in a call; gives what waits for Sue.
    async fn says_yes_in_a_call(&self, request: &Value) -> Approval {
        let customer = request["customer"].as_str().unwrap();
        let card = self.post(&format!("/v1/customers/{customer}/cards"), json!({ "number": CARD })).await.good(201);
        let order = ChargeOrder {
            customer: CustomerId::parse(customer).unwrap(),
            request: RequestId::parse(id(request)).unwrap(),
            amount: Money::new(1999, Currency::Usd).unwrap(),
            card: CardId::parse(id(&card)).unwrap(),
            occasion: CallId::fresh(&SystemEntropy).into(),
            capture: Capture::Automatic,
            evidence: Evidence::default(),
            guards: OrderGuards::default(),
        };
        let agreements = &self.service.office().agreements;
        match agreements.agree(order, BTreeSet::new(), Asking::call(Attested::Vouched)).await.unwrap() {
            Agreed::Waiting { approval, .. } => self.approval(&approval).await,
            other => panic!("does not wait: {other:?}"),
        }
    }

    async fn approval(&self, id: &ApprovalId) -> Approval {
        papers::read(&*self.service.office().store, id.as_str()).await.unwrap().unwrap()
    }

    fn link(&self, approval: &Approval, who: &Value, until: Timestamp) -> String {
        self.service.office().agreements.link(&approval.id, &CustomerId::parse(id(who)).unwrap(), until)
    }

    /// What waits for Sue, and the token of her link.
    async fn sue_is_asked(&self) -> (Approval, Value, String) {
        let (request, sue) = self.supervised().await;
        let approval = self.says_yes_in_a_call(&request).await;
        let token = self.link(&approval, &sue, approval.expires_at);
        (approval, sue, token)
    }

    /// A purchase of Ann's that waits for her.
    async fn purchase(&self) -> Value {
        let request = self.request().await;
        let cards = format!("/v1/customers/{}/cards", request["customer"].as_str().unwrap());
        let card = self.post(&cards, json!({ "number": CARD })).await.good(201);
        let main = json!({ "customer": request["customer"], "bank": "north", "card": card["id"] });
        self.post("/v1/main-accounts", main).await.good(201);
        let new = json!({ "customer": request["customer"], "request": request["id"] });
        self.post("/v1/purchases", new).await.good(201)
    }

    async fn payments(&self) -> usize {
        self.get("/v1/payments").await.good(200)["data"].as_array().unwrap().len()
    }

    async fn database(&self) -> SqliteConnection {
        let file = self.dir.path().join("voicepay.db");
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_sees_what_is_asked_and_the_last_yes_charges_once() {
    let shop = Shop::with(BANK).await;
    let (approval, sue, token) = shop.sue_is_asked().await;
    let page = shop.opens(&token).await.page(200, "You are asked to agree to a payment");
    for shown in
        ["Water Works", "19.99 USD", "Ann Smith", "supervisor", "2031-01-31", approval.request.as_str(), "a bill or a service"]
    {
        assert!(page.text.contains(shown), "{shown}: {page:?}");
    }
    assert!(page.asks() && page.text.contains(&approval.expires_at.to_string()));
    assert!(!page.text.contains(&token), "a page that is saved or shown gives nobody the link");
    // Whatever follows links in messages changes nothing.
    let head = shop.send("HEAD", &format!("/l/{token}"), &[], "").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(head.headers["content-security-policy"], page.headers["content-security-policy"]);
    shop.opens(&token).await.page(200, "19.99 USD");
    assert_eq!(shop.approval(&approval.id).await, approval);

    let done = shop.says(&token, "answer=yes").await.page(200, "Everybody agreed. The payment is on its way.");
    assert!(!done.asks() && done.text.contains("19.99 USD"));
    shop.says(&token, "answer=yes").await.page(200, "Everybody agreed");
    shop.says(&token, "answer=no").await.page(409, "Nothing can be answered any more");
    assert!(!shop.opens(&token).await.page(410, "has been paid, or is being paid").asks());
    assert_eq!(shop.payments().await, 1);
    let decided = shop.get(&format!("/v1/approvals/{}", approval.id)).await.good(200);
    assert_eq!((&decided["state"], &decided["parties"][0]["customer"]), (&json!("used"), &sue["id"]));
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_ends_it_and_an_answer_that_was_given_stands() {
    let shop = Shop::with(BANK).await;
    let (approval, _, token) = shop.sue_is_asked().await;
    shop.says(&token, "answer=no").await.page(200, "You have said no");
    shop.says(&token, "answer=no").await.page(409, "You have said no");
    shop.says(&token, "answer=yes").await.page(409, "You have said no");
    shop.opens(&token).await.page(410, "You have said no");
    assert_eq!((shop.approval(&approval.id).await.state.name(), shop.payments().await), ("denied", 0));
    // Before the payer has called; by a link that the payee's systems deliver.
    let (request, sue) = shop.supervised_again().await;
    let asked = shop.post(&format!("/v1/requests/{}/approvals", id(&request)), json!({})).await.good(201);
    let links = format!("/v1/approvals/{}/links", id(&asked));
    let made = shop.post(&links, json!({ "customer": sue["id"] })).await.good(201);
    let token = made["token"].as_str().unwrap();
    assert_eq!((&made["url"], &made["expires_at"]), (&json!(format!("https://pay.example/x/l/{token}")), &asked["expires_at"]));
    shop.says(token, "answer=yes").await.page(200, "The payer has not confirmed the payment yet");
    let seen = shop.opens(token).await.page(200, "You have said yes");
    assert!(!seen.asks());
    shop.says(token, "answer=no").await.page(409, "You have answered already");
    shop.says(token, "answer=yes").await.page(200, "You have said yes");
    // No link for who was not asked, nor of what another tenant's is, nor of what has ended.
    shop.post(&links, json!({ "customer": request["customer"] })).await.refused(409, "conflict");
    let stranger = shop.key_for("other", &voicepay::api::Scope::ALL, None).await;
    shop.post_with(&stranger, "s", &links, &json!({ "customer": sue["id"] })).await.refused(404, "not-found");
    shop.post(&format!("/v1/approvals/{}/cancel", id(&asked)), json!({})).await.good(200);
    shop.post(&links, json!({ "customer": sue["id"] })).await.refused(409, "conflict");
    shop.opens(token).await.page(410, "This was taken back");
    shop.says(token, "answer=yes").await.page(409, "This was taken back");
    shop.service.stop().await;
}

impl Shop {
    async fn supervised_again(&self) -> (Value, Value) {
        let request = self.request_of("+442079460959").await;
        let sue = self.person("Tom Brown").await;
        let body = json!({ "account": request["customer"], "supervisor": sue["id"] });
        self.post("/v1/supervisions", body).await.good(201);
        (request, sue)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_is_confirmed_on_its_page_with_consent_once() {
    let shop = Shop::with(BANK).await;
    let asked = shop.purchase().await;
    let token = asked["page"].as_str().unwrap();
    assert_eq!(asked["url"], format!("https://pay.example/x/l/{token}"));
    let page = shop.opens(token).await.page(200, "Confirm your payment");
    for shown in
        ["Water Works", "19.99 USD", "200.00 USD", "500.00 USD", "I allow this payee to ask for payments", "name=\"consent\""]
    {
        assert!(page.text.contains(shown), "{shown}: {page:?}");
    }
    assert!(!page.text.contains("name=\"code\"") && !page.text.contains(token));
    let path = format!("/v1/purchases/{}", id(&asked["purchase"]));
    assert_eq!(shop.get(&path).await.good(200)["state"], "awaiting");
    for without in ["answer=yes", "answer=yes&consent=purchase-1999-01-01"] {
        assert!(shop.says(token, without).await.page(409, "to pay, agree to the text below").asks(), "it can be answered again");
    }
    assert_eq!(shop.payments().await, 0);
    let yes = format!("answer=yes&{CONSENT}");
    for _ in 0..3 {
        assert!(!shop.says(token, &yes).await.page(200, "Paid.").asks());
    }
    assert_eq!(shop.payments().await, 1);
    shop.opens(token).await.page(200, "Paid.");
    shop.says(token, "answer=no").await.page(409, "Paid.");
    let paid = shop.get(&path).await.good(200);
    assert!(paid["receipt"].is_string(), "{paid}");
    let accounts = format!("/v1/customers/{}/accounts", paid["customer"].as_str().unwrap());
    let account = &shop.get(&accounts).await.good(200)["purchase"][0];
    assert_eq!((&account["consent"]["how"], &account["consent"]["by"]), (&json!("link"), &paid["customer"]));
    let journal = std::fs::read_to_string(shop.dir.path().join("north.jsonl")).unwrap();
    assert_eq!(journal.lines().filter(|l| l.contains("charged")).count(), 1, "{journal}");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_on_the_page_ends_a_purchase() {
    let shop = Shop::with(BANK).await;
    let asked = shop.purchase().await;
    let token = asked["page"].as_str().unwrap();
    // Half a code and no consent: a no is a no.
    shop.says(token, "answer=no&code=12").await.page(200, "You have said no");
    shop.says(token, &format!("answer=yes&{CONSENT}")).await.page(409, "You have said no");
    shop.opens(token).await.page(410, "You have said no");
    assert_eq!(shop.get(&format!("/v1/purchases/{}", id(&asked["purchase"]))).await.good(200)["state"], "refused");
    assert_eq!(shop.payments().await, 0);
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_sent_asked_for_and_counted() {
    let shop = Shop::with(BANK).await;
    let rules = "version = \"t\"\nrefused_currencies = [\"GBP\", \"JPY\", \"EUR\"]\n[tiers]\nUSD = { small = \"5.00\", normal = \"500.00\" }\n\
                 [[rule]]\nname = \"code\"\nwhen = { tier = [\"normal\"] }\nask = [\"code\"]\n\
                 [[rule]]\nname = \"large\"\nwhen = { tier = [\"large\"] }\ndeny = true\n";
    let office = shop.service.office();
    office.agreements.set_policy(Policy::from_toml(rules).unwrap());
    let asked = shop.purchase().await;
    let token = asked["page"].as_str().unwrap();
    assert!(shop.opens(token).await.page(200, "autocomplete=\"one-time-code\"").text.contains("Send me a code"));
    let yes = |code: &str| format!("answer=yes&{CONSENT}&code={code}");
    assert!(shop.says(token, &yes("")).await.page(409, "enter the code").asks());
    assert!(shop.says(token, &yes("123456")).await.page(409, "This code can't be used any more").asks());
    for shape in ["12345", "1234567", "12345x", "%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96"] {
        shop.says(token, &yes(shape)).await.page(400, "A code has 6 digits");
    }
    assert!(shop.says(token, "answer=code").await.page(200, "A code is on its way to you").asks());
    let request = RequestId::parse(asked["purchase"]["request"].as_str().unwrap()).unwrap();
    let found = office.store.request(&request).await.unwrap().unwrap().request;
    let voicepay::agreement::CodeOutcome::Sent(sent) = office.agreements.send_code(&found).await.unwrap() else {
        panic!("no code")
    };
    let right: String = sent.digits.expose().iter().map(|d| char::from(b'0' + d)).collect();
    let wrong: String = sent.digits.expose().iter().map(|d| char::from(b'0' + (d + 1) % 10)).collect();
    assert!(shop.says(token, &yes(&wrong)).await.page(409, "Tries left: 4").asks());
    assert_eq!(shop.payments().await, 0);
    let spaced = format!("{}+{}", &right[..3], &right[3..]);
    shop.says(token, &yes(&spaced)).await.page(200, "Paid.");
    assert_eq!(shop.payments().await, 1);
    shop.says(token, "answer=code").await.page(409, "Paid.");
    // Another purchase: codes can be asked for so often and no more.
    let asked = shop.another_purchase(&asked).await;
    let token = asked["page"].as_str().unwrap();
    let mut sent = 0;
    let refused = loop {
        let reply = shop.says(token, "answer=code").await;
        if reply.status != 200 {
            break reply;
        }
        sent += 1;
        assert!(sent < 20, "codes without end");
    };
    assert_eq!(refused.page(429, "Too many codes were sent").headers["retry-after"], "3600");
    shop.service.stop().await;
}

impl Shop {
    /// Of the same customer and payee.
    async fn another_purchase(&self, asked: &Value) -> Value {
        let purchase = &asked["purchase"];
        let request = json!({ "customer": purchase["customer"], "payee": purchase["payee"], "amount": { "minor": 2_000, "currency": "USD" } });
        let request = self.post("/v1/requests", request).await.good(201);
        self.post("/v1/purchases", json!({ "customer": purchase["customer"], "request": request["id"] })).await.good(201)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_none_and_those_whose_time_is_over() {
    let shop = Shop::with(BANK).await;
    let (approval, sue, token) = shop.sue_is_asked().await;
    let over = shop.link(&approval, &sue, Timestamp(1));
    for reply in [shop.opens(&over).await, shop.says(&over, "answer=yes").await] {
        assert!(!reply.page(410, "The time to answer is over").asks());
    }
    // Signed by us for somebody who was not asked.
    let stranger = shop.link(&approval, &json!({ "id": approval.customer }), approval.expires_at);
    shop.opens(&stranger).await.page(403, "You are not asked");
    shop.says(&stranger, "answer=yes").await.page(403, "You are not asked");
    let nobody = json!({ "id": CustomerId::fresh(&SystemEntropy) });
    shop.opens(&shop.link(&approval, &nobody, approval.expires_at)).await.page(404, "This link is not valid");

    let altered = format!("{}{}", &token[..token.len() - 2], if token.ends_with("AA") { "BB" } else { "AA" });
    let long = "A".repeat(3_000);
    let forged =
        [altered.as_str(), "x", "%ff", "..%2f..%2fetc", long.as_str(), &token[1..], "a%00b", "%e4%bd%a0", &stranger[2..]];
    for forged in forged {
        assert!(!shop.opens(forged).await.page(404, "This link is not valid").asks(), "{forged}");
    }
    // Whoever goes on guessing waits; who has a good link does not, even from there.
    let last = shop.says(&altered, "answer=yes").await.page(404, "This link is not valid");
    assert!(!last.headers.contains_key("retry-after"));
    for _ in 0..3 {
        let wait: u64 =
            shop.says(&altered, "answer=yes").await.page(429, "Too many links").headers["retry-after"].parse().unwrap();
        assert!((1..=11).contains(&wait), "{wait}");
    }
    shop.opens(&token).await.page(200, "19.99 USD");
    assert_eq!(shop.approval(&approval.id).await, approval);
    // And one good link is not opened without end.
    let mut seen = 0;
    while shop.opens(&token).await.status == 200 {
        seen += 1;
        assert!(seen < 100, "a link is opened as often as anybody likes");
    }
    shop.opens(&token).await.page(429, "opened too often");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_withdrawn_blocked_or_overruled_agrees_to_nothing() {
    let shop = Shop::with(BANK).await;
    // The supervisor is none any more.
    let (approval, sue, token) = shop.sue_is_asked().await;
    shop.delete(&format!("/v1/supervisions/{}", sue["supervision"].as_str().unwrap())).await.good(200);
    shop.opens(&token).await.page(410, "is not asked any more");
    shop.says(&token, "answer=yes").await.page(409, "is not asked any more");
    assert_eq!(shop.approval(&approval.id).await.state.name(), "withdrawn");
    // A guardian froze the payer's payments meanwhile.
    let (request, tom) = shop.supervised_again().await;
    let guardian = shop.person("Gil Black").await;
    let wardship = json!({ "ward": request["customer"], "guardian": guardian["id"], "rules": {} });
    let wardship = shop.post("/v1/guardianships", wardship).await.good(201);
    let approval = shop.says_yes_in_a_call(&request).await;
    let token = shop.link(&approval, &tom, approval.expires_at);
    let freeze = json!({ "by": guardian["id"], "change": "freeze" });
    shop.post(&format!("/v1/guardianships/{}/changes", id(&wardship)), freeze).await.good(200);
    shop.says(&token, "answer=yes").await.page(409, "the rules refuse this payment now");
    assert_eq!(shop.payments().await, 0);
    // Who is blocked answers nothing.
    let request = shop.request_of("+442079460960").await;
    let body = json!({ "account": request["customer"], "supervisor": tom["id"] });
    shop.post("/v1/supervisions", body).await.good(201);
    let approval = shop.says_yes_in_a_call(&request).await;
    let token = shop.link(&approval, &tom, approval.expires_at);
    let block = "UPDATE customers SET status = 'blocked' WHERE id = ?";
    sqlx::query(block).bind(id(&tom)).execute(&mut shop.database().await).await.unwrap();
    shop.opens(&token).await.page(403, "Your account is blocked");
    shop.says(&token, "answer=yes").await.page(403, "Your account is blocked");
    assert_eq!((shop.approval(&approval.id).await, shop.payments().await), (approval, 0));
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_none_change_nothing() {
    let shop = Shop::with(BANK).await;
    let (approval, _, token) = shop.sue_is_asked().await;
    let path = format!("/l/{token}");
    for form in [
        "",
        "answer",
        "answer=",
        "answer=maybe",
        "answer=yes&answer=yes",
        "answer=yes&answer=no",
        "answer=yes&more=1",
        "ANSWER=yes",
        "answer=yes%",
        "answer=%ff",
        "{\"answer\":\"yes\"}",
        "answer=code",
    ] {
        shop.says(&token, form).await.page(400, "This could not be read as an answer");
    }
    let consent = format!("answer=yes&consent={}", "a".repeat(65));
    shop.says(&token, &consent).await.page(400, "This could not be read as an answer");
    for kind in ["application/json", "multipart/form-data; boundary=x", "text/plain"] {
        shop.send("POST", &path, &[("Content-Type", kind)], "answer=yes").await.page(415, "Answers come from the form");
    }
    shop.send("POST", &path, &[], "answer=yes").await.page(415, "Answers come from the form");
    let long = format!("answer=yes&code={}", "1".repeat(5_000));
    shop.says(&token, &long).await.page(413, "longer than any answer");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let body = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    shop.raw(&head, body.as_bytes()).await.page(413, "longer than any answer");
    for method in ["PUT", "DELETE", "PATCH"] {
        shop.send(method, &path, &[FORM], "answer=yes").await.refused(405, "method");
    }
    shop.send("GET", "/l/", &[], "").await.refused(404, "not-found");
    assert_eq!(shop.approval(&approval.id).await, approval);
    // As a browser writes its kind.
    let kind = ("Content-Type", "Application/X-WWW-Form-Urlencoded; charset=UTF-8");
    shop.send("POST", &path, &[kind], "answer=no").await.page(200, "You have said no");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_text_and_every_reader_has_their_language() {
    let shop = Shop::with(BANK).await;
    let customer = json!({ "name": "<img src=x onerror=alert(1)>", "numbers": ["+442079460958"] });
    let customer = shop.post("/v1/customers", customer).await.good(201);
    let payee = shop.post("/v1/payees", json!({ "name": "<script>alert(\"1\")</script>&'" })).await.good(201);
    let amount = json!({ "minor": 1999, "currency": "USD" });
    let request = json!({ "customer": customer["id"], "payee": payee["id"], "amount": amount });
    let request = shop.post("/v1/requests", request).await.good(201);
    let ming = shop.post("/v1/customers", json!({ "name": "Ming Li", "language": "zh" })).await.good(201);
    shop.post("/v1/supervisions", json!({ "account": customer["id"], "supervisor": ming["id"] })).await.good(201);
    let approval = shop.says_yes_in_a_call(&request).await;
    let token = shop.link(&approval, &ming, approval.expires_at);
    // Nothing is said by the browser: the customer's own.
    let page = shop.opens(&token).await.page(200, "<html lang=\"zh\">");
    assert_eq!(page.headers["content-language"], "zh");
    assert!(page.text.contains("收款方") && page.text.contains("同意付款"));
    let page = shop.send("GET", &format!("/l/{token}"), &[("Accept-Language", "de, en;q=0.5")], "").await;
    let page = page.page(200, "<html lang=\"en\">");
    assert!(page.text.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"), "{page:?}");
    assert!(page.text.contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert!(!page.text.contains("<script") && !page.text.contains("<img"), "{page:?}");
    shop.send("POST", &format!("/l/{token}"), &[FORM, ("Accept-Language", "zh-CN")], "answer=maybe").await.page(400, "无法读取");
    // Of a link that is none nobody knows whose language it would be.
    shop.opens("x").await.page(404, "This link is not valid");
    shop.send("GET", "/l/x", &[("Accept-Language", "zh")], "").await.page(404, "此链接无效");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_cannot_write_says_so_and_the_same_answer_counts_later() {
    let more = format!("{BANK}[store]\nbusy_timeout_ms = 100\n");
    let shop = Shop::with(&more).await;
    let (approval, _, token) = shop.sue_is_asked().await;
    let mut locked = shop.database().await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut locked).await.unwrap();
    let refused = shop.says(&token, "answer=yes").await.page(503, "The service is out of order");
    assert!(refused.headers.contains_key("retry-after") && !refused.asks());
    sqlx::query("ROLLBACK").execute(&mut locked).await.unwrap();
    assert_eq!(shop.approval(&approval.id).await, approval);
    shop.says(&token, "answer=yes").await.page(200, "Everybody agreed");
    assert_eq!(shop.payments().await, 1);
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_to_agree_is_sent_a_link_that_opens_their_page() {
    let sent = tempfile::NamedTempFile::new().unwrap();
    let command = format!("[\"sh\", \"-c\", \"cat >> {0}; echo >> {0}\"]", sent.path().display());
    let shop = Shop::with(&format!("{BANK}[notify]\npoll_ms = 50\ncommand = {command}\n")).await;
    let (approval, sue, _) = shop.sue_is_asked().await;
    let asked = shop.post("/v1/customers", json!({ "name": "Ann Two", "numbers": ["+442079460961"], "language": "zh" })).await;
    drop(asked.good(201));
    let messages = |count: usize| {
        let path = sent.path().to_owned();
        async move {
            for _ in 0..200 {
                let text = std::fs::read_to_string(&path).unwrap();
                let all: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
                if all.len() >= count {
                    return all;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            panic!("there are not {count} messages")
        }
    };
    let all = messages(1).await;
    let [message] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(
        (&message["kind"], &message["about"], &message["customer"], &message["language"]),
        (&json!("link"), &json!("approval"), &sue["id"], &json!("en"))
    );
    assert_eq!(message["expires_at"], approval.expires_at.to_string());
    let token = message["url"].as_str().unwrap().strip_prefix("https://pay.example/x/l/").unwrap().to_owned();
    // Sealed until it was sent, then wiped: it stands nowhere.
    let stands = |bytes: &[u8]| memchr::memmem::find(bytes, token.as_bytes()).is_some();
    assert!(!stands(&shop.all_files()), "a link stands in the open");
    shop.says(&token, "answer=yes").await.page(200, "Everybody agreed");
    // And so is a user who is asked for money.
    let request = shop.request_of("+442079460962").await;
    let cards = format!("/v1/customers/{}/cards", request["customer"].as_str().unwrap());
    let card = shop.post(&cards, json!({ "number": CARD })).await.good(201);
    let main = json!({ "customer": request["customer"], "bank": "north", "card": card["id"] });
    shop.post("/v1/main-accounts", main).await.good(201);
    let asked = shop.post("/v1/purchases", json!({ "customer": request["customer"], "request": request["id"] })).await.good(201);
    let message = messages(2).await.remove(1);
    assert_eq!((&message["about"], &message["url"]), (&json!("purchase"), &asked["url"]));
    assert_eq!(message["numbers"], json!(["+442079460962"]));
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_public_url_no_links_are_made_and_tokens_are_good_all_the_same() {
    let shop = Shop::with(&BANK.replace("public_url = \"https://pay.example/x/\"\n", "")).await;
    let asked = shop.purchase().await;
    assert_eq!(asked["url"], Value::Null);
    shop.opens(asked["page"].as_str().unwrap()).await.page(200, "Confirm your payment");
    let store = &shop.service.office().store;
    let now = SystemClock.now();
    assert!(store.claim_code_deliveries(now, now, 10).await.unwrap().is_empty(), "nobody is sent anything");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_waits_for_others_says_so_and_is_paid_when_they_agree() {
    let shop = Shop::with(&format!("{BANK}[agreement]\nsweep_ms = 100\n")).await;
    let asked = shop.purchase().await;
    let (token, path) = (asked["page"].as_str().unwrap(), format!("/v1/purchases/{}", id(&asked["purchase"])));
    let payer = &asked["purchase"]["customer"];
    assert_eq!(asked["others"], json!([]));
    let sue = shop.person("Sue Green").await;
    shop.post("/v1/supervisions", json!({ "account": payer, "supervisor": sue["id"] })).await.good(201);
    assert_eq!(shop.get(&format!("{path}/page")).await.good(200)["others"], json!(["supervisor"]));
    assert!(shop.opens(token).await.page(200, "Asked after your yes").text.contains("<dd>supervisor</dd>"));
    let yes = format!("answer=yes&{CONSENT}");
    for _ in 0..2 {
        assert!(!shop.says(token, &yes).await.page(200, "Others have to agree, and are asked now").asks());
    }
    shop.opens(token).await.page(200, "Others have to agree, and are asked now");
    let waiting = shop.get(&path).await.good(200);
    assert_eq!((&waiting["state"], &waiting["payment"], shop.payments().await), (&json!("waiting"), &Value::Null, 0));
    let links = format!("/v1/approvals/{}/links", waiting["approval"].as_str().unwrap());
    let link = shop.post(&links, json!({ "customer": sue["id"] })).await.good(201);
    let hers = link["token"].as_str().unwrap();
    shop.opens(hers).await.page(200, "19.99 USD");
    shop.says(hers, "answer=yes").await.page(200, "Everybody agreed. The payment is on its way.");
    let mut paid = shop.get(&path).await.good(200);
    for _ in 0..200 {
        if paid["state"] == "paid" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        paid = shop.get(&path).await.good(200);
    }
    assert_eq!((&paid["state"], &paid["approval"], shop.payments().await), (&json!("paid"), &Value::Null, 1));
    shop.opens(token).await.page(200, "Paid.");
    // A no: the user reads it on their own page.
    let again = shop.another_purchase(&asked).await;
    let token = again["page"].as_str().unwrap();
    shop.says(token, "answer=yes").await.page(200, "Others have to agree");
    let waiting = shop.get(&format!("/v1/purchases/{}", id(&again["purchase"]))).await.good(200);
    let links = format!("/v1/approvals/{}/links", waiting["approval"].as_str().unwrap());
    let link = shop.post(&links, json!({ "customer": sue["id"] })).await.good(201);
    shop.says(link["token"].as_str().unwrap(), "answer=no").await.page(200, "You have said no");
    shop.opens(token).await.page(410, "Somebody who was asked said no");
    shop.says(token, "answer=yes").await.page(409, "Somebody who was asked said no");
    assert_eq!(shop.payments().await, 1);
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_was_erased_is_sent_nothing_and_others_are_asked() {
    let shop = Shop::with(BANK).await;
    let (request, sue) = shop.supervised().await;
    let tom = shop.person("Tom Brown").await;
    shop.post("/v1/supervisions", json!({ "account": request["customer"], "supervisor": tom["id"] })).await.good(201);
    shop.delete(&format!("/v1/customers/{}", id(&sue))).await.good(200);
    let approval = shop.says_yes_in_a_call(&request).await;
    shop.opens(&shop.link(&approval, &sue, approval.expires_at)).await.page(403, "Your account is blocked");
    let now = SystemClock.now();
    let sent = shop.service.office().store.claim_code_deliveries(now, now, 10).await.unwrap();
    assert_eq!(sent.iter().map(|d| d.customer.as_str()).collect::<Vec<_>>(), [id(&tom)]);
    shop.service.stop().await;
}
