//! Pages of apps: calls that a back end has bound to one request and one card, and what the page was told of them.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use voicepay::call::page::{PageEvent, PageReader, PageResult, PageState, Speaker, page};
use voicepay::call::{AppCall, CallRecord, run_app_call};
use voicepay::clock::SystemEntropy;
use voicepay::dialogue::Prompt;
use voicepay::ids::{AppSessionId, CallId};
use voicepay::language::Language;
use voicepay::media::frame::SampleRate;
use voicepay::media::in_process::{LineOptions, connect};
use voicepay::media::leg::{CallerClaim, LegCommand, LegEvent, Sound};
use voicepay::phone::{Script, Step, run_script};

use super::{World, info};

/// A browser's audio, as a call hears it.
const RATE: SampleRate = SampleRate::HZ_16000;
/// Of every frame.
const FRAME: Duration = Duration::from_millis(20);

/// What a page saw, and what stays of its call.
pub struct Shown {
    pub record: CallRecord,
    pub events: Vec<PageEvent>,
    pub result: PageResult,
}

impl Shown {
    /// Where the call stood, in order.
    pub fn states(&self) -> Vec<PageState> {
        let state = |event: &PageEvent| match event {
            PageEvent::State { state } => Some(*state),
            PageEvent::Caption { .. } | PageEvent::Digits { .. } | PageEvent::Result { .. } => None,
        };
        self.events.iter().filter_map(state).collect()
    }

    /// What was said by whom.
    pub fn captions(&self, of: Speaker) -> Vec<&str> {
        let caption = |event| match event {
            &PageEvent::Caption { who, ref text, .. } if who == of => Some(text.as_str()),
            _ => None, // no caption of theirs
        };
        self.events.iter().filter_map(caption).collect()
    }

    /// The digits that were shown.
    pub fn digits(&self) -> Vec<&str> {
        let digits = |event| match event {
            &PageEvent::Digits { ref digits } => Some(digits.as_str()),
            _ => None, // other events
        };
        self.events.iter().filter_map(digits).collect()
    }
}

/// What a page is told up to the result; `meanwhile` happens when this stands in a caption.
async fn followed(reader: PageReader, at: &str, meanwhile: impl Future<Output = ()>) -> (Vec<PageEvent>, PageResult) {
    let (mut events, mut coming) = reader.follow();
    let mut meanwhile = Some(meanwhile);
    while reader.result().is_none() || !matches!(events.last(), Some(PageEvent::Result { .. })) {
        match coming.recv().await {
            Ok(event) => {
                let now = matches!(&event, PageEvent::Caption { text, .. } if text.contains(at));
                events.push(event);
                if now && let Some(meanwhile) = meanwhile.take() {
                    // The database is on other threads: the paused clock must not leap meanwhile.
                    let (done, wait) = std::sync::mpsc::channel::<()>();
                    let _holds_the_clock = tokio::task::spawn_blocking(move || wait.recv().is_ok());
                    meanwhile.await;
                    drop(done);
                }
            }
            Err(RecvError::Lagged(_)) => panic!("the page fell behind"),
            Err(RecvError::Closed) => break,
        }
    }
    let result = reader.result().expect("every call ends in a result");
    (events, result)
}

impl World {
    /// What the shop's back end has bound: the request that is open, and Alice's card.
    pub async fn app(&self) -> AppCall {
        let open = self.office.store.payable_requests(&self.customer, self.clock.now()).await.unwrap().remove(0);
        AppCall {
            session: AppSessionId::fresh(&SystemEntropy),
            customer: self.customer.clone(),
            request: open.request.id,
            card: self.card.clone(),
            language: Language::English,
        }
    }

    /// Alice's page calls, and she does this before it.
    pub async fn page_calls(&self, steps: impl IntoIterator<Item = Step>) -> Shown {
        self.page_confirms(self.app().await, steps).await
    }

    pub async fn page_confirms(&self, app: AppCall, steps: impl IntoIterator<Item = Step>) -> Shown {
        self.page_confirms_while(app, steps, "\u{0}", async {}).await
    }

    /// The same; `meanwhile` happens when these words are being said.
    pub async fn page_confirms_while(
        &self,
        app: AppCall,
        steps: impl IntoIterator<Item = Step>,
        at: &str,
        meanwhile: impl Future<Output = ()>,
    ) -> Shown {
        let (teller, reader) = page();
        tokio::time::pause();
        let line = connect(info(CallerClaim::Withheld, RATE), RATE, LineOptions::default());
        let call = run_app_call(CallId::fresh(&SystemEntropy), line.service, app, teller, Arc::clone(&self.services));
        let call = tokio::spawn(call);
        let script = Script::new(steps);
        let (told, _) = tokio::join!(followed(reader, at, meanwhile), run_script(line.phone, &script, |_| ()));
        let record = call.await.unwrap();
        tokio::time::resume();
        Shown { record, events: told.0, result: told.1 }
    }

    /// Nobody speaks, but all that the service says comes back from the loudspeaker after so long.
    pub async fn page_echoes(&self, delay: Duration) -> Shown {
        let (app, (teller, reader)) = (self.app().await, page());
        tokio::time::pause();
        let line = connect(info(CallerClaim::Withheld, RATE), RATE, LineOptions::default());
        let call = run_app_call(CallId::fresh(&SystemEntropy), line.service, app, teller, Arc::clone(&self.services));
        let call = tokio::spawn(call);
        let mut phone = line.phone;
        let frames = delay.as_millis() / FRAME.as_millis();
        let echo = async {
            let mut room = VecDeque::new();
            while let Some(event) = phone.events.recv().await {
                match event {
                    LegEvent::Frame(frame) => {
                        room.push_back(frame);
                        if room.len() as u128 > frames
                            && let Some(frame) = room.pop_front()
                            && phone.commands.send(LegCommand::Speak(frame)).await.is_err()
                        {
                            break;
                        }
                    }
                    LegEvent::Ended(_) => break,
                    _ => {} // nothing else happens on such a line
                }
            }
        };
        let (told, ()) = tokio::join!(followed(reader, "\u{0}", async {}), echo);
        let record = call.await.unwrap();
        tokio::time::resume();
        Shown { record, events: told.0, result: told.1 }
    }

    /// How the service says this.
    pub fn spoken(&self, prompt: &Prompt) -> Arc<Sound> {
        Arc::new(self.services.prompts.book(Language::English).render(prompt, None))
    }
}
