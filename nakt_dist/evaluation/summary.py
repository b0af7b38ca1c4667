"""Means, spreads, intervals and the knowledge-transfer capability."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

_RESAMPLED_AT_ONCE = 250_000
_NORMAL_95 = 1.96


def bootstrap_interval(
    values: np.ndarray, samples: int, seed: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over images.

    Args:
        values: float (N,), one per image.
        samples: number of resamplings with replacement.
        seed: of the resampling.
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


def summarise_metric(name: str, values: Sequence[float], samples: int, seed: int) -> dict[str, Any]:
    """Summarises a metric of masks per image, in percent as the paper prints Dice.

    Args:
        name: of the metric, such as ``dice``.
        values: one per image in [0, 1]; not-a-number is left out and counted.
        samples: resamplings behind the interval.
        seed: of the resampling.

    Returns:
        ``NAME_mean``, ``NAME_std`` (population), ``NAME_interval_95``, ``images`` and
        ``images_left_out``; the first three are None when no image is left.
    """
    scores = np.asarray(values, dtype=np.float64)
    counted = scores[~np.isnan(scores)]
    summary: dict[str, Any] = {
        "images": len(counted),
        "images_left_out": len(scores) - len(counted),
        f"{name}_mean": None,
        f"{name}_std": None,
        f"{name}_interval_95": None,
    }
    if len(counted):
        interval = bootstrap_interval(100 * counted, samples, seed)
        summary |= {
            f"{name}_mean": float(100 * counted.mean()),
            f"{name}_std": float(100 * counted.std()),
            f"{name}_interval_95": list(interval),
        }
    return summary


def knowledge_transfer_capability(student_dice: float, teacher_dice: float) -> float:
    """100 × the best student's Dice / its teacher's, on the same test set (paper A, section 5).

    Args:
        student_dice: of the best student trained on the transferal dataset, with or without
            exclusion.
        teacher_dice: of the teacher that wrote its pseudo masks; above 0.
    """
    return 100 * student_dice / teacher_dice


def confidence_over_runs(
    values: Sequence[float], method: Literal["normal", "t"] = "normal"
) -> float | None:
    """Half of the 95 % confidence interval of a mean over runs with different seeds.

    Args:
        values: one per run.
        method: ``normal``: 1.96 s / √n (paper B, section 4); ``t``: Student's t with n - 1
            degrees of freedom, wider and right for few runs. s has n - 1 below it in both.

    Returns:
        In the unit of the values; None for fewer than two runs, which show no spread.
    """
    if len(values) < 2:
        return None
    factor = _NORMAL_95 if method == "normal" else _t_quantile_975(len(values) - 1)
    return float(factor * np.std(values, ddof=1) / math.sqrt(len(values)))


def _t_quantile_975(freedom: int) -> float:
    """The 97.5 % point of Student's t distribution, by bisection."""
    low, high = 0.0, 13.0  # with one degree of freedom it is 12.706
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _t_inside(limit: float, freedom: int) -> float:
    """P(|T| < limit): the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan2(limit, math.sqrt(freedom))
    odd = freedom % 2
    term = total = 0.0 if freedom == 1 else (math.cos(angle) if odd else 1.0)
    for step in range(2 + odd, freedom - 1, 2):
        term *= (step - 1) / step * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total
