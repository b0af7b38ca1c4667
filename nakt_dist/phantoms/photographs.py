"""Photograph phantoms: coloured scenes with textured objects, some of them dark blobs."""

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from nakt_dist.phantoms.fields import (
    Canvas,
    Outline,
    draw_wobble,
    keyed_generator,
    ramp,
    random_canvas,
    smooth_field,
    soften,
    waves,
)

CLASS_COUNT = 20
VOID = 255
DARK_BLOB_SHARE = 0.35
_SHAPES = ("blob", "box", "polygon", "oval")


@dataclass(frozen=True)
class PhotographPhantom:
    """One photograph and its annotation.

    Attributes:
        colour: image, uint8 (height, width, 3).
        classes: uint8 (height, width): 0 background, 1 to 20 classes, 255 void border.
        has_dark_blob: whether it shows what a lesion teacher could take for a lesion.
    """

    colour: np.ndarray
    classes: np.ndarray
    has_dark_blob: bool


def draw_photograph(seed: int, index: int, image_size: int) -> PhotographPhantom:
    """Draws one photograph phantom."""
    generator = keyed_generator(seed, "photographs", index)
    aspect = 4 / 3 if generator.random() < 0.7 else 3 / 4
    canvas = random_canvas(generator, image_size, aspect, aspect)
    scene = _draw_background(generator, canvas)
    classes = np.zeros(canvas.shape, dtype=np.uint8)
    for _ in range(int(generator.integers(1, 4))):
        scene = _add_object(generator, canvas, scene, classes)
    has_dark_blob = bool(generator.random() < DARK_BLOB_SHARE)
    if has_dark_blob:
        scene = _add_dark_blob(generator, canvas, scene, classes)
    noise = np.float32(0.015) * generator.standard_normal(canvas.shape, dtype=np.float32)
    colour = np.clip(scene + noise[..., None], 0, 1) * 255 + np.float32(0.5)
    return PhotographPhantom(colour.astype(np.uint8), _with_border(classes), has_dark_blob)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Red, green and blue, float32 (3,), 0 to 1."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _at_least_as_light(colour: np.ndarray, lightness: float) -> np.ndarray:
    """Mixes in white until the grey value reaches `lightness`, so that no lesion is seen."""
    grey = float(colour @ np.array([0.299, 0.587, 0.114], np.float32))
    share = max(0.0, lightness - grey) / (1 - grey + 1e-6)
    return colour + np.float32(share) * (1 - colour)


def _draw_background(generator: Generator, canvas: Canvas) -> np.ndarray:
    """Sky over ground, a wall over a floor, or a bare backdrop, float32 (height, width, 3)."""
    kind, roughness = generator.random(), np.float32(0.08)
    if kind < 0.35:
        upper = _colour(generator.normal(0.57, 0.03), generator.uniform(0.1, 0.6), 0.9)
        lower = _colour(generator.normal(0.25, 0.07), generator.uniform(0.2, 0.5), 0.65)
    elif kind < 0.55:
        upper = _colour(generator.random(), generator.uniform(0, 0.4), generator.uniform(0.5, 0.9))
        lower = _colour(generator.normal(0.08, 0.03), generator.uniform(0.2, 0.5), 0.65)
    else:
        upper = _colour(generator.random(), generator.uniform(0, 0.3), generator.uniform(0.4, 0.8))
        lower, roughness = upper * np.float32(1.08), np.float32(0)
    relief = smooth_field(generator, canvas, 3, 3)
    horizon = np.float32(generator.uniform(0.25, 0.75)) + np.float32(0.03) * relief
    ground = ramp(canvas.down - horizon, 0.03)
    haze = 1 + np.float32(generator.uniform(0, 0.4)) * (canvas.down - 0.5)
    grass = 1 + roughness * ground * smooth_field(generator, canvas, 40, 25) + 0.05 * relief
    scene = upper + ground[..., None] * (lower - upper)
    return scene * (haze * grass)[..., None]


