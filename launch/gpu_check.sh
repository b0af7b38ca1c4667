#!/usr/bin/env bash
# Tries on this machine's GPU what only a GPU takes, within eight minutes and without a network:
# tests marked gpu, each training task against the CPU, full memory, DeepSpeed, speed. Writes one
# JSON, runs/gpu_check/gpu_check.json, and ends with 1 when a check failed. See docs/clusters.md.
# Usage: bash launch/gpu_check.sh [--wheels FOLDER] [--output FOLDER] [--device auto|cuda|cpu]
#            [--seconds 480] [--only CHECK …] [--list]
# Takes the Python that has torch (variable PYTHON; by default python3) and changes nothing in it:
# what lies in --wheels goes to a folder that is deleted again. A virtual environment made from
# another one would not see that one's packages.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m benchmarks.gpu_check "$@"
