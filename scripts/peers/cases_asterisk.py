"""Asterisk 16 and 22: as the caller, and between a registered softphone and the service."""

from asterisk import PASSWORD
from baresip import Baresip
from cases import CALL_S, case, heard, notes, paid_over

VERSIONS = (16, 22)
# Into the welcome.
HOLD_AFTER_S, HOLD_S = 3.0, 10.0


def _automatic(w, version, extension="pay", *, endpoint="voicepay", codec="PCMU", settings=None, **pbx):
    """The automatic caller of extensions.conf, straight from Asterisk to the service."""
    service = w.service(settings=settings)
    there = w.asterisk(version, service, **pbx)
    there.originate(extension, endpoint=endpoint)
    there.until_quiet(CALL_S)
    return notes(heard(there.heard()), paid_over(service, codec=codec))


def _softphone(w, version, **pbx):
    """The service, an Asterisk, and a baresip that is registered there."""
    service = w.service()
    there = w.asterisk(version, service, **pbx)
    account = f"<sip:alice@{there.at}>;auth_user=alice;auth_pass={PASSWORD};regint=60"
    phone = w.started(Baresip(w.logs, w.speech_file(), account=account))
    phone.registered()
    return service, there, phone


def _register(version):
    peer = f"Asterisk {version}"
    name = f"asterisk{version}"

    @case(f"{name}-udp", "a call that pays", peer=peer)
    def udp(w):
        return _automatic(w, version)

    @case(f"{name}-softphone", "a registered softphone dials in and pays", peer=f"baresip at {peer}")
    def softphone(w):
        service, there, phone = _softphone(w, version)
        phone.call(f"sip:700@{there.at}")
        phone.until_over(CALL_S)
        return notes(heard(phone.heard()), paid_over(service))

    @case(f"{name}-hold", "a registered softphone holds for ten seconds, resumes and pays", peer=f"baresip at {peer}")
    def hold(w):
        service, there, phone = _softphone(w, version)
        phone.call(f"sip:700@{there.at}")
        w.sleep(HOLD_AFTER_S)
        phone.ask("hold")
        w.sleep(HOLD_S)
        phone.ask("resume")
        phone.until_over(CALL_S)
        return paid_over(service)

    @case(f"{name}-keys", "the card number on the keypad, counting aloud, pays", peer=peer, media="PCMU, RFC 4733")
    def keys(w):
        return _automatic(w, version, "keys")

    @case(f"{name}-keys-info", "the keys by SIP INFO", peer=peer, media="PCMU, INFO", needs=("sip.info_keys",))
    def keys_info(w):
        return _automatic(w, version, "keys", pjsip={"dtmf_mode = rfc4733\n; The caller's": "dtmf_mode = info\n; The caller's"})

    @case(f"{name}-tcp", "a call that pays", peer=peer, transport="TCP", needs=("sip.tcp",))
    def tcp(w):
        return _automatic(w, version, endpoint="voicepay-tcp")


for _version in VERSIONS:
    _register(_version)
