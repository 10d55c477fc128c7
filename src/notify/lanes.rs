//! Who is sent to, and how much at a time. What one endpoint is told of one subject is a lane: the database gives out only its first, so that
//! nothing overtakes. Beside that nobody waits for anybody: each endpoint has places of its own; one that fails has a single one, and all that fail
//! or are slow have half of the places at most, so that they hold up nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinSet};

use super::config::NotifyConfig;
use super::{Inner, Notifier};
use crate::ids::EndpointId;
use crate::store::StoreError;

/// How much longer than a send a delivery is one's own, for writing down what came of it.
const LEASE_MARGIN: Duration = Duration::from_secs(20);
/// So many tries in a row that failed make an endpoint one that fails; so many that were slow or failed, one that is slow.
const IN_A_ROW: u32 = 5;
/// Endpoints that are remembered for their bad tries.
const REMEMBERED_LIMIT: usize = 10_000;

/// How a try went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It arrived, and soon.
    Well,
    /// It arrived, but its place was taken for long.
    Slowly,
    /// It did not arrive.
    Badly,
}

/// One endpoint's places.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    under_way: u32,
    failed_in_a_row: u32,
    slow_in_a_row: u32,
}

impl Line {
    fn fails(self) -> bool {
        self.failed_in_a_row >= IN_A_ROW
    }

    /// Whether it keeps its places for long.
    fn drags(self) -> bool {
        self.fails() || self.slow_in_a_row >= IN_A_ROW
    }
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    tasks: JoinSet<Went>,
    whose: HashMap<Id, EndpointId>,
    lines: HashMap<EndpointId, Line>,
    /// Who comes first when places are given; another each time.
    turn: usize,
    /// Tries that ended, and those of them that arrived.
    ended: (usize, usize),
}

impl Lanes {
    /// Begins what is due and has a place; says how many.
    pub(super) async fn fill(&mut self, notifier: &Notifier) -> Result<usize, StoreError> {
        let inner = &notifier.inner;
        let now = inner.clock.now();
        if self.tasks.len() >= places(&inner.cfg) {
            return Ok(0);
        }
        let due = inner.store.due_endpoints(now).await?;
        let rooms = self.rooms(due, &inner.cfg);
        if rooms.is_empty() {
            return Ok(0);
        }
        let lease = now.plus(Duration::from_millis(inner.cfg.timeout_ms).saturating_add(LEASE_MARGIN));
        let claimed = inner.store.claim_deliveries(now, lease, &rooms).await?;
        let begun = claimed.len();
        for delivery in claimed {
            let endpoint = delivery.endpoint.clone();
            let inner: Arc<Inner> = Arc::clone(inner);
            let task = self.tasks.spawn(async move { inner.deliver(&delivery).await });
            self.whose.insert(task.id(), endpoint.clone());
            let line = self.lines.entry(endpoint).or_default();
            line.under_way = line.under_way.saturating_add(1);
        }
        Ok(begun)
    }

    /// How many more each of those endpoints may have: one after the other gets one more, until all have what they may or nothing is left.
    fn rooms(&mut self, mut due: Vec<EndpointId>, cfg: &NotifyConfig) -> Vec<(EndpointId, u32)> {
        let all = places(cfg);
        let mut free = all.saturating_sub(self.tasks.len());
        let dragging: usize =
            self.lines.values().filter(|l| l.drags()).map(|l| usize::try_from(l.under_way).unwrap_or(all)).sum();
        let mut free_for_dragging = (all / 2).max(1).saturating_sub(dragging);
        if !due.is_empty() {
            let first = self.turn % due.len();
            due.rotate_left(first);
            self.turn = self.turn.wrapping_add(1);
        }
        let mut rooms: Vec<(EndpointId, u32)> = due.into_iter().map(|id| (id, 0)).collect();
        let mut given = true;
        while given {
            given = false;
            for (id, room) in &mut rooms {
                let line = self.lines.get(id).copied().unwrap_or_default();
                let most = if line.fails() { 1 } else { cfg.at_once_per_endpoint.max(1) };
                let may = line.under_way.saturating_add(*room) < most && !(line.drags() && free_for_dragging == 0);
                if !may || free == 0 {
                    continue;
                }
                *room = room.saturating_add(1);
                free = free.saturating_sub(1);
                free_for_dragging = free_for_dragging.saturating_sub(usize::from(line.drags()));
                given = true;
            }
        }
        rooms.retain(|(_, room)| *room > 0);
        rooms
    }

