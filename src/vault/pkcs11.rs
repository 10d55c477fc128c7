//! Master keys in a hardware security module, or what behaves like one, by PKCS #11 (OASIS, version 2.40 and later). The keys are made
//! there, can't be read out, and wrap with `CKM_AES_GCM`: AES key wrap (RFC 3394) takes no associated data, so a wrapped key moved to
//! another row would open there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keys::DataKey;
use super::sealed::{FORMAT_DATA_KEY, NONCE_BYTES};
use super::{KeyService, KeyVersion, VaultError, local};
use crate::clock::Entropy;

/// The environment variable that holds the token's user PIN; it comes before the file.
pub const PIN_ENV: &str = "VOICEPAY_PKCS11_PIN";

const TAG_BITS: u64 = 128;
const KEY_BYTES: u64 = 32;
/// More than any PIN that a token takes.
const PIN_MAX_BYTES: usize = 256;

/// `[vault.pkcs11]`: a token that keeps master keys. Its PIN comes from the environment variable `VOICEPAY_PKCS11_PIN`, else from a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pkcs11Config {
    /// The vendor's library, such as /usr/lib/softhsm/libsofthsm2.so. Empty: there is no token.
    pub module: PathBuf,
    /// The label of the token.
    pub token_label: String,
    /// What the labels of master keys begin with; the version follows, as in `voicepay-2`.
    pub key_label: String,
    /// A file that holds the PIN, readable by its owner only. Empty: the PIN comes from the environment.
    pub pin_file: PathBuf,
}

impl Default for Pkcs11Config {
    fn default() -> Self {
        Self { module: PathBuf::new(), token_label: "voicepay".into(), key_label: "voicepay".into(), pin_file: PathBuf::new() }
    }
}

/// A token, logged in to. One session: calls take their turn.
pub(super) struct Token {
    library: Pkcs11,
    cfg: Pkcs11Config,
    login: Mutex<Option<Login>>,
}

/// A session, and the keys that were found in it: a look-up is three calls to the module, which may be far away.
struct Login {
    session: Session,
    found: BTreeMap<KeyVersion, Vec<ObjectHandle>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.cfg.token_label)
    }
}

/// A library is initialised once a process (PKCS #11 §5.4), however many vaults use it.
static LIBRARIES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

fn library(path: &Path) -> Result<Pkcs11, Error> {
    let mut known = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = known.get(path) {
        return Ok(library.clone());
    }
    let library = Pkcs11::new(path)?;
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(e) => return Err(e),
    }
    known.insert(path.to_owned(), library.clone());
    Ok(library)
}

impl Token {
    pub(super) fn open(cfg: &Pkcs11Config) -> Result<Self, VaultError> {
        if cfg.module.as_os_str().is_empty() {
            return Err(VaultError::Token("`vault.pkcs11.module` must name the token's library".into()));
        }
        let library = library(&cfg.module)
            .map_err(|e| VaultError::Token(format!("vault.pkcs11.module: {} can't be used: {e}", cfg.module.display())))?;
        let token = Self { library, cfg: cfg.clone(), login: Mutex::new(None) };
        token.work(|_| Ok(()))?;
        Ok(token)
    }

    fn pin(&self) -> Result<AuthPin, VaultError> {
        let text = match std::env::var(PIN_ENV) {
            Ok(text) => Zeroizing::new(text),
            Err(_) if self.cfg.pin_file.as_os_str().is_empty() => {
                return Err(VaultError::Token(format!("no PIN: set {PIN_ENV} or `vault.pkcs11.pin_file`")));
            }
            Err(_) => {
                let path = &self.cfg.pin_file;
                let text = std::fs::read_to_string(path).map_err(|source| VaultError::Io { path: path.clone(), source })?;
                let text = Zeroizing::new(text);
                local::refuse_if_others_can_read(path)?;
                text
            }
        };
        let pin = text.trim();
        if pin.is_empty() || pin.len() > PIN_MAX_BYTES {
            return Err(VaultError::Token(format!("a PIN has 1 to {PIN_MAX_BYTES} bytes")));
        }
        Ok(AuthPin::new(pin.into()))
    }

    fn log_in(&self) -> Result<Login, VaultError> {
        let fault = |e: Error| VaultError::Token(e.to_string());
        let wanted = self.cfg.token_label.as_str();
        for slot in self.library.get_slots_with_initialized_token().map_err(fault)? {
            if self.library.get_token_info(slot).map_err(fault)?.label() != wanted {
                continue;
            }
            let session = self.library.open_rw_session(slot).map_err(fault)?;
            return match session.login(UserType::User, Some(&self.pin()?)) {
                // Login is per token, not per session: another vault of this process may have done it.
                Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(Login { session, found: BTreeMap::new() }),
                Err(Error::Pkcs11(RvError::PinIncorrect, _)) => {
                    Err(VaultError::Token(format!("the PIN is wrong; after some tries the token locks: check {PIN_ENV} first")))
                }
                Err(e) => Err(fault(e)),
            };
        }
        Err(VaultError::Token(format!("vault.pkcs11.token_label: there is no token `{wanted}` in any slot")))
    }

    /// Works in the session. One that is gone (the module was restarted or replugged) is opened anew, once.
    fn work<T>(&self, work: impl Fn(&mut Login) -> Result<T, Error>) -> Result<T, VaultError> {
        off_the_reactor(|| {
            let mut held = self.login.lock().unwrap_or_else(PoisonError::into_inner);
            match work(self.login(&mut held)?) {
                Err(e) if is_gone(&e) => {
                    *held = None;
                    work(self.login(&mut held)?)
                }
                done => done,
            }
            .map_err(|e| VaultError::Token(e.to_string()))
        })
    }

