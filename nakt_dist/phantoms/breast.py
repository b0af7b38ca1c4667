"""Breast ultrasound phantoms: layered tissue with benign, malignant or no lesions."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nakt_dist.phantoms.echoes import behind, boundary, draw_speckle, draw_top_shadow, to_grey
from nakt_dist.phantoms.fields import (
    Canvas,
    Outline,
    draw_wobble,
    keyed_generator,
    place_apart,
    ramp,
    random_canvas,
    ridge,
    smooth_field,
)

CLASSES = ("benign", "malignant", "normal")
CLASS_SHARES = (0.62, 0.27, 0.11)
SEVERAL_LESIONS_SHARE = 0.045


@dataclass(frozen=True)
class BreastPhantom:
    """One breast ultrasound image and its annotation.

    Attributes:
        grey: image, uint8 (height, width).
        finding: one of `CLASSES`.
        masks: one bool (height, width) per lesion; a single empty one if normal.
    """

    grey: np.ndarray
    finding: str
    masks: list[np.ndarray]


def draw_breast(seed: int, index: int, image_size: int) -> BreastPhantom:
    """Draws one breast ultrasound phantom."""
    generator = keyed_generator(seed, "breast_ultrasound", index)
    finding = str(generator.choice(CLASSES, p=CLASS_SHARES))
    canvas = random_canvas(generator, image_size, 0.8, 1.3)
    mottle = smooth_field(generator, canvas, 15, 12)
    echoes, glandular_depth = _draw_tissue(generator, canvas, mottle)
    masks = []
    for outline in _place_lesions(generator, canvas, finding, glandular_depth):
        level = outline.level(canvas)
        add = _add_malignant if finding == "malignant" else _add_benign
        echoes = add(generator, canvas, echoes, (outline, level), mottle)
        masks.append(level < 1)
    for _ in range(int(generator.integers(0, 3))):
        echoes = echoes - draw_top_shadow(generator, canvas)
    echoes = echoes + _speckle(generator, canvas)
    grey = to_grey(echoes, generator.uniform(-8, -1), generator.uniform(50, 58), 1.15)
    return BreastPhantom(grey, finding, masks or [np.zeros(canvas.shape, dtype=bool)])


def _speckle(generator: Generator, canvas: Canvas) -> np.ndarray:
    grain = generator.uniform(0.011, 0.017)
    strength = np.float32(generator.uniform(0.6, 0.95))
    return strength * draw_speckle(generator, canvas, grain, 1.9 * grain)


def _draw_tissue(
    generator: Generator, canvas: Canvas, mottle: np.ndarray
) -> tuple[np.ndarray, tuple[float, float]]:
    """Draws skin, fat, gland, muscle and chest wall; returns decibels and the gland's depths."""
    top, bottom = generator.uniform(0.12, 0.28), generator.uniform(0.66, 0.88)
    skin = generator.uniform(0.03, 0.06)
    under_skin = boundary(generator, canvas, skin, 0.005, 2)
    under_fat = boundary(generator, canvas, top, 0.035, 4)
    under_gland = boundary(generator, canvas, bottom, 0.03, 2)
    under_muscle = boundary(generator, canvas, bottom + generator.uniform(0.12, 0.3), 0.015, 2)

    fat_level, gland_level = generator.uniform(-37, -31), generator.uniform(-26, -20)
    fat = fat_level + 1.5 * mottle + _ligaments(generator, canvas)
    gland = gland_level + 2.5 * mottle + _glandular_bands(generator, canvas)
    gland += _lobules(generator, canvas)
    muscle = generator.uniform(-36, -31) + _striations(generator, canvas)
    wall = generator.uniform(-46, -38) + 2 * mottle

    echoes = -19 + (fat + 19) * ramp(under_skin, 0.012)
    echoes += 12 * ridge(canvas.down, 0.008) + 8 * ridge(under_skin, 0.008)
    for layer, edge, softness in (
        (gland, under_fat, 0.03),
        (muscle, under_gland, 0.025),
        (wall, under_muscle, 0.03),
    ):
        echoes = echoes + (layer - echoes) * ramp(edge, softness)
    echoes += 7 * ridge(under_gland, 0.010) + 10 * ridge(under_muscle, 0.014)
    echoes -= np.float32(generator.uniform(1, 8)) * canvas.down
    return echoes, (top, bottom)


def _ligaments(generator: Generator, canvas: Canvas) -> np.ndarray:
    """Thin bright septa between fat lobules."""
    cells = generator.uniform(4, 7)
    return 9 * ridge(smooth_field(generator, canvas, cells, 0.7 * cells), 0.12)


def _glandular_bands(generator: Generator, canvas: Canvas) -> np.ndarray:
    """Near-horizontal wavy bands of fibroglandular tissue."""
    down, across = generator.uniform(10, 18), generator.uniform(2, 5)
    return 4.5 * smooth_field(generator, canvas, down, across)


def _striations(generator: Generator, canvas: Canvas) -> np.ndarray:
    """Bright fibres along the pectoral muscle."""
    warp = 0.03 * smooth_field(generator, canvas, 3, 3)
    phase = (canvas.down + warp) * np.float32(generator.uniform(16, 29))
    fibres = ridge(phase - np.rint(phase), 0.1)
    return 7 * fibres * np.clip(smooth_field(generator, canvas, 12, 4) + 0.3, 0, 1)


