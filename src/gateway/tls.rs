//! TLS to acquirers: whose certificates are believed. Versions 1.2 and 1.3, by rustls on ring.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error, PemObject};
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// Believes the authorities of a PEM file; whether we show a certificate, too, is left to say. The error names the file.
pub fn believing(roots_file: &Path) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let mut roots = RootCertStore::empty();
    // A system's list may hold one that rustls does not take; the others are as good without it.
    let (taken, _) = roots.add_parsable_certificates(certificates(roots_file)?);
    if taken == 0 {
        let shown = roots_file.display();
        return Err(format!("{shown} holds no authority that can be used: Debian's are in /etc/ssl/certs/ca-certificates.crt"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?.with_root_certificates(roots))
}

/// The certificates of a PEM file.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |e: Error| format!("{} holds no certificates that can be read: {e}", file.display());
    CertificateDer::pem_file_iter(file).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}
