#!/usr/bin/env bash
# Records the texts of prompts/en.toml and zh.toml that changed since they were recorded (`make prompts`).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

if "$ROOT/scripts/render-prompts.py" --check; then
    exit 0
fi
debian_packages espeak-ng python3-venv
mapfile -t tools < <("$ROOT/scripts/voice-venv.sh")
[ "${#tools[@]}" = 2 ] || fail "the voice tools could not be fetched; the lines above say why"
step "Recording prompts"
"${tools[0]}" "$ROOT/scripts/render-prompts.py" --voice "${tools[1]}" "$@"
done_step
