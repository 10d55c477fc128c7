"""baresip with the configuration of sip-config/baresip/, a recording for a microphone, steered over its control port."""

import json
import socket
from pathlib import Path

from proc import Failed, Process, configured, ports, until
from service import CALLER, ROOT

CONFIG = ROOT / "sip-config" / "baresip"
START_S = 15.0
ANSWER_S = 20.0
EXTRA_MODULES = ("aufile", "aubridge", "auconv", "auresamp", "sndfile", "ctrl_tcp")


class Baresip(Process):
    """A softphone. `account` is a line of `accounts`, `speech` a WAV, `modules` what else to load."""

    def __init__(self, log_dir, speech, *, account=None, modules=(), swaps=None, name="baresip"):
        home = Path(log_dir) / name
        (home / "heard").mkdir(parents=True)
        self.heard_dir = home / "heard"
        rtp, self.control_port = ports(40), ports()
        lines = {
            "alsa,default\naudio_player": f"aufile,{speech}\naudio_player",
            "audio_player            alsa,default": "audio_player            aubridge,nil",
            "#snd_path               /tmp": f"snd_path                {self.heard_dir}",
            "20000-20100": f"{rtp}-{rtp + 39}",
            "module                  alsa.so\n": "",
            # Its standard input is no terminal here.
            "module                  stdio.so\n": "",
            "#ctrl_tcp_listen        127.0.0.1:4444": f"ctrl_tcp_listen         127.0.0.1:{self.control_port}",
        }
        for module in (*EXTRA_MODULES, *modules):
            wanted = f"module                 {module}.so"
            lines[f"#{wanted}"] = wanted
        configured(CONFIG / "config", home / "config", lines | (swaps or {}))
        plain = f"<sip:{CALLER}@127.0.0.1>;regint=0"
        configured(CONFIG / "accounts", home / "accounts", {f"\n{plain}": f"\n{account or plain}"})
        # -s: each message in the log.
        super().__init__(name, ["baresip", "-f", home, "-s"], log_dir, cwd=home)
        self.seen, self.events, self.rest = [], [], b""
        self.control = until("baresip's control port", self._connect, START_S)

    def _connect(self):
        if not self.alive():
            raise Failed(f"baresip ended at once: {self.text()[-800:]}")
        try:
            return socket.create_connection(("127.0.0.1", self.control_port), 1)
        except OSError:
            return None

    def stop(self, wait_s=5.0):
        self.control.close()
        return super().stop(wait_s)

    def ask(self, command, params=""):
        """A command such as `dial`, `hold`, `resume`, `hangup`, `reginfo`."""
        text = json.dumps({"command": command, "params": params, "token": command}).encode()
        self.control.sendall(b"%d:%s," % (len(text), text))

    def happened(self, kind):
        """Has an event such as CALL_ESTABLISHED come?"""
        self.control.settimeout(0.01)
        try:
            while piece := self.control.recv(65536):
                self.rest += piece
        except OSError:
            pass
        while b":" in self.rest:
            length, _, rest = self.rest.partition(b":")
            n = int(length)
            if len(rest) < n + 1:
                break
            self.events.append(json.loads(rest[:n]))
            self.rest = rest[n + 1 :]
        return any(e.get("type") == kind for e in self.events)

    def until(self, kind, within_s):
        """Waits for an event."""

        def look():
            if self.happened(kind):
                return True
            if kind != "CALL_CLOSED" and self.happened("CALL_CLOSED"):
                raise Failed(f"baresip: the call closed before {kind}: {self.events[-1]}")
            if not self.alive():
                raise Failed(f"baresip ended before {kind}: {self.text()[-800:]}")
            return False

        until(f"baresip: {kind}", look, within_s)

    def registered(self, within_s=15):
        """Waits for its registration; the event may have come before we listened, its log has it."""
        until("baresip: registered", lambda: "[1 binding]" in self.text() or self.happened("REGISTER_OK"), within_s)

    def call(self, uri):
        """Dials and waits for the answer."""
        self.ask("dial", uri)
        self.until("CALL_ESTABLISHED", ANSWER_S)

    def until_over(self, within_s):
        self.until("CALL_CLOSED", within_s)

    def heard(self):
        """The recording of what came from the other side."""
        found = sorted(self.heard_dir.glob("*-dec.wav"))
        return found[-1] if found else self.heard_dir / "nothing-dec.wav"
