//! PURE: what both ends of a call know of each other: tags, numbers, the route between them (RFC 3261 section 12).
//!
//! rsipstack has a dialog layer of its own. Session timers, PRACK, glare and forks need more than it lets its users see, so
//! only its transactions are used, and dialogs are ours.

use super::headers::Headers;
use super::identity::{address_of, split_addresses};

/// Proxies between us and the other side; a request that came through more was looping.
const ROUTE_LIMIT_PROXIES: usize = 20;
/// Max-Forwards of what we send (RFC 3261 section 8.1.1.6).
const MAX_FORWARDS: u32 = 70;

/// One end's view of a dialog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    call_id: String,
    /// Our address with our tag: From in our requests, To in theirs.
    local: String,
    /// Theirs with theirs.
    remote: String,
    local_cseq: u32,
    /// Of their last request in order; none yet if we called.
    remote_cseq: Option<u32>,
    /// Their Contact's URI.
    target: String,
    /// Bracketed addresses, the first hop first.
    routes: Vec<String>,
}

/// A request inside the dialog, but for its Via.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDialog {
    /// Request-URI.
    pub uri: String,
    /// Its CSeq number.
    pub cseq: u32,
    /// From, To, Call-ID, CSeq, Max-Forwards, Route.
    pub headers: Headers,
    /// Where it goes first: the topmost Route's or the target's URI.
    pub next_hop: String,
}

/// Why no dialog can be made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialogError {
    /// Without it nothing could be sent back (RFC 3261 section 12.1).
    #[error("a Contact with a SIP URI is needed")]
    NoContact,
    /// From, To, Call-ID or CSeq.
    #[error("a header field that a dialog needs is missing: {0}")]
    Missing(&'static str),
    /// See [`ROUTE_LIMIT_PROXIES`].
    #[error("more than 20 proxies want to stay on the path")]
    TooManyRoutes,
}

impl Dialog {
    /// Of an INVITE that came in; `local_tag` is ours.
    pub fn called(invite: &Headers, local_tag: &str) -> Result<Self, DialogError> {
        let field = |name| invite.get(name).ok_or(DialogError::Missing(name));
        Ok(Self {
            call_id: field("Call-ID")?.to_owned(),
            local: format!("{};tag={local_tag}", field("To")?),
            remote: field("From")?.to_owned(),
            local_cseq: 0,
            remote_cseq: Some(cseq_number(invite).ok_or(DialogError::Missing("CSeq"))?),
            target: contact_uri(invite).ok_or(DialogError::NoContact)?,
            routes: routes(invite)?,
        })
    }

    /// Of a response with a To tag (101 to 299) to our INVITE. Record-Route runs the other way here.
    pub fn calling(response: &Headers, fallback_target: &str) -> Result<Self, DialogError> {
        let field = |name| response.get(name).ok_or(DialogError::Missing(name));
        let remote = field("To")?.to_owned();
        tag_of(&remote).ok_or(DialogError::Missing("To tag"))?;
        let mut routes = routes(response)?;
        routes.reverse();
        Ok(Self {
            call_id: field("Call-ID")?.to_owned(),
            local: field("From")?.to_owned(),
            remote,
            local_cseq: cseq_number(response).ok_or(DialogError::Missing("CSeq"))?,
            remote_cseq: None,
            // Some leave Contact out of 18x: what the INVITE was sent to is the best guess until the 200.
            target: contact_uri(response).unwrap_or_else(|| fallback_target.to_owned()),
            routes,
        })
    }

    /// Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Our tag.
    pub fn local_tag(&self) -> &str {
        tag_of(&self.local).unwrap_or_default()
    }

    /// Their tag; empty if they gave none (RFC 2543 did not have to).
    pub fn remote_tag(&self) -> &str {
        tag_of(&self.remote).unwrap_or_default()
    }

    /// Our address, without parameters: what Referred-By says.
    pub fn local_uri(&self) -> &str {
        address_of(&self.local).unwrap_or_default()
    }

    /// Numbers that were used before this dialog was there: a challenged INVITE's, a PRACK's in its early days.
    pub fn at_least(&mut self, cseq: u32) {
        self.local_cseq = self.local_cseq.max(cseq);
    }

    /// The last number that we used.
    pub fn local_cseq(&self) -> u32 {
        self.local_cseq
    }

    /// A request of theirs arrived. False: it is older than the last one (RFC 3261 section 12.2.2: 500).
    #[must_use]
    pub fn in_order(&mut self, cseq: u32) -> bool {
        let fresh = self.remote_cseq.is_none_or(|last| cseq > last);
        if fresh {
            self.remote_cseq = Some(cseq);
        }
        fresh
    }