    fn login<'a>(&self, held: &'a mut MutexGuard<'_, Option<Login>>) -> Result<&'a mut Login, VaultError> {
        let login = match held.take() {
            Some(login) => login,
            None => self.log_in()?,
        };
        Ok(held.insert(login))
    }

    fn label(&self, version: KeyVersion) -> Vec<u8> {
        format!("{}-{version}", self.cfg.key_label).into_bytes()
    }

    /// A key that never leaves the token.
    fn template(&self, version: KeyVersion) -> [Attribute; 10] {
        [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(KEY_BYTES.into()),
            Attribute::Label(self.label(version)),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ]
    }

    /// The keys of a version: one, unless two nodes made it in the same moment, which a token does not refuse. Either wraps; to open, all
    /// are tried.
    fn find(&self, login: &mut Login, version: KeyVersion) -> Result<Vec<ObjectHandle>, Error> {
        if let Some(handles) = login.found.get(&version) {
            return Ok(handles.clone());
        }
        let wanted = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Token(true),
            Attribute::Label(self.label(version)),
        ];
        let handles = login.session.find_objects(&wanted)?;
        if !handles.is_empty() {
            login.found.insert(version, handles.clone());
        }
        Ok(handles)
    }
}

fn is_gone(error: &Error) -> bool {
    use RvError::{
        DeviceError, DeviceRemoved, KeyHandleInvalid, ObjectHandleInvalid, SessionClosed, SessionHandleInvalid, TokenNotPresent,
        UserNotLoggedIn,
    };
    matches!(
        error,
        Error::Pkcs11(
            DeviceError
                | DeviceRemoved
                | KeyHandleInvalid
                | ObjectHandleInvalid
                | SessionClosed
                | SessionHandleInvalid
                | TokenNotPresent
                | UserNotLoggedIn,
            _
        )
    )
}

/// A module on the network may take milliseconds: calls beside must not wait for it.
fn off_the_reactor<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        Ok(_) | Err(_) => work(),
    }
}

impl KeyService for Token {
    fn name(&self) -> &'static str {
        "PKCS #11 token"
    }

    fn holds(&self, version: KeyVersion) -> Result<bool, VaultError> {
        self.work(|login| Ok(!self.find(login, version)?.is_empty()))
    }

    fn make(&self, version: KeyVersion, _entropy: &dyn Entropy) -> Result<(), VaultError> {
        self.work(|login| {
            if !self.find(login, version)?.is_empty() {
                return Ok(());
            }
            login.session.generate_key(&Mechanism::AesKeyGen, &self.template(version)).map(drop)
        })
    }

    fn wrap(&self, version: KeyVersion, context: &[u8], key: &DataKey, entropy: &dyn Entropy) -> Result<Vec<u8>, VaultError> {
        let nonce = entropy.bytes::<NONCE_BYTES>();
        self.work(|login| {
            // The ring asked whether it is here.
            let handle = self.find(login, version)?.first().copied().ok_or(Error::InvalidValue)?;
            let mut nonce = nonce;
            let body = {
                let gcm = GcmParams::new(&mut nonce, context, TAG_BITS.into())?;
                login.session.encrypt(&Mechanism::AesGcm(gcm), handle, key.bytes())?
            };
            // Some modules choose the nonce themselves and write it over ours.
            Ok([&[FORMAT_DATA_KEY], nonce.as_slice(), &body].concat())
        })
    }

    fn unwrap(&self, version: KeyVersion, context: &[u8], wrapped: &[u8]) -> Result<Option<DataKey>, VaultError> {
        let Some((nonce, body)) = wrapped.strip_prefix(&[FORMAT_DATA_KEY]).and_then(|r| r.split_at_checked(NONCE_BYTES)) else {
            return Ok(None);
        };
        self.work(|login| {
            let known = self.find(login, version)?;
            if let Some(key) = open_with(&login.session, &known, context, nonce, body)? {
                return Ok(Some(key));
            }
            // Another node may have made its own since this one looked.
            login.found.remove(&version);
            let others: Vec<_> = self.find(login, version)?.into_iter().filter(|handle| !known.contains(handle)).collect();
            open_with(&login.session, &others, context, nonce, body)
        })
    }
}

fn open_with(
    session: &Session,
    handles: &[ObjectHandle],
    context: &[u8],
    nonce: &[u8],
    body: &[u8],
) -> Result<Option<DataKey>, Error> {
    for handle in handles {
        let mut nonce = nonce.to_vec();
        let gcm = GcmParams::new(&mut nonce, context, TAG_BITS.into())?;
        match session.decrypt(&Mechanism::AesGcm(gcm), *handle, body) {
            Ok(plain) => return Ok(DataKey::from_slice(&Zeroizing::new(plain))),
            Err(Error::Pkcs11(rv, _)) if does_not_open(&rv) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// What tokens say of a ciphertext that is not theirs. `CKR_GENERAL_ERROR` is SoftHSM's word for a wrong tag (2.6.1),
/// `CKR_AEAD_DECRYPT_FAILED` that of PKCS #11 3.0.
fn does_not_open(rv: &RvError) -> bool {
    use RvError::{EncryptedDataInvalid, EncryptedDataLenRange, GeneralError, UnknownErrorCode};
    const CKR_AEAD_DECRYPT_FAILED: u64 = 0x35;
    matches!(rv, EncryptedDataInvalid | EncryptedDataLenRange | GeneralError | UnknownErrorCode(CKR_AEAD_DECRYPT_FAILED))
}

#[cfg(test)]
#[path = "pkcs11_tests.rs"]
mod tests;
