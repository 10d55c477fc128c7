//! Who looks after whose payments: guardianships, whose rules the ward can't change, and supervisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ask::{Answer, Ask, created, ok, page};
use super::asking::Address;
use super::people::{of_caller, paper_of_path};
use super::problem::Problem;
use super::route::{Route, run};
use super::scope::Scope;
use super::shape::{Defs, Page, Shape, shape};
use super::types::{When, whole, words};
use crate::agreement::GuardingError;
use crate::clock::Timestamp;
use crate::ids::{Category, CustomerId, GuardianshipId, PayeeId, SupervisionId};
use crate::money::{Currency, MinorUnits};
use crate::payment::guardian::{Change, Edited, WardRules};
use crate::payment::{AddressMark, Guardianship, Supervision};
use crate::store::papers;

/// Minor units, none or more.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct NotBelowZero(i64);

impl<'de> Deserialize<'de> for NotBelowZero {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let minor = whole(d)?;
        let fits = (0..=MinorUnits::MAX).contains(&minor);
        if fits {
            Ok(Self(minor))
        } else {
            Err(serde::de::Error::custom("a limit is 0 or more, and no more than an amount can be"))
        }
    }
}

impl Shape for NotBelowZero {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": MinorUnits::MAX })
    }
}

/// A moment, as it is asked.
pub struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let at = Timestamp::parse(&String::deserialize(d)?);
        at.map(Self).ok_or_else(|| serde::de::Error::custom("a time is written by RFC 3339"))
    }
}

impl Shape for Moment {
    fn schema(_: &mut Defs) -> Value {
        json!({ "type": "string", "format": "date-time" })
    }
}

shape! {
    /// A limit in one currency.
    input LimitAsked {
        /// In minor units.
        minor: NotBelowZero,
        /// ISO 4217.
        currency: Currency,
    }
}

shape! {
    /// A limit in one currency.
    output LimitView {
        /// In minor units.
        minor: i64,
        /// ISO 4217.
        currency: Currency,
    }
}

shape! {
    /// What a ward may pay, whole: what is left out is no limit.
    input RulesAsked {
        /// No single payment above this.
        payment_limit: Option<Vec<LimitAsked>>,
        /// No more than this within 24 hours.
        day_limit: Option<Vec<LimitAsked>>,
        /// Above this within 24 hours to one payee a guardian has to agree.
        agree_over: Option<Vec<LimitAsked>>,
        /// Above this both guardians have to.
        both_agree_over: Option<Vec<LimitAsked>>,
        /// Nothing of these kinds.
        blocked_categories: Option<Vec<Category>>,
        /// Nothing from them.
        blocked_payees: Option<Vec<PayeeId>>,
        /// Where goods may go without further questions. Kept as keyed digests.
        addresses: Option<Vec<Address>>,
    }
}

shape! {
    /// What a ward may pay.
    output RulesView {
        /// No single payment above this.
        payment_limit: Vec<LimitView>,
        /// No more than this within 24 hours.
        day_limit: Vec<LimitView>,
        /// Above this within 24 hours to one payee a guardian has to agree.
        agree_over: Vec<LimitView>,
        /// Above this both guardians have to.
        both_agree_over: Vec<LimitView>,
        /// Nothing of these kinds.
        blocked_categories: Vec<Category>,
        /// Nothing from them.
        blocked_payees: Vec<PayeeId>,
        /// How many addresses are known; what they are is kept as keyed digests.
        addresses: u64,
    }
}

shape! {
    /// A new guardianship.
    input NewGuardianship {
        /// Whose payments.
        ward: CustomerId,
        /// Who looks after them.
        guardian: CustomerId,
        /// A second guardian.
        second: Option<CustomerId>,
        /// What the ward may pay: anything if absent.
        rules: Option<RulesAsked>,
        /// Coming of age: from then on it holds no more.
        ends_at: Option<Moment>,
    }
}

shape! {
    /// A guardianship.
    output GuardianshipView {
        /// Which one.
        id: GuardianshipId,
        /// Whose payments.
        ward: CustomerId,
        /// Who looks after them.
        guardian: CustomerId,
        /// A second guardian.
        second: Option<CustomerId>,
        /// What the ward may pay.
        rules: RulesView,
        /// Whether nothing may be paid now.
        frozen: bool,
        /// The guardian whose proposal waits for the other one.
        proposed_by: Option<CustomerId>,
        /// Coming of age.
        ends_at: Option<When>,
        /// When it ended; null: it has not been ended.
        ended_at: Option<When>,
        /// When it was made.
        created_at: When,
    }
}

words! {
    /// What a guardian may want.
    Wanted {
        /// Nothing may be paid for now.
        Freeze = "freeze",
        /// It may again.
        Thaw = "thaw",
        /// It is over.
        End = "end",
        /// Agreed to what the other guardian proposed.
        Agree = "agree",
        /// Not agreed.
        Disagree = "disagree",
    }
}

shape! {
    /// What a guardian wants, that your own systems vouch for.
    input NewChange {
        /// Which guardian.
        by: CustomerId,
        /// What.
        change: Wanted,
    }
}

