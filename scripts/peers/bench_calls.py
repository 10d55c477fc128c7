"""`make bench-calls`: how many calls a core carries, beside Asterisk 22 in the same run; set-ups a second; memory a call; what is
left after many calls. Writes benches/CALLS.md.

The service under test has core 0 alone, SIPp and the capture have core 1. Ours is `voicepay answer`: prompt played, audio
received, decoded and end-pointed, RTCP on. Asterisk plays the same prompt from a mu-law file, which it need not convert."""

import argparse
import contextlib
import fcntl
import os
import platform
import shutil
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import report
import speech
from asterisk import Asterisk
from capture import Capture
from load import Load, Used, core_busy_s, load_average, percentile
from proc import Failed, Process, command, ports, stop_all_when_told, until
from service import FIXTURES, ROOT, binary

PAGE = ROOT / "benches" / "CALLS.md"
SERVICE_CORE, LOAD_CORE = 0, 1
# Where the service's audio comes from: an address of its own, so that a capture sees nobody else's.
MEDIA = "127.77.0.1"
STEPS = (50, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 1200, 1600, 2000)
RAMP_PER_S = 50
PLATEAU_S = 20.0
SETTLE_S = 3.0
# What counts as clean audio.
GAP_MS = 40.0
SHORT_PERMILLE = 0.5
SETUP_RATES = (100, 200, 300, 400, 500, 600, 800, 1000, 1300, 1600)
SETUP_S = 10
SETUP_P99_MS = 50.0


def on(core):
    return ["taskset", "-c", str(core)]


class Answering(Process):
    """`voicepay answer` on the core under test."""

    label = "Voicepay: prompt, receive, decode, end-point"
    to = "pay"

    def __init__(self, logs):
        self.sip, self.rtp = ports(2), (40000, 59999)
        env = {
            "VOICEPAY__SIP__LISTEN": f"127.0.0.1:{self.sip}",
            "VOICEPAY__SIP__MAX_CALLS": "9000",
            "VOICEPAY__SIP__MAX_CALLS_PER_S": "100000",
            "VOICEPAY__SIP__OVERLOAD_LIMIT_PER_S": "100000",
            "VOICEPAY__MEDIA__BIND_ADDRESS": MEDIA,
            "VOICEPAY__MEDIA__PORT_MIN": str(self.rtp[0]),
            "VOICEPAY__MEDIA__PORT_MAX": str(self.rtp[1]),
            "VOICEPAY_LOG": "warn",
        }
        super().__init__("answer", [*on(SERVICE_CORE), binary(), "--json", "answer"], logs, env=env, cwd=logs)
        until("voicepay answer listens", lambda: '"event":"listening"' in self.text(), 60)

    @property
    def at(self):
        return f"127.0.0.1:{self.sip}"


class Playing(Asterisk):
    """Asterisk 22 on the core under test."""

    label = "Asterisk 22: Playback"
    to = "play"

    def __init__(self, logs):
        self.rtp = (40000, 59999)
        dialplan = (
            "[from-voicepay]\nexten => play,1,Answer()\n same => n(again),Playback(voicepay/prompt)\n same => n,Goto(again)\n"
            "exten => record,1,Answer()\n same => n,MixMonitor(${UNIQUEID}.wav)\n"
            " same => n(again),Playback(voicepay/prompt)\n same => n,Goto(again)\n"
        )
        prompt = logs / "prompt.ulaw"
        prompt.write_bytes(speech.ulaw(speech.read(FIXTURES / "alice" / "card.wav")[0]) * 20)
        super().__init__(
            22,
            logs,
            f"127.0.0.1:{ports()}",
            extensions={"[from-voicepay]\n": dialplan},
            pjsip={
                "qualify_frequency = 30": "qualify_frequency = 0",
                "media_address = 127.0.0.1": f"media_address = {MEDIA}\nbind_rtp_to_media_address = yes",
            },
            sounds=[prompt],
            rtp=self.rtp,
            prefix=on(SERVICE_CORE),
        )
        self.cli("core set verbose 0")


class Recording(Playing):
    """The same, recording each call."""

    label = "Asterisk 22: Playback and MixMonitor"
    to = "record"


