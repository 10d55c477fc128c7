//! Whoever picked up says fresh digits after us; words and voice must both hold. Nothing else was said before that the voice could lean
//! on, and nothing of what the call is about is said before this has succeeded.

use super::{Approver, not_confirmed, question};
use crate::clock::Timestamp;
use crate::decision::replay::{Outcome, StoredEvidence};
use crate::decision::{VoiceVerdict, judge_fresh_digits};
use crate::dialogue::advice;
use crate::dialogue::closing;
use crate::dialogue::effect::{Effect, Factor, ListenFor};
use crate::dialogue::input::{ChallengeHeard, ChallengeOutcome, DeadlineKind};
use crate::dialogue::judging::{self, Reply};
use crate::dialogue::line::{Desk, Heard, millis, nth};
use crate::dialogue::prompt::{Again, Prompt};
use crate::dialogue::stage::{Event, Stage, Told};

/// A string is being drawn.
#[derive(Debug)]
pub(in crate::dialogue) struct DrawingAlone {
    approver: Approver,
    /// The utterance that this answers, if it answers one: the reply is then held.
    heard_at: Option<Timestamp>,
    why: Again,
}

/// A string is asked for.
#[derive(Debug)]
pub(in crate::dialogue) struct AskingAlone {
    approver: Approver,
    digits: Vec<u8>,
    expires_at: Timestamp,
    silences: u32,
}

/// What was said is being scored.
#[derive(Debug)]
pub(in crate::dialogue) struct ScoringAlone {
    approver: Approver,
    heard_at: Timestamp,
}

/// A string that is about to be asked for.
#[derive(Debug)]
pub(in crate::dialogue) struct Ask {
    approver: Approver,
    digits: Vec<u8>,
    why: Again,
}

/// Draws a string, or ends the call if there were enough of them.
pub(super) fn draw(desk: &mut Desk<'_>, mut approver: Approver, heard_at: Option<Timestamp>, why: Again) -> Stage {
    if approver.tally.challenges >= desk.cfg.challenge.limit_strings {
        return match heard_at {
            Some(heard_at) => not_confirmed(desk, heard_at),
            None => closing::not_completed(desk),
        };
    }
    approver.tally.challenges = approver.tally.challenges.saturating_add(1);
    let effect = Effect::DrawChallenge { customer: approver.customer.clone(), length: desk.cfg.challenge.length_digits };
    desk.push(effect);
    if !desk.is_armed(DeadlineKind::Work) {
        desk.expect_answer(desk.cfg.lookup_wait_ms);
    }
    DrawingAlone { approver, heard_at, why }.into()
}

/// Asks for a string: from now on it ages.
pub(in crate::dialogue) fn ask(desk: &mut Desk<'_>, asking: Ask) -> Stage {
    let Ask { approver, digits, why } = asking;
    let expires_at = desk.now.plus(millis(desk.cfg.challenge.valid_s.saturating_mul(1_000)));
    AskingAlone { approver, digits, expires_at, silences: 0 }.say(desk, why, false)
}

impl DrawingAlone {
    pub(in crate::dialogue) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
        match event {
            Event::Told(Told::ChallengeDrawn(outcome)) => {
                let Self { approver, heard_at, why } = self;
                let length = desk.cfg.challenge.length_digits;
                let reply = match outcome {
                    ChallengeOutcome::Drawn { digits } if digits.len() == length && digits.iter().all(|d| *d <= 9) => {
                        Reply::AskAlone(Box::new(Ask { approver, digits, why }))
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

impl AskingAlone {
    fn say(self, desk: &mut Desk<'_>, why: Again, repeated: bool) -> Stage {
        let digits = self.digits.clone();
        let attempt = nth(self.approver.tally.challenges);
        // The first string has no step before it: "please repeat these digits after me".
        let plain = repeated || (attempt <= 1 && why == Again::First);
        let prompt = Prompt::SayDigits { digits: digits.clone(), repeated: plain, attempt, why };
        desk.ask(prompt, ListenFor::Challenge { digits }, false);
        self.into()
    }

    /// The string could not be judged, and no model has looked at it.
    fn unjudged(mut self, desk: &mut Desk<'_>, why: Again) -> Stage {
        if self.approver.unclear(desk) { closing::not_completed(desk) } else { draw(desk, self.approver, None, why) }
    }

    pub(in crate::dialogue) fn on(mut self, desk: &mut Desk<'_>, event: Event) -> Stage {
        let late = desk.now >= self.expires_at;
        match desk.hear(event) {
            Heard::Waiting | Heard::Other(_) => self.into(),
            Heard::Utterance(_) if late => self.unjudged(desk, Again::Late),
            Heard::Utterance(facts) => match advice::unfit(facts, desk.cfg.challenge.min_net_speech_ms) {
                Some(why) => self.unjudged(desk, why),
                None => {
                    let customer = self.approver.customer.clone();
                    desk.push(Effect::ScoreChallenge { customer, digits: self.digits });
                    desk.expect_answer(desk.cfg.score_wait_ms);
                    ScoringAlone { approver: self.approver, heard_at: desk.now }.into()
                }
            },
            Heard::Nothing if self.silences >= desk.cfg.silence_limit_reprompts => closing::not_completed(desk),
            Heard::Nothing => {
                self.silences = self.silences.saturating_add(1);
                if late {
                    return draw(desk, self.approver, None, Again::Silence);
                }
                self.say(desk, Again::Silence, true)
            }
        }
    }
}

impl ScoringAlone {
    pub(in crate::dialogue) fn on(self, desk: &mut Desk<'_>, event: Event) -> Stage {
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
        let known = self.approver.known(&voice);
        let verdict = judge_fresh_digits(&desk.cfg.policy, voice.score.clone(), &content, &known);
        let outcome = match &verdict {
            VoiceVerdict::Accepted(_) => Outcome::NumberUnknown, // none is asked for in such a call
            VoiceVerdict::Inconclusive | VoiceVerdict::StepUp(_) => Outcome::Inconclusive,
            VoiceVerdict::Rejected => Outcome::Rejected,
        };
        desk.push(Effect::KeepEvidence(Box::new(StoredEvidence {
            at: desk.now,
            policy: desk.cfg.policy.version.clone(),
            voice: voice.score.clone(),
            challenge: Some((voice.score, content.clone())),
            digits_alone: true,
            number: None,
            known,
            outcome,
        })));
        match verdict {
            VoiceVerdict::Accepted(accepted) => question::look_up(desk, self.approver, accepted, content),
            VoiceVerdict::Inconclusive | VoiceVerdict::StepUp(_) => self.unsure(desk),
            VoiceVerdict::Rejected if self.approver.failed(desk, Factor::Challenge) => not_confirmed(desk, self.heard_at),
            VoiceVerdict::Rejected => draw(desk, self.approver, Some(self.heard_at), Again::NoMatch),
        }
    }

    fn unsure(mut self, desk: &mut Desk<'_>) -> Stage {
        if self.approver.unclear(desk) {
            return not_confirmed(desk, self.heard_at);
        }
        draw(desk, self.approver, Some(self.heard_at), Again::NotUnderstood)
    }
}
