//! `[[sip.trunk]]`: who sends us calls, whom we send them to, and on what terms.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::target::Target;
use crate::sip::config::{Network, SipConfig};
use crate::sip::signalling::Transport;

/// Trunks of a configuration.
const TRUNK_LIMIT: usize = 64;
/// Networks of a trunk.
const HOST_LIMIT: usize = 64;
/// Accounts that a trunk's callers may use.
const ACCOUNT_LIMIT: usize = 64;
/// Characters of a trunk's name, which becomes a label in metrics and records.
const NAME_LIMIT_CHARS: usize = 32;
/// What a registration may ask for, in seconds.
const REGISTER_EXPIRES_S: std::ops::RangeInclusive<u32> = 60..=86_400;

/// One trunk: a carrier, a PBX, a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrunkConfig {
    /// What it is called in records, metrics and `voicepay trunk`: letters, digits, `-`, `_`.
    pub name: String,
    /// Where its calls come from: addresses and networks. Several trunks may lie within each other: the narrowest network
    /// that takes the call's transport decides. A registering trunk's calls may also come from its registrar.
    pub hosts: Vec<Network>,
    /// `tls`: it calls us and is called over TLS only. `udp`, `tcp`: it is called over that one, and may call over any
    /// (a message too long for a datagram goes over TCP, RFC 3261 section 18.1.1); only for private lines.
    pub transport: Transport,
    /// The way to these hosts is ours alone (own cable, VPN, same machine): SIP and RTP may go in plain text. Hosts within
    /// `sip.private_networks` count as private without this.
    pub private: bool,
    /// SRTP: `required`, `offered` (taken where the other side has it) or `off`. Unset: `required` where the line is not
    /// private, and nothing else is allowed there; `offered` where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srtp: Option<SrtpPolicy>,
    /// Its P-Asserted-Identity is believed (RFC 3325).
    pub trusted: bool,
    /// Where calls to it go: `HOST`, `HOST:PORT` or an address. A name without a port is looked up by SRV, then by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The domain of our own address there (From, REGISTER). Unset: the host of `register.registrar` or `target`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Our name when it asks for a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A file that holds our password, its first line; for its owner only. Not absolute: in `service.data_dir`. The
    /// environment variable `VOICEPAY_TRUNK_<NAME>_PASSWORD` (`-` written as `_`, all in capitals) comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Tell its registrar where we are. Unset: it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub register: Option<RegisterConfig>,
    /// Who may call through it; each INVITE is then asked for a password (RFC 7616). None: the network is enough.
    pub inbound_auth: Vec<AccountConfig>,
    /// Its calls at a time; 0: as many as `sip.max_calls`.
    pub max_calls: usize,
    /// Its new calls a second; 0: as many as `sip.max_calls_per_s`.
    pub max_calls_per_s: u32,
    /// The address that it is told (Contact, SDP), where it isn't `sip.public_address`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_address: Option<IpAddr>,
    /// How often its targets are asked whether they are there (OPTIONS), in seconds; 0: never. Needs `target`.
    pub options_ping_s: u32,
}

impl Default for TrunkConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            hosts: Vec::new(),
            transport: Transport::Tls,
            private: false,
            srtp: None,
            trusted: false,
            target: None,
            domain: None,
            username: None,
            password_file: None,
            register: None,
            inbound_auth: Vec::new(),
            max_calls: 0,
            max_calls_per_s: 0,
            public_address: None,
            options_ping_s: 30,
        }
    }
}

/// How we register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegisterConfig {
    /// `HOST` or `HOST:PORT`, as in `target`. Unset: the `target`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registrar: Option<String>,
    /// How long a registration is asked to hold, in seconds; the registrar may shorten it.
    pub expires_s: u32,
}

impl Default for RegisterConfig {
    fn default() -> Self {
        Self { registrar: None, expires_s: 600 }
    }
}

/// Somebody who may call through a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    /// The name in Authorization.
    pub username: String,
    /// A file that holds the password, its first line; for its owner only. Not absolute: in `service.data_dir`.
    pub password_file: PathBuf,
}

pub use crate::media::config::SrtpPolicy;

/// What becomes of callers who are on no trunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownPeers {
    /// 403.
    Refuse,
    /// Those within `sip.private_networks` may call; 403 for the rest.
    #[default]
    AllowPrivate,
}

/// What is wrong with the trunks, by key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key `{key}`: {what}")]
pub struct TrunkConfigError {
    /// As in `sip.trunk[1].hosts`; trunks are counted from 0.
    pub key: String,
    /// What is wrong and what to do.
    pub what: String,
}

impl TrunkConfig {
    /// The address's user part and domain by which it knows us, if it needs to: `user@domain`.
    pub fn address_of_record(&self) -> Option<(&str, String)> {
        let user = self.username.as_deref()?;
        let registrar = self.register.as_ref().and_then(|r| r.registrar.as_deref());
        let host = || registrar.or(self.target.as_deref()).and_then(|t| Target::parse(t).ok()).map(|t| t.host_text());
        Some((user, self.domain.clone().or_else(host)?))
    }

