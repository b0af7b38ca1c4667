"""A full disk is one clear error that names the file; with room made, the same command goes on."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nakt_dist.errors import NaktError
from nakt_dist.runtime.files import naming
from tests.datasets import make_packed_dataset, make_pseudo_labels, make_weights, publish_images
from tests.faults.chaos_launches import CommandLaunch, ForkedLaunch, Launch
from tests.faults.disks import SmallDisk, small_disk
from tests.launching import finish
from tests.recipes import evaluate_config, file_hashes

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

SHARES = (0.0, 0.4, 0.9)
"""How much of what the output needs is left on the disk."""


@dataclass(frozen=True)
class Inputs:
    """What the stages read, on a disk with room."""

    source: Path
    dataset: Path
    weights: Path
    pseudo: Path
    evaluation: Path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    dataset = make_packed_dataset(folder, images=24, splits={"train": 0.75, "validation": 0.25})
    weights = make_weights(folder / "tiny.safetensors", seed=7)
    finish(evaluate_config(folder / "evaluation", dataset, weights))
    return Inputs(
        source=folder / "squares-published",
        dataset=dataset,
        weights=weights,
        pseudo=make_pseudo_labels(folder, dataset),
        evaluation=folder / "evaluation",
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as made:
        yield made


def phantoms_words(inputs: Inputs) -> list[str]:
    return ["phantoms", "--kind=breast_ultrasound", "--count=20", "--image_size=64"]


def pack_words(inputs: Inputs) -> list[str]:
    return [
        "pack", "--layout=image_folder", f"--source={inputs.source}", "--image.height=32",
        "--image.width=32", "--samples_per_shard=4", "--workers=1",
    ]  # fmt: skip


def teach_words(inputs: Inputs) -> list[str]:
    teachers = json.dumps([{"weights": str(inputs.weights)}])
    dataset = f"--dataset={inputs.dataset}"
    return ["teach", dataset, f"--teachers={teachers}", "--device=cpu", "--threads=1"]


def train_words(inputs: Inputs) -> list[str]:
    return [
        "train", f"--data.dataset={inputs.dataset}", "--data.splits=[train]",
        f"--validation.dataset={inputs.dataset}", "--validation.splits=[validation]",
        "--recipe.steps=4", "--recipe.global_batch_size=6", "--recipe.learning_rate=0.001",
        "--model.name=unet", '--model.options={"base_channels": 4}', "--checkpoint.every_steps=1",
        "--device=cpu", "--threads=1", "--log_keys=true",
    ]  # fmt: skip


def evaluate_words(inputs: Inputs) -> list[str]:
    return [
        "evaluate", f"--dataset={inputs.dataset}", f"--weights={inputs.weights}", "--splits=null",
        "--bootstrap_samples=100", "--overlays=2", "--device=cpu", "--threads=1",
    ]  # fmt: skip


def inspect_words(inputs: Inputs) -> list[str]:
    return ["inspect", str(inputs.pseudo), f"--dataset={inputs.dataset}", "--images=2"]


def report_words(inputs: Inputs) -> list[str]:
    return ["report", str(inputs.evaluation)]


def run(disk: SmallDisk, words: list[str], log: Path, world_size: int = 1) -> Launch:
    """Runs a command to its end."""
    log.unlink(missing_ok=True)
    with ForkedLaunch(words, world_size, log, stop_together=False) as launch:
        disk.hold(launch)
        launch.finish(120)
    return launch


def used_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def lasting(output: Path) -> dict[str, str | None]:
    """The files, and their bytes where these do not tell how long it took."""
    files = file_hashes(output)
    telling = ("record.json", "pace.jsonl")
    return {name: None if name in telling else sha for name, sha in files.items()}


def assert_one_clear_error(launch: Launch, place: Path) -> None:
    errors = [line for line in launch.printed.splitlines() if "nakt: error" in line]
    assert launch.statuses()["rank 0"] == 1, launch.printed
    assert len(errors) == 1, launch.printed
    assert f"{place}" in errors[0]
    assert "cannot be written" in errors[0]
    assert "Make room there" in errors[0]
    assert "Traceback" not in launch.printed
    assert "Exception ignored" not in launch.printed


@pytest.mark.parametrize(
    "words_of",
    [
        phantoms_words, pack_words, teach_words, train_words, evaluate_words, inspect_words,
        report_words,
    ],
    ids=lambda function: function.__name__.removesuffix("_words"),
)  # fmt: skip
def test_a_full_disk_is_one_clear_error_and_with_room_the_same_command_goes_on(
    inputs: Inputs, disk: SmallDisk, tmp_path: Path, words_of: Callable[[Inputs], list[str]]
) -> None:
    output = disk.folder / "out"
    words = [*words_of(inputs), f"--output={output}"]
    assert run(disk, words, tmp_path / "log").statuses() == {"rank 0": 0}
    expected, needed = lasting(output), used_bytes(output)

    for share in SHARES:
        shutil.rmtree(output)
        disk.leave(int(share * needed))
        assert_one_clear_error(run(disk, words, tmp_path / "log"), output)
        disk.make_room()

        again = run(disk, words, tmp_path / "log")
        assert again.statuses() == {"rank 0": 0}, again.printed
        assert lasting(output) == expected, f"with room for {share} of it at first"


def test_a_full_disk_leaves_damaged_shards_to_the_next_repair(
    inputs: Inputs, disk: SmallDisk, tmp_path: Path
) -> None:
    folder = disk.folder / "dataset"
    expected = file_hashes(inputs.dataset)
    words = ["verify", str(folder), "--repair=true", "--workers=1"]

    for room in (0, 16 << 10, 64 << 10):
        shutil.copytree(inputs.dataset, folder)
        for name in ("train-000001.tar", "index.parquet"):
            (folder / name).write_bytes(b"damaged")
        disk.leave(room)
        assert_one_clear_error(run(disk, words, tmp_path / "log"), folder)
        disk.make_room()

        again = run(disk, words, tmp_path / "log")
        assert again.statuses() == {"rank 0": 0}, again.printed
        assert file_hashes(folder) == expected
        shutil.rmtree(folder)


def test_a_disk_that_is_full_for_the_workers_of_pack_is_the_same_one_error(
    inputs: Inputs, disk: SmallDisk, tmp_path: Path
) -> None:
    words = [*pack_words(inputs)[:-1], "--workers=2", f"--output={disk.folder / 'out'}"]
    disk.leave(24 << 10)
    with CommandLaunch(words, None, tmp_path / "log") as launch:
        disk.hold(launch)
        launch.finish(120)

    assert launch.statuses() == {"main": 1}
    assert "Traceback" not in launch.printed
    assert "cannot be written" in launch.printed
    assert f"{disk.folder / 'out'}" in launch.printed


def test_no_process_waits_for_the_one_that_found_the_disk_full(
    inputs: Inputs, disk: SmallDisk, tmp_path: Path
) -> None:
    output = disk.folder / "out"
    words = [*train_words(inputs), f"--output={output}"]
    words = [word.replace("batch_size=6", "batch_size=4") for word in words]
    disk.leave(64 << 10)

    launch = run(disk, words, tmp_path / "log", world_size=2)

    assert launch.statuses()["rank 0"] == 1
    assert launch.statuses()["rank 1"] != 0
    assert f"{output}" in launch.printed
    assert "Make room there" in launch.printed

    disk.make_room()
    again = run(disk, words, tmp_path / "log", world_size=2)
    assert again.statuses() == {"rank 0": 0, "rank 1": 0}, again.printed


def test_a_cache_without_room_names_the_file_that_was_fetched(
    inputs: Inputs, disk: SmallDisk, tmp_path: Path
) -> None:
    words = [word for word in evaluate_words(inputs) if not word.startswith("--dataset")]
    words += [f"--dataset=file://{inputs.dataset}", f"--cache={disk.folder / 'cache'}"]
    words += [f"--output={tmp_path / 'out'}"]
    disk.leave(32 << 10)

    launch = run(disk, words, tmp_path / "log")

    assert launch.statuses() == {"rank 0": 1}
    assert f"{disk.folder / 'cache'}" in launch.printed
    assert "cannot be fetched" in launch.printed
    assert "Traceback" not in launch.printed

    disk.make_room()
    again = run(disk, words, tmp_path / "log")
    assert again.statuses() == {"rank 0": 0}, again.printed


def test_a_dataset_that_was_never_finished_for_want_of_room_is_not_taken_for_one(
    inputs: Inputs, disk: SmallDisk, tmp_path: Path
) -> None:
    source = publish_images(tmp_path / "images", images=24)
    output = disk.folder / "out"
    words = [*pack_words(inputs), f"--output={output}"]
    words = [word.replace(str(inputs.source), str(source)) for word in words]
    disk.leave(40 << 10)
    assert_one_clear_error(run(disk, words, tmp_path / "log"), output)

    launch = run(disk, ["verify", str(output)], tmp_path / "log")

    assert launch.statuses() == {"rank 0": 1}
    assert "manifest.json: no manifest here" in launch.printed


def test_a_full_disk_is_found_behind_what_a_library_raises_on_top_of_it(tmp_path: Path) -> None:
    path = tmp_path / "optimiser.safetensors"
    with (
        pytest.raises(NaktError, match=r"optimiser\.safetensors: cannot be written: No space left"),
        naming(path),
    ):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")  # as torch.save does at its end


def test_an_error_that_names_a_file_already_is_not_given_another(tmp_path: Path) -> None:
    with (
        pytest.raises(NaktError, match=r"^train-000001\.tar cannot be fetched$"),
        naming(tmp_path / "pseudo-000001.tar"),
    ):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise NaktError("train-000001.tar cannot be fetched") from error
