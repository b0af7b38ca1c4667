"""Frontal chest films: lungs, heart, diaphragm, bones and soft tissue of one patient.

A film is the sum of what weakens the beam, so that everything shines through everything
else. 0 is air outside the body and about 1 the abdomen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nakt_dist.phantoms.chest.findings import Sign
from nakt_dist.phantoms.chest.frame import Frame, Lungs
from nakt_dist.phantoms.chest.patients import Body
from nakt_dist.phantoms.fields import Outline, ramp, ridge, waves

SOFT_TISSUE = 0.60
LUNG = 0.17


@dataclass(frozen=True)
class FrontalChest:
    """Shape of one chest at one breath, in lung heights; `Frame` has the coordinates.

    Attributes:
        half_width: from the midline to the side of the lungs.
        right_dome: height of the right half of the diaphragm.
        left_dome: height of the left half.
        curvature: how much the diaphragm falls from its dome to the side.
        shift: how far the mediastinum is pushed to the patient's left.
        heart: width of the heart over that of the chest.
        widening: how much the upper mediastinum is wider than usual, on either side.
    """

    half_width: float
    right_dome: float
    left_dome: float
    curvature: float
    shift: float
    heart: float
    widening: float

    def outer(self, frame: Frame) -> np.ndarray:
        """Returns the distance of the chest wall from the midline at every pixel."""
        deep = np.clip(frame.down * np.float32(1 / 1.1), 0, 1)
        reach = np.float32(self.half_width - 0.28) * np.sqrt(deep * (2 - deep))
        return np.float32(0.28) + reach

    def inner(self, frame: Frame) -> np.ndarray:
        """Returns the distance of the mediastinum from its middle, without heart and vessels."""
        deep = np.clip(frame.down * np.float32(1 / 0.1), 0, 1)
        above = 3 * np.maximum(-frame.down, 0)
        return np.float32(0.28) - np.float32(0.17) * np.sqrt(deep) + above

    def diaphragm(self, frame: Frame) -> np.ndarray:
        """Returns the height of the diaphragm at every pixel."""
        left = ramp(frame.across, 0.2)
        dome = np.float32(self.right_dome) + np.float32(self.left_dome - self.right_dome) * left
        aside = (np.abs(frame.across) - np.float32(0.26)) * np.float32(1 / (self.half_width - 0.26))
        aside = np.maximum(aside, np.float32(0.55) * aside)  # it falls less towards the heart
        return dome + np.float32(self.curvature) * np.square(aside)


def frontal_chest(
    generator: Generator, body: Body, signs: Mapping[str, Sign], is_portable: bool
) -> FrontalChest:
    """Returns the shape of a chest at one breath, as its findings leave it."""
    breath = generator.uniform(-0.10, 0.0) if is_portable else generator.uniform(-0.05, 0.05)
    right, left = 1.0 + breath, 1.0 + breath + body.dome
    half_width, curvature = body.half_width, generator.uniform(0.11, 0.19)
    shift = generator.normal(0, 0.012)
    heart = body.heart + (0.025 if is_portable else 0.0) + 0.001 * max(body.age - 60, 0)
    if "Cardiomegaly" in signs:
        heart = max(heart, 0.48) + 0.03 + 0.15 * signs["Cardiomegaly"].severity
    if "Emphysema" in signs:
        severity = signs["Emphysema"].severity
        right, left = right + 0.13 * severity, left + 0.13 * severity
        curvature *= 1 - 0.75 * severity
        half_width += 0.03 * severity
        heart -= 0.05 * severity
    if "Fibrosis" in signs:
        right, left = (dome - 0.08 * signs["Fibrosis"].severity for dome in (right, left))
    if "Atelectasis" in signs:
        lost = signs["Atelectasis"]
        shift += 0.045 * lost.severity * lost.side
        right -= 0.13 * lost.severity * (lost.side < 0)
        left -= 0.13 * lost.severity * (lost.side > 0)
    if "Pneumothorax" in signs:
        shift -= 0.03 * signs["Pneumothorax"].severity * signs["Pneumothorax"].side
    widening = generator.uniform(0.0, 0.012) + (0.012 if is_portable else 0.0)
    if "Enlarged Cardiomediastinum" in signs:
        widening += 0.025 + 0.065 * signs["Enlarged Cardiomediastinum"].severity
    return FrontalChest(half_width, right, left, curvature, float(shift), heart, widening)


def frontal_lungs(chest: FrontalChest, frame: Frame) -> Lungs:
    """Returns the lungs of a frontal film, the heart and the great vessels not yet cut out."""
    aside = np.abs(frame.across)
    outer, diaphragm = chest.outer(frame), chest.diaphragm(frame)
    wall, base = outer - aside, diaphragm - frame.down
    shift = np.float32(chest.shift) * np.clip(4 * frame.down, 0, 1)
    medial = np.abs(frame.across - shift) - chest.inner(frame)
    inside = np.minimum(np.minimum(wall, base), medial)
    lateral = np.clip((aside - np.float32(0.12)) / (outer - np.float32(0.12)), 0, 1)
    return Lungs(
        frame=frame,
        air=ramp(inside, frame.edge(0.012)),
        wall=wall,
        base=base,
        from_hilum=(aside - np.float32(0.16), frame.down - np.float32(0.46)),
        lateral=lateral,
        is_frontal=True,
    )


def mediastinum(chest: FrontalChest, frame: Frame, age: int) -> np.ndarray:
    """Returns how thick heart and great vessels are, float32 (height, width), 0 to 1.

    The left border is aortic knob, pulmonary trunk and left ventricle, the right one is
    vena cava and right atrium.
    """
    width = 2 * chest.heart * chest.half_width
    dome = np.float32(chest.right_dome)
    down, across = frame.down, frame.across - np.float32(chest.shift)
    reach = ramp(down - np.float32(0.02), 0.1) * ramp(np.float32(0.75) - down, 0.3)
    vessels = np.float32(0.105) + np.float32(chest.widening) * reach
    vessels = vessels * ramp(down + np.float32(0.12), 0.2)
    knob = np.float32(0.055 + 0.0005 * age) * ridge(down - np.float32(0.25), 0.065)
    trunk = np.float32(0.035) * ridge(down - np.float32(0.44), 0.09)
    slope = np.clip((down - np.float32(0.40)) / (dome - np.float32(0.52)), 0, 1.6)
    ventricle = slope * (np.float32(0.75) + slope * (np.float32(0.9) - np.float32(0.65) * slope))
    left = vessels + knob + trunk + np.float32(0.67 * width - 0.105) * ventricle
    atrium = np.maximum(1 - np.square((down - dome + np.float32(0.25)) * np.float32(3.4)), 0)
    right = vessels + np.float32(0.33 * width - 0.105) * atrium
    depth = np.where(across > 0, left, right) - np.abs(across)
    edge = frame.edge(0.02)
    return ramp(depth, edge) * (np.float32(0.65) + np.float32(0.35) * ramp(depth - 0.07, 0.16))


def bones(body: Body, chest: FrontalChest, frame: Frame, fracture: Sign | None) -> np.ndarray:
    """Returns ribs and spine, float32 (height, width), about 0 to 1."""
    aside = np.abs(frame.across)
    reach = aside / np.maximum(chest.outer(frame), np.float32(0.2))
    phase = (frame.down - np.float32(0.19) * np.square(reach)) * np.float32(1 / body.rib_spacing)
    phase = phase + np.float32(body.rib_phase)
    unbroken = None
    if fracture is not None:
        phase, unbroken = _break_rib(frame, phase, reach, fracture, body)
    off = np.abs(phase - np.rint(phase))
    soft = frame.edge(0.01) / body.rib_spacing
    back = np.float32(0.6) * ramp(np.float32(0.2) - off, soft) + np.float32(0.4) * ridge(
        off - np.float32(0.16), max(0.045, 0.4 * soft)
    )
    if unbroken is not None:
        back = back * unbroken
    front = (frame.down - np.float32(0.30) * (1 - reach)) * np.float32(1 / body.rib_spacing)
    front = front + np.float32(body.rib_phase - 0.21 / body.rib_spacing)
    front = ridge(front - np.rint(front), 0.24) * ramp(reach - np.float32(0.55), 0.35)
    cage = ramp(np.float32(1.03) - reach, 0.05) * ramp(frame.down, 0.06)
    cage = cage * ramp(np.float32(1.25) - frame.down, 0.4)
    ribs = (back + np.float32(0.4) * front) * cage
    vertebrae = waves(frame.down * np.float32(1 / (0.9 * body.rib_spacing)))
    spine = ramp(np.float32(0.058) - aside, 0.045) * (1 + np.float32(0.25) * vertebrae)
    return np.float32(0.09) * ribs + np.float32(0.10) * spine


def _break_rib(
    frame: Frame, phase: np.ndarray, reach: np.ndarray, fracture: Sign, body: Body
) -> tuple[np.ndarray, np.ndarray]:
    """Breaks two or three neighbouring ribs along a line and displaces their outer pieces.

    Returns the phases with the outer pieces displaced, and how much of a rib is left: 0 in
    the gap, more than 1 at the thickened ends beside it.
    """
    first = (0.22 + 0.4 * fracture.height) / body.rib_spacing + body.rib_phase
    middle = np.rint(first) + (0.5 if fracture.form < 0.5 else 0.0)
    half = 1.0 if fracture.form < 0.5 else 1.5
    on_ribs = ramp(np.float32(half) - np.abs(phase - np.float32(middle)), 0.1)
    on_ribs = on_ribs * ramp(np.float32(fracture.side) * frame.across, 0.02)
    beyond = reach - np.float32(0.5 + 0.25 * fracture.lateral)
    severity = fracture.severity
    step = np.float32(0.15 + 0.25 * severity) * ramp(beyond, 0.04)
    gap = np.float32(0.4 + 0.6 * severity) * ridge(beyond, 0.032)
    ends = np.float32(0.6 + 0.9 * severity) * ridge(np.abs(beyond) - np.float32(0.075), 0.03)
    return phase - step * on_ribs, 1 + (ends - gap) * on_ribs


def shoulders(generator: Generator, body: Body, frame: Frame, is_portable: bool) -> np.ndarray:
    """Returns clavicles and shoulder blades, float32 (height, width), about 0 to 0.2."""
    aside = np.abs(frame.across)
    lift = np.float32(generator.uniform(-0.03, 0.02) - (0.03 if is_portable else 0.0))
    slope = np.float32(generator.uniform(0.15, 0.24))
    swing = np.float32(0.10) * np.square(aside - np.float32(0.32))
    line = np.float32(0.13) + lift - slope * (aside - np.float32(0.07)) + swing
    clavicle = ramp(np.float32(0.03) - np.abs(frame.down - line), frame.edge(0.016))
    clavicle = clavicle * ramp(aside - np.float32(0.05), 0.03) * ramp(0.72 - aside, 0.1)
    edge = np.float32(body.half_width - (0.09 if is_portable else -0.03))
    border = edge + np.float32(0.12) * (np.float32(0.3) - frame.down)
    blade = ramp(aside - border, frame.edge(0.012)) * ramp(0.30 - np.abs(frame.down - 0.27), 0.06)
    blade = blade * ramp(border + np.float32(0.24) - aside, 0.1)
    return np.float32(0.12) * clavicle + np.float32(0.06) * blade


def torso(body: Body, chest: FrontalChest, frame: Frame) -> np.ndarray:
    """Returns how thick the body is at every pixel, float32 (height, width), 0 to 1."""
    aside = np.abs(frame.across)
    fat = np.float32(body.fat)
    away = np.clip((aside - np.float32(0.17)) * np.float32(1 / 0.6), 0, 1)
    top = np.float32(-0.26) + np.float32(0.2) * away * (2 - away)
    top = top - 14 * np.maximum(np.float32(0.17) - aside, 0)
    arms = np.float32(0.45) * np.square(ramp(np.float32(0.28) - frame.down, 0.6))
    side = np.float32(chest.half_width + 0.07) + np.float32(0.13) * fat + arms
    inside = np.minimum(frame.down - top, side - aside)
    return np.sqrt(ramp(inside - np.float32(0.05), 0.14))


def breasts(body: Body, frame: Frame) -> np.ndarray:
    """Returns the shadow of the breasts, float32 (height, width), 0 to 1."""
    size = 0.20 + 0.09 * body.fat
    shade = np.zeros(frame.shape, dtype=np.float32)
    for side in (-1, 1):
        outline = Outline(0.72, side * 0.34, size, size)
        level = outline.level(frame)
        shade = np.maximum(shade, ramp(1 - level, 0.12) * ramp(frame.down - np.float32(0.7), 0.4))
    return shade


def abdomen(generator: Generator, chest: FrontalChest, frame: Frame, lungs: Lungs) -> np.ndarray:
    """Returns what lies under the diaphragm with the gas in it, float32, about 0 to 0.4."""
    below = ramp(-lungs.base, 0.03)
    shade = (np.float32(0.16) + np.float32(0.10) * ramp(-lungs.base - 0.1, 0.3)) * below
    if generator.random() < 0.6:
        bubble = Outline(
            down=chest.left_dome + generator.uniform(0.10, 0.16),
            across=generator.uniform(0.18, 0.34),
            half_height=generator.uniform(0.03, 0.07),
            half_width=generator.uniform(0.06, 0.12),
        )
        gas = ramp(1 - bubble.level(frame), 0.25)
        shade -= np.float32(generator.uniform(0.15, 0.3)) * gas * below
    return shade


def airways(chest: FrontalChest, frame: Frame) -> np.ndarray:
    """Returns trachea and main bronchi, float32 (height, width), 0 to 1."""
    aside = np.abs(frame.across - np.float32(chest.shift))
    trachea = ramp(np.float32(0.034) - aside, 0.03) * ramp(np.float32(0.34) - frame.down, 0.04)
    trachea = trachea * ramp(frame.down + np.float32(0.25), 0.1)
    bronchi = ridge(frame.down - np.float32(0.325) - np.float32(0.75) * aside, 0.025)
    return np.maximum(trachea, bronchi * ramp(np.float32(0.15) - aside, 0.06))
