//! A whole service without sockets: real store, vault, processor, sandbox, prompts and models; only the line is in process,
//! and time is tokio's paused clock, so that a two-minute call takes seconds.

mod agreeing;
pub mod app;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use voicepay::app::{Office, Voices, services};
use voicepay::call::timeline::Who;
use voicepay::call::{CallRecord, Services, Switchboard, run_call};
use voicepay::clock::{Clock, Entropy, SeededEntropy, SystemClock, SystemEntropy, Timestamp};
use voicepay::config::Config;
use voicepay::e164::E164;
use voicepay::gateway::sandbox::SandboxGateway;
use voicepay::ids::{AuditId, CallId, CardId, CustomerId, InviteId, PayeeId, RequestId};
use voicepay::language::Language;
use voicepay::media::frame::SampleRate;
use voicepay::media::in_process::{LineOptions, connect};
use voicepay::media::leg::{Attestation, CallerClaim, Leg, LegInfo, Sound};
use voicepay::media::wav::read_wav;
use voicepay::models::Model;
use voicepay::money::{Currency, Money};
use voicepay::payment::{PaymentRequest, RequestStatus};
use voicepay::phone::{Action, DigitVoice, PhoneReport, Script, Step, run_script};
use voicepay::secret::Pan;
use voicepay::speech::Utterance;
use voicepay::store::{
    AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, EnrolmentRecord, Invite, Payee, Payment, TemplateRecord,
    customer_key_to_seal,
};
use voicepay::voiceprint::{Embedder, Enrolment, Take, Template};

/// Alice's telephone.
pub const ALICE: &str = "+447700900123";
/// Her invitation code, where she has one.
pub const CODE: &str = "27182818";
/// Her customer number, for the keypad.
pub const CUSTOMER_NUMBER: &str = "10042001";

/// The wall clock of a paused runtime: moves with tokio's time.
#[derive(Debug)]
struct PausedClock {
    base: Timestamp,
    start: Instant,
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.base.plus(self.start.elapsed())
    }
}

/// The system's randomness, but for small draws, which come out so that these digits are asked for, and for what one-time codes are drawn of.
struct Foretold {
    draws: Mutex<VecDeque<u32>>,
    codes: Mutex<VecDeque<String>>,
}

impl Foretold {
    fn digits(strings: &[&str]) -> Self {
        let mut draws = VecDeque::new();
        for string in strings {
            let digits: Vec<u32> = string.chars().map(|c| c.to_digit(10).unwrap()).collect();
            draws.extend(digits.first());
            // Each further digit is drawn from the nine that differ from the one before.
            draws.extend(digits.windows(2).map(|w| (w[1] + 10 - w[0] - 1) % 10));
        }
        Self { draws: Mutex::new(draws), codes: Mutex::default() }
    }

    fn and_codes(self, codes: &[&str]) -> Self {
        Self { codes: Mutex::new(codes.iter().map(|c| (*c).to_owned()).collect()), ..self }
    }
}

impl Entropy for Foretold {
    fn fill(&self, out: &mut [u8]) {
        SystemEntropy.fill(out);
        if out.len() == 4
            && let Some(draw) = self.draws.lock().unwrap().pop_front()
        {
            out.copy_from_slice(&draw.to_le_bytes());
        }
        // A code is drawn of sixteen bytes, each below 250 modulo ten.
        if out.len() == 16
            && let Some(code) = self.codes.lock().unwrap().pop_front()
        {
            out.fill(u8::MAX);
            out.iter_mut().zip(code.bytes()).for_each(|(o, digit)| *o = digit - b'0');
        }
    }
}

/// One service with one customer.
pub struct World {
    pub config: Config,
    pub office: Office,
    pub customer: CustomerId,
    pub card: CardId,
    pub payee: PayeeId,
    services: Arc<Services>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    stop: CancellationToken,
    dir: Arc<tempfile::TempDir>,
}

/// The models, loaded once.
pub fn voices(config: &Config) -> Voices {
    static LOADED: OnceLock<Voices> = OnceLock::new();
    let load = || Voices::load(config).expect("the models are there: run `voicepay models fetch`");
    // With the models comes the policy.
    let usual = Config::default();
    if config.decision == usual.decision && config.speech == usual.speech { LOADED.get_or_init(load).clone() } else { load() }
}

