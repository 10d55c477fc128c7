//! What a server shows under TLS, whether it is believed or not: for `voicepay trunk test`, which should say why a line is dead.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::Timestamp;

/// Names of a certificate that are told.
const NAME_LIMIT: usize = 8;

/// A server's certificate, as far as an operator needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Whose it is.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// Names and addresses that it is for.
    pub names: Vec<String>,
    /// Until when.
    pub valid_until: Timestamp,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until: String = self.valid_until.to_string().chars().take(10).collect();
        write!(f, "certificate of {} for {} by {}, valid until {until}", self.subject, self.names.join(", "), self.issuer)
    }
}

/// What came of a handshake.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// The certificate, if one was shown that can be read.
    pub shown: Option<Shown>,
    /// The protocol version, or why it failed.
    pub outcome: Result<String, String>,
}

/// Connects and shakes hands as the wire would, without a certificate of our own; the certificate is recorded before it is
/// judged. Nothing else is sent.
pub async fn look(server_ca: Option<&Path>, address: SocketAddr, name: &str, wait: Duration) -> Handshake {
    let shown = Arc::new(Mutex::new(None));
    let tried = tokio::time::timeout(wait, shake(server_ca, address, name, shown.clone())).await;
    let outcome = tried.unwrap_or_else(|_| Err(format!("nothing within {} ms", wait.as_millis())));
    let der = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
    Handshake { shown: der.as_deref().and_then(read), outcome }
}

type Seen = Arc<Mutex<Option<Vec<u8>>>>;

async fn shake(server_ca: Option<&Path>, address: SocketAddr, name: &str, seen: Seen) -> Result<String, String> {
    let path = server_ca.ok_or("`sip.tls.server_ca` is unset: nobody's certificate is believed")?;
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    let unreadable =
        |e: rustls_pki_types::pem::Error| format!("`sip.tls.server_ca`: {} holds no certificates: {e}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?).map_err(|e| format!("`sip.tls.server_ca`: {e}"))?;
    }
    let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| format!("`sip.tls.server_ca`: {e}"))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous() // only to look on: `judge` decides
        .with_custom_certificate_verifier(Arc::new(Recorder { judge, seen }))
        .with_no_client_auth();
    let server = match name.parse() {
        Ok(ip) => ServerName::IpAddress(std::net::IpAddr::into(ip)),
        Err(_) => ServerName::try_from(name.to_owned()).map_err(|_| format!("`{name}` can be in no certificate"))?,
    };
    let stream = TcpStream::connect(address).await.map_err(|e| format!("no connection: {e}"))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await.map_err(|e| e.to_string())?;
    let version = stream.get_ref().1.protocol_version().and_then(|v| v.as_str()).unwrap_or("TLS");
    Ok(version.replace("TLSv1_", "TLS 1."))
}

/// Notes the certificate, and leaves the verdict to whom it belongs.
#[derive(Debug)]
struct Recorder {
    judge: Arc<WebPkiServerVerifier>,
    seen: Seen,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        self.judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

fn read(der: &[u8]) -> Option<Shown> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let common = |name: &x509_parser::x509::X509Name<'_>| {
        let cn = name.iter_common_name().next().and_then(|c| c.as_str().ok()).map(str::to_owned);
        plain(&cn.unwrap_or_else(|| name.to_string()))
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let name = |general: &GeneralName<'_>| match general {
        GeneralName::DNSName(dns) => Some(plain(dns)),
        GeneralName::URI(uri) => Some(plain(uri)),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    Some(Shown {
        subject: common(certificate.subject()),
        issuer: common(certificate.issuer()),
        names: names.map_or(Vec::new(), |n| n.value.general_names.iter().filter_map(name).take(NAME_LIMIT).collect()),
        valid_until: Timestamp(certificate.validity().not_after.timestamp().saturating_mul(1_000)),
    })
}

/// A stranger's text for the terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use crate::sip::trunk::test_tls::server_side;

    async fn server(name: &str) -> (SocketAddr, tempfile::NamedTempFile) {
        let (config, file) = server_side(name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(config);
            while let Ok((stream, _)) = listener.accept().await {
                let _refused_or_looked_at = acceptor.accept(stream).await;
            }
        });
        (at, file)
    }

    const WAIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_good_certificate_is_described() {
        let (at, ca) = server("sip.example.org").await;
        for name in ["sip.example.org", "127.0.0.1"] {
            let seen = look(Some(ca.path()), at, name, WAIT).await;
            assert_eq!(seen.outcome.as_deref(), Ok("TLS 1.3"));
            let shown = seen.shown.unwrap();
            assert_eq!((shown.subject.as_str(), shown.issuer.as_str()), ("the PBX", "Test CA"));
            assert_eq!(shown.names, ["sip.example.org", "127.0.0.1"]);
            assert!(shown.to_string().contains("valid until 4096-01-01"), "{shown}");
        }
    }

    #[tokio::test]
    async fn one_that_is_not_believed_is_described_all_the_same() {
        let (at, ca) = server("sip.example.org").await;
        let (_, other_ca) = server("sip.example.org").await;
        for (ca, name, why) in [(&ca, "sip.example.com", "not valid for name"), (&other_ca, "sip.example.org", "certificate")] {
            let seen = look(Some(ca.path()), at, name, WAIT).await;
            let error = seen.outcome.unwrap_err();
            assert!(error.contains(why), "{error}");
            assert_eq!(seen.shown.unwrap().subject, "the PBX");
        }
        assert!(look(None, at, "sip.example.org", WAIT).await.outcome.unwrap_err().contains("sip.tls.server_ca"));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(look(Some(ca.path()), closed, "sip.example.org", WAIT).await.outcome.unwrap_err().contains("no connection"));
    }
}
