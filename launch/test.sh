#!/usr/bin/env bash
# Installs what is needed, then checks style, the rules of the house, and all tests.
# Usage: bash launch/test.sh [pytest arguments]     NAKT_TEST_WORKERS sets the parallel workers.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
lint-imports
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest --numprocesses "${NAKT_TEST_WORKERS:-2}" "$@"
