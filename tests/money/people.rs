//! Who and what must stand in a database before anybody can pay, as rows. The benches include this file by its path.

use voicepay::clock::{Entropy, Timestamp};
use voicepay::ids::{AuditId, CardId, CustomerId, PayeeId, RequestId};
use voicepay::language::Language;
use voicepay::money::Money;
use voicepay::payment::{PaymentRequest, RequestStatus};
use voicepay::secret::Pan;
use voicepay::store::{AuditRecord, CardRecord, CardStatus, Customer, CustomerStatus, Payee, Store};
use voicepay::vault::Vault;

/// An audit row for what a test does.
pub fn audit_row(entropy: &dyn Entropy, at: Timestamp) -> AuditRecord {
    AuditRecord {
        id: AuditId::fresh(entropy),
        at,
        actor: "test".into(),
        action: "set up".into(),
        subject: "house".into(),
        detail: serde_json::json!({}),
    }
}

/// Somebody who may pay.
pub fn customer(entropy: &dyn Entropy, at: Timestamp) -> Customer {
    Customer {
        tenant: voicepay::ids::Tenant::default(),
        id: CustomerId::fresh(entropy),
        name: "Ann".into(),
        customer_number: "123456".into(),
        numbers: vec![],
        status: CustomerStatus::Active,
        language: Language::English,
        created_at: at,
    }
}

/// Somebody who is paid.
pub fn payee(entropy: &dyn Entropy, at: Timestamp) -> Payee {
    Payee {
        tenant: voicepay::ids::Tenant::default(),
        category: None,
        id: PayeeId::fresh(entropy),
        name: "Water Works".into(),
        spoken_name_wav: None,
        created_at: at,
    }
}

/// A customer's card, good for ever.
pub fn card(entropy: &dyn Entropy, at: Timestamp, vault: &Vault, customer: &CustomerId, number: &str) -> CardRecord {
    let (id, pan) = (CardId::fresh(entropy), Pan::parse(number).unwrap());
    CardRecord {
        customer: customer.clone(),
        last4: pan.last4(),
        length: u8::try_from(pan.digits().len()).unwrap(),
        expiry: None,
        status: CardStatus::Active,
        sealed: vault.seal_card(&id, customer, &pan).unwrap(),
        digest: vault.digest_card(&pan),
        created_at: at,
        id,
    }
}

/// Writes all three down: who may pay, with which card, and whom.
pub async fn move_in(
    store: &dyn Store,
    vault: &Vault,
    entropy: &dyn Entropy,
    at: Timestamp,
    number: &str,
) -> (CustomerId, CardId, PayeeId) {
    let (customer, payee) = (customer(entropy, at), payee(entropy, at));
    store.add_customer(&customer, &audit_row(entropy, at)).await.unwrap();
    store.add_payee(&payee, &audit_row(entropy, at)).await.unwrap();
    let card = card(entropy, at, vault, &customer.id, number);
    store.add_card(&card, &audit_row(entropy, at)).await.unwrap();
    (customer.id, card.id, payee.id)
}

/// What a payee asks of a customer; it never expires.
pub fn request(entropy: &dyn Entropy, at: Timestamp, customer: &CustomerId, payee: &PayeeId, amount: Money) -> PaymentRequest {
    PaymentRequest {
        id: RequestId::fresh(entropy),
        customer: customer.clone(),
        payee: payee.clone(),
        amount,
        due: None,
        delivery: voicepay::payment::Delivery::None,
        expires_at: None,
        status: RequestStatus::Open,
        held_by: None,
        created_at: at,
    }
}
