//! The commands from end to end, and the programs of docs/AUDIT.md on what they write.

use std::process::Command;

use super::*;
use crate::cli::keys::{self, KeysArgs};
use crate::cli::receipt::{self, ReceiptArgs};
use crate::clock::{Entropy, SeededEntropy, Timestamp};
use crate::ledger::document::{DocumentSignature, SignedDocument, canonical};
use crate::store::AuditRecord;
use crate::vault::SigningPurpose;

#[derive(clap::Parser)]
struct AuditLine {
    #[command(flatten)]
    args: AuditArgs,
}

#[derive(clap::Parser)]
struct ReceiptLine {
    #[command(flatten)]
    args: ReceiptArgs,
}

#[derive(clap::Parser)]
struct KeysLine {
    #[command(flatten)]
    args: KeysArgs,
}

struct Desk {
    dir: tempfile::TempDir,
    ctx: Context,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("voicepay.toml");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let text = format!("[store]\npath = {:?}\n[vault]\nmaster_key_file = {:?}\n", at("v.db"), at("master.key"));
        std::fs::write(&config, text).unwrap();
        Self { ctx: Context { json: true, config_path: Some(config) }, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn audit(&self, words: &[&str]) -> CliResult {
        let line = <AuditLine as clap::Parser>::try_parse_from([&["audit"], words].concat()).unwrap();
        run(line.args, &self.ctx)
    }

    fn receipt(&self, words: &[&str]) -> CliResult {
        let line = <ReceiptLine as clap::Parser>::try_parse_from([&["receipt"], words].concat()).unwrap();
        receipt::run(line.args, &self.ctx)
    }

    fn keys(&self, words: &[&str]) -> CliResult {
        let line = <KeysLine as clap::Parser>::try_parse_from([&["keys"], words].concat()).unwrap();
        keys::run(line.args, &self.ctx)
    }

    fn with_data<T>(&self, work: impl AsyncFnOnce(Data) -> T) -> T {
        block_on(async { Ok(work(Data::open(&self.ctx).await?).await) }).unwrap()
    }

    /// So many audit rows, with texts that canonical bytes could trip over.
    fn rows(&self, n: i64) {
        self.with_data(async |data: Data| {
            for n in 0..n {
                let entropy = SeededEntropy::new(u64::try_from(n).unwrap());
                let id = AuditId::fresh(&entropy as &dyn Entropy);
                let (actor, action, subject) = ("test".into(), "row.written".into(), format!("Straße {n} \"€\"\n😀"));
                let row = AuditRecord { id, at: Timestamp(n), actor, action, subject, detail: json!({ "x": 0.1, "é": [n] }) };
                data.store.audit(&row).await.unwrap();
            }
        });
    }

    fn pem(&self) -> String {
        let pem = self.with_data(async |data: Data| {
            registered(&data)
                .await
                .unwrap()
                .iter()
                .map(|key| format!("a {} key\n{}", key.purpose, key.public.to_pem()))
                .collect::<String>()
        });
        std::fs::write(self.path("keys.pem"), pem).unwrap();
        self.path("keys.pem")
    }
}

fn exit(result: CliResult) -> (Exit, String) {
    let error = result.unwrap_err();
    (error.exit, error.message)
}

#[test]
fn a_log_is_exported_proven_and_verified_offline() {
    let desk = Desk::new();
    assert_eq!(exit(desk.audit(&["verify"])).0, Exit::Refused);
    desk.keys(&["show"]).unwrap();
    desk.rows(30);
    desk.audit(&["checkpoint"]).unwrap();
    desk.audit(&["verify"]).unwrap();
    let (file, pem) = (desk.path("audit.jsonl"), desk.pem());
    desk.audit(&["export", &file]).unwrap();
    assert_eq!(exit(desk.audit(&["export", &file])).0, Exit::Refused, "an export never replaces a file");
    desk.audit(&["verify", &file]).unwrap();
    desk.audit(&["verify", &file, "--key", &pem]).unwrap();
    // Somebody else's key, and a file that is none.
    let other = PublicKey::new([8; 32]).to_base64();
    assert_eq!(exit(desk.audit(&["verify", &file, "--key", &other])).0, Exit::Audit);
    assert_eq!(exit(desk.audit(&["verify", &file, "--key", "/nowhere"])).0, Exit::Refused);
    // A record of it, proven.
    desk.audit(&["proof", "7"]).unwrap();
    assert_eq!(exit(desk.audit(&["proof", "999"])).0, Exit::Refused);
    assert_eq!(exit(desk.audit(&["proof", "4821930577"])).0, Exit::Refused);
    let proof = desk.with_data(async |data: Data| log::prove(&*data.store, 7).await.unwrap().unwrap());
    let proof = serde_json::to_string(&proof).unwrap();
    std::fs::write(desk.path("proof.json"), &proof).unwrap();
    desk.audit(&["verify", &desk.path("proof.json"), "--key", &pem]).unwrap();
    std::fs::write(desk.path("proof.json"), proof.replace("row.written", "row.writtem")).unwrap();
    assert_eq!(exit(desk.audit(&["verify", &desk.path("proof.json"), "--key", &pem])).0, Exit::Audit);
    // A checkpoint kept elsewhere, and a log that was cut behind it.
    let note = desk.with_data(async |data: Data| data.store.last_checkpoint().await.unwrap().unwrap().note);
    std::fs::write(desk.path("kept.txt"), note.trim_end()).unwrap();
    desk.audit(&["verify", &file, "--key", &pem, "--checkpoint", &desk.path("kept.txt")]).unwrap();
    desk.audit(&["verify", "--checkpoint", &desk.path("kept.txt")]).unwrap();
    let cut: Vec<_> = std::fs::read_to_string(&file).unwrap().lines().take(11).map(str::to_owned).collect();
    let cut = format!("{}\n{{\"line\":\"end\",\"records\":10,\"checkpoints\":0}}\n", cut.join("\n"));
    std::fs::write(desk.path("cut.jsonl"), cut).unwrap();
    desk.audit(&["verify", &desk.path("cut.jsonl"), "--key", &pem]).unwrap();
    let (code, message) =
        exit(desk.audit(&["verify", &desk.path("cut.jsonl"), "--key", &pem, "--checkpoint", &desk.path("kept.txt")]));
    assert!(code == Exit::Audit && message.contains("the log was cut"), "{message}");
    // The next key signs, and both are needed to verify all of it.
    desk.keys(&["rotate", "checkpoints"]).unwrap();
    desk.audit(&["export", &desk.path("later.jsonl")]).unwrap();
    assert_eq!(exit(desk.audit(&["verify", &desk.path("later.jsonl"), "--key", &pem])).0, Exit::Audit);
    desk.audit(&["verify", &desk.path("later.jsonl"), "--key", &desk.pem()]).unwrap();
}

#[test]
fn the_first_bad_record_is_named_by_its_position() {
    let desk = Desk::new();
    desk.rows(20);
    let file = desk.path("audit.jsonl");
    desk.audit(&["export", &file]).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let verify = |text: &str| {
        std::fs::write(desk.path("bad.jsonl"), text).unwrap();
        exit(desk.audit(&["verify", &desk.path("bad.jsonl")]))
    };
    let (code, message) = verify(&text.replace("Straße 13 ", "Straße 31 "));
    assert!(code == Exit::Audit && message.starts_with("at position 13 (aud_"), "{message}");
    let without: String = text.lines().filter(|l| !l.contains("Straße 5 ")).map(|l| format!("{l}\n")).collect();
    assert!(verify(&without).1.starts_with("at position 5 "), "{}", verify(&without).1);
    for cut in [text.len() - 1, text.len() / 2, 300] {
        let cut = (0..=cut).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        assert_eq!(verify(&text[..cut]).0, Exit::Audit, "cut at {cut}");
    }
    assert!(verify(&format!("{text}{text}")).1.contains("after the last line"));
    assert_eq!(verify("").0, Exit::Audit);
    assert!(verify(&format!("{{\"line\":\"{}", "x".repeat(LINE_LIMIT_BYTES))).1.contains("no end"));
}

#[test]
fn the_programs_of_the_documentation_verify_what_we_write() {
    let has = Command::new("python3").args(["-c", "import cryptography"]).output();
    if !has.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: python3 has no `cryptography`; the programs of docs/AUDIT.md were not tried");
        return;
    }
    let programs: Vec<_> =
        include_str!("../../../docs/AUDIT.md").split("```python\n").skip(1).map(|p| p.split("```").next().unwrap()).collect();
    let desk = Desk::new();
    desk.rows(700);
    desk.audit(&["checkpoint"]).unwrap();
    let (file, other) = (desk.path("audit.jsonl"), desk.path("other.pem"));
    desk.audit(&["export", &file]).unwrap();
    let pem = desk.pem();
    std::fs::write(&other, PublicKey::new([9; 32]).to_pem()).unwrap();
    let python = |program: &str, file: &str, pem: &str| {
        let done = Command::new("python3").args(["-c", program, file, pem]).output().unwrap();
        (done.status.success(), format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)))
    };
    let (good, said) = python(programs[0], &file, &pem);
    assert!(good && said.contains("701 records are well, 701 of them signed, 2 checkpoints"), "{said}");
    assert!(!python(programs[0], &file, &other).0);
    let bad = desk.path("bad.jsonl");
    std::fs::write(&bad, std::fs::read_to_string(&file).unwrap().replace("Straße 512 ", "Straße 513 ")).unwrap();
    let (good, said) = python(programs[0], &bad, &pem);
    assert!(!good && said.contains("at position 512"), "{said}");

    // A receipt, signed as the service signs.
    let (amount, payee) = (json!({ "text": "19.90 USD", "minor": 1990 }), json!({ "name": "Wässer \"€\"" }));
    let claims = json!({ "type": "voicepay-receipt/1", "amount": amount, "payee": payee });
    let document = desk.with_data(async |data: Data| {
        let vault = data.vault().await.unwrap();
        let now = data.now();
        let signer = crate::store::signing::signer(&*data.store, &vault, SigningPurpose::Receipts, now, &*data.entropy);
        let key = signer.await.unwrap();
        let signature = key.sign(canonical(&claims).unwrap().as_bytes());
        let signature = Some(DocumentSignature::new(&PublicKey::new(*key.public()), &signature));
        SignedDocument { claims: claims.clone(), signature, proof: None }
    });
    let (file, pem) = (desk.path("receipt.json"), desk.pem());
    std::fs::write(&file, document.to_text()).unwrap();
    let (good, said) = python(programs[1], &file, &pem);
    assert!(good && said.contains("good: 19.90 USD to Wässer \"€\""), "{said}");
    desk.receipt(&["verify", &file, "--key", &pem]).unwrap();
    desk.receipt(&["verify", &file]).unwrap();
    assert_eq!(exit(desk.receipt(&["verify", &file, "--key", &other])).0, Exit::Audit);
    std::fs::write(&file, document.to_text().replace("1990", "1991")).unwrap();
    assert!(!python(programs[1], &file, &pem).0);
    assert_eq!(exit(desk.receipt(&["verify", &file, "--key", &pem])).0, Exit::Audit);
    assert_eq!(exit(desk.receipt(&["verify", "4821930577"])).0, Exit::Refused);
    assert_eq!(exit(desk.receipt(&["show", "4821930577"])).0, Exit::Refused);
}
