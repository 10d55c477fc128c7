"""A bank host that speaks ISO 8583, for tests: its codec is pyiso8583, so that the other side of the wire is not ours.

It keeps a ledger in a file, a JSON object a line, and knows it again when it is started anew. A request that it has seen
before (class, trace number, retrieval reference, terminal) is answered as before and booked no second time. It keeps no note of
a reversal whose original it doesn't know: an original that comes later is booked, as on a host that is no better than it must be.

Faults are chosen by the amount, in minor units, and strike the first time that a request is seen:

    7001  lost before it is booked, no answer        7011  booked, no answer; its first two reversals are ignored
    7002  booked, no answer                          7012  half of it approved (response code 10)
    7003  booked, answered too late (--late-ms)      7013  approved in Swiss francs
    7004  booked and answered with one unit more     7014  the connection ends before it is booked
    7005  booked, answered with rubbish              7015  booked, then the connection ends
    7006  booked, half an answer, then nothing       7016  kept back (--late-ms) before it is booked: after its reversal
    7007  booked, half an answer, then the end       7017  approved without an amount
    7008  booked, answered twice                     7018  booked, answered with a response code that nobody knows
    7009  booked, answered for another trace number  7019  booked, answered with bytes too many
    7010  booked, answered with an absurd length     7020  booked, no answer; its first reversal is done, but not acknowledged
    90CC  declined with response code CC
"""

import argparse
import asyncio
import contextlib
import copy
import json
import os
import random
import ssl

import iso8583
import iso8583.specs

PREFIX = {"binary2": 2, "binary4": 4, "ascii4": 4}
ABSURD_LENGTH = b"\xff\xff\xff\xff"
MESSAGE_LIMIT_BYTES = 8192


def dialect(name):
    """ASCII with binary bitmaps, as the package has it; or digits and lengths in BCD, bitmaps in hexadecimal."""
    spec = copy.deepcopy(iso8583.specs.default)
    if name == "bcd":
        numeric = [*range(2, 8), *range(9, 28), 32, 33, 49, 50, 51, 53, 66, 70, 73, 90, 100]
        for n in numeric:
            spec[str(n)].update(data_enc="b", len_count="nibbles", left_pad="0")
        for field in spec.values():
            if field["len_type"]:
                field.update(len_enc="bcd", len_type=1 if field["len_type"] == 2 else 2)
        spec["t"].update(data_enc="b", max_len=2)
        spec["p"].update(data_enc="ascii", max_len=16)
        spec["1"].update(data_enc="ascii", max_len=16)
    return spec


class Bank:
    """The ledger: what was booked and what was undone, by request."""

    def __init__(self, path):
        self.requests = {}
        self.ignored = {}
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                for line in map(json.loads, file):
                    self.replay(line)
        self.file = open(path, "a", encoding="ascii")

    def replay(self, line):
        if line["did"] in ("booked", "declined"):
            self.requests[tuple(line["key"])] = {**line, "undone": False}
        elif line["did"] == "undone":
            self.requests[tuple(line["of"])]["undone"] = True

    def write(self, **line):
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.replay(line)

    def find(self, terminal, elements):
        """What field 90 refers to: type, trace number, time of transmission."""
        for key, request in self.requests.items():
            if key[3] == terminal and (request["class"], request["stan"], request["sent"]) == (
                elements[1], elements[4:10], elements[10:20],
            ):
                return key, request
        return None, None

    def left(self, key):
        """How much of a request stands and was neither captured nor refunded."""
        later = [r for r in self.requests.values() if r.get("of") == list(key) and r["did"] == "booked" and not r["undone"]]
        return self.requests[key]["minor"] - sum(r["minor"] for r in later)


