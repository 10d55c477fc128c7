//! Rules from TOML: each key is known, each amount reads in its currency, or the whole file is refused with the place and the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Spanned;

use super::index::Index;
use super::rule::{Rule, When};
use super::{Address, Attested, Bounds, Channel, Policy, Tier, check, overlap};
use crate::ids::{Category, PayeeId};
use crate::money::{Currency, Money};
use crate::payment::conditions::Conditions;
use crate::payment::terms::Condition;

/// Why a policy was refused, whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFault {
    /// It is no TOML, or has a key or a value that there is none of.
    #[error("{0}")]
    Syntax(String),
    /// It reads, and makes no sense.
    #[error("line {line}: {what}")]
    Sense {
        /// Where, from 1.
        line: usize,
        /// What, and what to do.
        what: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<String>,
    tiers: Spanned<BTreeMap<Currency, Spanned<FileBounds>>>,
    #[serde(default)]
    refused_currencies: BTreeSet<Currency>,
    #[serde(default, rename = "rule")]
    rules: Vec<Spanned<FileRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBounds {
    small: String,
    normal: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    name: String,
    #[serde(default)]
    when: FileWhen,
    #[serde(default)]
    ask: Option<Conditions>,
    #[serde(default)]
    deny: Option<bool>,
}

type Amounts = BTreeMap<Currency, String>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileWhen {
    tier: Option<BTreeSet<Tier>>,
    channel: Option<BTreeSet<Channel>>,
    category: Option<BTreeSet<Category>>,
    payee: Option<BTreeSet<PayeeId>>,
    address: Option<BTreeSet<Address>>,
    attestation: Option<BTreeSet<Attested>>,
    device_known: Option<bool>,
    mandate: Option<bool>,
    guarded: Option<bool>,
    supervised: Option<bool>,
    amount_over: Option<Amounts>,
    day_over: Option<Amounts>,
    payee_day_over: Option<Amounts>,
    paid_before_below: Option<u32>,
    paid_before_payee_below: Option<u32>,
    failures_24h_over: Option<u32>,
}

/// Where something stands in the text.
pub(super) struct Places<'t>(&'t str);

impl Places<'_> {
    pub(super) fn fault(&self, at: usize, what: String) -> PolicyFault {
        let line = self.0.bytes().take(at).filter(|b| *b == b'\n').count().saturating_add(1);
        PolicyFault::Sense { line, what }
    }
}

impl Policy {
    /// Reads and checks rules. Nothing of a file that has a fault is used.
    pub fn from_toml(text: &str) -> Result<Self, PolicyFault> {
        let file: File = toml::from_str(text).map_err(|e| PolicyFault::Syntax(e.to_string().trim_end().to_owned()))?;
        let places = Places(text);
        let at = file.version.span().start;
        let version = file.version.into_inner();
        let speakable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if version.is_empty() || version.len() > 32 || !version.chars().all(speakable) {
            let what = "version: write 1 to 32 letters, digits, `.`, `-` or `_`; it goes on receipts".to_owned();
            return Err(places.fault(at, what));
        }
        let tiers_at = file.tiers.span().start;
        let tiers = tiers(&places, file.tiers.into_inner())?;
        let mut rules = Vec::with_capacity(file.rules.len());
        for rule in file.rules {
            let at = rule.span().start;
            rules.push((at, self::rule(&places, at, rule.into_inner())?));
        }
        check::currencies(&places, tiers_at, &tiers, &file.refused_currencies)?;
        let index = Index::of(rules.iter().map(|(_, rule)| rule));
        check::rules(&places, &tiers, &rules)?;
        overlap::rules(&places, &index, &rules)?;
        let sha256 = hex::encode(Sha256::digest(text));
        let policy = Self { version, sha256, tiers, rules: rules.into_iter().map(|(_, rule)| rule).collect(), index };
        check::holes(&places, tiers_at, &policy)?;
        Ok(policy)
    }
}

