//! Recordings on disk: a WAV file a call with two channels (left: the service, right: the caller), for their owner only, limited
//! in length and in days. What may be recorded at all is decided by the call (`call/recording.rs`); here is only the tape.
//!
//! One thread writes all tapes. A call hands samples over and never waits: when the thread can't keep up, that call's tape ends.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::config::RecordingConfig;
use crate::clock::{Clock, Timestamp};
use crate::telemetry::metrics::metrics;

/// Pieces of tape that may wait for the disk, all calls together.
const QUEUE_PIECES: usize = 1_024;
/// The same, to count with.
const QUEUE_PIECES_U64: u64 = 1_024;
/// How often ended tapes are looked for when nothing else comes, in milliseconds.
const SWEEP_MS: u64 = 500;
/// How often expired recordings are looked for, in milliseconds.
const EXPIRE_MS: u64 = 3_600_000;
/// A WAV header with one `fmt ` and one `data` chunk, in bytes.
const HEADER_BYTES: u32 = 44;
/// Bytes of a moment: two channels of 16 bits.
const MOMENT_BYTES: u32 = 4;

/// A sample of each side: the service's and the caller's.
pub type Moment = [i16; 2];

enum Piece {
    Begin { tape: u64, name: String, rate_hz: u32, alive: Weak<()> },
    Samples { tape: u64, moments: Vec<Moment> },
}

/// Where tapes are begun.
#[derive(Debug)]
pub struct Recordings {
    queue: Mutex<Option<SyncSender<Piece>>>,
    limit_s: u32,
    next: std::sync::atomic::AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Recordings {
    /// Makes the directory and starts the thread, which also deletes what is older than `keep_days`.
    pub fn start(config: &RecordingConfig, clock: Arc<dyn Clock>) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.dir)?;
        let (queue, pieces) = mpsc::sync_channel(QUEUE_PIECES);
        let writer = Writer {
            dir: config.dir.clone(),
            keep_days: config.keep_days,
            clock,
            tapes: HashMap::new(),
            taken: 0,
            swept: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("recordings".into()).spawn(move || writer.run(&pieces))?;
        let (queue, thread) = (Mutex::new(Some(queue)), Mutex::new(Some(thread)));
        Ok(Self { queue, limit_s: config.limit_s, next: 0.into(), thread })
    }

    /// A tape for a call, at this rate. `name` is a call's identifier: it names the file.
    pub fn begin(&self, name: &str, rate_hz: u32) -> Option<Tape> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let tape = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let alive = Arc::new(());
        let begin = Piece::Begin { tape, name: name.to_owned(), rate_hz, alive: Arc::downgrade(&alive) };
        if queue.try_send(begin).is_err() {
            metrics().recordings.inc(["failed"]);
            return None;
        }
        let left = u64::from(self.limit_s).saturating_mul(u64::from(rate_hz));
        Some(Tape { tape, queue: Some(queue), left, alive: Some(alive) })
    }
}

impl Recordings {
    /// No more tapes; waits until those that there are have been dropped and written.
    pub fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writer of recordings failed");
        }
    }
}

impl Drop for Recordings {
    fn drop(&mut self) {
        self.close();
    }
}

/// One call's tape. Dropping it closes the file.
#[derive(Debug)]
pub struct Tape {
    tape: u64,
    queue: Option<SyncSender<Piece>>,
    left: u64,
    /// Its death tells the writer that nothing more comes.
    alive: Option<Arc<()>>,
}

impl Tape {
    /// Adds moments. Never waits; past the limit, or when the disk can't keep up, nothing more is taken.
    pub fn push(&mut self, mut moments: Vec<Moment>) {
        let Some(queue) = &self.queue else { return };
        moments.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left = self.left.saturating_sub(u64::try_from(moments.len()).unwrap_or(u64::MAX));
        let sent = queue.try_send(Piece::Samples { tape: self.tape, moments }).is_ok();
        if self.left == 0 || !sent {
            metrics().recordings.inc(["cut"]);
            (self.queue, self.alive) = (None, None);
        }
    }
}

struct Open {
    file: io::BufWriter<File>,
    bytes: u32,
    alive: Weak<()>,
    /// Its call is gone. What it left in the queue has been taken when so many pieces have been.
    last_piece: Option<u64>,
    failed: bool,
}

