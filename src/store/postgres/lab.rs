//! PostgreSQL for tests: one cluster a machine and user, a fresh database a test. `VOICEPAY_TEST_DATABASE_URL` names a server to use instead
//! (its user must be allowed to create databases).
//!
//! The cluster lies in a directory of its own under the system's temporary directory, listens on a Unix socket there and nowhere else, and
//! syncs every commit as a real one does. Whoever uses it holds `in-use` locked, shared; the kernel lets go of that lock however a test ends.
//! A watcher that is started with the cluster asks every [`IDLE_CHECK_S`] seconds for the lock alone: when it gets it, nobody is there, and it
//! stops the cluster and removes it. So any number of test processes (nextest: one a test) share one server, and none is left behind.
//!
//! Nothing here knows the rest of the crate: the tests below `tests/` include this file by its path.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Names a server to use instead of our own cluster.
pub const SERVER_ENV: &str = "VOICEPAY_TEST_DATABASE_URL";
/// Set to anything: a test that finds no PostgreSQL fails instead of being skipped.
pub const REQUIRED_ENV: &str = "VOICEPAY_TEST_POSTGRES_REQUIRED";

const IDLE_CHECK_S: u32 = 20;
/// Databases of tests that have ended, about 8 MB each.
const LEFT_LIMIT: usize = 100;
/// Of these a test drops at most, before it begins: one more than it makes, usually.
const DROPPED_AT_ONCE: usize = 2;

/// A fresh, empty database. It is left as it is: to drop one takes a checkpoint, a second on a slow disk, for each test. It goes with the cluster, or
/// when its process is gone and more than [`LEFT_LIMIT`] have gathered.
#[derive(Debug)]
pub struct Database {
    /// How to reach it.
    pub url: String,
}

impl Database {
    /// Makes one. `None`: there is no PostgreSQL here, which standard error says; the test has nothing to test.
    pub async fn fresh() -> Option<Self> {
        match Self::try_fresh().await {
            Ok(database) => Some(database),
            Err(why) if std::env::var_os(REQUIRED_ENV).is_some() => panic!("PostgreSQL is required here: {why}"),
            Err(why) => {
                eprintln!("SKIPPED on PostgreSQL: {why}");
                None
            }
        }
    }

    async fn try_fresh() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = server()?;
        let mut connection = PgConnection::connect(&server).await.map_err(|e| e.to_string())?;
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("voicepay_{}_{nth}", std::process::id());
        if nth == 0 {
            clear_up(&mut connection).await?;
        }
        run_sql(&mut connection, format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")).await?;
        let _bye = connection.close().await;
        let (place, query) = server.split_once("/postgres?").unwrap_or((server.trim_end_matches("/postgres"), ""));
        Ok(Self { url: format!("{place}/{name}?{query}") })
    }
}

/// Drops what a process that had our number left, and some of what tests that have ended left, if it is much and nobody else is at it: whoever
/// drops waits for a checkpoint, and tests that wait for one another's take minutes.
async fn clear_up(connection: &mut PgConnection) -> Result<(), String> {
    let names: Vec<String> = sqlx::query_scalar(r"SELECT datname::text FROM pg_database WHERE datname LIKE 'voicepay\_%\_%'")
        .fetch_all(&mut *connection)
        .await
        .map_err(|e| e.to_string())?;
    let ours = format!("voicepay_{}_", std::process::id());
    let ended = |name: &str| {
        let process = name.split('_').nth(1).unwrap_or("");
        !Path::new("/proc").join(process).exists()
    };
    let (old, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.starts_with(&ours));
    // Let go of with the connection.
    let alone = "SELECT pg_try_advisory_lock(hashtext('voicepay tests clear up'))";
    let alone: bool = sqlx::query_scalar(alone).fetch_one(&mut *connection).await.map_err(|e| e.to_string())?;
    let too_many = if alone { names.len().saturating_sub(LEFT_LIMIT).min(DROPPED_AT_ONCE) } else { 0 };
    for name in old.into_iter().chain(others.into_iter().filter(|name| ended(name)).take(too_many)) {
        run_sql(connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    }
    Ok(())
}

async fn run_sql(connection: &mut PgConnection, sql: String) -> Result<(), String> {
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(connection).await.map(drop).map_err(|e| format!("{sql}: {e}"))
}

/// The address of the server's `postgres` database.
pub fn server() -> Result<String, String> {
    if let Ok(given) = std::env::var(SERVER_ENV) {
        let (head, tail) = given.split_once("://").ok_or_else(|| format!("{SERVER_ENV} is no address"))?;
        let (place, query) = tail.split_once('?').map_or((tail, String::new()), |(place, query)| (place, format!("?{query}")));
        let host = place.split('/').next().unwrap_or("");
        return Ok(format!("{head}://{host}/postgres{query}"));
    }
    // Held until the process ends.
    static IN_USE: Mutex<Option<(File, String)>> = Mutex::new(None);
    let mut in_use = IN_USE.lock().map_err(|_| "another test failed to start the cluster".to_owned())?;
    if in_use.is_none() {
        *in_use = Some(Lab::new()?.join()?);
    }
    in_use.as_ref().map(|(_, url)| url.clone()).ok_or_else(|| "unreachable".to_owned())
}

/// Where the server's programs lie: the newest that Debian has installed, or those on the path.
pub fn programs() -> Result<PathBuf, String> {
    let newest = std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|versions| {
        let bins = versions.flatten().map(|v| v.path().join("bin")).filter(|bin| bin.join("initdb").exists());
        bins.max_by_key(|bin| bin.parent().and_then(|v| v.file_name()?.to_str()?.parse::<u32>().ok()))
    });
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists())
    };
    newest.or_else(on_path).ok_or_else(|| "no PostgreSQL server is installed here (scripts/setup.sh installs it)".into())
}

