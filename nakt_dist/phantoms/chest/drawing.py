"""Draws one chest X-ray of one hospital with everything that its tables say about it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nakt_dist.phantoms.chest import frontal, lateral
from nakt_dist.phantoms.chest.devices import draw_devices
from nakt_dist.phantoms.chest.film import HOSPITALS, Hospital, develop
from nakt_dist.phantoms.chest.findings import Sign, study_signs
from nakt_dist.phantoms.chest.frame import Frame, Lungs
from nakt_dist.phantoms.chest.patients import Body, Visit, draw_body, find_visit
from nakt_dist.phantoms.chest.signs import Shadows, cast_shadows, hernia
from nakt_dist.phantoms.fields import keyed_generator, ramp, ridge

DEVICE_WEIGHT = 0.42


@dataclass(frozen=True)
class ChestPhantom:
    """One chest X-ray and what is known about it.

    Attributes:
        grey: image, uint8 (height, width).
        kind: the hospital, a key of `HOSPITALS`.
        index: place of the image in the dataset, from 0.
        visit: its patient, study and view.
        signs: what the study shows, by finding.
    """

    grey: np.ndarray
    kind: str
    index: int
    seed: int
    visit: Visit
    body: Body
    signs: Mapping[str, Sign]


def draw_chest(kind: str, seed: int, index: int, image_size: int) -> ChestPhantom:
    """Draws one chest X-ray phantom of a hospital, a key of `HOSPITALS`."""
    hospital = HOSPITALS[kind]
    visit = find_visit(seed, kind, hospital.habits, index)
    body = draw_body(seed, kind, visit.patient)
    signs = study_signs(seed, kind, visit.patient, visit.first_image, visit.is_portable)
    generator = keyed_generator(seed, f"{kind}/films", index)
    frame = _place_chest(generator, hospital, image_size, visit)
    if visit.is_lateral:
        weakening = _lateral_film(generator, frame, body, signs)
    else:
        weakening = _frontal_film(generator, frame, body, signs, visit.is_portable)
    grey = develop(generator, hospital, frame, weakening, visit.is_portable)
    return ChestPhantom(grey, kind, index, seed, visit, body, signs)


def _place_chest(generator: Generator, hospital: Hospital, image_size: int, visit: Visit) -> Frame:
    """Draws the size of a film and where the chest lies on it."""
    aspect = hospital.aspects[int(generator.integers(len(hospital.aspects)))]
    height, width = round(image_size / aspect**0.5), round(image_size * aspect**0.5)
    lung_height = generator.uniform(*hospital.lung_height)
    if visit.is_portable:
        lung_height *= 0.95
    lung_height *= min(1.0, aspect**0.5)
    drift = generator.normal(0, hospital.drift, 2)
    return Frame(
        height=height,
        width=width,
        lung_height=lung_height,
        apex=0.5 - 0.57 * lung_height + float(drift[0]),
        middle=0.5 * width / height + float(drift[1]),
        tilt=generator.uniform(-hospital.tilt, hospital.tilt),
    )


def _frontal_film(
    generator: Generator, frame: Frame, body: Body, signs: Mapping[str, Sign], is_portable: bool
) -> np.ndarray:
    """Returns what weakens the beam on its way from back to front."""
    chest = frontal.frontal_chest(generator, body, signs, is_portable)
    lungs = frontal.frontal_lungs(chest, frame)
    middle = frontal.mediastinum(chest, frame, body.age)
    bone = frontal.bones(body, chest, frame, signs.get("Fracture"))
    shadows = cast_shadows(generator, lungs, signs)
    bone *= 1 - np.float32(0.45) * np.maximum(middle, shadows.fluid)
    bone += frontal.shoulders(generator, body, frame, is_portable)
    extra = frontal.abdomen(generator, chest, frame, lungs)
    if body.is_female:
        extra += np.float32(0.05 + 0.06 * body.fat) * frontal.breasts(body, frame)
    extra -= np.float32(0.13) * frontal.airways(chest, frame)
    film = _compose(generator, lungs, shadows, middle, extra)
    if "Hernia" in signs:
        sac, gas = hernia(frame, signs["Hernia"], chest.left_dome - 0.06, 0.06)
        film += np.float32(0.10) * sac - np.float32(0.26) * gas
    film = film * frontal.torso(body, chest, frame) + np.float32(body.bone) * bone
    return _add_devices(generator, frame, signs, film, is_frontal=True)


def _lateral_film(
    generator: Generator, frame: Frame, body: Body, signs: Mapping[str, Sign]
) -> np.ndarray:
    """Returns what weakens the beam on its way from side to side."""
    chest = lateral.lateral_chest(generator, body, signs)
    lungs = lateral.lateral_lungs(chest, frame)
    middle = lateral.lateral_heart(chest, frame)
    below = ramp(-lungs.base, 0.03)
    extra = np.float32(0.2) * below - np.float32(0.12) * lateral.lateral_airway(frame)
    shadows = cast_shadows(generator, lungs, signs)
    film = _compose(generator, lungs, shadows, np.float32(0.85) * middle, extra)
    if "Hernia" in signs:
        sac, gas = hernia(frame, signs["Hernia"], chest.dome - 0.08, 0.08)
        film += np.float32(0.16) * sac - np.float32(0.24) * gas
    bone = lateral.lateral_bones(body, chest, frame, signs.get("Fracture"))
    film = film * lateral.lateral_torso(body, chest, frame) + np.float32(body.bone) * bone
    return _add_devices(generator, frame, signs, film, is_frontal=False)


def _compose(
    generator: Generator, lungs: Lungs, shadows: Shadows, middle: np.ndarray, extra: np.ndarray
) -> np.ndarray:
    """Puts lungs with their vessels and signs into soft tissue, float32, about 0 to 1."""
    vessels = _vessels(generator, lungs) * shadows.markings
    lung = np.float32(frontal.LUNG) + vessels + shadows.density
    lung = np.clip(lung, 0.04, frontal.SOFT_TISSUE)
    air = lungs.air * (1 - np.float32(0.93) * middle) * (1 - np.float32(0.96) * shadows.fluid)
    film = np.float32(frontal.SOFT_TISSUE) + (lung - np.float32(frontal.SOFT_TISSUE)) * air
    return film + np.float32(0.14) * middle + extra


def _vessels(generator: Generator, lungs: Lungs) -> np.ndarray:
    """Returns the vessels of the lungs: they fan out from the hila and grow thinner, float32."""
    aside, below = lungs.from_hilum
    away = lungs.hilum
    bend = np.float32(0.09) * lungs.frame.noise(generator, 7)
    direction = below / (np.abs(aside) + np.abs(below) + np.float32(0.01)) + bend
    vessels = np.zeros(lungs.frame.shape, dtype=np.float32)
    patchy = ramp(lungs.frame.noise(generator, 9) + np.float32(0.3), 1.6)
    for branches, width, strength in ((2.5, 0.011, 0.11), (5.5, 0.007, 0.09)):
        fan = np.float32(branches) * direction + np.float32(generator.random())
        off = (fan - np.rint(fan)) * away * np.float32(1 / branches)
        thin = max(width, 0.45 * lungs.frame.pixel)
        vessels += np.float32(strength) * ridge(off, thin) * patchy
        patchy = 1 - patchy
    if not lungs.is_frontal:
        vessels *= np.float32(0.5)
    root = ramp(np.float32(0.075) - away, 0.12)
    mottle = np.float32(0.012) * lungs.frame.noise(generator, 14)
    return vessels / (1 + 14 * np.square(away)) + np.float32(0.10) * root + mottle


def _add_devices(
    generator: Generator,
    frame: Frame,
    signs: Mapping[str, Sign],
    film: np.ndarray,
    is_frontal: bool,
) -> np.ndarray:
    if "Support Devices" not in signs:
        return film
    sign = signs["Support Devices"]
    side = next(
        (signs[name].side for name in ("Pneumothorax", "Pleural Effusion") if name in signs),
        sign.side,
    )
    layer = draw_devices(generator, frame, sign, is_frontal, side)
    return film + np.float32(DEVICE_WEIGHT) * layer
