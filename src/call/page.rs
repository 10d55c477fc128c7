//! What a page sees of its call: a teller at the call's end, and readers that may come late, leave and come again. Bounded: whoever reads too
//! slowly loses events, and finds the state of now when it reads again.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

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

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageVerdict {
    /// Charged.
    Paid,
    /// Not confirmed.
    Refused,
    /// The bank said no.
    Declined,
    /// Somebody else has to agree, too.
    Waiting,
    /// The customer said no, stopped or left.
    Cancelled,
    /// It came to no end.
    Failed,
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
        result: PageVerdict,
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
    pub result: PageVerdict,
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
    pub fn result(&self, result: PageVerdict, text: &str, reference: Option<String>) {
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
        self.result(PageVerdict::Failed, "", None);
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
