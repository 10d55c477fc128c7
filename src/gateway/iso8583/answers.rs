//! What the host says, in the words of the payment core. PURE.
//!
//! Only a clear yes is a yes: the response code must be known, and amount and currency must be there and be ones that we can
//! name. Whatever is unclear is [`BankWord::Silence`], which the core resolves by a reversal.

use super::message::Message;
use super::requests::{currency_number, gateway_reference};
use super::spec::{ReversalVerdict, Spec, Verdict};
use crate::gateway::GatewayRequest;
use crate::money::{Currency, Money};
use crate::payment::{BankWord, DeclineReason, Operation};

/// What an answer to `request` says. For a void, which is a reversal to the host, its own table holds.
pub fn judge(spec: &Spec, request: &GatewayRequest, answer: &Message) -> BankWord {
    match request.operation {
        Operation::Charge | Operation::Authorise | Operation::Capture | Operation::Refund => judge_money(spec, request, answer),
        Operation::Void => match judge_reversal(spec, answer) {
            Some(ReversalVerdict::Acknowledged) => approved(answer, request.amount),
            Some(ReversalVerdict::NoOriginal) => BankWord::Declined(DeclineReason::Other),
            None => BankWord::Silence,
        },
    }
}

fn judge_money(spec: &Spec, request: &GatewayRequest, answer: &Message) -> BankWord {
    let Some(code) = answer.text(39) else {
        tracing::warn!(our_reference = request.our_reference, "the bank's answer has no response code; it counts as none");
        return BankWord::Silence;
    };
    match spec.verdict(code) {
        verdict @ (Verdict::Approved | Verdict::ApprovedPartly) => {
            let whole = verdict == Verdict::Approved && !spec.amounts_echoed;
            match amount(whole.then_some(request.amount), answer) {
                Some(charged) => approved(answer, charged),
                None => {
                    tracing::error!(
                        our_reference = request.our_reference,
                        "the bank approves, but no amount or currency that we know; it will be reversed"
                    );
                    BankWord::Silence
                }
            }
        }
        Verdict::Declined(reason) => {
            tracing::info!(our_reference = request.our_reference, code, "declined by the bank");
            BankWord::Declined(reason)
        }
        Verdict::StillWorking => BankWord::StillWorking,
        Verdict::Unclear => {
            tracing::warn!(our_reference = request.our_reference, code, "the bank's response code says neither yes nor no");
            BankWord::Silence
        }
    }
}

/// What an answer to a reversal says; `None`: repeat it.
pub fn judge_reversal(spec: &Spec, answer: &Message) -> Option<ReversalVerdict> {
    let code = answer.text(39)?;
    let verdict = spec.reversal_verdict(code);
    if verdict.is_none() {
        tracing::warn!(code, "the bank did not take a reversal; it will be repeated");
    }
    verdict
}

/// What the host says it did. Amount and currency come together or not at all; then it did what it was `asked`, if that may be assumed.
fn amount(asked: Option<Money>, answer: &Message) -> Option<Money> {
    match (answer.text(4), answer.text(49)) {
        (Some(minor), Some(number)) => {
            let currency = Currency::ALL.into_iter().find(|c| currency_number(*c) == number)?;
            Money::new(minor.parse().ok()?, currency).ok()
        }
        (None, None) => asked,
        (Some(_), None) | (None, Some(_)) => None,
    }
}

fn approved(answer: &Message, charged: Money) -> BankWord {
    // Every answer has field 37: it was matched by it.
    let reference = gateway_reference(answer.text(37).unwrap_or_default(), answer.text(38));
    BankWord::Approved { charged, gateway_reference: reference }
}
