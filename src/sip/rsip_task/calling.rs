//! Our INVITE until its answer: early dialogs, PRACK, challenges, too short sessions, forks, CANCEL.

use std::sync::Arc;
use std::time::Duration;

use rsipstack::sip::Method;
use tokio::sync::mpsc;

use super::message::{self, Flow, Heard, Opener, Outbound};
use super::{CallTask, Errand, HAPPENINGS_QUEUE, Stage, Start, What};
use crate::sip::dialog::{Dialog, tag_of};
use crate::sip::headers::Headers;
use crate::sip::identity::{address_of, split_addresses};
use crate::sip::reliable::{InOrder, Order, RAck, rseq_of};
use crate::sip::rsip::Shared;
use crate::sip::rsip_call::RsipCall;
use crate::sip::session_timer::{after_too_small, asked};
use crate::sip::signalling::{ACCEPTED_BODY, CallEvent, Outgoing, Over, StackError};
use crate::sip::wire::host_name;

/// Branches of a forked INVITE that are remembered; of further ones only the answer counts.
const EARLY_LIMIT_DIALOGS: usize = 8;
/// Max-Forwards of our INVITEs.
const MAX_FORWARDS: &str = "70";
/// INVITEs that one call may come to (challenges, 422).
const INVITE_TRIES: u32 = 5;
/// Of the host that a redirection names, for its report.
const HOST_LIMIT_CHARS: usize = 100;

/// What belongs to an INVITE that is not answered.
pub(super) struct Calling {
    outgoing: Outgoing,
    local_tag: String,
    cseq: u32,
    /// Its Via, which a CANCEL repeats.
    via: String,
    /// A challenge was answered.
    authorised: bool,
    early: Vec<Early>,
    provisional: bool,
    cancel_sent: bool,
    /// When a cancelled call is given up though nothing final came (RFC 3261 section 9.1).
    pub(super) give_up_at: Option<Duration>,
}

/// One branch that rings.
struct Early {
    dialog: Dialog,
    order: InOrder,
    /// Its answer, if a provisional response held it.
    description: Option<Vec<u8>>,
}

impl Calling {
    /// From, To, Call-ID, CSeq: the same for INVITE and its CANCEL (section 9.1).
    fn identity(&self, method: &str) -> Headers {
        Headers::new()
            .with("From", format!("<{}>;tag={}", self.outgoing.from, self.local_tag))
            .with("To", format!("<{}>", self.outgoing.target))
            .with("Call-ID", self.outgoing.call_id.clone())
            .with("CSeq", format!("{} {method}", self.cseq))
            .with("Max-Forwards", MAX_FORWARDS)
    }

    fn outbound(&self, method: Method, headers: Headers, body: Vec<u8>, via: Option<String>) -> Outbound {
        Outbound {
            method,
            uri: self.outgoing.target.clone(),
            next_hop: self.outgoing.target.clone(),
            destination: Some(self.outgoing.destination),
            headers,
            body,
            via,
        }
    }

    /// The branch with this tag; a new one while there is room.
    fn branch(&mut self, headers: &Headers) -> Option<&mut Early> {
        let tag = headers.get("To").and_then(tag_of)?.to_owned();
        if let Some(i) = self.early.iter().position(|e| e.dialog.remote_tag() == tag) {
            return self.early.get_mut(i);
        }
        if self.early.len() >= EARLY_LIMIT_DIALOGS {
            return None;
        }
        let dialog = Dialog::calling(headers, &self.outgoing.target).ok()?;
        self.early.push(Early { dialog, order: InOrder::default(), description: None });
        self.early.last_mut()
    }
}

