//! What a page sees of its call: a teller at the call's end, and readers that may come late, leave and come again. Bounded: whoever reads too
//! slowly loses events, and finds the state of now when it reads again.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::payment::AppResult;

/// Events that a reader may fall behind by.
const BEHIND_LIMIT_EVENTS: usize = 64;

/// Where a page's call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageState {
    /// No sound yet.
    Connecting,
    /// The service speaks.
    Prompting,
    /// The service listens.
    Listening,
    /// What was said is judged.
    Thinking,
    /// The network went away.
    Reconnecting,
    /// It ended.
    Over,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// We.
    Service,
    /// Whoever is before the page.
    Caller,
}

/// What a page is told: web/PROTOCOL.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PageEvent {
    /// Where it stands.
    State {
        /// So.
        state: PageState,
    },
    /// What was said.
    Caption {
        /// By whom.
        who: Speaker,
        /// What.
        text: String,
        /// In which language.
        lang: &'static str,
    },
    /// Fresh digits to be said.
    Digits {
        /// With spaces between them.
        digits: String,
    },
    /// What it came to; the last one.
    Result {
        /// In a word.
        result: AppResult,
        /// In a sentence.
        text: String,
        /// The receipt's reference.
        reference: Option<String>,
    },
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageResult {
    /// In a word.
    pub result: AppResult,
    /// In a sentence.
    pub text: String,
    /// The receipt's reference.
    pub reference: Option<String>,
}

#[derive(Debug)]
struct Now {
    state: PageState,
    before: PageState,
    caption: Option<PageEvent>,
    digits: Option<PageEvent>,
    result: Option<PageResult>,
}

#[derive(Debug)]
struct Page {
    now: Mutex<Now>,
    events: broadcast::Sender<PageEvent>,
}

/// Tells.
#[derive(Debug)]
pub struct PageTeller(Arc<Page>);

/// Reads.
#[derive(Clone, Debug)]
pub struct PageReader(Arc<Page>);

/// Both ends.
pub fn page() -> (PageTeller, PageReader) {
    let (events, _nobody_yet) = broadcast::channel(BEHIND_LIMIT_EVENTS);
    let connecting = PageState::Connecting;
    let now = Now { state: connecting, before: connecting, caption: None, digits: None, result: None };
    let page = Arc::new(Page { now: Mutex::new(now), events });
    (PageTeller(Arc::clone(&page)), PageReader(page))
}

impl Page {
    fn tell(&self, change: impl FnOnce(&mut Now) -> Vec<PageEvent>) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.result.is_some() {
            return;
        }
        // Sent while it is locked: who begins to follow gets each event once.
        for event in change(&mut now) {
            let _nobody_reads = self.events.send(event);
        }
    }
}

impl PageTeller {
    /// Where it stands now.
    pub fn state(&self, state: PageState) {
        self.0.tell(|now| {
            if state == PageState::Thinking {
                now.digits = None; // they are said
            }
            // What goes on behind a network that is away shows once it is back.
            if now.state == PageState::Reconnecting {
                now.before = state;
                return Vec::new();
            }
            now.state = state;
            vec![PageEvent::State { state }]
        });
    }

    /// Something was said.
    pub fn caption(&self, who: Speaker, text: &str, lang: &'static str) {
        let event = PageEvent::Caption { who, text: text.to_owned(), lang };
        self.0.tell(|now| {
            now.caption = Some(event.clone());
            vec![event]
        });
    }

    /// Digits are to be said.
    pub fn digits(&self, digits: &str) {
        let event = PageEvent::Digits { digits: digits.to_owned() };
        self.0.tell(|now| {
            now.digits = Some(event.clone());
            vec![event]
        });
    }

    /// The network went away, or is back.
    pub fn reconnecting(&self, away: bool) {
        self.0.tell(|now| {
            match (away, now.state) {
                (true, PageState::Reconnecting) => return Vec::new(),
                (true, before) => (now.before, now.state) = (before, PageState::Reconnecting),
                (false, PageState::Reconnecting) => now.state = now.before,
                (false, _) => return Vec::new(),
            }
            vec![PageEvent::State { state: now.state }]
        });
    }

