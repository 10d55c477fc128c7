//! `[app]`: app sessions, and the demo's shop.

use serde::{Deserialize, Serialize};

use crate::ids::CustomerId;

/// `[app]`: payments that an app's page confirms by voice (docs/APP.md). Answered on `api.listen`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AppConfig {
    /// How long a token is good until it is used, in seconds.
    pub session_ttl_s: u32,
    /// Sessions of one customer that are not over, at a time.
    pub max_open: usize,
    /// How long a page's call may last, in seconds; one that is longer is ended.
    pub call_limit_s: u32,
    /// Event streams of pages at a time.
    pub max_streams: usize,
    /// Whether the demo's shop is answered at /shop. Anybody who reaches it makes payment requests to the demo's customer: for demonstrations alone.
    pub demo_shop: bool,
    /// Who pays in the demo's shop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demo_customer: Option<CustomerId>,
}

impl Default for AppConfig {
    fn default() -> Self {
        Self { session_ttl_s: 120, max_open: 5, call_limit_s: 900, max_streams: 64, demo_shop: false, demo_customer: None }
    }
}

impl AppConfig {
    /// What values can't say alone: the key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let rule = |ok: bool, key, what| if ok { Ok(()) } else { Err((key, what)) };
        rule(
            (10..=3_600).contains(&self.session_ttl_s),
            "session_ttl_s",
            "must be 10 to 3600: a token is for somebody who is about to pay",
        )?;
        rule((1..=100).contains(&self.max_open), "max_open", "must be 1 to 100")?;
        rule((60..=3_600).contains(&self.call_limit_s), "call_limit_s", "must be 60 to 3600")?;
        rule((1..=10_000).contains(&self.max_streams), "max_streams", "must be 1 to 10000")?;
        rule(!self.demo_shop || self.demo_customer.is_some(), "demo_customer", "is needed with app.demo_shop: who pays there?")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_named() {
        assert_eq!(AppConfig::default().check(), Ok(()));
        let wrong = |change: fn(&mut AppConfig)| {
            let mut cfg = AppConfig::default();
            change(&mut cfg);
            cfg.check().unwrap_err().0
        };
        assert_eq!(wrong(|c| c.session_ttl_s = 9), "session_ttl_s");
        assert_eq!(wrong(|c| c.max_open = 0), "max_open");
        assert_eq!(wrong(|c| c.call_limit_s = 3_601), "call_limit_s");
        assert_eq!(wrong(|c| c.max_streams = 0), "max_streams");
        assert_eq!(wrong(|c| c.demo_shop = true), "demo_customer");
    }
}
