"""What is said of a job in which nothing happens."""

from pathlib import Path

from nakt_dist.runtime.processes import ProcessPlace
from nakt_dist.runtime.watchdog import Watchdog, clear_stacks, describe_hang


def test_each_process_is_described_by_what_it_left() -> None:
    text = describe_hang(30, "step 7", ["a, process 1\nFile x.py, line 3\n", "b, process 2\n", ""])

    assert text.startswith("nakt: error: nothing happened for 30 s (step 7)")
    assert "process 0 (a, process 1):\nFile x.py, line 3" in text
    assert "process 1 (b, process 2) wrote no stack: it is stopped, or ended" in text
    assert "process 2 has ended, or shares no disk with this one" in text


def test_work_that_goes_on_is_left_alone_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with Watchdog(tmp_path, ProcessPlace(), seconds=30) as watchdog:
        watchdog.beat("step 1")
        assert (tmp_path / ".stacks" / "rank-0.txt").exists()

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_job_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".stacks").mkdir()
    (tmp_path / ".stacks" / "reported").touch()

    clear_stacks(tmp_path)

    assert list(tmp_path.iterdir()) == []
