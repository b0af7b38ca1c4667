"""``nakt evaluate`` in one process: the Dice of every image, once, and what it is compared to."""

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nakt_dist.config import ImageConfig, PackConfig, PreprocessingConfig
from nakt_dist.errors import CheckpointError, DatasetError
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.weights import save_weights
from nakt_dist.records.mask_results import SegmentationResult
from nakt_dist.records.run_record import read_record
from nakt_dist.runtime.files import file_sha256
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import evaluate, pack, teach, train
from nakt_dist.transfer.classes import ONE_TARGET
from tests.datasets import make_chest_dataset, make_packed_dataset, make_weights, publish_images
from tests.recipes import (
    TINY_UNET,
    evaluate_config,
    file_hashes,
    teach_config,
    train_config,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"), images=80)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", seed=7)


def predictions(output: Path) -> list[dict[str, Any]]:
    return pq.read_table(output / "predictions.parquet").to_pylist()


@torch.no_grad()
def dice_the_plain_way(weights: Path, dataset: Path) -> dict[str, float]:
    network = TINY_UNET.build().eval()
    network.load_state_dict(load_file(weights))
    images, scores = IndexedShards(dataset), {}
    for number, key in enumerate(images.keys):
        pixels, mask = (
            np.asarray(Image.open(io.BytesIO(data)))
            for data in (images.image_bytes(number), images.mask_bytes(number))
        )
        logits = network(torch.tensor(pixels / 255, dtype=torch.float32)[None, None])[0, 0]
        predicted, target = logits.sigmoid().numpy() > 0.5, mask > 127
        overlap = np.count_nonzero(predicted & target)
        scores[key] = 2 * overlap / (np.count_nonzero(predicted) + np.count_nonzero(target))
    return scores


def test_every_image_is_scored_once_as_the_definition_says(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    record = evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))

    rows = predictions(tmp_path / "out")
    expected = dice_the_plain_way(weights, dataset)
    assert [row["key"] for row in rows] == IndexedShards(dataset).keys
    assert len(rows) == 80
    assert {row["key"]: row["dice"] for row in rows} == pytest.approx(expected, abs=1e-3)
    scores = np.asarray([row["dice"] for row in rows])
    assert record.metrics["dice_mean"] == pytest.approx(100 * scores.mean())
    assert record.metrics["dice_std"] == pytest.approx(100 * scores.std())
    lower, upper = record.metrics["dice_interval_95"]
    assert lower < record.metrics["dice_mean"] < upper
    assert record == read_record(tmp_path / "out" / "record.json")


def test_only_the_splits_asked_for_are_scored(dataset: Path, weights: Path, tmp_path: Path) -> None:
    evaluate.run(evaluate_config(tmp_path / "out", dataset, weights, splits=["test"]))

    keys = [row["key"] for row in predictions(tmp_path / "out")]
    assert keys == IndexedShards(dataset, ["test"]).keys
    assert len(keys) == 20


def test_nothing_is_left_but_the_results(dataset: Path, weights: Path, tmp_path: Path) -> None:
    evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))

    assert set(file_hashes(tmp_path / "out")) == {
        "config.yaml", "predictions.parquet", "record.json",
    }  # fmt: skip


def test_a_finished_evaluation_is_left_alone(dataset: Path, weights: Path, tmp_path: Path) -> None:
    config = evaluate_config(tmp_path / "out", dataset, weights)
    first = evaluate.run(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}

    assert evaluate.run(config) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_teacher_that_was_evaluated_anew_since_is_read_again(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    named = [{"weights_sha256": file_sha256(weights)}]
    lineage = json.dumps({"trained_on": {"teachers": named}})
    student = make_weights(tmp_path / "student.safetensors", seed=4, lineage=lineage)
    record = str(tmp_path / "teacher")
    config = evaluate_config(tmp_path / "out", dataset, student, teacher_record=record)
    shares = []
    for mean in (0.0, 0.2):
        shutil.rmtree(tmp_path / "teacher", ignore_errors=True)
        seen = PreprocessingConfig(mean=mean, std=1.0)
        other = evaluate_config(tmp_path / "teacher", dataset, weights, preprocessing=seen)
        teacher = evaluate.run(other).metrics["dice_mean"]
        metrics = evaluate.run(config).metrics
        shares.append(metrics["knowledge_transfer_capability"])
        assert shares[-1] == pytest.approx(100 * metrics["dice_mean"] / teacher)
    assert shares[0] != pytest.approx(shares[1])


def test_the_order_of_classes_belongs_to_what_decides_an_evaluation(
    dataset: Path, tmp_path: Path
) -> None:
    weights = make_weights(tmp_path / "two.safetensors", seed=3, classes=ONE_TARGET)
    config = evaluate_config(tmp_path / "out", dataset, weights)
    first = evaluate.run(config)

    with pytest.raises(DatasetError, match="already holds another evaluation"):
        evaluate.run(replace(config, classes=["target", "background"]))

    turned = replace(config, classes=["target", "background"], output=str(tmp_path / "turned"))
    assert evaluate.run(turned).metrics["dice_mean"] != first.metrics["dice_mean"]
    assert evaluate.run(replace(config, classes=["background", "target"])) == first


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"splits": ["test"]}, "splits: found None"),
        ({"threshold": 0.4}, "threshold: found 0.5, expected 0.4"),
        ({"both_empty": "nan"}, "both_empty: found 'one', expected 'nan'"),
    ],
)
def test_another_evaluation_on_the_same_output_is_refused_by_name(
    dataset: Path, weights: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    config = evaluate_config(tmp_path / "out", dataset, weights)
    evaluate.run(config)
    before = file_hashes(tmp_path / "out")

    with pytest.raises(DatasetError) as refusal:
        evaluate.run(replace(config, **change))

    assert named in str(refusal.value)
    assert file_hashes(tmp_path / "out") == before


def test_other_weights_on_the_same_output_are_refused(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))
    other = make_weights(tmp_path / "other.safetensors", seed=4)

    with pytest.raises(DatasetError, match="weights_sha256"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, other))


