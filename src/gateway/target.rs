//! Whom a URL names, and whether it may be spoken to in plain HTTP.

use std::net::IpAddr;

use hyper::Uri;

/// Where an acquirer is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// A name or an address, without brackets.
    pub host: String,
    /// Which port.
    pub port: u16,
    /// As the header `Host` has it.
    pub authority: String,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Path and query; `/` where the URL has none.
    pub path: String,
}

impl Target {
    /// Plain http is only taken for this machine itself. The error is what is wrong with the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{url}` {what}");
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let authority = uri.authority().ok_or_else(|| wrong("must begin with https:// and name a host"))?;
        if authority.as_str().contains('@') {
            return Err("must not hold a name or password".into()); // which stays out of logs
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if here => false,
            Some("http") => return Err(wrong("is not on this machine: secrets only go to others over https")),
            _ => return Err(wrong("must begin with https://")),
        };
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        Ok(Self { host, port, authority: authority.as_str().to_owned(), tls, path })
    }
}