shape! {
    /// Other rules that a guardian wants.
    input NewRules {
        /// Which guardian.
        by: CustomerId,
        /// All of them.
        rules: RulesAsked,
    }
}

shape! {
    /// What came of it.
    output Changed {
        /// Whether it holds; if not, the other guardian has to agree.
        done: bool,
        /// How things stand.
        guardianship: GuardianshipView,
    }
}

shape! {
    /// A new supervision: somebody has to agree to payments of an account.
    input NewSupervision {
        /// Whose payments.
        account: CustomerId,
        /// Who has to agree.
        supervisor: CustomerId,
        /// Only above these within 24 hours to one payee; in a currency that is not named, always.
        agree_over: Option<Vec<LimitAsked>>,
    }
}

shape! {
    /// A supervision.
    output SupervisionView {
        /// Which one.
        id: SupervisionId,
        /// Whose payments.
        account: CustomerId,
        /// Who has to agree.
        supervisor: CustomerId,
        /// Only above these.
        agree_over: Vec<LimitView>,
        /// When it was withdrawn; null: it holds.
        withdrawn_at: Option<When>,
        /// When it was made.
        created_at: When,
    }
}

shape! {
    /// The rules in force.
    output PolicyView {
        /// Their version.
        version: String,
        /// SHA-256 of their text, in hex.
        sha256: String,
        /// How many there are.
        rules: u64,
    }
}

pub(super) fn routes() -> Vec<Route> {
    use Scope::{GuardiansRead, GuardiansWrite};
    vec![
        Route::get::<PolicyView>("/policy", "getPolicy", GuardiansRead, run!(policy), "Which rules are in force."),
        Route::post::<NewGuardianship, GuardianshipView>(
            "/guardianships",
            "addGuardianship",
            GuardiansWrite,
            run!(add),
            "Makes somebody the guardian of a ward's payments. Nobody is their own.",
        ),
        Route::get::<GuardianshipView>("/guardianships/{id}", "getGuardianship", GuardiansRead, run!(one), "One guardianship."),
        Route::get::<Page<GuardianshipView>>(
            "/customers/{id}/guardianships",
            "listGuardianships",
            GuardiansRead,
            run!(list),
            "Guardianships of a ward that have not been ended.",
        ),
        Route::post::<NewChange, Changed>(
            "/guardianships/{id}/changes",
            "changeGuardianship",
            GuardiansWrite,
            run!(change),
            "What a guardian wants; what loosens waits for the second one. 409 for the ward.",
        )
        .giving(200),
        Route::post::<NewRules, Changed>(
            "/guardianships/{id}/rules",
            "setRules",
            GuardiansWrite,
            run!(rules),
            "Other rules; looser ones wait for the second guardian. 409 for the ward.",
        )
        .giving(200),
        Route::post::<NewSupervision, SupervisionView>(
            "/supervisions",
            "addSupervision",
            GuardiansWrite,
            run!(supervise),
            "Somebody else has to agree to an account's payments. Nobody supervises themselves.",
        ),
        Route::get::<Page<SupervisionView>>(
            "/customers/{id}/supervisions",
            "listSupervisions",
            GuardiansRead,
            run!(supervisions),
            "Supervisions of an account that hold.",
        ),
        Route::delete::<SupervisionView>(
            "/supervisions/{id}",
            "withdrawSupervision",
            GuardiansWrite,
            run!(withdraw),
            "The supervisor is asked no more; what waits for them ends.",
        ),
    ]
}

impl From<GuardingError> for Problem {
    fn from(error: GuardingError) -> Self {
        match error {
            GuardingError::NoSuch(what) => Self::not_found(what),
            // Another tenant's customer is one that there isn't.
            GuardingError::Stranger(_) => Self::not_found("customer"),
            GuardingError::Guardian(e) => Self::conflict(e.to_string()),
            GuardingError::Supervision(e) => Self::conflict(e.to_string()),
            GuardingError::Store(e) => e.into(),
        }
    }
}

fn limits(asked: Option<Vec<LimitAsked>>) -> Result<BTreeMap<Currency, i64>, Problem> {
    let mut all = BTreeMap::new();
    for limit in asked.unwrap_or_default() {
        if all.insert(limit.currency, limit.minor.0).is_some() {
            return Err(Problem::invalid("a currency has two limits"));
        }
    }
    Ok(all)
}

fn limit_views(of: &BTreeMap<Currency, i64>) -> Vec<LimitView> {
    of.iter().map(|(currency, minor)| LimitView { minor: *minor, currency: *currency }).collect()
}

fn address(ask: &Ask, Address(text): &Address) -> AddressMark {
    AddressMark::of(&ask.shared.vault.address_mark(text))
}

