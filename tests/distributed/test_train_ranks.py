"""Training in several processes: the same batches and losses, no hang, the same bits again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nakt_dist.config import (
    AugmentationConfig,
    CheckpointConfig,
    ProfileConfig,
    ValidationConfig,
)
from nakt_dist.models.spec import ModelSpec
from nakt_dist.shards.reader import IndexedShards
from tests.datasets import make_packed_dataset
from tests.launching import (
    Death,
    accelerate_launch,
    errors_of,
    finish,
    program,
    run_ranks,
    torchrun,
)
from tests.mishaps import Killed
from tests.recipes import file_hashes, logged_losses, read_lines, train_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

CPU_CONFIGURATION = Path(__file__).parents[2] / "configs" / "accelerate" / "cpu.yaml"


def tiny(normalisation: str) -> ModelSpec:
    return ModelSpec("unet", options={"base_channels": 4, "normalisation": normalisation})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits={"train": 2 / 3, "validation": 1 / 3})


@pytest.fixture(scope="module")
def one_process(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with batches of 8."""
    output = tmp_path_factory.mktemp("one") / "out"
    finish(train_config(output, dataset, validation=validation_of(dataset)))
    return output


def validation_of(dataset: Path) -> ValidationConfig:
    return ValidationConfig(str(dataset), splits=["validation"])


def assert_same_training(output: Path, expected: Path) -> None:
    """The same samples exactly, the same losses to 1e-4."""
    found, wanted = logged_losses(output), logged_losses(expected)
    assert [step for step, _ in found] == [step for step, _ in wanted]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in wanted], abs=1e-4)
    assert (output / "batches.jsonl").read_bytes() == (expected / "batches.jsonl").read_bytes()


def words_of(dataset: Path, output: Path, *more: str) -> tuple[str, ...]:
    """The command line that means ``one_process``."""
    return (
        "train", f"--output={output}", f"--data.dataset={dataset}", "--data.splits=[train]",
        f"--validation.dataset={dataset}", "--validation.splits=[validation]",
        "--recipe.steps=6", "--recipe.global_batch_size=8", "--recipe.learning_rate=0.01",
        "--model.name=unet", '--model.options={"base_channels": 4, "normalisation": "none"}',
        "--checkpoint.every_steps=2", "--device=cpu", "--threads=1", "--log_keys=true", *more,
    )  # fmt: skip


# ------------------------------------------------------------------- any number of processes


@pytest.mark.parametrize("world_size", [2, 4])
def test_two_by_four_and_four_by_two_train_like_one_by_eight(
    dataset: Path, one_process: Path, tmp_path: Path, world_size: int
) -> None:
    config = train_config(tmp_path / "out", dataset, validation=validation_of(dataset))
    records = finish(config, world_size)

    assert records[0].details["processes"] == world_size
    assert_same_training(tmp_path / "out", one_process)
    scores = [
        [line["validation_dice"] for line in read_lines(output / "metrics.jsonl") if len(line) == 3]
        for output in (tmp_path / "out", one_process)
    ]
    assert scores[0]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_group_normalisation_does_not_notice_the_processes_either(
    dataset: Path, tmp_path: Path
) -> None:
    for world_size in (1, 2):
        output = tmp_path / str(world_size)
        finish(train_config(output, dataset, model=tiny("group")), world_size)

    assert_same_training(tmp_path / "2", tmp_path / "1")


@pytest.mark.parametrize(("world_size", "micro"), [(2, 2), (2, 1), (4, 1)])
def test_batches_in_parts_in_several_processes_train_like_one_by_eight(
    dataset: Path, one_process: Path, tmp_path: Path, world_size: int, micro: int
) -> None:
    recipe = {"micro_batch_size": micro}
    config = train_config(
        tmp_path / "out", dataset, recipe=recipe, validation=validation_of(dataset)
    )
    finish(config, world_size)

    assert_same_training(tmp_path / "out", one_process)


