//! Call detail records: one JSON object a line and call, a file a day. `docs/CDR.md` is the schema. A thread of its own writes
//! them, so that no call ever waits for a disk; what it can't keep up with is dropped and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::telemetry::metrics::metrics;

/// Version of the schema. Fields may be added without a new one; none changes its meaning or goes.
pub const SCHEMA: u32 = 1;
/// Records that may wait for the disk.
const QUEUE_RECORDS: usize = 4_096;
/// What was written is on the disk itself after so long, in milliseconds.
const SYNC_MS: u64 = 1_000;

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallDetail {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Our own name of the call; `None` for one that was refused.
    pub call: Option<String>,
    /// The signalling's: Call-ID.
    pub sip_call_id: String,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// The trunk's name, or the peer's address.
    pub trunk: String,
    /// The peer's address.
    pub peer: String,
    /// `UDP`, `TCP`, `TLS`.
    pub transport: &'static str,
    /// TLS and SRTP.
    pub secure: bool,
    /// Who called, as far as `ops.cdr_numbers` lets it be written.
    pub calling: Option<String>,
    /// How far that can be believed: `asserted`, `unverified`, `withheld`.
    pub calling_claim: &'static str,
    /// What its signature attests (STIR/SHAKEN), as `verstat` names it.
    pub attestation: Option<&'static str>,
    /// What was dialled, under the same rule.
    pub called: Option<String>,
    /// The codec.
    pub codec: Option<String>,
    /// When the INVITE came (RFC 3339, UTC).
    pub invited_at: Option<String>,
    /// When it was answered.
    pub answered_at: Option<String>,
    /// When it was over, or refused.
    pub ended_at: String,
    /// From INVITE to answer, in milliseconds.
    pub setup_ms: Option<u32>,
    /// From answer to end, in milliseconds.
    pub duration_ms: u64,
    /// `caller`, `service` or `network`.
    pub ended_by: &'static str,
    /// Why, in one word.
    pub end: &'static str,
    /// The final status of the INVITE.
    pub sip_status: u16,
    /// Q.850 cause value.
    pub q850: u8,
    /// The dialogue's verdict.
    pub verdict: Option<String>,
    /// What the packets went through (`MediaStats`).
    pub media: Option<serde_json::Value>,
    /// The payment that was handed over.
    pub payment: Option<PaymentDetail>,
    /// For the writer: which day's file it belongs to.
    #[serde(skip)]
    pub ended: Timestamp,
}

/// A payment, by name and outcome: no card, no amount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PaymentDetail {
    /// Its identifier.
    pub id: String,
    /// What the call learnt: `paid`, `declined`, `unknown`, `refused`, `not_submitted`.
    pub outcome: &'static str,
}

/// The files whose whole day lies before then, the oldest first. What is not named as a day's file is none of ours; a directory that is not there has
/// none.
pub fn day_files_before(dir: &Path, before: Timestamp) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut over = Vec::new();
    for entry in entries {
        let entry = entry?;
        let ended = entry.file_name().to_str().and_then(end_of_day);
        if ended.is_some_and(|at| at <= before) && entry.file_type()?.is_file() {
            over.push(entry.path());
        }
    }
    over.sort_unstable();
    Ok(over)
}

/// When the day ends that a file is named after.
fn end_of_day(name: &str) -> Option<Timestamp> {
    let day = name.strip_prefix("cdr-")?.strip_suffix(".jsonl")?;
    Timestamp::parse(&format!("{day}T00:00:00Z")).map(|at| at.plus(Duration::from_secs(86_400)))
}

/// Deletes files; says how many. One that can't be deleted is told of, and is there the next time; one that is gone was another's to count.
pub fn delete(files: &[PathBuf]) -> u64 {
    let mut deleted = 0;
    for path in files {
        match fs::remove_file(path) {
            Ok(()) => deleted += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "call detail records that are over their time can't be deleted")
            }
        }
    }
    deleted
}

/// The way to the writer; dropping it writes what waits and ends the thread.
#[derive(Debug)]
pub struct CdrWriter {
    queue: Option<SyncSender<CallDetail>>,
    thread: Option<JoinHandle<()>>,
}

impl CdrWriter {
    /// Makes the directory and starts the thread. The first record's file is opened with it.
    pub fn start(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (queue, records) = mpsc::sync_channel(QUEUE_RECORDS);
        let mut files = DayFiles { dir: dir.to_owned(), open: None };
        let thread = std::thread::Builder::new().name("cdr".into()).spawn(move || files.run(&records))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Hands a record over. Never waits.
    pub fn write(&self, record: CallDetail) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => metrics().cdr_dropped.inc(["queue_full"]),
            Err(TrySendError::Disconnected(_)) => metrics().cdr_dropped.inc(["write_failed"]),
        }
    }
}

impl Drop for CdrWriter {
    fn drop(&mut self) {
        drop(self.queue.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of call detail records failed");
        }
    }
}

/// The file of a day at a time.
struct DayFiles {
    dir: PathBuf,
    open: Option<(String, File, bool)>,
}

