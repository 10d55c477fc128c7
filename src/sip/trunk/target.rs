//! PURE: where a trunk is called, as the configuration writes it: `HOST`, `HOST:PORT`, an address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The longest host name (RFC 1035 section 2.3.4).
const HOST_LIMIT_BYTES: usize = 253;

/// A host and perhaps a port. Without a port, a name is looked up by SRV first (RFC 3263 section 4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// A name or an address.
    pub host: Host,
    /// As written.
    pub port: Option<u16>,
}

/// A name or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// In lower case, without a final dot.
    Name(String),
    /// IPv4 or IPv6.
    Address(IpAddr),
}

/// A text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no host such as sip.example.org, sip.example.org:5061, 192.0.2.1 or [2001:db8::1]:5060")]
pub struct TargetError {
    given: String,
}

impl Target {
    /// Takes the text apart.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError { given: text.chars().take(80).collect() };
        let text = text.trim();
        if let Ok(bare) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: Host::Address(bare.into()), port: None });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or_else(wrong)?;
                let address = host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(wrong)?) };
                (Host::Address(address.into()), port)
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p)));
                (host_of(host).ok_or_else(wrong)?, port)
            }
        };
        let port = match port {
            None => None,
            Some(p) => Some(p.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(wrong)?),
        };
        Ok(Self { host, port })
    }

    /// The host as a URI writes it: an IPv6 address in brackets.
    pub fn host_text(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(IpAddr::V4(address)) => address.to_string(),
        }
    }
}

fn host_of(text: &str) -> Option<Host> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Host::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // A last label of digits is an address that was mistyped (RFC 3696 section 2).
    let last_is_number = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    let named = name.len() <= HOST_LIMIT_BYTES && name.split('.').all(label) && !last_is_number;
    named.then(|| Host::Name(name.to_ascii_lowercase()))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host_text())?;
        self.port.map_or(Ok(()), |p| write!(f, ":{p}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets_are_taken_apart_and_put_together() {
        for (text, again) in [
            ("sip.Example.org", "sip.example.org"),
            ("example.org.", "example.org"),
            ("localhost:5061", "localhost:5061"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:5070", "192.0.2.1:5070"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]:5061", "[2001:db8::1]:5061"),
            ("a_b-c.example", "a_b-c.example"),
        ] {
            assert_eq!(Target::parse(text).unwrap().to_string(), again);
        }
        for bad in ["", "a b", "sip:a", "a:0", "a:65536", "[::1", "[::1]x", "192.0.2", "-a.org", "a..b", "a/b", "a@b", "[a]"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.to_string()).unwrap(), target);
            }
        }
    }
}
