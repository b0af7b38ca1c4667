"""Where the chest lies on a film: coordinates that every part of a phantom is drawn in.

Lengths are in lung heights: 1 from the apex of the lungs to the dome of the right
hemidiaphragm at a usual breath.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from nakt_dist.phantoms.fields import Canvas, ramp, smooth_field

_PEN_SCALE = 2  # lines are drawn larger and reduced, so that they are smooth


@dataclass(frozen=True)
class Frame(Canvas):
    """A film and the place of the chest on it.

    `down` is 0 at the apex of the lungs and about 1 at the diaphragm. `across` is 0 in the
    midline of a frontal film, positive on the patient's left, which is on the right of the
    film; on a lateral film it is 0 halfway between front and back, positive to the back.

    Attributes:
        lung_height: length of the lungs as a fraction of the image height.
        apex: vertical position of the apex, in image heights.
        middle: horizontal position of the midline, in image heights.
        tilt: rotation of the chest on the film, in radians.
    """

    lung_height: float = 0.65
    apex: float = 0.15
    middle: float = 0.5
    tilt: float = 0.0

    @cached_property
    def _rows(self) -> np.ndarray:
        rows = Canvas(self.height, self.width).down
        return (rows - np.float32(self.apex)) / np.float32(self.lung_height)

    @cached_property
    def _columns(self) -> np.ndarray:
        columns = Canvas(self.height, self.width).across
        return (columns - np.float32(self.middle)) / np.float32(self.lung_height)

    @cached_property
    def down(self) -> np.ndarray:
        """Distance below the apex of every pixel, float32 (height, width), lung heights."""
        sine, cosine = np.float32(np.sin(self.tilt)), np.float32(np.cos(self.tilt))
        return self._rows * cosine - self._columns * sine

    @cached_property
    def across(self) -> np.ndarray:
        """Distance from the midline of every pixel, float32 (height, width), lung heights."""
        sine, cosine = np.float32(np.sin(self.tilt)), np.float32(np.cos(self.tilt))
        return self._columns * cosine + self._rows * sine

    @property
    def pixel(self) -> float:
        """Side of a pixel in lung heights."""
        return 1 / (self.height * self.lung_height)

    def edge(self, width: float) -> float:
        """Returns the width of a soft edge, at least one pixel and a half."""
        return max(width, 1.5 * self.pixel)

    def noise(self, generator: Generator, bumps: float) -> np.ndarray:
        """Returns smooth noise with `bumps` per lung height, see `smooth_field`."""
        cells = bumps / self.lung_height
        return smooth_field(generator, self, cells, cells)

    def points(self, path: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Returns (across, down) points as (x, y) in pixels."""
        across, down = np.array(path, dtype=np.float64).T
        sine, cosine = np.sin(self.tilt), np.cos(self.tilt)
        columns = self.middle + self.lung_height * (across * cosine - down * sine)
        rows = self.apex + self.lung_height * (down * cosine + across * sine)
        scale = self.height
        return list(zip((columns * scale).tolist(), (rows * scale).tolist(), strict=True))

    def pen(self) -> "Pen":
        """Returns an empty layer to draw lines and shapes on."""
        return Pen(self)


class Pen:
    """A layer of smooth lines and shapes on a frame."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._layer = Image.new("L", (_PEN_SCALE * frame.width, _PEN_SCALE * frame.height))
        self._draw = ImageDraw.Draw(self._layer)

    def line(self, path: Sequence[tuple[float, float]], width: float, strength: float) -> None:
        """Draws a line through (across, down) points; `strength` 0 to 1 replaces what is there."""
        pixels = max(1, round(_PEN_SCALE * width / self._frame.pixel))
        self._draw.line(self._scaled(path), round(255 * strength), pixels, joint="curve")

    def polygon(self, path: Sequence[tuple[float, float]], strength: float) -> None:
        """Fills the polygon of (across, down) points."""
        self._draw.polygon(self._scaled(path), fill=round(255 * strength))

    def field(self) -> np.ndarray:
        """Returns what was drawn, float32 (height, width), 0 to 1."""
        return np.asarray(self._layer.reduce(_PEN_SCALE), dtype=np.float32) * np.float32(1 / 255)

    def _scaled(self, path: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * _PEN_SCALE, y * _PEN_SCALE) for x, y in self._frame.points(path)]


@dataclass(frozen=True)
class Lungs:
    """The lungs on one film, as the signs within them need to know them.

    Every field is float32 (height, width).

    Attributes:
        air: 1 within the lungs, 0 outside, soft at the edges.
        wall: distance inwards from the chest wall.
        base: distance above the diaphragm.
        from_hilum: distances from the nearer hilum, sideways and downwards.
        lateral: 0 at the medial edge of the lung to 1 at its lateral edge; on a lateral film
            0 at the front to 1 at the back.
        is_frontal: whether the film is a frontal one, on which both sides are told apart.
    """

    frame: Frame
    air: np.ndarray
    wall: np.ndarray
    base: np.ndarray
    from_hilum: tuple[np.ndarray, np.ndarray]
    lateral: np.ndarray
    is_frontal: bool

    @cached_property
    def hilum(self) -> np.ndarray:
        """Distance from the nearer hilum."""
        aside, below = self.from_hilum
        return np.sqrt(aside * aside + below * below)

    def on_side(self, side: int) -> np.ndarray:
        """Returns 1 on the given side of a frontal film, -1 the patient's right, else 0."""
        if not self.is_frontal:
            return np.ones((1, 1), dtype=np.float32)
        return ramp(np.float32(side) * self.frame.across, 0.02)
