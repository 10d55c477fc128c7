# Shared by the scripts: step titles with elapsed times on standard error, and the cache. Sourced, not run.
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/voicepay"
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

step() {
    STEP_TITLE="$1"
    STEP_BEGAN=$SECONDS
    echo "==> $STEP_TITLE" >&2
}

done_step() {
    echo "    $STEP_TITLE: done in $((SECONDS - STEP_BEGAN)) s" >&2
}

fail() {
    echo "voicepay: $*" >&2
    exit 1
}

# Runs a command silently but for a sign of life every 5 s; shows its output if it fails.
quietly() {
    local log began=$SECONDS pid shown=0
    log="$(mktemp)"
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if [ $(((SECONDS - began) / 5)) -gt "$shown" ]; then
            shown=$(((SECONDS - began) / 5))
            echo "    ... ${STEP_TITLE:-$1} ($((SECONDS - began)) s)" >&2
        fi
    done
    if wait "$pid"; then
        rm -f "$log"
    else
        tail -n 40 "$log" >&2
        rm -f "$log"
        fail "this failed: $*"
    fi
}

# Runs apt-get as root or by sudo.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "root or sudo is needed for: $*"
    fi
}

# Installs the Debian packages of its arguments that are missing.
debian_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        command -v apt-get >/dev/null || fail "these are missing, and there is no apt-get here to install them: ${missing[*]}"
        step "Installing Debian packages: ${missing[*]}"
        # env: sudo drops the environment.
        quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
        quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
        done_step
    fi
}

# Makes a Python environment in $1 with the pinned packages that follow, once, and prints its python. Whoever asks at the same time
# waits.
python_env() {
    local home="$1" ready
    shift
    # Another Python would not find what this one has installed.
    ready="$home/.ready-$(python3 -V) $*"
    if [ ! -f "$ready" ]; then
        mkdir -p "$home"
        exec 9>"$home.lock"
        flock 9
        if [ ! -f "$ready" ]; then
            step "Python environment with $* in $home (once)"
            python3 -m venv "$home"
            quietly "$home/bin/pip" install --quiet --disable-pip-version-check "$@"
            touch "$ready"
            done_step
        fi
        exec 9>&-
    fi
    echo "$home/bin/python"
}
