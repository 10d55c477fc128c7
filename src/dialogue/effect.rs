//! Everything a call can ask of the edge, to be carried out in the order given.

use super::approver::ErrandEffect;
use super::input::DeadlineKind;
use super::prompt::Prompt;
use crate::clock::Timestamp;
use crate::decision::replay::StoredEvidence;
use crate::decision::{VoiceAccepted, VoiceScore};
use crate::e164::E164;
use crate::ids::{CardId, CustomerId, RequestId};
use crate::money::Money;
use crate::secret::SecretBytes;

/// Names one playing of a prompt, so that a late "done" is not taken for the next one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlayId(pub u32);

/// One thing to do.
#[derive(Debug)]
pub enum Effect {
    /// Find the customer: by the keyed customer number (ASCII digits) where given, else by the caller's number. `attested`:
    /// whether an attested caller number nominates the customer (never so for a keyed number); it decides which failures
    /// of the last 24 h count. Answered by `Input::Identity`.
    LookUp { caller: Option<E164>, attested: bool, customer_number: Option<String> },
    /// Play this; nothing else is playing. `Input::PromptDone` with the same id when it was played to its end.
    Play { id: PlayId, prompt: Prompt },
    /// Stop what is playing.
    StopPlaying,
    /// Listen from now on. With `barge_in` a prompt is playing meanwhile: keep its echo from counting as speech.
    /// Ends by itself with `Input::Utterance` or `Input::NoSpeech`. A new `Listen` replaces an old one. The wait for a first
    /// sound is ours (`DeadlineKind::Silence`): it starts when the prompt is done.
    Listen { listen_for: ListenFor, barge_in: bool },
    /// Stop listening and drop what was heard.
    StopListening,
    /// Compare the last utterance with the customer's template. Answered by `Input::VoiceScored`.
    ScoreVoice { customer: CustomerId },
    /// Draw digits that this customer was never asked for, and note them as used before they are said: `length` of them, none hard
    /// to say. Answered by `Input::ChallengeDrawn`.
    DrawChallenge { customer: CustomerId, length: usize },
    /// Compare the last utterance with the customer's template, and its words with these digits. Answered by
    /// `Input::ChallengeScored`.
    ScoreChallenge { customer: CustomerId, digits: Vec<u8> },
    /// Score the last utterance that was listened to as a card number (a challenge may have been answered since) against these cards'
    /// numbers. Answered by `Input::NumberRead`, with the proof.
    ReadNumber { accepted: VoiceAccepted, customer: CustomerId, cards: Vec<CardId> },
    /// Compare keyed digits (digit values 0 to 9) with these cards by keyed digest. Answered by `Input::NumberRead`.
    CompareKeyed { accepted: VoiceAccepted, customer: CustomerId, cards: Vec<CardId>, digits: SecretBytes },
    /// What does the last utterance answer, and in whose voice? Answered by `Input::Answer`.
    ReadAnswer { voice: AnswerVoice },
    /// Send the customer a one-time code for this request; an older one for it is void from now on. Answered by `Input::CodeSent`.
    SendCode { customer: CustomerId, request: RequestId },
    /// Compare the last utterance with the customer's template, and its words with the code that was sent. Answered by `Input::CodeScored`.
    ScoreCode { customer: CustomerId, request: RequestId },
    /// Use the code up, or count a wrong try at it, durably. Answered by `Input::CodeChecked`.
    CheckCode { customer: CustomerId, request: RequestId, given: CodeGiven },
    /// The payer agreed to a mandate: payments of this payee, of up to `cap` each, on this card, without its number. The customer
    /// is told by other means. Answered by `Input::MandateGranted`.
    GrantMandate(Box<MandateGrant>),
    /// Erase the customer's template and whatever was made of it, and tell the customer. Answered by `Input::VoiceDeleted`.
    DeleteVoice { customer: CustomerId, consent: Consent },
    /// Check this invitation code (digit values 0 to 9) of this customer, counting wrong tries across calls. It is spent only
    /// by `EnrolFinish`. Answered by `Input::InviteRedeemed`.
    RedeemInvite { customer: CustomerId, code: SecretBytes },
    /// Add the last utterance to the enrolment; `digits` is what was asked for. Answered by `Input::EnrolAdded`.
    EnrolAdd { customer: CustomerId, digits: Vec<u8> },
    /// Store template and consent and spend the invitation, in one transaction. Answered by `Input::EnrolStored`.
    EnrolFinish { customer: CustomerId, consent: Consent },
    /// Count a failed factor, durably, before anything else is done: against the customer when `attested`, else against the
    /// calling number (all withheld ones count as one), so that nobody can lock out somebody else.
    RecordFailure { customer: CustomerId, caller: Option<E164>, attested: bool, factor: Factor },
    /// Both factors and the yes held.
    RecordSuccess { customer: CustomerId },
    /// Keep with the call what a verdict was made on: scores, never audio.
    KeepEvidence(Box<StoredEvidence>),
    /// Hand this payment over, once. Answered by `Input::Payment`; it goes on whether or not the caller stays.
    Charge(Box<Charge>),
    /// It is paid, and the caller said fresh digits in this voice: the customer's template may follow it by a step, if the customer agreed
    /// and nothing speaks against it (`decision::refresh`). Nobody waits for it.
    FollowVoice { customer: CustomerId, voice: VoiceScore, unblemished: bool },
    /// From now on this caller has more time: pauses end no utterance as soon, and what is said by digits is said with longer gaps.
    SlowDown,
    /// Report `Input::Deadline(kind)` at `at`. Replaces an earlier one of this kind.
    SetDeadline { kind: DeadlineKind, at: Timestamp },
    /// Forget the deadline of this kind.
    ClearDeadline(DeadlineKind),
    /// Tell the customer by other means, through the outbox.
    Notify { customer: CustomerId, notice: Notice },
    /// What only a call that we placed asks for.
    Errand(ErrandEffect),
    /// Hand the line to the person that the configuration names (`dialogue.person`). Answered by `Input::Transferred`.
    Transfer,
    /// The last effect of every call, exactly once: hang up if the line is still up, and record the verdict.
    HangUp(CallVerdict),
}

