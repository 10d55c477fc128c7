#!/usr/bin/env bash
# Runs every test, by cargo-nextest where it is installed and by cargo test otherwise, and closes with one plain line of counts.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
export PATH="$HOME/.cargo/bin:$PATH"
cd "$ROOT"

# scripts/setup.sh installed PostgreSQL: a test that finds none fails.
export VOICEPAY_TEST_POSTGRES_REQUIRED=1

step "Tests"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
status=0
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-fail-fast 2>&1 | tee "$log" || status=$?
    counts="$(sed -E 's/\x1b\[[0-9;]*m//g' "$log" | grep -E '^ *Summary ' | tail -n 1 || true)"
    number() { grep -oE "[0-9]+ $1" <<<"$counts" | cut -d' ' -f1 | head -n 1 || true; }
    passed="$(number passed)"
    failed="$(number failed)"
    skipped="$(number skipped)"
else
    cargo test --locked --no-fail-fast 2>&1 | tee "$log" || status=$?
    # awk alone: a grep that finds nothing would end the script.
    total() { awk -v word="$1" '/^test result: / { for (i = 2; i <= NF; i++) if ($i ~ "^" word) n += $(i - 1) } END { print n + 0 }' "$log"; }
    passed="$(total passed)"
    failed="$(total failed)"
    skipped="$(total ignored)"
fi
done_step
echo "${passed:-0} passed, ${failed:-0} failed, ${skipped:-0} skipped"
[ "$status" = 0 ] || exit "$status"
[ "${passed:-0}" -gt 0 ] || fail "no test ran"
