//! Builds the rooms, joins them, and takes them down again. The one place where everything is known.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::agreement::{AgreementConfig, Agreements, PolicyFileError, read_policy};
use crate::bank;
use crate::call::inference::Inference;
use crate::call::registry::Registry;
use crate::call::timeline::{WATCH_QUEUE_EVENTS, Watched};
use crate::call::{Approvals, CallRecord, Desk, Services};
use crate::clock::{Clock, Entropy};
use crate::config::{Changes, Config, ConfigError};
use crate::decision::{Calibration, Policy, PolicyError};
use crate::dialogue::DialogueConfig;
use crate::gateway::bank_feedback::BankFeedbackGateway;
use crate::gateway::{self, Acquirers, Gateway, GatewayError, GatewayKind};
use crate::ids::WorkerId;
use crate::language::Language;
use crate::models::{Model, ModelError};
use crate::notify::Notifier;
use crate::processor::Processor;
use crate::processor::sealer::Sealer;
use crate::prompts::{Bank, PromptError};
use crate::sip::{self, Listener, SipError};
use crate::speech::bilingual::Bilingual;
use crate::speech::config::NumberModel;
use crate::speech::silero::Silero;
use crate::speech::vad::{VadConfig, VoiceActivity};
use crate::speech::whisper::{WhisperNumbers, WhisperWords};
use crate::speech::{AnswerEngine, NumberEngine, NumberEngineName, SpeechError, load_number_engine};
use crate::store::{self, Store, StoreError, UnlockError};
use crate::telemetry::{self, metrics::metrics};
use crate::vault::Vault;
use crate::voiceprint::fingerprint::Fingerprinter;
use crate::voiceprint::{EmbedError, Embedder};

mod acquirer; // what it tells without being asked
mod api; // the REST API, with calls or alone
mod arriving; // calls that come in
mod browser; // calls from apps' pages
mod call_details; // the clock of their files
mod callbacks; // calls that we owe, placed
mod enrol; // from recordings, for the API
pub mod outbound; // who answered a call that we placed
mod owed; // calls that we owe and nobody will place
mod pulse; // what a scrape asks
mod records; // what a call leaves for operators
mod sweeping; // approvals that are due, and what is over its time
mod switchboard; // people, called for callers

use acquirer::listen_to_acquirer;
pub use api::ApiService;
use arriving::take_calls;
pub use call_details::{CallDetailsError, call_details_over, erase_call_details};
use callbacks::CallBacks;
pub use records::RecordsError;
use records::{Records, keep_refused, recording};
use switchboard::OwnTelephone;

/// How long a call's record waits for what its line went through, in milliseconds: the media task ends with the call.
const REPORT_WAIT_MS: u64 = 1_000;

/// For the last records, spans and recordings at a stop, in milliseconds: a disk and a collector in trouble are not waited for.
const LAST_RECORDS_WAIT_MS: u64 = 10_000;

/// After the calls were cut off: for their records and their BYEs, in milliseconds.
const GOODBYE_WAIT_MS: u64 = 3_000;

