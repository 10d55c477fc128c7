//! The lines to the hosts: many questions at a time, several hosts, silence, TLS; and what is written to traces.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::task::JoinSet;
use tokio::time::sleep;
use voicepay::clock::SystemClock;
use voicepay::gateway::Gateway;
use voicepay::gateway::iso8583::config::Iso8583Config;
use voicepay::gateway::iso8583::{Finding, probe};
use voicepay::payment::{BankWord, DeclineReason};

use crate::support::*;

const UNAVAILABLE: BankWord = BankWord::Declined(DeclineReason::IssuerUnavailable);

#[tokio::test]
async fn answers_find_their_questions_whatever_their_order() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &["--jitter-ms", "100"]);
    let config = Iso8583Config { response_timeout_ms: 10_000, queue_limit: 512, in_flight_limit: 64, ..config(&[&host]) };
    let gateway = Arc::new(open(&config));
    let mut tasks = JoinSet::new();
    for n in 0..400 {
        let (gateway, sale) = (gateway.clone(), charge(10_000 + n));
        tasks.spawn(async move { (ours(&gateway.send(&sale).await), sale) });
    }
    let mut sold = vec![];
    while let Some(done) = tasks.join_next().await {
        sold.push(done.unwrap());
    }
    let lines = host.all_lines();
    assert_eq!((sold.len(), lines.len()), (400, 400));
    for (charged, sale) in sold {
        assert_eq!(charged, sale.amount.minor.get(), "an answer to another question");
    }
}

#[tokio::test]
async fn what_finds_no_room_is_not_sent() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &["--jitter-ms", "200"]);
    let config = Iso8583Config { response_timeout_ms: 5_000, queue_limit: 4, in_flight_limit: 2, ..config(&[&host]) };
    let gateway = Arc::new(open(&config));
    assert_eq!(ours(&gateway.send(&charge(100)).await), 100);
    let mut tasks = JoinSet::new();
    for _ in 0..40 {
        let (gateway, sale) = (gateway.clone(), charge(200));
        tasks.spawn(async move { (gateway.send(&sale).await, sale) });
    }
    let (mut refused, mut sold) = (0, 0);
    while let Some(done) = tasks.join_next().await {
        let (word, sale) = done.unwrap();
        assert_eq!(ours(&word), host.stands(&sale), "{word:?}");
        if word == UNAVAILABLE { refused += 1 } else { sold += 1 }
    }
    assert!(refused > 0 && sold > 0, "{refused} refused, {sold} sold");
}

#[tokio::test]
async fn another_host_is_asked_only_where_nothing_was_sent() {
    let Some(python) = python() else { return };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = Host::start(python, one.path(), &[]);
    let second = Host::start(python, two.path(), &[]);
    let gateway = open(&config(&[&first, &second]));
    until("the first host's line", || first.port > 0 && std::fs::metadata(one.path().join("ledger.jsonl")).is_ok()).await;
    // The lines come up in any order; soon the preferred one is there.
    let mut sale = charge(300);
    for _ in 0..50 {
        assert_eq!(ours(&gateway.send(&sale).await), 300);
        if first.stands(&sale) == 300 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
        sale = charge(300);
    }
    assert_eq!((first.stands(&sale), second.stands(&sale)), (300, 0));

    // Sent to the first, and lost there: the second must not hear of it.
    let lost = charge(7015);
    assert_eq!(gateway.send(&lost).await, BankWord::Silence);
    assert_eq!((first.stands(&lost), second.did(&lost).len()), (7015, 0));

    first.stop();
    sleep(Duration::from_millis(50)).await;
    let sale = charge(400);
    assert_eq!(ours(&gateway.send(&sale).await), 400);
    assert_eq!((first.did(&sale).len(), second.stands(&sale)), (0, 400));

    // Back again, it is preferred again.
    first.start_again(python);
    let mut back = charge(500);
    for _ in 0..100 {
        assert_eq!(ours(&gateway.send(&back).await), 500);
        if first.stands(&back) == 500 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
        back = charge(500);
    }
    assert_eq!((first.stands(&back), second.stands(&back)), (500, 0));
}

#[tokio::test]
async fn a_charge_that_no_host_can_hear_is_a_clear_no() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::start(python, dir.path(), &[]);
    let gateway = open(&config(&[&host]));
    host.stop();
    let sale = charge(600);
    assert_eq!(gateway.send(&sale).await, UNAVAILABLE);
    host.start_again(python);
    // It waits for a host that is coming back rather than say no at once.
    let (next, again) = (charge(601), charge(602));
    assert_eq!(ours(&gateway.send(&next).await), 601);
    assert_eq!(ours(&gateway.send(&again).await), 602);
    assert_eq!(host.did(&sale), Vec::<String>::new(), "what was said to be unsent never arrives");
}

