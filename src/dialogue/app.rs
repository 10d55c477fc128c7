//! What is said to somebody before an app's page: there is no telephone to call again with, and no keypad to look for. Whatever is not about
//! that is said as in any call.

use super::prompt::Prompt;

/// One thing that the service says to a page alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppPrompt {
    /// This payment can't be confirmed here. Says neither what nor why.
    NotHere,
    /// It was paid, withdrawn or has run out meanwhile.
    NotOpen,
    /// The payment method that the app has bound can't be used any more.
    NoMethod,
    /// No voice is enrolled.
    NotEnrolled,
    /// Nothing heard, nothing understood, or too late.
    NotCompleted,
    /// No room to listen.
    Busy,
    /// Something on our side failed.
    Trouble,
}

impl AppPrompt {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::NotHere, Self::NotOpen, Self::NoMethod, Self::NotEnrolled, Self::NotCompleted, Self::Busy, Self::Trouble];
}

/// The prompt as it is said to a page. What has no place there becomes words of trouble.
pub(super) fn in_an_app(prompt: Prompt) -> Prompt {
    let words = match prompt {
        Prompt::App(_)
        | Prompt::SayDigits { .. }
        | Prompt::OneMoment
        | Prompt::AskCode { .. }
        | Prompt::ReadBack { .. }
        | Prompt::AskYes { .. }
        | Prompt::Charging
        | Prompt::Noting
        | Prompt::Waiting
        | Prompt::Paid { .. }
        | Prompt::Declined
        | Prompt::OutcomeUnknown
        | Prompt::Refused
        | Prompt::LockedOut
        | Prompt::Cancelled
        | Prompt::Goodbye => return prompt,
        Prompt::NotByPhone | Prompt::Person => AppPrompt::NotHere,
        Prompt::NoOpenRequest => AppPrompt::NotOpen,
        Prompt::NoUsableCard => AppPrompt::NoMethod,
        Prompt::NotEnrolled => AppPrompt::NotEnrolled,
        Prompt::NotCompleted => AppPrompt::NotCompleted,
        Prompt::Busy => AppPrompt::Busy,
        Prompt::ServiceProblem
        | Prompt::Greeting
        | Prompt::ReadRequest { .. }
        | Prompt::AskCustomerNumber { .. }
        | Prompt::UnknownCaller
        | Prompt::AskCard { .. }
        | Prompt::AskCounting { .. }
        | Prompt::OfferMandate { .. }
        | Prompt::MandateKept
        | Prompt::MandateNotKept
        | Prompt::AskDelete { .. }
        | Prompt::VoiceDeleted
        | Prompt::VoiceNotDeleted
        | Prompt::NoVoiceToDelete
        | Prompt::Connecting
        | Prompt::AskInviteCode { .. }
        | Prompt::AskConsent { .. }
        | Prompt::EnrolSay { .. }
        | Prompt::EnrolDone
        | Prompt::EnrolFailed
        | Prompt::Callback(_) => AppPrompt::Trouble,
    };
    Prompt::App(words)
}
