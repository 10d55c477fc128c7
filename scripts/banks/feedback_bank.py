#!/usr/bin/env python3
"""A bank that gives feedback: it announces pending deductions and deducts when it is instructed to (docs/BANK.md). On Python's
standard library alone, Ed25519 by RFC 8032 included, so that nothing on this side is ours.

It believes an instruction only with a good signature, deducts each identifier once, and keeps a ledger that survives being
killed. What goes wrong is said beforehand, over POST /_faults; what it announces, over POST /_tell. It ends when its standard
input does.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300
BODY_LIMIT_BYTES = 1 << 20

# Ed25519 (RFC 8032 section 5.1): slow, short, and checked against the RFC's first test vector at the start.
FIRST_SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
FIRST_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def x_of(y, odd):
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT % P
    if x * x % P != square:
        raise ValueError("no point of the curve")
    return P - x if x & 1 != odd else x


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE = (x_of(BASE_Y, 0), BASE_Y)


def add(a, b):
    # Extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
    m, n = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    c, d = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = n - m, d - c, d + c, n + m
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(k, point):
    point, total = (point[0], point[1], 1, point[0] * point[1] % P), (0, 1, 1, 0)
    while k:
        if k & 1:
            total = add(total, point)
        point, k = add(point, point), k >> 1
    inverse = pow(total[2], P - 2, P)
    return (total[0] * inverse % P, total[1] * inverse % P)


def packed(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def unpacked(data):
    number = int.from_bytes(data, "little")
    y = number & (1 << 255) - 1
    return (x_of(y, number >> 255), y)


def number_of(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % L


def halves(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & ~7 & (1 << 254) - 1 | 1 << 254
    return scalar, digest[32:]


def public_of(seed):
    return packed(times(halves(seed)[0], BASE))


def ed25519_sign(seed, message):
    scalar, prefix = halves(seed)
    nonce = number_of(prefix, message)
    point = packed(times(nonce, BASE))
    return point + ((nonce + number_of(point, public_of(seed), message) * scalar) % L).to_bytes(32, "little")


def ed25519_good(public, message, signature):
    if len(public) != 32 or len(signature) != 64:
        return False
    response = int.from_bytes(signature[32:], "little")
    if response >= L:
        return False
    try:
        point, key = unpacked(signature[:32]), unpacked(public)
    except ValueError:
        return False
    left, right = times(response, BASE), times(number_of(signature[:32], public, message), key)
    right = add((point[0], point[1], 1, point[0] * point[1] % P), (right[0], right[1], 1, right[0] * right[1] % P))
    inverse = pow(right[2], P - 2, P)
    return left == (right[0] * inverse % P, right[1] * inverse % P)


def content(message_id, at, body):
    return f"{message_id}.{at}.".encode() + body


class Bank:
    """Its books."""

    def __init__(self, args):
        self.tell_url, self.ledger_path = args.tell, args.ledger
        self.secret = base64.b64decode(args.secret.removeprefix("whsec_"))
        self.seed = bytes.fromhex(args.seed)
        self.their_keys = [base64.b64decode(key) for key in args.their_key]
        self.faults, self.lock = [], threading.Lock()
        self.done = {}
        if os.path.exists(self.ledger_path):
            for line in open(self.ledger_path, encoding="utf-8"):
                line = json.loads(line)
                if line["did"] in ("deducted", "refunded", "refused"):
                    self.done[line["instruction_id"]] = (line["sha256"], line["did"])
        self.ledger = open(self.ledger_path, "a", encoding="utf-8")

    def write(self, **line):
        self.ledger.write(json.dumps(line) + "\n")
        self.ledger.flush()
        os.fsync(self.ledger.fileno())

    def next_fault(self):
        with self.lock:
            return self.faults.pop(0) if self.faults else None

    def believed(self, headers, body):
        message_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not at.isdigit() or abs(time.time() - int(at)) > TOLERANCE_S:
            return False
        for one in headers.get("webhook-signature", "").split():
            scheme, _, value = one.partition(",")
            if scheme == "v1a" and any(
                ed25519_good(key, content(message_id, at, body), base64.b64decode(value)) for key in self.their_keys
            ):
                return True
        return False

    def instructed(self, headers, body, fault):
        """Status and answer of an instruction."""
        if not self.believed(headers, body):
            self.write(did="failed", why="an instruction without a good signature")
            return 401, {"detail": "not signed by a key that we know"}
        asked = json.loads(body)
        wanted = {"instruction_id", "type", "reference", "message_id", "amount_minor", "currency", "account", "at"}
        known = set(asked) == wanted and asked["type"] in ("deduct", "refund")
        if not known or asked["instruction_id"] != headers.get("webhook-id"):
            self.write(did="failed", why="an instruction that is not as it should be", asked=asked)
            return 400, {"detail": "not an instruction"}
        sha256 = hashlib.sha256(body).hexdigest()
        with self.lock:
            if asked["instruction_id"] in self.done:
                before, result = self.done[asked["instruction_id"]]
                if before != sha256:
                    self.write(did="failed", why="one identifier for two instructions", asked=asked)
                    return 409, {"detail": "this identifier was used for something else"}
                self.write(did="asked again", instruction_id=asked["instruction_id"])
            else:
                result = "refused" if fault == "refuse" else {"deduct": "deducted", "refund": "refunded"}[asked["type"]]
                self.done[asked["instruction_id"]] = (sha256, result)
                self.write(did=result, sha256=sha256, **asked)
        answer = {"instruction_id": asked["instruction_id"], "result": result}
        if result == "refused":
            answer["reason"] = "insufficient_funds"
        if fault == "other_id":
            answer["instruction_id"] = "ins_other"
        if fault == "other_amount":
            answer["amount_minor"] = asked["amount_minor"] + 1
        if fault == "other_result":
            answer["result"] = "refunded" if asked["type"] == "deduct" else "deducted"
        return 200, answer

    def tell(self, order):
        """Announces a pending deduction; `how` says what is wrong with it."""
        body = order["raw"].encode() if "raw" in order else json.dumps(order["message"]).encode()
        message_id = order.get("id", order.get("message", {}).get("message_id", "msg_raw"))
        how = order.get("how", "shared")
        at = int(time.time()) + {"stale": -400, "ahead": 400}.get(how, 0)
        signed = content(message_id, at, body)
        shared = hmac.digest(self.secret, signed, "sha256")
        if how == "forged":
            shared = hmac.digest(b"somebody else's secret altogether", signed, "sha256")
        signature = "v1," + base64.b64encode(shared).decode()
        if how == "ed25519":
            signature = "v1a," + base64.b64encode(ed25519_sign(self.seed, signed)).decode()
        if how == "altered":
            body = body.replace(b'"amount_minor": 1', b'"amount_minor": 9')
        headers = {"content-type": "application/json", "webhook-id": message_id, "webhook-timestamp": str(at)}
        if how != "unsigned":
            headers["webhook-signature"] = signature
        request = urllib.request.Request(order.get("to", self.tell_url), data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return {"status": answer.status, "body": answer.read().decode()}
        except urllib.error.HTTPError as error:
            return {"status": error.code, "body": error.read().decode()}
        except (urllib.error.URLError, OSError) as error:
            return {"status": 0, "body": str(error)}

    def day(self, date):
        """The end of a day: every instruction of that date and what came of it, then how many and how much."""
        lines, sums = [], {}
        for line in open(self.ledger_path, encoding="utf-8"):
            line = json.loads(line)
            if line["did"] in ("deducted", "refunded", "refused") and line["at"].startswith(date):
                fields = ("instruction_id", "reference", "amount_minor", "currency", "account", "did", "at")
                lines.append(",".join(str(line[field]) for field in fields))
                sums[line["currency"]] = sums.get(line["currency"], 0) + line["amount_minor"]
        total = [f"{currency}={minor}" for currency, minor in sorted(sums.items())]
        head = "instruction_id,reference,amount_minor,currency,account,result,at"
        return "\n".join([head, *lines, ",".join(["total", str(len(lines)), *total])]) + "\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bank = None

    def log_message(self, *_):
        pass

    def answer(self, status, text, kind="application/json"):
        data = text.encode()
        try:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # nobody waited, or nobody is left

    def drop(self):
        self.close_connection = True
        self.connection.close()

    def do_GET(self):
        _, _, query = self.path.partition("?date=")
        self.answer(200, self.bank.day(query), "text/csv")

    def do_POST(self):
        body = self.rfile.read(min(int(self.headers.get("content-length", 0)), BODY_LIMIT_BYTES))
        if self.path == "/_faults":
            with self.bank.lock:
                self.bank.faults = json.loads(body)
            return self.answer(200, "{}")
        if self.path == "/_tell":
            return self.answer(200, json.dumps(self.bank.tell(json.loads(body))))
        fault = self.bank.next_fault()
        if fault == "drop_before":
            return self.drop()
        if fault == "error_before":
            return self.answer(503, "{}")
        status, answer = self.bank.instructed(self.headers, body, fault)
        if fault == "drop_after":
            return self.drop()
        if fault == "error_after":
            return self.answer(500, "{}")
        if fault == "conflict_after":
            return self.answer(409, "{}")
        if fault == "nonsense":
            return self.answer(200, "<html>well done</html>")
        if fault == "late":
            time.sleep(2)
        self.answer(status, json.dumps(answer))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tell", default="", help="where pending deductions are announced")
    parser.add_argument("--secret", required=True, help="whsec_…: signs what it announces")
    parser.add_argument("--seed", default=FIRST_SEED, help="of its Ed25519 key, hexadecimal")
    parser.add_argument("--their-key", action="append", default=[], help="base64: whose instructions it believes")
    args = parser.parse_args()
    first = bytes.fromhex(FIRST_SEED)
    assert public_of(first).hex() == FIRST_PUBLIC and ed25519_good(public_of(first), b"", ed25519_sign(first, b""))
    Handler.bank = Bank(args)
    server = ThreadingHTTPServer(("127.0.0.1", args.port), Handler)
    server.daemon_threads = True
    print(f"listening {server.server_address[1]}", flush=True)
    print(base64.b64encode(public_of(Handler.bank.seed)).decode(), flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
