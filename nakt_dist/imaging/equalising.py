"""Histogram equalisation, as OpenCV's ``equalizeHist`` does it."""

import numpy as np


def equalise(grey: np.ndarray) -> np.ndarray:
    """Spreads the levels of a picture so that each is about as frequent as any other.

    The darkest level becomes 0; any other becomes 255 × the share of the pixels up to it,
    those of the darkest level counted nowhere. A constant picture stays as it is.

    Args:
        grey: uint8, height × width.

    Returns:
        uint8 of the same shape.
    """
    counts = np.bincount(grey.reshape(-1), minlength=256)
    darkest = int(np.flatnonzero(counts)[0])
    others = grey.size - counts[darkest]
    if others == 0:
        return grey
    counts[: darkest + 1] = 0
    # single precision and rounding to even, so that not one level differs from OpenCV's
    scale = np.float32(255) / np.float32(others)
    levels = np.rint(np.cumsum(counts).astype(np.float32) * scale)
    return levels.clip(0, 255).astype(np.uint8)[grey]
