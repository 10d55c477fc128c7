#!/usr/bin/env bash
# A Python with pyiso8583, outside the repository, for the bank host of the tests (iso_host.py). Prints its path. Set up once; processes
# that ask at the same time wait for each other.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

PYISO8583_VERSION=4.0.1

home="$CACHE/bank-venv"
mkdir -p "$CACHE"
exec 9>"$CACHE/bank-venv.lock"
flock 9
if ! "$home/bin/python" -c "import iso8583; assert iso8583.__version__ == '$PYISO8583_VERSION'" 2>/dev/null; then
    step "Python environment of the bank host in $home"
    python3 -m venv "$home"
    quietly "$home/bin/pip" install --quiet --disable-pip-version-check "pyiso8583==$PYISO8583_VERSION"
    done_step
fi
echo "$home/bin/python"
