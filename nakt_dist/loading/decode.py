"""From the bytes of a shard to arrays."""

import io

import numpy as np
from PIL import Image

from nakt_dist.errors import UnusableSample

_FORMATS = ("JPEG", "PNG")


def decode_pixels(data: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG.

    Args:
        data: the encoded image.

    Returns:
        uint8 (C, H, W) with C 1 or 3; 16-bit grey is reduced to its upper 8 bits.

    Raises:
        UnusableSample: it does not decode.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.mode not in ("L", "RGB", "I;16"):
                image = image.convert("RGB" if image.mode in ("RGBA", "CMYK", "P") else "L")
            pixels = np.asarray(image)
    except Exception as error:  # decoders raise many kinds; each means that the sample is damaged
        raise UnusableSample("undecodable", f"does not decode: {error}") from None
    if pixels.dtype != np.uint8:
        pixels = (pixels >> 8).astype(np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
