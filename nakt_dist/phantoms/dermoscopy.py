"""Dermoscopy phantoms: pigmented lesions on skin, with hairs and dark corners."""

from dataclasses import dataclass
from typing import TypeVar

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
    ridge,
    smooth_field,
)

Value = TypeVar("Value")

DIAGNOSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
DIAGNOSIS_SHARES = (0.18, 0.51, 0.13, 0.03, 0.10, 0.01, 0.01, 0.03)
SITES = (
    "anterior torso", "posterior torso", "upper extremity", "lower extremity", "head/neck",
    "palms/soles",
)  # fmt: skip
NOT_SALIENT_SHARE = 0.2
SEEN_TWICE_SHARE = 0.5
UNKNOWN_SHARE = 0.08

_SKIN_TONES = np.array(
    [[0.93, 0.75, 0.67], [0.86, 0.66, 0.55], [0.70, 0.49, 0.38], [0.47, 0.31, 0.24]],
    dtype=np.float32,
)
# what is left of the red, green and blue of the skin: at the centre, at the margin
_PIGMENTS = {
    "MEL": ((0.22, 0.20, 0.26), (0.55, 0.46, 0.46)),
    "NV": ((0.46, 0.36, 0.32), (0.72, 0.60, 0.54)),
    "BCC": ((0.78, 0.55, 0.58), (0.88, 0.68, 0.70)),
    "AK": ((0.85, 0.62, 0.60), (0.92, 0.76, 0.74)),
    "BKL": ((0.52, 0.46, 0.44), (0.74, 0.68, 0.64)),
    "DF": ((0.85, 0.78, 0.76), (0.62, 0.50, 0.46)),
    "VASC": ((0.48, 0.14, 0.24), (0.72, 0.32, 0.40)),
    "SCC": ((0.88, 0.66, 0.62), (0.78, 0.52, 0.52)),
}


@dataclass(frozen=True)
class SkinLesion:
    """One lesion of one person, which one or two images show.

    Attributes:
        number: identity of the lesion within the dataset, from 0.
        diagnosis: one of `DIAGNOSES`.
        salient: False where the lesion is tiny or faint.
        age: years, a multiple of 5, or None if unknown.
        site: one of `SITES`, or None if unknown.
        sex: "female", "male", or None if unknown.
        skin: red, green and blue of the skin, float32 (3,), 0 to 1.
        size: mean half axis as a fraction of the image height.
        elongation: ratio of the half axes, at least 1.
        wobble: relative radii of the outline.
        opacity: how much of the pigment shows, 0 to 1.
    """

    number: int
    diagnosis: str
    salient: bool
    age: int | None
    site: str | None
    sex: str | None
    skin: np.ndarray
    size: float
    elongation: float
    wobble: np.ndarray
    opacity: float


@dataclass(frozen=True)
class DermoscopyPhantom:
    """One dermoscopy image and what its tables say.

    Attributes:
        colour: image, uint8 (height, width, 3).
    """

    colour: np.ndarray
    lesion: SkinLesion


