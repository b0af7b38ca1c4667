"""Thyroid ultrasound phantoms: one or two gland lobes, vessels, trachea and nodules."""

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

WITHOUT_NODULE_SHARE = 0.15
SEVERAL_NODULES_SHARE = 0.12
TRANSVERSE_SHARE = 0.4


@dataclass(frozen=True)
class ThyroidPhantom:
    """One thyroid ultrasound image and its annotation.

    Attributes:
        grey: image, uint8 (height, width).
        mask: all nodules united, bool (height, width); empty in about 15 % of images.
    """

    grey: np.ndarray
    mask: np.ndarray


def draw_thyroid(seed: int, index: int, image_size: int) -> ThyroidPhantom:
    """Draws one thyroid ultrasound phantom."""
    generator = keyed_generator(seed, "thyroid_ultrasound", index)
    canvas = random_canvas(generator, image_size, 1.0, 1.4)
    mottle = smooth_field(generator, canvas, 12, 10)
    echoes = _draw_neck(generator, canvas, mottle)
    transverse = generator.random() < TRANSVERSE_SHARE
    lobes = _transverse_lobes(generator, canvas) if transverse else [_long_lobe(generator, canvas)]
    gland_level = generator.uniform(-22, -16)
    gland = gland_level + 1.8 * mottle
    for lobe in lobes:
        level = lobe.level(canvas)
        echoes += 5 * ridge(level - 1.04, 0.05)
        echoes += (gland - echoes) * ramp(1 - level, 0.2)
    if transverse:
        echoes = _add_trachea(generator, canvas, echoes, under=lobes[0])
        for side in (-1, 1):
            echoes = _add_carotid(generator, canvas, echoes, side)
    mask = np.zeros(canvas.shape, dtype=bool)
    for outline in _place_nodules(generator, lobes):
        echoes, inside = _add_nodule(generator, canvas, echoes, outline, gland_level)
        mask |= inside
    if generator.random() < 0.4:
        echoes = echoes - draw_top_shadow(generator, canvas)
    grain = generator.uniform(0.016, 0.026)
    strength = np.float32(generator.uniform(0.5, 0.9))
    echoes = echoes + strength * draw_speckle(generator, canvas, grain, 1.4 * grain)
    grey = to_grey(echoes, generator.uniform(-8, -2), generator.uniform(46, 54), 1.5)
    return ThyroidPhantom(grey, mask)


def _draw_neck(generator: Generator, canvas: Canvas, mottle: np.ndarray) -> np.ndarray:
    """Draws skin, fat, strap muscles and the deep muscles, decibels without any gland."""
    under_skin = boundary(generator, canvas, generator.uniform(0.03, 0.06), 0.004, 2)
    under_fat = boundary(generator, canvas, generator.uniform(0.09, 0.15), 0.012, 3)
    under_straps = boundary(generator, canvas, generator.uniform(0.2, 0.3), 0.02, 2)
    fibres = ridge(smooth_field(generator, canvas, 16, 3), 0.2)
    straps = generator.uniform(-40, -34) + 7 * fibres
    deep = generator.uniform(-36, -29) + 6 * fibres + 3 * mottle
    echoes = -18 + (2 * mottle - 10) * ramp(under_skin, 0.015)
    echoes = echoes + (straps - echoes) * ramp(under_fat, 0.02)
    echoes = echoes + (deep - echoes) * ramp(under_straps, 0.04)
    echoes += 10 * ridge(under_fat, 0.009) + 5 * ridge(under_straps, 0.012)
    return echoes - np.float32(generator.uniform(2, 9)) * canvas.down


def _transverse_lobes(generator: Generator, canvas: Canvas) -> list[Outline]:
    """Two lobes beside the trachea and the isthmus that joins them over it."""
    middle = canvas.aspect * generator.uniform(0.42, 0.58)
    down = generator.uniform(0.42, 0.52)
    apart = canvas.aspect * generator.uniform(0.2, 0.26)
    lobes = [
        Outline(
            down=down + generator.uniform(-0.02, 0.02),
            across=middle + side * apart,
            half_height=generator.uniform(0.17, 0.24),
            half_width=canvas.aspect * generator.uniform(0.15, 0.2),
            tilt=-side * generator.uniform(0.0, 0.3),
            wobble=draw_wobble(generator, 0.06, 2, 4),
        )
        for side in (-1, 1)
    ]
    isthmus = Outline(down - 0.1, middle, generator.uniform(0.045, 0.065), apart)
    return [isthmus, *lobes]


