#!/usr/bin/env bash
# `make test-browser`: the whole product in a browser. Builds the service, starts `voicepay demo --shop` (Alice's voice is enrolled by a call, then its shop is
# up), and lets people with recorded voices confirm payments in Chromium, in Firefox where VOICEPAY_FIREFOX names it. ARGS: names of tests (pays, network, many, firefox); all without. Impostors come last and close
# the line for the day: who runs tests one after another runs `pays` last.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/web-setup.sh"

cd "$ROOT"
step "Building (about 20 minutes the first time, on two cores)"
cargo build --locked --bin voicepay
VOICEPAY="${CARGO_TARGET_DIR:-$ROOT/target}/debug/voicepay"
done_step
step "Speech models"
"$VOICEPAY" models fetch
done_step

work="$(mktemp -d)"
demo=
ended() {
    [ -z "$demo" ] || { kill -INT "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; }
    rm -rf "$work"
}
trap ended EXIT

step "Alice enrols her voice; the shop opens"
cd "$ROOT"
"$VOICEPAY" demo --shop --json --data-dir "$work/data" >"$work/demo.jsonl" 2>"$work/demo.log" &
demo=$!
for _ in $(seq 1 600); do
    shop="$(sed -n 's/.*"shop":"\([^"]*\)".*/\1/p' "$work/demo.jsonl" | head -1)"
    [ -z "$shop" ] || break
    kill -0 "$demo" 2>/dev/null || { cat "$work/demo.jsonl" "$work/demo.log"; fail "the demo did not come up"; }
    sleep 0.5
done
[ -n "$shop" ] || fail "the demo did not come up in five minutes"
done_step

step "In the browser, at $shop"
cd "$ROOT/web"
mkdir -p shots
VOICEPAY_SHOP="$shop" VOICEPAY_DEMO_PID="$demo" npm run --silent test:service -- "$@" || { tail -20 "$work/demo.log"; fail "a browser test failed"; }
done_step

step "What was charged"
VOICEPAY__SERVICE__DATA_DIR="$work/data" "$VOICEPAY" payments list
done_step
