"""Who is on which film: patients, their studies and views, found from an image's place alone.

Images come in blocks of 30, each with 12 patients, so that the patient and study of any
image are known without knowing those before it, and never depend on the number of images.
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
        habits: what its studies consist of.
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
