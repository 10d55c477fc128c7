"""Kamailio as a dispatcher in front of two nodes that share one database and one bank."""

import time

from baresip import Baresip
from cases import CALL_S, case, heard, notes
from kamailio import Kamailio
from proc import Failed, until
from service import CALLERS

# Two OPTIONS missed, two seconds each, and some more.
FAILOVER_S = 8.0
# Nobody's number: hears that there is no account.
STRANGER = "<sip:+447700900199@127.0.0.1>;regint=0"


def _nodes(w):
    data = w.data()
    return data, [w.service(data, name=f"node{i}") for i in (1, 2)]


def _phone(w, voice):
    account = f"<sip:{CALLERS[voice]}@127.0.0.1>;regint=0"
    return w.started(Baresip(w.logs, w.speech_file(f"{voice}.wav", voice=voice), account=account, name=voice))


@case("kamailio-two-nodes", "two calls one after the other, one at each node, both pay", peer="baresip, Kamailio")
def _(w):
    data, nodes = _nodes(w)
    front = w.started(Kamailio(w.logs, [n.at for n in nodes]))
    said = []
    for i, voice in enumerate(("alice", "bob"), 1):
        phone = _phone(w, voice)
        phone.call(f"sip:pay@{front.at}")
        phone.until_over(CALL_S)
        said.append(heard(phone.heard()))
        data.paid(i)
    if sorted(front.sent_to()) != sorted(n.at for n in nodes):
        raise Failed(f"calls went to {front.sent_to()}")
    return notes(*said)


@case(
    "kamailio-node-killed",
    "a call pays; the node of the next is killed within it; two more at once are answered by the survivor, and pay",
    peer="baresip, Kamailio",
)
def _(w):
    data, nodes = _nodes(w)
    front = w.started(Kamailio(w.logs, [n.at for n in nodes]))

    first = _phone(w, "alice")
    first.call(f"sip:pay@{front.at}")
    first.until_over(CALL_S)
    data.paid(1)

    cut = _phone(w, "dave")
    cut.call(f"sip:pay@{front.at}")
    dead = next(n for n in nodes if n.at == front.sent_to()[-1])
    # Into the read-back: the card is known, nothing has been handed over.
    w.sleep(w.prompts.asked_s + 14)
    dead.kill()
    killed, survivor = time.monotonic(), next(n for n in nodes if n is not dead)
    if len(data.charges()) != 1:
        raise Failed(f"the call was cut before its yes, but the bank has {len(data.charges())} charges")

    third = _phone(w, "bob")
    third.call(f"sip:pay@{front.at}")
    # The next turn is the dead node's, and no OPTIONS has been missed yet: this call itself finds out.
    unlucky = w.started(Baresip(w.logs, w.logs / "bob.wav", account=STRANGER, name="stranger"))
    dialled = time.monotonic()
    unlucky.call(f"sip:pay@{front.at}")
    answered = time.monotonic() - dialled
    if dialled - killed > 2 or front.sent_to()[-2:] != [dead.at, survivor.at]:
        raise Failed(f"{dialled - killed:.1f} s after the kill, calls went to {front.sent_to()}")
    third.until_over(CALL_S)
    data.paid(2)

    if len({c["our_reference"] for c in data.charges()}) != 2:
        raise Failed("the bank saw an attempt twice")
    return notes(
        f"the call whose turn was the dead node's was answered after {answered:.1f} s", "the caller cut off was not charged"
    )


@case(
    "kamailio-killed-while-charging",
    "the node is killed at the yes; whatever it had handed over is finished by the other node: one charge",
    peer="baresip, Kamailio",
)
def _(w):
    data = w.data()
    # The acquirer takes its time, so that the kill falls between what was sent and what was answered.
    slow = {"gateway.sandbox_latency_ms": 4000, "processor.not_found_grace_ms": 6000, "processor.sweep_ms": 1000}
    nodes = [w.service(data, name=f"node{i}", settings=slow) for i in (1, 2)]
    front = w.started(Kamailio(w.logs, [n.at for n in nodes]))
    phone = _phone(w, "alice")
    phone.call(f"sip:pay@{front.at}")
    dead = next(n for n in nodes if n.at == front.sent_to()[-1])
    until("a payment is handed over", data.payments, CALL_S, every_s=0.2)
    w.sleep(1.5)
    dead.kill()
    until("the other node has finished it", lambda: [p["status"] for p in data.payments()] == ["paid"], 60, every_s=1)
    w.sleep(FAILOVER_S)
    data.paid_once_at_the_bank()
    return "charged once; the survivor wrote the receipt"
