"""What a case is, and the world that it runs in."""

import json
import time
from dataclasses import dataclass, field
from typing import Callable

import asterisk
import pki
import speech
from proc import Failed, Process, command, until
from service import CALLER, FIXTURES, ROOT, Data, Service, binary

ALL = []
# The discard port: where nobody listens.
NOBODY = "127.0.0.1:9"
# A paying call takes 52 s; a busy machine is given twice that.
CALL_S = 130.0
# What the caller must have heard of the service at least: welcome, question, read-back and receipt are 36 s of speech.
HEARD_AT_LEAST_S = 15.0


@dataclass
class Case:
    """One case: a name for the command line, a sentence, who, how, and what the binary must have for it."""

    name: str
    what: str
    peer: str
    transport: str
    media: str
    run: Callable
    needs: tuple = field(default=())


def case(name, what, *, peer, transport="UDP", media="PCMU", needs=()):
    """Registers the function below it."""

    def register(run):
        ALL.append(Case(name, what, peer, transport, media, run, tuple(needs)))
        return run

    return register


class World:
    """Directories of a case and what it started; all of it is stopped when the case ends."""

    prompts = None
    base = None

    def __init__(self, logs, stack, transport):
        self.logs, self.stack, self.transport = logs, stack, transport

    @classmethod
    def prepare(cls, base):
        """Once a run: the furnished data directory, and how long the prompts last."""
        cls.base = base
        cls.prompts = speech.Prompts.learn(asterisk.tree(22).parent, ROOT, lambda: cls._own_call(base))
        Data.fresh(base / "cases" / "first" / "data")  # enrols once, before cases run side by side

    @classmethod
    def _own_call(cls, base):
        data = Data.fresh(base / "cases" / "learn" / "data")
        service = Service(data, base)
        try:
            script = FIXTURES / "scripts" / "pay.toml"
            out = command([binary(), "--json", "call", f"sip:pay@{service.at}", "--script", script, "--from", CALLER], cwd="/")
            return [json.loads(line) for line in out.splitlines()]
        finally:
            service.stop()

    @staticmethod
    def sleep(seconds):
        """Lets the call go on."""
        time.sleep(seconds)

    def started(self, process):
        """A process that is stopped with the case, the last one first."""
        self.stack.callback(process.stop)
        return process

    def process(self, name, argv, **kwargs):
        return self.started(Process(name, argv, self.logs, **kwargs))

    def data(self, name="data"):
        return Data.fresh(self.logs / name)

    def service(self, data=None, **kwargs):
        service = self.started(Service(data or self.data(), self.logs, **kwargs))
        # What carries the last step to us, as the case says it.
        service.carrier = next((t for t in ("TLS", "TCP") if t in self.transport), "UDP")
        return service

    def pki(self):
        """The authority of this case."""
        self.authority = getattr(self, "authority", None) or pki.Pki(self.logs)
        return self.authority

    def tls_service(self, **kwargs):
        """A service that also listens for TLS, at the port after its own."""
        cert, key = self.pki().cert("voicepay")
        files = {"sip.tls.certificate": cert, "sip.tls.private_key": key, "sip.tls.server_ca": self.pki().ca}
        return self.service(tls=files, **kwargs)

    def asterisk(self, version, service, **kwargs):
        at, tls_at = (service.at, service.tls_at) if service else (NOBODY, NOBODY)
        return self.started(asterisk.Asterisk(version, self.logs, at, tls_at=tls_at, **kwargs))

    def speech_file(self, name="speech.wav", rate=speech.RATE_HZ, voice="alice", **kwargs):
        """The caller of a telephone that can't hear."""
        samples = self.prompts.timeline(FIXTURES / voice, **kwargs)
        return speech.write(self.logs / name, speech.resampled(samples, rate), rate)


def paid_over(service, *, codec="PCMU", times=1):
    """One charge, books that balance, and a record that says what the call was; a note for the report."""
    record = service.data.paid(times)
    if record["codec"].upper() != codec:
        raise Failed(f"the call's record says {record['codec']}, wanted {codec}")
    return line(service)


def line(service):
    """The call detail record: the call went as the case says, by signalling and encryption; a note of the quality."""
    detail = until("the call detail record is there", service.data.detail, 5)
    wanted = (service.carrier, service.carrier == "TLS")
    if (detail["transport"], detail["secure"]) != wanted:
        raise Failed(f"the call went by {detail['transport']}, secure: {detail['secure']}; wanted {wanted}")
    media = detail.get("media") or {}
    told = [f"{key} {media[key]}" for key in ("mos_x100", "jitter_ms", "lost_permille", "rtt_ms") if media.get(key) is not None]
    return ", ".join(told)


def heard(recording):
    """The peer heard the service speak; a note."""
    if not recording.exists():
        raise Failed(f"{recording.name}: the peer recorded nothing")
    seconds = speech.heard_s(recording)
    if seconds < HEARD_AT_LEAST_S:
        raise Failed(f"the peer heard {seconds:.1f} s of the service, wanted {HEARD_AT_LEAST_S:.0f}")
    return f"heard {seconds:.0f} s"


# Into the welcome; what is played waits for so long, and so does the caller's recording.
HOLD_AFTER_S, HOLD_S = 3.0, 10.0


def holds(w, service, phone, uri):
    """The caller dials, holds, resumes and pays. Its recording ends with the hold, so what it heard isn't looked at."""
    phone.call(uri)
    w.sleep(HOLD_AFTER_S)
    phone.ask("hold")
    w.sleep(HOLD_S)
    phone.ask("resume")
    phone.until_over(CALL_S)
    note = paid_over(service)
    told = service.data.told()
    if "puts us on hold" not in told or "is back from hold" not in told:
        raise Failed(f"the record knows of no hold: {told}")
    return note


# What a binary has that keeps dialogs of its own.
DIALOGS = ("sip.session_expires_s",)


def notes(*parts):
    return ", ".join(p for p in parts if p)