    /// A target refresh: the Contact of a re-INVITE or UPDATE, or of the 2xx to ours (section 12.2).
    pub fn refresh_target(&mut self, message: &Headers) {
        if let Some(uri) = contact_uri(message) {
            self.target = uri;
        }
    }

    /// What requests of ours are addressed to. Section 12.2.1.1: a first hop that knows no loose routing gets the Request-URI.
    pub fn request_uri(&self) -> &str {
        match self.routes.first().and_then(|r| address_of(r)) {
            Some(strict) if !is_loose(strict) => strict,
            Some(_) | None => &self.target,
        }
    }

    /// The next request of ours.
    pub fn request(&mut self, method: &str) -> InDialog {
        self.local_cseq = self.local_cseq.saturating_add(1);
        let mut headers = Headers::new()
            .with("From", self.local.clone())
            .with("To", self.remote.clone())
            .with("Call-ID", self.call_id.clone())
            .with("CSeq", format!("{} {method}", self.local_cseq))
            .with("Max-Forwards", MAX_FORWARDS.to_string());
        let first = self.routes.first().and_then(|r| address_of(r));
        let (uri, routes) = match first {
            // Section 12.2.1.1: a first hop that knows no loose routing gets the Request-URI, and the target goes last.
            Some(strict) if !is_loose(strict) => {
                let last = format!("<{}>", self.target);
                (strict.to_owned(), self.routes.iter().skip(1).cloned().chain([last]).collect())
            }
            Some(_) | None => (self.target.clone(), self.routes.clone()),
        };
        for route in &routes {
            headers.push("Route", route.clone());
        }
        let next_hop = first.map_or_else(|| self.target.clone(), str::to_owned);
        InDialog { uri, cseq: self.local_cseq, headers, next_hop }
    }
}

/// The `tag` parameter of a From or To value.
pub fn tag_of(value: &str) -> Option<&str> {
    let after = match value.rsplit_once('>') {
        Some((_, after)) => after,
        None => value.split_once(';').map(|(_, after)| after)?,
    };
    parameter(after, "tag")
}

