"""Means, spreads, intervals and the knowledge-transfer capability."""

import math
from collections.abc import Sequence

import numpy as np

from nakt_dist.records.mask_results import MaskScore

_RESAMPLED_AT_ONCE = 250_000
_NORMAL_95 = 1.96


def bootstrap_interval(
    values: np.ndarray, samples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over images.

    Args:
        values: float (N,), one per image.
        samples: number of resamplings with replacement.
        confidence: share of the resampled means inside.

    Returns:
        Lower and upper limit.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = max(1, _RESAMPLED_AT_ONCE // len(values))
    means = []
    for done in range(0, samples, rows):
        drawn = generator.integers(0, len(values), (min(rows, samples - done), len(values)))
        means.append(values[drawn].mean(1))
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(lower), float(upper)


def summarise_metric(name: str, values: Sequence[float], samples: int, seed: int) -> MaskScore:
    """Summarises a metric of masks per image, in percent as the paper prints Dice.

    Args:
        name: of the metric, such as ``dice``; one in pixels ends in ``_pixels``.
        values: one per image in [0, 1], or in pixels; not-a-number is left out and counted.
        samples: resamplings behind the interval.
    """
    scores = np.asarray(values, dtype=np.float64)
    counted = scores[~np.isnan(scores)]
    left_out = len(scores) - len(counted)
    if not len(counted):
        return MaskScore(name, 0, left_out)
    shown = counted if MaskScore(name, 0, 0).in_pixels else 100 * counted
    interval = bootstrap_interval(shown, samples, seed)
    return MaskScore(
        name, len(counted), left_out, float(shown.mean()), float(shown.std()), interval
    )


def knowledge_transfer_capability(student_dice: float, teacher_dice: float) -> float:
    """100 × the best student's Dice / its teacher's, on the same test set (paper A, section 5).

    Args:
        student_dice: of the best student trained on the transferal dataset, with or without
            exclusion.
        teacher_dice: of the teacher that wrote its pseudo masks; above 0.
    """
    return 100 * student_dice / teacher_dice


def confidence_over_runs(values: Sequence[float]) -> float | None:
    """Half of the 95 % confidence interval of a mean over runs with different seeds.

    Returns:
        1.96 s / √n, where s has n - 1 below it (paper B, section 4), in the unit of the values;
        None for fewer than two runs, which show no spread.
    """
    if len(values) < 2:
        return None
    return float(_NORMAL_95 * np.std(values, ddof=1) / math.sqrt(len(values)))
