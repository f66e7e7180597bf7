#!/bin/sh
# What ELMo gains the tagger on real text: sh benchmarks/transfer.sh [--quick]
set -eu
cd "$(dirname "$0")/.."
. ./setup.sh
exec "$PYTHON" benchmarks/transfer.py "$@"
