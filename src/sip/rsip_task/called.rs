//! Their INVITE: ringing (reliably where they require it), the answer, CANCEL, and the ACK.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use rsipstack::transaction::transaction::Transaction;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::message::{self, Answering, Flow, Happening, Told};
use super::{CallTask, HAPPENINGS_QUEUE, Ringing, Stage, Start, Unconfirmed};
use crate::sip::dialog::Dialog;
use crate::sip::headers::Headers;
use crate::sip::reliable::{Unacknowledged, names_100rel};
use crate::sip::rsip::Shared;
use crate::sip::rsip_call::RsipCall;
use crate::sip::session_timer::{self, Answered, SessionTimer};
use crate::sip::signalling::{ACCEPTED_BODY, Call, CallEvent, Invite, InvitedCall, Over, Refusal, StackError};

/// Somebody who calls, before anything is decided.
pub(in crate::sip) struct Invited {
    /// Taken by whoever decides.
    open: Option<Open>,
    shared: Arc<Shared>,
}

struct Open {
    answering: Answering,
    tell: mpsc::Sender<Happening>,
    happenings: mpsc::Receiver<Happening>,
    dialog: Dialog,
    flow: Flow,
    offerless: bool,
    tag: String,
}

impl Invited {
    /// Takes the transaction in hand: from now on CANCEL is answered. `None` if it can't be answered at all.
    pub(in crate::sip) fn new(
        transaction: Transaction,
        invite: &Invite,
        shared: Arc<Shared>,
        place: OwnedSemaphorePermit,
    ) -> Option<Self> {
        let tag = shared.tag();
        let mut answering = Answering::new(&transaction, &tag)?;
        let standing = answering.holding(place, &shared.refused);
        // At once, so that the caller stops repeating itself whatever the rest of the house is doing.
        answering.trying();
        let (tell, happenings) = mpsc::channel(HAPPENINGS_QUEUE);
        let flow =
            Flow { connection: transaction.connection.clone(), peer: invite.peer, transport: invite.transport, name: None };
        let dialog = Dialog::called(&invite.headers, &tag);
        message::drive(transaction, answering.cseq, tell.clone(), shared.stop.clone(), Some(standing));
        let dialog = match dialog {
            Ok(dialog) => dialog,
            Err(error) => {
                answering.refuse(&Refusal::new(400).warning(399, &error.to_string()));
                return None;
            }
        };
        let open = Open { answering, tell, happenings, dialog, flow, offerless: invite.offer.is_none(), tag };
        Some(Self { open: Some(open), shared })
    }
}

#[async_trait]
impl InvitedCall for Invited {
    async fn refuse(mut self: Box<Self>, refusal: Refusal) {
        if let Some(open) = self.open.take() {
            open.answering.refuse(&refusal);
        }
    }

    async fn ring(mut self: Box<Self>, contact: IpAddr) -> Result<Box<dyn Call>, StackError> {
        let Some(open) = self.open.take() else { return Err(StackError("it was decided already".to_owned())) };
        let shared = self.shared.clone();
        let Open { answering, tell, happenings, dialog, flow, offerless, tag } = open;
        let invite = answering.headers();
        let contact = shared.contact(contact, flow.transport);
        let key = (dialog.call_id().to_owned(), tag);
        // `screen` has refused what is too small.
        let session = session_timer::answer(shared.session, &invite).unwrap_or_default();
        let require = names_100rel(&invite, "Require");
        let ringing = Box::new(Ringing { answering, reliable: None, session, offerless });
        let start = Start {
            shared,
            tell,
            happenings,
            key,
            contact,
            flow,
            dialog: Some(dialog),
            stage: Stage::Ringing(ringing),
            credentials: None,
        };
        let (mut task, hold) = CallTask::new(start)?;
        task.learn(&invite);
        task.ring(require);
        tokio::spawn(task.run());
        Ok(Box::new(RsipCall::new(hold)))
    }
}

impl Drop for Invited {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.answering.refuse(&Refusal::new(500));
        }
    }
}

/// Refuses an INVITE, and sees to it that the refusal arrives.
pub(in crate::sip) fn refuse_invite(
    transaction: Transaction,
    refusal: &Refusal,
    shared: &Arc<Shared>,
    place: OwnedSemaphorePermit,
) {
    let Some(mut answering) = Answering::new(&transaction, &shared.tag()) else { return };
    let (nobody, _) = mpsc::channel(1);
    let standing = answering.holding(place, &shared.refused);
    answering.refuse(refusal);
    message::drive(transaction, answering.cseq, nobody, shared.stop.clone(), Some(standing));
}

