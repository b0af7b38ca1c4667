"""Teaching, training and evaluating, killed before any rename and started again."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

from nakt_dist.config import (
    EarlyStoppingConfig,
    OptimiserConfig,
    ScheduleConfig,
    ValidationConfig,
    VerifyConfig,
)
from nakt_dist.stages import teach
from tests.datasets import make_packed_dataset
from tests.faults.chaos_launches import ForkedLaunch
from tests.launching import Death, finish, run_ranks
from tests.recipes import (
    evaluate_config,
    file_hashes,
    logged_losses,
    read_lines,
    teach_config,
    train_config,
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


def trained(output: Path) -> dict[str, Any]:
    """What training leaves, but for the times and paths in its record, and how fast it was."""
    files = file_hashes(output)
    changing = ("record.json", "config.yaml", "pace.jsonl")
    assert files.keys() >= set(changing)
    metrics = read_lines(output / "metrics.jsonl")
    assert len({(line["step"], "loss" in line) for line in metrics}) == len(metrics)
    return {name: sha256 for name, sha256 in files.items() if name not in changing}


def test_training_killed_before_any_rename_goes_on_bit_for_bit(
    dataset: Path, tmp_path: Path
) -> None:
    validation = ValidationConfig(str(dataset), splits=["validation"])
    recipe = {
        "steps": 4, "ema_decay": 0.9, "early_stopping": EarlyStoppingConfig(9),
        "optimiser": OptimiserConfig("adamw", weight_decay=0.1),
        "schedule": ScheduleConfig("cosine", warm_up_steps=1),
    }  # fmt: skip
    settings = {"recipe": recipe, "validation": validation}
    finish(train_config(tmp_path / "undisturbed", dataset, **settings))
    expected = trained(tmp_path / "undisturbed")

    for rename in itertools.count(1):
        config = train_config(tmp_path / str(rename), dataset, **settings)
        (outcome,) = run_ranks(config, death=Death(rename))
        if outcome.exitcode == 0:
            break
        finish(config)
        assert trained(tmp_path / str(rename)) == expected, f"killed before rename {rename}"

    assert rename > 2 * 5  # two checkpoints of five files and more


def test_training_killed_twice_at_once_after_the_other_goes_on_bit_for_bit(
    dataset: Path, tmp_path: Path
) -> None:
    finish(train_config(tmp_path / "undisturbed", dataset))
    config = train_config(tmp_path / "out", dataset)

    for rename in (14, 9):
        (outcome,) = run_ranks(config, death=Death(rename))
        assert outcome.exitcode == -9
    finish(config)

    assert trained(tmp_path / "out") == trained(tmp_path / "undisturbed")


def test_a_damaged_last_checkpoint_is_noticed_and_the_one_before_it_used(
    dataset: Path, tmp_path: Path
) -> None:
    finish(train_config(tmp_path / "undisturbed", dataset))
    config = train_config(tmp_path / "out", dataset)
    finish(train_config(tmp_path / "out", dataset, recipe={"steps": 4}))
    checkpoint = tmp_path / "out" / "checkpoints" / "step-000000004"
    (checkpoint / "optimiser.safetensors").write_bytes(b"?")

    (record,) = finish(config)

    assert record.metrics["steps_now"] == 4
    assert trained(tmp_path / "out") == trained(tmp_path / "undisturbed")


def test_training_from_the_command_line_killed_with_all_its_processes_goes_on_bit_for_bit(
    dataset: Path, tmp_path: Path
) -> None:
    recipe = {"steps": 60, "learning_rate": 0.001}
    finish(train_config(tmp_path / "undisturbed", dataset, recipe=recipe))
    output = tmp_path / "out"
    words = (
        "train", f"--output={output}", f"--data.dataset={dataset}", "--recipe.steps=60",
        "--recipe.global_batch_size=8", "--recipe.learning_rate=0.001", "--model.name=unet",
        '--model.options={"base_channels": 4, "normalisation": "none"}', "--device=cpu",
        "--threads=1", "--log_keys=true", "--checkpoint.every_steps=2", "--workers=1",
    )  # fmt: skip

    with ForkedLaunch(words, 1, tmp_path / "log", stop_together=True) as training:
        training.wait_until(lambda: (output / "checkpoints" / "step-000000020").exists())
        training.kill(None)
    assert not (output / "record.json").exists()
    (record,) = finish(train_config(output, dataset, recipe=recipe))

    assert 0 < record.metrics["steps_now"] < 60
    assert trained(output) == trained(tmp_path / "undisturbed")
    assert [step for step, _ in logged_losses(output)] == list(range(1, 61))


def test_teaching_killed_before_any_rename_changes_no_byte(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    teach.run(teach_config(tmp_path / "undisturbed", dataset, weights))
    expected = file_hashes(tmp_path / "undisturbed")

    for rename in itertools.count(1):
        config = teach_config(tmp_path / str(rename), dataset, weights)
        (outcome,) = run_ranks(config, death=Death(rename))
        if outcome.exitcode == 0:
            break
        finish(config)
        assert file_hashes(tmp_path / str(rename)) == expected, f"killed before rename {rename}"

    assert rename > 2 * 6 + 3  # six shards with receipts, index, configuration, manifest


def test_teaching_killed_between_its_manifest_and_its_end_leaves_nothing_behind(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    config = teach_config(tmp_path / "out", dataset, weights)
    finish(config)
    expected = file_hashes(tmp_path / "out")
    (tmp_path / "out" / ".teach").mkdir()
    (tmp_path / "out" / ".teach" / "000000.json").write_text("{}")

    finish(config)

    assert file_hashes(tmp_path / "out") == expected


def test_evaluating_killed_before_any_rename_changes_no_prediction(
    weights: Path, tmp_path: Path
) -> None:
    dataset = make_packed_dataset(tmp_path, images=150)
    (undisturbed,) = finish(evaluate_config(tmp_path / "undisturbed", dataset, weights))
    expected = file_hashes(tmp_path / "undisturbed")

    for rename in itertools.count(1):
        config = evaluate_config(tmp_path / str(rename), dataset, weights)
        (outcome,) = run_ranks(config, death=Death(rename))
        if outcome.exitcode == 0:
            break
        (record,) = finish(config)
        files = file_hashes(tmp_path / str(rename))
        assert files.keys() == expected.keys(), f"killed before rename {rename}"
        assert files["predictions.parquet"] == expected["predictions.parquet"]
        assert record.metrics == undisturbed.metrics

    assert rename > 3 + 3  # three pieces, predictions, configuration, record


def test_a_repair_killed_before_any_rename_is_mended_by_the_next(
    tmp_path: Path,
) -> None:
    dataset = make_packed_dataset(tmp_path)
    expected = file_hashes(dataset)

    for rename in itertools.count(1):
        folder = tmp_path / str(rename)
        shutil.copytree(dataset, folder)
        for name in ("train-000001.tar", "index.parquet"):
            (folder / name).write_bytes(b"damaged")
        config = VerifyConfig(folder=str(folder), repair=True, workers=1)
        (outcome,) = run_ranks(config, death=Death(rename))
        if outcome.exitcode == 0:
            break
        finish(config)
        assert file_hashes(folder) == expected, f"killed before rename {rename}"

    assert rename > 2 * 4 + 2 + 2  # shards with receipts, tables, and what takes its old place
