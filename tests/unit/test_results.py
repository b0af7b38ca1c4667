"""Results of evaluations come back from their records as they were written."""

from dataclasses import replace

import numpy as np
import pytest

from nakt_dist.config.evaluating import OperatingPointConfig
from nakt_dist.evaluation.classification_summary import summarise_classification
from nakt_dist.evaluation.operating_points import Labelled, operate
from nakt_dist.evaluation.summary import summarise_metric
from nakt_dist.records.comparison import Comparison, FindingDifference
from nakt_dist.records.finding_results import ClassificationResult
from nakt_dist.records.mask_results import MaskScore, SegmentationResult
from nakt_dist.records.run_record import RunRecord, read_record


@pytest.mark.parametrize("values", [[0.5, 0.7, float("nan")], [float("nan")]])
@pytest.mark.parametrize(("compared", "capability"), [(False, None), (True, None), (True, 98.5)])
def test_dice_and_capability_come_back(values, compared: bool, capability: float | None):
    dice = summarise_metric("dice", values, 100, seed=0)
    apart = summarise_metric("hd95_pixels", [250.0, float("nan")], 100, seed=0)
    result = SegmentationResult(dice, (apart,), compared, capability)
    assert SegmentationResult.from_json(result.to_json()) == result
    assert ("knowledge_transfer_capability" in result.to_json()) == compared


def test_the_images_of_a_record_are_those_of_dice():
    dice, other = MaskScore("dice", 3, 1, 80.0, 1.0, (79.0, 81.0)), MaskScore("iou", 4, 0)
    metrics = SegmentationResult(dice, (other,)).to_json()
    assert (metrics["images"], metrics["images_left_out"], metrics["iou_mean"]) == (3, 1, None)


@pytest.mark.parametrize("compared", [False, True])
def test_scores_of_findings_and_groups_come_back(tmp_path, compared: bool):
    random = np.random.default_rng(0)
    targets = (random.random((80, 3)) < 0.4).astype(float)
    targets[0, 0], targets[:, 2] = np.nan, 0
    patients, sexes = [str(row // 2) for row in range(80)], ["F", "M"] * 40
    names, answers = ["Edema", "Mass", "Hernia"], random.random((80, 3))
    result = summarise_classification(
        names, answers, targets, patients, {"sex": sexes}, samples=50, seed=0
    )
    if compared:
        each = FindingDifference("Edema", 1.0, [0.5, 2.5], 0.04, 0.08)
        found = Comparison("other", "ab" * 32, 1.5, [0.5, 2.5], 0.04, 80.0, 78.5, 2, (each,))
        images = Labelled(answers, targets)
        points = operate(
            names, images, images, patients, OperatingPointConfig("v"), {"images": 80}, 50, 0
        )
        assert ([each.name for each in points.findings], points.without) == (names[:2], ("Hernia",))
        result = replace(result, compared=True, comparison=found, operating_points=points)
    metrics, details = result.to_json()
    RunRecord("evaluate", "test", {}, metrics=metrics, details=details).write(tmp_path)
    assert ClassificationResult.from_record(read_record(tmp_path / "record.json")) == result
    assert (metrics["labels_counted"], metrics["labels_left_out"]) == (2, 1)
