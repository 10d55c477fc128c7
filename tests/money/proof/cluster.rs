//! A PostgreSQL server of our own that may be killed, filled up, or set up otherwise: the one that other tests share
//! (`src/store/postgres/lab.rs`) must not be.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::crash::Databases;
use super::house;
use crate::support::lab;

/// How often a start is tried: for a moment after a kill its children still hold the shared memory.
const START_TRIES: u32 = 100;
const START_LOOK_MS: u64 = 100;

/// A running server. It ends when dropped.
pub struct Cluster {
    dir: tempfile::TempDir,
    programs: PathBuf,
    /// What the server is started with, beyond what all are.
    settings: Vec<String>,
    server: Mutex<Child>,
    /// Whoever needs the server undisturbed holds it shared.
    disturbing: RwLock<()>,
    databases: AtomicU64,
}

impl Cluster {
    /// Starts one. The error says why there is none.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[], |_| Ok(()))
    }

    /// Where a test needs one: `None`, and a plain word about it, where there is none.
    pub fn needed(started: Result<Self, String>) -> Option<Self> {
        match started {
            Ok(cluster) => Some(cluster),
            Err(why) if std::env::var_os(lab::REQUIRED_ENV).is_some() => panic!("PostgreSQL is required here: {why}"),
            Err(why) => {
                eprintln!("SKIPPED on PostgreSQL: {why}");
                None
            }
        }
    }

    /// The same with these settings (`name=value`), once `prepare` has changed what it wants in the data directory.
    pub fn start_with(settings: &[String], prepare: impl FnOnce(&Path) -> Result<(), String>) -> Result<Self, String> {
        let programs = lab::programs()?;
        let dir = house::memory_dir();
        give(dir.path())?;
        let mut init = as_owner(&programs.join("initdb"));
        init.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres", "-D"]);
        said(init.arg(dir.path().join("data")))?;
        prepare(&dir.path().join("data"))?;
        let settings = settings.to_vec();
        let server = Mutex::new(spawn(&programs, dir.path(), &settings)?);
        Ok(Self { dir, programs, settings, server, disturbing: RwLock::default(), databases: AtomicU64::new(0) })
    }

    /// A database's address, by the Unix socket.
    pub fn url(&self, database: &str) -> String {
        address(self.dir.path(), &self.settings, database)
    }

    /// Statements that only the server's owner may give.
    pub async fn run(&self, statements: &[&str]) {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        for sql in statements {
            sqlx::raw_sql(AssertSqlSafe((*sql).to_owned())).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        kill_all(self.dir.path(), &mut server);
    }
}

impl Databases for Cluster {
    fn fresh(&self, _: &Path) -> String {
        let name = format!("crash_{}", self.databases.fetch_add(1, Ordering::SeqCst));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.run(&[&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")]));
        self.url(&name)
    }

    fn has_server(&self) -> bool {
        true
    }

    fn kill_server(&self) {
        let _alone = self.disturbing.write().unwrap_or_else(PoisonError::into_inner);
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        kill_all(self.dir.path(), &mut server);
        *server = spawn(&self.programs, self.dir.path(), &self.settings).unwrap();
    }

    fn undisturbed(&self, work: &mut dyn FnMut()) {
        let _calm = self.disturbing.read().unwrap_or_else(PoisonError::into_inner);
        work();
    }
}

fn address(dir: &Path, settings: &[String], database: &str) -> String {
    let port = settings.iter().find_map(|setting| setting.strip_prefix("port=")).unwrap_or("5432");
    format!("postgres://postgres@{}:{port}/{database}", dir.to_string_lossy().replace('/', "%2F"))
}

/// Gives a file or directory to whom the server runs as.
pub fn give(path: &Path) -> Result<(), String> {
    if as_root() { said(Command::new("chown").arg("postgres").arg(path)) } else { Ok(()) }
}

fn as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// PostgreSQL refuses to run as root.
fn as_owner(program: &Path) -> Command {
    let mut command = if as_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn said(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {text}")) }
}

/// Starts the server and waits until it answers; `setpriv` becomes the server, so the child is the server itself.
fn spawn(programs: &Path, dir: &Path, settings: &[String]) -> Result<Child, String> {
    let log = std::fs::OpenOptions::new().append(true).create(true).open(dir.join("log")).map_err(|e| e.to_string())?;
    let again = log.try_clone().map_err(|e| e.to_string())?;
    let mut command = as_owner(&programs.join("postgres"));
    command.arg("-D").arg(dir.join("data")).arg("-k").arg(dir).stdout(log).stderr(again);
    command.args(["-c", "listen_addresses=", "-c", "max_connections=100", "-c", "fsync=on", "-c", "synchronous_commit=on"]);
    command.args(settings.iter().flat_map(|setting| ["-c", setting]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    for _ in 0..START_TRIES {
        std::thread::sleep(Duration::from_millis(START_LOOK_MS));
        if runtime.block_on(async { PgConnection::connect(&address(dir, settings, "postgres")).await.is_ok() }) {
            return Ok(child);
        }
        if child.try_wait().map_err(|e| e.to_string())?.is_some() {
            child = command.spawn().map_err(|e| e.to_string())?;
        }
    }
    Err(format!("the server does not start: {}", std::fs::read_to_string(dir.join("log")).unwrap_or_default()))
}

/// SIGKILL to the server and to each of its processes, as when the power fails but for what the kernel has in its cache.
fn kill_all(dir: &Path, server: &mut Child) {
    let pid = server.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut kill = Command::new("kill");
    kill.arg("-9").arg(pid.to_string()).args(children.split_whitespace()).stderr(Stdio::null());
    drop(kill.status());
    drop(server.wait());
    let _stale = std::fs::remove_file(dir.join("data/postmaster.pid"));
}