fn tiers(places: &Places<'_>, file: BTreeMap<Currency, Spanned<FileBounds>>) -> Result<BTreeMap<Currency, Bounds>, PolicyFault> {
    let mut tiers = BTreeMap::new();
    for (currency, bounds) in file {
        let at = bounds.span().start;
        let FileBounds { small, normal } = bounds.into_inner();
        let bound =
            |key: &str, text: &str| minor(text, currency).map_err(|e| places.fault(at, format!("tiers.{currency}.{key}: {e}")));
        let bounds = Bounds { small: bound("small", &small)?, normal: bound("normal", &normal)? };
        if bounds.small >= bounds.normal {
            let what =
                format!("tiers.{currency}: `small` ends at {small} and `normal` at {normal}; `normal` must end above `small`");
            return Err(places.fault(at, what));
        }
        tiers.insert(currency, bounds);
    }
    Ok(tiers)
}

fn minor(text: &str, currency: Currency) -> Result<i64, String> {
    Money::parse_decimal(text, currency).map(|m| m.minor.get()).map_err(|e| e.to_string())
}

fn rule(places: &Places<'_>, at: usize, file: FileRule) -> Result<Rule, PolicyFault> {
    let FileRule { name, when, ask, deny } = file;
    let fault = |what: String| places.fault(at, format!("rule `{name}`: {what}"));
    if Category::parse(&name).is_err() {
        return Err(fault("a name is 1 to 32 of a to z, 0 to 9 and -, a letter first".to_owned()));
    }
    let (asks, denies) = match (ask, deny) {
        (Some(asks), None) if !asks.is_empty() => (asks, false),
        (None, Some(true)) => (Conditions::default(), true),
        (Some(_), Some(_)) => return Err(fault("it asks and denies: a payment that is denied needs nothing more".to_owned())),
        (Some(_), None) | (None, None | Some(false)) => {
            return Err(fault("it says nothing: write `ask = [\"…\"]` or `deny = true`".to_owned()));
        }
    };
    let amounts = |key: &str, amounts: Option<Amounts>| {
        let Some(amounts) = amounts else { return Ok(BTreeMap::new()) };
        if amounts.is_empty() {
            return Err(fault(format!("when.{key} names no currency: it would never apply")));
        }
        let each = amounts.into_iter().map(|(c, text)| Ok((c, minor(&text, c)?)));
        each.collect::<Result<BTreeMap<_, _>, String>>().map_err(|e| fault(format!("when.{key}: {e}")))
    };
    if asks.contains(Condition::SecondGuardian) && !asks.contains(Condition::Guardian) {
        return Err(fault("it asks for a second guardian and not for the first: name both".to_owned()));
    }
    let when = When {
        tier: list(&fault, "tier", when.tier)?,
        channel: list(&fault, "channel", when.channel)?,
        category: list(&fault, "category", when.category)?,
        payee: list(&fault, "payee", when.payee)?,
        address: list(&fault, "address", when.address)?,
        attestation: list(&fault, "attestation", when.attestation)?,
        device_known: when.device_known,
        mandate: when.mandate,
        guarded: when.guarded,
        supervised: when.supervised,
        amount_over: amounts("amount_over", when.amount_over)?,
        day_over: amounts("day_over", when.day_over)?,
        payee_day_over: amounts("payee_day_over", when.payee_day_over)?,
        paid_before_below: when.paid_before_below,
        paid_before_payee_below: when.paid_before_payee_below,
        failures_24h_over: when.failures_24h_over,
    };
    for (condition, key, there_is) in
        [(Condition::Guardian, "guarded", when.guarded), (Condition::Supervisor, "supervised", when.supervised)]
    {
        if there_is == Some(false) && asks.contains(condition) {
            let what = format!("contradiction: it asks for a {} where there is none (`{key} = false`)", condition.as_str());
            return Err(fault(what));
        }
    }
    Ok(Rule { name: name.as_str().into(), when, asks, denies })
}

fn list<T>(fault: &impl Fn(String) -> PolicyFault, key: &str, list: Option<BTreeSet<T>>) -> Result<BTreeSet<T>, PolicyFault> {
    match list {
        Some(list) if list.is_empty() => Err(fault(format!("when.{key} is empty: it would never apply"))),
        Some(list) => Ok(list),
        None => Ok(BTreeSet::new()),
    }
}
