//! What of a call may be put on tape. Everything is silence but what is surely harmless, and that list is short: what the service
//! says, unless it is digits to be repeated; and, where the configuration wants it, a caller's short answer to a yes-or-no
//! question, once it was understood as one.
//!
//! The caller's side waits in memory from the question on. It is kept only if the answer is understood, is no longer than a few
//! words, and no key was pressed: whoever says or keys a card number there leaves silence.

use std::sync::Arc;

use crate::decision::Answer;
use crate::dialogue::{Input, ListenFor, Prompt};
use crate::media::frame::{Frame, SampleRate};
use crate::media::leg::Sound;
use crate::media::playout::Playout;
use crate::ops::config::RecordingMode;
use crate::ops::recording::{Moment, Recordings, Tape};

/// Longest answer that is kept, in milliseconds of speech: a yes with a courtesy fits, a card number does not.
const ANSWER_LIMIT_MS: u32 = 1_500;
/// Longest wait for what an answer came to, in moments at the tape's rate times this many seconds; beyond it is silence.
const HOLD_LIMIT_S: u32 = 30;

/// Where calls get their tapes, and what goes on them.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The tapes.
    pub recordings: Arc<Recordings>,
    /// `ops.recording.mode`
    pub mode: RecordingMode,
}

/// Whether the caller may be recorded while this is listened for. An allow-list: a new kind of listening is off until somebody
/// decides otherwise. Off are card numbers, and every utterance that
/// identifies or enrols a voice.
fn may_record(listen_for: &ListenFor) -> bool {
    match listen_for {
        ListenFor::Answer => true,
        ListenFor::CardNumber { .. }
        | ListenFor::Counting
        | ListenFor::Challenge { .. }
        | ListenFor::Code { .. }
        | ListenFor::EnrolDigits { .. } => false,
    }
}

/// Whether the service's words may be recorded. Digits to be repeated are not: who has them and the answer has a challenge.
fn may_record_prompt(prompt: &Prompt) -> bool {
    match prompt {
        Prompt::SayDigits { .. } | Prompt::EnrolSay { .. } => false,
        Prompt::Greeting
        | Prompt::AskCustomerNumber { .. }
        | Prompt::UnknownCaller
        | Prompt::NoOpenRequest
        | Prompt::NoUsableCard
        | Prompt::NotEnrolled
        | Prompt::ReadRequest { .. }
        | Prompt::AskCard { .. }
        | Prompt::AskCounting { .. }
        | Prompt::OneMoment
        | Prompt::ReadBack { .. }
        | Prompt::AskYes { .. }
        | Prompt::AskCode { .. }
        | Prompt::Noting
        | Prompt::Waiting
        | Prompt::NotByPhone
        | Prompt::OfferMandate { .. }
        | Prompt::MandateKept
        | Prompt::MandateNotKept
        | Prompt::AskDelete { .. }
        | Prompt::VoiceDeleted
        | Prompt::VoiceNotDeleted
        | Prompt::NoVoiceToDelete
        | Prompt::Charging
        | Prompt::Paid { .. }
        | Prompt::Declined
        | Prompt::OutcomeUnknown
        | Prompt::Refused
        | Prompt::LockedOut
        | Prompt::Cancelled
        | Prompt::NotCompleted
        | Prompt::Connecting
        | Prompt::Person
        | Prompt::Busy
        | Prompt::ServiceProblem
        | Prompt::AskInviteCode { .. }
        | Prompt::AskConsent { .. }
        | Prompt::EnrolDone
        | Prompt::EnrolFailed
        | Prompt::Callback(_)
        | Prompt::App(_)
        | Prompt::Goodbye => true,
    }
}

/// One call's tape and what it waits for.
#[derive(Debug)]
pub(super) struct Recorder {
    tape: Tape,
    rate: SampleRate,
    speech: bool,
    /// What the service says, at the pace at which it is heard.
    service: Playout,
    /// The caller is on tape now.
    open: bool,
    /// Since a question began: kept or silenced when it is known what the answer came to.
    held: Option<Vec<Moment>>,
}

impl Recorder {
    /// For a call of this name, if there is to be a tape.
    pub(super) fn begin(recording: Option<&Recording>, call: &str, rate: SampleRate) -> Option<Self> {
        let recording = recording?;
        let speech = match recording.mode {
            RecordingMode::Off => return None,
            RecordingMode::Prompts => false,
            RecordingMode::PromptsAndSpeech => true,
        };
        let tape = recording.recordings.begin(call, rate.hz())?;
        Some(Self { tape, rate, speech, service: Playout::new(rate), open: false, held: None })
    }

