"""Random numbers and smooth fields from which every phantom is built.

Fields are float32 arrays of shape (height, width). Smooth ones are drawn on a coarse
grid and enlarged, which costs far less than filtering at full size.

Whole fields go through sums, products, quotients, square roots and tables only. These
are exact on every processor, whereas exponentials and sines differ in the last bit, and
one bit is enough to change a file.
"""

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image


def keyed_generator(seed: int, stream: str, index: int) -> np.random.Generator:
    """Returns the random numbers of one image, independent of every other image.

    Args:
        seed: seed of the dataset, 0 to 2**64 - 1.
        stream: what the numbers are for; different names give unrelated numbers.
        index: place of the image in the dataset, 0 to 2**32 - 1.

    Returns:
        A counter-based generator whose numbers depend on the three arguments alone.
    """
    key = np.array([seed, (zlib.crc32(stream.encode()) << 32) | index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


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


def random_canvas(
    generator: np.random.Generator, image_size: int, narrowest: float, widest: float
) -> Canvas:
    """Draws the size of an image around the nominal one.

    Args:
        image_size: side in pixels of the square whose area the image has, within 20 %.
        narrowest: least width over height.
        widest: largest width over height.

    Returns:
        A canvas of the drawn size.
    """
    aspect = generator.uniform(narrowest, widest)
    side = image_size * generator.uniform(0.92, 1.08)
    return Canvas(round(side / aspect**0.5), round(side * aspect**0.5))


def enlarge(coarse: np.ndarray, shape: tuple[int, int], smooth: bool = True) -> np.ndarray:
    """Resizes a float32 (rows, columns) field to `shape`, bicubic or, if not smooth, bilinear."""
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    image = Image.fromarray(coarse)
    return np.asarray(image.resize((shape[1], shape[0]), method))


def smooth_field(
    generator: np.random.Generator, canvas: Canvas, cells_down: float, cells_across: float
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


def smooth_curve(generator: np.random.Generator, canvas: Canvas, bumps: int) -> np.ndarray:
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