struct Writer {
    dir: PathBuf,
    keep_days: u32,
    clock: Arc<dyn Clock>,
    tapes: HashMap<u64, Open>,
    /// Pieces taken so far.
    taken: u64,
    swept: Instant,
}

impl Writer {
    fn run(mut self, pieces: &Receiver<Piece>) {
        let mut expired_at: Option<Timestamp> = None;
        loop {
            let now = self.clock.now();
            if expired_at.is_none_or(|at| now.since(at) >= Duration::from_millis(EXPIRE_MS)) {
                expired_at = Some(now);
                self.expire(now);
            }
            if self.swept.elapsed() >= Duration::from_millis(SWEEP_MS) {
                self.sweep();
            }
            match pieces.recv_timeout(Duration::from_millis(SWEEP_MS)) {
                Ok(piece) => {
                    self.taken += 1;
                    self.take(piece);
                }
                // The queue is empty: a tape whose call is gone gets nothing more.
                Err(RecvTimeoutError::Timeout) => self.close(|open| open.alive.strong_count() == 0),
                Err(RecvTimeoutError::Disconnected) => return self.close(|_| true),
            }
        }
    }

    /// Ends tapes also where other calls leave the queue no pause: what a call pushed was in the queue before it was gone, so it
    /// has been taken after as many pieces as the queue can hold.
    fn sweep(&mut self) {
        self.swept = Instant::now();
        let taken = self.taken;
        for open in self.tapes.values_mut().filter(|open| open.last_piece.is_none() && open.alive.strong_count() == 0) {
            open.last_piece = Some(taken + QUEUE_PIECES_U64);
        }
        self.close(|open| open.last_piece.is_some_and(|last| taken >= last));
    }

    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Begin { tape, name, rate_hz, alive } => {
                let path = self.dir.join(format!("{name}.wav"));
                let begun = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|file| {
                    let mut file = io::BufWriter::new(file);
                    file.write_all(&header(rate_hz, 0))?;
                    Ok(Open { file, bytes: 0, alive, last_piece: None, failed: false })
                });
                match begun {
                    Ok(open) => drop(self.tapes.insert(tape, open)),
                    Err(error) => {
                        metrics().recordings.inc(["failed"]);
                        tracing::error!(path = %path.display(), %error, "a recording can't be written");
                    }
                }
            }
            Piece::Samples { tape, moments } => {
                let Some(open) = self.tapes.get_mut(&tape).filter(|open| !open.failed) else { return };
                let bytes: Vec<u8> = moments.iter().flatten().flat_map(|s| s.to_le_bytes()).collect();
                match open.file.write_all(&bytes) {
                    Ok(()) => open.bytes = open.bytes.saturating_add(u32::try_from(bytes.len()).unwrap_or(0)),
                    Err(error) => {
                        open.failed = true;
                        tracing::error!(%error, "a recording breaks off");
                    }
                }
            }
        }
    }

    fn close(&mut self, over: impl Fn(&Open) -> bool) {
        for (_, open) in self.tapes.extract_if(|_, open| over(open)) {
            let failed = open.failed;
            let closed = finish(open);
            let outcome = if failed || closed.is_err() { "failed" } else { "kept" };
            metrics().recordings.inc([outcome]);
        }
    }

    /// Deletes recordings that are old enough: WAV files directly in the directory, by the time of their last change.
    fn expire(&self, now: Timestamp) {
        let keep = Duration::from_secs(u64::from(self.keep_days) * 86_400);
        for path in recordings_in(&self.dir) {
            let changed = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file).and_then(|m| m.modified().ok());
            let since_epoch = changed.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
            let Some(changed) = since_epoch.and_then(|d| i64::try_from(d.as_millis()).ok()) else { continue };
            if now.since(Timestamp(changed)) > keep {
                match fs::remove_file(&path) {
                    Ok(()) => metrics().recordings.inc(["expired"]),
                    Err(error) => tracing::error!(path = %path.display(), %error, "an expired recording can't be deleted"),
                }
            }
        }
    }
}

fn recordings_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "wav")).collect()
}

