//! Keeps trunks: registers with those that want it, and asks all targets regularly whether they are there. A task a trunk and
//! job; what they find goes into `Trunks`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ask::{Asker, seen_as};
use super::config::TrunkConfig;
use super::live::{Set, Trunks};
use super::registrar::{Input, Next, Register, Registering, Registrar};
use super::resolve::Place;
use super::status::Registration;
use crate::clock::{Clock, Entropy, SystemClock, Timestamp};
use crate::sip::digest::Credentials;
use crate::sip::signalling::Caller;
use crate::telemetry::metrics::metrics;

/// How long a REGISTER may take before the next place is tried.
const REGISTER_WAIT_MS: u64 = 10_000;
/// How long taking a registration back may take: less than the service's goodbyes.
const UNREGISTER_WAIT_MS: u64 = 1_000;
/// How long a ping may take.
const PING_WAIT_MS: u64 = 4_000;
/// How long the tasks of a trunk that changed may take to end.
const CHANGE_WAIT_MS: u64 = 3_000;

/// Runs until `stop`, then takes registrations back.
pub async fn run(trunks: Trunks, caller: Arc<dyn Caller>, entropy: Arc<dyn Entropy>, stop: CancellationToken) {
    let mut changes = trunks.changes();
    let mut kept: HashMap<String, Kept> = HashMap::new();
    loop {
        let set = trunks.set();
        let gone: Vec<String> = kept.iter().filter(|(_, k)| !k.still_fits(&set)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            // The old registration is taken back before a new one is made: both may be of the same Contact.
            if let Some(old) = kept.remove(&name) {
                old.end().await;
            }
        }
        for trunk in &set.sip.trunks {
            if kept.contains_key(&trunk.name) {
                continue;
            }
            let keeper = Keeper {
                trunk: trunk.clone(),
                asker: Asker::new(caller.clone(), &set.sip, trunk, entropy.clone()),
                set: set.clone(),
                trunks: trunks.clone(),
                entropy: entropy.clone(),
                ticker: Ticker::start(),
                stop: stop.child_token(),
            };
            kept.insert(trunk.name.clone(), Kept::start(Arc::new(keeper)));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
        }
    }
    let mut ends: JoinSet<()> = kept.into_values().map(Kept::end).collect();
    while ends.join_next().await.is_some() {}
}

