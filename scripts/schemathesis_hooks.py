"""Hooks of schemathesis, for tests/api/described.rs: what it makes up is asked of things that are there, each with an Idempotency-Key of its own.

Without them nearly all that fits the description is a 404, or a key that was used before, and what lies behind is never reached.
"""

import json
import os
import random
import re
from collections import defaultdict, deque

import schemathesis
from schemathesis.generation import GenerationMode

IDENTIFIER = re.compile(r"^([a-z]{3,4})_[a-z0-9]{1,40}$")
KEY = re.compile(r"^[!-~]{1,64}$")
# Of each kind the last that were seen; and how often one stands in for what was made up.
KEPT, SHARE = 20, 0.8
# What the caller of this made, by kind: things that nothing asked here can make. They are not taken away.
MADE = json.loads(os.environ.get("VOICEPAY_MADE", "{}"))

seen = defaultdict(lambda: deque(maxlen=KEPT))
draw = random.Random(1)
asked = 0


def keep(value):
    """Remembers every identifier of an answer."""
    if isinstance(value, dict):
        for each in value.values():
            keep(each)
    elif isinstance(value, list):
        for each in value:
            keep(each)
    elif isinstance(value, str) and (found := IDENTIFIER.match(value)) and value not in seen[found[1]]:
        seen[found[1]].append(value)


def real(value, kind=None, taken_away=False):
    """The same with identifiers of things that are there."""
    if isinstance(value, dict):
        return {name: real(each, name if name == "reference" else None, taken_away) for name, each in value.items()}
    if isinstance(value, list):
        return [real(each, None, taken_away) for each in value]
    if not isinstance(value, str):
        return value
    found = IDENTIFIER.match(value)
    kind = found[1] if found else kind
    made = [] if taken_away else MADE.get(kind, [])
    others = seen[kind]
    if kind is None or value in made or value in others or not (made or others) or draw.random() > SHARE:
        return value
    # As often one that was made before as one that was made here.
    return draw.choice(made if made and (not others or draw.random() < 0.5) else list(others))


@schemathesis.hook
def before_call(context, case, kwargs):
    global asked
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    for name in [n for n in case.headers or {} if n.lower() == "idempotency-key"]:
        if KEY.match(str(case.headers[name])) and draw.random() < SHARE:
            asked += 1
            case.headers[name] = f"schemathesis-{asked}"
    taken_away = case.method == "DELETE"
    if case.path_parameters:
        case.path_parameters = real(case.path_parameters, taken_away=taken_away)
    if case.query:
        case.query = real(case.query)
    if isinstance(case.body, (dict, list)):
        case.body = real(case.body)


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code < 300 and "application/json" in "".join(response.headers.get("content-type", [])):
        keep(response.json())
