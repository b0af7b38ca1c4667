"""Inputs that vanish or change while a stage reads them."""

import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.stages import evaluate, pack, teach, train
from tests.datasets import make_packed_dataset, make_pseudo_labels, publish_images
from tests.faults.chaos_cases import trained_steps
from tests.faults.chaos_launches import ForkedLaunch
from tests.launching import fork
from tests.recipes import evaluate_config, file_hashes, teach_config, train_config

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of four images."""
    folder = tmp_path_factory.mktemp("packed")
    return make_packed_dataset(folder, images=24, splits={"train": 1.0})


@pytest.fixture
def dataset(packed: Path, tmp_path: Path) -> Path:
    """A copy, to damage."""
    return shutil.copytree(packed, tmp_path / "dataset")


def run_teach(output: Path, dataset: Path, weights: Path) -> None:
    teach.run(teach_config(output, dataset, weights))


def run_train(output: Path, dataset: Path, weights: Path) -> None:
    recipe = {"steps": 6, "learning_rate": 1e-3}  # two epochs
    train.run(train_config(output, dataset, recipe, memory_cache_megabytes=0))


def run_evaluate(output: Path, dataset: Path, weights: Path) -> None:
    evaluate.run(evaluate_config(output, dataset, weights))


STAGES = [run_teach, run_train, run_evaluate]


@dataclass
class Accident:
    """Happens to a shard once a stage has read its first image.

    Attributes:
        happens: does it to the file.
        to_open: whether to the shard that is being read, or to another one.
        shard: the one it has happened to.
    """

    happens: Callable[[Path], Any]
    to_open: bool = False
    shard: Path | None = None

    def prepare(self, monkeypatch: pytest.MonkeyPatch, dataset: Path) -> None:
        read, one_at_a_time = IndexedShards.image_bytes, threading.Lock()

        def image_bytes(images: IndexedShards, number: int) -> bytes:
            with one_at_a_time:  # else threads may have read all of the shard before
                data = read(images, number)
                # A thread of an earlier test that ended early may still be reading its own.
                if self.shard is None and images.root == dataset:
                    current = int(images.shard_numbers[number])
                    shards = images.manifest.shards
                    chosen = current if self.to_open else (current + 3) % len(shards)
                    self.shard = images.root / shards[chosen].name
                    self.happens(self.shard)
            return data

        monkeypatch.setattr(IndexedShards, "image_bytes", image_bytes)


def truncate(shard: Path) -> None:
    os.truncate(shard, 1024)


def overwrite(shard: Path) -> None:
    """Changes bytes in every sample, and neither size nor name."""
    data = bytearray(shard.read_bytes())
    data[512::64] = bytes(255 - value for value in data[512::64])
    with shard.open("r+b") as stream:
        stream.write(data)


# ------------------------------------------------------------------ vanishing and changing


@pytest.mark.parametrize("happens", [Path.unlink, truncate, overwrite])
@pytest.mark.parametrize("run", STAGES)
def test_a_shard_that_vanishes_or_changes_during_reading_is_one_clear_error(
    dataset: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Path, Path, Path], None],
    happens: Callable[[Path], Any],
) -> None:
    accident = Accident(happens)
    accident.prepare(monkeypatch, dataset)

    with pytest.raises(DatasetError) as refusal:
        run(tmp_path / "out", dataset, weights)

    assert str(accident.shard) in str(refusal.value)
    assert "nakt verify" in str(refusal.value)


@pytest.mark.parametrize("run", STAGES)
def test_a_shard_overwritten_while_it_is_open_is_one_clear_error(
    dataset: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Path, Path, Path], None],
) -> None:
    accident = Accident(overwrite, to_open=True)
    accident.prepare(monkeypatch, dataset)

    with pytest.raises(DatasetError) as refusal:
        run(tmp_path / "out", dataset, weights)

    assert f"{accident.shard}:image_" in str(refusal.value)


def test_teaching_goes_on_once_the_shard_is_back(
    dataset: Path, packed: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_teach(tmp_path / "undisturbed", dataset, weights)
    accident = Accident(Path.unlink)
    with monkeypatch.context() as patch:
        accident.prepare(patch, dataset)
        with pytest.raises(DatasetError):
            run_teach(tmp_path / "out", dataset, weights)
    assert not (tmp_path / "out" / "manifest.json").exists()

    shutil.copy(packed / accident.shard.name, accident.shard)
    run_teach(tmp_path / "out", dataset, weights)

    assert file_hashes(tmp_path / "out") == file_hashes(tmp_path / "undisturbed")


def test_a_shard_that_is_removed_while_it_is_open_is_read_to_its_end(
    dataset: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_teach(tmp_path / "undisturbed", dataset, weights)
    accident = Accident(Path.unlink, to_open=True)
    accident.prepare(monkeypatch, dataset)

    run_teach(tmp_path / "out", dataset, weights)

    assert not accident.shard.exists()
    assert file_hashes(tmp_path / "out") == file_hashes(tmp_path / "undisturbed")


def read_what_is_truncated(dataset: Path) -> None:
    images = IndexedShards(dataset)
    images.image_bytes(0)
    os.truncate(dataset / images.manifest.shards[0].name, 512)
    try:
        images.image_bytes(1)
    except UnusableSample:
        os._exit(42)


def test_a_shard_truncated_while_it_is_open_does_not_kill_the_reader(dataset: Path) -> None:
    reader = fork(read_what_is_truncated, dataset)  # a mapped file would end it by SIGBUS
    reader.join(60)

    assert reader.exitcode == 42


def test_pseudo_labels_that_vanish_during_training_are_one_clear_error(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pseudo = make_pseudo_labels(tmp_path, dataset)
    read = PseudoLabels.soft_mask_bytes

    def soft_mask_bytes(labels: PseudoLabels, number: int) -> bytes:
        data = read(labels, number)
        for path in pseudo.glob("*.tar"):
            path.unlink()
        return data

    monkeypatch.setattr(PseudoLabels, "soft_mask_bytes", soft_mask_bytes)
    config = train_config(tmp_path / "out", dataset, data={"pseudo_labels": str(pseudo)})

    with pytest.raises(DatasetError, match=r"pseudo-\d+\.tar: found no such file.*nakt verify"):
        train.run(replace(config, memory_cache_megabytes=0))


def test_an_image_that_vanishes_while_its_dataset_is_packed_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = publish_images(tmp_path / "published")
    plan = pack.make_plan

    def make_plan(*arguments: Any) -> Any:
        made = plan(*arguments)
        (source / "image_007.png").unlink()
        return made

    monkeypatch.setattr(pack, "make_plan", make_plan)
    record = pack.run(
        PackConfig(
            layout="image_folder",
            source=str(source),
            output=str(tmp_path / "out"),
            image=ImageConfig(height=32, width=32),
            workers=1,
        )
    )

    assert record.counts["inputs"] == 12
    assert (record.counts["packed"], record.counts["rejected"]) == (11, 1)


# --------------------------------------------------------------------- reading ahead


def test_a_shard_changed_under_a_reading_thread_is_one_clear_error(
    dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = (
        "train", f"--output={output}", f"--data.dataset={dataset}", "--recipe.steps=100000",
        "--recipe.global_batch_size=8", "--model.name=unet", '--model.options={"base_channels": 4}',
        "--device=cpu", "--threads=1", "--workers=1", "--log_keys=true",
        "--memory_cache_megabytes=0",
    )  # fmt: skip
    with ForkedLaunch(words, 1, tmp_path / "log", stop_together=False) as launch:
        while not trained_steps(output):
            assert not launch.wait(0.01), launch.printed
        for shard in dataset.glob("*.tar"):
            overwrite(shard)
        launch.finish(60)

    assert launch.statuses() == {"rank 0": 1}, launch.printed
    (error,) = [line for line in launch.printed.splitlines() if "nakt: error" in line]
    assert error.startswith(f"nakt: error: {dataset}/train-")
    # Whichever of a sample's two files was read next.
    assert re.search(r"the (image|mask)'s bytes have changed\. Run nakt verify on the", error)
    assert "Traceback" not in launch.printed
