"""How far probabilities are from frequencies."""

import numpy as np

BINS = 15


def reliability(probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Sorts the images by their probability of one label into bins of equal width.

    Args:
        probabilities: float (N,) in [0, 1]; a bin holds its lower limit, the last one 1 too.
        targets: float (N,), 1 positive, 0 negative, NaN ignored.

    Returns:
        float64 (bins, 3): the images in each bin, the sum of their probabilities, and how many of
        them are positive. Curves of several labels or networks are added up.
    """
    counted = ~np.isnan(targets)
    probabilities, targets = probabilities[counted].astype(np.float64), targets[counted]
    place = np.minimum((probabilities * bins).astype(np.int64), bins - 1)
    columns = (None, probabilities, targets)
    return np.stack([np.bincount(place, each, minlength=bins) for each in columns], axis=1)


def calibration_error_of(curve: np.ndarray) -> float:
    """Returns the expected calibration error that ``reliability`` shows; NaN without an image."""
    images, expected, found = curve.T
    total = images.sum()
    return float(np.abs(expected - found).sum() / total) if total else float("nan")


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> float:
    """Expected calibration error of one label (Guo et al. 2017, for a binary output).

    The probabilities fall into bins of equal width; in each bin, the mean probability is
    compared with the share of positives. The mean of the distances weighs a bin by its images.

    Args:
        probabilities: float (N,) in [0, 1].
        targets: float (N,), 1 positive, 0 negative, NaN ignored.

    Returns:
        In [0, 1]; NaN when no image counts.
    """
    return calibration_error_of(reliability(probabilities, targets, bins))
