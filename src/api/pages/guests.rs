//! How often somebody without a key may come: each link so often, and each address so often with a link that is none of ours. Whoever guesses is
//! slowed, and whoever has a good link is not, even from the same address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use axum::http::{Extensions, HeaderMap};
use tokio::time::Instant;

use super::super::door::Peer;
use crate::bucket::{Bucket, Rate};

/// Guesses from one address.
const GUESSES: Rate = Rate { per_s: 0.1, burst: 10.0 };
/// Visits by one link: a page, some tries at a code, a second look.
const VISITS: Rate = Rate { per_s: 0.5, burst: 30.0 };
/// Addresses, or links, that are remembered at a time.
const LIMIT_REMEMBERED: usize = 10_000;

/// Counts who comes without a key.
#[derive(Debug)]
pub(in crate::api) struct Guests {
    guesses: Meter<IpAddr>,
    visits: Meter<String>,
}

impl Default for Guests {
    fn default() -> Self {
        Self { guesses: Meter::new(GUESSES), visits: Meter::new(VISITS) }
    }
}

impl Guests {
    /// A link that is none of ours came from there; the error is after how many seconds the next one is looked at.
    pub(super) fn guess(&self, from: IpAddr) -> Result<(), u64> {
        self.guesses.take(network(from), Instant::now())
    }

    /// A good link was followed; the error as above.
    pub(super) fn visit(&self, link: String) -> Result<(), u64> {
        self.visits.take(link, Instant::now())
    }
}

/// Tokens by key, as in `gate`'s buckets, but of keys that anybody may make up: so many of them are remembered.
#[derive(Debug)]
pub(in crate::api) struct Meter<K> {
    rate: Rate,
    began: Instant,
    all: Mutex<HashMap<K, Bucket>>,
}

impl<K: Eq + Hash> Meter<K> {
    /// One that refills like this.
    pub(in crate::api) fn new(rate: Rate) -> Self {
        Self { rate, began: Instant::now(), all: Mutex::default() }
    }

    /// Takes a token; the error is after how many seconds there is one.
    pub(in crate::api) fn take(&self, key: K, now: Instant) -> Result<(), u64> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now.duration_since(self.began);
        if all.len() >= LIMIT_REMEMBERED && !all.contains_key(&key) {
            // Who has all tokens again is as good as new.
            all.retain(|_, bucket| !bucket.is_full(now, self.rate));
            if all.len() >= LIMIT_REMEMBERED {
                return Err(1);
            }
        }
        let bucket = all.entry(key).or_insert_with(|| Bucket::full(self.rate));
        if bucket.take(now, self.rate) { Ok(()) } else { Err(bucket.seconds_until(1.0, self.rate)) }
    }
}

/// Whoever has one address of IPv6 has a whole network of them.
pub(in crate::api) fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(six) => {
            let [a, b, c, d, ..] = six.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        four @ IpAddr::V4(_) => four,
    }
}

/// From where a request comes: behind a proxy of ours the last address that it names, for it added that one itself (RFC 7239 §8.1).
pub(in crate::api) fn from(headers: &HeaderMap, extensions: &Extensions, behind_proxy: bool) -> IpAddr {
    let named = headers.get_all("x-forwarded-for").iter().next_back().and_then(|h| h.to_str().ok());
    let last = named.and_then(|all| all.rsplit(',').next()).and_then(|text| text.trim().trim_matches(['[', ']']).parse().ok());
    let peer = extensions.get::<Peer>().map(|Peer(address)| address.ip());
    last.filter(|_| behind_proxy).or(peer).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_waits_and_its_neighbours_do_not() {
        let guests = Guests::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let let_in = |from: &str, n: usize| (0..n).filter(|_| guests.guess(ip(from)).is_ok()).count();
        assert_eq!(let_in("192.0.2.1", 30), 10);
        assert_eq!(guests.guess(ip("192.0.2.1")), Err(11));
        assert_eq!(let_in("192.0.2.2", 3), 3);
        assert_eq!(let_in("::ffff:192.0.2.1", 3), 0, "the same address, written otherwise");
        // One that draws its address anew each time from its own network is one.
        let drawn: usize = (0..30).map(|n| let_in(&format!("2001:db8:0:1::{n:x}"), 1)).sum();
        assert_eq!((drawn, let_in("2001:db8:0:2::1", 1)), (10, 1));
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(let_in("192.0.2.1", 9), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_fill_no_memory() {
        let meter = Meter::new(Rate { per_s: 1.0, burst: 2.0 });
        let take = |n: usize| meter.take(n, Instant::now());
        assert!((0..LIMIT_REMEMBERED).all(|n| take(n).is_ok()));
        assert_eq!(take(LIMIT_REMEMBERED), Err(1), "one more than are remembered");
        assert_eq!(take(5), Ok(()), "one of them");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(take(LIMIT_REMEMBERED), Ok(()), "the others came back to the full");
        assert_eq!(meter.all.lock().unwrap().len(), 2);
    }

    #[test]
    fn behind_a_proxy_the_last_address_that_it_names_counts_and_else_none_does() {
        let mut headers = HeaderMap::new();
        let mut extensions = Extensions::new();
        extensions.insert(Peer("10.0.0.1:5".parse().unwrap()));
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(from(&headers, &extensions, true), peer);
        headers.append("x-forwarded-for", "1.1.1.1, 192.0.2.7".parse().unwrap());
        assert_eq!(from(&headers, &extensions, true), "192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(from(&headers, &extensions, false), peer);
        headers.append("x-forwarded-for", "no address".parse().unwrap());
        assert_eq!(from(&headers, &extensions, true), peer);
    }
}
