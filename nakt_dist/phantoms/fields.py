"""Random numbers, smooth fields and closed outlines from which every phantom is built.

Fields are float32 arrays of shape (height, width). Smooth ones are drawn on a coarse
grid and enlarged, which costs far less than filtering at full size.

Whole fields go through sums, products, quotients, square roots and tables only. These
are exact on every processor, whereas exponentials and sines differ in the last bit, and
one bit is enough to change a file.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator
from PIL import Image

TABLE_LENGTH = 256
_PLACING_ATTEMPTS = 12


def keyed_generator(seed: int, stream: str, index: int) -> Generator:
    """Returns the random numbers of one image, independent of every other image.

    Args:
        seed: seed of the dataset, 0 to 2**64 - 1.
        stream: what the numbers are for; different names give unrelated numbers.
        index: place of the image in the dataset, 0 to 2**32 - 1.

    Returns:
        A counter-based generator whose numbers depend on the three arguments alone.
    """
    key = np.array([seed, (zlib.crc32(stream.encode()) << 32) | index], dtype=np.uint64)
    return Generator(np.random.Philox(key=key))


@dataclass(frozen=True)
class Canvas:
    """The pixel grid of one image, in units of the image height.

    Attributes:
        height: rows, in pixels.
        width: columns, in pixels.
    """

    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def aspect(self) -> float:
        """Width over height, which is also the largest value of `across`."""
        return self.width / self.height

    @cached_property
    def down(self) -> np.ndarray:
        """Vertical position of every row, float32 (height, 1), 0 at the top to 1."""
        return ((np.arange(self.height, dtype=np.float32) + 0.5) / self.height)[:, None]

    @cached_property
    def across(self) -> np.ndarray:
        """Horizontal position of every column, float32 (1, width), 0 to `aspect`."""
        return ((np.arange(self.width, dtype=np.float32) + 0.5) / self.height)[None, :]


def random_canvas(generator: Generator, image_size: int, narrowest: float, widest: float) -> Canvas:
    """Draws the size of an image around the nominal one.

    Args:
        image_size: side in pixels of the square whose area the image has, within 20 %.
        narrowest: least width over height.
        widest: largest width over height.
    """
    aspect = generator.uniform(narrowest, widest)
    side = image_size * generator.uniform(0.92, 1.08)
    return Canvas(round(side / aspect**0.5), round(side * aspect**0.5))


def enlarge(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resizes a float32 (rows, columns) field to `shape`, bicubic."""
    image = Image.fromarray(coarse)
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def smooth_field(
    generator: Generator, canvas: Canvas, cells_down: float, cells_across: float
) -> np.ndarray:
    """Draws smooth noise.

    Args:
        cells_down: bumps along the image height.
        cells_across: bumps along a width as long as the image height.

    Returns:
        Float32 of the canvas' shape, mean 0, standard deviation of about 0.8.
    """
    rows = int(np.clip(round(cells_down), 2, canvas.height))
    columns = int(np.clip(round(cells_across * canvas.aspect), 2, canvas.width))
    coarse = generator.standard_normal((rows, columns), dtype=np.float32)
    return enlarge(coarse, canvas.shape)


def smooth_curve(generator: Generator, canvas: Canvas, bumps: int) -> np.ndarray:
    """Draws a smooth curve across the image, float32 (1, width), with `bumps` per height."""
    columns = max(3, round(bumps * canvas.aspect) + 1)
    coarse = generator.standard_normal((1, columns), dtype=np.float32)
    return enlarge(coarse, (1, canvas.width))


def soften(field: np.ndarray) -> np.ndarray:
    """Averages each value of a (height, width) field with its neighbours, weights 1-2-1."""
    padded = np.pad(field, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) * np.float32(1 / 16)


def ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """Returns 0 where `distance` is below -width/2, 1 above width/2, linear between."""
    return np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)


def ridge(distance: np.ndarray, width: float) -> np.ndarray:
    """Returns a smooth line where `distance` crosses 0: 1 on it, 0 beyond 1.8 widths."""
    return np.square(np.maximum(1 - np.square(distance * np.float32(1 / (1.8 * width))), 0))


def waves(phase: np.ndarray) -> np.ndarray:
    """Returns a smooth wave of period 1, from -1 at whole phases to 1 halfway between."""
    return 8 * np.square(phase - np.rint(phase)) - 1


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
