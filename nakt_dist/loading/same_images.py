"""Which images two choices of samples share, whatever datasets they come from."""

import numpy as np
from PIL import Image

from nakt_dist.errors import UnusableSample
from nakt_dist.loading.decode import decode_pixels
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.shards.reader import IndexedShards

_LOOKED_AT = 64
"""Most pairs that are decoded; of more, these stand for all."""
_SIDE = 16
_LARGEST_DIFFERENCE = 4.0
"""Mean difference in levels of two renderings of one picture, shrunk to ``_SIDE``: on published
images other sizes and JPEG made 2.1 at most, another image of the same dataset 11 at least."""


def images_in_both(first: SelectedSamples, second: SelectedSamples) -> list[str]:
    """Names the images of one choice that are in another as well, whatever they are called there.

    In one packing they are known by their keys. In two they are by the bytes that were packed, or,
    where these were brought to another form, by the name and facts of the published file, and a
    look at the pictures: many datasets count their files from 1.

    Args:
        first: such as the training samples.
        second: such as the validation samples.

    Returns:
        The keys in ``second``, in its order.
    """
    here, there = first.images, second.images
    if here.manifest.fingerprint == there.manifest.fingerprint:
        met = set(here.keys)
        return [key for key in there.keys if key in met]
    met = set(_contents(here))
    found = {row for row, each in enumerate(_contents(there)) if each in met}
    row_of = {file: row for row, file in enumerate(_files(here))}
    pairs = [
        (row_of[file], row)
        for row, file in enumerate(_files(there))
        if row not in found and file in row_of
    ]
    if _look_alike(here, there, pairs):
        found |= {row for _, row in pairs}
    return [key for row, key in enumerate(there.keys) if row in found]


def _contents(images: IndexedShards) -> list[tuple[int, int]]:
    """What tells images of any two packings apart: checksum and size of the packed bytes."""
    return _rows(images, "image_crc32", "image_size")


def _files(images: IndexedShards) -> list[tuple[str, str, int]]:
    """What tells published files apart: name, and the facts that are stored beside the image."""
    return _rows(images, "key", "source", "json_crc32")


def _rows(images: IndexedShards, *columns: str) -> list[tuple]:
    return list(zip(*(images.index[name].to_pylist() for name in columns), strict=True))


def _look_alike(first: IndexedShards, second: IndexedShards, pairs: list[tuple[int, int]]) -> bool:
    """Says whether most of these pairs of numbers show the same picture."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _LOOKED_AT)).astype(int))
    alike = 0
    for each in chosen:
        try:
            small = [
                _small(images, row)
                for images, row in zip((first, second), pairs[each], strict=True)
            ]
        except UnusableSample:
            continue  # found when it is read to be learnt from
        alike += np.abs(small[0] - small[1]).mean() <= _LARGEST_DIFFERENCE
    return 2 * alike > len(chosen)


def _small(images: IndexedShards, number: int) -> np.ndarray:
    """Returns a sample's picture, float64 (16, 16) in levels."""
    pixels = decode_pixels(images.image_bytes(number))
    grey = Image.fromarray(pixels.mean(0).round().astype(np.uint8))
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float64)
