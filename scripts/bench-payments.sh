#!/usr/bin/env bash
# Whole payments a second beside the bare commit rate, the cost of a payment as the database grows, and the same orders again and again.
# Called by `make bench-payments`; writes benches/PAYMENTS.md. Arguments go to the harness:
#   scripts/bench-payments.sh [--database sqlite|postgres|both] [--clients 8,16] [--seconds 8] [--rows 10000,…] [--retries 1000000] [--dir DIR]
# Needs no models. The 5 million rows take about 3 GB for each database, under --dir (default: the system's temporary directory).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
export PATH="$HOME/.cargo/bin:$PATH"

[ -n "${CARGO_TARGET_DIR:-}" ] || export CARGO_TARGET_DIR="$ROOT/target"
# The one profile is optimised; a second one would be a second cold build.
cargo bench --quiet --locked --profile dev --bench payments -- "$@"
