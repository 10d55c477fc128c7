//! The trunks of a running service: one handle that decides who comes in, and that metrics, records and commands can ask.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::config::{SrtpPolicy, TrunkConfigError};
use super::door::{Door, Knock};
use super::secrets::Secrets;
use super::status::TrunkStatus;
use super::terms::{Learned, terms};
use crate::clock::{Entropy, Timestamp};
use crate::media::leg::CallerClaim;
use crate::sip::admission::{Ask, Limits, Place, Reason, RefusalCounts, Refused, Turnstile};
use crate::sip::config::SipConfig;
use crate::sip::identity::{caller_claim, user_of_uri};
use crate::sip::signalling::{Invite, Refusal};

/// Trunks, their limits and their state. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Trunks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    set: RwLock<Arc<Set>>,
    door: Mutex<Door>,
    learned: RwLock<Learned>,
    status: RwLock<BTreeMap<String, TrunkStatus>>,
    turnstile: Turnstile,
    counts: RefusalCounts,
}

/// What the configuration says, with the passwords read.
#[derive(Clone, Debug)]
pub struct Set {
    /// The section `[sip]`.
    pub sip: SipConfig,
    /// Its trunks' passwords.
    pub secrets: Secrets,
}

impl Set {
    /// Reads the passwords.
    pub fn load(sip: SipConfig) -> Result<Self, TrunkConfigError> {
        let secrets = Secrets::load(&sip.trunks, |name| std::env::var(name).ok())?;
        Ok(Self { sip, secrets })
    }
}

/// A call that may come in; its place is free again when this is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// Counts it.
    pub place: Place,
    /// Its trunk's name; empty for a caller from a private network who is on none.
    pub trunk: String,
    /// SIP and RTP may go in plain text.
    pub private: bool,
    /// `None`: whatever `media.srtp` says.
    pub srtp: Option<SrtpPolicy>,
    /// The address that the other side is told; `None`: the one that leads there.
    pub public_address: Option<IpAddr>,
    /// Who calls.
    pub caller: CallerClaim,
    /// The account whose password it showed.
    pub account: Option<String>,
}

impl Trunks {
    /// As configured; nothing is known of them yet.
    pub fn new(set: Set, entropy: &dyn Entropy) -> Self {
        let door = Door::new(&set.sip.realm, entropy);
        Self(Arc::new(Inner {
            set: RwLock::new(Arc::new(set)),
            door: Mutex::new(door),
            learned: RwLock::default(),
            status: RwLock::default(),
            turnstile: Turnstile::default(),
            counts: RefusalCounts::default(),
        }))
    }

    /// Everything about a new call that needs no look at its offer, in this order: whose it is, its password, room for it.
    pub fn admit(&self, invite: &Invite, now: Timestamp, entropy: &dyn Entropy) -> Result<Admitted, Refused> {
        let admitted = self.judge(invite, now, entropy);
        if let Err(refused) = &admitted {
            self.0.counts.count(refused.reason);
        }
        admitted
    }

    fn judge(&self, invite: &Invite, now: Timestamp, entropy: &dyn Entropy) -> Result<Admitted, Refused> {
        let set = self.set();
        let peer = invite.peer.ip();
        let terms = terms(&set.sip, &read(&self.0.learned), peer, invite.transport)?;
        let accounts = set.secrets.callers(terms.name());
        let account = if accounts.is_empty() {
            None
        } else {
            let knock = Knock { peer, method: "INVITE", uri: &invite.uri, headers: &invite.headers };
            let mut door = self.0.door.lock().unwrap_or_else(PoisonError::into_inner);
            Some(door.knock(now, accounts, knock, entropy)?)
        };
        let caller = caller_claim(&invite.headers, terms.trusted);
        let called = user_of_uri(&invite.uri).unwrap_or_default();
        let ask = Ask {
            trunk: terms.name(),
            trunk_calls: terms.trunk.map_or(0, |t| t.max_calls),
            trunk_calls_per_s: terms.trunk.map_or(0, |t| t.max_calls_per_s),
            caller: match &caller {
                CallerClaim::Asserted(number) | CallerClaim::Unverified(number) => Some(number),
                CallerClaim::Withheld => None,
            },
            called: &called,
        };
        let since_1970 = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
        let place = self.0.turnstile.enter(since_1970, &limits(&set.sip), &ask)?;
        Ok(Admitted {
            place,
            trunk: terms.name().to_owned(),
            private: terms.private,
            srtp: terms.srtp,
            public_address: terms.public_address,
            caller,
            account,
        })
    }

    /// Who calls, for the record of a call that was refused.
    pub fn caller(&self, invite: &Invite) -> CallerClaim {
        let set = self.set();
        let terms = terms(&set.sip, &read(&self.0.learned), invite.peer.ip(), invite.transport);
        caller_claim(&invite.headers, terms.is_ok_and(|t| t.trusted))
    }

    /// A refusal for another reason, counted.
    pub fn refuse(&self, reason: Reason, refusal: Refusal) -> Refusal {
        self.0.counts.count(reason);
        refusal
    }

    /// How often each reason refused a call.
    pub fn refusals(&self) -> &RefusalCounts {
        &self.0.counts
    }

    /// Calls that are up, by trunk; the empty name stands for callers on no trunk.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        self.0.turnstile.with(|a| a.calls_by_trunk().map(|(name, calls)| (name.to_owned(), calls)).collect())
    }

    /// What is known of each trunk that is watched or registered.
    pub fn status(&self) -> Vec<TrunkStatus> {
        read(&self.0.status).values().cloned().collect()
    }

    /// The same of one.
    pub fn status_of(&self, trunk: &str) -> Option<TrunkStatus> {
        read(&self.0.status).get(trunk).cloned()
    }

    /// What is configured now.
    pub fn set(&self) -> Arc<Set> {
        read(&self.0.set).clone()
    }

    /// Another configuration for new calls. The realm stays: nonces of another one would be none of ours.
    pub fn replace(&self, set: Set) {
        let names: HashSet<&str> = set.sip.trunks.iter().map(|t| t.name.as_str()).collect();
        write(&self.0.learned).retain(|name, _| names.contains(name.as_str()));
        write(&self.0.status).retain(|name, _| names.contains(name.as_str()));
        *write(&self.0.set) = Arc::new(set);
    }

    /// Calls of this trunk may also come from these addresses, and no others that were told before.
    pub(super) fn learn(&self, trunk: &str, places: &[SocketAddr]) {
        write(&self.0.learned).insert(trunk.to_owned(), places.iter().map(|p| p.ip().to_canonical()).collect());
    }

    /// Changes what is known of a trunk.
    pub(super) fn note(&self, trunk: &str, change: impl FnOnce(&mut TrunkStatus)) {
        let mut table = write(&self.0.status);
        change(table.entry(trunk.to_owned()).or_insert_with(|| TrunkStatus::new(trunk)));
    }
}

fn limits(sip: &SipConfig) -> Limits {
    Limits {
        calls: sip.max_calls,
        calls_per_s: sip.max_calls_per_s,
        per_caller: sip.max_calls_per_caller,
        per_called: sip.max_calls_per_called,
        retry_after_s: sip.busy_retry_after_s,
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
