import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import shannon_entropy

from nakt_dist.errors import ConfigurationError
from nakt_dist.transfer.exclusion import ExclusionRule
from nakt_dist.transfer.statistics import (
    expected_dice,
    grey_level_entropy,
    quantise,
    target_pixels,
)

PIXELS = np.array([0, 255, 256, 9000, 100, 9000])
ENTROPY = np.array([0.0, 1.0, 2.5, 2.5001, 3.0, 0.5])


def kept(rule, soft=True, height=384, width=384):
    return rule.kept(PIXELS, ENTROPY, height, width, soft).tolist()


def entropy_of(levels):
    mask = torch.as_tensor(np.asarray(levels, dtype=np.uint8))
    return grey_level_entropy(mask.reshape(1, -1, mask.shape[-1])).item()


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 7, 256]))
def test_entropy_is_that_of_scikit_image(seed, levels):
    random = np.random.default_rng(seed)
    masks = random.integers(0, levels, (3, 9, 11)).astype(np.uint8)
    expected = [shannon_entropy(mask) for mask in masks]
    assert grey_level_entropy(torch.from_numpy(masks)).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_a_constant_mask_has_entropy_zero_and_not_minus_zero(level):
    entropy = entropy_of(np.full((4, 4), level))
    assert entropy == 0.0
    assert math.copysign(1, entropy) == 1


def test_entropy_by_hand():
    assert entropy_of([[0, 0, 255, 255]]) == pytest.approx(1.0, abs=1e-12)
    assert entropy_of([[0, 0, 0, 255]]) == pytest.approx(2 - 0.75 * math.log2(3), abs=1e-12)
    assert entropy_of([[0, 64, 128, 255]]) == pytest.approx(2.0, abs=1e-12)
    assert entropy_of(np.arange(256).reshape(16, 16)) == pytest.approx(8.0, abs=1e-12)


def test_a_stored_level_is_rounded_and_not_truncated():
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.4 / 255, 1.6 / 255, 254.6 / 255, 1.0])
    assert quantise(values).tolist() == [0, 0, 1, 1, 2, 255, 255]
    assert quantise(values).dtype == torch.uint8


def test_probabilities_outside_the_unit_interval_are_clamped_before_they_are_stored():
    assert quantise(torch.tensor([-0.5, 1.0001, 2.0])).tolist() == [0, 255, 255]


def test_target_is_what_is_stored_as_128_or_more():
    mask = torch.tensor([[[0, 127, 128, 129, 255]], [[127, 127, 127, 127, 127]]], dtype=torch.uint8)
    assert target_pixels(mask).tolist() == [3, 0]
    assert target_pixels(quantise(torch.tensor([[[0.5, 0.501, 0.499, 0.49]]]))).tolist() == [2]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_a_batch_is_measured_like_each_of_its_masks_alone(seed, count):
    masks = torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (count, 6, 5)).astype(np.uint8)
    )
    for measure in (grey_level_entropy, target_pixels):
        assert measure(masks).tolist() == [measure(mask[None]).item() for mask in masks]


def expected_dice_of(levels):
    mask = torch.as_tensor(np.asarray(levels, dtype=np.uint8))
    return expected_dice(mask.reshape(1, 1, -1, mask.shape[-1])).item()


def test_expected_dice_by_hand():
    assert expected_dice_of([[0, 0, 255, 255]]) == 1
    assert expected_dice_of([[0, 127, 128, 255]]) == pytest.approx(2 * 383 / (510 + 510), abs=1e-12)
    assert expected_dice_of([[0, 1, 127, 127]]) == 0  # nothing is target
    assert expected_dice_of([[0, 0, 0, 0]]) == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_expected_dice_does_not_depend_on_how_large_a_target_is(seed, times):
    levels = np.random.default_rng(seed).integers(0, 256, (6, 5))
    larger = np.pad(np.tile(levels, (times, 1)), 3)
    assert expected_dice_of(larger) == pytest.approx(expected_dice_of(levels), abs=1e-12)


