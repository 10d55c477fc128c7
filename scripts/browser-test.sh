#!/usr/bin/env bash
# `make test-browser`: the whole product in a browser. Builds the service, starts `voicepay demo --shop` (Alice's voice is enrolled by a call, then its shop is
# up), a TURN server and a silent sound device for Firefox, and lets people whom flite speaks for confirm payments in Chromium and Firefox. ARGS: names of tests
# (figures, firefox, many, narrow, network, pays, turn, impostors); all without.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
debian_packages coturn firefox-esr flite pulseaudio
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
started=()
ended() {
    # The last that was started goes first: the demo, which says goodbye to its calls.
    for ((n = ${#started[@]} - 1; n >= 0; n--)); do
        kill -TERM "${started[n]}" 2>/dev/null || true
        wait "${started[n]}" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap ended EXIT

# Firefox's Web Audio stands still without a device.
XDG_RUNTIME_DIR="$work" HOME="$work" pulseaudio -n --daemonize=no --exit-idle-time=-1 --use-pid-file=no --load="module-null-sink" \
    --load="module-native-protocol-unix socket=$work/sound auth-anonymous=1" >"$work/sound.log" 2>&1 &
started+=($!)
export PULSE_SERVER="unix:$work/sound"

turn_port=34780
turnserver -n --no-cli --no-tls --no-dtls --pidfile="$work/turn.pid" --lt-cred-mech -u voicepay:passage -r voicepay.test --listening-ip 127.0.0.1 --relay-ip 127.0.0.1 \
    --listening-port "$turn_port" --min-port 34800 --max-port 34899 --allow-loopback-peers --log-file stdout >"$work/turn.log" 2>&1 &
turn=$!
started+=("$turn")

# Those who are refused here, over narrow networks and as impostors, would close the line for everybody who calls as Alice.
export VOICEPAY__DIALOGUE__FAILURES_24H_LIMIT_TRIES=1000
step "Alice enrols her voice; the shop opens"
VOICEPAY__WEBRTC__ICE_SERVERS="[{ urls = [\"turn:127.0.0.1:$turn_port?transport=udp\"], username = \"voicepay\", credential = \"passage\" }]" \
    "$VOICEPAY" demo --shop --json --data-dir "$work/data" >"$work/demo.jsonl" 2>"$work/demo.log" &
demo=$!
started+=("$demo")
for _ in $(seq 1 600); do
    shop="$(sed -n 's/.*"shop":"\([^"]*\)".*/\1/p' "$work/demo.jsonl" | head -1)"
    [ -z "$shop" ] || break
    kill -0 "$demo" 2>/dev/null || { cat "$work/demo.jsonl" "$work/demo.log"; fail "the demo did not come up"; }
    sleep 0.5
done
[ -n "$shop" ] || fail "the demo did not come up in five minutes"
kill -0 "$turn" 2>/dev/null || { cat "$work/turn.log"; fail "the TURN server did not come up"; }
done_step

step "In browsers, at $shop"
cd "$ROOT/web"
mkdir -p shots
voicepay() {
    VOICEPAY__SERVICE__DATA_DIR="$work/data" "$VOICEPAY" "$@"
}
if ! VOICEPAY_SHOP="$shop" VOICEPAY_DEMO_PID="$demo" VOICEPAY_TURN=yes VOICEPAY_FIREFOX="$(command -v firefox-esr)" npm run --silent test:service -- "$@"; then
    tail -20 "$work/demo.log"
    voicepay calls list --limit 40 | tee "$work/calls"
    for call in $(grep -o 'call_[0-9a-f]*' "$work/calls"); do voicepay calls show "$call"; done >"$ROOT/web/shots/calls.txt"
    fail "a browser test failed; what happened in each call: web/shots/calls.txt"
fi
done_step

step "What was charged"
voicepay payments list
done_step
