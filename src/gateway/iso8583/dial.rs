//! Reaching a host: its address, TCP, TLS. Plain text goes only where the config lets it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::config::{ConfigFault, Iso8583Config, fault, split_host};
use super::line::LineError;
use crate::gateway::tls;

/// A connection, with TLS or without.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// How one host is reached.
#[derive(Clone)]
pub(super) struct Dialer {
    /// `HOST:PORT`.
    pub(super) host: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    limit: Duration,
}

impl Dialer {
    /// For each host of the config, in its order.
    pub(super) fn all(cfg: &Iso8583Config) -> Result<Vec<Self>, ConfigFault> {
        let connector = if cfg.tls { Some(connector(cfg)?) } else { None };
        let limit = Duration::from_millis(cfg.connect_timeout_ms);
        let dialer = |host: &String| {
            let tls = match &connector {
                None => None,
                Some(connector) => {
                    let (name, key) = match &cfg.tls_name {
                        Some(name) => (name.as_str(), "tls_name"),
                        None => (split_host(host).map_or("", |(name, _)| name), "hosts"),
                    };
                    let name = ServerName::try_from(name.to_owned()).map_err(|e| fault(key, format!("`{name}`: {e}")))?;
                    Some((connector.clone(), name))
                }
            };
            Ok(Self { host: host.clone(), tls, limit })
        };
        cfg.hosts.iter().map(dialer).collect()
    }

    /// Connects, with TLS where the config has it.
    pub(super) async fn connect(&self) -> Result<Box<dyn Wire>, LineError> {
        let late = |step| move |_| LineError::Timeout(step);
        let stream = timeout(self.limit, TcpStream::connect(&self.host)).await.map_err(late("connecting"))?;
        let stream = stream.map_err(LineError::Connect)?;
        self.prepare(&stream).map_err(LineError::Connect)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => {
                let secured = timeout(self.limit, connector.connect(name.clone(), stream)).await.map_err(late("TLS"))?;
                Ok(Box::new(secured.map_err(LineError::Tls)?))
            }
        }
    }

    fn prepare(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        // A line that is given up takes with it what the kernel has not delivered yet: a charge must not arrive after its
        // reversal.
        stream.set_zero_linger()?;
        let peer: SocketAddr = stream.peer_addr()?;
        tracing::debug!(host = self.host, %peer, tls = self.tls.is_some(), "connected to the bank");
        Ok(())
    }
}

fn connector(cfg: &Iso8583Config) -> Result<TlsConnector, ConfigFault> {
    let builder = tls::believing(&cfg.tls_ca).map_err(|what| fault("tls_ca", what))?;
    let config = match (&cfg.tls_certificate, &cfg.tls_private_key) {
        (Some(certificate), Some(key)) => {
            let chain = tls::certificates(certificate).map_err(|what| fault("tls_certificate", what))?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| fault("tls_private_key", format!("{} holds no private key: {e}", key.display())))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| fault("tls_private_key", e.to_string()))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}
