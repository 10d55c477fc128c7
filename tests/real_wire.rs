//! The whole product as a user meets it: the `voicepay` command sets up a customer, `serve` takes calls on real UDP, and a
//! phone that we did not write (SIPp) pays by voice. A client and a server on one stack would hide each other's faults.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use voicepay::dialogue::{Again, Prompt, SpokenPayee};
use voicepay::ids::PayeeId;
use voicepay::language::Language;
use voicepay::media::frame::SampleRate;
use voicepay::media::g711::Law;
use voicepay::media::wav::read_wav;
use voicepay::money::{Currency, Money};
use voicepay::prompts::Bank;

#[path = "money/canary.rs"]
#[allow(dead_code)] // other tests need more of it
mod canary;

const CALLER: &str = "+447700900123";

/// One call at a time: SIPp speaks by the clock, and the demo beside it would take a core from the service.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A data directory and the commands that work on it.
struct Setup {
    dir: tempfile::TempDir,
}

impl Setup {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_voicepay"));
        command
            .arg("--json")
            .current_dir(self.dir.path())
            .env("VOICEPAY__SERVICE__DATA_DIR", self.dir.path().join("data"))
            .env("VOICEPAY__SIP__LISTEN", "127.0.0.1:0")
            .env("VOICEPAY_LOG", "trace");
        command
    }

    /// Runs a command to its end, with `input` on standard input; its answer.
    fn run(&self, args: &[&str], input: &str) -> Value {
        let mut child =
            self.command().args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "voicepay {args:?}: {errors}");
        let text = String::from_utf8(out.stdout).unwrap();
        serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
    }

    fn add(&self, args: &[&str], input: &str, key: &str) -> String {
        let answer = self.run(args, input);
        let id = answer.get(key).or_else(|| answer.get("id")).unwrap_or_else(|| panic!("{args:?}: no `{key}` in {answer}"));
        id.as_str().unwrap().to_owned()
    }
}

/// A running service; ended, by its id, with the test.
struct Service {
    child: Child,
    address: String,
    log: std::thread::JoinHandle<String>,
}

impl Service {
    fn start(setup: &Setup) -> Self {
        let mut child = setup.command().arg("serve").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut log, &mut text).unwrap();
            text
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("serve said `{line}`: {e}"));
        Self { child, address: listening["sip"].as_str().unwrap().to_owned(), log }
    }

    /// SIGTERM, as an operator stops it; what it logged.
    fn stop(mut self) -> String {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        assert!(self.child.wait().unwrap().success(), "serve ends well when told to");
        self.log.join().unwrap()
    }
}

fn ulaw(name: &str) -> Vec<u8> {
    let sound = read_wav(&root().join("audio-fixtures/alice").join(name)).unwrap();
    assert_eq!(sound.rate, SampleRate::HZ_8000);
    Law::Mu.encode(&sound.samples)
}

fn silence(d: Duration) -> Vec<u8> {
    vec![Law::Mu.silence(); SampleRate::HZ_8000.samples_in(d)]
}

/// What SIPp plays: it can't hear, so it waits out the prompts by their length, and says its "yes" twice in case the first
/// came while the read-back was still being spoken.
fn speech(payee: SpokenPayee) -> Vec<u8> {
    let bank = Bank::load().unwrap();
    let lasts = |p: &Prompt| {
        let sound = bank.book(Language::English).render(p, None);
        sound.rate.duration_of(sound.samples.len())
    };
    let amount = Money::new(1_999, Currency::Usd).unwrap();
    let asked = lasts(&Prompt::Greeting)
        + lasts(&Prompt::ReadRequest { amount, payee: payee.clone(), due: None })
        + lasts(&Prompt::AskCard { attempt: 1, why: Again::First });
    let read_back = lasts(&Prompt::ReadBack { amount, payee, last4: [2, 7, 4, 9], others: false });
    let s = Duration::from_secs;
    [
        silence(asked + s(2)),
        ulaw("card.wav"),
        // The verdict comes within a second; the question waits six.
        silence(s(4) + read_back),
        ulaw("yes.wav"),
        silence(s(9)),
        // Another take: a yes that was heard before is a recording.
        ulaw("yes_please.wav"),
        silence(s(40)),
    ]
    .concat()
}

