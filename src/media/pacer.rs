//! Pacing: threads that give every session its turn each 20 ms.
//!
//! A task with a timer and a woken socket for each call costs two wake-ups a packet time and lets a busy runtime hold audio up.
//! Here a thread sleeps until the next slot and gives the slot's sessions their turns one after another; calls are spread
//! evenly over the slots of a packet time, so neither the wire nor the processor sees bursts. Sockets are looked at in the
//! turn, so nothing watches them. What the calls are told is handed over when the slot's turns are done: one wake-up of the
//! runtime for all instead of one each. The threads belong to the process, start with the first session, and sleep while there
//! is none.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::playout::FRAME_MS;
use super::udp::Inbox;
use crate::clock::SystemClock;

/// Slots in a packet time.
pub const SLOTS: usize = 5;
/// Cores for each pacing thread: one thread carries more than a thousand calls, and what is done with the calls needs the rest.
pub const CORES_PER_PACER: usize = 2;
/// Pacing threads at most.
pub const PACERS_MAX: usize = 8;
/// Pacing threads ask for this much more of the processor than inference does (`nice`): the next packet is due in 20 ms, a
/// verdict in hundreds. Refused without the right to (systemd: `LimitNICE=`), and then nothing is lost but some evenness under
/// full load.
#[cfg(target_os = "linux")]
const NICENESS: libc::c_int = -10;

/// What a turn is given.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Room for datagrams, shared by the sessions of one thread.
    pub inbox: &'a mut Inbox,
    /// When the turn is, on the monotone clock.
    pub now: Instant,
    /// The same moment on the wall clock, since 1970.
    pub wall: Duration,
}

/// What is paced.
pub trait Paced: Send {
    /// A packet time has passed (or more, if the machine stalled). False: it is over, and will be dropped.
    fn turn(&mut self, turn: &mut Turn<'_>) -> bool;

    /// All turns of the slot are done: what came of this one may be handed over.
    fn deliver(&mut self);
}

/// Gives `session` its turns from now on, until it says that it is over.
pub fn pace(session: Box<dyn Paced>) {
    let pacers = &*PACERS;
    if let Some(pacer) = pacers.iter().min_by_key(|pacer| pacer.load.load(Ordering::Relaxed)) {
        pacer.load.fetch_add(1, Ordering::Relaxed);
        pacer.lock().push_back(session);
        pacer.woken.notify_one();
    }
}

static PACERS: LazyLock<Vec<Arc<Pacer>>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pacers = (cores / CORES_PER_PACER).clamp(1, PACERS_MAX);
    let start = |n: usize| {
        let pacer = Arc::new(Pacer::default());
        let own = Arc::clone(&pacer);
        let started = std::thread::Builder::new().name(format!("rtp-pacer-{n}")).spawn(move || own.run());
        if let Err(error) = &started {
            tracing::error!(%error, "a pacing thread could not be started");
        }
        started.is_ok().then_some(pacer)
    };
    (0..pacers).filter_map(start).collect()
});

/// The sessions of one slot; `None` only on their way out.
type Slot = Vec<Option<Box<dyn Paced>>>;

#[derive(Default)]
struct Pacer {
    arrivals: Mutex<VecDeque<Box<dyn Paced>>>,
    woken: Condvar,
    // Sessions, those that have just arrived included.
    load: AtomicUsize,
}

