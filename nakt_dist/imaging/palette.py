"""The colours of classes, in masks of indices and on overlays."""

import numpy as np

_FIRST = (
    (0, 0, 0), (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (213, 94, 0),
    (204, 121, 167), (0, 114, 178),
)  # fmt: skip
"""Okabe and Ito's, told apart with every common colour blindness; the background is black."""
_MOST = 256


def class_palette() -> np.ndarray:
    """Returns red, green and blue of each class index, uint8 (256, 3), no two alike.

    Behind the first eight come the colours of PASCAL VOC.
    """
    index = np.arange(_MOST)
    colours = np.zeros((_MOST, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    colours[: len(_FIRST)] = _FIRST
    return colours
