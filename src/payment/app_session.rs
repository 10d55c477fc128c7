//! App sessions (system 10): an app's back end binds a customer, a request, the card that pays and the page's origin to a token that is good
//! once and for a short time; the page opens one call with it. Of the token, and of the name of the call's place, keyed digests are kept.
//!
//! ```text
//! new ─offer→ open ─the call ends→ over
//!  │ ↖─ refused before a call began ─┘ │
//!  └─ expired                          └─ no call any more → over (failed)
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::ids::{AppSessionId, CallId, CardId, CustomerId, RequestId, Tenant};
use crate::language::Language;

/// A keyed digest of something that opens a session, in hex.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppSecret(String);

impl AppSecret {
    /// Of the digest.
    pub fn of(digest: &[u8; 32]) -> Self {
        Self(hex::encode(digest))
    }

    /// Whether it is the same, in constant time.
    pub fn is(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for AppSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppSecret(…)")
    }
}

/// Where a page is from, as browsers write it (RFC 6454 §6.2): scheme, host in small letters, and the port where it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppOrigin(String);

/// Why a text is no origin that a session can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an origin is https:// and a host, perhaps a port, and nothing else; http:// for localhost, 127.0.0.1 and [::1] alone")]
pub struct OriginError;

/// No label of a host is longer.
const LABEL_LIMIT_CHARS: usize = 63;

impl AppOrigin {
    /// None is longer: hosts end there (RFC 1035 §2.3.4).
    pub const LIMIT_CHARS: usize = 253;
    /// What [`AppOrigin::parse`] takes, as a pattern of the API's description.
    pub const PATTERN: &'static str = "^(https://([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(\\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\
         |http://(localhost|127\\.0\\.0\\.1|\\[::1\\]))(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$";

    /// Reads one, and writes it as a browser would.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text.len() > Self::LIMIT_CHARS {
            return Err(OriginError);
        }
        let (scheme, own_port, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => ("https", 443, rest.to_ascii_lowercase()),
            (None, Some(rest)) => ("http", 80, rest.to_owned()),
            (None, None) => return Err(OriginError),
        };
        // An IPv6 address has colons of its own.
        let rest = rest.as_str();
        let (host, port) = match rest.strip_prefix("[::1]") {
            Some("") => ("[::1]", None),
            Some(port) => ("[::1]", Some(port.strip_prefix(':').ok_or(OriginError)?)),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        if !here && (scheme == "http" || !is_host(host)) {
            return Err(OriginError);
        }
        let port = port.map(read_port).transpose()?.filter(|port| *port != own_port);
        Ok(Self(match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port, as a `Host` header names them.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }
}

fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_LIMIT_CHARS).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label)
}

fn read_port(text: &str) -> Result<u16, OriginError> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().map_err(|_| OriginError) } else { Err(OriginError) }
}

impl fmt::Display for AppOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AppOrigin {
    type Err = OriginError;
    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for AppOrigin {
    type Error = OriginError;
    fn try_from(text: String) -> Result<Self, OriginError> {
        Self::parse(&text)
    }
}

impl From<AppOrigin> for String {
    fn from(origin: AppOrigin) -> Self {
        origin.0
    }
}

/// A payment that an app's page confirms by voice: who, what, with which card, from where. One token, one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSession {
    /// Which one.
    pub id: AppSessionId,
    /// Whose app.
    pub tenant: Tenant,
    /// Who pays.
    pub customer: CustomerId,
    /// What.
    pub request: RequestId,
    /// With which card: the payment method that the app is bound to.
    pub card: CardId,
    /// From which pages alone.
    pub origin: AppOrigin,
    /// What is spoken.
    pub language: Language,
    /// What the token must come to.
    pub token: AppSecret,
    /// Where it stands.
    pub state: AppSessionState,
    /// From then on the token opens nothing.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: u64,
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum AppSessionState {
    /// Nobody used the token yet.
    New,
    /// The token is used up: a call is up, or is about to be.
    Open {
        /// What the name of the call's place must come to.
        place: AppSecret,
        /// The call, once it began.
        call: Option<CallId>,
        /// Since when.
        at: Timestamp,
        /// By then it is over, whatever became of the process that held it.
        until: Timestamp,
    },
    /// The call ended.
    Over {
        /// The name of its place still opens the result.
        place: AppSecret,
        /// The call, if one began.
        call: Option<CallId>,
        /// What it came to.
        result: AppResult,
        /// The receipt's reference, if it was paid.
        reference: Option<String>,
        /// When.
        at: Timestamp,
    },
    /// Nobody used the token in time.
    Expired,
}

impl AppSessionState {
    /// For rows, people and the API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Open { .. } => "open",
            Self::Over { .. } => "over",
            Self::Expired => "expired",
        }
    }

    /// What the name of the call's place must come to, once there is one.
    pub fn place(&self) -> Option<&AppSecret> {
        match self {
            Self::Open { place, .. } | Self::Over { place, .. } => Some(place),
            Self::New | Self::Expired => None,
        }
    }

    /// The call, once it began.
    pub fn call(&self) -> Option<&CallId> {
        match self {
            Self::Open { call, .. } | Self::Over { call, .. } => call.as_ref(),
            Self::New | Self::Expired => None,
        }
    }
}