/// A persona's template, made once from her enrolment recordings.
fn template(persona: &'static str) -> Template {
    static MADE: Mutex<BTreeMap<&str, Template>> = Mutex::new(BTreeMap::new());
    let make = || {
        let embedder = Embedder::load(&Model::CampPlus.checked_path().unwrap()).unwrap();
        let mut enrolment = Enrolment::new(Config::default().voice);
        for n in 1..=3 {
            let sound = recording(&format!("{persona}/enrol_{n}"));
            let utterance = Utterance::from_recording(&sound.samples, sound.rate);
            enrolment.add(Take::of(&embedder, &utterance.samples_16k, utterance.net_speech_ms, 1).unwrap()).unwrap();
        }
        enrolment.finish().unwrap()
    };
    MADE.lock().unwrap().entry(persona).or_insert_with(make).clone()
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("audio-fixtures")
}

/// A recording by its path without `.wav`.
pub fn recording(name: &str) -> Arc<Sound> {
    Arc::new(read_wav(&fixtures().join(format!("{name}.wav"))).unwrap())
}

/// The card number that the recordings speak, and another valid one.
pub fn card_numbers() -> (Pan, Pan) {
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(fixtures().join("manifest.toml")).unwrap()).unwrap();
    let number = |key: &str| Pan::parse(manifest.get(key).unwrap().as_str().unwrap()).unwrap();
    (number("card"), number("card_other"))
}

impl World {
    /// Alice, enrolled, with a card and 19.99 USD to pay.
    pub async fn with_alice_enrolled() -> Self {
        let world = Self::with_alice(|_| ()).await;
        world.enrol_alice().await;
        world
    }

    /// Alice without a voice, with a card and 19.99 USD to pay.
    pub async fn with_alice(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::in_dir(Arc::new(tempfile::tempdir().unwrap()), adjust, Arc::new(SystemEntropy), Some(Language::English)).await
    }

    /// The same customer, but she speaks Mandarin and her voice is Mei's.
    pub async fn with_mei_enrolled(adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let world = Self::in_dir(dir, adjust, Arc::new(SystemEntropy), Some(Language::Mandarin)).await;
        world.enrol(template("mei")).await;
        world
    }

    /// Alice, enrolled, as above; the strings of fresh digits that are asked for are those that the recordings say, in this order.
    pub async fn with_fresh_digits(strings: &[&str], adjust: impl FnOnce(&mut Config)) -> Self {
        let entropy = Arc::new(Foretold::digits(strings));
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let world = Self::in_dir(dir, adjust, entropy, Some(Language::English)).await;
        world.enrol_alice().await;
        world
    }

    /// Alice, enrolled; these rules are in force beside what every call asks, these digits are asked for, and these codes are sent.
    pub async fn with_rules(rules: &str, digits: &[&str], codes: &[&str], adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let file = dir.path().join("rules.toml");
        std::fs::write(&file, rules).unwrap();
        let entropy = Arc::new(Foretold::digits(digits).and_codes(codes));
        let adjust = |config: &mut Config| {
            config.agreement.policy = Some(file);
            adjust(config);
        };
        let world = Self::in_dir(dir, adjust, entropy, Some(Language::English)).await;
        world.enrol_alice().await;
        world
    }

