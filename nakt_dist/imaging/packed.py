"""From the bytes of a shard to arrays."""

import io

import numpy as np
from PIL import Image

from nakt_dist.errors import UnusableSample
from nakt_dist.limits import MOST_PIXELS

_FORMATS = ("JPEG", "PNG")


def decode_pixels(data: bytes, expected: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes a JPEG or PNG.

    Args:
        data: the encoded image.
        expected: (height, width) that its header must state; None for any size up to 100
            million pixels. A few bytes can announce an image that fills the memory, so this
            is compared before anything is decoded.

    Returns:
        uint8 (C, H, W) with C 1 or 3; 16-bit grey is reduced to its upper 8 bits.

    Raises:
        UnusableSample: it does not decode, or has another size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image.height, image.width, expected)
            mode = image.mode
            if mode not in ("L", "RGB", "I;16"):
                mode = "RGB" if mode in ("RGBA", "CMYK", "P") else "L"
            pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    except UnusableSample:
        raise
    except Exception as error:  # decoders raise many kinds; each means that the sample is damaged
        raise UnusableSample("undecodable", f"does not decode: {error}") from None
    if pixels.dtype != np.uint8:
        pixels = (pixels >> 8).astype(np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_size(height: int, width: int, expected: tuple[int, int] | None) -> None:
    if expected is not None and (height, width) != tuple(expected):
        raise UnusableSample(
            "wrong_size", f"has {height}×{width} pixels, expected {expected[0]}×{expected[1]}"
        )
    if expected is None and height * width > MOST_PIXELS:
        raise UnusableSample(
            "wrong_size",
            f"has {height}×{width} pixels, expected at most {MOST_PIXELS:,} in all",
        )
