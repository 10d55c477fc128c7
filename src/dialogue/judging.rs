//! The heart of system 1: from one utterance the voice is judged; only if it is accepted the number; only if that is
//! accepted too does the call go on. A voice that is neither accepted nor rejected is asked for fresh digits (`challenge.rs`).
//! Everything else gets the same reply at the same time, whichever factor failed. What each verdict was made on is kept.

use super::approver;
use super::card;
use super::challenge;
use super::closing;
use super::code::{self, AskingCode};
use super::confirm;
use super::effect::{CallVerdict, CodeBy, Effect, Factor, NumberSummary};
use super::input::{CardOnFile, DeadlineKind, NumberHeard, VoiceHeard};
use super::line::{Desk, millis};
use super::payer::{Draft, Payer};
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use crate::clock::Timestamp;
use crate::decision::replay::Outcome;
use crate::decision::{NumberEvidence, NumberVerdict, VoiceAccepted, VoiceScore, VoiceVerdict, judge_number, judge_voice};
use crate::secret::SecretBytes;

/// The voice is being scored.
#[derive(Debug)]
pub(super) struct ScoringVoice {
    payer: Payer,
    heard_at: Timestamp,
    keyed: Option<Keyed>,
}

/// The voice is accepted; the number is being compared. The proof is with the comparator and comes back with its answer.
#[derive(Debug)]
pub(super) struct ReadingNumber {
    payer: Payer,
    heard_at: Timestamp,
    keyed: bool,
}

/// The reply stands and is held until its time.
#[derive(Debug)]
pub(super) struct Holding {
    reply: Reply,
}

/// A keyed number, while the voice is judged.
#[derive(Debug)]
pub(super) struct Keyed {
    pub(super) digits: SecretBytes,
    pub(super) asked: u32,
}

/// Both factors hold: voice and number, or fresh digits by a mandate or with a card that an app has bound. Made here only.
#[derive(Debug)]
pub(super) struct Proven {
    voice: VoiceAccepted,
    card: CardOnFile,
    number: NumberSummary,
    /// Fresh digits were said in this voice in this call, and nothing failed between them and the proof.
    fresh_digits: bool,
    code: Option<CodeBy>,
}

impl Proven {
    pub(super) fn card(&self) -> &CardOnFile {
        &self.card
    }

    /// The card that a mandate names stands for its number, where the voice said fresh digits.
    pub(super) fn by_mandate(voice: VoiceAccepted, card: CardOnFile) -> Option<Self> {
        Self::without_number(voice, card, NumberSummary::Mandate)
    }

    /// The card that an app has bound stands for its number, where the voice said fresh digits.
    pub(super) fn by_app(voice: VoiceAccepted, card: CardOnFile) -> Option<Self> {
        Self::without_number(voice, card, NumberSummary::Bound)
    }

    fn without_number(voice: VoiceAccepted, card: CardOnFile, number: NumberSummary) -> Option<Self> {
        voice.challenged().then_some(Self { voice, card, number, fresh_digits: true, code: None })
    }

    /// A one-time code held, too.
    pub(super) fn with_code(self, by: CodeBy) -> Self {
        Self { code: Some(by), ..self }
    }

    pub(super) fn voice_score(&self) -> &VoiceScore {
        self.voice.score()
    }

    pub(super) fn fresh_digits(&self) -> bool {
        self.fresh_digits
    }

    pub(super) fn code(&self) -> Option<CodeBy> {
        self.code
    }

    pub(super) fn into_parts(self) -> (VoiceAccepted, CardOnFile, NumberSummary) {
        (self.voice, self.card, self.number)
    }
}