    async fn in_dir(
        dir: Arc<tempfile::TempDir>,
        adjust: impl FnOnce(&mut Config),
        entropy: Arc<dyn Entropy>,
        new_customer: Option<Language>,
    ) -> Self {
        let mut config = Config::default();
        config.store.path = dir.path().join("voicepay.db");
        config.vault.master_key_file = dir.path().join("master.key");
        config.gateway.sandbox_journal = dir.path().join("sandbox-journal.jsonl");
        // Models under load on two cores must not turn into "busy" on a clock that does not wait for them.
        config.dialogue.payment_wait_ms = 60_000;
        adjust(&mut config);
        config.gateway.sandbox_latency_ms = 200;
        config.processor.poll_ms = 5;
        let clock: Arc<dyn Clock> = Arc::new(PausedClock { base: SystemClock.now(), start: Instant::now() });
        let office = Office::open(&config, Arc::clone(&clock), Arc::clone(&entropy)).await.unwrap();
        let services = Arc::new(services(&config, &office, &voices(&config), Arc::clone(&clock), Arc::clone(&entropy), true));
        let stop = CancellationToken::new();
        pay_in_real_time(config.clone(), stop.clone());
        let seeded = SeededEntropy::new(42);
        let mut world = Self {
            customer: CustomerId::fresh(&seeded),
            card: CardId::fresh(&seeded),
            payee: PayeeId::fresh(&seeded),
            config,
            office,
            services,
            clock,
            entropy,
            stop,
            dir,
        };
        if let Some(language) = new_customer {
            world.plant(language).await;
        }
        world
    }

    /// The process ends and starts again on the same data.
    pub async fn restarted(self) -> Self {
        let dir = Arc::clone(&self.dir);
        drop(self);
        // Not seeded: a restarted service must not draw the identifiers of its last life again.
        Self::in_dir(dir, |_| (), Arc::new(SystemEntropy), None).await
    }

    async fn plant(&mut self, language: Language) {
        let now = self.clock.now();
        let store = &self.office.store;
        let customer = Customer {
            tenant: voicepay::ids::Tenant::default(),
            id: self.customer.clone(),
            name: "Alice Example".into(),
            customer_number: CUSTOMER_NUMBER.into(),
            numbers: vec![E164::normalise(ALICE, "").unwrap()],
            status: CustomerStatus::Active,
            language,
            created_at: now,
        };
        store.add_customer(&customer, &self.audit("customer.added")).await.unwrap();
        let (pan, _) = card_numbers();
        let card = CardRecord {
            id: self.card.clone(),
            customer: self.customer.clone(),
            last4: pan.last4(),
            length: 16,
            expiry: None,
            status: CardStatus::Active,
            sealed: self.office.vault.seal_card(&self.card, &self.customer, &pan).unwrap(),
            digest: self.office.vault.digest_card(&pan),
            created_at: now,
        };
        store.add_card(&card, &self.audit("card.added")).await.unwrap();
        let payee = Payee {
            tenant: voicepay::ids::Tenant::default(),
            category: None,
            id: self.payee.clone(),
            name: "City Water".into(),
            spoken_name_wav: None,
            created_at: now,
        };
        store.add_payee(&payee, &self.audit("payee.added")).await.unwrap();
        self.request(1_999).await;
    }

    /// Somebody asks Alice for so many cents.
    pub async fn request(&self, cents: i64) {
        let request = PaymentRequest {
            id: RequestId::fresh(self.entropy.as_ref()),
            customer: self.customer.clone(),
            payee: self.payee.clone(),
            amount: Money::new(cents, Currency::Usd).unwrap(),
            due: None,
            delivery: voicepay::payment::Delivery::None,
            expires_at: None,
            status: RequestStatus::Open,
            held_by: None,
            created_at: self.clock.now(),
        };
        self.office.store.add_request(&request, &self.audit("request.added")).await.unwrap();
    }

    /// Alice is sent a code.
    pub async fn invite_alice(&self) {
        let invite = Invite {
            id: InviteId::fresh(self.entropy.as_ref()),
            customer: self.customer.clone(),
            expires_at: self.clock.now().plus(Duration::from_secs(3600)),
            wrong_tries: 0,
        };
        let digest = self.office.vault.digest_invite_code(CODE);
        self.office.store.add_invite(&invite, &digest, &self.audit("enrolment.invited")).await.unwrap();
    }

    /// Alice's voice is on file, from her recordings.
    pub async fn enrol_alice(&self) {
        self.enrol(template("alice")).await;
    }

    async fn enrol(&self, template: Template) {
        let model = template.model().as_str().to_owned();
        let key = customer_key_to_seal(&*self.office.store, &self.office.vault, &self.customer).await.unwrap();
        let record = EnrolmentRecord {
            template: TemplateRecord {
                customer: self.customer.clone(),
                sealed: key.seal_template(&model, &template.to_bytes()).unwrap(),
                model,
                created_at: self.clock.now(),
            },
            invite: None,
            consent_text_version: "1".into(),
            consent_by: "test".into(),
            consent_at: self.clock.now(),
            call: None,
        };
        self.office.store.complete_enrolment(&record, &self.audit("voice.enrolled")).await.unwrap();
    }

