//! Everything a call can hear about. The edge (`call/`) turns frames, keys, rows and model outputs into these and hands
//! them in one at a time, in the order in which they happened.

use std::fmt;

use super::approver::{Errand, ErrandNews};
use super::effect::PlayId;
use super::prompt::{SpokenDate, SpokenPayee};
use crate::decision::{Answer, NumberEvidence, PhraseEvidence, VoiceAccepted, VoiceScore};
use crate::e164::E164;
use crate::ids::{CardId, CustomerId, RequestId};
use crate::language::Language;
use crate::money::Money;

/// One thing that happened.
#[derive(Debug)]
pub enum Input {
    /// The call is up. The first of a call that came in.
    Started { caller: Caller },
    /// A person picked up. The first of a call that we placed.
    CalledOut(Box<Errand>),
    /// An app's page is on the line. Its back end has named the customer, what they are to pay and with which card: one request, one card,
    /// which is bound to it ([`Asks::bound`]).
    AppCall(Box<Known>),
    /// What a call that we placed asked for, and what only such a call can hear.
    Errand(ErrandNews),
    /// Answer to [`Effect::LookUp`](super::Effect::LookUp).
    Identity(IdentityOutcome),
    /// A key was pressed.
    Key(Keypress),
    /// While listening: somebody began to speak.
    SpeechStarted,
    /// While listening: an utterance ended. The edge keeps the audio; listening is over until the next `Listen`.
    Utterance(UtteranceFacts),
    /// While listening: the end-pointer gave up without an utterance. Listening is over, but begins anew at once where the
    /// caller still has time: the wait for a first sound is ours (`DeadlineKind::Silence`).
    NoSpeech,
    /// Answer to [`Effect::ScoreVoice`](super::Effect::ScoreVoice).
    VoiceScored(Result<VoiceHeard, ScoreTrouble>),
    /// Answer to [`Effect::DrawChallenge`](super::Effect::DrawChallenge).
    ChallengeDrawn(ChallengeOutcome),
    /// Answer to [`Effect::ScoreChallenge`](super::Effect::ScoreChallenge).
    ChallengeScored(Result<ChallengeHeard, ScoreTrouble>),
    /// Answer to [`Effect::ReadNumber`](super::Effect::ReadNumber) and [`Effect::CompareKeyed`](super::Effect::CompareKeyed).
    NumberRead(Result<NumberHeard, ScoreTrouble>),
    /// Answer to [`Effect::ReadAnswer`](super::Effect::ReadAnswer).
    Answer(Result<AnswerHeard, ScoreTrouble>),
    /// Answer to [`Effect::SendCode`](super::Effect::SendCode).
    CodeSent(CodeSent),
    /// Answer to [`Effect::ScoreCode`](super::Effect::ScoreCode).
    CodeScored(Result<ChallengeHeard, ScoreTrouble>),
    /// Answer to [`Effect::CheckCode`](super::Effect::CheckCode).
    CodeChecked(CodeChecked),
    /// Answer to [`Effect::GrantMandate`](super::Effect::GrantMandate): whether there is a mandate now.
    MandateGranted(bool),
    /// Answer to [`Effect::DeleteVoice`](super::Effect::DeleteVoice): whether it is erased.
    VoiceDeleted(bool),
    /// Answer to [`Effect::RedeemInvite`](super::Effect::RedeemInvite).
    InviteRedeemed(InviteOutcome),
    /// Answer to [`Effect::EnrolAdd`](super::Effect::EnrolAdd).
    EnrolAdded(EnrolOutcome),
    /// Answer to [`Effect::EnrolFinish`](super::Effect::EnrolFinish).
    EnrolStored(StoreOutcome),
    /// This prompt was played to its end. One that was stopped may be reported or not.
    PromptDone(PlayId),
    /// What became of the payment that [`Effect::Charge`](super::Effect::Charge) handed over.
    Payment(PaymentOutcome),
    /// Answer to [`Effect::Transfer`](super::Effect::Transfer): whether a person has the line now.
    Transferred(bool),
    /// A deadline that was set and neither replaced nor cleared has come.
    Deadline(DeadlineKind),
    /// The caller is gone, however that came.
    HungUp,
    /// Something on our side failed: the database, a worker, the leg.
    ServiceTrouble,
}

/// Who calls, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A number that a trusted peer vouches for (P-Asserted-Identity, RFC 3325), or that is signed with full attestation
    /// (RFC 8588) by a certificate that leads to one of our roots.
    Attested(E164),
    /// A number that the caller's side wrote. It nominates a customer like an attested one, but failures made under it
    /// are counted against the number, never against the customer alone: else anyone could lock a customer out.
    Unattested(E164),
    /// A number that is signed (STIR/SHAKEN, RFC 8224), and the signature does not hold. Like an unattested one, and the
    /// policy may ask for more.
    Disputed(E164),
    /// Withheld, or no telephone number.
    Withheld,
}