def test_accelerate_launch_trains_like_one_process(
    dataset: Path, one_process: Path, tmp_path: Path
) -> None:
    launch = accelerate_launch(f"--config_file={CPU_CONFIGURATION}")
    words = words_of(dataset, tmp_path / "out", "--recipe.micro_batch_size=2")
    with program(*launch, *words, log=tmp_path / "log") as training:
        training.wait_until((tmp_path / "out" / "metrics.jsonl").exists)
        assert training.ranks().keys() == {0, 1}
        training.succeed()

    assert_same_training(tmp_path / "out", one_process)


def test_batchnorm_statistics_are_the_mean_over_processes(dataset: Path, tmp_path: Path) -> None:
    for world_size in (1, 2):
        output = tmp_path / str(world_size)
        config = train_config(output, dataset, model=tiny("batch"), recipe={"steps": 1})
        finish(config, world_size)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("1", "2"))

    # The first layer's input does not depend on other statistics, and equal halves of a batch
    # have its mean as the mean of theirs: only averaging gives what one process has seen.
    first = "encoder.0.0.1.running_mean"
    assert one[first].abs().max() > 1e-3
    assert torch.allclose(two[first], one[first], rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------------- no hang


def test_a_world_that_does_not_divide_the_batch_is_refused_on_every_rank(
    dataset: Path, tmp_path: Path
) -> None:
    messages = errors_of(train_config(tmp_path / "out", dataset), 3)

    assert len(messages) == 3
    assert all("8 is not a multiple of 3 processes" in message for message in messages)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"recipe": {"learning_rate": 0.5, "precision": "bf16"}},
            [
                "recipe.learning_rate: found 0.5, expected 0.01",
                "recipe.precision: found 'bf16', expected 'no'",
            ],
        ),
        (
            {"recipe": {"steps": 4}, "seed": 9},
            ["recipe.steps: found 4, expected 6", "settings.seed: found 9, expected 0"],
        ),
        (
            {
                "augmentation": AugmentationConfig(enabled=False),
                "checkpoint": CheckpointConfig(every_steps=1),
            },
            ["augmentation.enabled: found False", "checkpoint.every_steps: found 1"],
        ),
    ],
    ids=["recipe", "length and seed", "others"],
)
def test_processes_that_were_started_otherwise_are_refused(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], told: list[str]
) -> None:
    own = [
        train_config(tmp_path / "out", dataset),
        train_config(tmp_path / "out", dataset, **changes),
    ]

    outcomes = run_ranks(own, 2)

    for outcome in outcomes:
        assert "process 1 was started otherwise than process 0" in str(outcome.error)
        assert all(each in str(outcome.error) for each in told)


def test_processes_that_see_other_data_are_refused(dataset: Path, tmp_path: Path) -> None:
    other = make_packed_dataset(tmp_path, images=24, splits={"train": 1.0}, seed=1)
    own = [train_config(tmp_path / "out", each) for each in (dataset, other)]

    outcomes = run_ranks(own, 2)

    assert all("lineage.trained_on.fingerprint: differs" in str(each.error) for each in outcomes)


