#!/usr/bin/env bash
# localstripe, the stand-in for Stripe in the tests: a Python environment in the cache, outside the repo. Prints its python.
# A second run takes no time. It is GPL: run beside the tests, never part of what is built.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

python_env "$CACHE/localstripe/venv" localstripe==1.15.10
