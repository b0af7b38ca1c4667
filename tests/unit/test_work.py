import fcntl
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.runtime import work as work_module
from nakt_dist.runtime.files import read_json, write_json
from nakt_dist.runtime.shared_job import SharedJob
from nakt_dist.runtime.work import WorkLedger, hold_lock, is_unfinished, sole_user

IDENTITY = {"dataset": "squares", "teachers": [{"weight": 1.0}], "settings": {"batch_size": 16}}
SPAWN = multiprocessing.get_context("spawn")


def ledger(folder, pieces=6, identity=IDENTITY):
    opened = WorkLedger(folder / ".teach", identity, pieces)
    opened.open()
    return opened


def work(folder: Path, rank: int, world_size: int, pieces: int, seconds: float) -> None:
    """Does pieces as a stage does, and leaves a line for each time one is begun and ended."""
    job = WorkLedger(folder / ".teach", IDENTITY, pieces)
    job.open()
    for piece in job.unfinished(rank, world_size):
        note(folder, f"begin {piece} {rank}")
        time.sleep(seconds)
        note(folder, f"end {piece} {rank}")
        job.finish(piece, {"rank": rank})


def note(folder: Path, line: str) -> None:
    with (folder / "notes.txt").open("a") as stream:
        stream.write(line + "\n")


def notes(folder: Path) -> list[list[str]]:
    path = folder / "notes.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def started(*arguments):
    process = SPAWN.Process(target=work, args=arguments)
    process.start()
    return process


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the other process did not come so far"
        time.sleep(0.01)


def test_one_process_does_every_piece_once(tmp_path):
    job = ledger(tmp_path)
    done = []
    for piece in job.unfinished(0, 1):
        done.append(piece)
        assert not job.is_finished(piece)
        job.finish(piece, {"piece": piece})
    assert done == list(range(6))
    assert job.is_complete()
    assert job.receipt(4) == {"piece": 4}
    assert list(job.unfinished(0, 1)) == []


def test_a_rank_begins_with_its_own_share_and_then_helps_the_others(tmp_path):
    assert list(ledger(tmp_path).unfinished(1, 3)) == [1, 4, 2, 5, 0, 3]


def test_a_piece_that_is_begun_but_not_finished_is_yielded_again(tmp_path):
    job = ledger(tmp_path, pieces=2)
    for piece in job.unfinished(0, 1):
        if piece == 1:
            job.finish(piece, {})
    assert not job.is_complete()
    assert list(ledger(tmp_path, pieces=2).unfinished(0, 1)) == [0]


def test_a_held_piece_is_left_to_its_holder(tmp_path):
    job = ledger(tmp_path, pieces=3)
    first, second = job.unfinished(0, 1), ledger(tmp_path, pieces=3).unfinished(0, 1)
    assert next(first) == 0
    assert list(second) == [1, 2]


def test_a_piece_finished_by_another_after_the_look_is_not_done_again(tmp_path):
    job = ledger(tmp_path, pieces=3)
    pieces = job.unfinished(0, 1)
    assert next(pieces) == 0
    job.finish(1, {})
    assert next(pieces) == 2


def test_a_piece_finished_between_the_look_and_the_lock_is_not_done_again(tmp_path, monkeypatch):
    job = ledger(tmp_path, pieces=2)

    def lock_after_another_has_finished(path):
        if path.stem == "000000":
            job.finish(0, {})
        return hold_lock(path)

    monkeypatch.setattr("nakt_dist.runtime.work.hold_lock", lock_after_another_has_finished)
    assert list(job.unfinished(0, 1)) == [1]


