"""``nakt train`` with other recipes than the papers': the same promises."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nakt_dist.config import (
    BinaryLoss,
    CheckpointConfig,
    EarlyStoppingConfig,
    OptimiserConfig,
    ScheduleConfig,
    ValidationConfig,
)
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.stages import evaluate, train
from tests.datasets import make_packed_dataset
from tests.recipes import evaluate_config, file_hashes, read_lines, train_config

TWO_SPLITS = {"train": 2 / 3, "validation": 1 / 3}
WITH_BATCHNORM = ModelSpec("unet", options={"base_channels": 4, "normalisation": "batch"})
FINAL = ("last.safetensors", "best.safetensors", "metrics.jsonl", "batches.jsonl")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images to train on, which are two steps, and eight to validate on."""
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits=TWO_SPLITS)


def run(output: Path, dataset: Path, recipe: dict[str, Any]):
    """Trains a network whose BatchNorm keeps statistics; validates each epoch."""
    return train.run(
        train_config(
            output, dataset, recipe, model=WITH_BATCHNORM, checkpoint=CheckpointConfig(keep=9),
            validation=ValidationConfig(str(dataset), splits=["validation"]),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimiser": OptimiserConfig("adamw", weight_decay=0.1), "ema_decay": 0.9},
        {"optimiser": OptimiserConfig("sgd", weight_decay=1e-4, momentum=0.9, nesterov=True)},
        {"optimiser": OptimiserConfig("sgd"), "schedule": ScheduleConfig(warm_up_steps=3)},
        {"loss": BinaryLoss("focal"), "ema_decay": 0.5},
    ],
    ids=["adamw", "nesterov", "sgd", "focal"],
)
def test_going_on_with_more_steps_equals_having_done_them_at_once(
    dataset: Path, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    for name, parts in {"at_once": [6], "in_parts": [4, 6]}.items():
        for steps in parts:
            run(tmp_path / name, dataset, {**recipe, "steps": steps})

    found, expected = (file_hashes(tmp_path / name) for name in ("in_parts", "at_once"))
    assert {name: found[name] for name in FINAL} == {name: expected[name] for name in FINAL}


def test_an_average_is_what_is_scored_and_kept_and_changes_no_step(
    dataset: Path, tmp_path: Path
) -> None:
    run(tmp_path / "plain", dataset, {})
    record = run(tmp_path / "averaged", dataset, {"ema_decay": 0.8})

    newest = tmp_path / "averaged" / "checkpoints" / "step-000000006"
    learning = load_file(newest / "learning.safetensors")
    plain = load_file(tmp_path / "plain" / "last.safetensors")
    assert all(torch.equal(learning[name], value) for name, value in plain.items())
    last = load_file(tmp_path / "averaged" / "last.safetensors")
    changed = {name.rpartition(".")[2] for name in last if not torch.equal(last[name], plain[name])}
    assert {"weight", "bias", "running_mean", "running_var"} == changed
    scores = [
        [line["validation_dice"] for line in read_lines(tmp_path / name / "metrics.jsonl")
         if "validation_dice" in line] for name in ("plain", "averaged")
    ]  # fmt: skip
    assert scores[0] != scores[1]
    config = evaluate_config(
        tmp_path / "tested", dataset, tmp_path / "averaged", splits=["validation"]
    )
    best = record.metrics["best_validation_dice"]
    assert evaluate.run(config).metrics["dice_mean"] == pytest.approx(100 * best, abs=1e-6)


def test_a_training_without_gain_stops_and_stays_so(dataset: Path, tmp_path: Path) -> None:
    recipe = {"early_stopping": EarlyStoppingConfig(1, smallest_gain=1.0)}
    record = run(tmp_path / "out", dataset, recipe)

    # The first validation is a gain, the second is none.
    assert (record.details["steps"], record.details["total_steps"]) == (4, 6)
    assert record.details["stopped_early"] is True
    whole = run(tmp_path / "whole", dataset, {"steps": 4})
    assert whole.details["stopped_early"] is False
    expected = file_hashes(tmp_path / "whole")
    assert {name: file_hashes(tmp_path / "out")[name] for name in FINAL} == {
        name: expected[name] for name in FINAL
    }
    assert run(tmp_path / "out", dataset, recipe) == record  # nothing to do
    for name in ("record.json", "last.safetensors"):
        (tmp_path / "out" / name).unlink()
    again = run(tmp_path / "out", dataset, recipe)
    assert again.metrics["steps_now"] == 0 and again.details["stopped_early"] is True
    assert file_hashes(tmp_path / "out")["last.safetensors"] == expected["last.safetensors"]
    more = run(tmp_path / "out", dataset, {**recipe, "steps": 8})
    assert (more.details["steps"], more.details["total_steps"]) == (4, 8)


def test_the_length_of_a_cosine_cannot_be_changed_once_it_has_begun(
    dataset: Path, tmp_path: Path
) -> None:
    schedule = {"schedule": ScheduleConfig("cosine", warm_up_steps=1)}
    run(tmp_path / "out", dataset, {**schedule, "steps": 4})
    lines = read_lines(tmp_path / "out" / "metrics.jsonl")
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    assert rates == pytest.approx([1e-2, 1e-2, 0.75e-2, 0.25e-2])

    with pytest.raises(DatasetError, match=r"recipe\.steps: found 4, expected 6"):
        run(tmp_path / "out", dataset, {**schedule, "steps": 6})
    with pytest.raises(DatasetError, match=r"recipe\.ema_decay: found None, expected 0\.9"):
        run(tmp_path / "out", dataset, {**schedule, "steps": 4, "ema_decay": 0.9})
    longer = {"schedule": ScheduleConfig(warm_up_steps=9)}
    with pytest.raises(ConfigurationError, match="warm_up_steps is 9 and the training has 6"):
        run(tmp_path / "longer", dataset, longer)
