//! Fresh digits: where the voice alone does not settle it, or by policy, the caller says digits after us that nobody can have a
//! recording of. Words and voice must both hold. Then the card number that was said (or keyed) before is compared; where a mandate names
//! the card, an app has bound it, or the voice is to be deleted, nothing was said before: the digits are judged by themselves.
//!
//! A string is judged once. Silence repeats it while it is valid; a late, unfit or unsure answer draws another one, up to
//! `challenge.limit_strings` in a call. No barge-in: half a string is none, and our own voice must not end up in the answer.

use super::advice;
use super::closing;
use super::effect::{Effect, Factor, ListenFor};
use super::input::{ChallengeHeard, ChallengeOutcome, DeadlineKind, VoiceHeard};
use super::judging::{self, Keyed, Reply};
use super::line::{Desk, Heard, millis, nth};
use super::payer::{Draft, Payer, Person};
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use super::{mandate, withdrawal};
use crate::clock::Timestamp;
use crate::decision::replay::Outcome;
use crate::decision::{PhraseEvidence, Tightening, VoiceAccepted, VoiceScore, VoiceVerdict, judge_challenge, judge_fresh_digits};

/// So many digits more where the voice is judged by them alone.
const ALONE_MORE_DIGITS: usize = 2;

/// A challenge from its first string to its end.
#[derive(Debug)]
pub(super) struct Challenge {
    who: Who,
    /// The utterance that led here; `None`: nothing was said before.
    first: Option<VoiceScore>,
    /// Its number, if that was keyed.
    keyed: Option<Keyed>,
    silences: u32,
}

/// Who says the digits, and what for.
#[derive(Debug)]
enum Who {
    /// To pay.
    Payer(Payer),
    /// To have the voice deleted.
    Owner(Person),
}

impl Who {
    fn person(&mut self) -> &mut Person {
        match self {
            Self::Payer(payer) => &mut payer.person,
            Self::Owner(person) => person,
        }
    }

    fn known(&self, desk: &Desk<'_>, heard: &VoiceHeard) -> Tightening {
        match self {
            Self::Payer(payer) => payer.known(desk, Some(heard)),
            Self::Owner(person) => person.known(desk, Some(heard), true),
        }
    }

    /// How a refusal is worded: a voice that stays on file is no payment.
    fn refusal(&self) -> Reply {
        match self {
            Self::Payer(_) => Reply::Refuse,
            Self::Owner(_) => Reply::End(withdrawal::refused),
        }
    }
}

/// A string is being drawn.
#[derive(Debug)]
pub(super) struct Drawing {
    challenge: Challenge,
    /// The utterance that this answers, if it answers one: the reply is then held like every other.
    heard_at: Option<Timestamp>,
    why: Again,
}

/// A string is asked for.
#[derive(Debug)]
pub(super) struct AskingDigits {
    challenge: Challenge,
    digits: Vec<u8>,
    expires_at: Timestamp,
}

/// What was said is being scored.
#[derive(Debug)]
pub(super) struct ScoringDigits {
    challenge: Challenge,
    heard_at: Timestamp,
}

/// A challenge that was answered well. While it is valid and nothing fails, it also speaks for the next utterances of the call.
#[derive(Debug)]
pub(super) struct Answered {
    voice: VoiceHeard,
    content: PhraseEvidence,
    until: Timestamp,
}

impl Answered {
    pub(super) fn voice(&self) -> &VoiceHeard {
        &self.voice
    }

    pub(super) fn holds(&self, now: Timestamp) -> bool {
        now < self.until
    }

    pub(super) fn scores(&self) -> (VoiceScore, PhraseEvidence) {
        (self.voice.score.clone(), self.content.clone())
    }
}

/// Whether a challenge of this call still speaks for an unsure voice: both utterances are judged together, with what speaks against
/// either of them.
pub(super) fn earlier(desk: &Desk<'_>, payer: &Payer, first: &VoiceHeard) -> Option<VoiceAccepted> {
    let Answered { voice, content, .. } = payer.person.answered(desk.now)?;
    let both = VoiceHeard {
        score: voice.score.clone(),
        heard_before: first.heard_before || voice.heard_before,
        spoof_llr: worse(first.spoof_llr, voice.spoof_llr),
    };
    let known = payer.known(desk, Some(&both));
    match judge_challenge(&desk.cfg.policy, &first.score, both.score, content, &known) {
        VoiceVerdict::Accepted(accepted) => Some(accepted),
        VoiceVerdict::Inconclusive | VoiceVerdict::StepUp(_) | VoiceVerdict::Rejected => None,
    }
}

fn worse(a: Option<f32>, b: Option<f32>) -> Option<f32> {
    match (a, b) {
        // NaN is worse than anything, and stays.
        (Some(a), Some(b)) => Some(if a.is_nan() || a > b { a } else { b }),
        (one, None) | (None, one) => one,
    }
}

