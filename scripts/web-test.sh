#!/usr/bin/env bash
# `make test-web`: `<voicepay-confirm>` (web/) by itself: types, size, what is read from the service, and calls in Chromium with a made-up service, whose
# sound is real. Installs what it needs: Debian's chromium with a Chinese font, Node.js where it is missing or too old, and the
# pinned npm packages in web/node_modules. ARGS: names of browser tests (call, faults, looks, shop); all without.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

. "$(dirname "$0")/web-setup.sh"

cd "$ROOT/web"
step "Types and size of <voicepay-confirm>"
npm run --silent check
done_step
step "What it reads, and what is shipped"
npm test --silent
done_step
step "In Chromium"
npm run --silent test:browser -- "$@"
done_step
