"""Teaching in several processes: the same bytes for any number, whoever dies and comes back."""

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nakt_dist.cli import main
from nakt_dist.config import ImageConfig, PackConfig, PrivacyConfig, SplitConfig
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.relaunch import asked_of_accelerate
from nakt_dist.shards.manifest import ShardEntry, ShardManifest
from nakt_dist.shards.pseudo_findings import PseudoFindings
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import pack, teach
from tests.datasets import make_classifier, make_packed_dataset, make_weights, publish_images
from tests.faults.chaos_launches import ForkedLaunch
from tests.launching import (
    Death,
    DeathBesideASlowRank,
    accelerate_launch,
    finish,
    program,
    run_ranks,
)
from tests.onnx_files import export_onnx
from tests.recipes import evaluate_config, file_hashes, teach_config, train_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

SHARDS = 12


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=4 * SHARDS, splits={"train": 1.0})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", seed=7)


@pytest.fixture(scope="module")
def one_process(
    dataset: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What one uninterrupted process gives."""
    output = tmp_path_factory.mktemp("one") / "out"
    teach.run(teach_config(output, dataset, weights))
    return file_hashes(output)


def receipts(output: Path, at_least: int) -> Callable[[], bool]:
    return lambda: len(list((output / ".teach").glob("[0-9]*.json"))) >= at_least


def assert_each_key_once(output: Path, dataset: Path) -> None:
    names = []
    for path in output.glob("pseudo-*.tar"):
        with tarfile.open(path) as archive:
            names += archive.getnames()
    expected = IndexedShards(dataset).keys
    assert sorted(names) == sorted(f"{key}.soft.png" for key in expected)
    assert pq.read_table(output / "index.parquet")["key"].to_pylist() == expected


def test_killed_together_and_started_again_by_accelerate_in_another_number(
    tmp_path: Path, weights: Path
) -> None:
    # Large enough to be caught half way.
    dataset = make_packed_dataset(tmp_path, images=120, samples_per_shard=3)
    teach.run(teach_config(tmp_path / "one", dataset, weights))
    output = tmp_path / "out"
    teachers = f'--teachers=[{{"weights": "{weights}"}}]'
    settings = (f"--dataset={dataset}", f"--output={output}", "--device=cpu", "--threads=1")
    words = ("teach", teachers, *settings)

    with ForkedLaunch(words, 3, tmp_path / "log", stop_together=False) as teaching:
        teaching.wait_until(receipts(output, 10))
        assert teaching.members().keys() == {"rank 0", "rank 1", "rank 2"}
        teaching.kill(None)
    assert not (output / "manifest.json").exists()
    two = accelerate_launch("--cpu", "--num_processes", "2")
    with program(*two, *words, log=tmp_path / "again") as again:
        printed = again.succeed()

    assert "nakt: error" not in printed
    assert file_hashes(output) == file_hashes(tmp_path / "one")
    assert_each_key_once(output, dataset)


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_processes_gives_the_same_bytes(
    dataset: Path, weights: Path, one_process: dict[str, str], tmp_path: Path, world_size: int
) -> None:
    records = finish(teach_config(tmp_path / "out", dataset, weights), world_size)

    assert file_hashes(tmp_path / "out") == one_process
    assert sum(record.counts["taught_by_this_process"] for record in records) == 4 * SHARDS
    assert_each_key_once(tmp_path / "out", dataset)


@pytest.mark.parametrize("rename", [1, 2, 5])
def test_one_rank_killed_alone_does_not_stop_the_other(
    dataset: Path, weights: Path, one_process: dict[str, str], tmp_path: Path, rename: int
) -> None:
    config = teach_config(tmp_path / "out", dataset, weights)

    outcomes = run_ranks(config, 2, death=DeathBesideASlowRank(Death(rename, rank=1)))
    assert [outcome.exitcode for outcome in outcomes] == [0, -9]
    finish(config)

    assert file_hashes(tmp_path / "out") == one_process


def test_a_teacher_in_an_onnx_file_writes_the_same_bytes_whoever_dies(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    path = export_onnx(weights, tmp_path / "tiny.onnx")
    teach.run(teach_config(tmp_path / "one", dataset, path))
    death = DeathBesideASlowRank(Death(2, rank=1))
    outcomes = run_ranks(teach_config(tmp_path / "out", dataset, path), 2, death=death)
    assert [outcome.exitcode for outcome in outcomes] == [0, -9]
    finish(teach_config(tmp_path / "out", dataset, path), 2)

    assert file_hashes(tmp_path / "out") == file_hashes(tmp_path / "one")


def test_ranks_that_never_start_are_not_waited_for(
    dataset: Path, weights: Path, one_process: dict[str, str], tmp_path: Path
) -> None:
    (outcome,) = run_ranks(teach_config(tmp_path / "out", dataset, weights), 3, only=[1])

    assert outcome.record.counts["pseudo_labels"] == 4 * SHARDS
    assert file_hashes(tmp_path / "out") == one_process


def test_more_ranks_than_shards(weights: Path, tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, splits={"train": 1.0})
    teach.run(teach_config(tmp_path / "one", dataset, weights))

    records = finish(teach_config(tmp_path / "out", dataset, weights), 5)

    assert file_hashes(tmp_path / "out") == file_hashes(tmp_path / "one")
    assert sum(record.counts["taught_by_this_process"] for record in records) == 12


def make_dataset_with_empty_shards(folder: Path) -> Path:
    """One input a shard, every third of them unusable; and a shard that holds nothing."""
    source = publish_images(folder / "source")
    for number in range(0, 12, 3):
        (source / f"image_{number:03d}.png").write_bytes(b"")
    pack.run(
        PackConfig(
            layout="image_folder",
            source=str(source),
            output=str(folder / "packed"),
            image=ImageConfig(height=32, width=32),
            splits=SplitConfig(fractions={"train": 1.0}),
            samples_per_shard=1,
            workers=1,
        )
    )
    packed = folder / "packed"
    manifest = ShardManifest.read(packed)
    assert manifest.num_samples == 8
    with tarfile.open(packed / "train-000008.tar", "w"):
        pass
    empty = packed / "train-000008.tar"
    entry = ShardEntry(empty.name, "train", 0, empty.stat().st_size, file_sha256(empty))
    replace(manifest, shards=(*manifest.shards, entry)).write(packed)
    return packed


def test_empty_shards_pass_through_every_stage_in_several_processes(
    weights: Path, tmp_path: Path
) -> None:
    dataset = make_dataset_with_empty_shards(tmp_path)
    hospitals = [make_classifier(tmp_path / f"{n}.safetensors", ["Nodule"], n) for n in range(2)]
    for name, rule in (("plain", None), ("votes", PrivacyConfig(str(tmp_path / "key"), 9.0, 9.0))):
        taught = teach.run(teach_config(tmp_path / name, dataset, *hospitals, privacy=rule))
        assert taught.details["finished"] and main(["verify", str(tmp_path / name)]) == 0
        assert PseudoFindings.read(tmp_path / name).keys.to_pylist() == IndexedShards(dataset).keys
    assert main(["verify", str(dataset)]) == 0
    pseudo = tmp_path / "pseudo"

    finish(teach_config(pseudo, dataset, weights), 2)
    assert main(["verify", str(pseudo)]) == 0
    assert_each_key_once(pseudo, dataset)
    for streaming in (False, True):
        data = {"pseudo_labels": str(pseudo), "streaming": streaming, "shuffle_buffer": 4}
        output = tmp_path / f"student-{streaming}"
        finish(train_config(output, dataset, data=data, recipe={"steps": 2}), 2)
    (record, *_) = finish(evaluate_config(tmp_path / "eval", dataset, weights))

    assert record.counts["images"] == 8


def test_many_ranks_that_finish_at_once_leave_nothing_behind(
    dataset: Path, weights: Path, one_process: dict[str, str], tmp_path: Path
) -> None:
    for attempt in map(str, range(3)):
        finish(teach_config(tmp_path / attempt, dataset, weights), 6)
        assert file_hashes(tmp_path / attempt) == one_process


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("python bin/accelerate launch --cpu --num_processes 2 -m nakt_dist teach", 2),
        ("python -m accelerate.commands.launch --cpu --num-processes=3 -m nakt_dist teach", 3),
        ("python bin/accelerate-launch --num_processes 4 --cpu --module nakt_dist teach", 4),
        ("python bin/accelerate launch --config_file configs/accelerate/cpu.yaml -m nakt_dist", 2),
        ("python bin/accelerate launch --cpu -m nakt_dist teach --num_processes 2", 1),
        ("python bin/accelerate launch --cpu --num_processes several -m nakt_dist", 1),
        ("python bin/accelerate launch --config_file absent.yaml -m nakt_dist", 1),
        ("bash train.sh --num_processes 2", None),
        ("mpirun -n 2 python launch --num_processes 2", None),
        ("bash ./accelerate_launch --num_processes 2", None),
        ("python envs/accelerate/bin/sweep launch", None),
        ("python lib/accelerate/commands/launch.py --num_processes 2", 2),
        ("", None),
    ],
)
def test_what_accelerate_was_asked_for_is_read_from_its_command_line(
    words: str, count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert asked_of_accelerate(words.split()) == count
