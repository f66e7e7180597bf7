#!/bin/sh
# What ELMo gains a reader on CMRC 2018: sh benchmarks/reading.sh --data FOLDER [--quick] [--text FILE ...]
set -eu
cd "$(dirname "$0")/.."
. ./setup.sh
exec "$PYTHON" benchmarks/reading.py "$@"
