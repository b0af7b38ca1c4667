"""What the two ultrasound phantoms share: speckle, shadows and the grey scale.

Tissue is described by its echo level in decibels below the brightest one. Speckle adds
to it, as the logarithm of a multiplicative Rayleigh noise, and a log-compressed grey
scale ends it, as in a scanner.
"""

import numpy as np
from numpy.random import Generator

from nakt_dist.phantoms.fields import Canvas, Outline, enlarge, ramp, ridge, smooth_curve, soften

_POWER_STEPS = 256  # entries of the table per unit of mean power
# the noise floor of 0.05 fills the darkest gaps
_POWER_DECIBELS = (10 * np.log10(np.arange(12 * _POWER_STEPS) / _POWER_STEPS + 0.05)).astype(
    np.float32
)
_GREY_STEPS = 4096


def draw_speckle(
    generator: Generator, canvas: Canvas, grain_down: float, grain_across: float
) -> np.ndarray:
    """Draws fully developed speckle.

    Args:
        grain_down: height of a grain as a fraction of the image height.
        grain_across: width of a grain in the same unit.

    Returns:
        Decibels, float32 of the canvas' shape: mean about -2, standard deviation about 4.5.
    """
    rows = int(min(canvas.height, round(2 / grain_down)))
    columns = int(min(canvas.width, round(2 * canvas.aspect / grain_across)))
    parts = generator.standard_normal((2, rows, columns), dtype=np.float32)
    real, imaginary = (enlarge(soften(part), canvas.shape) for part in parts)
    power = np.square(real) + np.square(imaginary)
    power *= np.float32(_POWER_STEPS) / np.mean(power)
    return _POWER_DECIBELS[np.minimum(power, len(_POWER_DECIBELS) - 1).astype(np.int16)]


def draw_top_shadow(generator: Generator, canvas: Canvas) -> np.ndarray:
    """Draws the shadow of poor skin contact or of a ligament, decibels >= 0 to subtract.

    It starts near the top and widens slowly: dark, but not a lesion.
    """
    centre = generator.uniform(0, canvas.aspect)
    half_width = generator.uniform(0.03, 0.10)
    slant = generator.uniform(-0.15, 0.15)
    start = generator.uniform(0.05, 0.3)
    axis = canvas.across - np.float32(centre) - np.float32(slant) * canvas.down
    axis = axis / (1 + canvas.down)
    depth = ramp(canvas.down - np.float32(start), 0.25)
    return np.float32(generator.uniform(4, 11)) * depth * ridge(axis, half_width)


def behind(outline: Outline, canvas: Canvas, level: np.ndarray) -> np.ndarray:
    """Returns the region under a structure, float32 0 to 1: where it shadows or enhances.

    `level` is `outline.level(canvas)`.
    """
    beside = (canvas.across - np.float32(outline.across)) * np.float32(1 / outline.half_width)
    column = np.clip(1.4 * (1 - np.square(beside)), 0, 1)
    below = ramp(canvas.down - np.float32(outline.down), outline.half_height)
    return column * below * ramp(level - 1, 0.3)


def boundary(
    generator: Generator, canvas: Canvas, depth: float, waviness: float, bumps: int
) -> np.ndarray:
    """Draws the lower edge of a tissue layer.

    Args:
        depth: mean depth as a fraction of the image height.
        waviness: typical departure from it in the same unit.
        bumps: bumps along a width as long as the image height.

    Returns:
        Signed distance below the edge, float32 of the canvas' shape.
    """
    curve = np.float32(depth) + np.float32(waviness) * smooth_curve(generator, canvas, bumps)
    return canvas.down - curve


def to_grey(decibels: np.ndarray, brightest: float, span: float, contrast: float) -> np.ndarray:
    """Applies the log-compressed grey scale of a scanner.

    Args:
        decibels: echo levels, float32 (height, width).
        brightest: level shown as white.
        span: decibels from black to white.
        contrast: exponent of the grey curve; above 1 darkens the middle.

    Returns:
        Grey levels, uint8 (height, width).
    """
    curve = np.linspace(0, 1, _GREY_STEPS) ** contrast
    table = (255 * curve + 0.5).astype(np.uint8)
    scale = np.float32((_GREY_STEPS - 1) / span)
    steps = (decibels - np.float32(brightest - span)) * scale
    return table[np.clip(steps, 0, _GREY_STEPS - 1).astype(np.int16)]
