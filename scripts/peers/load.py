"""SIPp as load, and what a process used meanwhile."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import speech
from proc import Process, command, ports
from service import FIXTURES

SCENARIOS = Path(__file__).resolve().parent / "load"
CALLER = "+447700900999"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Used:
    """Processor time in seconds and resident memory of a process, its open files and threads."""

    cpu_s: float
    rss_kib: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        rss = int(after_name[21]) * PAGE_BYTES // 1024
        return cls(
            cpu_s=(int(after_name[11]) + int(after_name[12])) * TICK_S,
            rss_kib=rss,
            files=len(os.listdir(f"/proc/{pid}/fd")),
            threads=int(after_name[17]),
        )


def core_busy_s(core):
    """Busy seconds of a core since the machine started."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            n = [int(x) for x in line.split()[1:9]]
            return (sum(n) - n[3] - n[4]) * TICK_S
    return 0.0


class Load(Process):
    """`calls` calls of `lasting_s` each, `rate` new ones a second, at most `at_once` at a time."""

    def __init__(
        self, log_dir, target, *, calls, rate, lasting_s, to="pay", at_once=None, audio="speech", prefix=(), name="load"
    ):
        self.home = Path(log_dir) / f"{name}-files"
        self.home.mkdir()
        scenario = "setup.xml" if audio is None else "call.xml"
        if audio is not None:
            samples = speech.read(FIXTURES / "alice" / "card.wav")[0] if audio == "speech" else speech.silence(5)
            (self.home / "speech.ul").write_bytes(speech.ulaw(samples))
        self.stats, self.rtt = self.home / "stats.csv", None
        argv = [
            *prefix,
            "sipp",
            "-sf",
            SCENARIOS / scenario,
            "-s",
            to,
            "-key",
            "caller",
            CALLER,
            "-i",
            "127.0.0.1",
            "-mi",
            "127.0.0.1",
        ]
        argv += [
            "-p",
            ports(),
            "-m",
            calls,
            "-r",
            rate,
            "-l",
            at_once or calls,
            "-d",
            int(1000 * lasting_s),
            "-nostdin",
            "-t",
            "u1",
        ]
        argv += ["-trace_stat", "-stf", self.stats, "-fd", "1", "-trace_rtt", "-rtt_freq", "1", "-trace_err", "-timeout", "1800s"]
        # More tasks a thread, fewer threads: on one core they only take turns.
        argv += ["-rtp_threadtasks", "200", "-buff_size", "4194304", target]
        super().__init__(name, argv, log_dir, cwd=self.home)

    def counts(self):
        """Calls that were made, went well, failed; messages sent again."""
        if not self.stats.exists():
            return 0, 0, 0, 0
        with open(self.stats) as f:
            rows = list(csv.DictReader(f, delimiter=";"))
        if not rows:
            return 0, 0, 0, 0
        last = rows[-1]
        keys = ("TotalCallCreated", "SuccessfulCall(C)", "FailedCall(C)", "Retransmissions(C)")
        return tuple(int(last[k] or 0) for k in keys)

    def live(self):
        """Calls that are up now."""
        if not self.stats.exists():
            return 0
        with open(self.stats) as f:
            rows = list(csv.DictReader(f, delimiter=";"))
        return int(rows[-1]["CurrentCall"] or 0) if rows else 0

    def answered_ms(self):
        """INVITE to 200 of each call, sorted, in milliseconds."""
        found = []
        for path in self.home.glob("*_rtt.csv"):
            with open(path) as f:
                found += [
                    float(row["response_time_ms"]) for row in csv.DictReader(f, delimiter=";") if row.get("response_time_ms")
                ]
        return sorted(found)


def percentile(values, p):
    """Of sorted values; 0 where there are none."""
    return values[min(len(values) - 1, int(len(values) * p))] if values else 0.0


def load_average():
    return command(["cat", "/proc/loadavg"]).split()[0]
