"""SIPp as a telephone: tests/sipp/*.xml, which `tests/real_wire.rs` uses, too."""

from pathlib import Path

import speech
from proc import ports
from service import CALLER, FIXTURES, ROOT

SCENARIOS = ROOT / "tests" / "sipp"
TRANSPORTS = {"UDP": "u1", "TCP": "t1"}


def paying(world, target, *, transport="UDP", name="sipp", before_s=0.0):
    """Starts the paying call of one caller; the process ends with code 0 when the service ended the call with a BYE."""
    home = Path(world.logs) / f"{name}-files"
    home.mkdir()
    (home / "speech.ul").write_bytes(speech.ulaw(world.prompts.timeline(FIXTURES / "alice", before_s=before_s)))
    argv = ["sipp", "-sf", SCENARIOS / "speaks_until_the_service_hangs_up.xml", "-s", "pay", "-key", "caller", CALLER]
    argv += ["-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", ports(), "-mp", ports(10), "-t", TRANSPORTS[transport]]
    argv += ["-m", "1", "-nostdin", "-timeout", "150s", "-trace_err", "-trace_msg", target]
    return world.process(name, argv, cwd=home)
