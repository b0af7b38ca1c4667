"""Closed outlines: the shapes of lesions, nodules, vessels and blobs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nakt_dist.phantoms.fields import Canvas

TABLE_LENGTH = 256
_PLACING_ATTEMPTS = 12


def _directions() -> np.ndarray:
    """Directions at equal steps along a diamond, in radians, float64 (TABLE_LENGTH,).

    A position on the diamond |x| + |y| = 1 stands for the direction from its centre. It
    costs one quotient, where an angle would cost an arc tangent.
    """
    step = np.arange(TABLE_LENGTH) * (4 / TABLE_LENGTH)
    down = 1 - np.abs(step - 2)
    across = 1 - np.abs((step + 1) % 4 - 2)
    return np.arctan2(down, across)


_DIRECTIONS = _directions()


def draw_wobble(generator: Generator, amplitude: float, fewest: int, most: int) -> np.ndarray:
    """Draws how far an outline departs from its ellipse in every direction.

    Args:
        amplitude: typical departure as a fraction of the radius, 0 to about 0.3.
        fewest: waves round the outline of the slowest component, at least 2.
        most: waves of the fastest component.

    Returns:
        Relative radii, float32 (TABLE_LENGTH,), about 1 and at least 0.4.
    """
    waves = np.arange(fewest, most + 1)[:, None]
    phases = generator.uniform(0, 2 * np.pi, waves.shape)
    sizes = generator.standard_normal(waves.shape) * np.sqrt(fewest / waves / len(waves))
    radii = 1 + amplitude * np.sum(sizes * np.cos(waves * _DIRECTIONS + phases), axis=0)
    return np.maximum(radii, 0.4).astype(np.float32)


@dataclass(frozen=True)
class Outline:
    """An ellipse with a wobble, in units of the image height.

    Attributes:
        down: vertical position of the centre.
        across: horizontal position of the centre.
        half_height: vertical half axis.
        half_width: horizontal half axis.
        tilt: rotation in radians.
        wobble: relative radii from `draw_wobble`, or None for a plain ellipse.
    """

    down: float
    across: float
    half_height: float
    half_width: float
    tilt: float = 0.0
    wobble: np.ndarray | None = None

    def level(self, canvas: Canvas) -> np.ndarray:
        """Returns how far out each pixel lies, float32: 0 at the centre, 1 on the outline."""
        down = canvas.down - np.float32(self.down)
        across = canvas.across - np.float32(self.across)
        cosine, sine = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        along = (across * cosine + down * sine) * np.float32(1 / self.half_width)
        beside = (down * cosine - across * sine) * np.float32(1 / self.half_height)
        radius = np.sqrt(along * along + beside * beside)
        if self.wobble is None:
            return radius
        position = beside / (np.abs(along) + np.abs(beside) + np.float32(1e-6))
        position = np.where(along < 0, 2 - position, position) * np.float32(TABLE_LENGTH / 4)
        # a quarter of the positions is negative and counts from the end of the table
        return radius / self.wobble[position.astype(np.int16)]

    def points(self, corners: int, scale: float) -> list[tuple[float, float]]:
        """Returns the outline as (x, y) points in pixels, `scale` pixels per image height."""
        angles = _DIRECTIONS[:: TABLE_LENGTH // corners]
        radii = 1.0 if self.wobble is None else self.wobble[:: TABLE_LENGTH // corners]
        along = radii * np.cos(angles) * self.half_width
        beside = radii * np.sin(angles) * self.half_height
        across = self.across + along * np.cos(self.tilt) - beside * np.sin(self.tilt)
        down = self.down + along * np.sin(self.tilt) + beside * np.cos(self.tilt)
        return list(zip((across * scale).tolist(), (down * scale).tolist(), strict=True))

    def clear_of(self, others: list["Outline"], gap: float = 1.1) -> bool:
        """Returns whether this outline keeps its distance from each of the others."""
        return all(
            (self.down - other.down) ** 2 / (gap * (self.half_height + other.half_height)) ** 2
            + (self.across - other.across) ** 2 / (gap * (self.half_width + other.half_width)) ** 2
            > 1
            for other in others
        )


def place_apart(draw: Callable[[], Outline], wanted: int, gap: float) -> list[Outline]:
    """Draws up to so many outlines that keep a distance, see `Outline.clear_of`."""
    outlines: list[Outline] = []
    for _ in range(_PLACING_ATTEMPTS):
        outline = draw()
        if outline.clear_of(outlines, gap):
            outlines.append(outline)
        if len(outlines) == wanted:
            break
    return outlines
