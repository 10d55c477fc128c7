//! PURE: transfers (RFC 3515, RFC 3891, RFC 5589): what REFER asks for, what its NOTIFYs tell, and which dialog a Replaces names.

use super::dialog::parameter;
use super::headers::Headers;
use super::identity::{escape, split_addresses};

/// A sipfrag is a status line and perhaps some header fields.
const SIPFRAG_LIMIT_BYTES: usize = 4 * 1024;
/// A target longer than this is no SIP URI that anybody dials.
const TARGET_LIMIT_BYTES: usize = 512;

/// A dialog of somebody's, by name (RFC 3891 section 6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// Call-ID.
    pub call_id: String,
    /// The tag of whoever receives the Replaces.
    pub to_tag: String,
    /// The other tag.
    pub from_tag: String,
    /// Only while that dialog still rings.
    pub early_only: bool,
}

impl Replaces {
    /// Of an INVITE. `Some(Err)`: there is one that can't be read, or two: 400 (section 3).
    pub fn of(invite: &Headers) -> Option<Result<Self, ()>> {
        let mut all = invite.all("Replaces");
        let value = all.next()?;
        if all.next().is_some() {
            return Some(Err(()));
        }
        let read = || {
            let (call_id, parameters) = value.split_once(';')?;
            Some(Self {
                call_id: call_id.trim().to_owned(),
                to_tag: parameter(parameters, "to-tag")?.to_owned(),
                from_tag: parameter(parameters, "from-tag")?.to_owned(),
                early_only: parameter(parameters, "early-only").is_some(),
            })
        };
        Some(read().ok_or(()))
    }
}

/// Whom the other side shall call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferTo {
    /// A SIP or tel URI.
    pub target: String,
    /// Attended: the call with the target that is up already.
    pub replaces: Option<Replaces>,
}

/// Nobody can be referred to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transfer needs a target of the form sip:USER@HOST, sips:USER@HOST or tel:NUMBER")]
pub struct BadTarget;

impl ReferTo {
    /// As Refer-To's value; the Replaces travels as an escaped header of the URI (RFC 5589 section 7.3).
    pub fn value(&self) -> Result<String, BadTarget> {
        let scheme = self.target.split_once(':').map(|(s, _)| s.to_ascii_lowercase());
        let known = scheme.as_deref().is_some_and(|s| ["sip", "sips", "tel"].contains(&s));
        let clean = self.target.len() <= TARGET_LIMIT_BYTES
            && !self.target.chars().any(|c| c.is_control() || c.is_whitespace() || "<>\"?".contains(c));
        if !known || !clean {
            return Err(BadTarget);
        }
        Ok(match &self.replaces {
            None => format!("<{}>", self.target),
            Some(r) => {
                let plain = format!("{};to-tag={};from-tag={}", r.call_id, r.to_tag, r.from_tag);
                // As a header field in a URI wants it (`hvalue`).
                format!("<{}?Replaces={}>", self.target, escape(&plain, b""))
            }
        })
    }
}

/// What a NOTIFY tells of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notified {
    /// The status of the other side's INVITE so far; `None`: its sipfrag could not be read.
    pub status: Option<u16>,
    /// Nothing more will come.
    pub terminated: bool,
}

/// Reads a NOTIFY. `None`: it isn't of the event `refer` (489).
pub fn notified(headers: &Headers, body: &[u8]) -> Option<Notified> {
    let event = headers.get("Event").or_else(|| headers.get("o"))?;
    if !event.split(';').next().unwrap_or(event).trim().eq_ignore_ascii_case("refer") {
        return None;
    }
    let state = headers.get("Subscription-State").map(|s| s.split(';').next().unwrap_or(s).trim().to_ascii_lowercase());
    let status = std::str::from_utf8(body.get(..body.len().min(SIPFRAG_LIMIT_BYTES)).unwrap_or_default())
        .ok()
        .and_then(|text| text.trim_start().strip_prefix("SIP/2.0 "))
        .and_then(|rest| rest.split_ascii_whitespace().next())
        .and_then(|code| code.parse().ok())
        .filter(|code| (100..700).contains(code));
    // A final status ends it whatever Subscription-State says: some never say `terminated`.
    let terminated = state.as_deref() == Some("terminated") || status.is_some_and(|s| s >= 200);
    Some(Notified { status, terminated })
}

/// The other side took the REFER but will not report (RFC 4488).
pub fn without_reports(response: &Headers) -> bool {
    response.get("Refer-Sub").is_some_and(|v| v.trim().eq_ignore_ascii_case("false"))
}

