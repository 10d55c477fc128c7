//! Customers, their cards, payees.

use std::fmt::Display;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ask::{Answer, Ask, created, ok, page};
use super::problem::Problem;
use super::route::{Route, run};
use super::scope::Scope;
use super::shape::{Defs, Page, Shape, shape};
use super::types::{Name, When, Word, words};
use crate::clock::Entropy;
use crate::e164::E164;
use crate::ids::{CardId, Category, CustomerId, PayeeId};
use crate::language::Language;
use crate::payment::Expiry;
use crate::secret::Pan;
use crate::store::{CardRecord, CardStatus, Customer, CustomerStatus, Document, Listed, Payee, StoreError, papers};

words! {
    /// What the service speaks with a customer.
    Tongue {
        /// English.
        English = "en",
        /// Mandarin Chinese.
        Mandarin = "zh",
    }
}

impl From<Tongue> for Language {
    fn from(tongue: Tongue) -> Self {
        match tongue {
            Tongue::English => Self::English,
            Tongue::Mandarin => Self::Mandarin,
        }
    }
}

/// A telephone number with + and country.
pub struct Phone(E164);

impl<'de> Deserialize<'de> for Phone {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        let plain = text.strip_prefix('+').is_some_and(|r| r.bytes().all(|b| b.is_ascii_digit()));
        let number = E164::normalise(&text, "").ok().filter(|_| plain);
        number.map(Self).ok_or_else(|| serde::de::Error::custom("a telephone number is + and 7 to 15 digits, the country first"))
    }
}

impl Shape for Phone {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^\\+[1-9][0-9]{6,14}$" })
    }
}

/// A customer number.
pub struct CustomerNumber(String);

impl<'de> Deserialize<'de> for CustomerNumber {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let fits = (6..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if fits { Ok(Self(text)) } else { Err(serde::de::Error::custom("a customer number has 6 to 10 digits")) }
    }
}

impl Shape for CustomerNumber {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^[0-9]{6,10}$" })
    }
}

/// A card number. Wiped, never printed; what is wrong with one is said without it.
pub struct Number(Pan);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        let plain = text.bytes().all(|b| b.is_ascii_digit());
        let pan = Pan::parse(&text).ok().filter(|_| plain);
        pan.map(Self)
            .ok_or_else(|| serde::de::Error::custom("a card number has 13 to 19 digits, the last of them its check digit"))
    }
}

impl Shape for Number {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^[0-9]{13,19}$", "description": "Never given back, never logged." })
    }
}

impl Shape for Expiry {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "pattern": "^(0[1-9]|1[0-2])/[0-9]{2}$", "description": "MM/YY." })
    }
}

shape! {
    /// A new customer.
    input NewCustomer {
        /// For people; never spoken.
        name: Name,
        /// Telephone numbers that the customer calls from. They prove nothing.
        numbers: Option<Vec<Phone>>,
        /// What is keyed where the calling number does not tell. Drawn if absent.
        customer_number: Option<CustomerNumber>,
        /// What is spoken with the customer: `en` if absent.
        language: Option<Tongue>,
    }
}

shape! {
    /// A customer.
    output CustomerView {
        /// Which one.
        id: CustomerId,
        /// For people.
        name: String,
        /// What is keyed where the calling number does not tell.
        customer_number: String,
        /// Telephone numbers.
        numbers: Vec<String>,
        /// `active`, `blocked` or `deleted`.
        status: Word,
        /// What is spoken with the customer.
        language: String,
        /// Since when there is a voice template; null: none.
        voice_since: Option<When>,
        /// When it was added.
        created_at: When,
    }
}

shape! {
    /// A new card.
    input NewCard {
        /// Its number.
        number: Number,
        /// The last month in which it is good.
        expires: Option<Expiry>,
    }
}

shape! {
    /// A card.
    output CardView {
        /// The token that stands for its number.
        id: CardId,
        /// Whose.
        customer: CustomerId,
        /// The last four digits.
        last4: String,
        /// The last month in which it is good.
        expires: Option<Expiry>,
        /// `active`, `blocked` or `revoked`.
        status: Word,
        /// When it was added.
        created_at: When,
    }
}

words! {
    /// What a card may become.
    CardChange {
        /// It may be charged.
        Active = "active",
        /// Not for now.
        Blocked = "blocked",
        /// Never again.
        Revoked = "revoked",
    }
}

shape! {
    /// A card's new status.
    input NewStatus {
        /// Which.
        status: CardChange,
    }
}

shape! {
    /// A new payee.
    input NewPayee {
        /// As it stands on statements; spelt to callers.
        name: Name,
        /// What it sells, for rules.
        category: Option<Category>,
    }
}

shape! {
    /// A payee.
    output PayeeView {
        /// Which one.
        id: PayeeId,
        /// As it stands on statements.
        name: String,
        /// What it sells.
        category: Option<Category>,
        /// Whether its name is a recording.
        recorded: bool,
        /// When it was added.
        created_at: When,
    }
}

