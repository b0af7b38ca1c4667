#!/usr/bin/env bash
# Installs what is needed, then checks style, the rules of the house, types, and all tests.
# Usage: bash launch/test.sh [pytest arguments]     NAKT_TEST_WORKERS sets the parallel workers.
# As root on Debian or Ubuntu it brings up a SLURM of two nodes to test jobs on, and takes it down
# at the end unless it was up before; where it cannot, such as without a network, it says so and
# goes on. NAKT_TEST_SLURM=no goes without, =yes fails without. It also gets Chromium and Prometheus
# there, for the tests of nakt watch, which are skipped, saying so, without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cluster=launch/slurm/local_cluster.sh
wish="${NAKT_TEST_SLURM:-no}"
if [ -z "${NAKT_TEST_SLURM:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    wish=try
fi
tools="$PWD/.venv/tools"
get=(apt-get -o Acquire::http::Timeout=30 -o Acquire::Retries=0)
get_tools() {   # Prometheus is unpacked, not installed: its package would start a service
    command -v chromium > /dev/null ||
        DEBIAN_FRONTEND=noninteractive "${get[@]}" install -y --no-install-recommends chromium
    command -v prometheus > /dev/null || [ -d "$tools" ] ||
        (mkdir -p "$tools.new" && cd "$tools.new" && "${get[@]}" download prometheus &&
            dpkg -x prometheus_*.deb . && mv "$tools.new" "$tools")
}
# What apt-get installs takes its time beside what pip does, and types theirs beside the tests.
starting="" down=:
if [ "$wish" != no ]; then
    bash "$cluster" status > /dev/null 2>&1 || down="bash $cluster down"
    {
        status=0
        [ "$down" = : ] || bash "$cluster" up || status=1
        get_tools > /dev/null || echo "Chromium or Prometheus could not be installed." >&2
        exit "$status"
    } &
    starting=$!
    trap 'wait "$starting" && $down' EXIT
    export PATH="$PATH:$tools/usr/bin"
fi
source launch/setup.sh
unset PYTHONDONTWRITEBYTECODE   # tests start hundreds of processes; each would compile the package
complaints="$(mktemp)"
nice mypy > "$complaints" 2>&1 &
typing=$!
ruff check .
ruff format --check .
lint-imports
if [ -n "$starting" ]; then
    if wait "$starting"; then
        trap '$down' EXIT
    elif [ "$wish" = try ]; then
        wish=no
    else
        echo "NAKT_TEST_SLURM=no tests without SLURM." >&2
        exit 1
    fi
fi
if [ "$wish" = no ]; then
    echo "Brings up no SLURM: without one the tests marked slurm are skipped." >&2
fi
export NAKT_TEST_SLURM="${wish/try/yes}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
status=0
python -m pytest --numprocesses "${NAKT_TEST_WORKERS:-3}" --dist worksteal "$@" || status=$?
wait "$typing" || status=1
cat "$complaints"
rm "$complaints"
exit "$status"