def _long_lobe(generator: Generator, canvas: Canvas) -> Outline:
    """One lobe cut lengthwise, which fills most of the width."""
    return Outline(
        down=generator.uniform(0.44, 0.54),
        across=canvas.aspect * generator.uniform(0.42, 0.58),
        half_height=generator.uniform(0.18, 0.26),
        half_width=canvas.aspect * generator.uniform(0.4, 0.56),
        tilt=generator.uniform(-0.08, 0.08),
        wobble=draw_wobble(generator, 0.06, 2, 4),
    )


def _add_trachea(
    generator: Generator, canvas: Canvas, echoes: np.ndarray, under: Outline
) -> np.ndarray:
    """A bright arc of cartilage under the isthmus and the shadow of the air behind it."""
    half_height = generator.uniform(0.1, 0.15)
    outline = Outline(
        down=under.down + under.half_height + 0.92 * half_height,
        across=under.across,
        half_height=half_height,
        half_width=generator.uniform(0.12, 0.16),
        wobble=draw_wobble(generator, 0.04, 2, 4),
    )
    level = outline.level(canvas)
    upper = ramp(outline.down - canvas.down, 0.1)
    phase = level * np.float32(generator.uniform(4, 7))
    echoed = 10 * ridge(phase - np.rint(phase), 0.1) * upper
    shadow = np.maximum(behind(outline, canvas, level), ramp(1 - level, 0.25))
    darkness = np.float32(generator.uniform(0.45, 0.85))
    echoes = echoes + (echoed - 52 - echoes) * darkness * shadow
    return echoes + 16 * upper * ridge(level - 1, 0.1)


def _add_carotid(generator: Generator, canvas: Canvas, echoes: np.ndarray, side: int) -> np.ndarray:
    """A round dark artery with a bright wall, often out of view: dark, but no nodule."""
    if generator.random() < 0.3:
        return echoes
    radius = generator.uniform(0.05, 0.085)
    outline = Outline(
        down=generator.uniform(0.5, 0.66),
        across=canvas.aspect * (0.5 + side * generator.uniform(0.4, 0.47)),
        half_height=radius,
        half_width=radius * generator.uniform(1.0, 1.2),
    )
    level = outline.level(canvas)
    echoes = echoes + 9 * ridge(level - 1.12, 0.12) + 3 * behind(outline, canvas, level)
    return echoes + (-54 - echoes) * ramp(1 - level, 0.15)


def _place_nodules(generator: Generator, lobes: list[Outline]) -> list[Outline]:
    """Draws the outlines of the nodules, each within the last or last but one lobe."""
    if generator.random() < WITHOUT_NODULE_SHARE:
        return []
    wanted = 2 if generator.random() < SEVERAL_NODULES_SHARE else 1
    return place_apart(lambda: _nodule_outline(generator, lobes), wanted, 1.2)


def _nodule_outline(generator: Generator, lobes: list[Outline]) -> Outline:
    lobe = lobes[int(generator.integers(max(0, len(lobes) - 2), len(lobes)))]
    reach = min(lobe.half_height, lobe.half_width)
    half_height = reach * generator.uniform(0.3, 0.78)
    slack_down = max(0.0, 0.95 * lobe.half_height - half_height)
    slack_across = max(0.0, 0.65 * lobe.half_width - half_height)
    return Outline(
        down=lobe.down + slack_down * generator.uniform(-0.8, 0.8),
        across=lobe.across + slack_across * generator.uniform(-1, 1),
        half_height=half_height,
        half_width=half_height * generator.uniform(0.85, 1.6),
        tilt=generator.uniform(-0.4, 0.4),
        wobble=draw_wobble(generator, generator.uniform(0.03, 0.15), 2, 7),
    )


def _add_nodule(
    generator: Generator, canvas: Canvas, echoes: np.ndarray, outline: Outline, gland_level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Puts one nodule into the gland; returns the new decibels and the nodule's mask."""
    level = outline.level(canvas)
    is_isoechoic = generator.random() < 0.22
    if is_isoechoic:
        echo = gland_level - generator.uniform(0, 4)
        halo = -generator.uniform(10, 16) * ridge(level - 0.98, 0.12)
    else:
        echo = gland_level - generator.uniform(9, 24)
        halo = 3 * ridge(level - 1.1, 0.12)
    interior = echo + 2.5 * smooth_field(generator, canvas, 13, 13)
    echoes = echoes + (interior - echoes) * ramp(1 - level, generator.uniform(0.12, 0.4))
    if generator.random() < 0.3:
        specks = ramp(smooth_field(generator, canvas, 45, 45) - 1.3, 0.4)
        echoes = echoes + 17 * specks * ramp(0.75 - level, 0.2)
    enhancement = np.float32(generator.uniform(-4, 6))
    return echoes + halo + enhancement * behind(outline, canvas, level), level < 1
