//! Proof that the books are right: every balance derived again from every row, and each payment's rows held against its attempts and disputes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ids::IntentId;
use crate::ledger::{AccountName, Balance, Books, Cause, Transfer, TransferKind};
use crate::payment::{Attempt, IntentStatus, Operation};
use crate::store::{Payment, Store, StoreError};

/// How many payments are read, and held in memory, at a time.
const PAGE: u32 = 500;
/// How many findings are listed; the rest are counted.
const FINDINGS_LIMIT: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many rows the books have.
    pub transfers: u64,
    /// How many payments were held against them.
    pub payments: u64,
    /// How many pending rows nothing has ended yet.
    pub open: usize,
    /// Sums by account.
    pub balances: BTreeMap<AccountName, Balance>,
    /// What is wrong, in sentences: the first hundred.
    pub findings: Vec<String>,
    /// How many there are in all.
    pub wrong: u64,
}

impl Report {
    fn add(&mut self, finding: String) {
        self.wrong = self.wrong.saturating_add(1);
        if self.findings.len() < FINDINGS_LIMIT {
            self.findings.push(finding);
        }
    }
}

/// Checks everything, payment by payment; others may be made meanwhile. Each row of the books belongs to one payment, and ends only what the same
/// payment reserved: so what is kept of a payment that was read are its sums.
pub async fn books(store: &dyn Store) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let mut books = Books::default();
    let mut after: Option<IntentId> = None;
    loop {
        let page = store.payments_after(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.intent.id.clone());
        for payment in &page {
            report.payments = report.payments.saturating_add(1);
            for transfer in &payment.transfers {
                report.transfers = report.transfers.saturating_add(1);
                if let Err(error) = books.apply(transfer) {
                    report.add(error.to_string());
                }
            }
            report.open = report.open.saturating_add(books.forget_rows());
            for finding in payment_findings(payment) {
                report.add(format!("payment {}: {finding}", payment.intent.id));
            }
        }
    }
    if let Err(error) = books.balanced() {
        report.add(error.to_string());
    }
    report.balances = books.into_balances();
    Ok(report)
}

/// What is wrong with one payment: each sum in the books against what attempts and disputes say.
pub fn payment_findings(p: &Payment) -> Vec<String> {
    let mut findings = Vec::new();
    let mut differ = |what: &str, books: i64, expected: i64| {
        if books != expected {
            findings.push(format!("{what}: {books} in the books, {expected} by its attempts and disputes"));
        }
    };
    let (b, rows) = (p.balance(), Rows::of(&p.transfers));
    differ("captured", rows.captured, b.captured);
    differ("refunded", rows.refunded, b.refunded);
    differ("charged back", rows.charged_back, b.charged_back);
    differ("contested", rows.contested, b.disputed);
    let refunds = p.attempts.iter().filter(|a| a.operation == Operation::Refund && !a.state.terminal());
    differ("being refunded", rows.refunding, refunds.map(|a| a.amount.minor.get()).sum());
    // The reserve stands as long as the first attempt has no end, or an authorisation stands that nothing has ended yet.
    let ended = p.attempts.iter().any(|a| matches!(a.operation, Operation::Capture | Operation::Void) && a.state.done());
    let stands = |a: &Attempt| a.operation == Operation::Authorise && a.state.done() && !ended;
    let reserved = p.opening().is_some_and(|a| !a.state.terminal() || stands(a));
    differ("reserved", rows.reserved, if reserved { p.intent.amount.minor.get() } else { 0 });
    if b.refunded > b.captured {
        findings.push(format!("{} was refunded of {} that was captured", b.refunded, b.captured));
    }
    let status = IntentStatus::of(&p.attempts);
    if status != p.intent.status {
        findings.push(format!("it is kept as {}, and its attempts make it {}", p.intent.status.as_str(), status.as_str()));
    }
    match &p.receipt {
        Some(receipt) if receipt.amount.minor.get() != b.captured => {
            findings.push(format!("its receipt is over {}, and {} was captured", receipt.amount, b.captured));
        }
        None if b.captured > 0 => findings.push("it is paid and has no receipt".into()),
        Some(_) | None => {}
    }
    for transfer in &p.transfers {
        let known = match &transfer.cause {
            Cause::Attempt(id) => p.attempts.iter().any(|a| a.id == *id),
            Cause::Dispute(id) => p.disputes.iter().any(|d| d.id == *id),
        };
        if !known {
            findings.push(format!("row {} of the books has no cause", transfer.id));
        }
    }
    findings
}

/// Sums of one payment's rows, in minor units.
#[derive(Default)]
struct Rows {
    reserved: i64,
    captured: i64,
    refunding: i64,
    refunded: i64,
    contested: i64,
    charged_back: i64,
}

impl Rows {
    fn of(transfers: &[Transfer]) -> Self {
        let mut rows = Self::default();
        for t in transfers {
            let pending = |of: &crate::ids::TransferId| transfers.iter().find(|p| p.id == *of);
            let (real, reserve) = match (t.debit.is_acquirer(), &t.cause) {
                (true, _) => (&mut rows.captured, &mut rows.reserved),
                (false, Cause::Attempt(_)) => (&mut rows.refunded, &mut rows.refunding),
                (false, Cause::Dispute(_)) => (&mut rows.charged_back, &mut rows.contested),
            };
            let units = t.amount.minor.get();
            match &t.kind {
                TransferKind::Pending => *reserve = reserve.saturating_add(units),
                TransferKind::Post { of } => {
                    *real = real.saturating_add(units);
                    *reserve = reserve.saturating_sub(pending(of).map_or(0, |p| p.amount.minor.get()));
                }
                TransferKind::Void { of } => {
                    *reserve = reserve.saturating_sub(pending(of).map_or(0, |p| p.amount.minor.get()));
                }
            }
        }
        rows
    }
}
