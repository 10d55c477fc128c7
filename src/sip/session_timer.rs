//! PURE: session timers (RFC 4028): how long a call may go unconfirmed, who confirms it, and what becomes of it if nobody does.

use std::time::Duration;

use super::dialog::parameter;
use super::headers::Headers;

/// The least that may be asked of anybody (RFC 4028 section 4).
pub const LEAST_SESSION_INTERVAL_S: u32 = 90;
/// Longest interval that is believed: a day. What is longer guards nothing.
const MOST_SESSION_INTERVAL_S: u32 = 86_400;
/// The side that waits gives up this long before the session ends, or a third of it (section 10).
const EXPIRY_MARGIN_S: u32 = 32;
/// A refresh that failed without ending the call is tried again after this.
const RETRY_MS: u64 = 5_000;

/// What we want of every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Session-Expires that we ask for.
    pub expires_s: u32,
    /// Min-SE: less than this we refuse with 422.
    pub least_s: u32,
}

/// Who refreshes, in the words of the request that carries it: its sender is the UAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresher {
    /// Who sent the request.
    Uac,
    /// Who answered it.
    Uas,
}

impl Refresher {
    fn word(self) -> &'static str {
        match self {
            Self::Uac => "uac",
            Self::Uas => "uas",
        }
    }
}

/// A Session-Expires value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// Delta seconds.
    pub interval_s: u32,
    /// Unset: the answering side chooses.
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// Of a message (also in its compact form `x`); `None` where there is none that can be read.
    pub fn of(message: &Headers) -> Option<Self> {
        let value = message.get("Session-Expires").or_else(|| message.get("x"))?;
        let (seconds, parameters) = value.split_once(';').unwrap_or((value, ""));
        let refresher = match parameter(parameters, "refresher") {
            Some(r) if r.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            Some(r) if r.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            Some(_) | None => None,
        };
        let interval_s = seconds.trim().parse::<u32>().ok()?.min(MOST_SESSION_INTERVAL_S);
        Some(Self { interval_s, refresher })
    }

    /// As a header field's value.
    pub fn value(self) -> String {
        match self.refresher {
            Some(r) => format!("{};refresher={}", self.interval_s, r.word()),
            None => self.interval_s.to_string(),
        }
    }
}

/// Min-SE of a message; 90 where there is none.
pub fn min_se(message: &Headers) -> u32 {
    let told = message.get("Min-SE").and_then(|v| v.split(';').next()).and_then(|v| v.trim().parse().ok());
    told.unwrap_or(LEAST_SESSION_INTERVAL_S).clamp(LEAST_SESSION_INTERVAL_S, MOST_SESSION_INTERVAL_S)
}

/// Does the sender know session timers?
pub fn supports(message: &Headers) -> bool {
    message.tokens("Supported").chain(message.tokens("k")).any(|t| t.eq_ignore_ascii_case("timer"))
}

/// What a 2xx says of session timers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Goes into the 2xx.
    pub expires: SessionExpires,
    /// `Require: timer` goes beside it: the other side has to act (section 9).
    pub require: bool,
}

/// Their request asks for less than we bear: 422 with this Min-SE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall(pub u32);

/// Answers an INVITE or UPDATE (section 9). `None`: there is no timer in this one.
pub fn answer(limits: Limits, request: &Headers) -> Result<Option<Answered>, TooSmall> {
    let known = supports(request);
    let theirs = SessionExpires::of(request);
    let floor = min_se(request);
    let interval_s = match theirs {
        // Only who knows timers can act on a 422.
        Some(t) if t.interval_s < limits.least_s && known => return Err(TooSmall(limits.least_s)),
        // We may shorten, but not below their Min-SE (section 9).
        Some(t) => t.interval_s.max(limits.least_s).min(limits.expires_s.max(floor)),
        None => limits.expires_s.max(floor),
    };
    let refresher = match theirs.and_then(|t| t.refresher) {
        // Table 2: who doesn't know timers can't be made to refresh.
        _ if !known => Refresher::Uas,
        Some(chosen) => chosen,
        // Who asked for a timer keeps it; who did not is asked for nothing: some list `timer` and never refresh.
        None if theirs.is_some() => Refresher::Uac,
        None => Refresher::Uas,
    };
    let expires = SessionExpires { interval_s, refresher: Some(refresher) };
    Ok(Some(Answered { expires, require: known && refresher == Refresher::Uac }))
}