def test_expected_dice_is_the_mean_over_truths_drawn_by_the_probabilities():
    random = np.random.default_rng(0)
    levels = (255 * random.random((40, 40)) ** 4).round().astype(np.uint8)
    truths, target = random.random((500, 40, 40)) < levels / 255, levels >= 128
    dice = 2 * (truths & target).sum((1, 2)) / (truths.sum((1, 2)) + target.sum())
    assert dice.std() > 0.005
    assert expected_dice_of(levels) == pytest.approx(dice.mean(), abs=0.005)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_mean_of_binary_teachers_has_too_little_entropy_for_beta(teachers, seed):
    random = np.random.default_rng(seed)
    votes = random.random((teachers, 16, 16)) < random.random((teachers, 1, 1))
    mean = torch.from_numpy(votes.mean(0, dtype=np.float32))
    entropy = grey_level_entropy(quantise(mean)[None]).item()
    assert entropy <= math.log2(teachers + 1) + 1e-9
    if teachers <= 4:
        assert entropy <= 2.5


def test_alpha_alone_drops_images_with_fewer_target_pixels():
    rule = ExclusionRule(alpha=256, beta=None)
    assert kept(rule) == [False, False, True, True, False, True]


def test_beta_alone_drops_images_with_more_entropy():
    rule = ExclusionRule(alpha=None, beta=2.5)
    assert kept(rule) == [True, True, True, False, False, True]


def test_either_rule_is_enough_by_default_as_in_the_papers_algorithm():
    assert ExclusionRule() == ExclusionRule(256, 2.5, "either", scale_alpha=False)
    assert kept(ExclusionRule()) == [False, False, True, False, False, True]


def test_both_rules_can_be_required():
    assert kept(ExclusionRule(combine="both")) == [True, True, True, True, False, True]


@pytest.mark.parametrize("combine", ["either", "both"])
def test_without_rules_everything_stays(combine):
    assert all(kept(ExclusionRule(alpha=None, beta=None, combine=combine)))


@pytest.mark.parametrize("combine", ["either", "both"])
def test_beta_is_not_applied_to_binary_teachers(combine):
    rule = ExclusionRule(combine=combine)
    expected = ExclusionRule(beta=None)
    assert kept(rule, soft=False) == kept(expected)
    assert all(kept(ExclusionRule(alpha=None), soft=False))


def test_alpha_can_be_scaled_with_the_area():
    rule = ExclusionRule(alpha=256, beta=None, scale_alpha=True)
    assert rule.alpha_at(384, 384) == 256
    assert rule.alpha_at(64, 64) == pytest.approx(7.11, abs=0.005)
    assert ExclusionRule(alpha=256).alpha_at(64, 64) == 256
    pixels = np.array([7, 8])
    assert rule.kept(pixels, np.zeros(2), 64, 64, True).tolist() == [False, True]
    assert ExclusionRule(alpha=None, scale_alpha=True).alpha_at(64, 64) is None


def test_no_images_give_no_verdicts():
    empty = np.array([], dtype=np.int64)
    assert ExclusionRule().kept(empty, empty.astype(float), 384, 384, True).shape == (0,)


def test_what_teachers_are_not_sure_of_is_excluded_besides():
    columns = {
        "mean_confidence": np.array([0.95, 0.8, 0.95, 0.9]),
        "teacher_disagreement": np.array([0.0, 0.0, 0.2, 0.1]),
        "expected_dice": np.array([0.6, 0.9, 0.9, 0.5]),
    }
    rule = ExclusionRule(smallest_confidence=0.9, largest_disagreement=0.1)
    assert rule.sure(columns.__getitem__).tolist() == [True, False, False, True]
    dice = ExclusionRule(smallest_expected_dice=0.6)
    assert dice.sure(columns.__getitem__).tolist() == [True, True, True, False]
    assert ExclusionRule().sure(columns.__getitem__) is True
    assert rule.to_json()["smallest_confidence"] == 0.9
    assert "largest_disagreement" not in ExclusionRule().to_json()
    with pytest.raises(ConfigurationError, match=r"exclusion\.largest_disagreement must be in"):
        ExclusionRule(largest_disagreement=0.7)
