"""Processes and ports of a test: each process has a log, is ended by its id, and nothing outlives its case."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

STOP_WAIT_S = 10.0
# Below the kernel's ephemeral range, so that no outgoing socket takes a port between our look and a peer's bind.
PORTS_FROM, PORTS_TO = 12000, 32000
RANDOM = random.SystemRandom()


class Failed(Exception):
    """A case went wrong; the text says where."""


LIVE = set()


def stop_all_when_told():
    """On SIGTERM and Ctrl-C: what was started is killed, then we end."""

    def end(number, _frame):
        for process in list(LIVE):
            process.kill()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


class Process:
    """One process with its standard output and error in a file."""

    def __init__(self, name, argv, log_dir, *, env=None, cwd=None, stdin=None):
        self.name = name
        self.log = Path(log_dir) / f"{name}.log"
        with open(self.log, "ab") as out:
            self.child = subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        LIVE.add(self)
        # Each is a session of its own, and the kernel shares the processor out among sessions: `nice` of the whole run counts
        # only if the session has it, too.
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/autogroup").write_text(str(os.nice(0)))

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def text(self):
        return self.log.read_text(errors="replace")

    def say(self, line):
        """A line on its standard input."""
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def signal(self, number):
        """A signal, without waiting."""
        os.kill(self.pid, number)

    def kill(self):
        """SIGKILL: as if the machine had lost power."""
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
        self.child.wait(STOP_WAIT_S)
        LIVE.discard(self)

    def stop(self, wait_s=STOP_WAIT_S):
        """SIGTERM, and SIGKILL when that is not heard; the exit code."""
        if self.alive():
            os.kill(self.pid, signal.SIGTERM)
            try:
                return self.child.wait(wait_s)
            except subprocess.TimeoutExpired:
                self.kill()
        LIVE.discard(self)
        return self.child.returncode

    def ended(self, within_s):
        """Waits for its end; the exit code."""
        try:
            return self.child.wait(within_s)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{self.name} is still running after {within_s:.0f} s") from e


def until(what, holds, within_s, every_s=0.1):
    """Waits until `holds()` is true; its value."""
    deadline = time.monotonic() + within_s
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {within_s:.0f} s")
        time.sleep(every_s)


def _free(port, host, kinds):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            s = stack.enter_context(socket.socket(family, kind))
            try:
                s.bind((host, port))
            except OSError:
                return False
    return True


def ports(count=1, host="127.0.0.1"):
    """The first of `count` ports in a row, even, that nobody holds by UDP or TCP."""
    kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    for _ in range(200):
        first = RANDOM.randrange(PORTS_FROM, PORTS_TO - count) & ~1
        if all(_free(p, host, kinds) for p in range(first, first + count)):
            return first
    raise Failed(f"no {count} free ports in a row")


def command(argv, **kwargs):
    """Runs a command to its end; what it printed. A failure shows it."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False, **kwargs)
    if done.returncode != 0:
        raise Failed(f"{argv[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-800:]}")
    return done.stdout


def configured(source, target, swaps):
    """Copies a configuration of sip-config/ and puts this test's addresses, ports and paths in the place of those in it. A text
    that is not found fails: the tests use the very files that users read."""
    text = Path(source).read_text()
    for old, new in swaps.items():
        if old not in text:
            raise Failed(f"{source}: `{old}` is not in it any more")
        text = text.replace(old, str(new))
    Path(target).write_text(text)
    return Path(target)