/// A trunk's tasks.
struct Kept {
    trunk: TrunkConfig,
    credentials: Option<Credentials>,
    public_address: Option<IpAddr>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Kept {
    fn start(keeper: Arc<Keeper>) -> Self {
        let mut tasks = Vec::new();
        if keeper.trunk.register.is_some() {
            let keeper = keeper.clone();
            tasks.push(tokio::spawn(async move { keeper.stay_registered().await }));
        }
        if keeper.trunk.target.is_some() && keeper.trunk.options_ping_s > 0 {
            let keeper = keeper.clone();
            tasks.push(tokio::spawn(async move { keeper.ping_on().await }));
        }
        let credentials = keeper.set.secrets.ours(&keeper.trunk.name).cloned();
        let public_address = keeper.set.sip.public_address;
        Self { trunk: keeper.trunk.clone(), credentials, public_address, stop: keeper.stop.clone(), tasks }
    }

    fn still_fits(&self, set: &Set) -> bool {
        set.sip.trunks.contains(&self.trunk)
            && set.sip.public_address == self.public_address
            && set.secrets.ours(&self.trunk.name) == self.credentials.as_ref()
    }

    async fn end(self) {
        self.stop.cancel();
        let limit = Instant::now() + Duration::from_millis(CHANGE_WAIT_MS);
        for mut task in self.tasks {
            if tokio::time::timeout_at(limit, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Wall-clock time that never jumps: read once, then counted on.
#[derive(Clone, Copy)]
struct Ticker {
    began: Timestamp,
    at: Instant,
}

impl Ticker {
    fn start() -> Self {
        Self { began: SystemClock.now(), at: Instant::now() }
    }

    fn now(&self) -> Timestamp {
        self.began.plus(self.at.elapsed())
    }

    fn instant(&self, when: Timestamp) -> Instant {
        self.at + when.since(self.began)
    }
}

struct Keeper {
    trunk: TrunkConfig,
    asker: Asker,
    set: Arc<Set>,
    trunks: Trunks,
    entropy: Arc<dyn Entropy>,
    ticker: Ticker,
    stop: CancellationToken,
}

impl Keeper {
    async fn stay_registered(&self) {
        let (Some(register), Some((_, domain)), Some(credentials)) =
            (&self.trunk.register, self.trunk.address_of_record(), self.set.secrets.ours(&self.trunk.name))
        else {
            return; // the configuration's check lets none through
        };
        let of = Registering { uri: format!("sip:{domain}"), expires_s: register.expires_s, credentials: credentials.clone() };
        let mut machine = Registrar::new(of);
        let mut places: Vec<Place> = Vec::new();
        let mut stopping = false;
        let mut next = machine.advance(self.ticker.now(), Input::Woken, self.entropy.as_ref());
        loop {
            if !stopping && self.stop.is_cancelled() {
                stopping = true;
                next = machine.advance(self.ticker.now(), Input::Stop, self.entropy.as_ref());
            }
            next = match next {
                Next::Done => break,
                Next::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(self.ticker.instant(until)) => {}
                        () = self.stop.cancelled(), if !stopping => {
                            next = Next::Wait(until);
                            continue;
                        }
                    }
                    machine.advance(self.ticker.now(), Input::Woken, self.entropy.as_ref())
                }
                Next::Resolve => {
                    let found = self.trunks.places(&self.trunk, self.trunk.registrar().unwrap_or_default()).await;
                    let input = match found {
                        Ok(found) => {
                            places.clone_from(&found);
                            self.trunks.learn(&self.trunk.name, &addresses(&places));
                            Input::Places(found)
                        }
                        Err(why) => Input::NoPlaces(why.to_string()),
                    };
                    machine.advance(self.ticker.now(), input, self.entropy.as_ref())
                }
                Next::Send(register) => self.send(&mut machine, &register, stopping).await,
            };
        }
        metrics().trunk_registered.set([&self.trunk.name], 0.0);
    }

    async fn send(&self, machine: &mut Registrar, register: &Register, stopping: bool) -> Next {
        let wait = Duration::from_millis(if stopping { UNREGISTER_WAIT_MS } else { REGISTER_WAIT_MS });
        let (sent, contact) = self.asker.register(register, wait).await;
        let now = self.ticker.now();
        let (next, seen) = match &sent {
            Ok(reply) => {
                let input = Input::Answer { status: reply.status, headers: &reply.headers, contact: &contact };
                (machine.advance(now, input, self.entropy.as_ref()), seen_as(&reply.headers))
            }
            Err(error) => (machine.advance(now, Input::Silence(error.to_string()), self.entropy.as_ref()), None),
        };
        // A challenge is only a step on the way.
        if !matches!(next, Next::Send(_)) {
            self.note(machine, register.place.address, seen);
        }
        next
    }

    fn note(&self, machine: &Registrar, registrar: SocketAddr, seen: Option<super::status::SeenAs>) {
        let expires = machine.held(self.ticker.now());
        let name = &self.trunk.name;
        let mut was = false;
        self.trunks.note(name, |status| {
            was = status.registration.as_ref().is_some_and(|r| r.registered);
            status.registration = Some(Registration {
                registered: expires.is_some(),
                expires,
                registrar: Some(registrar),
                problem: machine.problem().map(str::to_owned),
                seen_as: seen.or(status.registration.as_ref().and_then(|r| r.seen_as)),
            });
        });
        metrics().trunk_registered.set([name], if expires.is_some() { 1.0 } else { 0.0 });
        match (was, expires.is_some(), machine.problem()) {
            (false, true, _) => tracing::info!(trunk = %name, %registrar, "registered"),
            (_, held, Some(problem)) => tracing::warn!(trunk = %name, %registrar, problem, held, "registering failed"),
            (true, _, None) | (false, false, None) => {}
        }
    }

    async fn ping_on(&self) {
        let every = Duration::from_secs(self.trunk.options_ping_s.into());
        loop {
            self.ping_all().await;
            // Up to a tenth earlier, so that the nodes of a service don't ask in step.
            let tenth_ms = u32::try_from(every.as_millis() / 10).unwrap_or(u32::MAX);
            let pause = every - Duration::from_millis(self.entropy.below(tenth_ms.max(1)).into());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn ping_all(&self) {
        let (name, target) = (&self.trunk.name, self.trunk.target.as_deref().unwrap_or_default());
        let places = match self.trunks.places(&self.trunk, target).await {
            Ok(places) => places,
            Err(why) => {
                tracing::warn!(trunk = %name, %why, "a trunk's target was not found");
                // Where it was before may still do.
                return self.trunks.note(name, |status| status.unresolved = Some(why.to_string()));
            }
        };
        self.trunks.note(name, |status| status.found(&places));
        let mut pings = JoinSet::new();
        for place in places {
            let asker = self.asker.clone();
            pings.spawn(async move {
                let answer = asker.options(&place, Duration::from_millis(PING_WAIT_MS)).await;
                (place, answer.ok().map(|reply| (reply.status, reply.took)))
            });
        }
        let in_time = async {
            while let Some(pinged) = pings.join_next().await {
                let Ok((place, answer)) = pinged else { continue };
                self.trunks.note(name, |status| match status.pinged(self.ticker.now(), &place, answer) {
                    Some(true) => tracing::info!(trunk = %name, %place, "answers again"),
                    Some(false) => tracing::warn!(trunk = %name, %place, "does not answer: no calls go there"),
                    None => {}
                });
            }
        };
        tokio::select! {
            () = in_time => {}
            () = self.stop.cancelled() => return,
        }
        let up = self.trunks.status_of(name).is_some_and(|s| s.places.iter().any(|p| p.up));
        metrics().trunk_up.set([name], if up { 1.0 } else { 0.0 });
    }
}

fn addresses(places: &[Place]) -> Vec<IpAddr> {
    places.iter().map(|p| p.address.ip()).collect()
}
