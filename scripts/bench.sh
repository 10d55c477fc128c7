#!/usr/bin/env bash
# The figures of the README on this machine: ours beside onnxruntime and faster-whisper, in turns, in one run. Called by `make bench`.
#   scripts/bench.sh [--rounds N] [--limit N]
# The peers live in a Python environment outside the repository. DATA names a speech data folder (default ../shared/speechdata); where there
# is none, the repository's synthetic callers serve. WHEELS may name a folder of wheels already downloaded.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/peers-env.sh"
cd "$ROOT"
export PATH="$HOME/.cargo/bin:$PATH"

rounds=3 limit=20
while [ $# -gt 0 ]; do
    case "$1" in
    --rounds) rounds=$2; shift 2 ;;
    --limit) limit=$2; shift 2 ;;
    *) echo "bench: usage: scripts/bench.sh [--rounds N] [--limit N]" >&2; exit 2 ;;
    esac
done

say() { echo "bench: $*" >&2; }
data=${DATA:-../shared/speechdata}
peers_environment

say "building"
cargo build --quiet --locked --bin voicepay
voicepay=${CARGO_TARGET_DIR:-target}/debug/voicepay # the one profile is optimised
"$voicepay" models fetch >&2

golden=tests/golden/voiceprint
if [ -f "$golden/voiceprint.json" ]; then
    "$PEERS_PYTHON" benches/peer_embedding.py "$PEERS_MODELS/campplus.safetensors" "$golden/voiceprint.json" "$golden" >&2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -d "$data/dev/trials" ]; then
    "$voicepay" eval render --data "$data" --limit "$limit" --out "$work/wavs" >&2
    what="card numbers spliced from real digits of the dev split, mu-law"
else
    say "no speech data in $data: the repository's synthetic callers serve"
    "$PEERS_PYTHON" benches/fixtures.py audio-fixtures "$work/wavs"
    what="the repository's synthetic callers"
fi

"$PEERS_PYTHON" benches/bench.py --voicepay "$voicepay" --wavs "$work/wavs" --what "$what" --weights "$PEERS_MODELS/campplus.safetensors" \
    --whisper "$PEERS_WHISPER_TINY" --rounds "$rounds" --out benches/RESULTS.md
