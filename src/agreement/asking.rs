//! Asks the rules about a payment: gathers what is known of it, lets guardianships and supervisions put theirs in, and adds all answers up.

use std::time::Duration;

use super::Agreements;
use crate::clock::Timestamp;
use crate::ids::CustomerId;
use crate::payment::policy::{Attested, Channel, Facts, History};
use crate::payment::{Condition, Delivery, Guardianship, Mandate, PaymentRequest, Role, Supervision, Terms};
use crate::store::{Spent, SpentSince, StoreError, papers};

/// Over which time sums and failures count.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// By what way somebody is about to pay.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The way.
    pub channel: Channel,
    /// Who vouches for the number that calls.
    pub attestation: Attested,
    /// Whether the device is known, where there is one.
    pub device_known: Option<bool>,
    /// Whether a mandate is to stand for the card number.
    pub by_mandate: bool,
}

impl Asking {
    /// By a call.
    pub fn call(attestation: Attested) -> Self {
        Self { channel: Channel::Telephone, attestation, device_known: None, by_mandate: false }
    }

    /// By an app's page, by voice: the app knows the device that its customer is logged in on.
    pub fn app() -> Self {
        Self { channel: Channel::App, attestation: Attested::NotACall, device_known: Some(true), by_mandate: false }
    }

    /// As a payer's part was taken, once more.
    pub fn again(channel: Channel, attestation: Attested) -> Self {
        match channel {
            Channel::App => Self::app(),
            Channel::Telephone | Channel::Api => Self { channel, ..Self::call(attestation) },
        }
    }

    /// By confirming a purchase, without a voice.
    pub fn purchase() -> Self {
        Self { channel: Channel::Api, attestation: Attested::NotACall, device_known: None, by_mandate: false }
    }

    /// By a mandate and a code, without a voice.
    pub fn api() -> Self {
        Self { channel: Channel::Api, attestation: Attested::NotACall, device_known: None, by_mandate: true }
    }
}

/// What the rules said, and what they were told.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is known.
    pub facts: Facts,
    /// On which conditions it may be charged.
    pub terms: Terms,
    /// Who could agree, by role: those that the conditions ask for are among them.
    pub people: Vec<(Role, CustomerId)>,
    /// The sums in the facts: a charge is refused if they have grown.
    pub spent: (SpentSince, Spent),
    /// Guardianships that hold.
    pub guardianships: Vec<Guardianship>,
    /// The mandate that covers it, if there is one.
    pub mandate: Option<Mandate>,
}

impl Asked {
    /// Who has to agree: one person a role that is asked for.
    pub fn parties(&self) -> Vec<(Role, CustomerId)> {
        let asked = |role: Role| self.terms.conditions.iter().any(|c| Role::of(*c) == Some(role));
        self.people.iter().filter(|(role, _)| asked(*role)).cloned().collect()
    }

    /// What the payer alone has to do.
    pub fn own_conditions(&self) -> impl Iterator<Item = Condition> {
        self.terms.conditions.iter().copied().filter(|c| !c.needs_another())
    }
}

impl Agreements {
    /// On which conditions this request may be paid now.
    pub async fn ask(&self, request: &PaymentRequest, asking: Asking) -> Result<Asked, StoreError> {
        let inner = &*self.inner;
        let (store, now) = (&*inner.store, inner.clock.now());
        let since = SpentSince {
            customer: request.customer.clone(),
            payee: request.payee.clone(),
            currency: request.amount.currency,
            since: now.minus(DAY),
        };
        let (customer, payee) = (&request.customer, &request.payee);
        let spent = store.spent(&since).await?;
        let category = store.payee(payee).await?.and_then(|p| p.category);
        let guardianships: Vec<Guardianship> = papers::of(store, customer).await?;
        let supervisions: Vec<Supervision> = papers::of(store, customer).await?;
        let mandates: Vec<Mandate> = papers::of(store, customer).await?;
        let failures = store.failure_counts(Some(customer), None, "", now.minus(DAY)).await?.customer_any;
        let address_known = match &request.delivery {
            Delivery::To(mark) => store.delivered_before(customer, mark).await?,
            Delivery::None | Delivery::Nowhere => false,
        };
        let mut facts = Facts {
            channel: asking.channel,
            category,
            delivery: request.delivery.clone(),
            address_known,
            attestation: asking.attestation,
            device_known: asking.device_known,
            by_mandate: asking.by_mandate,
            history: History {
                spent_24h: spent.in_all,
                spent_24h_payee: spent.to_payee,
                paid_before: spent.paid,
                paid_before_payee: spent.paid_payee,
                failures_24h: failures,
            },
            ..Facts::plain(now, request.amount, payee.clone())
        };
        let guardianships: Vec<Guardianship> = guardianships.into_iter().filter(|g| g.holds(now)).collect();
        guardianships.iter().for_each(|g| g.colour(&mut facts));
        supervisions.iter().for_each(|s| s.colour(&mut facts));
        let policy = self.policy();
        let terms = guardianships.iter().fold(policy.terms(&facts), |terms, g| terms.and(g.terms(&facts, policy.version())));
        let people = people(&guardianships, &supervisions, &facts, now);
        let mandate = mandates.into_iter().find(|m| m.covers(request));
        Ok(Asked { facts, terms, people, spent: (since, spent), guardianships, mandate })
    }
}

fn people(
    guardianships: &[Guardianship],
    supervisions: &[Supervision],
    facts: &Facts,
    now: Timestamp,
) -> Vec<(Role, CustomerId)> {
    let mut people = Vec::new();
    for g in guardianships.iter().filter(|g| g.holds(now)) {
        people.push((Role::Guardian, g.guardian.clone()));
        people.extend(g.second.clone().map(|second| (Role::SecondGuardian, second)));
    }
    people.extend(supervisions.iter().filter(|s| s.asked(facts)).map(|s| (Role::Supervisor, s.supervisor.clone())));
    people
}
