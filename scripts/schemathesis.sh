#!/usr/bin/env bash
# schemathesis, which holds the API to its description in the tests: a Python environment in the cache, outside the repo. Prints where its commands
# are. A second run takes no time.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

dirname "$(python_env "$CACHE/schemathesis/venv" schemathesis==4.32.5)"
