"""How far probabilities are from frequencies."""

import numpy as np

BINS = 15


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> float:
    """Expected calibration error of one label (Guo et al. 2017, for a binary output).

    The probabilities fall into bins of equal width; in each bin, the mean probability is
    compared with the share of positives. The mean of the distances weighs a bin by its images.

    Args:
        probabilities: float (N,) in [0, 1]; a bin holds its lower limit, the last one 1 too.
        targets: float (N,), 1 positive, 0 negative, NaN ignored.

    Returns:
        In [0, 1]; NaN when no image counts.
    """
    counted = ~np.isnan(targets)
    probabilities, targets = probabilities[counted].astype(np.float64), targets[counted]
    if not len(targets):
        return float("nan")
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    excess = np.bincount(place, probabilities - targets, minlength=bins)
    return float(np.abs(excess).sum() / len(targets))