impl Caller {
    /// The number, if there is one.
    pub fn number(&self) -> Option<&E164> {
        match self {
            Self::Attested(number) | Self::Unattested(number) | Self::Disputed(number) => Some(number),
            Self::Withheld => None,
        }
    }

    /// Whether somebody whom we trust vouches for the number.
    pub fn attested(&self) -> bool {
        match self {
            Self::Attested(_) => true,
            Self::Unattested(_) | Self::Disputed(_) | Self::Withheld => false,
        }
    }

    /// Whether the number is signed and the signature does not hold.
    pub fn disputed(&self) -> bool {
        match self {
            Self::Disputed(_) => true,
            Self::Attested(_) | Self::Unattested(_) | Self::Withheld => false,
        }
    }
}

/// What a caller number or a customer number led to.
#[derive(Clone, Debug, PartialEq)]
pub enum IdentityOutcome {
    /// No customer has it.
    Unknown,
    /// More than one customer has it: it nominates nobody.
    Shared,
    /// This one.
    Known(Box<Known>),
}

/// What the dialogue needs to know of a customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Who.
    pub customer: CustomerId,
    /// In which language we speak with them; the dialogue is the same in all.
    pub language: Language,
    /// Whether a voice is on file.
    pub voice: VoiceOnFile,
    /// Whether an enrolment invitation is open (unexpired, unspent).
    pub has_open_invite: bool,
    /// All cards, usable or not.
    pub cards: Vec<CardOnFile>,
    /// Open payment requests; the first is the one offered (earliest due first).
    pub requests: Vec<OpenRequest>,
    /// Failed factors of the last 24 h that count against *this* call: those recorded against the customer and, when the
    /// look-up was not `attested`, those recorded against this calling number (all withheld ones count as one).
    pub failures_24h: u32,
    /// The customer wants more time: relay services, slow speakers. All waits for the caller are longer; nothing is judged differently.
    pub slow: bool,
}

/// Whether a customer's voice can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoiceOnFile {
    /// None was enrolled.
    None,
    /// One made by the model that runs now.
    Enrolled,
    /// One made by another model version: it is not comparable and counts as none.
    OtherModel,
}

/// A card, without its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardOnFile {
    /// Its token.
    pub id: CardId,
    /// Last four digits as digit values 0 to 9, to be spoken.
    pub last4: [u8; 4],
    /// How many digits its number has, 13 to 19.
    pub length: usize,
    /// Whether it may be charged.
    pub usable: Usable,
}

/// Whether a card may be charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usable {
    /// It may.
    Yes,
    /// Its expiry date has passed.
    Expired,
    /// It was blocked or revoked.
    Blocked,
}

/// Somebody asks the customer for money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// Which request.
    pub id: RequestId,
    /// How much.
    pub amount: Money,
    /// For whom.
    pub payee: SpokenPayee,
    /// By when, if that was said.
    pub due: Option<SpokenDate>,
    /// What the rules ask of whoever pays it by telephone.
    pub asks: Asks,
}

/// What has to hold for a payment beside what every call asks (voice, number, yes): `payment::terms`, as far as a call sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Not by telephone at all.
    pub denied: bool,
    /// Fresh digits in the payer's voice, however sure the voice is.
    pub fresh_digits: bool,
    /// A one-time code that is sent to the payer.
    pub code: bool,
    /// Somebody else has to agree, too: a guardian, a supervisor.
    pub others: bool,
    /// An earlier payment to this payee left a mandate that covers this one, on this card: its number need not be said. Then fresh digits
    /// give the voice, and a code is always asked for.
    pub mandate: Option<CardId>,
    /// Once it is paid, a mandate up to this amount may be offered.
    pub offer_mandate: Option<Money>,
    /// An app has bound this card to the payment: its number is not asked for. Fresh digits give the voice.
    pub bound: Option<CardId>,
}

impl Asks {
    /// Whether a one-time code has to hold: where the rules say so, and wherever no number is said.
    pub fn needs_code(&self) -> bool {
        self.code || self.mandate.is_some()
    }
}

/// A key of the telephone's keypad.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keypress {
    /// 0 to 9; larger values are ignored.
    Digit(u8),
    /// `*`
    Star,
    /// `#`
    Pound,
}

impl fmt::Debug for Keypress {
    /// Keyed digits may be a card number: they do not print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digit(_) => "Keypress(digit)",
            Self::Star => "Keypress(*)",
            Self::Pound => "Keypress(#)",
        })
    }
}

/// What is known of an utterance before any model has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UtteranceFacts {
    /// Speech without pauses, in milliseconds.
    pub net_speech_ms: u32,
    /// From the first to the last speech, in milliseconds.
    pub total_ms: u32,
    /// Whether it is worth a model's time.
    pub quality: UtteranceQuality,
}

/// Whether audio is fit to be judged. Unfit audio is asked for again and never counted as a failed factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UtteranceQuality {
    /// Fit.
    Good,
    /// Less speech than a voice can be judged by (`voice.min_net_speech_ms`).
    TooShort,
    /// Too quiet to tell.
    TooQuiet,
    /// Overdriven.
    Clipped,
    /// Drowned in noise, or too many packets were lost.
    TooNoisy,
    /// More than one person speaks.
    TwoVoices,
}