/// Rules as the core has them; `before` has what is not said here.
fn ward_rules(ask: &Ask, asked: RulesAsked, before: WardRules) -> Result<WardRules, Problem> {
    Ok(WardRules {
        payment_limit: limits(asked.payment_limit)?,
        day_limit: limits(asked.day_limit)?,
        agree_over: limits(asked.agree_over)?,
        both_agree_over: limits(asked.both_agree_over)?,
        blocked_categories: asked.blocked_categories.unwrap_or_default().into_iter().collect(),
        blocked_payees: asked.blocked_payees.unwrap_or_default().into_iter().collect(),
        addresses: asked.addresses.unwrap_or_default().iter().map(|a| address(ask, a)).collect(),
        ..before
    })
}

fn view(g: Guardianship) -> GuardianshipView {
    let r = &g.rules;
    GuardianshipView {
        rules: RulesView {
            payment_limit: limit_views(&r.payment_limit),
            day_limit: limit_views(&r.day_limit),
            agree_over: limit_views(&r.agree_over),
            both_agree_over: limit_views(&r.both_agree_over),
            blocked_categories: r.blocked_categories.iter().cloned().collect(),
            blocked_payees: r.blocked_payees.iter().cloned().collect(),
            addresses: u64::try_from(r.addresses.len()).unwrap_or(u64::MAX),
        },
        id: g.id,
        ward: g.ward,
        guardian: g.guardian,
        second: g.second,
        frozen: g.frozen,
        proposed_by: g.proposed.map(|p| p.by),
        ends_at: g.ends_at.map(When),
        ended_at: g.ended_at.map(When),
        created_at: g.created_at.into(),
    }
}

async fn policy(ask: &Ask) -> Result<Answer, Problem> {
    let policy = ask.shared.agreements.policy();
    let rules = u64::try_from(policy.rules().len()).unwrap_or(u64::MAX);
    ok(&PolicyView { version: policy.version().to_owned(), sha256: policy.sha256().to_owned(), rules })
}

async fn add(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewGuardianship = ask.input()?;
    let ward = of_caller(ask, &new.ward).await?.id;
    let rules = new.rules.map(|r| ward_rules(ask, r, WardRules::default())).transpose()?.unwrap_or_default();
    let (second, ends_at, by) = (new.second.as_ref(), new.ends_at.map(|m| m.0), ask.actor());
    created(&view(ask.shared.agreements.add_guardianship(&ward, &new.guardian, second, rules, ends_at, &by).await?))
}

/// The guardianship of the path, if it is the caller's.
async fn of_path(ask: &Ask) -> Result<Guardianship, Problem> {
    paper_of_path::<GuardianshipId, _>(ask).await
}

async fn one(ask: &Ask) -> Result<Answer, Problem> {
    ok(&view(of_path(ask).await?))
}

async fn list(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let all: Vec<Guardianship> = papers::of(&*ask.shared.store, &customer.id).await?;
    page(all.into_iter().map(view).collect(), None)
}

async fn edit(ask: &Ask, id: &GuardianshipId, by: &CustomerId, change: Change) -> Result<Answer, Problem> {
    let (guardianship, edited) = ask.shared.agreements.edit_guardianship(id, by, change).await?;
    ok(&Changed { done: edited == Edited::Done, guardianship: view(guardianship) })
}

async fn change(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewChange = ask.input()?;
    let found = of_path(ask).await?;
    let change = match new.change {
        Wanted::Freeze => Change::Freeze,
        Wanted::Thaw => Change::Thaw,
        Wanted::End => Change::End,
        Wanted::Agree => Change::Agree,
        Wanted::Disagree => Change::Disagree,
    };
    edit(ask, &found.id, &new.by, change).await
}

async fn rules(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewRules = ask.input()?;
    let found = of_path(ask).await?;
    let rules = ward_rules(ask, new.rules, found.rules.clone())?;
    edit(ask, &found.id, &new.by, Change::Rules { rules }).await
}

async fn supervise(ask: &Ask) -> Result<Answer, Problem> {
    let new: NewSupervision = ask.input()?;
    let account = of_caller(ask, &new.account).await?.id;
    let over = limits(new.agree_over)?;
    created(&supervision_view(ask.shared.agreements.add_supervision(&account, &new.supervisor, over, &ask.actor()).await?))
}

fn supervision_view(s: Supervision) -> SupervisionView {
    SupervisionView {
        agree_over: limit_views(&s.agree_over),
        id: s.id,
        account: s.account,
        supervisor: s.supervisor,
        withdrawn_at: s.withdrawn_at.map(When),
        created_at: s.created_at.into(),
    }
}

async fn supervisions(ask: &Ask) -> Result<Answer, Problem> {
    let customer = of_caller(ask, &ask.id(0, "customer")?).await?;
    let all: Vec<Supervision> = papers::of(&*ask.shared.store, &customer.id).await?;
    page(all.into_iter().map(supervision_view).collect(), None)
}

async fn withdraw(ask: &Ask) -> Result<Answer, Problem> {
    let found = paper_of_path::<SupervisionId, Supervision>(ask).await?;
    if !found.holds() {
        return ok(&supervision_view(found)); // withdrawn already: the same again does no harm
    }
    ok(&supervision_view(ask.shared.agreements.withdraw_supervision(&found.id, &ask.actor()).await?))
}
