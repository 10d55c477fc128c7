//! Identifiers: a short prefix that tells the kind, then random bits in hex. One type a kind, so they cannot be mixed up.
//!
//! Kinds of which there are millions begin with their time. Random ones would scatter each new row over all of every index, so
//! that a payment would touch more pages the more payments there are.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::{Entropy, Timestamp};

/// The 48 bits of a time that stand in an identifier; they last until the year 10889.
const TIME_MASK: i64 = 0xffff_ffff_ffff;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// What its text starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A fresh one: 96 random bits.
            pub fn fresh(entropy: &dyn Entropy) -> Self {
                Self(format!("{}_{}", $prefix, hex::encode(entropy.bytes::<12>())))
            }

            /// A fresh one that begins with its time: 48 bits of milliseconds, then 80 random ones. What is written one after
            /// the other lies side by side, as with UUID version 7 (RFC 9562 §5.7 and §6.11).
            pub fn fresh_at(now: Timestamp, entropy: &dyn Entropy) -> Self {
                Self(format!("{}_{:012x}{}", $prefix, now.0 & TIME_MASK, hex::encode(entropy.bytes::<10>())))
            }

            /// Reads one back, from a row or a command line.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let ok = text
                    .strip_prefix(concat!($prefix, "_"))
                    .is_some_and(|r| (1..=40).contains(&r.len()) && r.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
                if ok { Ok(Self(text.to_owned())) } else { Err(IdError { given: text.chars().take(24).collect(), prefix: $prefix }) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                Self::parse(&s)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::parse(s)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

id!(/** A customer. */ CustomerId, "cus");
id!(/** A card in the vault: the token that stands for its number everywhere else. */ CardId, "card");
id!(/** A payee: who gets the money. */ PayeeId, "pay");
id!(/** A payment request: somebody asks a customer for money. */ RequestId, "req");
id!(/** A payment intent: the customer set out to pay a request. */ IntentId, "int");
id!(/** One operation at the acquirer. */ AttemptId, "att");
id!(/** One telephone call. */ CallId, "call");
id!(/** A receipt. */ ReceiptId, "rcp");
id!(/** A double-entry transfer. */ TransferId, "tr");
id!(/** A row of the audit trail. */ AuditId, "aud");
id!(/** A row of the outbox. */ OutboxId, "out");
id!(/** A contested payment. */ DisputeId, "dsp");
id!(/** A worker that claims attempts: one a process and start. */ WorkerId, "wrk");
id!(/** An enrolment invitation. */ InviteId, "inv");
id!(/** An instruction to a bank. */ InstructionId, "ins");
id!(/** What several people have to agree to. */ ApprovalId, "apr");
id!(/** A payment that an app's page confirms by voice. */ AppSessionId, "aps");
id!(/** A one-time code. */ CodeId, "otc");
id!(/** A mandate: a payee may be paid again without the card number. */ MandateId, "mnd");
id!(/** Who looks after whose payments. */ GuardianshipId, "gua");
id!(/** Who has to agree to whose payments. */ SupervisionId, "sup");
id!(/** A customer's account at a bank. */ MainAccountId, "mac");
id!(/** A purchase-permission account. */ AccountId, "acc");
id!(/** A purchase that its user has to confirm. */ PurchaseId, "pur");
id!(/** Where a tenant is told. */ EndpointId, "whk");
id!(/** A call that we owe. */ CallbackId, "cbk");
id!(/** A key of the API. */ ApiKeyId, "key");
id!(/** That somebody agreed to something. */ ConsentId, "cns");

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Reads one: 1 to 32 of `a` to `z`, `0` to `9` and `-`, a letter first.
            pub fn parse(text: &str) -> Result<Self, SlugError> {
                let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                let ok = (1..=32).contains(&text.len())
                    && text.bytes().all(fits)
                    && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
                if ok { Ok(Self(text.to_owned())) } else { Err(SlugError { given: text.chars().take(32).collect(), what: $what }) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = SlugError;
            fn try_from(s: String) -> Result<Self, SlugError> {
                Self::parse(&s)
            }
        }

        impl std::str::FromStr for $name {
            type Err = SlugError;
            fn from_str(s: &str) -> Result<Self, SlugError> {
                Self::parse(s)
            }
        }

        impl From<$name> for String {
            fn from(slug: $name) -> String {
                slug.0
            }
        }
    };
}

slug!(/** Whose data it is: customers and payees of one tenant are nothing to another. */ Tenant, "tenant");
slug!(/** A bank that accounts are at: a name of the configuration. */ BankName, "bank");
slug!(/** What a payee sells: `groceries`, `gambling`. */ Category, "category");

impl Default for Tenant {
    /// The one that there is where nobody speaks of tenants.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// A text that is no name of the wanted kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("`{given}` is no {what}: write 1 to 32 of a to z, 0 to 9 and -, a letter first")]
pub struct SlugError {
    given: String,
    what: &'static str,
}

impl InstructionId {
    /// The one that comes of an attempt: there is never a second.
    pub fn of(attempt: &AttemptId) -> Self {
        Self(attempt.0.replacen(AttemptId::PREFIX, Self::PREFIX, 1))
    }

    /// Whose it is.
    pub fn attempt(&self) -> AttemptId {
        AttemptId(self.0.replacen(Self::PREFIX, AttemptId::PREFIX, 1))
    }
}

/// A text that is no identifier of the wanted kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("`{given}` is not an identifier of the form {prefix}_…")]
pub struct IdError {
    given: String,
    prefix: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    #[test]
    fn what_is_made_later_sorts_later_and_is_read_back() {
        let entropy = SeededEntropy::new(1);
        let at = |ms| AttemptId::fresh_at(Timestamp(ms), &entropy);
        let made = [at(0), at(1), at(1_800_000_000_000), at(1_800_000_000_001), at(0xffff_ffff_ffff)];
        assert!(made.is_sorted());
        for id in &made {
            assert_eq!(AttemptId::parse(id.as_str()).as_ref(), Ok(id));
            assert_eq!(id.as_str().len(), "att_".len() + 32);
        }
        assert!(AttemptId::parse(at(-1).as_str()).is_ok(), "a clock before 1970 makes identifiers too");
        assert_ne!(at(5), at(5));
    }

    #[test]
    fn kinds_do_not_mix() {
        let id = CardId::fresh(&SeededEntropy::new(1));
        assert_eq!(CardId::parse(id.as_str()).unwrap(), id);
        assert!(CustomerId::parse(id.as_str()).is_err());
        assert!(CardId::parse("card_").is_err());
        assert!(CardId::parse("card_A").is_err());
    }
}
