"""Signs within the lungs, drawn alike on frontal and lateral films of every hospital."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nakt_dist.phantoms.chest.findings import Sign
from nakt_dist.phantoms.chest.frame import Frame, Lungs
from nakt_dist.phantoms.fields import Outline, draw_wobble, ramp, ridge

MASS_RADIUS = 0.065  # lung heights; smaller lesions are nodules


@dataclass
class Shadows:
    """What the findings change about the lungs; fields are float32 of the film's shape.

    Attributes:
        density: added where there is air.
        markings: how much of the vessels shows, 0 to 1 and more.
        fluid: 1 where fluid has replaced air.
    """

    density: np.ndarray
    markings: np.ndarray
    fluid: np.ndarray


def lesion_radius(sign: Sign) -> float:
    """Returns the radius of a lung lesion in lung heights: nodules below `MASS_RADIUS`."""
    return 0.036 + 0.07 * sign.form**1.5


def cast_shadows(generator: Generator, lungs: Lungs, signs: Mapping[str, Sign]) -> Shadows:
    """Draws every finding that lies within the lungs."""
    shape = lungs.frame.shape
    shadows = Shadows(
        density=np.zeros(shape, dtype=np.float32),
        markings=np.ones(shape, dtype=np.float32),
        fluid=np.zeros(shape, dtype=np.float32),
    )
    for finding, sign in signs.items():
        if finding in _DRAWN_BY:
            _DRAWN_BY[finding](generator, lungs, sign, shadows)
    return shadows


def _place(
    lungs: Lungs, sign: Sign, lowest: float = 0.2, highest: float = 0.88
) -> tuple[float, float]:
    """Returns (down, across) of a sign within the lungs, in lung heights."""
    down = lowest + (highest - lowest) * sign.height
    if lungs.is_frontal:
        return down, sign.side * (0.2 + 0.24 * sign.lateral * (0.5 + 0.5 * down))
    return down, (sign.depth - 0.5) * (0.3 + 0.3 * down)


def _patch(generator: Generator, lungs: Lungs, sign: Sign, size: float, wobble: float) -> Outline:
    down, across = _place(lungs, sign, 0.25, 0.85)
    return Outline(
        down=down,
        across=across,
        half_height=size * generator.uniform(0.75, 1.05),
        half_width=size * generator.uniform(0.9, 1.25),
        tilt=generator.uniform(-0.4, 0.4),
        wobble=draw_wobble(generator, wobble, 2, 6),
    )


def _haze(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """A wide veil without edges, through which the vessels show."""
    outline = _patch(generator, lungs, sign, 0.16 + 0.06 * sign.form, 0.12)
    veil = ramp(np.float32(0.75) - outline.level(lungs.frame), 0.8)
    shadows.density += np.float32(0.07 + 0.10 * sign.severity) * veil


def _consolidation(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """A dense patch cut off along a fissure, with air-filled bronchi running through it."""
    frame = lungs.frame
    outline = _patch(generator, lungs, sign, 0.12 + 0.06 * sign.form, 0.14)
    slope = np.float32(generator.uniform(-0.25, 0.25))
    edge = frame.down - np.float32(outline.down) - slope * (frame.across - outline.across)
    below = 1.0 if sign.form < 0.5 else -1.0
    fissure = ramp(np.float32(below) * edge + np.float32(0.03), frame.edge(0.012))
    patch = ramp(1 - outline.level(frame), 0.25) * fissure
    aside, under = lungs.from_hilum
    fan = 7 * under / (np.abs(aside) + np.abs(under) + np.float32(0.01))
    bronchi = ridge((fan - np.rint(fan)) * lungs.hilum, 0.045)
    strength = np.float32(0.12 + 0.22 * sign.severity)
    shadows.density += strength * patch * (1 - np.float32(0.3) * bronchi)
    shadows.markings *= 1 - np.float32(0.8) * patch


def _pneumonia(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """A cluster of fluffy spots that run into one another."""
    outline = _patch(generator, lungs, sign, 0.17 + 0.04 * sign.form, 0.1)
    spots = ramp(lungs.frame.noise(generator, 15) - np.float32(0.1), 1.0)
    cluster = ramp(np.float32(0.9) - outline.level(lungs.frame), 0.5)
    shadows.density += np.float32(0.12 + 0.22 * sign.severity) * cluster * spots


def _lesion(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """A round nodule or mass with a sharp edge."""
    down, across = _place(lungs, sign)
    radius = lesion_radius(sign)
    wobble = draw_wobble(generator, 0.06, 2, 6)
    outline = Outline(down, across, radius, radius * generator.uniform(0.9, 1.15), 0.0, wobble)
    edge = lungs.frame.edge(0.01) / radius
    solid = ramp(1 - outline.level(lungs.frame), min(edge, 0.8))
    shadows.density += np.float32(0.17 + 0.18 * sign.severity) * solid


def _edema(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """Haze around both hila, thick vessels and short lines at the edges of the lungs."""
    frame = lungs.frame
    mottle = 1 + np.float32(0.3) * frame.noise(generator, 9)
    wing = ramp(np.float32(0.2) - lungs.hilum, 0.3) * mottle
    shadows.density += np.float32(0.06 + 0.2 * sign.severity) * wing
    shadows.markings *= np.float32(1.3 + 0.9 * sign.severity)
    phase = frame.down * np.float32(1 / 0.035)
    lines = ridge(phase - np.rint(phase), 0.16) * ramp(np.float32(0.06) - lungs.wall, 0.02)
    lines = lines * ramp(np.float32(0.32) - lungs.base, 0.1)
    shadows.density += np.float32(0.16 * sign.severity) * lines


def _atelectasis(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """Thin bands of collapsed lung, crowded above the raised diaphragm."""
    frame = lungs.frame
    on_side = lungs.on_side(sign.side)
    above = 0.06 + 0.12 * sign.height
    bands = np.zeros(frame.shape, dtype=np.float32)
    for number in range(2 + (sign.form > 0.5)):
        slope = np.float32(generator.uniform(-0.25, 0.25))
        line = lungs.base - np.float32(above + 0.075 * number)
        line = line + slope * (lungs.lateral - np.float32(0.5))
        start = np.float32(generator.uniform(0.1, 0.35))
        reach = ramp(lungs.lateral - start, 0.1) * ramp(start + 0.5 - lungs.lateral, 0.1)
        band = ridge(line, max(0.010, 0.6 * frame.pixel)) * reach
        bands = np.maximum(bands, band)
    shadows.density += np.float32(0.12 + 0.24 * sign.severity) * bands * on_side


def _pneumothorax(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """A dark crescent without vessels outside the thin line of the collapsed lung's edge."""
    frame = lungs.frame
    on_side = lungs.on_side(sign.side)
    width = np.float32(0.03 + 0.15 * sign.severity)
    higher = np.clip(1.15 - frame.down, 0.25, 1.1)
    line = np.minimum(lungs.wall, frame.down + np.float32(0.04)) - width * higher
    free = ramp(-line, frame.edge(0.008)) * on_side
    pleura = ridge(line, max(0.007, 0.6 * frame.pixel)) * on_side
    if not lungs.is_frontal:
        free, pleura = np.float32(0.5) * free, np.float32(0.5) * pleura
    shadows.markings *= 1 - free
    shadows.density += np.float32(0.16) * pleura - np.float32(0.09) * free
    shadows.density += np.float32(0.05 * sign.severity) * (on_side - free)


