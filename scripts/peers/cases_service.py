"""The service as its unit in sip-config/systemd/ runs it."""

import shutil

import sipp
from cases import CALL_S, case, paid_over
from proc import Failed, command
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
    service.terminate()
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
