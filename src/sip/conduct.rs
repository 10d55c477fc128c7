//! A call between its answer and its end: what signalling and media must tell each other, whoever called whom.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::dial::DialError;
use super::place::unanswered;
use super::refer::{ReferTo, Referral, Replaces};
use super::sdp::{self, AudioPolicy, Direction, LocalAudio, Offered, RemoteAudio};
use super::signalling::{Call, CallEvent, Over, Refusal};
use crate::clock::SystemEntropy;
use crate::media::leg::{CallName, LegEnd, LegEvent, TransferNews, Wish};
use crate::media::rtp_session::{Flowing, NegotiatedMedia, RtpSession, SessionControl};

/// What offer and answer said.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// Our end.
    pub local: LocalAudio,
    /// Theirs.
    pub remote: RemoteAudio,
    /// What we would agree to.
    pub policy: AudioPolicy,
}

impl Agreement {
    /// For the media session.
    pub fn media(&self) -> NegotiatedMedia {
        self.remote.media.clone()
    }

    /// Nobody on the way can listen: encrypted audio, and keys that went encrypted too.
    pub fn is_secure(&self) -> bool {
        self.policy.secure_signalling && self.remote.media.srtp.is_some()
    }

    /// Where their RTP is received.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.remote.address, self.remote.port)
    }
}

/// Carries all that happens both ways until the call is over at both ends: hang-ups, offers, hold, keys, transfers.
pub async fn conduct(call: &mut Box<dyn Call>, session: RtpSession, agreement: Agreement) {
    conduct_placed(call, session, agreement, None, &Known::default()).await;
}

/// What of a call that we placed is known only on its way.
#[derive(Debug, Default)]
pub struct Known {
    /// Its name.
    pub name: OnceLock<CallName>,
    /// Why nobody answered, where its early media were handed over.
    pub unanswered: OnceLock<DialError>,
}

/// The same for a call that we placed. `answer_by`: what is heard so far is early media, and the call is cancelled unless it is
/// answered by then, so long after it began to ring.
pub async fn conduct_placed(
    call: &mut Box<dyn Call>,
    session: RtpSession,
    agreement: Agreement,
    mut answer_by: Option<(Instant, Duration)>,
    known: &Known,
) {
    let control = session.control();
    let (mut wishes, finished) = session.into_parts();
    let mut finished = pin!(finished);
    let mut line = Line { agreement, held_by_us: false, wanted: None, offered: None };
    // A caller may be on hold from the start.
    control.flow(line.flowing());
    loop {
        if let Some(r) = call.named().filter(|_| known.name.get().is_none()) {
            let _once = known.name.set(CallName { call_id: r.call_id, their_tag: r.to_tag, our_tag: r.from_tag });
        }
        tokio::select! {
            waited = until(answer_by) => {
                let _once = known.unanswered.set(DialError::NoAnswer(waited));
                control.end(LegEnd::Abandoned);
                return call.hang_up().await;
            }
            report = &mut finished => {
                tracing::debug!(why = ?report.why, stats = ?report.stats, "the media session ended");
                if report.why.needs_bye() {
                    call.hang_up().await;
                }
                return;
            }
            Some(wish) = wishes.recv() => match wish {
                Wish::Hold => call.reoffer(line.want(true)),
                Wish::Resume => call.reoffer(line.want(false)),
                Wish::Transfer { to, instead_of } => call.refer(ReferTo { target: to, replaces: instead_of.map(|name| replaces(*name)) }),
            },
            event = call.next() => match event {
                CallEvent::Reoffer { offer, reply } => {
                    let answer = line.answer(offer.as_deref());
                    line.apply(&control);
                    let _gone = reply.send(answer);
                }
                CallEvent::Settled(answer) => {
                    line.settle(&answer);
                    line.apply(&control);
                }
                CallEvent::Reoffered(outcome) => {
                    line.reoffered(outcome);
                    line.apply(&control);
                }
                CallEvent::Keys(keys) => {
                    for key in keys {
                        let _heard = control.tell(LegEvent::Key(key));
                    }
                }
                CallEvent::Refer(referral) => {
                    let _heard = control.tell(LegEvent::Transfer(news(referral)));
                    if referral == Referral::Done {
                        // RFC 5589 section 6.1: who asked for the transfer ends its own call.
                        call.hang_up().await;
                        control.end(LegEnd::Caller);
                        let report = finished.await;
                        tracing::debug!(stats = ?report.stats, "the call was transferred");
                        return;
                    }
                }
                CallEvent::Progress { description: Some(description), .. } => {
                    line.settle(&description);
                    line.apply(&control);
                }
                CallEvent::Answered(answer) => {
                    answer_by = None;
                    if !answer.is_empty() {
                        line.settle(&answer);
                        line.apply(&control);
                    }
                    let _heard = control.tell(LegEvent::Answered);
                }
                CallEvent::Acknowledged(_) | CallEvent::Progress { description: None, .. } => {}
                CallEvent::Over(over) => {
                    if answer_by.is_some() {
                        let _once = known.unanswered.set(unanswered(over.clone()));
                    }
                    control.end(leg_end(&over));
                    let report = finished.await;
                    tracing::debug!(why = ?over, stats = ?report.stats, "the call ended");
                    return;
                }
            }
        }
    }
}

