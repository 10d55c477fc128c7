//! The states of a live call, and what is the same in all of them: hanging up, cancelling, asking for a person, trouble
//! on our side, a call that takes too long.

use super::approver::{
    AskingAgreement, AskingAlone, Deciding, DrawingAlone, ErrandNews, Fetching, HearingAgreement, Introducing, ScoringAlone,
};
use super::card::{AskingCard, AskingCounting, KeyingCard};
use super::challenge::{AskingDigits, Drawing, ScoringDigits};
use super::charging::Charging;
use super::closing::{self, Closing};
use super::code::{AskingCode, CheckingCode, KeyingCode, ScoringCode, SendingCode};
use super::confirm::{Confirming, HearingAnswer};
use super::connecting::Connecting;
use super::consent::{AskingConsent, HearingConsent};
use super::customer_number::{KeyingCustomerNumber, LookingUp};
use super::effect::CallVerdict;
use super::enrol::{Adding, Saying, Storing};
use super::input::{
    AnswerHeard, ChallengeHeard, ChallengeOutcome, CodeChecked, CodeSent, DeadlineKind, EnrolOutcome, IdentityOutcome, Input,
    InviteOutcome, Keypress, NumberHeard, PaymentOutcome, ScoreTrouble, StoreOutcome, UtteranceFacts, VoiceHeard,
};
use super::invite::{KeyingInvite, Redeeming};
use super::judging::{Holding, ReadingNumber, ScoringVoice};
use super::line::Desk;
use super::mandate::{Granting, HearingOffer, Offering};
use super::prompt::Prompt;
use super::request::ReadingRequest;
use super::welcome::Welcoming;
use super::withdrawal::{AskingDelete, Deleting, HearingDelete};

/// What a state may have to answer, once the line has sifted out what is stale.
#[derive(Debug)]
pub(super) enum Event {
    /// What was playing has been played.
    PromptDone,
    /// A digit 0 to 9 or `#`; `*` and a `0` that asks for a person never come this far.
    Key(Keypress),
    /// Somebody speaks.
    SpeechStarted,
    /// Somebody has spoken.
    Utterance(UtteranceFacts),
    /// Nobody has.
    Nothing,
    /// No further key came.
    NextKeyDue,
    /// A held reply is due.
    ReplyDue,
    /// What was asked of the edge is not answered in time.
    Overdue,
    /// What was asked of the edge is answered.
    Told(Told),
}

/// Answers of the edge. A state that has asked for none of them is past waiting: it ignores them all.
#[derive(Debug)]
pub(super) enum Told {
    Identity(IdentityOutcome),
    VoiceScored(Result<VoiceHeard, ScoreTrouble>),
    ChallengeDrawn(ChallengeOutcome),
    ChallengeScored(Result<ChallengeHeard, ScoreTrouble>),
    NumberRead(Result<NumberHeard, ScoreTrouble>),
    Answer(Result<AnswerHeard, ScoreTrouble>),
    CodeSent(CodeSent),
    CodeScored(Result<ChallengeHeard, ScoreTrouble>),
    CodeChecked(CodeChecked),
    MandateGranted(bool),
    VoiceDeleted(bool),
    InviteRedeemed(InviteOutcome),
    EnrolAdded(EnrolOutcome),
    EnrolStored(StoreOutcome),
    Payment(PaymentOutcome),
    Transferred(bool),
    Errand(ErrandNews),
}

macro_rules! stages {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Where a live call stands: one variant a state.
        #[derive(Debug)]
        pub(super) enum Stage {
            $($(#[$doc])* $name($name),)*
            /// Nothing more will happen.
            Over(CallVerdict),
        }

        $(impl From<$name> for Stage {
            fn from(state: $name) -> Self {
                Self::$name(state)
            }
        })*

        impl Stage {
            pub(super) fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => $text,)*
                    Self::Over(_) => "over",
                }
            }

            /// Hands the event to the state.
            fn on(self, desk: &mut Desk<'_>, event: Event) -> Self {
                match self {
                    $(Self::$name(state) => state.on(desk, event),)*
                    Self::Over(verdict) => Self::Over(verdict),
                }
            }
        }
    };
}