def test_images_without_masks_are_one_clear_error(weights: Path, tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, with_masks=False)

    with pytest.raises(DatasetError, match="12 of 12 samples have no mask") as refusal:
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))

    assert str(refusal.value).endswith("Pack the dataset with a mask for each (--masks true)")
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_findings_is_for_a_classifier(weights: Path, tmp_path: Path) -> None:
    dataset = make_chest_dataset(tmp_path, images=12)

    with pytest.raises(DatasetError, match="or for its 15 findings give a classifier's weights"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))


# ------------------------------------------------------------------------ empty masks


def make_dataset_with_empty_masks(folder: Path, empty: int) -> Path:
    source = publish_images(folder / "source")
    for number in range(empty):
        Image.new("L", (32, 32)).save(source / f"image_{number:03d}_mask.png")
    settings = {"image": ImageConfig(height=32, width=32), "workers": 1}
    pack.run(PackConfig("image_folder", str(source), str(folder / "packed"), **settings))
    return folder / "packed"


def make_blind_weights(path: Path) -> Path:
    """A network that never finds anything."""
    network = TINY_UNET.build()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, -9)
    save_weights(path, network.state_dict(), TINY_UNET, {})
    return path


@pytest.mark.parametrize(("both_empty", "counted", "mean"), [("one", 12, 25.0), ("nan", 9, 0.0)])
def test_nothing_found_where_nothing_is_counts_as_the_setting_says(
    tmp_path: Path, both_empty: str, counted: int, mean: float
) -> None:
    dataset = make_dataset_with_empty_masks(tmp_path, empty=3)
    blind = make_blind_weights(tmp_path / "blind.safetensors")

    record = evaluate.run(
        evaluate_config(tmp_path / "out", dataset, blind, both_empty=both_empty, batch_size=5)
    )

    assert record.metrics["images"] == counted
    assert record.metrics["images_left_out"] == 12 - counted
    assert record.metrics["dice_mean"] == pytest.approx(mean)
    scores = [row["dice"] for row in predictions(tmp_path / "out")]
    assert sum(math.isnan(score) for score in scores) == 12 - counted
    # NaN is no JSON: other programs must be able to read the record.
    json.loads((tmp_path / "out" / "record.json").read_text(), parse_constant=pytest.fail)


def test_when_no_dice_is_defined_the_record_says_so(tmp_path: Path) -> None:
    dataset = make_dataset_with_empty_masks(tmp_path, empty=12)
    blind = make_blind_weights(tmp_path / "blind.safetensors")

    record = evaluate.run(evaluate_config(tmp_path / "out", dataset, blind, both_empty="nan"))

    assert record.metrics["images"] == 0
    assert record.metrics["dice_mean"] is None
    assert set(record.speed) == {"images_per_second", "peak_memory_bytes"}
    assert min(record.speed.values()) > 0


def test_distances_of_outlines_are_measured_where_asked_for_and_empty_masks_counted(
    weights: Path, tmp_path: Path
) -> None:
    dataset = make_dataset_with_empty_masks(tmp_path, empty=3)
    config = evaluate_config(tmp_path / "out", dataset, weights, surface_distances=True)
    record = evaluate.run(config)

    rows = predictions(tmp_path / "out")
    apart = [row["hd95_pixels"] for row in rows if not math.isnan(row["hd95_pixels"])]
    empty = [row for row in rows if not (row["target_pixels"] and row["predicted_pixels"])]
    assert len(apart) == 12 - sum(row["dice"] < 1 for row in empty) < 12
    metrics = record.metrics
    assert metrics["hd95_pixels_mean"] == pytest.approx(np.mean(apart))
    assert metrics["hd95_pixels_images_left_out"] == 12 - len(apart)
    assert metrics["assd_pixels_mean"] <= metrics["hd95_pixels_mean"]
    assert 0 < metrics["sensitivity_mean"] <= 100
    result = SegmentationResult.from_json(read_record(tmp_path / "out" / "record.json").metrics)
    names = {"sensitivity", "precision", "hd95_pixels", "assd_pixels"}
    assert {score.name for score in result.others} == names


# ---------------------------------------------------------------- against the teacher