    /// It ended.
    pub fn result(&self, result: AppResult, text: &str, reference: Option<String>) {
        let told = PageResult { result, text: text.to_owned(), reference };
        self.0.tell(|now| {
            now.state = PageState::Over;
            now.result = Some(told.clone());
            vec![PageEvent::State { state: PageState::Over }, told.event()]
        });
    }
}

impl Drop for PageTeller {
    fn drop(&mut self) {
        self.result(AppResult::Failed, "", None);
    }
}

impl PageResult {
    fn event(self) -> PageEvent {
        PageEvent::Result { result: self.result, text: self.text, reference: self.reference }
    }
}

impl PageReader {
    /// How it stands now, and what comes.
    pub fn follow(&self) -> (Vec<PageEvent>, broadcast::Receiver<PageEvent>) {
        let now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = vec![PageEvent::State { state: now.state }];
        match &now.result {
            Some(result) => all.push(result.clone().event()),
            None => all.extend(now.caption.iter().chain(&now.digits).cloned()),
        }
        (all, self.0.events.subscribe())
    }

    /// What it came to, once it did.
    pub fn result(&self) -> Option<PageResult> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner).result.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &mut broadcast::Receiver<PageEvent>) -> Vec<String> {
        std::iter::from_fn(|| events.try_recv().ok()).map(|e| serde_json::to_string(&e).unwrap()).collect()
    }

    #[test]
    fn events_are_the_protocols_json_and_nothing_comes_after_the_result() {
        let (teller, reader) = page();
        let (now, mut events) = reader.follow();
        assert_eq!(serde_json::to_string(&now).unwrap(), r#"[{"type":"state","state":"connecting"}]"#);
        teller.state(PageState::Prompting);
        teller.caption(Speaker::Service, "Hello.", "en");
        teller.digits("4 7 1 9");
        teller.result(AppResult::Paid, "Paid.", Some("123".into()));
        teller.caption(Speaker::Service, "Goodbye.", "en");
        teller.result(AppResult::Failed, "?", None);
        assert_eq!(
            told(&mut events),
            [
                r#"{"type":"state","state":"prompting"}"#,
                r#"{"type":"caption","who":"service","text":"Hello.","lang":"en"}"#,
                r#"{"type":"digits","digits":"4 7 1 9"}"#,
                r#"{"type":"state","state":"over"}"#,
                r#"{"type":"result","result":"paid","text":"Paid.","reference":"123"}"#,
            ]
        );
        assert_eq!(reader.result().unwrap().result, AppResult::Paid);
    }

    #[test]
    fn whoever_comes_late_sees_what_holds_and_digits_only_while_they_are_to_be_said() {
        let (teller, reader) = page();
        teller.state(PageState::Prompting);
        teller.caption(Speaker::Service, "Say these.", "en");
        teller.digits("4 7");
        teller.state(PageState::Listening);
        assert_eq!(reader.follow().0.len(), 3);
        teller.state(PageState::Thinking);
        assert_eq!(reader.follow().0.len(), 2, "no digits are left to say");
    }

    #[test]
    fn a_network_that_is_away_hides_the_state_and_shows_how_it_stands_once_it_is_back() {
        let (teller, reader) = page();
        teller.state(PageState::Listening);
        let (_, mut events) = reader.follow();
        teller.reconnecting(true);
        teller.reconnecting(true);
        teller.state(PageState::Thinking);
        teller.reconnecting(false);
        teller.reconnecting(false);
        assert_eq!(told(&mut events), [r#"{"type":"state","state":"reconnecting"}"#, r#"{"type":"state","state":"thinking"}"#]);
    }

    #[test]
    fn a_call_that_is_gone_without_a_word_has_failed() {
        let (teller, reader) = page();
        assert_eq!(reader.result(), None);
        drop(teller);
        assert_eq!(reader.result().unwrap().result, AppResult::Failed);
    }
}
