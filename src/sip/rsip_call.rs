//! The house's hand on a call's task.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::refer::{ReferTo, Referral, Replaces};
use super::rsip_task::{Hold, Order};
use super::signalling::{Call, CallEvent, Over, Refusal, StackError};

/// See [`Call`]. Dropping it closes the orders, which hangs up.
pub(super) struct RsipCall {
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<CallEvent>,
    named: Arc<OnceLock<Replaces>>,
    /// What could not even be ordered, to be told in its turn.
    unordered: Option<CallEvent>,
    over: bool,
}

impl RsipCall {
    pub(super) fn new(hold: Hold) -> Self {
        let Hold { orders, events, named } = hold;
        Self { orders, events, named, unordered: None, over: false }
    }
}

#[async_trait]
impl Call for RsipCall {
    async fn accept(&mut self, description: String) -> Result<(), StackError> {
        let gone = || StackError("the call is gone".to_owned());
        let (reply, replied) = oneshot::channel();
        self.orders.send(Order::Accept(description, reply)).await.map_err(|_| gone())?;
        replied.await.map_err(|_| gone())?
    }

    async fn next(&mut self) -> CallEvent {
        if let Some(event) = self.unordered.take() {
            return event;
        }
        if self.over {
            return std::future::pending().await;
        }
        let event = self.events.recv().await.unwrap_or_else(|| CallEvent::Over(Over::Failed("the call is gone".to_owned())));
        self.over = matches!(event, CallEvent::Over(_));
        event
    }

    async fn hang_up(&mut self) {
        let (reply, replied) = oneshot::channel();
        if self.orders.send(Order::HangUp(reply)).await.is_ok() {
            let _over_either_way = replied.await;
        }
    }

    fn reoffer(&mut self, description: String) {
        if self.orders.try_send(Order::Reoffer(description)).is_err() {
            self.unordered = Some(CallEvent::Reoffered(Err(Refusal::new(503))));
        }
    }

    fn refer(&mut self, to: ReferTo) {
        if self.orders.try_send(Order::Refer(Box::new(to))).is_err() {
            self.unordered = Some(CallEvent::Refer(Referral::Refused(503)));
        }
    }

    fn named(&self) -> Option<Replaces> {
        self.named.get().cloned()
    }
}