/// What a session came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppResult {
    /// Charged.
    Paid,
    /// Not confirmed; nobody is told whether it was the voice or the words.
    Refused,
    /// The bank said no.
    Declined,
    /// Agreed; somebody else has to agree, too.
    Waiting,
    /// The customer said no, stopped or left.
    Cancelled,
    /// It came to no end.
    Failed,
}

impl AppResult {
    /// As rows, pages and the API write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Refused => "refused",
            Self::Declined => "declined",
            Self::Waiting => "waiting",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppSessionEvent {
    /// A page offers a call.
    Offer {
        /// The digest of the place's name.
        place: AppSecret,
        /// How long a call may last.
        lasts: Duration,
    },
    /// No call began, and none will: the token is as good as before.
    Returned,
    /// The call began.
    Began(CallId),
    /// The call ended.
    Ended {
        /// What it came to.
        result: AppResult,
        /// The receipt's reference.
        reference: Option<String>,
    },
    /// Somebody looks after it: its time may be over.
    Look,
}

/// Why nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppSessionError {
    /// The token opens one call.
    #[error("this session was used already")]
    Used,
    /// Its time is over.
    #[error("this session has expired")]
    Expired,
    /// Not as it stands.
    #[error("this session is {0}")]
    NotSo(&'static str),
}

impl AppSession {
    /// What happens next. A state that is over stays so.
    pub fn step(self, now: Timestamp, event: AppSessionEvent) -> Result<Self, AppSessionError> {
        use AppSessionEvent::{Began, Ended, Look, Offer, Returned};
        use AppSessionState::{Expired, New, Open, Over};
        let late = self.late(now);
        let state = match (self.state, event) {
            (New, Offer { .. }) if late => return Err(AppSessionError::Expired),
            (New, Offer { place, lasts }) => Open { place, call: None, at: now, until: now.plus(lasts) },
            (Open { .. } | Over { .. }, Offer { .. }) => return Err(AppSessionError::Used),
            (Expired, Offer { .. }) => return Err(AppSessionError::Expired),
            (Open { call: None, .. }, Returned) => New,
            (Open { place, call: None, at, until }, Began(call)) => Open { place, call: Some(call), at, until },
            (Open { place, call, .. }, Ended { result, reference }) => Over { place, call, result, reference, at: now },
            (New, Look) if late => Expired,
            // Whoever held the call is gone, and nobody knows more than that.
            (Open { place, call, until, .. }, Look) if now >= until => {
                Over { place, call, result: AppResult::Failed, reference: None, at: now }
            }
            (state @ (New | Open { .. } | Over { .. } | Expired), Returned | Began(_) | Ended { .. } | Look) => {
                return Err(AppSessionError::NotSo(state.name()));
            }
        };
        Ok(Self { state, version: self.version.saturating_add(1), ..self })
    }

    /// How it stands at `now`: one whose time is over is expired whether or not somebody wrote that down.
    pub fn state_at(&self, now: Timestamp) -> &'static str {
        match self.state {
            AppSessionState::New if self.late(now) => AppSessionState::Expired.name(),
            AppSessionState::New | AppSessionState::Open { .. } | AppSessionState::Over { .. } | AppSessionState::Expired => {
                self.state.name()
            }
        }
    }

    /// Whether its token, or its call, still means something at `now`.
    pub fn live(&self, now: Timestamp) -> bool {
        match &self.state {
            AppSessionState::New => !self.late(now),
            AppSessionState::Open { until, .. } => now < *until,
            AppSessionState::Over { .. } | AppSessionState::Expired => false,
        }
    }

    /// Whether something may still change.
    pub fn open(&self) -> bool {
        match self.state {
            AppSessionState::New | AppSessionState::Open { .. } => true,
            AppSessionState::Over { .. } | AppSessionState::Expired => false,
        }
    }

    /// When somebody has to look after it.
    pub fn due_at(&self) -> Option<Timestamp> {
        match &self.state {
            AppSessionState::New => Some(self.expires_at),
            AppSessionState::Open { until, .. } => Some(*until),
            AppSessionState::Over { .. } | AppSessionState::Expired => None,
        }
    }

