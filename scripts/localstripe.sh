#!/usr/bin/env bash
# localstripe, the stand-in for Stripe in the tests: a Python environment in the cache, outside the repo. Prints its python.
# A second run takes no time. It is GPL: run beside the tests, never part of what is built.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

home="$CACHE/localstripe"
if [ ! -f "$home/.ready-1.15.10" ]; then
    # Tests that start at once must not build it twice.
    mkdir -p "$home"
    exec 9>"$home/.lock"
    flock 9
    if [ ! -f "$home/.ready-1.15.10" ]; then
        step "Fetching localstripe (once)"
        python3 -m venv "$home/venv"
        quietly "$home/venv/bin/pip" install -q localstripe==1.15.10
        touch "$home/.ready-1.15.10"
        done_step
    fi
fi
echo "$home/venv/bin/python"