def _lobules(generator: Generator, canvas: Canvas) -> np.ndarray:
    """Fat lobules within the gland: mildly dark ovals with a thin capsule, no lesions."""
    change = np.zeros(canvas.shape, dtype=np.float32)
    for _ in range(int(generator.integers(0, 4))):
        half_height = generator.uniform(0.03, 0.075)
        outline = Outline(
            down=generator.uniform(0.2, 0.85),
            across=generator.uniform(0, canvas.aspect),
            half_height=half_height,
            half_width=half_height * generator.uniform(1.6, 3.2),
            tilt=generator.uniform(-0.35, 0.35),
            wobble=draw_wobble(generator, 0.08, 2, 4),
        )
        level = outline.level(canvas)
        depth = np.float32(generator.uniform(4, 9))
        change += 3 * ridge(level - 1.1, 0.16) - depth * ramp(1 - level, 0.35)
    return change


def _place_lesions(
    generator: Generator, canvas: Canvas, finding: str, depths: tuple[float, float]
) -> list[Outline]:
    """Draws the outlines of the lesions, which do not touch."""
    if finding == "normal":
        return []
    wanted = 1
    if generator.random() < SEVERAL_LESIONS_SHARE:
        wanted = 3 if generator.random() < 0.15 else 2
    draw_outline = _malignant_outline if finding == "malignant" else _benign_outline
    largest = 0.145 if wanted == 1 else 0.07  # several must find room beside each other
    return place_apart(lambda: draw_outline(generator, canvas, depths, largest), wanted, 1.3)


def _benign_outline(
    generator: Generator, canvas: Canvas, depths: tuple[float, float], largest: float
) -> Outline:
    """A smooth oval, wider than tall."""
    half_height = generator.uniform(0.04, largest)
    return Outline(
        down=_lesion_depth(generator, depths, half_height),
        across=generator.uniform(0.2, 0.8) * canvas.aspect,
        half_height=half_height,
        half_width=half_height * generator.uniform(1.25, 2.1),
        tilt=generator.uniform(-0.25, 0.25),
        wobble=draw_wobble(generator, generator.uniform(0.02, 0.08), 2, 5),
    )


def _malignant_outline(
    generator: Generator, canvas: Canvas, depths: tuple[float, float], largest: float
) -> Outline:
    """A lobulated, spiculated outline, taller than wide."""
    half_width = generator.uniform(0.06, 1.2 * largest)
    half_height = half_width * generator.uniform(1.0, 1.45)
    wobble = draw_wobble(generator, generator.uniform(0.12, 0.24), 2, 6)
    spikes = draw_wobble(generator, generator.uniform(0.05, 0.13), 9, 20)
    return Outline(
        down=_lesion_depth(generator, depths, half_height),
        across=generator.uniform(0.2, 0.8) * canvas.aspect,
        half_height=half_height,
        half_width=half_width,
        tilt=generator.uniform(-0.3, 0.3),
        wobble=wobble * spikes,
    )


def _lesion_depth(generator: Generator, depths: tuple[float, float], half_height: float) -> float:
    """Draws a depth at which the lesion lies mostly within the gland."""
    highest = depths[0] + 0.9 * half_height
    return generator.uniform(highest, max(depths[1] - half_height, highest + 0.02))


def _add_benign(
    generator: Generator,
    canvas: Canvas,
    echoes: np.ndarray,
    shape: tuple[Outline, np.ndarray],
    mottle: np.ndarray,
) -> np.ndarray:
    """Puts a cyst or a solid benign lesion into the tissue; returns the new decibels.

    Sound passes it easily, so that what lies behind is brighter.
    """
    outline, level = shape
    is_cyst = generator.random() < 0.25
    interior = -52 if is_cyst else generator.uniform(-42, -32)
    brighter = generator.uniform(6, 9) if is_cyst else generator.uniform(1, 6)
    echoes = echoes + _capsule(canvas, outline, level)
    echoes += np.float32(brighter) * behind(outline, canvas, level)
    return echoes + (interior + 2 * mottle - echoes) * ramp(1 - level, generator.uniform(0.1, 0.4))


def _add_malignant(
    generator: Generator,
    canvas: Canvas,
    echoes: np.ndarray,
    shape: tuple[Outline, np.ndarray],
    mottle: np.ndarray,
) -> np.ndarray:
    """Puts a malignant lesion into the tissue; returns the new decibels.

    It swallows sound, so that it casts a shadow, and its margin fades into a bright halo.
    """
    outline, level = shape
    interior = generator.uniform(-45, -34)
    darker = generator.uniform(4, 14)
    echoes = echoes + 3 * ridge(level - 1.25, 0.25)
    echoes -= np.float32(darker) * behind(outline, canvas, level)
    fade = ramp(1 - level, generator.uniform(0.3, 0.8))
    return echoes + (interior + 3.5 * mottle - echoes) * fade


def _capsule(canvas: Canvas, outline: Outline, level: np.ndarray) -> np.ndarray:
    """A thin rim that is bright where the beam meets it head on, at the top and bottom."""
    facing = np.abs(canvas.down - np.float32(outline.down)) * np.float32(7 / outline.half_height)
    return facing * ridge(level - 1.08, 0.09)