    /// Where REGISTER goes, as text; `None` if we don't register.
    pub fn registrar(&self) -> Option<&str> {
        let register = self.register.as_ref()?;
        register.registrar.as_deref().or(self.target.as_deref())
    }

    /// May SIP and RTP go in plain text to and from this address?
    pub fn is_private(&self, sip: &SipConfig, peer: IpAddr) -> bool {
        self.private || sip.is_private(peer)
    }

    /// May its calls come over this transport?
    pub fn takes(&self, transport: Transport) -> bool {
        match self.transport {
            Transport::Tls => transport == Transport::Tls,
            Transport::Udp | Transport::Tcp => true,
        }
    }

    /// Is it one of those that mean TLS when it is used, or one of those that don't?
    pub fn is_meant_for(&self, transport: Transport) -> bool {
        self.transport.is_secure() == transport.is_secure()
    }
}

/// Everything that the types can't say; the first mistake is named.
pub fn check(sip: &SipConfig) -> Result<(), TrunkConfigError> {
    let trunks = &sip.trunks;
    if trunks.len() > TRUNK_LIMIT {
        return Err(wrong("sip.trunk", &format!("{} trunks are more than {TRUNK_LIMIT}", trunks.len())));
    }
    for (i, trunk) in trunks.iter().enumerate() {
        let earlier = trunks.get(..i).unwrap_or_default();
        check_one(sip, trunk, earlier).map_err(|(key, what)| TrunkConfigError {
            key: format!("sip.trunk[{i}]{}{key}", if key.is_empty() { "" } else { "." }),
            what,
        })?;
    }
    Ok(())
}

fn wrong(key: &str, what: &str) -> TrunkConfigError {
    TrunkConfigError { key: key.to_owned(), what: what.to_owned() }
}

