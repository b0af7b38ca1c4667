"""Jobs that are asked to leave: all ranks save at one step, and nobody sees that they left."""

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from nakt_dist.config import (
    CheckpointConfig,
    OptimiserConfig,
    ScheduleConfig,
    TrainConfig,
    ValidationConfig,
)
from nakt_dist.errors import StartAgain
from nakt_dist.models.spec import ModelSpec
from tests.datasets import make_packed_dataset
from tests.faults.chaos_launches import ForkedLaunch
from tests.launching import (
    accelerate_launch,
    finish,
    free_port,
    program,
    run_ranks,
    torchrun,
)
from tests.mishaps import Signalled, SignalledWhileScoring
from tests.recipes import file_hashes, logged_losses, read_lines, train_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

WITH_BATCHNORM = ModelSpec("unet", options={"base_channels": 4, "normalisation": "batch"})
FINAL = ("last.safetensors", "best.safetensors", "metrics.jsonl", "batches.jsonl")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits={"train": 2 / 3, "validation": 1 / 3})


def config_of(output: Path, dataset: Path, **changes: object) -> TrainConfig:
    """Six steps, and no checkpoint before the last but the one that a signal brings about.

    Weights are averaged: each process averages the statistics of its own BatchNorms.
    """
    recipe = {
        "ema_decay": 0.9,
        "optimiser": OptimiserConfig("adamw", weight_decay=0.1),
        "schedule": ScheduleConfig("cosine", warm_up_steps=1),
    }
    settings = {
        "recipe": recipe,
        "model": WITH_BATCHNORM,
        "validation": ValidationConfig(str(dataset), splits=["validation"]),
        "checkpoint": CheckpointConfig(every_epochs=99),
        **changes,
    }
    return train_config(output, dataset, **settings)


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of it that nobody signals."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(config_of(output, dataset), 2)
    return output


def assert_same_bits(output: Path, undisturbed: Path) -> None:
    found, expected = file_hashes(output), file_hashes(undisturbed)
    assert {name: found[name] for name in FINAL} == {name: expected[name] for name in FINAL}


@pytest.mark.parametrize(("number", "rank"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 1)])
def test_a_signal_to_one_rank_makes_both_save_at_the_same_step_and_go_on_unnoticed(
    dataset: Path, undisturbed: Path, tmp_path: Path, number: int, rank: int
) -> None:
    config = config_of(tmp_path / "out", dataset)

    outcomes = run_ranks(config, 2, death=Signalled(step=4, rank=rank, number=number))

    assert all(isinstance(outcome.error, StartAgain) for outcome in outcomes)
    assert all("saved at step 4 of 6" in str(outcome.error) for outcome in outcomes)
    assert (tmp_path / "out" / "checkpoints" / "latest").read_text() == "step-000000004"
    (record, *_) = finish(config, 2)
    assert record.metrics["steps_now"] == 2
    assert_same_bits(tmp_path / "out", undisturbed)


def test_a_job_that_leaves_at_every_step_is_one_job(
    dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path / "out", dataset)

    for step in (1, 2, 3, 4, 5):
        outcomes = run_ranks(config, 2, death=Signalled(step=step, rank=1))
        assert all("leave" in str(outcome.error) for outcome in outcomes)
    finish(config, 2)

    assert_same_bits(tmp_path / "out", undisturbed)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_validation_that_the_job_left_before_is_made_up_for(
    dataset: Path, tmp_path: Path, world_size: int
) -> None:
    each_epoch = {"checkpoint": CheckpointConfig(every_epochs=1)}
    finish(config_of(tmp_path / "undisturbed", dataset, **each_epoch), world_size)
    config = config_of(tmp_path / "out", dataset, **each_epoch)

    outcomes = run_ranks(config, world_size, death=Signalled(step=4))
    assert all("saved at step 4 of 6" in str(outcome.error) for outcome in outcomes)
    scored = [
        line["step"] for line in read_lines(tmp_path / "out" / "metrics.jsonl") if len(line) == 3
    ]
    assert scored == [2]
    finish(config, world_size)

    assert_same_bits(tmp_path / "out", tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("world_size", "rank", "batch", "first_epoch"),
    [(1, 0, 3, True), (2, 1, 2, False), (2, 0, 3, False)],
)
def test_a_job_that_is_asked_to_leave_while_it_is_scored_leaves_at_once(
    tmp_path: Path, world_size: int, rank: int, batch: int, first_epoch: bool
) -> None:
    """Of 17 images the second process has one batch less, and still looks as often."""
    splits = {"train": 16 / 33, "validation": 17 / 33}
    dataset = make_packed_dataset(tmp_path, images=33, splits=splits)
    changes = {
        "checkpoint": CheckpointConfig(every_epochs=1 if first_epoch else 99),
        "recipe": {"ema_decay": 0.9, "micro_batch_size": 1},
    }
    finish(config_of(tmp_path / "undisturbed", dataset, **changes), world_size)
    config = config_of(tmp_path / "out", dataset, **changes)

    outcomes = run_ranks(config, world_size, death=SignalledWhileScoring(batch, rank))

    step = 2 if first_epoch else 6
    assert all(isinstance(outcome.error, StartAgain) for outcome in outcomes), outcomes
    assert all(f"saved at step {step} of 6" in str(outcome.error) for outcome in outcomes)
    assert not any("validation_dice" in line for line in read_lines(tmp_path / "out/metrics.jsonl"))
    finish(config, world_size)
    assert_same_bits(tmp_path / "out", tmp_path / "undisturbed")


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_that_is_to_end_where_it_left_keeps_its_only_checkpoint(
    dataset: Path, tmp_path: Path, world_size: int
) -> None:
    """Nothing is written again that a kill could leave half done."""
    config = config_of(
        tmp_path / "out", dataset, checkpoint=CheckpointConfig(every_epochs=99, keep=1),
        recipe={"ema_decay": 0.9},
    )  # fmt: skip
    finish(replace(config, recipe=replace(config.recipe, steps=2)), world_size)
    left = run_ranks(config, world_size, death=Signalled(step=4))
    assert all("saved at step 4 of 6" in str(outcome.error) for outcome in left)
    checkpoint = tmp_path / "out" / "checkpoints" / "step-000000004"
    before = checkpoint.stat().st_ino

    shorter = replace(config, recipe=replace(config.recipe, steps=4))
    (record, *_) = finish(shorter, world_size)

    assert record.metrics["steps_now"] == 0
    assert checkpoint.stat().st_ino == before
    last, kept = tmp_path / "out" / "last.safetensors", checkpoint / "model.safetensors"
    assert last.read_bytes() == kept.read_bytes()


