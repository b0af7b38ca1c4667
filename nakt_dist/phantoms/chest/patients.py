"""Who is on which film: patients with their build, their studies and views.

Images come in blocks of 30, each with 12 patients, so that the patient and study of any
image are known from its place alone, and never depend on the number of images.
"""

from dataclasses import dataclass
from functools import lru_cache

from numpy.random import Generator

from nakt_dist.phantoms.fields import keyed_generator

BLOCK_IMAGES = 30
BLOCK_PATIENTS = 12


@dataclass(frozen=True)
class Visit:
    """The patient, study and view of one image.

    Attributes:
        patient: number of the patient in the dataset, from 0.
        study: number of the study among the patient's, from 0.
        first_image: place of the study's first image, which identifies the study.
        view: number of the image in its study, from 0.
        follow_up: number of the image among the patient's, from 0.
        is_lateral: whether it is a lateral view.
        is_portable: whether the study was taken in bed, from front to back (AP).
        images_in_study: images of the whole study.
    """

    patient: int
    study: int
    first_image: int
    view: int
    follow_up: int
    is_lateral: bool
    is_portable: bool
    images_in_study: int


@dataclass(frozen=True)
class Habits:
    """What a hospital's studies consist of.

    Attributes:
        with_lateral: share of the studies, among those with room for it, that are a frontal
            and a lateral view.
        two_frontal: share of them that are two frontal views.
        only_lateral: share of the studies of one image that are a lateral view.
        portable: share of the studies without a lateral view that were taken in bed.
    """

    with_lateral: float
    two_frontal: float
    only_lateral: float
    portable: float


def find_visit(seed: int, stream: str, habits: Habits, index: int) -> Visit:
    """Returns the patient, study and view of the image at a place.

    Args:
        index: place of the image in the dataset, from 0.
    """
    return _plan(seed, stream, habits, index // BLOCK_IMAGES)[index % BLOCK_IMAGES]


@lru_cache(maxsize=8)
def _plan(seed: int, stream: str, habits: Habits, block: int) -> tuple[Visit, ...]:
    generator = keyed_generator(seed, f"{stream}/visits", block)
    weights = generator.gamma(0.8, size=BLOCK_PATIENTS)
    spare = BLOCK_IMAGES - BLOCK_PATIENTS
    counts = 1 + generator.multinomial(spare, weights / weights.sum())
    visits: list[Visit] = []
    for rank, count in enumerate(counts.tolist()):
        patient = block * BLOCK_PATIENTS + rank
        visits += _patient_visits(generator, habits, patient, count, block, len(visits))
    return tuple(visits)


def _patient_visits(
    generator: Generator, habits: Habits, patient: int, count: int, block: int, before: int
) -> list[Visit]:
    visits: list[Visit] = []
    study = 0
    while len(visits) < count:
        views = _draw_views(generator, habits, count - len(visits))
        is_portable = bool(generator.random() < habits.portable) and not any(views)
        first_image = block * BLOCK_IMAGES + before + len(visits)
        visits += [
            Visit(
                patient=patient,
                study=study,
                first_image=first_image,
                view=view,
                follow_up=len(visits) + view,
                is_lateral=is_lateral,
                is_portable=is_portable,
                images_in_study=len(views),
            )
            for view, is_lateral in enumerate(views)
        ]
        study += 1
    return visits


def _draw_views(generator: Generator, habits: Habits, room: int) -> tuple[bool, ...]:
    """Draws the views of a study, True for lateral ones."""
    chance = generator.random()
    if room == 1:
        return (bool(chance < habits.only_lateral),)
    if chance < habits.with_lateral:
        return False, True
    if chance < habits.with_lateral + habits.two_frontal:
        return False, False
    return (False,)


@dataclass(frozen=True)
class Body:
    """One patient's build, in lung heights where it is a length.

    Attributes:
        age: years at the first study.
        half_width: from the midline to the side of the lungs.
        depth: from the front to the back of the lungs.
        fat: 0 slim to 1 obese.
        heart: width of a healthy heart over that of the chest.
        rib_spacing: from one rib to the next.
        rib_phase: place of the first rib, 0 to 1 spacing.
        bone: how dense the bones are, 0 to 1; falls with age.
        dome: how much higher the right half of the diaphragm stands than the left.
    """

    is_female: bool
    age: int
    half_width: float
    depth: float
    fat: float
    heart: float
    rib_spacing: float
    rib_phase: float
    bone: float
    dome: float


def draw_body(seed: int, stream: str, patient: int) -> Body:
    """Draws one patient.

    Args:
        patient: number of the patient, from 0.
    """
    generator = keyed_generator(seed, f"{stream}/bodies", patient)
    age = round(18 + 74 * generator.beta(2.2, 1.7))
    return Body(
        is_female=bool(generator.random() < 0.45),
        age=age,
        half_width=generator.uniform(0.53, 0.64),
        depth=generator.uniform(0.68, 0.86),
        fat=generator.beta(1.4, 2.2),
        heart=generator.uniform(0.38, 0.475),
        rib_spacing=generator.uniform(0.086, 0.102),
        rib_phase=generator.random(),
        bone=generator.uniform(0.75, 1.0) - 0.003 * max(age - 50, 0),
        dome=generator.uniform(0.0, 0.06),
    )
