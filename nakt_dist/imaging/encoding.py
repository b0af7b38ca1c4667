"""Encodes arrays to the bytes that go into shards: the same bytes for the same pixels."""

import io
from typing import Literal

import numpy as np
from PIL import Image

from nakt_dist.errors import ConfigurationError

_PNG_COMPRESSION = 6


def encode_image(array: np.ndarray, encoding: Literal["jpg", "png"], jpeg_quality: int) -> bytes:
    """Encodes an image without metadata, colour profile or time.

    The bytes depend on the pixels, the settings and the version of Pillow alone.

    Args:
        array: uint8, height × width or height × width × 3.
        encoding: ``"png"`` (lossless) or ``"jpg"`` (colour at full resolution).
        jpeg_quality: 1 to 100; not used for PNG.

    Raises:
        ConfigurationError: the encoding or the quality is not one of these.
    """
    if encoding == "png":
        return encode_mask_png(array)
    if encoding != "jpg":
        raise ConfigurationError(f"The encoding is {encoding!r}; expected 'jpg' or 'png'")
    if not 1 <= jpeg_quality <= 100:
        raise ConfigurationError(f"The JPEG quality is {jpeg_quality}; expected 1 to 100")
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="JPEG", quality=jpeg_quality, subsampling=0)
    return buffer.getvalue()


def encode_mask_png(array: np.ndarray) -> bytes:
    """Encodes a mask, uint8 of height × width, as an 8-bit grey PNG without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=_PNG_COMPRESSION)
    return buffer.getvalue()
