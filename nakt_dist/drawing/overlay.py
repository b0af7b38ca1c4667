"""One image with the outlines of its mask, at its own size; made only where it is asked for."""

import numpy as np

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
    framed = np.pad(classes, width)
    least, most = _within(np.minimum, framed, width), _within(np.maximum, framed, width)
    edge = (classes > 0) & ((least != classes) | (most != classes))
    shown[edge] = colours[classes[edge]]
    return shown


def _within(extreme: np.ufunc, framed: np.ndarray, width: int) -> np.ndarray:
    """Returns the least or largest value in the square ``width`` around each pixel but the frame's.

    Windows are doubled, so that a long image with its broad lines takes no longer than others.
    """
    for _ in ("rows", "columns"):
        size = 1
        while size <= 2 * width:
            step = min(size, 2 * width + 1 - size)
            framed = extreme(framed[:-step], framed[step:])
            size += step
        framed = framed.T
    return framed