def test_an_error_on_one_rank_alone_ends_the_launch_with_its_message(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=24, splits={"train": 1.0}, encoding="jpg")
    images = IndexedShards(dataset)
    row = images.index.to_pylist()[7]
    shard = dataset / images.manifest.shards[row["shard"]].name
    content = bytearray(shard.read_bytes())
    content[row["image_offset"] + row["image_size"] // 2] ^= 0xFF
    shard.write_bytes(bytes(content))

    messages = errors_of(train_config(tmp_path / "out", dataset), 2)

    told = f"{shard}:{row['key']}: the image's bytes have changed"
    assert sorted(told in message for message in messages) == [False, True]
    assert any("another process of this job has ended" in message for message in messages)


def test_streaming_from_fewer_shards_than_processes_does_not_hang(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, splits={"train": 1.0}, samples_per_shard=99)
    data = {"streaming": True, "shuffle_buffer": 4}

    finish(train_config(tmp_path / "out", dataset, data=data), 2)

    assert len(logged_losses(tmp_path / "out")) == 6


# -------------------------------------------------------------------------- going on


def kill_and_count(config: Any, world_size: int, death: Death) -> None:
    outcomes = run_ranks(config, world_size, death=death, timeout=90)
    assert outcomes[death.rank].exitcode == -9


@pytest.fixture(scope="module")
def two_processes(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of two processes that nobody kills."""
    output = tmp_path_factory.mktemp("two") / "out"
    finish(train_config(output, dataset), 2)
    return file_hashes(output)


@pytest.mark.parametrize("rename", [6, 10, 14, 19])
def test_two_processes_go_on_bit_for_bit_after_a_kill(
    dataset: Path, two_processes: dict[str, str], tmp_path: Path, rename: int
) -> None:
    names = ("last.safetensors", "best.safetensors", "metrics.jsonl", "batches.jsonl")
    config = train_config(tmp_path / "out", dataset)

    kill_and_count(config, 2, Death(rename))
    finish(config, 2)

    found = file_hashes(tmp_path / "out")
    assert found.keys() == two_processes.keys()
    assert {name: found[name] for name in names} == {name: two_processes[name] for name in names}


def test_a_kill_while_steps_are_profiled_changes_nothing(
    dataset: Path, two_processes: dict[str, str], tmp_path: Path
) -> None:
    config = train_config(tmp_path / "out", dataset, profile=ProfileConfig(steps=2, after=1))
    recorded = {"profile/page.html", "profile/rank_0.json.gz"}

    outcomes = run_ranks(config, 2, death=Killed(3))  # the second of the recorded steps
    assert outcomes[0].exitcode == -9 and not (tmp_path / "out" / "profile").exists()
    finish(config, 2)

    found = file_hashes(tmp_path / "out")
    assert found.keys() - two_processes.keys() == recorded
    for name in ("last.safetensors", "best.safetensors", "metrics.jsonl", "batches.jsonl"):
        assert found[name] == two_processes[name]
    page = (tmp_path / "out" / "profile" / "page.html").read_text()
    assert "2 steps recorded after 1 of warm-up, on CPU, process 0 of 2" in page


@pytest.mark.parametrize("worlds", [(2, 1), (1, 2), (2, 4)])
def test_another_number_of_processes_goes_on_with_the_same_batches(
    dataset: Path, one_process: Path, tmp_path: Path, worlds: tuple[int, int]
) -> None:
    config = train_config(tmp_path / "out", dataset, validation=validation_of(dataset))

    kill_and_count(config, worlds[0], Death(14))
    (record, *_) = finish(config, worlds[1])

    assert 0 < record.metrics["steps_now"] < 6
    assert_same_training(tmp_path / "out", one_process)


def test_the_rank_without_files_killed_alone_ends_the_others(
    dataset: Path, one_process: Path, tmp_path: Path
) -> None:
    """Until then torchrun's processes train like one."""

    def reached() -> int:
        pointer = tmp_path / "out" / "checkpoints" / "latest"
        return int(pointer.read_text().split("-")[1]) if pointer.exists() else 0

    recipe = ("--recipe.steps=400", "--recipe.micro_batch_size=2")
    words = words_of(dataset, tmp_path / "out", *recipe)
    with program(*torchrun(2), *words, log=tmp_path / "log") as training:
        training.wait_until(lambda: reached() >= 6)
        ranks = training.ranks()
        assert ranks.keys() == {0, 1}
        ranks[1].kill()
        assert training.wait(60) != 0
        assert not training.orphans()

    steps = reached() + 2
    config = train_config(
        tmp_path / "out",
        dataset,
        recipe={"steps": steps, "micro_batch_size": 2},
        validation=validation_of(dataset),
    )
    (record, *_) = finish(config, 2)
    assert record.metrics["steps_now"] == 2
    batches = [read_lines(each / "batches.jsonl")[:6] for each in (tmp_path / "out", one_process)]
    assert batches[0] == batches[1]
    losses = logged_losses(tmp_path / "out")
    assert [step for step, _ in losses] == list(range(1, steps + 1))
    expected = [loss for _, loss in logged_losses(one_process)]
    assert [loss for _, loss in losses[:6]] == pytest.approx(expected, abs=1e-4)
