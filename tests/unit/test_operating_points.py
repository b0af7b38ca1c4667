"""Thresholds, temperatures and rates at them, beside scikit-learn, SciPy and plain counting."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score, roc_curve
from sklearn.metrics import precision_score as ppv_score

from nakt_dist.config.evaluating import OperatingPointConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation.calibration import expected_calibration_error
from nakt_dist.evaluation.finding_predictions import EvaluatedImages
from nakt_dist.evaluation.many_comparisons import holm
from nakt_dist.evaluation.operating_points import Labelled, operate, rates_of
from nakt_dist.evaluation.resampling import resampled_weights
from nakt_dist.evaluation.roc import partial_auroc
from nakt_dist.evaluation.temperature import MOST, fit_temperature, scale
from nakt_dist.records.operating_points import RATES, OperatingPoints

NAN = float("nan")
CONFIG = OperatingPointConfig("validation", sensitivity=[0.95, 0.6], specificity=[0.9])


def some_answers(seed: int, images: int = 150, labels: int = 2, digits: int = 2) -> Labelled:
    """Probabilities with ties, and targets of which some are ignored."""
    random = np.random.default_rng(seed)
    targets = (random.random((images, labels)) < 0.3).astype(np.float64)
    probabilities = expit(2 * random.normal(size=targets.shape) + 2 * targets - 1)
    targets[random.random(targets.shape) < 0.1] = NAN
    targets[:2] = [[1] * labels, [0] * labels]
    return Labelled(np.round(probabilities, digits), targets)


def column(labelled: Labelled, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities of the images that count, as scikit-learn takes them."""
    counted = ~np.isnan(labelled.targets[:, number])
    return labelled.targets[counted, number], labelled.probabilities[counted, number]


# -------------------------------------------------------------------- beginning of the curve


@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.1, 0.37, 0.9]), st.integers(0, 3))
def test_the_partial_area_is_that_of_scikit_learn(seed: int, largest: float, digits: int):
    labelled = some_answers(seed, images=60, labels=1, digits=digits)
    expected = roc_auc_score(*column(labelled, 0), max_fpr=largest)
    found = partial_auroc(labelled.probabilities[:, 0], labelled.targets[:, 0], largest)
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_whole_area_is_its_own_part_and_without_a_class_there_is_none():
    labelled = some_answers(3)
    found = partial_auroc(labelled.probabilities[:, 0], labelled.targets[:, 0], 1.0)
    assert found == pytest.approx(roc_auc_score(*column(labelled, 0)))
    assert math.isnan(partial_auroc(np.ones(3), np.ones(3)))


# ------------------------------------------------------------------------------- thresholds


def operated(validation: Labelled, test: Labelled, samples: int = 20) -> OperatingPoints:
    names = [f"finding {number}" for number in range(validation.targets.shape[1])]
    owners = [f"patient {number // 2}" for number in range(len(test.targets))]
    return operate(names, validation, test, owners, CONFIG, {}, samples, 0)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_those_of_scikit_learns_curve(seed: int):
    validation = some_answers(seed)
    found = operated(validation, some_answers(seed + 100))
    for number, finding in enumerate(found.findings):
        false_alarms, found_ones, thresholds = roc_curve(
            *column(validation, number), drop_intermediate=False
        )
        expected = {
            "youden": thresholds[np.argmax(found_ones - false_alarms)],
            "sensitivity 0.95": thresholds[found_ones >= 0.95].max(),
            "sensitivity 0.6": thresholds[found_ones >= 0.6].max(),
        }
        points = {point.rule: point for point in finding.points}
        assert {rule: points[rule].threshold for rule in expected} == expected
        fixed = points["specificity 0.9"]
        assert fixed.validation_specificity >= 90
        assert fixed.validation_sensitivity == 100 * found_ones[false_alarms <= 0.1].max()


@pytest.mark.parametrize("seed", range(5))
def test_rates_are_those_of_scikit_learns_counts(seed: int):
    test = some_answers(seed + 100)
    for number, finding in enumerate(operated(some_answers(seed), test).findings):
        targets, probabilities = column(test, number)
        for point in finding.points:
            called = probabilities >= point.threshold
            (tn, fp), (fn, tp) = confusion_matrix(targets, called)
            expected = (tp / (tp + fn), tn / (tn + fp), ppv_score(targets, called), tn / (tn + fn))
            assert [point.rates[name] for name in RATES] == pytest.approx(
                [100 * each for each in expected], abs=1e-9
            )
            assert (point.true_positives, point.false_positives) == (tp, fp)


