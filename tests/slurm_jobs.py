"""Jobs on the SLURM of ``launch/slurm/local_cluster.sh``: what they are doing, and their end."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launching import NAKT

ROOT = Path(__file__).parents[1]
JOB = ROOT / "launch" / "slurm" / "job.sbatch"
ARRAY = ROOT / "launch" / "slurm" / "array.sbatch"
_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
_POLL_SECONDS = 0.2


def call(*words: str | Path) -> str:
    """Runs a command of SLURM, or of ours, that must succeed; returns what it prints."""
    ended = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@dataclass(frozen=True)
class Job:
    """A job, or one task of an array as ``ID_TASK``.

    Attributes:
        number: its id.
        log: what it prints.
    """

    number: str
    log: Path

    @property
    def output(self) -> str:
        """What it has printed so far, over all its starts."""
        return self.log.read_text() if self.log.exists() else "(nothing printed)"

    def facts(self) -> dict[str, str]:
        """What the scheduler says of it."""
        words = call("scontrol", "show", "job", self.number, "--oneliner").split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    @property
    def restarts(self) -> int:
        """How many times it was queued again."""
        return int(self.facts()["Restarts"])

    def wait_until(self, condition: Callable[[], object], timeout: float = 120) -> None:
        """Waits for something while the job is not at its end."""
        deadline = time.monotonic() + timeout
        while not condition():
            state = self.facts()["JobState"]
            assert state not in _ENDED or condition(), f"{state} before its time:\n{self.output}"
            assert time.monotonic() < deadline, f"{state} after {timeout} s:\n{self.output}"
            time.sleep(_POLL_SECONDS)

    def wait(self, timeout: float = 150) -> str:
        """Waits for the end; returns the state, such as ``COMPLETED``."""
        deadline = time.monotonic() + timeout
        while (state := self.facts()["JobState"]) not in _ENDED:
            assert time.monotonic() < deadline, f"{state} after {timeout} s:\n{self.output}"
            time.sleep(_POLL_SECONDS)
        return state

    def succeed(self, timeout: float = 150) -> None:
        """Waits for an end without error."""
        state = self.wait(timeout)
        assert state == "COMPLETED", f"{state}:\n{self.output}"

    def wait_until_queued_again(self, timeout: float = 60) -> None:
        """Waits until it is pending once more, and cuts SLURM's two minutes of waiting short.

        They are there because a node refuses a job that starts in the second of its last end.
        """
        self.wait_until(lambda: self.restarts > 0, timeout)
        self.wait_until(lambda: self.facts()["JobState"] != "COMPLETING", timeout)
        with contextlib.suppress(AssertionError):  # it runs already
            call("scontrol", "update", f"JobId={self.number}", "StartTime=now+3")


@contextlib.contextmanager
def submitted(*words: str | Path, folder: Path) -> Iterator[Job]:
    """Submits with sbatch; the job ends when the test leaves."""
    log = folder / "job.log"
    number = call("sbatch", "--parsable", f"--output={log}", "--time=10", *words).strip()
    yield from _until_left(Job(number, log))


@contextlib.contextmanager
def nakt_submits(*words: str | Path, folder: Path) -> Iterator[Job]:
    """Submits with ``nakt submit``; its jobs end when the test leaves."""
    ended = subprocess.run(
        [*NAKT, "submit", *map(str, words)], capture_output=True, text=True, timeout=180, cwd=folder
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith("submit: job ")
    number = ended.stderr.split()[2].rstrip(",;")
    file = Path(ended.stderr.rsplit("file ", 1)[1].strip())
    yield from _until_left(Job(number, file.with_name(f"{file.stem}-{number}.log")))


def _until_left(job: Job) -> Iterator[Job]:
    try:
        yield job
    finally:
        subprocess.run(["scancel", job.number], capture_output=True, timeout=60)


def write_program(path: Path, text: str) -> Path:
    """Writes what stands in for Python in ``job.sbatch``: a script that does as ``text`` says."""
    path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{text}")
    path.chmod(0o755)
    return path


def require_local_cluster() -> None:
    """Skips, saying so, where the local SLURM is not up; fails where NAKT_TEST_SLURM is yes."""
    status = ROOT / "launch" / "slurm" / "local_cluster.sh"
    ended = subprocess.run(["bash", status, "status"], capture_output=True, text=True, timeout=60)
    if ended.returncode:
        end = pytest.fail if os.environ.get("NAKT_TEST_SLURM") == "yes" else pytest.skip
        end(f"no local SLURM: {ended.stderr.strip() or 'it does not answer'}")
