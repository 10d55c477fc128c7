//! One task a call, on either side: it owns the dialog, what is on the table, the timers, and hears of every transaction.
//! What may be decided without a socket stands in `dialog`, `offering`, `reliable`, `session_timer` and `refer`.

mod called; // an INVITE of theirs, to its ACK
mod calling; // our INVITE: forks, challenges, CANCEL
mod message; // rsipstack's types, transactions
mod ours; // requests of ours within the dialog
mod within; // requests of theirs within the dialog

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rsipstack::sip::Method;
use rsipstack::transaction::transaction::Transaction;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub(super) use called::{Invited, refuse_invite};
pub(super) use calling::place;
use message::{Answering, Flow};
pub(super) use message::{Happening, Heard, REFUSED_LIMIT_TRANSACTIONS, answer, failed, headers_of};

use super::dialog::Dialog;
use super::digest::{Challenge, Credentials};
use super::headers::Headers;
use super::offering::Offering;
use super::refer::{ReferTo, Referral, Replaces};
use super::reliable::{self, Unacknowledged};
use super::rsip::Shared;
use super::session_timer::{self, Limits, SessionExpires, SessionTimer};
use super::signalling::{ALLOWED_METHODS, CallEvent, Over, Refusal, SUPPORTED_EXTENSIONS, StackError};

/// What a call's transactions may have to tell before it listens.
pub(super) const HAPPENINGS_QUEUE: usize = 32;
/// What a call may have to tell before the house listens; what is more is lost, but never its end.
const EVENTS_QUEUE: usize = 64;
/// What the house wants of a call at once.
const ORDERS_QUEUE: usize = 8;
/// A transfer that nobody has reported on for so long is over.
const REFER_WAIT_MS: u64 = 60_000;
/// Challenges that a request within the dialog answers: a nonce may be too old, but not for ever.
const CHALLENGE_LIMIT: u32 = 3;
/// Intervals that a call takes over from 422s; a peer that wants yet another one waits for the next refresh.
const TOO_SMALL_LIMIT: u32 = 3;
/// With nothing due a call looks up so often.
const IDLE_MS: u64 = 60_000;

/// What the house wants.
pub(super) enum Order {
    Accept(String, oneshot::Sender<Result<(), StackError>>),
    HangUp(oneshot::Sender<()>),
    Reoffer(String),
    Refer(Box<ReferTo>),
}

/// A request of ours other than INVITE, kept for the case that it must be sent again.
pub(super) struct Errand {
    what: What,
    method: Method,
    extra: Headers,
    body: Vec<u8>,
    /// Challenges that were answered.
    authorised: u32,
}

impl Errand {
    fn bare(what: What, method: Method) -> Self {
        Self { what, method, extra: Headers::new(), body: Vec::new(), authorised: 0 }
    }
}

/// What a request of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Bye,
    /// To a branch of our forked INVITE that lost.
    ForkBye,
    Cancel,
    Prack,
    Refresh,
    Refer,
}

/// How far the call is.
enum Stage {
    /// They called, we have not answered.
    Ringing(Box<Ringing>),
    /// We called, they have not answered.
    Calling(Box<calling::Calling>),
    /// There is a session.
    Up,
    /// There is none any more; a BYE of ours may be under way.
    Ended,
}

struct Ringing {
    answering: Answering,
    /// A 180 that waits for its PRACK, with its header fields.
    reliable: Option<(Unacknowledged, Headers)>,
    session: Option<session_timer::Answered>,
    offerless: bool,
}

/// Our 200 to an INVITE of theirs, until its ACK.
#[derive(Clone, Copy)]
struct Unconfirmed {
    cseq: u32,
    /// The 200 holds an offer; the ACK brings the answer.
    offered: bool,
    /// It is the call's first INVITE.
    first: bool,
}

/// Their offer, while the house makes up its mind.
struct Pending {
    to: Asked,
    reply: oneshot::Receiver<Result<String, Refusal>>,
    session: Option<session_timer::Answered>,
    offerless: bool,
}

enum Asked {
    Invite(Box<Answering>),
    Update(Box<Transaction>),
}

/// Our offer.
struct Reoffer {
    description: String,
    tries: u32,
    /// Not before.
    at: Duration,
}

/// An INVITE of ours within the dialog.
struct OurInvite {
    cseq: u32,
    /// What it offers; `None`: it only refreshes the session.
    reoffer: Option<Reoffer>,
    authorised: bool,
}

