"""The service as its unit in sip-config/systemd/ runs it."""

import shutil
import signal
import socket

import sipp
from cases import CALL_S, case, paid_over
from proc import Failed, command, until
from service import ROOT

UNIT = ROOT / "sip-config" / "systemd" / "voicepay.service"
# systemd's own measure of exposure in tenths: 100 is unprotected.
EXPOSURE_BELOW = 20


def _setting(name):
    """Values of a setting in the unit."""
    lines = UNIT.read_text().splitlines()
    return [line.split("=", 1)[1] for line in lines if line.startswith(name + "=")]


@case(
    "systemd-stop",
    "stopped in the middle of a call as the unit does it: the call pays, new ones are refused, exit code 0",
    peer="SIPp",
)
def _(w):
    drain = dict(e.split("=", 1) for e in _setting("Environment"))["VOICEPAY__SERVICE__DRAIN_S"]
    if int(drain) >= int(_setting("TimeoutStopSec")[0]) or _setting("KillSignal") != ["SIGTERM"]:
        raise Failed("systemd would kill before the drain is over")
    service = w.service(settings={"service.drain_s": drain})
    phone = sipp.paying(w, service.at)
    w.sleep(5)
    service.signal(signal.SIGTERM)
    w.sleep(1)
    late = sipp.paying(w, service.at, name="late")
    if late.ended(20) == 0:
        raise Failed("a call was taken after SIGTERM")
    code = phone.ended(CALL_S)
    left = service.ended(20)
    if (code, left) != (0, 0):
        raise Failed(f"sipp ended with {code}, the service with {left}")
    return paid_over(service)


@case(
    "systemd-reload",
    "it tells systemd how it is; reloaded within a call, a wrong configuration is refused, a right one taken; pays",
    peer="SIPp",
    needs=("ops.cdr_numbers",),
)
def _(w):
    if _setting("Type") != ["notify"] or "-HUP" not in _setting("ExecReload")[0]:
        raise Failed("the unit isn't what this case tests")
    config = w.logs / "voicepay.toml"
    config.write_text("[sip]\nmax_calls = 5\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = w.logs / "notify"
        manager.bind(str(path))
        manager.settimeout(15)
        watchdog_us = int(_setting("WatchdogSec")[0]) * 1_000_000
        service = w.service(config=config, env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(watchdog_us)})

        def told(word):
            while word not in manager.recv(4096).decode().splitlines():
                pass

        told("READY=1")
        phone = sipp.paying(w, service.at)
        w.sleep(5)
        config.write_text("[sip]\nmax_calls = 5\nno_such_key = 1\n")
        service.signal(signal.SIGHUP)
        until("the wrong configuration is refused", lambda: '"reload_refused"' in service.text(), 10)
        config.write_text("[sip]\nmax_calls = 7\n")
        service.signal(signal.SIGHUP)
        told("RELOADING=1")
        until("the right one is taken", lambda: '"reloaded"' in service.text(), 10)
        told("WATCHDOG=1")
        code = phone.ended(CALL_S)
        if code != 0:
            raise Failed(f"sipp ended with {code}")
        service.stop()
        told("STOPPING=1")
    return paid_over(service)


@case(
    "systemd-unit", "the unit is well-formed, and exposes little by systemd's own measure", peer="systemd", transport="", media=""
)
def _(w):
    if not shutil.which("systemd-analyze"):
        raise Failed("systemd-analyze is not there")
    # The program isn't installed on a test machine.
    unit = w.logs / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/voicepay", "/bin/true"))
    said = command(["systemd-analyze", "verify", "--man=no", unit])
    told = command(["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_BELOW}", unit]).strip().splitlines()
    if said.strip():
        raise Failed(said)
    return "exposure " + told[-1].split(": ")[1].split()[0]
