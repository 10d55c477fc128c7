#!/usr/bin/env bash
# Measures calls: `make bench-calls`. Arguments go to bench_calls.py (--help). VOICEPAY_BIN names another binary than `cargo build`'s.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
. "$here/../lib.sh"
"$here/setup.sh" 22
debian_packages tcpdump
# Two sockets a call on each side.
ulimit -n "$(ulimit -Hn)"
exec python3 "$here/bench_calls.py" "$@"
