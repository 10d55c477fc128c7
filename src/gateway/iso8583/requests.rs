//! What we say: a request in the words of ISO 8583. PURE, and the same bytes each time, since all of it was committed with the
//! attempt.
//!
//! Trace number (field 11) and retrieval reference (field 37) come from the attempt's number and the time when it was written
//! down. A capture, void or refund has a trace number of its own, but carries the retrieval reference of what it refers to (field
//! 37 names a transaction from its beginning to its end) and its original data elements (field 90).

use time::{OffsetDateTime, UtcOffset};

use super::codec::{CodecError, encode};
use super::message::Message;
use super::spec::{Spec, Template};
use crate::clock::Timestamp;
use crate::gateway::{GatewayRequest, Original};
use crate::money::{Currency, Money};
use crate::payment::{GatewayKey, Operation};

/// The largest trace number; then they begin again at 1. Numbers of the same hour never meet.
const STAN_LIMIT: u64 = 999_999;
/// The largest amount that field 4 holds, in minor units.
const AMOUNT_LIMIT_MINOR: i64 = 999_999_999_999;

/// Who we are at the bank.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Field 41.
    pub terminal_id: String,
    /// Field 42.
    pub merchant_id: String,
    /// Field 32.
    pub acquirer_id: String,
    /// For fields 12 and 13.
    pub local: UtcOffset,
}

/// The trace number of an attempt: 000001 to 999999.
pub fn stan(number: u64) -> String {
    format!("{:06}", number.saturating_sub(1) % STAN_LIMIT + 1)
}

/// The retrieval reference of an attempt: the year's last digit, the day of the year, the hour (all in UTC), the trace number.
pub fn retrieval_reference(prepared_at: Timestamp, number: u64) -> String {
    let at = utc(prepared_at);
    format!("{}{:03}{:02}{}", at.year().rem_euclid(10), at.ordinal(), at.hour(), stan(number))
}

/// Our reference at the bank: the retrieval reference, and the approval code where there is one.
pub fn gateway_reference(retrieval: &str, approval: Option<&str>) -> String {
    match approval.map(str::trim).filter(|a| !a.is_empty()) {
        Some(approval) => format!("{retrieval}/{approval}"),
        None => retrieval.to_owned(),
    }
}

/// What a [`gateway_reference`] is made of. Anything else was not made here.
fn parts(reference: &str) -> Option<(&str, Option<&str>)> {
    let (retrieval, approval) = reference.split_once('/').map_or((reference, None), |(r, a)| (r, Some(a)));
    let alphanumeric = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_alphanumeric());
    alphanumeric(retrieval, 12).then_some((retrieval, approval.filter(|a| a.len() <= 6)))
}

/// What asks for the request's operation. The same request gives the same message.
pub fn ask(spec: &Spec, terms: &Terms, request: &GatewayRequest) -> Result<Message, ComposeError> {
    let template = spec.message(request.operation);
    let original = match request.operation {
        Operation::Charge | Operation::Authorise => None,
        Operation::Capture | Operation::Void | Operation::Refund => {
            Some(request.original.as_ref().ok_or(ComposeError::NoOriginal(request.operation.as_str()))?)
        }
    };
    compose(spec, terms, request, template, original.map(Referred::from_original))
}

/// What takes back a request that was never clearly answered: under its own trace number and reference.
pub fn reverse(spec: &Spec, terms: &Terms, request: &GatewayRequest) -> Result<Message, ComposeError> {
    let GatewayRequest { operation, number, prepared_at, .. } = *request;
    // As `ask` chose it.
    let retrieval = match &request.original {
        Some(original) => Referred::from_original(original).retrieval,
        None => retrieval_reference(prepared_at, number),
    };
    compose(spec, terms, request, spec.reversal(), Some(Referred { operation, number, prepared_at, retrieval, approval: None }))
}

/// Writes one message of each kind, so that what the dialect can't write is told at the start: which kind, and why.
pub fn rehearse(spec: &Spec, terms: &Terms) -> Result<(), (&'static str, CodecError)> {
    let at = Timestamp(0);
    let Ok(amount) = Money::new(1, Currency::Usd) else { return Ok(()) };
    let original = Original {
        operation: Operation::Authorise,
        our_reference: String::new(),
        number: 1,
        prepared_at: at,
        amount,
        gateway_reference: gateway_reference(&retrieval_reference(at, 1), Some("000000")),
    };
    let request = |operation| GatewayRequest {
        operation,
        our_reference: String::new(),
        request: String::new(),
        number: 2,
        prepared_at: at,
        idempotency_key: GatewayKey(String::new()),
        amount,
        card: None,
        original: Some(original.clone()),
        statement: String::new(),
    };
    let written = |what, message: &Message| encode(spec, message).map(|_| ()).map_err(|error| (what, error));
    for operation in Operation::ALL {
        if let Ok(message) = ask(spec, terms, &request(operation)) {
            written(operation.as_str(), &message)?;
        }
    }
    if let Ok(message) = reverse(spec, terms, &request(Operation::Charge)) {
        written("reversal", &message)?;
    }
    written("sign_on", &network(spec.sign_on(), 1, at))?;
    written("echo", &network(spec.echo(), 1, at))
}

