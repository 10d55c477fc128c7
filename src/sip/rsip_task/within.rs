//! Requests of theirs within the dialog: in order, understood, allowed at this moment; then what each is for.

use rsipstack::sip::Method;
use rsipstack::sip::prelude::{HasHeaders, HeadersExt};
use rsipstack::transaction::transaction::Transaction;
use tokio::sync::oneshot;

use super::called::say_session;
use super::message::{self, Answering, answer, came_over, headers_of};
use super::{Asked, CallTask, Pending, Stage, Unconfirmed};
use crate::sip::headers::Headers;
use crate::sip::info::{self, ACCEPTED_INFO, NoKeys};
use crate::sip::offering::{Verdict, retry_after_s};
use crate::sip::refer::{self, Referral};
use crate::sip::reliable::RAck;
use crate::sip::rsip::screen;
use crate::sip::session_timer::{self, SessionTimer};
use crate::sip::signalling::{ACCEPTED_BODY, ALLOWED_METHODS, CallEvent, Over, Refusal};

impl CallTask {
    /// A request within the dialog.
    pub(super) fn asked(&mut self, mut transaction: Transaction) {
        let headers = headers_of(transaction.original.headers());
        let body = std::mem::take(&mut transaction.original.body);
        let method = transaction.original.method;
        // Our answers to offers hold keys.
        if self.flow.transport.is_secure() && !came_over(&transaction).is_secure() {
            return refuse(
                transaction,
                &Refusal::new(403).warning(399, "this call came over TLS, and so must what belongs to it"),
            );
        }
        let from_tag = headers.get("From").and_then(crate::sip::dialog::tag_of).unwrap_or_default();
        let Some(dialog) = self.dialog_with(from_tag) else { return refuse(transaction, &Refusal::new(481)) };
        let Ok(cseq) = transaction.original.cseq_header().and_then(|c| c.seq()) else {
            return refuse(transaction, &Refusal::new(400));
        };
        // RFC 3261 section 12.2.2.
        if !dialog.in_order(cseq) {
            return refuse(transaction, &Refusal::new(500).warning(399, "CSeq is not higher than the last one"));
        }
        if method != Method::Bye
            && let Err(refusal) = screen(method, &headers, &body, self.limits)
        {
            return refuse(transaction, &refusal);
        }
        // Our BYE is on its way: there is no session to change or ask about.
        let ended = matches!(self.stage, Stage::Ended);
        match method {
            Method::Bye => self.hung_up(transaction),
            _ if ended => refuse(transaction, &Refusal::new(481)),
            Method::Invite => self.reinvited(transaction, &headers, body),
            Method::Update => self.updated(transaction, &headers, body),
            Method::PRack => self.pracked(transaction, &headers, &body),
            Method::Info => self.informed(transaction, &headers, &body),
            Method::Options => answer(transaction, 200, &self.about_us().with("Accept", ACCEPTED_BODY), None),
            Method::Refer => {
                let refusal = if refer::has_one_target(&headers) {
                    Refusal::new(603).warning(399, "this service transfers calls itself, nobody else does")
                } else {
                    Refusal::new(400).warning(399, "a REFER needs exactly one Refer-To")
                };
                refuse(transaction, &refusal);
            }
            Method::Notify => self.notified(transaction, &headers, &body),
            Method::Ack | Method::Cancel => {}
            Method::Message | Method::Publish | Method::Register | Method::Subscribe => {
                refuse(transaction, &Refusal::new(405).with("Allow", ALLOWED_METHODS));
            }
        }
    }

    fn hung_up(&mut self, transaction: Transaction) {
        answer(transaction, 200, &Headers::new(), None);
        self.unconfirmed = None;
        if let Stage::Ringing(ringing) = &self.stage {
            ringing.answering.refuse(&Refusal::new(487));
        }
        self.close(Over::Bye);
    }

    fn reinvited(&mut self, transaction: Transaction, headers: &Headers, body: Vec<u8>) {
        let verdict = if matches!(self.stage, Stage::Up) { self.offering.invited() } else { Verdict::TooSoon { most_s: 10 } };
        if let Some(refusal) = self.crossing(verdict) {
            return refuse(transaction, &refusal);
        }
        let Some(answering) = Answering::new(&transaction, &self.key.1) else {
            return refuse(transaction, &Refusal::new(400));
        };
        message::drive(transaction, answering.cseq, self.tell.clone(), self.shared.stop.clone(), None);
        self.offering.their_invite = true;
        self.put_to_house(Asked::Invite(Box::new(answering)), headers, body);
    }

    fn updated(&mut self, transaction: Transaction, headers: &Headers, body: Vec<u8>) {
        let early = matches!(self.stage, Stage::Ringing(_));
        // RFC 3311 section 5.2: before our answer the first INVITE's offer is still on the table.
        let verdict = match (early, body.is_empty()) {
            (true, false) => Verdict::TooSoon { most_s: 10 },
            (true, true) | (false, _) => self.offering.updated(!body.is_empty()),
        };
        if let Some(refusal) = self.crossing(verdict) {
            return refuse(transaction, &refusal);
        }
        if body.is_empty() {
            self.refreshed(headers);
            let session = if early { None } else { session_timer::answer(self.limits, headers).unwrap_or_default() };
            let mut said = self.about_us();
            self.restart(session.as_ref(), &mut said);
            return answer(transaction, 200, &said, None);
        }
        self.put_to_house(Asked::Update(Box::new(transaction)), headers, body);
    }