    pub async fn set_card(&self, status: CardStatus) {
        self.office.store.set_card_status(&self.card, status, &self.audit("card.status")).await.unwrap();
    }

    fn audit(&self, action: &str) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(self.entropy.as_ref()),
            at: self.clock.now(),
            actor: "test".into(),
            action: action.into(),
            subject: "test".into(),
            detail: serde_json::Value::Null,
        }
    }

    /// A call from `from` over a telephone line without losses.
    pub async fn call(&self, from: &str, steps: impl IntoIterator<Item = Step>) -> (CallRecord, PhoneReport) {
        self.call_over(from, SampleRate::HZ_8000, LineOptions::default(), steps).await
    }

    /// A call from a number that a trusted peer vouches for.
    pub async fn call_vouched_for(&self, from: &str, steps: impl IntoIterator<Item = Step>) -> (CallRecord, PhoneReport) {
        let who = (CallerClaim::Asserted(from.to_owned()), Attestation::Absent);
        self.call_as(who, SampleRate::HZ_8000, LineOptions::default(), steps).await
    }

    /// A call whose signed number came to this.
    pub async fn call_signed(
        &self,
        from: &str,
        signed: Attestation,
        steps: impl IntoIterator<Item = Step>,
    ) -> (CallRecord, PhoneReport) {
        let who = (CallerClaim::Unverified(from.to_owned()), signed);
        self.call_as(who, SampleRate::HZ_8000, LineOptions::default(), steps).await
    }

    /// A call over a line of this rate and quality.
    pub async fn call_over(
        &self,
        from: &str,
        rate: SampleRate,
        line: LineOptions,
        steps: impl IntoIterator<Item = Step>,
    ) -> (CallRecord, PhoneReport) {
        let caller = if from.is_empty() { CallerClaim::Withheld } else { CallerClaim::Unverified(from.to_owned()) };
        self.call_as((caller, Attestation::Absent), rate, line, steps).await
    }

    async fn call_as(
        &self,
        (caller, attestation): (CallerClaim, Attestation),
        rate: SampleRate,
        line: LineOptions,
        steps: impl IntoIterator<Item = Step>,
    ) -> (CallRecord, PhoneReport) {
        let info = LegInfo { attestation, ..info(caller, rate) };
        // Only the call itself is on virtual time: tokio would leap over the waits for the database before and after it.
        tokio::time::pause();
        let line = connect(info, rate, line);
        let call = tokio::spawn(run_call(CallId::fresh(self.entropy.as_ref()), line.service, Arc::clone(&self.services)));
        let report = run_script(line.phone, &Script::new(steps), |_| ()).await;
        let record = call.await.unwrap();
        tokio::time::resume();
        (record, report)
    }

    /// Whoever is called for a caller answers, does this, and hangs up.
    pub fn with_person(&self, steps: impl IntoIterator<Item = Step>) -> &Self {
        let person = Person(Script::new(steps));
        assert!(self.services.switchboard.set(Arc::new(person)).is_ok());
        self
    }

    /// `voicepay` on this world's data, as an operator uses it.
    pub fn command(&self, args: &[&str]) {
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_voicepay"))
            .args(args)
            .args(["--customer", self.customer.as_str()])
            .env("VOICEPAY__SERVICE__DATA_DIR", self.dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "voicepay {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// As if every place for an inference were taken, while the answer lives.
    pub fn occupied(&self) -> Vec<voicepay::call::inference::Reserved> {
        std::iter::from_fn(|| self.services.inference.reserve()).collect()
    }

    /// Inferences that run or wait.
    pub fn inferences(&self) -> usize {
        self.services.inference.in_flight()
    }

    /// How often the acquirer took money.
    pub fn charges(&self) -> usize {
        let journal = SandboxGateway::read_journal(&self.config.gateway.sandbox_journal).unwrap();
        journal.iter().filter(|line| line.did.charged()).count()
    }

    pub async fn payments(&self) -> Vec<Payment> {
        self.office.store.payments(10).await.unwrap()
    }

    /// Every byte that the service keeps: database, write-ahead log, journal.
    pub fn kept_bytes(&self) -> Vec<u8> {
        std::fs::read_dir(self.dir.path()).unwrap().flat_map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect()
    }
}

/// A line of a telephone in this process.
fn info(caller: CallerClaim, rate: SampleRate) -> LegInfo {
    LegInfo {
        protocol_id: "test".into(),
        caller,
        attestation: Attestation::Absent,
        called: "pay".into(),
        peer: "127.0.0.1".into(),
        trunk: "test".into(),
        transport: "none",
        secure: false,
        setup_ms: 0,
        rate,
        codec: "test",
    }
}

/// Answers every call.
#[derive(Debug)]
struct Person(Script);

#[async_trait::async_trait]
impl Switchboard for Person {
    async fn call(&self, _to: &str, info: &LegInfo, _ring: Duration) -> Result<Leg, String> {
        let line = connect(info.clone(), info.rate, LineOptions::default());
        let script = self.0.clone();
        tokio::spawn(async move { run_script(line.phone, &script, |_| ()).await });
        Ok(line.service)
    }
}

/// The payment worker, as another node would run it: on its own connection and in real time, which no paused clock leaps over.
fn pay_in_real_time(config: Config, stop: CancellationToken) {
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let office = Office::open(&config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await.unwrap();
            office.processor.run(stop).await;
        });
    });
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits for a prompt of at least so much speech, and for the silence behind it.
pub fn hear(at_least_ms: u64) -> Step {
    let action = Action::WaitPrompt { silence: Duration::from_millis(1_000), at_least: Duration::from_millis(at_least_ms) };
    Step::from(action).within(Duration::from_secs(90))
}

