"""Pictures that look alike though their pixels differ: shrunk, compressed, or a frame later."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from nakt_dist.loading.pictures import sample_picture
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.shards.reader import IndexedShards

LARGEST_DISTANCE = 24
"""Of 255 signs, the most in which near duplicates differ. On public images the same radiograph at
320 and 256 pixels differed in 2 at most; radiographs of other patients in 56 at least, other
dermoscopies in 66, photographs in 94. Ultrasound has frames of one scan between 4 and 24."""

_SIDE, _KEPT = 64, 16
_BLOCK = 2048


class Pair(NamedTuple):
    """Two images that look alike.

    Attributes:
        distance: signs in which they differ, 0 to ``LARGEST_DISTANCE``.
        first: number of the one.
        second: number of the other, in the other set.
    """

    distance: int
    first: int
    second: int


def picture_signs(images: IndexedShards) -> np.ndarray:
    """Hashes packed images perceptually.

    The image is made grey and 64 × 64 pixels; of its discrete cosine transform the signs of the
    16 × 16 lowest frequencies but the mean are kept, about their median (Zauner 2010, pHash, of
    more frequencies than there, as radiographs are alike).

    Returns:
        float32 (N, 255) of 1 and -1; zeros for a picture of one value everywhere.

    Raises:
        DatasetError: an image is damaged.
    """
    frequency, place = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None]
    cosines = np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))
    signs = np.zeros((len(images), _KEPT**2 - 1), np.float32)
    with progress_bar("look at pictures", len(images)) as advance:
        for number in range(len(images)):
            small = _small(images, number)
            if np.ptp(small):
                values = (cosines @ small @ cosines.T).ravel()[1:]
                signs[number] = np.where(values > np.median(values), 1, -1)
            advance(1)
    return signs


def near_pairs(first: np.ndarray, second: np.ndarray | None = None) -> Iterator[Pair]:
    """Yields the pairs of pictures that look alike, each once.

    Args:
        first: from ``picture_signs``.
        second: of another dataset; None to compare within ``first``.
    """
    others = first if second is None else second
    for at in range(0, len(first), _BLOCK):
        rows = first[at : at + _BLOCK]
        for start in range(at if second is None else 0, len(others), _BLOCK):
            products = rows @ others[start : start + _BLOCK].T
            distances = (first.shape[1] - products) / 2
            for row, column in np.argwhere(distances <= LARGEST_DISTANCE):
                one, other = int(at + row), int(start + column)
                if second is not None or one < other:
                    yield Pair(int(distances[row, column]), one, other)


def _small(images: IndexedShards, number: int) -> np.ndarray:
    """Returns a picture, float64 (64, 64)."""
    grey = Image.fromarray(sample_picture(images, number)).convert("L")
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
