//! Which references are open, and when each is to be looked at next. Kept in memory only: it is filled from the journal at the
//! start, and again every few seconds with what other nodes have opened.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::ids::RequestId;

/// The first pause before an instruction is sent again, in milliseconds; each is twice the one before.
const FIRST_PAUSE_MS: u64 = 1_000;

/// What is open.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    items: HashMap<RequestId, Item>,
    queue: BTreeSet<(Timestamp, RequestId)>,
    /// Counts how often the database was asked what is open.
    listing: u64,
}

#[derive(Debug)]
struct Item {
    due: Due,
    /// How long the journal was when it was last looked at.
    length: u64,
    /// How often in a row the bank gave no word.
    silences: u32,
    /// In which listing it stood last, or would have.
    listing: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Due {
    At(Timestamp),
    /// Somebody is at it; `again`: something has come meanwhile.
    AtWork {
        again: bool,
    },
}

/// What a look at a reference came to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Looked {
    /// Nothing waits any more.
    Closed,
    /// The journal is so long now, and nothing is owed; look again then, or when something comes.
    Waits { length: u64, until: Option<Timestamp> },
    /// The bank gave no word, and is asked again.
    Silence { length: u64, until: Option<Timestamp> },
}

impl Agenda {
    /// How many references are open.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn holds(&self, reference: &RequestId) -> bool {
        self.items.contains_key(reference)
    }

    /// Something has happened to a reference: it is due now.
    pub(super) fn add(&mut self, reference: &RequestId, now: Timestamp) {
        let fresh = Item { due: Due::At(now), length: 0, silences: 0, listing: 0 };
        let item = self.items.entry(reference.clone()).or_insert(fresh);
        item.listing = self.listing;
        match &mut item.due {
            Due::AtWork { again } => *again = true,
            Due::At(at) => {
                self.queue.remove(&(*at, reference.clone()));
                *at = now;
                self.queue.insert((now, reference.clone()));
            }
        }
    }

    /// The database is asked what is open.
    pub(super) fn begin_listing(&mut self) {
        self.listing = self.listing.saturating_add(1);
    }

    /// It lists a reference. One that has grown since it was last looked at is due now.
    pub(super) fn listed(&mut self, reference: &RequestId, length: u64, now: Timestamp) {
        match self.items.get_mut(reference) {
            Some(item) if item.length == length || item.due == (Due::AtWork { again: false }) => item.listing = self.listing,
            Some(_) | None => self.add(reference, now),
        }
    }

    /// It has listed all: what was not among them, and has not come since, other nodes have closed.
    pub(super) fn end_listing(&mut self) {
        let (listing, queue) = (self.listing, &mut self.queue);
        self.items.retain(|reference, item| match item.due {
            Due::At(at) if item.listing < listing => {
                queue.remove(&(at, reference.clone()));
                false
            }
            Due::At(_) | Due::AtWork { .. } => true,
        });
    }

    /// Takes a reference to look at it; `false`: somebody is at it already.
    pub(super) fn begin(&mut self, reference: &RequestId) -> bool {
        let Some(item) = self.items.get_mut(reference) else { return false };
        match &mut item.due {
            Due::AtWork { again } => {
                *again = true;
                false
            }
            Due::At(at) => {
                self.queue.remove(&(*at, reference.clone()));
                item.due = Due::AtWork { again: false };
                true
            }
        }
    }

    /// The next reference that is due, taken.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<RequestId> {
        let (at, reference) = self.queue.first()?.clone();
        (at <= now && self.begin(&reference)).then_some(reference)
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Puts back what was taken.
    pub(super) fn done(&mut self, reference: &RequestId, looked: Looked, now: Timestamp, longest_pause: Duration) {
        let Some(item) = self.items.get_mut(reference) else { return };
        let again = item.due == (Due::AtWork { again: true });
        let (length, until) = match looked {
            Looked::Closed if again => (item.length, None),
            Looked::Closed => {
                self.items.remove(reference);
                return;
            }
            Looked::Waits { length, until } => {
                item.silences = 0;
                (length, until)
            }
            Looked::Silence { length, until } => {
                let pause = Duration::from_millis(FIRST_PAUSE_MS.saturating_mul(1 << item.silences.min(16)));
                item.silences = item.silences.saturating_add(1);
                let retry = now.plus(pause.min(longest_pause));
                (length, Some(until.map_or(retry, |until| until.min(retry))))
            }
        };
        item.length = length;
        // Without a wait of its own it is looked at when something comes; that it never does is as good as this.
        let at = if again { now } else { until.unwrap_or_else(|| now.plus(longest_pause)) };
        item.due = Due::At(at);
        self.queue.insert((at, reference.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(5);
    const START: Timestamp = Timestamp(1_000_000);

    fn id(n: u8) -> RequestId {
        RequestId::parse(&format!("req_{n:024x}")).unwrap()
    }

    fn after(ms: u64) -> Timestamp {
        START.plus(Duration::from_millis(ms))
    }

    #[test]
    fn one_at_a_time_and_what_comes_meanwhile_is_not_forgotten() {
        let mut agenda = Agenda::default();
        agenda.add(&id(1), START);
        agenda.add(&id(1), START);
        assert_eq!((agenda.next(START), agenda.next(START)), (Some(id(1)), None));
        assert!(!agenda.begin(&id(1)) && agenda.holds(&id(1)));
        agenda.done(&id(1), Looked::Closed, START, MOST);
        assert_eq!(agenda.next(START), Some(id(1)), "somebody wanted it while it was looked at");
        agenda.done(&id(1), Looked::Closed, START, MOST);
        assert_eq!((agenda.len(), agenda.due(), agenda.next(START)), (0, None, None));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_word() {
        let mut agenda = Agenda::default();
        agenda.add(&id(1), START);
        let mut pauses = Vec::new();
        for _ in 0..5 {
            assert!(agenda.begin(&id(1)));
            agenda.done(&id(1), Looked::Silence { length: 3, until: None }, START, MOST);
            pauses.push(agenda.due().unwrap().since(START).as_millis());
        }
        assert_eq!(pauses, [1_000, 2_000, 4_000, 5_000, 5_000]);
        assert!(agenda.begin(&id(1)));
        agenda.done(&id(1), Looked::Waits { length: 4, until: Some(after(70)) }, START, MOST);
        assert_eq!(agenda.due(), Some(after(70)));
        assert!(agenda.begin(&id(1)));
        agenda.done(&id(1), Looked::Silence { length: 4, until: Some(after(500)) }, START, MOST);
        assert_eq!(agenda.due(), Some(after(500)), "a wait that ends earlier goes first");
    }

    #[test]
    fn only_what_has_grown_elsewhere_is_looked_at_again() {
        let mut agenda = Agenda::default();
        agenda.listed(&id(1), 2, START);
        assert_eq!(agenda.next(START), Some(id(1)));
        agenda.listed(&id(1), 3, START);
        agenda.done(&id(1), Looked::Waits { length: 3, until: Some(after(900)) }, START, MOST);
        agenda.listed(&id(1), 3, START);
        assert_eq!(agenda.due(), Some(after(900)));
        agenda.listed(&id(1), 4, after(10));
        assert_eq!(agenda.due(), Some(after(10)));
        agenda.begin_listing();
        agenda.listed(&id(1), 4, after(10));
        agenda.end_listing();
        assert_eq!(agenda.len(), 1);
        agenda.add(&id(2), after(5));
        assert_eq!((agenda.next(after(20)), agenda.next(after(20)), agenda.next(after(20))), (Some(id(2)), Some(id(1)), None));
    }

    #[test]
    fn what_other_nodes_have_closed_is_forgotten_and_what_has_just_come_is_not() {
        let mut agenda = Agenda::default();
        for n in 1..=4 {
            agenda.add(&id(n), START);
        }
        assert!(agenda.begin(&id(1)));
        agenda.begin_listing();
        agenda.listed(&id(2), 1, START);
        agenda.add(&id(5), START);
        agenda.add(&id(3), START);
        agenda.end_listing();
        let held = [1, 2, 3, 4, 5].map(|n| agenda.holds(&id(n)));
        assert_eq!(held, [true, true, true, false, true], "somebody is at 1, 2 is listed, 3 and 5 have come since");
        assert_eq!([(); 4].map(|()| agenda.next(START)), [Some(id(2)), Some(id(3)), Some(id(5)), None]);
    }
}