#[test]
fn a_phone_that_we_did_not_write_pays_by_voice_and_nothing_leaks() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let setup = Setup { dir: tempfile::tempdir().unwrap() };
    let manifest: toml::Table =
        toml::from_str(&std::fs::read_to_string(root().join("audio-fixtures/manifest.toml")).unwrap()).unwrap();
    let pan = manifest["card"].as_str().unwrap().to_owned();

    let customer = setup.add(&["customer", "add", "--name", "Alice Example", "--number", CALLER], "", "customer");
    setup.run(&["card", "add", "--customer", &customer], &format!("{pan}\n"));
    let payee = setup.add(&["payee", "add", "--name", "City Water"], "", "payee");
    let asks = ["request", "add", "--customer", &customer, "--payee", &payee, "--amount", "19.99", "--currency", "USD"];
    setup.run(&asks, "");
    let recordings: Vec<PathBuf> = (1..=3).map(|i| root().join(format!("audio-fixtures/alice/enrol_{i}.wav"))).collect();
    let mut enrol = vec!["enrol", "from-wav", "--customer", &customer, "--consent-by", "the test"];
    enrol.extend(recordings.iter().map(|p| p.to_str().unwrap()));
    setup.run(&enrol, "");

    let service = Service::start(&setup);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.child.id())).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().filter(|word| *word == "0").count(), 2, "no core dump of the service: {cores}");
    let play = tempfile::tempdir().unwrap();
    let spoken = SpokenPayee { id: PayeeId::parse(&payee).unwrap(), name: "City Water".into() };
    std::fs::write(play.path().join("speech.ul"), speech(spoken)).unwrap();
    let sipp = Command::new("sipp")
        .current_dir(play.path())
        .arg("-sf")
        .arg(root().join("tests/sipp/speaks_until_the_service_hangs_up.xml"))
        .args(["-s", "pay", "-key", "caller", CALLER, "-i", "127.0.0.1", "-mi", "127.0.0.1", "-m", "1", "-nostdin"])
        .args(["-timeout", "150s", "-trace_err", &service.address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("sipp is installed: run `make setup`");
    let log = service.stop();
    assert!(sipp.success(), "sipp ended with {sipp}\n{log}");

    let payments = setup.run(&["payments", "list"], "");
    let text = payments.to_string();
    assert!(text.contains("1999") || text.contains("19.99"), "{text}\n{log}");
    let list = payments["payments"].as_array().unwrap_or_else(|| panic!("{payments}"));
    assert_eq!(list.len(), 1, "{text}\n{log}");
    assert_eq!(list[0]["status"], "paid", "{text}\n{log}");

    let mut kept = log.into_bytes();
    for entry in std::fs::read_dir(setup.dir.path().join("data")).unwrap() {
        kept.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    kept.extend(text.bytes());
    let digits: Vec<u8> = pan.bytes().map(|b| b - b'0').collect();
    let shapes = canary::found(&digits, &kept);
    assert!(shapes.is_empty(), "the card number was written down, as {shapes:?}");
}

/// The demo is what a newcomer runs first: its four calls, over real UDP and RTP between our own ends.
#[test]
fn the_demo_lives_through_its_four_calls() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let out = Command::new(env!("CARGO_BIN_EXE_voicepay"))
        .args(["--json", "demo", "--fixtures"])
        .arg(root().join("audio-fixtures"))
        .env_remove("VOICEPAY_LOG")
        .output()
        .unwrap();
    let (told, errors) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8_lossy(&out.stderr).into_owned());
    let calls: Vec<Value> = told.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    let brief: Vec<String> = calls.iter().map(|c| format!("{} {} {}", c["scenario"], c["verdict"], c["problems"])).collect();
    assert!(out.status.success(), "{brief:?}\n{errors}");
    assert_eq!(calls.len(), 4, "{brief:?}");
    assert!(calls.iter().all(|c| c["as_it_must"] == true), "{brief:?}");
}