/// Places a call.
pub(in crate::sip) fn place(shared: Arc<Shared>, outgoing: Outgoing) -> Result<RsipCall, StackError> {
    let (tell, happenings) = mpsc::channel(HAPPENINGS_QUEUE);
    let local_tag = shared.tag();
    let key = (outgoing.call_id.clone(), local_tag.clone());
    let contact = shared.contact(outgoing.contact, outgoing.transport);
    let name = host_name(&outgoing.target).map(str::to_owned);
    let flow = Flow { connection: None, peer: outgoing.destination, transport: outgoing.transport, name };
    let calling = Calling {
        outgoing: outgoing.clone(),
        local_tag,
        cseq: 0,
        via: String::new(),
        authorised: false,
        early: Vec::new(),
        provisional: false,
        cancel_sent: false,
        give_up_at: None,
    };
    let start = Start {
        shared,
        tell,
        happenings,
        key,
        contact,
        flow,
        dialog: None,
        stage: Stage::Calling(Box::new(calling)),
        credentials: outgoing.credentials,
    };
    let (mut task, hold) = CallTask::new(start)?;
    task.description = Some(outgoing.offer);
    if let Err(error) = task.call(None) {
        task.shared.dialogs.remove(&task.key);
        return Err(error);
    }
    tokio::spawn(task.run());
    Ok(RsipCall::new(hold))
}

/// The host of a Contact: the user part may be somebody's number.
fn contact_host(value: &str) -> Option<String> {
    let uri = split_addresses(value).into_iter().next().and_then(address_of)?;
    let (_, rest) = uri.split_once(':')?;
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    host.split([';', '?']).next().map(|h| h.chars().take(HOST_LIMIT_CHARS).collect())
}

