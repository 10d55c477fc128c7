//! The trunks of a running service: one handle that decides who comes in, and that metrics, records and commands can ask.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use super::config::{SrtpPolicy, TrunkConfig, TrunkConfigError};
use super::door::{Door, Knock};
use super::resolve::{Avoided, Finder, Place, ResolveError};
use super::secrets::Secrets;
use super::status::TrunkStatus;
use super::target::Target;
use super::terms::{Learned, terms};
use crate::clock::{Entropy, Timestamp};
use crate::media::leg::CallerClaim;
use crate::sip::admission::{self, Ask, Limits, Reason, RefusalCounts, Refused, Turnstile};
use crate::sip::config::SipConfig;
use crate::sip::digest::Credentials;
use crate::sip::identity::{caller_claim, user_of_uri};
use crate::sip::signalling::{Invite, Refusal};

/// Trunks, their limits and their state. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Trunks(Arc<Inner>);

struct Inner {
    set: RwLock<Arc<Set>>,
    door: Mutex<Door>,
    learned: RwLock<Learned>,
    status: RwLock<BTreeMap<String, TrunkStatus>>,
    turnstile: Turnstile,
    counts: RefusalCounts,
    avoided: Mutex<Avoided>,
    changes: watch::Sender<()>,
    entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trunks").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What the configuration says, with the passwords read.
#[derive(Clone, Debug)]
pub struct Set {
    /// The section `[sip]`.
    pub sip: SipConfig,
    /// Its trunks' passwords.
    pub secrets: Secrets,
    finder: Arc<Finder>,
}

impl Set {
    /// Reads the passwords.
    pub fn load(sip: SipConfig) -> Result<Self, TrunkConfigError> {
        let secrets = Secrets::load(&sip.trunks, |name| std::env::var(name).ok())?;
        let finder = Arc::new(Finder::new(&sip.dns_servers));
        Ok(Self { sip, secrets, finder })
    }
}

/// A call that may come in; its place is free again when this is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// Counts it.
    pub place: admission::Place,
    /// Its trunk's name; empty for a caller from a private network who is on none.
    pub trunk: String,
    /// `None`: whatever `media.srtp` says.
    pub srtp: Option<SrtpPolicy>,
    /// The address that the other side is told; `None`: the one that leads there.
    pub public_address: Option<IpAddr>,
    /// Who calls.
    pub caller: CallerClaim,
    /// The peer's P-Asserted-Identity counts.
    pub trusted: bool,
}

/// Where a call to a trunk goes, and with what.
#[derive(Clone, Debug)]
pub struct Route {
    /// To be tried in this order; at least one.
    pub places: Vec<Place>,
    /// The host of the called URI: the target as configured.
    pub host: String,
    /// The domain of our From, where it is not our own address.
    pub domain: Option<String>,
    /// For 401 and 407.
    pub credentials: Option<Credentials>,
    /// `None`: whatever `media.srtp` says. `Required` wherever the line is not private.
    pub srtp: Option<SrtpPolicy>,
    /// The address that it is told.
    pub public_address: Option<IpAddr>,
}

/// Why a call can't go to a trunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No such trunk.
    #[error("there is no trunk `{0}`; `voicepay trunk list` names them")]
    Unknown(String),
    /// It only calls us.
    #[error("trunk `{0}` has no `target`: it can't be called")]
    NoTarget(String),
    /// None of its places may be used now.
    #[error("no place of trunk `{0}` is up, or may be called over its transport")]
    Down(String),
    /// Its places are not known.
    #[error(transparent)]
    Unresolved(#[from] ResolveError),
}

impl Trunks {
    /// As configured; nothing is known of them yet.
    pub fn new(set: Set, entropy: Arc<dyn Entropy>) -> Self {
        let door = Door::new(&set.sip.realm, entropy.as_ref());
        Self(Arc::new(Inner {
            set: RwLock::new(Arc::new(set)),
            door: Mutex::new(door),
            learned: RwLock::default(),
            status: RwLock::default(),
            turnstile: Turnstile::default(),
            counts: RefusalCounts::default(),
            avoided: Mutex::default(),
            changes: watch::channel(()).0,
            entropy,
        }))
    }

