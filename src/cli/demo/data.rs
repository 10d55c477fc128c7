//! What the demo's database begins with, and the proof that its money is right.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::app::Office;
use crate::cli::data::{store_error, vault_error};
use crate::cli::exit::{CliError, Exit};
use crate::clock::{Clock, Entropy};
use crate::config::Config;
use crate::e164::E164;
use crate::gateway::sandbox::SandboxGateway;
use crate::ids::{AuditId, CardId, CustomerId, InviteId, PayeeId, RequestId};
use crate::money::{Currency, Money};
use crate::payment::{Expiry, PaymentRequest, RequestStatus};
use crate::secret::Pan;
use crate::store::{AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, Invite, Payee, Payment};
use crate::webrtc::WebrtcConfig;

/// How long the demo's invitation is good.
const INVITE_VALID: Duration = Duration::from_secs(3600);

/// A data directory that goes away with the demo, unless the user named it.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    ours: bool,
}

impl Place {
    pub(super) fn take(named: Option<&Path>) -> Result<Self, CliError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("voicepay-demo-{}", std::process::id())),
        };
        if path.exists() {
            let sentence =
                format!("{} exists already: name a directory that does not, the demo starts from nothing", path.display());
            return Err(CliError::new(Exit::Refused, sentence));
        }
        std::fs::create_dir_all(&path)
            .map_err(|e| CliError::new(Exit::Database, format!("{} can't be made: {e}", path.display())))?;
        Ok(Self { path, ours: named.is_none() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.ours {
            // Left behind it does no harm: the key is gone with it or stays beside it.
            let _best_effort = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The shop beside the calls: the API's listener on loopback, and calls from its page.
pub(super) fn open_shop(config: &mut Config, port: u16, customer: &CustomerId) {
    config.api.listen = Some(([127, 0, 0, 1], port).into());
    (config.api.certificate, config.api.private_key) = (None, None);
    config.api.public_url.clear();
    (config.app.demo_shop, config.app.demo_customer) = (true, Some(customer.clone()));
    // Whoever shows the demo opens its page as often as they like.
    config.app.max_open = 100;
    let (port_min, port_max) = (0, 0);
    let bind_addresses = vec![[127, 0, 0, 1].into()];
    // What the configuration says of STUN, TURN and waits holds.
    let as_set = std::mem::take(&mut config.webrtc);
    config.webrtc = WebrtcConfig { enabled: true, bind_addresses, port_min, port_max, ..as_set };
}

/// Who is in the database.
pub(super) struct Seed {
    numbers: Vec<String>,
    pub(super) customer: CustomerId,
    pub(super) payee: PayeeId,
    pub(super) payee_name: String,
    pub(super) last4: String,
    pub(super) invite_code: Zeroizing<String>,
}

impl Seed {
    /// One customer with one card, one payee, one request, one invitation.
    pub(super) async fn plant(
        office: &Office,
        customer: CustomerId,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
        fixtures: &Path,
    ) -> Result<Self, CliError> {
        let now = clock.now();
        let audit = |action: &str, subject: &str| AuditRecord {
            id: AuditId::fresh(entropy),
            at: now,
            actor: "demo".to_owned(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            detail: serde_json::Value::Null,
        };
        let pan = card_of(fixtures)?;
        // From the range that is kept free for fiction.
        let numbers = ["+447700900123", "+447700900124"].map(|n| E164::normalise(n, ""));
        let numbers = numbers.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| CliError::new(Exit::Unexpected, e))?;
        let customer = Customer {
            tenant: crate::ids::Tenant::default(),
            id: customer,
            name: "Alice Example".to_owned(),
            customer_number: "10042001".to_owned(),
            numbers: numbers.clone(),
            status: CustomerStatus::Active,
            language: crate::language::Language::English,
            created_at: now,
        };
        office.store.add_customer(&customer, &audit("customer.added", customer.id.as_str())).await.map_err(store_error)?;
        let id = CardId::fresh(entropy);
        let card = CardRecord {
            sealed: office.vault.seal_card(&id, &customer.id, &pan).map_err(vault_error)?,
            digest: office.vault.digest_card(&pan),
            last4: pan.last4(),
            length: u8::try_from(pan.digits().len()).unwrap_or(u8::MAX),
            expiry: Expiry::new(2099, 12).ok(),
            status: CardStatus::Active,
            customer: customer.id.clone(),
            created_at: now,
            id,
        };
        office.store.add_card(&card, &audit("card.added", card.id.as_str())).await.map_err(store_error)?;
        let payee = Payee {
            tenant: crate::ids::Tenant::default(),
            category: None,
            id: PayeeId::fresh(entropy),
            name: "Riverside Electric".to_owned(),
            spoken_name_wav: None,
            created_at: now,
        };
        office.store.add_payee(&payee, &audit("payee.added", payee.id.as_str())).await.map_err(store_error)?;
        let code = Zeroizing::new(format!("{:08}", entropy.below(100_000_000)));
        let invite = Invite {
            id: InviteId::fresh(entropy),
            customer: customer.id.clone(),
            expires_at: now.plus(INVITE_VALID),
            wrong_tries: 0,
        };
        let digest = office.vault.digest_invite_code(&code);
        office.store.add_invite(&invite, &digest, &audit("enrolment.invited", invite.id.as_str())).await.map_err(store_error)?;
        let seed = Self {
            numbers: numbers.iter().map(|n| n.as_str().to_owned()).collect(),
            customer: customer.id,
            payee: payee.id,
            payee_name: payee.name,
            last4: card.last4,
            invite_code: code,
        };
        seed.request(office, clock, entropy, 1_999).await?;
        Ok(seed)
    }

    /// One of the customer's telephone numbers.
    pub(super) fn number(&self, index: usize) -> &str {
        self.numbers.get(index).map_or("", String::as_str)
    }

    /// The payee asks for so many cents.
    pub(super) async fn request(
        &self,
        office: &Office,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
        cents: i64,
    ) -> Result<(), CliError> {
        let now = clock.now();
        let request = PaymentRequest {
            id: RequestId::fresh_at(now, entropy),
            customer: self.customer.clone(),
            payee: self.payee.clone(),
            amount: Money::new(cents, Currency::Usd).map_err(|e| CliError::new(Exit::Unexpected, e))?,
            due: None,
            delivery: crate::payment::Delivery::None,
            expires_at: None,
            status: RequestStatus::Open,
            held_by: None,
            created_at: now,
        };
        let audit = AuditRecord {
            id: AuditId::fresh(entropy),
            at: now,
            actor: "demo".to_owned(),
            action: "request.added".to_owned(),
            subject: request.id.as_str().to_owned(),
            detail: serde_json::Value::Null,
        };
        office.store.add_request(&request, &audit).await.map_err(store_error)
    }
}

/// The card number that the recordings speak, from their manifest.
fn card_of(fixtures: &Path) -> Result<Pan, CliError> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        card: String,
    }
    let path = fixtures.join("manifest.toml");
    let wrong = |why: String| {
        let sentence =
            format!("{}: {why}; run the demo in the repository, or name its recordings with --fixtures", path.display());
        CliError::new(Exit::Audio, sentence)
    };
    let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|e| wrong(e.message().to_owned()))?;
    Pan::parse(&manifest.card).map_err(|e| wrong(e.to_string()))
}

/// Every payment, newest first.
pub(super) async fn payments(office: &Office) -> Result<Vec<Payment>, CliError> {
    office.store.payments(100).await.map_err(store_error)
}

/// Looks at the bank's side and ours: exactly one charge, and books that balance.
pub(super) async fn money_problems(office: &Office, config: &Config) -> Result<Vec<String>, CliError> {
    let journal = SandboxGateway::read_journal(&config.gateway.sandbox_journal).map_err(|e| CliError::new(Exit::Database, e))?;
    let charges = journal.iter().filter(|line| line.did.charged()).count();
    let receipts = payments(office).await?.iter().filter(|p| p.receipt.is_some()).count();
    let mut problems = Vec::new();
    if charges != 1 {
        problems.push(format!("the acquirer charged {charges} times, not once"));
    }
    if receipts != 1 {
        problems.push(format!("there are {receipts} receipts, not one"));
    }
    if let Err(error) = crate::ledger::verify(&office.store.transfers().await.map_err(store_error)?) {
        problems.push(format!("the books do not balance: {error}"));
    }
    Ok(problems)
}