impl CallTask {
    /// Sends the INVITE, or sends it again with the next number and the answer to a challenge.
    fn call(&mut self, authorisation: Option<(&'static str, String)>) -> Result<(), StackError> {
        let mut about = self.about_us();
        asked(self.limits, None).iter().for_each(|(n, v)| about.push(n, v));
        self.offering.our_invite = true;
        self.offering.our_offer = true;
        let Stage::Calling(calling) = &mut self.stage else { return Err(StackError("the call is under way".to_owned())) };
        calling.cseq += 1;
        calling.authorised = authorisation.is_some();
        authorisation.into_iter().for_each(|(name, value)| about.push(name, value));
        calling.provisional = false;
        calling.early.clear();
        let mut headers = calling.identity("INVITE");
        about.iter().chain(calling.outgoing.headers.iter()).for_each(|(n, v)| headers.push(n, v));
        headers.push("Content-Type", ACCEPTED_BODY);
        let body = calling.outgoing.offer.clone().into_bytes();
        let outbound = calling.outbound(Method::Invite, headers, body, None);
        let (transaction, via) = outbound.transaction(&self.shared.endpoint, &self.flow)?;
        calling.via = via;
        let opener = Opener::new(&self.shared.wire, &self.flow);
        message::drive_invite(transaction, opener, calling.cseq, self.tell.clone(), self.shared.stop.clone());
        Ok(())
    }

    /// A response to our first INVITE.
    pub(super) fn heard(&mut self, cseq: u32, heard: Heard) {
        let Stage::Calling(calling) = &mut self.stage else { return };
        if calling.cseq != cseq {
            return; // of an INVITE that was challenged
        }
        match heard.status {
            ..200 => {
                calling.provisional = true;
                if heard.status > 100 {
                    self.progressed(heard);
                }
                if self.leaving {
                    self.cancel();
                }
            }
            200..300 => self.answered(heard),
            _ if self.leaving => self.close(Over::Ours),
            _ => self.refused(heard),
        }
    }

    fn progressed(&mut self, heard: Heard) {
        let Stage::Calling(calling) = &mut self.stage else { return };
        let description = (!heard.body.is_empty()).then_some(heard.body);
        let mut prack = None;
        if let Some(branch) = calling.branch(&heard.headers) {
            if let Some(rseq) = rseq_of(&heard.headers) {
                match branch.order.take(rseq) {
                    Order::Next => prack = Some((branch.dialog.request("PRACK"), rseq)),
                    Order::Again | Order::TooEarly => return,
                }
            }
            if description.is_some() {
                branch.description.clone_from(&description);
            }
        }
        if let Some((request, rseq)) = prack {
            let mut headers = request.headers;
            headers.push("RAck", RAck { rseq, cseq: calling.cseq, method: "INVITE".to_owned() }.value());
            let outbound = Outbound {
                method: Method::PRack,
                uri: request.uri,
                next_hop: request.next_hop,
                destination: None,
                headers,
                body: Vec::new(),
                via: None,
            };
            self.send(outbound, Errand::bare(What::Prack, Method::PRack));
        }
        self.tell_house(CallEvent::Progress { status: heard.status, description });
    }

    /// The first 2xx has the call; the stack has acknowledged it.
    fn answered(&mut self, heard: Heard) {
        let Stage::Calling(calling) = &mut self.stage else { return };
        let mut dialog = match Dialog::calling(&heard.headers, &calling.outgoing.target) {
            Ok(dialog) => dialog,
            Err(error) => return self.close(Over::Failed(format!("the answer makes no dialog: {error}"))),
        };
        let early = calling.early.iter().find(|e| e.dialog.remote_tag() == dialog.remote_tag());
        let told_early = early.and_then(|e| e.description.clone());
        dialog.at_least(early.map_or(0, |e| e.dialog.local_cseq()));
        self.dialog = Some(dialog);
        self.offering.our_invite = false;
        self.offering.our_offer = false;
        self.learn(&heard.headers);
        self.started();
        if self.leaving {
            // It crossed our CANCEL.
            return self.bye();
        }
        self.confirmed(&heard.headers);
        let body = if heard.body.is_empty() { told_early.unwrap_or_default() } else { heard.body };
        self.tell_house(CallEvent::Answered(body));
    }

    fn refused(&mut self, heard: Heard) {
        let Stage::Calling(calling) = &self.stage else { return };
        let (uri, again, tries) = (calling.outgoing.target.clone(), calling.authorised, calling.cseq);
        if tries < INVITE_TRIES {
            let authorisation = self.authorisation(&heard, "INVITE", &uri, again);
            let longer = after_too_small(self.limits, &heard.headers).filter(|_| heard.status == 422);
            let next = authorisation.is_some() || longer.is_some();
            self.limits = longer.unwrap_or(self.limits);
            if next && self.call(authorisation).is_ok() {
                return;
            }
        }
        // Where a call goes is ours to say, not the other side's: it may not even be a place that we may call in the clear.
        let elsewhere = heard.headers.get("Contact").filter(|_| (300..400).contains(&heard.status)).and_then(contact_host);
        let reason = match elsewhere {
            Some(host) => format!("{} (to {host}; redirections are not followed)", heard.reason),
            None => heard.reason,
        };
        self.close(Over::Refused { status: heard.status, reason });
    }

    /// CANCEL, once something provisional has come (RFC 3261 section 9.1); otherwise when it does.
    pub(super) fn cancel(&mut self) {
        let give_up_at = self.now() + self.shared.t1x64();
        let Stage::Calling(calling) = &mut self.stage else { return };
        calling.give_up_at.get_or_insert(give_up_at);
        if !calling.provisional || std::mem::replace(&mut calling.cancel_sent, true) {
            return;
        }
        let outbound = calling.outbound(Method::Cancel, calling.identity("CANCEL"), Vec::new(), Some(calling.via.clone()));
        self.send(outbound, Errand::bare(What::Cancel, Method::Cancel));
    }

    /// A response to our first INVITE when the call has been answered or is over. Another branch's 2xx ends with a BYE
    /// (section 13.2.2.4), a repeated one is nothing new.
    pub(super) fn late(&mut self, heard: Heard) {
        if !self.we_called || !(200..300).contains(&heard.status) {
            return;
        }
        let Ok(mut branch) = Dialog::calling(&heard.headers, "") else { return };
        if self.dialog.as_ref().is_some_and(|d| d.remote_tag() == branch.remote_tag()) {
            return;
        }
        let request = branch.request("BYE");
        let outbound = Outbound {
            method: Method::Bye,
            uri: request.uri,
            next_hop: request.next_hop,
            destination: None,
            headers: request.headers,
            body: Vec::new(),
            via: None,
        };
        self.send(outbound, Errand::bare(What::ForkBye, Method::Bye));
    }

    /// The dialog with the side whose tag this is.
    pub(super) fn dialog_with(&mut self, tag: &str) -> Option<&mut Dialog> {
        if let Some(dialog) = &mut self.dialog {
            return (dialog.remote_tag() == tag).then_some(dialog);
        }
        let Stage::Calling(calling) = &mut self.stage else { return None };
        calling.early.iter_mut().map(|e| &mut e.dialog).find(|d| d.remote_tag() == tag)
    }
}
