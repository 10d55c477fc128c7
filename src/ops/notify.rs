//! Word to the service manager (sd_notify(3)): a datagram of `KEY=value` lines to the socket that `NOTIFY_SOCKET` names. Without
//! one nothing is sent.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::monotonic_us;

/// The way to the service manager.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    socket: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub fn from_env() -> Self {
        let path = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        let watchdog = std::env::var("WATCHDOG_USEC").ok().and_then(|us| us.parse().ok()).map(Duration::from_micros);
        Self::new(path.as_bytes(), watchdog)
    }

    /// To a socket by its path, or by its abstract name behind an `@`.
    fn new(name: &[u8], watchdog: Option<Duration>) -> Self {
        let address = match name.split_first() {
            None => return Self::default(),
            Some((b'@', name)) => SocketAddr::from_abstract_name(name),
            Some(_) => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        };
        let ready = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?; // a manager that does not read must not hold us up
            Ok(Arc::new((socket, address)))
        });
        match ready {
            Ok(socket) => Self { socket: Some(socket), watchdog: watchdog.filter(|w| !w.is_zero()) },
            Err(error) => {
                tracing::warn!(%error, "NOTIFY_SOCKET can't be used: the service manager will not be told that we are ready");
                Self::default()
            }
        }
    }

    fn send(&self, lines: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.0.send_to_addr(lines.as_bytes(), &socket.1)
        {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }

    /// Calls are taken, also again after a reload.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}\n", one_line(status)));
    }

    /// The configuration is read again; [`Notify::ready`] follows whatever becomes of it.
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_us()));
    }

    /// No more calls are taken; those that are up may take as long as `drain` to end.
    pub fn stopping(&self, drain: Duration) {
        let us = drain.as_micros();
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={us}\nSTATUS=no new calls; waiting for those that are up\n"));
    }

    /// How often the watchdog wants to hear of us: at half its limit.
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        self.watchdog.map(|limit| limit / 2)
    }

    /// All is well; said only where a watchdog asked to hear it.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1\n");
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(socket: &UnixDatagram) -> String {
        let mut buffer = [0u8; 512];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn the_manager_hears_each_word_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(path.as_os_str().as_bytes(), Some(Duration::from_secs(20)));
        notify.ready("takes calls\nat a port");
        assert_eq!(hear(&manager), "READY=1\nSTATUS=takes calls at a port\n");
        notify.reloading();
        let text = hear(&manager);
        let us: u64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|t| t.trim().parse().ok()).unwrap();
        assert!(us > 0);
        notify.stopping(Duration::from_secs(30));
        assert!(hear(&manager).starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\n"));
        notify.alive();
        assert_eq!(hear(&manager), "WATCHDOG=1\n");
        assert_eq!(notify.watchdog_every(), Some(Duration::from_secs(10)));

        let name = format!("voicepay-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notify::new(format!("@{name}").as_bytes(), Some(Duration::from_secs(1))).alive();
        assert_eq!(hear(&manager), "WATCHDOG=1\n");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let silent = Notify::new(b"", Some(Duration::from_secs(1)));
        silent.ready("x");
        assert_eq!(silent.watchdog_every(), None);
        Notify::new(b"/no/such/socket", None).alive();
    }
}
