//! The identity stands: what this customer can do in this call, checked in order and before any audio is captured.

use super::challenge;
use super::closing::close;
use super::config::DialogueConfig;
use super::confirm;
use super::effect::{CallVerdict, Effect, Factor, Notice};
use super::input::{CardOnFile, DeadlineKind, Known, OpenRequest, Usable, VoiceHeard, VoiceOnFile};
use super::invite;
use super::line::Desk;
use super::prompt::Prompt;
use super::request;
use super::stage::Stage;
use super::withdrawal;
use crate::clock::Timestamp;
use crate::decision::replay::{Outcome, StoredEvidence};
use crate::decision::{NumberEvidence, PhraseEvidence, Tightening, VoiceScore};
use crate::ids::{CardId, CustomerId};

/// A customer who has a voice on file, and what this call has learnt of whoever speaks.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) customer: CustomerId,
    pub(super) tally: Tally,
    /// The challenge that was answered well in this call, while nothing has failed since.
    pub(super) answered: Option<challenge::Answered>,
    /// What the verdict that is being reached is made on.
    pub(super) draft: Option<Draft>,
    /// Whether an attested caller number nominated this customer: only then do failures count against the customer.
    attested: bool,
}

/// A person who has a card to charge and something to pay.
#[derive(Debug)]
pub(super) struct Payer {
    pub(super) person: Person,
    /// Usable ones, at least one.
    pub(super) cards: Vec<CardOnFile>,
    pub(super) request: OpenRequest,
    /// The yes was said already, as in an app's call, where fresh digits are the last word: its cosine with the template.
    pub(super) agreed: Option<f32>,
}

/// Evidence of a verdict that is not reached yet.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) voice: VoiceScore,
    pub(super) challenge: Option<(VoiceScore, PhraseEvidence)>,
    /// Nothing was said before the fresh digits.
    pub(super) digits_alone: bool,
    pub(super) known: Tightening,
}

/// The voice of fresh digits, and whether nothing at all spoke against this call.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) voice: VoiceScore,
    pub(super) unblemished: bool,
}

impl Person {
    fn new(customer: CustomerId, failures_24h: u32, attested: bool) -> Self {
        let tally = Tally { earlier: failures_24h, ..Tally::default() };
        Self { customer, tally, answered: None, draft: None, attested }
    }

    /// A verdict: what it was made on is kept with the call.
    pub(super) fn decided(&self, desk: &mut Desk<'_>, number: Option<&NumberEvidence>, outcome: Outcome) {
        let Some(Draft { voice, challenge, digits_alone, known }) = &self.draft else { return };
        let evidence = StoredEvidence {
            at: desk.now,
            policy: desk.cfg.policy.version.clone(),
            voice: voice.clone(),
            challenge: challenge.clone(),
            digits_alone: *digits_alone,
            number: number.cloned(),
            known: *known,
            outcome,
        };
        desk.push(Effect::KeepEvidence(Box::new(evidence)));
    }

    /// What is known of this call beside what was said; `heard`: of the utterance itself; `due`: whether rules want fresh digits.
    pub(super) fn known(&self, desk: &Desk<'_>, heard: Option<&VoiceHeard>, due: bool) -> Tightening {
        Tightening {
            heard_before: heard.is_some_and(|h| h.heard_before),
            spoof_llr: heard.and_then(|h| h.spoof_llr),
            unattested: !self.attested,
            failed_attestation: desk.line.caller().disputed(),
            recent_failures: self.tally.earlier, // this call's own are counted by its limits
            // One that was answered well serves for the whole time that it is valid.
            challenge_due: self.answered(desk.now).is_none() && due,
        }
    }

    /// The challenge of this call that still holds.
    pub(super) fn answered(&self, now: Timestamp) -> Option<&challenge::Answered> {
        self.answered.as_ref().filter(|answered| answered.holds(now))
    }

    /// What the customer's template may follow, if this call is paid: the voice of fresh digits.
    pub(super) fn follow(&self) -> Option<Follow> {
        let heard = self.answered.as_ref()?.voice();
        let clean = !heard.heard_before && heard.spoof_llr.is_none_or(|llr| llr <= 0.0);
        let unblemished = self.attested && clean && self.tally.earlier == 0 && self.tally.mismatches() == 0;
        Some(Follow { voice: heard.score.clone(), unblemished })
    }

