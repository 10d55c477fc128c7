//! A set of conditions and a rule's name as an answer of the policy carries them, a thousand in one answer: a set without memory of its own, and a
//! name that is shared with the rule.

use std::fmt;
use std::ops::{BitAnd, BitOr};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::terms::Condition;

/// Some conditions, each once; written as a list, mildest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions([bool; Condition::ALL.len()]);

impl Conditions {
    /// Whether this is one of them.
    pub fn contains(self, condition: Condition) -> bool {
        self.iter().any(|c| c == condition)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether all of these are among those.
    pub fn within(self, wide: Self) -> bool {
        self & wide == self
    }

    /// Each, mildest first.
    pub fn iter(self) -> impl Iterator<Item = Condition> {
        Condition::ALL.into_iter().zip(self.0).filter_map(|(condition, there)| there.then_some(condition))
    }
}

impl FromIterator<Condition> for Conditions {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        let mut set = Self::default();
        for condition in conditions {
            for (place, known) in set.0.iter_mut().zip(Condition::ALL) {
                *place |= known == condition;
            }
        }
        set
    }
}

impl BitAnd for Conditions {
    type Output = Self;
    /// Those that are in both.
    fn bitand(mut self, other: Self) -> Self {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours &= theirs;
        }
        self
    }
}

impl BitOr for Conditions {
    type Output = Self;
    /// Those that are in either.
    fn bitor(mut self, other: Self) -> Self {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours |= theirs;
        }
        self
    }
}

impl Serialize for Conditions {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Vec::<Condition>::deserialize(d).map(|all| all.into_iter().collect())
    }
}

/// What a rule is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName(Arc<str>);

impl RuleName {
    /// As its author wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for RuleName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for RuleName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RuleName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(|name| Self(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_each_once_and_is_written_as_a_list() {
        let asked: Conditions = [Condition::Guardian, Condition::Code, Condition::Code].into_iter().collect();
        assert!(asked.contains(Condition::Code) && !asked.contains(Condition::Supervisor) && !asked.is_empty());
        assert_eq!(serde_json::to_string(&asked).unwrap(), r#"["code","guardian"]"#);
        assert_eq!(serde_json::from_str::<Conditions>(r#"["guardian","code","code"]"#).unwrap(), asked);
        assert!(serde_json::from_str::<Conditions>(r#"["luck"]"#).is_err());
        for condition in Condition::ALL {
            let one = Conditions::from_iter([condition]);
            assert_eq!(one.iter().collect::<Vec<_>>(), [condition]);
            assert_eq!((one.within(asked), (asked & one).is_empty()), (asked.contains(condition), !asked.contains(condition)));
        }
        assert!(Conditions::default().within(asked) && !asked.within(Conditions::default()));
    }

    #[test]
    fn a_name_is_written_like_a_string() {
        let name = RuleName::from("large");
        assert_eq!((serde_json::to_string(&name).unwrap(), format!("{name:<7}|")), (r#""large""#.into(), "large  |".into()));
        assert_eq!(serde_json::from_str::<RuleName>(r#""large""#).unwrap(), name);
    }
}