/// Asks for fresh digits after the utterance that was heard at `heard_at`.
pub(super) fn begin(desk: &mut Desk<'_>, payer: Payer, first: VoiceScore, keyed: Option<Keyed>, heard_at: Timestamp) -> Stage {
    Challenge { who: Who::Payer(payer), first: Some(first), keyed, silences: 0 }.draw(desk, Some(heard_at), Again::First)
}

/// Asks a payer whose card a mandate names, or an app has bound, for fresh digits: no number goes before them.
pub(super) fn without_number(desk: &mut Desk<'_>, payer: Payer) -> Stage {
    desk.rest();
    Challenge { who: Who::Payer(payer), first: None, keyed: None, silences: 0 }.draw(desk, None, Again::First)
}

/// Asks whoever wants a voice deleted for fresh digits in that voice.
pub(super) fn by_owner(desk: &mut Desk<'_>, person: Person) -> Stage {
    desk.rest();
    Challenge { who: Who::Owner(person), first: None, keyed: None, silences: 0 }.draw(desk, None, Again::First)
}

impl Challenge {
    /// Draws a string, or refuses if there were enough of them.
    fn draw(mut self, desk: &mut Desk<'_>, heard_at: Option<Timestamp>, why: Again) -> Stage {
        let (refusal, length) = (self.who.refusal(), self.length(desk));
        let Person { tally, customer, .. } = self.who.person();
        if tally.challenges >= desk.cfg.challenge.limit_strings {
            return match heard_at {
                Some(heard_at) => judging::hold(desk, heard_at, refusal),
                None => closing::not_completed(desk),
            };
        }
        tally.challenges = tally.challenges.saturating_add(1);
        let effect = Effect::DrawChallenge { customer: customer.clone(), length };
        desk.push(effect);
        // One wait for all that one utterance leads to: when it ends does not tell how far the checks got.
        if !desk.is_armed(DeadlineKind::Work) {
            desk.expect_answer(desk.cfg.lookup_wait_ms);
        }
        Drawing { challenge: self, heard_at, why }.into()
    }

    /// Whether the caller has not answered anything before it: neither a number nor, to an app's page, the question.
    fn opens(&self) -> bool {
        self.first.is_none() && !matches!(&self.who, Who::Payer(payer) if payer.agreed.is_some())
    }

    /// How many digits: a few more where there is no other speech to judge.
    fn length(&self, desk: &Desk<'_>) -> usize {
        let more = if self.first.is_none() { ALONE_MORE_DIGITS } else { 0 };
        desk.cfg.challenge.length_digits.saturating_add(more)
    }

    /// Least speech to judge, in milliseconds without pauses.
    fn least_speech_ms(&self, desk: &Desk<'_>) -> u32 {
        let alone = if self.first.is_none() { desk.cfg.policy.voice.min_net_speech_ms } else { 0 };
        desk.cfg.challenge.min_net_speech_ms.max(alone)
    }

    /// The string could not be judged, and no model has looked at it.
    fn unjudged(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        if self.who.person().unclear(desk.cfg) { closing::not_completed(desk) } else { self.draw(desk, None, why) }
    }
}

impl Drawing {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::ChallengeDrawn(outcome)) => {
                let Self { challenge, heard_at, why } = self;
                let reply = match outcome {
                    ChallengeOutcome::Drawn { digits } if speakable(&digits, challenge.length(desk)) => {
                        Reply::AskDigits(Box::new(Ask { challenge, digits, why }))
                    }
                    ChallengeOutcome::Drawn { .. } | ChallengeOutcome::Trouble => Reply::End(closing::service_trouble),
                };
                match heard_at {
                    Some(heard_at) => judging::hold(desk, heard_at, reply),
                    None => {
                        desk.answered();
                        judging::reply(desk, reply)
                    }
                }
            }
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
}

fn speakable(digits: &[u8], length: usize) -> bool {
    digits.len() == length && digits.iter().all(|d| *d <= 9)
}

/// A string that is about to be asked for.
#[derive(Debug)]
pub(super) struct Ask {
    challenge: Challenge,
    digits: Vec<u8>,
    why: Again,
}

/// Asks for it: from now on it ages.
pub(super) fn ask(desk: &mut Desk<'_>, asking: Ask) -> Stage {
    let Ask { challenge, digits, why } = asking;
    let expires_at = desk.now.plus(millis(desk.cfg.challenge.valid_s.saturating_mul(1_000)));
    AskingDigits { challenge, digits, expires_at }.say(desk, why, false)
}

