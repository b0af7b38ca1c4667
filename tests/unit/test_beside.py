"""Work in a thread beside its caller: in order, and no failure is lost."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nakt_dist.runtime.beside import Beside
from nakt_dist.stages import train
from nakt_dist.training import milestones
from nakt_dist.training.checkpoint import CheckpointStore
from tests.datasets import make_packed_dataset
from tests.recipes import file_hashes, read_lines, train_config


def fail() -> None:
    raise OSError("no room")


def test_pieces_are_done_in_order_while_the_caller_goes_on():
    writing, gate, done = Beside("test"), threading.Event(), []
    writing.add(gate.wait)
    for number in range(20):
        writing.add(lambda number=number: done.append(number))
    assert done == []
    gate.set()
    writing.wait()
    assert done == list(range(20))
    writing.close(None)
    writing.add(lambda: done.append(20))
    writing.close(None)
    assert done == list(range(21))


def test_after_a_failure_nothing_is_done_and_every_wait_raises_it():
    writing, done = Beside("test"), []
    writing.add(fail)
    writing.add(lambda: done.append(1))
    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            writing.wait()
    with pytest.raises(OSError, match="no room"):
        writing.close(None)
    assert done == []


def test_a_failure_is_told_where_its_caller_fails_for_another_reason(capsys):
    writing = Beside("test")
    writing.add(fail)
    writing.close(ValueError("something else"))
    assert "could not be written: no room" in capsys.readouterr().err


class AtOnce(Beside):
    """The plain way: each piece is done before the caller goes on."""

    def add(self, work: Callable[[], object]) -> None:
        super().add(work)
        self.wait()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("data"), images=8, splits={"train": 1.0})


def test_what_is_written_beside_the_steps_is_what_is_written_between_them(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = []
    for writer in (Beside, AtOnce):
        monkeypatch.setattr(milestones, "Beside", writer)
        config = train_config(tmp_path / writer.__name__, dataset)
        train.run(config)
        hashes = file_hashes(tmp_path / writer.__name__)
        found.append({name: each for name, each in hashes.items() if "safetensors" in name})
    assert len(found[0]) >= 4
    assert found[0] == found[1]


class DoneAtOnce(Beside):
    """As fast as a thread can be; what fails is found later."""

    def add(self, work: Callable[[], object]) -> None:
        super().add(work)
        with contextlib.suppress(OSError):
            self.wait()


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_one_before(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save = CheckpointStore.save

    def until_full(self, progress, *rest):
        if progress.step > 2:
            fail()
        save(self, progress, *rest)

    monkeypatch.setattr(CheckpointStore, "save", until_full)
    monkeypatch.setattr(milestones, "Beside", DoneAtOnce)
    with pytest.raises(OSError, match="no room"):
        train.run(train_config(tmp_path / "out", dataset))
    assert (tmp_path / "out/checkpoints/latest").read_text() == "step-000000002"
    assert not (tmp_path / "out/record.json").exists()
    # The checkpoint of step 3 failed: step 4, which would be lost, is not taken.
    assert [each["step"] for each in read_lines(tmp_path / "out/batches.jsonl")] == [1, 2, 3]
