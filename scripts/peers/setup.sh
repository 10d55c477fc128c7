#!/usr/bin/env bash
# What `make test-peers` and `make bench-calls` need beside the service: telephones and proxies as Debian packages, Asterisk 16
# and 22 each in a Debian tree of its own (Debian 12 has neither). Installs what is missing; a second run takes under a second.
#   scripts/peers/setup.sh [16] [22]      with arguments: only these Asterisk trees
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

PEERS="${VOICEPAY_PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/voicepay-peers}"
# Which Debian release carries which Asterisk.
declare -A RELEASE=([16]=bullseye [22]=sid)

# The mirror that this machine's own apt is set up with.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Component: main' "Codename: $(. /etc/os-release && echo "$VERSION_CODENAME")" |
        sort -u | head -n 1
}

# A Debian tree with one Asterisk in it. Made under another name and then moved, so that a tree that is there is whole.
asterisk_tree() {
    local version="$1" tree="$PEERS/asterisk-$1" from
    [ ! -x "$tree/usr/sbin/asterisk" ] || [ ! -e "$tree/.whole" ] || return 0
    debian_packages debootstrap
    # shellcheck disable=SC2119
    from="$(mirror)"
    [ -n "$from" ] || fail "apt knows no Debian mirror: Asterisk $version can't be installed"
    step "Asterisk $version (Debian ${RELEASE[$version]}, about a minute and a half, 500 MB)"
    as_root rm -rf "$tree" "$tree.new"
    as_root mkdir -p "$PEERS"
    quietly as_root debootstrap --variant=minbase --include=asterisk,asterisk-core-sounds-en-wav \
        "${RELEASE[$version]}" "$tree.new" "$from"
    as_root rm -rf "$tree.new/var/cache/apt/archives" "$tree.new/var/lib/apt/lists"
    as_root touch "$tree.new/.whole"
    as_root mv "$tree.new" "$tree"
    done_step
}

debian_packages sip-tester baresip-core linphone-cli kamailio kamailio-tls-modules openssl python3 util-linux procps
[ $# -gt 0 ] || set -- 16 22
for version in "$@"; do
    [ -n "${RELEASE[$version]:-}" ] || fail "no Debian release is known for Asterisk $version"
    asterisk_tree "$version"
done
