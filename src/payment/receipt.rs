//! What the customer and the payee may see of a payment, and why it was allowed. No card number, no telephone number, no name of
//! the customer: the intent leads to those who may know.

use serde::{Deserialize, Serialize};

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
}

impl Receipt {
    /// A fresh reference: ten digits, the first not 0 so that it is ten digits in any spreadsheet too.
    pub fn fresh_reference(entropy: &dyn Entropy) -> String {
        format!("{}{:09}", entropy.below(9) + 1, entropy.below(1_000_000_000))
    }

    /// The reference as digit values, to be spoken.
    pub fn reference_digits(&self) -> Vec<u8> {
        self.reference.bytes().filter(u8::is_ascii_digit).map(|b| b - b'0').collect()
    }
}