    /// The service says this.
    pub(super) fn play(&mut self, id: u64, prompt: &Prompt, audio: &Arc<Sound>) {
        let audio = if may_record_prompt(prompt) {
            Arc::clone(audio)
        } else {
            Arc::new(Sound { rate: audio.rate, samples: vec![0; audio.samples.len()] }) // its time passes in silence
        };
        self.service.play(id, audio);
    }

    /// The service says no more.
    pub(super) fn stop_playing(&mut self) {
        drop(self.service.stop());
    }

    /// From now on this is listened for.
    pub(super) fn listen(&mut self, listen_for: &ListenFor) {
        self.settle(false);
        if self.speech && may_record(listen_for) {
            (self.open, self.held) = (true, Some(Vec::new()));
        }
    }

    /// Nothing is listened for any more.
    pub(super) fn stop_listening(&mut self) {
        self.open = false;
    }

    /// An utterance ended, of so much speech. One that is too long for an answer is silenced, whatever it says.
    pub(super) fn heard(&mut self, net_speech_ms: u32) {
        if net_speech_ms > ANSWER_LIMIT_MS {
            self.settle(false);
        }
    }

    /// What the dialogue is told tells what the last answer came to; and a key may be one of a card number's.
    pub(super) fn input(&mut self, input: &Input) {
        match input {
            Input::Answer(Ok(heard)) => self.settle(match heard.answer {
                Answer::Yes | Answer::No | Answer::Cancel => true,
                Answer::Unclear => false,
            }),
            Input::Key(_) | Input::Answer(Err(_)) | Input::HungUp | Input::NoSpeech => self.settle(false),
            _ => {} // nothing else is about what the caller said to a question of yes or no
        }
    }

    /// 20 ms of the call.
    pub(super) fn frame(&mut self, frame: &Frame) {
        let (said, _ended) = self.service.next_frame();
        let length = self.rate.samples_in(std::time::Duration::from_millis(crate::media::playout::FRAME_MS));
        let heard = if self.open && frame.rate == self.rate { frame.samples.as_slice() } else { &[] };
        let said = said.as_ref().map_or(&[][..], |f| f.samples.as_slice());
        let at = |samples: &[i16], n: usize| samples.get(n).copied().unwrap_or(0);
        let moments = (0..length).map(|n| [at(said, n), at(heard, n)]);
        match &mut self.held {
            Some(held) => {
                held.extend(moments);
                let limit = self.rate.samples_in(std::time::Duration::from_secs(u64::from(HOLD_LIMIT_S)));
                if held.len() > limit {
                    self.settle(false);
                }
            }
            None => self.tape.push(moments.collect()),
        }
    }