#[tokio::test]
async fn a_line_that_answers_no_echo_is_made_anew() {
    let Some(python) = python() else { return };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mute = Host::start(python, one.path(), &["--mute-echo"]);
    let well = Host::start(python, two.path(), &["--ask-echo"]);
    let of = |host: &Host| Iso8583Config { echo_interval_ms: 50, response_timeout_ms: 200, ..config(&[host]) };
    let mut found = vec![];
    let mut tell = |finding: &Finding| found.push((finding.step, finding.error.clone()));
    assert!(!probe(&of(&mute), Arc::new(SystemClock), &mut tell).await.unwrap());
    assert!(probe(&of(&well), Arc::new(SystemClock), &mut tell).await.unwrap());
    let late = Some("echo took too long".to_owned());
    assert_eq!(
        found,
        [("connect", None), ("sign-on", None), ("echo", late), ("connect", None), ("sign-on", None), ("echo", None)]
    );
    let (logged, _guard) = logs();
    let (at_mute, at_well) = (open(&of(&mute)), open(&of(&well)));
    let down = "echo took too long";
    until("a second silence", || logged.text().lines().filter(|l| l.contains(down)).count() >= 2).await;
    assert_eq!((ours(&at_mute.send(&charge(700)).await), ours(&at_well.send(&charge(701)).await)), (700, 701));
    let text = logged.text();
    assert!(text.lines().filter(|l| l.contains(down)).all(|l| l.contains(&mute.address())), "{text}");
}

#[tokio::test]
async fn a_line_that_is_dead_is_noticed_by_its_first_lost_answer() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &[]);
    // The usual echo would come in a minute.
    let gateway = open(&Iso8583Config { late_arrival_ms: 1_000, ..config(&[&host]) });
    assert_eq!(ours(&gateway.send(&charge(100)).await), 100);
    host.freeze(true);
    let lost = charge(900);
    assert_eq!(gateway.send(&lost).await, BankWord::Silence);
    sleep(Duration::from_millis(2 * RESPONSE_MS)).await;
    let next = charge(901);
    assert_eq!(gateway.send(&next).await, UNAVAILABLE, "from here on it is a clear no");
    host.freeze(false);
    // Whether the host read the first charge when it woke up is its business; it does not stand.
    let (word, _) = resolve(&gateway, &lost).await;
    assert!(matches!(word, BankWord::Reversed | BankWord::Declined(DeclineReason::NeverReceived)), "{word:?}");
    assert_eq!((host.stands(&lost), host.did(&next)), (0, vec![]));
}

#[tokio::test]
async fn a_host_that_refuses_our_sign_on_gets_no_charge() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &["--sign-on-code", "58"]);
    let sale = charge(100);
    assert_eq!(open(&config(&[&host])).send(&sale).await, UNAVAILABLE);
    let mut found = vec![];
    let well = probe(&config(&[&host]), Arc::new(SystemClock), &mut |f: &Finding| found.push(f.error.clone())).await.unwrap();
    assert_eq!((well, found), (false, vec![None, Some("the host refuses, with response code 58".to_owned())]));
    assert!(host.all_lines().is_empty());
}

/// An authority, and certificates of the host and of us by it.
fn certificates(dir: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "an authority");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    for name in ["bank.example", "us.example"] {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, name);
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), leaf.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn over_tls_with_certificates_on_both_sides() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let (cert, key, ca) = (path("bank.example.pem"), path("bank.example.key"), path("ca.pem"));
    let host = Host::start(python, dir.path(), &["--cert", &cert, "--key", &key, "--client-ca", &ca]);
    let well = Iso8583Config {
        tls: true,
        tls_ca: file("ca.pem"),
        tls_name: Some("bank.example".into()),
        tls_certificate: Some(file("us.example.pem")),
        tls_private_key: Some(file("us.example.key")),
        ..config(&[&host])
    };
    let mut found = vec![];
    assert!(probe(&well, Arc::new(SystemClock), &mut |f: &Finding| found.push(f.clone())).await.unwrap(), "{found:?}");
    let sale = charge(800);
    assert_eq!(ours(&open(&well).send(&sale).await), 800);
    assert_eq!(host.stands(&sale), 800);
    let stranger = Iso8583Config { tls_certificate: None, tls_private_key: None, ..well.clone() };
    let another = Iso8583Config { tls_name: Some("evil.example".into()), ..well.clone() };
    let unknown = Iso8583Config { tls_ca: file("us.example.pem"), ..well.clone() };
    for wrong in [stranger, another, unknown] {
        let sale = charge(801);
        assert_eq!(open(&wrong).send(&sale).await, UNAVAILABLE);
        assert_eq!(host.did(&sale), Vec::<String>::new());
    }
    let missing = Iso8583Config { tls_ca: file("nowhere.pem"), ..well };
    let told = voicepay::gateway::iso8583::Iso8583Gateway::open(&missing, Arc::new(SystemClock)).unwrap_err().to_string();
    assert!(told.contains("gateway.iso8583.tls_ca"), "{told}");
}

#[tokio::test]
async fn no_trace_shows_a_card_number() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(python, dir.path(), &[]);
    let (logged, _guard) = logs();
    let gateway = open(&config(&[&host]));
    for minor in [100, 9051, 7002, 7005, 7019] {
        settle(&gateway, &charge(minor)).await;
    }
    let text = logged.text();
    assert!(text.contains("0200 2=…4242"), "messages are traced: {text}");
    assert!(!text.contains("424242"), "a card number in a trace: {text}");
}

/// What is logged on this thread, down to the last trace.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logs() -> (Logged, tracing::subscriber::DefaultGuard) {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (logged, tracing::subscriber::set_default(subscriber))
}
