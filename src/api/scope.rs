//! What a key may do.

use std::fmt;
use std::str::FromStr;

/// One thing that a key may do. Writing does not include reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// See customers, their cards' last digits, and whether a voice is enrolled.
    CustomersRead,
    /// Add and delete customers, block cards.
    CustomersWrite,
    /// Get everything that is held about a customer.
    CustomersExport,
    /// Give a customer a card by its number.
    CardsWrite,
    /// See payees.
    PayeesRead,
    /// Add payees.
    PayeesWrite,
    /// See payment requests.
    RequestsRead,
    /// Ask for money, withdraw a request.
    RequestsWrite,
    /// See payments, disputes and receipts.
    PaymentsRead,
    /// Capture, void, refund; record disputes.
    PaymentsWrite,
    /// See calls, and follow one while it is up.
    CallsRead,
    /// Invite a customer to enrol, enrol from recordings, erase a voice.
    EnrolmentsWrite,
    /// See what the rules ask of a payment, approvals and mandates.
    ApprovalsRead,
    /// Have somebody asked, record what they said, send codes, take mandates back.
    ApprovalsWrite,
    /// See guardianships, supervisions, and which rules are in force.
    GuardiansRead,
    /// Make and change them in a guardian's name.
    GuardiansWrite,
    /// See endpoints of webhooks and what they were told.
    WebhooksRead,
    /// Add, change and delete them, give them other secrets, have messages sent again.
    WebhooksWrite,
    /// See main accounts and purchase-permission accounts.
    AccountsRead,
    /// Open main accounts, close accounts.
    AccountsWrite,
    /// See app sessions.
    AppSessionsRead,
    /// Make app sessions.
    AppSessionsWrite,
    /// See the audit trail of one's own things, and proofs.
    AuditRead,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::CustomersRead,
        Self::CustomersWrite,
        Self::CustomersExport,
        Self::CardsWrite,
        Self::PayeesRead,
        Self::PayeesWrite,
        Self::RequestsRead,
        Self::RequestsWrite,
        Self::PaymentsRead,
        Self::PaymentsWrite,
        Self::CallsRead,
        Self::EnrolmentsWrite,
        Self::ApprovalsRead,
        Self::ApprovalsWrite,
        Self::GuardiansRead,
        Self::GuardiansWrite,
        Self::WebhooksRead,
        Self::WebhooksWrite,
        Self::AccountsRead,
        Self::AccountsWrite,
        Self::AppSessionsRead,
        Self::AppSessionsWrite,
        Self::AuditRead,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CustomersRead => "customers:read",
            Self::CustomersWrite => "customers:write",
            Self::CustomersExport => "customers:export",
            Self::CardsWrite => "cards:write",
            Self::PayeesRead => "payees:read",
            Self::PayeesWrite => "payees:write",
            Self::RequestsRead => "requests:read",
            Self::RequestsWrite => "requests:write",
            Self::PaymentsRead => "payments:read",
            Self::PaymentsWrite => "payments:write",
            Self::CallsRead => "calls:read",
            Self::EnrolmentsWrite => "enrolments:write",
            Self::ApprovalsRead => "approvals:read",
            Self::ApprovalsWrite => "approvals:write",
            Self::GuardiansRead => "guardians:read",
            Self::GuardiansWrite => "guardians:write",
            Self::WebhooksRead => "webhooks:read",
            Self::WebhooksWrite => "webhooks:write",
            Self::AccountsRead => "accounts:read",
            Self::AccountsWrite => "accounts:write",
            Self::AppSessionsRead => "app_sessions:read",
            Self::AppSessionsWrite => "app_sessions:write",
            Self::AuditRead => "audit:read",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|s| s.as_str()).collect();
            format!("there is no scope `{text}`; there are {}", all.join(", "))
        })
    }
}
