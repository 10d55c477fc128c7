//! Certificates that were fetched, and failures to: bounded in number and time. Pure: the clock is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Invalid;
use super::url::HttpsUrl;
use crate::clock::Timestamp;

/// Entries; at 16 kB each 4 MB at most.
pub const CACHE_LIMIT_ENTRIES: usize = 256;
/// What came is kept at least so long: a server that forbids it would be asked at every call.
const KEEP_LEAST: Duration = Duration::from_secs(60);
/// And at most so long, whatever its server says: a certificate may be replaced.
const KEEP_MOST: Duration = Duration::from_secs(24 * 3_600);
/// Where the server says nothing.
const KEEP_USUALLY: Duration = Duration::from_secs(3_600);
/// A failure is believed for so long, so that a broken server is not asked at every call.
const KEEP_FAILURE: Duration = Duration::from_secs(30);

/// What became of fetching a URL.
pub type Fetched = Result<Arc<[u8]>, Invalid>;

/// See the module.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<HttpsUrl, Entry>,
}

#[derive(Debug)]
struct Entry {
    fetched: Fetched,
    until: Timestamp,
}

impl Cache {
    /// What is known of it, if that still holds.
    pub fn get(&self, url: &HttpsUrl, now: Timestamp) -> Option<Fetched> {
        self.entries.get(url).filter(|entry| entry.until > now).map(|entry| entry.fetched.clone())
    }

    /// Keeps what came of a fetch. When it is full, what is over goes, then a failure, then what would go first.
    pub fn put(&mut self, url: HttpsUrl, fetched: Fetched, max_age: Option<Duration>, now: Timestamp) {
        let keep = match &fetched {
            Ok(_) => max_age.unwrap_or(KEEP_USUALLY).clamp(KEEP_LEAST, KEEP_MOST),
            Err(_) => KEEP_FAILURE,
        };
        if self.entries.len() >= CACHE_LIMIT_ENTRIES && !self.entries.contains_key(&url) {
            self.entries.retain(|_, entry| entry.until > now);
            while self.entries.len() >= CACHE_LIMIT_ENTRIES {
                let worst = self.entries.iter().min_by_key(|(_, e)| (e.fetched.is_ok(), e.until)).map(|(url, _)| url.clone());
                match worst {
                    Some(worst) => drop(self.entries.remove(&worst)),
                    None => break,
                }
            }
        }
        self.entries.insert(url, Entry { fetched, until: now.plus(keep) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::leg::AttestationFault::InfoUnreachable;

    fn url(n: usize) -> HttpsUrl {
        HttpsUrl::parse(&format!("https://certs.example.org/{n}")).unwrap()
    }

    fn chain() -> Fetched {
        Ok(Arc::from(b"pem".as_slice()))
    }

    const FAILED: Fetched = Err(Invalid::new(InfoUnreachable, "no"));

    #[test]
    fn what_came_is_kept_as_long_as_its_server_says_within_limits() {
        let start = Timestamp(1_000_000);
        for (max_age_s, kept_s) in [(Some(0), 60), (Some(600), 600), (Some(1_000_000), 86_400), (None, 3_600)] {
            let mut cache = Cache::default();
            cache.put(url(1), chain(), max_age_s.map(Duration::from_secs), start);
            assert!(cache.get(&url(1), start.plus(Duration::from_millis(kept_s * 1_000 - 1))).is_some(), "{max_age_s:?}");
            assert!(cache.get(&url(1), start.plus(Duration::from_secs(kept_s))).is_none(), "{max_age_s:?}");
        }
        let mut cache = Cache::default();
        cache.put(url(1), FAILED, Some(Duration::from_secs(3_600)), start);
        assert!(cache.get(&url(1), start.plus(Duration::from_secs(29))).is_some_and(|f| f.is_err()));
        assert!(cache.get(&url(1), start.plus(Duration::from_secs(30))).is_none());
        assert!(cache.get(&url(2), start).is_none());
    }

    #[test]
    fn it_never_grows_and_failures_do_not_push_out_what_came() {
        let (mut cache, start) = (Cache::default(), Timestamp(0));
        for n in 0..CACHE_LIMIT_ENTRIES - 1 {
            cache.put(url(n), chain(), None, start);
        }
        for n in 1_000..3_000 {
            cache.put(url(n), FAILED, None, start);
        }
        assert_eq!(cache.entries.len(), CACHE_LIMIT_ENTRIES);
        assert!(cache.get(&url(0), start).is_some_and(|f| f.is_ok()));
        for n in 5_000..5_000 + CACHE_LIMIT_ENTRIES {
            cache.put(url(n), chain(), None, start.plus(Duration::from_secs(1)));
        }
        assert_eq!(cache.entries.len(), CACHE_LIMIT_ENTRIES);
        assert!(cache.get(&url(0), start).is_none());
    }
}
