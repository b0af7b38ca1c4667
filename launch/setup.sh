# Sourced by the scripts beside it: leaves a ready .venv at the repository's root.
# The environment is reused; it is brought up to date when pyproject.toml or constraints.txt change.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
venv="$root/.venv"
wanted="$(cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1) $root"
if [ "$(cat "$venv/.nakt-installed" 2>/dev/null || true)" != "$wanted" ]; then
    if [ ! -x "$venv/bin/python" ]; then
        python=""
        for candidate in python3.11 python3.12 python3; do
            if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
                python="$candidate"
                break
            fi
        done
        if [ -z "$python" ]; then
            echo "Python 3.11 or newer with its venv module is needed and was not found." >&2
            echo "On Debian or Ubuntu: apt-get install python3 python3-venv" >&2
            exit 1
        fi
        "$python" -m venv "$venv"
    fi
    echo "Installing into .venv (a few minutes the first time) …" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
        --constraint constraints.txt --editable '.[dev]'
    # On all cores, as pip does not; templates that are no Python fail, and what is left out here,
    # since little of it is ever imported, is compiled by whoever imports it.
    seldom='/(tests|pip|setuptools|transformers|networkx|opentelemetry|sqlalchemy|fontTools)/'
    "$venv/bin/python" -m compileall -qq -j 0 -x "$seldom" "$venv/lib" || true
    echo "$wanted" > "$venv/.nakt-installed"
fi
export PATH="$venv/bin:$PATH"