stages! {
    Welcoming => "welcoming",
    KeyingCustomerNumber => "keying customer number",
    LookingUp => "looking up",
    ReadingRequest => "reading request",
    AskingCard => "asking card",
    KeyingCard => "keying card",
    AskingCounting => "asking to count",
    ScoringVoice => "scoring voice",
    ReadingNumber => "reading number",
    Drawing => "drawing digits",
    AskingDigits => "asking digits",
    ScoringDigits => "scoring digits",
    Holding => "holding reply",
    SendingCode => "sending code",
    AskingCode => "asking code",
    KeyingCode => "keying code",
    ScoringCode => "scoring code",
    CheckingCode => "checking code",
    Confirming => "confirming",
    HearingAnswer => "hearing answer",
    Charging => "charging",
    Offering => "offering mandate",
    HearingOffer => "hearing offer",
    Granting => "granting mandate",
    AskingDelete => "asking to delete",
    HearingDelete => "hearing to delete",
    Deleting => "deleting voice",
    KeyingInvite => "keying invitation",
    Redeeming => "redeeming invitation",
    AskingConsent => "asking consent",
    HearingConsent => "hearing consent",
    Saying => "enrolling: asking",
    Adding => "enrolling: adding",
    Storing => "enrolling: storing",
    Introducing => "introducing ourselves",
    DrawingAlone => "drawing digits for whom we called",
    AskingAlone => "asking digits of whom we called",
    ScoringAlone => "scoring digits of whom we called",
    Fetching => "fetching what it is about",
    AskingAgreement => "asking to agree",
    HearingAgreement => "hearing who agrees",
    Deciding => "noting a decision",
    Connecting => "connecting",
    Closing => "closing",
}

/// How far a call has gone, for what comes from outside the dialogue's own order.
enum Reach {
    /// Nothing has been handed over: the call can be dropped at any moment. Tells whether digits are being collected.
    Free { collecting: bool },
    /// Something is being written that the call must hear of, or say that it did not.
    Committed,
    /// It is paid, and something is offered for the next time: nothing that comes undoes that or says otherwise.
    Paid,
    /// The last words.
    Closing,
}

impl Stage {
    fn reach(&self) -> Reach {
        match self {
            Self::KeyingCustomerNumber(_)
            | Self::KeyingCard(_)
            | Self::KeyingInvite(_)
            | Self::AskingCode(_)
            | Self::KeyingCode(_) => Reach::Free { collecting: true },
            Self::Welcoming(_)
            | Self::LookingUp(_)
            | Self::ReadingRequest(_)
            | Self::AskingCard(_)
            | Self::AskingCounting(_)
            | Self::ScoringVoice(_)
            | Self::ReadingNumber(_)
            | Self::Drawing(_)
            | Self::AskingDigits(_)
            | Self::ScoringDigits(_)
            | Self::Holding(_)
            | Self::SendingCode(_)
            | Self::ScoringCode(_)
            | Self::CheckingCode(_)
            | Self::AskingDelete(_)
            | Self::HearingDelete(_)
            | Self::Confirming(_)
            | Self::HearingAnswer(_)
            | Self::Redeeming(_)
            | Self::AskingConsent(_)
            | Self::HearingConsent(_)
            | Self::Saying(_)
            | Self::Adding(_)
            | Self::Introducing(_)
            | Self::DrawingAlone(_)
            | Self::AskingAlone(_)
            | Self::ScoringAlone(_)
            | Self::Fetching(_)
            | Self::AskingAgreement(_)
            | Self::HearingAgreement(_) => Reach::Free { collecting: false },
            Self::Charging(_) | Self::Storing(_) | Self::Connecting(_) | Self::Deleting(_) | Self::Deciding(_) => {
                Reach::Committed
            }
            Self::Offering(_) | Self::HearingOffer(_) | Self::Granting(_) => Reach::Paid,
            Self::Closing(_) | Self::Over(_) => Reach::Closing,
        }
    }

