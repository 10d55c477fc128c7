"""Telephones that dial the service directly."""

import sipp
from baresip import Baresip
from cases import CALL_S, DIALOGS, HOLD_S, case, heard, holds, notes, paid_over
from linphone import Linphone
from proc import Failed, ports
from service import CALLER


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


@case("baresip-tcp", "a call that pays", peer="baresip", transport="TCP", needs=("sip.tcp",))
def _(w):
    service = w.service()
    account = f"<sip:{CALLER}@127.0.0.1;transport=tcp>;regint=0"
    return _baresip_pays(w, service, f"sip:pay@{service.at};transport=tcp", account=account)


@case("baresip-tls", "a call that pays", peer="baresip", transport="TLS", media="PCMU, SRTP", needs=("sip.tls", "media.srtp"))
def _(w):
    service = w.tls_service()
    account = f"<sip:{CALLER}@127.0.0.1;transport=tls>;regint=0;mediaenc=srtp-mand"
    swaps = {"#sip_cafile             ca.crt": f"sip_cafile              {w.pki().ca}"}
    return _baresip_pays(w, service, f"sip:pay@{service.tls_at};transport=tls", account=account, modules=["srtp"], swaps=swaps)


@case("baresip-ipv6", "a call that pays", peer="baresip", transport="UDP, IPv6", needs=("sip.tcp",))
def _(w):
    service = w.service(host="::1")
    account = f"<sip:{CALLER}@[::1]>;regint=0"
    swaps = {"net_interface           127.0.0.1": "net_interface           ::1", "127.0.0.1:0": "[::1]:0"}
    return _baresip_pays(w, service, f"sip:pay@{service.at}", account=account, swaps=swaps)


@case("baresip-g722", "a call that pays", peer="baresip", media="G.722", needs=("media.codecs",))
def _(w):
    service = w.service(settings={"media.codecs": '["g722", "pcmu"]'})
    return _baresip_pays(w, service, f"sip:pay@{service.at}", codec="G722", rate=16000, modules=["g722"])


@case("baresip-opus", "a call that pays", peer="baresip", media="Opus", needs=("media.codecs",))
def _(w):
    service = w.service()
    return _baresip_pays(w, service, f"sip:pay@{service.at}", codec="OPUS", rate=48000, modules=["opus"])


@case("baresip-hold", "the caller holds for ten seconds, resumes and pays", peer="baresip", needs=DIALOGS)
def _(w):
    service = w.service()
    phone = w.started(Baresip(w.logs, w.speech_file(before_s=HOLD_S)))
    return holds(w, service, phone, f"sip:pay@{service.at}")


def _linphone_pays(w, service, uri, **kwargs):
    phone = w.started(Linphone(w.logs, w.speech_file(), **kwargs))
    phone.call(uri)
    phone.until_over(CALL_S)
    return notes(heard(phone.heard()), paid_over(service, codec="OPUS"))


@case("linphone-udp", "a call that pays", peer="linphonec", media="Opus")
def _(w):
    service = w.service()
    return _linphone_pays(w, service, f"sip:pay@{service.at}")


@case("linphone-tls", "a call that pays", peer="linphonec", transport="TLS", media="Opus, SRTP", needs=("sip.tls", "media.srtp"))
def _(w):
    service = w.tls_service()
    swaps = {
        "sip_tls_port=0": f"sip_tls_port={ports()}",
        "#root_ca=ca.crt": f"root_ca={w.pki().ca}",
        "media_encryption=none": "media_encryption=srtp\nmedia_encryption_mandatory=1",
    }
    # Its TLS library knows no addresses in certificates, only names.
    return _linphone_pays(w, service, f"sip:pay@localhost:{service.sip_port + 1};transport=tls", swaps=swaps)
