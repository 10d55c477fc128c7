//! The command line from a fresh directory to an open request, and how it fails.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::canary::{assert_no_canary, assert_no_canary_below, canary};

pub fn run(dir: &Path, env: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voicepay"));
    command.args(args).env("VOICEPAY__SERVICE__DATA_DIR", dir).env("VOICEPAY_LOG", "trace").env_remove("VOICEPAY_MASTER_KEY");
    command.envs(env.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not read its input may have ended already.
    let _closed = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert_no_canary(&output.stdout, "standard output");
    assert_no_canary(&output.stderr, "standard error");
    output
}

pub fn ok(dir: &Path, args: &[&str], input: &str) -> Value {
    let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
    let output = run(dir, &[], &args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn fails(dir: &Path, args: &[&str], input: &str) -> (i32, String) {
    let output = run(dir, &[], args, input);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn from_an_empty_directory_to_an_open_request() {
    let root = tempfile::tempdir().unwrap();
    let dir = &root.path().join("data");
    let number: String = canary().iter().map(|d| char::from(b'0' + d)).collect();
    let customer = ok(dir, &["customer", "add", "--name", "Ann", "--number", "+44 20 7946 0958"], "");
    let customer = text(&customer, "id");
    let card = ok(dir, &["card", "add", "--customer", customer, "--expires", "09/79"], &format!("{number}\n"));
    assert_eq!((text(&card, "last4"), card["length"].as_u64()), (&number[12..], Some(16)));
    let payee = ok(dir, &["payee", "add", "--name", "Water Works"], "");
    let payee = text(&payee, "id");
    let ask = [
        "request",
        "add",
        "--customer",
        customer,
        "--payee",
        payee,
        "--amount",
        "19.99",
        "--currency",
        "usd",
        "--due",
        "2026-11-30",
    ];
    let request = ok(dir, &ask, "");
    assert_eq!((request["amount_minor"].as_i64(), text(&request, "status")), (Some(1999), "open"));
    let invite = ok(dir, &["enrol", "invite", "--customer", customer], "");
    assert_eq!(text(&invite, "code").len(), 8);
    let shown = ok(dir, &["customer", "show", customer], "");
    assert_eq!(shown["cards"].as_array().unwrap().len(), 1);
    assert_eq!(text(&shown["open_requests"][0], "payee_name"), "Water Works");
    assert_eq!(ok(dir, &["payments", "list"], "")["payments"], serde_json::json!([]));
    assert_eq!(ok(dir, &["books", "check"], "")["transfers"], 0);
    let code = text(&invite, "code").as_bytes();
    for file in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(code.len()).any(|w| w == code), "the invitation code is stored only as a keyed digest");
    }
    // What is refused, each with its own exit code and one sentence.
    let (exit, said) = fails(dir, &["card", "add", "--customer", customer], &format!("{number}\n"));
    assert!(exit == 18 && said.contains("exists already"), "{exit} {said}");
    let (exit, said) = fails(dir, &["card", "add", "--customer", customer], "4111111111111112\n");
    assert!(exit == 18 && said.contains("check digit") && !said.contains("4111"), "{exit} {said}");
    let (exit, _) = fails(dir, &["card", "add", "--customer", customer, "4111111111111111"], "");
    assert_eq!(exit, 2, "no card number on the command line");
    let (exit, said) =
        fails(dir, &["request", "add", "--customer", customer, "--payee", payee, "--amount", "1.999", "--currency", "USD"], "");
    assert!(exit == 18 && said.contains("--amount"), "{exit} {said}");
    let (exit, said) = fails(dir, &["customer", "show", "cus_00"], "");
    assert!(exit == 18 && said.contains("no such customer"), "{exit} {said}");
    let wrong_key = run(dir, &[("VOICEPAY_MASTER_KEY", &"00".repeat(32))], &["enrol", "invite", "--customer", customer], "");
    let said = String::from_utf8_lossy(&wrong_key.stderr);
    assert!(wrong_key.status.code() == Some(16) && said.contains("not the one that sealed"), "{said}");
    let malformed = run(dir, &[("VOICEPAY_MASTER_KEY", "hello")], &["enrol", "invite", "--customer", customer], "");
    assert_eq!(malformed.status.code(), Some(16));
    ok(dir, &["customer", "delete", customer], "");
    let (exit, said) = fails(dir, &["enrol", "invite", "--customer", customer], "");
    assert!(exit == 18 && said.contains("deleted"), "{exit} {said}");
    assert_no_canary_below(root.path());
}

#[test]
fn a_directory_that_cannot_hold_a_database_is_told_with_its_own_exit_code() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let (exit, said) = fails(&file.join("data"), &["customer", "list"], "");
    assert!(exit == 13 && said.contains("can't be opened"), "{exit} {said}");
}
