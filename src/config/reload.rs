//! What a changed configuration can change in a running process. PURE.
//!
//! A key is *live* when calls that begin after the reload go by its new value (those that are up go on with what they started with), and
//! needs a *restart* when something made at the start stands on it: a socket, a thread, a model, a file. Which is which stands
//! in [`RULES`]; a test holds the list to every key there is, so that none is forgotten. A key that is not there needs a restart.

use toml::{Table, Value};

use super::{Config, ConfigError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Effect,
    Restart,
}

/// Keys, or whole sections (`dialogue.*`) whose values are handed on together so that a new key of theirs goes the same way.
const RULES: &[(&str, Takes)] = &[
    ("service.data_dir", Takes::Restart),
    ("service.drain_s", Takes::Effect),
    ("service.log", Takes::Effect),
    ("identity.*", Takes::Effect),
    ("sip.listen", Takes::Restart),
    ("sip.tcp", Takes::Restart),
    ("sip.tls.listen", Takes::Restart),
    ("sip.tls.certificate", Takes::Effect), // read anew at each reload, changed or not
    ("sip.tls.private_key", Takes::Effect),
    ("sip.tls.client_ca", Takes::Effect),
    ("sip.tls.server_ca", Takes::Effect),
    ("sip.overload_limit_per_s", Takes::Restart),
    ("sip.trace_file", Takes::Restart),     // a thread of the wire writes it
    ("sip.public_address", Takes::Restart), // the stack writes it into Via
    ("sip.trusted_peers", Takes::Effect),
    ("sip.private_networks", Takes::Effect),
    ("sip.unknown_peers", Takes::Effect),
    ("sip.max_calls", Takes::Restart), // queues are made for so many
    ("sip.max_calls_per_s", Takes::Effect),
    ("sip.max_calls_per_caller", Takes::Effect),
    ("sip.max_calls_per_called", Takes::Effect),
    ("sip.busy_retry_after_s", Takes::Effect),
    ("sip.user_agent", Takes::Restart),
    ("sip.ring_ms", Takes::Effect),
    ("sip.t1_ms", Takes::Restart),
    ("sip.session_expires_s", Takes::Restart),
    ("sip.min_session_expires_s", Takes::Restart),
    ("sip.realm", Takes::Effect),
    ("sip.dns_servers", Takes::Restart),
    ("sip.trunk", Takes::Effect),
    ("sip.stir.*", Takes::Effect),
    ("media.*", Takes::Effect), // each call binds its own port and makes its own buffers
    ("dialogue.*", Takes::Effect),
    ("challenge.*", Takes::Effect),
    ("speech.mandarin", Takes::Restart),
    ("speech.vad.neural", Takes::Restart),
    ("speech.vad.open_db", Takes::Effect),
    ("speech.vad.close_db", Takes::Effect),
    ("speech.vad.min_level_dbfs", Takes::Effect),
    ("speech.vad.hangover_ms", Takes::Effect),
    ("speech.card.*", Takes::Effect),
    ("speech.answer.*", Takes::Effect),
    ("speech.digits.*", Takes::Effect),
    ("speech.pickup.*", Takes::Effect),
    ("voice.*", Takes::Effect),
    ("number.*", Takes::Restart),
    ("decision.calibration", Takes::Restart), // the number engine is calibrated when it is loaded
    ("decision.voice_accept_far", Takes::Effect),
    ("decision.voice_unsure_far", Takes::Effect),
    ("decision.number_accept_far", Takes::Effect),
    ("decision.number_unsure_far", Takes::Effect),
    ("decision.phrase_accept_far", Takes::Effect),
    ("decision.challenge_when", Takes::Effect),
    ("decision.challenge_from_minor", Takes::Effect),
    ("decision.challenge_failed_attestation", Takes::Effect),
    ("decision.challenge_voice_far", Takes::Effect),
    ("decision.challenge_pooling", Takes::Effect),
    ("decision.tighten.*", Takes::Effect),
    ("refresh.*", Takes::Effect),
    ("inference.*", Takes::Restart), // a second pool beside the first would overload the machine
    ("reuse.*", Takes::Effect),
    ("callbacks.*", Takes::Effect),
    ("store.*", Takes::Restart),
    ("vault.*", Takes::Restart),
    ("gateway.*", Takes::Restart),
    ("processor.*", Takes::Restart),
    ("agreement.policy", Takes::Effect), // read anew at each reload, changed or not
    ("agreement.approval_valid_s", Takes::Restart),
    ("agreement.sweep_ms", Takes::Restart),
    ("agreement.confirmation_valid_min", Takes::Restart),
    ("agreement.purchase_limits.*", Takes::Restart),
    ("notify.*", Takes::Restart),
    ("retention.*", Takes::Restart),
    ("audit.*", Takes::Restart),
    ("ops.listen", Takes::Restart),
    ("ops.cdr_dir", Takes::Restart),
    ("ops.cdr_numbers", Takes::Effect),
    ("ops.otlp_endpoint", Takes::Restart),
    ("ops.recording.*", Takes::Restart),
    ("api.*", Takes::Restart),
    ("app.*", Takes::Restart),
    ("webrtc.*", Takes::Restart),
];

