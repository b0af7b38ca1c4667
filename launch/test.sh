#!/usr/bin/env bash
# Installs what is needed, then checks style, the rules of the house, and all tests.
# Usage: bash launch/test.sh [pytest arguments]     NAKT_TEST_WORKERS sets the parallel workers.
# As root on Debian or Ubuntu it brings up a SLURM of two nodes to test jobs on, and takes it down
# at the end unless it was up before. NAKT_TEST_SLURM=no goes without, =yes fails without.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
ruff format --check .
lint-imports
cluster=launch/slurm/local_cluster.sh
if [ -z "${NAKT_TEST_SLURM:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    NAKT_TEST_SLURM=yes
fi
export NAKT_TEST_SLURM="${NAKT_TEST_SLURM:-no}"
if [ "$NAKT_TEST_SLURM" = no ]; then
    echo "Brings up no SLURM: without one the tests marked slurm are skipped." >&2
elif ! bash "$cluster" status > /dev/null 2>&1; then
    bash "$cluster" up || { echo "NAKT_TEST_SLURM=no tests without SLURM." >&2; exit 1; }
    trap 'bash "$cluster" down' EXIT
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
python -m pytest --numprocesses "${NAKT_TEST_WORKERS:-2}" "$@"