def plateau(kind, calls, base, lasting_s, audio="speech"):
    """`calls` calls at once through one service; what it used, what it sent."""
    logs = Path(tempfile.mkdtemp(prefix=f"{kind.to}-{calls}-", dir=base))
    with contextlib.ExitStack() as stack:

        def started(process):
            stack.callback(process.stop)
            return process

        service = started(kind(logs))
        time.sleep(SETTLE_S)
        empty = Used.of(service.pid)
        lasting = calls / RAMP_PER_S + SETTLE_S + lasting_s + SETTLE_S
        capture = started(Capture(logs, MEDIA, prefix=on(LOAD_CORE)))
        load = started(
            Load(logs, service.at, calls=calls, rate=RAMP_PER_S, lasting_s=lasting, to=kind.to, audio=audio, prefix=on(LOAD_CORE))
        )
        until(f"{calls} calls are up", lambda: load.counts()[0] >= calls or not load.alive(), calls / RAMP_PER_S * 3 + 20, 0.2)
        time.sleep(SETTLE_S)
        live = load.live()
        before, t0, busy0 = Used.of(service.pid), time.time(), core_busy_s(LOAD_CORE)
        time.sleep(lasting_s)
        after, t1, busy1 = Used.of(service.pid), time.time(), core_busy_s(LOAD_CORE)
        capture.whole()
        sent = capture.sent(calls, t0, t1)
        load.ended(lasting + 60)
        _, well, failed, again = load.counts()
    shutil.rmtree(logs, ignore_errors=True)
    row = {
        "calls": calls,
        "cpu_percent": 100 * (after.cpu_s - before.cpu_s) / (t1 - t0),
        "load_percent": 100 * (busy1 - busy0) / (t1 - t0),
        "kib_a_call": (after.rss_kib - empty.rss_kib) / calls,
        "base_mib": empty.rss_kib / 1024,
        "live": live,
        "failed": failed + (calls - well - failed),
        "again": again,
        "sent": sent,
    }
    clean = sent.gap_ms_p999 <= GAP_MS and sent.skipped == 0 and sent.short_permille <= SHORT_PERMILLE
    row["clean"] = clean and row["failed"] == 0 and sent.streams == calls
    return row


def carried(kind, base, steps, lasting_s, say):
    """Steps up until the audio is no longer clean; the rows."""
    rows = []
    for calls in steps:
        try:
            row = plateau(kind, calls, base, lasting_s)
        except Failed as e:
            say(f"{kind.label}, {calls} calls: {e}")
            break
        rows.append(row)
        s = row["sent"]
        say(
            f"{kind.label}, {calls} calls: CPU {row['cpu_percent']:.0f} %, p99.9 gap {s.gap_ms_p999:.1f} ms, largest"
            f" {s.gap_ms_max:.0f} ms, {s.skipped} left out, {s.short_permille:.1f} permille short, {row['kib_a_call']:.0f} KiB a"
            f" call, load side {row['load_percent']:.0f} %, {row['failed']} failed{'' if row['clean'] else ': NOT CLEAN'}"
        )
        if not row["clean"]:
            break
    return rows


def set_ups(kind, base, rates, say):
    """Call set-ups a second: each rate for a while, until it isn't held."""
    rows = []
    for rate in rates:
        logs = Path(tempfile.mkdtemp(prefix=f"setup-{rate}-", dir=base))
        with contextlib.ExitStack() as stack:
            service = kind(logs)
            stack.callback(service.stop)
            time.sleep(SETTLE_S)
            calls = rate * SETUP_S
            before = Used.of(service.pid)
            began = time.monotonic()
            load = Load(
                logs, service.at, calls=calls, rate=rate, lasting_s=0, to=kind.to, at_once=4000, audio=None, prefix=on(LOAD_CORE)
            )
            stack.callback(load.stop)
            try:
                code = load.ended(SETUP_S * 2 + 40)
            except Failed:
                code = 1  # calls that got no answer are tried again for half a minute; so much is not held
            took = time.monotonic() - began
            after = Used.of(service.pid)
            _, well, failed, again = load.counts()
            times = load.answered_ms()
        shutil.rmtree(logs, ignore_errors=True)
        row = {
            "rate": rate,
            "reached": calls / took,
            "p50": percentile(times, 0.5),
            "p99": percentile(times, 0.99),
            "max": times[-1] if times else 0.0,
            "failed": calls - well,
            "again": again,
            "cpu_percent": 100 * (after.cpu_s - before.cpu_s) / took,
        }
        row["held"] = code == 0 and failed == 0 and row["reached"] > rate * 0.93 and row["p99"] <= SETUP_P99_MS
        rows.append(row)
        say(
            f"{kind.label}: {rate} set-ups a second: reached {row['reached']:.0f}, INVITE to 200 p50 {row['p50']:.1f} ms, p99"
            f" {row['p99']:.1f} ms, {row['failed']} failed, {again} sent again, CPU {row['cpu_percent']:.0f} %"
            f"{'' if row['held'] else ': NOT HELD'}"
        )
        if not row["held"]:
            break
    return rows


