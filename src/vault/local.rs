//! Master keys at hand: in the environment, else in files that only their owner may read, one a version.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use super::keys::DataKey;
use super::locked::Locked;
use super::{KeyService, KeyVersion, VaultConfig, VaultError, derive, sealed};
use crate::clock::Entropy;

/// The environment variable that holds the first master key; `VOICEPAY_MASTER_KEY_V2` and so on hold later ones. They come before files.
pub const MASTER_KEY_ENV: &str = "VOICEPAY_MASTER_KEY";

/// The environment variable of a version.
pub(super) fn variable(version: KeyVersion) -> String {
    match version {
        KeyVersion::FIRST => MASTER_KEY_ENV.to_owned(),
        later => format!("{MASTER_KEY_ENV}_V{later}"),
    }
}

/// What the environment gives; a test gives its own.
type Environment = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Wraps in this process, with AES-256-GCM under a key derived from the master key.
pub(super) struct LocalKeys {
    file: PathBuf,
    files: bool,
    environment: Box<Environment>,
    /// Wrapping keys that were read once. A version never changes, so they stay true.
    read: Mutex<BTreeMap<KeyVersion, Arc<Locked<[u8; 32]>>>>,
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKeys({})", self.file.display())
    }
}

impl LocalKeys {
    /// `files`: whether files are read and made; else the environment is all there is.
    pub(super) fn new(cfg: &VaultConfig, files: bool) -> Self {
        Self::with_environment(cfg, files, Box::new(|name| std::env::var(name).ok()))
    }

    pub(super) fn with_environment(cfg: &VaultConfig, files: bool, environment: Box<Environment>) -> Self {
        Self { file: cfg.master_key_file.clone(), files, environment, read: Mutex::default() }
    }

    /// With one master key in hand, and nothing to read others from.
    pub(super) fn in_hand(master: &[u8; 32]) -> Self {
        let keys = Self::with_environment(&VaultConfig::default(), false, Box::new(|_| None));
        let key = Arc::new(Locked::new(derive(master, "key wrap")));
        keys.read.lock().unwrap_or_else(PoisonError::into_inner).insert(KeyVersion::FIRST, key);
        keys
    }

    /// `master.key`, `master.key.v2`, …
    fn path(&self, version: KeyVersion) -> PathBuf {
        match version {
            KeyVersion::FIRST => self.file.clone(),
            later => {
                let mut name = self.file.clone().into_os_string();
                name.push(format!(".v{later}"));
                name.into()
            }
        }
    }

    fn given(&self, version: KeyVersion) -> Option<Zeroizing<String>> {
        (self.environment)(&variable(version)).map(Zeroizing::new)
    }

    /// The master key itself; `None` if it is not here.
    fn master(&self, version: KeyVersion) -> Result<Option<Zeroizing<[u8; 32]>>, VaultError> {
        if let Some(text) = self.given(version) {
            let malformed = || VaultError::Malformed(format!("the environment variable {}", variable(version)));
            return parse(&text).ok_or_else(malformed).map(Some);
        }
        if !self.files {
            return Ok(None);
        }
        let path = self.path(version);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                refuse_if_others_can_read(&path)?;
                let malformed = || VaultError::Malformed(path.display().to_string());
                let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
                parse(text).ok_or_else(malformed).map(Some)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(VaultError::Io { path, source }),
        }
    }

    fn wrapping_key(&self, version: KeyVersion) -> Result<Option<Arc<Locked<[u8; 32]>>>, VaultError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = read.get(&version) {
            return Ok(Some(Arc::clone(key)));
        }
        let Some(master) = self.master(version)? else { return Ok(None) };
        let key = Arc::new(Locked::new(derive(&master, "key wrap")));
        read.insert(version, Arc::clone(&key));
        Ok(Some(key))
    }

    fn needed(&self, version: KeyVersion) -> Result<Arc<Locked<[u8; 32]>>, VaultError> {
        let places = || VaultError::MissingVersion { version, places: self.name().to_owned() };
        self.wrapping_key(version)?.ok_or_else(places)
    }
}

impl KeyService for LocalKeys {
    fn name(&self) -> &'static str {
        if self.files { "environment or file" } else { "environment" }
    }

    fn holds(&self, version: KeyVersion) -> Result<bool, VaultError> {
        Ok(self.wrapping_key(version)?.is_some())
    }

    fn make(&self, version: KeyVersion, entropy: &dyn Entropy) -> Result<(), VaultError> {
        if self.holds(version)? {
            return Ok(());
        }
        let before = version.get().checked_sub(1).and_then(KeyVersion::new);
        if !self.files || before.is_some_and(|v| self.given(v).is_some()) {
            // Whoever gives keys by the environment does not look for them in files.
            return Err(VaultError::ByHand(variable(version)));
        }
        let path = self.path(version);
        create(&path, entropy).map_err(|source| VaultError::Io { path, source })
    }

    fn wrap(&self, version: KeyVersion, context: &[u8], key: &DataKey, entropy: &dyn Entropy) -> Result<Vec<u8>, VaultError> {
        let wrapping = self.needed(version)?;
        sealed::seal(&wrapping, context, key.bytes(), entropy).ok_or(VaultError::Broken("data key"))
    }

    fn unwrap(&self, version: KeyVersion, context: &[u8], wrapped: &[u8]) -> Result<Option<DataKey>, VaultError> {
        let key = self.needed(version)?;
        Ok(sealed::open(&key, context, wrapped).and_then(|bytes| DataKey::from_slice(&bytes)))
    }

    fn older_root(&self) -> Result<Option<DataKey>, VaultError> {
        Ok(self.master(KeyVersion::FIRST)?.map(|master| DataKey::new(*master)))
    }
}