/// Why a worker gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreTrouble {
    /// Its queue is full: the caller hears that we are busy.
    Overloaded,
    /// It took longer than its deadline.
    TimedOut,
    /// It broke (model, vault, template of another version): the call fails closed.
    Failed,
    /// The audio holds too little to work on: asked again.
    Unusable,
}

/// What the voice's worker says.
#[derive(Clone, Debug, PartialEq)]
pub struct VoiceHeard {
    /// The comparison with the template.
    pub score: VoiceScore,
    /// This audio was heard before: it is a recording.
    pub heard_before: bool,
    /// How much likelier the audio is if it is synthetic, in nats, where that was measured.
    pub spoof_llr: Option<f32>,
}

/// What became of drawing a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChallengeOutcome {
    /// These digits (digit values), which this customer was never asked for before and never will be again.
    Drawn { digits: Vec<u8> },
    /// None could be drawn, or it could not be noted as used.
    Trouble,
}

/// What the workers say of an answer to a challenge.
#[derive(Clone, Debug, PartialEq)]
pub struct ChallengeHeard {
    /// Whether it is the customer's voice.
    pub voice: VoiceHeard,
    /// Whether it is the digits that were asked for.
    pub content: PhraseEvidence,
}

/// What the number's worker says. The proof comes back with it, since the judge asks for it too.
#[derive(Debug)]
pub struct NumberHeard {
    /// The evidence.
    pub evidence: NumberEvidence,
    /// The proof that went out with the effect.
    pub accepted: VoiceAccepted,
}

/// What became of a one-time code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSent {
    /// It is on its way, and an older one is void.
    Sent,
    /// There is no way to send this customer one.
    NoWay,
    /// Enough were sent for this payment.
    Enough,
    /// It could not be made or handed to what sends it.
    Trouble,
}

/// Whether a one-time code was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeChecked {
    /// It was, and is used up.
    Good,
    /// It was not; so many tries are left to this code.
    Wrong { left: u32 },
    /// Its time has passed, or it was used, or it has no tries left.
    Expired,
    /// It could not be checked.
    Trouble,
}

/// What the answer's worker says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerHeard {
    /// What the words mean.
    pub answer: Answer,
    /// Cosine with the utterance whose voice was accepted in this call. `None` where it was not asked for or too little
    /// was said: then no yes is taken for a payment.
    pub continuity_cosine: Option<f32>,
    /// This very sound was heard before: no yes is taken from it.
    pub heard_before: bool,
}

/// What became of an invitation code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteOutcome {
    /// It is right. `challenges`: fresh random digit strings (digit values), at least one a round; more serve re-asking.
    Accepted { challenges: Vec<Vec<u8>> },
    /// Wrong, expired, spent or voided by too many tries: the caller is not told which.
    Rejected,
    /// It could not be checked.
    Trouble,
}

/// What became of one enrolment utterance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolOutcome {
    /// It was taken. `net_speech_total_ms`: net speech of all that were taken.
    Added { net_speech_total_ms: u32 },
    /// Too little speech in it.
    TooShort,
    /// Its voice does not agree with the earlier ones.
    Disagrees,
    /// It was not the digits that were asked for.
    OtherWords,
    /// This very sound was heard before.
    HeardBefore,
    /// No result.
    Trouble(ScoreTrouble),
}

/// What became of the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOutcome {
    /// Stored, and the invitation spent, in one transaction.
    Stored,
    /// The utterances together make no template (they disagree, or the invitation was spent meanwhile).
    Refused,
    /// It could not be stored.
    Trouble,
}

/// What became of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaymentOutcome {
    /// Charged. `reference`: digit values to be spoken.
    Paid { reference: Vec<u8> },
    /// The acquirer said no: nothing was charged.
    Declined,
    /// Handed over, and nobody knows yet.
    Unknown,
    /// The payer's part is kept; it is charged once the others have agreed, and not before.
    Waiting,
    /// A rule refused it before the acquirer heard of it (request paid or withdrawn meanwhile): nothing was charged.
    Refused,
    /// It could not be handed over: nothing was charged.
    NotSubmitted,
}

/// The deadlines a call can have; at most one of each kind runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadlineKind {
    /// The whole call has taken long enough.
    CallLimit,
    /// An answer to an effect (look-up, scoring, payment, …) is overdue.
    Work,
    /// Nobody spoke or keyed after a question.
    Silence,
    /// Speech began and no utterance came of it.
    Speech,
    /// The next key is overdue.
    NextKey,
    /// The caller has heard nothing for a while: say "one moment".
    Patience,
    /// A held reply is due (see `refusal_delay_ms`).
    Reply,
    /// The last words have taken long enough.
    Closing,
}

impl DeadlineKind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::CallLimit, Self::Work, Self::Silence, Self::Speech, Self::NextKey, Self::Patience, Self::Reply, Self::Closing];
}