def test_intervals_are_of_patients_drawn_image_by_image():
    test, samples = some_answers(9, labels=1), 300
    points = operated(some_answers(8, labels=1), test, samples).findings[0].points
    owners = [f"patient {number // 2}" for number in range(len(test.targets))]
    weights = np.concatenate(list(resampled_weights(owners, samples, seed=0)), axis=1).astype(int)
    targets, probabilities = test.targets[:, 0], test.probabilities[:, 0]
    for point in points:
        draws = []
        for times in weights.T:
            rows = np.repeat(np.arange(len(targets)), times)
            rows = rows[~np.isnan(targets[rows])]
            called, true = probabilities[rows] >= point.threshold, targets[rows] == 1
            parts = ((called, true), (~called, ~true), (true, called), (~true, ~called))
            draws.append([part[whole].mean() for part, whole in parts])
        expected = 100 * np.quantile(draws, [0.025, 0.975], axis=0)
        found = [point.intervals[name] for name in RATES]
        np.testing.assert_allclose(found, expected.T, atol=1e-9)


def test_a_specificity_that_no_score_gives_calls_nothing_positive():
    probabilities = np.array([[0.9], [0.5], [1.0]])
    labelled = Labelled(probabilities, np.array([[1.0], [0.0], [0.0]]))
    point = operated(labelled, labelled).findings[0].points[-1]
    assert (point.rule, point.true_positives, point.false_positives) == ("specificity 0.9", 0, 0)
    assert point.threshold > 1
    assert (point.rates["ppv"], point.intervals["ppv"]) == (None, None)
    assert (point.rates["sensitivity"], point.rates["specificity"]) == (0, 100)
    assert point.rates["npv"] == pytest.approx(200 / 3)


def test_a_finding_without_a_class_on_the_validation_images_has_no_threshold():
    validation, test = some_answers(0), some_answers(1)
    validation.targets[:, 1] = 0
    found = operated(validation, test)
    assert ([each.name for each in found.findings], found.without) == (
        ["finding 0"], ("finding 1",),
    )  # fmt: skip


def test_of_no_images_there_is_no_rate():
    assert np.isnan(rates_of(np.zeros((4, 2)))).all()


@pytest.mark.parametrize("rates", [[0.0], [1.2], [0.9, 0.9]])
def test_rates_that_are_none_are_refused(rates: list[float]):
    with pytest.raises(ConfigurationError, match=r"operating_points\.sensitivity must be a list"):
        OperatingPointConfig("validation", sensitivity=rates)


def shown(dataset: str, fingerprint: str, **columns: list) -> EvaluatedImages:
    rows = len(next(iter(columns.values())))
    empty = dict.fromkeys(("key", "patient_id", "picture"), [None] * rows)
    return EvaluatedImages(dataset, fingerprint, pa.table(empty | columns))


def test_images_are_the_same_by_key_in_a_packing_by_picture_anywhere_and_by_patient_at_home():
    ours = shown("chest", "f1", key=["a", "b"], patient_id=["1", None], picture=[7, None])
    judged = {
        "2 images": shown("chest", "f1", key=["b", "a"]),
        "1 images": shown("elsewhere", "f2", picture=[9, 7]),
        "1 patients": shown("chest", "f2", patient_id=["1", "2"]),
        "": shown("elsewhere", "f2", key=["a"], patient_id=["1"], picture=[8]),
    }
    assert {words: ours.shared_with(each) for words, each in judged.items()} == {
        words: words for words in judged
    }


# ------------------------------------------------------------------------------ temperature


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_has_the_smallest_cross_entropy(sharpness: float):
    random = np.random.default_rng(1)
    logits = 1.5 * random.normal(size=4000) - 1
    targets = (random.random(4000) < expit(logits)).astype(np.float64)
    targets[:7] = NAN
    probabilities = expit(sharpness * logits)
    found = fit_temperature(probabilities, targets)

    def entropy(logarithm: float) -> float:
        scaled = expit(sharpness * logits[7:] / np.exp(logarithm))
        return log_loss(targets[7:], scaled)

    least = minimize_scalar(entropy, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(math.exp(least.x), rel=1e-5)
    assert found == pytest.approx(sharpness, rel=0.1)
    np.testing.assert_allclose(scale(probabilities, found), expit(sharpness * logits / found))
    errors = [
        expected_calibration_error(each, targets)
        for each in (probabilities, scale(probabilities, found))
    ]
    assert errors[1] < 0.03
    assert errors[1] < errors[0] or sharpness == 1


def test_probabilities_that_separate_the_images_have_the_temperature_of_the_limit():
    sure = np.array([0.0, 0.2, 0.8, 1.0])
    assert fit_temperature(sure, np.array([0.0, 0, 1, 1])) == pytest.approx(1 / MOST)
    assert fit_temperature(sure, np.array([1.0, 1, 0, 0])) == pytest.approx(MOST)
    assert fit_temperature(sure, np.ones(4)) is None
    assert scale(sure, 1.0) == pytest.approx(sure)


# -------------------------------------------------------------------------- many comparisons


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(values: list[float]):
    """Each is corrected by the largest of all families of comparisons that it belongs to."""
    families = [
        [place for place in range(len(values)) if number >> place & 1]
        for number in range(1, 2 ** len(values))
    ]
    expected = [
        max(
            min(1.0, len(family) * min(values[each] for each in family))
            for family in families
            if place in family
        )
        for place in range(len(values))
    ]
    assert holm(values) == pytest.approx(expected)