/// What is listened for: how end-pointing is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenFor {
    /// A card number. Pauses between groups do not end it; free decoding that is complete, Luhn-valid and of one of
    /// these lengths (sorted, in digits) does, early.
    CardNumber { lengths: Vec<usize> },
    /// "One, two, three … ten": only the voice matters.
    Counting,
    /// These fresh digits (digit values), said after us.
    Challenge { digits: Vec<u8> },
    /// A one-time code, which we don't know: so many digits.
    Code { length: usize },
    /// These digits (digit values), for enrolment.
    EnrolDigits { digits: Vec<u8> },
    /// Yes, no, cancel.
    Answer,
}

/// Which factor failed. The caller never learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Factor {
    /// The voice.
    Voice,
    /// The card number.
    Number,
    /// The answer to a challenge: other digits, or another voice.
    Challenge,
    /// A one-time code: another one, or in another voice.
    Code,
}

/// How a one-time code was given.
#[derive(Debug)]
pub enum CodeGiven {
    /// Keyed: digit values 0 to 9.
    Keyed(SecretBytes),
    /// Spoken: words and voice held.
    Spoken,
    /// Something else was said, or in another voice: a wrong try.
    SpokenOtherwise,
}

/// What a payer agreed to for the payments to come.
#[derive(Clone, Debug, PartialEq)]
pub struct MandateGrant {
    /// Who pays.
    pub customer: CustomerId,
    /// The request that was paid in this call: it names the payee.
    pub request: RequestId,
    /// Which card.
    pub card: CardId,
    /// How much a payment at most.
    pub cap: Money,
    /// That the caller said yes to it.
    pub consent: Consent,
    /// Cosine of that yes with the accepted utterance.
    pub continuity_cosine: f32,
}

