"""The three hospitals: how each turns what weakens the beam into a film, grain and text."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from nakt_dist.phantoms.chest.patients import Habits
from nakt_dist.phantoms.fields import Canvas, ramp, smooth_field, soften

Corner = Literal["top left", "top right", "bottom left", "bottom right"]
_GREY_STEPS = 1024
_LETTERS: dict[str, list[list[tuple[float, float]]]] = {
    "A": [[(0, 1), (0.5, 0), (1, 1)], [(0.2, 0.6), (0.8, 0.6)]],
    "L": [[(0, 0), (0, 1), (1, 1)]],
    "P": [[(0, 1), (0, 0), (1, 0), (1, 0.5), (0, 0.5)]],
    "R": [[(0, 1), (0, 0), (1, 0), (1, 0.5), (0, 0.5), (1, 1)]],
}


@dataclass(frozen=True)
class Hospital:
    """One hospital; ranges are (least, most).

    Attributes:
        name: kind of phantom, which also keys its random numbers.
        aspects: widths over heights of its films, drawn with equal chances.
        lung_height: length of the lungs on the film, as a fraction of its height.
        drift: how far the chest lies off the middle, in image heights.
        tilt: largest rotation of the chest on the film, in radians.
        contrast: exponent of the grey curve; above 1 darkens the middle.
        equalised: share of histogram equalisation in the grey curve, 0 to 1.
        blackest: grey level of unhindered rays, 0 to 1.
        whitest: grey level of the densest parts, 0 to 1.
        grain: standard deviation of the noise.
        blur: how many times the film is softened.
        collimated: share of films with black margins.
        marker: where the letter of the side is burned in.
        word: where films taken in bed say so.
        graphic: how they say so: letters in a box, letters over an arrow, or an arrow alone.
    """

    name: str
    habits: Habits
    aspects: tuple[float, ...]
    lung_height: tuple[float, float]
    drift: float
    tilt: float
    contrast: tuple[float, float]
    equalised: tuple[float, float]
    blackest: tuple[float, float]
    whitest: tuple[float, float]
    grain: tuple[float, float]
    blur: int
    collimated: float
    marker: Corner
    word: Corner
    graphic: Literal["box", "letters and arrow", "arrow"]


_HOSPITALS = (
    Hospital(
        name="chest_chexpert",
        habits=Habits(with_lateral=0.28, two_frontal=0.12, only_lateral=0.03, portable=0.72),
        aspects=(1.2, 1.2, 0.83), lung_height=(0.58, 0.70), drift=0.05, tilt=0.07,
        contrast=(1.25, 1.75), equalised=(0.0, 0.1), blackest=(0.0, 0.03),
        whitest=(0.80, 0.95), grain=(0.018, 0.035),
        blur=1, collimated=0.6, marker="top left", word="top right", graphic="box",
    ),
    Hospital(
        name="chest_mimic",
        habits=Habits(with_lateral=0.45, two_frontal=0.12, only_lateral=0.04, portable=0.6),
        aspects=(0.83, 1.2, 0.83), lung_height=(0.60, 0.74), drift=0.035, tilt=0.045,
        contrast=(0.95, 1.2), equalised=(0.55, 0.8), blackest=(0.0, 0.02),
        whitest=(0.97, 1.0), grain=(0.008, 0.018),
        blur=0, collimated=0.25, marker="top right",
        word="bottom left", graphic="letters and arrow",
    ),
    Hospital(
        name="chest_chestxray14",
        habits=Habits(with_lateral=0.0, two_frontal=0.0, only_lateral=0.0, portable=0.4),
        aspects=(1.0,), lung_height=(0.62, 0.76), drift=0.03, tilt=0.04,
        contrast=(0.7, 0.95), equalised=(0.0, 0.2), blackest=(0.02, 0.10),
        whitest=(0.88, 1.0), grain=(0.012, 0.03),
        blur=1, collimated=0.35, marker="bottom right", word="top left", graphic="arrow",
    ),
)  # fmt: skip

HOSPITALS: Mapping[str, Hospital] = MappingProxyType(
    {hospital.name: hospital for hospital in _HOSPITALS}
)


def develop(
    generator: Generator,
    hospital: Hospital,
    canvas: Canvas,
    weakening: np.ndarray,
    is_portable: bool,
) -> np.ndarray:
    """Turns what weakens the beam into grey levels.

    Args:
        weakening: float32 (height, width), 0 outside the body to about 1.
        is_portable: whether to burn in that the film was taken in bed.

    Returns:
        Grey levels, uint8 (height, width), white where the beam is weakened most.
    """
    uneven = 1 + np.float32(generator.uniform(0.0, 0.06)) * smooth_field(generator, canvas, 2, 2)
    film = weakening * uneven
    film += np.float32(generator.uniform(-0.12, 0.12)) * (_down(canvas) - np.float32(0.5))
    for _ in range(hospital.blur):
        film = soften(film)
    grain = np.float32(generator.uniform(*hospital.grain))
    film = film + grain * generator.standard_normal(canvas.shape, dtype=np.float32)
    grey = _tone(generator, hospital, film)
    grey *= _opening(generator, hospital, canvas)
    marks = _marks(generator, hospital, canvas, is_portable)
    grey = np.maximum(grey, marks)
    return (np.clip(grey, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _down(canvas: Canvas) -> np.ndarray:
    """Returns the vertical position of every row on the film, float32 (height, 1), 0 to 1."""
    rows = np.arange(canvas.height, dtype=np.float32) + np.float32(0.5)
    return (rows * np.float32(1 / canvas.height))[:, None]


def _across(canvas: Canvas) -> np.ndarray:
    """Returns the horizontal position of every column, float32 (1, width), 0 to 1."""
    columns = np.arange(canvas.width, dtype=np.float32) + np.float32(0.5)
    return (columns * np.float32(1 / canvas.width))[None, :]


def _tone(generator: Generator, hospital: Hospital, film: np.ndarray) -> np.ndarray:
    """Applies the grey curve by a table: an exponent mixed with histogram equalisation."""
    steps = np.clip(film * np.float32(_GREY_STEPS / 1.15), 0, _GREY_STEPS - 1).astype(np.int16)
    curve = np.linspace(0, 1, _GREY_STEPS) ** generator.uniform(*hospital.contrast)
    counts = np.bincount(steps.ravel(), minlength=_GREY_STEPS)
    counts[: _GREY_STEPS // 50] = 0  # air around the body has no say in the equalisation
    share = generator.uniform(*hospital.equalised)
    ranks = np.cumsum(counts) / max(1, int(counts.sum()))
    curve = (1 - share) * curve + share * ranks
    black, white = generator.uniform(*hospital.blackest), generator.uniform(*hospital.whitest)
    return (black + (white - black) * curve).astype(np.float32)[steps]


def _opening(generator: Generator, hospital: Hospital, canvas: Canvas) -> np.ndarray:
    """Returns where rays reach the film, float32, 0 in collimated margins, else 1."""
    margins = generator.uniform(0.0, 0.09, 4) * (generator.random(4) < 0.6)
    if generator.random() >= hospital.collimated:
        return np.ones((1, 1), dtype=np.float32)
    top, bottom, left, right = (np.float32(margin) for margin in margins)
    down, across = _down(canvas), _across(canvas)
    rows = np.minimum(down - top, 1 - bottom - down)
    columns = np.minimum(across - left, 1 - right - across)
    return ramp(rows + np.float32(0.005), 0.012) * ramp(columns + np.float32(0.005), 0.012)


def _marks(
    generator: Generator, hospital: Hospital, canvas: Canvas, is_portable: bool
) -> np.ndarray:
    """Burns the letter of the side in, and where it was taken in bed, float32, 0 to 1."""
    layer = Image.new("L", (2 * canvas.width, 2 * canvas.height))
    pen = ImageDraw.Draw(layer)
    size = 2 * canvas.height * generator.uniform(0.035, 0.05)
    letter = "R" if hospital.marker.endswith("left") else "L"  # as the film is looked at
    _write(pen, letter, *_corner(generator, hospital.marker, layer, size), size)
    left, top = _corner(generator, hospital.word, layer, 2 * size)
    if is_portable:
        size *= 0.8
        width = max(1, round(size / 6))
        if hospital.graphic != "arrow":
            _write(pen, "AP", left, top, size)
        if hospital.graphic == "box":
            box = [left - 0.4 * size, top - 0.4 * size, left + 2.2 * size, top + 1.4 * size]
            pen.rectangle(box, outline=200, width=width)
        else:
            middle, low = left + 0.9 * size, top + 1.3 * size
            pen.line([(middle, low + 1.2 * size), (middle, low)], 235, width)
            for aside in (-0.4, 0.4):
                pen.line([(middle + aside * size, low + 0.5 * size), (middle, low)], 235, width)
    return np.asarray(layer.reduce(2), dtype=np.float32) * np.float32(1 / 255)


def _corner(
    generator: Generator, corner: str, layer: Image.Image, size: float
) -> tuple[float, float]:
    """Returns the left upper corner of something `size` large in a corner, in pixels."""
    left = layer.width * generator.uniform(0.04, 0.1)
    top = layer.height * generator.uniform(0.03, 0.08)
    if corner.endswith("right"):
        left = layer.width - left - size
    if corner.startswith("bottom"):
        top = layer.height - top - 1.5 * size
    return left, top


def _write(pen: ImageDraw.ImageDraw, text: str, left: float, top: float, size: float) -> None:
    """Draws letters `size` pixels high."""
    for place, letter in enumerate(text):
        corner = left + size * place
        for stroke in _LETTERS[letter]:
            path = [(corner + 0.6 * size * x, top + size * y) for x, y in stroke]
            pen.line(path, 235, max(1, round(size / 5)))