shape! {
    /// What was done away with.
    output Gone {
        /// Which one.
        deleted: String,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{CardsWrite, CustomersRead, CustomersWrite, PayeesRead, PayeesWrite};
    vec![
        Route::get::<Page<CustomerView>>("/customers", "listCustomers", CustomersRead, run!(customers), "Customers.").listed(),
        Route::post::<NewCustomer, CustomerView>("/customers", "addCustomer", CustomersWrite, run!(add), "Adds a customer."),
        Route::get::<CustomerView>("/customers/{id}", "getCustomer", CustomersRead, run!(customer), "One customer."),
        Route::delete::<Gone>(
            "/customers/{id}",
            "deleteCustomer",
            CustomersWrite,
            run!(delete),
            "Erases a customer's cards, voice, name and numbers. What was paid stays in the books.",
        ),
        Route::get::<Page<CardView>>("/customers/{id}/cards", "listCards", CustomersRead, run!(cards), "A customer's cards."),
        Route::post::<NewCard, CardView>(
            "/customers/{id}/cards",
            "addCard",
            CardsWrite,
            run!(add_card),
            "Gives a customer a card. The number goes over TLS straight into the vault.",
        ),
        Route::post::<NewStatus, CardView>(
            "/cards/{id}/status",
            "setCardStatus",
            CustomersWrite,
            run!(set_card),
            "Blocks, frees or revokes a card.",
        )
        .giving(200),
        Route::get::<Page<PayeeView>>("/payees", "listPayees", PayeesRead, run!(payees), "Payees.").listed(),
        Route::post::<NewPayee, PayeeView>("/payees", "addPayee", PayeesWrite, run!(add_payee), "Adds a payee."),
        Route::get::<PayeeView>("/payees/{id}", "getPayee", PayeesRead, run!(payee), "One payee."),
    ]
}

/// The customer of the path, if it is the caller's and not deleted.
pub(super) async fn of_caller(ask: &Ask, id: &CustomerId) -> Result<Customer, Problem> {
    let found = ask.shared.store.customer(id).await?;
    let found = found.filter(|c| c.tenant == ask.caller.tenant && c.status != CustomerStatus::Deleted);
    found.ok_or_else(|| Problem::not_found("customer"))
}

async fn view(ask: &Ask, c: Customer) -> Result<CustomerView, Problem> {
    let voice = ask.shared.store.template(&c.id).await?;
    Ok(CustomerView {
        id: c.id,
        name: c.name,
        customer_number: c.customer_number,
        numbers: c.numbers.iter().map(|n| n.as_str().to_owned()).collect(),
        status: Word(c.status.as_str()),
        language: c.language.code().to_owned(),
        voice_since: voice.map(|v| v.created_at.into()),
        created_at: c.created_at.into(),
    })
}

async fn customers(ask: &Ask) -> Result<Answer, Problem> {
    let found = ask.page(Listed::Customers, "customers").await?;
    let mut data = Vec::with_capacity(found.ids.len());
    for id in &found.ids {
        let id = CustomerId::parse(id).map_err(|e| Problem::internal(&e))?;
        // One may have been deleted since the page was read.
        if let Some(c) = ask.shared.store.customer(&id).await?.filter(|c| c.status != CustomerStatus::Deleted) {
            data.push(view(ask, c).await?);
        }
    }
    page(data, found.next)
}

async fn customer(ask: &Ask) -> Result<Answer, Problem> {
    let found = of_caller(ask, &ask.id(0, "customer")?).await?;
    ok(&view(ask, found).await?)
}

/// How often a customer number is drawn before it is left to another time.
const DRAWS: u32 = 20;

async fn add(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewCustomer = ask.input()?;
    let mut numbers = Vec::new();
    for Phone(number) in new.numbers.unwrap_or_default() {
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    let given = new.customer_number.map(|n| n.0);
    let entropy: &dyn Entropy = &ask.entropy;
    let mut customer = Customer {
        id: CustomerId::fresh(entropy),
        tenant: ask.caller.tenant.clone(),
        name: new.name.0,
        customer_number: String::new(),
        numbers,
        status: CustomerStatus::Active,
        language: match new.language {
            None | Some(Tongue::English) => Language::English,
            Some(Tongue::Mandarin) => Language::Mandarin,
        },
        created_at: ask.now,
    };
    if let Some(there) = ask.shared.store.customer(&customer.id).await? {
        return created(&view(ask, there).await?); // made when this was asked before
    }
    for left in (0..DRAWS).rev() {
        customer.customer_number = given.clone().unwrap_or_else(|| format!("{:08}", entropy.below(100_000_000)));
        let audit = ask.audit("customer.added", customer.id.as_str(), json!({ "numbers": customer.numbers.len() }));
        match ask.shared.store.add_customer(&customer, &audit).await {
            Ok(()) => break,
            Err(StoreError::Exists(_)) if given.is_none() && left > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
    created(&view(ask, customer).await?)
}

async fn delete(ask: &Ask) -> Result<Answer, Problem> {
    let found = of_caller(ask, &ask.id(0, "customer")?).await?;
    let audit = ask.audit("customer.deleted", found.id.as_str(), json!({}));
    ask.shared.store.delete_customer(&found.id, &audit).await?;
    ok(&Gone { deleted: found.id.to_string() })
}

fn card_view(c: CardRecord) -> CardView {
    let (status, created_at) = (Word(c.status.as_str()), c.created_at.into());
    CardView { id: c.id, customer: c.customer, last4: c.last4, expires: c.expiry, status, created_at }
}

async fn cards(ask: &Ask) -> Result<Answer, Problem> {
    let found = of_caller(ask, &ask.id(0, "customer")?).await?;
    let all = ask.shared.store.cards_of(&found.id).await?;
    page(all.into_iter().map(card_view).collect(), None)
}

async fn add_card(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let new: NewCard = ask.input()?;
    let (Number(pan), now) = (new.number, ask.now);
    if new.expires.is_some_and(|e| e.passed(now)) {
        return Err(Problem::conflict("this card has expired already"));
    }
    let vault = &ask.shared.vault;
    let id = CardId::fresh(&ask.entropy);
    if let Some(there) = ask.shared.store.card(&id).await? {
        return created(&card_view(there)); // made when this was asked before
    }
    let card = CardRecord {
        customer: customer.id.clone(),
        last4: pan.last4(),
        length: u8::try_from(pan.digits().len()).unwrap_or(u8::MAX),
        expiry: new.expires,
        status: CardStatus::Active,
        sealed: vault.seal_card(&id, &customer.id, &pan).map_err(|e| Problem::internal(&e))?,
        digest: vault.digest_card(&pan),
        created_at: now,
        id,
    };
    let audit = ask.audit("card.added", card.id.as_str(), json!({ "customer": customer.id }));
    ask.shared.store.add_card(&card, &audit).await?;
    created(&card_view(card))
}

async fn set_card(ask: &Ask) -> Result<Answer, Problem> {
    let id: CardId = ask.id(0, "card")?;
    let new: NewStatus = ask.input()?;
    let card = ask.shared.store.card(&id).await?.ok_or_else(|| Problem::not_found("card"))?;
    of_caller(ask, &card.customer).await.map_err(|_| Problem::not_found("card"))?;
    let status = match new.status {
        CardChange::Active => CardStatus::Active,
        CardChange::Blocked => CardStatus::Blocked,
        CardChange::Revoked => CardStatus::Revoked,
    };
    if card.status == CardStatus::Revoked && status != CardStatus::Revoked {
        return Err(Problem::conflict("a revoked card stays revoked"));
    }
    if card.status != status {
        let audit = ask.audit(&format!("card.{}", status.as_str()), id.as_str(), json!({}));
        ask.shared.store.set_card_status(&id, status, &audit).await?;
    }
    ok(&card_view(CardRecord { status, ..card }))
}

fn payee_view(p: Payee) -> PayeeView {
    let (recorded, created_at) = (p.spoken_name_wav.is_some(), p.created_at.into());
    PayeeView { id: p.id, name: p.name, category: p.category, recorded, created_at }
}

/// The paper of the path, if whose payments it is about is the caller's customer. `I`: how such a paper is called.
pub(super) async fn paper_of_path<I: FromStr + Display, D: Document>(ask: &Ask) -> Result<D, Problem> {
    let none = || Problem::not_found(D::KIND.in_words());
    let id: I = ask.id(0, D::KIND.in_words())?;
    let found: D = papers::read(&*ask.shared.store, &id.to_string()).await?.ok_or_else(none)?;
    of_caller(ask, found.owner()).await.map_err(|_| none())?;
    Ok(found)
}

/// The payee, if it is the caller's.
pub(super) async fn payee_of_caller(ask: &Ask, id: &PayeeId) -> Result<Payee, Problem> {
    let found = ask.shared.store.payee(id).await?.filter(|p| p.tenant == ask.caller.tenant);
    found.ok_or_else(|| Problem::not_found("payee"))
}

async fn payees(ask: &Ask) -> Result<Answer, Problem> {
    let found = ask.page(Listed::Payees, "payees").await?;
    let mut data = Vec::with_capacity(found.ids.len());
    for id in &found.ids {
        let id = PayeeId::parse(id).map_err(|e| Problem::internal(&e))?;
        data.extend(ask.shared.store.payee(&id).await?.map(payee_view));
    }
    page(data, found.next)
}

async fn payee(ask: &Ask) -> Result<Answer, Problem> {
    ok(&payee_view(payee_of_caller(ask, &ask.id(0, "payee")?).await?))
}

async fn add_payee(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewPayee = ask.input()?;
    let payee = Payee {
        id: PayeeId::fresh(&ask.entropy),
        tenant: ask.caller.tenant.clone(),
        category: new.category,
        name: new.name.0,
        spoken_name_wav: None,
        created_at: ask.now,
    };
    if let Some(there) = ask.shared.store.payee(&payee.id).await? {
        return created(&payee_view(there)); // made when this was asked before
    }
    let audit = ask.audit("payee.added", payee.id.as_str(), json!({ "recording": false }));
    ask.shared.store.add_payee(&payee, &audit).await?;
    created(&payee_view(payee))
}