/// How a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referral {
    /// Taken; its call has got so far (100 to 199).
    Progress(u16),
    /// The target answered: the other side has it, our call is over.
    Done,
    /// Taken, but nothing will be heard of it (RFC 4488): the other side hangs up when it likes.
    Unreported,
    /// The target did not take it (300 to 699): our call goes on.
    Failed(u16),
    /// REFER itself was refused (405, 501, 603…): our call goes on, and may be bridged.
    Refused(u16),
    /// No word within the time.
    TimedOut,
}

impl Referral {
    /// From a NOTIFY.
    pub fn from_notify(notified: Notified) -> Self {
        match (notified.status, notified.terminated) {
            (Some(s), _) if s >= 300 => Self::Failed(s),
            (Some(s), _) if s >= 200 => Self::Done,
            (Some(s), false) => Self::Progress(s),
            // Ended while ringing, or without a word: nobody knows.
            (_, true) => Self::Failed(408),
            (None, false) => Self::Progress(100),
        }
    }

    /// Is nothing more to come?
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Progress(_))
    }
}

/// Refer-To of a REFER that came in: exactly one is wanted (RFC 3515 section 2.4.1).
pub fn has_one_target(headers: &Headers) -> bool {
    let count: usize = ["Refer-To", "r"].iter().flat_map(|n| headers.all(n)).map(|v| split_addresses(v).len()).sum();
    count == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_blind_and_an_attended_target_are_written() {
        let blind = ReferTo { target: "sip:agent@pbx.example".into(), replaces: None };
        assert_eq!(blind.value().unwrap(), "<sip:agent@pbx.example>");
        let replaces = Replaces { call_id: "a@b".into(), to_tag: "1;2".into(), from_tag: "3".into(), early_only: false };
        let attended = ReferTo { replaces: Some(replaces), ..blind };
        assert_eq!(attended.value().unwrap(), "<sip:agent@pbx.example?Replaces=a%40b%3Bto-tag%3D1%3B2%3Bfrom-tag%3D3>");
        for bad in ["", "agent", "http://x", "sip:a b@c", "sip:a@b>\r\nX: y", "sip:a@b?Replaces=x"] {
            assert_eq!(ReferTo { target: bad.into(), replaces: None }.value(), Err(BadTarget), "{bad}");
        }
    }

    #[test]
    fn replaces_names_one_dialog() {
        let of = |v: &str| Replaces::of(&Headers::new().with("Replaces", v));
        let read = of("a@b ;from-tag=f;to-tag=t; early-only").unwrap().unwrap();
        assert_eq!(
            (read.call_id.as_str(), read.to_tag.as_str(), read.from_tag.as_str(), read.early_only),
            ("a@b", "t", "f", true)
        );
        assert_eq!(of("a@b;to-tag=t"), Some(Err(())));
        assert_eq!(Replaces::of(&Headers::new()), None);
        assert_eq!(Replaces::of(&Headers::new().with("Replaces", "a;to-tag=1;from-tag=2").with("Replaces", "b")), Some(Err(())));
    }

    #[test]
    fn notifies_tell_how_it_goes() {
        let of = |state: &str, body: &str| {
            let h = Headers::new().with("Event", "refer;id=2").with("Subscription-State", state);
            Referral::from_notify(notified(&h, body.as_bytes()).unwrap())
        };
        assert_eq!(of("active;expires=60", "SIP/2.0 100 Trying"), Referral::Progress(100));
        assert_eq!(of("terminated;reason=noresource", "SIP/2.0 200 OK\r\n"), Referral::Done);
        assert_eq!(of("active", "SIP/2.0 200 OK"), Referral::Done);
        assert_eq!(of("terminated", "SIP/2.0 486 Busy Here"), Referral::Failed(486));
        assert_eq!(of("terminated", ""), Referral::Failed(408));
        assert_eq!(of("active", "nonsense"), Referral::Progress(100));
        assert_eq!(notified(&Headers::new().with("Event", "message-summary"), b""), None);
        assert!(without_reports(&Headers::new().with("Refer-Sub", "false")));
        assert!(has_one_target(&Headers::new().with("Refer-To", "<sip:a@b>")));
        assert!(!has_one_target(&Headers::new().with("Refer-To", "<sip:a@b>, <sip:c@d>")) && !has_one_target(&Headers::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(event in ".{0,20}", state in ".{0,20}", body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let h = Headers::new().with("Event", event).with("Subscription-State", state.clone()).with("Replaces", state);
            let _read = notified(&h, &body).map(Referral::from_notify);
            let _read = Replaces::of(&h);
        }
    }
}
