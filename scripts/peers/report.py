"""docs/PEERS.md: a row a case, the last time it was run."""

import platform
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime, timezone

from asterisk import tree
from service import ROOT, binary

PAGE = ROOT / "docs" / "PEERS.md"
HEAD = "| case | what | peer | signalling | audio | outcome | s | when (UTC) |"


@dataclass
class Row:
    """One row."""

    case: str
    what: str
    peer: str
    transport: str
    media: str
    outcome: str
    seconds: float
    when: str

    @classmethod
    def of(cls, case, outcome, seconds, note=""):
        when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M")
        told = outcome + (f" ({note})" if note else "")
        return cls(case.name, case.what, case.peer, case.transport, case.media, told, seconds, when)

    @property
    def failed(self):
        return self.outcome.startswith("FAILED")

    @property
    def waits(self):
        return self.outcome.startswith("waits")

    def cells(self):
        outcome = re.sub(r"\s+", " ", self.outcome).replace("|", "/")[:300]
        seconds = f"{self.seconds:.0f}" if self.seconds else ""
        return [self.case, self.what, self.peer, self.transport, self.media, outcome, seconds, self.when]


def versions():
    """What the peers call themselves."""

    def first(argv, pattern):
        try:
            out = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.search(pattern, out.stdout + out.stderr)
        return found.group(0) if found else None

    def package(name):
        return first(["dpkg-query", "-W", "-f", name + " ${Version}", name], r"\S+ \S+")

    told = [first(["chroot", str(tree(v)), "asterisk", "-V"], r"Asterisk \S+") for v in (16, 22)]
    told += [package(n) for n in ("sip-tester", "baresip-core", "linphone-cli", "kamailio")]
    told.append(first([str(binary()), "--version"], r"voicepay \S+"))
    return ", ".join(t for t in told if t)


def kept():
    """The rows that stand in the page."""
    rows = {}
    if PAGE.exists():
        for line in PAGE.read_text().splitlines():
            cells = [c.strip() for c in line.strip("|").split(" | ")]
            if len(cells) == 8 and re.match(r"[a-z0-9-]+$", cells[0].strip("`")) and cells[7][:2] == "20":
                rows[cells[0].strip("`")] = cells
    return rows


def write(rows):
    """Puts new rows into the page; the others stay."""
    from cases import ALL

    table = kept()
    table |= {r.case: r.cells() for r in rows}
    lines = [
        "# Peers that were called with",
        "",
        "Written by `make test-peers` (`scripts/peers/run.sh`): each case is a whole call between the real binary and a",
        "telephone, PBX or proxy that we did not write, over loopback, with the configurations of `sip-config/`. *passed* on a",
        "paying case means: the sandbox charged exactly once, the books balance, the call's record names the codec, and the peer",
        "heard us. A row is the last run of its case.",
        "",
        f"Last run: {datetime.now(timezone.utc).strftime('%Y-%m-%d %H:%M')} UTC on {platform.system()} {platform.release().split('-')[0]},"
        f" {platform.machine()}.",
        f"Versions: {versions()}.",
        "",
        HEAD,
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in ALL:
        if case.name in table:
            cells = table[case.name]
            lines.append("| `" + case.name + "` | " + " | ".join(cells[1:]) + " |")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")
