//! Payments that others have to agree to, and calls that we place to them.

use std::sync::Arc;
use std::time::Duration;

use voicepay::agreement::Agreements;
use voicepay::call::{CallRecord, run_errand};
use voicepay::clock::SystemEntropy;
use voicepay::dialogue::Errand;
use voicepay::e164::E164;
use voicepay::ids::{CallId, CardId, CustomerId, RequestId};
use voicepay::language::Language;
use voicepay::media::frame::SampleRate;
use voicepay::media::in_process::{LineOptions, connect};
use voicepay::media::leg::{CallerClaim, LegInfo};
use voicepay::money::{Currency, Money};
use voicepay::payment::{PaymentRequest, RequestStatus};
use voicepay::phone::{Script, Step, run_script};
use voicepay::speech::pickup::PickupEar;
use voicepay::store::{CardRecord, CardStatus, Customer, CustomerStatus};

use super::{World, card_numbers, info, story};

impl World {
    /// Somebody else with a card, and no voice on file.
    pub async fn neighbour(&self, name: &str, number: &str, customer_number: &str) -> (CustomerId, CardId) {
        let (id, card) = (CustomerId::fresh(&SystemEntropy), CardId::fresh(&SystemEntropy));
        let customer = Customer {
            tenant: voicepay::ids::Tenant::default(),
            id: id.clone(),
            name: name.into(),
            customer_number: customer_number.into(),
            numbers: vec![E164::normalise(number, "").unwrap()],
            status: CustomerStatus::Active,
            language: Language::English,
            created_at: self.clock.now(),
        };
        let store = &self.office.store;
        store.add_customer(&customer, &self.audit("customer.added")).await.unwrap();
        let (_, pan) = card_numbers();
        let record = CardRecord {
            id: card.clone(),
            customer: id.clone(),
            last4: pan.last4(),
            length: 16,
            expiry: None,
            status: CardStatus::Active,
            sealed: self.office.vault.seal_card(&card, &id, &pan).unwrap(),
            digest: self.office.vault.digest_card(&pan),
            created_at: self.clock.now(),
        };
        store.add_card(&record, &self.audit("card.added")).await.unwrap();
        (id, card)
    }

    /// Somebody asks this customer for so many cents.
    pub async fn request_of(&self, customer: &CustomerId, cents: i64) -> PaymentRequest {
        let request = PaymentRequest {
            id: RequestId::fresh(&SystemEntropy),
            customer: customer.clone(),
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
        request
    }

    /// Whoever asked no longer does.
    pub async fn withdraw(&self, request: &RequestId) {
        self.office.agreements.cancel_request(request, "test").await.unwrap();
    }

    pub fn agreements(&self) -> &Agreements {
        &self.office.agreements
    }

    /// And an hour.
    pub async fn let_a_day_pass(&self) {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(25 * 3_600)).await;
        tokio::time::resume();
    }

    /// A person picked up a call that we placed, and does this.
    pub async fn called_back(&self, errand: Errand, steps: impl IntoIterator<Item = Step>) -> CallRecord {
        let rate = SampleRate::HZ_8000;
        let info =
            LegInfo { called: errand.number.as_str().to_owned(), ..info(CallerClaim::Unverified("+448081570000".into()), rate) };
        let mut ear = PickupEar::new(self.config.speech.pickup, self.services.activity.clone(), rate);
        ear.answered();
        tokio::time::pause();
        let line = connect(info, rate, LineOptions::default());
        let id = CallId::fresh(&SystemEntropy);
        let call = tokio::spawn(run_errand(id, line.service, ear, errand, Arc::clone(&self.services)));
        let report = run_script(line.phone, &Script::new(steps), |_| ()).await;
        let record = call.await.unwrap();
        tokio::time::resume();
        assert!(report.failure.is_none(), "{:?}\n{}", report.failure, story(&record));
        record
    }
}
