//! What has to hold before a payment may be charged: the answer that every rule there is adds up to. Rules are in
//! [`super::policy`]; who asks them is the edge. More rules only make it stricter: [`Terms::and`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::conditions::{Conditions, RuleName};

/// Something that has to hold, beside what a call of the service always asks (voice, number or mandate, yes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Fresh digits in the payer's voice: the voice is bound to this payment.
    FreshDigits,
    /// A one-time code that was sent to the payer.
    Code,
    /// A guardian of the payer agrees.
    Guardian,
    /// A second guardian of the payer agrees, too.
    SecondGuardian,
    /// The payer's supervisor agrees.
    Supervisor,
}

impl Condition {
    /// Every one, mildest first.
    pub const ALL: [Self; 5] = [Self::FreshDigits, Self::Code, Self::Guardian, Self::SecondGuardian, Self::Supervisor];

    /// As rules and rows write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FreshDigits => "fresh_digits",
            Self::Code => "code",
            Self::Guardian => "guardian",
            Self::SecondGuardian => "second_guardian",
            Self::Supervisor => "supervisor",
        }
    }

    /// Back from a text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == text)
    }

    /// Whether somebody else than the payer has to agree.
    pub fn needs_another(self) -> bool {
        match self {
            Self::Guardian | Self::SecondGuardian | Self::Supervisor => true,
            Self::FreshDigits | Self::Code => false,
        }
    }
}

/// Whether, and on which conditions, a payment may be charged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// The version of the rules that said so; goes on the receipt.
    pub policy_version: String,
    /// Not at all: the rule that says so. Spoken to nobody; an audit row and the payee's own page may tell.
    pub denied_by: Option<String>,
    /// What has to hold.
    pub conditions: BTreeSet<Condition>,
    /// Which rules asked for what, for people: rule → conditions; in the order of the rules.
    pub because: Vec<Because>,
}

/// One rule's part in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// The rule's name.
    pub rule: RuleName,
    /// What it asked for; empty where it denies.
    pub asks: Conditions,
    /// Whether it denies.
    pub denies: bool,
}

impl Terms {
    /// Nothing beyond what a call always asks.
    pub fn free(policy_version: &str) -> Self {
        Self { policy_version: policy_version.to_owned(), ..Self::default() }
    }

    /// Whether it may be charged at all.
    pub fn denied(&self) -> bool {
        self.denied_by.is_some()
    }

    /// Whether this has to hold.
    pub fn asks(&self, condition: Condition) -> bool {
        self.conditions.contains(&condition)
    }

    /// Whether somebody else than the payer has to agree.
    pub fn needs_another(&self) -> bool {
        self.conditions.iter().any(|c| c.needs_another())
    }

    /// Both: who denies wins, and of conditions all. The first denial is the one that is named.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.denied_by = self.denied_by.or(other.denied_by);
        self.conditions.extend(other.conditions);
        self.because.extend(other.because);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_answers_make_the_stricter_one() {
        let with = |c: Condition| Terms { conditions: [c].into(), ..Terms::free("1") };
        let both = with(Condition::Code).and(with(Condition::Supervisor));
        assert_eq!(both.conditions, [Condition::Code, Condition::Supervisor].into());
        assert!(both.needs_another() && !both.denied() && !with(Condition::Code).needs_another());
        let no = Terms { denied_by: Some("night".into()), ..Terms::free("1") };
        assert!(Terms::free("1").and(no.clone()).denied() && no.and(with(Condition::Code)).denied());
    }

    #[test]
    fn conditions_are_read_as_they_are_written() {
        for c in Condition::ALL {
            assert_eq!(Condition::parse(c.as_str()), Some(c));
            assert_eq!(serde_json::to_value(c).unwrap(), c.as_str());
        }
    }
}
