"""Telephones that dial the service directly."""

import sipp
from baresip import Baresip
from cases import CALL_S, case, heard, notes, paid_over
from linphone import Linphone
from proc import Failed


@case("sipp-udp", "a call that pays", peer="SIPp")
def _(w):
    service = w.service()
    _sipp_pays(w, service, "UDP")
    return paid_over(service)


@case("sipp-tcp", "a call that pays", peer="SIPp", transport="TCP", needs=("sip.tcp",))
def _(w):
    service = w.service()
    _sipp_pays(w, service, "TCP")
    return paid_over(service)


def _sipp_pays(w, service, transport):
    phone = sipp.paying(w, service.at, transport=transport)
    code = phone.ended(CALL_S)
    if code != 0:
        raise Failed(f"sipp ended with {code}: {phone.text()[-300:]}")


def _baresip_pays(w, service, uri, *, codec="PCMU", rate=8000, **kwargs):
    phone = w.started(Baresip(w.logs, w.speech_file(rate=rate), **kwargs))
    phone.call(uri)
    phone.until_over(CALL_S)
    return notes(heard(phone.heard()), paid_over(service, codec=codec))


@case("baresip-udp", "a call that pays", peer="baresip")
def _(w):
    service = w.service()
    return _baresip_pays(w, service, f"sip:pay@{service.at}")


@case("baresip-hold", "the caller holds for ten seconds, resumes and pays", peer="baresip")
def _(w):
    service = w.service()
    # Held while the service speaks; the recording goes on, so it begins later.
    phone = w.started(Baresip(w.logs, w.speech_file()))
    phone.call(f"sip:pay@{service.at}")
    w.sleep(3)
    phone.ask("hold")
    w.sleep(10)
    phone.ask("resume")
    phone.until_over(CALL_S)
    return paid_over(service)  # its recording ends with the hold


@case("linphone-udp", "a call that pays", peer="linphonec")
def _(w):
    service = w.service()
    phone = w.started(Linphone(w.logs, w.speech_file()))
    phone.call(f"sip:pay@{service.at}")
    phone.until_over(CALL_S)
    return notes(heard(phone.heard()), paid_over(service))
