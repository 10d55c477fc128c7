//! Requests of ours within the dialog: offers, refreshes, transfers, BYE; and what they come back with.

use std::time::Duration;

use rsipstack::sip::Method;

use super::message::{self, Heard, Opener, Outbound};
use super::{CHALLENGE_LIMIT, CallTask, Errand, OurInvite, REFER_WAIT_MS, Reoffer, Stage, TOO_SMALL_LIMIT, What};
use crate::sip::dialog::Dialog;
use crate::sip::headers::Headers;
use crate::sip::offering::{GLARE_TRIES, glare_wait};
use crate::sip::refer::{self, ReferTo, Referral};
use crate::sip::session_timer::{self, Limits, Refresher, after_too_small, asked};
use crate::sip::signalling::{ACCEPTED_BODY, CallEvent, Over, Refusal, SUPPORTED_EXTENSIONS};

impl CallTask {
    /// Ends the session; the task lives until the BYE is answered.
    pub(super) fn bye(&mut self) {
        self.run_errand(Errand::bare(What::Bye, Method::Bye));
        self.stage = Stage::Ended;
    }

    /// Sends a request other than INVITE within the dialog.
    pub(super) fn run_errand(&mut self, errand: Errand) {
        let Some(dialog) = self.dialog.as_mut() else { return };
        let request = dialog.request(&errand.method.to_string());
        let mut headers = request.headers;
        errand.extra.iter().for_each(|(n, v)| headers.push(n, v));
        if matches!(errand.what, What::Refresh | What::Refer) {
            headers.push("Contact", self.contact.clone());
        }
        self.byes += usize::from(errand.what == What::Bye);
        let outbound = Outbound {
            method: errand.method,
            uri: request.uri,
            next_hop: request.next_hop,
            destination: None,
            headers,
            body: errand.body.clone(),
            via: None,
        };
        self.send(outbound, errand);
    }

    /// Puts a request on its way.
    pub(super) fn send(&self, outbound: Outbound, errand: Errand) {
        let transaction = outbound.transaction(&self.shared.endpoint, &self.flow).map(|(t, _)| t);
        if let Err(error) = &transaction {
            tracing::debug!(%error, "a request could not be made");
        }
        let opener = Opener::new(&self.shared.wire, &self.flow);
        message::drive_errand(transaction, opener, errand, self.tell.clone(), self.shared.stop.clone());
    }

    /// The final response to one of these.
    pub(super) fn returned(&mut self, errand: Errand, heard: Heard) {
        self.byes = self.byes.saturating_sub(usize::from(errand.what == What::Bye));
        let uri = self.dialog.as_ref().map(|d| d.request_uri().to_owned()).unwrap_or_default();
        let mut extra = Headers::new();
        errand.extra.iter().filter(|(n, _)| !n.ends_with("Authorization")).for_each(|(n, v)| extra.push(n, v));
        if errand.what != What::Cancel
            && errand.what != What::ForkBye
            && errand.authorised < CHALLENGE_LIMIT
            && let Some((name, value)) = self.authorisation(&heard, &errand.method.to_string(), &uri, errand.authorised > 0)
        {
            extra.push(name, value);
            return self.run_errand(Errand { extra, authorised: errand.authorised + 1, ..errand });
        }
        match errand.what {
            What::Bye => self.close(Over::Ours),
            What::ForkBye | What::Cancel | What::Prack => {}
            What::Refresh => self.refresh_returned(&heard),
            What::Refer => self.referred(&heard),
        }
    }

    /// Half of the session's time is over (RFC 4028 section 10): UPDATE where it is known, else a re-INVITE that changes nothing.
    pub(super) fn refresh(&mut self) {
        if self.peer_updates {
            let extra = self.session_headers().with("Supported", SUPPORTED_EXTENSIONS);
            return self.run_errand(Errand { extra, ..Errand::bare(What::Refresh, Method::Update) });
        }
        if !self.may_offer() {
            // An INVITE of either side is under way, and refreshes as well.
            return self.retry_refresh();
        }
        self.invite(None, None);
    }

    fn refresh_returned(&mut self, heard: &Heard) {
        match heard.status {
            200..300 => {
                self.learn(&heard.headers);
                if let Some(dialog) = &mut self.dialog {
                    dialog.refresh_target(&heard.headers);
                }
                self.confirmed(&heard.headers);
            }
            405 | 501 => {
                self.peer_updates = false;
                self.refresh();
            }
            status => self.not_refreshed(status, &heard.headers),
        }
    }

    fn not_refreshed(&mut self, status: u16, headers: &Headers) {
        match status {
            lost if session_timer::is_lost(lost) => {
                self.bye();
                self.close(Over::Expired);
            }
            422 if self.lengthened(headers) => self.refresh(),
            _ => self.retry_refresh(),
        }
    }

    /// A 422 that we can follow: its interval is ours from now on.
    fn lengthened(&mut self, headers: &Headers) -> bool {
        let limits = after_too_small(self.limits, headers).filter(|_| self.too_small < TOO_SMALL_LIMIT);
        self.too_small = self.too_small.saturating_add(1);
        self.limits = limits.unwrap_or(self.limits);
        limits.is_some()
    }

    fn retry_refresh(&mut self) {
        let now = self.now();
        if let Some(timer) = &mut self.timer {
            timer.retry(now);
        }
    }

