#!/usr/bin/env bash
# Makes audio-fixtures/ again from synthetic voices (`make fixtures`). The files are committed; tests don't need this.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

debian_packages flite espeak-ng python3-venv
mapfile -t tools < <("$ROOT/scripts/voice-venv.sh")
[ "${#tools[@]}" = 2 ] || fail "the voice tools could not be fetched; the lines above say why"
step "Speaking the fixtures"
"${tools[0]}" "$ROOT/scripts/make_fixtures.py" --voice "${tools[1]}"
done_step
