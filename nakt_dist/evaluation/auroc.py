"""Area under the ROC curve and average precision, per label and over labels; NumPy alone.

The mean is over the labels that have both classes, and says which have not: torchmetrics'
``MultilabelAUROC(average="macro")`` counts such a label as 0 without a word.
"""

from dataclasses import dataclass

import numpy as np

from nakt_dist.errors import NaktError
from nakt_dist.evaluation.roc import roc_curve


class RankedScores:
    """One label's scores, sorted once: AUROC under any weights of the images.

    A bootstrap gives each image the number of times it was drawn as its weight, so that no
    resample is ever sorted.

    Args:
        scores: float (N,), higher for positive; any monotone function of the probability.
        targets: float (N,), 1 positive, 0 negative, NaN ignored.

    Raises:
        NaktError: a score that counts is not a number.
    """

    def __init__(self, scores: np.ndarray, targets: np.ndarray) -> None:
        if np.isnan(scores[~np.isnan(targets)]).any():
            raise NaktError(
                "AUROC: a score is not a number; expected the probabilities or logits of a "
                "network whose training has not diverged"
            )
        self._negatives = _ascending(np.flatnonzero(targets == 0), scores)
        self._positives = _ascending(np.flatnonzero(targets == 1), scores)
        ranked = scores[self._negatives]
        # Per positive: how many negatives lie below it, and how many at most level with it.
        self._below = np.searchsorted(ranked, scores[self._positives], "left")
        self._up_to = np.searchsorted(ranked, scores[self._positives], "right")

    @property
    def positives(self) -> int:
        """Number of positive images."""
        return len(self._positives)

    @property
    def negatives(self) -> int:
        """Number of negative images."""
        return len(self._negatives)

    @property
    def is_defined(self) -> bool:
        """Whether both classes are there."""
        return self.positives > 0 and self.negatives > 0

    def auroc(self) -> float:
        """The share of (positive, negative) pairs ranked rightly, ties half; NaN without pairs."""
        if not self.is_defined:
            return float("nan")
        twice_won = int(self._below.sum()) + int(self._up_to.sum())
        return twice_won / (2 * self.positives * self.negatives)

    def weighted_auroc(self, weights: np.ndarray) -> np.ndarray:
        """AUROC when images count several times or not at all.

        Args:
            weights: float64 (N, S), at least 0: S weightings of the N images. Whole numbers
                give exact results.

        Returns:
            float64 (S,) in [0, 1]; NaN where a class has no weight.
        """
        negative = np.zeros((self.negatives + 1, weights.shape[1]))
        np.cumsum(weights[self._negatives], axis=0, out=negative[1:])
        positive = weights[self._positives]
        twice_won = np.einsum("ns,ns->s", positive, negative[self._below] + negative[self._up_to])
        pairs = positive.sum(0) * negative[-1]
        defined = pairs > 0
        return np.where(defined, twice_won / np.where(defined, 2 * pairs, 1), np.nan)


def _ascending(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return rows[np.argsort(scores[rows], kind="stable")]


def auroc(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve of one label.

    Args:
        scores: float (N,), higher for positive.
        targets: float (N,), 1 positive, 0 negative, NaN ignored.
        weights: float (N,), at least 0; None counts every image once.

    Returns:
        In [0, 1]; NaN when a class is absent.

    Raises:
        NaktError: a score that counts is not a number.
    """
    ranked = RankedScores(scores, targets)
    if weights is None:
        return ranked.auroc()
    return float(ranked.weighted_auroc(np.asarray(weights, dtype=np.float64)[:, None])[0])


def average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Σ (Rₙ - Rₙ₋₁) Pₙ over the distinct scores, without interpolation, as scikit-learn has it.

    Args:
        scores: float (N,), higher for positive; not NaN where the target is not.
        targets: float (N,), 1 positive, 0 negative, NaN ignored.

    Returns:
        In (0, 1]; NaN when a class is absent.
    """
    curve = roc_curve(scores, targets)
    if not curve.is_defined:
        return float("nan")
    found, reached = curve.true_positives, curve.true_positives + curve.false_positives
    precision = found[1:] / reached[1:]
    return float((np.diff(found) * precision).sum() / found[-1])


@dataclass(frozen=True)
class MeanAuroc:
    """AUROC over labels.

    Attributes:
        mean: over the labels that have both classes, in [0, 1]; None when none has.
        labels: float64 (K,), per label; NaN for those left out.
        left_out: numbers of the labels that lack a class, ascending.
    """

    mean: float | None
    labels: np.ndarray
    left_out: tuple[int, ...]

    @property
    def counted(self) -> int:
        """How many labels the mean is over."""
        return len(self.labels) - len(self.left_out)


def mean_auroc(probabilities: np.ndarray, targets: np.ndarray) -> MeanAuroc:
    """AUROC per label and its mean over the labels with both classes (paper B, section 3).

    Args:
        probabilities: float (N, K); logits do as well.
        targets: float (N, K), 1 positive, 0 negative, NaN ignored.

    Raises:
        NaktError: a score that counts is not a number.
    """
    pairs = zip(probabilities.T, targets.T, strict=True)
    labels = np.asarray([auroc(*pair) for pair in pairs], dtype=np.float64)
    missing = np.isnan(labels)
    return MeanAuroc(
        mean=None if missing.all() else float(labels[~missing].mean()),
        labels=labels,
        left_out=tuple(np.flatnonzero(missing).tolist()),
    )
