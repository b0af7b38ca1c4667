"""The numbers of a classifier's evaluation, from its probabilities."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nakt_dist.evaluation.auroc import average_precision, mean_auroc
from nakt_dist.evaluation.calibration import expected_calibration_error
from nakt_dist.evaluation.resampling import (
    ResampledAuroc,
    number_patients,
    percentile_interval,
    resample_auroc,
)
from nakt_dist.evaluation.subgroups import compare_subgroups

FEWEST_PATIENTS = 20
"""Below this, an interval from resampling patients is too coarse to be relied on."""

LARGEST_SHARE_WITHOUT_A_LABEL = 0.1
"""Of resamples: above this, too many of their means are over other labels than the mean is."""


def summarise_classification(
    names: Sequence[str],
    probabilities: np.ndarray,
    targets: np.ndarray,
    patients: Sequence[str | None],
    groups: Mapping[str, Sequence[str | None]],
    samples: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Computes all metrics of one network on one test set.

    Args:
        names: of the K labels.
        probabilities: float (N, K) in [0, 1].
        targets: float (N, K), 1 positive, 0 negative, NaN ignored.
        patients: of each image, None where unknown.
        groups: by attribute, each image's value, None where unknown.
        samples: resamplings behind the intervals.
        seed: of the resampling.

    Returns:
        The metrics and the details of the record. AUROC, average precision and gaps are in
        percent, the calibration error in [0, 1]. Means are over the labels with both classes;
        what is undefined is None.
    """
    found = mean_auroc(probabilities, targets)
    resampled = resample_auroc(probabilities, targets, patients, samples, seed)
    labels = [
        {
            "name": name,
            **_count(targets[:, column]),
            "auroc": _percent(found.labels[column]),
            "auroc_interval_95": percent_interval(percentile_interval(resampled.labels[:, column])),
            "resamples_left_out": int(np.isnan(resampled.labels[:, column]).sum()),
            "average_precision": _percent(
                average_precision(probabilities[:, column], targets[:, column])
            ),
            "calibration_error": _number(
                expected_calibration_error(probabilities[:, column], targets[:, column])
            ),
        }
        for column, name in enumerate(names)
    ]
    counted = [label for label in labels if label["auroc"] is not None]
    metrics = {
        "task": "classification",
        "images": len(targets),
        "patients": len(set(patients) - {None}),
        "auroc_mean": _percent(found.mean),
        "auroc_interval_95": percent_interval(percentile_interval(resampled.mean)),
        "average_precision_mean": _mean(label["average_precision"] for label in counted),
        "calibration_error_mean": _mean(label["calibration_error"] for label in counted),
        "labels_counted": found.counted,
        "labels_left_out": len(found.left_out),
    }
    details = {
        "labels": labels,
        "interval": _describe_interval(resampled, patients, found.counted),
    }
    details |= _compare(groups, names, probabilities, targets, patients)
    return metrics, details


def _describe_interval(
    resampled: ResampledAuroc, patients: Sequence[str | None], labels: int
) -> dict[str, Any]:
    """Says what the interval of the mean rests on, and in ``cautions`` why to distrust it."""
    drawn, resamples = int(number_patients(patients).max()) + 1, len(resampled.mean)
    without = resampled.without_a_label
    cautions = []
    if labels and drawn < FEWEST_PATIENTS:
        cautions.append(
            f"the interval rests on {drawn} patients; from fewer than {FEWEST_PATIENTS} it is not "
            "to be relied on"
        )
    if without > LARGEST_SHARE_WITHOUT_A_LABEL * resamples:
        cautions.append(
            f"{100 * without / resamples:.0f} % of the resamples lack a class of one label or "
            "more, so that their means are over fewer labels, and the interval is not quite that "
            "of the mean"
        )
    return {
        "patients_drawn": drawn,
        "images_without_patient": sum(patient is None for patient in patients),
        "resamples": resamples,
        "resamples_without_a_label": without,
        "cautions": cautions,
    }


def _compare(
    groups: Mapping[str, Sequence[str | None]],
    names: Sequence[str],
    probabilities: np.ndarray,
    targets: np.ndarray,
    patients: Sequence[str | None],
) -> dict[str, Any]:
    """Returns the subgroups' rows, the gap of each attribute, and the labels it is over."""
    details: dict[str, Any] = {"subgroups": [], "gaps": {}, "subgroup_labels": {}}
    for attribute, values in groups.items():
        found = compare_subgroups(attribute, values, probabilities, targets, patients)
        details["gaps"][attribute] = _percent(found.gap)
        details["subgroup_labels"][attribute] = [names[number] for number in found.labels]
        details["subgroups"] += [
            asdict(group) | {"auroc_mean": _percent(group.auroc_mean)} for group in found.groups
        ]
    return details


def _count(targets: np.ndarray) -> dict[str, int]:
    return {
        "positives": int((targets == 1).sum()),
        "negatives": int((targets == 0).sum()),
        "ignored": int(np.isnan(targets).sum()),
    }


def percent_interval(limits: tuple[float, float] | None) -> list[float] | None:
    """Returns the limits of an interval in percent."""
    return None if limits is None else [100 * limit for limit in limits]


def _number(value: float | None) -> float | None:
    """Returns None for what is undefined: JSON has no other way to say it."""
    return None if value is None or math.isnan(value) else float(value)


def _percent(value: float | None) -> float | None:
    number = _number(value)
    return None if number is None else 100 * number


def _mean(values: Any) -> float | None:
    numbers = list(values)
    return float(np.mean(numbers)) if numbers else None
