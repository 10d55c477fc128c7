"""Runs cases and writes docs/PEERS.md. `run.sh` is how it is called; the cases are in cases_*.py."""

import argparse
import contextlib
import fnmatch
import os
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases_asterisk  # noqa: F401  registers its cases
import cases_direct  # noqa: F401
import cases_kamailio  # noqa: F401
import cases_service  # noqa: F401
import report
from cases import ALL, World
from proc import Failed, stop_all_when_told
from service import binary, has_key


def run_case(case, scratch, keep):
    """One case in a directory of its own; its row."""
    missing = [key for key in case.needs if not has_key(key)]
    if missing:
        return report.Row.of(case, "waits for " + ", ".join(missing), 0.0)
    logs = scratch / case.name
    logs.mkdir()
    began = time.monotonic()
    note = ""
    try:
        with contextlib.ExitStack() as stack:
            note = case.run(World(logs, stack, case.transport)) or ""
        outcome = "passed"
    except Failed as e:
        outcome = f"FAILED: {e}"
    except Exception:  # a fault of the harness is a failed case, too; the others go on
        outcome = "FAILED: " + traceback.format_exc(limit=-3)
    seconds = time.monotonic() - began
    if outcome == "passed" and not keep:
        shutil.rmtree(logs, ignore_errors=True)
    return report.Row.of(case, outcome, seconds, note)


def main():
    args = argparse.ArgumentParser(prog="scripts/peers/run.sh", description=__doc__)
    args.add_argument("cases", nargs="*", metavar="CASE")
    args.add_argument("--list", action="store_true", help="what there is")
    args.add_argument("--keep", action="store_true", help="keep the logs of cases that went well")
    args.add_argument("--jobs", type=int, default=2, metavar="N", help="cases at a time (2)")
    args.add_argument("--no-report", action="store_true", help="leave docs/PEERS.md as it is")
    given = args.parse_args()
    chosen = [c for c in ALL if not given.cases or any(fnmatch.fnmatch(c.name, p) for p in given.cases)]
    if given.list or not chosen:
        print("\n".join(f"{c.name:34} {c.what}" for c in (chosen or ALL)))
        return 0 if given.list else 2
    binary()
    base = Path(tempfile.mkdtemp(prefix="voicepay-peers-"))
    base.chmod(0o755)  # softphones and Asterisk drop privileges
    (base / "cases").mkdir()
    World.prepare(base)
    rows = []
    with ThreadPoolExecutor(max(1, given.jobs)) as pool:
        for row in pool.map(lambda c: run_case(c, base / "cases", given.keep), chosen):
            rows.append(row)
            print(f"{row.case:34} {row.seconds:5.0f} s  {row.outcome}", flush=True)
    if not given.no_report:
        report.write(rows)
    bad = sum(r.failed for r in rows)
    waiting = sum(r.waits for r in rows)
    if bad or given.keep:
        print(f"logs: {base}/cases", file=sys.stderr)
    else:
        shutil.rmtree(base, ignore_errors=True)
    print(f"{len(rows) - bad - waiting} passed, {bad} failed, {waiting} skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    os.umask(0o022)
    stop_all_when_told()
    try:
        sys.exit(main())
    except Failed as e:
        sys.exit(f"voicepay: {e}")