    /// Counts a failed factor, for this call and for the days to come. Tells whether the call must refuse now.
    pub(super) fn failed(&mut self, desk: &mut Desk<'_>, factor: Factor) -> bool {
        let caller = desk.line.caller().clone();
        let effect = Effect::RecordFailure {
            customer: self.customer.clone(),
            caller: caller.number().cloned(),
            attested: self.attested,
            factor,
        };
        desk.push(effect);
        self.tally.fail(factor);
        self.answered = None;
        if self.tally.closes_line(desk.cfg) {
            desk.push(Effect::Notify { customer: self.customer.clone(), notice: Notice::TooManyFailures });
            return true;
        }
        self.tally.refuses(desk.cfg)
    }

    /// Counts something said or keyed that could not be judged. Tells whether it was the last.
    pub(super) fn unclear(&mut self, cfg: &DialogueConfig) -> bool {
        self.tally.unclear(cfg)
    }
}

impl Payer {
    pub(super) fn card_ids(&self) -> Vec<CardId> {
        self.cards.iter().map(|c| c.id.clone()).collect()
    }

    /// What is known of this call beside what was said: fresh digits are due where policy or the payment's terms want them.
    pub(super) fn known(&self, desk: &Desk<'_>, heard: Option<&VoiceHeard>) -> Tightening {
        let due = desk.cfg.policy.challenge_due(self.request.amount.minor.get(), desk.line.caller().disputed());
        self.person.known(desk, heard, due || self.request.asks.fresh_digits)
    }

    /// The card that a mandate names, if it may be charged.
    pub(super) fn mandated(&self) -> Option<CardOnFile> {
        self.card(self.request.asks.mandate.as_ref()?)
    }

    /// The card that an app has bound, if it may be charged.
    pub(super) fn bound(&self) -> Option<CardOnFile> {
        self.card(self.request.asks.bound.as_ref()?)
    }

    fn card(&self, named: &CardId) -> Option<CardOnFile> {
        self.cards.iter().find(|c| c.id == *named).cloned()
    }

    /// From now on the whole information is asked for: the mandate is of no use in this call.
    pub(super) fn without_mandate(mut self) -> Self {
        self.request.asks.mandate = None;
        self
    }

    /// Lengths of the cards' numbers in digits, sorted, each once.
    pub(super) fn card_lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> = self.cards.iter().map(|c| c.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }
}

/// What has gone wrong so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    voice: u32,
    number: u32,
    challenge: u32,
    code: u32,
    unclear: u32,
    /// Failures of the last 24 h before this call.
    earlier: u32,
    /// How often the card was asked for.
    pub(super) card_asked: u32,
    /// How many strings of fresh digits were drawn.
    pub(super) challenges: u32,
}

impl Tally {
    /// At the beginning of a call: so many factors failed in the 24 h before.
    pub(super) fn after(earlier: u32) -> Self {
        Self { earlier, ..Self::default() }
    }

    /// Failed factors of the last 24 h before this call.
    pub(super) fn earlier(&self) -> u32 {
        self.earlier
    }

    /// Counts what could not be judged. Tells whether it was the last.
    pub(super) fn unclear(&mut self, cfg: &DialogueConfig) -> bool {
        self.unclear = self.unclear.saturating_add(1);
        self.unclear >= cfg.unclear_limit_tries
    }

    pub(super) fn fail(&mut self, factor: Factor) {
        let count = match factor {
            Factor::Voice => &mut self.voice,
            Factor::Number => &mut self.number,
            Factor::Challenge => &mut self.challenge,
            Factor::Code => &mut self.code,
        };
        *count = count.saturating_add(1);
    }

    pub(super) fn mismatches(&self) -> u32 {
        self.voice.saturating_add(self.number).saturating_add(self.challenge).saturating_add(self.code)
    }

    pub(super) fn refuses(&self, cfg: &DialogueConfig) -> bool {
        self.voice >= cfg.voice_failure_limit_tries
            || self.number >= cfg.number_failure_limit_tries
            || self.mismatches() >= cfg.mismatch_limit_tries
    }