    pub(super) fn idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until something that is under way has ended, and takes whatever else has.
    pub(super) async fn next(&mut self) {
        let ended = self.tasks.join_next_with_id().await;
        self.took(ended);
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.took(Some(ended));
        }
    }

    fn took(&mut self, ended: Option<Result<(Id, Went), tokio::task::JoinError>>) {
        let (id, went) = match ended {
            None => return,
            Some(Ok(ended)) => ended,
            Some(Err(error)) => {
                tracing::error!(%error, "a delivery broke off");
                (error.id(), Went::Badly)
            }
        };
        self.ended.0 = self.ended.0.saturating_add(1);
        self.ended.1 = self.ended.1.saturating_add(usize::from(went != Went::Badly));
        let Some(endpoint) = self.whose.remove(&id) else { return };
        let line = self.lines.entry(endpoint.clone()).or_default();
        line.under_way = line.under_way.saturating_sub(1);
        let more = |count: u32, one_more: bool| if one_more { count.saturating_add(1) } else { 0 };
        line.failed_in_a_row = more(line.failed_in_a_row, went == Went::Badly);
        line.slow_in_a_row = more(line.slow_in_a_row, went != Went::Well);
        if line.under_way == 0 && line.slow_in_a_row == 0 {
            self.lines.remove(&endpoint);
        }
        if self.lines.len() > REMEMBERED_LIMIT {
            self.lines.retain(|_, line| line.under_way > 0);
        }
    }

    /// Lets all that is under way end. How many were tried since it was made, and how many arrived.
    pub(super) async fn finish(mut self) -> (usize, usize) {
        while !self.idle() {
            self.next().await;
        }
        self.ended
    }
}

fn places(cfg: &NotifyConfig) -> usize {
    usize::try_from(cfg.at_once.max(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    fn endpoints<const N: usize>() -> [EndpointId; N] {
        let entropy = SeededEntropy::new(1);
        std::array::from_fn(|_| EndpointId::fresh(&entropy))
    }

    fn room_of(rooms: &[(EndpointId, u32)], id: &EndpointId) -> u32 {
        rooms.iter().find(|(e, _)| e == id).map_or(0, |(_, room)| *room)
    }

    #[tokio::test]
    async fn places_are_shared_and_one_that_fails_has_a_single_one() {
        let cfg = NotifyConfig { at_once: 10, at_once_per_endpoint: 4, ..NotifyConfig::default() };
        let [a, b, c] = endpoints();
        let mut lanes = Lanes::default();
        let rooms = lanes.rooms(vec![a.clone(), b.clone(), c.clone()], &cfg);
        let mut given = [&a, &b, &c].map(|e| room_of(&rooms, e));
        given.sort_unstable();
        assert_eq!(given, [3, 3, 4], "all places are given, and none has more than its own");
        assert_eq!(lanes.rooms(vec![a.clone()], &cfg), [(a.clone(), 4)]);
        let line = |under_way, in_a_row| Line { under_way, failed_in_a_row: in_a_row, slow_in_a_row: in_a_row };
        lanes.lines.insert(a.clone(), line(0, IN_A_ROW));
        lanes.lines.insert(b.clone(), line(3, IN_A_ROW - 1));
        let rooms = lanes.rooms(vec![a.clone(), b.clone()], &cfg);
        assert_eq!((room_of(&rooms, &a), room_of(&rooms, &b)), (1, 1));
        lanes.lines.insert(a.clone(), line(1, IN_A_ROW));
        assert_eq!(lanes.rooms(vec![a.clone()], &cfg), [], "it is tried, one at a time");
        lanes.lines.insert(a.clone(), Line { failed_in_a_row: 0, ..line(1, IN_A_ROW) });
        assert_eq!(lanes.rooms(vec![a.clone()], &cfg), [(a, 3)], "one that is slow keeps its places");
    }

    #[tokio::test]
    async fn those_that_drag_have_half_of_the_places_at_most_and_each_has_its_turn() {
        let cfg = NotifyConfig { at_once: 4, at_once_per_endpoint: 4, ..NotifyConfig::default() };
        let [a, b, c, well] = endpoints();
        let mut lanes = Lanes::default();
        for bad in [&a, &b, &c] {
            lanes.lines.insert(bad.clone(), Line { under_way: 0, failed_in_a_row: 0, slow_in_a_row: 99 });
        }
        let mut had = [0; 3];
        for _ in 0..4 {
            let rooms = lanes.rooms(vec![a.clone(), b.clone(), c.clone(), well.clone()], &cfg);
            let bad = [&a, &b, &c].map(|e| room_of(&rooms, e));
            assert_eq!((bad.iter().sum::<u32>(), room_of(&rooms, &well)), (2, 2), "{rooms:?}");
            had.iter_mut().zip(bad).for_each(|(sum, n)| *sum += n);
        }
        assert!(had.iter().all(|n| *n > 0), "{had:?}");
    }
}