/// Where the cluster lies, and as whom it runs.
struct Lab {
    home: PathBuf,
    programs: PathBuf,
    as_root: bool,
}

impl Lab {
    fn new() -> Result<Self, String> {
        let programs = programs()?;
        let uid = std::fs::metadata("/proc/self").map_err(|e| e.to_string())?.uid();
        let home = std::env::temp_dir().join(format!("voicepay-pg-{uid}"));
        match std::fs::DirBuilder::new().mode(0o711).create(&home) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let found = std::fs::symlink_metadata(&home).map_err(|e| e.to_string())?;
                if !found.is_dir() || found.uid() != uid {
                    return Err(format!("{} is not ours", home.display()));
                }
            }
            Err(e) => return Err(format!("{}: {e}", home.display())),
        }
        Ok(Self { home, programs, as_root: uid == 0 })
    }

    fn data(&self) -> PathBuf {
        self.home.join("cluster/data")
    }

    /// Starts the cluster if it does not run, and holds it.
    fn join(&self) -> Result<(File, String), String> {
        let in_use = lock_file(&self.home.join("in-use"))?;
        in_use.lock_shared().map_err(|e| e.to_string())?; // waits while the watcher is clearing up
        let starting = lock_file(&self.home.join("starting"))?;
        starting.lock().map_err(|e| e.to_string())?;
        let socket = self.home.join("cluster");
        if !self.runs() {
            self.start(&socket)?;
        }
        let host = socket.to_string_lossy().replace('/', "%2F");
        Ok((in_use, format!("postgres://postgres@{host}/postgres")))
    }

    fn runs(&self) -> bool {
        let mut ask = self.as_owner(&self.programs.join("pg_ctl"));
        ask.arg("status").arg("-D").arg(self.data()).stdout(Stdio::null()).stderr(Stdio::null());
        ask.status().is_ok_and(|s| s.success())
    }

    fn start(&self, socket: &Path) -> Result<(), String> {
        let cluster = self.home.join("cluster");
        let _old = std::fs::remove_dir_all(&cluster);
        std::fs::DirBuilder::new().mode(0o700).create(&cluster).map_err(|e| e.to_string())?;
        if self.as_root {
            run(Command::new("chown").arg("postgres").arg(&cluster))?;
        }
        // First, so that nothing is left behind if this process is killed in the middle.
        self.watch()?;
        let mut init = self.as_owner(&self.programs.join("initdb"));
        run(init
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres", "-D"])
            .arg(self.data()))?;
        // fsync stays on: what the tests say of commits is to be true.
        let settings = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c max_connections=200 -c max_wal_size=256MB -c shared_buffers=64MB",
            socket.display()
        );
        let mut start = self.as_owner(&self.programs.join("pg_ctl"));
        run(start
            .args(["start", "--wait", "--silent", "-o", &settings])
            .arg("-l")
            .arg(cluster.join("log"))
            .arg("-D")
            .arg(self.data()))
    }

    /// Starts the watcher: it outlives this process and is nobody's child. The files of thousands of databases take minutes to erase: under the lock
    /// they only get another name, so that the next test starts a cluster meanwhile. Nothing in them is needed any more: it stops at once.
    fn watch(&self) -> Result<(), String> {
        const WATCHER: &str = r#"
            cd / && while sleep "$1"; do
                flock --exclusive --nonblock "$2/in-use" sh -c '"$@" stop -m immediate -D "$0/cluster/data"; mv "$0/cluster" "$0/gone.$$"' "$2" $3 &&
                    { rm -rf "$2"/gone.*; exit; }
            done"#;
        let mut ctl: Vec<String> = Vec::new();
        if self.as_root {
            ctl.extend(["runuser", "-u", "postgres", "--"].map(str::to_owned));
        }
        ctl.push(self.programs.join("pg_ctl").to_string_lossy().into_owned());
        let mut watcher = Command::new("setsid");
        watcher.args(["--fork", "sh", "-c", WATCHER, "watcher", &IDLE_CHECK_S.to_string()]).arg(&self.home).arg(ctl.join(" "));
        run(watcher.stdin(Stdio::null()))
    }

    /// PostgreSQL refuses to run as root.
    fn as_owner(&self, program: &Path) -> Command {
        let mut command = if self.as_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/").stdin(Stdio::null());
        command
    }
}

fn lock_file(path: &Path) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Runs a command to its end. Its output goes to no pipe: what it leaves running would hold that open.
fn run(command: &mut Command) -> Result<(), String> {
    let said = std::env::temp_dir().join(format!("voicepay-pg-{}.log", std::process::id()));
    let log = File::create(&said).map_err(|e| e.to_string())?;
    let again = log.try_clone().map_err(|e| e.to_string())?;
    let status = command.stdout(log).stderr(again).status().map_err(|e| format!("{command:?}: {e}"));
    let text = std::fs::read_to_string(&said).unwrap_or_default();
    let _tidied = std::fs::remove_file(&said);
    if status?.success() { Ok(()) } else { Err(format!("{command:?} failed: {}", text.trim())) }
}