impl AskingDigits {
    fn say(mut self, desk: &mut Desk<'_>, why: Again, repeated: bool) -> Stage {
        let (digits, attempt) = (self.digits.clone(), nth(self.challenge.who.person().tally.challenges));
        // Where nothing went before there is no step before it either: "please repeat these digits after me".
        let plain = repeated || (self.challenge.opens() && why == Again::First);
        let prompt = Prompt::SayDigits { digits: digits.clone(), repeated: plain, attempt, why };
        desk.ask(prompt, ListenFor::Challenge { digits }, false);
        self.into()
    }

    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        let late = desk.now >= self.expires_at;
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(_) if late => self.challenge.unjudged(desk, Again::Late),
            Heard::Utterance(facts) => match advice::unfit(facts, self.challenge.least_speech_ms(desk)) {
                Some(why) => self.challenge.unjudged(desk, why),
                None => {
                    let customer = self.challenge.who.person().customer.clone();
                    desk.push(Effect::ScoreChallenge { customer, digits: self.digits });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    ScoringDigits { challenge: self.challenge, heard_at: desk.now }.into()
                }
            },
            Heard::Nothing if self.challenge.silences >= desk.cfg.silence_limit_reprompts => closing::not_completed(desk),
            Heard::Nothing => {
                self.challenge.silences = self.challenge.silences.saturating_add(1);
                if late {
                    return self.challenge.draw(desk, None, Again::Silence);
                }
                self.say(desk, Again::Silence, true)
            }
        }
    }
}

impl ScoringDigits {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::ChallengeScored(Ok(heard))) => self.judge(desk, heard),
            Event::Told(Told::ChallengeScored(Err(trouble))) => match closing::ending_for(trouble) {
                Some(end) => judging::hold(desk, self.heard_at, Reply::End(end)),
                None => self.unsure(desk),
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

    fn judge(mut self, desk: &mut Desk<'_>, heard: ChallengeHeard) -> Stage {
        let ChallengeHeard { voice, content } = heard;
        let known = self.challenge.who.known(desk, &voice);
        let said = Some((voice.score.clone(), content.clone()));
        let (policy, score) = (&desk.cfg.policy, voice.score.clone());
        let verdict = match &self.challenge.first {
            Some(first) => judge_challenge(policy, first, score, &content, &known),
            None => judge_fresh_digits(policy, score, &content, &known),
        };
        let person = self.challenge.who.person();
        match &mut person.draft {
            Some(draft) if self.challenge.first.is_some() => (draft.challenge, draft.known) = (said, known),
            draft => *draft = Some(Draft { voice: voice.score.clone(), challenge: said, digits_alone: true, known }),
        }
        match verdict {
            VoiceVerdict::Accepted(accepted) => {
                let until = self.heard_at.plus(millis(desk.cfg.challenge.valid_s.saturating_mul(1_000)));
                person.answered = Some(Answered { voice, content, until });
                self.accepted(desk, accepted)
            }
            VoiceVerdict::Inconclusive | VoiceVerdict::StepUp(_) => {
                person.decided(desk, None, Outcome::Inconclusive);
                self.unsure(desk)
            }
            VoiceVerdict::Rejected => {
                person.decided(desk, None, Outcome::Rejected);
                self.rejected(desk)
            }
        }
    }

    fn accepted(self, desk: &mut Desk<'_>, accepted: VoiceAccepted) -> Stage {
        let Self { challenge: Challenge { who, first, keyed, .. }, heard_at } = self;
        match (who, first) {
            (Who::Payer(payer), Some(_)) => judging::compare(desk, payer, accepted, keyed, heard_at),
            (Who::Payer(payer), None) => {
                payer.person.decided(desk, None, Outcome::NumberUnknown);
                mandate::held(desk, payer, accepted)
            }
            (Who::Owner(person), _) => {
                person.decided(desk, None, Outcome::NumberUnknown);
                withdrawal::ask(desk, person)
            }
        }
    }

    fn rejected(self, desk: &mut Desk<'_>) -> Stage {
        let Self { challenge: Challenge { who, first, keyed, silences }, heard_at } = self;
        match who {
            Who::Payer(payer) if first.is_some() => judging::mismatch(desk, payer, heard_at, Factor::Challenge),
            // Whoever can't pay by mandate is asked for everything, as at the first payment.
            Who::Payer(payer) if payer.bound().is_none() => {
                let mut payer = payer.without_mandate();
                let over = payer.person.failed(desk, Factor::Challenge);
                let reply = if over { Reply::Refuse } else { Reply::AskCard(payer, Again::First) };
                judging::hold(desk, heard_at, reply)
            }
            // There is no other way to pay in an app, or to have a voice deleted.
            mut who @ (Who::Payer(_) | Who::Owner(_)) => {
                let over = who.person().failed(desk, Factor::Challenge);
                let challenge = Challenge { who, first: None, keyed, silences };
                if over {
                    let refusal = challenge.who.refusal();
                    return judging::hold(desk, heard_at, refusal);
                }
                challenge.draw(desk, Some(heard_at), Again::NoMatch)
            }
        }
    }

    fn unsure(mut self, desk: &mut Desk<'_>) -> Stage {
        if self.challenge.who.person().unclear(desk.cfg) {
            let refusal = self.challenge.who.refusal();
            return judging::hold(desk, self.heard_at, refusal);
        }
        self.challenge.draw(desk, Some(self.heard_at), Again::NotUnderstood)
    }
}
