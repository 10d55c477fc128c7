"""Asterisk 16 and 22: as the caller, between a softphone and the service, as a registrar, as where callers are sent."""

from asterisk import PASSWORD
from baresip import Baresip
from cases import CALL_S, DIALOGS, HOLD_S, case, heard, holds, notes, paid_over
from proc import Failed, configured, ports, until
from service import ROOT

VERSIONS = (16, 22)
TRUNK = ROOT / "sip-config" / "trunk" / "voicepay.toml"
# As in pjsip.conf.
TRUNK_PASSWORDS = {"pbx.secret": "change-me-three", "pbx-in.secret": "change-me-four"}


def _automatic(w, version, extension="pay", *, service=None, channel="PJSIP/pay@voicepay", codec="PCMU", settings=None, **pbx):
    """The automatic caller of extensions.conf, straight from Asterisk to the service."""
    service = service or w.service(settings=settings)
    there = w.asterisk(version, service, **pbx)
    there.originate(extension, channel=channel)
    there.until_quiet(CALL_S)
    return notes(heard(there.heard()), paid_over(service, codec=codec))


def _softphone(w, version, *, service=None, before_s=0.0, **pbx):
    """The service, an Asterisk, and a baresip that is registered there."""
    service = service or w.service()
    there = w.asterisk(version, service, **pbx)
    account = f"<sip:alice@{there.at}>;auth_user=alice;auth_pass={PASSWORD};regint=60"
    phone = w.started(Baresip(w.logs, w.speech_file(before_s=before_s), account=account))
    phone.registered()
    return service, there, phone


def _by_tls(w):
    """A service with TLS, and what an Asterisk needs to reach it."""
    cert, key = w.pki().cert("asterisk")
    return {"service": w.tls_service(), "keys": {"asterisk.crt": cert, "asterisk.key": key, "ca.crt": w.pki().ca}}


def _register(version):
    peer = f"Asterisk {version}"
    name = f"asterisk{version}"

    @case(f"{name}-udp", "a call that pays", peer=peer)
    def udp(w):
        return _automatic(w, version)

    @case(f"{name}-tcp", "a call that pays", peer=peer, transport="TCP", needs=("sip.tcp",))
    def tcp(w):
        return _automatic(w, version, channel="PJSIP/pay@voicepay-tcp")

    @case(f"{name}-tls", "a call that pays", peer=peer, transport="TLS", media="PCMU, SRTP", needs=("sip.tls", "media.srtp"))
    def tls(w):
        return _automatic(w, version, channel="PJSIP/pay@voicepay-tls", **_by_tls(w))

    @case(f"{name}-g722", "a call that pays", peer=peer, media="G.722", needs=("media.codecs",))
    def g722(w):
        return _automatic(
            w, version, codec="G722", pjsip={"disallow = all\nallow = ulaw\n; Voice": "disallow = all\nallow = g722\n; Voice"}
        )

    @case(f"{name}-softphone", "a registered softphone dials in and pays", peer=f"baresip at {peer}")
    def softphone(w):
        service, there, phone = _softphone(w, version)
        phone.call(f"sip:700@{there.at}")
        phone.until_over(CALL_S)
        return notes(heard(phone.heard()), paid_over(service))

    @case(
        f"{name}-softphone-tls",
        "a registered softphone dials in and pays; between Asterisk and us TLS",
        peer=f"baresip at {peer}",
        transport="UDP, TLS",
        media="PCMU, SRTP",
        needs=("sip.tls", "media.srtp"),
    )
    def softphone_tls(w):
        service, there, phone = _softphone(
            w, version, extensions={"VOICEPAY = voicepay": "VOICEPAY = voicepay-tls"}, **_by_tls(w)
        )
        phone.call(f"sip:700@{there.at}")
        phone.until_over(CALL_S)
        return notes(heard(phone.heard()), paid_over(service))

    @case(
        f"{name}-hold", "a registered softphone holds for ten seconds, resumes and pays", peer=f"baresip at {peer}", needs=DIALOGS
    )
    def hold(w):
        service, there, phone = _softphone(w, version, before_s=HOLD_S)
        return holds(w, service, phone, f"sip:700@{there.at}")

    @case(f"{name}-keys", "the card number on the keypad, counting aloud, pays", peer=peer, media="PCMU, RFC 4733")
    def keys(w):
        return _automatic(w, version, "keys")

    @case(f"{name}-keys-info", "the keys by SIP INFO", peer=peer, media="PCMU, INFO", needs=DIALOGS)
    def keys_info(w):
        return _automatic(w, version, "keys", pjsip={"dtmf_mode = rfc4733\n; The caller's": "dtmf_mode = info\n; The caller's"})

    @case(f"{name}-prack", "reliable provisional answers required (100rel, PRACK); pays", peer=peer, needs=DIALOGS)
    def prack(w):
        return _automatic(w, version, settings={"sip.ring_ms": 1500}, pjsip={"timers = yes": "timers = yes\n100rel = required"})

    @case(f"{name}-timer", "a session timer of 90 s, refreshed within the call; pays", peer=peer, needs=DIALOGS)
    def timer(w):
        timers = "timers = always\ntimers_min_se = 90\ntimers_sess_expires = 90"
        return _automatic(w, version, pjsip={"timers = yes": timers})

    @case(f"{name}-transfer", "a caller asks for a person (0): REFER to the desk", peer=peer, needs=("dialogue.person", *DIALOGS))
    def transfer(w):
        return _person(w, version)

    @case(
        f"{name}-transfer-refused",
        "the same where REFER is refused: the call to the desk is bridged",
        peer=peer,
        needs=("dialogue.person", *DIALOGS),
    )
    def transfer_refused(w):
        return _person(w, version, pjsip={"allow_transfer = yes": "allow_transfer = no"})

    @case(
        f"{name}-trunk",
        "we register at it, passwords are asked for both ways, its call pays",
        peer=peer,
        needs=("sip.trunk",),
    )
    def trunk(w):
        data = w.data()
        for file, password in TRUNK_PASSWORDS.items():
            (data.dir / file).write_text(password + "\n")
            (data.dir / file).chmod(0o600)
        # Asterisk first: the trunk's target must be known when the service starts.
        there = w.asterisk(version, None)
        service = w.service(data, config=configured(TRUNK, w.logs / "voicepay.toml", {"127.0.0.1:5080": there.at}))
        until("registered at Asterisk", lambda: "payments/sip:" in there.cli("pjsip show contacts"), 20, every_s=0.5)
        there.originate("pay", channel="PJSIP/payments")
        there.until_quiet(CALL_S)
        note = notes(heard(there.heard()), paid_over(service))
        trunk = service.data.detail()["trunk"]
        if trunk != "pbx":
            raise Failed(f"the record names the trunk {trunk}")
        return note


def _person(w, version, **pbx):
    """A caller asks for a person. Through Asterisk's own dialplan, as a softphone's call would go: REFER needs two sides."""
    sip = ports(2)
    service = w.service(settings={"dialogue.person": f"sip:desk@127.0.0.1:{sip}"})
    there = w.asterisk(version, service, sip=sip, **pbx)
    there.originate("person", channel="Local/700@softphones/n")
    until("the desk answers", lambda: "the desk answered" in there.events(), CALL_S, every_s=0.5)
    there.until_quiet(CALL_S)
    if service.data.charges():
        raise Failed("somebody was charged")
    verdict = service.data.calls()[-1]["verdict"]
    if verdict != "Person":
        raise Failed(f"the verdict is {verdict}: {service.data.told()}")
    return None


for _version in VERSIONS:
    _register(_version)