/// What will be said when its time has come.
#[derive(Debug)]
pub(super) enum Reply {
    AskCard(Payer, Again),
    AskCounting(Payer, Keyed),
    AskDigits(Box<challenge::Ask>),
    AskCode(Box<AskingCode>, Again),
    AskYes(Box<confirm::Confirming>),
    AskAlone(Box<approver::Ask>),
    AskAgreement(Box<approver::AskingAgreement>),
    Refuse,
    End(fn(&mut Desk<'_>) -> Stage),
}

/// An utterance is there: its voice first.
pub(super) fn begin(desk: &mut Desk<'_>, payer: Payer, keyed: Option<Keyed>) -> Stage {
    desk.push(Effect::ScoreVoice { customer: payer.person.customer.clone() });
    // One wait for both factors: when it ends does not tell how far they got.
    desk.expect_answer(desk.cfg.score_wait_ms);
    ScoringVoice { payer, heard_at: desk.now, keyed }.into()
}

impl ScoringVoice {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::VoiceScored(Ok(heard))) => self.judge(desk, heard),
            Event::Told(Told::VoiceScored(Err(trouble))) => match closing::ending_for(trouble) {
                Some(end) => hold(desk, self.heard_at, Reply::End(end)),
                None => self.unclear(desk),
            },
            Event::Overdue => closing::busy(desk),
            Event::PromptDone
            | Event::Key(_)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::NextKeyDue
            | Event::ReplyDue
            | Event::Told(_) => self.into(),
        }
    }

    fn judge(mut self, desk: &mut Desk<'_>, heard: VoiceHeard) -> Stage {
        let known = self.payer.known(desk, Some(&heard));
        self.payer.person.draft = Some(Draft {
            voice: heard.score.clone(),
            challenge: self.payer.person.answered(desk.now).map(challenge::Answered::scores),
            digits_alone: false,
            known,
        });
        match judge_voice(&desk.cfg.policy, heard.score.clone(), &known) {
            VoiceVerdict::Accepted(accepted) => compare(desk, self.payer, accepted, self.keyed, self.heard_at),
            VoiceVerdict::StepUp(_) => match challenge::earlier(desk, &self.payer, &heard) {
                Some(accepted) => compare(desk, self.payer, accepted, self.keyed, self.heard_at),
                None => challenge::begin(desk, self.payer, heard.score, self.keyed, self.heard_at),
            },
            VoiceVerdict::Inconclusive => {
                self.payer.person.decided(desk, None, Outcome::Inconclusive);
                self.unclear(desk)
            }
            VoiceVerdict::Rejected => {
                self.payer.person.decided(desk, None, Outcome::Rejected);
                mismatch(desk, self.payer, self.heard_at, Factor::Voice)
            }
        }
    }

    fn unclear(mut self, desk: &mut Desk<'_>) -> Stage {
        let reply = if self.payer.person.unclear(desk.cfg) {
            Reply::Refuse
        } else {
            match self.keyed {
                Some(keyed) => Reply::AskCounting(self.payer, keyed),
                None => Reply::AskCard(self.payer, Again::NotUnderstood),
            }
        };
        hold(desk, self.heard_at, reply)
    }
}

/// The voice is accepted, by the utterance or by a challenge after it: now the number that was said or keyed.
pub(super) fn compare(
    desk: &mut Desk<'_>,
    payer: Payer,
    accepted: VoiceAccepted,
    keyed: Option<Keyed>,
    heard_at: Timestamp,
) -> Stage {
    let (customer, cards) = (payer.person.customer.clone(), payer.card_ids());
    let was_keyed = keyed.is_some();
    desk.push(match keyed {
        Some(Keyed { digits, .. }) => Effect::CompareKeyed { accepted, customer, cards, digits },
        None => Effect::ReadNumber { accepted, customer, cards },
    });
    ReadingNumber { payer, heard_at, keyed: was_keyed }.into()
}

impl ReadingNumber {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::NumberRead(Ok(heard))) => self.judge(desk, heard),
            Event::Told(Told::NumberRead(Err(trouble))) => match closing::ending_for(trouble) {
                Some(end) => hold(desk, self.heard_at, Reply::End(end)),
                None => self.unclear(desk),
            },
            Event::Overdue => closing::busy(desk),
            Event::PromptDone
            | Event::Key(_)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::NextKeyDue
            | Event::ReplyDue
            | Event::Told(_) => self.into(),
        }
    }

    fn judge(self, desk: &mut Desk<'_>, heard: NumberHeard) -> Stage {
        let NumberHeard { evidence, accepted } = heard;
        let as_asked = match &evidence {
            NumberEvidence::Keyed { .. } => self.keyed,
            NumberEvidence::Spoken { .. } => !self.keyed,
        };
        if !as_asked {
            return hold(desk, self.heard_at, Reply::End(closing::service_trouble));
        }
        let known = self.payer.known(desk, None);
        let verdict = judge_number(&desk.cfg.policy, &accepted, &evidence, &known);
        self.payer.person.decided(desk, Some(&evidence), outcome(&verdict));
        match verdict {
            // A card that is not among the usable ones counts as any other wrong number.
            NumberVerdict::Accepted(id) => match self.payer.cards.iter().find(|c| c.id == id).cloned() {
                Some(card) => {
                    desk.answered();
                    let number = summary(evidence, &card);
                    let fresh_digits = accepted.challenged() || self.payer.person.answered.is_some();
                    let proven = Proven { voice: accepted, card, number, fresh_digits, code: None };
                    code::or_read_back(desk, self.payer, proven)
                }
                None => mismatch(desk, self.payer, self.heard_at, Factor::Number),
            },
            NumberVerdict::Inconclusive => self.unclear(desk),
            NumberVerdict::Rejected => mismatch(desk, self.payer, self.heard_at, Factor::Number),
        }
    }

    fn unclear(mut self, desk: &mut Desk<'_>) -> Stage {
        let reply =
            if self.payer.person.unclear(desk.cfg) { Reply::Refuse } else { Reply::AskCard(self.payer, Again::NotUnderstood) };
        hold(desk, self.heard_at, reply)
    }
}