/// What our INVITE or UPDATE carries beside `Supported: timer`.
pub fn asked(limits: Limits, refresher: Option<Refresher>) -> Headers {
    let expires = SessionExpires { interval_s: limits.expires_s.max(limits.least_s), refresher };
    Headers::new().with("Session-Expires", expires.value()).with("Min-SE", limits.least_s.to_string())
}

/// What a 422 makes of our wishes; `None` if it asks for more than we ever would.
pub fn after_too_small(limits: Limits, response: &Headers) -> Option<Limits> {
    let least_s = min_se(response).max(limits.least_s);
    (least_s > limits.expires_s.max(limits.least_s) || least_s > limits.least_s)
        .then(|| Limits { least_s, expires_s: limits.expires_s.max(least_s) })
}

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send a refresh.
    Refresh,
    /// Nobody has confirmed the session: BYE.
    Expired,
}

/// The timer of a call that is up. Times are since some epoch of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimer {
    interval_s: u32,
    ours: bool,
    refresh_at: Option<Duration>,
    expires_at: Duration,
}

impl SessionTimer {
    /// From a 2xx, sent or received at `now`. `ours`: we refresh.
    pub fn start(now: Duration, interval_s: u32, ours: bool) -> Self {
        let whole = Duration::from_secs(interval_s.into());
        let margin = Duration::from_secs(EXPIRY_MARGIN_S.min(interval_s / 3).into());
        Self { interval_s, ours, refresh_at: ours.then(|| now + whole / 2), expires_at: now + whole.saturating_sub(margin) }
    }

    /// From what a 2xx says; `sent_request`: ours was the request that it answers.
    pub fn agreed(now: Duration, expires: SessionExpires, sent_request: bool) -> Self {
        // Section 7.2: a 2xx that names nobody leaves it to the UAC.
        let ours = match expires.refresher.unwrap_or(Refresher::Uac) {
            Refresher::Uac => sent_request,
            Refresher::Uas => !sent_request,
        };
        Self::start(now, expires.interval_s.max(1), ours)
    }

    /// Do we refresh?
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Seconds from one confirmation to the end of the session.
    pub fn interval_s(&self) -> u32 {
        self.interval_s
    }

    /// When to ask [`SessionTimer::due`] again.
    pub fn next(&self) -> Duration {
        self.refresh_at.map_or(self.expires_at, |r| r.min(self.expires_at))
    }

    /// What is due at `now`. A refresh is due once; its outcome starts the timer anew or calls [`SessionTimer::retry`].
    pub fn due(&mut self, now: Duration) -> Option<Due> {
        if now >= self.expires_at {
            return Some(Due::Expired);
        }
        if self.refresh_at.is_some_and(|at| now >= at) {
            self.refresh_at = None;
            return Some(Due::Refresh);
        }
        None
    }

    /// A refresh was refused, but not so that the call is over (section 10): once more, while there is time.
    pub fn retry(&mut self, now: Duration) {
        self.refresh_at = Some(now + Duration::from_millis(RETRY_MS));
    }
}

