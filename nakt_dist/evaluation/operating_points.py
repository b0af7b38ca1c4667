"""Thresholds chosen on validation images, and what they give on the test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nakt_dist.config.evaluating import OperatingPointConfig
from nakt_dist.evaluation.calibration import calibration_error_of, reliability
from nakt_dist.evaluation.resampling import percentile_interval, resampled_weights
from nakt_dist.evaluation.roc import RocCurve, roc_curve
from nakt_dist.evaluation.temperature import fit_temperature, scale
from nakt_dist.records.operating_points import (
    RATES,
    YOUDEN,
    FindingPoints,
    OperatingPoints,
    PointScore,
)

_ENOUGH = 1e-12
"""By how much a rate may fall short of the one asked for: rounding."""


@dataclass(frozen=True)
class Labelled:
    """What a network says of some images, and what is true.

    Attributes:
        probabilities: float (N, K) in [0, 1].
        targets: float (N, K), 1 positive, 0 negative, NaN ignored.
    """

    probabilities: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class _Point:
    """A threshold, and how it was chosen.

    Attributes:
        validation: sensitivity and specificity on the validation images, in percent.
    """

    finding: int
    rule: str
    threshold: float
    validation: tuple[float, float]


def operate(
    names: Sequence[str],
    validation: Labelled,
    test: Labelled,
    patients: Sequence[str | None],
    config: OperatingPointConfig,
    described: dict[str, Any],
    samples: int,
    seed: int,
) -> OperatingPoints:
    """Chooses thresholds and temperatures on validation images and applies them to test images.

    Args:
        names: of the K labels of both.
        patients: of each test image, None where unknown.
        described: the validation images, as the record is to name them.
        samples: resamplings behind the intervals.
    """
    curves = [roc_curve(*each) for each in zip(*_columns(validation), strict=True)]
    chosen = [number for number, curve in enumerate(curves) if curve.is_defined]
    points = [each for number in chosen for each in _choose(number, curves[number], config)]
    scores = _score(points, test, patients, samples, seed)
    findings = []
    for number in chosen:
        temperature = fit_temperature(*_column(validation, number))
        assert temperature is not None  # both classes are there
        probabilities, targets = _column(test, number)
        curve = reliability(scale(probabilities, temperature), targets)
        error = calibration_error_of(curve)
        findings.append(
            FindingPoints(
                name=names[number],
                validation_positives=int(curves[number].true_positives[-1]),
                validation_negatives=int(curves[number].false_positives[-1]),
                temperature=temperature,
                calibration_error_scaled=None if np.isnan(error) else error,
                reliability_scaled=tuple(map(tuple, curve.tolist())),
                points=tuple(
                    score
                    for point, score in zip(points, scores, strict=True)
                    if point.finding == number
                ),
            )
        )
    without = [name for number, name in enumerate(names) if number not in chosen]
    return OperatingPoints(described, tuple(findings), tuple(without))


def _columns(labelled: Labelled) -> tuple[np.ndarray, np.ndarray]:
    return labelled.probabilities.T, labelled.targets.T


def _column(labelled: Labelled, number: int) -> tuple[np.ndarray, np.ndarray]:
    return labelled.probabilities[:, number], labelled.targets[:, number]


def _choose(finding: int, curve: RocCurve, config: OperatingPointConfig) -> list[_Point]:
    """Chooses the threshold of each rule; of equally good ones always the highest."""
    sensitivity, specificity = curve.sensitivity, 1 - curve.false_positive_rate
    places = {YOUDEN: int(np.argmax(sensitivity + specificity))}
    for least in config.sensitivity:
        places[f"sensitivity {least:g}"] = int(np.argmax(sensitivity >= least - _ENOUGH))
    for least in config.specificity:
        reached = np.flatnonzero(specificity >= least - _ENOUGH)
        most = sensitivity[reached] == sensitivity[reached[-1]]
        places[f"specificity {least:g}"] = int(reached[np.argmax(most)])
    return [
        _Point(
            finding,
            rule,
            float(curve.thresholds[place]),
            (100 * float(sensitivity[place]), 100 * float(specificity[place])),
        )
        for rule, place in places.items()
    ]


def _score(
    points: Sequence[_Point],
    test: Labelled,
    patients: Sequence[str | None],
    samples: int,
    seed: int,
) -> list[PointScore]:
    """Counts test images at each threshold, and in resamples of their patients."""
    if not points:
        return []
    numbers = [point.finding for point in points]
    targets = test.targets[:, numbers]
    called = test.probabilities[:, numbers] >= np.array([point.threshold for point in points])
    positive, negative = targets == 1, targets == 0
    events = np.stack([called & positive, positive, called & negative, negative])
    counts = events.sum(1)
    rates = 100 * rates_of(counts)
    flat = np.ascontiguousarray(events.transpose(1, 0, 2).reshape(len(targets), -1), np.float64)
    drawn = [
        100 * rates_of((weights.T @ flat).reshape(-1, 4, len(points)).transpose(1, 0, 2))
        for weights in resampled_weights(patients, samples, seed)
    ]
    resampled = np.concatenate(drawn, axis=1)  # (rates, resamples, points)
    return [
        PointScore(
            rule=point.rule,
            threshold=point.threshold,
            validation_sensitivity=point.validation[0],
            validation_specificity=point.validation[1],
            true_positives=int(counts[0, place]),
            false_positives=int(counts[2, place]),
            rates={
                name: None if np.isnan(rate) else float(rate)
                for name, rate in zip(RATES, rates[:, place], strict=True)
            },
            intervals={
                name: percentile_interval(draws)
                for name, draws in zip(RATES, resampled[:, :, place], strict=True)
            },
        )
        for place, point in enumerate(points)
    ]


def rates_of(counts: np.ndarray) -> np.ndarray:
    """Returns sensitivity, specificity, positive and negative predictive value.

    Args:
        counts: (4, …): true positives, all positives, false positives, all negatives.

    Returns:
        float64 (4, …) in [0, 1]; NaN where nothing is to be counted.
    """
    true_positives, positives, false_positives, negatives = counts.astype(np.float64)
    true_negatives = negatives - false_positives
    parts = (true_positives, true_negatives, true_positives, true_negatives)
    wholes = (
        positives,
        negatives,
        true_positives + false_positives,
        true_negatives + positives - true_positives,
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 is not a number
        return np.stack([part / whole for part, whole in zip(parts, wholes, strict=True)])
