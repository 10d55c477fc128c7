//! The house keeps its shape: which room may import which, what pure rooms may know, and how big a file may grow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Leaves that every room may use.
const LEAVES: &[&str] =
    &["bucket", "clock", "crash", "e164", "ids", "language", "listen", "money", "secret", "signed", "telemetry"];

/// Room → rooms that it may import besides leaves and itself. `app`, `cli` and `main` join everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("bucket", &[]),
    ("clock", &[]),
    ("crash", &[]),
    ("e164", &[]),
    ("ids", &[]),
    ("kernels", &[]),
    ("language", &[]),
    ("listen", &[]),
    ("money", &[]),
    ("secret", &[]),
    ("signed", &[]),
    ("telemetry", &[]),
    ("payment", &[]),
    ("ledger", &[]),
    ("decision", &[]),
    ("media", &[]),
    ("vault", &[]),
    ("models", &[]),
    ("dialogue", &["payment", "decision"]),
    ("sip", &["media"]),
    ("webrtc", &["media"]),
    // Our softphone knows how the service says digits, so that it can hear which it is asked for.
    ("phone", &["sip", "media", "prompts"]),
    // Evidence types live in `decision`, so that the dialogue can hold them without knowing a model.
    ("speech", &["media", "decision", "kernels"]),
    ("voiceprint", &["media", "decision", "kernels"]),
    ("prompts", &["dialogue", "media"]),
    ("store", &["payment", "ledger", "voiceprint", "vault"]),
    ("gateway", &["payment"]),
    ("processor", &["payment", "ledger", "store", "gateway", "vault"]),
    ("app_sessions", &["payment", "store", "vault", "agreement"]),
    // Its tests pay at the sandbox.
    ("agreement", &["payment", "store", "processor", "vault", "gateway"]),
    // Public keys are the ledger's.
    ("bank", &["payment", "ledger", "store", "gateway", "vault"]),
    ("notify", &["payment", "store", "gateway", "vault"]),
    ("ops", &[]),
    ("rights", &["payment", "store"]),
    (
        "call",
        &[
            "dialogue",
            "decision",
            "media",
            "speech",
            "voiceprint",
            "vault",
            "store",
            "processor",
            "prompts",
            "payment",
            "ops",
            "agreement",
            "notify",
        ],
    ),
    // Models come through a trait that `app` implements; of calls it knows which are up and what happens in them.
    ("api", &["payment", "store", "vault", "processor", "agreement", "app_sessions", "notify", "call", "rights"]),
    ("eval", &["speech", "voiceprint", "decision", "media", "models"]),
    // Embeds each room's own section; rooms never see the whole.
    (
        "config",
        &[
            "call",
            "dialogue",
            "sip",
            "media",
            "speech",
            "voiceprint",
            "decision",
            "vault",
            "store",
            "gateway",
            "processor",
            "agreement",
            "app_sessions",
            "notify",
            "ops",
            "rights",
            "api",
            "webrtc",
        ],
    ),
];

/// Words that no pure room may contain: runtimes, stores, models, sockets, clocks.
const IMPURE: &[&str] =
    &["tokio", "sqlx", "axum", "candle", "whisper_rs", "std::net", "std::fs", "SystemTime", "Instant::now", "async fn"];
const PURE: &[&str] = &["dialogue", "payment", "ledger", "decision"];

/// Past this a file is asked why; nothing in the house needs more.
const FILE_LIMIT_LINES: usize = 600;

fn source_files() -> Vec<PathBuf> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut out);
    out.sort();
    assert!(out.len() > 30, "the walk finds the house");
    out
}

fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Code without comments, and without what stands below a file's own `#[cfg(test)] mod tests`.
fn code_of(text: &str) -> String {
    let live = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    live.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Rooms named as `crate::room` or inside `crate::{room::…, room}`.
fn imports(code: &str) -> BTreeSet<String> {
    let ident = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, true);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && depth == 0 && !c.is_whitespace() => {
                        found.insert(ident(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.insert(ident(rest));
        }
    }
    found
}

#[test]
fn arrows_point_one_way() {
    let mut wrong = Vec::new();
    for path in source_files() {
        let room = room_of(&path);
        if ["lib", "main", "app", "cli"].contains(&room.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: room `{room}` has no line in ARROWS", path.display()));
            continue;
        };
        for import in imports(&code_of(&fs::read_to_string(&path).unwrap())) {
            let known = import == room || allowed.contains(&import.as_str()) || LEAVES.contains(&import.as_str());
            if !known {
                wrong.push(format!("{}: `{room}` may not import `{import}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_import_finder_finds_imports() {
    let code = "use crate::{media::leg::{Leg, Key}, money};\nlet x = crate::vault::open();";
    assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["media", "money", "vault"]);
}

#[test]
fn pure_rooms_know_no_runtime_store_model_socket_or_clock() {
    let mut wrong = Vec::new();
    for path in source_files() {
        if PURE.contains(&room_of(&path).as_str()) {
            let code = code_of(&fs::read_to_string(&path).unwrap());
            wrong.extend(IMPURE.iter().filter(|w| code.contains(**w)).map(|w| format!("{}: `{w}`", path.display())));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    let mut wrong = Vec::new();
    for path in source_files() {
        let text = fs::read_to_string(&path).unwrap();
        if !text.starts_with("//!") {
            wrong.push(format!("{}: does not start with //!", path.display()));
        }
        if text.lines().count() > FILE_LIMIT_LINES {
            wrong.push(format!("{}: {} lines", path.display(), text.lines().count()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn tracked_text_names_no_machine_path() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for dir in ["src", "tests", "config", "scripts", "prompts", "models", "sip-config", "benches", "migrations"] {
        let mut stack = vec![root.join(dir)];
        while let Some(at) = stack.pop() {
            let Ok(entries) = fs::read_dir(&at) else { continue };
            for path in entries.map(|e| e.unwrap().path()) {
                if path.is_dir() {
                    stack.push(path);
                } else if let Ok(text) = fs::read_to_string(&path) {
                    let home = root.to_str().unwrap();
                    if home.len() > 5 && text.contains(home) {
                        wrong.push(path.display().to_string());
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "these name a path of this machine:\n{}", wrong.join("\n"));
}