    fn late(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    const AT: Timestamp = Timestamp(1_000_000);
    const LASTS: Duration = Duration::from_secs(600);

    fn session() -> AppSession {
        let e = SeededEntropy::new(1);
        AppSession {
            id: AppSessionId::fresh(&e),
            tenant: Tenant::default(),
            customer: CustomerId::fresh(&e),
            request: RequestId::fresh(&e),
            card: CardId::fresh(&e),
            origin: AppOrigin::parse("https://shop.example").unwrap(),
            language: Language::English,
            token: AppSecret::of(&[1; 32]),
            state: AppSessionState::New,
            expires_at: AT.plus(Duration::from_secs(120)),
            created_at: AT,
            version: 0,
        }
    }

    fn offer() -> AppSessionEvent {
        AppSessionEvent::Offer { place: AppSecret::of(&[2; 32]), lasts: LASTS }
    }

    fn ended(result: AppResult) -> AppSessionEvent {
        AppSessionEvent::Ended { result, reference: None }
    }

    #[test]
    fn a_token_opens_one_call_and_its_result_stays() {
        let call = CallId::fresh(&SeededEntropy::new(2));
        let open = session().step(AT, offer()).unwrap();
        assert_eq!((open.state.name(), open.version, open.live(AT)), ("open", 1, true));
        assert_eq!(open.clone().step(AT, offer()), Err(AppSessionError::Used));
        let up = open.step(AT, AppSessionEvent::Began(call.clone())).unwrap();
        assert_eq!(
            up.clone().step(AT, AppSessionEvent::Returned),
            Err(AppSessionError::NotSo("open")),
            "a call that began was used"
        );
        let over = up.step(AT, AppSessionEvent::Ended { result: AppResult::Paid, reference: Some("123456".into()) }).unwrap();
        assert_eq!((over.state.name(), over.state.call(), over.open(), over.due_at()), ("over", Some(&call), false, None));
        assert!(over.state.place().unwrap().is(&AppSecret::of(&[2; 32])));
        for event in [ended(AppResult::Failed), AppSessionEvent::Look, AppSessionEvent::Returned] {
            assert_eq!(over.clone().step(AT.plus(LASTS), event), Err(AppSessionError::NotSo("over")));
        }
        assert_eq!(over.step(AT, offer()), Err(AppSessionError::Used));
    }

    #[test]
    fn its_time_ends_it_whether_or_not_somebody_looks() {
        let late = session().expires_at;
        assert_eq!(session().step(late, offer()), Err(AppSessionError::Expired));
        assert_eq!((session().state_at(late), session().live(late)), ("expired", false));
        assert_eq!(session().step(AT, AppSessionEvent::Look), Err(AppSessionError::NotSo("new")));
        let expired = session().step(late, AppSessionEvent::Look).unwrap();
        assert_eq!((expired.state.name(), expired.open()), ("expired", false));
        assert_eq!(expired.step(AT, offer()), Err(AppSessionError::Expired), "a clock that goes back opens nothing");
        // A call outlives the token, and is given up when it can't be up any more.
        let open = session().step(AT, offer()).unwrap();
        assert_eq!((open.state_at(late), open.due_at()), ("open", Some(AT.plus(LASTS))));
        let lost = open.step(AT.plus(LASTS), AppSessionEvent::Look).unwrap();
        assert!(matches!(lost.state, AppSessionState::Over { result: AppResult::Failed, .. }));
    }

    #[test]
    fn what_was_refused_before_a_call_began_can_be_offered_again_in_time() {
        let back = session().step(AT, offer()).unwrap().step(AT, AppSessionEvent::Returned).unwrap();
        assert_eq!((back.state.name(), back.version), ("new", 2));
        assert!(back.clone().step(AT, offer()).is_ok());
        assert_eq!(back.step(session().expires_at, offer()), Err(AppSessionError::Expired));
    }

    #[test]
    fn origins_are_kept_as_browsers_write_them_and_nothing_else_is_one() {
        let read = |text: &str| AppOrigin::parse(text).map(String::from);
        for (given, kept) in [
            ("https://shop.example", "https://shop.example"),
            ("https://Shop.Example:443", "https://shop.example"),
            ("https://shop.example:8443", "https://shop.example:8443"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("https://my_app.example", "https://my_app.example"),
            ("https://192.0.2.1", "https://192.0.2.1"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://localhost", "https://localhost"),
        ] {
            assert_eq!(read(given).as_deref(), Ok(kept), "{given}");
        }
        let long = format!("https://{}.example", "a".repeat(64));
        for wrong in [
            "",
            "null",
            "*",
            "https://",
            "https://*.example",
            "http://shop.example",
            "https://shop.example/",
            "https://shop.example/pay",
            "https://me@shop.example",
            "https://shop.example:",
            "https://shop.example:0",
            "https://shop.example:080",
            "https://shop.example:65536",
            "https://shop.example:99999",
            "https://shop.example?a",
            "https://shop..example",
            "https://-shop.example",
            "https://bücher.example",
            "https://[2001:db8::1]",
            "http://[::1]8080",
            "ws://localhost",
            "HTTPS://shop.example",
            "http://Localhost",
            " https://shop.example",
            "https://shop.example\n",
            &long,
        ] {
            assert_eq!(read(wrong), Err(OriginError), "{wrong}");
        }
        assert_eq!(AppOrigin::parse("https://a.example:8443").unwrap().authority(), "a.example:8443");
    }

    #[test]
    fn a_session_is_read_back_as_it_was_and_prints_no_digest() {
        let open = session().step(AT, offer()).unwrap();
        let text = serde_json::to_string(&open).unwrap();
        assert_eq!(serde_json::from_str::<AppSession>(&text).unwrap(), open);
        assert!(!format!("{open:?}").contains("0101"), "{open:?}");
        assert!(!format!("{open:?}").contains("0202"));
    }
}
