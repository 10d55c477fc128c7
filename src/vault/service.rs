//! Master keys and who keeps them. A master key only wraps other keys; a [`KeyService`] holds its versions and never gives one out.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::keys::DataKey;
use super::{VaultConfig, VaultError, local, pkcs11};
use crate::clock::Entropy;

/// A version of the master key: 1 is the first, rotation counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct KeyVersion(u16);

impl KeyVersion {
    /// The first one.
    pub const FIRST: Self = Self(1);

    /// From a row or a command line; there is no version 0.
    pub fn new(version: u16) -> Option<Self> {
        (version > 0).then_some(Self(version))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The version after this one; `None` after 65,535.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Keeps versions of the master key, and wraps with them. Its calls may take as long as a request to a machine in the same room.
pub trait KeyService: Send + Sync + fmt::Debug {
    /// For people: where the keys are.
    fn name(&self) -> &'static str;

    /// Whether this version is here. Asks anew each time: another process may have made it, or an operator may have brought it.
    fn holds(&self, version: KeyVersion) -> Result<bool, VaultError>;

    /// Makes a version, for good, before it returns. One that is here already is left as it is: rotation was cut short after making it.
    fn make(&self, version: KeyVersion, entropy: &dyn Entropy) -> Result<(), VaultError>;

    /// Wraps a key. It will open with the same version and context only.
    fn wrap(&self, version: KeyVersion, context: &[u8], key: &DataKey, entropy: &dyn Entropy) -> Result<Vec<u8>, VaultError>;

    /// Opens a wrapped key; `None` if it was not wrapped by this version for this context, or was altered since.
    fn unwrap(&self, version: KeyVersion, context: &[u8], wrapped: &[u8]) -> Result<Option<DataKey>, VaultError>;

    /// The first master key itself, of a database that is older than wrapped keys: everything there was derived from it.
    fn older_root(&self) -> Result<Option<DataKey>, VaultError> {
        Ok(None)
    }
}

/// The services that the configuration knows: the first makes new versions, the others still hold what they hold. So rotation also moves
/// from one service to another.
#[derive(Clone, Debug)]
pub(super) struct KeyRing(Vec<Arc<dyn KeyService>>);

impl KeyRing {
    pub(super) fn open(cfg: &VaultConfig) -> Result<Self, VaultError> {
        use super::KeyServiceName::{Environment, File, Pkcs11};
        let local = |files| -> Arc<dyn KeyService> { Arc::new(local::LocalKeys::new(cfg, files)) };
        let token = || -> Result<Arc<dyn KeyService>, VaultError> { Ok(Arc::new(pkcs11::Token::open(&cfg.pkcs11)?)) };
        let has_token = !cfg.pkcs11.module.as_os_str().is_empty();
        Ok(Self(match (cfg.service, has_token) {
            (File, false) => vec![local(true)],
            (Environment, false) => vec![local(false)],
            (File, true) => vec![local(true), token()?],
            (Environment, true) => vec![local(false), token()?],
            (Pkcs11, _) => vec![token()?, local(true)],
        }))
    }

    /// One master key in hand, and no other.
    pub(super) fn in_hand(master: &[u8; 32]) -> Self {
        Self(vec![Arc::new(local::LocalKeys::in_hand(master))])
    }

    #[cfg(test)]
    pub(super) fn of(services: Vec<Arc<dyn KeyService>>) -> Self {
        Self(services)
    }

    #[cfg(test)]
    pub(super) fn first(&self) -> Option<Arc<dyn KeyService>> {
        self.0.first().cloned()
    }

    pub(super) fn missing(&self, version: KeyVersion) -> VaultError {
        let places = self.0.iter().map(|s| s.name()).collect::<Vec<_>>().join(" or ");
        VaultError::MissingVersion { version, places }
    }

    /// Who holds a version.
    pub(super) fn holder(&self, version: KeyVersion) -> Result<Option<&Arc<dyn KeyService>>, VaultError> {
        for service in &self.0 {
            if service.holds(version)? {
                return Ok(Some(service));
            }
        }
        Ok(None)
    }

    pub(super) fn make(&self, version: KeyVersion, entropy: &dyn Entropy) -> Result<(), VaultError> {
        match self.0.first() {
            Some(service) => service.make(version, entropy),
            None => Err(self.missing(version)),
        }
    }

    pub(super) fn wrap(
        &self,
        version: KeyVersion,
        context: &[u8],
        key: &DataKey,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, VaultError> {
        let service = self.holder(version)?.ok_or_else(|| self.missing(version))?;
        service.wrap(version, context, key, entropy)
    }

    /// Asks every service that holds the version: `None` if none of their keys fits.
    pub(super) fn unwrap(&self, version: KeyVersion, context: &[u8], wrapped: &[u8]) -> Result<Option<DataKey>, VaultError> {
        let mut held = false;
        for service in &self.0 {
            if service.holds(version)? {
                held = true;
                if let Some(key) = service.unwrap(version, context, wrapped)? {
                    return Ok(Some(key));
                }
            }
        }
        if held { Ok(None) } else { Err(self.missing(version)) }
    }

    pub(super) fn older_root(&self) -> Result<DataKey, VaultError> {
        for service in &self.0 {
            if let Some(root) = service.older_root()? {
                return Ok(root);
            }
        }
        Err(self.missing(KeyVersion::FIRST))
    }
}
