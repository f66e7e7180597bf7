#!/bin/sh
# Set up, then lint and test: sh tests/run.sh [arguments of pytest]
set -eu
cd "$(dirname "$0")/.."
more_requirements=requirements-dev.txt
. ./setup.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest "$@"
