//! The SIP trace: every message in and out, masked, into a file of its owner's alone. Calls never wait for it: what the disk
//! can't take in time is left out, and the file says how much.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::mask::mask;
use crate::clock::Timestamp;
use crate::sip::signalling::Transport;

/// Messages that wait for the disk.
const QUEUE_MESSAGES: usize = 512;
/// Of a message, so much is looked at: the queue is bounded in bytes, too.
const MESSAGE_LIMIT_BYTES: usize = 16 * 1024;
/// A file is put aside (as `….1`, in place of the one before) when it has grown to this.
pub const FILE_LIMIT_BYTES: u64 = 64 * 1024 * 1024;
/// What was written is on disk after this at the latest.
const FLUSH_MS: u64 = 200;

/// A message that came or left.
#[derive(Debug)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// It came.
    pub incoming: bool,
    /// Over what.
    pub transport: Transport,
    /// Our end.
    pub local: SocketAddr,
    /// Theirs.
    pub peer: SocketAddr,
}

/// A trace that is being written. Dropping it writes what waits.
#[derive(Debug)]
pub struct Trace {
    queue: Option<SyncSender<(Entry, Vec<u8>)>>,
    left_out: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Trace {
    /// Goes on with the file at `path`, or begins it.
    pub fn open(path: &Path, file_limit_bytes: u64) -> io::Result<Self> {
        let file = begin(path)?;
        let size = file.metadata()?.len();
        let (queue, entries) = sync_channel(QUEUE_MESSAGES);
        let left_out = Arc::new(AtomicU64::new(0));
        let sheet =
            Sheet { path: path.to_owned(), file: BufWriter::new(file), size, file_limit_bytes, left_out: left_out.clone() };
        let writer = std::thread::Builder::new().name("sip-trace".to_owned()).spawn(move || sheet.write_all(&entries))?;
        Ok(Self { queue: Some(queue), left_out, writer: Some(writer) })
    }

    /// Notes a message. Never waits.
    pub fn note(&self, entry: Entry, message: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let message = message.get(..MESSAGE_LIMIT_BYTES).unwrap_or(message).to_vec();
        if queue.try_send((entry, message)).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ended = writer.join();
        }
    }
}

fn begin(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The file, and how full it is.
struct Sheet {
    path: PathBuf,
    file: BufWriter<File>,
    size: u64,
    file_limit_bytes: u64,
    left_out: Arc<AtomicU64>,
}

impl Sheet {
    fn write_all(mut self, entries: &Receiver<(Entry, Vec<u8>)>) {
        let mut failing = false;
        loop {
            let written = match entries.recv_timeout(Duration::from_millis(FLUSH_MS)) {
                Ok((entry, message)) => self.write(&entry, &message),
                Err(RecvTimeoutError::Timeout) => self.file.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            // Once, not for every message: the disk may be full for hours.
            if let Err(error) = &written
                && !failing
            {
                tracing::warn!(%error, path = %self.path.display(), "the SIP trace can't be written");
            }
            failing = written.is_err();
        }
        let _best_effort = self.file.flush();
    }

    fn write(&mut self, entry: &Entry, message: &[u8]) -> io::Result<()> {
        let Entry { at, incoming, transport, local, peer } = entry;
        let mut text = String::new();
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            text.push_str(&format!("=== {left_out} messages were left out: the disk was too slow\n\n"));
        }
        let way = if *incoming { "in  <-" } else { "out ->" };
        text.push_str(&format!("=== {at} {transport} {local} {way} {peer} {} bytes\n{}\n", message.len(), mask(message)));
        self.file.write_all(text.as_bytes())?;
        self.size = self.size.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        if self.size < self.file_limit_bytes {
            return Ok(());
        }
        self.file.flush()?;
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        std::fs::rename(&self.path, PathBuf::from(aside))?;
        self.file = BufWriter::new(begin(&self.path)?);
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(incoming: bool) -> Entry {
        let at = |a: &str| a.parse().unwrap();
        Entry { at: Timestamp(0), incoming, transport: Transport::Tcp, local: at("127.0.0.1:5060"), peer: at("192.0.2.1:5061") }
    }

    #[test]
    fn what_comes_and_leaves_is_written_with_time_and_direction() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sip.trace");
        let trace = Trace::open(&path, FILE_LIMIT_BYTES).unwrap();
        trace.note(entry(true), b"OPTIONS sip:a@b SIP/2.0\r\nTo: <sip:a@b>\r\n\r\n");
        trace.note(entry(false), b"SIP/2.0 200 OK\r\nTo: <sip:a@b>\r\n\r\n");
        drop(trace);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "=== 1970-01-01T00:00:00.000Z TCP 127.0.0.1:5060 in  <- 192.0.2.1:5061 42 bytes\nOPTIONS sip:a@b SIP/2.0\nTo: <sip:a@b>\n\n\
             === 1970-01-01T00:00:00.000Z TCP 127.0.0.1:5060 out -> 192.0.2.1:5061 33 bytes\nSIP/2.0 200 OK\nTo: <sip:a@b>\n\n"
        );
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_file_stays_within_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sip.trace");
        let trace = Trace::open(&path, 2_000).unwrap();
        for _ in 0..200 {
            trace.note(entry(true), b"OPTIONS sip:a@b SIP/2.0\r\nTo: <sip:a@b>\r\n\r\n");
            std::thread::sleep(Duration::from_micros(50));
        }
        drop(trace);
        let size = |p: &Path| std::fs::metadata(p).unwrap().len();
        assert!(size(&path) < 2_300 && size(&folder.path().join("sip.trace.1")) < 2_300);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_at_once() {
        assert!(Trace::open(Path::new("/nonexistent/sip.trace"), 1).is_err());
    }
}
