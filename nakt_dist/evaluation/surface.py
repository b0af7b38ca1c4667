"""Distances between the outlines of two masks, in pixels of the packed image; NumPy alone.

The outline of a mask is its pixels with a neighbour above, below, left or right that is not of
it; beyond the image nothing is. Distances are Euclidean, from a pixel of one outline to the
nearest of the other, and exact: their squares are whole numbers.
"""

import numpy as np
from torch import Tensor

SURFACE_METRICS = ("hd95_pixels", "assd_pixels")
"""95th percentile of the Hausdorff distance; average symmetric surface distance."""


def surface_distances_per_image(
    prediction: Tensor, target: Tensor, both_empty: float = 0.0
) -> np.ndarray:
    """Measures how far the outlines of predicted and annotated masks lie apart.

    The Hausdorff distance is the larger of its two directions, each at its 95th percentile
    (interpolated linearly); the average is over the distances of both directions together.

    Args:
        prediction: bool (N, 1, H, W).
        target: bool of the same shape.
        both_empty: value where neither has a pixel.

    Returns:
        float64 (N, 2), in pixels, a column for each of ``SURFACE_METRICS``; not a number where
        one mask alone is empty, which has no outline to be near to.
    """
    pairs = zip(prediction[:, 0].cpu().numpy(), target[:, 0].cpu().numpy(), strict=True)
    return np.array([_measure(*pair, both_empty) for pair in pairs], np.float64).reshape(-1, 2)


def _measure(first: np.ndarray, second: np.ndarray, both_empty: float) -> tuple[float, float]:
    if not (first.any() or second.any()):
        return both_empty, both_empty
    if not (first.any() and second.any()):
        return float("nan"), float("nan")
    both = first | second
    rows, columns = np.flatnonzero(both.any(1)), np.flatnonzero(both.any(0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # nothing lies outside
    outlines = _outline(first[box]), _outline(second[box])
    there, back = _distances(*outlines), _distances(*outlines[::-1])
    hausdorff = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hausdorff), float(np.concatenate((there, back)).mean())


def _outline(mask: np.ndarray) -> np.ndarray:
    """Returns the pixels of a mask that have a neighbour outside of it."""
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside


def _distances(outline: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the distance from each pixel of an outline to the nearest of another."""
    height, width = other.shape
    far, number = 2 * (height + width), np.arange(height)[:, None]
    above = np.maximum.accumulate(np.where(other, number, -far), axis=0)
    below = np.minimum.accumulate(np.where(other, number, far + height)[::-1], axis=0)[::-1]
    in_column = np.minimum(number - above, below - number) ** 2
    rows, columns = np.nonzero(outline)
    nearest, aside = in_column[rows, columns], 0
    while (aside := aside + 1) ** 2 < nearest.max():  # farther columns hold nothing nearer
        for column in (np.maximum(columns - aside, 0), np.minimum(columns + aside, width - 1)):
            np.minimum(nearest, in_column[rows, column] + aside**2, out=nearest)
    return np.sqrt(nearest)
