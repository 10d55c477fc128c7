//! What is said in calls that we place, and what of the rest may be said there: whoever picks up a telephone hears nothing of money.

use crate::dialogue::prompt::{Again, Prompt, SpokenPayee};
use crate::money::Money;

/// One thing that the service says in a call that it placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackPrompt {
    /// "This is Voicepay. I have a question that only you can answer…"
    Greeting,
    /// "Somebody whose payments you look after wants to pay {amount} to {payee}. If you agree, say yes. If not, say no."
    Question {
        /// How much.
        amount: Money,
        /// For whom.
        payee: SpokenPayee,
    },
    /// "Do you agree to this payment? Please say yes or no."
    AskYes {
        /// From 1.
        attempt: u8,
        /// Why again.
        why: Again,
    },
    /// Your yes is noted.
    Agreed,
    /// Your no is noted.
    Denied,
    /// This was settled meanwhile.
    Settled,
    /// "The payment of {amount} to {payee} was not agreed to. Nothing was paid."
    NotAgreed {
        /// How much.
        amount: Money,
        /// For whom.
        payee: SpokenPayee,
    },
    /// I could not confirm that it is you.
    NotConfirmed,
    /// I could not finish this by phone just now.
    NotCompleted,
    /// I end this call.
    Cancelled,
    /// You are being connected to a person.
    Connecting,
    /// No person can be reached.
    Person,
    /// Something on our side failed.
    Trouble,
}

impl CallbackPrompt {
    /// Whether it speaks of a payment: then only to a voice that was accepted.
    pub fn speaks_of_money(&self) -> bool {
        match self {
            Self::Question { .. }
            | Self::AskYes { .. }
            | Self::Agreed
            | Self::Denied
            | Self::Settled
            | Self::NotAgreed { .. } => true,
            Self::Greeting
            | Self::NotConfirmed
            | Self::NotCompleted
            | Self::Cancelled
            | Self::Connecting
            | Self::Person
            | Self::Trouble => false,
        }
    }
}

/// The prompt as it is said in a call that we placed: what says "nothing was charged" to a caller says less here. What has no place in
/// such a call becomes words of trouble.
pub(in crate::dialogue) fn in_a_call_back(prompt: Prompt) -> Prompt {
    let words = match prompt {
        Prompt::Callback(_)
        | Prompt::SayDigits { .. }
        | Prompt::OneMoment
        | Prompt::Goodbye
        // To the payer, whose voice was accepted.
        | Prompt::Paid { .. }
        | Prompt::Declined => return prompt,
        Prompt::Refused | Prompt::LockedOut => CallbackPrompt::NotConfirmed,
        Prompt::NotCompleted => CallbackPrompt::NotCompleted,
        Prompt::Cancelled => CallbackPrompt::Cancelled,
        Prompt::Connecting => CallbackPrompt::Connecting,
        Prompt::Person => CallbackPrompt::Person,
        Prompt::Busy
        | Prompt::App(_)
        | Prompt::ServiceProblem
        | Prompt::Greeting
        | Prompt::AskCustomerNumber { .. }
        | Prompt::UnknownCaller
        | Prompt::NoOpenRequest
        | Prompt::NoUsableCard
        | Prompt::NotEnrolled
        | Prompt::ReadRequest { .. }
        | Prompt::AskCard { .. }
        | Prompt::AskCounting { .. }
        | Prompt::ReadBack { .. }
        | Prompt::AskYes { .. }
        | Prompt::Charging
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
        | Prompt::OutcomeUnknown
        | Prompt::AskInviteCode { .. }
        | Prompt::AskConsent { .. }
        | Prompt::EnrolSay { .. }
        | Prompt::EnrolDone
        | Prompt::EnrolFailed => CallbackPrompt::Trouble,
    };
    Prompt::Callback(words)
}
