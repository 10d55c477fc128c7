//! What goes over the wires, in JSON: the bank's messages and answers read, our instructions written. Does no I/O.

use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use crate::clock::Timestamp;
use crate::ids::{InstructionId, RequestId};
use crate::money::{Currency, Money};
use crate::payment::pairing::{
    ANSWER_REASON_LIMIT_CHARS, Account, Answer, Facts, Instruction, InstructionKind, Message, MessageId,
};

/// What the bank tells: a message under its reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) reference: RequestId,
    pub(super) message: Message,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    message_id: String,
    #[serde(rename = "type")]
    kind: String,
    reference: String,
    amount_minor: i64,
    currency: String,
    account: String,
    at: String,
}

/// A message that was signed and yet makes no sense. In words for whoever programmed it; repeats no more than a field's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the body is no JSON object of a pending deduction: {0}")]
    Shape(String),
    #[error("`type` must be pending_deduction")]
    Kind,
    #[error("`{field}`: {why}")]
    Field { field: &'static str, why: String },
    #[error("`message_id` is not what the header webhook-id says")]
    OtherId,
}

impl Told {
    /// Reads a body that was signed under this identifier.
    pub(super) fn read(body: &[u8], signed_id: MessageId) -> Result<Self, Malformed> {
        let p: Pending = serde_json::from_slice(body).map_err(|e| Malformed::Shape(told(&e)))?;
        let field = |field, why: String| Malformed::Field { field, why };
        if p.kind != "pending_deduction" {
            return Err(Malformed::Kind);
        }
        if p.message_id != signed_id.as_str() {
            return Err(Malformed::OtherId);
        }
        let reference =
            RequestId::parse(&p.reference).map_err(|_| field("reference", "must be a payment request's id".into()))?;
        let currency = Currency::ALL.into_iter().find(|c| c.code() == p.currency);
        let currency = currency.ok_or_else(|| {
            field("currency", format!("is none that we take: {}", Currency::ALL.map(Currency::code).join(", ")))
        })?;
        let amount = Money::new(p.amount_minor, currency).map_err(|e| field("amount_minor", e.to_string()))?;
        let account: Account = p.account.parse().map_err(|e| field("account", format!("{e}")))?;
        let at = Timestamp::parse(&p.at).ok_or_else(|| field("at", "must be a time by RFC 3339".into()))?;
        Ok(Self { reference, message: Message { id: signed_id, facts: Facts { amount, account }, at } })
    }
}

/// What is wrong with a body, without showing what stands in it.
fn told(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let what = match error.classify() {
        Category::Data => "a field is missing, unknown, there twice or of another kind",
        Category::Syntax | Category::Eof | Category::Io => "this is no JSON",
    };
    format!("{what}, at line {line}, column {column}")
}

#[derive(Serialize)]
struct Order<'a> {
    instruction_id: &'a InstructionId,
    #[serde(rename = "type")]
    kind: InstructionKind,
    reference: &'a RequestId,
    message_id: &'a MessageId,
    amount_minor: i64,
    currency: &'static str,
    account: &'a Account,
    at: String,
}

/// An instruction as it is sent: the same bytes for the same instruction.
pub(super) fn bytes(i: &Instruction) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Order {
        instruction_id: &i.id,
        kind: i.kind,
        reference: &i.reference,
        message_id: &i.message,
        amount_minor: i.facts.amount.minor.get(),
        currency: i.facts.amount.currency.code(),
        account: &i.facts.account,
        at: i.at.to_string(),
    })
}

#[derive(Deserialize)]
struct Said {
    instruction_id: String,
    result: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    amount_minor: Option<i64>,
    #[serde(default)]
    currency: Option<Currency>,
}