    /// Session-Expires and Min-SE of a request of ours: the interval and who refreshes stay as they are (RFC 4028 section 7.4).
    fn session_headers(&self) -> Headers {
        let Some(timer) = self.timer else { return asked(self.limits, None) };
        let limits = Limits { expires_s: timer.interval_s(), ..self.limits };
        asked(limits, Some(if timer.is_ours() { Refresher::Uac } else { Refresher::Uas }))
    }

    /// The time has come for our offer.
    pub(super) fn offer(&mut self) {
        if let Some(reoffer) = self.reoffer.take() {
            self.invite(Some(reoffer), None);
        }
    }

    /// A re-INVITE: with an offer, or with what holds already, to refresh the session.
    fn invite(&mut self, reoffer: Option<Reoffer>, authorisation: Option<&Heard>) {
        let mut about = self.about_us();
        self.session_headers().iter().for_each(|(n, v)| about.push(n, v));
        let description = reoffer.as_ref().map(|r| r.description.clone()).or_else(|| self.description.clone());
        let (Some(dialog), Some(description)) = (self.dialog.as_mut(), description) else { return };
        let request = dialog.request("INVITE");
        let mut headers = request.headers;
        about.iter().for_each(|(n, v)| headers.push(n, v));
        headers.push("Content-Type", ACCEPTED_BODY);
        let answer = authorisation.and_then(|heard| self.authorisation(heard, "INVITE", &request.uri, false));
        answer.into_iter().for_each(|(name, value)| headers.push(name, value));
        let outbound = Outbound {
            method: Method::Invite,
            uri: request.uri,
            next_hop: request.next_hop,
            destination: None,
            headers,
            body: description.into_bytes(),
            via: None,
        };
        match outbound.transaction(&self.shared.endpoint, &self.flow) {
            Ok((transaction, _)) => {
                self.offering.our_invite = true;
                self.offering.our_offer = true;
                self.our_invite = Some(OurInvite { cseq: request.cseq, reoffer, authorised: authorisation.is_some() });
                let opener = Opener::new(&self.shared.wire, &self.flow);
                message::drive_invite(transaction, opener, request.cseq, self.tell.clone(), self.shared.stop.clone());
            }
            Err(error) => {
                tracing::debug!(%error, "a re-INVITE could not be made");
                self.tell_house(CallEvent::Reoffered(Err(Refusal::new(503))));
            }
        }
    }

    /// A response to a re-INVITE of ours; the stack sends every ACK.
    pub(super) fn reoffered(&mut self, heard: Heard) {
        if heard.status < 200 {
            return;
        }
        let Some(OurInvite { cseq: _, reoffer, authorised }) = self.our_invite.take() else { return };
        self.offering.our_invite = false;
        self.offering.our_offer = false;
        if let 200..300 = heard.status {
            self.learn(&heard.headers);
            if let Some(dialog) = &mut self.dialog {
                dialog.refresh_target(&heard.headers);
            }
            self.confirmed(&heard.headers);
            let event = match reoffer {
                Some(reoffer) => {
                    self.description = Some(reoffer.description);
                    CallEvent::Reoffered(Ok(heard.body))
                }
                None => CallEvent::Settled(heard.body),
            };
            return self.tell_house(event);
        }
        if self.leaving || !matches!(self.stage, Stage::Up) {
            return;
        }
        match (heard.status, reoffer) {
            (401 | 407, reoffer) if !authorised && self.credentials.is_some() => self.invite(reoffer, Some(&heard)),
            // Glare (RFC 3261 section 14.1): both wait, the caller longer.
            (491, Some(Reoffer { description, tries, .. })) if tries + 1 < GLARE_TRIES => {
                let at = self.now() + glare_wait(self.we_called, self.shared.entropy.as_ref());
                // One that the house has asked for since takes its place.
                self.reoffer.get_or_insert(Reoffer { description, tries: tries + 1, at });
            }
            // Section 12.2.1.2: the other side knows the dialog no more.
            (lost, _) if session_timer::is_lost(lost) => {
                self.bye();
                self.close(Over::Expired);
            }
            (422, Some(reoffer)) if self.lengthened(&heard.headers) => self.invite(Some(reoffer), None),
            (status, None) => self.not_refreshed(status, &heard.headers),
            (_, Some(_)) => self.tell_house(CallEvent::Reoffered(Err(heard.into_refusal()))),
        }
    }

    /// REFER (RFC 3515): the other side shall call somebody else and tell us how that goes.
    pub(super) fn refer(&mut self, to: &ReferTo) {
        let value = match (to.value(), &self.stage) {
            (Ok(value), Stage::Up) if !self.leaving && self.referral.is_none() => value,
            (_, _) => return self.tell_house(CallEvent::Refer(Referral::Refused(400))),
        };
        let ours = self.dialog.as_ref().map(Dialog::local_uri).unwrap_or_default();
        let extra = Headers::new()
            .with("Refer-To", value)
            .with("Referred-By", format!("<{ours}>"))
            .with("Supported", "norefersub")
            .with("Accept", "message/sipfrag");
        self.referral = Some(self.now() + Duration::from_millis(REFER_WAIT_MS));
        self.run_errand(Errand { extra, ..Errand::bare(What::Refer, Method::Refer) });
    }

    fn referred(&mut self, heard: &Heard) {
        let referral = match heard.status {
            200..300 if refer::without_reports(&heard.headers) => Referral::Unreported,
            // The NOTIFYs tell the rest; the first may even be here already.
            200..300 => return,
            status => Referral::Refused(status),
        };
        // News that came first have said it all.
        if self.referral.take().is_some() {
            self.tell_house(CallEvent::Refer(referral));
        }
    }
}
