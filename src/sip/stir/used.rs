//! Which signed statements calls have come with. A statement stays fresh for a minute, and whoever saw it pass can send it again
//! with a call of their own; it is good for one call only (RFC 8224 section 12.1 leaves replay within that time to the
//! verifier). Bounded in number and time. Pure: the clock is an argument.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};

use super::Invalid;
use crate::clock::Timestamp;
use crate::media::leg::AttestationFault::Stale;

/// Statements that are remembered, of 64 bytes or so each: five hundred calls a second at twice the usual freshness. Beyond
/// that the oldest is forgotten.
pub const USED_LIMIT_STATEMENTS: usize = 65_536;

type Hash = [u8; 32];

/// See the module.
#[derive(Debug, Default)]
pub struct Used {
    // By what was signed, not by the signature: of an ECDSA signature anybody can make a second one that holds, too.
    calls: HashMap<Hash, Hash>,
    // In the order in which they came, with the time from which on they are too old to be believed anyway.
    ends: VecDeque<(Timestamp, Hash)>,
}

impl Used {
    /// Notes that the call came with this statement, which is worth nothing any more after `until`. Refused if another call
    /// has come with it. The same call may: a retransmission, a fork of it, a second try after a challenge.
    pub fn once(&mut self, signed: &[u8], call_id: &str, until: Timestamp, now: Timestamp) -> Result<(), Invalid> {
        while self.ends.front().is_some_and(|(end, _)| *end < now) || self.ends.len() >= USED_LIMIT_STATEMENTS {
            let Some((_, over)) = self.ends.pop_front() else { break };
            self.calls.remove(&over);
        }
        let (statement, call): (Hash, Hash) = (Sha256::digest(signed).into(), Sha256::digest(call_id).into());
        match self.calls.get(&statement) {
            Some(first) if *first == call => Ok(()),
            Some(_) => Err(Invalid::new(Stale, "another call came with the same signed statement")),
            None => {
                self.calls.insert(statement, call);
                self.ends.push_back((until, statement));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_good_for_one_call_as_long_as_it_is_fresh() {
        let mut used = Used::default();
        let at = |s: i64| Timestamp(s * 1_000);
        assert!(used.once(b"one", "a@x", at(60), at(0)).is_ok());
        assert!(used.once(b"one", "a@x", at(60), at(1)).is_ok(), "the same call again");
        assert_eq!(used.once(b"one", "b@x", at(60), at(60)).map_err(|e| e.fault), Err(Stale));
        assert!(used.once(b"two", "b@x", at(120), at(60)).is_ok());
        // By then the statement is refused for its age.
        assert!(used.once(b"three", "c@x", at(121), at(61)).is_ok());
        assert_eq!((used.calls.len(), used.ends.len()), (2, 2));
    }

    #[test]
    fn memory_stays_bounded() {
        let mut used = Used::default();
        for n in 0..USED_LIMIT_STATEMENTS + 10 {
            used.once(&n.to_be_bytes(), "a@x", Timestamp(60_000), Timestamp(0)).unwrap();
        }
        assert_eq!((used.calls.len(), used.ends.len()), (USED_LIMIT_STATEMENTS, USED_LIMIT_STATEMENTS));
        let newest = (USED_LIMIT_STATEMENTS + 9).to_be_bytes();
        assert!(used.once(&newest, "b@x", Timestamp(60_000), Timestamp(0)).is_err());
    }
}