    /// One step: sifts what is stale, answers what is the same everywhere, leaves the rest to the state.
    pub(super) fn step(self, desk: &mut Desk<'_>, input: Input) -> Self {
        if desk.now >= desk.line.hard_end(desk.cfg) {
            return self.gone(desk);
        }
        match input {
            Input::Started { .. } | Input::CalledOut(_) | Input::AppCall(_) => self,
            Input::HungUp => self.gone(desk),
            Input::ServiceTrouble => self.trouble(desk),
            Input::Key(key) => self.key(desk, key),
            Input::Deadline(kind) => self.deadline(desk, kind),
            Input::PromptDone(id) if desk.line.prompt_done(id) => self.on(desk, Event::PromptDone),
            Input::SpeechStarted if desk.line.listening() => self.on(desk, Event::SpeechStarted),
            Input::Utterance(facts) if desk.line.listening() => {
                desk.line.heard_out();
                self.on(desk, Event::Utterance(facts))
            }
            Input::NoSpeech if desk.line.listening() => {
                if desk.listen_on() {
                    return self;
                }
                desk.line.heard_out();
                self.on(desk, Event::Nothing)
            }
            Input::PromptDone(_) | Input::SpeechStarted | Input::Utterance(_) | Input::NoSpeech => self,
            Input::Identity(outcome) => self.on(desk, Event::Told(Told::Identity(outcome))),
            Input::VoiceScored(result) => self.on(desk, Event::Told(Told::VoiceScored(result))),
            Input::ChallengeDrawn(outcome) => self.on(desk, Event::Told(Told::ChallengeDrawn(outcome))),
            Input::ChallengeScored(result) => self.on(desk, Event::Told(Told::ChallengeScored(result))),
            Input::NumberRead(result) => self.on(desk, Event::Told(Told::NumberRead(result))),
            Input::Answer(result) => self.on(desk, Event::Told(Told::Answer(result))),
            Input::CodeSent(outcome) => self.on(desk, Event::Told(Told::CodeSent(outcome))),
            Input::CodeScored(result) => self.on(desk, Event::Told(Told::CodeScored(result))),
            Input::CodeChecked(outcome) => self.on(desk, Event::Told(Told::CodeChecked(outcome))),
            Input::MandateGranted(done) => self.on(desk, Event::Told(Told::MandateGranted(done))),
            Input::VoiceDeleted(done) => self.on(desk, Event::Told(Told::VoiceDeleted(done))),
            Input::InviteRedeemed(outcome) => self.on(desk, Event::Told(Told::InviteRedeemed(outcome))),
            Input::EnrolAdded(outcome) => self.on(desk, Event::Told(Told::EnrolAdded(outcome))),
            Input::EnrolStored(outcome) => self.on(desk, Event::Told(Told::EnrolStored(outcome))),
            Input::Payment(outcome) => self.on(desk, Event::Told(Told::Payment(outcome))),
            Input::Transferred(done) => self.on(desk, Event::Told(Told::Transferred(done))),
            Input::Errand(ErrandNews::Machine) => self.machine(desk),
            Input::Errand(news) => self.on(desk, Event::Told(Told::Errand(news))),
        }
    }

    /// `*` cancels wherever nothing is committed; `0` asks for a person wherever it is not part of a number.
    fn key(self, desk: &mut Desk<'_>, key: Keypress) -> Self {
        match (self.reach(), key) {
            (Reach::Committed | Reach::Closing, _) => self,
            (Reach::Paid, _) => self.on(desk, Event::Key(key)),
            (Reach::Free { .. }, Keypress::Star) => closing::cancelled(desk),
            (Reach::Free { collecting: false }, Keypress::Digit(0)) => closing::person(desk),
            (Reach::Free { .. }, Keypress::Digit(10..)) => self,
            (Reach::Free { .. }, Keypress::Digit(_) | Keypress::Pound) => self.on(desk, Event::Key(key)),
        }
    }

