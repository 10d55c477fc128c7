//! Turns. Every node of a simulation runs on a thread of its own, and only one of them at a time: wherever it asks for the time or speaks with the
//! bank, which is once between any two transactions at least, it waits until the director lets it go on. So a seed decides which node
//! overtakes which and which one dies where, and the same seed makes the same run.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How a node's thread unwinds when it dies. Nothing of ours runs after that: what is not committed is gone.
#[derive(Debug)]
pub struct Died;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Running,
    /// In the middle of something.
    Gate,
    /// Between two acts.
    Idle,
    /// Its thread has ended.
    Gone,
}

#[derive(Debug)]
struct Place<C> {
    at: At,
    go: bool,
    dies: bool,
    command: Option<C>,
}

#[derive(Debug)]
struct State<C> {
    places: Vec<Place<C>>,
}

/// The stage; `C` is what a node is told to do.
#[derive(Debug)]
pub struct Stage<C> {
    state: Mutex<State<C>>,
    changed: Condvar,
}

impl<C: Send> Stage<C> {
    pub fn new(nodes: usize) -> Arc<Self> {
        let places = (0..nodes).map(|_| Place { at: At::Running, go: false, dies: false, command: None }).collect();
        Arc::new(Self { state: Mutex::new(State { places }), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<C>>) -> MutexGuard<'a, State<C>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// The director: waits until nobody runs.
    pub fn quiet(&self) {
        let mut state = self.state();
        while state.places.iter().any(|p| p.at == At::Running) {
            state = self.wait(state);
        }
    }

    pub fn idle(&self, node: usize) -> bool {
        self.state().places[node].at == At::Idle
    }

    pub fn gone(&self, node: usize) -> bool {
        self.state().places[node].at == At::Gone
    }

    /// Gives an idle node something to do (`None`: it ends), or lets one go on that waits; and waits until it stands again.
    pub fn step(&self, node: usize, command: Option<C>) {
        let mut state = self.state();
        let place = &mut state.places[node];
        place.command = command;
        place.go = true;
        place.at = At::Running;
        self.changed.notify_all();
        while state.places[node].at == At::Running {
            state = self.wait(state);
        }
    }

    /// The node dies where it stands, and starts again.
    pub fn kill(&self, node: usize) {
        self.state().places[node].dies = true;
        self.step(node, None);
    }

    /// A node: waits for its turn.
    pub fn gate(&self, node: usize) {
        let mut state = self.state();
        // Dead already: the tasks of a dead node end one by one.
        if !state.places[node].dies {
            state.places[node].at = At::Gate;
            self.changed.notify_all();
            while !state.places[node].go {
                state = self.wait(state);
            }
            state.places[node].go = false;
        }
        if state.places[node].dies {
            drop(state);
            std::panic::resume_unwind(Box::new(Died));
        }
    }

    /// A node: waits for something to do. `None`: it is over.
    pub fn next(&self, node: usize) -> Option<C> {
        let mut state = self.state();
        state.places[node].at = At::Idle;
        self.changed.notify_all();
        while !state.places[node].go {
            state = self.wait(state);
        }
        let place = &mut state.places[node];
        place.go = false;
        if place.dies {
            drop(state);
            std::panic::resume_unwind(Box::new(Died));
        }
        place.command.take()
    }

    /// A node that died begins anew.
    pub fn reborn(&self, node: usize) {
        self.state().places[node].dies = false;
    }

    /// A node's thread ends.
    pub fn leave(&self, node: usize) {
        self.state().places[node].at = At::Gone;
        self.changed.notify_all();
    }
}