/// With what the voice of an answer is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerVoice {
    /// With nothing.
    Any,
    /// With the utterance whose voice was accepted in this call.
    AsBefore,
    /// With this customer's template: in this call nothing was accepted before it.
    AsEnrolled(CustomerId),
}

/// That the caller agreed: to the voiceprint being kept or erased, to a mandate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// When the spoken yes was understood.
    pub at: Timestamp,
    /// Under which policy.
    pub policy_version: String,
}

/// A payment that everything speaks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge {
    /// Who pays.
    pub customer: CustomerId,
    /// Which request.
    pub request: RequestId,
    /// How much was read back.
    pub amount: Money,
    /// Which card.
    pub card: CardId,
    /// Why it may be charged, for the audit row.
    pub approval: Approval,
}

/// The evidence a payment was approved on. No audio, no embedding, no number.
#[derive(Clone, Debug, PartialEq)]
pub struct Approval {
    /// Cosine of the accepted voice.
    pub voice_cosine: f32,
    /// Its calibrated ratio, in nats.
    pub voice_llr: f32,
    /// Net speech it was measured on, in milliseconds.
    pub voice_net_speech_ms: u32,
    /// Model and centring that made the score.
    pub voice_model: String,
    /// How the number was given.
    pub number: NumberSummary,
    /// Whether fresh digits were said in this voice, for this payment.
    pub fresh_digits: bool,
    /// Whether a one-time code held, and how it was given.
    pub code: Option<CodeBy>,
    /// Whether others had to agree, as far as this call knew.
    pub others: bool,
    /// Cosine of the yes with the accepted utterance; in an app's call with the template.
    pub continuity_cosine: f32,
    /// Thresholds and limits in force.
    pub policy_version: String,
}

/// How an accepted number was given.
#[derive(Clone, Debug, PartialEq)]
pub enum NumberSummary {
    /// Spoken.
    Spoken { log_ratio: f32, llr: f32, engine: String },
    /// Keyed.
    Keyed,
    /// Not at all: a mandate names the card.
    Mandate,
    /// Not at all: an app has bound the card.
    Bound,
}

/// How a one-time code that held was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeBy {
    /// On the keypad.
    Keyed,
    /// In the accepted voice.
    Spoken,
}

/// What a customer is told by other means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Too many failed tries of late: the voice line is closed for a while.
    TooManyFailures,
    /// A voice was enrolled (or replaced).
    VoiceEnrolled,
    /// The call ended before the payment's outcome was known: it will be told.
    OutcomePending,
}

/// How a call ended: every call ends in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallVerdict {
    /// Charged, and the caller was told.
    Paid,
    /// The payer's part is done; others have to agree before it is charged.
    Waiting,
    /// A voice was enrolled.
    Enrolled,
    /// A voice was deleted.
    Withdrawn,
    /// Voice or number did not hold, or a rule refused the payment.
    Refused,
    /// The caller said no or pressed `*`.
    Cancelled,
    /// No customer stands behind the call.
    UnknownCaller,
    /// No open request.
    NothingToPay,
    /// No card that may be charged.
    NoCard,
    /// No voice to compare with, and no invitation.
    NotEnrolled,
    /// An enrolment was begun and came to nothing.
    EnrolFailed,
    /// The acquirer declined.
    Declined,
    /// Handed over for charging, and this call did not learn how it ended.
    OutcomeUnknown,
    /// Too many failures in 24 h.
    LockedOut,
    /// The caller hung up, fell silent, could not be understood or took too long; nothing was charged.
    Abandoned,
    /// A worker's queue was full or too slow; nothing was charged.
    Busy,
    /// Something on our side failed; nothing was charged.
    ServiceTrouble,
    /// The caller asked for a person.
    Person,
    /// We called: they agreed to the payment, and it is noted.
    Agreed,
    /// We called: they did not agree to the payment, and it is noted.
    Disagreed,
    /// We called: it was settled meanwhile.
    Settled,
    /// We called: they heard what became of the payment.
    Told,
    /// We called: a machine picked up, and nothing was said of a payment.
    Machine,
}