fn outcome(verdict: &NumberVerdict) -> Outcome {
    match verdict {
        NumberVerdict::Accepted(card) => Outcome::Accepted(card.clone()),
        NumberVerdict::Inconclusive => Outcome::Inconclusive,
        NumberVerdict::Rejected => Outcome::Rejected,
    }
}

/// For the audit row.
fn summary(evidence: NumberEvidence, card: &CardOnFile) -> NumberSummary {
    match evidence {
        NumberEvidence::Keyed { .. } => NumberSummary::Keyed,
        NumberEvidence::Spoken { cards, engine, calibration: _ } => {
            let (log_ratio, llr) =
                cards.iter().find(|c| c.card == card.id).map_or((f32::NAN, f32::NAN), |c| (c.log_ratio, c.llr));
            NumberSummary::Spoken { log_ratio, llr, engine }
        }
    }
}

/// A factor did not hold. Asks for the card number again, spoken or keyed, or refuses: not a word or a moment differs
/// between the factors.
pub(super) fn mismatch(desk: &mut Desk<'_>, mut payer: Payer, heard_at: Timestamp, factor: Factor) -> Stage {
    let reply = if payer.person.failed(desk, factor) { Reply::Refuse } else { Reply::AskCard(payer, Again::NoMatch) };
    hold(desk, heard_at, reply)
}

/// The yes came in another voice: counted like any voice that fails, and asked again or refused.
pub(super) fn other_voice(desk: &mut Desk<'_>, mut confirming: Box<confirm::Confirming>, heard_at: Timestamp) -> Stage {
    let reply = if confirming.payer_mut().person.failed(desk, Factor::Voice) { Reply::Refuse } else { Reply::AskYes(confirming) };
    hold(desk, heard_at, reply)
}

/// Holds a reply until a multiple of the padding after the utterance. "One moment" keeps its own time, from the utterance
/// as well.
pub(super) fn hold(desk: &mut Desk<'_>, heard_at: Timestamp, reply: Reply) -> Stage {
    desk.disarm(DeadlineKind::Work);
    desk.arm_at(DeadlineKind::Reply, reply_time(heard_at, desk.now, desk.cfg.refusal_delay_ms));
    Holding { reply }.into()
}

/// The first multiple of `delay_ms` after `heard_at` (the first one at least) that is not past.
fn reply_time(heard_at: Timestamp, now: Timestamp, delay_ms: u32) -> Timestamp {
    let taken_ms = u64::try_from(now.since(heard_at).as_millis()).unwrap_or(u64::MAX);
    let steps = if delay_ms == 0 { 0 } else { taken_ms.div_ceil(u64::from(delay_ms)).max(1) };
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    heard_at.plus(millis(delay_ms).saturating_mul(steps)).max(now)
}

/// Gives a reply whose time has come.
pub(super) fn reply(desk: &mut Desk<'_>, reply: Reply) -> Stage {
    match reply {
        Reply::AskCard(payer, why) => card::ask(desk, payer, why),
        Reply::AskCounting(payer, keyed) => card::ask_counting(desk, payer, keyed.digits, keyed.asked, Again::NotUnderstood),
        Reply::AskDigits(asking) => challenge::ask(desk, *asking),
        Reply::AskCode(asking, why) => asking.ask(desk, why),
        Reply::AskYes(confirming) => confirm::ask_again(desk, *confirming, Again::NoMatch),
        Reply::AskAlone(asking) => approver::ask(desk, *asking),
        Reply::AskAgreement(asking) => approver::ask_again(desk, *asking, Again::NoMatch),
        Reply::Refuse => closing::close(desk, CallVerdict::Refused, Prompt::Refused),
        Reply::End(end) => end(desk),
    }
}

impl Holding {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::ReplyDue => {
                desk.rest();
                reply(desk, self.reply)
            }
            Event::PromptDone
            | Event::Key(_)
            | Event::SpeechStarted
            | Event::Utterance(_)
            | Event::Nothing
            | Event::NextKeyDue
            | Event::Overdue
            | Event::Told(_) => self.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_reply_comes_at_the_next_multiple_of_the_padding() {
        let at = |now| reply_time(Timestamp(1_000), Timestamp(now), 3_000);
        assert_eq!(at(1_000), Timestamp(4_000));
        assert_eq!(at(1_200), Timestamp(4_000));
        assert_eq!(at(4_000), Timestamp(4_000));
        assert_eq!(at(4_001), Timestamp(7_000));
        assert_eq!(reply_time(Timestamp(1_000), Timestamp(1_300), 0), Timestamp(1_300));
    }
}
