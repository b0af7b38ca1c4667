"""Two jobs started on one output: refused, or working together."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.runtime import work
from nakt_dist.runtime.files import write_json
from nakt_dist.runtime.work import WorkLedger, sole_user
from tests.datasets import make_packed_dataset, make_weights
from tests.faults.chaos_cases import trained_steps
from tests.faults.chaos_launches import ForkedLaunch
from tests.launching import fork
from tests.recipes import file_hashes

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=256, splits={"train": 1.0}, samples_per_shard=16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", seed=7)


def train_words(dataset: Path, output: Path) -> list[str]:
    return [
        "train", f"--output={output}", f"--data.dataset={dataset}", "--recipe.steps=20",
        "--recipe.global_batch_size=8", "--recipe.learning_rate=0.001", "--model.name=unet",
        '--model.options={"base_channels": 4}', "--checkpoint.every_steps=5", "--device=cpu",
        "--threads=1", "--log_keys=true",
    ]  # fmt: skip


def teach_words(dataset: Path, weights: Path, output: Path) -> list[str]:
    teachers = f'--teachers=[{{"weights": "{weights}"}}]'
    places = (f"--dataset={dataset}", f"--output={output}")
    return ["teach", *places, teachers, "--device=cpu", "--threads=1"]


def evaluate_words(dataset: Path, weights: Path, output: Path) -> list[str]:
    places = (f"--dataset={dataset}", f"--output={output}", f"--weights={weights}")
    return [
        "evaluate", *places, "--splits=null", "--bootstrap_samples=100", "--device=cpu",
        "--threads=1",
    ]  # fmt: skip


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)


# ---------------------------------------------------------------------------- whole jobs


def test_of_two_trainings_at_once_the_second_is_refused_and_the_first_unharmed(
    dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with ForkedLaunch(train_words(dataset, tmp_path / "alone"), 2, tmp_path / "0", True) as alone:
        alone.finish(120)
    with ForkedLaunch(train_words(dataset, output), 2, tmp_path / "1", True) as first:
        wait_until(lambda: trained_steps(output))
        for pid in first.members().values():
            os.kill(pid, signal.SIGSTOP)
        with ForkedLaunch(train_words(dataset, output), 1, tmp_path / "2", True) as second:
            second.finish(60)
        for pid in first.members().values():
            os.kill(pid, signal.SIGCONT)
        first.finish(120)

    assert second.statuses() == {"rank 0": 1}
    assert f"{output}: another train is writing here right now" in second.printed
    assert first.statuses() == {"rank 0": 0, "rank 1": 0}, first.printed
    found, expected = file_hashes(output), file_hashes(tmp_path / "alone")
    assert found.keys() == expected.keys()
    for name in ("last.safetensors", "metrics.jsonl", "batches.jsonl"):
        assert found[name] == expected[name], name


@pytest.mark.parametrize(
    ("words_of", "changing"),
    [(teach_words, ()), (evaluate_words, ("record.json", "config.yaml"))],
    ids=["teach", "evaluate"],
)
def test_two_jobs_on_one_output_share_the_work(
    dataset: Path,
    weights: Path,
    tmp_path: Path,
    words_of: Callable[[Path, Path, Path], list[str]],
    changing: tuple[str, ...],
) -> None:
    with ForkedLaunch(
        words_of(dataset, weights, tmp_path / "alone"), 1, tmp_path / "0", False
    ) as a:
        a.finish(120)
    words = words_of(dataset, weights, tmp_path / "out")
    with (
        ForkedLaunch(words, 1, tmp_path / "1", False) as first,
        ForkedLaunch(words, 1, tmp_path / "2", False) as second,
    ):
        first.finish(120)
        second.finish(120)

    assert first.statuses() == second.statuses() == {"rank 0": 0}, first.printed + second.printed
    found, expected = file_hashes(tmp_path / "out"), file_hashes(tmp_path / "alone")
    assert found.keys() == expected.keys()
    for name in found.keys() - set(changing):
        assert found[name] == expected[name], name


# -------------------------------------------------------------------------------- ledgers


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_two_jobs_that_begin_at_the_same_moment_the_second_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not hard_links:
        monkeypatch.setattr(os, "link", link)
    first = WorkLedger(tmp_path / ".teach", {"batch_size": 16}, 1)
    second = WorkLedger(tmp_path / ".teach", {"batch_size": 8}, 1)
    write = work.write_new_json

    def write_after_another_has_begun(path: Path, value: object) -> bool:
        monkeypatch.setattr(work, "write_new_json", write)
        first.open()
        return write(path, value)

    monkeypatch.setattr(work, "write_new_json", write_after_another_has_begun)

    with pytest.raises(DatasetError, match="batch_size: found 16, expected 8"):
        second.open()
    first.open()
    assert [path.name for path in (tmp_path / ".teach").iterdir()] == ["identity.json"]


@pytest.mark.parametrize("another", [True, False])
def test_an_empty_identity_is_waited_for_as_another_rank_may_be_writing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """So it is for a moment on a file system without hard links."""
    path = tmp_path / ".teach" / "identity.json"
    path.parent.mkdir()
    path.touch()

    def pause(_: float) -> None:
        if another:
            write_json(path, {"batch_size": 16})

    monkeypatch.setattr(work.time, "sleep", pause)
    ledger = WorkLedger(tmp_path / ".teach", {"batch_size": 16}, 1)
    with contextlib.nullcontext() if another else pytest.raises(DatasetError, match="stays empty"):
        ledger.open()


# ---------------------------------------------------------------------------------- locks


def hold_beside_a_child(folder: Path) -> None:
    with sole_user(folder, "train"):
        child = os.fork()
        if child:
            (folder / "child").write_text(str(child))
        time.sleep(600)


def test_the_output_of_a_killed_job_is_free_though_its_child_still_lives(
    tmp_path: Path,
) -> None:
    holder = fork(hold_beside_a_child, tmp_path)
    wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    child = int((tmp_path / "child").read_text())
    try:
        with pytest.raises(DatasetError, match="another train"), sole_user(tmp_path, "train"):
            pass
        holder.kill()
        holder.join(20)
        os.kill(child, 0)  # it lives

        with sole_user(tmp_path, "train"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
