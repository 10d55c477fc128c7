#!/usr/bin/env bash
# `make bench-api`: the API's p50 and p99 beside its database's own, in one run; writes benches/API.md, and fails over the bound.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

cd "$ROOT"
VOICEPAY_BENCH_PAGE="$ROOT/benches/API.md" cargo test --quiet --locked --test api speed -- --ignored --nocapture "$@"
