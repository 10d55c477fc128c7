//! A call as the house sees it, whatever brought it here: events in, commands out, both bounded.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::frame::{Frame, SampleRate};
use super::resample::Resampler;
use super::stats::MediaStats;

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

    /// `0`-`9`, `*`, `#`.
    pub fn as_char(self) -> char {
        match self {
            Self::Digit(d) => char::from_digit(d.into(), 10).unwrap_or('0'),
            Self::Star => '*',
            Self::Pound => '#',
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

/// What a signed caller number (STIR/SHAKEN: RFC 8224, RFC 8588) came to. A number that nobody signed is no fault of the
/// caller's; one whose signature does not hold is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attestation {
    /// Nothing was checked: the call has no Identity header that we know, or checking is switched off.
    #[default]
    Absent,
    /// `A`: the signer knows the caller and their right to the number.
    Full,
    /// `B`: the signer knows the caller, not their right to the number.
    Partial,
    /// `C`: the signer knows where the call entered its network, no more.
    Gateway,
    /// An Identity header was there and does not hold.
    Failed(AttestationFault),
}

impl Attestation {
    /// The summary that networks pass on with a call (`verstat`, 3GPP TS 24.229 section 7.2A.20), with the level where there is
    /// one.
    pub fn verstat(self) -> &'static str {
        match self {
            Self::Absent => "No-TN-Validation",
            Self::Full => "TN-Validation-Passed-A",
            Self::Partial => "TN-Validation-Passed-B",
            Self::Gateway => "TN-Validation-Passed-C",
            Self::Failed(_) => "TN-Validation-Failed",
        }
    }

    /// Why it does not hold, where it does not.
    pub fn fault(self) -> Option<AttestationFault> {
        match self {
            Self::Failed(fault) => Some(fault),
            Self::Absent | Self::Full | Self::Partial | Self::Gateway => None,
        }
    }
}

/// Why a signed caller number does not hold, by what is to blame. `sip_status` says which answer RFC 8224 section 6.2.2 has for
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttestationFault {
    /// Signed too long ago, or in the future, or another call has come with it: a copy, or a clock that is wrong.
    Stale,
    /// The header's `info` is missing, malformed, not HTTPS, or of a host that is not allowed.
    InfoRefused,
    /// The certificate could not be fetched.
    InfoUnreachable,
    /// What was fetched is no certificate chain, or one longer than allowed.
    ChainMalformed,
    /// The chain does not lead to a configured root, or a link of it does not hold.
    ChainUntrusted,
    /// A certificate of the chain is not valid now.
    ChainExpired,
    /// A certificate of the chain was revoked.
    ChainRevoked,
    /// The certificate may not sign for this number (RFC 8226: no TNAuthList, or the number lies outside it).
    NumberNotCovered,
    /// The header or its PASSporT breaks the grammar, or its parts contradict each other.
    Malformed,
    /// Another algorithm than ES256.
    Algorithm,
    /// The signature is not the certificate's.
    Signature,
    /// Another calling number was signed than the one that calls.
    OrigMismatch,
    /// Another called number was signed than the one that was called.
    DestMismatch,
}

impl AttestationFault {
    /// Every fault.
    pub const ALL: [Self; 13] = [
        Self::Stale,
        Self::InfoRefused,
        Self::InfoUnreachable,
        Self::ChainMalformed,
        Self::ChainUntrusted,
        Self::ChainExpired,
        Self::ChainRevoked,
        Self::NumberNotCovered,
        Self::Malformed,
        Self::Algorithm,
        Self::Signature,
        Self::OrigMismatch,
        Self::DestMismatch,
    ];

    /// How records and metrics name it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::InfoRefused => "info_refused",
            Self::InfoUnreachable => "info_unreachable",
            Self::ChainMalformed => "chain_malformed",
            Self::ChainUntrusted => "chain_untrusted",
            Self::ChainExpired => "chain_expired",
            Self::ChainRevoked => "chain_revoked",
            Self::NumberNotCovered => "number_not_covered",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::OrigMismatch => "orig_mismatch",
            Self::DestMismatch => "dest_mismatch",
        }
    }

    /// The SIP status and its phrase for a call that is refused for it.
    pub fn sip_status(self) -> (u16, &'static str) {
        match self {
            Self::Stale => (403, "Stale Date"),
            Self::InfoRefused | Self::InfoUnreachable => (436, "Bad Identity Info"),
            Self::ChainMalformed | Self::ChainUntrusted | Self::ChainExpired | Self::ChainRevoked | Self::NumberNotCovered => {
                (437, "Unsupported Credential")
            }
            Self::Malformed | Self::Algorithm | Self::Signature | Self::OrigMismatch | Self::DestMismatch => {
                (438, "Invalid Identity Header")
            }
        }
    }
}