    /// Everything about a new call that needs no look at its offer, in this order: whose it is, its password, room for it.
    pub fn admit(&self, invite: &Invite, now: Timestamp) -> Result<Admitted, Refused> {
        let admitted = self.judge(invite, now);
        if let Err(refused) = &admitted {
            self.0.counts.count(refused.reason);
        }
        admitted
    }

    fn judge(&self, invite: &Invite, now: Timestamp) -> Result<Admitted, Refused> {
        let set = self.set();
        let peer = invite.peer.ip();
        let terms = terms(&set.sip, &read(&self.0.learned), peer, invite.transport)?;
        let accounts = set.secrets.callers(terms.name());
        if !accounts.is_empty() {
            let knock = Knock { peer, method: "INVITE", uri: &invite.uri, headers: &invite.headers };
            let mut door = self.0.door.lock().unwrap_or_else(PoisonError::into_inner);
            door.knock(now, accounts, knock, self.0.entropy.as_ref())?;
        }
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
            srtp: terms.srtp,
            public_address: terms.public_address,
            caller,
            trusted: terms.trusted,
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
        self.0.changes.send_replace(());
    }

    /// Tells of each `replace`.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Where a call to this trunk goes: its places in the order in which to try them, without those that are down.
    pub async fn route(&self, trunk: &str, now: Timestamp) -> Result<Route, RouteError> {
        let set = self.set();
        let of = set.sip.trunks.iter().find(|t| t.name == trunk).ok_or_else(|| RouteError::Unknown(trunk.to_owned()))?;
        let target = of.target.as_deref().ok_or_else(|| RouteError::NoTarget(trunk.to_owned()))?;
        let mut places = self.places(of, target).await?;
        if let Some(status) = self.status_of(trunk) {
            let down = |p: &Place| status.places.iter().any(|s| !s.up && s.address == p.address && s.transport == p.transport);
            places.retain(|p| !down(p));
        }
        // A private line may be plain; a name that leads somewhere else must not make it so.
        places.retain(|p| p.transport.is_secure() || of.is_private(&set.sip, p.address.ip()));
        if places.is_empty() {
            return Err(RouteError::Down(trunk.to_owned()));
        }
        let all_private = places.iter().all(|p| of.is_private(&set.sip, p.address.ip()));
        let places = self.0.avoided.lock().unwrap_or_else(PoisonError::into_inner).order(now, places);
        Ok(Route {
            places,
            domain: of.domain.clone().or_else(|| of.address_of_record().map(|(_, domain)| domain)),
            credentials: set.secrets.ours(trunk).cloned(),
            srtp: if all_private { of.srtp } else { Some(SrtpPolicy::Required) },
            host: Target::parse(target).map_or_else(|_| target.to_owned(), |t| t.to_string()),
            public_address: of.public_address.or(set.sip.public_address),
        })
    }

    /// A place timed out, could not be reached or answered 503: others come first for a while.
    pub fn failed(&self, now: Timestamp, place: &Place, retry_after: Option<Duration>) {
        self.0.avoided.lock().unwrap_or_else(PoisonError::into_inner).failed(now, place, retry_after);
    }

    /// A place has taken a request.
    pub fn answered(&self, place: &Place) {
        self.0.avoided.lock().unwrap_or_else(PoisonError::into_inner).answered(place);
    }

    /// Looks a host of this trunk up.
    pub(super) async fn places(&self, trunk: &TrunkConfig, target: &str) -> Result<Vec<Place>, ResolveError> {
        let parsed = Target::parse(target).map_err(|_| ResolveError::Nothing(target.to_owned()))?;
        let finder = self.set().finder.clone();
        finder.places(&parsed, trunk.transport, self.0.entropy.as_ref()).await
    }

    /// Calls of this trunk may also come from these addresses, and no others that were told before.
    pub(super) fn learn(&self, trunk: &str, addresses: &[IpAddr]) {
        write(&self.0.learned).insert(trunk.to_owned(), addresses.iter().map(IpAddr::to_canonical).collect());
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
