"""The ROC curve of one label, and the area under its beginning."""

from dataclasses import dataclass

import numpy as np

LARGEST_FALSE_POSITIVE_RATE = 0.1
"""Up to which the partial area goes: specificities of 90 % and more."""


@dataclass(frozen=True)
class RocCurve:
    """What is called positive at each threshold: every score that reaches it.

    Attributes:
        thresholds: float64 (M,), descending: one that no score reaches, then each score once.
        true_positives: int64 (M,), positive images that reach it.
        false_positives: int64 (M,), negative images that do.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray

    @property
    def is_defined(self) -> bool:
        """Whether both classes are there."""
        return bool(self.true_positives[-1] and self.false_positives[-1])

    @property
    def sensitivity(self) -> np.ndarray:
        """Share of the positive images that are called so, float64 (M,), ascending."""
        return self.true_positives / self.true_positives[-1]

    @property
    def false_positive_rate(self) -> np.ndarray:
        """Share of the negative images that are called positive, float64 (M,), ascending."""
        return self.false_positives / self.false_positives[-1]


def roc_curve(scores: np.ndarray, targets: np.ndarray) -> RocCurve:
    """Counts, for each threshold, the images that reach it.

    Args:
        scores: float (N,), higher for positive; not NaN where the target is not.
        targets: float (N,), 1 positive, 0 negative, NaN ignored.
    """
    counted = ~np.isnan(targets)
    order = np.argsort(-scores[counted], kind="stable")
    ranked, positive = scores[counted][order].astype(np.float64), targets[counted][order] == 1
    above = np.nextafter(ranked[:1], np.inf)
    last_of_ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], len(ranked) > 0))
    found, reached = np.cumsum(positive)[last_of_ties], last_of_ties + 1
    return RocCurve(
        np.concatenate((above, ranked[last_of_ties])),
        np.concatenate(([0], found)),
        np.concatenate(([0], reached - found)),
    )


def partial_auroc(
    scores: np.ndarray, targets: np.ndarray, largest: float = LARGEST_FALSE_POSITIVE_RATE
) -> float:
    """Area under the ROC curve up to a false-positive rate, standardised (McClish 1989).

    ½ (1 + (A - m) / (M - m)), where A is the area, m = largest² / 2 that of chance and
    M = largest that of a perfect ranking: 0.5 for chance and 1 for perfect, as of the whole area.

    Args:
        scores: float (N,), higher for positive; not NaN where the target is not.
        targets: float (N,), 1 positive, 0 negative, NaN ignored.
        largest: false-positive rate in (0, 1].

    Returns:
        In [0, 1]; NaN when a class is absent.
    """
    curve = roc_curve(scores, targets)
    if not curve.is_defined:
        return float("nan")
    rate, sensitivity = curve.false_positive_rate, curve.sensitivity
    inside = int(np.searchsorted(rate, largest, "right"))
    part = slice(inside - 1, inside + 1)
    last = np.interp(largest, rate[part], sensitivity[part])
    heights, places = np.append(sensitivity[:inside], last), np.append(rate[:inside], largest)
    area = (np.diff(places) * (heights[1:] + heights[:-1])).sum() / 2
    chance = largest**2 / 2
    return float((1 + (area - chance) / (largest - chance)) / 2)