impl CallTask {
    /// 180. Reliably only where that is required: it says nothing that matters if it is lost.
    fn ring(&mut self, reliably: bool) {
        let now = self.now();
        let (t1, random) = (self.shared.t1, u32::from_le_bytes(self.shared.entropy.bytes()));
        let mut headers = self.about_us();
        let Stage::Ringing(ringing) = &mut self.stage else { return };
        copy_record_route(&ringing.answering, &mut headers);
        if reliably {
            let unacknowledged = Unacknowledged::sent(now, t1, ringing.answering.cseq, random);
            headers.push("Require", "100rel");
            headers.push("RSeq", unacknowledged.rseq().to_string());
            ringing.reliable = Some((unacknowledged, headers.clone()));
        }
        ringing.answering.send(180, &headers, None);
    }

    /// 200. A 180 that still waits for its PRACK is repeated no more (RFC 3262 section 3: it held no description).
    pub(super) fn accept(&mut self, description: String) -> Result<(), StackError> {
        let now = self.now();
        let mut headers = self.about_us();
        let Stage::Ringing(ringing) = &mut self.stage else {
            return Err(StackError("there is nothing to accept any more".to_owned()));
        };
        copy_record_route(&ringing.answering, &mut headers);
        if let Some(session) = &ringing.session {
            say_session(session, &mut headers);
            self.timer = Some(SessionTimer::agreed(now, session.expires, false));
        }
        headers.push("Content-Type", ACCEPTED_BODY);
        ringing.answering.send(200, &headers, Some(description.clone().into_bytes()));
        ringing.answering.take();
        self.unconfirmed = Some(Unconfirmed { cseq: ringing.answering.cseq, offered: ringing.offerless, first: true });
        self.offering.our_offer = ringing.offerless;
        self.overtaken = ringing.reliable.as_ref().map(|(u, _)| *u);
        self.description = Some(description);
        self.started();
        Ok(())
    }

    /// Something happened to an INVITE transaction of theirs.
    pub(super) fn told(&mut self, cseq: u32, told: Told) {
        match told {
            Told::Cancel => self.cancelled(cseq),
            Told::Ack(body) => self.acknowledged(cseq, body),
            Told::Over => {
                // No ACK within 64·T1: section 13.3.1.4 wants a BYE, first INVITE or not.
                if self.unconfirmed.is_some_and(|u| u.cseq == cseq) {
                    self.unconfirmed = None;
                    self.bye();
                    self.close(Over::NotAcknowledged);
                }
            }
        }
    }

    /// The stack has answered the CANCEL itself; after a final answer it doesn't even tell.
    fn cancelled(&mut self, cseq: u32) {
        let terminated = Refusal::new(487);
        match &self.stage {
            Stage::Ringing(ringing) if ringing.answering.cseq == cseq => {
                ringing.answering.refuse(&terminated);
                self.close(Over::Cancelled);
            }
            Stage::Ringing(_) | Stage::Calling(_) | Stage::Up | Stage::Ended => {
                let is_it = |p: &super::Pending| matches!(&p.to, super::Asked::Invite(a) if a.cseq == cseq);
                if let Some(pending) = self.pending.take_if(|p| is_it(p)) {
                    self.say_no(pending.to, &terminated);
                }
            }
        }
    }

    fn acknowledged(&mut self, cseq: u32, body: Vec<u8>) {
        let Some(unconfirmed) = self.unconfirmed.take_if(|u| u.cseq == cseq) else { return };
        if unconfirmed.offered {
            self.offering.our_offer = false;
        }
        if self.leaving {
            return self.bye();
        }
        if unconfirmed.first {
            self.tell_house(CallEvent::Acknowledged(body));
        } else if unconfirmed.offered && !body.is_empty() {
            self.tell_house(CallEvent::Settled(body));
        }
    }
}

/// Session-Expires of a 2xx of ours.
pub(super) fn say_session(session: &Answered, headers: &mut Headers) {
    headers.push("Session-Expires", session.expires.value());
    if session.require {
        headers.push("Require", "timer");
    }
}

/// The proxies that want to stay on the path find themselves in our answers (RFC 3261 section 12.1.1).
fn copy_record_route(answering: &Answering, headers: &mut Headers) {
    let invite = answering.headers();
    for route in invite.all("Record-Route") {
        headers.push("Record-Route", route);
    }
}
