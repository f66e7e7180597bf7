#!/bin/sh
# Make every fault happen, and print what became of it: sh tests/faults/run.sh [--write] [arguments of pytest]
# --write puts the table into tests/faults/README.md.
set -eu
cd "$(dirname "$0")/../.."
more_requirements=requirements-dev.txt
. ./setup.sh
exec "$PYTHON" tests/faults/run.py "$@"