def one_after_another(kind, base, calls, say):
    """Many short calls; what is left of them."""
    logs = Path(tempfile.mkdtemp(prefix="soak-", dir=base))
    seen = []
    with contextlib.ExitStack() as stack:
        service = kind(logs)
        stack.callback(service.stop)
        time.sleep(SETTLE_S)
        parts = [max(1, calls // 10), max(1, calls // 10), max(1, calls - 2 * (calls // 10))]
        seen.append((0, Used.of(service.pid)))
        done = 0
        for i, part in enumerate(parts):
            load = Load(
                logs, service.at, calls=part, rate=200, lasting_s=0.2, to=kind.to, at_once=50, audio=None, name=f"soak{i}",
                prefix=on(LOAD_CORE),
            )  # fmt: skip
            stack.callback(load.stop)
            code = load.ended(part / 50 + 120)
            done += part
            time.sleep(40 if i == len(parts) - 1 else SETTLE_S)  # 32 s: the longest that a transaction is remembered (RFC 3261)
            seen.append((done, Used.of(service.pid)))
            if code != 0:
                raise Failed(f"after {done} calls sipp ended with {code}: {load.counts()}")
    shutil.rmtree(logs, ignore_errors=True)
    for n, u in seen:
        say(f"{kind.label}: after {n} calls {u.rss_kib / 1024:.1f} MiB resident, {u.files} open files, {u.threads} threads")
    return seen


def main():
    args = argparse.ArgumentParser(prog="scripts/peers/bench.sh", description=__doc__)
    args.add_argument("--steps", type=int, nargs="*", default=STEPS, help="calls at once")
    args.add_argument("--rates", type=int, nargs="*", default=SETUP_RATES, help="set-ups a second")
    args.add_argument("--soak", type=int, default=10000, help="calls one after another")
    args.add_argument("--plateau", type=float, default=PLATEAU_S, help="seconds with all calls up")
    args.add_argument("--conditions", default="", help="what else was running, for the page")
    args.add_argument("--only", choices=("carried", "set-ups", "memory", "soak"), action="append")
    args.add_argument("--ours", action="store_true", help="without Asterisk")
    args.add_argument("--no-report", action="store_true", help="leave benches/CALLS.md as it is")
    given = args.parse_args()
    if os.cpu_count() < 2:
        raise Failed("two cores are needed: one for the service, one for the load")
    alone = open(Path(tempfile.gettempdir()) / "voicepay-bench-calls.lock", "w")  # held until we end
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        raise Failed("another bench-calls is running: two would measure each other") from e
    base = Path(tempfile.mkdtemp(prefix="voicepay-calls-"))
    base.chmod(0o755)
    begun, busy = datetime.now(timezone.utc), load_average()
    kinds = (Answering,) if given.ours else (Answering, Playing, Recording)

    def say(line):
        print(line, flush=True)

    def wanted(what):
        return not given.only or what in given.only

    found = {}

    def page():
        """After each part, so that a run that is cut off has told something."""
        if not given.no_report:
            write(found, begun, busy, given)

    if wanted("carried"):
        found["carried"] = [(k, carried(k, base, given.steps, given.plateau, say)) for k in kinds]
        page()
    if wanted("set-ups"):
        found["set-ups"] = [(k, set_ups(k, base, given.rates, say)) for k in kinds[:2]]
        page()
    if wanted("memory"):
        found["memory"] = [(audio, plateau(Answering, 200, base, given.plateau, audio)) for audio in ("silence", "speech")]
        for audio, row in found["memory"]:
            say(f"200 calls, callers send {audio}: {row['kib_a_call']:.0f} KiB a call beyond {row['base_mib']:.0f} MiB")
        page()
    if wanted("soak"):
        found["soak"] = one_after_another(Answering, base, given.soak, say)
        page()
    shutil.rmtree(base, ignore_errors=True)
    return 0


def write(found, begun, busy, given):
    """benches/CALLS.md: the parts that were measured are new, the others stay."""
    cpu = command(["sh", "-c", "grep -m1 'model name' /proc/cpuinfo | cut -d: -f2"]).strip()
    run = [
        f"{begun.strftime('%Y-%m-%d %H:%M')} UTC, {os.cpu_count()} cores ({cpu}), {platform.system()} {platform.release().split('-')[0]};"
        f" load average when it began: {busy}. {given.conditions}",
        f"Versions: {report.versions()}.",
        "",
    ]
    old = PAGE.read_text().split("\n## ")[1:] if PAGE.exists() else []
    parts = {text.split("\n", 1)[0]: text.split("\n", 1)[1].strip().splitlines() + [""] for text in old}
    for part, (title, told) in PARTS.items():
        if part in found:
            parts[title] = ["", *run, *told(found[part], given)]
    lines = [
        "# Calls",
        "",
        "Written by `make bench-calls` (`scripts/peers/bench.sh`): our `voicepay answer` and Asterisk 22 in the same run, SIPp",
        "as load. The service has one core alone; SIPp and the capture share another. Each part says when it was run.",
        "",
    ]
    for title, _told in PARTS.values():
        if title in parts:
            lines += [f"## {title}", *([] if parts[title][0] == "" else [""]), *parts[title]]
    PAGE.write_text("\n".join(lines).rstrip() + "\n")


def tell_carried(kinds, given):
    """Calls on one core."""
    lines = [
        "Gaps and losses are by the kernel's times of the packets that the service sent (tcpdump on the loopback device,",
        f"whose cost falls on its core, too), over a plateau of {given.plateau:.0f} s with all calls up. *Clean*: 99.9 % of",
        f"gaps at most {GAP_MS:.0f} ms, no sequence number left out, at most {SHORT_PERMILLE} permille fewer packets than one",
        "each 20 ms, no call failed. Steps end with the first that isn't clean. Callers speak all the time, which costs us most.",
        "",
    ]
    best = {}
    for kind, rows in kinds:
        lines += [f"### {kind.label}", ""]
        lines += ["| calls | CPU % | CPU ms/s a call | gap p99.9 ms | largest ms | left out | short ‰ | load side % | clean |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for r in rows:
            s, a_call = r["sent"], 10 * r["cpu_percent"] / r["calls"]
            lines.append(
                f"| {r['calls']} | {r['cpu_percent']:.0f} | {a_call:.2f} | {s.gap_ms_p999:.1f} | {s.gap_ms_max:.0f} |"
                f" {s.skipped} | {s.short_permille:.1f} | {r['load_percent']:.0f} | {'yes' if r['clean'] else 'no'} |"
            )
        clean = [r for r in rows if r["clean"]]
        if clean:
            best[kind.to] = clean[-1]
        lines.append("")
    return [*lines, *ratios(best)]


def tell_set_ups(kinds, _given):
    """Call set-ups a second."""
    lines = [f"Held: nothing failed, p99 of INVITE to 200 at most {SETUP_P99_MS:.0f} ms.", ""]
    lines += ["| service | asked a second | reached | p50 ms | p99 ms | largest ms | failed | sent again | CPU % | held |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for kind, rows in kinds:
        for r in rows:
            lines.append(
                f"| {kind.label.split(':')[0]} | {r['rate']} | {r['reached']:.0f} | {r['p50']:.1f} | {r['p99']:.1f} |"
                f" {r['max']:.0f} | {r['failed']} | {r['again']} | {r['cpu_percent']:.0f} | {'yes' if r['held'] else 'no'} |"
            )
    return [*lines, ""]


def tell_memory(rows, _given):
    """Memory a call."""
    lines = ["200 calls at once, resident memory beyond that of the service without calls.", ""]
    lines += ["| callers send | KiB a call | base MiB |", "|---|---|---|"]
    return [*lines, *(f"| {audio} | {r['kib_a_call']:.0f} | {r['base_mib']:.0f} |" for audio, r in rows), ""]


def tell_soak(seen, _given):
    """What is left after many calls."""
    lines = ["| calls so far | resident MiB | open files | threads |", "|---|---|---|---|"]
    return [*lines, *(f"| {n} | {u.rss_kib / 1024:.1f} | {u.files} | {u.threads} |" for n, u in seen), ""]


PARTS = {
    "carried": ("Calls on one core", tell_carried),
    "set-ups": ("Call set-ups on one core", tell_set_ups),
    "memory": ("Memory a call", tell_memory),
    "soak": ("Calls one after another", tell_soak),
}


def ratios(best):
    """How many of our calls stand against one of Asterisk's, by what each used at its own largest clean step."""
    if "pay" not in best:
        return []
    ours = best["pay"]
    lines = ["| against | clean calls there | clean calls here | ratio | CPU a call there / here |", "|---|---|---|---|---|"]
    for to, name in (("play", "Playback"), ("record", "Playback and MixMonitor")):
        if to in best:
            theirs = best[to]
            cost = theirs["cpu_percent"] / theirs["calls"] / (ours["cpu_percent"] / ours["calls"])
            lines.append(f"| {name} | {theirs['calls']} | {ours['calls']} | {ours['calls'] / theirs['calls']:.1f} | {cost:.1f} |")
    return [*lines, ""]


if __name__ == "__main__":
    stop_all_when_told()
    try:
        sys.exit(main())
    except Failed as e:
        sys.exit(f"voicepay: {e}")