def test_the_capability_is_the_share_of_the_teachers_dice(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    teacher = evaluate.run(evaluate_config(tmp_path / "teacher", dataset, weights))
    taught = {"trained_on": {"teachers": [{"weights_sha256": file_sha256(weights)}]}}
    lineage = json.dumps({"trained_on": {}, "parent": {"lineage": taught}})
    other = make_weights(tmp_path / "student.safetensors", seed=4, lineage=lineage)
    for number, named in enumerate(("teacher", "teacher/record.json")):
        student = evaluate.run(
            evaluate_config(
                tmp_path / str(number), dataset, other, teacher_record=str(tmp_path / named)
            )
        )

        share = 100 * student.metrics["dice_mean"] / teacher.metrics["dice_mean"]
        assert student.metrics["knowledge_transfer_capability"] == pytest.approx(share)
        assert share != pytest.approx(100)


def test_a_teacher_that_saw_its_images_otherwise_when_it_taught_is_refused(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    seen = {"height": 32, "width": None, "mean": 0.5, "std": [0.25]}
    named = [{"weights_sha256": file_sha256(weights), "preprocessing": seen}]
    lineage = json.dumps({"trained_on": {"teachers": named}})
    student = make_weights(tmp_path / "student.safetensors", seed=4, lineage=lineage)
    for mean in (0.5, 0.0):
        record = str(tmp_path / f"teacher {mean}")
        given = PreprocessingConfig(mean=mean, std=0.25)
        evaluate.run(evaluate_config(Path(record), dataset, weights, preprocessing=given))
        config = evaluate_config(tmp_path / "out", dataset, student, teacher_record=record)
        if mean == 0.5:
            assert "knowledge_transfer_capability" in evaluate.run(config).metrics
            continue
        with pytest.raises(DatasetError, match=r"mean 0\.5, and 0\.0 in the test\. Evaluate"):
            evaluate.run(config)


def test_the_capability_may_be_asked_for_later(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    evaluate.run(evaluate_config(tmp_path / "teacher", dataset, weights))
    config = evaluate_config(tmp_path / "student", dataset, weights)
    evaluate.run(config)

    record = evaluate.run(replace(config, teacher_record=str(tmp_path / "teacher")))

    assert record.metrics["knowledge_transfer_capability"] == pytest.approx(100)
    assert record == read_record(tmp_path / "student" / "record.json")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"splits": ["test"]}, "splits: found ['test'], expected None"),
        ({"threshold": 0.4}, "threshold: found 0.4, expected 0.5"),
        ({"both_empty": "nan"}, "both_empty: found 'nan', expected 'one'"),
        ({"dataset": "other"}, "dataset_fingerprint"),
    ],
)
def test_a_teacher_evaluated_on_other_images_is_refused(
    dataset: Path, weights: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    if "dataset" in change:
        change = {"dataset": str(make_packed_dataset(tmp_path, images=80, seed=1))}
    teacher = evaluate_config(tmp_path / "teacher", dataset, weights)
    evaluate.run(replace(teacher, **change))

    with pytest.raises(DatasetError, match="the teacher was evaluated on other images") as refusal:
        evaluate.run(
            evaluate_config(
                tmp_path / "student", dataset, weights, teacher_record=str(tmp_path / "teacher")
            )
        )

    assert named in str(refusal.value)


def test_the_record_of_a_network_that_taught_it_nothing_is_refused(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    evaluate.run(evaluate_config(tmp_path / "stranger", dataset, weights))
    student = make_weights(tmp_path / "student.safetensors", seed=4)
    config = evaluate_config(
        tmp_path / "out", dataset, student, teacher_record=str(tmp_path / "stranger")
    )

    with pytest.raises(DatasetError, match="did not teach"):
        evaluate.run(config)


def test_a_network_whose_output_is_not_a_number_is_no_result(
    dataset: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainedNetwork, "logits", lambda _, image: image * float("nan"))

    with pytest.raises(CheckpointError, match="diverged"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))


def test_a_teacher_record_that_is_absent_costs_no_forward_pass(
    dataset: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainedNetwork, "logits", lambda *_: pytest.fail("it went on"))
    config = evaluate_config(tmp_path / "out", dataset, weights, teacher_record=str(tmp_path / "x"))

    with pytest.raises(DatasetError, match="no run record here"):
        evaluate.run(config)


def test_a_network_that_learnt_from_images_of_another_size_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_packed_dataset(tmp_path / "small", splits={"train": 1.0})
    large = make_packed_dataset(tmp_path / "large", height=48, width=48)
    train.run(train_config(tmp_path / "run", small, recipe={"steps": 1}))
    capsys.readouterr()

    for dataset in (small, large):
        evaluate.run(
            evaluate_config(tmp_path / f"test-{dataset.parent.name}", dataset, tmp_path / "run")
        )
        teach.run(
            teach_config(tmp_path / f"taught-{dataset.parent.name}", dataset, tmp_path / "run")
        )

    said = capsys.readouterr().err
    notice = "run learnt from images of 32 × 32 pixels and sees 48 × 48 here"
    assert [said.count(f"{stage}: {notice}") for stage in ("evaluate", "teach")] == [1, 1]
