"""Temperature scaling: one number per finding that makes probabilities as sure as they are right.

Guo et al. 2017, equation 9, for a binary output: the logit is divided by T > 0. Each finding has
a T of its own, because each is an output of its own that may be too sure or too unsure whatever
the others are; no ranking, and so no AUROC, changes.
"""

import numpy as np

MOST = 20.0
"""T lies from 1 / MOST to MOST: what separates the validation images would have T = 0."""

_STEPS = 60


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float | None:
    """Returns the T with the smallest cross-entropy on validation images.

    The cross-entropy is convex in 1 / T, so that its slope is halved in to where it is 0.

    Args:
        probabilities: float (N,) in [0, 1], those of one finding.
        targets: float (N,), 1 positive, 0 negative, NaN ignored.

    Returns:
        In [1 / ``MOST``, ``MOST``]; None where a class is absent.
    """
    counted = ~np.isnan(targets)
    positive, logits = targets[counted] == 1, logits_of(probabilities[counted])
    if positive.all() or not positive.any():
        return None
    low, high = -np.log(MOST), np.log(MOST)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        slope = (logits * (_sigmoid(np.exp(middle) * logits) - positive)).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def scale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the probabilities of logits divided by a temperature, float64 (N,)."""
    return _sigmoid(logits_of(probabilities) / temperature)


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Returns the logits of probabilities, float64 (N,); finite for 0 and 1, too."""
    limits = np.finfo(np.float64)
    inside = np.clip(probabilities.astype(np.float64), limits.tiny, 1 - limits.epsneg)
    return np.log(inside) - np.log1p(-inside)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))
