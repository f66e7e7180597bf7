#!/bin/sh
# Set up, then lint and test: sh tests/run.sh [arguments of pytest]
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
more_requirements=requirements-dev.txt
. ./setup.sh
# Only what git tracks, if this is a clone: other files in it may be the user's.
sources=$(git ls-files '*.py' 2>/dev/null) || sources=
# shellcheck disable=SC2086
{
    "$PYTHON" -m ruff check ${sources:-.}
    "$PYTHON" -m ruff format --check ${sources:-.}
}
"$PYTHON" -m pytest "$@"
