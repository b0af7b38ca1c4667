"""What training does when a rank dies, hangs, loses its numbers or runs out of memory."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nakt_dist.config import CheckpointConfig, TrackingConfig
from nakt_dist.errors import NaktError, StartAgain
from nakt_dist.models.spec import ModelSpec
from nakt_dist.training.gpu_memory import largest_part
from tests.datasets import make_packed_dataset
from tests.launching import errors_of, finish, run_ranks
from tests.mishaps import Hung, Killed, NotANumber, SmallMemory
from tests.recipes import logged_losses, read_lines, train_config

pytestmark = [pytest.mark.distributed, pytest.mark.faults, pytest.mark.timeout(180)]

WITH_BATCHNORM = ModelSpec("unet", options={"base_channels": 4, "normalisation": "batch"})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"), images=16, splits={"train": 1})


def losses_of(output: Path) -> list[float]:
    return [loss for _, loss in logged_losses(output)]


# ------------------------------------------------------------------------------- a dead rank


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_killed_in_the_middle_of_a_step_ends_the_other_with_one_clear_error(
    dataset: Path, tmp_path: Path, rank: int
) -> None:
    outcomes = run_ranks(train_config(tmp_path / "out", dataset), 2, death=Killed(4, rank))

    assert outcomes[rank].exitcode == -9
    assert "another process of this job has ended" in str(outcomes[1 - rank].error)


# ------------------------------------------------------------------------------- a hung rank


@pytest.mark.parametrize("rank", [0, 1])
def test_a_hung_rank_ends_the_job_with_the_stack_of_each_rank(
    dataset: Path, tmp_path: Path, rank: int
) -> None:
    config = train_config(tmp_path / "out", dataset, watchdog_seconds=2.0)
    log = tmp_path / "log"

    outcomes = run_ranks(config, 2, death=Hung(3, rank), log=log)

    assert not any(outcome.record for outcome in outcomes)
    message = log.read_text()
    assert message.count("nothing happened for 2 s (step 3)") == 1
    for each in (0, 1):
        where = message.index(f"process {each} (")
        stack = message[where : message.find("process 1 (", where + 1)]
        assert ("wait_for_ever" in stack) == (each == rank)
        assert "most recent call first" in stack
    finish(train_config(tmp_path / "out", dataset), 2)
    assert not (tmp_path / "out" / ".stacks").exists()


# -------------------------------------------------------------------------------- not a number


@pytest.mark.parametrize("every_steps", [1, 6])
def test_a_batch_that_is_not_a_number_on_one_rank_stops_both_and_its_keys_are_kept(
    dataset: Path, tmp_path: Path, every_steps: int
) -> None:
    config = train_config(
        tmp_path / "out",
        dataset,
        checkpoint=CheckpointConfig(every_epochs=99),
        tracking=TrackingConfig(every_steps=every_steps),
    )

    outcomes = run_ranks(config, 2, death=NotANumber((4,), rank=1))

    assert all("the loss is nan at step 4" in str(outcome.error) for outcome in outcomes)
    (line,) = read_lines(tmp_path / "out" / "not_finite.jsonl")
    assert (line["step"], line["action"]) == (4, "stopped")
    assert line["keys"] == read_lines(tmp_path / "out" / "batches.jsonl")[3]["keys"]


def test_a_skipped_batch_leaves_no_trace_in_weights_or_statistics(
    dataset: Path, tmp_path: Path
) -> None:
    recipe = {"not_finite": "skip"}
    config = train_config(tmp_path / "out", dataset, recipe=recipe, model=WITH_BATCHNORM)

    outcomes = run_ranks(config, 2, death=NotANumber((3,), rank=1))

    assert all(outcome.record for outcome in outcomes)
    assert [step for step, _ in logged_losses(tmp_path / "out")] == [1, 2, 4, 5, 6]
    (line,) = read_lines(tmp_path / "out" / "not_finite.jsonl")
    assert (line["step"], line["action"], line["loss"]) == (3, "skipped", "nan")
    text = (tmp_path / "out" / "metrics.jsonl").read_text()
    assert "NaN" not in text
    weights = load_file(tmp_path / "out" / "last.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


def test_skipping_without_end_is_an_error(dataset: Path, tmp_path: Path) -> None:
    config = train_config(tmp_path / "out", dataset, recipe={"steps": 30, "not_finite": "skip"})

    (outcome,) = run_ranks(config, death=NotANumber(tuple(range(3, 31))))

    assert "10 steps in a row were not finite at step 12" in str(outcome.error)


# --------------------------------------------------------------------------------- full memory


def test_a_full_memory_says_what_to_lower(dataset: Path, tmp_path: Path) -> None:
    (outcome,) = run_ranks(train_config(tmp_path / "out", dataset), death=SmallMemory(2))

    message = str(outcome.error)
    assert type(outcome.error) is NaktError
    assert "recipe.micro_batch_size to 4 (now 8)" in message
    assert "halve_when_out_of_memory" in message


def test_one_process_halves_its_micro_batches_and_keeps_the_global_batches(
    dataset: Path, tmp_path: Path
) -> None:
    recipe = {"halve_when_out_of_memory": True}
    finish(train_config(tmp_path / "enough", dataset))
    config = train_config(tmp_path / "out", dataset, recipe=recipe)

    (outcome,) = run_ranks(config, death=SmallMemory(2))

    assert outcome.record.config["recipe"]["micro_batch_size"] == 2
    assert json.loads((tmp_path / "out" / "micro_batch_size.json").read_text()) == {
        "micro_batch_size": 2
    }
    assert losses_of(tmp_path / "out") == pytest.approx(losses_of(tmp_path / "enough"), abs=1e-4)
    batches = [(tmp_path / name / "batches.jsonl").read_text() for name in ("out", "enough")]
    assert batches[0] == batches[1]


def test_several_processes_halve_their_micro_batches_when_they_are_started_again(
    dataset: Path, tmp_path: Path
) -> None:
    recipe = {"halve_when_out_of_memory": True}
    config = train_config(tmp_path / "out", dataset, recipe=recipe)

    outcomes = run_ranks(config, 2, death=SmallMemory(3, rank=1))
    assert isinstance(outcomes[1].error, StartAgain)
    assert "goes on with 2" in str(outcomes[1].error)
    assert outcomes[0].error is not None
    (record, *_) = finish(config, 2)

    assert record.config["recipe"]["micro_batch_size"] == 2


def test_a_note_of_a_larger_micro_batch_than_there_are_images_costs_nothing() -> None:
    assert largest_part(8, 10**12) == 8


def test_one_image_that_is_too_large_is_an_error(dataset: Path, tmp_path: Path) -> None:
    recipe = {"halve_when_out_of_memory": True}
    config = train_config(tmp_path / "out", dataset, recipe=recipe)

    (outcome,) = run_ranks(config, death=SmallMemory(0))

    assert type(outcome.error) is NaktError
    assert "recipe.micro_batch_size" not in str(outcome.error).split("Lower")[1].split(",")[0]


@pytest.mark.parametrize("size", ['"two"', "true", "0"])
def test_a_damaged_note_of_a_smaller_micro_batch_is_refused(
    size: str, dataset: Path, tmp_path: Path
) -> None:
    config = train_config(tmp_path / "out", dataset, recipe={"halve_when_out_of_memory": True})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "micro_batch_size.json").write_text(f'{{"micro_batch_size": {size}}}')

    assert "expected 1 or more" in errors_of(config)[0]