pub(super) struct CallTask {
    shared: Arc<Shared>,
    epoch: Instant,
    tell: mpsc::Sender<Happening>,
    happenings: mpsc::Receiver<Happening>,
    orders: mpsc::Receiver<Order>,
    abandoned: bool,
    events: mpsc::Sender<CallEvent>,
    /// Its end always fits.
    last_word: Option<mpsc::OwnedPermit<CallEvent>>,
    named: Arc<OnceLock<Replaces>>,
    key: DialogKey,
    we_called: bool,
    contact: String,
    flow: Flow,
    dialog: Option<Dialog>,
    stage: Stage,
    offering: Offering,
    limits: Limits,
    /// 422s since the last 2xx.
    too_small: u32,
    timer: Option<SessionTimer>,
    /// The other side takes UPDATE.
    peer_updates: bool,
    description: Option<String>,
    unconfirmed: Option<Unconfirmed>,
    /// The PRACK of a 180 that our 200 has overtaken may still come.
    overtaken: Option<Unacknowledged>,
    pending: Option<Pending>,
    reoffer: Option<Reoffer>,
    our_invite: Option<OurInvite>,
    /// Until when news of a transfer may come.
    referral: Option<Duration>,
    credentials: Option<Credentials>,
    leaving: bool,
    byes: usize,
    goodbyes: Vec<oneshot::Sender<()>>,
}

/// What names a dialog of ours: Call-ID and our own tag, which is random.
pub(super) type DialogKey = (String, String);

/// What the house holds of a call.
pub(super) struct Hold {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) events: mpsc::Receiver<CallEvent>,
    pub(super) named: Arc<OnceLock<Replaces>>,
}

/// What a call starts with.
struct Start {
    shared: Arc<Shared>,
    tell: mpsc::Sender<Happening>,
    happenings: mpsc::Receiver<Happening>,
    key: DialogKey,
    contact: String,
    flow: Flow,
    dialog: Option<Dialog>,
    stage: Stage,
    credentials: Option<Credentials>,
}

impl CallTask {
    fn new(start: Start) -> Result<(Self, Hold), StackError> {
        let Start { shared, tell, happenings, key, contact, flow, dialog, stage, credentials } = start;
        let (orders_sender, orders) = mpsc::channel(ORDERS_QUEUE);
        let (events, events_receiver) = mpsc::channel(EVENTS_QUEUE);
        let last_word = events.clone().try_reserve_owned().map_err(|_| StackError("no place for the end".to_owned()))?;
        let named = Arc::new(OnceLock::new());
        let limits = shared.session;
        shared.dialogs.insert(key.clone(), tell.clone());
        let task = Self {
            epoch: Instant::now(),
            we_called: dialog.is_none(),
            shared,
            tell,
            happenings,
            orders,
            abandoned: false,
            events,
            last_word: Some(last_word),
            named: named.clone(),
            key,
            contact,
            flow,
            dialog,
            stage,
            offering: Offering::default(),
            limits,
            too_small: 0,
            timer: None,
            peer_updates: false,
            description: None,
            unconfirmed: None,
            overtaken: None,
            pending: None,
            reoffer: None,
            our_invite: None,
            referral: None,
            credentials,
            leaving: false,
            byes: 0,
            goodbyes: Vec::new(),
        };
        Ok((task, Hold { orders: orders_sender, events: events_receiver, named }))
    }

    /// Lives through the call.
    async fn run(mut self) {
        while !(matches!(self.stage, Stage::Ended) && self.byes == 0) {
            let next = self.epoch + self.deadline();
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => break,
                order = self.orders.recv(), if !self.abandoned => match order {
                    Some(order) => self.ordered(order),
                    None => {
                        self.abandoned = true;
                        self.leave();
                    }
                },
                Some(happening) = self.happenings.recv() => self.happened(happening),
                reply = replied(&mut self.pending) => self.answer_offer(reply),
                () = tokio::time::sleep_until(next) => self.tick(),
            }
        }
        self.shared.dialogs.remove(&self.key);
        self.close(Over::Failed("the stack stopped".to_owned()));
        for goodbye in self.goodbyes.drain(..) {
            let _nobody_waits = goodbye.send(());
        }
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn deadline(&self) -> Duration {
        let stage = match &self.stage {
            Stage::Ringing(r) => r.reliable.as_ref().map(|(u, _)| u.next()),
            Stage::Calling(c) => c.give_up_at,
            Stage::Up => self.timer.map(|t| t.next()),
            Stage::Ended => None,
        };
        let reoffer = self.reoffer.as_ref().filter(|_| self.may_offer()).map(|r| r.at);
        let idle = self.now() + Duration::from_millis(IDLE_MS);
        [stage, reoffer, self.referral].into_iter().flatten().fold(idle, Duration::min)
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.referral.is_some_and(|at| now >= at) {
            self.referral = None;
            self.tell_house(CallEvent::Refer(Referral::TimedOut));
        }
        match &mut self.stage {
            Stage::Ringing(ringing) => {
                if let Some((unacknowledged, headers)) = &mut ringing.reliable {
                    match unacknowledged.due(now) {
                        Some(reliable::Due::Repeat) => ringing.answering.send(180, headers, None),
                        Some(reliable::Due::GiveUp) => {
                            ringing.answering.refuse(&Refusal::new(504).warning(399, "the 180 was never acknowledged by PRACK"));
                            self.close(Over::NotAcknowledged);
                        }
                        None => {}
                    }
                }
            }
            Stage::Calling(calling) => {
                if calling.give_up_at.is_some_and(|at| now >= at) {
                    self.close(Over::Ours);
                }
            }
            Stage::Up => match self.timer.as_mut().and_then(|t| t.due(now)) {
                Some(session_timer::Due::Refresh) => self.refresh(),
                Some(session_timer::Due::Expired) => {
                    self.bye();
                    self.close(Over::Expired);
                }
                None => {}
            },
            Stage::Ended => {}
        }
        if self.may_offer() && self.reoffer.as_ref().is_some_and(|r| now >= r.at) {
            self.offer();
        }
    }

