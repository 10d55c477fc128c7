//! An app's page confirms a payment by voice: what its back end has bound is looked up once more, and the page is told what is said and what
//! it comes to. Beyond that it is a call like any other.

use std::sync::Arc;

use super::driver::Call;
use super::figures;
use super::page::{PageState, PageTeller, Speaker};
use super::timeline::Who;
use crate::dialogue::{AppPrompt, CallVerdict, Input, Prompt};
use crate::ids::{AppSessionId, CardId, CustomerId, RequestId};
use crate::language::Language;
use crate::payment::AppResult;
use crate::prompts::Book;

/// What an app's back end has bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppCall {
    /// The session.
    pub session: AppSessionId,
    /// Who confirms: the voice has to be theirs.
    pub customer: CustomerId,
    /// What is paid.
    pub request: RequestId,
    /// With which card.
    pub card: CardId,
    /// What is spoken.
    pub language: Language,
}

/// What stands for a caller's words in a caption: that something was heard, and never what.
const HEARD: &str = "…";

impl Call {
    /// What was bound, as it stands now.
    pub(super) async fn bound(&mut self, app: AppCall) -> Input {
        let (services, now) = (Arc::clone(&self.services), self.now());
        self.language = app.language;
        let found = services.off_clock(services.desk.bound(&app, now)).await;
        self.app = Some(app);
        match found {
            Ok(Some((known, clips))) => {
                self.payee_clips.extend(clips);
                Input::AppCall(Box::new(known))
            }
            Ok(None) => {
                self.timeline.add_with(Who::Check, "the customer is gone", figures([]));
                Input::ServiceTrouble
            }
            Err(error) => {
                tracing::error!(call = %self.id, %error, "an app session's payment could not be read");
                Input::ServiceTrouble
            }
        }
    }

    /// Where it stands, for the page.
    pub(super) fn page_state(&self, state: PageState) {
        if let Some(page) = &self.page {
            page.state(state);
        }
    }

    /// Something was said, and is being judged.
    pub(super) fn page_heard(&self) {
        if let Some(page) = &self.page {
            page.caption(Speaker::Caller, HEARD, self.language.code());
            page.state(PageState::Thinking);
        }
    }

    /// The page has lost its network, or is back.
    pub(super) fn page_away(&self, away: bool) {
        if let Some(page) = &self.page {
            page.reconnecting(away);
        }
    }

    /// The call is over. Nothing changes where the page was told already, with the last words.
    pub(super) fn page_over(&mut self, verdict: CallVerdict) {
        let Some(page) = self.page.take() else { return };
        let (told, prompt) = of_verdict(verdict);
        page.result(told, &self.services.prompts.book(self.language).text(&prompt), None);
    }
}

/// What the service says, for the page: its words, the digits that are to be said, and what it came to as soon as that is being said.
pub(super) fn tell_prompt(page: &PageTeller, book: &Book, language: Language, prompt: &Prompt) {
    let text = book.text(prompt);
    page.state(PageState::Prompting);
    page.caption(Speaker::Service, &text, language.code());
    if let Prompt::SayDigits { digits, .. } = prompt {
        let apart: Vec<String> = digits.iter().map(u8::to_string).collect();
        page.digits(&apart.join(" "));
    }
    if let Some(result) = of_last_words(prompt) {
        let reference = match prompt {
            Prompt::Paid { reference, .. } => Some(reference.iter().map(u8::to_string).collect()),
            _ => None, // only a receipt has one
        };
        page.result(result, &text, reference);
    }
}

/// What a call came to by what it says last; `None`: these are no last words.
fn of_last_words(prompt: &Prompt) -> Option<AppResult> {
    match prompt {
        Prompt::Paid { .. } => Some(AppResult::Paid),
        Prompt::Declined => Some(AppResult::Declined),
        // Of an outcome that is not known yet they hear by other means, as where others have to agree.
        Prompt::Waiting | Prompt::OutcomeUnknown => Some(AppResult::Waiting),
        Prompt::Refused | Prompt::LockedOut | Prompt::App(AppPrompt::NotHere) => Some(AppResult::Refused),
        Prompt::Cancelled => Some(AppResult::Cancelled),
        Prompt::App(
            AppPrompt::NotOpen
            | AppPrompt::NoMethod
            | AppPrompt::NotEnrolled
            | AppPrompt::NotCompleted
            | AppPrompt::Busy
            | AppPrompt::Trouble,
        ) => Some(AppResult::Failed),
        _ => None, // questions, and what is said on the way
    }
}

/// What a call came to that ended without last words, and which words would have been its last.
fn of_verdict(verdict: CallVerdict) -> (AppResult, Prompt) {
    match verdict {
        // Told before in every case; kept to "we don't know" here rather than to a receipt without its reference.
        CallVerdict::Paid | CallVerdict::OutcomeUnknown => (AppResult::Waiting, Prompt::OutcomeUnknown),
        CallVerdict::Waiting => (AppResult::Waiting, Prompt::Waiting),
        CallVerdict::Declined => (AppResult::Declined, Prompt::Declined),
        CallVerdict::Refused | CallVerdict::LockedOut => (AppResult::Refused, Prompt::Refused),
        CallVerdict::Cancelled | CallVerdict::Abandoned => (AppResult::Cancelled, Prompt::Cancelled),
        CallVerdict::Busy => (AppResult::Failed, Prompt::App(AppPrompt::Busy)),
        _ => (AppResult::Failed, Prompt::App(AppPrompt::Trouble)), // nothing else can come of such a call
    }
}
