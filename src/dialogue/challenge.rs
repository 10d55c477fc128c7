//! Fresh digits: where the voice alone does not settle it, or by policy, the caller says digits after us that nobody can have a
//! recording of. Words and voice must both hold. Then the card number that was said (or keyed) before is compared.
//!
//! A string is judged once. Silence repeats it while it is valid; a late, unfit or unsure answer draws another one, up to
//! `challenge.limit_strings` in a call. No barge-in: half a string is none, and our own voice must not end up in the answer.

use super::advice;
use super::closing;
use super::effect::{Effect, Factor, ListenFor};
use super::input::{ChallengeHeard, ChallengeOutcome, DeadlineKind, VoiceHeard};
use super::judging::{self, Keyed, Reply};
use super::line::{Desk, Heard, millis, nth};
use super::payer::Payer;
use super::prompt::{Again, Prompt};
use super::stage::{Event, Stage, Told};
use crate::clock::Timestamp;
use crate::decision::replay::Outcome;
use crate::decision::{PhraseEvidence, VoiceAccepted, VoiceScore, VoiceVerdict, judge_challenge};

/// A challenge from its first string to its end.
#[derive(Debug)]
pub(super) struct Challenge {
    payer: Payer,
    /// The utterance that led here.
    first: VoiceScore,
    /// Its number, if that was keyed.
    keyed: Option<Keyed>,
    silences: u32,
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
    let Answered { voice, content, .. } = payer.answered(desk.now)?;
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
    Challenge { payer, first, keyed, silences: 0 }.draw(desk, Some(heard_at), Again::First)
}

impl Challenge {
    /// Draws a string, or refuses if there were enough of them.
    fn draw(mut self, desk: &mut Desk<'_>, heard_at: Option<Timestamp>, why: Again) -> Stage {
        let tally = &mut self.payer.tally;
        if tally.challenges >= desk.cfg.challenge.limit_strings {
            return match heard_at {
                Some(heard_at) => judging::hold(desk, heard_at, Reply::Refuse),
                None => closing::not_completed(desk),
            };
        }
        tally.challenges = tally.challenges.saturating_add(1);
        let effect = Effect::DrawChallenge { customer: self.payer.customer.clone(), length: desk.cfg.challenge.length_digits };
        desk.push(effect);
        // One wait for all that one utterance leads to: when it ends does not tell how far the checks got.
        if !desk.is_armed(DeadlineKind::Work) {
            desk.expect_answer(desk.cfg.lookup_wait_ms);
        }
        Drawing { challenge: self, heard_at, why }.into()
    }

    /// The string could not be judged, and no model has looked at it.
    fn unjudged(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        if self.payer.unclear(desk.cfg) { closing::not_completed(desk) } else { self.draw(desk, None, why) }
    }
}

impl Drawing {
    pub(super) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::ChallengeDrawn(outcome)) => {
                let Self { challenge, heard_at, why } = self;
                let reply = match outcome {
                    ChallengeOutcome::Drawn { digits } if speakable(&digits, desk.cfg.challenge.length_digits) => {
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
    fn say(self, desk: &mut Desk<'_>, why: Again, repeated: bool) -> Stage {
        let (digits, attempt) = (self.digits.clone(), nth(self.challenge.payer.tally.challenges));
        let prompt = Prompt::SayDigits { digits: digits.clone(), repeated, attempt, why };
        desk.ask(prompt, ListenFor::Challenge { digits }, false);
        self.into()
    }

    pub(super) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        let late = desk.now >= self.expires_at;
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(_) if late => self.challenge.unjudged(desk, Again::Late),
            Heard::Utterance(facts) => match advice::unfit(facts, desk.cfg.challenge.min_net_speech_ms) {
                Some(why) => self.challenge.unjudged(desk, why),
                None => {
                    let customer = self.challenge.payer.customer.clone();
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

    fn judge(self, desk: &mut Desk<'_>, heard: ChallengeHeard) -> Stage {
        let Self { challenge: Challenge { mut payer, first, keyed, silences }, heard_at } = self;
        let ChallengeHeard { voice, content } = heard;
        let known = payer.known(desk, Some(&voice));
        if let Some(draft) = &mut payer.draft {
            (draft.challenge, draft.known) = (Some((voice.score.clone(), content.clone())), known);
        }
        match judge_challenge(&desk.cfg.policy, &first, voice.score.clone(), &content, &known) {
            VoiceVerdict::Accepted(accepted) => {
                let until = heard_at.plus(millis(desk.cfg.challenge.valid_s.saturating_mul(1_000)));
                payer.answered = Some(Answered { voice, content, until });
                judging::compare(desk, payer, accepted, keyed, heard_at)
            }
            VoiceVerdict::Inconclusive | VoiceVerdict::StepUp(_) => {
                payer.decided(desk, None, Outcome::Inconclusive);
                Self { challenge: Challenge { payer, first, keyed, silences }, heard_at }.unsure(desk)
            }
            VoiceVerdict::Rejected => {
                payer.decided(desk, None, Outcome::Rejected);
                judging::mismatch(desk, payer, heard_at, Factor::Challenge)
            }
        }
    }

    fn unsure(mut self, desk: &mut Desk<'_>) -> Stage {
        if self.challenge.payer.unclear(desk.cfg) {
            return judging::hold(desk, self.heard_at, Reply::Refuse);
        }
        self.challenge.draw(desk, Some(self.heard_at), Again::NotUnderstood)
    }
}
