"""``nakt train`` in one process: goes on exactly, refuses what does not belong together."""

import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from nakt_dist.config import (
    AugmentationConfig,
    CheckpointConfig,
    PreprocessingConfig,
    TrackingConfig,
    ValidationConfig,
)
from nakt_dist.errors import CheckpointError, ConfigurationError, DatasetError, NaktError
from nakt_dist.loading import batches
from nakt_dist.models.network_file import open_network
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import read_weights
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.work import sole_user
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import evaluate, train
from nakt_dist.transfer.exclusion import Calibration, ExclusionRule
from tests.datasets import make_packed_dataset, make_pseudo_labels, make_weights
from tests.recipes import (
    TINY_UNET,
    evaluate_config,
    file_hashes,
    logged_losses,
    read_lines,
    train_config,
)

TWO_SPLITS = {"train": 2 / 3, "validation": 1 / 3}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images to train on, eight to validate on."""
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits=TWO_SPLITS, encoding="jpg")


def outcome(output: Path) -> dict[str, Any]:
    """Everything that N steps must leave, however they were cut."""
    names = ("last.safetensors", "best.safetensors")
    return {
        **{name: file_sha256(output / name) for name in names},
        "batches": read_lines(output / "batches.jsonl"),
        "metrics": read_lines(output / "metrics.jsonl"),
    }


# ------------------------------------------------------------------------- going on


def test_going_on_with_more_steps_equals_having_done_them_at_once(
    dataset: Path, tmp_path: Path
) -> None:
    train.run(train_config(tmp_path / "at_once", dataset))
    train.run(train_config(tmp_path / "in_parts", dataset, recipe={"steps": 4}))
    record = train.run(train_config(tmp_path / "in_parts", dataset))

    assert outcome(tmp_path / "in_parts") == outcome(tmp_path / "at_once")
    assert record.metrics["steps_now"] == 2
    assert [step for step, _ in logged_losses(tmp_path / "in_parts")] == [1, 2, 3, 4, 5, 6]


def test_going_on_with_more_epochs_equals_having_done_them_at_once(
    dataset: Path, tmp_path: Path
) -> None:
    validation = ValidationConfig(str(dataset), splits=["validation"])
    settings = {"validation": validation, "checkpoint": CheckpointConfig()}
    for name, parts in {"at_once": [4], "in_parts": [2, 4]}.items():
        for epochs in parts:
            recipe = {"steps": None, "epochs": epochs}
            train.run(train_config(tmp_path / name, dataset, recipe=recipe, **settings))

    assert outcome(tmp_path / "in_parts") == outcome(tmp_path / "at_once")


def test_dropout_and_batchnorm_go_on_bit_for_bit(dataset: Path, tmp_path: Path) -> None:
    spec = ModelSpec("deeplabv3plus", options={"encoder_name": "mobilenet_v2"})
    assert any(isinstance(each, torch.nn.Dropout) and each.p for each in spec.build().modules())
    for name, parts in {"at_once": [4], "in_parts": [2, 4]}.items():
        for steps in parts:
            recipe = {"steps": steps, "global_batch_size": 4}
            train.run(train_config(tmp_path / name, dataset, recipe=recipe, model=spec))

    assert outcome(tmp_path / "in_parts") == outcome(tmp_path / "at_once")


def test_the_time_told_at_the_end_is_that_of_the_steps_of_this_launch(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps in (2, 5):
        train.run(train_config(tmp_path / "out", dataset, recipe={"steps": steps}))

    printed = capsys.readouterr().err
    assert "train out: 2 steps in " in printed
    assert "train out: 5 steps, the last 3 of them in " in printed


def test_a_finished_run_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    config = train_config(tmp_path / "out", dataset)
    first = train.run(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}

    again = train.run(replace(config, workers=1, memory_cache_megabytes=0))

    assert again == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")} == before


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_weights_missing_from_a_finished_run_come_back(
    name: str, dataset: Path, tmp_path: Path
) -> None:
    config = train_config(tmp_path / "out", dataset)
    train.run(config)
    before = (tmp_path / "out" / name).read_bytes()
    (tmp_path / "out" / name).unlink()

    assert train.run(config).metrics["steps_now"] == 0

    assert (tmp_path / "out" / name).read_bytes() == before


@pytest.mark.parametrize("emptied", [True, False])
def test_a_finished_run_without_its_checkpoints_stays_what_it_is(
    emptied: bool, dataset: Path, tmp_path: Path
) -> None:
    train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 2}))
    shutil.rmtree(tmp_path / "out" / "checkpoints")
    if emptied:
        (tmp_path / "out" / "checkpoints").mkdir()
    (tmp_path / "out" / "last.safetensors").unlink()
    before = file_hashes(tmp_path / "out")

    train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 2}))
    with pytest.raises(DatasetError, match="holds a training run with other settings"):
        train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 2}, seed=1))
    with pytest.raises(CheckpointError, match="finished, without the checkpoints"):
        train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 4}))

    assert file_hashes(tmp_path / "out") == before


def test_a_record_of_an_unknown_run_is_not_a_finished_run(dataset: Path, tmp_path: Path) -> None:
    train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 2}))
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "out" / "record.json", tmp_path / "other")

    with pytest.raises(DatasetError, match=r"no identity\.json that says which"):
        train.run(train_config(tmp_path / "other", dataset, recipe={"steps": 2}))


def test_an_output_that_is_a_file_or_a_link_to_nowhere_is_refused(
    dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "absent")

    with pytest.raises(DatasetError, match="absent, which is not there"):
        train.run(train_config(tmp_path / "out", dataset))
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="file: is a file, expected a folder"):
        train.run(train_config(tmp_path / "file", dataset))


def test_fewer_steps_than_were_done_are_refused(dataset: Path, tmp_path: Path) -> None:
    train.run(train_config(tmp_path / "out", dataset))
    before = file_hashes(tmp_path / "out")

    with pytest.raises(NaktError, match="6"):
        train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 4}))

    assert file_hashes(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "settings.seed: found 0, expected 1"),
        ({"recipe": {"learning_rate": 0.02}}, "settings.recipe.learning_rate: found 0.01"),
        ({"recipe": {"global_batch_size": 4}}, "settings.recipe.global_batch_size: found 8"),
        ({"data": {"count": 12}}, "settings.data.count: found None, expected 12"),
        ({"augmentation": AugmentationConfig(gamma=(1.0, 1.0))}, "settings.augmentation.gamma"),
        ({"model": ModelSpec("unet", options={"base_channels": 8})}, "settings.model.options"),
    ],
)
def test_other_settings_on_the_same_output_are_refused_by_name(
    dataset: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 2}))
    before = file_hashes(tmp_path / "out")
    recipe = {"steps": 4} | change.pop("recipe", {})

    with pytest.raises(DatasetError) as refusal:
        train.run(train_config(tmp_path / "out", dataset, recipe=recipe, **change))

    assert named in str(refusal.value)
    assert file_hashes(tmp_path / "out") == before


def test_data_packed_anew_are_refused_on_the_same_output(dataset: Path, tmp_path: Path) -> None:
    mine = make_packed_dataset(tmp_path, images=24, splits=TWO_SPLITS)
    train.run(train_config(tmp_path / "out", mine, recipe={"steps": 2}))
    mine.rename(tmp_path / "aside")
    (tmp_path / "squares-published").rename(tmp_path / "aside-published")
    make_packed_dataset(tmp_path, images=24, splits=TWO_SPLITS, seed=1)

    with pytest.raises(DatasetError, match=r"trained_on\.fingerprint"):
        train.run(train_config(tmp_path / "out", mine))


def test_data_and_parent_may_move(dataset: Path, tmp_path: Path) -> None:
    parent = make_weights(tmp_path / "parent.safetensors")
    fine_tune(tmp_path / "out", dataset, parent, recipe={"steps": 2})
    moved = shutil.copytree(dataset, tmp_path / "moved")
    parent = parent.rename(tmp_path / "renamed.safetensors")

    record = fine_tune(tmp_path / "out", moved, parent, recipe={"steps": 4})

    assert record.metrics["steps_now"] == 2


def test_a_finished_run_on_data_packed_anew_is_not_taken_for_this_one(
    dataset: Path, tmp_path: Path
) -> None:
    train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 2}))
    other = make_packed_dataset(tmp_path, images=24, splits=TWO_SPLITS, seed=1)

    with pytest.raises(DatasetError, match=r"trained_on\.fingerprint"):
        train.run(train_config(tmp_path / "out", other, recipe={"steps": 2}))


def test_settings_may_be_mended_as_long_as_nothing_was_learnt(
    dataset: Path, tmp_path: Path
) -> None:
    too_large = train_config(tmp_path / "out", dataset, recipe={"global_batch_size": 99})
    with pytest.raises(ConfigurationError, match=r"recipe\.global_batch_size is 99"):
        train.run(too_large)

    record = train.run(train_config(tmp_path / "out", dataset, recipe={"steps": 2}))

    assert record.details["steps"] == 2


def test_a_second_training_of_the_same_output_is_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (
        sole_user(tmp_path / "out", "train"),
        pytest.raises(DatasetError, match="another train is writing here right now"),
    ):
        train.run(train_config(tmp_path / "out", dataset))


# --------------------------------------------------------------- what is learnt, from what


def test_training_lowers_the_loss_and_finds_the_target(dataset: Path, tmp_path: Path) -> None:
    validation = ValidationConfig(str(dataset), splits=["validation"])
    config = train_config(
        tmp_path / "out", dataset, recipe={"steps": None, "epochs": 25}, validation=validation,
        checkpoint=CheckpointConfig(every_epochs=5),
    )  # fmt: skip

    record = train.run(config)

    losses = [loss for _, loss in logged_losses(tmp_path / "out")]
    assert losses[-1] < losses[0] / 2
    assert record.metrics["best_validation_dice"] > 0.6


def test_the_best_weights_score_what_the_record_says(dataset: Path, tmp_path: Path) -> None:
    validation = ValidationConfig(str(dataset), splits=["validation"])
    record = train.run(train_config(tmp_path / "out", dataset, validation=validation))

    evaluation = evaluate.run(
        evaluate_config(tmp_path / "eval", dataset, tmp_path / "out", splits=["validation"])
    )

    best = record.metrics["best_validation_dice"]
    assert evaluation.metrics["dice_mean"] == pytest.approx(100 * best, abs=1e-6)
    scores = {
        line["step"]: line["validation_dice"]
        for line in read_lines(tmp_path / "out" / "metrics.jsonl")
        if "validation_dice" in line
    }
    assert max(scores.values()) == best == scores[record.details["best_step"]]


def test_a_batch_in_parts_gives_the_same_losses(dataset: Path, tmp_path: Path) -> None:
    for micro in (8, 2):
        recipe = {"micro_batch_size": micro}
        train.run(train_config(tmp_path / str(micro), dataset, recipe=recipe))

    whole, parts = logged_losses(tmp_path / "8"), logged_losses(tmp_path / "2")
    assert [loss for _, loss in parts] == pytest.approx([loss for _, loss in whole], abs=1e-4)
    assert (tmp_path / "2" / "batches.jsonl").read_text() == (
        tmp_path / "8" / "batches.jsonl"
    ).read_text()


def test_loader_processes_and_memory_change_nothing(dataset: Path, tmp_path: Path) -> None:
    train.run(train_config(tmp_path / "plain", dataset, memory_cache_megabytes=0))
    train.run(train_config(tmp_path / "loaders", dataset, workers=2))

    assert outcome(tmp_path / "loaders") == outcome(tmp_path / "plain")


def test_every_image_is_seen_once_an_epoch(dataset: Path, tmp_path: Path) -> None:
    train.run(train_config(tmp_path / "out", dataset))

    lines = read_lines(tmp_path / "out" / "batches.jsonl")
    epochs = [sorted(lines[n]["keys"] + lines[n + 1]["keys"]) for n in (0, 2, 4)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert epochs[0] == sorted(IndexedShards(dataset, ["train"]).keys)
    assert lines[0]["keys"] != lines[2]["keys"]


def test_bf16_trains(dataset: Path, tmp_path: Path) -> None:
    recipe = {"steps": 2, "precision": "bf16"}
    train.run(train_config(tmp_path / "out", dataset, recipe=recipe))

    assert all(math.isfinite(loss) for _, loss in logged_losses(tmp_path / "out"))


def test_a_loss_that_is_not_finite_stops_with_the_images_and_keeps_the_checkpoint(
    dataset: Path, tmp_path: Path
) -> None:
    recipe = {"steps": 40, "learning_rate": 1e25}
    config = train_config(
        tmp_path / "out", dataset, recipe=recipe, checkpoint=CheckpointConfig(every_steps=1)
    )

    with pytest.raises(NaktError, match=r"the loss is (nan|inf) at step \d+\..*: image_"):
        train.run(config)

    assert list((tmp_path / "out" / "checkpoints").glob("step-*"))
    assert not (tmp_path / "out" / "last.safetensors").exists()


def test_weights_that_are_not_finite_never_replace_sound_ones(
    dataset: Path, tmp_path: Path
) -> None:
    config = train_config(
        tmp_path / "out",
        dataset,
        recipe={"steps": 40, "learning_rate": 1e30},
        checkpoint=CheckpointConfig(every_steps=1),
        tracking=TrackingConfig(every_steps=40),  # the loss itself is looked at too late
    )

    with pytest.raises(NaktError, match=r"(weight|loss|gradient).* is .* at step \d+"):
        train.run(config)

    saved = list((tmp_path / "out").rglob("*.safetensors"))
    assert saved
    for weights in saved:
        assert all(torch.isfinite(value).all() for value in load_file(weights).values())


def test_a_damaged_image_is_one_clear_error(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=24, splits=TWO_SPLITS, encoding="jpg")
    images = IndexedShards(dataset)
    row = images.index.to_pylist()[3]
    shard = dataset / images.manifest.shards[row["shard"]].name
    content = bytearray(shard.read_bytes())
    content[row["image_offset"] + row["image_size"] // 2] ^= 0xFF
    shard.write_bytes(bytes(content))

    with pytest.raises(DatasetError) as refusal:
        # Another may hold the undamaged pixels of the same images.
        train.run(train_config(tmp_path / "out", dataset, memory_cache_megabytes=0))

    assert f"{shard}:{row['key']}" in str(refusal.value)


def test_images_without_masks_are_one_clear_error(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=24, splits=TWO_SPLITS, with_masks=False)

    with pytest.raises(DatasetError, match="of 16 samples have no mask"):
        train.run(train_config(tmp_path / "out", dataset))


# ------------------------------------------------------------------- pseudo masks, exclusion


@pytest.fixture(scope="module")
def pseudo(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pseudo_labels(tmp_path_factory.mktemp("pseudo"), dataset)


def rule_keeping_half(pseudo: Path) -> tuple[ExclusionRule, set[str]]:
    """A threshold between the training images' target pixels, and whom it keeps."""
    rows = pq.read_table(pseudo / "index.parquet").to_pylist()
    rows = [row for row in rows if row["split"] == "train"]
    alpha = sorted(row["target_pixels"] for row in rows)[len(rows) // 2]
    kept = {row["key"] for row in rows if row["target_pixels"] >= alpha}
    assert 0 < len(kept) < len(rows)
    return ExclusionRule(alpha=alpha, beta=None), kept


def test_excluded_images_are_not_trained_on(dataset: Path, pseudo: Path, tmp_path: Path) -> None:
    rule, kept = rule_keeping_half(pseudo)
    rule = replace(rule, calibration=Calibration(str(pseudo), None, 100))  # keeps all of them
    config = train_config(
        tmp_path / "out", dataset,
        data={"pseudo_labels": str(pseudo), "exclusion": rule},
        recipe={"global_batch_size": 2, "steps": len(kept)},
    )  # fmt: skip

    record = train.run(config)

    seen = {key for line in read_lines(tmp_path / "out" / "batches.jsonl") for key in line["keys"]}
    assert seen == kept
    assert record.counts == {"images": len(kept), "before_exclusion": 16}
    trained_on = record.details["lineage"]["trained_on"]
    assert trained_on["labels"] == "pseudo masks"
    assert trained_on["exclusion"]["alpha"] == rule.alpha
    assert trained_on["exclusion"]["calibration"]["percentile"] == 100
    largest = max(pq.read_table(pseudo / "index.parquet")["entropy"].to_pylist())
    assert trained_on["exclusion"]["beta"] == pytest.approx(largest, abs=1e-3)


def test_excluding_everything_says_so(dataset: Path, pseudo: Path, tmp_path: Path) -> None:
    data = {"pseudo_labels": str(pseudo), "exclusion": ExclusionRule(alpha=1e9)}

    with pytest.raises(ConfigurationError, match="after excluding all 16"):
        train.run(train_config(tmp_path / "out", dataset, data=data))


def test_streaming_trains_on_what_exclusion_keeps(
    dataset: Path, pseudo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, kept = rule_keeping_half(pseudo)
    seen: list[str] = []
    decode = batches._decoded

    def decode_and_remember(sample: Any, *rest: Any) -> Any:
        seen.append(sample["__key__"])
        return decode(sample, *rest)

    monkeypatch.setattr(batches, "_decoded", decode_and_remember)
    data = {
        "pseudo_labels": str(pseudo), "exclusion": rule, "streaming": True, "shuffle_buffer": 8,
    }  # fmt: skip
    recipe = {"global_batch_size": 2, "steps": 3 * len(kept)}

    record = train.run(train_config(tmp_path / "out", dataset, data=data, recipe=recipe))

    assert set(seen) == kept
    assert record.details["steps"] == 3 * len(kept)
    losses = logged_losses(tmp_path / "out")
    assert [step for step, _ in losses] == list(range(1, 3 * len(kept) + 1))
    assert all(math.isfinite(loss) for _, loss in losses)


def test_streaming_needs_steps(dataset: Path, tmp_path: Path) -> None:
    recipe = {"steps": None, "epochs": 1}
    with pytest.raises(ConfigurationError, match=r"needs recipe\.steps"):
        train_config(tmp_path / "out", dataset, data={"streaming": True}, recipe=recipe)


# ------------------------------------------------------------------------- fine-tuning


NO_CHANGE = PreprocessingConfig(height=32, width=32, mean=0.0, std=1.0)


def fine_tune(output: Path, dataset: Path, parent: Path, **changes: Any) -> Any:
    settings = {"model": None, "recipe": {"steps": 1, "learning_rate": 1e-12}} | changes
    return train.run(train_config(output, dataset, init=str(parent), **settings))


def test_fine_tuning_starts_from_the_weights_given(dataset: Path, tmp_path: Path) -> None:
    parent = make_weights(tmp_path / "parent.safetensors", seed=5)

    record = fine_tune(tmp_path / "out", dataset, parent)

    before, after = load_file(parent), load_file(tmp_path / "out" / "last.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert record.details["lineage"]["parent"]["weights_sha256"] == file_sha256(parent)
    assert read_weights(tmp_path / "out" / "last.safetensors").spec == TINY_UNET


def test_fine_tuning_goes_on_with_the_input_the_parent_is_used_to(
    dataset: Path, tmp_path: Path
) -> None:
    seen = PreprocessingConfig(height=16, width=16, mean=0.5, std=0.25)
    train.run(train_config(tmp_path / "parent", dataset, preprocessing=seen))

    fine_tune(tmp_path / "inherited", dataset, tmp_path / "parent")
    fine_tune(tmp_path / "changed", dataset, tmp_path / "parent", preprocessing=NO_CHANGE)

    assert open_network(tmp_path / "inherited").preprocessing == seen
    assert open_network(tmp_path / "changed").preprocessing == NO_CHANGE


def test_fine_tuning_learns(dataset: Path, tmp_path: Path) -> None:
    parent = make_weights(tmp_path / "parent.safetensors", seed=5)

    fine_tune(tmp_path / "out", dataset, parent, recipe={"steps": 6})

    before, after = load_file(parent), load_file(tmp_path / "out" / "last.safetensors")
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_fine_tuning_on_few_images_sees_only_these(dataset: Path, tmp_path: Path) -> None:
    parent = make_weights(tmp_path / "parent.safetensors")
    seen = []
    for count in (4, 10):
        output = tmp_path / str(count)
        recipe = {"steps": 20, "global_batch_size": 2}
        record = fine_tune(output, dataset, parent, data={"count": count}, recipe=recipe)
        seen.append({key for line in read_lines(output / "batches.jsonl") for key in line["keys"]})
        assert record.counts["images"] == len(seen[-1]) == count

    assert seen[0] < seen[1]


def test_fine_tuning_another_architecture_is_refused(dataset: Path, tmp_path: Path) -> None:
    parent = make_weights(tmp_path / "parent.safetensors")

    with pytest.raises(ConfigurationError, match="init holds unet"):
        fine_tune(tmp_path / "out", dataset, parent, model=ModelSpec("sdu_net"))


def test_another_parent_on_the_same_output_is_refused(dataset: Path, tmp_path: Path) -> None:
    parent = make_weights(tmp_path / "parent.safetensors", seed=5)
    fine_tune(tmp_path / "out", dataset, parent)
    make_weights(tmp_path / "parent.safetensors", seed=6)

    with pytest.raises(DatasetError, match=r"parent\.weights_sha256"):
        fine_tune(tmp_path / "out", dataset, parent, recipe={"steps": 2, "learning_rate": 1e-12})


def test_logging_every_third_step_logs_the_last_one_too(dataset: Path, tmp_path: Path) -> None:
    config = train_config(
        tmp_path / "out", dataset, recipe={"steps": 7}, tracking=TrackingConfig(every_steps=3)
    )
    train.run(config)

    assert [step for step, _ in logged_losses(tmp_path / "out")] == [3, 6, 7]


@pytest.mark.parametrize("compiled", [False, True])
def test_batch_norm_of_one_pixel_is_one_line_compiled_or_not(
    compiled: bool, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    config = train_config(
        tmp_path / "out",
        dataset,
        {"global_batch_size": 1, "compile": compiled},
        model=ModelSpec("unet", options={"base_channels": 4}),
        preprocessing=PreprocessingConfig(height=16, width=16),
    )
    with pytest.raises(ConfigurationError) as refusal:
        train.run(config)
    message = str(refusal.value)
    assert "BatchNorm cannot train on one image whose map is one pixel. Take" in message
    assert "\n" not in message
