#!/usr/bin/env bash
# A Python with pyiso8583, outside the repository, for the bank host of the tests (iso_host.py). Prints its path.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"

python_env "$CACHE/bank-venv" pyiso8583==4.0.1
