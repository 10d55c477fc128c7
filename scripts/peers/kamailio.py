"""Kamailio with the configuration of sip-config/kamailio/."""

import socket
from pathlib import Path

from proc import Failed, Process, configured, ports, until
from service import ROOT

CONFIG = ROOT / "sip-config" / "kamailio"
START_S = 15.0
# As they stand in dispatcher.list.
NODES = ("127.0.0.1:5060", "127.0.0.1:5064")


class Kamailio(Process):
    """A dispatcher in front of nodes, given as `ADDRESS:PORT`."""

    def __init__(self, log_dir, nodes, name="kamailio"):
        home = Path(log_dir) / f"{name}-files"
        (home / "run").mkdir(parents=True)
        self.port = ports()
        listed = configured(CONFIG / "dispatcher.list", home / "dispatcher.list", dict(zip(NODES, nodes, strict=True)))
        swaps = {"127.0.0.1:5070": f"127.0.0.1:{self.port}", "/etc/kamailio/dispatcher.list": listed}
        config = configured(CONFIG / "kamailio.cfg", home / "kamailio.cfg", swaps)
        # -DD: one group of processes in the foreground; -Y: where it puts its sockets.
        argv = ["kamailio", "-f", config, "-DD", "-E", "-m", "32", "-M", "8", "-Y", home / "run", "-w", home]
        super().__init__(name, argv, log_dir, cwd=home)
        until("Kamailio listens", self._up, START_S)

    def _up(self):
        if not self.alive():
            raise Failed(f"Kamailio ended at once: {self.text()[-800:]}")
        return self._answers()

    def _answers(self):

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.3)
            s.bind(("127.0.0.1", 0))
            here = f"127.0.0.1:{s.getsockname()[1]}"
            lines = [
                f"OPTIONS sip:{self.at} SIP/2.0",
                f"Via: SIP/2.0/UDP {here};branch=z9hG4bKup{here[-5:]};rport",
                "Max-Forwards: 70",
                f"From: <sip:test@{here}>;tag=1",
                f"To: <sip:{self.at}>",
                f"Call-ID: up@{here}",
                "CSeq: 1 OPTIONS",
                "Content-Length: 0",
            ]
            s.sendto(("\r\n".join(lines) + "\r\n\r\n").encode(), ("127.0.0.1", self.port))
            try:
                return s.recv(4096).startswith(b"SIP/2.0 200")
            except OSError:
                return False

    @property
    def at(self):
        return f"127.0.0.1:{self.port}"

    def sent_to(self):
        """To which nodes calls went, in order."""
        return [
            line.split(" goes to sip:")[1].split()[0].split(";")[0]
            for line in self.text().splitlines()
            if " goes to sip:" in line
        ]
