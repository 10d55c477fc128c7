//! A call that we placed: who answered, if anybody did. The line of a person has a type of its own, so that whoever speaks of money can
//! ask for one: a machine, an exchange or a silent line is told neither an amount nor whose it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::call::{CallRecord, Services, run_errand};
use crate::dialogue::Errand;
use crate::ids::CallId;
use crate::media::leg::{Leg, LegEvent, LegInfo, LegReport};
use crate::sip::trunk::outbound::TrunkCallError;
use crate::sip::{DialError, Placed, Unanswered};
use crate::speech::pickup::{Answerer, Beep, Pickup, PickupConfig, PickupEar, Sign};
use crate::speech::vad::VoiceActivity;

/// Audio counts the time, and the clock where none comes: it waits so much longer.
const NO_AUDIO_MARGIN_MS: u64 = 1_000;

/// What became of a call that we placed.
#[derive(Debug)]
pub enum Reached {
    /// A person answered and waits.
    Person(PersonLine),
    /// The call is up, and no person is known to be there.
    Other(OtherLine),
    /// Answered, and ended before anybody could say by whom.
    HungUp,
    /// Nobody answered.
    Unanswered(NotAnswered),
}

/// A line at whose other end a person waits for us: only [`who_answered`] makes one.
#[derive(Debug)]
pub struct PersonLine {
    /// The verdict.
    pub pickup: Pickup,
    leg: Leg,
    ear: PickupEar,
}

impl PersonLine {
    /// Talks with the person: only here does a call that we placed come to speak of money. `services`: what every call has.
    pub async fn talk(self, id: CallId, errand: Errand, services: Arc<Services>) -> CallRecord {
        run_errand(id, self.leg, self.ear, errand, services).await
    }

    /// How the call is known, and what its line will have gone through once it is over.
    pub(super) fn take_report(&mut self) -> (LegInfo, oneshot::Receiver<LegReport>) {
        self.leg.take_report()
    }

    /// The line, and the ear: whoever goes on pushing frames into it hears of a beep that takes the verdict back.
    pub fn into_parts(self) -> (Leg, PickupEar) {
        (self.leg, self.ear)
    }
}

/// A line at whose other end is a machine, an exchange, or nothing that is heard. Dropping it hangs up.
#[derive(Debug)]
pub struct OtherLine {
    /// The verdict.
    pub pickup: Pickup,
    leg: Leg,
    ear: PickupEar,
    beep_by: Instant,
}

impl OtherLine {
    /// Waits for a machine's beep to end: from then on it records. `None`: it ended the call, or time is up.
    pub async fn beep(&mut self) -> Option<Beep> {
        loop {
            if let Some(beep) = self.ear.beep() {
                return Some(beep);
            }
            match timeout_at(self.beep_by, self.leg.events.recv()).await {
                Ok(Some(LegEvent::Frame(frame))) => self.ear.push(&frame),
                Ok(Some(LegEvent::Ended(_)) | None) | Err(_) => return None,
                Ok(Some(_other)) => {}
            }
        }
    }
}

/// Why nobody answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAnswered {
    /// In one of a few words.
    pub why: Unanswered,
    /// SIP's final status, where there was one.
    pub status: Option<u16>,
    /// In a sentence.
    pub said: String,
    /// What the network said in tones before.
    pub sign: Option<Sign>,
}

impl NotAnswered {
    /// As scripts and records name it.
    pub fn word(&self) -> &'static str {
        match self.why {
            Unanswered::Busy => "busy",
            Unanswered::Declined => "declined",
            Unanswered::NoAnswer => "no_answer",
            Unanswered::NoSuchNumber => "no_such_number",
            Unanswered::Failed => "unreachable",
        }
    }
}

impl From<&DialError> for NotAnswered {
    fn from(error: &DialError) -> Self {
        let status = match error {
            DialError::Refused { status, .. } => Some(*status),
            DialError::Target { .. }
            | DialError::NoAnswer(_)
            | DialError::Answer(_)
            | DialError::Bind(_)
            | DialError::Failed(_) => None,
        };
        Self { why: error.why(), status, said: error.to_string(), sign: None }
    }
}

impl From<&TrunkCallError> for NotAnswered {
    fn from(error: &TrunkCallError) -> Self {
        match error {
            TrunkCallError::Dial(error) => error.into(),
            TrunkCallError::Route(error) => Self { why: Unanswered::Failed, status: None, said: error.to_string(), sign: None },
        }
    }
}

/// Listens to a call that was placed until it is known who answered. Place it with early media, or what networks say in tones before
/// the answer goes unheard. Dropping this future ends the call.
pub async fn who_answered(mut placed: Placed, config: PickupConfig, voices: VoiceActivity) -> Reached {
    let mut ear = PickupEar::new(config, voices, placed.leg.info.rate);
    let after_answer = |ms: u32| Instant::now() + Duration::from_millis(u64::from(ms) + NO_AUDIO_MARGIN_MS);
    // Until the answer the call's own limit of ringing ends it.
    let mut answered_by = None;
    let mut beep_by = Instant::now();
    let mut answered = placed.answered;
    loop {
        if answered && answered_by.is_none() {
            ear.answered();
            answered_by = Some(after_answer(config.deadline_ms));
            beep_by = after_answer(config.beep_wait_ms);
        }
        let event = match answered_by {
            Some(by) => timeout_at(by, placed.leg.events.recv()).await.map_err(|_elapsed| ear.at_last()),
            None => Ok(placed.leg.events.recv().await),
        };
        let found = match event {
            Ok(Some(LegEvent::Frame(frame))) => {
                ear.push(&frame);
                ear.pickup()
            }
            Ok(Some(LegEvent::Answered)) => {
                answered = true;
                None
            }
            Ok(Some(LegEvent::Ended(_)) | None) if answered => return Reached::HungUp,
            Ok(Some(LegEvent::Ended(_)) | None) => return Reached::Unanswered(unanswered(&placed)),
            Ok(Some(_other)) => None,
            Err(at_last) => Some(at_last),
        };
        let Some(pickup) = found else { continue };
        if !answered {
            // Giving up is all there is to do: the leg is dropped, and that cancels the call.
            return Reached::Unanswered(toned(pickup.sign));
        }
        let leg = placed.leg;
        return match pickup.by {
            Answerer::Person => Reached::Person(PersonLine { pickup, leg, ear }),
            Answerer::Machine | Answerer::Network | Answerer::Silent | Answerer::Unknown => {
                Reached::Other(OtherLine { pickup, leg, ear, beep_by })
            }
        };
    }
}

fn unanswered(placed: &Placed) -> NotAnswered {
    placed
        .unanswered()
        .map_or_else(|| (&DialError::Failed("it ended before it was answered".to_owned())).into(), NotAnswered::from)
}

/// What the network said in tones before any answer.
fn toned(sign: Sign) -> NotAnswered {
    let (why, said) = match sign {
        Sign::BusyTone => (Unanswered::Busy, "the network plays a busy or congestion tone"),
        // Nothing but tones is judged before an answer.
        Sign::SpecialInformationTone
        | Sign::ShortGreeting
        | Sign::LongGreeting
        | Sign::Beep
        | Sign::FaxTone
        | Sign::Silence
        | Sign::Deadline => (Unanswered::Failed, "the network plays its special information tone: the call can't be completed"),
    };
    NotAnswered { why, status: None, said: said.to_owned(), sign: Some(sign) }
}