/// The bank's word about an instruction; `None`: it is none, and nobody knows what became of the instruction.
pub(super) fn answer(i: &Instruction, body: &[u8]) -> Option<Answer> {
    let said: Said = serde_json::from_slice(body).ok()?;
    if said.instruction_id != i.id.as_str() {
        return None;
    }
    match (said.result.as_str(), i.kind) {
        ("deducted", InstructionKind::Deduct) | ("refunded", InstructionKind::Refund) => {
            let amount = match (said.amount_minor, said.currency) {
                (None, None) => i.facts.amount,
                (Some(minor), currency) => Money::new(minor, currency.unwrap_or(i.facts.amount.currency)).ok()?,
                // A currency without its amount says nothing that could be booked.
                (None, Some(_)) => return None,
            };
            Some(Answer::Done { amount })
        }
        ("refused", _) => {
            let reason = said.reason.unwrap_or_default();
            let plain = reason.chars().filter(|c| !c.is_control()).take(ANSWER_REASON_LIMIT_CHARS);
            Some(Answer::Refused { reason: plain.collect() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pending() -> Value {
        json!({ "message_id": "msg_1", "type": "pending_deduction", "reference": "req_0123456789ab", "amount_minor": 1999,
            "currency": "USD", "account": "00112233445566778899aabbccddeeff", "at": "2026-11-22T10:00:00.250Z" })
    }

    fn read_bytes(body: &[u8]) -> Result<Told, Malformed> {
        Told::read(body, "msg_1".parse().unwrap())
    }

    fn read(body: &Value) -> Result<Told, Malformed> {
        read_bytes(body.to_string().as_bytes())
    }

    fn instruction(kind: InstructionKind) -> Instruction {
        let message = read(&pending()).unwrap().message;
        Instruction {
            id: InstructionId::parse("ins_0123456789ab").unwrap(),
            kind,
            reference: RequestId::parse("req_0123456789ab").unwrap(),
            message: message.id,
            facts: message.facts,
            at: Timestamp(1_795_341_600_250),
        }
    }

    #[test]
    fn a_message_is_read_whole() {
        let told = read(&pending()).unwrap();
        assert_eq!(told.reference.as_str(), "req_0123456789ab");
        assert_eq!((told.message.id.as_str(), told.message.facts.amount.to_string().as_str()), ("msg_1", "19.99 USD"));
        assert_eq!(told.message.at.to_string(), "2026-11-22T10:00:00.250Z");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_field_and_without_its_value() {
        for (key, value, word) in [
            ("type", json!("deduction"), "`type`"),
            ("reference", json!("SECRET"), "`reference`"),
            ("amount_minor", json!(0), "`amount_minor`"),
            ("amount_minor", json!(-5), "`amount_minor`"),
            ("amount_minor", json!(1_000_000_000_001_i64), "`amount_minor`"),
            ("amount_minor", json!(19.99), "another kind"),
            ("amount_minor", json!("SECRET"), "another kind"),
            ("currency", json!("usd"), "`currency`"),
            ("account", json!("4111111111111111"), "`account`"),
            ("account", json!("00112233445566778899AABBCCDDEEFF"), "`account`"),
            ("at", json!("yesterday SECRET"), "`at`"),
            ("extra", json!("SECRET"), "unknown"),
            ("message_id", json!("msg_2"), "webhook-id"),
        ] {
            let mut body = pending();
            body[key] = value;
            let error = read(&body).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("SECRET") && !error.contains("4111"), "{key}: {error}");
        }
        for gone in ["message_id", "type", "reference", "amount_minor", "currency", "account", "at"] {
            let mut body = pending();
            body.as_object_mut().unwrap().remove(gone);
            assert!(matches!(read(&body), Err(Malformed::Shape(_))), "{gone}");
        }
        let twice = pending().to_string().replacen('{', r#"{"amount_minor":1,"#, 1);
        assert!(matches!(read_bytes(twice.as_bytes()), Err(Malformed::Shape(_))));
        for bad in [&b""[..], b"[]", b"null", b"{", b"\xff"] {
            assert!(matches!(read_bytes(bad), Err(Malformed::Shape(_))));
        }
    }

    #[test]
    fn an_instruction_is_the_same_bytes_each_time() {
        let body = bytes(&instruction(InstructionKind::Deduct)).unwrap();
        let expected = r#"{"instruction_id":"ins_0123456789ab","type":"deduct","reference":"req_0123456789ab","message_id":"msg_1","amount_minor":1999,"currency":"USD","account":"00112233445566778899aabbccddeeff","at":"2026-11-22T10:00:00.250Z"}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn only_a_word_about_this_very_instruction_is_one() {
        let (deduct, refund) = (instruction(InstructionKind::Deduct), instruction(InstructionKind::Refund));
        let said = |i: &Instruction, result: &str, more: Value| {
            let mut body = json!({ "instruction_id": "ins_0123456789ab", "result": result });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            answer(i, body.to_string().as_bytes())
        };
        let done = |minor: i64, currency| Some(Answer::Done { amount: Money::new(minor, currency).unwrap() });
        assert_eq!(said(&deduct, "deducted", json!({})), done(1999, Currency::Usd));
        assert_eq!(said(&refund, "refunded", json!({ "new": 1 })), done(1999, Currency::Usd));
        assert_eq!(said(&deduct, "deducted", json!({ "amount_minor": 1998 })), done(1998, Currency::Usd));
        assert_eq!(said(&deduct, "deducted", json!({ "amount_minor": 5, "currency": "EUR" })), done(5, Currency::Eur));
        let refused = |reason: &str| Some(Answer::Refused { reason: reason.into() });
        assert_eq!(said(&deduct, "refused", json!({})), refused(""));
        let long = "x".repeat(500);
        assert_eq!(
            said(&refund, "refused", json!({ "reason": format!("a\u{7}b{long}") })),
            refused(&format!("ab{}", &long[..198]))
        );
        for (i, result, more) in [
            (&deduct, "refunded", json!({})),
            (&refund, "deducted", json!({})),
            (&deduct, "pending", json!({})),
            (&deduct, "deducted", json!({ "instruction_id": "ins_ffffffffffff" })),
            (&deduct, "deducted", json!({ "amount_minor": 0 })),
            (&deduct, "deducted", json!({ "currency": "USD" })),
            (&deduct, "deducted", json!({ "currency": "CHF", "amount_minor": 1999 })),
        ] {
            assert_eq!(said(i, result, more.clone()), None, "{result} {more}");
        }
        assert_eq!(answer(&deduct, b"<html>"), None);
    }
}
