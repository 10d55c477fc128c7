#!/usr/bin/env bash
# Calls the service with telephones and PBXs that we did not write, and writes what happened to docs/PEERS.md.
#   scripts/peers/run.sh              every case
#   scripts/peers/run.sh CASE…        these; a trailing * stands for any ending
#   scripts/peers/run.sh --list       what there is
#   scripts/peers/run.sh --keep CASE  leaves the logs of cases that went well, too
# VOICEPAY_BIN names another binary than the one of `cargo build`; VOICEPAY_PEERS_CACHE where the Debian trees are.
# Needs root (chroot, a mount namespace) for the cases with Asterisk.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
"$here/setup.sh"
exec python3 "$here/main.py" "$@"