/// The same for long texts, which have longer pauses inside.
pub fn hear_out(at_least_ms: u64) -> Step {
    let action = Action::WaitPrompt { silence: Duration::from_millis(1_800), at_least: Duration::from_millis(at_least_ms) };
    Step::from(action).within(Duration::from_secs(90))
}

/// Says the digits that the prompt before asked for, in this persona's voice.
pub fn repeat(persona: &str) -> Step {
    let voice = DigitVoice::load(&fixtures().join(persona)).unwrap();
    Action::RepeatDigits { voice, if_asked: false }.into()
}

/// The same as often as prompts ask for digits, which may be never.
pub fn repeat_while_asked(persona: &str) -> Step {
    let voice = DigitVoice::load(&fixtures().join(persona)).unwrap();
    Step::from(Action::RepeatDigits { voice, if_asked: true }).within(Duration::from_secs(200))
}

/// The steps of a script that demo and README use.
pub fn script(name: &str) -> Vec<Step> {
    Script::load(&fixtures().join("scripts").join(name)).unwrap().steps
}

/// Says a recording.
pub fn say(name: &str) -> Step {
    Step::say(name, recording(name))
}

/// Waits for the service to hang up.
pub fn hung_up() -> Step {
    Step::from(Action::WaitHangUp).within(Duration::from_secs(200))
}

/// What the service said, in order.
pub fn said(record: &CallRecord) -> Vec<&str> {
    record.events.iter().filter(|e| e.who == Who::Service).map(|e| e.what.as_str()).collect()
}

/// What the service said, with the moments at which it began, in milliseconds after the last utterance of the caller before it.
pub fn replies(record: &CallRecord) -> Vec<(String, u128)> {
    let mut spoke = Duration::ZERO;
    let mut out = Vec::new();
    for event in &record.events {
        match event.who {
            Who::Caller => spoke = event.at,
            Who::Service => out.push((event.what.clone(), event.at.saturating_sub(spoke).as_millis())),
            Who::Check => {}
        }
    }
    out
}

/// For the message of a failed assertion.
pub fn story(record: &CallRecord) -> String {
    let line = |e: &voicepay::call::timeline::Event| format!("{:>7} ms {:?}: {}", e.at.as_millis(), e.who, e.what);
    record.events.iter().map(line).collect::<Vec<_>>().join("\n")
}