/// A message of network management: sign-on or echo.
pub fn network(template: &Template, number: u64, at: Timestamp) -> Message {
    let mut message = Message::new(template.mti);
    for n in &template.fields {
        match n {
            7 => message.set(7, transmission(at)),
            11 => message.set(11, stan(number)),
            _ => {}
        }
    }
    set_constants(&mut message, template);
    message
}

/// What a message refers to.
struct Referred {
    operation: Operation,
    number: u64,
    prepared_at: Timestamp,
    retrieval: String,
    approval: Option<String>,
}

impl Referred {
    fn from_original(o: &Original) -> Self {
        let known = parts(&o.gateway_reference);
        Self {
            operation: o.operation,
            number: o.number,
            prepared_at: o.prepared_at,
            retrieval: match known {
                Some((retrieval, _)) => retrieval.to_owned(),
                None => retrieval_reference(o.prepared_at, o.number),
            },
            approval: known.and_then(|(_, approval)| approval).map(str::to_owned),
        }
    }

    /// Field 90: type, trace number, time of transmission, acquirer, forwarder (none).
    fn data_elements(&self, spec: &Spec, acquirer_id: &str) -> String {
        let mti = spec.message(self.operation).mti;
        format!("{mti}{}{}{acquirer_id:0>11}{:011}", stan(self.number), transmission(self.prepared_at), 0)
    }
}

fn compose(
    spec: &Spec,
    terms: &Terms,
    r: &GatewayRequest,
    template: &Template,
    referred: Option<Referred>,
) -> Result<Message, ComposeError> {
    let minor = r.amount.minor.get();
    if minor > AMOUNT_LIMIT_MINOR {
        return Err(ComposeError::Amount);
    }
    let local = utc(r.prepared_at).to_offset(terms.local);
    let mut message = Message::new(template.mti);
    for n in &template.fields {
        match n {
            2 => {
                if let Some(card) = &r.card {
                    message.set(2, card.pan.ascii().as_bytes());
                }
            }
            3 => {
                // A void or reversal has the processing code of what it takes back.
                let code = template.processing_code.as_ref().or_else(|| {
                    let of = referred.as_ref().map_or(r.operation, |o| o.operation);
                    spec.message(of).processing_code.as_ref()
                });
                message.set(3, code.map_or("000000", |c| c.as_str()));
            }
            4 => message.set(4, format!("{minor:012}")),
            7 => message.set(7, transmission(r.prepared_at)),
            11 => message.set(11, stan(r.number)),
            12 => message.set(12, format!("{:02}{:02}{:02}", local.hour(), local.minute(), local.second())),
            13 => message.set(13, format!("{:02}{:02}", u8::from(local.month()), local.day())),
            14 => {
                if let Some(expiry) = r.card.as_ref().and_then(|c| c.expiry) {
                    message.set(14, format!("{:02}{:02}", expiry.year() % 100, expiry.month()));
                }
            }
            32 => message.set(32, terms.acquirer_id.as_str()),
            37 => {
                let own = || retrieval_reference(r.prepared_at, r.number);
                message.set(37, referred.as_ref().map_or_else(own, |o| o.retrieval.clone()));
            }
            38 => {
                if let Some(approval) = referred.as_ref().and_then(|o| o.approval.as_deref()) {
                    message.set(38, format!("{approval:<6}"));
                }
            }
            41 => message.set(41, format!("{:<8}", terms.terminal_id)),
            42 => message.set(42, format!("{:<15}", terms.merchant_id)),
            43 => message.set(43, printable(&r.statement, 40)),
            49 => message.set(49, currency_number(r.amount.currency)),
            90 => {
                if let Some(original) = &referred {
                    message.set(90, original.data_elements(spec, &terms.acquirer_id));
                }
            }
            _ => {}
        }
    }
    set_constants(&mut message, template);
    Ok(message)
}

fn set_constants(message: &mut Message, template: &Template) {
    for (n, value) in &template.set {
        message.set(*n, value.as_str());
    }
}

/// MMDDhhmmss in UTC: field 7.
fn transmission(at: Timestamp) -> String {
    let at = utc(at);
    format!("{:02}{:02}{:02}{:02}{:02}", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second())
}

fn utc(at: Timestamp) -> OffsetDateTime {
    // A time beyond what dates have can't come from a clock.
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Exactly `width` printable ASCII characters.
fn printable(text: &str, width: usize) -> String {
    let shown: String = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '.' }).take(width).collect();
    format!("{shown:<width$}")
}

/// ISO 4217, numeric.
pub fn currency_number(currency: Currency) -> &'static str {
    match currency {
        Currency::Usd => "840",
        Currency::Eur => "978",
        Currency::Gbp => "826",
        Currency::Jpy => "392",
    }
}

/// Why a request can't be said. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// More than twelve digits.
    #[error("the amount has more than the twelve digits that ISO 8583 has room for")]
    Amount,
    /// A capture, void or refund of nothing.
    #[error("a {0} needs the payment that it refers to")]
    NoOriginal(&'static str),
}