def _add_object(
    generator: Generator, canvas: Canvas, scene: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Draws one object whose class sets its shape, hue and pattern; updates `classes`."""
    class_index = int(generator.integers(1, CLASS_COUNT + 1))
    shape = _SHAPES[class_index % len(_SHAPES)]
    half_height = generator.uniform(0.06, 0.26)
    outline = Outline(
        down=generator.uniform(0.2, 0.9),
        across=generator.uniform(0.05, 0.95) * canvas.aspect,
        half_height=half_height,
        half_width=half_height * generator.uniform(0.7, 1.8),
        tilt=generator.uniform(-0.4, 0.4),
        wobble=draw_wobble(generator, 0.18, 2, 8) if shape in ("blob", "polygon") else None,
    )
    corners = {"box": 4, "polygon": 8}.get(shape, 64)
    hue = class_index / CLASS_COUNT + generator.normal(0, 0.03)
    colour = _colour(hue, generator.uniform(0.25, 0.9), 1.0)
    colour = _at_least_as_light(colour, generator.uniform(0.5, 0.75))
    shade = 1.05 - np.float32(0.15 / half_height) * (canvas.down - np.float32(outline.down))
    stripes = 1 + np.float32(generator.uniform(0, 0.2)) * _pattern(generator, canvas, class_index)
    stripes *= np.clip(shade, 0.85, 1.2)
    inside = _fill(canvas, outline.points(corners, canvas.height))
    classes[inside > 0] = class_index
    return _cover(scene, inside, colour, stripes)


def _pattern(generator: Generator, canvas: Canvas, class_index: int) -> np.ndarray:
    """Stripes in one of two directions or mottle, float32 about -1 to 1."""
    pitch = np.float32(generator.uniform(5, 14))
    if class_index % 3 == 0:
        return np.broadcast_to(waves(canvas.down * pitch), canvas.shape)
    if class_index % 3 == 1:
        return np.broadcast_to(waves(canvas.across * pitch), canvas.shape)
    return smooth_field(generator, canvas, 14, 14)


def _add_dark_blob(
    generator: Generator, canvas: Canvas, scene: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Draws a dark rounded object within a brighter patch; updates `classes`."""
    half_height = generator.uniform(0.07, 0.18)
    outline = Outline(
        down=generator.uniform(0.3, 0.75),
        across=generator.uniform(0.25, 0.75) * canvas.aspect,
        half_height=half_height,
        half_width=half_height * generator.uniform(0.9, 1.9),
        tilt=generator.uniform(-0.4, 0.4),
        wobble=draw_wobble(generator, 0.1, 2, 6),
    )
    patch = np.float32(0.45) * ramp(2.2 - outline.level(canvas), 1.8)
    scene = scene + patch[..., None] * (np.array([0.72, 0.70, 0.66], np.float32) - scene)
    colour = _colour(generator.random(), generator.uniform(0, 0.4), generator.uniform(0.08, 0.25))
    mottle = 1 + 0.2 * smooth_field(generator, canvas, 12, 12)
    class_index = int(generator.integers(1, CLASS_COUNT + 1))
    inside = _fill(canvas, outline.points(64, canvas.height))
    classes[inside > 0] = class_index
    return _cover(scene, inside, colour, mottle)


def _fill(canvas: Canvas, points: list[tuple[float, float]]) -> np.ndarray:
    """Returns uint8 (height, width): 1 within the polygon, 0 elsewhere."""
    layer = Image.new("L", (canvas.width, canvas.height))
    ImageDraw.Draw(layer).polygon(points, fill=1)
    return np.asarray(layer)


def _cover(
    scene: np.ndarray, inside: np.ndarray, colour: np.ndarray, pattern: np.ndarray
) -> np.ndarray:
    """Lays a surface of colour times pattern over the scene, with softened edges."""
    cover = soften(inside.astype(np.float32))[..., None]
    return scene + cover * (pattern[..., None] * colour - scene)


def _with_border(classes: np.ndarray) -> np.ndarray:
    """Marks the pixel on either side of every change of class as void."""
    bordered = classes.copy()
    beside, below = classes[:, 1:] != classes[:, :-1], classes[1:] != classes[:-1]
    bordered[:, 1:][beside] = VOID
    bordered[:, :-1][beside] = VOID
    bordered[1:][below] = VOID
    bordered[:-1][below] = VOID
    return bordered
