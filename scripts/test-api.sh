#!/usr/bin/env bash
# `make test-api`: schemathesis asks a service that has everything thousands of things out of its own description and some that it forbids
# (tests/api/described.rs; `make test` asks a few). ARGS are how many examples of each operation: 100.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

cd "$ROOT"
CI=1 VOICEPAY_API_EXAMPLES="${1:-100}" cargo test --quiet --locked --test api described -- --nocapture
