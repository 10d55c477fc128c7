#!/usr/bin/env bash
# Whole payments a second beside the bare commit rate, the cost of a payment as the database grows, and the same orders again and again.
# Called by `make bench-payments`; writes benches/PAYMENTS.md. Arguments go to the harness:
#   scripts/bench-payments.sh [--database sqlite|postgres|both] [--clients 8,32,128] [--seconds 8] [--rows 10000,…] [--retries 1000000] [--dir DIR]
# Needs no models. The databases of 10 thousand to 5 million rows stand side by side and take about 4 GB, SQLite's under --dir (default: the
# system's temporary directory), PostgreSQL's with its server.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
export PATH="$HOME/.cargo/bin:$PATH"

[ -n "${CARGO_TARGET_DIR:-}" ] || export CARGO_TARGET_DIR="$ROOT/target"
# The one profile is optimised; a second one would be a second cold build.
cargo bench --quiet --locked --profile dev --bench payments -- "$@"
