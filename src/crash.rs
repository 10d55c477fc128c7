//! Named points at which a test may kill the process, as `kill -9` would: no destructor, no flush. Compiled into every build so that what
//! is tested is what runs; does nothing unless the environment variable `VOICEPAY_CRASH_AT` names the point: `refund_after_answer`, or
//! `refund_after_answer#3` for the third time that it is met. Each room lists its own points.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable that names the point to die at.
pub const CRASH_ENV: &str = "VOICEPAY_CRASH_AT";

/// The point to die at, and how often it is passed before.
fn wanted() -> Option<&'static (String, u32)> {
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    let read = || {
        let text = std::env::var(CRASH_ENV).ok()?;
        Some(match text.split_once('#') {
            Some((name, nth)) => (name.to_owned(), nth.parse::<u32>().unwrap_or(1).saturating_sub(1)),
            None => (text, 0),
        })
    };
    WANTED.get_or_init(read).as_ref()
}

/// Whether any point is named: a name that has to be put together need not be otherwise.
pub fn is_armed() -> bool {
    wanted().is_some()
}

/// Dies here if told to.
pub fn point(name: &str) {
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let Some((wanted, pass)) = wanted() else { return };
    if wanted == name && PASSED.fetch_add(1, Ordering::Relaxed) >= *pass {
        // SIGKILL rather than abort: nothing may run after it, as when the machine loses power.
        eprintln!("voicepay: {CRASH_ENV} kills the process at {name}");
        #[cfg(unix)]
        kill_self();
        std::process::abort();
    }
}

#[cfg(unix)]
#[allow(unsafe_code)] // one call into libc without pointers: a signal to ourselves
fn kill_self() {
    // SAFETY: `getpid` and `kill` take and return plain integers.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
}