/// Does this answer to a refresh say that the other side knows the call no more (section 10)?
pub fn is_lost(status: u16) -> bool {
    matches!(status, 408 | 481)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { expires_s: 1_800, least_s: 90 };

    fn request(expires: Option<&str>, min: Option<&str>, supported: bool) -> Headers {
        let mut h = Headers::new();
        expires.into_iter().for_each(|v| h.push("Session-Expires", v));
        min.into_iter().for_each(|v| h.push("Min-SE", v));
        if supported {
            h.push("Supported", "100rel, timer");
        }
        h
    }

    fn answered(expires: Option<&str>, min: Option<&str>, supported: bool) -> (u32, Refresher, bool) {
        let a = answer(LIMITS, &request(expires, min, supported)).unwrap().unwrap();
        (a.expires.interval_s, a.expires.refresher.unwrap(), a.require)
    }

    #[test]
    fn the_answer_follows_the_table_of_section_9() {
        use Refresher::{Uac, Uas};
        assert_eq!(answered(Some("1800;refresher=uac"), None, true), (1_800, Uac, true));
        assert_eq!(answered(Some("1800;refresher=uas"), None, true), (1_800, Uas, false));
        assert_eq!(answered(Some("600"), None, true), (600, Uac, true));
        assert_eq!(answered(Some("3600"), None, true), (1_800, Uac, true), "we shorten");
        assert_eq!(answered(Some("3600"), Some("2000"), true), (2_000, Uac, true), "but not below their Min-SE");
        assert_eq!(answered(None, None, true), (1_800, Uas, false), "nobody asked for it");
        assert_eq!(answered(None, None, false), (1_800, Uas, false), "who knows no timers is asked nothing");
        assert_eq!(answered(Some("60"), None, false), (90, Uas, false), "a proxy's value; the UAC can't act on 422");
        assert_eq!(answer(LIMITS, &request(Some("89"), None, true)), Err(TooSmall(90)));
        assert_eq!(answered(Some("soon"), None, true), (1_800, Uas, false));
    }

    #[test]
    fn who_refreshes_does_so_at_half_time_and_who_waits_gives_up_before_the_end() {
        let s = Duration::from_secs;
        let mut ours = SessionTimer::start(s(10), 90, true);
        assert_eq!((ours.next(), ours.due(s(54))), (s(55), None));
        assert_eq!(ours.due(s(55)), Some(Due::Refresh));
        assert_eq!((ours.due(s(56)), ours.next()), (None, s(70)));
        ours.retry(s(56));
        assert_eq!((ours.due(s(61)), ours.due(s(70))), (Some(Due::Refresh), Some(Due::Expired)));
        let mut theirs = SessionTimer::start(s(0), 1_800, false);
        assert_eq!((theirs.next(), theirs.due(s(1_767))), (s(1_768), None));
        assert_eq!(theirs.due(s(1_768)), Some(Due::Expired));
    }

    #[test]
    fn a_2xx_says_who_refreshes_from_its_own_point_of_view() {
        let of = |text: &str| SessionExpires::of(&Headers::new().with("x", text)).unwrap();
        assert!(SessionTimer::agreed(Duration::ZERO, of("90;refresher=uac"), true).is_ours());
        assert!(!SessionTimer::agreed(Duration::ZERO, of("90;refresher=uac"), false).is_ours());
        assert!(SessionTimer::agreed(Duration::ZERO, of("90;refresher=UAS"), false).is_ours());
        assert!(SessionTimer::agreed(Duration::ZERO, of("90"), true).is_ours());
    }

    #[test]
    fn a_422_is_answered_with_more_and_not_for_ever() {
        let more = after_too_small(LIMITS, &Headers::new().with("Min-SE", "2400")).unwrap();
        assert_eq!(more, Limits { expires_s: 2_400, least_s: 2_400 });
        assert_eq!(after_too_small(more, &Headers::new().with("Min-SE", "2400")), None);
        assert_eq!(asked(more, Some(Refresher::Uac)).get("Session-Expires"), Some("2400;refresher=uac"));
        assert!(is_lost(481) && is_lost(408) && !is_lost(491));
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(expires in ".{0,20}", min in ".{0,20}", known: bool, now in 0u64..10_000_000) {
            if let Ok(Some(a)) = answer(LIMITS, &request(Some(&expires), Some(&min), known)) {
                prop_assert!(a.expires.interval_s >= 90);
                let mut t = SessionTimer::agreed(Duration::from_secs(now), a.expires, false);
                prop_assert!(t.next() >= Duration::from_secs(now));
                prop_assert_eq!(t.due(Duration::from_secs(now)), None);
            }
        }
    }
}