    fn ordered(&mut self, order: Order) {
        match order {
            Order::Accept(description, reply) => {
                let _gone = reply.send(self.accept(description));
            }
            Order::HangUp(reply) => {
                self.goodbyes.push(reply);
                self.leave();
            }
            Order::Reoffer(description) => {
                self.reoffer = Some(Reoffer { description, tries: 0, at: self.now() });
            }
            Order::Refer(to) => self.refer(&to),
        }
    }

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::Request(transaction) => self.asked(*transaction),
            Happening::Theirs(cseq, told) => self.told(cseq, told),
            Happening::Invited(cseq, heard) => {
                if matches!(self.stage, Stage::Calling(_)) {
                    self.heard(cseq, *heard);
                } else if self.our_invite.as_ref().is_some_and(|i| i.cseq == cseq) {
                    self.reoffered(*heard);
                } else {
                    self.late(*heard);
                }
            }
            Happening::Connected(connection) => self.flow.connection = Some(*connection),
            Happening::Answered(errand, heard) => self.returned(*errand, *heard),
        }
    }

    /// Ends it as fits the stage; what the other side then says ends the task.
    fn leave(&mut self) {
        if std::mem::replace(&mut self.leaving, true) {
            return;
        }
        match &mut self.stage {
            Stage::Ringing(ringing) => {
                ringing.answering.refuse(&Refusal::new(480));
                self.close(Over::Ours);
            }
            Stage::Calling(_) => self.cancel(),
            // RFC 3261 section 15: the called side sends no BYE before the ACK, or before its 200 has timed out.
            Stage::Up if self.unconfirmed.is_some_and(|u| u.first) => {}
            Stage::Up => self.bye(),
            Stage::Ended => {}
        }
    }

    fn may_offer(&self) -> bool {
        matches!(self.stage, Stage::Up) && !self.leaving && self.unconfirmed.is_none() && self.offering.is_free()
    }

    /// A session is up: what follows a 2xx of either side.
    fn started(&mut self) {
        self.stage = Stage::Up;
        if let Some(dialog) = &self.dialog {
            let _once = self.named.set(Replaces {
                call_id: dialog.call_id().to_owned(),
                to_tag: dialog.remote_tag().to_owned(),
                from_tag: dialog.local_tag().to_owned(),
                early_only: false,
            });
        }
    }

    /// What a message of theirs says of their abilities.
    fn learn(&mut self, message: &Headers) {
        if message.get("Allow").is_some() {
            self.peer_updates = message.tokens("Allow").any(|m| m == "UPDATE");
        }
    }

    /// From a 2xx to a request of ours.
    fn confirmed(&mut self, response: &Headers) {
        self.too_small = 0;
        let now = self.now();
        self.timer = SessionExpires::of(response).map(|e| SessionTimer::agreed(now, e, true));
    }

    /// The call is over for the house; only the first end counts.
    fn close(&mut self, over: Over) {
        if let Some(last_word) = self.last_word.take() {
            last_word.send(CallEvent::Over(over));
        }
        self.stage = Stage::Ended;
        self.timer = None;
        self.reoffer = None;
        self.referral = None;
        if let Some(pending) = self.pending.take() {
            // RFC 3261 section 15.1.2: what is still unanswered ends with the dialog.
            self.say_no(pending.to, &Refusal::new(487));
        }
    }

    fn tell_house(&self, event: CallEvent) {
        if self.events.try_send(event).is_err() {
            tracing::debug!("a call's event found nobody");
        }
    }

    /// What our responses and requests within the dialog say of us.
    fn about_us(&self) -> Headers {
        Headers::new()
            .with("Contact", self.contact.clone())
            .with("Allow", ALLOWED_METHODS)
            .with("Supported", SUPPORTED_EXTENSIONS)
    }

    /// The answer to a challenge, with its field's name; `None` if there is none, or one was given already (`again`) and the nonce was
    /// not just too old.
    fn authorisation(&self, heard: &Heard, method: &str, uri: &str, again: bool) -> Option<(&'static str, String)> {
        let (challenge, field) = Challenge::of_response(heard.status, &heard.headers)?;
        let credentials = self.credentials.as_ref().filter(|_| !again || challenge.stale)?;
        Some((field, challenge.answer(credentials, method, uri, 1, self.shared.entropy.as_ref())))
    }
}

async fn replied(pending: &mut Option<Pending>) -> Result<String, Refusal> {
    match pending {
        Some(pending) => (&mut pending.reply).await.unwrap_or_else(|_| Err(Refusal::new(500))),
        None => std::future::pending().await,
    }
}