    fn crossing(&self, verdict: Verdict) -> Option<Refusal> {
        match verdict {
            Verdict::Take => None,
            Verdict::Pending => Some(Refusal::new(491)),
            Verdict::TooSoon { most_s } => {
                let wait_s = retry_after_s(most_s, self.shared.entropy.as_ref());
                Some(Refusal::new(500).with("Retry-After", wait_s.to_string()))
            }
        }
    }

    /// Target refresh and abilities; only what we take may move the target (RFC 3261 section 12.2.2).
    fn refreshed(&mut self, headers: &Headers) {
        self.learn(headers);
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh_target(headers);
        }
    }

    fn restart(&mut self, session: Option<&session_timer::Answered>, said: &mut Headers) {
        if let Some(session) = session {
            say_session(session, said);
            self.timer = Some(SessionTimer::agreed(self.now(), session.expires, false));
        }
    }

    fn put_to_house(&mut self, to: Asked, headers: &Headers, body: Vec<u8>) {
        self.refreshed(headers);
        self.offering.their_offer = !body.is_empty();
        let (reply_sender, reply) = oneshot::channel();
        let session = session_timer::answer(self.limits, headers).unwrap_or_default();
        self.pending = Some(Pending { to, reply, session, offerless: body.is_empty() });
        self.tell_house(CallEvent::Reoffer { offer: (!body.is_empty()).then_some(body), reply: reply_sender });
    }

    /// The house has decided about their offer.
    pub(super) fn answer_offer(&mut self, reply: Result<String, Refusal>) {
        let Some(Pending { to, session, offerless, .. }) = self.pending.take() else { return };
        let description = match reply {
            Ok(description) => description,
            // The session stays as it was (RFC 3261 section 14.2).
            Err(refusal) => return self.say_no(to, &refusal),
        };
        let mut said = self.about_us();
        self.restart(session.as_ref(), &mut said);
        said.push("Content-Type", ACCEPTED_BODY);
        self.description = Some(description.clone());
        let body = Some(description.into_bytes());
        self.offering.their_offer = false;
        match to {
            Asked::Invite(answering) => {
                self.offering.their_invite = false;
                self.offering.our_offer = offerless;
                self.unconfirmed = Some(Unconfirmed { cseq: answering.cseq, offered: offerless, first: false });
                answering.send(200, &said, body);
            }
            Asked::Update(transaction) => answer(*transaction, 200, &said, body),
        }
    }

    /// Refuses what was asked; the offers on the table go with it.
    pub(super) fn say_no(&mut self, to: Asked, refusal: &Refusal) {
        self.offering.their_offer = false;
        match to {
            Asked::Invite(answering) => {
                self.offering.their_invite = false;
                answering.refuse(refusal);
            }
            Asked::Update(transaction) => refuse(*transaction, refusal),
        }
    }

    /// RFC 3262 section 3: one that matches nothing is 481.
    fn pracked(&mut self, transaction: Transaction, headers: &Headers, body: &[u8]) {
        let Some(rack) = RAck::of(headers) else {
            return refuse(transaction, &Refusal::new(400).warning(399, "a PRACK needs an RAck"));
        };
        let waiting = match &self.stage {
            Stage::Ringing(ringing) => ringing.reliable.as_ref().map(|(u, _)| *u),
            Stage::Calling(_) | Stage::Up | Stage::Ended => self.overtaken,
        };
        if !waiting.is_some_and(|u| u.matches(&rack)) {
            return refuse(transaction, &Refusal::new(481));
        }
        if let Stage::Ringing(ringing) = &mut self.stage {
            ringing.reliable = None;
        }
        self.overtaken = None;
        // Our 180 holds no description, so there is nothing that an offer in the PRACK could follow.
        if body.is_empty() {
            answer(transaction, 200, &Headers::new(), None);
        } else {
            refuse(transaction, &Refusal::new(488).warning(399, "there is no room for an offer in this PRACK"));
        }
    }

    fn informed(&mut self, transaction: Transaction, headers: &Headers, body: &[u8]) {
        match info::keys(headers, body) {
            Ok(keys) => {
                self.tell_house(CallEvent::Keys(keys));
                answer(transaction, 200, &Headers::new(), None);
            }
            Err(NoKeys::Empty) => answer(transaction, 200, &Headers::new(), None),
            Err(NoKeys::MediaType) => refuse(transaction, &Refusal::new(415).with("Accept", ACCEPTED_INFO)),
            Err(NoKeys::Malformed) => refuse(transaction, &Refusal::new(400).warning(399, "no key can be read in this INFO")),
        }
    }

    fn notified(&mut self, transaction: Transaction, headers: &Headers, body: &[u8]) {
        if self.referral.is_none() {
            return refuse(transaction, &Refusal::new(481).warning(399, "nothing was subscribed to"));
        }
        let Some(notified) = refer::notified(headers, body) else {
            return refuse(transaction, &Refusal::new(489).with("Allow-Events", "refer"));
        };
        answer(transaction, 200, &Headers::new(), None);
        let referral = Referral::from_notify(notified);
        if referral.is_final() {
            self.referral = None;
        }
        self.tell_house(CallEvent::Refer(referral));
    }
}

fn refuse(transaction: Transaction, refusal: &Refusal) {
    answer(transaction, refusal.status, &refusal.headers, None);
}