/// Makes a key file, whole or not at all: a crash leaves no half a key, and of two processes that make the same version one wins.
fn create(path: &Path, entropy: &dyn Entropy) -> std::io::Result<()> {
    let key = Zeroizing::new(entropy.bytes::<32>());
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut aside = path.to_owned().into_os_string();
    aside.push(format!(".{}.new", hex::encode(entropy.bytes::<8>())));
    let aside = PathBuf::from(aside);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let write = || {
        let mut file = options.open(&aside)?;
        file.write_all(Zeroizing::new(hex::encode(*key)).as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // A link, unlike a rename, never takes the place of a file that is there.
        std::fs::hard_link(&aside, path)
    };
    let written = write();
    let _may_not_exist = std::fs::remove_file(&aside);
    match written {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(e),
    }
    std::fs::File::open(dir)?.sync_all()?;
    tracing::warn!(
        file = %path.display(),
        "made a new master key: back this file up apart from the database; without it no card can be charged"
    );
    Ok(())
}

pub(super) fn refuse_if_others_can_read(path: &Path) -> Result<(), VaultError> {
    let meta = std::fs::metadata(path).map_err(|source| VaultError::Io { path: path.to_owned(), source })?;
    if meta.permissions().mode() & 0o077 == 0 { Ok(()) } else { Err(VaultError::Permissions(path.to_owned())) }
}

/// 64 hex digits, or base64 of 32 bytes (RFC 4648, either alphabet, padding optional).
fn parse(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.trim();
    let bytes = if text.len() == 64 { Zeroizing::new(hex::decode(text).ok()?) } else { base64(text)? };
    let key: [u8; 32] = bytes.as_slice().try_into().ok()?;
    Some(Zeroizing::new(key))
}

/// Either alphabet, padding or none.
fn base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text = text.trim_end_matches('=');
    let mut standard = Zeroizing::new(Vec::with_capacity(text.len()));
    standard.extend(text.bytes().map(|b| match b {
        b'-' => b'+',
        b'_' => b'/',
        b => b,
    }));
    STANDARD_NO_PAD.decode(&*standard).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    fn v2() -> KeyVersion {
        KeyVersion::new(2).unwrap()
    }

    fn keys(dir: &Path, set: &'static [(&'static str, &'static str)]) -> LocalKeys {
        let cfg = VaultConfig { master_key_file: dir.join("keys/master.key"), ..VaultConfig::default() };
        let environment = move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        LocalKeys::with_environment(&cfg, true, Box::new(environment))
    }

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    #[test]
    fn a_version_is_made_once_and_seen_by_those_who_run_already() {
        let (dir, e) = (tempfile::tempdir().unwrap(), SeededEntropy::new(1));
        let (one, other) = (keys(dir.path(), &[]), keys(dir.path(), &[]));
        one.make(KeyVersion::FIRST, &e).unwrap();
        assert!(!other.holds(v2()).unwrap());
        one.make(v2(), &e).unwrap();
        let wrapped = one.wrap(v2(), b"row", &DataKey::new([9; 32]), &e).unwrap();
        assert_eq!(other.unwrap(v2(), b"row", &wrapped).unwrap().unwrap().bytes(), &[9; 32]);
        assert!(other.unwrap(v2(), b"other row", &wrapped).unwrap().is_none());
        assert!(other.unwrap(KeyVersion::FIRST, b"row", &wrapped).unwrap().is_none());
        other.make(v2(), &e).unwrap();
        assert!(keys(dir.path(), &[]).unwrap(v2(), b"row", &wrapped).unwrap().is_some(), "made twice is the first one");
        let names: Vec<_> = std::fs::read_dir(dir.path().join("keys")).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn keys_of_the_environment_are_not_made_here() {
        let (dir, e) = (tempfile::tempdir().unwrap(), SeededEntropy::new(1));
        let set = keys(dir.path(), &[("VOICEPAY_MASTER_KEY", HEX)]);
        set.make(KeyVersion::FIRST, &e).unwrap();
        let told = set.make(v2(), &e).unwrap_err().to_string();
        assert!(told.contains("VOICEPAY_MASTER_KEY_V2"), "{told}");
        let set = keys(dir.path(), &[("VOICEPAY_MASTER_KEY", HEX), ("VOICEPAY_MASTER_KEY_V2", "nonsense")]);
        assert!(matches!(set.make(v2(), &e), Err(VaultError::Malformed(_))));
    }

    #[test]
    fn hex_and_base64_name_the_same_key() {
        let hex_text = HEX;
        let base64_text = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=";
        assert_eq!(parse(hex_text).unwrap(), parse(base64_text).unwrap());
        assert_eq!(parse(base64_text.trim_end_matches('=')).unwrap()[31], 0xff);
        for bad in ["", "00", &hex_text[..62], "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv9AAAA=", "????"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
