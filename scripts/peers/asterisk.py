"""Asterisk 16 and 22, each in a Debian tree of its own, with the configuration of sip-config/asterisk/.

The tree is the lower side of an overlay in a mount namespace that ends with the process: nothing is written into it, nothing
is left mounted, and several Asterisks may run at once. What it writes is found in `written`."""

import os
import re
import shlex
from pathlib import Path

import speech
from proc import Failed, Process, command, configured, ports, until
from service import CALLER, FIXTURES, ROOT, pan

CONFIG = ROOT / "sip-config" / "asterisk"
START_S = 40.0
RTP_PORTS = 40
# What a softphone registers with; stands in pjsip.conf.
PASSWORD = "change-me-too"
SAID = ("card", "yes", "yes_please", "counting")


def tree(version):
    """The Debian tree with this Asterisk."""
    cache = os.environ.get("VOICEPAY_PEERS_CACHE")
    base = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "voicepay-peers"
    return base / f"asterisk-{version}"


class Asterisk(Process):
    """An Asterisk beside a service. `service_at` is where that listens, `tls_at` where for TLS; `pjsip` and `extensions` are what
    else to change in the files of that name, `keys` files for its keys folder, `prefix` words before the command."""

    def __init__(
        self,
        version,
        log_dir,
        service_at,
        *,
        tls_at=None,
        sip=None,
        rtp=None,
        keys=None,
        pjsip=None,
        extensions=None,
        sounds=(),
        prefix=(),
    ):
        self.lower = tree(version)
        if not (self.lower / ".whole").exists():
            raise Failed(f"{self.lower} is not there: run scripts/peers/setup.sh")
        if os.geteuid() != 0:
            raise Failed("Asterisk runs in a chroot: root is needed")
        self.version = version
        self.sip = sip or ports(2)
        first = None if rtp else ports(RTP_PORTS)
        first, last = rtp or (first, first + RTP_PORTS - 1)
        self.home = Path(log_dir) / f"asterisk-{version}"
        self.written = self.home / "upper"
        etc = self.written / "etc"
        for d in ("etc/asterisk/keys", "run/asterisk", "usr/share/asterisk/sounds/voicepay", "var/spool/asterisk/outgoing"):
            (self.written / d).mkdir(parents=True)
        for d in ("work", "root"):
            (self.home / d).mkdir()
        # Of /etc/asterisk in the tree nothing shows through.
        os.setxattr(etc / "asterisk", "trusted.overlay.opaque", b"y")
        # DNS is asked for the machine's own name and for a root server; without an answer at hand calls hang in Answer.
        (etc / "hosts").write_text(f"127.0.0.1 localhost {os.uname().nodename} A.ROOT-SERVERS.NET\n")
        (etc / "nsswitch.conf").write_text("hosts: files\npasswd: files\ngroup: files\n")
        for name in ("asterisk.conf", "modules.conf", "logger.conf", "musiconhold.conf"):
            configured(CONFIG / name, etc / "asterisk" / name, {})
        configured(CONFIG / "rtp.conf", etc / "asterisk/rtp.conf", {"10000": first, "10999": last})
        swaps = {
            "127.0.0.1:5080": f"127.0.0.1:{self.sip}",
            "127.0.0.1:5081": f"127.0.0.1:{self.sip + 1}",
            "127.0.0.1:5060": service_at,
            "127.0.0.1:5061": tls_at or service_at,
        }
        configured(CONFIG / "pjsip.conf", etc / "asterisk/pjsip.conf", swaps | (pjsip or {}))
        configured(CONFIG / "extensions.conf", etc / "asterisk/extensions.conf", extensions or {})
        for name, path in (keys or {}).items():
            (etc / "asterisk/keys" / name).write_bytes(Path(path).read_bytes())
        for name in SAID:
            samples, rate = speech.read(FIXTURES / "alice" / f"{name}.wav")
            speech.write(self.written / f"usr/share/asterisk/sounds/voicepay/{name}.wav", samples, rate)
        for path in sounds:
            (self.written / "usr/share/asterisk/sounds/voicepay" / Path(path).name).write_bytes(Path(path).read_bytes())
        root, q = self.home / "root", shlex.quote
        own = "/etc/asterisk /run/asterisk /var/spool/asterisk /var/lib/asterisk /var/log/asterisk"
        layers = f"lowerdir={self.lower},upperdir={self.written},workdir={self.home}/work"
        script = (
            f"mount -t overlay overlay -o {q(layers)} {q(str(root))}"
            f" && chroot {q(str(root))} chown -R asterisk:asterisk {own}"
            f" && exec chroot {q(str(root))} /usr/sbin/asterisk -f -U asterisk -G asterisk"
        )
        super().__init__(
            f"asterisk{version}", [*prefix, "unshare", "--mount", "--propagation", "private", "sh", "-c", script], log_dir
        )
        until(f"Asterisk {version} is up", self._up, START_S, every_s=0.3)

    def _up(self):
        if not self.alive():
            raise Failed(f"Asterisk ended at once: {self.text()[-800:]}")
        try:
            return "fully booted" in self.cli("core waitfullybooted")
        except Failed:
            return False

    def cli(self, line):
        """A command on Asterisk's own console; its answer."""
        return command(["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "chroot", self.home / "root", "asterisk", "-rx", line])

    @property
    def at(self):
        return f"127.0.0.1:{self.sip}"

    @property
    def tls_at(self):
        return f"127.0.0.1:{self.sip + 1}"

    def events(self):
        """Its own log."""
        log = self.written / "var/log/asterisk/full"
        return log.read_text(errors="replace") if log.exists() else ""

    def originate(self, extension="pay", *, channel="PJSIP/pay@voicepay", caller=CALLER):
        """A call by the automatic caller of extensions.conf."""
        text = (
            f"Channel: {channel}\nCallerID: <{caller}>\nContext: automatic-caller\nExtension: {extension}\n"
            f"Priority: 1\nMaxRetries: 0\nWaitTime: 30\nSetvar: __CARD={pan()}\n"
        )
        call = self.home / "root-call"
        call.write_text(text)
        os.chown(call, 101, 101)
        # Moved in whole, within the mount, so that Asterisk sees neither half a file nor one it may not read.
        spool = self.home / "root/var/spool/asterisk"
        command(
            ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "sh", "-c",
             f"cp -p {shlex.quote(str(call))} {shlex.quote(str(spool / 'new.call'))} && "
             f"mv {shlex.quote(str(spool / 'new.call'))} {shlex.quote(str(spool / 'outgoing/new.call'))}"]
        )  # fmt: skip

    def channels(self):
        """How many channels are up, and how many calls there have been."""
        numbers = re.findall(r"(\d+) (active channel|calls? processed)", self.cli("core show channels count"))
        found = {what.split()[0].rstrip("s"): int(n) for n, what in numbers}
        return found.get("active", 0), found.get("call", 0)

    def until_quiet(self, within_s):
        """Waits until its calls are over."""
        until("Asterisk places the call", lambda: self.channels()[1] > 0, 15)
        until("the call is over", lambda: self.channels()[0] == 0, within_s, every_s=0.5)

    def heard(self):
        """The recording of what the service said."""
        return self.written / "var/spool/asterisk/monitor/heard.wav"
