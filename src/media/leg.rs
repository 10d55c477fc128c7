//! A call as the house sees it, whatever brought it here: events in, commands out, both bounded.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::frame::{Frame, SampleRate};

/// Events waiting for the call's task: 2 s of 20 ms frames and some digits. A call that lags further loses audio, not memory.
pub const LEG_EVENT_QUEUE_EVENTS: usize = 128;
/// Commands waiting for the media task.
pub const LEG_COMMAND_QUEUE_COMMANDS: usize = 32;

/// A key of the telephone's keypad (RFC 4733 events 0 to 11).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// 0 to 9.
    Digit(u8),
    /// `*`
    Star,
    /// `#`
    Pound,
}

impl Key {
    /// From an RFC 4733 event code; A to D and flash are no keys of ours.
    pub fn from_event(code: u8) -> Option<Self> {
        match code {
            0..=9 => Some(Self::Digit(code)),
            10 => Some(Self::Star),
            11 => Some(Self::Pound),
            _ => None,
        }
    }

    /// The RFC 4733 event code.
    pub fn event(self) -> u8 {
        match self {
            Self::Digit(d) => d,
            Self::Star => 10,
            Self::Pound => 11,
        }
    }

    /// From `0`-`9`, `*`, `#`.
    pub fn from_char(c: char) -> Option<Self> {
        match c {
            '0'..='9' => c.to_digit(10).and_then(|d| u8::try_from(d).ok()).map(Self::Digit),
            '*' => Some(Self::Star),
            '#' => Some(Self::Pound),
            _ => None,
        }
    }
}

impl fmt::Debug for Key {
    /// Keyed digits may be a card number: they do not print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digit(_) => "Key(digit)",
            Self::Star => "Key(*)",
            Self::Pound => "Key(#)",
        })
    }
}

/// Who says which number is calling, and how far that can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerClaim {
    /// From a P-Asserted-Identity header of a trusted peer (RFC 3325).
    Asserted(String),
    /// From the From header: whatever the caller's side wrote.
    Unverified(String),
    /// Withheld (`anonymous`, or `Privacy: id`).
    Withheld,
}

/// What is known when a call arrives.
#[derive(Clone, Debug)]
pub struct LegInfo {
    /// The signalling's own name for the call (SIP Call-ID), for traces.
    pub protocol_id: String,
    /// Who calls.
    pub caller: CallerClaim,
    /// What was dialled (the user part of the request URI).
    pub called: String,
    /// The peer's address, for limits and records.
    pub peer: String,
    /// Rate of the frames that will come.
    pub rate: SampleRate,
    /// The negotiated codec's name, e.g. `PCMU`.
    pub codec: &'static str,
}

/// Why a leg ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegEnd {
    /// The caller hung up (BYE).
    Caller,
    /// The caller gave up before the answer was acknowledged (CANCEL, missing ACK).
    Abandoned,
    /// No media for longer than the limit.
    MediaTimeout,
    /// Signalling or sockets failed.
    Failed,
}

/// From the media task to the call.
#[derive(Debug)]
pub enum LegEvent {
    /// 20 ms heard (concealed where packets were lost), in order.
    Frame(Frame),
    /// A key was pressed (once a key press, however many packets carried it).
    Key(Key),
    /// The prompt with this number has been played to its end or stopped; `completed` tells which.
    PlayEnded { id: u64, completed: bool },
    /// The leg is gone; nothing comes after.
    Ended(LegEnd),
}

/// From the call to the media task.
#[derive(Debug)]
pub enum LegCommand {
    /// Queue audio behind what is playing.
    Play { id: u64, audio: Arc<Sound> },
    /// Stop and drop whatever is queued; each dropped prompt gets its `PlayEnded`.
    StopPlaying,
    /// Press a key (our softphone): RFC 4733, one after another however fast they are sent; audio waits meanwhile.
    SendKey(Key),
    /// End the call. No event follows: the event channel closes.
    HangUp,
}

/// Audio to play, at any rate; media resamples.
#[derive(Clone, PartialEq, Eq)]
pub struct Sound {
    /// At this rate.
    pub rate: SampleRate,
    /// Mono.
    pub samples: Vec<i16>,
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sound({:?})", self.rate.duration_of(self.samples.len()))
    }
}

/// The call's end of a leg.
#[derive(Debug)]
pub struct Leg {
    /// What is known.
    pub info: LegInfo,
    /// What happens.
    pub events: mpsc::Receiver<LegEvent>,
    /// What to do. When this is dropped the leg hangs up.
    pub commands: mpsc::Sender<LegCommand>,
}

/// The media task's end of a leg.
#[derive(Debug)]
pub struct FarEnd {
    /// To the call.
    pub events: mpsc::Sender<LegEvent>,
    /// From the call.
    pub commands: mpsc::Receiver<LegCommand>,
}

/// Makes both ends.
pub fn pair(info: LegInfo) -> (Leg, FarEnd) {
    let (event_tx, event_rx) = mpsc::channel(LEG_EVENT_QUEUE_EVENTS);
    let (command_tx, command_rx) = mpsc::channel(LEG_COMMAND_QUEUE_COMMANDS);
    (Leg { info, events: event_rx, commands: command_tx }, FarEnd { events: event_tx, commands: command_rx })
}