/// Keys that differ, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that new calls go by.
    pub live: Vec<String>,
    /// Those that wait for a restart.
    pub restart: Vec<String>,
}

impl Changes {
    /// In a sentence.
    pub fn summary(&self) -> String {
        let list = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        match self.restart.is_empty() {
            true => format!("in force for new calls: {}", list(&self.live)),
            false => format!("in force for new calls: {}; needs a restart: {}", list(&self.live), list(&self.restart)),
        }
    }
}

impl Config {
    /// What differs from `self`, which is in force, in `new`; and what is in force once the live part of it is: `new`, with the old
    /// values of what needs a restart.
    pub fn reloaded(&self, new: &Self) -> Result<(Changes, Self), ConfigError> {
        let table = |config: &Self| Table::try_from(config).map_err(|e| ConfigError::Unprintable(e.to_string()));
        let (old, mut merged) = (table(self)?, table(new)?);
        let mut changes = Changes::default();
        let mut keys: Vec<String> = keys_of(&old).into_iter().chain(keys_of(&merged)).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let (before, after) = (value_at(&old, &key), value_at(&merged, &key));
            if before == after {
                continue;
            }
            match rule_for(&key) {
                Some(Takes::Effect) => changes.live.push(key),
                Some(Takes::Restart) | None => {
                    set(&mut merged, &key, before.cloned());
                    changes.restart.push(key);
                }
            }
        }
        let merged: Self = merged.try_into().map_err(|e: toml::de::Error| ConfigError::Unprintable(e.to_string()))?;
        super::rules::check(&merged)?; // the halves of two configurations need not fit together
        Ok((changes, merged))
    }
}

fn rule_for(key: &str) -> Option<Takes> {
    let applies = |rule: &str| match rule.strip_suffix('*') {
        Some(section) => key.starts_with(section),
        None => key == rule,
    };
    RULES.iter().find(|(rule, _)| applies(rule)).map(|(_, takes)| *takes)
}

/// Every key, with its sections; a list of tables (`sip.trunk`) is one value.
fn keys_of(table: &Table) -> Vec<String> {
    fn walk(table: &Table, before: &str, out: &mut Vec<String>) {
        for (name, value) in table {
            match value {
                Value::Table(inner) => walk(inner, &format!("{before}{name}."), out),
                _ => out.push(format!("{before}{name}")),
            }
        }
    }
    let mut out = Vec::new();
    walk(table, "", &mut out);
    out
}

fn value_at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, rest)) => value_at(table.get(section)?.as_table()?, rest),
        None => table.get(key),
    }
}

