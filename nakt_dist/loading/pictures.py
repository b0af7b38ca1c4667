"""Pictures of packed samples, to be shown or compared."""

import numpy as np

from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.shards.reader import IndexedShards


def sample_picture(images: IndexedShards, number: int) -> np.ndarray:
    """Decodes the image of a sample to be shown or compared.

    Returns:
        uint8, height × width (grey) or height × width × 3 (RGB).

    Raises:
        DatasetError: it is damaged.
    """
    try:
        pixels = decode_pixels(images.image_bytes(number))
    except UnusableSample as error:
        raise DatasetError(
            f"{images.describe(number)}: image: {error.detail}. Run nakt verify"
        ) from None
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
