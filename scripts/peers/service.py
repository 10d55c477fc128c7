"""The service under test: the real binary, a fresh data directory, a synthetic customer, and what it wrote down."""

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

from proc import Failed, Process, command, ports, until

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "audio-fixtures"
# Who can call, by the voice that the fixtures have of them. A recording that was heard before is refused, so a case with more
# than one call needs as many callers.
CALLERS = {"alice": "+447700900123", "bob": "+447700900124", "dave": "+447700900125"}
CALLER = CALLERS["alice"]
AMOUNT, AMOUNT_MINOR = "19.99", 1999
# Loading models takes a second; on a busy machine more.
START_S = 60.0
RTP_PORTS = 40


def binary():
    """The binary to test."""
    named = os.environ.get("VOICEPAY_BIN")
    built = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "voicepay"
    path = Path(named) if named else built
    if not path.exists():
        raise Failed(f"{path} is not there: run `make build`, or set VOICEPAY_BIN")
    return path


def pan():
    """The card number that the fixtures speak."""
    for line in (FIXTURES / "manifest.toml").read_text().splitlines():
        if line.startswith("card ="):
            return line.split('"')[1]
    raise Failed("the manifest of the fixtures names no card")


def has_key(key):
    """Does this binary know a configuration key, such as `sip.tls.certificate`? Array tables count by the name before `[`."""
    section, _, name = key.rpartition(".")
    text = command([binary(), "config", "print", "--defaults"], cwd="/")
    current = ""
    for line in text.splitlines():
        line = line.lstrip("# ")
        if line.startswith("["):
            current = line.strip("[]").strip()
            if current == key:
                return True
        elif current == section and line.split("=")[0].strip() == name:
            return True
    return False


class Data:
    """A data directory with customers, their cards, voices and a request each. Several nodes may share it."""

    def __init__(self, directory):
        self.dir = Path(directory)

    @classmethod
    def fresh(cls, directory):
        """A copy of the one that was made first: enrolling takes a moment."""
        data = cls(directory)
        template = data.dir.parent.parent / "template"
        if not template.exists():
            Data(template)._furnish()
        shutil.copytree(template, data.dir)
        return data

    def env(self):
        return {"VOICEPAY__SERVICE__DATA_DIR": str(self.dir)}

    def run(self, *args, stdin=""):
        """A command of the product on this directory; its answer."""
        done = subprocess.run(
            [binary(), "--json", *args],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **self.env()},
            cwd="/",
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"voicepay {' '.join(args)}: {done.stderr.strip()[-600:]}")
        lines = done.stdout.strip().splitlines()
        return json.loads(lines[-1]) if lines else None

    def _furnish(self):
        payee = self.run("payee", "add", "--name", "City Water")["id"]
        for voice, number in CALLERS.items():
            customer = self.run("customer", "add", "--name", f"{voice.title()} Example", "--number", number)["id"]
            self.run("card", "add", "--customer", customer, stdin=pan() + "\n")
            self.run("request", "add", "--customer", customer, "--payee", payee, "--amount", AMOUNT, "--currency", "USD")
            takes = [str(FIXTURES / voice / f"enrol_{i}.wav") for i in (1, 2, 3)]
            self.run("enrol", "from-wav", "--customer", customer, "--consent-by", "the peer tests", *takes)

    def payments(self):
        return self.run("payments", "list")["payments"]

    def charges(self):
        """What the bank did: the lines of its journal in which money moved."""
        journal = self.dir / "sandbox-journal.jsonl"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [c for c in map(json.loads, lines) if c["did"] in ("charged", "charged_silently", "charged_then_reversed")]

    def calls(self):
        """Call records, oldest first."""
        with sqlite3.connect(f"file:{self.dir / 'voicepay.db'}?mode=ro", uri=True) as db:
            rows = db.execute("SELECT verdict, ended_at IS NOT NULL, record FROM calls ORDER BY started_at").fetchall()
        return [{**(json.loads(record) or {}), "verdict": verdict, "ended": bool(ended)} for verdict, ended, record in rows]

    def detail(self):
        """The call detail record of the call that ended last."""
        lines = [line for path in sorted((self.dir / "cdr").glob("cdr-*.jsonl")) for line in path.read_text().splitlines()]
        return json.loads(lines[-1]) if lines else {}

    def paid(self, times=1):
        """Exactly `times` payments, each charged once, and books that balance; the last call's record."""
        payments, charges = self.payments(), self.charges()
        if [p["status"] for p in payments] != ["paid"] * times:
            raise Failed(f"payments: {[p['status'] for p in payments]}, wanted {times} paid; the calls: {self.told()}")
        if len(charges) != times or any(c["charged"]["minor"] != AMOUNT_MINOR for c in charges):
            raise Failed(f"the bank charged {[c['charged'] for c in charges]}, wanted {times} of {AMOUNT_MINOR}")
        self.run("books", "check")
        return self.calls()[-1]

    def paid_once_at_the_bank(self):
        """One payment, one charge, whatever the call's record says: its node is gone."""
        payments, charges = self.payments(), self.charges()
        if [p["status"] for p in payments] != ["paid"] or len(charges) != 1:
            raise Failed(f"payments {[p['status'] for p in payments]}, {len(charges)} charges")
        self.run("books", "check")

    def told(self):
        """The calls in a line each, for a failure's text."""
        told = []
        for call in self.calls():
            events = " | ".join(f"{e['at_ms']} {e['who']}: {e['what']}" for e in call.get("events", []))
            told.append(f"{call['verdict']}: {events}")
        return "\n".join(told)


class Service(Process):
    """`voicepay serve` on ports of its own."""

    def __init__(self, data, log_dir, *, name="voicepay", host="127.0.0.1", settings=None, tls=None, config=None, env=None):
        self.data, self.host = data, host
        self.rtp = ports(RTP_PORTS)
        self.sip_port = ports(2)  # the second for TLS
        where = f"[{host}]" if ":" in host else host
        env = {
            **(env or {}),
            **data.env(),
            "VOICEPAY__SIP__LISTEN": f"{where}:{self.sip_port}",
            "VOICEPAY__MEDIA__PORT_MIN": str(self.rtp),
            "VOICEPAY__MEDIA__PORT_MAX": str(self.rtp + RTP_PORTS - 1),
            "VOICEPAY__OPS__CDR_DIR": str(data.dir / "cdr"),
            "VOICEPAY_LOG": os.environ.get("VOICEPAY_LOG", "voicepay=debug,warn"),
        }
        if ":" in host:
            env["VOICEPAY__MEDIA__BIND_ADDRESS"] = host
        if config:
            env["VOICEPAY_CONFIG"] = str(config)
        settings = dict(settings or {})
        if tls:
            settings |= {"sip.tls.listen": self.tls_at, **tls}
        for key, value in settings.items():
            env["VOICEPAY__" + key.upper().replace(".", "__")] = str(value)
        super().__init__(name, [binary(), "--json", "serve"], log_dir, env=env, cwd=log_dir)
        until("voicepay serve listens", self._up, START_S)

    def _up(self):
        if not self.alive():
            raise Failed(f"voicepay serve ended at once: {self.text()[-800:]}")
        return '"event":"listening"' in self.text()

    @property
    def tls_at(self):
        where = f"[{self.host}]" if ":" in self.host else self.host
        return f"{where}:{self.sip_port + 1}"

    @property
    def at(self):
        where = f"[{self.host}]" if ":" in self.host else self.host
        return f"{where}:{self.sip_port}"