impl DayFiles {
    fn run(&mut self, records: &Receiver<CallDetail>) {
        let mut told = false;
        let mut synced = Instant::now();
        loop {
            // Also where records come so fast that none is waited for.
            if synced.elapsed() >= Duration::from_millis(SYNC_MS) {
                synced = Instant::now();
                self.sync();
            }
            match records.recv_timeout(Duration::from_millis(SYNC_MS)) {
                Ok(record) => match self.append(&record) {
                    Ok(()) => {
                        metrics().cdr_written.inc([]);
                        told = false;
                    }
                    Err(error) => {
                        metrics().cdr_dropped.inc(["write_failed"]);
                        self.open = None;
                        if !std::mem::replace(&mut told, true) {
                            tracing::error!(dir = %self.dir.display(), %error, "call detail records can't be written and are lost");
                        }
                    }
                },
                Err(RecvTimeoutError::Timeout) => self.sync(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.sync();
    }

    fn append(&mut self, record: &CallDetail) -> io::Result<()> {
        let day: String = record.ended.to_string().chars().take(10).collect();
        if self.open.as_ref().is_none_or(|(open, ..)| *open != day) {
            self.sync();
            self.open = None;
            let file = open_whole_lines(&self.dir.join(format!("cdr-{day}.jsonl")))?;
            self.open = Some((day, file, false));
        }
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if let Some((_, file, dirty)) = &mut self.open {
            file.write_all(&line)?; // one write a line: a reader that follows sees whole lines
            *dirty = true;
        }
        Ok(())
    }

    fn sync(&mut self) {
        if let Some((_, file, dirty @ true)) = &mut self.open {
            if let Err(error) = file.sync_data() {
                tracing::warn!(%error, "call detail records could not be brought to the disk");
            }
            *dirty = false;
        }
    }
}

/// Opens a file to append to. A line that a crash cut short is ended, so that it spoils no other.
fn open_whole_lines(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0u8; 1];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(call: &str, ended: Timestamp) -> CallDetail {
        CallDetail {
            schema: SCHEMA,
            call: Some(call.into()),
            sip_call_id: "a@b".into(),
            direction: "inbound",
            trunk: "carrier".into(),
            peer: "192.0.2.1".into(),
            transport: "TLS",
            secure: true,
            calling: Some("+44…23".into()),
            calling_claim: "asserted",
            attestation: None,
            called: None,
            codec: Some("PCMA".into()),
            invited_at: Some(ended.minus(Duration::from_secs(31)).to_string()),
            answered_at: Some(ended.minus(Duration::from_secs(30)).to_string()),
            ended_at: ended.to_string(),
            setup_ms: Some(1_000),
            duration_ms: 30_000,
            ended_by: "caller",
            end: "caller_hangup",
            sip_status: 200,
            q850: 16,
            verdict: Some("Paid".into()),
            media: None,
            payment: Some(PaymentDetail { id: "int_1".into(), outcome: "paid" }),
            ended,
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        fs::read_to_string(path).unwrap().lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }

    #[test]
    fn a_day_is_a_file_and_a_restart_appends_behind_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("cdr");
        let day = Timestamp(1_790_000_000_000);
        let writer = CdrWriter::start(&at).unwrap();
        writer.write(record("one", day));
        writer.write(record("two", day.plus(Duration::from_secs(86_400))));
        drop(writer);
        let first = at.join(format!("cdr-{}.jsonl", &day.to_string()[..10]));
        assert_eq!(lines(&first).len(), 1);
        assert_eq!(fs::read_dir(&at).unwrap().count(), 2);
        assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
        OpenOptions::new().append(true).open(&first).unwrap().write_all(b"{\"schema\":1,\"ca").unwrap();
        let writer = CdrWriter::start(&at).unwrap();
        writer.write(record("three", day));
        drop(writer);
        let names: Vec<_> = lines(&first).iter().map(|l| l["call"].clone()).collect();
        assert_eq!(names, ["one", "three"]);
    }

    #[test]
    fn files_of_days_that_are_wholly_past_are_found_and_deleted_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("cdr");
        let noon = Timestamp::parse("2026-11-10T12:00:00Z").unwrap();
        assert_eq!(day_files_before(&at, noon).unwrap(), Vec::<PathBuf>::new(), "no directory, no files");
        fs::create_dir(&at).unwrap();
        let ours = ["cdr-2026-11-08.jsonl", "cdr-2026-11-09.jsonl", "cdr-2026-11-10.jsonl", "cdr-2027-01-01.jsonl"];
        let others =
            ["cdr-2026-11-01.jsonl.gz", "cdr-2026-13-01.jsonl", "cdr-old.jsonl", "notes-2026-11-01.jsonl", "cdr-2026-11-1.jsonl"];
        for name in ours.iter().chain(&others) {
            fs::write(at.join(name), "{}\n").unwrap();
        }
        fs::create_dir(at.join("cdr-2026-11-02.jsonl")).unwrap();
        let midnight = Timestamp::parse("2026-11-10T00:00:00Z").unwrap();
        let just_before = midnight.minus(Duration::from_millis(1));
        assert_eq!(day_files_before(&at, just_before).unwrap(), [at.join(ours[0])], "the 9th lasts until midnight");
        let over = day_files_before(&at, noon).unwrap();
        assert_eq!(over, [at.join(ours[0]), at.join(ours[1])]);
        fs::remove_file(&over[0]).unwrap();
        assert_eq!(delete(&over), 1, "what another deleted is not counted");
        assert_eq!(delete(&[at.join("cdr-2026-11-02.jsonl")]), 0, "what can't be deleted stays");
        assert_eq!(fs::read_dir(&at).unwrap().count(), ours.len() - 2 + others.len() + 1);
    }

    #[test]
    fn the_document_names_every_field() {
        let document = include_str!("../../docs/CDR.md");
        let json = serde_json::to_value(record("x", Timestamp(0))).unwrap();
        for field in json.as_object().unwrap().keys() {
            assert!(document.contains(&format!("| `{field}` |")), "docs/CDR.md lacks `{field}`");
        }
        assert!(document.contains(&format!("Schema version {SCHEMA}")));
    }

    #[test]
    fn a_directory_that_can_not_be_made_is_an_error_at_the_start() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(CdrWriter::start(&file.path().join("below")).is_err());
    }
}