    fn deadline(self, desk: &mut Desk<'_>, kind: DeadlineKind) -> Self {
        if !desk.due(kind) {
            return self;
        }
        match kind {
            DeadlineKind::CallLimit => match self.reach() {
                Reach::Free { .. } => closing::not_completed(desk),
                Reach::Paid => self.on(desk, Event::Overdue),
                // Their own wait bounds them.
                Reach::Committed | Reach::Closing => self,
            },
            DeadlineKind::Closing => self.gone(desk),
            DeadlineKind::Patience => {
                desk.one_moment();
                self
            }
            DeadlineKind::Silence | DeadlineKind::Speech => self.on(desk, Event::Nothing),
            DeadlineKind::NextKey => self.on(desk, Event::NextKeyDue),
            DeadlineKind::Reply => self.on(desk, Event::ReplyDue),
            DeadlineKind::Work => self.on(desk, Event::Overdue),
        }
    }

    /// A machine picked up, not a person: not another word. What was decided before stands.
    fn machine(self, desk: &mut Desk<'_>) -> Self {
        match self.reach() {
            Reach::Free { .. } if desk.line.is_called_out() => {
                desk.rest();
                Self::Over(CallVerdict::Machine)
            }
            Reach::Free { .. } | Reach::Committed | Reach::Paid | Reach::Closing => self,
        }
    }

    /// The line is gone. What was not handed over never will be; what was goes on without us.
    fn gone(self, desk: &mut Desk<'_>) -> Self {
        match self {
            Self::Charging(charging) => charging.gone(desk),
            Self::Closing(closing) => Self::Over(closing.verdict()),
            Self::Connecting(_) => Self::Over(CallVerdict::Person),
            Self::Offering(_) | Self::HearingOffer(_) | Self::Granting(_) => Self::Over(CallVerdict::Paid),
            Self::Over(verdict) => Self::Over(verdict),
            // It may have been noted or not; whoever placed the call looks.
            Self::Deciding(_) => Self::Over(CallVerdict::OutcomeUnknown),
            Self::Welcoming(_)
            | Self::KeyingCustomerNumber(_)
            | Self::LookingUp(_)
            | Self::ReadingRequest(_)
            | Self::AskingCard(_)
            | Self::KeyingCard(_)
            | Self::AskingCounting(_)
            | Self::ScoringVoice(_)
            | Self::ReadingNumber(_)
            | Self::Drawing(_)
            | Self::AskingDigits(_)
            | Self::ScoringDigits(_)
            | Self::Holding(_)
            | Self::SendingCode(_)
            | Self::AskingCode(_)
            | Self::KeyingCode(_)
            | Self::ScoringCode(_)
            | Self::CheckingCode(_)
            | Self::AskingDelete(_)
            | Self::HearingDelete(_)
            | Self::Deleting(_)
            | Self::Confirming(_)
            | Self::HearingAnswer(_)
            | Self::KeyingInvite(_)
            | Self::Redeeming(_)
            | Self::AskingConsent(_)
            | Self::HearingConsent(_)
            | Self::Saying(_)
            | Self::Adding(_)
            | Self::Introducing(_)
            | Self::DrawingAlone(_)
            | Self::AskingAlone(_)
            | Self::ScoringAlone(_)
            | Self::Fetching(_)
            | Self::AskingAgreement(_)
            | Self::HearingAgreement(_)
            | Self::Storing(_) => Self::Over(CallVerdict::Abandoned),
        }
    }

    /// Something on our side failed: fail closed, but never say "nothing was charged" when that is not known.
    fn trouble(self, desk: &mut Desk<'_>) -> Self {
        match self.reach() {
            Reach::Free { .. } => closing::close(desk, CallVerdict::ServiceTrouble, Prompt::ServiceProblem),
            Reach::Committed | Reach::Paid => self.on(desk, Event::Overdue),
            Reach::Closing => self,
        }
    }
}
