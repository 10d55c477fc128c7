//! A payment request: a payee asks a customer for money. It is paid at most once, by the one intent that holds it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{CustomerId, IntentId, PayeeId, RequestId};
use crate::money::Money;

/// Somebody asks a customer for money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRequest {
    /// Which one.
    pub id: RequestId,
    /// Who is asked.
    pub customer: CustomerId,
    /// Who gets the money.
    pub payee: PayeeId,
    /// How much.
    pub amount: Money,
    /// By when the payee would like it; spoken, never enforced.
    pub due: Option<DueDate>,
    /// What is delivered for it, and where.
    pub delivery: Delivery,
    /// After this nobody can pay it any more; `None`: it stays open.
    pub expires_at: Option<Timestamp>,
    /// Where it stands.
    pub status: RequestStatus,
    /// The intent that holds it, live or successful. While this is set no other intent may begin.
    pub held_by: Option<IntentId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What is delivered for a payment: fewer checks are needed where goods go to an address that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Nothing: a bill, a service.
    #[default]
    None,
    /// Goods, and the payee did not say where to.
    Nowhere,
    /// Goods, to this address.
    To(AddressMark),
}

impl Delivery {
    /// As a row stores it; `None` is NULL.
    pub fn as_row(&self) -> Option<&str> {
        match self {
            Self::None => None,
            Self::Nowhere => Some("nowhere"),
            Self::To(mark) => Some(mark.as_str()),
        }
    }

    /// Back from a row.
    pub fn from_row(text: Option<String>) -> Option<Self> {
        match text {
            None => Some(Self::None),
            Some(text) if text == "nowhere" => Some(Self::Nowhere),
            Some(text) => AddressMark::parse(&text).map(Self::To),
        }
    }
}

/// An address, known again but not readable: the vault's keyed digest of it as 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressMark(String);

impl AddressMark {
    /// From a keyed digest.
    pub fn of(digest: &[u8; 32]) -> Self {
        Self(digest.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Back from a text.
    pub fn parse(text: &str) -> Option<Self> {
        let ok = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        ok.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStatus {
    /// Waiting to be paid.
    Open,
    /// Paid, once.
    Paid,
    /// Withdrawn by the payee.
    Cancelled,
    /// Its time ran out.
    Expired,
}

impl RequestStatus {
    /// As a row stores it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Back from a row.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Paid, Self::Cancelled, Self::Expired].into_iter().find(|s| s.as_str() == text)
    }
}

impl PaymentRequest {
    /// Why nobody could pay it at `now`; `None`: it is open, not expired, not held by an intent.
    pub fn unpayable(&self, now: Timestamp) -> Option<RequestError> {
        match (self.status, &self.held_by) {
            (RequestStatus::Open, Some(_)) => Some(RequestError::Held),
            (RequestStatus::Open, None) if self.expires_at.is_some_and(|at| now >= at) => {
                Some(RequestError::NotOpen(RequestStatus::Expired))
            }
            (RequestStatus::Open, None) => None,
            (status @ (RequestStatus::Paid | RequestStatus::Cancelled | RequestStatus::Expired), _) => {
                Some(RequestError::NotOpen(status))
            }
        }
    }

    /// Whether somebody could pay it at `now`.
    pub fn payable(&self, now: Timestamp) -> bool {
        self.unpayable(now).is_none()
    }

    /// An intent takes hold of it. Taking hold twice with the same intent is fine.
    pub fn hold(mut self, now: Timestamp, by: &IntentId) -> Result<Self, RequestError> {
        if self.status == RequestStatus::Open && self.held_by.as_ref() == Some(by) {
            return Ok(self);
        }
        if let Some(why) = self.unpayable(now) {
            return Err(why);
        }
        self.held_by = Some(by.clone());
        Ok(self)
    }

    /// The payee withdraws it; not while somebody is paying it.
    pub fn cancel(mut self) -> Result<Self, RequestError> {
        match (self.status, &self.held_by) {
            (RequestStatus::Open, None) => {
                self.status = RequestStatus::Cancelled;
                Ok(self)
            }
            (RequestStatus::Open, Some(_)) => Err(RequestError::Held),
            (status @ (RequestStatus::Paid | RequestStatus::Cancelled | RequestStatus::Expired), _) => {
                Err(RequestError::NotOpen(status))
            }
        }
    }
}

/// Why a request can't change that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Paid, cancelled or expired.
    #[error("the payment request is {} and can't be paid or changed", .0.as_str())]
    NotOpen(RequestStatus),
    /// Another intent is paying it.
    #[error("the payment request is being paid by another payment")]
    Held,
}

/// A calendar day, written `2026-11-30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DueDate {
    year: i32,
    month: u8,
    day: u8,
}

impl DueDate {
    /// The year, 1970 to 9999.
    pub fn year(self) -> i32 {
        self.year
    }
    /// 1 to 12.
    pub fn month(self) -> u8 {
        self.month
    }
    /// 1 to 31.
    pub fn day(self) -> u8 {
        self.day
    }
}

impl FromStr for DueDate {
    type Err = DueDateError;
    fn from_str(text: &str) -> Result<Self, DueDateError> {
        use time::macros::format_description;
        let date = time::Date::parse(text, format_description!("[year]-[month]-[day]")).map_err(|_| DueDateError)?;
        if !(1970..=9999).contains(&date.year()) {
            return Err(DueDateError);
        }
        Ok(Self { year: date.year(), month: date.month().into(), day: date.day() })
    }
}

impl TryFrom<String> for DueDate {
    type Error = DueDateError;
    fn try_from(text: String) -> Result<Self, DueDateError> {
        text.parse()
    }
}

impl From<DueDate> for String {
    fn from(d: DueDate) -> String {
        d.to_string()
    }
}

impl fmt::Display for DueDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A text that is no calendar day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a date: write it like 2026-11-30")]
pub struct DueDateError;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;
    use crate::money::Currency;

