//! Calls from apps' pages: an offer is answered by the WebRTC endpoint, and once audio flows a call confirms the payment that the app's back
//! end has bound.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::records::Records;
use crate::api::app_calls::{AppCallHand, AppCalls, OfferRefused, OpenedCall};
use crate::call::page::{PageReader, PageTeller, page};
use crate::call::registry::LiveCall;
use crate::call::{AppCall, CallRecord, Services, run_app_call};
use crate::clock::Entropy;
use crate::config::Config;
use crate::dialogue::{AppPrompt, Prompt};
use crate::ids::CallId;
use crate::media::leg::Leg;
use crate::payment::{AppResult, AppSession};
use crate::telemetry::metrics::metrics;
use crate::webrtc::offer::OfferFault;
use crate::webrtc::{AnswerError, Endpoint, FragmentError, Hand, Page};

/// What pages' calls are taken by.
struct BrowserCalls {
    endpoint: Endpoint,
    services: watch::Receiver<Arc<Services>>,
    records: broadcast::Sender<CallRecord>,
    book: Arc<Records>,
    draining: CancellationToken,
}

/// Who answers pages, where the configuration lets them call. Calls end when `cut` is cancelled.
pub(super) fn answering(
    config: &Config,
    (services, records, book, draining): (
        watch::Receiver<Arc<Services>>,
        broadcast::Sender<CallRecord>,
        Arc<Records>,
        CancellationToken,
    ),
    entropy: &Arc<dyn Entropy>,
    cut: &CancellationToken,
) -> Option<Arc<dyn AppCalls>> {
    if !config.webrtc.enabled {
        return None;
    }
    let endpoint = Endpoint::new(config.webrtc.clone(), &config.media, Arc::clone(entropy), cut.clone());
    Some(Arc::new(BrowserCalls { endpoint, services, records, book, draining }))
}

/// A page's call.
struct Held {
    hand: Arc<Hand>,
    reader: PageReader,
}

fn refused(error: &OfferFault) -> OfferRefused {
    match error {
        OfferFault::Malformed(_) => OfferRefused::Sdp(error.to_string()),
        OfferFault::NoCommonCodec => OfferRefused::NoCommonCodec(error.to_string()),
    }
}

impl From<FragmentError> for OfferRefused {
    fn from(error: FragmentError) -> Self {
        match error {
            FragmentError::Malformed(_) => Self::Fragment(error.to_string()),
            FragmentError::Stale => Self::Stale,
            FragmentError::Gone => Self::Gone,
        }
    }
}

#[async_trait]
impl AppCalls for BrowserCalls {
    async fn open(&self, session: &AppSession, offer: &str, origin: &str) -> Result<OpenedCall, OfferRefused> {
        if self.draining.is_cancelled() {
            return Err(OfferRefused::Closing);
        }
        let offered = Instant::now();
        let services = Arc::clone(&self.services.borrow());
        let live = LiveCall { since: services.clock.now(), peer: origin.to_owned(), customer: Some(session.customer.clone()) };
        let id = CallId::fresh_at(live.since, services.entropy.as_ref());
        let place = services.registry.enter(id.clone(), live).ok_or(OfferRefused::Busy)?;
        let caller = Page { session: session.id.to_string(), origin: origin.to_owned() };
        let answered = self.endpoint.answer(offer, &caller).await.map_err(|error| match &error {
            AnswerError::Offer(fault) => refused(fault),
            AnswerError::Busy(_) => OfferRefused::Busy,
            AnswerError::Failed(_) => OfferRefused::Trouble(error.to_string()),
        })?;
        let app = AppCall {
            session: session.id.clone(),
            customer: session.customer.clone(),
            request: session.request.clone(),
            card: session.card.clone(),
            language: session.language,
        };
        let (teller, reader) = page();
        let etag = answered.hand.etag();
        let (book, records) = (Arc::clone(&self.book), self.records.clone());
        // It has its place in the registry until it is over, which a stop waits for.
        tokio::spawn({
            let (id, leg) = (id.clone(), answered.leg);
            async move {
                let _place = place;
                if let Some(leg) = connected(&id, leg, &app, &teller, &services).await {
                    metrics().app_setup.observe_time([], offered.elapsed());
                    converse(id, leg, app, teller, services, (book, records)).await;
                }
            }
        });
        let hand = Arc::new(Held { hand: answered.hand, reader });
        Ok(OpenedCall { answer: answered.answer, etag, call: id, hand })
    }

    fn check(&self, offer: &str) -> Result<(), OfferRefused> {
        self.endpoint.check(offer).map_err(|fault| refused(&fault))
    }

    fn ice_servers(&self) -> Value {
        self.endpoint.ice_servers()
    }
}

/// The page's line, once it is there. Else the page is told.
async fn connected(
    id: &CallId,
    leg: oneshot::Receiver<Leg>,
    app: &AppCall,
    teller: &PageTeller,
    services: &Services,
) -> Option<Leg> {
    let leg = leg.await.ok();
    if leg.is_none() {
        tracing::info!(call = %id, session = %app.session, "a page never connected");
        let words = services.prompts.book(app.language).text(&Prompt::App(AppPrompt::Trouble));
        teller.result(AppResult::Failed, &words, None);
    }
    leg
}

/// From the page's connection to the call's record.
async fn converse(
    id: CallId,
    mut leg: Leg,
    app: AppCall,
    teller: PageTeller,
    services: Arc<Services>,
    (book, records): (Arc<Records>, broadcast::Sender<CallRecord>),
) {
    metrics().calls_started.inc([&leg.info.trunk]);
    let (info, report) = leg.take_report();
    let record = run_app_call(id, leg, app, teller, services).await;
    book.keep(&info, record, report, &records).await;
}

#[async_trait]
impl AppCallHand for Held {
    async fn candidates(&self, fragment: &str) -> Result<(), OfferRefused> {
        Ok(self.hand.candidates(fragment).await?)
    }

    async fn restart(&self, fragment: &str) -> Result<(String, String), OfferRefused> {
        Ok(self.hand.restart(fragment).await?)
    }

    fn etag(&self) -> String {
        self.hand.etag()
    }

    fn leave(&self) {
        self.hand.leave();
    }

    fn page(&self) -> PageReader {
        self.reader.clone()
    }
}
