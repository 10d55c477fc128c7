//! Reading the layers, and saying where a mistake is.

use std::path::{Path, PathBuf};

use super::Config;

/// The defaults file: documents every key; a test holds it to what the code does.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// What environment variables that set a key start with; parts are joined by `__`.
const ENV_PREFIX: &str = "VOICEPAY__";

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("configuration file {} can't be read: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: std::io::Error,
    },
    /// The file is no TOML, or a key or value is wrong.
    #[error("{}, line {line}: {what} (`{text}`)", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// The line itself: it carries the key.
        text: String,
        /// What is wrong.
        what: String,
    },
    /// An environment variable names no key, or its value doesn't fit.
    #[error("environment variable {name} (key `{key}`): {what}")]
    Environment {
        /// The variable.
        name: String,
        /// The key that it sets.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// The same, as a room says it.
    #[error("key `{section}.{key}`: {what}")]
    RoomRule {
        /// Which section.
        section: &'static str,
        /// Which key of it.
        key: &'static str,
        /// What is wrong and what to do.
        what: &'static str,
    },
    /// The media section can't work.
    #[error(transparent)]
    Media(crate::media::config::MediaConfigError),
    /// Can't be written as TOML.
    #[error("the configuration can't be printed: {0}")]
    Unprintable(String),
    /// A value that parses but can't work.
    #[error("key `{key}`: {what}")]
    Rule {
        /// Which key.
        key: String,
        /// What is wrong and what to do.
        what: String,
    },
}

pub(super) fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let beside = Path::new("voicepay.toml");
    let file = path.or_else(|| beside.exists().then_some(beside));
    let mut table = match file {
        Some(path) => read(path)?,
        None => toml::Table::new(),
    };
    let mut overrides: Vec<_> = env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    overrides.sort(); // the same environment, the same first error
    for (name, value) in overrides {
        let keys: Vec<String> = name.trim_start_matches(ENV_PREFIX).split("__").map(str::to_lowercase).collect();
        let wrong = |what: String| ConfigError::Environment { name: name.clone(), key: keys.join("."), what };
        set(&mut table, &keys, scalar(&value)).map_err(wrong)?;
        // Checked one by one, so that the variable at fault is the one that is named.
        if let Err(as_typed) = table.clone().try_into::<Config>() {
            // `44` may be meant as text: try that before complaining.
            set(&mut table, &keys, toml::Value::String(value)).map_err(wrong)?;
            table.clone().try_into::<Config>().map_err(|_| wrong(first_line(as_typed.message())))?;
        }
    }
    let config: Config = table.try_into().map_err(|e| ConfigError::Unprintable(e.to_string()))?;
    super::rules::check(&config)?;
    Ok(config.in_data_dir())
}

/// Reads and checks one file by itself, while its line numbers are still known.
fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|why| ConfigError::Unreadable { path: path.to_owned(), why })?;
    let locate = |e: &toml::de::Error| {
        let start = e.span().map_or(0, |s| s.start.min(text.len()));
        let before = text.get(..start).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        ConfigError::Wrong {
            path: path.to_owned(),
            line,
            text: text.lines().nth(line - 1).unwrap_or("").trim().to_owned(),
            what: first_line(e.message()),
        }
    };
    toml::from_str::<Config>(&text).map_err(|e| locate(&e))?;
    toml::from_str::<toml::Table>(&text).map_err(|e| locate(&e))
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or("not valid").to_owned()
}

/// An environment value as TOML reads it, else as text.
fn scalar(text: &str) -> toml::Value {
    toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn set(table: &mut toml::Table, keys: &[String], value: toml::Value) -> Result<(), String> {
    match keys {
        [] => Err("names no key".to_owned()),
        [last] => {
            table.insert(last.clone(), value);
            Ok(())
        }
        [first, rest @ ..] => match table.entry(first.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new())) {
            toml::Value::Table(inner) => set(inner, rest, value),
            _ => Err(format!("`{first}` is a value, not a section")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(Some(file.path()), env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_file_says_what_the_code_does_and_every_key_of_it() {
        let from_file: toml::Table = toml::from_str(DEFAULT_TOML).unwrap();
        let in_code = toml::Table::try_from(Config::default()).unwrap();
        assert_eq!(toml::from_str::<Config>(DEFAULT_TOML).unwrap(), Config::default());
        for (section, keys) in &in_code {
            for key in keys.as_table().unwrap().keys() {
                assert!(from_file.get(section).and_then(|s| s.get(key)).is_some(), "default.toml lacks {section}.{key}");
            }
        }
    }

    #[test]
    fn a_wrong_key_names_itself_and_its_line() {
        let error = from("[sip]\nmax_calls = 3\nmax_cals = 4\n", &[]).unwrap_err();
        assert!(error.contains("line 3") && error.contains("max_cals"), "{error}");
        let error = from("[sip]\nmax_calls = \"many\"\n", &[]).unwrap_err();
        assert!(error.contains("line 2") && error.contains("max_calls"), "{error}");
        let error = from("[service\n", &[]).unwrap_err();
        assert!(error.contains("line 1"), "{error}");
        assert!(from("[nothing]\n", &[]).unwrap_err().contains("nothing"));
    }

    #[test]
    fn the_environment_overrides_and_names_itself_when_wrong() {
        let config = from("[sip]\nmax_calls = 3\n", &[("VOICEPAY__SIP__MAX_CALLS", "7")]).unwrap();
        assert_eq!(config.sip.max_calls, 7);
        let config = from("", &[("VOICEPAY__IDENTITY__DEFAULT_COUNTRY", "44"), ("OTHER", "x")]).unwrap();
        assert_eq!(config.identity.default_country, "44");
        let error = from("", &[("VOICEPAY__SIP__MAX_CALLS", "many")]).unwrap_err();
        assert!(error.contains("VOICEPAY__SIP__MAX_CALLS") && error.contains("sip.max_calls"), "{error}");
        let error = from("", &[("VOICEPAY__SIP__MAX_CALS", "1")]).unwrap_err();
        assert!(error.contains("sip.max_cals"), "{error}");
        assert!(from("", &[("VOICEPAY__SERVICE", "1")]).is_err());
    }

    #[test]
    fn the_example_trunks_in_the_defaults_file_work_and_show_every_key() {
        let example: String = DEFAULT_TOML
            .lines()
            .skip_while(|l| *l != "# [[sip.trunk]]")
            .take_while(|l| l.starts_with('#'))
            .map(|l| l.trim_start_matches('#').trim_start_matches(' ').to_owned() + "\n")
            .collect();
        let config = from(&example, &[]).unwrap();
        assert_eq!(config.sip.trunks.len(), 2);
        assert!(config.sip.trunks[0].password_file.as_ref().unwrap().starts_with(&config.service.data_dir));
        let shown = toml::Table::try_from(&config.sip.trunks[0]).unwrap();
        for key in shown.keys() {
            assert!(example.contains(&format!("\n{key} =")), "the example lacks {key}");
        }
        assert!(from("[[sip.trunk]]\nname = \"a b\"\n", &[]).unwrap_err().contains("sip.trunk[0].name"));
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_key() {
        assert!(from("[sip]\nmax_calls = 0\n", &[]).unwrap_err().contains("sip.max_calls"));
        assert!(from("[identity]\ndefault_country = \"+44\"\n", &[]).unwrap_err().contains("identity.default_country"));
    }
}
