"""linphonec with the settings of sip-config/linphone/, files for microphone and loudspeaker, commands by standard input."""

import contextlib
import subprocess
from pathlib import Path

from proc import Failed, Process, configured, ports, until
from service import ROOT

CONFIG = ROOT / "sip-config" / "linphone"
START_S = 20.0
ANSWER_S = 20.0


class Linphone(Process):
    """A softphone. `speech` is a WAV."""

    def __init__(self, log_dir, speech, *, swaps=None, name="linphonec"):
        home = Path(log_dir) / name
        (home / ".local/share/linphone").mkdir(parents=True)  # it does not make it, and then has no database
        self.recording, self.speech = home / "heard.wav", speech
        sip, rtp = ports(2), ports(40)
        lines = {"sip_port=5070": f"sip_port={sip}", "7078-7178": f"{rtp}-{rtp + 38}"}
        config = configured(CONFIG / "linphonerc", home / "linphonerc", lines | (swaps or {}))
        library = home / "library.log"
        argv = ["linphonec", "-c", config, "-d", "1", "-l", library]
        super().__init__(name, argv, log_dir, env={"HOME": str(home)}, cwd=home, stdin=True)
        # A call before that fails: "no listening point".
        until(
            "linphonec listens",
            lambda: library.exists() and "Creating listening point" in library.read_text(errors="replace"),
            START_S,
        )
        self.say("soundcard use files")

    def call(self, uri):
        """Dials; speaks from the answer on."""
        self.say(f"record {self.recording}")
        self.say(f"call {uri}")
        until("linphonec: connected", self._connected, ANSWER_S)
        self.say(f"play {self.speech}")

    def _connected(self):
        text = self.text()
        if not self.alive() or "error" in text.lower() and "Call" in text:
            raise Failed(f"linphonec: {text[-600:]}")
        return "connected" in text.lower()

    def until_over(self, within_s):
        until("linphonec: the call is over", lambda: "ended" in self.text() or "terminated" in self.text().lower(), within_s)

    def stop(self, wait_s=8.0):
        if self.alive():
            # It may be gone at any moment; the signal below settles what is left.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self.say("quit")
                self.child.wait(wait_s)
        return super().stop(wait_s)

    def heard(self):
        return self.recording