class Host:
    def __init__(self, options):
        self.options = options
        self.spec = dialect(options.dialect)
        self.header = bytes.fromhex(options.header)
        self.bank = Bank(options.ledger)
        self.random = random.Random(1)
        self.seen = set()

    def log(self, message, did, **more):
        stan, retrieval = message["11"], message.get("37", "")
        key = [message["t"][1], stan, retrieval, message.get("41", "")]
        self.bank.write(
            mti=message["t"], did=did, key=key, stan=stan, retrieval=retrieval, sent=message["7"],
            last4=message.get("2", "")[-4:], **{"class": message["t"][1]}, **more,
        )

    # What is decided.

    def decide(self, message):
        """Books or declines; the response code, the amount that stands, what it did."""
        key = (message["t"][1], message["11"], message.get("37", ""), message["41"])
        known = self.bank.requests.get(key)
        if known:
            self.log(message, "repeated")
            return known["code"], known["minor"]
        minor, code, of = int(message["4"]), "00", None
        kind = "refund" if message["3"].startswith("20") else {"1": "authorise", "2": "charge"}[message["t"][1]]
        if message["t"][2] == "2":
            kind = "capture"
        if kind in ("capture", "refund"):
            of, original = self.bank.find(message["41"], message["90"])
            if original is None or original["undone"] or original["did"] != "booked":
                code = "25"
            elif minor > self.bank.left(of):
                code = "61"
        if 9000 <= minor <= 9099:
            code = f"{minor - 9000:02}"
        if minor == 7004:
            minor += 1
        if minor == 7012:
            minor, code = minor // 2, "10"
        self.log(
            message, "booked" if code in ("00", "10") else "declined", kind=kind, minor=minor, currency=message["49"], code=code,
            of=list(of) if of else None,
        )
        return code, minor

    def undo(self, message):
        """A reversal: the response code, or None where it is ignored."""
        key, original = self.bank.find(message["41"], message["90"])
        if original is None:
            self.log(message, "no_original")
            return "25"
        if original["did"] != "booked":
            self.log(message, "not_booked", of=list(key))
            return "00"
        if original["undone"]:
            self.log(message, "undone_again", of=list(key))
            return "00"
        times = self.bank.ignored[key] = self.bank.ignored.get(key, 0) + 1
        if original["minor"] == 7011 and times <= 2:
            self.log(message, "ignored", of=list(key))
            return None
        self.log(message, "undone", of=list(key), minor=original["minor"])
        return None if original["minor"] == 7020 else "00"

    # What is said.

    def answer(self, message, code, minor=None):
        reply = {n: message[n] for n in ("3", "4", "7", "11", "32", "37", "41", "42", "49", "70") if n in message}
        reply["t"] = message["t"][:2] + {"0": "1", "2": "3"}[message["t"][2]] + "0"
        reply["39"] = code
        if minor is not None:
            reply["4"] = f"{minor:012}"
        if code in ("00", "10") and message["t"][1] in "12":
            reply["38"] = f"A{message['11'][1:]}"
        return reply

    def frame(self, raw):
        body = self.header + bytes(raw)
        length = len(body)
        prefix = {"binary2": length.to_bytes(2, "big"), "binary4": length.to_bytes(4, "big"), "ascii4": b"%04d" % length}
        return prefix[self.options.prefix] + body

    def encode(self, reply):
        return self.frame(iso8583.encode(reply, self.spec)[0])

    async def handle(self, raw, writer):
        message, _ = iso8583.decode(raw, self.spec)
        if message["t"][1] == "8":
            if self.options.mute_echo and message["70"] == "301":
                return
            await self.say(writer, self.encode(self.answer(message, self.options.sign_on_code)))
            return
        await asyncio.sleep(self.random.uniform(0, self.options.jitter_ms) / 1000)
        if message["t"][1] == "4":
            code = self.undo(message)
            if code:
                await self.say(writer, self.encode(self.answer(message, code)))
            return
        key = (message["t"][1], message["11"], message.get("37", ""), message["41"])
        fault = int(message["4"]) if key not in self.bank.requests and key not in self.seen else 0
        self.seen.add(key)
        late = self.options.late_ms / 1000
        if fault == 7001:
            self.log(message, "lost")
            return
        if fault == 7014:
            writer.transport.abort()
            return
        if fault == 7016:
            await asyncio.sleep(late)
        code, minor = self.decide(message)
        reply = self.answer(message, code, minor)
        if fault in (7002, 7011, 7020):
            return
        if fault in (7003, 7016):
            await asyncio.sleep(late)
        if fault == 7013:
            reply["49"] = "756"
        if fault == 7017:
            del reply["4"], reply["49"]
        if fault == 7018:
            reply["39"] = "ZZ"
        if fault == 7009:
            reply["11"] = f"{(int(reply['11']) + 500_000) % 1_000_000:06}"
        frame = self.encode(reply)
        prefix = PREFIX[self.options.prefix]
        if fault == 7005:
            frame = self.frame(self.random.randbytes(len(frame) - prefix))
        if fault == 7006:
            frame = frame[: len(frame) // 2]
        if fault == 7008:
            frame *= 2
        if fault == 7010:
            frame = ABSURD_LENGTH[:prefix] + frame
        if fault == 7019:
            frame = self.frame(frame[prefix + len(self.header):] + b"more")
        if fault == 7007:
            await self.say(writer, frame[: len(frame) // 2])
        if fault in (7007, 7015):
            writer.transport.abort()
            return
        await self.say(writer, frame)

    async def say(self, writer, data):
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()

    async def serve(self, reader, writer):
        tasks = set()
        if self.options.ask_echo:
            await self.say(writer, self.encode({"t": "0800", "7": "1122163321", "11": "900001", "70": "301"}))
        try:
            while True:
                prefix = await reader.readexactly(PREFIX[self.options.prefix])
                length = int(prefix) if self.options.prefix == "ascii4" else int.from_bytes(prefix, "big")
                assert len(self.header) < length <= MESSAGE_LIMIT_BYTES, f"a length of {length}"
                body = await reader.readexactly(length)
                assert body.startswith(self.header), "another header"
                task = asyncio.create_task(self.handle(body[len(self.header):], writer))
                tasks.add(task)
                task.add_done_callback(self.done(tasks))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def done(self, tasks):
        def ended(task):
            tasks.discard(task)
            if not task.cancelled() and task.exception():
                # A message that it can't read is our fault: tests look for this line.
                self.bank.file.write(json.dumps({"did": "failed", "why": repr(task.exception())}) + "\n")
                self.bank.file.flush()

        return ended

    async def run(self):
        tls = None
        if self.options.cert:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(self.options.cert, self.options.key)
            if self.options.client_ca:
                tls.verify_mode = ssl.CERT_REQUIRED
                tls.load_verify_locations(self.options.client_ca)
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.options.port, ssl=tls)
        print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", required=True, help="file with a JSON object a line")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dialect", choices=("ascii", "bcd"), default="ascii")
    parser.add_argument("--prefix", choices=sorted(PREFIX), default="binary2")
    parser.add_argument("--header", default="", help="in hexadecimal")
    parser.add_argument("--late-ms", type=int, default=600)
    parser.add_argument("--jitter-ms", type=int, default=0, help="each request waits up to so long: answers come in any order")
    parser.add_argument("--sign-on-code", default="00")
    parser.add_argument("--mute-echo", action="store_true")
    parser.add_argument("--ask-echo", action="store_true", help="asks for an echo itself on each connection")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--client-ca")
    asyncio.run(Host(parser.parse_args()).run())


if __name__ == "__main__":
    main()
