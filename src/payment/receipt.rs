//! What the customer and the payee may see of a payment, and why it was allowed. No card number, no telephone number, no name of
//! the customer: the intent leads to those who may know.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::{Entropy, Timestamp};
use crate::ids::{IntentId, PayeeId, ReceiptId};
use crate::money::Money;

/// Why a payment was allowed: scores and the thresholds they met. Numbers only, never audio or embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Cosine of the accepted voice.
    pub voice_cosine: Option<f32>,
    /// The cosine it had to reach: in receipts from before ratios were calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice_accept_cosine: Option<f32>,
    /// Its calibrated log-likelihood ratio, in nats.
    #[serde(default)]
    pub voice_llr: Option<f32>,
    /// The ratio it had to reach.
    #[serde(default)]
    pub voice_accept_llr: Option<f32>,
    /// Speech behind that score, in milliseconds.
    pub voice_net_speech_ms: Option<u32>,
    /// Which model made it.
    pub voice_model: Option<String>,
    /// `spoken` or `keyed`.
    pub number_by: Option<String>,
    /// Log likelihood ratio of the accepted number, if it was spoken.
    pub number_log_ratio: Option<f32>,
    /// The ratio it had to reach: in receipts from before ratios were calibrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_accept_log_ratio: Option<f32>,
    /// Its calibrated ratio, in nats.
    #[serde(default)]
    pub number_llr: Option<f32>,
    /// The ratio it had to reach.
    #[serde(default)]
    pub number_accept_llr: Option<f32>,
    /// What read it.
    #[serde(default)]
    pub number_engine: Option<String>,
    /// Which calibration the thresholds come from.
    #[serde(default)]
    pub calibration: Option<String>,
    /// How like the call's voice the "yes" was.
    pub yes_continuity: Option<f32>,
    /// Which version of the policy decided.
    pub policy_version: String,
    /// Which version of the rules on factors was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// Which mandate stood for the card number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
}

/// A receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which one.
    pub id: ReceiptId,
    /// Ten digits that are spoken at the end of the call.
    pub reference: String,
    /// The payment it is for.
    pub intent: IntentId,
    /// How much was charged.
    pub amount: Money,
    /// Who got it.
    pub payee: PayeeId,
    /// The payee's name as it was then.
    pub payee_name: String,
    /// Last four digits of the card.
    pub last4: String,
    /// When the acquirer's yes was recorded.
    pub at: Timestamp,
    /// What the acquirer calls the charge.
    pub gateway_reference: String,
    /// Why it was allowed.
    pub evidence: Evidence,
    /// Our signature over [`Receipt::claims`]. Receipts from before there were signatures have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ReceiptSignature>,
}

/// A signature as the receipt's row keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptSignature {
    /// Which key signed: the first eight bytes of its SHA-256, in hex.
    pub key: String,
    /// SHA-256 of the claims' canonical bytes, in hex: what the audit log remembers of the receipt.
    pub sha256: String,
    /// Ed25519 over the same bytes, in base64.
    pub value: String,
}

impl Receipt {
    /// What the claims of a receipt say that they are.
    pub const KIND: &str = "voicepay-receipt/1";

    /// What is signed, and all that whoever checks a receipt gets to see: amount, payee, the card's last four digits, scores and
    /// the thresholds that they met. Nothing of the customer. Scores are texts, as fractions have no one spelling in JSON; a new
    /// field that is absent from older receipts must stay absent here, or their signatures break.
    pub fn claims(&self) -> Value {
        let e = &self.evidence;
        let score = |x: Option<f32>| x.map(|x| Value::String(x.to_string()));
        let text = |x: &Option<String>| x.clone().map(Value::String);
        let there = |fields: Vec<(&str, Option<Value>)>| -> Value {
            fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let voice = there(vec![
            ("model", text(&e.voice_model)),
            ("llr", score(e.voice_llr)),
            ("accept_llr", score(e.voice_accept_llr)),
            ("cosine", score(e.voice_cosine)),
            ("accept_cosine", score(e.voice_accept_cosine)),
            ("net_speech_ms", e.voice_net_speech_ms.map(Value::from)),
        ]);
        let number = there(vec![
            ("by", text(&e.number_by)),
            ("engine", text(&e.number_engine)),
            ("llr", score(e.number_llr)),
            ("accept_llr", score(e.number_accept_llr)),
            ("log_ratio", score(e.number_log_ratio)),
            ("accept_log_ratio", score(e.number_accept_log_ratio)),
        ]);
        let decision = there(vec![
            ("policy_version", Some(Value::from(e.policy_version.as_str()))),
            ("calibration", text(&e.calibration)),
            ("voice", Some(voice)),
            ("number", Some(number)),
            ("yes_continuity", score(e.yes_continuity)),
        ]);
        json!({
            "type": Self::KIND,
            "receipt": self.id,
            "reference": self.reference,
            "payment": self.intent,
            "amount": { "minor": self.amount.minor, "currency": self.amount.currency, "text": self.amount.to_string() },
            "payee": { "id": self.payee, "name": self.payee_name },
            "card": { "last4": self.last4 },
            "at": { "ms": self.at.0, "text": self.at.to_string() },
            "acquirer_reference": self.gateway_reference,
            "decision": decision,
        })
    }

    /// A fresh reference: ten digits, the first not 0 so that it is ten digits in any spreadsheet too.
    pub fn fresh_reference(entropy: &dyn Entropy) -> String {
        format!("{}{:09}", entropy.below(9) + 1, entropy.below(1_000_000_000))
    }

    /// Whether a text has the form of a reference.
    pub fn is_reference(text: &str) -> bool {
        text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit())
    }

    /// The reference as digit values, to be spoken.
    pub fn reference_digits(&self) -> Vec<u8> {
        self.reference.bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect()
    }
}