def draw_dermoscopy(seed: int, index: int, image_size: int) -> DermoscopyPhantom:
    """Draws one dermoscopy phantom."""
    pair = keyed_generator(seed, "dermoscopy/pair", index // 2)
    first_of_pair = index - index % 2
    lesion = _draw_lesion(seed, first_of_pair if pair.random() < SEEN_TWICE_SHARE else index)
    generator = keyed_generator(seed, "dermoscopy", index)
    aspect = float(generator.choice([1.0, 4 / 3]))
    canvas = random_canvas(generator, image_size, aspect, aspect)
    scene = _draw_skin(generator, canvas, lesion.skin)
    scene *= _pigment(generator, canvas, lesion)
    if generator.random() < 0.6:
        scene = _add_hairs(generator, canvas, scene)
    scene *= _view(generator, canvas)[..., None]
    noise = np.float32(0.012) * generator.standard_normal(canvas.shape, dtype=np.float32)
    colour = np.clip(scene + noise[..., None], 0, 1) * 255 + np.float32(0.5)
    return DermoscopyPhantom(colour.astype(np.uint8), lesion)


def _draw_lesion(seed: int, number: int) -> SkinLesion:
    generator = keyed_generator(seed, "dermoscopy/lesion", number)
    diagnosis = str(generator.choice(DIAGNOSES, p=DIAGNOSIS_SHARES))
    salient = generator.random() >= NOT_SALIENT_SHARE
    tone = 3 * generator.beta(1.2, 2.6)
    lower = int(tone)
    skin = _SKIN_TONES[lower] + (tone - lower) * (_SKIN_TONES[lower + 1] - _SKIN_TONES[lower])
    size, opacity = generator.uniform(0.14, 0.34), generator.uniform(0.8, 1.0)
    if not salient and generator.random() < 0.5:
        size = generator.uniform(0.012, 0.03)
    elif not salient:
        opacity = generator.uniform(0.08, 0.2)
    amplitude = 0.2 if diagnosis in ("MEL", "BCC", "SCC") else 0.1
    return SkinLesion(
        number=number,
        diagnosis=diagnosis,
        salient=salient,
        age=_known(generator, 5 * int(generator.integers(3, 18))),
        site=_known(generator, str(generator.choice(SITES))),
        sex=_known(generator, str(generator.choice(["female", "male"]))),
        skin=skin.astype(np.float32),
        size=size,
        elongation=generator.uniform(1.0, 1.6),
        wobble=draw_wobble(generator, amplitude, 2, 9),
        opacity=opacity,
    )


def _known(generator: Generator, value: Value) -> Value | None:
    """Returns the value, or None for the share of entries that the tables leave blank."""
    return None if generator.random() < UNKNOWN_SHARE else value


def _draw_skin(generator: Generator, canvas: Canvas, skin: np.ndarray) -> np.ndarray:
    """Uneven skin under uneven light, float32 (height, width, 3)."""
    furrows = ridge(smooth_field(generator, canvas, 26, 26), 0.25)
    light = 1 + 0.06 * smooth_field(generator, canvas, 3, 3) - 0.04 * furrows
    redness = 0.035 * smooth_field(generator, canvas, 7, 7)
    scene = light[..., None] * skin
    scene[..., 1:] *= (1 - redness)[..., None]
    return scene


def _pigment(generator: Generator, canvas: Canvas, lesion: SkinLesion) -> np.ndarray:
    """What the lesion leaves of the skin's colour, float32 (height, width, 3)."""
    stretch = lesion.elongation**0.5
    outline = Outline(
        down=generator.uniform(0.42, 0.58),
        across=canvas.aspect * generator.uniform(0.42, 0.58),
        half_height=lesion.size / stretch,
        half_width=lesion.size * stretch,
        tilt=generator.uniform(0, np.pi),
        wobble=lesion.wobble,
    )
    mottle = smooth_field(generator, canvas, 11, 11)
    level = outline.level(canvas) + 0.08 * mottle
    centre, margin = (np.array(part, dtype=np.float32) for part in _PIGMENTS[lesion.diagnosis])
    outward = np.clip(level + 0.25 * mottle, 0, 1)
    left = centre + outward[..., None] * (margin - centre)
    left *= (1 - 0.35 * _network(generator, canvas, lesion.diagnosis))[..., None]
    cover = np.float32(lesion.opacity) * ramp(1 - level, generator.uniform(0.15, 0.4))
    return 1 + cover[..., None] * (left - 1)


def _network(generator: Generator, canvas: Canvas, diagnosis: str) -> np.ndarray:
    """Darker structure within a lesion: a net of pigment, or globules, float32 0 to 1."""
    if diagnosis in ("MEL", "NV", "DF"):
        return ridge(smooth_field(generator, canvas, 32, 32), 0.45)
    return ramp(smooth_field(generator, canvas, 22, 22) - 1.0, 0.5)


def _add_hairs(generator: Generator, canvas: Canvas, scene: np.ndarray) -> np.ndarray:
    """Draws dark curved hairs, drawn twice as large and reduced so that they are smooth."""
    layer = Image.new("L", (2 * canvas.width, 2 * canvas.height))
    pen = ImageDraw.Draw(layer)
    thickness = max(1, round(canvas.height / 64))
    along = np.linspace(0, 1, 12)
    for _ in range(int(generator.integers(1, 11))):
        knots = generator.uniform(-0.2, 1.2, (3, 2)) * (2 * canvas.width, 2 * canvas.height)
        knots[1] += 2 * (knots[[0, 2]].mean(axis=0) - knots[1]) / 3
        weights = np.stack([(1 - along) ** 2, 2 * along * (1 - along), along**2], axis=1)
        pen.line([tuple(point) for point in (weights @ knots).tolist()], 255, thickness)
    cover = np.asarray(layer.reduce(2), dtype=np.float32) * np.float32(0.85 / 255)
    hair = np.array([0.16, 0.11, 0.09], np.float32)
    return scene + cover[..., None] * (hair - scene)


def _view(generator: Generator, canvas: Canvas) -> np.ndarray:
    """The light that reaches each pixel: even, fading to the corners, or a round opening."""
    kind = generator.random()
    if kind < 0.4:
        return np.ones(canvas.shape, dtype=np.float32)
    reach = canvas.aspect / 2
    opening = Outline(0.5, reach, reach, reach).level(canvas)
    if kind < 0.8:
        return 1 - np.float32(generator.uniform(0.1, 0.4)) * np.square(opening)
    return ramp(np.float32(generator.uniform(0.95, 1.1)) - opening, 0.04)