impl Pacer {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Box<dyn Paced>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        #[cfg(target_os = "linux")]
        ask_for_precedence();
        let mut slots: [Slot; SLOTS] = Default::default();
        let mut inbox = Inbox::default();
        let width = Duration::from_micros(FRAME_MS * 1_000 / u64::try_from(SLOTS).unwrap_or(1));
        let mut due = Instant::now();
        loop {
            self.admit(&mut slots, &mut due);
            for slot in &mut slots {
                due += width;
                if slot.is_empty() {
                    continue;
                }
                let early = due.saturating_duration_since(Instant::now());
                if !early.is_zero() {
                    std::thread::sleep(early);
                }
                let before = slot.len();
                // One session's fault must not silence the others: neither its turn, nor what it tells, nor its going.
                slot.retain_mut(|session| {
                    let (now, wall) = (Instant::now(), SystemClock.since_1970());
                    let mut turn = Turn { inbox: &mut inbox, now, wall };
                    harmless(|| session.as_mut().is_some_and(|s| s.turn(&mut turn))) || gone(session)
                });
                slot.retain_mut(|session| {
                    let told = || {
                        session.as_mut().is_some_and(|s| {
                            s.deliver();
                            true
                        })
                    };
                    harmless(told) || gone(session)
                });
                self.load.fetch_sub(before - slot.len(), Ordering::Relaxed);
            }
            // After a stall the slots that were missed are missed: each session sees for itself how much time has passed.
            let frame = Duration::from_millis(FRAME_MS);
            while due + frame < Instant::now() {
                due += frame;
            }
        }
    }

    /// Takes new sessions into the emptiest slots; sleeps while there is nothing to pace.
    fn admit(&self, slots: &mut [Slot; SLOTS], due: &mut Instant) {
        let mut arrivals = self.lock();
        while arrivals.is_empty() && slots.iter().all(Vec::is_empty) {
            arrivals = self.woken.wait(arrivals).unwrap_or_else(PoisonError::into_inner);
            *due = Instant::now();
        }
        while let Some(session) = arrivals.pop_front() {
            if let Some(slot) = slots.iter_mut().min_by_key(|slot| slot.len()) {
                slot.push(Some(session));
            }
        }
    }
}

/// What `work` says; false if it panics.
fn harmless(work: impl FnOnce() -> bool) -> bool {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(false)
}

/// Drops a session that is over, whatever its drop does; false.
fn gone(session: &mut Option<Box<dyn Paced>>) -> bool {
    let session = session.take();
    let _dropped = harmless(|| {
        drop(session);
        true
    });
    false
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // two calls into libc without pointers
fn ask_for_precedence() {
    // From where the process stands, which may be above the rest of the machine already; the kernel keeps it within its range.
    // SAFETY: numbers only; 0 is the calling thread on Linux.
    let _refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, libc::getpriority(libc::PRIO_PROCESS, 0) + NICENESS) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Counting {
        left: usize,
        told: mpsc::Sender<Instant>,
        panics: Fault,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Fault {
        None,
        Turn,
        Deliver,
        Drop,
    }

    impl Drop for Counting {
        fn drop(&mut self) {
            assert!(self.panics != Fault::Drop, "a session's own fault");
        }
    }

    impl Paced for Counting {
        fn turn(&mut self, turn: &mut Turn<'_>) -> bool {
            let _gone = self.told.send(turn.now);
            self.left -= 1;
            assert!(self.panics != Fault::Turn, "a session's own fault");
            self.left > 0
        }

        fn deliver(&mut self) {
            assert!(self.panics != Fault::Deliver, "a session's own fault");
        }
    }

    #[test]
    fn each_session_gets_a_turn_each_20_ms_until_it_is_over_and_one_that_panics_ends_alone() {
        let (told, turns) = mpsc::channel();
        let (bad, bad_turns) = mpsc::channel();
        for panics in [Fault::Turn, Fault::Deliver, Fault::Drop] {
            for _ in 0..7 {
                let left = if panics == Fault::Drop { 1 } else { 10 };
                pace(Box::new(Counting { left, told: bad.clone(), panics }));
            }
        }
        pace(Box::new(Counting { left: 26, told, panics: Fault::None }));
        drop(bad);
        let at: Vec<Instant> = turns.iter().collect();
        assert_eq!(at.len(), 26);
        let took = *at.last().unwrap() - at[0];
        // A first turn that came late makes it shorter, a busy machine longer.
        assert!((Duration::from_millis(400)..Duration::from_millis(2_000)).contains(&took), "{took:?}");
        assert_eq!(bad_turns.iter().count(), 21);
    }
}
