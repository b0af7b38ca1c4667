import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from nakt_dist.evaluation.calibration import expected_calibration_error


def test_two_bins_by_hand():
    probabilities = np.array([0.1, 0.3, 0.8, 1.0])
    targets = np.array([0.0, 1.0, 1.0, 1.0])
    # Below 0.5: mean 0.2 against 1/2; above: 0.9 against 1. Half of the images in each.
    expected = 0.5 * 0.3 + 0.5 * 0.1
    assert expected_calibration_error(probabilities, targets, bins=2) == pytest.approx(expected)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_it_is_that_of_torchmetrics(sharpness):
    random = np.random.default_rng(0)
    logits = random.normal(size=3000)
    targets = (random.random(3000) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    probabilities = 1 / (1 + np.exp(-sharpness * logits))
    expected = binary_calibration_error(
        torch.tensor(probabilities), torch.tensor(targets).long(), n_bins=15, norm="l1"
    )
    found = expected_calibration_error(probabilities, targets)
    assert found == pytest.approx(expected.item(), abs=1e-6)
    assert (found < 0.03) == (sharpness == 1.0)


def test_certainty_that_is_right_has_none_and_that_is_wrong_has_all():
    targets = np.array([0.0, 1.0, 1.0])
    assert expected_calibration_error(targets, targets) == 0
    assert expected_calibration_error(1 - targets, targets) == 1


def test_ignored_images_change_nothing():
    probabilities, targets = np.array([0.2, 0.9, 0.4]), np.array([0.0, 1.0, float("nan")])
    expected = expected_calibration_error(probabilities[:2], targets[:2])
    assert expected_calibration_error(probabilities, targets) == expected


def test_without_images_there_is_none():
    nothing = np.array([float("nan")])
    assert math.isnan(expected_calibration_error(np.array([0.5]), nothing))
