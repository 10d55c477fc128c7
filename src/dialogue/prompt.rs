//! Everything the service can say, as values. `prompts/` turns one into recorded pieces; the wording is in `prompts/en.toml`.

use super::app::AppPrompt;
use super::approver::CallbackPrompt;
use crate::ids::PayeeId;
use crate::money::Money;

/// A payee as it is spoken: its recorded name where there is one, else spelt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpokenPayee {
    /// Whose recording to play.
    pub id: PayeeId,
    /// The written name, for logs and for spelling.
    pub name: String,
}

/// A calendar day to be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpokenDate {
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

/// Why a question is asked again; each has words of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Asked for the first time.
    First,
    /// Nothing was heard.
    Silence,
    /// Something was heard, but not understood.
    NotUnderstood,
    /// There was too little of it.
    TooShort,
    /// It was too quiet.
    TooQuiet,
    /// It was overdriven.
    TooLoud,
    /// There was noise around it.
    TooNoisy,
    /// More than one person spoke.
    TwoVoices,
    /// It came after its time: these are other digits.
    Late,
    /// It did not match. Never says whether voice or number failed.
    NoMatch,
}

impl Prompt {
    /// Whom it names as the one who gets the money.
    pub fn payee(&self) -> Option<&SpokenPayee> {
        match self {
            Self::ReadRequest { payee, .. }
            | Self::ReadBack { payee, .. }
            | Self::Paid { payee, .. }
            | Self::OfferMandate { payee, .. }
            | Self::Callback(CallbackPrompt::Question { payee, .. } | CallbackPrompt::NotAgreed { payee, .. }) => Some(payee),
            _ => None, // the others name nobody
        }
    }
}

/// One thing that the service says. `attempt` starts at 1; a prompt is worded for each attempt (3 and more share).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// "Welcome to Voicepay. Your voice is used to confirm it is you…"
    Greeting,
    /// Key your customer number, then hash.
    AskCustomerNumber { attempt: u8 },
    /// No customer stands behind this call: goodbye. No card was asked for.
    UnknownCaller,
    /// Nothing is waiting to be paid.
    NoOpenRequest,
    /// No card is authorised, or it is expired or blocked.
    NoUsableCard,
    /// No voice is enrolled: how to get an invitation.
    NotEnrolled,
    /// "{payee} asks you to pay {amount}[, due {date}]."
    ReadRequest { amount: Money, payee: SpokenPayee, due: Option<SpokenDate> },
    /// "Please say your card number" in its variants.
    AskCard { attempt: u8, why: Again },
    /// The number was keyed; to hear the voice: "please count slowly from one to ten".
    AskCounting { attempt: u8, why: Again },
    /// Fresh digits, to be said after us. `repeated`: the same ones again, since nothing was heard.
    SayDigits { digits: Vec<u8>, repeated: bool, attempt: u8, why: Again },
    /// "One moment."
    OneMoment,
    /// "I have sent you a code": to be said or keyed. `attempt`: of answers; `sent`: how many were sent.
    AskCode { sent: u8, attempt: u8, why: Again },
    /// "I will charge {amount} to the card ending {last4}, for {payee}. Say yes to pay, or no." `others`: once they agree, too.
    ReadBack { amount: Money, payee: SpokenPayee, last4: [u8; 4], others: bool },
    /// "Please say yes or no."
    AskYes { attempt: u8, why: Again },
    /// "Thank you. Paying now."
    Charging,
    /// "Thank you. I note that you agree."
    Noting,
    /// Noted; it is paid once the others agree, and the caller will be told.
    Waiting,
    /// This can't be paid by telephone. Says neither what nor why.
    NotByPhone,
    /// Shall the card be kept for this payee, up to {cap}? Say yes or no.
    OfferMandate { payee: SpokenPayee, cap: Money, attempt: u8, why: Again },
    /// It is kept.
    MandateKept,
    /// It is not; what was paid stays paid.
    MandateNotKept,
    /// Shall the voice be deleted? Say yes or no.
    AskDelete { attempt: u8, why: Again },
    /// It is deleted.
    VoiceDeleted,
    /// It is not: who calls could not be confirmed, or did not want it after all.
    VoiceNotDeleted,
    /// There is none that a call could delete.
    NoVoiceToDelete,
    /// "Paid {amount} to {payee}. Your reference is {reference}."
    Paid { amount: Money, payee: SpokenPayee, reference: Vec<u8> },
    /// The card was declined; nothing was charged.
    Declined,
    /// We could not learn the outcome yet: don't pay again, we will tell you.
    OutcomeUnknown,
    /// The one shape of a refusal: same words whichever factor failed.
    Refused,
    /// Too many failed tries of late: another way is needed.
    LockedOut,
    /// Nothing was paid, as you wished.
    Cancelled,
    /// We could not finish this by phone just now (nothing heard, nothing understood, too long); nothing was paid.
    NotCompleted,
    /// The caller is being connected to a person.
    Connecting,
    /// No person can be reached by this line for now; how to reach one.
    Person,
    /// All lines that can listen are busy: please call again; nothing was charged.
    Busy,
    /// Something on our side failed; nothing was charged.
    ServiceProblem,
    /// Enrolment: key your invitation code, then hash.
    AskInviteCode { attempt: u8, why: Again },
    /// Enrolment: what is kept and what for; say yes to agree.
    AskConsent { attempt: u8, why: Again },
    /// Enrolment: "please say: 3 7 1…", `round` of `rounds`.
    EnrolSay { round: u8, rounds: u8, digits: Vec<u8>, attempt: u8, why: Again },
    /// Enrolment: your voice is stored.
    EnrolDone,
    /// Enrolment failed: nothing was stored.
    EnrolFailed,
    /// Goodbye.
    Goodbye,
    /// In a call that we placed.
    Callback(CallbackPrompt),
    /// To an app's page.
    App(AppPrompt),
}
