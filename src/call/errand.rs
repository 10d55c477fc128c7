//! Calls that we place, at the edge: a person picked up, the beep that takes the person back is listened for, and what the call is about is
//! read and decided where approvals are kept.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::driver::Call;
use super::figures;
use super::timeline::Who;
use super::work::{Done, Kept};
use crate::dialogue::{Errand, ErrandEffect, ErrandNews, Input, Matter, Purpose};
use crate::ids::ApprovalId;
use crate::media::frame::Frame;
use crate::speech::pickup::PickupEar;

/// Why a call was placed, for its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlacedFor {
    /// `decide` or `tell`.
    pub purpose: &'static str,
    /// About what.
    pub approval: ApprovalId,
}

impl From<&Purpose> for PlacedFor {
    fn from(purpose: &Purpose) -> Self {
        let word = match purpose {
            Purpose::Decide(_) => "decide",
            Purpose::Tell(_) => "tell",
        };
        Self { purpose: word, approval: purpose.approval().clone() }
    }
}

/// Listens for a machine's beep, for as long as machines greet.
pub(super) struct Ear {
    ear: PickupEar,
    limit: Duration,
}

impl Call {
    /// What is known of whom we called, before the first word.
    pub(super) fn placed(&mut self, ear: PickupEar, errand: &Errand) {
        let limit = Duration::from_millis(self.services.speech.pickup.beep_wait_ms.into());
        self.ear = Some(Ear { ear, limit });
        self.placed_for = Some(PlacedFor::from(&errand.purpose));
        self.customer = Some(errand.customer.clone());
        self.language = errand.language;
        // We called the number ourselves.
        self.looked_up = (Some(errand.number.clone()), true);
    }

    /// A beep takes the word of a person back.
    pub(super) fn beeped(&mut self, frame: &Frame) -> Option<Input> {
        let late = self.ear.as_ref().is_some_and(|ear| self.elapsed() > ear.limit);
        if late {
            self.ear = None;
        }
        let ear = self.ear.as_mut()?;
        ear.ear.push(frame);
        ear.ear.beep()?;
        self.ear = None;
        self.timeline.add(Who::Check, "a beep: it is a machine after all");
        Some(Input::Errand(ErrandNews::Machine))
    }

    pub(super) async fn errand(&mut self, effect: ErrandEffect) -> Option<Input> {
        match effect {
            ErrandEffect::LookUp { accepted, customer, purpose } => {
                // Whoever was heard is who we called: no beep is a machine's any more.
                self.ear = None;
                let (services, now) = (Arc::clone(&self.services), self.now());
                self.jobs.spawn(async move {
                    let matter = services.off_clock(services.approvals.matter(&customer, &purpose, now)).await;
                    let mut clips = Vec::new();
                    if let Matter::Question { payee, .. } | Matter::Result { payee, .. } = &matter {
                        match services.off_clock(services.desk.payee_clip(&payee.id)).await {
                            Ok(clip) => clips.extend(clip.map(|clip| (payee.id.clone(), Arc::new(clip)))),
                            Err(error) => tracing::warn!(%error, "a payee's recorded name could not be read: it is spelt"),
                        }
                    }
                    Done::tell(Input::Errand(ErrandNews::Found { matter, accepted }))
                        .line("what the call is about was read", figures([]))
                        .keep(Kept::Payees(clips))
                });
                None
            }
            // It changes what may be charged: it is durable before anything else is done, whatever becomes of the call.
            ErrandEffect::Decide(decision) => {
                let yes = decision.yes;
                let services = Arc::clone(&self.services);
                let outcome = services.off_clock(services.approvals.decide(&self.id, *decision, self.now())).await;
                let said = if yes { "yes" } else { "no" };
                self.timeline.add(Who::Check, format!("hands over a {said}: {outcome:?}"));
                Some(Input::Errand(ErrandNews::Decided(outcome)))
            }
        }
    }
}