@pytest.mark.parametrize("worlds", [(2, 1), (1, 4)])
def test_a_job_may_come_back_with_another_number_of_processes(
    dataset: Path, tmp_path: Path, worlds: tuple[int, int]
) -> None:
    plain = ModelSpec("unet", options={"base_channels": 4, "normalisation": "none"})
    finish(config_of(tmp_path / "undisturbed", dataset, model=plain))
    config = config_of(tmp_path / "out", dataset, model=plain)

    left = run_ranks(config, worlds[0], death=Signalled(step=3))
    assert all("saved at step 3 of 6" in str(outcome.error) for outcome in left)
    (record, *_) = finish(config, worlds[1])

    assert record.metrics["steps_now"] == 3
    found, expected = logged_losses(tmp_path / "out"), logged_losses(tmp_path / "undisturbed")
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-4)
    batches = [(tmp_path / name / "batches.jsonl").read_text() for name in ("out", "undisturbed")]
    assert batches[0] == batches[1]


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ("accelerate", signal.SIGTERM),
        ("accelerate", signal.SIGKILL),
        ("torchrun", signal.SIGUSR1),  # of which it dies as of SIGKILL, without a word to others
    ],
)
def test_a_launcher_that_dies_leaves_nobody_training(
    launcher: str, number: int, dataset: Path, tmp_path: Path
) -> None:
    """Launchers do not pass every signal on."""
    output = tmp_path / "out"
    alone = accelerate_launch("--cpu", "--num_processes=2")
    launch = torchrun(2) if launcher == "torchrun" else alone
    with program(*launch, *endless(output, dataset), log=tmp_path / "log") as training:
        training.wait_until(lambda: is_training(output))
        os.kill(training.pid, number)
        assert training.wait(60) != 0
        assert not training.orphans(60)

    assert_left(output, training.output)


def test_a_rank_that_waits_for_its_peer_ends_at_the_first_signal(
    dataset: Path, tmp_path: Path
) -> None:
    """Nothing is there to save, and where it waits no Python runs."""
    words, port = endless(tmp_path / "out", dataset), free_port()
    place = {"MASTER_PORT": str(port)}
    with ForkedLaunch(words, 2, tmp_path / "log", False, only=0, environment=place) as training:
        training.wait_until(lambda: listens(port))
        os.kill(training.members()["rank 0"], signal.SIGTERM)
        training.finish(10)
    assert training.statuses() == {"rank 0": -signal.SIGTERM}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def endless(output: Path, dataset: Path) -> tuple[str, ...]:
    """Words of a training that nobody waits for."""
    return (
        "train", f"--output={output}", f"--data.dataset={dataset}", "--data.splits=[train]",
        "--recipe.steps=4000", "--recipe.global_batch_size=8", "--model.name=unet",
        '--model.options={"base_channels": 4, "normalisation": "none"}',
        "--checkpoint.every_epochs=9999", "--device=cpu", "--threads=1", "--workers=1",
    )  # fmt: skip


def is_training(output: Path) -> bool:
    return (output / "metrics.jsonl").exists() and len(logged_losses(output)) >= 3


def assert_left(output: Path, printed: str) -> None:
    assert "asked to leave by SIGTERM; saved at step" in printed
    assert (output / "checkpoints" / "latest").exists()
    assert not (output / "record.json").exists()


def test_a_job_of_one_process_leaves_with_the_code_that_requeues(
    dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with ForkedLaunch(endless(output, dataset), 1, tmp_path / "log", False) as training:
        training.wait_until(lambda: is_training(output))
        for process in training.processes():
            process.send_signal(signal.SIGTERM)
        training.finish(60)

    assert training.statuses() == {"rank 0": 75}
    assert_left(output, training.printed)


def test_the_whole_job_signalled_leaves_though_its_launcher_signals_it_once_more(
    dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with program(*torchrun(2), *endless(output, dataset), log=tmp_path / "log") as training:
        training.wait_until(lambda: is_training(output))
        for process in training.processes():
            process.send_signal(signal.SIGTERM)
        assert training.wait(60) != 0  # torchrun has codes of its own
        assert not training.orphans()

    assert_left(output, training.output)
