//! TLS for SIP: our certificate, whom we ask for one, whose we believe. Versions 1.2 and 1.3, by rustls on ring. All of it
//! can be exchanged while calls are up: connections that are there keep what they were made with.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The section `[sip.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Where SIP over TLS is heard, `ADDRESS:PORT` (5061 by custom). Unset: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Our certificate and those between it and its root, PEM. Needed to listen; shown to servers that ask for one, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The certificate's private key, PEM. Its owner alone should be able to read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    /// Whoever connects must show a certificate that one of these vouches for, PEM. Unset: none is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
    /// Servers that we call over TLS must show a certificate for their name that one of these vouches for, PEM. Unset: nobody
    /// is called over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_ca: Option<PathBuf>,
}

/// What is wrong with `[sip.tls]`.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct TlsError {
    /// The key's full name.
    pub key: &'static str,
    /// What is wrong, and with which file.
    pub problem: String,
}

/// What TLS is done with at this moment.
#[derive(Default)]
pub struct Tls(RwLock<Sides>);

#[derive(Clone, Default)]
struct Sides {
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the files.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self(RwLock::new(Sides::load(config)?)))
    }

    /// Reads the files again: new connections are made with what they hold now. A mistake leaves everything as it was.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), TlsError> {
        let sides = Sides::load(config)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sides;
        Ok(())
    }

    fn sides(&self) -> Sides {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.sides().server
    }

    pub(super) fn client(&self) -> Option<Arc<ClientConfig>> {
        self.sides().client
    }
}

impl Sides {
    fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let identity = match (&config.certificate, &config.private_key) {
            (Some(certificate), Some(key)) => Some((certificates("sip.tls.certificate", certificate)?, private_key(key)?)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("sip.tls.private_key", "unset, but sip.tls.certificate is set")),
            (None, Some(_)) => return Err(wrong("sip.tls.certificate", "unset, but sip.tls.private_key is set")),
        };
        let refused = |key| move |error: tokio_rustls::rustls::Error| wrong(key, error.to_string());
        let provider = Arc::new(ring::default_provider());
        let server = match (config.listen, &identity) {
            (None, _) => None,
            (Some(_), None) => return Err(wrong("sip.tls.certificate", "unset, but sip.tls.listen is set")),
            (Some(_), Some((chain, key))) => {
                let builder = ServerConfig::builder_with_provider(provider.clone())
                    .with_safe_default_protocol_versions()
                    .map_err(refused("sip.tls"))?;
                let builder = match &config.client_ca {
                    None => builder.with_no_client_auth(),
                    Some(path) => {
                        let roots = Arc::new(roots("sip.tls.client_ca", path)?);
                        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                            .build()
                            .map_err(|e| wrong("sip.tls.client_ca", e.to_string()))?;
                        builder.with_client_cert_verifier(verifier)
                    }
                };
                let made = builder.with_single_cert(chain.clone(), key.clone_key());
                Some(Arc::new(made.map_err(refused("sip.tls.private_key"))?))
            }
        };
        let client = match &config.server_ca {
            None => None,
            Some(path) => {
                let builder = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(refused("sip.tls"))?
                    .with_root_certificates(roots("sip.tls.server_ca", path)?);
                Some(Arc::new(match identity {
                    None => builder.with_no_client_auth(),
                    Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(refused("sip.tls.private_key"))?,
                }))
            }
        };
        Ok(Self { server, client })
    }
}

fn wrong(key: &'static str, problem: impl Into<String>) -> TlsError {
    TlsError { key, problem: problem.into() }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |e: rustls_pki_types::pem::Error| wrong(key, format!("{} holds no certificates: {e}", path.display()));
    let chain = CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if chain.is_empty() {
        return Err(wrong(key, format!("{} holds no certificate in PEM", path.display())));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|e| wrong("sip.tls.private_key", format!("{} holds no private key in PEM: {e}", path.display())))
}

fn roots(key: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        store.add(certificate).map_err(|e| wrong(key, format!("{} can't be a root: {e}", path.display())))?;
    }
    Ok(store)
}

/// Whom a server's certificate must be for.
pub(super) fn server_name(name: Option<&str>, address: IpAddr) -> io::Result<ServerName<'static>> {
    match name {
        None => Ok(ServerName::IpAddress(address.into())),
        Some(name) => ServerName::try_from(name.trim_matches(['[', ']']).to_owned()).map_err(io::Error::other),
    }
}
