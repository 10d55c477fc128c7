#!/usr/bin/env bash
# Runs the fuzz targets, one after another: scripts/fuzz.sh [MINUTES [TARGET…]], default a minute each. Findings stay in
# fuzz/artifacts/TARGET and fail the script. `--minimise` makes the corpora small again.
#
# Needs cargo-fuzz (cargo install cargo-fuzz --locked) and a nightly compiler, or a stable one told to be one. No sanitizer: the
# package has no unsafe code of its own, and panics, overflows and broken promises are found without one, at several times the pace.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PATH="$HOME/.cargo/bin:$PATH"
cd "$ROOT/fuzz"

# Beyond these a run says that something grows or loops.
TIMEOUT_S=5
MEMORY_LIMIT_MB=1024
# Longest input: a datagram, or a stream of some messages.
INPUT_LIMIT_BYTES=8192
# What is kept of a corpus; the largest inputs go first.
CORPUS_LIMIT_BYTES=22000

cargo fuzz --version >/dev/null 2>&1 || fail "cargo-fuzz is missing: cargo install cargo-fuzz --locked"
if rustup run nightly rustc --version >/dev/null 2>&1; then fuzz() { cargo +nightly fuzz "$@"; }
else fuzz() { RUSTC_BOOTSTRAP=1 cargo fuzz "$@"; }; fi
options=(-timeout="$TIMEOUT_S" -rss_limit_mb="$MEMORY_LIMIT_MB" -max_len="$INPUT_LIMIT_BYTES")

if [ "${1:-}" = --minimise ]; then
  shift
  [ $# -gt 0 ] || set -- $(fuzz list)
  for target in "$@"; do
    fuzz cmin --sanitizer none "$target" -- "${options[@]}"
    # Smallest first, until the room is used up.
    used=0
    while read -r bytes file; do
      used=$((used + bytes))
      if [ "$used" -gt "$CORPUS_LIMIT_BYTES" ]; then rm "$file"; fi
    done < <(find "corpus/$target" -type f -printf '%s %p\n' | sort -n)
    echo "$target: $(find "corpus/$target" -type f | wc -l) inputs" >&2
  done
  exit 0
fi

minutes=${1:-1}
shift || true
[ $# -gt 0 ] || set -- $(fuzz list)
fuzz build --sanitizer none
for target in "$@"; do
  step "Fuzzing $target for $minutes min"
  fuzz run --sanitizer none "$target" -- "${options[@]}" -max_total_time=$((minutes * 60)) -print_final_stats=1
  done_step
done
