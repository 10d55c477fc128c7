#!/usr/bin/env bash
# `make test-web`: `<voicepay-confirm>` (web/) by itself: types, size, what is read from the service, and calls in Chromium with a made-up service, whose
# sound is real. Installs what it needs: Debian's chromium with a Chinese font, nodejs and npm where node is missing or too old, and the pinned npm
# packages in web/node_modules. ARGS: names of browser tests (call, faults, looks, shop); all without.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

NODE_WANTED=20

debian_packages chromium fonts-noto-cjk
command -v node >/dev/null && command -v npm >/dev/null || debian_packages nodejs npm
have="$(node --version | sed 's/^v//; s/\..*//')"
[ "$have" -ge "$NODE_WANTED" ] || fail "Node.js $have is too old, $NODE_WANTED is needed (Debian 12 has 18: install a newer one, then run this again)"

cd "$ROOT/web"
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    step "npm packages of web/ (pinned by package-lock.json)"
    # No package of ours needs a script at installation.
    quietly npm ci --ignore-scripts --no-audit --no-fund
    touch node_modules/.package-lock.json
    done_step
fi

step "Types and size of <voicepay-confirm>"
npm run --silent check
done_step
step "What it reads, and what is shipped"
npm test --silent
done_step
step "In Chromium"
npm run --silent test:browser -- "$@"
done_step
