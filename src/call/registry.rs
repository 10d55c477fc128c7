//! Which calls are live: for admission, for draining, and for whoever asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::ids::{CallId, CustomerId};

/// A live call, as an operator sees it.
#[derive(Clone, Debug)]
pub struct LiveCall {
    /// When it was answered.
    pub since: Timestamp,
    /// The peer's address.
    pub peer: String,
    /// Who is nominated, once somebody is.
    pub customer: Option<CustomerId>,
}

/// The calls that are up, bounded by `limit`.
#[derive(Clone, Debug)]
pub struct Registry {
    calls: Arc<Mutex<HashMap<CallId, LiveCall>>>,
    emptied: Arc<tokio::sync::Notify>,
    limit_calls: usize,
}

impl Registry {
    /// Admits up to `limit_calls`.
    pub fn new(limit_calls: usize) -> Self {
        Self { calls: Arc::default(), emptied: Arc::default(), limit_calls }
    }

    /// Enters a call; `None` when all places are taken. The place is given back when the entry is dropped, however the task ends.
    pub fn enter(&self, id: CallId, call: LiveCall) -> Option<Entry> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() >= self.limit_calls {
            return None;
        }
        calls.insert(id.clone(), call);
        Some(Entry { id, registry: self.clone() })
    }

    /// It is known whose call it is.
    pub fn nominate(&self, id: &CallId, customer: &CustomerId) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(call) = calls.get_mut(id) {
            call.customer = Some(customer.clone());
        }
    }

    /// Who is nominated in a call that is up; `None`: nobody yet, or it is not up.
    pub fn customer_of(&self, id: &CallId) -> Option<CustomerId> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(id)?.customer.clone()
    }

    /// How many may be up.
    pub fn limit(&self) -> usize {
        self.limit_calls
    }

    /// How many are up.
    pub fn live(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Returns when no call is up.
    pub async fn drained(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.live() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// One call's place in the registry.
#[derive(Debug)]
pub struct Entry {
    id: CallId,
    registry: Registry,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.registry.emptied.notify_waiters();
    }
}