type Rule = Result<(), (&'static str, String)>;

fn rule(holds: bool, key: &'static str, what: impl FnOnce() -> String) -> Rule {
    if holds { Ok(()) } else { Err((key, what())) }
}

fn check_one(sip: &SipConfig, t: &TrunkConfig, earlier: &[TrunkConfig]) -> Rule {
    let well_named = !t.name.is_empty()
        && t.name.len() <= NAME_LIMIT_CHARS
        && t.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    rule(well_named, "name", || format!("`{}` must be 1 to {NAME_LIMIT_CHARS} letters, digits, `-` or `_`", t.name))?;
    rule(!earlier.iter().any(|e| e.name.eq_ignore_ascii_case(&t.name)), "name", || format!("`{}` is used twice", t.name))?;
    rule(t.hosts.len() <= HOST_LIMIT, "hosts", || format!("more than {HOST_LIMIT}: write networks instead of addresses"))?;
    let useful = !t.hosts.is_empty() || t.target.is_some() || t.register.is_some();
    rule(useful, "hosts", || {
        "nobody could call through this trunk or be called: set `hosts`, `target` or `register`".to_owned()
    })?;
    for host in &t.hosts {
        let taken = earlier.iter().find(|e| e.hosts.contains(host) && e.is_meant_for(t.transport));
        rule(taken.is_none(), "hosts", || {
            format!("{host} is already on trunk `{}`: one network, one trunk", taken.map_or("", |e| &e.name))
        })?;
    }
    let all_private = t.private || t.hosts.iter().all(|h| sip.private_networks.iter().any(|p| p.covers(h)));
    // A target's address is known only when it is resolved; `private_networks` are looked at again then.
    rule(t.transport.is_secure() || (all_private && (t.private || !t.hosts.is_empty())), "transport", || {
        format!(
            "\"{}\" is plain text, and card numbers are spoken on this line: use \"tls\", or set `private = true` if the way to \
             these hosts is yours alone",
            t.transport.token().to_ascii_lowercase()
        )
    })?;
    rule(all_private || matches!(t.srtp, None | Some(SrtpPolicy::Required)), "srtp", || {
        "must be \"required\" (or unset) on a trunk that is not private".to_owned()
    })?;
    for (key, text) in [("target", &t.target), ("register.registrar", &t.register.as_ref().and_then(|r| r.registrar.clone()))] {
        if let Some(text) = text {
            Target::parse(text).map_err(|why| (key, why.to_string()))?;
        }
    }
    rule(t.username.is_some() || t.password_file.is_none(), "username", || "a password needs its name".to_owned())?;
    if let Some(username) = &t.username {
        rule(plain(username), "username", || "must be printable and hold no quotes, blanks, `:` or `@`".to_owned())?;
    }
    if let Some(domain) = &t.domain {
        rule(Target::parse(domain).is_ok_and(|d| d.port.is_none()), "domain", || format!("`{domain}` is no host name"))?;
    }
    if let Some(register) = &t.register {
        rule(t.username.is_some(), "register", || "needs `username`: the address that is registered".to_owned())?;
        rule(t.registrar().is_some(), "register.registrar", || "unset, and there is no `target` to register with".to_owned())?;
        rule(REGISTER_EXPIRES_S.contains(&register.expires_s), "register.expires_s", || {
            format!("must be {} to {}", REGISTER_EXPIRES_S.start(), REGISTER_EXPIRES_S.end())
        })?;
    }
    rule(t.inbound_auth.len() <= ACCOUNT_LIMIT, "inbound_auth", || format!("more than {ACCOUNT_LIMIT} accounts"))?;
    for (i, account) in t.inbound_auth.iter().enumerate() {
        rule(plain(&account.username), "inbound_auth", || format!("account {i}: its username is empty or holds what it can't"))?;
        let twice = t.inbound_auth.iter().take(i).any(|a| a.username == account.username);
        rule(!twice, "inbound_auth", || format!("`{}` is there twice", account.username))?;
    }
    rule(t.options_ping_s == 0 || t.options_ping_s >= 5, "options_ping_s", || "must be at least 5, or 0 for never".to_owned())
}

fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\:@<>;".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sip(text: &str) -> SipConfig {
        toml::from_str(text).unwrap()
    }

    fn mistake(text: &str) -> String {
        check(&sip(text)).unwrap_err().to_string()
    }

    #[test]
    fn a_trunk_as_operators_write_it() {
        let config = sip(r#"
            [[trunk]]
            name = "carrier"
            hosts = ["192.0.2.0/28", "2001:db8::/64"]
            target = "sip.carrier.example"
            username = "441610000000"
            password_file = "carrier.secret"
            register = { expires_s = 300 }
            [[trunk]]
            name = "pbx"
            hosts = ["10.0.0.5"]
            transport = "udp"
            private = true
            trusted = true
            srtp = "offered"
            inbound_auth = [{ username = "desk", password_file = "desk.secret" }]
        "#);
        check(&config).unwrap();
        let carrier = &config.trunks[0];
        assert_eq!(carrier.transport, Transport::Tls);
        assert_eq!(carrier.address_of_record(), Some(("441610000000", "sip.carrier.example".to_owned())));
        assert!(carrier.takes(Transport::Tls) && !carrier.takes(Transport::Udp));
        assert!(config.trunks[1].takes(Transport::Tcp) && config.trunks[1].takes(Transport::Tls));
        let again: SipConfig = toml::from_str(&toml::to_string_pretty(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn mistakes_name_their_key() {
        let one = "[[trunk]]\nname = \"a\"\nhosts = [\"192.0.2.1\"]\n";
        for (text, key, word) in [
            ("[[trunk]]\nhosts = [\"192.0.2.1\"]".to_owned(), "sip.trunk[0].name", "letters"),
            (format!("{one}[[trunk]]\nname = \"A\"\nhosts = [\"192.0.2.2\"]"), "sip.trunk[1].name", "twice"),
            (format!("{one}[[trunk]]\nname = \"b\"\nhosts = [\"192.0.2.1/32\"]"), "sip.trunk[1].hosts", "already on trunk `a`"),
            ("[[trunk]]\nname = \"a\"".to_owned(), "sip.trunk[0].hosts", "nobody"),
            (format!("{one}transport = \"udp\""), "sip.trunk[0].transport", "plain text"),
            (format!("{one}srtp = \"off\""), "sip.trunk[0].srtp", "required"),
            (format!("{one}target = \"a b\""), "sip.trunk[0].target", "a b"),
            (format!("{one}password_file = \"x\""), "sip.trunk[0].username", "name"),
            (format!("{one}[trunk.register]"), "sip.trunk[0].register", "username"),
            (format!("{one}username = \"u\"\n[trunk.register]"), "sip.trunk[0].register.registrar", "target"),
            (
                format!("{one}username = \"u\"\ntarget = \"h\"\n[trunk.register]\nexpires_s = 1"),
                "sip.trunk[0].register.expires_s",
                "60",
            ),
            (format!("{one}options_ping_s = 1"), "sip.trunk[0].options_ping_s", "5"),
            (format!("{one}domain = \"a:1\""), "sip.trunk[0].domain", "host"),
        ] {
            let error = mistake(&text);
            assert!(error.contains(&format!("`{key}`")) && error.contains(word), "{text}\n{error}");
        }
        // Within each other is fine, and so is the same network over another transport.
        let nested = format!("{one}[[trunk]]\nname = \"b\"\nhosts = [\"192.0.2.0/24\"]");
        check(&sip(&nested)).unwrap();
        check(&sip(&format!("{one}[[trunk]]\nname = \"b\"\nhosts = [\"192.0.2.1\"]\nprivate = true\ntransport = \"udp\"")))
            .unwrap();
        check(&sip("[[trunk]]\nname = \"a\"\nhosts = [\"127.0.0.1\"]\ntransport = \"udp\"\nsrtp = \"off\"")).unwrap();
        let unknown = toml::from_str::<SipConfig>("[[trunk]]\nnames = \"a\"").unwrap_err().to_string();
        assert!(unknown.contains("names"), "{unknown}");
    }
}
