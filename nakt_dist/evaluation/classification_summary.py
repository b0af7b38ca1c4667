"""The numbers of a classifier's evaluation, from its probabilities."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nakt_dist.evaluation.auroc import mean_auroc
from nakt_dist.evaluation.calibration import reliability
from nakt_dist.evaluation.metrics import FINDING_METRICS
from nakt_dist.evaluation.resampling import (
    ResampledAuroc,
    number_patients,
    percentile_interval,
    resample_auroc,
)
from nakt_dist.evaluation.subgroups import compare_subgroups
from nakt_dist.records.finding_results import ClassificationResult, FindingScore

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
) -> ClassificationResult:
    """Computes all metrics of one network on one test set.

    Args:
        names: of the K labels.
        probabilities: float (N, K) in [0, 1].
        targets: float (N, K), 1 positive, 0 negative, NaN ignored.
        patients: of each image, None where unknown.
        groups: by attribute, each image's value, None where unknown.
        samples: resamplings behind the intervals.
    """
    found = mean_auroc(probabilities, targets)
    resampled = resample_auroc(probabilities, targets, patients, samples, seed)
    findings = tuple(
        FindingScore(
            name=name,
            positives=int((target == 1).sum()),
            negatives=int((target == 0).sum()),
            ignored=int(np.isnan(target).sum()),
            auroc=_percent(auroc),
            interval=_percent_interval(percentile_interval(draws)),
            resamples_left_out=int(np.isnan(draws).sum()),
            metrics={
                metric: _number(measure(probability, target))
                for metric, measure in FINDING_METRICS.items()
            },
            reliability=tuple(map(tuple, reliability(probability, target).tolist())),
        )
        for name, probability, target, auroc, draws in zip(
            names, probabilities.T, targets.T, found.labels, resampled.labels.T, strict=True
        )
    )
    compared = {
        attribute: compare_subgroups(attribute, values, probabilities, targets, patients)
        for attribute, values in groups.items()
    }
    return ClassificationResult(
        images=len(targets),
        patients=len(set(patients) - {None}),
        auroc=_percent(found.mean),
        interval=_percent_interval(percentile_interval(resampled.mean)),
        means={
            metric: _mean([each.metrics[metric] for each in findings if each.auroc is not None])
            for metric in FINDING_METRICS
        },
        findings=findings,
        rests_on=_describe_interval(resampled, patients, found.counted),
        groups=tuple(group for each in compared.values() for group in each.groups),
        gaps={attribute: each.gap for attribute, each in compared.items()},
        findings_of_groups={
            attribute: [names[number] for number in each.labels]
            for attribute, each in compared.items()
        },
    )


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


def _percent_interval(limits: tuple[float, float] | None) -> tuple[float, float] | None:
    """Returns the limits of an interval in percent."""
    return None if limits is None else (100 * limits[0], 100 * limits[1])


def _number(value: float | None) -> float | None:
    """Returns None for what is undefined: JSON has no other way to say it."""
    return None if value is None or math.isnan(value) else float(value)


def _percent(value: float | None) -> float | None:
    number = _number(value)
    return None if number is None else 100 * number


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None
