"""``launch/test.sh``: whether it brings up a SLURM and what fails it, with programs of one line."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "test.sh"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    programs = {
        "bin/ruff": 'exit "$STYLE"', "bin/mypy": 'echo said of types; exit "$TYPES"',
        "bin/lint-imports": "", "bin/apt-get": "", "bin/id": 'echo "$USER_ID"',
        "bin/python": 'echo "tests $NAKT_TEST_SLURM" >> log; exit "$TESTS"',
        "launch/slurm/local_cluster.sh": (
            '[ "$1" = status ] || echo "$1" >> log\n[ "$1" != status ] || exit "$DOWN"\n'
            '[ "$1" != up ] || exit "$UP"'
        ),
        "launch/setup.sh": f"set -euo pipefail\ncd '{tmp_path}'",
    }  # fmt: skip
    for name, text in programs.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/usr/bin/env bash\n{text}\n")
        program.chmod(0o755)
    shutil.copy(SCRIPT, tmp_path / "launch" / "test.sh")
    return tmp_path


@pytest.mark.parametrize(
    ("variables", "log", "status"),
    [
        ({}, ["up", "tests yes", "down"], 0),
        ({"TESTS": "1"}, ["up", "tests yes", "down"], 1),
        ({"TYPES": "1"}, ["up", "tests yes", "down"], 1),
        ({"STYLE": "1"}, ["up", "down"], 1),
        ({"UP": "1"}, ["up", "tests no"], 0),
        ({"UP": "1", "NAKT_TEST_SLURM": "yes"}, ["up"], 1),
        ({"DOWN": "0"}, ["tests yes"], 0),
        ({"USER_ID": "1000"}, ["tests no"], 0),
        ({"USER_ID": "1000", "NAKT_TEST_SLURM": "yes", "UP": "1"}, ["up"], 1),
        ({"NAKT_TEST_SLURM": "no"}, ["tests no"], 0),
    ],
)
def test_whether_a_slurm_comes_up_and_what_ends_the_tests(
    variables: dict[str, str], log: list[str], status: int, here: Path
) -> None:
    outside = {name: value for name, value in os.environ.items() if name != "NAKT_TEST_SLURM"}
    settings = {"USER_ID": "0", "DOWN": "1", "UP": "0", "TESTS": "0", "STYLE": "0", "TYPES": "0"}
    settings |= variables
    path = f"{here / 'bin'}:{os.environ['PATH']}"

    ended = subprocess.run(
        ["bash", here / "launch" / "test.sh"],
        env={**outside, **settings, "PATH": path}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert ended.returncode == status, ended.stderr
    assert (here / "log").read_text().split("\n") == [*log, ""]
    assert ("said of types" in ended.stdout) == any(line.startswith("tests") for line in log)
    assert ("skipped" in ended.stderr) == ("tests no" in log)
    assert ("NAKT_TEST_SLURM=no tests without" in ended.stderr) == (log == ["up"])