/// The wait for a payment's outcome goes on a little longer than the dialogue's own, so that the dialogue decides.
const PAYMENT_WAIT_MARGIN_MS: u64 = 2_000;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault or its key.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// A model's file.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A voice model.
    #[error(transparent)]
    Voice(#[from] EmbedError),
    /// A speech model.
    #[error(transparent)]
    Speech(#[from] SpeechError),
    /// The recorded prompts.
    #[error(transparent)]
    Prompts(#[from] PromptError),
    /// Thresholds and the calibration they come from.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The compiled-in calibration: a broken build.
    #[error("the calibration that this program was built with can't be used: {0}")]
    NoCalibration(&'static str),
    /// The one that the configuration names.
    #[error("decision.calibration: {} can't be used: {why}", .path.display())]
    Calibration {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The acquirer.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// Signalling.
    #[error(transparent)]
    Sip(#[from] SipError),
    /// Records, traces or recordings.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The rules on who has to agree.
    #[error(transparent)]
    Rules(#[from] PolicyFileError),
    /// The address for metrics.
    #[error("cannot listen for metrics on {address}: {source}; is `ops.listen` wrong, or taken?")]
    Ops {
        /// From the configuration.
        address: std::net::SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The API.
    #[error(transparent)]
    Api(#[from] crate::api::ApiError),
    /// The log filter of a configuration that was read again.
    #[error("service.log: {0}")]
    Log(String),
}

/// The store, the vault and the processor: what commands and calls share.
#[derive(Debug, Clone)]
pub struct Office {
    /// Rows.
    pub store: Arc<dyn Store>,
    /// Keys.
    pub vault: Vault,
    /// Charges.
    pub processor: Processor,
    /// Who else has to agree.
    pub agreements: Agreements,
    /// Who is told what.
    pub notifier: Notifier,
    /// Where a bank that announces deductions is heard, if the acquirer is one.
    desk: Option<bank::Desk>,
}

impl Office {
    /// Opens database, vault and gateway.
    pub async fn open(config: &Config, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, StartError> {
        let store = store::open(&config.store).await?;
        let vault = store::unlock(store.as_ref(), &config.vault, Arc::clone(&entropy)).await?;
        let (gateway, desk): (Arc<dyn Gateway>, _) = match config.gateway.kind {
            GatewayKind::BankFeedback => {
                let (cfg, rows) = (&config.gateway.bank_feedback, Arc::clone(&store));
                let desk = bank::Desk::open(cfg, rows, vault.clone(), Arc::clone(&clock), Arc::clone(&entropy));
                let desk = desk.map_err(GatewayError::from)?;
                let gateway = BankFeedbackGateway::open(cfg, Arc::new(desk.clone())).map_err(GatewayError::from)?;
                (Arc::new(gateway), Some(desk))
            }
            GatewayKind::Sandbox | GatewayKind::Iso8583 | GatewayKind::Stripe => {
                (gateway::open(&config.gateway, vault.sandbox_journal_key(), Arc::clone(&clock))?, None)
            }
        };
        let banks = gateway::open_banks(&config.gateway, || vault.sandbox_journal_key(), &clock)?;
        let acquirers = Acquirers::new(gateway, banks);
        let rules = read_policy(config.agreement.policy.as_deref())?;
        let (time, chance) = (Arc::clone(&clock), Arc::clone(&entropy));
        let processor = Processor::new(Arc::clone(&store), acquirers, vault.clone(), time, chance, config.processor.clone());
        let section = AgreementConfig { public_url: config.api.public_url.clone(), ..config.agreement.clone() };
        let (rows, sends) = (Arc::clone(&store), processor.clone());
        let (time, chance) = (Arc::clone(&clock), Arc::clone(&entropy));
        let agreements = Agreements::new(rows, vault.clone(), sends, time, chance, section, rules);
        let notifier = Notifier::new(Arc::clone(&store), vault.clone(), clock, entropy, config.notify.clone());
        Ok(Self { store, vault, processor, agreements, notifier, desk })
    }
}

/// Models and prompts: what takes a second to load and any number of services can share.
#[derive(Clone)]
pub struct Voices {
    embedder: Arc<Embedder>,
    answers: Arc<dyn AnswerEngine>,
    numbers: Arc<dyn NumberEngine>,
    activity: VoiceActivity,
    prompts: Arc<Bank>,
    calibration: Arc<Calibration>,
    policy: Policy,
}

impl std::fmt::Debug for Voices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Voices({})", self.embedder.version())
    }
}

impl Voices {
    /// Loads them from the models' cache directory.
    pub fn load(config: &Config) -> Result<Self, StartError> {
        let calibration = calibration(config)?;
        let embedder = Embedder::load(&Model::CampPlus.checked_path()?)?;
        let at_once = config.number.max_at_once;
        // "Yes" and "no" need no larger model, and it is the one that is waited for.
        let words = WhisperWords::load(Language::English, &Model::WhisperTinyEn.checked_path()?, at_once)?;
        let mut answers: Arc<dyn AnswerEngine> = Arc::new(words);
        match (config.number.engine, config.number.model) {
            (NumberEngineName::Whisper, NumberModel::TinyEn) => drop(Model::WhisperTinyEn.checked_path()?),
            (NumberEngineName::Whisper, NumberModel::Base) => drop(Model::WhisperBase.checked_path()?),
            (NumberEngineName::Ctc, _) => {} // each head checks its encoder's digest itself
        }
        let mut english = load_number_engine(&config.number, &crate::models::cache_dir())?;
        english.calibrate(&calibration).map_err(PolicyError::from)?;
        let mut numbers: Arc<dyn NumberEngine> = Arc::from(english);
        if config.speech.mandarin {
            let base = Model::WhisperBase.checked_path()?;
            let mandarin_answers = Arc::new(WhisperWords::load(Language::Mandarin, &base, at_once)?);
            let mut mandarin_numbers = WhisperNumbers::load_beside(&mandarin_answers, &base, &config.number)?;
            mandarin_numbers.calibrate(&calibration).map_err(PolicyError::from)?;
            let both = Arc::new(Bilingual { numbers, answers, mandarin_numbers: Arc::new(mandarin_numbers), mandarin_answers });
            (numbers, answers) = (Arc::clone(&both) as Arc<dyn NumberEngine>, both);
        }
        let policy = policy(config, &calibration, &embedder, numbers.as_ref())?;
        Ok(Self {
            embedder: Arc::new(embedder),
            answers,
            numbers,
            activity: voice_activity(config.speech.vad)?,
            prompts: Arc::new(Bank::load()?),
            calibration: Arc::new(calibration),
            policy,
        })
    }

    /// The same models under another configuration's thresholds.
    fn retuned(&self, config: &Config) -> Result<Self, StartError> {
        let policy = policy(config, &self.calibration, &self.embedder, self.numbers.as_ref())?;
        let activity = VoiceActivity { config: config.speech.vad, ..self.activity.clone() };
        Ok(Self { policy, activity, ..self.clone() })
    }

    /// Which voice model is loaded.
    pub fn voice_model(&self) -> &str {
        self.embedder.version().as_str()
    }
}

fn policy(
    config: &Config,
    calibration: &Calibration,
    embedder: &Embedder,
    numbers: &dyn NumberEngine,
) -> Result<Policy, StartError> {
    Ok(Policy::resolve(
        &config.dialogue.policy_version,
        &config.decision,
        calibration,
        embedder.version().as_str(),
        numbers.name(),
        config.voice.min_net_speech_ms,
    )?)
}

/// What tells a voice from noise.
pub fn voice_activity(vad: VadConfig) -> Result<VoiceActivity, StartError> {
    let network = if vad.neural { Some(Arc::new(Silero::load(&Model::SileroVad.checked_path()?)?)) } else { None };
    Ok(VoiceActivity { config: vad, network })
}

/// The calibration that the configuration names, or the one compiled in.
pub fn calibration(config: &Config) -> Result<Calibration, StartError> {
    let Some(path) = &config.decision.calibration else {
        return Calibration::compiled_in().cloned().map_err(StartError::NoCalibration);
    };
    let unusable = |why: String| StartError::Calibration { path: path.clone(), why };
    let text = std::fs::read_to_string(path).map_err(|e| unusable(e.to_string()))?;
    Calibration::from_json(&text).map_err(|e| unusable(e.to_string()))
}

/// Everything that a call needs, joined. `paused_clock`: see [`Services::paused_clock`].
pub fn services(
    config: &Config,
    office: &Office,
    voices: &Voices,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    paused_clock: bool,
) -> Services {
    Services {
        desk: Desk {
            store: Arc::clone(&office.store),
            vault: office.vault.clone(),
            processor: office.processor.clone(),
            agreements: office.agreements.clone(),
            entropy: Arc::clone(&entropy),
            voice_model: voices.voice_model().to_owned(),
            policy: voices.policy.clone(),
            payment_wait: Duration::from_millis(u64::from(config.dialogue.payment_wait_ms) + PAYMENT_WAIT_MARGIN_MS),
        },
        clock,
        entropy,
        approvals: Approvals {
            store: Arc::clone(&office.store),
            agreements: office.agreements.clone(),
            processor: office.processor.clone(),
            policy: voices.policy.clone(),
        },
        embedder: Arc::clone(&voices.embedder),
        fingerprinter: Arc::new(Fingerprinter::new()),
        numbers: Arc::clone(&voices.numbers),
        answers: Arc::clone(&voices.answers),
        prompts: Arc::clone(&voices.prompts),
        inference: Inference::new(&config.inference),
        registry: Registry::new(config.sip.max_calls),
        recording: None,
        watchers: broadcast::channel(WATCH_QUEUE_EVENTS).0,
        dialogue: DialogueConfig { challenge: config.challenge.clone(), ..config.dialogue.clone() },
        activity: voices.activity.clone(),
        speech: config.speech.clone(),
        voice: config.voice.clone(),
        policy: voices.policy.clone(),
        calibration: Arc::clone(&voices.calibration),
        reuse: config.reuse,
        callbacks: config.callbacks.clone(),
        refresh: config.refresh,
        switchboard: OnceLock::new(),
        default_country: config.identity.default_country.clone(),
        default_language: config.identity.default_language,
        paused_clock,
    }
}

/// A running service.
#[derive(Debug)]
pub struct App {
    /// What new calls are taken by.
    services: watch::Sender<Arc<Services>>,
    office: Office,
    voices: Voices,
    /// In force, which is not all of the file where a restart is needed.
    config: Mutex<Config>,
    book: Arc<Records>,
    ops_address: Option<std::net::SocketAddr>,
    api_address: Option<std::net::SocketAddr>,
    draining: CancellationToken,
    /// Stops what answers operators; last.
    ops_stop: CancellationToken,
    listener: Listener,
    /// Cuts off the calls that are up.
    cut: CancellationToken,
    /// Stops the payment worker, and the sealer of the audit trail with it; after the calls are over.
    worker_stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
    /// Looks after approvals, and after what is over its time.
    sweeper: tokio::task::JoinHandle<()>,
    /// Tells tenants and customers.
    teller: tokio::task::JoinHandle<()>,
    /// Takes what the acquirer tells without being asked, if it can.
    news: Option<tokio::task::JoinHandle<()>>,
    calls: tokio::task::JoinHandle<()>,
    /// Places calls that we owe, until the service drains.
    callbacks: tokio::task::JoinHandle<()>,
    /// Keeps records of refused callers.
    refused: tokio::task::JoinHandle<()>,
    records: broadcast::Sender<CallRecord>,
}

impl App {
    /// Opens everything and starts to take calls.
    pub async fn start(
        config: &Config,
        voices: &Voices,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StartError> {
        let office = Office::open(config, Arc::clone(&clock), Arc::clone(&entropy)).await?;
        owed::warn_without_a_trunk(&*office.store, &config.callbacks).await?;
        let book = Arc::new(Records::start(&config.ops, Arc::clone(&entropy))?);
        let recording = recording(config, Arc::clone(&clock))?;
        let first = Services { recording, ..services(config, &office, voices, Arc::clone(&clock), Arc::clone(&entropy), false) };
        let (services, current) = watch::channel(Arc::new(first));
        let (cut, worker_stop) = (CancellationToken::new(), CancellationToken::new());
        let (leg_tx, leg_rx) = mpsc::channel(config.sip.max_calls);
        let news = listen_to_acquirer(config, &office, Arc::clone(&clock), &worker_stop).await?;
        // The port comes last: a call that is answered finds everything ready.
        let listener = sip::listen(config.sip.clone(), config.media.clone(), leg_tx, cut.clone()).await?;
        let telephone = Arc::new(OwnTelephone { dialler: listener.dialler(), trunks: listener.trunks().clone() });
        let _set_once = current.borrow().switchboard.set(telephone.clone());
        let worker = tokio::spawn({
            let (processor, stop) = (office.processor.clone(), worker_stop.clone());
            let (store, vault) = (Arc::clone(&office.store), office.vault.clone());
            let sealer = Sealer::new(store, vault, Arc::clone(&clock), Arc::clone(&entropy), config.audit.clone());
            async move { sealer.beside(processor.run(stop)).await }
        });
        let sweeper = tokio::spawn(office.sweep(config, (&clock, &entropy), worker_stop.clone()));
        let teller = tokio::spawn(office.notifier.clone().run(worker_stop.clone()));
        let records = broadcast::channel(WATCH_QUEUE_EVENTS).0;
        let calls = tokio::spawn(take_calls(current.clone(), leg_rx, records.clone(), Arc::clone(&book)));
        let refused = tokio::spawn(keep_refused(Arc::clone(&book), listener.refused(), Arc::clone(&clock)));
        let (draining, ops_stop) = (CancellationToken::new(), CancellationToken::new());
        let callbacks = tokio::spawn({
            let (services, book, records, draining) = (current.clone(), Arc::clone(&book), records.clone(), draining.clone());
            CallBacks { services, telephone, book, records, draining, owner: WorkerId::fresh(entropy.as_ref()) }.run()
        });
        let answering = (current.clone(), records.clone(), Arc::clone(&book), draining.clone());
        let pages = browser::answering(config, answering, &entropy, &cut);
        let api_address = api::beside_calls(config, &office, voices, &current.borrow(), pages, &worker_stop).await?;
        let mut ops_address = None;
        if let Some(address) = config.ops.listen {
            let store = Arc::clone(&office.store);
            let (trunks, wire, draining) = (listener.trunks().clone(), Arc::clone(listener.wire()), draining.clone());
            let pulse = Arc::new(pulse::Pulse { services: current, store, trunks, wire, draining });
            let served = crate::ops::http::serve(address, pulse, ops_stop.clone()).await;
            ops_address = Some(served.map_err(|source| StartError::Ops { address, source })?);
        }
        note_config_time(clock.as_ref());
        let (voices, config) = (voices.clone(), Mutex::new(config.clone()));
        Ok(Self {
            services,
            office,
            voices,
            config,
            book,
            ops_address,
            api_address,
            draining,
            ops_stop,
            listener,
            cut,
            worker_stop,
            worker,
            sweeper,
            teller,
            news,
            calls,
            callbacks,
            refused,
            records,
        })
    }

    /// Goes by another configuration, as far as that is possible in a running process: calls from now on are taken by it, those that
    /// are up go on with what they started with. An error leaves everything as it was.
    pub fn reload(&self, new: &Config) -> Result<Changes, StartError> {
        let mut in_force = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let reloaded = in_force.reloaded(new).map_err(StartError::from).and_then(|(changes, merged)| {
            let before = Arc::clone(&self.services.borrow());
            let rules = read_policy(merged.agreement.policy.as_deref())?;
            let voices = self.voices.retuned(&merged)?;
            let (clock, entropy) = (Arc::clone(&before.clock), Arc::clone(&before.entropy));
            let fresh = services(&merged, &self.office, &voices, clock, entropy, false);
            // What is counted and shared goes on; only what calls go by is new.
            let fresh = Services {
                inference: before.inference.clone(),
                registry: before.registry.clone(),
                watchers: before.watchers.clone(),
                fingerprinter: Arc::clone(&before.fingerprinter),
                recording: before.recording.clone(),
                switchboard: before.switchboard.clone(),
                ..fresh
            };
            telemetry::check_filter(&merged.service.log).map_err(StartError::Log)?;
            self.listener.reconfigure(merged.sip.clone(), merged.media.clone())?;
            Ok((changes, merged, fresh, rules))
        });
        let (changes, merged, fresh, rules) = reloaded?;
        self.office.agreements.set_policy(rules);
        note_config_time(fresh.clock.as_ref());
        metrics().config_reloads.inc(["applied"]);
        metrics().config_restart_keys.set_count([], changes.restart.len());
        if let Err(error) = telemetry::set_filter(&merged.service.log) {
            tracing::warn!(%error, "the log filter stays as it was");
        }
        self.book.set_numbers(merged.ops.cdr_numbers);
        self.services.send_replace(Arc::new(fresh));
        *in_force = merged;
        Ok(changes)
    }

    /// Where metrics are answered, if they are.
    pub fn ops_address(&self) -> Option<std::net::SocketAddr> {
        self.ops_address
    }

    /// Where the API is answered, if it is.
    pub fn api_address(&self) -> Option<std::net::SocketAddr> {
        self.api_address
    }

    /// How long a stop waits for calls to end by themselves.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.config.lock().unwrap_or_else(PoisonError::into_inner).service.drain_s)
    }

    /// How many calls are up.
    pub fn calls_up(&self) -> usize {
        self.services.borrow().registry.live()
    }

    /// Where SIP is heard.
    pub fn sip_address(&self) -> std::net::SocketAddr {
        self.listener.local_addr
    }

    /// The store, the vault and the processor.
    pub fn office(&self) -> &Office {
        &self.office
    }

    /// What happens in calls, as it happens.
    pub fn watch(&self) -> broadcast::Receiver<Watched> {
        self.services.borrow().watchers.subscribe()
    }

    /// Records of calls, as they end.
    pub fn records(&self) -> broadcast::Receiver<CallRecord> {
        self.records.subscribe()
    }

    /// No new calls; waits for those that are up, at most `service.drain_s`; then stops the payment worker, which finishes what it sends.
    pub async fn stop(self) {
        self.stop_unless(std::future::pending()).await;
    }

    /// The same, but calls that are up are cut off as soon as `hurry` is done.
    pub async fn stop_unless(self, hurry: impl Future<Output = ()>) {
        let drain = self.drain();
        let registry = self.services.borrow().registry.clone();
        self.draining.cancel();
        self.listener.close();
        tokio::select! {
            () = registry.drained() => {}
            () = tokio::time::sleep(drain) => {
                tracing::warn!(calls = registry.live(), "calls were still up after service.drain_s and are dropped");
            }
            () = hurry => tracing::warn!(calls = registry.live(), "told to stop at once: calls that are up are dropped"),
        }
        self.cut.cancel();
        let goodbyes = async {
            self.listener.ended().await;
            registry.drained().await;
            // What became of their calls is written down, or their leases end by themselves.
            let _panicked = self.callbacks.await;
        };
        if tokio::time::timeout(Duration::from_millis(GOODBYE_WAIT_MS), goodbyes).await.is_err() {
            tracing::warn!("some calls could not be ended in order");
        }
        self.calls.abort();
        self.worker_stop.cancel();
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "the payment worker did not end well; what is in doubt is swept at the next start");
        }
        if let Err(error) = self.sweeper.await {
            tracing::error!(%error, "the sweep of approvals did not end well; what it left is looked after at the next start");
        }
        if let Err(error) = self.teller.await {
            tracing::error!(%error, "webhooks did not end well; what was not told is told at the next start");
        }
        if let Some(news) = self.news
            && let Err(error) = news.await
        {
            tracing::error!(%error, "the acquirer's news did not end well; it tells them again");
        }
        let _aborted = self.calls.await;
        let _kept = tokio::time::timeout(Duration::from_millis(REPORT_WAIT_MS), self.refused).await;
        // The last records and spans go out, which takes as long as a disk and a collector take.
        let (book, recording) = (self.book, self.services.borrow().recording.clone());
        let (done, last) = oneshot::channel();
        // A thread of its own: the runtime would wait for one of its own for ever.
        std::thread::spawn(move || {
            book.close();
            if let Some(recording) = recording {
                recording.recordings.close();
            }
            let _nobody_waits = done.send(());
        });
        if tokio::time::timeout(Duration::from_millis(LAST_RECORDS_WAIT_MS), last).await.is_err() {
            tracing::error!("the last records of calls may be lost");
        }
        self.ops_stop.cancel();
    }
}

fn note_config_time(clock: &dyn Clock) {
    let since_epoch = clock.now().since(crate::clock::Timestamp(0));
    metrics().config_reloaded_at.set([], since_epoch.as_secs_f64());
}
