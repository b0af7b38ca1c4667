"""Bootstrap over patients: intervals of AUROC, and whether two networks differ.

Images of one patient are alike, so patients are drawn, not images. A patient drawn twice
counts twice, with all images; an image whose patient is unknown is a patient of its own. All
labels, their mean and both networks of a comparison see the same resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nakt_dist.evaluation.auroc import RankedScores, mean_auroc

_WEIGHTS_AT_ONCE = 400_000


def number_patients(patients: Sequence[str | None]) -> np.ndarray:
    """Returns int64 (N,): the number of each image's patient, from 0; None is always a new one."""
    numbers: dict[Any, int] = {}
    keys = (row if patient is None else patient for row, patient in enumerate(patients))
    return np.asarray([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def resampled_weights(
    patients: Sequence[str | None], samples: int, seed: int
) -> Iterator[np.ndarray]:
    """Draws as many patients as there are, with replacement, again and again.

    Args:
        patients: of each image, N.
        seed: decides them all, whatever is drawn at once.

    Yields:
        float64 (N, S): how often each image counts in the next S resamples.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    number = number_patients(patients)
    count = int(number.max()) + 1
    at_once = max(1, _WEIGHTS_AT_ONCE // len(number))
    for done in range(0, samples, at_once):
        size = min(at_once, samples - done)
        drawn = generator.integers(0, count, (size, count))
        drawn += count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield np.ascontiguousarray(times.T, dtype=np.float64)[number]


@dataclass(frozen=True)
class ResampledAuroc:
    """AUROC in every resample.

    Attributes:
        labels: float64 (S, K); NaN where the resample, or the whole set, lacks a class.
        mean: float64 (S,): over the labels that have both classes in the resample; NaN where
            none has.
    """

    labels: np.ndarray
    mean: np.ndarray

    @property
    def without_a_label(self) -> int:
        """Number of resamples that lack a class of a label which has both in the whole set."""
        missing = np.isnan(self.labels)
        defined = ~missing.all(0)
        return int(missing[:, defined].any(1).sum())


def resample_auroc(
    probabilities: np.ndarray,
    targets: np.ndarray,
    patients: Sequence[str | None],
    samples: int,
    seed: int,
) -> ResampledAuroc:
    """Computes AUROC of every label and their mean in each resample.

    A resample in which a label lacks a class leaves this label out of that resample's mean.
    Memory does not grow with the number of images times resamples.

    Args:
        probabilities: float (N, K).
        targets: float (N, K), 1 positive, 0 negative, NaN ignored.
        patients: of each image, None where unknown.

    Raises:
        NaktError: a score that counts is not a number.
    """
    ranked = [RankedScores(*pair) for pair in zip(probabilities.T, targets.T, strict=True)]
    defined = [number for number, label in enumerate(ranked) if label.is_defined]
    labels = np.full((samples, len(ranked)), np.nan)
    done = 0
    for weights in resampled_weights(patients, samples, seed) if defined else ():
        part = slice(done, done + weights.shape[1])
        for number in defined:
            labels[part, number] = ranked[number].weighted_auroc(weights)
        done = part.stop
    counted = ~np.isnan(labels)
    total = np.where(counted, labels, 0).sum(1)
    mean = np.where(counted.any(1), total / np.maximum(counted.sum(1), 1), np.nan)
    return ResampledAuroc(labels, mean)


def percentile_interval(
    resampled: np.ndarray, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Returns the percentile interval over the resamples with a value; None when none has one."""
    values = resampled[~np.isnan(resampled)]
    if not len(values):
        return None
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(values, [tail, 1 - tail])
    return float(lower), float(upper)


def two_sided_p(differences: np.ndarray) -> float:
    """Returns twice the smaller share of resampled differences on one side of 0, at most 1.

    One is added to both counts, so that it is never 0.

    Args:
        differences: float (S,), all numbers.
    """
    sides = [np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0)]
    return min(1.0, 2 * (min(sides) + 1) / (len(differences) + 1))


@dataclass(frozen=True)
class LabelDifference:
    """How the AUROC of one label differs between two networks, on the same images.

    Attributes:
        difference: the first network's less the second's.
        interval: 95 % percentile interval.
        p_value: two-sided, see ``two_sided_p``.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class PairedDifference(LabelDifference):
    """How the mean AUROC of two networks differs on the same images.

    Attributes:
        means: mean AUROC of the first and of the second network, in [0, 1].
        labels_counted: labels with both classes.
        labels: the difference of each label; None where it lacks a class.
    """

    means: tuple[float, float]
    labels_counted: int
    labels: tuple[LabelDifference | None, ...]


def paired_difference(
    first: np.ndarray,
    second: np.ndarray,
    targets: np.ndarray,
    patients: Sequence[str | None],
    samples: int,
    seed: int,
) -> PairedDifference | None:
    """Compares the AUROC of two networks, with the same patients drawn for both.

    Args:
        first: probabilities of one network, float (N, K).
        second: those of the other, for the same images and labels.
        targets: float (N, K), 1 positive, 0 negative, NaN ignored.
        patients: of each image, None where unknown.

    Returns:
        None when no label has both classes.
    """
    ours, theirs = (mean_auroc(probabilities, targets) for probabilities in (first, second))
    if ours.mean is None or theirs.mean is None:
        return None
    drawn, other = (
        resample_auroc(each, targets, patients, samples, seed) for each in (first, second)
    )
    found = summarise_difference(ours.mean - theirs.mean, drawn.mean - other.mean)
    if found is None:
        return None
    labels = zip(ours.labels - theirs.labels, (drawn.labels - other.labels).T, strict=True)
    return PairedDifference(
        **vars(found),
        means=(ours.mean, theirs.mean),
        labels_counted=ours.counted,
        labels=tuple(summarise_difference(float(each), draws) for each, draws in labels),
    )


def summarise_difference(difference: float, resampled: np.ndarray) -> LabelDifference | None:
    """Returns a difference with what its resamples say, float (S,); None where none is known."""
    interval = percentile_interval(resampled)
    if interval is None:
        return None
    return LabelDifference(difference, interval, two_sided_p(resampled[~np.isnan(resampled)]))
