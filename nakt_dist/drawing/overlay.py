"""One image with the outlines of its mask, at its own size; made only where it is asked for."""

import numpy as np
from PIL import Image, ImageFilter

_PIXELS_A_LINE = 300
"""Of the longer side: an outline stays visible when the whole image is looked at."""


def outlined(image: np.ndarray, classes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Draws the outline of each class inside of it.

    Args:
        image: uint8 (H, W) or (H, W, 3).
        classes: uint8 (H, W), 0 where nothing is.
        colours: uint8 (K, 3), of each class.

    Returns:
        uint8 (H, W, 3).
    """
    shown = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image.copy()
    width = max(1, round(max(classes.shape) / _PIXELS_A_LINE))
    # a frame of background closes outlines that touch the image's edge
    framed = least = most = Image.fromarray(np.pad(classes, width))
    for _ in range(width):
        least, most = least.filter(ImageFilter.MinFilter(3)), most.filter(ImageFilter.MaxFilter(3))
    numbers = np.asarray(framed)
    edge = (numbers > 0) & ((np.asarray(least) != numbers) | (np.asarray(most) != numbers))
    edge = edge[width:-width, width:-width]
    shown[edge] = colours[classes[edge]]
    return shown