/// What is known when a call arrives.
#[derive(Clone, Debug)]
pub struct LegInfo {
    /// The signalling's own name for the call (SIP Call-ID), for traces.
    pub protocol_id: String,
    /// Who calls.
    pub caller: CallerClaim,
    /// What the signature on the caller's number came to.
    pub attestation: Attestation,
    /// What was dialled (the user part of the request URI).
    pub called: String,
    /// The peer's address, for limits and records.
    pub peer: String,
    /// The trunk's name in the configuration, or the peer's address where it has none.
    pub trunk: String,
    /// What carried the signalling, as in Via (`UDP`, `TCP`, `TLS`); `none` where there was no network.
    pub transport: &'static str,
    /// Whether nobody on the way could listen: TLS and SRTP.
    pub secure: bool,
    /// From the INVITE to our answer, in milliseconds.
    pub setup_ms: u32,
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

/// How the line was, told once when a leg's media is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LegReport {
    /// Who or what ended it; `None`: our side hung up.
    pub end: Option<LegEnd>,
    /// What its packets went through.
    pub stats: MediaStats,
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
    /// The other side put us on hold: no frames come until `Resumed`, and nobody hears what is played; it waits.
    Held,
    /// The hold is over.
    Resumed,
    /// A call of ours was answered; what was heard before was early media.
    Answered,
    /// How the transfer that [`LegCommand::Transfer`] asked for goes.
    Transfer(TransferNews),
    /// The leg is gone; nothing comes after.
    Ended(LegEnd),
}

/// What only signalling can do for a leg; the media session hands it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// [`LegCommand::Hold`].
    Hold,
    /// [`LegCommand::Resume`].
    Resume,
    /// [`LegCommand::Transfer`].
    Transfer {
        /// Whom to call.
        to: String,
        /// The call that is taken over.
        instead_of: Option<Box<CallName>>,
    },
}

/// How a transfer goes. All but `Ringing` are the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferNews {
    /// The other side calls the target.
    Ringing,
    /// The target has the caller; this leg ends by itself.
    Done,
    /// The target did not take the call (300 to 699; 408 also where nobody said how it ended). This leg goes on.
    Failed {
        /// The target's.
        status: u16,
    },
    /// The other side does no transfers (405, 501, 603…). This leg goes on: call the target and bridge (`media::bridge`).
    Refused {
        /// The other side's.
        status: u16,
    },
}

/// What names a call to a third party (RFC 3891), for an attended transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallName {
    /// Call-ID.
    pub call_id: String,
    /// The tag of the side that we talk to.
    pub their_tag: String,
    /// Ours.
    pub our_tag: String,
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
    /// Live audio for the next packet, at the leg's rate: it comes before what is played, and is dropped rather than kept.
    Speak(Frame),
    /// Put the other side on hold.
    Hold,
    /// Take it from hold.
    Resume,
    /// Have the other side call somebody else (REFER). News come as [`LegEvent::Transfer`]; when the target has answered, the leg
    /// hangs up.
    Transfer {
        /// `sip:USER@HOST` or `tel:NUMBER`.
        to: String,
        /// A call of ours with that target, which the other side takes over (attended transfer).
        instead_of: Option<Box<CallName>>,
    },
    /// End the call. No event follows: the event channel closes.
    HangUp,
}

/// Audio to play, at any rate; media resamples. What many calls play is better brought to their rate once ([`Sound::at`]).
#[derive(Clone, PartialEq, Eq)]
pub struct Sound {
    /// At this rate.
    pub rate: SampleRate,
    /// Mono.
    pub samples: Vec<i16>,
}

impl Sound {
    /// The same sound at another rate.
    #[must_use]
    pub fn at(self, rate: SampleRate) -> Self {
        if rate == self.rate {
            return self;
        }
        let mut resampler = Resampler::new(self.rate, rate);
        let mut samples = Vec::new();
        resampler.push(&self.samples, &mut samples);
        resampler.finish(&mut samples);
        samples.shrink_to_fit();
        Self { rate, samples }
    }
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
    /// How the line was, once it is over; legs without packets say nothing.
    pub report: oneshot::Receiver<LegReport>,
}

impl Leg {
    /// How the call is known, and what its line will have gone through once it is over.
    pub fn take_report(&mut self) -> (LegInfo, oneshot::Receiver<LegReport>) {
        (self.info.clone(), std::mem::replace(&mut self.report, oneshot::channel().1))
    }
}

/// The media task's end of a leg.
#[derive(Debug)]
pub struct FarEnd {
    /// To the call.
    pub events: mpsc::Sender<LegEvent>,
    /// From the call.
    pub commands: mpsc::Receiver<LegCommand>,
    /// To whoever keeps records.
    pub report: oneshot::Sender<LegReport>,
}

/// Makes both ends.
pub fn pair(info: LegInfo) -> (Leg, FarEnd) {
    let (event_tx, event_rx) = mpsc::channel(LEG_EVENT_QUEUE_EVENTS);
    let (command_tx, command_rx) = mpsc::channel(LEG_COMMAND_QUEUE_COMMANDS);
    let (report_tx, report_rx) = oneshot::channel();
    let leg = Leg { info, events: event_rx, commands: command_tx, report: report_rx };
    (leg, FarEnd { events: event_tx, commands: command_rx, report: report_tx })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_fault_of_an_attestation_has_its_own_code_and_an_answer_of_rfc_8224() {
        let codes: HashSet<&str> = AttestationFault::ALL.iter().map(|f| f.code()).collect();
        assert_eq!(codes.len(), AttestationFault::ALL.len());
        for fault in AttestationFault::ALL {
            assert!([403, 436, 437, 438].contains(&fault.sip_status().0), "{fault:?}");
            assert_eq!(Attestation::Failed(fault).verstat(), "TN-Validation-Failed");
            assert_eq!(Attestation::Failed(fault).fault(), Some(fault));
        }
        assert_eq!(Attestation::default().verstat(), "No-TN-Validation");
        assert_eq!(Attestation::Full.fault(), None);
    }
}
