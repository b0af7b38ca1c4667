import math
import statistics

import numpy as np
import pytest

from nakt_dist.evaluation.summary import (
    bootstrap_interval,
    confidence_over_runs,
    knowledge_transfer_capability,
    summarise_metric,
)

SCORES = np.random.default_rng(5).beta(6, 2, 80)


def interval_by_hand(values, samples, confidence):
    """An independent resampling: one draw after the other, with another generator."""
    random = np.random.default_rng(99)
    means = sorted(
        float(np.mean(random.choice(values, size=len(values), replace=True)))
        for _ in range(samples)
    )
    tail = (1 - confidence) / 2
    return means[round(tail * samples)], means[round((1 - tail) * samples) - 1]


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_interval_agrees_with_an_independent_resampling(confidence):
    found = bootstrap_interval(SCORES, 4000, seed=0, confidence=confidence)
    expected = interval_by_hand(SCORES, 4000, confidence)
    assert found == pytest.approx(expected, abs=0.004)


def test_the_interval_is_about_what_the_normal_distribution_says():
    half = 1.96 * SCORES.std() / math.sqrt(len(SCORES))
    expected = (SCORES.mean() - half, SCORES.mean() + half)
    assert bootstrap_interval(SCORES, 4000, seed=0) == pytest.approx(expected, abs=0.006)


def test_the_interval_belongs_to_its_seed():
    first = bootstrap_interval(SCORES, 500, seed=1)
    assert bootstrap_interval(SCORES, 500, seed=1) == first
    assert bootstrap_interval(SCORES, 500, seed=2) != first


def test_the_interval_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    expected = bootstrap_interval(SCORES, 501, seed=1)
    monkeypatch.setattr("nakt_dist.evaluation.summary._RESAMPLED_AT_ONCE", 7 * len(SCORES))
    assert bootstrap_interval(SCORES, 501, seed=1) == expected


def test_one_image_has_an_interval_of_one_point():
    assert bootstrap_interval(np.array([0.5]), 100, seed=0) == (0.5, 0.5)


def test_dice_is_summarised_in_percent_with_the_population_spread():
    values = [0.5, 0.7, 0.9, 1.0]
    summary = summarise_metric("dice", values, 2000, seed=0).to_json()
    assert summary["dice_mean"] == pytest.approx(77.5)
    assert summary["dice_std"] == pytest.approx(100 * statistics.pstdev(values))
    assert (summary["images"], summary["images_left_out"]) == (4, 0)
    lower, upper = summary["dice_interval_95"]
    assert 50 <= lower < 77.5 < upper <= 100


def test_images_without_a_dice_are_left_out_and_counted():
    with_gap = summarise_metric("dice", [0.5, float("nan"), 0.9], 500, seed=0).to_json()
    without = summarise_metric("dice", [0.5, 0.9], 500, seed=0).to_json()
    assert with_gap == without | {"images_left_out": 1}


@pytest.mark.parametrize("values", [[], [float("nan")] * 3])
def test_no_images_have_no_dice_rather_than_a_wrong_one(values):
    summary = summarise_metric("dice", values, 500, seed=0).to_json()
    assert (summary["images"], summary["images_left_out"]) == (0, len(values))
    assert summary["dice_mean"] is summary["dice_std"] is summary["dice_interval_95"] is None


# The best student of each transferal dataset in the paper's table 2, and its capability.
@pytest.mark.parametrize(
    ("student", "expected"),
    [(85.00, 97.66), (86.12, 98.94), (81.11, 93.19), (70.64, 81.16), (82.44, 94.72)],
    ids=["busi", "thyroid", "nerve", "skin", "voc"],
)
def test_the_capability_is_that_of_the_paper(student, expected):
    assert round(knowledge_transfer_capability(student, 87.04), 2) == expected


def test_a_student_as_good_as_its_teacher_has_a_capability_of_100():
    assert knowledge_transfer_capability(61.5, 61.5) == 100.0


def test_the_confidence_over_seeds_is_that_of_the_paper():
    values = [80.0, 82.0, 87.0]  # mean 83, squares 9 + 1 + 16 over 2 = 13
    assert confidence_over_runs(values) == pytest.approx(1.96 * math.sqrt(13 / 3))


@pytest.mark.parametrize("values", [[], [83.0]])
def test_one_run_has_no_spread(values):
    assert confidence_over_runs(values) is None