def _effusion(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """Fluid with a level that climbs along the chest wall."""
    frame = lungs.frame
    level = np.float32(0.93 - 0.36 * sign.severity)
    climb = np.square(np.clip(lungs.lateral - np.float32(0.35), 0, 1) * np.float32(1.5))
    if not lungs.is_frontal:
        climb = climb + np.square(np.maximum(0.25 - lungs.lateral, 0) * np.float32(3))
    surface = level + np.float32(0.05) - np.float32(0.17) * climb
    fluid = ramp(frame.down - surface, frame.edge(0.03)) * lungs.on_side(sign.side)
    if not lungs.is_frontal:
        fluid = fluid * np.float32(0.65)  # the other lung is in front of it
    shadows.fluid = np.maximum(shadows.fluid, fluid)


def _thickening(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """A band of white along the chest wall with an uneven inner edge."""
    frame = lungs.frame
    middle = np.float32(0.25 + 0.5 * sign.height)
    extent = ramp(np.float32(0.24) - np.abs(frame.down - middle), 0.12)
    thick = np.float32(0.025 + 0.04 * sign.severity) * (
        1 + np.float32(0.25) * frame.noise(generator, 9)
    )
    band = ramp(thick * extent - lungs.wall, frame.edge(0.012)) * extent
    shadows.density += np.float32(0.2 + 0.12 * sign.severity) * band * lungs.on_side(sign.side)


def _emphysema(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """Darker lungs with few vessels."""
    shadows.density -= np.float32(0.07 * sign.severity)
    shadows.markings *= np.float32(1 - 0.55 * sign.severity)


def _fibrosis(generator: Generator, lungs: Lungs, sign: Sign, shadows: Shadows) -> None:
    """A net of fine lines at the bases and along the chest wall."""
    frame = lungs.frame
    net = ridge(frame.noise(generator, 24), 0.3)
    where = np.maximum(ramp(0.3 - lungs.base, 0.3), ramp(0.08 - lungs.wall, 0.08))
    shadows.density += np.float32(0.08 + 0.2 * sign.severity) * net * where


_DRAWN_BY = {
    "Lung Opacity": _haze,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Lung Lesion": _lesion,
    "Edema": _edema,
    "Atelectasis": _atelectasis,
    "Pneumothorax": _pneumothorax,
    "Pleural Effusion": _effusion,
    "Pleural Thickening": _thickening,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
}


def hernia(frame: Frame, sign: Sign, down: float, across: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns wall and gas of a stomach above the diaphragm, each float32, 0 to 1.

    Args:
        down: its middle, in lung heights.
        across: its middle, in lung heights.
    """
    radius = 0.09 + 0.05 * sign.severity
    level = Outline(down, across, radius, 1.1 * radius).level(frame)
    sac = ramp(1 - level, frame.edge(0.015) / radius)
    gas = ramp(0.88 - level, 0.12) * ramp(np.float32(down + 0.1 * radius) - frame.down, 0.01)
    return sac, gas
