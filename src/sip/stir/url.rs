//! Where a certificate may be fetched: an HTTPS URL of a host that the configuration allows, at an address that is public. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest URL; also the longest key in the cache.
const URL_LIMIT_BYTES: usize = 512;
/// ATIS-1000074 leaves these two to certificate repositories.
const USUAL_PORTS: [u16; 2] = [443, 8443];

/// An HTTPS URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpsUrl {
    /// Lower case; a name or an IPv4 address.
    pub host: String,
    /// 443 unless it says so.
    pub port: u16,
    /// Path and query, from the `/` on.
    pub path: String,
}

impl HttpsUrl {
    /// `None` for anything that a certificate's URL need not be: another scheme, a user, a fragment, an IPv6 literal, odd
    /// characters.
    pub fn parse(text: &str) -> Option<Self> {
        let scheme = text.get(..8)?;
        let rest = text.get(8..)?;
        let sound = text.len() <= URL_LIMIT_BYTES && text.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"\\^`{|}#@".contains(&b));
        if !scheme.eq_ignore_ascii_case("https://") || !sound {
            return None;
        }
        let slash = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(slash)?;
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|p| *p != 0)?),
            None => (authority, 443),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        is_host(host).then(|| Self { host: host.to_ascii_lowercase(), port, path })
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}{}", self.host, self.port, self.path)
    }
}

fn is_host(host: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// A host of certificates that is trusted to be asked: `certs.example.org` (ports 443 and 8443), `certs.example.org:9443`, or
/// `*.example.org` for all below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowedHost {
    host: String,
    below: bool,
    port: Option<u16>,
}

impl AllowedHost {
    /// Is this URL of it?
    pub fn allows(&self, url: &HttpsUrl) -> bool {
        let host = if self.below {
            url.host.strip_suffix(&self.host).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
        } else {
            url.host == self.host
        };
        host && self.port.map_or_else(|| USUAL_PORTS.contains(&url.port), |port| port == url.port)
    }
}

impl FromStr for AllowedHost {
    type Err = AllowedHostError;
    fn from_str(text: &str) -> Result<Self, AllowedHostError> {
        let wrong = || AllowedHostError { given: text.chars().take(80).collect() };
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let (host, below) = host.strip_prefix("*.").map_or((host, false), |host| (host, true));
        // `*.com` would be everybody.
        if !is_host(host) || (below && !host.contains('.')) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_ascii_lowercase(), below, port })
    }
}

impl TryFrom<String> for AllowedHost {
    type Error = AllowedHostError;
    fn try_from(text: String) -> Result<Self, AllowedHostError> {
        text.parse()
    }
}

impl From<AllowedHost> for String {
    fn from(host: AllowedHost) -> String {
        let port = host.port.map_or_else(String::new, |p| format!(":{p}"));
        format!("{}{}{port}", if host.below { "*." } else { "" }, host.host)
    }
}

/// A text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no host of certificates: write certs.example.org, certs.example.org:9443 or *.example.org")]
pub struct AllowedHostError {
    given: String,
}

/// Whether an address can be a public server's. What a caller names must not lead into our own network.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(a) => is_public_v4(a),
        IpAddr::V6(a) => is_public_v6(a),
    }
}

fn is_public_v4(a: Ipv4Addr) -> bool {
    let [first, second, third, _] = a.octets();
    let reserved = first == 0
        || first >= 240
        || (first == 100 && (64..128).contains(&second)) // shared by carriers, RFC 6598
        || (first == 198 && (18..20).contains(&second)) // benchmarks, RFC 2544
        || (first == 192 && second == 0 && third == 0) // protocols, RFC 6890
        || (first == 192 && second == 88 && third == 99); // 6to4 relays, RFC 7526
    !(reserved || a.is_private() || a.is_loopback() || a.is_link_local() || a.is_multicast() || a.is_documentation())
}

fn is_public_v6(a: Ipv6Addr) -> bool {
    let [first, second, ..] = a.segments();
    let [.., x, y] = a.segments();
    let low = Ipv4Addr::from(u32::from(x) << 16 | u32::from(y));
    match (first, second) {
        // What leads on to IPv4 is as public as that (RFC 6052, RFC 3056).
        (0x64, 0xff9b) if matches!(a.segments(), [_, _, 0, 0, 0, 0, _, _]) => is_public_v4(low),
        (0x2002, high) => {
            let [_, _, third, ..] = a.segments();
            is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(third)))
        }
        (0x2001, 0x0db8 | 0) => false, // documentation, Teredo
        // Global unicast as far as it is given out (RFC 4291 section 2.4).
        _ => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_are_https_and_plain() {
        let url = HttpsUrl::parse("HTTPS://Certs.Example.org/a/b.pem?x=1").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("certs.example.org", 443, "/a/b.pem?x=1"));
        assert_eq!(HttpsUrl::parse("https://a.example:8443").unwrap().to_string(), "https://a.example:8443/");
        assert_eq!(HttpsUrl::parse("https://a?b").unwrap().path, "/?b");
        let long = format!("https://a/{}", "x".repeat(600));
        for bad in [
            "http://a/b",
            "https:/a/b",
            "https://",
            "https:///a",
            "https://u@a/",
            "https://a:0/",
            "https://a:x/",
            "https://a/#f",
            "https://a/ b",
            "https://[::1]/",
            "https://a..b/",
            "https://-a/",
            "https://a/\r\nHost:b",
            "https://\u{e9}/",
            "ftp://a",
            &long,
        ] {
            assert_eq!(HttpsUrl::parse(bad), None, "{bad:.60}");
        }
    }

    #[test]
    fn hosts_are_allowed_by_name_port_and_suffix() {
        let allows = |host: &str, url: &str| host.parse::<AllowedHost>().unwrap().allows(&HttpsUrl::parse(url).unwrap());
        assert!(
            allows("certs.example.org", "https://CERTS.example.org/x")
                && allows("certs.example.org", "https://certs.example.org:8443/")
        );
        assert!(
            !allows("certs.example.org", "https://certs.example.org:9443/")
                && !allows("certs.example.org", "https://example.org/")
        );
        assert!(!allows("certs.example.org", "https://certs.example.org.evil.test/"));
        assert!(allows("certs.example.org:9443", "https://certs.example.org:9443/") && !allows("a.test:9443", "https://a.test/"));
        assert!(allows("*.example.org", "https://a.b.example.org/") && !allows("*.example.org", "https://example.org/"));
        assert!(!allows("*.example.org", "https://evilexample.org/"));
        for bad in ["", "*", "*.com", "a b", "https://a", "a:0", "a:99999", "a/b"] {
            let error = bad.parse::<AllowedHost>().unwrap_err().to_string();
            assert!(error.contains("certs.example.org"), "{error}");
        }
        assert_eq!(String::from("*.Example.org:1".parse::<AllowedHost>().unwrap()), "*.example.org:1");
    }

    #[test]
    fn addresses_of_our_own_network_are_not_public() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:a00:1::1",
            "::127.0.0.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "203.0.114.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}", host in "[a-z.:*-]{0,30}") {
            let _parsed = (HttpsUrl::parse(&text), HttpsUrl::parse(&format!("https://{host}")), host.parse::<AllowedHost>());
        }
    }
}
