//! To a person: the caller's telephone system is asked to transfer the call (REFER); where it does no transfers, we call the person
//! ourselves and join the two. And waiting, while the caller has us on hold.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::driver::Call;
use super::timeline::Who;
use super::work::{Done, Kept};
use crate::dialogue::{DeadlineKind, Input};
use crate::media::bridge::bridge;
use crate::media::leg::{Leg, LegCommand, LegInfo, TransferNews};

/// Who places calls for us.
#[async_trait]
pub trait Switchboard: Send + Sync + std::fmt::Debug {
    /// Calls `to` (a SIP URI) on behalf of the caller of `info`, lets it ring for so long, and waits for the answer; dropping it gives
    /// the call up. The error is for a log: the caller hears that nobody can be reached.
    async fn call(&self, to: &str, info: &LegInfo, ring: Duration) -> Result<Leg, String>;
}

impl Call {
    /// The dialogue wants the caller connected.
    pub(super) async fn transfer(&mut self) -> Option<Input> {
        self.timeline.add(Who::Service, "asks the caller's side to call a person");
        self.command(LegCommand::Transfer { to: self.config.person.clone(), instead_of: None }).await
    }

    /// How that goes.
    pub(super) fn on_transfer(&mut self, news: TransferNews) -> Option<Input> {
        match news {
            TransferNews::Ringing => {
                self.timeline.add(Who::Check, "the person's telephone rings");
                None
            }
            TransferNews::Done => {
                self.timeline.add(Who::Check, "a person has the caller");
                Some(Input::Transferred(true))
            }
            TransferNews::Failed { status } => {
                self.timeline.add(Who::Check, format!("the person did not take the call ({status})"));
                Some(Input::Transferred(false))
            }
            TransferNews::Refused { status } => {
                self.timeline.add(Who::Check, format!("the caller's side transfers nobody ({status}): we call the person"));
                self.call_the_person()
            }
        }
    }

    fn call_the_person(&mut self) -> Option<Input> {
        let Some(switchboard) = self.services.switchboard.get().map(Arc::clone) else { return Some(Input::Transferred(false)) };
        let (to, info) = (self.config.person.clone(), self.leg.info.clone());
        let ring = Duration::from_millis(self.config.transfer_wait_ms.into());
        self.jobs.spawn(async move {
            match switchboard.call(&to, &info, ring).await {
                Ok(leg) => Done::tell(Input::Transferred(true)).keep(Kept::Person(Box::new(leg))),
                Err(why) => {
                    tracing::warn!(%why, "dialogue.person can't be reached");
                    Done::tell(Input::Transferred(false))
                }
            }
        });
        None
    }

    /// Joins the caller and the person who was called, until one of them has enough.
    pub(super) async fn join_the_person(&mut self) {
        let Some(mut person) = self.person.take() else { return };
        self.timeline.add(Who::Check, "speaks with a person");
        let since = Instant::now();
        let end = bridge(&mut self.leg, &mut person).await;
        let seconds = since.elapsed().as_secs();
        self.timeline.add(Who::Check, format!("they spoke for {seconds} s; {:?} hung up first", end.side));
    }

    /// The caller put us on hold: nobody hears our questions, so nobody is late with an answer.
    pub(super) fn held(&mut self) {
        self.timeline.add(Who::Caller, "puts us on hold");
        self.held.get_or_insert_with(Instant::now);
    }

    /// Back: what was waited for may take as long as it still had.
    pub(super) fn resumed(&mut self) {
        self.timeline.add(Who::Caller, "is back from hold");
        let Some(since) = self.held.take() else { return };
        let away = since.elapsed();
        for (kind, at) in &mut self.deadlines {
            // The whole call's limit counts holds too.
            if *kind != DeadlineKind::CallLimit {
                *at = at.plus(away);
            }
        }
    }
}