def test_two_living_processes_never_do_a_piece_twice(tmp_path):
    workers = [started(tmp_path, rank, 2, 12, 0.02) for rank in range(2)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(int(piece) for event, piece, _ in notes(tmp_path) if event == "begin") == [
        *range(12)
    ]
    assert ledger(tmp_path, pieces=12).is_complete()


@pytest.mark.faults
def test_the_piece_of_a_killed_holder_is_taken_by_another(tmp_path):
    holder = started(tmp_path, 0, 1, 3, 600)
    wait_until(lambda: notes(tmp_path))
    job = ledger(tmp_path, pieces=3)
    assert 0 not in list(job.unfinished(0, 1))
    holder.kill()
    holder.join(20)
    assert list(job.unfinished(0, 1)) == [0, 1, 2]


def test_another_job_in_the_folder_is_refused_naming_what_differs(tmp_path):
    ledger(tmp_path)
    other = {**IDENTITY, "dataset": "discs", "settings": {"batch_size": 8}}
    with pytest.raises(DatasetError) as caught:
        ledger(tmp_path, identity=other)
    message = str(caught.value)
    assert "dataset: found 'squares', expected 'discs'" in message
    assert "settings.batch_size: found 16, expected 8" in message
    assert str(tmp_path) in message
    assert "teachers" not in message


def test_the_same_job_is_taken_up_where_it_stood(tmp_path):
    ledger(tmp_path).finish(2, {"rank": 0})
    again = ledger(tmp_path)
    assert again.is_finished(2)
    assert 2 not in list(again.unfinished(0, 1))


def test_a_closed_ledger_leaves_nothing(tmp_path):
    job = ledger(tmp_path)
    job.finish(0, {})
    job.close()
    assert list(tmp_path.iterdir()) == []
    assert list(job.unfinished(0, 1)) == []  # a late rank finds nothing to do


def test_a_lock_is_held_by_one_and_free_again_afterwards(tmp_path):
    path = tmp_path / "lock"
    with hold_lock(path) as first, hold_lock(path) as second:
        assert (first, second) == (True, False)
    with hold_lock(path) as third:
        assert third


def test_a_lock_whose_file_is_removed_before_it_is_got_is_not_held(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    flock = fcntl.flock

    def flock_after_removal(stream, operation):
        path.unlink()  # the last holder leaves just now
        flock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_removal)
    with hold_lock(path) as held:
        assert not held


def test_a_second_user_of_an_output_is_refused(tmp_path):
    with sole_user(tmp_path, "pack"):
        second = sole_user(tmp_path, "pack")
        with pytest.raises(DatasetError, match="another pack is writing here") as caught, second:
            pass
        assert str(tmp_path) in str(caught.value)
    with sole_user(tmp_path, "pack"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["link", "link_to_nothing", "pipe", "folder"])
def test_what_is_no_plain_lock_is_refused_and_not_followed_or_waited_for(tmp_path, kind):
    output, elsewhere = tmp_path / "output", tmp_path / "elsewhere"
    output.mkdir()
    elsewhere.mkdir()
    if kind == "pipe":
        os.mkfifo(output / ".lock")
    elif kind == "folder":
        (output / ".lock").mkdir()
    else:
        if kind == "link":
            (elsewhere / "lock").write_text("theirs")
        (output / ".lock").symlink_to(elsewhere / "lock")
    left = {path.name: path.read_text() for path in elsewhere.iterdir()}
    with pytest.raises(DatasetError) as caught, sole_user(output, "pack"):
        pass
    assert f"{output / '.lock'}: is a link, a pipe or a folder" in str(caught.value)
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == left


def test_a_ledger_that_is_a_link_is_refused_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    for there in (victim, tmp_path / "absent"):
        (tmp_path / ".teach").unlink(missing_ok=True)
        (tmp_path / ".teach").symlink_to(there)
        with pytest.raises(DatasetError, match=r"\.teach: is a link"):
            ledger(tmp_path)
    assert list(victim.iterdir()) == []


def test_an_output_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_user(tmp_path, "pack"):
        raise ZeroDivisionError
    with sole_user(tmp_path, "pack"):
        pass


def hold_output(folder: Path) -> None:
    with sole_user(folder, "train"):
        note(folder, "held")
        time.sleep(600)


@pytest.mark.faults
def test_the_output_of_a_killed_user_is_free_at_once(tmp_path):
    holder = SPAWN.Process(target=hold_output, args=(tmp_path,))
    holder.start()
    wait_until(lambda: notes(tmp_path))
    with pytest.raises(DatasetError, match="another train"), sole_user(tmp_path, "train"):
        pass
    holder.kill()
    holder.join(20)
    with sole_user(tmp_path, "train"):
        pass


def test_another_job_is_refused_without_beginning_one(tmp_path):
    job = WorkLedger(tmp_path / ".teach", IDENTITY, 6)
    job.check()
    assert list(tmp_path.iterdir()) == []
    WorkLedger(tmp_path / ".teach", {**IDENTITY, "dataset": "circles"}, 6).open()
    with pytest.raises(DatasetError, match="dataset: found 'circles', expected 'squares'"):
        job.check()


class Counting(SharedJob):
    """Counts its pieces; the total is the result."""

    stage, written_last, others = "teach", "total.json", "other counts"

    def read(self):
        written = read_json(self.output / self.written_last, "total")
        return written["identity"], written["total"]

    def put_together(self):
        total = sum(self.ledger.receipt(piece)["one"] for piece in range(self.ledger.pieces))
        write_json(self.output / self.written_last, {"identity": self.identity, "total": total})
        return total


def test_a_shared_job_is_begun_worked_on_and_put_together_once(tmp_path):
    first, second = (Counting(tmp_path / "out", IDENTITY, 3) for _ in range(2))
    first.check()
    assert not (tmp_path / "out").exists()
    assert first.begin() is second.begin() is None
    doing = first.work(lambda pieces: ((piece, {"one": 1}) for piece in pieces))
    assert next(doing) == 0
    assert first.finalise(first.put_together) is None
    assert list(second.work(lambda pieces: ((piece, {"one": 1}) for piece in pieces))) == [1, 2]
    assert second.finalise(second.put_together) == 3
    assert (
        first.finalise(first.put_together) == Counting(tmp_path / "out", IDENTITY, 3).begin() == 3
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["total.json"]


def test_a_ledger_goes_when_none_of_its_locks_is_open_any_more(tmp_path, monkeypatch):
    """NFS keeps a name of a file that is removed while it is open, and with it its folder."""
    job, close = Counting(tmp_path, IDENTITY), WorkLedger.close

    def close_as_on_nfs(ledger):
        assert not work_module._HELD
        close(ledger)

    job.begin()
    assert is_unfinished(tmp_path, "teach")
    monkeypatch.setattr(WorkLedger, "close", close_as_on_nfs)
    assert job.finalise(job.put_together) == 0
    assert not is_unfinished(tmp_path, "teach")


def test_a_shared_job_refuses_the_result_of_another(tmp_path):
    job = Counting(tmp_path, IDENTITY)
    job.begin()
    job.finalise(job.put_together)
    other = Counting(tmp_path, {**IDENTITY, "dataset": "discs"})
    for look in (other.check, other.begin):
        with pytest.raises(DatasetError, match=r"holds other counts \(dataset: found 'squares'"):
            look()


def test_what_a_kill_left_of_a_complete_job_is_removed_by_the_main_process_alone(
    tmp_path, monkeypatch
):
    job = Counting(tmp_path, IDENTITY)
    job.begin()
    job.put_together()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert job.begin() == 0
    assert job.ledger.folder.exists()  # the first process may mend with it
    monkeypatch.setenv("RANK", "0")
    assert job.begin() == 0
    assert not job.ledger.folder.exists()