fn set(table: &mut Table, key: &str, value: Option<Value>) {
    match key.split_once('.') {
        Some((section, rest)) => {
            if let Value::Table(inner) = table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
                set(inner, rest, value);
            }
        }
        None => match value {
            Some(value) => drop(table.insert(key.to_owned(), value)),
            None => drop(table.remove(key)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DEFAULT_TOML;

    /// Every key that a configuration can have: those with a default, and those that the defaults file shows as not set.
    fn every_key() -> Vec<String> {
        let mut keys = keys_of(&Table::try_from(Config::default()).unwrap());
        let mut section = String::new();
        for line in DEFAULT_TOML.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name.to_owned();
            }
            if let Some((key, rest)) = line.strip_prefix("# ").and_then(|l| l.split_once(" = "))
                && rest.contains("(not set)")
            {
                keys.push(format!("{section}.{key}"));
            }
        }
        keys.push("sip.trunk".to_owned());
        keys
    }

    #[test]
    fn every_key_is_live_or_needs_a_restart() {
        let keys = every_key();
        let forgotten: Vec<_> = keys.iter().filter(|k| rule_for(k).is_none()).collect();
        assert!(forgotten.is_empty(), "say in RULES whether these can change while calls are up: {forgotten:?}");
        for (n, (rule, _)) in RULES.iter().enumerate() {
            let section = rule.strip_suffix('*');
            let names = |key: &str| section.map_or(key == *rule, |section| key.starts_with(section));
            assert!(keys.iter().any(|k| names(k)), "no such key: {rule}");
            assert!(!RULES.iter().skip(n + 1).any(|(other, _)| names(other)), "{rule} hides another rule");
        }
    }

    #[test]
    fn each_key_that_changes_is_named_and_restart_keys_keep_their_value() {
        let old = Config::default();
        let table = Table::try_from(&old).unwrap();
        let (mut live, mut restart) = (0, 0);
        for key in keys_of(&table) {
            let mut changed = table.clone();
            let other = match value_at(&table, &key).unwrap() {
                Value::Integer(n) => Value::Integer(n + 2),
                Value::Float(f) => Value::Float(f + f * 0.001 + 1e-4),
                Value::Boolean(b) => Value::Boolean(!b),
                Value::String(s) => Value::String(format!("{s}x")),
                Value::Array(_) | Value::Datetime(_) | Value::Table(_) => continue,
            };
            set(&mut changed, &key, Some(other));
            // Some values have rules of their own; what is no configuration is refused before it comes here.
            let Ok(new) = changed.try_into::<Config>() else { continue };
            let Ok((changes, merged)) = old.reloaded(&new) else { continue };
            match rule_for(&key) {
                Some(Takes::Effect) => {
                    live += 1;
                    assert_eq!(changes, Changes { live: vec![key], restart: vec![] });
                    assert_eq!(merged, new);
                }
                _ => {
                    restart += 1;
                    assert_eq!(changes, Changes { live: vec![], restart: vec![key] });
                    assert_eq!(merged, old);
                }
            }
        }
        assert!(live > 60 && restart > 15, "{live} live and {restart} restart keys were tried");
    }

    #[test]
    fn keys_that_come_and_go_count_too_and_a_second_reload_names_them_again() {
        let old = Config::default();
        let new: Config = toml::from_str(
            "[ops]\nlisten = \"127.0.0.1:9464\"\n[sip]\nmax_calls = 7\nring_ms = 5\n[[sip.trunk]]\nname = \"pbx\"\nhosts = [\"10.0.0.1\"]\nprivate = true\ntransport = \"udp\"\n",
        )
        .unwrap();
        let (changes, merged) = old.reloaded(&new).unwrap();
        assert_eq!(changes.live, ["sip.ring_ms", "sip.trunk"]);
        assert_eq!(changes.restart, ["ops.listen", "sip.max_calls"]);
        assert_eq!((merged.ops.listen, merged.sip.ring_ms, merged.sip.trunks.len()), (None, 5, 1));
        assert!(changes.summary().ends_with("needs a restart: ops.listen, sip.max_calls"), "{}", changes.summary());
        let (again, _) = merged.reloaded(&new).unwrap();
        assert_eq!((again.live.len(), again.restart), (0, changes.restart));
        let (back, same) = merged.reloaded(&old).unwrap();
        assert_eq!(back.live, ["sip.ring_ms", "sip.trunk"]);
        assert_eq!(same, old);
    }
}
