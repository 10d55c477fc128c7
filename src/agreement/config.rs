//! `[agreement]`: the rules' file, how long others may take to agree, and what accounts of purchases may pay.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::money::{Currency, Money};
use crate::payment::Limits;

/// `[agreement]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgreementConfig {
    /// The factor policy; none: the one that comes with the program. Read again at a reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PathBuf>,
    /// How long others may take to agree, in seconds.
    pub approval_valid_s: u32,
    /// How often approvals are looked after that expired, or that everybody agreed to and nobody charged, in milliseconds.
    pub sweep_ms: u64,
    /// How long a user may take to confirm a purchase, in minutes.
    pub confirmation_valid_min: u32,
    /// What a purchase-permission account may pay, by currency; in one that is not named nothing can be bought.
    pub purchase_limits: BTreeMap<Currency, PurchaseLimits>,
    /// What links begin with: `api.public_url`, no key of this section. Empty: links are tokens alone, and nobody is sent one.
    #[serde(skip)]
    pub public_url: String,
}

/// Limits of purchase-permission accounts that are linked from now on, as decimals: `200.00`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurchaseLimits {
    /// For one purchase.
    pub purchase: String,
    /// For all that one payee gets in 24 hours.
    pub day: String,
}

impl PurchaseLimits {
    fn read(&self, currency: Currency) -> Result<Limits, String> {
        let amount = |text: &str| Money::parse_decimal(text, currency).map_err(|e| e.to_string());
        Limits::new(amount(&self.purchase)?, amount(&self.day)?).map_err(|e| e.to_string())
    }
}

impl AgreementConfig {
    /// What a type can't say. The error is the key and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, String)> {
        for (currency, limits) in &self.purchase_limits {
            limits.read(*currency).map_err(|why| (format!("agreement.purchase_limits.{currency}"), why))?;
        }
        Ok(())
    }

    /// Limits of an account in this currency, if there are any.
    pub fn limits(&self, currency: Currency) -> Option<Limits> {
        self.purchase_limits.get(&currency)?.read(currency).ok()
    }
}

impl Default for AgreementConfig {
    fn default() -> Self {
        let limits = |purchase: &str, day: &str| PurchaseLimits { purchase: purchase.into(), day: day.into() };
        let purchase_limits = BTreeMap::from([
            (Currency::Usd, limits("200.00", "500.00")),
            (Currency::Eur, limits("200.00", "500.00")),
            (Currency::Gbp, limits("160.00", "400.00")),
            (Currency::Jpy, limits("30000", "75000")),
        ]);
        Self {
            policy: None,
            approval_valid_s: 24 * 3600,
            sweep_ms: 5_000,
            confirmation_valid_min: 15,
            purchase_limits,
            public_url: String::new(),
        }
    }
}