    fn request() -> PaymentRequest {
        let e = SeededEntropy::new(7);
        PaymentRequest {
            id: RequestId::fresh(&e),
            customer: CustomerId::fresh(&e),
            payee: PayeeId::fresh(&e),
            amount: Money::new(1999, Currency::Usd).unwrap(),
            due: None,
            delivery: Delivery::None,
            expires_at: Some(Timestamp(1000)),
            status: RequestStatus::Open,
            held_by: None,
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn a_request_is_held_by_one_intent_and_paid_once() {
        let e = SeededEntropy::new(8);
        let (one, two) = (IntentId::fresh(&e), IntentId::fresh(&e));
        let held = request().hold(Timestamp(1), &one).unwrap();
        assert!(!held.payable(Timestamp(1)));
        assert_eq!(held.clone().hold(Timestamp(2), &one).unwrap(), held);
        assert_eq!(held.clone().hold(Timestamp(2), &two).unwrap_err(), RequestError::Held);
        assert_eq!(held.clone().cancel().unwrap_err(), RequestError::Held);
        let paid = PaymentRequest { status: RequestStatus::Paid, ..held };
        assert_eq!(paid.hold(Timestamp(3), &two).unwrap_err(), RequestError::NotOpen(RequestStatus::Paid));
    }

    #[test]
    fn an_expired_or_cancelled_request_is_not_paid() {
        let by = IntentId::fresh(&SeededEntropy::new(9));
        assert!(request().payable(Timestamp(999)));
        assert!(!request().payable(Timestamp(1000)));
        assert_eq!(request().hold(Timestamp(1000), &by).unwrap_err(), RequestError::NotOpen(RequestStatus::Expired));
        let gone = request().cancel().unwrap();
        assert_eq!(gone.hold(Timestamp(1), &by).unwrap_err(), RequestError::NotOpen(RequestStatus::Cancelled));
    }

    #[test]
    fn dates_are_checked() {
        assert_eq!("2026-11-30".parse::<DueDate>().unwrap().to_string(), "2026-11-30");
        for bad in ["2026-02-30", "30/11/2026", "", "1969-01-01"] {
            assert!(bad.parse::<DueDate>().is_err(), "{bad}");
        }
    }
}
