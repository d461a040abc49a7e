#!/usr/bin/env bash
# Everything worth measuring on one GPU, in under 8 minutes, as one JSON file that checks itself:
#
#   benchmarks/gpu.sh results.json                        # on a GPU
#   benchmarks/gpu.sh results.json --reference CHECKOUT   # also the public reproduction's training step
#   benchmarks/gpu.sh results.json --toy                  # on a CPU, at toy size: only that everything runs
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m benchmarks.gpu "$@"
