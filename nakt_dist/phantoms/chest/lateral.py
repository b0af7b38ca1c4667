"""Lateral chest films: the same chest seen from its left side, front to the left."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nakt_dist.phantoms.chest.findings import Sign
from nakt_dist.phantoms.chest.frame import Frame, Lungs
from nakt_dist.phantoms.chest.patients import Body
from nakt_dist.phantoms.fields import Outline, ramp, ridge, waves


@dataclass(frozen=True)
class LateralChest:
    """Shape of one chest from the side, in lung heights.

    Attributes:
        depth: from the front to the back of the lungs at the level of the heart.
        dome: height of the diaphragm.
        curvature: how much it falls from its dome to the back.
        bulge: how far the spine is bent to the back.
        heart: half the depth of the heart.
        filled: how much of the space behind the breast bone is filled, 0 to 1.
    """

    depth: float
    dome: float
    curvature: float
    bulge: float
    heart: float
    filled: float

    def front(self, frame: Frame) -> np.ndarray:
        """Returns the place of the front of the lungs at every pixel, negative."""
        deep = np.clip(frame.down * np.float32(1 / 0.95), 0, 1)
        reach = np.float32(0.5 * self.depth - 0.12) * np.sqrt(deep * (2 - deep))
        return -(np.float32(0.12) + reach)

    def back(self, frame: Frame) -> np.ndarray:
        """Returns the place of the back of the lungs at every pixel, positive."""
        deep = np.clip(frame.down * np.float32(1 / 0.6), 0, 1)
        bend = np.maximum(1 - np.square((frame.down - np.float32(0.5)) * np.float32(1.6)), 0)
        rise = np.float32(0.5 * self.depth - 0.18) * np.sqrt(deep * (2 - deep))
        return np.float32(0.18) + rise + np.float32(self.bulge) * bend

    def diaphragm(self, frame: Frame) -> np.ndarray:
        """Returns the height of the diaphragm at every pixel."""
        away = frame.across + np.float32(0.1)
        behind, before = np.maximum(away, 0), np.maximum(-away, 0)
        fall = np.float32(self.curvature * 8) * np.square(behind) * behind
        return np.float32(self.dome) + fall + np.float32(0.5) * np.square(before)


def lateral_chest(generator: Generator, body: Body, signs: Mapping[str, Sign]) -> LateralChest:
    """Returns the shape of a chest from the side, as its findings leave it."""
    dome = 0.98 + generator.uniform(-0.05, 0.05)
    depth, curvature = body.depth, generator.uniform(0.28, 0.4)
    heart = 0.36 * body.heart + 0.01
    if "Cardiomegaly" in signs:
        heart += 0.025 + 0.075 * signs["Cardiomegaly"].severity
    if "Emphysema" in signs:
        severity = signs["Emphysema"].severity
        depth, dome = depth + 0.09 * severity, dome + 0.1 * severity
        curvature *= 1 - 0.6 * severity
    if "Fibrosis" in signs:
        dome -= 0.08 * signs["Fibrosis"].severity
    if "Atelectasis" in signs:
        dome -= 0.06 * signs["Atelectasis"].severity
    filled = generator.uniform(0.0, 0.2)
    if "Enlarged Cardiomediastinum" in signs:
        filled += 0.2 + 0.6 * signs["Enlarged Cardiomediastinum"].severity
    bulge = generator.uniform(0.02, 0.06) + 0.0006 * body.age
    return LateralChest(depth, dome, curvature, bulge, heart, filled)


def lateral_lungs(chest: LateralChest, frame: Frame) -> Lungs:
    """Returns the lungs of a lateral film, the heart not yet cut out."""
    front, back = chest.front(frame), chest.back(frame)
    wall = np.minimum(frame.across - front, back - frame.across)
    base = chest.diaphragm(frame) - frame.down
    top = frame.down - np.float32(0.7) * np.square(frame.across - np.float32(0.03))
    inside = np.minimum(np.minimum(wall, base), top)
    return Lungs(
        frame=frame,
        air=ramp(inside, frame.edge(0.012)),
        wall=wall,
        base=base,
        from_hilum=(frame.across - np.float32(0.05), frame.down - np.float32(0.44)),
        lateral=np.clip((frame.across - front) / (back - front), 0, 1),
        is_frontal=False,
    )


def lateral_heart(chest: LateralChest, frame: Frame) -> np.ndarray:
    """Returns how thick heart and great vessels are, float32 (height, width), 0 to 1.

    The heart lies on the diaphragm behind the breast bone; above it a space is clear.
    """
    heart = Outline(
        down=chest.dome - 0.16,
        across=-0.5 * chest.depth + 0.07 + chest.heart,
        half_height=0.30,
        half_width=chest.heart,
        tilt=-0.3,
    )
    cover = np.float32(0.85) * ramp(np.float32(0.93) - heart.level(frame), 0.28)
    vessels = Outline(0.34, -0.06, 0.26, 0.11, 0.15)
    upper = np.float32(0.4 + 0.3 * chest.filled) * ramp(1 - vessels.level(frame), 0.6)
    clear = ramp(np.float32(-0.05) - frame.across, 0.1) * ramp(0.6 - frame.down, 0.2)
    return np.maximum(np.maximum(cover, upper), np.float32(0.85 * chest.filled) * clear)


def lateral_bones(
    body: Body, chest: LateralChest, frame: Frame, fracture: Sign | None
) -> np.ndarray:
    """Returns spine, ribs and breast bone, float32 (height, width), about 0 to 0.25."""
    front, back = chest.front(frame), chest.back(frame)
    spacing = body.rib_spacing
    column = back - np.float32(0.10) - frame.across
    cell = waves(frame.down * np.float32(1 / (0.95 * spacing)))
    bodies = ramp(np.float32(0.058) - np.abs(column), 0.02) * (np.float32(0.9) + 0.4 * cell)
    fading = np.float32(1.1) - np.float32(0.55) * np.clip(frame.down, 0, 1)
    ribs = np.zeros(frame.shape, dtype=np.float32)
    for offset, strength in ((0.0, 0.7), (0.37, 0.5)):
        line = frame.down - np.float32(0.55) * (back - frame.across)
        phase = line * np.float32(1 / (1.15 * spacing)) + np.float32(body.rib_phase + offset)
        ribs += np.float32(strength) * ridge(phase - np.rint(phase), 0.15)
    if fracture is not None:
        place = Outline(0.3 + 0.45 * fracture.height, 0.30, 0.035, 0.045)
        ribs *= 1 - np.float32(fracture.severity) * ramp(1 - place.level(frame), 0.4)
    reach = ramp(back + np.float32(0.03) - frame.across, 0.03)
    reach = reach * ramp(frame.across - front - np.float32(0.12), 0.2)
    reach = reach * ramp(frame.down - np.float32(0.02), 0.1) * ramp(1.3 - frame.down, 0.4)
    breast = ridge(frame.across - front + np.float32(0.025), 0.02) * ramp(0.7 - frame.down, 0.1)
    breast = breast * ramp(frame.down - np.float32(0.05), 0.05)
    spine = bodies * fading * ramp(frame.down + np.float32(0.3), 0.2)
    return np.float32(0.2) * spine + np.float32(0.05) * ribs * reach + np.float32(0.12) * breast


def lateral_torso(body: Body, chest: LateralChest, frame: Frame) -> np.ndarray:
    """Returns how thick the body is at every pixel, float32 (height, width), 0 to 1."""
    fat = np.float32(body.fat)
    breast = Outline(0.66, -0.5 * chest.depth - 0.01, 0.27, 0.13 + 0.08 * body.fat)
    before = frame.across - chest.front(frame) + np.float32(0.05) + np.float32(0.07) * fat
    behind = chest.back(frame) - frame.across + np.float32(0.09) + np.float32(0.05) * fat
    arms = np.float32(0.28) * ramp(np.float32(0.06) - frame.down, 0.35)
    inside = np.minimum(before + arms, behind + arms * np.float32(0.5))
    thick = np.sqrt(ramp(inside - np.float32(0.04), 0.12))
    if body.is_female:
        thick = np.maximum(
            thick, np.float32(0.9) * np.sqrt(ramp(np.float32(0.6) - breast.level(frame), 0.8))
        )
    return thick


def lateral_airway(frame: Frame) -> np.ndarray:
    """Returns the trachea from the side, float32 (height, width), 0 to 1."""
    line = frame.across - np.float32(0.01) - np.float32(0.14) * frame.down
    trachea = ramp(np.float32(0.036) - np.abs(line), 0.03)
    trachea = trachea * ramp(np.float32(0.42) - frame.down, 0.05)
    return trachea * ramp(frame.down + np.float32(0.25), 0.1)