    pub(super) fn closes_line(&self, cfg: &DialogueConfig) -> bool {
        self.earlier.saturating_add(self.mismatches()) >= cfg.failures_24h_limit_tries
    }
}

/// Goes through the checks of a customer who calls. The first that fails ends the call.
pub(super) fn receive(desk: &mut Desk<'_>, known: Known, attested: bool) -> Stage {
    let Known { customer, language: _, voice, has_open_invite, cards, requests, failures_24h, slow } = known;
    if slow {
        desk.slow_down();
    }
    let (invited, delete) = (has_open_invite, desk.line.deleting());
    match voice {
        VoiceOnFile::Enrolled => {}
        // Whose it is can't be heard without one.
        VoiceOnFile::None | VoiceOnFile::OtherModel if delete => {
            return close(desk, CallVerdict::NotEnrolled, Prompt::NoVoiceToDelete);
        }
        VoiceOnFile::None | VoiceOnFile::OtherModel if invited => return invite::begin(desk, customer),
        VoiceOnFile::None | VoiceOnFile::OtherModel => return close(desk, CallVerdict::NotEnrolled, Prompt::NotEnrolled),
    }
    let person = Person::new(customer, failures_24h, attested);
    if person.tally.closes_line(desk.cfg) {
        return close(desk, CallVerdict::LockedOut, Prompt::LockedOut);
    }
    if delete {
        return withdrawal::begin(desk, person);
    }
    let request = requests.into_iter().next();
    // Invited although enrolled, and nothing to pay: the caller is here to enrol anew.
    if invited && request.is_none() {
        return invite::begin(desk, person.customer);
    }
    pays(desk, person, cards, request)
}

/// A payment that an app has bound: its back end vouches for who this is, as a trusted network does for a number. The first check that fails
/// ends the call; there is nothing else to do in it.
pub(super) fn from_app(desk: &mut Desk<'_>, known: Known) -> Stage {
    desk.arm(DeadlineKind::CallLimit, desk.cfg.call_limit_ms);
    let Known { customer, language: _, voice, has_open_invite: _, cards, requests, failures_24h, slow } = known;
    if slow {
        desk.slow_down();
    }
    match voice {
        VoiceOnFile::Enrolled => {}
        VoiceOnFile::None | VoiceOnFile::OtherModel => return close(desk, CallVerdict::NotEnrolled, Prompt::NotEnrolled),
    }
    let person = Person::new(customer, failures_24h, true);
    if person.tally.closes_line(desk.cfg) {
        return close(desk, CallVerdict::LockedOut, Prompt::LockedOut);
    }
    // Without it nobody knows which card was bound: it is no matter of cards.
    let Some(request) = requests.into_iter().next() else {
        return close(desk, CallVerdict::NothingToPay, Prompt::NoOpenRequest);
    };
    // Only the card that was bound: any other was never spoken of.
    let cards = cards.into_iter().filter(|card| Some(&card.id) == request.asks.bound.as_ref()).collect();
    pays(desk, person, cards, Some(request))
}

/// A card, a request, and no rule against it: what is to be paid is read out.
fn pays(desk: &mut Desk<'_>, person: Person, cards: Vec<CardOnFile>, request: Option<OpenRequest>) -> Stage {
    let cards: Vec<CardOnFile> = cards.into_iter().filter(|card| may_be_charged(card.usable)).collect();
    if cards.is_empty() {
        return close(desk, CallVerdict::NoCard, Prompt::NoUsableCard);
    }
    let Some(request) = request else {
        return close(desk, CallVerdict::NothingToPay, Prompt::NoOpenRequest);
    };
    if request.asks.denied {
        return close(desk, CallVerdict::Refused, Prompt::NotByPhone);
    }
    let payer = Payer { person, cards, request, agreed: None };
    // A mandate on a card that is no longer good is none.
    let payer = if payer.mandated().is_some() { payer } else { payer.without_mandate() };
    match payer.bound() {
        Some(card) => confirm::first(desk, payer, &card),
        None => request::read(desk, payer),
    }
}

fn may_be_charged(usable: Usable) -> bool {
    match usable {
        Usable::Yes => true,
        Usable::Expired | Usable::Blocked => false,
    }
}
