import os
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from nakt_dist.cli import main
from nakt_dist.studies import queue
from nakt_dist.studies.folder import PlannedRun
from nakt_dist.watch.terminal import duration
from tests.watch.writing import Executor, append, learning_lines

RUNS = [PlannedRun(f"runs/[b]{n}", "train", 1, "train", {"seed": str(n)}, "x") for n in range(3)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    executor = Executor(tmp_path / "study", RUNS, "table 2")
    executor.start("runs/[b]0", ago=100)
    append(executor.folder("runs/[b]0") / "metrics.jsonl", learning_lines("0", 100))
    executor.fail("runs/[b]1", [f"line {number}" for number in range(9)])
    return executor.files.root


def test_once_prints_what_runs_and_what_failed_with_its_last_lines(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", str(root), "--once", "--price_per_process_hour=3"]) == 0
    out = capsys.readouterr().out
    first = out.splitlines()[0]
    assert first.startswith("table 2: 1 ready, 1 running, 1 failed · ") and "EUR" in first
    row = next(line.split("\t") for line in out.splitlines() if "\trunning\t" in line)
    assert row[0] == "study/runs/[b]0" and row[2] == "50% of 200 steps"
    assert row[3].startswith("validation_auroc 0.") and row[5]
    assert "failed: study/runs/[b]1: exit code 1\n    line 4\n" in out and "line 3" not in out


def test_once_counts_runs_of_no_study_under_the_name_of_their_folder(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append(root.parent / "alone" / "metrics.jsonl", learning_lines("0", 100))
    assert main(["watch", str(root.parent), "--once"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"{root.parent.name}: 1 ready, 2 running, 1 failed · ")


def test_once_draws_in_a_terminal(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "140")
    main(["watch", str(root), "--once"])
    out = capsys.readouterr().out
    assert "┏" in out and "study/runs/[b]0" in out


def test_the_page_is_served_to_whoever_has_the_address_until_ctrl_c(
    root: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "nakt_dist", "watch", str(root), "--port=0"]
    # Tests that a shell runs in the background ignore Ctrl-C, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split(" at ")[1].split()[0]
        with urllib.request.urlopen(url, timeout=20) as page:
            assert b"<title>nakt watch</title>" in page.read()
        with pytest.raises(OSError, match="401"):
            urllib.request.urlopen(url.split("?")[0], timeout=20)
        key = tmp_path / ".cache/nakt_dist/watch.key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600 and key.read_text().strip() in url
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_the_queue_of_slurm_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert queue.read_queue() is None
    told = "echo '7_1|PENDING|Priority'; echo '7_2|RUNNING|None'"
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/sh\n{told}\n")
    program.chmod(0o755)
    expected = {"7_1": "PENDING (Priority)", "7_2": "RUNNING"}
    assert queue.read_queue() == expected
    asked = queue.SlurmQueue()
    assert asked.wait() == expected
    program.write_text(f"#!/bin/sh\n{told}; echo odd\n")  # what else is it silent about?
    assert queue.read_queue() is None
    program.write_text("#!/bin/sh\nexit 1\n")
    assert asked.jobs() == expected  # not asked again so soon
    assert queue.read_queue() is None
    program.write_text("#!/bin/sh\nwhile :; do :; done\n")
    assert queue.read_queue(timeout=0.2) is None


def test_durations_are_told_in_two_units() -> None:
    told = [duration(each) for each in (4, 65, 60, 700, 3600, 7800, 200_000)]
    assert told == ["4 s", "1 min 5 s", "1 min", "12 min", "1 h", "2 h 10 min", "2 d 8 h"]