async fn until(deadline: Option<(Instant, Duration)>) -> Duration {
    match deadline {
        Some((deadline, waited)) => {
            tokio::time::sleep_until(deadline).await;
            waited
        }
        None => std::future::pending().await,
    }
}

/// What offers and answers have made of a call so far.
struct Line {
    agreement: Agreement,
    held_by_us: bool,
    /// The hold that our offer on its way asks for.
    wanted: Option<bool>,
    /// Our last offer within the call.
    offered: Option<Offered>,
}

impl Line {
    /// Our next offer: the same session, held or not.
    fn want(&mut self, hold: bool) -> String {
        self.wanted = Some(hold);
        self.offer(hold)
    }

    fn offer(&mut self, hold: bool) -> String {
        self.agreement.local.version = self.agreement.local.version.saturating_add(1);
        let offered = self.make_offer(if hold { Direction::Inactive } else { Direction::SendRecv });
        self.offered.insert(offered).text().to_owned()
    }

    fn make_offer(&self, direction: Direction) -> Offered {
        let Agreement { local, remote, policy } = &self.agreement;
        sdp::offer(local, direction, policy, Some(&remote.media), &SystemEntropy)
    }

    /// Answers a re-INVITE or UPDATE: hold, resume, another address or codec, a session refresh. What can't be agreed leaves the
    /// session as it was (RFC 3261 section 14.2).
    fn answer(&mut self, offer: Option<&[u8]>) -> Result<String, Refusal> {
        let Some(offer) = offer else {
            // "Make me an offer": the same again. The answer in the ACK can only take it.
            return Ok(self.offer(self.held_by_us));
        };
        let mut local = self.agreement.local;
        local.version = local.version.saturating_add(1);
        let Agreement { remote, policy, .. } = &self.agreement;
        let answered = sdp::parse(offer).and_then(|o| sdp::answer(&o, &local, policy, Some(&remote.media), &SystemEntropy));
        let (text, remote) = answered.map_err(|e| refusal(&e))?;
        (self.agreement.local, self.agreement.remote) = (local, remote);
        // Their refresh does not take them from our hold.
        Ok(if self.held_by_us { text.replace("a=sendrecv", "a=inactive").replace("a=sendonly", "a=inactive") } else { text })
    }

    /// Their answer to an offer of ours. One that can't be used changes nothing.
    fn settle(&mut self, answer: &[u8]) {
        // A refresh repeats what we said last, which may have been an answer.
        let ours = self.offered.take().unwrap_or_else(|| self.make_offer(Direction::SendRecv));
        match sdp::parse(answer).and_then(|a| ours.agreed(&a)) {
            Ok(remote) => self.agreement.remote = remote,
            Err(error) => tracing::debug!(%error, "an answer within the call could not be used"),
        }
    }

    fn reoffered(&mut self, outcome: Result<Vec<u8>, Refusal>) {
        let wanted = self.wanted.take();
        match outcome {
            Ok(answer) => {
                self.settle(&answer);
                self.held_by_us = wanted.unwrap_or(self.held_by_us);
            }
            Err(refusal) => tracing::info!(status = refusal.status, "the other side refused to be held or resumed"),
        }
    }

    fn flowing(&self) -> Flowing {
        let remote = &self.agreement.remote;
        match (self.held_by_us, remote.direction.receives() && !remote.address.is_unspecified()) {
            (true, _) => Flowing::HeldByUs,
            (false, false) => Flowing::HeldByThem,
            (false, true) => Flowing::Both,
        }
    }

    fn apply(&self, control: &SessionControl) {
        control.renegotiate(self.agreement.destination(), self.agreement.media());
        control.flow(self.flowing());
    }
}

/// RFC 3891 names the dialog from the point of view of who takes it over from us.
fn replaces(name: CallName) -> Replaces {
    Replaces { call_id: name.call_id, to_tag: name.their_tag, from_tag: name.our_tag, early_only: false }
}

fn news(referral: Referral) -> TransferNews {
    match referral {
        Referral::Progress(_) => TransferNews::Ringing,
        // Unreported: the other side has taken it on, and hangs up when it has.
        Referral::Done | Referral::Unreported => TransferNews::Done,
        Referral::Failed(status) => TransferNews::Failed { status },
        Referral::Refused(status) => TransferNews::Refused { status },
        Referral::TimedOut => TransferNews::Failed { status: 408 },
    }
}

/// A refusal that says what is wrong with a description.
pub fn refusal(error: &sdp::SdpError) -> Refusal {
    Refusal::new(error.status()).warning(error.warn_code(), &error.to_string())
}

fn leg_end(over: &Over) -> LegEnd {
    match over {
        Over::Bye => LegEnd::Caller,
        Over::Cancelled | Over::NotAcknowledged => LegEnd::Abandoned,
        Over::Refused { .. } | Over::Ours | Over::Expired | Over::Failed(_) => LegEnd::Failed,
    }
}

/// The address that `peer` is told: the one that is known to lead to us, else the one that is bound, else the one that leads to it.
pub async fn own_address(known: Option<IpAddr>, bound: IpAddr, peer: SocketAddr) -> std::io::Result<IpAddr> {
    match known {
        Some(address) => Ok(address),
        None if bound.is_unspecified() => address_towards(peer).await,
        None => Ok(bound),
    }
}

/// The local address that leads to `peer`, by the system's routes. Nothing is sent.
pub async fn address_towards(peer: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(peer).await?;
    Ok(socket.local_addr()?.ip())
}