/// A parameter of `;a=1;b;c="x"`, without regard to the case of its name.
pub fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    parameters.split(';').map(str::trim).find_map(|p| {
        let (key, value) = p.split_once('=').unwrap_or((p, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

/// CSeq's number.
pub fn cseq_number(message: &Headers) -> Option<u32> {
    message.get("CSeq")?.split_ascii_whitespace().next()?.parse().ok()
}

fn contact_uri(message: &Headers) -> Option<String> {
    let first = split_addresses(message.get("Contact")?).into_iter().next()?;
    let uri = address_of(first)?;
    let scheme = uri.split_once(':')?.0;
    let clean = !uri.chars().any(|c| c.is_control() || c.is_whitespace());
    (clean && ["sip", "sips"].iter().any(|s| scheme.eq_ignore_ascii_case(s))).then(|| uri.to_owned())
}

fn routes(message: &Headers) -> Result<Vec<String>, DialogError> {
    let mut found = Vec::new();
    for route in message.all("Record-Route").flat_map(split_addresses) {
        let uri = address_of(route).filter(|u| !u.is_empty()).ok_or(DialogError::Missing("Record-Route's URI"))?;
        if found.len() == ROUTE_LIMIT_PROXIES {
            return Err(DialogError::TooManyRoutes);
        }
        found.push(format!("<{uri}>"));
    }
    Ok(found)
}

fn is_loose(uri: &str) -> bool {
    uri.split('?').next().and_then(|u| u.split_once(';')).is_some_and(|(_, p)| parameter(p, "lr").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invite() -> Headers {
        Headers::new()
            .with("From", "\"A; tag=x\" <sip:ann@a.example>;tag=their")
            .with("To", "<sip:pay@b.example>")
            .with("Call-ID", "c1")
            .with("CSeq", "7 INVITE")
            .with("Contact", "\"Ann\" <sip:ann@192.0.2.1:5070;transport=tcp>;q=1, <sip:other@192.0.2.2>")
            .with("Record-Route", "<sip:p2.example;lr>, <sip:p1.example;lr>")
    }

    fn routes_of(request: &InDialog) -> Vec<&str> {
        request.headers.all("Route").collect()
    }

    #[test]
    fn a_called_side_answers_along_the_recorded_route() {
        let mut d = Dialog::called(&invite(), "ours").unwrap();
        assert_eq!((d.local_tag(), d.remote_tag(), d.call_id()), ("ours", "their", "c1"));
        let bye = d.request("BYE");
        assert_eq!(bye.uri, "sip:ann@192.0.2.1:5070;transport=tcp");
        assert_eq!(routes_of(&bye), ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]);
        assert_eq!(bye.headers.get("CSeq"), Some("1 BYE"));
        assert_eq!(bye.headers.get("From"), Some("<sip:pay@b.example>;tag=ours"));
        assert_eq!(bye.next_hop, "sip:p2.example;lr");
        assert_eq!(d.request("BYE").cseq, 2);
    }

    #[test]
    fn a_calling_side_reverses_it() {
        let response = invite().with("Record-Route", "<sip:p0.example;lr>");
        let mut headers = Headers::new();
        for (n, v) in response.iter() {
            headers.push(n, if n == "To" { "<sip:pay@b.example>;tag=t2" } else { v });
        }
        let mut d = Dialog::calling(&headers, "sip:x@y").unwrap();
        let ack = d.request("PRACK");
        assert_eq!(routes_of(&ack), ["<sip:p0.example;lr>", "<sip:p1.example;lr>", "<sip:p2.example;lr>"]);
        assert_eq!((ack.cseq, d.remote_tag()), (8, "t2"));
        assert_eq!(Dialog::calling(&invite(), "sip:x@y").unwrap_err(), DialogError::Missing("To tag"));
    }

    #[test]
    fn a_strict_router_gets_the_request_uri() {
        let mut headers = Headers::new();
        for (n, v) in invite().iter() {
            headers.push(n, if n == "Record-Route" { "<sip:strict.example>, <sip:p1.example;lr>" } else { v });
        }
        let mut d = Dialog::called(&headers, "o").unwrap();
        let bye = d.request("BYE");
        assert_eq!(bye.uri, "sip:strict.example");
        assert_eq!(routes_of(&bye), ["<sip:p1.example;lr>", "<sip:ann@192.0.2.1:5070;transport=tcp>"]);
        assert_eq!(bye.next_hop, "sip:strict.example");
    }

    #[test]
    fn numbers_only_grow_and_a_new_contact_moves_what_follows() {
        let mut d = Dialog::called(&invite(), "o").unwrap();
        assert!(!d.in_order(7) && !d.in_order(6) && d.in_order(9) && !d.in_order(8));
        d.refresh_target(&Headers::new().with("Contact", "<sip:new@192.0.2.9>"));
        assert_eq!(d.request("BYE").uri, "sip:new@192.0.2.9");
        d.refresh_target(&Headers::new().with("Contact", "*"));
        d.refresh_target(&Headers::new().with("Contact", "<http://x>"));
        d.refresh_target(&Headers::new());
        assert_eq!(d.request("BYE").uri, "sip:new@192.0.2.9");
    }

    #[test]
    fn what_makes_no_dialog_says_why() {
        let without = |name: &str| {
            let mut h = Headers::new();
            invite().iter().filter(|(n, _)| *n != name).for_each(|(n, v)| h.push(n, v));
            h
        };
        assert_eq!(Dialog::called(&without("Contact"), "o").unwrap_err(), DialogError::NoContact);
        assert_eq!(Dialog::called(&without("CSeq"), "o").unwrap_err(), DialogError::Missing("CSeq"));
        let mut many = invite();
        (0..30).for_each(|i| many.push("Record-Route", format!("<sip:p{i};lr>")));
        assert_eq!(Dialog::called(&many, "o").unwrap_err(), DialogError::TooManyRoutes);
    }

    #[test]
    fn tags_are_found_where_they_stand() {
        assert_eq!(tag_of("sip:a@b;tag=1"), Some("1"));
        assert_eq!(tag_of("<sip:a@b;tag=no>;x=1;TAG=2"), Some("2"));
        assert_eq!(tag_of("<sip:a@b;tag=no>"), None);
        assert_eq!(tag_of("sip:a@b"), None);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(from in ".{0,40}", to in ".{0,40}", contact in ".{0,60}", route in ".{0,60}") {
            let h = Headers::new().with("From", from).with("To", to).with("Call-ID", "c").with("CSeq", "1 INVITE")
                .with("Contact", contact).with("Record-Route", route);
            if let Ok(mut d) = Dialog::called(&h, "t") { d.request("BYE"); }
            if let Ok(mut d) = Dialog::calling(&h, "sip:a@b") { d.request("BYE"); }
        }
    }
}
