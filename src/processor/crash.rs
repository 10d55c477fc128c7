//! Named points at which a test may kill the process, as `kill -9` would: no destructor, no flush. Compiled into every build so that what
//! is tested is what runs; does nothing unless the environment variable `VOICEPAY_CRASH_AT` names the point.

/// The environment variable that names the point to die at.
pub const CRASH_ENV: &str = "VOICEPAY_CRASH_AT";

/// The points that an undisturbed charge meets, in order.
pub const POINTS: [&str; 7] = [
    "before_submit",
    "after_submit_committed",
    "before_dispatched_commit",
    "after_dispatched_commit",
    "after_gateway_answered",
    "before_result_commit",
    "after_result_committed",
];

/// The points that only reconciliation meets.
pub const SWEEP_POINTS: [&str; 2] = ["after_question_answered", "after_resend_commit"];

/// Dies here if told to.
pub fn point(name: &str) {
    if std::env::var_os(CRASH_ENV).is_some_and(|wanted| wanted == name) {
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