/// Writes the lengths into the header, which are only known now.
fn finish(mut open: Open) -> io::Result<()> {
    open.file.flush()?;
    let file = open.file.get_mut();
    file.seek(SeekFrom::Start(4))?;
    file.write_all(&open.bytes.saturating_add(HEADER_BYTES - 8).to_le_bytes())?;
    file.seek(SeekFrom::Start(u64::from(HEADER_BYTES) - 4))?;
    file.write_all(&open.bytes.to_le_bytes())?;
    file.sync_data()
}

/// RIFF header of 16-bit PCM in two channels.
fn header(rate_hz: u32, data_bytes: u32) -> Vec<u8> {
    let mut h = Vec::with_capacity(44);
    h.extend_from_slice(b"RIFF");
    h.extend_from_slice(&(HEADER_BYTES - 8 + data_bytes).to_le_bytes());
    h.extend_from_slice(b"WAVEfmt ");
    h.extend_from_slice(&16u32.to_le_bytes());
    h.extend_from_slice(&1u16.to_le_bytes()); // PCM
    h.extend_from_slice(&2u16.to_le_bytes());
    h.extend_from_slice(&rate_hz.to_le_bytes());
    h.extend_from_slice(&rate_hz.saturating_mul(MOMENT_BYTES).to_le_bytes());
    h.extend_from_slice(&4u16.to_le_bytes());
    h.extend_from_slice(&16u16.to_le_bytes());
    h.extend_from_slice(b"data");
    h.extend_from_slice(&data_bytes.to_le_bytes());
    h
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    fn config(dir: &Path) -> RecordingConfig {
        RecordingConfig { dir: dir.join("rec"), limit_s: 10, ..RecordingConfig::default() }
    }

    #[test]
    fn a_tape_is_a_wav_of_two_channels_for_its_owner_only_and_ends_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let recordings = Recordings::start(&config(dir.path()), Arc::new(SystemClock)).unwrap();
        let (mut one, mut two) = (recordings.begin("call_1", 8_000).unwrap(), recordings.begin("call_2", 16_000).unwrap());
        for n in 0..100 {
            one.push(vec![[n, -n]; 160]);
            two.push(vec![[7, 8]; 16_000]);
        }
        drop((one, two));
        drop(recordings);
        let path = dir.path().join("rec/call_1.wav");
        let mut reader = hound::WavReader::open(&path).unwrap();
        assert_eq!((reader.spec().channels, reader.spec().sample_rate, reader.duration()), (2, 8_000, 16_000));
        let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert_eq!(samples[samples.len() - 2..], [99, -99]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path().join("rec")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(hound::WavReader::open(dir.path().join("rec/call_2.wav")).unwrap().duration(), 160_000, "10 s, not 100");
    }

    #[test]
    fn a_tape_is_closed_while_other_calls_go_on_without_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        let recordings = Recordings::start(&config(dir.path()), Arc::new(SystemClock)).unwrap();
        let mut busy = recordings.begin("call_2", 8_000).unwrap();
        recordings.begin("call_1", 8_000).unwrap().push(vec![[1, 2]; 160]);
        let path = dir.path().join("rec/call_1.wav");
        let whole = || hound::WavReader::open(&path).is_ok_and(|reader| reader.duration() == 160);
        let closed = (0..5_000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            busy.push(vec![[3, 4]; 8]);
            whole()
        });
        assert!(closed, "nobody waits for all calls to be over");
    }

    #[test]
    fn old_recordings_are_deleted_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("rec");
        fs::create_dir(&at).unwrap();
        fs::write(at.join("old.wav"), b"x").unwrap();
        fs::write(at.join("other.txt"), b"x").unwrap();
        let later = SystemClock.now().plus(Duration::from_secs(31 * 86_400));
        let recordings = Recordings::start(&config(dir.path()), Arc::new(ManualClock::starting_at(later))).unwrap();
        drop(recordings);
        assert!(!at.join("old.wav").exists() && at.join("other.txt").exists());
    }

    #[test]
    fn a_name_that_is_taken_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let recordings = Recordings::start(&config(dir.path()), Arc::new(SystemClock)).unwrap();
        let path = dir.path().join("rec/call_1.wav");
        fs::write(&path, b"mine").unwrap();
        recordings.begin("call_1", 8_000).unwrap().push(vec![[1, 1]; 10]);
        drop(recordings);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
