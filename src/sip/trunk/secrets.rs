//! Passwords of trunks: read once at start and at each reload, from files of their owner's alone or from the environment.

use std::collections::HashMap;
use std::path::Path;

use zeroize::Zeroizing;

use super::config::{TrunkConfig, TrunkConfigError};
use crate::secret::read_private;
use crate::sip::digest::Credentials;

/// A password file is no longer than this.
const PASSWORD_FILE_LIMIT_BYTES: u64 = 4_096;

/// What trunks are told, and what their callers must know.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    ours: HashMap<String, Credentials>,
    callers: HashMap<String, Vec<Credentials>>,
}

impl Secrets {
    /// Reads all of them. The environment is an argument: names and values as in `std::env::var`.
    pub fn load(trunks: &[TrunkConfig], env: impl Fn(&str) -> Option<String>) -> Result<Self, TrunkConfigError> {
        let mut secrets = Self::default();
        for (i, trunk) in trunks.iter().enumerate() {
            let wrong = |key: &str, what: String| TrunkConfigError { key: format!("sip.trunk[{i}].{key}"), what };
            if let Some(username) = &trunk.username {
                let variable = variable_of(&trunk.name);
                let password = match (env(&variable), &trunk.password_file) {
                    (Some(password), _) => Zeroizing::new(password),
                    (None, Some(file)) => read(file).map_err(|what| wrong("password_file", what))?,
                    (None, None) if trunk.register.is_none() => continue, // a name alone is who we are there
                    (None, None) => {
                        return Err(wrong("password_file", format!("unset, and so is {variable}: registering needs a password")));
                    }
                };
                secrets.ours.insert(trunk.name.clone(), Credentials::new(username, password.as_str()));
            }
            let mut callers = Vec::new();
            for account in &trunk.inbound_auth {
                let password = read(&account.password_file)
                    .map_err(|what| wrong("inbound_auth", format!("account `{}`: {what}", account.username)))?;
                callers.push(Credentials::new(&account.username, password.as_str()));
            }
            if !callers.is_empty() {
                secrets.callers.insert(trunk.name.clone(), callers);
            }
        }
        Ok(secrets)
    }

    /// Our name and password on this trunk.
    pub fn ours(&self, trunk: &str) -> Option<&Credentials> {
        self.ours.get(trunk)
    }

    /// Who may call through this trunk; empty: whoever its network lets in.
    pub fn callers(&self, trunk: &str) -> &[Credentials] {
        self.callers.get(trunk).map_or(&[], Vec::as_slice)
    }
}

/// The environment variable with our password on a trunk of this name.
pub fn variable_of(trunk: &str) -> String {
    format!("VOICEPAY_TRUNK_{}_PASSWORD", trunk.replace('-', "_").to_ascii_uppercase())
}

/// The file's first line.
fn read(file: &Path) -> Result<Zeroizing<String>, String> {
    let text = read_private(file, PASSWORD_FILE_LIMIT_BYTES)?;
    match text.lines().next().unwrap_or("") {
        "" => Err(format!("the first line of {} is empty: a password stands there", file.display())),
        password => Ok(Zeroizing::new(password.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::config::SipConfig;
    use std::os::unix::fs::PermissionsExt;

    fn file(dir: &Path, name: &str, text: &str, mode: u32) -> String {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn load(text: &str, env: Option<(&str, &str)>) -> Result<Secrets, String> {
        let sip: SipConfig = toml::from_str(text).unwrap();
        Secrets::load(&sip.trunks, |n| env.filter(|(k, _)| *k == n).map(|(_, v)| v.to_owned())).map_err(|e| e.to_string())
    }

    #[test]
    fn passwords_come_from_files_or_the_environment_and_never_print() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, desk) = (file(dir.path(), "a", "hunter2\nmore\n", 0o600), file(dir.path(), "b", "sesame\n", 0o400));
        let text = format!(
            "[[trunk]]\nname = \"c-1\"\nusername = \"u\"\npassword_file = \"{ours}\"\n\
             inbound_auth = [{{ username = \"desk\", password_file = \"{desk}\" }}]"
        );
        let secrets = load(&text, None).unwrap();
        assert_eq!(secrets.ours("c-1"), Some(&Credentials::new("u", "hunter2")));
        assert_eq!(secrets.callers("c-1"), [Credentials::new("desk", "sesame")]);
        assert!(secrets.callers("other").is_empty());
        let shown = format!("{secrets:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("sesame"), "{shown}");
        let secrets = load(&text, Some(("VOICEPAY_TRUNK_C_1_PASSWORD", "from the environment"))).unwrap();
        assert_eq!(secrets.ours("c-1"), Some(&Credentials::new("u", "from the environment")));
    }

    #[test]
    fn what_cannot_be_read_is_named_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let (open, empty) = (file(dir.path(), "a", "x", 0o644), file(dir.path(), "b", "\n", 0o600));
        for (path, word) in [(open.as_str(), "chmod 600"), (&empty, "empty"), ("/nowhere/at/all", "can't be read")] {
            let text = format!("[[trunk]]\nname = \"c\"\nusername = \"u\"\npassword_file = \"{path}\"");
            let error = load(&text, None).unwrap_err();
            assert!(error.contains("sip.trunk[0].password_file") && error.contains(word), "{error}");
        }
        let error = load("[[trunk]]\nname = \"c\"\nusername = \"u\"\n[trunk.register]\nregistrar = \"r\"", None).unwrap_err();
        assert!(error.contains("VOICEPAY_TRUNK_C_PASSWORD"), "{error}");
    }
}