    /// It is known what was said: onto the tape with it, the caller's side as silence unless it may be kept.
    fn settle(&mut self, keep: bool) {
        self.open = false;
        let Some(mut held) = self.held.take() else { return };
        if !keep {
            held.iter_mut().for_each(|moment| moment[1] = 0);
        }
        self.tape.push(held);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.settle(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::dialogue::{AnswerHeard, Keypress, ScoreTrouble};
    use crate::ops::config::RecordingConfig;

    /// What must never land on a tape, and what may.
    const SECRET: i16 = 12_345;
    const YES: i16 = 777;

    fn frame(sample: i16) -> Frame {
        Frame { rate: SampleRate::HZ_8000, samples: vec![sample; 160] }
    }

    fn say(recorder: &mut Recorder, sample: i16) {
        for _ in 0..10 {
            recorder.frame(&frame(sample));
        }
    }

    fn answer(answer: Answer) -> Input {
        Input::Answer(Ok(AnswerHeard { answer, continuity_cosine: None, heard_before: false }))
    }

    /// The tape's two sides after `call`.
    fn tape(mode: RecordingMode, call: impl FnOnce(&mut Recorder)) -> (Vec<i16>, Vec<i16>) {
        let dir = tempfile::tempdir().unwrap();
        let config = RecordingConfig { mode, dir: dir.path().join("rec"), ..RecordingConfig::default() };
        let recordings = Arc::new(Recordings::start(&config, Arc::new(SystemClock)).unwrap());
        let recording = Recording { recordings, mode };
        let Some(mut recorder) = Recorder::begin(Some(&recording), "call_1", SampleRate::HZ_8000) else {
            return (Vec::new(), Vec::new());
        };
        call(&mut recorder);
        drop((recorder, recording));
        let path = dir.path().join("rec/call_1.wav");
        let samples: Vec<i16> = hound::WavReader::open(path).unwrap().into_samples().map(Result::unwrap).collect();
        (samples.iter().step_by(2).copied().collect(), samples.iter().skip(1).step_by(2).copied().collect())
    }

    #[test]
    fn a_canary_never_lands_whatever_is_listened_for() {
        let (service, caller) = tape(RecordingMode::PromptsAndSpeech, |r| {
            say(r, SECRET); // nothing is listened for
            for listen_for in [
                ListenFor::CardNumber { lengths: vec![16] },
                ListenFor::Counting,
                ListenFor::Challenge { digits: vec![1; 8] },
                ListenFor::Code { length: 6 },
                ListenFor::EnrolDigits { digits: vec![1; 10] },
            ] {
                r.listen(&listen_for);
                say(r, SECRET);
                r.stop_listening();
                r.input(&answer(Answer::Yes)); // even if somebody took it for one
            }
            // A number said, or keyed, where a yes was asked for.
            for ending in [answer(Answer::Unclear), Input::Answer(Err(ScoreTrouble::Failed)), Input::HungUp, Input::NoSpeech] {
                r.listen(&ListenFor::Answer);
                say(r, SECRET);
                r.stop_listening();
                r.input(&ending);
            }
            r.listen(&ListenFor::Answer);
            say(r, SECRET);
            r.heard(ANSWER_LIMIT_MS + 1);
            r.input(&answer(Answer::Yes));
            r.listen(&ListenFor::Answer);
            say(r, SECRET);
            r.input(&Input::Key(Keypress::Digit(4)));
            say(r, SECRET);
            r.input(&answer(Answer::Yes));
            say(r, SECRET);
            // After the answer, and in a question that another one replaces or the call's end cuts off.
            r.listen(&ListenFor::Answer);
            r.stop_listening();
            say(r, SECRET);
            r.input(&answer(Answer::Yes));
            r.listen(&ListenFor::Answer);
            say(r, SECRET);
            r.listen(&ListenFor::Answer);
            say(r, SECRET);
        });
        assert!(caller.iter().all(|s| *s == 0), "the canary is on tape");
        assert_eq!(caller.len(), 160 * 10 * 17, "its time passes in silence: seventeen stretches were said");
        assert!(service.iter().all(|s| *s == 0));
    }

    #[test]
    fn a_short_yes_is_kept_where_it_was_said() {
        let (_, caller) = tape(RecordingMode::PromptsAndSpeech, |r| {
            say(r, SECRET);
            r.listen(&ListenFor::Answer);
            say(r, YES);
            r.stop_listening();
            r.heard(600);
            say(r, SECRET);
            r.input(&answer(Answer::Yes));
        });
        assert_eq!((caller[1_599], caller[1_600], caller[3_199], caller[3_200]), (0, YES, YES, 0));
    }

    #[test]
    fn prompts_are_heard_at_their_pace_and_fresh_digits_are_not() {
        let sound = |sample: i16| Arc::new(Sound { rate: SampleRate::HZ_8000, samples: vec![sample; 1_600] });
        let (service, caller) = tape(RecordingMode::Prompts, |r| {
            r.play(1, &Prompt::Greeting, &sound(500));
            say(r, SECRET);
            let digits =
                Prompt::SayDigits { digits: vec![4; 8], repeated: false, attempt: 1, why: crate::dialogue::Again::First };
            r.play(2, &digits, &sound(SECRET));
            say(r, SECRET);
            r.play(3, &Prompt::Goodbye, &sound(600));
            say(r, SECRET);
            r.listen(&ListenFor::Answer);
            say(r, YES);
            r.input(&answer(Answer::Yes));
        });
        assert!(caller.iter().all(|s| *s == 0), "prompts only");
        assert!((490..=510).contains(&service[800]) && service[1_700..3_100].iter().all(|s| *s == 0) && service[4_000] > 500);
        assert_eq!(tape(RecordingMode::Off, |_| ()).0.len(), 0);
    }
}
