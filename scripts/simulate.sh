#!/usr/bin/env bash
# Runs the seeded simulation of several nodes (tests/money/proof/simulation.rs); a seed that fails prints the command that repeats it.
#
#   scripts/simulate.sh [FROM..TO, 0..10000]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
export PATH="$HOME/.cargo/bin:$PATH"
cd "$ROOT"

export VOICEPAY_SIMULATE="${1:-0..10000}"
[[ "$VOICEPAY_SIMULATE" =~ ^[0-9]+\.\.[0-9]+$ ]] || fail "seeds are written like 0..10000, not $VOICEPAY_SIMULATE"
step "Building the tests"
cargo test --locked --test it_money --no-run
done_step
step "Simulating seeds $VOICEPAY_SIMULATE"
cargo test --quiet --locked --test it_money -- --ignored --exact --nocapture proof::simulation::many_seeds
done_step
