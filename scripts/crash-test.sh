#!/usr/bin/env bash
# Kills the service for real, by SIGKILL, at every named point and at any moment, over SQLite and over PostgreSQL (whose server is killed too), with a
# bank that loses, delays and doubles what it gets; then compares our books with the bank's. Its last line: KILLS kills, DOUBLE double, LOST lost.
#
#   scripts/crash-test.sh [KILLS on each database, 1100] [SEED, 1]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
export PATH="$HOME/.cargo/bin:$PATH"
cd "$ROOT"

export VOICEPAY_CRASH_KILLS="${1:-1100}" VOICEPAY_CRASH_SEED="${2:-1}"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
step "Building the tests"
cargo test --locked --test it_money --no-run
done_step
step "Killing, $VOICEPAY_CRASH_KILLS times on each database"
status=0
cargo test --quiet --locked --test it_money -- --ignored --exact --nocapture \
    proof::crash::a_thousand_kills_on_each_database 2>&1 | tee "$log" || status=$?
done_step
line="$(grep -E '^[0-9]+ kills, [0-9]+ double, [0-9]+ lost$' "$log" | tail -n 1 || true)"
[ -n "$line" ] || fail "the test ended before it could count"
[ "$status" = 0 ] || fail "$line; what is wrong stands above"
echo "$line"
